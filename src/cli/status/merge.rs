//! The cluster's map and the answers of its nodes -> [`Status`]: pure.

use anyhow::Context as _;
use ringfort_ring::{NodeId, PartitionCount, PartitionId, Seats};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use super::health::{self, Health};
use super::recovery::{self, Recovery, Waiting};
use crate::meta::moves::{aim_of, received};
use ringfort_wire::map::{MapChange, MapGroup, Moving};

/// Reply of `RINGFORT MAP`.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct ClusterMap {
    pub(super) name: String,
    pub(super) epoch: u64,
    pub(super) partitions: u16,
    pub(super) nodes: Vec<MapNode>,
    pub(super) placement: Vec<Seats>,
    /// What an older node does not tell.
    #[serde(default)]
    pub(super) groups: Vec<MapGroup>,
    /// The change of the members that is under way.
    #[serde(default)]
    pub(super) change: Option<MapChange>,
    #[serde(default)]
    pub(super) moving: Moving,
}

/// A node in the map.
#[derive(Debug, Deserialize)]
pub(super) struct MapNode {
    pub(super) id: NodeId,
    pub(super) client: String,
    pub(super) peer: String,
    pub(super) zone: String,
    #[serde(default)]
    pub(super) is_drained: bool,
    /// Whether the cluster counts it as down.
    #[serde(default)]
    pub(super) is_down: bool,
}

/// Reply of `RINGFORT NODE`.
#[derive(Debug, Deserialize)]
pub(super) struct NodeAnswer {
    id: NodeId,
    state: NodeState,
    commands_per_s: u64,
    workers: u16,
    /// What an older node does not tell.
    #[serde(default)]
    memory_bytes: Option<u64>,
    /// Whether its disk is so full that it refuses writes; not told by an older node.
    #[serde(default)]
    is_disk_full: bool,
    /// Whether its disk is so slow that others are to lead; not told by an older node.
    #[serde(default)]
    is_disk_slow: bool,
    groups: Vec<Group>,
}

/// One replica on a node.
#[derive(Debug, Deserialize)]
struct Group {
    /// `None` for the meta group.
    partition: Option<PartitionId>,
    role: String,
    term: u64,
    keys: u64,
    bytes: u64,
    /// What it knows of the others while it leads.
    followers: Vec<Follower>,
    /// Replicas that do not vote yet.
    #[serde(default)]
    learners: Vec<u64>,
}

/// A follower as its leader sees it.
#[derive(Debug, Deserialize)]
struct Follower {
    node: NodeId,
    behind: u64,
    in_sync: bool,
}

/// What `ringfort status --json` prints.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Status {
    pub(in crate::cli) name: String,
    pub(in crate::cli) epoch: u64,
    /// How well it is.
    pub(in crate::cli) health: Health,
    /// The state of the partitions as a sentence.
    pub(in crate::cli) summary: String,
    /// Everything that is not as it should be, a sentence each.
    pub(in crate::cli) problems: Vec<String>,
    /// The node that leads the meta group, which owns the map and the settings.
    pub(in crate::cli) meta_leader: Option<NodeId>,
    /// Nodes whose replicas of it hold what its leader holds.
    #[serde(skip)]
    pub(in crate::cli) meta_live: Vec<NodeId>,
    /// Keys of the partitions that have a leader, as the leader counts them.
    pub(in crate::cli) keys: u64,
    /// Logical bytes of the same.
    pub(in crate::cli) bytes: u64,
    pub(in crate::cli) nodes: Vec<NodeStatus>,
    pub(in crate::cli) partitions: Vec<PartitionStatus>,
    pub(in crate::cli) moves: Moves,
    /// New replicas that are being seeded.
    pub(in crate::cli) learners: usize,
    /// Partitions of which replicas stand aside.
    pub(in crate::cli) waiting: Vec<Waiting>,
    /// The last time that each partition started anew.
    pub(in crate::cli) recoveries: Vec<Recovery>,
    /// When this was asked, ms since 1970.
    pub(in crate::cli) at_ms: u64,
}

/// One node.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct NodeStatus {
    pub(in crate::cli) id: NodeId,
    pub(in crate::cli) client: String,
    pub(in crate::cli) peer: String,
    pub(in crate::cli) zone: String,
    pub(in crate::cli) state: NodeState,
    /// Whether it is to lead nothing that another node can lead.
    pub(in crate::cli) drained: bool,
    /// Why it is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) problem: Option<String>,
    /// Whether nothing was heard of it for `down_after`, so that its replicas are on other nodes, or on their way there, as far
    /// as there is room.
    pub(in crate::cli) is_replaced: bool,
    /// Whether its disk is so full that it refuses writes.
    pub(in crate::cli) is_disk_full: bool,
    /// Whether its disk is so slow that others are to lead.
    pub(in crate::cli) is_disk_slow: bool,
    /// Partitions that it leads.
    pub(in crate::cli) leaders: usize,
    /// Partitions placed on it.
    pub(in crate::cli) replicas: usize,
    /// Keys in all its replicas; `None` when it is down.
    pub(in crate::cli) keys: Option<u64>,
    /// Logical bytes of the same.
    pub(in crate::cli) bytes: Option<u64>,
    /// Commands that it executed in the last second; `None` when it is down.
    pub(in crate::cli) ops_per_second: Option<u64>,
    /// Most log entries that one of its replicas lacks, as the leaders know; `None` when no leader knows of it.
    pub(in crate::cli) lag: Option<u64>,
    /// Its workers.
    #[serde(skip)]
    pub(in crate::cli) workers: Option<u16>,
    /// Memory of its machine.
    #[serde(skip)]
    pub(in crate::cli) memory_bytes: Option<u64>,
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum NodeState {
    /// It serves.
    Up,
    /// It reads its data.
    Loading,
    /// It hands its leaderships over.
    Leaving,
    /// It does not answer.
    Down,
}

impl NodeState {
    pub(in crate::cli) const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Loading => "loading",
            Self::Leaving => "leaving",
            Self::Down => "down",
        }
    }
}

/// One partition.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct PartitionStatus {
    pub(in crate::cli) id: PartitionId,
    /// First and last slot.
    slots: [u16; 2],
    /// The node that leads it in the highest term that any node tells of.
    pub(in crate::cli) leader: Option<NodeId>,
    pub(in crate::cli) replicas: Vec<NodeId>,
    /// How many of the replicas hold what the leader holds, but for what is on its way; 0 without a leader.
    pub(in crate::cli) in_sync: usize,
    /// Replicas that do not.
    pub(in crate::cli) lagging: Vec<NodeId>,
    pub(in crate::cli) preferred: NodeId,
    /// Keys, as the leader counts them; 0 without one.
    pub(in crate::cli) keys: u64,
    /// Logical bytes of the same.
    pub(in crate::cli) bytes: u64,
}

/// Progress of a change of the placement, in replicas that some node has to receive.
#[derive(Debug, Default, Clone, Serialize)]
pub(in crate::cli) struct Moves {
    /// All of them; 0 when no change is under way.
    pub(in crate::cli) total: u64,
    /// Those that take part.
    pub(in crate::cli) done: u64,
    /// Those that are received just now.
    pub(in crate::cli) active: u64,
    /// Logical bytes that are to be received.
    pub(in crate::cli) bytes_left: u64,
    /// What that takes if one node receives all, at the rate of the config file.
    pub(in crate::cli) seconds_left: u64,
}

impl core::fmt::Display for Moves {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.done == self.total {
            return f.write_str("no moves");
        }
        write!(f, "moves {} of {} done, {} s left", self.done, self.total, self.seconds_left)
    }
}

/// Joins the map with one answer per node of it, in the same order.
///
/// # Errors
/// The map contradicts itself, so it comes from another version.
pub(super) fn merge(map: &ClusterMap, answers: Vec<anyhow::Result<NodeAnswer>>) -> anyhow::Result<Status> {
    let count = PartitionCount::new(map.partitions)
        .filter(|count| usize::from(count.get()) == map.placement.len())
        .with_context(|| {
            format!("the map has {} partitions, {} placed", map.partitions, map.placement.len())
        })?;
    let answers: Vec<Result<NodeAnswer, String>> =
        map.nodes.iter().zip(answers).map(|(node, answer)| check_id(node, answer)).collect();
    let up: Vec<&NodeAnswer> = answers.iter().flatten().collect();
    let leaders: Vec<Option<Leader<'_>>> =
        count.iter().map(|partition| leader_of(Some(partition), &up)).collect();

    let partition = |((id, seats), leader): ((PartitionId, &Seats), &Option<Leader<'_>>)| {
        let (first, last) = count.slots(id);
        PartitionStatus {
            id,
            slots: [first.0, last.0],
            leader: leader.as_ref().map(|leader| leader.node.clone()),
            replicas: seats.replicas.clone(),
            in_sync: leader.as_ref().map_or(0, |leader| in_sync(leader, &up)),
            lagging: seats
                .replicas
                .iter()
                .filter(|node| !is_in_sync(node, leader.as_ref(), &up))
                .cloned()
                .collect(),
            preferred: seats.leader.clone(),
            keys: leader.as_ref().map_or(0, |leader| leader.group.keys),
            bytes: leader.as_ref().map_or(0, |leader| leader.group.bytes),
        }
    };
    let partitions: Vec<_> = count.iter().zip(&map.placement).zip(&leaders).map(partition).collect();
    let nodes = map.nodes.iter().zip(&answers).map(|(node, answer)| {
        let groups =
            answer.as_ref().ok().map(|answer| answer.groups.iter().filter(|group| group.partition.is_some()));
        NodeStatus {
            id: node.id.clone(),
            client: node.client.clone(),
            peer: node.peer.clone(),
            zone: node.zone.clone(),
            state: answer.as_ref().map_or(NodeState::Down, |answer| answer.state),
            drained: node.is_drained,
            problem: answer.as_ref().err().cloned(),
            is_replaced: node.is_down,
            is_disk_full: answer.as_ref().is_ok_and(|answer| answer.is_disk_full),
            is_disk_slow: answer.as_ref().is_ok_and(|answer| answer.is_disk_slow),
            leaders: leaders.iter().flatten().filter(|leader| *leader.node == node.id).count(),
            replicas: map.placement.iter().filter(|seats| seats.replicas.contains(&node.id)).count(),
            keys: groups.clone().map(|groups| groups.map(|group| group.keys).sum()),
            bytes: groups.map(|groups| groups.map(|group| group.bytes).sum()),
            ops_per_second: answer.as_ref().ok().map(|answer| answer.commands_per_s),
            lag: leaders.iter().flatten().flat_map(|leader| leader.lag_of(&node.id)).max(),
            workers: answer.as_ref().ok().map(|answer| answer.workers),
            memory_bytes: answer.as_ref().ok().and_then(|answer| answer.memory_bytes),
        }
    });
    let nodes: Vec<NodeStatus> = nodes.collect();
    let meta_leader = leader_of(None, &up);
    let meta_live = map.nodes.iter().map(|node| &node.id);
    let meta_live = meta_live.filter(|id| is_in_sync(id, meta_leader.as_ref(), &up)).cloned().collect();
    let meta_leader = meta_leader.map(|leader| leader.node.clone());
    let waiting = recovery::waiting(&map.groups);
    let aims = map.groups.iter().map(aim_of);
    let awaited: BTreeSet<NodeId> = aims.flat_map(|seats| seats.replicas).collect();
    let mut problems = health::problems(&nodes, &partitions, meta_leader.is_some());
    let replicas = partitions.iter().map(|partition| partition.replicas.len()).max().unwrap_or(0);
    problems.extend(health::absences(&nodes, replicas, &awaited, map.moving.down_after_s));
    problems.extend(recovery::problems(&waiting));
    let (health, summary) = health::judge(&partitions, !problems.is_empty());
    Ok(Status {
        name: map.name.clone(),
        epoch: map.epoch,
        health,
        summary,
        problems,
        meta_leader,
        meta_live,
        keys: leaders.iter().flatten().map(|leader| leader.group.keys).sum(),
        bytes: leaders.iter().flatten().map(|leader| leader.group.bytes).sum(),
        nodes,
        partitions,
        moves: moves(map, &leaders),
        learners: leaders.iter().flatten().map(|leader| leader.group.learners.len()).sum(),
        waiting,
        recoveries: recovery::recoveries(&map.groups),
        at_ms: 0,
    })
}

/// How far a change of the members has come.
fn moves(map: &ClusterMap, leaders: &[Option<Leader<'_>>]) -> Moves {
    let Some(change) = &map.change else { return Moves::default() };
    let (mut active, mut left, mut bytes_left) = (0, 0, 0);
    for (at, group) in map.groups.iter().enumerate() {
        let joining = if group.before.is_some() { group.joining.len() as u64 } else { 0 };
        let lacking = joining + u64::from(received(group));
        let bytes = leaders.get(at).and_then(Option::as_ref).map_or(0, |leader| leader.group.bytes);
        active += joining;
        left += lacking;
        bytes_left += lacking * bytes;
    }
    let total = u64::from(change.total);
    Moves {
        total,
        done: total.saturating_sub(left),
        active,
        bytes_left,
        seconds_left: bytes_left.div_ceil(map.moving.bytes_per_s.max(1)),
    }
}

fn check_id(node: &MapNode, answer: anyhow::Result<NodeAnswer>) -> Result<NodeAnswer, String> {
    let answer = answer.map_err(|error| format!("{error:#}"))?;
    if answer.id != node.id {
        return Err(format!("at {} answers node {}", node.client, answer.id));
    }
    Ok(answer)
}

struct Leader<'a> {
    node: &'a NodeId,
    group: &'a Group,
}

impl Leader<'_> {
    /// How many entries the replica on `node` lacks; `None` when this leader knows of none there.
    fn lag_of(&self, node: &NodeId) -> Option<u64> {
        if self.node == node {
            return Some(0);
        }
        self.group.followers.iter().find(|follower| follower.node == *node).map(|follower| follower.behind)
    }
}

/// How many replicas hold what this leader holds. A node that has just gone counts as gone before its leader knows.
fn in_sync(leader: &Leader<'_>, up: &[&NodeAnswer]) -> usize {
    1 + leader.group.followers.iter().filter(|follower| is_in_sync(&follower.node, Some(leader), up)).count()
}

fn is_in_sync(node: &NodeId, leader: Option<&Leader<'_>>, up: &[&NodeAnswer]) -> bool {
    let is_up = up.iter().any(|answer| answer.id == *node);
    leader.is_some_and(|leader| {
        let mut followers = leader.group.followers.iter();
        leader.node == node || (is_up && followers.any(|follower| follower.node == *node && follower.in_sync))
    })
}

/// The replica that says it leads `partition` (`None`: the meta group); of several the one with the highest term, as the
/// others were deposed.
fn leader_of<'a>(partition: Option<PartitionId>, nodes: &[&'a NodeAnswer]) -> Option<Leader<'a>> {
    let all = nodes.iter().flat_map(|node| node.groups.iter().map(|group| Leader { node: &node.id, group }));
    all.filter(|leader| leader.group.partition == partition && leader.group.role == "leader")
        .max_by_key(|leader| leader.group.term)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    fn map() -> ClusterMap {
        let seats = json!({"replicas": ["n1", "n2"], "leader": "n1"});
        serde_json::from_value(json!({
            "cluster_id": "c", "name": "demo", "epoch": 7, "partitions": 16,
            "nodes": [
                {"id": "n1", "client": "127.0.0.1:7001", "peer": "127.0.0.1:7101", "weight": 1, "zone": "a"},
                {"id": "n2", "client": "127.0.0.1:7002", "peer": "127.0.0.1:7102", "weight": 1, "zone": "b"},
            ],
            "placement": vec![seats; 16],
        }))
        .expect("the shape of RINGFORT MAP")
    }

    /// `groups`: partition, role, term, keys.
    fn answer(id: &str, groups: &[(Option<u16>, &str, u64, u64)]) -> NodeAnswer {
        let group = |(partition, role, term, keys): &(Option<u16>, &str, u64, u64)| {
            json!({"partition": partition, "role": role, "leader": null, "term": term, "commit": 1, "applied": 1,
                   "last": 1, "keys": keys, "bytes": keys * 2,
                   "followers": if *role == "leader" { json!([{"node": "n2", "behind": 3, "in_sync": true}]) } else { json!([]) }})
        };
        let groups: Vec<_> = groups.iter().map(group).collect();
        serde_json::from_value(json!({
            "id": id, "state": "up", "store_id": "s", "workers": 1, "commands_per_s": 12_500, "term_meta": 1, "groups": groups,
        }))
        .expect("the shape of RINGFORT NODE")
    }

    pub(in super::super) fn two_nodes_one_down() -> (ClusterMap, Vec<anyhow::Result<NodeAnswer>>) {
        let groups = [
            (None, "leader", 9, 99_999),
            (Some(0), "leader", 2, 1_000),
            (Some(1), "leader", 2, 200),
            (Some(2), "follower", 2, 3),
        ];
        (map(), vec![Ok(answer("n1", &groups)), Err(anyhow::anyhow!("connection refused"))])
    }

    #[test]
    fn the_leader_is_the_one_of_the_highest_term() {
        let stale = answer("n1", &[(Some(0), "leader", 4, 10)]);
        let fresh = answer("n2", &[(Some(0), "leader", 5, 20), (Some(1), "follower", 9, 0)]);
        let status = merge(&map(), vec![Ok(stale), Ok(fresh)]).unwrap();
        assert_eq!(status.partitions[0].leader, Some(NodeId("n2".to_owned())));
        assert_eq!(status.partitions[1].leader, None);
        assert_eq!([status.nodes[0].leaders, status.nodes[1].leaders], [0, 1]);
        assert_eq!((status.keys, status.bytes), (20, 40));
    }

    #[test]
    fn json_has_the_agreed_shape() {
        let (map, answers) = two_nodes_one_down();
        let status = serde_json::to_value(merge(&map, answers).unwrap()).unwrap();
        assert_eq!(status["epoch"], 7);
        assert_eq!(
            status["nodes"][0],
            json!({"id": "n1", "client": "127.0.0.1:7001", "peer": "127.0.0.1:7101", "zone": "a",
                   "state": "up", "drained": false, "leaders": 2, "replicas": 16, "keys": 1203, "bytes": 2406, "ops_per_second": 12_500,
                   "lag": 0, "is_replaced": false, "is_disk_full": false, "is_disk_slow": false})
        );
        assert_eq!(status["nodes"][1]["state"], "down");
        assert_eq!(status["nodes"][1]["problem"], "connection refused");
        assert_eq!(
            status["partitions"][15],
            json!({"id": 15, "slots": [15360, 16383], "leader": null, "replicas": ["n1", "n2"], "in_sync": 0,
                   "lagging": ["n1", "n2"], "preferred": "n1", "keys": 0, "bytes": 0})
        );
        assert_eq!(
            status["moves"],
            json!({"total": 0, "done": 0, "active": 0, "bytes_left": 0, "seconds_left": 0})
        );
    }

    #[test]
    fn a_full_disk_is_a_problem_and_so_is_a_slow_one() {
        let problems_of = |is_full: bool, is_slow: bool| {
            let mut one = answer("n1", &[(None, "leader", 9, 0)]);
            (one.is_disk_full, one.is_disk_slow) = (is_full, is_slow);
            merge(&map(), vec![Ok(one), Ok(answer("n2", &[]))]).unwrap().problems
        };
        let full = "the disk of n1 is full: it leads only what no other node can lead, and refuses writes to it; free space";
        let slow = "the disk of n1 is slow: a sync took longer than half a second, so others lead what waited for it, where they can";
        let said = |is_full, is_slow| {
            let problems = problems_of(is_full, is_slow);
            (problems.iter().any(|problem| problem == full), problems.iter().any(|problem| problem == slow))
        };
        for (is_full, is_slow) in [(false, false), (true, false), (false, true), (true, true)] {
            assert_eq!(said(is_full, is_slow), (is_full, is_slow));
        }
    }

    #[test]
    fn another_node_at_an_address_counts_as_down() {
        let status = merge(&map(), vec![Ok(answer("n1", &[])), Ok(answer("n9", &[]))]).unwrap();
        assert_eq!(status.nodes[1].state, NodeState::Down);
        assert_eq!(status.nodes[1].problem.as_deref(), Some("at 127.0.0.1:7002 answers node n9"));
    }

    #[test]
    fn a_map_that_contradicts_itself_is_refused() {
        let mut map = map();
        map.placement.pop();
        let error = merge(&map, Vec::new()).unwrap_err().to_string();
        assert_eq!(error, "the map has 16 partitions, 15 placed");
    }
}
