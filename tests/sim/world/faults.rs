//! What goes wrong, and when.

use super::{Event, World};
use crate::damage;
use crate::node::Death;
use crate::options::{Fault, SECOND};
use ringfort::log::LogError;
use ringfort::shard::Group;
use ringfort_wire::GroupId;

impl World {
    pub(super) fn fault(&mut self) -> Result<(), String> {
        if self.is_healed {
            return Ok(());
        }
        let after = 1 + self.rng.below(2 * self.options.fault_every_us);
        self.after(after, Event::Fault);
        let weights = self.options.mix.weights();
        let mut draw = self.rng.below(weights.iter().map(|(_, weight)| weight).sum());
        let mut kind = 0;
        while weights[kind].1 <= draw {
            draw -= weights[kind].1;
            kind += 1;
        }
        *self.report.faults.entry(weights[kind].0).or_default() += 1;
        self.trace.note(self.now, 12, kind as u64, 0);
        let node = self.rng.index(self.nodes.len());
        let length = self.rng.spread(10_000, self.options.fault_us);
        let host = match weights[kind].0 {
            Fault::Partition | Fault::Pause | Fault::Sleep | Fault::Cut | Fault::Vanish => None,
            Fault::Proxy => Some(self.nodes.len()),
            _ => Some(node),
        };
        host.into_iter().for_each(|host| self.note_victim(weights[kind].0, host));
        match weights[kind].0 {
            Fault::Partition => self.partition(length),
            Fault::Cut => {
                let conn = self.rng.index(self.conns.len());
                self.break_conn(conn);
            }
            Fault::Pause => self.pause(Fault::Pause, length),
            Fault::Sleep => {
                let length = self.rng.range(4 * SECOND, 30 * SECOND);
                self.pause(Fault::Sleep, length);
            }
            Fault::Kill => self.end_some(node, Death::Kill),
            Fault::Crash if self.options.fsync => self.end_some(node, Death::Crash),
            Fault::Crash => self.crash_one(node),
            Fault::Full => self.fill(node, length),
            Fault::BadSync => {
                if self.nodes[node].is_up {
                    self.line(|| format!("n{}: a sync will fail", node + 1));
                    self.nodes[node].doom.get_or_insert(Death::Kill);
                    let worker = self.rng.index(self.nodes[node].workers.len());
                    self.nodes[node].workers[worker].disk.fail_next_sync();
                }
            }
            Fault::Jump => {
                let error = self.rng.signed(self.options.skew_ms);
                self.line(|| format!("n{}: the wall clock is wrong by {error} ms", node + 1));
                self.nodes[node].clocks.wall_error_ms = error;
            }
            Fault::Drift => {
                // Not within a stall, whose end was read from the clock already.
                if self.nodes[node].paused_until <= self.now {
                    let rate_ppm = self.rng.signed(self.options.drift_ppm);
                    self.line(|| format!("n{}: the clocks run {rate_ppm} ppm too fast", node + 1));
                    self.nodes[node].clocks.set_rate(self.now, rate_ppm);
                }
            }
            Fault::Slow => {
                let length = 4 * length;
                self.line(|| format!("n{}: the disk is slow for {length} us", node + 1));
                self.nodes[node].slow_until = self.now + length;
            }
            Fault::Proxy => return self.replace_proxy(),
            Fault::Leave => self.leave(node, length),
            Fault::Bridge => self.bridge(node, length),
            Fault::Betray => self.betray(node),
            Fault::Wipe => self.wipe(node),
            Fault::Vanish => self.vanish(node),
            Fault::Damage => return self.damage(node),
        }
        Ok(())
    }

    pub(super) fn partition(&mut self, length: u64) {
        let hosts = self.nodes.len() + self.options.proxies;
        let a = self.rng.index(hosts);
        self.note_victim(Fault::Partition, a);
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
        let names: Vec<_> =
            ways.iter().map(|&(a, b)| self.host_name(a) + " -> " + &self.host_name(b)).collect();
        self.line(|| format!("blocked for {length} us, broken {is_broken}: {}", names.join(", ")));
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

    pub(super) fn pause(&mut self, fault: Fault, length: u64) {
        let host = self.rng.index(self.nodes.len() + self.options.proxies);
        self.note_victim(fault, host);
        let until = self.now + length;
        let name = self.host_name(host);
        self.line(|| format!("{name} is paused for {length} us"));
        match host.checked_sub(self.nodes.len()) {
            None => self.nodes[host].paused_until = self.nodes[host].paused_until.max(until),
            Some(p) => self.proxies[p].paused_until = self.proxies[p].paused_until.max(until),
        }
    }

    /// Ends one process, or now and then all; at once, or in the middle of some write.
    pub(super) fn end_some(&mut self, node: usize, death: Death) {
        if self.rng.one_in(6) {
            for node in 0..self.nodes.len() {
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

    /// A machine dies, when all replicas are trusted: what was acknowledged is on the others.
    fn crash_one(&mut self, node: usize) {
        if self.is_whole() && self.nodes.iter().all(|n| n.is_up && !n.is_full) {
            self.report.suspects += 1;
            self.die(node, Death::Crash);
        }
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
        let (a, b) = ((middle + 1) % self.nodes.len(), (middle + 2) % self.nodes.len());
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
            for from in (0..self.nodes.len()).filter(|&from| from != node) {
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

    /// A node's leader and a rival of it cannot reach each other; the node restarts within milliseconds, and only the rival
    /// reaches it then: it must not vote while the leader may still rely on what it said before.
    fn betray(&mut self, node: usize) {
        let len = self.nodes.len();
        let a = (node + 1 + self.rng.index(len - 1)) % len;
        let others: Vec<usize> = (0..len).filter(|&n| n != node && n != a).collect();
        let b = others[self.rng.index(others.len())];
        self.line(|| format!("n{} is to turn from n{} to n{}", node + 1, a + 1, b + 1));
        let times = self.rng.range(1, 4);
        // Longer than the longest election timeout, so that the rival campaigns.
        let mut at = self.rng.range(700_000, 1_500_000);
        let end = at + times * SECOND;
        for (from, to) in [(a, b), (b, a)] {
            self.blocked[from][to] += 1;
            self.after(end, Event::Unblock { from, to });
        }
        for _ in 0..times {
            for (from, to) in [(a, node), (node, a)] {
                self.after(at, Event::Block { from, to });
                self.after(at + 400_000, Event::Unblock { from, to });
            }
            self.after(at + 100, Event::Restart { node });
            at += self.rng.range(SECOND / 2, SECOND);
        }
    }

    /// A process dies and leaves a log or a snapshot damaged where it was durable. It must refuse to start, and is then
    /// rebuilt: it comes back with an empty folder. As with [`World::wipe`], never more than one folder is lost at a time.
    fn damage(&mut self, node: usize) -> Result<(), String> {
        if !self.can_lose_folder(node) || self.nodes[node].is_full || !self.nodes[node].is_up {
            return Ok(());
        }
        let Some(map) = self.nodes[node].kept.clone() else { return Ok(()) };
        // Those that its start will know as well: the map that it has kept may be half a second old.
        let id = &self.nodes[node].id;
        let is_seated =
            |group: &GroupId| map.group(*group).is_some_and(|group| group.replica_on(id).is_some());
        let groups: Vec<Vec<u16>> = self.nodes[node]
            .workers
            .iter()
            .map(|w| w.core.iter().flat_map(|core| core.groups()).map(Group::id).filter(is_seated))
            .map(|groups| groups.map(|group| group.0).collect())
            .collect();
        let is_crash = self.options.mix.crash > 0 && self.options.fsync && self.rng.one_in(2);
        let is_doomed = self.nodes[node].doom.is_some();
        self.die(node, if is_crash { Death::Crash } else { Death::Kill });
        if is_doomed {
            return Ok(()); // what it left is uncertain enough
        }
        let worker = self.rng.index(groups.len());
        let last_stop = self.nodes[node].last_stop;
        let disk = &self.nodes[node].workers[worker].disk;
        let Some(what) = damage::damage(disk, last_stop, &groups[worker], &mut self.rng) else {
            return Ok(());
        };
        self.line(|| format!("n{}: {what}", node + 1));
        let seed = self.rng.next();
        let started = self.nodes[node].start(&self.options, &map, seed);
        let Err(error) = started else {
            return Err(format!("n{} starts although {what}", node + 1));
        };
        if !matches!(error.downcast_ref(), Some(LogError::Damaged { .. })) {
            return Err(format!("n{}: {what}, but its start says: {error:#}", node + 1));
        }
        self.line(|| format!("n{} refuses to start: {error:#}", node + 1));
        self.report.damages += 1;
        self.nodes[node].stop(Death::Kill, self.now, 0);
        // That it may be lost was judged while the node's own map counted as well.
        self.lose_folder(node);
        Ok(())
    }
}
