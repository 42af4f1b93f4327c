//! Crashes and pauses under load: nothing acknowledged is lost, nothing is read stale, nothing happens twice.

use crate::cluster::{Cluster, Options, START, assert_clean};
use crate::wait::{eventually, now};
use ringfort_loadgen::check;
use rustix::process::Signal;
use std::time::Duration;

/// How long the clients write and read.
const LOAD: Duration = Duration::from_secs(6);

/// Runs a check while `disturb` does what it does after the first second of load.
fn check_while(
    cluster: &mut Cluster,
    options: check::Options,
    disturb: impl FnOnce(&mut Cluster),
) -> check::Report {
    let before = commands(cluster);
    let checking = std::thread::spawn(move || check::run(&options));
    eventually("load", START, || match commands(cluster) - before {
        0..500 => Err("too few commands".to_owned()),
        _ => Ok(()),
    });
    disturb(cluster);
    checking.join().expect("the check ends").expect("the check can run")
}

/// Entries applied on the first node: grows with the load.
fn commands(cluster: &Cluster) -> u64 {
    let node = cluster.node_json(0).expect("the first node answers");
    let groups = node["groups"].as_array().expect("groups");
    groups.iter().map(|group| group["applied"].as_u64().unwrap_or(0)).sum()
}

#[test]
fn kill_9_of_a_node_behind_the_proxy_loses_nothing() {
    let mut cluster = Cluster::start(Options::default());
    let options = cluster.check_options(LOAD);
    let report = check_while(&mut cluster, options, |cluster| {
        let leader = cluster.leader_of("k");
        cluster.kill(leader);
        eventually("another leader", START, || {
            let reply = cluster.client().call("SET k v");
            if reply == "+OK\r\n" { Ok(()) } else { Err(reply) }
        });
        cluster.start_node(leader);
    });
    assert_clean(&report);
    cluster.wait_until_equal();
}

#[test]
fn kill_9_of_a_node_under_cluster_clients_loses_nothing() {
    let mut cluster = Cluster::start(Options::default());
    let options = check::Options {
        targets: cluster.addresses.iter().map(|a| a.client.to_string()).collect(),
        is_cluster: true,
        ..cluster.check_options(LOAD)
    };
    let report = check_while(&mut cluster, options, |cluster| {
        cluster.kill(1);
        eventually("all partitions led by others", START, || {
            let reply = cluster.client().call("DBSIZE");
            if reply.starts_with(':') { Ok(()) } else { Err(reply) }
        });
        cluster.start_node(1);
    });
    assert_clean(&report);
    cluster.wait_until_equal();
}

#[test]
fn a_paused_leader_serves_nothing_stale() {
    let mut cluster = Cluster::start(Options::default());
    let options = check::Options {
        targets: cluster.addresses.iter().map(|a| a.client.to_string()).collect(),
        is_cluster: true,
        timeout: Duration::from_secs(2),
        ..cluster.check_options(LOAD)
    };
    let report = check_while(&mut cluster, options, |cluster| {
        let leader = cluster.leader_of("k");
        cluster.node(leader).signal(Signal::STOP);
        // Longer than an election: the others go on without it, and it wakes with its old office in mind.
        let mut client = cluster.client();
        for i in 0..20 {
            eventually("another leader", START, || match client.call(&format!("SET k {i}")).as_str() {
                "+OK\r\n" => Ok(()),
                other => Err(other.to_owned()),
            });
        }
        let mut old = cluster.node_client(leader);
        old.send(b"GET k\r\n").expect("the socket takes it");
        cluster.node(leader).signal(Signal::CONT);
        let reply = old.reply();
        assert!(
            reply == "$2\r\n19\r\n" || reply.starts_with("-MOVED") || reply.starts_with("-CLUSTERDOWN"),
            "{reply}"
        );
    });
    assert_clean(&report);
    cluster.wait_until_equal();
}

#[test]
fn kill_9_of_all_nodes_at_once_loses_nothing() {
    let mut cluster = Cluster::start(Options::default());
    let options = cluster.check_options(LOAD);
    let report = check_while(&mut cluster, options, |cluster| {
        cluster.kill_all();
        cluster.start_all();
    });
    assert_clean(&report);
    cluster.wait_until_equal();
}

#[test]
fn without_a_majority_clients_are_told_and_come_back() {
    let mut cluster = Cluster::start(Options::default());
    let mut client = cluster.client();
    assert_eq!(client.call("SET k before"), "+OK\r\n");
    cluster.kill(0);
    cluster.kill(1);
    // The proxy's deadline is 5 s; an answer that may or may not be done says so.
    let begin = now();
    for line in ["SET k after", "GET k"] {
        let reply = client.call(line);
        let is_refused = reply.starts_with("-CLUSTERDOWN") || reply.starts_with("-ERR outcome unknown");
        // A leader that has not noticed yet may still read under its lease.
        assert!(is_refused || (line == "GET k" && reply.starts_with('$')), "{line}: {reply}");
    }
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(13), "two refusals took {took:?}");
    let reply = cluster.node_client(2).call("SET k after");
    assert!(reply.starts_with("-CLUSTERDOWN") || reply.starts_with("-MOVED"), "{reply}");
    assert_eq!(client.call("PING"), "+PONG\r\n");
    cluster.start_all();
    let value = client.call("GET k");
    assert!(value == "$6\r\nbefore\r\n" || value == "$5\r\nafter\r\n", "{value}");
    assert_eq!(client.call("SET k again"), "+OK\r\n");
    cluster.wait_until_equal();
}

#[test]
fn a_proxy_may_die_at_any_time() {
    let mut cluster = Cluster::start(Options::default());
    let options = cluster.check_options(LOAD);
    let report = check_while(&mut cluster, options, |cluster| {
        for _ in 0..3 {
            cluster.proxy().kill();
            cluster.restart_proxy();
        }
    });
    assert_clean(&report);
    cluster.wait_until_equal();
}
