//! RINGFORT TRANSFER: which node is to lead a partition.

use super::{Args, Host, NO_MAP};
use ringfort_ring::NodeId;
use ringfort_wire::MetaWrite;

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
    let names = |nodes: Vec<&NodeId>| nodes.iter().map(|id| id.0.as_str()).collect::<Vec<_>>().join(", ");
    if map.node(&node).is_none() {
        let all = names(map.nodes.iter().map(|node| &node.id).collect());
        return Err(format!("ERR there is no node '{node}'; the nodes are {all}"));
    }
    let seats = &map.groups[usize::from(number)].seats;
    if !seats.iter().any(|seat| seat.node == node) {
        let holders = names(seats.iter().map(|seat| &seat.node).collect());
        return Err(format!(
            "ERR {node} has no replica of partition {number}; its replicas are on {holders}"
        ));
    }
    Ok(MetaWrite::Lead(number, node))
}
