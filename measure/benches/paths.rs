//! Pipelines of 16 on a node, on three (each write an entry of its partition, committed by a majority and applied), and
//! through a proxy; appending to the log; writing and reading a snapshot. All of it on disks in memory.
//!
//! Run with `cargo bench -p ringfort-measure`. What the same paths cost in instructions: `scripts/instructions`.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringfort::log::{Log, LogEntry, LogOptions, MemDisk, SnapshotFiles, SnapshotHeader};
use ringfort_measure::requests::{PIPELINE, Pipelines, Spread};
use ringfort_measure::{Direct, Proxied};
use std::time::Duration;

/// Writes to one log, each of some entries.
const WRITES: u64 = 1000;
const ENTRIES: u64 = 4;
const ENTRY_BYTES: usize = 128;
/// Chunks of a snapshot.
const CHUNKS: usize = 64;
const CHUNK_BYTES: usize = 64 << 10;

fn pipelines(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipelines of 16");
    // The log stays in memory and grows all the time.
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(PIPELINE as u64));
    for spread in [Spread::Many, Spread::One] {
        for (command, pipelines) in [("SET", Pipelines::set(spread)), ("GET", Pipelines::get(spread))] {
            let set = Pipelines::set(spread);
            for (name, replicas) in [("a node", 1), ("three nodes", 3)] {
                let mut client = Direct::new(replicas);
                set.requests.iter().for_each(|p| client.ask(p, set.reply_bytes));
                let mut next = pipelines.requests.iter().cycle();
                group.bench_function(format!("{name}, {command}, {spread:?}"), |b| {
                    b.iter(|| next.next().map(|p| client.ask(p, pipelines.reply_bytes)));
                });
            }
            let mut client = Proxied::new(1);
            set.requests.iter().for_each(|p| client.ask(p, set.reply_bytes, |node| node()));
            let mut next = pipelines.requests.iter().cycle();
            group.bench_function(format!("a proxy and a node, {command}, {spread:?}"), |b| {
                b.iter(|| next.next().map(|p| client.ask(p, pipelines.reply_bytes, |node| node())));
            });
        }
    }
}

fn log(c: &mut Criterion) {
    let mut group = c.benchmark_group("log");
    group.throughput(Throughput::Elements(WRITES));
    let data = Bytes::from(vec![b'e'; ENTRY_BYTES]);
    let entries = |first: u64| -> Vec<LogEntry> {
        let entry = |index| LogEntry { index, term: 1, kind: 0, data: data.clone() };
        (first..first + ENTRIES).map(entry).collect()
    };
    let writes: Vec<_> = (0..WRITES).map(|write| entries(1 + write * ENTRIES)).collect();
    let empty = || Log::open(MemDisk::new(), LogOptions::default()).expect("an empty disk is right").0;
    group.bench_function("append 4 entries of 128 bytes", |b| {
        let append = |mut log: Log<MemDisk>| {
            for entries in &writes {
                log.stage_entries(1, entries).expect("the entries follow each other");
                log.write().expect("a disk in memory does not fail");
            }
            log
        };
        b.iter_batched(empty, append, BatchSize::PerIteration);
    });
}

fn write_snapshot(chunk: &[u8]) -> SnapshotFiles<MemDisk> {
    let mut files = SnapshotFiles::load(MemDisk::new()).expect("an empty disk is right");
    let header =
        SnapshotHeader { group: 1, feature_level: 1, incarnation: 0, index: 9, term: 1, conf: Bytes::new() };
    let mut writer = files.create(header).expect("a disk in memory does not fail");
    (0..CHUNKS).for_each(|_| writer.chunk(chunk).expect("a disk in memory does not fail"));
    writer.finish().and_then(|job| job.run()).expect("a disk in memory does not fail");
    files.complete(1, 9).expect("it was written");
    files
}

fn snapshot(c: &mut Criterion) {
    let mut group = c.benchmark_group("snapshot of 4 MiB");
    group.throughput(Throughput::Bytes((CHUNKS * CHUNK_BYTES) as u64));
    let chunk = vec![b's'; CHUNK_BYTES];
    group.bench_function("write", |b| b.iter(|| write_snapshot(&chunk)));
    let files = write_snapshot(&chunk);
    group.bench_function("read", |b| {
        b.iter(|| {
            let mut reader = files.open(1).expect("it is right").expect("it was written");
            std::iter::from_fn(|| reader.next_chunk().expect("it is right"))
                .map(|chunk| chunk.len())
                .sum::<usize>()
        });
    });
}

criterion_group!(benches, pipelines, log, snapshot);
criterion_main!(benches);
