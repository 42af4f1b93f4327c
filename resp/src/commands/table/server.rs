//! The server.

use super::{Command, CommandSpec, Scope, row};

pub(super) const ROWS: &[CommandSpec] = &[
    row(Command::Acl, "acl", -2, Scope::Connection)
        .about("server", "6.0.0", "A container for Access List Control commands ")
        .complexity("Depends on subcommand.")
        .subcommands(&[
            row(Command::Acl, "acl|help", 2, Scope::Connection)
                .flags(&["loading", "stale"])
                .about("server", "6.0.0", "Show helpful text about the different subcommands")
                .complexity("O(1)"),
            row(Command::Acl, "acl|users", 2, Scope::Connection)
                .flags(&["admin", "noscript", "loading", "stale"])
                .about("server", "6.0.0", "List the username of all the configured ACL rules")
                .complexity("O(N). Where N is the number of configured users."),
            row(Command::Acl, "acl|whoami", 2, Scope::Connection)
                .flags(&["noscript", "loading", "stale"])
                .about("server", "6.0.0", "Return the name of the user associated to the current connection")
                .complexity("O(1)"),
        ]),
    row(Command::Command, "command", -1, Scope::Connection)
        .flags(&["loading", "stale"])
        .acl(&["connection"])
        .tips(&["nondeterministic_output_order"])
        .about("server", "2.8.13", "Get array of Redis command details")
        .complexity("O(N) where N is the total number of Redis commands")
        .subcommands(&[
            row(Command::Command, "command|count", 2, Scope::Connection)
                .flags(&["loading", "stale"])
                .acl(&["connection"])
                .about("server", "2.8.13", "Get total number of Redis commands")
                .complexity("O(1)"),
            row(Command::Command, "command|docs", -2, Scope::Connection)
                .flags(&["loading", "stale"])
                .acl(&["connection"])
                .tips(&["nondeterministic_output_order"])
                .about("server", "7.0.0", "Get array of specific Redis command documentation")
                .complexity("O(N) where N is the number of commands to look up")
                .arguments("command-name:string?*"),
            row(Command::Command, "command|getkeys", -4, Scope::Connection)
                .flags(&["loading", "stale"])
                .acl(&["connection"])
                .about("server", "2.8.13", "Extract keys given a full Redis command")
                .complexity("O(N) where N is the number of arguments to the command"),
            row(Command::Command, "command|getkeysandflags", -4, Scope::Connection)
                .flags(&["loading", "stale"])
                .acl(&["connection"])
                .about("server", "7.0.0", "Extract keys and access flags given a full Redis command")
                .complexity("O(N) where N is the number of arguments to the command"),
            row(Command::Command, "command|help", 2, Scope::Connection)
                .flags(&["loading", "stale"])
                .acl(&["connection"])
                .about("server", "5.0.0", "Show helpful text about the different subcommands")
                .complexity("O(1)"),
            row(Command::Command, "command|info", -2, Scope::Connection)
                .flags(&["loading", "stale"])
                .acl(&["connection"])
                .tips(&["nondeterministic_output_order"])
                .about(
                    "server",
                    "2.8.13",
                    "Get array of specific Redis command details, or all when no argument is \
             given.",
                )
                .complexity("O(N) where N is the number of commands to look up")
                .history(&[("7.0.0", "Allowed to be called with no argument to get info on all commands.")])
                .arguments("command-name:string?*"),
            row(Command::Command, "command|list", -2, Scope::Connection)
                .flags(&["loading", "stale"])
                .acl(&["connection"])
                .tips(&["nondeterministic_output_order"])
                .about("server", "7.0.0", "Get an array of Redis command names")
                .complexity("O(N) where N is the total number of Redis commands")
                .arguments(
                    "filterby:oneof=FILTERBY?(module-name:string=MODULE category:string=ACLCAT \
             pattern:pattern=PATTERN)",
                ),
        ]),
    row(Command::Config, "config", -2, Scope::Connection)
        .about("server", "2.0.0", "A container for server configuration commands")
        .complexity("Depends on subcommand.")
        .subcommands(&[
            row(Command::Config, "config|get", -3, Scope::Connection)
                .flags(&["admin", "noscript", "loading", "stale"])
                .about("server", "2.0.0", "Get the values of configuration parameters")
                .complexity("O(N) when N is the number of configuration parameters provided")
                .history(&[("7.0.0", "Added the ability to pass multiple pattern parameters in one call")])
                .arguments("parameter:block*(parameter:string)"),
            row(Command::Config, "config|help", 2, Scope::Connection)
                .flags(&["loading", "stale"])
                .about("server", "5.0.0", "Show helpful text about the different subcommands")
                .complexity("O(1)"),
            row(Command::Config, "config|resetstat", 2, Scope::Connection)
                .flags(&["admin", "noscript", "loading", "stale"])
                .about("server", "2.0.0", "Reset the stats returned by INFO")
                .complexity("O(1)"),
            row(Command::Config, "config|rewrite", 2, Scope::Connection)
                .flags(&["admin", "noscript", "loading", "stale"])
                .about("server", "2.8.0", "Rewrite the configuration file with the in memory configuration")
                .complexity("O(1)"),
            row(Command::Config, "config|set", -4, Scope::Connection)
                .flags(&["admin", "noscript", "loading", "stale"])
                .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
                .about("server", "2.0.0", "Set configuration parameters to the given values")
                .complexity("O(N) when N is the number of configuration parameters provided")
                .history(&[("7.0.0", "Added the ability to set multiple parameters in one call.")])
                .arguments("parameter_value:block*(parameter:string value:string)"),
        ]),
    row(Command::DbSize, "dbsize", 1, Scope::AllPartitions)
        .flags(&["readonly", "fast"])
        .acl(&["keyspace"])
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"])
        .about("server", "1.0.0", "Return the number of keys in the selected database")
        .complexity("O(1)"),
    row(Command::FlushAll, "flushall", -1, Scope::AllPartitions)
        .flags(&["write"])
        .acl(&["keyspace", "dangerous"])
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .about("server", "1.0.0", "Remove all keys from all databases")
        .complexity("O(N) where N is the total number of keys in all databases")
        .history(&[
            ("4.0.0", "Added the `ASYNC` flushing mode modifier."),
            ("6.2.0", "Added the `SYNC` flushing mode modifier."),
        ])
        .arguments("async:oneof?(async=ASYNC@4.0.0 sync=SYNC@6.2.0)"),
    row(Command::FlushDb, "flushdb", -1, Scope::AllPartitions)
        .flags(&["write"])
        .acl(&["keyspace", "dangerous"])
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .about("server", "1.0.0", "Remove all keys from the current database")
        .complexity("O(N) where N is the number of keys in the selected database")
        .history(&[
            ("4.0.0", "Added the `ASYNC` flushing mode modifier."),
            ("6.2.0", "Added the `SYNC` flushing mode modifier."),
        ])
        .arguments("async:oneof?(async=ASYNC@4.0.0 sync=SYNC@6.2.0)"),
    row(Command::Info, "info", -1, Scope::Connection)
        .flags(&["loading", "stale"])
        .acl(&["dangerous"])
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .about("server", "1.0.0", "Get information and statistics about the server")
        .complexity("O(1)")
        .history(&[("7.0.0", "Added support for taking multiple section arguments.")])
        .arguments("section:string?*"),
    row(Command::Latency, "latency", -2, Scope::Connection)
        .about("server", "2.8.13", "A container for latency diagnostics commands")
        .complexity("Depends on subcommand.")
        .subcommands(&[
            row(Command::Latency, "latency|doctor", 2, Scope::Connection)
                .flags(&["admin", "noscript", "loading", "stale"])
                .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"])
                .about("server", "2.8.13", "Return a human readable latency analysis report.")
                .complexity("O(1)"),
            row(Command::Latency, "latency|graph", 3, Scope::Connection)
                .flags(&["admin", "noscript", "loading", "stale"])
                .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"])
                .about("server", "2.8.13", "Return a latency graph for the event.")
                .complexity("O(1)")
                .arguments("event:string"),
            row(Command::Latency, "latency|help", 2, Scope::Connection)
                .flags(&["loading", "stale"])
                .about("server", "2.8.13", "Show helpful text about the different subcommands.")
                .complexity("O(1)"),
            row(Command::Latency, "latency|histogram", -2, Scope::Connection)
                .flags(&["admin", "noscript", "loading", "stale"])
                .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"])
                .about(
                    "server",
                    "7.0.0",
                    "Return the cumulative distribution of latencies of a subset of commands or \
             all.",
                )
                .complexity(
                    "O(N) where N is the number of commands with latency information being \
             retrieved.",
                )
                .arguments("command:string?*"),
            row(Command::Latency, "latency|history", 3, Scope::Connection)
                .flags(&["admin", "noscript", "loading", "stale"])
                .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"])
                .about("server", "2.8.13", "Return timestamp-latency samples for the event.")
                .complexity("O(1)")
                .arguments("event:string"),
            row(Command::Latency, "latency|latest", 2, Scope::Connection)
                .flags(&["admin", "noscript", "loading", "stale"])
                .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"])
                .about("server", "2.8.13", "Return the latest latency samples for all events.")
                .complexity("O(1)"),
            row(Command::Latency, "latency|reset", -2, Scope::Connection)
                .flags(&["admin", "noscript", "loading", "stale"])
                .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
                .about("server", "2.8.13", "Reset latency data for one or more events.")
                .complexity("O(1)")
                .arguments("event:string?*"),
        ]),
    row(Command::Memory, "memory", -2, Scope::Slot)
        .about("server", "4.0.0", "A container for memory diagnostics commands")
        .complexity("Depends on subcommand.")
        .subcommands(&[
            row(Command::Memory, "memory|help", 2, Scope::Connection)
                .flags(&["loading", "stale"])
                .about("server", "4.0.0", "Show helpful text about the different subcommands")
                .complexity("O(1)"),
            row(Command::Memory, "memory|usage", -3, Scope::Slot)
                .flags(&["readonly"])
                .keys_at(2, 2, 1, &[&["RO"]])
                .about("server", "4.0.0", "Estimate the memory usage of a key")
                .complexity("O(N) where N is the number of samples.")
                .arguments("key#0 count:integer=SAMPLES?"),
        ]),
    row(Command::Monitor, "monitor", 1, Scope::Connection)
        .flags(&["admin", "noscript", "loading", "stale"])
        .about("server", "1.0.0", "Listen for all requests received by the server in real time"),
    row(Command::Ringfort, "ringfort", -2, Scope::Connection)
        .about("server", "0.1.0", "A container for Ringfort's own commands")
        .complexity("Depends on subcommand.")
        .subcommands(&[
            row(Command::Ringfort, "ringfort|digest", 2, Scope::Connection)
                .about(
                    "server",
                    "0.1.0",
                    "Get digests of this node's replicas as JSON, as of the last time asked",
                )
                .complexity("O(N) in the background where N is the bytes held"),
            row(Command::Ringfort, "ringfort|drain", 3, Scope::Connection)
                .flags(&["admin", "stale"])
                .about("server", "0.1.0", "Have a node lead nothing that another one can lead")
                .complexity("O(P) where P is the number of partitions")
                .arguments("node:string"),
            row(Command::Ringfort, "ringfort|fault", -2, Scope::Connection)
                .flags(&["admin", "loading", "stale"])
                .about(
                    "server",
                    "0.1.0",
                    "Cut links of this process or have its disk be full or slow, for tests",
                )
                .complexity("O(N) where N is the number of open files")
                .arguments(
                    "fault:oneof?(cut:block(cut=CUT node:string milliseconds:integer) \
             milliseconds:integer=DISK-FULL \
             slow:block(disk-slow=DISK-SLOW longer-ms:integer milliseconds:integer) heal=HEAL)",
                ),
            row(Command::Ringfort, "ringfort|help", 2, Scope::Connection)
                .flags(&["loading", "stale"])
                .about("server", "0.1.0", "Show helpful text about the different subcommands")
                .complexity("O(1)"),
            row(Command::Ringfort, "ringfort|log", -2, Scope::Connection)
                .flags(&["admin", "loading", "stale"])
                .about("server", "0.1.0", "Get or change what the log of this process shows")
                .complexity("O(1)")
                .arguments("levels:string?"),
            row(Command::Ringfort, "ringfort|map", 2, Scope::Connection)
                .about("server", "0.1.0", "Get the cluster map with the leaders as JSON")
                .complexity("O(P) where P is the number of partitions"),
            row(Command::Ringfort, "ringfort|node", 2, Scope::Connection)
                .about("server", "0.1.0", "Get the state of this process as JSON")
                .complexity("O(P) where P is the number of partitions"),
            row(Command::Ringfort, "ringfort|transfer", 4, Scope::Connection)
                .flags(&["admin", "stale"])
                .about("server", "0.1.0", "Make a node the preferred leader of a partition")
                .complexity("O(1)")
                .arguments("partition:integer node:string"),
            row(Command::Ringfort, "ringfort|undrain", 3, Scope::Connection)
                .flags(&["admin", "stale"])
                .about("server", "0.1.0", "Have a drained node lead again as before")
                .complexity("O(P) where P is the number of partitions")
                .arguments("node:string"),
        ]),
    row(Command::LastSave, "lastsave", 1, Scope::Connection)
        .flags(&["loading", "stale", "fast"])
        .acl(&["admin", "dangerous"])
        .tips(&["nondeterministic_output"])
        .about("server", "1.0.0", "Get the UNIX time stamp of the last successful save to disk")
        .complexity("O(1)"),
    row(Command::Lolwut, "lolwut", -1, Scope::Connection)
        .flags(&["readonly", "fast"])
        .about("server", "5.0.0", "Display some computer art and the Redis version")
        .arguments("version:integer=VERSION?"),
    row(Command::Role, "role", 1, Scope::Connection)
        .flags(&["noscript", "loading", "stale", "fast"])
        .acl(&["admin", "dangerous"])
        .about("server", "2.8.12", "Return the role of the instance in the context of replication")
        .complexity("O(1)"),
    row(Command::SlowLog, "slowlog", -2, Scope::Connection)
        .about("server", "2.2.12", "A container for slow log commands")
        .complexity("Depends on subcommand.")
        .subcommands(&[
            row(Command::SlowLog, "slowlog|get", -2, Scope::Connection)
                .flags(&["admin", "loading", "stale"])
                .tips(&["request_policy:all_nodes", "nondeterministic_output"])
                .about("server", "2.2.12", "Get the slow log's entries")
                .complexity("O(N) where N is the number of entries returned")
                .history(&[("4.0.0", "Added client IP address, port and name to the reply.")])
                .arguments("count:integer?"),
            row(Command::SlowLog, "slowlog|help", 2, Scope::Connection)
                .flags(&["loading", "stale"])
                .about("server", "6.2.0", "Show helpful text about the different subcommands")
                .complexity("O(1)"),
            row(Command::SlowLog, "slowlog|len", 2, Scope::Connection)
                .flags(&["admin", "loading", "stale"])
                .tips(&["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"])
                .about("server", "2.2.12", "Get the slow log's length")
                .complexity("O(1)"),
            row(Command::SlowLog, "slowlog|reset", 2, Scope::Connection)
                .flags(&["admin", "loading", "stale"])
                .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
                .about("server", "2.2.12", "Clear all entries from the slow log")
                .complexity("O(N) where N is the number of entries in the slowlog"),
        ]),
    row(Command::Time, "time", 1, Scope::Connection)
        .flags(&["loading", "stale", "fast"])
        .tips(&["nondeterministic_output"])
        .about("server", "2.6.0", "Return the current server time")
        .complexity("O(1)"),
];
