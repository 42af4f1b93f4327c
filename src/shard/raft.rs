//! The Raft engine of one group: only this module and those below it name the `raft` crate's types.
//!
//! The crate is a pure state machine; this wrapper gives it what it lacks here:
//! - election timeouts from our own seed (`set_timeout`), so that a simulated run repeats to the byte, and
//!   staggered by rank, so that two followers of a dead leader do not split the vote;
//! - a restarted voter that stays silent for one election timeout (it has forgotten whom it promised its vote's lease);
//! - our own codec for messages (the crate's protobuf parser never sees outside bytes);
//! - a storage that keeps recent entries in memory and reads older ones back from the log.
//!
//! `batch_append` stays off: it glues entries onto a message with another previous index.

mod convert;
mod message;
mod storage;

use super::invariants;
use super::limits::Limits;
use super::membership::{Change, Membership};
use crate::log::{HardState, LogEntry};
use bytes::Bytes;
use raft::eraftpb::{self, MessageType};
use raft::{Config, GetEntriesContext, RawNode, StateRole};
use ringfort_wire::GroupId;
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

pub use message::Message;

use convert::{conf_change, conf_state, from_raft, membership_of};
use storage::GroupStorage;

/// Length of one tick, milliseconds.
pub const TICK_MS: u64 = 10;
/// Ticks between a leader's heartbeats while anything goes on in its worker.
pub const HEARTBEAT_TICKS: usize = 5;
/// Ticks without a word of the leader after which a follower is not calm any more.
const CALM_TICKS_MAX: usize = 5 * HEARTBEAT_TICKS;
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
/// Bytes of recent entries that a leader keeps in memory for its followers.
pub(super) const CACHE_BYTES_MAX: usize = 1 << 20;
/// Bytes of a log up to which a replica that has nothing gets it, and no snapshot, which costs two syncs.
pub(super) const SEED_LOG_BYTES_MAX: u64 = 64 << 10;

/// Kind of a log entry that holds operations (the crate's `EntryNormal`).
pub const ENTRY_NORMAL: u8 = 0;
/// Kind of a log entry that changes the membership ([`Change`]; the crate's `EntryConfChangeV2`).
pub const ENTRY_CHANGE: u8 = 2;

/// What a group's log and snapshots can give back from disk.
pub trait EntryReader {
    /// Reads entries `lo..hi` (at least one) of a group, about `bytes_max` bytes.
    ///
    /// # Errors
    /// The disk does not give them; the sentence says why.
    fn read(&self, group: u16, lo: u64, hi: u64, bytes_max: usize) -> Result<Vec<LogEntry>, String>;

    /// Bytes of all entries of a group.
    fn bytes(&self, group: u16) -> u64;
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
    /// Whether its last answer to a heartbeat of this term said that its disk has room and is quick.
    pub is_fit: bool,
}

/// One replica of one group.
pub struct Raft {
    raw: RawNode<GroupStorage>,
    seed: u64,
    rank: usize,
    /// The election timeout of this replica in its term, and that term.
    timeout: (usize, u64),
    silent_ticks: usize,
    /// Who takes part at the applied index.
    membership: Membership,
    /// The log's last index when the last change of the members was applied.
    changed_at: u64,
    /// What the log holds, or will when the readies that were taken are persisted.
    hard_state: HardState,
    /// Who had been heard of when the crate last forgot it: it does at each check of the quorum.
    heard: Vec<u64>,
    /// Whether the crate has had its turn since the last tick or message: while this replica cannot read what it must apply,
    /// there always is something to do.
    is_waiting: bool,
    /// Whether this node's disk lacks room, or is slow.
    is_hampered: bool,
    /// Of each replica the last term in which its answer to a heartbeat said that its disk has room and is quick.
    fit_terms: BTreeMap<u64, u64>,
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
            // The worker says when: see [`Raft::tick`].
            heartbeat_tick: ELECTION_TICKS_MIN - 1,
            applied: start.applied,
            max_size_per_msg: start.limits.message_bytes,
            max_inflight_msgs: start.limits.inflight_messages,
            check_quorum: true,
            pre_vote: true,
            batch_append: false,
            // The meta group's followers wait for each map; see `Raft::tell_commit` for the others.
            skip_bcast_commit: GroupId(start.group) != GroupId::META,
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
            stuck: Cell::new(0),
            applied: start.applied,
            seed_log_bytes: start.limits.seed_log_bytes,
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, storage, &logger).map_err(|e| e.to_string())?;
        let silent_ticks = if start.is_restart { ELECTION_TICKS_MIN } else { 0 };
        let mut raft = Self {
            raw,
            seed: start.seed,
            rank: start.rank,
            timeout: (0, 0), // drawn below, whatever the term
            silent_ticks,
            membership: start.membership,
            changed_at: 0,
            hard_state: start.hard_state,
            heard: Vec::new(),
            is_waiting: false,
            is_hampered: false,
            fit_terms: BTreeMap::new(),
            installing: None,
        };
        raft.draw_timeout();
        Ok(raft)
    }

    /// Overrides the crate's random timeout; to be called after whatever may have drawn a new one.
    fn set_timeout(&mut self) {
        let (timeout, term) = self.timeout;
        if term == self.raw.raft.term {
            self.raw.raft.set_randomized_election_timeout(timeout);
        } else {
            self.draw_timeout();
        }
    }

    /// Draws the timeout anew.
    ///
    /// The time is drawn from (seed, replica, term) within the window of the replica's rank: windows do not overlap, so
    /// that the first campaigner usually is the only one. One that cannot win holds nobody up: a pre-vote that is
    /// asked for does not move the others' clocks.
    fn draw_timeout(&mut self) {
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
        self.timeout = (timeout, self.raw.raft.term);
        self.raw.raft.set_randomized_election_timeout(timeout);
    }

    /// Takes another place in the order in which the voters campaign.
    pub fn set_rank(&mut self, rank: usize) {
        self.rank = rank;
        self.draw_timeout();
    }

    /// Advances the clock by `ticks`. `is_beat`: a leader sends its heartbeats.
    pub fn tick(&mut self, ticks: u64, is_beat: bool) {
        // Every campaign window starts after the silence, so that voters which restart together can elect at once.
        self.silent_ticks = self.silent_ticks.saturating_sub(ticks as usize);
        self.is_waiting = false;
        if !self.is_leader() {
            self.heard.clear();
        }
        for _ in self.pass_quietly(ticks)..ticks {
            self.remember_heard();
            if self.installing.is_some() {
                continue;
            }
            // The crate's own heartbeats would come at other times.
            let said = self.raw.raft.msgs.len();
            self.raw.tick();
            if self.is_leader() {
                self.raw.raft.msgs.truncate(said);
            }
        }
        if is_beat && self.installing.is_none() {
            self.raw.ping();
        }
        if self.is_stuck() {
            // Refused while there is no leader, and until an entry of its term is here: asked again.
            let _ = self.raw.request_snapshot();
        }
        self.set_timeout();
    }

    /// Counts those of the next ticks at once in which only the crate's clock goes on; returns how many.
    fn pass_quietly(&mut self, ticks: u64) -> u64 {
        let raft = &mut self.raw.raft;
        if self.installing.is_some() {
            return 0;
        }
        let timeout = match raft.state {
            StateRole::Leader => raft.election_timeout(),
            _ => raft.randomized_election_timeout(),
        };
        // In the tick that reaches the timeout something happens.
        let quiet = timeout.saturating_sub(raft.election_elapsed + 1).min(ticks as usize);
        raft.election_elapsed += quiet;
        quiet as u64
    }

    /// Keeps who was heard of before the crate's check of the quorum forgets it. Without this every follower would look
    /// dead from each check to the next heartbeat.
    fn remember_heard(&mut self) {
        let raft = &self.raw.raft;
        if self.is_leader() && raft.election_elapsed + 1 >= raft.election_timeout() {
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
        if message.0.term > self.term() && is_answer(kind) && self.is_loyal() {
            // An answer to what it asked before it heard of its leader, as a vote that is refused. It would forget that leader,
            // who counts on it, and then vote for another.
            return;
        }
        if kind == MessageType::MsgHeartbeat && message.0.commit > self.last_index() {
            // The leader believes that this log holds more than it does: it lost a part of what it had acknowledged.
            return;
        }
        let message = self.notice_fit(message);
        self.is_waiting = false;
        // An error means: unknown sender, or a proposal that must not come over the network.
        let _ = self.raw.step(message.0);
        self.set_timeout();
    }

    /// Takes the heartbeats and the answers to heartbeats that wait to be sent, if nothing else does. The caller has no hard
    /// state that waits for the disk: such an answer promises only a term, which the log then holds.
    ///
    /// They could as well be a part of a [`Ready`], at several times the cost.
    pub fn take_heartbeats(&mut self) -> impl Iterator<Item = Message> {
        let is_fit = !self.is_hampered;
        let raft = &mut self.raw.raft;
        let is_held = (raft.term, raft.vote) == (self.hard_state.term, self.hard_state.vote);
        let count = if is_held && raft.msgs.iter().all(message::is_heartbeat) { raft.msgs.len() } else { 0 };
        raft.msgs.drain(..count).map(move |mut message| {
            message::set_fit(&mut message, is_fit);
            Message(message)
        })
    }

    /// Reads what an answer to a heartbeat says of its sender's disk, which is not for the crate.
    fn notice_fit(&mut self, mut message: Message) -> Message {
        if let Some(is_fit) = message.take_fit()
            && message.0.term == self.term()
            && self.raw.raft.prs().get(message.from()).is_some()
        {
            self.fit_terms.insert(message.from(), if is_fit { message.0.term } else { 0 });
        }
        message
    }

    /// Says whether this node's disk lacks room, or is slow: its leaders hear of it.
    pub fn set_hampered(&mut self, is_hampered: bool) {
        self.is_hampered = is_hampered;
    }

    /// Whether this node's disk lacks room, or is slow.
    pub fn is_hampered(&self) -> bool {
        self.is_hampered
    }

    /// Whether nothing is under way that the next ticks could matter for.
    pub fn is_calm(&self) -> bool {
        let raft = &self.raw.raft;
        let log = &raft.raft_log;
        let is_settled = self.silent_ticks == 0
            && self.installing.is_none()
            && !self.is_stuck()
            && log.applied == log.committed;
        is_settled
            && match raft.state {
                StateRole::Leader => {
                    let last = log.last_index();
                    raft.lead_transferee.is_none()
                        && log.committed == last
                        && raft.prs().iter().all(|(_, p)| p.matched == last && !p.paused)
                }
                StateRole::Follower => {
                    raft.leader_id != raft::INVALID_ID
                        && raft.election_elapsed <= CALM_TICKS_MAX
                        && log.committed == log.last_index()
                }
                StateRole::Candidate | StateRole::PreCandidate => false,
            }
    }

    /// Whether it follows a leader of whom it has heard so lately that the leader may count on it.
    fn is_loyal(&self) -> bool {
        let raft = &self.raw.raft;
        raft.state == StateRole::Follower
            && raft.leader_id != raft::INVALID_ID
            && raft.election_elapsed < ELECTION_TICKS_MIN
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
        let entry = eraftpb::Entry { data: data.into(), ..eraftpb::Entry::default() };
        self.append(entry).ok_or(ProposeError::NotLeader)
    }

    /// Appends an entry to the leader's log, sends it, and returns its index; `None`: the leader is no member any more.
    ///
    /// The crate's own way in makes a message of it, and would parse a change of the members as protobuf.
    fn append(&mut self, entry: eraftpb::Entry) -> Option<u64> {
        let raft = &mut self.raw.raft;
        if raft.prs().get(raft.id).is_none() || !raft.append_entry(&mut [entry]) {
            return None;
        }
        raft.bcast_append();
        Some(raft.raft_log.last_index())
    }

    /// Who takes part, at the applied index.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Appends a change of the membership, made from the map at `epoch`, to the leader's log and returns its index.
    ///
    /// The checks are the crate's and ours.
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
        let index = self.append(entry).ok_or(ProposeError::Changing)?;
        self.raw.raft.pending_conf_index = index;
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
        let Some(change) = conf_change(&change) else {
            self.membership.epoch = epoch;
            return Ok(());
        };
        let conf = self.raw.apply_conf_change(&change).map_err(|e| e.to_string())?;
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

    /// Tells a follower at once what is committed, if it is not known to know. Else that goes with the next entry or heartbeat:
    /// a message of its own, and its answer, would double the messages of a write.
    pub fn tell_commit(&mut self, replica: u64) {
        let raft = &mut self.raw.raft;
        let committed = raft.raft_log.committed;
        if raft.state == StateRole::Leader
            && raft.prs().get(replica).is_some_and(|follower| follower.committed_index < committed)
        {
            raft.send_append(replica);
        }
    }

    fn read_message(&self, kind: MessageType, to: u64, round: u64, index: u64) -> Message {
        let mut m = eraftpb::Message::default();
        m.set_msg_type(kind);
        (m.to, m.from, m.term, m.index) = (to, self.replica(), self.term(), index);
        m.context = Bytes::copy_from_slice(&round.to_le_bytes());
        Message(m)
    }

    /// Whether committed entries cannot be read back from the log to be applied: it goes on with a snapshot of the leader.
    pub fn is_stuck(&self) -> bool {
        self.raw.store().stuck.get() != 0
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
        let found = self.raw.raft.raft_log.slice(index, index + 1, u64::MAX, context).ok()?;
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
                is_fit: self.fit_terms.get(&replica) == Some(&self.term()),
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
        // What cannot be read stays to be applied.
        !(self.is_stuck() && self.is_waiting) && self.raw.has_ready()
    }

    /// Takes what is to be done, if anything. Its entries are readable from then on; see [`Raft::persisted`].
    pub fn take_ready(&mut self) -> Option<Ready> {
        if !self.has_ready() {
            return None;
        }
        let mut ready = self.raw.ready();
        let snapshot = (!ready.snapshot().is_empty())
            .then(|| ready.snapshot().get_metadata())
            .map(|metadata| (metadata.index, metadata.term));
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
        let (mut messages, mut persisted_messages) = (ready.take_messages(), ready.take_persisted_messages());
        for message in messages.iter_mut().chain(&mut persisted_messages) {
            message::set_fit(message, !self.is_hampered);
        }
        let out = Ready {
            number: ready.number(),
            messages: messages.into_iter().map(Message).collect(),
            snapshot,
            entries: entries.into_iter().map(from_raft).collect(),
            hard_state,
            persisted_messages: persisted_messages.into_iter().map(Message).collect(),
            committed: ready.take_committed_entries().into_iter().map(from_raft).collect(),
            reads: ready
                .take_read_states()
                .into_iter()
                .filter_map(|s| Some((u64::from_le_bytes(s.request_ctx.try_into().ok()?), s.index)))
                .collect(),
        };
        self.raw.advance_append_async(ready);
        self.is_waiting = !self.is_leader();
        if self.is_stuck() && self.is_leader() {
            // It has not applied an entry of its own term, so it has answered nobody; another one can.
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, raft::INVALID_ID);
        }
        self.set_timeout();
        Some(out)
    }

    /// All readies up to `number` are as durable as the mode asks.
    pub fn persisted(&mut self, number: u64) {
        self.raw.on_persist_ready(number);
        self.set_timeout();
    }

    /// Everything up to `index` is applied.
    pub fn applied(&mut self, index: u64) {
        if self.installing.is_some_and(|i| i <= index) {
            self.installing = None;
        }
        self.raw.advance_apply_to(index);
        // Followers are sent them; whoever has none reads them no more, or once, from disk, when it comes to lead.
        let has_followers = self.is_leader() && !self.is_singleton();
        let store = self.raw.mut_store();
        store.applied(index, if has_followers { store.cache_bytes_max } else { 0 });
    }

    /// A snapshot at `index` (applied), with these members, is on disk; the log before it is gone. Returns what was in memory of
    /// it: many entries, to be freed on another thread.
    pub fn compacted(
        &mut self,
        index: u64,
        term: u64,
        membership: Membership,
    ) -> impl std::fmt::Debug + Send + use<> {
        self.raw.mut_store().compact(index, term, membership)
    }

    /// Takes the entries that are in memory, of a replica that ends.
    pub fn take_entries(&mut self) -> impl std::fmt::Debug + Send + use<> {
        std::mem::take(&mut self.raw.mut_store().cache)
    }

    /// The snapshot on disk is of no use: none is sent until there is another one.
    pub fn snapshot_lost(&mut self) {
        self.raw.mut_store().snapshot = None;
    }

    /// Whether a snapshot is on disk, as far as is known.
    pub fn has_snapshot(&self) -> bool {
        self.raw.store().snapshot.is_some()
    }

    /// Whether [`Self::take_snapshot_wanted`] has something.
    pub fn is_snapshot_wanted(&self) -> bool {
        self.raw.store().snapshot_wanted.get()
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

/// Whether a message answers one of a leader or of a candidate.
fn is_answer(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::MsgAppendResponse
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVoteResponse
    )
}

#[cfg(test)]
pub(super) mod tests;
