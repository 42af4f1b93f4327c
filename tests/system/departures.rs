//! Clients and proxies that go: without a word while much is unsent, or with only half of their connection.

use crate::client::{Client, encode, encode_line, proxy_hello};
use crate::cluster::{Cluster, Options};
use crate::wait::eventually;
use ringfort_proxy::server::peer;
use ringfort_resp::{Command, Protocol};
use ringfort_ring::{PartitionCount, slot_of};
use ringfort_wire::hello::{Channel, Hello};
use ringfort_wire::request::{CommandBody, Request, RequestKind};
use std::collections::BTreeSet;
use std::fs;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const MIB: usize = 1 << 20;
/// Longest that a process may take to notice.
const NOTICED: Duration = Duration::from_secs(10);

fn start() -> Cluster {
    let cluster = Cluster::start(Options { nodes: 1, replicas: 1, ..Options::default() });
    let value = vec![b'v'; 16 * MIB];
    let mut client = cluster.client();
    client.send(&encode(&[b"SET", b"{t}v", &value])).expect("sent");
    assert_eq!(client.reply(), "+OK\r\n");
    cluster
}

/// Of each client but the asking one: its name and what it holds of replies, bytes.
pub(crate) fn others(client: &mut Client) -> Vec<(String, usize)> {
    let list = client.call("CLIENT LIST");
    let field = |line: &str, key: &str| {
        line.split_whitespace().find_map(|pair| pair.strip_prefix(key)).unwrap_or_default().to_owned()
    };
    list.lines()
        .filter(|line| line.starts_with("id=") && !line.contains(" cmd=client|list "))
        .map(|line| (field(line, "name="), field(line, "obl=").parse().unwrap_or(0)))
        .collect()
}

#[test]
fn a_client_that_dies_with_much_unsent_is_forgotten() {
    let cluster = start();
    for address in [cluster.addresses[0].client, cluster.proxy_address] {
        let mut admin = Client::connect(address);
        let mut dead = Client::connect(address);
        assert_eq!(dead.call("CLIENT SETNAME dead"), "+OK\r\n");
        dead.send(&encode_line("GET {t}v").repeat(8)).expect("sent");
        eventually("unsent replies", NOTICED, || {
            let others = others(&mut admin);
            let is_full = others.iter().any(|(name, held)| name == "dead" && *held > 2 * MIB);
            if is_full { Ok(()) } else { Err(format!("{others:?}")) }
        });
        drop(dead);
        eventually("the client is forgotten", NOTICED, || {
            assert_eq!(admin.call("GET {t}w"), "$-1\r\n");
            let others = others(&mut admin);
            if others.iter().any(|(name, _)| name == "dead") { Err(format!("{others:?}")) } else { Ok(()) }
        });
    }
}

#[test]
fn a_proxy_that_dies_with_much_unsent_is_forgotten() {
    let mut cluster = start();
    let node = cluster.node(0).id();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let peer_address = cluster.addresses[0].peer;
    // As a proxy: it asks for four values, and never reads them.
    let link = runtime.block_on(async {
        let address = peer_address.to_string();
        let (_, ack) = peer::connect(&address, proxy_hello(Channel::Control), None).await.expect("greeted");
        let hello = Hello { cluster_id: ack.cluster_id, ..proxy_hello(Channel::Requests) };
        let (mut link, _) = peer::connect(&address, hello, None).await.expect("greeted");
        let partitions = PartitionCount::new(cluster.options.partitions).expect("a power of two");
        let mut command = Vec::new();
        CommandBody::encode(&mut command, Command::Get as u16, Protocol::Resp2, [b"{t}v"].iter());
        let mut out = Vec::new();
        for id in 1..=4 {
            let partition = partitions.of(slot_of(b"{t}v"));
            Request {
                id,
                partition,
                kind: RequestKind::Read,
                session: 0,
                seq: 0,
                acked: 0,
                command: &command,
            }
            .encode(&mut out);
        }
        link.write_all(&out).await.expect("sent");
        // The first part of the first value is on its way, behind the length of its frame.
        assert_ne!(link.read_u32_le().await.expect("a frame"), 0);
        link
    });
    let own = link.local_addr().expect("its address");
    let far_end =
        established(peer_address).into_iter().find(|c| c.remote == own).expect("the node's end").socket;
    assert!(sockets(node).contains(&far_end), "{far_end} is one of the node's");
    drop(link);
    drop(runtime);
    let mut client = cluster.node_client(0);
    eventually("the link is forgotten", NOTICED, || {
        assert_eq!(client.call("GET {t}w"), "$-1\r\n");
        if sockets(node).contains(&far_end) { Err(format!("{far_end} is there")) } else { Ok(()) }
    });
}

/// The sockets of a process.
fn sockets(process: u32) -> BTreeSet<String> {
    let files = fs::read_dir(format!("/proc/{process}/fd")).expect("it runs").flatten();
    let names = files.filter_map(|file| fs::read_link(file.path()).ok());
    names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.starts_with("socket:")).collect()
}

#[test]
fn a_client_that_sends_no_more_gets_all_its_replies() {
    const COMMANDS: usize = 5000;
    let cluster = start();
    for address in [cluster.addresses[0].client, cluster.proxy_address] {
        Client::connect(address).call("DEL {t}n");
        let mut client = Client::connect(address);
        let large = encode_line("GET {t}v");
        client
            .send(&[large.clone(), encode_line("INCR {t}n").repeat(COMMANDS), large].concat())
            .expect("sent");
        client.sender().shutdown(Shutdown::Write).expect("half closed");
        let reply = |client: &mut Client| client.try_reply().unwrap_or_else(|e| panic!("{address}: {e}"));
        assert_eq!(reply(&mut client).len(), 16 * MIB + "$16777216\r\n\r\n".len());
        for i in 1..=COMMANDS {
            assert_eq!(reply(&mut client), format!(":{i}\r\n").into_bytes());
        }
        assert_eq!(reply(&mut client).len(), 16 * MIB + "$16777216\r\n\r\n".len());
        assert_eq!(client.rest(), "");
    }
}

#[test]
fn a_client_that_closes_at_once_is_forgotten() {
    let cluster = start();
    for address in [cluster.addresses[0].client, cluster.proxy_address] {
        let mut admin = Client::connect(address);
        for line in ["", "PING\r\n", "GET {t}n\r\nINCR {t}n\r\nGET"] {
            let mut client = Client::connect(address);
            assert_eq!(client.call("CLIENT SETNAME brief"), "+OK\r\n");
            client.send(line.as_bytes()).expect("sent");
            drop(client);
        }
        eventually("the clients are forgotten", NOTICED, || {
            let others = others(&mut admin);
            if others.iter().any(|(name, _)| name == "brief") { Err(format!("{others:?}")) } else { Ok(()) }
        });
    }
}

#[test]
fn whoever_falls_silent_is_asked_whether_it_is_there() {
    let cluster = Cluster::start(Options::default());
    let addresses = cluster.addresses[0];
    for address in [addresses.client, addresses.proxy] {
        let client = Client::connect(address);
        let own = client.sender().local_addr().expect("its address");
        eventually("keepalive for a client", NOTICED, || {
            let kept = established(address).iter().any(|c| c.remote == own && c.is_kept_alive);
            if kept { Ok(()) } else { Err(own.to_string()) }
        });
    }
    // Links of the other nodes, of the proxy, of the nodes' own proxies: both ends. A socket with bytes on their way shows
    // another timer for that time.
    let mut seen = BTreeSet::new();
    eventually("keepalive for links", NOTICED, || {
        let links = established(addresses.peer);
        seen.extend(links.iter().filter(|link| link.is_kept_alive).map(|link| link.remote));
        let missing: Vec<_> =
            links.iter().map(|link| link.remote).filter(|link| !seen.contains(link)).collect();
        if seen.len() >= 5 && missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    });
}

/// One end of a TCP connection.
struct Connection {
    remote: SocketAddr,
    /// Its timer runs for keepalive, not for bytes on their way.
    is_kept_alive: bool,
    /// Its name among the open files of a process.
    socket: String,
}

/// The established connections whose ends at `address` are this machine's.
fn established(address: SocketAddr) -> Vec<Connection> {
    const ESTABLISHED: &str = "01";
    let table = fs::read_to_string("/proc/net/tcp").expect("the table of connections");
    let parse = |text: &str| {
        let (ip, port) = text.split_once(':')?;
        let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
        Some(SocketAddr::from((ip, u16::from_str_radix(port, 16).ok()?)))
    };
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, remote) = (parse(fields.get(1)?)?, parse(fields.get(2)?)?);
        let is_wanted = local == address && *fields.get(3)? == ESTABLISHED;
        let is_kept_alive = fields.get(5)?.starts_with("02:");
        let socket = format!("socket:[{}]", fields.get(9)?);
        is_wanted.then_some(Connection { remote, is_kept_alive, socket })
    };
    table.lines().filter_map(line).collect()
}
