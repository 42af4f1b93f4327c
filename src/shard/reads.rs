//! Reads of the leader: under the lease, else by ReadIndex (Ongaro thesis, 6.4), one round shared by all that wait.
//!
//! A read is executed first and answered later, by [`Group::finish_reads`]: under the lease only if the clock, read after
//! the execution, is still within it; after a confirmed round without looking at the clock.

use super::{Group, Machine, Origin, Ports, Submission, machine::ReadOutcome};
use crate::clock::Now;
use ringfort_wire::entry::{Op, OpKind};
use ringfort_wire::request::Status;
use std::collections::VecDeque;

/// Most reads that wait for a lease, a round or a write; beyond, a read is answered `Busy`.
pub const READS_MAX: usize = 16384;
/// Most bytes of the commands of waiting reads; beyond, a read is answered `Busy`.
pub const READS_BYTES_MAX: usize = 16 << 20;
/// Bytes of replies of executed reads at which further reads wait for the next turn.
const SCRATCH_BYTES_MAX: usize = 16 << 20;
/// Capacity of the scratch buffer that is kept from turn to turn.
const SCRATCH_KEPT_BYTES: usize = 1 << 20;
/// Time after which a waiting read is answered `Busy`: nothing that it waits for takes so long in a healthy group.
const READ_WAIT_US: u64 = 10_000_000;
/// Time after which another ReadIndex round is sent: the library may have dropped the last one.
const ROUND_RETRY_US: u64 = 100_000;
/// Rounds whose confirmation is still accepted, so that one which takes longer than the retry counts.
const ROUNDS_MAX: usize = 16;

/// The reads of one group.
#[derive(Debug, Default)]
pub(super) struct Reads {
    waiting: VecDeque<WaitingRead>,
    waiting_bytes: usize,
    done: Vec<DoneRead>,
    scratch: Vec<u8>,
    next_round: u64,
    /// The rounds that are under way, oldest first: number, time of issue.
    rounds: VecDeque<(u64, u64)>,
    /// The last confirmed round of this term: number, index.
    confirmed: (u64, u64),
    is_lease_used: bool,
}

/// A read as it is executed.
#[derive(Debug, Clone, Copy)]
struct ReadCommand<'a> {
    origin: Origin,
    session: u64,
    seq: u64,
    body: &'a [u8],
    since_us: u64,
    /// It waits until this index is applied (a write of the same client, the deletion of an expired key).
    after_index: u64,
}

#[derive(Debug)]
struct WaitingRead {
    origin: Origin,
    session: u64,
    seq: u64,
    body: Vec<u8>,
    since_us: u64,
    after_index: u64,
    /// ReadIndex round whose confirmation, or that of any later one, allows it; 0 = none yet.
    round: u64,
}

/// A read that was executed: its command and its reply lie in the scratch buffer.
#[derive(Debug)]
struct DoneRead {
    origin: Origin,
    session: u64,
    seq: u64,
    since_us: u64,
    /// Whether a quorum confirmed, after the read had come, that this replica leads: then no lease is needed.
    is_confirmed: bool,
    command: (usize, usize),
    reply: (usize, usize),
}

/// What became of the attempt to execute a read.
enum Attempt {
    /// Executed; [`Group::finish_reads`] answers it.
    Done,
    /// Not before this index is applied (0 = something else must happen first).
    After(u64),
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

    /// Takes the origins of all reads that wait.
    pub(super) fn take_waiting(&mut self) -> impl Iterator<Item = Origin> + use<> {
        self.waiting_bytes = 0;
        std::mem::take(&mut self.waiting).into_iter().map(|r| r.origin)
    }

    /// A quorum has confirmed `round` at `index`; returns when the round was issued.
    pub(super) fn confirm(&mut self, round: u64, index: u64) -> Option<u64> {
        while let Some(&(number, issued_us)) = self.rounds.front()
            && number <= round
        {
            self.rounds.pop_front();
            if number == round {
                self.confirmed = (round, index);
                return Some(issued_us);
            }
        }
        None
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
            after_index: read.after_index,
            round: 0,
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
            after_index: self.after_index,
        }
    }
}

impl Group {
    /// Executes a read, or keeps it until it may be executed.
    pub fn read(&mut self, s: Submission<'_>, now: Now, ports: &mut impl Ports) {
        if !self.raft.is_leader() {
            ports.reply(s.origin, Status::NotLeader(self.leader().map_or("", |n| n.0.as_str())));
            return;
        }
        self.reads.is_lease_used = true;
        let mut read = ReadCommand {
            origin: s.origin,
            session: s.session,
            seq: s.seq,
            body: s.body,
            since_us: now.boot_us,
            after_index: if s.is_after_queued { self.next_entry_index() } else { 0 },
        };
        let is_covered = self.is_lease_usable() && self.lease.covers(self.raft.term(), now.boot_us);
        if is_covered && self.reads.scratch.len() < SCRATCH_BYTES_MAX {
            match self.execute_read(read, false, now) {
                Attempt::Done => return,
                Attempt::After(index) => read.after_index = index,
            }
        }
        if self.reads.has_room(s.body.len()) {
            self.reads.keep(read);
        } else {
            ports.reply(s.origin, Status::Busy);
        }
    }

    /// The conditions of a lease read that do not depend on the time. An entry of the own term is applied, so everything
    /// that an earlier leader acknowledged is; what this one acknowledged is, because it answers after it applied.
    pub(super) fn is_lease_usable(&self) -> bool {
        self.raft.is_leader() && self.raft.is_own_term_applied()
    }

    /// Executes a read into the scratch buffer, if what it waits for is applied.
    fn execute_read(&mut self, read: ReadCommand<'_>, is_confirmed: bool, now: Now) -> Attempt {
        if read.after_index > self.raft.applied_index() {
            return Attempt::After(read.after_index);
        }
        let Machine::Partition(machine) = &self.machine else { return Attempt::After(u64::MAX) };
        let scratch = &mut self.reads.scratch;
        let start = scratch.len();
        match machine.read(now.wall_ms, read.session, read.seq, read.body, scratch) {
            ReadOutcome::Done | ReadOutcome::Refused => {
                let reply = (start, scratch.len());
                scratch.extend_from_slice(read.body);
                let command = (reply.1, scratch.len());
                self.reads.done.push(DoneRead {
                    origin: read.origin,
                    session: read.session,
                    seq: read.seq,
                    since_us: read.since_us,
                    is_confirmed,
                    command,
                    reply,
                });
                Attempt::Done
            }
            ReadOutcome::AwaitsWrite => Attempt::After(read.after_index),
            ReadOutcome::Expired(keys) => {
                let mut body = Vec::new();
                for key in keys {
                    body.clear();
                    body.extend_from_slice(&key.expires_at_ms.to_le_bytes());
                    body.extend_from_slice(&key.key);
                    let op = Op { kind: OpKind::Expire, session: 0, seq: 0, acked: 0, body: &body };
                    self.push(Origin::None, &op);
                }
                Attempt::After(self.next_entry_index())
            }
        }
    }

    /// Executes the reads that may be executed now, and asks a quorum on behalf of those that may not.
    pub fn serve_reads(&mut self, now: Now, ports: &mut impl Ports) {
        self.notice_role(ports);
        if !self.raft.is_leader() {
            return;
        }
        self.serve_waiting(now, ports);
        let must_ask = self.reads.waiting.iter().any(|r| r.round == 0 || r.round > self.reads.confirmed.0);
        let must_renew = self.reads.is_lease_used && self.lease.is_half_gone(self.raft.term(), now.boot_us);
        let last_round = self.reads.rounds.back().copied();
        let may_ask = last_round.is_none_or(|(_, at)| now.boot_us.saturating_sub(at) > ROUND_RETRY_US);
        if (must_ask || must_renew) && may_ask && self.raft.is_own_term_committed() {
            self.reads.next_round += 1;
            let round = self.reads.next_round;
            self.reads.rounds.push_back((round, now.boot_us));
            if self.reads.rounds.len() > ROUNDS_MAX {
                self.reads.rounds.pop_front();
            }
            self.reads.is_lease_used = false;
            self.raft.read_index(round);
            // A read that waits for an earlier round keeps it: any confirmation from that one on will do.
            for read in self.reads.waiting.iter_mut().filter(|r| r.round == 0) {
                read.round = round;
            }
        }
    }

    fn serve_waiting(&mut self, now: Now, ports: &mut impl Ports) {
        let is_covered = self.is_lease_usable() && self.lease.covers(self.raft.term(), now.boot_us);
        let (confirmed, index) = self.reads.confirmed;
        let is_index_applied = self.raft.applied_index() >= index;
        for _ in 0..self.reads.waiting.len() {
            let Some(mut read) = self.reads.waiting.pop_front() else { break };
            let is_confirmed = is_index_applied && read.round != 0 && read.round <= confirmed;
            let mut is_over = false;
            if (is_covered || is_confirmed) && self.reads.scratch.len() < SCRATCH_BYTES_MAX {
                match self.execute_read(read.command(), is_confirmed, now) {
                    Attempt::Done => is_over = true,
                    Attempt::After(index) => read.after_index = index,
                }
            }
            if !is_over && now.boot_us.saturating_sub(read.since_us) > READ_WAIT_US {
                ports.reply(read.origin, Status::Busy);
                is_over = true;
            }
            if is_over {
                self.reads.waiting_bytes -= read.body.len();
            } else {
                self.reads.waiting.push_back(read);
            }
        }
    }

    /// Whether reads were executed that [`Group::finish_reads`] must answer.
    pub fn has_done_reads(&self) -> bool {
        !self.reads.done.is_empty()
    }

    /// Answers the executed reads whose round was confirmed, or whose lease still covers `now`, which is taken after
    /// they were executed; the others wait for a round.
    pub fn finish_reads(&mut self, now: Now, ports: &mut impl Ports) {
        let is_leader = self.raft.is_leader();
        let is_covered = is_leader && self.lease.covers(self.raft.term(), now.boot_us);
        let mut scratch = std::mem::take(&mut self.reads.scratch);
        for read in std::mem::take(&mut self.reads.done) {
            if is_covered || read.is_confirmed {
                let by = match read.is_confirmed {
                    true => &mut self.activity.round_reads,
                    false => &mut self.activity.lease_reads,
                };
                *by += 1;
                ports.reply(read.origin, Status::Done(&scratch[read.reply.0..read.reply.1]));
            } else if is_leader {
                self.reads.keep(ReadCommand {
                    origin: read.origin,
                    session: read.session,
                    seq: read.seq,
                    body: &scratch[read.command.0..read.command.1],
                    since_us: read.since_us,
                    after_index: 0,
                });
            } else {
                ports.reply(read.origin, Status::NotLeader(self.leader().map_or("", |n| n.0.as_str())));
            }
        }
        scratch.clear();
        scratch.shrink_to(SCRATCH_KEPT_BYTES);
        self.reads.scratch = scratch;
    }
}
