//! A [`Disk`] in memory for tests and the simulator: crash images and failures on demand, all from a seed.
//!
//! What it models, harsher than the usual file systems and as harsh as POSIX allows:
//! - data that was not synced survives a crash of the machine as a prefix of what was appended, the last part
//!   of which may be garbled, and sectors of which may read as zeros (blocks reach the disk in any order);
//! - each creation, renaming or removal of a name that was not synced survives or not, independently of the
//!   others;
//! - a crash of the process loses nothing that was written;
//! - what a failed sync did not write is read on, also by later processes, but no later sync writes it: only writing it
//!   again does (Rebello et al., *Can Applications Recover from fsync Failures?*, 2020);
//! - handles from before a crash fail afterwards: the process that held them is gone.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::{Disk, DiskFile};

/// The unit in which unsynced data is torn.
const SECTOR_BYTES: usize = 512;

/// Room on a disk without a set capacity.
const CAPACITY_DEFAULT: u64 = 1 << 40;

/// SplitMix64 (Steele et al. 2014): the generator behind crash images.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number below `bound` (0 when `bound` is 0).
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        if bound == 0 {
            return 0;
        }
        usize::try_from(self.next() % bound as u64).unwrap_or(0)
    }
}

/// A folder in memory; a clone is another handle of the same folder.
#[derive(Clone, Debug)]
pub struct MemDisk {
    shared: Arc<Mutex<Folder>>,
    generation: u64,
}

/// A file of a [`MemDisk`].
#[derive(Clone, Debug)]
pub struct MemFile {
    shared: Arc<Mutex<Folder>>,
    generation: u64,
    inode: u64,
}

/// What a crash of the machine leaves of what was not synced; see [`MemDisk::crash_to`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashImage {
    /// Nothing: neither data nor names.
    Lost,
    /// Everything.
    Kept,
    /// All names, no data: files of no length where something was appended to a new one.
    Names,
    /// All data, no names: files that were created or renamed are not there.
    Data,
    /// All names, and the first half of what was appended to each file.
    Half,
    /// All names, and all that was appended, the last sector of it zeros.
    Zeros,
    /// Every other change of a name (the first, the third, ...), and all data.
    OddNames,
    /// Every other change of a name (the second, the fourth, ...), and all data.
    EvenNames,
}

impl CrashImage {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Lost,
        Self::Kept,
        Self::Names,
        Self::Data,
        Self::Half,
        Self::Zeros,
        Self::OddNames,
        Self::EvenNames,
    ];

    fn keeps_name(self, change: usize) -> bool {
        match self {
            Self::Lost | Self::Data => false,
            Self::Kept | Self::Names | Self::Half | Self::Zeros => true,
            Self::OddNames => change.is_multiple_of(2),
            Self::EvenNames => !change.is_multiple_of(2),
        }
    }
}

#[derive(Clone, Debug)]
struct Folder {
    /// Counts crashes; handles of an earlier generation fail.
    generation: u64,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Changes of names since the last sync of the folder, in order.
    unsynced: Vec<NameChange>,
    capacity: u64,
    /// Operations (those that write or sync) until the power goes; `None` for never.
    ops_left: Option<u64>,
    is_off: bool,
    ops: u64,
    fail_next: bool,
    /// Syncs until one fails; `None` for never.
    syncs_left: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    data: Vec<u8>,
    /// Bytes of `data` that are durable.
    synced: usize,
    /// Bytes that a failed sync has not written and that no other one will: a crash of the machine leaves zeros there.
    dropped: Range<usize>,
    /// Room was asked for up to this length.
    reserved: u64,
    /// Durable content of before an unsynced cut into it.
    before_cut: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Create(String, u64),
    Rename(String, String, u64),
    Remove(String),
}

impl Default for MemDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl MemDisk {
    /// Returns an empty folder.
    #[must_use]
    pub fn new() -> Self {
        let folder = Folder {
            generation: 0,
            inodes: BTreeMap::new(),
            next_inode: 1,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced: Vec::new(),
            capacity: CAPACITY_DEFAULT,
            ops_left: None,
            is_off: false,
            ops: 0,
            fail_next: false,
            syncs_left: None,
        };
        Self { shared: Arc::new(Mutex::new(folder)), generation: 0 }
    }

    /// Crashes the process: keeps everything written, ends all other handles and all injected failures.
    pub fn kill(&mut self) {
        let mut folder = self.shared.lock();
        folder.restart();
        self.generation = folder.generation;
    }

    /// Crashes the machine: unsynced data and names are lost or torn as `seed` says, what remains is durable.
    /// Ends all other handles and all injected failures.
    pub fn crash(&mut self, seed: u64) {
        let mut folder = self.shared.lock();
        folder.lose_unsynced(&mut Rng::new(seed));
        folder.restart();
        self.generation = folder.generation;
    }

    /// Crashes the machine as [`Self::crash`] does, but to an image that is chosen, not drawn.
    pub fn crash_to(&mut self, image: CrashImage) {
        let mut folder = self.shared.lock();
        let mut change = 0;
        folder.keep_names(|| {
            change += 1;
            image.keeps_name(change - 1)
        });
        for inode in folder.inodes.values_mut() {
            inode.crash_to(image);
        }
        folder.restart();
        self.generation = folder.generation;
    }

    /// Returns a copy of the folder as it is, durable or not, that shares nothing with it.
    #[must_use]
    pub fn fork(&self) -> Self {
        let folder = self.shared.lock().clone();
        let generation = folder.generation;
        Self { shared: Arc::new(Mutex::new(folder)), generation }
    }

    /// Returns another folder that holds what is durable here, and nothing else: the least that a crash of the machine may
    /// leave.
    #[must_use]
    pub fn synced(&self) -> Self {
        let folder = self.shared.lock();
        let durable = |inode: &Inode| match &inode.before_cut {
            Some(before) => before.clone(),
            None => inode.data[..inode.synced].to_vec(),
        };
        Self::copy(&folder.durable_names, &folder.inodes, durable)
    }

    /// Returns another folder that holds what is written here: what a crash of the process leaves.
    #[must_use]
    pub fn written(&self) -> Self {
        let folder = self.shared.lock();
        Self::copy(&folder.names, &folder.inodes, |inode| inode.data.clone())
    }

    fn copy(
        names: &BTreeMap<String, u64>,
        inodes: &BTreeMap<u64, Inode>,
        data: impl Fn(&Inode) -> Vec<u8>,
    ) -> Self {
        let copy = Self::new();
        let mut folder = copy.shared.lock();
        for (name, inode) in names {
            let data = inodes.get(inode).map(&data).unwrap_or_default();
            folder.inodes.insert(*inode, Inode { synced: data.len(), data, ..Inode::default() });
            folder.names.insert(name.clone(), *inode);
            folder.next_inode = folder.next_inode.max(inode + 1);
        }
        let names = folder.names.clone();
        folder.durable_names = names;
        drop(folder);
        copy
    }

    /// Limits the sum of all file lengths; writes beyond it end with [`io::ErrorKind::StorageFull`], after
    /// writing what fits. `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.shared.lock().capacity = bytes.unwrap_or(CAPACITY_DEFAULT);
    }

    /// Returns up to which length the file `name` has asked for room.
    #[must_use]
    pub fn reserved_bytes(&self, name: &str) -> u64 {
        let folder = self.shared.lock();
        folder.names.get(name).and_then(|inode| folder.inodes.get(inode)).map_or(0, |inode| inode.reserved)
    }

    /// Returns the sum of all file lengths (names only; removed files take no room).
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.shared.lock().used()
    }

    /// Fails the next operation that writes or syncs.
    pub fn fail_next(&self) {
        self.shared.lock().fail_next = true;
    }

    /// Fails the next sync of a file or of the folder.
    pub fn fail_next_sync(&self) {
        self.fail_sync_after(0);
    }

    /// Lets `syncs` more syncs succeed, then fails one.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.shared.lock().syncs_left = Some(syncs);
    }

    /// Lets `ops` more operations that write or sync succeed, then fails all until [`Self::kill`] or
    /// [`Self::crash`]: a crash between any two steps. A write that is the first to fail is half done.
    pub fn power_off_after(&self, ops: u64) {
        let mut folder = self.shared.lock();
        if !folder.is_off {
            folder.ops_left = Some(ops);
        }
    }

    /// Returns how many operations that write or sync were asked for so far.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.shared.lock().ops
    }

    /// Inverts the bits of `mask` in one byte of a file, as a decaying medium would; `false` when there is no
    /// such byte.
    pub fn flip(&self, name: &str, offset: u64, mask: u8) -> bool {
        let mut folder = self.shared.lock();
        let Some(inode) = folder.names.get(name).copied() else { return false };
        let Some(inode) = folder.inodes.get_mut(&inode) else { return false };
        match usize::try_from(offset).ok().and_then(|offset| inode.data.get_mut(offset)) {
            Some(byte) => {
                *byte ^= mask;
                true
            }
            None => false,
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Folder) -> io::Result<T>) -> io::Result<T> {
        let mut folder = self.shared.lock();
        folder.check_generation(self.generation)?;
        f(&mut folder)
    }

    fn file(&self, inode: u64) -> MemFile {
        MemFile { shared: Arc::clone(&self.shared), generation: self.generation, inode }
    }
}

impl Folder {
    fn check_generation(&self, generation: u64) -> io::Result<()> {
        if generation == self.generation {
            Ok(())
        } else {
            Err(io::Error::other("the process that held this handle has crashed"))
        }
    }

    /// Counts one operation that writes or syncs, and fails it if that is due.
    fn begin_op(&mut self) -> io::Result<()> {
        self.ops += 1;
        match &mut self.ops_left {
            Some(0) => {
                self.is_off = true;
                return Err(io::Error::other("injected: power is off"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        if std::mem::take(&mut self.fail_next) {
            return Err(io::Error::other("injected: input/output error"));
        }
        Ok(())
    }

    /// Says whether the power goes off in the middle of the next operation (and not before).
    fn is_power_failing(&self) -> bool {
        self.ops_left == Some(0) && !self.is_off
    }

    fn begin_sync(&mut self) -> io::Result<()> {
        self.begin_op()?;
        self.syncs_left = match self.syncs_left {
            Some(0) => {
                self.syncs_left = None;
                return Err(io::Error::other("injected: sync failed"));
            }
            left => left.map(|left| left - 1),
        };
        Ok(())
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .filter_map(|inode| self.inodes.get(inode))
            .map(|inode| inode.data.len() as u64)
            .sum()
    }

    fn restart(&mut self) {
        self.generation += 1;
        self.ops_left = None;
        self.is_off = false;
        self.fail_next = false;
        self.syncs_left = None;
        // Files without a name live as long as a process holds them.
        let named: Vec<u64> = self.names.values().chain(self.durable_names.values()).copied().collect();
        let pending: Vec<u64> = self
            .unsynced
            .iter()
            .filter_map(|change| match change {
                NameChange::Create(_, inode) | NameChange::Rename(_, _, inode) => Some(*inode),
                NameChange::Remove(_) => None,
            })
            .collect();
        self.inodes.retain(|inode, _| named.contains(inode) || pending.contains(inode));
    }

    fn lose_unsynced(&mut self, rng: &mut Rng) {
        self.keep_names(|| rng.below(2) != 0);
        for inode in self.inodes.values_mut() {
            inode.lose_unsynced(rng);
        }
    }

    /// Takes the durable names and those unsynced changes of them, in order, that `keeps` is true for.
    fn keep_names(&mut self, mut keeps: impl FnMut() -> bool) {
        let mut names = std::mem::take(&mut self.durable_names);
        for change in self.unsynced.drain(..) {
            if !keeps() {
                continue;
            }
            match change {
                NameChange::Create(name, inode) => {
                    names.insert(name, inode);
                }
                NameChange::Rename(from, to, inode) => {
                    names.remove(&from);
                    names.insert(to, inode);
                }
                NameChange::Remove(name) => {
                    names.remove(&name);
                }
            }
        }
        self.durable_names.clone_from(&names);
        self.names = names;
    }
}

impl Inode {
    fn lose_dropped(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        self.data[dropped].fill(0);
    }

    /// Writes `bytes` at `offset` once more, if they are there already: then a sync writes them.
    fn write_again(&mut self, offset: usize, bytes: &[u8]) -> bool {
        let end = offset + bytes.len();
        let is_there = self.data.get(offset..end).is_some_and(|there| there == bytes);
        if is_there && offset <= self.dropped.start {
            self.dropped.start = end.min(self.dropped.end).max(self.dropped.start);
        }
        is_there
    }

    fn cut(&mut self, bytes: usize) {
        self.data.truncate(bytes);
        self.dropped.end = self.dropped.end.min(bytes);
        self.dropped.start = self.dropped.start.min(self.dropped.end);
    }

    fn crash_to(&mut self, image: CrashImage) {
        self.lose_dropped();
        let before = self.before_cut.take();
        if let Some(before) = before.filter(|_| matches!(image, CrashImage::Lost | CrashImage::Names)) {
            self.data = before;
        } else {
            let unsynced = self.data.len() - self.synced;
            match image {
                CrashImage::Lost | CrashImage::Names => self.data.truncate(self.synced),
                CrashImage::Half => self.data.truncate(self.synced + unsynced / 2),
                CrashImage::Zeros => {
                    let start = self.data.len() - unsynced.min(SECTOR_BYTES);
                    self.data[start..].fill(0);
                }
                CrashImage::Kept | CrashImage::Data | CrashImage::OddNames | CrashImage::EvenNames => {}
            }
        }
        self.synced = self.data.len();
    }

    fn lose_unsynced(&mut self, rng: &mut Rng) {
        self.lose_dropped();
        if let Some(before) = self.before_cut.take()
            && rng.below(2) == 0
        {
            self.synced = before.len();
            self.data = before;
            return;
        }
        let unsynced = self.data.len() - self.synced;
        // All, nothing and anything between are each common, so that each is tested.
        let kept = match rng.below(4) {
            0 => unsynced,
            1 => 0,
            _ => rng.below(unsynced + 1),
        };
        self.data.truncate(self.synced + kept);
        let tail = &mut self.data[self.synced..];
        if rng.below(2) == 0 {
            let garbled = rng.below(tail.len().min(2 * SECTOR_BYTES) + 1);
            let start = tail.len() - garbled;
            let zeros = rng.below(2) == 0;
            for byte in &mut tail[start..] {
                *byte = if zeros { 0 } else { rng.next().to_le_bytes()[0] };
            }
        }
        // Blocks reach the disk in any order: now and then one in the middle did not.
        if rng.below(4) == 0 && !tail.is_empty() {
            let start = rng.below(tail.len());
            let end = (start + SECTOR_BYTES).min(tail.len());
            tail[start..end].fill(0);
        }
        self.synced = self.data.len();
    }
}

impl Disk for MemDisk {
    type File = MemFile;

    fn create(&self, name: &str) -> io::Result<MemFile> {
        self.with(|folder| {
            folder.begin_op()?;
            let inode = folder.next_inode;
            folder.next_inode += 1;
            folder.inodes.insert(inode, Inode::default());
            folder.names.insert(name.to_owned(), inode);
            folder.unsynced.push(NameChange::Create(name.to_owned(), inode));
            Ok(self.file(inode))
        })
    }

    fn open(&self, name: &str) -> io::Result<MemFile> {
        self.with(|folder| match folder.names.get(name) {
            Some(inode) => Ok(self.file(*inode)),
            None => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(|folder| {
            folder.begin_op()?;
            let Some(inode) = folder.names.remove(from) else { return Err(io::ErrorKind::NotFound.into()) };
            folder.names.insert(to.to_owned(), inode);
            folder.unsynced.push(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(|folder| {
            folder.begin_op()?;
            if folder.names.remove(name).is_none() {
                return Err(io::ErrorKind::NotFound.into());
            }
            folder.unsynced.push(NameChange::Remove(name.to_owned()));
            Ok(())
        })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.with(|folder| Ok(folder.names.keys().cloned().collect()))
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.with(|folder| {
            folder.begin_sync()?;
            folder.durable_names.clone_from(&folder.names);
            folder.unsynced.clear();
            Ok(())
        })
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.with(|folder| Ok(folder.capacity.saturating_sub(folder.used())))
    }
}

impl MemFile {
    fn with<T>(&self, f: impl FnOnce(&mut Folder) -> io::Result<T>) -> io::Result<T> {
        let mut folder = self.shared.lock();
        folder.check_generation(self.generation)?;
        f(&mut folder)
    }
}

impl Folder {
    fn inode(&mut self, inode: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&inode).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn to_usize(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl DiskFile for MemFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = to_usize(offset)?;
        self.with(|folder| {
            let is_cut_short = folder.is_power_failing();
            let begun = folder.begin_op();
            if begun.is_err() && !is_cut_short {
                return begun;
            }
            let free = folder.capacity.saturating_sub(folder.used());
            let inode = folder.inode(self.inode)?;
            if begun.is_ok() && !bytes.is_empty() && inode.write_again(offset, bytes) {
                return Ok(());
            }
            // An append-only disk: overwriting durable bytes by others is not modelled, so it is refused.
            if offset < inode.synced || inode.data.len() < offset {
                begun?;
                return Err(io::ErrorKind::InvalidInput.into());
            }
            inode.cut(offset);
            let wanted = if is_cut_short { bytes.len() / 2 } else { bytes.len() };
            let fitting = wanted.min(usize::try_from(free).unwrap_or(usize::MAX));
            inode.data.extend_from_slice(&bytes[..fitting]);
            begun?;
            if fitting < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let offset = to_usize(offset)?;
        self.with(|folder| {
            let inode = folder.inode(self.inode)?;
            let end = offset.checked_add(buffer.len());
            match end.and_then(|end| inode.data.get(offset..end)) {
                Some(bytes) => {
                    buffer.copy_from_slice(bytes);
                    Ok(())
                }
                None => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        })
    }

    fn bytes(&self) -> io::Result<u64> {
        self.with(|folder| Ok(folder.inode(self.inode)?.data.len() as u64))
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        let bytes = to_usize(bytes)?;
        self.with(|folder| {
            folder.begin_op()?;
            let inode = folder.inode(self.inode)?;
            if inode.data.len() < bytes {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            if bytes < inode.synced {
                if inode.before_cut.is_none() {
                    inode.before_cut = Some(inode.data[..inode.synced].to_vec());
                }
                inode.synced = bytes;
            }
            inode.cut(bytes);
            Ok(())
        })
    }

    fn reserve(&self, offset: u64, bytes: u64) {
        let _ = self.with(|folder| {
            let inode = folder.inode(self.inode)?;
            inode.reserved = inode.reserved.max(offset + bytes);
            Ok(())
        });
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|folder| {
            let is_off = folder.is_off || folder.is_power_failing();
            let begun = folder.begin_sync();
            let inode = folder.inode(self.inode)?;
            if begun.is_err() && !is_off {
                let from = if inode.dropped.is_empty() { inode.synced } else { inode.dropped.start };
                inode.dropped = from..inode.data.len();
            }
            begun?;
            inode.synced = if inode.dropped.is_empty() {
                inode.data.len()
            } else {
                inode.dropped.start.max(inode.synced)
            };
            inode.before_cut = None;
            Ok(())
        })
    }
}
