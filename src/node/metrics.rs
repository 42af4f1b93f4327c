//! What the node's metrics port answers: `/metrics`, `/health`, `/health/live`.

use crate::clock::{Clock as _, SystemClock};
use crate::shard::GroupStatus;
use crate::worker::shared::{NodeState, Shared};
use crate::worker::status::{Durations, WorkerStatus};
use ringfort_proxy::clients::Clients;
use ringfort_proxy::http::{Response, health};
use ringfort_proxy::metrics::{CONTENT_TYPE, Exposition, Kind, write_clients, write_process};
use ringfort_wire::GroupId;
use std::sync::{Arc, OnceLock};

/// Time without news after which a worker counts as stuck, µs; at rest it tells some each second.
const STUCK_US: u64 = 10_000_000;

/// Where the answers come from.
pub(super) struct Metrics {
    pub(super) shared: Arc<Shared>,
    /// The clients of the proxy within this node, once it runs.
    pub(super) proxy: OnceLock<Arc<Clients>>,
    pub(super) started_us: u64,
}

impl Metrics {
    /// The answer to a path.
    pub(super) fn answer(&self, path: &str) -> Option<Response> {
        let state = self.shared.state().as_str();
        match path {
            "/metrics" => Some(Response { status: 200, content_type: CONTENT_TYPE, body: self.text() }),
            "/health" => Some(health(state, self.not_ready().as_deref())),
            "/health/live" => Some(health(state, self.not_live().as_deref())),
            _ => None,
        }
    }

    /// Why the node should get no clients; `None`: it serves.
    fn not_ready(&self) -> Option<String> {
        match self.shared.state() {
            NodeState::Loading => Some("it finds its cluster or reads its data".to_owned()),
            NodeState::Leaving => Some("it hands its leaderships over, to stop".to_owned()),
            NodeState::Up => {
                let groups = self.shared.statuses();
                let orphans = groups.iter().filter(|group| group.leader.is_none()).count();
                (orphans != 0).then(|| format!("{orphans} of its {} groups have no leader", groups.len()))
            }
        }
    }

    /// Why the process should be started again; `None`: it goes on.
    fn not_live(&self) -> Option<String> {
        let now_us = SystemClock.now().boot_us;
        let silent_us = |status: &WorkerStatus| now_us.saturating_sub(status.published_us);
        let statuses = self.shared.worker_statuses();
        let running = statuses.iter().enumerate().filter(|(_, status)| status.published_us != 0);
        let (worker, stuck) =
            running.map(|(n, status)| (n, silent_us(status))).find(|(_, us)| *us > STUCK_US)?;
        Some(format!("worker {worker} has done nothing for {} s", stuck / 1_000_000))
    }

    fn text(&self) -> String {
        let mut out = Exposition::default();
        let shared = &self.shared;
        let uptime_us = SystemClock.now().boot_us.saturating_sub(self.started_us);
        write_process("node", uptime_us / 1_000_000, shared.epoch(), &mut out);
        let is_serving = u8::from(self.not_ready().is_none());
        out.single("ringfort_serving", Kind::Gauge, "1 when /health is 200, else 0.", is_serving);
        let mut ports = vec![("node", &*shared.clients)];
        ports.extend(self.proxy.get().map(|clients| ("proxy", &**clients)));
        write_clients(&ports, &mut out);
        out.single(
            "ringfort_proxy_requests_total",
            Kind::Counter,
            "Commands, and parts of commands, that proxies asked this node for.",
            shared.clients.totals().proxy_requests,
        );
        write_groups(&shared.statuses(), &mut out);
        write_workers(&shared.worker_statuses(), &mut out);
        out.family(
            "ringfort_snapshot_bytes_total",
            Kind::Counter,
            "Bytes of snapshots that were sent to other nodes and received from them; the rate of moves counts these.",
        );
        out.sample(&[("direction", "sent")], shared.sending.bytes());
        out.sample(&[("direction", "received")], shared.receiving.bytes());
        out.finish()
    }
}

/// A metric of the groups: name, kind, help, its value for one group.
type OfGroups = (&'static str, Kind, &'static str, fn(&GroupStatus) -> u64);

const SUMS: &[OfGroups] = &[
    ("ringfort_replicas", Kind::Gauge, "Replicas of partitions on this node.", |_| 1),
    ("ringfort_leaders", Kind::Gauge, "Partitions that this node leads.", |g| g.is_leader.into()),
    ("ringfort_leaderless_replicas", Kind::Gauge, "Replicas that know no leader.", |g| {
        g.leader.is_none().into()
    }),
    ("ringfort_keys", Kind::Gauge, "Keys of the partitions that this node leads.", |g| led(g, g.keys)),
    ("ringfort_expiring_keys", Kind::Gauge, "Those of them that expire.", |g| led(g, g.expires)),
    ("ringfort_data_bytes", Kind::Gauge, "Logical bytes of the partitions that this node leads.", |g| {
        led(g, g.bytes)
    }),
    ("ringfort_replica_keys", Kind::Gauge, "Keys of all replicas on this node.", |g| g.keys),
    ("ringfort_replica_data_bytes", Kind::Gauge, "Logical bytes of all replicas on this node.", |g| g.bytes),
    (
        "ringfort_quota_bytes",
        Kind::Gauge,
        "Logical bytes that the partitions led here may hold; 0 is no limit.",
        |g| led(g, g.limit.quota_bytes),
    ),
    ("ringfort_evicted_keys_total", Kind::Counter, "Keys that this node evicted as a leader.", |g| {
        g.evicted_keys
    }),
    ("ringfort_elections_won_total", Kind::Counter, "Times that a replica here became the leader.", |g| {
        g.activity.elections_won
    }),
    (
        "ringfort_leader_changes_total",
        Kind::Counter,
        "Times that the leader known to a replica here changed to another node.",
        |g| g.activity.leader_changes,
    ),
    (
        "ringfort_unapplied_entries",
        Kind::Gauge,
        "Log entries that are committed and not yet applied here.",
        |g| g.commit.saturating_sub(g.applied),
    ),
    (
        "ringfort_inflight_entries",
        Kind::Gauge,
        "Log entries that this node proposed and that are not applied.",
        |g| g.activity.inflight_entries,
    ),
    ("ringfort_queued_write_bytes", Kind::Gauge, "Writes that wait to be proposed.", |g| {
        g.activity.queued_bytes
    }),
    ("ringfort_waiting_reads", Kind::Gauge, "Reads that wait for a lease, a quorum or a write.", |g| {
        g.activity.waiting_reads
    }),
];

fn led(group: &GroupStatus, value: u64) -> u64 {
    if group.is_leader { value } else { 0 }
}

fn write_groups(groups: &[GroupStatus], out: &mut Exposition) {
    let partitions = || groups.iter().filter(|group| group.id != GroupId::META);
    for (name, kind, help, value) in SUMS {
        out.single(name, *kind, help, partitions().map(value).sum::<u64>());
    }
    out.family(
        "ringfort_reads_total",
        Kind::Counter,
        "Reads answered: by a leader under its lease or after a round to a quorum, by a follower.",
    );
    out.sample(&[("by", "lease")], partitions().map(|g| g.activity.lease_reads).sum::<u64>());
    out.sample(&[("by", "round")], partitions().map(|g| g.activity.round_reads).sum::<u64>());
    out.sample(&[("by", "follower")], partitions().map(|g| g.activity.follower_reads).sum::<u64>());
    out.single(
        "ringfort_read_rounds_total",
        Kind::Counter,
        "Questions on behalf of reads: of a leader to a quorum, of a follower to its leader.",
        partitions().map(|g| g.activity.read_rounds).sum::<u64>(),
    );
    let lag = partitions().flat_map(|g| &g.followers).map(|follower| follower.behind).max();
    out.single(
        "ringfort_follower_lag_entries",
        Kind::Gauge,
        "Most log entries that a follower of a leader here lacks.",
        lag.unwrap_or(0),
    );
    out.single(
        "ringfort_highest_term",
        Kind::Gauge,
        "Highest Raft term of the groups here, the meta group included.",
        groups.iter().map(|group| group.term).max().unwrap_or(0),
    );
}

fn write_workers(workers: &[WorkerStatus], out: &mut Exposition) {
    let sum = |value: fn(&WorkerStatus) -> u64| workers.iter().map(value).sum::<u64>();
    let mut durations = |name, help, of: fn(&WorkerStatus) -> &Durations| {
        let mut all = Durations::default();
        workers.iter().for_each(|worker| all.add(of(worker)));
        out.family(name, Kind::Histogram, help);
        out.histogram(&[], &all.histogram, all.micros);
    };
    durations(
        "ringfort_commit_duration_seconds",
        "Time from the proposal of a log entry to its application by the leader.",
        |w| &w.commits,
    );
    durations(
        "ringfort_follower_read_age_seconds",
        "Age of what a follower answered at once: time since it asked the leader how far it must apply.",
        |w| &w.follower_reads,
    );
    durations("ringfort_log_sync_duration_seconds", "Time that a sync of the log took.", |w| &w.syncs);
    out.single("ringfort_log_bytes", Kind::Gauge, "Bytes of the log's segment files.", sum(|w| w.log_bytes));
    out.single("ringfort_log_segments", Kind::Gauge, "The log's segment files.", sum(|w| w.log_segments));
    out.family(
        "ringfort_snapshots_total",
        Kind::Counter,
        "Snapshots: begun of own groups, sent to other nodes, installed from them.",
    );
    out.sample(&[("action", "written")], sum(|w| w.snapshots_written));
    out.sample(&[("action", "sent")], sum(|w| w.snapshots_sent));
    out.sample(&[("action", "installed")], sum(|w| w.snapshots_installed));
    out.single("ringfort_proxy_links", Kind::Gauge, "Links of proxies.", sum(|w| w.links));
    out.single(
        "ringfort_proxy_requests_unanswered",
        Kind::Gauge,
        "Requests of proxies that are not answered: the credit in use.",
        sum(|w| w.link_requests),
    );
    out.single(
        "ringfort_disk_full",
        Kind::Gauge,
        "1 when the disk is so full that writes are refused, else 0.",
        sum(|w| w.is_disk_full.into()).min(1),
    );
    out.single(
        "ringfort_disk_slow",
        Kind::Gauge,
        "1 when syncs take so long that others are to lead, else 0.",
        sum(|w| w.is_disk_slow.into()).min(1),
    );
}
