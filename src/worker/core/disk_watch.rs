//! Whether the disk is so slow that another node should lead: a sync that is waited for has been under way for long.
//!
//! A disk that stalls does not fail: heartbeats go on, so nobody would elect another leader, and every write of the partitions
//! that are led here would wait for it. Time is counted in ticks: what passes while the process stands still is not the
//! disk's fault.

use crate::shard::raft::TICK_MS;

/// Longest that a sync may take. A disk that is well takes a tenth of that, also when it is busy; clients that wait twice as
/// long would have been served by another leader.
pub(super) const SLOW_MS: u64 = 500;
/// After a slow sync the disk counts as slow for so long: a disk that stalls is likely to do so again.
const CALM_MS: u64 = 10_000;

const SLOW_TICKS: u64 = SLOW_MS / TICK_MS;
const CALM_TICKS: u64 = CALM_MS / TICK_MS;

/// Looks after the syncs of one log.
#[derive(Debug, Default)]
pub(super) struct DiskWatch {
    /// When the sync that is under way began.
    since: Option<u64>,
    /// Until then the disk counts as slow.
    slow_until: u64,
    is_slow: bool,
}

impl DiskWatch {
    pub(super) fn is_syncing(&self) -> bool {
        self.since.is_some()
    }

    /// A sync begins.
    pub(super) fn begun(&mut self, ticks: u64) {
        self.since = Some(ticks);
    }

    /// It is done.
    pub(super) fn done(&mut self) {
        self.since = None;
    }

    /// Judges; to be called at every tick. Returns the judgement when it is another one than before. If nothing waits for
    /// syncs, none is too slow.
    pub(super) fn look(&mut self, ticks: u64, is_waited_for: bool) -> Option<bool> {
        if self.since.is_some_and(|since| since + SLOW_TICKS < ticks) {
            self.slow_until = ticks + CALM_TICKS;
        }
        let is_slow = is_waited_for && ticks < self.slow_until;
        let was_slow = core::mem::replace(&mut self.is_slow, is_slow);
        (is_slow != was_slow).then_some(is_slow)
    }

    /// The last judgement.
    pub(super) fn is_slow(&self) -> bool {
        self.is_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_that_takes_long_makes_the_disk_slow_until_none_has_for_a_while() {
        let mut disk = DiskWatch::default();
        disk.begun(7);
        assert_eq!(disk.look(7 + SLOW_TICKS, true), None);
        assert_eq!(disk.look(8 + SLOW_TICKS, true), Some(true));
        disk.done();
        let calm = 8 + SLOW_TICKS + CALM_TICKS;
        assert_eq!((disk.look(calm - 1, true), disk.is_slow()), (None, true));
        disk.begun(calm - 1);
        assert_eq!((disk.look(calm, true), disk.is_slow()), (Some(false), false));
    }

    #[test]
    fn a_sync_that_nobody_waits_for_may_take_long() {
        let mut disk = DiskWatch::default();
        disk.begun(0);
        assert_eq!((disk.look(2 * SLOW_TICKS, false), disk.is_slow()), (None, false));
        assert_eq!(disk.look(2 * SLOW_TICKS, true), Some(true));
    }
}
