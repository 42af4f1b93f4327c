//! What a log entry of a partition holds: one turn's writes.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 2 | feature level |
//! | 2 | 8 | log time, ms since 1970: the leader's wall clock, never below the previous entry's |
//! | 10 | 8 | seed for commands that draw random values |
//! | 18 | 4 | count of operations |
//! | 22 | .. | operations |
//!
//! Operation: [`OpKind`] (1), session (8), seq (8), acked (8), length of the body (4), body.
//! The body of `Command` is a [`crate::request::CommandBody`]; of `Expire`: expiry in ms (8), then the key; of `Limit`:
//! see `MemoryLimit::encode` of the store; of `Evict`: digest of the record (8), then the key.

use crate::FEATURE_LEVEL;
use crate::frame::{Reader, WireError};

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum OpKind {
    /// Executes a command.
    Command = 1,
    /// Opens a session; its id is the entry's index x 2^16 + the operation's position in the entry.
    OpenSession = 2,
    /// Gives up a seq of a session.
    Skip = 3,
    /// Deletes a key if its expiry is exactly the one given.
    Expire = 4,
    /// Sets how much memory the partition may use, and what happens beyond.
    Limit = 5,
    /// Deletes a key to make room, if its record is exactly the one that was judged.
    Evict = 6,
}

/// One operation of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op<'a> {
    /// What it does.
    pub kind: OpKind,
    /// Session, 0 = none.
    pub session: u64,
    /// Its number in the session.
    pub seq: u64,
    /// Replies up to this seq may be forgotten.
    pub acked: u64,
    /// See the table above.
    pub body: &'a [u8],
}

/// Bytes before an entry's first operation.
pub const ENTRY_HEADER_BYTES: usize = 22;
/// Bytes before an operation's body.
pub const OP_HEADER_BYTES: usize = 29;
/// Most operations of one entry: the position in it must fit the low 16 bits of a session id.
pub const OPS_MAX: usize = 1 << 16;

/// Builds one entry, operation by operation.
#[derive(Debug, Default)]
pub struct EntryBuilder {
    bytes: Vec<u8>,
    count: u32,
}

impl EntryBuilder {
    /// Number of operations so far.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is no operation yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size in bytes so far.
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends an operation.
    pub fn push(&mut self, op: &Op<'_>) {
        assert!(self.len() < OPS_MAX, "an entry holds at most {OPS_MAX} operations");
        if self.bytes.is_empty() {
            self.bytes.reserve_exact(ENTRY_HEADER_BYTES + OP_HEADER_BYTES + op.body.len());
            self.bytes.resize(ENTRY_HEADER_BYTES, 0);
        }
        let mut head = [0u8; OP_HEADER_BYTES];
        head[0] = op.kind as u8;
        head[1..9].copy_from_slice(&op.session.to_le_bytes());
        head[9..17].copy_from_slice(&op.seq.to_le_bytes());
        head[17..25].copy_from_slice(&op.acked.to_le_bytes());
        head[25..29].copy_from_slice(&(op.body.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&head);
        self.bytes.extend_from_slice(op.body);
        self.count += 1;
    }

    /// The operations so far, in order.
    pub fn ops(&self) -> impl Iterator<Item = Result<Op<'_>, WireError>> {
        read_ops(self.bytes.get(ENTRY_HEADER_BYTES..).unwrap_or_default(), self.count)
    }

    /// Appends all operations of another one.
    pub fn append(&mut self, other: &Self) {
        assert!(self.len() + other.len() <= OPS_MAX, "an entry holds at most {OPS_MAX} operations");
        if self.bytes.is_empty() {
            self.bytes.resize(ENTRY_HEADER_BYTES, 0);
        }
        self.bytes.extend_from_slice(other.bytes.get(ENTRY_HEADER_BYTES..).unwrap_or_default());
        self.count += other.count;
    }

    /// Takes off the operations that would not have been pushed if an operation whose body makes the entry longer than `bytes_max`,
    /// or that is one more than `ops_max`, began another entry. The first operation always stays.
    pub fn split_off(&mut self, bytes_max: usize, ops_max: usize) -> Option<Self> {
        if self.bytes_len() <= bytes_max && self.len() <= ops_max {
            return None;
        }
        let mut at = ENTRY_HEADER_BYTES;
        let mut count = 0;
        for op in self.ops().map_while(Result::ok) {
            if count > 0 && (at + op.body.len() > bytes_max || count == ops_max) {
                break;
            }
            at += OP_HEADER_BYTES + op.body.len();
            count += 1;
        }
        let count = count as u32;
        if count == self.count {
            return None;
        }
        let mut rest = vec![0; ENTRY_HEADER_BYTES];
        rest.extend_from_slice(&self.bytes[at..]);
        self.bytes.truncate(at);
        let rest_count = self.count - count;
        self.count = count;
        Some(Self { bytes: rest, count: rest_count })
    }

    /// Finishes the entry and leaves the builder empty.
    pub fn finish(&mut self, log_time_ms: u64, seed: u64) -> Vec<u8> {
        let mut bytes = core::mem::take(&mut self.bytes);
        bytes.resize(bytes.len().max(ENTRY_HEADER_BYTES), 0);
        bytes[..2].copy_from_slice(&FEATURE_LEVEL.to_le_bytes());
        bytes[2..10].copy_from_slice(&log_time_ms.to_le_bytes());
        bytes[10..18].copy_from_slice(&seed.to_le_bytes());
        bytes[18..22].copy_from_slice(&self.count.to_le_bytes());
        // It is kept for a while: without the room that its growth left.
        bytes.shrink_to_fit();
        self.count = 0;
        bytes
    }
}

/// An entry's header and operations.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Feature level of its writer.
    pub feature_level: u16,
    /// See the table above.
    pub log_time_ms: u64,
    /// See the table above.
    pub seed: u64,
    count: u32,
    ops: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// It is malformed.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes, "log entry");
        Ok(Self {
            feature_level: r.u16()?,
            log_time_ms: r.u64()?,
            seed: r.u64()?,
            count: r.u32()?,
            ops: r.rest(),
        })
    }

    /// The operations, in order; the first malformed one ends them with an error.
    pub fn ops(&self) -> impl Iterator<Item = Result<Op<'a>, WireError>> + use<'a> {
        read_ops(self.ops, self.count)
    }
}

fn read_ops(bytes: &[u8], count: u32) -> impl Iterator<Item = Result<Op<'_>, WireError>> {
    let mut r = Reader::new(bytes, "log operation");
    (0..count).map(move |_| {
        let kind = match r.u8()? {
            1 => OpKind::Command,
            2 => OpKind::OpenSession,
            3 => OpKind::Skip,
            4 => OpKind::Expire,
            5 => OpKind::Limit,
            6 => OpKind::Evict,
            _ => return Err(r.malformed()),
        };
        Ok(Op { kind, session: r.u64()?, seq: r.u64()?, acked: r.u64()?, body: r.bytes()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_joined() {
        let op = |seq| Op { kind: OpKind::Evict, session: 0, seq, acked: 0, body: b"12345678key" };
        let (mut first, mut second, mut empty) = <(EntryBuilder, EntryBuilder, EntryBuilder)>::default();
        first.push(&op(1));
        second.push(&op(2));
        second.push(&op(3));
        first.append(&second);
        first.append(&EntryBuilder::default());
        assert_eq!(empty.ops().count(), 0);
        empty.append(&first);
        assert!(empty.ops().map(Result::unwrap).eq([op(1), op(2), op(3)]));
        let bytes = empty.finish(1, 2);
        let ops: Vec<_> = Entry::decode(&bytes).unwrap().ops().map(Result::unwrap).collect();
        assert_eq!(ops, [op(1), op(2), op(3)]);
    }

    #[test]
    fn an_entry_is_cut_where_another_would_have_begun() {
        let op = |seq| Op { kind: OpKind::Evict, session: 0, seq, acked: 0, body: b"12345678key" };
        let each = OP_HEADER_BYTES + 11;
        let cut = |bytes_max, ops_max| {
            let mut first = EntryBuilder::default();
            (1..=5).for_each(|seq| first.push(&op(seq)));
            let rest = first.split_off(bytes_max, ops_max);
            let rest: Vec<_> = rest.iter().flat_map(EntryBuilder::ops).map(Result::unwrap).collect();
            let all = first.ops().map(Result::unwrap).chain(rest.iter().copied());
            assert_eq!(all.map(|op| op.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
            rest.len()
        };
        let full = ENTRY_HEADER_BYTES + 4 * each + 11;
        assert_eq!([cut(full, 5), cut(full - 1, 5), cut(full - each, 5)], [0, 1, 1]);
        assert_eq!([cut(full, 4), cut(full, 1), cut(0, 5), cut(full - each - 1, 3)], [1, 4, 4, 2]);
    }

    #[test]
    fn entry_round_trips() {
        let ops = [
            Op { kind: OpKind::OpenSession, session: 0, seq: 0, acked: 0, body: b"" },
            Op { kind: OpKind::Command, session: 7, seq: 2, acked: 1, body: b"body" },
        ];
        let mut builder = EntryBuilder::default();
        for op in &ops {
            builder.push(op);
        }
        let bytes = builder.finish(1000, 42);
        assert!(builder.is_empty());
        let entry = Entry::decode(&bytes).unwrap();
        assert_eq!((entry.log_time_ms, entry.seed, entry.feature_level), (1000, 42, FEATURE_LEVEL));
        assert_eq!(entry.ops().collect::<Result<Vec<_>, _>>().unwrap(), ops);
    }
}
