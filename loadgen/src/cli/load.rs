//! `fill` and `run`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ringfort_loadgen::load::workload::{Distribution, Mix, Workload};
use ringfort_loadgen::load::{self, LoadError, Options, Summary};

/// Where, by how many, with which keys.
#[derive(Debug, clap::Args)]
struct Common {
    /// Address of the server
    #[arg(long, value_name = "ADDR", value_parser = super::address)]
    target: String,
    /// Connections
    #[arg(long, default_value_t = 50)]
    clients: usize,
    /// Threads that they are spread over
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Commands that a client sends at once
    #[arg(long, value_name = "P", default_value_t = 16)]
    pipeline: usize,
    /// Number of keys: key:000000000000 and on
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    keys: u64,
    /// Length of values
    #[arg(long, value_name = "B", default_value_t = 100)]
    value_bytes: usize,
    /// Equal seeds give equal streams of commands
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Write the summary and each second to FILE as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// No line each second
    #[arg(long)]
    quiet: bool,
}

/// Write N keys, key:000000000000 and on, once each.
///
/// A write that is refused or whose connection breaks is repeated; exit code 1 when nothing went on for 30 s.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ringfort-loadgen fill --target 127.0.0.1:6379 --keys 1000000 --value-bytes 100")]
pub(super) struct FillArgs {
    #[command(flatten)]
    common: Common,
}

/// Send a mix of commands and measure throughput and latency.
///
/// Without --rate the loop is closed: each client sends P commands, takes their replies, sends the next. With --rate it
/// is open: each request leaves at its scheduled time whether or not answers came, and its latency counts from then, so
/// that a stall shows up in full.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ringfort-loadgen run --target 127.0.0.1:6379 --mix get=90,set=10 --duration 10s
  ringfort-loadgen run --target 127.0.0.1:6379 --workload ycsb-b --rate 20000
  ringfort-loadgen run --target 127.0.0.1:7001 --cluster --pipeline 16")]
pub(super) struct RunArgs {
    #[command(flatten)]
    common: Common,
    /// How long
    #[arg(long, default_value = "10s", value_parser = super::duration)]
    duration: Duration,
    /// Requests a second over all clients (open loop; the pipeline does not matter)
    #[arg(long, value_name = "OPS")]
    rate: Option<f64>,
    /// The target is a node of a cluster: each client talks straight to one of its nodes, about that node's keys
    #[arg(long, conflicts_with = "rate")]
    cluster: bool,
    /// Commands and weights, of get, set, incr, append, mget, mset, del; incr uses keys counter:N, append append:N
    #[arg(long, default_value = "get=90,set=10")]
    mix: Mix,
    /// uniform, zipf:THETA, hotspot:KEYS:ACCESSES (fractions) or sequential
    #[arg(long, value_name = "DIST", default_value = "uniform")]
    distribution: Distribution,
    /// Keys in one MGET or MSET
    #[arg(long, value_name = "N", default_value_t = 10)]
    multi_keys: usize,
}

pub(super) fn fill(args: FillArgs) -> ExitCode {
    let json = args.common.json.clone();
    let options = args.common.into_options();
    finish(load::fill(&options), &options, "fill", json, |_| true)
}

pub(super) fn run(args: RunArgs) -> ExitCode {
    let json = args.common.json.clone();
    let mut options = args.common.into_options();
    options.duration = args.duration;
    options.rate = args.rate;
    options.is_cluster = args.cluster;
    options.workload.mix = args.mix;
    options.workload.distribution = args.distribution;
    options.workload.multi_keys = args.multi_keys;
    let loop_kind =
        options.rate.map_or_else(|| format!("P={}", options.pipeline), |rate| format!("rate {rate}/s"));
    let title = format!(
        "run {} {}, {} keys, {} B, {} clients, {loop_kind}",
        options.workload.mix,
        options.workload.distribution,
        options.workload.keys,
        options.workload.value_bytes,
        options.clients,
    );
    // Errors are measured like anything else; a run without one good answer is a failure.
    finish(load::run(&options), &options, &title, json, |summary| summary.operations > summary.errors)
}

impl Common {
    fn into_options(self) -> Options {
        Options {
            target: self.target,
            clients: self.clients,
            threads: self.threads,
            pipeline: self.pipeline,
            duration: Duration::ZERO,
            rate: None,
            is_cluster: false,
            workload: Workload {
                mix: Mix::only(load::workload::Verb::Set),
                distribution: Distribution::Uniform,
                keys: self.keys,
                value_bytes: self.value_bytes,
                multi_keys: 1,
                seed: self.seed,
            },
            progress: !self.quiet,
        }
    }
}

fn finish(
    result: Result<Summary, LoadError>,
    options: &Options,
    title: &str,
    json: Option<PathBuf>,
    is_good: fn(&Summary) -> bool,
) -> ExitCode {
    let summary = match result {
        Ok(summary) => summary,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "ringfort-loadgen: {error}");
            return ExitCode::from(if matches!(error, LoadError::Fill(_)) { 1 } else { 2 });
        }
    };
    // A closed standard output is no reason to change the exit code.
    let _ = writeln!(std::io::stdout(), "{title} -> {}\n{}", options.target, describe(&summary));
    let is_written = json.is_none_or(|path| super::write_json(&path, &summary));
    if is_good(&summary) && is_written { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn describe(summary: &Summary) -> String {
    let Summary { operations, errors, broken, not_sent, seconds, ops_per_second, latency, .. } = summary;
    let mut text = format!(
        "{operations} operations in {seconds:.2} s: {ops_per_second:.0} op/s; errors {errors}, unanswered {broken}, not sent \
         {not_sent}\nlatency ms: mean {:.3}, p50 {:.3}, p90 {:.3}, p99 {:.3}, p99.9 {:.3}, p99.99 {:.3}, max {:.3}",
        latency.mean_us / 1000.0,
        latency.p50_us / 1000.0,
        latency.p90_us / 1000.0,
        latency.p99_us / 1000.0,
        latency.p999_us / 1000.0,
        latency.p9999_us / 1000.0,
        latency.max_us / 1000.0,
    );
    if let Some(error) = &summary.first_error {
        text.push_str("\nfirst error: ");
        text.push_str(error);
    }
    text
}
