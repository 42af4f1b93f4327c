//! What can go wrong, and what to do then.

use std::io;

/// Why the log, or a snapshot file, cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk is full. Nothing of this write is in the log; what was staged still is, so that the write can
    /// be tried again.
    #[error("no space left to write {file}")]
    Full {
        /// The file that was written.
        file: String,
    },
    /// The system reported an error.
    #[error("cannot {action} {file}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file it was tried on.
        file: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what was written to it; the node must stop.
    #[error(
        "{file} is damaged at byte {offset}: {what}; the data of this node cannot be trusted, so it must not run; the \
         other nodes go on without it - `ringfort node --rebuild` sets the folder aside and has the node seeded from them"
    )]
    Damaged {
        /// The file.
        file: String,
        /// Where the damage begins.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A later release wrote this file; start that release.
    #[error("{file} was written by a later release of ringfort (byte {offset} is unknown to this one)")]
    Version {
        /// The file.
        file: String,
        /// Where the unknown part begins.
        offset: u64,
    },
    /// An earlier sync, or the repair after a failed write, has failed: what is on disk is unknown, and this
    /// log accepts nothing more.
    #[error("the log has failed earlier and accepts nothing more; the node must be restarted")]
    Failed,
    /// The entry is before the mark: only the snapshot has it.
    #[error("entry {index} of group {group} is compacted, the log starts after {mark}")]
    Compacted {
        /// The group.
        group: u16,
        /// The index asked for.
        index: u64,
        /// The index of the mark.
        mark: u64,
    },
    /// An entry cannot be read back, or is not what was written, so that it cannot be moved: a snapshot can take its place.
    #[error("entry {index} of group {group} cannot be read back from the log")]
    Unreadable {
        /// The group.
        group: u16,
        /// The index of the entry.
        index: u64,
        /// Why.
        #[source]
        source: Box<Self>,
    },
    /// The entry does not exist yet, or would leave a gap.
    #[error("entry {index} of group {group} is beyond the last one, {last}")]
    Beyond {
        /// The group.
        group: u16,
        /// The index asked for.
        index: u64,
        /// The index of the last entry.
        last: u64,
    },
    /// A snapshot that another node sends is not whole: drop it and ask for it again.
    #[error("the received snapshot is damaged at or after byte {offset}: {what}")]
    Received {
        /// Bytes that were still right.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// More bytes than a record, a write or a chunk may have.
    #[error("{bytes} bytes are more than the allowed {max}")]
    TooLarge {
        /// Bytes given.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
}

impl LogError {
    /// Whether a sync has failed: what the system shows of the file may be on no disk.
    #[must_use]
    pub fn is_failed_sync(&self) -> bool {
        matches!(self, Self::Io { action: "sync" | "sync the folder of", .. })
    }

    pub(super) fn io(action: &'static str, file: impl Into<String>, source: io::Error) -> Self {
        let file = file.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { file },
            _ => Self::Io { action, file, source },
        }
    }
}
