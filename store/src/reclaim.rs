//! Memory of emptied tables, given back in slices.
//!
//! FLUSHALL on a million keys must not free a hundred megabytes inside one `apply`: it moves the tables here, and each later
//! `apply` frees a part, or the worker frees many when it is idle.

use std::collections::{VecDeque, btree_set};

use crate::{expiry::ExpiryEntry, slots::SlotTables};

/// Tables and indexes that nothing refers to any more.
#[derive(Debug, Default)]
pub(crate) struct Reclaim {
    tables: VecDeque<SlotTables>,
    indexes: VecDeque<btree_set::IntoIter<ExpiryEntry>>,
}

impl Reclaim {
    /// Takes tables to be freed later.
    pub(crate) fn push_tables(&mut self, tables: SlotTables) {
        self.tables.push_back(tables);
    }

    /// Takes tables, if any, to be freed later.
    pub(crate) fn extend(&mut self, tables: Option<SlotTables>) {
        self.tables.extend(tables);
    }

    /// Takes an index to be freed later.
    pub(crate) fn push_index(&mut self, index: btree_set::IntoIter<ExpiryEntry>) {
        self.indexes.push_back(index);
    }

    /// Frees up to `max` parts of tables or entries of indexes; returns whether any are left. A part is a long record or
    /// 256 KiB of short ones, of which one step frees one at most.
    pub(crate) fn step(&mut self, max: usize) -> bool {
        if let Some(tables) = self.tables.front_mut() {
            if !tables.dismantle(max) {
                self.tables.pop_front();
            }
            return !self.tables.is_empty() || !self.indexes.is_empty();
        }
        for _ in 0..max {
            let Some(index) = self.indexes.front_mut() else { return false };
            if index.next().is_none() {
                self.indexes.pop_front();
            }
        }
        !self.indexes.is_empty()
    }
}
