//! The checker of acknowledged writes.
//!
//! Clients write and read for a while; then everything is read once more. What they did and saw is judged by
//! [`history::History`]. Four kinds of keys, spread evenly over the slots:
//!
//! | kind | write | what its history shows |
//! | --- | --- | --- |
//! | register | SET of a value written once | stale reads; lost last writes; the whole history is linearizable (exact) |
//! | counter | INCR | lost and duplicated increments, by the replies and by the final value |
//! | list | APPEND of a token sent once | lost, duplicated and reordered appends, one by one |
//! | mixed | SET, SETNX, SET IFEQ, GETSET, GETDEL, DEL, DELIFEQ, INCR | the whole history is linearizable (exact) |
//!
//! Three quarters of the keys are written by one client alone, the others by all; every client reads every key, half of
//! the time one that was written a moment ago. Each client has one batch of up to `pipeline` commands on the way. A list
//! or mixed key that has taken its share of writes is replaced by a fresh key, and read again at the end like all others.
//!
//! # Outcomes
//! An operation is *acknowledged* (answered), *failed* (an error that says it was not done, see [`classify`]) or
//! *unknown*: a time-out, a connection that broke after the request was sent, any other error. An unknown operation may take
//! effect once at any later time or never; both are right.
//!
//! # Outage
//! Writes are timed by 64 buckets of slots: from the begin of the first write that did not succeed (waiting for a
//! connection counts) to the next success in that bucket. One client that failed on a bucket goes on trying there, every
//! few milliseconds, so that an outage's end is seen at once; the others go elsewhere.
//!
//! With a nemesis ([`crate::nemesis`]) each outage is put down to the fault that began in it, or else to the last one before.
//!
//! # Counting
//! `lost` counts acknowledged writes that are gone; `stale` counts operations that saw an older state than one known to
//! be complete before they began, and calls on mixed keys that no order explains; `duplicated` counts surplus effects, also those of operations answered as not done.
//! Each is a lower bound; 0 means that none was found.

pub mod history;
pub mod outage;

mod client;
mod counter;
mod list;
mod mixed;
mod plan;
mod register;
mod verify;

#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::task::LocalSet;

use crate::conn::Conn;
use crate::nemesis::{self, Nemesis};
use crate::routes::Routes;
use history::{History, ObjectId, Tally};
use outage::{BUCKETS, Outages};
use plan::Plan;

pub use client::{Failure, classify};

/// Longest that a first connection is tried for.
const FIRST_CONNECT_MAX: Duration = Duration::from_secs(5);
/// Longest that the last reads are retried for.
const VERIFY_MAX: Duration = Duration::from_secs(30);
/// Operations after which a run ends early, so that its history stays below a few gigabytes.
const RECORDED_MAX: u64 = 50_000_000;
/// The map of a cluster is asked for no more often than this.
const ROUTES_AGE_MIN: Duration = Duration::from_millis(50);
/// Different error texts that are counted apart.
const ERROR_TEXTS_MAX: usize = 32;

/// What to check.
#[derive(Debug, Clone)]
pub struct Options {
    /// Addresses (host:port). Clients spread over them, and go on to the next when one fails.
    pub targets: Vec<String>,
    /// Clients, each with a connection of its own.
    pub clients: u16,
    /// How long to write and read.
    pub duration: Duration,
    /// Operations a second over all clients; `None`: as fast as answers come.
    pub rate: Option<f64>,
    /// Keys in use at a time.
    pub keys: u32,
    /// Longest batch of commands that a client has on the way.
    pub pipeline: u16,
    /// Share of reads, in percent.
    pub reads_percent: u8,
    /// Time after which an unanswered operation is given up as unknown, and its connection closed.
    pub timeout: Duration,
    /// Ask for `CLUSTER SLOTS`, send each key to the node that serves its slot, and follow `MOVED`.
    pub is_cluster: bool,
    /// Names of keys, choice of operations; two runs with one seed differ only in timing and in the keys' prefix.
    pub seed: u64,
    /// Leave the keys on the server.
    pub keep: bool,
    /// A line each second to standard error.
    pub progress: bool,
    /// Break the cluster meanwhile.
    pub nemesis: Option<nemesis::Options>,
}

impl Options {
    /// The defaults, for `target`: 16 clients, 30 s, 1,024 keys, batches of up to 4, 40 % reads.
    pub fn new(target: impl Into<String>) -> Self {
        Self {
            targets: vec![target.into()],
            clients: 16,
            duration: Duration::from_secs(30),
            rate: None,
            keys: 1024,
            pipeline: 4,
            reads_percent: 40,
            timeout: Duration::from_secs(10),
            is_cluster: false,
            seed: 1,
            keep: false,
            progress: false,
            nemesis: None,
        }
    }

    fn validate(&self) -> Result<(), CheckError> {
        let least = u32::from(self.clients) + 4;
        let problem = if self.clients == 0 || self.pipeline == 0 || self.targets.is_empty() {
            "at least one target, one client and a pipeline of 1 are needed".to_owned()
        } else if self.keys < least {
            format!("{} clients need at least {least} keys", self.clients)
        } else if self.keys >= 1 << 18 {
            format!("at most {} keys are supported", (1 << 18) - 1)
        } else if self.reads_percent > 100 {
            "the share of reads is above 100 %".to_owned()
        } else if self.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            "the rate must be above 0".to_owned()
        } else if self.nemesis.as_ref().is_some_and(|nemesis| nemesis.kinds.is_empty()) {
            "a nemesis needs at least one kind of fault".to_owned()
        } else {
            return Ok(());
        };
        Err(CheckError::Usage(problem))
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The options contradict each other.
    #[error("{0}")]
    Usage(String),
    /// No connection came about.
    #[error("cannot connect to {target}: {source}")]
    Connect {
        /// The last address tried.
        target: String,
        /// Its error.
        #[source]
        source: std::io::Error,
    },
    /// The cluster cannot be broken; says what to do.
    #[error("{0}")]
    Nemesis(String),
    /// The machine refused a thread or a runtime.
    #[error("cannot start: {0}")]
    Start(#[source] std::io::Error),
}

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Names this run; its keys begin with `rfcheck:RUN:`.
    pub run: String,
    /// The seed it ran with.
    pub seed: u64,
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Acknowledged writes that are gone.
    pub lost: u64,
    /// Operations that saw a state older than one acknowledged before they began.
    pub stale: u64,
    /// Surplus effects of writes.
    pub duplicated: u64,
    /// Writes of which nobody knows whether they took effect.
    pub unknown: u64,
    /// Writes answered as not done.
    pub failed: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Reads that were not.
    pub reads_failed: u64,
    /// Keys written.
    pub keys: u64,
    /// Keys that the last reads could not reach within 30 s, or whose history was too tangled to be decided; nothing is known
    /// about them.
    pub keys_unread: u64,
    /// The longest time in which no write to some bucket of slots succeeded while a client tried, in milliseconds.
    pub longest_outage_ms: f64,
    /// When it began, in seconds from the start.
    pub longest_outage_at_s: f64,
    /// First and last slot of its bucket.
    pub longest_outage_slots: [u16; 2],
    /// Buckets (of 64) whose longest outage was above 100 ms.
    pub buckets_out_100_ms: u64,
    /// Connections that broke or could not be made.
    pub connections_broken: u64,
    /// How long the clients ran, in seconds.
    pub seconds: f64,
    /// The run ended before its time, after 50 million operations, so that its history fits into memory.
    pub is_cut_short: bool,
    /// Error replies and how often each came (the first 32 texts).
    pub errors: BTreeMap<String, u64>,
    /// The first violations, in words.
    pub violations: Vec<String>,
    /// What was broken meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nemesis: Option<nemesis::Report>,
}

impl Report {
    /// Whether nothing was lost, stale or duplicated, every key could be read at the end, and after a nemesis the cluster
    /// became whole with equal replicas.
    pub fn is_clean(&self) -> bool {
        let is_whole = self.nemesis.as_ref().is_none_or(|nemesis| nemesis.problems.is_empty());
        is_whole && self.is_exact()
    }

    fn is_exact(&self) -> bool {
        self.lost == 0 && self.stale == 0 && self.duplicated == 0 && self.keys_unread == 0
    }
}

/// The one line that a run ends with.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "acknowledged {}, lost {}, stale {}, duplicated {}, unknown {}, longest outage {:.0} ms",
            self.acknowledged,
            self.lost,
            self.stale,
            self.duplicated,
            self.unknown,
            self.longest_outage_ms.ceil()
        )
    }
}

/// Runs a check to its end, on a thread of its own (so it may be called from within a runtime). Blocks for the duration,
/// the last time-out, and up to 30 s of last reads.
///
/// # Errors
/// The options are wrong, or no connection came about within 5 s.
pub fn run(options: &Options) -> Result<Report, CheckError> {
    options.validate()?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("check".to_owned()).spawn_scoped(scope, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            LocalSet::new().block_on(&runtime.map_err(CheckError::Start)?, drive(options))
        });
        match thread.map_err(CheckError::Start)?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// What all clients of a run share; they live on one thread.
#[derive(Debug)]
struct Shared {
    options: Options,
    start: Instant,
    history: History,
    outages: Outages,
    plan: Plan,
    /// With `is_cluster`.
    routes: Option<Routes>,
    routes_age: Instant,
    batches: u64,
    report: Report,
}

impl Shared {
    /// Nanoseconds since the start.
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn next_batch(&mut self) -> u64 {
        self.batches += 1;
        self.batches
    }

    fn is_over(&self) -> bool {
        self.start.elapsed() >= self.options.duration || self.history.recorded() >= RECORDED_MAX
    }

    /// The node that serves `object` in a cluster, else (or when nobody does) the target number `target`, modulo their number.
    fn address(&self, object: ObjectId, target: usize) -> String {
        let node = self.routes.as_ref().and_then(|routes| routes.of_key(self.history.key(object).as_bytes()));
        let targets = &self.options.targets;
        node.unwrap_or(&targets[target % targets.len()]).to_owned()
    }

    fn count_error(&mut self, text: &str) {
        let errors = &mut self.report.errors;
        if let Some(n) = errors.get_mut(text) {
            *n += 1;
        } else if errors.len() < ERROR_TEXTS_MAX {
            errors.insert(text.to_owned(), 1);
        }
    }
}

async fn drive(options: &Options) -> Result<Report, CheckError> {
    let routes = connect_once(options).await?;
    let run = format!("{:016x}", run_id(options.seed));
    let mut history = History::default();
    let plan = Plan::new(&run, options, &mut history);
    let report = Report { run, seed: options.seed, ..Report::default() };
    let shared = Rc::new(RefCell::new(Shared {
        options: options.clone(),
        start: Instant::now(),
        history,
        outages: Outages::new(),
        plan,
        routes,
        routes_age: Instant::now(),
        batches: 0,
        report,
    }));
    let nemesis = match &options.nemesis {
        None => None,
        Some(nemesis) => {
            let (target, start) = (&options.targets[0], shared.borrow().start);
            let started = Nemesis::start(target, nemesis, options.seed, start, options.progress).await;
            Some(started.map_err(CheckError::Nemesis)?)
        }
    };
    let clients: Vec<_> = (0..options.clients)
        .map(|id| tokio::task::spawn_local(client::run(Rc::clone(&shared), id)))
        .collect();
    let progress = options.progress.then(|| tokio::task::spawn_local(show_progress(Rc::clone(&shared))));
    for client in clients {
        if let Err(error) = client.await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    if let Some(progress) = progress {
        progress.abort();
    }
    let seconds = shared.borrow().start.elapsed().as_secs_f64();
    if let Some(nemesis) = nemesis {
        let report = nemesis.stop().await;
        shared.borrow_mut().report.nemesis = Some(report);
    }
    verify::run(&shared).await;
    let mut shared = shared.borrow_mut();
    shared.report.seconds = seconds;
    Ok(conclude(&mut shared))
}

fn conclude(shared: &mut Shared) -> Report {
    shared.history.finish();
    let end = (shared.report.seconds * 1e9) as u64;
    let longest = shared.outages.finish(end);
    if let Some(nemesis) = &mut shared.report.nemesis {
        nemesis.attribute(shared.outages.noted());
    }
    let Tally { lost, stale, duplicated } = shared.history.tally();
    let width = ringfort_ring::slot::SLOTS / BUCKETS as u16;
    let first = longest.bucket as u16 * width;
    Report {
        lost,
        stale,
        duplicated,
        keys: shared.history.objects().count() as u64,
        keys_unread: shared.history.unread(),
        is_cut_short: shared.history.recorded() >= RECORDED_MAX,
        longest_outage_ms: longest.length as f64 / 1e6,
        longest_outage_at_s: longest.from as f64 / 1e9,
        longest_outage_slots: [first, first + (width - 1)],
        buckets_out_100_ms: shared.outages.by_bucket().filter(|&length| length > 100_000_000).count() as u64,
        violations: shared.history.complaints().to_vec(),
        ..std::mem::take(&mut shared.report)
    }
}

/// Tries until one target accepts a connection (in a cluster: says which node serves which slot).
async fn connect_once(options: &Options) -> Result<Option<Routes>, CheckError> {
    let deadline = Instant::now() + FIRST_CONNECT_MAX;
    for target in options.targets.iter().cycle() {
        let result = if options.is_cluster {
            Routes::fetch(std::slice::from_ref(target)).await.map(Some)
        } else {
            Conn::connect(target, Duration::from_secs(1)).await.map(|_| None)
        };
        match result {
            Ok(routes) => return Ok(routes),
            Err(source) if Instant::now() >= deadline => {
                return Err(CheckError::Connect { target: target.clone(), source });
            }
            Err(_) => tokio::time::sleep(client::BACK_OFF).await,
        }
    }
    Ok(None)
}

/// Asks for the map of a cluster again, unless somebody did a moment ago.
async fn refresh_routes(shared: &RefCell<Shared>) {
    let addresses = {
        let mut shared = shared.borrow_mut();
        let Some(routes) = &shared.routes else { return };
        if shared.routes_age.elapsed() < ROUTES_AGE_MIN {
            return;
        }
        let addresses = [routes.addresses(), &shared.options.targets].concat();
        shared.routes_age = Instant::now();
        addresses
    };
    if let Ok(routes) = Routes::fetch(&addresses).await {
        shared.borrow_mut().routes = Some(routes);
    }
}

/// Another number for each run, so that no run meets the keys of another.
fn run_id(seed: u64) -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    crate::rng::mix(since_epoch ^ (u64::from(std::process::id()) << 40)) ^ seed
}

async fn show_progress(shared: Rc<RefCell<Shared>>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.tick().await;
    let mut before = 0;
    loop {
        ticks.tick().await;
        let shared = shared.borrow();
        let Tally { lost, stale, duplicated } = shared.history.tally();
        let report = &shared.report;
        let operations = report.acknowledged + report.reads;
        // A closed standard error is no reason to stop a check.
        let _ = writeln!(
            std::io::stderr(),
            "{:4.0} s  {:8} op/s  acknowledged {}, lost {lost}, stale {stale}, duplicated {duplicated}, \
             unknown {}, not done {}, longest outage {} ms",
            shared.start.elapsed().as_secs_f64(),
            operations - before,
            report.acknowledged,
            report.unknown,
            report.failed,
            shared.outages.longest().length / 1_000_000,
        );
        before = operations;
    }
}
