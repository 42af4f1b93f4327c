//! The requests of one proxy worker for one partition, and their exactly-once session.
//!
//! Writes carry (session, seq) and the partition executes only seq = last + 1 (RIFL, Lee et al. 2015, with a window), so
//! a lane that is unsure simply sends all unanswered writes again, in order and under the same numbers:
//!
//! ```text
//!            push_write            first sending: gets its seq            reply
//!  client ---------------> waiting -----------------------> sent ----------------> answered
//!                             |                              |
//!                    deadline | not executed        deadline | unknown; goes on as Skip{seq}
//! ```
//!
//! A *round* is one attempt: everything unanswered is sent once, to one node. What goes wrong (another leader, a lost link,
//! a gap, silence) ends the round, and [`Lane::go_back`] starts the next one. Answers of an earlier round still count;
//! complaints of an earlier round do not.
//!
//! # Invariants
//! - `sent` holds the seqs `next_seq - sent.len() .. next_seq`, at most [`SESSION_WINDOW`]; all below are answered.
//! - Everything in `sent[..cursor]` that is unanswered was sent in this round, nothing at or behind the cursor was.
//! - No copy of a write in `waiting` is in doubt.
//! - A read is sent only when each write that it must see is answered or was sent in this round.

use crate::limits::Limits;
use ringfort_wire::RequestKind;
use ringfort_wire::request::SESSION_WINDOW;
use std::collections::{BTreeMap, VecDeque};

/// Commands that wait in one lane at which clients that ask for more are held up.
pub(crate) const LANE_REQUESTS_MAX: usize = 8192;
/// Bytes of commands that wait in one lane at which clients that ask for more are held up; one command may pass it.
pub(crate) const LANE_BYTES_MAX: usize = 16 << 20;

/// Failed rounds in a row from which on a round sends only one request until that is answered: a partition without a
/// leader is asked often, and it need not get a whole window each time.
const PROBE_FAILURES: u32 = 2;

/// A session without a write for so long is replaced before the next one, µs: half of the time after which a partition
/// forgets it.
const SESSION_RENEW_US: u64 = 300_000_000;

/// A command and where its reply goes.
#[derive(Debug)]
pub(crate) struct Call<O> {
    /// Who waits for the reply.
    pub(crate) origin: O,
    /// When to stop trying.
    pub(crate) deadline_us: u64,
    /// The encoded command.
    pub(crate) body: Vec<u8>,
}

/// Number of a write in its lane, from 1; it never changes.
pub(crate) type WriteNumber = u64;

#[derive(Debug)]
struct Write<O> {
    number: WriteNumber,
    state: WriteState<O>,
}

#[derive(Debug)]
enum WriteState<O> {
    Open {
        call: Call<O>,
        /// Copies that were sent and that no node has disowned: with none the write is not executed and never will be.
        in_doubt: u32,
    },
    /// Given up: its client has an answer, but the session cannot go on before the partition knows.
    Skipped,
    Answered,
}

impl<O> WriteState<O> {
    /// Skips a write of which no copy is in doubt; its call.
    fn refuse(&mut self) -> Option<Call<O>> {
        if !matches!(self, Self::Open { in_doubt: 0, .. }) {
            return None;
        }
        match core::mem::replace(self, Self::Skipped) {
            Self::Open { call, .. } => Some(call),
            Self::Skipped | Self::Answered => None,
        }
    }
}

#[derive(Debug)]
struct Read<O> {
    call: Call<O>,
    /// The last write of its own client before it; 0 for none.
    after: WriteNumber,
}

/// Which of a lane's requests a reply belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Open,
    Write { session: u64, seq: u64 },
    Skip { session: u64, seq: u64 },
    Read(u64),
}

/// The next request of a lane.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) what: What,
    pub(crate) kind: RequestKind,
    pub(crate) session: u64,
    pub(crate) seq: u64,
    pub(crate) acked: u64,
    pub(crate) command: &'a [u8],
}

/// The lane of one partition; `O` says who waits for a reply.
#[derive(Debug)]
pub(crate) struct Lane<O> {
    /// Most writes in `sent`.
    window: u64,
    /// Commands that wait, and their bytes, at which the lane is full.
    full: (usize, usize),
    session: Option<u64>,
    /// When the session last had something to send.
    session_used_us: u64,
    is_opening: bool,
    /// Whether it is a write's turn, when there are reads too.
    is_write_next: bool,
    next_number: WriteNumber,
    next_seq: u64,
    sent: VecDeque<Write<O>>,
    cursor: usize,
    waiting: VecDeque<(WriteNumber, Call<O>)>,
    /// Reads that may be sent at any time.
    reads: VecDeque<Read<O>>,
    /// Reads that wait until their write is sent in this round.
    reads_after: VecDeque<Read<O>>,
    reads_sent: BTreeMap<u64, Read<O>>,
    next_read: u64,
    /// Bytes in `waiting`, `reads` and `reads_after`.
    queued_bytes: usize,
    /// Before this time no write is sent: the partition takes none (its disk is full), while reads go on.
    write_resume_us: u64,
    round: u64,
    failures: u32,
    /// Requests of this round without a reply.
    in_flight: usize,
    heard_us: u64,
}

impl<O> Default for Lane<O> {
    fn default() -> Self {
        Self {
            window: SESSION_WINDOW,
            full: (LANE_REQUESTS_MAX, LANE_BYTES_MAX),
            session: None,
            session_used_us: 0,
            is_opening: false,
            is_write_next: true,
            next_number: 1,
            next_seq: 1,
            sent: VecDeque::new(),
            cursor: 0,
            waiting: VecDeque::new(),
            reads: VecDeque::new(),
            reads_after: VecDeque::new(),
            reads_sent: BTreeMap::new(),
            next_read: 1,
            queued_bytes: 0,
            write_resume_us: 0,
            round: 1,
            failures: 0,
            in_flight: 0,
            heard_us: 0,
        }
    }
}

impl<O> Lane<O> {
    /// Other bounds from now on.
    pub(crate) fn set_limits(&mut self, limits: &Limits) {
        self.window = limits.write_window.clamp(1, SESSION_WINDOW);
        self.full = (limits.lane_requests, limits.lane_bytes);
    }

    /// Queues a write.
    pub(crate) fn push_write(&mut self, call: Call<O>) -> WriteNumber {
        let number = self.next_number;
        self.next_number += 1;
        self.queued_bytes += call.body.len();
        self.waiting.push_back((number, call));
        number
    }

    /// Queues a read; `after` is the last write of its own client before it (0: none), which it must see.
    pub(crate) fn push_read(&mut self, call: Call<O>, after: WriteNumber) {
        self.queued_bytes += call.body.len();
        let read = Read { call, after };
        if self.last_open(after).is_some() {
            self.reads_after.push_back(read)
        } else {
            self.reads.push_back(read)
        }
    }

    /// Whether clients should wait before they ask for more.
    pub(crate) fn is_full(&self) -> bool {
        let queued = self.waiting.len() + self.reads.len() + self.reads_after.len();
        let (requests, bytes) = self.full;
        requests <= queued || bytes <= self.queued_bytes
    }

    /// The number of the current round.
    pub(crate) fn round(&self) -> u64 {
        self.round
    }

    /// Rounds that failed one after the other.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Time since when requests of this round wait without any reply; `None` when none does.
    pub(crate) fn silent_since_us(&self) -> Option<u64> {
        (self.in_flight > 0).then_some(self.heard_us)
    }

    /// Whether writes or their session were asked for in this round and are not answered.
    pub(crate) fn has_writes_under_way(&self) -> bool {
        self.is_opening || self.cursor > 0
    }

    /// The last write up to `number` that is neither answered nor given up: what a read must see whose client wrote
    /// `number` last. That one may have its answer before an earlier one of the same client has.
    fn last_open(&self, number: WriteNumber) -> Option<WriteNumber> {
        let waiting = self.waiting.partition_point(|(n, _)| *n <= number);
        if let Some((n, _)) = waiting.checked_sub(1).and_then(|i| self.waiting.get(i)) {
            return Some(*n);
        }
        let sent = self.sent.partition_point(|write| write.number <= number);
        let mut back = self.sent.range(..sent).rev();
        back.find(|write| matches!(write.state, WriteState::Open { .. })).map(|write| write.number)
    }

    fn first_seq(&self) -> u64 {
        self.next_seq - self.sent.len() as u64
    }

    /// Every reply up to this seq has arrived.
    fn acked(&self) -> u64 {
        self.first_seq() - 1
    }

    /// The next request to send, if there is one for which `has_room` (asked with the bytes of its command) agrees.
    /// Counts it as sent at `now_us`.
    pub(crate) fn next_request(
        &mut self,
        now_us: u64,
        has_room: impl Fn(usize) -> bool,
    ) -> Option<Outgoing<'_>> {
        if self.failures >= PROBE_FAILURES && self.in_flight > 0 {
            return None;
        }
        let what = self.choose(now_us, has_room)?;
        if self.in_flight == 0 {
            self.heard_us = now_us;
        }
        self.in_flight += 1;
        Some(self.outgoing(what))
    }

    /// Picks the next request and moves it to where sent requests are.
    fn choose(&mut self, now_us: u64, has_room: impl Fn(usize) -> bool) -> Option<What> {
        let has_writes =
            (self.cursor < self.sent.len() || !self.waiting.is_empty()) && self.write_resume_us <= now_us;
        if has_writes {
            if self.sent.is_empty()
                && self.session.is_some()
                && now_us.saturating_sub(self.session_used_us) > SESSION_RENEW_US
            {
                // The partition may have forgotten it, and would leave what is sent under it in doubt.
                self.session = None;
                self.next_seq = 1;
                self.cursor = 0;
            }
            self.session_used_us = now_us;
        }
        match self.session {
            None if has_writes && !self.is_opening => {
                if has_room(0) {
                    self.is_opening = true;
                    return Some(What::Open);
                }
                return None;
            }
            Some(session) if has_writes => {
                // In turn: where credit is short, writes that never end would leave none to reads.
                if !core::mem::replace(&mut self.is_write_next, true)
                    && let Some(number) = self.choose_read(&has_room)
                {
                    return Some(What::Read(number));
                }
                if let Some(what) = self.choose_write(session, &has_room) {
                    self.is_write_next = false;
                    return Some(what);
                }
            }
            _ => {}
        }
        self.choose_read(&has_room).map(What::Read)
    }

    fn choose_write(&mut self, session: u64, has_room: &impl Fn(usize) -> bool) -> Option<What> {
        while self.cursor < self.sent.len() {
            let seq = self.first_seq() + self.cursor as u64;
            let what = match &mut self.sent[self.cursor].state {
                WriteState::Answered => None,
                WriteState::Skipped if has_room(0) => Some(What::Skip { session, seq }),
                WriteState::Open { call, in_doubt } if has_room(call.body.len()) => {
                    *in_doubt += 1;
                    Some(What::Write { session, seq })
                }
                WriteState::Skipped | WriteState::Open { .. } => return None,
            };
            self.cursor += 1;
            if what.is_some() {
                return what;
            }
        }
        let (_, call) = self.waiting.front()?;
        if self.sent.len() as u64 >= self.window || !has_room(call.body.len()) {
            return None;
        }
        let (number, call) = self.waiting.pop_front()?;
        self.queued_bytes -= call.body.len();
        let seq = self.next_seq;
        self.next_seq += 1;
        self.sent.push_back(Write { number, state: WriteState::Open { call, in_doubt: 1 } });
        self.cursor += 1;
        Some(What::Write { session, seq })
    }

    fn choose_read(&mut self, has_room: &impl Fn(usize) -> bool) -> Option<u64> {
        let from_after = match self.reads_after.front() {
            Some(read) if self.can_send_after(read.after) => true,
            _ if !self.reads.is_empty() => false,
            _ => return None,
        };
        let queue = if from_after { &mut self.reads_after } else { &mut self.reads };
        if !has_room(queue.front()?.call.body.len()) {
            return None;
        }
        let read = queue.pop_front()?;
        self.queued_bytes -= read.call.body.len();
        let number = self.next_read;
        self.next_read += 1;
        self.reads_sent.insert(number, read);
        Some(number)
    }

    /// Whether a read that must see the writes up to `after` may be sent: they went before it in this round, or need no
    /// waiting for.
    fn can_send_after(&self, after: WriteNumber) -> bool {
        let sent =
            self.cursor.checked_sub(1).and_then(|last| self.sent.get(last)).map_or(0, |write| write.number);
        self.last_open(after).is_none_or(|open| open <= sent)
    }

    fn outgoing(&self, what: What) -> Outgoing<'_> {
        let acked = self.acked();
        match what {
            What::Open => {
                Outgoing { what, kind: RequestKind::OpenSession, session: 0, seq: 0, acked: 0, command: &[] }
            }
            What::Write { session, seq } => {
                let command = match self.write(seq).map(|write| &write.state) {
                    Some(WriteState::Open { call, .. }) => &call.body[..],
                    _ => &[],
                };
                Outgoing { what, kind: RequestKind::Write, session, seq, acked, command }
            }
            What::Skip { session, seq } => {
                Outgoing { what, kind: RequestKind::Skip, session, seq, acked, command: &[] }
            }
            What::Read(number) => {
                let read = self.reads_sent.get(&number);
                let seq = read.and_then(|r| self.seq_of(self.last_open(r.after)?)).unwrap_or(0);
                let session = if seq == 0 { 0 } else { self.session.unwrap_or(0) };
                let command = read.map_or(&[][..], |read| &read.call.body);
                Outgoing { what, kind: RequestKind::Read, session, seq, acked: 0, command }
            }
        }
    }

    fn seq_of(&self, number: WriteNumber) -> Option<u64> {
        let i = self.sent.binary_search_by_key(&number, |write| write.number).ok()?;
        Some(self.first_seq() + i as u64)
    }

    fn position(&self, seq: u64) -> Option<usize> {
        let i = usize::try_from(seq.checked_sub(self.first_seq())?).ok()?;
        (i < self.sent.len()).then_some(i)
    }

    fn write(&self, seq: u64) -> Option<&Write<O>> {
        self.sent.get(self.position(seq)?)
    }

    /// Notes that a request of round `round` has its reply, good or bad; whether that is the current round.
    pub(crate) fn heard(&mut self, round: u64, now_us: u64) -> bool {
        let is_current = round == self.round;
        if is_current {
            self.in_flight = self.in_flight.saturating_sub(1);
            self.heard_us = now_us;
        }
        is_current
    }

    /// Notes that a request of the current round was answered well.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The session is open.
    pub(crate) fn opened(&mut self, session: u64) {
        self.is_opening = false;
        // A second answer, to a request of an earlier round, is a session that nobody uses; it expires.
        self.session.get_or_insert(session);
    }

    /// The reply to a write or a skip came; the write's call, unless it was answered or given up before.
    pub(crate) fn settle(&mut self, session: u64, seq: u64) -> Option<Call<O>> {
        if self.session != Some(session) {
            return None;
        }
        let position = self.position(seq)?;
        let state = core::mem::replace(&mut self.sent[position].state, WriteState::Answered);
        self.drop_answered();
        match state {
            WriteState::Open { call, .. } => Some(call),
            WriteState::Skipped | WriteState::Answered => None,
        }
    }

    fn drop_answered(&mut self) {
        while self.sent.front().is_some_and(|write| matches!(write.state, WriteState::Answered)) {
            self.sent.pop_front();
            self.cursor = self.cursor.saturating_sub(1);
        }
    }

    /// A node said that it did not and will not execute its copy of a write.
    pub(crate) fn disown(&mut self, session: u64, seq: u64) {
        if self.session == Some(session)
            && let Some(position) = self.position(seq)
            && let WriteState::Open { in_doubt, .. } = &mut self.sent[position].state
        {
            *in_doubt = in_doubt.saturating_sub(1);
        }
    }

    /// A copy of a write was refused: the write's call, to be answered so, when no other copy is in doubt. The session goes
    /// on with a skip in its place, in the next round.
    pub(crate) fn refuse(&mut self, session: u64, seq: u64) -> Option<Call<O>> {
        if self.session != Some(session) {
            return None;
        }
        let position = self.position(seq)?;
        self.sent[position].state.refuse()
    }

    /// The partition takes no writes at all, not even skips, so that the next is sent at `resume_us`: all calls of which
    /// no copy is in doubt, to be answered so.
    pub(crate) fn refuse_all(&mut self, resume_us: u64) -> Vec<Call<O>> {
        self.write_resume_us = resume_us;
        let mut calls: Vec<_> = self.sent.iter_mut().filter_map(|write| write.state.refuse()).collect();
        calls.extend(self.waiting.drain(..).map(|(_, call)| {
            self.queued_bytes -= call.body.len();
            call
        }));
        calls
    }

    /// The reply to a read came; its call, unless it was answered, given up or sent again before.
    pub(crate) fn settle_read(&mut self, number: u64) -> Option<Call<O>> {
        self.reads_sent.remove(&number).map(|read| read.call)
    }

    /// Who waits for the reply to a read that was sent.
    pub(crate) fn reader(&self, number: u64) -> Option<&O> {
        self.reads_sent.get(&number).map(|read| &read.call.origin)
    }

    /// Ends the round: everything unanswered is to be sent again.
    pub(crate) fn go_back(&mut self, is_failure: bool) {
        self.round += 1;
        self.failures = self.failures.saturating_add(u32::from(is_failure));
        self.in_flight = 0;
        self.is_opening = false;
        self.cursor = 0;
        // Into the front of the queues, the oldest first.
        while let Some((_, read)) = self.reads_sent.pop_last() {
            self.queued_bytes += read.call.body.len();
            if self.last_open(read.after).is_some() {
                self.reads_after.push_front(read);
            } else {
                self.reads.push_front(read);
            }
        }
    }

    /// Gives the session up. Returns the writes that may or may not be executed; the others wait for the next session.
    pub(crate) fn lose_session(&mut self) -> Vec<Call<O>> {
        self.session = None;
        self.next_seq = 1;
        self.cursor = 0;
        let mut unknown = Vec::new();
        while let Some(Write { number, state }) = self.sent.pop_back() {
            match state {
                WriteState::Open { call, in_doubt: 0 } => {
                    self.queued_bytes += call.body.len();
                    self.waiting.push_front((number, call));
                }
                WriteState::Open { call, .. } => unknown.push(call),
                WriteState::Skipped | WriteState::Answered => {}
            }
        }
        unknown
    }

    /// Whether `last`, the partition's last executed seq of the session, is below what was acknowledged: then the
    /// partition has lost its state and the session cannot go on.
    pub(crate) fn is_behind(&self, last: u64) -> bool {
        last < self.acked()
    }

    /// Gives up what is past its deadline.
    pub(crate) fn expire(&mut self, now_us: u64) -> Expired<O> {
        let mut expired = Expired { not_executed: Vec::new(), unknown: Vec::new(), has_skips: false };
        for write in &mut self.sent {
            match &write.state {
                WriteState::Open { call, .. } if now_us < call.deadline_us => break,
                WriteState::Open { .. } => {}
                WriteState::Skipped | WriteState::Answered => continue,
            }
            match core::mem::replace(&mut write.state, WriteState::Skipped) {
                WriteState::Open { call, in_doubt: 0 } => expired.not_executed.push(call),
                WriteState::Open { call, .. } => expired.unknown.push(call),
                WriteState::Skipped | WriteState::Answered => {}
            }
            expired.has_skips = true;
        }
        while let Some((_, call)) = pop_if(&mut self.waiting, |(_, call)| call.deadline_us <= now_us) {
            self.queued_bytes -= call.body.len();
            expired.not_executed.push(call);
        }
        for queue in [&mut self.reads, &mut self.reads_after] {
            while let Some(read) = pop_if(queue, |read| read.call.deadline_us <= now_us) {
                self.queued_bytes -= read.call.body.len();
                expired.not_executed.push(read.call);
            }
        }
        let is_late = |read: &Read<O>| read.call.deadline_us <= now_us;
        let late: Vec<u64> =
            self.reads_sent.iter().filter(|(_, read)| is_late(read)).map(|(n, _)| *n).collect();
        expired.not_executed.extend(late.iter().filter_map(|number| self.settle_read(*number)));
        expired
    }

    /// Checks the invariants.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        assert!(self.sent.len() as u64 <= SESSION_WINDOW, "more writes were sent than the window holds");
        assert!(self.cursor <= self.sent.len(), "the cursor passed the end");
        assert!(
            !matches!(self.sent.front().map(|w| &w.state), Some(WriteState::Answered)),
            "an answer is kept"
        );
        assert!(self.session.is_some() || self.sent.is_empty(), "writes were sent without a session");
        let waiting = self.waiting.iter().map(|(_, call)| call.body.len());
        let reads = self.reads.iter().chain(&self.reads_after).map(|read| read.call.body.len());
        assert_eq!(waiting.chain(reads).sum::<usize>(), self.queued_bytes, "bytes are miscounted");
    }
}

/// Removes the first item if `is_due` agrees.
fn pop_if<T>(queue: &mut VecDeque<T>, is_due: impl FnOnce(&T) -> bool) -> Option<T> {
    if queue.front().is_some_and(is_due) { queue.pop_front() } else { None }
}

/// What was given up.
#[derive(Debug)]
pub(crate) struct Expired<O> {
    /// Reads, and writes of which no copy is in doubt.
    pub(crate) not_executed: Vec<Call<O>>,
    /// Writes that may or may not be executed.
    pub(crate) unknown: Vec<Call<O>>,
    /// Whether writes that have a seq are among them: the round must end, so that they go out again as skips.
    pub(crate) has_skips: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: u64 = 7;

    fn call(origin: u64) -> Call<u64> {
        Call { origin, deadline_us: 100, body: vec![0; 10] }
    }

    /// Sends all that may be sent; the seqs of writes and skips, and for each what is acknowledged.
    fn send(lane: &mut Lane<u64>) -> Vec<(RequestKind, u64, u64)> {
        let mut sent = Vec::new();
        while let Some(request) = lane.next_request(0, |_| true) {
            sent.push((request.kind, request.seq, request.acked));
        }
        lane.check_invariants();
        sent
    }

    fn open_lane(writes: u64) -> Lane<u64> {
        let mut lane = Lane::default();
        (1..=writes).for_each(|origin| {
            lane.push_write(call(origin));
        });
        assert_eq!(send(&mut lane), [(RequestKind::OpenSession, 0, 0)]);
        lane.opened(SESSION);
        lane
    }

    #[test]
    fn a_session_that_was_idle_for_long_is_replaced_before_it_is_used() {
        let mut lane = open_lane(1);
        assert_eq!(send(&mut lane), [(RequestKind::Write, 1, 0)]);
        assert!(lane.settle(SESSION, 1).is_some());
        lane.push_write(call(2));
        let first = lane.next_request(SESSION_RENEW_US + 1, |_| true).map(|r| r.kind);
        assert_eq!(first, Some(RequestKind::OpenSession));
        lane.opened(SESSION + 1);
        let next = lane.next_request(SESSION_RENEW_US + 2, |_| true).map(|r| (r.kind, r.session, r.seq));
        assert_eq!(next, Some((RequestKind::Write, SESSION + 1, 1)));
    }

    #[test]
    fn window_bounds_what_is_unanswered() {
        let mut lane = open_lane(SESSION_WINDOW + 10);
        assert_eq!(send(&mut lane).len() as u64, SESSION_WINDOW);
        // The first is missing: nothing may be forgotten, nothing more be sent.
        assert_eq!(lane.settle(SESSION, 2).map(|call| call.origin), Some(2));
        assert_eq!(send(&mut lane), []);
        assert_eq!(lane.settle(SESSION, 1).map(|call| call.origin), Some(1));
        let next = [SESSION_WINDOW + 1, SESSION_WINDOW + 2].map(|seq| (RequestKind::Write, seq, 2));
        assert_eq!(send(&mut lane), next);
    }

    #[test]
    fn going_back_sends_the_same_seqs_again() {
        let mut lane = open_lane(3);
        assert_eq!(send(&mut lane).len(), 3);
        lane.settle(SESSION, 2);
        lane.go_back(true);
        assert_eq!(send(&mut lane), [(RequestKind::Write, 1, 0), (RequestKind::Write, 3, 0)]);
        assert_eq!(lane.settle(SESSION, 1).map(|call| call.origin), Some(1));
        assert!(lane.settle(SESSION, 1).is_none(), "the other copy's reply");
        assert_eq!(lane.expire(100).unknown.len(), 1);
        lane.go_back(true);
        assert_eq!(send(&mut lane), [(RequestKind::Skip, 3, 2)]);
        assert!(lane.settle(SESSION, 3).is_none());
    }

    #[test]
    fn late_replies_of_a_lost_session_answer_nothing() {
        let mut lane = open_lane(2);
        send(&mut lane);
        lane.disown(SESSION, 2);
        // The second was not executed for sure, so that it may go into the next session.
        assert_eq!(lane.lose_session().iter().map(|call| call.origin).collect::<Vec<_>>(), [1]);
        lane.go_back(true);
        assert_eq!(send(&mut lane), [(RequestKind::OpenSession, 0, 0)]);
        lane.opened(SESSION + 1);
        assert_eq!(send(&mut lane), [(RequestKind::Write, 1, 0)]);
        assert!(lane.settle(SESSION, 1).is_none() && lane.refuse(SESSION, 1).is_none());
        lane.disown(SESSION, 1);
        assert!(lane.refuse(SESSION + 1, 1).is_none(), "a copy is in doubt");
        assert_eq!(lane.settle(SESSION + 1, 1).map(|call| call.origin), Some(2));
    }

    #[test]
    fn writes_that_never_end_leave_reads_their_turn() {
        let mut lane = open_lane(10);
        for origin in 20..25 {
            lane.push_read(call(origin), 0);
        }
        // Credit for one request at a time.
        let kinds: Vec<_> = (0..10).filter_map(|_| lane.next_request(0, |_| true).map(|r| r.kind)).collect();
        assert_eq!(kinds.iter().filter(|kind| **kind == RequestKind::Read).count(), 5, "{kinds:?}");
    }

    #[test]
    fn lane_that_failed_twice_asks_with_one_request() {
        let mut lane = open_lane(5);
        lane.go_back(true);
        assert_eq!(send(&mut lane).len(), 5);
        lane.go_back(true);
        assert_eq!(send(&mut lane).len(), 1);
        lane.heard(lane.round(), 0);
        lane.succeeded();
        assert_eq!(send(&mut lane).len(), 4);
    }
}
