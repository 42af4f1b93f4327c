//! Malformed input on every port: refused as Redis does, and nobody else notices.

use crate::client::{Client, encode, encode_line, proxy_hello};
use crate::cluster::{Cluster, Options};
use ringfort_wire::hello::{Channel, Hello};
use ringfort_wire::{Kind, Request, RequestKind, frame};
use std::net::SocketAddr;

/// Bytes, Redis's answer before it closes the connection.
fn malformed() -> Vec<(Vec<u8>, &'static str)> {
    let table: [(&[u8], &str); 9] = [
        (b"*x\r\n", "invalid multibulk length"),
        (b"*1048577000\r\n", "invalid multibulk length"),
        (b"*2\r\n$3\r\nGET\r\n:1\r\n", "expected '$', got ':'"),
        // Commands do not nest.
        (b"*1\r\n*1\r\n*1\r\n$4\r\nPING\r\n", "expected '$', got '*'"),
        (b"*1\r\n$-5\r\n", "invalid bulk length"),
        (b"*1\r\n$abc\r\n", "invalid bulk length"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870913\r\n", "invalid bulk length"),
        (b"SET k \"v\r\n", "unbalanced quotes in request"),
        (b"PING 'a'b\r\n", "unbalanced quotes in request"),
    ];
    let mut all: Vec<(Vec<u8>, &str)> = table.map(|(bytes, text)| (bytes.to_vec(), text)).to_vec();
    all.push((b"x".repeat(70 << 10), "too big inline request"));
    all.push(([&b"*"[..], &b"1".repeat(70 << 10)].concat(), "too big mbulk count string"));
    all.push(([&b"*1\r\n$"[..], &b"1".repeat(70 << 10)].concat(), "too big bulk count string"));
    all
}

fn clients_are_refused(address: SocketAddr) {
    let mut other = Client::connect(address);
    for (bytes, text) in malformed() {
        let mut client = Client::connect(address);
        // What came before is answered first.
        assert_eq!(client.call("PING"), "+PONG\r\n");
        // The server may close before it has read all.
        let _ = client.send(&bytes);
        let shown = bytes[..bytes.len().min(60)].escape_ascii().to_string();
        let rest = client.rest();
        assert!(
            rest == format!("-ERR Protocol error: {text}\r\n") || (rest.is_empty() && bytes.len() > 64 << 10),
            "{shown}: {rest}"
        );
        assert_eq!(other.call("PING"), "+PONG\r\n", "{shown}");
    }

    // Errors that leave the connection open.
    let long = "x".repeat(200);
    for (line, expected) in [
        ("NOSUCH".to_owned(), "-ERR unknown command 'NOSUCH', with args beginning with: \r\n".to_owned()),
        (
            format!("{long} {long}"),
            format!(
                "-ERR unknown command '{}', with args beginning with: '{}' \r\n",
                &long[..128],
                &long[..128]
            ),
        ),
        ("GET".to_owned(), "-ERR wrong number of arguments for 'get' command\r\n".to_owned()),
        ("GET a b".to_owned(), "-ERR wrong number of arguments for 'get' command\r\n".to_owned()),
        ("EXPIRE k x".to_owned(), "-ERR value is not an integer or out of range\r\n".to_owned()),
    ] {
        let reply = other.call(&line);
        // A node that does not lead the key says so first.
        assert!(
            reply == expected || (line.starts_with("EXPIRE") && reply.starts_with("-MOVED")),
            "{line}: {reply}"
        );
    }
    // Empty lines and commands are skipped; inline commands work.
    other.send(b"\r\n*0\r\n*-1\r\nPING\r\n").expect("sent");
    assert_eq!(other.reply(), "+PONG\r\n");
    // Many arguments are no protocol error.
    let args: Vec<&[u8]> =
        [&b"PING"[..]].into_iter().chain(std::iter::repeat_n(&b"x"[..], 100_000)).collect();
    other.send(&encode(&args)).expect("sent");
    assert_eq!(other.reply(), "-ERR wrong number of arguments for 'ping' command\r\n");
    // A key that is too long, a value that is too large.
    let reply_to = |args: &[&[u8]]| {
        let mut client = Client::connect(address);
        let _ = client.send(&encode(args));
        client.try_reply().map(|reply| String::from_utf8_lossy(&reply).into_owned())
    };
    let reply = reply_to(&[b"SET", &b"k".repeat(70_000), b"v"]).expect("a reply");
    assert!(reply.starts_with("-ERR key exceeds maximum") || reply.starts_with("-MOVED"), "{reply}");
    let reply = reply_to(&[b"SET", b"k", &vec![b'v'; 33 << 20]]).expect("a reply");
    assert!(
        reply.starts_with("-ERR string exceeds maximum")
            || reply.starts_with("-ERR Protocol error: invalid bulk length")
            || reply.starts_with("-MOVED"),
        "{reply}"
    );
    // Half a command, then nothing.
    let mut client = Client::connect(address);
    client.send(&encode_line("SET k v")[..17]).expect("sent");
    drop(client);
    assert_eq!(other.call("PING"), "+PONG\r\n");
}

/// Bytes that no peer would send, each on a connection of its own.
fn garbage(cluster_id: u128) -> Vec<Vec<u8>> {
    let hello = |channel, to_worker| {
        let mut out = Vec::new();
        Hello { cluster_id, to_worker, ..proxy_hello(channel) }.encode(&mut out);
        out
    };
    let link = |rest: &[u8]| [&hello(Channel::Requests, 0)[..], rest].concat();
    let request = |partition, command: &[u8]| {
        let mut out = Vec::new();
        let partition = ringfort_ring::PartitionId(partition);
        let kind = RequestKind::Write;
        Request { id: 1, partition, kind, session: 7, seq: 3, acked: 9, command }.encode(&mut out);
        out
    };
    let framed = |kind: Kind, body: &[u8]| {
        let mut out = Vec::new();
        frame::put(&mut out, kind, |out| out.extend_from_slice(body));
        out
    };
    // xorshift: the same noise in every run.
    let mut state = 0x9e37_79b9_u32;
    let mut noise = |len: usize| -> Vec<u8> {
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        };
        (0..len).map(|_| next()).collect()
    };
    let mut all = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        u32::MAX.to_le_bytes().to_vec(),
        [&u32::MAX.to_le_bytes()[..], &noise(4096)].concat(),
        // A frame of the largest length that never comes.
        [&(64_u32 << 20).to_le_bytes()[..], &[Kind::Hello as u8]].concat(),
        vec![0; 64],
        framed(Kind::Raft, &noise(100)),
        framed(Kind::Hello, &[]),
        hello(Channel::Requests, u16::MAX),
        hello(Channel::Raft, 0),
        hello(Channel::Snapshot, 0),
        [hello(Channel::Control, 0), framed(Kind::Probe, b"")].concat(),
        [hello(Channel::Control, 0), framed(Kind::MapGet, &[1, 2])].concat(),
        [hello(Channel::Control, 0), framed(Kind::Raft, &noise(300))].concat(),
        link(&request(u16::MAX, b"")),
        link(&request(0, b"")),
        link(&request(0, &noise(50))),
        link(&request(0, &[0xff, 0xff, 3, 0xff, 0xff, 0xff, 0xff])),
        link(&framed(Kind::Request, &noise(10))),
        link(&framed(Kind::Raft, &noise(10))),
        link(&noise(5000)),
    ];
    all.extend((0..50).map(|_| {
        let noise = noise(200);
        framed(Kind::Hello, &noise)
    }));
    all.extend((0..50).map(|i| {
        let noise = noise(35 + i);
        link(&framed(Kind::Request, &noise))
    }));
    all
}

/// Raft links need a member's name and store id; then their frames are damaged in every way.
fn damaged_raft_frames(cluster: &Cluster, cluster_id: u128) -> Vec<Vec<u8>> {
    let store_id = cluster.node_json(1).expect("n2 answers")["store_id"].as_str().map(str::to_owned);
    let store_id = u128::from_str_radix(&store_id.expect("a store id"), 16).expect("digits");
    let hello = |channel| {
        let mut out = Vec::new();
        Hello { cluster_id, node: "n2".to_owned(), store_id, ..proxy_hello(channel) }.encode(&mut out);
        out
    };
    let framed = |kind: Kind, body: &[u8]| {
        let mut out = Vec::new();
        frame::put(&mut out, kind, |out| out.extend_from_slice(body));
        out
    };
    // Group, incarnation, and the beginning of a message.
    let message = [&1_u16.to_le_bytes()[..], &1_u32.to_le_bytes(), &[0xff; 40]].concat();
    let mut all: Vec<Vec<u8>> = (0..message.len())
        .map(|len| [hello(Channel::Raft), framed(Kind::Raft, &message[..len])].concat())
        .collect();
    let other_group = [&u16::MAX.to_le_bytes()[..], &message[2..]].concat();
    all.push([hello(Channel::Raft), framed(Kind::Raft, &other_group)].concat());
    all.push([hello(Channel::Raft), framed(Kind::Request, &message)].concat());
    all.push([hello(Channel::Raft), u32::MAX.to_le_bytes().to_vec()].concat());
    all.push([hello(Channel::Snapshot), framed(Kind::SnapshotChunk, &message)].concat());
    all.push([hello(Channel::Snapshot), framed(Kind::SnapshotBegin, &message)].concat());
    all.push(
        [hello(Channel::Snapshot), framed(Kind::SnapshotBegin, &[1, 0, 1, 0, 0, 0, 9, 0, 0, 0])].concat(),
    );
    all
}

#[test]
fn garbage_does_no_harm() {
    let mut cluster = Cluster::start(Options::default());
    clients_are_refused(cluster.proxy_address);
    clients_are_refused(cluster.addresses[0].client);

    let map = cluster.node_client(0).call("RINGFORT MAP");
    let map: serde_json::Value =
        serde_json::from_str(map.split_once("\r\n").expect("a bulk").1).expect("JSON");
    let cluster_id = map["cluster_id"].as_str().and_then(|id| u128::from_str_radix(id, 16).ok()).unwrap_or(0);
    assert_ne!(cluster_id, 0, "{map}");
    let mut open = Vec::new();
    for bytes in garbage(cluster_id).into_iter().chain(damaged_raft_frames(&cluster, cluster_id)) {
        let mut peer = Client::connect(cluster.addresses[0].peer);
        let _ = peer.send(&bytes);
        open.push(peer);
    }
    drop(open);
    // A proxy that talks to no node is not harmed by a client's disappearance, nor are the nodes: all still serve.
    cluster.wait_until_serving();
    assert_eq!(cluster.client().call("SET k v"), "+OK\r\n");
    cluster.wait_until_equal();
    for n in 0..3 {
        assert!(cluster.node(n).is_running(), "n{} ended:\n{}", n + 1, cluster.node(n).output());
        assert!(!cluster.node(n).output().contains("panicked"), "{}", cluster.node(n).output());
    }
}
