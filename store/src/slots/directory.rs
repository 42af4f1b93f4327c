//! From a hash to its segment, within a slot.

use super::Segment;

/// One slot's segments.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) len: u32,
    /// Its segment, unless there is a directory.
    pub(super) only: Option<u32>,
    pub(super) directory: Option<Box<Directory>>,
}

/// Which segment comes next for each value of the first `depth` bits of a hash.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) depth: u8,
    pub(super) segments: u32,
    pub(super) entries: Vec<u32>,
}

impl Slot {
    /// The segment that a hash leads to.
    #[inline]
    pub(super) fn segment_of(&self, hash: u64) -> Option<u32> {
        match &self.directory {
            None => self.only,
            Some(directory) => Some(directory.entries[prefix(hash, directory.depth)]),
        }
    }

    /// The segments in the order of hashes, from that of a hash on.
    pub(super) fn segment_ids(&self, segments: &[Segment], from: u64) -> impl Iterator<Item = u32> {
        let (entries, depth) = match &self.directory {
            None => (self.only.as_slice(), 0),
            Some(directory) => (&directory.entries[..], directory.depth),
        };
        let mut next = prefix(from, depth);
        core::iter::from_fn(move || {
            let id = *entries.get(next)?;
            let span = 1 << (depth - segments[id as usize].depth);
            next = (next / span + 1) * span;
            Some(id)
        })
    }
}

impl Directory {
    /// The entries whose prefix begins with the first `depth` bits of a hash.
    pub(super) fn entries_of(&mut self, hash: u64, depth: u8) -> &mut [u32] {
        let span = 1 << (self.depth - depth);
        let first = prefix(hash, depth) * span;
        &mut self.entries[first..first + span]
    }

    /// Halves the directory when it is far larger than its segments need and no segment needs the last bit.
    pub(super) fn shrink(&mut self) {
        while self.segments as usize * 4 <= self.entries.len()
            && self.entries.as_chunks::<2>().0.iter().all(|[a, b]| a == b)
        {
            self.entries = self.entries.iter().step_by(2).copied().collect();
            self.depth -= 1;
        }
    }
}

/// The first `depth` bits of a hash.
pub(super) fn prefix(hash: u64, depth: u8) -> usize {
    hash.checked_shr(64 - u32::from(depth)).unwrap_or(0) as usize
}
