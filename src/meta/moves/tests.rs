use super::*;
use crate::meta::form::tests::sample_map;
use crate::meta::{drain, replace};
use ringfort_ring::{NodeSpec, Placement, place};
use ringfort_wire::GroupId;
use ringfort_wire::map::{MapSeat, Moving};
use std::collections::{BTreeMap, BTreeSet};

/// Splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

fn member(n: usize, weight: u32) -> Member {
    Member {
        id: NodeId(format!("n{n}")),
        client: format!("127.0.0.1:{}", 7000 + n),
        peer: format!("127.0.0.1:{}", 8000 + n),
        weight,
        zone: String::new(),
    }
}

/// The change that makes `nodes` the members, planned from where the groups are to be now.
fn plan(map: &ClusterMap, nodes: Vec<Member>, replicas: u16) -> Apply {
    let now = Placement { partitions: map.groups.iter().map(aim_of).collect() };
    let specs: Vec<NodeSpec> =
        nodes.iter().map(|m| NodeSpec { id: m.id.clone(), weight: m.weight, zone: m.zone.clone() }).collect();
    let partitions = place(Some(&now), &specs, map.partitions, replicas).unwrap().partitions;
    let meta: Vec<NodeId> =
        nodes.iter().take(if nodes.len() < 3 { 1 } else { 3 }).map(|m| m.id.clone()).collect();
    let meta = Seats { leader: meta[0].clone(), replicas: meta };
    Apply { planned_epoch: map.planned_epoch, nodes, replicas, moving: map.moving, partitions, meta }
}

fn members(numbers: &[usize]) -> Vec<Member> {
    let mut all: Vec<Member> = numbers.iter().map(|&n| member(n, 1)).collect();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all
}

fn join(map: &mut ClusterMap, node: &NodeId) {
    let store = format!("{:032x}", 1000 + map.epoch);
    replace::replace(map, node, &format!("{:032x}", 0), &store).unwrap();
    advance(map);
}

fn joinable(map: &ClusterMap) -> Vec<NodeId> {
    map.nodes.iter().filter(|node| node.store_id == 0).map(|node| node.id.clone()).collect()
}

fn unsettled(map: &ClusterMap) -> Vec<u16> {
    map.all_groups().filter(|(_, group)| !group.is_settled()).map(|(id, _)| id.0).collect()
}

/// The leader of a group has done what the map wants, and says so.
fn finish(map: &mut ClusterMap, id: u16) {
    finish_without(map, id, &BTreeSet::new(), &mut Random(0));
}

/// The same when some nodes are lost: what joins there never arrives. Those that came back vote still, or do not.
fn finish_without(map: &mut ClusterMap, id: u16, lost: &BTreeSet<NodeId>, random: &mut Random) {
    let group = groups_mut(map).nth(usize::from(id)).unwrap().clone();
    let is_proven = |seat: &MapSeat| !group.is_unproven(seat.replica);
    let others = group.leaving.len() + group.seats.iter().filter(|seat| is_proven(seat)).count();
    let votes = random.below(2) == 0 || group.seats.len() == 1 || others == 0;
    let (mut there, mut gone) = (group.joining.clone(), Vec::new());
    there.retain(|replica| group.node_of(*replica).is_none_or(|node| !lost.contains(node)));
    // If those do not, the ones that took their places teach the next ones.
    if there.len() == group.joining.len() && (votes || group.returned.is_empty()) {
        gone.extend(group.leaving.iter().map(|seat| seat.replica));
    }
    if votes { &mut there } else { &mut gone }.extend(&group.returned);
    arrived(map, &[(id, there)]);
    advance(map);
    replace::left(map, &[(id, gone)]);
    advance(map);
}

/// What must hold in any state.
fn check_bounds(map: &ClusterMap) {
    assert_eq!(ClusterMap::from_json(&map.to_json()).as_ref(), Ok(map));
    let mut receives: BTreeMap<&NodeId, u16> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (_, group) in map.all_groups() {
        assert!(!group.seats.is_empty());
        for MapSeat { node, replica } in group.peers() {
            assert!(seen.insert(*replica) && *replica < map.next_replica);
            assert!(map.node(node).is_some_and(|node| node.store_id != 0), "a replica where nobody is");
        }
        assert!(group.replica_on(&group.leader).is_some(), "led by one of its own");
        let is_plain = group.turned_epoch == 0;
        // Those who take the place of one that came back too late are not counted.
        for seat in group.seats.iter().filter(|seat| is_plain && group.joining.contains(&seat.replica)) {
            *receives.entry(&seat.node).or_default() += 1;
        }
        let voters = group.seats.len() - group.joining.len() + group.leaving.len();
        assert!(voters > 0, "who is to teach the new ones? {group:?}");
        assert!(group.joining.len() <= 1 || group.leaving.is_empty() || !is_plain, "one for one: {group:?}");
        let is_seated = |replica: &u64| group.seats.iter().any(|seat| seat.replica == *replica);
        assert!(group.returned.iter().all(|r| is_seated(r) && !group.joining.contains(r)), "{group:?}");
        assert!(group.lost.iter().all(|r| group.leaving.iter().any(|seat| seat.replica == *r)), "{group:?}");
    }
    assert!(receives.values().all(|&count| count <= map.moving.at_once), "{receives:?}");
}

/// A deputy is there exactly where it is needed and possible.
fn check_deputies(map: &ClusterMap) {
    let is_drained = |id: &NodeId| map.node(id).is_some_and(|node| node.is_drained);
    for (id, group) in map.all_groups() {
        let can_be = |id: &NodeId| group.replica_on(id).is_some() && !is_drained(id);
        let is_needed = is_drained(&group.leader) && group.seats.iter().any(|seat| can_be(&seat.node));
        assert_eq!(group.deputy.as_ref().map(can_be), is_needed.then_some(true), "group {id}: {group:?}");
    }
}

/// Everything that is under way ends, in the order that `random` says. Returns how many groups have done something.
fn settle(map: &mut ClusterMap, random: &mut Random) -> usize {
    let mut steps = 0;
    loop {
        check_bounds(map);
        let (nodes, groups) = (joinable(map), unsettled(map));
        match random.below((nodes.len() + groups.len()).max(1)) {
            at if at < nodes.len() => join(map, &nodes[at]),
            at if at < nodes.len() + groups.len() => {
                finish(map, groups[at - nodes.len()]);
                steps += 1;
            }
            _ => return steps,
        }
        assert!(steps < 10_000, "it never ends");
    }
}

fn placed(map: &ClusterMap) -> Vec<Seats> {
    map.all_groups().map(|(_, group)| group.placed()).collect()
}

fn wanted(apply: &Apply) -> Vec<Seats> {
    core::iter::once(&apply.meta).chain(&apply.partitions).cloned().collect()
}

#[test]
fn a_node_is_added_with_as_many_moves_as_it_gets_replicas() {
    let mut map = sample_map();
    let before = map.clone();
    let change = plan(&map, members(&[1, 2, 3, 4]), 3);
    apply(&mut map, &change, 5).unwrap();
    advance(&mut map);
    assert!(unsettled(&map).is_empty(), "it has no folder yet");
    assert_eq!(map.change.as_ref().map(|c| (c.at_ms, c.total)), Some((5, 48)));
    let steps = settle(&mut map, &mut Random(1));
    assert_eq!((steps, placed(&map), map.change.as_ref()), (48, wanted(&change), None));
    assert_eq!((map.nodes.len(), map.next_replica), (4, before.next_replica + 48));

    let change = plan(&map, members(&[1, 2, 3]), 3);
    apply(&mut map, &change, 6).unwrap();
    advance(&mut map);
    assert!(map.nodes[3].is_leaving);
    assert_eq!(settle(&mut map, &mut Random(2)), 48);
    assert_eq!((placed(&map), map.nodes.len()), (wanted(&change), 3));
    assert!(map.groups.iter().all(|group| group.before.is_none()));
}

#[test]
fn copies_come_and_go() {
    let mut map = sample_map();
    for replicas in [1, 3] {
        let change = plan(&map, members(&[1, 2, 3]), replicas);
        apply(&mut map, &change, 5).unwrap();
        advance(&mut map);
        settle(&mut map, &mut Random(3));
        assert_eq!((placed(&map), map.replicas), (wanted(&change), replicas));
    }
}

#[test]
fn a_change_from_an_older_plan_or_without_sense_does_nothing() {
    let mut map = sample_map();
    let change = plan(&map, members(&[1, 2, 3, 4]), 3);
    let refused = |map: &mut ClusterMap, change: &Apply| {
        let before = map.clone();
        let refused = apply(map, change, 5).is_err();
        assert_eq!(*map, before);
        refused
    };
    let broken: [&dyn Fn(&mut Apply); 6] = [
        &|c| c.planned_epoch += 1,
        &|c| c.nodes.swap(0, 1),
        &|c| drop(c.nodes.remove(1)),
        &|c| drop(c.partitions.pop()),
        &|c| c.partitions[3].leader = NodeId("n9".into()),
        &|c| c.partitions[3].replicas.reverse(),
    ];
    for (at, spoil) in broken.iter().enumerate() {
        let mut spoilt = change.clone();
        spoil(&mut spoilt);
        assert!(refused(&mut map, &spoilt), "{at}");
    }
    assert!(abort(&mut map).is_err());
    let before = map.clone();
    let faster = Apply { moving: Moving { at_once: 9, ..change.moving }, ..change.clone() };
    apply(&mut map, &faster, 5).unwrap();
    assert_eq!(map.moving.at_once, 9);
    abort(&mut map).unwrap();
    advance(&mut map);
    assert_eq!((map.moving, placed(&map)), (before.moving, placed(&before)), "all is as it was");
    let change = Apply { planned_epoch: map.planned_epoch, ..change };
    apply(&mut map, &change, 5).unwrap();
    let before = map.clone();
    apply(&mut map, &change, 9).unwrap();
    assert_eq!(map, before, "the same wish changes nothing: who got no answer asks again");
    let other = Apply { nodes: members(&[1, 2, 3, 4, 5]), ..change };
    assert!(refused(&mut map, &other), "planned before the change");
}

/// Wishes, joins, reports and aborts in any order: in the end all is as was wished last, or as before after an abort.
#[test]
fn any_series_of_changes_ends_where_the_last_wish_is() {
    for seed in 0..100 {
        let random = &mut Random(seed);
        let mut map = sample_map();
        let (mut aim, mut nodes) = (placed(&map), 3);
        let (mut stable, mut stable_nodes) = (aim.clone(), nodes);
        for _ in 0..random.below(60) {
            if map.change.is_none() {
                (stable, stable_nodes) = (aim.clone(), nodes);
            }
            match random.below(12) {
                0 => {
                    let start = 1 + random.below(3);
                    let numbers: Vec<usize> = (start..=start + random.below(5)).collect();
                    let replicas = if random.below(4) == 0 { 1 } else { 3 };
                    let change = plan(&map, members(&numbers), replicas);
                    apply(&mut map, &change, 5).unwrap();
                    (aim, nodes) = (wanted(&change), numbers.len());
                }
                1 if map.change.is_some() => {
                    abort(&mut map).unwrap();
                    (aim, nodes) = (stable.clone(), stable_nodes);
                }
                2..6 => joinable(&map).first().into_iter().for_each(|node| join(&mut map, node)),
                _ => {
                    let groups = unsettled(&map);
                    if !groups.is_empty() {
                        finish(&mut map, groups[random.below(groups.len())]);
                    }
                }
            }
            if random.below(4) == 0 {
                // Refused when nobody else could lead; whoever is drained, the moves are the same.
                let _ = drain::drain(
                    &mut map,
                    &NodeId(format!("n{}", 1 + random.below(4))),
                    random.below(2) == 0,
                );
            }
            advance(&mut map);
            drain::deputize(&mut map);
            check_bounds(&map);
            check_deputies(&map);
        }
        settle(&mut map, random);
        assert_eq!((placed(&map), map.nodes.len()), (aim, nodes), "seed {seed}");
        assert!(map.change.is_none() && joinable(&map).is_empty());
        let before = map.clone();
        advance(&mut map);
        assert_eq!(map, before, "nothing is left to do");
    }
}

/// A fourth node has joined, and two groups move a replica there.
fn towards_n4() -> (ClusterMap, ClusterMap, Vec<u16>) {
    let mut map = sample_map();
    let before = map.clone();
    let change = plan(&map, members(&[1, 2, 3, 4]), 3);
    apply(&mut map, &change, 5).unwrap();
    join(&mut map, &NodeId("n4".into()));
    let moving = unsettled(&map);
    assert_eq!(moving.len(), 2, "as many as a node may receive");
    (before, map, moving)
}

#[test]
fn a_move_whose_receiver_is_lost_is_turned_round() {
    let (before, mut map, moving) = towards_n4();
    abort(&mut map).unwrap();
    advance(&mut map);
    check_bounds(&map);
    for &id in &moving {
        let (was, is) = (before.group(GroupId(id)).unwrap(), map.group(GroupId(id)).unwrap());
        assert_eq!(is.seats, was.seats, "under its old id");
        assert_eq!((is.returned.len(), is.joining.len(), is.leaving.len()), (1, 0, 1));
        assert_eq!(is.turned_epoch, map.epoch);
    }
    assert!(map.change.is_some(), "it is not known yet who votes");
    let [votes, left] = moving[..] else { panic!("two") };
    let group = |map: &ClusterMap, id| map.group(GroupId(id)).unwrap().clone();
    let there = group(&map, votes);
    arrived(&mut map, &[(votes, there.returned)]);
    replace::left(&mut map, &[(votes, vec![there.leaving[0].replica])]);
    advance(&mut map);
    assert!(group(&map, votes).is_settled());
    let old = group(&map, left).returned[0];
    replace::left(&mut map, &[(left, vec![old])]);
    let new = group(&map, left);
    assert_eq!(new.joining, [map.next_replica - 1], "who has left does not come back");
    assert_eq!((new.node_of(old), &new.founders()), (None, &before.group(GroupId(left)).unwrap().founders()));
    settle(&mut map, &mut Random(1));
    assert_eq!((placed(&map), map.nodes.len()), (placed(&before), 3));
}

#[test]
fn what_left_a_lost_folder_is_not_turned_back_to() {
    let (_, mut map, moving) = towards_n4();
    let group = map.group(GroupId(moving[0])).unwrap();
    let old = group.leaving[0].clone();
    // Only what matters here: other groups would refuse the loss.
    groups_mut(&mut map).for_each(|group| group.lose(&old.node));
    map.nodes.iter_mut().filter(|node| node.id == old.node).for_each(|node| node.store_id = 77);
    abort(&mut map).unwrap();
    advance(&mut map);
    let group = map.group(GroupId(moving[0])).unwrap();
    assert!(group.returned.is_empty() && group.replica_on(&old.node) != Some(old.replica), "{group:?}");
    settle(&mut map, &mut Random(2));
}

/// Receivers that are lost one after the other, at any moment, and an operator who goes back or takes another node.
#[test]
fn lost_receivers_hold_nothing_up() {
    for seed in 0..50 {
        let random = &mut Random(seed);
        let mut map = sample_map();
        let mut lost = BTreeSet::new();
        for number in 4..4 + random.below(6) {
            let replicas = if random.below(4) == 0 { 1 } else { 3 };
            let change = plan(&map, members(&[1, 2, 3, number]), replicas);
            apply(&mut map, &change, 5).unwrap();
            advance(&mut map);
            for _ in 0..random.below(30) {
                let (nodes, groups) = (joinable(&map), unsettled(&map));
                match nodes.first() {
                    Some(node) if !lost.contains(node) => join(&mut map, node),
                    _ if groups.is_empty() => {}
                    _ => finish_without(&mut map, groups[random.below(groups.len())], &lost, random),
                }
                check_bounds(&map);
            }
            if random.below(3) > 0 {
                lost.insert(NodeId(format!("n{number}")));
            }
            if random.below(3) == 0 && map.change.is_some() {
                abort(&mut map).unwrap();
                advance(&mut map);
            }
        }
        let change = plan(&map, members(&[1, 2, 3]), 3);
        apply(&mut map, &change, 5).unwrap();
        advance(&mut map);
        for step in 0.. {
            check_bounds(&map);
            let groups = unsettled(&map);
            if groups.is_empty() {
                break;
            }
            assert!(step < 10_000, "seed {seed}: it never ends: {:?}", map.group(GroupId(groups[0])));
            finish_without(&mut map, groups[random.below(groups.len())], &lost, random);
        }
        assert_eq!((placed(&map), map.nodes.len()), (wanted(&change), 3), "seed {seed}");
        assert!(map.change.is_none());
    }
}

#[test]
fn a_group_that_was_to_shrink_to_a_lost_node_grows_again() {
    for numbers in [&[1, 2, 3][..], &[2], &[4]] {
        let mut map = sample_map();
        let founders: Vec<Vec<u64>> = map.groups.iter().map(MapGroup::founders).collect();
        let change = plan(&map, members(&[1]), 1);
        apply(&mut map, &change, 5).unwrap();
        advance(&mut map);
        assert!(map.groups.iter().all(|group| group.seats.len() == 1 && group.leaving.len() == 2));
        let change = plan(&map, members(numbers), numbers.len() as u16);
        apply(&mut map, &change, 6).unwrap();
        advance(&mut map);
        check_bounds(&map);
        for (group, founders) in map.groups.iter().zip(founders).filter(|_| numbers != [4]) {
            assert!(group.seats.iter().all(|seat| founders.contains(&seat.replica)), "{group:?}");
            assert!(group.joining.is_empty() && !group.returned.is_empty());
        }
        joinable(&map).iter().for_each(|node| join(&mut map, node));
        let moving = map.all_groups().filter(|(_, group)| !group.joining.is_empty()).count();
        assert_eq!(moving, if numbers == [4] { 2 } else { 0 }, "it receives what it may");
        settle(&mut map, &mut Random(3));
        assert_eq!((placed(&map), map.nodes.len()), (wanted(&change), numbers.len()));
    }
}

#[test]
fn a_group_that_shrinks_to_two_of_which_one_is_lost_takes_another_one_in() {
    let mut map = sample_map();
    let change = plan(&map, members(&[1, 2]), 2);
    apply(&mut map, &change, 5).unwrap();
    advance(&mut map);
    assert!(map.groups.iter().all(|group| group.seats.len() == 2 && group.leaving.len() == 1));
    let change = plan(&map, members(&[1, 4]), 2);
    apply(&mut map, &change, 6).unwrap();
    join(&mut map, &NodeId("n4".into()));
    check_bounds(&map);
    let moving: Vec<_> = map.all_groups().filter(|(_, group)| !group.joining.is_empty()).collect();
    assert_eq!(moving.len(), 2, "as many as a node may receive");
    for (_, group) in moving {
        let nodes: Vec<&str> = group.seats.iter().map(|seat| seat.node.0.as_str()).collect();
        assert_eq!((nodes, group.leaving.len()), (vec!["n1", "n4"], 2), "{group:?}");
    }
    settle(&mut map, &mut Random(4));
    assert_eq!((placed(&map), map.nodes.len()), (wanted(&change), 2));
}
