//! The network: packets, connections that break and come back, directions that are blocked.

use super::{Event, World};
use crate::net::{Conn, Host, Packet, Use};
use crate::options::SECOND;
use ringfort_proxy::clients::Address;
use ringfort_wire::frame::{self, Kind};
use ringfort_wire::request::ReplyPart;
use ringfort_wire::{Reply, Status};
use std::cmp::Reverse;
use std::collections::VecDeque;

/// Longest time until bytes of a broken connection are read, µs.
const LATE_US: u64 = 2 * SECOND;

/// Bytes of a broken connection that had reached the machine of their end, whose process reads them some time later,
/// beside the connection that has taken its place meanwhile. So TCP may deliver out of order, and twice what is sent
/// again; within one connection it never does.
pub(super) struct Late {
    conn: usize,
    end: usize,
    /// The process that reads them, and which of its lives.
    pub(super) to: Host,
    to_life: u64,
    /// The number under which the node knows the old connection.
    number: u64,
    /// When the last of them is read.
    until: u64,
    packets: VecDeque<Packet>,
}

impl World {
    pub(super) fn add_conn(&mut self, ends: [Host; 2], what: Use) -> usize {
        let conn = self.conns.len();
        self.conns.push(Conn::new(ends, what));
        let after = self.rng.below(100_000);
        self.after(after, Event::Connect { conn, life: 0 });
        conn
    }

    pub(super) fn node_number(&self, id: &str) -> usize {
        self.nodes.iter().position(|n| n.id.0 == id).expect("the map names only these nodes")
    }

    pub(super) fn find_conn(&self, is_it: impl Fn(&Conn) -> bool) -> usize {
        self.conns.iter().position(is_it).expect("every pair of nodes has a connection")
    }

    pub(super) fn is_blocked(&self, from: Host, to: Host) -> bool {
        self.blocked[from][to] > 0
    }

    pub(super) fn latency(&mut self) -> u64 {
        let (low, high) = self.options.latency_us;
        self.rng.spread(low, high)
    }

    pub(super) fn send(&mut self, conn: usize, from: Host, worker: u16, bytes: Vec<u8>) {
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

    pub(super) fn deliver(&mut self, conn: usize, end: usize) -> Result<(), String> {
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
            self.take_packet(conn, end, self.conns[conn].number, packet, false)?;
            if self.conns[conn].life != life {
                break;
            }
        }
        Ok(())
    }

    /// An end of a connection, which its node knows by `number`, reads bytes.
    fn take_packet(
        &mut self,
        conn: usize,
        end: usize,
        number: u64,
        packet: Packet,
        is_late: bool,
    ) -> Result<(), String> {
        let to = self.conns[conn].ends[end];
        match (self.conns[conn].what, end) {
            (Use::Peers, _) => {
                let worker = usize::from(packet.worker);
                let now = self.nodes[to].clocks.now(self.now);
                let Some(core) = &mut self.nodes[to].workers[worker].core else { return Ok(()) };
                let mut rest = &packet.bytes[..];
                while let Some(f) = frame::next(rest).map_err(|e| format!("a node sent a bad frame: {e}"))? {
                    core.peer_frame(f.kind, f.body, now)
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
                // Of those left behind nobody hears, and another process may use their ids again.
                if !is_late {
                    self.invariants.note_requests(conn, self.conns[conn].life, &packet.bytes);
                }
                core.link_data(number, &packet.bytes, now).map_err(|e| format!("a proxy is refused: {e}"))?;
                self.want_turn(to, worker);
                self.want_flush(to, worker);
            }
            (Use::Requests { worker }, _) => {
                let proxy = to - self.nodes.len();
                let node = self.conns[conn].ends[1];
                let Some(link) = self.link_of(proxy, node, worker) else { return Ok(()) };
                let mut rest = &packet.bytes[..];
                while let Some(f) = frame::next(rest).map_err(|e| format!("a node sent a bad frame: {e}"))? {
                    if f.kind == Kind::Reply {
                        let reply =
                            Reply::decode(f.body).map_err(|e| format!("a node sent a bad reply: {e}"))?;
                        if self.trace.lines.is_some() {
                            let text = format!("{:?}", reply.status);
                            self.line(|| format!("proxy {proxy} <- n{}: {} {text:.80}", node + 1, reply.id));
                        }
                        self.invariants.check_reply(conn, self.conns[conn].life, &reply)?;
                        self.proxies[proxy].core.link_reply(link, &reply, self.now);
                    }
                    if f.kind == Kind::ReplyPart {
                        let bad = |e| format!("a node sent a bad part of a reply: {e}");
                        let part = ReplyPart::decode(f.body).map_err(bad)?;
                        let core = &mut self.proxies[proxy].core;
                        if let Some(pieces) = core.link_part(link, &part, self.now).map_err(bad)? {
                            let bytes = pieces.concat();
                            let reply = Reply { id: part.id, status: Status::Done(&bytes) };
                            self.invariants.check_reply(conn, self.conns[conn].life, &reply)?;
                        }
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
                let client = self.options.proxy_clients + (to - self.nodes.len() - self.options.proxies);
                if self.clients[client].conns[self.clients[client].node] == conn {
                    self.clients[client].input.extend_from_slice(&packet.bytes);
                    self.take_replies(client)?;
                }
            }
        }
        Ok(())
    }

    /// A connection breaks: what is on its way is lost, the ends notice later.
    pub(super) fn break_conn(&mut self, conn: usize) {
        if !self.conns[conn].is_up {
            return;
        }
        if !self.is_healed && self.rng.one_in(self.options.late_one_in) {
            self.leave_behind(conn);
        }
        let c = &mut self.conns[conn];
        c.is_up = false;
        c.life += 1;
        let life = c.life;
        for stream in &mut c.streams {
            stream.packets.clear();
            stream.is_scheduled = false;
        }
        let [a, b] = self.conns[conn].ends.map(|host| self.host_name(host));
        self.line(|| format!("connection {conn} ({a}-{b}) breaks"));
        for end in 0..2 {
            let after = self.rng.spread(100, self.options.reconnect_us);
            self.after(after, Event::Lost { conn, end, life });
        }
    }

    /// What is on its way to nodes on a connection that breaks is read later, beside the next connection.
    fn leave_behind(&mut self, conn: usize) {
        for end in 0..2 {
            let c = &mut self.conns[conn];
            let (to, what) = (c.ends[end], c.what);
            let is_there = self.nodes.get(to).is_some_and(|node| node.is_up) && c.knows[end];
            if !is_there || c.streams[end].packets.is_empty() {
                continue;
            }
            let to_life = self.nodes[to].life;
            let packets = std::mem::take(&mut c.streams[end].packets);
            if what != Use::Peers {
                // The node reads on, and learns of the end when it has read everything; the other end need not wait.
                c.knows[end] = false;
            }
            let until = self.now + self.rng.spread(100, LATE_US);
            let late = Late { conn, end, to, to_life, number: c.number, until, packets };
            let (number, len) = (self.next_late, late.packets.len());
            self.next_late += 1;
            self.late.insert(number, late);
            self.report.late += len as u64;
            self.line(|| format!("connection {conn} leaves {len} packets behind to n{}", to + 1));
            let after = self.rng.below(until - self.now);
            self.after(after, Event::Late { number });
        }
    }

    /// The next bytes that a broken connection left behind are read; behind the last ones is its end.
    pub(super) fn deliver_late(&mut self, number: u64) -> Result<(), String> {
        let Some(late) = self.late.get_mut(&number) else { return Ok(()) };
        let (conn, end, to, old) = (late.conn, late.end, late.to, late.number);
        let is_there = self.nodes[to].is_up && self.nodes[to].life == late.to_life;
        let (until, left) = (late.until, late.packets.len() as u64);
        let packet = if is_there { late.packets.pop_front() } else { None };
        let Some(packet) = packet else {
            self.late.remove(&number);
            if is_there {
                self.close(conn, to, old);
            }
            return Ok(());
        };
        self.trace.note(self.now, 13, conn as u64, end as u64);
        self.line(|| format!("n{} reads {} late bytes of connection {conn}", to + 1, packet.bytes.len()));
        self.take_packet(conn, end, old, packet, true)?;
        // Their process reads on without a rest once it has begun.
        let after = 1 + self.rng.below(1 + 2 * until.saturating_sub(self.now) / (left + 1));
        self.after(after, Event::Late { number });
        Ok(())
    }

    /// A node learns that a connection of a proxy or a client, which it knows by `number`, is gone.
    fn close(&mut self, conn: usize, node: usize, number: u64) {
        match self.conns[conn].what {
            Use::Peers => {}
            Use::Requests { worker } => {
                if let Some(core) = &mut self.nodes[node].workers[usize::from(worker)].core {
                    core.link_close(number);
                }
            }
            Use::Client { worker } => {
                if let Some(core) = &mut self.nodes[node].workers[usize::from(worker)].core {
                    core.client_close(number);
                }
            }
        }
    }

    pub(super) fn lose(&mut self, conn: usize, end: usize, life: u64) -> Result<(), String> {
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
            (_, 1) => self.close(conn, to, number),
            (Use::Requests { worker }, _) => {
                let proxy = to - self.nodes.len();
                let now = self.now;
                if let Some(link) = self.link_of(proxy, other, worker) {
                    self.proxies[proxy].core.link_down(link, now);
                }
                self.want_proxy_turn(proxy, 50);
            }
            (Use::Client { .. }, _) => {
                let client = self.options.proxy_clients + (to - self.nodes.len() - self.options.proxies);
                if self.clients[client].conns[self.clients[client].node] == conn {
                    self.give_up(client)?;
                }
            }
        }
        self.plan_connect(conn);
        Ok(())
    }

    /// The process at one end is gone, so that nobody there will notice that the connection is, too.
    pub(super) fn forget_end(&mut self, conn: usize, end: usize) {
        if std::mem::replace(&mut self.conns[conn].knows[end], false) {
            self.plan_connect(conn);
        }
    }

    /// Connects again once both ends know that the connection is gone: whoever notices last calls this.
    pub(super) fn plan_connect(&mut self, conn: usize) {
        if self.conns[conn].knows == [false; 2] {
            let life = self.conns[conn].life;
            let after = self.rng.spread(1_000, self.options.reconnect_us);
            self.after(after, Event::Connect { conn, life });
        }
    }

    pub(super) fn connect(&mut self, conn: usize) -> Result<(), String> {
        let [a, b] = self.conns[conn].ends;
        let life = self.conns[conn].life;
        if self.conns[conn].is_up || self.conns[conn].knows != [false; 2] {
            return Ok(());
        }
        let is_dead = |host: Host| host < self.nodes.len() && !self.nodes[host].is_up;
        let is_paused = |host: Host| self.now < self.paused_until(host);
        let is_refused = is_dead(a) || is_dead(b) || self.is_blocked(a, b) || self.is_blocked(b, a);
        if is_refused || is_paused(a) || is_paused(b) {
            let after = self.rng.spread(1_000, self.options.reconnect_us);
            self.after(after, Event::Connect { conn, life });
            return Ok(());
        }
        self.conns[conn].is_up = true;
        self.conns[conn].life += 1;
        self.conns[conn].knows = [true; 2];
        self.trace.note(self.now, 9, conn as u64, 0);
        let names = (self.host_name(a), self.host_name(b));
        self.line(|| format!("connection {conn} ({}-{}) is up", names.0, names.1));
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
                let (proxy, now) = (a - self.nodes.len(), self.now);
                if let Some(link) = self.link_of(proxy, b, worker) {
                    self.proxies[proxy].core.link_up(link, workers, now);
                }
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

    pub(super) fn unblock(&mut self, from: Host, to: Host) {
        self.blocked[from][to] -= 1;
        if self.is_blocked(from, to) {
            return;
        }
        let names = (self.host_name(from), self.host_name(to));
        self.line(|| format!("{} -> {} is open again", names.0, names.1));
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
}
