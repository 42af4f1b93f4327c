//! The TLS port: accepts, shakes hands, hands the connections on.

use super::{Tls, TlsSession};
use crate::stream::ClientSocket;
use core::convert::Infallible;
use core::net::SocketAddr;
use core::time::Duration;
use rustls::ServerConfig;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};

/// How long a handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most handshakes under way on one port; one more ends the oldest, so that clients who stall hold nobody up.
pub const HANDSHAKES_MAX: usize = 1024;

/// Pause after a failed accept (no file descriptors left), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Least time between two log lines about clients whose handshake failed.
const LOG_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of a handshake read at a time.
const READ_BYTES: usize = 4 << 10;
/// First byte of a handshake.
const HANDSHAKE_RECORD: u8 = 0x16;
/// What a client without TLS is told, in its own words.
const PLAIN_REFUSAL: &[u8] = b"-ERR this port speaks TLS: connect with TLS, or use the plain port\r\n";

/// Serves a TLS port: `admit` gets each connection whose handshake is done, with the client's address. Never ends.
pub async fn serve(
    listener: &TcpListener,
    tls: &Tls,
    mut admit: impl FnMut(ClientSocket, SocketAddr),
) -> Infallible {
    let mut handshakes = JoinSet::new();
    // Oldest first.
    let mut running: VecDeque<(AbortHandle, SocketAddr)> = VecDeque::new();
    let mut log = FailureLog::default();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    running.retain(|(handshake, _)| !handshake.is_finished());
                    if running.len() >= HANDSHAKES_MAX && let Some((oldest, client)) = running.pop_front() {
                        oldest.abort();
                        log.note(&Failure::Crowded, client);
                    }
                    let handshake = bounded_handshake(stream, tls.current(), address);
                    running.push_back((handshakes.spawn(handshake), address));
                }
                Err(error) => {
                    tracing::warn!(%error, "the TLS port cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(done) = handshakes.join_next() => match done {
                Ok((Ok(socket), address)) => admit(socket, address),
                Ok((Err(failure), address)) => log.note(&failure, address),
                Err(_) => {} // ended for a newer one
            },
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("it does not speak TLS, which this port is for: let it connect with TLS, or to the plain port")]
    Plain,
    #[error("{0}")]
    Tls(rustls::Error),
    #[error("its handshake was not done within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Slow,
    #[error("{HANDSHAKES_MAX} handshakes are under way, and its is the oldest")]
    Crowded,
    #[error("it went away: {0}")]
    Gone(#[from] io::Error),
}

async fn bounded_handshake(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    address: SocketAddr,
) -> (Result<ClientSocket, Failure>, SocketAddr) {
    let handshake = timeout(HANDSHAKE_TIMEOUT, shake_hands(stream, config));
    (handshake.await.unwrap_or(Err(Failure::Slow)), address)
}

async fn shake_hands(stream: TcpStream, config: Arc<ServerConfig>) -> Result<ClientSocket, Failure> {
    stream.set_nodelay(true)?;
    let mut session = TlsSession::new(config)?;
    let mut buffer = [0; READ_BYTES];
    let mut is_first = true;
    while session.is_handshaking() {
        stream.readable().await?;
        let count = match stream.try_read(&mut buffer) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        };
        if is_first && buffer[0] != HANDSHAKE_RECORD {
            let _ = stream.try_write(PLAIN_REFUSAL);
            return Err(Failure::Plain);
        }
        is_first = false;
        let outcome = session.handshake(&buffer[..count]);
        // On failure, this tells the client why.
        send(&mut session, &stream).await?;
        outcome.map_err(Failure::Tls)?;
    }
    Ok(ClientSocket::encrypted(stream.into_std()?, session))
}

/// Sends all that the session has to say.
async fn send(session: &mut TlsSession, stream: &TcpStream) -> io::Result<()> {
    loop {
        session.flush(&mut crate::stream::Writer(stream))?;
        if !session.wants_write() {
            return Ok(());
        }
        stream.writable().await?;
    }
}

/// Tells of failed handshakes, not more than one line in [`LOG_INTERVAL`].
#[derive(Debug, Default)]
struct FailureLog {
    last: Option<Instant>,
    untold: u64,
}

impl FailureLog {
    fn note(&mut self, failure: &Failure, client: SocketAddr) {
        if matches!(failure, Failure::Gone(_)) {
            tracing::debug!(%client, "a TLS client is not served: {failure}");
            return;
        }
        if self.last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            self.untold += 1;
            return;
        }
        self.last = Some(Instant::now());
        let others = core::mem::take(&mut self.untold);
        tracing::warn!(%client, others, "a TLS client is not served: {failure}");
    }
}
