//! What is not as it should be, in sentences: pure.

use serde::Serialize;

use super::merge::{NodeState, NodeStatus, PartitionStatus};
use crate::meta::partitions_named;
use ringfort_ring::NodeId;
use std::collections::BTreeSet;

/// How well the cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Health {
    /// There is no problem.
    Ok,
    /// Every partition has a leader; something else is missing.
    Degraded,
    /// Some partition has no leader: its keys cannot be read or written.
    Down,
}

/// How well the cluster is, and the state of all partitions in a sentence.
pub(super) fn judge(partitions: &[PartitionStatus], has_problems: bool) -> (Health, String) {
    let count = partitions.len();
    let seats = partitions.iter().map(|partition| partition.replicas.len()).max().unwrap_or(0);
    let orphans = partitions.iter().filter(|partition| partition.leader.is_none()).count();
    let thin = partitions.iter().filter(|partition| lacks_replica(partition)).count();
    let lacking = format!(
        "{thin} {} than {seats} of {seats} replicas",
        if thin == 1 { "has fewer" } else { "have fewer" }
    );
    let health = match (orphans, has_problems) {
        (0, false) => Health::Ok,
        (0, true) => Health::Degraded,
        _ => Health::Down,
    };
    let led = match orphans {
        0 => format!("all {count} partitions have a leader"),
        _ => format!("{orphans} of {count} partitions have no leader"),
    };
    let summary = match (orphans, thin) {
        (0, 0) => format!("{led} and {seats} of {seats} replicas"),
        (_, 0) => led,
        _ => format!("{led}, {lacking}"),
    };
    (health, summary)
}

fn lacks_replica(partition: &PartitionStatus) -> bool {
    partition.leader.is_some() && partition.in_sync < partition.replicas.len()
}

/// What becomes of the replicas of nodes that are away, a sentence each; `awaited`: the nodes on which some are to be.
pub(super) fn absences(
    nodes: &[NodeStatus],
    replicas: usize,
    awaited: &BTreeSet<NodeId>,
    down_after_s: u32,
) -> Vec<String> {
    let sentence = |node: &NodeStatus| {
        let what = match (node.is_replaced, awaited.contains(&node.id)) {
            (true, false) => "are on other nodes, or on their way there, until it is back",
            (false, true) if node.state == NodeState::Down && replicas < nodes.len() => {
                return Some(format!(
                    "the replicas of {} go to other nodes when it has been away for {down_after_s} s (down_after)",
                    node.id
                ));
            }
            (_, true) if node.state == NodeState::Down => {
                "stay where they are: there is no room for them on other nodes"
            }
            _ => return None,
        };
        Some(format!("the replicas of {} {what}", node.id))
    };
    nodes.iter().filter_map(sentence).collect()
}

/// Every problem in a sentence, the worst first.
pub(super) fn problems(
    nodes: &[NodeStatus],
    partitions: &[PartitionStatus],
    has_meta_leader: bool,
) -> Vec<String> {
    let mut problems = Vec::new();
    let ids = |wanted: &dyn Fn(&PartitionStatus) -> bool| -> Vec<u16> {
        partitions.iter().filter(|partition| wanted(partition)).map(|partition| partition.id.0).collect()
    };
    let orphans = ids(&|partition| partition.leader.is_none());
    if !orphans.is_empty() {
        problems
            .push(format!("no leader: {}; their keys cannot be read or written", partitions_named(&orphans)));
    }
    let most = partitions.iter().map(|partition| partition.replicas.len()).max().unwrap_or(0);
    for in_sync in 1..most {
        let thin = ids(&|partition| lacks_replica(partition) && partition.in_sync == in_sync);
        if !thin.is_empty() {
            problems.push(format!("{in_sync} of {most} replicas: {}", partitions_named(&thin)));
        }
    }
    if !has_meta_leader {
        problems.push("the meta group has no leader: settings and placement cannot change".to_owned());
    }
    for node in nodes {
        match node.state {
            NodeState::Up => {}
            NodeState::Loading => problems.push(format!("{} reads its data and does not serve yet", node.id)),
            NodeState::Leaving => problems.push(format!("{} is stopping", node.id)),
            NodeState::Down => {
                let why = node.problem.as_deref().unwrap_or("no reason known");
                problems.push(format!("{} does not answer at {}: {why}", node.id, node.client));
            }
        }
        if node.is_disk_full {
            problems.push(format!(
                "the disk of {} is full: it leads only what no other node can lead, and refuses writes to it; free space",
                node.id
            ));
        }
        if node.is_disk_slow {
            problems.push(format!(
                "the disk of {} is slow: a sync took longer than half a second, so others lead what waited for it, where they can",
                node.id
            ));
        }
    }
    problems
}
