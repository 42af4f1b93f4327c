//! One proxy worker without its sockets: bytes, frames and the time go in, bytes and wishes come out.
//!
//! ```text
//!  client_data -> Session -> route -> Lane (exactly-once session) --turn--> link_output
//!                    ^                  |
//!  client_output <---+---- gather <-----+<------------------------- link_frame (Reply)
//! ```
//!
//! Equal inputs in equal order give equal outputs: there is no clock and no other source of randomness than the seed.

use crate::clients::{Address, Place, WorkerClients};
use crate::errands::{self, Errands};
use crate::gather::{Gather, Join};
use crate::lane::WriteNumber;
use crate::limits::Limits;
use crate::session::{Answer, Ask, Facts, Mode, PIPELINE_MAX, PendingReads, Session, Ticket};
use crate::slab::Slab;
use crate::upstream::{Failure, LinkId, Origin, Outcome, Upstream, WantedLink};
use bytes::Bytes;
use ringfort_resp::{Protocol, ReplyWriter};
use ringfort_wire::request::ReplyPart;
use ringfort_wire::{ClusterMap, MetaWrite, Reply, Status, WireError};
use std::collections::BTreeMap;

/// Interval at which deadlines and silence are looked at, µs.
const SWEEP_US: u64 = 10_000;
/// Interval at which silent clients and buffers that nobody uses are looked for, µs.
const IDLE_LOOK_US: u64 = 1_000_000;
/// What stands for a reply that nobody waits for.
const UNWANTED: &[u8] = b"-ERR the client is gone\r\n";

/// A client connection of one [`Proxy`]; never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(u64);

#[derive(Debug)]
struct Client {
    session: Session,
    /// Its last write in each partition, to make its later reads see it; cleared when everything is answered.
    last_writes: BTreeMap<u16, WriteNumber>,
    /// The slots of its unanswered reads, in the order of the tickets.
    reads: PendingReads,
    /// Whether a full lane holds it up.
    is_blocked: bool,
    /// Whether its next command waits until one of its reads is answered.
    is_held: bool,
    /// Whether it is in `Proxy::touched`.
    is_touched: bool,
    /// Whether it is in `Proxy::to_decode`.
    is_to_decode: bool,
}

impl Client {
    fn wants_next(&self) -> bool {
        !self.is_blocked && !self.is_held && self.session.wants_next()
    }
}

/// A command in parts.
#[derive(Debug)]
pub(crate) struct Gathering {
    client: u64,
    ticket: Ticket,
    gather: Gather,
}

impl Gathering {
    pub(crate) fn new(client: u64, ask: &Ask<'_>, join: Join, parts: usize) -> Self {
        Self { client, ticket: ask.ticket, gather: Gather::new(join, ask.protocol, parts) }
    }
}

/// One proxy worker.
///
/// Inputs may come at any time; [`Proxy::turn`] then does what follows from them. Times are µs of any clock that does not
/// go back.
#[derive(Debug)]
pub struct Proxy {
    clients: Slab<Client>,
    /// What they share with the clients of other workers.
    shared: WorkerClients,
    gatherings: Slab<Gathering>,
    errands: Errands,
    upstream: Upstream,
    touched: Vec<ClientId>,
    /// Clients whose sessions may hold a command.
    to_decode: Vec<u64>,
    /// Clients whose next command waits for the end of CLIENT PAUSE.
    paused: Vec<u64>,
    next_idle_look_us: u64,
    next_sweep_us: u64,
    /// Most unanswered commands of a client.
    pipeline_max: usize,
}

impl Proxy {
    /// A worker without clients, links and map. `deadline_us`: how long a command may take before its client gets an error;
    /// `shared`: what its clients share with those of other workers.
    pub fn new(seed: u64, deadline_us: u64, shared: WorkerClients) -> Self {
        Self {
            clients: Slab::default(),
            shared,
            gatherings: Slab::default(),
            errands: Errands::default(),
            upstream: Upstream::new(seed, deadline_us),
            touched: Vec::new(),
            to_decode: Vec::new(),
            paused: Vec::new(),
            next_idle_look_us: 0,
            next_sweep_us: 0,
            pipeline_max: PIPELINE_MAX,
        }
    }

    /// Sets other bounds, for the clients and the map that come next.
    pub fn set_limits(&mut self, limits: Limits) {
        self.pipeline_max = limits.pipeline;
        self.upstream.set_limits(limits);
    }

    // The client side.

    /// A client connected.
    pub fn client_open(&mut self, place: Place, address: &Address) -> ClientId {
        let id = self.clients.insert(Client {
            session: Session::new(Mode::Proxy, place, address, self.shared.clone()),
            last_writes: BTreeMap::new(),
            reads: PendingReads::default(),
            is_blocked: false,
            is_held: false,
            is_touched: false,
            is_to_decode: false,
        });
        if let Some(client) = self.clients.get_mut(id) {
            client.session.set_key(id);
            client.session.set_pipeline_max(self.pipeline_max);
        }
        ClientId(id)
    }

    /// A client came by TLS: it is told the nodes' TLS addresses.
    pub fn client_set_tls(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id.0) {
            client.session.set_tls();
        }
    }

    /// A client is gone. What it asked for is done all the same; the replies are dropped, large ones at their first part.
    pub fn client_close(&mut self, id: ClientId) {
        self.clients.remove(id.0);
    }

    /// Bytes of a client came; the next turn decodes them.
    pub fn client_data(&mut self, id: ClientId, bytes: &[u8]) {
        if let Some(client) = self.clients.get_mut(id.0) {
            client.session.push_input(bytes);
            if client.session.is_over() {
                self.touch(id.0);
            }
            self.plan_decode(id.0);
        }
    }

    /// Whether the client's socket should be read now.
    pub fn client_wants_input(&self, id: ClientId) -> bool {
        self.clients
            .get(id.0)
            .is_some_and(|client| !client.is_blocked && !client.is_held && client.session.wants_input())
    }

    /// Bytes to send to the client.
    pub fn client_output(&self, id: ClientId) -> &[u8] {
        self.clients.get(id.0).map_or(&[], |client| client.session.output())
    }

    /// Whether the client's output leaves at the [pace](crate::pace) of large replies.
    pub fn client_is_bulk(&mut self, id: ClientId) -> bool {
        self.clients.get_mut(id.0).is_some_and(|client| client.session.is_bulk())
    }

    /// Forgets `count` bytes of the client's output, which have been sent. More may be decoded after it: run a turn when
    /// [`Proxy::has_work`].
    pub fn client_sent(&mut self, id: ClientId, count: usize) {
        if let Some(client) = self.clients.get_mut(id.0) {
            client.session.sent(count);
            self.plan_decode(id.0);
        }
    }

    /// Whether the client's connection is to be closed now.
    pub fn client_is_over(&self, id: ClientId) -> bool {
        self.clients.get(id.0).is_none_or(|client| client.session.is_over())
    }

    /// A client will send no more; it is over when what it sent is answered and the answers are sent.
    pub fn client_end_input(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id.0) {
            client.session.end_input();
            self.touch(id.0);
        }
    }

    /// Ends a client's session when what it asked for is answered: nothing more is decoded.
    pub fn client_finish(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id.0) {
            client.session.close();
            self.touch(id.0);
        }
    }

    /// Clients whose output, wish for input or end may have changed since this was called last.
    pub fn take_touched(&mut self) -> Vec<ClientId> {
        let touched = core::mem::take(&mut self.touched);
        for id in &touched {
            if let Some(client) = self.clients.get_mut(id.0) {
                client.is_touched = false;
            }
        }
        touched
    }

    /// Open clients.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Commands that wait for the cluster (a split one counts for each part).
    pub fn unanswered(&self) -> usize {
        self.upstream.calls()
    }

    /// What INFO shows.
    pub fn set_facts(&mut self, facts: Facts) {
        self.upstream.set_facts(facts);
    }

    // The node side.

    /// Takes a cluster map; one that is not newer than the known one, or is of another cluster, is ignored. Returns whether
    /// it was taken.
    pub fn update_map(&mut self, map: ClusterMap) -> bool {
        let is_taken = self.upstream.update_map(map);
        if let Some(map) = self.map().filter(|_| is_taken) {
            self.shared.all().follow(map);
        }
        is_taken
    }

    /// The cluster map.
    pub fn map(&self) -> Option<&ClusterMap> {
        use crate::session::Host as _;
        self.upstream.map()
    }

    /// Whether a newer map should be fetched at once; asking takes the wish back.
    pub fn take_map_wish(&mut self) -> bool {
        self.upstream.take_map_wish()
    }

    /// The links to hold.
    pub fn wanted_links(&self) -> Vec<WantedLink> {
        self.upstream.wanted_links()
    }

    /// Whether [`Proxy::wanted_links`] may have changed since this was asked last.
    pub fn take_links_changed(&mut self) -> bool {
        self.upstream.take_links_changed()
    }

    /// A link's handshake is done; the node has so many workers. `false`: the link is of no use, close it.
    pub fn link_up(&mut self, link: LinkId, workers: u16, now_us: u64) -> bool {
        self.set_now(now_us);
        self.upstream.link_up(link, workers)
    }

    /// A link is lost, with its unsent output.
    pub fn link_down(&mut self, link: LinkId, now_us: u64) {
        self.set_now(now_us);
        self.upstream.link_down(link);
    }

    /// Moves the frames to send on a link to the end of `out`.
    pub fn take_link_output(&mut self, link: LinkId, out: &mut Vec<u8>) {
        if let Some(output) = self.upstream.link_output(link) {
            if out.is_empty() {
                core::mem::swap(out, output);
            } else {
                out.append(output);
            }
        }
    }

    /// Links with frames to send.
    pub fn links_with_output(&self) -> Vec<LinkId> {
        self.upstream.links_with_output().collect()
    }

    /// Bytes came on a link, perhaps of a reply that is not whole yet.
    pub fn link_heard(&mut self, link: LinkId, now_us: u64) {
        self.set_now(now_us);
        self.upstream.link_heard(link);
    }

    /// A part of a large reply came on a link. Returns the pieces of the reply when it is whole; where nobody waits for it
    /// any more, the node is told to send no more of it.
    ///
    /// # Errors
    /// It does not fit the parts before it: drop the link.
    pub fn link_part(
        &mut self,
        link: LinkId,
        part: &ReplyPart<'_>,
        now_us: u64,
    ) -> Result<Option<Vec<Bytes>>, WireError> {
        let has_client = |origin| match origin {
            Origin::Whole { client, .. } => self.clients.get(client).is_some(),
            Origin::Part { gather, .. } => {
                self.gatherings.get(gather).is_some_and(|g| self.clients.get(g.client).is_some())
            }
        };
        if !self.upstream.is_waited_for(part.id, has_client) {
            self.upstream.refuse_part(link, part);
            self.handle_reply(link, &Reply { id: part.id, status: Status::Refused(UNWANTED) }, None, now_us);
            return Ok(None);
        }
        let whole = self.upstream.take_part(link, part)?;
        if let Some(pieces) = &whole {
            self.handle_reply(link, &Reply { id: part.id, status: Status::Done(&[]) }, Some(pieces), now_us);
        }
        Ok(whole)
    }

    /// A reply came on a link.
    pub fn link_reply(&mut self, link: LinkId, reply: &Reply<'_>, now_us: u64) {
        self.handle_reply(link, reply, None, now_us);
    }

    /// `pieces`: the bytes of the reply, to be kept as they are, in place of those in it.
    fn handle_reply(&mut self, link: LinkId, reply: &Reply<'_>, pieces: Option<&[Bytes]>, now_us: u64) {
        self.set_now(now_us);
        let (p, outcome) = self.upstream.handle_reply(link, reply);
        let bytes = match reply.status {
            Status::Done(bytes) | Status::Refused(bytes) => bytes,
            _ => &[],
        };
        let answer = || pieces.map_or(Answer::Copied(bytes), |pieces| Answer::Shared(pieces.to_vec()));
        match outcome {
            Outcome::Nothing => {}
            Outcome::Deliver(origin) => self.deliver(origin, answer()),
            Outcome::DeliverAll(origins) => {
                origins.into_iter().for_each(|origin| self.deliver(origin, answer()))
            }
            Outcome::Lost(origins) => {
                origins.into_iter().for_each(|origin| self.deliver_failure(p, origin, Failure::Unknown));
            }
        }
    }

    fn set_now(&mut self, now_us: u64) {
        self.shared.set_now(now_us);
        self.upstream.set_now(now_us);
    }

    /// Takes the changes that clients ask of the meta group, with their numbers.
    pub fn take_errands(&mut self) -> Vec<(u64, MetaWrite)> {
        self.errands.take()
    }

    /// What became of one: done, or the text of an error reply. After a change the map that shows it comes first
    /// ([`Proxy::update_map`]).
    pub fn errand_done(&mut self, errand: u64, outcome: &Result<(), String>) {
        if let Some((client, ticket)) = self.errands.end(errand) {
            self.answer(client, ticket, Answer::Copied(&errands::reply(outcome)));
        }
    }

    // The turn.

    /// Decodes what came, fills the links' outputs, and gives up what took too long.
    pub fn turn(&mut self, now_us: u64) {
        self.set_now(now_us);
        if self.next_sweep_us <= now_us {
            self.next_sweep_us = now_us + SWEEP_US;
            for (p, origin, failure) in self.upstream.sweep() {
                self.deliver_failure(p, origin, failure);
            }
        }
        self.attend_clients(now_us);
        let mut unblocked = Vec::new();
        loop {
            let count = self.to_decode.len();
            for i in 0..count {
                self.decode(self.to_decode[i]);
            }
            self.to_decode.drain(..count);
            self.upstream.send(&mut unblocked);
            for id in unblocked.drain(..) {
                if let Some(client) = self.clients.get_mut(id) {
                    client.is_blocked = false;
                    self.plan_decode(id);
                    self.touch(id);
                }
            }
            if self.to_decode.is_empty() {
                return;
            }
        }
    }

    /// Does what others asked of clients here, lets go on who was paused, and cuts who was silent for too long.
    fn attend_clients(&mut self, now_us: u64) {
        for id in self.shared.take_noted() {
            if let Some(client) = self.clients.get_mut(id) {
                client.session.attend();
                self.touch(id);
            }
        }
        if !self.paused.is_empty() && !self.shared.is_paused() {
            for id in core::mem::take(&mut self.paused) {
                if let Some(client) = self.clients.get_mut(id) {
                    client.session.resume();
                    self.plan_decode(id);
                }
            }
        }
        if self.next_idle_look_us <= now_us {
            self.next_idle_look_us = now_us + IDLE_LOOK_US;
            for id in self.clients.keys() {
                if let Some(client) = self.clients.get_mut(id) {
                    client.session.cut_if_idle();
                    if client.session.give_back_buffers() {
                        client.reads = PendingReads::default();
                        client.last_writes.clear();
                    }
                    if client.session.is_over() {
                        self.touch(id);
                    }
                }
            }
        }
    }

    /// Whether a turn has something to do at once.
    pub fn has_work(&self) -> bool {
        !self.to_decode.is_empty()
    }

    /// The latest time for the next turn; `None`: not before something comes.
    pub fn next_wakeup_us(&self) -> Option<u64> {
        let sweep = (self.upstream.calls() > 0).then_some(self.next_sweep_us);
        let pause_end = self.shared.pause_end_us().filter(|_| !self.paused.is_empty());
        let idle_look = (self.clients.len() > 0).then_some(self.next_idle_look_us);
        [sweep, pause_end, idle_look, self.upstream.next_wakeup_us()].into_iter().flatten().min()
    }

    fn plan_decode(&mut self, id: u64) {
        if let Some(client) = self.clients.get_mut(id)
            && client.wants_next()
            && !client.is_to_decode
        {
            client.is_to_decode = true;
            self.to_decode.push(id);
        }
    }

    fn decode(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(id) else { return };
        client.is_to_decode = false;
        if client.session.unanswered() == 0 {
            client.last_writes.clear();
        }
        while !client.is_blocked
            && let Some(ask) = client.session.next(&self.upstream)
        {
            if !ask.spec.is_write {
                client.reads.add(&ask);
            } else if client.reads.conflicts_with(&ask) {
                client.session.put_back();
                client.is_held = true;
                break;
            }
            let full = self.upstream.submit(id, &mut client.last_writes, &ask, &mut self.gatherings);
            if let Some(p) = full {
                client.is_blocked = true;
                self.upstream.block(p, id);
            }
        }
        if let Some((ticket, write)) = client.session.take_errand()
            && !self.errands.begin(id, ticket, write)
        {
            client.session.answer_error(ticket, errands::TOO_MANY);
            self.plan_decode(id);
        } else if client.session.is_paused() {
            self.paused.push(id);
        }
        self.touch(id);
    }

    fn touch(&mut self, id: u64) {
        if let Some(client) = self.clients.get_mut(id)
            && !client.is_touched
        {
            client.is_touched = true;
            self.touched.push(ClientId(id));
        }
    }

    fn deliver(&mut self, origin: Origin, reply: Answer<'_>) {
        match origin {
            Origin::Whole { client, ticket } => self.answer(client, ticket, reply),
            Origin::Part { gather, part } => {
                let Some(gathering) = self.gatherings.get_mut(gather) else { return };
                if let Some(joined) = gathering.gather.answer(part as usize, &reply.bytes()) {
                    let (client, ticket) = (gathering.client, gathering.ticket);
                    self.gatherings.remove(gather);
                    self.answer(client, ticket, Answer::Copied(&joined));
                }
            }
        }
    }

    fn deliver_failure(&mut self, p: u16, origin: Origin, failure: Failure) {
        let mut reply = Vec::new();
        ReplyWriter::new(&mut reply, Protocol::Resp2).error(&failure.text(p));
        self.deliver(origin, Answer::Copied(&reply));
    }

    fn answer(&mut self, id: u64, ticket: Ticket, reply: Answer<'_>) {
        let Some(client) = self.clients.get_mut(id) else { return };
        client.session.answer_with(ticket, reply);
        client.reads.remove(ticket);
        client.is_held = false;
        self.plan_decode(id);
        self.touch(id);
    }

    /// Checks the invariants.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        self.upstream.check_invariants();
    }
}

#[cfg(test)]
mod tests;
