//! Snapshot bytes -> store. The format is described in `snapshot.rs`.

use crate::{
    KEY_BYTES_MAX, MemoryLimit, Store, VALUE_BYTES_MAX,
    record::{Content, EXPIRY_MS_MAX},
    snapshot::{END, KIND_EXPIRES, KIND_STRING, RECORD_HEAD_BYTES, VERSION},
};

const HEAD_BYTES: usize = 5;
const SLOT_BYTES: usize = 2;
const BLOCK_HEAD_BYTES: usize = SLOT_BYTES + 4;
const END_BYTES: usize = SLOT_BYTES + 16;
/// Bytes of the next piece that are first looked at for the end of a part that began in the one before; then twice as many, ...
const REST_BYTES_MIN: usize = 256;

/// Why bytes are no snapshot of this partition. The store under construction is lost; ask for another snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Written by a version that this one does not know.
    #[error("snapshot has format version {0}, this program reads version {VERSION}")]
    Version(u8),
    /// Of another partition.
    #[error("snapshot is of slots {first} to {last}")]
    OtherSlots {
        /// Its first slot.
        first: u16,
        /// Its last slot.
        last: u16,
    },
    /// A slot that is not of this partition, comes twice or has no record.
    #[error("snapshot has an invalid block for slot {0}")]
    Slot(u16),
    /// A record of an unknown kind, too long, of another slot, or of a key that came before.
    #[error("snapshot has an invalid record in slot {0}")]
    Record(u16),
    /// The count or the digest at the end is not that of the records.
    #[error("snapshot's content does not match its digest")]
    Digest,
    /// Bytes after the end.
    #[error("snapshot goes on after its end")]
    Trailing,
    /// The end is missing.
    #[error("snapshot is cut off")]
    Truncated,
    /// An earlier piece was invalid.
    #[error("snapshot was invalid before")]
    Failed,
}

/// Builds a store out of a snapshot's bytes, in pieces of any size.
///
/// Keeps at most one incomplete record beside the piece at hand; what the bytes claim sizes no allocation above a kilobyte.
///
/// ```text
///        head            slot, count > 0            last record
/// Head --------> Block ----------------> Records ----------------> Block
///                  | END, count, digest
///                  +-------------------> End        any --(error)--> Failed
/// ```
#[derive(Debug)]
pub struct Restorer {
    store: Store,
    state: State,
    /// Bytes that are not a whole part yet.
    rest: Vec<u8>,
    digest: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Block,
    Records { slot: u16, left: u32 },
    End,
    Failed,
}

impl Store {
    /// Makes a restorer of a snapshot of the slots `first..=last`.
    ///
    /// # Panics
    /// When `first..=last` is no range of slots.
    pub fn restorer(first: u16, last: u16) -> Restorer {
        Restorer { store: Self::new(first, last), state: State::Head, rest: Vec::new(), digest: 0 }
    }
}

impl Restorer {
    /// The limit and the log time of the state that the snapshot is of: the keys count as used then.
    pub fn set_limit(&mut self, limit: MemoryLimit, log_time_ms: u64) {
        self.store.usage.limit = limit;
        self.store.usage.log_time_ms = log_time_ms;
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// The bytes are no snapshot of this partition; every later call fails as well.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), RestoreError> {
        let mut piece = piece;
        // Only the part that began in the piece before is put together anew.
        let mut rest = core::mem::take(&mut self.rest);
        let mut more = REST_BYTES_MIN;
        while !rest.is_empty() && !piece.is_empty() {
            let had = rest.len();
            rest.extend_from_slice(&piece[..more.min(piece.len())]);
            if let Some(len) = self.part_or_fail(&rest)? {
                // It was not whole before.
                piece = &piece[len - had..];
                rest.clear();
            } else {
                piece = &piece[rest.len() - had..];
                more = rest.len();
            }
        }
        if rest.is_empty() {
            while let Some(len) = self.part_or_fail(piece)? {
                piece = &piece[len..];
            }
            rest.extend_from_slice(piece);
        }
        self.rest = rest;
        Ok(())
    }

    fn part_or_fail(&mut self, bytes: &[u8]) -> Result<Option<usize>, RestoreError> {
        self.part(bytes).inspect_err(|_| self.state = State::Failed)
    }

    /// Ends the restoration.
    ///
    /// # Errors
    /// The end did not come, or a piece was invalid.
    pub fn finish(self) -> Result<Store, RestoreError> {
        match self.state {
            State::End => Ok(self.store),
            State::Failed => Err(RestoreError::Failed),
            State::Head | State::Block | State::Records { .. } => Err(RestoreError::Truncated),
        }
    }

    /// Consumes one whole part at the start of `bytes`; its length, or `None` when it is not whole yet.
    fn part(&mut self, bytes: &[u8]) -> Result<Option<usize>, RestoreError> {
        match self.state {
            State::Head => self.head(bytes),
            State::Block => self.block(bytes),
            State::Records { slot, left } => self.record(slot, left, bytes),
            State::End if bytes.is_empty() => Ok(None),
            State::End => Err(RestoreError::Trailing),
            State::Failed => Err(RestoreError::Failed),
        }
    }

    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, RestoreError> {
        match bytes.first() {
            Some(&version) if version != VERSION => return Err(RestoreError::Version(version)),
            _ => {}
        }
        let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let first = u16::from_le_bytes([head[1], head[2]]);
        let last = u16::from_le_bytes([head[3], head[4]]);
        if (first, last) != (self.store.first_slot(), self.store.last_slot()) {
            return Err(RestoreError::OtherSlots { first, last });
        }
        self.state = State::Block;
        Ok(Some(HEAD_BYTES))
    }

    fn block(&mut self, bytes: &[u8]) -> Result<Option<usize>, RestoreError> {
        let Some(slot) = bytes.first_chunk().map(|b| u16::from_le_bytes(*b)) else { return Ok(None) };
        if slot == END {
            return self.end(bytes);
        }
        let is_ours = (self.store.first_slot()..=self.store.last_slot()).contains(&slot);
        if !is_ours || self.store.slot_len(slot) != 0 {
            return Err(RestoreError::Slot(slot));
        }
        let Some(head) = bytes.first_chunk::<BLOCK_HEAD_BYTES>() else { return Ok(None) };
        let left = u32::from_le_bytes([head[2], head[3], head[4], head[5]]);
        if left == 0 {
            return Err(RestoreError::Slot(slot));
        }
        self.store.reserve(slot, left);
        self.state = State::Records { slot, left };
        Ok(Some(BLOCK_HEAD_BYTES))
    }

    fn record(&mut self, slot: u16, left: u32, bytes: &[u8]) -> Result<Option<usize>, RestoreError> {
        let Some(&[kind, k0, k1, v0, v1, v2, v3]) = bytes.first_chunk::<RECORD_HEAD_BYTES>() else {
            return Ok(None);
        };
        let key_len = usize::from(u16::from_le_bytes([k0, k1]));
        let value_len = u32::from_le_bytes([v0, v1, v2, v3]) as usize;
        let is_known = kind & !KIND_EXPIRES == KIND_STRING;
        if !is_known || KEY_BYTES_MAX < key_len || VALUE_BYTES_MAX < value_len {
            return Err(RestoreError::Record(slot));
        }
        let expiry_len = if kind & KIND_EXPIRES == 0 { 0 } else { 8 };
        let len = RECORD_HEAD_BYTES + expiry_len + key_len + value_len;
        let Some(body) = bytes.get(RECORD_HEAD_BYTES..len) else { return Ok(None) };
        let (expiry, body) = body.split_at(expiry_len);
        let (key, value) = body.split_at(key_len);
        let expires_at_ms = expiry.first_chunk().map(|b| u64::from_le_bytes(*b));
        self.insert(slot, key, value, expires_at_ms)?;
        self.state = if left == 1 { State::Block } else { State::Records { slot, left: left - 1 } };
        Ok(Some(len))
    }

    fn insert(
        &mut self,
        slot: u16,
        key: &[u8],
        value: &[u8],
        expires_at_ms: Option<u64>,
    ) -> Result<(), RestoreError> {
        let invalid = RestoreError::Record(slot);
        let is_misplaced = ringfort_ring::slot_of(key).0 != slot;
        if is_misplaced || expires_at_ms.is_some_and(|at| EXPIRY_MS_MAX < at) {
            return Err(invalid);
        }
        let Ok(place) = self.store.place(key) else { return Err(invalid) };
        if self.store.find(place, key).is_some() {
            return Err(invalid);
        }
        let content = Content::new(key, value, expires_at_ms);
        self.digest = self.digest.wrapping_add(content.digest());
        self.store.put(place, content);
        Ok(())
    }

    fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, RestoreError> {
        let Some(end) = bytes.first_chunk::<END_BYTES>() else { return Ok(None) };
        let (keys, digest) = end[SLOT_BYTES..].split_at(8);
        let is_same = keys == (self.store.len() as u64).to_le_bytes() && digest == self.digest.to_le_bytes();
        if !is_same {
            return Err(RestoreError::Digest);
        }
        self.state = State::End;
        Ok(Some(END_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::Session;

    const LAST: u16 = 16383;

    fn sample() -> (Vec<u8>, u64) {
        let mut session = Session::new();
        session.script("MSET a 1 {t}b 2 {t}c 3 -> +OK\nSET d 4 EX 100 -> +OK\nAPPEND e 55555 -> :5");
        let mut bytes = Vec::new();
        session.store.snapshot_begin();
        assert!(session.store.snapshot_next(usize::MAX, &mut bytes));
        (bytes, session.store.digest())
    }

    fn restore(bytes: &[u8]) -> Result<Store, RestoreError> {
        let mut restorer = Store::restorer(0, LAST);
        restorer.push(bytes)?;
        restorer.finish()
    }

    #[test]
    fn restores_from_pieces_of_any_size() {
        let (bytes, digest) = sample();
        for size in 1..=bytes.len() {
            let mut restorer = Store::restorer(0, LAST);
            for piece in bytes.chunks(size) {
                restorer.push(piece).unwrap();
            }
            let store = restorer.finish().unwrap();
            store.check_invariants();
            assert_eq!(store.digest(), digest);
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_an_error() {
        let (bytes, _) = sample();
        for len in 0..bytes.len() {
            assert_eq!(restore(&bytes[..len]).err(), Some(RestoreError::Truncated));
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert!(restore(&changed).is_err(), "byte {at}, bit {bit}");
            }
        }
        assert_eq!(restore(&[&bytes[..], b"x"].concat()).err(), Some(RestoreError::Trailing));
    }

    #[test]
    fn names_what_is_wrong() {
        assert_eq!(restore(&[9]).err(), Some(RestoreError::Version(9)));
        assert_eq!(restore(&[1, 0, 0, 1, 0]).err(), Some(RestoreError::OtherSlots { first: 0, last: 1 }));
        let head = [1, 0, 0, 0xff, 0x3f];
        let with = |rest: &[u8]| restore(&[&head[..], rest].concat()).err();
        assert_eq!(with(&[0, 0x40, 1, 0, 0, 0]), Some(RestoreError::Slot(16384)));
        assert_eq!(with(&[7, 0, 0, 0, 0, 0]), Some(RestoreError::Slot(7)));
        let record = |kind: u8, expiry: &[u8]| {
            let slot = ringfort_ring::slot_of(b"a").0;
            let head = [kind, 1, 0, 1, 0, 0, 0];
            let once = [&head[..], expiry, b"av"].concat();
            (slot, [&slot.to_le_bytes()[..], &[2, 0, 0, 0], &once, &once].concat())
        };
        for (slot, bytes) in [record(0, b""), record(1, b""), record(0x80, &[0xff; 8])] {
            assert_eq!(with(&bytes), Some(RestoreError::Record(slot)));
        }
        assert_eq!(with(&[&END.to_le_bytes()[..], &[1; 16]].concat()), Some(RestoreError::Digest));
    }

    #[test]
    fn a_failed_restorer_stays_failed() {
        let mut restorer = Store::restorer(0, LAST);
        assert_eq!(restorer.push(&[9]), Err(RestoreError::Version(9)));
        assert_eq!(restorer.push(&sample().0), Err(RestoreError::Failed));
        assert_eq!(restorer.finish().err(), Some(RestoreError::Failed));
    }

    #[test]
    fn claimed_lengths_allocate_almost_nothing() {
        let mut restorer = Store::restorer(0, LAST);
        let claims = [1, 0, 0, 0xff, 0x3f, 7, 0, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0, 0, 0, 2];
        restorer.push(&claims).unwrap();
        for _ in 0..100 {
            restorer.push(&[0; 10]).unwrap();
        }
        assert!(restorer.rest.capacity() < 4096);
    }
}
