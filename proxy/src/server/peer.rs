//! Links to the peer port of a node: the handshake, and frames one at a time. Nodes use it too.

use ringfort_wire::hello::{Hello, HelloAck};
use ringfort_wire::{FRAME_BYTES_MAX, Kind, frame};
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Connects to a node's peer address and says hello. It takes as long as the other side does: give it a timeout.
///
/// # Errors
/// Nobody answers, or the node refuses: the error is its sentence.
pub async fn connect(address: &str, hello: &Hello) -> io::Result<(TcpStream, HelloAck)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut out = Vec::new();
    hello.encode(&mut out);
    stream.write_all(&out).await?;
    let mut body = Vec::new();
    match read_frame(&mut stream, &mut body).await? {
        Kind::HelloAck => Ok((stream, HelloAck::decode(&body).map_err(invalid)?)),
        Kind::HelloRefuse => Err(io::Error::other(String::from_utf8_lossy(&body).into_owned())),
        _ => Err(invalid("the peer does not speak this protocol")),
    }
}

/// Reads one frame: its body into `body`, which is cleared first.
///
/// # Errors
/// The stream ends, or what comes is no frame.
pub async fn read_frame(stream: &mut TcpStream, body: &mut Vec<u8>) -> io::Result<Kind> {
    let mut head = [0; frame::FRAME_HEADER_BYTES];
    stream.read_exact(&mut head).await?;
    let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if !(1..=FRAME_BYTES_MAX).contains(&len) {
        return Err(invalid(format!("frame of {len} bytes is out of range")));
    }
    let kind = Kind::from_u8(head[4]).ok_or_else(|| invalid(format!("frame of unknown kind {}", head[4])))?;
    body.clear();
    // Memory follows what has come, not what was announced.
    stream.take(len as u64 - 1).read_to_end(body).await?;
    if body.len() != len - 1 {
        return Err(invalid("the stream ends within a frame"));
    }
    Ok(kind)
}

pub(super) fn invalid(error: impl Into<Box<dyn core::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
