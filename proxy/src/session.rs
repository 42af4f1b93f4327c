//! One client's connection: bytes in, commands out, replies back in request order. No I/O, no clock.
//!
//! A proxy and a node's client port both hold one [`Session`] for each connection:
//!
//! ```text
//!  socket --push_input--> input --next--> Ask (a command for partitions) --> the host's business
//!                                   |                                              |
//!                                   +-- PING, HELLO, CLUSTER, ... answered here    | answer(ticket, reply)
//!                                                        v                         v
//!  socket <--sent------- output <---------------- replies in request order <-------+
//! ```

mod auth;
mod client;
mod client_list;
mod cluster;
mod command;
mod config;
mod connection;
mod info;
mod latency;
mod monitor;
mod output;
mod pending_reads;
mod recent_args;
mod replies;
mod server;
mod slow_log;
mod transfer;

use crate::clients::{Address, HELD_STEP, Held, Place, WorkerClients};
use crate::pace::BULK_BYTES;
use connection::{Connection, Silence};
use recent_args::RecentArgs;
use replies::{Asked, ReplyQueue};
use ringfort_resp::commands::unknown_command_error;
use ringfort_resp::{
    Command, CommandDecoder, CommandSpec, Limits, Protocol, ReplyWriter, ScanArgs, Scope, Status,
};
use ringfort_ring::{NodeId, PartitionId, SLOTS, Slot, slot_of};
use ringfort_wire::{ClusterMap, MetaWrite};
use std::collections::BTreeMap;

pub use cluster::map_json;
pub use info::{Facts, FollowerReads, Keyspace, Usage};
pub use pending_reads::PendingReads;
pub use replies::Answer;

/// Most unanswered commands of one session (fewer while its replies are large); at the limit it stops decoding and its caller stops reading the socket.
pub const PIPELINE_MAX: usize = 1024;
/// Unsent bytes of replies at which a session stops decoding until the client has read some.
pub const OUTPUT_PAUSE_BYTES: usize = 1 << 20;
/// Most bytes of replies held for a client, in order or not; a client that lets them grow further is cut.
pub const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// The slot to which a SCAN goes whose cursor lies behind all slots.
const LAST_SLOT: Slot = Slot(SLOTS - 1);

/// Most names or ids of a question that gives an entry for each: COMMAND INFO and DOCS, CLIENT LIST ID.
const NAMES_MAX: usize = 1024;

/// Capacity of the input buffer that is kept from one command to the next, bytes.
const INPUT_KEPT_BYTES: usize = 64 << 10;

/// What commands that need the cluster map are told before there is one.
const NO_MAP: &str = "LOADING Ringfort is starting: no cluster map yet";

/// Which port the session belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A proxy: commands of [`Scope::Split`] may have keys in several slots.
    Proxy,
    /// A node's client port, as in Redis Cluster: all keys of a command lie in one slot.
    Node,
}

/// Number of a command of one session that waits for its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// The slots of a command's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slots {
    /// The command has no keys (DBSIZE, FLUSHALL, KEYS).
    None,
    /// All keys are in this slot; of SCAN, the slot of its cursor.
    One(Slot),
    /// The keys are in several slots (only in [`Mode::Proxy`] and for [`Scope::Split`]).
    Many,
}

/// What RINGFORT asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingfortQuery {
    /// The cluster map with the leaders.
    Map,
    /// The state of the answering process.
    Node,
    /// Digests of the answering node's replicas.
    Digest,
}

/// What a session must know of the process that holds it.
pub trait Host {
    /// The cluster map; `None` until one is known (then commands with keys answer LOADING).
    fn map(&self) -> Option<&ClusterMap>;
    /// The node believed to lead a partition; `None` when nobody is known to.
    fn leader_of(&self, partition: PartitionId) -> Option<&NodeId>;
    /// The node whose client port this is; `None` for a proxy.
    fn my_node(&self) -> Option<&NodeId>;
    /// What INFO shows.
    fn facts(&self) -> Facts;
    /// JSON that answers RINGFORT.
    ///
    /// # Errors
    /// The text of the error reply after `ERR `.
    fn ringfort(&self, query: RingfortQuery) -> Result<String, String>;
}

/// The arguments of a command, its name first; they borrow the session's input buffer.
#[derive(Debug, Clone, Copy)]
pub struct Args<'a> {
    decoder: &'a CommandDecoder,
    buf: &'a [u8],
    len: usize,
}

impl<'a> Args<'a> {
    fn new(decoder: &'a CommandDecoder, buf: &'a [u8]) -> Self {
        Self { decoder, buf, len: decoder.args().len() }
    }

    /// How many there are, the name included; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a command has at least its name")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Argument `i`; 0 is the name.
    ///
    /// # Panics
    /// There is no argument `i`.
    pub fn get(&self, i: usize) -> &'a [u8] {
        self.decoder.arg(self.buf, i)
    }

    /// All but the name, in order.
    pub fn rest(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let Self { decoder, buf, len } = *self;
        (1..len).map(move |i| decoder.arg(buf, i))
    }

    /// All of them in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let Self { decoder, buf, len } = *self;
        (0..len).map(move |i| decoder.arg(buf, i))
    }
}

/// A command that the host has to get answered, by [`Session::answer`] with its ticket.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Its place among the replies.
    pub ticket: Ticket,
    /// Which command it is; its arity is right.
    pub spec: &'static CommandSpec,
    /// The form of its reply.
    pub protocol: Protocol,
    /// Where its keys are.
    pub slots: Slots,
    /// Whether the connection said READONLY.
    pub is_readonly: bool,
    /// Whether its keys are read without being used (CLIENT NO-TOUCH).
    pub is_no_touch: bool,
    /// Its arguments.
    pub args: Args<'a>,
}

/// Whether a session's buffers are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Buffers {
    /// Something came since they were looked at.
    Used,
    /// Nothing did; when that is so for once more, they go.
    Resting,
    GivenBack,
}

/// One client's connection.
///
/// # Invariants
/// - Replies leave in the order of the commands.
/// - At most [`PIPELINE_MAX`] commands are unanswered and at most [`OUTPUT_BYTES_MAX`] bytes of replies are held (one reply
///   beyond it ends the session); the input buffer holds at most one command of the largest size and what the caller
///   read with its end.
#[derive(Debug)]
pub struct Session {
    mode: Mode,
    connection: Connection,
    input: Vec<u8>,
    /// Start of the bytes in `input` that are not decoded yet.
    start: usize,
    /// Start of the command that was given out last.
    last_start: usize,
    decoder: CommandDecoder,
    /// Whether the decoder has seen all of the input and needs more.
    is_starved: bool,
    /// Whether nothing more is decoded: QUIT, a protocol error, or the caller's wish.
    is_closing: bool,
    /// Whether the client will send no more.
    is_input_ended: bool,
    /// A change for the meta group that the caller has not taken yet.
    errand: Option<(Ticket, MetaWrite)>,
    /// The command behind the errand that is under way: until it is answered nothing more is decoded, so that what
    /// follows sees the change.
    on_errand: Option<Ticket>,
    /// Whether its next command waits for the end of CLIENT PAUSE.
    is_paused: bool,
    /// Whether its next command was given out before and taken back.
    is_put_back: bool,
    /// Whether the reply of the command decoded last is dropped (CLIENT REPLY).
    is_silent: bool,
    /// Whether somebody ended it.
    is_cut: bool,
    /// See [`Session::is_bulk`].
    is_bulk: bool,
    /// Bytes that are counted for it in [`Clients::held`](crate::clients::Clients::held).
    counted: usize,
    /// Most unanswered commands.
    pipeline_max: usize,
    buffers: Buffers,
    replies: ReplyQueue,
    recent_args: RecentArgs,
    /// The text of each INFO that waits for the number of keys, with the form of its reply.
    infos: BTreeMap<Ticket, (Protocol, String)>,
}

impl Session {
    /// A session for a connection just accepted; `clients` is what it shares with the others.
    pub fn new(mode: Mode, place: Place, address: &Address, clients: WorkerClients) -> Self {
        Self {
            mode,
            connection: Connection::new(place, address, clients),
            input: Vec::new(),
            start: 0,
            last_start: 0,
            decoder: CommandDecoder::new(Limits::default()),
            is_starved: true,
            is_closing: false,
            is_input_ended: false,
            errand: None,
            on_errand: None,
            is_paused: false,
            is_put_back: false,
            is_silent: false,
            is_cut: false,
            is_bulk: false,
            counted: 0,
            pipeline_max: PIPELINE_MAX,
            buffers: Buffers::GivenBack,
            replies: ReplyQueue::default(),
            recent_args: RecentArgs::default(),
            infos: BTreeMap::new(),
        }
    }

    /// Another bound than [`PIPELINE_MAX`].
    pub fn set_pipeline_max(&mut self, commands: usize) {
        self.pipeline_max = commands;
    }

    /// Says that the client came by TLS: it is told the nodes' TLS addresses.
    pub fn set_tls(&mut self) {
        self.connection.is_tls = true;
    }

    /// Whether the client came by TLS.
    pub fn is_tls(&self) -> bool {
        self.connection.is_tls
    }

    /// Its CLIENT ID.
    pub fn id(&self) -> u64 {
        self.connection.id()
    }

    /// The protocol version that the client speaks now.
    pub fn protocol(&self) -> Protocol {
        self.connection.protocol()
    }

    /// Whether the caller should read the socket: not while too much is unanswered or unread, nor when closing.
    pub fn wants_input(&self) -> bool {
        self.has_room() && self.is_starved && !self.is_input_ended
    }

    /// Takes bytes of the client; afterwards call [`Session::next`] until it returns `None`.
    pub fn push_input(&mut self, bytes: &[u8]) {
        if self.is_closing || self.is_cut || bytes.is_empty() {
            return;
        }
        self.buffers = Buffers::Used;
        self.connection.clients.stats().received(bytes.len());
        self.input.extend_from_slice(bytes);
        self.is_starved = false;
        self.count_held();
    }

    /// Whether [`Session::next`] may find a command: call it again after answers and after sent output.
    pub fn wants_next(&self) -> bool {
        self.has_room() && !self.is_starved
    }

    fn has_room(&self) -> bool {
        !self.is_closing
            && !self.is_cut
            && self.on_errand.is_none()
            && !self.is_paused
            && self.replies.unanswered() < self.pipeline_max
            && self.replies.output_bytes() < OUTPUT_PAUSE_BYTES
            && self.replies.has_room()
    }

    /// Decodes on, answering what the connection itself can answer, up to the next command for the host.
    ///
    /// `None`: more input is needed, or the session is at a limit ([`Session::wants_next`] tells when to go on), or it is
    /// closing, or there is an errand to take ([`Session::take_errand`]).
    pub fn next(&mut self, host: &dyn Host) -> Option<Ask<'_>> {
        let Some((start, spec, slots)) = self.next_for_host(host) else {
            self.note_held();
            return None;
        };
        self.last_start = start;
        let ticket = self.expect(spec, start);
        let mut args = Args::new(&self.decoder, &self.input[start..]);
        let mut asked = spec;
        if spec.command == Command::Info {
            let text = info::text(args.rest(), host, &self.connection.clients);
            self.infos.insert(ticket, (self.connection.protocol(), text));
            asked = Command::DbSize.spec();
            args.len = 1;
        }
        Some(Ask {
            ticket,
            spec: asked,
            protocol: self.connection.protocol(),
            slots,
            is_readonly: self.connection.is_readonly(),
            is_no_touch: self.connection.is_no_touch(),
            args,
        })
    }

    /// Takes the command that [`Session::next`] gave out last back, unanswered; the next call gives it out again, under the
    /// same ticket.
    pub fn put_back(&mut self) {
        self.start = self.last_start;
        self.is_put_back = true;
        self.replies.expect_one_less();
    }

    /// Takes a change that the client asks of the meta group; it is answered by [`Session::answer`], as any command.
    pub fn take_errand(&mut self) -> Option<(Ticket, MetaWrite)> {
        self.errand.take()
    }

    /// As [`Session::next`]; returns where in the input the command starts.
    fn next_for_host(&mut self, host: &dyn Host) -> Option<(usize, &'static CommandSpec, Slots)> {
        while self.wants_next() {
            let start = self.start;
            match self.decoder.decode(&self.input[start..]) {
                Ok(Status::Complete { consumed }) => self.start += consumed,
                Ok(Status::Incomplete) => {
                    self.is_starved = true;
                    break;
                }
                Err(error) => {
                    self.replies.write(self.connection.protocol(), |w| w.protocol_error(&error));
                    self.close();
                    break;
                }
            }
            if self.decoder.args().is_empty() {
                continue;
            }
            let args = Args::new(&self.decoder, &self.input[start..]);
            let verdict = judge(self.mode, args, &mut self.connection, host);
            if !core::mem::take(&mut self.is_put_back) {
                if let Some(spec) = verdict.executes() {
                    if self.connection.is_paused(spec) {
                        self.start = start;
                        self.is_paused = true;
                        break;
                    }
                    self.connection.asked(spec, args);
                }
                self.is_silent = self.connection.take_silence();
            }
            match verdict {
                Verdict::Host(spec, slots) => return Some((start, spec, slots)),
                Verdict::Errand(spec, write) => {
                    let ticket = self.expect(spec, start);
                    self.errand = Some((ticket, write));
                    self.on_errand = Some(ticket);
                }
                Verdict::Reply(spec, reply) => {
                    let ticket = self.expect(spec, start);
                    self.answer(ticket, reply);
                }
                Verdict::Error(spec, error) => self.refuse(spec, &error),
                Verdict::Connection(spec) => self.execute(spec, start, host),
            }
        }
        self.drop_decoded();
        None
    }

    /// Makes room for the reply to the command that starts at `start`.
    fn expect(&mut self, spec: &'static CommandSpec, start: usize) -> Ticket {
        let (args, at_us) = (self.keep_args(start, spec), self.connection.clients.now_us());
        self.replies.expect_one(Asked { spec, at_us, args, is_silent: self.is_silent })
    }

    /// Answers a command that nobody executes.
    fn refuse(&mut self, spec: Option<&'static CommandSpec>, error: &str) {
        let stats = self.connection.clients.stats();
        if let Some(spec) = spec {
            stats.rejected(spec);
        }
        stats.failed_with(error.as_bytes());
        if !self.is_silent {
            self.replies.write(self.connection.protocol(), |w| w.error(error));
        }
    }

    /// Executes a command of the connection itself, whose arguments start at `start`.
    fn execute(&mut self, spec: &'static CommandSpec, start: usize, host: &dyn Host) {
        let connection = &mut self.connection;
        let args = Args::new(&self.decoder, &self.input[start..]);
        let mut unseen = Vec::new();
        let result = if self.is_silent {
            connection.execute(spec, args, host, &mut unseen)
        } else {
            self.replies.write_raw(|out| connection.execute(spec, args, host, out))
        };
        let stats = connection.clients.stats();
        stats.answered(spec, 0, result.is_err());
        if let Err(error) = &result {
            stats.failed_with(error.as_bytes());
        }
        if connection.clients.is_slow(0) {
            let args = self.keep_args(start, spec);
            self.log_slow(Asked { spec, at_us: 0, args, is_silent: self.is_silent }, 0);
        }
        let is_on_again = self.connection.take_reply_on();
        if self.is_silent && is_on_again {
            self.replies.write_raw(|out| out.append(&mut unseen));
        }
        if spec.command == Command::Quit || self.connection.is_killed() {
            self.close();
        }
    }

    /// Keeps the arguments of the command that starts at `start` for the slow log.
    fn keep_args(&mut self, start: usize, spec: &CommandSpec) -> recent_args::Place {
        if !self.connection.clients.has_slow_log() {
            return recent_args::Place::default();
        }
        let args = Args::new(&self.decoder, &self.input[start..]);
        match monitor::first_secret(spec, args) {
            None if self.start.saturating_sub(start) <= recent_args::WHOLE_BYTES_MAX => {
                self.recent_args.push_whole(&self.input[start..self.start])
            }
            None => self.recent_args.push(args.iter()),
            Some(_) => self.recent_args.push(monitor::redacted(spec, args).into_iter()),
        }
    }

    fn log_slow(&self, asked: Asked, us: u64) {
        let args = self.recent_args.get(asked.args);
        self.connection.log_slow(us, || args.unwrap_or_else(|| vec![asked.spec.name.into()]));
    }

    /// Counts what the session holds among what all do, in steps, so that small commands touch nothing shared. Whoever makes
    /// all of them hold too much is cut, and what it held is dropped.
    fn count_held(&mut self) {
        let held = self.input.len() - self.start + self.replies.output_bytes() + self.replies.waiting_bytes();
        if held.abs_diff(self.counted) < HELD_STEP && (held > 0 || self.counted == 0) {
            return;
        }
        if self.connection.clients.all().count_held(&mut self.counted, held) {
            self.is_cut = true;
            self.start = 0;
            self.input = Vec::new();
            self.replies.overflow();
            self.connection.clients.all().count_held(&mut self.counted, 0);
        }
    }

    /// Tells CLIENT LIST how much memory the session holds.
    fn note_held(&mut self) {
        self.count_held();
        self.connection.hold(Held {
            input: self.input.len() - self.start,
            input_free: self.input.capacity() - self.input.len(),
            output: self.replies.output_bytes(),
            waiting: self.replies.waiting_bytes(),
        });
    }

    /// Takes the number under which the host knows it: [`WorkerClients::take_noted`] names it so.
    pub fn set_key(&mut self, key: u64) {
        self.connection.set_key(key);
        self.attend();
    }

    /// Does what others asked of this connection: CLIENT KILL, lines of MONITOR.
    pub fn attend(&mut self) {
        if self.connection.is_killed() {
            self.is_cut = true;
        }
        let lines = self.connection.take_lines();
        if !lines.is_empty() {
            self.buffers = Buffers::Used;
            self.replies.write_raw(|out| out.extend_from_slice(&lines));
        }
    }

    /// Whether its next command waits for the end of CLIENT PAUSE; [`Session::resume`] lets it go on.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// The pause is over.
    pub fn resume(&mut self) {
        self.is_paused = false;
        self.connection.set_paused(false);
    }

    /// Ends the session if the client was silent for too long (the setting `timeout`).
    pub fn cut_if_idle(&mut self) {
        if self.replies.unanswered() == 0 && !self.is_paused && self.connection.is_idle() {
            self.is_cut = true;
        }
    }

    /// Gives the buffers back of a session that holds nothing and was not used since the last call, so that thousands of
    /// idle connections stay small; one that is used keeps them from one command to the next. Returns whether it did.
    pub fn give_back_buffers(&mut self) -> bool {
        let holds_something = self.start < self.input.len()
            || self.replies.unanswered() > 0
            || self.replies.output_bytes() > 0
            || self.is_paused;
        match self.buffers {
            Buffers::Used => {
                self.buffers = Buffers::Resting;
                return false;
            }
            Buffers::Resting if !holds_something => self.buffers = Buffers::GivenBack,
            Buffers::Resting | Buffers::GivenBack => return false,
        }
        self.input = Vec::new();
        self.start = 0;
        self.decoder = CommandDecoder::new(Limits::default());
        self.replies.give_back_buffers();
        self.recent_args.give_back_buffer();
        self.note_held();
        true
    }

    /// Bytes of memory that its buffers have, used or not.
    #[cfg(test)]
    fn buffer_bytes(&self) -> usize {
        self.input.capacity() + self.replies.buffer_bytes() + self.recent_args.buffer_bytes()
    }

    /// Forgets the input that is decoded; what is left moves to the front.
    fn drop_decoded(&mut self) {
        if self.start == self.input.len() {
            self.input.clear();
            self.input.shrink_to(INPUT_KEPT_BYTES);
        } else {
            self.input.drain(..self.start);
        }
        self.start = 0;
    }

    /// Answers a command that [`Session::next`] gave out. A ticket that is answered already is ignored.
    pub fn answer(&mut self, ticket: Ticket, reply: &[u8]) {
        self.answer_with(ticket, Answer::Copied(reply));
    }

    /// As [`Session::answer`].
    pub fn answer_with(&mut self, ticket: Ticket, reply: Answer<'_>) {
        self.on_errand = self.on_errand.filter(|errand| *errand != ticket);
        if !self.infos.is_empty()
            && let Some((protocol, text)) = self.infos.remove(&ticket)
        {
            let mut whole = Vec::new();
            info::write(
                text,
                ringfort_resp::reply::integer(&reply.bytes()),
                &mut ReplyWriter::new(&mut whole, protocol),
            );
            return self.answer(ticket, &whole);
        }
        let error = match reply {
            Answer::Copied(reply) => reply.strip_prefix(b"-"),
            Answer::Shared(_) => None,
        };
        let Some(asked) = self.replies.answer(ticket, reply) else { return };
        let (clients, us) =
            (&self.connection.clients, self.connection.clients.now_us().saturating_sub(asked.at_us));
        clients.stats().answered(asked.spec, us, error.is_some());
        if let Some(error) = error {
            clients.stats().failed_with(error);
        }
        if clients.is_slow(us) {
            self.log_slow(asked, us);
        }
        match self.replies.oldest() {
            Some(oldest) => self.recent_args.forget_before(oldest.args),
            None => self.recent_args.clear(),
        }
        self.count_held();
    }

    /// Answers a command with an error such as `CROSSSLOT Keys in request don't hash to the same slot`.
    pub fn answer_error(&mut self, ticket: Ticket, error: &str) {
        let mut reply = Vec::with_capacity(error.len() + 3);
        ReplyWriter::new(&mut reply, self.connection.protocol()).error(error);
        self.answer(ticket, &reply);
    }

    /// Decodes nothing more; the session ends when what was asked is answered and sent.
    pub fn close(&mut self) {
        self.is_closing = true;
        self.start = self.input.len();
        self.drop_decoded();
    }

    /// The client will send no more: the session ends when what it sent is answered and the answers are sent.
    pub fn end_input(&mut self) {
        self.is_input_ended = true;
    }

    /// Commands given out and not answered.
    pub fn unanswered(&self) -> usize {
        self.replies.unanswered()
    }

    /// The largest reply to a read for which there is room: a client that does not read what it asked for gets no more of
    /// what is large. The reply for which others wait has room when those before it are sent.
    pub fn reply_room(&self, ticket: Ticket) -> usize {
        let output = self.replies.output_bytes();
        let is_free = match self.replies.is_next(ticket) {
            true => output < OUTPUT_PAUSE_BYTES,
            false => output + self.replies.waiting_bytes() == 0,
        };
        if is_free { usize::MAX } else { OUTPUT_PAUSE_BYTES }
    }

    /// Bytes to send to the client; there may be more when they are sent.
    pub fn output(&self) -> &[u8] {
        if self.is_cut { &[] } else { self.replies.output() }
    }

    /// Whether so much is to be sent, or was when it began, that it leaves at the [pace](crate::pace) of large replies.
    pub fn is_bulk(&mut self) -> bool {
        let bytes = self.replies.output_bytes();
        self.is_bulk = BULK_BYTES <= bytes || self.is_bulk && bytes > 0;
        self.is_bulk && !self.is_cut
    }

    /// Forgets `count` bytes of the output, which have been sent.
    pub fn sent(&mut self, count: usize) {
        self.connection.clients.stats().sent(count);
        self.replies.sent(count);
        self.note_held();
    }

    /// Whether the connection is to be closed now: all is said, or the client passed [`OUTPUT_BYTES_MAX`], or more
    /// than its share while all clients pass [`CLIENTS_BYTES_MAX`](crate::clients::CLIENTS_BYTES_MAX).
    pub fn is_over(&self) -> bool {
        let is_last = self.is_closing || (self.is_input_ended && self.is_starved);
        self.is_cut
            || self.replies.has_overflowed()
            || (is_last && self.replies.unanswered() == 0 && self.replies.output_bytes() == 0)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.clients.all().count_held(&mut self.counted, 0);
    }
}

/// Who answers a command.
enum Verdict {
    Host(&'static CommandSpec, Slots),
    Connection(&'static CommandSpec),
    /// The meta group.
    Errand(&'static CommandSpec, MetaWrite),
    /// Nobody: the answer is this.
    Reply(&'static CommandSpec, &'static [u8]),
    /// Nobody: the answer is this error.
    Error(Option<&'static CommandSpec>, String),
}

impl Verdict {
    /// The command, if anybody executes it.
    fn executes(&self) -> Option<&'static CommandSpec> {
        match self {
            Self::Host(spec, _) | Self::Errand(spec, _) | Self::Reply(spec, _) | Self::Connection(spec) => {
                Some(spec)
            }
            Self::Error(..) => None,
        }
    }
}

fn judge(mode: Mode, args: Args<'_>, connection: &mut Connection, host: &dyn Host) -> Verdict {
    let name = args.get(0);
    let Some(spec) = connection.look_up(name) else {
        return Verdict::Error(None, unknown_command_error(name, args.rest()));
    };
    let spec = match spec.judge(args.rest()) {
        Ok(spec) => spec,
        Err(error) => return Verdict::Error(Some(spec), error),
    };
    if let Err(error) = connection.admit(spec, host) {
        return Verdict::Error(Some(spec), error);
    }
    if spec.scope == Scope::Connection {
        return judge_of_connection(mode, spec, args, host);
    }
    if host.map().is_none() {
        return Verdict::Error(Some(spec), NO_MAP.to_owned());
    }
    if connection.is_monitor {
        return Verdict::Error(Some(spec), "ERR Replica can't interact with the keyspace".to_owned());
    }
    if spec.scope == Scope::Cursor {
        return match ScanArgs::parse(&args.rest().collect::<Vec<_>>()) {
            Ok(scan) => Verdict::Host(spec, Slots::One(scan.cursor.map_or(LAST_SLOT, |at| Slot(at.slot())))),
            Err(error) => Verdict::Error(Some(spec), error.to_string()),
        };
    }
    let slots = slots_of(spec, args);
    if slots == Slots::Many && (mode == Mode::Node || spec.scope != Scope::Split) {
        let error = "CROSSSLOT Keys in request don't hash to the same slot";
        return Verdict::Error(Some(spec), error.to_owned());
    }
    Verdict::Host(spec, slots)
}

/// A command of [`Scope::Connection`]: some of them ask the cluster all the same.
fn judge_of_connection(mode: Mode, spec: &'static CommandSpec, args: Args<'_>, host: &dyn Host) -> Verdict {
    if spec.command == Command::Config {
        return match config::change(spec, args, host) {
            Ok(Some(write)) => Verdict::Errand(spec, write),
            Ok(None) => Verdict::Connection(spec),
            Err(error) => Verdict::Error(Some(spec), error),
        };
    }
    let change = match spec.name {
        "ringfort|transfer" => Some(transfer::change(args, host)),
        "ringfort|drain" => Some(transfer::drain(args, true, host)),
        "ringfort|undrain" => Some(transfer::drain(args, false, host)),
        _ => None,
    };
    if let Some(change) = change {
        return match change {
            Ok(write) => Verdict::Errand(spec, write),
            Err(error) => Verdict::Error(Some(spec), error),
        };
    }
    if let Some(question) = cluster::slot_question(spec) {
        return judge_slot_question(question, args, host);
    }
    let is_keyspace_asked = spec.command == Command::Info && info::is_with_keyspace(args.rest());
    if is_keyspace_asked && mode == Mode::Proxy && host.map().is_some() {
        return Verdict::Host(spec, Slots::None);
    }
    Verdict::Connection(spec)
}

/// CLUSTER COUNTKEYSINSLOT or GETKEYSINSLOT. As in Redis Cluster, a node answers for the slots it serves, and of any other
/// slot that it is empty.
fn judge_slot_question(spec: &'static CommandSpec, args: Args<'_>, host: &dyn Host) -> Verdict {
    let slot = match cluster::slot_of_question(spec, args) {
        Ok(slot) => slot,
        Err(error) => return Verdict::Error(Some(spec), error),
    };
    let Some(map) = host.map() else { return Verdict::Error(Some(spec), NO_MAP.to_owned()) };
    let is_elsewhere = host.my_node().is_some() && host.leader_of(map.partitions.of(slot)) != host.my_node();
    match spec.command {
        Command::SlotCount if is_elsewhere => Verdict::Reply(spec, b":0\r\n"),
        _ if is_elsewhere => Verdict::Reply(spec, b"*0\r\n"),
        _ => Verdict::Host(spec, Slots::One(slot)),
    }
}

fn slots_of(spec: &CommandSpec, args: Args<'_>) -> Slots {
    let mut keys = spec.keys(args.len()).map(|i| slot_of(args.get(i)));
    let Some(first) = keys.next() else { return Slots::None };
    if keys.all(|slot| slot == first) { Slots::One(first) } else { Slots::Many }
}

#[cfg(test)]
mod tests;
