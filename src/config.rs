//! The TOML file of a cluster -> [`Config`]: read once, checked once, typed.
//!
//! Unknown keys are refused. All problems of a file are reported together, one line each, with file, line and key:
//!
//! ```text
//! configs/local.toml:12: unknown key 'wieght' in [[node]]; did you mean 'weight'?
//! ```

mod place;
mod read;
mod secret;
mod tls;
mod write;

pub use place::Place;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ringfort_proxy::logging::{Format, LEVELS_DEFAULT};
use ringfort_proxy::tls::AuthClients;
use ringfort_ring::{NodeId, NodeSpec, PartitionCount};
use ringfort_store::Policy;
use ringfort_wire::map::Moving;
use twox_hash::XxHash3_64;

/// `configs/local.toml`, built in for a binary that runs elsewhere.
pub const LOCAL_TOML: &str = include_str!("../configs/local.toml");

/// Largest config file that is read. A node takes some 200 bytes, so this is room for thousands.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Most nodes of a cluster: the meta group sends the whole map at once, and P is at most 1024.
pub const NODES_MAX: usize = 256;

/// Longest cluster name and node id: both are names of folders.
pub const NAME_BYTES_MAX: usize = 64;

/// Longest zone name.
pub const ZONE_BYTES_MAX: usize = 64;

/// Largest weight of a node; 64 tokens each, so the ring stays small.
pub const WEIGHT_MAX: u32 = ringfort_ring::WEIGHT_MAX;

/// A whole cluster as its file describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What holds for the whole cluster.
    pub cluster: ClusterConfig,
    /// TLS for clients; `None` without a `[tls]` section. There is one exactly when there is a TLS address.
    pub tls: Option<TlsConfig>,
    /// The stand-alone proxy; `None` without a `[proxy]` section.
    pub proxy: Option<ProxyConfig>,
    /// The log of every process.
    pub log: LogConfig,
    /// The nodes in the order of the file; at least one, ids and addresses distinct.
    pub nodes: Vec<NodeConfig>,
}

/// The `[cluster]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Name of the cluster; never changes. Letters, digits, `-`, `_` and `.`, so that it can name a folder.
    pub name: String,
    /// P; never changes.
    pub partitions: PartitionCount,
    /// Replicas of each partition, 1 or 3, at most the number of nodes.
    pub replicas: u16,
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// Limit of the distinct data of the whole cluster, in bytes; 0 = no limit.
    pub maxmemory_bytes: u64,
    /// What gives way at the limit.
    pub maxmemory_policy: Policy,
    /// How replicas are moved.
    pub moving: Moving,
    /// File that holds the secret which the peers prove to each other; given when an address is not loopback. A
    /// relative path counts from the folder of the config file.
    pub peer_secret_file: Option<PathBuf>,
}

/// What an acknowledged write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// In the log file before the acknowledgement, synced every second: survives crashes of processes and the loss of a
    /// minority of machines.
    Buffered,
    /// Synced before the acknowledgement: survives loss of power everywhere.
    Fsync,
}

impl Durability {
    /// The word of the config file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Buffered => "buffered",
            Self::Fsync => "fsync",
        }
    }
}

/// The `[tls]` section: TLS for clients, on whatever machine the file is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM: the server's certificate, then those that lead to its authority.
    pub cert_file: FileKey,
    /// PEM: its private key.
    pub key_file: FileKey,
    /// PEM: the authorities that sign clients' certificates; given unless clients are not asked.
    pub ca_file: Option<FileKey>,
    /// Whether clients must show a certificate.
    pub auth_clients: AuthClients,
}

/// A file that a key names. A relative path counts from the folder of the config file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileKey {
    /// Where it is.
    pub path: PathBuf,
    /// Line of the key, from 1.
    pub line: usize,
}

/// The `[proxy]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where they connect by TLS.
    pub tls_listen: Option<SocketAddr>,
    /// Where it answers `/metrics` and `/health`.
    pub metrics: Option<SocketAddr>,
}

/// The `[log]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// What is shown, see [`ringfort_proxy::logging`].
    pub level: String,
    /// The form of a line.
    pub format: Format,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: LEVELS_DEFAULT.to_owned(), format: Format::Text }
    }
}

/// One `[[node]]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its id, never reused. Same letters as the cluster's name.
    pub id: NodeId,
    /// Where cluster-aware clients connect; told to them, so never `0.0.0.0`.
    pub client: SocketAddr,
    /// Where they connect by TLS; told to them likewise. On all nodes or on none.
    pub tls_client: Option<SocketAddr>,
    /// Where the other nodes and the proxies connect; never `0.0.0.0`.
    pub peer: SocketAddr,
    /// Where the node also serves as a proxy.
    pub proxy: Option<SocketAddr>,
    /// Where it does by TLS; only with `proxy`.
    pub tls_proxy: Option<SocketAddr>,
    /// Where it answers `/metrics` and `/health`.
    pub metrics: Option<SocketAddr>,
    /// Its share of replicas and leaders relative to the others; 0 = holds nothing.
    pub weight: u32,
    /// Its failure domain; empty = the nodes without a zone share one.
    pub zone: String,
}

impl NodeConfig {
    /// The node as the placement sees it.
    pub fn spec(&self) -> NodeSpec {
        NodeSpec { id: self.id.clone(), weight: self.weight, zone: self.zone.clone() }
    }
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read or is wrong; see [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = read_text(path).map_err(|why| ConfigError::of_file(&file, why))?;
        let mut config = Self::parse(&text, &file)?;
        if let Some(folder) = path.parent() {
            let secret = config.cluster.peer_secret_file.iter_mut();
            let tls = config.tls.iter_mut().flat_map(TlsConfig::paths);
            secret.chain(tls).for_each(|path| *path = folder.join(&path));
        }
        Ok(config)
    }

    /// Checks `text`; `file_name` only appears in errors.
    ///
    /// # Errors
    /// Every problem of the text, one line each.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, ConfigError> {
        read::config(text).map_err(|problems| ConfigError::new(file_name, problems))
    }

    /// The node with this id.
    pub fn node(&self, id: &NodeId) -> Option<&NodeConfig> {
        self.nodes.iter().find(|node| node.id == *id)
    }

    /// Fingerprint of what the nodes of a cluster must agree on before they form it: `[cluster]` without the path of
    /// the secret, and of each node id, client, peer, proxy, weight, zone and TLS addresses. Independent of comments, order
    /// and file name, of the stand-alone proxy, of the log, of certificates and of metrics addresses.
    pub fn hash(&self) -> u64 {
        let mut bytes = Vec::new();
        let cluster = &self.cluster;
        put(&mut bytes, "ringfort config 1");
        put(&mut bytes, &cluster.name);
        put(&mut bytes, &cluster.partitions.get().to_string());
        put(&mut bytes, &cluster.replicas.to_string());
        put(&mut bytes, cluster.durability.as_str());
        put(&mut bytes, &cluster.maxmemory_bytes.to_string());
        put(&mut bytes, cluster.maxmemory_policy.name());
        // With the defaults the hash is that of a version which knows none of these.
        if cluster.moving != Moving::default() {
            let Moving { bytes_per_s, at_once, down_after_s } = cluster.moving;
            put(&mut bytes, &format!("moving {bytes_per_s} {at_once} {down_after_s}"));
        }
        let mut nodes: Vec<&NodeConfig> = self.nodes.iter().collect();
        nodes.sort_by(|a, b| a.id.cmp(&b.id));
        for node in nodes {
            put(&mut bytes, &node.id.0);
            put(&mut bytes, &node.client.to_string());
            put(&mut bytes, &node.peer.to_string());
            put(&mut bytes, &node.proxy.map(|address| address.to_string()).unwrap_or_default());
            put(&mut bytes, &node.weight.to_string());
            put(&mut bytes, &node.zone);
            // Without TLS the hash is that of a version which knows none.
            for address in [node.tls_client, node.tls_proxy].into_iter().flatten() {
                put(&mut bytes, &format!("tls {address}"));
            }
        }
        XxHash3_64::oneshot(&bytes)
    }
}

/// Appends one field with its length before it, so that no two lists of fields give the same bytes.
fn put(bytes: &mut Vec<u8>, field: &str) {
    bytes.extend_from_slice(&(field.len() as u64).to_le_bytes());
    bytes.extend_from_slice(field.as_bytes());
}

fn read_text(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|error| format!("cannot be read: {}", reason(&error)))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {}", reason(&error)))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes: is it a config file?"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text: is it a config file?".to_owned())
}

/// The text of an I/O error without Rust's `(os error N)`.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let cut = text.find(" (os error").unwrap_or(text.len());
    text[..cut].to_lowercase()
}

/// What is wrong with a config file: one line per problem, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    lines: Vec<String>,
}

impl ConfigError {
    /// One line per problem, each `FILE:LINE: what is wrong; what to do`.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    fn new(file: &str, mut problems: Vec<read::Problem>) -> Self {
        problems.sort_by_key(|problem| problem.line);
        problems.dedup();
        let lines = problems.into_iter().map(|p| format!("{file}:{}: {}", p.line, p.text)).collect();
        Self { lines }
    }

    fn of_line(file: &Path, line: usize, text: String) -> Self {
        Self::new(&file.display().to_string(), vec![read::Problem { line, text }])
    }

    fn of_file(file: &str, why: String) -> Self {
        Self { lines: vec![format!("{file}: {why}")] }
    }
}

impl core::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod doc_tests;
#[cfg(test)]
mod tests;
