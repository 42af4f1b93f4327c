//! Making writes durable, on another thread than the one that writes.

use std::collections::VecDeque;
use std::io;

use parking_lot::Mutex;

use super::disk::{Disk, DiskFile};
use super::{LogError, segment_name};
use crate::failpoint::{self, Point};
use std::sync::Arc;

/// The part of a segment that a job reserves, for what is written until the next job runs: those writes then do not wait
/// until the file system has found room, which on ext4 they do for as long as a sync looks for some.
const RESERVED_PART: u64 = 4;
/// No room is reserved where less than this is free, in bytes: the disk would count as full too early.
const RESERVED_FREE_MIN: u64 = 2 << 30;

/// What a [`Log`](super::Log) and its jobs share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Held while a job runs: jobs of one log run one after the other.
    running: Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// All writes up to this number are durable.
    synced: u64,
    /// Jobs were handed out for all writes up to this number.
    requested: u64,
    /// Room is reserved in the segment of this sequence, up to this length.
    reserved: (u32, u64),
    /// A sync has failed: what is durable is unknown.
    has_failed: bool,
    /// Sequences of dead segments that are still to be deleted, oldest first.
    retired: VecDeque<u32>,
    /// Jobs were handed out for all retired segments up to this sequence.
    retired_requested: u32,
}

impl Shared {
    pub(super) fn new(synced: u64) -> Self {
        let state = State {
            synced,
            requested: synced,
            reserved: (0, 0),
            has_failed: false,
            retired: VecDeque::new(),
            retired_requested: 0,
        };
        Self { state: Mutex::new(state), running: Mutex::new(()) }
    }

    pub(super) fn synced(&self) -> u64 {
        self.state.lock().synced
    }

    pub(super) fn has_failed(&self) -> bool {
        self.state.lock().has_failed
    }

    pub(super) fn retire(&self, sequence: u32) {
        self.state.lock().retired.push_back(sequence);
    }

    /// Notes that a job is handed out for the writes up to `written` and returns up to where they are
    /// durable; `None` when there is nothing to do.
    pub(super) fn take_request(&self, written: u64) -> Option<u64> {
        let mut state = self.state.lock();
        let retired = state.retired.back().copied().unwrap_or(0);
        if state.has_failed || (written <= state.requested && retired <= state.retired_requested) {
            return None;
        }
        state.requested = written;
        state.retired_requested = state.retired_requested.max(retired);
        Some(state.synced)
    }
}

/// Makes all writes up to [`Self::through`] durable, then deletes segments that died before.
///
/// It may run on any thread, and blocks for as long as the disk takes. Jobs of one log run one after the
/// other; a job that is dropped without having run is covered by the next.
#[must_use = "nothing is durable until the job has run"]
#[derive(Debug)]
pub struct SyncJob<D: Disk> {
    disk: D,
    shared: Arc<Shared>,
    files: Vec<(u32, D::File)>,
    /// Length that the last of them may get, in bytes.
    segment_bytes: u64,
    has_new_names: bool,
    through: u64,
    /// Retired segments up to this sequence may be deleted: each later segment that existed is among `files`
    /// or durable.
    delete_up_to: u32,
    has_run: bool,
}

impl<D: Disk> SyncJob<D> {
    pub(super) fn new(
        disk: D,
        shared: Arc<Shared>,
        files: Vec<(u32, D::File)>,
        segment_bytes: u64,
        has_new_names: bool,
        through: u64,
    ) -> Self {
        let delete_up_to = shared.state.lock().retired_requested;
        Self { disk, shared, files, segment_bytes, has_new_names, through, delete_up_to, has_run: false }
    }

    /// Returns the number of the last write that is durable when this job is done.
    #[must_use]
    pub fn through(&self) -> u64 {
        self.through
    }

    /// Does the work.
    ///
    /// # Errors
    /// [`LogError::Io`] when a sync fails. What is durable is then unknown, and no later sync can tell: the system may
    /// hold the lost pages for clean. The log of this job accepts nothing more, every later job fails with
    /// [`LogError::Failed`], the node must stop, and its replicas are to be treated as after a crash of the machine:
    /// recovery writes again what it still finds, but some may be gone.
    pub fn run(mut self) -> Result<(), LogError> {
        let shared = Arc::clone(&self.shared);
        let _running = shared.running.lock();
        self.has_run = true;
        if shared.has_failed() {
            return Err(LogError::Failed);
        }
        let result = self.sync().and_then(|()| self.delete_retired());
        if result.is_err() {
            shared.state.lock().has_failed = true;
        }
        result
    }

    fn sync(&self) -> Result<(), LogError> {
        self.reserve();
        for (sequence, file) in &self.files {
            let synced = failpoint::hit(Point::LogSync).and_then(|()| file.sync());
            synced.map_err(|error| LogError::io("sync", segment_name(*sequence), error))?;
        }
        if self.has_new_names {
            let passed = failpoint::hit(Point::LogSyncFolder);
            passed.map_err(|error| LogError::io("sync the folder of", "the log", error))?;
            self.sync_folder()?;
        }
        failpoint::pass(Point::LogSynced);
        let mut state = self.shared.state.lock();
        state.synced = state.synced.max(self.through);
        Ok(())
    }

    /// Reserves room for the writes to come, once half of what was reserved before is used.
    fn reserve(&self) {
        let Some((sequence, file)) = self.files.last() else { return };
        let Ok(written) = file.bytes() else { return };
        let (last, reserved) = self.shared.state.lock().reserved;
        let from = if last == *sequence { written.max(reserved) } else { written };
        let part = self.segment_bytes / RESERVED_PART;
        let to = self.segment_bytes.min(written + part);
        let is_enough = to <= from || written + part / 2 < from;
        if is_enough || !self.disk.free_bytes().is_ok_and(|free| RESERVED_FREE_MIN <= free) {
            return;
        }
        file.reserve(from, to - from);
        self.shared.state.lock().reserved = (*sequence, to);
    }

    /// Deletes one segment at a time, each durably before the next, so that no crash leaves a gap.
    fn delete_retired(&self) -> Result<(), LogError> {
        loop {
            let first = self.shared.state.lock().retired.front().copied();
            let Some(sequence) = first.filter(|&sequence| sequence <= self.delete_up_to) else {
                return Ok(());
            };
            let name = segment_name(sequence);
            match failpoint::hit(Point::LogSegmentRemove).and_then(|()| self.disk.remove(&name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(LogError::io("remove", name, error));
                }
                _ => {
                    failpoint::pass(Point::LogSegmentRemoved);
                    self.sync_folder()?;
                }
            }
            self.shared.state.lock().retired.pop_front();
        }
    }

    fn sync_folder(&self) -> Result<(), LogError> {
        self.disk.sync_folder().map_err(|error| LogError::io("sync the folder of", "the log", error))
    }
}

impl<D: Disk> Drop for SyncJob<D> {
    fn drop(&mut self) {
        if !self.has_run {
            let mut state = self.shared.state.lock();
            state.requested = state.requested.min(state.synced);
            state.retired_requested = 0;
        }
    }
}
