//! `maxmemory` of one group: what the leader proposes so that the partition stays within its quota.
//!
//! Every replica refuses alike what does not fit ([`PartitionMachine::apply`](super::machine::PartitionMachine::apply)
//! looks at the limit that the log has set); only the leader chooses victims, by marks of use that it alone has.
//!
//! Under a policy that evicts, an entry begins with the deletions that make room for its own writes: bytes that are applied
//! and the growth of all entries under way, less what these delete, stay within the quota. Growth is an upper bound
//! ([`Store::growth_max`](ringfort_store::Store::growth_max)); a victim that a write under way changed stays. When that has
//! left the partition above its quota, or nothing more may go, the entries under way are awaited before the next one.

use super::{Batch, ENTRY_BYTES, Group, Machine, OPS_MAX, Origin, machine::PartitionMachine};
use ringfort_resp::Command;
use ringfort_store::{Evictor, MemoryLimit, Policy, Store};
use ringfort_wire::ClusterMap;
use ringfort_wire::entry::{EntryBuilder, Op, OpKind};
use ringfort_wire::request::CommandBody;
use ringfort_wire::settings::{
    LFU_DECAY_TIME, LFU_LOG_FACTOR, MAXMEMORY, MAXMEMORY_POLICY, MAXMEMORY_SAMPLES,
};

/// Most keys that one entry evicts, beside as many again for each of its writes.
const VICTIMS_MAX: usize = 256;
/// Most victims for each write of an entry.
const VICTIMS_PER_WRITE: usize = 2;
/// Most writes of one entry under a policy that evicts, so that their victims have room beside them.
const WRITES_MAX: usize = (OPS_MAX - VICTIMS_MAX) / (VICTIMS_PER_WRITE + 1);
/// An entry's writes are at most one part in so many of the quota.
const ENTRIES_PER_QUOTA: u64 = 16;
/// But at least so many bytes.
const ENTRY_BYTES_MIN: u64 = 256;

/// What a leader remembers of its evictions.
#[derive(Debug)]
pub(super) struct Memory {
    evictor: Evictor,
    /// Nothing is proposed before this index is applied: what it wrote may go, and nothing else may.
    pub(super) await_index: u64,
    /// The limit is not proposed again before this index is applied.
    limit_after_batch: u64,
    /// Keys that this node evicted as a leader.
    pub(super) evicted_keys: u64,
}

/// What an entry under way changes in memory.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Logical bytes by which its writes grow at most; `None`: nobody counted, it was proposed before the policy evicted.
    growth: Option<u64>,
    /// Logical bytes that its victims free.
    freed: u64,
    /// Names of the victims.
    victims: Vec<u64>,
}

/// The limit of each partition: an equal share of the cluster's `maxmemory`.
///
/// While a new one is on its way some partitions have the old share and some the new: the sum is never above the larger
/// `maxmemory` of the two.
pub fn share(map: &ClusterMap) -> MemoryLimit {
    let number = |name: &str| map.setting_integer(name).cast_unsigned();
    let word = |name: &str| number(name).min(u32::MAX.into()) as u32;
    MemoryLimit {
        quota_bytes: number(MAXMEMORY).div_ceil(map.partitions.get().into()),
        policy: Policy::parse(map.setting(MAXMEMORY_POLICY)).unwrap_or_default(),
        samples: word(MAXMEMORY_SAMPLES),
        lfu_log_factor: word(LFU_LOG_FACTOR),
        lfu_decay_min: word(LFU_DECAY_TIME),
    }
}

impl Memory {
    pub(super) fn new(seed: u64) -> Self {
        Self { evictor: Evictor::new(seed), await_index: 0, limit_after_batch: 0, evicted_keys: 0 }
    }

    /// Forgets what belongs to an office that is over.
    pub(super) fn forget_office(&mut self, changes: impl Iterator<Item = Change>) {
        (self.await_index, self.limit_after_batch) = (0, 0);
        changes.for_each(|change| self.forget(&change));
    }

    /// An entry is applied, or never will be.
    pub(super) fn forget(&mut self, change: &Change) {
        change.victims.iter().for_each(|hash| self.evictor.forget(*hash));
    }
}

impl Group {
    /// Proposes the memory limit if it is not the one that holds. Level-triggered: call it again and again.
    pub fn follow_limit(&mut self, limit: &MemoryLimit) {
        let Machine::Partition(machine) = &self.machine else { return };
        let is_same = machine.store().limit() == limit;
        let is_proposed = !self.is_batch_done(self.memory.limit_after_batch);
        if is_same || is_proposed || !self.raft.is_own_term_applied() || !self.raft.is_leader() {
            return;
        }
        let body = limit.encode();
        self.push(Origin::None, &Op { kind: OpKind::Limit, session: 0, seq: 0, acked: 0, body: &body });
        self.memory.limit_after_batch = self.last_batch;
    }

    /// Has an entry proposed that only evicts, if the limit was lowered and no write comes.
    pub fn evict_excess(&mut self) {
        let Machine::Partition(machine) = &self.machine else { return };
        let store = machine.store();
        let is_over =
            evicting(machine).is_some_and(|quota| quota < store.logical_bytes()) && !store.is_full();
        if is_over && self.raft.is_leader() && self.queue.is_empty() && self.inflight.is_empty() {
            self.queue_batch();
        }
    }

    /// Keys that this replica evicted while it led.
    pub fn evicted_keys(&self) -> u64 {
        self.memory.evicted_keys
    }

    /// The bounds of an entry that is being filled: bytes, operations.
    pub(super) fn entry_bounds(&self) -> (usize, usize) {
        match &self.machine {
            Machine::Partition(machine) if let Some(quota) = evicting(machine) => {
                let bytes = (quota / ENTRIES_PER_QUOTA).clamp(ENTRY_BYTES_MIN, ENTRY_BYTES as u64);
                (bytes as usize, WRITES_MAX)
            }
            _ => (self.limits.entry_bytes, OPS_MAX),
        }
    }

    /// Puts the evictions that make room for a batch in front of it.
    ///
    /// # Errors
    /// It is given back: it must wait until what is in the log is applied.
    pub(super) fn make_room(&mut self, batch: Batch) -> Result<(Batch, Change), Batch> {
        let Machine::Partition(machine) = &self.machine else { return Ok((batch, Change::default())) };
        let Some(quota) = evicting(machine) else { return Ok((batch, Change::default())) };
        let store = machine.store();
        // Not everything under way is counted: what a predecessor wrote last, or what was proposed before the limit came; or a
        // victim stayed because a write under way changed it, and would again: without any under way it goes.
        let is_over = quota < store.logical_bytes() && !self.inflight.is_empty();
        let grown: Option<u64> = self.inflight.iter().map(|i| i.change.growth).sum();
        let Some(grown) = grown.filter(|_| !is_over && self.raft.is_own_term_applied()) else {
            self.memory.await_index = self.raft.last_index();
            return Err(batch);
        };
        let growth = batch.builder.ops().flatten().map(|op| growth_max(store, &op)).sum();
        let mut change = Change { growth: Some(growth), ..Change::default() };
        let freed: u64 = self.inflight.iter().map(|i| i.change.freed).sum();
        let expected = (store.logical_bytes() + grown).saturating_sub(freed) + growth;
        let Some(excess) = expected.checked_sub(quota).filter(|excess| *excess > 0) else {
            return Ok((batch, change));
        };
        let most = VICTIMS_MAX + VICTIMS_PER_WRITE * batch.origins.len();
        let victims = store.victims(&mut self.memory.evictor, excess, most);
        let mut builder = EntryBuilder::default();
        let mut body = Vec::new();
        for victim in &victims {
            if builder.bytes_len() > ENTRY_BYTES {
                break;
            }
            body.clear();
            body.extend_from_slice(&victim.digest.to_le_bytes());
            body.extend_from_slice(&victim.key);
            builder.push(&Op { kind: OpKind::Evict, session: 0, seq: 0, acked: 0, body: &body });
            change.freed += victim.bytes;
            change.victims.push(victim.hash);
        }
        if change.freed < excess && builder.len() < most && !self.inflight.is_empty() {
            self.memory.forget(&change);
            self.memory.await_index = self.raft.last_index();
            return Err(batch);
        }
        let evictions = builder.len();
        builder.append(&batch.builder);
        let origins = std::iter::repeat_n(Origin::None, evictions).chain(batch.origins).collect();
        Ok((Batch { number: batch.number, builder, origins }, change))
    }
}

/// The quota of a partition whose policy evicts.
fn evicting(machine: &PartitionMachine) -> Option<u64> {
    let limit = machine.store().limit();
    (limit.quota_bytes != 0 && limit.policy.evicts()).then_some(limit.quota_bytes)
}

/// Logical bytes by which an operation grows the keyspace at most.
fn growth_max(store: &Store, op: &Op<'_>) -> u64 {
    if op.kind != OpKind::Command {
        return 0;
    }
    let Ok((command, args)) = CommandBody::decode(op.body).and_then(|body| Ok((body.command, body.args()?)))
    else {
        return 0;
    };
    let command = Command::from_u16(command).filter(|c| c.spec().may_need_memory());
    command.map_or(0, |command| store.growth_max(command, &args))
}
