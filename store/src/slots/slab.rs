//! What does not fit the arena: one allocation each, under a number.

use super::BOXED;

/// Values with small numbers.
#[derive(Debug)]
pub(super) struct Slab<T> {
    pub(super) items: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { items: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }

    /// Keeps a value; returns its number, below 2^31.
    pub(super) fn insert(&mut self, item: T) -> u32 {
        let id = self.free.pop().unwrap_or_else(|| {
            self.items.push(None);
            (self.items.len() - 1) as u32
        });
        assert!(id < BOXED - 1, "there are fewer than 2^31");
        self.items[id as usize] = Some(item);
        id
    }

    /// Drops a value; its number is given again.
    pub(super) fn remove(&mut self, id: u32) {
        self.items[id as usize] = None;
        self.free.push(id);
    }

    /// The value of a number that [`Slab::insert`] gave.
    pub(super) fn get(&self, id: u32) -> &T {
        self.items[id as usize].as_ref().expect("a reference is good until it is freed")
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, id: u32) -> &mut T {
        self.items[id as usize].as_mut().expect("a reference is good until it is freed")
    }
}
