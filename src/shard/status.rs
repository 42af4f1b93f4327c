//! What a replica tells people and tools of itself and its group.

use super::Group;
use super::membership::Membership;
use super::raft::Follower;
use ringfort_ring::NodeId;
use ringfort_store::MemoryLimit;
use ringfort_wire::GroupId;

/// Facts about a group for people and tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group.
    pub id: GroupId,
    /// This replica's id.
    pub replica: u64,
    /// Whether this replica leads.
    pub is_leader: bool,
    /// The leader it knows.
    pub leader: Option<NodeId>,
    /// Current term.
    pub term: u64,
    /// Last committed entry.
    pub commit: u64,
    /// Last applied entry.
    pub applied: u64,
    /// Last entry.
    pub last: u64,
    /// Keys held.
    pub keys: u64,
    /// Keys held that expire.
    pub expires: u64,
    /// Logical bytes held.
    pub bytes: u64,
    /// How much it may hold, and what happens beyond.
    pub limit: MemoryLimit,
    /// Keys that this replica evicted while it led.
    pub evicted_keys: u64,
    /// What a leader knows of its followers; empty elsewhere.
    pub followers: Vec<FollowerStatus>,
    /// What it did since its start, and what waits in it.
    pub activity: Activity,
    /// Who takes part, as far as this replica has applied it.
    pub membership: Membership,
}

/// Counts of a group since its start, and what waits in it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Activity {
    /// Times that this replica became the leader.
    pub elections_won: u64,
    /// Times that the leader it knows changed to another one.
    pub leader_changes: u64,
    /// Reads answered under the lease.
    pub lease_reads: u64,
    /// Reads answered after a round to a quorum.
    pub round_reads: u64,
    /// Rounds issued on behalf of reads: by the leader to a quorum, by a follower to the leader.
    pub read_rounds: u64,
    /// Reads that this replica answered as a follower.
    pub follower_reads: u64,
    /// Greatest age at which it answered one at once, µs.
    pub follower_age_us_max: u64,
    /// Bytes of writes that wait to be proposed.
    pub queued_bytes: u64,
    /// Entries proposed and not applied.
    pub inflight_entries: u64,
    /// Reads that wait.
    pub waiting_reads: u64,
}

/// A follower as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowerStatus {
    /// Its node.
    pub node: NodeId,
    /// Entries that it is not known to hold.
    pub behind: u64,
    /// Whether it could take the leadership: see [`Group::transfer`].
    pub in_sync: bool,
}

impl Group {
    /// Facts for people and tools.
    pub fn status(&self) -> GroupStatus {
        let store = self.store();
        GroupStatus {
            id: self.id,
            replica: self.raft.replica(),
            is_leader: self.raft.is_leader(),
            leader: self.leader().cloned(),
            term: self.raft.term(),
            commit: self.raft.commit_index(),
            applied: self.raft.applied_index(),
            last: self.raft.last_index(),
            keys: store.map_or(0, |s| s.len() as u64),
            expires: store.map_or(0, |s| s.expires_len() as u64),
            bytes: store.map_or(0, |s| s.logical_bytes()),
            limit: store.map(|s| *s.limit()).unwrap_or_default(),
            evicted_keys: self.memory.evicted_keys,
            followers: self.follower_statuses(),
            membership: self.raft.membership().clone(),
            activity: Activity {
                queued_bytes: self.queue_bytes as u64,
                inflight_entries: self.inflight.len() as u64,
                waiting_reads: self.reads.waiting_len() as u64,
                ..self.activity
            },
        }
    }

    fn follower_statuses(&self) -> Vec<FollowerStatus> {
        if !self.raft.is_leader() {
            return Vec::new();
        }
        let last = self.raft.last_index();
        let status = |f: &Follower| {
            Some(FollowerStatus {
                node: self.node_of(f.replica)?.clone(),
                behind: last.saturating_sub(f.match_index),
                in_sync: self.could_lead(f),
            })
        };
        self.raft.followers().iter().filter_map(status).collect()
    }
}
