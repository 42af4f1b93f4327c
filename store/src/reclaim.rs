//! Memory of emptied tables, given back in slices.
//!
//! FLUSHALL on a million keys must not free a hundred megabytes inside one `apply`: it moves the tables here, and each later
//! `apply` frees a part, or the worker frees many when it is idle.

use std::collections::VecDeque;

use crate::slots::SlotTables;

/// Tables that nothing refers to any more.
#[derive(Debug, Default)]
pub(crate) struct Reclaim {
    tables: VecDeque<SlotTables>,
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

    /// Frees up to `max` parts of tables; returns whether any are left. A part is a long record, a directory, or 256 KiB of
    /// short records, of which one step frees one at most.
    pub(crate) fn step(&mut self, max: usize) -> bool {
        if let Some(tables) = self.tables.front_mut()
            && !tables.dismantle(max)
        {
            self.tables.pop_front();
        }
        !self.tables.is_empty()
    }
}
