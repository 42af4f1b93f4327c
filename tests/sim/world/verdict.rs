//! The end of a run: everything is healed, and must then be served, equal and whole.

use super::liveness::PROGRESS_US;
use super::{Event, World};
use crate::history::{Ask, COUNTERS, Key, LISTS, REGISTERS};
use crate::invariants::Invariants;
use crate::options::{PARTITIONS, SECOND};
use crate::settings;
use ringfort::shard::{Group, Machine};
use ringfort_loadgen::linear::Op;
use ringfort_ring::{PartitionId, slot_of};
use ringfort_wire::GroupId;
use std::cmp::Reverse;

/// After the last fault everything must serve again within this time.
const HEAL_US: u64 = 10 * SECOND;
/// Time that replicas are then given to become equal.
const SETTLE_US: u64 = 3 * SECOND;
/// Looks at the replicas, 100 ms apart, after which they must be equal: the slowest options bring a replica one entry for each
/// round trip and sync, and a node that gave a replica up may hear of it late.
const LOOKS_MAX: u32 = 100;
/// After the heal every lost replica must be replaced within this time.
const REPLACE_US: u64 = 30 * SECOND;
/// A change of the members that is under way then may take as much longer.
const MOVE_US: u64 = 90 * SECOND;
/// Requests that a client must be served at the end.
pub(super) const PROBES_LEN: usize = (REGISTERS + COUNTERS + LISTS) as usize + PARTITIONS as usize;

impl World {
    /// No more faults: from here on everything must come back.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.line(|| "healed".to_owned());
        self.is_healed = true;
        self.settings.heal(self.now);
        self.healed_at = self.now;
        for node in 0..self.nodes.len() {
            self.give_room(node);
            self.nodes[node].paused_until = 0;
            self.nodes[node].slow_until = 0;
            if let Some(death) = self.nodes[node].doom {
                self.die(node, death);
            }
        }
        for proxy in &mut self.proxies {
            proxy.paused_until = 0;
        }
        for from in 0..self.blocked.len() {
            for to in 0..self.blocked.len() {
                if self.is_blocked(from, to) {
                    // The events that would open it later find it open.
                    let extra = self.blocked[from][to];
                    for _ in 0..extra {
                        self.unblock(from, to);
                    }
                }
            }
        }
        for host in 0..self.frozen.len() {
            self.after(0, Event::Resume { host });
        }
        let opening = std::mem::take(&mut self.queue);
        self.queue = opening
            .into_iter()
            .filter(|Reverse((_, _, e))| !matches!(e, Event::Block { .. } | Event::Unblock { .. }))
            .collect();
        if self.options.is_liveness {
            self.break_rest();
            self.require((0..self.clients.len()).collect());
            self.after(PROGRESS_US, Event::Verdict);
        } else {
            // Each way in must serve every partition; then somebody reads everything.
            let proxies = 0..self.options.proxies;
            self.require(proxies.chain([self.clients.len() - 1]).collect());
            self.after(HEAL_US, Event::Verdict);
        }
        let last = self.clients.len() - 1;
        self.after(1_000, Event::Ask { client: last });
        Ok(())
    }

    /// Each of these clients must be served with every key and by every partition.
    pub(super) fn require(&mut self, clients: Vec<usize>) {
        for client in clients {
            let mut probes: Vec<Ask> = Vec::new();
            probes.extend((0..REGISTERS).map(|n| Ask::Get(Key::Register(n))));
            probes.extend((0..COUNTERS).map(|n| Ask::Get(Key::Counter(n))));
            probes.extend((0..LISTS).map(|n| Ask::Get(Key::List(n))));
            probes.extend(self.workload.mixed_keys().map(|key| Ask::Mixed(key, Op::Get)));
            for p in 0..PARTITIONS {
                let key = self.probe_key(PartitionId(p));
                probes.push(Ask::Set(key, self.workload.fresh()));
            }
            self.probes.insert(client, probes);
        }
    }

    pub(super) fn probe_key(&self, partition: PartitionId) -> Key {
        (0..)
            .map(Key::Probe)
            .find(|key| self.map.partitions.of(slot_of(key.name(false).as_bytes())) == partition)
            .expect("every partition has some key")
    }

    pub(super) fn is_answered(&self) -> bool {
        self.probes.values().all(Vec::is_empty) && self.clients.iter().all(|c| c.pending.is_empty())
    }

    pub(super) fn settle_if_done(&mut self) {
        if self.is_healed && !self.options.is_liveness && !self.is_settling && self.is_answered() {
            self.is_settling = true;
            self.line(|| "everything is answered".to_owned());
            self.after(SETTLE_US, Event::Verdict);
        }
    }

    pub(super) fn judge_liveness(&mut self) -> Result<(), String> {
        if !self.is_answered() {
            let left: Vec<_> = self.probes.iter().map(|(c, p)| (*c, p.len(), p.last())).collect();
            let pending: Vec<_> = self.clients.iter().map(|c| c.pending.front().cloned()).collect();
            return Err(format!(
                "liveness: {} s after the last fault this is not answered: {left:?}, {pending:?}; {}",
                HEAL_US / SECOND,
                self.leaders()
            ));
        }
        if !self.is_settling {
            // The last thing ended without an answer: its connection broke.
            self.settle_if_done();
            return Ok(());
        }
        if !self.is_whole() {
            let moves_us = if self.options.changes_members() { MOVE_US } else { 0 };
            if self.now < self.healed_at + REPLACE_US + moves_us {
                self.after(100_000, Event::Verdict);
                return Ok(());
            }
            return Err(format!(
                "liveness: {} s after the last fault lost replicas are not replaced, or replicas move: {:?}; {}",
                REPLACE_US / SECOND,
                self.newest_map(),
                self.leaders()
            ));
        }
        // All replicas of a group that stand at one index are equal, and none is far behind.
        for g in 0..=PARTITIONS {
            let mut tops = Vec::new();
            let mut is_within = true;
            for node in 0..self.nodes.len() {
                for worker in &self.nodes[node].workers {
                    if let Some(group) = worker.core.as_ref().and_then(|c| c.group(GroupId(g))) {
                        self.invariants.check_digest(node, group)?;
                        tops.push(group.raft().applied_index());
                        is_within &= Invariants::is_within_memory(group, &self.options);
                    }
                }
            }
            let seats = self.newest_map().group(GroupId(g)).map_or(0, |group| group.seats.len());
            if tops.iter().min() != tops.iter().max() || tops.len() != seats || !is_within {
                // An expired or evicted key may be on its way out just now.
                self.looks += 1;
                if self.looks < LOOKS_MAX {
                    self.after(100_000, Event::Verdict);
                    return Ok(());
                }
                let group = self.newest_map().group(GroupId(g)).cloned();
                return Err(format!(
                    "liveness: replicas of group {g} stand at {tops:?}, within their memory: {is_within}; the map says {group:?}; {}",
                    self.leaders()
                ));
            }
        }
        if settings::is_in(self.options.seed) && !self.settings.is_alive() {
            return Err(format!("liveness: no change of the settings is made; {}", self.leaders()));
        }
        for node in &self.nodes {
            let Some(core) = &node.workers[0].core else { continue };
            let map = core.shared().map().ok_or("a node without a map")?;
            self.settings.check(&map).map_err(|error| format!("{}: {error}", node.id))?;
            let Some(Machine::Meta(meta)) = core.group(GroupId::META).map(Group::machine) else { continue };
            if meta.map() != Some(&*map) {
                return Err(format!("{}: its workers do not see the map of the meta group", node.id));
            }
        }
        self.queue.clear();
        self.after(0, Event::Settled);
        Ok(())
    }

    pub(super) fn leaders(&self) -> String {
        let mut text = String::new();
        for g in 0..=PARTITIONS {
            for node in &self.nodes {
                for worker in &node.workers {
                    if let Some(group) = worker.core.as_ref().and_then(|c| c.group(GroupId(g))) {
                        text += &format!("\n  {}: {:?}", node.id, group.status());
                    }
                }
            }
        }
        text
    }
}
