//! RINGFORT TRANSFER, DRAIN, UNDRAIN: which nodes are to lead.

use super::{Args, Host, NO_MAP};
use ringfort_ring::NodeId;
use ringfort_wire::{ClusterMap, MetaWrite};

/// The change that RINGFORT TRANSFER partition node asks for; the error is the text of the error reply.
pub(super) fn change(args: Args<'_>, host: &dyn Host) -> Result<MetaWrite, String> {
    let map = host.map().ok_or(NO_MAP)?;
    let text = |i| String::from_utf8_lossy(args.get(i)).into_owned();
    let (partition, node) = (text(2), NodeId(text(3)));
    let number = partition.parse::<u16>().ok().filter(|number| *number < map.partitions.get());
    let Some(number) = number else {
        return Err(format!(
            "ERR there is no partition {partition}; they are 0 to {}",
            map.partitions.get() - 1
        ));
    };
    check_member(map, &node)?;
    let seats = &map.groups[usize::from(number)].seats;
    if !seats.iter().any(|seat| seat.node == node) {
        let holders = names(seats.iter().map(|seat| &seat.node).collect());
        return Err(format!(
            "ERR {node} has no replica of partition {number}; its replicas are on {holders}"
        ));
    }
    Ok(MetaWrite::Lead(number, node))
}

/// The change that RINGFORT DRAIN node, or UNDRAIN, asks for; the error is the text of the error reply.
pub(super) fn drain(args: Args<'_>, is_drained: bool, host: &dyn Host) -> Result<MetaWrite, String> {
    let map = host.map().ok_or(NO_MAP)?;
    let node = NodeId(String::from_utf8_lossy(args.get(2)).into_owned());
    check_member(map, &node)?;
    Ok(MetaWrite::Drain(node, is_drained))
}

fn check_member(map: &ClusterMap, node: &NodeId) -> Result<(), String> {
    if map.node(node).is_some() {
        return Ok(());
    }
    let all = names(map.nodes.iter().map(|node| &node.id).collect());
    Err(format!("ERR there is no node '{node}'; the nodes are {all}"))
}

fn names(nodes: Vec<&NodeId>) -> String {
    nodes.iter().map(|id| id.0.as_str()).collect::<Vec<_>>().join(", ")
}
