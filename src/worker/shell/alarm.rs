//! The time at which the turn task wakes by itself.
//!
//! The runtime's own timers wake a thread once more on the way to a time that is more than some ten milliseconds off, to sort
//! them anew: at rest that would be two wakes in five.

use std::io;

#[cfg(target_os = "linux")]
mod system {
    use super::io;
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use std::os::fd::OwnedFd;
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// A timer of the system.
    #[derive(Debug)]
    pub(in super::super) struct Alarm(AsyncFd<OwnedFd>);

    impl Alarm {
        /// Makes one that is not set. To be called within a runtime.
        pub(in super::super) fn new() -> io::Result<Self> {
            let timer =
                timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
            #[expect(
                deprecated,
                reason = "what takes its place is unsafe, for types that let their descriptor go"
            )]
            let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
            Ok(Self(timer))
        }

        /// Sets it to a time in µs since boot, instead of the one that it was set to.
        pub(in super::super) fn set(&mut self, at_us: u64) -> io::Result<()> {
            let at_us = at_us.max(1); // 0 would be never
            let at = Timespec {
                tv_sec: i64::try_from(at_us / 1_000_000).unwrap_or(i64::MAX),
                tv_nsec: (at_us % 1_000_000 * 1_000) as _,
            };
            let once = Itimerspec { it_interval: Timespec::default(), it_value: at };
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
            Ok(())
        }

        /// Waits for the time. It may return before, when another one had come that nobody waited for.
        pub(in super::super) async fn passed(&self) -> io::Result<()> {
            // Nothing is read: the next time is told whether or not the last one was.
            self.0.readable().await?.clear_ready();
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::io;
    use crate::clock::{Clock as _, SystemClock};
    use std::time::Duration;
    use tokio::time::{Instant, sleep_until};

    /// A timer of the runtime.
    #[derive(Debug)]
    pub(in super::super) struct Alarm(Instant);

    impl Alarm {
        /// Makes one that is set to now.
        pub(in super::super) fn new() -> io::Result<Self> {
            Ok(Self(Instant::now()))
        }

        /// Sets it to a time in µs since boot, instead of the one that it was set to.
        pub(in super::super) fn set(&mut self, at_us: u64) -> io::Result<()> {
            self.0 = Instant::now() + Duration::from_micros(at_us.saturating_sub(SystemClock.now().boot_us));
            Ok(())
        }

        /// Waits for the time.
        pub(in super::super) async fn passed(&self) -> io::Result<()> {
            sleep_until(self.0).await;
            Ok(())
        }
    }
}

pub(super) use system::Alarm;

#[cfg(test)]
mod tests {
    use super::Alarm;
    use crate::clock::{Clock as _, SystemClock};

    #[tokio::test]
    async fn it_passes_at_its_time_again_and_again() {
        let mut alarm = Alarm::new().unwrap();
        let mut at_us = SystemClock.now().boot_us;
        for wait_us in [0, 1, 20_000, 1_000, 150_000, 0] {
            at_us += wait_us;
            alarm.set(at_us).unwrap();
            while SystemClock.now().boot_us < at_us {
                alarm.passed().await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_later_time_takes_the_place_of_an_earlier_one() {
        let mut alarm = Alarm::new().unwrap();
        let begun_us = SystemClock.now().boot_us;
        alarm.set(begun_us + 3_600_000_000).unwrap();
        alarm.set(begun_us + 10_000).unwrap();
        alarm.passed().await.unwrap();
        assert!(begun_us + 10_000 <= SystemClock.now().boot_us);
    }
}
