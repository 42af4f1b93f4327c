//! Where the effects of a worker's groups go: buffers of peers, of proxies' links and of clients.

use super::replies::{LargeReply, LinkReplies, ParkedRead};
use crate::shard::limits::Limits;
use crate::shard::raft::Message;
use crate::shard::{Access, Origin, Ports, Submission};
use bytes::Bytes;
use ringfort_proxy::gather::Gather;
use ringfort_proxy::session::{Answer, PendingReads, Session, Ticket};
use ringfort_proxy::slab::Slab;
use ringfort_resp::{Command, Cursor, Protocol, ReplyWriter};
use ringfort_ring::{NodeId, Slot};
use ringfort_store::LargeValue;
use ringfort_store::REPLY_BYTES_MAX;
use ringfort_wire::frame::{self, Kind};
use ringfort_wire::request::{Reply, Status};
use ringfort_wire::{ClusterMap, GroupId, MetaAnswer};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Answers to a client when its command was not, or not surely, executed.
const NO_LEADER: &str = "CLUSTERDOWN The partition has no leader now; the command was not executed";
const UNKNOWN: &str = "ERR outcome unknown: the leader lost its office while the write was in its log";
const BUSY: &str = "TRYAGAIN Too much is queued for the partition; the command was not executed";

const REPLY_TOO_LARGE: &[u8] = b"-ERR the reply is too large; ask for fewer keys at once\r\n";

/// What a read is answered whose reply finds no room.
pub(super) const TOO_MANY_LARGE: &[u8] =
    b"-TRYAGAIN Too many large replies are on their way to this proxy; the command was not executed\r\n";

/// Most bytes of Raft messages kept for one peer that does not read; beyond, they are dropped (Raft sends again).
pub const PEER_BYTES_MAX: usize = 64 << 20;

/// Room for Raft messages to one worker of a peer that is kept from turn to turn.
const PEER_BYTES_KEPT: usize = 1 << 20;

/// What one worker asks of another one of its node.
#[derive(Debug)]
pub enum WorkerMessage {
    /// Execute a command of a client that is connected to the sender.
    Command {
        /// Where the answer goes.
        origin: Origin,
        /// The group.
        group: GroupId,
        /// What it does, and whose client it is.
        access: Access,
        /// Whether a read must see the writes queued before it.
        is_after_queued: bool,
        /// The encoded command.
        body: Vec<u8>,
    },
    /// Execute a command on all partitions that the node leads.
    Everywhere {
        /// Where the answer goes.
        origin: Origin,
        /// The command.
        command: Command,
        /// The form of its reply.
        protocol: Protocol,
        /// The encoded command.
        body: Vec<u8>,
    },
    /// A report to the meta group ([`ringfort_wire::MetaWrite`] as JSON).
    Meta(Vec<u8>),
    /// An answer for a client of the receiver.
    ClientReply {
        /// The client.
        client: u64,
        /// Its command.
        ticket: Ticket,
        /// The reply.
        reply: Vec<u8>,
    },
    /// An answer for a command that the receiver gathers.
    GatherReply {
        /// The command.
        gather: u64,
        /// The reply.
        reply: Vec<u8>,
    },
}

/// A proxy's link.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Received and not yet cut into frames.
    pub(super) input: Vec<u8>,
    /// To be sent.
    pub(super) replies: LinkReplies,
    /// Requests that are not answered.
    pub(super) unanswered: usize,
}

/// A client of the node's own port.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) session: Session,
    /// Its writes that are not answered; while there are any, its reads wait for them.
    pub(super) writes: usize,
    /// Tickets of those writes, oldest first.
    pub(super) write_tickets: std::collections::VecDeque<Ticket>,
    /// Its reads that are not answered; a write on their slots waits for them.
    pub(super) reads: PendingReads,
    /// Whether its next command is such a write.
    pub(super) is_held: bool,
}

impl Client {
    /// Whether its next command can be executed.
    pub(super) fn wants_next(&self) -> bool {
        !self.is_held && self.session.wants_next()
    }
}

/// A command that is answered when all of its parts are.
#[derive(Debug)]
struct Gathering {
    gather: Gather,
    parent: Origin,
}

/// A node, as this worker sends to it.
#[derive(Debug, Default)]
struct Peer {
    /// Number of its workers; 0 while that is not known.
    workers: u16,
    /// Raft frames for each of them. The buffers stay from turn to turn.
    buffers: Vec<Vec<u8>>,
    /// Whether more than answers to heartbeats is in them.
    is_urgent: bool,
}

impl Peer {
    fn buffer(&mut self, worker: u16) -> &mut Vec<u8> {
        let worker = usize::from(worker);
        if self.buffers.len() <= worker {
            self.buffers.resize_with(worker + 1, Vec::new);
        }
        &mut self.buffers[worker]
    }
}

/// Buffers towards everyone else.
#[derive(Debug)]
pub(super) struct PortTable {
    pub(super) worker: u16,
    limits: Limits,
    pub(super) map: Option<Arc<ClusterMap>>,
    pub(super) links: Slab<Link>,
    pub(super) clients: Slab<Client>,
    gathers: Slab<Gathering>,
    peers: BTreeMap<NodeId, Peer>,
    /// Snapshots to be sent.
    pub(super) snapshots: Vec<(NodeId, GroupId, Message)>,
    /// Answers to changes of the cluster map, by their numbers.
    pub(super) meta_answers: Vec<(u64, MetaAnswer)>,
    /// Messages for the other workers of this node.
    pub(super) workers: Vec<(u16, WorkerMessage)>,
    /// Links and clients that have something to send.
    pub(super) touched_links: Vec<u64>,
    pub(super) touched_clients: Vec<u64>,
    /// Links with room that is reserved in this turn.
    reserved_links: Vec<u64>,
    /// Whether a read with a large reply was executed in this turn.
    is_large_taken: bool,
    /// Before this time no other one is.
    next_large_us: u64,
    pub(super) now_us: u64,
}

impl PortTable {
    pub(super) fn new(worker: u16, limits: Limits) -> Self {
        Self {
            worker,
            limits,
            map: None,
            links: Slab::default(),
            clients: Slab::default(),
            gathers: Slab::default(),
            peers: BTreeMap::new(),
            snapshots: Vec::new(),
            meta_answers: Vec::new(),
            workers: Vec::new(),
            touched_links: Vec::new(),
            touched_clients: Vec::new(),
            reserved_links: Vec::new(),
            is_large_taken: false,
            next_large_us: 0,
            now_us: 0,
        }
    }

    /// Starts to gather the answers to the parts of a command for `parent`.
    pub(super) fn gather(&mut self, gather: Gather, parent: Origin) -> Origin {
        Origin::Gather { worker: self.worker, gather: self.gathers.insert(Gathering { gather, parent }) }
    }

    /// Takes a whole RESP reply for `origin`, wherever it is.
    pub(super) fn reply_bytes(&mut self, origin: Origin, bytes: &[u8]) {
        match origin {
            Origin::None | Origin::Follower { .. } => {}
            Origin::Meta { number } => self.meta_reply(number, Status::Done(bytes)),
            Origin::Link { link, id } => self.link_reply(link, &Reply { id, status: Status::Done(bytes) }),
            Origin::Client { worker, client, ticket, .. } if worker == self.worker => {
                self.client_reply(client, ticket, bytes);
            }
            Origin::Client { worker, client, ticket, .. } => {
                self.workers
                    .push((worker, WorkerMessage::ClientReply { client, ticket, reply: bytes.to_vec() }));
            }
            Origin::Gather { worker, gather } if worker == self.worker => self.gather_reply(gather, bytes),
            Origin::Gather { worker, gather } => {
                self.workers.push((worker, WorkerMessage::GatherReply { gather, reply: bytes.to_vec() }));
            }
        }
    }

    /// Number of workers of a node; 0 while it was never reachable.
    pub(super) fn peer_workers(&self, node: &NodeId) -> u16 {
        self.peers.get(node).map_or(0, |peer| peer.workers)
    }

    /// A node is reachable and has so many workers.
    pub(super) fn peer_up(&mut self, node: NodeId, workers: u16) {
        self.peers.entry(node).or_default().workers = workers.max(1);
    }

    /// Hands the frames for each worker of each node to `send`; where there are only answers to heartbeats they may be held.
    pub(super) fn send_to_peers(&mut self, holds_answers: bool, mut send: impl FnMut(&NodeId, u16, &[u8])) {
        for (node, peer) in &mut self.peers {
            if holds_answers && !peer.is_urgent {
                continue;
            }
            peer.is_urgent = false;
            for (worker, buffer) in (0..).zip(&mut peer.buffers).filter(|(_, buffer)| !buffer.is_empty()) {
                send(node, worker, buffer);
                buffer.clear();
                buffer.shrink_to(PEER_BYTES_KEPT);
            }
        }
    }

    /// What was to be sent to a node is dropped.
    pub(super) fn forget_peer(&mut self, node: &NodeId) {
        if let Some(peer) = self.peers.get_mut(node) {
            peer.buffers.clear();
        }
    }

    /// Sends a report to the node that may lead the meta group.
    pub(super) fn send_meta(&mut self, to: &NodeId, body: &[u8]) {
        let peer = self.peers.entry(to.clone()).or_default();
        peer.is_urgent = true;
        let buffer = peer.buffer(worker_of(GroupId::META, 1));
        if buffer.len() < PEER_BYTES_MAX {
            frame::put(buffer, Kind::MetaReport, |out| out.extend_from_slice(body));
        }
    }

    pub(super) fn client_reply(&mut self, client: u64, ticket: Ticket, bytes: &[u8]) {
        self.client_answer(client, ticket, Answer::Copied(bytes));
    }

    pub(super) fn client_answer(&mut self, client: u64, ticket: Ticket, answer: Answer<'_>) {
        let Some(state) = self.clients.get_mut(client) else { return };
        if let Some(at) = state.write_tickets.iter().position(|t| *t == ticket) {
            state.write_tickets.remove(at);
            state.writes -= 1;
        }
        state.reads.remove(ticket);
        state.is_held = false;
        state.session.answer_with(ticket, answer);
        if self.touched_clients.last() != Some(&client) {
            self.touched_clients.push(client);
        }
    }

    pub(super) fn gather_reply(&mut self, gather: u64, bytes: &[u8]) {
        let Some(state) = self.gathers.get_mut(gather) else { return };
        if let Some(joined) = state.gather.push(bytes)
            && let Some(done) = self.gathers.remove(gather)
        {
            self.reply_bytes(done.parent, &joined);
        }
    }

    fn link_reply_large(&mut self, link: u64, id: u64, pieces: [Bytes; 3]) {
        let Some(state) = self.links.get_mut(link) else { return };
        if state.replies.is_flushed() {
            self.touched_links.push(link);
        }
        state.replies.put_large(LargeReply::new(id, pieces));
        state.unanswered = state.unanswered.saturating_sub(1);
    }

    fn link_reply(&mut self, link: u64, reply: &Reply<'_>) {
        let Some(state) = self.links.get_mut(link) else { return };
        if state.replies.is_flushed() {
            self.touched_links.push(link);
        }
        match reply.status {
            // A reply that fits no frame ends neither the node nor the link.
            Status::Done(bytes) | Status::Refused(bytes) if bytes.len() > REPLY_BYTES_MAX => {
                let reply = Reply { id: reply.id, status: Status::Refused(REPLY_TOO_LARGE) };
                state.replies.put(&reply, &self.limits);
            }
            _ => state.replies.put(reply, &self.limits),
        }
        state.unanswered = state.unanswered.saturating_sub(1);
    }

    /// The proxy has taken a part of a large reply: the next may follow.
    pub(super) fn part_taken(&mut self, link: u64) {
        if let Some(state) = self.links.get_mut(link) {
            state.replies.part_taken();
            self.touched_links.push(link);
        }
    }

    /// Nobody waits for the rest of a large reply: the next one may follow.
    pub(super) fn drop_rest(&mut self, link: u64, id: u64) {
        if let Some(state) = self.links.get_mut(link) {
            state.replies.drop_rest(id);
            self.touched_links.push(link);
        }
    }

    /// The largest reply to a read for which this worker has time.
    pub(super) fn large_room(&self) -> usize {
        match self.is_large_taken || self.now_us < self.next_large_us {
            true => self.limits.large_reply_bytes,
            false => usize::MAX,
        }
    }

    /// Whether a read with a large reply was executed in this turn.
    pub(super) fn is_large_taken(&self) -> bool {
        self.is_large_taken
    }

    /// The turn, which took so long, is over: what was reserved is put, or not needed. Copying values of megabytes takes
    /// milliseconds, in which everyone else waits: they have at least twice as long before the next one.
    pub(super) fn end_turn(&mut self, now_us: u64, took_us: u64) {
        if std::mem::take(&mut self.is_large_taken) {
            self.next_large_us = now_us + 2 * took_us;
        }
        for link in std::mem::take(&mut self.reserved_links) {
            if let Some(state) = self.links.get_mut(link) {
                state.replies.end_turn();
                if state.replies.has_parked() {
                    self.touched_links.push(link);
                }
            }
        }
    }

    /// The map that goes with `Done` is added when the answers are taken.
    fn meta_reply(&mut self, number: u64, status: Status<'_>) {
        let answer = match status {
            Status::Done(_) | Status::Opened(_) => MetaAnswer::Done(Vec::new()),
            Status::NotLeader(leader) => MetaAnswer::NotLeader(leader.to_owned()),
            Status::NotHere(_) | Status::Busy => MetaAnswer::NotLeader(String::new()),
            Status::Refused(reply) => {
                let text = String::from_utf8_lossy(reply);
                MetaAnswer::Refused(text.trim_start_matches('-').trim_end().to_owned())
            }
            Status::Retry | Status::Gap(_) | Status::NoSession => MetaAnswer::Again,
        };
        self.meta_answers.push((number, answer));
    }

    /// The reply to a step of a scan in a partition that is led here no more: nothing of it, on to the next one.
    fn scan_goes_on(&self, slot: Slot) -> Vec<u8> {
        let next = self.map.as_deref().map_or(0, |m| {
            let (_, last) = m.partitions.slots(m.partitions.of(slot));
            Cursor::slot_start(last.0 + 1).number()
        });
        let mut bytes = Vec::new();
        let writer = &mut ReplyWriter::new(&mut bytes, Protocol::Resp2);
        writer.array(2);
        writer.bulk(next.to_string().as_bytes());
        writer.array(0);
        bytes
    }

    /// What a client of the node's own port is told.
    fn client_text(&self, status: Status<'_>, slot: Slot, is_tls: bool) -> String {
        let moved = |map: &ClusterMap, node: &NodeId| {
            map.node(node).map(|n| format!("MOVED {} {}", slot.0, n.address(is_tls)))
        };
        let map = self.map.as_deref();
        match status {
            Status::NotLeader(hint) if !hint.is_empty() => {
                map.and_then(|m| moved(m, &NodeId(hint.to_owned()))).unwrap_or_else(|| NO_LEADER.to_owned())
            }
            Status::NotHere(_) => map
                .and_then(|m| moved(m, m.groups.get(usize::from(m.partitions.of(slot).0))?.wanted_leader()))
                .unwrap_or_else(|| NO_LEADER.to_owned()),
            Status::NotLeader(_) => NO_LEADER.to_owned(),
            Status::Retry | Status::NoSession | Status::Gap(_) => UNKNOWN.to_owned(),
            Status::Busy => BUSY.to_owned(),
            Status::Opened(_) | Status::Done(_) | Status::Refused(_) => "ERR unexpected answer".to_owned(),
        }
    }
}

impl Ports for PortTable {
    fn reply(&mut self, origin: Origin, status: Status<'_>) {
        let (slot, is_tls, is_scan) = match origin {
            Origin::None | Origin::Follower { .. } => return,
            Origin::Link { link, id } => return self.link_reply(link, &Reply { id, status }),
            Origin::Meta { number } => return self.meta_reply(number, status),
            Origin::Client { slot, is_tls, is_scan, .. } => (slot, is_tls, is_scan),
            Origin::Gather { .. } => (Slot(0), false, false),
        };
        match status {
            Status::Done(bytes) | Status::Refused(bytes) => self.reply_bytes(origin, bytes),
            Status::NotLeader(_) | Status::NotHere(_) if is_scan => {
                self.reply_bytes(origin, &self.scan_goes_on(slot));
            }
            other => {
                let mut bytes = Vec::new();
                ReplyWriter::new(&mut bytes, Protocol::Resp2).error(&self.client_text(other, slot, is_tls));
                self.reply_bytes(origin, &bytes);
            }
        }
    }

    fn reply_large(&mut self, origin: Origin, head: &[u8], value: LargeValue) {
        let pieces = [Bytes::copy_from_slice(head), Bytes::from_owner(value), Bytes::from_static(b"\r\n")];
        match origin {
            Origin::Link { link, id } => self.link_reply_large(link, id, pieces),
            Origin::Client { worker, client, ticket, .. } if worker == self.worker => {
                self.client_answer(client, ticket, Answer::Shared(pieces.into()));
            }
            _ => self.reply_bytes(origin, &pieces.concat()),
        }
    }

    fn room(&self, origin: Origin) -> usize {
        match origin {
            Origin::Link { link, .. } => {
                let room = self.links.get(link).map_or(usize::MAX, |link| link.replies.room(&self.limits));
                room.min(self.large_room())
            }
            Origin::Client { worker, client, ticket, .. } if worker == self.worker => {
                let client = self.clients.get(client);
                // One that is gone needs no reply.
                let room = client.map_or(self.limits.large_reply_bytes, |c| c.session.reply_room(ticket));
                room.min(self.large_room())
            }
            Origin::Client { .. } | Origin::Gather { .. } => self.large_room(),
            Origin::None | Origin::Meta { .. } | Origin::Follower { .. } => usize::MAX,
        }
    }

    fn reserve(&mut self, origin: Origin, bytes: usize) {
        self.is_large_taken |= self.limits.large_reply_bytes < bytes;
        if let Origin::Link { link, .. } = origin
            && let Some(state) = self.links.get_mut(link)
        {
            state.replies.reserve(bytes, &self.limits);
            self.reserved_links.push(link);
        }
    }

    fn park(&mut self, group: GroupId, read: Submission<'_>, reply_bytes: usize, since_us: u64) -> bool {
        if let Origin::Link { link, id } = read.origin
            && let Some(state) = self.links.get_mut(link)
        {
            let (session, seq, body) = (read.session, read.seq, read.body.to_vec());
            let parked = ParkedRead { id, group, session, seq, body, since_us, reply_bytes };
            if !state.replies.park(parked, &self.limits) {
                self.reply(read.origin, Status::Refused(TOO_MANY_LARGE));
            }
            return true;
        }
        false
    }

    fn send(&mut self, group: GroupId, incarnation: u32, to: &NodeId, message: &Message) {
        if message.snapshot_index().is_some() {
            self.snapshots.push((to.clone(), group, message.clone()));
            return;
        }
        let Some(peer) = self.peers.get_mut(to).filter(|peer| peer.workers > 0) else { return };
        peer.is_urgent |= !message.is_idle_answer();
        let buffer = peer.buffer(worker_of(group, peer.workers));
        if buffer.len() < PEER_BYTES_MAX {
            frame::put(buffer, Kind::Raft, |out| {
                out.extend_from_slice(&group.0.to_le_bytes());
                out.extend_from_slice(&incarnation.to_le_bytes());
                message.encode(out);
            });
        }
    }
}

/// The worker of a node with `workers` workers that owns a group.
pub fn worker_of(group: GroupId, workers: u16) -> u16 {
    group.partition().map_or(0, |p| p.0 % workers.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends what a link has, and returns how much that was.
    fn flush(ports: &mut PortTable, link: u64) -> usize {
        let replies = &mut ports.links.get_mut(link).unwrap().replies;
        let mut sent = 0;
        while let (output @ [_, ..], _) = replies.output(&Limits::USUAL) {
            let count = output.len();
            replies.sent(count);
            sent += count;
        }
        sent
    }

    #[test]
    fn a_small_reply_is_sent_by_the_turn_while_a_part_of_a_bulk_reply_waits() {
        let mut ports = PortTable::new(0, Limits::USUAL);
        let link = ports.links.insert(Link::default());
        let value = Bytes::from(vec![b'v'; 32 * Limits::USUAL.large_reply_bytes]);
        ports.link_reply_large(link, 1, [Bytes::from_static(b"head"), value, Bytes::from_static(b"\r\n")]);
        assert_eq!(std::mem::take(&mut ports.touched_links), [link]);
        assert_eq!(flush(&mut ports, link), 0, "it waits until it is let");
        for id in 2..4 {
            ports.link_reply(link, &Reply { id, status: Status::Done(b"+OK\r\n") });
            assert_eq!(std::mem::take(&mut ports.touched_links), [link]);
            assert_ne!(flush(&mut ports, link), 0);
        }
        // What the proxy has taken makes room for the next part.
        ports.part_taken(link);
        assert_eq!(ports.touched_links, [link]);
    }
}
