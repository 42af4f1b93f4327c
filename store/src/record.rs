//! One key and its value in one piece of memory.

use core::cell::Cell;
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

/// Most bytes of a body before its key.
const HEAD_BYTES_MAX: usize = 1 + 2 + 8;

/// A string record, as it stands in the store.
///
/// Its body:
///
/// | offset | size | field |
/// | --- | --- | --- |
/// | 0 | 1 | flags: bit 0 an expiry is stored, bit 1 the key's length takes two bytes |
/// | 1 | 1 or 2 | length k of the key, little endian |
/// | then | 0 or 8 | expiry, milliseconds since 1970, little endian |
/// | then | k | key |
/// | then | rest | value |
///
/// Beside the body stands the mark of its use (see [`Usage`](crate::memory::Usage)), which is no part of its content.
///
/// # Invariants
/// The body has exactly this form, the key is at most [`KEY_BYTES_MAX`] and the value at most [`VALUE_BYTES_MAX`] long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    mark: &'a Cell<u32>,
    body: &'a [u8],
    /// What has the body, if it stands in an allocation of its own.
    packed: Option<&'a Packed>,
}

/// What a record is to hold. The caller has checked the lengths.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    /// When it expires, milliseconds since 1970; `None`: never.
    pub(crate) expires_at_ms: Option<u64>,
}

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

impl<'a> Content<'a> {
    /// Makes a content.
    pub(crate) fn new(key: &'a [u8], value: &'a [u8], expires_at_ms: Option<u64>) -> Self {
        debug_assert!(key.len() <= KEY_BYTES_MAX);
        debug_assert!(value.len() <= VALUE_BYTES_MAX);
        Self { key, value, expires_at_ms }
    }

    /// Length of the record's body.
    pub(crate) fn body_len(&self) -> usize {
        head(self.key.len(), self.expires_at_ms).1 + self.key.len() + self.value.len()
    }

    /// Writes the record's body, which has the length [`Content::body_len`].
    pub(crate) fn write(&self, body: &mut [u8]) {
        let (head, head_len) = head(self.key.len(), self.expires_at_ms);
        body[..head_len].copy_from_slice(&head[..head_len]);
        let (key, value) = body[head_len..].split_at_mut(self.key.len());
        key.copy_from_slice(self.key);
        value.copy_from_slice(self.value);
    }

    /// The record's deterministic size, as [`Record::logical_bytes`].
    pub(crate) fn logical_bytes(&self) -> u64 {
        logical_bytes(self.key.len() + self.value.len(), self.expires_at_ms)
    }

    /// The record's part of the digest.
    pub(crate) fn digest(&self) -> u64 {
        digest(self.key, self.value, self.expires_at_ms)
    }
}

/// The bytes of a body before its key, and how many of them there are.
fn head(key_len: usize, expires_at_ms: Option<u64>) -> ([u8; HEAD_BYTES_MAX], usize) {
    let mut head = [0; HEAD_BYTES_MAX];
    let [low, high] = (key_len as u16).to_le_bytes();
    let mut len = 2;
    (head[0], head[1]) = (0, low);
    if key_len > usize::from(u8::MAX) {
        (head[0], head[2], len) = (FLAG_LONG_KEY, high, 3);
    }
    if let Some(ms) = expires_at_ms {
        head[0] |= FLAG_EXPIRY;
        head[len..len + 8].copy_from_slice(&ms.to_le_bytes());
        len += 8;
    }
    (head, len)
}

fn logical_bytes(content_len: usize, expires_at_ms: Option<u64>) -> u64 {
    let expiry = if expires_at_ms.is_some() { LOGICAL_EXPIRY_BYTES } else { 0 };
    LOGICAL_OVERHEAD_BYTES + content_len as u64 + expiry
}

impl Header {
    #[inline]
    fn of(body: &[u8]) -> Self {
        let (key_len, at) = if body[0] & FLAG_LONG_KEY == 0 {
            (usize::from(body[1]), 2)
        } else {
            (usize::from(u16::from_le_bytes([body[1], body[2]])), 3)
        };
        if body[0] & FLAG_EXPIRY == 0 {
            return Self { expires_at_ms: None, key_start: at, value_start: at + key_len };
        }
        let mut expiry = [0; 8];
        expiry.copy_from_slice(&body[at..at + 8]);
        Self {
            expires_at_ms: Some(u64::from_le_bytes(expiry)),
            key_start: at + 8,
            value_start: at + 8 + key_len,
        }
    }
}

impl<'a> Record<'a> {
    /// The record with this body and mark.
    #[inline]
    pub(crate) fn new(mark: &'a Cell<u32>, body: &'a [u8]) -> Self {
        Self { mark, body, packed: None }
    }

    /// The record whose body stands in an allocation of its own.
    pub(crate) fn of_packed(packed: &'a Packed) -> Self {
        Self { mark: packed.tag_cell(), body: packed, packed: Some(packed) }
    }

    /// The mark of its use.
    pub(crate) fn mark(self) -> u32 {
        self.mark.get()
    }

    /// Notes a use.
    pub(crate) fn set_mark(self, mark: u32) {
        self.mark.set(mark);
    }

    /// Its body.
    pub(crate) fn body(self) -> &'a [u8] {
        self.body
    }

    /// The key.
    #[inline]
    pub(crate) fn key(self) -> &'a [u8] {
        let header = Header::of(self.body);
        &self.body[header.key_start..header.value_start]
    }

    /// Where in the body the value begins.
    pub(crate) fn value_start(self) -> usize {
        Header::of(self.body).value_start
    }

    /// The value.
    pub(crate) fn value(self) -> &'a [u8] {
        &self.body[self.value_start()..]
    }

    /// The value without a copy, if it is large.
    pub(crate) fn large_value(self) -> Option<LargeValue> {
        let large = LargeValue { record: self.packed?.share()?, start: self.value_start() };
        (SHARED_BYTES_MIN <= large.as_ref().len()).then_some(large)
    }

    /// When it expires, milliseconds since 1970; `None`: never.
    pub(crate) fn expires_at_ms(self) -> Option<u64> {
        Header::of(self.body).expires_at_ms
    }

    /// Whether its time has come at `now_ms`.
    pub(crate) fn is_expired(self, now_ms: u64) -> bool {
        self.expires_at_ms().is_some_and(|at| at <= now_ms)
    }

    /// Its deterministic size, bytes: the same on every replica, whatever its layout in memory.
    pub(crate) fn logical_bytes(self) -> u64 {
        let header = Header::of(self.body);
        logical_bytes(self.body.len() - header.key_start, header.expires_at_ms)
    }

    /// Its part of the digest.
    pub(crate) fn digest(self) -> u64 {
        digest(self.key(), self.value(), self.expires_at_ms())
    }
}

/// Overwrites a body's value from `offset` on, behind zero bytes where the value ends before. O(patch) when the value need
/// not grow.
pub(crate) fn overwrite(body: &mut Vec<u8>, offset: usize, patch: &[u8]) {
    let start = Header::of(body).value_start + offset;
    let end = start + patch.len();
    if body.len() < end {
        body.reserve_exact(end - body.len());
        body.resize(end, 0);
    }
    body[start..end].copy_from_slice(patch);
}

/// The expiry in a body.
pub(crate) fn expiry_of(body: &[u8]) -> Option<u64> {
    Header::of(body).expires_at_ms
}

/// Changes the expiry in a body.
pub(crate) fn set_expiry(body: &mut Vec<u8>, expires_at_ms: Option<u64>) {
    let header = Header::of(body);
    let (head, head_len) = head(header.value_start - header.key_start, expires_at_ms);
    body.splice(..header.key_start, head[..head_len].iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(key: &[u8], value: &[u8], expires_at_ms: Option<u64>) -> Vec<u8> {
        let content = Content::new(key, value, expires_at_ms);
        let mut body = vec![0; content.body_len()];
        content.write(&mut body);
        body
    }

    /// Has `check` look at the record of a body, in both forms.
    fn with_record(body: &[u8], check: impl Fn(Record<'_>)) {
        check(Record::new(&Cell::new(0), body));
        check(Record::of_packed(&Packed::new(body.into(), 0)));
    }

    #[test]
    fn keeps_key_value_and_expiry_of_every_length() {
        for key_len in [0, 1, 255, 256, KEY_BYTES_MAX] {
            for value_len in [0, 1, 300] {
                for expiry in [None, Some(0), Some(EXPIRY_MS_MAX)] {
                    let (key, value) = (vec![b'k'; key_len], vec![b'v'; value_len]);
                    let mut body = body(&key, &value, expiry);
                    with_record(&body, |record| {
                        assert_eq!(record.key(), key);
                        assert_eq!(record.value(), value);
                        assert_eq!(record.expires_at_ms(), expiry);
                    });
                    overwrite(&mut body, value_len, b"tail");
                    for expiry in [expiry, Some(1), None] {
                        set_expiry(&mut body, expiry);
                        let value = [&value[..], b"tail"].concat();
                        let content = Content::new(&key, &value, expiry);
                        with_record(&body, |record| {
                            assert_eq!(record.key(), key);
                            assert_eq!(record.value(), value);
                            assert_eq!(record.expires_at_ms(), expiry);
                            let bytes =
                                32 + (key_len + value_len + 4) as u64 + if expiry.is_some() { 8 } else { 0 };
                            assert_eq!((record.logical_bytes(), content.logical_bytes()), (bytes, bytes));
                            assert_eq!(record.digest(), content.digest());
                        });
                    }
                }
            }
        }
    }

    #[test]
    fn overwrites_and_pads_the_value() {
        for expiry in [None, Some(7)] {
            for key in ["", "k", &"k".repeat(300)] {
                let mut body = body(key.as_bytes(), b"abcd", expiry);
                let value = |body: &[u8], value: &[u8]| {
                    with_record(body, |record| {
                        assert_eq!(record.value(), value);
                        assert_eq!((record.key(), record.expires_at_ms()), (key.as_bytes(), expiry));
                    });
                };
                overwrite(&mut body, 1, b"XY");
                value(&body, b"aXYd");
                overwrite(&mut body, 3, b"Z12");
                overwrite(&mut body, 8, b"!");
                value(&body, b"aXYZ12\0\0!");
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
        with_record(&body(b"k", b"v", Some(10)), |record| {
            assert!(!record.is_expired(9));
            assert!(record.is_expired(10));
        });
        with_record(&body(b"k", b"v", None), |record| assert!(!record.is_expired(u64::MAX)));
    }
}
