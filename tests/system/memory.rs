//! Ten times more data than `maxmemory` allows, under each policy, on real processes.

use crate::client::{Client, encode};
use crate::cluster::{Cluster, Options};
use crate::wait::eventually;
use ringfort_store::Policy;
use serde_json::Value as Json;
use std::time::Duration;

const MAXMEMORY: u64 = 256 << 10;
const VALUE: [u8; 200] = [b'v'; 200];
/// Logical bytes of one key with its expiry.
const KEY_BYTES: u64 = 32 + 8 + 8 + VALUE.len() as u64;
/// Ten times more than there is room for.
const KEYS: u64 = 10 * MAXMEMORY / KEY_BYTES;
/// Commands sent before the first reply is read.
const PIPELINE: u64 = 256;
const SETTLE: Duration = Duration::from_secs(30);

/// Writes all keys; returns how many writes were refused.
fn fill(client: &mut Client, is_expiring: bool) -> u64 {
    let mut refused = 0;
    for first in (0..KEYS).step_by(PIPELINE as usize) {
        let keys = first..KEYS.min(first + PIPELINE);
        let mut commands = Vec::new();
        for i in keys.clone() {
            let key = format!("{i:08}");
            let words: [&[u8]; 5] = [b"SET", key.as_bytes(), &VALUE, b"EX", b"100000"];
            commands.extend(encode(&words[..if is_expiring { 5 } else { 3 }]));
        }
        client.send(&commands).expect("sent");
        for _ in keys {
            let reply = client.try_reply().expect("a reply");
            match reply.as_slice() {
                b"+OK\r\n" => {}
                b"-OOM command not allowed when used memory > 'maxmemory'.\r\n" => refused += 1,
                other => panic!("{}", String::from_utf8_lossy(other)),
            }
        }
    }
    refused
}

/// A value of each replica of partitions of node `n`.
fn of_groups(cluster: &Cluster, n: usize, key: &str) -> Result<Vec<Json>, String> {
    let node = cluster.node_json(n)?;
    let groups = node["groups"].as_array().ok_or("no groups")?;
    Ok(groups.iter().filter(|group| !group["partition"].is_null()).map(|group| group[key].clone()).collect())
}

fn sum(values: &[Json]) -> u64 {
    values.iter().filter_map(Json::as_u64).sum()
}

/// Sets the policy and waits until every replica has it.
fn set_policy(cluster: &Cluster, policy: Policy) {
    let reply = cluster.client().call(&format!("CONFIG SET maxmemory-policy {}", policy.name()));
    assert_eq!(reply, "+OK\r\n");
    eventually("the policy", SETTLE, || {
        for n in 0..3 {
            let policies = of_groups(cluster, n, "policy")?;
            if policies.len() != 16 || policies.iter().any(|p| p != policy.name()) {
                return Err(format!("{policies:?} on n{}", n + 1));
            }
        }
        Ok(())
    });
}

#[test]
fn ten_times_more_data_than_allowed() {
    let cluster = Cluster::start(Options { maxmemory: MAXMEMORY, ..Options::default() });
    let mut client = cluster.client();
    let mut evicted_before = 0;
    for (name, policy) in Policy::ALL {
        set_policy(&cluster, policy);
        assert_eq!(client.call("FLUSHALL"), "+OK\r\n");
        for i in 0..20 {
            assert_eq!(client.call(&format!("SET persistent:{i} v")), "+OK\r\n");
        }
        let refused = fill(&mut client, policy.is_volatile());
        cluster.wait_until_equal();
        cluster.wait_until_digests_are_equal();
        let bytes = sum(&of_groups(&cluster, 0, "bytes").expect("the node answers"));
        let evicted: u64 =
            (0..3).map(|n| sum(&of_groups(&cluster, n, "evicted_keys").expect("the node answers"))).sum();
        println!(
            "{name}: {KEYS} writes, {refused} refused, {} evicted, {bytes} bytes of {MAXMEMORY}",
            evicted - evicted_before
        );
        assert!((MAXMEMORY * 9 / 10..=MAXMEMORY * 11 / 10).contains(&bytes), "{name}: {bytes}");
        assert_eq!(evicted > evicted_before, policy.evicts(), "{name}");
        assert_eq!(refused > 0, !policy.evicts(), "{name}");
        if policy.is_volatile() {
            let persistent = (0..20).filter(|i| client.call(&format!("EXISTS persistent:{i}")) == ":1\r\n");
            assert_eq!(persistent.count(), 20, "{name}: what does not expire stays");
        }
        evicted_before = evicted;
    }
    // The last one was noeviction: reads and deletions go on, and make room.
    assert_eq!(client.call("GET persistent:1"), "$1\r\nv\r\n");
    assert!(client.call("OBJECT IDLETIME persistent:1").starts_with(':'));
    eventually("a full partition", SETTLE, || {
        let reply = client.call("APPEND {00000001}x vvvv");
        if reply.starts_with("-OOM") { Ok(()) } else { Err(reply) }
    });
    assert_eq!(client.call("FLUSHALL"), "+OK\r\n");
    assert_eq!(client.call("APPEND {00000001}x vvvv"), ":4\r\n");
}
