//! The slow log: the last commands that took long, of all workers.

use std::collections::VecDeque;

/// Most entries that one worker adds in a second; further ones are only counted, so that a slow time does not get slower.
pub(crate) const ENTRIES_PER_SECOND: u32 = 100;

/// One slow command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlowEntry {
    pub(crate) id: u64,
    /// When it was answered, s since 1970.
    pub(crate) unix_s: u64,
    /// From decoding to answer, µs.
    pub(crate) us: u64,
    pub(crate) args: Vec<Vec<u8>>,
    pub(crate) addr: String,
    pub(crate) name: String,
}

/// The last slow commands, the newest first.
#[derive(Debug, Default)]
pub(crate) struct SlowLog {
    entries: VecDeque<SlowEntry>,
    next_id: u64,
}

impl SlowLog {
    /// Adds an entry, which gets its id here; keeps the newest `max`.
    pub(crate) fn push(&mut self, entry: SlowEntry, max: usize) {
        self.entries.push_front(SlowEntry { id: self.next_id, ..entry });
        self.next_id += 1;
        self.entries.truncate(max);
    }

    /// The newest `count` entries.
    pub(crate) fn newest(&self, count: usize) -> Vec<SlowEntry> {
        self.entries.iter().take(count).cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest() {
        let entry = |us| SlowEntry {
            id: 0,
            unix_s: 1,
            us,
            args: Vec::new(),
            addr: String::new(),
            name: String::new(),
        };
        let mut log = SlowLog::default();
        (1..=3).for_each(|us| log.push(entry(us), 2));
        let newest: Vec<_> = log.newest(10).into_iter().map(|e| (e.id, e.us)).collect();
        assert_eq!((newest, log.newest(1).len(), log.len()), (vec![(2, 3), (1, 2)], 1, 2));
        log.clear();
        log.push(entry(9), 0);
        assert_eq!(log.len(), 0);
    }
}
