//! Links to the peer port of a node: the handshake, and frames one at a time. Nodes use it too.

use super::faults;
use core::time::Duration;
use ringfort_wire::hello::{HANDSHAKE_BYTES_MAX, Hello, HelloAck, Initiator, Responder};
use ringfort_wire::secret::{NONCE_BYTES, Nonce};
use ringfort_wire::{FRAME_BYTES_MAX, Kind, PeerSecret, frame};
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long the other end of a link may be silent before the system asks whether it is there.
pub const LINK_KEEPALIVE: Duration = Duration::from_secs(15);
/// How long it waits for each answer, and how often it asks.
const LINK_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const LINK_KEEPALIVE_RETRIES: u32 = 3;

/// Connects to a node's peer address, says hello, and proves to know the peer secret if there is one. It takes as long as
/// the other side does: give it a timeout.
///
/// # Errors
/// Nobody answers; or the link is refused, by the node or because it does not prove the secret: [`is_refusal`] tells, and
/// the error is a sentence that says what to do.
pub async fn connect(
    address: &str,
    hello: Hello,
    secret: Option<&PeerSecret>,
) -> io::Result<(TcpStream, HelloAck)> {
    let mut stream = faults::connect(address).await?;
    prepare(&stream)?;
    let mut out = Vec::new();
    let mut initiator = Initiator::new(hello, secret, nonce()?, &mut out);
    let mut body = Vec::new();
    loop {
        stream.write_all(&out).await?;
        out.clear();
        let kind = read_short(&mut stream, &mut body).await?;
        let refused = |why| io::Error::new(io::ErrorKind::PermissionDenied, why);
        if let Some(ack) = initiator.take(kind, &body, &mut out).map_err(refused)? {
            return Ok((stream, ack));
        }
    }
}

/// Sets what both ends of a link set: no delay, and questions of the system whether the other end is there while it is
/// silent. Without them a node would hold the links of machines that lost their power for ever.
///
/// # Errors
/// The link is of no use any more.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(LINK_KEEPALIVE)
        .with_interval(LINK_KEEPALIVE_INTERVAL)
        .with_retries(LINK_KEEPALIVE_RETRIES);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Whether a link was refused, rather than not answered.
pub fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// The node's side of [`connect`]: returns when the other side has proven what it must. Judge the hello, then let the
/// responder accept the link, or refuse it.
///
/// # Errors
/// The link ends, or it is refused ([`is_refusal`]): the other side has been told why.
pub async fn greet(stream: &mut TcpStream, responder: &mut Responder<'_>) -> io::Result<Hello> {
    let (mut body, mut out) = (Vec::new(), Vec::new());
    loop {
        let kind = read_short(stream, &mut body).await?;
        let outcome = responder.take(kind, &body, &mut out);
        stream.write_all(&out).await?;
        out.clear();
        match outcome {
            Ok(Some(hello)) => return Ok(hello),
            Ok(None) => {}
            Err(why) => return Err(io::Error::new(io::ErrorKind::PermissionDenied, why)),
        }
    }
}

/// A number that nobody can foresee, for one handshake.
///
/// # Errors
/// The system gives no random bytes.
pub fn nonce() -> io::Result<Nonce> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(nonce)
}

/// Reads one frame: its body into `body`, which is cleared first.
///
/// # Errors
/// The stream ends, or what comes is no frame.
pub async fn read_frame(stream: &mut TcpStream, body: &mut Vec<u8>) -> io::Result<Kind> {
    read_frame_up_to(FRAME_BYTES_MAX, stream, body).await
}

/// Reads a frame of the handshake.
async fn read_short(stream: &mut TcpStream, body: &mut Vec<u8>) -> io::Result<Kind> {
    read_frame_up_to(HANDSHAKE_BYTES_MAX, stream, body).await
}

async fn read_frame_up_to(max: usize, stream: &mut TcpStream, body: &mut Vec<u8>) -> io::Result<Kind> {
    let mut head = [0; frame::FRAME_HEADER_BYTES];
    stream.read_exact(&mut head).await?;
    let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if !(1..=max).contains(&len) {
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
