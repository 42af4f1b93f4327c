//! Workers of several nodes on one thread; messages and the ends of disk jobs are passed on by hand.

use super::*;
use crate::clock::Clock;
use crate::log::{LastStop, LogOptions, MemDisk};
use crate::meta::form::tests::sample_map;
use crate::shard::limits::Limits;
use crate::shard::{Origin, Submission};
use ringfort_wire::entry::OpKind;
use std::collections::BTreeSet;

/// A clock that stands still.
pub(super) struct Still;

impl Clock for Still {
    fn now(&self) -> Now {
        Now { boot_us: 1_000_000, wall_ms: 1_000_000 }
    }
}

/// The first worker of node `n`, counted from 1, with links to all others.
pub(super) fn start(n: u64, map: &ClusterMap, disk: &MemDisk, has_run: bool) -> WorkerCore<MemDisk> {
    let node = NodeId(format!("n{n}"));
    let store_id = map.node(&node).unwrap().store_id;
    let shared = Arc::new(Shared::new(node.clone(), store_id, 1, 1, 7000, 10));
    shared.set_map(map);
    let options = WorkerOptions {
        worker: 0,
        node,
        log: LogOptions { last_stop: LastStop::Process, ..LogOptions::default() },
        is_restart: has_run,
        has_run,
        is_suspect: false,
        seed: n,
        compact_bytes_min: 1 << 20,
        disk_free_min: 0,
        limits: Limits::default(),
    };
    let mut core = WorkerCore::new(options, shared, map, disk.clone()).unwrap();
    map.nodes.iter().for_each(|node| core.peer_up(node.id.clone(), 1));
    core
}

/// Passes on what one node has for another one.
fn deliver(from: &mut WorkerCore<MemDisk>, to: &mut WorkerCore<MemDisk>) {
    from.send_raft_output(|node, _, bytes| {
        let mut rest = bytes;
        while let Some(frame) = ringfort_wire::frame::next(rest).unwrap().filter(|_| *node == to.options.node)
        {
            to.peer_frame(frame.kind, frame.body, Still.now()).unwrap();
            rest = &rest[frame.consumed..];
        }
    });
}

fn finish(core: &mut WorkerCore<MemDisk>, jobs: Vec<Job<MemDisk>>) {
    for job in jobs {
        core.job_done(job.run()).unwrap();
    }
    core.turn(&Still).unwrap();
}

#[test]
fn an_answer_that_waits_for_a_sync_is_sent_though_nothing_is_written_after_it() {
    let map = ClusterMap { fsync: true, ..sample_map() };
    let [mut n1, mut n2] = [1, 2].map(|n| start(n, &map, &MemDisk::new(), false));
    // The votes of n2 wait for its disk; n1 asks again.
    let mut held = Vec::new();
    let mut has_more = false;
    while !has_more {
        n1.tick(1, Still.now()).unwrap();
        n1.turn(&Still).unwrap();
        let jobs = n1.take_jobs();
        finish(&mut n1, jobs);
        deliver(&mut n1, &mut n2);
        n2.turn(&Still).unwrap();
        deliver(&mut n2, &mut n1);
        held.extend(n2.take_jobs());
        let groups: BTreeSet<u16> = n2.pending.iter().map(|p| p.group).collect();
        has_more = groups.len() < n2.pending.len();
        assert!(n1.ticks < 1000, "n1 asks for votes until it has them");
    }
    while !held.is_empty() {
        finish(&mut n2, std::mem::take(&mut held));
        held = n2.take_jobs();
    }
    assert!(n2.pending.is_empty(), "{:?}", n2.pending);
}

/// A clock that stands at this time.
struct At(Now);

impl Clock for At {
    fn now(&self) -> Now {
        self.0
    }
}

fn at(boot_us: u64) -> Now {
    Now { boot_us, wall_ms: boot_us / 1000 }
}

#[test]
fn ticks_are_those_that_have_passed_and_never_burst() {
    let mut n1 = start(1, &sample_map(), &MemDisk::new(), false);
    let mut ticks_after = |us: u64| {
        let before = n1.ticks;
        n1.pass_time(at(us));
        n1.ticks - before
    };
    assert_eq!([1_000_000, 1_009_999, 1_010_000, 1_025_000].map(&mut ticks_after), [1, 0, 1, 1]);
    assert_eq!(ticks_after(1_030_000), 1, "a wake that is late does not put off the next tick");
    assert_eq!(ticks_after(9_000_000), 1, "a stall is none of its ticks");
    assert_eq!([9_009_999, 9_010_000].map(ticks_after), [0, 1]);
}

#[test]
fn what_ends_a_rest_takes_none_of_its_ticks() {
    let mut cluster = Cluster::new(&sample_map(), 1_000_000);
    cluster.run(5_000_000, |_| false);
    let (n1, at_us) = (&mut cluster.nodes[0], cluster.now_us);
    n1.pass_time(at(at_us));
    let before = n1.ticks;
    assert!(at_us + 20_000 < n1.next_tick_us(), "it rests");
    n1.stir();
    let woken_us = n1.next_tick_us() + 10_000;
    assert!(woken_us < at_us + 25_000, "it wakes for the next tick");
    n1.pass_time(at(woken_us));
    assert_eq!(n1.ticks - before, 2, "those that have passed are counted");
    assert!(n1.next_tick_us() <= woken_us + 10_000, "and now each by itself");
}

/// Three nodes that hear each other without delay; each wakes when it must or when it is sent something.
struct Cluster {
    nodes: Vec<WorkerCore<MemDisk>>,
    now_us: u64,
    /// What the wall's clock shows beyond the time since boot.
    wall_ahead_ms: u64,
    /// How often each was woken.
    wakes: [u64; 3],
    /// A node whose disk stalls, and what waits for it.
    stalled: Option<(usize, Vec<Job<MemDisk>>)>,
}

impl Cluster {
    /// Nodes that were just started.
    fn new(map: &ClusterMap, now_us: u64) -> Self {
        let nodes = (1..=3).map(|n| start(n, map, &MemDisk::new(), false)).collect();
        Self { nodes, now_us, wall_ahead_ms: 0, wakes: [0; 3], stalled: None }
    }

    /// Lets time pass. `is_off`: a node that is gone.
    fn run(&mut self, us: u64, is_off: impl Fn(usize) -> bool) {
        let until_us = self.now_us + us;
        while self.now_us < until_us {
            self.now_us += 1_000;
            let now = Now { wall_ms: self.now_us / 1000 + self.wall_ahead_ms, ..at(self.now_us) };
            for n in (0..3).filter(|n| !is_off(*n)) {
                if self.nodes[n].next_tick_us() <= self.now_us {
                    self.nodes[n].pass_time(now);
                    self.wakes[n] += 1;
                    self.settle(n, now);
                }
            }
            for from in (0..3).filter(|n| !is_off(*n)) {
                let mut sent = Vec::new();
                let number = |node: &NodeId| usize::from(node.0.as_bytes()[1] - b'1');
                self.nodes[from].send_raft_output(|to, _, bytes| sent.push((number(to), bytes.to_vec())));
                for (to, bytes) in sent.into_iter().filter(|(to, _)| !is_off(*to)) {
                    self.wakes[to] += 1;
                    let mut rest = &bytes[..];
                    while let Some(frame) = ringfort_wire::frame::next(rest).unwrap() {
                        self.nodes[to].peer_frame(frame.kind, frame.body, now).unwrap();
                        rest = &rest[frame.consumed..];
                    }
                    self.settle(to, now);
                }
            }
        }
    }

    fn settle(&mut self, n: usize, now: Now) {
        while self.nodes[n].wants_turn() {
            self.nodes[n].turn(&At(now)).unwrap();
            let jobs = self.nodes[n].take_jobs();
            match &mut self.stalled {
                Some((stalled, held)) if *stalled == n => held.extend(jobs),
                _ => jobs.into_iter().for_each(|job| self.nodes[n].job_done(job.run()).unwrap()),
            }
        }
    }

    /// The terms of all groups that are led by one node of these, in the order of the groups.
    fn led_terms(&self, nodes: &[usize]) -> Vec<u64> {
        let groups = || nodes.iter().flat_map(|n| self.nodes[*n].groups());
        let mut terms: Vec<_> =
            groups().filter(|g| g.raft().is_leader()).map(|g| (g.id(), g.raft().term())).collect();
        terms.sort_unstable();
        terms.into_iter().map(|(_, term)| term).collect()
    }
}

#[test]
fn nodes_that_rest_wake_rarely_keep_their_leaders_and_miss_one_that_is_gone() {
    let map = sample_map();
    let mut cluster = Cluster::new(&map, 1_000_000);
    cluster.run(5_000_000, |_| false);
    let terms = cluster.led_terms(&[0, 1, 2]);
    assert_eq!(terms.len(), map.groups.len() + 1, "all groups are led");
    cluster.wakes = [0; 3];
    cluster.run(10_000_000, |_| false);
    assert_eq!(cluster.led_terms(&[0, 1, 2]), terms, "nobody campaigned");
    // Ten wakes a second of its own, and those for what the two others send.
    assert!(cluster.wakes.iter().all(|wakes| (100..450).contains(wakes)), "{:?}", cluster.wakes);
    let led = cluster.led_terms(&[1, 2]).len();
    assert!(led < terms.len(), "the first node leads some");
    cluster.run(1_000_000, |n| n == 0);
    assert_eq!(cluster.led_terms(&[1, 2]).len(), terms.len(), "within a second the others lead all");
}

#[test]
fn nodes_that_rest_wake_at_the_same_time_whenever_they_were_started() {
    let mut cluster = Cluster::new(&sample_map(), 1_003_000);
    cluster.run(34_000, |n| n > 0);
    cluster.run(71_000, |n| n > 1);
    cluster.run(7_000_000, |_| false);
    for _ in 0..50 {
        cluster.run(100_000, |_| false);
        let next_us = |n: usize| cluster.nodes[n].next_tick_us();
        assert_eq!(next_us(0) % 100_000, 0, "at a multiple of 100 ms");
        assert_eq!([next_us(1), next_us(2)], [next_us(0); 2]);
    }
}

#[test]
fn a_wall_clock_that_jumps_puts_no_heartbeat_off_for_long() {
    let mut cluster = Cluster::new(&sample_map(), 1_000_000);
    cluster.run(5_000_000, |_| false);
    let terms = cluster.led_terms(&[0, 1, 2]);
    cluster.wakes = [0; 3];
    let mut random = 1_u64;
    for _ in 0..1_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        cluster.wall_ahead_ms = random >> 33;
        cluster.run(10_000, |_| false);
    }
    assert_eq!(cluster.led_terms(&[0, 1, 2]), terms, "nobody campaigned");
    assert!(cluster.wakes.iter().all(|wakes| (90..450).contains(wakes)), "{:?}", cluster.wakes);
}

#[test]
fn a_leader_whose_disk_stalls_has_others_lead_and_leads_again_when_it_is_quick() {
    let map = ClusterMap { fsync: true, ..sample_map() };
    let mut cluster = Cluster::new(&map, 1_000_000);
    cluster.run(10_000_000, |_| false);
    let (all, own) = (map.groups.len() + 1, cluster.led_terms(&[0]).len());
    assert!(0 < own && cluster.led_terms(&[0, 1, 2]).len() == all, "{own} of {all}");
    cluster.stalled = Some((0, Vec::new()));
    cluster.run(2_000_000, |_| false);
    assert_eq!(cluster.led_terms(&[0]).len(), own, "nothing waits for the disk");
    // One that changes nothing: there is no such key.
    let led = cluster.nodes[0].groups().find(|group| group.raft().is_leader()).unwrap().id();
    let body = [&[0; 8][..], b"k"].concat();
    let write = Submission {
        origin: Origin::None,
        session: 0,
        seq: 0,
        acked: 0,
        is_after_queued: false,
        body: &body,
    };
    cluster.nodes[0].submit_write(led, OpKind::Expire, write);
    let now = at(cluster.now_us);
    cluster.settle(0, now);
    cluster.run(1_000_000, |_| false);
    assert_eq!(cluster.led_terms(&[1, 2]).len(), all, "within a second the others lead all");
    let (_, held) = cluster.stalled.take().unwrap();
    finish(&mut cluster.nodes[0], held);
    cluster.run(30_000_000, |_| false);
    assert_eq!(cluster.led_terms(&[0]).len(), own);
}
