//! The cluster map: who is a member, where each partition's replicas are, at which epoch.

use crate::GroupId;
use ringfort_ring::{NodeId, PartitionCount, PartitionId, Seats};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Membership and placement at one epoch. The meta group owns it; everyone else holds a copy with its epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMap {
    /// Random id, minted when the cluster forms.
    #[serde(with = "hex")]
    pub cluster_id: u128,
    /// The cluster's name.
    pub name: String,
    /// Version; grows with every change.
    pub epoch: u64,
    /// P.
    pub partitions: PartitionCount,
    /// Replicas wanted for each partition.
    pub replicas: u16,
    /// Whether an acknowledged write is on disk (`fsync`) or in the page cache (`buffered`).
    pub fsync: bool,
    /// Members, ordered by id.
    pub nodes: Vec<MapNode>,
    /// The meta group.
    pub meta: MapGroup,
    /// The shard groups; index = partition.
    pub groups: Vec<MapGroup>,
    /// The next replica id to mint.
    pub next_replica: u64,
    /// Feature level that every node supports.
    pub feature_level: u16,
    /// Settings that CONFIG SET changes, by their names in Redis (`requirepass`, `maxmemory`, ...); absent: the default.
    /// May hold a secret: not for clients.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// How replicas are moved.
    #[serde(default)]
    pub moving: Moving,
    /// Ids of nodes that left the cluster: none of them comes back.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub former_nodes: BTreeSet<NodeId>,
    /// Epoch at which members, weights or targets changed last by somebody's wish: a plan is made from it.
    #[serde(default)]
    pub planned_epoch: u64,
    /// The change of the members that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<MapChange>,
}

/// How replicas are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    /// Bytes that a node sends, and receives, in a second at most.
    pub bytes_per_s: u64,
    /// Replicas that a node receives at the same time at most.
    pub at_once: u16,
    /// Seconds after which a node that does not answer has its replicas replaced.
    pub down_after_s: u32,
}

impl Default for Moving {
    /// What a config file says that does not speak of it.
    fn default() -> Self {
        Self { bytes_per_s: 64 << 20, at_once: 2, down_after_s: 300 }
    }
}

/// A change of the members that is under way, and what to go back to if it is given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapChange {
    /// When it was asked for first, ms since 1970.
    pub at_ms: u64,
    /// Replicas that some node has to receive for it, counted when it was asked for last.
    pub total: u32,
    /// Whether it is on its way back.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub is_abort: bool,
    /// Whether nobody asked for it: a node is down, or is back.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub is_repair: bool,
    /// The members before it.
    pub nodes: Vec<MapNode>,
    /// Replicas wanted for each partition before it.
    pub replicas: u16,
    /// How replicas moved before it.
    pub moving: Moving,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapNode {
    /// Its id.
    pub id: NodeId,
    /// Where Redis clients reach it.
    pub client: String,
    /// Where Redis clients reach it by TLS; `None`: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_client: Option<String>,
    /// Where nodes and proxies reach it.
    pub peer: String,
    /// Its share.
    pub weight: u32,
    /// Its failure domain.
    pub zone: String,
    /// The data folder that holds its replicas; 0: it has not joined yet.
    #[serde(with = "hex")]
    pub store_id: u128,
    /// Whether it is to be forgotten once no replica is on it.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub is_leaving: bool,
    /// Whether it is to lead nothing that somebody else can lead.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub is_drained: bool,
    /// Whether it has not been heard of for so long that its replicas are to be on other nodes, if there is room, until it is
    /// back.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub is_down: bool,
}

/// One Raft group's replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapGroup {
    /// Raised when a group is re-founded from one survivor; frames of another incarnation are dropped.
    pub incarnation: u32,
    /// Its replicas, ordered by node: those that are wanted. The group's own log says who takes part.
    pub seats: Vec<MapSeat>,
    /// Replicas that had a seat and may still take part; the group forgets them when they do not any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<MapSeat>,
    /// Replicas that were given a seat and are not known to vote yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joining: Vec<u64>,
    /// Replicas that came back from `leaving` to a seat, and are not known to vote still. One that does not never will.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub returned: Vec<u64>,
    /// Those of `leaving` whose data folders are lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<u64>,
    /// Epoch at which an exchange of replicas was turned round last, 0: none was. The group does nothing more for older maps
    /// before it says that such a change is done.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub turned_epoch: u64,
    /// Where its replicas are to be, and who is to lead, if that is not so yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Seats>,
    /// Where they were before the change that is under way, if that has touched them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Seats>,
    /// The voters with which the group began, once they differ from those of `seats`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    founders: Vec<u64>,
    /// The node that leads when it can, and is not drained.
    pub leader: NodeId,
    /// The one that leads instead while that one is drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deputy: Option<NodeId>,
    /// Replicas that stand aside: they will not take part again under their ids. Each waits until a leader lets a new one
    /// take its seat, or until its group starts anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asides: Vec<MapAside>,
    /// How the group came to its incarnation; `None` for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<MapRecovery>,
    /// When an operator accepted that the group starts anew from what is left (ms since 1970), until it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_accepted_ms: Option<u64>,
}

/// A replica that stands aside, and where its log ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapAside {
    /// The replica.
    pub replica: u64,
    /// Whether the end of its log may be missing; if not, it stood aside because others are suspect.
    pub is_suspect: bool,
    /// Term of its last entry.
    pub term: u64,
    /// Index of its last entry.
    pub index: u64,
}

/// How a group started anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapRecovery {
    /// When, ms since 1970.
    pub at_ms: u64,
    /// The replica of the incarnation before whose state goes on, and its node; `None`: the group began empty.
    pub from: Option<MapSeat>,
    /// How many of its replicas had said where their logs end.
    pub heard: u16,
    /// How many of those were suspect.
    pub suspects: u16,
    /// How many replicas there were.
    pub replicas: u16,
    /// Whether an operator accepted that more than the last second may be lost.
    #[serde(default)]
    pub is_loss_accepted: bool,
    /// Whether it is not known yet that the group has begun.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub is_awaited: bool,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapSeat {
    /// Its node.
    pub node: NodeId,
    /// Raft's id of it; never reused.
    pub replica: u64,
}

impl ClusterMap {
    /// The group of an id; `None` when P is smaller.
    pub fn group(&self, id: GroupId) -> Option<&MapGroup> {
        match id.partition() {
            None => Some(&self.meta),
            Some(PartitionId(p)) => self.groups.get(usize::from(p)),
        }
    }

    /// Every group with its id: the meta group, then the partitions.
    pub fn all_groups(&self) -> impl Iterator<Item = (GroupId, &MapGroup)> {
        core::iter::once((GroupId::META, &self.meta))
            .chain(self.groups.iter().zip(1..).map(|(group, id)| (GroupId(id), group)))
    }

    /// A member by its id.
    pub fn node(&self, id: &NodeId) -> Option<&MapNode> {
        self.nodes.iter().find(|n| n.id == *id)
    }

    /// The map as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a map has only string keys and plain values")
    }

    /// Reads a map from JSON and checks that it is consistent.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn from_json(bytes: &[u8]) -> Result<Self, String> {
        let map: Self = serde_json::from_slice(bytes).map_err(|e| format!("cluster map: {e}"))?;
        if PartitionCount::new(map.partitions.get()).is_none()
            || map.groups.len() != usize::from(map.partitions.get())
        {
            return Err(format!(
                "cluster map: {} groups for {} partitions",
                map.groups.len(),
                map.partitions.get()
            ));
        }
        for (id, group) in map.all_groups() {
            let placed = group.target.iter().chain(&group.before).flat_map(|seats| &seats.replicas);
            let mut named = group.peers().map(|seat| &seat.node).chain(placed);
            if let Some(node) = named.find(|node| map.node(node).is_none()) {
                return Err(format!("cluster map: group {id} has a replica on the unknown node {node}"));
            }
        }
        Ok(map)
    }
}

impl MapNode {
    /// Where a client that came by TLS, or that did not, is sent.
    pub fn address(&self, is_tls: bool) -> &str {
        match &self.tls_client {
            Some(address) if is_tls => address,
            _ => &self.client,
        }
    }
}

impl MapGroup {
    /// A group that begins with these seats.
    pub fn new(seats: Vec<MapSeat>, leader: NodeId) -> Self {
        Self {
            incarnation: 1,
            seats,
            leaving: Vec::new(),
            joining: Vec::new(),
            returned: Vec::new(),
            lost: Vec::new(),
            turned_epoch: 0,
            target: None,
            before: None,
            founders: Vec::new(),
            leader,
            deputy: None,
            asides: Vec::new(),
            recovery: None,
            loss_accepted_ms: None,
        }
    }

    /// Starts the group anew with `seats`, all of which are new, from the state of `recovery.from`: its node's new replica
    /// is the only founder. Without one, that of the first seat is, and begins empty.
    pub fn refound(&mut self, seats: Vec<MapSeat>, recovery: MapRecovery) {
        let heir = recovery.from.as_ref().and_then(|from| seats.iter().find(|seat| seat.node == from.node));
        self.founders = heir.or_else(|| seats.first()).map(|seat| seat.replica).into_iter().collect();
        self.joining = seats.iter().map(|seat| seat.replica).collect();
        self.joining.retain(|replica| !self.founders.contains(replica));
        self.seats = seats;
        self.leaving.clear();
        self.lost.clear();
        self.returned.clear();
        self.turned_epoch = 0;
        self.asides.clear();
        self.incarnation += 1;
        self.recovery = Some(recovery);
        self.loss_accepted_ms = None;
    }

    /// The group, of which nothing is left, is founded by the new replica `replica` alone.
    pub fn found_by(&mut self, replica: u64) {
        self.founders = vec![replica];
        self.joining.retain(|&joining| joining != replica);
        self.leaving.retain(|seat| self.seats.iter().all(|other| other.node != seat.node));
    }

    /// Whether the founder of this incarnation takes over what `replica` of the incarnation `of` holds.
    pub fn is_heir_of(&self, replica: u64, of: u32) -> bool {
        let from = self.recovery.as_ref().and_then(|r| r.from.as_ref());
        of < self.incarnation && from.is_some_and(|from| from.replica == replica)
    }

    /// The replicas whose logs count when the group starts anew: those that are seated, and those that leave, are not lost,
    /// and were not replaced by another one of the same node, for such a one is of no use any more.
    pub fn counted(&self) -> impl Iterator<Item = &MapSeat> {
        let is_left =
            |seat: &&MapSeat| self.replica_on(&seat.node).is_none() && !self.lost.contains(&seat.replica);
        self.seats.iter().chain(self.leaving.iter().filter(is_left))
    }

    /// Whether a replica's log counts when the group starts anew.
    pub fn counts(&self, replica: u64) -> bool {
        self.counted().any(|seat| seat.replica == replica)
    }

    /// Whether so many replicas are suspect, or lost, that the others may be no majority.
    pub fn lacks_majority(&self) -> bool {
        let is_suspect = |seat: &MapSeat| self.aside(seat.replica).is_some_and(|aside| aside.is_suspect);
        // One that takes the place of a lost replica may not vote yet.
        let is_new = |seat: &MapSeat| self.leaving.iter().any(|old| old.node == seat.node);
        let healthy = self.seats.iter().filter(|seat| !is_suspect(seat) && !is_new(seat)).count();
        self.asides.iter().any(|aside| aside.is_suspect) && healthy * 2 <= self.seats.len()
    }

    /// Whether replicas without a leader are to stand aside, so that their group can start anew.
    pub fn is_given_up(&self) -> bool {
        self.lacks_majority() || self.loss_accepted_ms.is_some()
    }

    /// What is known of a replica that stands aside.
    pub fn aside(&self, replica: u64) -> Option<&MapAside> {
        self.asides.iter().find(|aside| aside.replica == replica)
    }

    /// The voters with which the group began, before any change that is in its log.
    pub fn founders(&self) -> Vec<u64> {
        if self.founders.is_empty() {
            return self.seats.iter().map(|s| s.replica).collect();
        }
        self.founders.clone()
    }

    /// Every replica that may take part.
    pub fn peers(&self) -> impl Iterator<Item = &MapSeat> {
        self.seats.iter().chain(&self.leaving)
    }

    /// The nodes of every replica that may take part: who leads may be one that leaves.
    pub fn nodes(&self) -> BTreeSet<&NodeId> {
        self.peers().map(|seat| &seat.node).collect()
    }

    /// Wants these replicas from now on. Those that had a seat and have none now leave; those that were leaving come back;
    /// the new ones must have ids that were never used.
    pub fn set_seats(&mut self, seats: Vec<MapSeat>) {
        self.founders = self.founders();
        let before = core::mem::replace(&mut self.seats, seats);
        for seat in self.seats.iter().filter(|seat| !before.contains(seat)) {
            let comes_back = self.leaving.contains(seat);
            let list = if comes_back { &mut self.returned } else { &mut self.joining };
            list.push(seat.replica);
        }
        self.leaving.extend(before);
        self.leaving.retain(|seat| !self.seats.contains(seat));
        let is_seated = |replica: &u64| self.seats.iter().any(|seat| seat.replica == *replica);
        self.joining.retain(is_seated);
        self.returned.retain(is_seated);
        self.lost.retain(|replica| self.leaving.iter().any(|seat| seat.replica == *replica));
        self.drop_asides();
    }

    /// Who does not count any more is not waited for.
    fn drop_asides(&mut self) {
        let mut asides = core::mem::take(&mut self.asides);
        asides.retain(|aside| self.counts(aside.replica));
        self.asides = asides;
    }

    /// Gives the seat on `node`, if there is one, to the new replica `replica`; the old one leaves. Returns whether there
    /// was one.
    pub fn reseat(&mut self, node: &NodeId, replica: u64) -> bool {
        let is_seated = self.replica_on(node).is_some();
        if is_seated {
            let mut seats = self.seats.clone();
            for seat in seats.iter_mut().filter(|seat| seat.node == *node) {
                seat.replica = replica;
            }
            self.set_seats(seats);
            self.lose(node);
        }
        is_seated
    }

    /// The node that is to lead now.
    pub fn wanted_leader(&self) -> &NodeId {
        self.deputy.as_ref().unwrap_or(&self.leader)
    }

    /// What leaves and is on `node` is lost: it does not come back.
    pub fn lose(&mut self, node: &NodeId) {
        let on_node = self.leaving.iter().filter(|seat| seat.node == *node).map(|seat| seat.replica);
        let news: Vec<u64> = on_node.filter(|replica| !self.lost.contains(replica)).collect();
        self.lost.extend(news);
        self.drop_asides();
    }

    /// Forgets replicas that take part no more. The seats of those among them that came back to one go to new ones with ids
    /// from `next_replica` on. Returns whether that changes anything.
    pub fn forget(&mut self, replicas: &[u64], next_replica: &mut u64) -> bool {
        let before = self.leaving.len();
        self.leaving.retain(|seat| !replicas.contains(&seat.replica));
        self.lost.retain(|replica| !replicas.contains(replica));
        let mut is_changed = self.leaving.len() < before;
        let founders = self.founders();
        for seat in &mut self.seats {
            if replicas.contains(&seat.replica) && self.returned.contains(&seat.replica) {
                self.returned.retain(|replica| *replica != seat.replica);
                seat.replica = *next_replica;
                self.joining.push(seat.replica);
                *next_replica += 1;
                self.founders.clone_from(&founders);
                is_changed = true;
            }
        }
        self.drop_asides();
        is_changed
    }

    /// Whether a seated replica may not vote yet, or no more.
    pub fn is_unproven(&self, replica: u64) -> bool {
        self.joining.contains(&replica) || self.returned.contains(&replica)
    }

    /// The nodes of its seats, and who is preferred to lead.
    pub fn placed(&self) -> Seats {
        let mut replicas: Vec<NodeId> = self.seats.iter().map(|seat| seat.node.clone()).collect();
        replicas.sort_unstable();
        Seats { replicas, leader: self.leader.clone() }
    }

    /// Whether its members are those that its seats want, as far as the map knows: then the next of them may change.
    pub fn is_settled(&self) -> bool {
        self.leaving.is_empty()
            && self.joining.is_empty()
            && self.returned.is_empty()
            && !self.is_recovering()
    }

    /// Whether replicas stand aside, or the group is starting anew.
    pub fn is_recovering(&self) -> bool {
        !self.asides.is_empty()
            || self.loss_accepted_ms.is_some()
            || self.recovery.as_ref().is_some_and(|recovery| recovery.is_awaited)
    }

    /// The replica on `node`, if there is one.
    pub fn replica_on(&self, node: &NodeId) -> Option<u64> {
        self.seats.iter().find(|s| s.node == *node).map(|s| s.replica)
    }

    /// The node of a replica.
    pub fn node_of(&self, replica: u64) -> Option<&NodeId> {
        self.peers().find(|s| s.replica == replica).map(|s| &s.node)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

mod hex {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(id: &u128, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&format!("{id:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u128, D::Error> {
        let text = String::deserialize(d)?;
        u128::from_str_radix(&text, 16).map_err(|_| D::Error::custom("an id is 32 hexadecimal digits"))
    }
}
