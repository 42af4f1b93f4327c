//! TOML text -> [`Config`], collecting every problem with its line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ringfort_proxy::logging::{Format, LEVELS_DEFAULT, check_levels};
use ringfort_proxy::tls::AuthClients;
use ringfort_ring::{NodeId, PartitionCount};
use ringfort_store::Policy;
use ringfort_wire::map::Moving;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{
    ClusterConfig, Config, Durability, FileKey, LogConfig, NAME_BYTES_MAX, NODES_MAX, NodeConfig,
    ProxyConfig, TlsConfig, WEIGHT_MAX, ZONE_BYTES_MAX,
};

const TOP: &str = "the file";
const CLUSTER: &str = "[cluster]";
const TLS: &str = "[tls]";
const PROXY: &str = "[proxy]";
const LOG: &str = "[log]";
const NODE: &str = "[[node]]";

/// Every key there is: section, its keys.
pub(super) const KEYS: [(&str, &[&str]); 6] = [
    (TOP, &["cluster", "tls", "proxy", "log", "node"]),
    (
        CLUSTER,
        &[
            "name",
            "partitions",
            "replicas",
            "durability",
            "maxmemory",
            "maxmemory_policy",
            "move_rate",
            "moves_at_once",
            "down_after",
            "peer_secret_file",
        ],
    ),
    (TLS, &["cert_file", "key_file", "ca_file", "auth_clients"]),
    (PROXY, &["listen", "tls_listen", "metrics"]),
    (LOG, &["level", "format"]),
    (NODE, &["id", "client", "tls_client", "peer", "proxy", "tls_proxy", "metrics", "weight", "zone"]),
];

const DEFAULT_PARTITIONS: u16 = 64;
const DEFAULT_REPLICAS: u16 = 3;
const DEFAULT_MAXMEMORY_BYTES: u64 = 1 << 30;

/// Slowest rate of moves, bytes per second: below, a partition of some hundred MB takes minutes.
const MOVE_RATE_MIN: u64 = 1 << 20;
/// Fastest, beyond any network: keeps sums small.
const MOVE_RATE_MAX: u64 = 1 << 40;
/// Most replicas that a node receives at the same time.
const MOVES_AT_ONCE_MAX: u16 = 64;
/// A restart must not count as a loss, and a month is as good as never.
const DOWN_AFTER_S: core::ops::RangeInclusive<u64> = 10..=30 * 86_400;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Line of the file, from 1.
    pub(super) line: usize,
    /// What is wrong and what to do, one line.
    pub(super) text: String,
}

/// Checks the whole text.
pub(super) fn config(text: &str) -> Result<Config, Vec<Problem>> {
    let root = match DeTable::parse(text) {
        Ok(root) => root,
        Err(error) => {
            let line = line_of(text, error.span().map_or(0, |span| span.start));
            return Err(vec![Problem { line, text: format!("not TOML: {}", one_line(error.message())) }]);
        }
    };
    let mut reader = Reader { text, problems: Vec::new(), addresses: Vec::new() };
    let config = reader.root(root.get_ref());
    match config {
        Some(config) if reader.problems.is_empty() => Ok(config),
        _ => Err(reader.problems),
    }
}

/// A value and the line it stands on.
#[derive(Clone, Copy)]
struct At<T> {
    line: usize,
    value: T,
}

/// An optional value, if it is there.
fn given<T>(value: Option<At<Option<T>>>) -> Option<At<T>> {
    let At { line, value } = value?;
    Some(At { line, value: value? })
}

/// An address with what it is for.
struct Address {
    line: usize,
    /// For example `client of n1`.
    label: String,
    /// The machine it is opened on, as far as the file tells: the IP of its node's peer address.
    machine: Option<IpAddr>,
    is_tls: bool,
    value: SocketAddr,
}

/// One section of the file.
struct Section<'a, 't> {
    name: &'static str,
    line: usize,
    table: &'a DeTable<'t>,
}

impl<'a, 't> Section<'a, 't> {
    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'t>>> {
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }
}

/// Walks the file. Methods that return `None` for something that is present have noted a problem.
struct Reader<'t> {
    text: &'t str,
    problems: Vec<Problem>,
    addresses: Vec<Address>,
}

impl Reader<'_> {
    fn root(&mut self, table: &DeTable<'_>) -> Option<Config> {
        let root = Section { name: TOP, line: 1, table };
        self.refuse_unknown_keys(&root);
        let cluster = match root.get("cluster") {
            Some(value) => self.section(CLUSTER, value).and_then(|section| self.cluster(&section)),
            None => self.problem(1, "section [cluster] with the key 'name' is missing".to_owned()),
        };
        let tls = match root.get("tls") {
            Some(value) => self.section(TLS, value).and_then(|section| self.tls(&section)),
            None => None,
        };
        let proxy = match root.get("proxy") {
            Some(value) => self.section(PROXY, value).and_then(|section| self.proxy(&section)),
            None => None,
        };
        let log = match root.get("log") {
            Some(value) => self.section(LOG, value).and_then(|section| self.log(&section)),
            None => Some(LogConfig::default()),
        };
        let nodes = self.nodes(&root);
        self.check_tls(&root);
        self.check_addresses(cluster.as_ref());
        let (cluster, nodes) = (cluster?, nodes?);
        self.check_replicas(&root, cluster.replicas, nodes.len());
        Some(Config { cluster, tls, proxy, log: log?, nodes })
    }

    fn cluster(&mut self, section: &Section<'_, '_>) -> Option<ClusterConfig> {
        self.refuse_unknown_keys(section);
        let name = self.required(section, "name", name);
        let partitions = self.optional(section, "partitions", partitions, || {
            PartitionCount::new(DEFAULT_PARTITIONS).ok_or_else(String::new)
        });
        let replicas = self.optional(section, "replicas", replicas, || Ok(DEFAULT_REPLICAS));
        let durability = self.optional(section, "durability", durability, || Ok(Durability::Buffered));
        let maxmemory = self.optional(section, "maxmemory", memory, || Ok(DEFAULT_MAXMEMORY_BYTES));
        let policy = self.optional(section, "maxmemory_policy", policy, || Ok(Policy::default()));
        let default = Moving::default();
        let rate = self.optional(section, "move_rate", move_rate, || Ok(default.bytes_per_s));
        let at_once = self.optional(section, "moves_at_once", moves_at_once, || Ok(default.at_once));
        let down_after = self.optional(section, "down_after", down_after, || Ok(default.down_after_s));
        let secret = self.optional(section, "peer_secret_file", string, || Ok(String::new()));
        Some(ClusterConfig {
            name: name?.value,
            partitions: partitions?.value,
            replicas: replicas?.value,
            durability: durability?.value,
            maxmemory_bytes: maxmemory?.value,
            maxmemory_policy: policy?.value,
            moving: Moving {
                bytes_per_s: rate?.value,
                at_once: at_once?.value,
                down_after_s: down_after?.value,
            },
            peer_secret_file: Some(secret?.value).filter(|path| !path.is_empty()).map(PathBuf::from),
        })
    }

    fn proxy(&mut self, section: &Section<'_, '_>) -> Option<ProxyConfig> {
        self.refuse_unknown_keys(section);
        let listen = self.required(section, "listen", address);
        let tls_listen = self.maybe(section, "tls_listen", address);
        self.note_address("listen", "[proxy]", None, listen);
        let metrics = self.maybe(section, "metrics", address);
        self.note_address("tls_listen", "[proxy]", None, given(tls_listen));
        self.note_address("metrics", "[proxy]", None, given(metrics));
        Some(ProxyConfig { listen: listen?.value, tls_listen: tls_listen?.value, metrics: metrics?.value })
    }

    fn tls(&mut self, section: &Section<'_, '_>) -> Option<TlsConfig> {
        self.refuse_unknown_keys(section);
        let cert = self.required(section, "cert_file", file);
        let key = self.required(section, "key_file", file);
        let ca = self.maybe(section, "ca_file", file);
        let auth = self.maybe(section, "auth_clients", auth_clients);
        let (ca, auth) = (ca?, auth?);
        if ca.value.is_none() && auth.value.is_some_and(|auth| auth != AuthClients::No) {
            return self.problem(
                auth.line,
                "'auth_clients' in [tls] needs 'ca_file': name the PEM file of the authority that signs clients' \
                 certificates"
                    .to_owned(),
            );
        }
        let default = if ca.value.is_some() { AuthClients::Yes } else { AuthClients::No };
        let of = |At { line, value }| FileKey { path: value, line };
        Some(TlsConfig {
            cert_file: of(cert?),
            key_file: of(key?),
            ca_file: ca.value.map(|value| FileKey { path: value, line: ca.line }),
            auth_clients: auth.value.unwrap_or(default),
        })
    }

    fn log(&mut self, section: &Section<'_, '_>) -> Option<LogConfig> {
        self.refuse_unknown_keys(section);
        let level = self.optional(section, "level", log_level, || Ok(LEVELS_DEFAULT.to_owned()));
        let format = self.optional(section, "format", log_format, || Ok(Format::default()));
        Some(LogConfig { level: level?.value, format: format?.value })
    }

    fn nodes(&mut self, root: &Section<'_, '_>) -> Option<Vec<NodeConfig>> {
        let Some(value) = root.get("node") else {
            return self
                .problem(1, "no node: add [[node]] sections with 'id', 'client' and 'peer'".to_owned());
        };
        let line = self.line(value);
        let DeValue::Array(list) = value.get_ref() else {
            return self.problem(line, "a node is written [[node]], with two brackets".to_owned());
        };
        if list.is_empty() || NODES_MAX < list.len() {
            return self.problem(line, format!("{} nodes: a cluster has 1 to {NODES_MAX}", list.len()));
        }
        let mut nodes: Vec<At<NodeConfig>> = Vec::new();
        for value in list.iter() {
            let Some(node) = self.section(NODE, value).and_then(|section| self.node(&section)) else {
                continue;
            };
            if let Some(first) = nodes.iter().find(|other| other.value.id == node.value.id) {
                let text = format!(
                    "duplicate id '{}' in [[node]]: line {} has it; ids are unique and never reused",
                    node.value.id, first.line
                );
                let _: Option<()> = self.problem(node.line, text);
            }
            nodes.push(node);
        }
        if !nodes.is_empty() && nodes.iter().all(|node| node.value.weight == 0) {
            return self.problem(
                line,
                "every node has weight 0: give at least one node a weight above 0".to_owned(),
            );
        }
        let lacks = |node: &&At<NodeConfig>| node.value.tls_client.is_none();
        if let Some(node) = nodes.iter().find(lacks).filter(|_| !nodes.iter().all(|node| lacks(&node))) {
            let text = format!(
                "node {} has no 'tls_client' and others have: clients that come by TLS are sent from node to node, so \
                 give it to each [[node]]",
                node.value.id
            );
            return self.problem(node.line, text);
        }
        if nodes.len() < list.len() { None } else { Some(nodes.into_iter().map(|node| node.value).collect()) }
    }

    fn node(&mut self, section: &Section<'_, '_>) -> Option<At<NodeConfig>> {
        self.refuse_unknown_keys(section);
        let id = self.required(section, "id", name);
        let client = self.required(section, "client", told_address);
        let tls_client = self.maybe(section, "tls_client", told_address);
        let peer = self.required(section, "peer", told_address);
        let proxy = self.maybe(section, "proxy", address);
        let tls_proxy = self.maybe(section, "tls_proxy", address);
        let metrics = self.maybe(section, "metrics", address);
        let weight = self.optional(section, "weight", weight, || Ok(1));
        let zone = self.optional(section, "zone", zone, || Ok(String::new()));

        let of = id.as_ref().map_or_else(|| "a node".to_owned(), |id| id.value.clone());
        let machine = peer.as_ref().map(|peer| peer.value.ip());
        for (key, address) in [
            ("client", client),
            ("tls_client", given(tls_client)),
            ("peer", peer),
            ("proxy", given(proxy)),
            ("tls_proxy", given(tls_proxy)),
            ("metrics", given(metrics)),
        ] {
            self.note_address(key, &of, machine, address);
        }
        if let (Some(At { line, .. }), None) = (given(tls_proxy), given(proxy)) {
            return self.problem(
                line,
                "'tls_proxy' in [[node]] needs 'proxy': it is the same proxy by TLS".to_owned(),
            );
        }
        let id = id?;
        let value = NodeConfig {
            id: NodeId(id.value),
            client: client?.value,
            tls_client: tls_client?.value,
            peer: peer?.value,
            proxy: proxy?.value,
            tls_proxy: tls_proxy?.value,
            metrics: metrics?.value,
            weight: weight?.value,
            zone: zone?.value,
        };
        Some(At { line: id.line, value })
    }

    /// Keeps an address for the checks of all of them.
    fn note_address(
        &mut self,
        key: &str,
        of: &str,
        machine: Option<IpAddr>,
        address: Option<At<SocketAddr>>,
    ) {
        if let Some(At { line, value }) = address {
            let is_tls = key.starts_with("tls_");
            self.addresses.push(Address { line, label: format!("{key} of {of}"), machine, is_tls, value });
        }
    }

    /// Notes addresses that two listeners cannot share, and the first one that needs a secret.
    fn check_addresses(&mut self, cluster: Option<&ClusterConfig>) {
        let mut addresses = std::mem::take(&mut self.addresses);
        addresses.sort_by_key(|address| address.line);
        for (at, second) in addresses.iter().enumerate() {
            if let Some(first) = addresses[..at].iter().find(|first| clash(first, second)) {
                let text = format!(
                    "address {} ({}) is taken: line {} has {} ({})",
                    second.value, second.label, first.line, first.value, first.label
                );
                let _: Option<()> = self.problem(second.line, text);
            }
        }
        let open = addresses.iter().find(|address| !is_loopback(address.value));
        if let (Some(open), Some(ClusterConfig { peer_secret_file: None, .. })) = (open, cluster) {
            let text = format!(
                "address {} ({}) is not loopback: set 'peer_secret_file' in [cluster] to a file with a secret that all \
                 nodes share",
                open.value, open.label
            );
            let _: Option<()> = self.problem(open.line, text);
        }
    }

    /// Notes a TLS address without section [tls], and such a section without an address.
    fn check_tls(&mut self, root: &Section<'_, '_>) {
        let first = self.addresses.iter().filter(|address| address.is_tls).min_by_key(|address| address.line);
        let first = first.map(|address| (address.line, address.label.clone()));
        match (root.get("tls").map(|tls| self.line(tls)), first) {
            (None, Some((line, label))) => {
                let text = format!("{label} needs a section [tls] with 'cert_file' and 'key_file'");
                let _: Option<()> = self.problem(line, text);
            }
            (Some(line), None) => {
                let text = "section [tls] serves no address: give 'tls_listen' in [proxy], or 'tls_client' or \
                            'tls_proxy' in [[node]], or leave the section out";
                let _: Option<()> = self.problem(line, text.to_owned());
            }
            _ => {}
        }
    }

    fn check_replicas(&mut self, root: &Section<'_, '_>, replicas: u16, nodes: usize) {
        if usize::from(replicas) <= nodes {
            return;
        }
        let cluster = root.get("cluster");
        let key = cluster.and_then(|value| value.get_ref().as_table()).and_then(|table| {
            table.iter().find(|(name, _)| name.get_ref() == "replicas").map(|(_, value)| self.line(value))
        });
        let line = key.or_else(|| cluster.map(|value| self.line(value))).unwrap_or(1);
        let default = if key.is_none() { " (the default)" } else { "" };
        let text = format!(
            "replicas = {replicas}{default} in [cluster] needs {replicas} nodes, the file has {nodes}: add [[node]] \
             sections or set replicas = 1"
        );
        let _: Option<()> = self.problem(line, text);
    }

    fn section<'a, 't>(
        &mut self,
        name: &'static str,
        value: &'a Spanned<DeValue<'t>>,
    ) -> Option<Section<'a, 't>> {
        let line = self.line(value);
        match value.get_ref() {
            DeValue::Table(table) => Some(Section { name, line, table }),
            DeValue::Array(_) => self.problem(line, format!("{name} is written once, with one bracket")),
            other => self.problem(line, format!("{name} is a section, not {}", kind(other))),
        }
    }

    fn refuse_unknown_keys(&mut self, section: &Section<'_, '_>) {
        let known = KEYS.iter().find(|(name, _)| *name == section.name).map_or(&[][..], |(_, keys)| keys);
        for (key, _) in section.table {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let line = line_of(self.text, key.span().start);
                let text = format!(
                    "unknown key '{}' in {}; {}",
                    printable(name),
                    section.name,
                    hint(name, section.name, known)
                );
                let _: Option<()> = self.problem(line, text);
            }
        }
    }

    fn required<T>(
        &mut self,
        section: &Section<'_, '_>,
        key: &str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<At<T>> {
        match section.get(key) {
            Some(value) => self.value(section, key, value, read),
            None => self.problem(section.line, format!("key '{key}' is missing in {}", section.name)),
        }
    }

    fn optional<T>(
        &mut self,
        section: &Section<'_, '_>,
        key: &str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
        default: impl FnOnce() -> Result<T, String>,
    ) -> Option<At<T>> {
        match section.get(key) {
            Some(value) => self.value(section, key, value, read),
            None => default().ok().map(|value| At { line: section.line, value }),
        }
    }

    /// As [`Self::optional`]; `None` within when it is not there.
    fn maybe<T>(
        &mut self,
        section: &Section<'_, '_>,
        key: &str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<At<Option<T>>> {
        self.optional(section, key, |value| read(value).map(Some), || Ok(None))
    }

    fn value<T>(
        &mut self,
        section: &Section<'_, '_>,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<At<T>> {
        let line = self.line(value);
        match read(value.get_ref()) {
            Ok(value) => Some(At { line, value }),
            Err(why) => self.problem(line, format!("'{key}' in {} {why}", section.name)),
        }
    }

    fn problem<T>(&mut self, line: usize, text: String) -> Option<T> {
        self.problems.push(Problem { line, text });
        None
    }

    fn line(&self, value: &Spanned<DeValue<'_>>) -> usize {
        line_of(self.text, value.span().start)
    }
}

pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// What was probably meant by `key`: a near key of the section, the section that has this key, or the list of keys.
fn hint(key: &str, section: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(key, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= candidate.len().div_ceil(3).max(2) && *distance < candidate.len()
        })
        .min();
    if let Some((_, candidate)) = near {
        return format!("did you mean '{candidate}'?");
    }
    let elsewhere = KEYS.iter().find(|(name, keys)| *name != section && *name != TOP && keys.contains(&key));
    match elsewhere {
        Some((name, _)) => format!("it belongs in {name}"),
        None => format!("keys: {}", known.join(", ")),
    }
}

/// Two listeners cannot have both. Two machines may each have the same address of their own, such as 127.0.0.1.
fn clash(a: &Address, b: &Address) -> bool {
    let is_own = |address: SocketAddr| address.ip().is_unspecified() || is_loopback(address);
    let covers = |any: SocketAddr, other: SocketAddr| any.ip().is_unspecified() && is_loopback(other);
    let apart = matches!((a.machine, b.machine), (Some(a), Some(b)) if a != b);
    if a.value.port() != b.value.port() || (apart && is_own(a.value) && is_own(b.value)) {
        return false;
    }
    a.value.ip() == b.value.ip() || covers(a.value, b.value) || covers(b.value, a.value)
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn name(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value)?;
    if text.is_empty() {
        return Err("is empty: give it a name".to_owned());
    }
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if NAME_BYTES_MAX < text.len() || !text.chars().all(good) || text.starts_with(['.', '-']) {
        return Err(format!(
            "is '{}': use 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' and '.', starting with a letter, digit or '_'",
            printable(&text)
        ));
    }
    Ok(text)
}

fn zone(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value)?;
    if ZONE_BYTES_MAX < text.len() || text.chars().any(char::is_control) {
        return Err(format!("is '{}': use at most {ZONE_BYTES_MAX} printable bytes", printable(&text)));
    }
    Ok(text)
}

fn address(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let text = string(value)?;
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        Ok(_) => Err(format!("is '{text}': port 0 is no fixed address; use 1 to 65535")),
        Err(_) => Err(format!("is '{}': write IP:PORT, for example 127.0.0.1:7001", printable(&text))),
    }
}

/// An address that is told to others, which `0.0.0.0` cannot be.
fn told_address(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let address = address(value)?;
    if address.ip().is_unspecified() {
        return Err(format!("is '{address}': others are told this address, so name the one they reach"));
    }
    Ok(address)
}

/// The path of a file that must be named.
fn file(value: &DeValue<'_>) -> Result<PathBuf, String> {
    match string(value)? {
        path if path.is_empty() => Err("is empty: name a file".to_owned()),
        path => Ok(PathBuf::from(path)),
    }
}

fn auth_clients(value: &DeValue<'_>) -> Result<AuthClients, String> {
    match string(value)?.as_str() {
        "no" => Ok(AuthClients::No),
        "optional" => Ok(AuthClients::Optional),
        "yes" => Ok(AuthClients::Yes),
        other => Err(format!("is '{}': use \"no\", \"optional\" or \"yes\"", printable(other))),
    }
}

fn partitions(value: &DeValue<'_>) -> Result<PartitionCount, String> {
    let count = integer(value)?;
    u16::try_from(count)
        .ok()
        .and_then(PartitionCount::new)
        .ok_or_else(|| format!("is {count}: use a power of two from 16 to 1024"))
}

fn replicas(value: &DeValue<'_>) -> Result<u16, String> {
    match integer(value)? {
        1 => Ok(1),
        3 => Ok(3),
        other => Err(format!("is {other}: use 1 (no copy) or 3 (survives the loss of a node)")),
    }
}

fn weight(value: &DeValue<'_>) -> Result<u32, String> {
    let weight = integer(value)?;
    u32::try_from(weight)
        .ok()
        .filter(|weight| *weight <= WEIGHT_MAX)
        .ok_or_else(|| format!("is {weight}: use 0 (holds nothing) to {WEIGHT_MAX}"))
}

fn durability(value: &DeValue<'_>) -> Result<Durability, String> {
    match string(value)?.as_str() {
        "buffered" => Ok(Durability::Buffered),
        "fsync" => Ok(Durability::Fsync),
        other => Err(format!("is '{}': use \"buffered\" or \"fsync\"", printable(other))),
    }
}

fn policy(value: &DeValue<'_>) -> Result<Policy, String> {
    let name = string(value)?;
    Policy::parse(&name).ok_or_else(|| {
        let names = Policy::ALL.map(|(name, _)| format!("\"{name}\"")).join(", ");
        format!("is '{}': use one of {names}", printable(&name))
    })
}

fn log_level(value: &DeValue<'_>) -> Result<String, String> {
    let levels = string(value)?;
    check_levels(&levels).map_err(|error| format!("is wrong: {error}"))?;
    Ok(levels)
}

fn log_format(value: &DeValue<'_>) -> Result<Format, String> {
    let name = string(value)?;
    Format::parse(&name).ok_or_else(|| format!("is '{}': use \"text\" or \"json\"", printable(&name)))
}

/// Bytes as a number, or text with Redis's units: `k` = 1000, `kb` = 1024, and so on for `m` and `g`.
fn memory(value: &DeValue<'_>) -> Result<u64, String> {
    if matches!(value, DeValue::Integer(_)) {
        return integer(value);
    }
    let DeValue::String(text) = value else {
        return Err(format!("must be text such as \"1gb\" or a number of bytes, not {}", kind(value)));
    };
    let lower = text.to_ascii_lowercase();
    let digits = lower.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = lower.split_at(digits);
    let factor: Option<u64> = match unit {
        "" | "b" => Some(1),
        "k" => Some(1_000),
        "kb" => Some(1 << 10),
        "m" => Some(1_000_000),
        "mb" => Some(1 << 20),
        "g" => Some(1_000_000_000),
        "gb" => Some(1 << 30),
        _ => None,
    };
    let bytes = factor.and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor));
    bytes.ok_or_else(|| {
        format!("is '{}': write bytes with kb, mb or gb, for example \"1gb\"; 0 = no limit", printable(text))
    })
}

fn move_rate(value: &DeValue<'_>) -> Result<u64, String> {
    let bytes = memory(value)?;
    let in_range = (MOVE_RATE_MIN..=MOVE_RATE_MAX).contains(&bytes);
    in_range.then_some(bytes).ok_or_else(|| format!("is {bytes}: use \"1mb\" to \"1024gb\" in a second"))
}

fn moves_at_once(value: &DeValue<'_>) -> Result<u16, String> {
    let count = integer(value)?;
    let in_range = u16::try_from(count).ok().filter(|count| (1..=MOVES_AT_ONCE_MAX).contains(count));
    in_range.ok_or_else(|| format!("is {count}: use 1 to {MOVES_AT_ONCE_MAX} for each node"))
}

/// Seconds as a number, or text with `s`, `m`, `h` or `d`.
fn down_after(value: &DeValue<'_>) -> Result<u32, String> {
    let seconds = if matches!(value, DeValue::Integer(_)) {
        Some(integer(value)?)
    } else if let DeValue::String(text) = value {
        let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
        let units = [("", 1), ("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
        let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        factor.and_then(|factor: u64| number.parse::<u64>().ok()?.checked_mul(factor))
    } else {
        return Err(format!("must be text such as \"5m\" or a number of seconds, not {}", kind(value)));
    };
    let in_range = seconds
        .filter(|seconds| DOWN_AFTER_S.contains(seconds))
        .and_then(|seconds| u32::try_from(seconds).ok());
    in_range.ok_or_else(|| "is no time from \"10s\" to \"30d\": write a number with s, m, h or d".to_owned())
}

fn integer(value: &DeValue<'_>) -> Result<u64, String> {
    let DeValue::Integer(integer) = value else {
        return Err(format!("must be a whole number, not {}", kind(value)));
    };
    u64::from_str_radix(integer.as_str(), integer.radix())
        .map_err(|_| format!("is {}: use a whole number from 0 up", integer.as_str()))
}

fn string(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        other => Err(format!("must be text in quotes, not {}", kind(other))),
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

/// At most 64 characters of `text`, on one line.
fn printable(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).filter(|c| *c != '\\').collect()
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(", ")
}
