//! The worker without its sockets: partitions, their log, the links' and clients' buffers. No I/O but the log's write.
//!
//! # The turn
//! Inputs are taken as they come ([`WorkerCore::link_data`], [`WorkerCore::client_data`], Raft frames);
//! then one [`WorkerCore::turn`]
//!
//! 1. makes **one** log entry of all writes of each partition touched;
//! 2. takes what every touched group wants persisted, sent and applied - a leader's messages leave before its own disk
//!    has them (Ongaro's thesis, 10.2.1), replies follow the apply;
//! 3. appends the records of all groups with **one** write;
//! 4. lets go of votes and acknowledgements: at once (`buffered`), or when the log thread has synced (`fsync`, and the
//!    meta group always);
//! 5. executes the reads that waited for that, looks at the clock **again**, and answers those that the lease still covers.
//!
//! Reads that wait for nothing are executed together at the turn's start, before anything of it is applied.
//!
//! The shell then sends one buffer to each peer, link and client. The cost of I/O does not depend on the number of
//! partitions.

mod asides;
mod clients;
mod disk_watch;
mod groups;
mod jobs;
mod links;
mod members;
mod meta;
mod reads;
mod snapshots;
mod start;
mod time;
mod watch;

use disk_watch::DiskWatch;
use groups::Groups;
pub use jobs::{Job, JobDone};
use reads::ReadBatch;
use snapshots::Received;
pub use snapshots::{Restore, SnapshotReceive, SnapshotSend};

use super::ports::PortTable;
use super::shared::{Shared, View};
use super::status::WorkerStatus;
use crate::clock::{Clock, Now};
use crate::failpoint::{self, Point};
use crate::log::{Disk, Log, LogEntry, LogError, LogOptions, Mark, SnapshotFiles, SyncJob};
use crate::shard::limits::Limits;
use crate::shard::membership::Membership;
use crate::shard::raft::{EntryReader, Message, TICK_MS};
use crate::shard::reads::ExecutedReads;
use crate::shard::{Group, memory};
use ringfort_proxy::clients::WorkerClients;
use ringfort_proxy::errands::Errands;
use ringfort_proxy::random::Random;
use ringfort_proxy::session::Host as _;
use ringfort_ring::NodeId;
use ringfort_store::{Reach, Spot, Store};
use ringfort_wire::frame::{Kind, Reader, WireError};
use ringfort_wire::{ClusterMap, GroupId, settings};
use smallvec::SmallVec;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Below so much free disk no write is accepted: the log must have room for what is on its way.
pub const DISK_FREE_MIN: u64 = 256 << 20;
/// A partition whose log is larger than this, and than its data, is compacted.
pub const COMPACT_BYTES_MIN: u64 = 64 << 20;
/// Operations, of all groups of a round, of which the processor fetches at once what they look at: some hundred KiB.
const FETCH_OPS: usize = 256;
/// Most rounds of one turn; a group that persists alone needs two to see its own entry committed.
const ROUNDS_MAX: usize = 16;
/// Ticks between two rounds of housekeeping (1 s).
const HOUSEKEEPING_TICKS: u64 = 1000 / TICK_MS;
/// Ticks between two campaigns of the first leader of a new group (30 ms).
const FIRST_CAMPAIGN_TICKS: u64 = 30 / TICK_MS;
/// Ticks between two attempts to write while the disk is full (500 ms): each may cost as much as all that is staged.
const WRITE_RETRY_TICKS: u64 = 500 / TICK_MS;
/// Ticks between two attempts to hand leaderships over (50 ms).
const HAND_OVER_TICKS: u64 = 50 / TICK_MS;
/// Ticks between two looks at expired keys and at the memory limit (100 ms).
const EXPIRE_TICKS: u64 = 100 / TICK_MS;
/// Ticks between two reports to the meta group of what changes of members have come to (200 ms; at rest 1 s); news is told at
/// once.
const REPORT_TICKS: u64 = 200 / TICK_MS;
/// Ticks between two publications of the groups' state, and two looks at their members (100 ms; at rest 1 s).
const PUBLISH_TICKS: u64 = 100 / TICK_MS;

/// How a worker is started.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Its number.
    pub worker: u16,
    /// The node.
    pub node: NodeId,
    /// How the log opens.
    pub log: LogOptions,
    /// Whether these data have been used before: restarted voters stay silent for one election timeout.
    pub is_restart: bool,
    /// Whether replicas have run on these data: then every group must be found in the log.
    pub has_run: bool,
    /// Whether the last writes may be missing, votes included: then the replicas of partitions stand aside.
    pub is_suspect: bool,
    /// Seed of timeouts.
    pub seed: u64,
    /// Size of a partition's log at which it is compacted.
    pub compact_bytes_min: u64,
    /// Free disk below which others are to lead, and writes are refused.
    pub disk_free_min: u64,
    /// Bounds of what a replica has under way.
    pub limits: Limits,
}
struct LogReader<D: Disk>(Rc<RefCell<Log<D>>>);

impl<D: Disk> EntryReader for LogReader<D> {
    fn read(&self, group: u16, lo: u64, hi: u64, bytes_max: usize) -> Result<Vec<LogEntry>, String> {
        let read = self.0.borrow().read(group, lo, hi, bytes_max);
        read.map_err(|error| snapshots::cause(&error))
    }

    fn bytes(&self, group: u16) -> u64 {
        self.0.borrow().group_bytes(group)
    }
}

/// Work of a group that waits for the disk.
#[derive(Debug, Clone, Copy)]
struct Pending {
    group: u16,
    number: u64,
    /// The write that must be durable; `None` until it has reached the file.
    write: Option<u64>,
}

/// A group whose replica here has ended; another one may begin when that is durable.
#[derive(Debug)]
struct Ending {
    group: u16,
    /// The epoch of the map that must be in the data folder before the log goes; `None`: its removal is staged.
    awaits_epoch: Option<u64>,
    /// The write that must be durable; `None` until it has reached the file.
    write: Option<u64>,
    /// Whether the snapshot is the next replica's; if not, it goes.
    keeps_snapshot: bool,
}

/// One worker.
pub struct WorkerCore<D: Disk> {
    options: WorkerOptions,
    shared: Arc<Shared>,
    view: View,
    clients: WorkerClients,
    /// Clients whose next command waits for the end of CLIENT PAUSE.
    paused_clients: Vec<u64>,
    groups: Groups,
    log: Rc<RefCell<Log<D>>>,
    snapshots: SnapshotFiles<D>,
    ports: PortTable,
    dirty: Vec<u16>,
    is_dirty: Vec<bool>,
    /// The groups of a turn; empty between two.
    touched: Vec<u16>,
    /// Of those that took work in a round, its number, and whether it is nothing for the log; empty between two.
    taken: Vec<(u16, u64, bool)>,
    pending: VecDeque<Pending>,
    jobs: Vec<Job<D>>,
    disk: DiskWatch,
    building: Option<snapshots::Building<D>>,
    /// The buffer of the next snapshot: fresh memory costs a turn more than what is read into it.
    spare_piece: Vec<u8>,
    /// Replicas that do not run, and why their groups wait.
    asides: BTreeMap<u16, asides::Standby>,
    waits: asides::Waits,
    watch: watch::Watch,
    /// Groups whose next incarnation begins with what is here.
    heirs: VecDeque<u16>,
    ending: Vec<Ending>,
    /// Whether the whole log is missing although replicas have run on it.
    is_log_lost: bool,
    snapshots_wanted: VecDeque<u16>,
    /// Counts the received snapshots that are read into a state as they come.
    restoring: Arc<()>,
    /// Groups of which a snapshot was received and not judged by Raft yet, and itself once Raft was told of it.
    received: BTreeMap<u16, Option<Received>>,
    /// What the meta group was told last of replicas that vote now, and of those that take part no more.
    arrived: Vec<(u16, Vec<u64>)>,
    gone: Vec<(u16, Vec<u64>)>,
    /// Whether the replicas of the map that was kept are being started.
    is_starting: bool,
    /// A calendar of what is due, in ticks; at rest it leaps now and then ([`time`]). Replicas count their own.
    ticks: u64,
    time: time::Time,
    status: WorkerStatus,
    /// The setting `replica-max-staleness-ms`, µs.
    read_age_us_max: u64,
    /// When the rate of commands was last reckoned (µs), and their count then.
    rated: (u64, u64),
    is_disk_low: bool,
    is_write_failing: bool,
    /// Tick from which on a write that found no room is tried again.
    write_again_at: u64,
    /// Tick from which on old segments are freed again, and the entry that was in the way last.
    maintain_at: u64,
    unreadable: Option<(u16, u64)>,
    is_leaving: bool,
    scratch: Vec<u8>,
    batch: ReadBatch,
    executed: ExecutedReads,
    errands: Errands,
    random: Random,
    /// The last question for digests that was answered.
    digests_round: u64,
}

impl<D: Disk> std::fmt::Debug for WorkerCore<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerCore").field("worker", &self.options.worker).finish_non_exhaustive()
    }
}

impl<D: Disk> WorkerCore<D> {
    /// Tells how to wake the worker for a turn, from any thread.
    pub fn set_wake(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.clients.set_wake(wake);
    }

    /// Facts that all workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Whether replicas are here that stand aside.
    pub fn has_asides(&self) -> bool {
        !self.asides.is_empty()
    }

    /// The replica of a group that is here.
    pub fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(id.0)
    }

    /// All replicas that are here.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter()
    }

    fn touch(&mut self, group: u16) {
        if let Some(flag) = self.is_dirty.get_mut(usize::from(group))
            && !std::mem::replace(flag, true)
        {
            self.dirty.push(group);
        }
    }

    /// Number of workers of a node, 1 while it is not known.
    pub fn peer_workers(&self, node: &NodeId) -> u16 {
        self.ports.peer_workers(node).max(1)
    }

    /// A node is reachable and has so many workers.
    pub fn peer_up(&mut self, node: NodeId, workers: u16) {
        self.stir();
        self.ports.peer_up(node, workers);
    }

    /// The link to a node broke: what was on its way may be lost.
    pub fn peer_down(&mut self, node: &NodeId) {
        self.stir();
        self.ports.forget_peer(node);
        for group in self.groups.iter_mut() {
            group.unreachable(node);
        }
    }

    /// Takes a frame of another node's worker.
    ///
    /// # Errors
    /// It is malformed: drop the link.
    pub fn peer_frame(&mut self, kind: Kind, body: &[u8], now: Now) -> Result<(), WireError> {
        self.pass_time(now);
        match kind {
            Kind::Raft => self.raft_frame(body),
            Kind::MetaReport => self.meta_report(body),
            other => Err(WireError::UnknownKind(other as u8)),
        }
    }

    fn raft_frame(&mut self, body: &[u8]) -> Result<(), WireError> {
        let mut r = Reader::new(body, "Raft frame");
        let (id, incarnation) = (r.u16()?, r.u32()?);
        let message = Message::decode(r.rest())?;
        if message.snapshot_index().is_some() {
            return Err(r.malformed()); // snapshots come with their bytes
        }
        if self.is_write_failing && message.is_append() {
            return Ok(()); // there is no room for it; Raft sends again
        }
        if let Some(group) = self.groups.get_mut(id)
            && group.incarnation() == incarnation
            && group.raft().replica() == message.to()
            && group.step(message, &mut self.ports)
        {
            self.touch(id);
        }
        Ok(())
    }

    /// Hands the frames to be sent to each worker of each node to `send`.
    pub fn send_raft_output(&mut self, send: impl FnMut(&NodeId, u16, &[u8])) {
        let holds_answers = self.holds_answers();
        self.ports.send_to_peers(holds_answers, send);
    }

    /// Whether a turn has something to do.
    pub fn wants_turn(&self) -> bool {
        !self.dirty.is_empty()
            || !self.batch.is_empty()
            || !self.executed.is_empty()
            || !self.ports.workers.is_empty()
            || self.has_background_work()
    }

    /// Does everything that the inputs since the last turn ask for; see the module's head.
    ///
    /// # Errors
    /// The replica cannot go on (damaged data, a failed sync): the process must stop.
    pub fn turn(&mut self, clock: &dyn Clock) -> anyhow::Result<()> {
        if let Some(failure) = self.take_failure() {
            return Err(failure);
        }
        self.view.refresh();
        if self.ports.map.as_ref().map_or(0, |m| m.epoch) != self.shared.epoch() {
            self.stir();
            self.follow_map()?;
        }
        let now = clock.now();
        self.ports.now_us = now.boot_us;
        self.clients.set_now(now.boot_us);
        self.attend_clients(now);
        self.execute_reads(now);
        let mut touched = std::mem::take(&mut self.touched);
        for _ in 0..ROUNDS_MAX {
            if self.dirty.is_empty() {
                break;
            }
            let before = touched.len();
            touched.append(&mut self.dirty);
            for &id in &touched[before..] {
                self.is_dirty[usize::from(id)] = false;
                self.drive(id, now)?;
            }
            self.fetch_ahead(&touched[before..]);
            let mut taken = std::mem::take(&mut self.taken);
            for (id, number, is_nothing) in taken.drain(..) {
                self.apply(id, number, is_nothing)?;
            }
            self.taken = taken;
            self.write_log()?;
            self.clients.set_now(clock.now().boot_us);
        }
        touched.sort_unstable();
        touched.dedup();
        for &id in &touched {
            if let Some(group) = self.groups.get_mut(id) {
                group.serve_reads(now, &mut self.ports, &mut self.executed);
                if group.take_snapshot_wanted() && !self.snapshots_wanted.contains(&id) {
                    self.snapshots_wanted.push_back(id);
                }
                if group.raft().has_ready() || group.has_proposable() {
                    self.touch(id);
                }
            }
        }
        // One reading of the clock after all reads were executed serves them all.
        let after = clock.now();
        for &id in &touched {
            for proposed_us in self.groups.get_mut(id).into_iter().flat_map(Group::take_proposed) {
                self.status.commits.record(after.boot_us.saturating_sub(proposed_us));
            }
        }
        self.clients.set_now(after.boot_us);
        let had_room = self.executed.has_room();
        self.finish_reads(after);
        if !had_room {
            // Reads may wait for nothing but that.
            touched.retain(|&id| self.groups.get(id).is_some_and(Group::has_waiting_reads));
            touched.iter().for_each(|&id| self.touch(id));
        }
        touched.clear();
        self.touched = touched;
        let took_us = match self.ports.is_large_taken() {
            true => clock.now().boot_us.saturating_sub(now.boot_us),
            false => 0,
        };
        self.ports.end_turn(now.boot_us + took_us, took_us);
        self.build_snapshot()?;
        self.succeed()
    }

    fn drive(&mut self, id: u16, now: Now) -> anyhow::Result<()> {
        let Some(group) = self.groups.get_mut(id) else { return Ok(()) };
        group.propose(now, &mut self.ports);
        let ready = group.take_ready(&mut self.ports);
        if let Some((index, term)) = ready.as_ref().and_then(|(_, work)| work.install) {
            self.install(id, index, term)?;
        }
        if let Some(Some(_)) = self.received.get(&id)
            && let Some(Received { header, machine }) = self.received.remove(&id).flatten()
        {
            // Raft has seen it and did not want it: it knows better.
            self.jobs.push(Job::Free(Box::new(machine)));
            self.snapshots.discard(id, header.index)?;
        }
        let Some((number, work)) = ready else { return Ok(()) };
        let mut log = self.log.borrow_mut();
        if !work.entries.is_empty() {
            log.stage_entries(id, &work.entries)?;
        }
        if let Some(state) = work.hard_state {
            failpoint::hit(Point::LogHardState)?;
            log.stage_hard_state(id, &state)?;
        }
        self.taken.push((id, number, work.is_empty()));
        Ok(())
    }

    /// Has the processor fetch what the operations look at that all these groups apply next.
    fn fetch_ahead(&mut self, ids: &[u16]) {
        let mut spots: SmallVec<[(&Store, Spot); 64]> = SmallVec::new();
        for group in ids.iter().filter_map(|&id| self.groups.get(id)) {
            let room = FETCH_OPS.saturating_sub(spots.len());
            group.spots_ahead(room, &mut |store, spot| spots.push((store, spot)));
        }
        // One that is alone would only wait for itself.
        if spots.len() > 1 {
            for reach in Reach::AFTER_SLOT {
                spots.iter().for_each(|(store, spot)| store.prefetch(*spot, reach));
            }
        }
    }

    /// Applies what a group has taken as the work `number`, which is nothing for the log if `is_nothing`.
    fn apply(&mut self, id: u16, number: u64, is_nothing: bool) -> anyhow::Result<()> {
        if !is_nothing {
            self.stir();
        }
        let Some(group) = self.groups.get_mut(id) else { return Ok(()) };
        group.apply_taken(&mut self.ports).map_err(anyhow::Error::msg)?;
        // An empty piece of work waits only for what is ahead of it: there may be no further write for long.
        let write = match is_nothing {
            true => self.pending.iter().rfind(|p| p.group == id).map(|p| p.write),
            false => Some(None),
        };
        match write {
            Some(write) => self.pending.push_back(Pending { group: id, number, write }),
            None => group.persisted(number, &mut self.ports),
        }
        if group.has_work() {
            self.touch(id);
        }
        if id == GroupId::META.0 {
            self.follow_meta();
        }
        Ok(())
    }

    /// Writes what is staged, and lets go of what needs no sync.
    fn write_log(&mut self) -> anyhow::Result<()> {
        if !self.log.borrow().has_staged() || (self.is_write_failing && self.ticks < self.write_again_at) {
            return Ok(());
        }
        let written = self.log.borrow_mut().write();
        match written {
            Ok(write) => {
                self.is_write_failing = false;
                for pending in &mut self.pending {
                    pending.write.get_or_insert(write);
                }
                for ending in self.ending.iter_mut().filter(|ending| ending.awaits_epoch.is_none()) {
                    ending.write.get_or_insert(write);
                }
                for standby in self.asides.values_mut() {
                    standby.write.get_or_insert(write);
                }
            }
            // Nothing is acknowledged, the staged records stay and are tried again; others may lead meanwhile.
            Err(LogError::Full { file }) => {
                self.write_again_at = self.ticks + WRITE_RETRY_TICKS;
                if !std::mem::replace(&mut self.is_write_failing, true) {
                    tracing::error!(file, "the disk is full: writes are refused until there is room");
                    self.hand_over();
                }
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        self.release();
        let is_withdrawing =
            self.asides.values().any(|standby| standby.write > Some(self.log.borrow().synced()));
        let is_ending = self.ending.iter().any(|ending| ending.write.is_some());
        if self.pending.iter().any(|p| p.write.is_some()) || is_ending || is_withdrawing {
            self.sync();
        }
        Ok(())
    }

    /// Tells the groups what has become as durable as their mode asks.
    fn release(&mut self) {
        let synced = self.log.borrow().synced();
        let is_fsync = self.view.map().is_some_and(|m| m.fsync);
        let mut blocked: Vec<u16> = Vec::new();
        for _ in 0..self.pending.len() {
            let Some(pending) = self.pending.pop_front() else { break };
            let needs_sync = is_fsync || pending.group == GroupId::META.0;
            let is_durable = pending.write.is_some_and(|w| !needs_sync || w <= synced);
            if !is_durable || blocked.contains(&pending.group) {
                blocked.push(pending.group);
                self.pending.push_back(pending);
                continue;
            }
            if let Some(group) = self.groups.get_mut(pending.group) {
                group.persisted(pending.number, &mut self.ports);
                if group.has_work() {
                    self.touch(pending.group);
                }
            }
        }
    }

    fn sync(&mut self) {
        if !self.disk.is_syncing()
            && let Some(job) = self.log.borrow_mut().sync_job()
        {
            self.disk.begun(self.ticks);
            self.jobs.push(Job::Sync(job));
        }
    }

    /// Takes work for the log thread.
    pub fn take_jobs(&mut self) -> Vec<Job<D>> {
        std::mem::take(&mut self.jobs)
    }

    /// What makes the log durable at a planned end.
    pub fn take_last_sync(&mut self) -> Option<SyncJob<D>> {
        self.log.borrow_mut().sync_job()
    }

    /// The log thread is done with a job.
    ///
    /// # Errors
    /// A sync failed: what is on disk is unknown, and the process must stop.
    pub fn job_done(&mut self, done: JobDone<D>) -> anyhow::Result<()> {
        match done {
            JobDone::Synced(result) => {
                result?;
                self.disk.done();
                self.release();
                self.finish_endings()?;
                if !self.pending.is_empty() && self.pending.iter().any(|p| p.write.is_some()) {
                    self.sync();
                }
            }
            JobDone::Rewrite(result) => {
                let read = self.log.borrow_mut().rewrite_read(result);
                read.or_else(|error| self.not_maintained(error))?;
            }
            JobDone::Written(result) => self.piece_written(result)?,
            JobDone::Snapshot(id, header, result) => {
                let Some(group) = self.groups.get_mut(id) else {
                    self.snapshots.discard(id, header.index)?;
                    return Ok(());
                };
                if let Err(error) = result {
                    group.snapshot_abort();
                    let error = format!("{:#}", anyhow::Error::from(error));
                    tracing::warn!(group = id, error, "a snapshot could not be made durable");
                    return Ok(());
                }
                if !group.needs_snapshot(header.index) {
                    // A received one overtook it.
                    self.snapshots.discard(id, header.index)?;
                    return Ok(());
                }
                self.snapshots.complete(id, header.index)?;
                failpoint::hit(Point::SnapshotMark)?;
                // Only now may the log before it go.
                let members = Membership::decode(&header.conf)?;
                let mark = Mark { index: header.index, term: header.term, conf: header.conf };
                self.log.borrow_mut().stage_mark(id, &mark, true)?;
                let garbage = group.compacted(header.index, header.term, members.unwrap_or_default());
                self.jobs.push(Job::Free(Box::new(garbage)));
                self.touch(id);
            }
            JobDone::Freed => {}
            JobDone::Received(id, header, message, result) => {
                self.received.remove(&id);
                let machine = match result {
                    Ok(machine) => machine,
                    Err(error) => {
                        let error = format!("{error:#}");
                        tracing::warn!(
                            group = id,
                            error,
                            "a received snapshot could not be read or made durable"
                        );
                        return Ok(());
                    }
                };
                // It becomes the current one when Raft accepts it; until then the older one stays.
                if let Some(group) = self.groups.get_mut(id) {
                    group.step(message, &mut self.ports);
                    self.received.insert(id, Some(Received { header, machine }));
                    self.touch(id);
                } else {
                    self.jobs.push(Job::Free(Box::new(machine)));
                    self.snapshots.discard(id, header.index)?;
                }
            }
        }
        Ok(())
    }

    /// Advances the clock by `ticks`; [`WorkerCore::pass_time`] says when, and by how many: none but the last is a multiple of
    /// what a worker that rests wakes for.
    ///
    /// # Errors
    /// The log cannot be maintained: the process must stop.
    pub fn tick(&mut self, ticks: u64, now: Now) -> anyhow::Result<()> {
        self.ticks += ticks;
        let is_beat = self.is_beat();
        self.unpark_all(now);
        let ids: Vec<u16> = self.groups.iter().map(|group| group.id().0).collect();
        let share = || self.view.cluster_map().map(|map| memory::share(map)).unwrap_or_default();
        let limit = self.ticks.is_multiple_of(EXPIRE_TICKS).then(share);
        self.watch_disk();
        let is_hampered = self.is_full() || self.disk.is_slow();
        for &id in &ids {
            let Some(group) = self.groups.get_mut(id) else { continue };
            group.set_hampered(is_hampered);
            let mut is_busy = group.tick(ticks, is_beat, &mut self.ports);
            if self.ticks.is_multiple_of(FIRST_CAMPAIGN_TICKS) && group.awaits_first_leader() {
                // The links of a new cluster come up one by one; nobody else leads, so ask again soon.
                group.campaign();
                is_busy = true;
            }
            if let Some(limit) = &limit {
                group.reclaim();
                group.expire(now);
                group.follow_limit(limit);
                group.evict_excess();
                is_busy |= group.has_proposable();
            }
            if is_busy {
                self.touch(id);
            }
        }
        self.remove_ended()?;
        if self.is_write_failing {
            self.write_log()?;
        }
        if (self.is_leaving || self.is_write_failing) && self.ticks.is_multiple_of(HAND_OVER_TICKS) {
            self.hand_over();
        }
        // At rest there is little to do, and little news.
        let publishes_every = if self.is_resting() { HOUSEKEEPING_TICKS } else { PUBLISH_TICKS };
        let publishes = self.ticks.is_multiple_of(publishes_every);
        if !self.is_leaving && self.ticks.is_multiple_of(PUBLISH_TICKS) {
            // One at a time: a return of leadership costs its partition a few milliseconds.
            let handed = self.groups.iter_mut().find_map(|g| g.transfer_to_preferred().then(|| g.id().0));
            if let Some(group) = handed {
                self.touch(group);
            }
        }
        // While something moves, each of a replica's steps is done as soon as the one before it.
        let is_moving = self.ports.map.as_ref().is_some_and(|map| map.change.is_some());
        if is_moving || publishes {
            self.reconcile();
        }
        if self.ticks.is_multiple_of(PUBLISH_TICKS) {
            self.attend_asides()?;
            self.publish_digests();
        }
        if publishes {
            self.publish();
            self.publish_status(now);
        }
        // Frees dead segments, a small piece at a time, for commands wait meanwhile: at up to 6 MiB/s.
        for _ in 0..ticks {
            if self.log.borrow().has_staged() || self.ticks < self.maintain_at {
                break;
            }
            let maintained = self.log.borrow_mut().maintain();
            maintained.or_else(|error| self.not_maintained(error))?;
            let job = self.log.borrow_mut().rewrite_job();
            self.jobs.extend(job.map(Job::Rewrite));
        }
        if self.ticks.is_multiple_of(HOUSEKEEPING_TICKS) {
            self.reckon_rate(now);
            self.housekeeping()?;
        }
        Ok(())
    }

    /// Commands per second since the last call; one worker reckons for all.
    fn reckon_rate(&mut self, now: Now) {
        if self.options.worker != 0 {
            return;
        }
        let commands = self.shared.clients.executed();
        let (then_us, before) = std::mem::replace(&mut self.rated, (now.boot_us, commands));
        let us = now.boot_us.saturating_sub(then_us).max(1);
        let rate = u128::from(commands - before) * 1_000_000 / u128::from(us);
        self.shared.commands_per_s.store(rate as u64, Ordering::Relaxed);
    }

    /// Whether writes are refused for lack of room on the disk.
    fn is_full(&self) -> bool {
        self.is_disk_low || self.is_write_failing
    }

    /// Where each acknowledgement waits for a sync, one that takes long is a reason to have others lead.
    fn watch_disk(&mut self) {
        let is_waited_for = self.view.map().is_some_and(|map| map.fsync);
        match self.disk.look(self.ticks, is_waited_for) {
            Some(true) => tracing::warn!(
                longest_ms = disk_watch::SLOW_MS,
                "the disk is slow, a sync takes too long: others lead meanwhile"
            ),
            Some(false) => tracing::info!("the disk is quick again"),
            None => {}
        }
    }

    fn housekeeping(&mut self) -> anyhow::Result<()> {
        let free = self.log.borrow().disk_free();
        // Once it is low, a little more is asked for: what is near the limit would refuse and hand over again and again.
        let least = self.options.disk_free_min;
        let least = if self.is_disk_low { least + least / 8 } else { least };
        let is_low = free.is_ok_and(|free| free < least);
        if is_low != self.is_disk_low {
            self.is_disk_low = is_low;
            if is_low {
                tracing::error!("the disk is almost full: writes are refused until there is room");
            } else {
                tracing::info!("the disk has room again: writes are accepted");
            }
        }
        self.attend_idle_clients();
        self.watch_nodes();
        for group in self.groups.iter() {
            let id = group.id().0;
            let bytes = self.log.borrow().group_bytes(id);
            if group.is_compaction_due(bytes, self.options.compact_bytes_min)
                && !self.snapshots_wanted.contains(&id)
            {
                self.snapshots_wanted.push_back(id);
            }
        }
        // `buffered` is synced every second; `fsync` has nothing left to sync.
        self.sync();
        Ok(())
    }

    /// The log thread has taken so long for a sync.
    pub fn sync_took(&mut self, us: u64) {
        self.status.syncs.record(us);
    }

    fn publish_status(&mut self, now: Now) {
        let log = self.log.borrow();
        let links = &self.ports.links;
        let status = WorkerStatus {
            published_us: now.boot_us,
            log_bytes: log.disk_bytes(),
            log_segments: log.segments_len() as u64,
            links: links.len() as u64,
            link_requests: links.values().map(|link| link.unanswered as u64).sum(),
            is_disk_full: self.is_full(),
            is_disk_slow: self.disk.is_slow(),
            ..self.status.clone()
        };
        self.shared.publish_worker(self.options.worker, status);
    }

    fn publish(&self) {
        self.shared.publish(self.options.worker, self.groups.iter().map(Group::status).collect());
    }

    fn publish_digests(&mut self) {
        let round = self.shared.digests_asked.load(Ordering::Relaxed);
        if round != self.digests_round {
            self.digests_round = round;
            let digests =
                self.groups.iter().map(|g| (g.id(), g.raft().applied_index(), g.digest())).collect();
            self.shared.publish_digests(self.options.worker, digests);
        }
    }

    /// Begins to hand every leadership over, for a planned stop; repeated by ticks until it is done.
    pub fn leave(&mut self) {
        self.is_leaving = true;
        self.hand_over();
    }

    fn hand_over(&mut self) {
        let ids: Vec<u16> = self.groups.iter().map(|group| group.id().0).collect();
        for id in ids {
            if self.groups.get_mut(id).is_some_and(Group::hand_over) {
                self.touch(id);
            }
        }
    }

    /// Whether no group is led here that somebody else could lead.
    pub fn has_left(&self) -> bool {
        !self.groups.iter().any(|g| g.raft().is_leader() && !g.raft().is_singleton())
    }
}

/// The age up to which followers answer reads at once, µs.
fn read_age_us_max(map: &ClusterMap) -> u64 {
    let ms = map.setting_integer(settings::REPLICA_MAX_STALENESS_MS);
    u64::try_from(ms).unwrap_or(0).saturating_mul(1000)
}

/// Lack of room gives a snapshot up; anything else stops the process.
fn no_room(error: LogError) -> Result<(), LogError> {
    match error {
        LogError::Full { file } => {
            tracing::warn!(file, "no room for a snapshot");
            Ok(())
        }
        other => Err(other),
    }
}

#[cfg(test)]
mod tests;
