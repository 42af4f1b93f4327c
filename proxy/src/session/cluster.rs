//! CLUSTER: the map in the words of Redis Cluster, with the nodes' real addresses.

use super::connection::{Outcome, integer, text};
use super::{Args, Host};
use core::fmt::Write as _;
use ringfort_resp::{Command, CommandSpec, ReplyWriter};
use ringfort_ring::{NodeId, PartitionId, SLOTS, Slot, slot_of};
use ringfort_wire::ClusterMap;
use ringfort_wire::map::MapNode;
use serde::Serialize;
use std::collections::BTreeMap;
use twox_hash::XxHash3_64;

pub(super) fn execute(
    spec: &'static CommandSpec,
    args: Args<'_>,
    host: &dyn Host,
    is_tls: bool,
    is_readonly: bool,
    out: &mut ReplyWriter<'_>,
) -> Outcome {
    let name = spec.short_name();
    if name == "keyslot" {
        out.integer(i64::from(slot_of(args.get(2)).0));
        return Ok(());
    }
    let Some(map) = host.map() else {
        return Err("CLUSTERDOWN Ringfort is starting: no cluster map yet".to_owned());
    };
    match name {
        "slots" if is_readonly => write_slots(&ranges_of_readers(map, host), is_tls, out),
        "slots" => write_slots(&ranges(map, host), is_tls, out),
        "shards" => write_shards(map, host, is_tls, out),
        "info" => text(out, &info(map, host)),
        "nodes" => text(out, &nodes(map, host, is_tls)),
        "links" => write_links(map, host, out),
        "replicas" | "slaves" => return write_replicas(map, args.get(2), host, is_tls, out),
        // Nobody reports: the voters of each partition find out by themselves.
        "count-failure-reports" => node_by_id(map, args.get(2)).map(|_| out.integer(0))?,
        // "myid" and "myshardid": a shard has the id of the node that leads it.
        _ => {
            let me = host.my_node().ok_or("ERR a proxy has no node id")?;
            let master = map.node(me).filter(|_| name == "myshardid");
            let master = master.and_then(|node| master_of(node, &ranges(map, host)));
            out.bulk(redis_id(master.map_or(me, |node| &node.id)).as_bytes());
        }
    }
    Ok(())
}

/// What a partition executes for COUNTKEYSINSLOT and GETKEYSINSLOT; `None` for every other command.
pub(super) fn slot_question(spec: &CommandSpec) -> Option<&'static CommandSpec> {
    match (spec.command, spec.name) {
        (Command::Cluster, "cluster|countkeysinslot") => Some(Command::SlotCount.spec()),
        (Command::Cluster, "cluster|getkeysinslot") => Some(Command::SlotKeys.spec()),
        _ => None,
    }
}

/// The slot that COUNTKEYSINSLOT or GETKEYSINSLOT asks of, or the text of the error reply.
pub(super) fn slot_of_question(question: &CommandSpec, args: Args<'_>) -> Result<Slot, String> {
    let number = |i| integer(args.get(i)).ok_or("ERR value is not an integer or out of range");
    let slot = number(2)?;
    let (is_count_bad, error) = match question.command {
        Command::SlotKeys => (number(3)? < 0, "ERR Invalid slot or number of keys"),
        _ => (false, "ERR Invalid slot"),
    };
    let slot = u16::try_from(slot).ok().filter(|slot| *slot < SLOTS && !is_count_bad);
    slot.map(Slot).ok_or_else(|| error.to_owned())
}

/// The id of a node as Redis writes it: forty hexadecimal digits, always the same for the same name.
fn redis_id(node: &NodeId) -> String {
    let [a, b, c] = [0, 1, 2].map(|seed| XxHash3_64::oneshot_with_seed(seed, node.0.as_bytes()));
    format!("{a:016x}{b:016x}{:08x}", c >> 32)
}

/// The reply to RINGFORT MAP: the cluster map as JSON without its settings, with the replicas of each partition by node and
/// its present leader.
pub fn map_json<'a>(map: &ClusterMap, leader_of: impl Fn(PartitionId) -> Option<&'a NodeId>) -> String {
    #[derive(Serialize)]
    struct Shown<'a> {
        #[serde(flatten)]
        map: ClusterMap,
        placement: Vec<Placement<'a>>,
        leaders: Vec<Option<&'a NodeId>>,
    }
    #[derive(Serialize)]
    struct Placement<'a> {
        replicas: Vec<&'a NodeId>,
        leader: &'a NodeId,
    }
    let placement = map.groups.iter().map(|group| Placement {
        replicas: group.seats.iter().map(|seat| &seat.node).collect(),
        leader: &group.leader,
    });
    let shown = Shown {
        map: ClusterMap { settings: BTreeMap::new(), ..map.clone() },
        placement: placement.collect(),
        leaders: map.partitions.iter().map(leader_of).collect(),
    };
    serde_json::to_string(&shown).expect("a map has only string keys and plain values")
}

/// Consecutive partitions with the same leader and followers, as clients are to see them.
struct Range<'a> {
    first_slot: u16,
    last_slot: u16,
    replicas: Replicas<'a>,
}

/// A leader and its followers. Clients know only whole nodes as masters or replicas, and one that they see in both roles
/// they take for a replica, never to send SCAN, KEYS or FLUSHALL to it: so a node that leads anything follows nobody here,
/// and one that leads nothing follows the leader of its first partition.
#[derive(PartialEq, Eq)]
struct Replicas<'a> {
    /// The leader first; when nobody is known to lead, the node that is to.
    nodes: Vec<&'a MapNode>,
    has_leader: bool,
}

fn ranges<'a>(map: &'a ClusterMap, host: &dyn Host) -> Vec<Range<'a>> {
    let leaders: Vec<_> = map.partitions.iter().map(|p| leader_of(p, map, host)).collect();
    let followers: Vec<(&MapNode, &MapNode)> = map
        .nodes
        .iter()
        .filter(|node| !leaders.contains(&Some(node)))
        .filter_map(|node| {
            let first = map.groups.iter().position(|group| group.replica_on(&node.id).is_some())?;
            Some((node, leaders[first]?))
        })
        .collect();
    joined(map, host, |_, leader| {
        followers.iter().filter(|(_, master)| *master == leader).map(|(node, _)| *node).collect()
    })
}

/// As [`ranges`], for a client that said READONLY: every replica of a partition follows its leader, whatever else it leads.
///
/// Clients that say so before they ask take a node for what they see it as first. So one slot of each leader stands in front,
/// without followers: else SCAN, KEYS or FLUSHALL would not reach all leaders.
fn ranges_of_readers<'a>(map: &'a ClusterMap, host: &dyn Host) -> Vec<Range<'a>> {
    let mut ranges = joined(map, host, |partition, leader| {
        let group = map.groups.get(usize::from(partition.0));
        let has_replica = |node: &&MapNode| group.is_some_and(|g| g.replica_on(&node.id).is_some());
        map.nodes.iter().filter(has_replica).filter(|node| *node != leader).collect()
    });
    let mut fronts: Vec<Range<'a>> = Vec::new();
    for range in &mut ranges {
        let Some(leader) = range.replicas.nodes.first().copied() else { continue };
        if fronts.iter().all(|front| front.replicas.nodes != [leader]) {
            let replicas = Replicas { nodes: vec![leader], has_leader: range.replicas.has_leader };
            fronts.push(Range { first_slot: range.first_slot, last_slot: range.first_slot, replicas });
            range.first_slot += 1;
        }
    }
    fronts.append(&mut ranges);
    fronts
}

fn leader_of<'a>(partition: PartitionId, map: &'a ClusterMap, host: &dyn Host) -> Option<&'a MapNode> {
    let wanted = map.groups.get(usize::from(partition.0))?.wanted_leader();
    map.node(host.leader_of(partition).unwrap_or(wanted))
}

/// All partitions in order, with the followers that a function names; neighbours that are alike are one range.
fn joined<'a>(
    map: &'a ClusterMap,
    host: &dyn Host,
    followers: impl Fn(PartitionId, &'a MapNode) -> Vec<&'a MapNode>,
) -> Vec<Range<'a>> {
    let mut ranges: Vec<Range<'a>> = Vec::new();
    for partition in map.partitions.iter() {
        let leader = leader_of(partition, map, host);
        let followers = leader.map(|leader| followers(partition, leader)).unwrap_or_default();
        let nodes = leader.into_iter().chain(followers).collect();
        let replicas = Replicas { nodes, has_leader: host.leader_of(partition).is_some() };
        let (first, last) = map.partitions.slots(partition);
        match ranges.last_mut() {
            Some(range) if range.replicas == replicas => range.last_slot = last.0,
            _ => ranges.push(Range { first_slot: first.0, last_slot: last.0, replicas }),
        }
    }
    ranges
}

/// Host and port of an address of the map; the port is 0 when the address has none.
fn split_address(address: &str) -> (&str, u16) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
    (host.trim_start_matches('[').trim_end_matches(']'), port.parse().unwrap_or(0))
}

fn write_slots(ranges: &[Range<'_>], is_tls: bool, out: &mut ReplyWriter<'_>) {
    out.array(ranges.len());
    for range in ranges {
        out.array(2 + range.replicas.nodes.len());
        out.integer(i64::from(range.first_slot));
        out.integer(i64::from(range.last_slot));
        for node in &range.replicas.nodes {
            let (ip, port) = split_address(node.address(is_tls));
            out.array(4);
            out.bulk(ip.as_bytes());
            out.integer(i64::from(port));
            out.bulk(redis_id(&node.id).as_bytes());
            out.array(0);
        }
    }
}

/// All ranges with the same leader and the same followers.
struct Shard<'a> {
    replicas: Replicas<'a>,
    /// First and last slot of each range.
    slots: Vec<(u16, u16)>,
}

fn write_shards(map: &ClusterMap, host: &dyn Host, is_tls: bool, out: &mut ReplyWriter<'_>) {
    let mut shards: Vec<Shard<'_>> = Vec::new();
    for range in ranges(map, host) {
        let slots = (range.first_slot, range.last_slot);
        match shards.iter_mut().find(|shard| shard.replicas == range.replicas) {
            Some(shard) => shard.slots.push(slots),
            None => shards.push(Shard { replicas: range.replicas, slots: vec![slots] }),
        }
    }
    out.array(shards.len());
    for Shard { replicas, slots } in shards {
        out.map(2);
        out.bulk(b"slots");
        out.array(slots.len() * 2);
        for (first, last) in slots {
            out.integer(i64::from(first));
            out.integer(i64::from(last));
        }
        out.bulk(b"nodes");
        out.array(replicas.nodes.len());
        for (i, node) in replicas.nodes.into_iter().enumerate() {
            let (ip, _) = split_address(node.address(is_tls));
            let ports = [("port", Some(&node.client)), ("tls-port", node.tls_client.as_ref())];
            let ports = ports.into_iter().filter_map(|(key, address)| Some((key, split_address(address?).1)));
            out.map(6 + ports.clone().count());
            out.bulk(b"id");
            out.bulk(redis_id(&node.id).as_bytes());
            for (key, port) in ports {
                out.bulk(key.as_bytes());
                out.integer(i64::from(port));
            }
            for (key, value) in
                [("ip", ip), ("endpoint", ip), ("role", if i == 0 { "master" } else { "replica" })]
            {
                out.bulk(key.as_bytes());
                out.bulk(value.as_bytes());
            }
            out.bulk(b"replication-offset");
            out.integer(0);
            out.bulk(b"health");
            out.bulk(if i > 0 || replicas.has_leader { b"online" } else { b"fail" });
        }
    }
}

fn info(map: &ClusterMap, host: &dyn Host) -> String {
    let ranges = ranges(map, host);
    let led = || ranges.iter().filter(|r| r.replicas.has_leader);
    let leaders = map.nodes.iter().filter(|n| led().any(|r| r.replicas.nodes.first() == Some(n))).count();
    let slots_ok = led().map(|r| u64::from(r.last_slot - r.first_slot) + 1).sum::<u64>();
    let slots = u64::from(SLOTS);
    let mut text = String::new();
    for (name, value) in [
        ("cluster_enabled", 1),
        ("cluster_slots_assigned", slots),
        ("cluster_slots_ok", slots_ok),
        ("cluster_slots_pfail", 0),
        ("cluster_slots_fail", slots - slots_ok),
        ("cluster_known_nodes", map.nodes.len() as u64),
        ("cluster_size", leaders as u64),
        ("cluster_current_epoch", map.epoch),
        ("cluster_my_epoch", map.epoch),
    ] {
        write!(text, "{name}:{value}\r\n").expect("a String takes every write");
        if name == "cluster_enabled" {
            let state = if slots_ok == slots { "ok" } else { "fail" };
            write!(text, "cluster_state:{state}\r\n").expect("a String takes every write");
        }
    }
    text
}

/// Whom a node follows; `None` for a node that leads.
fn master_of<'a>(node: &MapNode, ranges: &[Range<'a>]) -> Option<&'a MapNode> {
    if ranges.iter().any(|r| r.replicas.nodes.first() == Some(&node)) {
        return None;
    }
    ranges.iter().find(|r| r.replicas.nodes.contains(&node))?.replicas.nodes.first().copied()
}

/// A node's line of CLUSTER NODES: a node that leads anything is a master with the slots that it leads.
fn node_line(node: &MapNode, epoch: u64, ranges: &[Range<'_>], host: &dyn Host, is_tls: bool) -> String {
    let master = master_of(node, ranges);
    let (ip, port) = split_address(node.address(is_tls));
    let (_, peer_port) = split_address(&node.peer);
    let mut line = format!(
        "{} {ip}:{port}@{peer_port} {}{} {} 0 0 {} connected",
        redis_id(&node.id),
        if host.my_node() == Some(&node.id) { "myself," } else { "" },
        if master.is_some() { "slave" } else { "master" },
        master.map_or_else(|| "-".to_owned(), |m| redis_id(&m.id)),
        epoch,
    );
    for range in ranges.iter().filter(|r| r.replicas.nodes.first() == Some(&node)) {
        write!(line, " {}-{}", range.first_slot, range.last_slot).expect("a String takes every write");
    }
    line
}

/// One line a node.
fn nodes(map: &ClusterMap, host: &dyn Host, is_tls: bool) -> String {
    let ranges = ranges(map, host);
    map.nodes.iter().map(|node| node_line(node, map.epoch, &ranges, host, is_tls) + "\n").collect()
}

/// The node of a forty-digit id.
fn node_by_id<'a>(map: &'a ClusterMap, id: &[u8]) -> Result<&'a MapNode, String> {
    let found = map.nodes.iter().find(|node| redis_id(&node.id).as_bytes() == id);
    found.ok_or_else(|| format!("ERR Unknown node {}", String::from_utf8_lossy(id)))
}

/// CLUSTER REPLICAS: the lines of the nodes that lead nothing and follow this one.
fn write_replicas(
    map: &ClusterMap,
    id: &[u8],
    host: &dyn Host,
    is_tls: bool,
    out: &mut ReplyWriter<'_>,
) -> Outcome {
    let node = node_by_id(map, id)?;
    let ranges = ranges(map, host);
    if master_of(node, &ranges).is_some() {
        return Err("ERR The specified node is not a master".to_owned());
    }
    let followers: Vec<_> = map.nodes.iter().filter(|n| master_of(n, &ranges) == Some(node)).collect();
    out.array(followers.len());
    for follower in followers {
        out.bulk(node_line(follower, map.epoch, &ranges, host, is_tls).as_bytes());
    }
    Ok(())
}

/// CLUSTER LINKS: a connection to and one from every other node; a proxy has none of this kind.
fn write_links(map: &ClusterMap, host: &dyn Host, out: &mut ReplyWriter<'_>) {
    let is_other = |node: &&MapNode| host.my_node().is_some_and(|me| *me != node.id);
    let others: Vec<_> = map.nodes.iter().filter(is_other).collect();
    out.array(others.len() * 2);
    for node in others {
        for direction in ["to", "from"] {
            out.map(3);
            for (key, value) in [("direction", direction), ("node", &redis_id(&node.id)), ("events", "rw")] {
                out.bulk(key.as_bytes());
                out.bulk(value.as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_map_has_leaders_and_no_settings() {
        let mut map = crate::testing::map(3, 16);
        map.settings.insert("requirepass".to_owned(), "a secret".to_owned());
        let leader = NodeId("n2".to_owned());
        let shown = map_json(&map, |partition| (partition.0 == 1).then_some(&leader));
        assert!(!shown.contains("secret") && !shown.contains("settings"), "{shown}");
        let json: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!((&json["leaders"][0], &json["leaders"][1]), (&serde_json::Value::Null, &"n2".into()));
        assert_eq!(
            json["placement"][0],
            serde_json::json!({"replicas": ["n1", "n2", "n3"], "leader": map.groups[0].leader})
        );
        let read: ClusterMap = serde_json::from_str(&shown).expect("a map");
        assert_eq!(read, ClusterMap { settings: BTreeMap::new(), ..map });
    }
}
