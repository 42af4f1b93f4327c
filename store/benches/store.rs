//! GET and SET on a million keys in the 64 stores of a node and in one store, and inserts that make tables grow.
//!
//! Run with `cargo bench -p ringfort-store`. Keys have 16 bytes, values 32. Memory and longest times:
//! `examples/figures.rs`.

mod node;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use node::{Node, VALUE, key, prefetch, scattered};
use ringfort_resp::Command;

const KEYS: usize = 1_000_000;
/// Keys of an insertion run.
const INSERTS: usize = 100_000;
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

criterion_group!(benches, commands);
criterion_main!(benches);
