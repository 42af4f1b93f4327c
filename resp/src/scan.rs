//! The arguments of SCAN, and what its cursor means.
//!
//! A cursor names the next key to look at by its slot and, within the slot, by the first bits of its hash. Both depend on
//! the key alone, so a cursor stays good over growth, restarts, snapshots and changes of the leader, and a key that is
//! there from the first call to the last is returned at least once.

use crate::decimal::parse_i64;

/// Longest pattern, bytes; with it the time to match one key is bounded.
pub const PATTERN_BYTES_MAX: usize = 1024;

/// How many keys a call looks at when COUNT does not say.
const COUNT_DEFAULT: u64 = 10;

/// Bits of a cursor below the slot. With the 14 bits of a slot they are 53: as many as JavaScript's numbers hold exactly.
const POSITION_BITS: u32 = 39;

/// Slots of a cluster.
const SLOTS: u64 = 16384;

/// Where a scan goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(u64);

impl Cursor {
    /// Where a slot begins; from slot 16384 on: the end.
    pub fn slot_start(slot: u16) -> Self {
        Self::new(slot, 0)
    }

    /// At or behind a position of a slot. A position is below 2^39, or 2^39 for the end of the slot.
    pub fn new(slot: u16, position: u64) -> Self {
        let at = (u64::from(slot) << POSITION_BITS) + position;
        Self(if at < SLOTS << POSITION_BITS { at } else { 0 })
    }

    /// The cursor of a number; any number is one. `None`: it lies behind all slots.
    pub fn from_number(number: u64) -> Option<Self> {
        (number < SLOTS << POSITION_BITS).then_some(Self(number))
    }

    /// The number that a client gets; 0 begins and ends a scan.
    pub fn number(self) -> u64 {
        self.0
    }

    /// Its slot.
    pub fn slot(self) -> u16 {
        (self.0 >> POSITION_BITS) as u16
    }

    /// Its position within the slot.
    pub fn position(self) -> u64 {
        self.0 & ((1 << POSITION_BITS) - 1)
    }

    /// The least hash at a position; the greatest hash of all behind the last position.
    pub fn hash_min(position: u64) -> u64 {
        if position >> POSITION_BITS == 0 { position << (u64::BITS - POSITION_BITS) } else { u64::MAX }
    }

    /// The position of a key by its hash.
    pub fn position_of(hash: u64) -> u64 {
        hash >> (u64::BITS - POSITION_BITS)
    }
}

/// The arguments of SCAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanArgs<'a> {
    /// Where to go on; `None`: behind all slots, where there is nothing more.
    pub cursor: Option<Cursor>,
    /// How many keys to look at, about; at least 1.
    pub count: u64,
    /// Only keys that match; `None`: all.
    pub pattern: Option<&'a [u8]>,
    /// Only keys of this type, in any case.
    pub type_name: Option<&'a [u8]>,
}

/// Why the arguments of SCAN are none, in Redis's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// The cursor is no unsigned 64-bit number.
    #[error("ERR invalid cursor")]
    Cursor,
    /// COUNT is no integer.
    #[error("ERR value is not an integer or out of range")]
    Count,
    /// An unknown option, one without its value, or a COUNT below 1.
    #[error("ERR syntax error")]
    Syntax,
    /// The pattern is longer than [`PATTERN_BYTES_MAX`]; not in Redis, which has no limit.
    #[error("ERR pattern exceeds maximum allowed size ({PATTERN_BYTES_MAX} bytes)")]
    PatternTooLong,
}

impl<'a> ScanArgs<'a> {
    /// Reads the arguments after the command's name.
    ///
    /// # Errors
    /// They are malformed; the error's text is the reply.
    pub fn parse(args: &[&'a [u8]]) -> Result<Self, ScanError> {
        let [cursor, options @ ..] = args else { return Err(ScanError::Syntax) };
        let number = parse_cursor(cursor).ok_or(ScanError::Cursor)?;
        let mut parsed = Self {
            cursor: Cursor::from_number(number),
            count: COUNT_DEFAULT,
            pattern: None,
            type_name: None,
        };
        for option in options.chunks(2) {
            let [name, value] = option else { return Err(ScanError::Syntax) };
            match c_str(name) {
                name if name.eq_ignore_ascii_case(b"count") => {
                    let count = parse_i64(value).ok_or(ScanError::Count)?;
                    parsed.count = u64::try_from(count).ok().filter(|n| 0 < *n).ok_or(ScanError::Syntax)?;
                }
                name if name.eq_ignore_ascii_case(b"match") => parsed.pattern = parse_pattern(value)?,
                name if name.eq_ignore_ascii_case(b"type") => parsed.type_name = Some(c_str(value)),
                _ => return Err(ScanError::Syntax),
            }
        }
        Ok(parsed)
    }
}

/// Checks a pattern of KEYS or SCAN; `None`: it is `*`, which even the empty key matches.
///
/// # Errors
/// It is too long.
pub fn parse_pattern(pattern: &[u8]) -> Result<Option<&[u8]>, ScanError> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(ScanError::PatternTooLong);
    }
    Ok((pattern != b"*").then_some(pattern))
}

/// Reads a cursor as C's `strtoul` does, to which Redis leaves it: up to the first zero byte, empty for 0, with a sign,
/// modulo 2^64; but without blanks.
fn parse_cursor(text: &[u8]) -> Option<u64> {
    let text = c_str(text);
    let (is_negative, digits) = match text {
        [] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = core::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(if is_negative { number.wrapping_neg() } else { number })
}

/// The text up to its first zero byte.
fn c_str(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<'a>(line: &'a str) -> Result<ScanArgs<'a>, ScanError> {
        ScanArgs::parse(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_read_as_redis_reads_them() {
        let all = ScanArgs { cursor: Cursor::from_number(0), count: 10, pattern: None, type_name: None };
        for zero in ["", "0", "00", "-0", "+0", "0\0x", "0 match *"] {
            assert_eq!(parse(zero), Ok(all), "{zero}");
        }
        assert_eq!(parse("-1"), Ok(ScanArgs { cursor: None, ..all }));
        assert_eq!(parse("-18446744073709551615"), Ok(ScanArgs { cursor: Cursor::from_number(1), ..all }));
        for cursor in ["x", "-", "+", " 5", "\t5", "5x", "0x10", "--5", "18446744073709551616"] {
            assert_eq!(ScanArgs::parse(&[cursor.as_bytes()]), Err(ScanError::Cursor), "{cursor}");
        }
        let some = ScanArgs { count: 7, pattern: Some(b"a*"), type_name: Some(b"STRING"), ..all };
        assert_eq!(parse("0 COUNT 3 MATCH b type STRING match a* count 7"), Ok(some));
        for (line, error) in [
            ("0 COUNT", ScanError::Syntax),
            ("0 COUNT 0", ScanError::Syntax),
            ("0 COUNT -1", ScanError::Syntax),
            ("0 FOO 1", ScanError::Syntax),
            ("0 COUNT x", ScanError::Count),
            ("0 COUNT 1 COUNT x", ScanError::Count),
            ("x COUNT x", ScanError::Cursor),
        ] {
            assert_eq!(parse(line), Err(error), "{line}");
        }
        let long = vec![b'?'; PATTERN_BYTES_MAX + 1];
        assert_eq!(ScanArgs::parse(&[b"0", b"MATCH", &long]), Err(ScanError::PatternTooLong));
        assert!(ScanArgs::parse(&[b"0", b"MATCH", &long[1..]]).is_ok());
    }

    #[test]
    fn cursors_are_ordered_and_exact_in_javascript() {
        let last = Cursor::position_of(u64::MAX);
        assert_eq!(Cursor::new(0, 0).number(), 0);
        assert_eq!(Cursor::new(5, 0), Cursor::slot_start(5));
        assert_eq!(Cursor::new(5, last + 1), Cursor::slot_start(6));
        assert_eq!(Cursor::new(16383, last + 1).number(), 0);
        assert_eq!(Cursor::slot_start(16384).number(), 0);
        assert_eq!(Cursor::new(16383, last).number(), (1 << 53) - 1);
        let cursor = Cursor::new(77, 12345);
        assert_eq!((cursor.slot(), cursor.position()), (77, 12345));
        assert_eq!(Cursor::from_number(cursor.number()), Some(cursor));
        assert_eq!(Cursor::from_number(1 << 53), None);
    }
}
