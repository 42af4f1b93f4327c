//! The way of a write through its group: it is queued, becomes an entry with others that came in the same turn, is proposed,
//! applied when a majority has it, and answered. At most [`INFLIGHT_MAX`](super::INFLIGHT_MAX) entries are under way; the
//! queue has a bound in bytes, beyond which a write is answered `Busy`.

use super::{EXPIRE_KEYS_MAX, Group, Machine, Origin, Ports, Submission, memory, raft};
use crate::clock::Now;
use crate::log::LogEntry;
use ringfort_wire::entry::{ENTRY_HEADER_BYTES, EntryBuilder, Op, OpKind};
use ringfort_wire::request::Status;

/// Writes that become one entry.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Batches are numbered from 1 in the order in which they are proposed.
    pub(super) number: u64,
    pub(super) builder: EntryBuilder,
    pub(super) origins: Vec<Origin>,
}

impl Batch {
    /// Takes off what goes beyond the bounds of an entry: they became narrower since it was queued. Both have its number.
    fn split_off(&mut self, (bytes_max, ops_max): (usize, usize)) -> Option<Self> {
        let builder = self.builder.split_off(bytes_max, ops_max)?;
        let origins = self.origins.split_off(self.builder.len());
        Some(Self { number: self.number, builder, origins })
    }
}

/// What a leader remembers of an entry that it has proposed.
#[derive(Debug)]
pub(super) struct Inflight {
    pub(super) batch: u64,
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) proposed_us: u64,
    pub(super) origins: Vec<Origin>,
    pub(super) change: memory::Change,
}

impl Group {
    /// Queues a write; see [`OpKind`]. It is answered when it is applied, or when it cannot be.
    pub fn write(&mut self, kind: OpKind, s: Submission<'_>, ports: &mut impl Ports) {
        if !self.raft.is_leader() {
            ports.reply(s.origin, Status::NotLeader(self.leader_hint()));
            return;
        }
        if self.queue_bytes + s.body.len() > self.limits.queue_bytes && self.queue_bytes > 0 {
            ports.reply(s.origin, Status::Busy);
            return;
        }
        self.push(s.origin, &Op { kind, session: s.session, seq: s.seq, acked: s.acked, body: s.body });
    }

    pub(super) fn push(&mut self, origin: Origin, op: &Op<'_>) {
        let (bytes_max, ops_max) = self.entry_bounds();
        let has_room = self
            .queue
            .back()
            .is_some_and(|b| b.builder.bytes_len() + op.body.len() <= bytes_max && b.builder.len() < ops_max);
        if !has_room {
            self.queue_batch();
        }
        let batch = self.queue.back_mut().expect("one was just pushed when there was none");
        let before = batch.builder.bytes_len();
        batch.builder.push(op);
        batch.origins.push(origin);
        self.queue_bytes += batch.builder.bytes_len() - before;
    }

    pub(super) fn queue_batch(&mut self) {
        self.last_batch += 1;
        self.queue.push_back(Batch { number: self.last_batch, ..Batch::default() });
    }

    /// Whether the writes of a batch, and of all before it, are applied, or are lost with the office. Their places in the log
    /// are not known before they are proposed: changes of the members and empty entries come between.
    pub(super) fn is_batch_done(&self, batch: u64) -> bool {
        let queued = self.queue.front().map(|b| b.number);
        self.inflight.front().map(|i| i.batch).or(queued).is_none_or(|oldest| batch < oldest)
    }

    /// Proposes expired keys, if any, as part of the next entry.
    pub fn expire(&mut self, now: Now) {
        if !self.raft.is_leader() || !self.is_batch_done(self.expire_after_batch) {
            return;
        }
        let Machine::Partition(machine) = &self.machine else { return };
        let due = machine.store().due(now.wall_ms, EXPIRE_KEYS_MAX);
        if due.is_empty() {
            return;
        }
        let mut body = Vec::new();
        for key in due {
            body.clear();
            body.extend_from_slice(&key.expires_at_ms.to_le_bytes());
            body.extend_from_slice(&key.key);
            self.push(Origin::None, &Op { kind: OpKind::Expire, session: 0, seq: 0, acked: 0, body: &body });
        }
        self.expire_after_batch = self.last_batch;
    }

    /// Whether queued writes could be proposed now.
    pub fn has_proposable(&self) -> bool {
        !self.queue.is_empty()
            && self.inflight.len() < self.limits.inflight_entries
            && self.memory.await_index <= self.raft.applied_index()
            && self.raft.is_leader()
            && !self.raft.is_transferring()
    }

    /// Makes log entries of the queued writes, while fewer than [`INFLIGHT_MAX`](super::INFLIGHT_MAX) are under way.
    pub fn propose(&mut self, now: Now, ports: &mut impl Ports) {
        self.now_us = now.boot_us;
        self.notice_role(ports);
        while self.has_proposable() {
            let Some(mut batch) = self.queue.pop_front() else { return };
            if let Some(rest) = batch.split_off(self.entry_bounds()) {
                self.queue_bytes += ENTRY_HEADER_BYTES;
                self.queue.push_front(rest);
            }
            let batch_bytes = batch.builder.bytes_len();
            let (mut batch, change) = match self.make_room(batch) {
                Ok(ready) => ready,
                Err(batch) => return self.queue.push_front(batch),
            };
            self.queue_bytes -= batch_bytes;
            let log_time = match &self.machine {
                Machine::Partition(m) => now.wall_ms.max(m.log_time_ms()),
                Machine::Meta(_) => now.wall_ms,
            };
            self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(now.wall_ms | 1);
            let data = batch.builder.finish(log_time, self.seed);
            match self.raft.propose(data) {
                Ok(index) => self.inflight.push_back(Inflight {
                    batch: batch.number,
                    index,
                    term: self.raft.term(),
                    proposed_us: now.boot_us,
                    origins: batch.origins,
                    change,
                }),
                // The engine dropped it, so it is in no log.
                Err(_) => {
                    self.memory.forget(&change);
                    for origin in batch.origins {
                        ports.reply(origin, Status::NotLeader(""));
                    }
                }
            }
        }
    }

    /// Whether entries are proposed and not yet applied.
    pub fn has_inflight(&self) -> bool {
        !self.inflight.is_empty()
    }

    /// Of the first `fetched` entries the processor has fetched what they look at.
    pub(super) fn apply(
        &mut self,
        entries: Vec<LogEntry>,
        fetched: usize,
        ports: &mut impl Ports,
    ) -> Result<(), String> {
        let Some(last) = entries.last().map(|e| e.index) else { return Ok(()) };
        for (i, entry) in entries.into_iter().enumerate() {
            let own = self.take_inflight(&entry, ports);
            let origins = own.as_ref().map_or(&[][..], |own| &own.origins);
            if entry.kind != raft::ENTRY_NORMAL {
                self.apply_change(&entry)?;
                continue;
            }
            let mut answer = |position: usize, status: Status<'_>| {
                if let Some(&origin) = origins.get(position) {
                    ports.reply(origin, status);
                }
            };
            let evicted_before = self.machine.evicted_keys();
            match &mut self.machine {
                Machine::Partition(m) => m.apply_fetched(entry.index, &entry.data, i < fetched, &mut answer),
                Machine::Meta(m) => m.apply(&entry.data, &mut answer),
            }
            .map_err(|e| format!("group {}: entry {} cannot be applied: {e}", self.id, entry.index))?;
            if let Some(own) = own {
                self.memory.evicted_keys += self.machine.evicted_keys() - evicted_before;
                self.memory.forget(&own.change);
            }
        }
        self.raft.applied(last);
        Ok(())
    }

    /// What this replica remembers of `entry`, if it proposed it; what was proposed at its index in another term is lost.
    fn take_inflight(&mut self, entry: &LogEntry, ports: &mut impl Ports) -> Option<Inflight> {
        while let Some(front) = self.inflight.front() {
            if front.index > entry.index {
                break;
            }
            let front = self.inflight.pop_front().expect("the loop saw one");
            if front.index == entry.index && front.term == entry.term {
                self.lease.confirm(front.term, front.proposed_us);
                self.applied_proposals.push(front.proposed_us);
                return Some(front);
            }
            self.memory.forget(&front.change);
            for origin in front.origins {
                ports.reply(origin, Status::Retry);
            }
        }
        None
    }
}
