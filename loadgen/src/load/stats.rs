//! Counts and latencies, per second and in all.

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;

/// Longest latency told apart, nanoseconds: one minute; what lasts longer counts as that.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Significant decimal digits of a latency.
const DIGITS: u8 = 3;

/// What one thread has counted since it was last asked.
#[derive(Debug)]
pub struct Counts {
    latencies_ns: Histogram<u64>,
    /// Operations answered, error replies included.
    pub operations: u64,
    /// Error replies.
    pub errors: u64,
    /// Operations whose connection broke before the answer.
    pub broken: u64,
    /// Operations that were due but not sent, because too many were waiting (open loop).
    pub not_sent: u64,
    /// The first error reply.
    pub first_error: Option<String>,
}

impl Default for Counts {
    fn default() -> Self {
        let latencies_ns =
            Histogram::new_with_max(LATENCY_NS_MAX, DIGITS).expect("3 digits up to a minute is valid");
        Self { latencies_ns, operations: 0, errors: 0, broken: 0, not_sent: 0, first_error: None }
    }
}

impl Counts {
    /// Counts `n` operations that took `ns` nanoseconds each.
    pub fn record(&mut self, ns: u64, n: u64) {
        self.operations += n;
        self.latencies_ns.saturating_record_n(ns.max(1), n);
    }

    /// Counts error replies.
    pub fn record_errors(&mut self, n: u64, first: Option<String>) {
        self.errors += n;
        if self.first_error.is_none() {
            self.first_error = first;
        }
    }

    /// Moves `other` into this, leaving it empty.
    pub fn absorb(&mut self, other: &mut Self) {
        self.latencies_ns.add(&other.latencies_ns).expect("all histograms have one range");
        other.latencies_ns.reset();
        self.operations += std::mem::take(&mut other.operations);
        self.errors += std::mem::take(&mut other.errors);
        self.broken += std::mem::take(&mut other.broken);
        self.not_sent += std::mem::take(&mut other.not_sent);
        self.first_error = self.first_error.take().or_else(|| other.first_error.take());
    }

    /// Percentiles of the latencies.
    pub fn latency(&self) -> Latency {
        let h = &self.latencies_ns;
        let us = |ns: u64| ns as f64 / 1000.0;
        let at = |q: f64| us(h.value_at_quantile(q));
        Latency {
            mean_us: h.mean() / 1000.0,
            p50_us: at(0.50),
            p90_us: at(0.90),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: us(h.max()),
        }
    }
}

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Latency {
    /// Mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 90 % are not above.
    pub p90_us: f64,
    /// 99 %.
    pub p99_us: f64,
    /// 99.9 %.
    pub p999_us: f64,
    /// 99.99 %.
    pub p9999_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// A [`Counts`] that its thread fills and another empties each second.
pub type SharedCounts = Mutex<Counts>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_come_out_as_recorded() {
        let (mut total, mut part) = (Counts::default(), Counts::default());
        part.record(1_000, 98);
        part.record(2_000_000, 1);
        part.record(u64::MAX, 1);
        total.absorb(&mut part);
        assert_eq!((total.operations, part.operations), (100, 0));
        let latency = total.latency();
        assert!((0.99..1.01).contains(&latency.p50_us), "{latency:?}");
        assert!((1990.0..2010.0).contains(&latency.p99_us), "{latency:?}");
        assert!(latency.max_us > 59e6, "{latency:?}");
        assert_eq!(part.latency().max_us as u64, 0);
    }
}
