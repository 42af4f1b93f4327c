//! What a run did, in numbers.

use crate::options::{Fault, SECOND};
use std::collections::BTreeMap;

/// What part a host has in a move of replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// It leads a group whose members change.
    Leader,
    /// It leads the meta group.
    MetaLeader,
    /// It receives a replica.
    Joining,
    /// It gives one up.
    Leaving,
    Proxy,
    Other,
}

/// What a run did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) hash: u64,
    pub(crate) events: u64,
    pub(crate) virtual_us: u64,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) unknown: u64,
    pub(crate) elections: u64,
    /// Faults drawn, by kind; some find nothing that they could break just then.
    pub(crate) faults: BTreeMap<Fault, u64>,
    pub(crate) snapshots: u64,
    pub(crate) restarts: u64,
    pub(crate) wipes: u64,
    /// Changes of the members that were accepted.
    pub(crate) changes: u64,
    /// Changes of memberships that groups committed: every single step of a replica's coming and going.
    pub(crate) member_steps: u64,
    /// Exchanges of replicas that were turned round.
    pub(crate) turned: u64,
    /// Nodes that were judged down.
    pub(crate) downs: u64,
    /// Nodes that were gone for good.
    pub(crate) vanished: u64,
    /// Faults that fell on a host while a change of the members was under way, by its part in that.
    pub(crate) victims: BTreeMap<(Fault, Role), u64>,
    /// Nodes that left the cluster.
    pub(crate) left: u64,
    /// Machines that crashed in `buffered`.
    pub(crate) suspects: u64,
    /// Damaged logs or snapshots that a start has refused.
    pub(crate) damages: u64,
    /// Packets that were read after their connection had broken.
    pub(crate) late: u64,
    /// Keys evicted by the last processes.
    pub(crate) evicted: u64,
    /// Writes refused for want of memory.
    pub(crate) refused: u64,
    /// Reads that followers answered, of the last processes.
    pub(crate) follower_reads: u64,
    /// Times that a worker lay down to rest for more than one tick.
    pub(crate) rests: u64,
    /// Keys whose history was too hard to judge.
    pub(crate) undecided: u64,
}

impl Report {
    /// The sums that `scripts/sim` adds up, by name.
    pub(crate) fn sums(&self) -> Vec<(String, u64)> {
        let counts = [
            ("events", self.events),
            ("virtual_s", self.virtual_us / SECOND),
            ("operations_done", self.done),
            ("operations_failed", self.failed),
            ("operations_unknown", self.unknown),
            ("elections", self.elections),
            ("restarts", self.restarts),
            ("snapshots_sent", self.snapshots),
            ("packets_late", self.late),
            ("folders_lost", self.wipes),
            ("folders_damaged", self.damages),
            ("member_changes", self.changes),
            ("member_steps", self.member_steps),
            ("moves_turned", self.turned),
            ("nodes_down", self.downs),
            ("nodes_vanished", self.vanished),
            ("nodes_left", self.left),
            ("machines_suspect", self.suspects),
            ("follower_reads", self.follower_reads),
            ("rests", self.rests),
            ("keys_undecided", self.undecided),
        ];
        let counts = counts.into_iter().map(|(name, count)| (name.to_owned(), count));
        let faults =
            self.faults.iter().map(|(fault, count)| (format!("fault_{fault:?}").to_lowercase(), *count));
        let victims = self
            .victims
            .iter()
            .map(|((fault, role), count)| (format!("moving_{fault:?}_{role:?}").to_lowercase(), *count));
        counts.chain(faults).chain(victims).collect()
    }

    /// Adds another run.
    pub(crate) fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.virtual_us += other.virtual_us;
        self.done += other.done;
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.elections += other.elections;
        for (&fault, count) in &other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        self.snapshots += other.snapshots;
        self.restarts += other.restarts;
        self.wipes += other.wipes;
        self.changes += other.changes;
        self.member_steps += other.member_steps;
        self.turned += other.turned;
        self.downs += other.downs;
        self.vanished += other.vanished;
        for (&victim, count) in &other.victims {
            *self.victims.entry(victim).or_default() += count;
        }
        self.left += other.left;
        self.suspects += other.suspects;
        self.damages += other.damages;
        self.late += other.late;
        self.evicted += other.evicted;
        self.refused += other.refused;
        self.follower_reads += other.follower_reads;
        self.rests += other.rests;
        self.undecided += other.undecided;
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} events in {} virtual s; {} operations done, {} failed, {} unknown; {} faults, {} restarts, {} data \
             folders lost, {} changes of the members in {} steps, {} moves turned round, {} nodes judged down, {} gone for good, {} nodes left, {} damaged, {} packets late, {} elections, {} snapshots sent, {} keys evicted by the last processes, {} writes refused for \
             want of memory, {} reads answered by the last processes as followers, {} rests",
            self.events,
            self.virtual_us / SECOND,
            self.done,
            self.failed,
            self.unknown,
            self.faults.values().sum::<u64>(),
            self.restarts,
            self.wipes,
            self.changes,
            self.member_steps,
            self.turned,
            self.downs,
            self.vanished,
            self.left,
            self.damages,
            self.late,
            self.elections,
            self.snapshots,
            self.evicted,
            self.refused,
            self.follower_reads,
            self.rests
        )
    }
}
