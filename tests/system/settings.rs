//! Settings of the whole cluster: CONFIG SET through any process, seen by all of them, kept through every restart.

use crate::client::Client;
use crate::cluster::{Cluster, Options};
use crate::wait::eventually;
use std::net::SocketAddr;
use std::time::Duration;

/// Longest that a process may take to hear of a change that another one made.
const HEARD: Duration = Duration::from_secs(5);

fn get(client: &mut Client, name: &str) -> String {
    let reply = client.call(&format!("CONFIG GET {name}"));
    reply.rsplit("\r\n").nth(1).unwrap_or_default().to_owned()
}

#[track_caller]
fn all_see(addresses: &[SocketAddr], name: &str, value: &str) {
    for address in addresses {
        let mut client = Client::connect(*address);
        eventually(&format!("{address} shows {name} {value}"), HEARD, || match get(&mut client, name) {
            seen if seen == value => Ok(()),
            seen => Err(seen),
        });
    }
}

/// Five nodes: three of them hold the meta group, two follow its map.
#[test]
fn a_setting_holds_for_every_process_and_is_kept() {
    let mut cluster = Cluster::start(Options { nodes: 5, workers: 2, ..Options::default() });
    let mut everywhere = vec![cluster.proxy_address];
    everywhere.extend(cluster.addresses.iter().flat_map(|a| [a.client, a.proxy]));

    // Who sets it sees it at once, whatever process that is.
    for (n, address) in everywhere.iter().enumerate() {
        let mut client = Client::connect(*address);
        let value = 100 + n;
        assert_eq!(client.call(&format!("CONFIG SET timeout {value} slowlog-max-len {value}")), "+OK\r\n");
        let mut other = Client::connect(*address);
        assert_eq!(get(&mut client, "timeout"), value.to_string());
        assert_eq!(get(&mut other, "slowlog-max-len"), value.to_string(), "another connection");
    }
    all_see(&everywhere, "timeout", &(100 + everywhere.len() - 1).to_string());

    // What is wrong changes nothing at all.
    let mut client = cluster.client();
    let before = client.call("CONFIG GET *");
    assert_eq!(
        client.call("CONFIG SET timeout 5 maxmemory-policy sometimes"),
        "-ERR CONFIG SET failed (possibly related to argument 'maxmemory-policy') - argument(s) must be one of the following: \
         volatile-lru, volatile-lfu, volatile-random, volatile-ttl, allkeys-lru, allkeys-lfu, allkeys-random, noeviction\r\n"
    );
    assert!(client.call("CONFIG SET appendonly yes").contains("can't set immutable config"));
    assert!(client.call("CONFIG REWRITE").starts_with("-ERR CONFIG REWRITE is not needed"));
    assert_eq!(client.call("CONFIG GET *"), before);

    // The config file gives the first value of maxmemory; what is set later stays, file or no file.
    assert_eq!(get(&mut client, "maxmemory"), (1u64 << 30).to_string());
    assert_eq!(client.call("CONFIG SET maxmemory 64mb"), "+OK\r\n");
    for n in 0..5 {
        cluster.kill(n);
    }
    cluster.start_all();
    all_see(&everywhere, "maxmemory", &(64u64 << 20).to_string());
}

#[test]
fn a_setting_is_changed_without_the_node_that_led_and_not_without_a_majority() {
    let mut cluster = Cluster::start(Options::default());
    // The lowest id leads the meta group when it can.
    cluster.kill(0);
    let mut client = cluster.client();
    assert_eq!(client.call("CONFIG SET timeout 7"), "+OK\r\n");
    assert_eq!(cluster.node_client(1).call("CONFIG SET slowlog-max-len 7"), "+OK\r\n");
    cluster.kill(1);
    let refused = client.call("CONFIG SET timeout 8");
    assert!(refused.starts_with("-CLUSTERDOWN ") || refused.starts_with("-ERR outcome unknown"), "{refused}");
    cluster.start_all();
    assert_eq!(cluster.node_client(0).call("CONFIG SET timeout 9"), "+OK\r\n");
    let addresses: Vec<SocketAddr> = cluster.addresses.iter().map(|a| a.client).collect();
    all_see(&addresses, "timeout", "9");
    all_see(&addresses, "slowlog-max-len", "7");
}
