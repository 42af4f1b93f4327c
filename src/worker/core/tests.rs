//! Workers of several nodes on one thread; messages and the ends of disk jobs are passed on by hand.

use super::*;
use crate::clock::Clock;
use crate::log::{LastStop, LogOptions, MemDisk};
use crate::meta::form::tests::sample_map;
use crate::shard::limits::Limits;
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
            to.peer_frame(frame.kind, frame.body).unwrap();
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
        n1.tick(Still.now()).unwrap();
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
