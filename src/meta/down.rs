//! Nodes that are down for long: where their replicas are to be meanwhile. One pure step.
//!
//! Every node says once a second that it is there, when there is room for its replicas at all. The leader of the meta group
//! listens, and counts by its own clock ([`crate::worker`]); a new leader begins to count anew. Who was silent for
//! `down_after` is *down*: it stays a member, but the placement is made without it, by the same rules as when a node leaves,
//! and carried out as any change ([`super::moves`]). When it is heard again, it gets its share back in the same way.
//!
//! - A leader that is cut off itself judges nobody: it needs the others to commit what it says.
//! - Nothing moves when there are fewer nodes left than replicas of a partition, nor in a group most of whose replicas are
//!   down, which can agree on nothing.
//! - It is no plan that could become stale: what moves is judged again from the map that there is, every second.

use super::moves::aim_of;
use super::plan::{Wanted, meta_seats, placement_of};
use ringfort_ring::{NodeId, NodeSpec, Placement, Seats, place};
use ringfort_wire::{ClusterMap, Down};
use std::collections::BTreeSet;

/// Whether a node could be down, and its replicas elsewhere, or be back: only then need anybody listen.
pub fn is_watched(map: &ClusterMap) -> bool {
    let holders = map.nodes.iter().filter(|node| !node.is_leaving && node.weight > 0).count();
    holders > usize::from(map.replicas) || map.nodes.iter().any(|node| node.is_down)
}

/// The nodes with a weight of 0 for those that are down; `None` when the others are too few for the replicas of a partition.
pub fn able(nodes: &[NodeSpec], replicas: u16, is_down: impl Fn(&NodeId) -> bool) -> Option<Vec<NodeSpec>> {
    let holders = |nodes: &[NodeSpec]| nodes.iter().filter(|node| node.weight > 0).count();
    let weight = |node: &NodeSpec| if is_down(&node.id) { 0 } else { node.weight };
    let able: Vec<_> = nodes.iter().map(|node| NodeSpec { weight: weight(node), ..node.clone() }).collect();
    let needed = holders(nodes).min(usize::from(replicas.max(1)));
    (needed <= holders(&able)).then_some(able)
}

/// What the meta group is to be told when these nodes are down, and no others; `None`: what the map says already.
pub fn judged(map: &ClusterMap, down: &BTreeSet<NodeId>) -> Option<Down> {
    let now = placement_of(map);
    let meta_now = aim_of(&map.meta);
    let is_known = map.nodes.iter().all(|node| node.is_down == down.contains(&node.id));
    let aims = now.partitions.iter().chain([&meta_now]);
    if is_known && !aims.flat_map(|seats| &seats.replicas).any(|id| down.contains(id)) {
        return None;
    }
    let (next, meta) = places(map, down, &now, &meta_now).unwrap_or_else(|| (now.clone(), meta_now.clone()));
    let is_same = next == now && meta == meta_now;
    (!is_known || !is_same).then(|| Down {
        planned_epoch: map.planned_epoch,
        nodes: down.iter().cloned().collect(),
        partitions: next.partitions,
        meta,
    })
}

fn places(
    map: &ClusterMap,
    down: &BTreeSet<NodeId>,
    now: &Placement,
    meta_now: &Seats,
) -> Option<(Placement, Seats)> {
    let nodes = able(&Wanted::of_map(map).specs(), map.replicas, |id| down.contains(id))?;
    let mut next = place(Some(now), &nodes, map.partitions, map.replicas).ok()?;
    for (group, (was, is)) in map.groups.iter().zip(now.partitions.iter().zip(&mut next.partitions)) {
        let lost = group.seats.iter().filter(|seat| down.contains(&seat.node)).count();
        if lost * 2 >= group.seats.len() {
            is.clone_from(was);
        }
    }
    // Leaders are divided anew only when replicas are.
    if next.partitions.iter().zip(&now.partitions).all(|(is, was)| is.replicas == was.replicas) {
        next.clone_from(now);
    }
    Some((next, meta_seats(Some(meta_now), &nodes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::form::tests::sample_map;
    use crate::meta::moves::{abort, advance, arrived, down};
    use crate::meta::replace::left;
    use ringfort_wire::map::MapNode;

    fn ids(names: &[&str]) -> BTreeSet<NodeId> {
        names.iter().map(|name| NodeId((*name).to_owned())).collect()
    }

    /// Four nodes, each with its share.
    fn four() -> ClusterMap {
        let mut map = sample_map();
        let n4 = MapNode { id: NodeId("n4".into()), store_id: 44, ..map.nodes[0].clone() };
        map.nodes.push(n4);
        let placed = place(None, &Wanted::of_map(&map).specs(), map.partitions, 3).unwrap();
        for (group, seats) in map.groups.iter_mut().zip(placed.partitions) {
            for (seat, node) in group.seats.iter_mut().zip(&seats.replicas) {
                seat.node = node.clone();
            }
            group.leader = seats.leader;
        }
        map
    }

    /// The judgement is made, and everything that it has moved has come.
    fn judge(map: &mut ClusterMap, names: &[&str]) -> u32 {
        let said = judged(map, &ids(names)).expect("it is news");
        down(map, &said, 7).unwrap();
        advance(map);
        let total = map.change.as_ref().map_or(0, |change| change.total);
        while map.change.is_some() {
            let groups: Vec<_> = map.all_groups().map(|(id, group)| (id.0, group.clone())).collect();
            for (id, group) in groups {
                arrived(map, &[(id, group.joining)]);
                left(map, &[(id, group.leaving.iter().map(|seat| seat.replica).collect())]);
            }
            advance(map);
        }
        assert_eq!(judged(map, &ids(names)), None, "that is all");
        total
    }

    fn held(map: &ClusterMap, name: &str) -> usize {
        map.groups.iter().filter(|group| group.replica_on(&NodeId(name.into())).is_some()).count()
    }

    #[test]
    fn a_node_that_is_down_has_its_replicas_elsewhere_until_it_is_back() {
        let mut map = four();
        let share = held(&map, "n4");
        assert_eq!(judged(&map, &ids(&[])), None);
        assert_eq!(judge(&mut map, &["n4"]) as usize, share, "each of its replicas once");
        assert_eq!(held(&map, "n4"), 0);
        assert!(map.groups.iter().all(|group| group.seats.len() == 3));
        assert!(map.nodes[3].is_down && !map.nodes[3].is_leaving, "it stays a member");
        assert_eq!(judge(&mut map, &[]) as usize, share);
        assert!(held(&map, "n4") == share && !map.nodes[3].is_down);
    }

    #[test]
    fn without_room_it_is_only_noted() {
        let mut map = sample_map();
        assert!(!is_watched(&map) && is_watched(&four()));
        let before = map.groups.clone();
        assert_eq!(judge(&mut map, &["n2"]), 0);
        assert!(map.nodes[1].is_down && map.groups == before && is_watched(&map));
        judge(&mut map, &[]);
        assert!(!map.nodes[1].is_down && map.groups == before);
        // Two of four: the first one's replicas have moved, the second one's cannot.
        let mut map = four();
        judge(&mut map, &["n4"]);
        assert_eq!(judge(&mut map, &["n3", "n4"]), 0);
        assert!(held(&map, "n3") > 0);
        assert!(judge(&mut map, &["n3"]) > 0, "there is room again");
        assert_eq!(held(&map, "n3"), 0);
    }

    #[test]
    fn a_group_that_cannot_agree_stays_where_it_is() {
        let mut map = four();
        for group in &mut map.groups {
            group.seats.truncate(1);
            group.leader = group.seats[0].node.clone();
        }
        map.replicas = 1;
        let lost = map.groups[0].seats[0].node.0.clone();
        let before = held(&map, &lost);
        judge(&mut map, &[&lost]);
        assert_eq!(held(&map, &lost), before);
    }

    #[test]
    fn nobody_gives_up_what_nobody_asked_for() {
        let mut map = four();
        let said = judged(&map, &ids(&["n4"])).unwrap();
        down(&mut map, &said, 7).unwrap();
        advance(&mut map);
        let before = map.clone();
        assert!(abort(&mut map).is_err() && map == before);
        assert_eq!((down(&mut map, &said, 8), &map), (Ok(()), &before), "the same again is no news");
        map.planned_epoch += 1;
        assert!(down(&mut map, &said, 7).is_err(), "judged before somebody's change");
    }
}
