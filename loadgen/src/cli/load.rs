//! `fill` and `run`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use ringfort_loadgen::load::timeline::{self, Origin, Row};
use ringfort_loadgen::load::workload::{Commands, Distribution, Mix, Verb, Workload};
use ringfort_loadgen::load::ycsb::{Form, Letter, Ycsb};
use ringfort_loadgen::load::{self, LoadError, Options, Summary};
use ringfort_loadgen::report;

/// The name of standard output as a file.
const STDOUT: &str = "-";

/// By how many, with which keys.
#[derive(Debug, clap::Args)]
pub(super) struct Clients {
    /// Connections
    #[arg(long, default_value_t = 50)]
    clients: usize,
    /// Threads that they are spread over
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Commands that a client sends at once
    #[arg(long, value_name = "P", default_value_t = 16)]
    pipeline: usize,
    /// Number of keys: key:000000000000 and on (YCSB: user:000000000000 and on)
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    keys: u64,
    /// Length of values (YCSB: of each of the ten fields of a record)
    #[arg(long, value_name = "B", default_value_t = 100)]
    value_bytes: usize,
    /// Equal seeds give equal streams of commands
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// How YCSB keeps a record: string, or hash (as YCSB's Redis binding does); the same for 'fill' and 'run'
    #[arg(long, value_name = "FORM", default_value = "string", requires = "workload")]
    records: Form,
    /// No line each second
    #[arg(long)]
    quiet: bool,
}

/// What to send for how long.
#[derive(Debug, clap::Args)]
pub(super) struct Load {
    #[command(flatten)]
    clients: Clients,
    /// How long
    #[arg(long, default_value = "10s", value_parser = super::duration)]
    duration: Duration,
    /// Requests a second over all clients (open loop; the pipeline does not matter)
    #[arg(long, value_name = "OPS")]
    rate: Option<f64>,
    /// Requests of an open loop that are due together, for one client
    #[arg(long, value_name = "N", default_value_t = 1, requires = "rate")]
    burst: u32,
    /// The target is a node of a cluster: each client talks straight to one of its nodes, about that node's keys
    #[arg(long)]
    cluster: bool,
    /// Commands and weights, of get, set, incr, append, mget, mset, del; incr uses keys counter:N, append append:N
    #[arg(long, default_value = "get=90,set=10")]
    mix: Mix,
    /// A core workload of YCSB instead, on records that 'fill' with the same flag wrote: ycsb-a (50 % read, 50 % update), ycsb-b
    /// (95, 5), ycsb-c (read only), ycsb-d (95 % read of the latest, 5 % insert), ycsb-e (95 % scan, 5 % insert), ycsb-f (50 %
    /// read, 50 % read-modify-write)
    #[arg(long, value_name = "NAME", conflicts_with_all = ["mix", "multi_keys"])]
    workload: Option<Letter>,
    /// uniform, zipf:THETA, scrambled:THETA, latest:THETA, hotspot:KEYS:ACCESSES (fractions) or sequential [default: uniform;
    /// YCSB: scrambled:0.99, ycsb-d latest:0.99]
    #[arg(long, value_name = "DIST")]
    distribution: Option<Distribution>,
    /// Keys in one MGET or MSET
    #[arg(long, value_name = "N", default_value_t = 10)]
    multi_keys: usize,
    /// Write a row for each interval: to FILE, as CSV if it ends with .csv, else as lines of JSON; without FILE after the
    /// summary, as CSV
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = STDOUT)]
    pub(super) timeline: Option<PathBuf>,
    /// Length of a row of the timeline [default: 1s; with --html a hundredth of the duration, 100ms to 1s]
    #[arg(long, value_name = "TIME", value_parser = super::duration)]
    interval: Option<Duration>,
    /// Write a report with plots to FILE: one HTML file that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
}

/// Write N keys, key:000000000000 and on, once each.
///
/// A write that is refused or whose connection breaks is repeated; exit code 1 when nothing went on for 30 s.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ringfort-loadgen fill --target 127.0.0.1:6379 --keys 1000000 --value-bytes 100
  ringfort-loadgen fill --target 127.0.0.1:6379 --workload ycsb-a --records hash")]
pub(super) struct FillArgs {
    /// Address of the server
    #[arg(long, value_name = "ADDR", value_parser = super::address)]
    target: String,
    #[command(flatten)]
    clients: Clients,
    /// The target is a node of a cluster: write each key to its node
    #[arg(long)]
    cluster: bool,
    /// Write the records of a workload of YCSB instead: ycsb-a to ycsb-f
    #[arg(long, value_name = "NAME")]
    workload: Option<Letter>,
    /// Write the summary and each second to FILE as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
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
  ringfort-loadgen run --target 127.0.0.1:6379 --rate 20000 --distribution zipf:0.99 --timeline run.csv --interval 100ms
  ringfort-loadgen run --target 127.0.0.1:6379 --workload ycsb-b --pipeline 1 --html report.html
  ringfort-loadgen run --target 127.0.0.1:7001 --cluster --pipeline 16")]
pub(super) struct RunArgs {
    /// Address of the server
    #[arg(long, value_name = "ADDR", value_parser = super::address)]
    target: String,
    #[command(flatten)]
    load: Load,
    /// Write the summary and the timeline to FILE as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn fill(args: FillArgs) -> ExitCode {
    let form = args.clients.records;
    let mut options = args.clients.into_options(args.target);
    options.is_cluster = args.cluster;
    if let Some(letter) = args.workload {
        options.workload.commands = Commands::Ycsb(Ycsb { letter, form });
    }
    match load::fill(&options) {
        Ok(summary) => {
            say(&format!("fill -> {}", options.target), &describe(&summary));
            exit(args.json.is_none_or(|path| super::write_json(&path, &summary)))
        }
        Err(error) => refuse(&error),
    }
}

pub(super) fn run(args: RunArgs) -> ExitCode {
    let (timeline, html) = (args.load.timeline.clone(), args.load.html.clone());
    let options = args.load.into_options(args.target);
    let summary = match load::run(&options) {
        Ok(summary) => summary,
        Err(error) => return refuse(&error),
    };
    say(&format!("run {} -> {}", title(&options), options.target), &describe(&summary));
    let is_json_written = args.json.is_none_or(|path| super::write_json(&path, &summary));
    let is_timeline_written =
        timeline.is_none_or(|path| write_timeline(&path, summary.timeline.iter().map(|row| (None, row))));
    let is_html_written = html.is_none_or(|path| {
        let page = report::of_run(&title(&options), &options.target, &summary);
        super::written(&path, |out| out.write_all(page.as_bytes()))
    });
    // Errors are measured like anything else; a run without one good answer is a failure.
    exit(summary.operations > summary.errors && is_json_written && is_timeline_written && is_html_written)
}

impl Clients {
    fn into_options(self, target: String) -> Options {
        Options {
            target,
            clients: self.clients,
            threads: self.threads,
            pipeline: self.pipeline,
            duration: Duration::ZERO,
            rate: None,
            burst: 1,
            is_cluster: false,
            workload: Workload {
                commands: Commands::Mix(Mix::only(Verb::Set)),
                distribution: None,
                keys: self.keys,
                value_bytes: self.value_bytes,
                multi_keys: 1,
                seed: self.seed,
            },
            interval: Duration::from_secs(1),
            progress: !self.quiet,
        }
    }
}

impl Load {
    pub(super) fn into_options(self, target: String) -> Options {
        let form = self.clients.records;
        let mut options = self.clients.into_options(target);
        options.duration = self.duration;
        options.rate = self.rate;
        options.burst = self.burst;
        options.is_cluster = self.cluster;
        options.workload.commands = match self.workload {
            Some(letter) => Commands::Ycsb(Ycsb { letter, form }),
            None => Commands::Mix(self.mix),
        };
        options.workload.distribution = self.distribution;
        options.workload.multi_keys = self.multi_keys;
        let second = Duration::from_secs(1);
        options.interval = match (self.interval, self.html) {
            (Some(interval), _) => interval,
            (None, None) => second,
            (None, Some(_)) => (self.duration / 100).clamp(Duration::from_millis(100), second),
        };
        options
    }
}

/// What is sent, in a line.
pub(super) fn title(options: &Options) -> String {
    let loop_kind =
        options.rate.map_or_else(|| format!("P={}", options.pipeline), |rate| format!("rate {rate}/s"));
    let workload = &options.workload;
    format!(
        "{} {}, {} keys, {} B, {} clients, {loop_kind}",
        workload.commands,
        workload.distribution(),
        workload.keys,
        workload.value_bytes,
        options.clients,
    )
}

/// A closed standard output is no reason to change the exit code.
pub(super) fn say(title: &str, text: &str) {
    let _ = writeln!(std::io::stdout(), "{title}\n{text}");
}

pub(super) fn refuse(error: &LoadError) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "ringfort-loadgen: {error}");
    ExitCode::from(if matches!(error, LoadError::Fill(_)) { 1 } else { 2 })
}

pub(super) fn exit(is_good: bool) -> ExitCode {
    if is_good { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// Writes rows to a file, or to standard output; says so when it cannot.
pub(super) fn write_timeline<'a>(
    path: &Path,
    rows: impl IntoIterator<Item = (Option<Origin<'a>>, &'a Row)>,
) -> bool {
    if path == Path::new(STDOUT) {
        // Who has closed it wants no more.
        return timeline::write(&mut std::io::stdout().lock(), true, rows).is_ok();
    }
    let is_csv = path.extension().is_some_and(|extension| extension == "csv");
    super::written(path, |out| timeline::write(out, is_csv, rows))
}

fn describe(summary: &Summary) -> String {
    let Summary {
        operations,
        errors,
        broken,
        not_sent,
        seconds,
        ops_per_second,
        latency,
        generator_cpu_us,
        ..
    } = summary;
    let mut text = format!(
        "{operations} operations in {seconds:.2} s: {ops_per_second:.0} op/s; errors {errors}, unanswered {broken}, not sent \
         {not_sent}\nlatency ms: mean {:.3}, p50 {:.3}, p90 {:.3}, p99 {:.3}, p99.9 {:.3}, p99.99 {:.3}, max {:.3}\nthe load generator's own \
         CPU: {generator_cpu_us:.2} us for each operation",
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
