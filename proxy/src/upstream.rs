//! The proxy's node side: lanes to the partitions, links to the nodes' workers, and what becomes of replies.

use crate::gather::Join;
use crate::lane::{Call, Lane, What, WriteNumber};
use crate::large_reply::LargeReply;
use crate::limits::{Holder, Limits, Used};
use crate::random::Random;
use crate::route::{Part, Route, encode_part, encode_random_key, encode_whole, route};
use crate::session::{Ask, Facts, Host, RingfortQuery, Ticket, map_json};
use crate::slab::Slab;
use bytes::Bytes;
use core::cell::Cell;
use ringfort_resp::{Command, Scope};
use ringfort_ring::{NodeId, PartitionId};
use ringfort_wire::frame::{self, FRAME_HEADER_BYTES};
use ringfort_wire::request::ReplyPart;
use ringfort_wire::{ClusterMap, Kind, Reply, Request, Status, WireError};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// First pause of a lane after a failed round, µs; it doubles with each further one.
pub(crate) const RETRY_BACKOFF_US: u64 = 10_000;
/// Longest pause.
pub(crate) const RETRY_BACKOFF_MAX_US: u64 = 100_000;
/// How long a node may leave a lane without any reply before the lane asks another replica, µs: a paused process keeps
/// its connections, and a new leader is elected in less.
pub(crate) const LANE_SILENCE_US: u64 = 600_000;
/// Requests that a lane sends before the next lane has its turn.
const LANE_QUANTUM: usize = 64;
/// Most buffers of answered commands that are kept for the next ones, and the capacity up to which one is, bytes.
const SPARES_MAX: usize = 1024;
const SPARE_BYTES_MAX: usize = 1 << 10;
/// Most workers of a node; a handshake that tells of more is refused.
pub const NODE_WORKERS_MAX: u16 = 256;

/// Bytes of a request beside its command.
const REQUEST_BYTES: usize = FRAME_HEADER_BYTES + 35;

/// A link: one worker of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    /// The node's number in this proxy; numbers are never used again.
    pub node: usize,
    /// The node's worker.
    pub worker: u16,
}

/// A link that should be held, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedLink {
    /// The link.
    pub link: LinkId,
    /// The node.
    pub node: NodeId,
    /// The node's peer address.
    pub peer: String,
}

/// Who waits for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client's command, as it is.
    Whole { client: u64, ticket: Ticket },
    /// A part of one that is gathered.
    Part { gather: u64, part: u32 },
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It was not executed and will not be.
    NotExecuted,
    /// It may or may not be executed.
    Unknown,
}

impl Failure {
    /// The error reply.
    pub(crate) fn text(self, partition: u16) -> String {
        match self {
            Self::NotExecuted => {
                format!(
                    "CLUSTERDOWN partition {partition} did not answer in time: the command was not executed"
                )
            }
            Self::Unknown => format!(
                "ERR outcome unknown: partition {partition} did not confirm the command in time; it may or may not be \
                 executed"
            ),
        }
    }
}

/// What a reply of a node means for the clients.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing.
    Nothing,
    /// The bytes that came with it answer this command.
    Deliver(Origin),
    /// They answer all of these: no copy of any is in doubt.
    DeliverAll(Vec<Origin>),
    /// The session of the lane is lost: nobody knows of these.
    Lost(Vec<Origin>),
}

/// A node that the map names or named.
#[derive(Debug)]
struct Node {
    id: NodeId,
    is_member: bool,
    /// One for each of its workers; only one until a handshake tells how many there are.
    links: Vec<Link>,
}

/// One link. Its output is bounded by the credit.
#[derive(Debug, Default)]
struct Link {
    is_up: bool,
    /// Frames to send.
    output: Vec<u8>,
    /// Unanswered requests.
    used: Used,
    /// The same of each lane that has some.
    used_by_lane: BTreeMap<u16, Used>,
    /// Lanes that wait for credit, in turn.
    starved: Vec<u16>,
    /// The large reply whose parts are coming.
    large: Option<LargeReply>,
    /// Since when nothing came on it: the last bytes, or the first request after all were answered.
    silent_since_us: u64,
}

impl Link {
    fn sent(&mut self, lane: u16, bytes: usize, now_us: u64) {
        if self.used.requests == 0 {
            self.silent_since_us = now_us;
        }
        self.used.add(bytes);
        self.used_by_lane.entry(lane).or_default().add(bytes);
    }

    fn answered(&mut self, lane: u16, bytes: usize) {
        self.used.give_back(bytes);
        if let Some(used) = self.used_by_lane.get_mut(&lane) {
            used.give_back(bytes);
            if used.requests == 0 {
                self.used_by_lane.remove(&lane);
            }
        }
    }
}

/// A request on a link.
#[derive(Debug)]
struct Flight {
    link: LinkId,
    lane: u16,
    round: u64,
    what: What,
    /// Credit that it holds.
    bytes: usize,
}

/// One partition's lane and where it goes.
#[derive(Debug, Default)]
struct Place {
    lane: Lane<Origin>,
    /// The node believed to lead.
    leader: Option<usize>,
    /// Nothing is sent before.
    resume_at_us: u64,
    /// Whether it is in `Upstream::ready`.
    is_ready: bool,
    /// Clients that are held up because the lane is full.
    blocked: Vec<u64>,
}

/// Where to go on after a failed round.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// The same node, at once if this was the first failure.
    Again,
    /// The same node, after a pause.
    Later,
    /// The node that was named, at once if this was the first failure.
    Node(usize),
    /// Another replica, after a pause.
    Other,
}

/// Everything behind the client sessions.
#[derive(Debug)]
pub(crate) struct Upstream {
    random: Random,
    deadline_us: u64,
    now_us: u64,
    facts: Facts,
    map: Option<ClusterMap>,
    nodes: Vec<Node>,
    places: Vec<Place>,
    limits: Limits,
    flights: Slab<Flight>,
    /// Lanes that may have something to send, in turn.
    ready: VecDeque<u16>,
    /// Lanes that pause, by the time at which they go on.
    asleep: BTreeSet<(u64, u16)>,
    /// Calls in lanes.
    calls: usize,
    /// Empty buffers for the commands of calls.
    spares: Vec<Vec<u8>>,
    wants_map: bool,
    /// Whether the set of wanted links may have changed.
    links_changed: bool,
}

impl Upstream {
    /// Other bounds, for the lanes of the next map.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    pub(crate) fn new(seed: u64, deadline_us: u64) -> Self {
        Self {
            random: Random::new(seed),
            deadline_us,
            now_us: 0,
            facts: Facts::default(),
            map: None,
            nodes: Vec::new(),
            places: Vec::new(),
            limits: Limits::default(),
            flights: Slab::default(),
            ready: VecDeque::new(),
            asleep: BTreeSet::new(),
            calls: 0,
            spares: Vec::new(),
            wants_map: true,
            links_changed: false,
        }
    }

    /// Sets the time for all that follows; it never goes back.
    pub(crate) fn set_now(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
    }

    pub(crate) fn set_facts(&mut self, facts: Facts) {
        self.facts = facts;
    }

    /// Calls that wait for a reply.
    pub(crate) fn calls(&self) -> usize {
        self.calls
    }

    /// Whether a newer map is wanted; asking takes the wish back.
    pub(crate) fn take_map_wish(&mut self) -> bool {
        core::mem::take(&mut self.wants_map)
    }

    /// Whether [`Self::wanted_links`] may have changed since this was asked.
    pub(crate) fn take_links_changed(&mut self) -> bool {
        core::mem::take(&mut self.links_changed)
    }

    /// The time at which a pausing lane wants to go on.
    pub(crate) fn next_wakeup_us(&self) -> Option<u64> {
        self.asleep.first().map(|(at, _)| *at)
    }

    // The map and the links.

    /// Takes a map, unless it is older than the one known or of another cluster. Returns whether it was taken.
    pub(crate) fn update_map(&mut self, map: ClusterMap) -> bool {
        if let Some(old) = &self.map
            && (map.epoch <= old.epoch
                || map.cluster_id != old.cluster_id
                || map.partitions != old.partitions)
        {
            return false;
        }
        for node in &mut self.nodes {
            node.is_member = map.node(&node.id).is_some();
        }
        for member in &map.nodes {
            if !self.nodes.iter().any(|node| node.id == member.id) {
                let links = vec![Link::default()];
                self.nodes.push(Node { id: member.id.clone(), is_member: true, links });
            }
        }
        self.places.resize_with(usize::from(map.partitions.get()), Place::default);
        self.places.iter_mut().for_each(|place| place.lane.set_limits(&self.limits));
        for (place, group) in self.places.iter_mut().zip(&map.groups) {
            let is_seated = |n: usize| group.replica_on(&self.nodes[n].id).is_some();
            if !place.leader.is_some_and(is_seated) {
                place.leader = self.nodes.iter().position(|node| node.id == *group.wanted_leader());
            }
        }
        self.map = Some(map);
        self.links_changed = true;
        self.ready_all();
        true
    }

    /// The links that should be held now.
    pub(crate) fn wanted_links(&self) -> Vec<WantedLink> {
        let Some(map) = &self.map else { return Vec::new() };
        let mut wanted = Vec::new();
        for (n, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.is_member) {
            let Some(member) = map.node(&node.id) else { continue };
            wanted.extend((0..node.links.len() as u16).map(|worker| WantedLink {
                link: LinkId { node: n, worker },
                node: node.id.clone(),
                peer: member.peer.clone(),
            }));
        }
        wanted
    }

    fn link_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.nodes.get_mut(id.node)?.links.get_mut(usize::from(id.worker))
    }

    /// The handshake of a link is done; `workers` is the node's number of workers. Returns whether the link is used.
    pub(crate) fn link_up(&mut self, id: LinkId, workers: u16) -> bool {
        if workers == 0 || workers > NODE_WORKERS_MAX || self.link_mut(id).is_none() {
            return false;
        }
        let known = self.nodes[id.node].links.len();
        if known != usize::from(workers) {
            // The node came back with another number of workers: what is open leads to workers that are gone.
            for worker in 0..known {
                self.link_down(LinkId { node: id.node, worker: worker as u16 });
            }
            self.nodes[id.node].links.resize_with(usize::from(workers), Link::default);
            self.links_changed = true;
        }
        let Some(link) = self.link_mut(id) else { return false };
        link.is_up = true;
        self.ready_all();
        true
    }

    /// Bytes came on a link, perhaps of a reply that is not whole yet.
    pub(crate) fn link_heard(&mut self, id: LinkId) {
        let now_us = self.now_us;
        if let Some(link) = self.link_mut(id) {
            link.silent_since_us = now_us;
        }
    }

    /// A link is lost: what was sent on it and has no reply is sent again elsewhere.
    pub(crate) fn link_down(&mut self, id: LinkId) {
        let Some(link) = self.link_mut(id) else { return };
        let starved = core::mem::take(&mut link.starved);
        *link = Link::default();
        self.flights.remove_if(|flight| flight.link == id);
        let workers = self.nodes[id.node].links.len();
        for p in 0..self.places.len() as u16 {
            let place = &self.places[usize::from(p)];
            let is_here = place.leader == Some(id.node) && usize::from(p) % workers == usize::from(id.worker);
            if is_here && place.lane.silent_since_us().is_some() {
                self.fail(p, Next::Other);
            }
        }
        starved.into_iter().for_each(|p| self.make_ready(p));
    }

    /// Whether anybody waits for the reply to a request: not for one that is answered, nor for a read that was given up or
    /// asked again, or whose client is not there. What is no read is always waited for, by its lane.
    pub(crate) fn is_waited_for(&self, request: u64, is_there: impl FnOnce(Origin) -> bool) -> bool {
        self.flights.get(request).is_some_and(|flight| match flight.what {
            What::Read(number) => {
                self.places[usize::from(flight.lane)].lane.reader(number).copied().is_some_and(is_there)
            }
            What::Open | What::Write { .. } | What::Skip { .. } => true,
        })
    }

    /// Takes a part of a large reply for which nobody waits, and has the node send no more of it.
    pub(crate) fn refuse_part(&mut self, id: LinkId, part: &ReplyPart<'_>) {
        let is_under_way = self.flights.get(part.id).is_some_and(|flight| flight.link == id);
        let Some(link) = self.link_mut(id) else { return };
        link.large.take_if(|large| large.id() == part.id);
        frame::put(&mut link.output, Kind::PartTaken, |_| ());
        if is_under_way {
            frame::put(&mut link.output, Kind::RestUnwanted, |out| out.extend(part.id.to_le_bytes()));
        }
    }

    /// Takes a part of a large reply, says so to the node, and returns the pieces of the reply when it is whole.
    ///
    /// # Errors
    /// It does not fit the parts before it.
    pub(crate) fn take_part(
        &mut self,
        id: LinkId,
        part: &ReplyPart<'_>,
    ) -> Result<Option<Vec<Bytes>>, WireError> {
        let Some(link) = self.link_mut(id) else { return Ok(None) };
        let large = link.large.get_or_insert_with(|| LargeReply::new(part));
        if !large.take(part) {
            return Err(WireError::Malformed("part of a reply"));
        }
        frame::put(&mut link.output, Kind::PartTaken, |_| ());
        Ok(link.large.take_if(|large| large.is_whole()).map(LargeReply::into_pieces))
    }

    /// The frames to send on a link; the caller takes them out.
    pub(crate) fn link_output(&mut self, id: LinkId) -> Option<&mut Vec<u8>> {
        self.link_mut(id).map(|link| &mut link.output)
    }

    /// The links with frames to send.
    pub(crate) fn links_with_output(&self) -> impl Iterator<Item = LinkId> {
        self.nodes.iter().enumerate().flat_map(|(node, n)| {
            let links = n.links.iter().zip(0u16..);
            links.filter(|(link, _)| !link.output.is_empty()).map(move |(_, worker)| LinkId { node, worker })
        })
    }

    // Commands.

    /// Puts a command of a client into its lanes. `last_writes` are the client's last writes by partition. Returns a lane
    /// that is full now: the client should wait for [`Self::take_unblocked`].
    pub(crate) fn submit(
        &mut self,
        client: u64,
        last_writes: &mut BTreeMap<u16, WriteNumber>,
        ask: &Ask<'_>,
        gathers: &mut Slab<crate::core::Gathering>,
    ) -> Option<u16> {
        let partitions = self.map.as_ref()?.partitions;
        let to = match route(ask, partitions) {
            Route::One(partition) => {
                let body = encode_whole(ask, self.spares.pop().unwrap_or_default());
                let origin = Origin::Whole { client, ticket: ask.ticket };
                return self.push(partition.0, origin, body, ask.spec.is_write, last_writes);
            }
            Route::All => partitions.iter().map(|partition| Part { partition, keys: Vec::new() }).collect(),
            Route::Split(parts) => parts,
        };
        let join = match ask.spec.command {
            Command::MGet => Join::Elements(key_order(ask, &to)),
            Command::MSet => Join::AllOk,
            command if ask.spec.scope == Scope::AllPartitions => {
                Join::everywhere(command, self.random.next(), false)
            }
            _ => Join::Sum,
        };
        let gather = gathers.insert(crate::core::Gathering::new(client, ask, join, to.len()));
        let mut full = None;
        for (part, number) in to.iter().zip(0u32..) {
            let body = match ask.spec.command {
                Command::RandomKey => encode_random_key(ask.protocol, self.random.next()),
                _ if part.keys.is_empty() => encode_whole(ask, Vec::new()),
                _ => encode_part(ask, part),
            };
            let origin = Origin::Part { gather, part: number };
            let pushed = self.push(part.partition.0, origin, body, ask.spec.is_write, last_writes);
            full = full.or(pushed);
        }
        full
    }

    fn push(
        &mut self,
        p: u16,
        origin: Origin,
        body: Vec<u8>,
        is_write: bool,
        last_writes: &mut BTreeMap<u16, WriteNumber>,
    ) -> Option<u16> {
        let call = Call { origin, deadline_us: self.now_us + self.deadline_us, body };
        let lane = &mut self.places[usize::from(p)].lane;
        if is_write {
            last_writes.insert(p, lane.push_write(call));
        } else {
            lane.push_read(call, last_writes.get(&p).copied().unwrap_or(0));
        }
        self.calls += 1;
        let is_full = lane.is_full();
        self.make_ready(p);
        is_full.then_some(p)
    }

    /// Holds a client up until a lane has room.
    pub(crate) fn block(&mut self, p: u16, client: u64) {
        self.places[usize::from(p)].blocked.push(client);
    }

    /// Adds the clients that are held up no longer to `unblocked`.
    fn unblock(&mut self, p: u16, unblocked: &mut Vec<u64>) {
        let place = &mut self.places[usize::from(p)];
        if !place.blocked.is_empty() && !place.lane.is_full() {
            unblocked.append(&mut place.blocked);
        }
    }

    // Sending.

    fn make_ready(&mut self, p: u16) {
        let place = &mut self.places[usize::from(p)];
        if !place.is_ready {
            place.is_ready = true;
            self.ready.push_back(p);
        }
    }

    fn ready_all(&mut self) {
        (0..self.places.len() as u16).for_each(|p| self.make_ready(p));
    }

    /// Fills the links' outputs from the lanes, a quantum from each in turn. Clients that were held up and may go on are
    /// added to `unblocked`.
    pub(crate) fn send(&mut self, unblocked: &mut Vec<u64>) {
        while let Some((at, p)) = self.asleep.first().copied()
            && at <= self.now_us
        {
            self.asleep.pop_first();
            self.make_ready(p);
        }
        while let Some(p) = self.ready.pop_front() {
            self.places[usize::from(p)].is_ready = false;
            self.send_lane(p);
            self.unblock(p, unblocked);
        }
    }

    fn send_lane(&mut self, p: u16) {
        if self.now_us < self.places[usize::from(p)].resume_at_us {
            return;
        }
        let Some(id) = self.link_of(p) else { return };
        let lane = &mut self.places[usize::from(p)].lane;
        let link = &mut self.nodes[id.node].links[usize::from(id.worker)];
        for _ in 0..LANE_QUANTUM {
            let is_starved = Cell::new(false);
            let round = lane.round();
            let (used, limits) = (link.used, &self.limits);
            let used_by_lane = link.used_by_lane.get(&p).copied().unwrap_or_default();
            // What is left of earlier rounds keeps no new one from asking.
            let is_first = lane.silent_since_us().is_none();
            let request = lane.next_request(self.now_us, |command_bytes| {
                let bytes = REQUEST_BYTES + command_bytes;
                is_starved.set(!limits.has_credit(used, bytes, Holder::Link));
                // At its share a lane waits for an answer of its own.
                !is_starved.get() && (is_first || limits.has_credit(used_by_lane, bytes, Holder::Lane))
            });
            let Some(request) = request else {
                if is_starved.get() && !link.starved.contains(&p) {
                    link.starved.push(p);
                }
                return;
            };
            let bytes = REQUEST_BYTES + request.command.len();
            link.sent(p, bytes, self.now_us);
            let flight = Flight { link: id, lane: p, round, what: request.what, bytes };
            Request {
                id: self.flights.insert(flight),
                partition: PartitionId(p),
                kind: request.kind,
                session: request.session,
                seq: request.seq,
                acked: request.acked,
                command: request.command,
            }
            .encode(&mut link.output);
        }
        self.make_ready(p);
    }

    /// The link to the leader; when that is down, to another replica. `None` when no replica can be reached: then the
    /// next link that comes up wakes the lane.
    fn link_of(&mut self, p: u16) -> Option<LinkId> {
        if let Some(leader) = self.places[usize::from(p)].leader
            && let Some(id) = self.up_link(p, leader)
        {
            return Some(id);
        }
        let other = self.other_replica(p)?;
        self.places[usize::from(p)].leader = Some(other);
        self.up_link(p, other)
    }

    fn up_link(&self, p: u16, node: usize) -> Option<LinkId> {
        let links = &self.nodes.get(node)?.links;
        let worker = usize::from(p) % links.len();
        links[worker].is_up.then_some(LinkId { node, worker: worker as u16 })
    }

    /// The next replica after the believed leader, in the order of the map, whose link is up; the leader itself last. Those
    /// that leave are asked too: while none of the others has come, one of them still leads.
    fn other_replica(&self, p: u16) -> Option<usize> {
        let leader = self.places[usize::from(p)].leader;
        // A node may have several: one that leaves, and the one that came after it.
        let mut nodes: Vec<usize> = Vec::new();
        for seat in self.map.as_ref()?.groups.get(usize::from(p))?.peers() {
            let node = self.node_index(&seat.node).filter(|node| !nodes.contains(node));
            nodes.extend(node);
        }
        let first = nodes.iter().position(|n| Some(*n) == leader).map_or(0, |i| i + 1);
        let mut in_turn = (0..nodes.len()).map(|i| nodes[(first + i) % nodes.len()]);
        in_turn.find(|n| self.up_link(p, *n).is_some())
    }

    fn node_index(&self, id: &NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == *id)
    }

    /// Ends a lane's round and says where and when the next one goes.
    fn fail(&mut self, p: u16, next: Next) {
        if let Some(link) = self.places[usize::from(p)].leader.and_then(|node| self.up_link(p, node))
            && let Some(link) = self.link_mut(link)
        {
            link.starved.retain(|other| *other != p);
        }
        let other = if matches!(next, Next::Other) { self.other_replica(p) } else { None };
        let random = self.random.next();
        let place = &mut self.places[usize::from(p)];
        place.lane.go_back(true);
        match next {
            Next::Again | Next::Later => {}
            Next::Node(n) => place.leader = Some(n),
            Next::Other => place.leader = other.or(place.leader),
        }
        // A first failure has a likely remedy: the leader that was named, or sending from the gap on.
        let failures = place.lane.failures();
        let pause = if failures <= 1 && matches!(next, Next::Again | Next::Node(_)) {
            0
        } else {
            let most = (RETRY_BACKOFF_US << failures.saturating_sub(1).min(10)).min(RETRY_BACKOFF_MAX_US);
            most / 2 + random % (most / 2)
        };
        place.resume_at_us = self.now_us + pause;
        if pause > 0 {
            self.asleep.insert((self.now_us + pause, p));
        } else {
            self.make_ready(p);
        }
    }

    // Replies.

    /// Takes a reply from a link. One that nobody waits for (it came twice, or late) is ignored.
    pub(crate) fn handle_reply(&mut self, link: LinkId, reply: &Reply<'_>) -> (u16, Outcome) {
        if self.flights.get(reply.id).is_none_or(|flight| flight.link != link) {
            return (0, Outcome::Nothing);
        }
        let Some(flight) = self.flights.remove(reply.id) else { return (0, Outcome::Nothing) };
        self.link_heard(link);
        if let Some(link) = self.link_mut(link) {
            link.answered(flight.lane, flight.bytes);
            let starved = core::mem::take(&mut link.starved);
            starved.into_iter().for_each(|p| self.make_ready(p));
        }
        self.make_ready(flight.lane);
        let lane = &mut self.places[usize::from(flight.lane)].lane;
        let is_current = lane.heard(flight.round, self.now_us);
        if let What::Write { session, seq } = flight.what
            && is_disowned(reply.status)
        {
            lane.disown(session, seq);
        }
        let outcome = match (flight.what, reply.status) {
            (What::Open, Status::Opened(session)) => {
                lane.opened(session);
                self.succeed(&flight, is_current);
                Outcome::Nothing
            }
            (What::Write { session, seq } | What::Skip { session, seq }, Status::Done(_)) => {
                let call = lane.settle(session, seq);
                self.succeed(&flight, is_current);
                self.deliver(call)
            }
            (What::Read(number), Status::Done(_) | Status::Refused(_)) => {
                let call = lane.settle_read(number);
                self.succeed(&flight, is_current);
                self.deliver(call)
            }
            (What::Write { session, seq }, Status::Refused(_)) => {
                let call = lane.refuse(session, seq);
                if is_current && call.is_some() {
                    // The skip in its place goes out at once.
                    lane.go_back(false);
                } else if is_current {
                    self.fail(flight.lane, Next::Later);
                }
                self.deliver(call)
            }
            // What an earlier round failed at is tried again in this one.
            _ if !is_current => Outcome::Nothing,
            (_, status) => self.handle_complaint(flight.lane, status),
        };
        (flight.lane, outcome)
    }

    fn succeed(&mut self, flight: &Flight, is_current: bool) {
        if is_current {
            self.places[usize::from(flight.lane)].lane.succeeded();
        }
    }

    fn deliver(&mut self, call: Option<Call<Origin>>) -> Outcome {
        let Some(Call { origin, mut body, .. }) = call else { return Outcome::Nothing };
        self.calls -= 1;
        if body.capacity() <= SPARE_BYTES_MAX && self.spares.len() < SPARES_MAX {
            body.clear();
            self.spares.push(body);
        }
        Outcome::Deliver(origin)
    }

    /// Takes a reply of the current round that is not what was hoped for.
    fn handle_complaint(&mut self, p: u16, status: Status<'_>) -> Outcome {
        let place = &mut self.places[usize::from(p)];
        match status {
            Status::NotLeader(hint) => {
                let hinted = self.nodes.iter().position(|node| node.id.0 == hint);
                let usable = hinted.filter(|n| Some(*n) != self.places[usize::from(p)].leader);
                // A leader that the map does not know is news.
                self.wants_map |= hinted.is_none() && !hint.is_empty();
                match usable.filter(|n| self.up_link(p, *n).is_some()) {
                    Some(n) => self.fail(p, Next::Node(n)),
                    None => self.fail(p, Next::Other),
                }
            }
            Status::NotHere(epoch) => {
                self.wants_map |= self.map.as_ref().is_none_or(|map| map.epoch < epoch);
                self.fail(p, Next::Other);
            }
            Status::NoSession => return self.lose_session(p),
            Status::Gap(last) if place.lane.is_behind(last) => return self.lose_session(p),
            // Not even a session or a skip: the partition takes no writes now.
            Status::Refused(_) => {
                let resume_us = self.now_us + RETRY_BACKOFF_MAX_US;
                let calls = place.lane.refuse_all(resume_us);
                place.lane.go_back(false);
                self.asleep.insert((resume_us, p));
                self.calls -= calls.len();
                return Outcome::DeliverAll(calls.into_iter().map(|call| call.origin).collect());
            }
            Status::Gap(_) => self.fail(p, Next::Again),
            Status::Retry => self.fail(p, Next::Other),
            // Done or Opened do not fit the request: a broken node; ask it anew.
            Status::Busy | Status::Done(_) | Status::Opened(_) => self.fail(p, Next::Later),
        }
        Outcome::Nothing
    }

    fn lose_session(&mut self, p: u16) -> Outcome {
        let unknown = self.places[usize::from(p)].lane.lose_session();
        self.calls -= unknown.len();
        self.fail(p, Next::Again);
        Outcome::Lost(unknown.into_iter().map(|call| call.origin).collect())
    }

    /// Whether the node has left a lane without a reply for so long that another replica should be asked. Reads may wait
    /// for the large replies of others: for them any bytes of the link are a sign that the node lives and will answer. So
    /// they are for a lane that waits for credit, which a node that answers nothing never gives back.
    fn is_silent(&self, p: u16) -> bool {
        let place = &self.places[usize::from(p)];
        let is_long_ago = |since_us: u64| since_us + LANE_SILENCE_US <= self.now_us;
        let link = place.leader.and_then(|node| {
            let links = &self.nodes.get(node)?.links;
            links.get(usize::from(p) % links.len())
        });
        let is_link_silent = link.is_none_or(|link| is_long_ago(link.silent_since_us));
        match place.lane.silent_since_us() {
            Some(since_us) => is_long_ago(since_us) && (place.lane.has_writes_under_way() || is_link_silent),
            None => is_link_silent && link.is_some_and(|link| link.starved.contains(&p)),
        }
    }

    /// Looks for silence and passed deadlines; returns what is given up.
    pub(crate) fn sweep(&mut self) -> Vec<(u16, Origin, Failure)> {
        let mut given_up = Vec::new();
        if self.calls == 0 {
            return given_up;
        }
        for p in 0..self.places.len() as u16 {
            let place = &mut self.places[usize::from(p)];
            let expired = place.lane.expire(self.now_us);
            let is_silent = self.is_silent(p);
            if is_silent || expired.has_skips {
                // The writes that were given up go out again as skips.
                self.fail(p, Next::Other);
            }
            if !expired.unknown.is_empty() || !expired.not_executed.is_empty() {
                self.make_ready(p);
            }
            self.calls -= expired.unknown.len() + expired.not_executed.len();
            given_up.extend(expired.unknown.into_iter().map(|call| (p, call.origin, Failure::Unknown)));
            given_up
                .extend(expired.not_executed.into_iter().map(|call| (p, call.origin, Failure::NotExecuted)));
        }
        given_up
    }

    /// Checks the invariants.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        self.places.iter().for_each(|place| place.lane.check_invariants());
        for (n, node) in self.nodes.iter().enumerate() {
            for (worker, link) in node.links.iter().enumerate() {
                let id = LinkId { node: n, worker: worker as u16 };
                let mut used_by_lane: BTreeMap<u16, Used> = BTreeMap::new();
                let mut used = Used::default();
                for flight in self.flights.values().filter(|flight| flight.link == id) {
                    used.add(flight.bytes);
                    used_by_lane.entry(flight.lane).or_default().add(flight.bytes);
                }
                assert_eq!(used, link.used, "credit is miscounted on {id:?}");
                assert_eq!(used_by_lane, link.used_by_lane, "credit is miscounted on {id:?}");
                assert!(used.requests <= self.limits.credit_requests, "too many requests are on {id:?}");
            }
        }
    }
}

/// Whether a status says that this copy of the write was not and will not be executed.
fn is_disowned(status: Status<'_>) -> bool {
    match status {
        Status::NotLeader(_) | Status::Gap(_) | Status::Busy | Status::Refused(_) | Status::NotHere(_) => {
            true
        }
        Status::Done(_) | Status::Retry | Status::NoSession | Status::Opened(_) => false,
    }
}

/// For each key of a command its part and its place among the keys of that part.
fn key_order(ask: &Ask<'_>, parts: &[Part]) -> Vec<(u32, u32)> {
    let mut order: Vec<(usize, (u32, u32))> = Vec::with_capacity(ask.args.len());
    for (part, i) in parts.iter().zip(0u32..) {
        order.extend(part.keys.iter().zip(0u32..).map(|(key, place)| (*key, (i, place))));
    }
    order.sort_unstable_by_key(|(key, _)| *key);
    order.into_iter().map(|(_, place)| place).collect()
}

impl Host for Upstream {
    fn map(&self) -> Option<&ClusterMap> {
        self.map.as_ref()
    }

    fn leader_of(&self, partition: PartitionId) -> Option<&NodeId> {
        let leader = self.places.get(usize::from(partition.0))?.leader?;
        self.nodes.get(leader).map(|node| &node.id)
    }

    fn my_node(&self) -> Option<&NodeId> {
        None
    }

    fn facts(&self) -> Facts {
        self.facts.clone()
    }

    fn ringfort(&self, query: RingfortQuery) -> Result<String, String> {
        match query {
            RingfortQuery::Map => {
                let map = self.map.as_ref().ok_or_else(|| "no cluster map yet".to_owned())?;
                Ok(map_json(map, |partition| self.leader_of(partition)))
            }
            RingfortQuery::Node | RingfortQuery::Digest => Err("this is a proxy; ask a node".to_owned()),
        }
    }
}
