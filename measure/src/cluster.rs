//! The cores of nodes and of a proxy, and who carries bytes between them.

use ringfort::clock::{Clock, Now};
use ringfort::config::Config;
use ringfort::log::{LastStop, LogOptions, MemDisk};
use ringfort::meta::form::first_map;
use ringfort::shard::limits::Limits;
use ringfort::worker::{Shared, WorkerCore, WorkerOptions};
use ringfort_proxy::clients::{Address, Clients};
use ringfort_proxy::{ClientId, LinkId, Proxy};
use ringfort_ring::NodeId;
use ringfort_wire::ClusterMap;
use ringfort_wire::frame;
use ringfort_wire::request::Reply;
use std::sync::Arc;

/// The time, always.
const NOW: Now = Now { boot_us: 1_000_000_000, wall_ms: 1_700_000_000_000 };
/// Ticks within which every partition has its leader.
const TICKS_MAX: usize = 1000;
/// How long a command may take, as `ringfort proxy` has it.
const DEADLINE_US: u64 = 5_000_000;

struct Still;

impl Clock for Still {
    fn now(&self) -> Now {
        NOW
    }
}

/// Nodes of one worker each, with as many replicas of every partition; the first one leads them all.
#[derive(Debug)]
pub struct Cluster {
    map: ClusterMap,
    nodes: Vec<WorkerCore<MemDisk>>,
}

impl Cluster {
    /// A cluster that serves.
    pub fn new(replicas: u16) -> Self {
        let mut toml = format!("[cluster]\nname = \"measure\"\nreplicas = {replicas}\n");
        for n in 1..=replicas {
            let (client, peer) = (7000 + n, 7100 + n);
            toml += &format!(
                "[[node]]\nid = \"n{n}\"\nclient = \"127.0.0.1:{client}\"\npeer = \"127.0.0.1:{peer}\"\n"
            );
        }
        let config = Config::parse(&toml, "measure").expect("the config above is right");
        let stores: Vec<_> =
            config.nodes.iter().zip(1u128..).map(|(node, id)| (node.id.clone(), id)).collect();
        let mut map = first_map(&config, 1, &stores).expect("the config above allows a placement");
        let first = NodeId("n1".to_owned());
        map.groups.iter_mut().for_each(|group| group.leader = first.clone());
        let nodes = stores.iter().map(|(id, store)| start(&map, id, *store)).collect();
        let mut cluster = Self { map, nodes };
        for _ in 0..TICKS_MAX {
            let is_led = |group: &ringfort::shard::Group| group.raft().is_leader();
            if cluster.nodes[0].groups().filter(|group| is_led(group)).count() > cluster.map.groups.len() {
                return cluster;
            }
            cluster
                .nodes
                .iter_mut()
                .for_each(|node| node.tick(1, NOW).expect("a disk in memory does not fail"));
            cluster.run();
        }
        panic!("no leaders after {TICKS_MAX} ticks");
    }

    /// Lets every node take its turns and carries what they have for each other, until nobody has anything more to do.
    pub fn run(&mut self) {
        loop {
            for from in 0..self.nodes.len() {
                self.nodes[from].turn(&Still).expect("a disk in memory does not fail");
                self.carry(from);
            }
            if !self.nodes.iter().any(WorkerCore::wants_turn) {
                return;
            }
        }
    }

    fn carry(&mut self, from: usize) {
        for job in self.nodes[from].take_jobs() {
            self.nodes[from].job_done(job.run()).expect("a disk in memory does not fail");
        }
        let (before, rest) = self.nodes.split_at_mut(from);
        let Some((node, after)) = rest.split_first_mut() else { return };
        let mut others: Vec<_> = before.iter_mut().chain(after).collect();
        node.send_raft_output(|to, _, bytes| {
            let to =
                others.iter_mut().find(|other| other.shared().node == *to).expect("it is a node of the map");
            let mut rest = bytes;
            while let Some(frame) = frame::next(rest).expect("a node sends whole frames") {
                to.peer_frame(frame.kind, frame.body, NOW).expect("a node sends what nodes understand");
                rest = &rest[frame.consumed..];
            }
        });
    }
}

fn start(map: &ClusterMap, id: &NodeId, store_id: u128) -> WorkerCore<MemDisk> {
    let shared = Arc::new(Shared::new(id.clone(), store_id, 1, 1, 7000, 10));
    shared.set_map(map);
    let options = WorkerOptions {
        worker: 0,
        node: id.clone(),
        log: LogOptions { last_stop: LastStop::Process, ..LogOptions::default() },
        is_restart: false,
        has_run: false,
        is_suspect: false,
        seed: store_id as u64,
        compact_bytes_min: u64::MAX,
        disk_free_min: 0,
        limits: Limits::default(),
    };
    let mut core = WorkerCore::new(options, shared, map, MemDisk::new()).expect("an empty disk is right");
    map.nodes.iter().filter(|node| node.id != *id).for_each(|node| core.peer_up(node.id.clone(), 1));
    core
}

/// A client of a node's own port.
#[derive(Debug)]
pub struct Direct {
    cluster: Cluster,
    client: u64,
}

impl Direct {
    /// A client of the node that leads all partitions.
    pub fn new(replicas: u16) -> Self {
        let mut cluster = Cluster::new(replicas);
        let node = &mut cluster.nodes[0];
        let place = node.shared().clients.accept(10).expect("there is room for a client");
        let client = node.client_open(place, &Address::default());
        Self { cluster, client }
    }

    /// Sends a pipeline and takes its replies, of so many bytes.
    pub fn ask(&mut self, pipeline: &[u8], reply_bytes: usize) {
        self.cluster.nodes[0].client_data(self.client, pipeline, NOW);
        self.cluster.run();
        let node = &mut self.cluster.nodes[0];
        let touched = node.take_touched_clients(NOW);
        let count = node.client_output(self.client).map_or(0, |(output, _)| output.len());
        assert_eq!((touched.len(), count), (1, reply_bytes));
        node.client_sent(self.client, count, NOW);
    }
}

/// A client of a proxy in front of a node.
#[derive(Debug)]
pub struct Proxied {
    cluster: Cluster,
    /// The node's number of the link.
    node_link: u64,
    proxy: Proxy,
    link: LinkId,
    client: ClientId,
    to_node: Vec<u8>,
    to_proxy: Vec<u8>,
}

impl Proxied {
    /// A client of a proxy in front of a cluster.
    pub fn new(replicas: u16) -> Self {
        let mut cluster = Cluster::new(replicas);
        let clients = Clients::new(1);
        let mut proxy = Proxy::new(1, DEADLINE_US, clients.worker(0));
        assert!(proxy.update_map(cluster.map.clone()), "the proxy had no map");
        let link = proxy.wanted_links()[0].link;
        assert!(proxy.link_up(link, 1, NOW.boot_us), "the proxy wanted the link");
        let node_link = cluster.nodes[0].link_open();
        let place = clients.accept(10).expect("there is room for a client");
        let client = proxy.client_open(place, &Address::default());
        Self { cluster, node_link, proxy, link, client, to_node: Vec::new(), to_proxy: Vec::new() }
    }

    /// Sends a pipeline and takes its replies, of so many bytes. `in_node` is given what the node does, to do it.
    pub fn ask(&mut self, pipeline: &[u8], reply_bytes: usize, in_node: impl Fn(&mut dyn FnMut())) {
        self.proxy.client_data(self.client, pipeline);
        self.proxy_turn();
        while !self.to_node.is_empty() {
            in_node(&mut || self.node_answers());
            self.proxy_hears();
            self.proxy_turn();
        }
        let touched = self.proxy.take_touched();
        let count = self.proxy.client_output(self.client).len();
        assert_eq!((touched.len(), count), (1, reply_bytes));
        self.proxy.client_sent(self.client, count);
    }

    fn proxy_turn(&mut self) {
        self.proxy.turn(NOW.boot_us);
        for link in self.proxy.links_with_output() {
            assert_eq!(link, self.link, "there is one");
            self.proxy.take_link_output(link, &mut self.to_node);
        }
    }

    fn node_answers(&mut self) {
        let node = &mut self.cluster.nodes[0];
        node.link_data(self.node_link, &self.to_node, NOW).expect("a proxy sends what nodes understand");
        self.to_node.clear();
        self.cluster.run();
        let node = &mut self.cluster.nodes[0];
        for link in node.take_touched_links(NOW) {
            while let (output @ [_, ..], _) = node.link_output(link) {
                let count = output.len();
                self.to_proxy.extend_from_slice(output);
                node.link_sent(link, count, NOW);
            }
        }
    }

    fn proxy_hears(&mut self) {
        let mut rest = &self.to_proxy[..];
        while let Some(frame) = frame::next(rest).expect("a node sends whole frames") {
            let reply = Reply::decode(frame.body).expect("a node sends what proxies understand");
            self.proxy.link_reply(self.link, &reply, NOW.boot_us);
            rest = &rest[frame.consumed..];
        }
        self.to_proxy.clear();
    }
}
