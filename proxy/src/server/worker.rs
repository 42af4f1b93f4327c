//! One worker thread: a core, its clients and its links.

use super::client::ClientShell;
use super::link::{self, LinkShell};
use super::{Accepted, STOP_GRACE, Shared, control, meta, random, wall_us};
use crate::pace::BulkPace;
use crate::session::Facts;
use crate::{ClientId, LinkId, Proxy};
use core::cell::{Cell, RefCell};
use core::pin::pin;
use core::time::Duration;
use ringfort_wire::hello::Channel;
use ringfort_wire::{ClusterMap, MetaWrite};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::Instant;

/// Largest single read from a link, bytes; a client's is smaller.
const READ_BYTES: usize = 256 << 10;
/// How often INFO's figures are brought up to date, µs.
const FACTS_US: u64 = 100_000;

/// What the tasks of one worker share.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) number: u16,
    pub(super) core: RefCell<Proxy>,
    /// Asks for a turn.
    pub(super) turn: Arc<Notify>,
    pub(super) clients: RefCell<BTreeMap<ClientId, Rc<ClientShell>>>,
    pub(super) links: RefCell<BTreeMap<LinkId, Rc<LinkShell>>>,
    /// What every task reads into; nobody holds it across an await.
    pub(super) read_buffer: RefCell<Box<[u8]>>,
    /// For replies of megabytes to clients.
    pub(super) pace: Rc<BulkPace>,
    facts_due_us: Cell<u64>,
}

/// Runs a worker until the proxy stops.
pub(super) fn run(
    runtime: &tokio::runtime::Runtime,
    number: u16,
    shared: Arc<Shared>,
    sockets: mpsc::Receiver<Accepted>,
    stopped: watch::Receiver<bool>,
) {
    let deadline_us =
        u64::try_from(shared.options.deadline.as_micros()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4);
    let turn = Arc::new(Notify::new());
    let clients = shared.clients.worker(usize::from(number));
    clients.set_wake({
        let turn = Arc::clone(&turn);
        move || turn.notify_one()
    });
    let worker = Rc::new(Worker {
        number,
        core: RefCell::new(Proxy::new(random(), deadline_us, clients)),
        turn: Arc::clone(&turn),
        clients: RefCell::default(),
        links: RefCell::default(),
        read_buffer: RefCell::new(vec![0; READ_BYTES].into_boxed_slice()),
        pace: Rc::default(),
        facts_due_us: Cell::new(0),
        shared,
    });
    // Dropping the set ends the tasks of clients that did not go in time, and the links.
    LocalSet::new().block_on(runtime, worker.run(sockets, stopped));
}

impl Worker {
    async fn run(self: Rc<Self>, mut sockets: mpsc::Receiver<Accepted>, mut stopped: watch::Receiver<bool>) {
        let mut map = self.shared.maps.subscribe();
        self.take_map(&mut map);
        let mut wakeup = pin!(tokio::time::sleep(Duration::ZERO));
        let mut stop_at: Option<Instant> = None;
        loop {
            let next_us = self.core.borrow().next_wakeup_us();
            if let Some(next_us) = next_us {
                let wait = next_us.saturating_sub(self.shared.now_us());
                wakeup.as_mut().reset(Instant::now() + Duration::from_micros(wait));
            }
            tokio::select! {
                () = self.turn.notified() => {}
                () = &mut wakeup, if next_us.is_some() => {}
                Some(accepted) = sockets.recv(), if stop_at.is_none() => {
                    ClientShell::open(&self, accepted);
                    continue;
                }
                Ok(()) = map.changed() => self.take_map(&mut map),
                // An error means that the proxy was dropped.
                _ = stopped.wait_for(|stop| *stop), if stop_at.is_none() => {
                    stop_at = Some(Instant::now() + STOP_GRACE);
                    let clients: Vec<_> = self.clients.borrow().keys().copied().collect();
                    clients.into_iter().for_each(|id| self.core.borrow_mut().client_finish(id));
                }
                () = tokio::time::sleep_until(stop_at.unwrap_or_else(Instant::now)), if stop_at.is_some() => return,
            }
            // Every socket that is ready is read before the turn.
            tokio::task::yield_now().await;
            // What one worker's client changed, the next command of another's client must see.
            if map.has_changed().unwrap_or(false) {
                self.take_map(&mut map);
            }
            self.turn();
            if stop_at.is_some() && self.clients.borrow().is_empty() {
                return;
            }
        }
    }

    fn take_map(&self, map: &mut watch::Receiver<Option<Arc<ClusterMap>>>) {
        let newest = map.borrow_and_update().clone();
        if let Some(newest) = newest {
            self.core.borrow_mut().update_map(ClusterMap::clone(&newest));
        }
    }

    /// Has the meta group make a change that a client asks for, and answers the client.
    async fn run_errand(self: Rc<Self>, errand: u64, write: MetaWrite) {
        let map = self.core.borrow().map().cloned();
        let outcome = match map {
            Some(map) => {
                let hello = link::hello(Channel::Control, map.cluster_id, self.number, 0);
                let options = &self.shared.options;
                meta::write(&map, &hello, options.secret.as_ref(), &write, options.deadline).await
            }
            None => Err("LOADING Ringfort is starting: no cluster map yet".to_owned()),
        };
        // The map that shows the change comes before the answer.
        let outcome = outcome.and_then(|map| {
            self.core.borrow_mut().update_map(map.clone());
            control::take_map(map, &self.shared.maps).map_err(|error| format!("ERR {error}"))
        });
        self.core.borrow_mut().errand_done(errand, &outcome);
        self.turn.notify_one();
    }

    /// One turn: the core decides, then each link and each client gets its bytes with one write.
    fn turn(self: &Rc<Self>) {
        let now_us = self.shared.now_us();
        self.update_facts(now_us);
        self.core.borrow_mut().turn(now_us);
        let links = self.core.borrow().links_with_output();
        for id in links {
            let link = self.links.borrow().get(&id).cloned();
            if let Some(link) = link {
                self.core.borrow_mut().take_link_output(id, &mut link.output.borrow_mut());
                link.flush();
            }
        }
        let touched = self.core.borrow_mut().take_touched();
        for id in touched {
            let client = self.clients.borrow().get(&id).cloned();
            if let Some(client) = client {
                client.after_turn(self);
            }
        }
        if self.core.borrow_mut().take_links_changed() {
            self.hold_wanted_links();
        }
        for (errand, write) in self.core.borrow_mut().take_errands() {
            tokio::task::spawn_local(Rc::clone(self).run_errand(errand, write));
        }
        if self.core.borrow_mut().take_map_wish() {
            self.shared.map_wish.notify_one();
        }
        if self.core.borrow().has_work() {
            self.turn.notify_one();
        }
    }

    /// Starts the links that are wanted and ends the others.
    fn hold_wanted_links(self: &Rc<Self>) {
        let wanted: BTreeMap<_, _> =
            self.core.borrow().wanted_links().into_iter().map(|wanted| (wanted.link, wanted)).collect();
        let mut links = self.links.borrow_mut();
        links.retain(|id, link| {
            let keeps = wanted.get(id).is_some_and(|wanted| wanted.peer == link.peer);
            if !keeps {
                link.end();
            }
            keeps
        });
        for (id, wanted) in wanted {
            links.entry(id).or_insert_with(|| {
                let shell = Rc::new(LinkShell::new(wanted));
                tokio::task::spawn_local(link::hold(Rc::clone(self), Rc::clone(&shell)));
                shell
            });
        }
    }

    fn update_facts(&self, now_us: u64) {
        if now_us < self.facts_due_us.get() {
            return;
        }
        self.facts_due_us.set(now_us + FACTS_US);
        let mut core = self.core.borrow_mut();
        let shared = &self.shared;
        let clients = shared.clients.worker(usize::from(self.number));
        clients.set_now(now_us);
        clients.set_wall(wall_us());
        core.set_facts(Facts {
            run_id: shared.run_id.clone(),
            process_id: std::process::id(),
            tcp_port: shared.addr.port(),
            uptime_s: now_us / 1_000_000,
            clients_max: shared.options.client_connections_max as u64,
            usage: crate::process::usage(),
            keyspace: None,
            follower_reads: None,
        });
    }
}
