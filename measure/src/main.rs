//! Walks the hot paths one after the other, for `scripts/instructions` to count what a step of each costs. Prints the name of
//! each path and its number of steps. With a name as its argument only paths are counted that contain it.
#![expect(clippy::print_stdout, reason = "what is printed is read by the script")]

use ringfort_measure::requests::{KEYS, PIPELINE, Pipelines, Spread, VALUE, key};
use ringfort_measure::{Direct, Proxied};
use ringfort_resp::{Command, CommandDecoder, Limits, Protocol, ReplyWriter, Status, commands};
use ringfort_ring::{PartitionCount, slot_of};
use ringfort_store::{ApplyContext, Store};
use std::hint::black_box;

/// The node's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONTEXT: ApplyContext = ApplyContext { log_time_ms: 1_700_000_000_000, seed: 0 };

fn main() {
    resp();
    look_up();
    store();
    node();
    proxy();
}

/// Has `work` counted, which is `KEYS` steps. It runs once before, so that memory and tables are there.
fn path(name: &str, mut work: impl FnMut()) {
    work();
    if std::env::args().nth(1).is_none_or(|wanted| name.contains(&wanted)) {
        println!("{name}\t{KEYS}");
        counted(&mut work);
    }
}

/// The script counts what happens in here ...
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
    black_box(());
}

/// ... and not in here.
#[inline(never)]
fn uncounted(work: &mut dyn FnMut()) {
    work();
    black_box(());
}

fn resp() {
    let mut decoder = CommandDecoder::new(Limits::default());
    let mut decode = |pipelines: &Pipelines| {
        for pipeline in &pipelines.requests {
            let mut start = 0;
            while let Ok(Status::Complete { consumed }) = decoder.decode(black_box(&pipeline[start..])) {
                start += consumed;
            }
            assert_eq!(start, pipeline.len(), "all of it is commands");
        }
    };
    let (gets, sets) = (Pipelines::get(Spread::Many), Pipelines::set(Spread::Many));
    path("RESP, decode GET", || decode(&gets));
    path("RESP, decode SET", || decode(&sets));

    let mut out = Vec::new();
    path("RESP, encode a value", || {
        for _ in 0..KEYS / PIPELINE {
            out.clear();
            let mut writer = ReplyWriter::new(&mut out, Protocol::Resp2);
            (0..PIPELINE).for_each(|_| writer.bulk(black_box(&VALUE)));
        }
    });
}

fn look_up() {
    let names = [&b"get"[..], b"SET", b"MGET", b"expire"];
    path("command of a name", || {
        for name in names.iter().cycle().take(KEYS) {
            black_box(commands::lookup(black_box(name)));
        }
    });
    let partitions = PartitionCount::new(64).expect("it is a power of two");
    let keys = keys();
    path("partition of a key", || {
        for key in &keys {
            black_box(partitions.of(slot_of(black_box(key.as_bytes()))));
        }
    });
}

fn keys() -> Vec<String> {
    (0..KEYS).map(|number| key(Spread::Many, number)).collect()
}

fn store() {
    let keys = keys();
    let mut store = Store::new(0, 16_383);
    let mut reply = Vec::new();
    path("store, SET of a present key", || {
        for key in &keys {
            reply.clear();
            let writer = &mut ReplyWriter::new(&mut reply, Protocol::Resp2);
            store.apply(&CONTEXT, Command::Set, black_box(&[key.as_bytes(), &VALUE]), writer);
        }
    });
    let mut expired = Vec::new();
    path("store, GET of a present key", || {
        for key in &keys {
            reply.clear();
            let writer = &mut ReplyWriter::new(&mut reply, Protocol::Resp2);
            store.read(CONTEXT.log_time_ms, Command::Get, black_box(&[key.as_bytes()]), writer, &mut expired);
        }
    });
}

fn node() {
    for (nodes, replicas) in [("node", 1), ("three nodes", 3)] {
        for (spread, keys) in
            [(Spread::Many, "16 keys of many partitions"), (Spread::One, "16 keys of one partition")]
        {
            let mut client = Direct::new(replicas);
            for (command, pipelines) in [("SET", Pipelines::set(spread)), ("GET", Pipelines::get(spread))] {
                path(&format!("{nodes}, {command}, {keys}"), || {
                    pipelines.requests.iter().for_each(|p| client.ask(p, pipelines.reply_bytes));
                });
            }
        }
    }
}

fn proxy() {
    for (spread, keys) in
        [(Spread::Many, "16 keys of many partitions"), (Spread::One, "16 keys of one partition")]
    {
        let mut client = Proxied::new(1);
        for (command, pipelines) in [("SET", Pipelines::set(spread)), ("GET", Pipelines::get(spread))] {
            path(&format!("proxy, {command}, {keys}"), || {
                pipelines
                    .requests
                    .iter()
                    .for_each(|p| client.ask(p, pipelines.reply_bytes, |node| uncounted(node)));
            });
        }
    }
}
