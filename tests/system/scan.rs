//! Which keys there are: through the proxy, on the nodes, and while leaders die.

use crate::client::{Client, encode};
use crate::cluster::{Cluster, Options, START};
use crate::wait::eventually;
use ringfort_resp::reply::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;

/// Keys over all slots, some of them in one slot.
fn fill(client: &mut Client) -> BTreeSet<String> {
    let keys: BTreeSet<String> =
        (0..1500).map(|i| format!("key:{i}")).chain((0..500).map(|i| format!("{{t}}{i}"))).collect();
    let bytes: Vec<u8> = keys.iter().flat_map(|key| encode(&[b"SET", key.as_bytes(), b"v"])).collect();
    client.send(&bytes).expect("keys are sent");
    keys.iter().for_each(|key| assert_eq!(client.reply(), "+OK\r\n", "{key}"));
    keys
}

fn texts(value: &Value) -> Vec<String> {
    let elements = value.elements().unwrap_or_else(|| panic!("{value:?}"));
    elements.iter().map(|e| String::from_utf8(e.as_bytes().expect("text").to_vec()).expect("text")).collect()
}

/// One SCAN: the next cursor and the keys. A reply that is an error is given back.
fn scan(client: &mut Client, cursor: &str, options: &str) -> Result<(String, Vec<String>), String> {
    match client.value(&format!("SCAN {cursor} {options}")) {
        Value::Array(parts) => {
            let next = parts[0].as_bytes().expect("a cursor").to_vec();
            Ok((String::from_utf8(next).expect("digits"), texts(&parts[1])))
        }
        other => Err(format!("{other:?}")),
    }
}

/// All keys of a scan; `between` is called after each batch.
fn scan_all(client: &mut Client, options: &str, mut between: impl FnMut(usize)) -> Vec<String> {
    let (mut cursor, mut keys) = ("0".to_owned(), Vec::new());
    loop {
        let next = eventually("a batch", START, || scan(client, &cursor, options));
        keys.extend(next.1);
        cursor = next.0;
        if cursor == "0" {
            return keys;
        }
        between(keys.len());
    }
}

fn redis_cli(address: SocketAddr, args: &[&str]) -> String {
    let output = Command::new("redis-cli")
        .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
        .args(args)
        .output()
        .expect("redis-cli runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn keys_are_listed_through_the_proxy_and_on_the_nodes() {
    let mut cluster = Cluster::start(Options::default());
    let mut client = cluster.client();
    assert_eq!(client.call("RANDOMKEY"), "$-1\r\n");
    assert_eq!(client.call("KEYS *"), "*0\r\n");
    let keys = fill(&mut client);
    for options in ["", "COUNT 1", "COUNT 1000"] {
        let scanned = scan_all(&mut client, options, |_| ());
        assert_eq!(scanned.len(), keys.len(), "each key once: {options}");
        assert_eq!(scanned.into_iter().collect::<BTreeSet<_>>(), keys);
    }
    assert_eq!(scan_all(&mut client, "MATCH {t}4?9 COUNT 100", |_| ()).len(), 10);
    assert_eq!(texts(&client.value("KEYS *")).into_iter().collect::<BTreeSet<_>>(), keys);
    let slot = ringfort_ring::slot_of(b"t").0;
    assert_eq!(client.call(&format!("CLUSTER COUNTKEYSINSLOT {slot}")), ":500\r\n");
    assert_eq!(client.call(&format!("CLUSTER GETKEYSINSLOT {slot} 1")), "*1\r\n$4\r\n{t}0\r\n");
    let drawn: BTreeSet<_> = (0..100).map(|_| client.call("RANDOMKEY")).collect();
    assert!(80 < drawn.len(), "of 100 keys drawn from 2000 only {} differ", drawn.len());

    // Each node lists what it leads, and together they list everything once.
    let leader = cluster.leader_of("{t}");
    let mut listed = Vec::new();
    for n in 0..cluster.addresses.len() {
        let mut node = cluster.node_client(n);
        let scanned = scan_all(&mut node, "COUNT 100", |_| ());
        let own = texts(&node.value("KEYS *"));
        assert_eq!(scanned.iter().collect::<BTreeSet<_>>(), own.iter().collect::<BTreeSet<_>>());
        let count = if n == leader { ":500\r\n" } else { ":0\r\n" };
        assert_eq!(node.call(&format!("CLUSTER COUNTKEYSINSLOT {slot}")), count);
        let Value::Bulk(random) = node.value("RANDOMKEY") else { panic!("a node without keys") };
        assert!(own.iter().any(|key| key.as_bytes() == random), "a node draws from its own keys");
        listed.extend(scanned);
    }
    assert_eq!(listed.len(), keys.len());
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), keys);
    the_tools_of_redis_work(&cluster, keys.len());
    cluster.stop_all();
}

#[expect(clippy::print_stdout, reason = "a test that checks nothing says so")]
fn the_tools_of_redis_work(cluster: &Cluster, keys: usize) {
    let is_there = Command::new("redis-cli").arg("--version").output().is_ok();
    if !is_there {
        println!("skipped: there is no redis-cli");
        return;
    }
    let proxy = cluster.proxy_address;
    assert_eq!(redis_cli(proxy, &["--scan"]).lines().count(), keys);
    assert_eq!(redis_cli(proxy, &["--scan", "--pattern", "key:1*"]).lines().count(), 611);
    let nodes = cluster.addresses.iter().map(|a| redis_cli(a.client, &["-c", "--scan"]).lines().count());
    assert_eq!(nodes.sum::<usize>(), keys);
    for mode in ["--bigkeys", "--memkeys"] {
        let summary = redis_cli(proxy, &[mode]);
        assert!(summary.contains(&format!("Sampled {keys} keys in the keyspace!")), "{summary}");
        for node in &cluster.addresses {
            let summary = redis_cli(node.client, &["-c", mode]);
            assert!(summary.contains("keys in the keyspace!"), "{summary}");
        }
    }
}

#[test]
fn a_scan_survives_the_death_of_leaders() {
    let mut cluster = Cluster::start(Options::default());
    let mut client = cluster.client();
    let keys = fill(&mut client);
    for victim in 0..2 {
        let mut is_killed = false;
        let scanned = scan_all(&mut client, "COUNT 5", |so_far| {
            if !is_killed && 500 * (victim + 1) < so_far {
                cluster.kill(victim);
                is_killed = true;
            }
        });
        assert!(is_killed);
        assert_eq!(scanned.into_iter().collect::<BTreeSet<_>>(), keys, "each key that stayed");
        cluster.start_node(victim);
        cluster.wait_until_equal();
    }
    cluster.stop_all();
}

#[test]
fn a_scan_of_a_node_is_never_redirected() {
    let cluster = Cluster::start(Options::default());
    let keys = fill(&mut cluster.client());
    let mut nodes = [0, 1, 2].map(|n| cluster.node_client(n));
    for target in ["n2", "n3", "n1"] {
        assert!(cluster.client().call(&format!("RINGFORT TRANSFER 0 {target}")).starts_with("+OK"));
        // For a moment a node still believes that it leads what it has just handed over.
        eventually("the new leader answers", START, || {
            for node in &mut nodes {
                let batch = scan(node, "0", "COUNT 10");
                assert!(!batch.as_ref().is_err_and(|error| error.contains("MOVED")), "{batch:?}");
                assert!(batch?.1.iter().all(|key| keys.contains(key)));
            }
            let map = nodes[0].call("RINGFORT MAP");
            if map.contains(&format!(r#""leaders":["{target}""#)) { Ok(()) } else { Err(map) }
        });
    }
}
