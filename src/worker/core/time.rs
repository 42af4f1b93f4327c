//! How time passes for a worker: in ticks, counted by the clock, one by one while anything goes on and several at once while
//! it rests.
//!
//! A wake costs a machine tens of microseconds, whatever is done then. So a worker that rests wakes for every
//! [`REST_TICKS`]th tick only, when it also sends its heartbeats, and its answers to the heartbeats of others, which wait for
//! that. Whoever counts on either counts at least [`ELECTION_TICKS_MIN`] ticks, and hears of it twice as often. Workers that
//! rest wake at the same time, if their clocks agree: no wake is spent on what arrives a little later.
//!
//! # Invariants
//! - Between two moments no more ticks are counted than have passed, and one: ticks that are due are counted **before** a
//!   message is taken ([`WorkerCore::peer_frame`] does so), so a voter that has just heard its leader keeps to it for as long
//!   as the lease counts on ([`crate::shard::lease`]).
//! - Ticks never burst: after a stall no more are counted than were to be slept through.
//! - A worker rests only while all of its replicas are [calm](Group::is_calm): a follower that misses its leader counts every
//!   tick, so elections are as prompt as ever.

use super::WorkerCore;
use crate::clock::Now;
use crate::log::Disk;
use crate::shard::Group;
use crate::shard::raft::{ELECTION_TICKS_MIN, HEARTBEAT_TICKS, TICK_MS};

/// Ticks between two heartbeats, and two wakes, of a worker that rests (100 ms).
const REST_TICKS: u64 = 2 * HEARTBEAT_TICKS as u64;
const _: () = assert!(2 * REST_TICKS < ELECTION_TICKS_MIN as u64, "an answer that is held comes in time");
/// Ticks without anything after which a worker rests (200 ms).
const STIRRED_TICKS: u64 = 200 / TICK_MS;
/// Ticks before its rest from which on it is looked at whether a worker may.
const NOTICE_TICKS: u64 = 5;
const TICK_US: u64 = TICK_MS * 1000;
const REST_MS: u64 = REST_TICKS * TICK_MS;

/// Ticks between two looks whether its rest is in step with that of the other nodes (1 s).
const STEP_TICKS: u64 = 10 * REST_TICKS;

/// What has been counted.
#[derive(Debug, Default)]
pub(super) struct Time {
    /// Time up to which ticks are counted, µs; 0: none was.
    ticked_us: u64,
    /// How many may have passed unseen when the next are counted: until then the worker meant to sleep.
    promised: u64,
    /// Tick from which on the worker rests.
    rests_at: u64,
    /// Tick from which on it is looked whether it rests in step.
    steps_at: u64,
    /// Whether heartbeats have fallen due since messages were sent last.
    is_beat: bool,
    /// What went wrong in a tick, for the next turn.
    failure: Option<anyhow::Error>,
}

impl<D: Disk> WorkerCore<D> {
    /// Counts the ticks that have passed; returns whether there were any. To be called at [`WorkerCore::next_tick_us`] and
    /// before what peers have sent is taken. What goes wrong is what the next turn ends with.
    pub fn pass_time(&mut self, now: Now) -> bool {
        if self.time.ticked_us == 0 {
            self.time.ticked_us = now.boot_us.saturating_sub(TICK_US);
        }
        let passed = now.boot_us.saturating_sub(self.time.ticked_us) / TICK_US;
        let ticks = passed.min(self.time.promised.max(1));
        if ticks == 0 {
            return false;
        }
        debug_assert!(
            self.ticks % REST_TICKS + ticks <= REST_TICKS,
            "what is done at its multiples is not passed over"
        );
        let is_late = ticks < passed;
        self.time.ticked_us = if is_late { now.boot_us } else { self.time.ticked_us + ticks * TICK_US };
        if let Err(error) = self.tick(ticks, now) {
            self.time.failure.get_or_insert(error);
        }
        self.notice_stir();
        self.fall_in_step(now);
        self.time.promised = self.stride();
        true
    }

    /// Has a worker that rests wake at the multiples of its wait on the wall's clock. So do all whose clocks agree, and what
    /// they send each other finds them awake. Ticks may come later for it, never earlier.
    fn fall_in_step(&mut self, now: Now) {
        if !self.is_resting() || !self.ticks.is_multiple_of(REST_TICKS) || self.ticks < self.time.steps_at {
            return;
        }
        // At most once in so long, however the clock jumps.
        self.time.steps_at = self.ticks + STEP_TICKS;
        let mut next_us = now.boot_us + (REST_MS - now.wall_ms % REST_MS) * 1000;
        let mut ticks = (next_us - self.time.ticked_us) / TICK_US;
        if ticks == 0 {
            (next_us, ticks) = (next_us + REST_MS * 1000, REST_TICKS);
        }
        let ticks = ticks.min(REST_TICKS);
        let counted_us = next_us - ticks * TICK_US;
        debug_assert!(self.time.ticked_us <= counted_us, "a voter's ticks never come earlier");
        self.time.ticked_us = counted_us;
        self.ticks += REST_TICKS - ticks;
    }

    /// When the next ticks are to be counted, µs of the clock that counts the time since boot.
    pub fn next_tick_us(&self) -> u64 {
        self.time.ticked_us + self.stride() * TICK_US
    }

    /// What went wrong in a tick.
    pub(super) fn take_failure(&mut self) -> Option<anyhow::Error> {
        self.time.failure.take()
    }

    /// Ticks until the next wake: of one that rests, until its next heartbeats.
    fn stride(&self) -> u64 {
        if self.is_resting() { REST_TICKS - self.ticks % REST_TICKS } else { 1 }
    }

    pub(super) fn is_resting(&self) -> bool {
        self.time.rests_at <= self.ticks
    }

    /// Something goes on.
    pub(super) fn stir(&mut self) {
        self.time.rests_at = self.ticks + STIRRED_TICKS;
    }

    /// Looks whether something goes on that nobody has said, if the worker would rest soon.
    fn notice_stir(&mut self) {
        if self.ticks + NOTICE_TICKS < self.time.rests_at {
            return;
        }
        let is_moving = self.ports.map.as_ref().is_none_or(|map| map.change.is_some());
        let is_stirred = is_moving
            || self.is_leaving
            || self.is_full()
            || self.disk.is_slow()
            || self.is_starting
            || self.has_background_work()
            || self.has_asides()
            || self.log.borrow().is_rewriting()
            || !self.ending.is_empty()
            || !self.paused_clients.is_empty()
            || !self.received.is_empty()
            || !self.groups.iter().all(Group::is_calm);
        if is_stirred {
            self.stir();
        }
    }

    /// Whether leaders are to send heartbeats in this tick: all at once, so that they share their messages.
    pub(super) fn is_beat(&mut self) -> bool {
        let every = if self.is_resting() { REST_TICKS } else { HEARTBEAT_TICKS as u64 };
        let is_beat = self.ticks.is_multiple_of(every);
        self.time.is_beat |= is_beat;
        is_beat
    }

    /// Whether what can wait for the next heartbeats is to wait for them.
    pub(super) fn holds_answers(&mut self) -> bool {
        let was_beat = std::mem::take(&mut self.time.is_beat);
        self.is_resting() && !was_beat
    }
}
