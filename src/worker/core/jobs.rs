//! Work for the log threads.

use crate::log::{Disk, LogError, SnapshotHeader, SnapshotJob, SyncJob};
use crate::shard::raft::Message;

/// Work for the log thread: it may block. Its outcome goes back by [`WorkerCore::job_done`](super::WorkerCore::job_done).
#[derive(Debug)]
pub enum Job<D: Disk> {
    /// Make the log durable.
    Sync(SyncJob<D>),
    /// Make a snapshot of an own group durable.
    Snapshot {
        /// The snapshot.
        job: SnapshotJob<D>,
        /// The group.
        group: u16,
    },
    /// Make a received snapshot durable.
    Received {
        /// The snapshot.
        job: SnapshotJob<D>,
        /// The Raft message that goes with it.
        message: Message,
        /// The group.
        group: u16,
    },
}

/// Outcome of a [`Job`].
#[derive(Debug)]
pub enum JobDone {
    /// The log is durable up to this write.
    Synced(Result<u64, LogError>),
    /// The snapshot of an own group is durable.
    Snapshot(u16, SnapshotHeader, Result<(), LogError>),
    /// A received snapshot is durable.
    Received(u16, SnapshotHeader, Message, Result<(), LogError>),
}

impl<D: Disk> Job<D> {
    /// Does the work; blocks for as long as the disk takes.
    pub fn run(self) -> JobDone {
        match self {
            Self::Sync(job) => {
                let through = job.through();
                JobDone::Synced(job.run().map(|()| through))
            }
            Self::Snapshot { job, group } => {
                let header = job.header().clone();
                JobDone::Snapshot(group, header, job.run())
            }
            Self::Received { job, message, group } => {
                let header = job.header().clone();
                JobDone::Received(group, header, message, job.run())
            }
        }
    }
}
