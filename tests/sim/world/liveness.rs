//! Liveness mode: a majority is healed, the rest stays broken for good, and every client must be served, soon and on and on.

use super::verdict::PROBES_LEN;
use super::{Event, World};
use crate::node::Death;
use crate::options::{PARTITIONS, SECOND};
use crate::settings;
use ringfort_wire::GroupId;

/// Within this time after the heal every client must have been answered something.
pub(super) const PROGRESS_US: u64 = 10 * SECOND;
/// Within this time every client must have been served with every key and by every partition.
const ROUND_US: u64 = 30 * SECOND;
/// So many times, while the rest goes on to be broken.
const ROUNDS: u32 = 2;

/// How a node outside the healed majority is broken for good.
#[derive(Debug, Clone, Copy)]
enum Ailment {
    Stopped,
    Paused,
    /// Nobody reaches it, nor it anybody.
    Isolated,
    /// What it sends arrives, but it hears nothing.
    Deaf,
    /// It hears, but nothing that it sends arrives.
    Mute,
    /// It and one node of the majority cannot reach each other, all others can.
    Estranged,
    SlowDisk,
    FullDisk,
    /// It dies again and again.
    Flapping,
}

const AILMENTS: [Ailment; 9] = [
    Ailment::Stopped,
    Ailment::Paused,
    Ailment::Isolated,
    Ailment::Deaf,
    Ailment::Mute,
    Ailment::Estranged,
    Ailment::SlowDisk,
    Ailment::FullDisk,
    Ailment::Flapping,
];

impl World {
    /// Whether every group keeps a majority of its seats without these nodes.
    fn can_spare(&self, nodes: &[usize]) -> bool {
        let map = self.newest_map();
        let groups = (0..=PARTITIONS).filter_map(|g| map.group(GroupId(g)));
        groups.into_iter().all(|group| {
            let lost =
                group.seats.iter().filter(|s| nodes.iter().any(|&n| self.nodes[n].id == s.node)).count();
            2 * lost < group.seats.len()
        })
    }

    /// Everything was healed just now; breaks the nodes outside a majority, in some way, for good.
    pub(super) fn break_rest(&mut self) {
        let first = match self.last_wiped {
            // Its replicas are being replaced: no group can spare another one.
            Some(node) if !self.is_whole() => node,
            _ => self.rng.index(self.nodes.len()),
        };
        let mut rest = vec![first];
        let second = self.rng.index(self.nodes.len());
        if second != first && self.is_whole() && self.can_spare(&[first, second]) {
            rest.push(second);
        }
        let core: Vec<usize> = (0..self.nodes.len()).filter(|n| !rest.contains(n)).collect();
        for &node in &core {
            self.after(0, Event::Start { node });
        }
        for &node in &rest {
            let mut ailments = vec![AILMENTS[self.rng.index(AILMENTS.len())]];
            if self.rng.one_in(3) {
                ailments.push(AILMENTS[self.rng.index(AILMENTS.len())]);
            }
            self.line(|| format!("n{} stays broken: {ailments:?}", node + 1));
            for ailment in ailments {
                self.ail(node, ailment, &core);
            }
        }
    }

    fn ail(&mut self, node: usize, ailment: Ailment, core: &[usize]) {
        let forever = self.now + 1_000 * SECOND;
        let hosts: Vec<usize> = (0..self.blocked.len()).filter(|&host| host != node).collect();
        match ailment {
            Ailment::Stopped => {
                if self.nodes[node].is_up {
                    self.die(node, Death::Kill);
                }
                self.nodes[node].is_gone = true;
            }
            Ailment::Paused => self.nodes[node].paused_until = forever,
            Ailment::Isolated => hosts.iter().for_each(|&host| {
                self.blocked[host][node] += 1;
                self.blocked[node][host] += 1;
            }),
            Ailment::Deaf => hosts.iter().for_each(|&host| self.blocked[host][node] += 1),
            Ailment::Mute => hosts.iter().for_each(|&host| self.blocked[node][host] += 1),
            Ailment::Estranged => {
                let other = core[self.rng.index(core.len())];
                self.blocked[other][node] += 1;
                self.blocked[node][other] += 1;
            }
            Ailment::SlowDisk => self.nodes[node].slow_until = forever,
            Ailment::FullDisk => {
                self.nodes[node].is_full = true;
                for worker in &self.nodes[node].workers {
                    worker.disk.set_capacity(Some(worker.disk.used_bytes()));
                }
            }
            Ailment::Flapping => self.after(0, Event::Flap { node }),
        }
        // Its connections stay, or have to come up again.
        if self.rng.one_in(2) {
            for conn in 0..self.conns.len() {
                if self.conns[conn].ends.contains(&node) {
                    self.break_conn(conn);
                }
            }
        }
    }

    pub(super) fn flap(&mut self, node: usize) {
        if self.nodes[node].is_up {
            self.die(node, Death::Kill);
        }
        let after = self.rng.spread(100_000, 4 * SECOND);
        self.after(after, Event::Flap { node });
    }

    fn left(&self) -> String {
        format!("{:?}; {}", self.probes, self.leaders())
    }

    pub(super) fn judge_core(&mut self) -> Result<(), String> {
        if self.now < self.healed_at + ROUND_US {
            let stuck = self.probes.iter().filter(|(_, probes)| probes.len() == PROBES_LEN);
            let stuck: Vec<usize> = stuck.map(|(client, _)| *client).collect();
            if !stuck.is_empty() {
                return Err(format!(
                    "liveness: {} s after a majority was healed clients {stuck:?} were not served once: {}",
                    PROGRESS_US / SECOND,
                    self.left()
                ));
            }
            if self.probes.values().any(|probes| !probes.is_empty()) {
                self.after(SECOND, Event::Verdict);
                return Ok(());
            }
        }
        if self.probes.values().any(|probes| !probes.is_empty()) {
            return Err(format!(
                "liveness: within {} s a healed majority does not serve everything: {}",
                ROUND_US / SECOND,
                self.left()
            ));
        }
        self.rounds += 1;
        if self.rounds < ROUNDS {
            self.healed_at = self.now;
            self.require((0..self.clients.len()).collect());
            self.after(PROGRESS_US, Event::Verdict);
            return Ok(());
        }
        if settings::is_in(self.options.seed) && !self.settings.is_alive() {
            return Err(format!("liveness: no change of the settings is made: {}", self.left()));
        }
        self.queue.clear();
        self.after(0, Event::Settled);
        Ok(())
    }
}
