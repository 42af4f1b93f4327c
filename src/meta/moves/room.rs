//! Which replicas move next: as many as the bound of each node admits, spread evenly.
//!
//! What moves takes the time of two nodes, of the one that sends and the one that receives. Taken in the order of their ids,
//! groups would have one node send to two others while a third has nothing to do, and a change of which every node does a
//! part would take as long as its unluckiest. So those exchanges begin first whose two nodes have least to do now: every node
//! receives one and sends one before any does two of either (greedy edge colouring of the graph of senders and receivers, as
//! in open-shop scheduling without a look ahead).

use ringfort_ring::{NodeId, Seats};
use ringfort_wire::ClusterMap;
use ringfort_wire::map::{MapGroup, MapSeat};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// A change of a group's seats that could be the next.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Nodes that get a replica.
    come: Vec<NodeId>,
    /// Nodes that give theirs up.
    go: Vec<NodeId>,
    /// The node that sends the group's state.
    from: NodeId,
}

/// A change of a group's seats that begins.
#[derive(Debug)]
pub(super) struct Begun {
    /// Index of the group.
    pub(super) group: usize,
    /// The new replicas.
    pub(super) come: Vec<MapSeat>,
    /// Nodes that give theirs up.
    pub(super) go: Vec<NodeId>,
}

impl Exchange {
    /// What can be next of a settled group: one for one, as long as there is one to come and one to go; what is left over at
    /// once. Empty: it is where it is to be.
    pub(super) fn next(group: &MapGroup, target: &Seats) -> Vec<Self> {
        let come = || target.replicas.iter().filter(|node| group.replica_on(node).is_none()).cloned();
        let seated = group.seats.iter().map(|seat| &seat.node);
        let mut go: Vec<NodeId> = seated.filter(|node| !target.replicas.contains(node)).cloned().collect();
        let is_one_for_one = come().next().is_some() && !go.is_empty();
        if is_one_for_one {
            go.truncate(1);
        }
        let exchange = |come| Self { come, go: go.clone(), from: group.wanted_leader().clone() };
        if is_one_for_one {
            return come().map(|node| exchange(vec![node])).collect();
        }
        let rest = exchange(come().collect());
        if rest.come.is_empty() && rest.go.is_empty() { Vec::new() } else { vec![rest] }
    }
}

/// The node that sends the group's state to replicas that join: who leads. One that leaves does so until they vote, which the
/// map no longer shows but for who led before the change.
pub(crate) fn seeder(group: &MapGroup) -> &NodeId {
    let led = group.before.as_ref().map(|before| &before.leader);
    match group.leaving.first().filter(|seat| Some(&seat.node) == led) {
        Some(leaving) => &leaving.node,
        None => group.wanted_leader(),
    }
}

/// Where new replicas may go now.
#[derive(Debug)]
pub(super) struct Room {
    /// Nodes that have joined.
    joined: BTreeSet<NodeId>,
    /// Replicas that each node receives.
    receives: BTreeMap<NodeId, u16>,
    /// Groups of which each node sends the state.
    sends: BTreeMap<NodeId, u16>,
    at_once: u16,
    /// The id of the next new replica.
    pub(super) next_replica: u64,
}

impl Room {
    pub(super) fn of(map: &ClusterMap) -> Self {
        let joined = map.nodes.iter().filter(|node| node.store_id != 0).map(|node| node.id.clone()).collect();
        let (at_once, next_replica) = (map.moving.at_once.max(1), map.next_replica);
        let (receives, sends) = (BTreeMap::new(), BTreeMap::new());
        let mut room = Self { joined, receives, sends, at_once, next_replica };
        for (_, group) in map.all_groups().filter(|(_, group)| !group.joining.is_empty()) {
            for seat in group.seats.iter().filter(|seat| group.joining.contains(&seat.replica)) {
                add(&mut room.receives, &seat.node);
            }
            add(&mut room.sends, seeder(group));
        }
        room
    }

    /// Whether a replica may go to `node`.
    pub(super) fn admits(&self, node: &NodeId) -> bool {
        self.joined.contains(node) && self.is_free(node)
    }

    fn is_free(&self, node: &NodeId) -> bool {
        count(&self.receives, node) + count(&self.sends, node) < self.at_once
    }

    /// A new replica on a node that is to receive it.
    pub(super) fn new_seat(&mut self, node: NodeId) -> MapSeat {
        add(&mut self.receives, &node);
        self.next_replica += 1;
        MapSeat { node, replica: self.next_replica - 1 }
    }

    /// Begins as many of the exchanges as there is room for, at most one of each group: those first whose nodes have least to
    /// do, then those of lower groups. `exchanges` has the index of the group with each, in order.
    pub(super) fn begin(&mut self, exchanges: Vec<(usize, Exchange)>) -> Vec<Begun> {
        let mut begun: BTreeMap<usize, Begun> = BTreeMap::new();
        let rank = |room: &Self, at: usize| Some(Reverse((room.load_of(&exchanges[at].1)?, at)));
        let mut waiting: BinaryHeap<_> = (0..exchanges.len()).filter_map(|at| rank(self, at)).collect();
        while let Some(first) = waiting.pop() {
            let Reverse((_, at)) = first;
            let (group, Exchange { come, go, from }) = &exchanges[at];
            if begun.contains_key(group) {
                continue;
            }
            let now = rank(self, at);
            if now != Some(first) {
                // What began just now takes the time of the same nodes.
                waiting.extend(now);
                continue;
            }
            if !come.is_empty() {
                add(&mut self.sends, from);
            }
            let come = come.iter().map(|node| self.new_seat(node.clone())).collect();
            begun.insert(*group, Begun { group: *group, come, go: go.clone() });
        }
        begun.into_values().collect()
    }

    /// How many replicas who would send sends already, or one who would receive receives; `None`: one of them does all that
    /// it may, or has not joined yet.
    fn load_of(&self, Exchange { come, from, .. }: &Exchange) -> Option<u16> {
        if come.is_empty() {
            return Some(0);
        }
        let is_open = self.is_free(from) && come.iter().all(|node| self.admits(node));
        let receives = come.iter().map(|node| count(&self.receives, node));
        is_open.then(|| receives.fold(count(&self.sends, from), u16::max))
    }
}

fn count(of: &BTreeMap<NodeId, u16>, node: &NodeId) -> u16 {
    of.get(node).copied().unwrap_or(0)
}

fn add(to: &mut BTreeMap<NodeId, u16>, node: &NodeId) {
    *to.entry(node.clone()).or_default() += 1;
}
