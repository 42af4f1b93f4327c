//! Internal frames (proxy <-> node, node <-> node), log entries and the cluster map: no I/O.
//!
//! All integers are little-endian. A frame on a link is
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | length of what follows (kind and body), at most [`FRAME_BYTES_MAX`] |
//! | 4 | 1 | [`Kind`] |
//! | 5 | .. | body |
//!
//! - [`frame`]: cutting frames out of a buffer, and the little reader and writer that all bodies use.
//! - [`hello`]: the handshake that opens every link, and the frames by which an empty cluster forms.
//! - [`request`]: a command for one partition and its answer.
//! - [`entry`]: what a Raft log entry of a partition holds.
//! - [`map`]: the cluster map with its epoch.
//! - [`meta`]: changes that a client asks of the meta group.
//! - [`secret`]: the peer secret and its proofs.
//! - [`settings`]: the table of the cluster's settings.

pub mod entry;
pub mod frame;
pub mod hello;
pub mod map;
pub mod meta;
pub mod request;
pub mod secret;
pub mod settings;

pub use frame::{FRAME_BYTES_MAX, Kind, WireError};
pub use map::ClusterMap;
pub use meta::{Apply, Aside, Down, Member, MetaAnswer, MetaWrite};
pub use request::{Reply, Request, RequestKind, Status};
pub use secret::PeerSecret;

/// Number of a Raft group: 0 is the meta group, partition p is group p + 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u16);

impl GroupId {
    /// The meta group.
    pub const META: Self = Self(0);

    /// The group that replicates `partition`, which is one of at most 1024: a number from outside is checked first.
    pub const fn of(partition: ringfort_ring::PartitionId) -> Self {
        Self(partition.0 + 1)
    }

    /// The partition that this group replicates; `None` for the meta group.
    pub const fn partition(self) -> Option<ringfort_ring::PartitionId> {
        match self.0 {
            0 => None,
            n => Some(ringfort_ring::PartitionId(n - 1)),
        }
    }
}

impl core::fmt::Display for GroupId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.partition() {
            None => f.write_str("meta"),
            Some(p) => write!(f, "p{}", p.0),
        }
    }
}

/// Level of the formats and of the commands' behaviour that this version writes; entries, frames and snapshots carry it.
///
/// Level 1 is that of the first release: up to then frames and fields come and go within it (`ReplyPart` and the room of a
/// disk in answers to heartbeats came so), and builds from before do not mix with later ones: a link on which an unknown
/// frame comes is dropped. From then on whoever adds one raises the level, and sends it only to a side whose `Hello` or
/// `HelloAck` names that level, and in a log entry only when the cluster map's `feature_level` does.
pub const FEATURE_LEVEL: u16 = 1;
