//! Looking at a cluster again and again, which may be away for a moment.

use std::time::Duration;

use super::process::pause;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(250);
/// Looks in a row that may fail before they are given up: 10 s.
const FAILED_MAX: u32 = 40;

/// How many looks in a row have failed.
#[derive(Debug, Default)]
pub(super) struct Looks {
    failed: u32,
}

impl Looks {
    /// What was seen; `None` when nothing was, after a pause: look again.
    ///
    /// # Errors
    /// That of the last of too many looks that failed.
    pub(super) fn take<T>(&mut self, seen: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
        if seen.is_err() && self.failed < FAILED_MAX {
            self.failed += 1;
            Self::pause();
            return Ok(None);
        }
        self.failed = 0;
        seen.map(Some)
    }

    /// Waits until the next look.
    pub(super) fn pause() {
        pause(INTERVAL);
    }
}
