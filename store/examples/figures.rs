//! What the store costs: memory per key, processor time per command, the longest insert, memory after deletions.
//!
//! `cargo run --release -p ringfort-store --example figures -- KEYS STORES [ttl]`: so many keys of 16 bytes with values of
//! 32, spread over so many stores as over the partitions of a node; `ttl`: each with an expiry. One process, one run:
//! figures of two programs compare only when their runs alternate.
//!
//! The keys are inserted several times, into empty stores each time. An insert's time is on the wall, and as its thread has
//! a processor: what is longer on the wall than that, somebody else did. What the machine below takes from the processor
//! counts for the thread as well; it does not come at the same insert of all loads, so the least of an insert's times is
//! the store's own (memory that the system gives for the first time included).
#![expect(clippy::print_stdout, reason = "the figures are this program's output")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]
#![expect(clippy::expect_used, reason = "a measurement that fails has no caller to tell")]

#[path = "../benches/node/mod.rs"]
mod node;

use std::time::Instant;

use node::{CONTEXT, Node, VALUE, key, prefetch, scattered};
use ringfort_resp::Command;
use ringfort_store::Store;
use rustix::time::{ClockId, clock_gettime};

/// Commands that arrive together.
const BATCH: usize = 16;
const LOADS: usize = 3;
const HOUR_MS: usize = 3_600_000;

fn set(node: &mut Node, key: &[u8], expiry: Option<&str>) {
    match expiry {
        None => node.apply(Command::Set, &[key, &VALUE]),
        Some(expiry) => node.apply(Command::Set, &[key, &VALUE, b"PX", expiry.as_bytes()]),
    }
}

/// Removes keys whose time has come, as a leader does every 100 ms.
fn expire(node: &mut Node, now_ms: u64) {
    for store in &mut node.stores {
        for due in store.due(now_ms, 256) {
            store.expire(&due.key, due.expires_at_ms);
        }
    }
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

/// Nanoseconds for which this thread had a processor.
fn thread_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    (time.tv_sec * 1_000_000_000 + time.tv_nsec).unsigned_abs()
}

/// Prints how the times of inserts are distributed.
fn print_inserts(name: &str, times: &[u32]) {
    let longest = (0..times.len()).max_by_key(|i| times[*i]).unwrap_or(0);
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = |part: f64| f64::from(times[((times.len() - 1) as f64 * part) as usize]) / 1000.0;
    println!(
        "insert, {name}: p99 {:.1}, p99.99 {:.1}, longest {:.1} us (number {longest}), {} of more than 1 ms",
        at(0.99),
        at(0.9999),
        at(1.0),
        times.iter().rev().take_while(|ns| **ns > 1_000_000).count()
    );
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
    let stores = stores.parse().expect("STORES is a number");
    let mut node = Node::new(stores);
    // Within the next hour.
    let expiry = |i: usize| (!rest.is_empty()).then(|| (scattered(i, HOUR_MS) + 1).to_string());
    // Not zeroes, whose memory would only come with their first use.
    let [mut wall, mut cpu, mut least] = [vec![1_u32; keys], vec![1_u32; keys], vec![u32::MAX; keys]];
    let mut empty = 0;
    for _ in 0..LOADS {
        drop(core::mem::replace(&mut node, Node::new(stores)));
        empty = rss();
        let start = cpu_ns();
        let mut cpu_before = thread_ns();
        for i in 0..keys {
            let (key, expiry) = (key(i), expiry(i));
            let before = Instant::now();
            set(&mut node, &key, expiry.as_deref());
            wall[i] = before.elapsed().as_nanos().try_into().unwrap_or(u32::MAX);
            let cpu_after = thread_ns();
            cpu[i] = (cpu_after - cpu_before).try_into().unwrap_or(u32::MAX);
            cpu_before = cpu_after;
            least[i] = least[i].min(wall[i]).min(cpu[i]);
        }
        println!("load: {:.0} ns", (cpu_ns() - start) as f64 / keys as f64);
        println!("memory: {:.1} bytes a key", (rss() - empty) as f64 / keys as f64);
        print_inserts("wall", &wall);
        print_inserts("processor", &cpu);
    }
    print_inserts("least of all loads", &least);
    let n = keys.min(2_000_000);
    for _ in 0..2 {
        timed("get, hit", n, |i| node.get(&key(scattered(i, keys))));
        timed("get, miss", n, |i| node.get(&key(keys + scattered(i, keys))));
        timed("set", n, |i| {
            let key = key(scattered(i, keys));
            set(&mut node, &key, expiry(i).as_deref());
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
    (CONTEXT.log_time_ms..=end).step_by(100).for_each(|now_ms| expire(&mut node, now_ms));
    if expiring != 0 {
        println!("expire: {:.0} ns", (cpu_ns() - start) as f64 / expiring as f64);
    }
}

/// Times the reads of sixteen keys of one store at a time, as a partition's share of a pipeline arrives.
fn time_batches(node: &mut Node, keys: usize) {
    let mut of_store = vec![Vec::new(); node.stores.len()];
    for i in 0..keys.min(2_000_000) {
        let key = key(scattered(i, keys));
        of_store[node.store_of(&key)].push(key);
    }
    let batches = of_store.iter().map(|keys| keys.len() / BATCH).min().unwrap_or(0);
    for is_ahead in [false, true, false, true] {
        let start = cpu_ns();
        for batch in 0..batches {
            for (store, keys) in of_store.iter().enumerate() {
                let keys: &[_; BATCH] = &keys.as_chunks().0[batch];
                if is_ahead {
                    prefetch(&node.stores[store], keys);
                }
                keys.iter().for_each(|key| node.get(key));
            }
        }
        let ns = (cpu_ns() - start) as f64 / (batches * BATCH * of_store.len()) as f64;
        println!("get, hit, {BATCH} of a store{}: {ns:.0} ns", if is_ahead { ", fetched ahead" } else { "" });
    }
}
