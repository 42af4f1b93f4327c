//! The virtual-node hash ring: partition -> order of preference over the nodes.

use crate::{NodeSpec, PartitionCount, PartitionId};

/// The 64-bit circle with `weight x 64` preference tokens (xxh3) of each node.
#[derive(Debug, Clone)]
pub struct HashRing {}

impl HashRing {
    /// Places the tokens of `nodes`.
    pub fn new(_nodes: &[NodeSpec]) -> Self {
        todo!()
    }

    /// Indices into `nodes`, most preferred first: clockwise from the partition's position (p x 2^64 / P), each node once.
    pub fn preference(&self, _partitions: PartitionCount, _partition: PartitionId) -> Vec<usize> {
        todo!()
    }
}
