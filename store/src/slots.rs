//! The tables of a store: for each slot the references of its records, in buckets of a cache line, and the records.
//!
//! ```text
//! hash   [ d bits: segment ][ 8 bits: position in the segment ] ...            [ 8 bits: tag ]
//!
//! slot -> (directory of 2^D segments, when there are more than one) -> segment -> bucket -> record
//! ```
//!
//! A slot has one segment of up to ten buckets; when that is full it splits by the next bit of the hash, as extendible
//! hashing does (Fagin et al. 1979). So one slot can hold millions of keys, and no insert ever moves more than a segment's
//! worth of references, but for the directory, which is copied when it doubles (4 bytes for each 40 to 80 keys).
//! Within a segment the position is scaled to the number of buckets, so that a segment grows by one bucket at a time:
//! all slots of a cluster grow at the same time, and with powers of two their memory would jump between half and full.
//! A bucket that is full is followed by the next one. Positions stand in the buckets: growing, shrinking and joining
//! segments touches no record, splitting does.
//!
//! Segments are in the order of hashes, which is what SCAN goes by.
//!
//! A record of up to 1018 bytes stands in the [`Arena`], a longer one in an allocation of its own. Each has one reference,
//! so records are moved together by a walk over the segments ([`SlotTables::tidy`]).
//!
//! Keys whose hashes begin alike beyond what their number explains share a segment of more buckets: no directory grows
//! beyond one entry for [`KEYS_PER_ENTRY_MIN`] keys. A search among them takes as long as there are such keys.

mod directory;
mod slab;
#[cfg(test)]
mod tests;

use crate::{
    Reach,
    arena::{Arena, RUN_MAX, Ref, Tidiness, prefetch},
    bucket::{Bucket, CELLS, Cell},
    expiry::{Bounds, NEVER},
    packed::Packed,
    record::{Content, Record, expiry_of},
};
use directory::{Directory, Slot, prefix};
use slab::Slab;

/// No segment or run.
const NONE: u32 = u32::MAX;
/// Bit of a reference or a run that stands in an allocation of its own.
const BOXED: u32 = 1 << 31;
/// Keys for each bucket after a segment was built anew; it grows above [`FULL`] and shrinks below [`SPARSE`].
const USUAL: u32 = 8;
/// Most keys for each four buckets.
const FULL: u32 = 35;
/// Fewest keys for each bucket.
const SPARSE: u32 = 7;
/// Most keys of a segment that joins another.
const JOINED_LEN_MAX: u32 = 48;
/// Keys of a slot for each entry of its directory, at least.
const KEYS_PER_ENTRY_MIN: u32 = 16;
/// Bits of a hash that a directory may use: fewer than a cursor of SCAN has, so that a position lies in one segment.
const DEPTH_MAX: u8 = 32;
/// Longest list of references that is kept for the next time: twice those of a usual segment.
const MOVING_KEPT: usize = 2 * RUN_MAX * CELLS;
/// Pages that one step of tidying looks at.
const TIDY_PAGES: usize = 64;
/// Segments without keys that one step of tidying passes.
const TIDY_EMPTY: usize = 64;
/// Cells that one step of a walk passes.
const WALK_CELLS: usize = 1024;
/// Cells that are tried in search of a random record before the segments are walked.
const DRAWS_MAX: usize = 64;

/// The tables of some slots.
///
/// # Invariants
/// - A record stands in the segment that its key's hash leads to, at its position's bucket or behind it, and every bucket
///   from the first to the one before it overflows.
/// - A segment stands in `2^(D - d)` entries of its slot's directory, side by side: those that begin with its `d` bits.
/// - The number of keys of a segment and of a slot are the sums over their cells.
/// - No key of a segment expires before the segment's bound in `expiries`.
#[derive(Debug)]
pub(crate) struct SlotTables {
    slots: Vec<Slot>,
    segments: Vec<Segment>,
    free_segments: Vec<u32>,
    arena: Arena,
    boxed: Slab<Packed>,
    long_runs: Slab<Box<[Bucket]>>,
    hash: fn(&[u8]) -> u64,
    expiries: Bounds,
    tidying: Option<Tidying>,
    /// Empty lists, for references on their way from one run to another.
    moving: [Vec<Cell>; 2],
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    run: u32,
    buckets: u32,
    len: u32,
    slot: u16,
    /// Bits of the hash that led here.
    depth: u8,
}

/// A key that expires.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expiring<'a> {
    pub(crate) expires_at_ms: u64,
    pub(crate) slot: usize,
    pub(crate) hash: u64,
    pub(crate) record: Record<'a>,
}

/// Where a record stands, until the next change of its tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    segment: u32,
    bucket: u32,
    cell: u32,
    item: u32,
}

/// Where a walk over the records of all segments is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hand {
    segment: u32,
    /// The next cell, by number in the segment.
    cell: u32,
}

/// Sparse pages are emptied.
#[derive(Debug, Clone, Copy)]
enum Tidying {
    /// They are being chosen.
    Choosing,
    /// The records and buckets of the segments from this one on move out of them.
    Moving(usize),
}

impl SlotTables {
    /// Makes empty tables of so many slots for keys with this hash.
    pub(crate) fn new(slots: usize, hash: fn(&[u8]) -> u64) -> Self {
        Self {
            slots: (0..slots).map(|_| Slot::default()).collect(),
            segments: Vec::new(),
            free_segments: Vec::new(),
            arena: Arena::default(),
            boxed: Slab::default(),
            long_runs: Slab::default(),
            hash,
            expiries: Bounds::default(),
            tidying: None,
            moving: Default::default(),
        }
    }

    /// Number of slots.
    pub(crate) fn slots_len(&self) -> usize {
        self.slots.len()
    }

    /// Number of keys of a slot.
    pub(crate) fn len_of(&self, slot: usize) -> usize {
        self.slots[slot].len as usize
    }

    /// Where a key stands.
    #[inline]
    pub(crate) fn find(&self, slot: usize, hash: u64, key: &[u8]) -> Option<At> {
        self.probe(slot, hash, |at| self.record(at).key() == key)
    }

    /// A record of a key with this hash, as far as the bits in `mask` go: the first 40 and the last 8 at least.
    pub(crate) fn with_hash(&self, slot: usize, hash: u64, mask: u64) -> Option<Record<'_>> {
        let hash_at = |at| (self.hash)(self.record(at).key());
        self.probe(slot, hash, |at| (hash_at(at) ^ hash) & mask == 0).map(|at| self.record(at))
    }

    /// A record.
    #[inline]
    pub(crate) fn record(&self, at: At) -> Record<'_> {
        self.item(at.item)
    }

    /// The records of a slot, in no particular order. Those of a segment are fetched together: they lie anywhere.
    pub(crate) fn records_of(&self, slot: usize) -> impl Iterator<Item = Record<'_>> {
        let ids = self.slots[slot].segment_ids(&self.segments, 0);
        ids.flat_map(|id| {
            self.prefetch_segment(id);
            self.records_of_segment(id)
        })
    }

    /// The records of a slot whose hash is `from` or more, and some others, in portions: all hashes of a portion are less
    /// than those of the next one.
    pub(crate) fn segments_of(
        &self,
        slot: usize,
        from: u64,
    ) -> impl Iterator<Item = impl Iterator<Item = Record<'_>>> {
        self.slots[slot].segment_ids(&self.segments, from).map(|id| self.records_of_segment(id))
    }

    /// The first `max` keys that expire no later than `until_ms`, ordered by expiry, slot, hash and key. Searches each
    /// segment whose bound has come; O(1) if none has.
    pub(crate) fn soonest(&self, until_ms: u64, max: usize) -> Vec<Expiring<'_>> {
        let mut found: Vec<Expiring<'_>> = Vec::new();
        let mut until_ms = until_ms;
        for (bound, id) in self.expiries.in_order() {
            if until_ms < bound || max == 0 {
                break;
            }
            self.prefetch_segment(id);
            let slot = usize::from(self.segments[id as usize].slot);
            let mut least = NEVER;
            for record in self.records_of_segment(id) {
                let Some(expires_at_ms) = record.expires_at_ms() else { continue };
                least = least.min(expires_at_ms);
                if expires_at_ms <= until_ms {
                    found.push(Expiring { expires_at_ms, slot, hash: (self.hash)(record.key()), record });
                }
            }
            self.expiries.set(id, least);
            if max <= found.len() {
                found.sort_unstable_by_key(Expiring::order);
                found.truncate(max);
                until_ms = found.last().map_or(0, |last| last.expires_at_ms);
            }
        }
        found.sort_unstable_by_key(Expiring::order);
        found
    }

    /// A random one of the keys that expire in the first segment behind number `after` that has any, or in the first of all;
    /// and that segment's number. `None`: no key expires.
    pub(crate) fn expiring_after(
        &self,
        after: Option<u32>,
        mut random: impl FnMut() -> usize,
    ) -> Option<(u32, Expiring<'_>)> {
        let id = self.next_expiring(after.map_or(0, |after| after + 1))?;
        let expiring = || self.records_of_segment(id).filter_map(|r| Some((r.expires_at_ms()?, r)));
        let (expires_at_ms, record) = expiring().nth(random() % expiring().count().max(1))?;
        let slot = usize::from(self.segments[id as usize].slot);
        Some((id, Expiring { expires_at_ms, slot, hash: (self.hash)(record.key()), record }))
    }

    /// The next record in a walk over all segments, which never ends; `of_expiring`: of those that expire. `None`: much was
    /// passed and none found.
    pub(crate) fn walk(&self, hand: &mut Hand, of_expiring: bool) -> Option<Record<'_>> {
        for _ in 0..WALK_CELLS {
            let run = self.segments.get(hand.segment as usize).map_or(&[][..], |segment| self.run(segment));
            let Some(bucket) = run.get(hand.cell as usize / CELLS) else {
                hand.cell = 0;
                hand.segment = if of_expiring {
                    self.next_expiring(hand.segment + 1)?
                } else {
                    (hand.segment + 1) % self.segments.len().max(1) as u32
                };
                continue;
            };
            let i = hand.cell as usize % CELLS;
            if i == 0 {
                self.prefetch_records(bucket);
            }
            hand.cell += 1;
            let record = bucket.cell(i).map(|cell| self.item(cell.item));
            let record = record.filter(|record| !of_expiring || record.expires_at_ms().is_some());
            if record.is_some() {
                return record;
            }
        }
        None
    }

    /// The first segment from a number on that has keys that expire, or the first of all.
    fn next_expiring(&self, from: u32) -> Option<u32> {
        let mut from = from;
        loop {
            let id = self.expiries.next_from(from).or_else(|| self.expiries.next_from(0))?;
            if self.records_of_segment(id).any(|record| record.expires_at_ms().is_some()) {
                return Some(id);
            }
            self.expiries.set(id, NEVER);
            from = id + 1;
        }
    }

    fn prefetch_records(&self, bucket: &Bucket) {
        for (_, cell) in bucket.cells() {
            if cell.item & BOXED == 0 {
                self.arena.prefetch_record(Ref::from_number(cell.item));
            }
        }
    }

    fn records_of_segment(&self, id: u32) -> impl Iterator<Item = Record<'_>> {
        let run = self.run(&self.segments[id as usize]);
        run.iter().flat_map(Bucket::cells).map(|(_, cell)| self.item(cell.item))
    }

    fn prefetch_segment(&self, id: u32) {
        self.run(&self.segments[id as usize]).iter().for_each(|bucket| self.prefetch_records(bucket));
    }

    /// One of the records of a slot, each as likely as any other unless many hashes begin alike; `random` gives random
    /// numbers. `None`: it is empty.
    pub(crate) fn random_of(&self, slot: usize, mut random: impl FnMut() -> usize) -> Option<Record<'_>> {
        let (slot, len) = (&self.slots[slot], self.len_of(slot));
        if len == 0 {
            return None;
        }
        let mut draw = || {
            let (id, buckets_max) = match &slot.directory {
                None => (slot.only?, 1),
                Some(directory) => {
                    let i = random() % directory.entries.len();
                    // Each segment by its first entry alone, else those of many entries came more often.
                    let is_first = i == 0 || directory.entries[i - 1] != directory.entries[i];
                    (is_first.then_some(directory.entries[i])?, RUN_MAX)
                }
            };
            let run = self.run(&self.segments[id as usize]);
            let cell = random() % (run.len().max(buckets_max) * CELLS);
            run.get(cell / CELLS)?.cell(cell % CELLS)
        };
        let cell = (0..DRAWS_MAX).find_map(|_| draw());
        match cell {
            Some(cell) => Some(self.item(cell.item)),
            None => {
                let from = (random() as u64) << 32;
                let segments =
                    slot.segment_ids(&self.segments, from).chain(slot.segment_ids(&self.segments, 0));
                let mut runs = segments.map(|id| self.run(&self.segments[id as usize]));
                let cell = runs.find_map(|run| run.iter().flat_map(Bucket::cells).next());
                cell.map(|(_, cell)| self.item(cell.item))
            }
        }
    }

    /// Has the processor fetch one thing on the way to a hash; see [`Reach`].
    #[inline]
    pub(crate) fn prefetch(&self, slot: usize, hash: u64, reach: Reach) {
        if reach == Reach::Slot {
            return prefetch(&raw const self.slots[slot]);
        }
        let Some(id) = self.slots[slot].segment_of(hash) else { return };
        let segment = &self.segments[id as usize];
        match reach {
            Reach::Slot => {}
            Reach::Segment => prefetch(&raw const *segment),
            Reach::Bucket if segment.run & BOXED == 0 => {
                let bucket = home(position(hash, segment.depth), segment.buckets as usize);
                self.arena.prefetch_bucket(Ref::from_number(segment.run), bucket);
            }
            Reach::Bucket => {}
            Reach::Record => {
                if let Some(at) = self.probe(slot, hash, |_| true)
                    && at.item & BOXED == 0
                {
                    self.arena.prefetch_record(Ref::from_number(at.item));
                }
            }
        }
    }

    /// Makes room in an empty slot for so many keys that come now, as far as one segment has it.
    pub(crate) fn reserve(&mut self, slot: usize, keys: u32) {
        debug_assert_eq!(self.slots[slot].len, 0, "only an empty slot");
        let id = self.new_segment(Segment { slot: slot as u16, ..Segment::UNUSED });
        self.slots[slot].only = Some(id);
        self.set_run(id, usual_buckets(keys).min(RUN_MAX as u32));
    }

    /// Adds a record whose key is not there.
    pub(crate) fn insert(&mut self, slot: usize, hash: u64, mark: u32, content: Content<'_>) {
        let item = self.new_item(mark, content.body_len(), |body| content.write(body));
        let id = loop {
            let id = match self.slots[slot].segment_of(hash) {
                Some(id) => id,
                None => {
                    let id = self.new_segment(Segment { slot: slot as u16, ..Segment::UNUSED });
                    self.slots[slot].only = Some(id);
                    id
                }
            };
            let segment = &self.segments[id as usize];
            if (segment.len + 1) * 4 <= segment.buckets * FULL {
                break id;
            }
            self.grow(slot, id, hash);
        };
        let segment = &mut self.segments[id as usize];
        segment.len += 1;
        let cell = Cell { tag: tag(hash), position: position(hash, segment.depth), item };
        let start = home(cell.position, segment.buckets as usize);
        place(self.run_mut(id), start, cell);
        self.slots[slot].len += 1;
        self.expiries.lower(id, content.expires_at_ms.unwrap_or(NEVER));
    }

    /// Replaces a record by another one of the same key.
    pub(crate) fn replace(&mut self, at: At, mark: u32, content: Content<'_>) {
        self.replace_body(at, mark, content.body_len(), |body| content.write(body));
        self.expiries.lower(at.segment, content.expires_at_ms.unwrap_or(NEVER));
    }

    /// Changes the body of a record, but not its key.
    pub(crate) fn change(&mut self, at: At, mark: u32, change: impl FnOnce(&mut Vec<u8>)) {
        if at.item & BOXED == 0 {
            let mut body = self.record(at).body().to_vec();
            change(&mut body);
            self.replace_body(at, mark, body.len(), |to| to.copy_from_slice(&body));
            self.expiries.lower(at.segment, expiry_of(&body).unwrap_or(NEVER));
            return;
        }
        // In place: it may be long, and it is shared only if somebody reads it.
        let packed = core::mem::take(self.boxed.get_mut(at.item & !BOXED));
        let mut body = packed.into_vec();
        change(&mut body);
        self.expiries.lower(at.segment, expiry_of(&body).unwrap_or(NEVER));
        *self.boxed.get_mut(at.item & !BOXED) = Packed::new(body.into_boxed_slice(), mark);
    }

    /// Removes the record of a key with this hash.
    pub(crate) fn remove(&mut self, slot: usize, hash: u64, at: At) {
        let segment = &mut self.segments[at.segment as usize];
        segment.len -= 1;
        let Segment { buckets, len, depth, .. } = *segment;
        let home = home(position(hash, depth), buckets as usize);
        let run = self.run_mut(at.segment);
        run[at.bucket as usize].set(at.cell as usize, None);
        let mut bucket = home;
        while bucket != at.bucket as usize {
            run[bucket].unpass();
            bucket = (bucket + 1) % run.len();
        }
        self.free_item(at.item);
        self.slots[slot].len -= 1;
        if self.slots[slot].len == 0 {
            self.clear(slot);
        } else if len < buckets * SPARSE && !self.join(slot, hash) && usual_buckets(len) < buckets {
            self.rebuild(at.segment, usual_buckets(len));
        }
    }

    /// Does a step towards full pages when much memory lies free in many of them; returns whether more is to be done. A step
    /// looks at one segment.
    pub(crate) fn tidy(&mut self, tidiness: Tidiness) -> bool {
        match self.tidying {
            None if self.arena.begin_tidying(tidiness) => self.tidying = Some(Tidying::Choosing),
            None => {}
            Some(Tidying::Choosing) if self.arena.choose(TIDY_PAGES) => {
                self.tidying = Some(Tidying::Moving(0))
            }
            Some(Tidying::Choosing) => {}
            Some(Tidying::Moving(next)) => {
                let end = self.segments.len();
                let ids = next..end.min(next + TIDY_EMPTY);
                let id = ids.clone().find(|id| self.segments[*id].buckets != 0);
                if let Some(id) = id {
                    self.tidy_segment(id as u32);
                }
                let next = id.map_or(ids.end, |id| id + 1);
                self.tidying = (next < end).then_some(Tidying::Moving(next));
            }
        }
        self.tidying.is_some()
    }

    /// Frees about `max` parts of tables that nobody uses any more; returns whether any are left.
    pub(crate) fn dismantle(&mut self, max: usize) -> bool {
        for _ in 0..max {
            let directory = || self.slots.pop().map(|slot| slot.directory);
            let is_freed = self.boxed.items.pop().is_some()
                || self.long_runs.items.pop().is_some()
                || core::iter::from_fn(directory).any(|directory| directory.is_some());
            if !is_freed {
                // Much for one step, and so the last.
                return self.arena.drop_chunk();
            }
        }
        true
    }

    /// Checks every invariant of the type.
    ///
    /// # Panics
    /// When one does not hold.
    pub(crate) fn check_invariants(&self) {
        self.arena.check_invariants();
        self.expiries.check_invariants();
        assert!(
            self.tidying.is_some() || !self.arena.has_sparse_pages(),
            "tidying empties the pages that it chose"
        );
        assert!(
            self.free_segments.iter().all(|id| self.expiries.get(*id) == NEVER),
            "nothing expires in a free segment"
        );
        let (mut boxed, mut long_runs, mut segments) = (0, 0, 0);
        for (i, slot) in self.slots.iter().enumerate() {
            let mut len = 0;
            for (nth, id) in slot.segment_ids(&self.segments, 0).enumerate() {
                let segment = &self.segments[id as usize];
                len += segment.len;
                segments += 1;
                assert!(nth == 0 || slot.directory.is_some(), "several segments have a directory");
                long_runs += usize::from(segment.buckets != 0 && segment.run & BOXED != 0);
                boxed += self.check_segment(i, id);
            }
            assert_eq!(slot.len, len, "the keys of a slot are those of its segments");
            assert_eq!(
                slot.len == 0,
                slot.only.is_none() && slot.directory.is_none(),
                "an empty slot costs nothing"
            );
            if let Some(directory) = &slot.directory {
                assert_eq!(
                    directory.entries.len(),
                    1 << directory.depth,
                    "a directory has an entry for each prefix"
                );
                let ids = slot.segment_ids(&self.segments, 0).count();
                assert_eq!(directory.segments as usize, ids, "segments are counted");
                assert!(1 < ids && slot.only.is_none(), "a directory has several segments");
                let mut entry = 0;
                while entry < directory.entries.len() {
                    let id = directory.entries[entry];
                    let span = 1 << (directory.depth - self.segments[id as usize].depth);
                    assert_eq!(entry % span, 0, "a segment begins at its prefix");
                    assert!(
                        directory.entries[entry..entry + span].iter().all(|e| *e == id),
                        "its entries are together"
                    );
                    entry += span;
                }
            }
        }
        assert_eq!(
            segments + self.free_segments.len(),
            self.segments.len(),
            "a segment is in use once or free"
        );
        assert_eq!(boxed, self.boxed.len(), "a boxed record has one reference");
        assert_eq!(long_runs, self.long_runs.len(), "a long run has one segment");
    }

    /// Returns the number of its boxed records.
    fn check_segment(&self, slot: usize, id: u32) -> usize {
        let segment = &self.segments[id as usize];
        let run = self.run(segment);
        let (mut len, mut boxed) = (0, 0);
        let mut overflows = vec![0_usize; run.len()];
        for (b, bucket) in run.iter().enumerate() {
            for (_, cell) in bucket.cells() {
                len += 1;
                boxed += usize::from(cell.item & BOXED != 0);
                let expires_at_ms = self.item(cell.item).expires_at_ms();
                assert!(
                    expires_at_ms.is_none_or(|at| self.expiries.get(id) <= at),
                    "no key expires before its bound"
                );
                let hash = (self.hash)(self.item(cell.item).key());
                assert_eq!(
                    (tag(hash), position(hash, segment.depth)),
                    (cell.tag, cell.position),
                    "a cell has its hash"
                );
                assert_eq!(self.slots[slot].segment_of(hash), Some(id), "the hash leads to the segment");
                let mut passed = home(cell.position, run.len());
                while passed != b {
                    overflows[passed] += 1;
                    passed = (passed + 1) % run.len();
                }
            }
        }
        assert_eq!(segment.len, len, "the keys of a segment are counted");
        assert!(len * 4 <= segment.buckets * FULL, "a segment is not too full");
        for (bucket, overflows) in run.iter().zip(overflows) {
            let is_exact = usize::from(bucket.overflow()) == overflows;
            assert!(is_exact || bucket.overflow() == u8::MAX, "overflows are counted");
        }
        boxed
    }

    /// The first of the cells that may hold a key with this hash that is the wanted one.
    #[inline]
    fn probe(&self, slot: usize, hash: u64, is_wanted: impl Fn(At) -> bool) -> Option<At> {
        let segment = self.slots[slot].segment_of(hash)?;
        let Segment { depth, .. } = self.segments[segment as usize];
        let run = self.run(&self.segments[segment as usize]);
        let (tag, position) = (tag(hash), position(hash, depth));
        let mut next = home(position, run.len());
        for _ in 0..run.len() {
            let bucket = &run[next];
            for cell in bucket.matches(tag, position) {
                let at = At { segment, bucket: next as u32, cell: cell as u32, item: bucket.item(cell) };
                if is_wanted(at) {
                    return Some(at);
                }
            }
            if !bucket.overflows() {
                break;
            }
            next = if next + 1 == run.len() { 0 } else { next + 1 };
        }
        None
    }

    #[inline]
    fn item(&self, item: u32) -> Record<'_> {
        if item & BOXED == 0 {
            let (mark, body) = self.arena.record(Ref::from_number(item));
            Record::new(mark, body)
        } else {
            Record::of_packed(self.boxed.get(item & !BOXED))
        }
    }

    fn new_item(&mut self, mark: u32, body_len: usize, write: impl FnOnce(&mut [u8])) -> u32 {
        match self.arena.alloc_record(body_len) {
            Some(object) => {
                self.arena.write(object, mark, body_len, write);
                object.number()
            }
            None => {
                let mut body = vec![0; body_len].into_boxed_slice();
                write(&mut body);
                self.boxed.insert(Packed::new(body, mark)) | BOXED
            }
        }
    }

    fn free_item(&mut self, item: u32) {
        if item & BOXED == 0 {
            self.arena.free(Ref::from_number(item));
        } else {
            self.boxed.remove(item & !BOXED);
        }
    }

    fn replace_body(&mut self, at: At, mark: u32, body_len: usize, write: impl FnOnce(&mut [u8])) {
        if at.item & BOXED == 0 && self.arena.fits(Ref::from_number(at.item), body_len) {
            self.arena.write(Ref::from_number(at.item), mark, body_len, write);
            return;
        }
        let new = self.new_item(mark, body_len, write);
        self.run_mut(at.segment)[at.bucket as usize].set_item(at.cell as usize, new);
        self.free_item(at.item);
    }

    #[inline]
    fn run(&self, segment: &Segment) -> &[Bucket] {
        if segment.buckets == 0 {
            &[]
        } else if segment.run & BOXED == 0 {
            self.arena.run(Ref::from_number(segment.run), segment.buckets as usize)
        } else {
            self.long_runs.get(segment.run & !BOXED)
        }
    }

    fn run_mut(&mut self, id: u32) -> &mut [Bucket] {
        let segment = &self.segments[id as usize];
        if segment.buckets == 0 {
            &mut []
        } else if segment.run & BOXED == 0 {
            self.arena.run_mut(Ref::from_number(segment.run), segment.buckets as usize)
        } else {
            self.long_runs.get_mut(segment.run & !BOXED)
        }
    }

    fn new_segment(&mut self, segment: Segment) -> u32 {
        match self.free_segments.pop() {
            Some(id) => {
                self.segments[id as usize] = segment;
                id
            }
            None => {
                self.segments.push(segment);
                (self.segments.len() - 1) as u32
            }
        }
    }

    /// Takes a segment that has no run back.
    fn free_segment(&mut self, id: u32) {
        self.segments[id as usize] = Segment::UNUSED;
        self.expiries.set(id, NEVER);
        self.free_segments.push(id);
    }

    /// Gives a segment a run of empty buckets; the caller has the old one.
    fn set_run(&mut self, id: u32, buckets: u32) {
        let n = buckets as usize;
        let object = if 0 < n && n <= RUN_MAX { self.arena.alloc_run(n) } else { None };
        let run = match object {
            Some(object) => object.number(),
            None if n == 0 => NONE,
            None => self.long_runs.insert(vec![Bucket::default(); n].into_boxed_slice()) | BOXED,
        };
        let segment = &mut self.segments[id as usize];
        (segment.run, segment.buckets) = (run, buckets);
    }

    fn free_run(&mut self, segment: &Segment) {
        if segment.buckets == 0 {
        } else if segment.run & BOXED == 0 {
            self.arena.free(Ref::from_number(segment.run));
        } else {
            self.long_runs.remove(segment.run & !BOXED);
        }
    }

    /// Makes room in a segment.
    fn grow(&mut self, slot: usize, id: u32, hash: u64) {
        let segment = &self.segments[id as usize];
        if (segment.buckets as usize) < RUN_MAX {
            self.rebuild(id, segment.buckets + 1);
        } else if self.may_split(slot, segment.depth) {
            self.split(slot, id, hash);
        } else {
            self.rebuild(id, segment.buckets + segment.buckets / 8);
        }
    }

    fn may_split(&self, slot: usize, depth: u8) -> bool {
        let slot = &self.slots[slot];
        let directory_depth = slot.directory.as_ref().map_or(0, |directory| directory.depth);
        depth < directory_depth
            || (directory_depth < DEPTH_MAX
                && u64::from(KEYS_PER_ENTRY_MIN) << (directory_depth + 1) <= u64::from(slot.len))
    }

    /// Moves a segment's references to a run of another length.
    fn rebuild(&mut self, id: u32, buckets: u32) {
        let old = self.segments[id as usize];
        let mut moving = core::mem::take(&mut self.moving);
        moving[0].extend(self.cells_of(&old));
        self.set_run(id, buckets);
        self.fill(id, &moving[0]);
        self.free_run(&old);
        self.end_moving(moving);
    }

    fn cells_of(&self, segment: &Segment) -> impl Iterator<Item = Cell> {
        self.run(segment).iter().flat_map(Bucket::cells).map(|(_, cell)| cell)
    }

    /// Keeps the lists for the next time, unless they have become long.
    fn end_moving(&mut self, moving: [Vec<Cell>; 2]) {
        self.moving = moving.map(|mut cells| {
            cells.clear();
            if cells.capacity() <= MOVING_KEPT { cells } else { Vec::new() }
        });
    }

    /// Fills an empty run.
    fn fill(&mut self, id: u32, cells: &[Cell]) {
        let run = self.run_mut(id);
        // Where one position has more keys than buckets hold, the search for room begins where it ended for the last one.
        let is_long = RUN_MAX < run.len();
        let mut last = (0, None);
        for cell in cells {
            let cell = *cell;
            let home = home(cell.position, run.len());
            let start = if is_long && last.1 == Some(home) { last.0 } else { home };
            last = (place(run, start, cell), Some(home));
        }
    }

    /// Splits a segment in two by the next bit of the hashes; `hash` is one that leads there.
    fn split(&mut self, slot: usize, id: u32, hash: u64) {
        let old = self.segments[id as usize];
        let depth = old.depth + 1;
        let mut moving = core::mem::take(&mut self.moving);
        let [low, high] = &mut moving;
        for cell in self.cells_of(&old) {
            let hash = (self.hash)(self.item(cell.item).key());
            let half = if hash >> (64 - depth) & 1 == 0 { &mut *low } else { &mut *high };
            half.push(Cell { position: position(hash, depth), ..cell });
        }
        let len = |half: &[Cell]| half.len() as u32;
        self.segments[id as usize] = Segment { depth, len: len(low), slot: old.slot, ..Segment::UNUSED };
        let other = self.new_segment(Segment { depth, len: len(high), slot: old.slot, ..Segment::UNUSED });
        for (id, cells) in [(id, low), (other, high)] {
            self.set_run(id, usual_buckets(len(cells)));
            self.fill(id, cells);
        }
        self.free_run(&old);
        self.end_moving(moving);
        self.expiries.lower(other, self.expiries.get(id));
        let slot = &mut self.slots[slot];
        slot.only = None;
        let directory = slot
            .directory
            .get_or_insert_with(|| Box::new(Directory { depth: 0, segments: 1, entries: vec![id] }));
        directory.segments += 1;
        if directory.depth == old.depth {
            directory.entries = directory.entries.iter().flat_map(|id| [*id, *id]).collect();
            directory.depth += 1;
        }
        let entries = directory.entries_of(hash, old.depth);
        let half = entries.len() / 2;
        entries[half..].fill(other);
        // The walk of a move that is under way may have passed the place of the new segment.
        if let Some(Tidying::Moving(_)) = self.tidying {
            self.tidy_segment(id);
            self.tidy_segment(other);
        }
    }

    /// Joins the segment of `hash` with its neighbour when both together are small; returns whether it did.
    fn join(&mut self, slot: usize, hash: u64) -> bool {
        let Some(directory) = &mut self.slots[slot].directory else { return false };
        let id = directory.entries[prefix(hash, directory.depth)];
        let segment = self.segments[id as usize];
        let other_hash = hash ^ 1 << (64 - segment.depth);
        let other = directory.entries[prefix(other_hash, directory.depth)];
        let other_segment = self.segments[other as usize];
        let len = segment.len + other_segment.len;
        if other_segment.depth != segment.depth || JOINED_LEN_MAX < len {
            return false;
        }
        let depth = segment.depth - 1;
        directory.entries_of(hash, depth).fill(id);
        directory.segments -= 1;
        directory.shrink();
        if directory.segments == 1 {
            (self.slots[slot].only, self.slots[slot].directory) = (Some(id), None);
        }
        let is_high = |hash: u64| (hash >> (64 - segment.depth) & 1) as u8;
        let mut moving = core::mem::take(&mut self.moving);
        for (segment, bit) in [(segment, is_high(hash)), (other_segment, is_high(other_hash))] {
            let joined = |cell: Cell| Cell { position: bit << 7 | cell.position >> 1, ..cell };
            moving[0].extend(self.cells_of(&segment).map(joined));
        }
        self.segments[id as usize] = Segment { depth, len, slot: segment.slot, ..Segment::UNUSED };
        self.set_run(id, usual_buckets(len));
        self.fill(id, &moving[0]);
        self.end_moving(moving);
        self.free_run(&segment);
        self.free_run(&other_segment);
        self.expiries.lower(id, self.expiries.get(other));
        self.free_segment(other);
        if let Some(Tidying::Moving(_)) = self.tidying {
            self.tidy_segment(id);
        }
        true
    }

    /// Takes an empty slot's segments away.
    fn clear(&mut self, slot: usize) {
        let slot = core::mem::take(&mut self.slots[slot]);
        let ids: Vec<u32> = slot.segment_ids(&self.segments, 0).collect();
        for id in ids {
            let segment = self.segments[id as usize];
            self.free_run(&segment);
            self.free_segment(id);
        }
    }

    /// Moves a segment's records and buckets out of sparse pages.
    fn tidy_segment(&mut self, id: u32) {
        let segment = self.segments[id as usize];
        if segment.buckets != 0
            && segment.run & BOXED == 0
            && self.arena.is_sparse(Ref::from_number(segment.run))
        {
            let run = self.arena.relocate(Ref::from_number(segment.run));
            self.segments[id as usize].run = run.number();
        }
        for b in 0..segment.buckets as usize {
            let bucket = self.run(&self.segments[id as usize])[b];
            for (i, cell) in bucket.cells() {
                if cell.item & BOXED == 0 && self.arena.is_sparse(Ref::from_number(cell.item)) {
                    let item = self.arena.relocate(Ref::from_number(cell.item)).number();
                    self.run_mut(id)[b].set_item(i, item);
                }
            }
        }
    }
}

impl Segment {
    const UNUSED: Self = Self { run: NONE, buckets: 0, len: 0, slot: 0, depth: 0 };
}

impl<'a> Expiring<'a> {
    fn order(&self) -> (u64, usize, u64, &'a [u8]) {
        (self.expires_at_ms, self.slot, self.hash, self.record.key())
    }
}

/// What a bucket keeps of a hash to tell it from others; never 0.
fn tag(hash: u64) -> u8 {
    (hash as u8).max(1)
}

/// The 8 bits of a hash behind those that led to the segment.
fn position(hash: u64, depth: u8) -> u8 {
    (hash << depth >> 56) as u8
}

/// The bucket where a search for a position begins.
fn home(position: u8, buckets: usize) -> usize {
    (usize::from(position) * buckets) >> 8
}

/// Buckets for so many keys.
fn usual_buckets(len: u32) -> u32 {
    len.div_ceil(USUAL)
}

/// Puts a reference into the first vacant cell from a bucket on; returns its bucket. There is a vacant cell.
fn place(run: &mut [Bucket], start: usize, cell: Cell) -> usize {
    let is_exact = run.len() <= RUN_MAX;
    let mut bucket = start;
    loop {
        if let Some(i) = run[bucket].vacant() {
            run[bucket].set(i, Some(cell));
            return bucket;
        }
        run[bucket].pass(is_exact);
        bucket = (bucket + 1) % run.len();
    }
}
