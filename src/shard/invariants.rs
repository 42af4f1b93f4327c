//! The laws that replicas keep, as functions: each takes what was seen and says whether, and how, its law is broken.
//!
//! They are pure and know nothing of a run. The simulator (`tests/sim/invariants.rs`) calls them after every step on the
//! replicas of the production code and remembers what they need; some are debug assertions of a [`Group`] as well. Every
//! law has a test that breaks it.
//!
//! | law | source |
//! | --- | --- |
//! | [`election_safety`], [`leader_append_only`], [`log_matching`], [`leader_completeness`], [`state_machine_safety`], [`equal_states`] | Raft (Ongaro and Ousterhout 2014), figure 3 |
//! | [`ordered_indices`], [`growing_state`], [`one_vote`] | Raft, figure 2 |
//! | [`kept_promise`] | Raft, figure 2: "updated on stable storage before responding to RPCs" |
//! | [`commit_quorum`] | Raft §5.3, §5.4.2; of a joint configuration: Ongaro's thesis, 4.3 |
//! | [`legal_change`] | Ongaro's thesis, 4.1 and 4.3; our own rule of epochs ([`super::membership`]) |
//! | [`exclusive_lease`] | Ongaro's thesis, 6.4.1; [`super::lease`] |
//! | [`growing_log_time`] | our own: expiry never runs backwards |
//! | [`stable_reply`], [`growing_session`] | RIFL (Lee et al. 2015), §3: a completion record is found again for every retry |
//! | [`growing_map`], [`minted_once`] | our own: the meta group's map |

use super::membership::{Change, Membership};
use super::{Group, Machine};
use crate::log::{LogEntry, Recovered};
use ringfort_wire::{ClusterMap, GroupId};
use std::collections::BTreeMap;

/// A law that is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{law}: {what}")]
pub struct Violation {
    /// Its name and source.
    pub law: &'static str,
    /// What was seen.
    pub what: String,
}

/// What a law returns.
pub type Verdict = Result<(), Violation>;

fn judge(law: &'static str, holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(Violation { law, what: what() }) }
}

/// What the laws look at of one replica at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The group.
    pub group: GroupId,
    /// Its incarnation.
    pub incarnation: u32,
    /// The replica.
    pub replica: u64,
    /// Current term.
    pub term: u64,
    /// Whom it voted for in this term; 0 = nobody.
    pub vote: u64,
    /// Whether it leads.
    pub is_leader: bool,
    /// Last committed entry.
    pub commit: u64,
    /// Last applied entry.
    pub applied: u64,
    /// Last entry.
    pub last: u64,
    /// Time of the last applied entry, ms since 1970.
    pub log_time_ms: u64,
}

impl View {
    /// What is to be seen of `group`.
    pub fn of(group: &Group) -> Self {
        let raft = group.raft();
        Self {
            group: group.id(),
            incarnation: group.incarnation(),
            replica: raft.replica(),
            term: raft.term(),
            vote: raft.vote(),
            is_leader: raft.is_leader(),
            commit: raft.commit_index(),
            applied: raft.applied_index(),
            last: raft.last_index(),
            log_time_ms: match group.machine() {
                Machine::Partition(m) => m.log_time_ms(),
                Machine::Meta(_) => 0,
            },
        }
    }
}

/// `applied <= commit <= last`.
///
/// # Errors
/// They are not.
pub fn ordered_indices(v: &View) -> Verdict {
    let holds = v.applied <= v.commit && v.commit <= v.last;
    judge("applied <= commit <= last (Raft figure 2)", holds, || format!("{v:?}"))
}

/// In one life of a replica its term, commit index, applied index and incarnation only grow.
///
/// # Errors
/// One went back.
pub fn growing_state(before: &View, now: &View) -> Verdict {
    let holds = before.term <= now.term
        && before.commit <= now.commit
        && before.applied <= now.applied
        && before.incarnation <= now.incarnation;
    judge("term, commit and applied index only grow (Raft figure 2)", holds, || {
        format!("{before:?} -> {now:?}")
    })
}

/// A replica votes for one candidate at most in each term.
///
/// # Errors
/// It changed its vote, or forgot it.
pub fn one_vote(before: &View, now: &View) -> Verdict {
    let holds = before.term != now.term || before.vote == 0 || before.vote == now.vote;
    judge("one vote in each term (Raft figure 2, votedFor)", holds, || format!("{before:?} -> {now:?}"))
}

/// The log time of a replica never goes back.
///
/// # Errors
/// It did.
pub fn growing_log_time(before: &View, now: &View) -> Verdict {
    let holds = before.log_time_ms <= now.log_time_ms;
    judge("log time never goes back", holds, || format!("{before:?} -> {now:?}"))
}

/// At most one replica leads a group in each term; `first` is the one that was seen first to lead in `v`'s term.
///
/// # Errors
/// There are two.
pub fn election_safety(v: &View, first: u64) -> Verdict {
    let holds = !v.is_leader || v.replica == first;
    judge("Election Safety (Raft figure 3)", holds, || format!("replica {first} leads this term, too: {v:?}"))
}

/// A leader only appends to its log. `before_term`: the term of the entry that was the last one before; `now_term`: the
/// term at that place now (by Log Matching it speaks for all before it), `None` when it is behind the log's mark.
///
/// # Errors
/// It replaced or removed an entry.
pub fn leader_append_only(before: &View, before_term: u64, now: &View, now_term: Option<u64>) -> Verdict {
    let leads_on = before.is_leader && now.is_leader && before.term == now.term;
    let holds = !leads_on || (before.last <= now.last && now_term.is_none_or(|term| term == before_term));
    judge("Leader Append-Only (Raft figure 3)", holds, || {
        format!("{before:?} with term {before_term} -> {now:?} with {now_term:?}")
    })
}

/// Two logs that hold an entry of one index and term hold the same one, and the same before it. Each side: the entry, and
/// the term of the one before it when that is in the log.
///
/// # Errors
/// They differ.
pub fn log_matching(a: (&LogEntry, Option<u64>), b: (&LogEntry, Option<u64>)) -> Verdict {
    let is_same_place = a.0.index == b.0.index && a.0.term == b.0.term;
    let is_same_before = a.1.is_none() || b.1.is_none() || a.1 == b.1;
    judge("Log Matching (Raft figure 3)", !is_same_place || (a.0 == b.0 && is_same_before), || {
        format!("{a:?} and {b:?}")
    })
}

/// An entry that some replica knew to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Hash of its data.
    pub hash: u64,
    /// The lowest term in which a replica knew it to be committed; it was committed in that term or before.
    pub known_in: u64,
}

/// An entry that was committed in a term is in the log of every leader of a later term: `own_term` at its index, `None`
/// when the index is behind the log's mark or past its end (then `v.last` tells).
///
/// # Errors
/// It is not.
pub fn leader_completeness(v: &View, committed: &Committed, own_term: Option<u64>) -> Verdict {
    let must_hold = v.is_leader && committed.known_in < v.term;
    let holds = committed.index <= v.last && own_term.is_none_or(|term| term == committed.term);
    judge("Leader Completeness (Raft figure 3)", !must_hold || holds, || {
        format!("{committed:?} is at its place with term {own_term:?} in {v:?}")
    })
}

/// No two replicas commit different entries at one index, in whatever life.
///
/// # Errors
/// They do.
pub fn state_machine_safety(theirs: &Committed, mine: &Committed) -> Verdict {
    let holds = theirs.index != mine.index || (theirs.term, theirs.hash) == (mine.term, mine.hash);
    judge("State Machine Safety (Raft figure 3)", holds, || format!("{theirs:?} and {mine:?}"))
}

/// Replicas that applied the same entries are in the same state: equal digests at index `applied`.
///
/// # Errors
/// They differ.
pub fn equal_states(applied: u64, theirs: u64, mine: u64) -> Verdict {
    judge("State Machine Safety (Raft figure 3), equal states", theirs == mine, || {
        format!("digests {theirs:016x} and {mine:016x} at entry {applied}")
    })
}

/// While a replica covers reads by its lease, nobody else does, and nobody else has committed anything in a later term.
/// `is_other_covering`, `has_other_committed`: of the other one, now; the latter in its own present term, as leader.
///
/// # Errors
/// A read under the lease may be stale.
pub fn exclusive_lease(
    holder: &View,
    other: &View,
    is_other_covering: bool,
    has_other_committed: bool,
) -> Verdict {
    let has_committed_later = has_other_committed && other.is_leader && holder.term < other.term;
    let holds = !is_other_covering && !has_committed_later;
    judge("a lease is exclusive (Ongaro's thesis, 6.4.1)", holds, || {
        format!("{holder:?} covers reads beside {other:?}")
    })
}

/// What a message promises of its sender's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Promise {
    /// The sender will never act in an earlier term.
    pub term: u64,
    /// It will vote for nobody else in this term; 0 = it did not vote.
    pub vote: u64,
    /// It holds the leader's log up to this index; 0 = it says nothing of its log.
    pub index: u64,
    /// Term of that entry, when it is known.
    pub index_term: Option<u64>,
}

/// A vote and an acknowledgement leave only when what they promise is on disk. `disk`: what a restart would find if the
/// worst that the durability mode counts on happened now.
///
/// # Errors
/// A crash would break the promise.
pub fn kept_promise(promise: &Promise, disk: &Recovered) -> Verdict {
    let hard = &disk.hard_state;
    let keeps_term = promise.term <= hard.term;
    let keeps_vote = promise.vote == 0 || hard.term > promise.term || hard.vote == promise.vote;
    let disk_term = term_in(disk, promise.index);
    let keeps_log = promise.index <= disk.last_index
        && (disk_term.is_none() || promise.index_term.is_none() || disk_term == promise.index_term);
    judge("persisted before acknowledged (Raft figure 2)", keeps_term && keeps_vote && keeps_log, || {
        format!(
            "{promise:?}, but a crash would leave {hard:?}, entries up to {} ({disk_term:?} there)",
            disk.last_index
        )
    })
}

/// Term of an entry as recovered, unless it is before the mark.
fn term_in(disk: &Recovered, index: u64) -> Option<u64> {
    if index == disk.mark.index {
        return Some(disk.mark.term);
    }
    let run = disk.terms.iter().rev().find(|(first, _)| *first <= index);
    run.filter(|_| disk.mark.index < index).map(|(_, term)| *term)
}

/// What a leader commits is held by a majority of the voters, in a joint configuration by one of the old and one of the
/// new: `held` says of each replica the last entry that it acknowledged (the leader: that is on its disk).
///
/// # Errors
/// There is no such majority.
pub fn commit_quorum(members: &Membership, held: &BTreeMap<u64, u64>, commit: u64) -> Verdict {
    let has_majority = |voters: &[u64]| {
        let holds = |id: &&u64| held.get(id).is_some_and(|&index| commit <= index);
        voters.is_empty() || voters.iter().filter(holds).count() * 2 > voters.len()
    };
    let holds = has_majority(&members.voters) && has_majority(&members.outgoing);
    judge("a majority holds what is committed (Raft §5.3; joint: thesis 4.3)", holds, || {
        format!("{commit} is committed by {held:?} of {members:?}")
    })
}

/// One change of the members at a time, the voters only jointly, from no older map than the last change's.
///
/// # Errors
/// The change is none that a group may make after `before`.
pub fn legal_change(before: &Membership, change: &Change, epoch: u64) -> Verdict {
    let fits = match change {
        Change::AddLearner(id) => !before.is_joint() && !before.contains(*id),
        Change::RemoveLearner(id) => !before.is_joint() && before.learners.contains(id),
        Change::Enter { add, remove } => {
            let stays = before.voters.iter().filter(|id| !remove.contains(id)).count();
            !before.is_joint()
                && add.iter().all(|id| before.learners.contains(id))
                && remove.iter().all(|id| before.voters.contains(id))
                && stays + add.len() > 0
        }
        Change::Leave => before.is_joint(),
        Change::Fence => !before.is_joint(),
    };
    judge("one change of the members at a time (thesis 4.3)", fits && before.epoch <= epoch, || {
        format!("{change:?} of the map at {epoch} after {before:?}")
    })
}

/// One write of one session has one reply, on every replica and for ever: hashes of what was stored or told.
///
/// # Errors
/// There are two.
pub fn stable_reply(session: u64, seq: u64, first: u64, now: u64) -> Verdict {
    judge("a write has one reply (RIFL §3)", first == now, || {
        format!("write {seq} of session {session} was answered in two ways: {first:016x} and {now:016x}")
    })
}

/// The last executed number of a session only grows, on one replica.
///
/// # Errors
/// It went back: writes would be executed again.
pub fn growing_session(session: u64, before: u64, now: u64) -> Verdict {
    judge("the numbers of a session only grow (RIFL §3)", before <= now, || {
        format!("session {session}: {before} -> {now}")
    })
}

/// The map of a later epoch follows from that of an earlier one: nothing that only grows goes back, what never changes
/// does not. Two maps of one epoch are the same.
///
/// # Errors
/// They contradict each other.
pub fn growing_map(before: &ClusterMap, now: &ClusterMap) -> Verdict {
    let keeps = |g: GroupId| match (before.group(g), now.group(g)) {
        (Some(a), Some(b)) => a.incarnation <= b.incarnation,
        _ => false,
    };
    let holds = before.epoch <= now.epoch
        && (before.epoch < now.epoch || before == now)
        && before.next_replica <= now.next_replica
        && before.partitions == now.partitions
        && before.cluster_id == now.cluster_id
        && before.all_groups().all(|(id, _)| keeps(id));
    judge("the map only grows: epoch, replica ids, incarnations", holds, || {
        format!("epoch {} -> {}: {before:?} -> {now:?}", before.epoch, now.epoch)
    })
}

/// A replica id is given once: none stands for two replicas, and one that is not in use any more never comes back.
///
/// # Errors
/// One was given twice.
pub fn minted_once(before: &ClusterMap, now: &ClusterMap) -> Verdict {
    let seats = |map: &ClusterMap| -> Vec<(u64, GroupId, String)> {
        let of = |(id, group): (GroupId, &ringfort_wire::map::MapGroup)| {
            group.peers().map(|s| (s.replica, id, s.node.0.clone())).collect::<Vec<_>>()
        };
        map.all_groups().flat_map(of).collect()
    };
    let (old, mut new) = (seats(before), seats(now));
    new.sort();
    let twice = new.windows(2).find(|pair| pair[0].0 == pair[1].0).map(|pair| pair[0].0);
    let again = new.iter().find(|seat| seat.0 < before.next_replica && !old.contains(seat));
    let beyond = new.iter().find(|seat| seat.0 >= now.next_replica);
    judge("a replica id is given once", twice.is_none() && again.is_none() && beyond.is_none(), || {
        format!("epoch {} -> {}: {twice:?} {again:?} {beyond:?}", before.epoch, now.epoch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::HardState;
    use crate::meta::form::tests::sample_map;
    use bytes::Bytes;

    const SEEN: View = View {
        group: GroupId(1),
        incarnation: 1,
        replica: 1,
        term: 5,
        vote: 1,
        is_leader: true,
        commit: 20,
        applied: 18,
        last: 22,
        log_time_ms: 1000,
    };

    /// Each law: it holds for what is right, and its name is told for what is not.
    fn refuses(right: Verdict, wrong: &[Verdict]) {
        assert_eq!(right, Ok(()));
        for (n, verdict) in wrong.iter().enumerate() {
            assert!(verdict.is_err(), "case {n} passes");
        }
    }

    #[test]
    fn ordered_indices_refuses_what_is_out_of_order() {
        let wrong = [View { applied: 21, ..SEEN }, View { commit: 23, ..SEEN }];
        refuses(ordered_indices(&SEEN), &wrong.map(|v| ordered_indices(&v)));
    }

    #[test]
    fn growing_state_refuses_what_goes_back() {
        let later = View { term: 6, commit: 21, applied: 21, ..SEEN };
        let wrong = [
            View { term: 4, ..SEEN },
            View { commit: 19, ..SEEN },
            View { applied: 17, ..SEEN },
            View { incarnation: 0, ..SEEN },
        ];
        refuses(growing_state(&SEEN, &later), &wrong.map(|v| growing_state(&SEEN, &v)));
    }

    #[test]
    fn one_vote_refuses_a_second_and_a_forgotten_vote() {
        let wrong = [View { vote: 2, ..SEEN }, View { vote: 0, ..SEEN }];
        let other_term = View { term: 6, vote: 2, ..SEEN };
        refuses(one_vote(&SEEN, &other_term), &wrong.map(|v| one_vote(&SEEN, &v)));
    }

    #[test]
    fn growing_log_time_refuses_an_earlier_time() {
        let earlier = View { log_time_ms: 999, ..SEEN };
        refuses(growing_log_time(&SEEN, &SEEN), &[growing_log_time(&SEEN, &earlier)]);
    }

    #[test]
    fn election_safety_refuses_two_leaders_of_one_term() {
        refuses(election_safety(&SEEN, 1), &[election_safety(&SEEN, 2)]);
    }

    #[test]
    fn leader_append_only_refuses_a_shorter_and_an_altered_log() {
        let longer = View { last: 23, ..SEEN };
        let shorter = View { last: 21, ..SEEN };
        let wrong =
            [leader_append_only(&SEEN, 5, &shorter, None), leader_append_only(&SEEN, 5, &longer, Some(4))];
        refuses(leader_append_only(&SEEN, 5, &longer, Some(5)), &wrong);
        let follower = View { is_leader: false, ..shorter };
        assert_eq!(leader_append_only(&SEEN, 5, &follower, Some(6)), Ok(()), "a follower's log may be cut");
    }

    #[test]
    fn log_matching_refuses_other_data_and_another_past() {
        let entry =
            |data: &'static [u8], term| LogEntry { index: 7, term, kind: 0, data: Bytes::from_static(data) };
        let (a, b) = (entry(b"a", 5), entry(b"b", 5));
        let wrong = [log_matching((&a, Some(4)), (&b, Some(4))), log_matching((&a, Some(4)), (&a, Some(3)))];
        refuses(log_matching((&a, Some(4)), (&entry(b"b", 6), Some(3))), &wrong);
        assert_eq!(log_matching((&a, Some(4)), (&a, None)), Ok(()));
    }

    #[test]
    fn leader_completeness_refuses_a_leader_without_a_committed_entry() {
        let committed = Committed { index: 20, term: 3, hash: 9, known_in: 4 };
        let short = View { last: 19, ..SEEN };
        let wrong =
            [leader_completeness(&SEEN, &committed, Some(2)), leader_completeness(&short, &committed, None)];
        refuses(leader_completeness(&SEEN, &committed, Some(3)), &wrong);
        let late = Committed { known_in: 5, ..committed };
        assert_eq!(leader_completeness(&SEEN, &late, Some(2)), Ok(()), "it may have been committed later");
    }

    #[test]
    fn state_machine_safety_refuses_two_entries_at_one_index() {
        let a = Committed { index: 20, term: 3, hash: 9, known_in: 4 };
        let wrong = [Committed { term: 4, ..a }, Committed { hash: 8, ..a }];
        refuses(
            state_machine_safety(&a, &Committed { known_in: 9, ..a }),
            &wrong.map(|b| state_machine_safety(&a, &b)),
        );
    }

    #[test]
    fn equal_states_refuses_another_digest() {
        refuses(equal_states(16, 1, 1), &[equal_states(16, 1, 2)]);
    }

    #[test]
    fn exclusive_lease_refuses_a_second_holder_and_a_later_leader_that_commits() {
        let later = View { replica: 2, term: 6, ..SEEN };
        let wrong =
            [exclusive_lease(&SEEN, &later, true, false), exclusive_lease(&SEEN, &later, false, true)];
        refuses(exclusive_lease(&SEEN, &later, false, false), &wrong);
        assert_eq!(
            exclusive_lease(&later, &SEEN, false, true),
            Ok(()),
            "a former leader knows of old commits"
        );
    }

    #[test]
    fn kept_promise_refuses_what_a_crash_would_take_back() {
        let disk = Recovered {
            group: 1,
            identity: crate::log::Identity::default(),
            hard_state: HardState { term: 5, vote: 2, commit: 0 },
            mark: crate::log::Mark { index: 10, term: 2, conf: Bytes::new() },
            last_index: 20,
            terms: vec![(11, 3), (18, 5)],
        };
        let promise = Promise { term: 5, vote: 2, index: 20, index_term: Some(5) };
        let wrong = [
            Promise { term: 6, vote: 0, ..promise },
            Promise { vote: 1, ..promise },
            Promise { index: 21, ..promise },
            Promise { index: 17, index_term: Some(4), ..promise },
            Promise { index: 10, index_term: Some(3), ..promise },
        ];
        refuses(kept_promise(&promise, &disk), &wrong.map(|p| kept_promise(&p, &disk)));
        let older = Promise { term: 4, vote: 1, index: 9, index_term: Some(1) };
        assert_eq!(
            kept_promise(&older, &disk),
            Ok(()),
            "a vote of a term that is over; an entry in the snapshot"
        );
    }

    #[test]
    fn commit_quorum_refuses_a_minority_of_either_configuration() {
        let held = |pairs: &[(u64, u64)]| pairs.iter().copied().collect::<BTreeMap<_, _>>();
        let simple = Membership::founded(&[1, 2, 3]);
        let joint = Membership { outgoing: vec![1, 2, 3], ..Membership::founded(&[1, 4, 5]) };
        let wrong = [
            commit_quorum(&simple, &held(&[(1, 9), (2, 8), (3, 8)]), 9),
            commit_quorum(&joint, &held(&[(1, 9), (4, 9), (5, 9)]), 9),
            commit_quorum(&joint, &held(&[(1, 9), (2, 9), (3, 9)]), 9),
        ];
        refuses(commit_quorum(&joint, &held(&[(1, 9), (2, 9), (5, 9)]), 9), &wrong);
        assert_eq!(commit_quorum(&simple, &held(&[(1, 9), (3, 9)]), 9), Ok(()));
    }

    #[test]
    fn legal_change_refuses_two_at_a_time_and_old_maps() {
        let before = Membership { epoch: 4, learners: vec![9], ..Membership::founded(&[1, 2, 3]) };
        let joint = Membership { outgoing: vec![1, 2, 3], ..before.clone() };
        let enter = Change::Enter { add: vec![9], remove: vec![3] };
        let wrong = [
            legal_change(&before, &enter, 3),
            legal_change(&joint, &enter, 4),
            legal_change(&joint, &Change::AddLearner(11), 4),
            legal_change(&joint, &Change::RemoveLearner(9), 4),
            legal_change(&before, &Change::AddLearner(3), 4),
            legal_change(&before, &Change::RemoveLearner(3), 4),
            legal_change(&before, &Change::Enter { add: vec![8], remove: vec![3] }, 4),
            legal_change(&before, &Change::Enter { add: vec![], remove: vec![1, 2, 3] }, 4),
            legal_change(&before, &Change::Leave, 4),
            legal_change(&before, &Change::Fence, 3),
            legal_change(&joint, &Change::Fence, 4),
        ];
        refuses(legal_change(&before, &enter, 4), &wrong);
        assert_eq!(legal_change(&joint, &Change::Leave, 4), Ok(()));
    }

    #[test]
    fn stable_reply_refuses_a_second_reply() {
        refuses(stable_reply(1, 2, 3, 3), &[stable_reply(1, 2, 3, 4)]);
    }

    #[test]
    fn growing_session_refuses_a_lower_number() {
        refuses(growing_session(1, 2, 2), &[growing_session(1, 2, 1)]);
    }

    #[test]
    fn growing_map_refuses_what_goes_back_and_two_maps_of_one_epoch() {
        let map = ClusterMap { epoch: 4, next_replica: 100, ..sample_map() };
        let mut next = ClusterMap { epoch: 5, ..map.clone() };
        next.groups[3].incarnation += 1;
        let mut back = ClusterMap { epoch: 6, ..map.clone() };
        back.groups[3].incarnation = map.groups[3].incarnation;
        let wrong = [
            growing_map(&next, &map),
            growing_map(&map, &ClusterMap { next_replica: 99, epoch: 5, ..map.clone() }),
            growing_map(&map, &ClusterMap { next_replica: 101, ..map.clone() }),
            growing_map(&next, &back),
        ];
        refuses(growing_map(&map, &next), &wrong);
    }

    #[test]
    fn minted_once_refuses_an_id_that_comes_back_or_stands_twice() {
        let map = sample_map();
        let next = || ClusterMap { epoch: map.epoch + 1, ..map.clone() };
        let mut fresh = next();
        fresh.groups[0].seats[0].replica = map.next_replica;
        fresh.next_replica += 1;
        let mut again = ClusterMap { next_replica: map.next_replica + 5, ..next() };
        again.groups[0].seats[0].replica = map.next_replica;
        let before_again = ClusterMap { next_replica: map.next_replica + 1, ..map.clone() };
        let mut twice = next();
        twice.groups[0].seats[0].replica = twice.groups[1].seats[0].replica;
        let mut beyond = next();
        beyond.groups[0].seats[0].replica = map.next_replica + 7;
        let wrong =
            [minted_once(&before_again, &again), minted_once(&map, &twice), minted_once(&map, &beyond)];
        refuses(minted_once(&map, &fresh), &wrong);
    }
}
