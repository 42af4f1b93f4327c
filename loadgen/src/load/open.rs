//! The open loop: requests leave at their scheduled time, whether or not answers came, and latency counts from then.
//!
//! A closed loop slows down with the server, so it never sees the requests that users would have sent meanwhile
//! ("coordinated omission", Tene 2013). Here request k of a thread is due at `start + k / rate` and goes to client k
//! modulo their number; in bursts of B it is due when the first of its B is, and they go to one client. A timer of the
//! kernel (the runtime's have a precision of a millisecond) wakes the sender, which sends all that is due. While a
//! connection is broken its requests wait, and their latency goes on counting.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

use super::flight::Flight;
use super::seat::Seat;
use super::stats::SharedCounts;
use super::workload::Generator;
use crate::conn;

/// The sender is woken no more often than this: at high rates several requests leave together, at most this late.
const TICK: Duration = Duration::from_micros(50);
/// Longest wait for the connections at the start.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Pause after a connection broke.
const BACK_OFF: Duration = Duration::from_millis(20);
/// Bytes of requests that wait for one connection at most; what is due beyond is counted as not sent.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Requests of one connection without an answer at most.
const UNANSWERED_MAX: usize = 1_000_000;
/// Time for the last answers.
pub(super) const DRAIN_MAX: Duration = Duration::from_secs(2);
/// Bytes asked for in one read.
const READ_BYTES: usize = 64 * 1024;

/// The clients of one thread, connected.
pub(super) struct Clients {
    target: String,
    clients: Vec<Rc<RefCell<Client>>>,
}

#[derive(Debug)]
struct Client {
    generator: Generator,
    /// In a cluster.
    seat: Option<Seat>,
    stream: Option<Rc<TcpStream>>,
    /// Requests not yet taken by the socket.
    out: Vec<u8>,
    /// Those without an answer, those in `out` included.
    flight: Flight,
}

impl Clients {
    /// Connects the clients, so that the first requests need not wait for it. Who cannot be connected now is tried again later.
    pub(super) async fn connect(target: String, generators: Vec<(Generator, Option<Seat>)>) -> Self {
        let connect = generators.into_iter().map(|(generator, seat)| {
            let target = target.clone();
            tokio::task::spawn_local(async move {
                let (stream, out, flight) = (None, Vec::new(), Flight::default());
                let client = RefCell::new(Client { generator, seat, stream, out, flight });
                // Whatever the reason, the reader tries again.
                let _ = tokio::time::timeout(CONNECT_MAX, connect(&client, &target)).await;
                Rc::new(client)
            })
        });
        let clients = super::join(connect.collect()).await;
        Self { target, clients }
    }

    /// Sends so many requests a second, so many at a time, from `start` to `deadline`, then waits a little for the last
    /// answers.
    ///
    /// # Errors
    /// The kernel gave no timer.
    pub(super) async fn run(
        self,
        pace: (f64, u32),
        counts: &Arc<SharedCounts>,
        start: Instant,
        deadline: Instant,
    ) -> io::Result<()> {
        let Self { target, clients } = self;
        let readers: Vec<_> = clients
            .iter()
            .map(|client| {
                tokio::task::spawn_local(read(Rc::clone(client), target.clone(), start, Arc::clone(counts)))
            })
            .collect();
        send(&clients, pace, counts, start, deadline).await?;
        let end = Instant::now() + DRAIN_MAX;
        while Instant::now() < end && clients.iter().any(|client| !client.borrow().flight.is_empty()) {
            for client in &clients {
                client.borrow_mut().flush();
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        for reader in readers {
            reader.abort();
        }
        counts.lock().broken += clients.iter().map(|client| client.borrow_mut().give_up()).sum::<u64>();
        Ok(())
    }
}

/// Sends each burst of requests when it is due.
async fn send(
    clients: &[Rc<RefCell<Client>>],
    (rate, burst): (f64, u32),
    counts: &SharedCounts,
    start: Instant,
    deadline: Instant,
) -> io::Result<()> {
    let burst = u64::from(burst);
    let rate = rate / burst as f64;
    let pacer = Pacer::new(rate)?;
    let interval_ns = 1e9 / rate;
    let end_ns = deadline.saturating_duration_since(start).as_nanos() as u64;
    let mut number: u64 = 0;
    loop {
        let now_ns = start.elapsed().as_nanos() as u64;
        let mut touched = 0..0;
        let mut not_sent = 0;
        let (mut due_ns, first) = ((number as f64 * interval_ns) as u64, number);
        while due_ns <= now_ns && due_ns < end_ns {
            let client = &mut *clients[(number % clients.len() as u64) as usize].borrow_mut();
            not_sent += (0..burst).map(|_| u64::from(!client.add(due_ns))).sum::<u64>();
            number += 1;
            due_ns = (number as f64 * interval_ns) as u64;
            touched = first as usize..number as usize;
        }
        if number > first {
            let mut counts = counts.lock();
            counts.due += (number - first) * burst;
            counts.not_sent += not_sent;
        }
        // A socket that was full is tried again when its turn comes round.
        for at in touched.take(clients.len()) {
            clients[at % clients.len()].borrow_mut().flush();
        }
        if due_ns >= end_ns {
            // The run lasts to its end.
            tokio::time::sleep_until(deadline.into()).await;
            return Ok(());
        }
        pacer.sleep(Duration::from_nanos(due_ns).saturating_sub(start.elapsed())).await?;
    }
}

impl Client {
    /// Adds the next request; false when too many wait, or no key is known to be its node's.
    fn add(&mut self, due_ns: u64) -> bool {
        if self.out.len() > WAITING_BYTES_MAX || self.flight.len() >= UNANSWERED_MAX {
            return false;
        }
        let op = match &self.seat {
            None => Some(self.generator.next(&mut self.out)),
            Some(seat) if seat.address().is_empty() => None,
            Some(seat) => self.generator.next_in(&mut self.out, |slot| seat.has(slot)),
        };
        let Some(op) = op else { return false };
        self.flight.add(op, due_ns);
        true
    }

    /// The connection broke; returns how many requests stay without an answer.
    fn give_up(&mut self) -> u64 {
        self.stream = None;
        self.out.clear();
        self.flight.clear(&self.generator)
    }

    /// Writes what the socket takes. An error shows up at the reader.
    fn flush(&mut self) {
        let Some(stream) = &self.stream else { return };
        let mut sent = 0;
        while sent < self.out.len() {
            match stream.try_write(&self.out[sent..]) {
                Ok(n) => sent += n,
                Err(_) => break,
            }
        }
        self.out.drain(..sent);
    }
}

/// Takes replies, and connects again whenever that ends.
async fn read(client: Rc<RefCell<Client>>, target: String, start: Instant, counts: Arc<SharedCounts>) {
    loop {
        let stream = client.borrow().stream.clone();
        let stream = match stream {
            Some(stream) => Ok(stream),
            None => connect(&client, &target).await,
        };
        if let Ok(stream) = stream {
            client.borrow_mut().flush();
            // Whatever the reason, the connection is of no more use.
            let _ = take_replies(&client, &stream, start, &counts).await;
            counts.lock().broken += client.borrow_mut().give_up();
        }
        tokio::time::sleep(BACK_OFF).await;
    }
}

/// Connects to the target, in a cluster to the client's node.
async fn connect(client: &RefCell<Client>, target: &str) -> io::Result<Rc<TcpStream>> {
    let seat = client.borrow().seat.clone();
    let seat = match seat {
        Some(seat) => Some(seat.renewed(target).await?),
        None => None,
    };
    let stream = Rc::new(conn::open(seat.as_ref().map_or(target, Seat::address)).await?);
    let mut client = client.borrow_mut();
    client.seat = seat;
    client.stream = Some(Rc::clone(&stream));
    Ok(stream)
}

async fn take_replies(
    client: &RefCell<Client>,
    stream: &TcpStream,
    start: Instant,
    counts: &SharedCounts,
) -> io::Result<()> {
    let mut buf = Vec::new();
    loop {
        stream.readable().await?;
        buf.reserve(READ_BYTES);
        match stream.try_read_buf(&mut buf) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        let now_ns = start.elapsed().as_nanos() as u64;
        let mut client = client.borrow_mut();
        let Client { generator, seat, out, flight, .. } = &mut *client;
        let mut counts = counts.lock();
        let taken = flight.take(&buf, now_ns, generator, out, &mut counts)?;
        if let Some(error) = flight.take_error() {
            counts.note_error(&error);
            if seat.as_mut().is_some_and(|seat| seat.is_lost_by(&error)) {
                return Err(io::Error::other("the node serves nothing any more"));
            }
        }
        drop(counts);
        buf.drain(..taken);
        // What follows from the replies; or what a full socket did not take.
        client.flush();
    }
}

/// A timer of the kernel, with its precision, in the same poll as the sockets.
struct Pacer {
    timer: AsyncFd<OwnedFd>,
    sleep_min: Duration,
}

impl Pacer {
    fn new(rate: f64) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "unsound for types that lie about their descriptor, which OwnedFd does not; what replaces it is an unsafe fn"
        )]
        let timer = AsyncFd::new(timer)?;
        // Never 0, which would stop the timer.
        let sleep_min = if rate * TICK.as_secs_f64() > 1.0 { TICK } else { Duration::from_nanos(1) };
        Ok(Self { timer, sleep_min })
    }

    async fn sleep(&self, time: Duration) -> io::Result<()> {
        let time = Timespec::try_from(time.max(self.sleep_min)).map_err(io::Error::other)?;
        let once = Itimerspec { it_interval: Timespec::default(), it_value: time };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        let read = |timer: &OwnedFd| Ok(rustix::io::read(timer, &mut [0; 8])?);
        self.timer.async_io(Interest::READABLE, read).await.map(drop)
    }
}
