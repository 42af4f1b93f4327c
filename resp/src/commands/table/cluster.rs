//! Redis Cluster.

use super::{Command, CommandSpec, Scope, row};

pub(super) const ROWS: &[CommandSpec] = &[
    row(Command::Cluster, "cluster", -2, Scope::Connection)
        .about("cluster", "3.0.0", "A container for cluster commands")
        .complexity("Depends on subcommand.")
        .subcommands(&[
            row(Command::Cluster, "cluster|count-failure-reports", 3, Scope::Connection)
                .flags(&["admin", "stale"])
                .tips(&["nondeterministic_output"])
                .about("cluster", "3.0.0", "Return the number of failure reports active for a given node")
                .complexity("O(N) where N is the number of failure reports")
                .arguments("node-id:string"),
            row(Command::Cluster, "cluster|countkeysinslot", 3, Scope::Connection)
                .flags(&["stale"])
                .about("cluster", "3.0.0", "Return the number of local keys in the specified hash slot")
                .complexity("O(1)")
                .arguments("slot:integer"),
            row(Command::Cluster, "cluster|getkeysinslot", 4, Scope::Connection)
                .flags(&["stale"])
                .tips(&["nondeterministic_output"])
                .about("cluster", "3.0.0", "Return local key names in the specified hash slot")
                .complexity("O(log(N)) where N is the number of requested keys")
                .arguments("slot:integer count:integer"),
            row(Command::Cluster, "cluster|help", 2, Scope::Connection)
                .flags(&["loading", "stale"])
                .about("cluster", "5.0.0", "Show helpful text about the different subcommands")
                .complexity("O(1)"),
            row(Command::Cluster, "cluster|info", 2, Scope::Connection)
                .flags(&["stale"])
                .tips(&["nondeterministic_output"])
                .about("cluster", "3.0.0", "Provides info about Redis Cluster node state")
                .complexity("O(1)"),
            row(Command::Cluster, "cluster|keyslot", 3, Scope::Connection)
                .flags(&["stale"])
                .about("cluster", "3.0.0", "Returns the hash slot of the specified key")
                .complexity("O(N) where N is the number of bytes in the key")
                .arguments("key:string"),
            row(Command::Cluster, "cluster|links", 2, Scope::Connection)
                .flags(&["stale"])
                .tips(&["nondeterministic_output"])
                .about(
                    "cluster",
                    "7.0.0",
                    "Returns a list of all TCP links to and from peer nodes in cluster",
                )
                .complexity("O(N) where N is the total number of Cluster nodes"),
            row(Command::Cluster, "cluster|myid", 2, Scope::Connection)
                .flags(&["stale"])
                .about("cluster", "3.0.0", "Return the node id")
                .complexity("O(1)"),
            row(Command::Cluster, "cluster|myshardid", 2, Scope::Connection)
                .flags(&["stale"])
                .tips(&["nondeterministic_output"])
                .about("cluster", "7.2.0", "Returns the shard ID of a node.")
                .complexity("O(1)"),
            row(Command::Cluster, "cluster|nodes", 2, Scope::Connection)
                .flags(&["stale"])
                .tips(&["nondeterministic_output"])
                .about("cluster", "3.0.0", "Get Cluster config for the node")
                .complexity("O(N) where N is the total number of Cluster nodes"),
            row(Command::Cluster, "cluster|replicas", 3, Scope::Connection)
                .flags(&["admin", "stale"])
                .tips(&["nondeterministic_output"])
                .about("cluster", "5.0.0", "List replica nodes of the specified master node")
                .complexity("O(1)")
                .arguments("node-id:string"),
            row(Command::Cluster, "cluster|shards", 2, Scope::Connection)
                .flags(&["stale"])
                .tips(&["nondeterministic_output"])
                .about("cluster", "7.0.0", "Get array of cluster slots to node mappings")
                .complexity("O(N) where N is the total number of cluster nodes"),
            row(Command::Cluster, "cluster|slaves", 3, Scope::Connection)
                .flags(&["admin", "stale"])
                .tips(&["nondeterministic_output"])
                .about("cluster", "3.0.0", "List replica nodes of the specified master node")
                .complexity("O(1)")
                .deprecated("5.0.0", "`CLUSTER REPLICAS`")
                .arguments("node-id:string"),
            row(Command::Cluster, "cluster|slots", 2, Scope::Connection)
                .flags(&["stale"])
                .tips(&["nondeterministic_output"])
                .about("cluster", "3.0.0", "Get array of Cluster slot to node mappings")
                .complexity("O(N) where N is the total number of Cluster nodes")
                .deprecated("7.0.0", "`CLUSTER SHARDS`")
                .history(&[
                    ("4.0.0", "Added node IDs."),
                    ("7.0.0", "Added additional networking metadata field."),
                ]),
        ]),
    row(Command::ReadOnly, "readonly", 1, Scope::Connection)
        .flags(&["loading", "stale", "fast"])
        .acl(&["connection"])
        .about("cluster", "3.0.0", "Enables read queries for a connection to a cluster replica node")
        .complexity("O(1)"),
    row(Command::ReadWrite, "readwrite", 1, Scope::Connection)
        .flags(&["loading", "stale", "fast"])
        .acl(&["connection"])
        .about("cluster", "3.0.0", "Disables read queries for a connection to a cluster replica node")
        .complexity("O(1)"),
    row(Command::Asking, "asking", 1, Scope::Connection)
        .flags(&["fast"])
        .acl(&["connection"])
        .about("cluster", "3.0.0", "Sent by cluster clients after an -ASK redirect")
        .complexity("O(1)"),
];

/// What a partition executes for a subcommand; no name leads here.
pub(crate) static INTERNAL: [CommandSpec; 2] = [
    row(Command::SlotCount, "cluster|countkeysinslot", 3, Scope::Slot).flags(&["stale"]),
    row(Command::SlotKeys, "cluster|getkeysinslot", 4, Scope::Slot).flags(&["stale"]),
];
