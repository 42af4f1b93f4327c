//! A node dies, or its disk fails, at every step of its work with disk and network, one after the other, under load.
//!
//! The steps are those of [`ringfort::failpoint`]. Each test has a small cluster, some of the points and a checking load;
//! one node at a time comes to a point, dies there, and starts again. The nodes take turns, so that what a node recovered
//! is soon needed for a quorum. At the end nothing is lost, stale or duplicated, and all replicas are equal.

use crate::client::Client;
use crate::cluster::{Cluster, Options, START, assert_clean};
use crate::wait::eventually;
use ringfort::failpoint::Point;
use ringfort_loadgen::check;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest until a node comes to a point under load.
const HIT: Duration = Duration::from_secs(30);
/// Duration of one check; they follow each other for as long as a test has points.
const CHECK: Duration = Duration::from_secs(6);
/// Constants that are made so small that segments change, groups are compacted and old segments are rewritten all the time.
const LIMITS: &str = "limit.segment_bytes=131072\nlimit.compact_bytes_min=32768\n";

/// Points that a running node comes to by itself, under load.
const UNDER_LOAD: &[Point] = &[
    Point::LogSegmentCreate,
    Point::LogSegmentTorn,
    Point::LogSegmentWritten,
    Point::LogAppend,
    Point::LogAppendTorn,
    Point::LogAppended,
    Point::LogSync,
    Point::LogSyncFolder,
    Point::LogSynced,
    Point::LogSegmentRemove,
    Point::LogSegmentRemoved,
    Point::LogRewrite,
    Point::LogRewritten,
    Point::LogHardState,
    Point::SnapshotCreate,
    Point::SnapshotWriteTorn,
    Point::SnapshotSync,
    Point::SnapshotRename,
    Point::SnapshotRenamed,
    Point::SnapshotDurable,
    Point::SnapshotRemove,
    Point::SnapshotMark,
    Point::PeerAccept,
    Point::PeerSendTorn,
    Point::PeerReceive,
    Point::PeerReceived,
    Point::LinkReceive,
    Point::LinkReplyTorn,
    Point::ClientAccept,
    Point::ClientReceive,
    Point::ClientReplyTorn,
];

/// Points that a node comes to when it starts on its own data. Before `LogCut*` it died in the middle of a write.
const AT_START: &[Point] = &[
    Point::LogCut,
    Point::LogCutDone,
    Point::LogTail,
    Point::LogRecovered,
    Point::LogRead,
    Point::BootFileTorn,
    Point::BootFileRename,
    Point::BootFileRenamed,
    Point::PeerConnected,
];

/// Points of a planned stop.
const AT_STOP: &[Point] = &[Point::StopLeft, Point::StopSync, Point::StopNote];

/// Points of a start with another number of workers, in the order in which they come.
const AT_REHOME: &[Point] = &[
    Point::RehomeBegin,
    Point::RehomeCopied,
    Point::RehomeSynced,
    Point::NodeFileTorn,
    Point::NodeFileRename,
    Point::RehomeSwitched,
    Point::RehomeRemove,
];

/// Points of a node whose data folder was lost, in the order in which they come.
const WHEN_SEEDED: &[Point] = &[
    Point::FolderMade,
    Point::NodeFileRenamed,
    Point::FolderWorkers,
    Point::ClusterJoined,
    Point::MapFileTorn,
    Point::MapFileRename,
    Point::MapFileRenamed,
    Point::LogBegin,
    Point::LogBegun,
    Point::SnapshotReceive,
    Point::SnapshotReceived,
    Point::SnapshotAcknowledge,
    Point::SnapshotInstall,
    Point::SnapshotInstalled,
];

/// Points of a node that seeds another one.
const WHEN_SEEDING: &[Point] = &[Point::SnapshotSend, Point::SnapshotSent];

/// Points of the node that forms a new cluster, in the order in which they come.
const WHEN_FORMED: &[Point] = &[Point::ClusterFormed, Point::NodeMapKept, Point::NodeStarted];

#[test]
fn every_point_is_in_one_list() {
    let lists = [UNDER_LOAD, AT_START, AT_STOP, AT_REHOME, WHEN_SEEDED, WHEN_SEEDING, WHEN_FORMED];
    let mut points = lists.concat();
    points.sort_unstable();
    assert_eq!(points, Point::ALL, "left: the lists here; right: the table in src/failpoint.rs");
}

/// Checks that follow each other until they are told to end.
pub(crate) struct Load {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<check::Report>>,
}

impl Load {
    pub(crate) fn start(cluster: &Cluster) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let options = check::Options { clients: 6, keys: 256, ..cluster.check_options(CHECK) };
        let thread = std::thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || {
                let mut reports = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    reports.push(check::run(&options).expect("the check can run"));
                }
                reports
            }
        });
        Self { is_over, thread }
    }

    #[track_caller]
    fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the checks end").iter().for_each(assert_clean);
    }
}

/// A cluster whose nodes have failpoints and small limits; nothing is started.
pub(crate) fn prepare(options: Options) -> Cluster {
    let cluster = Cluster::prepare(Options { failpoints: true, partitions: 16, ..options });
    (0..cluster.options.nodes).for_each(|n| disarm(&cluster, n));
    cluster
}

pub(crate) fn arm(cluster: &Cluster, n: usize, point: Point, action: &str) {
    control(cluster, n, &format!("{LIMITS}{}={action}\n", point.name()));
}

/// As [`arm`], and waits until the running node has heard of it.
pub(crate) fn arm_running(cluster: &Cluster, n: usize, point: Point, action: &str) {
    arm(cluster, n, point, action);
    let wish = fs::read_to_string(cluster.control_path(n)).expect("it was just written");
    let mut heard = cluster.control_path(n).into_os_string();
    heard.push(".heard");
    eventually("the node hears of its fault", HIT, || match fs::read_to_string(&heard) {
        Ok(heard) if heard == wish => Ok(()),
        heard => Err(format!("{heard:?}")),
    });
}

pub(crate) fn disarm(cluster: &Cluster, n: usize) {
    control(cluster, n, LIMITS);
}

pub(crate) fn control(cluster: &Cluster, n: usize, lines: &str) {
    let path = cluster.control_path(n);
    let temporary = path.with_extension("new");
    fs::write(&temporary, lines).expect("the control file is written");
    fs::rename(&temporary, &path).expect("the control file is replaced");
}

/// How often node `n` has failed at a point.
fn failures(cluster: &Cluster, n: usize, point: Point) -> usize {
    let mut path = cluster.control_path(n).into_os_string();
    path.push(".hits");
    let line = format!("{}!", point.name());
    fs::read_to_string(path).unwrap_or_default().lines().filter(|hit| *hit == line).count()
}

/// Asks something of node `n`'s own port.
fn poke(cluster: &Cluster, n: usize) {
    let _ = Client::try_connect(cluster.addresses[n].client).and_then(|mut c| c.try_call("DBSIZE"));
}

/// Waits until node `n` has died at the point that it is armed with, and takes the point away.
#[track_caller]
fn await_crash(cluster: &mut Cluster, n: usize, point: Point, before: usize) {
    eventually(&format!("a crash of n{} at {}", n + 1, point.name()), HIT, || {
        if !cluster.node(n).is_running() {
            return Ok(());
        }
        poke(cluster, n);
        Err("it runs".to_owned())
    });
    let status = cluster.node(n).exit_status(START);
    assert_eq!(status.signal(), Some(9), "{}: {status}\n{}", point.name(), cluster.node(n).output());
    assert_eq!(failures(cluster, n, point), before + 1, "it died elsewhere than at {}", point.name());
    disarm(cluster, n);
}

/// Has the running node `n` die at a point.
#[track_caller]
fn crash_at(cluster: &mut Cluster, n: usize, point: Point) {
    let before = failures(cluster, n, point);
    arm(cluster, n, point, "crash");
    await_crash(cluster, n, point, before);
}

/// Starts node `n`, which does not run, and has it die at a point.
#[track_caller]
fn start_and_crash_at(cluster: &mut Cluster, n: usize, point: Point) {
    let before = failures(cluster, n, point);
    arm(cluster, n, point, "crash");
    cluster.start_node(n);
    await_crash(cluster, n, point, before);
}

#[track_caller]
pub(crate) fn restart(cluster: &mut Cluster, n: usize) {
    cluster.start_node(n);
    cluster.wait_until_joined(n);
}

#[track_caller]
pub(crate) fn finish(mut cluster: Cluster, load: Load) {
    load.end();
    cluster.wait_until_whole();
    cluster.wait_until_equal();
    cluster.wait_until_digests_are_equal();
    // And everything that is on the disks says the same.
    cluster.kill_all();
    cluster.start_all();
    cluster.wait_until_equal();
    cluster.wait_until_digests_are_equal();
}

/// Waits until node `n` has a snapshot of every partition: else a log reaches back to its begin, and none is needed.
#[track_caller]
pub(crate) fn wait_for_snapshots(cluster: &Cluster, n: usize) {
    eventually("a snapshot of every partition", Duration::from_secs(60), || {
        let folder = cluster.node_folder(n).join("logs-1/worker-0");
        let names = fs::read_dir(folder).map_err(|error| error.to_string())?.flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let groups: BTreeSet<String> = names
            .filter(|name| name.ends_with(".snap"))
            .filter_map(|name| name.split('-').nth(1).map(str::to_owned))
            .collect();
        if groups.len() < 16 { Err(format!("of groups {groups:?}")) } else { Ok(()) }
    });
}

#[track_caller]
fn crash_under_load(points: &[Point]) {
    let mut cluster = prepare(Options::default());
    cluster.start_all();
    let load = Load::start(&cluster);
    for (i, point) in points.iter().enumerate() {
        crash_at(&mut cluster, i % 3, *point);
        restart(&mut cluster, i % 3);
    }
    finish(cluster, load);
}

#[test]
fn a_crash_at_any_step_of_the_log_loses_nothing() {
    crash_under_load(&UNDER_LOAD[..14]);
}

#[test]
fn a_crash_at_any_step_of_a_snapshot_or_link_loses_nothing() {
    crash_under_load(&UNDER_LOAD[14..]);
}

#[test]
fn a_crash_at_any_step_of_a_start_or_stop_loses_nothing() {
    let mut cluster = prepare(Options::default());
    cluster.start_all();
    let load = Load::start(&cluster);
    for (i, point) in AT_START.iter().enumerate() {
        let n = i % 3;
        match point {
            Point::LogCut | Point::LogCutDone => crash_at(&mut cluster, n, Point::LogAppendTorn),
            _ => cluster.kill(n),
        }
        start_and_crash_at(&mut cluster, n, *point);
        restart(&mut cluster, n);
    }
    for (n, point) in AT_STOP.iter().enumerate() {
        let before = failures(&cluster, n, *point);
        arm(&cluster, n, *point, "crash");
        cluster.node(n).signal(rustix::process::Signal::TERM);
        await_crash(&mut cluster, n, *point, before);
        restart(&mut cluster, n);
    }
    cluster.node(1).stop();
    cluster.options.workers = 2;
    for point in AT_REHOME {
        start_and_crash_at(&mut cluster, 1, *point);
    }
    restart(&mut cluster, 1);
    assert_eq!(cluster.node_json(1).expect("it answers")["workers"], 2);
    cluster.options.workers = 1;
    // What was moved is needed for a quorum.
    cluster.kill(0);
    restart(&mut cluster, 0);
    cluster.node(1).stop();
    restart(&mut cluster, 1);
    finish(cluster, load);
}

#[test]
fn a_crash_at_any_step_of_seeding_loses_nothing() {
    let mut cluster = prepare(Options::default());
    cluster.start_all();
    let load = Load::start(&cluster);
    wait_for_snapshots(&cluster, 0);
    cluster.kill(2);
    fs::remove_dir_all(cluster.node_folder(2)).expect("the folder is removed");
    for point in WHEN_SEEDED {
        start_and_crash_at(&mut cluster, 2, *point);
    }
    cluster.start_node(2);
    cluster.wait_until_whole();
    for point in WHEN_SEEDING {
        cluster.kill(2);
        fs::remove_dir_all(cluster.node_folder(2)).expect("the folder is removed");
        let before = failures(&cluster, 0, *point);
        arm(&cluster, 0, *point, "crash");
        cluster.start_node(2);
        await_crash(&mut cluster, 0, *point, before);
        restart(&mut cluster, 0);
        cluster.wait_until_whole();
    }
    finish(cluster, load);
}

#[test]
fn a_crash_at_any_step_of_the_first_start_leaves_a_node_that_starts() {
    let mut cluster = prepare(Options::default());
    cluster.start_node(1);
    cluster.start_node(2);
    for point in WHEN_FORMED {
        start_and_crash_at(&mut cluster, 0, *point);
    }
    cluster.start_node(0);
    cluster.start_all();
    let load = Load::start(&cluster);
    finish(cluster, load);
}
