//! The log of one worker: the Raft entries and states of all its groups in one sequence of segment files.
//!
//! All that a turn staged for all groups becomes **one** write; syncing is a job that another thread runs
//! ([`SyncJob`]). The module knows nothing of Raft's rules: entries, hard states, marks and identities are
//! data to it. It reads no clock, starts no thread and holds no randomness.
//!
//! # Files
//! `log-<sequence>.seg`, sequence in ten decimal digits from 1, without gaps. Only the last one is written
//! to, only the first one is ever deleted. Integers are little-endian, checksums are CRC32C (Castagnoli).
//!
//! A segment starts with a header, written together with its first write (that of the very first segment
//! alone, and durable before the log is used; so the oldest segment that is left always begins with a durable
//! header):
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | `RFLOGSEG` |
//! | 8 | 2 | version of this format, 1 |
//! | 10 | 2 | feature level of the writer |
//! | 12 | 4 | sequence, as in the name |
//! | 16 | 8 | number of the first write in this segment |
//! | 24 | 20 | zero |
//! | 44 | 4 | CRC of bytes 0..44 |
//!
//! Then follow writes, back to back. Each is one [`Log::write`] and counts as a whole or not at all:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | `RFwr` |
//! | 4 | 4 | bytes of the records that follow |
//! | 8 | 4 | number of records |
//! | 12 | 8 | number of this write, from 1 over all segments, without gaps |
//! | 20 | 8 | `synced`: all writes up to this number were durable when this one was made |
//! | 28 | 4 | CRC of: sequence of the segment (4), offset of this header in the file (8), bytes 0..28 |
//!
//! and its records, back to back:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | CRC of all that follows in this record |
//! | 4 | 4 | bytes of the body |
//! | 8 | 2 | group |
//! | 10 | 1 | kind of record |
//! | 11 | 1 | kind of entry (opaque; 0 for other records) |
//! | 12 | - | body |
//!
//! | kind | body | meaning |
//! | --- | --- | --- |
//! | 1 entry | index 8, term 8, data | appended; entries of the group from this index on are replaced |
//! | 2 moved entry | index 8, term 8, data | a copy out of an old segment; replaces nothing else |
//! | 3 hard state | term 8, vote 8, commit 8 | the last one counts |
//! | 4 identity | replica 8, incarnation 4, then nothing: it takes part, or 1: suspect, 2: withdrawn | the last one counts |
//! | 5 compact | index 8, term 8, membership | the mark; entries up to the index are dropped |
//! | 6 install | index 8, term 8, membership | the mark; all entries are dropped |
//! | 7 remove | - | all of the group so far is dropped |
//!
//! # Recovery
//! Writes are replayed in order while they are whole and numbered without a gap. At the first that is not,
//! everything after is either a **torn tail**, which is cut (including whole later segments, whose blocks may
//! reach the disk earlier), or **damage**, which is reported. It is damage when a later write proves that the
//! missing one was durable (`synced`) - or, when only the process stopped ([`LastStop::Process`]), when there
//! is any later write at all, for a stopped process loses nothing in the middle. (Looking for a later whole
//! record alone would mistake an ordinary loss of power for damage: unsynced blocks reach the disk in any
//! order.) Before [`Log::open`] returns, the writes that no later one calls durable are written once more, at the same
//! place, and all is synced: after a failed sync the system may hold them for written (see [`SyncJob::run`]).
//!
//! # What is not here
//! No per-group files, no compression, no cache of recent entries (the caller has one), no retry after a
//! failed sync.

#[cfg(test)]
mod crash_tests;
mod disk;
mod error;
mod index;
mod mem_disk;
mod record;
mod recover;
mod rewrite;
mod snapshot;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::failpoint::{self, Point};
use bytes::{Bytes, BytesMut};

pub use disk::{Disk, DiskFile, FsDisk, FsFile};
pub use error::LogError;
pub use mem_disk::{CrashImage, MemDisk, MemFile};
pub use rewrite::{REWRITE_BYTES_MAX, REWRITE_SCAN_MAX, RewriteJob, RewriteRead};
pub use snapshot::{
    CHUNK_BYTES_MAX, CONF_BYTES_MAX, IncomingSnapshot, SnapshotFiles, SnapshotHeader, SnapshotJob,
    SnapshotReader, SnapshotWriter,
};
pub use sync::SyncJob;

use index::{Group, Index, Place};
use record::{
    ENTRY_HEADER_BYTES, RECORD_HEADER_BYTES, Record, SEGMENT_HEADER_BYTES, SegmentHeader, WRITE_HEADER_BYTES,
    WriteHeader,
};
use rewrite::Rewrite;
use sync::Shared;

/// Default of [`LogOptions::segment_bytes`]: large enough that segments change seldom, small enough that dead
/// ones free room soon.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;

/// Largest [`LogOptions::segment_bytes`]; offsets are kept in 32 bits.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Most bytes that may be staged for one write.
pub const WRITE_BYTES_MAX: usize = 1 << 30;

/// Room for staged records that is kept from one write to the next; a turn stages about 1 MiB.
const STAGING_KEPT_BYTES_MAX: usize = 4 << 20;

/// One entry of the log of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Position in the log of the group, from 1.
    pub index: u64,
    /// Raft term.
    pub term: u64,
    /// Kind of entry (normal, membership change, ...); opaque to the log.
    pub kind: u8,
    /// Content; opaque to the log.
    pub data: Bytes,
}

/// What Raft must remember besides entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Current term.
    pub term: u64,
    /// Replica voted for in that term; 0 for none.
    pub vote: u64,
    /// Commit index.
    pub commit: u64,
}

/// The point after which the log of a group starts: the last entry that its snapshot contains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Index of the last entry before the log; 0 for an empty start.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// Membership at that entry; opaque to the log.
    pub conf: Bytes,
}

/// Who this replica of a group is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Replica id.
    pub replica: u64,
    /// Incarnation of the group.
    pub incarnation: u32,
    /// Whether it takes part in the group.
    pub standing: Standing,
}

/// Whether a replica takes part in its group. What stands aside never does again under its replica id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    #[default]
    Active,
    /// It stands aside, for the end of its log may be missing: the machine stopped before it was synced.
    Suspect,
    /// It stands aside with a whole log, so that its group can start anew.
    Withdrawn,
}

/// The state of one group as recovered; values never written are the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The group.
    pub group: u16,
    /// Who this replica is.
    pub identity: Identity,
    /// Raft's hard state.
    pub hard_state: HardState,
    /// The log starts after this.
    pub mark: Mark,
    /// Index of the last entry, or of the mark when there is none.
    pub last_index: u64,
    /// Runs of terms: index of the first entry of each run, and its term.
    pub terms: Vec<(u64, u64)>,
}

/// How the process that wrote the log last came to its end; see *Recovery* in the [module](self).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastStop {
    /// Only the process stopped, and [`Log::open`] has succeeded since the machine started (so record the
    /// boot id after it): a gap before any later write is damage.
    Process,
    /// The machine may have stopped, or this is not known: unsynced writes may be missing in any order.
    #[default]
    Machine,
}

/// Settings of a [`Log`].
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// A write that would make its segment longer goes to a new one; at most [`SEGMENT_BYTES_MAX`].
    pub segment_bytes: u64,
    /// Feature level to put into new segments.
    pub feature_level: u16,
    /// How the last process ended.
    pub last_stop: LastStop,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES_DEFAULT, feature_level: 1, last_stop: LastStop::default() }
    }
}

/// The log of one worker; the layout of its files is described in the [module](self).
///
/// # Invariants
/// - `staging` = room for a segment header, room for a write header, then the staged records.
/// - The memory index says exactly what recovery of the files as written would say.
#[derive(Debug)]
pub struct Log<D: Disk> {
    disk: D,
    options: LogOptions,
    segments: BTreeMap<u32, Segment<D::File>>,
    index: Index,
    staging: Vec<u8>,
    staged_records: u32,
    /// Mark index and last index, as staged, of the groups that have staged entries, marks or removals;
    /// sorted by group.
    staged_ranges: Vec<(u16, u64, u64)>,
    /// Number of the last write.
    written: u64,
    /// A failed write could not be taken back.
    is_broken: bool,
    shared: Arc<Shared>,
    rewrite: Rewrite,
}

/// A segment file that is not deleted.
#[derive(Debug)]
struct Segment<F> {
    file: F,
    bytes: u64,
    first_write: u64,
    last_write: u64,
}

fn segment_name(sequence: u32) -> String {
    format!("log-{sequence:010}.seg")
}

fn segment_sequence(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("log-")?.strip_suffix(".seg")?;
    let sequence = digits.parse().ok()?;
    (sequence != 0 && segment_name(sequence) == name).then_some(sequence)
}

impl<D: Disk> Log<D> {
    /// Opens the log of `disk` and says what it holds; an empty disk is an empty log.
    ///
    /// A torn tail is cut, and all that is recovered is durable when this returns, so it may block for as
    /// long as the disk takes.
    ///
    /// # Errors
    /// [`LogError::Damaged`] and [`LogError::Version`]: the node must not start with this data.
    /// [`LogError::Io`]: the system's error.
    pub fn open(disk: D, options: LogOptions) -> Result<(Self, Vec<Recovered>), LogError> {
        let options = LogOptions { segment_bytes: options.segment_bytes.min(SEGMENT_BYTES_MAX), ..options };
        let recovery = recover::recover(&disk, options.last_stop, options.feature_level)?;
        let recovered = recovery.index.groups.iter().map(|(&id, group)| group.recovered(id)).collect();
        let log = Self {
            disk,
            options,
            segments: recovery.segments,
            index: recovery.index,
            staging: vec![0; SEGMENT_HEADER_BYTES + WRITE_HEADER_BYTES],
            staged_records: 0,
            staged_ranges: Vec::new(),
            written: recovery.written,
            is_broken: false,
            shared: Arc::new(Shared::new(recovery.written)),
            rewrite: Rewrite::default(),
        };
        Ok((log, recovered))
    }

    /// Stages who this replica of `group` is.
    ///
    /// # Errors
    /// [`LogError::Failed`], [`LogError::TooLarge`].
    pub fn stage_identity(&mut self, group: u16, identity: &Identity) -> Result<(), LogError> {
        self.make_room(0)?;
        record::put_identity(&mut self.staging, group, identity);
        self.staged_records += 1;
        Ok(())
    }

    /// Stages `entries`, which continue each other; an index that exists replaces the entries from there on.
    ///
    /// # Errors
    /// [`LogError::Compacted`] and [`LogError::Beyond`] when they do not fit to the log as staged so far,
    /// [`LogError::TooLarge`] when more than [`WRITE_BYTES_MAX`] would be staged, [`LogError::Failed`];
    /// nothing is staged then.
    pub fn stage_entries(&mut self, group: u16, entries: &[LogEntry]) -> Result<(), LogError> {
        let Some(first) = entries.first() else { return Ok(()) };
        let (mark, last) = self.staged_range(group);
        if first.index <= mark {
            return Err(LogError::Compacted { group, index: first.index, mark });
        }
        if last < u64::MAX && last + 1 < first.index {
            return Err(LogError::Beyond { group, index: first.index, last });
        }
        let mut bytes = 0_usize;
        let mut next = first.index;
        for entry in entries {
            if entry.index != next || next == u64::MAX {
                return Err(LogError::Beyond { group, index: entry.index, last: next - 1 });
            }
            next += 1;
            bytes = bytes
                .saturating_add(RECORD_HEADER_BYTES + ENTRY_HEADER_BYTES)
                .saturating_add(entry.data.len());
        }
        self.make_room(bytes)?;
        for entry in entries {
            record::put_entry(&mut self.staging, group, entry, false);
            self.staged_records += 1;
        }
        self.set_staged_range(group, mark, next - 1);
        Ok(())
    }

    /// Stages the hard state of `group`.
    ///
    /// # Errors
    /// [`LogError::Failed`], [`LogError::TooLarge`].
    pub fn stage_hard_state(&mut self, group: u16, state: &HardState) -> Result<(), LogError> {
        self.make_room(0)?;
        record::put_hard_state(&mut self.staging, group, state);
        self.staged_records += 1;
        Ok(())
    }

    /// Stages the point after which the log of `group` starts.
    ///
    /// With `keep_log` (compaction) the entries up to `mark.index` are dropped; without it (a snapshot was
    /// installed) all are. The snapshot that the mark relies on must be durable before.
    ///
    /// # Errors
    /// [`LogError::Compacted`] when a compaction would go back, [`LogError::Failed`], [`LogError::TooLarge`].
    pub fn stage_mark(&mut self, group: u16, mark: &Mark, keep_log: bool) -> Result<(), LogError> {
        let (old, last) = self.staged_range(group);
        if keep_log && mark.index < old {
            return Err(LogError::Compacted { group, index: mark.index, mark: old });
        }
        if mark.index == u64::MAX {
            return Err(LogError::Beyond { group, index: mark.index, last });
        }
        self.make_room(mark.conf.len())?;
        record::put_mark(&mut self.staging, group, mark, keep_log);
        self.staged_records += 1;
        self.set_staged_range(group, mark.index, if keep_log { last.max(mark.index) } else { mark.index });
        Ok(())
    }

    /// Stages the removal of all that the log has of `group`.
    ///
    /// # Errors
    /// [`LogError::Failed`], [`LogError::TooLarge`].
    pub fn stage_remove_group(&mut self, group: u16) -> Result<(), LogError> {
        self.make_room(0)?;
        record::put_remove(&mut self.staging, group);
        self.staged_records += 1;
        self.set_staged_range(group, 0, 0);
        Ok(())
    }

    /// Forgets all that is staged: after a failed [`Self::write`] that will not be tried again.
    pub fn drop_staged(&mut self) {
        self.staging.truncate(SEGMENT_HEADER_BYTES + WRITE_HEADER_BYTES);
        self.staging.shrink_to(STAGING_KEPT_BYTES_MAX);
        self.staged_records = 0;
        self.staged_ranges.clear();
    }

    /// Writes all that is staged, of all groups, with one write, and returns its number; with nothing staged,
    /// that of the last write.
    ///
    /// The write survives a crash of the process from now on, and one of the machine when a [`SyncJob`] that
    /// goes through its number is done.
    ///
    /// # Errors
    /// [`LogError::Full`] and [`LogError::Io`]: the file is as before, what was staged still is; stop
    /// acknowledging, and either try again when there is room or [`Self::drop_staged`].
    /// [`LogError::Failed`]: the node must stop.
    pub fn write(&mut self) -> Result<u64, LogError> {
        self.check_usable()?;
        if self.staged_records == 0 {
            return Ok(self.written);
        }
        let records_bytes = self.staging.len() - SEGMENT_HEADER_BYTES - WRITE_HEADER_BYTES;
        let added = (records_bytes + WRITE_HEADER_BYTES) as u64;
        let current = self.segments.last_key_value().map(|(&sequence, segment)| (sequence, segment.bytes));
        let (sequence, old_bytes, start) = match current {
            Some((sequence, bytes)) if bytes + added <= self.options.segment_bytes => {
                (sequence, bytes, SEGMENT_HEADER_BYTES)
            }
            current => {
                let last = current.map_or(0, |(sequence, _)| sequence);
                (last.checked_add(1).ok_or(LogError::Failed)?, 0, 0)
            }
        };
        let is_new = start == 0;
        let records_at = old_bytes + (WRITE_HEADER_BYTES + SEGMENT_HEADER_BYTES - start) as u64;
        let write = self.written + 1;
        self.fill_headers(sequence, records_at, write, records_bytes);
        let file = if is_new {
            self.create_segment(sequence, start)?
        } else {
            self.append_segment(sequence, old_bytes, start)?
        };

        let segment = self.segments.entry(sequence).or_insert(Segment {
            file,
            bytes: 0,
            first_write: write,
            last_write: write,
        });
        segment.bytes = records_at + records_bytes as u64;
        segment.last_write = write;
        self.written = write;
        self.index_staged(sequence, records_at);
        self.drop_staged();
        Ok(write)
    }

    /// Returns the job that makes all writes so far durable, or `None` when nothing was written since the
    /// last job was taken.
    ///
    /// # Errors
    /// The job itself reports them; after a failed one this log accepts nothing more.
    #[must_use]
    pub fn sync_job(&mut self) -> Option<SyncJob<D>> {
        let synced = self.shared.take_request(self.written)?;
        let dirty = || self.segments.iter().filter(|(_, segment)| synced < segment.last_write);
        let files = dirty().map(|(&sequence, segment)| (sequence, segment.file.clone())).collect();
        let has_new_names = dirty().any(|(_, segment)| synced < segment.first_write);
        let shared = Arc::clone(&self.shared);
        let bytes = self.options.segment_bytes;
        Some(SyncJob::new(self.disk.clone(), shared, files, bytes, has_new_names, self.written))
    }

    /// Whether something is staged that no write has taken yet.
    #[must_use]
    pub fn has_staged(&self) -> bool {
        self.staged_records > 0
    }

    /// Returns the number of the last write.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Returns the number of the last write that is durable.
    #[must_use]
    pub fn synced(&self) -> u64 {
        self.shared.synced()
    }

    /// Reads the entries of `group` from `lo` up to, not including, `hi`: as many as fit into `bytes_max`
    /// bytes of records, but at least one if `lo < hi`. Staged entries that are not written yet are not
    /// there.
    ///
    /// # Errors
    /// [`LogError::Compacted`], [`LogError::Beyond`]; [`LogError::Io`]; [`LogError::Damaged`]: the node must
    /// stop.
    pub fn read(&self, group: u16, lo: u64, hi: u64, bytes_max: usize) -> Result<Vec<LogEntry>, LogError> {
        let mut entries = Vec::new();
        if hi <= lo {
            return Ok(entries);
        }
        let Some(live) = self.index.groups.get(&group) else {
            return Err(LogError::Beyond { group, index: lo, last: 0 });
        };
        if lo < live.first {
            return Err(LogError::Compacted { group, index: lo, mark: live.first - 1 });
        }
        if live.last() < hi - 1 {
            return Err(LogError::Beyond { group, index: hi - 1, last: live.last() });
        }
        let mut bytes_left = bytes_max;
        let mut at = lo;
        while at < hi {
            let Some((run, count)) = longest_run(live, at, hi, bytes_left, entries.is_empty()) else { break };
            let segment = self.segments.get(&run.segment).ok_or(LogError::Failed)?;
            read_run(&segment.file, group, at, run, count, &mut entries)?;
            bytes_left = bytes_left.saturating_sub(run.bytes as usize);
            at += count;
        }
        Ok(entries)
    }

    /// Returns the index of the first entry that may be read (one after the mark; 1 for an unknown group).
    #[must_use]
    pub fn first_index(&self, group: u16) -> u64 {
        self.index.groups.get(&group).map_or(1, |live| live.first)
    }

    /// Returns the index of the last entry written, or of the mark when there is none (0 for an unknown
    /// group).
    #[must_use]
    pub fn last_index(&self, group: u16) -> u64 {
        self.index.groups.get(&group).map_or(0, Group::last)
    }

    /// Returns the term of the entry at `index`, or of the mark; `None` when the log has neither.
    #[must_use]
    pub fn term(&self, group: u16, index: u64) -> Option<u64> {
        self.index.groups.get(&group)?.term(index)
    }

    /// Returns all that is written of `group`, as recovery would; `None` for an unknown group.
    #[must_use]
    pub fn group(&self, group: u16) -> Option<Recovered> {
        self.index.groups.get(&group).map(|live| live.recovered(group))
    }

    /// Returns the bytes which the entries of `group` after its mark take.
    #[must_use]
    pub fn group_bytes(&self, group: u16) -> u64 {
        self.index.groups.get(&group).map_or(0, |live| live.entries_bytes)
    }

    /// Returns the bytes of all segment files.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    /// Returns the number of segment files.
    #[must_use]
    pub fn segments_len(&self) -> usize {
        self.segments.len()
    }

    /// Returns the bytes that may still be written to the file system.
    ///
    /// # Errors
    /// Whatever the system reports.
    pub fn disk_free(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    /// Asserts what must always hold, at a cost of `O(all live entries)`: for tests.
    ///
    /// # Panics
    /// When it does not.
    pub fn check_invariants(&self) {
        let mut live: BTreeMap<u32, u64> = BTreeMap::new();
        for (id, group) in &self.index.groups {
            let state = [group.identity.place, group.hard_state.place, group.mark.place];
            assert_eq!(
                group.first,
                group.mark.value.index + 1,
                "group {id}: the log must start after the mark"
            );
            let entries: u64 = group.places.iter().map(|place| u64::from(place.bytes)).sum();
            assert_eq!(group.entries_bytes, entries, "group {id}: bytes of entries");
            assert_eq!(group.terms.is_empty(), group.places.is_empty(), "group {id}: terms without entries");
            for place in state.into_iter().flatten().chain(group.places.iter().copied()) {
                let segment =
                    self.segments.get(&place.segment).expect("a live record lies in a segment that exists");
                let end = u64::from(place.offset) + u64::from(place.bytes);
                assert!(end <= segment.bytes, "group {id}: a live record lies beyond its segment");
                *live.entry(place.segment).or_default() += u64::from(place.bytes);
            }
        }
        for &sequence in self.segments.keys() {
            let counted = live.get(&sequence).copied().unwrap_or(0);
            assert_eq!(self.index.ledger.live_bytes(sequence), counted, "live bytes of segment {sequence}");
        }
        let sequences: Vec<u32> = self.segments.keys().copied().collect();
        assert!(sequences.windows(2).all(|pair| pair[0] + 1 == pair[1]), "segments without a gap");
        assert!(self.shared.synced() <= self.written, "only what is written can be durable");
    }

    fn check_usable(&self) -> Result<(), LogError> {
        if self.is_broken || self.shared.has_failed() { Err(LogError::Failed) } else { Ok(()) }
    }

    /// Checks that a record with `bytes` more may be staged.
    fn make_room(&self, bytes: usize) -> Result<(), LogError> {
        self.check_usable()?;
        let bytes = self.staging.len().saturating_add(bytes).saturating_add(64);
        if WRITE_BYTES_MAX < bytes {
            return Err(LogError::TooLarge { bytes, max: WRITE_BYTES_MAX });
        }
        Ok(())
    }

    fn staged_range(&self, group: u16) -> (u64, u64) {
        if let Ok(at) = self.staged_ranges.binary_search_by_key(&group, |range| range.0) {
            let (_, mark, last) = self.staged_ranges[at];
            return (mark, last);
        }
        self.index.groups.get(&group).map_or((0, 0), |live| (live.first - 1, live.last()))
    }

    fn set_staged_range(&mut self, group: u16, mark: u64, last: u64) {
        match self.staged_ranges.binary_search_by_key(&group, |range| range.0) {
            Ok(at) => self.staged_ranges[at] = (group, mark, last),
            Err(at) => self.staged_ranges.insert(at, (group, mark, last)),
        }
    }

    fn fill_headers(&mut self, sequence: u32, records_at: u64, write: u64, records_bytes: usize) {
        let segment =
            SegmentHeader { feature_level: self.options.feature_level, sequence, first_write: write }
                .encode();
        let header = WriteHeader {
            records_bytes: u32::try_from(records_bytes).expect("bounded by WRITE_BYTES_MAX"),
            records: self.staged_records,
            write,
            synced: self.shared.synced(),
        };
        let header = header.encode(sequence, records_at - WRITE_HEADER_BYTES as u64);
        let (first, rest) = self.staging.split_at_mut(SEGMENT_HEADER_BYTES);
        first.copy_from_slice(&segment);
        rest[..WRITE_HEADER_BYTES].copy_from_slice(&header);
    }

    fn create_segment(&mut self, sequence: u32, start: usize) -> Result<D::File, LogError> {
        let name = segment_name(sequence);
        let created = failpoint::hit(Point::LogSegmentCreate).and_then(|()| self.disk.create(&name));
        let file = created.map_err(|error| LogError::io("create", &name, error))?;
        let bytes = &self.staging[start..];
        let written = failpoint::torn(Point::LogSegmentTorn, bytes, |bytes| file.write_at(0, bytes))
            .and_then(|()| failpoint::hit(Point::LogSegmentWritten));
        if let Err(error) = written {
            if self.disk.remove(&name).is_err() {
                self.is_broken = true;
            }
            return Err(LogError::io("write", name, error));
        }
        Ok(file)
    }

    fn append_segment(&mut self, sequence: u32, old_bytes: u64, start: usize) -> Result<D::File, LogError> {
        let segment = self.segments.get(&sequence).ok_or(LogError::Failed)?;
        let bytes = &self.staging[start..];
        let write = |bytes: &[u8]| segment.file.write_at(old_bytes, bytes);
        let written = failpoint::hit(Point::LogAppend)
            .and_then(|()| failpoint::torn(Point::LogAppendTorn, bytes, write))
            .and_then(|()| failpoint::hit(Point::LogAppended));
        if let Err(error) = written {
            if segment.file.truncate(old_bytes).is_err() {
                self.is_broken = true;
            }
            return Err(LogError::io("write", segment_name(sequence), error));
        }
        Ok(segment.file.clone())
    }

    /// Takes the staged records, which were just written, into the index.
    fn index_staged(&mut self, segment: u32, records_at: u64) {
        let mut rest = &self.staging[SEGMENT_HEADER_BYTES + WRITE_HEADER_BYTES..];
        let mut offset = u32::try_from(records_at).expect("bounded by SEGMENT_BYTES_MAX");
        while !rest.is_empty() {
            let framed = record::parse(rest).expect("the log encoded this record itself");
            let bytes = u32::try_from(framed.bytes).expect("bounded by WRITE_BYTES_MAX");
            self.index.apply(&framed, Place { segment, offset, bytes });
            rest = &rest[framed.bytes..];
            offset += bytes;
        }
    }
}

/// Reads `count` records that lie back to back at `run` of `file`.
fn read_run(
    file: &impl DiskFile,
    group: u16,
    first: u64,
    run: Place,
    count: u64,
    entries: &mut Vec<LogEntry>,
) -> Result<(), LogError> {
    let mut buffer = BytesMut::zeroed(run.bytes as usize);
    failpoint::hit(Point::LogRead)
        .and_then(|()| file.read_at(u64::from(run.offset), &mut buffer))
        .map_err(|error| LogError::io("read", segment_name(run.segment), error))?;
    let bytes = Bytes::from(buffer);
    let mut at = 0;
    for index in first..first + count {
        let damaged = |what| LogError::Damaged {
            file: segment_name(run.segment),
            offset: u64::from(run.offset) + at as u64,
            what,
        };
        let framed =
            record::decode(&bytes[at..]).map_err(|_| damaged("the record of an entry is damaged"))?;
        let Record::Entry { index: found, term, kind, data, .. } = framed.record else {
            return Err(damaged("this is not the record of an entry"));
        };
        if framed.group != group || found != index {
            return Err(damaged("this is the record of another entry"));
        }
        entries.push(LogEntry { index, term, kind, data: bytes.slice_ref(data) });
        at += framed.bytes;
    }
    Ok(())
}

/// Returns the longest run of records from `at` on that lie back to back in one segment and take at most
/// `bytes_max` together, and their number; `None` when not even the first fits and it is not `forced`.
fn longest_run(group: &Group, at: u64, hi: u64, bytes_max: usize, forced: bool) -> Option<(Place, u64)> {
    let mut run = group.place(at)?;
    if bytes_max < run.bytes as usize && !forced {
        return None;
    }
    let mut count = 1;
    while let Some(place) = group.place(at + count).filter(|_| at + count < hi) {
        let bytes = run.bytes as usize + place.bytes as usize;
        if (place.segment, place.offset) != (run.segment, run.offset + run.bytes) || bytes_max < bytes {
            break;
        }
        run.bytes += place.bytes;
        count += 1;
    }
    Some((run, count))
}
