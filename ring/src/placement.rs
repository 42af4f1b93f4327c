//! Exact, stateful placement with the fewest moves.

use crate::{NodeId, PartitionCount};

/// A node as the placement sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its id.
    pub id: NodeId,
    /// Its share of replicas and leaders, relative to the others; 0 = drained, holds nothing.
    pub weight: u32,
    /// Its failure domain.
    pub zone: String,
}

/// The nodes of one partition.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Seats {
    /// The nodes that hold a replica, distinct, ordered by id.
    pub replicas: Vec<NodeId>,
    /// The one of them that leads when it can.
    pub leader: NodeId,
}

/// Partition -> its nodes; index = partition id.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Placement {
    /// One entry a partition.
    pub partitions: Vec<Seats>,
}

/// Why no placement exists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// No node has a weight above zero.
    #[error("no node has a weight above zero: give at least one node weight 1")]
    NoNodes,
    /// Two nodes share an id.
    #[error("node id '{0}' is used twice: ids are unique")]
    DuplicateNode(NodeId),
    /// The previous placement is of another number of partitions.
    #[error("the previous placement has {previous} partitions, not {partitions}: the number never changes")]
    PartitionsDiffer {
        /// Partitions of the previous placement.
        previous: usize,
        /// Partitions asked for.
        partitions: u16,
    },
}

/// Computes the placement of `partitions` on `nodes` with `replicas` replicas each (fewer when there are fewer nodes).
pub fn place(
    _previous: Option<&Placement>,
    _nodes: &[NodeSpec],
    _partitions: PartitionCount,
    _replicas: u16,
) -> Result<Placement, PlaceError> {
    todo!()
}
