//! Key -> slot -> partition.

/// Number of slots, as in Redis Cluster.
pub const SLOTS: u16 = 16384;

/// A hash slot, `0..SLOTS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u16);

/// A partition: one of P equal, contiguous ranges of slots; one virtual node of the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct PartitionId(pub u16);

/// P, the number of partitions: a power of two from 16 to 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct PartitionCount(u16);

impl PartitionCount {
    /// Checks `count`; `None` when it is not a power of two from 16 to 1024.
    pub const fn new(count: u16) -> Option<Self> {
        if count.is_power_of_two() && count >= 16 && count <= 1024 { Some(Self(count)) } else { None }
    }

    /// The number itself.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The partition that holds `slot`.
    pub const fn of(self, slot: Slot) -> PartitionId {
        PartitionId(slot.0 / (SLOTS / self.0))
    }

    /// First and last slot of a partition.
    pub const fn slots(self, partition: PartitionId) -> (Slot, Slot) {
        let width = SLOTS / self.0;
        (Slot(partition.0 * width), Slot(partition.0 * width + (width - 1)))
    }

    /// All partitions in order.
    pub fn iter(self) -> impl Iterator<Item = PartitionId> {
        (0..self.0).map(PartitionId)
    }
}

/// CRC16/XMODEM of `bytes`.
pub fn crc16(_bytes: &[u8]) -> u16 {
    todo!()
}

/// The slot of a key: CRC16 of the key, or of its hash tag (the bytes between the first `{` and the next `}`, when
/// there are any), mod 16384, as in Redis Cluster.
pub fn slot_of(_key: &[u8]) -> Slot {
    todo!()
}
