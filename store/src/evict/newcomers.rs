//! Keys that eviction has not judged yet, in the order in which they came.

use std::collections::VecDeque;

use crate::keyspace::Place;

/// One part in so many of all keys is new at most; those before are judged with the rest.
const KEPT: usize = 8;
/// But so many are kept in any case.
const KEPT_MIN: usize = 64;
/// Most that one push drops: memory of keys that are gone is given up little by little.
const DROPPED_MAX: usize = 2;

/// The places of the last keys that were added, 8 bytes each. Some may be gone, or have been added again.
#[derive(Debug, Default)]
pub(crate) struct Newcomers {
    places: VecDeque<u64>,
    /// Number of the first one.
    first: u64,
}

impl Newcomers {
    /// Adds a key to `keys` others.
    pub(crate) fn push(&mut self, place: Place, keys: usize) {
        let kept = (keys / KEPT).max(KEPT_MIN);
        for _ in 0..DROPPED_MAX.min((self.places.len() + 1).saturating_sub(kept)) {
            self.places.pop_front();
            self.first += 1;
        }
        if self.places.len() == self.places.capacity() {
            // Not twice as much: there are few left over, and little is copied at once.
            self.places.reserve_exact(self.places.len() / 8 + KEPT_MIN);
        }
        self.places.push_back(place.packed());
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.first = self.end();
        self.places = VecDeque::new();
    }

    /// The first one whose number is `from` or more: its number and its place.
    pub(crate) fn next(&self, from: u64) -> Option<(u64, u64)> {
        let number = self.start(from);
        self.places.get((number - self.first) as usize).map(|place| (number, *place))
    }

    /// How many there are whose number is `from` or more.
    pub(crate) fn len_from(&self, from: u64) -> usize {
        (self.end() - self.start(from)) as usize
    }

    /// The first number from this one on. One that was not given yet is of the store that stood here before: it says nothing.
    fn start(&self, from: u64) -> u64 {
        if self.end() < from { self.first } else { from.max(self.first) }
    }

    fn end(&self) -> u64 {
        self.first + self.places.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use crate::{Store, keyspace::Place};

    use super::*;

    fn place(n: usize) -> Place {
        Store::new(0, 16383).place(n.to_string().as_bytes()).expect("it has all slots")
    }

    #[test]
    fn keeps_the_last_ones_in_order() {
        let mut newcomers = Newcomers::default();
        (0..1000).for_each(|n| newcomers.push(place(n), 800));
        assert_eq!(newcomers.len_from(0), 100);
        assert_eq!(newcomers.next(0), Some((900, place(900).packed())));
        assert_eq!(newcomers.next(999), Some((999, place(999).packed())));
        assert_eq!((newcomers.next(1000), newcomers.len_from(1000)), (None, 0));
        assert_eq!(newcomers.len_from(1001), 100, "a number of another store");
        // Fewer keys: two go for one that comes.
        (0..10).for_each(|n| newcomers.push(place(n), 0));
        assert_eq!(newcomers.len_from(0), 90);
        newcomers.clear();
        assert_eq!((newcomers.next(7), newcomers.len_from(7)), (None, 0));
        newcomers.push(place(7), 9);
        assert_eq!(newcomers.next(0), Some((1010, place(7).packed())));
    }
}
