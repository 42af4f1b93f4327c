//! The virtual-node hash ring: partition -> order of preference over the nodes.
//!
//! The ring does not own anything: the stored placement is the authority. It answers one question only, which node a
//! partition would rather be on, and answers it the same everywhere, whatever else has changed: a node's tokens depend on
//! its id and weight alone (consistent hashing, Karger et al. 1997).

use twox_hash::XxHash3_64;

use crate::{NodeSpec, PartitionCount, PartitionId};

/// Tokens of a node per unit of weight.
pub const TOKENS_PER_WEIGHT: u32 = 64;

/// Largest weight of a node: 256 x 64 tokens, as many as there are slots. More would cost memory, not balance.
pub const WEIGHT_MAX: u32 = 256;

/// Seed of the token hash: the ASCII letters `ringfort`, big endian. Part of the format: another seed is another ring.
const TOKEN_SEED: u64 = u64::from_be_bytes(*b"ringfort");

/// The 64-bit circle with `weight x 64` preference tokens (xxh3) of each node.
///
/// Token `k` of a node (`0 <= k < weight x 64`) stands at `XXH3_64(seed = "ringfort", id bytes || k as u32 little
/// endian)`. Two tokens at one position are ordered by node id.
///
/// # Invariants
/// Tokens ascend; a node of weight 0 has none.
#[derive(Debug, Clone)]
pub struct HashRing {
    /// Position on the circle and index into the nodes given to [`HashRing::new`].
    tokens: Vec<(u64, usize)>,
    /// Nodes that have a token.
    members: usize,
    /// All nodes, with or without tokens.
    nodes: usize,
}

impl HashRing {
    /// Places the tokens of `nodes`; a weight above [`WEIGHT_MAX`] counts as [`WEIGHT_MAX`].
    pub fn new(nodes: &[NodeSpec]) -> Self {
        let mut tokens = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let count = node.weight.min(WEIGHT_MAX) * TOKENS_PER_WEIGHT;
            tokens.extend((0..count).map(|k| (token(node, k), index)));
        }
        tokens.sort_unstable_by_key(|(position, index)| (*position, &nodes[*index].id));
        let members = nodes.iter().filter(|node| node.weight > 0).count();
        Self { tokens, members, nodes: nodes.len() }
    }

    /// Indices into `nodes`, most preferred first: clockwise from the partition's position (p x 2^64 / P), each node once.
    ///
    /// A token exactly at the position counts as the first one clockwise. Nodes of weight 0 do not appear.
    pub fn preference(&self, partitions: PartitionCount, partition: PartitionId) -> Vec<usize> {
        let position = u64::from(partition.0).wrapping_mul(arc(partitions));
        let start = self.tokens.partition_point(|(token, _)| *token < position);
        let (before, after) = self.tokens.split_at(start);
        let mut seen = vec![false; self.nodes];
        let mut order = Vec::with_capacity(self.members);
        for (_, node) in after.iter().chain(before) {
            if order.len() == self.members {
                break;
            }
            if !std::mem::replace(&mut seen[*node], true) {
                order.push(*node);
            }
        }
        order
    }
}

/// 2^64 / P: exact, because P is a power of two from 16 on.
fn arc(partitions: PartitionCount) -> u64 {
    1 << (u64::BITS - partitions.get().trailing_zeros())
}

fn token(node: &NodeSpec, k: u32) -> u64 {
    let mut input = Vec::with_capacity(node.id.0.len() + size_of::<u32>());
    input.extend_from_slice(node.id.0.as_bytes());
    input.extend_from_slice(&k.to_le_bytes());
    XxHash3_64::oneshot_with_seed(TOKEN_SEED, &input)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;

    fn node(id: &str, weight: u32) -> NodeSpec {
        NodeSpec { id: NodeId(id.to_owned()), weight, zone: "a".to_owned() }
    }

    fn partitions(count: u16) -> PartitionCount {
        PartitionCount::new(count).expect("a power of two from 16 to 1024")
    }

    fn names(nodes: &[NodeSpec], order: &[usize]) -> Vec<String> {
        order.iter().map(|index| nodes[*index].id.0.clone()).collect()
    }

    #[test]
    fn prefers_each_node_with_a_weight_once() {
        let nodes = [node("n1", 1), node("n2", 3), node("n3", 0), node("n4", 2)];
        let ring = HashRing::new(&nodes);
        assert_eq!(ring.tokens.len(), 6 * 64);
        for partition in partitions(64).iter() {
            let mut order = ring.preference(partitions(64), partition);
            order.sort_unstable();
            assert_eq!(order, [0, 1, 3]);
        }
    }

    #[test]
    fn starts_at_the_first_token_clockwise_of_the_position() {
        let nodes = [node("n1", 1), node("n2", 1), node("n3", 1)];
        let ring = HashRing::new(&nodes);
        let count = partitions(16);
        for partition in count.iter() {
            let position = u64::from(partition.0) << 60;
            let first =
                ring.tokens.iter().find(|(token, _)| *token >= position).or_else(|| ring.tokens.first());
            assert_eq!(ring.preference(count, partition).first(), first.map(|(_, node)| node));
        }
    }

    #[test]
    fn removing_a_node_keeps_the_order_of_the_others() {
        let nodes = [node("n1", 1), node("n2", 2), node("n3", 1), node("n4", 1)];
        let left = [nodes[3].clone(), nodes[0].clone(), nodes[1].clone()];
        let (ring, smaller) = (HashRing::new(&nodes), HashRing::new(&left));
        let count = partitions(256);
        for partition in count.iter() {
            let mut order = names(&nodes, &ring.preference(count, partition));
            order.retain(|name| name != "n3");
            assert_eq!(order, names(&left, &smaller.preference(count, partition)));
        }
    }

    #[test]
    fn first_choices_follow_the_weights_roughly() {
        let nodes = [node("light", 1), node("heavy", 3)];
        let ring = HashRing::new(&nodes);
        let count = partitions(1024);
        let heavy = count.iter().filter(|p| ring.preference(count, *p)[0] == 1).count();
        assert!((640..900).contains(&heavy), "{heavy} of 1024 prefer the node of weight 3 of 4");
    }

    #[test]
    fn token_positions_are_part_of_the_format() {
        assert_eq!(token(&node("n1", 1), 0), 13_298_725_923_446_221_010);
    }

    #[test]
    fn a_weight_beyond_the_limit_costs_bounded_memory() {
        assert_eq!(HashRing::new(&[node("n1", u32::MAX)]).tokens.len(), 16384);
    }
}
