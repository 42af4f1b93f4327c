//! `check`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ringfort_loadgen::check::{self, Options, Report};
use ringfort_loadgen::nemesis::{self, Kind, Row};

/// Check that no acknowledged write is lost, read stale or done twice, and time the longest outage.
///
/// Clients write numbered values, increment counters and append tokens to keys of
/// their own and to keys they share, and read them from everywhere; at the end
/// everything is read once more and compared with what was acknowledged. Kill nodes
/// meanwhile. The last line is
///
///   acknowledged N, lost 0, stale 0, duplicated 0, unknown U, longest outage X ms
///
/// Exit code: 0 all in order; 1 something lost, stale, duplicated or unreadable;
/// 2 usage, or no connection at all.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  ringfort-loadgen check --target 127.0.0.1:6379 --clients 16 --duration 30s
  ringfort-loadgen check --target 127.0.0.1:6379 --duration 10m --rate 5000 --nemesis kill,pause,partition,disk-full"
)]
pub(super) struct Args {
    /// Address; several, with commas between: clients go on to the next when one fails
    #[arg(long, value_name = "ADDR", required = true, value_delimiter = ',', value_parser = super::address)]
    target: Vec<String>,
    /// Clients, each with a connection of its own
    #[arg(long, default_value_t = 16)]
    clients: u16,
    /// How long to write and read
    #[arg(long, default_value = "30s", value_parser = super::duration)]
    duration: Duration,
    /// Operations a second over all clients [default: as fast as answers come]
    #[arg(long, value_name = "OPS")]
    rate: Option<f64>,
    /// Keys in use at a time, spread evenly over the slots
    #[arg(long, value_name = "N", default_value_t = 1024)]
    keys: u32,
    /// Longest batch of commands that a client has on the way
    #[arg(long, value_name = "P", default_value_t = 4)]
    pipeline: u16,
    /// Share of reads, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 40)]
    reads: u8,
    /// Time after which an unanswered operation counts as unknown
    #[arg(long, default_value = "10s", value_parser = super::duration)]
    timeout: Duration,
    /// The target is a node of a cluster: ask it for CLUSTER SLOTS, go straight to each slot's node, follow MOVED
    #[arg(long)]
    cluster: bool,
    /// Break the cluster of a 'ringfort up' on this machine meanwhile: kill, pause, partition, disk-full, disk-slow (these three
    /// need 'up --faults'), stop, transfer; of all nodes at once: kill-all, pause-all, disk-full-all
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    nemesis: Vec<Kind>,
    /// Time from one fault to the next
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = super::duration, requires = "nemesis")]
    fault_every: Duration,
    /// Exit with 1 also when a request failed: a planned hand-over fails none
    #[arg(long)]
    strict: bool,
    /// Chooses keys, operations and faults; printed, so that a run can be repeated [default: from the clock]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Write the report to FILE as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leave the keys on the server
    #[arg(long)]
    keep: bool,
    /// No line each second
    #[arg(long)]
    quiet: bool,
}

pub(super) fn main(args: Args) -> ExitCode {
    let (json, is_strict) = (args.json.clone(), args.strict);
    let options = args.into_options();
    let mut out = std::io::stdout();
    let _ = writeln!(out, "checking {} with seed {}", options.targets.join(", "), options.seed);
    let report = match check::run(&options) {
        Ok(report) => report,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "ringfort-loadgen: {error}");
            return ExitCode::from(2);
        }
    };
    // A closed standard output is no reason to change the exit code.
    let _ = out.write_all(describe(&report, options.is_cluster).as_bytes());
    let is_written = json.is_none_or(|path| super::write_json(&path, &report));
    let _ = writeln!(out, "{report}");
    let is_good =
        report.is_clean() && !(is_strict && report.failed + report.unknown + report.reads_failed > 0);
    if is_good && is_written { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

impl Args {
    fn into_options(self) -> Options {
        Options {
            targets: self.target,
            clients: self.clients,
            duration: self.duration,
            rate: self.rate,
            keys: self.keys,
            pipeline: self.pipeline,
            reads_percent: self.reads,
            timeout: self.timeout,
            is_cluster: self.cluster,
            seed: self.seed.unwrap_or_else(seed_from_clock),
            keep: self.keep,
            progress: !self.quiet,
            nemesis: (!self.nemesis.is_empty())
                .then_some(nemesis::Options { kinds: self.nemesis, every: self.fault_every }),
        }
    }
}

fn seed_from_clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |time| u64::from(time.subsec_nanos()))
}

/// Everything but the last line.
fn describe(report: &Report, was_cluster: bool) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for violation in &report.violations {
        let _ = writeln!(text, "VIOLATION {violation}");
    }
    for (error, n) in &report.errors {
        let _ = writeln!(text, "{n:8} x {error}");
    }
    if report.keys_unread > 0 {
        let _ = writeln!(text, "{} keys could not be read at the end: not verified", report.keys_unread);
    }
    if report.is_cut_short {
        let _ = writeln!(text, "ended early: the history reached its bound; use --rate for a longer run");
    }
    if !was_cluster && report.errors.keys().any(|error| error.starts_with("MOVED ")) {
        let _ = writeln!(text, "the target is a node of a cluster: use --cluster, or the address of a proxy");
    }
    let [first, last] = report.longest_outage_slots;
    let _ = writeln!(
        text,
        "run {}: {:.1} s, {} keys, reads {}, reads failed {}, not done {}, connections broken {}; longest outage from {:.3} s in slots \
         {first}-{last}, {} of 64 buckets out for more than 100 ms",
        report.run,
        report.seconds,
        report.keys,
        report.reads,
        report.reads_failed,
        report.failed,
        report.connections_broken,
        report.longest_outage_at_s,
        report.buckets_out_100_ms,
    );
    if let Some(nemesis) = &report.nemesis {
        let _ = writeln!(
            text,
            "{:14} {:>5} {:>12} {:>9} {:>9}",
            "fault", "count", "outage p50", "p99", "longest"
        );
        for Row { kind, count, p50_ms, p99_ms, longest_ms } in &nemesis.kinds {
            let _ =
                writeln!(text, "{kind:14} {count:>5} {p50_ms:>9.0} ms {p99_ms:>6.0} ms {longest_ms:>6.0} ms");
        }
        for problem in &nemesis.problems {
            let _ = writeln!(text, "PROBLEM {problem}");
        }
    }
    text
}
