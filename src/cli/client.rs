//! A small blocking client: one connection, one command at a time, everything with a deadline.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;
use ringfort_resp::reply::{FrameScanner, Value, parse};

use crate::clock::{Clock as _, SystemClock};
use crate::config::reason;

/// Environment variable with the cluster's password (`requirepass`). A cluster without one takes any.
const PASSWORD: &str = "RINGFORT_PASSWORD";

/// Longest a connect, a write or a whole reply may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Longest reply that is read; the map of 256 nodes and 1024 partitions takes some 200 KB.
const REPLY_BYTES_MAX: usize = 16 << 20;

/// A connection to a node or proxy.
pub(super) struct Client {
    stream: TcpStream,
    /// Bytes that have come and are not yet a whole reply.
    input: Vec<u8>,
}

impl Client {
    /// Connects; authenticates with the password of the environment variable [`PASSWORD`] if there is one.
    ///
    /// # Errors
    /// Nobody listens at `address`, does not accept in time, or wants another password.
    pub(super) fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let plain = |error: std::io::Error| anyhow::anyhow!(reason(&error));
        let stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(plain)?;
        stream.set_write_timeout(Some(TIMEOUT)).map_err(plain)?;
        let mut client = Self { stream, input: Vec::new() };
        if let Ok(password) = std::env::var(PASSWORD) {
            client.call(&["AUTH", "default", &password])?;
        }
        Ok(client)
    }

    /// Sends one command and reads its reply.
    ///
    /// # Errors
    /// The connection broke, the reply is late, too long, malformed, or an error reply.
    pub(super) fn call(&mut self, args: &[&str]) -> anyhow::Result<Value> {
        self.stream.write_all(&encode(args)).map_err(|error| anyhow::anyhow!(reason(&error)))?;
        match self.read_reply()? {
            Value::Error(text) => anyhow::bail!("it answers: {text}"),
            value => Ok(value),
        }
    }

    fn read_reply(&mut self) -> anyhow::Result<Value> {
        let until_us = SystemClock.now().boot_us + u64::try_from(TIMEOUT.as_micros()).unwrap_or(u64::MAX / 2);
        let mut scanner = FrameScanner::default();
        let mut piece = [0; 16 << 10];
        loop {
            if scanner.scan(&self.input).context("it does not speak Redis's protocol")?.is_some() {
                let (value, len) = parse(&self.input)?.context("it does not speak Redis's protocol")?;
                self.input.drain(..len);
                return Ok(value);
            }
            anyhow::ensure!(
                self.input.len() < REPLY_BYTES_MAX,
                "its reply is longer than {REPLY_BYTES_MAX} bytes"
            );
            let left_us = until_us.saturating_sub(SystemClock.now().boot_us);
            anyhow::ensure!(0 < left_us, "no reply within {} s", TIMEOUT.as_secs());
            self.stream.set_read_timeout(Some(Duration::from_micros(left_us)))?;
            let read = match self.stream.read(&mut piece) {
                Ok(0) => anyhow::bail!("it closed the connection"),
                Ok(read) => read,
                Err(error) if is_timeout(&error) => continue,
                Err(error) => anyhow::bail!(reason(&error)),
            };
            self.input.extend_from_slice(&piece[..read]);
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

fn encode(args: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A server that answers one connection with `pieces`, one per command, and closes it at the next command.
    fn server(pieces: &'static [&'static [u8]]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for piece in pieces {
                let mut command = [0; 64];
                let _ = stream.read(&mut command).unwrap();
                stream.write_all(piece).unwrap();
            }
            // Bytes left unread would turn the close into a reset.
            let _ = stream.read(&mut [0; 64]);
        });
        address
    }

    #[test]
    fn reads_replies_one_by_one() {
        let mut client = Client::connect(server(&[b"+PONG\r\n", b":7\r\n", b"$2\r\nab\r\n"])).unwrap();
        assert_eq!(client.call(&["PING"]).unwrap(), Value::Simple("PONG".to_owned()));
        assert_eq!(client.call(&["DBSIZE"]).unwrap().as_integer(), Some(7));
        assert_eq!(client.call(&["GET", "x"]).unwrap().as_bytes(), Some(&b"ab"[..]));
        assert_eq!(client.call(&["PING"]).unwrap_err().to_string(), "it closed the connection");
    }

    #[test]
    fn errors_say_what_came() {
        let call = |pieces| Client::connect(server(pieces)).unwrap().call(&["PING"]).unwrap_err().to_string();
        assert_eq!(call(&[b"-CLUSTERDOWN no leader\r\n"]), "it answers: CLUSTERDOWN no leader");
        assert_eq!(call(&[b"HTTP/1.1 400 Bad Request\r\n"]), "it does not speak Redis's protocol");
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(Client::connect(nobody).err().unwrap().to_string(), "connection refused");
    }

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        assert_eq!(encode(&["GET", "k"]), b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    }
}
