//! What a run is like: everything is drawn from its seed.

use crate::rng::Rng;
use ringfort_store::Policy;

/// One second of virtual time.
pub(crate) const SECOND: u64 = 1_000_000;
/// Nodes of every simulated cluster.
pub(crate) const NODES: usize = 3;
/// Partitions: the fewest that the product allows.
pub(crate) const PARTITIONS: u16 = 16;

/// Seeds from here on run with little memory; the others with as much as they want.
pub(crate) const MEMORY_SEEDS: u64 = 1 << 32;

/// How often each fault is drawn relative to the others; 0 = never.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FaultMix {
    /// A host, or one direction between two hosts, is cut off for a while.
    pub(crate) partition: u64,
    /// Connections break.
    pub(crate) cut: u64,
    /// A process stops for a while and goes on.
    pub(crate) pause: u64,
    /// A process dies; nothing written is lost.
    pub(crate) kill: u64,
    /// A machine dies; what was not synced is lost or torn. Only with fsync.
    pub(crate) crash: u64,
    /// A disk is full for a while.
    pub(crate) full: u64,
    /// A sync fails.
    pub(crate) bad_sync: u64,
    /// A wall clock jumps.
    pub(crate) jump: u64,
    /// A proxy dies; a new one takes its place.
    pub(crate) proxy: u64,
    /// A node is stopped as planned; now and then the others cannot tell it of their new leaders.
    pub(crate) leave: u64,
    /// Two nodes cannot reach each other, and the third one, which both can, restarts again and again.
    pub(crate) bridge: u64,
    /// A node loses its data folder and comes back with an empty one; not while an earlier loss is being made good.
    pub(crate) wipe: u64,
}

/// The options of one seed.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) replicas: u16,
    pub(crate) workers: u16,
    pub(crate) fsync: bool,
    pub(crate) proxies: usize,
    pub(crate) proxy_clients: usize,
    pub(crate) direct_clients: usize,
    /// Whether all keys are in one partition.
    pub(crate) is_hot: bool,
    /// Most unanswered operations of a proxy's client.
    pub(crate) depth: usize,
    /// Mean pause of a client between two operations, µs.
    pub(crate) think_us: u64,
    /// Deadline of the proxies, µs.
    pub(crate) deadline_us: u64,
    /// Latency of the network, µs: least and most.
    pub(crate) latency_us: (u64, u64),
    /// Longest sync, µs.
    pub(crate) sync_us: u64,
    /// Virtual time with faults, µs.
    pub(crate) faults_us: u64,
    /// Mean time between two faults, µs.
    pub(crate) fault_every_us: u64,
    /// Longest fault, µs.
    pub(crate) fault_us: u64,
    pub(crate) mix: FaultMix,
    /// One turn in so many is interrupted by a stall between its work and its replies; 0 = none.
    pub(crate) stall_one_in: u64,
    /// Largest error of the wall clocks, ms.
    pub(crate) skew_ms: u64,
    /// Size of a partition's log at which it is compacted.
    pub(crate) compact_bytes: u64,
    pub(crate) segment_bytes: u64,
    /// Logical bytes of each partition, and what gives way beyond.
    pub(crate) memory: Option<(u64, Policy)>,
}

impl Options {
    /// The options that belong to `seed`.
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x006f_7074_696f_6e73);
        let fsync = rng.one_in(2);
        // Each kind is absent from half of the runs, so that it cannot hide what another one brings out.
        let mut weight = |most: u64| if rng.one_in(2) { 0 } else { rng.range(1, most) };
        let mut mix = FaultMix {
            partition: weight(8),
            cut: weight(8),
            pause: weight(8),
            kill: weight(6),
            crash: if fsync { weight(6) } else { 0 },
            full: weight(2),
            bad_sync: weight(1),
            jump: weight(3),
            proxy: weight(2),
            leave: weight(3),
            bridge: weight(3),
            wipe: 0,
        };
        if mix.partition + mix.cut + mix.pause + mix.kill + mix.crash == 0 {
            mix.kill = 3;
        }
        let has_memory_limit = MEMORY_SEEDS <= seed;
        let is_hot = rng.one_in(3) || has_memory_limit;
        let replicas = if rng.one_in(8) { 1 } else { 3 };
        // Not drawn, so that the other seeds stay as they were.
        if seed % 4 == 2 && replicas == 3 {
            mix.wipe = 1 + seed / 4 % 4;
        }
        Self {
            seed,
            is_hot,
            replicas,
            workers: if rng.one_in(4) { 2 } else { 1 },
            fsync,
            proxies: rng.range(1, 2) as usize,
            proxy_clients: rng.range(4, 6) as usize,
            direct_clients: rng.below(4) as usize,
            depth: rng.range(1, if is_hot { 16 } else { 6 }) as usize,
            think_us: rng.range(10_000, if is_hot { 40_000 } else { 120_000 }),
            deadline_us: rng.range(1, 5) * SECOND,
            latency_us: (rng.range(100, 500), rng.spread(1_000, 20_000)),
            sync_us: rng.spread(200, 40_000),
            faults_us: rng.range(15, 40) * SECOND,
            fault_every_us: rng.range(300_000, 3 * SECOND),
            fault_us: rng.range(SECOND / 2, 4 * SECOND),
            mix,
            stall_one_in: if rng.one_in(2) { rng.range(300, 5_000) } else { 0 },
            skew_ms: rng.spread(1, 8_000),
            compact_bytes: rng.spread(2_000, 200_000),
            segment_bytes: rng.spread(8 << 10, 1 << 20),
            memory: has_memory_limit
                .then(|| (rng.range(300, 2_000), Policy::ALL[rng.index(Policy::ALL.len())].1)),
        }
    }

    /// Whether an acknowledged write may be gone because its key was evicted.
    pub(crate) fn evicts(&self) -> bool {
        self.memory.is_some_and(|(_, policy)| policy.evicts())
    }

    /// The cluster's config file.
    pub(crate) fn toml(&self) -> String {
        let durability = if self.fsync { "fsync" } else { "buffered" };
        let mut toml = format!(
            "[cluster]\nname = \"sim\"\npartitions = {PARTITIONS}\nreplicas = {}\ndurability = \"{durability}\"\n",
            self.replicas
        );
        if let Some((quota, policy)) = self.memory {
            let bytes = quota * u64::from(PARTITIONS);
            toml += &format!("maxmemory = {bytes}\nmaxmemory_policy = \"{}\"\n", policy.name());
        }
        for n in 1..=NODES {
            toml += &format!(
                "[[node]]\nid = \"n{n}\"\nclient = \"127.0.0.1:{}\"\npeer = \"127.0.0.1:{}\"\n",
                7000 + n,
                7100 + n
            );
        }
        toml
    }
}
