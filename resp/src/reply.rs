//! Reply bytes -> element boundaries, or owned values.

use memchr::memchr;

use crate::ReplyWriter;
use crate::decimal::parse_i64;

/// Most arrays, maps, sets and pushes inside each other.
pub const DEPTH_MAX: usize = 32;

/// Longest bulk string of a reply, bytes: Redis's own limit.
pub const BULK_BYTES_MAX: usize = 512 << 20;

/// Longest line of a reply (simple string, error, number), bytes without its kind and its end.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// Most elements of one array, set or push, and most pairs of one map. Nothing is reserved by an announced count.
pub const ELEMENTS_MAX: usize = 1 << 28;

/// Why bytes are no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The first byte of a reply or element is of no known type.
    #[error("unknown reply type '{}'", .0.escape_ascii())]
    UnknownType(u8),
    /// A line longer than [`LINE_BYTES_MAX`].
    #[error("reply line too long")]
    LineTooLong,
    /// A line or bulk string does not end with CR LF.
    #[error("reply line does not end with CR LF")]
    LineEnd,
    /// A number, double, boolean, null or big number that reads as none.
    #[error("malformed number in reply")]
    Number,
    /// A length or count that is no number or out of range.
    #[error("invalid length in reply")]
    Length,
    /// A verbatim string without a format of three bytes and a colon.
    #[error("malformed verbatim string in reply")]
    Verbatim,
    /// More than [`DEPTH_MAX`] levels.
    #[error("reply nested too deep")]
    TooDeep,
}

/// Returns the length in bytes of the first whole reply (RESP2 or RESP3, nested) in `buf`; `None` when it is not complete.
///
/// `O(elements)` each time: for large replies that arrive in pieces, keep a [`FrameScanner`].
///
/// # Errors
/// The bytes are no reply.
pub fn frame_len(buf: &[u8]) -> Result<Option<usize>, ReplyError> {
    match item(buf, 0)? {
        // Most replies; a scanner would be half a kilobyte to clear.
        Some((Item::Scalar(_) | Item::Integer(_), end)) => Ok(Some(end)),
        Some(_) => FrameScanner::default().scan(buf),
        None => Ok(None),
    }
}

/// Splits the reply `*N` array in `buf` into its N element slices; `None` when `buf` is not exactly one whole array.
pub fn array_elements(buf: &[u8]) -> Option<Vec<&[u8]>> {
    let (Item::Array(count), mut at) = item(buf, 0).ok()?? else {
        return None;
    };
    let mut elements = Vec::with_capacity(count.min(buf.len() / ELEMENT_BYTES_MIN));
    for _ in 0..count {
        let rest = &buf[at..];
        let len = frame_len(rest).ok()??;
        elements.push(&rest[..len]);
        at += len;
    }
    (at == buf.len()).then_some(elements)
}

/// Reads the integer of a `:N` reply; `None` when `buf` is not exactly that.
pub fn integer(buf: &[u8]) -> Option<i64> {
    match item(buf, 0).ok()?? {
        (Item::Integer(n), end) if end == buf.len() => Some(n),
        _ => None,
    }
}

/// Reads the first whole reply in `buf`; returns it with its length in bytes, or `None` when it is not complete.
///
/// Attributes (RESP3 `|`) are skipped.
///
/// # Errors
/// The bytes are no reply.
pub fn parse(buf: &[u8]) -> Result<Option<(Value, usize)>, ReplyError> {
    // Only a whole frame is built, so that its depth is known and nothing is built in vain.
    match frame_len(buf)? {
        Some(len) => build(&buf[..len], 0),
        None => Ok(None),
    }
}

/// Finds the end of one reply after another in a growing buffer; elements already seen are not read again.
#[derive(Debug, Clone)]
pub struct FrameScanner {
    /// Where the next element starts.
    at: usize,
    /// How many of `levels` are open.
    depth: usize,
    levels: [Level; DEPTH_MAX],
}

#[derive(Debug, Clone, Copy)]
struct Level {
    /// Elements still to come, at least 1 while the level is open.
    left: usize,
    /// Whether the level stands before an element instead of being one.
    is_attribute: bool,
}

impl Default for FrameScanner {
    fn default() -> Self {
        Self { at: 0, depth: 0, levels: [Level { left: 0, is_attribute: false }; DEPTH_MAX] }
    }
}

impl FrameScanner {
    /// Returns the length of the first whole reply in `buf`, after which it starts anew behind that reply.
    /// After `None` the next call must pass the same bytes with more behind them.
    ///
    /// # Errors
    /// The bytes are no reply: drop the connection.
    pub fn scan(&mut self, buf: &[u8]) -> Result<Option<usize>, ReplyError> {
        while let Some((item, end)) = item(buf, self.at)? {
            let (count, is_attribute) = match item {
                Item::Array(n) | Item::Set(n) | Item::Push(n) => (n, false),
                Item::Map(n) => (n * 2, false),
                Item::Attribute(n) => (n * 2, true),
                Item::Scalar(_) | Item::Integer(_) => (0, false),
            };
            if count > 0 {
                let level = self.levels.get_mut(self.depth).ok_or(ReplyError::TooDeep)?;
                *level = Level { left: count, is_attribute };
                self.depth += 1;
            }
            self.at = end;
            if count == 0 && !is_attribute && self.is_last() {
                let len = self.at;
                self.at = 0;
                return Ok(Some(len));
            }
        }
        Ok(None)
    }

    /// Counts an element that has ended, and each level that ends with it; whether the whole reply has ended.
    fn is_last(&mut self) -> bool {
        while let Some(open) = self.depth.checked_sub(1) {
            let level = &mut self.levels[open];
            level.left -= 1;
            if level.left > 0 {
                return false;
            }
            self.depth = open;
            if level.is_attribute {
                return false;
            }
        }
        true
    }
}

/// A reply, owned.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A missing value: `_`, `$-1` or `*-1`.
    Null,
    /// A simple string. Bytes that are not UTF-8 became U+FFFD.
    Simple(String),
    /// An error with its prefix, such as `ERR syntax error`. Bytes that are not UTF-8 became U+FFFD.
    Error(String),
    /// An integer.
    Integer(i64),
    /// A bulk string.
    Bulk(Vec<u8>),
    /// An array.
    Array(Vec<Self>),
    /// A map, in the order of the wire.
    Map(Vec<(Self, Self)>),
    /// A set, in the order of the wire.
    Set(Vec<Self>),
    /// A push message, its kind first.
    Push(Vec<Self>),
    /// A floating point number.
    Double(f64),
    /// A truth value.
    Boolean(bool),
    /// Decimal digits with an optional sign.
    BigNumber(String),
    /// Text with its format, such as `txt`.
    Verbatim([u8; 3], Vec<u8>),
}

impl Value {
    /// The text of a simple, bulk or verbatim string.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Simple(text) => Some(text.as_bytes()),
            Self::Bulk(text) | Self::Verbatim(_, text) => Some(text),
            _ => None,
        }
    }

    /// The number of an integer.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(n) => Some(*n),
            _ => None,
        }
    }

    /// The text of an error.
    pub fn as_error(&self) -> Option<&str> {
        match self {
            Self::Error(text) => Some(text),
            _ => None,
        }
    }

    /// The elements of an array, set or push.
    pub fn elements(&self) -> Option<&[Self]> {
        match self {
            Self::Array(elements) | Self::Set(elements) | Self::Push(elements) => Some(elements),
            _ => None,
        }
    }

    /// Writes the value; in RESP3 [`parse`] reads it back, but for line ends in [`Value::Simple`] and [`Value::Error`].
    pub fn write(&self, out: &mut ReplyWriter<'_>) {
        match self {
            Self::Null => out.null(),
            Self::Simple(text) => out.simple(text),
            Self::Error(text) => out.error(text),
            Self::Integer(n) => out.integer(*n),
            Self::Bulk(bytes) => out.bulk(bytes),
            Self::Array(elements) => {
                out.array(elements.len());
                elements.iter().for_each(|element| element.write(out));
            }
            Self::Map(pairs) => {
                out.map(pairs.len());
                for (key, value) in pairs {
                    key.write(out);
                    value.write(out);
                }
            }
            Self::Set(elements) => {
                out.set(elements.len());
                elements.iter().for_each(|element| element.write(out));
            }
            Self::Push(elements) => {
                out.push(elements.len());
                elements.iter().for_each(|element| element.write(out));
            }
            Self::Double(n) => out.double(*n),
            Self::Boolean(is_true) => out.boolean(*is_true),
            Self::BigNumber(digits) => out.big_number(digits),
            Self::Verbatim(format, text) => out.verbatim(format, text),
        }
    }
}

/// Bytes of the shortest element, `_` and CR LF.
const ELEMENT_BYTES_MIN: usize = 3;

/// One scalar, or the header of an aggregate with its count of elements or pairs.
enum Item<'a> {
    Scalar(Scalar<'a>),
    Integer(i64),
    Array(usize),
    Map(usize),
    Set(usize),
    Push(usize),
    Attribute(usize),
}

enum Scalar<'a> {
    Null,
    Simple(&'a [u8]),
    Error(&'a [u8]),
    Bulk(&'a [u8]),
    Verbatim([u8; 3], &'a [u8]),
    Double(f64),
    Boolean(bool),
    BigNumber(&'a [u8]),
}

/// Reads the item at `at` with the place of the next one; `None` when it is not complete.
///
/// The one place that judges bytes, so that all readers of this module agree on what a reply is.
fn item(buf: &[u8], at: usize) -> Result<Option<(Item<'_>, usize)>, ReplyError> {
    let Some((&kind, rest)) = buf.get(at..).and_then(<[u8]>::split_first) else {
        return Ok(None);
    };
    if !b"+-:$*_#,(=!%~>|".contains(&kind) {
        return Err(ReplyError::UnknownType(kind));
    }
    let Some(line) = line(rest)? else {
        return Ok(None);
    };
    let next = at + 1 + line.len() + 2;
    let item = match kind {
        b'+' => Item::Scalar(Scalar::Simple(line)),
        b'-' => Item::Scalar(Scalar::Error(line)),
        b':' => Item::Integer(parse_i64(line.strip_prefix(b"+").unwrap_or(line)).ok_or(ReplyError::Number)?),
        b'_' if line.is_empty() => Item::Scalar(Scalar::Null),
        b'#' if line == b"t" => Item::Scalar(Scalar::Boolean(true)),
        b'#' if line == b"f" => Item::Scalar(Scalar::Boolean(false)),
        b',' => Item::Scalar(Scalar::Double(double(line).ok_or(ReplyError::Number)?)),
        b'(' if is_whole_number(line) => Item::Scalar(Scalar::BigNumber(line)),
        b'_' | b'#' | b'(' => return Err(ReplyError::Number),
        b'$' | b'*' if line == b"-1" => Item::Scalar(Scalar::Null),
        b'*' => Item::Array(count(line)?),
        b'%' => Item::Map(count(line)?),
        b'~' => Item::Set(count(line)?),
        b'>' => Item::Push(count(line)?),
        b'|' => Item::Attribute(count(line)?),
        _ => return bulk(kind, buf, next, line),
    };
    Ok(Some((item, next)))
}

/// The bulk string at `start` whose header line holds `len`: `$`, `!` (error) or `=` (verbatim).
fn bulk<'a>(
    kind: u8,
    buf: &'a [u8],
    start: usize,
    len: &[u8],
) -> Result<Option<(Item<'a>, usize)>, ReplyError> {
    let end = start + length(len, BULK_BYTES_MAX)?;
    let Some(line_end) = buf.get(end..end + 2) else {
        return Ok(None);
    };
    if line_end != b"\r\n" {
        return Err(ReplyError::LineEnd);
    }
    let text = &buf[start..end];
    let scalar = match (kind, text) {
        (b'$', _) => Scalar::Bulk(text),
        (b'!', _) => Scalar::Error(text),
        (_, [a, b, c, b':', text @ ..]) => Scalar::Verbatim([*a, *b, *c], text),
        _ => return Err(ReplyError::Verbatim),
    };
    Ok(Some((Item::Scalar(scalar), end + 2)))
}

/// The bytes before the first CR LF; `None` when it is not there yet.
fn line(buf: &[u8]) -> Result<Option<&[u8]>, ReplyError> {
    let window = &buf[..buf.len().min(LINE_BYTES_MAX + 1)];
    match memchr(b'\r', window) {
        None if window.len() > LINE_BYTES_MAX => Err(ReplyError::LineTooLong),
        None => Ok(None),
        Some(end) => match buf.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some(&buf[..end])),
            Some(_) => Err(ReplyError::LineEnd),
        },
    }
}

fn count(line: &[u8]) -> Result<usize, ReplyError> {
    length(line, ELEMENTS_MAX)
}

fn length(line: &[u8], max: usize) -> Result<usize, ReplyError> {
    parse_i64(line).and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= max).ok_or(ReplyError::Length)
}

fn double(line: &[u8]) -> Option<f64> {
    core::str::from_utf8(line).ok()?.parse().ok()
}

fn is_whole_number(line: &[u8]) -> bool {
    let digits = line.strip_prefix(b"-").or_else(|| line.strip_prefix(b"+")).unwrap_or(line);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// Builds the value at `at` of a whole frame. Recurses as deep as the frame is nested, which [`frame_len`] has bounded.
fn build(buf: &[u8], mut at: usize) -> Result<Option<(Value, usize)>, ReplyError> {
    loop {
        let Some((item, next)) = item(buf, at)? else {
            return Ok(None);
        };
        at = next;
        let value = match item {
            Item::Integer(n) => Value::Integer(n),
            Item::Scalar(scalar) => owned(scalar),
            Item::Array(n) => Value::Array(build_all(buf, &mut at, n)?),
            Item::Set(n) => Value::Set(build_all(buf, &mut at, n)?),
            Item::Push(n) => Value::Push(build_all(buf, &mut at, n)?),
            Item::Map(n) => {
                let mut elements = build_all(buf, &mut at, n * 2)?.into_iter();
                let mut pairs = Vec::with_capacity(elements.len() / 2);
                while let (Some(key), Some(value)) = (elements.next(), elements.next()) {
                    pairs.push((key, value));
                }
                Value::Map(pairs)
            }
            Item::Attribute(n) => {
                build_all(buf, &mut at, n * 2)?;
                continue;
            }
        };
        return Ok(Some((value, at)));
    }
}

/// Builds `count` values from `at` on and moves `at` behind them.
fn build_all(buf: &[u8], at: &mut usize, count: usize) -> Result<Vec<Value>, ReplyError> {
    let mut values = Vec::with_capacity(count.min((buf.len() - *at) / ELEMENT_BYTES_MIN));
    for _ in 0..count {
        let Some((value, next)) = build(buf, *at)? else {
            break;
        };
        values.push(value);
        *at = next;
    }
    Ok(values)
}

fn owned(scalar: Scalar<'_>) -> Value {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    match scalar {
        Scalar::Null => Value::Null,
        Scalar::Simple(line) => Value::Simple(text(line)),
        Scalar::Error(line) => Value::Error(text(line)),
        Scalar::Bulk(bytes) => Value::Bulk(bytes.to_vec()),
        Scalar::Verbatim(format, bytes) => Value::Verbatim(format, bytes.to_vec()),
        Scalar::Double(n) => Value::Double(n),
        Scalar::Boolean(is_true) => Value::Boolean(is_true),
        Scalar::BigNumber(digits) => Value::BigNumber(text(digits)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses `bytes`, checks that every reader agrees on its length and that no shorter piece is taken for it.
    fn value(bytes: &[u8]) -> Value {
        for len in 0..bytes.len() {
            assert_eq!(parse(&bytes[..len]), Ok(None), "{}", bytes[..len].escape_ascii());
            assert_eq!(frame_len(&bytes[..len]), Ok(None));
        }
        let longer = [bytes, b"+next"].concat();
        assert_eq!(frame_len(&longer), Ok(Some(bytes.len())), "{}", bytes.escape_ascii());
        let (value, len) = parse(&longer).unwrap().unwrap();
        assert_eq!(len, bytes.len());
        value
    }

    fn bulk(text: &str) -> Value {
        Value::Bulk(text.as_bytes().to_vec())
    }

    #[test]
    fn reads_every_type() {
        for (bytes, expected) in [
            (&b"+OK\r\n"[..], Value::Simple("OK".into())),
            (b"-ERR no\r\n", Value::Error("ERR no".into())),
            (b"!6\r\nERR\r\nx\r\n", Value::Error("ERR\r\nx".into())),
            (b":-42\r\n", Value::Integer(-42)),
            (b":+42\r\n", Value::Integer(42)),
            (b"$2\r\n\r\n\r\n", bulk("\r\n")),
            (b"$0\r\n\r\n", bulk("")),
            (b"$-1\r\n", Value::Null),
            (b"*-1\r\n", Value::Null),
            (b"_\r\n", Value::Null),
            (b"*0\r\n", Value::Array(vec![])),
            (
                b"*2\r\n:1\r\n*1\r\n$1\r\na\r\n",
                Value::Array(vec![Value::Integer(1), Value::Array(vec![bulk("a")])]),
            ),
            (b"%1\r\n+a\r\n:1\r\n", Value::Map(vec![(Value::Simple("a".into()), Value::Integer(1))])),
            (b"~1\r\n:1\r\n", Value::Set(vec![Value::Integer(1)])),
            (b">2\r\n+a\r\n*0\r\n", Value::Push(vec![Value::Simple("a".into()), Value::Array(vec![])])),
            (b",-1.5e+3\r\n", Value::Double(-1500.0)),
            (b",inf\r\n", Value::Double(f64::INFINITY)),
            (b"#t\r\n", Value::Boolean(true)),
            (b"#f\r\n", Value::Boolean(false)),
            (b"(-12345678901234567890123\r\n", Value::BigNumber("-12345678901234567890123".into())),
            (b"=6\r\ntxt:hi\r\n", Value::Verbatim(*b"txt", b"hi".to_vec())),
        ] {
            assert_eq!(value(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn skips_attributes_wherever_they_stand() {
        assert_eq!(value(b"|1\r\n+ttl\r\n:9\r\n+OK\r\n"), Value::Simple("OK".into()));
        assert_eq!(value(b"|0\r\n|0\r\n:1\r\n"), Value::Integer(1));
        assert_eq!(
            value(b"*2\r\n|1\r\n+a\r\n*1\r\n+b\r\n:1\r\n:2\r\n"),
            Value::Array(vec![Value::Integer(1), Value::Integer(2)])
        );
    }

    #[test]
    fn refuses_what_is_no_reply() {
        for (bytes, expected) in [
            (&b"hello\r\n"[..], ReplyError::UnknownType(b'h')),
            (b"*1\r\n\r\n", ReplyError::UnknownType(b'\r')),
            (b"+a\rb\r\n", ReplyError::LineEnd),
            (b"$1\r\nabc", ReplyError::LineEnd),
            (b":\r\n", ReplyError::Number),
            (b":1x\r\n", ReplyError::Number),
            (b"#x\r\n", ReplyError::Number),
            (b"_1\r\n", ReplyError::Number),
            (b",x\r\n", ReplyError::Number),
            (b"(1.5\r\n", ReplyError::Number),
            (b"$-2\r\n", ReplyError::Length),
            (b"%-1\r\n", ReplyError::Length),
            (b"$?\r\n", ReplyError::Length),
            (b"$536870913\r\n", ReplyError::Length),
            (b"*268435457\r\n", ReplyError::Length),
            (b"=3\r\ntxt\r\n", ReplyError::Verbatim),
        ] {
            assert_eq!(frame_len(bytes), Err(expected), "{}", bytes.escape_ascii());
            assert_eq!(parse(bytes), Err(expected), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn bounds_depth_and_lines() {
        let nested = |depth: usize| [b"*1\r\n".repeat(depth), b":1\r\n".to_vec()].concat();
        assert!(frame_len(&nested(DEPTH_MAX)).unwrap().is_some());
        assert!(parse(&nested(DEPTH_MAX)).unwrap().is_some());
        assert_eq!(frame_len(&nested(DEPTH_MAX + 1)), Err(ReplyError::TooDeep));
        assert_eq!(parse(&nested(100_000)), Err(ReplyError::TooDeep));

        let mut line = [&b"+"[..], &b"a".repeat(LINE_BYTES_MAX)].concat();
        assert_eq!(frame_len(&line), Ok(None));
        line.extend_from_slice(b"\r\n");
        assert_eq!(frame_len(&line), Ok(Some(line.len())));
        assert_eq!(
            frame_len(&[&b"+"[..], &b"a".repeat(LINE_BYTES_MAX + 1)].concat()),
            Err(ReplyError::LineTooLong)
        );
    }

    #[test]
    fn reserves_nothing_for_announced_elements() {
        assert_eq!(parse(b"*268435456\r\n"), Ok(None));
        assert_eq!(array_elements(b"*268435456\r\n:1\r\n"), None);
    }

    #[test]
    fn splits_arrays_into_their_elements() {
        assert_eq!(
            array_elements(b"*3\r\n$1\r\na\r\n$-1\r\n*1\r\n:1\r\n"),
            Some(vec![&b"$1\r\na\r\n"[..], b"$-1\r\n", b"*1\r\n:1\r\n"])
        );
        assert_eq!(array_elements(b"*0\r\n"), Some(vec![]));
        for bytes in [&b"*1\r\n"[..], b"*1\r\n:1\r\n:2\r\n", b"*-1\r\n", b"~1\r\n:1\r\n", b":1\r\n", b""] {
            assert_eq!(array_elements(bytes), None, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn reads_integers() {
        assert_eq!(integer(b":-7\r\n"), Some(-7));
        for bytes in [&b":7"[..], b":7\r\n:8\r\n", b"$1\r\n7\r\n", b":x\r\n", b""] {
            assert_eq!(integer(bytes), None, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_scanner_goes_on_where_it_stopped() {
        let bytes = b"*3\r\n:1\r\n*1\r\n$3\r\nabc\r\n:2\r\n+OK\r\n";
        let first = bytes.len() - b"+OK\r\n".len();
        let mut scanner = FrameScanner::default();
        for len in 0..first {
            assert_eq!(scanner.scan(&bytes[..len]), Ok(None), "{len}");
        }
        assert_eq!(scanner.at, first - b":2\r\n".len());
        assert_eq!(scanner.scan(bytes), Ok(Some(first)));
        assert_eq!(scanner.scan(&bytes[first..]), Ok(Some(5)));
    }
}
