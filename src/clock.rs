//! The one place that asks for the time; everywhere else clippy refuses it.
//!
//! Cores take [`Now`] as an argument, shells hold a [`Clock`].

use rustix::time::{ClockId, Timespec, clock_gettime};

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Microseconds since the machine's boot (`CLOCK_BOOTTIME`): never goes back and counts time in suspend, so a lease
    /// cannot outlive a sleep of the machine. Timers and leases use it.
    pub boot_us: u64,
    /// Milliseconds since 1970 (`CLOCK_REALTIME`): may jump either way. Only expiry times and log time use it,
    /// and the choice of when workers that rest wake, on which nothing relies.
    pub wall_ms: u64,
}

/// Tells the time.
pub trait Clock {
    /// Reads both clocks. Costs two vDSO calls (about 50 ns), so a turn reads it once and hands it on.
    fn now(&self) -> Now;
}

/// The clocks of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        Now {
            boot_us: scaled(clock_gettime(ClockId::Boottime), 1_000_000),
            wall_ms: scaled(clock_gettime(ClockId::Realtime), 1_000),
        }
    }
}

/// `time` in units of `per_second`; a time before the clock's zero counts as zero.
fn scaled(time: Timespec, per_second: u64) -> u64 {
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec)) else {
        return 0;
    };
    seconds.saturating_mul(per_second).saturating_add(nanos / (1_000_000_000 / per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_never_goes_back() {
        let mut last = SystemClock.now();
        for _ in 0..10_000 {
            let now = SystemClock.now();
            assert!(last.boot_us <= now.boot_us);
            last = now;
        }
    }

    #[test]
    fn both_clocks_have_their_units() {
        let uptime = std::fs::read_to_string("/proc/uptime").expect("linux has /proc/uptime");
        let uptime_s: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let now = SystemClock.now();
        assert!((now.boot_us as f64 / 1e6 - uptime_s).abs() < 5.0, "{} against {uptime_s}", now.boot_us);
        let year_2020_ms = 1_577_836_800_000;
        let year_2200_ms = 7_258_118_400_000;
        assert!((year_2020_ms..year_2200_ms).contains(&now.wall_ms));
    }

    #[test]
    fn a_time_before_zero_is_zero() {
        assert_eq!(scaled(Timespec { tv_sec: -1, tv_nsec: 0 }, 1_000), 0);
        assert_eq!(scaled(Timespec { tv_sec: 2, tv_nsec: 3_500_000 }, 1_000), 2_003);
    }
}
