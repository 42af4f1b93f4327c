//! Maps for tests.

use ringfort_ring::{NodeId, PartitionCount};
use ringfort_wire::ClusterMap;
use ringfort_wire::map::{MapGroup, MapNode, MapSeat};

/// Nodes n1 to n`nodes`, each partition on three of them (or all), the preferred leaders taking turns.
pub(crate) fn map(nodes: u16, partitions: u16) -> ClusterMap {
    let id = |i: u16| NodeId(format!("n{}", i % nodes + 1));
    let group = |p: u16| {
        let mut seats: Vec<_> = (0..nodes.min(3))
            .map(|i| MapSeat { node: id(p + i), replica: u64::from(p * 8 + i + 1) })
            .collect();
        seats.sort_by(|a, b| a.node.cmp(&b.node));
        MapGroup::new(seats, id(p))
    };
    ClusterMap {
        cluster_id: 7,
        name: "test".to_owned(),
        epoch: 1,
        partitions: PartitionCount::new(partitions).expect("a test asks for a valid count"),
        replicas: nodes.min(3),
        fsync: false,
        nodes: (0..nodes)
            .map(|i| MapNode {
                id: id(i),
                client: format!("127.0.0.1:{}", 7001 + i),
                tls_client: None,
                peer: format!("127.0.0.1:{}", 7101 + i),
                weight: 1,
                zone: String::new(),
                store_id: u128::from(i) + 1,
                is_leaving: false,
                is_drained: false,
                is_down: false,
            })
            .collect(),
        meta: group(0),
        groups: (0..partitions).map(group).collect(),
        next_replica: 10_000,
        feature_level: 1,
        settings: Default::default(),
        moving: Default::default(),
        former_nodes: Default::default(),
        planned_epoch: 1,
        change: None,
    }
}

/// Splitmix64, seeded.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
