//! A cache line of a slot's table: ten references, and of each what tells it from most others.

/// References in a bucket.
pub(crate) const CELLS: usize = 10;

/// A count of overflows that is not kept exactly any more.
const OVERFLOW_MAX: u8 = u8::MAX;

/// One cache line: tags, positions, and 32-bit references to records.
///
/// The position is the part of a hash that decides where in its segment a reference stands, so that a segment is rebuilt
/// without a look at its records. A tag of 0 is a vacant cell.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
pub(crate) struct Bucket {
    tags: [u8; CELLS],
    positions: [u8; CELLS],
    /// References that were to stand here or before, found no vacant cell and stand behind; as F14 (Folly) counts them.
    /// At [`OVERFLOW_MAX`] it stays, until the segment is rebuilt.
    overflow: u8,
    spare: [u8; 3],
    refs: [u32; CELLS],
}

/// A reference and the part of its hash that a bucket keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) tag: u8,
    pub(crate) position: u8,
    pub(crate) item: u32,
}

impl Bucket {
    /// The cells that hold this tag and position.
    #[inline]
    pub(crate) fn matches(&self, tag: u8, position: u8) -> impl Iterator<Item = usize> {
        let mut bits = self.tag_bits(tag);
        core::iter::from_fn(move || {
            while bits != 0 {
                let cell = bits.trailing_zeros() as usize / 8;
                bits &= bits - 1;
                if self.positions[cell] == position {
                    return Some(cell);
                }
            }
            None
        })
    }

    /// The references in use.
    pub(crate) fn cells(&self) -> impl Iterator<Item = (usize, Cell)> {
        (0..CELLS).filter_map(|i| Some((i, self.cell(i)?)))
    }

    /// What stands in a cell; `None`: it is vacant.
    pub(crate) fn cell(&self, i: usize) -> Option<Cell> {
        let cell = Cell { tag: self.tags[i], position: self.positions[i], item: self.refs[i] };
        (cell.tag != 0).then_some(cell)
    }

    /// A vacant cell.
    #[inline]
    pub(crate) fn vacant(&self) -> Option<usize> {
        let bits = self.tag_bits(0);
        (bits != 0).then(|| bits.trailing_zeros() as usize / 8)
    }

    /// Fills or empties a cell.
    pub(crate) fn set(&mut self, i: usize, cell: Option<Cell>) {
        let cell = cell.unwrap_or(Cell { tag: 0, position: 0, item: 0 });
        self.tags[i] = cell.tag;
        self.positions[i] = cell.position;
        self.refs[i] = cell.item;
    }

    /// The reference in a cell.
    #[inline]
    pub(crate) fn item(&self, i: usize) -> u32 {
        self.refs[i]
    }

    /// Changes the reference in a cell.
    pub(crate) fn set_item(&mut self, i: usize, item: u32) {
        self.refs[i] = item;
    }

    /// Whether a search goes on in the next bucket.
    #[inline]
    pub(crate) fn overflows(&self) -> bool {
        self.overflow != 0
    }

    /// References that passed.
    pub(crate) fn overflow(&self) -> u8 {
        self.overflow
    }

    /// A reference passes; `is_exact`: that can be taken back.
    pub(crate) fn pass(&mut self, is_exact: bool) {
        self.overflow = if is_exact { self.overflow.saturating_add(1) } else { OVERFLOW_MAX };
    }

    /// A reference that passed is gone.
    pub(crate) fn unpass(&mut self) {
        if self.overflow != OVERFLOW_MAX {
            debug_assert!(self.overflow != 0, "what passed was counted");
            self.overflow = self.overflow.saturating_sub(1);
        }
    }

    /// The highest bit of each byte whose cell has this tag.
    #[inline]
    fn tag_bits(&self, tag: u8) -> u128 {
        const ONES: u128 = u128::from_le_bytes([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]);
        const LOW: u128 = ONES * 0x7f;
        let mut bytes = [0; 16];
        bytes[..CELLS].copy_from_slice(&self.tags);
        let differing = u128::from_le_bytes(bytes) ^ (ONES * u128::from(tag));
        // The highest bit of a byte's sum is 0 only if its low bits are; no sum carries into the next byte.
        !(((differing & LOW) + LOW) | differing) & (ONES << 7)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_cache_line() {
        assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (64, 64));
    }

    #[test]
    fn finds_each_of_its_cells() {
        let mut bucket = Bucket::default();
        let cell = |i: usize| Cell { tag: [7, 9][i % 2], position: (i / 4) as u8, item: i as u32 };
        for i in 0..CELLS {
            assert_eq!(bucket.vacant(), Some(i));
            bucket.set(i, Some(cell(i)));
        }
        assert_eq!(bucket.vacant(), None);
        assert!(bucket.cells().map(|(_, found)| found).eq((0..CELLS).map(cell)));
        assert_eq!(bucket.matches(9, 1).collect::<Vec<_>>(), [5, 7]);
        assert_eq!(bucket.matches(8, 1).count(), 0);
        bucket.set(5, None);
        assert_eq!((bucket.vacant(), bucket.cell(5)), (Some(5), None));
        assert_eq!(bucket.matches(9, 1).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn counts_overflows_until_there_are_too_many() {
        let mut bucket = Bucket::default();
        bucket.pass(true);
        bucket.unpass();
        assert!(!bucket.overflows());
        (0..300).for_each(|_| bucket.pass(true));
        (0..300).for_each(|_| bucket.unpass());
        assert!(bucket.overflows());
    }
}
