//! What was asked of a process and how long it took: counts, and a latency histogram for each command.
//!
//! Each worker has one [`Stats`], which only its own thread writes, without locks; any thread may read it, and
//! [`Snapshot::add`] joins several. The counts never go back: who resets them subtracts what they were
//! ([`Snapshot::since`]).

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use parking_lot::Mutex;
use ringfort_resp::{CommandSpec, commands};
use std::collections::BTreeMap;

/// Powers of two of the latency histogram, from 1 µs on: the last one ends at 16.8 s.
const OCTAVES: usize = 24;
/// Buckets of each power of two.
const OCTAVE_BUCKETS: usize = 4;
/// Buckets of a latency histogram: one below 1 µs, those of the powers of two, and one for all that is longer.
pub const BUCKETS: usize = 1 + OCTAVES * OCTAVE_BUCKETS + 1;

/// Most different first words of errors that are counted.
pub const ERRORS_MAX: usize = 128;
/// Longest of them, bytes.
const ERROR_BYTES_MAX: usize = 64;

/// The bucket of a duration.
fn bucket_of(us: u64) -> usize {
    if us == 0 {
        return 0;
    }
    let octave = us.ilog2() as usize;
    let quarter = ((u128::from(us) << 2 >> octave) & 3) as usize;
    (1 + octave * OCTAVE_BUCKETS + quarter).min(BUCKETS - 1)
}

/// The duration at which a bucket ends, which is the first one beyond it, µs; `None` for the last bucket, which has no end.
pub fn bucket_end_us(bucket: usize) -> Option<u64> {
    let Some(i) = bucket.checked_sub(1) else { return Some(1) };
    let (octave, quarter) = (i / OCTAVE_BUCKETS, i % OCTAVE_BUCKETS);
    (octave < OCTAVES).then(|| ((5 + quarter as u64) << octave).div_ceil(4))
}

/// A count that one thread writes and any thread reads.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    /// Not one atomic step, and so as cheap as a plain addition: there is only one writer.
    fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Debug)]
struct CommandCounts {
    calls: Count,
    micros: Count,
    rejected: Count,
    failed: Count,
    buckets: [Count; BUCKETS],
}

impl Default for CommandCounts {
    fn default() -> Self {
        Self {
            calls: Count::default(),
            micros: Count::default(),
            rejected: Count::default(),
            failed: Count::default(),
            buckets: [const { Count(AtomicU64::new(0)) }; BUCKETS],
        }
    }
}

/// The counts of one worker. Only the worker's own thread may call what changes them.
#[derive(Debug)]
pub struct Stats {
    /// One for each command and subcommand.
    commands: Box<[CommandCounts]>,
    proxy_requests: Count,
    bytes_in: Count,
    bytes_out: Count,
    /// Error replies by their first word.
    errors: Mutex<BTreeMap<String, u64>>,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            commands: commands::rows().map(|_| CommandCounts::default()).collect(),
            proxy_requests: Count::default(),
            bytes_in: Count::default(),
            bytes_out: Count::default(),
            errors: Mutex::default(),
        }
    }
}

impl Stats {
    /// A command was answered `us` µs after it was decoded.
    pub fn answered(&self, spec: &CommandSpec, us: u64, is_error: bool) {
        let Some(counts) = self.commands.get(spec.row()) else { return };
        counts.calls.add(1);
        counts.micros.add(us);
        counts.buckets[bucket_of(us)].add(1);
        if is_error {
            counts.failed.add(1);
        }
    }

    /// A command was refused before it was executed: a wrong number of arguments, no password, no map.
    pub fn rejected(&self, spec: &CommandSpec) {
        if let Some(counts) = self.commands.get(spec.row()) {
            counts.rejected.add(1);
        }
    }

    /// An error was the answer; `text` is what follows the minus. Its first word is counted; of more than
    /// [`ERRORS_MAX`] different ones the further ones are not.
    pub fn failed_with(&self, text: &[u8]) {
        let end = text.iter().position(|byte| byte.is_ascii_whitespace()).unwrap_or(text.len());
        let Ok(word) = core::str::from_utf8(&text[..end.min(ERROR_BYTES_MAX)]) else { return };
        let mut errors = self.errors.lock();
        if let Some(count) = errors.get_mut(word) {
            *count += 1;
        } else if errors.len() < ERRORS_MAX {
            errors.insert(word.to_owned(), 1);
        }
    }

    /// A proxy asked this node for one command, or one part of a command.
    pub fn asked_by_proxy(&self) {
        self.proxy_requests.add(1);
    }

    /// Commands answered, and asked for by proxies.
    pub(crate) fn executed(&self) -> u64 {
        self.commands.iter().map(|command| command.calls.get()).sum::<u64>() + self.proxy_requests.get()
    }

    /// Bytes came from clients.
    pub fn received(&self, bytes: usize) {
        self.bytes_in.add(bytes as u64);
    }

    /// Bytes went to clients.
    pub fn sent(&self, bytes: usize) {
        self.bytes_out.add(bytes as u64);
    }
}

/// Latencies by bucket; see [`bucket_end_us`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Histogram {
    /// How many durations fell into each bucket.
    pub buckets: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS] }
    }
}

impl Histogram {
    /// Counts a duration.
    pub fn record(&mut self, us: u64) {
        self.record_many(us, 1);
    }

    /// Counts so many durations of one length.
    pub fn record_many(&mut self, us: u64, count: u64) {
        self.buckets[bucket_of(us)] += count;
    }

    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The longest duration that the bucket of a percentile holds (`0.0 < percent <= 100.0`), µs; 0 without any.
    pub fn percentile_us(&self, percent: f64) -> u64 {
        let rank = (self.count() as f64 * percent / 100.0).ceil() as u64;
        let mut seen = 0;
        for (i, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank.max(1) {
                return bucket_end_us(i).map_or(1 << OCTAVES, |end| end - 1);
            }
        }
        0
    }
}

/// The counts of one command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandSnapshot {
    /// Times it was answered.
    pub calls: u64,
    /// Sum of the times from decoding to answer, µs.
    pub micros: u64,
    /// Times it was refused before it was executed.
    pub rejected: u64,
    /// Times the answer was an error.
    pub failed: u64,
    /// Times from decoding to answer.
    pub latency: Histogram,
}

/// The counts at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// One for each command and subcommand ([`commands::rows`]).
    pub commands: Vec<CommandSnapshot>,
    /// Commands, and parts of commands, that proxies asked this node for; they are in no other count.
    pub proxy_requests: u64,
    /// Bytes that came from clients.
    pub bytes_in: u64,
    /// Bytes that went to clients.
    pub bytes_out: u64,
    /// Error replies by their first word.
    pub errors: BTreeMap<String, u64>,
    /// Connections accepted, those that were turned away included.
    pub connections: u64,
    /// Connections turned away because there were too many.
    pub rejected_connections: u64,
}

impl Snapshot {
    /// Adds the counts of a worker.
    pub fn add(&mut self, stats: &Stats) {
        self.commands.resize_with(stats.commands.len(), CommandSnapshot::default);
        for (to, from) in self.commands.iter_mut().zip(&stats.commands) {
            to.calls += from.calls.get();
            to.micros += from.micros.get();
            to.rejected += from.rejected.get();
            to.failed += from.failed.get();
            for (to, from) in to.latency.buckets.iter_mut().zip(&from.buckets) {
                *to += from.get();
            }
        }
        self.proxy_requests += stats.proxy_requests.get();
        self.bytes_in += stats.bytes_in.get();
        self.bytes_out += stats.bytes_out.get();
        for (word, count) in &*stats.errors.lock() {
            *self.errors.entry(word.clone()).or_default() += count;
        }
    }

    /// What was counted since `base`.
    #[must_use]
    pub fn since(mut self, base: &Self) -> Self {
        for (now, base) in self.commands.iter_mut().zip(&base.commands) {
            now.calls = now.calls.saturating_sub(base.calls);
            now.micros = now.micros.saturating_sub(base.micros);
            now.rejected = now.rejected.saturating_sub(base.rejected);
            now.failed = now.failed.saturating_sub(base.failed);
            for (now, base) in now.latency.buckets.iter_mut().zip(&base.latency.buckets) {
                *now = now.saturating_sub(*base);
            }
        }
        self.proxy_requests = self.proxy_requests.saturating_sub(base.proxy_requests);
        self.bytes_in = self.bytes_in.saturating_sub(base.bytes_in);
        self.bytes_out = self.bytes_out.saturating_sub(base.bytes_out);
        for (word, count) in &mut self.errors {
            *count = count.saturating_sub(base.errors.get(word).copied().unwrap_or(0));
        }
        self.connections = self.connections.saturating_sub(base.connections);
        self.rejected_connections = self.rejected_connections.saturating_sub(base.rejected_connections);
        self
    }

    /// Commands answered.
    pub fn calls(&self) -> u64 {
        self.commands.iter().map(|command| command.calls).sum()
    }

    /// The commands that were answered or refused, in the order of the table.
    pub fn used(&self) -> impl Iterator<Item = (&'static CommandSpec, &CommandSnapshot)> {
        commands::rows().zip(&self.commands).filter(|(_, c)| c.calls + c.rejected > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_resp::Command;

    #[test]
    fn buckets_join_without_gaps() {
        let mut bucket = 0;
        for us in (0..10_000).chain((13..24).flat_map(|n| [(1 << n) - 1, 1 << n, (1 << n) + 1])) {
            bucket = bucket_of(us).max(bucket);
            let is_below_end = bucket_end_us(bucket_of(us)).is_none_or(|end| us < end);
            let is_above_last = bucket_of(us) == 0 || bucket_end_us(bucket_of(us) - 1).unwrap() <= us;
            assert!(is_below_end && is_above_last, "{us} in {}", bucket_of(us));
        }
        assert_eq!((bucket_of(1 << 24), bucket_of(u64::MAX)), (BUCKETS - 1, BUCKETS - 1));
        assert_eq!((bucket_end_us(BUCKETS - 2), bucket_end_us(BUCKETS - 1)), (Some(1 << 24), None));
    }

    #[test]
    fn percentiles_are_the_ends_of_buckets() {
        let stats = Stats::default();
        for us in 1..=1000 {
            stats.answered(Command::Get.spec(), us, us > 990);
        }
        let mut seen = Snapshot::default();
        seen.add(&stats);
        let used: Vec<_> = seen.used().collect();
        let [(spec, get)] = used[..] else { panic!("{} commands", used.len()) };
        assert_eq!((spec.command, get.calls, get.micros, get.failed), (Command::Get, 1000, 500_500, 10));
        let percentiles = [50.0, 99.0, 99.9, 100.0].map(|p| get.latency.percentile_us(p));
        assert_eq!(percentiles, [511, 1023, 1023, 1023]);
        assert_eq!(Histogram::default().percentile_us(50.0), 0);
    }

    #[test]
    fn workers_are_added_and_a_base_is_subtracted() {
        let (one, two) = (Stats::default(), Stats::default());
        one.answered(Command::Get.spec(), 5, false);
        one.received(10);
        two.rejected(Command::Set.spec());
        two.sent(7);
        let sum = || {
            let mut sum = Snapshot::default();
            sum.add(&one);
            sum.add(&two);
            sum
        };
        let base = sum();
        assert_eq!((base.calls(), base.used().count(), base.bytes_in, base.bytes_out), (1, 2, 10, 7));
        one.answered(Command::Get.spec(), 6, true);
        let later = sum().since(&base);
        assert_eq!((later.calls(), later.used().count(), later.bytes_in), (1, 1, 0));
        assert_eq!(later.used().next().unwrap().1.micros, 6);
        assert_eq!(sum().since(&sum()).used().count(), 0);
    }
}
