//! A register with compare-and-set: SET, SETNX, SET IFEQ, GETSET, GETDEL, DEL, DELIFEQ, INCR and GET on one key.

use super::history::{Outcome, Phase, Tally, Time};
use crate::linear::{self, Answer, Call, Fault, Op};
use crate::reply::Reply;
use crate::rng::Rng;

/// Writes that a key takes before a fresh one replaces it: its whole history is kept until the end.
const WRITES_MAX: usize = 1024;
/// Reads that are kept of one key, the last ones of all aside.
const READS_MAX: usize = 4096;
/// Values are so far apart that INCRs of one never give another.
const STEP: u64 = 1_000_000;

/// The history of one such key; at the end it must be linearizable ([`linear`], exact). When it is not, the first call that
/// no order explains counts as **stale**, whether it saw too little or too much.
#[derive(Debug)]
pub(super) struct Mixed {
    /// The writes, in the order of their begin; `None`: surely not done.
    writes: Vec<Option<Call>>,
    reads: Vec<Call>,
    rng: Rng,
    /// The value that was sent last: what a compare-and-set expects.
    last: u64,
    tally: Tally,
}

impl Mixed {
    pub(super) fn new(object: u32) -> Self {
        Self {
            writes: Vec::new(),
            reads: Vec::new(),
            rng: Rng::new(u64::from(object), 2),
            // Another key's value is not taken for one of this key.
            last: u64::from(object) * STEP * (2 * WRITES_MAX as u64),
            tally: Tally::default(),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.writes.len() >= WRITES_MAX
    }

    /// Begins a write: its number and its command. `has_compare`: the server knows IFEQ and DELIFEQ.
    pub(super) fn begin_write(&mut self, now: Time, has_compare: bool) -> (u32, &Op) {
        let text = |value: u64| value.to_string().into_bytes();
        // What the key may hold now, or after a few INCRs.
        let expected = text(self.last + self.rng.below(3));
        let draw = self.rng.below(100);
        let is_compare = (26..62).contains(&draw);
        let mut value = || {
            self.last += STEP;
            text(self.last)
        };
        let op = match draw {
            _ if is_compare && !has_compare => Op::Incr,
            0..10 => Op::Set(value()),
            10..26 => Op::SetNx(value()),
            26..52 => Op::SetIfEq { expected, value: value() },
            52..62 => Op::DelIfEq(expected),
            62..70 => Op::GetSet(value()),
            70..76 => Op::GetDel,
            76..84 => Op::Del,
            _ => Op::Incr,
        };
        self.writes.push(Some(Call { op, begin: now, end: None }));
        let number = self.writes.len() - 1;
        (number as u32, self.writes[number].as_ref().map_or(&Op::Get, |call| &call.op))
    }

    pub(super) fn end_write(&mut self, number: u32, outcome: &Outcome<'_>, now: Time) {
        let write = &mut self.writes[number as usize];
        match (outcome, write.as_mut()) {
            (Outcome::Done(reply), Some(call)) => call.end = answer(*reply).map(|answer| (now, answer)),
            (Outcome::Failed, _) => *write = None,
            _ => {}
        }
    }

    pub(super) fn end_read(&mut self, reply: Reply<'_>, invoked: Time, now: Time, phase: Phase) {
        if phase == Phase::Run && self.reads.len() >= READS_MAX {
            return;
        }
        let answer = answer(reply).unwrap_or(Answer::NotInteger);
        self.reads.push(Call { op: Op::Get, begin: invoked, end: Some((now, answer)) });
    }

    /// Judges the history; `Err`: it could not be decided.
    pub(super) fn finish(&mut self) -> Result<Option<String>, String> {
        let calls: Vec<Call> = self.writes.iter().flatten().chain(&self.reads).cloned().collect();
        match linear::check(&calls) {
            Ok(()) => Ok(None),
            Err(fault @ Fault::TooHard { .. }) => Err(fault.to_string()),
            Err(fault @ Fault::NotLinearizable { .. }) => {
                self.tally.stale += 1;
                Ok(Some(fault.to_string()))
            }
        }
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally
    }
}

fn answer(reply: Reply<'_>) -> Option<Answer> {
    match reply {
        Reply::Simple(b"OK") => Some(Answer::Ok),
        Reply::Integer(n) => Some(Answer::Integer(n)),
        Reply::Bulk(bytes) => Some(Answer::Value(Some(bytes.to_vec()))),
        Reply::Null => Some(Answer::Value(None)),
        Reply::Simple(_) | Reply::Error(_) | Reply::Other => None,
    }
}
