//! A client that sees the bytes.

use ringfort_resp::reply::{Value, frame_len, parse};
use ringfort_wire::FEATURE_LEVEL;
use ringfort_wire::hello::{Channel, Hello};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for a connection or for bytes. Above the proxy's own deadline of 5 s.
const TIMEOUT: Duration = Duration::from_secs(15);

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    /// Bytes of `input` that are replies already returned.
    taken: usize,
}

impl Client {
    /// Connects.
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    /// Connects, or says why not.
    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, input: Vec::new(), taken: 0 })
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Another handle of the connection, to send on while replies are read.
    pub(crate) fn sender(&self) -> TcpStream {
        self.stream.try_clone().expect("a handle")
    }

    /// The bytes of the next reply.
    pub(crate) fn try_reply(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let rest = &self.input[self.taken..];
            if let Some(len) = frame_len(rest).map_err(io::Error::other)? {
                let reply = rest[..len].to_vec();
                self.taken += len;
                return Ok(reply);
            }
            self.input.drain(..self.taken);
            self.taken = 0;
            let mut piece = [0; 64 << 10];
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.input.extend_from_slice(&piece[..n]),
            }
        }
    }

    /// The next reply as text.
    #[track_caller]
    pub(crate) fn reply(&mut self) -> String {
        let reply = self.try_reply().unwrap_or_else(|error| panic!("no reply: {error}"));
        String::from_utf8(reply).expect("replies of these tests are text")
    }

    /// Sends one command of words and returns the bytes of its reply as text.
    #[track_caller]
    pub(crate) fn call(&mut self, line: &str) -> String {
        self.send(&encode_line(line)).unwrap_or_else(|error| panic!("{line}: cannot be sent: {error}"));
        let reply = self.try_reply().unwrap_or_else(|error| panic!("{line}: no reply: {error}"));
        String::from_utf8(reply).expect("replies of these tests are text")
    }

    /// As [`Self::call`], when a failure is no surprise.
    pub(crate) fn try_call(&mut self, line: &str) -> io::Result<String> {
        self.send(&encode_line(line))?;
        self.try_reply().map(|reply| String::from_utf8_lossy(&reply).into_owned())
    }

    /// As [`Self::call`], parsed.
    #[track_caller]
    pub(crate) fn value(&mut self, line: &str) -> Value {
        let reply = self.call(line);
        parse(reply.as_bytes()).expect("a reply").expect("a whole one").0
    }

    /// Reads to the end of the connection: what came before it, as text.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> String {
        let mut rest = self.input.split_off(self.taken);
        if let Err(error) = self.stream.read_to_end(&mut rest) {
            // Bytes that the server had not read turn the end into a reset.
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "the connection stays open: {error}");
        }
        String::from_utf8_lossy(&rest).into_owned()
    }
}

/// A command of words as an array of bulk strings.
pub(crate) fn encode_line(line: &str) -> Vec<u8> {
    encode(&line.split_whitespace().map(str::as_bytes).collect::<Vec<_>>())
}

/// A command as an array of bulk strings.
pub(crate) fn encode(args: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The address in a MOVED reply.
pub(crate) fn moved_to(reply: &str) -> Option<SocketAddr> {
    reply.strip_prefix("-MOVED ")?.split_whitespace().nth(1)?.parse().ok()
}

/// The greeting of a proxy that knows nothing of the cluster yet, for worker 0 of a node without a peer secret.
pub(crate) fn proxy_hello(channel: Channel) -> Hello {
    Hello {
        feature_level: FEATURE_LEVEL,
        channel,
        cluster_id: 0,
        node: String::new(),
        store_id: 0,
        worker: 0,
        to_worker: 0,
        nonce: None,
    }
}
