//! The nemesis: breaks a running `ringfort up` cluster on this machine, again and again, while a check goes on.
//!
//! It finds the nodes through the target and their processes through INFO. Before each fault it waits until the cluster is
//! whole again: every node serves, every group has a leader, every replica is in sync. So no more than one node is broken at
//! a time, unless a kind with `-all` is wanted.
//!
//! Nothing stays broken when this process dies: cuts and full disks carry their own end, and each process that is stopped
//! has a helper process that wakes it a second after its time.

mod cluster;
mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use cluster::{Cluster, ask, process_id};
use schedule::{Action, End, Fault, Schedule};

pub use schedule::Kind;

/// How much longer a sync takes on a slow disk, ms.
const SYNC_LONGER_MS: &str = "2000";
/// Longest that the cluster may take until it is whole again after a fault.
const WHOLE_MAX: Duration = Duration::from_secs(60);
/// Time between two looks at the cluster.
const LOOK: Duration = Duration::from_millis(100);
/// How much longer than planned a cut or a full disk may last when nobody ends it.
const GRACE: Duration = Duration::from_secs(1);

/// What to break, and how often.
#[derive(Debug, Clone)]
pub struct Options {
    /// Chosen from at random.
    pub kinds: Vec<Kind>,
    /// Time from one fault to the next; longer while the cluster is not whole.
    pub every: Duration,
}

/// A fault that was done.
#[derive(Debug, Clone, Serialize)]
pub struct Done {
    /// Its kind.
    pub kind: Kind,
    /// What it was.
    pub text: String,
    /// When it began, in seconds from the start of the check.
    pub at_s: f64,
    /// The longest outage that it caused, in milliseconds: the one that it began in, or that began before the next fault.
    pub outage_ms: f64,
}

/// What became of a kind of fault.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The kind.
    pub kind: Kind,
    /// How many there were.
    pub count: usize,
    /// Median of the outages, in milliseconds.
    pub p50_ms: f64,
    /// Their 99th percentile.
    pub p99_ms: f64,
    /// The longest.
    pub longest_ms: f64,
}

/// What a nemesis did and saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The faults, in order.
    pub faults: Vec<Done>,
    /// The same by kind.
    pub kinds: Vec<Row>,
    /// What was wrong: a cluster that did not become whole, replicas that differ, a fault that could not be done.
    pub problems: Vec<String>,
}

impl Report {
    /// Gives each outage (from, to, in nanoseconds from the start) to its fault, and sums up by kind.
    pub(crate) fn attribute(&mut self, outages: &[(u64, u64)]) {
        let starts: Vec<u64> = self.faults.iter().map(|fault| (fault.at_s * 1e9) as u64).collect();
        for &(from, to) in outages {
            // The first fault within it; else the last one before it.
            let next = starts.partition_point(|start| *start < from);
            let within = starts.get(next).is_some_and(|start| *start <= to);
            let fault = if within {
                self.faults.get_mut(next)
            } else {
                next.checked_sub(1).and_then(|n| self.faults.get_mut(n))
            };
            if let Some(fault) = fault {
                fault.outage_ms = fault.outage_ms.max((to - from) as f64 / 1e6);
            }
        }
        let mut by_kind: BTreeMap<Kind, Vec<f64>> = BTreeMap::new();
        for fault in &self.faults {
            by_kind.entry(fault.kind).or_default().push(fault.outage_ms);
        }
        let rows = by_kind.into_iter().map(|(kind, mut outages)| {
            outages.sort_by(f64::total_cmp);
            // Nearest rank.
            let at = |part: f64| {
                outages[((part * outages.len() as f64).ceil() as usize).clamp(1, outages.len()) - 1]
            };
            Row { kind, count: outages.len(), p50_ms: at(0.5), p99_ms: at(0.99), longest_ms: at(1.0) }
        });
        self.kinds = rows.collect();
    }
}

/// A running nemesis.
#[derive(Debug)]
pub(crate) struct Nemesis {
    stop: oneshot::Sender<()>,
    report: oneshot::Receiver<Report>,
    _thread: JoinHandle<()>,
}

impl Nemesis {
    /// Finds the cluster of `target` and begins; times count from `start`.
    ///
    /// # Errors
    /// The cluster is none of this machine, or its processes take no faults; the text says what to do.
    pub(crate) async fn start(
        target: &str,
        options: &Options,
        seed: u64,
        start: Instant,
        is_loud: bool,
    ) -> Result<Self, String> {
        let cluster = Cluster::find(target)
            .await
            .map_err(|error| format!("no cluster to break at {target}: {error}"))?;
        if options.kinds.iter().any(|kind| kind.needs_faults()) {
            let ends = (0..cluster.nodes.len()).map(End::Node).chain([End::Proxy]);
            for address in ends.filter_map(|end| cluster.address(end)) {
                let asked = ask(address, &["RINGFORT", "FAULT"]).await;
                asked.map_err(|error| {
                    format!(
                        "{address}: {error} (partition, disk-full and disk-slow need 'ringfort up --faults')"
                    )
                })?;
            }
        }
        let names = cluster.nodes.iter().map(|node| node.id.clone()).collect();
        let schedule = Schedule::new(seed, &options.kinds, names, cluster.proxy.is_some(), options.every);
        let (stop, stopped) = oneshot::channel();
        let (report_out, report) = oneshot::channel();
        let run = Run { cluster, schedule, every: options.every, start, is_loud, report: Report::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let thread = std::thread::Builder::new().name("nemesis".to_owned()).spawn(move || {
            // The check has ended when nobody takes it.
            let _ = report_out.send(runtime.block_on(run.run(stopped)));
        });
        Ok(Self { stop, report, _thread: thread.map_err(|error| error.to_string())? })
    }

    /// Ends it: mends what is broken, waits until the cluster is whole, and compares the replicas.
    pub(crate) async fn stop(self) -> Report {
        // It has ended when nobody listens.
        let _ = self.stop.send(());
        let lost =
            || Report { problems: vec!["the nemesis ended by itself".to_owned()], ..Report::default() };
        self.report.await.unwrap_or_else(|_| lost())
    }
}

struct Run {
    cluster: Cluster,
    schedule: Schedule,
    every: Duration,
    start: Instant,
    is_loud: bool,
    report: Report,
}

impl Run {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) -> Report {
        let mut due = tokio::time::Instant::from_std(self.start) + self.every;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                _ = &mut stopped => break,
            }
            due = tokio::time::Instant::now().max(due) + self.every;
            let whole = self.whole();
            tokio::select! {
                result = whole => if let Err(why) = result {
                    self.complain(format!("not whole after {} s: {why}", WHOLE_MAX.as_secs()));
                    continue;
                },
                _ = &mut stopped => break,
            }
            let fault = self.schedule.next();
            let at_s = self.start.elapsed().as_secs_f64();
            self.say(&fault.text);
            self.report.faults.push(Done {
                kind: fault.kind,
                text: fault.text.clone(),
                at_s,
                outage_ms: 0.0,
            });
            let is_over = self.carry_out(&fault, &mut stopped).await.unwrap_or_else(|error| {
                self.complain(format!("{}: {error}", fault.text));
                false
            });
            if is_over {
                break;
            }
        }
        self.conclude().await;
        self.report
    }

    /// Does a fault and, after its time, undoes it. Returns whether the check ended meanwhile.
    async fn carry_out(&self, fault: &Fault, stopped: &mut oneshot::Receiver<()>) -> io::Result<bool> {
        let limit = millis(fault.length + GRACE);
        match &fault.action {
            Action::Kill(nodes) => {
                for pid in self.processes(nodes).await? {
                    kill_process(pid, Signal::KILL)?;
                }
            }
            Action::Stop(node) => {
                for pid in self.processes(&[*node]).await? {
                    kill_process(pid, Signal::TERM)?;
                }
            }
            Action::Transfer(moves) => {
                for &(number, replica) in moves {
                    let Some((partition, node)) = self.cluster.replica(number, replica) else { continue };
                    ask(&node.client, &["RINGFORT", "TRANSFER", &partition.to_string(), &node.id]).await?;
                }
            }
            Action::Pause(nodes) => {
                let pids = self.processes(nodes).await?;
                let paused: Vec<Paused> =
                    pids.into_iter().map(|pid| Paused::new(pid, fault.length)).collect::<io::Result<_>>()?;
                let is_over = timeout(fault.length, stopped).await.is_ok();
                drop(paused);
                return Ok(is_over);
            }
            Action::Cut(cuts) => {
                for &(at, from) in cuts {
                    let Some(address) = self.cluster.address(at) else { continue };
                    ask(address, &["RINGFORT", "FAULT", "CUT", self.cluster.name(from), &limit]).await?;
                }
                let is_over = timeout(fault.length, stopped).await.is_ok();
                self.heal().await?;
                return Ok(is_over);
            }
            Action::DiskFull(nodes) => {
                for node in nodes.iter().filter_map(|n| self.cluster.nodes.get(*n)) {
                    ask(&node.client, &["RINGFORT", "FAULT", "DISK-FULL", &limit]).await?;
                }
                let is_over = timeout(fault.length, stopped).await.is_ok();
                self.heal().await?;
                return Ok(is_over);
            }
            Action::DiskSlow(node) => {
                if let Some(node) = self.cluster.nodes.get(*node) {
                    ask(&node.client, &["RINGFORT", "FAULT", "DISK-SLOW", SYNC_LONGER_MS, &limit]).await?;
                }
                let is_over = timeout(fault.length, stopped).await.is_ok();
                self.heal().await?;
                return Ok(is_over);
            }
        }
        Ok(false)
    }

    async fn heal(&self) -> io::Result<()> {
        let ends = (0..self.cluster.nodes.len()).map(End::Node).chain([End::Proxy]);
        for address in ends.filter_map(|end| self.cluster.address(end)) {
            ask(address, &["RINGFORT", "FAULT", "HEAL"]).await?;
        }
        Ok(())
    }

    async fn processes(&self, nodes: &[usize]) -> io::Result<Vec<Pid>> {
        let mut pids = Vec::new();
        for node in nodes.iter().filter_map(|n| self.cluster.nodes.get(*n)) {
            let id = process_id(&node.client).await?;
            pids.push(Pid::from_raw(id).ok_or_else(|| io::Error::other("a process without a number"))?);
        }
        Ok(pids)
    }

    /// Waits until the cluster is whole; the error is the last look's.
    async fn whole(&self) -> Result<(), String> {
        let deadline = Instant::now() + WHOLE_MAX;
        let mut seen = BTreeSet::new();
        loop {
            match self.cluster.is_whole(&mut seen).await {
                Err(why) if deadline <= Instant::now() => return Err(why),
                Err(_) => sleep(LOOK).await,
                Ok(()) => return Ok(()),
            }
        }
    }

    async fn conclude(&mut self) {
        if let Err(why) = self.whole().await {
            self.complain(format!("not whole {} s after the last fault: {why}", WHOLE_MAX.as_secs()));
        }
        let deadline = Instant::now() + WHOLE_MAX;
        loop {
            // The answer is as of the last question.
            let _ = self.cluster.compare_digests().await;
            sleep(3 * LOOK).await;
            match self.cluster.compare_digests().await {
                Ok(differ) => {
                    differ.into_iter().for_each(|text| self.complain(format!("replicas differ: {text}")));
                    return;
                }
                Err(why) if deadline <= Instant::now() => {
                    self.complain(format!("replicas cannot be compared: {why}"));
                    return;
                }
                Err(_) => {}
            }
        }
    }

    fn complain(&mut self, text: String) {
        self.say(&text);
        self.report.problems.push(text);
    }

    fn say(&self, text: &str) {
        if self.is_loud {
            // A closed standard error is no reason to stop.
            let _ = writeln!(io::stderr(), "{:6.1} s  nemesis: {text}", self.start.elapsed().as_secs_f64());
        }
    }
}

fn millis(time: Duration) -> String {
    time.as_millis().to_string()
}

/// A process that stands still for as long as this lives; if this process dies, for a second longer than planned.
#[derive(Debug)]
struct Paused {
    pid: Pid,
    helper: Child,
}

impl Paused {
    fn new(pid: Pid, length: Duration) -> io::Result<Self> {
        let script =
            format!("sleep {:.1}; kill -CONT {}", (length + GRACE).as_secs_f64(), pid.as_raw_nonzero());
        let helper = Command::new("sh")
            .args(["-c", &script])
            // Ctrl-C of the terminal must not reach it.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let paused = Self { pid, helper };
        kill_process(pid, Signal::STOP)?;
        Ok(paused)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // It fails when the process is gone, which is as good.
        let _ = kill_process(self.pid, Signal::CONT);
        let _ = self.helper.kill();
        let _ = self.helper.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: Kind, at_s: f64) -> Done {
        Done { kind, text: String::new(), at_s, outage_ms: 0.0 }
    }

    #[test]
    fn an_outage_belongs_to_the_fault_within_it_or_before_it() {
        let faults = vec![fault(Kind::Kill, 1.0), fault(Kind::Pause, 5.0), fault(Kind::Kill, 9.0)];
        let mut report = Report { faults, ..Report::default() };
        let ms = |n: u64| n * 1_000_000;
        report.attribute(&[
            (ms(100), ms(400)),   // before all
            (ms(990), ms(1690)),  // the first within
            (ms(1500), ms(1600)), // after it, shorter
            (ms(5100), ms(5500)),
            (ms(9000), ms(9900)),
        ]);
        let outages: Vec<f64> = report.faults.iter().map(|fault| fault.outage_ms).collect();
        assert_eq!(outages, [700.0, 400.0, 900.0]);
        let rows: Vec<_> =
            report.kinds.iter().map(|row| (row.kind, row.count, row.p50_ms, row.p99_ms)).collect();
        assert_eq!(rows, [(Kind::Kill, 2, 700.0, 900.0), (Kind::Pause, 1, 400.0, 400.0)]);
    }

    #[test]
    fn a_paused_process_goes_on_when_nobody_is_left_to_wake_it() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep runs");
        let pid = Pid::from_child(&child);
        let state = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("it is there");
            stat.rsplit(") ").next().and_then(|rest| rest.chars().next())
        };
        let until = |wanted: fn(Option<char>) -> bool| {
            let deadline = Instant::now() + Duration::from_secs(30);
            while !wanted(state()) {
                assert!(Instant::now() < deadline, "it is {:?}", state());
                std::thread::yield_now();
            }
        };
        let paused = Paused::new(pid, Duration::ZERO).expect("it can be paused");
        until(|state| state == Some('T'));
        std::mem::forget(paused); // as if this process had died
        until(|state| state != Some('T'));
        let paused = Paused::new(pid, Duration::from_secs(60)).expect("it can be paused");
        until(|state| state == Some('T'));
        drop(paused);
        until(|state| state != Some('T'));
        child.kill().expect("it runs");
        child.wait().expect("it ended");
    }
}
