//! Nodes that come and go: an operator who changes his mind all the time.

use super::{Event, World};
use crate::node::{Death, Node};
use ringfort::meta::moves::aim_of;
use ringfort_ring::{NodeSpec, Placement, Seats, place};
use ringfort_wire::{Apply, ClusterMap, Member, MetaWrite};

/// Numbers of changes of the members, as those of settings count from 1.
pub(super) const CHANGES: u64 = 1 << 40;
/// A cluster has at least so many members: with fewer it would not have three replicas.
const MEMBERS_MIN: usize = 3;

impl World {
    /// Asks some node for other members, or to give up the change that is under way.
    pub(super) fn change_members(&mut self) {
        if self.is_healed {
            return;
        }
        let after = 1 + self.rng.below(self.options.change_us);
        self.after(after, Event::Change);
        let map = self.newest_map();
        let write = if map.change.is_some() && self.rng.one_in(4) {
            MetaWrite::Abort
        } else {
            MetaWrite::Apply(Box::new(self.other_members(&map)))
        };
        let node = self.rng.index(self.nodes.len());
        let Some(core) = &mut self.nodes[node].workers[0].core else { return };
        self.next_change += 1;
        core.meta_write(CHANGES + self.next_change, &write.to_json());
        self.line(|| format!("n{} is asked for {}", node + 1, String::from_utf8_lossy(&write.to_json())));
        self.want_turn(node, 0);
        self.want_flush(node, 0);
    }

    fn other_members(&mut self, map: &ClusterMap) -> Apply {
        // One that left comes back with another folder only: the id of a node is not given again while it runs.
        let may_join = |n: &Node| map.node(&n.id).is_some() || n.kept.is_none();
        let mut numbers: Vec<usize> = (0..self.nodes.len()).filter(|&n| may_join(&self.nodes[n])).collect();
        for _ in 0..self.rng.range(0, numbers.len().saturating_sub(MEMBERS_MIN) as u64) {
            let gone = self.rng.index(numbers.len());
            numbers.remove(gone);
        }
        let nodes: Vec<Member> = numbers
            .into_iter()
            .map(|n| Member {
                id: self.nodes[n].id.clone(),
                client: format!("127.0.0.1:{}", 7001 + n),
                peer: format!("127.0.0.1:{}", 7101 + n),
                weight: self.rng.range(1, 3) as u32,
                zone: String::new(),
            })
            .collect();
        let specs: Vec<NodeSpec> = nodes
            .iter()
            .map(|m| NodeSpec { id: m.id.clone(), weight: m.weight, zone: m.zone.clone() })
            .collect();
        let now = Placement { partitions: map.groups.iter().map(aim_of).collect() };
        let placed = place(Some(&now), &specs, map.partitions, map.replicas);
        let partitions = placed.expect("three members are enough").partitions;
        let mut meta: Vec<_> = nodes.iter().map(|m| m.id.clone()).collect();
        while meta.len() > MEMBERS_MIN {
            meta.remove(self.rng.index(meta.len()));
        }
        let leader = meta[self.rng.index(meta.len())].clone();
        Apply {
            planned_epoch: map.planned_epoch,
            nodes,
            replicas: map.replicas,
            moving: map.moving,
            partitions,
            meta: Seats { replicas: meta, leader },
        }
    }

    /// The cluster has forgotten a node: its process ends, and an empty one takes its place, which may be taken in again.
    pub(super) fn leave_for_good(&mut self, node: usize) {
        self.line(|| format!("n{} has left the cluster", node + 1));
        self.report.left += 1;
        if self.nodes[node].is_up {
            self.die(node, Death::Kill);
        } else {
            self.after(1_000, Event::Start { node });
        }
        self.nodes[node].wipe();
    }
}
