//! How an empty cluster forms.
//!
//! Every node of the config file mints a store id when it makes its data folder. A node whose folder is empty asks all
//! the others; only when every one answers "empty" with the same hash of the config does the node with the lowest id
//! mint the cluster id, the placement and the replica ids. It keeps the map on its own disk first and hands it out then,
//! so that it can never mint a second one. The others take the map only if it names their own store id: a node whose
//! folder was lost has another one, and must not return under replica ids that have voted already. It asks to be taken in
//! anew, with fresh replica ids.

use super::plan::meta_seats;
use super::replace::can_lose;
use crate::config::{Config, Durability};
use ringfort_ring::NodeId;
use ringfort_ring::{NodeSpec, PlaceError, place};
use ringfort_wire::hello::ProbeAck;
use ringfort_wire::map::{ClusterMap, MapGroup, MapNode, MapSeat};
use ringfort_wire::settings::{MAXMEMORY, MAXMEMORY_POLICY};

/// What an empty node does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask again: the sentence says for whom or what it waits.
    Wait(String),
    /// Keep this map and hand it out: this node forms the cluster.
    Form(Box<ClusterMap>),
    /// Keep this map: the cluster has formed with this node in it.
    Join(Box<ClusterMap>),
    /// The cluster knows this node by the data folder `old_store`: ask it to take this empty one in its place
    /// ([`super::replace`]).
    Rejoin {
        /// The folder that it knows; 0: the node is new, and has had none.
        old_store: u128,
        /// What the cluster is called.
        cluster: String,
    },
    /// The cluster exists, and this node has no place in it: the sentence says why.
    Stranger(String),
}

/// What this node brings to the decision.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// Its id.
    pub id: &'a NodeId,
    /// Its store id.
    pub store_id: u128,
    /// A random number that becomes the cluster id if this node mints it.
    pub cluster_id: u128,
}

/// Decides from the answers of the other nodes (`None`: no answer).
///
/// # Errors
/// The config allows no placement.
pub fn step(
    config: &Config,
    own: Own<'_>,
    answers: &[(NodeId, Option<ProbeAck>)],
) -> Result<Step, PlaceError> {
    for (id, answer) in answers {
        let Some(answer) = answer.as_ref().filter(|a| !a.map.is_empty()) else { continue };
        return Ok(match ClusterMap::from_json(&answer.map) {
            Err(e) => Step::Wait(format!("node {id} answers with an unreadable map ({e})")),
            Ok(map) => join(own, map),
        });
    }
    let hash = config.hash();
    for (id, answer) in answers {
        match answer {
            None => return Ok(Step::Wait(format!("node {id} does not answer yet"))),
            Some(a) if a.config_hash != hash => {
                return Ok(Step::Wait(format!(
                    "node {id} was started with another config: give every node the same [cluster] and [[node]] blocks"
                )));
            }
            Some(_) => {}
        }
    }
    if answers.iter().any(|(id, _)| id < own.id) {
        return Ok(Step::Wait("the node with the lowest id forms the cluster".into()));
    }
    let stores = answers.iter().filter_map(|(id, a)| Some((id.clone(), a.as_ref()?.store_id)));
    let stores: Vec<_> = stores.chain([(own.id.clone(), own.store_id)]).collect();
    Ok(Step::Form(Box::new(first_map(config, own.cluster_id, &stores)?)))
}

fn join(own: Own<'_>, map: ClusterMap) -> Step {
    match map.node(own.id) {
        Some(node) if node.store_id == own.store_id => Step::Join(Box::new(map)),
        Some(_) if !can_lose(&map, own.id) => Step::Stranger(format!(
            "cluster '{}' knows node {} by another data folder; replicas were there without which their groups have no \
             majority: start it with that folder",
            map.name, own.id
        )),
        Some(node) => Step::Rejoin { old_store: node.store_id, cluster: map.name },
        None => Step::Wait(format!(
            "cluster '{}' has no node {}: it waits until `ringfort apply` adds it",
            map.name, own.id
        )),
    }
}

/// The first map of a cluster: placement, replica ids from 1, epoch 1.
///
/// # Errors
/// The config allows no placement.
pub fn first_map(
    config: &Config,
    cluster_id: u128,
    stores: &[(NodeId, u128)],
) -> Result<ClusterMap, PlaceError> {
    let mut specs: Vec<NodeSpec> = config
        .nodes
        .iter()
        .map(|n| NodeSpec { id: n.id.clone(), weight: n.weight, zone: n.zone.clone() })
        .collect();
    specs.sort_by(|a, b| a.id.cmp(&b.id));
    let placement = place(None, &specs, config.cluster.partitions, config.cluster.replicas)?;
    let mut next_replica = 1;
    let mut group = |nodes: &[NodeId], leader: &NodeId| {
        let seats = nodes.iter().map(|node| {
            let seat = MapSeat { node: node.clone(), replica: next_replica };
            next_replica += 1;
            seat
        });
        MapGroup::new(seats.collect(), leader.clone())
    };
    let meta = meta_seats(None, &specs);
    let meta = group(&meta.replicas, &meta.leader);
    let groups = placement.partitions.iter().map(|seats| group(&seats.replicas, &seats.leader)).collect();
    let mut nodes: Vec<MapNode> = config
        .nodes
        .iter()
        .map(|n| MapNode {
            id: n.id.clone(),
            client: n.client.to_string(),
            tls_client: n.tls_client.map(|address| address.to_string()),
            peer: n.peer.to_string(),
            weight: n.weight,
            zone: n.zone.clone(),
            store_id: stores.iter().find(|(id, _)| *id == n.id).map_or(0, |(_, store)| *store),
            is_leaving: false,
            is_drained: false,
            is_down: false,
        })
        .collect();
    nodes.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(ClusterMap {
        cluster_id,
        name: config.cluster.name.clone(),
        epoch: 1,
        partitions: config.cluster.partitions,
        replicas: config.cluster.replicas,
        fsync: config.cluster.durability == Durability::Fsync,
        nodes,
        meta,
        groups,
        next_replica,
        feature_level: ringfort_wire::FEATURE_LEVEL,
        settings: [
            (MAXMEMORY.to_owned(), config.cluster.maxmemory_bytes.to_string()),
            (MAXMEMORY_POLICY.to_owned(), config.cluster.maxmemory_policy.name().to_owned()),
        ]
        .into(),
        moving: config.cluster.moving,
        former_nodes: Default::default(),
        planned_epoch: 1,
        change: None,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn config() -> Config {
        Config::parse(include_str!("../../configs/local.toml"), "configs/local.toml").unwrap()
    }

    pub(crate) fn sample_map() -> ClusterMap {
        let stores: Vec<_> = config().nodes.iter().zip(10..).map(|(n, s)| (n.id.clone(), s)).collect();
        first_map(&config(), 1, &stores).unwrap()
    }

    fn empty(id: &str, store_id: u128) -> (NodeId, Option<ProbeAck>) {
        let ack = ProbeAck { node: id.into(), store_id, config_hash: config().hash(), map: Vec::new() };
        (NodeId(id.into()), Some(ack))
    }

    fn own(id: &NodeId) -> Own<'_> {
        Own { id, store_id: 7, cluster_id: 99 }
    }

    #[test]
    fn lowest_id_forms_when_all_are_empty() {
        let n1 = NodeId("n1".into());
        let Step::Form(map) = step(&config(), own(&n1), &[empty("n2", 8), empty("n3", 9)]).unwrap() else {
            panic!("n1 must form")
        };
        assert_eq!((map.epoch, map.cluster_id, map.nodes[0].store_id), (1, 99, 7));
        let ids: std::collections::BTreeSet<u64> =
            map.all_groups().flat_map(|(_, g)| g.seats.iter().map(|s| s.replica)).collect();
        assert_eq!(ids.len(), 65 * 3, "replica ids are distinct");
        let n2 = NodeId("n2".into());
        assert!(matches!(
            step(&config(), own(&n2), &[empty("n1", 8), empty("n3", 9)]).unwrap(),
            Step::Wait(_)
        ));
    }

    #[test]
    fn nobody_forms_while_one_is_silent_or_differs() {
        let n1 = NodeId("n1".into());
        let silent = [empty("n2", 8), (NodeId("n3".into()), None)];
        assert!(matches!(step(&config(), own(&n1), &silent).unwrap(), Step::Wait(_)));
        let mut other = empty("n3", 9);
        other.1.as_mut().unwrap().config_hash += 1;
        assert!(matches!(step(&config(), own(&n1), &[empty("n2", 8), other]).unwrap(), Step::Wait(_)));
    }

    #[test]
    fn a_formed_map_is_taken_only_with_the_own_store_id() {
        let map = sample_map();
        let n2 = NodeId("n2".into());
        let mut formed = empty("n1", 10);
        formed.1.as_mut().unwrap().map = map.to_json();
        let known = Own { id: &n2, store_id: 11, cluster_id: 1 };
        assert_eq!(
            step(&config(), known, &[formed.clone(), empty("n3", 12)]).unwrap(),
            Step::Join(Box::new(map))
        );
        let lost = Own { store_id: 4, ..known };
        let rejoin = Step::Rejoin { old_store: 11, cluster: sample_map().name };
        assert_eq!(step(&config(), lost, &[formed.clone()]).unwrap(), rejoin);
        let n9 = NodeId("n9".into());
        let waits = |map: &ClusterMap| {
            let mut formed = empty("n1", 10);
            formed.1.as_mut().unwrap().map = map.to_json();
            step(&config(), Own { id: &n9, ..lost }, &[formed]).unwrap()
        };
        assert!(matches!(waits(&sample_map()), Step::Wait(why) if why.contains("`ringfort apply`")));
        let mut invited = sample_map();
        let node = MapNode { id: n9.clone(), store_id: 0, ..invited.nodes[0].clone() };
        invited.nodes.push(node);
        let joins = Step::Rejoin { old_store: 0, cluster: sample_map().name };
        assert_eq!(waits(&invited), joins);
        let mut alone = sample_map();
        alone.meta.seats.retain(|s| s.node == n2);
        formed.1.as_mut().unwrap().map = alone.to_json();
        assert!(matches!(step(&config(), lost, &[formed]).unwrap(), Step::Stranger(_)));
    }
}
