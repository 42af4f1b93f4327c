//! What it takes to make the cluster what a config file says: one pure step from the committed map and the wanted
//! membership to a [`Plan`].
//!
//! ```text
//! map (epoch) ---\
//! wanted ---------+--> changes -> placement (ringfort_ring: exact, the fewest moves) -> moves -> cost, warnings
//! facts ---------/         \--> refusals: nothing is planned
//! ```
//!
//! The plan is of one epoch: who carries it out compares that with the map's, and plans again when they differ.
//! [`Facts`] are what was heard of the groups and nodes a moment ago. Placement and moves depend on map and wish alone; facts
//! only price them and can refuse them.
//!
//! A preferred leader that an operator chose (`ringfort transfer`) stays until nodes or weights change: only then are
//! leaders divided anew.

mod check;
mod cost;

use super::down::able;
use super::moves::aim_of;
use crate::config::{Config, Durability, Place};
use ringfort_ring::{
    Move, NodeId, NodeSpec, PartitionCount, PartitionId, PlaceError, Placement, Seats, minimum_moves, place,
};
use ringfort_wire::ClusterMap;
use ringfort_wire::map::Moving;
use ringfort_wire::meta::{self, Apply};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

pub use cost::{Cost, Load, NodeChange, NodePlan};

/// Most ids of nodes that left which a cluster remembers.
pub const FORMER_NODES_MAX: usize = 4096;

/// Who is to be a member, and how: what a config file proposes and a map has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Name of the cluster.
    pub name: String,
    /// P.
    pub partitions: PartitionCount,
    /// Replicas of each partition.
    pub replicas: u16,
    /// Whether an acknowledged write is on disk.
    pub fsync: bool,
    /// How replicas are moved.
    pub moving: Moving,
    /// The nodes.
    pub nodes: BTreeMap<NodeId, Member>,
}

/// A wanted node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Where Redis clients reach it.
    pub client: String,
    /// Where nodes and proxies reach it.
    pub peer: String,
    /// Its share.
    pub weight: u32,
    /// Its failure domain.
    pub zone: String,
}

impl Wanted {
    /// What a config file proposes.
    pub fn of_config(config: &Config) -> Self {
        let member = |n: &crate::config::NodeConfig| Member {
            client: n.client.to_string(),
            peer: n.peer.to_string(),
            weight: n.weight,
            zone: n.zone.clone(),
        };
        Self {
            name: config.cluster.name.clone(),
            partitions: config.cluster.partitions,
            replicas: config.cluster.replicas,
            fsync: config.cluster.durability == Durability::Fsync,
            moving: config.cluster.moving,
            nodes: config.nodes.iter().map(|n| (n.id.clone(), member(n))).collect(),
        }
    }

    /// What the cluster has.
    pub fn of_map(map: &ClusterMap) -> Self {
        let member = |n: &ringfort_wire::map::MapNode| Member {
            client: n.client.clone(),
            peer: n.peer.clone(),
            weight: n.weight,
            zone: n.zone.clone(),
        };
        Self {
            name: map.name.clone(),
            partitions: map.partitions,
            replicas: map.replicas,
            fsync: map.fsync,
            moving: map.moving,
            nodes: map.nodes.iter().filter(|n| !n.is_leaving).map(|n| (n.id.clone(), member(n))).collect(),
        }
    }

    /// The nodes as the placement sees them.
    pub fn specs(&self) -> Vec<NodeSpec> {
        let spec =
            |(id, n): (&NodeId, &Member)| NodeSpec { id: id.clone(), weight: n.weight, zone: n.zone.clone() };
        self.nodes.iter().map(spec).collect()
    }
}

/// What was heard of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Of each partition, in order.
    pub partitions: Vec<GroupFacts>,
    /// Of the meta group.
    pub meta: GroupFacts,
    /// Of nodes; one that is not here was not asked.
    pub nodes: BTreeMap<NodeId, NodeFacts>,
}

/// What its leader says of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupFacts {
    /// The node that leads; `None`: nobody is known to.
    pub leader: Option<NodeId>,
    /// Nodes whose replicas answer and hold what the leader holds, but for what is on its way.
    pub live: BTreeSet<NodeId>,
    /// Keys.
    pub keys: u64,
    /// Logical bytes.
    pub bytes: u64,
}

impl GroupFacts {
    /// Bytes that a new replica is sent.
    fn snapshot_bytes(&self) -> u64 {
        ringfort_store::snapshot_bytes(self.keys, self.bytes)
    }
}

/// What a node says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Whether it answers.
    pub is_up: bool,
    /// Its workers.
    pub workers: Option<u16>,
    /// Memory of its machine, bytes.
    pub memory_bytes: Option<u64>,
}

/// One difference between what is wanted and what is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The node; `None`: the whole cluster.
    pub node: Option<NodeId>,
    /// The key of the config file; `node` when the node itself comes or goes.
    pub key: &'static str,
    /// What it is; `None`: the node is new.
    pub from: Option<String>,
    /// What it is to be; `None`: the node leaves.
    pub to: Option<String>,
}

/// A preferred leader that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeaderChange {
    /// The partition.
    pub partition: PartitionId,
    /// The node that is to lead now.
    pub from: NodeId,
    /// The node that is to lead then.
    pub to: NodeId,
}

/// Why nothing is planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What in the file causes it.
    pub place: Place,
    /// A sentence.
    pub text: String,
    /// Whether it may be gone in a moment: everybody answers, and is just catching up or electing a leader.
    pub may_pass: bool,
}

impl Refusal {
    /// One that stays.
    fn new(place: Place, text: String) -> Self {
        Self { place, text, may_pass: false }
    }
}

/// How the cluster becomes what is wanted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The epoch of the map that it was made from.
    pub epoch: u64,
    /// What differs.
    pub changes: Vec<Difference>,
    /// Replicas that change node, come or go, ordered by partition.
    pub moves: Vec<Move>,
    /// Preferred leaders that change.
    pub leaders: Vec<LeaderChange>,
    /// Replicas of the meta group that do.
    pub meta_moves: Vec<MetaMove>,
    /// Replicas that some node has to receive.
    pub replicas_moved: usize,
    /// The fewest that any fair placement makes a node receive.
    pub minimum: usize,
    /// How many preferred leaders change.
    pub leader_changes: usize,
    /// What it costs.
    #[serde(flatten)]
    pub cost: Cost,
    /// Each node before and after, ordered by id.
    pub nodes: Vec<NodePlan>,
    /// What an operator should know before.
    pub warnings: Vec<String>,
    /// Where every replica and preferred leader is then.
    #[serde(skip)]
    pub placement: Placement,
    /// The same of the meta group.
    #[serde(skip)]
    pub meta: Seats,
}

/// One replica of the meta group that changes node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MetaMove {
    /// The node that gives it up; `None` when a replica is added.
    pub from: Option<NodeId>,
    /// The node that takes it; `None` when one is dropped.
    pub to: Option<NodeId>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
            && self.moves.is_empty()
            && self.leaders.is_empty()
            && self.meta_moves.is_empty()
    }

    /// What the meta group is asked for, so that it is carried out. It was planned of `map`, for what is `wanted`.
    pub fn request(&self, map: &ClusterMap, wanted: &Wanted) -> Apply {
        let member = |(id, node): (&NodeId, &Member)| meta::Member {
            id: id.clone(),
            client: node.client.clone(),
            peer: node.peer.clone(),
            weight: node.weight,
            zone: node.zone.clone(),
        };
        Apply {
            planned_epoch: map.planned_epoch,
            nodes: wanted.nodes.iter().map(member).collect(),
            replicas: wanted.replicas,
            moving: wanted.moving,
            partitions: self.placement.partitions.clone(),
            meta: self.meta.clone(),
        }
    }
}

/// Plans how the cluster of `map` becomes what is wanted.
///
/// # Errors
/// It must not: every reason.
pub fn plan(map: &ClusterMap, wanted: &Wanted, facts: &Facts) -> Result<Plan, Vec<Refusal>> {
    let refusals = check::identity(map, wanted);
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let now = placement_of(map);
    let (specs, partitions) = (wanted.specs(), wanted.partitions);
    // What is down gets its share when it is back.
    let is_down = |id: &NodeId| map.node(id).is_some_and(|node| node.is_down);
    let specs = able(&specs, wanted.replicas, is_down).unwrap_or(specs);
    let refuse = |error: PlaceError| vec![Refusal::new(Place::File, error.to_string())];
    let mut next = place(Some(&now), &specs, partitions, wanted.replicas).map_err(refuse)?;
    let minimum = minimum_moves(&now, &specs, partitions, wanted.replicas).map_err(refuse)?;
    let is_same_replicas = |(a, b): (&Seats, &Seats)| a.replicas == b.replicas;
    if weights(&Wanted::of_map(map)) == weights(wanted)
        && now.partitions.iter().zip(&next.partitions).all(is_same_replicas)
    {
        next.clone_from(&now);
    }
    let meta_now = aim_of(&map.meta);
    let meta = meta_seats(Some(&meta_now), &specs);
    let mut refusals = check::majorities(facts, (&now, &next), (&meta_now, &meta));
    refusals.extend(check::drained(map, &next, &meta));
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let moved = ringfort_ring::plan(&now, &next);
    let leaders: Vec<LeaderChange> = moved
        .leader_changes
        .iter()
        .cloned()
        .map(|(partition, from, to)| LeaderChange { partition, from, to })
        .collect();
    let of_meta = |seats: &Seats| Placement { partitions: vec![seats.clone()] };
    let meta_moves = ringfort_ring::plan(&of_meta(&meta_now), &of_meta(&meta)).moves;
    let nodes = cost::nodes(map, wanted, facts, (&now, &next), &moved.moves);
    Ok(Plan {
        epoch: map.epoch,
        changes: differences(&Wanted::of_map(map), wanted),
        replicas_moved: moved.received(),
        minimum,
        leader_changes: leaders.len(),
        cost: cost::cost(facts, wanted.moving, &next, &moved.moves, &nodes),
        warnings: check::warnings(map, wanted, facts, &next, &nodes),
        nodes,
        moves: moved.moves,
        leaders,
        meta_moves: meta_moves.into_iter().map(|m| MetaMove { from: m.from, to: m.to }).collect(),
        placement: next,
        meta,
    })
}

/// The placement that a map wants: where a change that is under way ends, if one is.
pub fn placement_of(map: &ClusterMap) -> Placement {
    Placement { partitions: map.groups.iter().map(aim_of).collect() }
}

fn weights(wanted: &Wanted) -> BTreeMap<&NodeId, u32> {
    wanted.nodes.iter().map(|(id, node)| (id, node.weight)).collect()
}

/// Where the replicas of the meta group are to be: on 1 node of fewer than 3, on 3 of fewer than 5, else on 5; rather on
/// nodes with a weight, then in distinct zones, then where they are, then by id. `nodes` is not empty.
pub fn meta_seats(now: Option<&Seats>, nodes: &[NodeSpec]) -> Seats {
    let size = match nodes.len() {
        0..3 => 1,
        3..5 => 3,
        _ => 5,
    };
    let is_held = |id: &NodeId| now.is_some_and(|now| now.replicas.contains(id));
    let mut left: Vec<&NodeSpec> = nodes.iter().collect();
    let mut chosen: Vec<&NodeSpec> = Vec::new();
    while chosen.len() < size {
        let order = |node: &NodeSpec| {
            let in_zone = chosen.iter().filter(|other| other.zone == node.zone).count();
            (node.weight == 0, in_zone, !is_held(&node.id), node.id.clone())
        };
        let Some(best) = (0..left.len()).min_by_key(|&at| order(left[at])) else { break };
        chosen.push(left.swap_remove(best));
    }
    let mut replicas: Vec<NodeId> = chosen.into_iter().map(|node| node.id.clone()).collect();
    replicas.sort_unstable();
    let leader = now.map(|now| &now.leader).filter(|leader| replicas.contains(leader));
    let leader = leader.or_else(|| replicas.first()).cloned().unwrap_or(NodeId(String::new()));
    Seats { replicas, leader }
}

/// What differs between two memberships, of the cluster first, then node by node.
fn differences(now: &Wanted, wanted: &Wanted) -> Vec<Difference> {
    let mut all = Vec::new();
    let mut note = |node: Option<&NodeId>, key, from: String, to: String| {
        if from != to {
            all.push(Difference { node: node.cloned(), key, from: Some(from), to: Some(to) });
        }
    };
    note(None, "replicas", now.replicas.to_string(), wanted.replicas.to_string());
    let (old, new) = (now.moving, wanted.moving);
    note(None, "move_rate", old.bytes_per_s.to_string(), new.bytes_per_s.to_string());
    note(None, "moves_at_once", old.at_once.to_string(), new.at_once.to_string());
    note(None, "down_after", format!("{}s", old.down_after_s), format!("{}s", new.down_after_s));
    for (id, a) in &now.nodes {
        let Some(b) = wanted.nodes.get(id) else { continue };
        note(Some(id), "client", a.client.clone(), b.client.clone());
        note(Some(id), "peer", a.peer.clone(), b.peer.clone());
        note(Some(id), "weight", a.weight.to_string(), b.weight.to_string());
        note(Some(id), "zone", a.zone.clone(), b.zone.clone());
    }
    let gone = now.nodes.iter().filter(|(id, _)| !wanted.nodes.contains_key(id)).map(|(id, node)| {
        Difference { node: Some(id.clone()), key: "node", from: Some(node.client.clone()), to: None }
    });
    let added = wanted.nodes.iter().filter(|(id, _)| !now.nodes.contains_key(id)).map(|(id, node)| {
        Difference { node: Some(id.clone()), key: "node", from: None, to: Some(node.client.clone()) }
    });
    all.extend(gone);
    all.extend(added);
    all
}

#[cfg(test)]
pub(crate) mod tests;
