//! RINGFORT FAULT: links cut, disks full or slow on command, in processes that were started with `--faults` only.

use crate::cluster::{Cluster, Options, START, assert_clean};
use crate::wait::eventually;
use ringfort_loadgen::check;
use std::time::Duration;

/// A cluster whose nodes take faults; its proxy does not.
fn cluster() -> Cluster {
    prepared(Options::default())
}

fn prepared(options: Options) -> Cluster {
    let mut cluster = Cluster::prepare(options);
    for n in 0..3 {
        cluster.start_node_with(n, &["--faults"]);
    }
    cluster.start_all();
    cluster
}

#[test]
fn faults_must_be_enabled() {
    let cluster = Cluster::start(Options::default());
    let reply = cluster.node_client(0).call("RINGFORT FAULT CUT n2 1000");
    assert!(reply.starts_with("-ERR faults are for tests") && reply.contains("--faults"), "{reply}");
}

#[test]
fn wrong_faults_are_refused() {
    let cluster = cluster();
    let mut client = cluster.node_client(0);
    for (line, part) in [
        ("RINGFORT FAULT CUT n9 1000", "'n9' is no node"),
        ("RINGFORT FAULT CUT n2 600001", "a fault lasts 0 to 600000 ms"),
        ("RINGFORT FAULT DISK-FULL soon", "a fault lasts 0 to 600000 ms"),
        ("RINGFORT FAULT DISK-SLOW -1 1000", "a fault lasts 0 to 600000 ms"),
        ("RINGFORT FAULT DISK-SLOW 1000", "takes CUT node milliseconds"),
        ("RINGFORT FAULT FIRE", "takes CUT node milliseconds"),
    ] {
        let reply = client.call(line);
        assert!(reply.starts_with("-ERR ") && reply.contains(part), "{line}: {reply}");
    }
    assert!(
        client.call("RINGFORT FAULT").ends_with("{\"cuts\":{},\"disk_full\":null,\"disk_slow\":null}\r\n")
    );
}

#[test]
fn a_node_that_is_cut_off_leads_no_more_and_comes_back() {
    let cluster = cluster();
    let mut client = cluster.client();
    assert_eq!(client.call("SET k before"), "+OK\r\n");
    let leader = cluster.leader_of("k");
    let others: Vec<usize> = (0..3).filter(|n| *n != leader).collect();
    // The test ends it; it would end by itself after 60 s.
    for &other in &others {
        let cut = |at, from| {
            let reply = cluster.node_client(at).call(&format!("RINGFORT FAULT CUT n{} 60000", from + 1));
            assert!(reply.starts_with('$'), "{reply}");
        };
        cut(leader, other);
        cut(other, leader);
    }
    // The proxy still reaches it; the others go on.
    eventually("another leader", START, || match client.call("SET k after").as_str() {
        "+OK\r\n" => Ok(()),
        other => Err(other.to_owned()),
    });
    let new = eventually("a leader among the others", START, || {
        let reply = cluster.node_client(others[0]).call("GET k");
        if reply == "$5\r\nafter\r\n" {
            return Ok(others[0]);
        }
        let reply = cluster.node_client(others[1]).call("GET k");
        if reply == "$5\r\nafter\r\n" { Ok(others[1]) } else { Err(reply) }
    });
    assert_ne!(new, leader);
    let old = cluster.node_client(leader).call("GET k");
    assert!(old.starts_with("-CLUSTERDOWN") || old.starts_with("-MOVED"), "the old leader answers {old}");
    for n in 0..3 {
        assert!(cluster.node_client(n).call("RINGFORT FAULT HEAL").starts_with('$'));
    }
    cluster.wait_until_equal();
}

#[test]
fn one_direction_is_cut_until_its_time_is_over() {
    let cluster = cluster();
    let mut client = cluster.client();
    assert_eq!(client.call("SET k before"), "+OK\r\n");
    let leader = cluster.leader_of("k");
    let other = (leader + 1) % 3;
    let reply = cluster.node_client(other).call(&format!("RINGFORT FAULT CUT n{} 3000", leader + 1));
    assert!(reply.contains(&format!("{{\"cuts\":{{\"n{}\":", leader + 1)), "{reply}");
    // Nothing arrives at the other: it falls behind, while the two that are left go on.
    let applied = |n: usize| -> Result<u64, String> {
        let node = cluster.node_json(n)?;
        let groups = node["groups"].as_array().ok_or("no groups")?;
        Ok(groups.iter().map(|group| group["applied"].as_u64().unwrap_or(0)).sum())
    };
    let before = applied(other).expect("it answers");
    for i in 0..100 {
        eventually("a write", START, || match client.call(&format!("SET k {i}")).as_str() {
            "+OK\r\n" => Ok(()),
            error => Err(error.to_owned()),
        });
    }
    assert!(applied(other).expect("it answers") < before + 100, "something arrived all the same");
    eventually("the end of the cut", START, || match cluster.node_client(other).call("RINGFORT FAULT") {
        reply if reply.contains("{\"cuts\":{}") => Ok(()),
        reply => Err(reply),
    });
    cluster.wait_until_equal();
}

#[test]
fn a_node_whose_disk_is_full_on_purpose_hands_over_and_follows_when_there_is_room() {
    let cluster = cluster();
    let mut client = cluster.client();
    assert_eq!(client.call("SET k before"), "+OK\r\n");
    let leader = cluster.leader_of("k");
    assert!(cluster.node_client(leader).call("RINGFORT FAULT DISK-FULL 60000").starts_with('$'));
    eventually("a write", START, || match client.call("SET k after").as_str() {
        "+OK\r\n" => Ok(()),
        other => Err(other.to_owned()),
    });
    assert_ne!(cluster.leader_of("k"), leader, "a leader wrote on a full disk");
    assert!(!cluster.node_client(leader).call("RINGFORT FAULT").contains("\"disk_full\":null"));
    assert!(cluster.node_client(leader).call("RINGFORT FAULT DISK-FULL 1").starts_with('$'));
    cluster.wait_until_equal();
    assert_eq!(cluster.client().call("GET k"), "$5\r\nafter\r\n");
}

#[test]
fn a_follower_on_a_full_disk_holds_up_nobody_and_catches_up() {
    let cluster = cluster();
    // Or a leadership would come to the node after it has handed over what it had.
    cluster.wait_for_preferred_leaders();
    let mut client = cluster.client();
    assert_eq!(client.call("SET k before"), "+OK\r\n");
    let follower = (cluster.leader_of("k") + 1) % 3;
    let load = cluster.check_options(Duration::from_secs(3));
    let checking = std::thread::spawn(move || check::run(&load));
    assert!(cluster.node_client(follower).call("RINGFORT FAULT DISK-FULL 60000").starts_with('$'));
    // It hands over what it leads.
    cluster.wait_until_its_disk_has_it_lead_nothing(follower, "full");
    let status = cluster.status();
    assert_eq!(status["nodes"][follower]["is_disk_full"], true);
    assert!(
        status["problems"].to_string().contains(&format!("the disk of n{} is full", follower + 1)),
        "{status}"
    );
    let applied = |n: usize| -> Result<u64, String> {
        let node = cluster.node_json(n)?;
        let groups = node["groups"].as_array().ok_or("no groups")?;
        Ok(groups.iter().map(|group| group["applied"].as_u64().unwrap_or(0)).sum())
    };
    let before = applied(follower).expect("it answers");
    for i in 0..500 {
        assert_eq!(client.call(&format!("SET k{i} after")), "+OK\r\n");
    }
    let report = checking.join().expect("the check ends").expect("the check can run");
    assert_clean(&report);
    assert!(applied(follower).expect("it answers") < before + 500, "it wrote on a full disk");
    assert!(cluster.node_client(follower).call("RINGFORT FAULT HEAL").starts_with('$'));
    cluster.wait_until_equal();
}

#[test]
fn a_leader_whose_disk_stalls_hands_over_and_loses_nothing() {
    let cluster = prepared(Options { durability: "fsync", ..Options::default() });
    cluster.wait_for_preferred_leaders();
    let mut client = cluster.client();
    assert_eq!(client.call("SET k before"), "+OK\r\n");
    let leader = cluster.leader_of("k");
    let load = cluster.check_options(Duration::from_secs(3));
    let checking = std::thread::spawn(move || check::run(&load));
    // No sync ends before the test says so.
    assert!(cluster.node_client(leader).call("RINGFORT FAULT DISK-SLOW 600000 600000").starts_with('$'));
    assert_eq!(client.call("SET k after"), "+OK\r\n");
    cluster.wait_until_its_disk_has_it_lead_nothing(leader, "slow");
    let status = cluster.status();
    assert_eq!(status["nodes"][leader]["is_disk_slow"], true);
    let said = format!("the disk of n{} is slow", leader + 1);
    assert!(status["problems"].to_string().contains(&said), "{status}");
    let report = checking.join().expect("the check ends").expect("the check can run");
    assert_clean(&report);
    assert_ne!(cluster.leader_of("k"), leader);
    assert!(cluster.node_client(leader).call("RINGFORT FAULT HEAL").starts_with('$'));
    cluster.wait_until_equal();
    assert_eq!(cluster.client().call("GET k"), "$5\r\nafter\r\n");
}
