//! What the log needs of a folder: the [`Disk`] trait, and [`FsDisk`], the real one.
//!
//! The twin in memory, with crash images and failure injection, is [`MemDisk`](super::MemDisk).
//! A disk is a flat folder: names are file names without separators, made by this module only.

use crate::failpoint::{note, note_sync, note_write};
use crossbeam::channel::{self, Sender};
use ringfort_proxy::server::faults;
use rustix::fs::FallocateFlags;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// A folder that holds the log and the snapshots of one worker.
///
/// A clone is another handle of the same folder. Nothing here is durable until it is synced: the data of a
/// file by [`DiskFile::sync`], the creation, renaming and removal of names by [`Disk::sync_folder`].
pub trait Disk: Clone + fmt::Debug + Send + 'static {
    /// A handle of one file of this folder.
    type File: DiskFile;

    /// Creates the empty file `name`, open for reading and writing; one that was there is replaced by it.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens the existing file `name` for reading and writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`], or whatever the system reports.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Renames `from` to `to`, replacing a file of that name in one step.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes the name `name`; handles that are open keep reading the file. Its room may become free only a moment later.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Returns the names of all files, sorted.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes creations, renamings and removals of names so far durable.
    ///
    /// # Errors
    /// Whatever the system reports; what is durable is then unknown.
    fn sync_folder(&self) -> io::Result<()>;

    /// Returns the bytes that may still be written to this folder's file system.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file of a [`Disk`]; a clone is another handle of the same file.
pub trait DiskFile: Clone + fmt::Debug + Send + 'static {
    /// Writes all of `bytes` at `offset`, which is at most the length of the file.
    ///
    /// # Errors
    /// Whatever the system reports; a part of `bytes` may then be in the file.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the file ends before, or whatever the system reports.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Returns the length of the file in bytes.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn bytes(&self) -> io::Result<u64>;

    /// Cuts the file to `bytes`.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn truncate(&self, bytes: u64) -> io::Result<()>;

    /// Asks for room on the disk for `bytes` from `offset` on, so that writes there need not wait until the file system has
    /// found some. The length stays, and so does all else when nothing comes of it.
    fn reserve(&self, offset: u64, bytes: u64);

    /// Makes the content and length of the file durable.
    ///
    /// # Errors
    /// Whatever the system reports; what is durable is then unknown, and a later success proves nothing.
    fn sync(&self) -> io::Result<()>;
}

/// Ends the names of files that are removed for good in the background.
const REMOVED: &str = ".removed";
/// Most files that wait for that; what is beyond is removed by whoever asks.
const REMOVALS_MAX: usize = 256;

/// A folder of the file system.
#[derive(Clone, Debug)]
pub struct FsDisk {
    folder: Arc<PathBuf>,
    remover: Arc<Remover>,
}

/// Removes files on a thread of its own. A file system may take a tenth of a second for one (ext4 with `discard` waits until
/// the device has let its blocks go), and a worker has no time for that.
#[derive(Debug)]
struct Remover {
    /// `None`: there is no such thread.
    queue: Option<Sender<PathBuf>>,
    thread: Option<JoinHandle<()>>,
    is_ended: Arc<AtomicBool>,
    /// Number in the next name.
    next: AtomicU64,
}

impl Remover {
    fn start() -> Self {
        let (queue, paths) = channel::bounded::<PathBuf>(REMOVALS_MAX);
        let is_ended = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_ended);
        let thread = std::thread::Builder::new().name("remove".to_owned()).spawn(move || {
            for path in paths.iter().take_while(|_| !ends.load(Ordering::Relaxed)) {
                remove_now(&path);
            }
        });
        let thread = thread.ok();
        Self { queue: thread.is_some().then_some(queue), thread, is_ended, next: AtomicU64::new(0) }
    }

    fn remove(&self, path: PathBuf) {
        let Some(queue) = &self.queue else { return remove_now(&path) };
        if let Err(refused) = queue.try_send(path) {
            remove_now(&refused.into_inner());
        }
    }
}

impl Drop for Remover {
    /// Waits for the file that is being removed; the others go when the folder is opened again.
    fn drop(&mut self) {
        self.is_ended.store(true, Ordering::Relaxed);
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn remove_now(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "a file that nobody needs could not be removed");
    }
}

impl FsDisk {
    /// Opens `folder`, which is created (with its parents) if it is missing.
    ///
    /// # Errors
    /// Whatever the system reports.
    pub fn open(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        if !folder.is_dir() {
            fs::create_dir_all(&folder)?;
            if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                fs::File::open(parent)?.sync_all()?;
            }
        }
        let remover = Remover::start();
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.as_os_str().as_encoded_bytes().ends_with(REMOVED.as_bytes()) {
                remover.remove(path);
            }
        }
        Ok(Self { folder: Arc::new(folder), remover: Arc::new(remover) })
    }

    /// Returns the folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Disk for FsDisk {
    type File = FsFile;

    fn create(&self, name: &str) -> io::Result<FsFile> {
        refuse_when_full()?;
        let path = self.path(name);
        let file = fs::File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        note(|| format!("create {}", path.display()));
        Ok(FsFile { file: Arc::new(file), path: path.into() })
    }

    fn open(&self, name: &str) -> io::Result<FsFile> {
        let path = self.path(name);
        let file = fs::File::options().read(true).write(true).open(&path)?;
        Ok(FsFile { file: Arc::new(file), path: path.into() })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path(from), self.path(to));
        fs::rename(&from, &to)?;
        note(|| format!("rename {} {}", from.display(), to.display()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        let removed = loop {
            let number = self.remover.next.fetch_add(1, Ordering::Relaxed);
            let removed = self.path(&format!("{name}.{number}{REMOVED}"));
            // One that an earlier process left.
            if !removed.exists() {
                break removed;
            }
        };
        match fs::rename(&path, &removed) {
            Ok(()) => self.remover.remove(removed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
            // A full disk may have no room for another name.
            Err(_) => fs::remove_file(&path)?,
        }
        note(|| format!("remove {}", path.display()));
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.folder())? {
            let entry = entry?;
            if !entry.file_type()?.is_file() {
                continue;
            }
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry.file_name().into_string()
                && !name.ends_with(REMOVED)
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync_folder(&self) -> io::Result<()> {
        note_sync("sync-folder", self.folder(), || fs::File::open(self.folder())?.sync_all())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        if faults::is_disk_full() {
            return Ok(0);
        }
        let stat = rustix::fs::statvfs(self.folder())?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// A disk that is full on purpose (RINGFORT FAULT) takes nothing.
fn refuse_when_full() -> io::Result<()> {
    if faults::is_disk_full() { Err(rustix::io::Errno::NOSPC.into()) } else { Ok(()) }
}

/// A file of an [`FsDisk`].
#[derive(Clone, Debug)]
pub struct FsFile {
    file: Arc<fs::File>,
    /// The name that it was opened by.
    path: Arc<Path>,
}

impl DiskFile for FsFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        refuse_when_full()?;
        self.file.write_all_at(bytes, offset)?;
        note_write(&self.path, offset, bytes);
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)?;
        note(|| format!("cut {} {bytes}", self.path.display()));
        Ok(())
    }

    fn reserve(&self, offset: u64, bytes: u64) {
        // Not every file system can.
        let _ = rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, offset, bytes);
    }

    fn sync(&self) -> io::Result<()> {
        faults::hold_sync();
        note_sync("sync", &self.path, || self.file.sync_data())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, SystemClock};
    use crate::log::tests::TempFolder;

    const WAIT_US: u64 = 30_000_000;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    fn until_there_are(folder: &Path, expected: &[&str]) {
        let begun_us = SystemClock.now().boot_us;
        while names(folder) != expected {
            assert!(SystemClock.now().boot_us < begun_us + WAIT_US, "{:?} are left", names(folder));
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_removed_name_is_gone_at_once_and_may_be_used_again() {
        let folder = TempFolder::new("disk");
        let disk = FsDisk::open(folder.path()).unwrap();
        let old = disk.create("a").unwrap();
        old.write_at(0, b"old").unwrap();
        for _ in 0..2 * REMOVALS_MAX {
            disk.remove("a").unwrap();
            assert!(disk.list().unwrap().is_empty());
            disk.create("a").unwrap().write_at(0, b"new").unwrap();
        }
        until_there_are(folder.path(), &["a"]);
        let mut bytes = [0; 3];
        disk.open("a").unwrap().read_at(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"new");
        old.read_at(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"old", "an open handle keeps its file");
        assert_eq!(disk.remove("b").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn room_that_is_reserved_does_not_make_a_file_longer() {
        let folder = TempFolder::new("disk");
        let disk = FsDisk::open(folder.path()).unwrap();
        let file = disk.create("a").unwrap();
        file.write_at(0, b"text").unwrap();
        file.reserve(4, 1 << 20);
        file.sync().unwrap();
        assert_eq!(disk.open("a").unwrap().bytes().unwrap(), 4);
        file.write_at(4, b" and more").unwrap();
        assert_eq!(file.bytes().unwrap(), 13);
    }

    #[test]
    fn what_an_ended_process_had_still_to_remove_is_removed_by_the_next() {
        let folder = TempFolder::new("disk");
        fs::create_dir_all(folder.path()).unwrap();
        let write = |name: &str| fs::write(folder.path().join(name), b"x").unwrap();
        ["kept", "a.0.removed", "a.7.removed"].into_iter().for_each(write);
        let disk = FsDisk::open(folder.path()).unwrap();
        assert_eq!(disk.list().unwrap(), ["kept"]);
        until_there_are(folder.path(), &["kept"]);
        // One that is still to be removed keeps its name for itself.
        ["a", "a.0.removed"].into_iter().for_each(write);
        disk.remove("a").unwrap();
        until_there_are(folder.path(), &["a.0.removed", "kept"]);
    }
}
