//! Who leads next: a leader hands its office over because an operator asks, because it has to go, its disk is full, its node is
//! drained, or another replica is preferred.

use super::Group;
use super::raft::Follower;

impl Group {
    /// Whether a follower votes, answers, needs no snapshot, and is close to the end of the log.
    pub(super) fn could_lead(&self, follower: &Follower) -> bool {
        let last = self.raft.last_index();
        let is_near = last.saturating_sub(self.limits.behind) <= follower.match_index;
        follower.is_voter && follower.is_active && follower.is_replicating && is_near
    }

    /// Begins to hand leadership over to `replica`, or to the follower that is furthest when `None`. Returns whether a
    /// follower could be asked: a voter that answers, needs no snapshot, and is close to the end of the log. Not while the
    /// membership changes: who has not applied the change does not campaign.
    pub fn transfer(&mut self, replica: Option<u64>) -> bool {
        self.transfer_to(|heir| replica.is_none_or(|replica| heir.replica == replica))
    }

    /// The same to anybody, for a leader that has to go, also in the middle of a change: one whose disk is full may never
    /// apply what the others have committed.
    pub fn hand_over(&mut self) -> bool {
        self.transfer_now(|_| true)
    }

    /// The same to one of those that a function names, unless the members change.
    pub(super) fn transfer_to(&mut self, is_heir: impl Fn(&Follower) -> bool) -> bool {
        !self.raft.is_changing() && self.transfer_now(is_heir)
    }

    /// Rather not to one whose disk may lack room or be slow, nor to one on a drained node.
    fn transfer_now(&mut self, is_heir: impl Fn(&Follower) -> bool) -> bool {
        if !self.raft.is_leader() || self.raft.is_transferring() {
            return false;
        }
        let target = self
            .raft
            .followers()
            .into_iter()
            .filter(|f| is_heir(f) && self.could_lead(f))
            .max_by_key(|f| (f.is_fit, !self.seats.drained.contains(&f.replica), f.match_index));
        let Some(target) = target else { return false };
        // A late success of this transfer would break a lease of this term, so there is none from here on.
        self.lease.void(self.raft.term());
        self.raft.transfer_leader(target.replica);
        self.heir = Some(target.replica);
        true
    }

    /// Hands leadership to the preferred replica if another one (this) holds it; from a drained node, if that one cannot lead,
    /// to any other that is not on such a node. Returns whether it began to.
    pub fn transfer_to_preferred(&mut self) -> bool {
        let preferred = self.seats.preferred;
        let begins = !self.is_preferred()
            && self.led_ticks >= self.limits.return_ticks
            && self.is_lease_usable()
            // The next leader would have to begin anew with a replica that is being fed.
            && (!self.is_seeding() || self.seats.drained.contains(&self.raft.replica()))
            && (self.transfer_back(|heir| heir == preferred) || self.transfer_from_drained());
        if begins {
            // Writes wait until it is done or given up. One that cannot catch up, its disk being full, must not make that
            // the rule: it is not asked again before long.
            self.led_ticks = 0;
        }
        begins
    }

    fn transfer_from_drained(&mut self) -> bool {
        let drained = self.seats.drained.clone();
        drained.contains(&self.raft.replica()) && self.transfer_back(|heir| !drained.contains(&heir))
    }

    /// Not from one whose disk is well to one whose disk may not be, which would have to give it away again.
    fn transfer_back(&mut self, is_heir: impl Fn(u64) -> bool) -> bool {
        let is_hampered = self.raft.is_hampered();
        self.transfer_to(|heir| is_heir(heir.replica) && (heir.is_fit || is_hampered))
    }
}
