//! Nodes that come and go: an operator who changes his mind all the time.

use super::folders::REJOIN_US;
use super::report::Role;
use super::{Event, World};
use crate::net::Host;
use crate::node::{Death, Node};
use crate::options::{Fault, SECOND};
use ringfort::meta::moves::aim_of;
use ringfort::meta::replace::can_lose;
use ringfort_ring::{NodeId, NodeSpec, Placement, Seats, place};
use ringfort_wire::{Apply, ClusterMap, GroupId, Member, MetaWrite};

/// Numbers of changes of the members, as those of settings count from 1.
pub(super) const CHANGES: u64 = 1 << 40;
/// A cluster has at least so many members: with fewer it would not have three replicas.
const MEMBERS_MIN: usize = 3;

impl World {
    /// Asks some node for other members, or to give up the change that is under way. After the last fault only while the
    /// cluster waits for what does not come back.
    pub(super) fn change_members(&mut self) {
        let most = if self.is_healed { SECOND } else { self.options.change_us };
        let after = 1 + self.rng.below(most);
        self.after(after, Event::Change);
        let map = self.newest_map();
        if self.is_healed && !self.is_any_awaited(&map) {
            return;
        }
        let write = if map.change.is_some() && self.rng.one_in(4) {
            MetaWrite::Abort
        } else {
            let Some(wanted) = self.other_members(&map) else { return };
            MetaWrite::Apply(Box::new(wanted))
        };
        let node = self.rng.index(self.nodes.len());
        let Some(core) = &mut self.nodes[node].workers[0].core else { return };
        self.next_change += 1;
        core.meta_write(CHANGES + self.next_change, &write.to_json());
        self.line(|| format!("n{} is asked for {}", node + 1, String::from_utf8_lossy(&write.to_json())));
        self.want_turn(node, 0);
        self.want_flush(node, 0);
    }

    /// Whether the cluster counts on a node that is gone for good, or is not to lose a data folder that is lost: an operator
    /// must tell it to do without.
    fn is_any_awaited(&self, map: &ClusterMap) -> bool {
        let is_refused =
            |n: &Node, store_id: u128| ![0, n.store_id].contains(&store_id) && !can_lose(map, &n.id);
        let is_awaited = |n: &Node| {
            let member = map.node(&n.id).filter(|member| !member.is_leaving);
            member.is_some_and(|member| n.has_vanished || is_refused(n, member.store_id))
        };
        self.nodes.iter().any(is_awaited)
    }

    fn other_members(&mut self, map: &ClusterMap) -> Option<Apply> {
        // An operator knows who is gone for good, sooner or later.
        let knows = self.is_healed || self.rng.one_in(2);
        // One that left comes back with another folder only: the id of a node is not given again while it runs.
        let may_join =
            |n: &Node| !(knows && n.has_vanished) && (map.node(&n.id).is_some() || n.kept.is_none());
        let mut numbers: Vec<usize> = (0..self.nodes.len()).filter(|&n| may_join(&self.nodes[n])).collect();
        for _ in 0..self.rng.range(0, numbers.len().saturating_sub(MEMBERS_MIN) as u64) {
            let gone = self.rng.index(numbers.len());
            numbers.remove(gone);
        }
        if numbers.len() < MEMBERS_MIN {
            return None;
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
        let replicas = match map.replicas {
            _ if self.is_healed => 3,
            replicas if self.rng.one_in(8) => 4 - replicas,
            replicas => replicas,
        };
        let placed = place(Some(&now), &specs, map.partitions, replicas);
        let partitions = placed.expect("three members are enough").partitions;
        let mut meta: Vec<_> = nodes.iter().map(|m| m.id.clone()).collect();
        while meta.len() > MEMBERS_MIN {
            meta.remove(self.rng.index(meta.len()));
        }
        let leader = meta[self.rng.index(meta.len())].clone();
        Some(Apply {
            planned_epoch: map.planned_epoch,
            nodes,
            replicas,
            moving: map.moving,
            partitions,
            meta: Seats { replicas: meta, leader },
        })
    }

    /// A node is gone for good, with its folder; most often one that is to receive replicas just now.
    pub(super) fn vanish(&mut self, node: usize) {
        let map = self.newest_map();
        let receives = |n: &usize| {
            let unproven = |(_, group): (GroupId, &ringfort_wire::map::MapGroup)| {
                group.replica_on(&self.nodes[*n].id).is_some_and(|replica| group.is_unproven(replica))
            };
            map.all_groups().any(unproven)
        };
        let receivers: Vec<usize> = (0..self.nodes.len()).filter(receives).collect();
        let node = if receivers.is_empty() || self.rng.one_in(4) {
            node
        } else {
            receivers[self.rng.index(receivers.len())]
        };
        let lost = self.report.wipes;
        if map.node(&self.nodes[node].id).is_some() {
            self.note_victim(Fault::Vanish, node);
            self.wipe(node);
        }
        if lost < self.report.wipes {
            self.line(|| format!("n{} is gone for good", node + 1));
            self.nodes[node].has_vanished = true;
            self.report.vanished += 1;
        }
    }

    /// Whether a node that was to start is gone for good. When the cluster has forgotten it, another one may have its name.
    pub(super) fn stays_away(&mut self, node: usize) -> bool {
        if self.nodes[node].has_vanished && self.newest_map().node(&self.nodes[node].id).is_some() {
            self.after(REJOIN_US, Event::Start { node });
            return true;
        }
        self.nodes[node].has_vanished = false;
        false
    }

    /// Counts a fault that falls on a host while replicas move, for each part that it has in that.
    pub(super) fn note_victim(&mut self, fault: Fault, host: Host) {
        if !self.options.changes_members() || self.is_healed {
            return;
        }
        let map = self.newest_map();
        if map.change.is_none() {
            return;
        }
        let Some(node) = self.nodes.get(host) else {
            *self.report.victims.entry((fault, Role::Proxy)).or_default() += 1;
            return;
        };
        let leads = |id: GroupId| {
            let groups = node.workers.iter().filter_map(|w| w.core.as_ref()?.group(id));
            groups.into_iter().any(|group| group.raft().is_leader())
        };
        let moving = || map.all_groups().filter(|(_, group)| !group.is_settled());
        let is_joining = |id: &NodeId| {
            moving().any(|(_, group)| group.replica_on(id).is_some_and(|replica| group.is_unproven(replica)))
        };
        let is_leaving =
            |id: &NodeId| moving().any(|(_, group)| group.leaving.iter().any(|seat| seat.node == *id));
        let mut roles = Vec::new();
        roles.extend(moving().any(|(id, _)| leads(id)).then_some(Role::Leader));
        roles.extend(leads(GroupId::META).then_some(Role::MetaLeader));
        roles.extend(is_joining(&node.id).then_some(Role::Joining));
        roles.extend(is_leaving(&node.id).then_some(Role::Leaving));
        if roles.is_empty() {
            roles.push(Role::Other);
        }
        for role in roles {
            *self.report.victims.entry((fault, role)).or_default() += 1;
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
