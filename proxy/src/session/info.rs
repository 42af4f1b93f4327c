//! INFO.

use super::Host;
use crate::clients::Clients;
use core::fmt::Write as _;

/// The version of Redis whose behaviour clients may expect.
pub(super) const REDIS_VERSION: &str = "7.2.4";

/// What INFO shows of the process that holds a session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Forty hexadecimal digits, drawn at each start.
    pub run_id: String,
    /// Operating-system id of the process.
    pub process_id: u32,
    /// The port of the address that clients use.
    pub tcp_port: u16,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Most client connections.
    pub clients_max: u64,
    /// The keys here; `None` when that is not known.
    pub keyspace: Option<Keyspace>,
}

/// Counts of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keyspace {
    /// Keys.
    pub keys: u64,
    /// Keys that expire.
    pub expires: u64,
    /// Logical bytes of the keys, which `maxmemory` counts.
    pub bytes: u64,
    /// Keys evicted since the start.
    pub evicted_keys: u64,
}

const SECTIONS: [&str; 6] = ["server", "clients", "stats", "replication", "cluster", "keyspace"];

/// The text of INFO with the sections asked for (none: all); unknown ones are empty, as in Redis.
pub(super) fn text<'a>(asked: impl Iterator<Item = &'a [u8]>, host: &dyn Host, clients: &Clients) -> String {
    let mut wanted = [false; SECTIONS.len()];
    let mut is_all = true;
    for name in asked {
        let every = ["default", "all", "everything"].iter().any(|a| name.eq_ignore_ascii_case(a.as_bytes()));
        for (section, wanted) in SECTIONS.iter().zip(&mut wanted) {
            *wanted |= every || name.eq_ignore_ascii_case(section.as_bytes());
        }
        is_all = false;
    }
    let facts = host.facts();
    let mut out = String::new();
    for (section, is_wanted) in SECTIONS.into_iter().zip(wanted) {
        if is_wanted || is_all {
            if !out.is_empty() {
                out.push_str("\r\n");
            }
            write_section(section, &facts, host.my_node().is_some(), clients, &mut out);
        }
    }
    out
}

fn write_section(section: &str, facts: &Facts, is_node: bool, clients: &Clients, out: &mut String) {
    let mut line = |name: &str, value: &dyn core::fmt::Display| {
        write!(out, "{name}:{value}\r\n").expect("a String takes every write");
    };
    match section {
        "server" => {
            line("# Server\r\nredis_version", &REDIS_VERSION);
            line("redis_mode", &if is_node { "cluster" } else { "standalone" });
            line("ringfort_version", &env!("CARGO_PKG_VERSION"));
            line("ringfort_role", &if is_node { "node" } else { "proxy" });
            line("arch_bits", &usize::BITS);
            line("process_id", &facts.process_id);
            line("run_id", &facts.run_id);
            line("tcp_port", &facts.tcp_port);
            line("uptime_in_seconds", &facts.uptime_s);
            line("uptime_in_days", &(facts.uptime_s / 86400));
        }
        "clients" => {
            line("# Clients\r\nconnected_clients", &clients.open());
            line("maxclients", &facts.clients_max);
        }
        "stats" => {
            let counted = clients.counted();
            line("# Stats\r\ntotal_connections_received", &counted.connections);
            line("total_commands_processed", &(counted.calls() + counted.proxy_requests));
            line("total_net_input_bytes", &counted.bytes_in);
            line("total_net_output_bytes", &counted.bytes_out);
            line("rejected_connections", &counted.rejected_connections);
        }
        "replication" => {
            line("# Replication\r\nrole", &"master");
            line("connected_slaves", &0);
        }
        "cluster" => line("# Cluster\r\ncluster_enabled", &u8::from(is_node)),
        _ => {
            out.push_str("# Keyspace\r\n");
            if let Some(Keyspace { keys: keys @ 1.., expires, .. }) = facts.keyspace {
                write!(out, "db0:keys={keys},expires={expires},avg_ttl=0\r\n")
                    .expect("a String takes every write");
            }
        }
    }
}
