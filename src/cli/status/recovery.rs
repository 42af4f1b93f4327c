//! Groups that started anew, and replicas that stand aside: pure.

use ringfort_ring::NodeId;
use ringfort_wire::map::MapGroup;
use serde::Serialize;

use crate::meta::partitions_named;
use crate::meta::recover::unheard;

/// How a partition came to start anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Recovery {
    pub(in crate::cli) partition: u16,
    /// When, ms since 1970.
    pub(in crate::cli) at_ms: u64,
    pub(in crate::cli) incarnation: u32,
    /// The node whose replica held the most; `None`: nothing was left, and the partition began empty.
    pub(in crate::cli) from: Option<NodeId>,
    /// How many replicas had said where their logs end, how many of those may lack their last second, and how many there
    /// were.
    pub(in crate::cli) heard: u16,
    pub(in crate::cli) suspects: u16,
    pub(in crate::cli) replicas: u16,
    /// Whether an operator accepted the loss.
    pub(in crate::cli) is_loss_accepted: bool,
}

/// A partition of which replicas stand aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Waiting {
    pub(in crate::cli) partition: u16,
    /// Where they are.
    pub(in crate::cli) aside: Vec<NodeId>,
    /// The nodes whose replicas have not said where their logs end; when there is a leader nobody waits for them.
    pub(in crate::cli) unheard: Vec<NodeId>,
}

/// The last recovery of each partition that had one.
pub(in crate::cli) fn recoveries(groups: &[MapGroup]) -> Vec<Recovery> {
    let of = |(partition, group): (u16, &MapGroup)| {
        let recovery = group.recovery.as_ref()?;
        Some(Recovery {
            partition,
            at_ms: recovery.at_ms,
            incarnation: group.incarnation,
            from: recovery.from.as_ref().map(|seat| seat.node.clone()),
            heard: recovery.heard,
            suspects: recovery.suspects,
            replicas: recovery.replicas,
            is_loss_accepted: recovery.is_loss_accepted,
        })
    };
    (0..).zip(groups).filter_map(of).collect()
}

/// The partitions of which replicas stand aside.
pub(in crate::cli) fn waiting(groups: &[MapGroup]) -> Vec<Waiting> {
    let all = (0..).zip(groups).filter(|(_, group)| !group.asides.is_empty());
    all.map(|(partition, group)| Waiting {
        partition,
        aside: group.asides.iter().filter_map(|aside| group.node_of(aside.replica)).cloned().collect(),
        unheard: unheard(group).map(|seat| seat.node.clone()).collect(),
    })
    .collect()
}

/// A sentence for those that wait alike.
pub(in crate::cli) fn problems(waiting: &[Waiting]) -> Vec<String> {
    let names = |nodes: &[NodeId]| nodes.iter().map(|id| id.0.as_str()).collect::<Vec<_>>().join(", ");
    alike(
        waiting,
        |w| (names(&w.aside), names(&w.unheard)),
        |w| w.partition,
        |(aside, unheard), partitions| {
            let wait = if unheard.is_empty() { String::new() } else { format!(" and wait for {unheard}") };
            format!(
                "replicas on {aside} stand aside, as their machines stopped unplanned,{wait}: {partitions}"
            )
            .replace(",:", ":")
        },
    )
}

/// A sentence for those that started anew alike, at most so many ms apart.
pub(in crate::cli) fn sentences(recoveries: &[Recovery], now_ms: u64) -> Vec<String> {
    let key = |r: &Recovery| {
        let from = r.from.as_ref().map(|id| id.0.clone());
        (ago(now_ms.saturating_sub(r.at_ms)), from, r.heard, r.replicas, r.is_loss_accepted)
    };
    alike(
        recoveries,
        key,
        |r| r.partition,
        |(ago, from, heard, replicas, is_loss_accepted), partitions| {
            let lost = match (from, is_loss_accepted) {
                (None, _) => "with nothing: all that they held is lost".to_owned(),
                (Some(node), true) => format!("with what {node} held: what only lost replicas held is gone"),
                (Some(node), false) => {
                    format!("with what {node} held: up to a second of writes before it may be gone")
                }
            };
            format!("{partitions} started anew {ago} ago {lost} ({heard} of {replicas} replicas heard)")
        },
    )
}

/// One sentence for all items of the same key, in the order of their first ones.
fn alike<T, K: PartialEq>(
    items: &[T],
    key: impl Fn(&T) -> K,
    partition: impl Fn(&T) -> u16,
    sentence: impl Fn(&K, &str) -> String,
) -> Vec<String> {
    let mut kinds: Vec<(K, Vec<u16>)> = Vec::new();
    for item in items {
        let of = key(item);
        match kinds.iter_mut().find(|(kind, _)| *kind == of) {
            Some((_, partitions)) => partitions.push(partition(item)),
            None => kinds.push((of, vec![partition(item)])),
        }
    }
    kinds.iter().map(|(kind, partitions)| sentence(kind, &partitions_named(partitions))).collect()
}

/// `40 s`, `5 min`, `7 h`, `3 days`.
fn ago(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..120 => format!("{s} s"),
        120..7_200 => format!("{} min", s / 60),
        7_200..172_800 => format!("{} h", s / 3_600),
        _ => format!("{} days", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::form::tests::sample_map;
    use crate::meta::recover::{aside, asides};
    use ringfort_wire::Aside;

    #[test]
    fn what_waits_and_what_started_anew_is_said_once_for_all_alike() {
        let mut map = sample_map();
        let stand_aside = |map: &mut ringfort_wire::ClusterMap, partition: u16, node: &str, is_suspect| {
            let group = &map.groups[usize::from(partition)];
            let replica = group.replica_on(&NodeId(node.into())).unwrap();
            let said = Aside {
                group: partition + 1,
                incarnation: group.incarnation,
                aside: aside(replica, is_suspect, (1, if node == "n2" { 9 } else { 8 })),
            };
            asides(map, &[said], 1_000);
        };
        for partition in 0..3 {
            stand_aside(&mut map, partition, "n1", true);
            stand_aside(&mut map, partition, "n2", true);
        }
        assert_eq!(
            problems(&waiting(&map.groups)),
            [
                "replicas on n1, n2 stand aside, as their machines stopped unplanned, and wait for n3: partitions 0-2"
            ]
        );
        for partition in 0..3 {
            stand_aside(&mut map, partition, "n3", false);
        }
        assert!(waiting(&map.groups).is_empty());
        let recoveries = recoveries(&map.groups);
        assert_eq!((recoveries.len(), recoveries[2].incarnation, recoveries[2].suspects), (3, 2, 2));
        assert_eq!(
            sentences(&recoveries, 241_000),
            [
                "partitions 0-2 started anew 4 min ago with what n2 held: up to a second of writes before it may be gone \
              (3 of 3 replicas heard)"
            ]
        );
    }
}
