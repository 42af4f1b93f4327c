//! What the store costs: memory per key, processor time per command, the longest insert, memory after deletions.
//!
//! `cargo run --release -p ringfort-store --example figures -- KEYS STORES [ttl]`: so many keys of 16 bytes with values of
//! 32, spread over so many stores as over the partitions of a node; `ttl`: each with an expiry. One process, one run:
//! figures of two programs compare only when their runs alternate.
#![expect(clippy::print_stdout, reason = "the figures are this program's output")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]
#![expect(clippy::expect_used, reason = "a measurement that fails has no caller to tell")]

use std::{hint::black_box, time::Instant};

use ringfort_resp::{Command, Protocol, ReplyWriter};
use ringfort_ring::{SLOTS, slot_of};
use ringfort_store::{ApplyContext, Store};

/// Commands that arrive together.
const BATCH: usize = 16;
const HOUR_MS: usize = 3_600_000;
const VALUE: [u8; 32] = [b'v'; 32];
const CONTEXT: ApplyContext = ApplyContext { log_time_ms: 1_700_000_000_000, seed: 0 };

/// The stores of a node, and the store of each slot.
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

    fn apply(&mut self, command: Command, args: &[&[u8]]) {
        let store = &mut self.stores[usize::from(slot_of(args[0]).0 / self.width)];
        self.reply.clear();
        store.apply(&CONTEXT, command, args, &mut ReplyWriter::new(&mut self.reply, Protocol::Resp2));
        black_box(&self.reply);
    }

    fn set(&mut self, key: &[u8], expiry: Option<&str>) {
        match expiry {
            None => self.apply(Command::Set, &[key, &VALUE]),
            Some(expiry) => self.apply(Command::Set, &[key, &VALUE, b"PX", expiry.as_bytes()]),
        }
    }

    /// Removes keys whose time has come, as a leader does every 100 ms.
    fn expire(&mut self, now_ms: u64) {
        for store in &mut self.stores {
            for due in store.due(now_ms, 256) {
                store.expire(&due.key, due.expires_at_ms);
            }
        }
    }

    fn get(&mut self, key: &[u8]) {
        let store = &self.stores[usize::from(slot_of(key).0 / self.width)];
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

/// The i-th number below `n` in an order that jumps about.
fn scattered(i: usize, n: usize) -> usize {
    (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) % n
}

/// Bytes of memory that the process has.
fn rss() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages = statm.split(' ').nth(1).expect("the second field is the resident set");
    pages.parse::<u64>().expect("it is a number") * 4096
}

/// Nanoseconds for which the process had a processor: what others do meanwhile does not count.
fn cpu_ns() -> u64 {
    let schedstat = std::fs::read_to_string("/proc/self/schedstat").expect("Linux has it");
    schedstat.split(' ').next().and_then(|ns| ns.parse().ok()).expect("the first field is a number")
}

fn timed(name: &str, n: usize, mut step: impl FnMut(usize)) {
    let start = cpu_ns();
    (0..n).for_each(&mut step);
    println!("{name}: {:.0} ns", (cpu_ns() - start) as f64 / n as f64);
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [keys, stores, rest @ ..] = &args[..] else { panic!("KEYS STORES [ttl]") };
    let keys: usize = keys.parse().expect("KEYS is a number");
    let mut node = Node::new(stores.parse().expect("STORES is a number"));
    // Within the next hour.
    let expiry = |i: usize| (!rest.is_empty()).then(|| (scattered(i, HOUR_MS) + 1).to_string());
    let mut times = vec![1_u32; keys];
    let empty = rss();
    let start = cpu_ns();
    for (i, time) in times.iter_mut().enumerate() {
        let (key, expiry) = (key(i), expiry(i));
        let before = Instant::now();
        node.set(&key, expiry.as_deref());
        *time = before.elapsed().as_nanos().try_into().unwrap_or(u32::MAX);
    }
    println!("load: {:.0} ns", (cpu_ns() - start) as f64 / keys as f64);
    println!("memory: {:.1} bytes a key", (rss() - empty) as f64 / keys as f64);
    times.sort_unstable();
    let at = |part: f64| f64::from(times[((keys - 1) as f64 * part) as usize]) / 1000.0;
    println!("insert: p99 {:.1}, p99.99 {:.1}, longest {:.1} us", at(0.99), at(0.9999), at(1.0));
    let n = keys.min(2_000_000);
    for _ in 0..2 {
        timed("get, hit", n, |i| node.get(&key(scattered(i, keys))));
        timed("get, miss", n, |i| node.get(&key(keys + scattered(i, keys))));
        timed("set", n, |i| {
            let key = key(scattered(i, keys));
            node.set(&key, expiry(i).as_deref());
        });
    }
    time_batches(&mut node, keys);
    let mut longest = 0;
    let start = cpu_ns();
    for i in (0..keys).filter(|i| scattered(*i, 2) == 0) {
        let before = Instant::now();
        node.apply(Command::Del, &[&key(i)]);
        longest = longest.max(before.elapsed().as_nanos());
    }
    let left: usize = node.stores.iter().map(Store::len).sum();
    let ns = (cpu_ns() - start) as f64 / (keys - left) as f64;
    println!("delete half: {ns:.0} ns, longest {:.1} us", longest as f64 / 1000.0);
    println!("memory: {:.1} bytes a key left", (rss() - empty) as f64 / left as f64);
    let start = cpu_ns();
    for store in &mut node.stores {
        while store.reclaim(1000) {}
    }
    println!("reclaim: {:.1} ms", (cpu_ns() - start) as f64 / 1e6);
    println!("memory: {:.1} bytes a key left", (rss() - empty) as f64 / left as f64);
    let expiring: usize = node.stores.iter().map(Store::expires_len).sum();
    let start = cpu_ns();
    let end = CONTEXT.log_time_ms + HOUR_MS as u64;
    (CONTEXT.log_time_ms..=end).step_by(100).for_each(|now_ms| node.expire(now_ms));
    if expiring != 0 {
        println!("expire: {:.0} ns", (cpu_ns() - start) as f64 / expiring as f64);
    }
}

/// Times the reads of sixteen keys of one store at a time, as a partition's share of a pipeline arrives.
fn time_batches(node: &mut Node, keys: usize) {
    let mut of_store = vec![Vec::new(); node.stores.len()];
    for i in 0..keys.min(2_000_000) {
        let key = key(scattered(i, keys));
        of_store[usize::from(slot_of(&key).0 / node.width)].push(key);
    }
    let batches = of_store.iter().map(|keys| keys.len() / BATCH).min().unwrap_or(0);
    for is_ahead in [false, true, false, true] {
        let start = cpu_ns();
        for batch in 0..batches {
            for (store, keys) in of_store.iter().enumerate() {
                let keys: &[_; BATCH] = &keys.as_chunks().0[batch];
                if is_ahead {
                    let store = &node.stores[store];
                    let spots = keys.each_ref().map(|key| store.spot(&key[..]));
                    spots.into_iter().flatten().for_each(|spot| store.prefetch_bucket(spot));
                    spots.into_iter().flatten().for_each(|spot| store.prefetch_record(spot));
                }
                keys.iter().for_each(|key| node.get(key));
            }
        }
        let ns = (cpu_ns() - start) as f64 / (batches * BATCH * of_store.len()) as f64;
        println!("get, hit, {BATCH} of a store{}: {ns:.0} ns", if is_ahead { ", fetched ahead" } else { "" });
    }
}
