//! What the workers of one node share: the cluster map, who leads, counters. Written seldom, read by all.

use super::status::WorkerStatus;
use crate::shard::GroupStatus;
use parking_lot::{Mutex, RwLock};
use ringfort_proxy::clients::Clients;
use ringfort_proxy::session::{Facts, FollowerReads, Host, Keyspace, RingfortQuery, Usage, map_json};
use ringfort_ring::{NodeId, PartitionId, Slot};
use ringfort_wire::map::MapGroup;
use ringfort_wire::{ClusterMap, GroupId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use tokio::sync::watch;

/// No replica of the partition is here that could know its leader.
const NOT_HERE: u16 = u16::MAX;
/// A replica is here, and knows no leader.
const NOBODY: u16 = u16::MAX - 1;

/// What a node is doing, as RINGFORT NODE tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum NodeState {
    /// It finds its cluster or reads its data.
    Loading = 0,
    /// It serves.
    Up = 1,
    /// It hands its leaderships over, to stop.
    Leaving = 2,
}

impl NodeState {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Up => "up",
            Self::Leaving => "leaving",
        }
    }
}

/// Most links of a node's peer port that were greeted, whoever they are of; the next is refused and told so.
///
/// A cluster of n nodes and p proxies needs about (n - 1 + p) x workers x workers on each node, and a few for questions.
pub const LINKS_MAX: usize = 16_384;

/// Counts the links of the peer port.
#[derive(Debug, Clone, Default)]
pub struct Links(Arc<AtomicUsize>);

impl Links {
    /// Counts a link; `None` when there are `max` already.
    pub fn admit(&self, max: usize) -> Option<LinkPlace> {
        let admitted =
            self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < max).then_some(n + 1));
        admitted.ok().map(|_| LinkPlace(Arc::clone(&self.0)))
    }
}

/// A counted link; dropping it makes room.
#[derive(Debug)]
pub struct LinkPlace(Arc<AtomicUsize>);

impl Drop for LinkPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The state that all workers of a node see.
#[derive(Debug)]
pub struct Shared {
    /// This node.
    pub node: NodeId,
    /// Its data folder's id.
    pub store_id: u128,
    /// Number of workers.
    pub workers: u16,
    /// Drawn at each start.
    pub run_id: u128,
    /// The client port.
    pub client_port: u16,
    /// Most client connections.
    pub clients_max: u64,
    state: AtomicU8,
    map: RwLock<Option<Arc<ClusterMap>>>,
    epoch: AtomicU64,
    /// Tells of each newer epoch.
    epochs: watch::Sender<u64>,
    /// Epoch of the map in the data folder: the next start knows no older one.
    kept_epoch: AtomicU64,
    leaders: Vec<AtomicU16>,
    statuses: Vec<Mutex<Vec<GroupStatus>>>,
    worker_statuses: Vec<Mutex<WorkerStatus>>,
    /// The clients of the node's own port; one part for each worker, and the last for those of a node that does not serve yet.
    pub clients: Arc<Clients>,
    /// How often somebody asked for the replicas' digests.
    pub digests_asked: AtomicU64,
    /// Of each worker: group, applied index, digest at it.
    digests: Vec<Mutex<Vec<(GroupId, u64, u64)>>>,
    /// Commands of the last second.
    pub commands_per_s: AtomicU64,
    /// Seconds since the start.
    pub uptime_s: AtomicU64,
    /// What the process uses of the machine.
    pub usage: Mutex<Usage>,
    /// Memory of the machine, bytes; 0: the system does not tell.
    pub memory_bytes: AtomicU64,
    /// Of the state that the node sends to new replicas.
    pub sending: Pace,
    /// Of what it receives.
    pub receiving: Pace,
}

/// A rate that all workers of a node keep together: who wants to go on waits for what went before.
#[derive(Debug, Default)]
pub struct Pace {
    /// When all that was let through has had its time, µs since boot.
    free_us: AtomicU64,
    /// Bytes that were let through.
    bytes: AtomicU64,
}

impl Pace {
    /// How long to wait now, in µs, after so many bytes, so that they come to `bytes_per_s`.
    pub fn wait_us(&self, now_us: u64, bytes: u64, bytes_per_s: u64) -> u64 {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let takes_us = bytes.saturating_mul(1_000_000) / bytes_per_s.max(1);
        let next = |free_us: u64| Some(free_us.max(now_us).saturating_add(takes_us));
        let before = self.free_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        next(before.unwrap_or_else(|same| same)).map_or(0, |free_us| free_us - now_us)
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Creates the state of a node with `workers` workers.
    pub fn new(
        node: NodeId,
        store_id: u128,
        workers: u16,
        run_id: u128,
        client_port: u16,
        clients_max: u64,
    ) -> Self {
        Self {
            node,
            store_id,
            workers,
            run_id,
            client_port,
            clients_max,
            state: AtomicU8::new(NodeState::Loading as u8),
            map: RwLock::new(None),
            epoch: AtomicU64::new(0),
            epochs: watch::Sender::new(0),
            kept_epoch: AtomicU64::new(0),
            leaders: (0..1024).map(|_| AtomicU16::new(NOT_HERE)).collect(),
            statuses: (0..workers).map(|_| Mutex::new(Vec::new())).collect(),
            worker_statuses: (0..workers).map(|_| Mutex::default()).collect(),
            clients: Clients::new(usize::from(workers) + 1),
            digests_asked: AtomicU64::new(0),
            digests: (0..workers).map(|_| Mutex::new(Vec::new())).collect(),
            commands_per_s: AtomicU64::new(0),
            uptime_s: AtomicU64::new(0),
            usage: Mutex::default(),
            memory_bytes: AtomicU64::new(0),
            sending: Pace::default(),
            receiving: Pace::default(),
        }
    }

    /// What the node is doing.
    pub fn state(&self) -> NodeState {
        match self.state.load(Ordering::Relaxed) {
            0 => NodeState::Loading,
            1 => NodeState::Up,
            _ => NodeState::Leaving,
        }
    }

    /// Says what the node is doing from now on.
    pub fn set_state(&self, state: NodeState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// The map; `None` before the cluster has formed.
    pub fn map(&self) -> Option<Arc<ClusterMap>> {
        self.map.read().clone()
    }

    /// Its epoch, 0 = none.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Takes a newer map; an older one changes nothing. Returns whether it was newer.
    pub fn set_map(&self, map: &ClusterMap) -> bool {
        let mut current = self.map.write();
        if current.as_ref().is_some_and(|c| c.epoch >= map.epoch) {
            return false;
        }
        *current = Some(Arc::new(map.clone()));
        self.clients.follow(map);
        self.epoch.store(map.epoch, Ordering::Release);
        drop(current);
        self.epochs.send_replace(map.epoch);
        true
    }

    /// Says that the map of `epoch` is durable in the data folder.
    pub fn set_kept(&self, epoch: u64) {
        self.kept_epoch.fetch_max(epoch, Ordering::Release);
    }

    /// The epoch that the next start knows at least, 0 = none.
    pub fn kept_epoch(&self) -> u64 {
        self.kept_epoch.load(Ordering::Acquire)
    }

    /// Waits until there is a map newer than `epoch`.
    pub async fn newer_than(&self, epoch: u64) {
        // The sender is here, so there is no error.
        let _ = self.epochs.subscribe().wait_for(|_| self.epoch() > epoch).await;
    }

    /// Publishes what a worker knows of its groups.
    pub fn publish(&self, worker: u16, statuses: Vec<GroupStatus>) {
        let map = self.map();
        for status in &statuses {
            let Some(PartitionId(p)) = status.id.partition() else { continue };
            let leader = status.leader.as_ref().and_then(|id| {
                let nodes = &map.as_ref()?.nodes;
                nodes.iter().position(|n| n.id == *id)
            });
            if let Some(place) = self.leaders.get(usize::from(p)) {
                place.store(leader.map_or(NOBODY, |i| i as u16), Ordering::Relaxed);
            }
        }
        if let Some(place) = self.statuses.get(usize::from(worker)) {
            *place.lock() = statuses;
        }
    }

    /// Publishes the digests of a worker's replicas.
    pub fn publish_digests(&self, worker: u16, digests: Vec<(GroupId, u64, u64)>) {
        if let Some(place) = self.digests.get(usize::from(worker)) {
            *place.lock() = digests;
        }
    }

    /// Publishes what a worker tells of itself.
    pub fn publish_worker(&self, worker: u16, status: WorkerStatus) {
        if let Some(place) = self.worker_statuses.get(usize::from(worker)) {
            *place.lock() = status;
        }
    }

    /// What the workers tell of themselves.
    pub fn worker_statuses(&self) -> Vec<WorkerStatus> {
        self.worker_statuses.iter().map(|status| status.lock().clone()).collect()
    }

    /// What all workers know of their groups.
    pub fn statuses(&self) -> Vec<GroupStatus> {
        let mut all: Vec<_> = self.statuses.iter().flat_map(|s| s.lock().clone()).collect();
        all.sort_by_key(|s| s.id);
        all
    }
}

/// One worker's view of [`Shared`], as the client sessions ask for it.
#[derive(Debug)]
pub struct View {
    shared: Arc<Shared>,
    map: Option<Arc<ClusterMap>>,
}

impl View {
    /// A slot from which on a scan of this node finds keys: `slot` itself if its partition is led here, else the first one
    /// of the next partition that is; `None` when none is.
    pub fn next_led(&self, slot: Slot) -> Option<Slot> {
        let partitions = self.map()?.partitions;
        let first = partitions.of(slot);
        let mut led = partitions.iter().filter(|p| first <= *p && self.leader_of(*p) == self.my_node());
        led.next().map(|p| slot.max(partitions.slots(p).0))
    }

    /// Looks at `shared`.
    pub fn new(shared: Arc<Shared>) -> Self {
        let map = shared.map();
        Self { shared, map }
    }

    /// Follows a newer map. Cheap when there is none.
    pub fn refresh(&mut self) {
        if self.map.as_ref().map_or(0, |m| m.epoch) != self.shared.epoch() {
            self.map = self.shared.map();
        }
    }

    /// The map.
    pub fn cluster_map(&self) -> Option<&Arc<ClusterMap>> {
        self.map.as_ref()
    }
}

impl Host for View {
    fn map(&self) -> Option<&ClusterMap> {
        self.map.as_deref()
    }

    fn leader_of(&self, partition: PartitionId) -> Option<&NodeId> {
        let map = self.map.as_ref()?;
        let index = self.shared.leaders.get(usize::from(partition.0))?.load(Ordering::Relaxed);
        if index == NOT_HERE {
            // The preferred leader is the best guess.
            return map.groups.get(usize::from(partition.0)).map(MapGroup::wanted_leader);
        }
        map.nodes.get(usize::from(index)).map(|n| &n.id)
    }

    fn my_node(&self) -> Option<&NodeId> {
        Some(&self.shared.node)
    }

    fn facts(&self) -> Facts {
        let statuses = self.shared.statuses();
        let led = || statuses.iter().filter(|s| s.is_leader);
        Facts {
            run_id: format!("{:040x}", self.shared.run_id),
            process_id: std::process::id(),
            tcp_port: self.shared.client_port,
            uptime_s: self.shared.uptime_s.load(Ordering::Relaxed),
            clients_max: self.shared.clients_max,
            usage: *self.shared.usage.lock(),
            keyspace: Some(Keyspace {
                keys: led().map(|s| s.keys).sum(),
                expires: led().map(|s| s.expires).sum(),
                bytes: led().map(|s| s.bytes).sum(),
                evicted_keys: statuses.iter().map(|s| s.evicted_keys).sum(),
            }),
            follower_reads: Some(FollowerReads {
                count: statuses.iter().map(|s| s.activity.follower_reads).sum(),
                age_ms_max: statuses
                    .iter()
                    .map(|s| s.activity.follower_age_us_max.div_ceil(1000))
                    .max()
                    .unwrap_or(0),
            }),
        }
    }

    fn ringfort(&self, query: RingfortQuery) -> Result<String, String> {
        match query {
            RingfortQuery::Map => {
                let map = self.map.as_ref().ok_or("the cluster has not formed yet")?;
                Ok(map_json(map, |partition| self.leader_of(partition)))
            }
            RingfortQuery::Node => Ok(self.node_json().to_string()),
            RingfortQuery::Digest => Ok(self.digest_json().to_string()),
        }
    }
}

impl View {
    /// Digests as of the last question; this one has them computed anew, within about 100 ms.
    fn digest_json(&self) -> serde_json::Value {
        self.shared.digests_asked.fetch_add(1, Ordering::Relaxed);
        let mut all: Vec<_> = self.shared.digests.iter().flat_map(|d| d.lock().clone()).collect();
        all.sort_unstable();
        let group = |(id, applied, digest): (GroupId, u64, u64)| {
            let partition = id.partition().map(|p| p.0);
            serde_json::json!({ "partition": partition, "applied": applied, "digest": format!("{digest:016x}") })
        };
        serde_json::json!({ "id": self.shared.node.0, "groups": all.into_iter().map(group).collect::<Vec<_>>() })
    }

    fn node_json(&self) -> serde_json::Value {
        // Before the groups, which each worker publishes before it: of a worker whose disk is full or slow here, there are no older
        // leaderships below.
        let workers = self.shared.worker_statuses();
        let is_disk_full = workers.iter().any(|worker| worker.is_disk_full);
        let is_disk_slow = workers.iter().any(|worker| worker.is_disk_slow);
        let memory_bytes = Some(self.shared.memory_bytes.load(Ordering::Relaxed)).filter(|&bytes| bytes != 0);
        let statuses = self.shared.statuses();
        let term_meta = statuses.iter().find(|s| s.id == GroupId::META).map(|s| s.term);
        let groups: Vec<_> = statuses
            .iter()
            .map(|s| {
                serde_json::json!({
                    "partition": s.id.partition().map(|p| p.0),
                    "role": if s.is_leader { "leader" } else { "follower" },
                    "leader": s.leader.as_ref().map(|n| n.0.as_str()),
                    "term": s.term, "commit": s.commit, "applied": s.applied, "last": s.last,
                    "keys": s.keys, "bytes": s.bytes, "quota": s.limit.quota_bytes, "policy": s.limit.policy.name(),
                    "evicted_keys": s.evicted_keys,
                    "followers": s.followers.iter().map(|f| serde_json::json!({
                        "node": f.node.0, "behind": f.behind, "in_sync": f.in_sync,
                    })).collect::<Vec<_>>(),
                    "replica": s.replica,
                    "voters": s.membership.voters, "leaving": s.membership.outgoing,
                    "learners": s.membership.learners,
                })
            })
            .collect();
        serde_json::json!({
            "id": self.shared.node.0, "state": self.shared.state().as_str(),
            "store_id": format!("{:032x}", self.shared.store_id), "workers": self.shared.workers,
            "memory_bytes": memory_bytes, "is_disk_full": is_disk_full, "is_disk_slow": is_disk_slow,
            "commands_per_s": self.shared.commands_per_s.load(Ordering::Relaxed),
            "term_meta": term_meta, "epoch": self.shared.epoch(), "groups": groups,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_kept_together_and_time_without_bytes_is_not_saved_up() {
        let pace = Pace::default();
        assert_eq!(pace.wait_us(1_000, 500, 1_000_000), 500);
        assert_eq!(pace.wait_us(1_100, 500, 1_000_000), 900, "another one waits behind it");
        assert_eq!(pace.wait_us(9_000, 500, 1_000_000), 500);
        assert_eq!(pace.wait_us(9_500, 1 << 40, u64::MAX), 0);
        assert_eq!(pace.bytes(), 1500 + (1 << 40));
    }

    #[test]
    fn a_link_that_ends_makes_room_for_another() {
        let links = Links::default();
        let first = links.admit(2).unwrap();
        let second = links.admit(2).unwrap();
        assert!(links.admit(2).is_none());
        drop(first);
        let third = links.admit(2).unwrap();
        assert!(links.admit(2).is_none());
        drop((second, third));
        assert!(links.admit(1).is_some());
    }
}
