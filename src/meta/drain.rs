//! Nodes that are to lead nothing for a while: `ringfort drain` before a restart, `ringfort undrain` after it.
//!
//! A drained node keeps its replicas, and they vote. Each group that prefers it as its leader has a *deputy*, another of its
//! seats, which the state machine of the meta group names after every operation from the map alone. So a deputy is never
//! somebody who has lost his seat or was drained since, and the preferred leader is what it was when the node is undrained.

use ringfort_ring::NodeId;
use ringfort_wire::ClusterMap;
use ringfort_wire::map::{MapGroup, MapNode};
use std::collections::BTreeMap;

/// Drains a node, or ends that.
///
/// # Errors
/// An error reply: there is no such node, or a group would have no replica on a node that is not drained.
pub fn drain(map: &mut ClusterMap, node: &NodeId, is_drained: bool) -> Result<(), &'static [u8]> {
    let old = map.node(node).ok_or(&b"-ERR no such node\r\n"[..])?;
    if old.is_drained == is_drained {
        return Ok(());
    }
    let can_lead = |id: &NodeId| id != node && map.node(id).is_some_and(|node| !node.is_drained);
    let is_left_without = |group: &MapGroup| {
        let target = group.target.as_ref().map(|target| target.replicas.iter().any(can_lead));
        target == Some(false) || !group.seats.iter().any(|seat| can_lead(&seat.node))
    };
    if is_drained && map.all_groups().any(|(_, group)| is_left_without(group)) {
        return Err(
            b"-ERR a partition, or the meta group, has no replica on another node that is not drained\r\n",
        );
    }
    map.nodes.iter_mut().filter(|other| other.id == *node).for_each(|node| node.is_drained = is_drained);
    map.epoch += 1;
    Ok(())
}

/// Names deputies where the preferred leader is drained: whom the group has already, else the seat whose node has the least to
/// lead for its weight. Whether anything has changed.
pub fn deputize(map: &mut ClusterMap) -> bool {
    let ClusterMap { nodes, meta, groups, .. } = map;
    let able = nodes.iter().filter(|node| !node.is_drained);
    let weights: BTreeMap<&NodeId, u64> = able.map(|node| (&node.id, node.weight.max(1).into())).collect();
    let is_able = |id: &NodeId| weights.contains_key(id);
    let mut leads: BTreeMap<NodeId, u64> = BTreeMap::new();
    let (mut is_changed, mut open) = (false, Vec::new());
    for group in core::iter::once(meta).chain(groups) {
        let is_needed = nodes.iter().any(|node: &MapNode| node.id == group.leader && node.is_drained);
        let deputy = group
            .deputy
            .take_if(|id| !is_needed || !is_able(id) || group.seats.iter().all(|s| s.node != *id));
        is_changed |= deputy.is_some();
        if is_needed && group.deputy.is_none() {
            open.push(group);
        } else {
            *leads.entry(group.wanted_leader().clone()).or_default() += 1;
        }
    }
    for group in open {
        let seats = group.seats.iter().filter(|seat| is_able(&seat.node));
        let deputy = seats.min_by_key(|seat| {
            let load = (leads.get(&seat.node).copied().unwrap_or(0) + 1) * 1_000_000;
            (group.joining.contains(&seat.replica), load / weights[&seat.node], &seat.node)
        });
        group.deputy = deputy.map(|seat| seat.node.clone());
        is_changed |= group.deputy.is_some();
        *leads.entry(group.wanted_leader().clone()).or_default() += 1;
    }
    is_changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::form::tests::sample_map;
    use crate::meta::moves;

    fn id(n: usize) -> NodeId {
        NodeId(format!("n{n}"))
    }

    fn set(map: &mut ClusterMap, n: usize, is_drained: bool) -> Result<(), &'static [u8]> {
        let result = drain(map, &id(n), is_drained);
        deputize(map);
        result
    }

    /// How many partitions each node of three is to lead.
    fn shares(map: &ClusterMap) -> [usize; 3] {
        [1, 2, 3].map(|n| map.groups.iter().filter(|group| *group.wanted_leader() == id(n)).count())
    }

    #[test]
    fn what_a_drained_node_leads_is_spread_and_comes_back() {
        let mut map = sample_map();
        let before = map.clone();
        set(&mut map, 1, true).unwrap();
        assert_eq!(shares(&map), [0, 32, 32]);
        assert_ne!(*map.meta.wanted_leader(), id(1));
        assert_eq!(map.epoch, before.epoch + 1);
        let placed = |map: &ClusterMap| map.groups.iter().map(MapGroup::placed).collect::<Vec<_>>();
        assert_eq!(placed(&map), placed(&before), "its replicas stay, and it is still preferred");
        assert_eq!(ClusterMap::from_json(&map.to_json()), Ok(map.clone()));
        // Asked again, nothing changes.
        let again = map.clone();
        set(&mut map, 1, true).unwrap();
        assert_eq!(map, again);
        set(&mut map, 1, false).unwrap();
        assert_eq!(map, ClusterMap { epoch: before.epoch + 2, ..before });
    }

    #[test]
    fn the_last_that_can_lead_a_group_is_not_drained() {
        let mut map = sample_map();
        assert_eq!(set(&mut map, 9, true), Err(&b"-ERR no such node\r\n"[..]));
        set(&mut map, 1, true).unwrap();
        set(&mut map, 2, true).unwrap();
        assert_eq!(shares(&map), [0, 0, 64]);
        let before = map.clone();
        assert!(set(&mut map, 3, true).is_err());
        assert_eq!(map, before);
        set(&mut map, 1, false).unwrap();
        set(&mut map, 3, true).unwrap();
        assert_eq!(shares(&map), [64, 0, 0]);
    }

    #[test]
    fn a_deputy_holds_a_seat_and_is_not_drained_whatever_happens() {
        let mut map = sample_map();
        set(&mut map, 1, true).unwrap();
        // n2 leaves the seats of partition 0, which n1 is preferred for.
        let at = map.groups.iter().position(|group| group.leader == id(1)).unwrap();
        map.groups[at].deputy = Some(id(2));
        map.groups[at].seats.retain(|seat| seat.node != id(2));
        assert!(deputize(&mut map));
        assert_eq!(*map.groups[at].wanted_leader(), id(3));
        assert!(!deputize(&mut map));
        // Who leads without a majority of those that could is better than nobody.
        map.groups[at].seats.retain(|seat| seat.node == id(1));
        deputize(&mut map);
        assert_eq!(*map.groups[at].wanted_leader(), id(1));
        assert_eq!(moves::aim_of(&map.groups[at]).leader, id(1));
    }
}
