//! What goes wrong, and when.

use super::{Event, World};
use crate::node::Death;
use crate::options::{NODES, SECOND};

impl World {
    pub(super) fn fault(&mut self) -> Result<(), String> {
        if self.is_healed {
            return Ok(());
        }
        let after = 1 + self.rng.below(2 * self.options.fault_every_us);
        self.after(after, Event::Fault);
        let m = self.options.mix;
        let weights = [
            m.partition,
            m.cut,
            m.pause,
            m.kill,
            m.crash,
            m.full,
            m.bad_sync,
            m.jump,
            m.proxy,
            m.leave,
            m.bridge,
            m.wipe,
        ];
        let mut draw = self.rng.below(weights.iter().sum());
        let mut kind = 0;
        while weights[kind] <= draw {
            draw -= weights[kind];
            kind += 1;
        }
        self.report.faults += 1;
        self.trace.note(self.now, 12, kind as u64, 0);
        let node = self.rng.index(NODES);
        let length = self.rng.spread(10_000, self.options.fault_us);
        match kind {
            0 => self.partition(length),
            1 => {
                let conn = self.rng.index(self.conns.len());
                self.break_conn(conn);
            }
            2 => self.pause(length),
            3 => self.end_some(node, Death::Kill),
            4 => self.end_some(node, Death::Crash),
            5 => self.fill(node, length),
            6 => {
                if self.nodes[node].is_up {
                    self.line(|| format!("n{}: a sync will fail", node + 1));
                    self.nodes[node].doom.get_or_insert(Death::Kill);
                    let worker = self.rng.index(self.nodes[node].workers.len());
                    self.nodes[node].workers[worker].disk.fail_next_sync();
                }
            }
            7 => {
                let error = self.rng.below(2 * self.options.skew_ms + 1) as i64 - self.options.skew_ms as i64;
                self.line(|| format!("n{}: the wall clock is wrong by {error} ms", node + 1));
                self.nodes[node].clocks.wall_error_ms = error;
            }
            8 => return self.replace_proxy(),
            9 => self.leave(node, length),
            10 => self.bridge(node, length),
            _ => self.wipe(node),
        }
        Ok(())
    }

    pub(super) fn partition(&mut self, length: u64) {
        let hosts = NODES + self.options.proxies;
        let a = self.rng.index(hosts);
        let is_one_way = self.rng.one_in(3);
        let is_whole = self.rng.one_in(2);
        let is_broken = self.rng.one_in(2);
        let mut ways = Vec::new();
        for b in (0..hosts).filter(|&b| b != a) {
            if is_whole || self.rng.one_in(2) {
                ways.push((a, b));
                if !is_one_way {
                    ways.push((b, a));
                }
            }
        }
        self.line(|| format!("blocked for {length} us, broken {is_broken}: {ways:?}"));
        for (from, to) in ways {
            // From which end it is seen does not matter when only one way is blocked.
            let (from, to) = if is_one_way && is_broken { (to, from) } else { (from, to) };
            self.blocked[from][to] += 1;
            self.after(length, Event::Unblock { from, to });
            if is_broken {
                for conn in 0..self.conns.len() {
                    if self.conns[conn].ends.contains(&from) && self.conns[conn].ends.contains(&to) {
                        self.break_conn(conn);
                    }
                }
            }
        }
    }

    pub(super) fn pause(&mut self, length: u64) {
        let host = self.rng.index(NODES + self.options.proxies);
        let until = self.now + length;
        self.line(|| format!("{host} is paused for {length} us"));
        match host.checked_sub(NODES) {
            None => self.nodes[host].paused_until = self.nodes[host].paused_until.max(until),
            Some(p) => self.proxies[p].paused_until = self.proxies[p].paused_until.max(until),
        }
    }

    /// Ends one process, or now and then all; at once, or in the middle of some write.
    pub(super) fn end_some(&mut self, node: usize, death: Death) {
        if self.rng.one_in(6) {
            for node in 0..NODES {
                if self.nodes[node].is_up {
                    self.die(node, death);
                }
            }
            return;
        }
        if !self.nodes[node].is_up {
            return;
        }
        if self.rng.one_in(2) {
            self.die(node, death);
            return;
        }
        let ops = self.rng.spread(1, 200);
        self.line(|| format!("n{}: the disk stops after {ops} operations", node + 1));
        self.nodes[node].doom = Some(death);
        for worker in &self.nodes[node].workers {
            worker.disk.power_off_after(ops);
        }
        let life = self.nodes[node].life;
        self.after(2 * SECOND, Event::Die { node, life, is_crash: death == Death::Crash });
    }

    pub(super) fn fill(&mut self, node: usize, length: u64) {
        let room = self.rng.spread(1, 100_000);
        self.line(|| format!("n{}: only {room} bytes are free for {length} us", node + 1));
        self.nodes[node].is_full = true;
        for worker in &self.nodes[node].workers {
            worker.disk.set_capacity(Some(worker.disk.used_bytes() + room));
        }
        self.after(length, Event::Room { node });
    }

    pub(super) fn give_room(&mut self, node: usize) {
        self.nodes[node].is_full = false;
        for worker in &self.nodes[node].workers {
            worker.disk.set_capacity(None);
        }
    }

    /// Both ends want the votes of the node in the middle, which forgets with each restart whom it follows.
    pub(super) fn bridge(&mut self, middle: usize, length: u64) {
        let (a, b) = ((middle + 1) % NODES, (middle + 2) % NODES);
        self.line(|| format!("n{} is a bridge for {length} us", middle + 1));
        for (from, to) in [(a, b), (b, a)] {
            self.blocked[from][to] += 1;
            self.after(length, Event::Unblock { from, to });
        }
        let mut at = 0;
        while at < length {
            at += self.rng.range(100_000, 800_000);
            self.after(at, Event::Restart { node: middle });
        }
    }

    /// A planned stop: leaderships go first, then the process.
    pub(super) fn leave(&mut self, node: usize, length: u64) {
        if !self.nodes[node].is_up {
            return;
        }
        // It asks a follower to campaign, and never hears that it did: only a lease that has ended keeps its reads right.
        if self.rng.one_in(2) {
            let after = self.rng.spread(100, 20_000);
            for from in (0..NODES).filter(|&from| from != node) {
                self.after(after, Event::Block { from, to: node });
                self.after(after + length, Event::Unblock { from, to: node });
            }
        }
        self.line(|| format!("n{} leaves", node + 1));
        for worker in 0..self.nodes[node].workers.len() {
            if let Some(core) = &mut self.nodes[node].workers[worker].core {
                core.leave();
                self.want_turn(node, worker);
            }
        }
        let life = self.nodes[node].life;
        self.after(SECOND, Event::Die { node, life, is_crash: false });
    }
}
