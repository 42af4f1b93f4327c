//! Lost data folders: a node that comes back with an empty one is seeded from the others.

use crate::cluster::{Cluster, Options, START, assert_clean};
use crate::wait::eventually;
use ringfort_loadgen::check;
use std::fs;
use std::time::Duration;

#[track_caller]
fn lose_folder(cluster: &mut Cluster, n: usize) {
    cluster.kill(n);
    fs::remove_dir_all(cluster.node_folder(n)).expect("the folder is removed");
}

#[test]
fn a_lost_data_folder_is_seeded_from_the_others_under_load() {
    let mut cluster = Cluster::start(Options::default());
    let options = cluster.check_options(Duration::from_secs(8));
    let checking = std::thread::spawn(move || check::run(&options));
    eventually("load", START, || match cluster.keys_on(0)? {
        0..50 => Err("too few keys".to_owned()),
        _ => Ok(()),
    });
    lose_folder(&mut cluster, 2);
    cluster.start_node(2);
    cluster.wait_until_whole();
    let report = checking.join().expect("the check ends").expect("the check can run");
    assert_clean(&report);
    cluster.wait_until_equal();

    // Another one goes: now every majority needs the new replicas.
    assert_eq!(cluster.client().call("SET k v"), "+OK\r\n");
    lose_folder(&mut cluster, 0);
    eventually("the others serve", START, || match cluster.client().call("GET k").as_str() {
        "$1\r\nv\r\n" => Ok(()),
        other => Err(other.to_owned()),
    });
    cluster.start_node(0);
    cluster.wait_until_whole();
    cluster.wait_until_equal();

    // The same folders once more.
    cluster.stop_all();
    cluster.start_all();
    cluster.wait_until_whole();
    assert_eq!(cluster.client().call("GET k"), "$1\r\nv\r\n");
}

#[test]
fn a_folder_without_which_there_is_no_majority_is_not_given_up() {
    let mut cluster = Cluster::start(Options { replicas: 1, ..Options::default() });
    assert_eq!(cluster.client().call("SET k v"), "+OK\r\n");
    lose_folder(&mut cluster, 2);
    let lines = cluster.node_with(2, &cluster.config_path(), &cluster.node_folder(2)).refusal();
    assert_eq!(
        lines,
        [
            "error: cluster 'test' knows node n3 by another data folder; replicas were there without which their groups \
             have no majority: start it with that folder"
        ]
    );
}

#[test]
fn the_old_folder_of_a_node_that_was_seeded_anew_is_refused() {
    let mut cluster = Cluster::start(Options::default());
    assert_eq!(cluster.client().call("SET k v"), "+OK\r\n");
    cluster.wait_until_equal();
    cluster.kill(2);
    let aside = cluster.folder.0.join("aside");
    fs::rename(cluster.node_folder(2), &aside).expect("the folder is moved");
    cluster.start_node(2);
    cluster.wait_until_whole();
    cluster.kill(2);
    let mut old = cluster.node_with(2, &cluster.config_path(), &aside);
    let status = old.exit_status(START);
    assert!(!status.success());
    let said = old.output();
    assert!(said.contains("the cluster knows node n3 by another data folder now"), "{said}");
    cluster.start_node(2);
    cluster.wait_until_whole();
}
