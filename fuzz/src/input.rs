//! Reading values off the bytes of a fuzzer.

/// The bytes that are left. What is missing at the end reads as zeros and as nothing, so that every input has a meaning.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `len` bytes, or those that are left.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        head
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(core::array::from_fn(|_| self.u8()))
    }

    /// A number in one byte when it is small, so that changed bytes give neighbours; from 0xf0 on the next eight bytes, and
    /// for 0xff a number near the largest.
    pub fn number(&mut self) -> u64 {
        match self.u8() {
            0xff => u64::MAX - u64::from(self.u8() % 4),
            0xf0.. => self.u64(),
            small => u64::from(small),
        }
    }

    /// Bytes behind their length in two bytes.
    pub fn bytes(&mut self) -> &'a [u8] {
        let len = self.u16();
        self.take(usize::from(len))
    }

    /// An element of a list that is not empty.
    pub fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.u8()) % of.len()]
    }
}

/// Cuts `bytes` into pieces of 1 to about 40 bytes, as `seed` says.
pub(crate) fn pieces(bytes: &[u8], seed: u8) -> Vec<&[u8]> {
    let (mut state, mut rest, mut pieces) = (u32::from(seed) + 1, bytes, Vec::new());
    while !rest.is_empty() {
        state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        let len = match state >> 28 {
            0..4 => 1,
            4..8 => 2 + (state >> 20) as usize % 4,
            _ => 1 + (state >> 16) as usize % 40,
        };
        let (piece, after) = rest.split_at(len.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}
