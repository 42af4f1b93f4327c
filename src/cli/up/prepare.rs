//! What is checked before anything is started: the file, the folder, the ports.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};

use super::follow::{Stamp, stamp};
use crate::cli::{BUILT_IN_CONFIG, config_path, default_data_dir};
use crate::config::{Config, LOCAL_TOML, NodeConfig, reason};
use crate::node::kept_map;
use ringfort_wire::ClusterMap;

/// The config that was named, else `configs/local.toml`, else the built-in text, which is written to the data folder for
/// the user unless it is there from an earlier start. Returns it with its file and what that was like.
pub(super) fn config(
    named: Option<PathBuf>,
    data_dir: Option<&Path>,
) -> anyhow::Result<(Config, PathBuf, Stamp)> {
    // Looked at before it is read: what is written meanwhile is noticed later.
    let load = |path: PathBuf| -> anyhow::Result<_> {
        let stamp = stamp(&path);
        Ok((Config::load(&path)?, path, stamp))
    };
    if let Some(path) = config_path(named) {
        return load(path);
    }
    let built_in = Config::parse(LOCAL_TOML, BUILT_IN_CONFIG)?;
    let folder = data_dir.map_or_else(|| default_data_dir(&built_in.cluster.name), Path::to_path_buf);
    make_folder(&folder)?;
    let path = folder.join("local.toml");
    if !path.exists() {
        // Written aside and renamed, so that a crash leaves no half of it.
        let aside = folder.join("local.toml.new");
        std::fs::write(&aside, LOCAL_TOML)
            .and_then(|()| std::fs::rename(&aside, &path))
            .map_err(|error| anyhow::anyhow!("cannot write {}: {}", path.display(), reason(&error)))?;
    }
    load(path)
}

/// Makes the data folder and takes its lock, which ends with the returned file.
pub(super) fn lock(data_dir: &Path) -> anyhow::Result<File> {
    make_folder(data_dir)?;
    let path = data_dir.join("up.lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| anyhow::anyhow!("cannot write {}: {}", path.display(), reason(&error)))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        let _ = (&mut file).take(16).read_to_string(&mut holder);
        anyhow::bail!(
            "another `ringfort up` (pid {}) runs on {}: stop it, or name another folder with --data-dir",
            holder.trim(),
            data_dir.display()
        );
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file)
}

/// The file in the data folder that the processes are started with: what `up` has taken from the user's file, and nodes that
/// have not left yet.
pub(super) fn own_file(data_dir: &Path) -> PathBuf {
    data_dir.join("up.toml")
}

/// The newest cluster map that the nodes of a data folder have kept; `None` when no cluster has formed in it.
pub(super) fn newest_map(data_dir: &Path) -> Option<ClusterMap> {
    let folders = std::fs::read_dir(data_dir).ok()?.flatten();
    folders.filter_map(|folder| kept_map(&folder.path())).max_by_key(|map| map.epoch)
}

/// Whether something else listens on an address now.
pub(super) fn is_taken(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_err()
}

/// Writes what the processes are to be started with.
///
/// # Errors
/// It contradicts itself, or the disk does not take it.
pub(super) fn write_own_file(data_dir: &Path, config: &Config) -> anyhow::Result<()> {
    let text = config.to_toml();
    Config::parse(&text, "it")?;
    let path = own_file(data_dir);
    let aside = path.with_extension("toml.new");
    let head = "# What `ringfort up` runs its processes with. It is written anew: edit the file that you gave to `up`.\n";
    std::fs::write(&aside, format!("{head}{text}"))
        .and_then(|()| std::fs::rename(&aside, &path))
        .map_err(|error| anyhow::anyhow!("cannot write {}: {}", path.display(), reason(&error)))
}

fn make_folder(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).map_err(|error| {
        anyhow::anyhow!("cannot make the data folder {}: {}", folder.display(), reason(&error))
    })
}

/// Opens every port of the file for a moment, all at once.
pub(super) fn check_ports(config: &Config, file: &Path) -> anyhow::Result<()> {
    check(ports(config), file)
}

/// The same with the ports of one node, but for those that it has already.
pub(super) fn check_node_ports(
    node: &NodeConfig,
    old: Option<&NodeConfig>,
    file: &Path,
) -> anyhow::Result<()> {
    let old: Vec<SocketAddr> = old.iter().flat_map(|old| node_ports(old)).map(|port| port.address).collect();
    check(node_ports(node).filter(|port| !old.contains(&port.address)), file)
}

fn check(ports: impl IntoIterator<Item = Port>, file: &Path) -> anyhow::Result<()> {
    let mut open = Vec::new();
    for Port { address, key, of } in ports {
        let listener = TcpListener::bind(address).map_err(|error| {
            let file = file.display();
            match error.kind() {
                ErrorKind::AddrInUse => anyhow::anyhow!(
                    "port {address} ({key} of {of}) is taken: stop what uses it or change '{key}' of {of} in {file}"
                ),
                ErrorKind::AddrNotAvailable => anyhow::anyhow!(
                    "{address} ({key} of {of}) is no address of this machine, and `up` runs the whole cluster here: \
                     change it in {file}, or run `ringfort node` on each machine"
                ),
                _ => anyhow::anyhow!("cannot listen on {address} ({key} of {of}): {}", reason(&error)),
            }
        })?;
        open.push(listener);
    }
    Ok(())
}

struct Port {
    address: SocketAddr,
    /// The key of the file that names it.
    key: &'static str,
    /// Whose key it is.
    of: String,
}

fn ports(config: &Config) -> Vec<Port> {
    let mut ports = Vec::new();
    if let Some(proxy) = &config.proxy {
        let all =
            [("listen", Some(proxy.listen)), ("tls_listen", proxy.tls_listen), ("metrics", proxy.metrics)];
        let of = || "[proxy]".to_owned();
        ports.extend(
            all.into_iter().filter_map(|(key, address)| Some(Port { address: address?, key, of: of() })),
        );
    }
    ports.extend(config.nodes.iter().flat_map(node_ports));
    ports
}

fn node_ports(node: &NodeConfig) -> impl Iterator<Item = Port> {
    let all = [
        ("client", Some(node.client)),
        ("tls_client", node.tls_client),
        ("peer", Some(node.peer)),
        ("proxy", node.proxy),
        ("tls_proxy", node.tls_proxy),
        ("metrics", node.metrics),
    ];
    let of = format!("node {}", node.id);
    all.into_iter().filter_map(move |(key, address)| Some(Port { address: address?, key, of: of.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own for each test; removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("ringfort-up-{name}-{}", std::process::id())))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_second_up_on_a_folder_is_refused() {
        let folder = Folder::new("lock");
        let first = lock(&folder.0).unwrap();
        let error = lock(&folder.0).unwrap_err().to_string();
        let expected = format!(
            "another `ringfort up` (pid {}) runs on {}: stop it, or name another folder with --data-dir",
            std::process::id(),
            folder.0.display()
        );
        assert_eq!(error, expected);
        drop(first);
        lock(&folder.0).unwrap();
    }

    #[test]
    fn an_impossible_folder_is_one_clear_line() {
        let error = lock(Path::new("/dev/null/x")).unwrap_err().to_string();
        assert_eq!(error, "cannot make the data folder /dev/null/x: not a directory");
    }

    #[test]
    fn a_taken_port_names_the_key_and_the_file() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let mut config = Config::parse(LOCAL_TOML, "local.toml").unwrap();
        config.proxy = None;
        config.nodes.truncate(1);
        config.nodes[0].client = address;
        let error = check_ports(&config, Path::new("x.toml")).unwrap_err().to_string();
        let expected = format!(
            "port {address} (client of node n1) is taken: stop what uses it or change 'client' of node n1 in x.toml"
        );
        assert_eq!(error, expected);
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let mut config = Config::parse(LOCAL_TOML, "local.toml").unwrap();
        // TEST-NET-1: no machine has it.
        config.proxy.as_mut().unwrap().listen = "192.0.2.1:6379".parse().unwrap();
        let error = check_ports(&config, Path::new("x.toml")).unwrap_err().to_string();
        assert!(
            error.starts_with("192.0.2.1:6379 (listen of [proxy]) is no address of this machine"),
            "{error}"
        );
    }

    #[test]
    fn all_ports_of_the_file_are_checked() {
        let mut config = Config::parse(LOCAL_TOML, "local.toml").unwrap();
        config.nodes[2].metrics = Some("127.0.0.1:7303".parse().unwrap());
        let ports: Vec<u16> = ports(&config).iter().map(|port| port.address.port()).collect();
        assert_eq!(ports, [6379, 7001, 7101, 7002, 7102, 7003, 7103, 7303]);
    }

    #[test]
    fn the_built_in_config_is_kept_once_written() {
        let folder = Folder::new("built-in");
        std::fs::create_dir_all(&folder.0).unwrap();
        let edited = LOCAL_TOML.replace("\"demo\"", "\"edited\"");
        std::fs::write(folder.0.join("local.toml"), &edited).unwrap();
        // Named explicitly, as the tests run where configs/local.toml exists.
        let (config, ..) = config(Some(folder.0.join("local.toml")), Some(&folder.0)).unwrap();
        assert_eq!(config.cluster.name, "edited");
    }
}
