//! The state as bytes, slot by slot, while writes go on.
//!
//! All integers are little endian. A snapshot is a head, any number of slot blocks (each slot at most once, in any
//! order, empty slots left out) and an end:
//!
//! | part | offset | size | field |
//! | --- | --- | --- | --- |
//! | head | 0 | 1 | version, [`VERSION`] |
//! | | 1 | 2 | first slot of the partition |
//! | | 3 | 2 | last slot of the partition |
//! | slot | 0 | 2 | slot |
//! | | 2 | 4 | number n of its records, at least 1 |
//! | | 6 | | n records, ordered by (xxh3 of the key, key) |
//! | record | 0 | 1 | kind: [`KIND_STRING`], plus [`KIND_EXPIRES`] when it has an expiry |
//! | | 1 | 2 | length k of the key |
//! | | 3 | 4 | length v of the value |
//! | | 7 | 0 or 8 | expiry, milliseconds since 1970 |
//! | | then | k | key |
//! | | then | v | value |
//! | end | 0 | 2 | [`END`], which is no slot |
//! | | 2 | 8 | number of records |
//! | | 10 | 8 | digest of the content, as [`Store::digest`] |
//!
//! Equal content gives equal blocks; only their order tells which slots were written to meanwhile.

use std::collections::VecDeque;

use crate::{
    Store,
    record::{LOGICAL_OVERHEAD_BYTES, Record, hash_key},
    slots::SlotTables,
};

/// Version of the format: the first byte.
pub(crate) const VERSION: u8 = 1;
/// Kind of a string record.
pub(crate) const KIND_STRING: u8 = 0;
/// Bit of a record's kind: an expiry follows.
pub(crate) const KIND_EXPIRES: u8 = 0x80;
/// In place of a slot: the end of the snapshot.
pub(crate) const END: u16 = u16::MAX;
/// Bytes of a record beside its expiry, key and value.
pub(crate) const RECORD_HEAD_BYTES: usize = 7;

/// Bytes of the records of a snapshot of so many keys of so many logical bytes. Its slots come to 6 bytes each, its head and
/// end to 23.
#[must_use]
pub fn snapshot_bytes(keys: u64, logical_bytes: u64) -> u64 {
    logical_bytes.saturating_sub(keys.saturating_mul(LOGICAL_OVERHEAD_BYTES - RECORD_HEAD_BYTES as u64))
}

/// A snapshot that is being written.
///
/// # Invariants
/// - A slot is *written* once its block is in `ahead` or was handed out. Until then its records as of the beginning stand
///   in `frozen` if there is that, else in the store's tables.
/// - Every slot below `next` is written.
#[derive(Debug)]
pub(crate) struct Snapshot {
    first: u16,
    next: usize,
    is_written: Vec<bool>,
    /// Parts that are ready to be handed out: the head, then blocks of slots that were written to.
    ahead: VecDeque<Vec<u8>>,
    ahead_bytes: usize,
    /// The tables that the first FLUSHALL took away.
    frozen: Option<SlotTables>,
    keys: u64,
    digest: u64,
}

impl Store {
    /// Begins a snapshot of the current state; one that is running is aborted.
    pub fn snapshot_begin(&mut self) {
        self.snapshot_abort();
        self.snapshot = Some(Snapshot::new(self.first_slot(), self.last_slot()));
    }

    /// Appends whole slots to `out` until at least `bytes` (at least 1) were appended or the end is reached. Returns
    /// true at the end: the snapshot is complete and no longer runs. Without a running snapshot nothing is appended.
    pub fn snapshot_next(&mut self, bytes: usize, out: &mut Vec<u8>) -> bool {
        let Some(mut snapshot) = self.snapshot.take() else { return true };
        let enough = out.len().saturating_add(bytes.max(1));
        while out.len() < enough {
            if let Some(part) = snapshot.ahead.pop_front() {
                snapshot.ahead_bytes -= part.len();
                out.extend_from_slice(&part);
            } else if snapshot.next < self.tables().slots_len() {
                snapshot.step(self.tables(), out);
            } else {
                self.garbage.extend(snapshot.frozen.take());
                snapshot.end(out);
                return true;
            }
        }
        self.snapshot = Some(snapshot);
        false
    }

    /// Gives up the running snapshot, if any.
    pub fn snapshot_abort(&mut self) {
        if let Some(snapshot) = self.snapshot.take() {
            self.garbage.extend(snapshot.frozen);
        }
    }

    /// Bytes of slots that were serialised ahead of the walk, because they were written to, and wait to be taken; at most
    /// the size of the snapshot. A caller that sees much of it calls [`Store::snapshot_next`] before it applies more.
    pub fn snapshot_ahead_bytes(&self) -> usize {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.ahead_bytes)
    }

    /// Whether a snapshot is running.
    pub fn is_snapshot_running(&self) -> bool {
        self.snapshot.is_some()
    }
}

impl Snapshot {
    fn new(first: u16, last: u16) -> Self {
        let mut head = vec![VERSION];
        head.extend_from_slice(&first.to_le_bytes());
        head.extend_from_slice(&last.to_le_bytes());
        Self {
            first,
            next: 0,
            is_written: vec![false; usize::from(last - first) + 1],
            ahead_bytes: head.len(),
            ahead: VecDeque::from([head]),
            frozen: None,
            keys: 0,
            digest: 0,
        }
    }

    /// Whether slots are left that it reads from the store's tables.
    pub(crate) fn needs_tables(&self) -> bool {
        self.frozen.is_none() && self.next < self.is_written.len()
    }

    /// Serialises a slot that is about to change, unless it is written or frozen.
    pub(crate) fn write_ahead(&mut self, i: usize, tables: &SlotTables) {
        if self.frozen.is_some() || core::mem::replace(&mut self.is_written[i], true) || tables.len_of(i) == 0
        {
            return;
        }
        let mut block = Vec::new();
        self.write(i, tables, &mut block);
        self.ahead_bytes += block.len();
        self.ahead.push_back(block);
    }

    /// Keeps the tables, in place of serialising them.
    pub(crate) fn freeze(&mut self, tables: SlotTables) {
        debug_assert!(self.frozen.is_none(), "later tables do not matter");
        self.frozen = Some(tables);
    }

    /// Writes the next slot of the walk.
    fn step(&mut self, tables: &SlotTables, out: &mut Vec<u8>) {
        let i = self.next;
        self.next += 1;
        let frozen = self.frozen.take();
        let tables = frozen.as_ref().unwrap_or(tables);
        if !core::mem::replace(&mut self.is_written[i], true) && tables.len_of(i) != 0 {
            self.write(i, tables, out);
        }
        self.frozen = frozen;
    }

    fn write(&mut self, i: usize, tables: &SlotTables, out: &mut Vec<u8>) {
        let mut records: Vec<_> =
            tables.records_of(i).map(|record| (hash_key(record.key()), record)).collect();
        records.sort_unstable_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.key().cmp(y.key())));
        out.extend_from_slice(&(self.first + i as u16).to_le_bytes());
        out.extend_from_slice(&(records.len() as u32).to_le_bytes());
        for (_, record) in records {
            self.keys += 1;
            self.digest = self.digest.wrapping_add(record.digest());
            write_record(record, out);
        }
    }

    fn end(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&END.to_le_bytes());
        out.extend_from_slice(&self.keys.to_le_bytes());
        out.extend_from_slice(&self.digest.to_le_bytes());
    }

    /// Checks the invariants of the type.
    pub(crate) fn check_invariants(&self, tables_len: usize) {
        let ahead_bytes: usize = self.ahead.iter().map(Vec::len).sum();
        assert_eq!(self.ahead_bytes, ahead_bytes, "bytes ahead are counted");
        assert_eq!(self.is_written.len(), tables_len, "a snapshot knows every table");
        assert!(self.next <= tables_len, "the walk stays within the tables");
        assert!(self.is_written[..self.next].iter().all(|w| *w), "the walk wrote what it passed");
        let frozen_len = self.frozen.as_ref().map_or(tables_len, SlotTables::slots_len);
        assert_eq!(frozen_len, tables_len, "what is frozen are tables of the same slots");
    }
}

fn write_record(record: Record<'_>, out: &mut Vec<u8>) {
    let (key, value, expiry) = (record.key(), record.value(), record.expires_at_ms());
    out.push(KIND_STRING | if expiry.is_some() { KIND_EXPIRES } else { 0 });
    out.extend_from_slice(&(key.len() as u16).to_le_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    if let Some(ms) = expiry {
        out.extend_from_slice(&ms.to_le_bytes());
    }
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use crate::{Store, commands::testing::Session};

    fn restore(bytes: &[u8]) -> Store {
        let mut restorer = Store::restorer(0, 16383);
        restorer.push(bytes).unwrap();
        let store = restorer.finish().unwrap();
        store.check_invariants();
        store
    }

    #[test]
    fn flushall_freezes_tables_and_serialises_nothing() {
        let mut session = Session::new();
        for i in 0..1000 {
            session.run(&format!("SET {i} v"));
        }
        let digest = session.store.digest();
        session.store.snapshot_begin();
        session.run("SET 1 w");
        session.run("FLUSHALL");
        let snapshot = session.store.snapshot.as_ref().unwrap();
        assert_eq!(snapshot.ahead.len(), 2, "the head and the slot of the SET");
        assert!(snapshot.frozen.is_some());
        let ahead_bytes = session.store.snapshot_ahead_bytes();
        assert!((10..1000).contains(&ahead_bytes), "{ahead_bytes} bytes of one slot");
        session.run("SET 2 new");
        session.run("FLUSHALL");
        assert_eq!(session.store.snapshot_ahead_bytes(), ahead_bytes);
        let mut bytes = Vec::new();
        assert!(session.store.snapshot_next(usize::MAX, &mut bytes));
        assert!(!session.store.is_snapshot_running());
        assert_eq!(restore(&bytes).digest(), digest);
        while session.store.reclaim(1000) {}
    }

    #[test]
    fn parts_are_whole_slots_of_about_the_size_asked_for() {
        let mut session = Session::new();
        for i in 0..500 {
            session.run(&format!("SET {i} 0123456789"));
        }
        session.store.snapshot_begin();
        let mut bytes = vec![];
        let mut parts = 0;
        loop {
            let before = bytes.len();
            let is_end = session.store.snapshot_next(100, &mut bytes);
            parts += 1;
            if is_end {
                break;
            }
            assert!((100..300).contains(&(bytes.len() - before)));
        }
        assert!(50 < parts);
        assert_eq!(restore(&bytes).digest(), session.store.digest());
        assert!(session.store.snapshot_next(100, &mut bytes), "nothing runs any more");
    }

    #[test]
    fn equal_content_gives_equal_bytes() {
        let (mut one, mut two) = (Session::new(), Session::new());
        for i in 0..300 {
            one.run(&format!("SET {{t}}{i} v"));
            two.run(&format!("SET {{t}}{} v", 299 - i));
            two.run(&format!("SET {{t}}gone{i} v"));
            two.run(&format!("DEL {{t}}gone{i}"));
        }
        let bytes = [&mut one, &mut two].map(|session| {
            let mut bytes = Vec::new();
            session.store.snapshot_begin();
            assert!(session.store.snapshot_next(usize::MAX, &mut bytes));
            bytes
        });
        assert_eq!(bytes[0], bytes[1]);
        assert_eq!(one.store.digest(), two.store.digest());
    }

    #[test]
    fn its_size_is_known_beforehand() {
        let mut session = Session::new();
        for i in 0..1000 {
            session.run(&format!("SET {{t}}{i} {} EX 1000", "v".repeat(i)));
            session.run(&format!("SET {{t}}long{i} v"));
        }
        let mut bytes = Vec::new();
        session.store.snapshot_begin();
        assert!(session.store.snapshot_next(usize::MAX, &mut bytes));
        let (keys, logical_bytes) = (session.store.len() as u64, session.store.logical_bytes());
        assert_eq!(bytes.len() as u64, 5 + 6 + crate::snapshot_bytes(keys, logical_bytes) + 18);
    }

    #[test]
    fn abort_and_begin_again() {
        let mut session = Session::new();
        session.script("MSET a 1 b 2 -> +OK");
        session.store.snapshot_begin();
        let mut bytes = Vec::new();
        assert!(!session.store.snapshot_next(1, &mut bytes));
        session.run("FLUSHALL");
        session.store.snapshot_abort();
        assert!(!session.store.is_snapshot_running());
        session.script("SET c 3 -> +OK");
        session.store.snapshot_begin();
        session.store.snapshot_begin();
        bytes.clear();
        assert!(session.store.snapshot_next(usize::MAX, &mut bytes));
        assert_eq!(restore(&bytes).keys_in_slot(7365, 9), [b"c"]);
    }
}
