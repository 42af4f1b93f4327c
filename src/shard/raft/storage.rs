//! A group's log as the crate reads it.

use super::convert::{conf_state, to_raft};
use super::{EntryReader, Membership};
use raft::eraftpb;
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

/// The log as the engine reads it: positions and terms in memory, recent entries cached, older ones on disk.
pub(super) struct GroupStorage {
    pub(super) group: u16,
    pub(super) conf: eraftpb::ConfState,
    pub(super) hard_state: eraftpb::HardState,
    pub(super) mark_index: u64,
    pub(super) mark_term: u64,
    pub(super) last_index: u64,
    pub(super) terms: Vec<(u64, u64)>,
    pub(super) cache: VecDeque<eraftpb::Entry>,
    pub(super) cache_bytes: usize,
    pub(super) cache_bytes_max: usize,
    pub(super) reader: Rc<dyn EntryReader>,
    /// Index, term and members of the snapshot on disk.
    pub(super) snapshot: Option<(u64, u64, Membership)>,
    pub(super) snapshot_wanted: Cell<bool>,
    /// The first of the entries that could not be read back from disk when a follower needed them last; 0 = none. The
    /// follower gets a snapshot that has it.
    pub(super) unreadable: Cell<u64>,
    /// The first of the committed entries that this replica must apply and cannot read back; 0 = none. It applies nothing more
    /// until it can, or has a snapshot.
    pub(super) stuck: Cell<u64>,
    /// The last entry that is applied.
    pub(super) applied: u64,
    /// Bytes of a log up to which a replica that has nothing is fed from it.
    pub(super) seed_log_bytes: u64,
}

impl GroupStorage {
    pub(super) fn append(&mut self, entries: &[eraftpb::Entry]) {
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

    /// Everything up to `applied` is. Drops the oldest applied entries from memory while it holds more than `bytes_max`.
    pub(super) fn applied(&mut self, applied: u64, bytes_max: usize) {
        self.applied = applied;
        while self.cache_bytes > bytes_max && self.cache.front().is_some_and(|e| e.index <= applied) {
            let dropped = self.cache.pop_front().expect("the loop saw an entry");
            self.cache_bytes -= dropped.data.len();
        }
    }

    /// Everything up to `index` is in a snapshot. Returns what is in memory of that: many entries, to be freed elsewhere.
    pub(super) fn compact(
        &mut self,
        index: u64,
        term: u64,
        membership: Membership,
    ) -> VecDeque<eraftpb::Entry> {
        if index < self.mark_index {
            return VecDeque::new();
        }
        let rest = self.cache.split_off(self.cache.partition_point(|e| e.index <= index));
        let dropped = std::mem::replace(&mut self.cache, rest);
        self.cache_bytes -= dropped.iter().map(|e| e.data.len()).sum::<usize>();
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
        // Whom this one does not serve asks again.
        self.snapshot_wanted.set(false);
        dropped
    }

    pub(super) fn install(&mut self, index: u64, term: u64, membership: Membership) {
        self.cache.clear();
        self.cache_bytes = 0;
        self.terms.clear();
        self.unreadable.set(0);
        self.stuck.set(0);
        (self.mark_index, self.mark_term, self.last_index) = (index, term, index);
        self.snapshot = Some((index, term, membership));
    }

    /// Whether a follower that lacks the entries from `low` on is better off with a snapshot: it has nothing, and the log is
    /// not tiny. How much it gets is then known beforehand, and sent at the rate of moves, while a log may hold much more than
    /// the state, and leaves as fast as the link takes it. Not before something is applied: a snapshot would have nothing, and
    /// the follower may be needed to commit.
    fn seeds_by_snapshot(&self, low: u64) -> bool {
        low == 1 && self.applied > 0 && self.reader.bytes(self.group) > self.seed_log_bytes
    }
}

impl GroupStorage {
    /// Entries from `low` on that are this replica's own business cannot be read. An error would make the crate panic: what it
    /// wants to have applied are none for now. Where it gives no bound it looks for changes of the members before it
    /// campaigns: one that it cannot see may be there.
    fn stop_applying(&self, low: u64, error: &str, bytes_max: Option<u64>) -> Vec<eraftpb::Entry> {
        if self.applied < low && self.stuck.replace(low) == 0 {
            let group = ringfort_wire::GroupId(self.group);
            tracing::error!(
                %group, index = low, error,
                "committed entries cannot be read back from the log: this replica applies nothing more, leads no more, and asks \
                 the leader for a snapshot"
            );
        }
        let mut unknown = eraftpb::Entry::default();
        unknown.set_entry_type(eraftpb::EntryType::EntryConfChangeV2);
        unknown.index = low;
        if bytes_max.is_none() { vec![unknown] } else { Vec::new() }
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
        // Asked for a follower: the crate turns to the snapshot.
        if context.can_async() && self.seeds_by_snapshot(low) {
            return Err(StorageError::Compacted.into());
        }
        let bytes_max = max_size.into();
        let cache_first = self.cache.front().map_or(self.last_index + 1, |e| e.index);
        let mut out = Vec::new();
        let mut bytes = 0u64;
        if low < cache_first {
            let budget = bytes_max.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX);
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
                Err(error) => return Ok(self.stop_applying(low, &error, bytes_max)),
            };
            if (low..low + read.len() as u64).contains(&self.stuck.get()) {
                self.stuck.set(0);
            }
            bytes = read.iter().map(|e| e.data.len() as u64).sum();
            out.extend(read.into_iter().map(to_raft));
        }
        let next = low + out.len() as u64;
        if next >= cache_first {
            for entry in self.cache.iter().skip((next - cache_first) as usize).take((high - next) as usize) {
                bytes += entry.data.len() as u64;
                if bytes_max.is_some_and(|bytes_max| bytes > bytes_max) && !out.is_empty() {
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
