//! A node's data folder.
//!
//! | file | what |
//! | --- | --- |
//! | `lock` | held by the running node |
//! | `node.json` | [`Identity`]: written once, and when the number of workers changes |
//! | `cluster.json` | the last cluster map seen |
//! | `boot` | boot id of the machine at the last start; with the word `clean` after a planned stop |
//! | `logs-G/worker-W/` | log and snapshots of worker W; G is the generation in `node.json` |

use crate::failpoint::{self, Point};
use crate::log::{FsDisk, LastStop, Log, LogOptions};
use crate::meta::replace::can_lose;
use anyhow::Context as _;
use ringfort_ring::NodeId;
use ringfort_wire::{ClusterMap, GroupId};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// What follows the boot id after a planned stop.
const CLEAN: &str = " clean";
/// Bytes of log entries that a re-homing copies at a time.
const COPY_BYTES: usize = 8 << 20;

/// Whose data these are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// The node.
    pub(super) node: NodeId,
    /// Random id of this folder, as hexadecimal digits: another folder is another disk.
    pub(super) store_id: String,
    /// Number of workers among which the logs are divided.
    pub(super) workers: u16,
    /// Raised by each re-homing of the logs.
    pub(super) generation: u32,
    /// Whether replicas have run on these logs: from then on a missing log is a loss, not a beginning.
    #[serde(default)]
    pub(super) has_run: bool,
}

/// An open, locked data folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    identity: Identity,
    _lock: File,
}

/// The cluster map in the data folder at `path`, if one can be read there.
pub(crate) fn kept_map(path: &Path) -> Option<ClusterMap> {
    fs::read(path.join("cluster.json")).ok().and_then(|bytes| ClusterMap::from_json(&bytes).ok())
}

/// Sets all that is in the folder of `node` aside, within it, so that the node begins with an empty one and is seeded from
/// the others. What was set aside before is removed. A crash on the way is made good by the next call.
///
/// # Errors
/// The others may not have a majority without this folder, or the disk does not do it.
pub(super) fn set_aside(path: &Path, node: &NodeId) -> anyhow::Result<()> {
    let identity = match fs::read(path.join("node.json")) {
        Ok(bytes) => serde_json::from_slice::<Identity>(&bytes).ok(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => None,
    };
    let lock = File::options().create(true).truncate(false).write(true).open(path.join("lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("the data folder {} is in use by another process", path.display()))?;
    let map = kept_map(path);
    anyhow::ensure!(
        map.is_none_or(|map| can_lose(&map, node)),
        "the data folder {} holds replicas without which their groups have no majority, so it is not set aside: restore the \
         disk, or remove the folder by hand and see `ringfort recover`",
        path.display()
    );
    let name = format!("damaged-{}", identity.map_or_else(|| "unknown".to_owned(), |i| i.store_id));
    let aside = path.join(&name);
    fs::create_dir_all(&aside)?;
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        if file.starts_with("damaged-") && file != name {
            fs::remove_dir_all(entry.path())?;
        } else if file != "lock" && file != name {
            names.push(file);
        }
    }
    // What says that there is something to be set aside goes last.
    names.sort_by_key(|file| file == "node.json");
    for file in names {
        fs::rename(path.join(&file), aside.join(&file))?;
    }
    File::open(path)?.sync_all()?;
    tracing::warn!(%node, folder = %aside.display(), "the data folder was set aside; this node is seeded from the others");
    Ok(())
}

impl Folder {
    /// Opens the folder of `node`, making it when it is missing, and divides its logs among `workers`.
    ///
    /// # Errors
    /// The folder cannot be written, is in use, or is another node's: the sentence says which.
    pub(super) fn open(path: &Path, node: &NodeId, workers: u16, store_id: u128) -> anyhow::Result<Self> {
        let shown = path.display();
        // The password of the cluster is in its log too.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("cannot make the data folder {shown}"))?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .with_context(|| format!("cannot write to the data folder {shown}"))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("the data folder {shown} is in use by another process"))?;
        let identity = match fs::read(path.join("node.json")) {
            Ok(bytes) => serde_json::from_slice::<Identity>(&bytes)
                .with_context(|| format!("{shown}/node.json cannot be read"))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                failpoint::hit(Point::FolderMade)
                    .with_context(|| format!("cannot write to the data folder {shown}"))?;
                let store_id = format!("{store_id:032x}");
                let identity =
                    Identity { node: node.clone(), store_id, workers, generation: 1, has_run: false };
                write_durably(path, "node.json", &serde_json::to_vec_pretty(&identity)?)?;
                identity
            }
            Err(e) => return Err(e).with_context(|| format!("{shown}/node.json cannot be read")),
        };
        anyhow::ensure!(
            identity.node == *node,
            "the data folder {shown} is node {}'s, not node {node}'s: give each node its own --data-dir",
            identity.node
        );
        let mut folder = Self { path: path.to_owned(), identity, _lock: lock };
        if folder.identity.workers != workers {
            folder.rehome(workers).with_context(|| {
                format!("the logs in {shown} cannot be divided among another number of workers")
            })?;
        }
        folder
            .remove_other_generations()
            .with_context(|| format!("an old generation of logs in {shown} cannot be removed"))?;
        for worker in 0..workers {
            let path = folder.worker_path(worker);
            anyhow::ensure!(
                path.exists() || !folder.identity.has_run,
                "{} is missing: the logs of worker {worker} are lost; if the disk cannot be restored, remove the \
                 whole data folder and replace the node",
                path.display()
            );
            let make = || fs::create_dir_all(&path).and_then(|()| File::open(&path)?.sync_all());
            make().with_context(|| format!("cannot make the folder {}", path.display()))?;
        }
        let sync = || -> io::Result<()> {
            failpoint::hit(Point::FolderWorkers)?;
            File::open(path.join(format!("logs-{}", folder.identity.generation)))?.sync_all()?;
            File::open(path)?.sync_all()
        };
        sync().with_context(|| format!("cannot sync the data folder {shown}"))?;
        Ok(folder)
    }

    /// Id of the folder.
    ///
    /// # Errors
    /// `node.json` was damaged.
    pub(super) fn store_id(&self) -> anyhow::Result<u128> {
        u128::from_str_radix(&self.identity.store_id, 16).with_context(|| {
            format!("{}/node.json: store_id is not 32 hexadecimal digits", self.path.display())
        })
    }

    /// Folder of a worker's log.
    pub(super) fn worker_path(&self, worker: u16) -> PathBuf {
        self.path.join(format!("logs-{}", self.identity.generation)).join(format!("worker-{worker}"))
    }

    /// The last map seen; `None` while no cluster has formed.
    ///
    /// # Errors
    /// It is unreadable.
    pub(super) fn map(&self) -> anyhow::Result<Option<ClusterMap>> {
        match fs::read(self.path.join("cluster.json")) {
            Ok(bytes) => ClusterMap::from_json(&bytes)
                .map(Some)
                .map_err(|e| anyhow::anyhow!("{}/cluster.json: {e}", self.path.display())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("{}/cluster.json cannot be read", self.path.display())),
        }
    }

    /// Keeps a map, durably.
    ///
    /// # Errors
    /// The disk does not take it.
    pub(super) fn keep_map(&self, map: &ClusterMap) -> anyhow::Result<()> {
        write_durably(&self.path, "cluster.json", &map.to_json())
    }

    /// Whether replicas have run on these logs before.
    pub(super) fn has_run(&self) -> bool {
        self.identity.has_run
    }

    /// Notes that they have.
    ///
    /// # Errors
    /// The disk does not take it.
    pub(super) fn note_run(&self) -> anyhow::Result<()> {
        if self.identity.has_run {
            return Ok(());
        }
        let identity = Identity { has_run: true, ..self.identity.clone() };
        write_durably(&self.path, "node.json", &serde_json::to_vec_pretty(&identity)?)
    }

    /// How the last process that used this folder ended, as far as the machine's boot id tells.
    pub(super) fn last_stop(&self) -> LastStop {
        let Ok(then) = fs::read_to_string(self.path.join("boot")) else {
            return if self.identity.has_run { LastStop::Machine } else { LastStop::Process };
        };
        if then.ends_with(CLEAN) || boot_id().is_some_and(|now| now == then) {
            LastStop::Process
        } else {
            LastStop::Machine
        }
    }

    /// Notes a planned stop: everything is synced, so a later stop of the machine takes nothing.
    ///
    /// # Errors
    /// The disk does not take it.
    pub(super) fn note_clean_stop(&self) -> anyhow::Result<()> {
        let id = boot_id().unwrap_or_default();
        write_durably(&self.path, "boot", format!("{id}{CLEAN}").as_bytes())
    }

    /// Forgets the boot: after a failed sync the page cache cannot be trusted, as after a stop of the machine.
    pub(super) fn forget_boot(&self) {
        let removed =
            fs::remove_file(self.path.join("boot")).and_then(|()| File::open(&self.path)?.sync_all());
        if let Err(error) = removed {
            tracing::error!(%error, "the note of the machine's boot could not be removed");
        }
    }

    /// Notes the machine's boot id; only after all logs were opened, for opening judges by it.
    ///
    /// # Errors
    /// The disk does not take it.
    pub(super) fn note_boot(&self) -> anyhow::Result<()> {
        boot_id().map_or(Ok(()), |id| write_durably(&self.path, "boot", id.as_bytes()))
    }

    /// Divides the logs among another number of workers: copies every group into the next generation's logs, then makes
    /// that generation the valid one. A crash before that leaves the old one valid.
    fn rehome(&mut self, workers: u16) -> anyhow::Result<()> {
        let next = Identity { workers, generation: self.identity.generation + 1, ..self.identity.clone() };
        let root = self.path.join(format!("logs-{}", next.generation));
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        let options = LogOptions { last_stop: self.last_stop(), ..LogOptions::default() };
        let mut targets = Vec::new();
        for worker in 0..workers {
            let path = root.join(format!("worker-{worker}"));
            fs::create_dir_all(&path)?;
            targets.push((Log::open(FsDisk::open(&path)?, options)?.0, path));
        }
        failpoint::hit(Point::RehomeBegin)?;
        for worker in 0..self.identity.workers {
            let from = self.worker_path(worker);
            anyhow::ensure!(from.exists() || !self.identity.has_run, "{} is missing", from.display());
            if !from.exists() {
                continue;
            }
            let (log, groups) = Log::open(FsDisk::open(&from)?, options)?;
            for group in groups {
                let (target, to) =
                    &mut targets[usize::from(crate::worker::worker_of(GroupId(group.group), workers))];
                target.stage_identity(group.group, &group.identity)?;
                target.stage_mark(group.group, &group.mark, false)?;
                let mut index = group.mark.index + 1;
                while index <= group.last_index {
                    let entries = log.read(group.group, index, group.last_index + 1, COPY_BYTES)?;
                    index += entries.len() as u64;
                    target.stage_entries(group.group, &entries)?;
                    target.write()?;
                }
                target.stage_hard_state(group.group, &group.hard_state)?;
                target.write()?;
                copy_snapshots(&from, to, group.group)?;
                failpoint::hit(Point::RehomeCopied)?;
            }
        }
        for (mut log, path) in targets {
            if let Some(job) = log.sync_job() {
                job.run()?;
            }
            File::open(path)?.sync_all()?;
        }
        File::open(&root)?.sync_all()?;
        failpoint::hit(Point::RehomeSynced)?;
        write_durably(&self.path, "node.json", &serde_json::to_vec_pretty(&next)?)?;
        failpoint::hit(Point::RehomeSwitched)?;
        tracing::info!(
            from = self.identity.workers,
            to = workers,
            "the logs were divided among another number of workers"
        );
        self.identity = next;
        Ok(())
    }

    fn remove_other_generations(&self) -> anyhow::Result<()> {
        let valid = format!("logs-{}", self.identity.generation);
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_string_lossy().starts_with("logs-") && name.to_string_lossy() != valid {
                failpoint::hit(Point::RehomeRemove)?;
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

fn copy_snapshots(from: &Path, to: &Path, group: u16) -> anyhow::Result<()> {
    let prefix = format!("snap-{group}-");
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if text.starts_with(&prefix) && text.ends_with(".snap") {
            let target = to.join(&name);
            fs::copy(entry.path(), &target)?;
            File::open(&target)?.sync_all()?;
        }
    }
    Ok(())
}

fn boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|s| s.trim().to_owned())
}

/// Replaces a file as a whole: write, sync, rename, sync the folder.
fn write_durably(folder: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let (torn, rename, renamed) = match name {
        "node.json" => (Point::NodeFileTorn, Point::NodeFileRename, Point::NodeFileRenamed),
        "cluster.json" => (Point::MapFileTorn, Point::MapFileRename, Point::MapFileRenamed),
        _ => (Point::BootFileTorn, Point::BootFileRename, Point::BootFileRenamed),
    };
    let replace = || -> io::Result<()> {
        let (temporary, target) = (folder.join(format!("{name}.tmp")), folder.join(name));
        // The settings of the cluster hold its password.
        let mut file =
            File::options().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        failpoint::note(|| format!("create {}", temporary.display()));
        failpoint::torn(torn, bytes, |bytes| file.write_all(bytes))?;
        failpoint::note_write(&temporary, 0, bytes);
        failpoint::note_sync("sync", &temporary, || file.sync_all())?;
        failpoint::hit(rename)?;
        fs::rename(&temporary, &target)?;
        failpoint::note(|| format!("rename {} {}", temporary.display(), target.display()));
        failpoint::hit(renamed)?;
        failpoint::note_sync("sync-folder", folder, || File::open(folder)?.sync_all())
    };
    replace().with_context(|| format!("cannot write {}/{name}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{HardState, Identity as ReplicaIdentity, LogEntry};

    fn temporary(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("ringfort-folder-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn is_locked_and_belongs_to_one_node() {
        let path = temporary("lock");
        let n1 = NodeId("n1".into());
        let first = Folder::open(&path, &n1, 1, 7).unwrap();
        assert!(Folder::open(&path, &n1, 1, 8).unwrap_err().to_string().contains("in use"));
        assert_eq!(first.store_id().unwrap(), 7);
        drop(first);
        let again = Folder::open(&path, &n1, 1, 8).unwrap();
        assert_eq!(again.store_id().unwrap(), 7, "a store id is minted once");
        drop(again);
        let other = Folder::open(&path, &NodeId("n2".into()), 1, 8).unwrap_err();
        assert!(other.to_string().contains("is node n1's"), "{other}");
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn tells_a_stop_of_the_machine_from_one_of_the_process() {
        let path = temporary("boot");
        let folder = Folder::open(&path, &NodeId("n1".into()), 1, 7).unwrap();
        assert_eq!(folder.last_stop(), LastStop::Process, "a new folder has lost nothing");
        folder.note_run().unwrap();
        folder.note_boot().unwrap();
        drop(folder);
        let folder = Folder::open(&path, &NodeId("n1".into()), 1, 7).unwrap();
        assert_eq!(folder.last_stop(), LastStop::Process, "same boot");
        fs::write(path.join("boot"), "another boot").unwrap();
        assert_eq!(folder.last_stop(), LastStop::Machine);
        folder.note_clean_stop().unwrap();
        assert_eq!(folder.last_stop(), LastStop::Process);
        folder.forget_boot();
        assert_eq!(folder.last_stop(), LastStop::Machine);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_folder_is_set_aside_once_and_another_store_id_begins() {
        let path = temporary("aside");
        let n1 = NodeId("n1".into());
        set_aside(&path, &n1).unwrap();
        for store_id in [7, 8] {
            let folder = Folder::open(&path, &n1, 1, store_id).unwrap();
            assert_eq!(folder.store_id().unwrap(), store_id, "a new folder");
            folder.note_run().unwrap();
            assert!(set_aside(&path, &n1).is_err(), "it is in use");
            drop(folder);
            set_aside(&path, &n1).unwrap();
            set_aside(&path, &n1).unwrap();
            let mut names: Vec<_> =
                fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            assert_eq!(names, [format!("damaged-{store_id:032x}"), "lock".to_owned()]);
            assert!(path.join(&names[0]).join("logs-1/worker-0").exists());
        }
        let folder = Folder::open(&path, &n1, 1, 9).unwrap();
        let map = crate::meta::form::tests::sample_map();
        let mut alone = map.clone();
        alone.groups[3].seats.truncate(1);
        let node = alone.groups[3].seats[0].node.clone();
        folder.keep_map(&alone).unwrap();
        drop(folder);
        let error = set_aside(&path, &node).unwrap_err().to_string();
        assert!(error.contains("no majority"), "{error}");
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_lost_log_is_no_beginning() {
        let path = temporary("lost");
        let folder = Folder::open(&path, &NodeId("n1".into()), 1, 7).unwrap();
        folder.note_run().unwrap();
        let log = folder.worker_path(0);
        drop(folder);
        fs::remove_dir_all(log).unwrap();
        let error = Folder::open(&path, &NodeId("n1".into()), 1, 7).unwrap_err();
        assert!(error.to_string().contains("are lost"), "{error}");
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn another_number_of_workers_keeps_every_log() {
        let path = temporary("rehome");
        let n1 = NodeId("n1".into());
        let folder = Folder::open(&path, &n1, 1, 7).unwrap();
        let entry = |index| LogEntry { index, term: 3, kind: 0, data: vec![index as u8; 10].into() };
        let (mut log, _) =
            Log::open(FsDisk::open(folder.worker_path(0)).unwrap(), LogOptions::default()).unwrap();
        for group in 1..=4 {
            log.stage_identity(
                group,
                &ReplicaIdentity { replica: u64::from(group), incarnation: 1, ..ReplicaIdentity::default() },
            )
            .unwrap();
            log.stage_entries(group, &[entry(1), entry(2)]).unwrap();
            log.stage_hard_state(group, &HardState { term: 3, vote: 1, commit: 2 }).unwrap();
        }
        log.write().unwrap();
        drop((log, folder));
        let folder = Folder::open(&path, &n1, 3, 7).unwrap();
        let mut found = Vec::new();
        for worker in 0..3 {
            let disk = FsDisk::open(folder.worker_path(worker)).unwrap();
            let (log, groups) = Log::open(disk, LogOptions::default()).unwrap();
            for group in groups {
                assert_eq!(worker, (group.group - 1) % 3);
                assert_eq!((group.last_index, group.hard_state.commit), (2, 2));
                assert_eq!(log.read(group.group, 1, 3, 1 << 20).unwrap(), [entry(1), entry(2)]);
                found.push(group.group);
            }
        }
        found.sort_unstable();
        assert_eq!(found, [1, 2, 3, 4]);
        drop(folder);
        fs::remove_dir_all(path).unwrap();
    }
}
