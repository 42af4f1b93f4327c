//! Large values, slow and many clients: every bound holds, and nobody else notices.

use crate::client::{Client, encode};
use crate::cluster::{Cluster, Options};
use crate::process::Process;
use crate::wait::eventually;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

const MIB: usize = 1 << 20;
/// As Redis's `maxclients`, on the proxy and on each node.
const CLIENTS_MAX: usize = 10_000;

/// Sends a command and returns the reply when it is text, else its length.
fn call(client: &mut Client, args: &[&[u8]]) -> Result<String, usize> {
    client.send(&encode(args)).expect("sent");
    let reply = client.try_reply().expect("a reply");
    if reply.len() < 200 { Ok(String::from_utf8(reply).expect("text")) } else { Err(reply.len()) }
}

/// As [`call`] with a command that may be repeated, on a connection of its own to the proxy, or to whoever leads its key:
/// on a busy machine a command of 31 MiB may cost a leader its office.
fn insist(cluster: &Cluster, is_by_proxy: bool, args: &[&[u8]]) -> Result<String, usize> {
    eventually("an answer", Duration::from_secs(60), || {
        let proxy = cluster.proxy_address;
        let address = if is_by_proxy { proxy } else { cluster.addresses[cluster.leader_of("{t}")].client };
        match call(&mut Client::connect(address), args) {
            Ok(reply) if ["-MOVED", "-CLUSTERDOWN", "-ERR outcome"].iter().any(|e| reply.starts_with(e)) => {
                Err(reply)
            }
            reply => Ok(reply),
        }
    })
}

#[test]
fn large_values_pass_and_too_large_ones_do_not() {
    let mut cluster = Cluster::start(Options::default());
    let large = vec![b'v'; 31 * MIB];
    let whole = Err(large.len() + "$32505856\r\n\r\n".len());
    for is_by_proxy in [true, false] {
        let call = |args: &[&[u8]]| insist(&cluster, is_by_proxy, args);
        for key in [b"{t}a", b"{t}b"] {
            assert_eq!(call(&[b"SET", key, &large]), Ok("+OK\r\n".to_owned()));
            assert_eq!(call(&[b"GET", key]), whole);
        }
        let too_large = "-ERR the reply is too large; ask for fewer keys at once\r\n";
        assert_eq!(call(&[b"MGET", b"{t}a", b"{t}b"]), Ok(too_large.to_owned()));
        let too_long = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n";
        assert_eq!(call(&[b"APPEND", b"{t}a", &large[..2 * MIB]]), Ok(too_long.to_owned()));
        assert!(call(&[b"DEL", b"{t}a", b"{t}b"]).is_ok_and(|reply| reply.starts_with(':')));
        // One command of more than 48 MiB is no command; only its connection ends.
        let address = if is_by_proxy { cluster.proxy_address } else { cluster.addresses[0].client };
        let mut client = Client::connect(address);
        let _ = client.send(&encode(&[b"MSET", b"{t}a", &large, b"{t}b", &large]));
        let rest = client.rest();
        assert!(rest.is_empty() || rest == "-ERR Protocol error: invalid bulk length\r\n", "{rest}");
        assert_eq!(call(&[b"EXISTS", b"{t}a"]), Ok(":0\r\n".to_owned()));
    }
    assert_eq!(insist(&cluster, true, &[b"SET", b"{t}kept", &large]), Ok("+OK\r\n".to_owned()));
    cluster.wait_until_equal();
    cluster.kill_all();
    cluster.start_all();
    assert_eq!(insist(&cluster, true, &[b"GET", b"{t}kept"]), whole);
}

#[test]
fn a_client_that_reads_slowly_holds_nobody_up() {
    const VALUES: usize = 200;
    let mut cluster = Cluster::start(Options::default());
    let leader = cluster.leader_of("{t}");
    let value = vec![b'v'; MIB];
    assert_eq!(call(&mut cluster.client(), &[b"SET", b"{t}v", &value]), Ok("+OK\r\n".to_owned()));
    let get = encode(&[b"GET", b"{t}v"]);
    for address in [cluster.proxy_address, cluster.addresses[leader].client] {
        let mut slow = Client::connect(address);
        let mut sender = slow.sender();
        let all = get.repeat(VALUES);
        let sending = std::thread::spawn(move || sender.write_all(&all));
        assert_eq!(slow.try_reply().expect("the first").len(), MIB + "$1048576\r\n\r\n".len());
        // It reads no more for now; others do, on the same partition.
        let mut other = Client::connect(address);
        for i in 0..200 {
            assert_eq!(call(&mut other, &[b"SET", b"{t}w", b"w"]), Ok("+OK\r\n".to_owned()), "{i}");
            assert_eq!(call(&mut other, &[b"GET", b"{t}w"]), Ok("$1\r\nw\r\n".to_owned()), "{i}");
        }
        for i in 1..VALUES {
            let reply = slow.try_reply().unwrap_or_else(|error| panic!("reply {i} at {address}: {error}"));
            assert_eq!(reply.len(), MIB + "$1048576\r\n\r\n".len(), "{i}");
        }
        sending.join().expect("the sender ends").expect("all is sent");
    }
    for process in [cluster.node(leader).rss(), cluster.proxy().rss()] {
        assert!(process < 600 * MIB, "{} MiB", process / MIB);
    }
}

#[test]
fn one_client_too_many_is_told_so() {
    let limit = getrlimit(Resource::Nofile);
    let needed = CLIENTS_MAX as u64 + 200;
    if limit.maximum.is_some_and(|maximum| maximum < needed) {
        println!("skipped: {needed} open files are needed");
        return;
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("within the hard limit");
    let mut cluster = Cluster::start(Options::default());
    for address in [cluster.proxy_address, cluster.addresses[0].client] {
        let mut clients = fill(address);
        for client in clients.iter_mut().step_by(100) {
            assert_eq!(client.call("PING"), "+PONG\r\n");
        }
        // They go, and others can come.
        drop(clients);
        eventually("room", Duration::from_secs(20), || {
            let reply = Client::try_connect(address).and_then(|mut client| client.try_call("PING"));
            if reply.as_ref().is_ok_and(|r| r == "+PONG\r\n") { Ok(()) } else { Err(format!("{reply:?}")) }
        });
    }
    for (what, rss) in [("n1", cluster.node(0).rss()), ("proxy", cluster.proxy().rss())] {
        println!("{what}: {} MiB after {CLIENTS_MAX} clients", rss / MIB);
        assert!(rss < 1024 * MIB, "{what}: {} MiB", rss / MIB);
    }
}

/// Connects until a client is turned away; every one before it is served.
fn fill(address: SocketAddr) -> Vec<Client> {
    let mut clients: Vec<Client> = Vec::new();
    loop {
        let mut client = Client::connect(address);
        let reply = client.try_call("PING").expect("a reply");
        if reply == "-ERR max number of clients reached\r\n" {
            // `wait_until_serving` and the proxy's own may still be open.
            assert!((CLIENTS_MAX - 10..=CLIENTS_MAX).contains(&clients.len()), "{}", clients.len());
            assert_eq!(client.rest(), "");
            return clients;
        }
        assert_eq!(reply, "+PONG\r\n", "client {}", clients.len());
        clients.push(client);
    }
}

impl Process {
    /// Bytes of memory in use.
    fn rss(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib << 10
    }
}
