//! What a node has beside its logs: the map that it follows, and how an empty folder is taken in; settings.

use super::{Event, World};
use crate::node::{Death, Node};
use crate::options::SECOND;
use crate::settings;
use ringfort_wire::{ClusterMap, MetaWrite};
use std::collections::BTreeSet;

/// Longest wait between two questions of a node for a newer map.
pub(super) const MAP_EVERY_US: u64 = SECOND;
/// Wait between two attempts of a node with an empty folder to be taken in.
pub(super) const REJOIN_US: u64 = 200_000;

impl World {
    /// Whether two nodes' processes can ask each other something now.
    pub(super) fn are_in_touch(&self, a: usize, b: usize) -> bool {
        let is_well = |n: usize| self.nodes[n].paused_until <= self.now;
        is_well(a) && is_well(b) && !self.is_blocked(a, b) && !self.is_blocked(b, a)
    }

    pub(super) fn follow_map(&mut self, node: usize) {
        let after = self.rng.range(MAP_EVERY_US / 4, MAP_EVERY_US);
        self.after(after, Event::FollowMap { node });
        let other = self.rng.index(self.nodes.len());
        let Some(own) = self.nodes[node].map() else { return };
        if own.node(&self.nodes[node].id).is_none() {
            self.leave_for_good(node);
            return;
        }
        self.nodes[node].kept = Some((*own).clone());
        if let Some(core) = &self.nodes[node].workers[0].core {
            core.shared().set_kept(own.epoch);
        }
        if own.node(&self.nodes[node].id).is_some_and(|member| member.store_id == 0) {
            let others = self.others_in_touch(node);
            self.ask_to_be_taken_in(node, 0, &others);
        }
        if self.options.changes_members() {
            // As a process does with every tick: a worker without a running group must see the map, too.
            for worker in 0..self.nodes[node].workers.len() {
                self.want_turn(node, worker);
            }
        }
        if other != node
            && self.are_in_touch(node, other)
            && let Some(map) = self.nodes[other].map()
            && let Some(core) = &self.nodes[node].workers[0].core
            && core.shared().set_map(&map)
        {
            self.line(|| format!("n{} has the map of epoch {}", node + 1, map.epoch));
            for worker in 0..self.nodes[node].workers.len() {
                self.want_turn(node, worker);
            }
        }
    }

    /// A node without a map asks to be taken in, again and again, until a map names its folder.
    pub(super) fn rejoin(&mut self, node: usize) {
        let others = self.others_in_touch(node);
        let maps = others.iter().filter_map(|&n| self.nodes[n].map());
        let Some(map) = maps.max_by_key(|m| m.epoch) else {
            self.after(REJOIN_US, Event::Start { node });
            return;
        };
        let (id, store) = (self.nodes[node].id.clone(), self.nodes[node].store_id);
        let Some(known) = map.node(&id).map(|n| n.store_id) else {
            self.after(REJOIN_US, Event::Start { node });
            return;
        };
        if known == store {
            self.line(|| format!("n{} takes the map of epoch {}", node + 1, map.epoch));
            self.nodes[node].kept = Some((*map).clone());
            self.after(1_000, Event::Start { node });
            return;
        }
        self.ask_to_be_taken_in(node, known, &others);
        self.after(REJOIN_US, Event::Start { node });
    }

    fn others_in_touch(&self, node: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&n| n != node && self.are_in_touch(node, n)).collect()
    }

    fn ask_to_be_taken_in(&mut self, node: usize, old_store: u128, others: &[usize]) {
        let write = MetaWrite::Replace {
            node: self.nodes[node].id.clone(),
            old_store: format!("{old_store:032x}"),
            new_store: format!("{:032x}", self.nodes[node].store_id),
        };
        for &other in others {
            if let Some(core) = &mut self.nodes[other].workers[0].core {
                core.meta_told(&write.to_json());
                self.want_turn(other, 0);
            }
        }
    }

    /// The newest map that any node has, running or not.
    pub(super) fn newest_map(&self) -> ClusterMap {
        let running = self.nodes.iter().filter_map(|n| n.map().map(|m| (*m).clone()));
        let kept = self.nodes.iter().filter_map(|n| n.kept.clone());
        running.chain(kept).max_by_key(|m| m.epoch).unwrap_or_else(|| self.map.clone())
    }

    /// Whether every replica that was lost has been replaced.
    pub(super) fn is_whole(&self) -> bool {
        let map = self.newest_map();
        let is_named = |n: &Node| map.node(&n.id).is_none_or(|m| m.store_id == n.store_id);
        let waits =
            |n: &Node| n.workers.iter().any(|w| w.core.as_ref().is_some_and(|core| core.has_asides()));
        map.change.is_none()
            && map.nodes.iter().all(|member| !member.is_down)
            && map.all_groups().all(|(_, group)| group.is_settled())
            && self.nodes.iter().all(|n| is_named(n) && !waits(n))
    }

    /// Whether the data folder of a node may go and nothing acknowledged with it: nothing else is lost, and every group that it
    /// takes part in has two others, whatever its log says of a change that is under way.
    pub(super) fn can_lose_folder(&self, node: usize) -> bool {
        if !self.options.changes_members() {
            return self.is_whole();
        }
        let map = self.newest_map();
        let id = &self.nodes[node].id;
        let is_named = |n: &Node| map.node(&n.id).is_none_or(|m| m.store_id == n.store_id || m.store_id == 0);
        self.nodes.iter().all(is_named)
            && map.all_groups().all(|(group, _)| self.keeps_voters(group, &|other| other == id))
            && map.all_groups().all(|(_, group)| {
                let proven = group.seats.iter().filter(|seat| !group.is_unproven(seat.replica));
                let voters: BTreeSet<_> = proven.chain(&group.leaving).map(|seat| &seat.node).collect();
                let is_spared =
                    group.seats.len() > 2 && voters.iter().filter(|voter| **voter != id).count() > 1;
                group.lost.is_empty() && !group.is_recovering() && is_spared
            })
    }

    /// A node loses its data folder, when nothing else is lost already.
    pub(super) fn wipe(&mut self, node: usize) {
        if !self.can_lose_folder(node) || self.nodes[node].is_full {
            return;
        }
        if self.nodes[node].is_up {
            self.die(node, Death::Kill);
        }
        self.lose_folder(node);
    }

    /// A node that does not run loses its data folder.
    pub(super) fn lose_folder(&mut self, node: usize) {
        self.line(|| format!("n{} has lost its data folder", node + 1));
        self.report.wipes += 1;
        self.last_wiped = Some(node);
        self.nodes[node].wipe();
    }

    /// Asks one node for a change, after the last fault every one; only the leader of the meta group makes it.
    pub(super) fn change_settings(&mut self) {
        if self.settings.is_alive() {
            return;
        }
        let len = self.nodes.len();
        let first = self.rng.index(len);
        let asked = if self.is_healed { len } else { 1 };
        for node in (first..first + asked).map(|n| n % len) {
            let Some(core) = &mut self.nodes[node].workers[0].core else { continue };
            let (number, body) = self.settings.ask(self.now);
            core.meta_write(number, &body);
            self.want_turn(node, 0);
            self.want_flush(node, 0);
        }
        let after = self.rng.below(settings::EVERY_US);
        self.after(after, Event::Setting);
    }
}
