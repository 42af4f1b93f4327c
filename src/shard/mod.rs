//! One replica of one Raft group, driven synchronously: inputs in, effects out through [`Ports`]. No I/O, no clock.
//!
//! The order of duties within a turn is the worker's ([`crate::worker`]); this file says what each of them is for one
//! group:
//!
//! 1. [`Group::write`] queues writes, [`Group::read`] executes reads that the lease covers;
//! 2. [`Group::propose`] makes **one** log entry of all queued writes (at most [`INFLIGHT_MAX`] are under way);
//! 3. [`Group::take_ready`] hands out what is to be appended and sent, [`Group::apply_taken`] applies what is committed, and
//!    replies;
//! 4. [`Group::persisted`] lets votes and acknowledgements go once the log is as durable as the mode asks;
//! 5. [`Group::finish_read`] checks the lease once more **after** a read was executed, and only then answers it.
//!
//! # Invariants
//! - `applied <= committed <= last`; log time never goes back.
//! - A reply is given at most once for each [`Origin`], and for a write only after its entry is applied.
//! - A read that is answered was executed while this replica led and nobody else could have.

mod handover;
pub mod invariants;
pub mod lease;
pub mod limits;
pub mod machine;
pub mod membership;
pub mod memory;
pub mod raft;
pub mod reads;
mod status;
#[cfg(test)]
mod tests;
mod writes;

use crate::clock::Now;
use crate::log::{HardState, LogEntry};
use crate::meta::MetaMachine;
use lease::Lease;
use limits::Limits;
use machine::PartitionMachine;
use membership::{Membership, Step, Wanted};
use memory::Memory;
use raft::{EntryReader, Message, Raft, Start};
use reads::Reads;
use ringfort_proxy::session::Ticket;
use ringfort_ring::{NodeId, Slot};
use ringfort_store::{LargeValue, Spot, Store};
use ringfort_wire::GroupId;
use ringfort_wire::entry::OPS_MAX;
use ringfort_wire::request::Status;
pub use status::{Activity, FollowerStatus, GroupStatus};
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use writes::{Batch, Inflight};

/// Most entries that a leader has proposed and not yet seen committed.
pub const INFLIGHT_MAX: usize = 4;
/// Size at which a queue of writes is cut into entries; one write alone may be larger.
pub const ENTRY_BYTES: usize = 1 << 20;
/// Most bytes of writes that wait to be proposed; beyond, a write is answered `Busy`.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Steps to give memory back at a time, of some microseconds each.
const RECLAIM_STEPS: usize = 8;
/// Most keys that one entry expires.
const EXPIRE_KEYS_MAX: usize = 256;
/// Most entries that a follower may lack to be given the leadership: it gets them within a few milliseconds.
const BEHIND_MAX: u64 = 256;
/// Ticks for which a replica leads before it gives leadership back to the preferred one: longer than a planned stop of
/// that one takes, else the two would play ball.
const RETURN_TICKS: u64 = 500;

/// Who waits for an answer. The worker knows what is behind it; a group only carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Nobody.
    None,
    /// Request `id` of a proxy's link.
    Link {
        /// The worker's number of the link.
        link: u64,
        /// The request.
        id: u64,
    },
    /// A client of the node's own port, on this worker or another one.
    Client {
        /// The worker that holds the connection.
        worker: u16,
        /// The worker's number of the client.
        client: u64,
        /// Its command.
        ticket: Ticket,
        /// The slot of its keys, for a redirection.
        slot: Slot,
        /// Whether it came by TLS, so that it is sent to a TLS address.
        is_tls: bool,
        /// Whether it is a step of a scan, which is never redirected.
        is_scan: bool,
    },
    /// A part of a command that this node answers as a whole.
    Gather {
        /// The worker that gathers.
        worker: u16,
        /// The worker's number of the command.
        gather: u64,
    },
    /// A follower that asks how far it must apply to have all that is acknowledged.
    Follower {
        /// Its replica id.
        replica: u64,
        /// Its number of the question.
        round: u64,
    },
    /// A change of the cluster map that came over the peer port.
    Meta {
        /// The worker's number of it.
        number: u64,
    },
}

/// Where a group's effects go.
pub trait Ports {
    /// Answers `origin`.
    fn reply(&mut self, origin: Origin, status: Status<'_>);
    /// Answers a read with `head`, `value` and a line end.
    fn reply_large(&mut self, origin: Origin, head: &[u8], value: LargeValue);
    /// The largest reply to a read of `origin` for which there is room now; for a larger one the read is parked.
    fn room(&self, origin: Origin) -> usize;
    /// Keeps room for the reply to a read that was executed in this turn.
    fn reserve(&mut self, origin: Origin, bytes: usize);
    /// Keeps a read until there is room for its reply of so many bytes; then it is asked again. `since_us`: when it came.
    /// `false`: the group is to keep it, and to try again.
    fn park(&mut self, group: GroupId, read: Submission<'_>, reply_bytes: usize, since_us: u64) -> bool;
    /// Sends a message to the replica that it names.
    fn send(&mut self, group: GroupId, incarnation: u32, to: &NodeId, message: &Message);
}

/// A replicated state.
#[derive(Debug)]
pub enum Machine {
    /// Keys and sessions of a partition.
    Partition(Box<PartitionMachine>),
    /// The cluster map.
    Meta(Box<MetaMachine>),
}

impl Machine {
    fn evicted_keys(&self) -> u64 {
        match self {
            Self::Partition(m) => m.evicted_keys(),
            Self::Meta(_) => 0,
        }
    }
}

/// What a command does to its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It may change the keyspace.
    Write,
    /// It reads what the leader has.
    Read,
    /// It reads, and its client said READONLY: a follower may answer.
    ReadReplica,
}

/// What an operation of a client or of the node itself asks.
#[derive(Debug, Clone, Copy)]
pub struct Submission<'a> {
    /// Who waits for the answer.
    pub origin: Origin,
    /// Session of the sender, 0 = none.
    pub session: u64,
    /// Of a write, its number; of a read, the write that it must see.
    pub seq: u64,
    /// Replies up to this seq have arrived.
    pub acked: u64,
    /// Whether a read must see all writes queued so far (a client without a session that has some under way).
    pub is_after_queued: bool,
    /// The encoded command.
    pub body: &'a [u8],
}

/// What a round of the group asks of the worker.
#[derive(Debug, Default)]
pub struct Work {
    /// To be appended to the log.
    pub entries: Vec<LogEntry>,
    /// To be appended after them.
    pub hard_state: Option<HardState>,
    /// A snapshot (index, term) to be installed: the log is emptied and starts after it.
    pub install: Option<(u64, u64)>,
}

impl Work {
    /// Whether anything must reach the log.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.hard_state.is_none() && self.install.is_none()
    }
}

/// What [`Group::take_ready`] took for [`Group::apply_taken`].
#[derive(Debug, Default)]
struct Taken {
    committed: Vec<LogEntry>,
    /// So many of them have been through [`Group::spots_ahead`].
    fetched: Cell<usize>,
    /// Confirmed rounds of reads and their indexes.
    reads: Vec<(u64, u64)>,
}

#[derive(Debug)]
struct Unpersisted {
    number: u64,
    has_hard_state: bool,
    messages: Vec<Message>,
}

/// What the cluster map says of a group's replicas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seats {
    /// Epoch of the map.
    pub epoch: u64,
    /// The replicas that are wanted.
    pub wanted: Vec<u64>,
    /// Those of them that are not known to vote yet, and were never asked to leave.
    pub joining: Vec<u64>,
    /// Those that were asked to leave, came back, and are not known to vote still.
    pub returned: Vec<u64>,
    /// Epoch of the last map that took back what one before it had wanted.
    pub turned_epoch: u64,
    /// Every replica that may take part, those that leave included, and its node.
    pub peers: Vec<(u64, NodeId)>,
    /// The replica that leads when it can.
    pub preferred: u64,
    /// Replicas that are to lead only when no other one can.
    pub drained: Vec<u64>,
    /// Place of this replica in the order in which the voters campaign.
    pub rank: usize,
}

/// One replica of one group.
#[derive(Debug)]
pub struct Group {
    id: GroupId,
    incarnation: u32,
    seats: Seats,
    raft: Raft,
    machine: Machine,
    /// Time of the last turn.
    now_us: u64,
    /// Term in which this replica led when it was last looked at; 0 = it did not.
    led_term: u64,
    queue: VecDeque<Batch>,
    queue_bytes: usize,
    /// Number of the batch that was queued last.
    last_batch: u64,
    inflight: VecDeque<Inflight>,
    reads: Reads,
    lease: Lease,
    unpersisted: VecDeque<Unpersisted>,
    taken: Taken,
    /// A snapshot that is being installed: number of its work, its index.
    installing: Option<(u64, u64)>,
    /// Expired keys are proposed again only when this batch is applied.
    expire_after_batch: u64,
    memory: Memory,
    /// Index and term of the snapshot that is being written.
    snapshot: Option<(u64, u64)>,
    /// Ticks for which this replica has led without a break, and has not tried to give leadership back.
    led_ticks: u64,
    /// How often this leader has tried to hand over because it is to leave, and ticks until it may again.
    hand_overs: u32,
    retry_ticks: u64,
    /// The leader that was known last; 0 = none yet.
    known_leader: u64,
    /// Whom leadership is being handed to: the likely leader when it is lost, until one is known.
    heir: Option<u64>,
    activity: Activity,
    /// When own entries that are applied were proposed; emptied every turn, so a few.
    applied_proposals: Vec<u64>,
    seed: u64,
    limits: Limits,
}

/// How a group is started.
#[derive(Debug)]
pub struct GroupStart {
    /// The group.
    pub id: GroupId,
    /// Its incarnation.
    pub incarnation: u32,
    /// What the map says of its replicas.
    pub seats: Seats,
    /// Where its log starts and ends.
    pub raft: Start,
    /// Its state at `raft.applied`.
    pub machine: Machine,
}

impl Group {
    /// Starts a replica.
    ///
    /// # Errors
    /// Its log and its snapshot contradict each other.
    pub fn new(start: GroupStart, reader: Rc<dyn EntryReader>) -> Result<Self, String> {
        let (seed, limits) = (start.raft.seed, start.raft.limits);
        Ok(Self {
            id: start.id,
            incarnation: start.incarnation,
            seats: start.seats,
            now_us: 0,
            raft: Raft::new(start.raft, reader)?,
            machine: start.machine,
            led_term: 0,
            queue: VecDeque::new(),
            queue_bytes: 0,
            last_batch: 0,
            inflight: VecDeque::new(),
            reads: Reads::default(),
            lease: Lease::default(),
            unpersisted: VecDeque::new(),
            taken: Taken::default(),
            installing: None,
            expire_after_batch: 0,
            memory: Memory::new(seed),
            snapshot: None,
            led_ticks: 0,
            hand_overs: 0,
            retry_ticks: 0,
            known_leader: 0,
            heir: None,
            activity: Activity::default(),
            applied_proposals: Vec::new(),
            seed,
            limits,
        })
    }

    /// Its id.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// Frames of another incarnation are not for this group.
    pub fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// Its keys; the meta group has none.
    pub fn store(&self) -> Option<&Store> {
        match &self.machine {
            Machine::Partition(machine) => Some(machine.store()),
            Machine::Meta(_) => None,
        }
    }

    /// Its state.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Its Raft engine.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The leader's node, when known.
    pub fn leader(&self) -> Option<&NodeId> {
        self.raft.leader().and_then(|r| self.node_of(r))
    }

    /// Where to ask when this replica does not lead: the name of a node, or nothing.
    fn leader_hint(&self) -> &str {
        let likely = self.raft.leader().or(self.heir);
        likely.and_then(|replica| self.node_of(replica)).map_or("", |node| &node.0)
    }

    fn node_of(&self, replica: u64) -> Option<&NodeId> {
        self.seats.peers.iter().find(|(r, _)| *r == replica).map(|(_, node)| node)
    }

    fn replica_on(&self, node: &NodeId) -> Option<u64> {
        self.seats.peers.iter().find(|(_, n)| n == node).map(|(r, _)| *r)
    }

    /// Follows the cluster map.
    pub fn set_seats(&mut self, seats: Seats) {
        self.raft.set_rank(seats.rank);
        self.seats = seats;
    }

    /// Does the next step towards the members that the map wants, when this replica leads: see [`membership`]. Returns what
    /// it was. `is_busy`: no new replica begins to catch up now.
    pub fn reconcile(&mut self, is_busy: bool) -> Step {
        if !self.raft.is_leader() || self.raft.is_changing() || self.raft.is_transferring() {
            return Step::Wait;
        }
        let (own, last) = (self.raft.replica(), self.raft.last_index());
        let Seats { epoch, turned_epoch, wanted, joining, returned, .. } = &self.seats;
        let (epoch, turned_epoch) = (*epoch, *turned_epoch);
        let wanted = Wanted { epoch, replicas: wanted, joining, returned, turned_epoch };
        let step = self.raft.membership().step(wanted, own, &self.raft.followers(), last);
        match &step {
            Step::Change(membership::Change::AddLearner(_)) if is_busy => return Step::Wait,
            Step::Change(change) => match self.raft.change(change, epoch) {
                Ok(index) => {
                    tracing::debug!(group = %self.id, index, ?change, "the membership changes");
                    if let membership::Change::Enter { add, remove } = change {
                        tracing::info!(group = %self.id, ?add, ?remove, "a replica takes the place of another");
                    }
                }
                Err(_) => return Step::Wait,
            },
            Step::Transfer(heir) => {
                // The preferred one first. But it may be unable to write; writes wait meanwhile, as in `transfer_to_preferred`.
                if self.retry_ticks == 0 {
                    let is_first =
                        self.hand_overs.is_multiple_of(2) && self.transfer(Some(self.seats.preferred));
                    if is_first || self.transfer(Some(*heir)) {
                        self.hand_overs += 1;
                        self.retry_ticks = self.limits.return_ticks;
                    }
                }
            }
            Step::Done | Step::Lacking(_) if !self.raft.settle() => return Step::Wait,
            Step::Done | Step::Lacking(_) | Step::Wait => {}
        }
        step
    }

    /// Whether this replica leads, and who votes now is known for good, whatever is still wanted.
    pub fn has_settled(&mut self) -> bool {
        let members = self.raft.membership();
        !members.is_joint() && self.seats.turned_epoch <= members.epoch && self.raft.settle()
    }

    /// Whether this replica leads and one that does not vote yet, and answers, receives its log.
    pub fn is_seeding(&self) -> bool {
        let learners = &self.raft.membership().learners;
        self.raft.is_leader()
            && !learners.is_empty()
            && self.raft.followers().iter().any(|f| f.is_active && learners.contains(&f.replica))
    }

    /// Whether this replica would answer a read under its lease at `now`.
    pub fn covers_reads(&self, now: Now) -> bool {
        self.raft.is_leader()
            && self.raft.is_own_term_applied()
            && self.lease.covers(self.raft.term(), now.boot_us)
    }

    /// Whether this replica is the one that leads when it can.
    pub fn is_preferred(&self) -> bool {
        self.seats.preferred == self.raft.replica()
    }

    /// Whether the group has never had a leader and this replica should be the first.
    pub fn awaits_first_leader(&self) -> bool {
        self.is_preferred() && self.raft.term() == 0
    }

    /// When the entries that this leader applied since the last call were proposed, µs.
    pub fn take_proposed(&mut self) -> impl Iterator<Item = u64> {
        self.applied_proposals.drain(..)
    }

    /// Digest of its state; equal on all replicas that have applied the same entries. O(bytes held).
    pub fn digest(&self) -> u64 {
        match &self.machine {
            Machine::Partition(m) => m.digest(),
            Machine::Meta(m) => m.digest(),
        }
    }

    /// Starts an election now: the first leader of a new cluster need not wait for a timeout.
    pub fn campaign(&mut self) {
        self.raft.campaign();
    }

    /// Advances the clock by `ticks`; a leader sends its heartbeats if `is_beat`. Returns whether the group has something to do.
    pub fn tick(&mut self, ticks: u64, is_beat: bool, ports: &mut impl Ports) -> bool {
        self.raft.tick(ticks, is_beat);
        self.send_heartbeats(ports);
        self.led_ticks = if self.raft.is_leader() { self.led_ticks + ticks } else { 0 };
        self.retry_ticks = self.retry_ticks.saturating_sub(ticks);
        if self.raft.is_hampered() && self.retry_ticks == 0 && self.transfer_to(|heir| heir.is_fit) {
            self.retry_ticks = self.limits.return_ticks;
        }
        if !self.raft.is_leader() {
            (self.hand_overs, self.retry_ticks) = (0, 0);
        } else if !self.raft.is_transferring() {
            self.heir = None; // the hand-over was given up
        }
        self.has_work()
    }

    /// Sends heartbeats, and answers to heartbeats, that wait for nothing and are alone.
    fn send_heartbeats(&mut self, ports: &mut impl Ports) {
        if self.unpersisted.iter().any(|u| u.has_hard_state) {
            return;
        }
        for message in self.raft.take_heartbeats() {
            if let Some((_, node)) = self.seats.peers.iter().find(|(replica, _)| *replica == message.to()) {
                ports.send(self.id, self.incarnation, node, &message);
            }
        }
    }

    /// Says whether this node's disk lacks room, or is slow. A leader where that is so hands over to a follower that is known to
    /// be better off, and no leader elsewhere gives leadership to this replica.
    pub fn set_hampered(&mut self, is_hampered: bool) {
        self.raft.set_hampered(is_hampered);
    }

    /// Takes a message of a peer. Returns whether the group has something to do.
    pub fn step(&mut self, message: Message, ports: &mut impl Ports) -> bool {
        let is_heartbeat = message.is_heartbeat();
        if let Some((replica, round)) = message.as_read_ask() {
            self.reads.asked(replica, round);
        } else if let Some((round, index)) = message.as_read_answer() {
            // A leader's own rounds are confirmed by its quorum alone.
            if !self.raft.is_leader() {
                self.reads.confirm(round, index);
            }
        } else {
            self.raft.step(message);
            self.send_heartbeats(ports);
        }
        !is_heartbeat || self.has_work()
    }

    /// The link to a node broke.
    pub fn unreachable(&mut self, node: &NodeId) {
        if let Some(replica) = self.replica_on(node) {
            self.raft.report_unreachable(replica);
        }
    }

    /// The snapshot for a replica was delivered, or could not be.
    pub fn snapshot_sent(&mut self, replica: u64, is_delivered: bool) {
        self.raft.report_snapshot(replica, is_delivered);
    }

    /// Gives memory of deleted keys back to the system, a little at a time.
    pub fn reclaim(&mut self) {
        if let Machine::Partition(machine) = &mut self.machine {
            machine.reclaim(RECLAIM_STEPS);
        }
    }

    /// Takes one round of work and sends what may be sent; [`Group::apply_taken`] must follow. What it returns must reach the
    /// log before [`Group::persisted`] is called with the same number. `None`: nothing to do.
    pub fn take_ready(&mut self, ports: &mut impl Ports) -> Option<(u64, Work)> {
        self.notice_role(ports);
        let ready = self.raft.take_ready()?;
        #[cfg(debug_assertions)]
        if let Err(violation) = invariants::ordered_indices(&invariants::View::of(self)) {
            panic!("{violation}");
        }
        self.notice_role(ports);
        for message in &ready.messages {
            self.send(message, ports);
        }
        debug_assert!(self.taken.committed.is_empty(), "what was taken before is applied");
        self.taken = Taken { committed: ready.committed, reads: ready.reads, fetched: Cell::new(0) };
        if let Some((index, _)) = ready.snapshot {
            self.installing = Some((ready.number, index));
        }
        let has_hard_state = ready.hard_state.is_some();
        let waits_for_disk = self.unpersisted.iter().any(|u| u.has_hard_state) || has_hard_state;
        let mut messages = ready.persisted_messages;
        if !waits_for_disk {
            // An answer to a heartbeat promises nothing that the log must hold: it never waits for a disk.
            for heartbeat in messages.extract_if(.., |message| message.is_heartbeat_response()) {
                self.send(&heartbeat, ports);
            }
        }
        self.unpersisted.push_back(Unpersisted { number: ready.number, has_hard_state, messages });
        let work = Work { entries: ready.entries, hard_state: ready.hard_state, install: ready.snapshot };
        Some((ready.number, work))
    }

    /// Tells where the operations to be applied next have their keys, of about `max` of them, and has the processor fetch the
    /// first thing on the way to each; the caller has it fetch the rest.
    pub fn spots_ahead<'a>(&'a self, max: usize, tell: &mut impl FnMut(&'a Store, Spot)) {
        let Machine::Partition(machine) = &self.machine else { return };
        let mut told = 0;
        for entry in &self.taken.committed {
            if max <= told {
                break;
            }
            self.taken.fetched.set(self.taken.fetched.get() + 1);
            if entry.kind == raft::ENTRY_NORMAL {
                told += machine.spots_ahead(&entry.data, tell);
            }
        }
    }

    /// Applies what [`Group::take_ready`] took and is committed, and answers it.
    ///
    /// # Errors
    /// An entry cannot be applied: the replica stops.
    pub fn apply_taken(&mut self, ports: &mut impl Ports) -> Result<(), String> {
        let taken = std::mem::take(&mut self.taken);
        self.apply(taken.committed, taken.fetched.get(), ports)?;
        for (round, index) in taken.reads {
            if let Some(issued_us) = self.reads.confirm(round, index) {
                self.lease.confirm(self.raft.term(), issued_us);
            }
        }
        Ok(())
    }

    fn send(&self, message: &Message, ports: &mut impl Ports) {
        if let Some(node) = self.node_of(message.to()) {
            ports.send(self.id, self.incarnation, node, message);
        }
    }

    /// All work up to `number` is as durable as the mode asks: votes and acknowledgements may go.
    pub fn persisted(&mut self, number: u64, ports: &mut impl Ports) {
        while self.unpersisted.front().is_some_and(|u| u.number <= number) {
            let done = self.unpersisted.pop_front().expect("the loop saw one");
            for message in &done.messages {
                self.send(message, ports);
            }
        }
        self.raft.persisted(number);
        if let Some((of, index)) = self.installing
            && of <= number
        {
            // The engine learns only now that the snapshot's state is applied: it wants it persisted first.
            self.installing = None;
            self.raft.applied(index);
        }
    }

    fn apply_change(&mut self, entry: &LogEntry) -> Result<(), String> {
        let applied = match entry.kind {
            raft::ENTRY_CHANGE => self.raft.apply_change(&entry.data),
            other => Err(format!("entries of kind {other} are unknown")),
        };
        applied.map_err(|e| format!("group {}: entry {} cannot be applied: {e}", self.id, entry.index))?;
        // What the former members confirmed says nothing of the present ones.
        self.lease.members_changed(self.now_us);
        self.reads.forget_rounds();
        Ok(())
    }

    /// Answers whoever waits on an office that is lost.
    fn notice_role(&mut self, ports: &mut impl Ports) {
        let led_term = if self.raft.is_leader() { self.raft.term() } else { 0 };
        if let Some(leader) = self.raft.leader().filter(|leader| *leader != self.known_leader) {
            self.activity.leader_changes += u64::from(self.known_leader != 0);
            self.known_leader = leader;
            self.heir = None;
            self.reads.forget_asked();
        }
        if led_term != self.led_term {
            self.activity.elections_won += u64::from(led_term != 0);
            self.led_term = led_term;
            self.expire_after_batch = 0;
            self.reads.forget_rounds();
            let lost = std::mem::take(&mut self.inflight);
            for origin in lost.iter().flat_map(|inflight| &inflight.origins) {
                ports.reply(*origin, Status::Retry);
            }
            self.memory.forget_office(lost.into_iter().map(|inflight| inflight.change));
        }
        if led_term == 0 && (!self.queue.is_empty() || self.reads.is_leader_waited_for()) {
            let hint = self.leader_hint().to_owned();
            self.queue_bytes = 0;
            let queued = std::mem::take(&mut self.queue).into_iter().flat_map(|b| b.origins);
            for origin in queued.chain(self.reads.take_leaders()) {
                // A follower that asks finds the next leader by itself.
                if !matches!(origin, Origin::Follower { .. }) {
                    ports.reply(origin, Status::NotLeader(&hint));
                }
            }
        }
    }

    /// Whether a turn has something to do for it, or reads wait, for which something may have come.
    pub fn has_work(&self) -> bool {
        self.raft.has_ready()
            || self.has_proposable()
            || self.reads.is_waiting()
            || self.raft.is_snapshot_wanted()
    }

    /// Whether nothing is under way that the next ticks could matter for: a leader has nothing to tell to followers, a follower
    /// hears its leader.
    pub fn is_calm(&self) -> bool {
        self.queue.is_empty()
            && self.inflight.is_empty()
            && !self.reads.is_waiting()
            && self.installing.is_none()
            && self.snapshot.is_none()
            && self.raft.is_calm()
    }

    /// Begins a snapshot of the applied state and returns its index and term; `None` while one is being written, or
    /// when nothing was applied since the last one, and that one is good.
    pub fn snapshot_begin(&mut self) -> Option<(u64, u64)> {
        let index = self.raft.applied_index();
        if self.snapshot.is_some() || !self.needs_snapshot(index) {
            return None;
        }
        let term = self.raft.term_at(index)?;
        match &mut self.machine {
            Machine::Partition(m) => m.snapshot_begin(),
            Machine::Meta(m) => m.snapshot_begin(),
        }
        self.snapshot = Some((index, term));
        self.snapshot
    }

    /// Whether a snapshot at `index` is more than what is on disk.
    pub fn needs_snapshot(&self, index: u64) -> bool {
        let mark = self.raft.mark_index();
        mark < index || (mark == index && index > 0 && !self.raft.has_snapshot())
    }

    /// The snapshot on disk is of no use: another one takes its place.
    pub fn snapshot_lost(&mut self) {
        self.raft.snapshot_lost();
    }

    /// Appends about `bytes` more bytes of it; true at its end.
    pub fn snapshot_next(&mut self, bytes: usize, out: &mut Vec<u8>) -> bool {
        match &mut self.machine {
            Machine::Partition(m) => m.snapshot_next(bytes, out),
            Machine::Meta(m) => m.snapshot_next(out),
        }
    }

    /// Gives it up.
    pub fn snapshot_abort(&mut self) {
        self.snapshot = None;
        match &mut self.machine {
            Machine::Partition(m) => m.snapshot_abort(),
            Machine::Meta(m) => m.snapshot_abort(),
        }
    }

    /// The snapshot at `index`, with these members, is durable: the log before it may go. What it leaves is large, to be freed
    /// on another thread.
    pub fn compacted(
        &mut self,
        index: u64,
        term: u64,
        members: Membership,
    ) -> impl std::fmt::Debug + Send + use<> {
        self.snapshot = None;
        self.raft.compacted(index, term, members)
    }

    /// Whether a follower waits for a snapshot that is neither on disk nor being written. Reading clears it. A second one would
    /// take from the log what is to follow the first; if that one does not serve, the follower asks again.
    pub fn take_snapshot_wanted(&self) -> bool {
        self.raft.take_snapshot_wanted() && self.snapshot.is_none()
    }

    /// Replaces the state by that of an installed snapshot, and returns the former one.
    pub fn install(&mut self, machine: Machine) -> Machine {
        self.snapshot = None;
        std::mem::replace(&mut self.machine, machine)
    }

    /// Ends the replica. What it leaves is large, to be freed on another thread.
    pub fn into_garbage(mut self) -> impl std::fmt::Debug + Send {
        (self.machine, self.raft.take_entries())
    }

    /// Whether the log needs compaction: it is larger than `bytes_min` and than the data.
    pub fn is_compaction_due(&self, log_bytes: u64, bytes_min: u64) -> bool {
        let data = match &self.machine {
            Machine::Partition(m) => m.store().logical_bytes(),
            Machine::Meta(_) => 0,
        };
        self.snapshot.is_none() && log_bytes > bytes_min.max(data)
    }
}
