//! Metrics as text for Prometheus (exposition format 0.0.4): the writer, and what nodes and proxies have in common.
//!
//! Names begin with `ringfort_`, say their unit (`_seconds`, `_bytes`), and end with `_total` when they only grow.

use crate::clients::Clients;
use crate::stats::{CommandSnapshot, Histogram, bucket_end_us};
use core::fmt::{Display, Write as _};

/// The media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Shortest duration that a histogram tells apart, µs; each bucket is twice as long as the one before.
const SHORTEST_US: u64 = 16;

/// What a metric does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, from 0 at the start of the process.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Durations by buckets.
    Histogram,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Writes the text: each [`Exposition::family`] is followed by its samples.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    name: &'static str,
}

impl Exposition {
    /// Begins a metric. `help` is one line.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        self.name = name;
        self.push(format_args!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.as_str()));
    }

    /// A value of the metric begun last. Label values are names, without quotes, backslashes and line ends.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line("", labels, value);
    }

    /// A metric with one value.
    pub fn single(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(&[], value);
    }

    /// Durations of the metric begun last; `micros` is their sum.
    pub fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram, micros: u64) {
        let mut count = 0;
        let mut end_us = SHORTEST_US;
        for (bucket, in_bucket) in histogram.buckets.iter().enumerate() {
            count += in_bucket;
            if bucket_end_us(bucket) == Some(end_us) {
                let end = seconds(end_us).to_string();
                self.line("_bucket", &[labels, &[("le", &end)]].concat(), count);
                end_us *= 2;
            }
        }
        self.line("_bucket", &[labels, &[("le", "+Inf")]].concat(), count);
        self.line("_sum", labels, seconds(micros));
        self.line("_count", labels, count);
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let name = self.name;
        self.push(format_args!("{name}{suffix}"));
        for (i, (name, label)) in labels.iter().enumerate() {
            debug_assert!(!label.contains(['"', '\\', '\n']), "{label} would need escapes");
            self.push(format_args!("{}{name}=\"{label}\"", if i == 0 { '{' } else { ',' }));
        }
        self.push(format_args!("{} {value}\n", if labels.is_empty() { "" } else { "}" }));
    }

    fn push(&mut self, text: core::fmt::Arguments<'_>) {
        self.text.write_fmt(text).expect("a String takes every write");
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// What every process tells of itself.
pub fn write_process(role: &str, uptime_s: u64, epoch: u64, out: &mut Exposition) {
    out.family("ringfort_build_info", Kind::Gauge, "Version and role of the process; always 1.");
    out.sample(&[("version", env!("CARGO_PKG_VERSION")), ("role", role)], 1);
    out.single("ringfort_uptime_seconds", Kind::Gauge, "Time since the start of the process.", uptime_s);
    out.single(
        "ringfort_resident_memory_bytes",
        Kind::Gauge,
        "Memory of the process that is in RAM.",
        resident_bytes().unwrap_or(0),
    );
    out.single(
        "ringfort_cluster_epoch",
        Kind::Gauge,
        "Version of the cluster map that the process knows; 0 is none.",
        epoch,
    );
}

/// Memory of this process that is in RAM, bytes; `None` where the system does not tell.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kib.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

/// What the ports for Redis clients tell; each with the name of its port.
pub fn write_clients(ports: &[(&str, &Clients)], out: &mut Exposition) {
    use Kind::{Counter, Gauge};
    let ports: Vec<_> =
        ports.iter().map(|(port, clients)| (*port, clients.open(), clients.totals())).collect();
    out.family("ringfort_clients", Gauge, "Open connections of Redis clients.");
    ports.iter().for_each(|(port, open, _)| out.sample(&[("port", port)], open));
    out.family(
        "ringfort_connections_total",
        Counter,
        "Connections of Redis clients, those turned away included.",
    );
    ports.iter().for_each(|(port, _, seen)| out.sample(&[("port", port)], seen.connections));
    out.family(
        "ringfort_connections_rejected_total",
        Counter,
        "Connections turned away because there were too many.",
    );
    ports.iter().for_each(|(port, _, seen)| out.sample(&[("port", port)], seen.rejected_connections));
    out.family("ringfort_received_bytes_total", Counter, "Bytes that came from Redis clients.");
    ports.iter().for_each(|(port, _, seen)| out.sample(&[("port", port)], seen.bytes_in));
    out.family("ringfort_sent_bytes_total", Counter, "Bytes that went to Redis clients.");
    ports.iter().for_each(|(port, _, seen)| out.sample(&[("port", port)], seen.bytes_out));
    type Write<'a> = &'a dyn Fn(&mut Exposition, &[(&str, &str)], &CommandSnapshot);
    let each = |out: &mut Exposition, write: Write<'_>| {
        for (port, _, seen) in &ports {
            for (spec, counts) in seen.used() {
                write(out, &[("port", port), ("command", spec.name)], counts);
            }
        }
    };
    out.family(
        "ringfort_command_errors_total",
        Counter,
        "Commands that were executed and answered with an error.",
    );
    each(out, &|out, labels, counts| out.sample(labels, counts.failed));
    out.family(
        "ringfort_command_rejections_total",
        Counter,
        "Commands that were refused before they were executed.",
    );
    each(out, &|out, labels, counts| out.sample(labels, counts.rejected));
    out.family(
        "ringfort_command_duration_seconds",
        Kind::Histogram,
        "Time from the decoding of a command to its answer; its count is the number of commands.",
    );
    each(out, &|out, labels, counts| out.histogram(labels, &counts.latency, counts.micros));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_follow_their_family() {
        let mut out = Exposition::default();
        out.single("ringfort_a_total", Kind::Counter, "As.", 7);
        out.family("ringfort_b_seconds", Kind::Histogram, "Bs.");
        let mut histogram = Histogram::default();
        for us in [3, 15, 16, 31, 100_000_000] {
            histogram.record(us);
        }
        out.histogram(&[("command", "get")], &histogram, 100_000_065);
        let text = out.finish();
        let start = "# HELP ringfort_a_total As.\n# TYPE ringfort_a_total counter\nringfort_a_total 7\n\
                     # HELP ringfort_b_seconds Bs.\n# TYPE ringfort_b_seconds histogram\n\
                     ringfort_b_seconds_bucket{command=\"get\",le=\"0.000016\"} 2\n\
                     ringfort_b_seconds_bucket{command=\"get\",le=\"0.000032\"} 4\n";
        assert!(text.starts_with(start), "{text}");
        let end = "ringfort_b_seconds_bucket{command=\"get\",le=\"16.777216\"} 4\n\
                   ringfort_b_seconds_bucket{command=\"get\",le=\"+Inf\"} 5\n\
                   ringfort_b_seconds_sum{command=\"get\"} 100.000065\n\
                   ringfort_b_seconds_count{command=\"get\"} 5\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
