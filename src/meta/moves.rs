//! How a change of the members is carried out: by the state machine of the meta group itself.
//!
//! Nobody coordinates. A group whose replicas are not where they are to be has a `target` in the map. After every
//! operation of the meta group's log [`advance`] looks at the map alone and gives groups their next seats, a bounded number
//! at a time; the groups' own leaders carry that out ([`crate::shard::membership`]) and report what is done, which is the
//! next operation. So the plan is replicated with the map, there is nothing that a crash could interrupt, and two leaders
//! of the meta group cannot disagree.
//!
//! ```text
//! Apply    --> members, targets           groups that differ have a `target`; nodes that are not wanted are `is_leaving`
//! Replace  --> a new node has a folder    only then is anything moved to it
//! advance  --> seats                      one replica of a group is exchanged for one on another node, then the next
//! Arrived, Left --> the group is settled  it may go on, or is where it is to be
//! advance  --> the end                    no group has a target: nodes that leave are forgotten
//! Abort    --> targets                    the same way back, from wherever it is
//! Down     --> targets                    the same without the nodes that are down ([`super::down`])
//! ```
//!
//! A node that is lost holds nothing up. When a group waits for a replica on a node where none is to be any more, because
//! another change or an abort came meanwhile, [`advance`] turns the exchange round. The seat goes back to the replica that
//! was to give it up, under its old id, for that one runs still and may vote still. Or it goes on to a new one, where the
//! old one is not wanted either. Who votes only the group's log says: if the old replica has left already, its leader
//! reports that, and the node gets a new one. So no id is taken in twice.
//!
//! Bounds: a node receives or sends, as the leader of what others receive, at most so many replicas at a time as the config
//! file says (`moves_at_once`); one replica of a group moves at a time, but replicas that only come, or only go, do so
//! together. Which begin first: `moves/room.rs`.

mod room;

use ringfort_ring::{NodeId, Seats};
use ringfort_wire::ClusterMap;
use ringfort_wire::map::{MapChange, MapGroup, MapNode, MapSeat};
use ringfort_wire::meta::{Apply, Down, Member};
use std::collections::VecDeque;

use super::plan::FORMER_NODES_MAX;
use room::{Begun, Exchange, Room};

#[cfg(test)]
pub(crate) use room::seeder;

type Refused = &'static [u8];

/// Takes a change of the members.
///
/// # Errors
/// An error reply: it was planned from an older map, or contradicts itself.
pub fn apply(map: &mut ClusterMap, wanted: &Apply, at_ms: u64) -> Result<(), Refused> {
    check(map, wanted)?;
    let placed = core::iter::once(&wanted.meta).chain(&wanted.partitions);
    let is_same = wanted.replicas == map.replicas
        && wanted.moving == map.moving
        && map.nodes.iter().filter(|node| !node.is_leaving).map(member_of).eq(wanted.nodes.iter().cloned())
        && map.all_groups().zip(placed.clone()).all(|((_, group), seats)| aim_of(group) == *seats);
    if is_same {
        return Ok(());
    }
    if wanted.planned_epoch != map.planned_epoch {
        return Err(b"-ERR the members have changed meanwhile; plan again\r\n");
    }
    let first = map.change.take().unwrap_or_else(|| new_change(map, at_ms));
    set_members(map, &wanted.nodes, wanted.replicas);
    map.moving = wanted.moving;
    let total = aim_all(map, placed);
    map.change = Some(MapChange { total, is_abort: false, is_repair: false, ..first });
    planned(map);
    Ok(())
}

/// Takes the judgement who is down, and has the groups be elsewhere meanwhile: a change of its own, or a part of the one
/// that is under way.
///
/// # Errors
/// An error reply: it was planned from an older map, or contradicts itself.
pub fn down(map: &mut ClusterMap, wanted: &Down, at_ms: u64) -> Result<(), Refused> {
    let is_member = |id: &NodeId| map.node(id).is_some_and(|node| !node.is_leaving);
    check_places(map, &wanted.meta, &wanted.partitions, is_member)?;
    if wanted.planned_epoch != map.planned_epoch {
        return Err(b"-ERR the members have changed meanwhile; plan again\r\n");
    }
    let mut is_news = false;
    for node in &mut map.nodes {
        let is_down = wanted.nodes.contains(&node.id);
        is_news |= core::mem::replace(&mut node.is_down, is_down) != is_down;
    }
    let placed = core::iter::once(&wanted.meta).chain(&wanted.partitions);
    if map.all_groups().zip(placed.clone()).any(|((_, group), seats)| aim_of(group) != *seats) {
        let first = MapChange { is_repair: true, ..new_change(map, at_ms) };
        let change = map.change.take().unwrap_or(first);
        let total = aim_all(map, placed);
        map.change = Some(MapChange { total, ..change });
        is_news = true;
    }
    // Nobody wished it: what somebody plans now is planned well enough.
    map.epoch += u64::from(is_news);
    Ok(())
}

/// A change of what there is now.
fn new_change(map: &ClusterMap, at_ms: u64) -> MapChange {
    MapChange {
        at_ms,
        total: 0,
        is_abort: false,
        is_repair: false,
        nodes: map.nodes.clone(),
        replicas: map.replicas,
        moving: map.moving,
    }
}

/// Gives the change up that is under way: its way back is a change as well.
///
/// # Errors
/// An error reply: there is none.
pub fn abort(map: &mut ClusterMap) -> Result<(), Refused> {
    let Some(mut change) = map.change.take_if(|change| !change.is_repair) else {
        return Err(match map.change {
            None => b"-ERR no change of the members is under way\r\n",
            Some(_) => b"-ERR what moves, moves because a node is down or came back: nobody asked for it\r\n",
        });
    };
    let is_first = !core::mem::replace(&mut change.is_abort, true);
    let members: Vec<Member> = change.nodes.iter().filter(|node| !node.is_leaving).map(member_of).collect();
    let replicas = change.replicas;
    if is_first {
        set_members(map, &members, replicas);
        map.moving = change.moving;
        let back = |group: &MapGroup| group.before.clone().unwrap_or_else(|| group.placed());
        let back: Vec<Seats> = map.all_groups().map(|(_, group)| back(group)).collect();
        change.total = aim_all(map, back.iter());
    }
    map.change = Some(change);
    if is_first {
        planned(map);
    }
    Ok(())
}

/// Replicas that vote now.
pub fn arrived(map: &mut ClusterMap, replicas: &[(u16, Vec<u64>)]) {
    let mut is_changed = false;
    for (id, replicas) in replicas {
        let Some(group) = groups_mut(map).nth(usize::from(*id)) else { continue };
        let unproven = |group: &MapGroup| group.joining.len() + group.returned.len();
        let before = unproven(group);
        group.joining.retain(|replica| !replicas.contains(replica));
        group.returned.retain(|replica| !replicas.contains(replica));
        is_changed |= unproven(group) < before;
    }
    map.epoch += u64::from(is_changed);
}

/// Gives groups their next seats, a bounded number of new ones for each node that receives or sends, and ends the change
/// when every group is where it is to be.
pub fn advance(map: &mut ClusterMap) {
    if map.change.is_none() {
        return;
    }
    let epoch = map.epoch + 1;
    let is_moving = begin_moves(map, epoch);
    let is_over = groups_mut(map).all(|group| group.target.is_none() && group.is_settled());
    if is_over {
        end(map);
    }
    if is_moving || is_over {
        map.epoch = epoch;
    }
}

/// `epoch`: that of the map in which groups have their next seats.
fn begin_moves(map: &mut ClusterMap, epoch: u64) -> bool {
    let mut room = Room::of(map);
    let mut is_changed = false;
    let mut exchanges = Vec::new();
    for (at, group) in groups_mut(map).enumerate() {
        let Some(target) = group.target.clone().filter(|_| !group.is_recovering()) else { continue };
        if group.is_settled() {
            let next = Exchange::next(group, &target);
            if next.is_empty() {
                group.leader = target.leader;
                group.target = None;
                is_changed = true;
            }
            exchanges.extend(next.into_iter().map(|exchange| (at, exchange)));
        } else if let Some(seats) = turned(group, &target, &mut room) {
            seat(group, &target, seats);
            group.turned_epoch = epoch;
            is_changed = true;
        }
    }
    let begun = room.begin(exchanges);
    is_changed |= !begun.is_empty();
    let mut groups: Vec<&mut MapGroup> = groups_mut(map).collect();
    for Begun { group, come, go } in begun {
        let Some(target) = groups[group].target.clone() else { continue };
        let stays = groups[group].seats.iter().filter(|seat| !go.contains(&seat.node));
        let seats = stays.cloned().chain(come).collect();
        seat(groups[group], &target, seats);
    }
    map.next_replica = room.next_replica;
    is_changed
}

/// Gives a group its next seats. When its leader loses its own, another one is to lead: who is wanted in the end, or who
/// has a seat already.
fn seat(group: &mut MapGroup, target: &Seats, mut seats: Vec<MapSeat>) {
    let is_seated = |node: &NodeId| seats.iter().any(|seat| seat.node == *node);
    if !is_seated(&group.leader) {
        let heir = if is_seated(&target.leader) {
            Some(&target.leader)
        } else {
            seats.first().map(|seat| &seat.node)
        };
        group.leader = heir.unwrap_or(&target.leader).clone();
    }
    seats.sort_by(|a, b| a.node.cmp(&b.node));
    group.set_seats(seats);
}

/// The seats of a group that is not settled when the replicas that it waits for, or that it gives seats up for, are not
/// wanted any more, as far as others can have them now; `None`: nothing is to be turned round.
fn turned(group: &MapGroup, target: &Seats, room: &mut Room) -> Option<Vec<MapSeat>> {
    let is_wanted = |seat: &MapSeat| target.replicas.contains(&seat.node);
    let (mut seats, mut strays): (Vec<MapSeat>, Vec<MapSeat>) =
        group.seats.iter().cloned().partition(is_wanted);
    strays.sort_by_key(|seat| !group.is_unproven(seat.replica));
    let mut strays = VecDeque::from(strays);
    let is_missing = |seats: &[MapSeat], node: &NodeId| seats.iter().all(|seat| seat.node != *node);
    let mut is_changed = false;
    // Who gives a seat up, and is wanted back, needs no state.
    let leaves = |seat: &&MapSeat| !group.lost.contains(&seat.replica);
    for old in group.leaving.iter().filter(leaves).filter(|seat| is_wanted(seat)) {
        let is_vacant = seats.len() + strays.len() < target.replicas.len();
        if is_missing(&seats, &old.node) && (strays.pop_front().is_some() || is_vacant) {
            seats.push(old.clone());
            is_changed = true;
        }
    }
    // Two replicas of one group cannot run on one node.
    let is_taken = |node: &NodeId| group.leaving.iter().filter(leaves).any(|seat| seat.node == *node);
    // A group that shrinks waits for those that stay: one of them may be lost, and of two it needs both.
    let shrinks = group.leaving.len() > 1 || group.seats.len() < 3;
    let is_shrinking = shrinks && group.joining.is_empty() && group.returned.is_empty();
    while let Some(stray) = strays.front() {
        if !group.is_unproven(stray.replica) && (is_changed || !is_shrinking) {
            break;
        }
        let missing = || target.replicas.iter().filter(|node| is_missing(&seats, node));
        let fresh = missing().find(|node| !is_taken(node) && room.admits(node)).cloned();
        if fresh.is_none() && missing().next().is_some() {
            break;
        }
        seats.extend(fresh.map(|node| room.new_seat(node)));
        strays.pop_front();
        is_changed = true;
    }
    if target.replicas.iter().any(|node| is_missing(&seats, node)) {
        seats.extend(strays);
    }
    is_changed.then_some(seats)
}

/// Nodes that left have no replica any more: the map forgets them, and what it was before.
fn end(map: &mut ClusterMap) {
    let before = map.change.take().map_or_else(Vec::new, |change| change.nodes);
    let left = map.nodes.iter().filter(|node| node.is_leaving).map(|node| node.id.clone());
    // One that came with a change that was given up may come again.
    map.former_nodes.extend(left.filter(|id| before.iter().any(|node| node.id == *id)));
    while map.former_nodes.len() > FORMER_NODES_MAX {
        map.former_nodes.pop_first();
    }
    map.nodes.retain(|node| !node.is_leaving);
    for group in groups_mut(map) {
        group.before = None;
    }
}

/// Where a group is to be in the end.
pub fn aim_of(group: &MapGroup) -> Seats {
    group.target.clone().unwrap_or_else(|| group.placed())
}

/// Aims every group, in the order of their ids. Returns how many replicas some node has to receive.
fn aim_all<'a>(map: &mut ClusterMap, placed: impl Iterator<Item = &'a Seats>) -> u32 {
    let mut total = 0;
    for (group, seats) in groups_mut(map).zip(placed) {
        aim(group, seats.clone());
        total += received(group);
    }
    total
}

fn aim(group: &mut MapGroup, seats: Seats) {
    let placed = group.placed();
    let is_there = placed == seats;
    if !is_there && group.before.is_none() {
        group.before = Some(placed);
    }
    group.target = (!is_there).then_some(seats);
}

/// Replicas that the group still has to take in.
pub fn received(group: &MapGroup) -> u32 {
    let Some(target) = &group.target else { return 0 };
    let missing = target.replicas.iter().filter(|node| group.replica_on(node).is_none()).count();
    u32::try_from(missing).unwrap_or(u32::MAX)
}

fn set_members(map: &mut ClusterMap, wanted: &[Member], replicas: u16) {
    map.replicas = replicas;
    let mut nodes: Vec<MapNode> = Vec::new();
    for old in &map.nodes {
        if !wanted.iter().any(|member| member.id == old.id) {
            nodes.push(MapNode { is_leaving: true, ..old.clone() });
        }
    }
    for member in wanted {
        let old = map.node(&member.id);
        nodes.push(MapNode {
            id: member.id.clone(),
            client: member.client.clone(),
            tls_client: old.and_then(|old| old.tls_client.clone()),
            peer: member.peer.clone(),
            weight: member.weight,
            zone: member.zone.clone(),
            store_id: old.map_or(0, |old| old.store_id),
            is_leaving: false,
            is_drained: old.is_some_and(|old| old.is_drained),
            is_down: old.is_some_and(|old| old.is_down),
        });
    }
    nodes.sort_by(|a, b| a.id.cmp(&b.id));
    map.nodes = nodes;
}

fn member_of(node: &MapNode) -> Member {
    let MapNode { id, client, peer, weight, zone, .. } = node.clone();
    Member { id, client, peer, weight, zone }
}

fn planned(map: &mut ClusterMap) {
    map.epoch += 1;
    map.planned_epoch = map.epoch;
}

/// The meta group, then the partitions: index = group id.
fn groups_mut(map: &mut ClusterMap) -> impl Iterator<Item = &mut MapGroup> {
    core::iter::once(&mut map.meta).chain(&mut map.groups)
}

/// What every replica of the meta group must be sure of before it takes a change. That an id is not given twice is for the
/// sake of people, and seen to when a change is planned; replicas never have the same id.
fn check(map: &ClusterMap, wanted: &Apply) -> Result<(), Refused> {
    if !wanted.nodes.windows(2).all(|pair| pair[0].id < pair[1].id) {
        return Err(b"-ERR the members are not in the order of their ids\r\n");
    }
    let is_member = |id: &NodeId| wanted.nodes.iter().any(|node| node.id == *id);
    check_places(map, &wanted.meta, &wanted.partitions, is_member)
}

fn check_places(
    map: &ClusterMap,
    meta: &Seats,
    partitions: &[Seats],
    is_member: impl Fn(&NodeId) -> bool,
) -> Result<(), Refused> {
    if partitions.len() != map.groups.len() {
        return Err(b"-ERR the number of partitions never changes\r\n");
    }
    let is_sound = |seats: &Seats| {
        let is_distinct = seats.replicas.windows(2).all(|pair| pair[0] < pair[1]);
        is_distinct && seats.replicas.contains(&seats.leader) && seats.replicas.iter().all(&is_member)
    };
    if !core::iter::once(meta).chain(partitions).all(is_sound) {
        return Err(b"-ERR replicas are not on distinct members, or not led by one of them\r\n");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
