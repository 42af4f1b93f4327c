//! What all client connections of one process share, whichever worker they belong to.
//!
//! Each connection has a record here, which its session writes and CLIENT LIST reads. What concerns a connection of
//! another worker (CLIENT KILL, lines for a monitor) is noted in its record; then its worker is woken, and looks at it.

mod pause;
mod record;
mod slow_log;

use crate::stats::{Snapshot, Stats};
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use parking_lot::Mutex;
use pause::Pause;
use ringfort_wire::{ClusterMap, settings};
use slow_log::SlowLog;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

pub use record::Address;
pub(crate) use record::{Held, Kind, Record};
pub(crate) use slow_log::SlowEntry;

/// Time over which INFO's operations per second are averaged, at least, µs.
const RATE_US: u64 = 1_000_000;

/// Change of the wall clock against the other clock that is taken over, µs.
const WALL_STEP_US: u64 = 2_000;

/// Bytes of commands and replies held for all clients of a process beyond which whoever holds more than an equal share, and
/// comes to hold yet more, is cut. So all clients together never hold more than twice as much: those above their share do
/// not grow, and the others hold a share each at most. (Redis: `maxmemory-clients`.)
pub const CLIENTS_BYTES_MAX: usize = 1 << 30;
/// Change of what a client holds from which on it is counted, bytes.
pub(crate) const HELD_STEP: usize = 16 << 10;

/// The clients of one process, proxy or node.
#[derive(Debug)]
pub struct Clients {
    workers: Box<[Worker]>,
    /// By CLIENT ID.
    records: Mutex<BTreeMap<u64, Arc<Record>>>,
    /// Open connections.
    open: AtomicU64,
    /// Connections accepted since the start, those turned away included.
    accepted: AtomicU64,
    /// Connections turned away since the start.
    turned_away: AtomicU64,
    /// The counts when they were last reset.
    base: Mutex<Snapshot>,
    rate: Mutex<Rate>,
    pause: Pause,
    /// The connections that said MONITOR.
    monitors: Mutex<Vec<Arc<Record>>>,
    /// Whether there is one.
    is_monitored: AtomicBool,
    slow_log: Mutex<SlowLog>,
    limits: Limits,
    /// Bytes that are held for all connections, and from which on clients are cut.
    held: AtomicUsize,
    held_max: usize,
}

/// Settings of the cluster that are looked at for every command or connection.
#[derive(Debug)]
struct Limits {
    /// `slowlog-log-slower-than`, µs.
    slow_us: AtomicI64,
    /// `slowlog-max-len`.
    slow_log: AtomicI64,
    /// `timeout`, s.
    idle_s: AtomicI64,
    /// `maxclients`; 0: not set.
    clients: AtomicI64,
}

/// How many commands there were at two moments, the later one at least [`RATE_US`] before now when it is replaced.
#[derive(Debug, Default)]
struct Rate {
    earlier: (u64, u64),
    later: (u64, u64),
}

/// One worker's part.
#[derive(Default)]
struct Worker {
    /// The time of its last turn, µs of the host's clock.
    now_us: AtomicU64,
    /// µs since 1970 at the zero of that clock.
    zero_us: AtomicU64,
    stats: Stats,
    /// Numbers of clients that it shall look at.
    noted: Mutex<Vec<u64>>,
    has_noted: AtomicBool,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Seconds of the host's clock in which it wrote to the slow log last, and how often.
    slow_second: AtomicU64,
    slow_entries: AtomicU32,
}

impl core::fmt::Debug for Worker {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Worker").field("now_us", &self.now_us).finish_non_exhaustive()
    }
}

impl Worker {
    /// Makes the worker look at a client.
    fn note(&self, key: u64) {
        self.noted.lock().push(key);
        self.has_noted.store(true, Relaxed);
        self.wake();
    }

    fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }
}

impl Clients {
    /// A process with so many threads that hold clients.
    pub fn new(workers: usize) -> Arc<Self> {
        Self::with_held_max(workers, CLIENTS_BYTES_MAX)
    }

    /// As [`Clients::new`] with another value in place of [`CLIENTS_BYTES_MAX`].
    pub fn with_held_max(workers: usize, held_max: usize) -> Arc<Self> {
        Arc::new(Self {
            held: AtomicUsize::new(0),
            held_max,
            workers: (0..workers).map(|_| Worker::default()).collect(),
            records: Mutex::default(),
            open: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            base: Mutex::default(),
            rate: Mutex::default(),
            pause: Pause::default(),
            monitors: Mutex::default(),
            is_monitored: AtomicBool::new(false),
            slow_log: Mutex::default(),
            limits: Limits {
                slow_us: AtomicI64::new(10_000),
                slow_log: AtomicI64::new(128),
                idle_s: AtomicI64::new(0),
                clients: AtomicI64::new(0),
            },
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

    /// Takes the settings of a newer map.
    pub fn follow(&self, map: &ClusterMap) {
        let Limits { slow_us, slow_log, idle_s, clients } = &self.limits;
        slow_us.store(map.setting_integer(settings::SLOWLOG_LOG_SLOWER_THAN), Relaxed);
        slow_log.store(map.setting_integer(settings::SLOWLOG_MAX_LEN), Relaxed);
        idle_s.store(map.setting_integer(settings::TIMEOUT), Relaxed);
        let is_set = map.settings.contains_key(settings::MAXCLIENTS);
        clients.store(if is_set { map.setting_integer(settings::MAXCLIENTS) } else { 0 }, Relaxed);
    }

    /// Most open connections: the setting, else `default`.
    pub fn max(&self, default: u64) -> u64 {
        match u64::try_from(self.limits.clients.load(Relaxed)) {
            Ok(max @ 1..) => max,
            _ => default,
        }
    }

    /// Counts a connection just accepted. `None`: there are `max` open ones already (unless the setting `maxclients` names
    /// another limit), and it must be turned away.
    pub fn accept(self: &Arc<Self>, max: u64) -> Option<Place> {
        let id = self.accepted.fetch_add(1, Relaxed) + 1;
        if self.open.fetch_add(1, Relaxed) >= self.max(max) {
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

    /// Commands per second, over one second at least when there was one.
    pub(crate) fn rate(&self, now_us: u64, totals: u64) -> u64 {
        let mut rate = self.rate.lock();
        if now_us.saturating_sub(rate.later.0) >= RATE_US {
            rate.earlier = core::mem::replace(&mut rate.later, (now_us, totals));
        }
        let (at_us, count) = rate.earlier;
        let us = now_us.saturating_sub(at_us).max(1);
        totals.saturating_sub(count).saturating_mul(1_000_000) / us
    }

    /// Bytes held for all clients.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// A connection for which `counted` bytes are counted holds `held` now. Returns whether it must be cut.
    pub(crate) fn count_held(&self, counted: &mut usize, held: usize) -> bool {
        let before = core::mem::replace(counted, held);
        if held <= before {
            self.held.fetch_sub(before - held, Relaxed);
            return false;
        }
        let total = self.held.fetch_add(held - before, Relaxed) + held - before;
        let open = usize::try_from(self.open()).unwrap_or(usize::MAX).max(1);
        total > self.held_max && held > self.held_max / open
    }

    /// Every connection, oldest first.
    pub(crate) fn records(&self) -> Vec<Arc<Record>> {
        self.records.lock().values().cloned().collect()
    }

    /// The connection of an id.
    pub(crate) fn record(&self, id: u64) -> Option<Arc<Record>> {
        self.records.lock().get(&id).cloned()
    }

    /// Ends a connection.
    pub(crate) fn kill(&self, record: &Record) {
        record.is_killed.store(true, Relaxed);
        self.note(record);
    }

    fn note(&self, record: &Record) {
        if let Some(worker) = self.workers.get(record.worker) {
            worker.note(record.key());
        }
    }

    /// CLIENT PAUSE and UNPAUSE.
    pub(crate) fn pause(&self) -> &Pause {
        &self.pause
    }

    /// CLIENT UNPAUSE: whoever waits goes on at once.
    pub(crate) fn unpause(&self) {
        self.pause.end();
        self.workers.iter().for_each(Worker::wake);
    }

    /// Whether some connection said MONITOR.
    pub(crate) fn is_monitored(&self) -> bool {
        self.is_monitored.load(Relaxed)
    }

    /// Sends a line to every monitor.
    pub(crate) fn monitor(&self, line: &[u8]) {
        for record in self.monitors.lock().iter() {
            if record.push_line(line) {
                self.note(record);
            }
        }
    }

    pub(crate) fn add_monitor(&self, record: &Arc<Record>) {
        let mut monitors = self.monitors.lock();
        if !record.is_monitor.swap(true, Relaxed) {
            monitors.push(Arc::clone(record));
        }
        self.is_monitored.store(true, Relaxed);
    }

    pub(crate) fn remove_monitor(&self, id: u64) {
        let mut monitors = self.monitors.lock();
        monitors.retain(|record| {
            let stays = record.id != id;
            record.is_monitor.store(stays, Relaxed);
            stays
        });
        self.is_monitored.store(!monitors.is_empty(), Relaxed);
    }

    pub(crate) fn slow_log(&self) -> &Mutex<SlowLog> {
        &self.slow_log
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
        let record = self.clients.records.lock().remove(&self.id);
        if record.is_some_and(|record| record.is_monitor.load(Relaxed)) {
            self.clients.remove_monitor(self.id);
        }
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

    /// How to wake the worker for a turn, from any thread. Only the first call counts.
    pub fn set_wake(&self, wake: impl Fn() + Send + Sync + 'static) {
        // A second one would wake the same worker.
        let _ = self.me().wake.set(Box::new(wake));
    }

    /// Tells the time to the sessions of this worker, which have no clock: µs of any clock that does not go back, the same
    /// for all workers of the process.
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

    /// Clients of this worker that others want looked at ([`Session::attend`](crate::session::Session::attend)).
    pub fn take_noted(&self) -> Vec<u64> {
        let me = self.me();
        if !me.has_noted.load(Relaxed) {
            return Vec::new();
        }
        me.has_noted.store(false, Relaxed);
        core::mem::take(&mut *me.noted.lock())
    }

    /// Whether CLIENT PAUSE holds anything up now.
    pub fn is_paused(&self) -> bool {
        self.clients.pause.until_us().is_some_and(|until_us| self.now_us() < until_us)
    }

    /// When the pause ends by itself, µs; `None` when there is none.
    pub fn pause_end_us(&self) -> Option<u64> {
        self.clients.pause.until_us()
    }

    /// Seconds of silence after which a client is cut; `None`: never.
    pub fn idle_max_s(&self) -> Option<u64> {
        u64::try_from(self.clients.limits.idle_s.load(Relaxed)).ok().filter(|&idle_s| idle_s > 0)
    }

    /// Whether a command that took so long is to be in the slow log.
    pub(crate) fn is_slow(&self, us: u64) -> bool {
        u64::try_from(self.clients.limits.slow_us.load(Relaxed)).is_ok_and(|slow_us| us >= slow_us)
    }

    /// Whether there is a slow log at all.
    pub(crate) fn has_slow_log(&self) -> bool {
        self.clients.limits.slow_us.load(Relaxed) >= 0
    }

    /// Adds to the slow log, unless there were too many in this second.
    pub(crate) fn log_slow(&self, entry: impl FnOnce() -> SlowEntry) {
        let me = self.me();
        let second = self.now_us() / 1_000_000;
        if me.slow_second.swap(second, Relaxed) != second {
            me.slow_entries.store(0, Relaxed);
        }
        if me.slow_entries.fetch_add(1, Relaxed) < slow_log::ENTRIES_PER_SECOND {
            let max = usize::try_from(self.clients.limits.slow_log.load(Relaxed)).unwrap_or(0);
            self.clients.slow_log.lock().push(entry(), max);
        }
    }

    /// Enters a connection; its record.
    pub(crate) fn register(&self, place: &Place, address: &Address) -> Arc<Record> {
        let record = Arc::new(Record::new(place.id, address.clone(), self.worker, self.now_us()));
        self.clients.records.lock().insert(place.id, Arc::clone(&record));
        record
    }

    fn me(&self) -> &Worker {
        &self.clients.workers[self.worker]
    }
}
