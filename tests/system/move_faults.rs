//! A node is killed in the middle of a move: the move ends by itself, and nothing is lost.

use crate::cluster::{Cluster, Options, assert_clean};
use crate::moves::{apply, command, healthy_cluster_of, shares, without_last};
use crate::wait::eventually;
use ringfort_loadgen::check;
use std::fs;
use std::time::Duration;

/// Longest that a change may take, the return of the killed node included.
const CHANGE: Duration = Duration::from_secs(90);
/// Values that make a move last some seconds at the lowest rate.
const VALUES: usize = 96;
const VALUE_BYTES: usize = 64 << 10;

fn options(nodes: usize) -> Options {
    Options { nodes, partitions: 64, move_rate: "1mb", ..Options::default() }
}

fn fill(cluster: &Cluster) {
    let mut client = cluster.client();
    for n in 0..VALUES {
        let value = format!("{}{n:08}", "x".repeat(VALUE_BYTES));
        assert_eq!(client.call(&format!("SET large-{n} {value}")), "+OK\r\n");
    }
}

fn assert_filled(cluster: &Cluster) {
    let mut client = cluster.client();
    for n in 0..VALUES {
        let reply = client.call(&format!("GET large-{n}"));
        assert!(reply.ends_with(&format!("{n:08}\r\n")) && reply.len() > VALUE_BYTES, "large-{n}");
    }
}

/// The node, counted from 0, that a text such as `n3` names.
fn number(node: &serde_json::Value) -> usize {
    let number = node.as_str().and_then(|id| id.strip_prefix('n')).and_then(|n| n.parse::<usize>().ok());
    number.expect("the id of a node") - 1
}

fn meta_leader(cluster: &Cluster) -> usize {
    number(&eventually("a leader of the meta group", CHANGE, || {
        match cluster.status()["meta_leader"].clone() {
            serde_json::Value::Null => Err("none".to_owned()),
            node => Ok(node),
        }
    }))
}

fn busiest_leader(cluster: &Cluster) -> usize {
    let leaders = shares(cluster).into_iter().map(|(_, leaders)| leaders);
    leaders.enumerate().max_by_key(|(_, leaders)| *leaders).expect("a node").0
}

/// Begins the change that the config file holds now, kills `victim` while replicas move, starts it again from `config`
/// when it is missed, and waits for the end.
fn kill_in_the_middle(cluster: &mut Cluster, victim: impl Fn(&Cluster) -> usize, config: &std::path::Path) {
    let options = cluster.check_options(Duration::from_secs(12));
    let checking = std::thread::spawn(move || check::run(&options));
    apply(cluster, &["--no-wait"]);
    let total = eventually("replicas that move", CHANGE, || {
        let moves = cluster.status()["moves"].clone();
        let count = |key: &str| moves[key].as_u64().unwrap_or_default();
        let is_in_the_middle =
            1 <= count("done") && 1 <= count("active") && count("done") + 2 < count("total");
        if is_in_the_middle { Ok(count("total")) } else { Err(moves.to_string()) }
    });
    assert_eq!(total, 48);
    let victim = victim(cluster);
    cluster.kill(victim);
    eventually("a node that is missed", CHANGE, || {
        let nodes = cluster.status()["nodes"].clone();
        match nodes.as_array().is_some_and(|nodes| nodes.iter().any(|node| node["state"] == "down")) {
            true => Ok(()),
            false => Err(nodes.to_string()),
        }
    });
    cluster.start_node_from(victim, config);
    eventually("the end of the change", CHANGE, || match cluster.status()["moves"]["total"].as_u64() {
        Some(0) => Ok(()),
        _ => Err(cluster.status()["moves"].to_string()),
    });
    assert_clean(&checking.join().expect("the check ends").expect("the check can run"));
    assert_filled(cluster);
    assert_eq!(command(cluster, &["plan", "FILE"]).0, Some(0), "it is what the file says");
}

/// A fourth node comes.
fn killed_while_one_joins(victim: impl Fn(&Cluster) -> usize) {
    let mut cluster = healthy_cluster_of(options(3));
    fill(&cluster);
    let n4 = cluster.add_node();
    cluster.start_node(n4);
    let config = cluster.config_path();
    kill_in_the_middle(&mut cluster, victim, &config);
    assert!(shares(&cluster).iter().all(|(replicas, _)| *replicas == 48), "{:?}", shares(&cluster));
}

#[test]
fn the_joining_node_is_killed() {
    killed_while_one_joins(|_| 3);
}

#[test]
fn the_leader_of_the_meta_group_is_killed() {
    killed_while_one_joins(meta_leader);
}

#[test]
fn the_busiest_leader_is_killed() {
    killed_while_one_joins(busiest_leader);
}

#[test]
fn the_leaving_node_is_killed() {
    let mut cluster = healthy_cluster_of(options(4));
    fill(&cluster);
    let before = cluster.config_path().with_extension("before");
    fs::copy(cluster.config_path(), &before).expect("the config file is copied");
    without_last(&cluster);
    kill_in_the_middle(&mut cluster, |_| 3, &before);
    assert_eq!(shares(&cluster).len(), 3);
}
