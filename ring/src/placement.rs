//! Exact, stateful placement with the fewest moves.
//!
//! What [`place`] promises, an earlier rule before a later one:
//! 1. The replicas of a partition are on distinct nodes; R = min(replicas, nodes with a weight).
//! 2. Every node holds the floor or the ceiling of its share of the P x R replicas by weight. No share exceeds P, for a node
//!    holds at most one replica of a partition: what is above goes to the others, by weight again (water-filling).
//! 3. As few pairs of replicas of a partition as possible share a zone. None does where R zones or more exist and no
//!    zone's shares add up to more than P.
//! 4. As few replicas move as possible. That is more than the bound of [`minimum_moves`] only when zones force it (after a
//!    change of zones, or of what they hold), or a node whose share is nearly P: it must come into partitions in which no seat
//!    is free.
//! 5. The seats left over when shares are rounded down go to the largest remainders.
//! 6. Partitions get the nodes that come first clockwise on the ring.
//!
//! Leaders then: every node leads the floor or the ceiling of its share of the P partitions by weight; among
//! such, the fewest leaders change. (Where rule 2 had to cap a share, rounding may make an exact split of leaders impossible;
//! then the nearest one is taken.)
//!
//! Why it must know the previous placement: a function of the set of nodes alone that never moves a partition between
//! two survivors chooses by one fixed order of all nodes for each partition, so it is a rendezvous hash in disguise, and its
//! balance is that of random throws. Exact balance with the fewest moves needs memory.
//!
//! One change may move several replicas of one partition; whoever carries it out does them one after the other.

use std::collections::BTreeMap;

use crate::flow::{Candidate, Problem, Share};
use crate::ring::WEIGHT_MAX;
use crate::{HashRing, NodeId, PartitionCount};

/// Most nodes of a cluster: the placement costs O(P x R x nodes^2), and fewer than 4 partitions a node balance nothing.
pub const NODES_MAX: usize = 256;

/// A node as the placement sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its id.
    pub id: NodeId,
    /// Its share of replicas and leaders, relative to the others; 0 = drained, holds nothing.
    pub weight: u32,
    /// Its failure domain.
    pub zone: String,
}

/// The nodes of one partition.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Seats {
    /// The nodes that hold a replica, distinct, ordered by id.
    pub replicas: Vec<NodeId>,
    /// The one of them that leads when it can.
    pub leader: NodeId,
}

/// Partition -> its nodes; index = partition id.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Placement {
    /// One entry a partition.
    pub partitions: Vec<Seats>,
}

impl Placement {
    /// Replicas of each node that holds any.
    pub fn replicas_per_node(&self) -> BTreeMap<&NodeId, usize> {
        count(self.partitions.iter().flat_map(|seats| &seats.replicas))
    }

    /// Partitions that each node leads, of those that lead any.
    pub fn leaders_per_node(&self) -> BTreeMap<&NodeId, usize> {
        count(self.partitions.iter().map(|seats| &seats.leader))
    }
}

fn count<'a>(ids: impl Iterator<Item = &'a NodeId>) -> BTreeMap<&'a NodeId, usize> {
    let mut counts = BTreeMap::new();
    for id in ids {
        *counts.entry(id).or_default() += 1;
    }
    counts
}

/// Why no placement exists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// No node has a weight above zero.
    #[error("no node has a weight above zero: give at least one node weight 1")]
    NoNodes,
    /// More than [`NODES_MAX`] nodes.
    #[error("{0} nodes are too many: a cluster has at most {NODES_MAX}")]
    TooManyNodes(usize),
    /// Two nodes share an id.
    #[error("node id '{0}' is used twice: ids are unique")]
    DuplicateNode(NodeId),
    /// A weight above [`WEIGHT_MAX`].
    #[error(
        "weight {weight} of node '{node}' is too large: the largest is {WEIGHT_MAX}, and only the ratio counts"
    )]
    WeightTooLarge {
        /// The node.
        node: NodeId,
        /// Its weight.
        weight: u32,
    },
    /// The previous placement is of another number of partitions.
    #[error("the previous placement has {previous} partitions, not {partitions}: the number never changes")]
    PartitionsDiffer {
        /// Partitions of the previous placement.
        previous: usize,
        /// Partitions asked for.
        partitions: u16,
    },
}

/// Computes the placement of `partitions` on `nodes` with `replicas` replicas each (fewer when there are fewer nodes; 0
/// counts as 1).
///
/// Deterministic: the order of `nodes` does not matter. What it promises is at the head of this module.
///
/// # Errors
/// Any [`PlaceError`]: the nodes or the previous placement are not valid input; nothing else can fail.
pub fn place(
    previous: Option<&Placement>,
    nodes: &[NodeSpec],
    partitions: PartitionCount,
    replicas: u16,
) -> Result<Placement, PlaceError> {
    let input = Input::check(previous, nodes, partitions, replicas)?;
    let ranks = input.ranks();
    let seats = input.replicas(&ranks).solve();
    let leaders = input.leaders(&ranks, &seats).solve();
    let id = |node: &usize| input.nodes[*node].id.clone();
    let partition = |(seats, leader): (&Vec<usize>, &Vec<usize>)| Seats {
        replicas: seats.iter().map(id).collect(),
        leader: id(&leader[0]),
    };
    Ok(Placement { partitions: seats.iter().zip(&leaders).map(partition).collect() })
}

/// Replicas that each node should hold: its share by weight, largest remainders rounded up, nodes that already hold more
/// than the rounded-down share first, since that saves a move. Drained nodes have 0.
///
/// [`place`] may round up another node where zones or moves ask for it; floor and ceiling are the same.
///
/// # Errors
/// As [`place`].
pub fn shares(
    previous: Option<&Placement>,
    nodes: &[NodeSpec],
    partitions: PartitionCount,
    replicas: u16,
) -> Result<BTreeMap<NodeId, usize>, PlaceError> {
    let input = Input::check(previous, nodes, partitions, replicas)?;
    let mut shares: BTreeMap<_, _> = nodes.iter().map(|node| (node.id.clone(), 0)).collect();
    for (node, share) in input.nodes.iter().zip(input.rounded_shares()) {
        shares.insert(node.id.clone(), share);
    }
    Ok(shares)
}

/// The fewest replicas that any placement with fair shares can move: the seats above the shares plus the orphaned seats,
/// that is, what the nodes have to receive to reach their shares.
///
/// A bound by counting; [`place`] meets it unless zones, or a node whose share is nearly all partitions, force more.
///
/// # Errors
/// As [`place`].
pub fn minimum_moves(
    previous: &Placement,
    nodes: &[NodeSpec],
    partitions: PartitionCount,
    replicas: u16,
) -> Result<usize, PlaceError> {
    let input = Input::check(Some(previous), nodes, partitions, replicas)?;
    Ok(input.rounded_shares().iter().zip(input.held()).map(|(share, held)| share.saturating_sub(held)).sum())
}

/// Checked input.
struct Input<'a> {
    /// The nodes with a weight, ordered by id.
    nodes: Vec<&'a NodeSpec>,
    partitions: PartitionCount,
    replicas: usize,
    /// What is left of the previous placement, one entry a partition.
    previous: Vec<Living>,
}

impl<'a> Input<'a> {
    fn check(
        previous: Option<&Placement>,
        nodes: &'a [NodeSpec],
        partitions: PartitionCount,
        replicas: u16,
    ) -> Result<Self, PlaceError> {
        if nodes.len() > NODES_MAX {
            return Err(PlaceError::TooManyNodes(nodes.len()));
        }
        let mut sorted: Vec<&NodeSpec> = nodes.iter().collect();
        sorted.sort_by_key(|node| &node.id);
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(PlaceError::DuplicateNode(pair[0].id.clone()));
        }
        if let Some(node) = sorted.iter().find(|node| node.weight > WEIGHT_MAX) {
            return Err(PlaceError::WeightTooLarge { node: node.id.clone(), weight: node.weight });
        }
        sorted.retain(|node| node.weight > 0);
        if sorted.is_empty() {
            return Err(PlaceError::NoNodes);
        }
        let count = usize::from(partitions.get());
        let previous = match previous {
            None => vec![Living::default(); count],
            Some(previous) if previous.partitions.len() == count => living(previous, &sorted),
            Some(previous) => {
                let previous = previous.partitions.len();
                return Err(PlaceError::PartitionsDiffer { previous, partitions: partitions.get() });
            }
        };
        let replicas = usize::from(replicas).clamp(1, sorted.len());
        Ok(Self { nodes: sorted, partitions, replicas, previous })
    }

    /// `[partition][node]`: rank of the node in the preference of the partition.
    fn ranks(&self) -> Vec<Vec<usize>> {
        let nodes: Vec<NodeSpec> = self.nodes.iter().map(|node| (*node).clone()).collect();
        let ring = HashRing::new(&nodes);
        let of = |partition| {
            let mut ranks = vec![0; nodes.len()];
            for (rank, node) in ring.preference(self.partitions, partition).into_iter().enumerate() {
                ranks[node] = rank;
            }
            ranks
        };
        self.partitions.iter().map(of).collect()
    }

    fn replicas(&self, ranks: &[Vec<usize>]) -> Problem {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        let rows = ranks.iter().zip(&self.previous);
        Problem {
            seats_each: self.replicas,
            zones: self.zones(),
            shares: self.replica_shares(),
            candidates: rows.map(|(ranks, now)| candidates(ranks, &all, &now.replicas)).collect(),
        }
    }

    fn leaders(&self, ranks: &[Vec<usize>], seats: &[Vec<usize>]) -> Problem {
        let count = usize::from(self.partitions.get());
        let rows = ranks.iter().zip(seats).zip(&self.previous);
        Problem {
            seats_each: 1,
            zones: vec![0; self.nodes.len()],
            shares: split(count, &self.weights(), count),
            candidates: rows
                .map(|((ranks, seats), now)| candidates(ranks, seats, now.leader.as_slice()))
                .collect(),
        }
    }

    fn weights(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.weight).collect()
    }

    /// Zone of each node, as its index among the zones in order of their names.
    fn zones(&self) -> Vec<usize> {
        let mut names: Vec<&str> = self.nodes.iter().map(|node| node.zone.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        self.nodes.iter().map(|node| names.partition_point(|name| *name < node.zone.as_str())).collect()
    }

    fn replica_shares(&self) -> Vec<Share> {
        let count = usize::from(self.partitions.get());
        split(count * self.replicas, &self.weights(), count)
    }

    /// Replicas that each node holds now.
    fn held(&self) -> Vec<usize> {
        let mut held = vec![0; self.nodes.len()];
        for node in self.previous.iter().flat_map(|now| &now.replicas) {
            held[*node] += 1;
        }
        held
    }

    fn rounded_shares(&self) -> Vec<usize> {
        let shares = self.replica_shares();
        let total = usize::from(self.partitions.get()) * self.replicas;
        let left = total - shares.iter().map(|share| share.floor).sum::<usize>();
        let mut claims: Vec<_> = shares
            .iter()
            .zip(self.held())
            .enumerate()
            .filter_map(|(node, (share, held))| Some((held <= share.floor, share.odd?, node)))
            .collect();
        claims.sort_unstable();
        let mut rounded: Vec<usize> = shares.iter().map(|share| share.floor).collect();
        for (_, _, node) in claims.into_iter().take(left) {
            rounded[node] += 1;
        }
        rounded
    }
}

/// The nodes of a partition that are still there, as indices.
#[derive(Debug, Clone, Default)]
struct Living {
    /// Distinct, ascending.
    replicas: Vec<usize>,
    leader: Option<usize>,
}

fn living(previous: &Placement, nodes: &[&NodeSpec]) -> Vec<Living> {
    let index = |id: &NodeId| nodes.binary_search_by_key(&id, |node| &node.id).ok();
    let living = |seats: &Seats| {
        let mut replicas: Vec<usize> = seats.replicas.iter().filter_map(index).collect();
        replicas.sort_unstable();
        replicas.dedup();
        Living { replicas, leader: index(&seats.leader) }
    };
    previous.partitions.iter().map(living).collect()
}

/// One row of a [`Problem`]: the nodes of `allowed` may have a seat of the partition, those of `held` have one now.
fn candidates(ranks: &[usize], allowed: &[usize], held: &[usize]) -> Vec<Option<Candidate>> {
    let mut row = vec![None; ranks.len()];
    for node in allowed {
        row[*node] = Some(Candidate { held: held.contains(node), rank: ranks[*node] });
    }
    row
}

/// Splits `total` seats by weight, none to get more than `cap`: what is above the cap goes to the others, by weight.
///
/// Needs `total <= cap x weights.len()` and no zero weight.
fn split(total: usize, weights: &[u32], cap: usize) -> Vec<Share> {
    let mut full = vec![false; weights.len()];
    let (seats, sum) = loop {
        let open = || (0..weights.len()).filter(|node| !full[*node]);
        let sum: usize = open().map(|node| weights[node] as usize).sum();
        let seats = total - cap * (weights.len() - open().count());
        let above: Vec<usize> = open().filter(|node| seats * weights[*node] as usize >= cap * sum).collect();
        if above.is_empty() {
            break (seats, sum);
        }
        for node in above {
            full[node] = true;
        }
    };
    let mut shares = vec![Share { floor: cap, odd: None }; weights.len()];
    let mut remainders = Vec::new();
    for (node, share) in shares.iter_mut().enumerate().filter(|(node, _)| !full[*node]) {
        let exact = seats * weights[node] as usize;
        share.floor = exact / sum;
        if !exact.is_multiple_of(sum) {
            remainders.push((std::cmp::Reverse(exact % sum), node));
        }
    }
    remainders.sort_unstable();
    for (order, (_, node)) in remainders.into_iter().enumerate() {
        shares[node].odd = Some(order);
    }
    shares
}
