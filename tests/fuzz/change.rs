//! Changing inputs, as a fuzzer does that is blind.

/// A seeded source of changed inputs (SplitMix64).
pub(crate) struct Change(u64);

/// Longest input, bytes: libFuzzer's default.
const BYTES_MAX: usize = 4096;

impl Change {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// A changed copy of one of `inputs`.
    pub(crate) fn one(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut input = inputs[self.below(inputs.len())].clone();
        for _ in 0..1 + self.below(6) {
            self.step(&mut input, inputs);
        }
        input.truncate(BYTES_MAX);
        input
    }

    fn step(&mut self, input: &mut Vec<u8>, inputs: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        let end = (at + 1 + self.below(16)).min(input.len()).max(at);
        match self.below(9) {
            0 | 1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.below(8);
                }
            }
            2 | 3 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = self.next() as u8;
                }
            }
            4 => drop(input.drain(at..end)),
            5 => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            6 => {
                let random: Vec<u8> = (0..1 + self.below(8)).map(|_| self.next() as u8).collect();
                input.splice(at..at, random);
            }
            7 => {
                // A number at an edge.
                let number =
                    [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, u64::MAX - 1, u64::MAX][self.below(8)];
                let bytes = u64::to_le_bytes(number);
                let len = [1, 2, 4, 8][self.below(4)].min(input.len() - at);
                input[at..at + len].copy_from_slice(&bytes[..len]);
            }
            _ => {
                // The end of another one.
                let other = &inputs[self.below(inputs.len())];
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
}
