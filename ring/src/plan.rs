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

impl Plan {
    /// True when the two placements are the same.
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty() && self.leader_changes.is_empty()
    }

    /// Replicas that some node has to receive: what travels over the network.
    pub fn received(&self) -> usize {
        self.moves.iter().filter(|change| change.to.is_some()).count()
    }
}

/// Computes what changes from `old` to `new`.
///
/// Within a partition the leaving and the arriving nodes are paired in order of their ids, so each pair keeps the number of
/// replicas; what is left over is added or dropped. Both placements are of one cluster and so have the same number of
/// partitions; partitions that only one of them has are left out.
pub fn plan(old: &Placement, new: &Placement) -> Plan {
    let mut plan = Plan { moves: Vec::new(), leader_changes: Vec::new() };
    for ((before, after), id) in old.partitions.iter().zip(&new.partitions).zip(0..) {
        let partition = PartitionId(id);
        let mut leaving = before.replicas.iter().filter(|node| !after.replicas.contains(node));
        let mut arriving = after.replicas.iter().filter(|node| !before.replicas.contains(node));
        loop {
            let (from, to) = (leaving.next().cloned(), arriving.next().cloned());
            if from.is_none() && to.is_none() {
                break;
            }
            plan.moves.push(Move { partition, from, to });
        }
        if before.leader != after.leader {
            plan.leader_changes.push((partition, before.leader.clone(), after.leader.clone()));
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seats;

    fn placement(partitions: &[&[&str]]) -> Placement {
        let id = |name: &str| NodeId(name.to_owned());
        let seats = |names: &&[&str]| Seats {
            replicas: names.iter().map(|name| id(name)).collect(),
            leader: id(names[0]),
        };
        Placement { partitions: partitions.iter().map(seats).collect() }
    }

    fn step(partition: u16, from: Option<&str>, to: Option<&str>) -> Move {
        let id = |name: &str| NodeId(name.to_owned());
        Move { partition: PartitionId(partition), from: from.map(id), to: to.map(id) }
    }

    #[test]
    fn pairs_what_leaves_with_what_arrives() {
        let old = placement(&[&["a", "b", "c"], &["a", "b", "c"]]);
        let new = placement(&[&["a", "b", "c"], &["b", "d", "e"]]);
        let plan = plan(&old, &new);
        assert_eq!(plan.moves, [step(1, Some("a"), Some("d")), step(1, Some("c"), Some("e"))]);
        assert_eq!(plan.leader_changes, [(PartitionId(1), NodeId("a".to_owned()), NodeId("b".to_owned()))]);
        assert_eq!(plan.received(), 2);
    }

    #[test]
    fn adds_and_drops_have_one_side_only() {
        let one = placement(&[&["a"]]);
        let three = placement(&[&["a", "b", "c"]]);
        assert_eq!(plan(&one, &three).moves, [step(0, None, Some("b")), step(0, None, Some("c"))]);
        assert_eq!(plan(&three, &one).moves, [step(0, Some("b"), None), step(0, Some("c"), None)]);
        assert_eq!(plan(&three, &one).received(), 0);
    }

    #[test]
    fn nothing_changes_between_equal_placements() {
        let same = placement(&[&["a", "b"], &["b", "c"]]);
        assert!(plan(&same, &same).is_empty());
    }
}
