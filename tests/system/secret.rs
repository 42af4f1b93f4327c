//! The peer secret: a cluster that has one works as any other, and whoever lacks it is kept out and told what to do.

use crate::client::{Client, proxy_hello};
use crate::cluster::{Cluster, Options, START};
use crate::process::Process;
use crate::wait::eventually;
use ringfort_wire::hello::{Channel, Hello};
use ringfort_wire::{Kind, frame};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

const SECRET: &str = "4f9d1c0b7a6e5d3c2b1a\n";
const OTHER: &str = "another secret of enough bytes\n";

/// A file beside the config file, for its owner only.
fn write_secret(cluster: &Cluster, name: &str, text: &str) -> PathBuf {
    let path = cluster.folder.0.join(name);
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("made private");
    path
}

/// A config file that names a secret; `None`: one that names none.
fn config(cluster: &Cluster, file: &str, secret: Option<&str>) -> PathBuf {
    let key = secret.map_or_else(String::new, |name| format!("peer_secret_file = \"{name}\"\n"));
    let path = cluster.folder.0.join(file);
    let text = cluster.config_text().replacen("[cluster]\n", &format!("[cluster]\n{key}"), 1);
    fs::write(&path, text).expect("written");
    path
}

#[track_caller]
fn says(process: &Process, what: &str) {
    eventually(what, START, || {
        let said = process.output();
        if said.contains(what) { Ok(()) } else { Err(said) }
    });
}

/// What a peer port answers to bytes, until it closes or has been silent for a while.
fn answer(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the peer port is open");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    stream.write_all(bytes).expect("sent");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn a_cluster_with_a_secret_lets_in_only_who_proves_it() {
    let mut cluster = Cluster::prepare(Options { workers: 2, ..Options::default() });
    write_secret(&cluster, "right.secret", SECRET);
    write_secret(&cluster, "wrong.secret", OTHER);
    config(&cluster, "cluster.toml", Some("right.secret"));
    let wrong = config(&cluster, "wrong.toml", Some("wrong.secret"));
    let without = config(&cluster, "without.toml", None);

    // A node with another secret, and one without, keep the cluster from forming, and say why.
    cluster.start_node(0);
    cluster.start_node(1);
    let mut third = cluster.node_with(2, &wrong, &cluster.node_folder(2));
    says(&third, "the process that connects has another peer secret than the node");
    says(cluster.node(0), "another peer secret");
    third.kill();
    let mut third = cluster.node_with(2, &without, &cluster.node_folder(2));
    says(&third, "the node asks for the peer secret, and the process that connects has none");
    says(cluster.node(0), "the process that connects has a peer secret, and the node has none");
    third.kill();
    assert!(!cluster.node_folder(0).join("cluster.json").exists(), "a cluster has formed");

    // A proxy is told likewise; it has the address of the one that comes later.
    for (file, name, why) in [
        (&wrong, "wrong.log", "has another peer secret than the node"),
        (&without, "without.log", "the process that connects has none"),
    ] {
        let (config, log) = (file.to_str().expect("text"), cluster.folder.0.join(name));
        let proxy = Process::start(&["proxy", "--parent-pipe", "--workers", "1", "--config", config], &log);
        says(&proxy, why);
    }

    // With the same secret everywhere it forms and serves: requests, Raft, settings and the nodes' own proxies.
    cluster.start_all();
    assert_eq!(cluster.client().call("SET k v"), "+OK\r\n");
    assert_eq!(Client::connect(cluster.addresses[1].proxy).call("GET k"), "$1\r\nv\r\n");
    assert_eq!(cluster.node_client(2).call("CONFIG SET timeout 5"), "+OK\r\n");

    // By hand: every channel is refused, and what follows an unproven hello is not answered.
    let secret_free = |channel, nonce| {
        let mut out = Vec::new();
        Hello { nonce, ..proxy_hello(channel) }.encode(&mut out);
        frame::put(&mut out, Kind::Probe, |_| {});
        frame::put_map_get(&mut out, 0, 0);
        out
    };
    for channel in [Channel::Control, Channel::Requests, Channel::Raft, Channel::Snapshot] {
        for (nonce, kinds) in
            [(None, vec![Kind::HelloRefuse]), (Some([7; 32]), vec![Kind::Challenge, Kind::HelloRefuse])]
        {
            let answer = answer(cluster.addresses[0].peer, &secret_free(channel, nonce));
            let (mut seen, mut at) = (Vec::new(), 0);
            while let Some(frame) = frame::next(&answer[at..]).expect("frames") {
                seen.push(frame.kind);
                at += frame.consumed;
            }
            assert_eq!(seen, kinds, "{channel:?}");
        }
    }
    assert_eq!(cluster.client().call("GET k"), "$1\r\nv\r\n", "the others go on");
}

#[test]
fn a_secret_that_everyone_can_read_is_refused() {
    let cluster = Cluster::prepare(Options::default());
    let secret = write_secret(&cluster, "open.secret", SECRET);
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o604)).expect("opened");
    let config = config(&cluster, "cluster.toml", Some("open.secret"));
    let lines = cluster.node_with(0, &config, &cluster.node_folder(0)).refusal();
    let secret = secret.display();
    assert_eq!(
        lines,
        [format!(
            "error: the peer secret {secret} is open to everyone on this machine (mode 604): chmod o-rwx {secret}, and \
             make a new one if somebody else may have read it"
        )]
    );
}
