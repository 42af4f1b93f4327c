//! The Raft engine of one group: the only file that names the `raft` crate's types.
//!
//! The crate is a pure state machine; this wrapper gives it what it lacks here:
//! - election timeouts from our own seed (`set_timeout`), so that a simulated run repeats to the byte, and
//!   staggered by rank, so that two followers of a dead leader do not split the vote;
//! - a restarted voter that stays silent for one election timeout (it has forgotten whom it promised its vote's lease);
//! - our own codec for messages (the crate's protobuf parser never sees outside bytes);
//! - a storage that keeps recent entries in memory and reads older ones back from the log.
//!
//! `batch_append` stays off: it glues entries onto a message with another previous index.

use super::invariants::{self, Promise};
use super::limits::Limits;
use super::membership::{Change, Membership};
use crate::log::{HardState, LogEntry};
use bytes::Bytes;
use raft::eraftpb::{self, MessageType};
use raft::{Config, GetEntriesContext, RaftState, RawNode, StateRole, Storage, StorageError};
use ringfort_wire::frame::{Reader, WireError, put_bytes};
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// Length of one tick, milliseconds.
pub const TICK_MS: u64 = 10;
/// Ticks between a leader's heartbeats.
pub const HEARTBEAT_TICKS: usize = 5;
/// Fewest ticks without a leader after which a follower campaigns; also how long a vote is withheld.
pub const ELECTION_TICKS_MIN: usize = 40;
/// One more than the most ticks without a leader after which a follower campaigns.
pub const ELECTION_TICKS_MAX: usize = 71;
/// Most append messages on their way to one follower.
pub(super) const INFLIGHT_MESSAGES_MAX: usize = 64;
/// Most bytes of entries in one append message; one entry alone may be larger.
pub(super) const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Most bytes of committed entries that one ready hands out.
pub(super) const COMMITTED_BYTES_MAX: u64 = 4 << 20;
/// Bytes of recent entries that a group keeps in memory.
pub(super) const CACHE_BYTES_MAX: usize = 1 << 20;

/// Kind of a log entry that holds operations (the crate's `EntryNormal`).
pub const ENTRY_NORMAL: u8 = 0;
/// Kind of a log entry that changes the membership ([`Change`]; the crate's `EntryConfChangeV2`).
pub const ENTRY_CHANGE: u8 = 2;

/// A message of the Raft engine; opaque outside this file.
#[derive(Debug, Clone, PartialEq)]
pub struct Message(eraftpb::Message);

/// What a group's log and snapshots can give back from disk.
pub trait EntryReader {
    /// Reads entries `lo..hi` (at least one) of a group, about `bytes_max` bytes.
    ///
    /// # Errors
    /// The disk does not give them; the sentence says why.
    fn read(&self, group: u16, lo: u64, hi: u64, bytes_max: usize) -> Result<Vec<LogEntry>, String>;
}

/// Where a group's log starts, and who takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The group, for reads from the log.
    pub group: u16,
    /// This replica.
    pub replica: u64,
    /// Who takes part, at the mark.
    pub membership: Membership,
    /// Term, vote, commit as last persisted.
    pub hard_state: HardState,
    /// The log starts after this index...
    pub mark_index: u64,
    /// ...whose entry had this term.
    pub mark_term: u64,
    /// Last entry of the log.
    pub last_index: u64,
    /// Runs of entries of one term: first index, term.
    pub terms: Vec<(u64, u64)>,
    /// State machine's index: what the snapshot on disk holds.
    pub applied: u64,
    /// Place in the order in which the voters campaign: 0 is the first.
    pub rank: usize,
    /// Seed of the election timeouts.
    pub seed: u64,
    /// Whether this voter may have voted in an earlier life: it then stays silent for one election timeout.
    pub is_restart: bool,
    /// Bounds of what it has under way.
    pub limits: Limits,
}

/// Why a proposal was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This replica does not lead.
    #[error("not the leader")]
    NotLeader,
    /// Leadership is being handed over: keep the proposal and try again.
    #[error("leadership is being transferred")]
    Transferring,
    /// Of a change of the membership: another one may be under way.
    #[error("the membership is being changed")]
    Changing,
}

/// What one round asks of the caller, in the order of the fields.
#[derive(Debug, Default)]
pub struct Ready {
    /// To be given to [`Raft::persisted`] once entries and hard state are as durable as the mode asks.
    pub number: u64,
    /// Messages that may leave at once (a leader's: Ongaro's thesis, 10.2.1).
    pub messages: Vec<Message>,
    /// A snapshot that was accepted (index, term): its state must be installed before anything else is applied.
    pub snapshot: Option<(u64, u64)>,
    /// To be appended to the log.
    pub entries: Vec<LogEntry>,
    /// To be appended after them.
    pub hard_state: Option<HardState>,
    /// Messages that may leave only when the above is durable (votes, acknowledgements).
    pub persisted_messages: Vec<Message>,
    /// To be applied.
    pub committed: Vec<LogEntry>,
    /// Confirmed read rounds: context, index.
    pub reads: Vec<(u64, u64)>,
}

/// Progress of one follower as its leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follower {
    /// Its replica id.
    pub replica: u64,
    /// The last entry that it is known to hold.
    pub match_index: u64,
    /// Whether it answered within the last one or two election timeouts, and its link has not broken since.
    pub is_active: bool,
    /// Whether entries flow to it (it needs no snapshot and is not being probed).
    pub is_replicating: bool,
    /// Whether it votes, and goes on to when a joint configuration ends.
    pub is_voter: bool,
}

/// One replica of one group.
pub struct Raft {
    raw: RawNode<GroupStorage>,
    seed: u64,
    rank: usize,
    silent_ticks: usize,
    /// Who takes part at the applied index.
    membership: Membership,
    /// The log's last index when the last change of the members was applied.
    changed_at: u64,
    /// What the log holds, or will when the readies that were taken are persisted.
    hard_state: HardState,
    /// Who had been heard of when the crate last forgot it: it does at each check of the quorum.
    heard: Vec<u64>,
    /// Index of a snapshot that was accepted and is not durable yet. Until then nothing is applied after it, and the
    /// crate must not campaign: it would look for membership changes in a part of the log that is gone.
    installing: Option<u64>,
}

impl std::fmt::Debug for Raft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Raft")
            .field("replica", &self.raw.raft.id)
            .field("term", &self.term())
            .finish_non_exhaustive()
    }
}

impl Raft {
    /// Starts a replica where its log and snapshot end.
    ///
    /// # Errors
    /// Log and hard state contradict each other; the sentence says how.
    pub fn new(start: Start, reader: Rc<dyn EntryReader>) -> Result<Self, String> {
        let config = Config {
            id: start.replica,
            election_tick: ELECTION_TICKS_MIN,
            min_election_tick: ELECTION_TICKS_MIN,
            max_election_tick: ELECTION_TICKS_MAX,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: start.applied,
            max_size_per_msg: start.limits.message_bytes,
            max_inflight_msgs: start.limits.inflight_messages,
            check_quorum: true,
            pre_vote: true,
            batch_append: false,
            max_committed_size_per_ready: start.limits.committed_bytes,
            max_uncommitted_size: u64::MAX,
            ..Config::default()
        };
        let commit = start.hard_state.commit.max(start.applied).max(start.mark_index);
        if commit > start.last_index {
            return Err(format!(
                "committed index {commit} lies after the log's last index {}",
                start.last_index
            ));
        }
        let mut hard_state = eraftpb::HardState::default();
        hard_state.term = start.hard_state.term;
        hard_state.vote = start.hard_state.vote;
        hard_state.commit = commit;
        let storage = GroupStorage {
            group: start.group,
            conf: conf_state(&start.membership),
            hard_state,
            mark_index: start.mark_index,
            mark_term: start.mark_term,
            last_index: start.last_index,
            terms: start.terms,
            cache: VecDeque::new(),
            cache_bytes: 0,
            cache_bytes_max: start.limits.cache_bytes,
            reader,
            snapshot: (start.applied > 0)
                .then(|| (start.mark_index, start.mark_term, start.membership.clone())),
            snapshot_wanted: Cell::new(false),
            unreadable: Cell::new(0),
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, storage, &logger).map_err(|e| e.to_string())?;
        let silent_ticks = if start.is_restart { ELECTION_TICKS_MIN } else { 0 };
        let mut raft = Self {
            raw,
            seed: start.seed,
            rank: start.rank,
            silent_ticks,
            membership: start.membership,
            changed_at: 0,
            hard_state: start.hard_state,
            heard: Vec::new(),
            installing: None,
        };
        raft.set_timeout();
        Ok(raft)
    }

    /// Overrides the crate's random timeout; to be called after whatever may have drawn a new one.
    ///
    /// The time is drawn from (seed, replica, term) within the window of the replica's rank: windows do not overlap, so
    /// that the first campaigner usually is the only one. One that cannot win holds nobody up: a pre-vote that is
    /// asked for does not move the others' clocks.
    fn set_timeout(&mut self) {
        let mut key = [0u8; 24];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..16].copy_from_slice(&self.raw.raft.id.to_le_bytes());
        key[16..].copy_from_slice(&self.raw.raft.term.to_le_bytes());
        let draw = twox_hash::XxHash3_64::oneshot(&key) as usize;
        let timeout = match self.rank % 3 {
            0 => 43 + draw % 7,
            1 => 53 + draw % 7,
            _ => 63 + draw % 8,
        };
        debug_assert!((ELECTION_TICKS_MIN..ELECTION_TICKS_MAX).contains(&timeout));
        self.raw.raft.set_randomized_election_timeout(timeout);
    }

    /// Takes another place in the order in which the voters campaign.
    pub fn set_rank(&mut self, rank: usize) {
        self.rank = rank;
        self.set_timeout();
    }

    /// Advances the clock by one tick.
    pub fn tick(&mut self) {
        // Every campaign window starts after the silence, so that voters which restart together can elect at once.
        self.silent_ticks = self.silent_ticks.saturating_sub(1);
        self.remember_heard();
        if self.installing.is_none() {
            self.raw.tick();
        }
        self.set_timeout();
    }

    /// Keeps who was heard of before the crate's check of the quorum forgets it. Without this every follower would look
    /// dead from each check to the next heartbeat.
    fn remember_heard(&mut self) {
        let raft = &self.raw.raft;
        if !self.is_leader() {
            self.heard.clear();
        } else if raft.election_elapsed + 1 >= raft.election_timeout() {
            let active = raft.prs().iter().filter(|(_, p)| p.recent_active);
            self.heard = active.map(|(&replica, _)| replica).collect();
        }
    }

    /// Takes a message of a peer. Messages that make no sense here are dropped: the network may repeat and delay.
    pub fn step(&mut self, message: Message) {
        let kind = message.0.get_msg_type();
        if self.silent_ticks > 0
            && matches!(kind, MessageType::MsgRequestVote | MessageType::MsgRequestPreVote)
        {
            return;
        }
        if matches!(kind, MessageType::MsgReadIndex | MessageType::MsgReadIndexResp) {
            return;
        }
        if (self.silent_ticks > 0 || self.installing.is_some()) && kind == MessageType::MsgTimeoutNow {
            return;
        }
        if kind == MessageType::MsgHeartbeat && message.0.commit > self.last_index() {
            // The leader believes that this log holds more than it does: it lost a part of what it had acknowledged.
            return;
        }
        // An error means: unknown sender, or a proposal that must not come over the network.
        let _ = self.raw.step(message.0);
        self.set_timeout();
    }

    /// Starts an election now.
    pub fn campaign(&mut self) {
        if self.installing.is_some() || !self.raw.raft.promotable() {
            return;
        }
        let _ = self.raw.campaign();
        self.set_timeout();
    }

    /// Appends an entry to the leader's log and returns its index.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub fn propose(&mut self, data: Vec<u8>) -> Result<u64, ProposeError> {
        if !self.is_leader() {
            return Err(ProposeError::NotLeader);
        }
        if self.raw.raft.lead_transferee.is_some() {
            return Err(ProposeError::Transferring);
        }
        self.raw.propose(Vec::new(), data).map_err(|_| ProposeError::NotLeader)?;
        Ok(self.raw.raft.raft_log.last_index())
    }

    /// Who takes part, at the applied index.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Appends a change of the membership, made from the map at `epoch`, to the leader's log and returns its index.
    ///
    /// It goes past the crate's own way in, which would parse the entry as protobuf; the checks are the crate's and ours.
    ///
    /// # Errors
    /// Another change may be under way, this leader has not applied an entry of its own term, or see [`ProposeError`].
    pub fn change(&mut self, change: &Change, epoch: u64) -> Result<u64, ProposeError> {
        if !self.is_leader() {
            return Err(ProposeError::NotLeader);
        }
        if self.is_transferring() {
            return Err(ProposeError::Transferring);
        }
        let is_leave = *change == Change::Leave;
        if self.is_changing() || is_leave != self.membership.is_joint() || epoch < self.membership.epoch {
            return Err(ProposeError::Changing);
        }
        debug_assert_eq!(invariants::legal_change(&self.membership, change, epoch), Ok(()));
        let mut entry = eraftpb::Entry::default();
        entry.set_entry_type(eraftpb::EntryType::EntryConfChangeV2);
        entry.data = change.encode(epoch).into();
        if !self.raw.raft.append_entry(&mut [entry]) {
            return Err(ProposeError::Changing);
        }
        let index = self.raw.raft.raft_log.last_index();
        self.raw.raft.pending_conf_index = index;
        self.raw.raft.bcast_append();
        Ok(index)
    }

    /// Whether a change of the membership may be under way: until the leader has applied its log up to one, or up to an
    /// entry of its own term.
    pub fn is_changing(&self) -> bool {
        self.raw.raft.has_pending_conf() || !self.is_own_term_applied()
    }

    /// Applies a committed change of the membership.
    ///
    /// # Errors
    /// It is malformed, or does not fit to the membership: every replica judges alike.
    pub fn apply_change(&mut self, data: &[u8]) -> Result<(), String> {
        let (change, epoch) = Change::decode(data).map_err(|e| e.to_string())?;
        let conf = self.raw.apply_conf_change(&conf_change(&change)).map_err(|e| e.to_string())?;
        self.membership = membership_of(&conf, epoch);
        self.changed_at = self.last_index();
        // A leader hands over before it leaves; but one whose predecessor had proposed that already may learn of it only when
        // it leads. The crate keeps it in office, and cannot count an entry of a leader who is no member.
        if self.is_leader() && !self.membership.contains(self.raw.raft.id) {
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, raft::INVALID_ID);
        }
        self.set_timeout();
        Ok(())
    }

    /// Whether the last change of the members is known for good to so many that it outlives this leader: an entry is
    /// applied that was sent after the change, and its receivers keep what it said of the commit index. If none is on its
    /// way yet, appends an empty one.
    pub fn settle(&mut self) -> bool {
        if self.is_leader() && !self.is_changing() && self.applied_index() > self.changed_at {
            return true;
        }
        if self.last_index() <= self.changed_at {
            let _ = self.propose(Vec::new());
        }
        false
    }

    /// Asks a quorum whether this replica still leads; the answer comes as [`Ready::reads`] with the same context.
    pub fn read_index(&mut self, context: u64) {
        if self.is_leader() {
            self.raw.read_index(context.to_le_bytes().to_vec());
        }
    }

    /// A follower's question to its leader how far it must apply. It is ours, not the crate's, which would drop it silently
    /// and ask a quorum each time.
    pub fn read_ask(&self, leader: u64, round: u64) -> Message {
        self.read_message(MessageType::MsgReadIndex, leader, round, 0)
    }

    /// The leader's answer to `round` of `replica`.
    pub fn read_answer(&self, replica: u64, round: u64, index: u64) -> Message {
        self.read_message(MessageType::MsgReadIndexResp, replica, round, index)
    }

    fn read_message(&self, kind: MessageType, to: u64, round: u64, index: u64) -> Message {
        let mut m = eraftpb::Message::default();
        m.set_msg_type(kind);
        (m.to, m.from, m.term, m.index) = (to, self.replica(), self.term(), index);
        m.context = Bytes::copy_from_slice(&round.to_le_bytes());
        Message(m)
    }

    /// Whether this replica is the only voter.
    pub fn is_singleton(&self) -> bool {
        self.raw.raft.prs().is_singleton()
    }

    /// Begins to hand leadership to `replica`. Ends by itself after one election timeout.
    pub fn transfer_leader(&mut self, replica: u64) {
        if self.is_leader() && self.membership.voters.contains(&replica) {
            self.raw.transfer_leader(replica);
        }
    }

    /// Whether a hand-over is under way.
    pub fn is_transferring(&self) -> bool {
        self.raw.raft.lead_transferee.is_some()
    }

    /// Whether this replica leads.
    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// The leader this replica knows.
    pub fn leader(&self) -> Option<u64> {
        Some(self.raw.raft.leader_id).filter(|&id| id != raft::INVALID_ID)
    }

    /// Whether nobody leads that this replica has heard of lately.
    pub fn is_leaderless(&self) -> bool {
        // One that does not vote never campaigns, and would believe in its last leader for ever.
        let is_silent = self.raw.raft.election_elapsed >= 2 * ELECTION_TICKS_MAX;
        !self.is_leader() && (self.leader().is_none() || is_silent)
    }

    /// This replica's id.
    pub fn replica(&self) -> u64 {
        self.raw.raft.id
    }

    /// Current term.
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// Whom this replica voted for in its term; 0 = nobody.
    pub fn vote(&self) -> u64 {
        self.raw.raft.vote
    }

    /// The last entry that each replica, this one included, is known to have on disk; for a leader.
    pub fn held(&self) -> BTreeMap<u64, u64> {
        self.raw.raft.prs().iter().map(|(&replica, p)| (replica, p.matched)).collect()
    }

    /// Last entry of the log.
    pub fn last_index(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    /// Last committed entry.
    pub fn commit_index(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    /// Last applied entry.
    pub fn applied_index(&self) -> u64 {
        self.raw.raft.raft_log.applied
    }

    /// Whether an entry of the current term is committed (then everything before it is, too).
    pub fn is_own_term_committed(&self) -> bool {
        self.raw.raft.commit_to_current_term()
    }

    /// Whether an entry of the current term is applied: then so is everything that any earlier leader acknowledged.
    pub fn is_own_term_applied(&self) -> bool {
        self.raw.raft.apply_to_current_term()
    }

    /// Term of the entry at `index`, when it is in the log.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        self.raw.raft.raft_log.term(index).ok()
    }

    /// The entry at `index`, when it is in the log: in memory, or read back from disk.
    pub fn entry(&self, index: u64) -> Option<LogEntry> {
        let context = GetEntriesContext::empty(false);
        let found = self.raw.raft.raft_log.slice(index, index + 1, None, context).ok()?;
        found.into_iter().next().map(from_raft)
    }

    /// The followers as the leader sees them.
    pub fn followers(&self) -> Vec<Follower> {
        let (own, last) = (self.raw.raft.id, self.last_index());
        let mut all: Vec<_> = self
            .raw
            .raft
            .prs()
            .iter()
            .filter(|(id, _)| **id != own)
            .map(|(&replica, p)| Follower {
                replica,
                match_index: p.matched,
                is_active: p.recent_active || self.heard.contains(&replica),
                // One that has everything stays in `Probe` until there is a next entry.
                is_replicating: match p.state {
                    raft::ProgressState::Replicate => true,
                    raft::ProgressState::Probe => p.matched >= last,
                    raft::ProgressState::Snapshot => false,
                },
                is_voter: self.membership.voters.contains(&replica),
            })
            .collect();
        all.sort_unstable_by_key(|f| f.replica);
        all
    }

    /// The link to a peer broke: probe it before sending more.
    pub fn report_unreachable(&mut self, replica: u64) {
        self.heard.retain(|&heard| heard != replica);
        self.raw.report_unreachable(replica);
    }

    /// A snapshot was delivered to `replica`, or could not be.
    pub fn report_snapshot(&mut self, replica: u64, is_delivered: bool) {
        let status = if is_delivered { raft::SnapshotStatus::Finish } else { raft::SnapshotStatus::Failure };
        self.raw.report_snapshot(replica, status);
    }

    /// Whether [`Raft::take_ready`] has something.
    pub fn has_ready(&self) -> bool {
        self.raw.has_ready()
    }

    /// Takes what is to be done, if anything. Its entries are readable from then on; see [`Raft::persisted`].
    pub fn take_ready(&mut self) -> Option<Ready> {
        if !self.raw.has_ready() {
            return None;
        }
        let mut ready = self.raw.ready();
        let snapshot = ready.snapshot().clone();
        let snapshot =
            (!snapshot.is_empty()).then(|| (snapshot.get_metadata().index, snapshot.get_metadata().term));
        if let Some((index, term)) = snapshot {
            // Whoever decoded the message has checked it.
            let epoch = Membership::decode(&ready.snapshot().data).ok().flatten().map_or(0, |m| m.epoch);
            self.membership = membership_of(ready.snapshot().get_metadata().get_conf_state(), epoch);
            self.raw.mut_store().install(index, term, self.membership.clone());
            self.installing = Some(index);
        }
        let entries = ready.take_entries();
        self.raw.mut_store().append(&entries);
        // A commit index alone is not worth a write. But with entries it is written even if it is not news to the crate:
        // who holds the end of a joint configuration must know for ever that its beginning is committed, or it might
        // campaign with voters that are two changes old.
        let hs = self.raw.raft.hard_state();
        let state = HardState { term: hs.term, vote: hs.vote, commit: hs.commit };
        let hard_state = (ready.must_sync() && state != self.hard_state).then_some(state);
        self.hard_state = hard_state.unwrap_or(self.hard_state);
        let out = Ready {
            number: ready.number(),
            messages: ready.take_messages().into_iter().map(Message).collect(),
            snapshot,
            entries: entries.into_iter().map(from_raft).collect(),
            hard_state,
            persisted_messages: ready.take_persisted_messages().into_iter().map(Message).collect(),
            committed: ready.take_committed_entries().into_iter().map(from_raft).collect(),
            reads: ready
                .take_read_states()
                .into_iter()
                .filter_map(|s| Some((u64::from_le_bytes(s.request_ctx.try_into().ok()?), s.index)))
                .collect(),
        };
        self.raw.advance_append_async(ready);
        self.set_timeout();
        Some(out)
    }

    /// All readies up to `number` are as durable as the mode asks.
    pub fn persisted(&mut self, number: u64) {
        self.raw.on_persist_ready(number);
        self.set_timeout();
    }

    /// Everything up to `index` is applied. `persisted_index`: entries up to it are in the log file and may leave memory.
    pub fn applied(&mut self, index: u64) {
        if self.installing.is_some_and(|i| i <= index) {
            self.installing = None;
        }
        self.raw.advance_apply_to(index);
        self.raw.mut_store().trim_cache(index);
    }

    /// A snapshot at `index` (applied), with these members, is on disk; the log before it is gone.
    pub fn compacted(&mut self, index: u64, term: u64, membership: Membership) {
        self.raw.mut_store().compact(index, term, membership);
    }

    /// The snapshot on disk is of no use: none is sent until there is another one.
    pub fn snapshot_lost(&mut self) {
        self.raw.mut_store().snapshot = None;
    }

    /// Whether a snapshot is on disk, as far as is known.
    pub fn has_snapshot(&self) -> bool {
        self.raw.store().snapshot.is_some()
    }

    /// Whether a follower needs a snapshot and none that serves is on disk. Reading clears it.
    pub fn take_snapshot_wanted(&self) -> bool {
        self.raw.store().snapshot_wanted.replace(false)
    }

    /// The log's first index - 1, which a snapshot covers.
    pub fn mark_index(&self) -> u64 {
        self.raw.store().mark_index
    }
}

fn conf_state(membership: &Membership) -> eraftpb::ConfState {
    eraftpb::ConfState {
        voters: membership.voters.clone(),
        voters_outgoing: membership.outgoing.clone(),
        learners: membership.learners.clone(),
        ..eraftpb::ConfState::default()
    }
}

fn membership_of(conf: &eraftpb::ConfState, epoch: u64) -> Membership {
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    Membership {
        epoch,
        voters: sorted(&conf.voters),
        outgoing: sorted(&conf.voters_outgoing),
        learners: sorted(&conf.learners),
    }
}

/// A joint configuration is left by an entry of its own, which its leader proposes, whoever that is then.
fn conf_change(change: &Change) -> eraftpb::ConfChangeV2 {
    use eraftpb::{ConfChangeTransition, ConfChangeType};
    let single = |id: u64, kind: ConfChangeType| {
        let mut single = eraftpb::ConfChangeSingle { node_id: id, ..eraftpb::ConfChangeSingle::default() };
        single.set_change_type(kind);
        single
    };
    let mut out = eraftpb::ConfChangeV2::default();
    match change {
        Change::AddLearner(id) => out.changes.push(single(*id, ConfChangeType::AddLearnerNode)),
        Change::RemoveLearner(id) => out.changes.push(single(*id, ConfChangeType::RemoveNode)),
        Change::Enter { add, remove } => {
            out.set_transition(ConfChangeTransition::Explicit);
            let added = add.iter().map(|&id| single(id, ConfChangeType::AddNode));
            let removed = remove.iter().map(|&id| single(id, ConfChangeType::RemoveNode));
            out.changes.extend(added.chain(removed));
        }
        Change::Leave => {}
    }
    out
}

fn from_raft(entry: eraftpb::Entry) -> LogEntry {
    let kind = match entry.entry_type {
        eraftpb::EntryType::EntryNormal => 0,
        eraftpb::EntryType::EntryConfChange => 1,
        eraftpb::EntryType::EntryConfChangeV2 => 2,
    };
    LogEntry { index: entry.index, term: entry.term, kind, data: entry.data }
}

fn to_raft(entry: LogEntry) -> eraftpb::Entry {
    eraftpb::Entry {
        entry_type: entry_type(entry.kind),
        index: entry.index,
        term: entry.term,
        data: entry.data,
        ..eraftpb::Entry::default()
    }
}

fn entry_type(kind: u8) -> eraftpb::EntryType {
    match kind {
        1 => eraftpb::EntryType::EntryConfChange,
        2 => eraftpb::EntryType::EntryConfChangeV2,
        _ => eraftpb::EntryType::EntryNormal,
    }
}

/// The log as the engine reads it: positions and terms in memory, recent entries cached, older ones on disk.
struct GroupStorage {
    group: u16,
    conf: eraftpb::ConfState,
    hard_state: eraftpb::HardState,
    mark_index: u64,
    mark_term: u64,
    last_index: u64,
    terms: Vec<(u64, u64)>,
    cache: VecDeque<eraftpb::Entry>,
    cache_bytes: usize,
    cache_bytes_max: usize,
    reader: Rc<dyn EntryReader>,
    /// Index, term and members of the snapshot on disk.
    snapshot: Option<(u64, u64, Membership)>,
    snapshot_wanted: Cell<bool>,
    /// The first of the entries that could not be read back from disk when a follower needed them last; 0 = none. The
    /// follower gets a snapshot that has it.
    unreadable: Cell<u64>,
}

impl GroupStorage {
    fn append(&mut self, entries: &[eraftpb::Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > self.mark_index, "an entry before the log's start was appended");
        assert!(first.index <= self.last_index + 1, "a gap in the log was appended");
        if first.index <= self.unreadable.get() {
            self.unreadable.set(0);
        }
        while self.cache.back().is_some_and(|e| e.index >= first.index) {
            let dropped = self.cache.pop_back().expect("the loop saw an entry");
            self.cache_bytes -= dropped.data.len();
        }
        while self.terms.last().is_some_and(|&(start, _)| start >= first.index) {
            self.terms.pop();
        }
        for entry in entries {
            if self.terms.last().is_none_or(|&(_, term)| term != entry.term) {
                self.terms.push((entry.index, entry.term));
            }
            self.cache_bytes += entry.data.len();
            self.cache.push_back(entry.clone());
            self.last_index = entry.index;
        }
    }

    /// Drops the oldest applied entries from memory while it holds more than its bound.
    fn trim_cache(&mut self, applied: u64) {
        while self.cache_bytes > self.cache_bytes_max
            && self.cache.front().is_some_and(|e| e.index <= applied)
        {
            let dropped = self.cache.pop_front().expect("the loop saw an entry");
            self.cache_bytes -= dropped.data.len();
        }
    }

    fn compact(&mut self, index: u64, term: u64, membership: Membership) {
        if index < self.mark_index {
            return;
        }
        while self.cache.front().is_some_and(|e| e.index <= index) {
            let dropped = self.cache.pop_front().expect("the loop saw an entry");
            self.cache_bytes -= dropped.data.len();
        }
        let keep = self.terms.iter().rposition(|&(start, _)| start <= index + 1).unwrap_or(0);
        self.terms.drain(..keep);
        if let Some(first) = self.terms.first_mut() {
            first.0 = first.0.max(index + 1);
        }
        if self.last_index <= index {
            self.terms.clear();
            self.last_index = index;
        }
        (self.mark_index, self.mark_term) = (index, term);
        self.snapshot = Some((index, term, membership));
    }

    fn install(&mut self, index: u64, term: u64, membership: Membership) {
        self.cache.clear();
        self.cache_bytes = 0;
        self.terms.clear();
        self.unreadable.set(0);
        (self.mark_index, self.mark_term, self.last_index) = (index, term, index);
        self.snapshot = Some((index, term, membership));
    }
}

impl Storage for GroupStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: self.conf.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        if low <= self.mark_index {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last_index + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let cache_first = self.cache.front().map_or(self.last_index + 1, |e| e.index);
        let mut out = Vec::new();
        let mut bytes = 0u64;
        if low < cache_first {
            let budget = usize::try_from(bytes_max).unwrap_or(usize::MAX);
            let read = match self.reader.read(self.group, low, high.min(cache_first), budget) {
                Ok(read) => read,
                // The crate turns to the snapshot for the follower whose entries these are.
                Err(error) if context.can_async() => {
                    if self.unreadable.replace(low) != low {
                        tracing::error!(
                            group = self.group, index = low, %error,
                            "entries that a follower needs cannot be read back from the log: it gets a snapshot"
                        );
                    }
                    return Err(StorageError::Compacted.into());
                }
                // They are this replica's own business: it cannot go on.
                Err(error) => {
                    tracing::error!(group = self.group, index = low, %error, "entries cannot be read back from the log");
                    return Err(raft::Error::Store(StorageError::Other(error.into())));
                }
            };
            bytes = read.iter().map(|e| e.data.len() as u64).sum();
            out.extend(read.into_iter().map(to_raft));
        }
        let next = low + out.len() as u64;
        if next >= cache_first {
            for entry in self.cache.iter().skip((next - cache_first) as usize).take((high - next) as usize) {
                bytes += entry.data.len() as u64;
                if bytes > bytes_max && !out.is_empty() {
                    break;
                }
                out.push(entry.clone());
            }
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.mark_index {
            return Ok(self.mark_term);
        }
        if index < self.mark_index {
            return Err(StorageError::Compacted.into());
        }
        if index > self.last_index {
            return Err(StorageError::Unavailable.into());
        }
        let run = self.terms.partition_point(|&(start, _)| start <= index);
        let term = run.checked_sub(1).and_then(|i| self.terms.get(i)).map(|&(_, term)| term);
        Ok(term.ok_or_else(|| StorageError::Unavailable)?)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.mark_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last_index)
    }

    /// Only a snapshot that knows its receiver serves: one from before it came would be refused. And it must have the
    /// entries that could not be read: one that the receiver is beyond would not help it.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<eraftpb::Snapshot> {
        let index_min = request_index.max(self.unreadable.get()).max(1);
        let serves =
            |(index, _, members): &&(u64, u64, Membership)| *index >= index_min && members.contains(to);
        let Some((index, term, members)) = self.snapshot.as_ref().filter(serves) else {
            self.snapshot_wanted.set(true);
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        };
        let mut snapshot = eraftpb::Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = *index;
        metadata.term = *term;
        metadata.set_conf_state(conf_state(members));
        snapshot.data = members.encode().into();
        Ok(snapshot)
    }
}

/// Bytes of a message that follow its fixed part, and the fixed part:
///
/// | offset | size | field |
/// | --- | --- | --- |
/// | 0 | 1 | message type |
/// | 1 | 8 x 9 | to, from, term, log term, index, commit, commit term, reject hint, request snapshot |
/// | 73 | 1 | bit 0: reject, bit 1: a snapshot's metadata follows the context |
/// | 74 | 4 + n | context |
/// | .. | 16 + 4 + n | snapshot: index, term, its [`Membership`] |
/// | .. | 4 | count of entries |
/// | .. | 1 + 8 + 8 + 4 + n each | entry: kind, index, term, data |
impl Message {
    /// The replica that it is for.
    pub fn to(&self) -> u64 {
        self.0.to
    }

    /// The replica that sent it.
    pub fn from(&self) -> u64 {
        self.0.from
    }

    /// Index of the snapshot that goes with it; `None` for every other message.
    pub fn snapshot_index(&self) -> Option<u64> {
        (self.0.get_msg_type() == MessageType::MsgSnapshot)
            .then(|| self.0.get_snapshot().get_metadata().index)
    }

    /// The members at the snapshot that goes with it, encoded; empty for every other message.
    pub fn snapshot_members(&self) -> &[u8] {
        &self.0.get_snapshot().data
    }

    /// Whether it makes its receiver write to the log.
    pub fn is_append(&self) -> bool {
        matches!(self.0.get_msg_type(), MessageType::MsgAppend | MessageType::MsgSnapshot)
    }

    /// Of a follower's question how far it must apply: who asks, its round.
    pub fn as_read_ask(&self) -> Option<(u64, u64)> {
        Some((self.0.from, self.round_of(MessageType::MsgReadIndex)?))
    }

    /// Of the answer to it: the round, the index.
    pub fn as_read_answer(&self) -> Option<(u64, u64)> {
        Some((self.round_of(MessageType::MsgReadIndexResp)?, self.0.index))
    }

    fn round_of(&self, kind: MessageType) -> Option<u64> {
        let round = || self.0.context.as_ref().try_into().ok().map(u64::from_le_bytes);
        (self.0.get_msg_type() == kind).then(round).flatten()
    }

    /// Whether it answers a heartbeat, and so promises nothing that must be on disk first.
    pub fn is_heartbeat_response(&self) -> bool {
        self.0.get_msg_type() == MessageType::MsgHeartbeatResponse
    }

    /// What it promises of its sender's disk; `None`: nothing. (A leader's own messages rest on the votes that it got.)
    pub fn promise(&self) -> Option<Promise> {
        let m = &self.0;
        let vote = match m.get_msg_type() {
            MessageType::MsgRequestVote => m.from,
            MessageType::MsgRequestVoteResponse if !m.reject => m.to,
            MessageType::MsgRequestVoteResponse
            | MessageType::MsgAppendResponse
            | MessageType::MsgHeartbeatResponse => 0,
            _ => return None,
        };
        let is_acknowledgement = m.get_msg_type() == MessageType::MsgAppendResponse && !m.reject;
        Some(Promise {
            term: m.term,
            vote,
            index: if is_acknowledgement { m.index } else { 0 },
            index_term: None,
        })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let m = &self.0;
        out.push(m.get_msg_type() as u8);
        for n in [
            m.to,
            m.from,
            m.term,
            m.log_term,
            m.index,
            m.commit,
            m.commit_term,
            m.reject_hint,
            m.request_snapshot,
        ] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        let has_snapshot = m.get_msg_type() == MessageType::MsgSnapshot;
        out.push(u8::from(m.reject) | u8::from(has_snapshot) << 1);
        put_bytes(out, &m.context);
        if has_snapshot {
            let meta = m.get_snapshot().get_metadata();
            out.extend_from_slice(&meta.index.to_le_bytes());
            out.extend_from_slice(&meta.term.to_le_bytes());
            put_bytes(out, &m.get_snapshot().data);
        }
        out.extend_from_slice(&(m.entries.len() as u32).to_le_bytes());
        for entry in &m.entries {
            out.push(match entry.entry_type {
                eraftpb::EntryType::EntryNormal => 0,
                eraftpb::EntryType::EntryConfChange => 1,
                eraftpb::EntryType::EntryConfChangeV2 => 2,
            });
            out.extend_from_slice(&entry.index.to_le_bytes());
            out.extend_from_slice(&entry.term.to_le_bytes());
            put_bytes(out, &entry.data);
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// It is malformed, or of a type that never travels.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes, "Raft message");
        let mut m = eraftpb::Message::default();
        let kind = travelling(r.u8()?).ok_or_else(|| r.malformed())?;
        m.set_msg_type(kind);
        m.to = r.u64()?;
        m.from = r.u64()?;
        m.term = r.u64()?;
        m.log_term = r.u64()?;
        m.index = r.u64()?;
        m.commit = r.u64()?;
        m.commit_term = r.u64()?;
        m.reject_hint = r.u64()?;
        m.request_snapshot = r.u64()?;
        let flags = r.u8()?;
        m.reject = flags & 1 != 0;
        m.context = Bytes::copy_from_slice(r.bytes()?);
        if (flags & 2 != 0) != (kind == MessageType::MsgSnapshot) {
            return Err(r.malformed());
        }
        if kind == MessageType::MsgSnapshot {
            let meta = m.mut_snapshot().mut_metadata();
            meta.index = r.u64()?;
            meta.term = r.u64()?;
            let bytes = r.bytes()?;
            let members = Membership::decode(bytes)?.ok_or_else(|| r.malformed())?;
            meta.set_conf_state(conf_state(&members));
            m.mut_snapshot().data = Bytes::copy_from_slice(bytes);
        }
        // A message of term 0 passes for a local one, and entries with a gap break the log: neither is a peer's.
        if m.term == 0 {
            return Err(r.malformed());
        }
        for position in 1..=u64::from(r.u32()?) {
            let kind = r.u8()?;
            let (index, term) = (r.u64()?, r.u64()?);
            if m.index.checked_add(position) != Some(index) {
                return Err(r.malformed());
            }
            let data = Bytes::copy_from_slice(r.bytes()?);
            m.entries.push(to_raft(LogEntry { index, term, kind, data }));
        }
        if r.is_empty() { Ok(Self(m)) } else { Err(r.malformed()) }
    }
}

/// The message types that one replica may send to another here. Proposals are never forwarded; questions about reads are
/// [`Group`](super::Group)'s, the crate never sees them.
fn travelling(n: u8) -> Option<MessageType> {
    [
        MessageType::MsgAppend,
        MessageType::MsgAppendResponse,
        MessageType::MsgRequestVote,
        MessageType::MsgRequestVoteResponse,
        MessageType::MsgSnapshot,
        MessageType::MsgHeartbeat,
        MessageType::MsgHeartbeatResponse,
        MessageType::MsgTimeoutNow,
        MessageType::MsgRequestPreVote,
        MessageType::MsgRequestPreVoteResponse,
        MessageType::MsgReadIndex,
        MessageType::MsgReadIndexResp,
    ]
    .into_iter()
    .find(|t| *t as u8 == n)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A log that holds nothing: every entry must still be in memory.
    pub(in crate::shard) struct NoDisk;

    impl EntryReader for NoDisk {
        fn read(&self, _: u16, lo: u64, _: u64, _: usize) -> Result<Vec<LogEntry>, String> {
            Err(format!("entry {lo} was asked of the disk"))
        }
    }

    pub(in crate::shard) fn start(replica: u64, voters: &[u64]) -> Start {
        Start {
            group: 1,
            replica,
            membership: Membership::founded(voters),
            hard_state: HardState { term: 0, vote: 0, commit: 0 },
            mark_index: 0,
            mark_term: 0,
            last_index: 0,
            terms: Vec::new(),
            applied: 0,
            rank: replica as usize - 1,
            seed: 1,
            is_restart: false,
            limits: Limits::default(),
        }
    }

    #[test]
    fn single_voter_commits_once_persisted() {
        let mut raft = Raft::new(start(1, &[1]), Rc::new(NoDisk)).unwrap();
        raft.campaign();
        let index = raft.propose(b"x".to_vec()).unwrap();
        let ready = raft.take_ready().unwrap();
        assert_eq!(ready.entries.last().map(|e| e.index), Some(index));
        assert!(ready.committed.is_empty(), "nothing is committed before it is persisted");
        raft.persisted(ready.number);
        let ready = raft.take_ready().unwrap();
        assert_eq!(ready.committed.last().map(|e| e.data.as_ref()), Some(&b"x"[..]));
    }

    #[test]
    fn a_follower_that_answers_never_looks_dead() {
        let respond = |kind: MessageType, term: u64| {
            let mut m = eraftpb::Message::default();
            m.set_msg_type(kind);
            (m.to, m.from, m.term) = (1, 2, term);
            Message(m)
        };
        let mut leader = Raft::new(start(1, &[1, 2]), Rc::new(NoDisk)).unwrap();
        let settle = |leader: &mut Raft| {
            while let Some(ready) = leader.take_ready() {
                leader.persisted(ready.number);
            }
        };
        leader.campaign();
        settle(&mut leader);
        leader.step(respond(MessageType::MsgRequestPreVoteResponse, 1));
        settle(&mut leader);
        leader.step(respond(MessageType::MsgRequestVoteResponse, 1));
        settle(&mut leader);
        assert!(leader.is_leader());
        let is_active = |leader: &Raft| leader.followers().iter().all(|f| f.is_active);
        for tick in 0..4 * ELECTION_TICKS_MIN {
            if tick % HEARTBEAT_TICKS == 0 {
                leader.step(respond(MessageType::MsgHeartbeatResponse, 1));
            }
            leader.tick();
            settle(&mut leader);
            assert!(is_active(&leader), "tick {tick}");
        }
        leader.report_unreachable(2);
        let mut left = 2 * ELECTION_TICKS_MIN;
        while leader.is_leader() && is_active(&leader) {
            leader.tick();
            settle(&mut leader);
            left = left.checked_sub(1).expect("a dead follower is seen as such");
        }
    }

    #[test]
    fn a_vote_is_written_before_it_is_sent() {
        let mut ask = eraftpb::Message::default();
        ask.set_msg_type(MessageType::MsgRequestVote);
        (ask.to, ask.from, ask.term) = (1, 2, 5);
        let mut raft = Raft::new(start(1, &[1, 2, 3]), Rc::new(NoDisk)).unwrap();
        raft.step(Message(ask));
        let ready = raft.take_ready().unwrap();
        assert_eq!(ready.hard_state, Some(HardState { term: 5, vote: 2, commit: 0 }));
        assert!(ready.messages.is_empty(), "the vote waits for the disk");
        assert_eq!(ready.persisted_messages.len(), 1);
    }

    #[test]
    fn restarted_voter_is_silent_for_one_election_timeout() {
        let mut candidate = Raft::new(start(2, &[1, 2]), Rc::new(NoDisk)).unwrap();
        candidate.campaign();
        let ready = candidate.take_ready().unwrap();
        let ask = ready.messages.into_iter().chain(ready.persisted_messages).next().unwrap();
        let restarted = Start { is_restart: true, ..start(1, &[1, 2]) };
        let mut raft = Raft::new(restarted, Rc::new(NoDisk)).unwrap();
        raft.step(ask.clone());
        assert!(raft.take_ready().is_none(), "it voted before the timeout of its earlier promise");
        for _ in 0..ELECTION_TICKS_MIN {
            raft.tick();
        }
        raft.step(ask);
        assert!(raft.take_ready().is_some());
    }

    #[test]
    fn an_entry_is_persisted_with_the_commit_index_that_was_known() {
        let message = |kind: MessageType, index: u64, commit: u64| {
            let mut m = eraftpb::Message::default();
            m.set_msg_type(kind);
            (m.to, m.from, m.term, m.index, m.commit) = (1, 2, 1, index, commit);
            m.log_term = u64::from(index > 0);
            if kind == MessageType::MsgAppend {
                m.entries.push(to_raft(LogEntry { index: index + 1, term: 1, kind: 0, data: Bytes::new() }));
            }
            Message(m)
        };
        let mut raft = Raft::new(start(1, &[1, 2]), Rc::new(NoDisk)).unwrap();
        let mut states = Vec::new();
        for message in [
            message(MessageType::MsgAppend, 0, 0),
            message(MessageType::MsgHeartbeat, 0, 1),
            message(MessageType::MsgAppend, 1, 1),
        ] {
            raft.step(message);
            let ready = raft.take_ready().unwrap();
            states.push(ready.hard_state.map(|s| s.commit));
            raft.persisted(ready.number);
        }
        assert_eq!(states, [Some(0), None, Some(1)], "the heartbeat's commit index goes with the next entry");
    }

    #[test]
    fn a_joint_configuration_survives_a_restart() {
        let membership =
            Membership { epoch: 4, voters: vec![1, 2, 4], outgoing: vec![1, 2, 3], learners: vec![5] };
        let joint = Start {
            membership: membership.clone(),
            hard_state: HardState { term: 3, vote: 0, commit: 9 },
            mark_index: 9,
            mark_term: 3,
            last_index: 9,
            applied: 9,
            ..start(1, &[])
        };
        let mut raft = Raft::new(joint, Rc::new(NoDisk)).unwrap();
        assert_eq!(raft.membership(), &membership);
        raft.campaign();
        let asked: Vec<u64> = raft.take_ready().unwrap().persisted_messages.iter().map(Message::to).collect();
        assert_eq!(asked.len(), 3, "old and new voters are asked, learners are not: {asked:?}");
    }

    #[test]
    fn a_leader_that_learns_that_it_has_left_is_none_any_more() {
        let joint = Start {
            membership: Membership {
                epoch: 4,
                voters: vec![2, 3, 4],
                outgoing: vec![1, 2, 3],
                learners: vec![],
            },
            hard_state: HardState { term: 3, vote: 0, commit: 9 },
            mark_index: 9,
            mark_term: 3,
            last_index: 9,
            applied: 9,
            ..start(1, &[])
        };
        let message = |kind: MessageType, from: u64, term: u64, index: u64| {
            let mut m = eraftpb::Message::default();
            m.set_msg_type(kind);
            (m.to, m.from, m.term, m.index, m.log_term) = (1, from, term, index, 3);
            m
        };
        let mut raft = Raft::new(joint, Rc::new(NoDisk)).unwrap();
        let persist_all = |raft: &mut Raft| {
            while let Some(ready) = raft.take_ready() {
                raft.persisted(ready.number);
            }
        };
        // The entry with which it leaves comes from a leader that is gone before anybody knows that it is committed.
        let mut append = message(MessageType::MsgAppend, 2, 3, 9);
        let leave = Change::Leave.encode(5);
        let entry = LogEntry { index: 10, term: 3, kind: ENTRY_CHANGE, data: leave.clone().into() };
        append.entries.push(to_raft(entry));
        raft.step(Message(append));
        persist_all(&mut raft);
        raft.campaign();
        persist_all(&mut raft);
        for (kind, term) in
            [(MessageType::MsgRequestPreVoteResponse, 4), (MessageType::MsgRequestVoteResponse, 4)]
        {
            [2, 3].into_iter().for_each(|from| raft.step(Message(message(kind, from, term, 0))));
            if kind == MessageType::MsgRequestPreVoteResponse {
                persist_all(&mut raft);
            }
        }
        assert!(raft.is_leader());
        let own = raft.take_ready().unwrap();
        for from in [2, 3] {
            raft.step(Message(message(MessageType::MsgAppendResponse, from, 4, 11)));
        }
        let committed = raft.take_ready().unwrap().committed;
        assert!(committed.iter().any(|entry| entry.index == 10 && entry.data.as_ref() == &leave[..]));
        raft.apply_change(&leave).unwrap();
        assert!(!raft.is_leader(), "it is no member");
        raft.persisted(own.number);
        raft.tick();
    }

    #[test]
    fn election_timeouts_of_three_voters_never_overlap() {
        for term in 0..50 {
            let mut seen: Vec<usize> = (1..=3)
                .map(|id| {
                    let mut raft = Raft::new(start(id, &[1, 2, 3]), Rc::new(NoDisk)).unwrap();
                    raft.raw.raft.term = term;
                    raft.set_timeout();
                    raft.raw.raft.randomized_election_timeout()
                })
                .collect();
            seen.sort_unstable();
            assert!(seen[1] - seen[0] >= 4 && seen[2] - seen[1] >= 4, "term {term}: {seen:?}");
        }
    }

    #[test]
    fn messages_round_trip_and_proposals_do_not_travel() {
        let mut m = eraftpb::Message::default();
        m.set_msg_type(MessageType::MsgAppend);
        (m.to, m.from, m.term, m.index) = (1, 2, 3, 4);
        m.entries.push(to_raft(LogEntry { index: 5, term: 3, kind: 0, data: Bytes::from_static(b"data") }));
        let mut out = Vec::new();
        Message(m.clone()).encode(&mut out);
        assert_eq!(Message::decode(&out).unwrap(), Message(m));
        for cut in 0..out.len() {
            assert!(Message::decode(&out[..cut]).is_err());
        }
        out[0] = MessageType::MsgPropose as u8;
        assert!(Message::decode(&out).is_err());
    }
}
