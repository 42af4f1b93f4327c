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

mod client;
mod cluster;
mod command;
mod config;
mod connection;
mod info;
mod pending_reads;
mod replies;
mod server;

use crate::clients::{Place, WorkerClients};
use connection::Connection;
use replies::{Asked, ReplyQueue};
use ringfort_resp::commands::unknown_command_error;
use ringfort_resp::{
    Command, CommandDecoder, CommandSpec, Limits, Protocol, ReplyWriter, ScanArgs, Scope, Status, commands,
};
use ringfort_ring::{NodeId, PartitionId, SLOTS, Slot, slot_of};
use ringfort_wire::{ClusterMap, MetaWrite};

pub use cluster::map_json;
pub use info::{Facts, Keyspace};
pub use pending_reads::PendingReads;

/// Most unanswered commands of one session (fewer while its replies are large); at the limit it stops decoding and its caller stops reading the socket.
pub const PIPELINE_MAX: usize = 1024;
/// Unsent bytes of replies at which a session stops decoding until the client has read some.
pub const OUTPUT_PAUSE_BYTES: usize = 1 << 20;
/// Most bytes of replies held for a client, in order or not; a client that lets them grow further is cut.
pub const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// The slot to which a SCAN goes whose cursor lies behind all slots.
const LAST_SLOT: Slot = Slot(SLOTS - 1);

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
}

impl<'a> Args<'a> {
    /// How many there are, the name included; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a command has at least its name")]
    pub fn len(&self) -> usize {
        self.decoder.args().len()
    }

    /// Argument `i`; 0 is the name.
    ///
    /// # Panics
    /// There is no argument `i`.
    pub fn get(&self, i: usize) -> &'a [u8] {
        self.decoder.arg(self.buf, i)
    }

    /// All of them in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let Self { decoder, buf } = *self;
        (0..self.len()).map(move |i| decoder.arg(buf, i))
    }
}

/// A command that the host has to get answered, by [`Session::answer`] with its ticket.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Its place among the replies.
    pub ticket: Ticket,
    /// Which command it is, of a container which subcommand; its arity is right.
    pub spec: &'static CommandSpec,
    /// The form of its reply.
    pub protocol: Protocol,
    /// Where its keys are.
    pub slots: Slots,
    /// Whether the connection said READONLY.
    pub is_readonly: bool,
    /// Its arguments.
    pub args: Args<'a>,
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
    replies: ReplyQueue,
}

impl Session {
    /// A session for a connection just accepted; `addr` is the client's address for CLIENT INFO,
    /// `clients` what it shares with the others.
    pub fn new(mode: Mode, place: Place, addr: String, clients: WorkerClients) -> Self {
        Self {
            mode,
            connection: Connection::new(place, addr, clients),
            input: Vec::new(),
            start: 0,
            last_start: 0,
            decoder: CommandDecoder::new(Limits::default()),
            is_starved: true,
            is_closing: false,
            is_input_ended: false,
            errand: None,
            on_errand: None,
            replies: ReplyQueue::default(),
        }
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
        if self.is_closing || bytes.is_empty() {
            return;
        }
        self.connection.clients.stats().received(bytes.len());
        self.input.extend_from_slice(bytes);
        self.is_starved = false;
    }

    /// Whether [`Session::next`] may find a command: call it again after answers and after sent output.
    pub fn wants_next(&self) -> bool {
        self.has_room() && !self.is_starved
    }

    fn has_room(&self) -> bool {
        !self.is_closing
            && self.on_errand.is_none()
            && self.replies.unanswered() < PIPELINE_MAX
            && self.replies.output().len() < OUTPUT_PAUSE_BYTES
            && self.replies.has_room()
    }

    /// Decodes on, answering what the connection itself can answer, up to the next command for the host.
    ///
    /// `None`: more input is needed, or the session is at a limit ([`Session::wants_next`] tells when to go on), or it is
    /// closing, or there is an errand to take ([`Session::take_errand`]).
    pub fn next(&mut self, host: &dyn Host) -> Option<Ask<'_>> {
        let (start, spec, slots) = self.next_for_host(host)?;
        self.last_start = start;
        Some(Ask {
            ticket: self.replies.expect_one(Asked { spec, at_us: self.connection.clients.now_us() }),
            spec,
            protocol: self.connection.protocol(),
            slots,
            is_readonly: self.connection.is_readonly(),
            args: Args { decoder: &self.decoder, buf: &self.input[start..] },
        })
    }

    /// Takes the command that [`Session::next`] gave out last back, unanswered; the next call gives it out again, under the
    /// same ticket.
    pub fn put_back(&mut self) {
        self.start = self.last_start;
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
            let args = Args { decoder: &self.decoder, buf: &self.input[start..] };
            match judge(self.mode, args, host) {
                Verdict::Host(spec, slots) => return Some((start, spec, slots)),
                Verdict::Ok => self.replies.write(self.connection.protocol(), |w| w.ok()),
                Verdict::Reply(spec, reply) => {
                    self.connection.clients.stats().answered(spec, 0, false);
                    self.replies.write(self.connection.protocol(), |w| w.raw(reply));
                }
                Verdict::Error(spec, error) => {
                    if let Some(spec) = spec {
                        self.connection.clients.stats().rejected(spec);
                    }
                    self.replies.write(self.connection.protocol(), |w| w.error(&error));
                }
                Verdict::Errand(spec, write) => {
                    let asked = Asked { spec, at_us: self.connection.clients.now_us() };
                    let ticket = self.replies.expect_one(asked);
                    self.errand = Some((ticket, write));
                    self.on_errand = Some(ticket);
                }
                Verdict::Connection(spec) => {
                    let connection = &mut self.connection;
                    let result = self.replies.write_raw(|out| connection.execute(spec, args, host, out));
                    self.connection.clients.stats().answered(spec, 0, result.is_err());
                    if spec.command == Command::Quit {
                        self.close();
                    }
                }
            }
        }
        self.drop_decoded();
        None
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
        self.on_errand = self.on_errand.filter(|errand| *errand != ticket);
        if let Some(asked) = self.replies.answer(ticket, reply) {
            let us = self.connection.clients.now_us().saturating_sub(asked.at_us);
            self.connection.clients.stats().answered(asked.spec, us, reply.starts_with(b"-"));
        }
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

    /// Bytes to send to the client.
    pub fn output(&self) -> &[u8] {
        self.replies.output()
    }

    /// Forgets `count` bytes of the output, which have been sent.
    pub fn sent(&mut self, count: usize) {
        self.connection.clients.stats().sent(count);
        self.replies.sent(count);
    }

    /// Whether the connection is to be closed now: all is said, or the client passed [`OUTPUT_BYTES_MAX`].
    pub fn is_over(&self) -> bool {
        let is_last = self.is_closing || (self.is_input_ended && self.is_starved);
        self.replies.has_overflowed()
            || (is_last && self.replies.unanswered() == 0 && self.replies.output().is_empty())
    }
}

/// Who answers a command.
enum Verdict {
    Host(&'static CommandSpec, Slots),
    Connection(&'static CommandSpec),
    /// The meta group.
    Errand(&'static CommandSpec, MetaWrite),
    /// Nobody: the answer is OK.
    Ok,
    /// Nobody: the answer is this.
    Reply(&'static CommandSpec, &'static [u8]),
    /// Nobody: the answer is this error.
    Error(Option<&'static CommandSpec>, String),
}

fn judge(mode: Mode, args: Args<'_>, host: &dyn Host) -> Verdict {
    let name = args.get(0);
    let Some(spec) = commands::lookup(name) else {
        // AUTH is no command of the table: without passwords it does nothing.
        return if name.eq_ignore_ascii_case(b"auth") {
            connection::auth(args).map_or_else(|error| Verdict::Error(None, error), |()| Verdict::Ok)
        } else {
            Verdict::Error(None, unknown_command_error(name, args.iter().skip(1)))
        };
    };
    let spec = match spec.judge(args.iter().skip(1)) {
        Ok(spec) => spec,
        Err(error) => return Verdict::Error(Some(spec), error),
    };
    if spec.command == Command::Config {
        return match config::change(spec, args, host) {
            Ok(Some(write)) => Verdict::Errand(spec, write),
            Ok(None) => Verdict::Connection(spec),
            Err(error) => Verdict::Error(Some(spec), error),
        };
    }
    if let Some(question) = cluster::slot_question(spec) {
        return judge_slot_question(question, args, host);
    }
    if spec.scope == Scope::Connection {
        return Verdict::Connection(spec);
    }
    if host.map().is_none() {
        return Verdict::Error(Some(spec), NO_MAP.to_owned());
    }
    if spec.scope == Scope::Cursor {
        return match ScanArgs::parse(&args.iter().skip(1).collect::<Vec<_>>()) {
            Ok(scan) => Verdict::Host(spec, Slots::One(scan.cursor.map_or(LAST_SLOT, |at| Slot(at.slot())))),
            Err(error) => Verdict::Error(Some(spec), error.to_string()),
        };
    }
    let slots = slots_of(spec, args);
    if slots == Slots::Many && (mode == Mode::Node || spec.scope != Scope::Split) {
        return Verdict::Error(
            Some(spec),
            "CROSSSLOT Keys in request don't hash to the same slot".to_owned(),
        );
    }
    Verdict::Host(spec, slots)
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
