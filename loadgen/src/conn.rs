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

/// Environment variable with the password of the server's user `default`; a server without passwords takes any.
pub const PASSWORD: &str = "RINGFORT_PASSWORD";
/// Longest reply to AUTH.
const AUTH_REPLY_BYTES_MAX: usize = 512;

/// Connects to `address` (host:port), and authenticates if there is a [`PASSWORD`].
///
/// # Errors
/// The connection was refused, or the password was: then the text is the server's.
pub async fn open(address: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    if let Ok(password) = std::env::var(PASSWORD) {
        authenticate(&mut stream, &password).await?;
    }
    Ok(stream)
}

async fn authenticate(stream: &mut TcpStream, password: &str) -> io::Result<()> {
    let command = format!("*3\r\n$4\r\nAUTH\r\n$7\r\ndefault\r\n${}\r\n{password}\r\n", password.len());
    stream.write_all(command.as_bytes()).await?;
    let mut reply = Vec::new();
    while !reply.ends_with(b"\r\n") {
        if reply.len() > AUTH_REPLY_BYTES_MAX || stream.read_buf(&mut reply).await? == 0 {
            return Err(io::Error::other("no reply to AUTH"));
        }
    }
    if reply.starts_with(b"+") {
        Ok(())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&reply).trim()))
    }
}

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
        let stream = timeout(limit, open(address)).await??;
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// What [`authenticate`] says of a server that expects the password `secret word`, and answers with `reply`.
    async fn auth(reply: &[u8]) -> io::Result<()> {
        const COMMAND: &[u8] = b"*3\r\n$4\r\nAUTH\r\n$7\r\ndefault\r\n$11\r\nsecret word\r\n";
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut client = TcpStream::connect(listener.local_addr()?).await?;
        let (mut server, _) = listener.accept().await?;
        let serve = async {
            let mut command = [0; COMMAND.len()];
            server.read_exact(&mut command).await?;
            assert_eq!(command, COMMAND);
            server.write_all(reply).await?;
            server.shutdown().await
        };
        let (told, served) = tokio::join!(authenticate(&mut client, "secret word"), serve);
        served.and(told)
    }

    #[tokio::test]
    async fn a_password_is_taken_or_refused() {
        auth(b"+OK\r\n").await.unwrap();
        let refused = auth(b"-WRONGPASS invalid\r\n").await.unwrap_err();
        assert_eq!(refused.to_string(), "-WRONGPASS invalid");
        assert!(auth(b"").await.is_err(), "the server is gone");
        assert!(auth(&[b'x'; AUTH_REPLY_BYTES_MAX + 1]).await.is_err(), "no reply of Redis");
    }
}
