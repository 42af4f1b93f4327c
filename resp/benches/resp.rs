//! Decoding pipelines of 16 commands, encoding their replies, and finding a command by its name.
//!
//! Run with `cargo bench -p ringfort-resp`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringfort_resp::{CommandDecoder, Limits, Protocol, ReplyWriter, Status, commands, write_command};
use std::hint::black_box;

const PIPELINE: usize = 16;
const KEY: &[u8] = b"key:000000000001";
const VALUE: [u8; 64] = [b'v'; 64];

fn pipeline(args: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    (0..PIPELINE).for_each(|_| write_command(args, &mut out));
    out
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode 16");
    group.throughput(Throughput::Elements(PIPELINE as u64));
    let mut decoder = CommandDecoder::new(Limits::default());
    for (name, bytes) in [("GET", pipeline(&[b"GET", KEY])), ("SET", pipeline(&[b"SET", KEY, &VALUE]))] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut start = 0;
                while let Ok(Status::Complete { consumed }) = decoder.decode(black_box(&bytes[start..])) {
                    start += consumed;
                }
                start
            });
        });
    }
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode 16");
    group.throughput(Throughput::Elements(PIPELINE as u64));
    let mut out = Vec::new();
    group.bench_function("values of 64 bytes", |b| {
        b.iter(|| {
            out.clear();
            let mut writer = ReplyWriter::new(&mut out, Protocol::Resp2);
            (0..PIPELINE).for_each(|_| writer.bulk(black_box(&VALUE)));
        });
    });
}

fn look_up(c: &mut Criterion) {
    for name in ["get", "ZRANGEBYSCORE", "nosuchcommand"] {
        c.bench_function(&format!("command {name}"), |b| {
            b.iter(|| commands::lookup(black_box(name.as_bytes())));
        });
    }
}

criterion_group!(benches, decode, encode, look_up);
criterion_main!(benches);
