//! Keys that were evicted a while ago, by some bits of their hashes.

/// Fewest cells.
const LEN_MIN: usize = 64;

/// A table of fingerprints. One that comes to the place of another takes it, so that a table with a place for each key in the
/// store forgets after about as many evictions, some sooner and some later.
#[derive(Debug, Default)]
pub(super) struct Ghosts(Vec<u8>);

impl Ghosts {
    /// Remembers a key of a store of so many.
    pub(super) fn insert(&mut self, hash: u64, keys: usize) {
        while self.0.len() < keys.max(LEN_MIN) {
            if self.0.is_empty() {
                self.0 = vec![0; LEN_MIN];
            } else {
                // A key is looked for by one bit more of its hash: at either place.
                self.0.extend_from_within(..);
            }
        }
        if let Some(cell) = self.cell(hash) {
            *cell = fingerprint(hash);
        }
    }

    /// Forgets a key; returns whether it was remembered.
    pub(super) fn remove(&mut self, hash: u64) -> bool {
        let cell = self.cell(hash).filter(|cell| **cell == fingerprint(hash));
        cell.map(|cell| *cell = 0).is_some()
    }

    fn cell(&mut self, hash: u64) -> Option<&mut u8> {
        let mask = self.0.len().wrapping_sub(1);
        self.0.get_mut(hash as usize & mask)
    }
}

/// The bits of a hash that are kept; never 0.
fn fingerprint(hash: u64) -> u8 {
    ((hash >> 56) as u8).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::next_random;

    #[test]
    fn remembers_about_as_many_keys_as_the_store_has() {
        let mut random = 1;
        let hashes: Vec<u64> = (0..10_000).map(|_| next_random(&mut random)).collect();
        let mut ghosts = Ghosts::default();
        assert!(!ghosts.remove(hashes[0]));
        hashes.iter().for_each(|hash| ghosts.insert(*hash, 1000));
        let known = |ghosts: &mut Ghosts, hashes: &[u64]| -> usize {
            hashes.iter().filter(|hash| ghosts.remove(**hash)).count()
        };
        let mut copy = Ghosts(ghosts.0.clone());
        assert!(900 < known(&mut copy, &hashes[9000..]) * 2, "of the last ones more than half");
        assert_eq!(known(&mut copy, &hashes[9000..]), 0, "each is forgotten when it was asked for");
        assert!(known(&mut copy, &hashes[..5000]) < 100);
        // It grows without forgetting any.
        let before = known(&mut Ghosts(ghosts.0.clone()), &hashes);
        ghosts.insert(hashes[9999], 5000);
        assert_eq!(ghosts.0.len(), 8192);
        assert!(before <= known(&mut ghosts, &hashes));
    }
}
