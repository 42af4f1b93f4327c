//! The proxies: processes that take turns and are replaced.

use super::{Event, World};
use crate::client::Via;
use crate::net::Use;
use ringfort_proxy::clients::Clients;
use ringfort_proxy::{LinkId, Proxy};
use std::collections::BTreeMap;

/// Longest wait of a proxy for its next turn.
const PROXY_TURN_US: u64 = 20_000;

/// A proxy's process.
pub(super) struct ProxyHost {
    pub(super) core: Proxy,
    pub(super) life: u64,
    pub(super) paused_until: u64,
    /// Its next turn; an earlier wish replaces a later one.
    pub(super) next_turn: u64,
    /// Its link of each connection.
    pub(super) links: BTreeMap<LinkId, usize>,
}

impl World {
    pub(super) fn new_proxy(&self, seed: u64) -> Proxy {
        let mut proxy = Proxy::new(seed, self.options.deadline_us, Clients::new(1).worker(0));
        proxy.set_write_window(self.options.write_window);
        proxy
    }

    /// A new process learns the map; its clients connect.
    pub(super) fn prepare_proxy(&mut self, p: usize) {
        self.proxies[p].core.update_map(self.map.clone());
        for node in 0..self.nodes.len() {
            // With this it knows the node's workers; the links themselves come up one by one.
            let link = LinkId { node, worker: 0 };
            self.proxies[p].core.link_up(link, self.options.workers, self.now);
            self.proxies[p].core.link_down(link, self.now);
        }
        self.want_proxy_turn(p, 50);
    }

    pub(super) fn want_proxy_turn(&mut self, proxy: usize, after: u64) {
        let p = &mut self.proxies[proxy];
        if self.now + after < p.next_turn {
            p.next_turn = self.now + after;
            let life = p.life;
            self.after(after, Event::ProxyTurn { proxy, life });
        }
    }

    pub(super) fn proxy_turn(&mut self, proxy: usize) -> Result<(), String> {
        let now = self.now;
        let p = &mut self.proxies[proxy];
        if now < p.next_turn {
            return Ok(()); // replaced by an earlier one, which was
        }
        p.next_turn = u64::MAX;
        p.core.turn(now);
        self.trace.note(now, 10, proxy as u64, p.core.unanswered() as u64);
        for link in p.core.links_with_output() {
            let mut bytes = Vec::new();
            self.proxies[proxy].core.take_link_output(link, &mut bytes);
            let conn = self.proxies[proxy].links[&link];
            self.send(conn, self.nodes.len() + proxy, 0, bytes);
        }
        for id in self.proxies[proxy].core.take_touched() {
            let core = &mut self.proxies[proxy].core;
            let bytes = core.client_output(id).to_vec();
            core.client_sent(id, bytes.len());
            let client = self.clients.iter().position(|c| c.via == Via::Proxy(proxy) && c.id == Some(id));
            if let Some(client) = client {
                self.clients[client].input.extend_from_slice(&bytes);
                self.take_replies(client)?;
            }
        }
        let p = &self.proxies[proxy];
        let wakeup = p.core.next_wakeup_us().map_or(PROXY_TURN_US, |at| at.saturating_sub(now).max(50));
        let after = if p.core.has_work() { 50 } else { wakeup.min(PROXY_TURN_US) };
        self.want_proxy_turn(proxy, after);
        Ok(())
    }

    /// A proxy's process dies and a new one starts; its clients connect again.
    pub(super) fn replace_proxy(&mut self) -> Result<(), String> {
        let p = self.rng.index(self.proxies.len());
        let seed = self.rng.next();
        self.line(|| format!("proxy {p} is replaced"));
        let core = self.new_proxy(seed);
        let proxy = &mut self.proxies[p];
        proxy.core = core;
        proxy.life += 1;
        proxy.next_turn = u64::MAX;
        proxy.paused_until = 0;
        self.after(0, Event::Resume { host: self.nodes.len() + p });
        for client in 0..self.clients.len() {
            if self.clients[client].via == Via::Proxy(p) {
                self.give_up(client)?;
            }
        }
        self.prepare_proxy(p);
        for conn in 0..self.conns.len() {
            if self.conns[conn].ends[0] == self.nodes.len() + p
                && matches!(self.conns[conn].what, Use::Requests { .. })
            {
                self.break_conn(conn);
                self.forget_end(conn, 0);
            }
        }
        Ok(())
    }
}
