//! The closed loop: a client sends a batch, takes its replies, sends the next.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::replies;
use super::stats::SharedCounts;
use super::workload::Generator;
use crate::conn;
use crate::routes::Routes;

/// Pause after a broken connection or an error reply (`fill`).
const BACK_OFF: Duration = Duration::from_millis(50);
/// Bytes asked for in one read.
const READ_BYTES: usize = 64 * 1024;
/// Time without progress after which `fill` gives up.
const STALLED_MAX: Duration = Duration::from_secs(30);

/// The node of a cluster that a client talks to: number `client` modulo the nodes that serve slots.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) client: usize,
    routes: Routes,
    address: String,
}

impl Seat {
    pub(super) fn new(client: usize) -> Self {
        Self { client, routes: Routes::default(), address: String::new() }
    }

    /// Asks where slots are, the nodes known first.
    async fn refresh(&mut self, target: &str) -> io::Result<()> {
        let addresses = [self.routes.addresses(), &[target.to_owned()]].concat();
        self.routes = Routes::fetch(&addresses).await?;
        let nodes = self.routes.addresses();
        self.address.clone_from(&nodes[self.client % nodes.len()]);
        Ok(())
    }
}

/// One client.
pub(super) struct Client<'a> {
    pub(super) target: &'a str,
    pub(super) generator: Generator,
    /// In a cluster.
    pub(super) seat: Option<Seat>,
    pub(super) pipeline: usize,
    pub(super) counts: &'a SharedCounts,
}

impl Client<'_> {
    /// Sends the mix until `deadline`; what a broken connection leaves unanswered is counted and not sent again.
    pub(super) async fn run(mut self, deadline: Instant) {
        let (mut out, mut buf) = (Vec::new(), Vec::new());
        let mut stream = None;
        while Instant::now() < deadline {
            if stream.is_none()
                && let Some(seat) = &mut self.seat
                && seat.refresh(self.target).await.is_err()
            {
                tokio::time::sleep(BACK_OFF).await;
                continue;
            }
            let address = self.seat.as_ref().map_or(self.target, |seat| &seat.address);
            let Ok(connected) = connected(&mut stream, address).await else {
                tokio::time::sleep(BACK_OFF).await;
                continue;
            };
            out.clear();
            let want = generate(&mut self.generator, self.pipeline, self.seat.as_ref(), &mut out);
            match exchange(connected, &out, want, &mut buf, self.counts).await {
                Ok(None) if want > 0 => {}
                // Other errors are counted; this one says that the map is old.
                Ok(Some(error)) if self.seat.is_none() || !error.starts_with("MOVED") => {}
                Ok(_) => stream = None,
                Err(left) => {
                    self.counts.lock().broken += left.unanswered;
                    stream = None;
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }

    /// Writes the keys `keys`, each batch again until every reply is in order.
    pub(super) async fn fill(mut self, keys: std::ops::Range<u64>) -> io::Result<()> {
        let (mut out, mut buf) = (Vec::new(), Vec::new());
        let mut stream = None;
        let mut next = keys.start;
        let mut progress = Instant::now();
        while next < keys.end {
            let end = keys.end.min(next + self.pipeline as u64);
            out.clear();
            for key in next..end {
                self.generator.at(key, &mut out);
            }
            let result = match connected(&mut stream, self.target).await {
                Err(error) => Err(error),
                Ok(stream) => {
                    let exchange = exchange(stream, &out, end - next, &mut buf, self.counts);
                    match tokio::time::timeout(STALLED_MAX, exchange).await {
                        Err(_) => Err(io::ErrorKind::TimedOut.into()),
                        Ok(Err(left)) => Err(left.error),
                        Ok(Ok(None)) => Ok(true),
                        Ok(Ok(Some(_))) => Ok(false),
                    }
                }
            };
            if matches!(result, Ok(true)) {
                next = end;
                progress = Instant::now();
                continue;
            }
            if progress.elapsed() > STALLED_MAX {
                return Err(result
                    .err()
                    .unwrap_or_else(|| io::Error::other("the server goes on refusing writes")));
            }
            if result.is_err() {
                stream = None;
            }
            tokio::time::sleep(BACK_OFF).await;
        }
        Ok(())
    }
}

/// Appends a batch, in a cluster one of the seat's keys; returns its length.
fn generate(generator: &mut Generator, len: usize, seat: Option<&Seat>, out: &mut Vec<u8>) -> u64 {
    match seat {
        None => {
            for _ in 0..len {
                generator.next(out);
            }
            len as u64
        }
        Some(Seat { routes, address, .. }) => {
            let is_own = |slot| routes.address(slot) == Some(address.as_str());
            (0..len).take_while(|_| generator.next_in(out, is_own)).count() as u64
        }
    }
}

async fn connected<'a>(stream: &'a mut Option<TcpStream>, target: &str) -> io::Result<&'a mut TcpStream> {
    match stream {
        Some(stream) => Ok(stream),
        None => Ok(stream.insert(conn::open(target).await?)),
    }
}

struct Broken {
    error: io::Error,
    unanswered: u64,
}

/// Sends `out` and takes `want` replies; returns the first error reply.
async fn exchange(
    stream: &mut TcpStream,
    out: &[u8],
    want: u64,
    buf: &mut Vec<u8>,
    counts: &SharedCounts,
) -> Result<Option<String>, Broken> {
    let sent = Instant::now();
    let mut left = want;
    buf.clear();
    if let Err(error) = stream.write_all(out).await {
        return Err(Broken { error, unanswered: left });
    }
    let mut first_error = None;
    while left > 0 {
        buf.reserve(READ_BYTES);
        let read = match stream.read_buf(buf).await {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            other => other,
        };
        let counted = read.and_then(|_| replies::count(buf).map_err(io::Error::other));
        let counted = match counted {
            Ok(counted) if counted.replies <= left => counted,
            Ok(_) => {
                let error = io::Error::other("more replies than commands");
                return Err(Broken { error, unanswered: left });
            }
            Err(error) => return Err(Broken { error, unanswered: left }),
        };
        if counted.replies == 0 {
            continue;
        }
        left -= counted.replies;
        buf.drain(..counted.bytes);
        let mut counts = counts.lock();
        counts.record(sent.elapsed().as_nanos() as u64, counted.replies);
        if counted.errors > 0 {
            first_error = first_error.or_else(|| counted.first_error.clone());
            counts.record_errors(counted.errors, counted.first_error);
        }
    }
    Ok(first_error)
}
