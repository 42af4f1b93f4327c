//! Memory of emptied tables, given back in slices.
//!
//! FLUSHALL on a million keys must not free a million allocations inside one `apply`: it moves the tables here, and
//! each later `apply` frees a few, or the worker frees many when it is idle.

use std::collections::{VecDeque, btree_set};

use hashbrown::{HashTable, hash_table};

use crate::{expiry::ExpiryEntry, record::Record};

/// Tables and indexes that nothing refers to any more.
///
/// The records leave it in hash-table order, which shows nowhere: they are only dropped.
#[derive(Debug, Default)]
pub(crate) struct Reclaim {
    tables: VecDeque<hash_table::IntoIter<Record>>,
    indexes: VecDeque<btree_set::IntoIter<ExpiryEntry>>,
}

impl Reclaim {
    /// Takes a table to be freed later.
    pub(crate) fn push_table(&mut self, table: HashTable<Record>) {
        if !table.is_empty() {
            self.tables.push_back(table.into_iter());
        }
    }

    /// Takes an index to be freed later.
    pub(crate) fn push_index(&mut self, index: btree_set::IntoIter<ExpiryEntry>) {
        self.indexes.push_back(index);
    }

    /// Frees up to `max` records or index entries; returns whether any are left.
    pub(crate) fn step(&mut self, max: usize) -> bool {
        for _ in 0..max {
            if let Some(table) = self.tables.front_mut() {
                if table.next().is_none() {
                    self.tables.pop_front();
                }
            } else if let Some(index) = self.indexes.front_mut() {
                if index.next().is_none() {
                    self.indexes.pop_front();
                }
            } else {
                return false;
            }
        }
        !self.tables.is_empty() || !self.indexes.is_empty()
    }
}
