//! CLIENT PAUSE: commands wait, for all workers of the process, until it ends by itself or by CLIENT UNPAUSE.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Whether commands wait, which, and until when.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    /// µs of the host's clock; 0: there is none.
    until_us: AtomicU64,
    /// Whether all commands wait, not only writes.
    is_all: AtomicBool,
}

impl Pause {
    /// Begins one, or makes the one under way longer or stricter, never shorter or milder.
    pub(crate) fn begin(&self, now_us: u64, until_us: u64, is_all: bool) {
        let is_under_way = now_us < self.until_us.load(Relaxed);
        if is_under_way {
            self.is_all.fetch_or(is_all, Relaxed);
            self.until_us.fetch_max(until_us, Relaxed);
        } else {
            self.is_all.store(is_all, Relaxed);
            self.until_us.store(until_us, Relaxed);
        }
    }

    pub(crate) fn end(&self) {
        self.until_us.store(0, Relaxed);
    }

    pub(crate) fn until_us(&self) -> Option<u64> {
        Some(self.until_us.load(Relaxed)).filter(|&until_us| until_us > 0)
    }

    /// Whether a command waits now.
    pub(crate) fn holds(&self, is_write: bool, now_us: u64) -> bool {
        now_us < self.until_us.load(Relaxed) && (is_write || self.is_all.load(Relaxed))
    }
}
