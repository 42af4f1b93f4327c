//! Lookup, balance and movement of the ring beside its alternatives: a ketama-style ring, rendezvous and jump hash.
//!
//! Run with `cargo bench --bench ring`. First the table of balance and movement, then the timings.
#![expect(clippy::print_stdout, reason = "the table is this program's output")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group};
use ringfort_ring::{NodeId, NodeSpec, PartitionCount, Placement, place, slot_of};
use twox_hash::XxHash3_64;

/// Keys of the table, `user:0` and so on.
const KEYS: usize = 200_000;

/// Numbers of nodes in the table and the lookups.
const SIZES: [usize; 3] = [3, 5, 10];

/// Points of a server on the ketama ring, as in libketama.
const KETAMA_POINTS: u64 = 160;

/// Finds the node of a key.
trait Lookup {
    /// Index of the node that owns `key`.
    fn owner(&self, key: &[u8]) -> usize;
}

/// Ringfort: key -> slot -> partition -> node.
struct Table {
    partitions: PartitionCount,
    leaders: Vec<usize>,
}

impl Table {
    fn new(placement: &Placement, partitions: PartitionCount) -> Self {
        let leaders = placement.partitions.iter().map(|seats| number(&seats.leader)).collect();
        Self { partitions, leaders }
    }
}

impl Lookup for Table {
    fn owner(&self, key: &[u8]) -> usize {
        self.leaders[usize::from(self.partitions.of(slot_of(key)).0)]
    }
}

/// 160 points a server, binary search (xxh3 where libketama has MD5).
struct Ketama(Vec<(u64, usize)>);

impl Ketama {
    fn new(nodes: &[usize]) -> Self {
        let points = |node: &usize| {
            let node = *node;
            (0..KETAMA_POINTS).map(move |point| (mix(node as u64, point), node))
        };
        let mut ring: Vec<_> = nodes.iter().flat_map(points).collect();
        ring.sort_unstable();
        Self(ring)
    }
}

impl Lookup for Ketama {
    fn owner(&self, key: &[u8]) -> usize {
        let hash = XxHash3_64::oneshot(key);
        let next = self.0.partition_point(|(point, _)| *point < hash);
        self.0[next % self.0.len()].1
    }
}

/// Highest random weight (Thaler and Ravishankar 1998).
struct Rendezvous(Vec<usize>);

impl Lookup for Rendezvous {
    fn owner(&self, key: &[u8]) -> usize {
        let hash = XxHash3_64::oneshot(key);
        self.0.iter().copied().max_by_key(|node| mix(hash, *node as u64)).unwrap_or_default()
    }
}

/// Jump hash (Lamping and Veach 2014); only the last node can leave.
struct Jump(i64);

impl Lookup for Jump {
    fn owner(&self, key: &[u8]) -> usize {
        let mut state = XxHash3_64::oneshot(key);
        let (mut bucket, mut next) = (0, 0);
        while next < self.0 {
            bucket = next;
            state = state.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
            next = ((bucket + 1) as f64 * ((1_u64 << 31) as f64 / ((state >> 33) + 1) as f64)) as i64;
        }
        bucket as usize
    }
}

/// Mixes two words (the finalizer of SplitMix64 over their sum of odd multiples).
fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ b.wrapping_add(1).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn id(number: usize) -> NodeId {
    NodeId(format!("{number:03}"))
}

fn number(id: &NodeId) -> usize {
    id.0.parse().expect("ids are numbers here")
}

fn specs(nodes: &[usize]) -> Vec<NodeSpec> {
    nodes.iter().map(|node| NodeSpec { id: id(*node), weight: 1, zone: "a".to_owned() }).collect()
}

fn partitions(count: u16) -> PartitionCount {
    PartitionCount::new(count).expect("a power of two from 16 to 1024")
}

fn placed(previous: Option<&Placement>, nodes: &[usize], count: u16, replicas: u16) -> Placement {
    place(previous, &specs(nodes), partitions(count), replicas).expect("valid input")
}

/// Owners of every key: one for the alternatives, R for Ringfort.
type Owners = Vec<Vec<usize>>;

fn keys() -> impl Iterator<Item = Vec<u8>> {
    (0..KEYS).map(|number| format!("user:{number}").into_bytes())
}

fn owners(lookup: &impl Lookup) -> Owners {
    keys().map(|key| vec![lookup.owner(&key)]).collect()
}

fn replicas(placement: &Placement, count: u16) -> Owners {
    let seats = |key: Vec<u8>| &placement.partitions[usize::from(partitions(count).of(slot_of(&key)).0)];
    keys().map(|key| seats(key).replicas.iter().map(number).collect()).collect()
}

/// Keys of the fullest node against the mean.
fn balance(owners: &Owners, nodes: usize) -> f64 {
    let mut counts = vec![0_usize; nodes];
    for node in owners.iter().flatten() {
        counts[*node] += 1;
    }
    let (most, all) = (counts.iter().max().copied().unwrap_or_default(), counts.iter().sum::<usize>());
    most as f64 * nodes as f64 / all as f64
}

/// Copies of keys that some node has to receive.
fn moved(old: &Owners, new: &Owners) -> f64 {
    let arrived =
        |(old, new): (&Vec<usize>, &Vec<usize>)| new.iter().filter(|node| !old.contains(node)).count();
    old.iter().zip(new).map(arrived).sum::<usize>() as f64
}

/// One row: the owners before, after one node joined, and after one left.
fn row(name: &str, nodes: usize, before: &Owners, joined: &Owners, left: Option<&Owners>) {
    let copies = (before.len() * before[0].len()) as f64;
    let on_join = moved(before, joined) / (copies / (nodes + 1) as f64);
    let on_leave = left.map_or_else(
        || "   -".to_owned(),
        |left| format!("{:.3}", moved(before, left) / (copies / nodes as f64)),
    );
    println!("{nodes:>3}  {name:<22} {:>8.3} {on_join:>13.3} {on_leave:>13}", balance(before, nodes));
}

/// Balance and movement. The minimum is the fair share of the node that joins or leaves. `balance` counts keys, so
/// for Ringfort it holds the spread of the keys over the partitions too. The last node is the one that leaves.
fn print_table() {
    println!("{KEYS} keys, equal weights; balance = max / mean; join and leave = moved / minimum");
    println!("  N  scheme                  balance          join         leave");
    for size in SIZES {
        let nodes: Vec<usize> = (0..=size).collect();
        let (fewer, same, more) = (&nodes[..size - 1], &nodes[..size], &nodes[..]);
        for (count, copies) in [(64, 1), (256, 1), (64, 3), (256, 3)] {
            let before = placed(None, same, count, copies);
            let joined = placed(Some(&before), more, count, copies);
            let left = (size > usize::from(copies)).then(|| placed(Some(&before), fewer, count, copies));
            let left = left.map(|left| replicas(&left, count));
            let name = format!("ringfort P={count} R={copies}");
            row(&name, size, &replicas(&before, count), &replicas(&joined, count), left.as_ref());
        }
        let ketama = |nodes: &[usize]| owners(&Ketama::new(nodes));
        row("ketama, 160 points", size, &ketama(same), &ketama(more), Some(&ketama(fewer)));
        let rendezvous = |nodes: &[usize]| owners(&Rendezvous(nodes.to_vec()));
        row("rendezvous", size, &rendezvous(same), &rendezvous(more), Some(&rendezvous(fewer)));
        let jump = |nodes: &[usize]| owners(&Jump(nodes.len() as i64));
        row("jump (last leaves)", size, &jump(same), &jump(more), Some(&jump(fewer)));
    }
    println!();
}

/// Time for one lookup; each iteration looks up the next of 1024 keys.
fn lookup(criterion: &mut Criterion) {
    for bytes in [16_usize, 64] {
        let mut group = criterion.benchmark_group(format!("lookup/{bytes}-byte key"));
        let keys: Vec<Vec<u8>> = (0..1024).map(|number| format!("{number:0>bytes$}").into_bytes()).collect();
        for size in SIZES {
            let nodes: Vec<usize> = (0..size).collect();
            let table = Table::new(&placed(None, &nodes, 64, 3), partitions(64));
            let schemes: [(&str, &dyn Lookup); 4] = [
                ("ringfort", &table),
                ("ketama", &Ketama::new(&nodes)),
                ("rendezvous", &Rendezvous(nodes.clone())),
                ("jump", &Jump(size as i64)),
            ];
            for (name, scheme) in schemes {
                group.bench_function(BenchmarkId::new(name, size), |bencher| {
                    let mut next = 0;
                    bencher.iter(|| {
                        next = (next + 1) % keys.len();
                        black_box(scheme.owner(black_box(&keys[next])))
                    });
                });
            }
        }
        group.finish();
    }
}

/// Time to compute a placement: the first one, and after one node joined.
fn placement(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("place");
    group.sample_size(10);
    for (count, size) in [(64, 3), (256, 10), (1024, 50)] {
        let nodes: Vec<usize> = (0..=size).collect();
        let name = format!("P={count} N={size} R=3");
        group.bench_function(BenchmarkId::new("first", &name), |bencher| {
            bencher.iter(|| placed(None, black_box(&nodes[..size]), count, 3));
        });
        let before = placed(None, &nodes[..size], count, 3);
        group.bench_function(BenchmarkId::new("join", &name), |bencher| {
            bencher.iter(|| placed(Some(&before), black_box(&nodes), count, 3));
        });
    }
    group.finish();
}

criterion_group!(benches, lookup, placement);

fn main() {
    print_table();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
