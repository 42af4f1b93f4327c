//! A counter: INCR and GET.

use super::history::{Outcome, Phase, Tally};

/// The history of one counter that starts at 0 and is only ever incremented by 1.
///
/// - The replies of acknowledged INCRs are all different, and larger than every value known when the INCR was invoked:
///   otherwise an increment was **lost**.
/// - No value exceeds the number of INCRs sent less those answered as not done: otherwise one was **duplicated**.
/// - A read is no smaller than every value (and the number of acknowledgements) known when it was invoked: otherwise it
///   is **stale**; the last read of all: **lost**.
#[derive(Debug, Default)]
pub(super) struct Counter {
    sent: u64,
    failed: u64,
    acknowledged: u64,
    largest: u64,
    /// Bit n: the reply n was acknowledged.
    seen: Vec<u64>,
    last_ack: (u64, u64),
    repeated: u64,
    missing_at_end: u64,
    excess: u64,
    stale: u64,
}

impl Counter {
    pub(super) fn begin_write(&mut self) {
        self.sent += 1;
    }

    pub(super) fn end_write(&mut self, floor: u64, batch: u64, outcome: &Outcome<'_>) -> Option<String> {
        match outcome {
            Outcome::Done(reply) => return self.acknowledge(reply.integer(), floor, batch),
            Outcome::Failed => self.failed += 1,
            Outcome::Unknown => {}
        }
        None
    }

    /// What a read or an INCR invoked now must not be below.
    pub(super) fn floor(&self) -> u64 {
        self.largest.max(self.acknowledged)
    }

    pub(super) fn is_below(&self, value: Option<u64>, floor: u64, batch: u64) -> bool {
        value.is_none_or(|value| value < self.read_floor(floor, batch))
    }

    pub(super) fn end_read(
        &mut self,
        value: Option<u64>,
        floor: u64,
        batch: u64,
        phase: Phase,
    ) -> Option<String> {
        let floor = self.read_floor(floor, batch);
        let read = value.unwrap_or(0);
        if let Some(complaint) = self.judge_excess(read) {
            return Some(complaint);
        }
        if read >= floor && value.is_some() {
            self.largest = self.largest.max(read);
            return None;
        }
        match phase {
            Phase::Run => self.stale += 1,
            Phase::Final => self.missing_at_end = floor.saturating_sub(read).max(1),
        }
        let shown = value.map_or_else(|| "no number".to_owned(), |value| value.to_string());
        let word = if phase == Phase::Final { "ends at" } else { "was read as" };
        Some(format!("{word} {shown} after {floor} was acknowledged"))
    }

    pub(super) fn finish(&mut self) -> Option<String> {
        self.judge_excess(self.largest)
    }

    pub(super) fn tally(&self) -> Tally {
        Tally { lost: self.repeated.max(self.missing_at_end), stale: self.stale, duplicated: self.excess }
    }

    fn acknowledge(&mut self, reply: Option<u64>, floor: u64, batch: u64) -> Option<String> {
        self.acknowledged += 1;
        let Some(value) = reply.filter(|&value| value > 0) else {
            self.repeated += 1;
            return Some("an INCR was answered with no positive number".to_owned());
        };
        if let Some(complaint) = self.judge_excess(value) {
            return Some(complaint);
        }
        let floor = self.read_floor(floor, batch);
        self.last_ack = (batch, value);
        let (word, bit) = ((value / 64) as usize, 1_u64 << (value % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        let is_repeated = self.seen[word] & bit != 0;
        self.seen[word] |= bit;
        self.largest = self.largest.max(value);
        if is_repeated || value <= floor {
            self.repeated += 1;
            return Some(format!("an INCR returned {value} after {} was known", floor.max(value)));
        }
        None
    }

    fn read_floor(&self, floor: u64, batch: u64) -> u64 {
        if batch == self.last_ack.0 { floor.max(self.last_ack.1) } else { floor }
    }

    /// A value above what was sent; it is not kept, so that one surplus is counted once and `seen` stays small.
    fn judge_excess(&mut self, value: u64) -> Option<String> {
        let possible = self.sent - self.failed;
        if value <= possible {
            return None;
        }
        let is_new = value - possible > self.excess;
        self.excess = self.excess.max(value - possible);
        is_new.then(|| format!("reached {value} although only {possible} increments were sent"))
    }
}
