//! The closed loop: a client sends a batch, takes its replies, sends the next.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use ringfort_ring::slot::slot_of;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::flight::Flight;
use super::seat::Seat;
use super::stats::SharedCounts;
use super::workload::{Generator, Op, first_key};
use crate::conn;
use crate::routes::Routes;

/// Pause after a broken connection or an error reply (`fill`).
const BACK_OFF: Duration = Duration::from_millis(50);
/// Bytes asked for in one read.
const READ_BYTES: usize = 64 * 1024;
/// Time without progress after which `fill` gives up.
const STALLED_MAX: Duration = Duration::from_secs(30);

/// One client.
pub(super) struct Client<'a> {
    target: &'a str,
    generator: Generator,
    pipeline: usize,
    counts: &'a SharedCounts,
    flight: Flight,
    /// Commands to send.
    out: Vec<u8>,
    /// Replies not yet taken.
    buf: Vec<u8>,
}

impl<'a> Client<'a> {
    pub(super) fn new(
        target: &'a str,
        generator: Generator,
        pipeline: usize,
        counts: &'a SharedCounts,
    ) -> Self {
        Self {
            target,
            generator,
            pipeline,
            counts,
            flight: Flight::default(),
            out: Vec::new(),
            buf: Vec::new(),
        }
    }

    /// Sends the mix until `deadline`; what a broken connection leaves unanswered is counted and not sent again.
    pub(super) async fn run(&mut self, mut seat: Option<Seat>, deadline: Instant) {
        let mut stream = None;
        while Instant::now() < deadline {
            if stream.is_none()
                && let Some(seat) = &mut seat
            {
                let Ok(renewed) = seat.renewed(self.target).await else {
                    tokio::time::sleep(BACK_OFF).await;
                    continue;
                };
                *seat = renewed;
            }
            let address = seat.as_ref().map_or(self.target, Seat::address);
            let Ok(connected) = connected(&mut stream, address).await else {
                tokio::time::sleep(BACK_OFF).await;
                continue;
            };
            self.generate(seat.as_ref());
            let is_idle = self.flight.is_empty();
            match self.exchange(connected).await {
                // A node without slots.
                Ok(_) if is_idle => stream = None,
                // Other errors are counted; this one says that the map is old.
                Ok(Some(error)) if seat.is_some() && error.starts_with("MOVED") => stream = None,
                Ok(_) => {}
                Err(_) => {
                    self.give_up();
                    stream = None;
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }

    /// Counts what is on its way as unanswered.
    pub(super) fn give_up(&mut self) {
        self.counts.lock().broken += self.flight.clear(&self.generator);
    }

    /// Writes the keys `keys`, each batch again until every reply is in order.
    pub(super) async fn fill(mut self, is_cluster: bool, keys: std::ops::Range<u64>) -> io::Result<()> {
        let mut nodes = Nodes { routes: is_cluster.then(Routes::default), streams: BTreeMap::new() };
        let mut next = keys.start;
        let mut progress = Instant::now();
        while next < keys.end {
            let batch = self.pipeline * nodes.len();
            let end = keys.end.min(next + batch as u64);
            let problem = match self.write(next..end, &mut nodes).await {
                Ok(None) => {
                    next = end;
                    progress = Instant::now();
                    continue;
                }
                Ok(Some(refusal)) if is_final(&refusal) => return Err(io::Error::other(refusal)),
                Ok(Some(refusal)) => io::Error::other(refusal),
                Err(error) => {
                    nodes.streams.clear();
                    error
                }
            };
            self.flight.clear(&self.generator);
            if progress.elapsed() > STALLED_MAX {
                return Err(problem);
            }
            tokio::time::sleep(BACK_OFF).await;
            if let Some(routes) = &mut nodes.routes
                && let Ok(renewed) = routes.renewed(self.target).await
            {
                *routes = renewed;
            }
        }
        Ok(())
    }

    /// Writes the keys `keys`, each at its node; returns the first refusal.
    async fn write(&mut self, keys: std::ops::Range<u64>, nodes: &mut Nodes) -> io::Result<Option<String>> {
        let mut parts: BTreeMap<&str, (Vec<u8>, Vec<Op>)> = BTreeMap::new();
        let mut command = Vec::new();
        for key in keys {
            command.clear();
            let op = self.generator.at(key, &mut command);
            let address = match &nodes.routes {
                None => self.target,
                Some(routes) => routes
                    .address(slot_of(first_key(&command)))
                    .ok_or_else(|| io::Error::other("the cluster's map has a gap"))?,
            };
            let (out, ops) = parts.entry(address).or_default();
            out.extend_from_slice(&command);
            ops.push(op);
        }
        for (address, (out, ops)) in parts {
            if !nodes.streams.contains_key(address) {
                nodes.streams.insert(address.to_owned(), conn::open(address).await?);
            }
            let Some(stream) = nodes.streams.get_mut(address) else { continue };
            self.out = out;
            for op in ops {
                self.flight.add(op, 0);
            }
            let refusal = tokio::time::timeout(STALLED_MAX, self.exchange(stream)).await??;
            if refusal.is_some() {
                return Ok(refusal);
            }
        }
        Ok(None)
    }

    /// Makes a batch, in a cluster one of the seat's keys.
    fn generate(&mut self, seat: Option<&Seat>) {
        self.out.clear();
        for _ in 0..self.pipeline {
            let op = match seat {
                None => Some(self.generator.next(&mut self.out)),
                Some(seat) => self.generator.next_in(&mut self.out, |slot| seat.has(slot)),
            };
            let Some(op) = op else { return };
            self.flight.add(op, 0);
        }
    }

    /// Sends what there is to send until nothing is on its way any more; returns the first error reply.
    ///
    /// # Errors
    /// The connection is of no more use. What is on its way then stays in `flight`.
    async fn exchange(&mut self, stream: &mut TcpStream) -> io::Result<Option<String>> {
        let sent = Instant::now();
        self.buf.clear();
        loop {
            if !self.out.is_empty() {
                stream.write_all(&self.out).await?;
                self.out.clear();
            }
            if self.flight.is_empty() {
                break;
            }
            self.buf.reserve(READ_BYTES);
            if stream.read_buf(&mut self.buf).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let now_ns = sent.elapsed().as_nanos() as u64;
            let Self { flight, buf, generator, out, counts, .. } = self;
            let taken = flight.take(buf, now_ns, generator, out, &mut counts.lock())?;
            buf.drain(..taken);
        }
        let error = self.flight.take_error();
        if let Some(error) = &error {
            self.counts.lock().note_error(error);
        }
        Ok(error)
    }
}

/// Whether the same write will be refused again whenever it comes.
fn is_final(refusal: &str) -> bool {
    refusal.starts_with("ERR unknown command") || refusal.starts_with("WRONGTYPE")
}

/// Where `fill` writes.
struct Nodes {
    /// Of a cluster.
    routes: Option<Routes>,
    streams: BTreeMap<String, TcpStream>,
}

impl Nodes {
    fn len(&self) -> usize {
        self.routes.as_ref().map_or(1, |routes| routes.addresses().len().max(1))
    }
}

async fn connected<'a>(stream: &'a mut Option<TcpStream>, target: &str) -> io::Result<&'a mut TcpStream> {
    match stream {
        Some(stream) => Ok(stream),
        None => Ok(stream.insert(conn::open(target).await?)),
    }
}
