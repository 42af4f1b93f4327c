//! Which keys go when a partition is full. The leader chooses and proposes; every replica deletes what the log says.
//!
//! The policies that go by use (LRU and LFU) are served by S3-FIFO (Yang et al., "FIFO queues are all you need for cache
//! eviction", SOSP 2023) in a form that takes a byte or three for each key: most keys are never asked for again, so new
//! keys have a tenth of the room in which to be used, and leave first.
//!
//! ```text
//! added -> newcomers (in order, a tenth of the keys) --- unused ---> evicted, remembered as a ghost
//!             |                                                        | added again
//!             +-- used, or was a ghost --> the rest <------------------+ (as a newcomer)
//!                                            |
//!                                a hand goes round the tables: one use less each time; at none: evicted
//! ```
//!
//! Unlike in the paper the rest is no queue but a walk over the segments, and a ghost that returns passes through the
//! newcomers. How much that and other policies miss: `examples/eviction.rs`.

mod ghosts;
mod newcomers;

use std::collections::HashSet;

use ringfort_resp::Command;

use crate::{
    Policy, Store, VALUE_BYTES_MAX,
    keyspace::Place,
    memory::{SAMPLES_MAX, USES_MAX, is_new, judged_mark, next_random, uses},
    number::parse_i64,
    record::{LOGICAL_EXPIRY_BYTES, LOGICAL_OVERHEAD_BYTES, Record, hash_key},
    slots::{Expiring, Hand},
};
use ghosts::Ghosts;
pub(crate) use newcomers::Newcomers;

/// One part in so many of all keys is to be newcomers.
const NEW_PART: usize = 10;
/// Uses of a new key that make it stay: one shows that it is in use now, two that it is used more often than others.
const STAY_USES_LRU: u32 = 1;
const STAY_USES_LFU: u32 = 2;
/// Most keys that are looked at for one victim, for each of `maxmemory-samples`: then the least used one goes.
const LOOKS_PER_SAMPLE: u32 = 16;
/// Keys drawn for one victim of a random policy before it is given up: one that is not on its way out yet is found even
/// when nearly all are.
const RANDOM_DRAWS_MAX: usize = 256;
/// Random keys looked at for one that expires, before the segments with such keys are walked instead.
const DRAWS_MAX: usize = 8;
/// Longest text of a number that INCR and its kin write, bytes.
const NUMBER_BYTES_MAX: u64 = 40;

/// A key that is to go, as it was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Victim {
    /// The key.
    pub key: Vec<u8>,
    /// Digest of its record: the condition under which it may be deleted.
    pub digest: u64,
    /// Logical bytes that it frees.
    pub bytes: u64,
    /// Names it until [`Evictor::forget`].
    pub hash: u64,
}

/// What a leader remembers between victims.
#[derive(Debug, Default)]
pub struct Evictor {
    /// Number of the next newcomer to be judged.
    next: u64,
    /// Where the walk over all keys is.
    hand: Hand,
    /// Newcomers that were evicted.
    ghosts: Ghosts,
    /// Victims that are proposed and not deleted yet.
    chosen: HashSet<u64>,
    /// The segment at which the draw from those with expiries is.
    cursor: Option<u32>,
    random: u64,
}

impl Evictor {
    /// Makes one that draws its samples from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { random: seed, ..Self::default() }
    }

    /// A victim was deleted, or will not be: it may be chosen again.
    pub fn forget(&mut self, hash: u64) {
        self.chosen.remove(&hash);
    }
}

impl Store {
    /// Removes `key` when its record has this digest; returns whether it did.
    ///
    /// The condition lets a write that was committed in between win.
    pub fn evict(&mut self, key: &[u8], digest: u64) -> bool {
        let Ok(place) = self.place(key) else { return false };
        self.find(place, key).is_some_and(|record| record.digest() == digest) && self.remove(place, key)
    }

    /// Chooses keys until they free `bytes`, at most `max`; fewer when there are no more that may go. None is chosen
    /// again before [`Evictor::forget`].
    pub fn victims(&self, evictor: &mut Evictor, bytes: u64, max: usize) -> Vec<Victim> {
        let soonest_len = match self.limit().policy {
            Policy::VolatileTtl => max.saturating_add(evictor.chosen.len()),
            _ => 0,
        };
        let mut soonest = self.tables().soonest(u64::MAX, soonest_len).into_iter();
        let (mut victims, mut freed) = (Vec::new(), 0);
        while freed < bytes
            && victims.len() < max
            && let Some(record) = self.victim(evictor, &mut soonest)
        {
            let hash = hash_key(record.key());
            evictor.chosen.insert(hash);
            let bytes = record.logical_bytes();
            freed += bytes;
            victims.push(Victim { key: record.key().to_vec(), digest: record.digest(), bytes, hash });
        }
        victims
    }

    fn victim<'a>(
        &'a self,
        evictor: &mut Evictor,
        soonest: &mut impl Iterator<Item = Expiring<'a>>,
    ) -> Option<Record<'a>> {
        match self.limit().policy {
            Policy::NoEviction => None,
            Policy::VolatileTtl => {
                soonest.find(|next| !evictor.chosen.contains(&next.hash)).map(|next| next.record)
            }
            Policy::AllKeysRandom | Policy::VolatileRandom => (0..RANDOM_DRAWS_MAX).find_map(|_| {
                let (record, place) = self.draw(evictor)?;
                (!evictor.chosen.contains(&place.hash)).then_some(record)
            }),
            Policy::AllKeysLru | Policy::AllKeysLfu | Policy::VolatileLru | Policy::VolatileLfu => {
                self.unused(evictor)
            }
        }
    }

    /// A key that is used little.
    fn unused<'a>(&'a self, evictor: &mut Evictor) -> Option<Record<'a>> {
        let mut least: Option<(u32, Record<'a>)> = None;
        for _ in 0..self.limit().samples.clamp(1, SAMPLES_MAX) * LOOKS_PER_SAMPLE {
            let look = match self.next_newcomer(evictor) {
                Some(place) => self.judge_newcomer(evictor, place),
                None => self.judge_next(evictor),
            };
            match look {
                Some((0, record)) => return Some(record),
                Some((uses, record)) if least.is_none_or(|(least, _)| uses < least) => {
                    least = Some((uses, record));
                }
                _ => {}
            }
        }
        least.map(|(_, record)| record)
    }

    /// The place of the next newcomer to be judged, if there are more of them than need be.
    fn next_newcomer(&self, evictor: &mut Evictor) -> Option<u64> {
        if self.newcomers.len_from(evictor.next) * NEW_PART <= self.candidates_len() {
            return None;
        }
        let (number, place) = self.newcomers.next(evictor.next)?;
        evictor.next = number + 1;
        Some(place)
    }

    /// Has a newcomer go (0) or stay; returns how much it is worth. `None`: it may not go.
    fn judge_newcomer(&self, evictor: &mut Evictor, place: u64) -> Option<(u32, Record<'_>)> {
        let record = self.record_at(place).filter(|record| is_new(record.mark()))?;
        let hash = self.candidate(evictor, record)?;
        let stay_uses = if self.limit().policy.is_lfu() { STAY_USES_LFU } else { STAY_USES_LRU };
        let uses = uses(record.mark());
        if uses < stay_uses && !evictor.ghosts.remove(hash) {
            evictor.ghosts.insert(hash, self.candidates_len());
            return Some((0, record));
        }
        record.set_mark(judged_mark(record.mark(), 0));
        Some((uses + 1, record))
    }

    /// Takes a use off the next key that the hand comes to; returns how many it had. `None`: it may not go.
    fn judge_next(&self, evictor: &mut Evictor) -> Option<(u32, Record<'_>)> {
        let record = self.tables().walk(&mut evictor.hand, self.limit().policy.is_volatile())?;
        let uses = uses(record.mark());
        if is_new(record.mark()) {
            // It has its time as a newcomer; or it is forgotten among them, and judged when the hand comes again.
            record.set_mark(judged_mark(record.mark(), uses));
            return self.candidate(evictor, record).map(|_| (uses + USES_MAX, record));
        }
        record.set_mark(judged_mark(record.mark(), uses.saturating_sub(1)));
        self.candidate(evictor, record).map(|_| (uses, record))
    }

    /// The hash of a key, if it may go.
    fn candidate(&self, evictor: &Evictor, record: Record<'_>) -> Option<u64> {
        let hash = hash_key(record.key());
        let may_go = !self.limit().policy.is_volatile() || record.expires_at_ms().is_some();
        (may_go && !evictor.chosen.contains(&hash)).then_some(hash)
    }

    /// Number of keys that may go.
    pub(crate) fn candidates_len(&self) -> usize {
        if self.limit().policy.is_volatile() { self.expires_len() } else { self.len() }
    }

    /// A random key, of those that expire where only they may go.
    fn draw(&self, evictor: &mut Evictor) -> Option<(Record<'_>, Place)> {
        if !self.limit().policy.is_volatile() {
            return self.random_record(&mut evictor.random);
        }
        if self.expires_len() == 0 {
            return None;
        }
        for _ in 0..DRAWS_MAX {
            let (record, place) = self.random_record(&mut evictor.random)?;
            if record.expires_at_ms().is_some() {
                return Some((record, place));
            }
        }
        // Few keys expire: from one segment after the other.
        let random = &mut evictor.random;
        let (segment, next) =
            self.tables().expiring_after(evictor.cursor, || next_random(random) as usize)?;
        evictor.cursor = Some(segment);
        Some((next.record, Place::of(&next)))
    }

    /// Most logical bytes by which a command makes the keyspace grow, as far as its arguments and the present keys tell.
    pub fn growth_max(&self, command: Command, args: &[&[u8]]) -> u64 {
        let pair = |key: &[u8], value_len: &dyn Fn(u64) -> u64| {
            let old = self.place(key).ok().and_then(|place| self.find(place, key));
            let (old_bytes, old_value_len) =
                old.map_or((0, 0), |record| (record.logical_bytes(), record.value().len() as u64));
            let overhead = LOGICAL_OVERHEAD_BYTES + LOGICAL_EXPIRY_BYTES;
            let new_value_len = value_len(old_value_len);
            if new_value_len > VALUE_BYTES_MAX as u64 {
                return 0; // it will be refused
            }
            (overhead + key.len() as u64 + new_value_len).saturating_sub(old_bytes)
        };
        let len = |arg: &[u8]| arg.len() as u64;
        match (command, args) {
            (Command::Set | Command::SetNx | Command::GetSet, [key, value, ..])
            | (Command::SetEx | Command::PSetEx, [key, _, value]) => pair(key, &|_| len(value)),
            (Command::Append, [key, suffix]) => pair(key, &|old| old + len(suffix)),
            (Command::SetRange, [key, offset, patch]) => {
                let offset = parse_i64(offset).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
                let end = if patch.is_empty() { 0 } else { offset.saturating_add(len(patch)) };
                pair(key, &|old| old.max(end))
            }
            (Command::MSet | Command::MSetNx, pairs) => {
                pairs.as_chunks::<2>().0.iter().map(|[key, value]| pair(key, &|_| len(value))).sum()
            }
            (Command::Copy, [source, target, ..]) => {
                let source = self.place(source).ok().and_then(|place| self.find(place, source));
                pair(target, &|_| source.map_or(0, |record| record.value().len() as u64))
            }
            (_, [key, ..]) => pair(key, &|old| old.max(NUMBER_BYTES_MAX)),
            (_, []) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{MemoryLimit, commands::testing::Session, record::Content};

    fn session(policy: Policy) -> Session {
        let mut session = Session::new();
        session.store.set_limit(MemoryLimit {
            quota_bytes: 1,
            policy,
            samples: 64,
            ..MemoryLimit::default()
        });
        session
    }

    fn names(victims: &[Victim]) -> Vec<&str> {
        victims.iter().map(|victim| std::str::from_utf8(&victim.key).unwrap()).collect()
    }

    fn first(session: &Session, evictor: &mut Evictor) -> Option<String> {
        let victims = session.store.victims(evictor, 1, 1);
        names(&victims).first().map(|name| (*name).to_owned())
    }

    #[test]
    fn each_policy_chooses_its_own() {
        for (policy, expected) in [
            (Policy::NoEviction, &[][..]),
            (Policy::AllKeysLru, &["old", "ttl-new", "ttl-used", "used"]),
            (Policy::VolatileLru, &["ttl-new", "ttl-used"]),
            (Policy::AllKeysLfu, &["old", "ttl-new", "ttl-used", "used"]),
            (Policy::VolatileLfu, &["ttl-new", "ttl-used"]),
            (Policy::VolatileTtl, &["ttl-new", "ttl-used"]),
        ] {
            let mut session = session(policy);
            session.script("SET old v -> +OK\nSET used v -> +OK\nSET ttl-used v EX 9000 -> +OK");
            session.read("MGET used ttl-used");
            session.read("MGET used ttl-used");
            session.script("SET ttl-new v EX 100 -> +OK\nGET x -> $-1");
            let mut evictor = Evictor::new(1);
            let mut victims = session.store.victims(&mut evictor, u64::MAX, 9);
            assert_eq!(session.store.victims(&mut evictor, 1, 9), [], "none comes twice");
            if let Some(used) = victims.get_mut(2..) {
                used.sort_by(|a, b| a.key.cmp(&b.key));
            }
            assert_eq!(names(&victims), expected, "{policy:?}");
            let mut evictor = Evictor::new(1);
            assert_eq!(
                session.store.victims(&mut evictor, 1, 9).len(),
                expected.len().min(1),
                "one is enough"
            );
        }
    }

    #[test]
    fn a_new_key_stays_when_it_was_used() {
        for (policy, expected) in [(Policy::AllKeysLru, "c"), (Policy::AllKeysLfu, "b")] {
            let mut session = session(policy);
            session.script("SET a v -> +OK\nSET b v -> +OK\nSET c v -> +OK");
            session.read("MGET a a b");
            assert_eq!(first(&session, &mut Evictor::new(1)).as_deref(), Some(expected), "{policy:?}");
        }
    }

    #[test]
    fn a_key_that_comes_back_soon_stays() {
        let mut session = session(Policy::AllKeysLru);
        let mut evictor = Evictor::new(1);
        session.script("SET a v -> +OK\nSET b v -> +OK");
        let victim = session.store.victims(&mut evictor, 1, 1).remove(0);
        assert_eq!(names(std::slice::from_ref(&victim)), ["a"]);
        assert!(session.store.evict(&victim.key, victim.digest));
        evictor.forget(victim.hash);
        session.script("SET a v -> +OK\nSET c v -> +OK");
        assert_eq!(first(&session, &mut evictor).as_deref(), Some("b"));
        assert_eq!(first(&session, &mut evictor).as_deref(), Some("c"));
    }

    #[test]
    fn keys_in_use_survive_a_scan() {
        for policy in [Policy::AllKeysLru, Policy::AllKeysLfu] {
            let mut session = session(policy);
            let mut evictor = Evictor::new(1);
            for i in 0..2000 {
                if i % 4 == 0 {
                    session.run(&format!("SET used{} v", i / 4 % 50));
                }
                session.run(&format!("SET {i} v"));
                while 100 < session.store.len() {
                    let victim = session.store.victims(&mut evictor, 1, 1).remove(0);
                    assert!(session.store.evict(&victim.key, victim.digest));
                    evictor.forget(victim.hash);
                }
            }
            let left = (0..50).filter(|i| session.read(&format!("GET used{i}")).0.contains('v')).count();
            assert!(25 <= left, "{policy:?}: {left}; by the time of the last use alone none would be left");
            session.store.check_invariants();
        }
    }

    #[test]
    fn all_keys_in_use_give_way_too() {
        for policy in [Policy::AllKeysLru, Policy::AllKeysLfu, Policy::VolatileLru] {
            let mut session = session(policy);
            for i in 0..500 {
                session.run(&format!("SET {i} v EX 1000"));
                (0..4).for_each(|_| drop(session.read(&format!("GET {i}"))));
            }
            // As a replica that has just become the leader: it has judged none of them.
            let victims = session.store.victims(&mut Evictor::new(1), u64::MAX, 400);
            assert_eq!(victims.len(), 400, "{policy:?}");
        }
    }

    #[test]
    fn a_key_that_does_not_expire_any_more_stays() {
        let mut session = session(Policy::VolatileLru);
        session.script("SET a v EX 100 -> +OK\nSET b v EX 100 -> +OK\nPERSIST a -> :1");
        let mut evictor = Evictor::new(1);
        assert_eq!(first(&session, &mut evictor).as_deref(), Some("b"));
        assert_eq!(first(&session, &mut evictor), None);
    }

    #[test]
    fn random_policies_choose_evenly() {
        for policy in [Policy::AllKeysRandom, Policy::VolatileRandom] {
            let mut session = session(policy);
            for i in 0..20 {
                session.run(&format!("SET {{t}}{i} v EX 1000"));
                session.run(&format!("SET {i} v EX 1000"));
            }
            session.run("SET persistent v");
            let mut counts = BTreeMap::new();
            let mut evictor = Evictor::new(7);
            for _ in 0..4100 {
                let victims = session.store.victims(&mut evictor, 1, 1);
                *counts.entry(victims[0].key.clone()).or_insert(0) += 1;
                evictor.forget(victims[0].hash);
            }
            assert_eq!(counts.len(), if policy == Policy::VolatileRandom { 40 } else { 41 });
            assert!(counts.values().all(|n| (60..150).contains(n)), "{counts:?}");
        }
    }

    #[test]
    fn random_policies_go_on_until_few_are_left() {
        let mut session = session(Policy::AllKeysRandom);
        for i in 0..90 {
            session.run(&format!("SET {i} v"));
        }
        for seed in 0..50 {
            let victims = session.store.victims(&mut Evictor::new(seed), u64::MAX, 80);
            assert_eq!(victims.len(), 80, "seed {seed}");
        }
    }

    #[test]
    fn finds_the_few_that_expire_among_many() {
        let mut session = session(Policy::VolatileLru);
        for i in 0..3000 {
            session.store.usage.log_time_ms = session.now_ms;
            let key = format!("{i}");
            let place = session.store.place(key.as_bytes()).unwrap();
            session.store.put(place, Content::new(key.as_bytes(), b"v", (i % 1000 == 0).then_some(1 << 60)));
        }
        let mut evictor = Evictor::new(3);
        let mut victims = session.store.victims(&mut evictor, u64::MAX, 99);
        victims.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(names(&victims), ["0", "1000", "2000"]);
    }

    #[test]
    fn eviction_is_conditional_on_the_same_content() {
        let mut session = session(Policy::AllKeysRandom);
        session.run("SET k v");
        let victim = session.store.victims(&mut Evictor::new(1), 1, 1).remove(0);
        assert_eq!(victim.bytes, 34);
        session.script("SET k w -> +OK");
        assert!(!session.store.evict(&victim.key, victim.digest));
        session.script("SET k v EX 10 -> +OK");
        assert!(!session.store.evict(&victim.key, victim.digest));
        session.script("SET k v -> +OK");
        assert!(session.store.evict(&victim.key, victim.digest));
        assert!(!session.store.evict(&victim.key, victim.digest));
        session.store.check_invariants();
    }

    #[test]
    fn full_is_a_partition_without_a_way_out() {
        for (policy, is_full, is_full_with_expiry) in [
            (Policy::NoEviction, true, true),
            (Policy::AllKeysLru, false, false),
            (Policy::VolatileTtl, true, false),
        ] {
            let mut session = session(policy);
            assert!(!session.store.is_full());
            session.run("SET k v");
            assert_eq!(session.store.is_full(), is_full, "{policy:?}");
            session.run("EXPIRE k 10");
            assert_eq!(session.store.is_full(), is_full_with_expiry, "{policy:?}");
            session.store.set_limit(MemoryLimit { policy, ..MemoryLimit::default() });
            assert!(!session.store.is_full(), "there is no limit");
        }
    }

    #[test]
    fn growth_is_never_above_its_bound() {
        let mut session = Session::new();
        for line in [
            "SET k 12345 EX 10",
            "SET k 1 KEEPTTL",
            "APPEND k 0123456789",
            "SETRANGE k 40 xyz",
            "SETRANGE n 9 x",
            "COPY k c",
            "COPY k c REPLACE",
            "SETEX s 10 value",
            "PSETEX s 10000 v",
            "SETNX k v",
            "GETSET g value",
            "MSET m 1 n 2 o 333333333333",
            "MSETNX p 1 q 2",
            "INCR i",
            "INCRBY i 999999999999",
            "DECR j",
            "INCRBYFLOAT f 0.1",
            "APPEND new x",
        ] {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let command = ringfort_resp::commands::lookup(words[0]).unwrap().command;
            let bound = session.store.growth_max(command, &words[1..]);
            let before = session.store.logical_bytes();
            assert!(!session.run(line).starts_with('-'), "{line}");
            let grown = session.store.logical_bytes().saturating_sub(before);
            assert!(grown <= bound && bound <= grown + 60, "{line}: {grown} of {bound}");
        }
        // Nobody gives way to what will be refused.
        for (offset, patch) in [(i64::MAX, "x"), (i64::MAX, ""), (VALUE_BYTES_MAX as i64, "x")] {
            let args = [&b"k"[..], &offset.to_string().into_bytes(), patch.as_bytes()];
            let bound = session.store.growth_max(Command::SetRange, &args);
            assert!(bound < 60, "{offset} {patch}: {bound}");
        }
    }
}
