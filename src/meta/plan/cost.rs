//! What a plan costs. The formulas stand in `docs/operations.md`, for who reads the figures; change both.

use super::{Facts, GroupFacts, Wanted};
use ringfort_ring::{Move, NodeId, PartitionId, Placement};
use ringfort_wire::ClusterMap;
use ringfort_wire::map::Moving;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Time that a move takes beside its bytes: five steps, each with its round trips and ticks (learner, promotion, leaving the
/// joint configuration, report, a new map). `scripts/moves` shows it.
const STEPS_MS: u64 = 125;

/// Expected time for which a key waits while its partition's leadership is handed over: the median under load, as
/// `docs/operations.md` tells it.
const HANDOVER_MS: u64 = 50;

/// What a plan costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Copies of keys that change node.
    pub keys: u64,
    /// The same in per cent of all copies that there are then.
    pub keys_percent: f64,
    /// Bytes that are sent for them: of snapshots, where a key takes 25 bytes less than its logical ones.
    pub bytes: u64,
    /// Expected time.
    pub seconds: u64,
    /// Partitions whose leadership is handed over.
    pub handovers: usize,
    /// Expected longest time for which a key can be neither read nor written.
    pub pause_ms: u64,
}

/// What lies on a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Load {
    /// Replicas.
    pub replicas: usize,
    /// Partitions that it is to lead.
    pub leaders: usize,
    /// Keys in all its replicas.
    pub keys: u64,
    /// Logical bytes of the same.
    pub bytes: u64,
}

/// One node before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodePlan {
    /// The node.
    pub id: NodeId,
    /// `added`, `removed` or `kept`.
    pub change: NodeChange,
    /// Before.
    pub before: Load,
    /// After.
    pub after: Load,
    /// Replicas that it receives.
    pub receives: usize,
    /// Logical bytes of these: at most so much lies on it beside what it had, before what it gives up is gone.
    pub peak_extra_bytes: u64,
    /// Replicas to which it is to send, as the leader that is wanted meanwhile.
    pub sends: usize,
    /// Bytes that it receives.
    pub receives_bytes: u64,
    /// Bytes that it sends, as the leader.
    pub sends_bytes: u64,
    /// Bytes for whose time one of its `moves_at_once` is taken.
    #[serde(skip)]
    held_bytes: u64,
}

/// What becomes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeChange {
    /// It is new.
    Added,
    /// It leaves.
    Removed,
    /// It stays.
    Kept,
}

fn of(facts: &Facts, partition: PartitionId) -> Option<&GroupFacts> {
    facts.partitions.get(usize::from(partition.0))
}

/// Every node that is or will be a member, before and after.
pub(super) fn nodes(
    map: &ClusterMap,
    wanted: &Wanted,
    facts: &Facts,
    (now, next): (&Placement, &Placement),
    moves: &[Move],
) -> Vec<NodePlan> {
    let (before, after) = (loads(facts, now), loads(facts, next));
    let ids: BTreeSet<&NodeId> = map.nodes.iter().map(|n| &n.id).chain(wanted.nodes.keys()).collect();
    // Replicas that only come do so together, and each waits for the others.
    let mut only_come: BTreeMap<PartitionId, u64> = BTreeMap::new();
    for m in moves.iter().filter(|m| m.from.is_none()) {
        *only_come.entry(m.partition).or_default() += 1;
    }
    let node = |id: &NodeId| {
        let received: Vec<_> = moves.iter().filter(|m| m.to.as_ref() == Some(id)).collect();
        let is_sent = |m: &&Move| m.to.is_some() && seeder(facts, (now, next), m) == Some(id);
        let sent: Vec<_> = moves.iter().filter(is_sent).collect();
        let logical = |m: &&Move| of(facts, m.partition).map_or(0, |group| group.bytes);
        let bytes = |m: &Move| of(facts, m.partition).map_or(0, GroupFacts::snapshot_bytes);
        let together = |m: &Move| only_come.get(&m.partition).filter(|_| m.from.is_none()).map_or(1, |n| *n);
        let (receives_bytes, sends_bytes) =
            (received.iter().map(|m| bytes(m)).sum(), sent.iter().map(|m| bytes(m)).sum());
        NodePlan {
            id: id.clone(),
            change: match (map.node(id).is_some(), wanted.nodes.contains_key(id)) {
                (false, _) => NodeChange::Added,
                (true, false) => NodeChange::Removed,
                (true, true) => NodeChange::Kept,
            },
            before: before.get(id).copied().unwrap_or_default(),
            after: after.get(id).copied().unwrap_or_default(),
            receives: received.len(),
            sends: sent.len(),
            peak_extra_bytes: received.iter().map(logical).sum(),
            receives_bytes,
            sends_bytes,
            held_bytes: sends_bytes + received.iter().map(|m| bytes(m) * together(m)).sum::<u64>(),
        }
    };
    ids.into_iter().map(node).collect()
}

/// The node that sends the state that a move needs: the partition's leader; once that one's own replica has moved, in the
/// order of the nodes' ids, who is to lead.
fn seeder<'a>(facts: &'a Facts, (now, next): (&'a Placement, &'a Placement), m: &Move) -> Option<&'a NodeId> {
    let at = usize::from(m.partition.0);
    let (before, after) = (now.partitions.get(at)?, next.partitions.get(at)?);
    let leader = of(facts, m.partition).and_then(|group| group.leader.as_ref()).unwrap_or(&before.leader);
    let has_gone = !after.replicas.contains(leader) && m.from.as_ref().is_some_and(|from| leader < from);
    Some(if has_gone { &after.leader } else { leader })
}

fn loads<'a>(facts: &Facts, placement: &'a Placement) -> BTreeMap<&'a NodeId, Load> {
    let mut loads: BTreeMap<&NodeId, Load> = BTreeMap::new();
    for (partition, seats) in (0..).map(PartitionId).zip(&placement.partitions) {
        let (keys, bytes) = of(facts, partition).map_or((0, 0), |group| (group.keys, group.bytes));
        for id in &seats.replicas {
            let load = loads.entry(id).or_default();
            load.replicas += 1;
            load.keys += keys;
            load.bytes += bytes;
        }
        loads.entry(&seats.leader).or_default().leaders += 1;
    }
    loads
}

/// What all moves cost together.
pub(super) fn cost(
    facts: &Facts,
    moving: Moving,
    next: &Placement,
    moves: &[Move],
    nodes: &[NodePlan],
) -> Cost {
    let received = || moves.iter().filter(|m| m.to.is_some()).filter_map(|m| of(facts, m.partition));
    let keys: u64 = received().map(|group| group.keys).sum();
    let copies: u64 = nodes.iter().map(|node| node.after.keys).sum();
    let leads = |(partition, seats): (PartitionId, &ringfort_ring::Seats)| {
        let leader = of(facts, partition).and_then(|group| group.leader.as_ref());
        leader.is_some_and(|leader| *leader != seats.leader)
    };
    let handovers = (0..).map(PartitionId).zip(&next.partitions).filter(|row| leads(*row)).count();
    Cost {
        keys,
        keys_percent: if copies == 0 { 0.0 } else { (keys as f64 * 1000.0 / copies as f64).round() / 10.0 },
        bytes: received().map(GroupFacts::snapshot_bytes).sum(),
        seconds: if moves.is_empty() { 0 } else { seconds(moving, nodes) },
        handovers,
        pause_ms: if handovers == 0 { 0 } else { HANDOVER_MS },
    }
}

/// How long all moves take that share something: as long as their bytes, and as the steps of their rounds.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    /// Bytes that pass one after the other.
    bytes: u64,
    /// Replicas that move, so many at a time.
    replicas: usize,
    at_once: usize,
}

impl Share {
    fn ms(self, bytes_per_s: u64) -> u64 {
        let transfer = (u128::from(self.bytes) * 1000).div_ceil(u128::from(bytes_per_s.max(1)));
        let rounds = self.replicas.div_ceil(self.at_once.max(1));
        u64::try_from(transfer).unwrap_or(u64::MAX).saturating_add(rounds as u64 * STEPS_MS)
    }
}

/// Who has most to do sets the time: a node, with its bytes at the rate and the steps of the replicas that come to it or that it
/// sends to, so many at once; or all together, when few nodes both send and receive, for a move takes room on two.
fn seconds(moving: Moving, nodes: &[NodePlan]) -> u64 {
    let at_once = usize::from(moving.at_once.max(1));
    let of_node = |node: &NodePlan| {
        let held = node.held_bytes.div_ceil(at_once as u64);
        let bytes = node.receives_bytes.max(node.sends_bytes).max(held);
        Share { bytes, replicas: node.receives + node.sends, at_once }
    };
    let busy = nodes.iter().filter(|node| node.receives + node.sends > 0).count();
    let pairs = (busy * at_once / 2).max(1);
    let held: u64 = nodes.iter().map(|node| node.held_bytes).sum();
    let all = Share {
        bytes: held.div_ceil(2 * pairs as u64),
        replicas: nodes.iter().map(|node| node.receives).sum(),
        at_once: pairs,
    };
    let shares = nodes.iter().map(of_node).chain([all]);
    shares.map(|share| share.ms(moving.bytes_per_s)).max().unwrap_or(0).max(1).div_ceil(1000)
}
