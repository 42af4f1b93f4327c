//! Failpoints: named steps of the work with disk and network at which a test makes a running node die, or its disk fail.
//!
//! They exist in debug builds only (`cfg(debug_assertions)`), which is what tests run; in a release build each of these
//! functions is empty and the names are not in the binary. They do nothing unless the environment names a control file
//! ([`CONTROL`]), whose lines a node reads at its start and then, every few milliseconds, when they change:
//!
//! | line | effect |
//! | --- | --- |
//! | `NAME=crash` | SIGKILL for the own process when it comes to the step |
//! | `NAME=eio`, `NAME=enospc`, `NAME=eacces` | the step fails with that error, as often as it is come to |
//! | `limit.NAME=N` | another value of a constant ([`limit`]); read at the start only |
//! | `limit.journal=1` | all that changes the data folder is noted in `FILE.journal` ([`note`]) |
//!
//! Beside the control file, `FILE.heard` is what a running process has taken of it last, so that a test can wait for it;
//! `FILE.hits` gets a line `NAME` when a step is first come to in a process, and `NAME!` when it
//! first has an effect. From the journal a test builds the folder as a loss of power at any moment may leave it. Its lines
//! are `MICROSECONDS OPERATION ARGUMENTS`, the time being that of CLOCK_BOOTTIME: `create PATH`, `write PATH OFFSET HEX`,
//! `cut PATH BYTES`, `rename FROM TO` and `remove PATH` are noted when they are done; `sync PATH NUMBER` and
//! `sync-folder PATH NUMBER` before, `synced PATH NUMBER` and `synced-folder PATH NUMBER` after. So the journal never takes
//! for durable what is not.
//!
//! Why not the crate `fail`: it has no action that ends a process as a crash does (a panic ends one thread, and unwinds),
//! keeps no list of its points that a test could go through, and configures by environment at the start only.

/// What a node's environment names its control file by.
#[cfg(debug_assertions)]
pub const CONTROL: &str = "RINGFORT_FAILPOINTS";

macro_rules! points {
    ($($point:ident $name:literal $what:literal,)*) => {
        /// A step at which a node may be made to fail.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Point {
            $(#[doc = $what] $point,)*
        }

        #[cfg(debug_assertions)]
        impl Point {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$point,)*];

            /// Its name in control files.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)*
                }
            }
        }
    };
}

points! {
    // The log: src/log/mod.rs, recover.rs, sync.rs, rewrite.rs.
    LogSegmentCreate "log.segment.create" "A new segment is about to be created.",
    LogSegmentTorn "log.segment.torn" "Half of a new segment's header and first write is in its file.",
    LogSegmentWritten "log.segment.written" "A new segment and its first write are in the page cache.",
    LogAppend "log.append" "A write is about to be appended.",
    LogAppendTorn "log.append.torn" "Half of a write is in the file.",
    LogAppended "log.appended" "A write is in the page cache, and nothing was acknowledged yet.",
    LogRead "log.read" "Entries that are not in memory any more are about to be read.",
    LogSync "log.sync" "Written segments are about to be synced.",
    LogSyncFolder "log.sync.folder" "Data are synced, and the names of new segments are about to be.",
    LogSynced "log.synced" "Everything is synced, and nobody knows yet.",
    LogSegmentRemove "log.segment.remove" "A dead segment is about to be removed.",
    LogSegmentRemoved "log.segment.removed" "A dead segment is removed, and the folder not synced yet.",
    LogRewrite "log.rewrite" "Copies of live records are about to be written, out of an old segment.",
    LogRewritten "log.rewritten" "Copies of live records are written, and the old segment is still there.",
    LogBegin "log.begin" "The first segment of a log is created and empty.",
    LogBegun "log.begun" "The header of a log's first segment is written and not synced.",
    LogCut "log.cut" "Recovery is about to cut a torn tail.",
    LogCutDone "log.cut.done" "Recovery has cut a torn tail and not synced.",
    LogTail "log.tail" "Recovery is about to write once more what was perhaps never synced.",
    LogRecovered "log.recovered" "Recovery has synced what it found.",
    LogHardState "log.hard-state" "A term, vote or commit index is about to be staged.",
    // Snapshots: src/log/snapshot.rs, src/worker/core.
    SnapshotCreate "snapshot.create" "The temporary file of a snapshot is about to be created.",
    SnapshotWriteTorn "snapshot.write.torn" "Half of a piece of a snapshot is in its file.",
    SnapshotSync "snapshot.sync" "A snapshot is about to be synced.",
    SnapshotRename "snapshot.rename" "A synced snapshot is about to get its name.",
    SnapshotRenamed "snapshot.renamed" "A snapshot has its name, and the folder is not synced.",
    SnapshotDurable "snapshot.durable" "A snapshot is durable, and nobody knows yet.",
    SnapshotRemove "snapshot.remove" "A snapshot that is not wanted any more is about to be removed.",
    SnapshotMark "snapshot.mark" "A snapshot is the current one, and the log's mark is about to be staged.",
    SnapshotReceive "snapshot.receive" "A snapshot is announced by a leader.",
    SnapshotReceived "snapshot.received" "All bytes of a snapshot have come.",
    SnapshotAcknowledge "snapshot.acknowledge" "A received snapshot is durable, and its sender does not know yet.",
    SnapshotInstall "snapshot.install" "Raft has accepted a snapshot.",
    SnapshotInstalled "snapshot.installed" "A snapshot is in memory, and the log's mark is staged.",
    SnapshotSend "snapshot.send" "A leader is about to send a piece of a snapshot.",
    SnapshotSent "snapshot.sent" "A leader has sent all of a snapshot and waits for the acknowledgement.",
    // The data folder: src/node/folder.rs.
    FolderMade "folder.made" "The data folder is there, and the store id is about to be written.",
    FolderWorkers "folder.workers" "The folders of the workers are there, and not synced.",
    NodeFileTorn "node.json.torn" "Half of node.json's successor is in its temporary file.",
    NodeFileRename "node.json.rename" "The successor of node.json is about to take its place.",
    NodeFileRenamed "node.json.renamed" "The successor of node.json has taken its place; the folder is not synced.",
    MapFileTorn "cluster.json.torn" "Half of cluster.json's successor is in its temporary file.",
    MapFileRename "cluster.json.rename" "The successor of cluster.json is about to take its place.",
    MapFileRenamed "cluster.json.renamed" "The successor of cluster.json has taken its place; the folder is not synced.",
    BootFileTorn "boot.torn" "Half of the successor of the file boot is in its temporary file.",
    BootFileRename "boot.rename" "The successor of the file boot is about to take its place.",
    BootFileRenamed "boot.renamed" "The successor of the file boot has taken its place; the folder is not synced.",
    RehomeBegin "rehome.begin" "The folders for another number of workers are made.",
    RehomeCopied "rehome.copied" "One group is copied for another number of workers.",
    RehomeSynced "rehome.synced" "All is copied for another number of workers, and the old logs still count.",
    RehomeSwitched "rehome.switched" "The logs for another number of workers count, and the old ones are still there.",
    RehomeRemove "rehome.remove" "An old generation of logs is about to be removed.",
    // The life of a node: src/node/mod.rs, control.rs.
    ClusterFormed "cluster.formed" "The node has formed the cluster, and its map is not on disk.",
    ClusterJoined "cluster.joined" "The node knows the map of the cluster that it joins, and has not kept it.",
    NodeMapKept "node.map-kept" "The map is on disk, and no replica has begun.",
    NodeStarted "node.started" "All replicas have begun, and the files node.json and boot do not say so.",
    StopLeft "stop.left" "A planned stop has handed all leaderships over.",
    StopSync "stop.sync" "A planned stop is about to sync the log for the last time.",
    StopNote "stop.note" "A planned stop is about to be noted.",
    // Links: src/node, src/worker/shell.rs.
    PeerAccept "peer.accept" "A link to the peer port was accepted.",
    PeerConnected "peer.connected" "A link to a peer was greeted.",
    PeerSendTorn "peer.send.torn" "Half of a peer's frames have left.",
    PeerReceive "peer.receive" "Bytes of a peer have come.",
    PeerReceived "peer.received" "Frames of a peer are taken in, and nothing is persisted.",
    LinkReceive "link.receive" "Bytes of a proxy have come.",
    LinkReplyTorn "link.reply.torn" "Half of the replies to a proxy have left.",
    ClientAccept "client.accept" "A client of the node's own port was accepted.",
    ClientReceive "client.receive" "Bytes of a client have come.",
    ClientReplyTorn "client.reply.torn" "Half of the replies to a client have left.",
}

#[cfg(debug_assertions)]
pub use armed::{hit, limit, note, note_sync, note_write, torn, watch};

/// Steps in a build without failpoints: nothing ever fails.
#[cfg(not(debug_assertions))]
mod none {
    use super::Point;
    use std::io;

    /// Comes to a step.
    ///
    /// # Errors
    /// None in this build.
    #[inline(always)]
    pub fn hit(_point: Point) -> io::Result<()> {
        Ok(())
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// Those of `write`.
    #[inline(always)]
    pub fn torn<T>(_point: Point, bytes: &[u8], write: impl FnOnce(&[u8]) -> io::Result<T>) -> io::Result<T> {
        write(bytes)
    }

    /// Returns the default.
    #[inline(always)]
    pub fn limit(_name: &str, default: u64) -> u64 {
        default
    }

    /// Notes nothing.
    #[inline(always)]
    pub fn note(_line: impl FnOnce() -> String) {}

    /// Notes nothing.
    #[inline(always)]
    pub fn note_write(_path: &std::path::Path, _offset: u64, _bytes: &[u8]) {}

    /// Syncs, and notes nothing.
    ///
    /// # Errors
    /// Those of `sync`.
    #[inline(always)]
    pub fn note_sync(
        _what: &str,
        _path: &std::path::Path,
        sync: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        sync()
    }

    /// Does nothing.
    ///
    /// # Errors
    /// None in this build.
    #[inline(always)]
    pub fn watch() -> io::Result<()> {
        Ok(())
    }
}

#[cfg(not(debug_assertions))]
pub use none::{hit, limit, note, note_sync, note_write, torn, watch};

/// Comes to a step that cannot fail, at which the process may only be made to die.
#[inline]
pub fn pass(point: Point) {
    let _ = hit(point);
}

#[cfg(debug_assertions)]
mod armed {
    use super::{CONTROL, Point};
    use crate::clock::{Clock as _, SystemClock};
    use parking_lot::Mutex;
    use rustix::io::Errno;
    use rustix::process::{Signal, getpid, kill_process};
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::io::{self, Write as _};
    use std::path::{Path, PathBuf};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    /// Wait between two looks at the control file.
    const POLL: Duration = Duration::from_millis(5);

    /// What a step does.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum Action {
        Crash,
        Fail(Errno),
    }

    /// What the control file says.
    #[derive(Debug, Default, PartialEq, Eq)]
    pub(super) struct Settings {
        pub(super) actions: BTreeMap<Point, Action>,
        pub(super) limits: BTreeMap<String, u64>,
    }

    impl Settings {
        pub(super) fn parse(text: &str) -> Result<Self, String> {
            let mut settings = Self::default();
            for line in text.lines() {
                let bad = || format!("not a line of a control file of failpoints: {line}");
                let (name, value) = line.split_once('=').ok_or_else(bad)?;
                if let Some(limit) = name.strip_prefix("limit.") {
                    settings.limits.insert(limit.to_owned(), value.parse().map_err(|_| bad())?);
                    continue;
                }
                let point = Point::ALL.iter().find(|point| point.name() == name).ok_or_else(bad)?;
                let action = match value {
                    "crash" => Action::Crash,
                    "eio" => Action::Fail(Errno::IO),
                    "enospc" => Action::Fail(Errno::NOSPC),
                    "eacces" => Action::Fail(Errno::ACCESS),
                    _ => return Err(bad()),
                };
                settings.actions.insert(*point, action);
            }
            Ok(settings)
        }
    }

    struct Watched {
        control: PathBuf,
        settings: Mutex<Settings>,
        hits: Mutex<Hits>,
        journal: Option<Mutex<File>>,
    }

    struct Hits {
        file: File,
        told: Vec<String>,
    }

    /// Set once the environment has named a control file.
    static WATCHED: OnceLock<Watched> = OnceLock::new();

    impl Watched {
        fn open(control: PathBuf) -> io::Result<Self> {
            let beside = |suffix: &str| {
                let mut path = control.clone().into_os_string();
                path.push(suffix);
                File::options().create(true).append(true).open(path)
            };
            let settings = read(&control)?;
            let journal = settings.limits.contains_key("journal").then(|| beside(".journal")).transpose()?;
            let hits = Mutex::new(Hits { file: beside(".hits")?, told: Vec::new() });
            Ok(Self { settings: Mutex::new(settings), hits, journal: journal.map(Mutex::new), control })
        }

        fn tell(&self, line: String) {
            let mut hits = self.hits.lock();
            if !hits.told.contains(&line) {
                let _ = hits.file.write_all(format!("{line}\n").as_bytes());
                hits.told.push(line);
            }
        }
    }

    fn read(control: &Path) -> io::Result<Settings> {
        Settings::parse(&std::fs::read_to_string(control)?).map_err(io::Error::other)
    }

    /// Reads the control file, if the environment names one, and follows its changes on a thread of its own.
    ///
    /// # Errors
    /// It cannot be read, or says what is no failpoint.
    pub fn watch() -> io::Result<()> {
        let Some(control) = std::env::var_os(CONTROL) else { return Ok(()) };
        let watched = Watched::open(control.into())?;
        let watched = WATCHED.get_or_init(|| watched);
        std::thread::Builder::new().name("failpoints".to_owned()).spawn(move || {
            let mut heard_file = watched.control.clone().into_os_string();
            heard_file.push(".heard");
            let mut heard = String::new();
            loop {
                #[expect(clippy::disallowed_methods, reason = "a test's wish comes from another process")]
                std::thread::sleep(POLL);
                if let Ok(wish) = std::fs::read_to_string(&watched.control)
                    && wish != heard
                    && let Ok(settings) = Settings::parse(&wish)
                {
                    *watched.settings.lock() = settings;
                    // The test may wait for this.
                    let _ = std::fs::write(&heard_file, &wish);
                    heard = wish;
                }
            }
        })?;
        Ok(())
    }

    fn action(point: Point) -> Option<(Action, &'static Watched)> {
        let watched = WATCHED.get()?;
        watched.tell(point.name().to_owned());
        let action = watched.settings.lock().actions.get(&point).copied()?;
        Some((action, watched))
    }

    fn act(point: Point, action: Action, watched: &Watched) -> io::Result<()> {
        watched.tell(format!("{}!", point.name()));
        match action {
            Action::Crash => {
                let _ = kill_process(getpid(), Signal::KILL);
                loop {
                    std::thread::park();
                }
            }
            Action::Fail(errno) => Err(errno.into()),
        }
    }

    /// Comes to a step.
    ///
    /// # Errors
    /// The one that a test asks for.
    pub fn hit(point: Point) -> io::Result<()> {
        match action(point) {
            Some((action, watched)) => act(point, action, watched),
            None => Ok(()),
        }
    }

    /// Writes `bytes`, or only the first half of them when a test asks for the process to die, or for an error, there.
    ///
    /// # Errors
    /// Those of `write`, and the one that a test asks for.
    pub fn torn<T>(point: Point, bytes: &[u8], write: impl FnOnce(&[u8]) -> io::Result<T>) -> io::Result<T> {
        let Some((action, watched)) = action(point) else { return write(bytes) };
        let written = write(&bytes[..bytes.len() / 2])?;
        act(point, action, watched).map(|()| written)
    }

    /// Returns the value that a test gives the constant `name`, else `default`.
    pub fn limit(name: &str, default: u64) -> u64 {
        WATCHED.get().and_then(|w| w.settings.lock().limits.get(name).copied()).unwrap_or(default)
    }

    /// Notes an operation on the data folder in the journal, if there is one.
    pub fn note(line: impl FnOnce() -> String) {
        let Some(journal) = WATCHED.get().and_then(|watched| watched.journal.as_ref()) else { return };
        let line = line();
        let mut journal = journal.lock();
        // Read under the lock: the times in the journal never go back.
        let now_us = SystemClock.now().boot_us;
        let _ = journal.write_all(format!("{now_us} {line}\n").as_bytes());
    }

    /// Notes that bytes were written to a file of the data folder.
    pub fn note_write(path: &Path, offset: u64, bytes: &[u8]) {
        note(|| {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("write {} {offset} {hex}", path.display())
        });
    }

    /// Syncs a file or a folder, noting that before and after.
    ///
    /// # Errors
    /// Those of `sync`.
    pub fn note_sync(what: &str, path: &Path, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        /// Tells syncs apart: several threads may sync one folder at the same time.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        note(|| format!("{what} {} {number}", path.display()));
        sync()?;
        note(|| format!("{} {} {number}", what.replace("sync", "synced"), path.display()));
        Ok(())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_control_file_is_understood_or_refused() {
            let settings =
                Settings::parse("log.append=enospc\nlimit.segment_bytes=9\nboot.rename=crash").unwrap();
            assert_eq!(settings.limits["segment_bytes"], 9);
            assert_eq!(
                settings.actions.into_iter().collect::<Vec<_>>(),
                [(Point::LogAppend, Action::Fail(Errno::NOSPC)), (Point::BootFileRename, Action::Crash)]
            );
            for bad in ["log.append", "log.append=burn", "no.such=crash", "limit.x=y"] {
                assert!(Settings::parse(bad).unwrap_err().contains(bad));
            }
        }

        #[test]
        fn every_name_is_given_once() {
            let mut names: Vec<_> = Point::ALL.iter().map(|point| point.name()).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), Point::ALL.len());
        }

        #[test]
        fn without_a_control_file_nothing_happens() {
            assert!(Point::ALL.iter().all(|point| hit(*point).is_ok()));
            assert_eq!(torn(Point::LogAppendTorn, b"whole", |bytes| Ok(bytes.len())).unwrap(), 5);
            assert_eq!(limit("segment_bytes", 7), 7);
        }
    }
}
