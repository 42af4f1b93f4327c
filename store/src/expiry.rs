//! Which keys expire when: an exact, ordered index over the records that have an expiry.

use std::{
    collections::{BTreeSet, btree_set},
    ops::Bound,
};

/// A place in the index: everything needed to find the record again without a copy of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ExpiryEntry {
    /// When it is due, milliseconds since 1970; first, so that the index is ordered by time.
    pub(crate) expires_at_ms: u64,
    /// Which table of the store.
    pub(crate) table: u16,
    /// Hash of the key. Two keys of one table with the same hash and expiry share one entry.
    pub(crate) hash: u64,
}

/// The ordered index of expiries.
///
/// # Invariants
/// Holds exactly the entries of the records that have an expiry: overwriting, PERSIST and deletion take theirs away at
/// once, so nothing stale is ever due. O(log n) a change, O(1) to learn that nothing is due.
#[derive(Debug, Default)]
pub(crate) struct ExpiryIndex(BTreeSet<ExpiryEntry>);

impl ExpiryIndex {
    /// Adds an entry; once for records that share it.
    pub(crate) fn insert(&mut self, entry: ExpiryEntry) {
        self.0.insert(entry);
    }

    /// Takes an entry away; the caller knows that no record is left under it.
    pub(crate) fn remove(&mut self, entry: ExpiryEntry) {
        self.0.remove(&entry);
    }

    /// The entries due at `now_ms`, the longest overdue first.
    pub(crate) fn due(&self, now_ms: u64) -> impl Iterator<Item = &ExpiryEntry> {
        self.0.iter().take_while(move |entry| entry.expires_at_ms <= now_ms)
    }

    /// The entries after `entry`, in order; `None`: all.
    pub(crate) fn after(&self, entry: Option<ExpiryEntry>) -> impl Iterator<Item = &ExpiryEntry> {
        self.0.range((entry.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
    }

    /// Empties the index; the old entries are handed out to be dropped in slices.
    pub(crate) fn take(&mut self) -> btree_set::IntoIter<ExpiryEntry> {
        core::mem::take(&mut self.0).into_iter()
    }

    /// All entries, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &ExpiryEntry> {
        self.0.iter()
    }
}
