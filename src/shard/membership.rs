//! Who takes part in a group, and how that changes: pure data and one pure step.
//!
//! # How a replica is replaced
//! The cluster map says what is wanted: `seats`, and `leaving` for replicas that were seated before. Raft's own
//! configuration says what is. The leader of the group compares the two and does the next step; it keeps no plan, so that
//! any crash at any step is harmless and its successor goes on.
//!
//! ```text
//!  the map (meta group)             the group (its leader, through its own log)            the map again
//!  seats {1,2,9} leaving {3}  -->   voters {1,2,3}
//!                                   -- AddLearner 9 -->  snapshot and log flow to 9
//!                                   -- 9 has caught up: Enter +9 -3 -->  {1,2,3} and {1,2,9} must both agree
//!                                   -- Leave -->  voters {1,2,9}                     -->   leaving {}
//! ```
//!
//! - **One change at a time**: none while one is under way or leadership is being handed over ([`super::raft::Raft::change`]).
//! - A learner is promoted only when it answers, needs no snapshot and is close to the end of the log.
//! - A step that would leave the new voters without a live majority is not done.
//! - A leader never removes itself: it hands leadership to a voter that stays, which goes on.
//! - **An old map does no harm**: each change carries the epoch of the map that it was made from, and nobody makes one from
//!   an older map than the last change's. So a replica that has left never comes back; its id is never used again.
//! - Only a joint change alters the voters, and it is made of two entries. A replica that holds the second knows that the
//!   first is committed (the message that brought it said so, and [`super::raft::Raft::take_ready`] keeps the two
//!   together), and does not campaign before it has applied it; hence nobody campaigns with voters that are two steps old.
//! - **An id is taken in once.** Of the wanted replicas only those that never took part are added. One that had left when the
//!   map wanted it back is reported as gone ([`Step::Lacking`]), and its node gets a new one: the map may have forgotten
//!   it meanwhile, and with it its votes. A leader that lacks any other one is leader no more, without knowing: it waits.
//! - When the map takes back what it had wanted, there may be nothing to change. Before the leader calls that done it has the
//!   group's log say so ([`Change::Fence`]): else one with an older map could still do what is not wanted any more, after
//!   the meta group has forgotten it.
//! - A change takes effect where it is known to be committed. So a leader calls a replacement done only when an entry
//!   after it is committed ([`super::raft::Raft::settle`]): then a majority knows, and any one more replica may be lost.

use super::raft::Follower;
use ringfort_wire::frame::{Reader, WireError};

/// Entries by which a learner may be behind and count as caught up.
pub const LAG_MAX: u64 = 256;

/// Who takes part in a group, at one index of its log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// Epoch of the cluster map that the last change was made from, 0 before any.
    pub epoch: u64,
    /// Those who vote; in a joint configuration the new ones. Ascending.
    pub voters: Vec<u64>,
    /// In a joint configuration the old voters, else empty. Ascending.
    pub outgoing: Vec<u64>,
    /// Those who receive everything and do not vote. Ascending.
    pub learners: Vec<u64>,
}

/// A change of the membership: one entry of the group's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new replica begins to receive everything.
    AddLearner(u64),
    /// A replica that never became a voter leaves.
    RemoveLearner(u64),
    /// From now on the old and the new voters must both agree.
    Enter {
        /// Become voters.
        add: Vec<u64>,
        /// Will not be members any more.
        remove: Vec<u64>,
    },
    /// From now on the new voters decide alone.
    Leave,
    /// Nobody comes or goes; but from now on no older map counts.
    Fence,
}

/// What the cluster map wants of a group.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Epoch of the map.
    pub epoch: u64,
    /// The replicas that are to vote; at least one.
    pub replicas: &'a [u64],
    /// Those of them that may be taken in, as they never took part as far as the map knows.
    pub joining: &'a [u64],
    /// Those that were to leave, and are wanted back: they may have left already.
    pub returned: &'a [u64],
    /// Epoch of the last map that took back what one before it had wanted; 0: none did.
    pub turned_epoch: u64,
}

/// What the leader does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Propose this.
    Change(Change),
    /// Hand leadership to this replica: the leader itself is to leave.
    Transfer(u64),
    /// These replicas are wanted and have left the group: others must take their seats.
    Lacking(Vec<u64>),
    /// The membership is as wanted.
    Done,
    /// Wait: a learner catches up, or too few answer.
    Wait,
}

impl Membership {
    /// A group that begins with these voters.
    pub fn founded(voters: &[u64]) -> Self {
        let mut voters = voters.to_vec();
        voters.sort_unstable();
        Self { voters, ..Self::default() }
    }

    /// Whether it takes part.
    pub fn contains(&self, replica: u64) -> bool {
        [&self.voters, &self.outgoing, &self.learners].into_iter().any(|list| list.contains(&replica))
    }

    /// Whether old and new voters must both agree.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// The membership as bytes: epoch (8), then voters, outgoing and learners, each a count (4) and the ids (8 each).
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.epoch.to_le_bytes().to_vec();
        for list in [&self.voters, &self.outgoing, &self.learners] {
            put_ids(&mut out, list);
        }
        out
    }

    /// Reads it; `None` for no bytes, which older versions wrote: the group is as it was founded.
    ///
    /// # Errors
    /// It is malformed.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let mut r = Reader::new(bytes, "membership");
        let membership =
            Self { epoch: r.u64()?, voters: ids(&mut r)?, outgoing: ids(&mut r)?, learners: ids(&mut r)? };
        if r.is_empty() && !membership.voters.is_empty() { Ok(Some(membership)) } else { Err(r.malformed()) }
    }

    /// The next step towards what the map wants, for leader `own` whose log ends at `last`.
    pub fn step(&self, map: Wanted<'_>, own: u64, followers: &[Follower], last: u64) -> Step {
        let wanted = map.replicas;
        if map.epoch < self.epoch || wanted.is_empty() {
            return Step::Wait;
        }
        let is_live = |id: u64| {
            let near = |f: &Follower| f.is_active && f.is_replicating && f.match_index + LAG_MAX >= last;
            id == own || followers.iter().any(|f| f.replica == id && near(f))
        };
        // One that answers may be unable to write, and lags: another one then.
        let heir = |may_lead: &dyn Fn(u64) -> bool| {
            let others = followers.iter().filter(|f| self.voters.contains(&f.replica) && is_live(f.replica));
            others.filter(|f| may_lead(f.replica)).max_by_key(|f| f.match_index).map(|f| f.replica)
        };
        if self.is_joint() {
            if self.voters.contains(&own) {
                return Step::Change(Change::Leave);
            }
            // It takes part no more behind this step: one that stays has to do it.
            return heir(&|_| true).map_or(Step::Wait, Step::Transfer);
        }
        if self.epoch < map.turned_epoch {
            return Step::Change(Change::Fence);
        }
        let missing: Vec<u64> = wanted.iter().copied().filter(|&id| !self.contains(id)).collect();
        if missing.iter().any(|id| !map.joining.contains(id) && !map.returned.contains(id)) {
            return Step::Wait;
        }
        let (gone, new): (Vec<u64>, Vec<u64>) = missing.iter().partition(|id| map.returned.contains(id));
        if !gone.is_empty() {
            return Step::Lacking(gone);
        }
        if let Some(&new) = new.first() {
            return Step::Change(Change::AddLearner(new));
        }
        if let Some(&old) = self.learners.iter().find(|id| !wanted.contains(id)) {
            return Step::Change(Change::RemoveLearner(old));
        }
        // Not while every learner is still being fed: the next leader would have to begin with it anew.
        let is_fed = self.learners.is_empty() || self.learners.iter().any(|&id| is_live(id));
        if !wanted.contains(&own)
            && is_fed
            && let Some(heir) = heir(&|id| wanted.contains(&id))
        {
            return Step::Transfer(heir);
        }
        let mut remove: Vec<u64> =
            self.voters.iter().copied().filter(|id| id != &own && !wanted.contains(id)).collect();
        if self.learners.is_empty() && remove.is_empty() && wanted.contains(&own) {
            return Step::Done;
        }
        let add: Vec<u64> = self.learners.iter().copied().filter(|&id| is_live(id)).collect();
        if add.len() < self.learners.len() {
            // As many leave as come, those first that do not answer.
            remove.sort_by_key(|&id| is_live(id));
            remove.truncate(add.len());
        }
        if add.is_empty() && remove.is_empty() {
            return Step::Wait;
        }
        let stay = self.voters.iter().copied().filter(|id| !remove.contains(id));
        let next: Vec<u64> = stay.chain(add.iter().copied()).collect();
        if next.iter().filter(|&&id| is_live(id)).count() * 2 <= next.len() {
            return Step::Wait;
        }
        remove.sort_unstable();
        Step::Change(Change::Enter { add, remove })
    }
}

impl Change {
    /// The data of its log entry: kind (1), epoch of the map that it was made from (8), then for 1 and 2 an id (8), for 3
    /// the ids that come and those that go, each a count (4) and the ids (8 each).
    pub fn encode(&self, epoch: u64) -> Vec<u8> {
        let kind = match self {
            Self::AddLearner(_) => 1,
            Self::RemoveLearner(_) => 2,
            Self::Enter { .. } => 3,
            Self::Leave => 4,
            Self::Fence => 5,
        };
        let mut out = vec![kind];
        out.extend_from_slice(&epoch.to_le_bytes());
        match self {
            Self::AddLearner(id) | Self::RemoveLearner(id) => out.extend_from_slice(&id.to_le_bytes()),
            Self::Enter { add, remove } => {
                put_ids(&mut out, add);
                put_ids(&mut out, remove);
            }
            Self::Leave | Self::Fence => {}
        }
        out
    }

    /// Reads it and its epoch.
    ///
    /// # Errors
    /// It is malformed.
    pub fn decode(bytes: &[u8]) -> Result<(Self, u64), WireError> {
        let mut r = Reader::new(bytes, "change of a membership");
        let (kind, epoch) = (r.u8()?, r.u64()?);
        let change = match kind {
            1 => Self::AddLearner(r.u64()?),
            2 => Self::RemoveLearner(r.u64()?),
            3 => Self::Enter { add: ids(&mut r)?, remove: ids(&mut r)? },
            4 => Self::Leave,
            5 => Self::Fence,
            _ => return Err(r.malformed()),
        };
        if r.is_empty() { Ok((change, epoch)) } else { Err(r.malformed()) }
    }
}

fn put_ids(out: &mut Vec<u8>, ids: &[u64]) {
    out.extend_from_slice(&(ids.len() as u32).to_le_bytes());
    for id in ids {
        out.extend_from_slice(&id.to_le_bytes());
    }
}

/// Reads a count and so many ids; memory follows what is there, not the count.
fn ids(r: &mut Reader<'_>) -> Result<Vec<u64>, WireError> {
    let mut ids = Vec::new();
    for _ in 0..r.u32()? {
        ids.push(r.u64()?);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower(replica: u64, match_index: u64, is_live: bool) -> Follower {
        Follower {
            replica,
            match_index,
            is_active: is_live,
            is_replicating: is_live,
            is_voter: true,
            is_fit: true,
        }
    }

    /// Applies a change as Raft does.
    fn apply(m: &mut Membership, change: &Change) {
        match change {
            Change::AddLearner(id) => m.learners.push(*id),
            Change::RemoveLearner(id) => m.learners.retain(|l| l != id),
            Change::Enter { add, remove } => {
                m.outgoing.clone_from(&m.voters);
                m.voters.retain(|v| !remove.contains(v));
                m.voters.extend(add);
                m.learners.retain(|l| !add.contains(l));
                m.voters.sort_unstable();
            }
            Change::Leave => m.outgoing.clear(),
            Change::Fence => {}
        }
    }

    /// The next step when all that is wanted may be taken in.
    fn step(m: &Membership, epoch: u64, wanted: &[u64], own: u64, followers: &[Follower], last: u64) -> Step {
        m.step(
            Wanted { epoch, replicas: wanted, joining: wanted, returned: &[], turned_epoch: 0 },
            own,
            followers,
            last,
        )
    }

    #[test]
    fn bytes_round_trip_and_garbage_is_refused() {
        let m = Membership { epoch: 7, voters: vec![1, 2, 9], outgoing: vec![1, 2, 3], learners: vec![12] };
        assert_eq!(Membership::decode(&m.encode()), Ok(Some(m.clone())));
        assert_eq!(Membership::decode(&[]), Ok(None), "what older versions wrote");
        for cut in 1..m.encode().len() {
            assert!(Membership::decode(&m.encode()[..cut]).is_err());
        }
        let changes = [
            Change::AddLearner(9),
            Change::RemoveLearner(9),
            Change::Enter { add: vec![9], remove: vec![3] },
            Change::Leave,
            Change::Fence,
        ];
        for change in changes {
            let bytes = change.encode(5);
            assert_eq!(Change::decode(&bytes), Ok((change, 5)));
            assert!(Change::decode(&bytes[..bytes.len() - 1]).is_err());
        }
        assert!(Change::decode(&[9; 9]).is_err());
    }

    #[test]
    fn a_lost_replica_is_replaced_step_by_step() {
        let mut m = Membership::founded(&[1, 2, 3]);
        let wanted = [1, 2, 9];
        let others = [follower(2, 100, true), follower(3, 50, false)];
        assert_eq!(step(&m, 4, &wanted, 1, &others, 100), Step::Change(Change::AddLearner(9)));
        apply(&mut m, &Change::AddLearner(9));
        for learner in [follower(9, 100, false), follower(9, 100 - 1, true), follower(9, 0, true)] {
            let is_ready = learner.is_active && learner.match_index > 0;
            let last = 100 + if is_ready { 0 } else { LAG_MAX };
            let step = step(&m, 4, &wanted, 1, &[others[0], others[1], learner], last);
            assert_eq!(step != Step::Wait, is_ready, "{learner:?}: {step:?}");
        }
        let all = [others[0], others[1], follower(9, 100, true)];
        let enter = Change::Enter { add: vec![9], remove: vec![3] };
        assert_eq!(step(&m, 4, &wanted, 1, &all, 100), Step::Change(enter.clone()));
        apply(&mut m, &enter);
        assert_eq!(step(&m, 4, &wanted, 1, &all, 100), Step::Change(Change::Leave));
        apply(&mut m, &Change::Leave);
        assert_eq!(step(&m, 4, &wanted, 1, &all, 100), Step::Done);
    }

    #[test]
    fn an_older_map_than_that_of_the_last_change_does_nothing() {
        let m = Membership { epoch: 5, ..Membership::founded(&[1, 2, 9]) };
        assert_eq!(step(&m, 4, &[1, 2, 3], 1, &[follower(2, 1, true)], 1), Step::Wait);
    }

    #[test]
    fn no_step_leaves_the_new_voters_without_a_live_majority() {
        let m = Membership { learners: vec![8, 9], ..Membership::founded(&[1, 2, 3]) };
        // 8 has not caught up: 9 comes alone, and one of the old voters, none of which answers, stays for now.
        let followers = [follower(2, 100, false), follower(3, 100, false), follower(9, 100, true)];
        let enter = Change::Enter { add: vec![9], remove: vec![2] };
        assert_eq!(step(&m, 1, &[1, 8, 9], 1, &followers, 100), Step::Change(enter));
        let m = Membership { learners: vec![9], ..Membership::founded(&[1, 2, 3, 4, 5]) };
        let followers = [follower(2, 100, false), follower(3, 100, false), follower(9, 100, true)];
        assert_eq!(step(&m, 1, &[1, 2, 3, 4, 9], 1, &followers, 100), Step::Wait);
    }

    #[test]
    fn a_leader_that_is_to_leave_hands_over_and_never_removes_itself() {
        let m = Membership { learners: vec![9], ..Membership::founded(&[1, 2, 3]) };
        let followers = [follower(2, 100, false), follower(3, 100, true), follower(9, 99, true)];
        assert_eq!(step(&m, 1, &[2, 3, 9], 1, &followers, 100), Step::Transfer(3));
        let followers_of_9 = [follower(3, 100, true), follower(9, 100, false)];
        assert_eq!(step(&m, 1, &[2, 3, 9], 1, &followers_of_9, 100), Step::Wait, "9 is being fed");
        let lagging = [follower(2, 99, true), follower(3, 100, true), follower(9, 99, true)];
        assert_eq!(step(&m, 1, &[2, 3, 9], 1, &lagging, 100), Step::Transfer(3), "who has all of the log");
        let joint = Membership { outgoing: vec![1, 2, 3], ..Membership::founded(&[2, 3, 9]) };
        assert_eq!(step(&joint, 1, &[2, 3, 9], 1, &followers, 100), Step::Transfer(3));
        assert_eq!(step(&joint, 1, &[2, 3, 9], 1, &[], 100), Step::Wait);
        assert_eq!(step(&joint, 1, &[2, 3, 9], 2, &[], 100), Step::Change(Change::Leave));
        let alone = Membership { learners: vec![9], ..Membership::founded(&[1]) };
        let enter = Change::Enter { add: vec![9], remove: vec![] };
        assert_eq!(step(&alone, 1, &[9], 1, &followers, 100), Step::Change(enter));
        assert_eq!(step(&Membership::founded(&[1, 9]), 1, &[9], 1, &followers, 100), Step::Transfer(9));
    }

    #[test]
    fn a_learner_that_is_not_wanted_any_more_leaves() {
        let m = Membership { learners: vec![9], ..Membership::founded(&[1, 2, 3]) };
        assert_eq!(step(&m, 1, &[1, 2, 3], 1, &[], 1), Step::Change(Change::RemoveLearner(9)));
    }

    #[test]
    fn a_leader_that_knows_nothing_of_a_seated_replica_reports_nothing() {
        let stale = Membership::founded(&[1, 2, 3]);
        let map = Wanted { epoch: 9, replicas: &[1, 2, 9], joining: &[], returned: &[], turned_epoch: 0 };
        assert_eq!(stale.step(map, 1, &[follower(3, 100, true)], 100), Step::Wait);
    }

    #[test]
    fn who_is_wanted_back_stays_if_it_votes_and_is_replaced_if_not() {
        let back = |replicas| Wanted { epoch: 9, replicas, joining: &[], returned: &[2, 3], turned_epoch: 8 };
        let others = [follower(2, 100, true), follower(3, 100, true)];
        let mut m = Membership { epoch: 5, learners: vec![9], ..Membership::founded(&[1, 2, 3]) };
        assert_eq!(m.step(back(&[1, 2, 3]), 1, &others, 100), Step::Change(Change::Fence));
        m.epoch = 9;
        assert_eq!(m.step(back(&[1, 2, 3]), 1, &others, 100), Step::Change(Change::RemoveLearner(9)));
        m.learners.clear();
        assert_eq!(m.step(back(&[1, 2, 3]), 1, &others, 100), Step::Done);
        let left = Membership { epoch: 8, ..Membership::founded(&[1, 2, 9]) };
        assert_eq!(left.step(back(&[1, 2, 3]), 1, &others, 100), Step::Lacking(vec![3]));
        let joint = Membership { epoch: 5, outgoing: vec![1, 2, 3], ..Membership::founded(&[1, 2, 9]) };
        assert_eq!(joint.step(back(&[1, 2, 3]), 1, &others, 100), Step::Change(Change::Leave));
    }
}
