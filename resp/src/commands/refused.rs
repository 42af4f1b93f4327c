//! Commands of Redis that Ringfort will not have in that form, and what to do instead.

/// Full name, and why not or what to do instead.
const REFUSED: &[(&str, &str)] = &[
    ("bgrewriteaof", WRITTEN),
    ("bgsave", WRITTEN),
    ("cluster|addslots", PLACEMENT),
    ("cluster|addslotsrange", PLACEMENT),
    ("cluster|bumpepoch", "the meta group raises the epoch with each change of the map"),
    ("cluster|delslots", PLACEMENT),
    ("cluster|delslotsrange", PLACEMENT),
    ("cluster|failover", TRANSFER),
    ("cluster|flushslots", PLACEMENT),
    ("cluster|forget", MEMBERS),
    ("cluster|meet", MEMBERS),
    (
        "cluster|replicate",
        "each partition has its own replicas, as many as `replicas` in the config file says",
    ),
    ("cluster|reset", MEMBERS),
    ("cluster|saveconfig", "the meta group keeps the map on the disks of its nodes"),
    ("cluster|set-config-epoch", "the meta group raises the epoch with each change of the map"),
    ("cluster|setslot", PLACEMENT),
    ("debug", "it could stop or spoil a replica"),
    ("failover", TRANSFER),
    ("memory|doctor", MEMORY),
    ("memory|malloc-stats", MEMORY),
    ("memory|purge", MEMORY),
    ("memory|stats", MEMORY),
    ("migrate", PLACEMENT),
    ("module", "there are no modules"),
    ("move", ONE_DATABASE),
    ("psync", REPLICATION),
    ("replconf", REPLICATION),
    ("replicaof", "each partition has its own replicas, as many as `replicas` in the config file says"),
    ("save", WRITTEN),
    (
        "shutdown",
        "end the process by SIGTERM, or `ringfort up` by Ctrl-C: it hands its leaderships over first",
    ),
    ("slaveof", "each partition has its own replicas, as many as `replicas` in the config file says"),
    ("swapdb", ONE_DATABASE),
    ("sync", REPLICATION),
];

const WRITTEN: &str =
    "a write is in the logs of a majority before it is answered, and logs are compacted by themselves";
const PLACEMENT: &str = "the meta group decides which nodes hold which slots; `ringfort status` shows it";
const MEMBERS: &str =
    "the nodes are those of the cluster's config file; `ringfort check-config` explains its mistakes";
const TRANSFER: &str = "use `ringfort transfer` to hand leaderships over";
const MEMORY: &str = "INFO memory and `ringfort status` tell what is known";
const ONE_DATABASE: &str = "there is one database, 0";
const REPLICATION: &str = "replicas follow by Raft, among Ringfort's own nodes";

/// Why a command, or a subcommand under its full name (`cluster|meet`), is refused; `None` when nothing is said of it.
pub fn refusal(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(refused, _)| refused.eq_ignore_ascii_case(name)).map(|(_, why)| *why)
}

/// The error reply to a command that is refused.
pub(super) fn refused_error(name: &str) -> Option<String> {
    let why = refusal(name)?;
    Some(format!("ERR {} is not supported: {why}", name.replace('|', " ").to_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::*;

    #[test]
    fn what_is_refused_is_not_there() {
        for (name, _) in REFUSED {
            assert_eq!(find(name.as_bytes()), None, "{name}");
        }
        assert!(REFUSED.is_sorted_by_key(|(name, _)| name));
    }
}
