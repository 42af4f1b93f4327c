//! A register: SET of values that are each written once, GET.

use super::history::{Outcome, Phase, Tally, Time};

/// A write not seen to be done yet.
const NEVER: Time = Time::MAX;

/// The history of one register. Value 0 is the missing key, values from 1 are its SETs in the order of invocation.
///
/// Each write takes effect once, at some point between its invocation and the moment it is known to be done: its
/// acknowledgement, or the first reply that showed its value. (A write of unknown outcome may take effect late, even
/// after later writes; so the largest number is not always the newest value.) Two rules follow:
///
/// 1. While the run goes on: a read is **stale** when its value was done before some other write was invoked which in
///    turn was done before the read was invoked.
/// 2. At the end, exact: with unique values a history is linearizable if and only if no two *forward zones* overlap
///    and no *backward zone* lies within a forward zone (Gibbons and Korach, "Testing Shared Memories", 1997, §4).
#[derive(Debug)]
pub(super) struct Register {
    values: Vec<Value>,
    /// The latest invocation among the writes that are done: what a read invoked now must not be older than.
    floor: Time,
    /// Batch and invocation of the last acknowledged write: a later read on the same connection must see it.
    last_ack: (u64, Time),
    tally: Tally,
}

#[derive(Debug)]
struct Value {
    invoked: Time,
    /// The earliest finish and the latest start among the write and the reads of this value: the ends of its zone.
    first_finish: Time,
    last_start: Time,
    is_failed: bool,
}

impl Register {
    pub(super) fn new() -> Self {
        let missing = Value { invoked: 0, first_finish: 0, last_start: 0, is_failed: false };
        Self { values: vec![missing], floor: 0, last_ack: (u64::MAX, 0), tally: Tally::default() }
    }

    /// Starts a SET and returns its number.
    pub(super) fn begin_write(&mut self, now: Time) -> u32 {
        let number = self.values.len() as u32;
        self.values.push(Value { invoked: now, first_finish: NEVER, last_start: now, is_failed: false });
        number
    }

    pub(super) fn end_write(&mut self, number: u32, batch: u64, outcome: &Outcome<'_>, now: Time) {
        let value = &mut self.values[number as usize];
        match outcome {
            Outcome::Done(_) => {
                value.first_finish = value.first_finish.min(now);
                self.floor = self.floor.max(value.invoked);
                self.last_ack = (batch, value.invoked);
            }
            Outcome::Failed => value.is_failed = true,
            Outcome::Unknown => {}
        }
    }

    /// What a read invoked now must not be older than.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// Whether a read of `number` shows that an acknowledged write is gone.
    pub(super) fn is_older(&self, number: Option<u32>, floor: u64, batch: u64) -> bool {
        let floor = if batch == self.last_ack.0 { floor.max(self.last_ack.1) } else { floor };
        match number.and_then(|n| self.values.get(n as usize)) {
            Some(value) => value.first_finish < floor,
            None => true,
        }
    }

    /// Judges a read; `number` is `None` for a value that nobody wrote.
    pub(super) fn end_read(
        &mut self,
        number: Option<u32>,
        (floor, batch, invoked, now): (u64, u64, Time, Time),
        phase: Phase,
    ) -> Option<String> {
        let is_older = self.is_older(number, floor, batch);
        let Some((number, value)) = number.and_then(|n| Some((n, self.values.get_mut(n as usize)?))) else {
            self.tally.lost += 1;
            return Some("holds a value that nobody wrote".to_owned());
        };
        value.first_finish = value.first_finish.min(now);
        value.last_start = value.last_start.max(invoked);
        self.floor = self.floor.max(value.invoked);
        if value.is_failed {
            self.tally.duplicated += 1;
            return Some(format!("write {number} took effect although it was answered as not done"));
        }
        if is_older {
            self.tally.missing(phase, 1);
            let word = if phase == Phase::Final { "ends" } else { "was read" };
            let last = self.values.len() - 1;
            return Some(format!(
                "{word} at value {number} after a newer one was acknowledged ({last} sent)"
            ));
        }
        None
    }

    /// The exact check over the whole history (rule 2).
    pub(super) fn finish(&mut self) -> Option<String> {
        if self.tally != Tally::default() || self.is_linearizable() {
            return None;
        }
        self.tally.stale += 1;
        Some("no order of its writes explains the values that were read".to_owned())
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    fn is_linearizable(&self) -> bool {
        let zones = self.values.iter().filter(|v| v.first_finish != NEVER);
        let (mut forward, backward): (Vec<_>, Vec<_>) =
            zones.map(|v| (v.first_finish, v.last_start)).partition(|(finish, start)| finish < start);
        forward.sort_unstable();
        if forward.windows(2).any(|pair| pair[1].0 < pair[0].1) {
            return false;
        }
        backward.iter().all(|&(high, low)| {
            // Forward zones do not overlap: only the last one that begins before `low` can hold [low, high].
            let after = forward.partition_point(|zone| zone.0 < low);
            after == 0 || forward[after - 1].1 <= high
        })
    }
}
