//! A simulated node: the production worker cores, a disk in memory, and clocks that are wrong.

use crate::options::Options;
use ringfort::clock::{Clock, Now};
use ringfort::log::{LastStop, LogOptions, MemDisk};
use ringfort::shard::raft::TICK_MS;
use ringfort::worker::{Job, JobDone, Shared, WorkerCore, WorkerMessage, WorkerOptions};
use ringfort_ring::NodeId;
use ringfort_wire::ClusterMap;
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The wall clock's zero: some day in 2023.
const WALL_MS: u64 = 1_700_000_000_000;

/// The clocks of one machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    /// How much faster than virtual time it runs, parts per million.
    rate_ppm: i64,
    /// Virtual time since which it runs at this rate, and its time then.
    since: (u64, u64),
    /// Error of the wall clock.
    pub(crate) wall_error_ms: i64,
}

impl Clocks {
    pub(crate) fn new(rate_ppm: i64, wall_error_ms: i64) -> Self {
        Self { rate_ppm, since: (0, 0), wall_error_ms }
    }

    pub(crate) fn now(&self, at: u64) -> Now {
        let (since, boot_us) = self.since;
        let passed = at - since;
        let passed = passed.saturating_add_signed(passed as i64 / 1_000 * self.rate_ppm / 1_000);
        Now {
            boot_us: boot_us + passed,
            wall_ms: (WALL_MS + at / 1000).saturating_add_signed(self.wall_error_ms),
        }
    }

    /// Runs at another speed from now on; its time does not jump.
    pub(crate) fn set_rate(&mut self, at: u64, rate_ppm: i64) {
        self.since = (at, self.now(at).boot_us);
        self.rate_ppm = rate_ppm;
    }

    /// The machine boots.
    fn boot(&mut self, at: u64) {
        self.since = (at, 0);
    }

    /// Virtual time that one tick of this machine takes.
    pub(crate) fn tick_us(&self) -> u64 {
        let tick = (TICK_MS * 1000) as i64;
        (tick - tick * self.rate_ppm / 1_000_000 + 1) as u64
    }
}

/// The clock of one turn: it stands still until its second reading, which is after a stall.
#[derive(Debug)]
pub(crate) struct TurnClock {
    pub(crate) clocks: Clocks,
    pub(crate) at: Cell<u64>,
    pub(crate) stall_us: u64,
    pub(crate) readings: Cell<u32>,
}

impl Clock for TurnClock {
    fn now(&self) -> Now {
        if self.readings.replace(self.readings.get() + 1) == 1 {
            self.at.set(self.at.get() + self.stall_us);
        }
        self.clocks.now(self.at.get())
    }
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// What it wrote is there.
    Kill,
    /// The machine went with it.
    Crash,
}

/// One worker of a node.
pub(crate) struct Worker {
    pub(crate) disk: MemDisk,
    pub(crate) core: Option<WorkerCore<MemDisk>>,
    /// Work of the log thread, oldest first.
    pub(crate) jobs: VecDeque<Job<MemDisk>>,
    pub(crate) is_job_running: bool,
    pub(crate) done: Option<JobDone<MemDisk>>,
    pub(crate) has_turn: bool,
    pub(crate) has_flush: bool,
    pub(crate) mail: VecDeque<WorkerMessage>,
    /// Received snapshots (group, index) that are not durable yet, and the numbers of their transfers.
    pub(crate) received: BTreeMap<(u16, u64), u64>,
}

/// One node.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) clocks: Clocks,
    pub(crate) workers: Vec<Worker>,
    /// Counts its processes; events of an earlier one are void.
    pub(crate) life: u64,
    pub(crate) is_up: bool,
    pub(crate) has_lived: bool,
    pub(crate) last_stop: LastStop,
    /// It does nothing before.
    pub(crate) paused_until: u64,
    /// It never starts again.
    pub(crate) is_gone: bool,
    /// It does not start before the cluster has forgotten it.
    pub(crate) has_vanished: bool,
    /// Until then its disk is slow.
    pub(crate) slow_until: u64,
    /// An injected failure of its disk will end the process in this way.
    pub(crate) doom: Option<Death>,
    /// Whether its disk is limited.
    pub(crate) is_full: bool,
    /// Of its data folder.
    pub(crate) store_id: u128,
    /// The map in its data folder.
    pub(crate) kept: Option<ClusterMap>,
}

impl Node {
    pub(crate) fn new(number: usize, options: &Options, clocks: Clocks, map: &ClusterMap) -> Self {
        let worker = || Worker {
            disk: MemDisk::new(),
            core: None,
            jobs: VecDeque::new(),
            is_job_running: false,
            done: None,
            has_turn: false,
            has_flush: false,
            mail: VecDeque::new(),
            received: BTreeMap::new(),
        };
        Self {
            id: NodeId(format!("n{}", number + 1)),
            clocks,
            workers: (0..options.workers).map(|_| worker()).collect(),
            life: 0,
            is_up: false,
            has_lived: false,
            last_stop: LastStop::Machine,
            paused_until: 0,
            is_gone: false,
            has_vanished: false,
            slow_until: 0,
            doom: None,
            is_full: false,
            store_id: number as u128 + 1,
            kept: (number < options.members).then(|| map.clone()),
        }
    }

    /// Starts its process.
    pub(crate) fn start(&mut self, options: &Options, map: &ClusterMap, seed: u64) -> anyhow::Result<()> {
        let shared = Arc::new(Shared::new(
            self.id.clone(),
            self.store_id,
            options.workers,
            u128::from(seed),
            7000,
            1000,
        ));
        shared.set_map(map);
        shared.set_kept(map.epoch);
        // As a node judges: without a sync before every acknowledgement the last ones may be missing.
        let is_suspect = !map.fsync && self.has_lived && self.last_stop == LastStop::Machine;
        for (number, worker) in self.workers.iter_mut().enumerate() {
            let start = WorkerOptions {
                worker: number as u16,
                node: self.id.clone(),
                log: LogOptions {
                    segment_bytes: options.segment_bytes,
                    last_stop: self.last_stop,
                    ..LogOptions::default()
                },
                is_restart: self.has_lived,
                has_run: self.has_lived,
                is_suspect,
                seed: seed.wrapping_add(number as u64),
                compact_bytes_min: options.compact_bytes,
                disk_free_min: DISK_FREE_MIN,
                limits: options.limits,
            };
            worker.core = Some(WorkerCore::new(start, Arc::clone(&shared), map, worker.disk.clone())?);
        }
        self.is_up = true;
        self.has_lived = true;
        self.last_stop = LastStop::Process;
        Ok(())
    }

    /// The newest map that its process knows.
    pub(crate) fn map(&self) -> Option<Arc<ClusterMap>> {
        self.workers[0].core.as_ref()?.shared().map()
    }

    /// Another data folder, an empty one, takes the place of what the process has left.
    pub(crate) fn wipe(&mut self) {
        self.store_id += 100;
        self.kept = None;
        self.has_lived = false;
        self.last_stop = LastStop::Machine;
        for worker in &mut self.workers {
            worker.disk = MemDisk::new();
        }
    }

    /// Ends its process.
    pub(crate) fn stop(&mut self, death: Death, at: u64, seed: u64) {
        self.life += 1;
        self.is_up = false;
        self.doom = None;
        self.paused_until = 0;
        if death == Death::Crash {
            self.last_stop = LastStop::Machine;
            self.clocks.boot(at);
        }
        for worker in &mut self.workers {
            worker.core = None;
            worker.jobs.clear();
            worker.is_job_running = false;
            worker.done = None;
            worker.has_turn = false;
            worker.has_flush = false;
            worker.mail.clear();
            worker.received.clear();
            match death {
                Death::Kill => worker.disk.kill(),
                Death::Crash => worker.disk.crash(seed),
            }
        }
    }
}

/// Free disk below which a simulated node refuses writes.
const DISK_FREE_MIN: u64 = 64 << 10;
