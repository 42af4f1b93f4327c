//! How a group starts anew when a majority of its replicas cannot be trusted.
//!
//! In `buffered` a machine that stops unplanned loses what it had not synced, up to a second of it. Its replicas have
//! acknowledged what they may not hold any more, and must not vote or acknowledge again: they are **suspect** and stand
//! aside, for good. What follows is the map's to say:
//!
//! ```text
//! few are suspect:    the others have a leader, which sees them in the map -- Reseat -->  each seat goes to a new
//!                     replica, which is seeded as one whose folder was lost ([`super::replace`])
//! too many are:       replicas without a leader stand aside as well (their logs are whole); when all have said where
//!                     their logs end - or, after a minute, a majority of them - the one whose log ends last goes on:
//!                     its node makes a snapshot of all it has, and founds the next incarnation alone with it; the
//!                     others are new replicas and are seeded from it
//! ```
//!
//! Standing aside is durable before it is said, and final for the replica id. So what was heard cannot change afterwards,
//! and of an incarnation whose end is decided no replica can acknowledge anything. The log that ends last - by term, then
//! index - holds everything that was committed and is left, as in an election.

use ringfort_wire::map::{MapAside, MapGroup, MapRecovery, MapSeat};
use ringfort_wire::{Aside, ClusterMap, GroupId};

/// Time after an operator's word in which replicas can say where their logs end, ms: twice what they need to stand aside.
pub const LOSS_ACCEPTED_MS: u64 = 15_000;

/// The index after which the log of an incarnation begins. No earlier incarnation reaches it, so that an index - and a
/// session's id, which is made of it - never means two things, even if the end of a history was lost.
pub const fn first_index(incarnation: u32) -> u64 {
    (incarnation.saturating_sub(1) as u64) << 40
}

/// Notes replicas that stand aside; groups of which all have been heard start anew.
pub fn asides(map: &mut ClusterMap, said: &[Aside], at_ms: u64) {
    for Aside { group: id, incarnation, aside } in said {
        // The meta group syncs everything first: its replicas are never suspect.
        let Some(partition) = GroupId(*id).partition() else { continue };
        let Some(group) = map.groups.get_mut(usize::from(partition.0)) else { continue };
        let is_news = group.counts(aside.replica) && group.aside(aside.replica).is_none();
        if group.incarnation != *incarnation || !is_news {
            continue;
        }
        group.asides.push(aside.clone());
        map.epoch += 1;
        let is_whole = group.counted().all(|seat| group.aside(seat.replica).is_some());
        if is_whole && group.lacks_majority() {
            refound(group, &mut map.next_replica, at_ms);
        }
    }
}

/// Gives the seats of replicas that stand aside to new ones, in groups that have a leader all the same.
pub fn reseat(map: &mut ClusterMap, replicas: &[(u16, u64)]) {
    for (id, replica) in replicas {
        let Some(partition) = GroupId(*id).partition() else { continue };
        let Some(group) = map.groups.get_mut(usize::from(partition.0)) else { continue };
        let seat = group.seats.iter().find(|seat| seat.replica == *replica);
        let Some(node) = seat.filter(|_| group.aside(*replica).is_some()).map(|seat| seat.node.clone())
        else {
            continue;
        };
        map.next_replica += u64::from(group.reseat(&node, map.next_replica));
        map.epoch += 1;
    }
}

/// Whether the group may start anew although some replicas were not heard in a minute: a majority was, and those that
/// were not are none, suspects or not. (While a replica is being replaced, who votes is not known well enough.)
pub fn is_majority_heard(group: &MapGroup) -> bool {
    let all = group.seats.len();
    let suspects = group.asides.iter().filter(|aside| aside.is_suspect).count();
    group.leaving.is_empty() && (all - suspects.min(all)) * 2 <= all && group.asides.len() * 2 > all
}

/// Starts a group anew: because a majority was heard in a minute, or because an operator accepts the loss.
///
/// # Errors
/// An error reply: it must not.
pub fn recover(
    map: &mut ClusterMap,
    id: u16,
    incarnation: u32,
    accept_loss: bool,
    at_ms: u64,
) -> Result<(), &'static [u8]> {
    let partition = GroupId(id).partition().ok_or(&b"-ERR the meta group is not recovered so\r\n"[..])?;
    let group = map.groups.get_mut(usize::from(partition.0)).ok_or(&b"-ERR no such partition\r\n"[..])?;
    if group.incarnation != incarnation {
        return Err(b"-ERR the partition has started anew meanwhile\r\n");
    }
    if !accept_loss {
        if !is_majority_heard(group) {
            return Err(b"-ERR too few replicas have said where their logs end\r\n");
        }
    } else if group.loss_accepted_ms.is_none_or(|since| at_ms < since.saturating_add(LOSS_ACCEPTED_MS)) {
        // Replicas that are left stand aside now and say where their logs end; then it is asked again.
        if group.loss_accepted_ms.is_none() {
            group.loss_accepted_ms = Some(at_ms);
            map.epoch += 1;
        }
        return Ok(());
    }
    refound(group, &mut map.next_replica, at_ms);
    map.epoch += 1;
    Ok(())
}

fn refound(group: &mut MapGroup, next_replica: &mut u64, at_ms: u64) {
    let best = group.asides.iter().max_by_key(|aside| (aside.term, aside.index, !aside.is_suspect));
    let from = best.and_then(|best| group.counted().find(|seat| seat.replica == best.replica)).cloned();
    let suspects = group.asides.iter().filter(|aside| aside.is_suspect).count();
    let recovery = MapRecovery {
        at_ms,
        heard: group.asides.len() as u16,
        suspects: suspects as u16,
        replicas: group.counted().count() as u16,
        is_loss_accepted: group.loss_accepted_ms.is_some(),
        is_awaited: true,
        from,
    };
    let seats = group.seats.iter().map(|seat| {
        let replica = *next_replica;
        *next_replica += 1;
        MapSeat { node: seat.node.clone(), replica }
    });
    let mut seats: Vec<MapSeat> = seats.collect();
    // The state may be on a node that was about to give its seat up.
    if let Some(from) = &recovery.from
        && !seats.iter().any(|seat| seat.node == from.node)
    {
        seats.push(MapSeat { node: from.node.clone(), replica: *next_replica });
        *next_replica += 1;
        seats.sort_by(|a, b| a.node.cmp(&b.node));
    }
    group.refound(seats, recovery);
}

/// The group has begun in its incarnation.
pub fn begun(group: &mut MapGroup) -> bool {
    group.recovery.as_mut().is_some_and(|recovery| core::mem::take(&mut recovery.is_awaited))
}

/// The replicas of a group that have not said yet where their logs end.
pub fn unheard(group: &MapGroup) -> impl Iterator<Item = &MapSeat> {
    group.counted().filter(|seat| group.aside(seat.replica).is_none())
}

/// Where a replica's log ends, as it is said.
pub fn aside(replica: u64, is_suspect: bool, (term, index): (u64, u64)) -> MapAside {
    MapAside { replica, is_suspect, term, index }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::form::tests::sample_map;

    /// Partition 2 of the sample has three seats.
    const GROUP: u16 = 3;

    fn group(map: &ClusterMap) -> &MapGroup {
        &map.groups[2]
    }

    fn stand_aside(map: &mut ClusterMap, seat: usize, is_suspect: bool, end: (u64, u64)) {
        let MapGroup { incarnation, seats, .. } = group(map);
        let said = Aside {
            group: GROUP,
            incarnation: *incarnation,
            aside: aside(seats[seat].replica, is_suspect, end),
        };
        asides(map, &[said], 77);
    }

    fn replicas(map: &ClusterMap) -> Vec<u64> {
        group(map).seats.iter().map(|seat| seat.replica).collect()
    }

    #[test]
    fn one_suspect_waits_for_the_leader_of_the_others() {
        let mut map = sample_map();
        let before = map.clone();
        stand_aside(&mut map, 1, true, (3, 9));
        assert_eq!((group(&map).asides.len(), map.epoch), (1, before.epoch + 1));
        assert!(!group(&map).lacks_majority());
        let once = map.clone();
        stand_aside(&mut map, 1, true, (3, 9));
        assert_eq!(map, once, "said again");
        let old = replicas(&map)[1];
        reseat(&mut map, &[(GROUP, replicas(&before)[0]), (0, 1), (9999, 1)]);
        assert_eq!(map, once, "who takes part keeps its seat");
        reseat(&mut map, &[(GROUP, old)]);
        assert_eq!(replicas(&map)[1], before.next_replica);
        assert_eq!(group(&map).leaving[0].replica, old);
        assert!(group(&map).asides.is_empty() && group(&map).incarnation == 1);
        let done = map.clone();
        reseat(&mut map, &[(GROUP, old)]);
        stand_aside(&mut map, 1, true, (3, 9));
        map.groups[2].asides.clear();
        map.epoch = done.epoch;
        assert_eq!(map, done, "an old replica is nobody any more");
    }

    #[test]
    fn when_all_were_heard_the_log_that_ends_last_goes_on() {
        let mut map = sample_map();
        let before = map.clone();
        stand_aside(&mut map, 0, true, (3, 9));
        stand_aside(&mut map, 2, true, (4, 5));
        assert!(group(&map).lacks_majority() && group(&map).incarnation == 1, "one may still have more");
        stand_aside(&mut map, 1, false, (4, 4));
        let after = group(&map);
        assert_eq!((after.incarnation, map.next_replica), (2, before.next_replica + 3));
        let recovery = after.recovery.as_ref().unwrap();
        assert_eq!(recovery.from.as_ref(), Some(&group(&before).seats[2]));
        assert_eq!((recovery.heard, recovery.suspects, recovery.replicas, recovery.at_ms), (3, 2, 3, 77));
        assert_eq!(after.founders(), [after.seats[2].replica]);
        assert!(after.seats.iter().all(|seat| seat.replica >= before.next_replica));
        assert!(after.asides.is_empty() && after.leaving.is_empty());
        assert!(after.is_heir_of(group(&before).seats[2].replica, 1));
        assert!(!after.is_heir_of(group(&before).seats[2].replica, 2) && !after.is_heir_of(1, 1));
        let done = map.clone();
        let late = Aside { group: GROUP, incarnation: 1, aside: aside(replicas(&before)[0], true, (9, 9)) };
        asides(&mut map, &[late], 99);
        assert_eq!(map, done, "said too late");
    }

    #[test]
    fn healthy_replicas_that_are_a_majority_are_waited_for() {
        let mut map = sample_map();
        stand_aside(&mut map, 0, true, (3, 9));
        stand_aside(&mut map, 1, false, (3, 9));
        assert!(!is_majority_heard(group(&map)), "the third may hold what the first forgot");
        assert!(recover(&mut map, GROUP, 1, false, 5).is_err());
        let mut map = sample_map();
        stand_aside(&mut map, 0, true, (3, 9));
        assert!(!is_majority_heard(group(&map)));
        stand_aside(&mut map, 1, true, (3, 8));
        assert!(is_majority_heard(group(&map)));
        assert!(recover(&mut map, GROUP, 2, false, 5).is_err(), "another incarnation");
        assert!(recover(&mut map, 0, 1, false, 5).is_err(), "the meta group");
        assert_eq!(recover(&mut map, GROUP, 1, false, 5), Ok(()));
        let recovery = group(&map).recovery.clone().unwrap();
        assert_eq!((recovery.heard, recovery.replicas, recovery.is_loss_accepted), (2, 3, false));
    }

    #[test]
    fn a_replica_that_takes_the_place_of_a_lost_one_does_not_count_as_a_voter() {
        let mut map = sample_map();
        let node = group(&map).seats[0].node.clone();
        let fresh = map.next_replica;
        map.groups[2].reseat(&node, fresh);
        map.next_replica += 1;
        assert!(!group(&map).lacks_majority(), "nobody is suspect");
        stand_aside(&mut map, 1, true, (3, 9));
        assert!(group(&map).lacks_majority(), "only the third is known to vote");
        stand_aside(&mut map, 2, false, (3, 8));
        assert_eq!(
            group(&map).incarnation,
            1,
            "the fresh one has not been heard; the lost one never will be"
        );
        stand_aside(&mut map, 0, false, (0, 0));
        assert_eq!(group(&map).incarnation, 2);
    }

    #[test]
    fn a_single_replica_goes_on_from_itself() {
        let mut map = sample_map();
        map.groups[2].seats.truncate(1);
        let old = replicas(&map)[0];
        stand_aside(&mut map, 0, true, (3, 9));
        assert!(group(&map).is_heir_of(old, 1));
        assert_eq!(group(&map).founders(), replicas(&map));
    }

    #[test]
    fn an_operator_who_accepts_the_loss_is_obeyed_when_all_that_is_left_had_its_say() {
        let mut map = sample_map();
        assert_eq!(recover(&mut map, GROUP, 1, true, 1_000), Ok(()));
        assert!(group(&map).is_given_up() && group(&map).incarnation == 1);
        stand_aside(&mut map, 2, false, (7, 70));
        assert_eq!(recover(&mut map, GROUP, 1, true, 15_999), Ok(()));
        assert_eq!(group(&map).incarnation, 1, "too early");
        assert_eq!(recover(&mut map, GROUP, 1, true, 16_000), Ok(()));
        let recovery = group(&map).recovery.clone().unwrap();
        assert!(recovery.is_loss_accepted && group(&map).loss_accepted_ms.is_none());
        assert_eq!(recovery.heard, 1);
        assert_eq!(group(&map).founders(), [replicas(&map)[2]]);

        // Nothing at all is left: it begins empty, in whatever folder its node has then.
        let mut map = sample_map();
        map.groups.truncate(3);
        map.groups[2].seats.truncate(1);
        let node = group(&map).seats[0].node.clone();
        recover(&mut map, GROUP, 1, true, 1_000).unwrap();
        recover(&mut map, GROUP, 1, true, 16_000).unwrap();
        assert_eq!(group(&map).recovery.as_ref().unwrap().from, None);
        let store = map.node(&node).unwrap().store_id;
        let hex = |id: u128| format!("{id:032x}");
        super::super::replace::replace(&mut map, &node, &hex(store), &hex(99)).unwrap();
        assert_eq!(group(&map).founders(), replicas(&map), "the one in the new folder founds it");
        assert!(group(&map).leaving.is_empty());
        super::super::replace::left(&mut map, &[(GROUP, Vec::new())]);
        assert!(!group(&map).recovery.as_ref().unwrap().is_awaited);
        let error = super::super::replace::replace(&mut map, &node, &hex(99), &hex(100));
        assert!(error.is_err(), "it has begun: another loss needs another word");
    }
}
