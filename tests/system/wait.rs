//! Waiting on conditions, with a deadline.

use std::time::{Duration, Instant};

/// Pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(10);

/// The time.
#[expect(clippy::disallowed_methods, reason = "a shell: deadlines of real processes")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits until `probe` gives a value.
///
/// # Panics
/// It gave none within `limit`; the message says `what` was waited for and the last reason.
#[track_caller]
#[expect(
    clippy::disallowed_methods,
    reason = "the one wait of these tests: between two looks at a condition"
)]
pub(crate) fn eventually<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let deadline = now() + limit;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(why) => assert!(now() < deadline, "{what}: not within {limit:?}; last: {why}"),
        }
        std::thread::sleep(POLL);
    }
}
