//! The search over all orders (Wing and Gong 1993), with memory of what was tried (Lowe 2017): the reference for the
//! checkers, exponential, for small histories.

use super::register::Register;
use super::sequence::Sequence;
use super::{NEVER, Span};
use std::collections::BTreeSet;

/// Whether some order of the operations is legal: `step(state, operation)` gives the next state, `None` if it cannot be
/// the next. Operations that never return may be left out.
fn search<S: Clone + Ord>(spans: &[Span], initial: S, step: &dyn Fn(&S, usize) -> Option<S>) -> bool {
    let needed: u32 = (0..spans.len()).filter(|&i| spans[i].ret != NEVER).map(|i| 1 << i).sum();
    let mut seen = BTreeSet::new();
    let mut stack = vec![(0u32, initial)];
    while let Some((done, state)) = stack.pop() {
        if done & needed == needed {
            return true;
        }
        if !seen.insert((done, state.clone())) {
            continue;
        }
        for (i, span) in spans.iter().enumerate().filter(|(i, _)| done & (1 << i) == 0) {
            let is_first = (0..spans.len()).all(|j| done & (1 << j) != 0 || !spans[j].precedes(*span));
            if is_first && let Some(next) = step(&state, i) {
                stack.push((done | 1 << i, next));
            }
        }
    }
    false
}

pub(crate) fn is_register_linearizable(register: &Register) -> bool {
    let writes = register.writes.len();
    let spans: Vec<Span> =
        register.writes.iter().map(|w| w.1).chain(register.reads.iter().map(|r| r.1)).collect();
    search(&spans, None, &|state: &Option<u64>, i| {
        if i < writes {
            Some(Some(register.writes[i].0))
        } else {
            (register.reads[i - writes].0 == *state).then_some(*state)
        }
    })
}

/// As [`Sequence::check`] for a counter: additions know their result or nothing.
pub(crate) fn is_counter_linearizable(counter: &Sequence) -> bool {
    let ops: Vec<(Option<u64>, bool, Span)> = counter
        .additions
        .iter()
        .map(|a| (Some(a.0), true, a.1))
        .chain(counter.unknown.iter().map(|&invoke| (None, true, Span { invoke, ret: NEVER })))
        .chain(counter.reads.iter().map(|r| (Some(r.0), false, r.1)))
        .collect();
    let spans: Vec<Span> = ops.iter().map(|o| o.2).collect();
    search(&spans, 0, &|count: &u64, i| match ops[i] {
        (Some(result), true, _) => (result == count + 1).then_some(count + 1),
        (None, _, _) => Some(count + 1),
        (Some(seen), false, _) => (seen == *count).then_some(*count),
    })
}
