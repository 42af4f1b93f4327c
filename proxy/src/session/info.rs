//! INFO: what tools read of Redis's sections, as far as it exists here.

use super::Host;
use crate::clients::WorkerClients;
use crate::stats::Snapshot;
use core::fmt::Write as _;
use ringfort_resp::ReplyWriter;
use ringfort_wire::settings;

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
    /// Most client connections, unless the cluster's settings name another number.
    pub clients_max: u64,
    /// What the process uses of the machine.
    pub usage: Usage,
    /// The keys here; `None` when that is not known.
    pub keyspace: Option<Keyspace>,
    /// What was read from followers here; `None` of a proxy.
    pub follower_reads: Option<FollowerReads>,
}

/// Reads that a node answered as a follower, since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FollowerReads {
    /// How many.
    pub count: u64,
    /// Greatest age of an answer, ms.
    pub age_ms_max: u64,
}

/// What a process uses of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Memory, bytes.
    pub rss_bytes: u64,
    /// The most memory so far, bytes.
    pub rss_peak_bytes: u64,
    /// Time in the kernel, ms.
    pub cpu_system_ms: u64,
    /// Time outside of the kernel, ms.
    pub cpu_user_ms: u64,
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

/// In Redis's order; the keyspace is the last.
const SECTIONS: [&str; 13] = [
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "cpu",
    "modules",
    "commandstats",
    "errorstats",
    "latencystats",
    "cluster",
    "keyspace",
];
const KEYSPACE: usize = SECTIONS.len() - 1;
/// Sections that INFO shows only when they, or all, are asked for.
const NOT_DEFAULT: [&str; 2] = ["commandstats", "latencystats"];

/// Which sections are asked for; unknown ones are nothing, as in Redis.
fn wanted<'a>(asked: impl Iterator<Item = &'a [u8]>) -> [bool; SECTIONS.len()] {
    let default = SECTIONS.map(|section| !NOT_DEFAULT.contains(&section));
    let mut wanted = None;
    for name in asked {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let all = is("all") || is("everything");
        let wanted = wanted.get_or_insert([false; SECTIONS.len()]);
        for (i, section) in SECTIONS.iter().enumerate() {
            wanted[i] |= all || is(section) || (is("default") && default[i]);
        }
    }
    wanted.unwrap_or(default)
}

/// Whether the number of keys is asked for, which a proxy must ask the partitions for.
pub(super) fn is_with_keyspace<'a>(asked: impl Iterator<Item = &'a [u8]>) -> bool {
    wanted(asked)[KEYSPACE]
}

/// The text of INFO with the sections asked for; without the keys when [`write()`] is to add their number.
pub(super) fn text<'a>(
    asked: impl Iterator<Item = &'a [u8]>,
    host: &dyn Host,
    clients: &WorkerClients,
) -> String {
    let info = Info { host, clients, facts: host.facts(), counted: clients.all().counted() };
    let mut out = String::new();
    for (section, is_wanted) in SECTIONS.into_iter().zip(wanted(asked)) {
        if is_wanted {
            if !out.is_empty() {
                out.push_str("\r\n");
            }
            info.write_section(section, &mut Lines(&mut out));
        }
    }
    out
}

/// Writes the reply; `keys`: the number of keys, for the last section.
pub(super) fn write(mut text: String, keys: Option<i64>, out: &mut ReplyWriter<'_>) {
    if let Some(keys @ 1..) = keys {
        write_keyspace(keys.unsigned_abs(), 0, &mut Lines(&mut text));
    }
    super::connection::text(out, &text);
}

fn write_keyspace(keys: u64, expires: u64, out: &mut Lines<'_>) {
    out.line("db0", &format_args!("keys={keys},expires={expires},avg_ttl=0"));
}

/// Text in lines `name:value`.
struct Lines<'a>(&'a mut String);

impl Lines<'_> {
    fn title(&mut self, title: &str) {
        write!(self.0, "# {title}\r\n").expect("a String takes every write");
    }

    fn line(&mut self, name: &str, value: &dyn core::fmt::Display) {
        write!(self.0, "{name}:{value}\r\n").expect("a String takes every write");
    }

    fn lines(&mut self, lines: &[(&str, &dyn core::fmt::Display)]) {
        lines.iter().for_each(|(name, value)| self.line(name, *value));
    }

    /// A number of bytes, and again with a unit.
    fn bytes(&mut self, name: &str, bytes: u64) {
        self.line(name, &bytes);
        self.line(&format!("{name}_human"), &human(bytes));
    }
}

/// Bytes with a unit, as Redis writes them.
fn human(bytes: u64) -> String {
    let units = ["B", "K", "M", "G", "T", "P"];
    let i = (bytes.max(1).ilog2() / 10).min(5);
    if i == 0 {
        return format!("{bytes}B");
    }
    format!("{:.2}{}", bytes as f64 / (1u64 << (10 * i)) as f64, units[i as usize])
}

/// All that the sections are made of.
struct Info<'a> {
    host: &'a dyn Host,
    clients: &'a WorkerClients,
    facts: Facts,
    counted: Snapshot,
}

impl Info<'_> {
    fn write_section(&self, section: &str, out: &mut Lines<'_>) {
        match section {
            "server" => self.server(out),
            "clients" => self.clients(out),
            "memory" => self.memory(out),
            "persistence" => self.persistence(out),
            "stats" => self.stats(out),
            "replication" => self.replication(out),
            "cpu" => self.cpu(out),
            "modules" => out.title("Modules"),
            "commandstats" => self.command_stats(out),
            "errorstats" => self.error_stats(out),
            "latencystats" => self.latency_stats(out),
            "cluster" => {
                out.title("Cluster");
                out.line("cluster_enabled", &u8::from(self.host.my_node().is_some()));
            }
            _ => {
                out.title("Keyspace");
                if let Some(Keyspace { keys: keys @ 1.., expires, .. }) = self.facts.keyspace {
                    write_keyspace(keys, expires, out);
                }
            }
        }
    }

    fn server(&self, out: &mut Lines<'_>) {
        let is_node = self.host.my_node().is_some();
        let facts = &self.facts;
        out.title("Server");
        out.lines(&[
            ("redis_version", &REDIS_VERSION),
            ("redis_git_sha1", &"00000000"),
            ("redis_git_dirty", &0),
            ("redis_mode", &if is_node { "cluster" } else { "standalone" }),
            ("ringfort_version", &env!("CARGO_PKG_VERSION")),
            ("ringfort_role", &if is_node { "node" } else { "proxy" }),
            ("os", &std::env::consts::OS),
            ("arch_bits", &usize::BITS),
            ("multiplexing_api", &"epoll"),
            ("process_id", &facts.process_id),
            ("process_supervised", &"no"),
            ("run_id", &facts.run_id),
            ("tcp_port", &facts.tcp_port),
            ("server_time_usec", &self.clients.wall_us()),
            ("uptime_in_seconds", &facts.uptime_s),
            ("uptime_in_days", &(facts.uptime_s / 86400)),
            ("config_file", &""),
            ("io_threads_active", &0),
        ]);
    }

    fn clients(&self, out: &mut Lines<'_>) {
        use core::sync::atomic::Ordering::Relaxed;
        let all = self.clients.all();
        let blocked = all.records().iter().filter(|record| record.is_paused.load(Relaxed)).count();
        out.title("Clients");
        out.lines(&[
            ("connected_clients", &all.open()),
            ("cluster_connections", &0),
            ("maxclients", &all.max(self.facts.clients_max)),
            ("blocked_clients", &blocked),
            ("tracking_clients", &0),
            ("clients_in_timeout_table", &0),
        ]);
    }

    fn memory(&self, out: &mut Lines<'_>) {
        let usage = &self.facts.usage;
        let data_bytes = self.facts.keyspace.map(|keyspace| keyspace.bytes);
        let map = self.host.map();
        let maxmemory = map.map_or(0, |map| map.setting_integer(settings::MAXMEMORY).unsigned_abs());
        out.title("Memory");
        out.bytes("used_memory", data_bytes.unwrap_or(usage.rss_bytes));
        out.bytes("used_memory_rss", usage.rss_bytes);
        out.bytes("used_memory_peak", usage.rss_peak_bytes);
        out.line("used_memory_dataset", &data_bytes.unwrap_or(0));
        out.bytes("maxmemory", maxmemory);
        out.line(
            "maxmemory_policy",
            &map.map_or("noeviction", |map| map.setting(settings::MAXMEMORY_POLICY)),
        );
        out.line("mem_allocator", &"mimalloc");
    }

    fn persistence(&self, out: &mut Lines<'_>) {
        let started_s = (self.clients.wall_us() / 1_000_000).saturating_sub(self.facts.uptime_s);
        out.title("Persistence");
        out.lines(&[
            ("loading", &u8::from(self.host.map().is_none())),
            ("async_loading", &0),
            ("rdb_changes_since_last_save", &0),
            ("rdb_bgsave_in_progress", &0),
            ("rdb_last_save_time", &started_s),
            ("rdb_last_bgsave_status", &"ok"),
            ("rdb_last_bgsave_time_sec", &-1),
            ("rdb_current_bgsave_time_sec", &-1),
            ("aof_enabled", &0),
            ("aof_rewrite_in_progress", &0),
            ("aof_rewrite_scheduled", &0),
            ("aof_last_rewrite_time_sec", &-1),
            ("aof_current_rewrite_time_sec", &-1),
            ("aof_last_bgrewrite_status", &"ok"),
            ("aof_last_write_status", &"ok"),
        ]);
    }

    fn stats(&self, out: &mut Lines<'_>) {
        let totals = self.clients.all().totals();
        let commands = self.counted.calls() + self.counted.proxy_requests;
        let rate = self.clients.all().rate(self.clients.now_us(), totals.calls() + totals.proxy_requests);
        out.title("Stats");
        out.lines(&[
            ("total_connections_received", &self.counted.connections),
            ("total_commands_processed", &commands),
            ("instantaneous_ops_per_sec", &rate),
            ("total_net_input_bytes", &self.counted.bytes_in),
            ("total_net_output_bytes", &self.counted.bytes_out),
            ("rejected_connections", &self.counted.rejected_connections),
            ("sync_full", &0),
            ("sync_partial_ok", &0),
            ("sync_partial_err", &0),
            ("pubsub_channels", &0),
            ("pubsub_patterns", &0),
            ("latest_fork_usec", &0),
            ("total_forks", &0),
            ("total_error_replies", &self.counted.errors.values().sum::<u64>()),
        ]);
        if let Some(keyspace) = self.facts.keyspace {
            out.line("evicted_keys", &keyspace.evicted_keys);
        }
    }

    fn replication(&self, out: &mut Lines<'_>) {
        out.title("Replication");
        out.lines(&[
            ("role", &"master"),
            ("connected_slaves", &0),
            ("master_failover_state", &"no-failover"),
            ("master_replid", &self.facts.run_id),
            ("master_replid2", &"0000000000000000000000000000000000000000"),
            ("master_repl_offset", &0),
            ("second_repl_offset", &-1),
            ("repl_backlog_active", &0),
            ("repl_backlog_size", &0),
            ("repl_backlog_first_byte_offset", &0),
            ("repl_backlog_histlen", &0),
        ]);
        if let Some(reads) = self.facts.follower_reads {
            out.lines(&[("follower_reads", &reads.count), ("follower_read_age_ms_max", &reads.age_ms_max)]);
        }
    }

    fn cpu(&self, out: &mut Lines<'_>) {
        let Usage { cpu_system_ms, cpu_user_ms, .. } = self.facts.usage;
        let seconds = |ms: u64| format!("{}.{:06}", ms / 1000, ms % 1000 * 1000);
        out.title("CPU");
        out.lines(&[
            ("used_cpu_sys", &seconds(cpu_system_ms)),
            ("used_cpu_user", &seconds(cpu_user_ms)),
            ("used_cpu_sys_children", &"0.000000"),
            ("used_cpu_user_children", &"0.000000"),
        ]);
    }

    fn command_stats(&self, out: &mut Lines<'_>) {
        out.title("Commandstats");
        for (spec, c) in self.counted.used() {
            let per_call = c.micros as f64 / c.calls.max(1) as f64;
            out.line(
                &format!("cmdstat_{}", spec.name),
                &format_args!(
                    "calls={},usec={},usec_per_call={per_call:.2},rejected_calls={},failed_calls={}",
                    c.calls, c.micros, c.rejected, c.failed
                ),
            );
        }
    }

    fn error_stats(&self, out: &mut Lines<'_>) {
        out.title("Errorstats");
        for (word, count) in self.counted.errors.iter().filter(|(_, count)| **count > 0) {
            out.line(&format!("errorstat_{word}"), &format_args!("count={count}"));
        }
    }

    fn latency_stats(&self, out: &mut Lines<'_>) {
        out.title("Latencystats");
        let map = self.host.map();
        if map.is_some_and(|map| !map.setting_is_on(settings::LATENCY_TRACKING)) {
            return;
        }
        let percentiles =
            map.map_or("50 99 99.9", |map| map.setting(settings::LATENCY_TRACKING_INFO_PERCENTILES));
        let percentiles: Vec<(&str, f64)> =
            percentiles.split_ascii_whitespace().filter_map(|p| Some((p, p.parse().ok()?))).collect();
        for (spec, command) in self.counted.used().filter(|(_, command)| command.calls > 0) {
            let values: Vec<_> = percentiles
                .iter()
                .map(|(text, percent)| format!("p{text}={}.000", command.latency.percentile_us(*percent)))
                .collect();
            out.line(&format!("latency_percentiles_usec_{}", spec.name), &values.join(","));
        }
    }
}
