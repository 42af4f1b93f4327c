//! Planned stops, other numbers of workers, one node alone.

use crate::client::encode;
use crate::cluster::{Cluster, Options};
use crate::wait::{eventually, now};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const KEYS: usize = 2000;

#[track_caller]
fn fill(cluster: &Cluster) {
    let mut client = cluster.client();
    for i in 0..KEYS {
        let (key, value) = (format!("key:{i}"), format!("value:{i}"));
        client.send(&encode(&[b"SET", key.as_bytes(), value.as_bytes()])).expect("a command is sent");
    }
    (0..KEYS).for_each(|i| assert_eq!(client.reply(), "+OK\r\n", "SET {i}"));
}

#[track_caller]
fn assert_filled(cluster: &Cluster) {
    let mut client = cluster.client();
    (0..KEYS).for_each(|i| {
        client.send(&encode(&[b"GET", format!("key:{i}").as_bytes()])).expect("a command is sent");
    });
    for i in 0..KEYS {
        let value = format!("value:{i}");
        assert_eq!(client.reply(), format!("${}\r\n{value}\r\n", value.len()), "key:{i}");
    }
    assert_eq!(client.call("DBSIZE"), format!(":{KEYS}\r\n"));
}

#[test]
fn a_stop_and_another_number_of_workers_keep_everything() {
    let mut cluster = Cluster::start(Options::default());
    fill(&cluster);
    cluster.stop_all();
    let begin = now();
    cluster.start_all();
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(10), "the second start took {took:?}");
    assert_filled(&cluster);
    for workers in [2, 1] {
        cluster.node(2).stop();
        cluster.options.workers = workers;
        cluster.start_node(2);
        cluster.wait_until_equal();
        assert_eq!(cluster.node_json(2).expect("it answers")["workers"], workers);
        assert_filled(&cluster);
    }
    // The re-homed node must be good for more than reading: without another one it is half of every quorum.
    cluster.kill(0);
    eventually("writes without n1", Duration::from_secs(20), || {
        match cluster.client().call("SET key:0 value:0").as_str() {
            "+OK\r\n" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    fill(&cluster);
    assert_filled(&cluster);
}

#[test]
fn a_planned_stop_of_one_node_fails_no_request() {
    let mut cluster = Cluster::start(Options::default());
    let address = cluster.proxy_address;
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let (began, has_begun) = std::sync::mpsc::channel::<()>();
    let writing = std::thread::spawn(move || {
        let mut client = crate::client::Client::connect(address);
        let mut count = 0_u64;
        while is_done.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let reply = client.call(&format!("SET stop:{} v", count % 1000));
            assert_eq!(reply, "+OK\r\n", "write {count}");
            count += 1;
            if count == 200 {
                began.send(()).expect("the test listens");
            }
        }
        count
    });
    has_begun.recv().expect("writes begin");
    for n in 0..3 {
        cluster.node(n).stop();
        cluster.start_node(n);
        cluster.wait_until_joined(n);
    }
    done.send(()).expect("the writer listens");
    let count = writing.join().expect("no write failed");
    println!("{count} writes during three planned stops");
    cluster.wait_until_equal();
}

#[test]
fn one_node_with_fsync_keeps_what_it_acknowledged() {
    let options = Options { nodes: 1, replicas: 1, durability: "fsync", ..Options::default() };
    let mut cluster = Cluster::start(options);
    fill(&cluster);
    cluster.kill_all();
    cluster.start_all();
    assert_filled(&cluster);
    cluster.stop_all();
    cluster.start_all();
    assert_filled(&cluster);
}

#[test]
fn three_nodes_with_fsync_keep_what_they_acknowledged() {
    let mut cluster = Cluster::start(Options { durability: "fsync", ..Options::default() });
    fill(&cluster);
    cluster.kill_all();
    cluster.start_all();
    assert_filled(&cluster);
    cluster.wait_until_equal();
}

/// The longest log file of a node.
fn log_file(folder: &Path) -> PathBuf {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.retain(|path| path.parent().is_some_and(|p| p.to_string_lossy().contains("worker-")));
    files.into_iter().max_by_key(|path| fs::metadata(path).expect("a file").len()).expect("a log")
}

#[test]
fn a_damaged_log_is_noticed_and_a_torn_tail_is_cut() {
    let mut cluster = Cluster::start(Options::default());
    fill(&cluster);
    cluster.wait_until_equal();
    cluster.kill(1);
    cluster.kill(2);
    // What a crash in the middle of a write leaves behind.
    let torn = log_file(&cluster.node_folder(1));
    let mut file = fs::File::options().append(true).open(&torn).expect("the log");
    file.write_all(&[0x5a; 37]).expect("written");
    cluster.start_node(1);
    cluster.wait_until_serving();
    assert_filled(&cluster);
    // What a bad disk leaves behind.
    let damaged = log_file(&cluster.node_folder(2));
    let mut bytes = fs::read(&damaged).expect("the log");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&damaged, &bytes).expect("written");
    let lines = cluster.node_with(2, &cluster.config_path(), &cluster.node_folder(2)).refusal();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let name = damaged.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(lines[0].contains(&name), "{lines:?}");
    // The bytes as they were: it comes back.
    bytes[middle] ^= 0x10;
    fs::write(&damaged, &bytes).expect("written");
    cluster.start_node(2);
    cluster.wait_until_equal();
    assert_filled(&cluster);
}

#[test]
fn a_planned_stop_keeps_the_newest_map() {
    let mut cluster = Cluster::start(Options { nodes: 1, replicas: 1, ..Options::default() });
    let mut client = cluster.node_client(0);
    // The first ones are kept on the way, the last one comes before another may be.
    for timeout in 1001..=1004 {
        assert_eq!(client.call(&format!("CONFIG SET timeout {timeout}")), "+OK\r\n");
    }
    cluster.stop_all();
    let kept = fs::read_to_string(cluster.node_folder(0).join("cluster.json")).expect("a map is kept");
    assert!(kept.contains("1004"), "{kept}");
}
