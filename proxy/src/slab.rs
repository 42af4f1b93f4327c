//! Numbered places that are used again, each time under another key.

/// Values under keys that are never given out twice: the lower half of a key is a place, the upper half counts its uses.
#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// How many values there are.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Stores a value. Keys start at 2^32, so that 0 is never one.
    pub fn insert(&mut self, value: T) -> u64 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            (self.places.len() - 1) as u32
        });
        let (uses, held) = &mut self.places[place as usize];
        *uses = uses.wrapping_add(1).max(1);
        *held = Some(value);
        u64::from(*uses) << 32 | u64::from(place)
    }

    fn place(&self, key: u64) -> Option<usize> {
        let (uses, place) = ((key >> 32) as u32, (key & u64::from(u32::MAX)) as usize);
        self.places.get(place).filter(|(u, held)| *u == uses && held.is_some()).map(|_| place)
    }

    /// The value of a key.
    pub fn get(&self, key: u64) -> Option<&T> {
        self.places[self.place(key)?].1.as_ref()
    }

    /// The value of a key.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let place = self.place(key)?;
        self.places[place].1.as_mut()
    }

    /// All keys, in the order of the places.
    pub fn keys(&self) -> Vec<u64> {
        let key = |(place, (uses, held)): (usize, &(u32, Option<T>))| {
            held.is_some().then_some(u64::from(*uses) << 32 | place as u64)
        };
        self.places.iter().enumerate().filter_map(key).collect()
    }

    /// Removes a value.
    pub fn remove(&mut self, key: u64) -> Option<T> {
        let place = self.place(key)?;
        self.free.push(place as u32);
        self.places[place].1.take()
    }

    /// Removes every value that `is_gone` chooses, in the order of the places.
    pub fn remove_if(&mut self, mut is_gone: impl FnMut(&T) -> bool) {
        for (place, (_, held)) in self.places.iter_mut().enumerate() {
            if held.as_ref().is_some_and(&mut is_gone) {
                *held = None;
                self.free.push(place as u32);
            }
        }
    }

    /// All values in the order of their places.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|(_, held)| held.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_keys_find_nothing() {
        let mut slab = Slab::default();
        let a = slab.insert('a');
        assert_eq!(slab.remove(a), Some('a'));
        let b = slab.insert('b');
        assert_ne!(a, b);
        assert_eq!(slab.remove(a), None);
        assert_eq!((slab.get(a), slab.get(b)), (None, Some(&'b')));
        slab.remove_if(|v| *v == 'b');
        assert_eq!((slab.len(), slab.get(b), slab.get(0)), (0, None, None));
    }
}
