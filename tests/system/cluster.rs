//! A cluster of processes in a folder of its own.

use crate::client::{Client, moved_to};
use crate::process::Process;
use crate::wait::eventually;
use ringfort_loadgen::check::{self, Report};
use rustix::process::Signal;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// Longest that a cluster may take until it serves.
pub(crate) const START: Duration = Duration::from_secs(30);
/// Longest that leaderships may take to come and go.
pub(crate) const HAND_OVER: Duration = Duration::from_secs(60);
/// Longest that replicas may take to agree after the last write.
const SETTLE: Duration = Duration::from_secs(30);

/// What to start.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) nodes: usize,
    pub(crate) replicas: u8,
    pub(crate) partitions: u16,
    pub(crate) durability: &'static str,
    /// Name of the cluster.
    pub(crate) name: &'static str,
    /// Workers of each node.
    pub(crate) workers: u8,
    /// `maxmemory`, bytes.
    pub(crate) maxmemory: u64,
    /// `move_rate`.
    pub(crate) move_rate: &'static str,
    /// Whether the nodes run the binary with failpoints, each under its control file.
    pub(crate) failpoints: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            replicas: 3,
            partitions: 16,
            durability: "buffered",
            name: "test",
            workers: 1,
            maxmemory: 1 << 30,
            move_rate: "64mb",
            failpoints: false,
        }
    }
}

/// The addresses of one node.
#[derive(Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) client: SocketAddr,
    pub(crate) peer: SocketAddr,
    /// The proxy within the node.
    pub(crate) proxy: SocketAddr,
    /// Metrics and health.
    pub(crate) metrics: SocketAddr,
}

/// A folder that is removed at the end.
pub(crate) struct TempFolder(pub(crate) PathBuf);

impl TempFolder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("ringfort-system-{}-{}", std::process::id(), number()));
        fs::create_dir_all(&path).expect("the temporary folder can be written");
        Self(path)
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Counts clusters and folders of this process.
fn number() -> u8 {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Free ports on a loopback address of its own: no other test and no outgoing connection (those come from 127.0.0.1) takes
/// a port between its choice and its use, nor while its node is down.
fn free_ports(count: usize) -> Vec<SocketAddr> {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, 1 + high % 250, low, number());
    let listeners: Vec<_> =
        (0..count).map(|_| TcpListener::bind((IpAddr::V4(host), 0)).expect("a free port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("its address")).collect()
}

/// The nodes, a proxy, their config file and data.
pub(crate) struct Cluster {
    nodes: Vec<Option<Process>>,
    proxy: Option<Process>,
    pub(crate) addresses: Vec<Addresses>,
    pub(crate) proxy_address: SocketAddr,
    /// The proxy's metrics and health.
    pub(crate) proxy_metrics: SocketAddr,
    pub(crate) options: Options,
    /// Holds the logs and, unless a test says otherwise, the nodes' data.
    pub(crate) folder: TempFolder,
    /// Parent of the nodes' data folders.
    pub(crate) data: PathBuf,
}

impl Cluster {
    /// Chooses addresses and writes the config file; starts nothing.
    pub(crate) fn prepare(options: Options) -> Self {
        let folder = TempFolder::new();
        let ports = free_ports(4 * options.nodes + 2);
        let addresses = ports[2..]
            .chunks(4)
            .map(|p| Addresses { client: p[0], peer: p[1], proxy: p[2], metrics: p[3] })
            .collect();
        let nodes = (0..options.nodes).map(|_| None).collect();
        let data = folder.0.clone();
        let (proxy_address, proxy_metrics) = (ports[0], ports[1]);
        let cluster =
            Self { nodes, proxy: None, addresses, proxy_address, proxy_metrics, options, folder, data };
        fs::write(cluster.config_path(), cluster.config_text()).expect("the config file is written");
        cluster
    }

    /// Gives the config file another node, which the cluster does not know yet. Returns its number.
    pub(crate) fn add_node(&mut self) -> usize {
        let ports = free_ports(4);
        let (client, peer, proxy, metrics) = (ports[0], ports[1], ports[2], ports[3]);
        self.addresses.push(Addresses { client, peer, proxy, metrics });
        self.nodes.push(None);
        fs::write(self.config_path(), self.config_text()).expect("the config file is written");
        self.nodes.len() - 1
    }

    /// Starts everything and waits until it serves.
    pub(crate) fn start(options: Options) -> Self {
        let mut cluster = Self::prepare(options);
        cluster.start_all();
        cluster
    }

    /// Starts whatever does not run and waits until all partitions can be read through the proxy.
    #[track_caller]
    pub(crate) fn start_all(&mut self) {
        for n in 0..self.nodes.len() {
            if self.nodes[n].is_none() {
                self.start_node(n);
            }
        }
        if self.proxy.is_none() {
            self.start_proxy();
        }
        self.wait_until_serving();
    }

    /// A new proxy in place of the old one; waits until it serves.
    #[track_caller]
    pub(crate) fn restart_proxy(&mut self) {
        self.proxy = None;
        self.start_proxy();
        self.wait_until_serving();
    }

    fn start_proxy(&mut self) {
        let log = self.folder.0.join("proxy.log");
        let config = self.config_path();
        let args = ["proxy", "--parent-pipe", "--workers", "1", "--config", text(&config)];
        self.proxy = Some(Process::start(&args, &log));
    }

    /// Waits until all partitions can be read through the proxy.
    #[track_caller]
    pub(crate) fn wait_until_serving(&mut self) {
        self.wait_until_proxy_serves(self.proxy_address);
    }

    /// Waits until all partitions can be read through one proxy.
    #[track_caller]
    pub(crate) fn wait_until_proxy_serves(&mut self, proxy: SocketAddr) {
        eventually("a cluster that serves", START, || {
            for node in self.nodes.iter_mut().flatten() {
                assert!(node.is_running(), "a node ended:\n{}", node.output());
            }
            match Client::try_connect(proxy).and_then(|mut client| client.try_call("DBSIZE")) {
                Ok(reply) if reply.starts_with(':') => Ok(()),
                Ok(reply) => Err(reply),
                Err(error) => Err(error.to_string()),
            }
        });
    }

    /// The config file.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.folder.0.join("cluster.toml")
    }

    /// Its text.
    pub(crate) fn config_text(&self) -> String {
        let Options { name, partitions, replicas, durability, maxmemory, move_rate, .. } = &self.options;
        let mut text = format!(
            "[cluster]\nname = \"{name}\"\npartitions = {partitions}\nreplicas = {replicas}\n\
             durability = \"{durability}\"\nmaxmemory = {maxmemory}\nmove_rate = \"{move_rate}\"\n[proxy]\nlisten = \"{}\"\nmetrics = \"{}\"\n",
            self.proxy_address, self.proxy_metrics
        );
        for (n, Addresses { client, peer, proxy, metrics }) in self.addresses.iter().enumerate() {
            text += &format!(
                "[[node]]\nid = \"n{}\"\nclient = \"{client}\"\npeer = \"{peer}\"\nproxy = \"{proxy}\"\n\
                 metrics = \"{metrics}\"\n",
                n + 1
            );
        }
        text
    }

    /// Starts node `n` (from 0) and waits for nothing.
    pub(crate) fn start_node(&mut self, n: usize) {
        self.nodes[n] = Some(self.node_with(n, &self.config_path(), &self.node_folder(n)));
    }

    /// Starts node `n` with another config file.
    pub(crate) fn start_node_from(&mut self, n: usize, config: &Path) {
        self.nodes[n] = Some(self.node_with(n, config, &self.node_folder(n)));
    }

    /// A process of node `n` with another config file or folder.
    pub(crate) fn node_with(&self, n: usize, config: &Path, data: &Path) -> Process {
        self.node_with_more(n, config, data, &[])
    }

    /// Starts node `n` with further arguments.
    pub(crate) fn start_node_with(&mut self, n: usize, more: &[&str]) {
        self.nodes[n] = Some(self.node_with_more(n, &self.config_path(), &self.node_folder(n), more));
    }

    fn node_with_more(&self, n: usize, config: &Path, data: &Path, more: &[&str]) -> Process {
        let (id, workers) = (format!("n{}", n + 1), self.options.workers.to_string());
        let args = [
            "node",
            "--parent-pipe",
            "--config",
            text(config),
            "--id",
            &id,
            "--data-dir",
            text(data),
            "--workers",
            &workers,
        ];
        let args = [&args[..], more].concat();
        // Each further process of a node has a file of its own, so that a test reads only what that one says.
        let log = (0..).map(|i| self.folder.0.join(format!("{id}.{i}.log"))).find(|path| !path.exists());
        let log = log.expect("a free name");
        #[cfg(debug_assertions)]
        if self.options.failpoints {
            return Process::start_with_failpoints(&args, &log, &self.control_path(n));
        }
        Process::start(&args, &log)
    }

    /// The control file of node `n`'s failpoints.
    pub(crate) fn control_path(&self, n: usize) -> PathBuf {
        self.folder.0.join(format!("n{}.failpoints", n + 1))
    }

    /// Data folder of node `n`.
    pub(crate) fn node_folder(&self, n: usize) -> PathBuf {
        self.data.join(format!("n{}", n + 1))
    }

    /// The process of node `n`.
    pub(crate) fn node(&mut self, n: usize) -> &mut Process {
        self.nodes[n].as_mut().expect("the node was started")
    }

    /// The proxy's process.
    pub(crate) fn proxy(&mut self) -> &mut Process {
        self.proxy.as_mut().expect("the proxy was started")
    }

    /// SIGKILL for node `n`.
    pub(crate) fn kill(&mut self, n: usize) {
        self.nodes[n] = None;
    }

    /// SIGKILL for all nodes; no one has ended before the last is killed.
    pub(crate) fn kill_all(&mut self) {
        self.nodes.iter().flatten().for_each(|node| node.signal(Signal::KILL));
        self.nodes.iter_mut().for_each(|node| *node = None);
    }

    /// Planned stop of everything, the proxy first.
    #[track_caller]
    pub(crate) fn stop_all(&mut self) {
        if let Some(mut proxy) = self.proxy.take() {
            proxy.stop();
        }
        self.nodes.iter().flatten().for_each(|node| node.signal(Signal::TERM));
        for node in &mut self.nodes {
            let Some(mut node) = node.take() else { continue };
            let status = node.exit_status(Duration::from_secs(20));
            assert!(status.success(), "a planned stop ended with {status}:\n{}", node.output());
        }
    }

    /// A client of the proxy.
    #[track_caller]
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.proxy_address)
    }

    /// A client of node `n`.
    #[track_caller]
    pub(crate) fn node_client(&self, n: usize) -> Client {
        Client::connect(self.addresses[n].client)
    }

    /// The node that leads the partition of `key`, found by following MOVED from the first node that answers.
    #[track_caller]
    pub(crate) fn leader_of(&self, key: &str) -> usize {
        eventually("a leader", START, || {
            for (n, Addresses { client, .. }) in self.addresses.iter().enumerate() {
                let reply = Client::try_connect(*client).and_then(|mut c| c.try_call(&format!("GET {key}")));
                match reply {
                    Ok(reply) if reply.starts_with('$') => return Ok(n),
                    Ok(reply) => {
                        if let Some(to) = moved_to(&reply)
                            && let Some(n) = self.addresses.iter().position(|a| a.client == to)
                            && let Ok(reply) =
                                Client::try_connect(to).and_then(|mut c| c.try_call(&format!("GET {key}")))
                            && reply.starts_with('$')
                        {
                            return Ok(n);
                        }
                    }
                    Err(_) => {}
                }
            }
            Err("nobody leads".to_owned())
        })
    }

    /// `RINGFORT NODE` of node `n`.
    pub(crate) fn node_json(&self, n: usize) -> Result<Json, String> {
        let mut client = Client::try_connect(self.addresses[n].client).map_err(|e| e.to_string())?;
        let reply = client.try_call("RINGFORT NODE").map_err(|e| e.to_string())?;
        let json = reply.split_once("\r\n").map_or("", |(_, json)| json);
        serde_json::from_str(json).map_err(|e| format!("{reply}: {e}"))
    }

    /// Groups that node `n` leads.
    pub(crate) fn leads(&self, n: usize) -> Result<usize, String> {
        led_of(&self.node_json(n)?)
    }

    /// Waits until node `n` has noticed that its disk is `what` (`full`, `slow`), and leads nothing. That it leads nothing may be
    /// old news, unless it comes with the former.
    #[track_caller]
    pub(crate) fn wait_until_its_disk_has_it_lead_nothing(&self, n: usize, what: &str) {
        eventually("a node that leads nothing, for its disk's sake", START, || {
            let node = self.node_json(n)?;
            match (node[format!("is_disk_{what}")].as_bool(), led_of(&node)?) {
                (Some(true), 0) => Ok(()),
                seen => Err(format!("{what}, leads: {seen:?}")),
            }
        });
    }

    /// Waits until every partition is led by the node that it is meant for.
    #[track_caller]
    pub(crate) fn wait_for_preferred_leaders(&self) {
        eventually("preferred leaders", HAND_OVER, || {
            let status = self.status();
            let partitions = status["partitions"].as_array().ok_or("no partitions")?;
            match partitions.iter().filter(|partition| partition["leader"] != partition["preferred"]).count()
            {
                0 => Ok(()),
                others => Err(format!("{others} are led by others")),
            }
        });
    }

    /// `RINGFORT MAP` of the proxy.
    pub(crate) fn map_json(&self) -> Json {
        let reply = self.client().call("RINGFORT MAP");
        let json = reply.split_once("\r\n").map_or("", |(_, json)| json);
        serde_json::from_str(json).expect("a map")
    }

    /// Keys in all replicas of node `n`.
    pub(crate) fn keys_on(&self, n: usize) -> Result<u64, String> {
        Ok(replicas(&self.node_json(n)?)?.values().map(|replica| replica.keys).sum())
    }

    /// Waits until a load has left keys on a node. Its replicas may be an entry behind all the while.
    #[track_caller]
    pub(crate) fn wait_for_load(&self, n: usize) {
        eventually("load", START, || {
            let node = self.node_json(n)?;
            let groups = node["groups"].as_array().ok_or("no groups")?;
            match groups.iter().filter_map(|group| group["keys"].as_u64()).sum() {
                0..50 => Err("too few keys".to_owned()),
                _ => Ok(()),
            }
        });
    }

    /// Waits until all replicas of every group have applied the same entries and hold the same keys.
    #[track_caller]
    pub(crate) fn wait_until_equal(&self) {
        eventually("equal replicas", SETTLE, || {
            let mut first = None;
            for n in 0..self.options.nodes {
                let own = replicas(&self.node_json(n)?)?;
                // A node that still reads its data knows of none.
                if own.len() != usize::from(self.options.partitions) {
                    return Err(format!("{} replicas on n{}", own.len(), n + 1));
                }
                match &first {
                    None => first = Some(own),
                    Some(first) => {
                        for (group, replica) in &own {
                            let other = first.get(group);
                            if other != Some(replica) {
                                return Err(format!(
                                    "group {group}: {other:?} on n1, {replica:?} on n{}",
                                    n + 1
                                ));
                            }
                        }
                    }
                }
            }
            Ok(())
        });
    }

    /// Waits until the digests of all replicas at the same index are equal.
    #[track_caller]
    pub(crate) fn wait_until_digests_are_equal(&self) {
        eventually("equal digests", SETTLE, || {
            let digests = |n: usize| {
                let mut client = Client::try_connect(self.addresses[n].client).map_err(|e| e.to_string())?;
                let reply = client.try_call("RINGFORT DIGEST").map_err(|e| e.to_string())?;
                let json = reply.split_once("\r\n").map_or("", |(_, json)| json);
                let json: Json = serde_json::from_str(json).map_err(|e| format!("{reply}: {e}"))?;
                let groups = json["groups"].as_array().cloned().unwrap_or_default();
                match groups.len() == usize::from(self.options.partitions) + 1 {
                    true => Ok(groups),
                    false => Err(format!("{reply} on n{}", n + 1)),
                }
            };
            let first = digests(0)?;
            for n in 1..self.options.nodes {
                let own = digests(n)?;
                if own != first {
                    return Err(format!("{first:?} on n1\n{own:?} on n{}", n + 1));
                }
            }
            Ok(())
        });
    }

    /// Waits until every replica of every group votes, and no other one.
    #[track_caller]
    pub(crate) fn wait_until_whole(&self) {
        eventually("a whole cluster", SETTLE, || {
            for n in 0..self.options.nodes {
                let node = self.node_json(n)?;
                let groups = node["groups"].as_array().ok_or("no groups")?;
                let count = usize::from(self.options.partitions) + 1;
                if groups.len() != count {
                    return Err(format!("{} groups on n{}", groups.len(), n + 1));
                }
                for group in groups {
                    let ids = |key: &str| group[key].as_array().cloned().unwrap_or_default();
                    let is_whole = ids("voters").len() == usize::from(self.options.replicas)
                        && ids("voters").contains(&group["replica"])
                        && ids("learners").is_empty()
                        && ids("leaving").is_empty();
                    if !is_whole {
                        return Err(format!("n{}: {group}", n + 1));
                    }
                }
            }
            Ok(())
        });
    }

    /// Waits until node `n` knows a leader of each of its groups.
    #[track_caller]
    pub(crate) fn wait_until_joined(&self, n: usize) {
        eventually("a node that has joined", START, || {
            let node = self.node_json(n)?;
            let groups = node["groups"].as_array().filter(|groups| !groups.is_empty()).ok_or("no groups")?;
            match groups.iter().find(|group| group["leader"].is_null()) {
                None => Ok(()),
                Some(group) => Err(format!("{group}")),
            }
        });
    }

    /// `ringfort status --json`.
    #[track_caller]
    pub(crate) fn status(&self) -> Json {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_ringfort"))
            .args(["status", "--json", "--config", text(&self.config_path())])
            .output()
            .expect("the binary runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Options of a check through the proxy, small enough for two cores.
    pub(crate) fn check_options(&self, duration: Duration) -> check::Options {
        check::Options {
            clients: 8,
            duration,
            keys: 512,
            ..check::Options::new(self.proxy_address.to_string())
        }
    }
}

/// Asserts that nothing was lost, stale or duplicated, and that enough was done for that to say something.
#[track_caller]
#[expect(clippy::print_stdout, reason = "a test's numbers, shown with --nocapture")]
pub(crate) fn assert_clean(report: &Report) {
    assert!(report.is_clean(), "{report}\n{:#?}\nkeys unread {}", report.violations, report.keys_unread);
    assert!(
        report.acknowledged >= 100,
        "only {} writes were acknowledged: {:?}",
        report.acknowledged,
        report.errors
    );
    println!("{report}, failed {}, errors {:?}", report.failed, report.errors);
}

/// What must be equal on all replicas of a group.
#[derive(Debug, PartialEq)]
struct Replica {
    applied: u64,
    last: u64,
    keys: u64,
    bytes: u64,
}

/// How many groups a node leads, of its `RINGFORT NODE`.
fn led_of(node: &Json) -> Result<usize, String> {
    let groups = node["groups"].as_array().ok_or("no groups")?;
    Ok(groups.iter().filter(|group| group["role"] == "leader").count())
}

/// The replicas of partitions in `RINGFORT NODE`.
fn replicas(node: &Json) -> Result<BTreeMap<u64, Replica>, String> {
    let groups = node["groups"].as_array().ok_or("no groups")?;
    let number = |group: &Json, key: &str| group[key].as_u64().ok_or_else(|| format!("no {key} in {group}"));
    let of_partition = groups.iter().filter(|group| !group["partition"].is_null());
    of_partition
        .map(|group| {
            let replica = Replica {
                applied: number(group, "applied")?,
                last: number(group, "last")?,
                keys: number(group, "keys")?,
                bytes: number(group, "bytes")?,
            };
            if replica.applied != replica.last {
                return Err(format!("not all is applied: {group}"));
            }
            Ok((number(group, "partition")?, replica))
        })
        .collect()
}

/// A path as an argument.
fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

impl Drop for Cluster {
    #[expect(clippy::print_stdout, reason = "what the processes of a failed test said")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            for process in self.nodes.iter().chain([&self.proxy]).flatten() {
                let output = process.output();
                let lines: Vec<_> = output.lines().collect();
                let last = lines[lines.len().saturating_sub(30)..].join("\n");
                println!("-- a process of the cluster:\n{last}\n{}", process.threads());
            }
        }
    }
}
