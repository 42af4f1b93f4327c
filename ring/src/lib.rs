//! Slots, the hash ring, exact placement and the plan of moves: pure functions, no I/O.
//!
//! Reading order: [`slot`], [`ring`], [`placement`] and its solver `flow`, [`mod@plan`].
//! key -> [`slot`] -> [`PartitionId`] never changes; only partition -> nodes does ([`placement`]).

mod flow;
pub mod placement;
pub mod plan;
pub mod ring;
pub mod slot;

pub use placement::{NodeSpec, PlaceError, Placement, Seats, minimum_moves, place, shares};
pub use plan::{Move, Plan, plan};
pub use ring::{HashRing, WEIGHT_MAX};
pub use slot::{PartitionCount, PartitionCountError, PartitionId, SLOTS, Slot, slot_of};

/// Name of a node as the config file gives it; never reused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub String);

impl core::fmt::Display for NodeId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}
