//! Which keys there are, and which operation comes next.

use super::Options;
use super::history::{History, Kind, ObjectId};
use super::outage::BUCKETS;
use crate::rng::Rng;

/// Share of keys that all clients write, in percent.
const SHARED_PERCENT: u64 = 25;

/// Each is as frequent as the others.
const KINDS: [Kind; 4] = [Kind::Register, Kind::Counter, Kind::List, Kind::Mixed];

/// A place in the plan. Its key changes when a list is full, all else stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(usize);

#[derive(Debug)]
struct Seat {
    object: ObjectId,
    kind: Kind,
    bucket: usize,
    generation: u32,
}

/// The keys in use.
#[derive(Debug)]
pub(super) struct Plan {
    prefix: String,
    seats: Vec<Seat>,
    /// By client: the places it may write.
    writable: Vec<Vec<Place>>,
}

impl Plan {
    /// Adds `options.keys` keys to `history`. Key i lies in bucket i mod 64; kind and writer follow from the seed, but
    /// each client gets at least one key of its own, and each kind at least one that all share.
    pub(super) fn new(run: &str, options: &Options, history: &mut History) -> Self {
        let clients = usize::from(options.clients);
        let mut rng = Rng::new(options.seed, u64::MAX);
        let mut plan = Self {
            prefix: format!("rfcheck:{run}"),
            seats: Vec::with_capacity(options.keys as usize),
            writable: vec![Vec::new(); clients],
        };
        for i in 0..options.keys as usize {
            let is_shared = if i < clients {
                false
            } else {
                i < clients + KINDS.len() || rng.below(100) < SHARED_PERCENT
            };
            let owner = if i < clients { i } else { rng.index(clients) };
            let is_first_shared = (clients..clients + KINDS.len()).contains(&i);
            let kind = KINDS[if is_first_shared { i - clients } else { rng.index(KINDS.len()) }];
            let bucket = i % BUCKETS;
            let object = history.add(plan.key(i, bucket, 0), kind);
            plan.seats.push(Seat { object, kind, bucket, generation: 0 });
            let writers = if is_shared { 0..clients } else { owner..owner + 1 };
            for writer in writers {
                plan.writable[writer].push(Place(i));
            }
        }
        plan
    }

    /// A place that `client` may write.
    pub(super) fn pick_write(&self, client: u16, rng: &mut Rng) -> Place {
        let places = &self.writable[usize::from(client)];
        places[rng.index(places.len())]
    }

    /// A key to read: half of the time one that was written a moment ago.
    pub(super) fn pick_read(&self, history: &History, rng: &mut Rng) -> ObjectId {
        let coin = rng.next_u64();
        match history.recent((coin >> 32) as usize) {
            Some(object) if coin & 1 == 0 => object,
            _ => self.seats[rng.index(self.seats.len())].object,
        }
    }

    /// The key to write at a place; a fresh one when the former is full.
    pub(super) fn object(&mut self, place: Place, history: &mut History) -> ObjectId {
        let Seat { object, kind, bucket, generation } = self.seats[place.0];
        if !history.is_full(object) {
            return object;
        }
        let object = history.add(self.key(place.0, bucket, generation + 1), kind);
        self.seats[place.0] = Seat { object, kind, bucket, generation: generation + 1 };
        object
    }

    /// The key at a place, full or not; a fresh one would lie in the same bucket, but maybe at another node.
    pub(super) fn current(&self, place: Place) -> ObjectId {
        self.seats[place.0].object
    }

    /// The bucket of a place's slots.
    pub(super) fn bucket(&self, place: Place) -> usize {
        self.seats[place.0].bucket
    }

    /// The first name of its kind that lies in `bucket`; a name hits it with probability 1/64.
    fn key(&self, number: usize, bucket: usize, generation: u32) -> String {
        (0_u32..)
            .map(|salt| format!("{}:{number}.{generation}.{salt}", self.prefix))
            .find(|key| bucket_of(key.as_bytes()) == bucket)
            .expect("4 billion names reach each of 64 buckets")
    }
}

/// The bucket of a key.
pub(super) fn bucket_of(key: &[u8]) -> usize {
    usize::from(ringfort_ring::slot::slot_of(key).0) * BUCKETS / usize::from(ringfort_ring::slot::SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(seed: u64) -> (Plan, History) {
        let mut history = History::default();
        let options = Options { keys: 200, clients: 5, seed, ..Options::new("") };
        (Plan::new("r", &options, &mut history), history)
    }

    #[test]
    fn keys_follow_from_the_seed_and_reach_every_bucket() {
        let (plan, history) = keys(3);
        let (_, again) = keys(3);
        let mut seen = [false; BUCKETS];
        for object in history.objects() {
            assert_eq!(history.key(object), again.key(object));
            assert!(!history.key(object).contains('{'));
            seen[bucket_of(history.key(object).as_bytes())] = true;
        }
        assert!(seen.iter().all(|&seen| seen));
        assert!(plan.writable.iter().all(|places| places.len() > 20));
    }
}
