//! A worker's start: its log, its snapshots, and a replica of every group that is its own.

use super::{LogReader, WorkerCore, WorkerOptions, snapshots::restore};
use crate::log::{Disk, HardState, Identity, Log, Mark, Recovered, SnapshotFiles};
use crate::shard::machine::PartitionMachine;
use crate::shard::raft::Start;
use crate::shard::{Group, GroupStart, Machine};
use crate::worker::ports::{PortTable, worker_of};
use crate::worker::shared::{Shared, View};
use ringfort_proxy::errands::Errands;
use ringfort_proxy::random::Random;
use ringfort_wire::{ClusterMap, GroupId};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// Terms that a suspect replica skips: more elections than can have taken place in the second that may be forgotten.
const SUSPECT_TERMS: u64 = 1000;

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
            clients: shared.clients.worker(usize::from(options.worker)),
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
            rated: (0, 0),
            is_disk_low: false,
            is_write_failing: false,
            write_again_at: 0,
            is_leaving: false,
            scratch: Vec::new(),
            errands: Errands::default(),
            random: Random::new(options.seed),
            digests_round: 0,
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
            "group {id}: the log starts after entry {} but the snapshot at that entry is missing: this data folder is \
             damaged, and the node must not run with it",
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
