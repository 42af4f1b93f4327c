//! The simulated world: everything happens on one thread, in the order of a queue of events, which is drawn from the seed.

mod clients;
mod event;
mod faults;
mod folders;
mod liveness;
mod members;
mod network;
mod nodes;
mod proxies;
mod report;
mod snapshots;
mod verdict;

pub(crate) use report::Report;

use crate::client::{Client, Via, Workload};
use crate::history::{Ask, History};
use crate::invariants::Invariants;
use crate::net::{Conn, Host, Use};
use crate::node::{Clocks, Death, Node};
use crate::options::{Options, PARTITIONS};
use crate::rng::Rng;
use crate::settings::{self, Settings};
use crate::trace::Trace;
use event::Event;
use folders::MAP_EVERY_US;
use network::Late;
use proxies::ProxyHost;
use ringfort::config::Config;
use ringfort::meta::form::first_map;
use ringfort_wire::ClusterMap;
use snapshots::Transfer;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// No run needs so many events.
const EVENTS_MAX: u64 = 4_000_000;

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
    /// What happens to each host when it is no longer paused.
    frozen: Vec<Vec<Event>>,
    /// What broken connections left behind.
    late: BTreeMap<u64, Late>,
    next_late: u64,
    clients: Vec<Client>,
    workload: Workload,
    history: History,
    settings: Settings,
    invariants: Invariants,
    transfers: BTreeMap<u64, Transfer>,
    next_transfer: u64,
    next_change: u64,
    next_connection: u32,
    turns: u64,
    is_healed: bool,
    healed_at: u64,
    /// What must still be answered after the heal: one list for each of the last clients.
    probes: BTreeMap<usize, Vec<Ask>>,
    is_settling: bool,
    /// Rounds of probes that were answered in the liveness mode.
    rounds: u32,
    /// The node that lost its folder last.
    last_wiped: Option<usize>,
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
        let mut map = first_map(&config, 7, &stores).expect("the simulator's config allows a placement");
        if let Some(ms) = options.read_age_ms {
            map.settings.insert(ringfort_wire::settings::REPLICA_MAX_STALENESS_MS.to_owned(), ms.to_string());
        }
        let nodes: Vec<Node> = (0..options.nodes)
            .map(|n| {
                let (rate_ppm, wall_error_ms) = (rng.signed(options.drift_ppm), rng.signed(options.skew_ms));
                let clocks = Clocks::new(rate_ppm, wall_error_ms);
                Node::new(n, &options, clocks, &map)
            })
            .collect();
        let hosts = options.nodes + options.proxies + options.direct_clients + 1;
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
            frozen: vec![Vec::new(); hosts],
            late: BTreeMap::new(),
            next_late: 0,
            clients: Vec::new(),
            workload: Workload::of(options.seed),
            history: History::default(),
            settings: Settings::default(),
            invariants: Invariants::default(),
            transfers: BTreeMap::new(),
            next_transfer: 0,
            next_change: 0,
            next_connection: 0,
            turns: 0,
            is_healed: false,
            healed_at: 0,
            probes: BTreeMap::new(),
            is_settling: false,
            rounds: 0,
            last_wiped: None,
            looks: 0,
            report: Report::default(),
            trace: Trace::new(is_traced),
            options,
        };
        world.build();
        world
    }

    fn build(&mut self) {
        for n in 0..self.nodes.len() {
            let after = self.rng.below(50_000);
            self.after(after, Event::Start { node: n });
            if self.options.follows_map() {
                self.after(MAP_EVERY_US, Event::FollowMap { node: n });
            }
            for m in 0..n {
                self.add_conn([m, n], Use::Peers);
            }
        }
        for p in 0..self.options.proxies {
            let seed = self.rng.next();
            self.proxies.push(ProxyHost {
                core: self.new_proxy(seed),
                life: 0,
                paused_until: 0,
                next_turn: u64::MAX,
                conns: BTreeMap::new(),
                known: Vec::new(),
            });
            for node in 0..self.nodes.len() {
                for worker in 0..self.options.workers {
                    let conn = self.add_conn([self.nodes.len() + p, node], Use::Requests { worker });
                    self.proxies[p].conns.insert((node, worker), conn);
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
            client.is_readonly = d < self.options.replica_clients;
            for node in 0..self.nodes.len() {
                let worker = self.rng.below(u64::from(self.options.workers)) as u16;
                let host = self.nodes.len() + self.options.proxies + d;
                client.conns.push(self.add_conn([host, node], Use::Client { worker }));
            }
            client.guess = (0..PARTITIONS).map(|_| self.rng.index(self.nodes.len())).collect();
            self.clients.push(client);
        }
        for client in 0..self.clients.len() - 1 {
            let after = self.rng.below(500_000);
            self.after(after, Event::Ask { client });
        }
        let after = self.rng.below(self.options.fault_every_us);
        self.after(after, Event::Fault);
        self.after(self.options.faults_us, Event::Heal);
        if self.options.changes_members() {
            let after = self.rng.below(self.options.change_us);
            self.after(after, Event::Change);
            self.after(MAP_EVERY_US, Event::ProxyMaps);
        }
        if settings::is_in(self.options.seed) {
            self.after(settings::EVERY_US, Event::Setting);
        }
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
            if let Some((host, until)) = self.paused(event) {
                if self.frozen[host].is_empty() {
                    self.after(until - at, Event::Resume { host });
                }
                self.frozen[host].push(event);
                continue;
            }
            if matches!(event, Event::Settled) {
                break;
            }
            self.trace_event(event);
            self.handle(event)?;
        }
        self.report.undecided = self.history.check()?;
        self.report.hash = self.trace.hash();
        self.report.events = self.trace.events();
        self.report.virtual_us = self.now;
        self.report.done = self.history.done;
        self.report.failed = self.history.failed;
        self.report.unknown = self.history.unknown;
        self.report.elections = self.invariants.elections;
        self.report.member_steps = self.invariants.member_steps;
        self.report.turned = self.invariants.turned;
        self.report.downs = self.invariants.downs;
        let cores = self.nodes.iter().flat_map(|n| n.workers.iter().filter_map(|w| w.core.as_ref()));
        for status in cores.flat_map(|core| core.groups()).map(|group| group.status()) {
            self.report.evicted += status.evicted_keys;
            self.report.follower_reads += status.activity.follower_reads;
        }
        Ok(self.report.clone())
    }

    /// How a host is called in the trace.
    fn host_name(&self, host: Host) -> String {
        let proxy = host.checked_sub(self.nodes.len());
        match proxy.map(|p| (p, p.checked_sub(self.options.proxies))) {
            None => format!("n{}", host + 1),
            Some((proxy, None)) => format!("proxy{proxy}"),
            Some((_, Some(client))) => format!("client{}", self.options.proxy_clients + client),
        }
    }

    /// The host that an event concerns; `None`: all, or one that is not there any more.
    fn host_of(&self, event: Event) -> Option<Host> {
        match event {
            Event::Tick { node, .. }
            | Event::Turn { node, .. }
            | Event::Flush { node, .. }
            | Event::Mail { node, .. }
            | Event::JobRun { node, .. }
            | Event::JobDone { node, .. }
            | Event::Restart { node }
            | Event::Flap { node }
            | Event::Start { node }
            | Event::Die { node, .. }
            | Event::Room { node }
            | Event::FollowMap { node } => Some(node),
            Event::Deliver { conn, end, .. } | Event::Lost { conn, end, .. } => {
                Some(self.conns[conn].ends[end])
            }
            Event::Connect { conn, .. } => Some(self.conns[conn].ends[0]),
            Event::Late { number } => self.late.get(&number).map(|late| late.to),
            Event::Snapshot { number } => self.transfers.get(&number).map(|t| t.to),
            Event::SnapshotReport { number, .. } => self.transfers.get(&number).map(|t| t.from),
            Event::ProxyTurn { proxy, .. } => Some(self.nodes.len() + proxy),
            Event::Resume { host } => Some(host),
            Event::Block { from, .. } | Event::Unblock { from, .. } => Some(from),
            Event::Ask { .. }
            | Event::Timeout { .. }
            | Event::Setting
            | Event::Change
            | Event::ProxyMaps
            | Event::Fault
            | Event::Heal
            | Event::Verdict
            | Event::Settled => None,
        }
    }

    /// One line for each event: whose it is, and what.
    fn trace_event(&mut self, event: Event) {
        if self.trace.lines.is_none() {
            return;
        }
        let host = self.host_of(event).map(|host| self.host_name(host)).unwrap_or_default();
        self.line(|| format!("{host:<8} . {event:?}"));
    }

    /// The host whose process an event belongs to, and until when it is paused.
    fn paused(&self, event: Event) -> Option<(Host, u64)> {
        // These happen to a host whether its process runs or not.
        let is_done_to_it = matches!(
            event,
            Event::Restart { .. }
                | Event::Flap { .. }
                | Event::Start { .. }
                | Event::Die { .. }
                | Event::Room { .. }
                | Event::FollowMap { .. }
                | Event::Connect { .. }
                | Event::Resume { .. }
                | Event::Block { .. }
                | Event::Unblock { .. }
        );
        let host = self.host_of(event).filter(|_| !is_done_to_it)?;
        Some((host, self.paused_until(host))).filter(|&(_, until)| self.now < until)
    }

    /// What was held up while a host was paused happens now, unless it is paused still.
    fn resume(&mut self, host: Host) {
        let until = self.paused_until(host);
        if self.now < until {
            self.after(until - self.now, Event::Resume { host });
            return;
        }
        for event in std::mem::take(&mut self.frozen[host]) {
            self.after(0, event);
        }
    }

    fn paused_until(&self, host: Host) -> u64 {
        match host.checked_sub(self.nodes.len()) {
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
            Event::Late { number } => self.deliver_late(number),
            Event::Resume { host } => {
                self.resume(host);
                Ok(())
            }
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
            Event::Change => {
                self.change_members();
                Ok(())
            }
            Event::ProxyMaps => {
                self.follow_maps_in_proxies();
                Ok(())
            }
            Event::Fault => self.fault(),
            Event::Block { from, to } => {
                let names = (self.host_name(from), self.host_name(to));
                self.line(|| format!("{} -> {} is blocked", names.0, names.1));
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
            Event::Flap { node } => {
                self.flap(node);
                Ok(())
            }
            Event::Verdict if self.options.is_liveness => self.judge_core(),
            Event::Verdict => self.judge_liveness(),
            _ => Ok(()),
        }
    }
}
