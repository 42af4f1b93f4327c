//! Errors of the disk while nodes run: each has a clear message, and loses nothing.

use crate::cluster::{Cluster, Options, START, assert_clean};
use crate::failpoints::{
    Load, arm, arm_running, control, disarm, finish, prepare, restart, wait_for_snapshots,
};
use crate::wait::eventually;
use ringfort::failpoint::Point;
use ringfort_loadgen::check;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

/// Longest until an error has its effect under load.
const EFFECT: Duration = Duration::from_secs(30);

/// An error at a step, and what the node says when it stops for it.
const FATAL: &[(Point, &str, &str)] = &[
    (Point::LogAppend, "eio", "cannot write log-"),
    (Point::LogAppendTorn, "eio", "cannot write log-"),
    (Point::LogAppended, "eio", "cannot write log-"),
    (Point::LogSync, "eio", "cannot sync log-"),
    (Point::LogSyncFolder, "eio", "cannot sync the folder of the log"),
    (Point::LogSegmentCreate, "eacces", "cannot create log-"),
    (Point::LogSegmentRemove, "eacces", "cannot remove log-"),
    (Point::LogRewrite, "eio", "cannot write the log"),
    (Point::SnapshotWriteTorn, "eio", "cannot write snap-"),
    (Point::SnapshotCreate, "eacces", "cannot create snap-"),
];

/// An error at a step that a node goes on after, and what it says.
const HARMLESS: &[(Point, &str, &str)] = &[
    (Point::LogAppend, "enospc", "the disk is full: writes are refused until there is room"),
    (Point::LogAppendTorn, "enospc", "the disk is full: writes are refused until there is room"),
    (Point::LogSegmentCreate, "enospc", "the disk is full: writes are refused until there is room"),
    (Point::LogSegmentTorn, "enospc", "the disk is full: writes are refused until there is room"),
    (Point::LogRewrite, "enospc", "no room"),
    (Point::LogRead, "eio", "its segment is kept until a snapshot has taken its place"),
    (Point::SnapshotCreate, "enospc", "no room for a snapshot"),
    (Point::SnapshotWriteTorn, "enospc", "no room for a snapshot"),
    (Point::SnapshotSync, "eio", "a snapshot could not be made durable"),
    (Point::SnapshotRename, "eacces", "a snapshot could not be made durable"),
];

#[test]
fn an_error_of_the_disk_stops_the_node_and_loses_nothing() {
    let mut cluster = prepare(Options { durability: "fsync", ..Options::default() });
    cluster.start_all();
    let load = Load::start(&cluster);
    for (i, (point, action, said)) in FATAL.iter().enumerate() {
        let n = i % 3;
        arm(&cluster, n, *point, action);
        let status = cluster.node(n).exit_status(EFFECT);
        let output = cluster.node(n).output();
        assert_eq!(status.code(), Some(1), "{} {action}: {status}\n{output}", point.name());
        assert!(output.contains(said), "{} {action}: not '{said}', but\n{output}", point.name());
        disarm(&cluster, n);
        restart(&mut cluster, n);
    }
    finish(cluster, load);
}

#[test]
fn what_a_node_can_go_on_after_it_goes_on_after() {
    let mut cluster = prepare(Options::default());
    cluster.start_all();
    let load = Load::start(&cluster);
    for (i, (point, action, said)) in HARMLESS.iter().enumerate() {
        let n = i % 3;
        let before = cluster.node(n).output().matches(said).count();
        arm(&cluster, n, *point, action);
        eventually(&format!("{} {action}", point.name()), EFFECT, || {
            assert!(cluster.node(n).is_running(), "{}:\n{}", point.name(), cluster.node(n).output());
            match cluster.node(n).output().matches(said).count() {
                count if before < count => Ok(()),
                _ => Err(format!("it did not say '{said}'")),
            }
        });
        if said.contains("disk is full") {
            // The others have taken over, and writes go on.
            cluster.wait_until_its_disk_has_it_lead_nothing(n, "full");
            for key in 0..50 {
                assert_eq!(cluster.client().call(&format!("SET full:{key} v")), "+OK\r\n");
            }
        }
        disarm(&cluster, n);
        cluster.wait_until_joined(n);
    }
    finish(cluster, load);
}

#[test]
fn a_follower_gets_a_snapshot_when_the_entries_that_it_needs_cannot_be_read() {
    // Without small limits: everything stays in the logs.
    let mut cluster = Cluster::prepare(Options { failpoints: true, ..Options::default() });
    (0..3).for_each(|n| control(&cluster, n, ""));
    cluster.start_all();
    cluster.kill(2);
    let options = check::Options { clients: 6, ..cluster.check_options(Duration::from_secs(2)) };
    assert_clean(&check::run(&options).expect("the check can run"));
    // These have the entries on disk only, from now on.
    for n in 0..2 {
        cluster.kill(n);
        restart(&mut cluster, n);
    }
    for n in 0..2 {
        eventually("all is applied", START, || cluster.keys_on(n));
        control(&cluster, n, "log.read=eio\n");
    }
    cluster.start_node(2);
    eventually("a read that fails", EFFECT, || {
        let said = "entries that a follower needs cannot be read back from the log: it gets a snapshot";
        let has_said = (0..2).any(|n| cluster.node(n).output().contains(said));
        if has_said { Ok(()) } else { Err("nothing was said".to_owned()) }
    });
    cluster.wait_until_whole();
    cluster.wait_until_equal();
    cluster.wait_until_digests_are_equal();
}

#[test]
fn a_node_that_cannot_read_what_it_must_apply_gets_a_snapshot() {
    // Without small limits: everything stays in the logs.
    let mut cluster = Cluster::prepare(Options { failpoints: true, ..Options::default() });
    (0..3).for_each(|n| control(&cluster, n, ""));
    cluster.start_all();
    let options = check::Options { clients: 6, ..cluster.check_options(Duration::from_secs(2)) };
    assert_clean(&check::run(&options).expect("the check can run"));
    cluster.kill(2);
    control(&cluster, 2, "log.read=eio\n");
    cluster.start_node(2);
    eventually("a read that fails", EFFECT, || {
        let said = "committed entries cannot be read back from the log: this replica applies nothing more";
        if cluster.node(2).output().contains(said) { Ok(()) } else { Err("nothing was said".to_owned()) }
    });
    cluster.wait_until_whole();
    cluster.wait_until_equal();
    cluster.wait_until_digests_are_equal();
    assert!(cluster.node(2).is_running());
}

fn snapshots(cluster: &Cluster, n: usize) -> Vec<PathBuf> {
    let folder = cluster.node_folder(n).join("logs-1/worker-0");
    let entries = fs::read_dir(folder).expect("the folder is there").flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "snap")).collect()
}

/// Flips a bit of the file, if it is still there: a node that runs may have made another one in its place.
fn flip_a_byte_in_the_middle(path: &std::path::Path) {
    let file = match fs::File::options().read(true).write(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        file => file.expect("a file"),
    };
    let middle = file.metadata().expect("its length").len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x10], middle).expect("written");
}

/// The checksum of snapshots, on real processes.
#[test]
fn a_snapshot_with_a_flipped_byte_is_refused_and_the_node_seeded_anew() {
    let mut cluster = prepare(Options::default());
    cluster.start_all();
    let load = Load::start(&cluster);
    wait_for_snapshots(&cluster, 2);
    cluster.kill(2);
    let damaged = snapshots(&cluster, 2).pop().expect("a snapshot");
    flip_a_byte_in_the_middle(&damaged);
    let lines = cluster.node_with(2, &cluster.config_path(), &cluster.node_folder(2)).refusal();
    let name = damaged.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(lines.len() == 1 && lines[0].contains(&name) && lines[0].contains("damaged"), "{lines:?}");
    fs::remove_dir_all(cluster.node_folder(2)).expect("the folder is removed");
    cluster.start_node(2);
    cluster.wait_until_whole();
    finish(cluster, load);
}

/// A leader whose snapshots have decayed on its disk must not leave a follower behind for good.
#[test]
fn a_decayed_snapshot_is_not_sent_but_made_anew() {
    let mut cluster = prepare(Options::default());
    cluster.start_all();
    cluster.wait_until_whole();
    cluster.kill(2);
    let options = check::Options { clients: 6, ..cluster.check_options(Duration::from_secs(3)) };
    assert_clean(&check::run(&options).expect("the check can run"));
    (0..2).for_each(|n| wait_for_snapshots(&cluster, n));
    for path in (0..2).flat_map(|n| snapshots(&cluster, n)) {
        flip_a_byte_in_the_middle(&path);
    }
    cluster.start_node(2);
    eventually("a decayed snapshot that is noticed", START, || {
        let said =
            |n: usize| cluster.node(n).output().contains("a snapshot on disk is of no use: it is made anew");
        let has_said = (0..2).any(said);
        if has_said { Ok(()) } else { Err("nothing was said".to_owned()) }
    });
    cluster.wait_until_joined(2);
    cluster.wait_until_equal();
    cluster.wait_until_digests_are_equal();
}

/// Errors at the steps of a first start, in the order in which they come, and what the node says.
const AT_FIRST_START: &[(Point, &str, &str)] = &[
    (Point::FolderMade, "eacces", "cannot write to the data folder"),
    (Point::NodeFileTorn, "enospc", "node.json: No space left on device"),
    (Point::NodeFileRename, "eacces", "node.json: Permission denied"),
    (Point::NodeFileRenamed, "eio", "node.json: Input/output error"),
    (Point::FolderWorkers, "eio", "cannot sync the data folder"),
    (Point::MapFileTorn, "enospc", "cluster.json: No space left on device"),
    (Point::MapFileRename, "eacces", "cluster.json: Permission denied"),
    (Point::MapFileRenamed, "eio", "cluster.json: Input/output error"),
    (Point::BootFileTorn, "enospc", "boot: No space left on device"),
];

/// The same of later starts.
const AT_START: &[(Point, &str, &str)] = &[
    (Point::BootFileTorn, "enospc", "boot: No space left on device"),
    (Point::BootFileRename, "eacces", "boot: Permission denied"),
    (Point::BootFileRenamed, "eio", "boot: Input/output error"),
];

/// Starts node `n`, which must end with one line that says what was wrong.
#[track_caller]
fn start_and_fail_at(cluster: &mut Cluster, n: usize, (point, action, said): (Point, &str, &str)) {
    arm(cluster, n, point, action);
    cluster.start_node(n);
    let status = cluster.node(n).exit_status(START);
    let output = cluster.node(n).output();
    let errors: Vec<_> = output.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(status.code(), Some(1), "{} {action}: {status}\n{output}", point.name());
    assert!(errors.len() == 1 && errors[0].contains(said), "{} {action}: {errors:?}", point.name());
    disarm(cluster, n);
}

#[test]
fn an_error_at_a_file_of_the_folder_is_one_clear_line_and_the_next_start_works() {
    let mut cluster = prepare(Options::default());
    cluster.start_node(1);
    cluster.start_node(2);
    for failure in AT_FIRST_START {
        start_and_fail_at(&mut cluster, 0, *failure);
    }
    cluster.start_node(0);
    cluster.start_all();
    let load = Load::start(&cluster);
    for (i, failure) in AT_START.iter().enumerate() {
        cluster.kill(i);
        start_and_fail_at(&mut cluster, i, *failure);
        restart(&mut cluster, i);
    }
    // A planned stop that cannot be noted is an unplanned one.
    arm_running(&cluster, 1, Point::BootFileTorn, "enospc");
    cluster.node(1).signal(rustix::process::Signal::TERM);
    let status = cluster.node(1).exit_status(START);
    assert_eq!(status.code(), Some(1), "{}", cluster.node(1).output());
    disarm(&cluster, 1);
    restart(&mut cluster, 1);
    finish(cluster, load);
}

#[test]
fn a_map_that_cannot_be_kept_is_kept_as_soon_as_it_can() {
    let mut cluster = prepare(Options::default());
    cluster.start_all();
    arm(&cluster, 1, Point::MapFileTorn, "enospc");
    // Again and again: the first ones may come before the node has heard that its disk is to fail.
    let mut timeout = 1000;
    eventually("a warning", START, || {
        timeout += 1;
        assert_eq!(cluster.client().call(&format!("CONFIG SET timeout {timeout}")), "+OK\r\n");
        match cluster.node(1).output().contains("cluster.json: No space left on device") {
            true => Ok(()),
            false => Err("nothing was said".to_owned()),
        }
    });
    disarm(&cluster, 1);
    eventually("the map on disk", START, || {
        let path = cluster.node_folder(1).join("cluster.json");
        let map = fs::read_to_string(path).map_err(|error| error.to_string())?;
        if map.contains(&timeout.to_string()) { Ok(()) } else { Err(map) }
    });
    cluster.kill(1);
    restart(&mut cluster, 1);
}
