//! The rows, sorted by name.

use super::{Kind, Setting};

const POLICIES: &[&str] = &[
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
];

// Why a setting is fixed.
const FILE: &str = "it is in the config file and the arguments of the process";
const LIMIT: &str = "it is one of Ringfort's fixed limits";
const LOG: &str = "Ringfort keeps data in its replicated log; see 'durability' in the config file";
const NO_ACL: &str = "Ringfort has one user";
const NO_PART: &str = "Ringfort has no such part";
const RAFT: &str = "replication is Raft's, and needs no such setting";
const TYPES: &str = "Ringfort does not have this data type yet";

const fn own(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Setting {
    Setting { name, kind, default, fixed: None, doc }
}

const fn fixed(name: &'static str, default: &'static str, why: &'static str) -> Setting {
    Setting { name, kind: Kind::Text, default, fixed: Some(why), doc: "" }
}

/// Every setting, sorted by name.
pub static ALL: &[Setting] = &[
    fixed("aclfile", "", NO_ACL),
    fixed("acllog-max-len", "128", NO_ACL),
    fixed("activedefrag", "no", NO_PART),
    fixed("activerehashing", "yes", NO_PART),
    fixed("aof-use-rdb-preamble", "yes", LOG),
    fixed("appenddirname", "appendonlydir", LOG),
    fixed("appendfilename", "appendonly.aof", LOG),
    fixed("appendfsync", "everysec", LOG),
    fixed("appendonly", "no", LOG),
    fixed("auto-aof-rewrite-min-size", "67108864", LOG),
    fixed("auto-aof-rewrite-percentage", "100", LOG),
    fixed("bind", "", FILE),
    fixed("busy-reply-threshold", "5000", NO_PART),
    fixed("client-output-buffer-limit", "normal 67108864 0 0 slave 0 0 0 pubsub 67108864 0 0", LIMIT),
    fixed("client-query-buffer-limit", "50331648", LIMIT),
    fixed("cluster-allow-reads-when-down", "no", RAFT),
    fixed("cluster-enabled", "yes", FILE),
    fixed("cluster-node-timeout", "700", RAFT),
    fixed("cluster-require-full-coverage", "no", RAFT),
    fixed("daemonize", "no", NO_PART),
    fixed("databases", "1", "Ringfort has one database, as Redis Cluster"),
    fixed("dbfilename", "dump.rdb", LOG),
    fixed("dir", "", FILE),
    fixed("hash-max-listpack-entries", "512", TYPES),
    fixed("hash-max-listpack-value", "64", TYPES),
    fixed("hash-max-ziplist-entries", "512", TYPES),
    fixed("hash-max-ziplist-value", "64", TYPES),
    fixed("hll-sparse-max-bytes", "3000", TYPES),
    fixed("hz", "10", NO_PART),
    fixed("io-threads", "1", "give the process --workers N"),
    fixed("latency-monitor-threshold", "0", NO_PART),
    own("latency-tracking", Kind::Bool, "yes", "whether latencies are counted for each command"),
    own(
        "latency-tracking-info-percentiles",
        Kind::Percentiles,
        "50 99 99.9",
        "percentiles that INFO latencystats shows",
    ),
    fixed("lazyfree-lazy-eviction", "no", NO_PART),
    fixed("lazyfree-lazy-expire", "no", NO_PART),
    fixed("lazyfree-lazy-server-del", "no", NO_PART),
    fixed("lazyfree-lazy-user-del", "no", NO_PART),
    fixed("lazyfree-lazy-user-flush", "no", NO_PART),
    own(
        "lfu-decay-time",
        Kind::Integer { min: 0, max: 2_147_483_647 },
        "1",
        "minutes in which the access counter of OBJECT FREQ loses one; 0 = never",
    ),
    own(
        "lfu-log-factor",
        Kind::Integer { min: 0, max: 2_147_483_647 },
        "10",
        "how slowly the access counter of OBJECT FREQ grows",
    ),
    fixed("list-compress-depth", "0", TYPES),
    fixed("list-max-listpack-size", "-2", TYPES),
    fixed("list-max-ziplist-size", "-2", TYPES),
    fixed("logfile", "", "logs go to stderr"),
    fixed("loglevel", "notice", "`ringfort log-level` changes it, for each module"),
    fixed("lua-time-limit", "5000", NO_PART),
    own(
        "maxclients",
        Kind::Integer { min: 1, max: 4_294_967_295 },
        "10000",
        "most client connections of one process",
    ),
    own("maxmemory", Kind::Memory, "0", "limit of the distinct data of the cluster, bytes; 0 = none"),
    own("maxmemory-policy", Kind::Enum(POLICIES), "noeviction", "what gives way at the limit"),
    own(
        "maxmemory-samples",
        Kind::Integer { min: 1, max: 2_147_483_647 },
        "5",
        "keys looked at for one victim of LRU or LFU at most, times 16; above 64 no more",
    ),
    fixed("min-replicas-max-lag", "10", RAFT),
    fixed("min-replicas-to-write", "0", RAFT),
    fixed("notify-keyspace-events", "", "Ringfort does not publish keyspace events yet"),
    fixed("port", "6379", FILE),
    fixed("protected-mode", "no", FILE),
    fixed("proto-max-bulk-len", "33554432", LIMIT),
    fixed("repl-backlog-size", "67108864", RAFT),
    fixed("repl-diskless-sync", "yes", RAFT),
    fixed("repl-timeout", "60", RAFT),
    own(
        "replica-max-staleness-ms",
        Kind::Integer { min: 0, max: 3_600_000 },
        "1000",
        "age up to which a follower answers reads of READONLY clients at once; 0 = each asks the leader",
    ),
    fixed("replica-priority", "100", RAFT),
    fixed("replica-read-only", "yes", RAFT),
    fixed("replica-serve-stale-data", "no", RAFT),
    fixed("replicaof", "", RAFT),
    own("requirepass", Kind::Text, "", "password of the user default; empty = none"),
    fixed("save", "", LOG),
    fixed("set-max-intset-entries", "512", TYPES),
    own(
        "slowlog-log-slower-than",
        Kind::Integer { min: -1, max: i64::MAX },
        "10000",
        "µs from which on a command is in the slow log; 0 = all, -1 = none",
    ),
    own("slowlog-max-len", Kind::Integer { min: 0, max: i64::MAX }, "128", "entries that the slow log keeps"),
    fixed("stop-writes-on-bgsave-error", "yes", LOG),
    fixed("stream-node-max-bytes", "4096", TYPES),
    fixed("stream-node-max-entries", "100", TYPES),
    fixed("tcp-backlog", "1024", FILE),
    fixed("tcp-keepalive", "300", LIMIT),
    own(
        "timeout",
        Kind::Integer { min: 0, max: 2_147_483_647 },
        "0",
        "seconds after which a silent client is cut; 0 = never",
    ),
    fixed("tls-port", "0", FILE),
    fixed("tracking-table-max-keys", "0", "Ringfort does not track keys for clients yet"),
    fixed("unixsocket", "", FILE),
    fixed("zset-max-listpack-entries", "128", TYPES),
    fixed("zset-max-listpack-value", "64", TYPES),
    fixed("zset-max-ziplist-entries", "128", TYPES),
    fixed("zset-max-ziplist-value", "64", TYPES),
];
