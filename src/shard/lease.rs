//! The leader's lease: a time until which no other replica can have become leader.
//!
//! The library's own lease-based read is not one (it answers for as long as the role is leader). Here a lease is bought
//! by a round that a quorum confirmed - a ReadIndex round, or an entry of the own term that committed - and counts from
//! the moment before that round was sent: every voter of the quorum has heard from this leader since, and neither
//! campaigns nor votes for [`ELECTION_TICKS_MIN`] ticks after that (pre-vote and check-quorum are on; a restarted voter
//! is silent for as long; ticks never burst). LeaseGuard (2026) discusses the general form.

use super::raft::{ELECTION_TICKS_MIN, TICK_MS};

/// Part of the time that is given away for clocks that run at different speeds, percent.
const DRIFT_PERCENT: u64 = 10;

/// How long a confirmed round is good for, microseconds of CLOCK_BOOTTIME.
pub const LEASE_US: u64 = (ELECTION_TICKS_MIN as u64 - 1) * TICK_MS * 1000 * (100 - DRIFT_PERCENT) / 100;

/// The lease of one group's leader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lease {
    until_us: u64,
    term: u64,
    /// A transfer that was begun may succeed late, past every timer: no lease for the rest of that term.
    is_void: bool,
    /// Rounds that left up to then were confirmed by other members than those that decide now.
    members_since_us: u64,
}

impl Lease {
    /// Extends the lease by a round of `term` that left at `issued_us` and was confirmed by a quorum.
    pub fn confirm(&mut self, term: u64, issued_us: u64) {
        if term > self.term {
            *self = Self { until_us: 0, term, is_void: false, ..*self };
        }
        if term == self.term && !self.is_void && self.members_since_us < issued_us {
            self.until_us = self.until_us.max(issued_us + LEASE_US);
        }
    }

    /// Ends the lease for the rest of `term`: leadership is being handed over.
    pub fn void(&mut self, term: u64) {
        if term >= self.term {
            *self = Self { until_us: 0, term, is_void: true, ..*self };
        }
    }

    /// Ends the lease until a round that leaves after `now_us` is confirmed: the membership has changed.
    pub fn members_changed(&mut self, now_us: u64) {
        self.until_us = 0;
        self.members_since_us = now_us;
    }

    /// Whether the leader of `term` may answer a read that it executed before `now_us`.
    pub fn covers(&self, term: u64, now_us: u64) -> bool {
        term == self.term && !self.is_void && now_us < self.until_us
    }

    /// Whether it is time to renew: less than half of it is left.
    pub fn is_half_gone(&self, term: u64, now_us: u64) -> bool {
        !self.covers(term, now_us + LEASE_US / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_from_the_issue_not_from_the_confirmation() {
        let mut lease = Lease::default();
        lease.confirm(3, 1_000_000);
        assert!(lease.covers(3, 1_000_000 + LEASE_US - 1));
        assert!(!lease.covers(3, 1_000_000 + LEASE_US));
    }

    #[test]
    fn is_shorter_than_the_time_in_which_a_voter_stays_loyal() {
        assert!(LEASE_US < ELECTION_TICKS_MIN as u64 * TICK_MS * 1000);
    }

    #[test]
    fn is_over_in_time_on_a_clock_that_is_a_tenth_slower() {
        // The first tick may come at once, so a voter's clock has passed one tick less than it counted.
        let loyal_us = (ELECTION_TICKS_MIN as u64 - 1) * TICK_MS * 1000;
        assert!(LEASE_US * 10 <= loyal_us * 9, "a lease of {LEASE_US} us");
    }

    #[test]
    fn a_transfer_voids_the_rest_of_the_term() {
        let mut lease = Lease::default();
        lease.confirm(3, 5);
        lease.void(3);
        lease.confirm(3, 6);
        assert!(!lease.covers(3, 7));
        lease.confirm(4, 6);
        assert!(lease.covers(4, 7));
    }

    #[test]
    fn a_change_of_the_members_asks_for_a_later_round() {
        let mut lease = Lease::default();
        lease.confirm(3, 5);
        lease.members_changed(9);
        lease.confirm(3, 9);
        lease.confirm(4, 8);
        assert!(!lease.covers(3, 10) && !lease.covers(4, 10));
        lease.confirm(4, 10);
        assert!(lease.covers(4, 11));
    }

    #[test]
    fn a_lease_of_an_older_term_is_none() {
        let mut lease = Lease::default();
        lease.confirm(3, 5);
        assert!(!lease.covers(4, 6));
    }
}
