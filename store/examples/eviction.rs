//! How many requests miss under eviction: the store beside exact LRU, Redis's sampled LRU and LFU, and S3-FIFO.
//!
//! `cargo run --release -p ringfort-store --example eviction -- [REQUESTS] [LOAD]`: each miss is followed by a write of the
//! key (cache-aside); the first half of the requests warms up. Caches have room for 1, 10 and 25 % of the keys. Prints the
//! misses of each in percent. Everything is drawn from fixed seeds: two runs print the same.
#![expect(clippy::print_stdout, reason = "the figures are this program's output")]
#![expect(clippy::expect_used, reason = "a measurement that fails has no caller to tell")]

use std::collections::VecDeque;

use ringfort_resp::{Command, Protocol, ReplyWriter};
use ringfort_ring::SLOTS;
use ringfort_store::{ApplyContext, Evictor, MemoryLimit, Policy, Store};

/// Keys that may be asked for again.
const KEYS: usize = 100_000;
/// Keys of 20 bytes and values of 273: cluster52 of Twitter's traces (Yang et al., OSDI 2020).
const VALUE: [u8; 273] = [b'v'; 273];
const KEY_LEN: usize = 20;
const OVERHEAD: usize = 32;
/// Requests of a simulated second.
const REQUESTS_PER_SECOND: u64 = 10_000;
const START_MS: u64 = 1_700_000_000_000;

fn main() {
    let mut args = std::env::args().skip(1);
    let requests: usize = args.next().map_or(1_000_000, |n| n.parse().expect("REQUESTS is a number"));
    let only = args.next();
    println!("{:<12} {:>4}  {}", "load", "room", NAMES.map(|name| format!("{name:>12}")).concat());
    for (name, load) in LOADS {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let trace = load(requests);
        let ids = trace.iter().max().map_or(0, |id| *id as usize + 1);
        for percent in [1, 10, 25] {
            let room = KEYS * percent / 100;
            let caches: [Box<dyn Cache>; NAMES.len()] = [
                Box::new(Lru::new(ids, room)),
                Box::new(Sampled::new(ids, room, false)),
                Box::new(Sampled::new(ids, room, true)),
                Box::new(S3Fifo::new(ids, room)),
                Box::new(Stored::new(room, Policy::AllKeysLru)),
                Box::new(Stored::new(room, Policy::AllKeysLfu)),
            ];
            let misses = caches.map(|mut cache| format!("{:>12.2}", misses(cache.as_mut(), &trace)));
            println!("{name:<12} {percent:>3}%  {}", misses.concat());
        }
    }
}

/// Percent of the second half of the requests.
fn misses(cache: &mut dyn Cache, trace: &[u32]) -> f64 {
    let (warm, counted) = trace.split_at(trace.len() / 2);
    warm.iter().for_each(|id| _ = cache.ask(*id));
    let misses = counted.iter().filter(|id| !cache.ask(**id)).count();
    100.0 * misses as f64 / counted.len() as f64
}

const NAMES: [&str; 6] = ["lru", "redis-lru", "redis-lfu", "s3-fifo", "store-lru", "store-lfu"];

type Load = fn(usize) -> Vec<u32>;

/// Requests for keys by number.
const LOADS: [(&str, Load); 9] = [
    ("zipf-0.8", |n| zipf(n, 0.8, |rank, _| rank)),
    ("zipf-1.0", |n| zipf(n, 1.0, |rank, _| rank)),
    // As in clusters 52 and 18 of Twitter.
    ("zipf-1.21", |n| zipf(n, 1.2117, |rank, _| rank)),
    ("zipf-2.10", |n| zipf(n, 2.0994, |rank, _| rank)),
    // What is popular changes: every 200 (20) requests all ranks go to the next key.
    ("drift", |n| zipf(n, 1.0, |rank, i| (rank + i / 200) % KEYS)),
    ("drift-fast", |n| zipf(n, 1.0, |rank, i| (rank + i / 20) % KEYS)),
    // A third are keys that nobody asks for again.
    ("once", |n| zipf(n, 0.9, |rank, i| if i % 3 == 0 { KEYS + i / 3 } else { rank })),
    // In turn 50,000 requests by Zipf and 20,000 that go through old keys in order.
    ("scan", |n| {
        let old = |i| KEYS + i / 70_000 * 20_000 % KEYS + i % 70_000 - 50_000;
        zipf(n, 0.9, |rank, i| if i % 70_000 < 50_000 { rank } else { old(i) })
    }),
    // One pass after the other over more keys than have room.
    ("loop", |n| zipf(n, 0.9, |rank, i| if i % 4 == 0 { rank } else { KEYS + i % 30_000 })),
];

/// Ranks below [`KEYS`] by a Zipf distribution, made keys by `key` from the rank and the request's number.
fn zipf(n: usize, alpha: f64, key: impl Fn(usize, usize) -> usize) -> Vec<u32> {
    let mut total = 0.0;
    let sums: Vec<f64> = (1..=KEYS)
        .map(|rank| {
            total += (rank as f64).powf(-alpha);
            total
        })
        .collect();
    let mut random = 1;
    let draw = |i| {
        let share = (next(&mut random) >> 11) as f64 / (1_u64 << 53) as f64;
        key(sums.partition_point(|sum| *sum <= share * total), i) as u32
    };
    (0..n).map(draw).collect()
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

trait Cache {
    /// Asks for a key and writes it if it is not there; returns whether it was.
    fn ask(&mut self, id: u32) -> bool;
}

/// The key used longest ago goes.
struct Lru {
    room: usize,
    len: usize,
    /// Number of the last use of each key that is there; 0: it is not.
    used: Vec<u64>,
    /// Uses; all but the last one of each key are void.
    uses: VecDeque<(u32, u64)>,
    now: u64,
}

impl Lru {
    fn new(ids: usize, room: usize) -> Self {
        Self { room, len: 0, used: vec![0; ids], uses: VecDeque::new(), now: 0 }
    }
}

impl Cache for Lru {
    fn ask(&mut self, id: u32) -> bool {
        self.now += 1;
        let is_hit = self.used[id as usize] != 0;
        self.used[id as usize] = self.now;
        self.uses.push_back((id, self.now));
        self.len += usize::from(!is_hit);
        while self.room < self.len {
            let (id, at) = self.uses.pop_front().expect("each key has a last use");
            if self.used[id as usize] == at {
                self.used[id as usize] = 0;
                self.len -= 1;
            }
        }
        is_hit
    }
}

/// Redis's approximations (evict.c): 5 samples for each victim, and a pool of 16.
struct Sampled {
    room: usize,
    is_lfu: bool,
    present: Vec<u32>,
    keys: Vec<SampledKey>,
    /// The best candidate last.
    pool: Vec<(u64, u32)>,
    now: u64,
    random: u64,
}

#[derive(Clone, Copy, Default)]
struct SampledKey {
    /// Place in `present`, from 1; 0: it is not there.
    place: u32,
    count: u64,
    used: u64,
}

impl Sampled {
    fn new(ids: usize, room: usize, is_lfu: bool) -> Self {
        let keys = vec![SampledKey::default(); ids];
        Self { room, is_lfu, present: Vec::new(), keys, pool: Vec::new(), now: 0, random: 7 }
    }

    /// The higher, the sooner it goes. Counts fall by one for each minute without a use (lfu-decay-time 1).
    fn score(&self, id: u32) -> u64 {
        let key = self.keys[id as usize];
        let idle = self.now - key.used;
        if self.is_lfu { 255 - key.count.saturating_sub(idle / (60 * REQUESTS_PER_SECOND)) } else { idle }
    }

    fn evict(&mut self) {
        loop {
            for _ in 0..5 {
                let id = self.present[next(&mut self.random) as usize % self.present.len()];
                if self.pool.iter().all(|(_, other)| *other != id) {
                    let score = self.score(id);
                    let at = self.pool.partition_point(|(other, _)| *other < score);
                    self.pool.insert(at, (score, id));
                    if 16 < self.pool.len() {
                        self.pool.remove(0);
                    }
                }
            }
            let Some((_, id)) = self.pool.pop() else { continue };
            let place = core::mem::take(&mut self.keys[id as usize].place) as usize;
            if place != 0 {
                self.present.swap_remove(place - 1);
                if let Some(moved) = self.present.get(place - 1) {
                    self.keys[*moved as usize].place = place as u32;
                }
                return;
            }
        }
    }
}

impl Cache for Sampled {
    fn ask(&mut self, id: u32) -> bool {
        self.now += 1;
        let is_hit = self.keys[id as usize].place != 0;
        if !is_hit {
            if self.present.len() == self.room {
                self.evict();
            }
            self.present.push(id);
            self.keys[id as usize] =
                SampledKey { place: self.present.len() as u32, count: 5, used: self.now };
        }
        let count = 255 - self.score(id);
        let draw = next(&mut self.random);
        let now = self.now;
        let key = &mut self.keys[id as usize];
        key.used = now;
        if self.is_lfu && is_hit {
            // lfu-log-factor 10.
            key.count =
                count + u64::from(count < 255 && draw.is_multiple_of(count.saturating_sub(5) * 10 + 1));
        }
        is_hit
    }
}

/// S3-FIFO (Yang et al., SOSP 2023): a tenth is for new keys, and as many are remembered as the rest has room for.
struct S3Fifo {
    room: usize,
    small: VecDeque<u32>,
    main: VecDeque<u32>,
    ghosts: VecDeque<u32>,
    /// Uses, up to 3, of the keys that are there.
    uses: Vec<Option<u8>>,
    is_ghost: Vec<bool>,
}

impl S3Fifo {
    fn new(ids: usize, room: usize) -> Self {
        let (small, main, ghosts) = Default::default();
        Self { room, small, main, ghosts, uses: vec![None; ids], is_ghost: vec![false; ids] }
    }

    fn evict(&mut self) {
        if self.room / 10 <= self.small.len() {
            while let Some(id) = self.small.pop_front() {
                if self.uses[id as usize] > Some(1) {
                    self.uses[id as usize] = Some(0);
                    self.main.push_back(id);
                    continue;
                }
                self.uses[id as usize] = None;
                self.is_ghost[id as usize] = true;
                self.ghosts.push_back(id);
                if self.room * 9 / 10 < self.ghosts.len() {
                    let oldest = self.ghosts.pop_front().expect("there is one");
                    self.is_ghost[oldest as usize] = false;
                }
                return;
            }
        }
        while let Some(id) = self.main.pop_front() {
            match self.uses[id as usize] {
                Some(uses @ 1..) => self.uses[id as usize] = Some(uses - 1),
                _ => {
                    self.uses[id as usize] = None;
                    return;
                }
            }
            self.main.push_back(id);
        }
    }
}

impl Cache for S3Fifo {
    fn ask(&mut self, id: u32) -> bool {
        if let Some(uses) = &mut self.uses[id as usize] {
            *uses = (*uses + 1).min(3);
            return true;
        }
        while self.room <= self.small.len() + self.main.len() {
            self.evict();
        }
        let queue = if self.is_ghost[id as usize] { &mut self.main } else { &mut self.small };
        queue.push_back(id);
        self.uses[id as usize] = Some(0);
        false
    }
}

/// The store under a policy, fed as a leader feeds it.
struct Stored {
    store: Store,
    evictor: Evictor,
    reply: Vec<u8>,
    asked: u64,
}

impl Stored {
    fn new(room: usize, policy: Policy) -> Self {
        let mut store = Store::new(0, SLOTS - 1);
        let quota_bytes = (room * (OVERHEAD + KEY_LEN + VALUE.len())) as u64;
        store.set_limit(MemoryLimit { quota_bytes, policy, ..MemoryLimit::default() });
        Self { store, evictor: Evictor::new(1), reply: Vec::new(), asked: 0 }
    }
}

impl Cache for Stored {
    fn ask(&mut self, id: u32) -> bool {
        self.asked += 1;
        let now_ms = START_MS + self.asked * 1000 / REQUESTS_PER_SECOND;
        let key = format!("key:{id:016}");
        let key = key.as_bytes();
        self.reply.clear();
        let reply = &mut ReplyWriter::new(&mut self.reply, Protocol::Resp2);
        self.store.read(now_ms, Command::Get, &[key], reply, &mut Vec::new());
        if self.reply.starts_with(b"$2") {
            return true;
        }
        let growth = self.store.growth_max(Command::Set, &[key, &VALUE]) - 8;
        let quota = self.store.limit().quota_bytes;
        let excess = (self.store.logical_bytes() + growth).saturating_sub(quota);
        for victim in self.store.victims(&mut self.evictor, excess, usize::MAX) {
            self.store.evict(&victim.key, victim.digest);
            self.evictor.forget(victim.hash);
        }
        let context = ApplyContext { log_time_ms: now_ms, seed: 0 };
        let reply = &mut ReplyWriter::new(&mut self.reply, Protocol::Resp2);
        self.store.apply(&context, Command::Set, &[key, &VALUE], reply);
        false
    }
}
