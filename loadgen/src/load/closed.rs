//! The closed loop: a client sends a batch, takes its replies, sends the next.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::replies;
use super::stats::SharedCounts;
use super::workload::Generator;

/// Pause after a broken connection or an error reply (`fill`).
const BACK_OFF: Duration = Duration::from_millis(50);
/// Bytes asked for in one read.
const READ_BYTES: usize = 64 * 1024;
/// Time without progress after which `fill` gives up.
const STALLED_MAX: Duration = Duration::from_secs(30);

/// One client.
pub(super) struct Client<'a> {
    pub(super) target: &'a str,
    pub(super) generator: Generator,
    pub(super) pipeline: usize,
    pub(super) counts: &'a SharedCounts,
}

impl Client<'_> {
    /// Sends the mix until `deadline`; what a broken connection leaves unanswered is counted and not sent again.
    pub(super) async fn run(mut self, deadline: Instant) {
        let (mut out, mut buf) = (Vec::new(), Vec::new());
        let mut stream = None;
        while Instant::now() < deadline {
            let Ok(connected) = connected(&mut stream, self.target).await else {
                tokio::time::sleep(BACK_OFF).await;
                continue;
            };
            out.clear();
            for _ in 0..self.pipeline {
                self.generator.next(&mut out);
            }
            let want = self.pipeline as u64;
            if let Err(left) = exchange(connected, &out, want, &mut buf, self.counts).await {
                self.counts.lock().broken += left.unanswered;
                stream = None;
                tokio::time::sleep(BACK_OFF).await;
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

async fn connected<'a>(stream: &'a mut Option<TcpStream>, target: &str) -> io::Result<&'a mut TcpStream> {
    match stream {
        Some(stream) => Ok(stream),
        None => {
            let new = TcpStream::connect(target).await?;
            new.set_nodelay(true)?;
            Ok(stream.insert(new))
        }
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
