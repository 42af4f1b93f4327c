//! A proxy worker against a model of the nodes, under a virtual clock and a seeded scheduler.
//!
//! The model of a partition is what consensus promises: one state, a leader that may change or be absent, sessions that
//! execute `seq = last + 1` only. Links are FIFO while they last. Every APPEND writes a token of its own, so that the model
//! sees what was executed how often; GET shows all tokens.

use super::*;
use crate::clients::Clients;
use crate::errands::ERRANDS_MAX;
use crate::lane::LANE_REQUESTS_MAX;
use crate::testing::{self, Random};
use ringfort_resp::{Command, reply};
use ringfort_ring::{PartitionId, slot_of};
use ringfort_wire::frame::{self, Kind};
use ringfort_wire::map::MapSeat;
use ringfort_wire::request::{CREDIT_BYTES, CREDIT_REQUESTS, CommandBody, SESSION_WINDOW};
use ringfort_wire::{Request, RequestKind};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const DEADLINE_US: u64 = 5_000_000;
const PARTITIONS: u16 = 16;
/// A key of the partition that the tests of single paths look at.
const KEY: &str = "k1";

/// How often things go wrong: once in so many times, 0 = never.
#[derive(Debug, Clone, Copy, Default)]
struct Chaos {
    /// Per step: a leader changes.
    leader: u64,
    /// Per step: a link is cut.
    link: u64,
    /// Per write: the leader says Busy.
    busy: u64,
    /// Per write: it says Retry, having executed it or not.
    retry: u64,
    /// Per write: all sessions of the partition are forgotten.
    forget: u64,
    /// Per write: it is refused for good.
    refuse: u64,
    /// Per reply: it comes twice.
    twice: u64,
    /// Per step: a partition's disk is full for up to 1 s.
    full: u64,
    /// Per message: it takes up to 200 ms, and what is behind it too.
    slow: u64,
    /// Per step: a node pauses for up to 3 s, its links open.
    pause: u64,
}

#[derive(Default)]
struct Session {
    last: u64,
    replies: BTreeMap<u64, Vec<u8>>,
}

#[derive(Default)]
struct Group {
    leader: Option<usize>,
    /// Until then its leader takes no writes.
    full_until_us: u64,
    /// Whether its leader answers nothing.
    is_stuck: bool,
    /// Whether those who do not lead never know who does.
    is_hidden: bool,
    /// When the newest write is committed: in order.
    commit_us: u64,
    sessions: BTreeMap<u64, Session>,
    next_session: u64,
    data: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Default)]
struct LinkModel {
    /// Grows with each connection; what belongs to an older one never arrives.
    connection: u64,
    is_up: bool,
    /// Arrival time of the newest message, each way: FIFO.
    to_node_us: u64,
    to_proxy_us: u64,
    unanswered: usize,
}

enum Event {
    Request {
        link: LinkId,
        connection: u64,
        body: Vec<u8>,
    },
    /// The write is in the log of a quorum, if the leader is still the one that took it.
    Commit {
        link: LinkId,
        connection: u64,
        body: Vec<u8>,
    },
    Reply {
        link: LinkId,
        connection: u64,
        frame: Vec<u8>,
        is_copy: bool,
    },
    LinkUp(LinkId),
    Leader(u16),
    Wake,
}

#[derive(Debug, Clone)]
enum Asked {
    Append { key: String, token: String },
    Get { key: String },
    MGet { keys: Vec<String> },
    Del,
    Echo(String),
    DbSize,
}

struct ClientModel {
    id: ClientId,
    asked: VecDeque<(Asked, u64)>,
    /// Everything asked, with its reply.
    history: Vec<(Asked, Vec<u8>)>,
    received: Vec<u8>,
}

struct Sim {
    random: Random,
    chaos: Chaos,
    now_us: u64,
    proxy: Proxy,
    workers: Vec<u16>,
    paused_until_us: Vec<u64>,
    groups: Vec<Group>,
    links: BTreeMap<LinkId, LinkModel>,
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    clients: Vec<ClientModel>,
    next_token: u64,
    /// How often each token was executed, and the reply it was given.
    executed: BTreeMap<String, (u32, Vec<u8>)>,
    slowest_us: u64,
}

impl Sim {
    fn new(seed: u64, chaos: Chaos, clients: usize) -> Self {
        let mut random = Random(seed);
        let mut proxy = Proxy::new(seed, DEADLINE_US, Clients::new(1).worker(0));
        assert!(proxy.update_map(testing::map(3, PARTITIONS)));
        let workers: Vec<u16> = (0..3).map(|_| 1 + random.below(3) as u16).collect();
        let groups = (0..PARTITIONS).map(|p| Group {
            leader: Some(usize::from((p + random.below(2) as u16) % 3)),
            next_session: u64::from(p) * 1_000_000 + 1,
            ..Group::default()
        });
        let groups = groups.collect();
        let mut sim = Self {
            random,
            chaos,
            now_us: 1,
            proxy,
            workers,
            paused_until_us: vec![0; 3],
            groups,
            links: BTreeMap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            clients: Vec::new(),
            next_token: 0,
            executed: BTreeMap::new(),
            slowest_us: 0,
        };
        (0..clients).for_each(|_| sim.add_client());
        sim
    }

    fn add_client(&mut self) {
        let place = self.proxy.shared.all().accept(u64::MAX).unwrap();
        self.clients.push(ClientModel {
            id: self.proxy.client_open(place, &Address::default()),
            asked: VecDeque::new(),
            history: Vec::new(),
            received: Vec::new(),
        });
    }

    fn happens(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.random.one_in(one_in)
    }

    fn at(&mut self, time_us: u64, event: Event) {
        self.next_event += 1;
        self.events.insert((time_us, self.next_event), event);
    }

    /// Connects the links that the proxy wants and that are not there.
    fn connect(&mut self) {
        for wanted in self.proxy.wanted_links() {
            if let Entry::Vacant(place) = self.links.entry(wanted.link) {
                place.insert(LinkModel::default());
                let delay = self.random.below(20_000);
                self.at(self.now_us + delay, Event::LinkUp(wanted.link));
            }
        }
    }

    fn cut(&mut self, link: LinkId) {
        let model = self.links.get_mut(&link).unwrap();
        if model.is_up {
            model.is_up = false;
            model.connection += 1;
            model.unanswered = 0;
            self.proxy.link_down(link, self.now_us);
            let delay = self.random.below(300_000);
            self.at(self.now_us + delay, Event::LinkUp(link));
        }
    }

    fn disturb(&mut self) {
        if self.happens(self.chaos.leader) {
            let p = self.random.below(u64::from(PARTITIONS)) as u16;
            self.groups[usize::from(p)].leader = None;
            let delay = self.random.below(600_000);
            self.at(self.now_us + delay, Event::Leader(p));
        }
        if self.happens(self.chaos.link) {
            let links: Vec<_> = self.links.keys().copied().collect();
            let link = links[self.random.below(links.len() as u64) as usize];
            self.cut(link);
        }
        if self.happens(self.chaos.full) {
            let p = self.random.below(u64::from(PARTITIONS)) as usize;
            self.groups[p].full_until_us = self.now_us + self.random.below(1_000_000);
        }
        if self.happens(self.chaos.pause) {
            let node = self.random.below(3) as usize;
            self.paused_until_us[node] = self.now_us + self.random.below(3_000_000);
            // The others elect new leaders meanwhile.
            for p in 0..PARTITIONS {
                if self.groups[usize::from(p)].leader == Some(node) {
                    self.groups[usize::from(p)].leader = None;
                    let delay = 400_000 + self.random.below(300_000);
                    self.at(self.now_us + delay, Event::Leader(p));
                }
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake => {}
            Event::Leader(p) => {
                let up: Vec<_> = (0..3).filter(|n| self.paused_until_us[*n] <= self.now_us).collect();
                let group = &mut self.groups[usize::from(p)];
                if group.leader.is_some() {
                    return;
                }
                if up.is_empty() {
                    self.at(self.now_us + 100_000, Event::Leader(p));
                } else {
                    group.leader = Some(up[self.random.below(up.len() as u64) as usize]);
                }
            }
            Event::LinkUp(link) => {
                let workers = self.workers[link.node];
                if link.worker >= workers || self.links[&link].is_up {
                    return;
                }
                if self.proxy.link_up(link, workers, self.now_us) {
                    let model = self.links.get_mut(&link).unwrap();
                    model.is_up = true;
                    (model.to_node_us, model.to_proxy_us) = (self.now_us, self.now_us);
                }
                self.connect();
            }
            Event::Request { link, connection, body } => {
                if self.links[&link].connection == connection {
                    let paused_until_us = self.paused_until_us[link.node];
                    if self.now_us < paused_until_us {
                        // FIFO: what comes later was put behind it by its arrival time, so move them all alike.
                        self.at(paused_until_us, Event::Request { link, connection, body });
                    } else {
                        self.serve(link, connection, body);
                    }
                }
            }
            Event::Commit { link, connection, body } => {
                let request = Request::decode(&body).unwrap();
                let p = usize::from(request.partition.0);
                let is_leader = self.groups[p].leader == Some(link.node);
                let is_deposed = !is_leader && self.random.one_in(2);
                let is_retry = !is_leader || self.happens(self.chaos.retry);
                // Lost with the leader's office, or executed: who asked for it does not know.
                let answer = if is_deposed { Err(Status::Retry) } else { self.execute(p, &request) };
                if self.links[&link].connection == connection {
                    let status = match &answer {
                        _ if is_retry => Status::Retry,
                        Ok(reply) => Status::Done(reply),
                        Err(status) => *status,
                    };
                    self.send_reply(link, request.id, status);
                }
            }
            Event::Reply { link, connection, frame, is_copy } => {
                let model = self.links.get_mut(&link).unwrap();
                if model.connection == connection {
                    if !is_copy {
                        model.unanswered -= 1;
                    }
                    let frame = frame::next(&frame).unwrap().unwrap();
                    let reply = Reply::decode(frame.body).unwrap();
                    self.proxy.link_reply(link, &reply, self.now_us);
                }
            }
        }
    }

    fn delay_us(&mut self) -> u64 {
        let slow = if self.happens(self.chaos.slow) { self.random.below(200_000) } else { 0 };
        50 + self.random.below(500) + slow
    }

    fn send_reply(&mut self, link: LinkId, id: u64, status: Status<'_>) {
        let mut frame = Vec::new();
        Reply { id, status }.encode(&mut frame);
        let copies = if self.happens(self.chaos.twice) { 2 } else { 1 };
        for copy in 0..copies {
            let delay = self.delay_us();
            let model = self.links.get_mut(&link).unwrap();
            model.to_proxy_us = model.to_proxy_us.max(self.now_us + delay);
            let (time, connection) = (model.to_proxy_us, model.connection);
            self.at(time, Event::Reply { link, connection, frame: frame.clone(), is_copy: copy > 0 });
        }
    }

    /// What a node does with a request.
    fn serve(&mut self, link: LinkId, connection: u64, body: Vec<u8>) {
        let request = Request::decode(&body).unwrap();
        let p = usize::from(request.partition.0);
        assert_eq!(
            p % usize::from(self.workers[link.node]),
            usize::from(link.worker),
            "a wrong worker was asked"
        );
        let leader = self.groups[p].leader;
        if leader != Some(link.node) {
            // A deposed or uninformed node may know the leader, or not.
            let knows = !self.groups[p].is_hidden && !self.random.one_in(3);
            let hint = leader.filter(|_| knows).map(|n| format!("n{}", n + 1));
            return self.send_reply(link, request.id, Status::NotLeader(hint.as_deref().unwrap_or("")));
        }
        if self.groups[p].is_stuck {
            return;
        }
        let is_write = request.kind == RequestKind::Write;
        if is_write && self.happens(self.chaos.forget) {
            self.groups[p].sessions.clear();
        }
        if is_write && self.happens(self.chaos.busy) {
            return self.send_reply(link, request.id, Status::Busy);
        }
        if request.kind != RequestKind::Read && self.now_us < self.groups[p].full_until_us {
            return self.send_reply(link, request.id, Status::Refused(b"-ERR disk full\r\n"));
        }
        if is_write && self.happens(self.chaos.refuse) {
            return self.send_reply(link, request.id, Status::Refused(b"-ERR disk full\r\n"));
        }
        if request.kind != RequestKind::Read {
            let delay = 100 + self.random.below(1000);
            let group = &mut self.groups[p];
            group.commit_us = group.commit_us.max(self.now_us + delay);
            let time = group.commit_us;
            return self.at(time, Event::Commit { link, connection, body });
        }
        let applied = self.groups[p].sessions.get(&request.session).map(|session| session.last);
        if applied.is_some_and(|last| last < request.seq) {
            // It waits for its write.
            return self.at(self.now_us + 100, Event::Request { link, connection, body });
        }
        let reply = self.run(p, request.command);
        self.send_reply(link, request.id, Status::Done(&reply));
    }

    fn execute(&mut self, p: usize, request: &Request<'_>) -> Result<Vec<u8>, Status<'static>> {
        if request.kind == RequestKind::OpenSession {
            let group = &mut self.groups[p];
            let id = group.next_session;
            group.next_session += 1;
            group.sessions.insert(id, Session::default());
            return Err(Status::Opened(id));
        }
        let group = &mut self.groups[p];
        let Some(session) = group.sessions.get_mut(&request.session) else { return Err(Status::NoSession) };
        assert!(request.acked < request.seq, "an acknowledged write was sent again");
        assert!(request.seq - request.acked <= SESSION_WINDOW, "the window was passed");
        session.replies.retain(|seq, _| request.acked < *seq);
        if request.seq <= session.last {
            return match session.replies.get(&request.seq) {
                Some(reply) => Ok(reply.clone()),
                // A copy from an earlier round that was long under way: its reply is known and forgotten. Whatever the
                // node says to it must do no harm.
                None if request.seq.is_multiple_of(2) => Err(Status::NoSession),
                None => Err(Status::Refused(b"-ERR an old copy\r\n")),
            };
        }
        if session.last + 1 < request.seq {
            return Err(Status::Gap(session.last));
        }
        session.last = request.seq;
        let reply = if request.kind == RequestKind::Skip {
            b"+SKIPPED\r\n".to_vec()
        } else {
            self.run(p, request.command)
        };
        let session = self.groups[p].sessions.get_mut(&request.session).unwrap();
        session.replies.insert(request.seq, reply.clone());
        Ok(reply)
    }

    fn run(&mut self, p: usize, command: &[u8]) -> Vec<u8> {
        let body = CommandBody::decode(command).unwrap();
        let args = body.args().unwrap();
        let partitions = self.proxy.map().unwrap().partitions;
        let command = Command::from_u16(body.command).unwrap();
        for key in command.spec().keys(args.len() + 1) {
            assert_eq!(
                partitions.of(slot_of(args[key - 1])),
                PartitionId(p as u16),
                "a key is in another partition"
            );
        }
        let data = &mut self.groups[p].data;
        let mut out = Vec::new();
        let writer = &mut ReplyWriter::new(&mut out, body.protocol);
        match command {
            Command::Append => {
                let value = data.entry(args[0].to_vec()).or_insert_with(|| [args[0], b"="].concat());
                value.extend_from_slice(args[1]);
                writer.integer(value.len() as i64);
                let token = String::from_utf8(args[1].to_vec()).unwrap();
                self.executed.entry(token).or_insert_with(|| (0, out.clone())).0 += 1;
            }
            Command::Get => match data.get(args[0]) {
                Some(value) => writer.bulk(value),
                None => writer.null(),
            },
            Command::MGet => {
                writer.array(args.len());
                for key in &args {
                    match data.get(*key) {
                        Some(value) => writer.bulk(value),
                        None => writer.null(),
                    }
                }
            }
            Command::Del => writer.integer(args.len() as i64),
            Command::Unlink => {
                writer.integer(args.iter().filter(|key| data.remove(**key).is_some()).count() as i64)
            }
            Command::Touch => {
                writer.integer(args.iter().filter(|key| data.contains_key(**key)).count() as i64)
            }
            Command::FlushDb => {
                data.clear();
                writer.ok();
            }
            Command::DbSize => writer.integer(data.len() as i64),
            other => panic!("the model does not know {other:?}"),
        }
        out
    }

    /// Lets a client ask for something.
    fn ask(&mut self, client: usize) {
        let key = |random: &mut Random| format!("k{}", random.below(12));
        let asked = match self.random.below(10) {
            0..=4 => {
                self.next_token += 1;
                Asked::Append { key: key(&mut self.random), token: format!("<{}>", self.next_token) }
            }
            5 | 6 => Asked::Get { key: key(&mut self.random) },
            7 => Asked::MGet { keys: (0..1 + self.random.below(8)).map(|_| key(&mut self.random)).collect() },
            8 => Asked::Echo(format!("e{}", self.random.next())),
            _ => match self.random.below(8) {
                0 => Asked::DbSize,
                _ => Asked::Del,
            },
        };
        let words: Vec<String> = match &asked {
            Asked::Append { key, token } => vec!["APPEND".into(), key.clone(), token.clone()],
            Asked::Get { key } => vec!["GET".into(), key.clone()],
            Asked::MGet { keys } => core::iter::once("MGET".into()).chain(keys.iter().cloned()).collect(),
            Asked::Del => vec!["DEL".into(), "x1".into(), "x2".into(), "x3".into()],
            Asked::Echo(text) => vec!["ECHO".into(), text.clone()],
            Asked::DbSize => vec!["DBSIZE".into()],
        };
        let model = &mut self.clients[client];
        model.asked.push_back((asked, self.now_us));
        self.proxy.client_data(model.id, format!("{}\r\n", words.join(" ")).as_bytes());
    }

    /// Runs the proxy's turn and moves what it gives out.
    fn turn(&mut self) {
        self.proxy.turn(self.now_us);
        self.proxy.check_invariants();
        for link in self.proxy.links_with_output() {
            let mut bytes = Vec::new();
            self.proxy.take_link_output(link, &mut bytes);
            let mut rest = &bytes[..];
            while let Some(frame) = frame::next(rest).unwrap() {
                let delay = self.delay_us();
                let model = self.links.get_mut(&link).unwrap();
                assert!(model.is_up, "frames for a link that is down");
                model.unanswered += 1;
                assert!(model.unanswered <= CREDIT_REQUESTS, "the credit was passed");
                model.to_node_us = model.to_node_us.max(self.now_us + delay);
                let (time, connection) = (model.to_node_us, model.connection);
                self.at(time, Event::Request { link, connection, body: frame.body.to_vec() });
                rest = &rest[frame.consumed..];
            }
            assert!(rest.is_empty());
        }
        for id in self.proxy.take_touched() {
            let output = self.proxy.client_output(id).to_vec();
            self.proxy.client_sent(id, output.len());
            let client = self.clients.iter_mut().find(|client| client.id == id).unwrap();
            client.received.extend_from_slice(&output);
            while let Some(len) = reply::frame_len(&client.received).unwrap() {
                let reply = client.received.drain(..len).collect();
                let (asked, asked_us) = client.asked.pop_front().expect("a reply answers a command");
                self.slowest_us = self.slowest_us.max(self.now_us - asked_us);
                client.history.push((asked, reply));
            }
        }
        if let Some(at) = self.proxy.next_wakeup_us() {
            self.at(at.max(self.now_us + 1), Event::Wake);
        }
    }

    /// Handles events up to a time.
    fn run_until(&mut self, end_us: u64) {
        loop {
            self.turn();
            match self.events.first_key_value() {
                Some(((at, _), _)) if *at <= end_us => {
                    self.now_us = self.now_us.max(*at);
                    // What is due together comes together, as a shell reads all ready sockets before a turn.
                    while let Some(entry) = self.events.first_entry()
                        && entry.key().0 <= self.now_us
                    {
                        let event = entry.remove();
                        self.handle(event);
                    }
                }
                _ => break,
            }
        }
        self.now_us = end_us;
    }

    fn is_quiet(&self) -> bool {
        self.clients.iter().all(|client| client.asked.is_empty())
    }

    /// Checks every promise against the model.
    fn check(&self) {
        let mut acknowledged = BTreeSet::new();
        for client in &self.clients {
            // Tokens whose append was acknowledged to this client before, by key.
            let mut own: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            // Tokens that this client appends later.
            let mut later: BTreeSet<&str> = BTreeSet::new();
            later.extend(client.history.iter().filter_map(|(asked, _)| match asked {
                Asked::Append { token, .. } => Some(&token[..]),
                _ => None,
            }));
            for (asked, reply) in &client.history {
                let text = String::from_utf8_lossy(reply);
                match asked {
                    Asked::Append { key, token } => {
                        later.remove(&token[..]);
                        let executed = self.executed.get(token);
                        let count = executed.map_or(0, |(count, _)| *count);
                        if text.starts_with("-CLUSTERDOWN") || text.starts_with("-ERR disk full") {
                            assert_eq!(count, 0, "{token} was executed but {text}");
                        } else if text.starts_with("-ERR outcome unknown") {
                            assert!(count <= 1, "{token} was executed {count} times");
                        } else {
                            assert_eq!(count, 1, "{token} was executed {count} times: {text}");
                            assert_eq!(executed.map(|(_, r)| r), Some(reply), "{token} got another's reply");
                            own.entry(key).or_default().push(token);
                            acknowledged.insert(token);
                        }
                    }
                    Asked::Get { key } => check_value(key, &text, own.get(&key[..]), &later),
                    Asked::MGet { keys } if text.starts_with('*') => {
                        let elements = reply::array_elements(reply).unwrap();
                        assert_eq!(elements.len(), keys.len());
                        for (key, element) in keys.iter().zip(elements) {
                            check_value(key, &String::from_utf8_lossy(element), own.get(&key[..]), &later);
                        }
                    }
                    Asked::MGet { .. } => assert!(text.starts_with("-CLUSTERDOWN"), "{text}"),
                    Asked::Echo(word) => {
                        assert!(text.contains(word), "{text} is not the reply to ECHO {word}")
                    }
                    Asked::Del => assert!(text == ":3\r\n" || text.starts_with('-'), "{text}"),
                    Asked::DbSize => {
                        assert!(text.starts_with(':') || text.starts_with("-CLUSTERDOWN"), "{text}")
                    }
                }
            }
        }
        for (token, (count, _)) in &self.executed {
            assert_eq!(*count, 1, "{token} was executed {count} times");
        }
        assert!(!acknowledged.is_empty(), "nothing was acknowledged");
    }
}

fn check_value(key: &str, text: &str, own: Option<&Vec<&str>>, later: &BTreeSet<&str>) {
    if text.starts_with("-CLUSTERDOWN") {
        return;
    }
    for token in own.into_iter().flatten() {
        assert!(text.contains(token), "the client's own {token} is missing in {key}: {text}");
    }
    for token in text.split_inclusive('>').filter_map(|t| t.find('<').map(|i| &t[i..])) {
        assert!(!later.contains(token), "{key} shows {token}, which its client appends later: {text}");
    }
    assert!(text == "$-1\r\n" || text.contains(&format!("{key}=")), "{text} is not the value of {key}");
}

/// A run with trouble for some seconds, then one without, which must succeed.
fn run(seed: u64, chaos: Chaos) -> Sim {
    let clients = 1 + (seed % 5) as usize;
    let mut sim = Sim::new(seed, chaos, clients);
    sim.connect();
    let steps = 100 + sim.random.below(150);
    for _ in 0..steps {
        let client = sim.random.below(clients as u64) as usize;
        // A few commands at a time, as a pipeline.
        for _ in 0..1 + sim.random.below(12) {
            sim.ask(client);
        }
        sim.disturb();
        let pause = sim.random.below(20_000);
        sim.run_until(sim.now_us + pause);
    }
    sim.chaos = Chaos { twice: sim.chaos.twice, ..Chaos::default() };
    sim.run_until(sim.now_us + 2 * DEADLINE_US);
    assert!(sim.is_quiet(), "commands were left without an answer");
    // A write that waits for a read of its own client has a deadline of its own then.
    assert!(sim.slowest_us <= 2 * (DEADLINE_US + 2 * SWEEP_US), "a command took {} us", sim.slowest_us);
    let healed = sim.clients.iter().map(|client| client.history.len()).collect::<Vec<_>>();
    for client in 0..clients {
        for _ in 0..40 {
            sim.ask(client);
        }
    }
    sim.run_until(sim.now_us + 1_500_000);
    assert!(sim.is_quiet(), "the healed cluster does not answer");
    for (client, from) in sim.clients.iter().zip(healed) {
        for (asked, reply) in &client.history[from..] {
            assert!(!reply.starts_with(b"-"), "{asked:?}: {}", String::from_utf8_lossy(reply));
        }
    }
    sim.check();
    sim
}

/// Runs many seeds; `SEED=n` runs one, `SEEDS=n` the first n.
fn run_seeds(count: u64, chaos: impl Fn(u64) -> Chaos) {
    let count = std::env::var("SEEDS").map_or(count, |count| count.parse().expect("SEEDS is a number"));
    let seeds = match std::env::var("SEED") {
        Ok(seed) => seed.parse().map(|seed: u64| seed..seed + 1).expect("SEED is a number"),
        Err(_) => 1..count + 1,
    };
    for seed in seeds {
        let chaos = chaos(seed);
        if let Err(panic) = std::panic::catch_unwind(|| run(seed, chaos)) {
            eprintln!("failed with SEED={seed} and {chaos:?}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn without_trouble_nothing_fails() {
    run_seeds(20, |_| Chaos::default());
}

#[test]
fn leaders_change() {
    run_seeds(60, |_| Chaos { leader: 3, ..Chaos::default() });
}

#[test]
fn links_break() {
    run_seeds(60, |_| Chaos { link: 3, ..Chaos::default() });
}

#[test]
fn writes_are_turned_away() {
    run_seeds(60, |_| Chaos { busy: 20, retry: 10, refuse: 40, twice: 5, ..Chaos::default() });
}

#[test]
fn disks_are_full() {
    run_seeds(60, |_| Chaos { full: 4, leader: 20, ..Chaos::default() });
}

#[test]
fn sessions_are_forgotten() {
    run_seeds(60, |_| Chaos { forget: 40, leader: 20, slow: 30, ..Chaos::default() });
}

#[test]
fn nodes_pause() {
    run_seeds(40, |_| Chaos { pause: 25, twice: 5, ..Chaos::default() });
}

#[test]
fn everything_goes_wrong() {
    run_seeds(150, |seed| Chaos {
        leader: 5 + seed % 7,
        link: 5 + seed % 11,
        busy: 30,
        retry: 20,
        forget: 200 * (seed % 2),
        refuse: 100 * (seed % 3),
        full: 30,
        twice: 10,
        slow: 100,
        pause: 60,
    });
}

#[test]
fn equal_seeds_give_equal_runs() {
    let chaos = Chaos { leader: 5, link: 7, busy: 20, retry: 20, twice: 5, ..Chaos::default() };
    let [a, b] = [run(7, chaos), run(7, chaos)];
    let histories = |sim: &Sim| sim.clients.iter().map(|c| format!("{:?}", c.history)).collect::<Vec<_>>();
    assert_eq!((a.now_us, a.next_event, histories(&a)), (b.now_us, b.next_event, histories(&b)));
}

/// One client and no chaos: tests of single paths.
struct Quiet(Sim);

impl Quiet {
    fn new(clients: usize) -> Self {
        let mut sim = Sim::new(1, Chaos::default(), clients);
        sim.connect();
        sim.run_until(100_000);
        Self(sim)
    }

    fn group(&mut self) -> &mut Group {
        let p = self.0.proxy.map().unwrap().partitions.of(slot_of(KEY.as_bytes()));
        &mut self.0.groups[usize::from(p.0)]
    }

    /// A client says something and gets no reply yet.
    fn say(&mut self, client: usize, command: &str) {
        let model = &mut self.0.clients[client];
        for _ in 0..command.matches("\r\n").count() {
            model.asked.push_back((Asked::Del, self.0.now_us));
        }
        self.0.proxy.client_data(model.id, command.as_bytes());
    }

    /// Waits so long; the replies that came to a client meanwhile.
    fn replies(&mut self, client: usize, wait_us: u64) -> Vec<String> {
        self.0.run_until(self.0.now_us + wait_us);
        let replies = self.0.clients[client].history.drain(..);
        replies.map(|(_, reply)| String::from_utf8(reply).unwrap()).collect()
    }
}

#[test]
fn writes_without_a_leader_are_not_executed_and_say_so() {
    let mut quiet = Quiet::new(1);
    quiet.say(0, "APPEND k1 <a>\r\n");
    assert_eq!(quiet.replies(0, 100_000), [":6\r\n"]);
    let leader = quiet.group().leader.take();
    quiet.say(0, "APPEND k1 <b>\r\nGET k1\r\n");
    assert_eq!(quiet.replies(0, DEADLINE_US - 10_000), [""; 0]);
    let replies = quiet.replies(0, 50_000);
    assert!(
        replies.len() == 2 && replies.iter().all(|reply| reply.starts_with("-CLUSTERDOWN ")),
        "{replies:?}"
    );
    // The session goes on with a skip, and the write is not executed late.
    quiet.group().leader = leader;
    quiet.say(0, "APPEND k1 <c>\r\nGET k1\r\n");
    assert_eq!(quiet.replies(0, 300_000), [":9\r\n", "$9\r\nk1=<a><c>\r\n"]);
    assert_eq!(quiet.group().sessions.values().map(|session| session.last).collect::<Vec<_>>(), [3]);
}

#[test]
fn unlink_and_touch_are_split_and_summed_and_flushdb_goes_everywhere() {
    let mut quiet = Quiet::new(1);
    let keys: Vec<String> = (0..12).map(|n| format!("k{n}")).collect();
    let partitions = quiet.0.proxy.map().unwrap().partitions;
    let used: BTreeSet<_> = keys.iter().map(|key| partitions.of(slot_of(key.as_bytes())).0).collect();
    assert!(2 <= used.len(), "the keys lie in several partitions");
    let all = keys.join(" ");
    let fill: String = keys.iter().map(|key| format!("APPEND {key} x\r\n")).collect();
    quiet.say(0, &fill);
    assert_eq!(quiet.replies(0, 300_000).len(), keys.len());
    quiet.say(0, &format!("TOUCH {all} none k0\r\nUNLINK k0 k1 k2 none\r\nTOUCH {all}\r\nUNLINK {all}\r\n"));
    assert_eq!(quiet.replies(0, 300_000), [":13\r\n", ":3\r\n", ":9\r\n", ":9\r\n"]);
    quiet.say(0, &format!("{fill}FLUSHDB\r\nTOUCH {all}\r\n"));
    assert_eq!(quiet.replies(0, 300_000)[keys.len()..], ["+OK\r\n", ":0\r\n"]);
}

#[test]
fn write_that_may_be_executed_is_reported_as_unknown() {
    let mut quiet = Quiet::new(1);
    quiet.say(0, "APPEND k1 <a>\r\n");
    assert_eq!(quiet.replies(0, 100_000), [":6\r\n"]);
    for paused_until_us in &mut quiet.0.paused_until_us {
        *paused_until_us = 10_000_000;
    }
    quiet.say(0, "APPEND k1 <b>\r\n");
    let replies = quiet.replies(0, DEADLINE_US + 50_000);
    assert!(replies.len() == 1 && replies[0].starts_with("-ERR outcome unknown: "), "{replies:?}");
    quiet.0.run_until(12_000_000);
    quiet.say(0, "APPEND k1 <c>\r\n");
    let replies = quiet.replies(0, 2_000_000);
    assert!(replies == [":9\r\n"] || replies == [":12\r\n"], "{replies:?}");
}

#[test]
fn full_disk_is_told_at_once_and_reads_go_on() {
    let mut quiet = Quiet::new(1);
    quiet.say(0, "APPEND k1 <a>\r\n");
    assert_eq!(quiet.replies(0, 100_000), [":6\r\n"]);
    quiet.group().full_until_us = u64::MAX;
    for _ in 0..10 {
        quiet.say(0, "APPEND k1 <b>\r\nAPPEND k1 <c>\r\n");
        assert_eq!(quiet.replies(0, 150_000), ["-ERR disk full\r\n"; 2]);
        quiet.say(0, "GET k1\r\n");
        assert_eq!(quiet.replies(0, 5_000), ["$6\r\nk1=<a>\r\n"]);
    }
    quiet.group().full_until_us = 0;
    quiet.say(0, "APPEND k1 <d>\r\n");
    assert_eq!(quiet.replies(0, 150_000), [":9\r\n"]);
}

#[test]
fn lane_without_leader_holds_up_only_who_asks_it() {
    use crate::session::PIPELINE_MAX;
    let crowd = LANE_REQUESTS_MAX / PIPELINE_MAX + 2;
    let mut quiet = Quiet::new(crowd + 1);
    let leader = quiet.group().leader.take();
    for client in 0..crowd {
        quiet.say(client, &"APPEND k1 <x>\r\n".repeat(PIPELINE_MAX));
    }
    assert_eq!(quiet.replies(0, 100_000), [""; 0]);
    let held_up = (0..crowd).filter(|c| !quiet.0.proxy.client_wants_input(quiet.0.clients[*c].id)).count();
    assert_eq!(held_up, crowd);
    assert!(quiet.0.proxy.unanswered() <= LANE_REQUESTS_MAX + crowd, "{}", quiet.0.proxy.unanswered());
    // Another partition, another client: no delay.
    quiet.say(crowd, "APPEND k2 <y>\r\n");
    assert_eq!(quiet.replies(crowd, 5_000), [":6\r\n"]);
    quiet.group().leader = leader;
    for client in 0..crowd {
        let replies = quiet.replies(client, if client == 0 { 2_000_000 } else { 0 });
        assert_eq!(replies.len(), PIPELINE_MAX);
        assert!(replies.iter().all(|reply| reply.starts_with(':')), "{replies:?}");
    }
    assert_eq!(quiet.0.executed["<x>"].0 as usize, crowd * PIPELINE_MAX);
}

#[test]
fn a_stuck_partition_leaves_the_credit_of_its_link_to_others() {
    use crate::session::PIPELINE_MAX;
    // Reads, of which a lane has as many under way as it may; and writes with as many bytes.
    let long = "x".repeat(60_000);
    for (command, count) in [
        ("GET k1\r\n".to_owned(), PIPELINE_MAX),
        (format!("APPEND k1 {long}\r\n"), 2 * CREDIT_BYTES / 9 / 60_000),
    ] {
        let crowd = CREDIT_REQUESTS / PIPELINE_MAX + 1;
        let mut quiet = Quiet::new(crowd + 1);
        // Another partition that the same worker of the same node leads.
        let partitions = quiet.0.proxy.map().unwrap().partitions;
        let stuck = usize::from(partitions.of(slot_of(KEY.as_bytes())).0);
        let leader = quiet.group().leader.unwrap();
        let workers = usize::from(quiet.0.workers[leader]);
        let other = (0..1000).map(|n| format!("other{n}")).find(|key| {
            let p = usize::from(partitions.of(slot_of(key.as_bytes())).0);
            p != stuck && p % workers == stuck % workers && quiet.0.groups[p].leader == Some(leader)
        });
        let get = format!("GET {}\r\n", other.unwrap());
        quiet.say(crowd, &get);
        assert_eq!(quiet.replies(crowd, 100_000), ["$-1\r\n"]);
        // Their sessions learn that replies are short, and ask for many at a time.
        for client in 0..crowd {
            quiet.say(client, &"APPEND k1 a\r\n".repeat(PIPELINE_MAX));
            assert_eq!(quiet.replies(client, 1_000_000).len(), PIPELINE_MAX);
        }

        quiet.group().is_stuck = true;
        for client in 0..crowd {
            quiet.say(client, &command.repeat(count));
        }
        for _ in 0..100 {
            quiet.say(crowd, &get);
            assert_eq!(quiet.replies(crowd, 10_000), ["$-1\r\n"], "beside {count} commands");
        }
        let held = quiet.0.proxy.unanswered();
        assert!(held <= LANE_REQUESTS_MAX + CREDIT_REQUESTS, "{held}");
        // Whoever asks it is told so.
        for client in 0..crowd {
            let replies = quiet.replies(client, if client == 0 { 12 * DEADLINE_US } else { 0 });
            assert_eq!(replies.len(), count);
            assert!(
                replies
                    .iter()
                    .all(|r| r.starts_with("-CLUSTERDOWN ") || r.starts_with("-ERR outcome unknown"))
            );
        }
        quiet.0.proxy.check_invariants();
    }
}

/// A proxy with every queue at capacity 1.
fn narrow(clients: usize) -> Quiet {
    let mut sim = Sim::new(1, Chaos::default(), 0);
    sim.proxy.set_limits(Limits {
        pipeline: 1,
        lane_requests: 1,
        lane_bytes: 1,
        write_window: 1,
        credit_requests: 1,
        credit_bytes: 1,
    });
    // Limits are for the map that comes next.
    let map = sim.proxy.map().unwrap().clone();
    assert!(sim.proxy.update_map(ClusterMap { epoch: map.epoch + 1, ..map }));
    (0..clients).for_each(|_| sim.add_client());
    sim.connect();
    sim.run_until(100_000);
    Quiet(sim)
}

#[test]
fn with_every_queue_at_capacity_one_all_is_answered_in_turn() {
    let mut quiet = narrow(8);
    for client in 0..8 {
        quiet.say(client, &"APPEND k1 <x>\r\nMGET k1 k2 k3 k4\r\nGET k1\r\nDBSIZE\r\n".repeat(20));
    }
    for client in 0..8 {
        let replies = quiet.replies(client, if client == 0 { 4_000_000 } else { 0 });
        assert_eq!(replies.len(), 80);
        assert!(replies.iter().all(|reply| !reply.starts_with('-')), "{replies:?}");
    }
    quiet.0.proxy.check_invariants();
}

#[test]
fn who_waits_for_credit_of_a_node_that_answers_nothing_asks_another_one() {
    let mut quiet = narrow(8);
    quiet.0.groups.iter_mut().for_each(|group| group.leader = Some(0));
    let ask_all = |quiet: &mut Quiet| {
        for client in 0..8 {
            quiet.say(client, &format!("GET k{client}\r\nAPPEND k{client} <x>\r\n"));
        }
        for client in 0..8 {
            let replies = quiet.replies(client, if client == 0 { DEADLINE_US } else { 0 });
            assert!(
                replies.len() == 2 && replies.iter().all(|r| !r.starts_with('-')),
                "{client}: {replies:?}"
            );
        }
    };
    ask_all(&mut quiet);
    quiet.0.paused_until_us[0] = 1_000_000_000;
    quiet.0.groups.iter_mut().for_each(|group| group.leader = Some(1));
    ask_all(&mut quiet);
    quiet.0.proxy.check_invariants();
}

#[test]
fn reads_behind_a_large_reply_wait_for_it_and_are_not_asked_again() {
    let mut quiet = Quiet::new(1);
    quiet.say(0, "APPEND k1 <a>\r\n");
    assert_eq!(quiet.replies(0, 100_000).len(), 1);
    quiet.group().is_stuck = true;
    let leader = quiet.group().leader.unwrap();
    quiet.say(0, "GET k1\r\n");
    assert_eq!(quiet.replies(0, 1_000), [""; 0]);
    let links: Vec<_> = quiet.0.links.keys().copied().filter(|link| link.node == leader).collect();
    let sent = |quiet: &Quiet| links.iter().map(|link| quiet.0.links[link].unanswered).sum::<usize>();
    assert_eq!(sent(&quiet), 1);
    // Pieces of somebody's reply come all the while.
    for _ in 0..30 {
        for &link in &links {
            quiet.0.proxy.link_heard(link, quiet.0.now_us);
        }
        quiet.0.run_until(quiet.0.now_us + 100_000);
        assert_eq!(sent(&quiet), 1);
    }
    // Without them it is asked anew.
    quiet.0.run_until(quiet.0.now_us + 1_500_000);
    assert!(1 < sent(&quiet));
}

#[test]
fn of_a_large_reply_no_more_is_sent_when_its_client_is_gone() {
    for ask in ["GET k1\r\n", "MGET k1\r\n"] {
        let mut quiet = Quiet::new(2);
        let proxy = &mut quiet.0.proxy;
        quiet.0.clients.iter().for_each(|client| proxy.client_data(client.id, ask.as_bytes()));
        proxy.turn(quiet.0.now_us);
        let [link] = proxy.links_with_output()[..] else { panic!("they have one key") };
        let frames = |proxy: &mut Proxy| {
            let mut bytes = Vec::new();
            proxy.take_link_output(link, &mut bytes);
            let (mut frames, mut rest) = (Vec::new(), &bytes[..]);
            while let Some(frame) = frame::next(rest).unwrap() {
                frames.push((frame.kind, frame.body.to_vec()));
                rest = &rest[frame.consumed..];
            }
            proxy.check_invariants();
            frames
        };
        let requests = frames(proxy);
        let ids: Vec<u64> = requests.iter().map(|(_, body)| Request::decode(body).unwrap().id).collect();
        let [gone, stays] = ids[..] else { panic!("{requests:?}") };
        let taken = (Kind::PartTaken, Vec::new());
        let text = format!("*1\r\n$200000\r\n{}\r\n", "v".repeat(200_000));
        let whole = if ask.starts_with('M') { text.as_bytes() } else { &text.as_bytes()[4..] };
        let part = |id, bytes| ReplyPart { id, whole_len: whole.len() as u32, bytes };
        let (first, rest) = whole.split_at(100_000);
        assert_eq!(proxy.link_part(link, &part(gone, first), quiet.0.now_us), Ok(None));
        assert_eq!(frames(proxy), core::slice::from_ref(&taken));
        proxy.client_close(quiet.0.clients[0].id);
        let unwanted = (Kind::RestUnwanted, gone.to_le_bytes().to_vec());
        for expected in [vec![taken.clone(), unwanted], vec![taken.clone()]] {
            assert_eq!(proxy.link_part(link, &part(gone, &rest[..10]), quiet.0.now_us), Ok(None));
            assert_eq!(frames(proxy), expected);
            assert_eq!(proxy.unanswered(), 1);
        }
        assert_eq!(proxy.link_part(link, &part(stays, first), quiet.0.now_us), Ok(None));
        let pieces = proxy.link_part(link, &part(stays, rest), quiet.0.now_us).unwrap().unwrap();
        assert_eq!(pieces.concat(), whole);
        assert_eq!(frames(proxy), [taken.clone(), taken]);
        assert_eq!(proxy.unanswered(), 0);
        let (client, mut received) = (quiet.0.clients[1].id, Vec::new());
        while let output @ [_, ..] = proxy.client_output(client) {
            let count = output.len();
            received.extend_from_slice(output);
            proxy.client_sent(client, count);
        }
        assert_eq!(received, whole);
    }
}

#[test]
fn more_reads_than_credit_are_answered_in_turn() {
    use crate::session::PIPELINE_MAX;
    let clients = CREDIT_REQUESTS / PIPELINE_MAX + 3;
    let mut quiet = Quiet::new(clients);
    quiet.0.paused_until_us = vec![400_000; 3];
    for client in 0..clients {
        quiet.say(client, &"GET k1\r\n".repeat(PIPELINE_MAX));
    }
    // The model asserts that no link has more than its credit.
    for client in 0..clients {
        let replies = quiet.replies(client, if client == 0 { 1_000_000 } else { 0 });
        assert_eq!(replies, vec!["$-1\r\n"; PIPELINE_MAX]);
    }
}

#[test]
fn what_a_client_asked_is_done_although_it_left() {
    let mut quiet = Quiet::new(2);
    quiet.say(0, "APPEND k1 <a>\r\nAPPEND k1 <b>\r\nMGET k1 k2 k3\r\n");
    quiet.0.proxy.turn(quiet.0.now_us);
    let id = quiet.0.clients[0].id;
    quiet.0.proxy.client_close(id);
    assert_eq!(quiet.replies(1, 100_000), [""; 0]);
    quiet.say(1, "GET k1\r\n");
    assert_eq!(quiet.replies(1, 100_000), ["$9\r\nk1=<a><b>\r\n"]);
    assert_eq!((quiet.0.proxy.unanswered(), quiet.0.proxy.clients()), (0, 1));
    assert!(quiet.0.proxy.client_is_over(id));
}

#[test]
fn node_that_returns_with_other_workers_is_found() {
    let mut quiet = Quiet::new(1);
    quiet.group().leader = Some(0);
    quiet.say(0, "APPEND k1 <a>\r\n");
    assert_eq!(quiet.replies(0, 100_000), [":6\r\n"]);
    let links: Vec<LinkId> = quiet.0.links.keys().filter(|link| link.node == 0).copied().collect();
    for workers in [5, 1, 3] {
        quiet.0.workers[0] = workers;
        links.iter().for_each(|link| quiet.0.cut(*link));
        quiet.say(0, "GET k1\r\n");
        assert_eq!(quiet.replies(0, 1_500_000), ["$6\r\nk1=<a>\r\n"], "{workers} workers");
        assert_eq!(
            quiet.0.proxy.wanted_links().iter().filter(|w| w.link.node == 0).count(),
            usize::from(workers)
        );
    }
}

/// A replica that was lost and came back as a new one, and both leave: seen by the simulator.
#[test]
fn a_node_that_several_replicas_leave_is_not_all_that_is_asked() {
    let mut quiet = Quiet::new(1);
    quiet.group().leader = Some(2);
    quiet.say(0, "APPEND k1 <a>\r\n");
    assert_eq!(quiet.replies(0, 100_000), [":6\r\n"]);
    let mut map = quiet.0.proxy.map().unwrap().clone();
    let group = &mut map.groups[usize::from(map.partitions.of(slot_of(KEY.as_bytes())).0)];
    let [_, n2, n3] = &group.seats[..] else { panic!("a replica on each node") };
    group.leaving = vec![n3.clone(), MapSeat { replica: 1000, ..n2.clone() }, n3.clone()];
    group.seats.retain(|seat| seat.node.0 != "n3");
    group.leaving[2].replica = 1001;
    group.leader = group.seats[0].node.clone();
    map.epoch += 1;
    assert!(quiet.0.proxy.update_map(map));
    (quiet.group().leader, quiet.group().is_hidden) = (None, true);
    quiet.say(0, "GET k1\r\n");
    // Whoever it asks last before there is a leader again.
    for leader in [1, 0, 2, 1, 2, 0] {
        quiet.group().leader = None;
        assert_eq!(quiet.replies(0, 330_000), [""; 0]);
        quiet.group().leader = Some(leader);
        assert_eq!(quiet.replies(0, 600_000), ["$6\r\nk1=<a>\r\n"]);
        quiet.group().leader = None;
        quiet.say(0, "GET k1\r\n");
    }
}

#[test]
fn maps_only_grow() {
    let mut proxy = Proxy::new(1, DEADLINE_US, Clients::new(1).worker(0));
    assert!(proxy.take_map_wish() && !proxy.take_map_wish());
    let mut map = testing::map(3, PARTITIONS);
    map.epoch = 5;
    assert!(proxy.update_map(map.clone()));
    assert!(!proxy.update_map(map.clone()), "the same again");
    map.epoch = 6;
    let other = ClusterMap { cluster_id: 8, ..map.clone() };
    assert!(!proxy.update_map(other), "another cluster");
    map.nodes.retain(|node| node.id.0 != "n3");
    map.groups.iter_mut().for_each(|group| {
        group.seats.retain(|seat| seat.node.0 != "n3");
        group.leader = group.seats[0].node.clone();
    });
    assert!(proxy.update_map(map));
    let nodes: Vec<_> = proxy.wanted_links().into_iter().map(|wanted| wanted.node.0).collect();
    assert_eq!(nodes, ["n1", "n2"]);
}

#[test]
fn an_errand_is_answered_when_it_is_over() {
    let clients = Clients::new(1);
    let place = || clients.accept(u64::MAX).unwrap();
    let mut proxy = Proxy::new(1, DEADLINE_US, clients.worker(0));
    proxy.update_map(testing::map(3, PARTITIONS));
    let ask = |proxy: &mut Proxy, id| {
        proxy.client_data(id, b"CONFIG SET timeout 7\r\nCONFIG GET timeout\r\n");
        proxy.turn(1);
    };
    let first = proxy.client_open(place(), &Address::default());
    ask(&mut proxy, first);
    let errands = proxy.take_errands();
    assert_eq!(errands.len(), 1);
    assert!(proxy.take_errands().is_empty() && proxy.client_output(first).is_empty());

    // The others up to the bound wait, the next is told.
    let others: Vec<ClientId> =
        (0..ERRANDS_MAX).map(|_| proxy.client_open(place(), &Address::default())).collect();
    others.iter().for_each(|id| ask(&mut proxy, *id));
    assert_eq!(proxy.take_errands().len(), ERRANDS_MAX - 1);
    proxy.turn(2);
    let refused = String::from_utf8_lossy(proxy.client_output(others[ERRANDS_MAX - 1])).into_owned();
    assert!(refused.starts_with("-TRYAGAIN ") && refused.ends_with("$1\r\n0\r\n"), "{refused}");

    // The one whose change is made sees it; one that is gone is no matter.
    let mut map = testing::map(3, PARTITIONS);
    map.epoch += 1;
    map.settings.insert("timeout".to_owned(), "7".to_owned());
    assert!(proxy.update_map(map));
    proxy.client_close(others[0]);
    proxy.errand_done(errands[0].0, &Ok(()));
    proxy.errand_done(errands[0].0, &Err("ERR twice".to_owned()));
    proxy.turn(3);
    assert_eq!(proxy.client_output(first), b"+OK\r\n*2\r\n$7\r\ntimeout\r\n$1\r\n7\r\n");
}
