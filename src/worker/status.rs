//! What a worker tells of itself for metrics. It counts in plain fields and publishes a copy every 100 ms (at rest every
//! second), so that counting costs an addition.

use ringfort_proxy::stats::Histogram;

/// Durations: how many, and their sum.
#[derive(Debug, Clone, Default)]
pub struct Durations {
    /// By their length.
    pub histogram: Histogram,
    /// Their sum, µs.
    pub micros: u64,
}

impl Durations {
    /// Counts a duration.
    pub fn record(&mut self, us: u64) {
        self.histogram.record(us);
        self.micros += us;
    }

    /// Counts so many durations of one length.
    pub fn record_many(&mut self, us: u64, count: u64) {
        self.histogram.record_many(us, count);
        self.micros += us * count;
    }

    /// Adds the durations of another worker.
    pub fn add(&mut self, other: &Self) {
        for (to, from) in self.histogram.buckets.iter_mut().zip(&other.histogram.buckets) {
            *to += from;
        }
        self.micros += other.micros;
    }
}

/// A worker's counts since its start, and its sizes now.
#[derive(Debug, Clone, Default)]
pub struct WorkerStatus {
    /// When it was published, µs since the machine's boot; 0 = the worker does not run yet.
    pub published_us: u64,
    /// From the proposal of an entry to its application by the leader.
    pub commits: Durations,
    /// The ages at which followers answered reads at once.
    pub follower_reads: Durations,
    /// Syncs of the log.
    pub syncs: Durations,
    /// Snapshots of own groups that were begun.
    pub snapshots_written: u64,
    /// Snapshots delivered to other nodes.
    pub snapshots_sent: u64,
    /// Snapshots of other nodes that were taken over.
    pub snapshots_installed: u64,
    /// Bytes of all log segments.
    pub log_bytes: u64,
    /// Log segments.
    pub log_segments: u64,
    /// Links of proxies.
    pub links: u64,
    /// Requests of proxies that are not answered: the credit in use.
    pub link_requests: u64,
    /// Whether the disk is so full that writes are refused.
    pub is_disk_full: bool,
    /// Whether the disk is so slow that others are to lead.
    pub is_disk_slow: bool,
}
