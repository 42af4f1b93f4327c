//! The peer port: greets every link, hands it to its worker, and answers probes and questions for the cluster map.

use super::folder::Folder;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::failpoint::{self, Point};
use crate::meta::form::{self, Own, Step};
use crate::worker::WorkerMessage;
use crate::worker::shared::{LINKS_MAX, Links, Shared};
use crate::worker::shell::{Inbox, Input};
use ringfort_proxy::server::peer::{self, read_frame};
use ringfort_proxy::server::{faults, meta};
use ringfort_ring::NodeId;
use ringfort_wire::frame::{self, Kind, MAP_WAIT_MS_MAX};
use ringfort_wire::hello::{self, Channel, Hello, HelloAck, ProbeAck, Responder};
use ringfort_wire::{ClusterMap, FEATURE_LEVEL, MetaAnswer, MetaWrite, PeerSecret};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, spawn_local};

/// Time in which a link must say who it is.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// Most links that have not said who they are; one more ends the oldest, so that strangers who stall hold nobody up.
const GREETINGS_MAX: usize = 1024;
/// Least time between two warnings of refused links, µs.
const WARNING_US: u64 = 5_000_000;
/// Time for another node to answer a probe.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// Wait between two rounds of probes.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// Time for the meta group to make a change; its asker does not wait longer.
const META_WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest change that is taken: new places of 1024 partitions, whose nodes have the longest ids, take less than half of it.
const META_WRITE_BYTES_MAX: usize = 1 << 20;
/// How long another node may hold a question for a newer map; also the wait after it did not answer.
const MAP_WAIT: Duration = Duration::from_secs(1);
/// Questions that a member of the meta group asks of one node before it turns to another one.
const MEMBER_ASKS: u32 = 4;
const _: () = assert!(MAP_WAIT.as_millis() <= MAP_WAIT_MS_MAX as u128);
/// Time between two maps that a node keeps on disk. A move of partitions makes dozens of them in a second, and each is
/// synced twice; older ones do as well, for whoever has moved on says so.
const KEEP_INTERVAL: Duration = Duration::from_millis(500);
/// Wait between two questions to a cluster that has no place for this node yet, or two requests to be taken in anew.
const JOIN_INTERVAL: Duration = Duration::from_millis(200);
/// Pause after a failed accept (no file descriptors left), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the peer port needs.
pub(super) struct Control {
    pub(super) config: Config,
    pub(super) node: NodeId,
    pub(super) store_id: u128,
    pub(super) folder: Folder,
    pub(super) shared: Arc<Shared>,
    /// What every link must prove.
    pub(super) secret: Option<PeerSecret>,
    /// When a refused link was last worth a warning, µs since boot.
    pub(super) warned_us: Cell<u64>,
    /// Counts the links that were greeted.
    pub(super) links: Links,
    /// The workers' queues, once they run.
    pub(super) inboxes: RefCell<Vec<Arc<Inbox>>>,
}

/// A link that may not have said who it is.
struct Greeting {
    task: AbortHandle,
    is_done: Rc<Cell<bool>>,
}

impl Greeting {
    fn is_under_way(&self) -> bool {
        !self.is_done.get() && !self.task.is_finished()
    }
}

impl Control {
    /// Accepts links for as long as the node runs.
    pub(super) async fn serve(self: Rc<Self>, listener: TcpListener) {
        // Oldest first.
        let mut greetings: VecDeque<Greeting> = VecDeque::new();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    greetings.retain(Greeting::is_under_way);
                    if greetings.len() >= GREETINGS_MAX
                        && let Some(oldest) = greetings.pop_front()
                    {
                        oldest.task.abort();
                    }
                    let is_done = Rc::new(Cell::new(false));
                    let task = spawn_local(Rc::clone(&self).take(stream, Rc::clone(&is_done)));
                    greetings.push_back(Greeting { task: task.abort_handle(), is_done });
                }
                Err(error) => {
                    tracing::warn!(%error, "the peer port cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn take(self: Rc<Self>, stream: TcpStream, is_greeted: Rc<Cell<bool>>) {
        if let Err(error) = self.answer(stream, &is_greeted).await {
            tracing::debug!(%error, "a link of the peer port ended");
        }
    }

    async fn answer(&self, mut stream: TcpStream, is_greeted: &Cell<bool>) -> anyhow::Result<()> {
        failpoint::hit(Point::PeerAccept)?;
        peer::prepare(&stream)?;
        let mut responder = Responder::new(self.secret.as_ref(), peer::nonce()?);
        let greeted =
            tokio::time::timeout(GREETING_TIMEOUT, peer::greet(&mut stream, &mut responder)).await?;
        let hello = greeted.inspect_err(|error| self.note_refusal(&stream, error))?;
        is_greeted.set(true);
        faults::greeted(&stream, &hello.node).await;
        let mut out = Vec::new();
        let admitted = self.judge(&hello).and_then(|()| {
            self.links.admit(LINKS_MAX).ok_or_else(|| format!("{LINKS_MAX} links are open here"))
        });
        let place = match admitted {
            Ok(place) => place,
            Err(reason) => {
                hello::refuse(&reason, &mut out);
                stream.write_all(&out).await?;
                return Ok(());
            }
        };
        let ack = HelloAck {
            feature_level: FEATURE_LEVEL,
            cluster_id: self.shared.map().map_or(0, |m| m.cluster_id),
            store_id: self.store_id,
            workers: self.shared.workers,
            node: self.node.0.clone(),
        };
        responder.accept(&ack, &mut out);
        stream.write_all(&out).await?;
        if hello.channel == Channel::Control {
            let outcome = self.answer_questions(stream).await;
            drop(place);
            return outcome;
        }
        let inbox = self.inboxes.borrow().get(usize::from(hello.to_worker)).cloned();
        let Some(inbox) = inbox else { anyhow::bail!("worker {} does not run", hello.to_worker) };
        inbox.push(Input::Link(stream.into_std()?, hello.channel, place));
        Ok(())
    }

    /// Says at times that links are refused; there may be many.
    fn note_refusal(&self, stream: &TcpStream, error: &std::io::Error) {
        let now_us = SystemClock.now().boot_us;
        if peer::is_refusal(error) && self.warned_us.get() + WARNING_US <= now_us {
            self.warned_us.set(now_us);
            let from = stream.peer_addr().map_or_else(|_| String::new(), |address| address.to_string());
            tracing::warn!(node = %self.node, %from, %error, "a link to the peer port is refused");
        }
    }

    /// Whether a link may open; the error is what its other side is told.
    fn judge(&self, hello: &Hello) -> Result<(), String> {
        if hello.channel == Channel::Control {
            return Ok(());
        }
        let Some(map) = self.shared.map() else { return Err("the cluster has not formed yet".into()) };
        if hello.cluster_id != map.cluster_id {
            return Err(format!("this is cluster '{}', not the one that the link is for", map.name));
        }
        if usize::from(hello.to_worker) >= self.inboxes.borrow().len() {
            return Err(format!("worker {} does not run here", hello.to_worker));
        }
        if hello.channel != Channel::Requests {
            let id = NodeId(hello.node.clone());
            let known = map.node(&id).ok_or_else(|| format!("node {id} is not a member"))?;
            if known.store_id != hello.store_id {
                return Err(format!("node {id} is known by another data folder"));
            }
        }
        Ok(())
    }

    async fn answer_questions(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        let mut body = Vec::new();
        loop {
            let kind = read_frame(&mut stream, &mut body).await?;
            let mut out = Vec::new();
            match kind {
                Kind::Probe => ProbeAck {
                    node: self.node.0.clone(),
                    store_id: self.store_id,
                    config_hash: self.config.hash(),
                    map: self.shared.map().map_or_else(Vec::new, |m| m.to_json()),
                }
                .encode(&mut out),
                Kind::MapGet => {
                    let mut r = frame::Reader::new(&body, "question for the map");
                    let (epoch, wait_ms) = (r.u64()?, r.u32()?.min(MAP_WAIT_MS_MAX));
                    let wait = Duration::from_millis(wait_ms.into());
                    // No newer map in time is an answer too.
                    let _ = tokio::time::timeout(wait, self.shared.newer_than(epoch)).await;
                    let newer = self.shared.map().filter(|m| m.epoch > epoch);
                    frame::put(&mut out, Kind::Map, |o| {
                        if let Some(map) = newer {
                            o.extend_from_slice(&map.to_json());
                        }
                    });
                }
                Kind::MetaWrite if body.len() <= META_WRITE_BYTES_MAX => {
                    self.meta_write(&body).await?.encode(&mut out)
                }
                Kind::MetaReport => {
                    let outcome = self.take_in(&body).await;
                    let text = outcome.err().unwrap_or_default();
                    frame::put(&mut out, Kind::MetaReport, |o| o.extend_from_slice(text.as_bytes()));
                }
                _ => anyhow::bail!("a frame of another kind on a control link"),
            }
            stream.write_all(&out).await?;
        }
    }

    /// Asks the meta group's replica here for a change.
    ///
    /// # Errors
    /// It did not answer in time: whether the change is made is unknown.
    async fn meta_write(&self, body: &[u8]) -> anyhow::Result<MetaAnswer> {
        let inbox = self.inboxes.borrow().first().cloned();
        let Some(inbox) = inbox else { return Ok(MetaAnswer::NotLeader(String::new())) };
        let (sender, answer) = oneshot::channel();
        inbox.push(Input::MetaWrite(body.to_vec(), sender));
        Ok(tokio::time::timeout(META_WRITE_TIMEOUT, answer).await??)
    }

    /// A node asks that its empty data folder be taken in place of a lost one. Passes it on to the meta group if that is led
    /// here; whether it was done shows in the map.
    async fn take_in(&self, body: &[u8]) -> Result<(), String> {
        let write = MetaWrite::from_json(body)?;
        let MetaWrite::Replace { node, new_store, .. } = &write else {
            return Err("a data folder was expected".into());
        };
        let map = self.shared.map().ok_or("the cluster has not formed yet")?;
        let known = map.node(node).ok_or_else(|| format!("node {node} is not a member"))?;
        // Only one process can listen there; if it is the one that asks, nobody serves the old folder.
        let answer = tokio::time::timeout(PROBE_TIMEOUT, self.probe(&known.peer)).await;
        let answer = answer.ok().and_then(Result::ok).filter(|a| a.node == node.0);
        match answer.map(|a| format!("{:032x}", a.store_id)) {
            Some(store) if store == *new_store => {}
            Some(store) if store == format!("{:032x}", known.store_id) => {
                return Err(format!("node {node} still runs with the data folder that the cluster knows"));
            }
            _ => return Err(format!("node {node} does not answer at its address {}", known.peer)),
        }
        if let Some(inbox) = self.inboxes.borrow().first() {
            inbox.push(Input::Worker(WorkerMessage::Meta(write.to_json())));
        }
        Ok(())
    }

    /// Asks every other node to take this empty data folder in place of `old_store`; returns why one does not.
    async fn ask_to_be_taken_in(&self, old_store: u128) -> Option<String> {
        let write = MetaWrite::Replace {
            node: self.node.clone(),
            old_store: format!("{old_store:032x}"),
            new_store: format!("{:032x}", self.store_id),
        };
        let mut question = Vec::new();
        frame::put(&mut question, Kind::MetaReport, |o| o.extend_from_slice(&write.to_json()));
        let mut why = None;
        for node in self.config.nodes.iter().filter(|n| n.id != self.node) {
            let mut answer = Vec::new();
            let address = node.peer.to_string();
            let asked =
                tokio::time::timeout(2 * PROBE_TIMEOUT, self.ask(&address, &question, &mut answer)).await;
            if matches!(asked, Ok(Ok(Kind::MetaReport))) && !answer.is_empty() {
                why = Some(format!("node {}: {}", node.id, String::from_utf8_lossy(&answer)));
            }
        }
        why
    }

    /// The greeting of a link for questions.
    fn hello(&self) -> Hello {
        Hello {
            feature_level: FEATURE_LEVEL,
            channel: Channel::Control,
            cluster_id: 0,
            node: self.node.0.clone(),
            store_id: self.store_id,
            worker: 0,
            to_worker: 0,
            nonce: None,
        }
    }

    /// Asks a node one question on a link of its own.
    async fn ask(&self, address: &str, question: &[u8], answer: &mut Vec<u8>) -> anyhow::Result<Kind> {
        let (mut stream, _) = peer::connect(address, self.hello(), self.secret.as_ref()).await?;
        stream.write_all(question).await?;
        Ok(read_frame(&mut stream, answer).await?)
    }

    /// Waits until this node has a map: its own of an earlier life, one that it mints, or the one of the others.
    ///
    /// # Errors
    /// The config allows no placement, the disk does not take the map, or the cluster does not know this folder.
    pub(super) async fn join_cluster(&self, cluster_id: u128) -> anyhow::Result<ClusterMap> {
        if let Some(map) = self.folder.map()? {
            let known = map.node(&self.node);
            anyhow::ensure!(
                known.is_some() || map.name != self.config.cluster.name,
                "node {} has left cluster '{}': its data folder can be deleted, and the node taken out of the config file",
                self.node,
                map.name
            );
            let own = known.is_some_and(|n| [0, self.store_id].contains(&n.store_id));
            anyhow::ensure!(
                map.name == self.config.cluster.name,
                "the data folder is of cluster '{}', the config file of cluster '{}'",
                map.name,
                self.config.cluster.name
            );
            anyhow::ensure!(own, "the data folder's map does not know node {} with this folder", self.node);
            return Ok(map);
        }
        let mut last_wait = String::new();
        let mut wait = |why: String| {
            if why != last_wait {
                tracing::info!("{why}");
                last_wait = why;
            }
        };
        let mut refusals = BTreeMap::new();
        loop {
            let mut answers = Vec::new();
            let mut has_cluster = false;
            for node in self.config.nodes.iter().filter(|n| n.id != self.node) {
                let address = node.peer.to_string();
                let answer = tokio::time::timeout(PROBE_TIMEOUT, self.probe(&address)).await;
                let answer = match answer {
                    Ok(Err(error)) if error.downcast_ref().is_some_and(peer::is_refusal) => {
                        let said = refusals.insert(node.id.clone(), error.to_string());
                        if said != Some(error.to_string()) {
                            tracing::warn!(node = %self.node, peer = %node.id, %error, "a peer refuses the link");
                        }
                        None
                    }
                    answer => answer.ok().and_then(Result::ok),
                };
                let answer = answer.filter(|a| a.node == node.id.0);
                has_cluster = answer.as_ref().is_some_and(|a| !a.map.is_empty());
                answers.push((node.id.clone(), answer));
                if has_cluster {
                    break; // nobody else is needed to know it
                }
            }
            let own = Own { id: &self.node, store_id: self.store_id, cluster_id };
            match form::step(&self.config, own, &answers)? {
                Step::Form(map) => {
                    failpoint::hit(Point::ClusterFormed)?;
                    self.folder.keep_map(&map)?;
                    tracing::info!(cluster = %map.name, "this node has formed the cluster");
                    return Ok(*map);
                }
                Step::Join(map) => {
                    failpoint::hit(Point::ClusterJoined)?;
                    self.folder.keep_map(&map)?;
                    tracing::info!(cluster = %map.name, "this node has joined the cluster");
                    return Ok(*map);
                }
                Step::Stranger(why) => anyhow::bail!("{why}"),
                Step::Rejoin { old_store, cluster } => {
                    let why = self.ask_to_be_taken_in(old_store).await;
                    wait(why.unwrap_or_else(|| match old_store {
                        0 => format!("cluster '{cluster}' has a place for node {}: it joins", self.node),
                        _ => format!(
                            "cluster '{cluster}' knows node {} by another data folder: it asks to be seeded from the others",
                            self.node
                        ),
                    }));
                }
                Step::Wait(why) => wait(why),
            }
            tokio::time::sleep(if has_cluster { JOIN_INTERVAL } else { PROBE_INTERVAL }).await;
        }
    }

    async fn probe(&self, address: &str) -> anyhow::Result<ProbeAck> {
        let mut question = Vec::new();
        frame::put(&mut question, Kind::Probe, |_| {});
        let mut answer = Vec::new();
        let kind = self.ask(address, &question, &mut answer).await?;
        anyhow::ensure!(kind == Kind::ProbeAck, "a probe was answered by something else");
        Ok(ProbeAck::decode(&answer)?)
    }

    /// Follows newer maps of the nodes of the meta group, which have them first. A node that is one of them asks only now and
    /// then, for when its own replica lags.
    pub(super) async fn follow_map(self: Rc<Self>) {
        let mut turn = 0;
        loop {
            let Some(map) = self.shared.map() else { return };
            // It left the cluster, and is a member again: what it had is over, and it joins as a new one does.
            if map.node(&self.node).is_some_and(|node| node.store_id == 0) {
                self.ask_to_be_taken_in(0).await;
            }
            let is_member = map.meta.replica_on(&self.node).is_some();
            if is_member {
                tokio::time::sleep(MAP_WAIT).await;
            }
            let others: Vec<_> = map.meta.nodes().into_iter().filter(|id| **id != self.node).collect();
            let other = others.get(turn % others.len().max(1)).and_then(|id| map.node(id));
            turn += 1;
            let followed = match other {
                Some(other) => self.follow_from(&other.peer, is_member).await.is_ok(),
                None => false,
            };
            if !followed {
                tokio::time::sleep(MAP_WAIT).await;
            }
        }
    }

    /// Takes the maps of a node until it has had no newer one for [`MAP_WAIT`]. A member of the meta group, who has them
    /// anyway, only asks now and then whether it has missed one, [`MEMBER_ASKS`] times on one link.
    async fn follow_from(&self, address: &str, is_member: bool) -> anyhow::Result<()> {
        let wait = if is_member { Duration::ZERO } else { MAP_WAIT };
        let mut asks_left = if is_member { MEMBER_ASKS } else { 1 };
        let connected = peer::connect(address, self.hello(), self.secret.as_ref());
        let (mut stream, _) = tokio::time::timeout(PROBE_TIMEOUT, connected).await??;
        let (mut question, mut answer) = (Vec::new(), Vec::new());
        while let Some(known) = self.shared.map() {
            question.clear();
            frame::put_map_get(&mut question, known.epoch, wait.as_millis() as u32);
            stream.write_all(&question).await?;
            let answered = read_frame(&mut stream, &mut answer);
            let kind = tokio::time::timeout(wait + PROBE_TIMEOUT, answered).await??;
            anyhow::ensure!(kind == Kind::Map, "a question for the map was answered by something else");
            if answer.is_empty() {
                asks_left -= 1;
                if asks_left == 0 || known.meta.replica_on(&self.node).is_some() != is_member {
                    break;
                }
                tokio::time::sleep(MAP_WAIT).await;
                continue;
            }
            let map = ClusterMap::from_json(&answer).map_err(anyhow::Error::msg)?;
            anyhow::ensure!(map.cluster_id == known.cluster_id, "the node is of another cluster now");
            self.shared.set_map(&map);
        }
        Ok(())
    }

    /// Keeps newer maps on disk, one each [`KEEP_INTERVAL`] at most, and says so: replicas that it forgets are removed only
    /// then. `kept` is there already.
    pub(super) async fn keep_maps(self: Rc<Self>, mut kept: Arc<ClusterMap>) {
        self.shared.set_kept(kept.epoch);
        loop {
            self.shared.newer_than(kept.epoch).await;
            let Some(map) = self.shared.map() else { return };
            if map.node(&self.node).is_none() && kept.node(&self.node).is_some() {
                tracing::info!(node = %self.node, "this node has left the cluster: it can be stopped");
            }
            match self.folder.keep_map(&map) {
                Ok(()) => {
                    kept = map;
                    self.shared.set_kept(kept.epoch);
                    // That this node has left is kept at once: its next start is to know.
                    let _ = tokio::time::timeout(KEEP_INTERVAL, self.removal(kept.epoch)).await;
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "the cluster map could not be kept; it is tried again");
                    tokio::time::sleep(MAP_WAIT).await;
                }
            }
        }
    }

    /// Waits until a map newer than `epoch` comes that does not have this node any more.
    async fn removal(&self, mut epoch: u64) {
        loop {
            self.shared.newer_than(epoch).await;
            match self.shared.map() {
                Some(map) if map.node(&self.node).is_some() => epoch = map.epoch,
                _ => return,
            }
        }
    }

    /// Has the cluster map name the address for TLS clients that the config file gives this node, as it may have been
    /// added, changed or taken out since the cluster formed.
    pub(super) async fn tell_tls_address(self: Rc<Self>) {
        let wanted = self.config.node(&self.node).and_then(|node| node.tls_client);
        let write = MetaWrite::TlsClient(self.node.clone(), wanted);
        let wanted = wanted.map(|address| address.to_string());
        while let Some(map) = self.shared.map()
            && map.node(&self.node).is_some_and(|node| node.tls_client != wanted)
        {
            match meta::write(&map, &self.hello(), self.secret.as_ref(), &write, META_WRITE_TIMEOUT).await {
                Ok(map) => drop(self.shared.set_map(&map)),
                Err(error) => {
                    tracing::debug!(%error, "the cluster map does not name this node's TLS address yet");
                    tokio::time::sleep(MAP_WAIT).await;
                }
            }
        }
    }
}
