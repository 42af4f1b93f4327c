//! From the user's file, the processes that run and the cluster's map to what `ringfort up` does next: pure.
//!
//! The processes that are to run are those of the file's nodes and of the members that have not left yet. So nothing has to be
//! remembered: after a crash of `up` itself, or a change that somebody else made, the same comparison gives what is left to do.

use ringfort_ring::NodeId;
use ringfort_wire::ClusterMap;
use ringfort_wire::map::MapNode;
use std::net::SocketAddr;

use crate::config::{ClusterConfig, Config, Durability, NodeConfig, Place, TlsConfig};

/// A key that stays as it is, and why.
pub(super) type Kept = (Place, String);

/// What the file asks for, with everything as it runs that cannot change while the processes run; and what that is.
pub(super) fn keep(running: &Config, mut file: Config) -> (Config, Vec<Kept>) {
    let mut kept = keep_identity(&running.cluster, &mut file.cluster);
    let mut say = |place, text: &str| kept.push((place, text.to_owned()));
    let (now, new) = (&running.cluster, &mut file.cluster);
    if (now.maxmemory_bytes, now.maxmemory_policy) != (new.maxmemory_bytes, new.maxmemory_policy) {
        let key = if now.maxmemory_bytes == new.maxmemory_bytes { "maxmemory_policy" } else { "maxmemory" };
        say(
            Place::Cluster(key),
            "the file's maxmemory and maxmemory_policy count when a cluster forms; now change them with CONFIG SET",
        );
    }
    if now.peer_secret_file != new.peer_secret_file {
        new.peer_secret_file.clone_from(&now.peer_secret_file);
        say(Place::Cluster("peer_secret_file"), "peer_secret_file counts when `ringfort up` starts again");
    }
    if paths(running.tls.as_ref()) != paths(file.tls.as_ref()) {
        say(Place::File, "[tls] counts when `ringfort up` starts again");
    }
    if running.proxy != file.proxy {
        say(Place::File, "[proxy] counts when `ringfort up` starts again");
    }
    if running.log != file.log {
        say(Place::File, "[log] counts when `ringfort up` starts again; `ringfort log-level` changes it now");
    }
    file.tls.clone_from(&running.tls);
    file.proxy.clone_from(&running.proxy);
    file.log.clone_from(&running.log);
    for node in &mut file.nodes {
        let Some(now) = running.node(&node.id) else { continue };
        let new = NodeConfig {
            client: node.client,
            peer: node.peer,
            weight: node.weight,
            zone: node.zone.clone(),
            ..now.clone()
        };
        if new != *node {
            let text = "proxy, metrics and TLS addresses of a node count when `ringfort up` starts again";
            say(Place::Node(node.id.clone(), "id"), text);
            *node = new;
        }
    }
    (file, kept)
}

/// Keeps what makes the cluster the one that it is.
fn keep_identity(now: &ClusterConfig, new: &mut ClusterConfig) -> Vec<Kept> {
    let mut kept = Vec::new();
    if now.name != new.name {
        let text = format!("name is '{}', the cluster's is '{}': it never changes", new.name, now.name);
        kept.push((Place::Cluster("name"), text));
    }
    if now.partitions != new.partitions {
        let (is, was) = (new.partitions.get(), now.partitions.get());
        let text = format!("partitions is {is}, the cluster has {was}: the number never changes");
        kept.push((Place::Cluster("partitions"), text));
    }
    if now.durability != new.durability {
        let (is, was) = (new.durability.as_str(), now.durability.as_str());
        let text = format!("durability is \"{is}\", the cluster's is \"{was}\": it cannot be changed yet");
        kept.push((Place::Cluster("durability"), text));
    }
    new.name.clone_from(&now.name);
    new.partitions = now.partitions;
    new.durability = now.durability;
    kept
}

/// The files without the lines on which they are named.
fn paths(tls: Option<&TlsConfig>) -> impl PartialEq {
    tls.map(|tls| {
        let ca = tls.ca_file.as_ref().map(|file| file.path.clone());
        (tls.cert_file.path.clone(), tls.key_file.path.clone(), ca, tls.auth_clients)
    })
}

/// What to start when a cluster with this map is in the data folder.
pub(super) struct Start {
    /// What the file asks for, with what makes the cluster the one that it is.
    pub(super) file: Config,
    /// With what the processes start: members that the file lacks are among them, for they may have to be emptied, and nodes
    /// whose addresses have changed are still where the others look for them.
    pub(super) running: Config,
    /// What of the file does not count.
    pub(super) kept: Vec<Kept>,
}

/// Compares the file with the map that was seen last. `is_taken` tells whether something else listens on an address: a node
/// cannot run there.
pub(super) fn start(mut file: Config, map: &ClusterMap, is_taken: impl Fn(SocketAddr) -> bool) -> Start {
    let durability = if map.fsync { Durability::Fsync } else { Durability::Buffered };
    let now = ClusterConfig {
        name: map.name.clone(),
        partitions: map.partitions,
        durability,
        ..file.cluster.clone()
    };
    let kept = keep_identity(&now, &mut file.cluster);
    let mut running = file.clone();
    for node in &mut running.nodes {
        let Some((client, peer)) = map.node(&node.id).and_then(addresses) else { continue };
        if (client == node.client || !is_taken(client)) && (peer == node.peer || !is_taken(peer)) {
            (node.client, node.peer) = (client, peer);
        }
    }
    for member in map.nodes.iter().filter(|member| file.node(&member.id).is_none()) {
        let Some((client, peer)) = addresses(member) else { continue };
        if is_taken(client) || is_taken(peer) {
            continue;
        }
        let tls_client = member.tls_client.as_ref().and_then(|address| address.parse().ok());
        running.nodes.push(NodeConfig {
            id: member.id.clone(),
            client,
            tls_client,
            peer,
            proxy: None,
            tls_proxy: None,
            metrics: None,
            weight: member.weight,
            zone: member.zone.clone(),
        });
    }
    // Such as a node in place of another one at its addresses: then that one cannot run any more.
    let is_sound = Config::parse(&running.to_toml(), "it").is_ok();
    Start { running: if is_sound { running } else { file.clone() }, file, kept }
}

fn addresses(member: &MapNode) -> Option<(SocketAddr, SocketAddr)> {
    Some((member.client.parse().ok()?, member.peer.parse().ok()?))
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Todo {
    /// Nodes of the file that do not run.
    pub(super) start: Vec<NodeConfig>,
    /// Processes of nodes that are no members, or none any more.
    pub(super) stop: Vec<NodeId>,
    /// A node that is to be at other addresses, as it is then.
    pub(super) readdress: Option<NodeConfig>,
    /// Members that are not in the file.
    pub(super) remove: Vec<NodeId>,
}

/// Compares the file, what runs, and the map.
pub(super) fn todo(file: &Config, running: &Config, map: &ClusterMap) -> Todo {
    let has_left = |id: &NodeId| map.former_nodes.contains(id);
    let is_wanted = |id: &NodeId| file.node(id).is_some() && !has_left(id);
    let start = file.nodes.iter().filter(|node| running.node(&node.id).is_none() && !has_left(&node.id));
    let stop = running.nodes.iter().map(|node| &node.id);
    let stop = stop.filter(|id| map.node(id).is_none() && !is_wanted(id));
    let readdress = file.nodes.iter().find(|node| {
        running.node(&node.id).is_some_and(|now| (now.client, now.peer) != (node.client, node.peer))
    });
    let remove = map.nodes.iter().filter(|node| !node.is_leaving && file.node(&node.id).is_none());
    Todo {
        start: start.cloned().collect(),
        stop: stop.cloned().collect(),
        readdress: readdress.cloned(),
        remove: remove.map(|node| node.id.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LOCAL_TOML;
    use crate::meta::form::tests::sample_map;

    fn local() -> Config {
        Config::parse(LOCAL_TOML, "local.toml").unwrap()
    }

    fn id(n: u16) -> NodeId {
        NodeId(format!("n{n}"))
    }

    fn node(n: u16) -> NodeConfig {
        let at = |base: u16| SocketAddr::from(([127, 0, 0, 1], base + n));
        NodeConfig { id: id(n), client: at(7000), peer: at(7100), ..local().nodes[2].clone() }
    }

    fn with(nodes: impl IntoIterator<Item = u16>) -> Config {
        Config { nodes: nodes.into_iter().map(node).collect(), ..local() }
    }

    fn map_of(nodes: impl IntoIterator<Item = u16>) -> ClusterMap {
        let map = sample_map();
        let nodes = nodes.into_iter().map(|n| MapNode {
            id: id(n),
            client: node(n).client.to_string(),
            peer: node(n).peer.to_string(),
            ..map.nodes[0].clone()
        });
        ClusterMap { nodes: nodes.collect(), ..map }
    }

    #[test]
    fn nothing_is_done_when_all_is_as_the_file_says() {
        assert_eq!(todo(&with(1..=3), &with(1..=3), &map_of(1..=3)), Todo::default());
    }

    #[test]
    fn a_new_node_runs_before_it_is_a_member() {
        let before = todo(&with(1..=4), &with(1..=3), &map_of(1..=3));
        assert_eq!(before, Todo { start: vec![node(4)], ..Todo::default() });
        assert_eq!(todo(&with(1..=4), &with(1..=4), &map_of(1..=3)), Todo::default(), "it waits to be added");
    }

    #[test]
    fn a_node_runs_until_the_map_has_forgotten_it() {
        let (file, running) = (with(1..=3), with(1..=4));
        let mut map = map_of(1..=4);
        assert_eq!(todo(&file, &running, &map), Todo { remove: vec![id(4)], ..Todo::default() });
        map.nodes[3].is_leaving = true;
        assert_eq!(todo(&file, &running, &map), Todo::default());
        map = map_of(1..=3);
        map.former_nodes.insert(id(4));
        assert_eq!(todo(&file, &running, &map), Todo { stop: vec![id(4)], ..Todo::default() });
    }

    #[test]
    fn one_that_left_is_not_started_again() {
        let mut map = map_of(1..=3);
        map.former_nodes.insert(id(4));
        assert_eq!(todo(&with(1..=4), &with(1..=3), &map), Todo::default());
        assert_eq!(todo(&with(1..=4), &with(1..=4), &map), Todo { stop: vec![id(4)], ..Todo::default() });
    }

    #[test]
    fn other_addresses_are_one_nodes_turn() {
        let mut file = with(1..=3);
        for node in &mut file.nodes[1..] {
            node.client.set_port(node.client.port() + 50);
        }
        let todo = todo(&file, &with(1..=3), &map_of(1..=3));
        assert_eq!(todo, Todo { readdress: Some(file.nodes[1].clone()), ..Todo::default() });
    }

    #[test]
    fn what_cannot_change_stays_and_is_named() {
        let text = LOCAL_TOML
            .replace("\"demo\"", "\"other\"")
            .replace("partitions = 64", "partitions = 32")
            .replace("durability = \"buffered\"", "durability = \"fsync\"")
            .replace("\"1gb\"\n", "\"2gb\"\n")
            .replace("127.0.0.1:6379", "127.0.0.1:6380")
            .replace("weight = 1", "weight = 2")
            .replace("# metrics = \"127.0.0.1:7302\"", "metrics = \"127.0.0.1:7302\"");
        let wanted = Config::parse(&text, "new.toml").unwrap();
        let (file, kept) = keep(&local(), wanted);
        let places: Vec<&Place> = kept.iter().map(|(place, _)| place).collect();
        assert_eq!(
            places,
            [
                &Place::Cluster("name"),
                &Place::Cluster("partitions"),
                &Place::Cluster("durability"),
                &Place::Cluster("maxmemory"),
                &Place::File,
                &Place::Node(id(2), "id")
            ],
            "{kept:?}"
        );
        assert_eq!(kept[0].1, "name is 'other', the cluster's is 'demo': it never changes");
        let mut expected = local();
        expected.nodes[0].weight = 2;
        expected.cluster.maxmemory_bytes = 2 << 30;
        assert_eq!(file, expected, "the rest counts");
        assert_eq!(keep(&file, file.clone()).1, []);
    }

    #[test]
    fn a_start_finds_members_that_the_file_lacks_and_old_addresses() {
        let mut file = with([1, 2, 3, 5]);
        file.nodes[0].client.set_port(9001);
        file.nodes[1].client.set_port(9002);
        file.cluster.partitions = ringfort_ring::PartitionCount::new(32).unwrap();
        let taken = node(2).client;
        let begun = start(file.clone(), &map_of(1..=4), |address| address == taken);
        let ids: Vec<&NodeId> = begun.running.nodes.iter().map(|node| &node.id).collect();
        assert_eq!(ids, [&id(1), &id(2), &id(3), &id(5), &id(4)]);
        assert_eq!(begun.running.nodes[0].client, node(1).client, "it is where the others know it");
        assert_eq!(begun.running.nodes[1].client.port(), 9002, "something else is there");
        assert_eq!(begun.running.cluster.partitions.get(), 64);
        assert_eq!((begun.kept.len(), begun.file.cluster.partitions.get()), (1, 64));
        assert_eq!(begun.file.nodes, file.nodes);

        let begun = start(file.clone(), &map_of(1..=4), |address| address == node(4).peer);
        assert_eq!(begun.running.nodes.len(), 4, "n4 cannot run");

        // A new node at the addresses of one that is gone.
        let mut file = with([1, 2, 3]);
        file.nodes.push(NodeConfig { id: id(5), ..node(4) });
        let begun = start(file.clone(), &map_of(1..=4), |_| false);
        assert_eq!(begun.running.nodes, file.nodes);
    }
}
