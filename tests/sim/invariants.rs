//! The laws of [`ringfort::shard::invariants`], looked at in a running world: this file remembers what they compare.
//!
//! [`Invariants::check`] runs after every turn on the replicas of the worker that had it.

use crate::options::Options;
use crate::rng::Rng;
use ringfort::log::{LastStop, Log, LogOptions, MemDisk, Recovered};
use ringfort::shard::invariants::{self as laws, Committed, View};
use ringfort::shard::membership::{Change, Membership};
use ringfort::shard::raft::{ENTRY_CHANGE, Message};
use ringfort::shard::{Group, Machine};
use ringfort_wire::frame::{self, Kind, Reader};
use ringfort_wire::request::{Request, RequestKind, Status};
use ringfort_wire::{ClusterMap, GroupId, Reply};
use std::collections::BTreeMap;
use std::sync::Arc;
use twox_hash::XxHash3_64;

/// Digests and sessions are compared at every so manieth index: they cost more than all the other checks.
const DIGEST_EVERY: u64 = 16;

/// Every so manieth batch of messages that promise something is held against the disk: each look reads a whole log.
const PROMISE_EVERY: u64 = 128;

/// Most logical bytes by which one command of the workload grows a partition: MSET of two keys.
const COMMAND_BYTES_MAX: u64 = 2 * 80;

/// Logical bytes of a replica that has a memory limit, and how many it may have.
fn memory(group: &Group, options: &Options) -> Option<(u64, u64)> {
    let (quota, policy) = options.memory?;
    let Machine::Partition(machine) = group.machine() else { return None };
    let store = machine.store();
    // An entry's growth, and what was judged and then changed, stay for one entry more.
    let slack = COMMAND_BYTES_MAX + if policy.evicts() { quota } else { 0 };
    (store.limit().quota_bytes != 0).then(|| (store.logical_bytes(), quota + slack))
}

/// What was seen of a replica.
#[derive(Debug)]
struct Seen {
    view: View,
    /// Term of its last entry.
    last_term: u64,
    /// Committed entries up to here were compared.
    compared: u64,
    members: Membership,
    sessions: BTreeMap<u64, u64>,
}

/// What is known of one group.
#[derive(Debug, Default)]
struct Known {
    /// Who led in each term.
    leaders: BTreeMap<u64, u64>,
    committed: BTreeMap<u64, Committed>,
    digests: BTreeMap<u64, u64>,
    /// Hash of the reply of each (session, seq), as stored.
    replies: BTreeMap<(u64, u64), u64>,
    /// From this index on every entry was proposed by who knew the memory limit.
    counted_from: Option<u64>,
    /// The index after it at which a replica was first seen within the limit.
    within_from: Option<u64>,
    /// By node.
    replicas: Vec<Option<Seen>>,
}

/// All that the checks remember.
#[derive(Debug, Default)]
pub(crate) struct Invariants {
    /// By group and incarnation: a group that started anew may have lost what was committed.
    groups: BTreeMap<(GroupId, u32), Known>,
    /// What each replica looked like when it was checked last, by node and group: at most looks nothing has changed.
    looked: Vec<Vec<Option<View>>>,
    /// The newest map.
    map: Option<Arc<ClusterMap>>,
    /// By node: its map and the newest one when they were compared last.
    compared: Vec<Option<[Arc<ClusterMap>; 2]>>,
    /// Requests of proxies that are not answered: (connection, its life, id) to (group, session, seq).
    asked: BTreeMap<(usize, u64, u64), (GroupId, u64, u64)>,
    /// Hash of the reply of each (group, session, seq), as told.
    told: BTreeMap<(GroupId, u64, u64), u64>,
    /// Batches of messages that promised something.
    promising: u64,
    /// Elections seen.
    pub(crate) elections: u64,
    /// Changes of memberships seen committed.
    pub(crate) member_steps: u64,
    /// Exchanges of replicas seen turned round.
    pub(crate) turned: u64,
    /// Nodes seen judged down.
    pub(crate) downs: u64,
}

impl Invariants {
    /// A node's process ended. Even its term may go back, if nobody was told of it before it was on disk.
    pub(crate) fn forget(&mut self, node: usize) {
        for known in self.groups.values_mut() {
            *at(&mut known.replicas, node) = None;
        }
        at(&mut self.looked, node).clear();
    }

    /// Checks one replica; an error names the law that is broken. Returns whether it has done anything since the last look.
    pub(crate) fn check(&mut self, node: usize, group: &Group) -> Result<bool, String> {
        let now = View::of(group);
        let looked = at(at(&mut self.looked, node), usize::from(now.group.0));
        if *looked == Some(now) {
            return Ok(false);
        }
        *looked = Some(now);
        let known = self.groups.entry((now.group, now.incarnation)).or_default();
        // Another replica of the same group may have taken the place of one that left.
        let seen = at(&mut known.replicas, node).take().filter(|seen| seen.view.replica == now.replica);
        let told = |law: Result<(), laws::Violation>| law.map_err(|v| format!("n{}: {v}", node + 1));
        told(laws::ordered_indices(&now))?;
        let raft = group.raft();
        if let Some(Seen { view: before, last_term, members, .. }) = &seen {
            told(laws::growing_state(before, &now))?;
            told(laws::one_vote(before, &now))?;
            told(laws::growing_log_time(before, &now))?;
            if before.is_leader && now.is_leader {
                let there = raft.term_at(before.last).filter(|_| raft.mark_index() < before.last);
                told(laws::leader_append_only(before, *last_term, &now, there))?;
            }
            // A leader that goes on decides on what it has just committed; a change of the members takes a turn.
            let decided = before.is_leader && before.term == now.term && before.commit < now.commit;
            if now.is_leader && decided && members == raft.membership() {
                told(laws::commit_quorum(members, &raft.held(), now.commit))?;
            }
        }
        let is_new_leader = !seen.as_ref().is_some_and(|s| s.view.is_leader && s.view.term == now.term);
        if now.is_leader && is_new_leader {
            self.elections += 1;
            let first = *known.leaders.entry(now.term).or_insert(now.replica);
            told(laws::election_safety(&now, first))?;
            // What is committed in an earlier term must be there; the last such entry speaks for those before it.
            let earlier = known.committed.values().rev().find(|entry| entry.known_in < now.term);
            if let Some(entry) = earlier {
                let own = raft.term_at(entry.index).filter(|_| raft.mark_index() < entry.index);
                told(laws::leader_completeness(&now, entry, own))?;
            }
        }
        let mut seen = seen.unwrap_or_else(|| Seen {
            view: now,
            last_term: 0,
            compared: 0,
            members: Membership::default(),
            sessions: BTreeMap::new(),
        });
        seen.compared = seen.compared.max(raft.mark_index());
        while seen.compared < now.commit {
            seen.compared += 1;
            let is_news = !known.committed.contains_key(&seen.compared);
            let is_change = Self::check_committed(node, group, known, seen.compared)?;
            self.member_steps += u64::from(is_news && is_change);
        }
        if now.applied != seen.view.applied && now.applied.is_multiple_of(DIGEST_EVERY) {
            Self::check_state(node, group, known, &mut seen)?;
        }
        seen.view = now;
        seen.last_term = raft.term_at(now.last).unwrap_or(0);
        if seen.members != *raft.membership() {
            seen.members.clone_from(raft.membership());
        }
        known.replicas[node] = Some(seen);
        Ok(true)
    }

    /// A committed entry never changes, on any replica, in any life. Returns whether it changes the membership.
    fn check_committed(node: usize, group: &Group, known: &mut Known, index: u64) -> Result<bool, String> {
        let (id, raft) = (group.id(), group.raft());
        let Some(entry) = raft.entry(index) else {
            return Err(format!("n{}: entry {index} of {id} is committed but cannot be read", node + 1));
        };
        let hash = XxHash3_64::oneshot(&entry.data);
        let mine = Committed { index, term: entry.term, hash, known_in: raft.term() };
        let theirs = known.committed.entry(index).or_insert(mine);
        laws::state_machine_safety(theirs, &mine).map_err(|v| format!("n{}: {v} in {id}", node + 1))?;
        theirs.known_in = theirs.known_in.min(mine.known_in);
        if entry.kind == ENTRY_CHANGE && index == raft.applied_index() + 1 {
            let (change, epoch) =
                Change::decode(&entry.data).map_err(|e| format!("a change of {id}: {e}"))?;
            laws::legal_change(raft.membership(), &change, epoch)
                .map_err(|v| format!("n{}: {v}", node + 1))?;
        }
        Ok(entry.kind == ENTRY_CHANGE)
    }

    /// Equal state at equal index; replies that do not change.
    fn check_state(node: usize, group: &Group, known: &mut Known, seen: &mut Seen) -> Result<(), String> {
        let applied = group.raft().applied_index();
        let digest = group.digest();
        let theirs = *known.digests.entry(applied).or_insert(digest);
        let told = |law: Result<(), laws::Violation>| {
            law.map_err(|v| format!("n{}: {v} in {}", node + 1, group.id()))
        };
        told(laws::equal_states(applied, theirs, digest))?;
        let Machine::Partition(machine) = group.machine() else { return Ok(()) };
        let sessions: BTreeMap<u64, u64> = machine.sessions().collect();
        for (session, last) in &sessions {
            let before = seen.sessions.get(session).copied().unwrap_or(0);
            told(laws::growing_session(*session, before, *last))?;
        }
        seen.sessions = sessions;
        for (session, seq, hash) in machine.reply_hashes() {
            let first = *known.replies.entry((session, seq)).or_insert(hash);
            told(laws::stable_reply(session, seq, first, hash))?;
        }
        Ok(())
    }

    /// Equal state at equal index, now.
    pub(crate) fn check_digest(&mut self, node: usize, group: &Group) -> Result<(), String> {
        let known = self.groups.entry((group.id(), group.incarnation())).or_default();
        let Some(mut seen) = at(&mut known.replicas, node).take() else { return Ok(()) };
        let result = Self::check_state(node, group, known, &mut seen);
        known.replicas[node] = Some(seen);
        result
    }

    /// Two replicas of one group, and whether each covers reads by its lease at this instant.
    pub(crate) fn check_leases(a: (&Group, bool), b: (&Group, bool)) -> Result<(), String> {
        for ((holder, covers), (other, other_covers)) in [(a, b), (b, a)] {
            if covers {
                let has_committed = other.raft().is_own_term_committed();
                laws::exclusive_lease(&View::of(holder), &View::of(other), other_covers, has_committed)
                    .map_err(|v| v.to_string())?;
            }
        }
        Ok(())
    }

    /// A node knows this map now. Returns the groups that are others in it than in any map before.
    pub(crate) fn check_map(&mut self, node: usize, map: &Arc<ClusterMap>) -> Result<Vec<GroupId>, String> {
        let newest = self.map.get_or_insert_with(|| Arc::clone(map));
        let compared = at(&mut self.compared, node);
        if let Some([own, other]) = compared
            && Arc::ptr_eq(own, map)
            && Arc::ptr_eq(other, newest)
        {
            return Ok(Vec::new());
        }
        let (before, now) = if newest.epoch <= map.epoch { (&*newest, map) } else { (map, &*newest) };
        laws::growing_map(before, now).map_err(|v| v.to_string())?;
        laws::minted_once(before, now).map_err(|v| v.to_string())?;
        let mut news = Vec::new();
        if newest.epoch < map.epoch {
            let pairs = || newest.all_groups().zip(map.all_groups());
            news.extend(pairs().filter(|(before, now)| before != now).map(|(_, (id, _))| id));
            let turned = pairs().filter(|((_, before), (_, now))| before.turned_epoch < now.turned_epoch);
            self.turned += turned.count() as u64;
            let was_down = |id| newest.node(id).is_some_and(|node| node.is_down);
            let downs = map.nodes.iter().filter(|node| node.is_down && !was_down(&node.id));
            self.downs += downs.count() as u64;
            *newest = Arc::clone(map);
        }
        *compared = Some([Arc::clone(map), Arc::clone(newest)]);
        Ok(news)
    }

    /// Raft messages leave a worker: what they promise must be on its disk. `term_of` knows the terms of its entries.
    pub(crate) fn check_promises<'a>(
        &mut self,
        batches: impl Iterator<Item = &'a [u8]>,
        disk: &MemDisk,
        is_fsync: bool,
        term_of: impl Fn(GroupId, u64) -> Option<u64>,
    ) -> Result<(), String> {
        self.promising += 1;
        if !self.promising.is_multiple_of(PROMISE_EVERY) {
            return Ok(());
        }
        let mut images: [Option<BTreeMap<u16, Recovered>>; 2] = [None, None];
        for mut rest in batches {
            while let Ok(Some(f)) = frame::next(rest) {
                rest = &rest[f.consumed..];
                let mut r = Reader::new(f.body, "Raft frame");
                if f.kind != Kind::Raft {
                    continue;
                }
                let (Ok(id), Ok(_)) = (r.u16(), r.u32()) else { continue };
                let message = Message::decode(r.rest()).map_err(|e| format!("a bad Raft message: {e}"))?;
                let Some(promise) = message.promise() else { continue };
                let index_term = term_of(GroupId(id), promise.index);
                let needs_sync = is_fsync || GroupId(id) == GroupId::META;
                let image = &mut images[usize::from(needs_sync)];
                let image = match image {
                    Some(image) => image,
                    None => image.insert(recover(disk, needs_sync)?),
                };
                let found = image.get(&id).ok_or_else(|| format!("group {id} is not on disk at all"))?;
                laws::kept_promise(&laws::Promise { index_term, ..promise }, found)
                    .map_err(|v| format!("group {id}: {v}"))?;
            }
        }
        Ok(())
    }

    /// A node takes requests of a proxy.
    pub(crate) fn note_requests(&mut self, conn: usize, life: u64, mut bytes: &[u8]) {
        while let Ok(Some(f)) = frame::next(bytes) {
            bytes = &bytes[f.consumed..];
            if f.kind == Kind::Request
                && let Ok(request) = Request::decode(f.body)
                && request.kind == RequestKind::Write
            {
                let write = (GroupId(request.partition.0 + 1), request.session, request.seq);
                self.asked.insert((conn, life, request.id), write);
            }
        }
    }

    /// A proxy takes a reply: one write has one reply, however often it was sent, and whoever answers.
    pub(crate) fn check_reply(&mut self, conn: usize, life: u64, reply: &Reply<'_>) -> Result<(), String> {
        let Some((group, session, seq)) = self.asked.remove(&(conn, life, reply.id)) else { return Ok(()) };
        let Status::Done(bytes) = reply.status else { return Ok(()) };
        // An answer that is not kept any more is none.
        if session == 0 || bytes.starts_with(b"-ERR outcome unknown") {
            return Ok(());
        }
        let hash = XxHash3_64::oneshot(bytes);
        let first = *self.told.entry((group, session, seq)).or_insert(hash);
        laws::stable_reply(session, seq, first, hash).map_err(|v| format!("{v} in {group}"))
    }

    /// A partition is above its quota by one command at most, or by what was judged and then changed; and by what was proposed
    /// before the limit was applied, until that is gone.
    pub(crate) fn check_memory(
        &mut self,
        node: usize,
        group: &Group,
        options: &Options,
    ) -> Result<(), String> {
        let Some((bytes, bytes_max)) = memory(group, options) else { return Ok(()) };
        let view = View::of(group);
        let known = self.groups.entry((view.group, view.incarnation)).or_default();
        // A leader and its successor may have proposed as many entries that nobody counted.
        let uncounted = 2 * options.limits.inflight_entries as u64;
        let counted_from = *known.counted_from.get_or_insert(view.applied + uncounted);
        if bytes <= bytes_max {
            if counted_from <= view.applied {
                known.within_from.get_or_insert(view.applied);
            }
        } else if known.within_from.is_some_and(|from| from <= view.applied) {
            return Err(format!("n{}: {} holds {bytes} bytes, {bytes_max} at most", node + 1, group.id()));
        }
        Ok(())
    }

    /// Whether a partition is within its quota, as it must be at rest if any key may go.
    pub(crate) fn is_within_memory(group: &Group, options: &Options) -> bool {
        let Some((quota, policy)) = options.memory else { return true };
        let Machine::Partition(machine) = group.machine() else { return true };
        !policy.evicts() || policy.is_volatile() || machine.store().logical_bytes() <= quota
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
        let before = |raft: &ringfort::shard::raft::Raft| raft.term_at(index - 1).filter(|_| first < index);
        laws::log_matching((&ea, before(ra)), (&eb, before(rb))).map_err(|v| format!("{v} in {}", a.id()))
    }
}

/// The place of a number in a list that grows to it.
fn at<T: Default>(list: &mut Vec<T>, number: usize) -> &mut T {
    if list.len() <= number {
        list.resize_with(number + 1, T::default);
    }
    &mut list[number]
}

/// What a start would find after the worst that the durability mode counts on: of the machine's crash, that nothing is left
/// that was not synced; of the process's, that everything is that was written.
fn recover(disk: &MemDisk, needs_sync: bool) -> Result<BTreeMap<u16, Recovered>, String> {
    let (image, last_stop) =
        if needs_sync { (disk.synced(), LastStop::Machine) } else { (disk.written(), LastStop::Process) };
    let options = LogOptions { last_stop, ..LogOptions::default() };
    let (_, recovered) =
        Log::open(image, options).map_err(|e| format!("a crash now would damage the log: {e}"))?;
    Ok(recovered.into_iter().map(|r| (r.group, r)).collect())
}
