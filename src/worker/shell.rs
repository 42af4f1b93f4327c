//! A worker's thread: moves bytes between sockets and the [`WorkerCore`], and runs its turns.
//!
//! Connection tasks only read into the core and wake the one turn task, which lets all sockets that are ready be
//! read first. Nobody awaits a send: what a socket does not take at once stays in a bounded buffer, and its own task
//! sends it when the socket is writable.

mod alarm;
mod snapshots;
mod threads;

use super::core::{Job, JobDone, WorkerCore, WorkerOptions};
use super::ports::{PEER_BYTES_MAX, WorkerMessage};
use super::shared::{LinkPlace, Shared};
use crate::clock::{Clock as _, SystemClock};
use crate::failpoint::{self, Point};
use crate::log::{FsDisk, LogError};
use alarm::Alarm;
use crossbeam::queue::SegQueue;
use ringfort_proxy::clients::{Address, Place};
use ringfort_proxy::errands::TOO_MANY;
use ringfort_proxy::pace::{BulkPace, Pass};
use ringfort_proxy::server::{meta, peer};
use ringfort_proxy::stream::{self, ClientSocket, ClientStream};
use ringfort_ring::NodeId;
use ringfort_wire::frame;
use ringfort_wire::hello::{Channel, Hello, HelloAck};
use ringfort_wire::{ClusterMap, FEATURE_LEVEL, MetaAnswer, MetaWrite, PeerSecret};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use threads::{job_thread, yield_to_turns};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::spawn_local;

/// Most bytes read from one socket at a time, so that no client holds up the others.
const READ_BYTES: usize = 64 << 10;
const _: () = assert!(READ_BYTES >= ClientStream::READ_BYTES_MIN);
/// Most bytes written to one socket before the others have their turn.
const WRITE_BYTES: usize = 128 << 10;
/// What the system keeps of replies that a proxy has not taken: what a small one finds before it.
const REPLY_BUFFER_BYTES: usize = 256 << 10;
/// Time for a connection to be made and greeted.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time without an acknowledgement by the peer's TCP after which a link is given up.
const PEER_TIMEOUT: Duration = Duration::from_secs(2);
/// Most changes of the cluster map that wait for the meta group here; the next is refused.
const META_WRITES_MAX: usize = 256;
/// Time for a change that a client asks of the meta group, as a proxy's for any command.
const ERRAND_TIMEOUT: Duration = Duration::from_secs(5);
/// Waits between two attempts to reach a peer.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// What reaches a worker from other threads.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "only the log thread's rare answers are large; they are moved once"
)]
pub enum Input {
    /// A client of the node's own port.
    Client(ClientSocket, Place),
    /// A link that was greeted: its first bytes are read.
    Link(std::net::TcpStream, Channel, LinkPlace),
    /// A message of another worker. A client has at most a bounded number of commands under way, so these are bounded.
    Worker(WorkerMessage),
    /// A change of the cluster map, and where its answer goes. It waits for the meta group, whose queue is bounded.
    MetaWrite(Vec<u8>, oneshot::Sender<MetaAnswer>),
    /// The log thread is done, and has taken so many µs.
    Job(JobDone<FsDisk>, u64),
    /// Hand every leadership over; the flag of [`Inbox`] tells when it is done.
    Leave,
    /// Make the log durable and end.
    Stop,
}

/// A worker's queue of inputs.
#[derive(Debug, Default)]
pub struct Inbox {
    queue: SegQueue<Input>,
    wake: Notify,
    has_left: std::sync::atomic::AtomicBool,
}

impl Inbox {
    /// Hands an input to the worker.
    pub fn push(&self, input: Input) {
        self.queue.push(input);
        self.wake.notify_one();
    }

    /// Whether every leadership has been handed over since [`Input::Leave`].
    pub fn has_left(&self) -> bool {
        self.has_left.load(Ordering::Acquire)
    }
}

/// How a worker's thread is started.
#[derive(Debug)]
pub struct ShellOptions {
    /// For the core.
    pub core: WorkerOptions,
    /// Folder of its log.
    pub folder: PathBuf,
    /// The map to start from.
    pub map: Arc<ClusterMap>,
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// What is proven on every link to another node.
    pub secret: Option<PeerSecret>,
    /// The queues of all workers of the node, this one's included.
    pub inboxes: Vec<Arc<Inbox>>,
}

/// Runs a worker until [`Input::Stop`]; `ready` is called when its data are read.
///
/// # Errors
/// Its data cannot be read, or it cannot go on: the process must stop.
pub fn run(options: ShellOptions, ready: impl FnOnce()) -> anyhow::Result<()> {
    let disk = FsDisk::open(&options.folder)?;
    let core = WorkerCore::new(options.core.clone(), Arc::clone(&options.shared), &options.map, disk)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let worker = options.core.worker;
    let inbox = Arc::clone(&options.inboxes[usize::from(worker)]);
    core.set_wake({
        let inbox = Arc::clone(&inbox);
        move || inbox.wake.notify_one()
    });
    let (syncs, sync_thread) = job_thread(format!("log-{worker}"), &inbox, || {})?;
    // Snapshots may be large: the log's syncs, for which writes wait, must not queue behind them.
    let (snapshots, snapshot_thread) = job_thread(format!("snapshot-{worker}"), &inbox, yield_to_turns)?;
    let transfers = snapshots::Transfers::start(worker)?;
    let shell = Rc::new(Shell {
        core: RefCell::new(core),
        clock: SystemClock,
        inbox,
        inboxes: options.inboxes,
        shared: options.shared,
        secret: options.secret,
        syncs,
        snapshots,
        transfers,
        received: RefCell::new(BTreeMap::new()),
        meta_writes: RefCell::new(BTreeMap::new()),
        meta_number: Cell::new(0),
        node: options.core.node,
        worker,
        peers: RefCell::new(BTreeMap::new()),
        pace: Rc::default(),
        links: RefCell::new(BTreeMap::new()),
        clients: RefCell::new(BTreeMap::new()),
        is_leaving: Cell::new(false),
        client_buffer: RefCell::new(vec![0; READ_BYTES].into_boxed_slice()),
    });
    ready();
    let result = tokio::task::LocalSet::new().block_on(&runtime, Rc::clone(&shell).main());
    let last_sync = shell.core.borrow_mut().take_last_sync();
    let inbox = Arc::clone(&shell.inbox);
    drop(shell);
    drop(runtime);
    let _ = (sync_thread.join(), snapshot_thread.join());
    result.map_err(|error| first_cause(error, &inbox))?;
    failpoint::hit(Point::StopSync)?;
    if let Some(job) = last_sync {
        job.run()?;
    }
    Ok(())
}

/// Once a sync has failed the log refuses everything; why it has may still be on its way from the log's thread.
fn first_cause(error: anyhow::Error, inbox: &Inbox) -> anyhow::Error {
    if !matches!(error.downcast_ref(), Some(LogError::Failed)) {
        return error;
    }
    while let Some(input) = inbox.queue.pop() {
        if let Input::Job(JobDone::Synced(Err(cause)), _) = input {
            return cause.into();
        }
    }
    error
}

/// A raft link towards one worker of a peer.
#[derive(Debug, Default)]
struct PeerLink {
    stream: RefCell<Option<Rc<TcpStream>>>,
    unsent: RefCell<Vec<u8>>,
    wake: Notify,
}

/// A proxy's link, whose output the turn sends; what the socket does not take stays in the core.
#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    /// Whether the socket failed: its task ends.
    is_broken: Cell<bool>,
    wake: Notify,
}

/// A client's connection, whose output the turn sends; what the socket does not take stays in the session.
#[derive(Debug)]
struct ClientConnection {
    stream: ClientStream,
    /// Whether the socket failed: its task ends.
    is_broken: Cell<bool>,
    /// What the task waits for: input, room for output.
    waits_for: Cell<(bool, bool)>,
    wake: Notify,
}

struct Shell {
    core: RefCell<WorkerCore<FsDisk>>,
    clock: SystemClock,
    inbox: Arc<Inbox>,
    inboxes: Vec<Arc<Inbox>>,
    shared: Arc<Shared>,
    secret: Option<PeerSecret>,
    syncs: crossbeam::channel::Sender<Job<FsDisk>>,
    snapshots: crossbeam::channel::Sender<Job<FsDisk>>,
    transfers: snapshots::Transfers,
    /// Received snapshots (group, index) whose sender waits to hear that they are durable.
    received: RefCell<BTreeMap<(u16, u64), oneshot::Sender<bool>>>,
    /// Changes of the cluster map, by their numbers, whose sender waits.
    meta_writes: RefCell<BTreeMap<u64, oneshot::Sender<MetaAnswer>>>,
    meta_number: Cell<u64>,
    node: NodeId,
    worker: u16,
    peers: RefCell<BTreeMap<(NodeId, u16), Rc<PeerLink>>>,
    links: RefCell<BTreeMap<u64, Rc<Connection>>>,
    clients: RefCell<BTreeMap<u64, Rc<ClientConnection>>>,
    is_leaving: Cell<bool>,
    /// For replies of megabytes to clients and proxies.
    pace: Rc<BulkPace>,
    /// What every client's task reads into; nobody holds it across an await.
    client_buffer: RefCell<Box<[u8]>>,
}

impl Shell {
    /// The turn task.
    async fn main(self: Rc<Self>) -> anyhow::Result<()> {
        self.follow_peers();
        let mut alarm = Alarm::new()?;
        let (mut alarm_us, mut followed_us) = (None, 0);
        loop {
            let next_us = self.core.borrow().next_tick_us();
            if alarm_us != Some(next_us) {
                alarm.set(next_us)?;
                alarm_us = Some(next_us);
            }
            if self.core.borrow().wants_turn() {
                tokio::task::yield_now().await;
            } else {
                tokio::select! {
                    biased;
                    () = self.inbox.wake.notified() => {
                        // Lets every socket that is ready be read, so that this turn serves them all.
                        tokio::task::yield_now().await;
                    }
                    passed = alarm.passed() => {
                        passed?;
                        alarm_us = None;
                    }
                }
            }
            self.core.borrow_mut().pass_time(self.clock.now());
            if self.take_inputs()? {
                return Ok(());
            }
            let next_us = self.core.borrow().next_tick_us();
            if next_us != std::mem::replace(&mut followed_us, next_us) {
                self.follow_peers();
            }
            self.core.borrow_mut().turn(&self.clock)?;
            self.flush();
        }
    }

    /// Takes what other threads have sent. Returns whether to stop.
    fn take_inputs(self: &Rc<Self>) -> anyhow::Result<bool> {
        while let Some(input) = self.inbox.queue.pop() {
            match input {
                Input::Client(socket, place) => self.accept_client(socket, place),
                Input::Link(stream, channel, place) => self.accept_link(stream, channel, place),
                Input::Worker(message) => self.core.borrow_mut().worker_message(message, self.clock.now()),
                Input::MetaWrite(body, sender) => self.take_meta_write(&body, sender),
                Input::Job(done, took_us) => {
                    if let JobDone::Synced(_) = &done {
                        self.core.borrow_mut().sync_took(took_us);
                    }
                    if let JobDone::Received(group, header, _, result) = &done
                        && let Some(sender) = self.received.borrow_mut().remove(&(*group, header.index))
                    {
                        let _ = sender.send(result.is_ok());
                    }
                    self.core.borrow_mut().job_done(done)?;
                }
                Input::Leave => {
                    self.is_leaving.set(true);
                    self.core.borrow_mut().leave();
                }
                Input::Stop => return Ok(true),
            }
        }
        Ok(false)
    }

    fn take_meta_write(&self, body: &[u8], sender: oneshot::Sender<MetaAnswer>) {
        let waiting = &mut *self.meta_writes.borrow_mut();
        if waiting.len() >= META_WRITES_MAX {
            // An error means that nobody waits any more.
            let _ = sender.send(MetaAnswer::Refused(TOO_MANY.to_owned()));
            return;
        }
        let number = self.meta_number.get() + 1;
        self.meta_number.set(number);
        waiting.insert(number, sender);
        self.core.borrow_mut().meta_write(number, body);
    }

    /// Sends what the turn has produced: one write to each peer, link and client.
    fn flush(self: &Rc<Self>) {
        let now = self.clock.now();
        let (sends, jobs, messages, links) = {
            let mut core = self.core.borrow_mut();
            core.send_raft_output(|node, worker, bytes| self.send_to_peer(node, worker, bytes));
            (
                core.take_snapshot_sends(),
                core.take_jobs(),
                core.take_worker_output(),
                core.take_touched_links(now),
            )
        };
        for job in jobs {
            // The threads live as long as these senders.
            let _ = match job {
                Job::Sync(_) => self.syncs.send(job),
                Job::Rewrite(_)
                | Job::Write { .. }
                | Job::Snapshot { .. }
                | Job::Received { .. }
                | Job::Free(_) => self.snapshots.send(job),
            };
        }
        for (worker, message) in messages {
            if let Some(inbox) = self.inboxes.get(usize::from(worker)) {
                inbox.push(Input::Worker(message));
            }
        }
        for id in links {
            self.flush_link(id, None);
        }
        let clients = self.core.borrow_mut().take_touched_clients(now);
        for id in clients {
            self.flush_client(id, None);
        }
        for (number, answer) in self.core.borrow_mut().take_meta_answers() {
            if let Some(sender) = self.meta_writes.borrow_mut().remove(&number) {
                // Nobody waits any more when the link broke.
                let _ = sender.send(answer);
            }
        }
        for (errand, write) in self.core.borrow_mut().take_errands() {
            spawn_local(Rc::clone(self).run_errand(errand, write));
        }
        for send in sends {
            spawn_local(Rc::clone(self).send_snapshot(send));
        }
        if self.is_leaving.get() && self.core.borrow().has_left() {
            self.inbox.has_left.store(true, Ordering::Release);
        }
    }

    // --- Peers -----------------------------------------------------------------------------------------------------

    /// Opens a link to every worker of every other node that does not have one.
    fn follow_peers(self: &Rc<Self>) {
        let Some(map) = self.shared.map() else { return };
        for node in map.nodes.iter().filter(|n| n.id != self.node) {
            let key = (node.id.clone(), 0);
            if !self.peers.borrow().contains_key(&key) {
                self.open_peer(key);
            }
        }
    }

    fn open_peer(self: &Rc<Self>, key: (NodeId, u16)) {
        let link = Rc::new(PeerLink::default());
        self.peers.borrow_mut().insert(key.clone(), Rc::clone(&link));
        spawn_local(Rc::clone(self).keep_peer(key, link));
    }

    /// Keeps a link to one worker of a peer, where the map has it, for as long as the peer is a member and this worker lives.
    async fn keep_peer(self: Rc<Self>, key: (NodeId, u16), link: Rc<PeerLink>) {
        let mut wait = RECONNECT.0;
        // The same refusal is said once.
        let mut said = String::new();
        while let Some(address) = self.shared.map().and_then(|map| Some(map.node(&key.0)?.peer.clone())) {
            let connected = self.connect(&address, Channel::Raft, key.1).await;
            if let Err(error) = &connected
                && peer::is_refusal(error)
                && said != error.to_string()
            {
                said = error.to_string();
                tracing::warn!(peer = %key.0, %error, "a peer refuses the link");
            }
            if let Ok((stream, ack)) = connected {
                failpoint::pass(Point::PeerConnected);
                wait = RECONNECT.0;
                self.core.borrow_mut().peer_up(key.0.clone(), ack.workers);
                self.inbox.wake.notify_one();
                for worker in 1..ack.workers {
                    if !self.peers.borrow().contains_key(&(key.0.clone(), worker)) {
                        self.open_peer((key.0.clone(), worker));
                    }
                }
                // A peer that is gone without a word is noticed when it acknowledges nothing for so long.
                let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(PEER_TIMEOUT));
                let stream = Rc::new(stream);
                *link.stream.borrow_mut() = Some(Rc::clone(&stream));
                tracing::debug!(peer = %key.0, worker = key.1, "linked to peer");
                let _ = serve_peer(&stream, &link).await;
                *link.stream.borrow_mut() = None;
                link.unsent.borrow_mut().clear();
                tracing::debug!(peer = %key.0, worker = key.1, "link to peer is lost");
                self.core.borrow_mut().peer_down(&key.0);
                self.inbox.wake.notify_one();
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RECONNECT.1);
        }
        self.peers.borrow_mut().remove(&key);
    }

    fn send_to_peer(&self, node: &NodeId, worker: u16, bytes: &[u8]) {
        let peers = self.peers.borrow();
        let Some(link) = peers.get(&(node.clone(), worker)) else { return };
        let stream = link.stream.borrow().clone();
        let Some(stream) = stream else { return };
        let mut unsent = link.unsent.borrow_mut();
        let send = |bytes: &[u8]| stream.try_write(bytes);
        // An error shows again to the link's own task, which ends the link.
        let sent = match unsent.is_empty() {
            true => failpoint::torn(Point::PeerSendTorn, bytes, send).unwrap_or(0),
            false => 0,
        };
        if sent < bytes.len() {
            if unsent.len() + bytes.len() > PEER_BYTES_MAX && sent == 0 {
                return; // the peer does not read: Raft sends again
            }
            unsent.extend_from_slice(&bytes[sent..]);
            link.wake.notify_one();
        }
    }

    /// Connects to a worker of a node and greets it.
    async fn connect(
        &self,
        address: &str,
        channel: Channel,
        to_worker: u16,
    ) -> io::Result<(TcpStream, HelloAck)> {
        let hello = self.hello(channel, to_worker);
        tokio::time::timeout(CONNECT_TIMEOUT, peer::connect(address, hello, self.secret.as_ref())).await?
    }

    fn hello(&self, channel: Channel, to_worker: u16) -> Hello {
        Hello {
            feature_level: FEATURE_LEVEL,
            channel,
            cluster_id: self.shared.map().map_or(0, |m| m.cluster_id),
            node: self.node.0.clone(),
            store_id: self.shared.store_id,
            worker: self.worker,
            to_worker,
            nonce: None,
        }
    }

    /// Has the meta group make a change that a client of this worker asks for, and answers the client.
    async fn run_errand(self: Rc<Self>, errand: u64, write: MetaWrite) {
        let outcome = match self.shared.map() {
            Some(map) => {
                let hello = self.hello(Channel::Control, 0);
                meta::write(&map, &hello, self.secret.as_ref(), &write, ERRAND_TIMEOUT).await
            }
            None => Err("LOADING the cluster has not formed yet".to_owned()),
        };
        // The map that shows the change comes before the answer.
        let outcome = outcome.map(|map| {
            self.shared.set_map(&map);
        });
        self.core.borrow_mut().errand_done(errand, &outcome);
        self.inbox.wake.notify_one();
    }

    // --- Links of peers and proxies --------------------------------------------------------------------------------

    fn accept_link(self: &Rc<Self>, stream: std::net::TcpStream, channel: Channel, place: LinkPlace) {
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            // One socket that the system does not watch is no reason to stop serving the others.
            Err(error) => return tracing::warn!(%error, "a link is dropped"),
        };
        let shell = Rc::clone(self);
        spawn_local(async move {
            match channel {
                Channel::Raft => shell.serve_raft(stream).await,
                Channel::Requests => shell.serve_link(stream).await,
                Channel::Snapshot => shell.serve_snapshot(stream).await,
                Channel::Control => {}
            }
            drop(place);
        });
    }

    /// Reads a peer's Raft messages.
    async fn serve_raft(self: Rc<Self>, stream: TcpStream) {
        let mut input: Vec<u8> = Vec::new();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            if stream.readable().await.is_err() {
                return;
            }
            let is_full = match stream::read_some(&stream, &mut buffer) {
                Ok(0) => return,
                Ok(n) => {
                    input.extend_from_slice(&buffer[..n]);
                    n == buffer.len()
                }
                Err(e) if !stream::is_fatal(&e) => continue,
                Err(_) => return,
            };
            failpoint::pass(Point::PeerReceive);
            let now = self.clock.now();
            let mut start = 0;
            loop {
                match frame::next(&input[start..]) {
                    Ok(Some(f)) => {
                        let outcome = self.core.borrow_mut().peer_frame(f.kind, f.body, now);
                        if let Err(error) = outcome {
                            tracing::warn!(%error, "a peer's link is dropped");
                            return;
                        }
                        start += f.consumed;
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%error, "a peer's link is dropped");
                        return;
                    }
                }
            }
            input.drain(..start);
            failpoint::pass(Point::PeerReceived);
            self.inbox.wake.notify_one();
            if is_full {
                // There is more, perhaps for long: others have their turn.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Serves a proxy's requests.
    async fn serve_link(self: Rc<Self>, stream: TcpStream) {
        if let Err(error) = socket2::SockRef::from(&stream).set_send_buffer_size(REPLY_BUFFER_BYTES) {
            tracing::warn!(%error, "a proxy's link is dropped");
            return;
        }
        let id = self.core.borrow_mut().link_open();
        let connection = Rc::new(Connection { stream, is_broken: Cell::new(false), wake: Notify::new() });
        self.links.borrow_mut().insert(id, Rc::clone(&connection));
        let mut buffer = vec![0; READ_BYTES];
        // While a bulk reply waits for its pass.
        let mut next_pass = None;
        while !connection.is_broken.get() {
            let (wants_input, has_output, has_bulk) = {
                let mut core = self.core.borrow_mut();
                (core.link_wants_input(id), !core.link_output(id).0.is_empty(), core.link_has_bulk(id))
            };
            if has_bulk && next_pass.is_none() {
                next_pass = Some(Box::pin(Rc::clone(&self.pace).pass()));
            }
            let ready = tokio::select! {
                ready = ready(&connection, wants_input, has_output) => ready,
                pass = poll_fn(|cx| poll_pass(&mut next_pass, cx)) => {
                    self.flush_link(id, Some(&pass));
                    drop(pass);
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let Ok(ready) = ready else { break };
            if ready.is_writable() {
                self.flush_link(id, None);
                tokio::task::yield_now().await;
            }
            if ready.is_readable() {
                match stream::read_some(&connection.stream, &mut buffer) {
                    Ok(0) => break,
                    Ok(n) => {
                        failpoint::pass(Point::LinkReceive);
                        let now = self.clock.now();
                        if let Err(error) = self.core.borrow_mut().link_data(id, &buffer[..n], now) {
                            tracing::warn!(%error, "a proxy's link is dropped");
                            break;
                        }
                        self.inbox.wake.notify_one();
                        if n == buffer.len() {
                            tokio::task::yield_now().await;
                        }
                    }
                    Err(e) if !stream::is_fatal(&e) => {}
                    Err(_) => break,
                }
            }
        }
        self.links.borrow_mut().remove(&id);
        self.core.borrow_mut().link_close(id);
    }

    /// Sends the next bytes of a link's output, those of bulk replies only with a pass; its task sends the rest.
    fn flush_link(&self, id: u64, pass: Option<&Pass>) {
        let Some(connection) = self.links.borrow().get(&id).cloned() else { return };
        let now = self.clock.now();
        let mut core = self.core.borrow_mut();
        if pass.is_some() {
            core.link_let_bulk(id);
        }
        let mut budget = WRITE_BYTES;
        while !connection.is_broken.get()
            && let (output @ [_, ..], is_large) = core.link_output(id)
        {
            let output = &output[..output.len().min(budget)];
            let send = |bytes: &[u8]| connection.stream.try_write(bytes);
            let result = match output.is_empty() {
                true => Ok(0),
                false => sent(failpoint::torn(Point::LinkReplyTorn, output, send)),
            };
            match result {
                Ok(0) => {
                    connection.wake.notify_one();
                    break;
                }
                Ok(count) => {
                    budget -= count;
                    core.link_sent(id, count, now);
                    if !is_large {
                        self.pace.serves_others();
                    }
                }
                Err(_) => {
                    connection.is_broken.set(true);
                    connection.wake.notify_one();
                }
            }
        }
        if pass.is_none() && core.link_has_bulk(id) {
            connection.wake.notify_one();
        }
        if core.wants_turn() {
            self.inbox.wake.notify_one();
        }
    }

    // --- Clients ---------------------------------------------------------------------------------------------------

    fn accept_client(self: &Rc<Self>, socket: ClientSocket, place: Place) {
        match ClientStream::new(socket) {
            Ok(stream) => drop(spawn_local(Rc::clone(self).serve_client(stream, place))),
            // With its place another client can come.
            Err(error) => tracing::debug!(%error, "a client is gone already, or cannot be watched"),
        }
    }

    async fn serve_client(self: Rc<Self>, stream: ClientStream, place: Place) {
        let client = self.core.borrow_mut().client_open(place, &Address::of(stream.tcp()));
        if stream.is_tls() {
            self.core.borrow_mut().client_set_tls(client);
        }
        let connection = Rc::new(ClientConnection {
            stream,
            is_broken: Cell::new(false),
            waits_for: Cell::default(),
            wake: Notify::new(),
        });
        self.clients.borrow_mut().insert(client, Rc::clone(&connection));
        loop {
            let (wants_input, has_output, is_over) = {
                let mut core = self.core.borrow_mut();
                let wants_input = core.client_wants_input(client);
                let Some((output, is_over)) = core.client_output(client) else { break };
                (wants_input, !output.is_empty(), is_over)
            };
            if is_over || connection.is_broken.get() {
                break;
            }
            connection.waits_for.set((wants_input, has_output || connection.stream.has_unsent()));
            let ready = tokio::select! {
                ready = connection.stream.ready(wants_input, has_output) => ready,
                () = connection.wake.notified() => Ok(tokio::io::Ready::EMPTY),
            };
            let Ok(ready) = ready else { break };
            if ready.is_writable() {
                let is_bulk = self.core.borrow_mut().client_is_bulk(client);
                let pass = if is_bulk { Some(Rc::clone(&self.pace).pass().await) } else { None };
                self.flush_client(client, pass);
                tokio::task::yield_now().await;
            }
            if ready.is_readable() {
                let buffer = &mut **self.client_buffer.borrow_mut();
                match connection.stream.try_read(buffer) {
                    // What it has asked for is still answered: it may have closed only its own side.
                    Ok(0) => self.core.borrow_mut().client_end_input(client),
                    Ok(n) => {
                        failpoint::pass(Point::ClientReceive);
                        let now = self.clock.now();
                        self.core.borrow_mut().client_data(client, &buffer[..n], now);
                        self.inbox.wake.notify_one();
                    }
                    Err(e) if !stream::is_fatal(&e) => {}
                    Err(_) => break,
                }
            }
        }
        connection.stream.finish().await;
        self.clients.borrow_mut().remove(&client);
        self.core.borrow_mut().client_close(client);
    }

    /// Sends the next bytes to a client, large replies only with a pass; its task sends the rest.
    fn flush_client(&self, client: u64, pass: Option<Pass>) {
        let Some(connection) = self.clients.borrow().get(&client).cloned() else { return };
        let mut core = self.core.borrow_mut();
        if connection.is_broken.get() {
            return;
        }
        let mut budget = if pass.is_none() && core.client_is_bulk(client) { 0 } else { WRITE_BYTES };
        let mut has_sent = false;
        let send = |bytes: &[u8]| connection.stream.try_write(bytes);
        while budget > 0
            && let Some((output @ [_, ..], _)) = core.client_output(client)
        {
            let output = &output[..output.len().min(budget)];
            match sent(failpoint::torn(Point::ClientReplyTorn, output, send)) {
                Ok(0) => break,
                Ok(count) => {
                    core.client_sent(client, count, self.clock.now());
                    budget -= count;
                    has_sent = true;
                }
                Err(_) => {
                    connection.is_broken.set(true);
                    return connection.wake.notify_one();
                }
            }
        }
        if has_sent {
            if core.wants_turn() {
                self.inbox.wake.notify_one();
            }
            if pass.is_none() {
                self.pace.serves_others();
            }
        }
        // The task looks again if something else is to be waited for, or nothing any more.
        let wants_input = core.client_wants_input(client);
        let is_over_or_waits = core.client_output(client).is_none_or(|(output, is_over)| {
            let has_output = !output.is_empty() || connection.stream.has_unsent();
            is_over || connection.waits_for.get() != (wants_input, has_output)
        });
        if is_over_or_waits {
            connection.wake.notify_one();
        }
    }
}

/// The pass that a task waits for, if it waits for one.
fn poll_pass<F: Future<Output = Pass>>(
    next_pass: &mut Option<Pin<Box<F>>>,
    context: &mut Context<'_>,
) -> Poll<Pass> {
    let Some(waiting) = next_pass else { return Poll::Pending };
    let pass = std::task::ready!(waiting.as_mut().poll(context));
    *next_pass = None;
    Poll::Ready(pass)
}

/// What a socket took; an error when it is of no use any more.
fn sent(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if !stream::is_fatal(&error) => Ok(0),
        result => result,
    }
}

/// Waits until the connection can be read or written, as wanted, or until it is woken; then with nothing ready.
async fn ready(connection: &Connection, read: bool, write: bool) -> io::Result<tokio::io::Ready> {
    let interest = match (read, write) {
        (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
        (true, false) => Some(Interest::READABLE),
        (false, true) => Some(Interest::WRITABLE),
        (false, false) => None,
    };
    let Some(interest) = interest else {
        connection.wake.notified().await;
        return Ok(tokio::io::Ready::EMPTY);
    };
    tokio::select! {
        ready = connection.stream.ready(interest) => ready,
        () = connection.wake.notified() => Ok(tokio::io::Ready::EMPTY),
    }
}

/// Sends what the turn left, until the peer closes or the link fails.
async fn serve_peer(stream: &TcpStream, link: &PeerLink) -> io::Result<()> {
    let mut byte = [0; 64];
    loop {
        let has_unsent = !link.unsent.borrow().is_empty();
        let interest = if has_unsent { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        let ready = tokio::select! {
            ready = stream.ready(interest) => ready?,
            () = link.wake.notified() => continue,
        };
        if ready.is_writable() && has_unsent {
            let mut unsent = link.unsent.borrow_mut();
            match stream.try_write(&unsent) {
                Ok(n) => drop(unsent.drain(..n)),
                Err(e) if !stream::is_fatal(&e) => {}
                Err(e) => return Err(e),
            }
        }
        if ready.is_readable() {
            // The peer never answers on this link; the end of it is all that can be read.
            match stream.try_read(&mut byte) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(e) if !stream::is_fatal(&e) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_ends_for_a_failed_sync_says_why_it_failed() {
        let inbox = Inbox::default();
        assert_eq!(first_cause(LogError::Failed.into(), &inbox).to_string(), LogError::Failed.to_string());
        let cause = LogError::Full { file: "log-1".into() };
        let said = cause.to_string();
        inbox.push(Input::Leave);
        inbox.push(Input::Job(JobDone::Synced(Err(cause)), 7));
        assert_eq!(first_cause(anyhow::anyhow!("another"), &inbox).to_string(), "another");
        assert_eq!(first_cause(LogError::Failed.into(), &inbox).to_string(), said);
    }
}
