//! Linearizability of one string key under any mix of commands (Herlihy and Wing 1990): whether one order of the calls
//! explains every answer, in which each takes effect at some instant between its begin and its end.
//!
//! Keys are independent, so a history is checked key by key (P-compositionality: Horn and Kroening 2015, after Herlihy
//! and Wing's theorem 1). Each is searched as by Wing and Gong (1993) with the memory of Lowe ("Testing for
//! linearizability", 2017), in the form that Lowe calls just-in-time: the events go by in the order of time, and what is
//! kept is a set of *configurations* - a value, and which of the open calls have taken effect. When a call ends, each
//! configuration is carried on by every sequence of open calls that ends with it; those that cannot are dropped, and when
//! none is left no order explains the history. Exact: both answers are proofs.
//!
//! A call whose outcome nobody knows stays open for ever: it may take effect once at any later time, or never. Three
//! observations keep the set small, none loses an answer:
//!
//! - a call whose answer says that it changes nothing (a read, a compare-and-set that failed) takes effect as soon as it can;
//! - of two configurations that differ only in calls of unknown outcome, one that used fewer of them can do all that the
//!   other one can;
//! - of two equal calls of unknown outcome the earlier one is used first.

mod cell;
#[cfg(test)]
mod tests;

pub use cell::{Answer, Op, Value};

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

/// Most open calls of known outcome at a time.
const OPEN_MAX: usize = 128;
/// Most configurations that the end of one call may lead to; beyond, the history is [`Fault::TooHard`].
const CONFIGURATIONS_MAX: usize = 200_000;
/// Values that a fault names.
const VALUES_NAMED: usize = 4;

/// One command and what came of it. A command that was surely not executed is no call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The command.
    pub op: Op,
    /// When it was sent.
    pub begin: u64,
    /// When its answer came, and the answer; `None`: nobody knows what became of it.
    pub end: Option<(u64, Answer)>,
}

/// Why a history was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No order of the calls explains it.
    #[error("no order explains {call}: before it the key held {}", values(.before))]
    NotLinearizable {
        /// The first call that cannot have been answered so.
        call: Call,
        /// Some of the values that the key may have had before.
        before: Vec<Value>,
    },
    /// The search was given up: too many calls were open at a time.
    #[error("undecided: too many calls were open at {at}")]
    TooHard {
        /// When.
        at: u64,
    },
}

/// `begin-end COMMAND -> answer`.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (command, words) = self.op.words();
        let end = self.end.as_ref().map_or_else(|| "?".to_owned(), |(end, _)| end.to_string());
        write!(f, "{}-{end} {command}", self.begin)?;
        for word in words {
            write!(f, " {}", word.escape_ascii())?;
        }
        match &self.end {
            None => Ok(()),
            Some((_, Answer::Ok)) => write!(f, " -> OK"),
            Some((_, Answer::Integer(n))) => write!(f, " -> :{n}"),
            Some((_, Answer::Value(value))) => write!(f, " -> {}", name(value)),
            Some((_, Answer::NotInteger)) => write!(f, " -> not an integer"),
        }
    }
}

fn name(value: &Value) -> String {
    match value {
        Some(bytes) => format!("\"{}\"", bytes.escape_ascii()),
        None => "nothing".to_owned(),
    }
}

fn values(before: &[Value]) -> String {
    before.iter().map(name).collect::<Vec<_>>().join(" or ")
}

/// A value, and the calls that have taken effect: open ones of known outcome by their place, others by their number.
#[derive(Debug, Clone)]
struct Configuration {
    value: Value,
    done: u128,
    used: Vec<u32>,
}

/// Configurations none of which makes another one needless.
#[derive(Debug, Default)]
struct Configurations {
    by_state: BTreeMap<(Value, u128), Vec<Vec<u32>>>,
    len: usize,
}

impl Configurations {
    /// Adds one; false when one that can do as much is there.
    fn insert(&mut self, c: &Configuration) -> bool {
        let used = self.by_state.entry((c.value.clone(), c.done)).or_default();
        if used.iter().any(|fewer| is_subset(fewer, &c.used)) {
            return false;
        }
        let before = used.len();
        used.retain(|more| !is_subset(&c.used, more));
        used.push(c.used.clone());
        self.len = self.len + used.len() - before;
        true
    }

    fn into_iter(self) -> impl Iterator<Item = Configuration> {
        self.by_state.into_iter().flat_map(|((value, done), all)| {
            all.into_iter().map(move |used| Configuration { value: value.clone(), done, used })
        })
    }
}

/// Whether the ascending `a` is part of the ascending `b`.
fn is_subset(a: &[u32], b: &[u32]) -> bool {
    let mut b = b.iter();
    a.iter().all(|x| b.any(|y| x == y))
}

/// The calls under way at one moment.
#[derive(Debug)]
struct Open<'a> {
    /// By place.
    known: Vec<Option<&'a Call>>,
    /// In the order of their begin.
    unknown: Vec<&'a Op>,
}

impl Open<'_> {
    /// Lets every open call take effect that changes nothing whenever it does, if it can now: it might not later.
    fn settle(&self, c: &mut Configuration) {
        for (place, call) in self.known.iter().enumerate() {
            if let Some(Call { op, end: Some((_, answer)), .. }) = call
                && c.done & 1 << place == 0
                && op.is_idle(answer)
                && op.apply(&c.value).1 == *answer
            {
                c.done |= 1 << place;
            }
        }
    }

    /// The configurations that one more call may lead to.
    fn next<'a>(&'a self, c: &'a Configuration) -> impl Iterator<Item = Configuration> + 'a {
        let known = self.known.iter().enumerate().filter_map(move |(place, call)| {
            let Call { op, end: Some((_, answer)), .. } = (*call)? else { return None };
            let (value, told) = op.apply(&c.value);
            let is_right = c.done & 1 << place == 0 && told == *answer;
            is_right.then(|| Configuration { value, done: c.done | 1 << place, used: c.used.clone() })
        });
        let is_free = |n: usize| c.used.binary_search(&(n as u32)).is_err();
        let unknown = self.unknown.iter().enumerate().filter_map(move |(n, op)| {
            if !is_free(n) || (0..n).any(|earlier| is_free(earlier) && self.unknown[earlier] == *op) {
                return None;
            }
            let (value, _) = op.apply(&c.value);
            let mut used = c.used.clone();
            used.insert(used.partition_point(|&u| (u as usize) < n), n as u32);
            (value != c.value).then_some(Configuration { value, done: c.done, used })
        });
        known.chain(unknown)
    }
}

/// Checks the calls of one key, which begins without a value.
///
/// Cost: about linear in the calls; exponential at worst in those that are open at the same time.
///
/// # Errors
/// No order of the calls explains the answers, or the search was given up.
pub fn check(calls: &[Call]) -> Result<(), Fault> {
    let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * calls.len());
    for (i, call) in calls.iter().enumerate() {
        match &call.end {
            Some((end, _)) => events.extend([(call.begin, false, i), (*end, true, i)]),
            None if call.op.is_write() => events.push((call.begin, false, i)),
            None => {}
        }
    }
    // What ends when another begins may come after it: begins go first.
    events.sort_unstable();
    let mut open = Open { known: Vec::new(), unknown: Vec::new() };
    let mut places = vec![0; calls.len()];
    let mut configurations = Configurations::default();
    configurations.insert(&Configuration { value: None, done: 0, used: Vec::new() });
    for (at, is_end, i) in events {
        let call = &calls[i];
        match &call.end {
            None => open.unknown.push(&call.op),
            Some(_) if !is_end => {
                let free = open.known.iter().position(Option::is_none);
                places[i] = free.unwrap_or(open.known.len());
                if places[i] == OPEN_MAX {
                    return Err(Fault::TooHard { at });
                }
                open.known.resize(open.known.len().max(places[i] + 1), None);
                open.known[places[i]] = Some(call);
            }
            Some(_) => {
                let before = configurations.by_state.keys().map(|(v, _)| v.clone()).take(VALUES_NAMED);
                let before: Vec<Value> = before.collect();
                configurations = end(configurations, &open, places[i]).ok_or(Fault::TooHard { at })?;
                if configurations.len == 0 {
                    return Err(Fault::NotLinearizable { call: call.clone(), before });
                }
                open.known[places[i]] = None;
            }
        }
    }
    Ok(())
}

/// Carries the configurations on until the call at `place` has taken effect, and forgets it. `None`: too many.
fn end(configurations: Configurations, open: &Open<'_>, place: usize) -> Option<Configurations> {
    let mut seen = Configurations::default();
    let mut next = Configurations::default();
    let mut queue: VecDeque<Configuration> = VecDeque::new();
    let mut take = |mut c: Configuration, queue: &mut VecDeque<Configuration>| {
        open.settle(&mut c);
        if c.done & 1 << place != 0 {
            c.done &= !(1 << place);
            next.insert(&c);
        } else if seen.insert(&c) {
            queue.push_back(c);
        }
        seen.len + next.len <= CONFIGURATIONS_MAX
    };
    for c in configurations.into_iter() {
        if !take(c, &mut queue) {
            return None;
        }
    }
    // Breadth first, so that those with fewer used calls come before those that they make needless.
    while let Some(c) = queue.pop_front() {
        for after in open.next(&c) {
            if !take(after, &mut queue) {
                return None;
            }
        }
    }
    Some(next)
}
