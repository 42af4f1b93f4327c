//! Client bytes -> commands.

use core::ops::Range;

use memchr::{memchr, memchr2};

use crate::decimal::parse_i64;

/// Bounds on what a client may send; passing one ends the connection with Redis's own error text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest bulk string, bytes (Redis: `proto-max-bulk-len`).
    pub bulk_bytes_max: usize,
    /// Most arguments of one command, the name included.
    pub args_max: usize,
    /// Longest inline command, and longest line of a header, bytes without the line's end; at least 3.
    pub inline_bytes_max: usize,
    /// Most bytes of one whole command; the argument that would pass it is refused as a bulk string too long.
    pub command_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bulk_bytes_max: 32 << 20,
            args_max: 1 << 20,
            inline_bytes_max: 64 << 10,
            command_bytes_max: 48 << 20,
        }
    }
}

/// Why a client's bytes are not a command; the text is what Redis answers after `-ERR Protocol error: `.
///
/// [`ReplyWriter::protocol_error`](crate::ReplyWriter::protocol_error) writes the whole answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// `*N` with N out of range or not a number, or an inline command of too many arguments.
    #[error("invalid multibulk length")]
    MultibulkLength,
    /// `$N` with N out of range or not a number, or a command of too many bytes.
    #[error("invalid bulk length")]
    BulkLength,
    /// Something else than `$` where a bulk string must start; the byte as a Latin-1 character.
    #[error("expected '$', got '{0}'")]
    ExpectedBulk(char),
    /// An inline command longer than the limit.
    #[error("too big inline request")]
    InlineTooBig,
    /// A header line `*N` longer than the limit.
    #[error("too big mbulk count string")]
    MultibulkTooBig,
    /// A header line `$N` longer than the limit.
    #[error("too big bulk count string")]
    BulkTooBig,
    /// Unbalanced quotes in an inline command.
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
}

/// Outcome of one [`CommandDecoder::decode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// A whole command: its arguments are in [`CommandDecoder::args`]; drop `consumed` bytes from the buffer after use.
    /// Zero arguments (an empty line, `*0`) are to be skipped without a reply.
    Complete {
        /// Bytes of the buffer that the command took.
        consumed: usize,
    },
    /// More bytes are needed; call again with the same buffer, longer. Nothing already scanned is scanned again.
    Incomplete,
}

/// Incremental decoder of one connection. The caller keeps the bytes; the decoder keeps offsets into them.
///
/// ```text
///         "*N"           "$L"
///  Start ------> Header -----> Body --+
///    |             ^   arguments left |
///    | other byte  +------------------+
///    v                                | the last argument
///  an inline command: one line        v
///    +----------------------------> Complete, then Start again
/// ```
///
/// It takes what Redis 7 takes (checked against 7.0.15), and so is as lenient: any two bytes may end a bulk string, and any
/// byte may follow the CR of a header line. Two differences: a NUL is a byte like others, where Redis waits for ever,
/// and the limit of a line holds even when its end arrived in the same read.
///
/// # Invariants
/// - Memory is bounded by the bytes received, never by a count or length that was announced.
/// - `offset <= scanned`, and no line end lies between them.
#[derive(Debug, Default)]
pub struct CommandDecoder {
    limits: Limits,
    args: Vec<Range<usize>>,
    /// Arguments of an inline command with quotes, unescaped.
    scratch: Vec<u8>,
    /// Whether `args` are ranges of `scratch` instead of the buffer.
    is_in_scratch: bool,
    state: State,
    /// Start of the line or bulk string that is being read.
    offset: usize,
    /// Where to go on looking for the end of the current line.
    scanned: usize,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    /// At the first byte of a command, or in its first line.
    #[default]
    Start,
    /// In the line `$L` of an argument; `left` arguments are to come.
    Header { left: usize },
    /// In the `len` bytes of an argument; `left` arguments are to come, this one included.
    Body { left: usize, len: usize },
}

/// Arguments for which memory is kept from one command to the next.
const ARGS_KEPT_MAX: usize = 1024;

/// Bytes of unescaped text for which memory is kept from one command to the next.
const SCRATCH_BYTES_KEPT_MAX: usize = 4096;

/// Longest header line that is found without a search: its kind and two digits.
const SHORT_HEADER_BYTES: usize = 3;

/// CR LF after a bulk string.
const LINE_END_BYTES: usize = 2;

impl CommandDecoder {
    /// Creates a decoder with the given bounds.
    pub fn new(mut limits: Limits) -> Self {
        limits.inline_bytes_max = limits.inline_bytes_max.max(SHORT_HEADER_BYTES);
        Self { limits, ..Self::default() }
    }

    /// Decodes the next command at the start of `buf`.
    ///
    /// After `Incomplete` the next call must pass the same bytes with more behind them.
    ///
    /// # Errors
    /// The bytes can never become a command: answer the error and close the connection.
    pub fn decode(&mut self, buf: &[u8]) -> Result<Status, ProtocolError> {
        loop {
            match self.state {
                State::Start => {
                    self.forget_last();
                    match buf.first() {
                        None => return Ok(Status::Incomplete),
                        Some(b'*') => {}
                        Some(_) => return self.decode_inline(buf),
                    }
                    let Some(line) = self.header_line(buf, ProtocolError::MultibulkTooBig)? else {
                        return Ok(Status::Incomplete);
                    };
                    let count = parse_i64(&buf[1..line.end]).ok_or(ProtocolError::MultibulkLength)?;
                    let left = usize::try_from(count).unwrap_or(0);
                    if left > self.limits.args_max {
                        return Err(ProtocolError::MultibulkLength);
                    }
                    self.go_to(line.end + LINE_END_BYTES);
                    if left == 0 {
                        return Ok(self.complete());
                    }
                    self.state = State::Header { left };
                }
                State::Header { left } => {
                    let Some(line) = self.header_line(buf, ProtocolError::BulkTooBig)? else {
                        return Ok(Status::Incomplete);
                    };
                    let first = buf[line.start];
                    if first != b'$' {
                        return Err(ProtocolError::ExpectedBulk(char::from(first)));
                    }
                    let len = parse_i64(&buf[line.start + 1..line.end])
                        .and_then(|len| usize::try_from(len).ok())
                        .filter(|len| *len <= self.limits.bulk_bytes_max)
                        .ok_or(ProtocolError::BulkLength)?;
                    let body = line.end + LINE_END_BYTES;
                    if body.saturating_add(len) > self.limits.command_bytes_max.saturating_sub(LINE_END_BYTES)
                    {
                        return Err(ProtocolError::BulkLength);
                    }
                    self.go_to(body);
                    self.state = State::Body { left, len };
                }
                State::Body { left, len } => {
                    let end = self.offset + len;
                    if buf.len() < end + LINE_END_BYTES {
                        return Ok(Status::Incomplete);
                    }
                    self.args.push(self.offset..end);
                    self.go_to(end + LINE_END_BYTES);
                    if left == 1 {
                        return Ok(self.complete());
                    }
                    self.state = State::Header { left: left - 1 };
                }
            }
        }
    }

    /// Byte ranges (into the buffer that was decoded) of the arguments of the last complete command, its name first.
    /// For an inline command with quoting the unescaped text is not in the buffer: see [`CommandDecoder::arg`].
    pub fn args(&self) -> &[Range<usize>] {
        &self.args
    }

    /// Argument `i` of the last complete command; `buf` is the buffer that was decoded.
    ///
    /// # Panics
    /// If there is no argument `i`, or `buf` is another buffer.
    pub fn arg<'a>(&'a self, buf: &'a [u8], i: usize) -> &'a [u8] {
        &self.source(buf)[self.args[i].clone()]
    }

    /// The arguments of the last complete command, its name first; `buf` is the buffer that was decoded.
    ///
    /// # Panics
    /// The iterator panics if `buf` is another buffer.
    pub fn iter<'a>(&'a self, buf: &'a [u8]) -> impl ExactSizeIterator<Item = &'a [u8]> {
        let source = self.source(buf);
        self.args.iter().map(move |range| &source[range.clone()])
    }

    fn source<'a>(&'a self, buf: &'a [u8]) -> &'a [u8] {
        if self.is_in_scratch { &self.scratch } else { buf }
    }

    fn forget_last(&mut self) {
        self.args.clear();
        self.args.shrink_to(ARGS_KEPT_MAX);
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_BYTES_KEPT_MAX);
        self.is_in_scratch = false;
    }

    fn go_to(&mut self, offset: usize) {
        self.offset = offset;
        self.scanned = offset;
    }

    fn complete(&mut self) -> Status {
        let consumed = self.offset;
        self.go_to(0);
        self.state = State::Start;
        Status::Complete { consumed }
    }

    /// The header line at `offset` without its end; `None` until the line and the byte after its CR are there.
    fn header_line(
        &mut self,
        buf: &[u8],
        too_big: ProtocolError,
    ) -> Result<Option<Range<usize>>, ProtocolError> {
        // Most headers have one or two digits: a look at two bytes costs less than a search.
        let end = match buf.get(self.offset..self.offset + SHORT_HEADER_BYTES + 1) {
            Some([kind, digit, b'\r', _]) if ![kind, digit].contains(&&b'\r') => self.offset + 2,
            Some([kind, digit, second, b'\r']) if ![kind, digit, second].contains(&&b'\r') => {
                self.offset + SHORT_HEADER_BYTES
            }
            _ => match self.line_end(buf, b'\r', too_big)? {
                Some(end) => end,
                None => return Ok(None),
            },
        };
        self.scanned = end;
        Ok((end + 1 < buf.len()).then_some(self.offset..end))
    }

    /// Where the line at `offset` ends: the first `end_byte`, at most `inline_bytes_max` bytes on.
    fn line_end(
        &mut self,
        buf: &[u8],
        end_byte: u8,
        too_big: ProtocolError,
    ) -> Result<Option<usize>, ProtocolError> {
        let window_end =
            buf.len().min(self.offset.saturating_add(self.limits.inline_bytes_max).saturating_add(1));
        let unseen = buf.get(self.scanned..window_end).unwrap_or_default();
        if let Some(found) = memchr(end_byte, unseen) {
            return Ok(Some(self.scanned + found));
        }
        if window_end.saturating_sub(self.offset) > self.limits.inline_bytes_max {
            return Err(too_big);
        }
        self.scanned = self.scanned.max(window_end);
        Ok(None)
    }

    fn decode_inline(&mut self, buf: &[u8]) -> Result<Status, ProtocolError> {
        let Some(end) = self.line_end(buf, b'\n', ProtocolError::InlineTooBig)? else {
            return Ok(Status::Incomplete);
        };
        let line = &buf[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if memchr2(b'"', b'\'', line).is_some() {
            self.is_in_scratch = true;
            self.split_quoted(line).ok_or(ProtocolError::UnbalancedQuotes)?;
        } else {
            self.split_bare(line);
        }
        if self.args.len() > self.limits.args_max {
            return Err(ProtocolError::MultibulkLength);
        }
        self.go_to(end + 1);
        Ok(self.complete())
    }

    /// Splits a line without quotes; the arguments stay where they are.
    fn split_bare(&mut self, line: &[u8]) {
        let mut i = skip_blanks(line, 0);
        while i < line.len() {
            let len = line[i..].iter().position(|b| ends_bare_word(*b)).unwrap_or(line.len() - i);
            self.args.push(i..i + len);
            i = skip_blanks(line, i + len);
        }
    }

    /// Splits and unescapes a line into `scratch` (Redis's `sdssplitargs`); `None` when the quotes are not balanced.
    fn split_quoted(&mut self, line: &[u8]) -> Option<()> {
        let mut i = skip_blanks(line, 0);
        while i < line.len() {
            let start = self.scratch.len();
            while let Some(&byte) = line.get(i) {
                if ends_bare_word(byte) {
                    break;
                }
                if byte != b'"' && byte != b'\'' {
                    self.scratch.push(byte);
                    i += 1;
                    continue;
                }
                i = match byte {
                    b'"' => self.unescape_double_quoted(line, i + 1)?,
                    _ => self.unescape_single_quoted(line, i + 1)?,
                };
                // A closing quote ends the argument: nothing but a blank may follow it.
                if line.get(i).is_some_and(|b| !is_blank(*b)) {
                    return None;
                }
                break;
            }
            self.args.push(start..self.scratch.len());
            i = skip_blanks(line, i);
        }
        Some(())
    }

    /// Unescapes from `i`, behind the opening quote; returns where the text behind the closing quote starts.
    fn unescape_double_quoted(&mut self, line: &[u8], mut i: usize) -> Option<usize> {
        loop {
            match *line.get(i..)? {
                [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                    self.scratch.push(hex_value(high) << 4 | hex_value(low));
                    i += 4;
                }
                [b'\\', escaped, ..] => {
                    self.scratch.push(match escaped {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'b' => 0x08,
                        b'a' => 0x07,
                        other => other,
                    });
                    i += 2;
                }
                [b'"', ..] => return Some(i + 1),
                [byte, ..] => {
                    self.scratch.push(byte);
                    i += 1;
                }
                [] => return None,
            }
        }
    }

    /// As [`Self::unescape_double_quoted`]; only `\'` is an escape here.
    fn unescape_single_quoted(&mut self, line: &[u8], mut i: usize) -> Option<usize> {
        loop {
            match *line.get(i..)? {
                [b'\\', b'\'', ..] => {
                    self.scratch.push(b'\'');
                    i += 2;
                }
                [b'\'', ..] => return Some(i + 1),
                [byte, ..] => {
                    self.scratch.push(byte);
                    i += 1;
                }
                [] => return None,
            }
        }
    }
}

/// C's `isspace`.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Narrower than [`is_blank`], as in Redis: a vertical tab or form feed inside a word belongs to it.
fn ends_bare_word(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

fn skip_blanks(line: &[u8], from: usize) -> usize {
    line[from..].iter().position(|b| !is_blank(*b)).map_or(line.len(), |blanks| from + blanks)
}

/// Value of an ASCII hexadecimal digit.
fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a connection made of some bytes: its commands, and the error that ended it.
    type Outcome = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

    /// Feeds `bytes` in pieces of `piece` bytes, as a connection would.
    fn feed(limits: Limits, bytes: &[u8], piece: usize) -> Outcome {
        let mut decoder = CommandDecoder::new(limits);
        let (mut buf, mut commands) = (Vec::new(), Vec::new());
        for part in bytes.chunks(piece) {
            buf.extend_from_slice(part);
            loop {
                match decoder.decode(&buf) {
                    Ok(Status::Complete { consumed }) => {
                        if !decoder.args().is_empty() {
                            commands.push(decoder.iter(&buf).map(<[u8]>::to_vec).collect());
                        }
                        buf.drain(..consumed);
                    }
                    Ok(Status::Incomplete) => break,
                    Err(error) => return (commands, Some(error)),
                }
            }
        }
        (commands, None)
    }

    /// The outcome, which must not depend on the pieces.
    fn outcome(limits: Limits, bytes: &[u8]) -> Outcome {
        let whole = feed(limits, bytes, bytes.len().max(1));
        for piece in [1, 2, 3, 7] {
            assert_eq!(feed(limits, bytes, piece), whole, "in pieces of {piece}");
        }
        whole
    }

    fn args(bytes: &[u8]) -> Vec<Vec<u8>> {
        let (mut commands, error) = outcome(Limits::default(), bytes);
        assert_eq!((commands.len(), error), (1, None), "{}", bytes.escape_ascii());
        commands.remove(0)
    }

    fn error(bytes: &[u8]) -> String {
        match outcome(Limits::default(), bytes) {
            (commands, Some(error)) if commands.is_empty() => error.to_string(),
            other => panic!("{}: {other:?}", bytes.escape_ascii()),
        }
    }

    #[test]
    fn takes_arrays_as_redis_does() {
        let ping: &[&[u8]] = &[b"PING"];
        for bytes in [
            &b"*1\r\n$4\r\nPING\r\n"[..],
            b"*0\r\n*1\r\n$4\r\nPING\r\n",
            b"*-1\r\n*-5\r\n*1\r\n$4\r\nPING\r\n",
            b"*1\rx$4\rxPINGxx",
        ] {
            assert_eq!(args(bytes), ping, "{}", bytes.escape_ascii());
        }
        assert_eq!(args(b"*2\r\n$0\r\n\r\n$3\r\n\r\n\0\r\n"), [&b""[..], b"\r\n\0"]);
    }

    #[test]
    fn leaves_the_arguments_where_they_are() {
        let buf = b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n+";
        let mut decoder = CommandDecoder::default();
        assert_eq!(decoder.decode(buf), Ok(Status::Complete { consumed: buf.len() - 1 }));
        assert_eq!(decoder.args(), [8..12, 18..20]);
        assert_eq!(decoder.arg(buf, 1), b"hi");
    }

    /// Requests and the errors that redis-server 7.0.15 answered.
    #[test]
    fn refuses_arrays_with_the_words_of_redis() {
        for (bytes, text) in [
            (&b"*a\r\n"[..], "invalid multibulk length"),
            (b"*\r\n", "invalid multibulk length"),
            (b"*+1\r\n", "invalid multibulk length"),
            (b"* 1\r\n", "invalid multibulk length"),
            (b"*01\r\n", "invalid multibulk length"),
            (b"*-0\r\n", "invalid multibulk length"),
            (b"*1\n$4\r\nPING\r\n", "invalid multibulk length"),
            (b"*2147483648\r\n", "invalid multibulk length"),
            (b"*99999999999999999999\r\n", "invalid multibulk length"),
            (b"*1\r\n+PING\r\n", "expected '$', got '+'"),
            (b"*1\r\nx\r\n", "expected '$', got 'x'"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$-0\r\n", "invalid bulk length"),
            (b"*1\r\n$04\r\nPING\r\n", "invalid bulk length"),
            (b"*1\r\n$a\r\n", "invalid bulk length"),
            (b"*1\r\n$\r\n", "invalid bulk length"),
            (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        ] {
            assert_eq!(error(bytes), text, "{}", bytes.escape_ascii());
        }
        // Redis waits for the line to end before it looks at it.
        assert_eq!(outcome(Limits::default(), b"*1\r\nxxxx"), (vec![], None));
    }

    /// Lines and the arguments that redis-server 7.0.15 understood.
    #[test]
    fn an_empty_header_line_is_refused_as_soon_as_it_is_there() {
        let error = ProtocolError::ExpectedBulk('\r');
        for line in ["\r\n", "\r:\n\r", "\r:\r\n", "\r12\r"] {
            let bytes = format!("*1\r\n{line}");
            assert_eq!(
                outcome(Limits::default(), bytes.as_bytes()),
                (vec![], Some(error.clone())),
                "{line:?}"
            );
        }
    }

    #[test]
    fn splits_inline_commands_as_redis_does() {
        for (line, expected) in [
            (&b"PING\n"[..], &[&b"PING"[..]][..]),
            (b"PING\r\n", &[b"PING"]),
            (b"\r\n\n  \r\nPING\r\n", &[b"PING"]),
            (b"\x0bPING a\r\r\n", &[b"PING", b"a"]),
            (b"PING\ta\x0bb\r\n", &[b"PING", b"a\x0bb"]),
            (b"PING\x0ca\r\n", &[b"PING\x0ca"]),
            (b"PING a\rb\r\n", &[b"PING", b"a", b"b"]),
            (b"PING a\0b\r\n", &[b"PING", b"a\0b"]),
            (b"PING \"a b\" c\r\n", &[b"PING", b"a b", b"c"]),
            (b"PING a\"b c\"\r\n", &[b"PING", b"ab c"]),
            (b"PING \"\" ''\r\n", &[b"PING", b"", b""]),
            (b"PING \"a\"\x0bb\r\n", &[b"PING", b"a", b"b"]),
            (b"PING \"\\x41\\n\\r\\t\\b\\a\\\\\\\"\\q\"\r\n", &[b"PING", b"A\n\r\t\x08\x07\\\"q"]),
            (b"PING \"\\xfF\\x4\\xZZ\"\r\n", &[b"PING", b"\xffx4xZZ"]),
            (b"PING 'it\\'s \\n'\r\n", &[b"PING", b"it's \\n"]),
            (b"\"\" a\r\n", &[b"", b"a"]),
        ] {
            assert_eq!(args(line), expected, "{}", line.escape_ascii());
        }
        for line in [
            &b"PING \"a\r\n"[..],
            b"PING 'a\r\n",
            b"PING \"a\"b\r\n",
            b"PING 'a'b\r\n",
            b"PING \"\"a\r\n",
            b"PING \"a\\\"\r\n",
            b"PING 'a\\\r\n",
            b"PING \"a\nb\"\r\n",
        ] {
            assert_eq!(error(line), "unbalanced quotes in request", "{}", line.escape_ascii());
        }
    }

    #[test]
    fn bounds_lines_at_the_byte_where_redis_does() {
        let limits = Limits::default();
        let at_limit = |start: &str, fill: &str| {
            [start.as_bytes(), &fill.as_bytes().repeat(limits.inline_bytes_max - 1)].concat()
        };
        for (before, start, fill, expected) in [
            ("", "a", "a", ProtocolError::InlineTooBig),
            ("", "*", "1", ProtocolError::MultibulkTooBig),
            ("*1\r\n", "$", "1", ProtocolError::BulkTooBig),
            ("*1\r\n", "x", "x", ProtocolError::BulkTooBig),
        ] {
            let mut bytes = [before.as_bytes(), &at_limit(start, fill)].concat();
            assert_eq!(feed(limits, &bytes, 1000), (vec![], None));
            bytes.push(b'1');
            assert_eq!(feed(limits, &bytes, 1000), (vec![], Some(expected.clone())));
            // The same when the end is there: what a line may be does not depend on the reads.
            bytes.extend_from_slice(b"\r\n");
            assert_eq!(feed(limits, &bytes, bytes.len()), (vec![], Some(expected)));
        }
        let mut longest = at_limit("a", "a");
        longest.push(b'\n');
        assert_eq!(feed(limits, &longest, 1000).0.len(), 1);
    }

    #[test]
    fn bounds_counts_and_bytes() {
        let limits = Limits { bulk_bytes_max: 8, args_max: 3, inline_bytes_max: 32, command_bytes_max: 40 };
        let fits = b"*3\r\n$8\r\n12345678\r\n$8\r\n12345678\r\n$0\r\n\r\n";
        assert_eq!(fits.len(), 38);
        assert_eq!(outcome(limits, fits).1, None);
        assert_eq!(outcome(limits, b"*3\r\n$8\r\n12345678\r\n$8\r\n12345678\r\n$2\r\nab\r\n").1, None);
        for (bytes, expected) in [
            (&b"*4\r\n"[..], ProtocolError::MultibulkLength),
            (b"a b c d\r\n", ProtocolError::MultibulkLength),
            (b"*1\r\n$9\r\n", ProtocolError::BulkLength),
            (b"*3\r\n$8\r\n12345678\r\n$8\r\n12345678\r\n$3\r\n", ProtocolError::BulkLength),
        ] {
            assert_eq!(outcome(limits, bytes).1, Some(expected), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn memory_follows_the_bytes_received_not_the_counts_announced() {
        let mut decoder = CommandDecoder::default();
        let announced = b"*1048576\r\n$33554432\r\n";
        assert_eq!(decoder.decode(announced), Ok(Status::Incomplete));
        assert_eq!((decoder.args.capacity(), decoder.scratch.capacity()), (0, 0));

        let many = [&b"*100000\r\n"[..], &b"$0\r\n\r\n".repeat(100_000)].concat();
        let mut decoder = CommandDecoder::default();
        assert_eq!(decoder.decode(&many), Ok(Status::Complete { consumed: many.len() }));
        assert!(decoder.args.capacity() >= 100_000);
        assert_eq!(decoder.decode(b""), Ok(Status::Incomplete));
        assert!(decoder.args.capacity() <= ARGS_KEPT_MAX);
    }

    #[test]
    fn looks_at_no_byte_of_a_line_twice() {
        let mut decoder = CommandDecoder::default();
        let line = b"*1\r\n$1111";
        assert_eq!(decoder.decode(line), Ok(Status::Incomplete));
        assert_eq!((decoder.offset, decoder.scanned), (4, line.len()));
    }
}
