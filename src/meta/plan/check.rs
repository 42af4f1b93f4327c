//! What must not be done, and what should be known before it is.

use super::cost::NodePlan;
use super::{FORMER_NODES_MAX, Facts, GroupFacts, Refusal, Wanted};
use crate::config::Place;
use crate::meta::partitions_named;
use ringfort_ring::{NodeId, Placement, Seats};
use ringfort_wire::ClusterMap;
use std::collections::{BTreeMap, BTreeSet};

/// Partitions for each node below which a placement is coarse.
const PARTITIONS_PER_NODE: usize = 8;
/// Partitions for each worker below which some have much more to do than others.
const PARTITIONS_PER_WORKER: usize = 4;

/// What never changes, and what cannot yet.
pub(super) fn identity(map: &ClusterMap, wanted: &Wanted) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let mut refuse = |place, text| refusals.push(Refusal::new(place, text));
    if map.name != wanted.name {
        refuse(
            Place::Cluster("name"),
            format!("name is '{}', the cluster's is '{}': it never changes", wanted.name, map.name),
        );
    }
    if map.partitions != wanted.partitions {
        let (is, was) = (wanted.partitions.get(), map.partitions.get());
        refuse(
            Place::Cluster("partitions"),
            format!("partitions is {is}, the cluster has {was}: the number never changes"),
        );
    }
    if map.fsync != wanted.fsync {
        let name = |fsync| if fsync { "fsync" } else { "buffered" };
        refuse(
            Place::Cluster("durability"),
            format!(
                "durability is \"{}\", the cluster's is \"{}\": it cannot be changed yet",
                name(wanted.fsync),
                name(map.fsync)
            ),
        );
    }
    for id in wanted.nodes.keys().filter(|id| map.former_nodes.contains(*id)) {
        refuse(
            Place::Node(id.clone(), "id"),
            format!(
                "id '{id}' was that of a node that left: give the new one another id, ids are never reused"
            ),
        );
    }
    let leaving = map.nodes.iter().filter(|node| !wanted.nodes.contains_key(&node.id)).count();
    if map.former_nodes.len() + leaving > FORMER_NODES_MAX {
        refuse(
            Place::File,
            format!("more than {FORMER_NODES_MAX} nodes would have left: a cluster remembers no more ids"),
        );
    }
    refusals
}

/// Groups that could not agree on their change, or on anything after it.
pub(super) fn majorities(
    facts: &Facts,
    (now, next): (&Placement, &Placement),
    (meta_now, meta): (&Seats, &Seats),
) -> Vec<Refusal> {
    let nothing = GroupFacts::default();
    let mut by_reason: BTreeMap<Lack, Vec<u16>> = BTreeMap::new();
    for ((id, was), is) in (0..).zip(&now.partitions).zip(&next.partitions) {
        let group = facts.partitions.get(usize::from(id)).unwrap_or(&nothing);
        if let Some(reason) = lacks_majority(facts, group, was, is) {
            by_reason.entry(reason).or_default().push(id);
        }
    }
    let of_meta =
        lacks_majority(facts, &facts.meta, meta_now, meta).map(|lack| (lack, "the meta group".to_owned()));
    let of_partitions = by_reason.into_iter().map(|(lack, ids)| (lack, partitions_named(&ids)));
    let refusal = |(Lack { why, may_pass }, who): (Lack, String)| Refusal {
        place: Place::File,
        text: format!("{who} {why}"),
        may_pass,
    };
    of_meta.into_iter().chain(of_partitions).map(refusal).collect()
}

/// Groups that would be on drained nodes alone, which are to lead nothing.
pub(super) fn drained(map: &ClusterMap, next: &Placement, meta: &Seats) -> Option<Refusal> {
    let is_drained = |id: &NodeId| map.node(id).is_some_and(|node| node.is_drained);
    let is_alone = |seats: &Seats| seats.replicas.iter().all(is_drained);
    let ids = (0..).zip(&next.partitions).filter(|(_, seats)| is_alone(seats)).map(|(id, _)| id);
    let ids: Vec<u16> = ids.collect();
    let what = match (ids.is_empty(), is_alone(meta)) {
        (true, false) => return None,
        (true, true) => "the meta group".to_owned(),
        (false, _) => partitions_named(&ids),
    };
    let drained: Vec<&str> = map.nodes.iter().filter(|n| n.is_drained).map(|n| n.id.0.as_str()).collect();
    let text = format!("{what} would be on drained nodes alone ({}): undrain one first", drained.join(", "));
    Some(Refusal::new(Place::File, text))
}

/// Why a group that is to change its members cannot.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Lack {
    /// The rest of a sentence.
    why: String,
    may_pass: bool,
}

fn lacks_majority(facts: &Facts, group: &GroupFacts, now: &Seats, next: &Seats) -> Option<Lack> {
    if now.replicas == next.replicas {
        return None;
    }
    let names = |ids: Vec<&NodeId>| ids.iter().map(|id| id.0.as_str()).collect::<Vec<_>>().join(", ");
    let is_up = |id: &NodeId| facts.nodes.get(id).is_some_and(|node| node.is_up);
    let live = now.replicas.iter().filter(|id| group.live.contains(*id)).count();
    if live * 2 <= now.replicas.len() {
        let why = match &group.leader {
            None => "no leader".to_owned(),
            Some(_) => format!("{live} of {} replicas are up to date", now.replicas.len()),
        };
        let down: Vec<&NodeId> = now.replicas.iter().filter(|id| !is_up(id)).collect();
        let may_pass = down.is_empty();
        let why = match may_pass {
            true => format!("cannot change now: {why}; ask again"),
            false => format!(
                "cannot change: {why}, and nobody answers on {}; start what can be started, or see `ringfort recover`",
                names(down)
            ),
        };
        return Some(Lack { why, may_pass });
    }
    // A new replica votes only when it has caught up.
    let is_down = |id: &NodeId| match now.replicas.contains(id) {
        true => !group.live.contains(id),
        false => facts.nodes.get(id).is_some_and(|node| !node.is_up),
    };
    let dead: Vec<&NodeId> = next.replicas.iter().filter(|id| is_down(id)).collect();
    if (next.replicas.len() - dead.len()) * 2 <= next.replicas.len() {
        let may_pass = dead.iter().all(|id| is_up(id));
        let why = format!(
            "would be left without a majority: {} does not answer or lacks entries; start it, or take it out of the file",
            names(dead)
        );
        return Some(Lack { why, may_pass });
    }
    None
}

/// What is allowed and not as good as it could be.
pub(super) fn warnings(
    map: &ClusterMap,
    wanted: &Wanted,
    facts: &Facts,
    next: &Placement,
    nodes: &[NodePlan],
) -> Vec<String> {
    let mut warnings = Vec::new();
    let partitions = usize::from(wanted.partitions.get());
    let holders = wanted.nodes.values().filter(|node| node.weight > 0).count();
    if partitions < PARTITIONS_PER_NODE * holders {
        warnings.push(format!(
            "{partitions} partitions are few for {holders} nodes: shares differ by one of {}; {PARTITIONS_PER_NODE} for \
             each node or more balance well, and only a new cluster can have another number",
            (partitions * usize::from(wanted.replicas)).div_ceil(holders.max(1))
        ));
    }
    let workers = wanted.nodes.keys().filter_map(|id| facts.nodes.get(id)?.workers);
    let workers: usize = workers.map(usize::from).sum();
    if partitions < PARTITIONS_PER_WORKER * workers {
        warnings.push(format!(
            "{partitions} partitions are few for {workers} workers in all: fewer than {PARTITIONS_PER_WORKER} for each \
             leave some with little to do; start nodes with fewer --workers"
        ));
    }
    warnings.extend(zones(wanted, next));
    warnings.extend(memory(map, wanted, facts, nodes));
    let waiting =
        |node: &&NodePlan| node.receives > 0 && facts.nodes.get(&node.id).is_some_and(|facts| !facts.is_up);
    for node in nodes.iter().filter(waiting) {
        warnings.push(format!(
            "{} does not answer: {} that it is to receive wait for it",
            node.id,
            counted(node.receives, "replica")
        ));
    }
    if facts.meta.leader.is_none() {
        warnings.push("the meta group has no leader: nothing can be changed now".to_owned());
    }
    let dark: Vec<u16> =
        (0..).zip(&facts.partitions).filter(|(_, group)| group.leader.is_none()).map(|(id, _)| id).collect();
    if !dark.is_empty() {
        let verb = if dark.len() == 1 { "has" } else { "have" };
        warnings.push(format!("{} {verb} no leader: their keys are not counted", partitions_named(&dark)));
    }
    let changing: Vec<u16> =
        (0..).zip(&map.groups).filter(|(_, group)| !group.leaving.is_empty()).map(|(id, _)| id).collect();
    if !changing.is_empty() {
        warnings.push(format!(
            "replicas are being replaced already: {}; see `ringfort status`",
            partitions_named(&changing)
        ));
    }
    warnings
}

/// Zones that cannot keep the replicas of a partition apart. With one zone nobody expects that.
fn zones(wanted: &Wanted, next: &Placement) -> Option<String> {
    let mut weights: BTreeMap<&str, u32> = BTreeMap::new();
    for node in wanted.nodes.values().filter(|node| node.weight > 0) {
        *weights.entry(&node.zone).or_default() += node.weight;
    }
    let zone = |id: &NodeId| wanted.nodes.get(id).map(|node| node.zone.as_str());
    let is_shared = |seats: &&Seats| {
        let zones: BTreeSet<_> = seats.replicas.iter().map(zone).collect();
        zones.len() < seats.replicas.len()
    };
    let shared = next.partitions.iter().filter(is_shared).count();
    if weights.len() < 2 || shared == 0 {
        return None;
    }
    let name = |zone: &str| if zone.is_empty() { "(none)".to_owned() } else { zone.to_owned() };
    let all: Vec<String> = weights.iter().map(|(zone, weight)| format!("{} {weight}", name(zone))).collect();
    Some(format!(
        "{} will have replicas that share a zone (weights of the zones: {}): give {} zones or more about the same weight",
        counted(shared, "partition"),
        all.join(", "),
        wanted.replicas
    ))
}

/// Machines whose memory may not be enough. Nodes whose peer addresses have one IP share a machine.
fn memory(map: &ClusterMap, wanted: &Wanted, facts: &Facts, nodes: &[NodePlan]) -> Vec<String> {
    let machine = |id: &NodeId| -> Option<String> {
        let peer = wanted.nodes.get(id).map(|n| &n.peer).or_else(|| map.node(id).map(|n| &n.peer))?;
        Some(peer.rsplit_once(':').map_or(peer.as_str(), |(host, _)| host).to_owned())
    };
    let mut machines: BTreeMap<String, Vec<&NodePlan>> = BTreeMap::new();
    for node in nodes {
        if let Some(machine) = machine(&node.id) {
            machines.entry(machine).or_default().push(node);
        }
    }
    let warning = |nodes: Vec<&NodePlan>| {
        let sum = |of: fn(&NodePlan) -> u64| nodes.iter().map(|node| of(node)).sum::<u64>();
        let most = sum(|node| node.before.bytes + node.peak_extra_bytes);
        // A process needs about 1.5 times the logical bytes of its replicas.
        let need = most.saturating_add(most / 2);
        let memory = nodes.iter().filter_map(|node| facts.nodes.get(&node.id)?.memory_bytes).max()?;
        if sum(|node| node.peak_extra_bytes) == 0 || need <= memory {
            return None;
        }
        let names = nodes.iter().map(|node| node.id.0.as_str()).collect::<Vec<_>>().join(", ");
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        Some(format!(
            "memory may not be enough: {names} may need {} MiB while replicas move, the machine has {} MiB",
            mib(need),
            mib(memory)
        ))
    };
    machines.into_values().filter_map(warning).collect()
}

/// `1 replica`, `2 replicas`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
