//! Random commands to a cluster, through its proxy and directly on its nodes, and to a real `redis-server`: the replies
//! must be equal byte for byte, but for what [`EXPLAINED`] lists.
//!
//! Several connections, of RESP2 and RESP3, send pipelines at the same time, each on keys of its own; commands on all keys
//! run between the pipelines. `SEED=n` replays a run as far as its timing does not matter, `COMMANDS=n` makes it longer;
//! `scripts/differential` runs the release build. Without `redis-server` in the path the tests pass with a note.

#[path = "../system/client.rs"]
#[expect(dead_code, reason = "written for the system tests")]
mod client;
#[path = "../system/cluster.rs"]
#[expect(dead_code, reason = "written for the system tests")]
mod cluster;
mod connection;
#[path = "../../store/tests/differential/generator.rs"]
mod generator;
mod global;
mod link;
#[path = "../system/process.rs"]
#[expect(dead_code, reason = "written for the system tests")]
mod process;
#[path = "../../store/tests/differential/redis.rs"]
mod redis;
#[path = "../system/wait.rs"]
mod wait;

use client::Client;
use cluster::{Cluster, Options, START};
use link::{Disturbed, Link};
use redis::Redis;
use ringfort_resp::{Scope, commands};
use std::collections::BTreeSet;
use wait::eventually;

/// Commands of a run, unless COMMANDS says otherwise.
const COMMANDS_LEN: u64 = 30_000;
/// Connections at the same time.
const LINKS: u64 = 4;
/// Rounds in which the cluster may be disturbed (a new leader on a busy machine); they are not compared.
const DISTURBED_MAX: u32 = 20;

/// What differs from redis-server 7.0.15 on purpose, and what the comparison does about it. Names of commands that are
/// never sent stand alone in the first column.
const EXPLAINED: &[(&str, &str)] = &[
    (
        "command getkeysandflags",
        "Redis looks at the options of SET; here are the flags of any SET. Sent for GET",
    ),
    (
        "delifeq",
        "Valkey's; redis-server 7.0.15 has no such command. Checked against its documentation by the store's tests",
    ),
    ("set IFEQ", "Valkey's, as DELIFEQ. Not sent"),
    ("ttl pttl expiretime pexpiretime", "two clocks: the time left may differ by a few seconds"),
    ("expiretime", "beyond the last half second of 64-bit milliseconds Redis overflows"),
    ("memory usage", "another size: compared by whether there is one"),
    ("object encoding, refcount", "Redis remembers how a value came about: compared right after a SET"),
    ("object freq, idletime, help", "depend on time, policy and version. Not sent"),
    (
        "dbsize, cluster countkeysinslot",
        "Redis counts expired keys until it meets them: every key is read before",
    ),
    (
        "scan, keys, randomkey, cluster getkeysinslot",
        "no order: compared as sets; a random key must be one of the keys",
    ),
    (
        "rename, renamenx, copy, msetnx, lcs",
        "keys of one slot, on a proxy as well (there Redis alone has no slots)",
    ),
    (
        "mset and msetnx with half a pair",
        "refused before the slots are looked at, Redis Cluster looks at these first",
    ),
    ("mget over slots and others", "on a node CROSSSLOT, as Redis Cluster answers; a proxy splits them"),
    ("hello, client id, info, command count", "name another server. Only their errors are compared"),
    ("unknown command", "bytes that are not UTF-8 are shown as U+FFFD: names and arguments sent are ASCII"),
];

/// Which door of the cluster is compared.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Target {
    /// The proxy, with one Redis.
    Proxy,
    /// The nodes' own ports, with a Redis Cluster of one node.
    Nodes,
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[expect(clippy::print_stdout, reason = "a failing run is replayed by what it prints")]
fn compare(target: Target, seed: u64) {
    let more: &[&str] = if target == Target::Nodes { &["--cluster-enabled", "yes"] } else { &[] };
    let Some(redis) = Redis::start(more) else {
        println!("skipped: there is no redis-server to compare with");
        return;
    };
    let mut run = Run::start(target, number("SEED").unwrap_or(seed), redis);
    let commands_len = number("COMMANDS").unwrap_or(COMMANDS_LEN);
    println!("SEED={} COMMANDS={commands_len} {target:?}", run.seed);
    while run.compared < commands_len {
        if run.round().is_err() {
            run.settle();
        }
    }
    let Run { compared, errors, disturbed, .. } = run;
    println!("{compared} replies compared, {errors} of them errors; {disturbed} rounds disturbed");
    assert!((compared / 100..compared / 2).contains(&errors), "{errors} errors of {compared}: a poor mix");
    run.assert_all_commands_were_sent();
    run.cluster.stop_all();
}

struct Run {
    target: Target,
    seed: u64,
    cluster: Cluster,
    links: Vec<Link>,
    compared: u64,
    errors: u64,
    disturbed: u32,
    names: BTreeSet<&'static str>,
    _redis: Redis,
}

impl Run {
    fn start(target: Target, seed: u64, redis: Redis) -> Self {
        let cluster = Cluster::start(Options { workers: 2, ..Options::default() });
        if target == Target::Nodes {
            let mut client = Client::connect(redis.address);
            assert_eq!(client.call("CLUSTER ADDSLOTSRANGE 0 16383"), "+OK\r\n");
            eventually("a Redis Cluster", START, || {
                let info = client.call("CLUSTER INFO");
                if info.contains("cluster_state:ok") { Ok(()) } else { Err(info) }
            });
        }
        let links = (0..LINKS).map(|n| Link::new(target, seed, n, &cluster, redis.address)).collect();
        let names = BTreeSet::new();
        Self { target, seed, cluster, links, compared: 0, errors: 0, disturbed: 0, names, _redis: redis }
    }

    /// A pipeline on each connection, all at the same time; then something on all keys.
    fn round(&mut self) -> Result<(), Disturbed> {
        let counts: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = self.links.iter_mut().map(|link| scope.spawn(|| link.pipeline())).collect();
            threads.into_iter().map(|t| t.join().unwrap_or_else(|e| std::panic::resume_unwind(e))).collect()
        });
        for counted in counts {
            let counted = counted?;
            self.compared += counted.replies;
            self.errors += counted.errors;
            self.names.extend(counted.names);
        }
        let (link, others) = self.links.split_first_mut().expect("there are connections");
        let tags: Vec<_> = others.iter().flat_map(|link| link.tags()).chain(link.tags()).collect();
        let name = global::compare(link, self.target, &tags)?;
        self.names.extend(name);
        self.compared += u64::from(name.is_some());
        Ok(())
    }

    /// After a disturbance: everything is emptied, and goes on from there.
    fn settle(&mut self) {
        self.disturbed += 1;
        assert!(self.disturbed <= DISTURBED_MAX, "the cluster does not come to rest");
        self.cluster.wait_until_serving();
        self.links.iter_mut().for_each(Link::forget);
        eventually("an empty cluster", START, || global::flush(&mut self.links[0]).map_err(|Disturbed(r)| r));
    }

    /// A command that is new to the table needs a row in the generator, or a reason.
    fn assert_all_commands_were_sent(&self) {
        for spec in commands::all().iter().filter(|spec| spec.scope != Scope::Connection) {
            let is_explained = EXPLAINED.iter().any(|(names, _)| *names == spec.name);
            assert!(is_explained || self.names.contains(spec.name), "{} was never sent", spec.name);
        }
    }
}

#[test]
fn the_proxy_answers_as_redis_does() {
    compare(Target::Proxy, 20_261_001);
}

#[test]
fn the_nodes_answer_as_redis_cluster_does() {
    compare(Target::Nodes, 20_261_002);
}
