//! Clients of the node's own port, and their commands on other workers of the node.

use super::WorkerCore;
use crate::clock::Now;
use crate::log::Disk;
use crate::shard::{Access, Group, Origin, Submission};
use crate::worker::ports::{Client, WorkerMessage, worker_of};
use crate::worker::shared::View;
use ringfort_proxy::clients;
use ringfort_proxy::errands;
use ringfort_proxy::gather::{Gather, Join};
use ringfort_proxy::random::Random;
use ringfort_proxy::route::encode_random_key;
use ringfort_proxy::session::{Ask, Host as _, Mode, PendingReads, Session, Slots};
use ringfort_resp::{Command, Cursor, Protocol, Scope};
use ringfort_ring::Slot;
use ringfort_wire::GroupId;
use ringfort_wire::entry::OpKind;
use ringfort_wire::request::CommandBody;
use std::collections::VecDeque;

/// The end of a scan.
const SCAN_OVER: &[u8] = b"*2\r\n$1\r\n0\r\n*0\r\n";

impl<D: Disk> WorkerCore<D> {
    /// A client connected.
    pub fn client_open(&mut self, place: clients::Place, address: &clients::Address) -> u64 {
        let session = Session::new(Mode::Node, place, address, self.clients.clone());
        let client = self.ports.clients.insert(Client {
            session,
            writes: 0,
            write_tickets: VecDeque::new(),
            reads: PendingReads::default(),
            is_held: false,
        });
        if let Some(state) = self.ports.clients.get_mut(client) {
            state.session.set_key(client);
        }
        client
    }

    /// A client came by TLS: it is told the nodes' TLS addresses.
    pub fn client_set_tls(&mut self, client: u64) {
        if let Some(state) = self.ports.clients.get_mut(client) {
            state.session.set_tls();
        }
    }

    /// A client is gone. What it asked for goes on; the answers are dropped.
    pub fn client_close(&mut self, client: u64) {
        self.ports.clients.remove(client);
    }

    /// Takes bytes of a client.
    pub fn client_data(&mut self, client: u64, bytes: &[u8], now: Now) {
        self.stir();
        self.clients.set_now(now.boot_us);
        self.clients.set_wall(now.wall_ms.saturating_mul(1000));
        if let Some(state) = self.ports.clients.get_mut(client) {
            state.session.push_input(bytes);
        }
        self.pump(client, now);
    }

    /// A client will send no more: its connection ends when what it sent is answered and the answers are sent.
    pub fn client_end_input(&mut self, client: u64) {
        if let Some(state) = self.ports.clients.get_mut(client) {
            state.session.end_input();
        }
    }

    /// Executes the commands of a client that are decoded and within its bounds.
    fn pump(&mut self, client: u64, now: Now) {
        // What another connection of this node has just set holds for the next command here.
        self.view.refresh();
        let mut body = std::mem::take(&mut self.scratch);
        while let Some(state) = self.ports.clients.get_mut(client)
            && !state.is_held
        {
            let Some(ask) = state.session.next(&self.view) else { break };
            if !ask.spec.is_write {
                state.reads.add(&ask);
            } else if state.reads.conflicts_with(&ask) {
                state.session.put_back();
                state.is_held = true;
                break;
            }
            let (ticket, spec, protocol) = (ask.ticket, ask.spec, ask.protocol);
            let access = match (spec.is_write, ask.is_readonly && spec.scope != Scope::Cursor) {
                (true, _) => Access::Write,
                (false, false) => Access::Read,
                (false, true) => Access::ReadReplica,
            };
            let place = encode(&ask, &self.view, &mut self.random, &mut body);
            let is_after_queued = state.writes > 0;
            let is_tls = state.session.is_tls();
            let is_scan = spec.scope == Scope::Cursor;
            if spec.is_write {
                state.writes += 1;
                state.write_tickets.push_back(ticket);
            }
            let worker = self.options.worker;
            match place {
                Place::Nowhere => self.ports.client_reply(client, ticket, SCAN_OVER),
                Place::Slot(slot) => {
                    let Some(map) = self.view.map() else { continue };
                    let group = GroupId::of(map.partitions.of(slot));
                    let origin = Origin::Client { worker, client, ticket, slot, is_tls, is_scan };
                    self.execute(origin, group, access, is_after_queued, &body, now);
                }
                Place::Everywhere => {
                    let origin = Origin::Client { worker, client, ticket, slot: Slot(0), is_tls, is_scan };
                    let join = Join::everywhere(spec.command, self.random.next(), false);
                    let gather = Gather::new(join, protocol, usize::from(self.shared.workers));
                    let gather = self.ports.gather(gather, origin);
                    for other in (0..self.shared.workers).filter(|&w| w != worker) {
                        let body = body.clone();
                        let message = WorkerMessage::Everywhere {
                            origin: gather,
                            command: spec.command,
                            protocol,
                            body,
                        };
                        self.ports.workers.push((other, message));
                    }
                    self.execute_everywhere(gather, spec.command, protocol, &body, now);
                }
            }
        }
        self.scratch = body;
        if let Some(state) = self.ports.clients.get_mut(client) {
            if let Some((ticket, write)) = state.session.take_errand()
                && !self.errands.begin(client, ticket, write)
            {
                state.session.answer_error(ticket, errands::TOO_MANY);
            }
            if state.session.is_paused() {
                self.paused_clients.push(client);
            }
        }
        self.ports.touched_clients.push(client);
    }

    /// Does what others asked of clients here, and lets go on who was paused.
    pub(super) fn attend_clients(&mut self, now: Now) {
        for client in self.clients.take_noted() {
            if let Some(state) = self.ports.clients.get_mut(client) {
                state.session.attend();
                self.ports.touched_clients.push(client);
            }
        }
        if !self.paused_clients.is_empty() && !self.clients.is_paused() {
            for client in std::mem::take(&mut self.paused_clients) {
                if let Some(state) = self.ports.clients.get_mut(client) {
                    state.session.resume();
                    self.pump(client, now);
                }
            }
        }
    }

    /// Cuts the clients that were silent for longer than the setting `timeout` allows, and gives back the buffers of those
    /// that rest.
    pub(super) fn attend_idle_clients(&mut self) {
        for client in self.ports.clients.keys() {
            if let Some(state) = self.ports.clients.get_mut(client) {
                state.session.cut_if_idle();
                if state.session.give_back_buffers() {
                    state.reads = PendingReads::default();
                    state.write_tickets = VecDeque::new();
                }
                if state.session.is_over() {
                    self.ports.touched_clients.push(client);
                }
            }
        }
    }

    /// Executes a command of a client of this node on the worker that owns the partition.
    fn execute(
        &mut self,
        origin: Origin,
        group: GroupId,
        access: Access,
        is_after_queued: bool,
        body: &[u8],
        now: Now,
    ) {
        let owner = worker_of(group, self.shared.workers);
        if owner != self.options.worker {
            let message =
                WorkerMessage::Command { origin, group, access, is_after_queued, body: body.to_vec() };
            self.ports.workers.push((owner, message));
            return;
        }
        let submission = Submission { origin, session: 0, seq: 0, acked: 0, is_after_queued, body };
        if access == Access::Write {
            self.submit_write(group, OpKind::Command, submission);
        } else {
            self.queue_read(group, submission, access == Access::ReadReplica, now);
        }
    }

    /// Executes a command on every partition that this worker leads; the answer is a part of the node's.
    fn execute_everywhere(
        &mut self,
        origin: Origin,
        command: Command,
        protocol: Protocol,
        body: &[u8],
        now: Now,
    ) {
        let led: Vec<GroupId> = self
            .groups
            .iter()
            .filter(|g| g.id() != GroupId::META && g.raft().is_leader())
            .map(Group::id)
            .collect();
        let join = Join::everywhere(command, self.random.next(), true);
        if led.is_empty() {
            self.ports.reply_bytes(origin, &Gather::empty(join, protocol));
            return;
        }
        let gather = self.ports.gather(Gather::new(join, protocol, led.len()), origin);
        let access = if command.spec().is_write { Access::Write } else { Access::Read };
        for group in led {
            self.execute(gather, group, access, true, body, now);
        }
    }

    /// Bytes to be sent to a client, and whether its connection ends after them. Call [`WorkerCore::client_sent`] with
    /// what was sent.
    pub fn client_output(&mut self, client: u64) -> Option<(&[u8], bool)> {
        let state = self.ports.clients.get_mut(client)?;
        let is_over = state.session.is_over();
        Some((state.session.output(), is_over))
    }

    /// Whether the client's output leaves at the [pace](ringfort_proxy::pace) of large replies.
    pub fn client_is_bulk(&mut self, client: u64) -> bool {
        self.ports.clients.get_mut(client).is_some_and(|state| state.session.is_bulk())
    }

    /// So much was sent to a client, which may let it go on.
    pub fn client_sent(&mut self, client: u64, count: usize, now: Now) {
        let Some(state) = self.ports.clients.get_mut(client) else { return };
        state.session.sent(count);
        if state.wants_next() {
            self.pump(client, now);
        }
    }

    /// Whether the client's socket should be read.
    pub fn client_wants_input(&mut self, client: u64) -> bool {
        self.ports.clients.get_mut(client).is_some_and(|c| !c.is_held && c.session.wants_input())
    }

    /// Clients that may have something to send, or may go on, since the last call.
    pub fn take_touched_clients(&mut self, now: Now) -> Vec<u64> {
        let mut touched = std::mem::take(&mut self.ports.touched_clients);
        touched.sort_unstable();
        touched.dedup();
        for &client in &touched {
            if self.ports.clients.get_mut(client).is_some_and(|c| c.wants_next()) {
                self.pump(client, now);
            }
        }
        self.ports.touched_clients.clear();
        touched
    }

    /// Takes a message of another worker of this node.
    pub fn worker_message(&mut self, message: WorkerMessage, now: Now) {
        self.stir();
        match message {
            WorkerMessage::Command { origin, group, access, is_after_queued, body } => {
                self.execute(origin, group, access, is_after_queued, &body, now);
            }
            WorkerMessage::Everywhere { origin, command, protocol, body } => {
                self.execute_everywhere(origin, command, protocol, &body, now);
            }
            WorkerMessage::ClientReply { client, ticket, reply } => {
                self.ports.client_reply(client, ticket, &reply)
            }
            WorkerMessage::Meta(body) => self.meta_told(&body),
            WorkerMessage::GatherReply { gather, reply } => self.ports.gather_reply(gather, &reply),
        }
    }

    /// Takes the messages for other workers.
    pub fn take_worker_output(&mut self) -> Vec<(u16, WorkerMessage)> {
        std::mem::take(&mut self.ports.workers)
    }
}

/// Where a command of a client is executed.
enum Place {
    /// On the partition of this slot.
    Slot(Slot),
    /// On every partition that the node leads.
    Everywhere,
    /// A scan has nothing more to look at.
    Nowhere,
}

/// Encodes a command into `body` (its former content goes) and says where it is executed.
fn encode(ask: &Ask<'_>, view: &View, random: &mut Random, body: &mut Vec<u8>) -> Place {
    let args = ask.args.rest();
    body.clear();
    match ask.slots {
        Slots::One(slot) if ask.spec.scope == Scope::Cursor => {
            // Where nothing is led here the scan goes on with what is.
            let Some(led) = view.next_led(slot) else { return Place::Nowhere };
            let cursor = Cursor::slot_start(led.0).number().to_string();
            let mut args: Vec<&[u8]> = args.collect();
            if led != slot {
                args[0] = cursor.as_bytes();
            }
            CommandBody::encode(body, ask.spec.command as u16, ask.protocol, args.iter());
            Place::Slot(led)
        }
        Slots::One(slot) => {
            CommandBody::encode(body, ask.spec.command as u16, ask.protocol, args);
            if ask.is_no_touch {
                CommandBody::mark_no_touch(body);
            }
            Place::Slot(slot)
        }
        Slots::None | Slots::Many => {
            if ask.spec.command == Command::RandomKey {
                *body = encode_random_key(ask.protocol, random.next());
            } else {
                CommandBody::encode(body, ask.spec.command as u16, ask.protocol, args);
            }
            Place::Everywhere
        }
    }
}
