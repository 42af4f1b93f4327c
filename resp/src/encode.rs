//! Replies -> bytes.

use crate::ProtocolError;

/// Protocol version of a connection (`HELLO 2` or `HELLO 3`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub enum Protocol {
    /// RESP2, the default of every new connection.
    #[default]
    Resp2,
    /// RESP3.
    Resp3,
}

/// Appends replies to a buffer in the form of one protocol version.
///
/// A header method (`array`, `map`, `set`, `push`) is followed by the calls that write its elements.
/// What RESP2 lacks is written as Redis 7 writes it there.
#[derive(Debug)]
pub struct ReplyWriter<'a> {
    out: &'a mut Vec<u8>,
    protocol: Protocol,
}

impl<'a> ReplyWriter<'a> {
    /// Creates a writer that appends to `out`.
    pub fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Self {
        Self { out, protocol }
    }

    /// The protocol version that is written.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Appends bytes that are a whole reply already.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    /// A simple string. CR and LF become spaces.
    pub fn simple(&mut self, text: &str) {
        self.one_line(b'+', text.as_bytes());
    }

    /// An error with its prefix, such as `ERR syntax error`. CR and LF become spaces.
    pub fn error(&mut self, text: &str) {
        self.one_line(b'-', text.as_bytes());
    }

    /// Redis's answer to bytes that are no command; the connection is closed after it.
    pub fn protocol_error(&mut self, error: &ProtocolError) {
        match error {
            // The byte as it came, like Redis: as a `char` it could become two bytes.
            ProtocolError::ExpectedBulk(got) => {
                let got = u8::try_from(u32::from(*got)).unwrap_or(b'?');
                self.one_line(b'-', &[b"ERR Protocol error: expected '$', got '", &[got][..], b"'"].concat());
            }
            ProtocolError::MultibulkLength
            | ProtocolError::BulkLength
            | ProtocolError::InlineTooBig
            | ProtocolError::MultibulkTooBig
            | ProtocolError::BulkTooBig
            | ProtocolError::UnbalancedQuotes => self.error(&format!("ERR Protocol error: {error}")),
        }
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, n: i64) {
        if n < 0 {
            self.raw(b":-");
            self.decimal(n.unsigned_abs());
        } else {
            self.header(b':', n.unsigned_abs());
        }
    }

    /// A bulk string.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + DECIMAL_BYTES_MAX + 5);
        self.header(b'$', bytes.len() as u64);
        self.raw(bytes);
        self.raw(b"\r\n");
    }

    /// The head of a bulk string of `len` bytes, which the caller sends behind it, with a line end.
    pub fn bulk_head(&mut self, len: usize) {
        self.header(b'$', len as u64);
    }

    /// The null of a missing value: `$-1` (RESP2) or `_` (RESP3).
    #[inline]
    pub fn null(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.raw(b"$-1\r\n"),
            Protocol::Resp3 => self.raw(b"_\r\n"),
        }
    }

    /// The null in place of an array: `*-1` (RESP2) or `_` (RESP3).
    pub fn null_array(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.raw(b"*-1\r\n"),
            Protocol::Resp3 => self.raw(b"_\r\n"),
        }
    }

    /// The header of an array of `len` elements, which the caller writes next.
    #[inline]
    pub fn array(&mut self, len: usize) {
        self.header(b'*', len as u64);
    }

    /// An array without elements.
    pub fn empty_array(&mut self) {
        self.raw(b"*0\r\n");
    }

    /// The header of a map of `pairs` keys and values (RESP2: an array of twice as many elements).
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(pairs * 2),
            Protocol::Resp3 => self.header(b'%', pairs as u64),
        }
    }

    /// The header of a set of `len` elements (RESP2: an array).
    pub fn set(&mut self, len: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(len),
            Protocol::Resp3 => self.header(b'~', len as u64),
        }
    }

    /// The header of a push message of `len` elements, its kind first (RESP2: an array).
    pub fn push(&mut self, len: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(len),
            Protocol::Resp3 => self.header(b'>', len as u64),
        }
    }

    /// A floating point number in its shortest exact form (RESP2: a bulk string).
    pub fn double(&mut self, n: f64) {
        let text = double_text(n);
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => self.line(b',', text.as_bytes()),
        }
    }

    /// A truth value (RESP2: the integer 1 or 0).
    pub fn boolean(&mut self, is_true: bool) {
        self.raw(match (self.protocol, is_true) {
            (Protocol::Resp2, true) => b":1\r\n",
            (Protocol::Resp2, false) => b":0\r\n",
            (Protocol::Resp3, true) => b"#t\r\n",
            (Protocol::Resp3, false) => b"#f\r\n",
        });
    }

    /// Text to be shown as it is, with its format such as `txt` or `mkd` (RESP2: a bulk string).
    pub fn verbatim(&mut self, format: &[u8; 3], text: &[u8]) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => {
                self.header(b'=', (format.len() + 1 + text.len()) as u64);
                self.raw(format);
                self.out.push(b':');
                self.raw(text);
                self.raw(b"\r\n");
            }
        }
    }

    /// A whole number of any size, in decimal digits with an optional sign (RESP2: a bulk string).
    pub fn big_number(&mut self, digits: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(digits.as_bytes()),
            Protocol::Resp3 => self.line(b'(', digits.as_bytes()),
        }
    }

    fn one_line(&mut self, kind: u8, text: &[u8]) {
        self.out.push(kind);
        self.out.extend(text.iter().map(|&b| if b == b'\r' || b == b'\n' { b' ' } else { b }));
        self.raw(b"\r\n");
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.out.push(kind);
        self.raw(text);
        self.raw(b"\r\n");
    }

    #[inline]
    fn header(&mut self, kind: u8, n: u64) {
        // Most headers and counters: one copy of known size.
        if n < 10 {
            self.raw(&[kind, b'0' + n as u8, b'\r', b'\n']);
        } else {
            self.out.push(kind);
            self.decimal(n);
        }
    }

    /// Digits and line end in one copy, without the formatting machinery: every reply with a length passes here.
    #[inline]
    fn decimal(&mut self, mut n: u64) {
        let mut text = [0; DECIMAL_BYTES_MAX + 2];
        text[DECIMAL_BYTES_MAX..].copy_from_slice(b"\r\n");
        let mut start = DECIMAL_BYTES_MAX;
        loop {
            start -= 1;
            text[start] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                break;
            }
        }
        self.raw(&text[start..]);
    }
}

/// Digits of the largest `u64`.
const DECIMAL_BYTES_MAX: usize = 20;

/// Shortest text that reads back as `n`, in the spelling of Redis: `inf`, `-inf`, `nan`, `1e+20`.
fn double_text(n: f64) -> String {
    let magnitude = n.abs();
    if n.is_nan() {
        "nan".to_owned()
    } else if n.is_infinite() {
        if n > 0.0 { "inf" } else { "-inf" }.to_owned()
    } else if magnitude != 0.0 && !(1e-4..1e17).contains(&magnitude) {
        let text = format!("{n:e}");
        if magnitude >= 1.0 { text.replace('e', "e+") } else { text }
    } else {
        format!("{n}")
    }
}

/// Appends a command as clients send it: an array of bulk strings.
pub fn write_command(args: &[impl AsRef<[u8]>], out: &mut Vec<u8>) {
    let mut writer = ReplyWriter::new(out, Protocol::Resp2);
    writer.array(args.len());
    for arg in args {
        writer.bulk(arg.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(protocol: Protocol, write: impl FnOnce(&mut ReplyWriter<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut ReplyWriter::new(&mut out, protocol));
        String::from_utf8(out).unwrap()
    }

    /// Writes with both protocols.
    fn both(write: impl Fn(&mut ReplyWriter<'_>)) -> [String; 2] {
        [written(Protocol::Resp2, &write), written(Protocol::Resp3, &write)]
    }

    #[test]
    fn integers_of_every_length_are_written_as_the_formatter_would() {
        let mut samples = vec![0, 1, -1, i64::MAX, i64::MIN];
        samples.extend((0..19).flat_map(|e| [10_i64.pow(e), 10_i64.pow(e) - 1, -10_i64.pow(e)]));
        for n in samples {
            assert_eq!(written(Protocol::Resp2, |w| w.integer(n)), format!(":{n}\r\n"));
        }
    }

    #[test]
    fn each_type_has_its_form_in_both_protocols() {
        assert_eq!(both(|w| w.ok()), ["+OK\r\n", "+OK\r\n"]);
        assert_eq!(both(|w| w.null()), ["$-1\r\n", "_\r\n"]);
        assert_eq!(both(|w| w.null_array()), ["*-1\r\n", "_\r\n"]);
        assert_eq!(both(|w| w.empty_array()), ["*0\r\n", "*0\r\n"]);
        assert_eq!(both(|w| w.array(12)), ["*12\r\n", "*12\r\n"]);
        assert_eq!(both(|w| w.map(2)), ["*4\r\n", "%2\r\n"]);
        assert_eq!(both(|w| w.set(2)), ["*2\r\n", "~2\r\n"]);
        assert_eq!(both(|w| w.push(3)), ["*3\r\n", ">3\r\n"]);
        assert_eq!(both(|w| w.bulk(b"")), ["$0\r\n\r\n", "$0\r\n\r\n"]);
        assert_eq!(both(|w| w.bulk(b"a\r\nb")), ["$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n"]);
        assert_eq!(both(|w| w.boolean(true)), [":1\r\n", "#t\r\n"]);
        assert_eq!(both(|w| w.boolean(false)), [":0\r\n", "#f\r\n"]);
        assert_eq!(both(|w| w.double(1.5)), ["$3\r\n1.5\r\n", ",1.5\r\n"]);
        assert_eq!(both(|w| w.verbatim(b"txt", b"hi")), ["$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"]);
        assert_eq!(both(|w| w.big_number("-12")), ["$3\r\n-12\r\n", "(-12\r\n"]);
    }

    #[test]
    fn simple_strings_and_errors_stay_one_line() {
        assert_eq!(both(|w| w.simple("a\r\nb")), ["+a  b\r\n", "+a  b\r\n"]);
        assert_eq!(both(|w| w.error("ERR a\r\nb")), ["-ERR a  b\r\n", "-ERR a  b\r\n"]);
    }

    #[test]
    fn an_unexpected_byte_is_shown_as_it_came() {
        let mut out = Vec::new();
        ReplyWriter::new(&mut out, Protocol::Resp2).protocol_error(&ProtocolError::ExpectedBulk('\u{ff}'));
        assert_eq!(out, b"-ERR Protocol error: expected '$', got '\xff'\r\n");
    }

    #[test]
    fn doubles_read_back_exactly() {
        for (n, text) in [
            (0.0, "0"),
            (-3.0, "-3"),
            (0.1, "0.1"),
            (1e20, "1e+20"),
            (1.5e-7, "1.5e-7"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(double_text(n), text);
        }
        for n in [f64::MAX, f64::MIN_POSITIVE, f64::EPSILON, 1.0 / 3.0, 123_456_789.125] {
            assert_eq!(double_text(n).parse::<f64>().unwrap(), n);
        }
    }
}
