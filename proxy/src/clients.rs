//! What all client connections of one process share, whichever worker they belong to.

use crate::stats::{Snapshot, Stats};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use parking_lot::Mutex;
use std::sync::Arc;

/// Change of the wall clock against the other clock that is taken over, µs.
const WALL_STEP_US: u64 = 2_000;

/// The clients of one process, proxy or node.
#[derive(Debug)]
pub struct Clients {
    workers: Box<[Worker]>,
    /// Open connections.
    open: AtomicU64,
    /// Connections accepted since the start, those turned away included.
    accepted: AtomicU64,
    /// Connections turned away since the start.
    turned_away: AtomicU64,
    /// The counts when they were last reset.
    base: Mutex<Snapshot>,
}

/// One worker's part.
#[derive(Debug, Default)]
struct Worker {
    /// The time of its last turn, µs of the host's clock.
    now_us: AtomicU64,
    /// µs since 1970 at the zero of that clock.
    zero_us: AtomicU64,
    stats: Stats,
}

impl Clients {
    /// A process with so many threads that hold clients.
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            workers: (0..workers).map(|_| Worker::default()).collect(),
            open: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            base: Mutex::default(),
        })
    }

    /// The handle of one worker.
    ///
    /// # Panics
    /// There is no worker of that number.
    pub fn worker(self: &Arc<Self>, number: usize) -> WorkerClients {
        assert!(number < self.workers.len(), "there is no worker {number}");
        WorkerClients { clients: Arc::clone(self), worker: number }
    }

    /// Counts a connection just accepted. `None`: there are `max` open ones already, and it must be turned away.
    pub fn accept(self: &Arc<Self>, max: u64) -> Option<Place> {
        let id = self.accepted.fetch_add(1, Relaxed) + 1;
        if self.open.fetch_add(1, Relaxed) >= max {
            self.open.fetch_sub(1, Relaxed);
            self.turned_away.fetch_add(1, Relaxed);
            return None;
        }
        Some(Place { clients: Arc::clone(self), id })
    }

    /// Open connections.
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }

    /// All that was counted since the start.
    pub fn totals(&self) -> Snapshot {
        let mut totals = Snapshot {
            connections: self.accepted.load(Relaxed),
            rejected_connections: self.turned_away.load(Relaxed),
            ..Snapshot::default()
        };
        self.workers.iter().for_each(|worker| totals.add(&worker.stats));
        totals
    }

    /// Commands answered, and asked for by proxies, since the start.
    pub fn executed(&self) -> u64 {
        self.workers.iter().map(|worker| worker.stats.executed()).sum()
    }

    /// What was counted since the last [`Clients::reset_stats`].
    pub fn counted(&self) -> Snapshot {
        self.totals().since(&self.base.lock())
    }

    /// CONFIG RESETSTAT: what INFO shows starts again at zero ([`Clients::totals`] goes on).
    pub fn reset_stats(&self) {
        *self.base.lock() = self.totals();
    }
}

/// The place of one connection among the open ones; dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    clients: Arc<Clients>,
    id: u64,
}

impl Place {
    /// The CLIENT ID.
    pub fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.open.fetch_sub(1, Relaxed);
    }
}

/// One worker's handle of [`Clients`]; used by the worker's own thread only.
#[derive(Debug, Clone)]
pub struct WorkerClients {
    clients: Arc<Clients>,
    worker: usize,
}

impl WorkerClients {
    /// The process.
    pub fn all(&self) -> &Arc<Clients> {
        &self.clients
    }

    /// Tells the time to the sessions of this worker, which have no clock: µs of any clock that does not go back.
    pub fn set_now(&self, now_us: u64) {
        self.me().now_us.store(now_us, Relaxed);
    }

    /// The time as told last, µs.
    pub fn now_us(&self) -> u64 {
        self.me().now_us.load(Relaxed)
    }

    /// Tells the time of day that belongs to the time as told last, µs since 1970.
    pub fn set_wall(&self, wall_us: u64) {
        let zero_us = wall_us.saturating_sub(self.now_us());
        // The host's wall clock may be coarser than its other one; that shall not make the time go back.
        if zero_us.abs_diff(self.me().zero_us.load(Relaxed)) > WALL_STEP_US {
            self.me().zero_us.store(zero_us, Relaxed);
        }
    }

    /// The time of day, µs since 1970.
    pub fn wall_us(&self) -> u64 {
        self.me().zero_us.load(Relaxed).saturating_add(self.now_us())
    }

    /// The counts of this worker.
    pub fn stats(&self) -> &Stats {
        &self.me().stats
    }

    fn me(&self) -> &Worker {
        &self.clients.workers[self.worker]
    }
}
