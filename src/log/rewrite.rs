//! Freeing room: deleting dead segments, and copying the live rest out of old ones.

use super::disk::Disk;
use super::index::Place;
use super::{Log, LogError, record};
use crate::failpoint::{self, Point};

/// Most bytes of live entries that one [`Log::maintain`] copies out of an old segment (one record more at
/// most).
pub const REWRITE_BYTES_MAX: usize = 64 << 10;

/// Most entries that one [`Log::maintain`] looks at in search of those to copy.
pub const REWRITE_SCAN_MAX: usize = 1 << 12;

/// Where the copying of live records out of the first segment goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rewrite {
    segment: u32,
    group: u16,
    index: u64,
}

impl<D: Disk> Log<D> {
    /// Frees room, a bounded amount of work at a time: hands dead segments to the next
    /// [`SyncJob`](super::SyncJob), which deletes them, and copies live records out of the first segment when
    /// that is mostly dead, or when more than half of the log is.
    ///
    /// Call it between turns, with nothing staged (else it only deletes). It makes a write of its own, which
    /// the next job covers; only when that is done is the old segment deleted. The log takes at most
    /// about twice its live bytes plus two segments.
    ///
    /// # Errors
    /// As [`Self::write`]; nothing stays staged. [`LogError::Unreadable`]: no segment is freed while that entry is live.
    pub fn maintain(&mut self) -> Result<(), LogError> {
        self.check_usable()?;
        self.retire_dead_segments();
        if self.staged_records != 0 {
            return Ok(());
        }
        let Some(mut rewrite) = self.choose_rewrite() else { return Ok(()) };
        let result = self.stage_rewrite(&mut rewrite).and_then(|is_done| {
            let passed = failpoint::hit(Point::LogRewrite);
            passed.map_err(|error| LogError::io("write", "the log", error))?;
            self.write()?;
            failpoint::pass(Point::LogRewritten);
            Ok(is_done)
        });
        match result {
            Ok(is_done) => {
                self.rewrite = (!is_done).then_some(rewrite);
                Ok(())
            }
            Err(error) => {
                self.drop_staged();
                Err(error)
            }
        }
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

    fn choose_rewrite(&self) -> Option<Rewrite> {
        let (&segment, first) = self.segments.first_key_value()?;
        let live = self.index.ledger.live_bytes(segment);
        if self.segments.len() < 2 || live == 0 {
            return None;
        }
        if let Some(rewrite) = self.rewrite.filter(|rewrite| rewrite.segment == segment) {
            return Some(rewrite);
        }
        let total = self.disk_bytes();
        let live_total: u64 =
            self.segments.keys().map(|&segment| self.index.ledger.live_bytes(segment)).sum();
        let is_first_mostly_dead = live <= first.bytes / 4;
        let is_log_mostly_dead = 2 * live_total + 2 * self.options.segment_bytes < total;
        (is_first_mostly_dead || is_log_mostly_dead).then_some(Rewrite { segment, group: 0, index: 0 })
    }

    /// Stages copies of live records of the segment, from where `rewrite` stands; returns whether that was
    /// all.
    fn stage_rewrite(&mut self, rewrite: &mut Rewrite) -> Result<bool, LogError> {
        let mut scanned = 0;
        let mut next = self.index.groups.range(rewrite.group..).next().map(|(&id, _)| id);
        while let Some(id) = next {
            if rewrite.group != id {
                *rewrite = Rewrite { group: id, index: 0, ..*rewrite };
            }
            if !self.stage_rewrite_group(rewrite, &mut scanned)? {
                return Ok(false);
            }
            next = id.checked_add(1).and_then(|id| self.index.groups.range(id..).next()).map(|(&id, _)| id);
        }
        Ok(true)
    }

    fn stage_rewrite_group(&mut self, rewrite: &mut Rewrite, scanned: &mut usize) -> Result<bool, LogError> {
        let Rewrite { segment, group: id, .. } = *rewrite;
        let Some(group) = self.index.groups.get(&id) else { return Ok(true) };
        let is_here = |place: Option<Place>| place.is_some_and(|place| place.segment == segment);
        if rewrite.index == 0 {
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
        let (first, last) = (group.first.max(rewrite.index), group.last());
        for index in first..=last {
            if REWRITE_BYTES_MAX <= self.staging.len() || REWRITE_SCAN_MAX <= *scanned {
                rewrite.index = index;
                return Ok(false);
            }
            *scanned += 1;
            let place = self.index.groups.get(&id).and_then(|group| group.place(index));
            let Some(place) = place.filter(|place| place.segment == segment) else { continue };
            let mut entries = Vec::with_capacity(1);
            self.read_run(id, index, place, 1, &mut entries).map_err(|source| LogError::Unreadable {
                group: id,
                index,
                source: Box::new(source),
            })?;
            for entry in &entries {
                record::put_entry(&mut self.staging, id, entry, true);
                self.staged_records += 1;
            }
        }
        Ok(true)
    }
}
