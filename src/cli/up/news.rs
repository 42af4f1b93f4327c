//! What became of replicas and data folders since the start, one line for each: pure.

use std::collections::{BTreeMap, BTreeSet};

use ringfort_ring::NodeId;
use ringfort_wire::ClusterMap;

use crate::cli::status::recovery::{self, Recovery, Waiting};

/// What has been told already.
#[derive(Debug, Default)]
pub(super) struct News {
    /// The data folder of each node that the cluster knew last; 0: it had not joined.
    folders: BTreeMap<NodeId, u128>,
    /// When this program started, ms since 1970.
    since_ms: u64,
    /// Partitions and their incarnations.
    recovered: BTreeSet<(u16, u32)>,
    waiting: Vec<Waiting>,
}

impl News {
    /// From now on; `map` is the newest that the data folders hold.
    pub(super) fn new(map: Option<&ClusterMap>, since_ms: u64) -> Self {
        Self { folders: map.map(folders).unwrap_or_default(), since_ms, ..Self::default() }
    }

    /// A sentence for each thing that is new in a newer map.
    pub(super) fn sentences(&mut self, map: &ClusterMap, now_ms: u64) -> Vec<String> {
        let mut told = Vec::new();
        let folders = folders(map);
        for (node, store_id) in &folders {
            if self.folders.get(node).is_some_and(|known| ![0, *store_id].contains(known)) {
                told.push(format!(
                    "{node} came with another data folder, as its own was lost or set aside: it is seeded from the others, and \
                     nothing is lost unless `ringfort status` says so"
                ));
            }
        }
        self.folders = folders;
        let waiting = recovery::waiting(&map.groups);
        if waiting != self.waiting {
            told.extend(recovery::problems(&waiting));
            self.waiting = waiting;
        }
        let mut news: Vec<Recovery> = recovery::recoveries(&map.groups);
        news.retain(|recovery| {
            self.since_ms <= recovery.at_ms
                && self.recovered.insert((recovery.partition, recovery.incarnation))
        });
        told.extend(recovery::sentences(&news, now_ms));
        told
    }
}

fn folders(map: &ClusterMap) -> BTreeMap<NodeId, u128> {
    map.nodes.iter().map(|node| (node.id.clone(), node.store_id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::form::tests::sample_map;
    use crate::meta::recover::{aside, asides};
    use ringfort_wire::Aside;

    #[test]
    fn each_thing_is_told_once_and_nothing_from_before_the_start() {
        let mut map = sample_map();
        let mut news = News::new(Some(&map), 1_000);
        assert!(news.sentences(&map, 2_000).is_empty());
        map.nodes[2].store_id = 99;
        let told = news.sentences(&map, 2_000);
        assert!(told.len() == 1 && told[0].starts_with("n3 came with another data folder"), "{told:?}");
        let seats = map.groups[0].seats.clone();
        let incarnation = map.groups[0].incarnation;
        for (number, seat) in seats.iter().enumerate() {
            let said = Aside { group: 1, incarnation, aside: aside(seat.replica, true, (1, 9)) };
            asides(&mut map, &[said], 1_500);
            let told = news.sentences(&map, 2_500);
            assert_eq!(told.len(), 1, "{told:?}");
            let wanted =
                if number < 2 { "stand aside" } else { "up to a second of writes before it may be gone" };
            assert!(told[0].contains(wanted), "{told:?}");
            assert!(news.sentences(&map, 3_000).is_empty());
        }
        // Who starts later is told nothing of it.
        assert!(News::new(Some(&map), 2_000).sentences(&map, 3_000).is_empty());
    }
}
