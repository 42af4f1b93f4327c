//! Numbered places: a number that was given out once never means something else later.

/// A table of `T` with numbers of (place, generation).
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Keeps `value` and returns its number.
    pub(super) fn insert(&mut self, value: T) -> u64 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            (self.places.len() - 1) as u32
        });
        let slot = &mut self.places[place as usize];
        slot.0 = slot.0.wrapping_add(1);
        slot.1 = Some(value);
        u64::from(slot.0) << 32 | u64::from(place)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        let (generation, value) = self.places.get_mut((id & 0xffff_ffff) as usize)?;
        if u64::from(*generation) == id >> 32 { value.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<T> {
        let place = (id & 0xffff_ffff) as usize;
        let (generation, value) = self.places.get_mut(place)?;
        if u64::from(*generation) != id >> 32 {
            return None;
        }
        let value = value.take()?;
        self.free.push(place as u32);
        Some(value)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_number_finds_nothing() {
        let mut slab = Slab::default();
        let a = slab.insert('a');
        assert_eq!(slab.remove(a), Some('a'));
        let b = slab.insert('b');
        assert_ne!(a, b);
        assert_eq!(slab.get_mut(a), None);
        assert_eq!(slab.get_mut(b), Some(&mut 'b'));
        assert_eq!(slab.len(), 1);
    }
}
