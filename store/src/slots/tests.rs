//! Tests of the tables against a map, with hashes that an enemy would choose.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;
use crate::record::hash_key;

const SLOTS_LEN: usize = 3;

/// Hashes: the real one, and such as an enemy would choose.
const HASHES: [fn(&[u8]) -> u64; 6] = [
    hash_key,
    // All the same.
    |_| 7,
    // The same tag.
    |key| hash_key(key) & !0xff,
    // The same first bits: no segment is ever split in two halves.
    |key| hash_key(key) >> 30,
    // The same position in segments of few bits.
    |key| hash_key(key) & !(0xff << 50),
    // The last bucket, so that it overflows into the first.
    |key| hash_key(key) | 0xff << 56,
];

/// Slot and key -> value and expiry.
type Model = HashMap<(usize, Vec<u8>), (Vec<u8>, Option<u64>)>;

struct World {
    tables: SlotTables,
    model: Model,
    random: u64,
}

impl World {
    fn new(hash: fn(&[u8]) -> u64) -> Self {
        Self { tables: SlotTables::new(SLOTS_LEN, hash), model: Model::new(), random: 1 }
    }

    fn hash(&self, key: &[u8]) -> u64 {
        (self.tables.hash)(key)
    }

    fn find(&self, slot: usize, key: &[u8]) -> Option<At> {
        self.tables.find(slot, self.hash(key), key)
    }

    fn put(&mut self, slot: usize, key: &[u8], value: &[u8], expiry: Option<u64>) {
        let content = Content::new(key, value, expiry);
        match self.find(slot, key) {
            Some(at) => self.tables.replace(at, 1, content),
            None => self.tables.insert(slot, self.hash(key), 1, content),
        }
        self.model.insert((slot, key.to_vec()), (value.to_vec(), expiry));
    }

    fn remove(&mut self, slot: usize, key: &[u8]) {
        let found = self.find(slot, key);
        let expected = self.model.remove(&(slot, key.to_vec()));
        assert_eq!(found.is_some(), expected.is_some());
        if let Some(at) = found {
            self.tables.remove(slot, self.hash(key), at);
        }
    }

    fn append(&mut self, slot: usize, key: &[u8], suffix: &[u8]) {
        if let Some(at) = self.find(slot, key) {
            self.tables.change(at, 2, |body| body.extend_from_slice(suffix));
            self.model.get_mut(&(slot, key.to_vec())).unwrap().0.extend_from_slice(suffix);
        }
    }

    fn check(&mut self) {
        self.tables.check_invariants();
        for ((slot, key), (value, expiry)) in &self.model {
            let record = self.tables.record(self.find(*slot, key).expect("a key that was put is there"));
            assert_eq!((record.value(), record.expires_at_ms()), (&value[..], *expiry));
            let found = self.tables.with_hash(*slot, self.hash(key), u64::MAX);
            assert!(found.is_some_and(|record| self.hash(record.key()) == self.hash(key)));
        }
        for of_expiring in [false, true] {
            let expected = self.model.iter().filter(|(_, (_, expiry))| !of_expiring || expiry.is_some());
            let mut expected: Vec<&[u8]> = expected.map(|((_, key), _)| &key[..]).collect();
            expected.sort_unstable();
            let mut hand = Hand::default();
            let mut walk =
                || (0..1000).find_map(|_| self.tables.walk(&mut hand, of_expiring)).map(Record::key);
            for _ in 0..2 {
                let mut round: Vec<&[u8]> = expected.iter().filter_map(|_| walk()).collect();
                round.sort_unstable();
                assert_eq!(round, expected, "a walk comes to each record once in a round");
            }
        }
        let mut len = 0;
        for slot in 0..SLOTS_LEN {
            let mut least = 0;
            let mut keys = BTreeSet::new();
            for portion in self.tables.segments_of(slot, 0) {
                let hashes: Vec<u64> = portion
                    .map(|record| {
                        assert!(keys.insert(record.key()), "a record comes once");
                        self.hash(record.key())
                    })
                    .collect();
                assert!(hashes.iter().all(|hash| least <= *hash), "portions are in the order of hashes");
                least = hashes.into_iter().fold(least, u64::max);
            }
            assert_eq!(self.tables.len_of(slot), keys.len());
            len += keys.len();
            let mut expiring: Vec<_> =
                self.model.iter().filter_map(|(k, v)| Some((v.1?, k.0, self.hash(&k.1), &k.1))).collect();
            expiring.sort_unstable();
            for (until_ms, max) in [(u64::MAX, usize::MAX), (1 << 62, 3), (1 << 60, 20), (1 << 63, 0)] {
                let expected = expiring.iter().take_while(|(at, ..)| *at <= until_ms).take(max);
                let found = self.tables.soonest(until_ms, max);
                let found = found.iter().map(|e| (e.expires_at_ms, e.slot, e.hash, e.record.key()));
                assert!(found.eq(expected.map(|(at, slot, hash, key)| (*at, *slot, *hash, &key[..]))));
            }
            let record =
                self.tables.random_of(slot, || crate::memory::next_random(&mut self.random) as usize);
            assert_eq!(record.is_some(), !keys.is_empty());
            assert!(record.is_none_or(|record| keys.contains(record.key())));
        }
        assert_eq!(len, self.model.len(), "what is there was put");
    }
}

#[derive(Debug, Clone)]
enum Op {
    Put { slot: usize, key: u16, len: usize, expiry: Option<u64> },
    PutMany { slot: usize, key: u16, n: u16 },
    Append { slot: usize, key: u16, len: usize },
    Remove { slot: usize, key: u16 },
    RemoveMany { slot: usize, key: u16, n: u16, step: u16 },
    Tidy { is_idle: bool, steps: usize },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let (slot, key) = (0..SLOTS_LEN, 0_u16..600);
    let len = || prop_oneof![6 => 0_usize..80, 1 => 900_usize..1100, 1 => Just(70_000)];
    let op = prop_oneof![
        6 => (slot.clone(), key.clone(), len(), prop::option::of(0..1_u64 << 63))
            .prop_map(|(slot, key, len, expiry)| Op::Put { slot, key, len, expiry }),
        4 => (slot.clone(), key.clone(), 1_u16..200).prop_map(|(slot, key, n)| Op::PutMany { slot, key, n }),
        3 => (slot.clone(), key.clone(), len()).prop_map(|(slot, key, len)| Op::Append { slot, key, len }),
        4 => (slot.clone(), key.clone()).prop_map(|(slot, key)| Op::Remove { slot, key }),
        4 => (slot, key, 1_u16..300, 1_u16..4)
            .prop_map(|(slot, key, n, step)| Op::RemoveMany { slot, key, n, step }),
        4 => (any::<bool>(), 1_usize..40).prop_map(|(is_idle, steps)| Op::Tidy { is_idle, steps }),
    ];
    prop::collection::vec(op, 1..60)
}

fn name(key: u16) -> Vec<u8> {
    format!("key {key}").into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 200 }))]
    #[test]
    fn holds_what_a_map_holds(ops in ops(), hash in 0..HASHES.len()) {
        let mut world = World::new(HASHES[hash]);
        for op in ops {
            match op {
                Op::Put { slot, key, len, expiry } => world.put(slot, &name(key), &vec![key as u8; len], expiry),
                Op::PutMany { slot, key, n } => {
                    (key..key + n).for_each(|key| world.put(slot, &name(key), &[key as u8; 40], None));
                }
                Op::Append { slot, key, len } => world.append(slot, &name(key), &vec![b'+'; len]),
                Op::Remove { slot, key } => world.remove(slot, &name(key)),
                Op::RemoveMany { slot, key, n, step } => {
                    let keys = (key..key + n).step_by(step.into());
                    keys.for_each(|key| world.remove(slot, &name(key)));
                }
                Op::Tidy { is_idle, steps } => {
                    let tidiness = if is_idle { Tidiness::Idle } else { Tidiness::Busy };
                    let _ = (0..steps).all(|_| world.tables.tidy(tidiness));
                }
            }
            world.check();
        }
    }
}

/// Keys of one slot.
const MANY: u32 = if cfg!(miri) { 500 } else { 50_000 };

#[test]
fn a_large_slot_grows_and_shrinks_segment_by_segment() {
    let mut world = World::new(hash_key);
    let name = |i: u32| format!("{i}").into_bytes();
    for i in 0..MANY {
        world.put(1, &name(i), &[b'v'; 40], None);
    }
    world.check();
    let slot = &world.tables.slots[1];
    let directory = slot.directory.as_ref().unwrap();
    assert!(directory.entries.len() <= (MANY / KEYS_PER_ENTRY_MIN) as usize);
    assert_eq!(world.tables.long_runs.len(), 0, "every segment could be split");
    let buckets: u32 = world.tables.segments.iter().map(|segment| segment.buckets).sum();
    assert!(u64::from(buckets) * 7 < u64::from(MANY), "buckets are well filled");
    for i in (0..MANY).filter(|i| i % 100 != 0) {
        world.remove(1, &name(i));
    }
    world.check();
    let entries = world.tables.slots[1].directory.as_ref().map_or(1, |directory| directory.entries.len());
    assert!(entries <= (MANY / 100) as usize, "{entries} entries");
    for i in (0..MANY).step_by(100) {
        world.remove(1, &name(i));
    }
    world.check();
    assert_eq!((world.tables.arena.live_bytes(), world.tables.arena.pages_in_use()), (0, 0));
    assert_eq!(world.tables.segments.len(), world.tables.free_segments.len());
}

#[test]
fn tidying_moves_what_is_left_together() {
    for tidiness in [Tidiness::Busy, Tidiness::Idle] {
        let mut world = World::new(hash_key);
        let name = |i: u32| format!("{i}").into_bytes();
        for i in 0..MANY {
            world.put((i % 3) as usize, &name(i), &vec![b'v'; (i % 50) as usize], None);
        }
        let full = world.tables.arena.pages_in_use();
        for i in (0..MANY).filter(|i| hash_key(&i.to_le_bytes()) & 1 == 0) {
            world.remove((i % 3) as usize, &name(i));
        }
        let sparse = world.tables.arena.pages_in_use();
        while world.tables.tidy(tidiness) {}
        world.check();
        let tidy = world.tables.arena.pages_in_use();
        if !cfg!(miri) {
            assert!(full * 9 < sparse * 10, "{full} pages, {sparse} after the deletion");
            assert!(tidy * 10 < full * 6, "{full} pages, {tidy} at the end");
        }
    }
}

#[test]
fn random_records_come_evenly_from_segments_of_any_size() {
    // Half of the keys share their first bits.
    let mut world = World::new(|key| match hash_key(key) {
        hash if hash & 2 == 0 => hash >> 2,
        hash => hash,
    });
    for i in 0..400 {
        world.put(0, &name(i), b"", None);
    }
    let mut counts = HashMap::new();
    for _ in 0..40_000 {
        let random = || crate::memory::next_random(&mut world.random) as usize;
        *counts.entry(world.tables.random_of(0, random).unwrap().key()).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 400);
    let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
    assert!(50 < *least && *most < 170, "from {least} to {most} times");
}

#[test]
fn many_keys_of_one_hash_are_built_in_linear_time() {
    let mut world = World::new(|_| u64::MAX);
    let n = if cfg!(miri) { 200 } else { 3000 };
    for i in 0..n {
        world.put(0, &name(i), b"v", None);
    }
    world.check();
    let entries = world.tables.slots[0].directory.as_ref().map_or(1, |directory| directory.entries.len());
    assert!(entries <= n as usize / 16, "{entries} entries do not help");
    for i in 0..n {
        world.remove(0, &name(i));
    }
    world.check();
    assert_eq!(world.tables.long_runs.len(), 0);
}
