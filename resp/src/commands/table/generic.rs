//! Keys of any type.

use super::{Command, CommandSpec, Scope, row};

pub(super) const ROWS: &[CommandSpec] = &[
    row(Command::Copy, "copy", -3, Scope::Slot)
        .flags(&["write", "denyoom"])
        .acl(&["keyspace"])
        .keys_at(1, 2, 1, &[&["RO", "access"], &["OW", "update"]])
        .about("generic", "6.2.0", "Copy a key")
        .complexity(
            "O(N) worst case for collections, where N is the number of nested items. \
             O(1) for string values.",
        )
        .arguments("source#0 destination#1 destination-db:integer=DB? replace=REPLACE?"),
    row(Command::Del, "del", -2, Scope::Split)
        .flags(&["write"])
        .acl(&["keyspace"])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .keys_at(1, -1, 1, &[&["RM", "delete"]])
        .about("generic", "1.0.0", "Delete a key")
        .complexity(
            "O(N) where N is the number of keys that will be removed. When a key to \
             remove holds a value other than a string, the individual complexity for \
             this key is O(M) where M is the number of elements in the list, set, \
             sorted set or hash. Removing a single key that holds a string value is \
             O(1).",
        )
        .arguments("key#0*"),
    row(Command::Exists, "exists", -2, Scope::Split)
        .flags(&["readonly", "fast"])
        .acl(&["keyspace"])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .keys_at(1, -1, 1, &[&["RO"]])
        .about("generic", "1.0.0", "Determine if a key exists")
        .complexity("O(N) where N is the number of keys to check.")
        .history(&[("3.0.3", "Accepts multiple `key` arguments.")])
        .arguments("key#0*"),
    row(Command::Expire, "expire", -3, Scope::Slot)
        .flags(&["write", "fast"])
        .acl(&["keyspace"])
        .key(&[&["RW", "update"]])
        .about("generic", "1.0.0", "Set a key's time to live in seconds")
        .complexity("O(1)")
        .history(&[("7.0.0", "Added options: `NX`, `XX`, `GT` and `LT`.")])
        .arguments("key#0 seconds:integer condition:oneof@7.0.0?(nx=NX xx=XX gt=GT lt=LT)"),
    row(Command::ExpireAt, "expireat", -3, Scope::Slot)
        .flags(&["write", "fast"])
        .acl(&["keyspace"])
        .key(&[&["RW", "update"]])
        .about("generic", "1.2.0", "Set the expiration for a key as a UNIX timestamp")
        .complexity("O(1)")
        .history(&[("7.0.0", "Added options: `NX`, `XX`, `GT` and `LT`.")])
        .arguments(
            "key#0 unix-time-seconds:unix-time condition:oneof@7.0.0?(nx=NX xx=XX gt=GT \
             lt=LT)",
        ),
    row(Command::ExpireTime, "expiretime", 2, Scope::Slot)
        .flags(&["readonly", "fast"])
        .acl(&["keyspace"])
        .key(&[&["RO", "access"]])
        .about("generic", "7.0.0", "Get the expiration Unix timestamp for a key")
        .complexity("O(1)")
        .arguments("key#0"),
    row(Command::Keys, "keys", 2, Scope::AllPartitions)
        .flags(&["readonly"])
        .acl(&["keyspace", "dangerous"])
        .tips(&["request_policy:all_shards", "nondeterministic_output_order"])
        .about("generic", "1.0.0", "Find all keys matching the given pattern")
        .complexity(
            "O(N) with N being the number of keys in the database, under the assumption \
             that the key names in the database and the given pattern have limited \
             length.",
        )
        .arguments("pattern:pattern"),
    row(Command::Object, "object", -2, Scope::Slot)
        .about("generic", "2.2.3", "A container for object introspection commands")
        .complexity("Depends on subcommand.")
        .subcommands(&[
            row(Command::Object, "object|encoding", 3, Scope::Slot)
                .flags(&["readonly"])
                .acl(&["keyspace"])
                .tips(&["nondeterministic_output"])
                .keys_at(2, 2, 1, &[&["RO"]])
                .about("generic", "2.2.3", "Inspect the internal encoding of a Redis object")
                .complexity("O(1)")
                .arguments("key#0"),
            row(Command::Object, "object|freq", 3, Scope::Slot)
                .flags(&["readonly"])
                .acl(&["keyspace"])
                .tips(&["nondeterministic_output"])
                .keys_at(2, 2, 1, &[&["RO"]])
                .about("generic", "4.0.0", "Get the logarithmic access frequency counter of a Redis object")
                .complexity("O(1)")
                .arguments("key#0"),
            row(Command::Object, "object|help", 2, Scope::Connection)
                .flags(&["loading", "stale"])
                .acl(&["keyspace"])
                .about("generic", "6.2.0", "Show helpful text about the different subcommands")
                .complexity("O(1)"),
            row(Command::Object, "object|idletime", 3, Scope::Slot)
                .flags(&["readonly"])
                .acl(&["keyspace"])
                .tips(&["nondeterministic_output"])
                .keys_at(2, 2, 1, &[&["RO"]])
                .about("generic", "2.2.3", "Get the time since a Redis object was last accessed")
                .complexity("O(1)")
                .arguments("key#0"),
            row(Command::Object, "object|refcount", 3, Scope::Slot)
                .flags(&["readonly"])
                .acl(&["keyspace"])
                .tips(&["nondeterministic_output"])
                .keys_at(2, 2, 1, &[&["RO"]])
                .about("generic", "2.2.3", "Get the number of references to the value of the key")
                .complexity("O(1)")
                .arguments("key#0"),
        ]),
    row(Command::Persist, "persist", 2, Scope::Slot)
        .flags(&["write", "fast"])
        .acl(&["keyspace"])
        .key(&[&["RW", "update"]])
        .about("generic", "2.2.0", "Remove the expiration from a key")
        .complexity("O(1)")
        .arguments("key#0"),
    row(Command::PExpire, "pexpire", -3, Scope::Slot)
        .flags(&["write", "fast"])
        .acl(&["keyspace"])
        .key(&[&["RW", "update"]])
        .about("generic", "2.6.0", "Set a key's time to live in milliseconds")
        .complexity("O(1)")
        .history(&[("7.0.0", "Added options: `NX`, `XX`, `GT` and `LT`.")])
        .arguments("key#0 milliseconds:integer condition:oneof@7.0.0?(nx=NX xx=XX gt=GT lt=LT)"),
    row(Command::PExpireAt, "pexpireat", -3, Scope::Slot)
        .flags(&["write", "fast"])
        .acl(&["keyspace"])
        .key(&[&["RW", "update"]])
        .about(
            "generic",
            "2.6.0",
            "Set the expiration for a key as a UNIX timestamp specified in milliseconds",
        )
        .complexity("O(1)")
        .history(&[("7.0.0", "Added options: `NX`, `XX`, `GT` and `LT`.")])
        .arguments(
            "key#0 unix-time-milliseconds:unix-time condition:oneof@7.0.0?(nx=NX xx=XX \
             gt=GT lt=LT)",
        ),
    row(Command::PExpireTime, "pexpiretime", 2, Scope::Slot)
        .flags(&["readonly", "fast"])
        .acl(&["keyspace"])
        .key(&[&["RO", "access"]])
        .about("generic", "7.0.0", "Get the expiration Unix timestamp for a key in milliseconds")
        .complexity("O(1)")
        .arguments("key#0"),
    row(Command::PTtl, "pttl", 2, Scope::Slot)
        .flags(&["readonly", "fast"])
        .acl(&["keyspace"])
        .tips(&["nondeterministic_output"])
        .key(&[&["RO", "access"]])
        .about("generic", "2.6.0", "Get the time to live for a key in milliseconds")
        .complexity("O(1)")
        .history(&[("2.8.0", "Added the -2 reply.")])
        .arguments("key#0"),
    row(Command::RandomKey, "randomkey", 1, Scope::AllPartitions)
        .flags(&["readonly"])
        .acl(&["keyspace"])
        .tips(&["request_policy:all_shards", "nondeterministic_output"])
        .about("generic", "1.0.0", "Return a random key from the keyspace")
        .complexity("O(1)"),
    row(Command::Rename, "rename", 3, Scope::Slot)
        .flags(&["write"])
        .acl(&["keyspace"])
        .keys_at(1, 2, 1, &[&["RW", "access", "delete"], &["OW", "update"]])
        .about("generic", "1.0.0", "Rename a key")
        .complexity("O(1)")
        .arguments("key#0 newkey#1"),
    row(Command::RenameNx, "renamenx", 3, Scope::Slot)
        .flags(&["write", "fast"])
        .acl(&["keyspace"])
        .keys_at(1, 2, 1, &[&["RW", "access", "delete"], &["OW", "insert"]])
        .about("generic", "1.0.0", "Rename a key, only if the new key does not exist")
        .complexity("O(1)")
        .history(&[(
            "3.2.0",
            "The command no longer returns an error when source and destination names \
             are the same.",
        )])
        .arguments("key#0 newkey#1"),
    row(Command::Scan, "scan", -2, Scope::Cursor)
        .flags(&["readonly"])
        .acl(&["keyspace"])
        .tips(&["nondeterministic_output", "request_policy:special"])
        .about("generic", "2.8.0", "Incrementally iterate the keys space")
        .complexity(
            "O(1) for every call. O(N) for a complete iteration, including enough \
             command calls for the cursor to return back to 0. N is the number of \
             elements inside the collection.",
        )
        .history(&[("6.0.0", "Added the `TYPE` subcommand.")])
        .arguments(
            "cursor:integer pattern:pattern=MATCH? count:integer=COUNT? \
             type:string=TYPE@6.0.0?",
        ),
    row(Command::Touch, "touch", -2, Scope::Split)
        .flags(&["readonly", "fast"])
        .acl(&["keyspace"])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .keys_at(1, -1, 1, &[&["RO"]])
        .about(
            "generic",
            "3.2.1",
            "Alters the last access time of a key(s). Returns the number of existing \
             keys specified.",
        )
        .complexity("O(N) where N is the number of keys that will be touched.")
        .arguments("key#0*"),
    row(Command::Ttl, "ttl", 2, Scope::Slot)
        .flags(&["readonly", "fast"])
        .acl(&["keyspace"])
        .tips(&["nondeterministic_output"])
        .key(&[&["RO", "access"]])
        .about("generic", "1.0.0", "Get the time to live for a key in seconds")
        .complexity("O(1)")
        .history(&[("2.8.0", "Added the -2 reply.")])
        .arguments("key#0"),
    row(Command::Type, "type", 2, Scope::Slot)
        .flags(&["readonly", "fast"])
        .acl(&["keyspace"])
        .key(&[&["RO"]])
        .about("generic", "1.0.0", "Determine the type stored at key")
        .complexity("O(1)")
        .arguments("key#0"),
    row(Command::Unlink, "unlink", -2, Scope::Split)
        .flags(&["write", "fast"])
        .acl(&["keyspace"])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .keys_at(1, -1, 1, &[&["RM", "delete"]])
        .about(
            "generic",
            "4.0.0",
            "Delete a key asynchronously in another thread. Otherwise it is just as \
             DEL, but non blocking.",
        )
        .complexity(
            "O(1) for each key removed regardless of its size. Then the command does \
             O(N) work in a different thread in order to reclaim memory, where N is the \
             number of allocations the deleted objects where composed of.",
        )
        .arguments("key#0*"),
    row(Command::Wait, "wait", 3, Scope::Connection)
        .flags(&["noscript"])
        .acl(&["connection"])
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
        .about(
            "generic",
            "3.0.0",
            "Wait for the synchronous replication of all the write commands sent in the \
             context of the current connection",
        )
        .complexity("O(1)")
        .arguments("numreplicas:integer timeout:integer"),
    row(Command::WaitAof, "waitaof", 4, Scope::Connection)
        .flags(&["noscript"])
        .acl(&["connection"])
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
        .about(
            "generic",
            "7.2.0",
            "Blocks until all of the preceding write commands sent by the connection are written to the \
             append-only file of the master and/or replicas.",
        )
        .complexity("O(1)")
        .arguments("numlocal:integer numreplicas:integer timeout:integer"),
];
