//! CLUSTER: the map in the words of Redis Cluster, with the nodes' real addresses.

use super::connection::{Outcome, integer, text};
use super::{Args, Host};
use core::fmt::Write as _;
use ringfort_resp::{Command, CommandSpec, ReplyWriter};
use ringfort_ring::{NodeId, PartitionId, SLOTS, Slot, slot_of};
use ringfort_wire::ClusterMap;
use ringfort_wire::map::MapNode;
use twox_hash::XxHash3_64;

pub(super) fn execute(
    spec: &'static CommandSpec,
    args: Args<'_>,
    host: &dyn Host,
    is_tls: bool,
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
        "slots" => write_slots(map, host, is_tls, out),
        "shards" => write_shards(map, host, is_tls, out),
        "info" => text(out, &info(map, host)),
        "nodes" => text(out, &nodes(map, host, is_tls)),
        _ => match host.my_node() {
            Some(node) => out.bulk(redis_id(node).as_bytes()),
            None => return Err("ERR a proxy has no node id".to_owned()),
        },
    }
    Ok(())
}

/// What a partition executes for COUNTKEYSINSLOT and GETKEYSINSLOT; `None` for every other command.
pub(super) fn slot_question(spec: &CommandSpec) -> Option<&'static CommandSpec> {
    match (spec.command, spec.short_name()) {
        (Command::Cluster, "countkeysinslot") => Some(Command::SlotCount.spec()),
        (Command::Cluster, "getkeysinslot") => Some(Command::SlotKeys.spec()),
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

/// The reply to RINGFORT MAP: the cluster map as JSON, with the replicas of each partition by node and its present leader.
pub fn map_json<'a>(map: &ClusterMap, leader_of: impl Fn(PartitionId) -> Option<&'a NodeId>) -> String {
    let mut json: serde_json::Value =
        serde_json::from_slice(&map.to_json()).expect("the map was JSON a moment ago");
    if let Some(object) = json.as_object_mut() {
        object.remove("settings");
    }
    let leaders: Vec<_> = map.partitions.iter().map(leader_of).collect();
    let placement = map.groups.iter().map(|group| {
        let replicas: Vec<_> = group.seats.iter().map(|seat| &seat.node).collect();
        serde_json::json!({"replicas": replicas, "leader": group.leader})
    });
    json["placement"] = placement.collect();
    json["leaders"] = serde_json::json!(leaders);
    json.to_string()
}

/// Consecutive partitions with the same leader and the same followers.
struct Range<'a> {
    first_slot: u16,
    last_slot: u16,
    /// The leader first.
    nodes: Vec<&'a MapNode>,
}

/// The nodes that replicate a partition, its leader (as far as known: the preferred one) first.
fn replicas<'a>(map: &'a ClusterMap, host: &dyn Host, partition: PartitionId) -> Vec<&'a MapNode> {
    let Some(group) = map.groups.get(usize::from(partition.0)) else { return Vec::new() };
    let leader = host.leader_of(partition).unwrap_or(&group.leader);
    let followers = group.seats.iter().map(|seat| &seat.node).filter(|node| *node != leader);
    core::iter::once(leader).chain(followers).filter_map(|node| map.node(node)).collect()
}

fn ranges<'a>(map: &'a ClusterMap, host: &dyn Host) -> Vec<Range<'a>> {
    let mut ranges: Vec<Range<'a>> = Vec::new();
    for partition in map.partitions.iter() {
        let nodes = replicas(map, host, partition);
        let (first, last) = map.partitions.slots(partition);
        match ranges.last_mut() {
            Some(range) if range.nodes == nodes => range.last_slot = last.0,
            _ => ranges.push(Range { first_slot: first.0, last_slot: last.0, nodes }),
        }
    }
    ranges
}

/// Host and port of an address of the map; the port is 0 when the address has none.
fn split_address(address: &str) -> (&str, u16) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
    (host.trim_start_matches('[').trim_end_matches(']'), port.parse().unwrap_or(0))
}

fn write_slots(map: &ClusterMap, host: &dyn Host, is_tls: bool, out: &mut ReplyWriter<'_>) {
    let ranges = ranges(map, host);
    out.array(ranges.len());
    for range in ranges {
        out.array(2 + range.nodes.len());
        out.integer(i64::from(range.first_slot));
        out.integer(i64::from(range.last_slot));
        for node in range.nodes {
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
    nodes: Vec<&'a MapNode>,
    /// First and last slot of each range.
    slots: Vec<(u16, u16)>,
}

fn write_shards(map: &ClusterMap, host: &dyn Host, is_tls: bool, out: &mut ReplyWriter<'_>) {
    let mut shards: Vec<Shard<'_>> = Vec::new();
    for range in ranges(map, host) {
        let slots = (range.first_slot, range.last_slot);
        match shards.iter_mut().find(|shard| shard.nodes == range.nodes) {
            Some(shard) => shard.slots.push(slots),
            None => shards.push(Shard { nodes: range.nodes, slots: vec![slots] }),
        }
    }
    out.array(shards.len());
    for Shard { nodes, slots } in shards {
        out.map(2);
        out.bulk(b"slots");
        out.array(slots.len() * 2);
        for (first, last) in slots {
            out.integer(i64::from(first));
            out.integer(i64::from(last));
        }
        out.bulk(b"nodes");
        out.array(nodes.len());
        for (i, node) in nodes.into_iter().enumerate() {
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
            out.bulk(b"online");
        }
    }
}

fn info(map: &ClusterMap, host: &dyn Host) -> String {
    let led = ranges(map, host);
    let leaders = map.nodes.iter().filter(|n| led.iter().any(|r| r.nodes.first() == Some(n))).count();
    let mut text = String::new();
    for (name, value) in [
        ("cluster_enabled", 1),
        ("cluster_slots_assigned", u64::from(SLOTS)),
        ("cluster_slots_ok", u64::from(SLOTS)),
        ("cluster_slots_pfail", 0),
        ("cluster_slots_fail", 0),
        ("cluster_known_nodes", map.nodes.len() as u64),
        ("cluster_size", leaders as u64),
        ("cluster_current_epoch", map.epoch),
        ("cluster_my_epoch", map.epoch),
    ] {
        write!(text, "{name}:{value}\r\n").expect("a String takes every write");
        if name == "cluster_enabled" {
            text.push_str("cluster_state:ok\r\n");
        }
    }
    text
}

/// One line a node. Redis knows only whole nodes as masters or replicas: a node that leads anything is a master with
/// the slots that it leads; one that leads nothing is a replica of the leader of its first partition.
fn nodes(map: &ClusterMap, host: &dyn Host, is_tls: bool) -> String {
    let ranges = ranges(map, host);
    let mut text = String::new();
    for node in &map.nodes {
        let led: Vec<_> = ranges.iter().filter(|r| r.nodes.first() == Some(&node)).collect();
        let followed = ranges.iter().find(|r| led.is_empty() && r.nodes.contains(&node));
        let master = followed.and_then(|r| r.nodes.first());
        let (ip, port) = split_address(node.address(is_tls));
        let (_, peer_port) = split_address(&node.peer);
        write!(
            text,
            "{} {ip}:{port}@{peer_port} {}{} {} 0 0 {} connected",
            redis_id(&node.id),
            if host.my_node() == Some(&node.id) { "myself," } else { "" },
            if master.is_some() { "slave" } else { "master" },
            master.map_or_else(|| "-".to_owned(), |m| redis_id(&m.id)),
            map.epoch,
        )
        .expect("a String takes every write");
        for range in led {
            write!(text, " {}-{}", range.first_slot, range.last_slot).expect("a String takes every write");
        }
        text.push('\n');
    }
    text
}
