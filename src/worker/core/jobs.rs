//! Work for the log threads.

use super::snapshots::{Restore, RestorePlace};
use crate::log::{
    CHUNK_BYTES_MAX, Disk, LogError, RewriteJob, RewriteRead, SnapshotHeader, SnapshotJob, SnapshotWriter,
    SyncJob,
};
use crate::shard::Machine;
use crate::shard::raft::Message;

/// Work for the log thread: it may block. Its outcome goes back by [`WorkerCore::job_done`](super::WorkerCore::job_done).
#[derive(Debug)]
pub enum Job<D: Disk> {
    /// Make the log durable.
    Sync(SyncJob<D>),
    /// Read what the log copies out of an old segment.
    Rewrite(RewriteJob<D>),
    /// Write the next bytes of a snapshot of an own group.
    Write {
        /// The snapshot.
        writer: SnapshotWriter<D>,
        /// The bytes.
        bytes: Vec<u8>,
        /// Whether others wait for their snapshots, so that this one must not take longer than it needs.
        is_pressing: bool,
    },
    /// Make a snapshot of an own group durable.
    Snapshot {
        /// The snapshot.
        job: SnapshotJob<D>,
        /// The group.
        group: u16,
    },
    /// End the reading of a received snapshot, or do all of it, and make the snapshot durable.
    Received {
        /// The snapshot.
        job: SnapshotJob<D>,
        /// The Raft message that goes with it.
        message: Message,
        /// The group.
        group: u16,
        /// What reads it.
        restore: Restore,
        /// The place of a state that was read as it came: all of it is read. `None`: it is in the file only.
        place: Option<RestorePlace>,
    },
    /// Free what nobody needs any more: the state of many keys takes long.
    Free(Box<dyn std::fmt::Debug + Send>),
}

/// Outcome of a [`Job`].
#[derive(Debug)]
pub enum JobDone<D: Disk> {
    /// The log is durable up to this write.
    Synced(Result<u64, LogError>),
    /// This can be copied.
    Rewrite(Result<RewriteRead, LogError>),
    /// The next bytes of a snapshot are in its file; the buffer that they were in is empty.
    Written(Result<(SnapshotWriter<D>, Vec<u8>), LogError>),
    /// The snapshot of an own group is durable.
    Snapshot(u16, SnapshotHeader, Result<(), LogError>),
    /// A received snapshot is durable, and this is its state.
    Received(u16, SnapshotHeader, Message, anyhow::Result<Machine>),
    /// Nothing is to be done.
    Freed,
}

impl<D: Disk> Job<D> {
    /// Does the work; blocks for as long as the disk takes.
    pub fn run(self) -> JobDone<D> {
        match self {
            Self::Sync(job) => {
                let through = job.through();
                JobDone::Synced(job.run().map(|()| through))
            }
            Self::Rewrite(job) => JobDone::Rewrite(job.run()),
            Self::Write { mut writer, mut bytes, .. } => {
                let written = bytes.chunks(CHUNK_BYTES_MAX).try_for_each(|chunk| writer.chunk(chunk));
                bytes.clear();
                JobDone::Written(written.map(|()| (writer, bytes)))
            }
            Self::Snapshot { job, group } => {
                let header = job.header().clone();
                JobDone::Snapshot(group, header, job.run())
            }
            Self::Received { job, message, group, restore, place } => {
                let header = job.header().clone();
                let from_file = |restore: Restore| restore.run(job.open()?);
                let restored = if place.is_some() { restore.finish() } else { from_file(restore) };
                // One that is no whole state is dropped with its job, before it has its name.
                let machine = restored.and_then(|machine| Ok(job.run().map(|()| machine)?));
                JobDone::Received(group, header, message, machine)
            }
            Self::Free(garbage) => {
                drop(garbage);
                JobDone::Freed
            }
        }
    }
}
