//! How long writes were not served, by bucket of slots. Pure: time comes in as an argument.

use super::history::Time;

/// Equal ranges of slots that are timed apart; a bucket holds one partition of a cluster of 64.
pub const BUCKETS: usize = 64;

/// Outages from this length on are noted one by one, in nanoseconds.
const NOTED_MIN: Time = 20_000_000;
/// Most outages that are noted; the longest of each bucket is known all the same.
const NOTED_MAX: usize = 1 << 20;

/// The longest time in which no write to a bucket succeeded while somebody tried.
#[derive(Debug)]
pub struct Outages {
    buckets: [Bucket; BUCKETS],
    /// Begin and end of each.
    noted: Vec<(Time, Time)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// Since when somebody waits: the begin of the first write that has not been followed by a success.
    waiting_since: Option<Time>,
    pending: u32,
    longest: Time,
    longest_from: Time,
    is_held: bool,
}

/// The longest outage of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Longest {
    /// Which bucket.
    pub bucket: usize,
    /// When it began.
    pub from: Time,
    /// How long it was, in nanoseconds.
    pub length: Time,
}

impl Outages {
    /// Creates the buckets, nobody waiting.
    pub fn new() -> Self {
        Self { buckets: [Bucket::default(); BUCKETS], noted: Vec::new() }
    }

    /// Somebody wants to write.
    pub fn begin(&mut self, bucket: usize, now: Time) {
        let bucket = &mut self.buckets[bucket];
        bucket.pending += 1;
        bucket.waiting_since.get_or_insert(now);
    }

    /// A write that was begun at `begun` succeeded.
    pub fn succeed(&mut self, bucket: usize, begun: Time, now: Time) {
        let bucket = &mut self.buckets[bucket];
        bucket.pending -= 1;
        let since = bucket.waiting_since.map_or(begun, |since| since.min(begun));
        bucket.note(since, now);
        bucket.waiting_since = (bucket.pending > 0).then_some(now);
        self.note(since, now);
    }

    /// A write did not succeed: the bucket goes on waiting.
    pub fn fail(&mut self, bucket: usize) {
        self.buckets[bucket].pending -= 1;
    }

    /// Takes the duty to try this bucket again and again until a write succeeds; false when somebody has it already.
    pub fn hold(&mut self, bucket: usize) -> bool {
        !std::mem::replace(&mut self.buckets[bucket].is_held, true)
    }

    /// Gives the duty back.
    pub fn release(&mut self, bucket: usize) {
        self.buckets[bucket].is_held = false;
    }

    /// Ends the outages that are still open, and returns the longest of all.
    pub fn finish(&mut self, now: Time) -> Longest {
        for n in 0..BUCKETS {
            if let Some(since) = self.buckets[n].waiting_since.take() {
                self.buckets[n].note(since, now);
                self.note(since, now);
            }
        }
        self.longest()
    }

    /// Begin and end of the outages of all buckets that are over and lasted 20 ms or more, in the order of their ends.
    pub fn noted(&self) -> &[(Time, Time)] {
        &self.noted
    }

    fn note(&mut self, since: Time, now: Time) {
        if NOTED_MIN <= now.saturating_sub(since) && self.noted.len() < NOTED_MAX {
            self.noted.push((since, now));
        }
    }

    /// The longest outage that is over.
    pub fn longest(&self) -> Longest {
        let worst = self.buckets.iter().enumerate().max_by_key(|(n, b)| (b.longest, std::cmp::Reverse(*n)));
        let (bucket, worst) = worst.expect("there is at least one bucket");
        Longest { bucket, from: worst.longest_from, length: worst.longest }
    }

    /// The longest outage of each bucket, in nanoseconds.
    pub fn by_bucket(&self) -> impl Iterator<Item = Time> + '_ {
        self.buckets.iter().map(|bucket| bucket.longest)
    }
}

impl Default for Outages {
    fn default() -> Self {
        Self::new()
    }
}

impl Bucket {
    fn note(&mut self, since: Time, now: Time) {
        let length = now.saturating_sub(since);
        if length > self.longest {
            self.longest = length;
            self.longest_from = since;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_from_the_first_failed_write_to_the_next_success() {
        let mut outages = Outages::new();
        outages.begin(3, 100);
        outages.fail(3);
        outages.begin(3, 400);
        outages.succeed(3, 400, 450);
        assert_eq!(outages.longest(), Longest { bucket: 3, from: 100, length: 350 });
    }

    #[test]
    fn an_idle_bucket_has_no_outage() {
        let mut outages = Outages::new();
        outages.begin(0, 0);
        outages.succeed(0, 0, 5);
        outages.begin(0, 1_000);
        outages.succeed(0, 1_000, 1_007);
        assert_eq!(outages.finish(9_999).length, 7);
    }

    #[test]
    fn another_write_of_the_bucket_ends_the_outage_but_not_the_slow_ones_latency() {
        let mut outages = Outages::new();
        outages.begin(0, 0);
        outages.begin(0, 10);
        outages.succeed(0, 10, 20);
        assert_eq!(outages.longest().length, 20);
        outages.succeed(0, 0, 90);
        assert_eq!(outages.longest().length, 90);
    }

    #[test]
    fn an_outage_without_end_lasts_until_the_run_ends() {
        let mut outages = Outages::new();
        outages.begin(63, 50);
        outages.fail(63);
        assert_eq!(outages.finish(250), Longest { bucket: 63, from: 50, length: 200 });
    }

    #[test]
    fn one_at_a_time_holds_a_bucket() {
        let mut outages = Outages::new();
        assert!(outages.hold(1));
        assert!(!outages.hold(1));
        outages.release(1);
        assert!(outages.hold(1));
    }
}
