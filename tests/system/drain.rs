//! Nodes that are restarted by an operator: drained first, one after the other, or at other addresses.

use crate::cluster::{Addresses, Cluster, HAND_OVER, START, assert_clean};
use crate::moves::{apply, command, healthy_cluster, shares};
use crate::wait::eventually;
use ringfort_loadgen::check::{self, Report};
use std::fs;
use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::Duration;

#[track_caller]
fn done(cluster: &Cluster, args: &[&str]) -> String {
    let (code, said) = command(cluster, &[args, &["--config", "FILE"]].concat());
    assert_eq!(code, Some(0), "{said}");
    said
}

/// Partitions that each node leads.
fn leads(cluster: &Cluster) -> Vec<u64> {
    shares(cluster).iter().map(|(_, leaders)| *leaders).collect()
}

#[track_caller]
fn wait_for_leads(cluster: &Cluster, wanted: &[u64]) {
    eventually("leaders", HAND_OVER, || match leads(cluster) {
        leads if leads == wanted => Ok(()),
        leads => Err(format!("{leads:?}")),
    });
}

#[track_caller]
fn wait_until_healthy(cluster: &Cluster) {
    eventually("a healthy cluster", START, || match cluster.status() {
        status if status["health"] == "ok" => Ok(()),
        status => Err(status["problems"].to_string()),
    });
}

/// Load, while an operator works.
fn load(cluster: &Cluster, seconds: u64) -> JoinHandle<Report> {
    let options = cluster.check_options(Duration::from_secs(seconds));
    let checking = std::thread::spawn(move || check::run(&options).expect("the check can run"));
    cluster.wait_for_load(0);
    checking
}

/// Asserts that every request was answered, and right.
#[track_caller]
fn assert_no_failure(checking: JoinHandle<Report>) {
    let report = checking.join().expect("the check ends");
    assert_clean(&report);
    assert_eq!((report.failed, report.unknown, report.reads_failed), (0, 0, 0), "{:?}", report.errors);
}

#[test]
fn a_drained_node_leads_nothing_until_it_is_undrained() {
    let mut cluster = healthy_cluster();
    let checking = load(&cluster, 10);
    let said = done(&cluster, &["drain", "n2"]);
    assert!(said.ends_with("n2 leads nothing: it can be stopped\n"), "{said}");
    let status = cluster.status();
    assert_eq!(
        (&status["nodes"][1]["drained"], &status["nodes"][0]["drained"]),
        (&true.into(), &false.into())
    );
    assert_ne!(status["meta_leader"], "n2");
    assert!(done(&cluster, &["status"]).contains(" drained "));
    wait_for_leads(&cluster, &[8, 0, 8]);
    assert!(shares(&cluster).iter().all(|(replicas, _)| *replicas == 16), "its replicas stay");
    assert_no_failure(checking);

    // Also after a restart, and when another node dies.
    cluster.node(1).stop();
    cluster.start_node(1);
    wait_until_healthy(&cluster);
    cluster.kill(0);
    wait_for_leads(&cluster, &[0, 0, 16]);
    cluster.start_node(0);
    wait_until_healthy(&cluster);
    wait_for_leads(&cluster, &[8, 0, 8]);

    let (code, said) = command(&cluster, &["drain", "m3", "--config", "FILE"]);
    let expected = "error: there is no node 'm3'; did you mean 'n3'? The nodes are n1, n2, n3\n";
    assert_eq!((code, said.as_str()), (Some(1), expected));
    let (code, said) = command(&cluster, &["transfer", "0", "n2", "--config", "FILE"]);
    assert!(code == Some(1) && said.contains("n2 is drained: `ringfort undrain n2`"), "{said}");
    done(&cluster, &["drain", "n1"]);
    wait_for_leads(&cluster, &[0, 0, 16]);
    let (code, said) = command(&cluster, &["drain", "n3", "--config", "FILE"]);
    assert!(code == Some(1) && said.contains("has no replica on another node that is not drained"), "{said}");

    // One is better than none.
    cluster.kill(2);
    eventually("leaders on drained nodes", HAND_OVER, || match leads(&cluster) {
        leads if leads[0] + leads[1] == 16 => Ok(()),
        leads => Err(format!("{leads:?}")),
    });
    cluster.start_node(2);
    wait_for_leads(&cluster, &[0, 0, 16]);
    done(&cluster, &["undrain", "n1"]);
    done(&cluster, &["undrain", "n2"]);
    cluster.wait_for_preferred_leaders();
}

#[test]
fn every_node_is_restarted_without_a_failed_request() {
    let mut cluster = healthy_cluster();
    let checking = load(&cluster, 25);
    for n in 0..3 {
        let id = format!("n{}", n + 1);
        done(&cluster, &["drain", &id]);
        cluster.node(n).stop();
        cluster.start_node(n);
        wait_until_healthy(&cluster);
        done(&cluster, &["undrain", &id]);
    }
    // SIGTERM alone hands over as well.
    for n in 0..3 {
        cluster.node(n).stop();
        cluster.start_node(n);
        wait_until_healthy(&cluster);
    }
    assert_no_failure(checking);
    cluster.wait_until_equal();
}

#[test]
fn a_node_moves_to_other_addresses() {
    let mut cluster = healthy_cluster();
    let checking = load(&cluster, 12);
    let old = cluster.addresses[1];
    let free = |address: std::net::SocketAddr| {
        let listener = TcpListener::bind((address.ip(), 0)).expect("a free port");
        listener.local_addr().expect("its address")
    };
    cluster.node(1).stop();
    cluster.addresses[1] = Addresses { client: free(old.client), peer: free(old.peer), ..old };
    fs::write(cluster.config_path(), cluster.config_text()).expect("the config file is written");
    let said = apply(&cluster, &[]);
    assert!(said.contains(&format!("~ n2  peer {} -> {}", old.peer, cluster.addresses[1].peer)), "{said}");
    assert!(said.contains("done in "), "{said}");
    cluster.start_node(1);
    wait_until_healthy(&cluster);
    assert_no_failure(checking);
    cluster.wait_until_equal();
    assert_eq!(cluster.status()["nodes"][1]["client"], cluster.addresses[1].client.to_string());
    // It leads there, and is found by clients.
    eventually("its share of the leaders", HAND_OVER, || match leads(&cluster)[1] {
        5..7 => Ok(()),
        led => Err(format!("it leads {led}")),
    });
    let slots = cluster.client().call("CLUSTER SLOTS");
    let port = |address: std::net::SocketAddr| format!(":{}\r\n", address.port());
    assert!(
        slots.contains(&port(cluster.addresses[1].client)) && !slots.contains(&port(old.client)),
        "{slots}"
    );
}
