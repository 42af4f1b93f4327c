//! GET and SET on a million keys in the 64 stores of a node and in one store, and inserts that make tables grow.
//!
//! Run with `cargo bench -p ringfort-store`. Keys have 16 bytes, values 32. Memory and longest times:
//! `examples/figures.rs`.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringfort_resp::{Command, Protocol, ReplyWriter};
use ringfort_ring::{SLOTS, slot_of};
use ringfort_store::{ApplyContext, Store};

const KEYS: usize = 1_000_000;
/// Keys of an insertion run.
const INSERTS: usize = 100_000;
/// Commands that arrive together.
const BATCHES: [usize; 3] = [1, 16, 64];
const VALUE: [u8; 32] = [b'v'; 32];
const CONTEXT: ApplyContext = ApplyContext { log_time_ms: 1_700_000_000_000, seed: 0 };

struct Node {
    stores: Vec<Store>,
    width: u16,
    reply: Vec<u8>,
}

impl Node {
    fn new(stores: u16) -> Self {
        let width = SLOTS / stores;
        let stores = (0..stores).map(|i| Store::new(i * width, i * width + (width - 1))).collect();
        Self { stores, width, reply: Vec::new() }
    }

    fn store_of(&self, key: &[u8]) -> usize {
        usize::from(slot_of(key).0 / self.width)
    }

    /// Keys of one store, as a partition's share of a pipeline arrives.
    fn keys_of_one_store(&self, n: usize, numbers: &mut Scattered) -> Vec<[u8; 16]> {
        let store = numbers.next() % self.stores.len();
        let keys = std::iter::repeat_with(|| key(numbers.next()));
        keys.filter(|key| self.store_of(key) == store).take(n).collect()
    }

    fn get_all(&self, keys: &[[u8; 16]], is_ahead: bool, reply: &mut Vec<u8>) {
        let store = &self.stores[self.store_of(&keys[0])];
        if is_ahead {
            let spots = || keys.iter().filter_map(|key| store.spot(key));
            spots().for_each(|spot| store.prefetch_bucket(spot));
            spots().for_each(|spot| store.prefetch_record(spot));
        }
        for key in keys {
            reply.clear();
            let mut reply = ReplyWriter::new(reply, Protocol::Resp2);
            store.read(CONTEXT.log_time_ms, Command::Get, &[key], &mut reply, &mut Vec::new());
        }
        black_box(reply);
    }

    fn set(&mut self, key: &[u8]) {
        let store = self.store_of(key);
        self.reply.clear();
        let mut reply = ReplyWriter::new(&mut self.reply, Protocol::Resp2);
        self.stores[store].apply(&CONTEXT, Command::Set, &[key, &VALUE], &mut reply);
        black_box(&self.reply);
    }

    fn get(&mut self, key: &[u8]) {
        let store = &self.stores[self.store_of(key)];
        self.reply.clear();
        let mut reply = ReplyWriter::new(&mut self.reply, Protocol::Resp2);
        store.read(CONTEXT.log_time_ms, Command::Get, &[key], &mut reply, &mut Vec::new());
        black_box(&self.reply);
    }
}

fn key(n: usize) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let mut rest = n;
    for byte in key[4..].iter_mut().rev() {
        *byte = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// Numbers below `KEYS` in an order that jumps about.
struct Scattered(usize);

impl Scattered {
    fn next(&mut self) -> usize {
        self.0 += 1;
        (self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) % KEYS
    }

    fn keys(&mut self, n: usize, first: usize) -> Vec<[u8; 16]> {
        (0..n).map(|_| key(first + self.next())).collect()
    }
}

fn commands(c: &mut Criterion) {
    for stores in [1, 64] {
        let mut node = Node::new(stores);
        (0..KEYS).for_each(|i| node.set(&key(i)));
        let mut numbers = Scattered(0);
        let mut group = c.benchmark_group(format!("{stores} stores"));
        for batch in BATCHES {
            group.throughput(Throughput::Elements(batch as u64));
            for (name, first) in [("get, hit", 0), ("get, miss", KEYS)] {
                group.bench_function(BenchmarkId::new(name, batch), |b| {
                    b.iter_batched_ref(
                        || numbers.keys(batch, first),
                        |keys| keys.iter().for_each(|key| node.get(key)),
                        BatchSize::SmallInput,
                    );
                });
            }
            for (name, is_ahead) in [("get, one store", false), ("get, one store, fetched ahead", true)] {
                let mut reply = Vec::new();
                group.bench_function(BenchmarkId::new(name, batch), |b| {
                    b.iter_batched_ref(
                        || node.keys_of_one_store(batch, &mut numbers),
                        |keys| node.get_all(keys, is_ahead, &mut reply),
                        BatchSize::SmallInput,
                    );
                });
            }
            group.bench_function(BenchmarkId::new("set", batch), |b| {
                b.iter_batched_ref(
                    || numbers.keys(batch, 0),
                    |keys| keys.iter().for_each(|key| node.set(key)),
                    BatchSize::SmallInput,
                );
            });
        }
        group.throughput(Throughput::Elements(INSERTS as u64)).sample_size(10);
        group.bench_function("insert", |b| {
            b.iter_batched_ref(
                || Node::new(stores),
                |node| (0..INSERTS).for_each(|i| node.set(&key(i))),
                BatchSize::PerIteration,
            );
        });
    }
}

criterion_group!(benches, commands);
criterion_main!(benches);
