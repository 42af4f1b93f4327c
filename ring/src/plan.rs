//! Old placement + new placement -> moves.

use crate::{NodeId, PartitionId, Placement};

/// One replica that changes node.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Move {
    /// Its partition.
    pub partition: PartitionId,
    /// The node that gives it up; `None` when a replica is added.
    pub from: Option<NodeId>,
    /// The node that takes it; `None` when a replica is dropped.
    pub to: Option<NodeId>,
}

/// What changes between two placements.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Plan {
    /// Replica moves, ordered by partition.
    pub moves: Vec<Move>,
    /// Partitions whose preferred leader changes, with the old and the new leader.
    pub leader_changes: Vec<(PartitionId, NodeId, NodeId)>,
}

/// Computes what changes from `old` to `new`.
pub fn plan(_old: &Placement, _new: &Placement) -> Plan {
    todo!()
}
