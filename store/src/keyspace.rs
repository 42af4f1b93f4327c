//! The keyspace: the slots' tables and the counters over them.

use ringfort_ring::{SLOTS, slot_of};

use crate::{
    ExpiredKey, KEY_BYTES_MAX, LargeValue, MemoryLimit, VALUE_BYTES_MAX,
    arena::Tidiness,
    counts::KeyCounts,
    error::CommandError,
    evict::Newcomers,
    memory::{Usage, next_random},
    reclaim::Reclaim,
    record::{Content, EXPIRY_MS_MAX, Record, hash_key, overwrite, set_expiry},
    slots::{At, Expiring, SlotTables},
    snapshot::Snapshot,
};

/// The keyspace of the slots of one partition.
///
/// # Invariants
/// - Every record stands in the table of its key's slot, under its key's hash, once.
/// - `len`, `logical_bytes`, `expires_len` and the counts of each table are the sums over the records.
/// - A slot that a running snapshot has not written yet holds what it held when the snapshot began.
///
/// Only `put`, `update`, `remove` and `flush` change the tables.
#[derive(Debug)]
pub struct Store {
    first: u16,
    tables: SlotTables,
    counts: KeyCounts,
    totals: Totals,
    pub(crate) usage: Usage,
    pub(crate) newcomers: Newcomers,
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) garbage: Reclaim,
}

/// Sums over all records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Totals {
    keys: usize,
    expires: usize,
    logical_bytes: u64,
}

/// What lies on the way to a key's record. Each is found in the one before, so whoever asks for a later one that is not in a
/// cache yet waits for memory (about 100 ns where keys are many). A caller with several keys fetches the first for all of
/// them, then the second, and so on, and then executes: all of them wait together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The slot.
    Slot,
    /// The part of its table that has the key.
    Segment,
    /// The bucket where a search begins.
    Bucket,
    /// The first record that a search would look at.
    Record,
}

impl Reach {
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [Self::Slot, Self::Segment, Self::Bucket, Self::Record];
    /// All but the first, which needs no other one.
    pub const AFTER_SLOT: [Self; 3] = [Self::Segment, Self::Bucket, Self::Record];
}

/// Where a key stands, or would stand: what [`Store::prefetch`] takes. One of another keyspace is of no use, and does no harm.
#[derive(Debug, Clone, Copy)]
pub struct Spot(Place);

/// Where a key stands, or would stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    table: usize,
    /// The key's hash.
    pub(crate) hash: u64,
}

impl Store {
    /// Makes an empty keyspace of the slots `first..=last`.
    ///
    /// # Panics
    /// When `first..=last` is no range of slots.
    pub fn new(first: u16, last: u16) -> Self {
        assert!(first <= last, "the first slot is not after the last");
        assert!(last < SLOTS, "a slot is below {SLOTS}");
        let slots = usize::from(last - first) + 1;
        Self {
            first,
            counts: KeyCounts::new(slots),
            tables: SlotTables::new(slots, hash_key),
            totals: Totals::default(),
            usage: Usage::default(),
            newcomers: Newcomers::default(),
            snapshot: None,
            garbage: Reclaim::default(),
        }
    }

    /// First slot.
    pub fn first_slot(&self) -> u16 {
        self.first
    }

    /// Last slot.
    pub fn last_slot(&self) -> u16 {
        self.first + (self.tables.slots_len() - 1) as u16
    }

    /// Number of keys; those that are past their expiry but not removed yet count.
    pub fn len(&self) -> usize {
        self.totals.keys
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.totals.keys == 0
    }

    /// Deterministic size of all records, bytes: equal on replicas that applied the same log.
    pub fn logical_bytes(&self) -> u64 {
        self.totals.logical_bytes
    }

    /// How much it may hold; see [`Store::is_full`].
    pub fn limit(&self) -> &MemoryLimit {
        &self.usage.limit
    }

    /// Changes how much it may hold. The caller keeps the limit: it is no part of the digest and of a snapshot.
    pub fn set_limit(&mut self, limit: MemoryLimit) {
        self.usage.limit = limit;
    }

    /// Whether a command that may need memory is to be refused: the limit is passed and no key may be evicted.
    pub fn is_full(&self) -> bool {
        let MemoryLimit { quota_bytes, policy, .. } = self.usage.limit;
        let is_over = quota_bytes != 0 && quota_bytes < self.totals.logical_bytes;
        is_over && (!policy.evicts() || (policy.is_volatile() && self.totals.expires == 0))
    }

    /// Number of keys that have an expiry.
    pub fn expires_len(&self) -> usize {
        self.totals.expires
    }

    /// Number of keys in a slot; 0 for a slot of another partition.
    pub fn slot_len(&self, slot: u16) -> usize {
        self.table(slot).map_or(0, |table| self.tables.len_of(table))
    }

    /// The first `max` keys of a slot in byte order. O(k log k), k = keys of the slot.
    pub fn keys_in_slot(&self, slot: u16, max: usize) -> Vec<Vec<u8>> {
        let mut keys: Vec<&[u8]> = self.records_of_slot(slot).map(Record::key).collect();
        keys.sort_unstable();
        keys.into_iter().take(max).map(<[u8]>::to_vec).collect()
    }

    /// Digest of a slot's content: the wrapping sum of xxh3 over key, value and expiry of each record, hence independent
    /// of order and history. 0 for an empty slot and for a slot of another partition. O(bytes of the slot).
    pub fn digest_slot(&self, slot: u16) -> u64 {
        digest_of(self.records_of_slot(slot))
    }

    /// Digest of the whole content: the wrapping sum of the slots' digests.
    pub fn digest(&self) -> u64 {
        (0..self.tables.slots_len()).map(|i| digest_of(self.tables.records_of(i))).fold(0, u64::wrapping_add)
    }

    /// Removes `key` when its expiry is exactly `expires_at_ms`; returns whether it did.
    ///
    /// The condition lets a SET, EXPIRE or PERSIST that was committed in between win.
    pub fn expire(&mut self, key: &[u8], expires_at_ms: u64) -> bool {
        let Ok(place) = self.place(key) else { return false };
        let is_same = self.find(place, key).is_some_and(|r| r.expires_at_ms() == Some(expires_at_ms));
        is_same && self.remove(place, key)
    }

    /// Up to `max` keys that are due at `now_ms`, the longest overdue first, for the leader to propose. O(1) when
    /// nothing is due.
    pub fn due(&self, now_ms: u64, max: usize) -> Vec<ExpiredKey> {
        let due = self.tables.soonest(now_ms, max).into_iter();
        due.map(|e| ExpiredKey { key: e.record.key().to_vec(), expires_at_ms: e.expires_at_ms }).collect()
    }

    /// Does up to `max` small steps to give memory back, of flushed tables and of pages with few records; returns whether
    /// more is to be done. Writes do some steps as well; a worker calls this when it is idle. Changes nothing that can be
    /// observed.
    pub fn reclaim(&mut self, max: usize) -> bool {
        self.garbage.step(max) || (0..max).all(|_| self.tables.tidy(Tidiness::Idle))
    }

    /// Where a key's record would stand; `None` when its slot is of another partition.
    pub fn spot(&self, key: &[u8]) -> Option<Spot> {
        self.place(key).ok().map(Spot)
    }

    /// Has the processor fetch one thing on the way to a key's record. Changes nothing.
    #[inline]
    pub fn prefetch(&self, Spot(place): Spot, reach: Reach) {
        if place.table < self.tables.slots_len() {
            self.tables.prefetch(place.table, place.hash, reach);
        }
    }

    /// Checks every invariant of the type. O(n log n); for tests.
    ///
    /// # Panics
    /// When one does not hold.
    pub fn check_invariants(&self) {
        let mut totals = Totals::default();
        self.tables.check_invariants();
        for i in 0..self.tables.slots_len() {
            let mut keys = std::collections::BTreeSet::new();
            for record in self.tables.records_of(i) {
                let key = record.key();
                let place = self.place(key).expect("the key's slot is of this partition");
                assert_eq!(place.table, i, "a record stands in its slot's table");
                assert!(keys.insert(key), "a key stands in its table once");
                assert!(self.find(place, key).is_some(), "a record is found under its key");
                assert!(key.len() <= KEY_BYTES_MAX, "a key is within its limit");
                assert!(record.value().len() <= VALUE_BYTES_MAX, "a value is within its limit");
                totals.add(record.logical_bytes(), record.expires_at_ms());
                if let Some(expires_at_ms) = record.expires_at_ms() {
                    assert!(expires_at_ms <= EXPIRY_MS_MAX, "an expiry is within its limit");
                }
            }
        }
        let tables_of_keys = (0..self.tables.slots_len()).map(|i| (i, self.tables.len_of(i)));
        let mut nth = 0;
        for (i, len) in tables_of_keys.filter(|(_, len)| *len != 0) {
            assert_eq!(self.counts.table_of(nth), i, "the counts are those of the tables");
            nth += len as u32;
            assert_eq!(self.counts.table_of(nth - 1), i, "the counts are those of the tables");
        }
        assert_eq!(self.totals, totals, "the counters are the sums over the records");
        if let Some(snapshot) = &self.snapshot {
            snapshot.check_invariants(self.tables.slots_len());
        }
    }

    /// Where `key` stands or would stand.
    ///
    /// # Errors
    /// Its slot is not one of this partition's.
    pub(crate) fn place(&self, key: &[u8]) -> Result<Place, CommandError> {
        let table = slot_of(key).0.checked_sub(self.first).map(usize::from);
        let table = table.filter(|i| *i < self.tables.slots_len()).ok_or(CommandError::Misplaced)?;
        Ok(Place { table, hash: hash_key(key) })
    }

    /// Where a key that may be created stands or would stand.
    ///
    /// # Errors
    /// It is too long, or its slot is not one of this partition's.
    pub(crate) fn place_for_write(&self, key: &[u8]) -> Result<Place, CommandError> {
        if key.len() > KEY_BYTES_MAX {
            return Err(CommandError::KeyTooLong);
        }
        self.place(key)
    }

    /// The record of a key, past its expiry or not.
    #[inline]
    pub(crate) fn find(&self, place: Place, key: &[u8]) -> Option<Record<'_>> {
        self.find_at(place, key).map(|at| self.tables.record(at))
    }

    /// The record of a key that is about to be written; removes it when it is past its expiry.
    pub(crate) fn touch(&mut self, place: Place, key: &[u8], now_ms: u64) -> Option<Record<'_>> {
        self.touch_at(place, key, now_ms).map(|at| self.tables.record(at))
    }

    /// Where that record stands.
    pub(crate) fn touch_at(&mut self, place: Place, key: &[u8], now_ms: u64) -> Option<At> {
        let at = self.find_at(place, key)?;
        if self.tables.record(at).is_expired(now_ms) {
            self.remove(place, key);
            return None;
        }
        Some(at)
    }

    /// The record that stands there.
    pub(crate) fn record(&self, at: At) -> Record<'_> {
        self.tables.record(at)
    }

    /// Inserts a record or replaces the one of its key.
    pub(crate) fn put(&mut self, place: Place, content: Content<'_>) {
        self.put_at(place, self.find_at(place, content.key), content);
    }

    /// The same where the record of its key was just found, or none.
    pub(crate) fn put_at(&mut self, place: Place, at: Option<At>, content: Content<'_>) {
        debug_assert_eq!(
            at,
            self.find_at(place, content.key),
            "the key is looked up once, before the change"
        );
        self.before_write(place.table);
        self.totals.add(content.logical_bytes(), content.expires_at_ms);
        if let Some(at) = at {
            let old = self.tables.record(at);
            let mark = old.mark();
            self.totals.sub(old.logical_bytes(), old.expires_at_ms());
            self.tables.replace(at, self.usage.used_mark(mark, self.usage.log_time_ms), content);
        } else {
            let is_new = self.usage.limit.judges(content.expires_at_ms);
            if is_new {
                self.newcomers.push(place, self.candidates_len());
            }
            self.tables.insert(place.table, place.hash, self.usage.new_mark(is_new), content);
            self.counts.add(place.table);
        }
        self.tables.tidy(Tidiness::Busy);
    }

    /// Makes room in a slot without keys for so many that come now.
    pub(crate) fn reserve(&mut self, slot: u16, keys: u32) {
        self.tables.reserve(usize::from(slot - self.first_slot()), keys);
    }

    /// Appends to a value. Does nothing without a record.
    pub(crate) fn append(&mut self, place: Place, key: &[u8], suffix: &[u8]) {
        self.update(place, key, |tables, at, mark| {
            tables.change(at, mark, |body| {
                body.reserve_exact(suffix.len());
                body.extend_from_slice(suffix);
            });
        });
    }

    /// Overwrites a value from `offset` on, behind zero bytes where it ends before. Does nothing without a record.
    pub(crate) fn overwrite(&mut self, place: Place, key: &[u8], offset: usize, patch: &[u8]) {
        self.update(place, key, |tables, at, mark| {
            tables.change(at, mark, |body| overwrite(body, offset, patch));
        });
    }

    /// Changes when a key expires. Does nothing without a record.
    pub(crate) fn set_expiry(&mut self, place: Place, key: &[u8], expires_at_ms: Option<u64>) {
        self.update(place, key, |tables, at, mark| {
            tables.change(at, mark, |body| set_expiry(body, expires_at_ms));
        });
    }

    /// Changes a record in place, but not its key; `change` gets its place and its new mark.
    fn update(&mut self, place: Place, key: &[u8], change: impl FnOnce(&mut SlotTables, At, u32)) {
        self.before_write(place.table);
        let Some(at) = self.find_at(place, key) else { return };
        let old = self.tables.record(at);
        let mark = old.mark();
        self.totals.sub(old.logical_bytes(), old.expires_at_ms());
        change(&mut self.tables, at, self.usage.used_mark(mark, self.usage.log_time_ms));
        let new = self.find(place, key).expect("its key is the same");
        let (bytes, expires_at_ms) = (new.logical_bytes(), new.expires_at_ms());
        self.totals.add(bytes, expires_at_ms);
        self.tables.tidy(Tidiness::Busy);
    }

    /// Removes a key; returns whether it was there.
    pub(crate) fn remove(&mut self, place: Place, key: &[u8]) -> bool {
        let Some(at) = self.find_at(place, key) else { return false };
        self.before_write(place.table);
        let old = self.tables.record(at);
        self.totals.sub(old.logical_bytes(), old.expires_at_ms());
        self.tables.remove(place.table, place.hash, at);
        self.counts.sub(place.table);
        self.tables.tidy(Tidiness::Busy);
        true
    }

    /// Removes every key. O(slots), whatever their number of keys: the tables are moved away and freed later.
    pub(crate) fn flush(&mut self) {
        let tables = SlotTables::new(self.tables.slots_len(), hash_key);
        let tables = core::mem::replace(&mut self.tables, tables);
        match &mut self.snapshot {
            Some(snapshot) if snapshot.needs_tables() => snapshot.freeze(tables),
            _ => self.garbage.push_tables(tables),
        }
        self.totals = Totals::default();
        self.counts.clear();
        self.newcomers.clear();
    }

    /// A random key, each as likely as any other. `None` without keys. O(log slots), and within the slot O(1) on average.
    pub(crate) fn random_record(&self, random: &mut u64) -> Option<(Record<'_>, Place)> {
        let len = self.totals.keys as u64;
        let nth = next_random(random).checked_rem(len)?;
        let table = self.counts.table_of(nth as u32);
        let record = self.tables.random_of(table, || next_random(random) as usize)?;
        Some((record, Place { table, hash: hash_key(record.key()) }))
    }

    /// The record at a place that was packed, if it is still there.
    pub(crate) fn record_at(&self, packed: u64) -> Option<Record<'_>> {
        self.tables.with_hash((packed >> 8) as u16 as usize, packed, Place::PACKED)
    }

    /// The records of a slot in no particular order; none for a slot of another partition.
    pub(crate) fn records_of_slot(&self, slot: u16) -> impl Iterator<Item = Record<'_>> {
        self.table(slot).into_iter().flat_map(|table| self.tables.records_of(table))
    }

    /// The records of a slot whose hash is `from` or more, and some others, in portions of some tens: all hashes of a
    /// portion are less than those of the next one.
    pub(crate) fn portions_of_slot(
        &self,
        slot: u16,
        from: u64,
    ) -> impl Iterator<Item = impl Iterator<Item = Record<'_>>> {
        self.table(slot).into_iter().flat_map(move |table| self.tables.segments_of(table, from))
    }

    /// One of the records of a slot, each as likely as any other; `random` gives random numbers. `None`: it is empty.
    pub(crate) fn random_of_slot(&self, slot: u16, random: impl FnMut() -> usize) -> Option<Record<'_>> {
        self.tables.random_of(self.table(slot)?, random)
    }

    pub(crate) fn tables(&self) -> &SlotTables {
        &self.tables
    }

    #[inline]
    fn find_at(&self, place: Place, key: &[u8]) -> Option<At> {
        self.tables.find(place.table, place.hash, key)
    }

    /// Has a running snapshot write the slot out before it changes.
    fn before_write(&mut self, table: usize) {
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.write_ahead(table, &self.tables);
        }
    }

    /// The number of a slot's table; `None`: it is of another partition.
    fn table(&self, slot: u16) -> Option<usize> {
        let table = usize::from(slot.checked_sub(self.first)?);
        (table < self.tables.slots_len()).then_some(table)
    }
}

impl Totals {
    fn add(&mut self, logical_bytes: u64, expires_at_ms: Option<u64>) {
        self.keys += 1;
        self.expires += usize::from(expires_at_ms.is_some());
        self.logical_bytes += logical_bytes;
    }

    fn sub(&mut self, logical_bytes: u64, expires_at_ms: Option<u64>) {
        self.keys -= 1;
        self.expires -= usize::from(expires_at_ms.is_some());
        self.logical_bytes -= logical_bytes;
    }
}

impl Place {
    /// The bits of the hash that are kept by [`Place::packed`]: all by which it is looked up.
    const PACKED: u64 = !0xffff00;

    /// The place in 8 bytes, less some bits of the hash.
    pub(crate) fn packed(self) -> u64 {
        self.hash & Self::PACKED | (self.table as u64) << 8
    }

    /// Where a key with an expiry stands.
    pub(crate) fn of(expiring: &Expiring<'_>) -> Self {
        Self { table: expiring.slot, hash: expiring.hash }
    }
}

/// One read's view of the store at a time.
pub(crate) struct Reader<'a> {
    store: &'a Store,
    now_ms: u64,
    /// Whether finding a key is a use of it.
    is_use: bool,
    /// Whether keys past their expiry are just absent.
    hides_expired: bool,
    /// Keys found past their expiry; the reply is not to be written when there are any.
    pub(crate) expired: Vec<ExpiredKey>,
    /// Whether a large value may be left out of the reply.
    takes_large: bool,
    /// The value that is to be sent behind the reply, with a line end.
    pub(crate) large: Option<LargeValue>,
}

impl<'a> Reader<'a> {
    /// Makes a view of `store` at `now_ms`; `is_use`: finding a key is a use of it.
    pub(crate) fn new(store: &'a Store, now_ms: u64, is_use: bool) -> Self {
        Self {
            store,
            now_ms,
            is_use,
            hides_expired: false,
            expired: Vec::new(),
            takes_large: false,
            large: None,
        }
    }

    /// Has GET leave a large value out of its reply.
    pub(crate) fn taking_large(self) -> Self {
        Self { takes_large: true, ..self }
    }

    /// Leaves the value of a record out of the reply, if it is large and that is wanted; returns its length.
    pub(crate) fn take_large(&mut self, record: Record<'_>) -> Option<usize> {
        if self.takes_large {
            self.large = record.large_value();
        }
        self.large.as_ref().map(|value| value.as_ref().len())
    }

    /// Has keys past their expiry be absent, without a note of them.
    pub(crate) fn hiding_expired(self) -> Self {
        Self { hides_expired: true, ..self }
    }

    /// The store, for what does not depend on the time.
    pub(crate) fn store(&self) -> &'a Store {
        self.store
    }

    /// The time of the read, milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The record of a key; notes it when it is past its expiry.
    pub(crate) fn get(&mut self, key: &[u8]) -> Result<Option<Record<'a>>, CommandError> {
        let Some(record) = self.store.find(self.store.place(key)?, key) else { return Ok(None) };
        match record.expires_at_ms() {
            Some(expires_at_ms) if expires_at_ms <= self.now_ms => {
                if !self.hides_expired {
                    self.expired.push(ExpiredKey { key: key.to_vec(), expires_at_ms });
                }
                Ok(None)
            }
            _ => {
                if self.is_use {
                    record.set_mark(self.store.usage.used_mark(record.mark(), self.now_ms));
                }
                Ok(Some(record))
            }
        }
    }
}

fn digest_of<'a>(records: impl Iterator<Item = Record<'a>>) -> u64 {
    records.map(Record::digest).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use ringfort_resp::Command;

    use super::*;
    use crate::commands::testing::{START_MS, Session};

    /// Two keys of 16 bytes with one hash and one slot.
    ///
    /// XXH3 of 9 to 16 bytes adds `hi + swap(lo)` and the folded product `lo * hi` of the masked halves before its final
    /// mix; with `lo = 0` only `hi` is left, so that any other key's sum can be met.
    fn colliding_keys() -> (Vec<u8>, Vec<u8>) {
        const SECRET: [u64; 4] =
            [0x1f67_b3b7_a4a4_4072, 0x78e5_c0cc_4ee6_79cb, 0x2172_ffcc_7dd0_5a82, 0x8e24_43f7_7446_08b8];
        let seed = 0x5269_6e67_666f_7274_u64;
        let mask_lo = (SECRET[0] ^ SECRET[1]).wrapping_add(seed);
        let mask_hi = (SECRET[2] ^ SECRET[3]).wrapping_sub(seed);
        let key = |lo: u64, hi: u64| [(lo ^ mask_lo).to_le_bytes(), (hi ^ mask_hi).to_le_bytes()].concat();
        (1_u64..)
            .map(|n| {
                let (lo, hi) = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n);
                let product = u128::from(lo) * u128::from(hi);
                let fold = (product as u64) ^ (product >> 64) as u64;
                (key(lo, hi), key(0, lo.swap_bytes().wrapping_add(hi).wrapping_add(fold)))
            })
            .find(|(a, b)| a != b && slot_of(a) == slot_of(b))
            .expect("one pair in 16384 shares its slot")
    }

    #[test]
    fn keys_of_equal_hash_stay_apart() {
        let (a, b) = colliding_keys();
        assert_eq!(hash_key(&a), hash_key(&b));
        let mut session = Session::new();
        let run = |session: &mut Session, command, args: &[&[u8]]| {
            String::from_utf8(session.run_args(command, args)).unwrap()
        };
        run(&mut session, Command::Set, &[&a, b"1", b"PX", b"50"]);
        run(&mut session, Command::Set, &[&b, b"2", b"PX", b"50"]);
        assert_eq!(run(&mut session, Command::MGet, &[&a, &b]), "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
        let mut keys = [a.clone(), b.clone()];
        keys.sort();
        let due: Vec<_> = session.store.due(START_MS + 50, 9).into_iter().map(|due| due.key).collect();
        assert_eq!(due, keys);
        assert_eq!(session.store.due(START_MS + 50, 1).len(), 1);
        run(&mut session, Command::Persist, &[&a]);
        assert_eq!(session.store.due(START_MS + 50, 9).len(), 1);
        assert_eq!(session.store.expires_len(), 1);
        run(&mut session, Command::Del, &[&b]);
        assert_eq!(session.store.due(START_MS + 50, 9), vec![]);
        assert_eq!(run(&mut session, Command::Get, &[&a]), "$1\r\n1\r\n");
    }

    #[test]
    fn due_is_ordered_by_time_and_bounded() {
        let mut session = Session::new();
        session.script("SET c v PX 30 -> +OK\nSET a v PX 10 -> +OK\nSET b v PX 20 -> +OK\nSET x v -> +OK");
        let due = |max| -> Vec<_> {
            session
                .store
                .due(START_MS + 20, max)
                .iter()
                .map(|d| (d.key[0], d.expires_at_ms - START_MS))
                .collect()
        };
        assert_eq!(due(9), [(b'a', 10), (b'b', 20)]);
        assert_eq!(due(1), [(b'a', 10)]);
        assert_eq!(due(0), []);
        assert_eq!(session.store.due(START_MS + 9, 9), []);
    }

    #[test]
    fn overwriting_moves_the_expiry() {
        let mut session = Session::new();
        session.script("SET k v PX 10 -> +OK\nSET k v PX 20 -> +OK");
        assert_eq!(session.store.due(START_MS + 10, 9), []);
        session.script("PEXPIRE k 5 -> :1");
        assert_eq!(session.store.due(START_MS + 5, 9).len(), 1);
        session.script("SET k v -> +OK");
        assert_eq!(session.store.due(u64::MAX, 9), []);
    }

    #[test]
    fn a_deletion_by_another_expiry_spares_the_key() {
        let mut session = Session::new();
        session.script("SET k v PX 10 -> +OK\nPEXPIRE k 20 -> :1");
        assert!(!session.store.expire(b"k", START_MS + 10), "it was moved meanwhile");
        assert!(session.store.expire(b"k", START_MS + 20));
        session.script("SET k v -> +OK");
        assert!(!session.store.expire(b"k", START_MS + 20), "it has none any more");
    }

    #[test]
    fn keys_of_a_slot_come_in_byte_order() {
        let mut session = Session::new();
        session.script("MSET {t}b 1 {t}a 1 {t}c 1 other 1 -> +OK");
        let slot = slot_of(b"{t}").0;
        assert_eq!(session.store.keys_in_slot(slot, 2), [b"{t}a", b"{t}b"]);
        assert_eq!(session.store.slot_len(slot), 3);
    }

    #[test]
    fn counts_logical_bytes() {
        let mut session = Session::new();
        session.script("SET key value -> +OK");
        assert_eq!(session.store.logical_bytes(), 32 + 8);
        session.script("EXPIRE key 10 -> :1\nAPPEND key 12 -> :7");
        assert_eq!(session.store.logical_bytes(), 32 + 8 + 2 + 8);
        session.script("DEL key -> :1");
        assert_eq!(session.store.logical_bytes(), 0);
    }

    #[test]
    fn flushed_records_are_freed_in_slices() {
        let mut session = Session::new();
        let value = "v".repeat(2000);
        for i in 0..300 {
            session.run(&format!("SET {i} {value} EX 10"));
        }
        session.run("FLUSHALL");
        assert!(session.store.reclaim(100), "two thirds are left");
        let mut steps = 0;
        while session.store.reclaim(10) {
            steps += 1;
        }
        assert!((10..=40).contains(&steps), "{steps} steps");
        assert!(!session.store.reclaim(1));
    }
}
