//! Encoding and decoding of segment files; the layout is documented in the [module](super) above.

use super::{HardState, Identity, LogEntry, Mark, Standing};

pub(super) const SEGMENT_HEADER_BYTES: usize = 48;
pub(super) const WRITE_HEADER_BYTES: usize = 32;
pub(super) const RECORD_HEADER_BYTES: usize = 12;
/// Index and term in front of the data of an entry.
pub(super) const ENTRY_HEADER_BYTES: usize = 16;

const SEGMENT_MAGIC: &[u8; 8] = b"RFLOGSEG";
pub(super) const WRITE_MAGIC: &[u8; 4] = b"RFwr";
const FORMAT_VERSION: u16 = 1;

/// Largest number of a write: more than a log ever makes, and far from where sums overflow.
const WRITE_NUMBER_MAX: u64 = u64::MAX / 2;

const KIND_ENTRY: u8 = 1;
const KIND_MOVED_ENTRY: u8 = 2;
const KIND_HARD_STATE: u8 = 3;
const KIND_IDENTITY: u8 = 4;
const KIND_COMPACT: u8 = 5;
const KIND_INSTALL: u8 = 6;
const KIND_REMOVE: u8 = 7;

/// What one record says about its group.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// An entry; with `moved`, a copy out of an old segment, which does not truncate what follows.
    Entry {
        index: u64,
        term: u64,
        kind: u8,
        moved: bool,
        data: &'a [u8],
    },
    HardState(HardState),
    Identity(Identity),
    /// The log starts after `index`; later entries stay with `keep_log`.
    Mark {
        index: u64,
        term: u64,
        conf: &'a [u8],
        keep_log: bool,
    },
    Remove,
}

/// A decoded record and the bytes it takes in the file.
#[derive(Debug)]
pub(super) struct Framed<'a> {
    pub(super) group: u16,
    pub(super) bytes: usize,
    pub(super) record: Record<'a>,
}

/// The header of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) feature_level: u16,
    pub(super) sequence: u32,
    /// Number of the first write in this segment.
    pub(super) first_write: u64,
}

/// The header of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WriteHeader {
    /// Bytes of the records that follow.
    pub(super) records_bytes: u32,
    pub(super) records: u32,
    /// Number of this write; the writes of a log are numbered from 1 without gaps.
    pub(super) write: u64,
    /// All writes up to this number were durable when this one was made.
    pub(super) synced: u64,
}

/// Why the header of a segment cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    /// It is incomplete, or its checksum does not match.
    Damaged,
    /// A later release wrote it.
    Version(u16),
}

/// Reads little-endian integers off the front of a slice; `None` when it is too short.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        out[0..8].copy_from_slice(SEGMENT_MAGIC);
        out[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[10..12].copy_from_slice(&self.feature_level.to_le_bytes());
        out[12..16].copy_from_slice(&self.sequence.to_le_bytes());
        out[16..24].copy_from_slice(&self.first_write.to_le_bytes());
        let crc = crc32c::crc32c(&out[..SEGMENT_HEADER_BYTES - 4]);
        out[SEGMENT_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let header = bytes.first_chunk::<SEGMENT_HEADER_BYTES>().ok_or(HeaderFault::Damaged)?;
        let (body, crc) = header.split_at(SEGMENT_HEADER_BYTES - 4);
        if &body[0..8] != SEGMENT_MAGIC || Fields(crc).u32() != Some(crc32c::crc32c(body)) {
            return Err(HeaderFault::Damaged);
        }
        let mut fields = Fields(&body[8..]);
        let version = fields.u16().ok_or(HeaderFault::Damaged)?;
        if version != FORMAT_VERSION {
            return Err(HeaderFault::Version(version));
        }
        let (Some(feature_level), Some(sequence), Some(first_write)) =
            (fields.u16(), fields.u32(), fields.u64())
        else {
            return Err(HeaderFault::Damaged);
        };
        if first_write == 0 || WRITE_NUMBER_MAX < first_write {
            return Err(HeaderFault::Damaged);
        }
        Ok(Self { feature_level, sequence, first_write })
    }
}

impl WriteHeader {
    /// `segment` and `offset` (where the header stands) are part of the checksum, so that bytes which strayed
    /// there from elsewhere, or which a client put into a value, are not taken for a write.
    pub(super) fn encode(&self, segment: u32, offset: u64) -> [u8; WRITE_HEADER_BYTES] {
        let mut out = [0; WRITE_HEADER_BYTES];
        out[0..4].copy_from_slice(WRITE_MAGIC);
        out[4..8].copy_from_slice(&self.records_bytes.to_le_bytes());
        out[8..12].copy_from_slice(&self.records.to_le_bytes());
        out[12..20].copy_from_slice(&self.write.to_le_bytes());
        out[20..28].copy_from_slice(&self.synced.to_le_bytes());
        let crc = Self::crc(&out[..28], segment, offset);
        out[28..32].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8], segment: u32, offset: u64) -> Option<Self> {
        let mut fields = Fields(bytes.first_chunk::<WRITE_HEADER_BYTES>()?);
        let body = &fields.0[..28];
        if &fields.array::<4>()? != WRITE_MAGIC {
            return None;
        }
        let header = Self {
            records_bytes: fields.u32()?,
            records: fields.u32()?,
            write: fields.u64()?,
            synced: fields.u64()?,
        };
        let is_whole = fields.u32()? == Self::crc(body, segment, offset);
        (is_whole && header.synced < header.write && header.write <= WRITE_NUMBER_MAX).then_some(header)
    }

    fn crc(body: &[u8], segment: u32, offset: u64) -> u32 {
        let crc = crc32c::crc32c(&segment.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &offset.to_le_bytes());
        crc32c::crc32c_append(crc, body)
    }
}

/// Appends one record: a header, filled in when `body` has written the rest.
fn put(out: &mut Vec<u8>, group: u16, kind: u8, entry_kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&group.to_le_bytes());
    out.push(kind);
    out.push(entry_kind);
    body(out);
    let length = u32::try_from(out.len() - start - RECORD_HEADER_BYTES).expect("bounded by RECORD_BYTES_MAX");
    out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}

pub(super) fn put_entry(out: &mut Vec<u8>, group: u16, entry: &LogEntry, moved: bool) {
    let kind = if moved { KIND_MOVED_ENTRY } else { KIND_ENTRY };
    put(out, group, kind, entry.kind, |out| {
        out.extend_from_slice(&entry.index.to_le_bytes());
        out.extend_from_slice(&entry.term.to_le_bytes());
        out.extend_from_slice(&entry.data);
    });
}

pub(super) fn put_hard_state(out: &mut Vec<u8>, group: u16, state: &HardState) {
    put(out, group, KIND_HARD_STATE, 0, |out| {
        out.extend_from_slice(&state.term.to_le_bytes());
        out.extend_from_slice(&state.vote.to_le_bytes());
        out.extend_from_slice(&state.commit.to_le_bytes());
    });
}

pub(super) fn put_identity(out: &mut Vec<u8>, group: u16, identity: &Identity) {
    put(out, group, KIND_IDENTITY, 0, |out| {
        out.extend_from_slice(&identity.replica.to_le_bytes());
        out.extend_from_slice(&identity.incarnation.to_le_bytes());
        match identity.standing {
            Standing::Active => {}
            Standing::Suspect => out.push(1),
            Standing::Withdrawn => out.push(2),
        }
    });
}

pub(super) fn put_mark(out: &mut Vec<u8>, group: u16, mark: &Mark, keep_log: bool) {
    put(out, group, if keep_log { KIND_COMPACT } else { KIND_INSTALL }, 0, |out| {
        out.extend_from_slice(&mark.index.to_le_bytes());
        out.extend_from_slice(&mark.term.to_le_bytes());
        out.extend_from_slice(&mark.conf);
    });
}

pub(super) fn put_remove(out: &mut Vec<u8>, group: u16) {
    put(out, group, KIND_REMOVE, 0, |_| {});
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordFault {
    /// It is incomplete, or its checksum does not match.
    Damaged,
    /// It is whole, but of a kind or shape that this release does not know.
    Unknown,
}

/// Decodes the record at the front of `bytes` and checks its checksum.
pub(super) fn decode(bytes: &[u8]) -> Result<Framed<'_>, RecordFault> {
    let mut header = Fields(bytes);
    let (Some(crc), Some(length)) = (header.u32(), header.u32()) else { return Err(RecordFault::Damaged) };
    let end = (length as usize).saturating_add(RECORD_HEADER_BYTES);
    let covered = bytes.get(4..end).ok_or(RecordFault::Damaged)?;
    if crc != crc32c::crc32c(covered) {
        return Err(RecordFault::Damaged);
    }
    parse(bytes).ok_or(RecordFault::Unknown)
}

/// Decodes the record at the front of `bytes` without looking at its checksum.
pub(super) fn parse(bytes: &[u8]) -> Option<Framed<'_>> {
    let mut header = Fields(bytes);
    let _crc = header.u32()?;
    let length = header.u32()? as usize;
    let group = header.u16()?;
    let kind = header.u8()?;
    let entry_kind = header.u8()?;
    let mut body = Fields(header.rest().get(..length)?);
    let record = match kind {
        KIND_ENTRY | KIND_MOVED_ENTRY => Record::Entry {
            index: body.u64()?,
            term: body.u64()?,
            kind: entry_kind,
            moved: kind == KIND_MOVED_ENTRY,
            data: body.rest(),
        },
        KIND_HARD_STATE => {
            Record::HardState(HardState { term: body.u64()?, vote: body.u64()?, commit: body.u64()? })
        }
        KIND_IDENTITY => Record::Identity(Identity {
            replica: body.u64()?,
            incarnation: body.u32()?,
            standing: match body.rest() {
                [] => Standing::Active,
                [1] => Standing::Suspect,
                [2] => Standing::Withdrawn,
                _ => return None,
            },
        }),
        KIND_COMPACT | KIND_INSTALL => Record::Mark {
            index: body.u64()?,
            term: body.u64()?,
            conf: body.rest(),
            keep_log: kind == KIND_COMPACT,
        },
        KIND_REMOVE => Record::Remove,
        _ => return None,
    };
    // There is none behind it: the log stages no such index, and sums would overflow.
    if let Record::Entry { index: u64::MAX, .. } | Record::Mark { index: u64::MAX, .. } = record {
        return None;
    }
    Some(Framed { group, bytes: RECORD_HEADER_BYTES + length, record })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_near_the_largest_are_none_of_a_log() {
        let segment = |first_write| {
            SegmentHeader::decode(&SegmentHeader { feature_level: 1, sequence: 1, first_write }.encode())
        };
        assert!(segment(1).is_ok() && segment(WRITE_NUMBER_MAX).is_ok());
        for first_write in [0, WRITE_NUMBER_MAX + 1, u64::MAX] {
            assert_eq!(segment(first_write), Err(HeaderFault::Damaged));
        }
        let write = |write| {
            let header = WriteHeader { records_bytes: 0, records: 0, write, synced: 0 };
            WriteHeader::decode(&header.encode(1, 48), 1, 48)
        };
        assert!(write(1).is_some() && write(u64::MAX).is_none());
        for index in [u64::MAX - 1, u64::MAX] {
            let (mut entry, mut mark) = (Vec::new(), Vec::new());
            let data = bytes::Bytes::new();
            put_entry(&mut entry, 1, &LogEntry { index, term: 1, kind: 0, data: data.clone() }, false);
            put_mark(&mut mark, 1, &Mark { index, term: 1, conf: data }, true);
            assert_eq!(decode(&entry).is_ok(), index != u64::MAX);
            assert_eq!(decode(&mark).is_ok(), index != u64::MAX);
        }
    }
}
