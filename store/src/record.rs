//! One key and its value in one allocation.

use std::sync::Arc;

use twox_hash::XxHash3_64;

use crate::{
    KEY_BYTES_MAX, VALUE_BYTES_MAX,
    packed::{Packed, SHARED_BYTES_MIN},
};

/// Seed of the key hash: fixed, because digests and snapshots order by it on every replica.
const KEY_SEED: u64 = 0x5269_6e67_666f_7274;

/// What enters the digest in place of an expiry when a record has none; larger than every expiry.
const NO_EXPIRY: u64 = u64::MAX;

/// Latest expiry, milliseconds since 1970: Redis keeps it in a signed 64-bit integer.
pub(crate) const EXPIRY_MS_MAX: u64 = i64::MAX as u64;

/// Deterministic cost of a record beside its key, value and expiry, bytes: header, table slot at 7/8 load and the
/// allocator's share. Counted the same on every replica and by every version of the layout.
pub(crate) const LOGICAL_OVERHEAD_BYTES: u64 = 32;

/// Deterministic cost of an expiry, bytes.
pub(crate) const LOGICAL_EXPIRY_BYTES: u64 = 8;

/// Set when an expiry is stored.
const FLAG_EXPIRY: u8 = 1;

/// Set when the key's length takes two bytes.
const FLAG_LONG_KEY: u8 = 2;

/// A string record.
///
/// | offset | size | field |
/// | --- | --- | --- |
/// | 0 | 1 | flags: bit 0 an expiry is stored, bit 1 the key's length takes two bytes |
/// | 1 | 1 or 2 | length k of the key, little endian |
/// | then | 0 or 8 | expiry, milliseconds since 1970, little endian |
/// | then | k | key |
/// | then | rest | value |
///
/// Beside the bytes stands the mark of its use (see [`Usage`](crate::memory::Usage)), which is no part of its content.
///
/// # Invariants
/// The bytes are empty (a record taken out of the table for an update) or have exactly this form, the key is at most
/// [`KEY_BYTES_MAX`] and the value at most [`VALUE_BYTES_MAX`] long.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record(Packed);

/// A value of 64 KiB or more, as a read found it: shared with its record, which is copied before it changes.
#[derive(Clone, PartialEq, Eq)]
pub struct LargeValue {
    record: Arc<Box<[u8]>>,
    start: usize,
}

impl AsRef<[u8]> for LargeValue {
    fn as_ref(&self) -> &[u8] {
        &self.record[self.start..]
    }
}

impl core::fmt::Debug for LargeValue {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "LargeValue({} bytes)", self.as_ref().len())
    }
}

/// Lengths in a record's first bytes.
struct Header {
    expires_at_ms: Option<u64>,
    key_start: usize,
    value_start: usize,
}

/// The hash under which a key stands in its slot's table.
pub(crate) fn hash_key(key: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(KEY_SEED, key)
}

/// The digest of one record; independent of its layout in memory.
pub(crate) fn digest(key: &[u8], value: &[u8], expires_at_ms: Option<u64>) -> u64 {
    let expiry = expires_at_ms.unwrap_or(NO_EXPIRY);
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot_with_seed(expiry, key), value)
}

impl Record {
    /// Makes a record. The caller has checked the lengths.
    pub(crate) fn new(key: &[u8], value: &[u8], expires_at_ms: Option<u64>) -> Self {
        debug_assert!(key.len() <= KEY_BYTES_MAX);
        debug_assert!(value.len() <= VALUE_BYTES_MAX);
        let mut bytes = Vec::with_capacity(1 + 2 + 8 + key.len() + value.len());
        let long_key = key.len() > usize::from(u8::MAX);
        let expiry_flag = if expires_at_ms.is_some() { FLAG_EXPIRY } else { 0 };
        bytes.push(expiry_flag | if long_key { FLAG_LONG_KEY } else { 0 });
        let key_len = (key.len() as u16).to_le_bytes();
        bytes.extend_from_slice(&key_len[..if long_key { 2 } else { 1 }]);
        if let Some(ms) = expires_at_ms {
            bytes.extend_from_slice(&ms.to_le_bytes());
        }
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        Self(Packed::new(bytes.into_boxed_slice(), 0))
    }

    /// The mark of its use.
    pub(crate) fn mark(&self) -> u32 {
        self.0.tag()
    }

    /// Notes a use.
    pub(crate) fn set_mark(&self, mark: u32) {
        self.0.set_tag(mark);
    }

    fn header(&self) -> Header {
        let bytes = &self.0;
        let (key_len, at) = if bytes[0] & FLAG_LONG_KEY == 0 {
            (usize::from(bytes[1]), 2)
        } else {
            (usize::from(u16::from_le_bytes([bytes[1], bytes[2]])), 3)
        };
        if bytes[0] & FLAG_EXPIRY == 0 {
            return Header { expires_at_ms: None, key_start: at, value_start: at + key_len };
        }
        let mut expiry = [0; 8];
        expiry.copy_from_slice(&bytes[at..at + 8]);
        Header {
            expires_at_ms: Some(u64::from_le_bytes(expiry)),
            key_start: at + 8,
            value_start: at + 8 + key_len,
        }
    }

    /// The key.
    pub(crate) fn key(&self) -> &[u8] {
        let header = self.header();
        &self.0[header.key_start..header.value_start]
    }

    /// The value.
    pub(crate) fn value(&self) -> &[u8] {
        &self.0[self.header().value_start..]
    }

    /// The value without a copy, if it is large.
    pub(crate) fn large_value(&self) -> Option<LargeValue> {
        let start = self.header().value_start;
        let large = LargeValue { record: self.0.share()?, start };
        (SHARED_BYTES_MIN <= large.as_ref().len()).then_some(large)
    }

    /// When it expires, milliseconds since 1970; `None`: never.
    pub(crate) fn expires_at_ms(&self) -> Option<u64> {
        self.header().expires_at_ms
    }

    /// Whether its time has come at `now_ms`.
    pub(crate) fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms().is_some_and(|at| at <= now_ms)
    }

    /// The same record with `suffix` behind its value; reuses the allocation where the allocator can.
    pub(crate) fn append(self, suffix: &[u8]) -> Self {
        let mark = self.mark();
        let mut bytes = self.0.into_vec();
        bytes.reserve_exact(suffix.len());
        bytes.extend_from_slice(suffix);
        Self(Packed::new(bytes.into_boxed_slice(), mark))
    }

    /// The same record with `patch` in its value from `offset` on, behind zero bytes where the value ends before. O(patch)
    /// when the value need not grow.
    pub(crate) fn overwrite(self, offset: usize, patch: &[u8]) -> Self {
        let start = self.header().value_start + offset;
        let end = start + patch.len();
        let mark = self.mark();
        let mut bytes = self.0.into_vec();
        if bytes.len() < end {
            bytes.reserve_exact(end - bytes.len());
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(patch);
        Self(Packed::new(bytes.into_boxed_slice(), mark))
    }

    /// Its deterministic size, bytes: the same on every replica, whatever the allocator does.
    pub(crate) fn logical_bytes(&self) -> u64 {
        let header = self.header();
        let content = self.0.len() - header.key_start;
        let expiry = if header.expires_at_ms.is_some() { LOGICAL_EXPIRY_BYTES } else { 0 };
        LOGICAL_OVERHEAD_BYTES + content as u64 + expiry
    }

    /// Its part of the digest.
    pub(crate) fn digest(&self) -> u64 {
        digest(self.key(), self.value(), self.expires_at_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_key_value_and_expiry_of_every_length() {
        for key_len in [0, 1, 255, 256, KEY_BYTES_MAX] {
            for value_len in [0, 1, 300] {
                for expiry in [None, Some(0), Some(EXPIRY_MS_MAX)] {
                    let (key, value) = (vec![b'k'; key_len], vec![b'v'; value_len]);
                    let record = Record::new(&key, &value, expiry);
                    assert_eq!(record.key(), key);
                    assert_eq!(record.value(), value);
                    assert_eq!(record.expires_at_ms(), expiry);
                    let record = record.append(b"tail");
                    assert_eq!(record.key(), key);
                    assert_eq!(record.value(), [&value[..], b"tail"].concat());
                    assert_eq!(record.expires_at_ms(), expiry);
                    assert_eq!(
                        record.logical_bytes(),
                        32 + (key_len + value_len + 4) as u64 + if expiry.is_some() { 8 } else { 0 }
                    );
                }
            }
        }
    }

    #[test]
    fn overwrites_and_pads_the_value() {
        for expiry in [None, Some(7)] {
            for key in ["", "k", &"k".repeat(300)] {
                let record = Record::new(key.as_bytes(), b"abcd", expiry).overwrite(1, b"XY");
                assert_eq!(record.value(), b"aXYd");
                let record = record.overwrite(3, b"Z12").overwrite(8, b"!");
                assert_eq!(record.value(), b"aXYZ12\0\0!");
                assert_eq!((record.key(), record.expires_at_ms()), (key.as_bytes(), expiry));
            }
        }
    }

    #[test]
    fn digest_tells_key_value_and_expiry_apart() {
        let all = [
            digest(b"ab", b"c", None),
            digest(b"a", b"bc", None),
            digest(b"ab", b"c", Some(1)),
            digest(b"ab", b"c", Some(2)),
            digest(b"c", b"ab", None),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|b| a != b));
        }
    }

    #[test]
    fn is_expired_from_its_very_millisecond() {
        let record = Record::new(b"k", b"v", Some(10));
        assert!(!record.is_expired(9));
        assert!(record.is_expired(10));
        assert!(!Record::new(b"k", b"v", None).is_expired(u64::MAX));
    }
}
