//! When keys expire: for each segment of the tables a time before which none of its keys does.
//!
//! A key with an expiry costs its 8 bytes in the record and nothing here. Writes only ever lower a bound; it is exact again
//! after the segment was searched, which happens when its time has come and takes a look at some 60 records. A key that is
//! overwritten or deleted before its time leaves a bound too low only if it was the first of its segment to expire.

use core::{cell::Cell, cmp::Reverse};
use std::collections::BinaryHeap;

/// Bounds under one of the next level.
const FANOUT: usize = 64;

/// No key of the segment expires.
pub(crate) const NEVER: u64 = u64::MAX;

/// A lower bound for each segment, by number, and minima over them.
///
/// # Invariants
/// An element of a level is the least of the [`FANOUT`] elements of the level below; the last level has one element.
#[derive(Debug, Default)]
pub(crate) struct Bounds {
    levels: Vec<Vec<Cell<u64>>>,
}

impl Bounds {
    /// The bound of a segment, milliseconds since 1970.
    pub(crate) fn get(&self, segment: u32) -> u64 {
        self.levels.first().and_then(|bounds| bounds.get(segment as usize)).map_or(NEVER, Cell::get)
    }

    /// A key of the segment expires at `at_ms`.
    pub(crate) fn lower(&mut self, segment: u32, at_ms: u64) {
        if at_ms == NEVER {
            return;
        }
        self.make_room(segment as usize + 1);
        let mut i = segment as usize;
        for level in &self.levels {
            if level[i].get() <= at_ms {
                return;
            }
            level[i].set(at_ms);
            i /= FANOUT;
        }
    }

    /// The first key of the segment expires at `at_ms`. O(log segments).
    pub(crate) fn set(&self, segment: u32, at_ms: u64) {
        if self.get(segment) == at_ms {
            return;
        }
        let mut i = segment as usize;
        let mut least = at_ms;
        for level in &self.levels {
            level[i].set(least);
            let group = i - i % FANOUT;
            least = least_of(level, group);
            i /= FANOUT;
        }
    }

    /// The segments with keys that expire, the least bound first.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (u64, u32)> {
        let mut heap = BinaryHeap::new();
        if let Some(top) = self.levels.last() {
            heap.push(Reverse((top[0].get(), self.levels.len() - 1, 0)));
        }
        core::iter::from_fn(move || {
            loop {
                let Reverse((bound, level, i)) = heap.pop()?;
                if bound == NEVER {
                    return None;
                }
                if level == 0 {
                    return Some((bound, i as u32));
                }
                let below = &self.levels[level - 1];
                let children = i * FANOUT..below.len().min((i + 1) * FANOUT);
                heap.extend(children.map(|i| Reverse((below[i].get(), level - 1, i))));
            }
        })
    }

    /// The first segment from a number on with keys that expire.
    pub(crate) fn next_from(&self, segment: u32) -> Option<u32> {
        self.next(0, segment as usize).map(|i| i as u32)
    }

    fn next(&self, level: usize, from: usize) -> Option<usize> {
        let bounds = self.levels.get(level)?;
        let find =
            |from: usize, end: usize| (from..end.min(bounds.len())).find(|i| bounds[*i].get() != NEVER);
        let group_end = (from / FANOUT + 1) * FANOUT;
        find(from, group_end).or_else(|| {
            let group = self.next(level + 1, from / FANOUT + 1)?;
            find(group * FANOUT, (group + 1) * FANOUT)
        })
    }

    fn make_room(&mut self, segments: usize) {
        let mut len = segments;
        for i in 0.. {
            if i == self.levels.len() {
                self.levels.push(Vec::new());
            }
            let (below, level) = self.levels.split_at_mut(i);
            let level = &mut level[0];
            while level.len() < len {
                let group = level.len() * FANOUT;
                level.push(Cell::new(below.last().map_or(NEVER, |below| least_of(below, group))));
            }
            len = level.len().div_ceil(FANOUT);
            if level.len() == 1 {
                return;
            }
        }
    }

    /// Checks the invariant of the type.
    ///
    /// # Panics
    /// When it does not hold.
    pub(crate) fn check_invariants(&self) {
        for levels in self.levels.windows(2) {
            let least = (0..levels[0].len()).step_by(FANOUT).map(|group| least_of(&levels[0], group));
            assert!(least.eq(levels[1].iter().map(Cell::get)), "a level is the minima of the one below");
        }
        assert!(self.levels.last().is_none_or(|top| top.len() == 1), "there is one least bound");
    }
}

/// The least of a group of bounds.
fn least_of(level: &[Cell<u64>], group: usize) -> u64 {
    let end = level.len().min(group + FANOUT);
    level[group..end].iter().map(Cell::get).min().unwrap_or(NEVER)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn segments_come_in_the_order_of_their_bounds(
            ops in prop::collection::vec((0_u32..9000, 0_u64..50, any::<bool>()), 0..60),
        ) {
            let mut bounds = Bounds::default();
            let mut model = std::collections::BTreeMap::new();
            for (segment, at_ms, is_set) in ops {
                if is_set {
                    let at_ms = if at_ms < 10 { NEVER } else { at_ms };
                    bounds.set(segment, if model.contains_key(&segment) { at_ms } else { NEVER });
                    model.entry(segment).and_modify(|bound| *bound = at_ms);
                } else {
                    bounds.lower(segment, at_ms);
                    let bound = model.entry(segment).or_insert(NEVER);
                    *bound = at_ms.min(*bound);
                }
                bounds.check_invariants();
            }
            let mut expected: Vec<_> =
                model.iter().filter(|(_, at)| **at != NEVER).map(|(segment, at)| (*at, *segment)).collect();
            let mut by_number: Vec<u32> = expected.iter().map(|(_, segment)| *segment).collect();
            by_number.sort_unstable();
            expected.sort_unstable();
            let mut found: Vec<_> = bounds.in_order().collect();
            prop_assert!(found.is_sorted_by_key(|(at, _)| *at));
            found.sort_unstable();
            prop_assert_eq!(found, expected);
            let mut walk = Vec::new();
            let mut from = 0;
            while let Some(segment) = bounds.next_from(from) {
                walk.push(segment);
                from = segment + 1;
            }
            prop_assert_eq!(walk, by_number);
        }
    }
}
