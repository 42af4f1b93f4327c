//! `docs/commands.md` is written from the table of commands: this fails when the file is not what the table says.
//!
//! `UPDATE_DOCS=1 cargo test -p ringfort-resp --test docs` writes it anew.

use core::fmt::Write as _;
use ringfort_resp::commands::{find, refusal, syntax};
use std::collections::BTreeMap;

/// Commands that are there, but not quite as in Redis.
const PARTLY: &[(&str, &str)] = &[
    ("acl|users", "always `default`, the one user"),
    ("acl|whoami", "always `default`, the one user"),
    ("asking", "does nothing: slots do not migrate one by one"),
    ("auth", "one user, `default`, with the password of the setting `requirepass`"),
    ("client|caching", "always refused: there is no client-side caching"),
    ("client|kill", "the connections of the process that is asked; MAXAGE as in Redis 7.4"),
    ("client|list", "the connections of the process that is asked; argv-mem, multi-mem and oll are 0"),
    ("client|no-evict", "shown by CLIENT LIST; no client is evicted anyway"),
    ("client|no-touch", "a write counts as a use all the same"),
    ("client|pause", "the clients of the process that is asked; CLIENT UNPAUSE is never held up"),
    ("client|tracking", "ON is refused: there is no client-side caching"),
    ("client|unblock", "always 0: no command blocks"),
    ("cluster|count-failure-reports", "always 0: the voters of each partition find out by themselves"),
    ("cluster|links", "direction, node and events only; a proxy has none"),
    (
        "cluster|myshardid",
        "the id of the node that leads; the nodes of a shard differ from partition to partition",
    ),
    ("cluster|nodes", "a node that leads any partition is a master with the slots that it leads"),
    ("cluster|replicas", "the nodes that lead nothing themselves"),
    ("cluster|shards", "replication-offset is 0; a partition without a known leader has health `fail`"),
    ("cluster|slaves", "as CLUSTER REPLICAS"),
    ("cluster|slots", "nodes that lead anything are named as replicas only after READONLY"),
    ("command|list", "there are no modules to filter by"),
    ("config|get", "the settings that Ringfort has, under Redis's names; see configuration.md"),
    ("config|rewrite", "always refused: what CONFIG SET changes belongs to the cluster, not to a file"),
    ("config|set", "for the whole cluster; see configuration.md"),
    ("copy", "keys of one slot; DB 0 only"),
    ("dbsize", "the sum over the partitions, asked at about the same time"),
    ("del", "over several partitions not one step"),
    ("flushall", "partition by partition, not one step"),
    ("flushdb", "as FLUSHALL"),
    (
        "info",
        "of the process that is asked, the keys through a proxy those of the cluster; the fields that are known",
    ),
    ("lastsave", "the present time: nothing that was answered waits to be saved"),
    (
        "keys",
        "through a proxy over the whole cluster, partition by partition; on a node over the partitions that it leads",
    ),
    ("latency|doctor", "says where to look instead: no events are watched"),
    ("latency|graph", "no events are watched"),
    ("latency|histogram", "of the process that is asked; up to powers of two of µs, from decoding to answer"),
    ("latency|history", "always empty: no events are watched"),
    ("latency|latest", "always empty: no events are watched"),
    ("latency|reset", "always 0: no events are watched"),
    ("lcs", "keys of one slot"),
    ("lolwut", "art of its own"),
    ("memory|usage", "the bytes that Ringfort counts for key, value and expiry; SAMPLES has no effect"),
    ("mget", "over several partitions not one step; through a node keys of one slot"),
    ("monitor", "the commands of the process that is asked"),
    ("mset", "over several partitions not one step; through a node keys of one slot"),
    ("msetnx", "keys of one slot"),
    ("object|encoding", "as after a SET: APPEND and the like leave no trace"),
    ("randomkey", "of a random partition that has keys; on a node of those that it leads"),
    (
        "readonly",
        "a follower answers within `replica-max-staleness-ms` (guarantees.md); a proxy asks leaders all the same",
    ),
    ("rename", "keys of one slot"),
    ("renamenx", "keys of one slot"),
    ("role", "always a master without replicas: roles belong to partitions, see `ringfort status`"),
    ("scan", "through a proxy over the whole cluster; on a node over the partitions that it leads"),
    ("select", "database 0 only"),
    (
        "slowlog|get",
        "of the process that is asked; times from decoding to answer, at most 100 entries a second and worker",
    ),
    ("unlink", "over several partitions not one step"),
    (
        "wait",
        "answers at once with the number of followers that hold every answered write: half of the replicas, rounded down",
    ),
    ("waitaof", "as WAIT; counts disks under `durability = \"fsync\"` only"),
];

/// Why commands are not there yet, as long as they are not; the others have the reason of their group.
const NOT_YET: &[(&str, &str)] = &[
    ("acl", "there is one user, `default`"),
    ("dump", "to come, to move keys between clusters"),
    ("pfdebug", "internal to Redis"),
    ("pfselftest", "internal to Redis"),
    ("restore", "to come, to move keys between clusters"),
    ("restore-asking", "internal to Redis"),
    ("sort", "needs lists, sets or sorted sets"),
    ("sort_ro", "needs lists, sets or sorted sets"),
];

const GROUPS: &[(&str, &str, &str)] = &[
    ("string", "Strings", "to come"),
    ("generic", "Keys", "to come"),
    ("connection", "Connection", "to come"),
    ("server", "Server", "to come"),
    ("cluster", "Cluster", "to come"),
    ("bitmap", "Bitmaps", "strings come first"),
    ("hash", "Hashes", "a data type to come"),
    ("list", "Lists", "a data type to come"),
    ("set", "Sets", "a data type to come"),
    ("sorted-set", "Sorted sets", "a data type to come"),
    ("hyperloglog", "HyperLogLog", "a data type to come"),
    ("geo", "Geo", "a data type to come"),
    ("stream", "Streams", "a data type to come"),
    ("pubsub", "Pub/Sub", "messages between connections are to come"),
    ("transactions", "Transactions", "to come, for keys of one slot"),
    ("scripting", "Scripts and functions", "to come, for keys of one slot"),
];

const HEAD: &str = "\
# Commands

Every command and subcommand of Redis 7.2, and what Ringfort has beyond.
This page is written from the table of commands by a test (`resp/tests/docs.rs`); COMMAND DOCS tells the same to clients.

Where nothing else is said, a command behaves as in Redis, for values up to 32 MiB and keys up to 65,535 bytes.
\"Partly\" says what differs, \"no\" what to do instead, \"not yet\" why.
A node's port is Redis Cluster: a command whose keys lie in several slots answers CROSSSLOT, one for another node MOVED.
A proxy takes DEL, EXISTS, MGET, MSET, TOUCH and UNLINK over any keys.

";

fn redis_commands() -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for line in include_str!("data/redis_commands.txt").lines().filter(|line| !line.starts_with('#')) {
        let (name, group) = line.split_once(' ').expect("name and group");
        groups.entry(group).or_default().push(name);
    }
    groups
}

fn reason<'a>(list: &[(&str, &'a str)], name: &str) -> Option<&'a str> {
    list.iter().find(|(listed, _)| *listed == name).map(|(_, reason)| *reason)
}

/// One row: name or syntax, whether it is there, what is to be said.
fn line(name: &str, group_reason: &str) -> String {
    let container = name.split('|').next().expect("a name");
    let Some(spec) = find(name.as_bytes()) else {
        let shown = name.replace('|', " ").to_ascii_uppercase();
        let refused = refusal(name).or_else(|| refusal(container));
        return match (refused, reason(NOT_YET, name).or_else(|| reason(NOT_YET, container))) {
            (Some(why), _) => format!("| `{shown}` | no | {why} |\n"),
            (None, Some(why)) => format!("| `{shown}` | not yet | {why} |\n"),
            (None, None) => format!("| `{shown}` | not yet | {group_reason} |\n"),
        };
    };
    let shown = syntax(spec).replace('|', "\\|");
    match reason(PARTLY, name) {
        Some(note) => format!("| `{shown}` | partly | {note} |\n"),
        None => format!("| `{shown}` | yes | |\n"),
    }
}

fn page() -> String {
    let redis = redis_commands();
    let mut page = HEAD.to_owned();
    for (group, title, group_reason) in GROUPS {
        write!(page, "## {title}\n\n| command | here | |\n| --- | --- | --- |\n")
            .expect("a String takes every write");
        // The rows of subcommands stand for their container.
        let names = redis[group].iter();
        let is_container = |name: &str| {
            redis[group].iter().any(|n| n.strip_prefix(name).is_some_and(|r| r.starts_with('|')))
        };
        page.extend(names.filter(|name| !is_container(name)).map(|name| line(name, group_reason)));
        page.push('\n');
    }
    page.push_str("## Beyond Redis 7.2\n\n| command | from |\n| --- | --- |\n");
    let rows = ringfort_resp::commands::all().iter();
    for spec in rows.flat_map(|spec| {
        if spec.subcommands.is_empty() { core::slice::from_ref(spec) } else { spec.subcommands }
    }) {
        if !redis.values().flatten().any(|name| *name == spec.name) {
            let from = if spec.name.starts_with("ringfort") { "Ringfort" } else { "Valkey 9" };
            writeln!(page, "| `{}` | {from} |", syntax(spec).replace('|', "\\|"))
                .expect("a String takes every write");
        }
    }
    page
}

#[test]
fn the_page_is_what_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/commands.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        there == page,
        "docs/commands.md is stale: UPDATE_DOCS=1 cargo test -p ringfort-resp --test docs"
    );
}

#[test]
fn what_is_said_is_said_of_something() {
    let redis = redis_commands();
    for (name, _) in PARTLY {
        assert!(find(name.as_bytes()).is_some(), "{name} is not there, so not partly");
    }
    for (name, _) in NOT_YET {
        assert!(redis.values().flatten().any(|known| known == name), "Redis has no {name}");
    }
    for group in redis.keys() {
        assert!(GROUPS.iter().any(|(known, ..)| known == group), "group {group}");
    }
}
