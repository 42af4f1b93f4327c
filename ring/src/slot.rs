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
#[serde(try_from = "u16", into = "u16")]
pub struct PartitionCount(u16);

/// A number of partitions that is not a power of two from 16 to 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} partitions are not possible: the number is a power of two from 16 to 1024")]
pub struct PartitionCountError(pub u16);

impl TryFrom<u16> for PartitionCount {
    type Error = PartitionCountError;

    fn try_from(count: u16) -> Result<Self, Self::Error> {
        Self::new(count).ok_or(PartitionCountError(count))
    }
}

impl From<PartitionCount> for u16 {
    fn from(count: PartitionCount) -> Self {
        count.get()
    }
}

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

    /// First and last slot of a partition; `partition` must be below the count.
    pub const fn slots(self, partition: PartitionId) -> (Slot, Slot) {
        let width = SLOTS / self.0;
        (Slot(partition.0 * width), Slot(partition.0 * width + (width - 1)))
    }

    /// All partitions in order.
    pub fn iter(self) -> impl Iterator<Item = PartitionId> {
        (0..self.0).map(PartitionId)
    }
}

/// Polynomial of CRC16/XMODEM: x^16 + x^12 + x^5 + 1, most significant bit first, initial value 0, no final xor.
const POLYNOMIAL: u16 = 0x1021;

/// Bytes that [`crc16`] takes at a time.
const SLICE: usize = 8;

/// `TABLES[k][b]`: CRC of byte `b` followed by `k` zero bytes.
static TABLES: [[u16; 256]; SLICE] = tables();

const fn tables() -> [[u16; 256]; SLICE] {
    let mut tables = [[0; 256]; SLICE];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ POLYNOMIAL };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < SLICE {
        let mut byte = 0;
        while byte < 256 {
            let shorter = tables[zeros - 1][byte];
            tables[zeros][byte] = (shorter << 8) ^ tables[0][(shorter >> 8) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
}

/// CRC16/XMODEM of `bytes`.
///
/// Eight bytes at a time ("slicing by 8", Kounavis and Berry 2005): the eight table reads do not wait for one
/// another, so a 32-byte key costs about a third of the bytewise loop that Redis uses. CRC is linear, so the running value
/// is simply xored onto the first two bytes of the slice.
pub fn crc16(bytes: &[u8]) -> u16 {
    let (slices, rest) = bytes.as_chunks::<SLICE>();
    let mut crc = 0_u16;
    for slice in slices {
        let [high, low] = crc.to_be_bytes();
        crc = TABLES[7][usize::from(slice[0] ^ high)]
            ^ TABLES[6][usize::from(slice[1] ^ low)]
            ^ TABLES[5][usize::from(slice[2])]
            ^ TABLES[4][usize::from(slice[3])]
            ^ TABLES[3][usize::from(slice[4])]
            ^ TABLES[2][usize::from(slice[5])]
            ^ TABLES[1][usize::from(slice[6])]
            ^ TABLES[0][usize::from(slice[7])];
    }
    for byte in rest {
        let [high, low] = crc.to_be_bytes();
        crc = TABLES[0][usize::from(high ^ byte)] ^ (u16::from(low) << 8);
    }
    crc
}

/// The slot of a key: CRC16 of the key, or of its hash tag (the bytes between the first `{` and the next `}`, when
/// there are any), mod 16384, as in Redis Cluster.
pub fn slot_of(key: &[u8]) -> Slot {
    Slot(crc16(hash_tag(key).unwrap_or(key)) % SLOTS)
}

/// Length up to which [`hash_tag`] looks for `{` by itself: a search that is made for long texts takes longer to begin.
const SHORT_KEY_BYTES: usize = 64;

/// Whether the byte occurs, eight at a time.
fn has_byte(bytes: &[u8], byte: u8) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let (words, rest) = bytes.as_chunks::<8>();
    // A byte that differs from none is 0, and only below one the subtraction borrows.
    let is_in = |word: &[u8; 8]| {
        let differing = u64::from_ne_bytes(*word) ^ (ONES * u64::from(byte));
        differing.wrapping_sub(ONES) & !differing & (ONES << 7) != 0
    };
    words.iter().any(is_in) || rest.contains(&byte)
}

/// The bytes between the first `{` and the next `}`; `None` when either is missing or nothing is between them.
fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    if key.len() <= SHORT_KEY_BYTES && !has_byte(key, b'{') {
        return None;
    }
    let open = memchr::memchr(b'{', key)?;
    let after = &key[open + 1..];
    let close = memchr::memchr(b'}', after)?;
    (close > 0).then(|| &after[..close])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The loop of Redis' `crc16.c`, bit by bit: the outside witness of the sliced tables.
    fn crc16_bitwise(bytes: &[u8]) -> u16 {
        bytes.iter().fold(0, |crc, byte| {
            (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ POLYNOMIAL }
            })
        })
    }

    #[test]
    fn crc16_matches_the_check_value_of_xmodem() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(crc16(b""), 0);
    }

    proptest! {
        #[test]
        fn crc16_equals_the_bitwise_definition(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(crc16(&bytes), crc16_bitwise(&bytes));
        }
    }

    proptest! {
        #[test]
        fn a_byte_is_found_wherever_it_is(bytes in proptest::collection::vec(any::<u8>(), 0..40), byte: u8) {
            prop_assert_eq!(has_byte(&bytes, byte), bytes.contains(&byte));
            for wanted in &bytes {
                prop_assert!(has_byte(&bytes, *wanted));
            }
        }
    }

    /// `CLUSTER KEYSLOT` of redis-server 7.0.15.
    const KEYSLOTS: &[(&[u8], u16)] = &[
        (b"", 0),
        (b"a", 15495),
        (b"foo", 12182),
        (b"bar", 5061),
        (b"hello", 866),
        (b"123456789", 12739),
        (b"somekey", 11058),
        (b"user:1000", 1649),
        (b"{user1000}.following", 3443),
        (b"{user1000}.followers", 3443),
        (b"foo{}{bar}", 8363),
        (b"foo{{bar}}zap", 4015),
        (b"foo{bar}{zap}", 5061),
        (b"{}", 15257),
        (b"{", 4092),
        (b"}", 12090),
        (b"}{", 12793),
        (b"}{a}", 15495),
        (b"{a", 10276),
        (b"a}", 5921),
        (b"a{b}c", 3300),
        (b"{a}b{c}", 15495),
        (b"{ab}{", 13567),
        (b"foo{bar", 15278),
        (b"key:000000000001", 8924),
        (b"12345678", 4117),
        (b"0123456789abcdef", 10405),
        (b"0123456789abcdef0", 12149),
        (b"\x00", 0),
        (b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8\xf7", 7280),
        (b"\x0d\x0a", 5910),
        (&[b'x'; 100], 2134),
        (b"{yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy}:1", 5426),
    ];

    #[test]
    fn slots_equal_those_of_redis() {
        for (key, slot) in KEYSLOTS {
            assert_eq!(slot_of(key), Slot(*slot), "key {:?}", key.escape_ascii().to_string());
        }
    }

    #[test]
    fn partitions_cover_the_slots_once_and_in_order() {
        for count in [16, 32, 64, 128, 256, 512, 1024] {
            let partitions = PartitionCount::new(count).expect("a power of two from 16 to 1024");
            let mut next = 0;
            for partition in partitions.iter() {
                let (first, last) = partitions.slots(partition);
                assert_eq!(first.0, next);
                assert_eq!(partitions.of(first), partition);
                assert_eq!(partitions.of(last), partition);
                next = last.0 + 1;
            }
            assert_eq!(next, SLOTS);
        }
    }

    #[test]
    fn refuses_partition_counts_that_are_no_power_of_two_in_range() {
        for count in [0, 1, 8, 15, 17, 48, 1000, 2048, u16::MAX] {
            assert_eq!(PartitionCount::new(count), None, "{count}");
            assert_eq!(PartitionCount::try_from(count), Err(PartitionCountError(count)));
        }
    }
}
