//! Reads that came together and are executed together: while one is executed, the processor fetches what the others will
//! look at. A read alone waits for memory four times where keys are many, some 100 ns each: for its slot, the segment, the
//! bucket and the record.

use super::WorkerCore;
use crate::clock::Now;
use crate::log::Disk;
use crate::shard::machine::spot_of;
use crate::shard::{Group, Origin, Ports as _, Submission};
use ringfort_store::{Reach, Spot, Store};
use ringfort_wire::GroupId;
use ringfort_wire::request::Status;
use smallvec::SmallVec;
use std::ops::Range;

/// Most reads of one batch; the processor fetches about so many lines at once.
const BATCH_READS: usize = 32;
/// Most bytes of the commands of a batch, beyond which the next read begins another one.
const BATCH_BYTES: usize = 64 << 10;

/// Reads that are executed next: when there are [`BATCH_READS`] of them, or at the start of the turn.
#[derive(Debug, Default)]
pub(super) struct ReadBatch {
    reads: Vec<BatchedRead>,
    bodies: Vec<u8>,
}

impl ReadBatch {
    pub(super) fn is_empty(&self) -> bool {
        self.reads.is_empty()
    }
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
    /// Takes a read of a partition of this worker, to be executed by the next turn at the latest. `is_replicas`: a follower
    /// may answer.
    pub(super) fn queue_read(&mut self, group: GroupId, read: Submission<'_>, is_replicas: bool, now: Now) {
        let store = self.groups.get(group.0).and_then(Group::store);
        let spot = store.and_then(|store| {
            let spot = spot_of(store, read.body)?;
            store.prefetch(spot, Reach::Slot);
            Some(spot)
        });
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
        if self.batch.is_empty() {
            return;
        }
        let mut batch = std::mem::take(&mut self.batch);
        // One that is alone would only wait for itself.
        if batch.reads.len() > 1 {
            let of_store = |read: &BatchedRead| Some((self.groups.get(read.group.0)?.store()?, read.spot?));
            let spots: SmallVec<[(&Store, Spot); BATCH_READS]> =
                batch.reads.iter().filter_map(of_store).collect();
            for reach in Reach::AFTER_SLOT {
                spots.iter().for_each(|(store, spot)| store.prefetch(*spot, reach));
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

    /// Answers the reads that were executed before `after`.
    pub(super) fn finish_reads(&mut self, after: Now) {
        let mut executed = std::mem::take(&mut self.executed);
        executed.drain(|id, read, bytes| match self.groups.get_mut(id.0) {
            Some(group) => {
                let age_us = group.finish_read(read, bytes, after, &mut self.ports);
                if let Some(age_us) = age_us {
                    self.status.follower_reads.record(age_us);
                }
                if group.has_reads_to_serve(after) {
                    self.touch(id.0);
                }
            }
            // It has ended since.
            None => self.ports.reply(read.origin(), Status::NotHere(self.shared.epoch())),
        });
        self.executed = executed;
    }
}
