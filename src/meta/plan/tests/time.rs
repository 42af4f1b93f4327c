//! The time that a plan tells, against a model of what nodes do: state passes at the rate, shared evenly by what a node sends,
//! or receives, at a time, and a change of members takes its steps. Which replicas move when is what the meta group says.

use super::*;
use crate::meta::{moves, replace};

/// A look at the model, and what the steps of a move take beside its bytes, ms: before the first of them, until the replica
/// votes, and until the one that it replaces is gone.
const LOOK_MS: u64 = 10;
const BEGIN_MS: u64 = 30;
const VOTE_MS: u64 = 60;
const LEAVE_MS: u64 = 150;

/// A replica that receives its group's state.
struct Transfer {
    group: u16,
    seat: MapSeat,
    from: NodeId,
    begins_ms: u64,
    /// Bytes that are not sent, and not received yet.
    unsent: u64,
    missing: u64,
    votes_ms: Option<u64>,
}

/// Nodes that carry out the change of a map.
struct Model {
    map: ClusterMap,
    /// Of a replica's state.
    bytes: u64,
    now_ms: u64,
    transfers: Vec<Transfer>,
    /// Replicas that leave their groups, and when they have.
    leaving: Vec<(u16, u64)>,
}

impl Model {
    /// Seconds that the change takes which `map` has just taken.
    fn seconds(map: ClusterMap, bytes: u64) -> f64 {
        let mut model = Self { map, bytes, now_ms: 0, transfers: Vec::new(), leaving: Vec::new() };
        moves::advance(&mut model.map);
        while model.map.change.is_some() {
            assert!(model.now_ms < 100_000_000, "it never ends");
            model.begin();
            model.pass_bytes();
            model.now_ms += LOOK_MS;
            model.end();
        }
        model.now_ms as f64 / 1000.0
    }

    fn begin(&mut self) {
        for (id, group) in self.map.all_groups() {
            for seat in group.seats.iter().filter(|seat| group.joining.contains(&seat.replica)) {
                if self.transfers.iter().all(|transfer| transfer.seat.replica != seat.replica) {
                    let bytes = if id.partition().is_some() { self.bytes } else { 0 };
                    self.transfers.push(Transfer {
                        group: id.0,
                        seat: seat.clone(),
                        from: moves::seeder(group).clone(),
                        begins_ms: self.now_ms + BEGIN_MS,
                        unsent: bytes,
                        missing: bytes,
                        votes_ms: None,
                    });
                }
            }
            let leaves = group.joining.is_empty() && !group.leaving.is_empty();
            if leaves && self.leaving.iter().all(|(group, _)| *group != id.0) {
                self.leaving.push((id.0, self.now_ms + LEAVE_MS));
            }
        }
    }

    fn pass_bytes(&mut self) {
        let look = self.map.moving.bytes_per_s * LOOK_MS / 1000;
        let has_begun = |transfer: &&mut Transfer| transfer.begins_ms <= self.now_ms;
        let (mut sends, mut receives) = (BTreeMap::new(), BTreeMap::new());
        for transfer in self.transfers.iter_mut().filter(has_begun) {
            *sends.entry(transfer.from.clone()).or_insert(0) += u64::from(transfer.unsent > 0);
            *receives.entry(transfer.seat.node.clone()).or_insert(0) += u64::from(transfer.missing > 0);
        }
        for transfer in self.transfers.iter_mut().filter(has_begun) {
            let sent = look / sends[&transfer.from].max(1);
            transfer.unsent = transfer.unsent.saturating_sub(sent);
            let received = look / receives[&transfer.seat.node].max(1);
            transfer.missing = transfer.missing.saturating_sub(received).max(transfer.unsent);
            if transfer.missing == 0 {
                transfer.votes_ms.get_or_insert(self.now_ms + VOTE_MS);
            }
        }
    }

    fn end(&mut self) {
        let now_ms = self.now_ms;
        let votes = |transfer: &mut Transfer| transfer.votes_ms.is_some_and(|at_ms| at_ms <= now_ms);
        for transfer in self.transfers.extract_if(.., votes) {
            moves::arrived(&mut self.map, &[(transfer.group, vec![transfer.seat.replica])]);
            moves::advance(&mut self.map);
        }
        for (id, _) in self.leaving.extract_if(.., |(_, at_ms)| *at_ms <= now_ms) {
            let (_, group) = self.map.all_groups().find(|(group, _)| group.0 == id).expect("it is there");
            let gone = group.leaving.iter().map(|seat| seat.replica).collect();
            replace::left(&mut self.map, &[(id, gone)]);
            moves::advance(&mut self.map);
        }
    }
}

/// What a plan tells, and what the model takes.
fn planned_and_taken(map: &ClusterMap, wanted: &Wanted, bytes: u64) -> (f64, f64) {
    // What is sent of a key is 25 bytes less than what it counts.
    let plan =
        plan(map, wanted, &facts_of(map, 1, bytes + 25)).expect("a healthy cluster is refused nothing");
    let mut next = map.clone();
    moves::apply(&mut next, &plan.request(map, wanted), 1).expect("it was just planned");
    for node in &mut next.nodes {
        node.store_id = node.store_id.max(1);
    }
    (plan.cost.seconds as f64, Model::seconds(next, bytes))
}

/// Of this size.
const BYTES: u64 = 1300 << 10;

#[test]
fn a_change_takes_about_as_long_as_its_plan_says() {
    for seed in 1..=40 {
        let mut random = seed;
        let mut map = sample_map();
        let mut newest = map.nodes.len();
        map.nodes.iter_mut().for_each(|node| node.zone.clear());
        for step in 0..8 {
            let mut wanted = Wanted::of_map(&map);
            for _ in 0..=next(&mut random) % 3 {
                change(&mut wanted, &mut newest, false, &mut random);
            }
            wanted.moving.at_once = 1 + (next(&mut random) % 4) as u16;
            wanted.moving.bytes_per_s = 1 << (20 + next(&mut random) % 5);
            let (planned_s, taken_s) = planned_and_taken(&map, &wanted, BYTES);
            // A plan counts the steps of a move as time in which nothing else moves, and in full seconds.
            let is_right = 0.55 * planned_s - 2.0 <= taken_s && taken_s <= 1.3 * planned_s;
            assert!(is_right, "seed {seed}, step {step}: planned {planned_s} s, took {taken_s} s");
            map = done(&map, &wanted, &planned(&map, &wanted));
        }
    }
}

/// The nodes that stay receive as much as they send: taken in any order, they would wait for each other.
#[test]
fn nodes_that_both_receive_and_send_do_not_wait_for_each_other() {
    let map = sample_map();
    let mut five = Wanted::of_map(&map);
    add(&mut five, 4, "");
    add(&mut five, 5, "");
    let map = done(&map, &five, &planned(&map, &five));
    let mut three = five;
    three.nodes.retain(|id, _| !matches!(id.0.as_str(), "n4" | "n5"));
    for megabytes_per_s in [1, 2, 4] {
        three.moving.bytes_per_s = megabytes_per_s << 20;
        let (planned_s, taken_s) = planned_and_taken(&map, &three, BYTES);
        assert!((0.9..1.15).contains(&(taken_s / planned_s)), "planned {planned_s} s, took {taken_s} s");
    }
}
