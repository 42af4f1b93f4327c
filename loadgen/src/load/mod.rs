//! Load: `fill` writes keys, `run` sends a mix and measures.
//!
//! Cost of the generator itself: commands are copied from templates, P of them into one buffer and one write; replies are
//! counted, most of them not read. Each thread has its own runtime and its share of the clients.

pub mod stats;
pub mod timeline;
pub mod workload;
pub mod ycsb;

mod closed;
mod flight;
mod keys;
mod open;
mod seat;

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, OnceLock};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::LocalSet;

use keys::Records;
use seat::Seat;
use stats::{Counts, Latency, Point, SharedCounts};
use timeline::{Cutter, Row};
use workload::{Generator, KEYS_MAX, Workload};

/// Shortest interval of a timeline.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// From one line of progress to the next.
const PROGRESS: Duration = Duration::from_secs(1);

/// What to send, by whom, for how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address, host:port.
    pub target: String,
    /// Connections.
    pub clients: usize,
    /// Threads they are spread over.
    pub threads: usize,
    /// Commands a client sends at once (closed loop).
    pub pipeline: usize,
    /// How long (`run`).
    pub duration: Duration,
    /// Requests a second over all clients: an open loop. `None`: a closed loop.
    pub rate: Option<f64>,
    /// Requests of an open loop that are due together and go to one client.
    pub burst: u32,
    /// The target is a node of a cluster: each client talks straight to one of its nodes, about that node's keys (commands
    /// with one key); `fill` writes each key to its node.
    pub is_cluster: bool,
    /// Commands and keys.
    pub workload: Workload,
    /// Length of a row of the timeline.
    pub interval: Duration,
    /// A line each second to standard error.
    pub progress: bool,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The options contradict each other.
    #[error("{0}")]
    Usage(&'static str),
    /// The target cannot be reached.
    #[error("cannot connect to {target}: {source}")]
    Connect {
        /// Its address.
        target: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A process whose CPU time is wanted cannot be read.
    #[error("process {pid}: {source}")]
    Process {
        /// Its id.
        pid: u32,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `fill` made no progress for 30 s.
    #[error("fill stopped: {0}")]
    Fill(#[source] std::io::Error),
    /// The machine refused a runtime.
    #[error("cannot start: {0}")]
    Start(#[source] std::io::Error),
}

/// What was measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// Operations answered, error replies included.
    pub operations: u64,
    /// Error replies.
    pub errors: u64,
    /// The first error reply.
    pub first_error: Option<String>,
    /// Operations whose connection broke before the answer, or that were unanswered at the end.
    pub broken: u64,
    /// Operations that were due but not sent, because too many were waiting (open loop).
    pub not_sent: u64,
    /// How long it took.
    pub seconds: f64,
    /// Operations a second.
    pub ops_per_second: f64,
    /// Closed loop: from the batch's write to the reply. Open loop: from the scheduled time to the reply.
    pub latency: Latency,
    /// The distribution of the latencies.
    pub latency_curve: Vec<Point>,
    /// What the generator itself took, microseconds of CPU for each operation.
    pub generator_cpu_us: f64,
    /// Each interval of the run.
    pub timeline: Vec<Row>,
    /// All that was counted.
    #[serde(skip)]
    pub counts: Counts,
}

/// Sends the mix for the duration. Blocks.
///
/// # Errors
/// The options are wrong, or nothing listens at the target.
pub fn run(options: &Options) -> Result<Summary, LoadError> {
    options.validate()?;
    drive(options, |part, open, start| Box::pin(part.run(open, start)))
}

/// Writes each key once: with the first command of the mix, or as an insert of YCSB. Blocks.
///
/// # Errors
/// As [`run`]; or the server refused writes or was away for 30 s.
pub fn fill(options: &Options) -> Result<Summary, LoadError> {
    options.validate()?;
    drive(options, |part, _, _| Box::pin(part.fill()))
}

impl Options {
    fn validate(&self) -> Result<(), LoadError> {
        let problem = if self.clients == 0 || self.threads == 0 || self.pipeline == 0 {
            "at least one client, one thread and a pipeline of 1 are needed"
        } else if self.workload.keys == 0 || self.workload.keys > KEYS_MAX {
            "the number of keys must be from 1 to 10^12"
        } else if self.workload.multi_keys == 0 {
            "MGET and MSET need at least one key"
        } else if self.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            "the rate must be above 0"
        } else if self.burst == 0 {
            "a burst is one request at least"
        } else if self.interval < INTERVAL_MIN {
            "an interval of the timeline is 10 ms at least"
        } else if self.is_cluster && !self.workload.commands.suits_a_cluster() {
            "with --cluster there is no mget, mset, ycsb-d or ycsb-e: go through a proxy for those"
        } else {
            return Ok(());
        };
        Err(LoadError::Usage(problem))
    }
}

/// The share of one thread.
struct Part {
    options: Options,
    /// The thread's clients, of all clients.
    clients: std::ops::Range<usize>,
    counts: Arc<SharedCounts>,
    records: Arc<Records>,
}

type Work = std::pin::Pin<Box<dyn Future<Output = Result<(), LoadError>>>>;

impl Part {
    /// What an open loop does before its time runs: its requests must not wait for connections.
    async fn prepare(&self) -> Option<open::Clients> {
        self.options.rate?;
        let clients = self.clients.clone().map(|client| (self.generator(client), self.seat(client)));
        Some(open::Clients::connect(self.options.target.clone(), clients.collect()).await)
    }

    async fn run(self, open: Option<open::Clients>, start: Instant) -> Result<(), LoadError> {
        let deadline = start + self.options.duration;
        if let (Some(open), Some(rate)) = (open, self.options.rate) {
            let rate = rate * self.clients.len() as f64 / self.options.clients as f64;
            return open
                .run((rate, self.options.burst), &self.counts, start, deadline)
                .await
                .map_err(LoadError::Start);
        }
        let clients: Vec<_> = self
            .clients
            .clone()
            .map(|client| {
                let (generator, seat) = (self.generator(client), self.seat(client));
                let (options, counts) = (self.options.clone(), Arc::clone(&self.counts));
                tokio::task::spawn_local(async move {
                    let mut client =
                        closed::Client::new(&options.target, generator, options.pipeline, &counts);
                    let run = client.run(seat, deadline);
                    // A server that hangs must not hold the end of the run.
                    if tokio::time::timeout_at((deadline + open::DRAIN_MAX).into(), run).await.is_err() {
                        client.give_up();
                    }
                })
            })
            .collect();
        join(clients).await;
        Ok(())
    }

    async fn fill(self) -> Result<(), LoadError> {
        let clients: Vec<_> = self
            .clients
            .clone()
            .map(|client| {
                let (options, counts) = (self.options.clone(), Arc::clone(&self.counts));
                let generator = self.generator(client);
                let place = |n: usize| {
                    let keys = u128::from(options.workload.keys);
                    (keys * n as u128 / options.clients as u128) as u64
                };
                let keys = place(client)..place(client + 1);
                tokio::task::spawn_local(async move {
                    let client = closed::Client::new(&options.target, generator, options.pipeline, &counts);
                    client.fill(options.is_cluster, keys).await
                })
            })
            .collect();
        let results: std::io::Result<()> = join(clients).await.into_iter().collect();
        results.map_err(LoadError::Fill)
    }

    fn seat(&self, client: usize) -> Option<Seat> {
        self.options.is_cluster.then(|| Seat::new(client))
    }

    fn generator(&self, client: usize) -> Generator {
        Generator::new(&self.options.workload, client as u64, self.options.clients as u64, &self.records)
    }
}

async fn join<T>(tasks: Vec<tokio::task::JoinHandle<T>>) -> Vec<T> {
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        match task.await {
            Ok(result) => results.push(result),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => {}
        }
    }
    results
}

/// Whether the target takes clients like ours.
fn try_connect(target: &str) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(crate::conn::open(target)).map(drop)
}

/// Runs the parts on their threads; meanwhile collects their counts each second.
fn drive(
    options: &Options,
    work: fn(Part, Option<open::Clients>, Instant) -> Work,
) -> Result<Summary, LoadError> {
    try_connect(&options.target)
        .map_err(|source| LoadError::Connect { target: options.target.clone(), source })?;
    let threads = options.threads.min(options.clients);
    let shared: Vec<Arc<SharedCounts>> = (0..threads).map(|_| Arc::default()).collect();
    let running = AtomicUsize::new(threads);
    let records = Arc::new(Records::new(options.workload.keys));
    let cpu = cpu_time();
    // One start for all, when all are ready.
    let (ready, first) = (Barrier::new(threads + 1), OnceLock::new());
    let start = || {
        ready.wait();
        *first.get_or_init(Instant::now)
    };
    let main = std::thread::current();
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|n| {
                let clients = options.clients * n / threads..options.clients * (n + 1) / threads;
                let part = Part {
                    options: options.clone(),
                    clients,
                    counts: Arc::clone(&shared[n]),
                    records: Arc::clone(&records),
                };
                let (running, main, start) = (&running, &main, &start);
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                    let local = LocalSet::new();
                    let open =
                        runtime.as_ref().ok().and_then(|runtime| local.block_on(runtime, part.prepare()));
                    let start = start();
                    let result = runtime
                        .map_err(LoadError::Start)
                        .and_then(|runtime| local.block_on(&runtime, work(part, open, start)));
                    running.fetch_sub(1, Ordering::Release);
                    main.unpark();
                    result
                })
            })
            .collect();
        let mut summary = collect(options, &shared, &running, start(), &handles);
        for handle in handles {
            match handle.join() {
                Ok(result) => result?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        summary.ops_per_second = summary.operations as f64 / summary.seconds.max(1e-9);
        let cpu_us = (cpu_time() - cpu).as_secs_f64() * 1e6;
        summary.generator_cpu_us = cpu_us / summary.operations.max(1) as f64;
        Ok(summary)
    })
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn collect<T>(
    options: &Options,
    shared: &[Arc<SharedCounts>],
    running: &AtomicUsize,
    start: Instant,
    handles: &[std::thread::ScopedJoinHandle<'_, T>],
) -> Summary {
    let (mut total, mut fresh) = (Counts::default(), Counts::default());
    let (mut rows, mut progress) = (Cutter::new(options.interval), Cutter::new(PROGRESS));
    let mut timeline = Vec::new();
    let (mut is_over, mut is_late) = (false, false);
    while !is_over {
        let next = if is_late { progress.next() } else { rows.next().min(progress.next()) };
        std::thread::park_timeout(next.saturating_sub(start.elapsed()));
        // A thread that panicked never says that it is done.
        is_over = running.load(Ordering::Acquire) == 0 || handles.iter().all(|handle| handle.is_finished());
        let now = start.elapsed();
        if !is_over && now < next {
            continue;
        }
        for counts in shared {
            fresh.absorb(&mut counts.lock());
        }
        rows.add(&fresh);
        progress.add(&fresh);
        total.absorb(&mut fresh);
        // What is left when the time is over belongs to the last row.
        is_late = !options.duration.is_zero() && now >= options.duration;
        if is_over || (now >= rows.next() && !is_late) {
            timeline.extend(rows.cut(now));
        }
        if is_over || now >= progress.next() {
            let row = progress.cut(now);
            if let Some(row) = row.filter(|_| options.progress) {
                show(options, &row, &total);
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    // The drain after an open loop's end is not part of its time.
    let seconds = if options.rate.is_some() { seconds.min(options.duration.as_secs_f64()) } else { seconds };
    Summary {
        operations: total.operations,
        errors: total.errors,
        broken: total.broken,
        not_sent: total.not_sent,
        seconds,
        ops_per_second: 0.0,
        latency: total.latency(),
        latency_curve: total.curve(),
        generator_cpu_us: 0.0,
        first_error: total.first_error.clone(),
        timeline,
        counts: total,
    }
}

fn show(options: &Options, row: &Row, total: &Counts) {
    // A closed standard error is no reason to stop.
    let _ = writeln!(
        std::io::stderr(),
        "{:5.1} s  {:9} op  p50 {:.3} ms  p99 {:.3} ms  max {:.3} ms  errors {}  {}",
        row.at_s,
        row.operations,
        row.p50_us / 1000.0,
        row.p99_us / 1000.0,
        row.max_us / 1000.0,
        row.errors,
        options.rate.map_or_else(|| format!("total {}", total.operations), |rate| format!("wanted {rate}/s")),
    );
}
