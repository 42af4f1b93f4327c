//! Reads of the leader: under the lease, else by ReadIndex (Ongaro thesis, 6.4), one round shared by all that wait.
//!
//! A read is executed first, into the worker's [`ExecutedReads`], and answered later, by [`Group::finish_read`]: under the lease
//! only if the clock, read after the execution, is still within it; after a confirmed round without looking at the clock.
//!
//! Reads of a follower, for clients that said READONLY, go the same way. Its rounds are questions to the leader, which
//! answers with its applied index as it answers a read; a round counts once the follower has applied that index. What was
//! acknowledged before a round was issued is then here. A follower has an *age* in place of a lease: it answers at once
//! while its last round was issued, by its own clock, less than [`Group::set_read_age_max`] ago; else a read waits for a
//! round that is issued after it came.

use super::{Group, Machine, Origin, Ports, Submission, machine::ReadOutcome};
use crate::clock::Now;
use ringfort_store::LargeValue;
use ringfort_wire::GroupId;
use ringfort_wire::entry::{Op, OpKind};
use ringfort_wire::request::Status;
use std::collections::VecDeque;

/// Most reads that wait for a lease, a round or a write; beyond, a read is answered `Busy`.
pub const READS_MAX: usize = 16384;
/// Most bytes of the commands of waiting reads; beyond, a read is answered `Busy`.
pub const READS_BYTES_MAX: usize = 16 << 20;
/// Bytes of executed reads at which further reads wait for the next turn.
const EXECUTED_BYTES_MAX: usize = 16 << 20;
/// Capacity for the bytes of executed reads that is kept from turn to turn.
const EXECUTED_KEPT_BYTES: usize = 1 << 20;
/// Executed reads for which memory is kept from turn to turn.
const EXECUTED_KEPT: usize = 1024;
/// Time after which a waiting read is answered `Busy`: nothing that it waits for takes so long in a healthy group.
const READ_WAIT_US: u64 = 10_000_000;
/// Time after which a read that waits on a follower is sent to the leader: no round came, or its index is far.
const FOLLOWER_WAIT_US: u64 = 1_000_000;
/// Most questions of followers that a leader keeps from one turn to the next; one that is lost is asked again.
const ASKS_MAX: usize = 64;
/// Time after which another ReadIndex round is sent: the library may have dropped the last one.
const ROUND_RETRY_US: u64 = 100_000;
/// Rounds whose confirmation is still accepted, so that one which takes longer than the retry counts, or whose index is not
/// applied.
const ROUNDS_MAX: usize = 16;

/// The reads of one group.
#[derive(Debug, Default)]
pub(super) struct Reads {
    waiting: VecDeque<WaitingRead>,
    waiting_bytes: usize,
    last_round: u64,
    /// The rounds that count for nothing yet, oldest first.
    rounds: VecDeque<Round>,
    /// The last round, of this term when this replica leads, that was confirmed and whose index is applied: number, time of
    /// issue; 0 = none.
    confirmed: (u64, u64),
    /// Whether a read came since the last round was issued: only then is lease or age renewed.
    is_used: bool,
    /// What followers asked since the last turn: replica, its round.
    asks: Vec<(u64, u64)>,
    /// Age below which a follower answers at once.
    age_max_us: u64,
    /// Whether reads waited in vain on this follower: until a round counts, others are sent to the leader at once.
    is_behind: bool,
    /// The term of which this replica, as its leader, has applied an entry.
    applied_term: u64,
}

/// A question whether this replica still leads (to a quorum), or how far it must apply (to its leader).
#[derive(Debug)]
struct Round {
    number: u64,
    issued_us: u64,
    /// Set by the answer.
    index: Option<u64>,
}

/// A read as it is executed.
#[derive(Debug, Clone, Copy)]
struct ReadCommand<'a> {
    origin: Origin,
    session: u64,
    seq: u64,
    body: &'a [u8],
    since_us: u64,
    /// It waits until this batch is applied (a write of the same client, the deletion of an expired key).
    after_batch: u64,
    /// Whether a follower may answer it.
    may_follow: bool,
}

#[derive(Debug)]
struct WaitingRead {
    origin: Origin,
    session: u64,
    seq: u64,
    body: Vec<u8>,
    since_us: u64,
    after_batch: u64,
    may_follow: bool,
    /// ReadIndex round whose confirmation, or that of any later one, allows it; 0 = none yet.
    round: u64,
    /// Bytes of its reply, for which there was no room; 0 = not known.
    reply_bytes: usize,
}

/// The reads of one turn, of all groups of a worker, that are executed and not answered yet.
#[derive(Debug, Default)]
pub struct ExecutedReads {
    reads: Vec<ExecutedRead>,
    /// Their replies and commands.
    bytes: Vec<u8>,
}

impl ExecutedReads {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.reads.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.reads.is_empty()
    }

    /// Hands each to `finish`, to be answered by [`Group::finish_read`] of its group, in their order.
    pub fn drain(&mut self, mut finish: impl FnMut(GroupId, ExecutedRead, &[u8])) {
        for read in self.reads.drain(..) {
            finish(read.group, read, &self.bytes);
        }
        self.reads.shrink_to(EXECUTED_KEPT);
        self.bytes.clear();
        self.bytes.shrink_to(EXECUTED_KEPT_BYTES);
    }

    /// Whether another read may be executed before these are answered.
    pub fn has_room(&self) -> bool {
        self.bytes.len() < EXECUTED_BYTES_MAX
    }
}

/// A read that was executed: its command and its reply lie in the bytes of [`ExecutedReads`].
#[derive(Debug)]
pub struct ExecutedRead {
    group: GroupId,
    origin: Origin,
    session: u64,
    seq: u64,
    since_us: u64,
    /// Whether a round that was issued after the read had come counts: then neither lease nor age is needed.
    is_confirmed: bool,
    /// Whether a follower may answer it, and one executed it.
    may_follow: bool,
    is_followers: bool,
    command: (usize, usize),
    reply: (usize, usize),
    /// What follows the reply, with a line end.
    value: Option<LargeValue>,
}

impl ExecutedRead {
    /// Who waits for its answer.
    pub fn origin(&self) -> Origin {
        self.origin
    }
}

/// What became of the attempt to execute a read.
enum Attempt {
    /// Executed, so that [`Group::finish_read`] answers it; or the port keeps it until there is room for its reply.
    Done,
    /// Not before this batch is applied (0 = something else must happen first).
    After(u64),
    /// Not before there is room for its reply of so many bytes.
    NoRoom(usize),
}

impl Reads {
    /// How many reads wait.
    pub(super) fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether reads wait.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Forgets the rounds of a term that is over; what was asked then proves nothing now.
    pub(super) fn forget_rounds(&mut self) {
        self.rounds.clear();
        self.confirmed = (0, 0);
        for read in &mut self.waiting {
            read.round = 0;
        }
    }

    /// Whether reads wait that only a leader may answer.
    pub(super) fn is_leader_waited_for(&self) -> bool {
        self.waiting.iter().any(|r| !r.may_follow)
    }

    /// Takes the origins of all reads that only a leader may answer.
    pub(super) fn take_leaders(&mut self) -> impl Iterator<Item = Origin> + use<> {
        let (others, leaders) = std::mem::take(&mut self.waiting).into_iter().partition(|r| r.may_follow);
        self.waiting = others;
        let leaders: VecDeque<WaitingRead> = leaders;
        self.waiting_bytes -= leaders.iter().map(|r| r.body.len()).sum::<usize>();
        leaders.into_iter().map(|r| r.origin)
    }

    /// `round` was confirmed at `index`; returns when it was issued.
    pub(super) fn confirm(&mut self, round: u64, index: u64) -> Option<u64> {
        let at = self.rounds.iter().position(|r| r.number == round)?;
        self.rounds[at].index = Some(index);
        let issued_us = self.rounds[at].issued_us;
        // An answer to an earlier one would say less.
        self.rounds.retain(|r| round <= r.number || r.index.is_some());
        Some(issued_us)
    }

    /// Everything up to `applied` is applied: rounds that were confirmed up to there count.
    fn settle(&mut self, applied: u64) {
        while let Some(round) = self.rounds.front()
            && round.index.is_some_and(|index| index <= applied)
        {
            self.confirmed = (round.number, round.issued_us);
            self.is_behind = false;
            self.rounds.pop_front();
        }
    }

    /// Notes a round that is issued now and returns its number; `None`: one is under way, or there are too many.
    ///
    /// Numbers follow the clock, so that no answer to an earlier life of this process fits.
    fn issue(&mut self, now_us: u64) -> Option<u64> {
        if self
            .rounds
            .back()
            .is_some_and(|r| r.index.is_none() && now_us.saturating_sub(r.issued_us) <= ROUND_RETRY_US)
        {
            return None;
        }
        if ROUNDS_MAX <= self.rounds.len() {
            let at = self.rounds.iter().position(|r| r.index.is_none())?;
            self.rounds.remove(at);
        }
        self.last_round = now_us.max(self.last_round + 1);
        self.rounds.push_back(Round { number: self.last_round, issued_us: now_us, index: None });
        self.is_used = false;
        // A read that waits for an earlier round keeps it: any confirmation from that one on will do.
        for read in self.waiting.iter_mut().filter(|r| r.round == 0) {
            read.round = self.last_round;
        }
        Some(self.last_round)
    }

    /// Whether a read waits for a round that was not confirmed.
    fn needs_round(&self) -> bool {
        let confirmed = self.rounds.iter().rev().find(|r| r.index.is_some()).map(|r| r.number);
        let confirmed = confirmed.unwrap_or(self.confirmed.0);
        self.waiting.iter().any(|r| r.round == 0 || confirmed < r.round)
    }

    /// Whether this follower holds all that was acknowledged up to `age_us` before `now_us`.
    fn is_younger(&self, age_us: u64, now_us: u64) -> bool {
        self.confirmed.0 != 0 && now_us < self.confirmed.1 + age_us
    }

    /// A follower asks how far it must apply; kept for the next turn.
    pub(super) fn asked(&mut self, replica: u64, round: u64) {
        self.asks.retain(|(other, _)| *other != replica);
        if self.asks.len() < ASKS_MAX {
            self.asks.push((replica, round));
        }
    }

    /// Gives up the rounds that are under way: the leader that was asked leads no more.
    pub(super) fn forget_asked(&mut self) {
        self.rounds.retain(|r| r.index.is_some());
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.waiting.len() < READS_MAX && self.waiting_bytes + bytes <= READS_BYTES_MAX
    }

    fn keep(&mut self, read: ReadCommand<'_>) {
        self.waiting_bytes += read.body.len();
        self.waiting.push_back(WaitingRead {
            origin: read.origin,
            session: read.session,
            seq: read.seq,
            body: read.body.to_vec(),
            since_us: read.since_us,
            after_batch: read.after_batch,
            may_follow: read.may_follow,
            round: 0,
            reply_bytes: 0,
        });
    }
}

impl WaitingRead {
    fn command(&self) -> ReadCommand<'_> {
        ReadCommand {
            origin: self.origin,
            session: self.session,
            seq: self.seq,
            body: &self.body,
            since_us: self.since_us,
            after_batch: self.after_batch,
            may_follow: self.may_follow,
        }
    }
}

impl Group {
    /// Executes a read, or keeps it until it may be executed.
    pub fn read(
        &mut self,
        s: Submission<'_>,
        now: Now,
        ports: &mut impl Ports,
        executed: &mut ExecutedReads,
    ) {
        self.take_read(s, false, now, ports, executed);
    }

    /// As [`Group::read`], for a client that is content with what a follower has.
    pub fn read_as_replica(
        &mut self,
        s: Submission<'_>,
        now: Now,
        ports: &mut impl Ports,
        executed: &mut ExecutedReads,
    ) {
        self.take_read(s, true, now, ports, executed);
    }

    /// Sets the age up to which a follower answers reads at once, µs; 0: each waits for a round that is issued after it
    /// came.
    pub fn set_read_age_max(&mut self, us: u64) {
        self.reads.age_max_us = us;
    }

    fn take_read(
        &mut self,
        s: Submission<'_>,
        may_follow: bool,
        now: Now,
        ports: &mut impl Ports,
        executed: &mut ExecutedReads,
    ) {
        let is_leader = self.raft.is_leader();
        if !is_leader && !may_follow {
            self.answer_not_leader(s.origin, ports);
            return;
        }
        self.reads.is_used = true;
        let is_covered = self.is_covered(now.boot_us);
        if !is_leader && self.reads.is_behind && !is_covered {
            self.answer_not_leader(s.origin, ports);
            return;
        }
        let mut read = ReadCommand {
            origin: s.origin,
            session: s.session,
            seq: s.seq,
            body: s.body,
            since_us: now.boot_us,
            after_batch: if s.is_after_queued { self.last_batch } else { 0 },
            may_follow,
        };
        if is_covered && executed.has_room() {
            match self.execute_read(read, false, now, ports, executed) {
                Attempt::Done => return,
                Attempt::After(batch) => read.after_batch = batch,
                Attempt::NoRoom(_) => {}
            }
        }
        if self.reads.has_room(s.body.len()) {
            self.reads.keep(read);
        } else {
            self.answer_read(s.origin, Status::Busy, ports);
        }
    }

    /// Answers a read, or a follower's question. A question without an answer is asked again.
    fn answer_read(&self, origin: Origin, status: Status<'_>, ports: &mut impl Ports) {
        let Origin::Follower { replica, round } = origin else { return ports.reply(origin, status) };
        if let Status::Done(index) = status
            && let Ok(index) = index.try_into()
            && let Some(node) = self.node_of(replica)
        {
            let answer = self.raft.read_answer(replica, round, u64::from_le_bytes(index));
            ports.send(self.id, self.incarnation, node, &answer);
        }
    }

    fn answer_not_leader(&self, origin: Origin, ports: &mut impl Ports) {
        self.answer_read(origin, Status::NotLeader(self.leader_hint()), ports);
    }

    /// The conditions of a lease read that do not depend on the time. An entry of the own term is applied, so everything
    /// that an earlier leader acknowledged is; what this one acknowledged is, because it answers after it applied.
    pub(super) fn is_lease_usable(&mut self) -> bool {
        if !self.raft.is_leader() {
            return false;
        }
        // Once that is so it stays so while the term lasts.
        let term = self.raft.term();
        if self.reads.applied_term != term && self.raft.is_own_term_applied() {
            self.reads.applied_term = term;
        }
        self.reads.applied_term == term
    }

    /// Whether a read may be executed at once: under the leader's lease, or at the follower's age.
    fn is_covered(&mut self, now_us: u64) -> bool {
        if self.raft.is_leader() {
            // Followers may have applied, and shown, all that is committed, while this one waits for its own disk.
            self.is_lease_usable()
                && self.raft.applied_index() == self.raft.commit_index()
                && self.lease.covers(self.raft.term(), now_us)
        } else {
            self.reads.is_younger(self.reads.age_max_us, now_us)
        }
    }

    /// Executes a read, if what it waits for is applied and there is room for its reply.
    fn execute_read(
        &mut self,
        read: ReadCommand<'_>,
        is_confirmed: bool,
        now: Now,
        ports: &mut impl Ports,
        executed: &mut ExecutedReads,
    ) -> Attempt {
        if !self.is_batch_done(read.after_batch) {
            return Attempt::After(read.after_batch);
        }
        let Machine::Partition(machine) = &self.machine else { return Attempt::After(u64::MAX) };
        let room = ports.room(read.origin);
        if room < usize::MAX {
            // Values of megabytes are not copied only to be thrown away.
            let value_bytes = machine.value_bytes(read.body);
            if room < value_bytes {
                return park(self.id, read, value_bytes, ports);
            }
        }
        let is_followers = !self.raft.is_leader();
        let scratch = &mut executed.bytes;
        let start = scratch.len();
        let outcome = match read.origin {
            Origin::Follower { replica, .. } => {
                self.raft.tell_commit(replica);
                scratch.extend_from_slice(&self.raft.applied_index().to_le_bytes());
                ReadOutcome::Done
            }
            _ if is_followers => machine.read_as_replica(now.wall_ms, read.body, scratch),
            _ => machine.read(now.wall_ms, read.session, read.seq, read.body, scratch),
        };
        let value = match outcome {
            ReadOutcome::AwaitsWrite => return Attempt::After(read.after_batch),
            ReadOutcome::Expired(keys) => {
                let mut body = Vec::new();
                for key in keys {
                    body.clear();
                    body.extend_from_slice(&key.expires_at_ms.to_le_bytes());
                    body.extend_from_slice(&key.key);
                    let op = Op { kind: OpKind::Expire, session: 0, seq: 0, acked: 0, body: &body };
                    self.push(Origin::None, &op);
                }
                return Attempt::After(self.last_batch);
            }
            ReadOutcome::Done | ReadOutcome::Refused => None,
            ReadOutcome::Large(value) => Some(value),
        };
        let reply = (start, scratch.len());
        let value_bytes = value.as_ref().map_or(0, |value| value.as_ref().len() + b"\r\n".len());
        let reply_bytes = reply.1 - reply.0 + value_bytes;
        if room < reply_bytes {
            scratch.truncate(start);
            return park(self.id, read, reply_bytes, ports);
        }
        ports.reserve(read.origin, reply_bytes);
        scratch.extend_from_slice(read.body);
        let command = (reply.1, scratch.len());
        executed.reads.push(ExecutedRead {
            group: self.id,
            origin: read.origin,
            session: read.session,
            seq: read.seq,
            since_us: read.since_us,
            is_confirmed,
            may_follow: read.may_follow,
            is_followers,
            command,
            reply,
            value,
        });
        Attempt::Done
    }

    /// Executes the reads that may be executed now, and issues a round on behalf of those that may not.
    pub fn serve_reads(&mut self, now: Now, ports: &mut impl Ports, executed: &mut ExecutedReads) {
        self.notice_role(ports);
        for (replica, round) in std::mem::take(&mut self.reads.asks) {
            let origin = Origin::Follower { replica, round };
            let ask = Submission { origin, session: 0, seq: 0, acked: 0, is_after_queued: false, body: &[] };
            self.read(ask, now, ports, executed);
        }
        self.reads.settle(self.raft.applied_index());
        self.serve_waiting(now, ports, executed);
        if self.raft.is_leader() {
            self.ask_quorum(now);
        } else {
            self.ask_leader(now, ports);
        }
    }

    /// Whether reads ask for [`Group::serve_reads`]: some wait, or lease or age is to be renewed because they came.
    pub fn has_reads_to_serve(&self, now: Now) -> bool {
        self.reads.is_waiting() || !self.reads.asks.is_empty() || self.must_renew(now)
    }

    /// Whether reads wait.
    pub fn has_waiting_reads(&self) -> bool {
        self.reads.is_waiting()
    }

    fn must_renew(&self, now: Now) -> bool {
        self.reads.is_used
            && match self.raft.is_leader() {
                true => self.lease.is_half_gone(self.raft.term(), now.boot_us),
                false => !self.reads.is_younger(self.reads.age_max_us / 2, now.boot_us),
            }
    }

    fn ask_quorum(&mut self, now: Now) {
        if (self.must_renew(now) || self.reads.needs_round())
            && self.raft.is_own_term_committed()
            && let Some(round) = self.reads.issue(now.boot_us)
        {
            self.activity.read_rounds += 1;
            self.raft.read_index(round);
        }
    }

    fn ask_leader(&mut self, now: Now, ports: &mut impl Ports) {
        if (self.must_renew(now) || self.reads.needs_round())
            && let Some(leader) = self.raft.leader()
            && let Some(round) = self.reads.issue(now.boot_us)
            && let Some(node) = self.node_of(leader)
        {
            ports.send(self.id, self.incarnation, node, &self.raft.read_ask(leader, round));
            self.activity.read_rounds += 1;
        }
    }

    fn serve_waiting(&mut self, now: Now, ports: &mut impl Ports, executed: &mut ExecutedReads) {
        let is_covered = self.is_covered(now.boot_us);
        let is_leader = self.raft.is_leader();
        let confirmed = self.reads.confirmed.0;
        for _ in 0..self.reads.waiting.len() {
            let Some(mut read) = self.reads.waiting.pop_front() else { break };
            let is_confirmed = read.round != 0 && read.round <= confirmed;
            let mut is_over = false;
            let mut has_room = read.reply_bytes == 0 || read.reply_bytes <= ports.room(read.origin);
            if has_room && (is_covered || is_confirmed) && executed.has_room() {
                match self.execute_read(read.command(), is_confirmed, now, ports, executed) {
                    Attempt::Done => is_over = true,
                    Attempt::After(batch) => read.after_batch = batch,
                    Attempt::NoRoom(bytes) => (has_room, read.reply_bytes) = (false, bytes),
                }
            }
            let waited_us = now.boot_us.saturating_sub(read.since_us);
            if !is_over && has_room && !is_leader && waited_us > FOLLOWER_WAIT_US {
                self.reads.is_behind = true;
                self.answer_not_leader(read.origin, ports);
                is_over = true;
            }
            if !is_over && waited_us > READ_WAIT_US {
                self.answer_read(read.origin, Status::Busy, ports);
                is_over = true;
            }
            if is_over {
                self.reads.waiting_bytes -= read.body.len();
            } else {
                self.reads.waiting.push_back(read);
            }
        }
    }

    /// Answers an executed read whose round was confirmed, or whose lease or age still covers `now`, which is taken after it
    /// was executed; another one waits for a round. `bytes` is what [`ExecutedReads::drain`] hands over with it. Returns the
    /// age of this follower, µs, if that is what let it answer.
    pub fn finish_read(
        &mut self,
        read: ExecutedRead,
        bytes: &[u8],
        now: Now,
        ports: &mut impl Ports,
    ) -> Option<u64> {
        let is_leader = self.raft.is_leader();
        let is_covered = match read.is_followers {
            true => self.reads.is_younger(self.reads.age_max_us, now.boot_us),
            false => is_leader && self.lease.covers(self.raft.term(), now.boot_us),
        };
        if !is_covered && !read.is_confirmed {
            if is_leader || read.may_follow {
                self.reads.keep(ReadCommand {
                    origin: read.origin,
                    session: read.session,
                    seq: read.seq,
                    body: &bytes[read.command.0..read.command.1],
                    since_us: read.since_us,
                    after_batch: 0,
                    may_follow: read.may_follow,
                });
            } else {
                self.answer_not_leader(read.origin, ports);
            }
            return None;
        }
        let mut age_us = None;
        if read.is_followers {
            self.activity.follower_reads += 1;
            if !read.is_confirmed {
                let age = now.boot_us.saturating_sub(self.reads.confirmed.1);
                self.activity.follower_age_us_max = self.activity.follower_age_us_max.max(age);
                age_us = Some(age);
            }
        } else if !matches!(read.origin, Origin::Follower { .. }) {
            let by = match read.is_confirmed {
                true => &mut self.activity.round_reads,
                false => &mut self.activity.lease_reads,
            };
            *by += 1;
        }
        let reply = &bytes[read.reply.0..read.reply.1];
        match read.value {
            Some(value) => ports.reply_large(read.origin, reply, value),
            None => self.answer_read(read.origin, Status::Done(reply), ports),
        }
        age_us
    }
}

/// Gives a read whose reply of so many bytes finds no room to the port, which asks again when there is.
fn park(group: GroupId, read: ReadCommand<'_>, reply_bytes: usize, ports: &mut impl Ports) -> Attempt {
    let ReadCommand { origin, session, seq, body, since_us, .. } = read;
    let submission = Submission { origin, session, seq, acked: 0, is_after_queued: false, body };
    match ports.park(group, submission, reply_bytes, since_us) {
        true => Attempt::Done,
        false => Attempt::NoRoom(reply_bytes),
    }
}
