//! Liveness mode: a majority is healed, the rest stays broken for good, and every client must be served, soon and on and on.

use super::verdict::PROBES_LEN;
use super::{Event, World};
use crate::node::{Death, Node};
use crate::options::SECOND;
use crate::settings;
use ringfort::shard::Group;
use ringfort_ring::NodeId;
use ringfort_wire::GroupId;
use ringfort_wire::map::MapSeat;

/// Within this time after the heal, and after each round, every client must have been served once.
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
    /// Whether every group keeps a majority without these nodes, whatever its log says of a change that is under way.
    fn can_spare(&self, nodes: &[usize]) -> bool {
        let map = self.newest_map();
        let is_spared = |id: &NodeId| nodes.iter().any(|&n| self.nodes[n].id == *id);
        map.all_groups().filter(|(_, group)| group.peers().any(|seat| is_spared(&seat.node))).all(
            |(_, group)| {
                let proven = group.seats.iter().filter(|seat| !group.is_unproven(seat.replica));
                let before: Vec<&MapSeat> = proven.chain(&group.leaving).collect();
                // One that stands aside votes no more.
                let is_aside = |seat: &MapSeat| group.asides.iter().any(|a| a.replica == seat.replica);
                let is_left = |seat: &&&MapSeat| {
                    !is_spared(&seat.node) && !group.lost.contains(&seat.replica) && !is_aside(seat)
                };
                let left = before.iter().filter(is_left).count();
                let after = group.seats.iter().filter(|seat| !is_spared(&seat.node)).count();
                let is_first = group.seats.len() > 2 && left < 2;
                2 * left > before.len() && 2 * after > group.seats.len() && !is_first
            },
        ) && map.all_groups().filter_map(|(_, group)| group.target.as_ref()).all(|target| {
            let left = target.replicas.iter().filter(|id| !is_spared(id)).count();
            2 * left > target.replicas.len()
        }) && map.all_groups().all(|(id, _)| self.keeps_voters(id, &is_spared))
    }

    /// Whether the members that a group has now, by the replica that has applied most, keep a majority without some nodes. The
    /// map does not tell whether one that is leaving ever came to vote.
    pub(super) fn keeps_voters(&self, id: GroupId, is_spared: &impl Fn(&NodeId) -> bool) -> bool {
        let replicas: Vec<(&NodeId, &Group)> = self
            .nodes
            .iter()
            .flat_map(|n| n.workers.iter().map(move |worker| (&n.id, worker)))
            .filter_map(|(node, worker)| Some((node, worker.core.as_ref()?.group(id)?)))
            .collect();
        let Some((_, newest)) = replicas.iter().max_by_key(|(_, group)| group.raft().applied_index()) else {
            return true;
        };
        let is_left = |voter: u64| {
            replicas.iter().any(|(node, group)| group.raft().replica() == voter && !is_spared(node))
        };
        let members = newest.raft().membership();
        [&members.voters, &members.outgoing].into_iter().all(|voters| {
            voters.is_empty() || 2 * voters.iter().filter(|voter| is_left(**voter)).count() > voters.len()
        })
    }

    /// A node that the others can do without; `None`: the change of the members that is under way allows for none.
    fn spare(&mut self) -> Option<usize> {
        let map = self.newest_map();
        let is_lost =
            |n: &Node| map.node(&n.id).is_some_and(|member| ![0, n.store_id].contains(&member.store_id));
        let lost = self.nodes.iter().position(is_lost);
        let first = self.rng.index(self.nodes.len());
        let all = (first..first + self.nodes.len()).map(|n| n % self.nodes.len());
        all.into_iter().filter(|&n| lost.is_none_or(|lost| lost == n)).find(|&n| self.can_spare(&[n]))
    }

    /// Everything was healed just now; breaks the nodes outside a majority, in some way, for good.
    pub(super) fn break_rest(&mut self) {
        let first = match self.last_wiped {
            _ if self.options.changes_members() => self.spare(),
            // Its replicas are being replaced: no group can spare another one.
            Some(node) if !self.is_whole() => Some(node),
            _ => Some(self.rng.index(self.nodes.len())),
        };
        let mut rest: Vec<usize> = first.into_iter().collect();
        let second = self.rng.index(self.nodes.len());
        if let Some(first) = first
            && second != first
            && self.is_whole()
            && self.can_spare(&[first, second])
        {
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
        let probes: Vec<_> =
            self.probes.iter().map(|(client, probes)| (client, probes.len(), probes.last())).collect();
        let pending: Vec<_> =
            self.clients.iter().map(|c| (c.via, c.pending.len(), c.pending.front())).collect();
        let proxies: Vec<_> = self.proxies.iter().map(|p| p.core.unanswered()).collect();
        format!(
            "probes {probes:?}; pending {pending:?}; in proxies {proxies:?}; the map is {:?}; {}",
            self.newest_map(),
            self.leaders()
        )
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
