//! What is live in the log and where it lies: per group in memory, rebuilt by recovery.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::record::{Framed, Record};
use super::{HardState, Identity, Mark, Recovered};

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) bytes: u32,
}

/// A value and the record that holds it (`None`: the default, nowhere written).
#[derive(Clone, Debug, Default)]
pub(super) struct Stored<T> {
    pub(super) value: T,
    pub(super) place: Option<Place>,
}

/// Live bytes of each segment.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    segments: BTreeMap<u32, u64>,
}

impl Ledger {
    pub(super) fn live_bytes(&self, segment: u32) -> u64 {
        self.segments.get(&segment).copied().unwrap_or(0)
    }

    pub(super) fn forget(&mut self, segment: u32) {
        self.segments.remove(&segment);
    }

    fn add(&mut self, place: Place) {
        *self.segments.entry(place.segment).or_default() += u64::from(place.bytes);
    }

    fn subtract(&mut self, place: Place) {
        let live_bytes = self.segments.entry(place.segment).or_default();
        assert!(u64::from(place.bytes) <= *live_bytes, "a record died twice");
        *live_bytes -= u64::from(place.bytes);
    }

    fn replace<T>(&mut self, stored: &mut Stored<T>, value: T, place: Place) {
        if let Some(old) = stored.place {
            self.subtract(old);
        }
        self.add(place);
        *stored = Stored { value, place: Some(place) };
    }
}

/// The live records of one group.
///
/// # Invariants
/// - `first = mark.index + 1`, and `places[i]` is the entry at index `first + i`.
/// - `terms` holds one run for each change of term in `places`, the first of them at `first`; it is empty
///   when `places` is.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) identity: Stored<Identity>,
    pub(super) hard_state: Stored<HardState>,
    pub(super) mark: Stored<Mark>,
    pub(super) first: u64,
    pub(super) places: VecDeque<Place>,
    pub(super) terms: VecDeque<(u64, u64)>,
    pub(super) entries_bytes: u64,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            identity: Stored::default(),
            hard_state: Stored::default(),
            mark: Stored::default(),
            first: 1,
            places: VecDeque::new(),
            terms: VecDeque::new(),
            entries_bytes: 0,
        }
    }
}

impl Group {
    /// Returns the index of the last entry, or that of the mark when there is none.
    pub(super) fn last(&self) -> u64 {
        self.first - 1 + self.places.len() as u64
    }

    /// Returns the place of the entry at `index`, if it is live.
    pub(super) fn place(&self, index: u64) -> Option<Place> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.places.get(at).copied()
    }

    /// Returns the term of the entry at `index`, or of the mark; `O(log t)`, t = runs of terms.
    pub(super) fn term(&self, index: u64) -> Option<u64> {
        if index == self.mark.value.index {
            return Some(self.mark.value.term);
        }
        if index < self.first || self.last() < index {
            return None;
        }
        let run = self.terms.partition_point(|&(first, _)| first <= index);
        self.terms.get(run.checked_sub(1)?).map(|&(_, term)| term)
    }

    fn append(&mut self, index: u64, term: u64, place: Place, ledger: &mut Ledger) {
        while index <= self.last() && self.pop_last(ledger) {}
        assert_eq!(index, self.last() + 1, "an append must continue the log of its group");
        if self.terms.back().is_none_or(|&(_, last)| last != term) {
            self.terms.push_back((index, term));
        }
        self.places.push_back(place);
        self.entries_bytes += u64::from(place.bytes);
        ledger.add(place);
    }

    fn pop_last(&mut self, ledger: &mut Ledger) -> bool {
        let last = self.last();
        let Some(place) = self.places.pop_back() else { return false };
        self.entries_bytes -= u64::from(place.bytes);
        ledger.subtract(place);
        if self.terms.back().is_some_and(|&(first, _)| first == last) {
            self.terms.pop_back();
        }
        true
    }

    fn relocate(&mut self, index: u64, place: Place, ledger: &mut Ledger) {
        let at = index.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let Some(old) = at.and_then(|at| self.places.get_mut(at)) else { return };
        self.entries_bytes -= u64::from(old.bytes);
        self.entries_bytes += u64::from(place.bytes);
        ledger.subtract(*old);
        ledger.add(place);
        *old = place;
    }

    /// Drops the entries up to `mark.index`, or all without `keep_log`.
    fn set_mark(&mut self, mark: Mark, keep_log: bool, place: Place, ledger: &mut Ledger) {
        while self.first <= mark.index || !keep_log {
            let Some(place) = self.places.pop_front() else { break };
            self.entries_bytes -= u64::from(place.bytes);
            ledger.subtract(place);
            self.first += 1;
        }
        self.first = mark.index + 1;
        if self.places.is_empty() {
            self.terms.clear();
        }
        while self.terms.get(1).is_some_and(|&(first, _)| first <= self.first) {
            self.terms.pop_front();
        }
        if let Some((first, _)) = self.terms.front_mut() {
            *first = self.first;
        }
        ledger.replace(&mut self.mark, mark, place);
    }

    fn release(&mut self, ledger: &mut Ledger) {
        let state = [self.identity.place, self.hard_state.place, self.mark.place];
        for place in state.into_iter().flatten().chain(self.places.drain(..)) {
            ledger.subtract(place);
        }
    }

    pub(super) fn recovered(&self, group: u16) -> Recovered {
        Recovered {
            group,
            identity: self.identity.value,
            hard_state: self.hard_state.value,
            mark: self.mark.value.clone(),
            last_index: self.last(),
            terms: self.terms.iter().copied().collect(),
        }
    }
}

/// The live records of all groups.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) groups: BTreeMap<u16, Group>,
    pub(super) ledger: Ledger,
}

impl Index {
    /// Takes in a record that was just written.
    pub(super) fn apply(&mut self, framed: &Framed<'_>, place: Place) {
        let Self { groups, ledger } = self;
        if framed.record == Record::Remove {
            if let Some(mut group) = groups.remove(&framed.group) {
                group.release(ledger);
            }
            return;
        }
        let group = groups.entry(framed.group).or_default();
        match framed.record {
            Record::Entry { index, moved: true, .. } => group.relocate(index, place, ledger),
            Record::Entry { index, term, .. } => group.append(index, term, place, ledger),
            Record::HardState(state) => ledger.replace(&mut group.hard_state, state, place),
            Record::Identity(identity) => ledger.replace(&mut group.identity, identity, place),
            Record::Mark { index, term, conf, keep_log } => {
                let mark = Mark { index, term, conf: Bytes::copy_from_slice(conf) };
                group.set_mark(mark, keep_log, place, ledger);
            }
            Record::Remove => {}
        }
    }
}

/// A group while its records are replayed: the entries may have gaps, because those of a deleted segment come
/// later, as moved ones.
#[derive(Debug, Default)]
struct Replayed {
    identity: Stored<Identity>,
    hard_state: Stored<HardState>,
    mark: Stored<Mark>,
    entries: BTreeMap<u64, (Place, u64)>,
}

/// Rebuilds an [`Index`] from the records of all segments, in the order they were written.
#[derive(Debug, Default)]
pub(super) struct Replay {
    groups: BTreeMap<u16, Replayed>,
}

impl Replay {
    pub(super) fn apply(&mut self, framed: &Framed<'_>, place: Place) {
        if framed.record == Record::Remove {
            self.groups.remove(&framed.group);
            return;
        }
        let group = self.groups.entry(framed.group).or_default();
        match framed.record {
            Record::Entry { index, term, moved, .. } => {
                let replaces = group.entries.last_key_value().is_some_and(|(&last, _)| index <= last);
                if replaces && !moved {
                    group.entries.split_off(&index);
                }
                group.entries.insert(index, (place, term));
            }
            Record::HardState(value) => group.hard_state = Stored { value, place: Some(place) },
            Record::Identity(value) => group.identity = Stored { value, place: Some(place) },
            Record::Mark { index, term, conf, keep_log } => {
                let value = Mark { index, term, conf: Bytes::copy_from_slice(conf) };
                group.mark = Stored { value, place: Some(place) };
                group.entries = match index.checked_add(1) {
                    Some(next) if keep_log => group.entries.split_off(&next),
                    _ => BTreeMap::new(),
                };
            }
            Record::Remove => {}
        }
    }

    /// Returns the index, or the group and the index of an entry that is missing.
    pub(super) fn finish(self) -> Result<Index, (u16, u64)> {
        let mut index = Index::default();
        for (id, replayed) in self.groups {
            let ledger = &mut index.ledger;
            let Replayed { identity, hard_state, mark, entries } = replayed;
            for place in [identity.place, hard_state.place, mark.place].into_iter().flatten() {
                ledger.add(place);
            }
            // The index of a mark is at most u64::MAX - 1: the log refuses to stage another.
            let first = mark.value.index.saturating_add(1);
            let mut group = Group { identity, hard_state, mark, first, ..Group::default() };
            for (at, (place, term)) in entries {
                if at != group.last() + 1 {
                    return Err((id, group.last() + 1));
                }
                group.append(at, term, place, ledger);
            }
            index.groups.insert(id, group);
        }
        Ok(index)
    }
}
