//! Commands through the proxy and on the nodes' own ports.

use crate::client::{Client, encode, encode_line, moved_to};
use crate::cluster::{Cluster, Options};
use ringfort_resp::reply::Value;
use std::io::Write as _;
use std::net::SocketAddr;

/// Request line, reply in RESP2, reply in RESP3 where it differs. All keys have one hash tag, so that one node leads them.
const TABLE: &[(&str, &str, &str)] = &[
    ("DEL {t}a {t}b {t}c {t}n", ":0\r\n", ""),
    ("GET {t}a", "$-1\r\n", "_\r\n"),
    ("SET {t}a 1", "+OK\r\n", ""),
    ("get {t}a", "$1\r\n1\r\n", ""),
    ("SET {t}a 2 NX", "$-1\r\n", "_\r\n"),
    ("SET {t}b 2 XX", "$-1\r\n", "_\r\n"),
    ("SET {t}a 3 XX GET", "$1\r\n1\r\n", ""),
    ("SET {t}a 4 EX 100", "+OK\r\n", ""),
    ("TTL {t}a", ":100\r\n", ""),
    ("SET {t}a 5 KEEPTTL", "+OK\r\n", ""),
    ("PERSIST {t}a", ":1\r\n", ""),
    ("PERSIST {t}a", ":0\r\n", ""),
    ("TTL {t}a", ":-1\r\n", ""),
    ("PTTL {t}none", ":-2\r\n", ""),
    ("EXPIRE {t}a 100 NX", ":1\r\n", ""),
    ("EXPIRE {t}a 50 GT", ":0\r\n", ""),
    ("PEXPIRE {t}a 60000 LT", ":1\r\n", ""),
    ("EXPIRE {t}a -1", ":1\r\n", ""),
    ("EXISTS {t}a", ":0\r\n", ""),
    ("INCR {t}n", ":1\r\n", ""),
    ("INCRBY {t}n 41", ":42\r\n", ""),
    ("INCRBY {t}n 9223372036854775807", "-ERR increment or decrement would overflow\r\n", ""),
    ("APPEND {t}n x", ":3\r\n", ""),
    ("INCR {t}n", "-ERR value is not an integer or out of range\r\n", ""),
    ("GET {t}n", "$3\r\n42x\r\n", ""),
    ("MSET {t}a 1 {t}b 2 {t}a 3", "+OK\r\n", ""),
    ("MGET {t}a {t}none {t}b", "*3\r\n$1\r\n3\r\n$-1\r\n$1\r\n2\r\n", "*3\r\n$1\r\n3\r\n_\r\n$1\r\n2\r\n"),
    ("EXISTS {t}a {t}a {t}b {t}none", ":3\r\n", ""),
    ("DEL {t}a {t}a {t}b", ":2\r\n", ""),
    ("SET {t}a", "-ERR wrong number of arguments for 'set' command\r\n", ""),
    ("SET {t}a 1 EX 0", "-ERR invalid expire time in 'set' command\r\n", ""),
    ("SET {t}a 1 EX 1 PX 1", "-ERR syntax error\r\n", ""),
    ("MSET {t}a 1 {t}b", "-ERR wrong number of arguments for 'mset' command\r\n", ""),
    ("NOSUCH a b", "-ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b' \r\n", ""),
    ("PING", "+PONG\r\n", ""),
    ("PING hello", "$5\r\nhello\r\n", ""),
    ("ECHO hello", "$5\r\nhello\r\n", ""),
    ("CLIENT SETNAME tester", "+OK\r\n", ""),
    ("CLIENT GETNAME", "$6\r\ntester\r\n", ""),
    ("CLIENT SETINFO LIB-NAME test", "+OK\r\n", ""),
    ("CLIENT NOSUCH", "-ERR unknown subcommand 'NOSUCH'. Try CLIENT HELP.\r\n", ""),
    ("CONFIG GET save", "*2\r\n$4\r\nsave\r\n$0\r\n\r\n", "%1\r\n$4\r\nsave\r\n$0\r\n\r\n"),
    (
        "CONFIG GET appendonly",
        "*2\r\n$10\r\nappendonly\r\n$2\r\nno\r\n",
        "%1\r\n$10\r\nappendonly\r\n$2\r\nno\r\n",
    ),
    ("CLUSTER KEYSLOT foo", ":12182\r\n", ""),
    ("CLUSTER KEYSLOT {foo}bar", ":12182\r\n", ""),
    ("SELECT 0", "+OK\r\n", ""),
    ("READONLY", "+OK\r\n", ""),
    ("READWRITE", "+OK\r\n", ""),
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Sending {
    OneByOne,
    BytesAlone,
    Pipeline,
}

fn run_table(address: SocketAddr, is_resp3: bool, sending: Sending) {
    let mut client = Client::connect(address);
    if is_resp3 {
        assert!(client.call("HELLO 3").starts_with("%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n"));
    }
    client.call("DEL {t}a {t}b {t}c {t}n");
    if sending == Sending::Pipeline {
        let all: Vec<u8> = TABLE.iter().flat_map(|(line, ..)| encode_line(line)).collect();
        client.send(&all).expect("the pipeline is sent");
    }
    for &(line, resp2, resp3) in TABLE {
        let bytes = encode_line(line);
        match sending {
            Sending::OneByOne => client.send(&bytes).expect("a command is sent"),
            Sending::BytesAlone => bytes.iter().for_each(|b| client.send(&[*b]).expect("a byte is sent")),
            Sending::Pipeline => {}
        }
        let expected = if is_resp3 && !resp3.is_empty() { resp3 } else { resp2 };
        assert_eq!(client.reply(), expected, "{line}; {address}, RESP3: {is_resp3}, {sending:?}");
    }
}

#[test]
fn replies_are_redis_own_on_every_port() {
    let mut cluster = Cluster::start(Options::default());
    let leader = cluster.leader_of("{t}");
    let within = cluster.addresses[0].proxy;
    cluster.wait_until_proxy_serves(within);
    for address in [cluster.proxy_address, within, cluster.addresses[leader].client] {
        for is_resp3 in [false, true] {
            for sending in [Sending::OneByOne, Sending::BytesAlone, Sending::Pipeline] {
                run_table(address, is_resp3, sending);
            }
        }
    }
    a_long_pipeline_keeps_its_order(cluster.proxy_address, "");
    a_long_pipeline_keeps_its_order(cluster.addresses[leader].client, "{t}");
    the_proxy_splits_and_joins(&cluster);
    a_node_is_a_redis_cluster_node(&cluster, leader);
    maps_name_all_nodes(&cluster);
    info_and_command_answer(&cluster);
    the_whole_cluster_is_counted_and_emptied(&cluster);
    cluster.stop_all();
}

fn a_long_pipeline_keeps_its_order(address: SocketAddr, tag: &str) {
    const COMMANDS: usize = 10_000;
    let command = |i: usize| match i % 4 {
        0 => format!("SET {tag}p{i} v{i}"),
        1 => format!("GET {tag}p{}", i - 1),
        2 => format!("INCR {tag}count"),
        _ => format!("PING {i}"),
    };
    let mut client = Client::connect(address);
    client.call(&format!("DEL {tag}count"));
    let mut sender = client.sender();
    let all: Vec<u8> = (0..COMMANDS).flat_map(|i| encode_line(&command(i))).collect();
    let sending = std::thread::spawn(move || sender.write_all(&all));
    let bulk = |text: String| format!("${}\r\n{text}\r\n", text.len());
    for i in 0..COMMANDS {
        let expected = match i % 4 {
            0 => "+OK\r\n".to_owned(),
            1 => bulk(format!("v{}", i - 1)),
            2 => format!(":{}\r\n", i / 4 + 1),
            _ => bulk(i.to_string()),
        };
        assert_eq!(client.reply(), expected, "{}", command(i));
    }
    sending.join().expect("the sender ends").expect("all is sent");
}

fn the_proxy_splits_and_joins(cluster: &Cluster) {
    const KEYS: usize = 300;
    let mut client = cluster.client();
    let keys: Vec<String> = (0..KEYS).map(|i| format!("many:{i}")).collect();
    let pairs: Vec<String> = keys.iter().enumerate().map(|(i, key)| format!("{key} {i}")).collect();
    assert_eq!(client.call(&format!("MSET {}", pairs.join(" "))), "+OK\r\n");
    let mget = format!("MGET {} many:none many:0", keys.join(" "));
    let mut expected: Vec<Value> = (0..KEYS).map(|i| Value::Bulk(i.to_string().into_bytes())).collect();
    expected.extend([Value::Null, Value::Bulk(b"0".to_vec())]);
    assert_eq!(client.value(&mget), Value::Array(expected));
    assert_eq!(
        client.call(&format!("EXISTS {} many:none many:0", keys.join(" "))),
        format!(":{}\r\n", KEYS + 1)
    );
    assert_eq!(client.call(&format!("DEL {} many:none many:0", keys.join(" "))), format!(":{KEYS}\r\n"));
    assert_eq!(client.call(&format!("EXISTS {}", keys.join(" "))), ":0\r\n");
}

fn a_node_is_a_redis_cluster_node(cluster: &Cluster, leader: usize) {
    let mut client = cluster.node_client((leader + 1) % 3);
    let reply = client.call("GET {t}a");
    let slot = client.value("CLUSTER KEYSLOT {t}a").as_integer().expect("a slot");
    assert_eq!(reply, format!("-MOVED {slot} {}\r\n", cluster.addresses[leader].client));
    assert_eq!(moved_to(&reply), Some(cluster.addresses[leader].client));
    assert_eq!(client.call("SET {t}a 1"), reply);
    let crossslot = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
    for line in ["MGET a b", "MSET a 1 b 2", "DEL a b", "EXISTS a b"] {
        assert_eq!(client.call(line), crossslot, "{line}");
    }
}

/// (first slot, last slot, leader's address) of CLUSTER SLOTS.
fn slots(client: &mut Client) -> Vec<(i64, i64, String)> {
    let Value::Array(ranges) = client.value("CLUSTER SLOTS") else { panic!("no array") };
    let read = |range: Value| {
        let Value::Array(range) = range else { panic!("no array") };
        let [first, last, leader] = &range[..] else { panic!("a node that leads follows nobody: {range:?}") };
        let Value::Array(leader) = leader else { panic!("no array") };
        let ip = String::from_utf8_lossy(leader[0].as_bytes().expect("an ip")).into_owned();
        let port = leader[1].as_integer().expect("a port");
        (first.as_integer().expect("a slot"), last.as_integer().expect("a slot"), format!("{ip}:{port}"))
    };
    ranges.into_iter().map(read).collect()
}

fn maps_name_all_nodes(cluster: &Cluster) {
    let within = Client::connect(cluster.addresses[0].proxy);
    for mut client in [cluster.client(), within, cluster.node_client(0), cluster.node_client(2)] {
        let slots = slots(&mut client);
        let mut next = 0;
        for (first, last, _) in &slots {
            assert_eq!(*first, next, "{slots:?}");
            next = last + 1;
        }
        assert_eq!(next, 16384, "{slots:?}");
        for node in &cluster.addresses {
            assert!(slots.iter().any(|(.., leader)| *leader == node.client.to_string()), "{slots:?}");
        }
        let Value::Array(shards) = client.value("CLUSTER SHARDS") else { panic!("no array") };
        assert!(shards.len() >= 3, "{shards:?}");
        let info = client.call("CLUSTER INFO");
        for line in ["cluster_state:ok", "cluster_slots_assigned:16384", "cluster_known_nodes:3"] {
            assert!(info.contains(line), "{line} is missing in {info}");
        }
    }
}

fn info_and_command_answer(cluster: &Cluster) {
    for (mut client, mode, role) in
        [(cluster.client(), "standalone", "proxy"), (cluster.node_client(0), "cluster", "node")]
    {
        let info = client.call("INFO");
        for line in ["redis_version:", &format!("redis_mode:{mode}"), &format!("ringfort_role:{role}")] {
            assert!(info.contains(line), "{line} is missing in {info}");
        }
        assert!(client.value("CLIENT ID").as_integer().is_some_and(|id| id > 0));
        let count = client.value("COMMAND COUNT").as_integer().expect("a number");
        let Value::Array(all) = client.value("COMMAND") else { panic!("no array") };
        assert_eq!(all.len() as i64, count);
        assert!(client.call("HELLO 4").starts_with("-NOPROTO"));
        assert!(client.call("HELLO 3 AUTH default x SETNAME me").starts_with("%7\r\n"));
        assert_eq!(client.call("CLIENT GETNAME"), "$2\r\nme\r\n");
        assert!(client.call("HELLO 2").starts_with("*14\r\n"));
        assert_eq!(client.call("QUIT"), "+OK\r\n");
        assert_eq!(client.rest(), "");
    }
}

fn the_whole_cluster_is_counted_and_emptied(cluster: &Cluster) {
    let mut client = cluster.client();
    assert_eq!(client.call("FLUSHALL"), "+OK\r\n");
    assert_eq!(client.call("DBSIZE"), ":0\r\n");
    for i in 0..500 {
        client.send(&encode(&[b"SET", format!("k{i}").as_bytes(), b"v"])).expect("a command is sent");
    }
    (0..500).for_each(|_| assert_eq!(client.reply(), "+OK\r\n"));
    assert_eq!(client.call("DBSIZE"), ":500\r\n");
    let on_nodes: i64 =
        (0..3).map(|n| cluster.node_client(n).value("DBSIZE").as_integer().expect("a number")).sum();
    assert_eq!(on_nodes, 500, "each node counts what it leads");
    cluster.wait_until_equal();
    let status = cluster.status();
    assert_eq!(status["keys"], 500, "{status}");
    for node in status["nodes"].as_array().expect("nodes") {
        assert_eq!((&node["state"], &node["keys"]), (&"up".into(), &500.into()), "{status}");
    }
    assert!(cluster.node_client(0).call("FLUSHALL").starts_with("+OK"), "a node empties what it leads");
    assert!(client.value("DBSIZE").as_integer().is_some_and(|n| 0 < n && n < 500));
    assert_eq!(client.call("FLUSHALL ASYNC"), "+OK\r\n");
    assert_eq!(client.call("DBSIZE"), ":0\r\n");
}
