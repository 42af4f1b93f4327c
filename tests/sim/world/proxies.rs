//! The proxies: processes that take turns and are replaced.

use super::folders::MAP_EVERY_US;
use super::{Event, World};
use crate::client::Via;
use crate::net::Use;
use ringfort_proxy::clients::Clients;
use ringfort_proxy::{LinkId, Proxy};
use ringfort_wire::ClusterMap;
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
    /// Its connection with each worker of each node.
    pub(super) conns: BTreeMap<(usize, u16), usize>,
    /// The nodes as its core numbers them: in the order in which maps named them.
    pub(super) known: Vec<usize>,
}

impl World {
    pub(super) fn new_proxy(&self, seed: u64) -> Proxy {
        let mut proxy = Proxy::new(seed, self.options.deadline_us, Clients::new(1).worker(0));
        proxy.set_limits(self.options.proxy_limits);
        proxy
    }

    /// A new process learns the map; its clients connect.
    pub(super) fn prepare_proxy(&mut self, p: usize) {
        self.proxies[p].known.clear();
        let map = if self.options.changes_members() { self.newest_map() } else { self.map.clone() };
        self.update_proxy(p, map);
    }

    /// A proxy takes a map. Nodes that it names for the first time are connected anew, now that their links are known.
    fn update_proxy(&mut self, p: usize, map: ClusterMap) {
        let named: Vec<usize> = map.nodes.iter().map(|node| self.node_number(&node.id.0)).collect();
        if !self.proxies[p].core.update_map(map) {
            return;
        }
        for node in named {
            if self.proxies[p].known.contains(&node) {
                continue;
            }
            let link = LinkId { node: self.proxies[p].known.len(), worker: 0 };
            self.proxies[p].known.push(node);
            // With this it knows the node's workers; the links themselves come up one by one.
            self.proxies[p].core.link_up(link, self.options.workers, self.now);
            self.proxies[p].core.link_down(link, self.now);
            let conns: Vec<usize> =
                self.proxies[p].conns.range((node, 0)..=(node, u16::MAX)).map(|(_, &conn)| conn).collect();
            for conn in conns {
                self.break_conn(conn);
            }
        }
        self.want_proxy_turn(p, 50);
    }

    /// The link of a proxy's core to a worker of a node; `None`: its map does not name the node.
    pub(super) fn link_of(&self, proxy: usize, node: usize, worker: u16) -> Option<LinkId> {
        let node = self.proxies[proxy].known.iter().position(|&known| known == node)?;
        Some(LinkId { node, worker })
    }

    /// Every proxy asks some node for a newer map.
    pub(super) fn follow_maps_in_proxies(&mut self) {
        let after = self.rng.range(MAP_EVERY_US / 4, MAP_EVERY_US);
        self.after(after, Event::ProxyMaps);
        for p in 0..self.proxies.len() {
            let (host, node) = (self.nodes.len() + p, self.rng.index(self.nodes.len()));
            let is_well = self.paused_until(host).max(self.nodes[node].paused_until) <= self.now;
            if is_well
                && !self.is_blocked(host, node)
                && !self.is_blocked(node, host)
                && let Some(map) = self.nodes[node].map()
            {
                self.update_proxy(p, (*map).clone());
            }
        }
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
            let node = self.proxies[proxy].known[link.node];
            let conn = self.proxies[proxy].conns[&(node, link.worker)];
            self.send(conn, self.nodes.len() + proxy, 0, bytes);
        }
        for id in self.proxies[proxy].core.take_touched() {
            let core = &mut self.proxies[proxy].core;
            let mut bytes = Vec::new();
            while let piece @ [_, ..] = core.client_output(id) {
                let count = piece.len();
                bytes.extend_from_slice(piece);
                core.client_sent(id, count);
            }
            let client = self.clients.iter().position(|c| c.via == Via::Proxy(proxy) && c.id == Some(id));
            if let Some(client) = client {
                self.clients[client].input.extend_from_slice(&bytes);
                self.take_replies(client)?;
                // It was silent for longer than the setting `timeout` allows: a proxy that stood still sees no difference.
                if self.proxies[proxy].core.client_is_over(id) {
                    self.proxies[proxy].core.client_close(id);
                    self.give_up(client)?;
                }
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
