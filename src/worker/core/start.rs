//! A worker's start: its log, its snapshots, and a replica of every group that is its own.

use super::asides::Standby;
use super::disk_watch::DiskWatch;
use super::groups::Groups;
use super::members::{Found, has_left, judge};
use super::reads::ReadBatch;
use super::time::Time;
use super::{LogReader, WorkerCore, WorkerOptions, read_age_us_max, snapshots::Restore};
use crate::log::{Disk, HardState, Identity, Log, Mark, Recovered, SnapshotFiles, Standing};
use crate::shard::machine::PartitionMachine;
use crate::shard::membership::Membership;
use crate::shard::raft::Start;
use crate::shard::reads::ExecutedReads;
use crate::shard::{Group, GroupStart, Machine, Seats};
use crate::worker::ports::{PortTable, worker_of};
use crate::worker::shared::{Shared, View};
use crate::worker::status::WorkerStatus;
use ringfort_proxy::errands::Errands;
use ringfort_proxy::random::Random;
use ringfort_wire::map::{MapGroup, MapSeat};
use ringfort_wire::{ClusterMap, GroupId};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

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
        let is_log_lost = options.has_run && !has_log(&disk)?;
        let (log, recovered) = Log::open(disk.clone(), options.log)?;
        let snapshots = SnapshotFiles::load(disk)?;
        let log = Rc::new(RefCell::new(log));
        let mut ports = PortTable::new(options.worker, options.limits);
        // A newer map is followed in the first turn.
        ports.map = shared.map().filter(|shared| shared.epoch == map.epoch);
        let mut core = Self {
            view: View::new(Arc::clone(&shared)),
            clients: shared.clients.worker(usize::from(options.worker)),
            paused_clients: Vec::new(),
            groups: Groups::default(),
            log,
            snapshots,
            ports,
            dirty: Vec::new(),
            touched: Vec::new(),
            taken: Vec::new(),
            is_dirty: vec![false; usize::from(map.partitions.get()) + 1],
            pending: VecDeque::new(),
            jobs: Vec::new(),
            disk: DiskWatch::default(),
            building: None,
            spare_piece: Vec::new(),
            asides: BTreeMap::new(),
            waits: Default::default(),
            watch: Default::default(),
            heirs: VecDeque::new(),
            ending: Vec::new(),
            is_log_lost,
            snapshots_wanted: VecDeque::new(),
            restoring: Arc::default(),
            received: BTreeMap::new(),
            arrived: Vec::new(),
            gone: Vec::new(),
            is_starting: true,
            ticks: 0,
            time: Time::default(),
            status: WorkerStatus::default(),
            read_age_us_max: read_age_us_max(map),
            rated: (0, 0),
            is_disk_low: false,
            is_write_failing: false,
            write_again_at: 0,
            maintain_at: 0,
            unreadable: None,
            is_leaving: false,
            scratch: Vec::new(),
            batch: ReadBatch::default(),
            executed: ExecutedReads::default(),
            errands: Errands::default(),
            random: Random::new(options.seed),
            digests_round: 0,
            options,
            shared,
        };
        let mut recovered = core.clear_left(map, recovered)?;
        if core.options.is_suspect {
            core.suspect(&mut recovered)?;
        }
        core.write_durably()?;
        let recovered = recovered.into_iter().map(|r| (r.group, r)).collect::<BTreeMap<_, _>>();
        for (id, _) in map.all_groups() {
            core.start_seated(map, id, recovered.get(&id.0))?;
        }
        core.is_starting = false;
        core.write_durably()?;
        core.publish();
        Ok(core)
    }

    /// Removes what is left of replicas that the map has forgotten; returns the others.
    fn clear_left(&mut self, map: &ClusterMap, recovered: Vec<Recovered>) -> anyhow::Result<Vec<Recovered>> {
        let (left, stays): (Vec<_>, Vec<_>) = recovered.into_iter().partition(|r| has_left(map, r));
        for r in &left {
            tracing::info!(group = r.group, replica = r.identity.replica, "the replica has left its group");
            self.log.borrow_mut().stage_remove_group(r.group)?;
        }
        self.write_durably()?;
        let snapshots: Vec<u16> = self.snapshots.current().map(|(group, _)| group).collect();
        for id in snapshots {
            let is_founder = map.group(GroupId(id)).is_some_and(|group| {
                group.replica_on(&self.options.node).is_some_and(|r| group.founders().contains(&r))
            });
            // A crash came between the removal of the log and that of the snapshot; if not, the log is lost.
            if !stays.iter().any(|r| r.group == id) && !is_founder && !self.is_log_lost {
                self.snapshots.remove(id)?;
            }
        }
        Ok(stays)
    }

    /// Starts the replica of a group that is to run on this worker, if there is one.
    pub(super) fn start_seated(
        &mut self,
        map: &ClusterMap,
        id: GroupId,
        recovered: Option<&Recovered>,
    ) -> anyhow::Result<()> {
        if worker_of(id, self.shared.workers) != self.options.worker {
            return Ok(());
        }
        // The log says which replica is here: one that leaves still runs until the map forgets it.
        let replica = match recovered {
            Some(r) if r.identity != Identity::default() => match judge(map, id, &r.identity) {
                Found::Seated => Some(r.identity.replica),
                // What was read of the log is durable.
                Found::Aside => {
                    self.stand_by(r, Some(0));
                    return Ok(());
                }
                Found::Heir => {
                    self.stand_by(r, Some(0));
                    self.heirs.push_back(id.0);
                    return Ok(());
                }
                Found::Left | Found::Unknown => None,
            },
            _ => map.group(id).and_then(|group| group.replica_on(&self.options.node)),
        };
        let Some(replica) = replica else { return Ok(()) };
        let spec = map.group(id).filter(|_| recovered.is_none() && !self.is_log_lost);
        let begins_empty = |spec: &MapGroup| {
            spec.founders() == [replica]
                && spec.recovery.as_ref().is_some_and(|r| r.is_awaited && r.from.is_none())
        };
        if spec.is_some_and(begins_empty) {
            // All that the group had is given up.
            self.convert(map, id, None)?;
            self.write_durably()?;
            let founder = self.log.borrow().group(id.0);
            return self.start_group(map, id, replica, founder.as_ref());
        }
        // Its log went when a newer map than the one that was kept gave its seat to another.
        if spec.is_some_and(|spec| self.options.has_run && spec.founders().contains(&replica)) {
            tracing::warn!(
                group = %id, replica,
                "this replica has no log any more, and does not run: a newer cluster map has another in its place"
            );
            return Ok(());
        }
        // Or it is a later one, whose log went so, or never became durable: what it promised is forgotten, so it stands aside
        // for a new one.
        if spec.is_some() && self.is_starting && self.options.has_run && id != GroupId::META {
            let identity = Identity {
                replica,
                incarnation: spec.map_or(0, |s| s.incarnation),
                standing: Standing::Suspect,
            };
            tracing::warn!(group = %id, replica, "this replica has no log: it stands aside until a new one takes its seat");
            self.asides.insert(id.0, Standby { identity, end: (0, 0), write: Some(0) });
            return Ok(());
        }
        self.start_group(map, id, replica, recovered)
    }

    /// Writes what is staged and waits until it is durable.
    fn write_durably(&mut self) -> anyhow::Result<()> {
        self.log.borrow_mut().write()?;
        let job = self.log.borrow_mut().sync_job();
        job.map_or(Ok(()), |job| job.run().map_err(anyhow::Error::from))
    }

    fn start_group(
        &mut self,
        map: &ClusterMap,
        id: GroupId,
        replica: u64,
        recovered: Option<&Recovered>,
    ) -> anyhow::Result<()> {
        let Some(spec) = map.group(id) else { return Ok(()) };
        let identity = Identity { replica, incarnation: spec.incarnation, ..Identity::default() };
        let mut log = self.log.borrow_mut();
        match recovered {
            Some(r) if r.identity != Identity::default() && r.identity != identity => anyhow::bail!(
                "group {id}: the log is of replica {} but the cluster map says {replica}: this data folder is not the one that the cluster knows",
                r.identity.replica
            ),
            Some(_) => {}
            None if self.is_log_lost => {
                anyhow::bail!(
                    "group {id}: its log is missing although it has run here: what this replica promised is lost; stop the \
                     node, remove its whole data folder and start it again, so that it is seeded from the others"
                )
            }
            None => log.stage_identity(id.0, &identity)?,
        }
        let mut machine = new_machine(map, id);
        let mut mark = recovered.map(|r| r.mark.clone()).unwrap_or_default();
        let mut last_index = recovered.map_or(0, |r| r.last_index);
        let mut terms = recovered.map(|r| r.terms.clone()).unwrap_or_default();
        if let Some(reader) = self.snapshots.open(id.0)? {
            let header = reader.header().clone();
            machine = Restore::of(&machine).run(reader)?;
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
            "group {id}: the log starts after entry {} but the snapshot at that entry is missing: this data folder is \
             damaged, and the node must not run with it",
            mark.index
        );
        let hard_state = recovered.map_or_else(HardState::default, |r| r.hard_state);
        drop(log);
        let seats = seats_of(map, id, spec, replica);
        let mark_index = mark.index;
        let members = Membership::decode(&mark.conf).map_err(|e| anyhow::anyhow!("group {id}: {e}"))?;
        let start = GroupStart {
            id,
            incarnation: spec.incarnation,
            raft: Start {
                group: id.0,
                replica,
                rank: seats.rank,
                membership: members.unwrap_or_else(|| Membership::founded(&spec.founders())),
                hard_state,
                mark_index: mark.index,
                mark_term: mark.term,
                last_index,
                terms,
                applied: mark.index,
                seed: self.options.seed,
                is_restart: self.options.is_restart && recovered.is_some_and(|r| r.hard_state.term > 0),
                limits: self.options.limits,
            },
            seats,
            machine,
        };
        let reader = Rc::new(LogReader(Rc::clone(&self.log)));
        let mut group = Group::new(start, reader).map_err(|e| anyhow::anyhow!("group {id}: {e}"))?;
        // Of a group that starts anew nobody else can be the first leader.
        let is_first = group.raft().is_singleton() && last_index == mark_index && spec.recovery.is_some();
        if group.awaits_first_leader() || is_first {
            group.campaign();
        }
        self.groups.insert(group);
        self.touch(id.0);
        Ok(())
    }
}

pub(super) fn new_machine(map: &ClusterMap, id: GroupId) -> Machine {
    match id.partition() {
        None => Machine::Meta(Box::default()),
        Some(partition) => {
            let (first, last) = map.partitions.slots(partition);
            Machine::Partition(Box::new(PartitionMachine::new(first.0, last.0)))
        }
    }
}

pub(super) fn machine_index<D: Disk>(snapshots: &SnapshotFiles<D>, group: u16) -> u64 {
    snapshots.current().find(|(id, _)| *id == group).map_or(0, |(_, index)| index)
}

fn has_log<D: Disk>(disk: &D) -> anyhow::Result<bool> {
    Ok(disk.list()?.iter().any(|name| name.ends_with(".seg")))
}

/// What a map says of a group to its replica `replica`.
pub(super) fn seats_of(map: &ClusterMap, id: GroupId, spec: &MapGroup, replica: u64) -> Seats {
    let wanted: Vec<u64> = spec.seats.iter().map(|s| s.replica).collect();
    let preferred = spec.replica_on(spec.wanted_leader()).unwrap_or(0);
    let is_drained = |seat: &&MapSeat| map.node(&seat.node).is_some_and(|node| node.is_drained);
    let drained: Vec<u64> = spec.peers().filter(is_drained).map(|seat| seat.replica).collect();
    Seats {
        epoch: map.epoch,
        rank: campaign_rank(id, &wanted, preferred, &drained, replica),
        peers: spec.peers().map(|s| (s.replica, s.node.clone())).collect(),
        preferred,
        drained,
        wanted,
        joining: spec.joining.clone(),
        returned: spec.returned.clone(),
        turned_epoch: spec.turned_epoch,
    }
}

/// The order in which a group's voters campaign: the preferred leader first, the others in an order that differs from
/// group to group, so that a dead node's leaderships spread over all others; those on drained nodes last.
fn campaign_rank(group: GroupId, voters: &[u64], preferred: u64, drained: &[u64], replica: u64) -> usize {
    let mut order = voters.to_vec();
    order.sort_by_key(|&v| {
        let mut key = [0u8; 10];
        key[..2].copy_from_slice(&group.0.to_le_bytes());
        key[2..].copy_from_slice(&v.to_le_bytes());
        (v != preferred, drained.contains(&v), twox_hash::XxHash3_64::oneshot(&key))
    });
    // One that leaves comes last.
    order.iter().position(|&v| v == replica).unwrap_or(order.len())
}
