//! The replicated state of one partition: its keys and its sessions.
//!
//! # Invariants
//! - `apply` is a function of (state, index, entry) alone: no clock, no randomness, no memory pressure.
//! - Log time never goes back, whatever an entry says.
//! - A session's command is executed at most once, and in the order of its seq (RIFL, Lee et al. 2015).

use ringfort_resp::{Command, Protocol, ReplyWriter};
use ringfort_store::{ApplyContext, ExpiredKey, LargeValue, MemoryLimit, Reach, Restorer, Spot, Store};
use ringfort_wire::entry::{Entry, Op, OpKind};
use ringfort_wire::frame::{Reader, WireError, put_bytes};
use ringfort_wire::request::{CommandBody, SESSION_WINDOW, SESSIONS_MAX, Status};
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};

/// Sessions that have been silent for so long (log time) are forgotten; far beyond any proxy's deadline.
const SESSION_IDLE_MS: u64 = 10 * 60 * 1000;

/// Operations whose records the processor fetches at once.
const PREFETCH_OPS: usize = 16;

/// Capacity of the buffer of replies that is kept from entry to entry.
const REPLY_KEPT_BYTES: usize = 1 << 10;

/// The state machine of a shard group.
#[derive(Debug)]
pub struct PartitionMachine {
    store: Store,
    sessions: BTreeMap<u64, Session>,
    log_time_ms: u64,
    slots: (u16, u16),
    snapshot_head: Option<Vec<u8>>,
    /// Keys evicted since the start; of this replica alone.
    evicted_keys: u64,
    /// The buffer of replies; empty between two entries.
    reply: Vec<u8>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Session {
    /// Last executed seq.
    last: u64,
    /// Log time of its last operation.
    used_ms: u64,
    /// Replies of the seqs up to `last`, newest last; those which the proxy has acknowledged are gone.
    replies: VecDeque<StoredReply>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum StoredReply {
    /// `+OK`, the most common one.
    Ok,
    /// The seq was given up before it was executed.
    Skipped,
    Bytes(Box<[u8]>),
}

const OK: &[u8] = b"+OK\r\n";

/// The answer to a seq that was given up or whose reply was acknowledged.
const REPLY_GONE: &str = "ERR outcome unknown: the reply of this write is no longer kept";

/// The answer to a command that may need memory when there is none left; the text is Redis's.
const OUT_OF_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";

/// What became of a read.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// The reply was appended.
    Done,
    /// The head of the reply was appended; the value and a line end follow.
    Large(LargeValue),
    /// Nothing was appended: these keys are past their expiry and must be deleted by the log first.
    Expired(Vec<ExpiredKey>),
    /// Nothing was appended: a write of the same connection, sent before it, is not applied yet.
    AwaitsWrite,
    /// The command is not one that this version can read; an error was appended.
    Refused,
}

/// Where the record of a command's first argument stands, if that is a key of this store.
pub fn spot_of(store: &Store, command: &[u8]) -> Option<Spot> {
    store.spot(CommandBody::decode(command).ok()?.first_arg()?)
}

impl PartitionMachine {
    /// Creates the empty state of the slots `first..=last`.
    pub fn new(first: u16, last: u16) -> Self {
        Self {
            store: Store::new(first, last),
            sessions: BTreeMap::new(),
            log_time_ms: 0,
            slots: (first, last),
            snapshot_head: None,
            evicted_keys: 0,
            reply: Vec::new(),
        }
    }

    /// The keys.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Keys evicted since this replica started.
    pub fn evicted_keys(&self) -> u64 {
        self.evicted_keys
    }

    /// Time of the last applied entry, ms since 1970.
    pub fn log_time_ms(&self) -> u64 {
        self.log_time_ms
    }

    /// Applies one entry; `answer` gets the outcome of each operation with its position in the entry.
    ///
    /// # Errors
    /// The entry is malformed. All replicas hold the same bytes, so all of them stop: nothing is executed in part,
    /// because an entry is checked whole before its first operation.
    pub fn apply(
        &mut self,
        index: u64,
        entry: &[u8],
        answer: impl FnMut(usize, Status<'_>),
    ) -> Result<(), WireError> {
        self.apply_fetched(index, entry, false, answer)
    }

    /// As [`PartitionMachine::apply`]. `is_fetched`: the entry has been through [`PartitionMachine::spots_ahead`], and the
    /// processor has fetched what they lead to.
    ///
    /// # Errors
    /// As there.
    pub fn apply_fetched(
        &mut self,
        index: u64,
        entry: &[u8],
        is_fetched: bool,
        mut answer: impl FnMut(usize, Status<'_>),
    ) -> Result<(), WireError> {
        if entry.is_empty() {
            return Ok(()); // a new leader's first entry
        }
        let entry = Entry::decode(entry)?;
        let mut ops = 0;
        for op in entry.ops() {
            let op = op?;
            ops += 1;
            if op.kind == OpKind::Limit && MemoryLimit::decode(op.body).is_none() {
                return Err(WireError::Malformed("memory limit"));
            }
        }
        self.log_time_ms = self.log_time_ms.max(entry.log_time_ms);
        let mut reply = std::mem::take(&mut self.reply);
        let mut seed = entry.seed;
        let mut ahead = entry.ops();
        for (position, op) in entry.ops().enumerate() {
            if position % PREFETCH_OPS == 0 {
                let window = ahead.by_ref().take(PREFETCH_OPS);
                let is_window_fetched = is_fetched && position == 0;
                // One that is alone would only wait for itself.
                match is_window_fetched || ops == 1 {
                    true => window.for_each(drop),
                    false => self.prefetch(window),
                }
            }
            let op = op?;
            reply.clear();
            // Each operation draws from its own seed, derived from the entry's.
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match op.kind {
                OpKind::OpenSession => {
                    let id = index << 16 | position as u64;
                    self.open_session(id);
                    answer(position, Status::Opened(id));
                }
                OpKind::Expire => {
                    if let Some((at, key)) = op.body.split_first_chunk::<8>() {
                        self.store.expire(key, u64::from_le_bytes(*at));
                    }
                }
                OpKind::Limit => {
                    if let Some(limit) = MemoryLimit::decode(op.body) {
                        self.store.set_limit(limit);
                    }
                }
                OpKind::Evict => {
                    if let Some((digest, key)) = op.body.split_first_chunk::<8>() {
                        let is_evicted = self.store.evict(key, u64::from_le_bytes(*digest));
                        self.evicted_keys += u64::from(is_evicted);
                    }
                }
                OpKind::Command | OpKind::Skip if op.session == 0 => {
                    self.execute(&op, seed, &mut reply);
                    answer(position, Status::Done(&reply));
                }
                OpKind::Command | OpKind::Skip => {
                    let status = self.apply_in_session(&op, seed, &mut reply);
                    answer(position, status.unwrap_or(Status::Done(&reply)));
                }
            }
        }
        reply.clear();
        reply.shrink_to(REPLY_KEPT_BYTES);
        self.reply = reply;
        self.forget_idle_session();
        Ok(())
    }

    /// Tells where the first operations of an entry (at most 16) have their keys, and has the processor fetch the first thing on
    /// the way to each. Returns how many there are.
    pub fn spots_ahead<'a>(&'a self, entry: &[u8], tell: &mut impl FnMut(&'a Store, Spot)) -> usize {
        let Ok(entry) = Entry::decode(entry) else { return 0 };
        self.spots_of(entry.ops().take(PREFETCH_OPS)).map(|spot| tell(&self.store, spot)).count()
    }

    /// Where operations have their keys. The processor fetches the first thing on the way to each.
    fn spots_of<'a>(
        &self,
        ops: impl Iterator<Item = Result<Op<'a>, WireError>>,
    ) -> impl Iterator<Item = Spot> {
        let commands = ops.flatten().filter(|op| op.kind == OpKind::Command);
        commands.filter_map(|op| {
            let spot = spot_of(&self.store, op.body)?;
            self.store.prefetch(spot, Reach::Slot);
            Some(spot)
        })
    }

    /// Has the processor fetch the records of operations that are applied next.
    fn prefetch<'a>(&self, ops: impl Iterator<Item = Result<Op<'a>, WireError>>) {
        let spots: SmallVec<[Spot; PREFETCH_OPS]> = self.spots_of(ops).collect();
        for reach in Reach::AFTER_SLOT {
            spots.iter().for_each(|spot| self.store.prefetch(*spot, reach));
        }
    }

    /// Executes the operation if its seq is the session's next; `None`: the reply is in `reply`.
    fn apply_in_session(&mut self, op: &Op<'_>, seed: u64, reply: &mut Vec<u8>) -> Option<Status<'static>> {
        let now = self.log_time_ms;
        let Some(session) = self.sessions.get_mut(&op.session) else { return Some(Status::NoSession) };
        session.used_ms = now;
        // The replies kept are those of (last - len, last]; drop what the proxy has seen, and what passes the window.
        let keep = session.last.saturating_sub(op.acked).min(SESSION_WINDOW) as usize;
        while session.replies.len() > keep {
            session.replies.pop_front();
        }
        // The proxy has the replies up to `acked`. If some of those writes are not here, the group has started anew without
        // them: they are lost, the proxy will not send them again, and no late copy of them may be executed.
        session.last = session.last.max(op.acked.min(op.seq.saturating_sub(1)));
        if op.seq > session.last.saturating_add(1) {
            return Some(Status::Gap(session.last));
        }
        if op.seq <= session.last {
            let back = (session.last - op.seq) as usize;
            let stored = session.replies.len().checked_sub(back + 1).and_then(|i| session.replies.get(i));
            return match stored {
                Some(StoredReply::Ok) => {
                    reply.extend_from_slice(OK);
                    None
                }
                Some(StoredReply::Bytes(bytes)) => {
                    reply.extend_from_slice(bytes);
                    None
                }
                // Given up, or acknowledged already: nobody waits for this answer any more.
                Some(StoredReply::Skipped) | None => {
                    ReplyWriter::new(reply, Protocol::Resp2).error(REPLY_GONE);
                    None
                }
            };
        }
        let stored = if op.kind == OpKind::Skip {
            ReplyWriter::new(reply, Protocol::Resp2).error(REPLY_GONE);
            StoredReply::Skipped
        } else {
            self.execute(op, seed, reply);
            if reply == OK { StoredReply::Ok } else { StoredReply::Bytes(reply.as_slice().into()) }
        };
        let session = self.sessions.get_mut(&op.session)?;
        session.last = op.seq;
        session.replies.push_back(stored);
        None
    }

    fn execute(&mut self, op: &Op<'_>, seed: u64, reply: &mut Vec<u8>) {
        let context = ApplyContext { log_time_ms: self.log_time_ms, seed };
        let parsed = CommandBody::decode(op.body).and_then(|body| {
            let args = body.args()?;
            Ok((body, args))
        });
        match parsed {
            Ok((body, args)) => {
                let mut writer = ReplyWriter::new(reply, body.protocol);
                match Command::from_u16(body.command) {
                    Some(command) if self.store.is_full() && command.spec().may_need_memory() => {
                        writer.error(OUT_OF_MEMORY);
                    }
                    Some(command) => self.store.apply(&context, command, &args, &mut writer),
                    None => {
                        writer.error("ERR this command is not supported by the feature level of the cluster")
                    }
                }
            }
            Err(_) => ReplyWriter::new(reply, Protocol::Resp2).error("ERR malformed command"),
        }
    }

    fn open_session(&mut self, id: u64) {
        if self.sessions.len() >= SESSIONS_MAX {
            let oldest = self.sessions.iter().min_by_key(|(id, s)| (s.used_ms, **id)).map(|(&id, _)| id);
            if let Some(oldest) = oldest {
                self.sessions.remove(&oldest);
            }
        }
        self.sessions.insert(id, Session { used_ms: self.log_time_ms, ..Session::default() });
    }

    /// Forgets the session with the lowest id if it is idle; one an entry, so that no entry pays for many.
    fn forget_idle_session(&mut self) {
        let idle_before = self.log_time_ms.saturating_sub(SESSION_IDLE_MS);
        if let Some(first) = self.sessions.first_entry()
            && first.get().used_ms < idle_before
        {
            first.remove();
        }
    }

    /// Every session and the number of its last executed write.
    pub fn sessions(&self) -> impl Iterator<Item = (u64, u64)> {
        self.sessions.iter().map(|(&id, session)| (id, session.last))
    }

    /// Every reply that is kept: session, seq, hash.
    pub fn reply_hashes(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.sessions.iter().flat_map(|(&id, session)| {
            session.replies.iter().rev().zip(0..).map(move |(reply, back)| {
                let bytes = match reply {
                    StoredReply::Ok => OK,
                    StoredReply::Skipped => b"",
                    StoredReply::Bytes(bytes) => bytes,
                };
                (id, session.last - back, twox_hash::XxHash3_64::oneshot(bytes))
            })
        })
    }

    /// Whether the write `seq` of `session` is applied; a session that is gone waits for nothing.
    pub fn is_applied(&self, session: u64, seq: u64) -> bool {
        seq == 0 || self.sessions.get(&session).is_none_or(|s| seq <= s.last)
    }

    /// Executes a read of a leader at `now_ms`; `out` receives the reply.
    pub fn read(
        &self,
        now_ms: u64,
        session: u64,
        seq: u64,
        command: &[u8],
        out: &mut Vec<u8>,
    ) -> ReadOutcome {
        if !self.is_applied(session, seq) {
            return ReadOutcome::AwaitsWrite;
        }
        self.execute_read(now_ms, false, command, out)
    }

    /// Executes a read of a follower at `now_ms`; `out` receives the reply. It deletes nothing, so keys past their expiry are
    /// absent.
    pub fn read_as_replica(&self, now_ms: u64, command: &[u8], out: &mut Vec<u8>) -> ReadOutcome {
        self.execute_read(now_ms, true, command, out)
    }

    fn execute_read(&self, now_ms: u64, is_replica: bool, command: &[u8], out: &mut Vec<u8>) -> ReadOutcome {
        let Ok(body) = CommandBody::decode(command) else {
            ReplyWriter::new(out, Protocol::Resp2).error("ERR malformed command");
            return ReadOutcome::Refused;
        };
        let known = Command::from_u16(body.command).filter(|c| !c.spec().is_write);
        let (Some(command), Ok(args)) = (known, body.args()) else {
            ReplyWriter::new(out, body.protocol)
                .error("ERR this read is not supported by the version of this node");
            return ReadOutcome::Refused;
        };
        let mut expired = Vec::new();
        let now_ms = now_ms.max(self.log_time_ms);
        let reply = &mut ReplyWriter::new(out, body.protocol);
        let is_use = !body.is_no_touch;
        let large = if is_replica {
            self.store.read_as_replica(is_use, now_ms, command, &args, reply)
        } else {
            self.store.read_large(is_use, now_ms, command, &args, reply, &mut expired)
        };
        match large {
            _ if !expired.is_empty() => ReadOutcome::Expired(expired),
            Some(value) => ReadOutcome::Large(value),
            None => ReadOutcome::Done,
        }
    }

    /// Bytes of the values that a read returns; 0 for commands that return none as they are.
    pub fn value_bytes(&self, command: &[u8]) -> usize {
        let Ok(body) = CommandBody::decode(command) else { return 0 };
        match (Command::from_u16(body.command), body.args()) {
            (Some(command), Ok(args)) => self.store.value_bytes(command, &args),
            _ => 0,
        }
    }

    /// Digest of keys and sessions: equal on all replicas at the same index.
    pub fn digest(&self) -> u64 {
        let mut head = Vec::new();
        self.encode_head(&mut head);
        self.store.digest() ^ twox_hash::XxHash3_64::oneshot(&head)
    }

    /// Does so many steps to give memory back; changes nothing that can be observed.
    pub fn reclaim(&mut self, steps: usize) {
        self.store.reclaim(steps);
    }

    /// Begins a snapshot of the present state; writes may go on meanwhile.
    pub fn snapshot_begin(&mut self) {
        let mut head = Vec::new();
        self.encode_head(&mut head);
        let mut framed = Vec::with_capacity(head.len() + 4);
        put_bytes(&mut framed, &head);
        self.snapshot_head = Some(framed);
        self.store.snapshot_begin();
    }

    /// Appends about `bytes` more bytes of the snapshot; true at its end.
    pub fn snapshot_next(&mut self, bytes: usize, out: &mut Vec<u8>) -> bool {
        if let Some(head) = self.snapshot_head.take() {
            out.extend_from_slice(&head);
        }
        self.store.snapshot_next(bytes, out)
    }

    /// Gives the snapshot up.
    pub fn snapshot_abort(&mut self) {
        self.snapshot_head = None;
        self.store.snapshot_abort();
    }

    /// Log time and sessions: time (8), count (4); each session: id, last, used (8 each), count of replies (4), each a
    /// tag (0 OK, 1 skipped, 2 bytes) and for bytes a length (4) and the bytes. Then, if one was ever set, the memory limit.
    fn encode_head(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.log_time_ms.to_le_bytes());
        out.extend_from_slice(&(self.sessions.len() as u32).to_le_bytes());
        for (id, session) in &self.sessions {
            for n in [*id, session.last, session.used_ms] {
                out.extend_from_slice(&n.to_le_bytes());
            }
            out.extend_from_slice(&(session.replies.len() as u32).to_le_bytes());
            for reply in &session.replies {
                match reply {
                    StoredReply::Ok => out.push(0),
                    StoredReply::Skipped => out.push(1),
                    StoredReply::Bytes(bytes) => {
                        out.push(2);
                        put_bytes(out, bytes);
                    }
                }
            }
        }
        if *self.store.limit() != MemoryLimit::default() {
            out.extend_from_slice(&self.store.limit().encode());
        }
    }

    fn decode_head(&mut self, head: &[u8]) -> Result<(), WireError> {
        let mut r = Reader::new(head, "snapshot head");
        self.log_time_ms = r.u64()?;
        for _ in 0..r.u32()? {
            let id = r.u64()?;
            let mut session = Session { last: r.u64()?, used_ms: r.u64()?, replies: VecDeque::new() };
            for _ in 0..r.u32()? {
                session.replies.push_back(match r.u8()? {
                    0 => StoredReply::Ok,
                    1 => StoredReply::Skipped,
                    2 => StoredReply::Bytes(r.bytes()?.into()),
                    _ => return Err(r.malformed()),
                });
            }
            self.sessions.insert(id, session);
        }
        if !r.is_empty() {
            let error = r.malformed();
            self.store.set_limit(MemoryLimit::decode(r.rest()).ok_or(error)?);
        }
        Ok(())
    }

    /// Starts to read a snapshot into a fresh state.
    pub fn restorer(&self) -> MachineRestorer {
        let (first, last) = self.slots;
        MachineRestorer {
            head: Vec::new(),
            machine: None,
            slots: self.slots,
            store: Store::restorer(first, last),
        }
    }
}

/// Reads a snapshot, in any pieces.
#[derive(Debug)]
pub struct MachineRestorer {
    head: Vec<u8>,
    machine: Option<PartitionMachine>,
    slots: (u16, u16),
    store: Restorer,
}

impl MachineRestorer {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// The snapshot is malformed; the sentence says how.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.machine.is_some() {
            return self.store.push(bytes).map_err(|e| e.to_string());
        }
        self.head.extend_from_slice(bytes);
        let Some(len) = self.head.first_chunk::<4>().map(|l| u32::from_le_bytes(*l) as usize) else {
            return Ok(());
        };
        if self.head.len() < 4 + len {
            return Ok(());
        }
        let mut machine = PartitionMachine::new(self.slots.0, self.slots.1);
        machine.decode_head(&self.head[4..4 + len]).map_err(|e| e.to_string())?;
        // The keys come into a store of its own, which takes the place of this one at the end.
        self.store.set_limit(*machine.store.limit(), machine.log_time_ms);
        self.machine = Some(machine);
        let rest = self.head.split_off(4 + len);
        self.head = Vec::new();
        self.store.push(&rest).map_err(|e| e.to_string())
    }

    /// Ends the snapshot.
    ///
    /// # Errors
    /// It is incomplete or malformed.
    pub fn finish(self) -> Result<PartitionMachine, String> {
        let mut machine = self.machine.ok_or("the snapshot ends before its sessions do")?;
        machine.store = self.store.finish().map_err(|e| e.to_string())?;
        Ok(machine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_store::Policy;
    use ringfort_wire::entry::EntryBuilder;

    fn incr(session: u64, seq: u64, acked: u64) -> Vec<u8> {
        let mut body = Vec::new();
        CommandBody::encode(&mut body, Command::Incr as u16, Protocol::Resp2, [b"k"].iter());
        let mut builder = EntryBuilder::default();
        builder.push(&Op { kind: OpKind::Command, session, seq, acked, body: &body });
        builder.finish(1000, 7)
    }

    fn apply(machine: &mut PartitionMachine, index: u64, entry: &[u8]) -> String {
        let mut out = String::new();
        machine.apply(index, entry, |_, status| out = format!("{status:?}")).unwrap();
        out
    }

    fn with_session() -> PartitionMachine {
        let mut machine = PartitionMachine::new(0, 16383);
        let mut builder = EntryBuilder::default();
        builder.push(&Op { kind: OpKind::OpenSession, session: 0, seq: 0, acked: 0, body: b"" });
        assert_eq!(apply(&mut machine, 1, &builder.finish(1, 0)), "Opened(65536)");
        machine
    }

    #[test]
    fn a_write_sent_again_is_answered_not_repeated() {
        let mut machine = with_session();
        let first = apply(&mut machine, 2, &incr(65536, 1, 0));
        assert_eq!(apply(&mut machine, 3, &incr(65536, 1, 0)), first);
        assert_ne!(apply(&mut machine, 4, &incr(65536, 2, 1)), first);
    }

    #[test]
    fn a_gap_executes_nothing() {
        let mut machine = with_session();
        let before = machine.store.digest();
        assert_eq!(apply(&mut machine, 2, &incr(65536, 2, 0)), "Gap(0)");
        assert_eq!(machine.store.digest(), before);
    }

    #[test]
    fn a_session_goes_on_behind_acknowledged_writes_that_are_lost() {
        let mut machine = with_session();
        apply(&mut machine, 2, &incr(65536, 1, 0));
        // 2 to 7 were acknowledged by a history that is lost.
        let next = apply(&mut machine, 3, &incr(65536, 8, 7));
        assert!(next.starts_with("Done"), "{next}");
        assert_eq!(apply(&mut machine, 4, &incr(65536, 8, 7)), next, "answered, not repeated");
        let before = machine.store.digest();
        for seq in 1..=7 {
            apply(&mut machine, 5, &incr(65536, seq, seq - 1));
            assert_eq!(machine.store.digest(), before, "a late copy of {seq} executes nothing");
        }
        assert_eq!(
            apply(&mut machine, 6, &incr(65536, 10, u64::MAX)),
            apply(&mut machine, 7, &incr(65536, 10, 9))
        );
    }

    #[test]
    fn an_unknown_session_executes_nothing() {
        let mut machine = with_session();
        assert_eq!(apply(&mut machine, 2, &incr(9, 1, 0)), "NoSession");
        assert_eq!(machine.store.len(), 0);
    }

    #[test]
    fn a_skipped_seq_is_never_executed() {
        let mut machine = with_session();
        let mut builder = EntryBuilder::default();
        builder.push(&Op { kind: OpKind::Skip, session: 65536, seq: 1, acked: 0, body: b"" });
        apply(&mut machine, 2, &builder.finish(1, 0));
        assert!(apply(&mut machine, 3, &incr(65536, 1, 0)).starts_with("Done"));
        assert_eq!(machine.store.len(), 0);
    }

    #[test]
    fn snapshot_carries_sessions() {
        let mut machine = with_session();
        let first = apply(&mut machine, 2, &incr(65536, 1, 0));
        machine.snapshot_begin();
        let mut bytes = Vec::new();
        while !machine.snapshot_next(1, &mut bytes) {}
        let mut restorer = machine.restorer();
        for piece in bytes.chunks(7) {
            restorer.push(piece).unwrap();
        }
        let mut restored = restorer.finish().unwrap();
        assert_eq!(restored.digest(), machine.digest());
        assert_eq!(apply(&mut restored, 3, &incr(65536, 1, 0)), first);
    }

    fn entry_of(ops: &[(OpKind, &[u8])]) -> Vec<u8> {
        let mut builder = EntryBuilder::default();
        for (kind, body) in ops {
            builder.push(&Op { kind: *kind, session: 0, seq: 0, acked: 0, body });
        }
        builder.finish(1000, 7)
    }

    fn command(line: &str) -> Vec<u8> {
        let words: Vec<&str> = line.split(' ').collect();
        let spec = ringfort_resp::commands::lookup(words[0].as_bytes()).unwrap();
        let mut body = Vec::new();
        CommandBody::encode(&mut body, spec.command as u16, Protocol::Resp2, words[1..].iter());
        body
    }

    #[test]
    fn a_full_partition_refuses_what_may_need_memory() {
        let mut machine = PartitionMachine::new(0, 16383);
        let limit = MemoryLimit { quota_bytes: 40, ..MemoryLimit::default() };
        apply(&mut machine, 1, &entry_of(&[(OpKind::Limit, &limit.encode())]));
        let mut index = 1;
        let mut run = |machine: &mut PartitionMachine, line: &str| {
            index += 1;
            apply(machine, index, &entry_of(&[(OpKind::Command, &command(line))]))
        };
        let oom = format!("{:?}", Status::Done(format!("-{OUT_OF_MEMORY}\r\n").as_bytes()));
        let ok = format!("{:?}", Status::Done(OK));
        assert_eq!(run(&mut machine, "SET a 12345"), ok, "38 bytes");
        assert_eq!(run(&mut machine, "SET b 12345"), ok, "the limit was not passed before it");
        for line in ["SET a 1", "APPEND a 1", "INCR n", "MSET x 1", "COPY a c"] {
            assert_eq!(run(&mut machine, line), oom, "{line}");
        }
        for line in ["GET a", "EXPIRE a 10", "PERSIST a", "DEL a"] {
            assert_ne!(run(&mut machine, line), oom, "{line}");
        }
        assert_eq!(run(&mut machine, "SET a 1"), ok, "there is room again");
    }

    #[test]
    fn a_read_without_touch_is_no_use() {
        let mut machine = PartitionMachine::new(0, 16383);
        let limit = MemoryLimit { policy: Policy::AllKeysLfu, ..MemoryLimit::default() };
        let set = command("SET a 1");
        apply(&mut machine, 1, &entry_of(&[(OpKind::Limit, &limit.encode()), (OpKind::Command, &set)]));
        let read = |body: &[u8]| {
            let mut reply = Vec::new();
            assert_eq!(machine.read(1000, 0, 0, body, &mut reply), ReadOutcome::Done);
            String::from_utf8(reply).unwrap()
        };
        let mut get = command("GET a");
        CommandBody::mark_no_touch(&mut get);
        assert_eq!(read(&get), "$1\r\n1\r\n");
        assert_eq!(read(&command("OBJECT FREQ a")), ":5\r\n");
        assert_eq!(read(&command("GET a")), "$1\r\n1\r\n");
        assert_eq!(read(&command("OBJECT FREQ a")), ":6\r\n", "the first use always counts");
    }

    #[test]
    fn snapshot_carries_the_memory_limit() {
        let mut machine = with_session();
        let before = machine.digest();
        let limit = MemoryLimit { quota_bytes: 9, ..MemoryLimit::default() };
        apply(&mut machine, 2, &entry_of(&[(OpKind::Limit, &limit.encode())]));
        assert_ne!(machine.digest(), before, "replicas with other limits are not equal");
        machine.snapshot_begin();
        let mut bytes = Vec::new();
        while !machine.snapshot_next(1, &mut bytes) {}
        let mut restorer = machine.restorer();
        restorer.push(&bytes).unwrap();
        let restored = restorer.finish().unwrap();
        assert_eq!((restored.store().limit(), restored.digest()), (&limit, machine.digest()));
    }

    #[test]
    fn an_unreadable_memory_limit_executes_nothing() {
        let mut machine = PartitionMachine::new(0, 16383);
        let entry = entry_of(&[(OpKind::Command, &command("SET a 1")), (OpKind::Limit, &[9; 21])]);
        assert!(machine.apply(1, &entry, |_, _| ()).is_err());
        assert_eq!(machine.store().len(), 0);
    }

    #[test]
    fn log_time_never_goes_back() {
        let mut machine = with_session();
        apply(&mut machine, 2, &incr(65536, 1, 0));
        let mut builder = EntryBuilder::default();
        builder.push(&Op { kind: OpKind::OpenSession, session: 0, seq: 0, acked: 0, body: b"" });
        apply(&mut machine, 3, &builder.finish(5, 0));
        assert_eq!(machine.log_time_ms(), 1000);
    }
}
