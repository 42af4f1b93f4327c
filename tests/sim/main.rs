//! The deterministic simulator: whole clusters on one thread, under a virtual clock and a seeded scheduler.
//!
//! The workers, shard groups, logs and proxies are the production code; network, disks, clocks and clients are simulated
//! and go wrong as the seed says. Run it with
//!
//! ```text
//! cargo test -p ringfort --test sim                                     SEEDS=n runs more or fewer, FIRST=n elsewhere
//! SEED=n cargo test -p ringfort --test sim -- --nocapture replay        one seed, with what happened (LINES=n, the last)
//! ```
//!
//! Each seed draws its cluster, its clients, its faults and its limits ([`options`]). In *safety mode* everything is healed
//! at the end; in *liveness mode* (test `liveness`) a majority is, the rest stays broken for good, and every client must be
//! served all the same. What the network may do is what TCP may ([`net`]).
//!
//! What is checked: the safety properties of Raft, by name ([`invariants`]); that the clients' histories are explained by
//! one order of the operations ([`check`]); that replicas are equal; and that everything serves again soon after the last
//! fault.
#![expect(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a test")]

mod check;
mod client;
mod damage;
mod history;
mod invariants;
mod net;
mod node;
mod options;
mod rng;
mod settings;
mod trace;
mod world;

use options::Options;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use world::{Report, World};

/// Seeds that are run when SEEDS does not say otherwise.
const SEEDS: u64 = 150;
/// Runs with lost data folders beyond those among [`SEEDS`], when SEEDS and FIRST do not say otherwise.
const LOST_FOLDERS_SEEDS: u64 = 30;
const LOST_FOLDERS_FIRST: u64 = SEEDS.div_ceil(4);
/// Seeds with little memory that are run when SEEDS does not say otherwise.
const MEMORY_SEEDS_LEN: u64 = 24;
/// Seeds with machine crashes in `buffered` that are run when SEEDS does not say otherwise.
const CRASH_SEEDS_LEN: u64 = 24;
/// Seeds of the liveness mode that are run when SEEDS does not say otherwise.
const LIVENESS_SEEDS_LEN: u64 = 30;
/// Seeds with changes of the members that are run when SEEDS does not say otherwise.
const MOVING_SEEDS_LEN: u64 = 24;
/// The first of them: in these nodes are judged down, which takes a silence of 10 s.
const MOVING_FIRST: u64 = 24;
/// Seeds with every queue at capacity 1 that are run when SEEDS does not say otherwise.
const CAPACITY_SEEDS_LEN: u64 = 12;
/// The same in the liveness mode.
const MOVING_LIVENESS_SEEDS_LEN: u64 = 16;
/// Lines of the trace that are printed when LINES does not say otherwise.
const LINES: u64 = 200;

/// Seeds that bring a bug out: when it was listed, each failed with the line of production code beside it taken back.
const REGRESSIONS: &[u64] = &[
    1,                           // a lease ends (`Lease::covers`)
    3,                           // a transfer ends the lease of its term (`Lease::void`)
    4,  // a leader reads what followers have shown before it applied it itself (`Group::is_covered`)
    6,  // a snapshot brings its log time with it (`PartitionMachine::decode_head`)
    10, // a snapshot that did not arrive is sent again (`Raft::report_snapshot`)
    38, // a damaged record is noticed (`log::record::decode`)
    options::CRASH_SEEDS, // replicas that may have lost writes stand aside (`WorkerCore::suspect`)
    options::CRASH_SEEDS + 12, // a replica whose log is gone stands aside at a start (`WorkerCore::start_seated`)
    options::LIVENESS_SEEDS + 4, // a preferred leader is not asked all the time (`Group::transfer_to_preferred`)
];

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// Runs one seed; the trace's lines come with it.
fn run(seed: u64, is_traced: bool) -> (Result<Report, String>, Vec<String>) {
    let mut world = World::new(Options::of(seed), is_traced);
    let result = catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
        Err(format!("panic: {text}"))
    });
    (result, world.trace.lines.take().unwrap_or_default())
}

/// Prints why a seed failed and how to replay it.
fn explain(seed: u64, why: &str) {
    eprintln!("\nSEED={seed} failed: {why}\n{}", Options::of(seed));
    let (_, lines) = run(seed, true);
    let last = variable("LINES").unwrap_or(LINES) as usize;
    for line in &lines[lines.len().saturating_sub(last)..] {
        eprintln!("{line}");
    }
    eprintln!("\n{}\n", replay_command(seed));
}

fn replay_command(seed: u64) -> String {
    format!("replay: SEED={seed} cargo test -p ringfort --test sim -- --nocapture --exact replay")
}

fn run_all(seeds: &[u64]) -> Report {
    let next = AtomicU64::new(0);
    let total = Mutex::new((Report::default(), Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let (result, _) = run(seed, false);
                    let (sum, failed) = &mut *total.lock().unwrap();
                    if variable("VERBOSE").is_some() {
                        eprintln!("SEED={seed}: {result:?}");
                    }
                    match result {
                        Ok(report) => sum.add(&report),
                        Err(why) => failed.push((seed, why)),
                    }
                }
            });
        }
    });
    let (sum, mut failed) = total.into_inner().unwrap();
    failed.sort();
    println!("{} seeds, {sum}", seeds.len());
    if variable("SUMS").is_some() {
        let pairs = sum.sums().into_iter().map(|(name, count)| format!(" {name}={count}"));
        println!("sums: seeds={}{}", seeds.len(), pairs.collect::<String>());
    }
    for (seed, why) in failed.iter().skip(1) {
        eprintln!("SEED={seed} failed: {why}\n{}", replay_command(*seed));
    }
    if let Some((seed, why)) = failed.first() {
        explain(*seed, why);
        panic!("{} of {} seeds failed, the first is SEED={seed}: {why}", failed.len(), seeds.len());
    }
    sum
}

#[test]
fn seeds() {
    let first = variable("FIRST").unwrap_or(0);
    let seeds: Vec<u64> = (first..first + variable("SEEDS").unwrap_or(SEEDS)).collect();
    let report = run_all(&seeds);
    if seeds.iter().filter(|seed| 0 < Options::of(**seed).replica_clients).count() > 3 {
        assert!(report.follower_reads > 0, "no follower answered a read");
    }
    if seeds.iter().filter(|seed| Options::of(**seed).lulls_us.is_some()).count() > 3 {
        assert!(report.rests > 0, "no worker came to rest");
    }
}

/// Only these seeds lose data folders: see [`Options::of`].
#[test]
fn lost_folders() {
    let first = variable("FIRST").unwrap_or(LOST_FOLDERS_FIRST);
    let seeds = first..first + variable("SEEDS").unwrap_or(LOST_FOLDERS_SEEDS);
    let report = run_all(&seeds.map(|n| 4 * n + 2).collect::<Vec<_>>());
    assert!(report.wipes > 0, "no data folder was lost");
}

/// Little memory: replicas stay equal and within their quota, whatever goes; under `noeviction` nothing is lost.
#[test]
fn memory_limits() {
    let first = options::MEMORY_SEEDS + variable("FIRST").unwrap_or(0);
    let seeds: Vec<u64> = (first..first + variable("SEEDS").unwrap_or(MEMORY_SEEDS_LEN)).collect();
    run_all(&seeds);
}

/// In `buffered` a machine that crashes forgets what it had not synced; its replicas are suspect and are replaced, and
/// nothing acknowledged is lost.
#[test]
fn machine_crashes() {
    let first = options::CRASH_SEEDS + variable("FIRST").unwrap_or(0);
    let seeds: Vec<u64> = (first..first + variable("SEEDS").unwrap_or(CRASH_SEEDS_LEN)).collect();
    let report = run_all(&seeds);
    assert!(report.suspects > 0, "no machine crashed");
}

/// Liveness mode: a majority is healed and the rest stays broken; see `world/liveness.rs`.
#[test]
fn liveness() {
    let first = options::LIVENESS_SEEDS + variable("FIRST").unwrap_or(0);
    let seeds: Vec<u64> = (first..first + variable("SEEDS").unwrap_or(LIVENESS_SEEDS_LEN)).collect();
    run_all(&seeds);
}

/// Nodes come and go, and nobody notices.
#[test]
fn moving() {
    let first = options::MOVING_SEEDS + variable("FIRST").unwrap_or(MOVING_FIRST);
    let seeds: Vec<u64> = (first..first + variable("SEEDS").unwrap_or(MOVING_SEEDS_LEN)).collect();
    let report = run_all(&seeds);
    assert!(report.changes > 0 && report.left > 0, "nobody came or went");
    if seeds.len() >= MOVING_SEEDS_LEN as usize {
        assert!(report.turned > 0 && report.downs > 0 && report.vanished > 0, "nothing was in the way");
    }
}

/// Nodes come and go, a majority is healed in the middle of it, and the rest stays broken.
#[test]
fn moving_liveness() {
    let first = options::MOVING_LIVENESS_SEEDS + variable("FIRST").unwrap_or(0);
    let seeds = first..first + variable("SEEDS").unwrap_or(MOVING_LIVENESS_SEEDS_LEN);
    let report = run_all(&seeds.collect::<Vec<_>>());
    assert!(report.changes > 0, "nobody came or went");
}

/// Every queue of every process at capacity 1: all goes on, one thing after the other, and no two links wait for each other.
#[test]
fn every_queue_at_capacity_one() {
    let first = options::CAPACITY_SEEDS + variable("FIRST").unwrap_or(0);
    let seeds: Vec<u64> = (first..first + variable("SEEDS").unwrap_or(CAPACITY_SEEDS_LEN)).collect();
    run_all(&seeds);
}

#[test]
fn regressions() {
    run_all(REGRESSIONS);
}

#[test]
fn replay() {
    let Some(seed) = variable("SEED") else { return };
    let (result, lines) = run(seed, true);
    let last = variable("LINES").map_or(lines.len(), |n| n as usize);
    println!("{}", Options::of(seed));
    for line in &lines[lines.len().saturating_sub(last)..] {
        println!("{line}");
    }
    match result {
        Ok(report) => println!("SEED={seed} passes: {report}"),
        Err(why) => panic!("SEED={seed}: {why}"),
    }
}

/// The whole text of a run: its options, each event, and how it ended.
fn text(seed: u64) -> String {
    let (result, lines) = run(seed, true);
    format!("{}\n{}\n{result:?}\n", Options::of(seed), lines.join("\n"))
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [1, 2, options::MEMORY_SEEDS] {
        let (first, second) = (text(seed), text(seed));
        assert!(first.lines().count() > 10_000, "SEED={seed}: this is no trace");
        assert_same(seed, &first, &second);
        // What is not traced goes the same way.
        let hash = |is_traced| run(seed, is_traced).0.map(|report| report.hash);
        assert_eq!(hash(false), hash(true), "SEED={seed}");
    }
}

/// Addresses, hashers and threads differ from process to process: none of them may reach a run.
#[test]
fn another_process_gives_the_same_trace() {
    for seed in [3, 6] {
        let out = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "trace"])
            .env("TRACE", seed.to_string())
            .output()
            .unwrap();
        let theirs = String::from_utf8(out.stdout).unwrap();
        let begin = theirs.find("options of SEED=").expect("the other process prints a trace");
        let mine = text(seed);
        let theirs = theirs.get(begin..begin + mine.len()).unwrap_or_default();
        assert_same(seed, &mine, theirs);
    }
}

fn assert_same(seed: u64, first: &str, second: &str) {
    let differs = first.lines().zip(second.lines()).position(|(a, b)| a != b);
    if let Some(line) = differs {
        let [a, b] = [first, second].map(|text| text.lines().nth(line).unwrap_or_default());
        panic!("SEED={seed}: line {line} differs:\n{a}\n{b}");
    }
    assert!(first == second, "SEED={seed}: one trace is longer");
}

/// What [`another_process_gives_the_same_trace`] starts.
#[test]
fn trace() {
    if let Some(seed) = variable("TRACE") {
        print!("{}", text(seed));
    }
}
