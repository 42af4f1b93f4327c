//! The one form of a whole number that Redis accepts on the wire.

/// Reads a decimal number as Redis's `string2ll` does: no sign `+`, no leading zeros, no `-0`, no blanks.
pub(crate) fn parse_i64(text: &[u8]) -> Option<i64> {
    let (digits, is_negative) = match text {
        [b'-', digits @ ..] => (digits, true),
        digits => (digits, false),
    };
    match digits {
        [] => return None,
        [b'0'] => return (!is_negative).then_some(0),
        [b'0', ..] => return None,
        _ => {}
    }
    // Built downwards from 0, where the one number more lies: i64::MIN has no positive counterpart.
    let mut n: i64 = 0;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        n = n.checked_mul(10)?.checked_sub(i64::from(digit))?;
    }
    if is_negative { Some(n) } else { n.checked_neg() }
}

#[cfg(test)]
mod tests {
    use super::parse_i64;

    #[test]
    fn takes_what_redis_takes_and_nothing_else() {
        for n in [0, 1, -1, 10, 1024, i64::MAX, i64::MIN] {
            assert_eq!(parse_i64(n.to_string().as_bytes()), Some(n));
        }
        for bad in [
            "",
            "-",
            "-0",
            "00",
            "01",
            "-01",
            "+1",
            " 1",
            "1 ",
            "1a",
            "9223372036854775808",
            "-9223372036854775809",
        ] {
            assert_eq!(parse_i64(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
