//! Freeing room: deleting dead segments, and copying the live rest out of old ones.
//!
//! What is copied was written long ago, so it must be expected on the disk and not in memory: another thread reads it
//! ([`RewriteJob`]), some KiB at a time, and the log writes what is still live of it then.

#[cfg(test)]
mod tests;

use super::disk::Disk;
use super::index::Place;
use super::{Log, LogEntry, LogError, read_run, record};
use crate::failpoint::{self, Point};

/// Most bytes of live entries that one [`Log::maintain`] copies out of an old segment (one record more at
/// most).
pub const REWRITE_BYTES_MAX: usize = 64 << 10;

/// Most entries that one [`Log::maintain`] looks at in search of those to copy.
pub const REWRITE_SCAN_MAX: usize = 1 << 12;

/// The copying of live records out of the first segment.
#[derive(Debug, Default)]
pub(super) struct Rewrite {
    /// Where it goes on; `None`: no segment is being copied.
    cursor: Option<Cursor>,
    step: Step,
}

/// Where the search for live records goes on.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    segment: u32,
    group: u16,
    index: u64,
}

#[derive(Debug, Default)]
enum Step {
    #[default]
    Idle,
    /// To be handed out as a job.
    Wanted(Batch),
    /// Its job is handed out.
    Asked,
    Read(RewriteRead),
}

/// What is copied next.
#[derive(Debug)]
struct Batch {
    segment: u32,
    /// Groups whose identity, hard state or mark may be here. They are in memory.
    heads: Vec<u16>,
    /// Live entries when they were looked for: group, index, place.
    entries: Vec<(u16, u64, Place)>,
    /// Where it then goes on; `None`: that was all.
    next: Option<Cursor>,
}

/// Reads what a [`Log`] wants to copy out of an old segment; on any thread, for it blocks for as long as the disk takes. Give what
/// comes of it to [`Log::rewrite_read`]; until then the log copies nothing more.
#[must_use = "the log waits for it"]
#[derive(Debug)]
pub struct RewriteJob<D: Disk> {
    file: D::File,
    batch: Batch,
}

/// Entries that were read to be copied.
#[derive(Debug)]
pub struct RewriteRead {
    batch: Batch,
    /// One for each place.
    entries: Vec<LogEntry>,
}

impl<D: Disk> RewriteJob<D> {
    /// Does the work.
    ///
    /// # Errors
    /// [`LogError::Unreadable`].
    pub fn run(self) -> Result<RewriteRead, LogError> {
        let mut entries = Vec::with_capacity(self.batch.entries.len());
        for &(group, index, place) in &self.batch.entries {
            read_run(&self.file, group, index, place, 1, &mut entries)
                .map_err(|source| LogError::Unreadable { group, index, source: Box::new(source) })?;
        }
        Ok(RewriteRead { batch: self.batch, entries })
    }
}

impl<D: Disk> Log<D> {
    /// Frees room, a bounded amount of work at a time: hands dead segments to the next
    /// [`SyncJob`](super::SyncJob), which deletes them, and copies live records out of the first segment when
    /// that is mostly dead, or when more than half of the log is. It reads nothing: [`Self::rewrite_job`] does, between
    /// two calls.
    ///
    /// Call it between turns, with nothing staged (else it only deletes). It makes a write of its own, which
    /// the next job covers; only when that is done is the old segment deleted. The log takes at most
    /// about twice its live bytes plus two segments, and what comes while such a job waits for its thread.
    ///
    /// # Errors
    /// As [`Self::write`]; nothing stays staged.
    pub fn maintain(&mut self) -> Result<(), LogError> {
        self.check_usable()?;
        self.retire_dead_segments();
        if self.staged_records != 0 {
            return Ok(());
        }
        match std::mem::take(&mut self.rewrite.step) {
            Step::Read(read) => {
                self.copy(&read)?;
                self.rewrite.cursor = read.batch.next;
            }
            step => self.rewrite.step = step,
        }
        if matches!(self.rewrite.step, Step::Idle)
            && let Some(cursor) = self.choose_rewrite()
        {
            let batch = self.find_live(cursor);
            self.rewrite.step = if batch.entries.is_empty() {
                Step::Read(RewriteRead { batch, entries: Vec::new() })
            } else {
                Step::Wanted(batch)
            };
        }
        Ok(())
    }

    /// Whether something is to be copied, so that [`Self::maintain`] should be called again soon.
    #[must_use]
    pub fn is_rewriting(&self) -> bool {
        !matches!(self.rewrite.step, Step::Idle)
    }

    /// Returns the job that reads what is to be copied next, if that is known and no such job is handed out already.
    #[must_use]
    pub fn rewrite_job(&mut self) -> Option<RewriteJob<D>> {
        match std::mem::take(&mut self.rewrite.step) {
            Step::Wanted(batch) => {
                // `None`: it is dead meanwhile, there is nothing to copy.
                let file = self.segments.get(&batch.segment)?.file.clone();
                self.rewrite.step = Step::Asked;
                Some(RewriteJob { file, batch })
            }
            step => {
                self.rewrite.step = step;
                None
            }
        }
    }

    /// Takes what a [`RewriteJob`] has read; the next [`Self::maintain`] copies what is live of it then.
    ///
    /// # Errors
    /// [`LogError::Unreadable`], as the job told: no segment is freed while that entry is live.
    pub fn rewrite_read(&mut self, read: Result<RewriteRead, LogError>) -> Result<(), LogError> {
        self.rewrite.step = Step::Idle;
        match read {
            Ok(read) => self.rewrite.step = Step::Read(read),
            Err(LogError::Unreadable { group, index, .. }) if !self.is_in_first(group, index) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn is_in_first(&self, group: u16, index: u64) -> bool {
        let place = self.index.groups.get(&group).and_then(|group| group.place(index));
        place.map(|place| place.segment) == self.segments.keys().next().copied()
    }

    /// Takes the dead segments at the front out of the log; the next job deletes them.
    fn retire_dead_segments(&mut self) {
        let synced = self.shared.synced();
        while 1 < self.segments.len() {
            let Some(first) = self.segments.first_entry() else { return };
            let sequence = *first.key();
            // The job that deletes it makes durable first what replaced its records. The segment itself must
            // be durable, for that job leaves it out, and a crash before its deletion would take it for a
            // torn tail.
            if self.index.ledger.live_bytes(sequence) != 0 || synced < first.get().last_write {
                return;
            }
            first.remove();
            self.index.ledger.forget(sequence);
            self.shared.retire(sequence);
        }
    }

    fn choose_rewrite(&self) -> Option<Cursor> {
        let (&segment, first) = self.segments.first_key_value()?;
        let live = self.index.ledger.live_bytes(segment);
        if self.segments.len() < 2 || live == 0 {
            return None;
        }
        if let Some(cursor) = self.rewrite.cursor.filter(|cursor| cursor.segment == segment) {
            return Some(cursor);
        }
        let total = self.disk_bytes();
        let live_total: u64 =
            self.segments.keys().map(|&segment| self.index.ledger.live_bytes(segment)).sum();
        let is_first_mostly_dead = live <= first.bytes / 4;
        let is_log_mostly_dead = 2 * live_total + 2 * self.options.segment_bytes < total;
        (is_first_mostly_dead || is_log_mostly_dead).then_some(Cursor { segment, group: 0, index: 0 })
    }

    /// Live records of the segment, from `cursor` on.
    fn find_live(&self, mut cursor: Cursor) -> Batch {
        let segment = cursor.segment;
        let mut batch = Batch { segment, heads: Vec::new(), entries: Vec::new(), next: None };
        let (mut bytes, mut scanned) = (0, 0);
        for (&id, group) in self.index.groups.range(cursor.group..) {
            if cursor.group != id {
                cursor = Cursor { segment, group: id, index: 0 };
            }
            if cursor.index == 0 {
                batch.heads.push(id);
            }
            for index in group.first.max(cursor.index)..=group.last() {
                if REWRITE_BYTES_MAX <= bytes || REWRITE_SCAN_MAX <= scanned {
                    batch.next = Some(Cursor { segment, group: id, index });
                    return batch;
                }
                scanned += 1;
                if let Some(place) = group.place(index).filter(|place| place.segment == segment) {
                    bytes += place.bytes as usize;
                    batch.entries.push((id, index, place));
                }
            }
        }
        batch
    }

    /// Writes once more what is still live of what was read.
    fn copy(&mut self, read: &RewriteRead) -> Result<(), LogError> {
        for &id in &read.batch.heads {
            self.stage_head(id, read.batch.segment);
        }
        for (&(id, index, place), entry) in read.batch.entries.iter().zip(&read.entries) {
            let now = self.index.groups.get(&id).and_then(|group| group.place(index));
            if now == Some(place) {
                record::put_entry(&mut self.staging, id, entry, true);
                self.staged_records += 1;
            }
        }
        let passed = failpoint::hit(Point::LogRewrite);
        let written =
            passed.map_err(|error| LogError::io("write", "the log", error)).and_then(|()| self.write());
        if written.is_err() {
            self.drop_staged();
        }
        written?;
        failpoint::pass(Point::LogRewritten);
        Ok(())
    }

    /// Stages what `segment` holds of a group beside its entries.
    fn stage_head(&mut self, id: u16, segment: u32) {
        let Some(group) = self.index.groups.get(&id) else { return };
        let is_here = |place: Option<Place>| place.is_some_and(|place| place.segment == segment);
        let (identity, hard_state, mark) = (&group.identity, &group.hard_state, &group.mark);
        if is_here(identity.place) {
            record::put_identity(&mut self.staging, id, &identity.value);
            self.staged_records += 1;
        }
        if is_here(hard_state.place) {
            record::put_hard_state(&mut self.staging, id, &hard_state.value);
            self.staged_records += 1;
        }
        if is_here(mark.place) {
            record::put_mark(&mut self.staging, id, &mark.value, true);
            self.staged_records += 1;
        }
    }
}
