//! The clients: what they ask, and what becomes of it.

use super::{Event, World};
use crate::client::{Pending, Via, encode, judge, moved_to};
use crate::history::{Ask, Outcome};
use crate::options::SECOND;
use ringfort_proxy::clients::{Address, Clients};
use ringfort_resp::reply::Value;
use ringfort_ring::slot_of;

/// A direct client gives an operation up after this time.
const CLIENT_TIMEOUT_US: u64 = 2 * SECOND;

impl World {
    /// A client asks its next operation, if it may have one more under way.
    pub(super) fn ask(&mut self, client: usize) -> Result<(), String> {
        let is_last_phase = self.is_healed;
        if is_last_phase && !self.probes.contains_key(&client) {
            return Ok(());
        }
        let lull_us = if is_last_phase { 0 } else { self.options.lull_left_us(self.now) };
        if lull_us > 0 {
            let late = self.rng.below(50_000);
            self.after(lull_us + late, Event::Ask { client });
            return Ok(());
        }
        // The nodes' own clients have one operation under way, so they ask more often.
        let mean = match self.clients[client].via {
            Via::Proxy(_) => self.options.think_us,
            Via::Nodes => self.options.think_us / 3,
        };
        let think = if is_last_phase { 20_000 } else { 1 + self.rng.below(2 * mean) };
        self.after(think, Event::Ask { client });
        let depth =
            if self.clients[client].via == Via::Nodes || is_last_phase { 1 } else { self.options.depth };
        if depth <= self.clients[client].pending.len() || !self.ensure_connected(client) {
            return Ok(());
        }
        let ask = match self.probes.get(&client) {
            Some(probes) => match probes.last() {
                Some(ask) => ask.clone(),
                None => return Ok(()),
            },
            None if self.options.memory.is_some() => {
                self.workload.draw_large(&mut self.rng, &mut self.clients[client])
            }
            None => self.workload.draw(&mut self.rng, &mut self.clients[client]),
        };
        let bytes = encode(&ask, self.options.is_hot);
        self.line(|| format!("client {client}: {}", ask.args(false).join(" ")));
        match self.clients[client].via {
            Via::Proxy(proxy) => {
                let Some(id) = self.clients[client].id else { return Ok(()) };
                self.proxies[proxy].core.client_data(id, &bytes);
                self.want_proxy_turn(proxy, 50);
            }
            Via::Nodes => {
                let partition =
                    self.map.partitions.of(slot_of(ask.key().name(self.options.is_hot).as_bytes()));
                let c = &mut self.clients[client];
                // Now and then it asks whoever it likes: a leader that does not know of the next one must notice by itself.
                // One that says READONLY asks anybody: most are followers.
                let is_settled = is_last_phase && self.options.is_liveness;
                let is_curious = !is_settled && (self.rng.one_in(5) || c.is_readonly);
                let any = self.rng.index(self.nodes.len());
                let node = if is_curious { any } else { c.guess[usize::from(partition.0)] };
                let conn = c.conns[node];
                c.node = node;
                if !self.conns[conn].knows[0] {
                    // No connection: perhaps another node leads.
                    let guess = self.rng.index(self.nodes.len());
                    self.clients[client].guess[usize::from(partition.0)] = guess;
                    return Ok(());
                }
                c.asked += 1;
                let (host, asked) = (self.conns[conn].ends[0], c.asked);
                // In the last phase it writes as well, and its connections remember.
                let says_readonly = self.clients[client].is_readonly && !is_last_phase;
                let readonly: &[u8] = if says_readonly { b"READONLY\r\n" } else { b"" };
                self.send(conn, host, 0, [readonly, &bytes].concat());
                let patience =
                    if is_last_phase && self.options.is_liveness { SECOND / 2 } else { CLIENT_TIMEOUT_US };
                self.after(patience, Event::Timeout { client, asked });
            }
        }
        let invoke = self.now;
        self.clients[client].pending.push_back(Pending { ask, invoke });
        Ok(())
    }

    pub(super) fn ensure_connected(&mut self, client: usize) -> bool {
        let connection = &mut self.next_connection;
        let c = &mut self.clients[client];
        if c.connection == 0 {
            *connection += 1;
            c.connection = *connection;
        }
        if let Via::Proxy(proxy) = c.via
            && c.id.is_none()
        {
            if self.now < self.proxies[proxy].paused_until {
                return false;
            }
            let place = Clients::new(1).accept(u64::MAX).expect("there is no limit");
            c.id = Some(self.proxies[proxy].core.client_open(place, &Address::default()));
        }
        true
    }

    /// Takes the replies in a client's input.
    pub(super) fn take_replies(&mut self, client: usize) -> Result<(), String> {
        while let Some(reply) = self.clients[client].next_reply()? {
            let is_read =
                matches!(self.clients[client].pending.front(), Some(Pending { ask: Ask::Get(_), .. }));
            if self.clients[client].is_readonly && is_read && matches!(reply, Value::Simple(_)) {
                continue; // to READONLY, in front of the read
            }
            let Some(Pending { ask, invoke }) = self.clients[client].pending.pop_front() else {
                return Err(format!("client {client} got a reply that it did not ask for: {reply:?}"));
            };
            let outcome = judge(&reply).map_err(|e| format!("{e} for {ask:?}"))?;
            self.trace.note(self.now, 11, client as u64, invoke);
            self.line(|| {
                format!("client {client}: {} (of {invoke}) -> {reply:?}", ask.args(false).join(" "))
            });
            self.clients[client].asked += 1;
            if self.clients[client].via == Via::Nodes && outcome != Outcome::Unknown {
                let partition =
                    self.map.partitions.of(slot_of(ask.key().name(self.options.is_hot).as_bytes()));
                if let Some(error) = reply.as_error() {
                    let guess = moved_to(error).filter(|n| *n < self.nodes.len());
                    let other = self.rng.index(self.nodes.len());
                    self.clients[client].guess[usize::from(partition.0)] = guess.unwrap_or(other);
                }
            }
            // What a follower may answer is what a leader might have a while ago.
            let age = if self.clients[client].is_readonly { self.options.read_age_us() } else { 0 };
            self.record(&ask, &outcome, invoke.saturating_sub(age))?;
            let is_full = reply.as_error().is_some_and(|error| error.starts_with("OOM "));
            if is_full {
                self.report.refused += 1;
            }
            if (is_full || matches!(outcome, Outcome::Done(_)))
                && let Some(probes) = self.probes.get_mut(&client)
                && probes.last() == Some(&ask)
            {
                probes.pop();
            }
            self.settle_if_done();
        }
        Ok(())
    }

    /// A client's connection is gone: nobody knows what became of what it had asked.
    pub(super) fn give_up(&mut self, client: usize) -> Result<(), String> {
        let c = &mut self.clients[client];
        let pending = std::mem::take(&mut c.pending);
        c.input.clear();
        c.id = None;
        c.connection = 0;
        c.tokens = 0;
        c.last_tokens.clear();
        c.asked += 1;
        for Pending { ask, invoke } in pending {
            self.record(&ask, &Outcome::Unknown, invoke)?;
        }
        Ok(())
    }

    /// Notes what became of an operation.
    pub(super) fn record(&mut self, ask: &Ask, outcome: &Outcome, invoke: u64) -> Result<(), String> {
        if self.options.evicts() {
            // Any key may be gone at any time: there is no history to be explained, but everything must be answered.
            match outcome {
                Outcome::Done(_) => self.history.done += 1,
                Outcome::Failed => self.history.failed += 1,
                Outcome::Unknown => self.history.unknown += 1,
            }
            return Ok(());
        }
        self.history.record(ask, outcome, invoke, self.now)
    }

    pub(super) fn time_out(&mut self, client: usize, asked: u64) -> Result<(), String> {
        if self.clients[client].asked == asked && !self.clients[client].pending.is_empty() {
            if self.is_healed && self.probes.contains_key(&client) {
                self.line(|| format!("client {client} waits too long"));
            }
            // Perhaps another node answers.
            let node = self.clients[client].node;
            for p in 0..self.clients[client].guess.len() {
                if self.clients[client].guess[p] == node {
                    self.clients[client].guess[p] = self.rng.index(self.nodes.len());
                }
            }
            let conn = self.clients[client].conns[node];
            self.break_conn(conn);
            self.give_up(client)?;
        }
        Ok(())
    }
}
