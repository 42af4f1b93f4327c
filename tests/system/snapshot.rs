//! Compaction: a node that was away for longer than the log reaches back catches up by a snapshot.

use crate::client::encode;
use crate::cluster::{Cluster, Options};
use crate::wait::eventually;
use std::fs;
use std::path::Path;
use std::time::Duration;

const VALUE_BYTES: usize = 64 << 10;
/// More than the 64 MiB at which a partition's log is compacted, twice over.
const WRITES: usize = 2400;
/// Different keys: the data stay far below the log.
const KEYS: usize = 100;

fn value(i: usize) -> Vec<u8> {
    let mut value = format!("{i}:").into_bytes();
    value.resize(VALUE_BYTES, b'.');
    value
}

fn has_snapshot(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| {
        let path = entry.path();
        path.extension().is_some_and(|e| e == "snap") || (path.is_dir() && has_snapshot(&path))
    })
}

#[track_caller]
fn assert_all_there(cluster: &Cluster) {
    let mut client = cluster.client();
    for key in 0..KEYS {
        let last = WRITES - KEYS + key;
        client.send(&encode(&[b"GET", format!("{{t}}{key}").as_bytes()])).expect("sent");
        let expected = [format!("${VALUE_BYTES}\r\n").as_bytes(), &value(last), b"\r\n"].concat();
        assert!(client.try_reply().expect("a reply") == expected, "key {key} is not of write {last}");
    }
    assert_eq!(client.call("GET early"), "$1\r\nv\r\n");
}

#[test]
fn a_node_catches_up_by_snapshot() {
    let mut cluster = Cluster::start(Options::default());
    let mut client = cluster.client();
    assert_eq!(client.call("SET early v"), "+OK\r\n");
    let away = (cluster.leader_of("{t}") + 1) % 3;
    cluster.kill(away);
    const BATCH: usize = 16;
    for batch in 0..WRITES / BATCH {
        for i in batch * BATCH..(batch + 1) * BATCH {
            let key = format!("{{t}}{}", i % KEYS);
            client.send(&encode(&[b"SET", key.as_bytes(), &value(i)])).expect("sent");
        }
        (0..BATCH).for_each(|_| assert_eq!(client.reply(), "+OK\r\n"));
    }
    assert!(!has_snapshot(&cluster.node_folder(away)));
    // Whoever of the two leads now, or will.
    for n in (0..3).filter(|n| *n != away) {
        eventually("compaction", Duration::from_secs(20), || {
            if has_snapshot(&cluster.node_folder(n)) { Ok(()) } else { Err(format!("none on n{}", n + 1)) }
        });
    }
    // The log is cut a moment after its snapshot has its name.
    for i in 0..100 {
        assert_eq!(client.call(&format!("SET {{t}}more {i}")), "+OK\r\n");
    }
    cluster.start_node(away);
    cluster.wait_until_equal();
    assert!(has_snapshot(&cluster.node_folder(away)), "it caught up without a snapshot");
    assert_all_there(&cluster);
    cluster.kill_all();
    cluster.start_all();
    cluster.wait_until_equal();
    assert_all_there(&cluster);
    // What the node that was away holds is good for a quorum.
    let other = (away + 1) % 3;
    cluster.kill(other);
    cluster.wait_until_serving();
    assert_all_there(&cluster);
}
