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
    cluster.wait_for_load(0);
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

/// As if the machine had stopped unplanned and had booted again; the process is dead.
fn boot_again(cluster: &Cluster, n: usize) {
    fs::write(cluster.node_folder(n).join("boot"), "another boot").expect("written");
}

fn fill(cluster: &Cluster, value: &str) {
    let mut client = cluster.client();
    for n in 0..200 {
        assert_eq!(client.call(&format!("SET key-{n} {value}")), "+OK\r\n");
    }
}

fn assert_filled(cluster: &Cluster, value: &str) {
    let mut client = cluster.client();
    for n in 0..200 {
        assert_eq!(
            client.call(&format!("GET key-{n}")),
            format!("${}\r\n{value}\r\n", value.len()),
            "key-{n}"
        );
    }
}

/// The incarnations of all partitions, as the map tells them.
fn incarnations(cluster: &Cluster) -> Vec<u64> {
    let map = cluster.map_json();
    let groups = map["groups"].as_array().expect("the groups").iter();
    groups.map(|group| group["incarnation"].as_u64().expect("a number")).collect()
}

#[test]
fn a_node_whose_machine_stopped_is_seeded_from_the_others_under_load() {
    let mut cluster = Cluster::start(Options::default());
    fill(&cluster, "before");
    let options = cluster.check_options(Duration::from_secs(8));
    let checking = std::thread::spawn(move || check::run(&options));
    cluster.kill(2);
    boot_again(&cluster, 2);
    cluster.start_node(2);
    cluster.wait_until_whole();
    let report = checking.join().expect("the check ends").expect("the check can run");
    assert_clean(&report);
    cluster.wait_until_equal();
    assert_filled(&cluster, "before");
    assert!(incarnations(&cluster).iter().all(|&i| i == 1), "nothing started anew");

    // It is trusted again: the others may go.
    cluster.kill(0);
    eventually("the others serve", START, || match cluster.client().call("GET key-0").as_str() {
        "$6\r\nbefore\r\n" => Ok(()),
        other => Err(other.to_owned()),
    });
    cluster.start_node(0);
    cluster.wait_until_whole();
}

#[test]
fn nodes_whose_machines_all_stopped_start_anew_from_the_longest_logs() {
    let mut cluster = Cluster::start(Options::default());
    fill(&cluster, "before");
    cluster.wait_until_equal();
    cluster.kill_all();
    (0..3).for_each(|n| boot_again(&cluster, n));
    cluster.start_all();
    cluster.wait_until_serving();
    assert_filled(&cluster, "before");
    fill(&cluster, "after");
    cluster.wait_until_whole();
    cluster.wait_until_equal();
    assert!(incarnations(&cluster).iter().all(|&i| i == 2));

    // Only once: the next start is an ordinary one.
    cluster.kill_all();
    cluster.start_all();
    cluster.wait_until_whole();
    assert_filled(&cluster, "after");
    assert!(incarnations(&cluster).iter().all(|&i| i == 2));

    // Two of three are too many as well, and the third holds everything.
    cluster.kill_all();
    (1..3).for_each(|n| boot_again(&cluster, n));
    cluster.start_all();
    cluster.wait_until_whole();
    assert_filled(&cluster, "after");
    assert!(incarnations(&cluster).iter().all(|&i| i == 3));
}

#[test]
fn a_single_replica_comes_back_from_itself() {
    let mut cluster = Cluster::start(Options { replicas: 1, ..Options::default() });
    fill(&cluster, "before");
    cluster.kill_all();
    (0..3).for_each(|n| boot_again(&cluster, n));
    cluster.start_all();
    cluster.wait_until_serving();
    assert_filled(&cluster, "before");
    assert!(incarnations(&cluster).iter().all(|&i| i == 2));
}

#[test]
fn a_damaged_folder_is_set_aside_and_seeded_from_the_others() {
    let mut cluster = Cluster::start(Options::default());
    fill(&cluster, "before");
    cluster.wait_until_equal();
    cluster.kill(2);
    let folder = cluster.node_folder(2);
    let log = fs::read_dir(folder.join("logs-1/worker-0")).expect("the log");
    let log = log
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|e| e == "seg"));
    let log = log.expect("a segment");
    let mut bytes = fs::read(&log).expect("the segment");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&log, &bytes).expect("written");
    let lines = cluster.node_with(2, &cluster.config_path(), &folder).refusal();
    assert!(lines[0].contains("`ringfort node --rebuild`"), "{lines:?}");
    cluster.start_node_with(2, &["--rebuild"]);
    cluster.wait_until_whole();
    cluster.wait_until_equal();
    assert_filled(&cluster, "before");
    let aside = fs::read_dir(&folder).expect("the folder").filter_map(Result::ok);
    let aside = aside.filter(|entry| entry.file_name().to_string_lossy().starts_with("damaged-"));
    assert_eq!(aside.count(), 1);
}

/// `ringfort recover` with further arguments: what it says.
#[track_caller]
fn recover(cluster: &Cluster, more: &[&str]) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_ringfort"))
        .args(["recover", "--config"])
        .arg(cluster.config_path())
        .args(more)
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn an_operator_lets_partitions_begin_again_whose_only_copy_is_lost() {
    let mut cluster = Cluster::start(Options { replicas: 1, ..Options::default() });
    fill(&cluster, "before");
    assert!(recover(&cluster, &[]).contains("nothing to recover"));
    lose_folder(&mut cluster, 2);
    let said = recover(&cluster, &[]);
    assert!(said.contains("its replicas: n3 (down)") && said.contains("--accept-loss"), "{said}");
    assert!(incarnations(&cluster).iter().all(|&i| i == 1), "it only shows");
    let said = recover(&cluster, &["--accept-loss"]);
    assert!(said.contains("starts anew with nothing"), "{said}");
    cluster.start_node(2);
    cluster.wait_until_serving();
    // The sessions of the proxy went with the partitions, and its first writes are in doubt.
    eventually("writes", START, || {
        let mut client = cluster.client();
        let mut replies = (0..200).map(|n| client.call(&format!("SET key-{n} after")));
        replies.find(|reply| reply != "+OK\r\n").map_or(Ok(()), Err)
    });
    assert_filled(&cluster, "after");
    cluster.kill_all();
    cluster.start_all();
    cluster.wait_until_serving();
    assert_filled(&cluster, "after");
    let status = cluster.status();
    let recoveries = status["recoveries"].as_array().expect("the recoveries");
    assert!(!recoveries.is_empty() && recoveries.iter().all(|r| r["from"].is_null()), "{status}");
}

#[test]
fn the_last_copy_is_not_set_aside() {
    let mut cluster = Cluster::start(Options { replicas: 1, ..Options::default() });
    fill(&cluster, "before");
    cluster.kill(2);
    cluster.start_node_with(2, &["--rebuild"]);
    let status = cluster.node(2).exit_status(START);
    assert!(!status.success());
    let said = cluster.node(2).output();
    assert!(said.contains("without which their groups have no majority, so it is not set aside"), "{said}");
    cluster.kill(2);
    cluster.start_node(2);
    cluster.wait_until_serving();
    assert_filled(&cluster, "before");
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
