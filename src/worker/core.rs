//! The worker without its sockets: partitions, their log, the links' and clients' buffers. No I/O but the log's write.
//!
//! # The turn
//! Inputs are taken as they come ([`WorkerCore::link_data`], [`WorkerCore::client_data`], [`WorkerCore::raft_frame`]);
//! then one [`WorkerCore::turn`]
//!
//! 1. makes **one** log entry of all writes of each partition touched;
//! 2. takes what every touched group wants persisted, sent and applied - a leader's messages leave before its own disk
//!    has them (Ongaro's thesis, 10.2.1), replies follow the apply;
//! 3. appends the records of all groups with **one** write;
//! 4. lets go of votes and acknowledgements: at once (`buffered`), or when the log thread has synced (`fsync`, and the
//!    meta group always);
//! 5. executes the reads that wait, looks at the clock **again**, and answers those that the lease still covers.
//!
//! The shell then sends one buffer to each peer, link and client. The cost of I/O does not depend on the number of
//! partitions.

use super::ports::{Client, Link, PortTable, WorkerMessage, worker_of};
use super::shared::{Shared, View};
use crate::clock::{Clock, Now};
use crate::log::{
    Disk, HardState, Identity, IncomingSnapshot, Log, LogEntry, LogError, LogOptions, Mark, Recovered,
    SnapshotFiles, SnapshotHeader, SnapshotJob, SnapshotReader, SnapshotWriter, SyncJob,
};
use crate::meta::{Change, MetaMachine};
use crate::shard::machine::PartitionMachine;
use crate::shard::raft::{EntryReader, Message, Start, TICK_MS};
use crate::shard::{Group, GroupStart, Machine, Origin, Ports as _, Submission};
use bytes::Bytes;
use ringfort_proxy::session::{Host as _, Mode, Session, Slots};
use ringfort_resp::Protocol;
use ringfort_ring::{NodeId, Slot};
use ringfort_wire::entry::OpKind;
use ringfort_wire::frame::{self, Kind, Reader, WireError};
use ringfort_wire::request::{CREDIT_REQUESTS, CommandBody, Request, RequestKind, Status};
use ringfort_wire::{ClusterMap, FEATURE_LEVEL, GroupId};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Below so much free disk no write is accepted: the log must have room for what is on its way.
pub const DISK_FREE_MIN: u64 = 256 << 20;
/// A partition whose log is larger than this, and than its data, is compacted.
pub const COMPACT_BYTES_MIN: u64 = 64 << 20;
/// Terms that a suspect replica skips: more elections than can have taken place in the second that may be forgotten.
const SUSPECT_TERMS: u64 = 1000;
/// Bytes of a snapshot that are written in one turn.
const SNAPSHOT_STEP_BYTES: usize = 256 << 10;
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
/// Ticks between two looks at expired keys (100 ms).
const EXPIRE_TICKS: u64 = 100 / TICK_MS;
/// Ticks between two publications of the groups' state (100 ms).
const PUBLISH_TICKS: u64 = 100 / TICK_MS;

/// What a write is answered while the disk is almost full; Redis's prefix for a server that cannot persist.
const DISK_FULL: &[u8] =
    b"-MISCONF Ringfort refuses writes: the disk of the leader is almost full; free space or add a node\r\n";

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
    /// Whether the last writes may be missing, votes included: the terms start far above any that was in use.
    pub is_suspect: bool,
    /// Seed of timeouts.
    pub seed: u64,
    /// Size of a partition's log at which it is compacted.
    pub compact_bytes_min: u64,
    /// Free disk below which writes are refused.
    pub disk_free_min: u64,
}

/// Work for the log thread: it may block. Its outcome goes back by [`WorkerCore::job_done`].
#[derive(Debug)]
pub enum Job<D: Disk> {
    /// Make the log durable.
    Sync(SyncJob<D>),
    /// Make a snapshot of an own group durable.
    Snapshot {
        /// The snapshot.
        job: SnapshotJob<D>,
        /// The group.
        group: u16,
    },
    /// Make a received snapshot durable.
    Received {
        /// The snapshot.
        job: SnapshotJob<D>,
        /// The Raft message that goes with it.
        message: Message,
        /// The group.
        group: u16,
    },
}

/// Outcome of a [`Job`].
#[derive(Debug)]
pub enum JobDone {
    /// The log is durable up to this write.
    Synced(Result<u64, LogError>),
    /// The snapshot of an own group is durable.
    Snapshot(u16, SnapshotHeader, Result<(), LogError>),
    /// A received snapshot is durable.
    Received(u16, SnapshotHeader, Message, Result<(), LogError>),
}

impl<D: Disk> Job<D> {
    /// Does the work; blocks for as long as the disk takes.
    pub fn run(self) -> JobDone {
        match self {
            Self::Sync(job) => {
                let through = job.through();
                JobDone::Synced(job.run().map(|()| through))
            }
            Self::Snapshot { job, group } => {
                let header = job.header().clone();
                JobDone::Snapshot(group, header, job.run())
            }
            Self::Received { job, message, group } => {
                let header = job.header().clone();
                JobDone::Received(group, header, message, job.run())
            }
        }
    }
}

/// A snapshot to be sent to a node: the shell opens a connection and copies the bytes.
#[derive(Debug)]
pub struct SnapshotSend<D: Disk> {
    /// The node.
    pub to: NodeId,
    /// The group.
    pub group: GroupId,
    /// Its incarnation.
    pub incarnation: u32,
    /// The Raft message that goes with it.
    pub message: Message,
    /// The bytes.
    pub reader: SnapshotReader<D>,
}

/// A snapshot that is being received.
#[derive(Debug)]
pub struct SnapshotReceive<D: Disk> {
    group: u16,
    message: Message,
    file: IncomingSnapshot<D>,
}

impl<D: Disk> SnapshotReceive<D> {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// They are damaged, or the disk does not take them: give the transfer up.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        self.file.write(bytes)
    }
}

struct LogReader<D: Disk>(Rc<RefCell<Log<D>>>);

impl<D: Disk> EntryReader for LogReader<D> {
    fn read(&self, group: u16, lo: u64, hi: u64, bytes_max: usize) -> Result<Vec<LogEntry>, String> {
        self.0.borrow().read(group, lo, hi, bytes_max).map_err(|e| e.to_string())
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

/// One worker.
pub struct WorkerCore<D: Disk> {
    options: WorkerOptions,
    shared: Arc<Shared>,
    view: View,
    groups: BTreeMap<u16, Group>,
    log: Rc<RefCell<Log<D>>>,
    snapshots: SnapshotFiles<D>,
    ports: PortTable,
    dirty: Vec<u16>,
    is_dirty: Vec<bool>,
    pending: VecDeque<Pending>,
    jobs: Vec<Job<D>>,
    is_syncing: bool,
    building: Option<(u16, SnapshotWriter<D>)>,
    snapshots_wanted: VecDeque<u16>,
    /// Received snapshots (group, index) that Raft has not judged yet.
    received: Vec<(u16, u64)>,
    ticks: u64,
    is_disk_low: bool,
    is_write_failing: bool,
    /// Tick from which on a write that found no room is tried again.
    write_again_at: u64,
    is_leaving: bool,
    scratch: Vec<u8>,
}

impl<D: Disk> std::fmt::Debug for WorkerCore<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerCore").field("worker", &self.options.worker).finish_non_exhaustive()
    }
}

impl<D: Disk> WorkerCore<D> {
    /// Opens the worker's log and snapshots and starts a replica of every group of `map` that is this worker's.
    ///
    /// # Errors
    /// The data folder cannot be read or is damaged; the sentence says what to do.
    pub fn new(
        options: WorkerOptions,
        shared: Arc<Shared>,
        map: &ClusterMap,
        disk: D,
    ) -> anyhow::Result<Self> {
        let (log, recovered) = Log::open(disk.clone(), options.log)?;
        let snapshots = SnapshotFiles::load(disk)?;
        let log = Rc::new(RefCell::new(log));
        let mut ports = PortTable::new(options.worker);
        ports.map = shared.map();
        let mut core = Self {
            view: View::new(Arc::clone(&shared)),
            groups: BTreeMap::new(),
            log,
            snapshots,
            ports,
            dirty: Vec::new(),
            is_dirty: vec![false; usize::from(map.partitions.get()) + 1],
            pending: VecDeque::new(),
            jobs: Vec::new(),
            is_syncing: false,
            building: None,
            snapshots_wanted: VecDeque::new(),
            received: Vec::new(),
            ticks: 0,
            is_disk_low: false,
            is_write_failing: false,
            write_again_at: 0,
            is_leaving: false,
            scratch: Vec::new(),
            options,
            shared,
        };
        let recovered: BTreeMap<u16, Recovered> = recovered.into_iter().map(|r| (r.group, r)).collect();
        for (id, group) in map.all_groups() {
            if worker_of(id, core.shared.workers) == core.options.worker
                && let Some(replica) = group.replica_on(&core.options.node)
            {
                core.start_group(map, id, replica, recovered.get(&id.0))?;
            }
        }
        core.log.borrow_mut().write()?;
        let job = core.log.borrow_mut().sync_job();
        if let Some(job) = job {
            job.run()?;
        }
        core.publish();
        Ok(core)
    }

    fn start_group(
        &mut self,
        map: &ClusterMap,
        id: GroupId,
        replica: u64,
        recovered: Option<&Recovered>,
    ) -> anyhow::Result<()> {
        let Some(spec) = map.group(id) else { return Ok(()) };
        let identity = Identity { replica, incarnation: spec.incarnation };
        let mut log = self.log.borrow_mut();
        match recovered {
            Some(r) if r.identity != Identity::default() && r.identity != identity => anyhow::bail!(
                "group {id}: the log is of replica {} but the cluster map says {replica}: this data folder is not the one that the cluster knows",
                r.identity.replica
            ),
            Some(_) => {}
            None if self.options.has_run => anyhow::bail!(
                "group {id}: its log is missing although it has run here; this replica must be replaced"
            ),
            None => log.stage_identity(id.0, &identity)?,
        }
        let mut machine = new_machine(map, id);
        let mut mark = recovered.map(|r| r.mark.clone()).unwrap_or_default();
        let mut last_index = recovered.map_or(0, |r| r.last_index);
        let mut terms = recovered.map(|r| r.terms.clone()).unwrap_or_default();
        if let Some(reader) = self.snapshots.open(id.0)? {
            let header = reader.header().clone();
            machine = restore(&machine, reader)?;
            // A crash between the snapshot and the log's mark leaves a snapshot that is ahead of the mark.
            if header.index > mark.index {
                let keep_log = log.term(id.0, header.index) == Some(header.term);
                mark = Mark { index: header.index, term: header.term, conf: header.conf };
                log.stage_mark(id.0, &mark, keep_log)?;
                if keep_log {
                    let keep = terms.iter().rposition(|&(start, _)| start <= mark.index + 1).unwrap_or(0);
                    terms.drain(..keep);
                    if let Some(first) = terms.first_mut() {
                        first.0 = first.0.max(mark.index + 1);
                    }
                    if last_index == mark.index {
                        terms.clear();
                    }
                } else {
                    last_index = header.index;
                    terms.clear();
                }
            }
        }
        anyhow::ensure!(
            machine_index(&self.snapshots, id.0) == mark.index,
            "group {id}: the log starts after entry {} but the snapshot at that entry is missing; \
             start the node once with `ringfort node --rebuild`",
            mark.index
        );
        let mut hard_state = recovered.map_or_else(HardState::default, |r| r.hard_state);
        if self.options.is_suspect && id != GroupId::META && hard_state.term > 0 {
            // A vote may be forgotten, and a term used by somebody whose last entries are gone: leave them all behind.
            hard_state = HardState { term: hard_state.term + SUSPECT_TERMS, vote: 0, ..hard_state };
            log.stage_hard_state(id.0, &hard_state)?;
        }
        drop(log);
        let voters: Vec<u64> = spec.seats.iter().map(|s| s.replica).collect();
        let preferred = spec.replica_on(&spec.leader).unwrap_or(replica);
        let start = GroupStart {
            id,
            incarnation: spec.incarnation,
            peers: spec.seats.iter().map(|s| (s.replica, s.node.clone())).collect(),
            preferred,
            raft: Start {
                group: id.0,
                replica,
                rank: campaign_rank(id, &voters, preferred, replica),
                voters,
                hard_state,
                mark_index: mark.index,
                mark_term: mark.term,
                last_index,
                terms,
                applied: mark.index,
                seed: self.options.seed,
                is_restart: self.options.is_restart && recovered.is_some_and(|r| r.hard_state.term > 0),
            },
            machine,
        };
        let reader = Rc::new(LogReader(Rc::clone(&self.log)));
        let mut group = Group::new(start, reader).map_err(|e| anyhow::anyhow!("group {id}: {e}"))?;
        if group.awaits_first_leader() {
            group.campaign();
        }
        self.groups.insert(id.0, group);
        self.touch(id.0);
        Ok(())
    }

    /// Facts that all workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The replica of a group that is here.
    pub fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id.0)
    }

    /// All replicas that are here.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    fn touch(&mut self, group: u16) {
        if let Some(flag) = self.is_dirty.get_mut(usize::from(group))
            && !std::mem::replace(flag, true)
        {
            self.dirty.push(group);
        }
    }

    // --- Peers -----------------------------------------------------------------------------------------------------

    /// Number of workers of a node, 1 while it is not known.
    pub fn peer_workers(&self, node: &NodeId) -> u16 {
        self.ports.peer_workers.get(node).copied().unwrap_or(1)
    }

    /// A node is reachable and has so many workers.
    pub fn peer_up(&mut self, node: NodeId, workers: u16) {
        self.ports.peer_workers.insert(node, workers);
    }

    /// The link to a node broke: what was on its way may be lost.
    pub fn peer_down(&mut self, node: &NodeId) {
        self.ports.peers.retain(|(id, _), _| id != node);
        for group in self.groups.values_mut() {
            group.unreachable(node);
        }
    }

    /// Takes the body of a Raft frame.
    ///
    /// # Errors
    /// It is malformed: drop the link.
    pub fn raft_frame(&mut self, body: &[u8]) -> Result<(), WireError> {
        let mut r = Reader::new(body, "Raft frame");
        let (id, incarnation) = (r.u16()?, r.u32()?);
        let message = Message::decode(r.rest())?;
        if message.snapshot_index().is_some() {
            return Err(r.malformed()); // snapshots come with their bytes
        }
        if self.is_write_failing && message.is_append() {
            return Ok(()); // there is no room for it; Raft sends again
        }
        if let Some(group) = self.groups.get_mut(&id)
            && group.incarnation() == incarnation
            && group.raft().replica() == message.to()
        {
            group.step(message);
            self.touch(id);
        }
        Ok(())
    }

    /// Takes the frames to be sent to each (node, worker of that node).
    pub fn take_raft_output(&mut self) -> BTreeMap<(NodeId, u16), Vec<u8>> {
        self.ports.peers.retain(|_, buffer| !buffer.is_empty());
        std::mem::take(&mut self.ports.peers)
    }

    // --- Snapshots -------------------------------------------------------------------------------------------------

    /// Takes the snapshots to be sent. Each ends with [`WorkerCore::snapshot_sent`].
    pub fn take_snapshot_sends(&mut self) -> Vec<SnapshotSend<D>> {
        let mut out = Vec::new();
        for (to, group, message) in std::mem::take(&mut self.ports.snapshots) {
            let incarnation = self.groups.get(&group.0).map_or(0, Group::incarnation);
            match self.snapshots.open(group.0) {
                Ok(Some(reader)) if Some(reader.header().index) == message.snapshot_index() => {
                    out.push(SnapshotSend { to, group, incarnation, message, reader });
                }
                // Another one has replaced it meanwhile: Raft will ask again, for what is there then.
                _ => {
                    self.snapshot_sent(group, message.to(), false);
                    if !self.snapshots_wanted.contains(&group.0) {
                        self.snapshots_wanted.push_back(group.0);
                    }
                }
            }
        }
        out
    }

    /// A snapshot was delivered, or could not be.
    pub fn snapshot_sent(&mut self, group: GroupId, replica: u64, is_delivered: bool) {
        if let Some(state) = self.groups.get_mut(&group.0) {
            state.snapshot_sent(replica, is_delivered);
            self.touch(group.0);
        }
    }

    /// Starts to receive a snapshot; `None` when it is not for a replica that is here.
    ///
    /// # Errors
    /// The message is malformed, or the disk takes no file.
    pub fn receive_snapshot(
        &mut self,
        group: u16,
        incarnation: u32,
        message: &[u8],
    ) -> anyhow::Result<Option<SnapshotReceive<D>>> {
        let message = Message::decode(message)?;
        let is_ours = self
            .groups
            .get(&group)
            .is_some_and(|g| g.incarnation() == incarnation && g.raft().replica() == message.to());
        if !is_ours || message.snapshot_index().is_none() {
            return Ok(None);
        }
        let file = self.snapshots.create_incoming(group)?;
        Ok(Some(SnapshotReceive { group, message, file }))
    }

    /// All bytes of a snapshot have come. Returns its group and index.
    ///
    /// # Errors
    /// They are incomplete or damaged.
    pub fn snapshot_received(&mut self, receive: SnapshotReceive<D>) -> anyhow::Result<(u16, u64)> {
        let SnapshotReceive { group, message, file } = receive;
        let job = self.snapshots.finish_incoming(file)?;
        anyhow::ensure!(
            Some(job.header().index) == message.snapshot_index() && job.header().group == group,
            "the snapshot is not the one that was announced"
        );
        let index = job.header().index;
        self.jobs.push(Job::Received { job, message, group });
        Ok((group, index))
    }

    /// Begins a snapshot of every group that wants one, one after the other, and writes the next bytes of it.
    fn build_snapshot(&mut self) -> Result<(), LogError> {
        if self.building.is_none() {
            let Some(id) = self.snapshots_wanted.pop_front() else { return Ok(()) };
            let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
            let incarnation = group.incarnation();
            let Some((index, term)) = group.snapshot_begin() else { return Ok(()) };
            let header = SnapshotHeader {
                group: id,
                feature_level: FEATURE_LEVEL,
                incarnation,
                index,
                term,
                conf: Bytes::new(),
            };
            match self.snapshots.create(header) {
                Ok(writer) => self.building = Some((id, writer)),
                Err(error) => {
                    group.snapshot_abort();
                    return no_room(error);
                }
            }
        }
        let Some((id, writer)) = &mut self.building else { return Ok(()) };
        let id = *id;
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let mut bytes = Vec::new();
        let is_done = group.snapshot_next(SNAPSHOT_STEP_BYTES, &mut bytes);
        let written = bytes.chunks(crate::log::CHUNK_BYTES_MAX).try_for_each(|chunk| writer.chunk(chunk));
        if let Err(error) = written {
            group.snapshot_abort();
            self.building = None;
            return no_room(error);
        }
        if is_done && let Some((_, writer)) = self.building.take() {
            match writer.finish() {
                Ok(job) => self.jobs.push(Job::Snapshot { job, group: id }),
                Err(error) => {
                    if let Some(group) = self.groups.get_mut(&id) {
                        group.snapshot_abort();
                    }
                    return no_room(error);
                }
            }
        }
        Ok(())
    }

    /// Whether a snapshot is being written, so that turns must go on without input.
    pub fn has_background_work(&self) -> bool {
        self.building.is_some() || !self.snapshots_wanted.is_empty()
    }

    fn install(&mut self, id: u16, index: u64, term: u64) -> anyhow::Result<()> {
        self.snapshots.complete(id, index)?;
        self.received.retain(|&received| received != (id, index));
        let reader = self
            .snapshots
            .open(id)?
            .filter(|r| r.header().index == index && r.header().term == term)
            .ok_or_else(|| {
                anyhow::anyhow!("group {id}: the snapshot at {index} that Raft accepted is not on disk")
            })?;
        let conf = reader.header().conf.clone();
        if self.building.as_ref().is_some_and(|(building, _)| *building == id) {
            self.building = None;
        }
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        group.snapshot_abort();
        let machine = restore(group.machine(), reader)?;
        group.install(machine);
        self.log.borrow_mut().stage_mark(id, &Mark { index, term, conf }, false)?;
        Ok(())
    }

    // --- Proxies' links --------------------------------------------------------------------------------------------

    /// A proxy's link opened.
    pub fn link_open(&mut self) -> u64 {
        self.ports.links.insert(Link::default())
    }

    /// A proxy's link closed. What it asked for goes on; the answers are dropped.
    pub fn link_close(&mut self, link: u64) {
        self.ports.links.remove(link);
    }

    /// Takes bytes of a proxy's link.
    ///
    /// # Errors
    /// They are malformed, or beyond the link's credit: drop the link.
    pub fn link_data(&mut self, link: u64, bytes: &[u8], now: Now) -> Result<(), WireError> {
        let Some(state) = self.ports.links.get_mut(link) else { return Ok(()) };
        let mut input = std::mem::take(&mut state.input);
        input.extend_from_slice(bytes);
        let mut start = 0;
        while let Some(frame) = frame::next(&input[start..])? {
            if frame.kind == Kind::Request {
                self.request(link, &Request::decode(frame.body)?, now)?;
            }
            start += frame.consumed;
        }
        input.drain(..start);
        if let Some(state) = self.ports.links.get_mut(link) {
            state.input = input;
        }
        Ok(())
    }

    fn request(&mut self, link: u64, request: &Request<'_>, now: Now) -> Result<(), WireError> {
        let Some(state) = self.ports.links.get_mut(link) else { return Ok(()) };
        state.unanswered += 1;
        if state.unanswered > CREDIT_REQUESTS {
            return Err(WireError::Malformed("use of the link's credit"));
        }
        let origin = Origin::Link { link, id: request.id };
        let partitions = self.view.map().map_or(0, |m| m.partitions.get());
        if request.partition.0 >= partitions {
            self.ports.reply(origin, Status::NotHere(self.shared.epoch()));
            return Ok(());
        }
        let id = GroupId::of(request.partition);
        let submission = Submission {
            origin,
            session: request.session,
            seq: request.seq,
            acked: request.acked,
            is_after_queued: false,
            body: request.command,
        };
        self.shared.commands.fetch_add(1, Ordering::Relaxed);
        match request.kind {
            RequestKind::Read => self.submit_read(id, submission, now),
            RequestKind::Write => self.submit_write(id, OpKind::Command, submission),
            RequestKind::OpenSession => self.submit_write(id, OpKind::OpenSession, submission),
            RequestKind::Skip => self.submit_write(id, OpKind::Skip, submission),
        }
        Ok(())
    }

    fn submit_read(&mut self, id: GroupId, submission: Submission<'_>, now: Now) {
        match self.groups.get_mut(&id.0) {
            Some(group) => group.read(submission, now, &mut self.ports),
            None => self.ports.reply(submission.origin, Status::NotHere(self.shared.epoch())),
        }
        self.touch(id.0);
    }

    fn submit_write(&mut self, id: GroupId, kind: OpKind, submission: Submission<'_>) {
        match self.groups.get_mut(&id.0) {
            Some(group) if group.raft().is_leader() && (self.is_disk_low || self.is_write_failing) => {
                self.ports.reply(submission.origin, Status::Refused(DISK_FULL));
            }
            Some(group) => group.write(kind, submission, &mut self.ports),
            None => self.ports.reply(submission.origin, Status::NotHere(self.shared.epoch())),
        }
        self.touch(id.0);
    }

    /// Takes what is to be sent on a link.
    pub fn take_link_output(&mut self, link: u64) -> Vec<u8> {
        self.ports.links.get_mut(link).map(|l| std::mem::take(&mut l.output)).unwrap_or_default()
    }

    /// Links that have something to send since the last call.
    pub fn take_touched_links(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.ports.touched_links)
    }

    // --- Clients of the node's own port ----------------------------------------------------------------------------

    /// A client connected.
    pub fn client_open(&mut self, id: u64, addr: String) -> u64 {
        let session = Session::new(Mode::Node, id, addr);
        self.ports.clients.insert(Client { session, writes: 0, write_tickets: VecDeque::new() })
    }

    /// A client is gone. What it asked for goes on; the answers are dropped.
    pub fn client_close(&mut self, client: u64) {
        self.ports.clients.remove(client);
    }

    /// Takes bytes of a client.
    pub fn client_data(&mut self, client: u64, bytes: &[u8], now: Now) {
        if let Some(state) = self.ports.clients.get_mut(client) {
            state.session.push_input(bytes);
        }
        self.pump(client, now);
    }

    /// Executes the commands of a client that are decoded and within its bounds.
    fn pump(&mut self, client: u64, now: Now) {
        let mut body = std::mem::take(&mut self.scratch);
        while let Some(state) = self.ports.clients.get_mut(client) {
            let Some(ask) = state.session.next(&self.view) else { break };
            let (ticket, spec, slots) = (ask.ticket, ask.spec, ask.slots);
            body.clear();
            let argc = ask.args.len();
            CommandBody::encode(
                &mut body,
                spec.command as u16,
                ask.protocol,
                (1..argc).map(|i| ask.args.get(i)),
            );
            self.shared.commands.fetch_add(1, Ordering::Relaxed);
            let is_after_queued = state.writes > 0;
            if spec.is_write {
                state.writes += 1;
                state.write_tickets.push_back(ticket);
            }
            let worker = self.options.worker;
            match slots {
                Slots::One(slot) => {
                    let Some(map) = self.view.map() else { continue };
                    let group = GroupId::of(map.partitions.of(slot));
                    let origin = Origin::Client { worker, client, ticket, slot };
                    self.execute(origin, group, spec.is_write, is_after_queued, &body, now);
                }
                Slots::None | Slots::Many => {
                    let origin = Origin::Client { worker, client, ticket, slot: Slot(0) };
                    let gather = self.ports.gather(usize::from(self.shared.workers), origin);
                    for other in (0..self.shared.workers).filter(|&w| w != worker) {
                        let body = body.clone();
                        let message =
                            WorkerMessage::Everywhere { origin: gather, is_write: spec.is_write, body };
                        self.ports.workers.push((other, message));
                    }
                    self.execute_everywhere(gather, spec.is_write, &body, now);
                }
            }
        }
        self.scratch = body;
        self.ports.touched_clients.push(client);
    }

    /// Executes a command of a client of this node on the worker that owns the partition.
    fn execute(
        &mut self,
        origin: Origin,
        group: GroupId,
        is_write: bool,
        is_after_queued: bool,
        body: &[u8],
        now: Now,
    ) {
        let owner = worker_of(group, self.shared.workers);
        if owner != self.options.worker {
            let message =
                WorkerMessage::Command { origin, group, is_write, is_after_queued, body: body.to_vec() };
            self.ports.workers.push((owner, message));
            return;
        }
        let submission = Submission { origin, session: 0, seq: 0, acked: 0, is_after_queued, body };
        if is_write {
            self.submit_write(group, OpKind::Command, submission);
        } else {
            self.submit_read(group, submission, now);
        }
    }

    /// Executes a command on every partition that is led here, and answers once.
    fn execute_everywhere(&mut self, origin: Origin, is_write: bool, body: &[u8], now: Now) {
        let led: Vec<GroupId> = self
            .groups
            .values()
            .filter(|g| g.id() != GroupId::META && g.raft().is_leader())
            .map(Group::id)
            .collect();
        if led.is_empty() {
            let is_sum = CommandBody::decode(body).is_ok_and(|c| !is_write && c.protocol <= Protocol::Resp3);
            self.ports.reply_bytes(origin, if is_sum { b":0\r\n" } else { b"+OK\r\n" });
            return;
        }
        let gather = self.ports.gather(led.len(), origin);
        for group in led {
            self.execute(gather, group, is_write, true, body, now);
        }
    }

    /// Bytes to be sent to a client, and whether its connection ends after them. Call [`WorkerCore::client_sent`] with
    /// what was sent.
    pub fn client_output(&mut self, client: u64) -> Option<(&[u8], bool)> {
        let state = self.ports.clients.get_mut(client)?;
        let is_over = state.session.is_over();
        Some((state.session.output(), is_over))
    }

    /// So much was sent to a client, which may let it go on.
    pub fn client_sent(&mut self, client: u64, count: usize, now: Now) {
        let Some(state) = self.ports.clients.get_mut(client) else { return };
        state.session.sent(count);
        if state.session.wants_next() {
            self.pump(client, now);
        }
    }

    /// Whether the client's socket should be read.
    pub fn client_wants_input(&mut self, client: u64) -> bool {
        self.ports.clients.get_mut(client).is_some_and(|c| c.session.wants_input())
    }

    /// Clients that may have something to send, or may go on, since the last call.
    pub fn take_touched_clients(&mut self, now: Now) -> Vec<u64> {
        let mut touched = std::mem::take(&mut self.ports.touched_clients);
        touched.sort_unstable();
        touched.dedup();
        for &client in &touched {
            if self.ports.clients.get_mut(client).is_some_and(|c| c.session.wants_next()) {
                self.pump(client, now);
            }
        }
        self.ports.touched_clients.clear();
        touched
    }

    /// Number of clients here.
    pub fn clients_len(&self) -> usize {
        self.ports.clients.len()
    }

    // --- Other workers ---------------------------------------------------------------------------------------------

    /// Takes a message of another worker of this node.
    pub fn worker_message(&mut self, message: WorkerMessage, now: Now) {
        match message {
            WorkerMessage::Command { origin, group, is_write, is_after_queued, body } => {
                self.execute(origin, group, is_write, is_after_queued, &body, now);
            }
            WorkerMessage::Everywhere { origin, is_write, body } => {
                self.execute_everywhere(origin, is_write, &body, now);
            }
            WorkerMessage::ClientReply { client, ticket, reply } => {
                self.ports.client_reply(client, ticket, &reply)
            }
            WorkerMessage::GatherReply { gather, reply } => self.ports.gather_reply(gather, &reply),
        }
    }

    /// Takes the messages for other workers.
    pub fn take_worker_output(&mut self) -> Vec<(u16, WorkerMessage)> {
        std::mem::take(&mut self.ports.workers)
    }

    // --- The turn --------------------------------------------------------------------------------------------------

    /// Whether a turn has something to do.
    pub fn wants_turn(&self) -> bool {
        !self.dirty.is_empty() || self.has_background_work()
    }

    /// Does everything that the inputs since the last turn ask for; see the module's head.
    ///
    /// # Errors
    /// The replica cannot go on (damaged data, a failed sync): the process must stop.
    pub fn turn(&mut self, clock: &dyn Clock) -> anyhow::Result<()> {
        self.view.refresh();
        if self.ports.map.as_ref().map_or(0, |m| m.epoch) != self.shared.epoch() {
            self.ports.map = self.view.cluster_map().cloned();
        }
        let now = clock.now();
        let mut touched = Vec::new();
        for _ in 0..ROUNDS_MAX {
            if self.dirty.is_empty() {
                break;
            }
            let dirty = std::mem::take(&mut self.dirty);
            for &id in &dirty {
                self.is_dirty[usize::from(id)] = false;
                self.drive(id, now)?;
            }
            touched.extend(dirty);
            self.write_log()?;
        }
        touched.sort_unstable();
        touched.dedup();
        for &id in &touched {
            if let Some(group) = self.groups.get_mut(&id) {
                group.serve_reads(now, &mut self.ports);
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
            if let Some(group) = self.groups.get_mut(&id)
                && group.has_done_reads()
            {
                group.finish_reads(after, &mut self.ports);
            }
        }
        self.build_snapshot()?;
        Ok(())
    }

    fn drive(&mut self, id: u16, now: Now) -> anyhow::Result<()> {
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        group.propose(now, &mut self.ports);
        let ready = group.take_ready(&mut self.ports).map_err(anyhow::Error::msg)?;
        if let Some((index, term)) = ready.as_ref().and_then(|(_, work)| work.install) {
            self.install(id, index, term)?;
        }
        if let Some(at) = self.received.iter().position(|&(group, _)| group == id) {
            // Raft has seen it and did not want it: it knows better.
            let (_, index) = self.received.swap_remove(at);
            self.snapshots.discard(id, index)?;
        }
        let Some((number, work)) = ready else { return Ok(()) };
        let mut log = self.log.borrow_mut();
        if !work.entries.is_empty() {
            log.stage_entries(id, &work.entries)?;
        }
        if let Some(state) = work.hard_state {
            log.stage_hard_state(id, &state)?;
        }
        drop(log);
        // An empty piece of work that nothing is ahead of waits for no disk.
        if work.is_empty() && !self.pending.iter().any(|p| p.group == id) {
            if let Some(group) = self.groups.get_mut(&id) {
                group.persisted(number, &mut self.ports);
            }
        } else {
            self.pending.push_back(Pending { group: id, number, write: None });
        }
        self.touch(id);
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
        if self.pending.iter().any(|p| p.write.is_some()) {
            self.sync();
        }
        Ok(())
    }

    /// Tells the groups what has become as durable as their mode asks.
    fn release(&mut self) {
        let synced = self.log.borrow().synced();
        let is_fsync = self.view.map().is_some_and(|m| m.fsync);
        let mut blocked: Vec<u16> = Vec::new();
        let mut rest = VecDeque::new();
        for pending in std::mem::take(&mut self.pending) {
            let needs_sync = is_fsync || pending.group == GroupId::META.0;
            let is_durable = pending.write.is_some_and(|w| !needs_sync || w <= synced);
            if !is_durable || blocked.contains(&pending.group) {
                blocked.push(pending.group);
                rest.push_back(pending);
                continue;
            }
            if let Some(group) = self.groups.get_mut(&pending.group) {
                group.persisted(pending.number, &mut self.ports);
                self.touch(pending.group);
            }
        }
        self.pending = rest;
    }

    fn sync(&mut self) {
        if !self.is_syncing
            && let Some(job) = self.log.borrow_mut().sync_job()
        {
            self.is_syncing = true;
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
    pub fn job_done(&mut self, done: JobDone) -> anyhow::Result<()> {
        match done {
            JobDone::Synced(result) => {
                result?;
                self.is_syncing = false;
                self.release();
                if !self.pending.is_empty() && self.pending.iter().any(|p| p.write.is_some()) {
                    self.sync();
                }
            }
            JobDone::Snapshot(id, header, result) => {
                let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
                if let Err(error) = result {
                    group.snapshot_abort();
                    tracing::warn!(group = id, %error, "a snapshot could not be made durable");
                    return Ok(());
                }
                if header.index <= group.raft().mark_index() {
                    // A received one overtook it.
                    self.snapshots.discard(id, header.index)?;
                    return Ok(());
                }
                self.snapshots.complete(id, header.index)?;
                // Only now may the log before it go.
                let mark = Mark { index: header.index, term: header.term, conf: header.conf };
                self.log.borrow_mut().stage_mark(id, &mark, true)?;
                group.compacted(header.index, header.term);
                self.touch(id);
            }
            JobDone::Received(id, header, message, result) => {
                if let Err(error) = result {
                    tracing::warn!(group = id, %error, "a received snapshot could not be made durable");
                    return Ok(());
                }
                // It becomes the current one when Raft accepts it; until then the older one stays.
                if let Some(group) = self.groups.get_mut(&id) {
                    group.step(message);
                    self.received.push((id, header.index));
                    self.touch(id);
                }
            }
        }
        Ok(())
    }

    /// Advances the clock by one tick. Ticks never burst: after a stall there is one, not the missed ones.
    ///
    /// # Errors
    /// The log cannot be maintained: the process must stop.
    pub fn tick(&mut self, now: Now) -> anyhow::Result<()> {
        self.ticks += 1;
        let ids: Vec<u16> = self.groups.keys().copied().collect();
        for &id in &ids {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let mut is_busy = group.tick();
            if self.ticks.is_multiple_of(FIRST_CAMPAIGN_TICKS) && group.awaits_first_leader() {
                // The links of a new cluster come up one by one; nobody else leads, so ask again soon.
                group.campaign();
                is_busy = true;
            }
            if self.ticks.is_multiple_of(EXPIRE_TICKS) {
                group.expire(now);
                is_busy |= group.has_proposable();
            }
            if is_busy {
                self.touch(id);
            }
        }
        if self.is_write_failing {
            self.write_log()?;
        }
        if (self.is_leaving || self.is_write_failing) && self.ticks.is_multiple_of(HAND_OVER_TICKS) {
            self.hand_over();
        }
        if !self.is_leaving && self.ticks.is_multiple_of(PUBLISH_TICKS) {
            // One at a time: a return of leadership costs its partition a few milliseconds.
            if let Some(group) =
                self.groups.values_mut().find_map(|g| g.transfer_to_preferred().then(|| g.id().0))
            {
                self.touch(group);
            }
        }
        if self.ticks.is_multiple_of(PUBLISH_TICKS) {
            self.publish();
            // Frees dead segments, a bounded piece at a time, at up to 10 MiB/s.
            if !self.log.borrow().has_staged() {
                let maintained = self.log.borrow_mut().maintain();
                maintained.or_else(no_room)?;
            }
        }
        if self.ticks.is_multiple_of(HOUSEKEEPING_TICKS) {
            self.housekeeping()?;
        }
        Ok(())
    }

    fn housekeeping(&mut self) -> anyhow::Result<()> {
        let free = self.log.borrow().disk_free();
        let is_low = free.is_ok_and(|free| free < self.options.disk_free_min);
        if is_low != self.is_disk_low {
            self.is_disk_low = is_low;
            if is_low {
                tracing::error!("the disk is almost full: writes are refused until there is room");
            } else {
                tracing::info!("the disk has room again: writes are accepted");
            }
        }
        for (&id, group) in &self.groups {
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

    fn publish(&self) {
        self.shared.publish(self.options.worker, self.groups.values().map(Group::status).collect());
    }

    /// Begins to hand every leadership over, for a planned stop; repeated by ticks until it is done.
    pub fn leave(&mut self) {
        self.is_leaving = true;
        self.hand_over();
    }

    fn hand_over(&mut self) {
        let ids: Vec<u16> = self.groups.keys().copied().collect();
        for id in ids {
            if self.groups.get_mut(&id).is_some_and(|g| g.transfer(None)) {
                self.touch(id);
            }
        }
    }

    /// Whether no group is led here that somebody else could lead.
    pub fn has_left(&self) -> bool {
        !self.groups.values().any(|g| g.raft().is_leader() && !g.raft().is_singleton())
    }

    /// Follows the meta group's map, and gives it its first one.
    fn follow_meta(&mut self) {
        let Some(group) = self.groups.get_mut(&GroupId::META.0) else { return };
        let Machine::Meta(machine) = group.machine() else { return };
        if let Some(map) = machine.map() {
            self.shared.set_map(map);
        } else if group.raft().is_leader()
            && !group.has_proposable()
            && !group.has_inflight()
            && let Some(map) = self.shared.map()
        {
            let body = Change { expected_epoch: 0, map: (*map).clone() }.encode();
            let submission = Submission {
                origin: Origin::None,
                session: 0,
                seq: 0,
                acked: 0,
                is_after_queued: false,
                body: &body,
            };
            group.write(OpKind::Command, submission, &mut self.ports);
            self.touch(GroupId::META.0);
        }
    }
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

fn new_machine(map: &ClusterMap, id: GroupId) -> Machine {
    match id.partition() {
        None => Machine::Meta(Box::default()),
        Some(partition) => {
            let (first, last) = map.partitions.slots(partition);
            Machine::Partition(Box::new(PartitionMachine::new(first.0, last.0)))
        }
    }
}

fn machine_index<D: Disk>(snapshots: &SnapshotFiles<D>, group: u16) -> u64 {
    snapshots.current().find(|(id, _)| *id == group).map_or(0, |(_, index)| index)
}

/// Reads a snapshot into a fresh state of the same kind.
fn restore<D: Disk>(kind: &Machine, mut reader: SnapshotReader<D>) -> anyhow::Result<Machine> {
    match kind {
        Machine::Partition(machine) => {
            let mut restorer = machine.restorer();
            while let Some(chunk) = reader.next_chunk()? {
                restorer.push(&chunk).map_err(anyhow::Error::msg)?;
            }
            Ok(Machine::Partition(Box::new(restorer.finish().map_err(anyhow::Error::msg)?)))
        }
        Machine::Meta(_) => {
            let mut bytes = Vec::new();
            while let Some(chunk) = reader.next_chunk()? {
                bytes.extend_from_slice(&chunk);
            }
            Ok(Machine::Meta(Box::new(MetaMachine::restore(&bytes).map_err(anyhow::Error::msg)?)))
        }
    }
}

/// The order in which a group's voters campaign: the preferred leader first, the others in an order that differs from
/// group to group, so that a dead node's leaderships spread over all others.
fn campaign_rank(group: GroupId, voters: &[u64], preferred: u64, replica: u64) -> usize {
    let mut order = voters.to_vec();
    order.sort_by_key(|&v| {
        let mut key = [0u8; 10];
        key[..2].copy_from_slice(&group.0.to_le_bytes());
        key[2..].copy_from_slice(&v.to_le_bytes());
        (v != preferred, twox_hash::XxHash3_64::oneshot(&key))
    });
    order.iter().position(|&v| v == replica).unwrap_or(0)
}
