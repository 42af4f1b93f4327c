//! The safety properties of Raft (Ongaro and Ousterhout 2014, figure 3) and our own, as checks of running replicas.
//!
//! [`Invariants::check`] runs after every turn on the replicas of the worker that had it.

use crate::rng::Rng;
use ringfort::shard::{Group, Machine};
use ringfort_store::Policy;
use ringfort_wire::GroupId;
use std::collections::BTreeMap;
use twox_hash::XxHash3_64;

/// Digests are compared at every so manieth index: they cost more than all the other checks.
const DIGEST_EVERY: u64 = 16;

/// Most logical bytes by which one command of the workload grows a partition: MSET of two keys.
const COMMAND_BYTES_MAX: u64 = 2 * 80;

/// What was seen of a replica.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    term: u64,
    is_leader: bool,
    commit: u64,
    applied: u64,
    last: u64,
    log_time_ms: u64,
    /// Committed entries up to here were compared.
    compared: u64,
}

/// An entry that is committed somewhere.
#[derive(Debug, Clone, Copy)]
struct Committed {
    term: u64,
    hash: u64,
    /// The term of the replica that was first seen with it committed; it was committed in that term or before.
    seen_in: u64,
}

/// All that the checks remember.
#[derive(Debug, Default)]
pub(crate) struct Invariants {
    leaders: BTreeMap<(GroupId, u64), usize>,
    committed: BTreeMap<GroupId, BTreeMap<u64, Committed>>,
    digests: BTreeMap<(GroupId, u64), u64>,
    replicas: BTreeMap<(usize, GroupId), Seen>,
    /// Elections seen.
    pub(crate) elections: u64,
}

impl Invariants {
    /// A node's process ended. Even its term may go back, if nobody was told of it before it was on disk.
    pub(crate) fn forget(&mut self, node: usize) {
        self.replicas.retain(|(n, _), _| *n != node);
    }

    /// Checks one replica; an error names the property that is broken.
    pub(crate) fn check(&mut self, node: usize, group: &Group) -> Result<(), String> {
        let raft = group.raft();
        let id = group.id();
        let seen = self.replicas.get(&(node, id)).copied().unwrap_or_default();
        let log_time_ms = match group.machine() {
            Machine::Partition(m) => m.log_time_ms(),
            Machine::Meta(_) => 0,
        };
        let mut now = Seen {
            term: raft.term(),
            is_leader: raft.is_leader(),
            commit: raft.commit_index(),
            applied: raft.applied_index(),
            last: raft.last_index(),
            log_time_ms,
            compared: seen.compared,
        };
        let what = |law: &str| Err(format!("{law}: {id} on n{}: {seen:?} -> {now:?}", node + 1));
        if now.applied > now.commit || now.commit > now.last {
            return what("applied <= commit <= last (Raft figure 2)");
        }
        if now.term < seen.term {
            return what("terms only grow (Raft figure 2, currentTerm)");
        }
        if now.commit < seen.commit || now.applied < seen.applied {
            return what("commit and applied index only grow (Raft figure 2)");
        }
        if now.log_time_ms < seen.log_time_ms {
            return what("log time never goes back (design 3)");
        }
        if seen.is_leader && now.is_leader && seen.term == now.term && now.last < seen.last {
            return what("Leader Append-Only (Raft figure 3)");
        }
        if now.is_leader && !(seen.is_leader && seen.term == now.term) {
            self.check_new_leader(node, group)?;
        }
        now.compared = now.compared.max(raft.mark_index());
        while now.compared < now.commit {
            now.compared += 1;
            self.check_committed(node, group, now.compared)?;
        }
        if now.applied != seen.applied && now.applied.is_multiple_of(DIGEST_EVERY) {
            self.check_digest(node, group)?;
        }
        self.replicas.insert((node, id), now);
        Ok(())
    }

    /// Election Safety and Leader Completeness (Raft figure 3), when a replica becomes leader.
    fn check_new_leader(&mut self, node: usize, group: &Group) -> Result<(), String> {
        let (id, raft) = (group.id(), group.raft());
        let term = raft.term();
        self.elections += 1;
        let other = *self.leaders.entry((id, term)).or_insert(node);
        if other != node {
            return Err(format!(
                "Election Safety (Raft figure 3): n{} and n{} both lead {id} in term {term}",
                other + 1,
                node + 1
            ));
        }
        let committed = self.committed.entry(id).or_default();
        // What is committed in an earlier term must be there; the last such entry speaks for those before it.
        let last = committed.iter().rev().find(|(_, entry)| entry.seen_in < term);
        if let Some((&index, entry)) = last
            && index > raft.mark_index()
            && raft.term_at(index) != Some(entry.term)
        {
            return Err(format!(
                "Leader Completeness (Raft figure 3): n{} leads {id} in term {term} with term {:?} at {index}, where an \
                 entry of term {} is committed (seen in term {})",
                node + 1,
                raft.term_at(index),
                entry.term,
                entry.seen_in
            ));
        }
        Ok(())
    }

    /// A committed entry never changes, on any replica, in any life (State Machine Safety, Raft figure 3).
    fn check_committed(&mut self, node: usize, group: &Group, index: u64) -> Result<(), String> {
        let (id, raft) = (group.id(), group.raft());
        let Some(entry) = raft.entry(index) else {
            return Err(format!("n{}: entry {index} of {id} is committed but cannot be read", node + 1));
        };
        let mine =
            Committed { term: entry.term, hash: XxHash3_64::oneshot(&entry.data), seen_in: raft.term() };
        let theirs = self.committed.entry(id).or_default().entry(index).or_insert(mine);
        if (theirs.term, theirs.hash) != (mine.term, mine.hash) {
            return Err(format!(
                "State Machine Safety (Raft figure 3): entry {index} of {id} is {mine:?} on n{}, but was committed as \
                 {theirs:?}",
                node + 1
            ));
        }
        theirs.seen_in = theirs.seen_in.min(mine.seen_in);
        Ok(())
    }

    /// Equal state at equal index (State Machine Safety, Raft figure 3).
    pub(crate) fn check_digest(&mut self, node: usize, group: &Group) -> Result<(), String> {
        let digest = group.digest();
        let applied = group.raft().applied_index();
        let theirs = *self.digests.entry((group.id(), applied)).or_insert(digest);
        if theirs != digest {
            return Err(format!(
                "State Machine Safety (Raft figure 3): the state of {} at {applied} on n{} differs",
                group.id(),
                node + 1
            ));
        }
        Ok(())
    }

    /// A partition is above its quota by one command at most, or by what was judged and then changed.
    pub(crate) fn check_memory(node: usize, group: &Group, quota: u64, policy: Policy) -> Result<(), String> {
        let Machine::Partition(machine) = group.machine() else { return Ok(()) };
        let store = machine.store();
        if store.limit().quota_bytes == 0 {
            return Ok(()); // the limit is on its way
        }
        // An entry's growth, and what was judged and then changed, stay for one entry more.
        let slack = COMMAND_BYTES_MAX + if policy.evicts() { quota } else { 0 };
        if quota + slack < store.logical_bytes() {
            let bytes = store.logical_bytes();
            return Err(format!("n{}: {} holds {bytes} bytes of {quota} ({policy:?})", node + 1, group.id()));
        }
        Ok(())
    }

    /// Log Matching (Raft figure 3) of two replicas at a random index: the same index and term mean the same entry, and
    /// the same term before it.
    pub(crate) fn check_log_matching(a: &Group, b: &Group, rng: &mut Rng) -> Result<(), String> {
        let (ra, rb) = (a.raft(), b.raft());
        let first = ra.mark_index().max(rb.mark_index()) + 1;
        let last = ra.last_index().min(rb.last_index());
        if last < first {
            return Ok(());
        }
        // Near the end, where they may differ.
        let index = last - rng.below((last - first + 1).min(64));
        // A snapshot that was accepted and waits for its turn has put the old log out of reach.
        let (Some(ea), Some(eb)) = (ra.entry(index), rb.entry(index)) else { return Ok(()) };
        if ea.term != eb.term {
            return Ok(());
        }
        if ea != eb || (index > first && ra.term_at(index - 1) != rb.term_at(index - 1)) {
            return Err(format!("Log Matching (Raft figure 3) of {} at {index}: {ea:?} and {eb:?}", a.id()));
        }
        Ok(())
    }
}
