//! What a run did, in numbers.

use crate::options::SECOND;

/// What a run did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) hash: u64,
    pub(crate) events: u64,
    pub(crate) virtual_us: u64,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) unknown: u64,
    pub(crate) elections: u64,
    pub(crate) faults: u64,
    pub(crate) snapshots: u64,
    pub(crate) restarts: u64,
    pub(crate) wipes: u64,
    /// Machines that crashed in `buffered`.
    pub(crate) suspects: u64,
    /// Damaged logs or snapshots that a start has refused.
    pub(crate) damages: u64,
    /// Packets that were read after their connection had broken.
    pub(crate) late: u64,
    /// Keys evicted by the last processes.
    pub(crate) evicted: u64,
    /// Writes refused for want of memory.
    pub(crate) refused: u64,
}

impl Report {
    /// Adds another run.
    pub(crate) fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.virtual_us += other.virtual_us;
        self.done += other.done;
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.elections += other.elections;
        self.faults += other.faults;
        self.snapshots += other.snapshots;
        self.restarts += other.restarts;
        self.wipes += other.wipes;
        self.suspects += other.suspects;
        self.damages += other.damages;
        self.late += other.late;
        self.evicted += other.evicted;
        self.refused += other.refused;
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} events in {} virtual s; {} operations done, {} failed, {} unknown; {} faults, {} restarts, {} data \
             folders lost, {} damaged, {} packets late, {} elections, {} snapshots sent, {} keys evicted by the last processes, {} writes refused for \
             want of memory",
            self.events,
            self.virtual_us / SECOND,
            self.done,
            self.failed,
            self.unknown,
            self.faults,
            self.restarts,
            self.wipes,
            self.damages,
            self.late,
            self.elections,
            self.snapshots,
            self.evicted,
            self.refused
        )
    }
}
