//! GET and SET on a million keys in the 64 stores of a node and in one store, inserts that make tables grow; and what else a
//! store does, on 100,000 keys.
//!
//! Run with `cargo bench -p ringfort-store`. Keys have 16 bytes, values 32. Memory and longest times:
//! `examples/figures.rs`.

mod node;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use node::{CONTEXT, Node, VALUE, key, prefetch, scattered};
use ringfort_resp::Command;
use ringfort_ring::SLOTS;
use ringfort_store::{Evictor, MemoryLimit, Policy, Store};

const KEYS: usize = 1_000_000;
/// Keys of an insertion run.
const INSERTS: usize = 100_000;
/// Keys of the store on which the rest is measured.
const FEW_KEYS: usize = 100_000;
/// Bytes of a part of a snapshot.
const PART_BYTES: usize = 64 << 10;
/// Commands that arrive together.
const BATCHES: [usize; 3] = [1, 16, 64];
/// Keys of one store, as a partition's share of a pipeline arrives.
fn keys_of_one_store(node: &Node, n: usize, numbers: &mut Scattered) -> Vec<[u8; 16]> {
    let store = numbers.next() % node.stores.len();
    let keys = std::iter::repeat_with(|| key(numbers.next()));
    keys.filter(|key| node.store_of(key) == store).take(n).collect()
}

fn set(node: &mut Node, key: &[u8]) {
    node.apply(Command::Set, &[key, &VALUE]);
}

/// Numbers below `KEYS` in an order that jumps about.
struct Scattered(usize);

impl Scattered {
    fn next(&mut self) -> usize {
        self.0 += 1;
        scattered(self.0, KEYS)
    }

    fn keys(&mut self, n: usize, first: usize) -> Vec<[u8; 16]> {
        (0..n).map(|_| key(first + self.next())).collect()
    }
}

fn commands(c: &mut Criterion) {
    for stores in [1, 64] {
        let mut node = Node::new(stores);
        (0..KEYS).for_each(|i| set(&mut node, &key(i)));
        // Only says which store a key is in, while the other one is in use.
        let spread = Node::new(stores);
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
                group.bench_function(BenchmarkId::new(name, batch), |b| {
                    b.iter_batched_ref(
                        || keys_of_one_store(&spread, batch, &mut numbers),
                        |keys| {
                            if is_ahead {
                                prefetch(&node.stores[node.store_of(&keys[0])], keys);
                            }
                            keys.iter().for_each(|key| node.get(key));
                        },
                        BatchSize::SmallInput,
                    );
                });
            }
            group.bench_function(BenchmarkId::new("set", batch), |b| {
                b.iter_batched_ref(
                    || numbers.keys(batch, 0),
                    |keys| keys.iter().for_each(|key| set(&mut node, key)),
                    BatchSize::SmallInput,
                );
            });
        }
        group.throughput(Throughput::Elements(INSERTS as u64)).sample_size(10);
        group.bench_function("insert", |b| {
            b.iter_batched_ref(
                || Node::new(stores),
                |node| (0..INSERTS).for_each(|i| set(node, &key(i))),
                BatchSize::PerIteration,
            );
        });
    }
}

/// A node of one store with [`FEW_KEYS`] keys.
fn small_node() -> Node {
    let mut node = Node::new(1);
    (0..FEW_KEYS).for_each(|i| set(&mut node, &key(i)));
    node
}

fn rest(c: &mut Criterion) {
    let mut node = small_node();
    let mut numbers = Scattered(0);
    let mut group = c.benchmark_group("100000 keys");
    group.bench_function("del, set again", |b| {
        b.iter_batched_ref(
            || key(numbers.next() % FEW_KEYS),
            |key| {
                node.apply(Command::Del, &[key]);
                set(&mut node, key);
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("append, set, setrange", |b| {
        b.iter_batched_ref(
            || key(numbers.next() % 1000),
            |key| {
                node.apply(Command::Append, &[key, b"12345678"]);
                set(&mut node, key);
                node.apply(Command::SetRange, &[key, b"8", b"12345678"]);
            },
            BatchSize::SmallInput,
        );
    });
    (0..1000).for_each(|i| node.apply(Command::Set, &[&key(FEW_KEYS + i), b"0"]));
    group.bench_function("incr", |b| {
        b.iter_batched_ref(
            || key(FEW_KEYS + numbers.next() % 1000),
            |key| node.apply(Command::Incr, &[key]),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("set with an expiry, expire", |b| {
        b.iter_batched_ref(
            || key(KEYS + numbers.next()),
            |key| {
                node.apply(Command::Set, &[key, &VALUE, b"PX", b"1"]);
                let store = &mut node.stores[0];
                for due in store.due(CONTEXT.log_time_ms + 1, 16) {
                    store.expire(&due.key, due.expires_at_ms);
                }
            },
            BatchSize::SmallInput,
        );
    });
    for policy in [Policy::AllKeysLru, Policy::AllKeysRandom] {
        let quota_bytes = node.stores[0].logical_bytes();
        node.stores[0].set_limit(MemoryLimit { quota_bytes, policy, ..MemoryLimit::default() });
        let mut evictor = Evictor::new(1);
        let mut next = 2 * KEYS;
        group.bench_function(BenchmarkId::new("evict, set", policy.name()), |b| {
            b.iter(|| {
                next += 1;
                let store = &mut node.stores[0];
                for victim in store.victims(&mut evictor, 1, 1) {
                    store.evict(&victim.key, victim.digest);
                    evictor.forget(victim.hash);
                }
                set(&mut node, &key(next));
            });
        });
        node.stores[0].set_limit(MemoryLimit::default());
    }
    group.throughput(Throughput::Elements(FEW_KEYS as u64)).sample_size(10);
    group.bench_function("snapshot", |b| b.iter(|| snapshot(&mut node)));
    let parts = snapshot(&mut node);
    group.bench_function("restore", |b| {
        b.iter(|| {
            let mut restorer = Store::restorer(0, SLOTS - 1);
            parts.iter().for_each(|part| restorer.push(part).expect("it is a snapshot"));
            restorer.finish().expect("it is a whole snapshot")
        });
    });
    group.bench_function("digest", |b| b.iter(|| node.stores[0].digest()));
}

fn snapshot(node: &mut Node) -> Vec<Vec<u8>> {
    let store = &mut node.stores[0];
    store.snapshot_begin();
    let mut parts = Vec::new();
    loop {
        let mut part = Vec::new();
        let is_end = store.snapshot_next(PART_BYTES, &mut part);
        parts.push(part);
        if is_end {
            return parts;
        }
    }
}

criterion_group!(benches, commands, rest);
criterion_main!(benches);
