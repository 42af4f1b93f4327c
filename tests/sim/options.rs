//! What a run is like: everything is drawn from its seed.

use crate::rng::Rng;
use ringfort::shard::limits::Limits;
use ringfort::shard::raft::ELECTION_TICKS_MAX;
use ringfort_proxy::limits::Limits as ProxyLimits;
use ringfort_store::Policy;

/// One second of virtual time.
pub(crate) const SECOND: u64 = 1_000_000;
/// Partitions: the fewest that the product allows.
pub(crate) const PARTITIONS: u16 = 16;

/// Seeds from here on run with little memory; the others with as much as they want.
pub(crate) const MEMORY_SEEDS: u64 = 1 << 32;
/// Seeds from here on run `buffered` with machines that crash, one at a time.
pub(crate) const CRASH_SEEDS: u64 = 1 << 33;
/// Seeds from here on are those of the liveness mode.
pub(crate) const LIVENESS_SEEDS: u64 = 3 << 32;
/// Seeds from here on change the members again and again.
pub(crate) const MOVING_SEEDS: u64 = 1 << 34;
/// Seeds from here on do that in the liveness mode.
pub(crate) const MOVING_LIVENESS_SEEDS: u64 = 9 << 31;
/// Seeds from here on run with every queue at capacity 1, every second one in the liveness mode.
pub(crate) const CAPACITY_SEEDS: u64 = 5 << 32;
/// Hosts of nodes when members change; some of them are members.
const MOVING_NODES: usize = 5;
/// Fewest ticks between two attempts to give leadership back where the preferred leader stays broken; each may hold writes up
/// for an election timeout.
const RETURN_TICKS_MIN: u64 = 3 * ELECTION_TICKS_MAX as u64;

/// Most by which a clock's speed is off, parts per million: (1 + x) / (1 - x) stays below 1.1, which leases assume.
pub(crate) const DRIFT_PPM_MAX: u64 = 47_000;

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
    /// A machine dies, now and then all of them at once; what was not synced is lost or torn. With `buffered` one at a
    /// time, and none while replicas that it made suspect are being replaced.
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
    /// A process stops for many seconds and goes on.
    pub(crate) sleep: u64,
    /// A disk is slow for a while: long syncs, and writes that hold a worker up.
    pub(crate) slow: u64,
    /// A machine's clocks run at another speed from here on.
    pub(crate) drift: u64,
    /// A process dies, and its disk has a record damaged, or written at a wrong place, in what was durable: it must refuse
    /// to start, and comes back with an empty folder; not while an earlier loss is being made good.
    pub(crate) damage: u64,
    /// A node restarts within milliseconds and hears a rival of its leader first, the leader not.
    pub(crate) betray: u64,
    /// A node is gone for good with its data folder, a receiver of replicas if there is one, until the cluster has forgotten
    /// it; not while an earlier loss is being made good.
    pub(crate) vanish: u64,
}

/// What each weight of a [`FaultMix`] stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Partition,
    Cut,
    Pause,
    Kill,
    Crash,
    Full,
    BadSync,
    Jump,
    Proxy,
    Leave,
    Bridge,
    Wipe,
    Sleep,
    Slow,
    Drift,
    Damage,
    Betray,
    Vanish,
}

impl FaultMix {
    /// Every fault with its weight.
    pub(crate) fn weights(&self) -> [(Fault, u64); 18] {
        [
            (Fault::Partition, self.partition),
            (Fault::Cut, self.cut),
            (Fault::Pause, self.pause),
            (Fault::Kill, self.kill),
            (Fault::Crash, self.crash),
            (Fault::Full, self.full),
            (Fault::BadSync, self.bad_sync),
            (Fault::Jump, self.jump),
            (Fault::Proxy, self.proxy),
            (Fault::Leave, self.leave),
            (Fault::Bridge, self.bridge),
            (Fault::Wipe, self.wipe),
            (Fault::Sleep, self.sleep),
            (Fault::Slow, self.slow),
            (Fault::Drift, self.drift),
            (Fault::Damage, self.damage),
            (Fault::Betray, self.betray),
            (Fault::Vanish, self.vanish),
        ]
    }

    /// Whether nodes lose their data folders.
    pub(crate) fn loses_folders(&self) -> bool {
        self.wipe + self.damage > 0
    }
}

/// The options of one seed.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    /// The first of them are members when the cluster forms.
    pub(crate) members: usize,
    /// Longest time between two changes of the members, µs; 0: there are none.
    pub(crate) change_us: u64,
    /// Time after which a silent node counts as down, s; `None`: the default, longer than any run.
    pub(crate) down_after_s: Option<u32>,
    pub(crate) replicas: u16,
    pub(crate) workers: u16,
    pub(crate) fsync: bool,
    pub(crate) proxies: usize,
    pub(crate) proxy_clients: usize,
    pub(crate) direct_clients: usize,
    /// How many of those say READONLY, and read only.
    pub(crate) replica_clients: usize,
    /// The setting `replica-max-staleness-ms`; `None` = its default.
    pub(crate) read_age_ms: Option<u64>,
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
    /// Whether all clients fall silent now and then, so that nodes come to rest: how often, and for how long, µs.
    pub(crate) lulls_us: Option<(u64, u64)>,
    /// One turn in so many is interrupted by a stall between its work and its replies; 0 = none.
    pub(crate) stall_one_in: u64,
    /// Largest error of the wall clocks, ms.
    pub(crate) skew_ms: u64,
    /// How far the speed of each machine's clock may be off, parts per million: two of them differ by less than 10 %.
    pub(crate) drift_ppm: u64,
    /// One broken connection in so many leaves bytes behind that are read beside its successor; 0 = none.
    pub(crate) late_one_in: u64,
    /// Longest time until an end notices that its connection broke, and until it connects again, µs.
    pub(crate) reconnect_us: u64,
    /// Size of a partition's log at which it is compacted.
    pub(crate) compact_bytes: u64,
    pub(crate) segment_bytes: u64,
    /// What is small that is large in a product: see [`Options::shrink`].
    pub(crate) limits: Limits,
    /// The same of a proxy.
    pub(crate) proxy_limits: ProxyLimits,
    /// Whether a majority is healed at the end and the rest stays broken, instead of everything being healed.
    pub(crate) is_liveness: bool,
    /// Logical bytes of each partition, and what gives way beyond.
    pub(crate) memory: Option<(u64, Policy)>,
}

impl Options {
    /// The options that belong to `seed`.
    pub(crate) fn of(seed: u64) -> Self {
        let mut options = Self::draw(seed);
        if CAPACITY_SEEDS <= seed {
            options.set_capacities_to_one();
        }
        options
    }

    fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x006f_7074_696f_6e73);
        // What came later draws from a sequence of its own.
        let mut extra = Rng::new(seed ^ 0x006d_6f72_6500_0000);
        let mut lulls = Rng::new(seed ^ 0x006c_756c_6c73_0000);
        let crashes = (CRASH_SEEDS..LIVENESS_SEEDS).contains(&seed);
        let fsync = rng.one_in(2) && !crashes;
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
            sleep: 0,
            slow: 0,
            drift: 0,
            damage: 0,
            betray: 0,
            vanish: 0,
        };
        let mut weight = |most: u64| if extra.one_in(2) { 0 } else { extra.range(1, most) };
        mix.sleep = weight(1);
        mix.slow = weight(3);
        mix.drift = weight(2);
        mix.betray = weight(4);
        let damage = weight(3);
        if mix.partition + mix.cut + mix.pause + mix.kill + mix.crash == 0 {
            mix.kill = 3;
        }
        let has_memory_limit = (MEMORY_SEEDS..CRASH_SEEDS).contains(&seed);
        let is_liveness = (LIVENESS_SEEDS..MOVING_SEEDS).contains(&seed)
            || (MOVING_LIVENESS_SEEDS..CAPACITY_SEEDS).contains(&seed)
            || (CAPACITY_SEEDS <= seed && seed % 2 == 1);
        let is_moving = (MOVING_SEEDS..CAPACITY_SEEDS).contains(&seed);
        let is_hot = rng.one_in(3) || has_memory_limit;
        let replicas = if rng.one_in(8) && !crashes && !is_liveness { 1 } else { 3 };
        if crashes {
            mix.crash = 8;
        }
        // Not drawn, so that a test can choose them.
        if seed % 4 == 2 && replicas == 3 && !crashes {
            mix.wipe = 1 + seed / 4 % 4;
            mix.damage = damage;
        }
        let mut nodes = if extra.one_in(4) { extra.range(4, 5) as usize } else { 3 };
        let mut members = nodes;
        let mut changes = Rng::new(seed ^ 0x0063_6861_6e67_6500);
        let mut change_us = 0;
        let mut down_after_s = None;
        if is_moving {
            (nodes, members) = (MOVING_NODES, changes.range(3, 5) as usize);
            change_us = changes.spread(SECOND, 20 * SECOND);
            mix.vanish = changes.below(4);
            down_after_s = changes.one_in(2).then_some(10);
        }
        let mut limits = Rng::new(seed ^ 0x6275_6767_6966_7900);
        // One run in four.
        let has_replica_clients = matches!(seed % 8, 4 | 6);
        let replica_clients = if has_replica_clients { 2 } else { 0 };
        let mut bounds = Rng::new(seed ^ 0x0062_6f75_6e64_7300);
        let shrunk = Self::shrink(&mut limits, &mut bounds);
        let mut seeding = Rng::new(seed ^ 0x7365_6564_696e_6700);
        let write_window = if limits.one_in(3) { limits.spread(1, 64) } else { 1024 };
        let proxy_limits = ProxyLimits { write_window, ..Self::shrink_proxy(&mut bounds) };
        Self {
            seed,
            limits: Limits {
                // A preferred leader that stays broken is asked for ever: most of the time must be left to writes.
                return_ticks: shrunk.return_ticks.max(if is_liveness { RETURN_TICKS_MIN } else { 0 }),
                seed_log_bytes: if seeding.one_in(3) {
                    shrunk.seed_log_bytes
                } else {
                    seeding.spread(1, 4_000)
                },
                ..shrunk
            },
            proxy_limits,
            is_liveness,
            nodes,
            members,
            change_us,
            down_after_s,
            is_hot,
            replicas,
            workers: if rng.one_in(4) { 2 } else { 1 },
            fsync,
            proxies: rng.range(1, 2) as usize,
            proxy_clients: rng.range(4, 6) as usize,
            direct_clients: rng.below(4) as usize + replica_clients,
            replica_clients,
            read_age_ms: [None, Some(100), Some(0)][seed as usize / 8 % 3].filter(|_| 0 < replica_clients),
            depth: rng.range(1, if is_hot { 16 } else { 6 }) as usize,
            think_us: rng.range(10_000, if is_hot { 40_000 } else { 120_000 }),
            deadline_us: rng.range(1, 5) * SECOND,
            latency_us: (rng.range(100, 500), rng.spread(1_000, 20_000)),
            sync_us: rng.spread(200, 40_000),
            faults_us: rng.range(30, 60) * SECOND,
            fault_every_us: rng.range(300_000, 3 * SECOND),
            fault_us: rng.range(SECOND / 2, 4 * SECOND),
            mix,
            lulls_us: lulls.one_in(3).then(|| {
                let every = lulls.range(2 * SECOND, 6 * SECOND);
                (every, every * lulls.range(2, 9) / 10)
            }),
            stall_one_in: if rng.one_in(2) { rng.range(300, 5_000) } else { 0 },
            skew_ms: rng.spread(1, 8_000),
            drift_ppm: extra.spread(100, DRIFT_PPM_MAX),
            late_one_in: if extra.one_in(2) { extra.range(1, 4) } else { 0 },
            reconnect_us: extra.spread(2_000, 300_000),
            compact_bytes: rng.spread(2_000, 200_000),
            segment_bytes: rng.spread(8 << 10, 1 << 20),
            memory: has_memory_limit
                .then(|| (rng.range(300, 2_000), Policy::ALL[rng.index(Policy::ALL.len())].1)),
        }
    }

    /// Bounds of a process, each of them tiny in one run of three, so that what is rare happens all the time.
    fn shrink(rng: &mut Rng, later: &mut Rng) -> Limits {
        let usual = Limits::default();
        // Large enough for some writes: one at a time, each after a pause, a full pipeline would take longer than the heal.
        let queue_bytes = if rng.one_in(3) { rng.range(500, 4_000) as usize } else { usual.queue_bytes };
        let mut tiny = |most: u64, usual: u64| if rng.one_in(3) { rng.spread(1, most) } else { usual };
        let mut tiny_later =
            |most: u64, usual: u64| if later.one_in(3) { later.spread(1, most) } else { usual };
        let reply_room_bytes = tiny_later(100, usual.reply_room_bytes as u64) as usize;
        let large_reply_bytes = tiny_later(10, usual.large_reply_bytes as u64) as usize;
        Limits {
            inflight_entries: tiny(2, usual.inflight_entries as u64) as usize,
            entry_bytes: tiny(200, usual.entry_bytes as u64) as usize,
            queue_bytes,
            behind: tiny(4, usual.behind),
            return_ticks: tiny(100, usual.return_ticks),
            inflight_messages: tiny(2, usual.inflight_messages as u64) as usize,
            message_bytes: tiny(200, usual.message_bytes),
            committed_bytes: tiny(200, usual.committed_bytes),
            cache_bytes: tiny(1_000, usual.cache_bytes as u64) as usize,
            snapshot_step_bytes: tiny(100, usual.snapshot_step_bytes as u64) as usize,
            reply_room_bytes,
            large_reply_bytes,
            // A list in parts of a few bytes: each round of question and answer must bring some of it.
            parts_ahead: usual.parts_ahead + 512 / large_reply_bytes,
            seed_log_bytes: usual.seed_log_bytes,
            // Without a draw, which would change what older seeds do.
            restores_at_once: if large_reply_bytes.is_multiple_of(3) { 0 } else { usual.restores_at_once },
        }
    }

    /// The same for a proxy, but for its window.
    fn shrink_proxy(rng: &mut Rng) -> ProxyLimits {
        let usual = ProxyLimits::default();
        let mut tiny = |most: u64, usual: u64| if rng.one_in(3) { rng.spread(1, most) } else { usual };
        ProxyLimits {
            pipeline: tiny(4, usual.pipeline as u64) as usize,
            lane_requests: tiny(4, usual.lane_requests as u64) as usize,
            lane_bytes: tiny(100, usual.lane_bytes as u64) as usize,
            credit_requests: tiny(4, usual.credit_requests as u64) as usize,
            credit_bytes: tiny(200, usual.credit_bytes as u64) as usize,
            ..usual
        }
    }

    /// Every queue of a process holds one thing: a deadlock of links would show.
    fn set_capacities_to_one(&mut self) {
        self.limits = Limits {
            inflight_entries: 1,
            entry_bytes: 1,
            queue_bytes: 1,
            inflight_messages: 1,
            message_bytes: 1,
            committed_bytes: 1,
            cache_bytes: 1,
            seed_log_bytes: 0,
            snapshot_step_bytes: 1,
            restores_at_once: 0,
            reply_room_bytes: 1,
            large_reply_bytes: 64,
            parts_ahead: 1,
            ..Limits::default()
        };
        self.proxy_limits = ProxyLimits {
            pipeline: 1,
            lane_requests: 1,
            lane_bytes: 1,
            write_window: 1,
            credit_requests: 1,
            credit_bytes: 1,
        };
        // All that is asked of a partition goes one after the other.
        self.think_us = 200_000;
        self.is_hot = false;
    }

    /// Time until clients may speak, µs.
    pub(crate) fn lull_left_us(&self, now: u64) -> u64 {
        let (every, length) = self.lulls_us.unwrap_or((1, 0));
        length.saturating_sub(now % every)
    }

    /// Whether an acknowledged write may be gone because its key was evicted.
    pub(crate) fn evicts(&self) -> bool {
        self.memory.is_some_and(|(_, policy)| policy.evicts())
    }

    /// How much older than it was asked for the answer to a READONLY client may be, µs of true time: the follower's clock may
    /// be slow.
    pub(crate) fn read_age_us(&self) -> u64 {
        self.read_age_ms.unwrap_or(1_000) * 1_000 * 1_000_000 / (1_000_000 - DRIFT_PPM_MAX)
    }

    /// Whether nodes ask each other for newer maps: those without a replica of the meta group learn them in no other way.
    pub(crate) fn follows_map(&self) -> bool {
        self.mix.loses_folders()
            || self.changes_members()
            || self.nodes == 4
            || (self.mix.crash > 0 && !self.fsync)
    }

    /// Whether nodes come and go.
    pub(crate) fn changes_members(&self) -> bool {
        self.change_us > 0
    }

    /// The config file with which the cluster forms.
    pub(crate) fn toml(&self) -> String {
        let durability = if self.fsync { "fsync" } else { "buffered" };
        let mut toml = format!(
            "[cluster]\nname = \"sim\"\npartitions = {PARTITIONS}\nreplicas = {}\ndurability = \"{durability}\"\n",
            self.replicas
        );
        if let Some(seconds) = self.down_after_s {
            toml += &format!("down_after = \"{seconds}s\"\n");
        }
        if let Some((quota, policy)) = self.memory {
            let bytes = quota * u64::from(PARTITIONS);
            toml += &format!("maxmemory = {bytes}\nmaxmemory_policy = \"{}\"\n", policy.name());
        }
        for n in 1..=self.members {
            toml += &format!(
                "[[node]]\nid = \"n{n}\"\nclient = \"127.0.0.1:{}\"\npeer = \"127.0.0.1:{}\"\n",
                7000 + n,
                7100 + n
            );
        }
        toml
    }
}

impl std::fmt::Display for Options {
    /// One block that a reader can take in.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |us: u64| us as f64 / 1e3;
        let durability = if self.fsync { "fsync" } else { "buffered" };
        let keys = if self.is_hot { "all keys in one partition" } else { "keys in many partitions" };
        writeln!(f, "options of SEED={}", self.seed)?;
        writeln!(
            f,
            "  cluster   {} members of {} nodes with {} workers, {} replicas, {durability}, {} proxies (deadline {} ms)",
            self.members,
            self.nodes,
            self.workers,
            self.replicas,
            self.proxies,
            ms(self.deadline_us)
        )?;
        writeln!(
            f,
            "  clients   {} through proxies (depth {}), {} at nodes, {} of them READONLY, each asks about every {} ms; {keys}",
            self.proxy_clients,
            self.depth,
            self.direct_clients,
            self.replica_clients,
            ms(self.think_us)
        )?;
        writeln!(
            f,
            "  network   latency {} to {} ms; reconnects within {} ms; bytes left behind by 1 break in {}",
            ms(self.latency_us.0),
            ms(self.latency_us.1),
            ms(self.reconnect_us),
            self.late_one_in
        )?;
        writeln!(
            f,
            "  machines  syncs up to {} ms; wall clocks wrong by up to {} ms, speed by up to {} ppm; stall in 1 turn of {}",
            ms(self.sync_us),
            self.skew_ms,
            self.drift_ppm,
            self.stall_one_in
        )?;
        writeln!(
            f,
            "  limits    segments of {} bytes, compaction at {} bytes; memory {:?}",
            self.segment_bytes, self.compact_bytes, self.memory
        )?;
        writeln!(f, "            {:?}", self.limits)?;
        writeln!(f, "            proxies: {:?}", self.proxy_limits)?;
        if self.changes_members() {
            let down_after = self.down_after_s.map_or_else(|| "never".to_owned(), |s| format!("after {s} s"));
            writeln!(
                f,
                "  members   change within {} ms, again and again; silent ones are down {down_after}",
                ms(self.change_us)
            )?;
        }
        if self.is_liveness {
            writeln!(f, "  liveness  a majority is healed at the end, the rest stays broken")?;
        }
        write!(
            f,
            "  faults    for {} s, one about every {} ms, up to {} ms long:",
            self.faults_us / SECOND,
            ms(self.fault_every_us),
            ms(self.fault_us)
        )?;
        if let Some((every, length)) = self.lulls_us {
            write!(f, " clients silent for {} of {} ms;", ms(length), ms(every))?;
        }
        for (fault, weight) in self.mix.weights() {
            if weight > 0 {
                write!(f, " {fault:?} {weight}")?;
            }
        }
        writeln!(f)
    }
}
