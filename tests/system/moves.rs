//! Nodes that come and go: `ringfort apply` and `ringfort abort` on real processes, under load.

use crate::cluster::{Cluster, Options, START, assert_clean};
use crate::operator::ringfort;
use crate::wait::eventually;
use ringfort_loadgen::check;
use std::fs;
use std::time::Duration;

/// The exit code of a command about the cluster's file, and all that it says.
pub(crate) fn command(cluster: &Cluster, args: &[&str]) -> (Option<i32>, String) {
    let file = cluster.config_path();
    let file = file.to_str().expect("a UTF-8 path");
    let args: Vec<&str> = args.iter().map(|&arg| if arg == "FILE" { file } else { arg }).collect();
    let output = ringfort(&args);
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code(), String::from_utf8(text).expect("text").replace(file, "FILE"))
}

#[track_caller]
pub(crate) fn apply(cluster: &Cluster, more: &[&str]) -> String {
    let (code, said) = command(cluster, &[&["apply", "FILE"], more].concat());
    assert_eq!(code, Some(0), "{said}");
    said
}

/// Replicas and leaders of each node.
pub(crate) fn shares(cluster: &Cluster) -> Vec<(u64, u64)> {
    let status = cluster.status();
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    let number = |node: &serde_json::Value, key: &str| node[key].as_u64().unwrap_or(u64::MAX);
    nodes.iter().map(|node| (number(node, "replicas"), number(node, "leaders"))).collect()
}

/// Three nodes, of which all is known that a plan asks for.
pub(crate) fn healthy_cluster() -> Cluster {
    healthy_cluster_of(Options::default())
}

pub(crate) fn healthy_cluster_of(options: Options) -> Cluster {
    let cluster = Cluster::start(options);
    eventually("a healthy cluster", START, || match cluster.status() {
        status if status["health"] == "ok" && status["problems"].as_array().is_some_and(Vec::is_empty) => {
            Ok(())
        }
        status => Err(status.to_string()),
    });
    cluster
}

/// Takes the last node out of the config file.
pub(crate) fn without_last(cluster: &Cluster) {
    let text = cluster.config_text();
    let (kept, _) = text.rsplit_once("[[node]]").expect("a node");
    fs::write(cluster.config_path(), kept).expect("the config file is written");
}

#[test]
fn a_node_comes_and_goes_under_load() {
    let mut cluster = healthy_cluster();
    let n4 = cluster.add_node();
    cluster.start_node(n4);
    eventually("a node that waits", START, || match cluster.node(n4).output() {
        said if said.contains("it waits until `ringfort apply` adds it") => Ok(()),
        said => Err(said),
    });
    let options = cluster.check_options(Duration::from_secs(10));
    let checking = std::thread::spawn(move || check::run(&options));
    cluster.wait_for_load(0);
    let said = apply(&cluster, &[]);
    assert!(said.contains("12 of 48 move, the minimum") && said.contains("done in "), "{said}");
    eventually("a fair share of the leaders", START, || match shares(&cluster) {
        shares if shares == [(12, 4); 4] => Ok(()),
        shares => Err(format!("{shares:?}")),
    });
    assert_eq!(command(&cluster, &["plan", "FILE"]).0, Some(0));

    without_last(&cluster);
    let said = apply(&cluster, &[]);
    assert!(said.contains("12 of 48 move, the minimum") && said.contains("done in "), "{said}");
    assert_eq!(shares(&cluster).len(), 3);
    let report = checking.join().expect("the check ends").expect("the check can run");
    assert_clean(&report);
    assert_eq!(command(&cluster, &["plan", "FILE"]).0, Some(0));
    cluster.wait_until_equal();

    // Who left says where to go, until it is stopped; it is not taken for a member again.
    eventually("a node that left", START, || match cluster.node_client(n4).call("GET k") {
        reply if reply.starts_with("-MOVED ") => Ok(()),
        reply => Err(reply),
    });
    fs::write(cluster.config_path(), cluster.config_text()).expect("the config file is written");
    let (code, said) = command(&cluster, &["apply", "FILE"]);
    assert!(code == Some(1) && said.contains("n4"), "{said}");
    cluster.kill(n4);
    let lines = cluster.node_with(n4, &cluster.config_path(), &cluster.node_folder(n4)).refusal();
    assert!(lines[0].contains("node n4 has left cluster 'test'"), "{lines:?}");
}

#[test]
fn a_change_is_given_up_or_replaced() {
    let mut cluster = healthy_cluster();
    assert_eq!(cluster.client().call("SET k v"), "+OK\r\n");
    let (code, said) = command(&cluster, &["abort", "--config", "FILE"]);
    assert!(code == Some(1) && said.contains("no change of the members is under way"), "{said}");
    let n4 = cluster.add_node();
    apply(&cluster, &["--no-wait"]);
    let moves = cluster.status()["moves"].clone();
    assert_eq!((&moves["total"], &moves["done"]), (&12.into(), &0.into()), "nobody has started n4");
    let (code, said) = command(&cluster, &["abort", "--config", "FILE"]);
    assert!(code == Some(0) && said.contains("the change is given up"), "{said}");
    assert_eq!(shares(&cluster).len(), 3);

    // The same change once more, and another one in its place.
    apply(&cluster, &["--no-wait"]);
    let n5 = cluster.add_node();
    apply(&cluster, &["--no-wait"]);
    cluster.start_node(n4);
    cluster.start_node(n5);
    apply(&cluster, &[]);
    let shares = shares(&cluster);
    assert_eq!(shares.len(), 5);
    assert!(shares.iter().all(|(replicas, _)| (9..=10).contains(replicas)), "{shares:?}");
    assert_eq!(cluster.client().call("GET k"), "$1\r\nv\r\n");

    // Two at once leave only when that is meant.
    let text = cluster.config_text();
    let kept = text.split("[[node]]\nid = \"n4\"").next().expect("a part");
    fs::write(cluster.config_path(), kept).expect("the config file is written");
    let (code, said) = command(&cluster, &["apply", "FILE"]);
    assert!(code == Some(1) && said.contains("the file lacks 2 nodes of the cluster (n4, n5)"), "{said}");
    apply(&cluster, &["--yes"]);
    assert_eq!(cluster.client().call("GET k"), "$1\r\nv\r\n");
    assert_eq!(cluster.status()["nodes"].as_array().map(Vec::len), Some(3));
}

/// A fourth node joins, and is gone for good, with its folder, while it takes replicas.
fn lose_receiver(cluster: &mut Cluster, n4: usize) {
    fs::write(cluster.config_path(), cluster.config_text()).expect("the config file is written");
    cluster.start_node(n4);
    apply(cluster, &["--no-wait"]);
    eventually("a node that takes replicas", START, || match cluster.status()["moves"].clone() {
        moves if moves["active"].as_u64().is_some_and(|active| active > 0) => Ok(()),
        moves => Err(moves.to_string()),
    });
    cluster.kill(n4);
    fs::remove_dir_all(cluster.node_folder(n4)).expect("the folder goes");
}

#[test]
fn a_receiver_that_is_lost_for_good_holds_nothing_up() {
    let mut cluster = healthy_cluster_of(Options { move_rate: "1mb", ..Options::default() });
    let mut client = cluster.client();
    let value = "v".repeat(256 << 10);
    for n in 0..96 {
        assert_eq!(client.call(&format!("SET big:{n} {value}")), "+OK\r\n");
    }
    let before = cluster.map_json()["groups"].clone();
    let n4 = cluster.add_node();
    let options = cluster.check_options(Duration::from_secs(20));
    let checking = std::thread::spawn(move || check::run(&options));
    lose_receiver(&mut cluster, n4);
    let (code, said) = command(&cluster, &["abort", "--config", "FILE"]);
    assert!(code == Some(0) && said.contains("the change is given up"), "{said}");
    assert_eq!(shares(&cluster).len(), 3);
    let seats = |groups: &serde_json::Value| -> Vec<serde_json::Value> {
        groups.as_array().into_iter().flatten().map(|group| group["seats"].clone()).collect()
    };
    let after = seats(&cluster.map_json()["groups"]);
    let same = seats(&before).iter().zip(&after).filter(|(before, after)| before == after).count();
    assert!(same >= 12, "what had not moved was not copied either: {same} of 16 are as they were");

    lose_receiver(&mut cluster, n4);
    without_last(&cluster);
    let said = apply(&cluster, &[]);
    assert!(said.contains("done in "), "{said}");
    assert_eq!(shares(&cluster).len(), 3);
    assert_eq!(command(&cluster, &["plan", "FILE"]).0, Some(0));
    let report = checking.join().expect("the check ends").expect("the check can run");
    assert_clean(&report);
    cluster.wait_until_equal();
    assert_eq!(client.call("STRLEN big:7"), format!(":{}\r\n", value.len()));
}

/// Replicas of every partition that its leader hears and that lack next to nothing.
fn in_sync(cluster: &Cluster) -> Vec<u64> {
    let status = cluster.status();
    let partitions = status["partitions"].as_array().cloned().unwrap_or_default();
    partitions.iter().filter_map(|partition| partition["in_sync"].as_u64()).collect()
}

#[test]
fn a_node_that_stays_away_is_replaced_until_it_is_back() {
    let mut cluster = Cluster::prepare(Options { nodes: 4, ..Options::default() });
    let text = cluster.config_text().replace("[cluster]\n", "[cluster]\ndown_after = \"10s\"\n");
    fs::write(cluster.config_path(), text).expect("the config file is written");
    cluster.start_all();
    eventually("fair shares", START, || match shares(&cluster) {
        shares if shares == [(12, 4); 4] => Ok(()),
        shares => Err(format!("{shares:?}")),
    });
    let options = cluster.check_options(Duration::from_secs(20));
    let checking = std::thread::spawn(move || check::run(&options));
    cluster.wait_for_load(3);
    cluster.kill(3);
    eventually("three live replicas of every partition", 2 * START, || {
        let status = cluster.status();
        let is_replaced = status["nodes"][3]["is_replaced"] == true;
        match (in_sync(&cluster), shares(&cluster)) {
            (live, shares) if live == [3; 16] && shares[3] == (0, 0) && is_replaced => Ok(()),
            (live, shares) => Err(format!("{live:?} {shares:?} {}", status["problems"])),
        }
    });
    let problems = cluster.status()["problems"].to_string();
    assert!(problems.contains("the replicas of n4 are on other nodes"), "{problems}");
    let report = checking.join().expect("the check ends").expect("the check can run");
    assert_clean(&report);

    cluster.start_node(3);
    eventually("its share again", 2 * START, || match (cluster.status(), shares(&cluster)) {
        (status, shares) if shares == [(12, 4); 4] && status["health"] == "ok" => Ok(()),
        (status, shares) => Err(format!("{shares:?} {}", status["problems"])),
    });
    assert_eq!(cluster.status()["nodes"][3]["is_replaced"], false);
}

#[test]
fn without_room_a_node_that_is_away_keeps_its_replicas() {
    let mut cluster = healthy_cluster();
    let before = cluster.map_json();
    cluster.kill(2);
    eventually("a word about room", START, || match cluster.status()["problems"].to_string() {
        said if said.contains("the replicas of n3 stay where they are: there is no room for them") => Ok(()),
        said => Err(said),
    });
    assert_eq!(cluster.map_json()["groups"], before["groups"]);
}
