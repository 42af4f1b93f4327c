//! `maxmemory` of one partition: the limit, and how each record's use is remembered.

use core::cell::Cell;

/// Highest value of `maxmemory-samples` that has an effect.
pub(crate) const SAMPLES_MAX: u32 = 64;

/// Set in the mark of a record that eviction has not judged yet.
const NEW: u32 = 1 << 31;
/// The count of uses since eviction looked last, in a mark: its unit, and its highest value.
const USE: u32 = 1 << 29;
pub(crate) const USES_MAX: u32 = 3;
/// What is left of a mark for the time of the last use.
const TIME: u32 = USE - 1;
/// The count of uses of a new record under an LFU policy, so that it is not the first to go.
const LFU_NEW: u32 = 5;
/// The highest count of uses.
pub(crate) const LFU_MAX: u32 = 255;
const MINUTE_MS: u64 = 60_000;

/// What becomes of a partition that is full: Redis's `maxmemory-policy`. The numbers are part of the log format.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Policy {
    /// Commands that may need memory are refused.
    #[default]
    NoEviction = 0,
    /// The key used longest ago goes.
    AllKeysLru = 1,
    /// The key used least often goes.
    AllKeysLfu = 2,
    /// Any key goes.
    AllKeysRandom = 3,
    /// Of the keys that expire, the one used longest ago goes.
    VolatileLru = 4,
    /// Of the keys that expire, the one used least often goes.
    VolatileLfu = 5,
    /// Any key that expires goes.
    VolatileRandom = 6,
    /// The key that expires first goes.
    VolatileTtl = 7,
}

impl Policy {
    /// Every policy under its name, in Redis's order.
    pub const ALL: [(&'static str, Self); 8] = [
        ("volatile-lru", Self::VolatileLru),
        ("volatile-lfu", Self::VolatileLfu),
        ("volatile-random", Self::VolatileRandom),
        ("volatile-ttl", Self::VolatileTtl),
        ("allkeys-lru", Self::AllKeysLru),
        ("allkeys-lfu", Self::AllKeysLfu),
        ("allkeys-random", Self::AllKeysRandom),
        ("noeviction", Self::NoEviction),
    ];

    /// The policy of a name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, policy)| *policy)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, policy)| *policy == self).map_or("", |(name, _)| name)
    }

    /// Whether keys are removed to make room.
    pub fn evicts(self) -> bool {
        self != Self::NoEviction
    }

    /// Whether only keys that expire may go.
    pub fn is_volatile(self) -> bool {
        matches!(self, Self::VolatileLru | Self::VolatileLfu | Self::VolatileRandom | Self::VolatileTtl)
    }

    /// Whether uses are counted in place of remembering the last one.
    pub fn is_lfu(self) -> bool {
        matches!(self, Self::AllKeysLfu | Self::VolatileLfu)
    }
}

/// How much a partition may hold and what happens beyond: replicated state, so that every replica judges a command alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimit {
    /// Most logical bytes; 0 = no limit.
    pub quota_bytes: u64,
    /// What happens beyond.
    pub policy: Policy,
    /// How many records are looked at for one victim at most: 16 times as many; above 64 it has no effect.
    pub samples: u32,
    /// How much slower a count of uses grows the higher it is.
    pub lfu_log_factor: u32,
    /// Minutes after which a count of uses falls by one; 0 = never.
    pub lfu_decay_min: u32,
}

impl Default for MemoryLimit {
    /// No limit, and Redis's values for the rest.
    fn default() -> Self {
        Self { quota_bytes: 0, policy: Policy::NoEviction, samples: 5, lfu_log_factor: 10, lfu_decay_min: 1 }
    }
}

impl MemoryLimit {
    /// Whether eviction judges a new record by its uses, with this expiry.
    pub(crate) fn judges(&self, expires_at_ms: Option<u64>) -> bool {
        self.quota_bytes != 0
            && match self.policy {
                Policy::AllKeysLru | Policy::AllKeysLfu => true,
                Policy::VolatileLru | Policy::VolatileLfu => expires_at_ms.is_some(),
                Policy::NoEviction | Policy::AllKeysRandom | Policy::VolatileRandom | Policy::VolatileTtl => {
                    false
                }
            }
    }

    /// Length of its encoding.
    pub const BYTES: usize = 21;

    /// Its encoding, little endian: quota (8), policy (1), samples (4), LFU log factor (4), LFU decay time (4).
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.quota_bytes.to_le_bytes());
        bytes[8] = self.policy as u8;
        bytes[9..13].copy_from_slice(&self.samples.to_le_bytes());
        bytes[13..17].copy_from_slice(&self.lfu_log_factor.to_le_bytes());
        bytes[17..].copy_from_slice(&self.lfu_decay_min.to_le_bytes());
        bytes
    }

    /// Reads it; `None` when it is malformed.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Some(Self {
            quota_bytes: u64::from(word(0)) | u64::from(word(4)) << 32,
            policy: Policy::ALL.iter().find(|(_, p)| *p as u8 == bytes[8]).map(|(_, policy)| *policy)?,
            samples: word(9),
            lfu_log_factor: word(13),
            lfu_decay_min: word(17),
        })
    }
}

/// How the use of records is remembered: 32 bits in each, which belong to this replica alone. They never reach a reply to
/// a write, a digest or a snapshot.
///
/// | bits | under an LFU policy | else |
/// | --- | --- | --- |
/// | 31 | eviction has not judged the record yet | the same |
/// | 29, 30 | uses since eviction looked last, up to 3 | the same |
/// | 24 to 28 | unused | time of the last use, seconds (29 bits, they wrap in 17 years) |
/// | 8 to 23 | minutes of the last use (they wrap), as in Redis | |
/// | 0 to 7 | logarithmic count of uses, as in Redis | |
#[derive(Debug, Default)]
pub(crate) struct Usage {
    pub(crate) limit: MemoryLimit,
    /// Time of the entry that is being applied.
    pub(crate) log_time_ms: u64,
    random: Cell<u64>,
}

impl Usage {
    /// The mark of a new record; `is_new`: eviction is to judge it.
    pub(crate) fn new_mark(&self, is_new: bool) -> u32 {
        let time = if self.limit.policy.is_lfu() {
            lfu(self.log_time_ms, LFU_NEW)
        } else {
            used_at(self.log_time_ms)
        };
        time | if is_new { NEW } else { 0 }
    }

    /// The mark of a record with the mark `old` after one more use.
    pub(crate) fn used_mark(&self, old: u32, now_ms: u64) -> u32 {
        let uses = (uses(old) + 1).min(USES_MAX) * USE;
        (old & NEW) | uses | self.used_time(old, now_ms)
    }

    fn used_time(&self, old: u32, now_ms: u64) -> u32 {
        if !self.limit.policy.is_lfu() {
            return used_at(now_ms);
        }
        let count = self.lfu_count(old, now_ms);
        let mut random = self.random.get();
        let draw = next_random(&mut random);
        self.random.set(random);
        // One use in (count above new) x factor + 1 counts.
        let odds = u64::from(count.saturating_sub(LFU_NEW)) * u64::from(self.limit.lfu_log_factor) + 1;
        let is_counted = count < LFU_MAX && draw.is_multiple_of(odds);
        lfu(now_ms, count + u32::from(is_counted))
    }

    /// The count of uses in a mark, less what time has taken off.
    pub(crate) fn lfu_count(&self, mark: u32, now_ms: u64) -> u32 {
        let minutes = minutes(now_ms).wrapping_sub(mark >> 8) & 0xffff;
        let decay = minutes.checked_div(self.limit.lfu_decay_min).unwrap_or(0);
        (mark & LFU_MAX).saturating_sub(decay)
    }
}

/// Seconds since a record with this mark was used; 0 when it was used by a clock ahead of ours.
pub(crate) fn idle_seconds(mark: u32, now_ms: u64) -> u32 {
    let seconds = used_at(now_ms).wrapping_sub(mark) & TIME;
    if seconds <= TIME / 2 { seconds } else { 0 }
}

/// Whether eviction has not judged a record with this mark yet.
pub(crate) fn is_new(mark: u32) -> bool {
    mark & NEW != 0
}

/// Uses of a record with this mark since eviction looked last.
pub(crate) fn uses(mark: u32) -> u32 {
    mark / USE % (USES_MAX + 1)
}

/// The mark `old` after eviction has judged the record, with this count of uses.
pub(crate) fn judged_mark(old: u32, uses: u32) -> u32 {
    (old & TIME) | (uses * USE)
}

/// The next number of a sequence (SplitMix64).
pub(crate) fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn used_at(now_ms: u64) -> u32 {
    (now_ms / 1000) as u32 & TIME
}

fn minutes(now_ms: u64) -> u32 {
    (now_ms / MINUTE_MS) as u32 & 0xffff
}

fn lfu(now_ms: u64, count: u32) -> u32 {
    minutes(now_ms) << 8 | count
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;

    fn usage(policy: Policy) -> Usage {
        Usage {
            limit: MemoryLimit { policy, ..MemoryLimit::default() },
            log_time_ms: NOW_MS,
            ..Usage::default()
        }
    }

    #[test]
    fn limits_round_trip() {
        for (name, policy) in Policy::ALL {
            assert_eq!((Policy::parse(&name.to_uppercase()), policy.name()), (Some(policy), name));
            let limit = MemoryLimit { quota_bytes: u64::MAX - 7, policy, samples: 1, ..Default::default() };
            assert_eq!(MemoryLimit::decode(&limit.encode()), Some(limit));
        }
        assert_eq!(Policy::parse("allkeys"), None);
        assert_eq!(MemoryLimit::decode(&[0; 20]), None);
        assert_eq!(MemoryLimit::decode(&[9; 21]), None);
    }

    #[test]
    fn idle_time_is_that_since_the_last_use() {
        let usage = usage(Policy::AllKeysLru);
        let mark = usage.new_mark(true);
        assert_eq!(idle_seconds(mark, NOW_MS + 12_345), 12);
        assert_eq!(idle_seconds(usage.used_mark(mark, NOW_MS + 9000), NOW_MS + 12_345), 3);
        assert_eq!(idle_seconds(mark, NOW_MS - 10_000), 0);
    }

    #[test]
    fn eviction_counts_uses_for_itself() {
        for policy in [Policy::AllKeysLru, Policy::AllKeysLfu] {
            let usage = usage(policy);
            let mark = usage.new_mark(true);
            assert_eq!((is_new(mark), uses(mark)), (true, 0));
            let used = usage.used_mark(mark, NOW_MS);
            assert_eq!((is_new(used), uses(used)), (true, 1));
            let used = (0..9).fold(used, |mark, _| usage.used_mark(mark, NOW_MS + 7000));
            assert_eq!((is_new(used), uses(used)), (true, USES_MAX));
            let judged = judged_mark(used, 2);
            assert_eq!((is_new(judged), uses(judged)), (false, 2));
            assert_eq!(idle_seconds(judged, NOW_MS + 9000), idle_seconds(used, NOW_MS + 9000));
            assert_eq!(usage.lfu_count(judged, NOW_MS + 9000), usage.lfu_count(used, NOW_MS + 9000));
        }
    }

    #[test]
    fn uses_are_counted_logarithmically_and_forgotten() {
        let usage = usage(Policy::AllKeysLfu);
        let mut mark = usage.new_mark(false);
        assert_eq!(usage.lfu_count(mark, NOW_MS), LFU_NEW);
        // Redis's documentation: with factor 10, 1000 uses give about 18, a million 255.
        for _ in 0..1000 {
            mark = usage.used_mark(mark, NOW_MS);
        }
        let count = usage.lfu_count(mark, NOW_MS);
        assert!((12..=25).contains(&count), "{count}");
        assert_eq!(usage.lfu_count(mark, NOW_MS + 3 * MINUTE_MS), count - 3);
        assert_eq!(usage.lfu_count(mark, NOW_MS + 300 * MINUTE_MS), 0);
    }
}
