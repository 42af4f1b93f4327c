//! Numbers of the x87's 80-bit format, which is what C's `long double` is on the machines Redis is known from.
//!
//! INCRBYFLOAT reads, adds and writes such numbers. Here all three are done in integers, rounded to the nearest and ties
//! to even as the x87 does, so that every replica on every machine has the same bytes, and the same as Redis's.

use core::cmp::Ordering;

/// Bits of the significand.
const BITS: u32 = 64;
/// Exponent of the least bit of the smallest number: 2^-16445.
const EXPONENT_MIN: i32 = -16445;
/// Exponent of the least bit of the largest numbers, which are below 2^16384.
const EXPONENT_MAX: i32 = 16384 - BITS as i32;
/// Longest text that is read, bytes (Redis: `MAX_LONG_DOUBLE_CHARS`, less the end of the C string).
const TEXT_BYTES_MAX: usize = 5 * 1024 - 1;
/// Decimals that are written (Redis: `%.17Lf`).
const DECIMALS: usize = 17;
/// A decimal or binary exponent beyond this, either way, is as good as infinite for a text of `TEXT_BYTES_MAX`.
const EXPONENT_CLAMP: i64 = 1 << 20;

/// What a text says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Number {
    /// A number that the format can hold, rounded.
    Finite(Extended),
    /// `inf` or `infinity` with a sign or none.
    Infinite,
}

/// A finite number: `significand * 2^exponent`.
///
/// # Invariants
/// The exponent lies within its bounds; the significand's highest bit is set unless the exponent is the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extended {
    is_negative: bool,
    significand: u64,
    exponent: i32,
}

impl Number {
    /// Reads a text as C's `strtold` does and Redis's `string2ld` allows: decimal or hexadecimal, the whole text, no blank
    /// before it, no NaN, neither too large nor so small that it would be zero.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        if TEXT_BYTES_MAX < text.len() {
            return None;
        }
        let (is_negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        if rest.eq_ignore_ascii_case(b"inf") || rest.eq_ignore_ascii_case(b"infinity") {
            return Some(Self::Infinite);
        }
        let magnitude = match rest {
            [b'0', b'x' | b'X', digits @ ..] => parse_hexadecimal(digits),
            digits => parse_decimal(digits),
        }?;
        Some(Self::Finite(Extended { is_negative, ..magnitude }))
    }
}

impl Extended {
    /// The number nearest to `significand * 2^exponent`; `None` when that is too large.
    ///
    /// For a number with more bits behind these, the last bit is set if any of those is: it then must not be one of the
    /// first 66.
    fn round(is_negative: bool, significand: u128, exponent: i32) -> Option<Self> {
        let len = u128::BITS - significand.leading_zeros();
        // How many low bits fall away: those beyond the width, and those below the smallest number.
        let excess = len.cast_signed() - BITS.cast_signed();
        let dropped = excess.max(EXPONENT_MIN.saturating_sub(exponent));
        let (mut kept, mut exponent) = if dropped <= 0 {
            (significand << dropped.unsigned_abs().min(127), exponent + dropped)
        } else if dropped < u128::BITS.cast_signed() {
            let dropped_bits = significand & ((1 << dropped) - 1);
            let half = 1_u128 << (dropped - 1);
            let kept = significand >> dropped;
            let is_up = match dropped_bits.cmp(&half) {
                Ordering::Less => false,
                Ordering::Equal => kept & 1 == 1,
                Ordering::Greater => true,
            };
            (kept + u128::from(is_up), exponent + dropped)
        } else {
            (0, EXPONENT_MIN)
        };
        if kept == 1 << BITS {
            kept >>= 1;
            exponent += 1;
        }
        if kept == 0 {
            exponent = EXPONENT_MIN;
        }
        (exponent <= EXPONENT_MAX).then_some(Self { is_negative, significand: kept as u64, exponent })
    }

    /// The sum, rounded; `None` when it is too large.
    pub(crate) fn checked_add(self, other: Self) -> Option<Self> {
        // The one with the larger exponent has its highest bit set, and so is the larger number.
        let is_ordered = (other.exponent, other.significand) <= (self.exponent, self.significand);
        let (large, small) = if is_ordered { (self, other) } else { (other, self) };
        // 62 bits below the larger one's last, one above its first for the carry.
        const ROOM: u32 = 62;
        let distance = large.exponent.abs_diff(small.exponent);
        let large_bits = u128::from(large.significand) << ROOM;
        let small_bits = u128::from(small.significand) << ROOM;
        let shifted = small_bits.checked_shr(distance).unwrap_or(0);
        let has_rest = shifted.checked_shl(distance) != Some(small_bits) && small.significand != 0;
        let sum = if large.is_negative == small.is_negative {
            large_bits + shifted
        } else {
            // What was shifted out is taken off as well: one less, and a rest again.
            large_bits - shifted - u128::from(has_rest)
        };
        // Far below the last bit that is kept, a rest only has to be there.
        let sum = sum << 1 | u128::from(has_rest);
        Self::round(large.is_negative, sum, large.exponent - ROOM.cast_signed() - 1)
    }
}

/// Writes the number as Redis does for people: 17 decimals, without the zeros and the point at the end; no `-0`.
impl core::fmt::Display for Extended {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut text = if self.exponent < 0 {
            // Below 2^121, since 10^17 is below 2^57.
            let scaled = u128::from(self.significand) * 10_u128.pow(DECIMALS as u32);
            let digits = rounded_shr(scaled, self.exponent.unsigned_abs()).to_string();
            let digits = format!("{digits:0>width$}", width = DECIMALS + 1);
            let (whole, decimals) = digits.split_at(digits.len() - DECIMALS);
            format!("{whole}.{decimals}").trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            let mut whole = Natural::from(self.significand);
            whole.shift_left(self.exponent.unsigned_abs());
            whole.into_decimal()
        };
        if self.is_negative && text != "0" {
            text.insert(0, '-');
        }
        f.write_str(&text)
    }
}

/// `n / 2^shift`, rounded to the nearest, ties to even. `n` is below 2^127.
fn rounded_shr(n: u128, shift: u32) -> u128 {
    if shift > 127 {
        return 0;
    }
    if shift == 0 {
        return n;
    }
    let (kept, dropped, half) = (n >> shift, n & ((1 << shift) - 1), 1 << (shift - 1));
    kept + u128::from(half < dropped || (half == dropped && kept & 1 == 1))
}

/// Digits with at most one point, and what stands behind them.
struct Digits<'a> {
    /// Values of the digits without leading zeros.
    values: Vec<u8>,
    /// How many of them stand behind the point.
    behind_point: i64,
    rest: &'a [u8],
}

/// Reads digits of a base; `None` when there is none.
fn digits(text: &[u8], base: u32) -> Option<Digits<'_>> {
    let mut digits = Digits { values: Vec::new(), behind_point: 0, rest: &[] };
    let (mut has_point, mut has_digit) = (false, false);
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if let Some(value) = char::from(*byte).to_digit(base) {
            has_digit = true;
            digits.behind_point += i64::from(has_point);
            if value != 0 || !digits.values.is_empty() {
                digits.values.push(value as u8);
            }
        } else if *byte == b'.' && !has_point {
            has_point = true;
        } else {
            break;
        }
        at += 1;
    }
    digits.rest = &text[at..];
    has_digit.then_some(digits)
}

/// The exponent behind the digits, 0 for none; `None` when what stands there is none.
fn exponent(text: &[u8], mark: u8) -> Option<i64> {
    let [first, rest @ ..] = text else { return Some(0) };
    if first.to_ascii_lowercase() != mark {
        return None;
    }
    let (is_negative, digits) = match rest {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n = digits.iter().fold(0, |n: i64, digit| (n * 10 + i64::from(digit - b'0')).min(EXPONENT_CLAMP));
    Some(if is_negative { -n } else { n })
}

fn parse_decimal(text: &[u8]) -> Option<Extended> {
    let digits = digits(text, 10)?;
    let scale = exponent(digits.rest, b'e')? - digits.behind_point;
    if digits.values.is_empty() {
        return Extended::round(false, 0, 0);
    }
    // The value is below 10^top and at least 10^(top - 1).
    let top = scale + digits.values.len() as i64;
    if !(-5000..=5000).contains(&top) {
        return None;
    }
    let mut numerator = Natural::default();
    for chunk in digits.values.chunks(9) {
        let value = chunk.iter().fold(0, |n, digit| n * 10 + u32::from(*digit));
        numerator.multiply_add(10_u32.pow(chunk.len() as u32), value);
    }
    let mut denominator = Natural::from(1);
    let scaled = if 0 <= scale { &mut numerator } else { &mut denominator };
    let powers = scale.unsigned_abs();
    (0..powers / 9).for_each(|_| scaled.multiply_add(1_000_000_000, 0));
    scaled.multiply_add(10_u32.pow((powers % 9) as u32), 0);
    nearest(numerator, denominator)
}

fn parse_hexadecimal(text: &[u8]) -> Option<Extended> {
    let digits = digits(text, 16)?;
    let scale = exponent(digits.rest, b'p')? - 4 * digits.behind_point;
    if digits.values.is_empty() {
        return Extended::round(false, 0, 0);
    }
    // 27 digits are 108 bits or, after a first digit of 1, at least 105: enough to round, and a rest below them.
    let (head, tail) = digits.values.split_at(digits.values.len().min(27));
    let significand = head.iter().fold(0, |n: u128, digit| n << 4 | u128::from(*digit));
    let has_rest = tail.iter().any(|digit| *digit != 0);
    let scale = scale + 4 * tail.len() as i64 - 1;
    let scale = scale.clamp(-EXPONENT_CLAMP, EXPONENT_CLAMP) as i32;
    nonzero(Extended::round(false, significand << 1 | u128::from(has_rest), scale)?)
}

/// The number nearest to a fraction above 0; `None` when that is too large or is zero.
fn nearest(mut numerator: Natural, mut denominator: Natural) -> Option<Extended> {
    // Scaled so that the quotient has 67 or 68 bits.
    let shift = denominator.bits() as i32 - numerator.bits() as i32 + 67;
    let scaled = if 0 <= shift { &mut numerator } else { &mut denominator };
    scaled.shift_left(shift.unsigned_abs());
    let mut quotient = 0_u128;
    denominator.shift_left(67);
    for _ in 0..68 {
        quotient <<= 1;
        if denominator.compare(&numerator) != Ordering::Greater {
            numerator.subtract(&denominator);
            quotient |= 1;
        }
        denominator.halve();
    }
    let has_rest = numerator.bits() != 0;
    nonzero(Extended::round(false, quotient << 1 | u128::from(has_rest), -shift - 1)?)
}

fn nonzero(number: Extended) -> Option<Extended> {
    (number.significand != 0).then_some(number)
}

/// A natural number: 32 bits a limb, the least first, no zero limb last.
#[derive(Debug, Clone, Default)]
struct Natural(Vec<u32>);

impl From<u64> for Natural {
    fn from(n: u64) -> Self {
        let mut natural = Self(vec![n as u32, (n >> 32) as u32]);
        natural.trim();
        natural
    }
}

impl Natural {
    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    /// Number of bits; 0 for zero.
    fn bits(&self) -> usize {
        self.0.last().map_or(0, |last| self.0.len() * 32 - last.leading_zeros() as usize)
    }

    fn multiply_add(&mut self, factor: u32, summand: u32) {
        let mut carry = u64::from(summand);
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry != 0 {
            self.0.push(carry as u32);
        }
    }

    fn shift_left(&mut self, by: u32) {
        self.multiply_add(1 << (by % 32), 0);
        if !self.0.is_empty() {
            self.0.splice(0..0, core::iter::repeat_n(0, (by / 32) as usize));
        }
    }

    fn halve(&mut self) {
        let mut carry = 0;
        for limb in self.0.iter_mut().rev() {
            (*limb, carry) = (*limb >> 1 | carry << 31, *limb & 1);
        }
        self.trim();
    }

    fn compare(&self, other: &Self) -> Ordering {
        let by_len = self.0.len().cmp(&other.0.len());
        by_len.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    /// Takes off `other`, which is not larger.
    fn subtract(&mut self, other: &Self) {
        let mut has_borrow = false;
        for (i, limb) in self.0.iter_mut().enumerate() {
            let (less, is_below) = limb.overflowing_sub(other.0.get(i).copied().unwrap_or(0));
            let (less, is_below_borrow) = less.overflowing_sub(u32::from(has_borrow));
            *limb = less;
            has_borrow = is_below || is_below_borrow;
        }
        self.trim();
    }

    /// Divides and returns the remainder.
    fn divide(&mut self, divisor: u32) -> u32 {
        let mut rest = 0;
        for limb in self.0.iter_mut().rev() {
            let n = rest << 32 | u64::from(*limb);
            *limb = (n / u64::from(divisor)) as u32;
            rest = n % u64::from(divisor);
        }
        self.trim();
        rest as u32
    }

    fn into_decimal(mut self) -> String {
        let mut groups = Vec::new();
        while !self.0.is_empty() {
            groups.push(self.divide(1_000_000_000));
        }
        let mut text = groups.pop().unwrap_or(0).to_string();
        text.extend(groups.iter().rev().map(|group| format!("{group:09}")));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(a: &str, b: &str) -> Option<String> {
        let (Some(Number::Finite(a)), Some(Number::Finite(b))) =
            (Number::parse(a.as_bytes()), Number::parse(b.as_bytes()))
        else {
            return None;
        };
        a.checked_add(b).map(|sum| sum.to_string())
    }

    #[test]
    fn adds_as_the_x87_does() {
        for (a, b, sum) in [
            ("0", "0", "0"),
            ("-0", "-0", "0"),
            ("10.5", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("0.1", "0.2", "0.3"),
            ("1", "-1", "0"),
            ("3", "-3.00000000000000001", "-0.00000000000000001"),
            ("1e19", "1", "10000000000000000001"),
            ("1e20", "1", "100000000000000000000"),
            ("18446744073709551615", "1", "18446744073709551616"),
            ("18446744073709551615", "2", "18446744073709551616"),
            ("18446744073709551616", "1", "18446744073709551616"),
            ("18446744073709551616", "3", "18446744073709551620"),
            ("1", "1e-30", "1"),
            ("1e-30", "0", "0"),
            ("-1e-30", "0", "0"),
            ("0x10", "0x.8p1", "17"),
            ("+1.", ".5", "1.5"),
            ("1e-4940", "1e-4940", "0"),
        ] {
            assert_eq!(add(a, b).as_deref(), Some(sum), "{a} + {b}");
            assert_eq!(add(b, a).as_deref(), Some(sum), "{b} + {a}");
        }
        assert_eq!(add("1.1e4932", "1.1e4932"), None);
    }

    #[test]
    fn refuses_what_strtold_or_redis_refuses() {
        for text in [
            "",
            "-",
            "+",
            ".",
            " 1",
            "1 ",
            "1e",
            "1e+",
            "e1",
            "nan",
            "-nan",
            "nan(1)",
            "0x",
            "0x.",
            "0x1p",
            "1p1",
            "--1",
            "1..",
            "1.2.3",
            "1e5000",
            "-1e4933",
            "1e-5000",
            "1e-99999999999999999999",
            "0x1p16384",
            "0x1p-16446",
            "infinit",
            "1\0",
            "1_0",
            "1,5",
        ] {
            assert_eq!(Number::parse(text.as_bytes()), None, "{text:?}");
        }
        for text in ["inf", "-INF", "+Infinity"] {
            assert_eq!(Number::parse(text.as_bytes()), Some(Number::Infinite));
        }
        for text in ["0e99999999999999999999", "0e-99999", "0x0p99999", "1e-4950", "0x1p-16445", "0x1p16383"]
        {
            assert!(matches!(Number::parse(text.as_bytes()), Some(Number::Finite(_))), "{text}");
        }
        assert_eq!(Number::parse(&[b'1'; TEXT_BYTES_MAX + 1]), None);
    }

    #[test]
    fn rounds_a_tie_to_even_and_a_rest_away_from_it() {
        // 2^64 + 1 lies half way between two numbers.
        let parse = |text: &str| Number::parse(text.as_bytes());
        assert_eq!(parse("18446744073709551617"), parse("18446744073709551616"));
        assert_eq!(parse("18446744073709551617.0000000000000000000001"), parse("18446744073709551618"));
        assert_eq!(parse("18446744073709551619"), parse("18446744073709551620"));
        assert_eq!(parse("0x10000000000000001"), parse("0x10000000000000000"));
        assert_eq!(
            parse("0x1000000000000000100000000000000000000000000000001"),
            parse("0x1000000000000000200000000000000000000000000000000")
        );
        // Half of the smallest number is zero, and refused; a little more is the smallest.
        assert_eq!(parse("0x1p-16446"), None);
        assert_eq!(parse("0x1.00001p-16446"), parse("0x1p-16445"));
    }
}
