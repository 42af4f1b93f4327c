//! Bounds of what a replica has under way. Replicas need not agree on them: none reaches replicated state.
//!
//! A process runs with the defaults; the simulator draws others from its seed, so that what is rare at these sizes (a full
//! queue, a log that memory no longer holds, a snapshot of many pieces) happens all the time.

use super::raft;

/// The bounds of one replica, and of the links of its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most entries that a leader has proposed and not yet seen committed.
    pub inflight_entries: usize,
    /// Size at which a queue of writes is cut into entries; one write alone may be larger.
    pub entry_bytes: usize,
    /// Most bytes of writes that wait to be proposed; beyond, a write is answered `Busy`.
    pub queue_bytes: usize,
    /// Most entries that a follower may lack to be given the leadership.
    pub behind: u64,
    /// Ticks for which a replica leads before it gives leadership back to the preferred one.
    pub return_ticks: u64,
    /// Most append messages on their way to one follower.
    pub inflight_messages: usize,
    /// Most bytes of entries in one append message; one entry alone may be larger.
    pub message_bytes: u64,
    /// Most bytes of committed entries that one round applies.
    pub committed_bytes: u64,
    /// Bytes of recent entries that are kept in memory.
    pub cache_bytes: usize,
    /// Bytes of a log up to which a replica that has nothing is fed from it; from a larger one it gets a snapshot.
    pub seed_log_bytes: u64,
    /// Bytes of a snapshot that are read in one turn.
    pub snapshot_step_bytes: usize,
    /// Most received snapshots of a worker that are read into a state as they come; others wait in their files until they are
    /// whole, and are read one after the other.
    pub restores_at_once: usize,
    /// Unsent small replies of a proxy's link at which its further reads wait, and it is not read.
    pub reply_room_bytes: usize,
    /// Size from which on a reply is large: of those to reads one at a time is on its way on a link.
    pub large_reply_bytes: usize,
    /// Most parts of large replies on a link that the proxy has not said to have taken: what a small reply finds before it.
    pub parts_ahead: usize,
}

impl Limits {
    /// Those of a process.
    pub const USUAL: Self = Self {
        inflight_entries: super::INFLIGHT_MAX,
        entry_bytes: super::ENTRY_BYTES,
        queue_bytes: super::QUEUE_BYTES_MAX,
        behind: super::BEHIND_MAX,
        return_ticks: super::RETURN_TICKS,
        inflight_messages: raft::INFLIGHT_MESSAGES_MAX,
        message_bytes: raft::MESSAGE_BYTES_MAX,
        committed_bytes: raft::COMMITTED_BYTES_MAX,
        cache_bytes: raft::CACHE_BYTES_MAX,
        seed_log_bytes: raft::SEED_LOG_BYTES_MAX,
        snapshot_step_bytes: 64 << 10,
        restores_at_once: 4,
        reply_room_bytes: 8 << 20,
        large_reply_bytes: 64 << 10,
        parts_ahead: 3,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::USUAL
    }
}
