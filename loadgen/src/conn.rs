//! One client connection.

use std::io;
use std::time::Duration;

use ringfort_resp::reply::frame_len;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::reply::{self, Reply};

/// Bytes asked for in one read.
const READ_BYTES: usize = 64 * 1024;
/// Longest reply accepted.
const REPLY_BYTES_MAX: usize = 512 * 1024 * 1024;

/// A connection on which commands are written and replies read in order.
#[derive(Debug)]
pub struct Conn {
    stream: TcpStream,
    buf: Vec<u8>,
    /// Bytes of `buf` that replies already returned took.
    taken: usize,
}

impl Conn {
    /// Connects to `address` (host:port).
    ///
    /// # Errors
    /// The connection was refused, or did not come about within `limit`.
    pub async fn connect(address: &str, limit: Duration) -> io::Result<Self> {
        let stream = timeout(limit, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buf: Vec::new(), taken: 0 })
    }

    /// Writes `bytes`.
    ///
    /// # Errors
    /// The connection failed, or did not take the bytes until `deadline`. Some may have been sent.
    pub async fn send(&mut self, bytes: &[u8], deadline: Instant) -> io::Result<()> {
        timeout_at(deadline, self.stream.write_all(bytes)).await?
    }

    /// The next reply.
    ///
    /// # Errors
    /// The connection failed or ended, brought what is no reply, or nothing whole until `deadline`. It is of no more use.
    pub async fn reply(&mut self, deadline: Instant) -> io::Result<Reply<'_>> {
        match reply::parse(self.frame(deadline).await?) {
            Ok(Some((reply, _))) => Ok(reply),
            _ => Err(io::Error::other("a reply changed while it was read")),
        }
    }

    /// The bytes of the next reply.
    ///
    /// # Errors
    /// As [`Self::reply`].
    pub async fn frame(&mut self, deadline: Instant) -> io::Result<&[u8]> {
        self.buf.drain(..self.taken);
        self.taken = 0;
        loop {
            if let Some(len) = frame_len(&self.buf).map_err(io::Error::other)? {
                self.taken = len;
                break;
            }
            if self.buf.len() > REPLY_BYTES_MAX {
                return Err(io::Error::other("a reply is too long"));
            }
            self.buf.reserve(READ_BYTES);
            if timeout_at(deadline, self.stream.read_buf(&mut self.buf)).await?? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(&self.buf[..self.taken])
    }
}
