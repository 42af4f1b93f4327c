//! The shell of the proxy: threads, sockets and time around [`crate::Proxy`].
//!
//! ```text
//!  acceptor thread: listener --sockets in turn--> worker threads (one core, its clients, its links to every node's workers)
//!                   map fetcher --newer maps----->
//! ```
//!
//! A worker is one thread with its own runtime, so its core needs no lock. Connection tasks only read into the core and ask
//! for a turn; the turn task runs when all sockets that are ready have been read, and writes one buffer to each link and
//! each client.

mod client;
mod control;
pub mod faults;
mod link;
pub mod meta;
pub mod peer;
mod worker;

use crate::clients::{Clients, Place};
use crate::http::{self, Handler, Response};
use crate::metrics::{self, Exposition};
use crate::stream::ClientSocket;
use crate::tls::{self, Tls};
use core::net::SocketAddr;
use core::time::Duration;
use ringfort_wire::PeerSecret;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};

/// Accepted sockets that may wait for one worker; beyond it a client is turned away.
const HANDOVER_MAX: usize = 1024;
/// Pause of the acceptor when the system has no socket to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long clients may wait for pending replies when the proxy stops.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// How to run a proxy.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// The address for clients; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Where clients connect by TLS, and with which certificate.
    pub tls: Option<TlsOptions>,
    /// Peer addresses (`host:port`) of nodes, to find the cluster by.
    pub seeds: Vec<String>,
    /// Worker threads.
    pub workers: usize,
    /// What the nodes and proxies of the cluster prove to each other; `None` when it has no peer secret.
    pub secret: Option<PeerSecret>,
    /// How long a command may take before its client gets an error.
    pub deadline: Duration,
    /// Most client connections.
    pub client_connections_max: usize,
    /// Where metrics and health are told over HTTP.
    pub metrics: Option<SocketAddr>,
}

/// A proxy's TLS port.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// The address; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The certificate.
    pub tls: Arc<Tls>,
}

impl ProxyOptions {
    /// The defaults: no TLS, one worker, 5 s, 10,000 connections.
    pub fn new(listen: SocketAddr, seeds: Vec<String>) -> Self {
        Self {
            listen,
            tls: None,
            seeds,
            workers: 1,
            secret: None,
            deadline: Duration::from_secs(5),
            client_connections_max: 10_000,
            metrics: None,
        }
    }
}

/// Why a proxy cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address is taken or not this machine's: choose another.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No node to find the cluster by.
    #[error("no peer address of a node is given")]
    NoSeeds,
    /// The system refuses a thread, an event queue or a signal handler.
    #[error("cannot start")]
    Start(#[source] io::Error),
}

/// Counters of all workers, for INFO.
#[derive(Debug)]
struct Shared {
    options: ProxyOptions,
    addr: SocketAddr,
    tls_addr: Option<SocketAddr>,
    started: Instant,
    run_id: String,
    clients: Arc<Clients>,
    /// The newest cluster map.
    maps: control::Maps,
    /// Asks the map fetcher to try another node.
    map_wish: Notify,
}

impl Shared {
    /// µs since the start, monotonic.
    fn now_us(&self) -> u64 {
        u64::try_from((now() - self.started).as_micros()).unwrap_or(u64::MAX)
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place of this crate that asks for the time")]
fn now() -> Instant {
    Instant::now()
}

/// µs since 1970; 0 when the clock is before that.
#[expect(clippy::disallowed_methods, reason = "the one place of this crate that asks for the time of day")]
fn wall_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A number that differs from process to process and from call to call.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A running proxy. Dropping it stops it too, without waiting.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// The address that clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.shared.addr
    }

    /// Its clients.
    pub fn clients(&self) -> &Arc<Clients> {
        &self.shared.clients
    }

    /// The address that TLS clients connect to.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.shared.tls_addr
    }

    /// Accepts no more clients, answers what is pending for at most two seconds, and waits until all threads are done.
    pub fn stop(self) {
        self.stop.send_replace(true);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the proxy panicked");
            }
        }
    }
}

/// Runs a proxy until SIGTERM or SIGINT.
///
/// # Errors
/// It cannot start: see [`ServerError`].
pub fn run(options: ProxyOptions) -> Result<(), ServerError> {
    let runtime = runtime().map_err(ServerError::Start)?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).map_err(ServerError::Start)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(ServerError::Start)?;
        let tls = options.tls.as_ref().map(|options| Arc::clone(&options.tls));
        let running = start(options)?;
        let watch_files = async {
            match tls {
                Some(tls) => tls.watch().await,
                None => core::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            never = watch_files => match never {},
        }
        running.stop();
        Ok(())
    })
}

/// Starts a proxy on threads of its own.
///
/// # Errors
/// It cannot start: see [`ServerError`].
pub fn start(options: ProxyOptions) -> Result<Running, ServerError> {
    if options.seeds.is_empty() {
        return Err(ServerError::NoSeeds);
    }
    let (listener, addr) = listen(options.listen)?;
    let tls = options.tls.clone().map(|tls| Ok((tls.tls, listen(tls.listen)?))).transpose()?;
    let metrics = options.metrics.map(listen).transpose()?;
    let shared = Arc::new(Shared {
        addr,
        tls_addr: tls.as_ref().map(|(_, (_, addr))| *addr),
        started: now(),
        run_id: format!("{:016x}{:016x}{:08x}", random(), random(), random() >> 32),
        clients: Clients::new(options.workers.max(1)),
        maps: watch::Sender::new(None),
        map_wish: Notify::new(),
        options,
    });
    let (stop, stopped) = watch::channel(false);
    let mut running = Running { shared: Arc::clone(&shared), stop, threads: Vec::new() };
    let mut workers = Vec::new();
    for worker in 0..shared.options.workers.max(1) {
        let (sockets_out, sockets_in) = mpsc::channel(HANDOVER_MAX);
        workers.push(sockets_out);
        let (shared, stopped) = (Arc::clone(&shared), stopped.clone());
        let runtime = runtime().map_err(ServerError::Start)?;
        running.threads.push(thread(format!("proxy-{worker}"), move || {
            worker::run(&runtime, worker as u16, shared, sockets_in, stopped);
        })?);
    }
    if let Some((tls, (listener, _))) = tls {
        let (shared, workers, stopped) = (Arc::clone(&shared), workers.clone(), stopped.clone());
        let runtime = runtime().map_err(ServerError::Start)?;
        running.threads.push(thread("proxy-tls".to_owned(), move || {
            runtime.block_on(accept_tls(&shared, listener, &tls, &workers, stopped));
        })?);
    }
    if let Some((listener, _)) = metrics {
        let (shared, stopped) = (Arc::clone(&shared), stopped.clone());
        let runtime = runtime().map_err(ServerError::Start)?;
        running.threads.push(thread("proxy-metrics".to_owned(), move || {
            runtime.block_on(tell_metrics(shared, listener, stopped));
        })?);
    }
    let runtime = runtime().map_err(ServerError::Start)?;
    running.threads.push(thread("proxy-accept".to_owned(), move || {
        runtime.block_on(accept_and_fetch(&shared, listener, &workers, stopped));
    })?);
    Ok(running)
}

/// The metrics thread, until the proxy stops.
async fn tell_metrics(
    shared: Arc<Shared>,
    listener: std::net::TcpListener,
    mut stopped: watch::Receiver<bool>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the metrics listener is of no use");
            return;
        }
    };
    let handler: Handler = Arc::new(move |path| answer_http(&shared, path));
    tokio::select! {
        never = http::serve(listener, handler) => match never {},
        // An error means that the proxy was dropped.
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

fn answer_http(shared: &Shared, path: &str) -> Option<Response> {
    let epoch = shared.maps.borrow().as_ref().map_or(0, |map| map.epoch);
    match path {
        "/metrics" => {
            let mut out = Exposition::default();
            metrics::write_process("proxy", shared.now_us() / 1_000_000, epoch, &mut out);
            metrics::write_clients(&[("proxy", &shared.clients)], &mut out);
            Some(Response { status: 200, content_type: metrics::CONTENT_TYPE, body: out.finish() })
        }
        "/health" if epoch == 0 => {
            Some(http::health("loading", Some("no node has given the cluster map yet")))
        }
        "/health" => Some(http::health("up", None)),
        "/health/live" => Some(http::health(if epoch == 0 { "loading" } else { "up" }, None)),
        _ => None,
    }
}

fn listen(addr: SocketAddr) -> Result<(std::net::TcpListener, SocketAddr), ServerError> {
    let open = || {
        let listener = std::net::TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        Ok((listener, addr))
    };
    open().map_err(|source| ServerError::Listen { addr, source })
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn thread(name: String, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ServerError> {
    std::thread::Builder::new().name(name).spawn(run).map_err(ServerError::Start)
}

/// The acceptor thread, until the proxy stops.
async fn accept_and_fetch(
    shared: &Shared,
    listener: std::net::TcpListener,
    workers: &[mpsc::Sender<Accepted>],
    mut stopped: watch::Receiver<bool>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the listener is of no use");
            return;
        }
    };
    tokio::select! {
        () = accept(shared, &listener, workers) => {}
        () = control::fetch_maps(shared) => {}
        // An error means that the proxy was dropped.
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

/// A client's socket and its place among the clients.
type Accepted = (ClientSocket, Place);

/// Deals sockets to the workers in turn.
async fn accept(shared: &Shared, listener: &TcpListener, workers: &[mpsc::Sender<Accepted>]) {
    for worker in workers.iter().cycle() {
        let socket = loop {
            match listener.accept().await {
                Ok((socket, _)) => break socket,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        };
        if let Ok(socket) = socket.into_std() {
            admit(shared, worker, ClientSocket::plain(socket));
        }
    }
}

/// The TLS thread, until the proxy stops: deals connections whose handshake is done to the workers in turn.
async fn accept_tls(
    shared: &Shared,
    listener: std::net::TcpListener,
    tls: &Tls,
    workers: &[mpsc::Sender<Accepted>],
    mut stopped: watch::Receiver<bool>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the TLS listener is of no use");
            return;
        }
    };
    let mut workers = workers.iter().cycle();
    let admit = |socket, _| {
        if let Some(worker) = workers.next() {
            admit(shared, worker, socket);
        }
    };
    tokio::select! {
        never = tls::serve(&listener, tls, admit) => match never {},
        // An error means that the proxy was dropped.
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

/// Gives a connection to a worker, or turns it away.
fn admit(shared: &Shared, worker: &mpsc::Sender<Accepted>, socket: ClientSocket) {
    match shared.clients.accept(shared.options.client_connections_max as u64) {
        // A worker whose queue is full lets the connection go.
        Some(place) => drop(worker.try_send((socket, place))),
        None => socket.turn_away(b"-ERR max number of clients reached\r\n"),
    }
}
