//! One cache node: builds every part, joins every thread, owns shutdown.
//!
//! The calling thread runs the two listeners, the bootstrap and the shutdown; each worker has a thread of its own.

mod control;
mod folder;
mod metrics;
mod waiting;

use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::failpoint::{self, Point};
use crate::log::{LastStop, LogError, LogOptions, SEGMENT_BYTES_DEFAULT};
use crate::worker::WorkerOptions;
use crate::worker::core::{COMPACT_BYTES_MIN, DISK_FREE_MIN};
use crate::worker::shared::{Links, NodeState, Shared};
use crate::worker::shell::{self, Inbox, Input, ShellOptions};
use anyhow::Context as _;
use control::Control;
use folder::Folder;
pub(crate) use folder::kept_map;
use metrics::Metrics;
use ringfort_proxy::http;
use ringfort_proxy::server::{ProxyOptions, TlsOptions};
use ringfort_proxy::stream::ClientSocket;
use ringfort_proxy::tls::{self, Tls};
use ringfort_ring::NodeId;
use ringfort_wire::ClusterMap;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{LocalSet, spawn_local};

/// Most connections of clients to one node, as Redis's `maxclients`.
pub const CLIENTS_MAX: u64 = 10_000;
/// Time in which a stopping node hands its leaderships over.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Wait between two looks at whether it has.
const LEAVE_POLL: Duration = Duration::from_millis(10);
/// Wait between two looks at what the process uses.
const WATCH: Duration = Duration::from_secs(1);
/// Pause after a failed accept (no file descriptors left), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// The cluster as its file describes it.
    pub config: Config,
    /// Which node of it this process is.
    pub id: NodeId,
    /// Folder of the node's log and snapshots; made when missing.
    pub data_dir: PathBuf,
    /// Number of worker threads, at least 1.
    pub workers: usize,
    /// The certificate for TLS clients; needed when the node has a TLS address.
    pub tls: Option<Arc<Tls>>,
    /// Whether to set the data folder aside and be seeded from the others.
    pub rebuild: bool,
}

/// Runs the node until SIGTERM or SIGINT.
///
/// # Errors
/// The node could not start or had to stop; the text says why.
pub fn run(options: NodeOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run_node(options))
}

/// A worker's thread, and what it says at its end.
type Ended = (u16, anyhow::Result<()>);

async fn run_node(options: NodeOptions) -> anyhow::Result<()> {
    let NodeOptions { config, id, data_dir, workers, tls, rebuild } = options;
    let node = config.node(&id).with_context(|| format!("no node '{id}' in the config file"))?.clone();
    let secret = config.load_peer_secret()?;
    let workers = u16::try_from(workers.max(1)).context("too many workers")?;
    failpoint::watch().context("the control file of failpoints")?;
    if rebuild {
        folder::set_aside(&data_dir, &id)?;
    }
    let folder = Folder::open(&data_dir, &id, workers, random()?)?;
    let store_id = folder.store_id()?;
    let client_listener = bind(node.client, "client").await?;
    let peer_listener = bind(node.peer, "peer").await?;
    let tls_listener = match node.tls_client {
        Some(address) => Some(bind(address, "tls_client").await?),
        None => None,
    };
    let shared =
        Arc::new(Shared::new(id.clone(), store_id, workers, random()?, node.client.port(), CLIENTS_MAX));
    let metrics = Arc::new(Metrics {
        shared: Arc::clone(&shared),
        proxy: OnceLock::new(),
        started_us: SystemClock.now().boot_us,
    });
    if let Some(address) = node.metrics {
        let listener = bind(address, "metrics").await?;
        let metrics = Arc::clone(&metrics);
        spawn_local(http::serve(listener, Arc::new(move |path| metrics.answer(path))));
    }
    let control = Rc::new(Control {
        config,
        node: id.clone(),
        store_id,
        folder,
        shared: Arc::clone(&shared),
        secret,
        warned_us: Cell::new(0),
        links: Links::default(),
        inboxes: RefCell::new(Vec::new()),
    });
    spawn_local(Rc::clone(&control).serve(peer_listener));
    spawn_local(watch_process(Arc::clone(&shared)));
    let mut stop = Stop::new()?;
    let mut waiting = Box::pin(waiting::serve(&client_listener, &shared));
    let map = tokio::select! {
        map = control.join_cluster(random()?) => map?,
        never = &mut waiting => match never {},
        () = stop.asked() => return Ok(()),
    };
    failpoint::hit(Point::NodeMapKept)?;
    shared.set_map(&map);
    let kept = Arc::new(map.clone());
    let is_suspect =
        !map.fsync && control.folder.has_run() && control.folder.last_stop() == LastStop::Machine;
    let (inboxes, mut ended) = tokio::select! {
        started = start_workers(&control, &shared, map, is_suspect) => started.inspect_err(|error| {
            if error.chain().any(|e| e.downcast_ref().is_some_and(LogError::is_failed_sync)) {
                control.folder.forget_boot();
            }
        })?,
        never = &mut waiting => match never {},
    };
    drop(waiting);
    failpoint::hit(Point::NodeStarted)?;
    // The workers have noted which replicas are suspect.
    control.folder.note_boot()?;
    control.folder.note_run()?;
    *control.inboxes.borrow_mut() = inboxes.clone();
    spawn_local(Rc::clone(&control).follow_map());
    spawn_local(Rc::clone(&control).keep_maps(kept));
    spawn_local(Rc::clone(&control).tell_tls_address());
    let door =
        Arc::new(Door { shared: Arc::clone(&shared), inboxes: inboxes.clone(), next: AtomicUsize::new(0) });
    spawn_local(accept_clients(client_listener, Arc::clone(&door)));
    if let Some(tls) = &tls {
        let tls = Arc::clone(tls);
        spawn_local(async move { tls.watch().await });
    }
    let _tls_thread = match (tls_listener, &tls) {
        (Some(listener), Some(tls)) => Some(start_tls(listener, Arc::clone(tls), door)?),
        _ => None,
    };
    let proxy = node.proxy.map(|listen| {
        let seeds = control.config.nodes.iter().map(|n| n.peer.to_string()).collect();
        let tls = node.tls_proxy.zip(tls).map(|(listen, tls)| TlsOptions { listen, tls });
        let options = ProxyOptions {
            tls,
            workers: usize::from(workers),
            secret: control.secret.clone(),
            ..ProxyOptions::new(listen, seeds)
        };
        ringfort_proxy::server::start(options).context("the node's own proxy")
    });
    let proxy = proxy.transpose()?;
    if let Some(proxy) = &proxy {
        metrics.proxy.get_or_init(|| Arc::clone(proxy.clients()));
    }
    shared.set_state(NodeState::Up);
    tracing::info!(node = %id, client = %node.client, peer = %node.peer, workers, "ready");
    tokio::select! {
        end = ended.recv() => {
            control.folder.forget_boot();
            return worker_ended(end);
        }
        () = stop.asked() => {}
    }
    if let Some(proxy) = proxy {
        proxy.stop();
    }
    shared.set_state(NodeState::Leaving);
    tracing::info!(node = %id, "handing leaderships over");
    for inbox in &inboxes {
        inbox.push(Input::Leave);
    }
    let left = async {
        while !inboxes.iter().all(|inbox| inbox.has_left()) {
            tokio::time::sleep(LEAVE_POLL).await;
        }
    };
    tokio::select! {
        outcome = tokio::time::timeout(LEAVE_TIMEOUT, left) => {
            if outcome.is_err() {
                tracing::warn!(node = %id, "some leaderships could not be handed over");
            }
        }
        end = ended.recv() => {
            control.folder.forget_boot();
            return worker_ended(end);
        }
        () = stop.asked() => {} // asked twice: do not wait
    }
    failpoint::hit(Point::StopLeft)?;
    for inbox in &inboxes {
        inbox.push(Input::Stop);
    }
    for _ in &inboxes {
        if let Some((worker, Err(error))) = ended.recv().await {
            control.folder.forget_boot();
            return worker_ended(Some((worker, Err(error))));
        }
    }
    failpoint::hit(Point::StopNote)?;
    if let Some(map) = shared.map().filter(|map| shared.kept_epoch() < map.epoch)
        && let Err(error) = control.folder.keep_map(&map)
    {
        tracing::warn!(
            error = format!("{error:#}"),
            "the cluster map could not be kept: an older one is there"
        );
    }
    control.folder.note_clean_stop()?;
    tracing::info!(node = %id, "stopped");
    Ok(())
}

fn worker_ended(end: Option<Ended>) -> anyhow::Result<()> {
    match end {
        Some((worker, Err(error))) => Err(error.context(format!("worker {worker} had to stop"))),
        _ => anyhow::bail!("a worker ended by itself"),
    }
}

/// Starts the workers and waits until all have read their data.
async fn start_workers(
    control: &Control,
    shared: &Arc<Shared>,
    map: ClusterMap,
    is_suspect: bool,
) -> anyhow::Result<(Vec<Arc<Inbox>>, mpsc::Receiver<Ended>)> {
    let inboxes: Vec<Arc<Inbox>> = (0..shared.workers).map(|_| Arc::default()).collect();
    let count = usize::from(shared.workers);
    let (ready, mut readies) = mpsc::channel::<()>(count);
    let (end, mut ended) = mpsc::channel::<Ended>(count);
    let map = Arc::new(map);
    let segment_bytes = failpoint::limit("segment_bytes", SEGMENT_BYTES_DEFAULT);
    let log = LogOptions { last_stop: control.folder.last_stop(), segment_bytes, ..LogOptions::default() };
    for worker in 0..shared.workers {
        let options = ShellOptions {
            core: WorkerOptions {
                worker,
                node: control.node.clone(),
                log,
                is_restart: true,
                has_run: control.folder.has_run(),
                is_suspect,
                seed: random()? as u64,
                compact_bytes_min: failpoint::limit("compact_bytes_min", COMPACT_BYTES_MIN),
                disk_free_min: DISK_FREE_MIN,
                limits: crate::shard::limits::Limits::default(),
            },
            folder: control.folder.worker_path(worker),
            map: Arc::clone(&map),
            shared: Arc::clone(shared),
            secret: control.secret.clone(),
            inboxes: inboxes.clone(),
        };
        let (ready, end) = (ready.clone(), end.clone());
        std::thread::Builder::new().name(format!("worker-{worker}")).spawn(move || {
            let result = shell::run(options, || {
                let _ = ready.blocking_send(());
            });
            let _ = end.blocking_send((worker, result));
        })?;
    }
    for _ in 0..count {
        tokio::select! {
            biased;
            end = ended.recv() => {
                worker_ended(end)?;
            }
            _ = readies.recv() => {}
        }
    }
    Ok((inboxes, ended))
}

/// Where clients enter, plain or by TLS: they are dealt to the workers in turn.
struct Door {
    shared: Arc<Shared>,
    inboxes: Vec<Arc<Inbox>>,
    /// How many were let in.
    next: AtomicUsize,
}

impl Door {
    fn admit(&self, socket: ClientSocket) {
        let Some(place) = self.shared.clients.accept(self.shared.clients_max) else {
            return socket.turn_away(b"-ERR max number of clients reached\r\n");
        };
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.inboxes[next % self.inboxes.len()].push(Input::Client(socket, place));
    }
}

/// Takes plain clients for as long as the node runs.
async fn accept_clients(listener: TcpListener, door: Arc<Door>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the client port cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        failpoint::pass(Point::ClientAccept);
        if let Ok(stream) = stream.into_std() {
            door.admit(ClientSocket::plain(stream));
        }
    }
}

/// Starts the thread that takes TLS clients. It ends when what is returned is dropped.
fn start_tls(
    listener: TcpListener,
    tls: Arc<Tls>,
    door: Arc<Door>,
) -> anyhow::Result<oneshot::Sender<Infallible>> {
    let (running, stopped) = oneshot::channel();
    let listener = listener.into_std()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = async move {
        let listener = TcpListener::from_std(listener)?;
        tokio::select! {
            never = tls::serve(&listener, &tls, |socket, _| door.admit(socket)) => match never {},
            _ = stopped => Ok::<_, std::io::Error>(()),
        }
    };
    std::thread::Builder::new().name("tls".to_owned()).spawn(move || {
        if let Err(error) = runtime.block_on(serve) {
            tracing::error!(%error, "the TLS listener is of no use");
        }
    })?;
    Ok(running)
}

/// Keeps what INFO shows of the process up to date.
async fn watch_process(shared: Arc<Shared>) {
    let started = SystemClock.now();
    shared.memory_bytes.store(ringfort_proxy::process::machine_memory().unwrap_or(0), Ordering::Relaxed);
    loop {
        let now = SystemClock.now();
        shared.uptime_s.store((now.boot_us - started.boot_us) / 1_000_000, Ordering::Relaxed);
        *shared.usage.lock() = ringfort_proxy::process::usage();
        tokio::time::sleep(WATCH).await;
    }
}

async fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} (the node's '{key}'): stop what uses it, or change it in the config file")
    })
}

fn random() -> anyhow::Result<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("the system gives no random bytes: {e}"))?;
    // 0 means "none" in the handshake.
    Ok(u128::from_le_bytes(bytes).max(1))
}

/// SIGTERM and SIGINT.
struct Stop {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
