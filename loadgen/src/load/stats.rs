//! Counts and latencies, per second and in all.

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;

/// Longest latency told apart, nanoseconds: one minute; what lasts longer counts as that.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Significant decimal digits of a latency.
const DIGITS: u8 = 3;

/// What one thread has counted since it was last asked.
#[derive(Debug, Clone)]
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
    /// Operations whose time has come (open loop).
    pub due: u64,
    /// The first error reply.
    pub first_error: Option<String>,
}

impl Default for Counts {
    fn default() -> Self {
        let latencies_ns =
            Histogram::new_with_max(LATENCY_NS_MAX, DIGITS).expect("3 digits up to a minute is valid");
        Self { latencies_ns, operations: 0, errors: 0, broken: 0, not_sent: 0, due: 0, first_error: None }
    }
}

impl Counts {
    /// Counts `n` operations that took `ns` nanoseconds each.
    pub fn record(&mut self, ns: u64, n: u64) {
        if n == 0 {
            // The histogram would take the latency for its longest all the same.
            return;
        }
        self.operations += n;
        self.latencies_ns.saturating_record_n(ns.max(1), n);
    }

    /// Keeps the text of an error reply when it is the first one.
    pub fn note_error(&mut self, text: &str) {
        self.first_error.get_or_insert_with(|| text.to_owned());
    }

    /// Counts what `other` counted as well.
    pub fn add(&mut self, other: &Self) {
        self.latencies_ns.add(&other.latencies_ns).expect("all histograms have one range");
        self.operations += other.operations;
        self.errors += other.errors;
        self.broken += other.broken;
        self.not_sent += other.not_sent;
        self.due += other.due;
        self.first_error = self.first_error.take().or_else(|| other.first_error.clone());
    }

    /// Moves `other` into this, leaving it empty.
    pub fn absorb(&mut self, other: &mut Self) {
        self.add(other);
        other.reset();
    }

    /// Forgets all.
    pub fn reset(&mut self) {
        let Self { latencies_ns, operations, errors, broken, not_sent, due, first_error } = self;
        latencies_ns.reset();
        for count in [operations, errors, broken, not_sent, due] {
            *count = 0;
        }
        *first_error = None;
    }

    /// Operations that did not succeed.
    pub fn failed(&self) -> u64 {
        self.errors + self.broken + self.not_sent
    }

    /// The distribution of the latencies, ten points for each nine of the quantile, as far as there are operations.
    pub fn curve(&self) -> Vec<Point> {
        let h = &self.latencies_ns;
        let count = h.len() as f64;
        let beyond = (0..).map(|step| 10_f64.powf(-f64::from(step) / 10.0));
        let mut points: Vec<_> = beyond
            .take_while(|beyond| count * beyond >= 1.0)
            .map(|beyond| Point { beyond, us: h.value_at_quantile(1.0 - beyond) as f64 / 1000.0 })
            .collect();
        if count > 0.0 {
            points.push(Point { beyond: 1.0 / count, us: h.max() as f64 / 1000.0 });
        }
        points
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

/// A point of the distribution of latencies.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Point {
    /// The part of the operations, from 1 down, that take longer: 0.01 at the 99th percentile.
    pub beyond: f64,
    /// The others take this at most, microseconds.
    pub us: f64,
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

        let curve = total.curve();
        let at = |n: usize| (curve[n].beyond, curve[n].us.round());
        assert_eq!((at(0), at(10)), ((1.0, 1.0), (0.1, 1.0)), "{curve:?}");
        assert!(curve.is_sorted_by(|a, b| a.beyond >= b.beyond && a.us <= b.us), "{curve:?}");
        assert!(curve.last().is_some_and(|last| (last.beyond - 0.01).abs() < 1e-9 && last.us > 59e6));
        assert!(part.curve().is_empty());
    }
}
