//! Reads that came together and are executed together: while one is executed, the processor fetches what the others will
//! look at. A read alone waits for memory twice, for the bucket and for the record (~100 ns each when the keys are many).

use super::WorkerCore;
use crate::clock::Now;
use crate::log::Disk;
use crate::shard::machine::prefetch_bucket;
use crate::shard::{Group, Origin, Submission};
use ringfort_store::Spot;
use ringfort_wire::GroupId;
use std::ops::Range;

/// Most reads of one batch; the processor fetches about so many lines at once.
const BATCH_READS: usize = 16;
/// Most bytes of the commands of a batch, beyond which the next read begins another one.
const BATCH_BYTES: usize = 64 << 10;

/// Reads that are executed next. Whatever queues reads executes them before it returns, so it is empty between two calls.
#[derive(Debug, Default)]
pub(super) struct ReadBatch {
    reads: Vec<BatchedRead>,
    bodies: Vec<u8>,
}

#[derive(Debug)]
struct BatchedRead {
    group: GroupId,
    origin: Origin,
    session: u64,
    seq: u64,
    is_after_queued: bool,
    is_replicas: bool,
    body: Range<usize>,
    spot: Option<Spot>,
}

impl<D: Disk> WorkerCore<D> {
    /// Takes a read of a partition of this worker, to be executed by [`Self::execute_reads`] at the latest. `is_replicas`: a
    /// follower may answer.
    pub(super) fn queue_read(&mut self, group: GroupId, read: Submission<'_>, is_replicas: bool, now: Now) {
        let store = self.groups.get(group.0).and_then(Group::store);
        let spot = store.and_then(|store| prefetch_bucket(store, read.body));
        let start = self.batch.bodies.len();
        self.batch.bodies.extend_from_slice(read.body);
        self.batch.reads.push(BatchedRead {
            group,
            origin: read.origin,
            session: read.session,
            seq: read.seq,
            is_after_queued: read.is_after_queued,
            is_replicas,
            body: start..self.batch.bodies.len(),
            spot,
        });
        if self.batch.reads.len() >= BATCH_READS || self.batch.bodies.len() >= BATCH_BYTES {
            self.execute_reads(now);
        }
    }

    /// Executes the reads that are queued, in their order.
    pub(super) fn execute_reads(&mut self, now: Now) {
        let mut batch = std::mem::take(&mut self.batch);
        for read in &batch.reads {
            if let Some(spot) = read.spot
                && let Some(store) = self.groups.get(read.group.0).and_then(Group::store)
            {
                store.prefetch_record(spot);
            }
        }
        for read in batch.reads.drain(..) {
            let submission = Submission {
                origin: read.origin,
                session: read.session,
                seq: read.seq,
                acked: 0,
                is_after_queued: read.is_after_queued,
                body: &batch.bodies[read.body],
            };
            self.submit_read(read.group, submission, read.is_replicas, now);
        }
        batch.bodies.clear();
        batch.bodies.shrink_to(BATCH_BYTES);
        self.batch = batch;
    }
}
