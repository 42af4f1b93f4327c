//! The cluster as the nemesis sees it: which processes there are, and how they do.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use ringfort_resp::reply::{self, Value};
use serde::Deserialize;
use tokio::time::Instant;

use super::schedule::End;
use crate::conn::Conn;
use crate::encode;

/// Longest that one process is asked for.
const ASK_MAX: Duration = Duration::from_secs(2);
/// The name of a node's process, as the system has it.
const PROGRAM: &str = "ringfort";

/// The nodes of the map, and the proxy.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) nodes: Vec<Node>,
    /// The client address of the proxy, if the target is one and no node.
    pub(super) proxy: Option<String>,
    pub(super) partitions: u16,
    /// By partition: the nodes that hold it.
    placement: Vec<Placement>,
}

#[derive(Debug, Deserialize)]
struct Placement {
    replicas: Vec<String>,
}

/// A node of the map.
#[derive(Debug, Deserialize)]
pub(super) struct Node {
    pub(super) id: String,
    /// Its client port.
    pub(super) client: String,
}

#[derive(Debug, Deserialize)]
struct MapReply {
    nodes: Vec<Node>,
    partitions: u16,
    placement: Vec<Placement>,
}

#[derive(Debug, Deserialize)]
struct NodeReply {
    state: String,
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
struct Group {
    partition: Option<u16>,
    role: String,
    followers: Vec<Follower>,
}

#[derive(Debug, Deserialize)]
struct Follower {
    node: String,
    behind: u64,
    in_sync: bool,
}

#[derive(Debug, Deserialize)]
struct DigestReply {
    groups: Vec<Digest>,
}

#[derive(Debug, Deserialize)]
struct Digest {
    partition: Option<u16>,
    applied: u64,
    digest: String,
}

impl Cluster {
    /// Asks the target for the nodes, and sees that they are processes of this machine.
    pub(super) async fn find(target: &str) -> io::Result<Self> {
        let map: MapReply = json(target, &["RINGFORT", "MAP"]).await?;
        let own = process_id(target).await?;
        let mut is_node = false;
        for node in &map.nodes {
            is_node |= process_id(&node.client).await? == own;
        }
        Ok(Self {
            nodes: map.nodes,
            proxy: (!is_node).then(|| target.to_owned()),
            partitions: map.partitions,
            placement: map.placement,
        })
    }

    /// A partition and a node that holds it; both numbers count modulo what there is.
    pub(super) fn replica(&self, partition: u16, replica: usize) -> Option<(u16, &Node)> {
        let partition = partition.checked_rem(self.partitions)?;
        let replicas = &self.placement.get(usize::from(partition))?.replicas;
        let id = replicas.get(replica.checked_rem(replicas.len())?)?;
        Some((partition, self.nodes.iter().find(|node| node.id == *id)?))
    }

    /// The address to which an end's commands go.
    pub(super) fn address(&self, end: End) -> Option<&str> {
        match end {
            End::Node(n) => self.nodes.get(n).map(|node| node.client.as_str()),
            End::Proxy => self.proxy.as_deref(),
        }
    }

    /// The name under which an end is cut off.
    pub(super) fn name(&self, end: End) -> &str {
        match end {
            End::Node(n) => self.nodes.get(n).map_or("", |node| &node.id),
            End::Proxy => "proxy",
        }
    }

    /// Whether every node serves, every group has a leader and every replica holds what its leader holds; else why not.
    /// `seen` collects the replicas that do over several looks: a leader hears of its followers at intervals only.
    pub(super) async fn is_whole(&self, seen: &mut BTreeSet<(Option<u16>, String)>) -> Result<(), String> {
        let look = self.look(seen).await;
        match look {
            Ok(None) => Ok(()),
            Ok(Some(why)) => Err(why),
            Err(why) => {
                seen.clear();
                Err(why)
            }
        }
    }

    /// Returns which replica has not been seen in sync.
    async fn look(&self, seen: &mut BTreeSet<(Option<u16>, String)>) -> Result<Option<String>, String> {
        let mut leaders = 0;
        let mut missing = None;
        for node in &self.nodes {
            let asked = json::<NodeReply>(&node.client, &["RINGFORT", "NODE"]).await;
            let reply = asked.map_err(|error| format!("{}: {error}", node.id))?;
            if reply.state != "up" {
                return Err(format!("{} is {}", node.id, reply.state));
            }
            for group in reply.groups.into_iter().filter(|group| group.role == "leader") {
                leaders += 1;
                for follower in group.followers {
                    let replica = (group.partition, follower.node);
                    if follower.in_sync {
                        seen.insert(replica);
                    } else if !seen.contains(&replica) {
                        missing = Some(format!(
                            "{} leads {}, where {} is {} entries behind or not heard of",
                            node.id,
                            group_name(replica.0),
                            replica.1,
                            follower.behind
                        ));
                    }
                }
            }
        }
        let wanted = usize::from(self.partitions) + 1;
        if leaders == wanted {
            Ok(missing)
        } else {
            Err(format!("{leaders} of {wanted} groups have a leader"))
        }
    }

    /// Compares all replicas; returns the partitions whose digests differ at one index. The error says why they cannot be
    /// compared yet: some have not applied what others have.
    pub(super) async fn compare_digests(&self) -> Result<Vec<String>, String> {
        let mut seen: BTreeMap<Option<u16>, (u64, String, String)> = BTreeMap::new();
        let mut differ = Vec::new();
        for node in &self.nodes {
            let asked = json::<DigestReply>(&node.client, &["RINGFORT", "DIGEST"]).await;
            let reply = asked.map_err(|error| format!("{}: {error}", node.id))?;
            if reply.groups.is_empty() {
                return Err(format!("{} has no digests yet", node.id));
            }
            for Digest { partition, applied, digest } in reply.groups {
                match seen.get(&partition) {
                    None => drop(seen.insert(partition, (applied, digest, node.id.clone()))),
                    Some((index, _, _)) if *index != applied => {
                        return Err(format!(
                            "partition {partition:?}: {} is at {applied}, others at {index}",
                            node.id
                        ));
                    }
                    Some((_, known, _)) if *known == digest => {}
                    Some((index, known, by)) => {
                        let name = group_name(partition);
                        differ.push(format!(
                            "{name} at index {index}: {known} on {by}, {digest} on {}",
                            node.id
                        ));
                    }
                }
            }
        }
        Ok(differ)
    }
}

fn group_name(partition: Option<u16>) -> String {
    partition.map_or_else(|| "the meta group".to_owned(), |partition| format!("partition {partition}"))
}

/// The process that serves a client port, which must be one of Ringfort on this machine.
pub(super) async fn process_id(address: &str) -> io::Result<i32> {
    let text = match ask(address, &["INFO", "server"]).await? {
        Value::Bulk(text) => String::from_utf8_lossy(&text).into_owned(),
        other => return Err(io::Error::other(format!("{address} answered INFO with {other:?}"))),
    };
    let id = text.lines().find_map(|line| line.strip_prefix("process_id:")?.trim().parse().ok());
    let id: i32 = id.ok_or_else(|| io::Error::other(format!("{address} does not tell its process")))?;
    let name = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    if name.trim_end() == PROGRAM {
        Ok(id)
    } else {
        Err(io::Error::other(format!("the process {id} of {address} is no '{PROGRAM}' of this machine")))
    }
}

/// Sends a command; an error reply is an error.
pub(super) async fn ask(address: &str, words: &[&str]) -> io::Result<Value> {
    let deadline = Instant::now() + ASK_MAX;
    let mut conn = Conn::connect(address, ASK_MAX).await?;
    let mut out = Vec::new();
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    encode::command(&mut out, &words);
    conn.send(&out, deadline).await?;
    let frame = conn.frame(deadline).await?;
    match reply::parse(frame).map_err(io::Error::other)? {
        Some((Value::Error(text), _)) => Err(io::Error::other(text)),
        Some((value, _)) => Ok(value),
        None => Err(io::Error::other("half a reply")),
    }
}

async fn json<T: for<'a> Deserialize<'a>>(address: &str, words: &[&str]) -> io::Result<T> {
    match ask(address, words).await? {
        Value::Bulk(text) => serde_json::from_slice(&text).map_err(io::Error::other),
        other => Err(io::Error::other(format!("{address} answered {} with {other:?}", words.join(" ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_goes_to_a_node_that_holds_the_partition() {
        let nodes = ["a", "b", "c"].map(|id| Node { id: id.to_owned(), client: String::new() }).into();
        let placement = [&["a", "b"], &["c", "b"]];
        let placement = placement.map(|ids| Placement { replicas: ids.map(str::to_owned).into() }).into();
        let cluster = Cluster { nodes, proxy: None, partitions: 2, placement };
        let chosen = |partition, replica| {
            let (partition, node) = cluster.replica(partition, replica).expect("there is one");
            (partition, node.id.as_str())
        };
        assert_eq!([chosen(0, 3), chosen(1, 0), chosen(7, 1)], [(0, "b"), (1, "c"), (1, "b")]);
    }
}
