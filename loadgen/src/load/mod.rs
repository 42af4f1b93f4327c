//! Load: `fill` writes keys, `run` sends a mix and measures.
//!
//! Cost of the generator itself: commands are copied from templates, P of them into one buffer and one write; replies are
//! counted, not read. Each thread has its own runtime and its share of the clients.

pub mod stats;
pub mod workload;

mod closed;
mod open;
mod replies;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::LocalSet;

use stats::{Counts, Latency, SharedCounts};
use workload::{Generator, KEYS_MAX, Workload};

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
    /// The target is a node of a cluster: each client talks straight to one of its nodes, about that node's keys (closed
    /// loop, commands with one key; `fill` goes by any one endpoint instead).
    pub is_cluster: bool,
    /// Commands and keys.
    pub workload: Workload,
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
    /// Each second of the run.
    pub timeline: Vec<Second>,
}

/// One second of a run.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Second {
    /// Its end, since the start.
    pub at_s: f64,
    /// Operations answered.
    pub operations: u64,
    /// Error replies and broken operations.
    pub errors: u64,
    /// Median latency.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Longest.
    pub max_us: f64,
}

/// Sends the mix for the duration. Blocks.
///
/// # Errors
/// The options are wrong, or nothing listens at the target.
pub fn run(options: &Options) -> Result<Summary, LoadError> {
    options.validate()?;
    drive(options, |part, start| Box::pin(part.run(start)))
}

/// Writes `key:000000000000` to the last of the keys, once each. Blocks.
///
/// # Errors
/// As [`run`]; or the server refused writes or was away for 30 s.
pub fn fill(options: &Options) -> Result<Summary, LoadError> {
    options.validate()?;
    let mut options = options.clone();
    options.workload.mix = workload::Mix::only(workload::Verb::Set);
    drive(&options, |part, _| Box::pin(part.fill()))
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
        } else if self.is_cluster && (self.rate.is_some() || self.workload.mix.has_multi_keys()) {
            "with --cluster there is no --rate, mget or mset"
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
}

type Work = std::pin::Pin<Box<dyn Future<Output = std::io::Result<()>>>>;

impl Part {
    async fn run(self, start: Instant) -> std::io::Result<()> {
        let deadline = start + self.options.duration;
        let generators: Vec<_> = self.clients.clone().map(|client| self.generator(client)).collect();
        if let Some(rate) = self.options.rate {
            let rate = rate * self.clients.len() as f64 / self.options.clients as f64;
            let clients =
                open::Clients { target: &self.options.target, generators, rate, counts: &self.counts };
            clients.run(start, deadline).await;
            return Ok(());
        }
        let clients: Vec<_> = generators
            .into_iter()
            .zip(self.clients)
            .map(|(generator, number)| {
                let (options, counts) = (self.options.clone(), Arc::clone(&self.counts));
                tokio::task::spawn_local(async move {
                    let (target, pipeline) = (options.target.as_str(), options.pipeline);
                    let seat = options.is_cluster.then(|| closed::Seat::new(number));
                    let client = closed::Client { target, generator, seat, pipeline, counts: &counts };
                    // A server that hangs must not hold the end of the run.
                    if tokio::time::timeout_at((deadline + open::DRAIN_MAX).into(), client.run(deadline))
                        .await
                        .is_err()
                    {
                        counts.lock().broken += options.pipeline as u64;
                    }
                })
            })
            .collect();
        join(clients).await;
        Ok(())
    }

    async fn fill(self) -> std::io::Result<()> {
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
                    let (target, pipeline) = (options.target.as_str(), options.pipeline);
                    let client = closed::Client { target, generator, seat: None, pipeline, counts: &counts };
                    client.fill(keys).await
                })
            })
            .collect();
        join(clients).await.into_iter().collect()
    }

    fn generator(&self, client: usize) -> Generator {
        Generator::new(&self.options.workload, client as u64, self.options.clients as u64)
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
fn drive(options: &Options, work: fn(Part, Instant) -> Work) -> Result<Summary, LoadError> {
    try_connect(&options.target)
        .map_err(|source| LoadError::Connect { target: options.target.clone(), source })?;
    let threads = options.threads.min(options.clients);
    let shared: Vec<Arc<SharedCounts>> = (0..threads).map(|_| Arc::default()).collect();
    let running = AtomicUsize::new(threads);
    let start = Instant::now();
    let main = std::thread::current();
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|n| {
                let clients = options.clients * n / threads..options.clients * (n + 1) / threads;
                let part = Part { options: options.clone(), clients, counts: Arc::clone(&shared[n]) };
                let (running, main) = (&running, &main);
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                    let result = runtime.map_err(LoadError::Start).and_then(|runtime| {
                        LocalSet::new().block_on(&runtime, work(part, start)).map_err(LoadError::Fill)
                    });
                    running.fetch_sub(1, Ordering::Release);
                    main.unpark();
                    result
                })
            })
            .collect();
        let mut summary = collect(options, &shared, &running, start, &handles);
        for handle in handles {
            match handle.join() {
                Ok(result) => result?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        summary.ops_per_second = summary.operations as f64 / summary.seconds.max(1e-9);
        Ok(summary)
    })
}

fn collect<T>(
    options: &Options,
    shared: &[Arc<SharedCounts>],
    running: &AtomicUsize,
    start: Instant,
    handles: &[std::thread::ScopedJoinHandle<'_, T>],
) -> Summary {
    let (mut total, mut second) = (Counts::default(), Counts::default());
    let mut timeline = Vec::new();
    let mut next = start + Duration::from_secs(1);
    let mut is_over = false;
    while !is_over {
        std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
        // A thread that panicked never says that it is done.
        is_over = running.load(Ordering::Acquire) == 0 || handles.iter().all(|handle| handle.is_finished());
        if !is_over && Instant::now() < next {
            continue;
        }
        next += Duration::from_secs(1);
        for counts in shared {
            second.absorb(&mut counts.lock());
        }
        let latency = second.latency();
        let entry = Second {
            at_s: start.elapsed().as_secs_f64(),
            operations: second.operations,
            errors: second.errors + second.broken + second.not_sent,
            p50_us: latency.p50_us,
            p99_us: latency.p99_us,
            max_us: latency.max_us,
        };
        total.absorb(&mut second);
        timeline.push(entry);
        if options.progress {
            show(options, &entry, &total);
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
        first_error: total.first_error,
        timeline,
    }
}

fn show(options: &Options, second: &Second, total: &Counts) {
    // A closed standard error is no reason to stop.
    let _ = writeln!(
        std::io::stderr(),
        "{:5.1} s  {:9} op  p50 {:.3} ms  p99 {:.3} ms  max {:.3} ms  errors {}  {}",
        second.at_s,
        second.operations,
        second.p50_us / 1000.0,
        second.p99_us / 1000.0,
        second.max_us / 1000.0,
        second.errors,
        options.rate.map_or_else(|| format!("total {}", total.operations), |rate| format!("wanted {rate}/s")),
    );
}
