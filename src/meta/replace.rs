//! How a lost data folder is replaced.
//!
//! ```text
//! node with an empty folder          a member that leads the meta group             every group
//! asks all for the map;
//! it names this node, by
//! another folder  -- Replace -->     probes the node's own address: this very
//!                                    folder must answer there, so no process
//!                                    can serve the old one
//!                                    commits: new store id, a new replica id
//!                                    for each of the node's seats, the old
//!                                    ones leave                      -- map -->     its leader goes on: `shard::membership`
//! takes the map, starts with          <-------------- Left ---------------          the old replica takes part no more
//! empty replicas                     forgets the old replica ids
//! ```
//!
//! A node that was added to the members joins so too: its old folder is 0, and it has no seats yet.
//!
//! A replica id that was given once is never given again: the new replicas have promised nothing, and what the old ones
//! promised cannot be broken. So nothing here depends on the old folder being truly gone; that check only keeps a copy of
//! a node from taking the seats of one that works.

use super::recover;
use ringfort_ring::NodeId;
use ringfort_wire::map::{MapGroup, MapSeat};
use ringfort_wire::{ClusterMap, GroupId};
use std::collections::BTreeSet;

/// Gives all seats of `node`, whose folder was `old_store` and is `new_store` now, to new replicas.
///
/// # Errors
/// An error reply: the map knows neither folder, or a group would have nobody left to copy from.
pub fn replace(
    map: &mut ClusterMap,
    node: &NodeId,
    old_store: &str,
    new_store: &str,
) -> Result<(), &'static [u8]> {
    let parse = |text| u128::from_str_radix(text, 16).ok();
    let (Some(old), Some(new)) = (parse(old_store), parse(new_store).filter(|&id| id != 0)) else {
        return Err(b"-ERR a store id is 32 hexadecimal digits\r\n");
    };
    let Some(member) = map.nodes.iter_mut().find(|n| n.id == *node) else {
        return Err(b"-ERR the cluster has no such node\r\n");
    };
    if member.store_id == new {
        return Ok(());
    }
    if member.store_id != old {
        return Err(b"-ERR the cluster knows the node by another data folder meanwhile\r\n");
    }
    if !can_lose(map, node) {
        return Err(
            b"-ERR the lost data folder held replicas without which their groups have no majority\r\n",
        );
    }
    if let Some(member) = map.nodes.iter_mut().find(|n| n.id == *node) {
        member.store_id = new;
    }
    for group in core::iter::once(&mut map.meta).chain(&mut map.groups) {
        let awaits = begins_empty_on(group, node);
        if group.reseat(node, map.next_replica) {
            if awaits {
                group.found_by(map.next_replica);
            }
            map.next_replica += 1;
        }
        group.lose(node);
    }
    map.epoch += 1;
    Ok(())
}

/// Whether every group would still have a majority without what is on `node`: else there is nobody who could agree to take
/// a new replica in. What the group's log says is not known here, so this must hold for the voters of before the change
/// that is under way, and for those of after it, of whom the new ones may not vote yet. A receiver that is lost is
/// therefore no loss.
pub fn can_lose(map: &ClusterMap, node: &NodeId) -> bool {
    let concerned = map.all_groups().filter(|(_, g)| g.peers().any(|seat| seat.node == *node));
    concerned.filter(|(_, g)| !begins_empty_on(g, node)).all(|(_, g)| {
        let proven = || g.seats.iter().filter(|seat| !g.is_unproven(seat.replica)).map(|seat| &seat.node);
        let is_left = |seat: &&MapSeat| !g.lost.contains(&seat.replica);
        let before: BTreeSet<&NodeId> = proven().chain(g.leaving.iter().map(|seat| &seat.node)).collect();
        let left: BTreeSet<&NodeId> =
            proven().chain(g.leaving.iter().filter(is_left).map(|seat| &seat.node)).collect();
        let has_before = left.iter().filter(|other| **other != node).count() * 2 > before.len();
        let has_after = proven().filter(|other| *other != node).count() * 2 > g.seats.len();
        has_before && (has_after || g.replica_on(node).is_none())
    })
}

/// Whether all that a group had is given up, so that it begins anew with nothing, and on this node: the new folder may
/// be the one in which it does.
fn begins_empty_on(group: &MapGroup, node: &NodeId) -> bool {
    let is_founder = || group.replica_on(node).is_some_and(|replica| group.founders() == [replica]);
    group.recovery.as_ref().is_some_and(|r| r.is_awaited && r.from.is_none()) && is_founder()
}

/// Forgets replicas that take part no more; those that came back to a seat too late are replaced. Said of a group without
/// any: it has begun in its incarnation.
pub fn left(map: &mut ClusterMap, gone: &[(u16, Vec<u64>)]) {
    let mut is_changed = false;
    for (id, replicas) in gone {
        let group = match GroupId(*id).partition() {
            None => Some(&mut map.meta),
            Some(p) => map.groups.get_mut(usize::from(p.0)),
        };
        let Some(group) = group else { continue };
        is_changed |= group.forget(replicas, &mut map.next_replica);
        is_changed |= recover::begun(group);
    }
    map.epoch += u64::from(is_changed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::form::tests::sample_map;
    use ringfort_wire::Aside;
    use ringfort_wire::map::MapNode;

    fn hex(id: u128) -> String {
        format!("{id:032x}")
    }

    #[test]
    fn every_seat_of_the_node_gets_a_fresh_replica() {
        let before = sample_map();
        let mut map = before.clone();
        let n2 = NodeId("n2".into());
        let old = before.node(&n2).unwrap().store_id;
        assert_eq!(replace(&mut map, &n2, &hex(old), &hex(99)), Ok(()));
        assert_eq!((map.node(&n2).unwrap().store_id, map.epoch), (99, before.epoch + 1));
        let mut fresh = BTreeSet::new();
        for ((_, was), (_, is)) in before.all_groups().zip(map.all_groups()) {
            assert_eq!(is.founders(), was.founders(), "how the group began does not change");
            assert_eq!(
                is.leaving.iter().map(|s| s.replica).collect::<Vec<_>>(),
                [was.replica_on(&n2).unwrap()]
            );
            let new = is.replica_on(&n2).unwrap();
            assert!(new >= before.next_replica && fresh.insert(new));
            assert_eq!(is.seats.len(), was.seats.len());
        }
        assert!(fresh.iter().all(|&id| id < map.next_replica));
        let again = map.clone();
        assert_eq!(replace(&mut map, &n2, &hex(old), &hex(99)), Ok(()));
        assert_eq!(map, again, "asking again changes nothing");
        assert!(replace(&mut map, &n2, &hex(old), &hex(100)).is_err(), "asked from an old map");
        assert_eq!(replace(&mut map, &n2, &hex(99), &hex(100)), Ok(()), "lost once more");
        let n3 = NodeId("n3".into());
        let other = map.node(&n3).unwrap().store_id;
        assert!(replace(&mut map, &n3, &hex(other), &hex(101)).is_err(), "the groups may need its vote");
        assert!(map.groups.iter().all(|g| g.leaving.len() == 2));
    }

    #[test]
    fn replicas_that_left_are_forgotten_once() {
        let mut map = sample_map();
        let n2 = NodeId("n2".into());
        let old = map.node(&n2).unwrap().store_id;
        replace(&mut map, &n2, &hex(old), &hex(99)).unwrap();
        let gone = vec![(0, vec![map.meta.leaving[0].replica]), (3, vec![map.groups[2].leaving[0].replica])];
        let epoch = map.epoch;
        left(&mut map, &gone);
        assert!(map.meta.leaving.is_empty() && map.groups[2].leaving.is_empty());
        assert_eq!((map.groups[3].leaving.len(), map.epoch), (1, epoch + 1));
        left(&mut map, &gone);
        assert_eq!(map.epoch, epoch + 1);
        let joining = map.groups[3].joining[0];
        let before = map.clone();
        let seated = map.groups[3].seats[0].replica;
        left(&mut map, &[(4, vec![joining, seated]), (9999, vec![1])]);
        assert_eq!(map, before, "it has not come yet, or was never to leave");
        let mut seats = map.groups[3].seats.clone();
        seats.remove(0);
        map.groups[3].set_seats(seats);
        map.groups[3].set_seats(before.groups[3].seats.clone());
        assert_eq!(map.groups[3].returned, [seated]);
        left(&mut map, &[(4, vec![seated])]);
        let fresh = map.groups[3].seats[0].replica;
        assert_eq!((fresh, map.next_replica), (before.next_replica, before.next_replica + 1));
        assert!(map.groups[3].joining.contains(&fresh), "whose replica has left gets a new one");
    }

    #[test]
    fn a_replica_that_stood_aside_and_has_left_is_not_waited_for() {
        let (mut map, _) = moving();
        let leaving = map.groups[0].leaving[0].replica;
        let said = Aside { group: 1, incarnation: 1, aside: recover::aside(leaving, true, (0, 0)) };
        recover::asides(&mut map, &[said], 1);
        assert!(map.groups[0].is_recovering());
        left(&mut map, &[(1, vec![leaving])]);
        assert!(!map.groups[0].is_recovering());
    }

    /// Partition 0 is on three nodes, and one of its replicas moves to a fourth.
    fn moving() -> (ClusterMap, NodeId) {
        let mut map = sample_map();
        let n4 = MapNode { id: NodeId("n4".into()), store_id: 44, ..map.nodes[0].clone() };
        map.nodes.push(n4.clone());
        let mut seats = map.groups[0].seats.clone();
        seats[0] = MapSeat { node: n4.id.clone(), replica: map.next_replica };
        map.next_replica += 1;
        map.groups[0].set_seats(seats);
        (map, n4.id)
    }

    #[test]
    fn the_loss_of_a_receiver_is_no_reason_to_refuse_its_new_folder() {
        let (mut map, receiver) = moving();
        let voter = map.groups[0].seats[1].node.clone();
        assert!(can_lose(&map, &receiver) && !can_lose(&map, &voter), "the receiver may not vote yet");
        let old = map.groups[0].replica_on(&receiver).unwrap();
        replace(&mut map, &receiver, &hex(44), &hex(45)).unwrap();
        let new = map.groups[0].replica_on(&receiver).unwrap();
        assert!(new != old && map.groups[0].joining == [new] && map.groups[0].lost == [old]);
        replace(&mut map, &receiver, &hex(45), &hex(46)).unwrap();
        replace(&mut map, &receiver, &hex(46), &hex(47)).unwrap();
        assert_eq!(map.groups[0].lost.len(), 3, "as often as it may be");
    }

    #[test]
    fn what_leaves_votes_until_it_is_known_to_have_left() {
        // Of three that are to become one, two may still be needed.
        let mut map = sample_map();
        let seats = map.groups[0].seats.clone();
        map.groups.truncate(1);
        map.meta.seats.clear();
        map.groups[0].set_seats(seats[..1].to_vec());
        assert!(!can_lose(&map, &seats[0].node) && can_lose(&map, &seats[1].node));
        map.groups[0].lose(&seats[1].node);
        assert!(!can_lose(&map, &seats[2].node), "then one of three would be left");
        map.groups[0].leaving.clear();
        assert!(can_lose(&map, &seats[2].node), "it is nobody any more");
        // The other way round, nobody knows yet who of the new ones votes.
        let mut map = sample_map();
        map.groups.truncate(1);
        map.meta.seats.clear();
        map.groups[0] = MapGroup::new(seats[..1].to_vec(), seats[0].node.clone());
        map.groups[0].set_seats(seats.clone());
        assert!(seats.iter().all(|seat| !can_lose(&map, &seat.node)));
        map.groups[0].joining.retain(|replica| *replica != seats[1].replica);
        assert!(can_lose(&map, &seats[2].node) && !can_lose(&map, &seats[1].node));
    }

    #[test]
    fn a_group_without_another_majority_is_not_given_up() {
        let mut map = sample_map();
        map.groups[5].seats.truncate(1);
        let node = map.groups[5].seats[0].node.clone();
        let old = map.node(&node).unwrap().store_id;
        let before = map.clone();
        assert!(replace(&mut map, &node, &hex(old), &hex(99)).is_err());
        assert_eq!(map, before);
    }
}
