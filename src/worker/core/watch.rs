//! Who is there, and who is down: the leader of the meta group listens and judges ([`crate::meta::down`]).

use super::{HOUSEKEEPING_TICKS, WorkerCore};
use crate::log::Disk;
use crate::meta::down::{is_watched, judged};
use crate::shard::Machine;
use crate::shard::raft::TICK_MS;
use ringfort_ring::NodeId;
use ringfort_wire::{GroupId, MetaWrite};
use std::collections::{BTreeMap, BTreeSet};

/// Longest pause between two words of a node that is there, ticks (3 s): they come every second.
const PAUSE_TICKS: u64 = 3 * HOUSEKEEPING_TICKS;
/// Ticks for which a node that was down must have been there (5 s), so that one that restarts again and again is not.
const BACK_TICKS: u64 = 5 * HOUSEKEEPING_TICKS;

/// What the leader of the meta group has heard.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The term of its office; 0: it does not listen.
    term: u64,
    /// Tick at which it began to.
    since: u64,
    /// Of each node the tick since when it has been heard without a pause, and when it was heard last.
    heard: BTreeMap<NodeId, (u64, u64)>,
    /// The epoch, and who is down, of which the map needs to be told nothing.
    known: Option<(u64, BTreeSet<NodeId>)>,
}

impl Watch {
    /// A node says that it is there.
    fn hear(&mut self, node: NodeId, ticks: u64) {
        let (first, last) = self.heard.entry(node).or_insert((ticks, ticks));
        if *last + PAUSE_TICKS < ticks {
            *first = ticks;
        }
        *last = ticks;
    }

    /// Whether a node is down: silent for so long; or not back yet, if it was down.
    fn is_down(&self, node: &NodeId, was_down: bool, ticks: u64, down_after: u64) -> bool {
        match self.heard.get(node) {
            Some((first, last)) if was_down => last + PAUSE_TICKS < ticks || ticks < first + BACK_TICKS,
            None if was_down => true,
            heard => heard.map_or(self.since, |(_, last)| *last) + down_after <= ticks,
        }
    }
}

impl<D: Disk> WorkerCore<D> {
    /// Takes a node's word that it is there.
    pub(super) fn hear(&mut self, node: NodeId) {
        let is_member = self.ports.map.as_ref().is_some_and(|map| map.node(&node).is_some());
        if is_member {
            self.watch.hear(node, self.ticks);
        }
    }

    /// Says that this node is there; who leads the meta group judges who is not. Every second, on one worker.
    pub(super) fn watch_nodes(&mut self) {
        let Some(map) = self.ports.map.clone().filter(|_| self.options.worker == 0) else { return };
        if !is_watched(&map) {
            self.watch = Watch::default();
            return;
        }
        let here = MetaWrite::Here(self.options.node.clone()).to_json();
        for node in map.meta.nodes().into_iter().filter(|node| **node != self.options.node) {
            self.ports.send_meta(node, &here);
        }
        self.judge_nodes();
    }

    fn judge_nodes(&mut self) {
        let own = self.options.node.clone();
        let Some(group) = self.groups.get(GroupId::META.0) else { return };
        let map = match group.machine() {
            Machine::Meta(meta) if group.raft().is_leader() && group.raft().is_own_term_applied() => {
                meta.map()
            }
            _ => None,
        };
        let Some(map) = map else {
            self.watch.term = 0;
            return;
        };
        let (ticks, term) = (self.ticks, group.raft().term());
        let watch = &mut self.watch;
        if watch.term != term {
            *watch = Watch { term, since: ticks, ..Watch::default() };
        }
        watch.heard.retain(|id, _| map.node(id).is_some());
        let down_after = u64::from(map.moving.down_after_s) * 1000 / TICK_MS;
        // One that has not joined has nothing that could be elsewhere.
        let members = map.nodes.iter().filter(|node| node.id != own && node.store_id != 0);
        let down: BTreeSet<NodeId> = members
            .filter(|node| watch.is_down(&node.id, node.is_down, ticks, down_after))
            .map(|node| node.id.clone())
            .collect();
        let state = (map.epoch, down);
        if watch.known.as_ref() == Some(&state) || group.has_inflight() {
            return;
        }
        let Some(judged) = judged(map, &state.1) else {
            watch.known = Some(state);
            return;
        };
        for node in &map.nodes {
            match (node.is_down, state.1.contains(&node.id)) {
                (false, true) => {
                    tracing::warn!(node = %node.id, "nothing was heard of the node for long: it counts as down");
                }
                (true, false) => tracing::info!(node = %node.id, "the node is back"),
                _ => {}
            }
        }
        self.meta_told(&MetaWrite::Down(Box::new(judged)).to_json());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_makes_a_node_down_and_a_while_of_words_brings_it_back() {
        let node = NodeId("n2".into());
        let mut watch = Watch { since: 1000, ..Watch::default() };
        assert!(!watch.is_down(&node, false, 1999, 1000) && watch.is_down(&node, false, 2000, 1000));
        watch.hear(node.clone(), 1500);
        assert!(!watch.is_down(&node, false, 2499, 1000) && watch.is_down(&node, false, 2500, 1000));
        watch.hear(node.clone(), 3000);
        assert!(watch.is_down(&node, true, 3000 + BACK_TICKS, 1000), "it was heard once only");
        for word in 0..=5 {
            watch.hear(node.clone(), 5000 + word * HOUSEKEEPING_TICKS);
        }
        assert!(watch.is_down(&node, true, 5000 + BACK_TICKS - 1, 1000));
        assert!(!watch.is_down(&node, true, 5000 + BACK_TICKS, 1000));
        assert!(watch.is_down(&NodeId("n3".into()), true, 9999, 1000), "nothing was heard of it yet");
    }
}
