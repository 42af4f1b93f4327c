//! Replies -> bytes.

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
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    /// A simple string; `text` holds no CR or LF.
    pub fn simple(&mut self, text: &str) {
        self.out.push(b'+');
        self.raw(text.as_bytes());
        self.raw(b"\r\n");
    }

    /// An error with its prefix, such as `ERR syntax error`. CR and LF become spaces.
    pub fn error(&mut self, text: &str) {
        self.out.push(b'-');
        self.out.extend(text.bytes().map(|b| if b == b'\r' || b == b'\n' { b' ' } else { b }));
        self.raw(b"\r\n");
    }

    /// An integer.
    pub fn integer(&mut self, n: i64) {
        self.out.push(b':');
        self.number(n);
    }

    /// A bulk string.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.push(b'$');
        self.number(bytes.len() as i64);
        self.raw(bytes);
        self.raw(b"\r\n");
    }

    /// The null of a missing value: `$-1` (RESP2) or `_` (RESP3).
    pub fn null(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.raw(b"$-1\r\n"),
            Protocol::Resp3 => self.raw(b"_\r\n"),
        }
    }

    /// The header of an array of `len` elements, which the caller writes next.
    pub fn array(&mut self, len: usize) {
        self.out.push(b'*');
        self.number(len as i64);
    }

    /// The header of a map of `pairs` keys and values (RESP2: an array of twice as many elements).
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(pairs * 2),
            Protocol::Resp3 => {
                self.out.push(b'%');
                self.number(pairs as i64);
            }
        }
    }

    /// The header of a set of `len` elements (RESP2: an array).
    pub fn set(&mut self, len: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(len),
            Protocol::Resp3 => {
                self.out.push(b'~');
                self.number(len as i64);
            }
        }
    }

    fn number(&mut self, n: i64) {
        use std::io::Write as _;
        write!(self.out, "{n}\r\n").expect("a Vec takes every write");
    }
}
