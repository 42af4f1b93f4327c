//! The simulated world: everything happens on one thread, in the order of a queue of events, which is drawn from the seed.

use crate::client::Pending;
use crate::client::{Client, Via, Workload, encode, judge, moved_to};
use crate::history::{Ask, COUNTERS, History, Key, LISTS, Outcome, REGISTERS};
use crate::invariants::Invariants;
use crate::net::{Conn, Host, Packet, Use};
use crate::node::{Clocks, Death, Node, TurnClock};
use crate::options::{NODES, Options, PARTITIONS, SECOND};
use crate::rng::Rng;
use crate::settings::{self, Settings};
use crate::trace::Trace;
use ringfort::config::Config;
use ringfort::log::MemDisk;
use ringfort::meta::form::first_map;
use ringfort::shard::raft::Message;
use ringfort::shard::{Group, Machine};
use ringfort::worker::{JobDone, SnapshotSend};
use ringfort_proxy::clients::{Address, Clients};
use ringfort_proxy::{LinkId, Proxy};
use ringfort_ring::{PartitionId, slot_of};
use ringfort_wire::frame::{self, Kind};
use ringfort_wire::{ClusterMap, GroupId, MetaAnswer, MetaWrite, Reply};
use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// After the last fault everything must serve again within this time.
const HEAL_US: u64 = 10 * SECOND;
/// Time that replicas are then given to become equal.
const SETTLE_US: u64 = 3 * SECOND;
/// A direct client gives an operation up after this time.
const CLIENT_TIMEOUT_US: u64 = 2 * SECOND;
/// Turns between two looks at Log Matching.
const MATCHING_EVERY: u64 = 64;
/// Looks at the replicas, 100 ms apart, after which they must be equal.
const LOOKS_MAX: u32 = 10;
/// No run needs so many events.
const EVENTS_MAX: u64 = 1_000_000;
/// After the heal every lost replica must be replaced within this time.
const REPLACE_US: u64 = 30 * SECOND;
/// Longest wait between two questions of a node for a newer map.
const MAP_EVERY_US: u64 = SECOND;
/// Wait between two attempts of a node with an empty folder to be taken in.
const REJOIN_US: u64 = 200_000;
/// Longest wait of a proxy for its next turn.
const PROXY_TURN_US: u64 = 20_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Tick {
        node: usize,
        worker: usize,
        life: u64,
    },
    Turn {
        node: usize,
        worker: usize,
        life: u64,
    },
    Flush {
        node: usize,
        worker: usize,
        life: u64,
    },
    Mail {
        node: usize,
        worker: usize,
        life: u64,
    },
    JobRun {
        node: usize,
        worker: usize,
        life: u64,
    },
    JobDone {
        node: usize,
        worker: usize,
        life: u64,
    },
    /// Packets of a connection reach one end.
    Deliver {
        conn: usize,
        end: usize,
        life: u64,
    },
    /// One end of a connection learns that it broke.
    Lost {
        conn: usize,
        end: usize,
        life: u64,
    },
    Connect {
        conn: usize,
        life: u64,
    },
    Snapshot {
        number: u64,
    },
    SnapshotReport {
        number: u64,
        is_delivered: bool,
    },
    ProxyTurn {
        proxy: usize,
        life: u64,
    },
    /// A client asks something.
    Ask {
        client: usize,
    },
    /// A client looks whether an operation takes too long.
    Timeout {
        client: usize,
        asked: u64,
    },
    /// A client asks the meta group for a change of the settings.
    Setting,
    Fault,
    Block {
        from: Host,
        to: Host,
    },
    Restart {
        node: usize,
    },
    Unblock {
        from: Host,
        to: Host,
    },
    Start {
        node: usize,
    },
    Die {
        node: usize,
        life: u64,
        is_crash: bool,
    },
    Room {
        node: usize,
    },
    /// A node asks another one for a newer map, and keeps what it has.
    FollowMap {
        node: usize,
    },
    Heal,
    Verdict,
    Settled,
}

/// A proxy's process.
struct ProxyHost {
    core: Proxy,
    life: u64,
    paused_until: u64,
    /// Its next turn; an earlier wish replaces a later one.
    next_turn: u64,
    /// Its link of each connection.
    links: BTreeMap<LinkId, usize>,
}

/// A snapshot on its way.
struct Transfer {
    from: usize,
    from_worker: usize,
    from_life: u64,
    to: usize,
    to_life: u64,
    group: GroupId,
    incarnation: u32,
    replica: u64,
    message: Vec<u8>,
    bytes: Vec<u8>,
}

/// What a run did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) hash: u64,
    pub(crate) events: u64,
    pub(crate) virtual_us: u64,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) unknown: u64,
    pub(crate) elections: u64,
    pub(crate) faults: u64,
    pub(crate) snapshots: u64,
    pub(crate) restarts: u64,
    pub(crate) wipes: u64,
    /// Keys evicted by the last processes.
    pub(crate) evicted: u64,
    /// Writes refused for want of memory.
    pub(crate) refused: u64,
}

pub(crate) struct World {
    options: Options,
    rng: Rng,
    now: u64,
    next_number: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    map: ClusterMap,
    nodes: Vec<Node>,
    proxies: Vec<ProxyHost>,
    conns: Vec<Conn>,
    /// `blocked[from][to]`: how many faults block that direction.
    blocked: Vec<Vec<u32>>,
    clients: Vec<Client>,
    workload: Workload,
    history: History,
    settings: Settings,
    invariants: Invariants,
    transfers: BTreeMap<u64, Transfer>,
    next_transfer: u64,
    next_connection: u32,
    turns: u64,
    is_healed: bool,
    healed_at: u64,
    /// What must still be answered after the heal: one list for each of the last clients.
    probes: BTreeMap<usize, Vec<Ask>>,
    is_settling: bool,
    /// How often the replicas were seen unequal at the end.
    looks: u32,
    report: Report,
    pub(crate) trace: Trace,
}

impl World {
    pub(crate) fn new(options: Options, is_traced: bool) -> Self {
        let mut rng = Rng::new(options.seed);
        let config = Config::parse(&options.toml(), "sim").expect("the simulator's config is right");
        let stores: Vec<_> = config.nodes.iter().zip(1u128..).map(|(n, i)| (n.id.clone(), i)).collect();
        let map = first_map(&config, 7, &stores).expect("the simulator's config allows a placement");
        let nodes = (0..NODES)
            .map(|n| {
                let clocks = Clocks {
                    rate_ppm: rng.below(40_001) as i64 - 20_000,
                    wall_error_ms: rng.below(2 * options.skew_ms + 1) as i64 - options.skew_ms as i64,
                    boot_at: 0,
                };
                Node::new(n, &options, clocks, &map)
            })
            .collect();
        let hosts = NODES + options.proxies + options.direct_clients + 1;
        let mut world = Self {
            rng,
            now: 0,
            next_number: 0,
            queue: BinaryHeap::new(),
            map,
            nodes,
            proxies: Vec::new(),
            conns: Vec::new(),
            blocked: vec![vec![0; hosts]; hosts],
            clients: Vec::new(),
            workload: Workload::default(),
            history: History::default(),
            settings: Settings::default(),
            invariants: Invariants::default(),
            transfers: BTreeMap::new(),
            next_transfer: 0,
            next_connection: 0,
            turns: 0,
            is_healed: false,
            healed_at: 0,
            probes: BTreeMap::new(),
            is_settling: false,
            looks: 0,
            report: Report::default(),
            trace: Trace::new(is_traced),
            options,
        };
        world.build();
        world
    }

    fn build(&mut self) {
        for n in 0..NODES {
            let after = self.rng.below(50_000);
            self.after(after, Event::Start { node: n });
            if self.options.mix.wipe > 0 {
                self.after(MAP_EVERY_US, Event::FollowMap { node: n });
            }
            for m in 0..n {
                self.add_conn([m, n], Use::Peers);
            }
        }
        for p in 0..self.options.proxies {
            let seed = self.rng.next();
            self.proxies.push(ProxyHost {
                core: Proxy::new(seed, self.options.deadline_us, Clients::new(1).worker(0)),
                life: 0,
                paused_until: 0,
                next_turn: u64::MAX,
                links: BTreeMap::new(),
            });
            for node in 0..NODES {
                for worker in 0..self.options.workers {
                    let conn = self.add_conn([NODES + p, node], Use::Requests { worker });
                    self.proxies[p].links.insert(LinkId { node, worker }, conn);
                }
            }
            self.prepare_proxy(p);
        }
        for c in 0..self.options.proxy_clients {
            self.clients.push(Client::new(Via::Proxy(c % self.options.proxies)));
        }
        // The last one only works after the heal.
        for d in 0..=self.options.direct_clients {
            let mut client = Client::new(Via::Nodes);
            for node in 0..NODES {
                let worker = self.rng.below(u64::from(self.options.workers)) as u16;
                let host = NODES + self.options.proxies + d;
                client.conns.push(self.add_conn([host, node], Use::Client { worker }));
            }
            client.guess = (0..PARTITIONS).map(|_| self.rng.index(NODES)).collect();
            self.clients.push(client);
        }
        for client in 0..self.clients.len() - 1 {
            let after = self.rng.below(500_000);
            self.after(after, Event::Ask { client });
        }
        let after = self.rng.below(self.options.fault_every_us);
        self.after(after, Event::Fault);
        self.after(self.options.faults_us, Event::Heal);
        if settings::is_in(self.options.seed) {
            self.after(settings::EVERY_US, Event::Setting);
        }
    }

    fn add_conn(&mut self, ends: [Host; 2], what: Use) -> usize {
        let conn = self.conns.len();
        self.conns.push(Conn::new(ends, what));
        let after = self.rng.below(100_000);
        self.after(after, Event::Connect { conn, life: 0 });
        conn
    }

    fn after(&mut self, us: u64, event: Event) {
        self.queue.push(Reverse((self.now + us, self.next_number, event)));
        self.next_number += 1;
    }

    fn line(&mut self, text: impl FnOnce() -> String) {
        self.trace.line(self.now, text);
    }

    /// Runs to the end; an error says which law was broken.
    pub(crate) fn run(&mut self) -> Result<Report, String> {
        while let Some(Reverse((at, _, event))) = self.queue.pop() {
            assert!(self.now <= at, "virtual time went back");
            self.now = at;
            if EVENTS_MAX < self.trace.events() {
                return Err(format!("more than {EVENTS_MAX} events: something goes round in circles"));
            }
            if let Some(until) = self.paused(event) {
                self.after(until - at, event);
                continue;
            }
            if matches!(event, Event::Settled) {
                break;
            }
            self.handle(event)?;
        }
        self.history.check()?;
        self.report.hash = self.trace.hash();
        self.report.events = self.trace.events();
        self.report.virtual_us = self.now;
        self.report.done = self.history.done;
        self.report.failed = self.history.failed;
        self.report.unknown = self.history.unknown;
        self.report.elections = self.invariants.elections;
        let groups = self.nodes.iter().flat_map(|n| n.workers.iter().filter_map(|w| w.core.as_ref()));
        self.report.evicted =
            groups.flat_map(|core| core.groups()).map(|group| group.status().evicted_keys).sum();
        Ok(self.report.clone())
    }

    /// Until when the process that an event belongs to is paused.
    fn paused(&self, event: Event) -> Option<u64> {
        let host = match event {
            Event::Tick { node, .. }
            | Event::Turn { node, .. }
            | Event::Flush { node, .. }
            | Event::Mail { node, .. }
            | Event::JobRun { node, .. }
            | Event::JobDone { node, .. } => node,
            Event::Deliver { conn, end, .. } | Event::Lost { conn, end, .. } => self.conns[conn].ends[end],
            Event::ProxyTurn { proxy, .. } => NODES + proxy,
            Event::Snapshot { number } => self.transfers.get(&number)?.to,
            Event::SnapshotReport { number, .. } => self.transfers.get(&number)?.from,
            _ => return None,
        };
        Some(self.paused_until(host)).filter(|&until| self.now < until)
    }

    fn paused_until(&self, host: Host) -> u64 {
        match host.checked_sub(NODES) {
            None => self.nodes[host].paused_until,
            Some(p) => self.proxies.get(p).map_or(0, |p| p.paused_until),
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        let is_current = |node: usize, life: u64| self.nodes[node].is_up && self.nodes[node].life == life;
        match event {
            Event::Tick { node, worker, life } if is_current(node, life) => self.tick(node, worker),
            Event::Turn { node, worker, life } if is_current(node, life) => self.turn(node, worker),
            Event::Flush { node, worker, life } if is_current(node, life) => self.flush(node, worker),
            Event::Mail { node, worker, life } if is_current(node, life) => {
                self.mail(node, worker);
                Ok(())
            }
            Event::JobRun { node, worker, life } if is_current(node, life) => {
                self.run_job(node, worker);
                Ok(())
            }
            Event::JobDone { node, worker, life } if is_current(node, life) => self.finish_job(node, worker),
            Event::Deliver { conn, end, life } if self.conns[conn].life == life => self.deliver(conn, end),
            Event::Lost { conn, end, life } => self.lose(conn, end, life),
            Event::Connect { conn, life } if self.conns[conn].life == life => self.connect(conn),
            Event::Snapshot { number } => self.receive_snapshot(number),
            Event::SnapshotReport { number, is_delivered } => {
                self.report_snapshot(number, is_delivered);
                Ok(())
            }
            Event::ProxyTurn { proxy, life } if self.proxies[proxy].life == life => self.proxy_turn(proxy),
            Event::Ask { client } => self.ask(client),
            Event::Timeout { client, asked } => self.time_out(client, asked),
            Event::Setting => {
                self.change_settings();
                Ok(())
            }
            Event::Fault => self.fault(),
            Event::Block { from, to } => {
                self.line(|| format!("{from} -> {to} is blocked"));
                self.blocked[from][to] += 1;
                Ok(())
            }
            Event::Unblock { from, to } => {
                self.unblock(from, to);
                Ok(())
            }
            Event::Restart { node } => self.restart(node),
            Event::Start { node } => self.start(node),
            Event::Die { node, life, is_crash } if is_current(node, life) => {
                self.die(node, if is_crash { Death::Crash } else { Death::Kill });
                Ok(())
            }
            Event::Room { node } => {
                self.give_room(node);
                Ok(())
            }
            Event::FollowMap { node } => {
                self.follow_map(node);
                Ok(())
            }
            Event::Heal => self.heal(),
            Event::Verdict => self.judge_liveness(),
            _ => Ok(()),
        }
    }

    // --- Nodes -----------------------------------------------------------------------------------------------------

    fn start(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].is_up {
            return Ok(());
        }
        let Some(map) = self.nodes[node].kept.clone() else {
            self.rejoin(node);
            return Ok(());
        };
        let seed = self.rng.next();
        let state = &mut self.nodes[node];
        let is_first = !state.has_lived;
        let started = state.start(&self.options, &map, seed);
        self.trace.note(self.now, 1, node as u64, u64::from(started.is_ok()));
        if let Err(error) = started {
            if !self.nodes[node].is_full {
                return Err(format!("n{} does not start: {error:#}", node + 1));
            }
            self.line(|| format!("n{} does not start on a full disk: {error:#}", node + 1));
            self.nodes[node].stop(Death::Kill, self.now, 0);
            self.after(200_000, Event::Start { node });
            return Ok(());
        }
        self.report.restarts += u64::from(!is_first);
        self.line(|| format!("n{} starts", node + 1));
        let life = self.nodes[node].life;
        for worker in 0..self.nodes[node].workers.len() {
            let phase = self.rng.below(10_000);
            self.after(phase, Event::Tick { node, worker, life });
            self.want_turn(node, worker);
        }
        Ok(())
    }

    /// Whether two nodes' processes can ask each other something now.
    fn are_in_touch(&self, a: usize, b: usize) -> bool {
        let is_well = |n: usize| self.nodes[n].paused_until <= self.now;
        is_well(a) && is_well(b) && !self.is_blocked(a, b) && !self.is_blocked(b, a)
    }

    fn follow_map(&mut self, node: usize) {
        let after = self.rng.range(MAP_EVERY_US / 4, MAP_EVERY_US);
        self.after(after, Event::FollowMap { node });
        let other = self.rng.index(NODES);
        let Some(own) = self.nodes[node].map() else { return };
        self.nodes[node].kept = Some((*own).clone());
        if other != node
            && self.are_in_touch(node, other)
            && let Some(map) = self.nodes[other].map()
            && let Some(core) = &self.nodes[node].workers[0].core
            && core.shared().set_map(&map)
        {
            self.line(|| format!("n{} has the map of epoch {}", node + 1, map.epoch));
            for worker in 0..self.nodes[node].workers.len() {
                self.want_turn(node, worker);
            }
        }
    }

    /// A node without a map asks to be taken in, again and again, until a map names its folder.
    fn rejoin(&mut self, node: usize) {
        let others: Vec<usize> = (0..NODES).filter(|&n| n != node && self.are_in_touch(node, n)).collect();
        let maps = others.iter().filter_map(|&n| self.nodes[n].map());
        let Some(map) = maps.max_by_key(|m| m.epoch) else {
            self.after(REJOIN_US, Event::Start { node });
            return;
        };
        let (id, store) = (self.nodes[node].id.clone(), self.nodes[node].store_id);
        let known = map.node(&id).map_or(0, |n| n.store_id);
        if known == store {
            self.line(|| format!("n{} takes the map of epoch {}", node + 1, map.epoch));
            self.nodes[node].kept = Some((*map).clone());
            self.after(1_000, Event::Start { node });
            return;
        }
        let write = MetaWrite::Replace {
            node: id,
            old_store: format!("{known:032x}"),
            new_store: format!("{store:032x}"),
        };
        for other in others {
            if let Some(core) = &mut self.nodes[other].workers[0].core {
                core.meta_told(&write.to_json());
                self.want_turn(other, 0);
            }
        }
        self.after(REJOIN_US, Event::Start { node });
    }

    /// The newest map that any node has, running or not.
    fn newest_map(&self) -> ClusterMap {
        let running = self.nodes.iter().filter_map(|n| n.map().map(|m| (*m).clone()));
        let kept = self.nodes.iter().filter_map(|n| n.kept.clone());
        running.chain(kept).max_by_key(|m| m.epoch).unwrap_or_else(|| self.map.clone())
    }

    /// Whether every replica that was lost has been replaced.
    fn is_whole(&self) -> bool {
        let map = self.newest_map();
        let is_named = |n: &Node| map.node(&n.id).is_some_and(|m| m.store_id == n.store_id);
        map.all_groups().all(|(_, group)| group.leaving.is_empty()) && self.nodes.iter().all(is_named)
    }

    /// A node loses its data folder, when nothing else is lost already.
    fn wipe(&mut self, node: usize) {
        if !self.is_whole() || self.nodes[node].is_full {
            return;
        }
        if self.nodes[node].is_up {
            self.die(node, Death::Kill);
        }
        self.line(|| format!("n{} has lost its data folder", node + 1));
        self.report.wipes += 1;
        self.nodes[node].wipe();
    }

    /// The process ends; everybody who was connected to it notices in time.
    fn die(&mut self, node: usize, death: Death) {
        let seed = self.rng.next();
        self.line(|| format!("n{} dies: {death:?}", node + 1));
        self.trace.note(self.now, 2, node as u64, death as u64);
        let now = self.now;
        let received: Vec<u64> =
            self.nodes[node].workers.iter().flat_map(|w| w.received.values().copied()).collect();
        for number in received {
            self.answer_snapshot(number, false);
        }
        self.nodes[node].stop(death, now, seed);
        self.invariants.forget(node);
        for conn in 0..self.conns.len() {
            if let Some(end) = self.conns[conn].ends.iter().position(|&host| host == node) {
                self.break_conn(conn);
                self.forget_end(conn, end);
            }
        }
        let after = if self.is_healed { 100_000 } else { self.rng.spread(50_000, self.options.fault_us) };
        self.after(after, Event::Start { node });
    }

    /// A core said that it cannot go on.
    fn end_process(&mut self, node: usize, error: &anyhow::Error) -> Result<(), String> {
        match self.nodes[node].doom {
            Some(death) => {
                self.line(|| format!("n{} stops: {error:#}", node + 1));
                self.die(node, death);
                Ok(())
            }
            None => Err(format!("n{} stops without a fault of its disk: {error:#}", node + 1)),
        }
    }

    fn want_turn(&mut self, node: usize, worker: usize) {
        let state = &mut self.nodes[node];
        let life = state.life;
        if !std::mem::replace(&mut state.workers[worker].has_turn, true) {
            let after = self.rng.below(200);
            self.after(after, Event::Turn { node, worker, life });
        }
    }

    fn want_flush(&mut self, node: usize, worker: usize) {
        let state = &mut self.nodes[node];
        let life = state.life;
        if !std::mem::replace(&mut state.workers[worker].has_flush, true) {
            self.after(10, Event::Flush { node, worker, life });
        }
    }

    fn tick(&mut self, node: usize, worker: usize) -> Result<(), String> {
        let state = &mut self.nodes[node];
        let now = state.clocks.now(self.now);
        let Some(core) = &mut state.workers[worker].core else { return Ok(()) };
        let result = core.tick(now);
        let wants_turn = core.wants_turn();
        let (life, tick_us) = (state.life, state.clocks.tick_us());
        self.trace.note(self.now, 3, node as u64, u64::from(wants_turn));
        if let Err(error) = result {
            return self.end_process(node, &error);
        }
        let late = self.rng.below(300);
        self.after(tick_us + late, Event::Tick { node, worker, life });
        if wants_turn {
            self.want_turn(node, worker);
        }
        self.want_flush(node, worker);
        Ok(())
    }

    fn turn(&mut self, node: usize, worker: usize) -> Result<(), String> {
        let stall_us = if !self.is_healed && self.rng.one_in(self.options.stall_one_in) {
            self.rng.spread(1_000, SECOND)
        } else {
            self.rng.below(100)
        };
        let state = &mut self.nodes[node];
        state.workers[worker].has_turn = false;
        let clock =
            TurnClock { clocks: state.clocks, at: Cell::new(self.now), stall_us, readings: Cell::new(0) };
        let Some(core) = &mut state.workers[worker].core else { return Ok(()) };
        let result = core.turn(&clock);
        let wants_turn = core.wants_turn();
        if stall_us >= 1_000 {
            state.paused_until = state.paused_until.max(clock.at.get());
        }
        self.trace.note(self.now, 4, node as u64, u64::from(wants_turn));
        self.turns += 1;
        if let Err(error) = result {
            return self.end_process(node, &error);
        }
        self.check(node, worker)?;
        if wants_turn {
            self.want_turn(node, worker);
        }
        self.want_flush(node, worker);
        Ok(())
    }

    fn check(&mut self, node: usize, worker: usize) -> Result<(), String> {
        let Some(core) = &self.nodes[node].workers[worker].core else { return Ok(()) };
        for group in core.groups() {
            self.invariants.check(node, group)?;
            if let Some((quota, policy)) = self.options.memory {
                Invariants::check_memory(node, group, quota, policy)?;
            }
        }
        if self.turns.is_multiple_of(MATCHING_EVERY) {
            let id = GroupId(self.rng.below(u64::from(PARTITIONS) + 1) as u16);
            let replicas: Vec<_> = self
                .nodes
                .iter()
                .flat_map(|n| n.workers.iter().filter_map(|w| w.core.as_ref()?.group(id)))
                .collect();
            for pair in replicas.windows(2) {
                Invariants::check_log_matching(pair[0], pair[1], &mut self.rng)?;
            }
        }
        Ok(())
    }

    /// Sends what a worker has to send.
    fn flush(&mut self, node: usize, worker: usize) -> Result<(), String> {
        let state = &mut self.nodes[node];
        let (now, life) = (state.clocks.now(self.now), state.life);
        state.workers[worker].has_flush = false;
        let Some(core) = &mut state.workers[worker].core else { return Ok(()) };
        let raft = core.take_raft_output();
        let snapshots = core.take_snapshot_sends();
        let jobs = core.take_jobs();
        let mail = core.take_worker_output();
        for (number, answer) in core.take_meta_answers() {
            self.trace.note(self.now, 6, number, u64::from(matches!(answer, MetaAnswer::Done(_))));
            self.settings.answer(self.now, number, &answer)?;
        }
        let mut out = Vec::new();
        for link in core.take_touched_links() {
            out.push((false, link, core.take_link_output(link)));
        }
        for client in core.take_touched_clients(now) {
            let Some((bytes, _)) = core.client_output(client) else { continue };
            let bytes = bytes.to_vec();
            core.client_sent(client, bytes.len(), now);
            out.push((true, client, bytes));
        }
        let wants_turn = core.wants_turn();
        let w = &mut state.workers[worker];
        w.jobs.extend(jobs);
        let starts_job = !w.jobs.is_empty() && !std::mem::replace(&mut w.is_job_running, !w.jobs.is_empty());
        if starts_job {
            self.plan_job(node, worker);
        }
        for (to, message) in mail {
            self.nodes[node].workers[usize::from(to)].mail.push_back(message);
            let after = self.rng.below(100);
            self.after(after, Event::Mail { node, worker: usize::from(to), life });
        }
        for ((to, to_worker), bytes) in raft {
            let to = self.node_number(&to.0);
            let conn =
                self.find_conn(|c| c.what == Use::Peers && c.ends.contains(&node) && c.ends.contains(&to));
            self.send(conn, node, to_worker, bytes);
        }
        for (is_client, number, bytes) in out {
            let conn = self.conns.iter().position(|c| {
                c.ends[1] == node
                    && c.knows[1]
                    && c.number == number
                    && match c.what {
                        Use::Peers => false,
                        Use::Requests { worker: w } => !is_client && usize::from(w) == worker,
                        Use::Client { worker: w } => is_client && usize::from(w) == worker,
                    }
            });
            if let Some(conn) = conn
                && !bytes.is_empty()
            {
                self.send(conn, node, 0, bytes);
            }
        }
        for snapshot in snapshots {
            self.send_snapshot(node, worker, snapshot);
        }
        if wants_turn {
            self.want_turn(node, worker);
        }
        Ok(())
    }

    /// Asks one node for a change, after the last fault every one; only the leader of the meta group makes it.
    fn change_settings(&mut self) {
        if self.settings.is_alive() {
            return;
        }
        let first = self.rng.index(NODES);
        let asked = if self.is_healed { NODES } else { 1 };
        for node in (first..first + asked).map(|n| n % NODES) {
            let Some(core) = &mut self.nodes[node].workers[0].core else { continue };
            let (number, body) = self.settings.ask(self.now);
            core.meta_write(number, &body);
            self.want_turn(node, 0);
            self.want_flush(node, 0);
        }
        let after = self.rng.below(settings::EVERY_US);
        self.after(after, Event::Setting);
    }

    fn mail(&mut self, node: usize, worker: usize) {
        let state = &mut self.nodes[node];
        let now = state.clocks.now(self.now);
        let w = &mut state.workers[worker];
        if let (Some(core), Some(message)) = (&mut w.core, w.mail.pop_front()) {
            core.worker_message(message, now);
            self.want_turn(node, worker);
            self.want_flush(node, worker);
        }
    }

    fn plan_job(&mut self, node: usize, worker: usize) {
        let life = self.nodes[node].life;
        let after = self.rng.spread(50, self.options.sync_us);
        self.after(after, Event::JobRun { node, worker, life });
    }

    /// The log thread does its next job; the worker hears of it later.
    fn run_job(&mut self, node: usize, worker: usize) {
        let w = &mut self.nodes[node].workers[worker];
        let Some(job) = w.jobs.pop_front() else { return };
        w.done = Some(job.run());
        let life = self.nodes[node].life;
        self.trace.note(self.now, 5, node as u64, worker as u64);
        let after = self.rng.below(300);
        self.after(after, Event::JobDone { node, worker, life });
    }

    fn finish_job(&mut self, node: usize, worker: usize) -> Result<(), String> {
        let w = &mut self.nodes[node].workers[worker];
        let (Some(core), Some(done)) = (&mut w.core, w.done.take()) else { return Ok(()) };
        let text = self.trace.lines.is_some().then(|| format!("{done:?}"));
        let answer = match &done {
            JobDone::Received(group, header, _, result) => {
                w.received.remove(&(*group, header.index)).map(|number| (number, result.is_ok()))
            }
            _ => None,
        };
        let result = core.job_done(done);
        w.is_job_running = !w.jobs.is_empty();
        let has_more = w.is_job_running;
        if let Some((number, is_durable)) = answer {
            self.answer_snapshot(number, is_durable);
        }
        self.line(|| {
            let text: String = text.unwrap_or_default().chars().take(160).collect();
            format!("n{} job done: {text}", node + 1)
        });
        if let Err(error) = result {
            return self.end_process(node, &error);
        }
        if has_more {
            self.plan_job(node, worker);
        }
        self.want_turn(node, worker);
        self.want_flush(node, worker);
        Ok(())
    }

    // --- Snapshots -------------------------------------------------------------------------------------------------

    fn send_snapshot(&mut self, node: usize, worker: usize, send: SnapshotSend<MemDisk>) {
        let to = self.node_number(&send.to.0);
        let mut message = Vec::new();
        send.message.encode(&mut message);
        let bytes = send.reader.read_raw(0, usize::try_from(send.reader.len()).unwrap_or(usize::MAX));
        let transfer = Transfer {
            from: node,
            from_worker: worker,
            from_life: self.nodes[node].life,
            to,
            to_life: self.nodes[to].life,
            group: send.group,
            incarnation: send.incarnation,
            replica: Message::to(&send.message),
            message,
            bytes: bytes.map(|b| b.to_vec()).unwrap_or_default(),
        };
        let number = self.next_transfer;
        self.next_transfer += 1;
        self.report.snapshots += 1;
        self.line(|| {
            format!(
                "n{} sends a snapshot of {} to n{}: {} bytes",
                node + 1,
                transfer.group,
                to + 1,
                transfer.bytes.len()
            )
        });
        let is_lost =
            !self.nodes[to].is_up || self.is_blocked(node, to) || (!self.is_healed && self.rng.one_in(8));
        self.transfers.insert(number, transfer);
        let after = 4 * self.latency();
        if is_lost {
            self.after(after, Event::SnapshotReport { number, is_delivered: false });
        } else {
            self.after(after, Event::Snapshot { number });
        }
    }

    fn receive_snapshot(&mut self, number: u64) -> Result<(), String> {
        let Some(t) = self.transfers.get(&number) else { return Ok(()) };
        let node = t.to;
        let worker = usize::from(ringfort::worker::worker_of(t.group, self.options.workers));
        let is_here = self.nodes[node].is_up && self.nodes[node].life == t.to_life;
        let mut is_taken = false;
        if is_here && let Some(core) = &mut self.nodes[node].workers[worker].core {
            let received = core.receive_snapshot(t.group.0, t.incarnation, &t.message).and_then(|receive| {
                let Some(mut receive) = receive else { return Ok(None) };
                for chunk in t.bytes.chunks(1000) {
                    receive.write(chunk)?;
                }
                core.snapshot_received(receive).map(Some)
            });
            let group = t.group;
            match received {
                Ok(Some(id)) => {
                    // The leader hears of it when it is durable.
                    self.nodes[node].workers[worker].received.insert(id, number);
                    is_taken = true;
                }
                Ok(None) => {}
                Err(error) => {
                    let state = &self.nodes[node];
                    if state.doom.is_none() && !state.is_full {
                        return Err(format!("n{} refuses a whole snapshot of {group}: {error:#}", node + 1));
                    }
                }
            }
            self.want_turn(node, worker);
            self.want_flush(node, worker);
        }
        self.trace.note(self.now, 6, number, u64::from(is_taken));
        if !is_taken {
            self.answer_snapshot(number, false);
        }
        Ok(())
    }

    /// The receiver of a snapshot tells the sender what became of it; that may be lost.
    fn answer_snapshot(&mut self, number: u64, is_durable: bool) {
        let after = self.latency();
        let is_delivered = is_durable && (self.is_healed || !self.rng.one_in(10));
        self.after(after, Event::SnapshotReport { number, is_delivered });
    }

    fn report_snapshot(&mut self, number: u64, is_delivered: bool) {
        let Some(t) = self.transfers.remove(&number) else { return };
        let state = &mut self.nodes[t.from];
        if state.is_up
            && state.life == t.from_life
            && let Some(core) = &mut state.workers[t.from_worker].core
        {
            core.snapshot_sent(t.group, t.replica, is_delivered);
            self.want_turn(t.from, t.from_worker);
        }
    }

    // --- The network -----------------------------------------------------------------------------------------------

    fn node_number(&self, id: &str) -> usize {
        self.nodes.iter().position(|n| n.id.0 == id).expect("the map names only these nodes")
    }

    fn find_conn(&self, is_it: impl Fn(&Conn) -> bool) -> usize {
        self.conns.iter().position(is_it).expect("every pair of nodes has a connection")
    }

    fn is_blocked(&self, from: Host, to: Host) -> bool {
        self.blocked[from][to] > 0
    }

    fn latency(&mut self) -> u64 {
        let (low, high) = self.options.latency_us;
        self.rng.spread(low, high)
    }

    fn send(&mut self, conn: usize, from: Host, worker: u16, bytes: Vec<u8>) {
        let end = usize::from(self.conns[conn].ends[0] == from);
        self.trace.note_bytes(self.now, 7, conn as u64 * 2 + end as u64, &bytes);
        // An end that does not know yet that the connection broke writes into the void.
        if !self.conns[conn].is_up {
            return;
        }
        let at = self.now + self.latency();
        let stream = &mut self.conns[conn].streams[end];
        let at = stream.packets.back().map_or(at, |p| p.at.max(at));
        stream.packets.push_back(Packet { at, worker, bytes });
        let is_new = !std::mem::replace(&mut stream.is_scheduled, true);
        if is_new {
            let life = self.conns[conn].life;
            self.after(at - self.now, Event::Deliver { conn, end, life });
        }
    }

    fn deliver(&mut self, conn: usize, end: usize) -> Result<(), String> {
        let to = self.conns[conn].ends[end];
        let from = self.conns[conn].ends[1 - end];
        self.conns[conn].streams[end].is_scheduled = false;
        if self.is_blocked(from, to) {
            return Ok(()); // unblocking looks again
        }
        while let Some(packet) = self.conns[conn].streams[end].packets.front() {
            if self.now < packet.at {
                let (after, life) = (packet.at - self.now, self.conns[conn].life);
                self.conns[conn].streams[end].is_scheduled = true;
                self.after(after, Event::Deliver { conn, end, life });
                break;
            }
            let packet = self.conns[conn].streams[end].packets.pop_front().expect("one was just seen");
            let life = self.conns[conn].life;
            self.take_packet(conn, end, packet)?;
            if self.conns[conn].life != life {
                break;
            }
        }
        Ok(())
    }

    fn take_packet(&mut self, conn: usize, end: usize, packet: Packet) -> Result<(), String> {
        let to = self.conns[conn].ends[end];
        let number = self.conns[conn].number;
        match (self.conns[conn].what, end) {
            (Use::Peers, _) => {
                let worker = usize::from(packet.worker);
                let Some(core) = &mut self.nodes[to].workers[worker].core else { return Ok(()) };
                let mut rest = &packet.bytes[..];
                while let Some(f) = frame::next(rest).map_err(|e| format!("a node sent a bad frame: {e}"))? {
                    core.peer_frame(f.kind, f.body)
                        .map_err(|e| format!("a node sent a bad Raft frame: {e}"))?;
                    rest = &rest[f.consumed..];
                }
                self.want_turn(to, worker);
            }
            (Use::Requests { worker }, 1) => {
                let state = &mut self.nodes[to];
                let now = state.clocks.now(self.now);
                let worker = usize::from(worker);
                let Some(core) = &mut state.workers[worker].core else { return Ok(()) };
                core.link_data(number, &packet.bytes, now).map_err(|e| format!("a proxy is refused: {e}"))?;
                self.want_turn(to, worker);
                self.want_flush(to, worker);
            }
            (Use::Requests { worker }, _) => {
                let proxy = to - NODES;
                let node = self.conns[conn].ends[1];
                let link = LinkId { node, worker };
                let mut rest = &packet.bytes[..];
                while let Some(f) = frame::next(rest).map_err(|e| format!("a node sent a bad frame: {e}"))? {
                    if f.kind == Kind::Reply {
                        let reply =
                            Reply::decode(f.body).map_err(|e| format!("a node sent a bad reply: {e}"))?;
                        if self.trace.lines.is_some() {
                            let text = format!("{:?}", reply.status);
                            self.line(|| format!("proxy {proxy} <- n{}: {} {text:.80}", node + 1, reply.id));
                        }
                        self.proxies[proxy].core.link_reply(link, &reply, self.now);
                    }
                    rest = &rest[f.consumed..];
                }
                self.want_proxy_turn(proxy, 50);
            }
            (Use::Client { worker }, 1) => {
                let state = &mut self.nodes[to];
                let now = state.clocks.now(self.now);
                let worker = usize::from(worker);
                let Some(core) = &mut state.workers[worker].core else { return Ok(()) };
                core.client_data(number, &packet.bytes, now);
                self.want_turn(to, worker);
                self.want_flush(to, worker);
            }
            (Use::Client { .. }, _) => {
                let client = self.options.proxy_clients + (to - NODES - self.options.proxies);
                if self.clients[client].conns[self.clients[client].node] == conn {
                    self.clients[client].input.extend_from_slice(&packet.bytes);
                    self.take_replies(client)?;
                }
            }
        }
        Ok(())
    }

    /// A connection breaks: what is on its way is lost, the ends notice later.
    fn break_conn(&mut self, conn: usize) {
        if !self.conns[conn].is_up {
            return;
        }
        let c = &mut self.conns[conn];
        c.is_up = false;
        c.life += 1;
        let life = c.life;
        for stream in &mut c.streams {
            stream.packets.clear();
            stream.is_scheduled = false;
        }
        self.line(|| format!("connection {conn} breaks"));
        for end in 0..2 {
            let after = self.rng.spread(100, 300_000);
            self.after(after, Event::Lost { conn, end, life });
        }
    }

    fn lose(&mut self, conn: usize, end: usize, life: u64) -> Result<(), String> {
        if self.conns[conn].life != life || !std::mem::replace(&mut self.conns[conn].knows[end], false) {
            return Ok(());
        }
        let (to, number) = (self.conns[conn].ends[end], self.conns[conn].number);
        let other = self.conns[conn].ends[1 - end];
        self.trace.note(self.now, 8, conn as u64, end as u64);
        match (self.conns[conn].what, end) {
            (Use::Peers, _) => {
                let id = self.nodes[other].id.clone();
                for worker in 0..self.nodes[to].workers.len() {
                    if let Some(core) = &mut self.nodes[to].workers[worker].core {
                        core.peer_down(&id);
                        self.want_turn(to, worker);
                    }
                }
            }
            (Use::Requests { worker }, 1) => {
                if let Some(core) = &mut self.nodes[to].workers[usize::from(worker)].core {
                    core.link_close(number);
                }
            }
            (Use::Client { worker }, 1) => {
                if let Some(core) = &mut self.nodes[to].workers[usize::from(worker)].core {
                    core.client_close(number);
                }
            }
            (Use::Requests { worker }, _) => {
                let proxy = to - NODES;
                let now = self.now;
                self.proxies[proxy].core.link_down(LinkId { node: other, worker }, now);
                self.want_proxy_turn(proxy, 50);
            }
            (Use::Client { .. }, _) => {
                let client = self.options.proxy_clients + (to - NODES - self.options.proxies);
                if self.clients[client].conns[self.clients[client].node] == conn {
                    self.give_up(client)?;
                }
            }
        }
        self.plan_connect(conn);
        Ok(())
    }

    /// The process at one end is gone, so that nobody there will notice that the connection is, too.
    fn forget_end(&mut self, conn: usize, end: usize) {
        if std::mem::replace(&mut self.conns[conn].knows[end], false) {
            self.plan_connect(conn);
        }
    }

    /// Connects again once both ends know that the connection is gone: whoever notices last calls this.
    fn plan_connect(&mut self, conn: usize) {
        if self.conns[conn].knows == [false; 2] {
            let life = self.conns[conn].life;
            let after = self.rng.spread(1_000, 200_000);
            self.after(after, Event::Connect { conn, life });
        }
    }

    fn connect(&mut self, conn: usize) -> Result<(), String> {
        let [a, b] = self.conns[conn].ends;
        let life = self.conns[conn].life;
        if self.conns[conn].is_up || self.conns[conn].knows != [false; 2] {
            return Ok(());
        }
        let is_dead = |host: Host| host < NODES && !self.nodes[host].is_up;
        let is_paused = |host: Host| self.now < self.paused_until(host);
        let is_refused = is_dead(a) || is_dead(b) || self.is_blocked(a, b) || self.is_blocked(b, a);
        if is_refused || is_paused(a) || is_paused(b) {
            let after = self.rng.range(20_000, 200_000);
            self.after(after, Event::Connect { conn, life });
            return Ok(());
        }
        self.conns[conn].is_up = true;
        self.conns[conn].life += 1;
        self.conns[conn].knows = [true; 2];
        self.trace.note(self.now, 9, conn as u64, 0);
        self.line(|| format!("connection {conn} ({a}-{b}) is up"));
        let workers = self.options.workers;
        match self.conns[conn].what {
            Use::Peers => {
                for (here, there) in [(a, b), (b, a)] {
                    let id = self.nodes[there].id.clone();
                    for w in &mut self.nodes[here].workers {
                        if let Some(core) = &mut w.core {
                            core.peer_up(id.clone(), workers);
                        }
                    }
                }
            }
            Use::Requests { worker } => {
                let core = self.nodes[b].workers[usize::from(worker)].core.as_mut();
                self.conns[conn].number = core.map_or(0, |core| core.link_open());
                let (proxy, now) = (a - NODES, self.now);
                self.proxies[proxy].core.link_up(LinkId { node: b, worker }, workers, now);
                self.want_proxy_turn(proxy, 50);
            }
            Use::Client { worker } => {
                let core = self.nodes[b].workers[usize::from(worker)].core.as_mut();
                self.conns[conn].number = core.map_or(0, |core| {
                    let place = core.shared().clients.accept(u64::MAX).expect("there is no limit");
                    core.client_open(place, &Address::default())
                });
            }
        }
        Ok(())
    }

    fn unblock(&mut self, from: Host, to: Host) {
        self.blocked[from][to] -= 1;
        if self.is_blocked(from, to) {
            return;
        }
        self.line(|| format!("{from} -> {to} is open again"));
        for conn in 0..self.conns.len() {
            let c = &mut self.conns[conn];
            for end in 0..2 {
                if c.ends[end] == to && c.ends[1 - end] == from && !c.streams[end].packets.is_empty() {
                    c.streams[end].is_scheduled = true;
                    let event = Event::Deliver { conn, end, life: c.life };
                    self.queue.push(Reverse((self.now, self.next_number, event)));
                    self.next_number += 1;
                }
            }
        }
    }

    // --- Proxies and clients ---------------------------------------------------------------------------------------

    /// A new process learns the map; its clients connect.
    fn prepare_proxy(&mut self, p: usize) {
        self.proxies[p].core.update_map(self.map.clone());
        for node in 0..NODES {
            // With this it knows the node's workers; the links themselves come up one by one.
            let link = LinkId { node, worker: 0 };
            self.proxies[p].core.link_up(link, self.options.workers, self.now);
            self.proxies[p].core.link_down(link, self.now);
        }
        self.want_proxy_turn(p, 50);
    }

    fn want_proxy_turn(&mut self, proxy: usize, after: u64) {
        let p = &mut self.proxies[proxy];
        if self.now + after < p.next_turn {
            p.next_turn = self.now + after;
            let life = p.life;
            self.after(after, Event::ProxyTurn { proxy, life });
        }
    }

    fn proxy_turn(&mut self, proxy: usize) -> Result<(), String> {
        let now = self.now;
        let p = &mut self.proxies[proxy];
        if now < p.next_turn {
            return Ok(()); // replaced by an earlier one, which was
        }
        p.next_turn = u64::MAX;
        p.core.turn(now);
        self.trace.note(now, 10, proxy as u64, p.core.unanswered() as u64);
        for link in p.core.links_with_output() {
            let mut bytes = Vec::new();
            self.proxies[proxy].core.take_link_output(link, &mut bytes);
            let conn = self.proxies[proxy].links[&link];
            self.send(conn, NODES + proxy, 0, bytes);
        }
        for id in self.proxies[proxy].core.take_touched() {
            let core = &mut self.proxies[proxy].core;
            let bytes = core.client_output(id).to_vec();
            core.client_sent(id, bytes.len());
            let client = self.clients.iter().position(|c| c.via == Via::Proxy(proxy) && c.id == Some(id));
            if let Some(client) = client {
                self.clients[client].input.extend_from_slice(&bytes);
                self.take_replies(client)?;
            }
        }
        let p = &self.proxies[proxy];
        let wakeup = p.core.next_wakeup_us().map_or(PROXY_TURN_US, |at| at.saturating_sub(now).max(50));
        let after = if p.core.has_work() { 50 } else { wakeup.min(PROXY_TURN_US) };
        self.want_proxy_turn(proxy, after);
        Ok(())
    }

    /// A client asks its next operation, if it may have one more under way.
    fn ask(&mut self, client: usize) -> Result<(), String> {
        let is_last_phase = self.is_healed;
        if is_last_phase && !self.probes.contains_key(&client) {
            return Ok(());
        }
        // The nodes' own clients have one operation under way, so they ask more often.
        let mean = match self.clients[client].via {
            Via::Proxy(_) => self.options.think_us,
            Via::Nodes => self.options.think_us / 3,
        };
        let think = if is_last_phase { 20_000 } else { 1 + self.rng.below(2 * mean) };
        self.after(think, Event::Ask { client });
        let depth =
            if self.clients[client].via == Via::Nodes || is_last_phase { 1 } else { self.options.depth };
        if depth <= self.clients[client].pending.len() || !self.ensure_connected(client) {
            return Ok(());
        }
        let ask = match self.probes.get(&client) {
            Some(probes) => match probes.last() {
                Some(ask) => ask.clone(),
                None => return Ok(()),
            },
            None if self.options.memory.is_some() => {
                self.workload.draw_large(&mut self.rng, &mut self.clients[client])
            }
            None => self.workload.draw(&mut self.rng, &mut self.clients[client]),
        };
        let bytes = encode(&ask, self.options.is_hot);
        self.line(|| format!("client {client}: {}", ask.args(false).join(" ")));
        match self.clients[client].via {
            Via::Proxy(proxy) => {
                let Some(id) = self.clients[client].id else { return Ok(()) };
                self.proxies[proxy].core.client_data(id, &bytes);
                self.want_proxy_turn(proxy, 50);
            }
            Via::Nodes => {
                let partition =
                    self.map.partitions.of(slot_of(ask.key().name(self.options.is_hot).as_bytes()));
                let c = &mut self.clients[client];
                // Now and then it asks whoever it likes: a leader that does not know of the next one must notice by itself.
                let is_curious = self.rng.one_in(5);
                let any = self.rng.index(NODES);
                let node = if is_curious { any } else { c.guess[usize::from(partition.0)] };
                let conn = c.conns[node];
                c.node = node;
                if !self.conns[conn].knows[0] {
                    // No connection: perhaps another node leads.
                    let guess = self.rng.index(NODES);
                    self.clients[client].guess[usize::from(partition.0)] = guess;
                    return Ok(());
                }
                c.asked += 1;
                let (host, asked) = (self.conns[conn].ends[0], c.asked);
                self.send(conn, host, 0, bytes);
                self.after(CLIENT_TIMEOUT_US, Event::Timeout { client, asked });
            }
        }
        let invoke = self.now;
        self.clients[client].pending.push_back(Pending { ask, invoke });
        Ok(())
    }

    fn ensure_connected(&mut self, client: usize) -> bool {
        let connection = &mut self.next_connection;
        let c = &mut self.clients[client];
        if c.connection == 0 {
            *connection += 1;
            c.connection = *connection;
        }
        if let Via::Proxy(proxy) = c.via
            && c.id.is_none()
        {
            if self.now < self.proxies[proxy].paused_until {
                return false;
            }
            let place = Clients::new(1).accept(u64::MAX).expect("there is no limit");
            c.id = Some(self.proxies[proxy].core.client_open(place, &Address::default()));
        }
        true
    }

    /// Takes the replies in a client's input.
    fn take_replies(&mut self, client: usize) -> Result<(), String> {
        while let Some(reply) = self.clients[client].next_reply()? {
            let Some(Pending { ask, invoke }) = self.clients[client].pending.pop_front() else {
                return Err(format!("client {client} got a reply that it did not ask for: {reply:?}"));
            };
            let outcome = judge(&reply).map_err(|e| format!("{e} for {ask:?}"))?;
            self.trace.note(self.now, 11, client as u64, invoke);
            self.line(|| {
                format!("client {client}: {} (of {invoke}) -> {reply:?}", ask.args(false).join(" "))
            });
            self.clients[client].asked += 1;
            if self.clients[client].via == Via::Nodes && outcome != Outcome::Unknown {
                let partition =
                    self.map.partitions.of(slot_of(ask.key().name(self.options.is_hot).as_bytes()));
                if let Some(error) = reply.as_error() {
                    let guess = moved_to(error).filter(|n| *n < NODES);
                    let other = self.rng.index(NODES);
                    self.clients[client].guess[usize::from(partition.0)] = guess.unwrap_or(other);
                }
            }
            self.record(&ask, &outcome, invoke)?;
            let is_full = reply.as_error().is_some_and(|error| error.starts_with("OOM "));
            if is_full {
                self.report.refused += 1;
            }
            if (is_full || matches!(outcome, Outcome::Done(_)))
                && let Some(probes) = self.probes.get_mut(&client)
                && probes.last() == Some(&ask)
            {
                probes.pop();
            }
            self.settle_if_done();
        }
        Ok(())
    }

    /// A client's connection is gone: nobody knows what became of what it had asked.
    fn give_up(&mut self, client: usize) -> Result<(), String> {
        let c = &mut self.clients[client];
        let pending = std::mem::take(&mut c.pending);
        c.input.clear();
        c.id = None;
        c.connection = 0;
        c.tokens = 0;
        c.last_tokens.clear();
        c.asked += 1;
        for Pending { ask, invoke } in pending {
            self.record(&ask, &Outcome::Unknown, invoke)?;
        }
        Ok(())
    }

    /// Notes what became of an operation.
    fn record(&mut self, ask: &Ask, outcome: &Outcome, invoke: u64) -> Result<(), String> {
        if self.options.evicts() {
            // Any key may be gone at any time: there is no history to be explained, but everything must be answered.
            match outcome {
                Outcome::Done(_) => self.history.done += 1,
                Outcome::Failed => self.history.failed += 1,
                Outcome::Unknown => self.history.unknown += 1,
            }
            return Ok(());
        }
        self.history.record(ask, outcome, invoke, self.now)
    }

    fn time_out(&mut self, client: usize, asked: u64) -> Result<(), String> {
        if self.clients[client].asked == asked && !self.clients[client].pending.is_empty() {
            if self.is_healed && self.probes.contains_key(&client) {
                self.line(|| format!("client {client} waits too long"));
            }
            let conn = self.clients[client].conns[self.clients[client].node];
            self.break_conn(conn);
            self.give_up(client)?;
        }
        Ok(())
    }

    // --- Faults ----------------------------------------------------------------------------------------------------

    fn fault(&mut self) -> Result<(), String> {
        if self.is_healed {
            return Ok(());
        }
        let after = 1 + self.rng.below(2 * self.options.fault_every_us);
        self.after(after, Event::Fault);
        let m = self.options.mix;
        let weights = [
            m.partition,
            m.cut,
            m.pause,
            m.kill,
            m.crash,
            m.full,
            m.bad_sync,
            m.jump,
            m.proxy,
            m.leave,
            m.bridge,
            m.wipe,
        ];
        let mut draw = self.rng.below(weights.iter().sum());
        let mut kind = 0;
        while weights[kind] <= draw {
            draw -= weights[kind];
            kind += 1;
        }
        self.report.faults += 1;
        self.trace.note(self.now, 12, kind as u64, 0);
        let node = self.rng.index(NODES);
        let length = self.rng.spread(10_000, self.options.fault_us);
        match kind {
            0 => self.partition(length),
            1 => {
                let conn = self.rng.index(self.conns.len());
                self.break_conn(conn);
            }
            2 => self.pause(length),
            3 => self.end_some(node, Death::Kill),
            4 => self.end_some(node, Death::Crash),
            5 => self.fill(node, length),
            6 => {
                if self.nodes[node].is_up {
                    self.line(|| format!("n{}: a sync will fail", node + 1));
                    self.nodes[node].doom.get_or_insert(Death::Kill);
                    let worker = self.rng.index(self.nodes[node].workers.len());
                    self.nodes[node].workers[worker].disk.fail_next_sync();
                }
            }
            7 => {
                let error = self.rng.below(2 * self.options.skew_ms + 1) as i64 - self.options.skew_ms as i64;
                self.line(|| format!("n{}: the wall clock is wrong by {error} ms", node + 1));
                self.nodes[node].clocks.wall_error_ms = error;
            }
            8 => return self.replace_proxy(),
            9 => self.leave(node, length),
            10 => self.bridge(node, length),
            _ => self.wipe(node),
        }
        Ok(())
    }

    fn partition(&mut self, length: u64) {
        let hosts = NODES + self.options.proxies;
        let a = self.rng.index(hosts);
        let is_one_way = self.rng.one_in(3);
        let is_whole = self.rng.one_in(2);
        let is_broken = self.rng.one_in(2);
        let mut ways = Vec::new();
        for b in (0..hosts).filter(|&b| b != a) {
            if is_whole || self.rng.one_in(2) {
                ways.push((a, b));
                if !is_one_way {
                    ways.push((b, a));
                }
            }
        }
        self.line(|| format!("blocked for {length} us, broken {is_broken}: {ways:?}"));
        for (from, to) in ways {
            // From which end it is seen does not matter when only one way is blocked.
            let (from, to) = if is_one_way && is_broken { (to, from) } else { (from, to) };
            self.blocked[from][to] += 1;
            self.after(length, Event::Unblock { from, to });
            if is_broken {
                for conn in 0..self.conns.len() {
                    if self.conns[conn].ends.contains(&from) && self.conns[conn].ends.contains(&to) {
                        self.break_conn(conn);
                    }
                }
            }
        }
    }

    fn pause(&mut self, length: u64) {
        let host = self.rng.index(NODES + self.options.proxies);
        let until = self.now + length;
        self.line(|| format!("{host} is paused for {length} us"));
        match host.checked_sub(NODES) {
            None => self.nodes[host].paused_until = self.nodes[host].paused_until.max(until),
            Some(p) => self.proxies[p].paused_until = self.proxies[p].paused_until.max(until),
        }
    }

    /// Ends one process, or now and then all; at once, or in the middle of some write.
    fn end_some(&mut self, node: usize, death: Death) {
        if self.rng.one_in(6) {
            for node in 0..NODES {
                if self.nodes[node].is_up {
                    self.die(node, death);
                }
            }
            return;
        }
        if !self.nodes[node].is_up {
            return;
        }
        if self.rng.one_in(2) {
            self.die(node, death);
            return;
        }
        let ops = self.rng.spread(1, 200);
        self.line(|| format!("n{}: the disk stops after {ops} operations", node + 1));
        self.nodes[node].doom = Some(death);
        for worker in &self.nodes[node].workers {
            worker.disk.power_off_after(ops);
        }
        let life = self.nodes[node].life;
        self.after(2 * SECOND, Event::Die { node, life, is_crash: death == Death::Crash });
    }

    fn fill(&mut self, node: usize, length: u64) {
        let room = self.rng.spread(1, 100_000);
        self.line(|| format!("n{}: only {room} bytes are free for {length} us", node + 1));
        self.nodes[node].is_full = true;
        for worker in &self.nodes[node].workers {
            worker.disk.set_capacity(Some(worker.disk.used_bytes() + room));
        }
        self.after(length, Event::Room { node });
    }

    fn give_room(&mut self, node: usize) {
        self.nodes[node].is_full = false;
        for worker in &self.nodes[node].workers {
            worker.disk.set_capacity(None);
        }
    }

    /// A proxy's process dies and a new one starts; its clients connect again.
    fn replace_proxy(&mut self) -> Result<(), String> {
        let p = self.rng.index(self.proxies.len());
        let seed = self.rng.next();
        self.line(|| format!("proxy {p} is replaced"));
        let proxy = &mut self.proxies[p];
        proxy.core = Proxy::new(seed, self.options.deadline_us, Clients::new(1).worker(0));
        proxy.life += 1;
        proxy.next_turn = u64::MAX;
        proxy.paused_until = 0;
        for client in 0..self.clients.len() {
            if self.clients[client].via == Via::Proxy(p) {
                self.give_up(client)?;
            }
        }
        self.prepare_proxy(p);
        for conn in 0..self.conns.len() {
            if self.conns[conn].ends[0] == NODES + p && matches!(self.conns[conn].what, Use::Requests { .. })
            {
                self.break_conn(conn);
                self.forget_end(conn, 0);
            }
        }
        Ok(())
    }

    /// Both ends want the votes of the node in the middle, which forgets with each restart whom it follows.
    fn bridge(&mut self, middle: usize, length: u64) {
        let (a, b) = ((middle + 1) % NODES, (middle + 2) % NODES);
        self.line(|| format!("n{} is a bridge for {length} us", middle + 1));
        for (from, to) in [(a, b), (b, a)] {
            self.blocked[from][to] += 1;
            self.after(length, Event::Unblock { from, to });
        }
        let mut at = 0;
        while at < length {
            at += self.rng.range(100_000, 800_000);
            self.after(at, Event::Restart { node: middle });
        }
    }

    /// A process dies and is back at once, and so are its connections.
    fn restart(&mut self, node: usize) -> Result<(), String> {
        if self.is_healed || !self.nodes[node].is_up {
            return Ok(());
        }
        self.die(node, Death::Kill);
        self.start(node)
    }

    /// A planned stop: leaderships go first, then the process.
    fn leave(&mut self, node: usize, length: u64) {
        if !self.nodes[node].is_up {
            return;
        }
        // It asks a follower to campaign, and never hears that it did: only a lease that has ended keeps its reads right.
        if self.rng.one_in(2) {
            let after = self.rng.spread(100, 20_000);
            for from in (0..NODES).filter(|&from| from != node) {
                self.after(after, Event::Block { from, to: node });
                self.after(after + length, Event::Unblock { from, to: node });
            }
        }
        self.line(|| format!("n{} leaves", node + 1));
        for worker in 0..self.nodes[node].workers.len() {
            if let Some(core) = &mut self.nodes[node].workers[worker].core {
                core.leave();
                self.want_turn(node, worker);
            }
        }
        let life = self.nodes[node].life;
        self.after(SECOND, Event::Die { node, life, is_crash: false });
    }

    // --- The end ---------------------------------------------------------------------------------------------------

    /// No more faults: from here on everything must come back.
    fn heal(&mut self) -> Result<(), String> {
        self.line(|| "healed".to_owned());
        self.is_healed = true;
        self.settings.heal(self.now);
        self.healed_at = self.now;
        for node in 0..NODES {
            self.give_room(node);
            self.nodes[node].paused_until = 0;
            if let Some(death) = self.nodes[node].doom {
                self.die(node, death);
            }
        }
        for proxy in &mut self.proxies {
            proxy.paused_until = 0;
        }
        for from in 0..self.blocked.len() {
            for to in 0..self.blocked.len() {
                if self.is_blocked(from, to) {
                    // The events that would open it later find it open.
                    let extra = self.blocked[from][to];
                    for _ in 0..extra {
                        self.unblock(from, to);
                    }
                }
            }
        }
        let opening = std::mem::take(&mut self.queue);
        self.queue = opening
            .into_iter()
            .filter(|Reverse((_, _, e))| !matches!(e, Event::Block { .. } | Event::Unblock { .. }))
            .collect();
        // Each way in must serve every partition; then somebody reads everything.
        let mut askers: Vec<usize> = (0..self.options.proxies).collect();
        askers.push(self.clients.len() - 1);
        for client in askers {
            let mut probes: Vec<Ask> = Vec::new();
            probes.extend((0..REGISTERS).map(|n| Ask::Get(Key::Register(n))));
            probes.extend((0..COUNTERS).map(|n| Ask::Get(Key::Counter(n))));
            probes.extend((0..LISTS).map(|n| Ask::Get(Key::List(n))));
            for p in 0..PARTITIONS {
                let key = self.probe_key(PartitionId(p));
                probes.push(Ask::Set(key, self.workload.fresh()));
            }
            self.probes.insert(client, probes);
        }
        let last = self.clients.len() - 1;
        self.after(1_000, Event::Ask { client: last });
        self.after(HEAL_US, Event::Verdict);
        Ok(())
    }

    fn probe_key(&self, partition: PartitionId) -> Key {
        (0..)
            .map(Key::Probe)
            .find(|key| self.map.partitions.of(slot_of(key.name(false).as_bytes())) == partition)
            .expect("every partition has some key")
    }

    fn is_answered(&self) -> bool {
        self.probes.values().all(Vec::is_empty) && self.clients.iter().all(|c| c.pending.is_empty())
    }

    fn settle_if_done(&mut self) {
        if self.is_healed && !self.is_settling && self.is_answered() {
            self.is_settling = true;
            self.line(|| "everything is answered".to_owned());
            self.after(SETTLE_US, Event::Verdict);
        }
    }

    fn judge_liveness(&mut self) -> Result<(), String> {
        if !self.is_answered() {
            let left: Vec<_> = self.probes.iter().map(|(c, p)| (*c, p.len(), p.last())).collect();
            let pending: Vec<_> = self.clients.iter().map(|c| c.pending.front().cloned()).collect();
            return Err(format!(
                "liveness: {} s after the last fault this is not answered: {left:?}, {pending:?}; {}",
                HEAL_US / SECOND,
                self.leaders()
            ));
        }
        if !self.is_settling {
            // The last thing ended without an answer: its connection broke.
            self.settle_if_done();
            return Ok(());
        }
        if !self.is_whole() {
            if self.now < self.healed_at + REPLACE_US {
                self.after(100_000, Event::Verdict);
                return Ok(());
            }
            return Err(format!(
                "liveness: {} s after the last fault lost replicas are not replaced: {:?}; {}",
                REPLACE_US / SECOND,
                self.newest_map().groups,
                self.leaders()
            ));
        }
        // All replicas of a group that stand at one index are equal, and none is far behind.
        for g in 0..=PARTITIONS {
            let mut tops = Vec::new();
            for node in 0..NODES {
                for worker in &self.nodes[node].workers {
                    if let Some(group) = worker.core.as_ref().and_then(|c| c.group(GroupId(g))) {
                        self.invariants.check_digest(node, group)?;
                        tops.push(group.raft().applied_index());
                    }
                }
            }
            let seats = self.map.group(GroupId(g)).map_or(0, |group| group.seats.len());
            if tops.iter().min() != tops.iter().max() || tops.len() != seats {
                // An expired key may be on its way out just now.
                self.looks += 1;
                if self.looks < LOOKS_MAX {
                    self.after(100_000, Event::Verdict);
                    return Ok(());
                }
                return Err(format!("liveness: replicas of group {g} stand at {tops:?}; {}", self.leaders()));
            }
        }
        if settings::is_in(self.options.seed) && !self.settings.is_alive() {
            return Err(format!("liveness: no change of the settings is made; {}", self.leaders()));
        }
        for node in &self.nodes {
            let Some(core) = &node.workers[0].core else { continue };
            let map = core.shared().map().ok_or("a node without a map")?;
            self.settings.check(&map).map_err(|error| format!("{}: {error}", node.id))?;
            let Some(Machine::Meta(meta)) = core.group(GroupId::META).map(Group::machine) else { continue };
            if meta.map() != Some(&*map) {
                return Err(format!("{}: its workers do not see the map of the meta group", node.id));
            }
        }
        self.queue.clear();
        self.after(0, Event::Settled);
        Ok(())
    }

    fn leaders(&self) -> String {
        let mut text = String::new();
        for g in 0..=PARTITIONS {
            for node in &self.nodes {
                for worker in &node.workers {
                    if let Some(group) = worker.core.as_ref().and_then(|c| c.group(GroupId(g))) {
                        text += &format!("\n  {}: {:?}", node.id, group.status());
                    }
                }
            }
        }
        text
    }
}

impl Report {
    /// Adds another run.
    pub(crate) fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.virtual_us += other.virtual_us;
        self.done += other.done;
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.elections += other.elections;
        self.faults += other.faults;
        self.snapshots += other.snapshots;
        self.restarts += other.restarts;
        self.wipes += other.wipes;
        self.evicted += other.evicted;
        self.refused += other.refused;
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} events in {} virtual s; {} operations done, {} failed, {} unknown; {} faults, {} restarts, {} data \
             folders lost, {} elections, {} snapshots sent, {} keys evicted by the last processes, {} writes refused for \
             want of memory",
            self.events,
            self.virtual_us / SECOND,
            self.done,
            self.failed,
            self.unknown,
            self.faults,
            self.restarts,
            self.wipes,
            self.elections,
            self.snapshots,
            self.evicted,
            self.refused
        )
    }
}
