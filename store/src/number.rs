//! Numbers as Redis reads them.

/// Longest decimal form of an `i64`, its sign included.
const DIGITS_MAX: usize = 20;

/// Reads a signed 64-bit integer exactly as Redis's `string2ll` does: an optional `-`, then digits without a leading
/// zero; no `+`, no space, no `-0`.
pub(crate) fn parse_i64(text: &[u8]) -> Option<i64> {
    if text == b"0" {
        return Some(0);
    }
    if text.len() > DIGITS_MAX {
        return None;
    }
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if !matches!(digits.first(), Some(b'1'..=b'9')) {
        return None;
    }
    digits.iter().try_fold(0_i64, |n, byte| {
        let digit = i64::from(byte.checked_sub(b'0').filter(|digit| *digit <= 9)?);
        let n = n.checked_mul(10)?;
        if is_negative { n.checked_sub(digit) } else { n.checked_add(digit) }
    })
}

#[cfg(test)]
mod tests {
    use super::parse_i64;

    #[test]
    fn reads_what_string2ll_reads() {
        for n in [0, 1, -1, 10, -10, 42, i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1] {
            assert_eq!(parse_i64(n.to_string().as_bytes()), Some(n));
        }
    }

    #[test]
    fn refuses_what_string2ll_refuses() {
        let refused: [&[u8]; 15] = [
            b"",
            b"-",
            b"-0",
            b"00",
            b"01",
            b"-01",
            b"+1",
            b" 1",
            b"1 ",
            b"1.0",
            b"0x10",
            b"1\0",
            b"--1",
            b"9223372036854775808",
            b"-9223372036854775809",
        ];
        for text in refused {
            assert_eq!(parse_i64(text), None, "{}", text.escape_ascii());
        }
    }
}
