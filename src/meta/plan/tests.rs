//! Promises of a plan, over seeded series of random changes; a failure names its seed and step.

mod time;

use super::*;
use crate::meta::form::tests::sample_map;
use ringfort_wire::map::{MapGroup, MapNode, MapSeat};

fn id(n: usize) -> NodeId {
    NodeId(format!("n{n}"))
}

/// Adds node `n` to what is wanted.
pub(crate) fn add(wanted: &mut Wanted, n: usize, zone: &str) {
    let member = Member {
        client: format!("127.0.0.1:{}", 7000 + n),
        peer: format!("127.0.0.1:{}", 7100 + n),
        weight: 1,
        zone: zone.to_owned(),
    };
    wanted.nodes.insert(id(n), member);
}

/// A healthy cluster, each partition with as many keys and bytes.
pub(crate) fn facts_of(map: &ClusterMap, keys: u64, bytes: u64) -> Facts {
    let group = |group: &MapGroup| GroupFacts {
        leader: Some(group.leader.clone()),
        live: group.seats.iter().map(|seat| seat.node.clone()).collect(),
        keys,
        bytes,
    };
    let up = NodeFacts { is_up: true, workers: Some(1), memory_bytes: None };
    Facts {
        partitions: map.groups.iter().map(group).collect(),
        meta: group(&map.meta),
        nodes: map.nodes.iter().map(|node| (node.id.clone(), up)).collect(),
    }
}

fn seated(seats: &Seats, next_replica: &mut u64) -> MapGroup {
    let seat = |node: &NodeId| {
        *next_replica += 1;
        MapSeat { node: node.clone(), replica: *next_replica - 1 }
    };
    MapGroup::new(seats.replicas.iter().map(seat).collect(), seats.leader.clone())
}

/// The map when all that a plan asks for is done.
fn done(map: &ClusterMap, wanted: &Wanted, plan: &Plan) -> ClusterMap {
    let mut map = map.clone();
    let former: Vec<NodeId> =
        map.nodes.iter().map(|n| n.id.clone()).filter(|id| !wanted.nodes.contains_key(id)).collect();
    map.former_nodes.extend(former);
    let node = |(id, n): (&NodeId, &Member)| MapNode {
        is_leaving: false,
        is_drained: false,
        is_down: false,
        id: id.clone(),
        client: n.client.clone(),
        tls_client: None,
        peer: n.peer.clone(),
        weight: n.weight,
        zone: n.zone.clone(),
        store_id: 1,
    };
    map.nodes = wanted.nodes.iter().map(node).collect();
    map.replicas = wanted.replicas;
    map.moving = wanted.moving;
    map.meta = seated(&plan.meta, &mut map.next_replica);
    map.groups = plan.placement.partitions.iter().map(|seats| seated(seats, &mut map.next_replica)).collect();
    map.epoch += 1;
    map
}

fn planned(map: &ClusterMap, wanted: &Wanted) -> Plan {
    plan(map, wanted, &facts_of(map, 10, 1000)).expect("a healthy cluster is refused nothing")
}

fn refused(map: &ClusterMap, wanted: &Wanted, facts: &Facts) -> Vec<String> {
    plan(map, wanted, facts).expect_err("it must be refused").into_iter().map(|r| r.text).collect()
}

/// What every plan keeps.
fn check(map: &ClusterMap, wanted: &Wanted, plan: &Plan, at: &str) {
    let (now, next) = (placement_of(map), &plan.placement);
    let received = next.partitions.iter().zip(&now.partitions);
    let received: usize =
        received.map(|(is, was)| is.replicas.iter().filter(|id| !was.replicas.contains(id)).count()).sum();
    assert_eq!((plan.epoch, plan.replicas_moved), (map.epoch, received), "{at}");
    assert!(plan.minimum <= received, "{at}");
    let total = |of: fn(&Load) -> u64, side: fn(&NodePlan) -> &Load| -> u64 {
        plan.nodes.iter().map(|node| of(side(node))).sum()
    };
    let groups = u64::from(wanted.partitions.get());
    assert_eq!(total(|load| load.leaders as u64, |node| &node.after), groups, "{at}");
    let holders = wanted.nodes.values().filter(|node| node.weight > 0).count() as u64;
    let replicas = u64::from(wanted.replicas).min(holders);
    assert_eq!(total(|load| load.replicas as u64, |node| &node.after), groups * replicas, "{at}");
    assert_eq!(total(|load| load.keys, |node| &node.after), groups * replicas * 10, "{at}");
    assert_eq!((plan.cost.keys, plan.cost.bytes), (received as u64 * 10, received as u64 * 750), "{at}");
    let sum = |of: fn(&NodePlan) -> u64| plan.nodes.iter().map(of).sum::<u64>();
    assert_eq!(sum(|node| node.peak_extra_bytes), received as u64 * 1000, "{at}");
    assert_eq!(sum(|node| node.receives_bytes), plan.cost.bytes, "{at}");
    assert_eq!(sum(|node| node.sends_bytes), plan.cost.bytes, "{at}");
    for node in &plan.nodes {
        let received = plan.moves.iter().filter(|m| m.to.as_ref() == Some(&node.id)).count();
        let given = plan.moves.iter().filter(|m| m.from.as_ref() == Some(&node.id)).count();
        assert_eq!(node.before.replicas + received - given, node.after.replicas, "{at}: {node:?}");
        assert_eq!(received, node.receives, "{at}");
    }
    for seats in next.partitions.iter().chain([&plan.meta]) {
        assert!(seats.replicas.is_sorted_by(|a, b| a < b), "{at}: distinct and ordered: {seats:?}");
        assert!(seats.replicas.contains(&seats.leader), "{at}");
        assert!(seats.replicas.iter().all(|id| wanted.nodes.contains_key(id)), "{at}");
    }
    let meta = match wanted.nodes.len() {
        0..3 => 1,
        3..5 => 3,
        _ => 5,
    };
    assert_eq!(plan.meta.replicas.len(), meta, "{at}");
}

fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z ^ (z >> 27)
}

/// One random change: nodes come, go, or get another weight, zone or address; one in place of another; other replicas.
fn change(wanted: &mut Wanted, newest: &mut usize, has_zones: bool, random: &mut u64) {
    let mut below = |bound: usize| (next(random) % bound as u64) as usize;
    let zone = if has_zones { ["a", "b", "c", "d"][below(4)] } else { "" };
    let one = wanted.nodes.keys().nth(below(wanted.nodes.len())).expect("there is one").clone();
    let can_lose = wanted.nodes.len() > 3 && wanted.nodes.values().filter(|n| n.weight > 0).count() > 1;
    match below(7) {
        0 | 1 if wanted.nodes.len() < 12 => {
            *newest += 1;
            add(wanted, *newest, zone);
        }
        2 if can_lose => {
            wanted.nodes.remove(&one);
        }
        3 if can_lose => {
            *newest += 1;
            wanted.nodes.remove(&one);
            add(wanted, *newest, zone);
        }
        4 => wanted.replicas = 4 - wanted.replicas,
        5 => {
            wanted.nodes.get_mut(&one).expect("it is there").client =
                format!("127.0.0.1:{}", 8000 + below(1000))
        }
        _ => wanted.nodes.get_mut(&one).expect("it is there").weight = 1 + below(3) as u32,
    }
    if wanted.nodes.values().all(|node| node.weight == 0) {
        wanted.nodes.values_mut().for_each(|node| node.weight = 1);
    }
}

fn series(seed: u64, has_zones: bool) {
    let mut random = seed;
    let mut map = sample_map();
    let mut newest = map.nodes.len();
    if !has_zones {
        map.nodes.iter_mut().for_each(|node| node.zone.clear());
    }
    for step in 0..25 {
        let at = format!("seed {seed}, zones {has_zones}, step {step}");
        let mut wanted = Wanted::of_map(&map);
        change(&mut wanted, &mut newest, has_zones, &mut random);
        let plan = planned(&map, &wanted);
        check(&map, &wanted, &plan, &at);
        // A node that is to be in nearly every partition can force another one to make room.
        let is_crowded = plan.nodes.iter().any(|node| node.after.replicas * 10 > 64 * 9);
        if !has_zones && !is_crowded {
            assert_eq!(plan.replicas_moved, plan.minimum, "{at}");
        }
        assert_eq!(plan.is_empty(), Wanted::of_map(&map) == wanted, "{at}: {wanted:?}");
        let then = done(&map, &wanted, &plan);
        let again = planned(&then, &wanted);
        assert!(again.is_empty(), "{at}: {:?} {:?} {:?}", again.moves, again.leaders, again.meta_moves);
        map = then;
    }
}

#[test]
fn random_changes_move_the_minimum_and_the_same_file_again_moves_nothing() {
    for seed in 1..=40 {
        series(seed, false);
    }
}

#[test]
fn with_zones_the_same_file_again_moves_nothing() {
    for seed in 1..=4 {
        series(seed, true);
    }
}

#[test]
fn adding_a_node_and_removing_it_again_moves_what_it_holds_twice() {
    let map = sample_map();
    let mut more = Wanted::of_map(&map);
    add(&mut more, 4, "");
    let there = planned(&map, &more);
    assert_eq!((there.replicas_moved, there.minimum), (48, 48));
    assert!(there.moves.iter().all(|step| step.to == Some(id(4))));
    let then = done(&map, &more, &there);
    let back = planned(&then, &Wanted::of_map(&map));
    assert_eq!((back.replicas_moved, back.minimum), (48, 48));
    assert!(back.moves.iter().all(|step| step.from == Some(id(4))));
}

#[test]
fn a_leader_that_an_operator_chose_stays_until_nodes_change() {
    let mut map = sample_map();
    let transferred = map.groups[7].leader.clone();
    let chosen = map.groups[7].seats.iter().map(|s| &s.node).find(|node| **node != transferred).cloned();
    map.groups[7].leader = chosen.expect("three replicas");
    let same = Wanted::of_map(&map);
    assert!(planned(&map, &same).is_empty());
    let mut moved = same.clone();
    moved.nodes.get_mut(&id(2)).unwrap().peer = "127.0.0.1:9".to_owned();
    let plan = planned(&map, &moved);
    assert_eq!((plan.moves.len(), plan.leader_changes, plan.changes.len()), (0, 0, 1));
    let mut heavier = same;
    heavier.nodes.get_mut(&id(2)).unwrap().weight = 2;
    assert!(planned(&map, &heavier).leader_changes > 0);
}

#[test]
fn every_difference_is_named() {
    let map = sample_map();
    let mut wanted = Wanted::of_map(&map);
    wanted.replicas = 1;
    wanted.moving = Moving { bytes_per_s: 1 << 20, at_once: 4, down_after_s: 60 };
    let n1 = wanted.nodes.get_mut(&id(1)).unwrap();
    *n1 = Member { client: "1.1.1.1:1".into(), peer: "1.1.1.1:2".into(), weight: 0, zone: "z".into() };
    wanted.nodes.remove(&id(3));
    add(&mut wanted, 9, "");
    let shown: Vec<String> = planned(&map, &wanted)
        .changes
        .iter()
        .map(|d| {
            let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
            let node = d.node.as_ref().map_or("*", |id| id.0.as_str());
            format!("{node} {} {} {}", d.key, text(&d.from), text(&d.to))
        })
        .collect();
    assert_eq!(
        shown,
        [
            "* replicas 3 1",
            "* move_rate 67108864 1048576",
            "* moves_at_once 2 4",
            "* down_after 300s 60s",
            "n1 client 127.0.0.1:7001 1.1.1.1:1",
            "n1 peer 127.0.0.1:7101 1.1.1.1:2",
            "n1 weight 1 0",
            "n1 zone a z",
            "n3 node 127.0.0.1:7003 -",
            "n9 node - 127.0.0.1:7009",
        ]
    );
}

#[test]
fn what_never_changes_and_ids_of_nodes_that_left_are_refused_together() {
    let mut map = sample_map();
    map.former_nodes.insert(id(4));
    let mut wanted = Wanted::of_map(&map);
    wanted.name = "other".to_owned();
    wanted.partitions = PartitionCount::new(128).unwrap();
    wanted.fsync = true;
    add(&mut wanted, 4, "");
    let refusals = plan(&map, &wanted, &facts_of(&map, 0, 0)).unwrap_err();
    let places: Vec<Place> = refusals.iter().map(|r| r.place.clone()).collect();
    assert_eq!(
        places,
        [
            Place::Cluster("name"),
            Place::Cluster("partitions"),
            Place::Cluster("durability"),
            Place::Node(id(4), "id")
        ]
    );
    assert_eq!(refusals[0].text, "name is 'other', the cluster's is 'demo': it never changes");
    assert!(refusals[3].text.starts_with("id 'n4' was that of a node that left"), "{refusals:?}");
    map.former_nodes = (10..10 + FORMER_NODES_MAX).map(id).collect();
    let mut fewer = Wanted::of_map(&map);
    assert!(plan(&map, &fewer, &facts_of(&map, 0, 0)).is_ok());
    add(&mut fewer, 5, "");
    fewer.nodes.remove(&id(3));
    assert!(refused(&map, &fewer, &facts_of(&map, 0, 0))[0].starts_with("more than 4096 nodes"));
}

/// Takes a node away from everything that was heard.
fn silence(facts: &mut Facts, node: &NodeId) {
    for group in facts.partitions.iter_mut().chain([&mut facts.meta]) {
        group.live.remove(node);
        group.leader = group.live.first().cloned();
    }
    facts.nodes.entry(node.clone()).or_default().is_up = false;
}

#[test]
fn a_dead_node_can_be_replaced_and_a_group_without_a_majority_cannot_change() {
    let map = sample_map();
    let mut wanted = Wanted::of_map(&map);
    wanted.nodes.remove(&id(3));
    add(&mut wanted, 4, "c");
    let mut facts = facts_of(&map, 1, 1);
    silence(&mut facts, &id(3));
    let plan = plan(&map, &wanted, &facts).expect("two of three replicas live");
    assert_eq!((plan.replicas_moved, plan.minimum, plan.meta_moves.len()), (64, 64, 1));
    assert!(plan.moves.iter().all(|m| (&m.from, &m.to) == (&Some(id(3)), &Some(id(4)))));
    silence(&mut facts, &id(2));
    assert_eq!(
        refused(&map, &wanted, &facts),
        [
            "the meta group cannot change: 1 of 3 replicas are up to date, and nobody answers on n2, n3; start what can be \
             started, or see `ringfort recover`",
            "partitions 0-63 cannot change: 1 of 3 replicas are up to date, and nobody answers on n2, n3; start what can be \
             started, or see `ringfort recover`"
        ]
    );
}

#[test]
fn a_change_that_leaves_only_dead_replicas_is_refused() {
    let map = sample_map();
    let mut wanted = Wanted::of_map(&map);
    wanted.replicas = 1;
    let mut facts = facts_of(&map, 1, 1);
    silence(&mut facts, &id(2));
    let refusals = refused(&map, &wanted, &facts);
    assert!(
        refusals.len() == 1
            && refusals[0].starts_with("partitions ")
            && refusals[0].contains("would be left without a majority: n2 does not answer"),
        "{refusals:?}"
    );
}

#[test]
fn warnings_name_what_is_too_small_or_missing() {
    let map = sample_map();
    let mut wanted = Wanted::of_map(&map);
    for n in 4..=9 {
        add(&mut wanted, n, "a");
    }
    let mut facts = facts_of(&map, 1, 1 << 20);
    facts.partitions[5].leader = None;
    facts.meta.leader = None;
    for node in facts.nodes.values_mut() {
        *node = NodeFacts { is_up: true, workers: Some(8), memory_bytes: Some(100 << 20) };
    }
    facts.nodes.insert(id(9), NodeFacts::default());
    let warnings = plan(&map, &wanted, &facts).unwrap().warnings;
    for part in [
        "64 partitions are few for 9 nodes",
        "64 partitions are few for 24 workers",
        "share a zone (weights of the zones: a 7, b 1, c 1)",
        "memory may not be enough: n1, n2, n3, n4, n5, n6, n7, n8, n9 may need",
        "n9 does not answer: 21 replicas that it is to receive wait for it",
        "the meta group has no leader",
        "partition 5 has no leader",
    ] {
        assert!(warnings.iter().any(|warning| warning.contains(part)), "{part} is missing in {warnings:#?}");
    }
    assert_eq!(warnings.len(), 7, "{warnings:#?}");
    let same = plan(&map, &Wanted::of_map(&map), &facts_of(&map, 1, 1)).unwrap();
    assert!(same.warnings.is_empty(), "{:?}", same.warnings);
}

#[test]
fn time_is_that_of_the_node_with_most_to_do() {
    let map = sample_map();
    let mut wanted = Wanted::of_map(&map);
    add(&mut wanted, 4, "");
    // 48 replicas of 64 MiB come at 64 MiB/s, in 24 rounds of 0.125 s.
    let plan_with = |wanted: &Wanted| plan(&map, wanted, &facts_of(&map, 1, 64 << 20)).unwrap().cost;
    assert_eq!(plan_with(&wanted).seconds, 48 + 3);
    wanted.moving.at_once = 48;
    assert_eq!(plan_with(&wanted).seconds, 49);
    wanted.moving.bytes_per_s = 128 << 20;
    assert_eq!(plan_with(&wanted).seconds, 25);
    let mut lighter = Wanted::of_map(&map);
    lighter.moving.at_once = 3;
    let cost = plan_with(&lighter);
    assert_eq!((cost.seconds, cost.handovers, cost.pause_ms), (0, 0, 0));

    // Who stays when two of five leave both receives and sends: 76 replicas over 3 nodes, 26 at most come to one.
    let map = sample_map();
    let mut five = Wanted::of_map(&map);
    add(&mut five, 4, "");
    add(&mut five, 5, "");
    let map = done(&map, &five, &planned(&map, &five));
    let mut three = five.clone();
    three.nodes.retain(|id, _| !matches!(id.0.as_str(), "n4" | "n5"));
    let plan = plan(&map, &three, &facts_of(&map, 1, 64 << 20)).unwrap();
    let most = plan.nodes.iter().map(|node| node.receives + node.sends).max().unwrap();
    assert_eq!(plan.nodes.iter().map(|node| node.sends).sum::<usize>(), plan.replicas_moved);
    assert!((40..=44).contains(&most), "{:?}", plan.nodes);
    let leave = plan.nodes.iter().filter(|node| node.change == NodeChange::Removed);
    assert!(leave.clone().count() == 2 && leave.clone().all(|node| node.sends > 10), "{:?}", plan.nodes);
}

#[test]
fn the_meta_group_spreads_over_zones_and_leaves_drained_nodes() {
    let spec = |n: usize, weight, zone: &str| NodeSpec { id: id(n), weight, zone: zone.to_owned() };
    let zoned = [spec(1, 1, "a"), spec(2, 1, "a"), spec(3, 1, "b"), spec(4, 1, "c")];
    let seats = meta_seats(None, &zoned);
    assert_eq!((seats.replicas, seats.leader), (vec![id(1), id(3), id(4)], id(1)));
    let plain: Vec<NodeSpec> = (1..=7).map(|n| spec(n, u32::from(n != 5), "")).collect();
    let now = Seats { replicas: vec![id(4), id(5), id(6)], leader: id(6) };
    let seats = meta_seats(Some(&now), &plain);
    assert_eq!((seats.replicas, seats.leader), (vec![id(1), id(2), id(3), id(4), id(6)], id(6)));
    assert_eq!(meta_seats(Some(&now), &plain[..2]).replicas, [id(1)]);
    assert_eq!(meta_seats(Some(&now), &plain[3..6]).replicas, [id(4), id(5), id(6)], "all are needed");
}
