//! Known-bad histories are refused, each beside a good twin; and the search agrees with one that tries every order.

use super::{Answer, Call, Fault, Op, Value, check};
use crate::rng::Rng;

/// Random histories that are compared with the reference.
const HISTORIES: u64 = 20_000;

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// Reads one line of a history: `begin-end COMMAND -> answer`. `begin-?` ends nowhere: its outcome is unknown. An answer
/// is `OK`, `:n`, `nil`, `NaN` (no number) or a value.
fn call(line: &str) -> Call {
    let (span, rest) = line.trim().split_once(' ').unwrap();
    let (begin, end) = span.split_once('-').unwrap();
    let (command, answer) = rest.split_once(" -> ").unwrap_or((rest, ""));
    let words: Vec<&str> = command.split_whitespace().collect();
    let op = match words[..] {
        ["GET"] => Op::Get,
        ["SET", v] => Op::Set(bytes(v)),
        ["SETNX", v] => Op::SetNx(bytes(v)),
        ["SET", v, "IFEQ", e] => Op::SetIfEq { expected: bytes(e), value: bytes(v) },
        ["GETSET", v] => Op::GetSet(bytes(v)),
        ["GETDEL"] => Op::GetDel,
        ["DEL"] => Op::Del,
        ["DELIFEQ", e] => Op::DelIfEq(bytes(e)),
        ["INCR"] => Op::Incr,
        ["APPEND", v] => Op::Append(bytes(v)),
        _ => panic!("{line}"),
    };
    let answer = match answer.trim() {
        "OK" => Answer::Ok,
        "nil" => Answer::Value(None),
        "NaN" => Answer::NotInteger,
        number if number.starts_with(':') => Answer::Integer(number[1..].parse().unwrap()),
        value => Answer::Value(Some(bytes(value))),
    };
    let end = (end != "?").then(|| (end.parse().unwrap(), answer));
    Call { op, begin: begin.parse().unwrap(), end }
}

fn calls(script: &str) -> Vec<Call> {
    script.split('/').map(call).collect()
}

/// Name, a history that must be refused, and one like it that must pass.
const TWINS: &[(&str, &str, &str)] = &[
    (
        "stale read",
        "1-2 SET a -> OK / 3-4 SET b -> OK / 5-6 GET -> a",
        "1-2 SET a -> OK / 3-6 SET b -> OK / 5-6 GET -> a",
    ),
    ("lost write", "1-2 SET a -> OK / 3-4 GET -> nil", "1-3 SET a -> OK / 3-4 GET -> nil"),
    (
        "lost update: two INCRs, one effect",
        "1-4 INCR -> :1 / 2-5 INCR -> :1",
        "1-4 INCR -> :1 / 2-5 INCR -> :2",
    ),
    (
        "read of a write that was refused (which is no call)",
        "1-2 SET a -> OK / 5-6 GET -> b",
        "1-2 SET a -> OK / 3-? SET b / 5-6 GET -> b",
    ),
    (
        "two compare-and-sets succeed from one value",
        "1-2 SET a -> OK / 3-6 SET b IFEQ a -> OK / 4-7 SET c IFEQ a -> OK",
        "1-2 SET a -> OK / 3-6 SET b IFEQ a -> OK / 4-7 SET c IFEQ a -> nil",
    ),
    ("two SETNX succeed", "1-4 SETNX a -> :1 / 2-5 SETNX b -> :1", "1-4 SETNX a -> :1 / 2-5 SETNX b -> :0"),
    (
        "a compare-and-set fails although its value was there all the time",
        "1-2 SET a -> OK / 3-6 SET b IFEQ a -> nil / 7-8 GET -> a",
        "1-2 SET a -> OK / 3-6 SET b IFEQ a -> nil / 3-4 SET c -> OK / 7-8 GET -> c",
    ),
    ("duplicated increment", "1-2 INCR -> :1 / 3-4 GET -> 2", "1-2 INCR -> :1 / 2-? INCR / 3-4 GET -> 2"),
    (
        "re-ordered appends",
        "1-2 APPEND a -> :1 / 3-4 APPEND b -> :2 / 5-6 GET -> ba",
        "1-4 APPEND a -> :2 / 3-4 APPEND b -> :1 / 5-6 GET -> ba",
    ),
    (
        "an append that was answered with the wrong length",
        "1-2 APPEND a -> :1 / 3-4 APPEND b -> :1",
        "1-2 APPEND a -> :1 / 2-? DEL / 3-4 APPEND b -> :1",
    ),
    (
        "resurrected delete",
        "1-2 SET a -> OK / 3-4 DEL -> :1 / 5-6 GET -> a",
        "1-2 SET a -> OK / 3-6 DEL -> :1 / 5-6 GET -> a",
    ),
    (
        "two deletes of one value",
        "1-2 SET a -> OK / 3-6 DELIFEQ a -> :1 / 4-7 GETDEL -> a",
        "1-2 SET a -> OK / 3-6 DELIFEQ a -> :1 / 4-7 GETDEL -> nil",
    ),
    (
        "a write of unknown outcome takes effect twice",
        "1-? SET a / 2-3 GET -> a / 4-5 DEL -> :1 / 6-7 GET -> a",
        "1-? SET a / 2-3 GET -> nil / 4-5 DEL -> :0 / 6-7 GET -> a",
    ),
    (
        "an increment of unknown outcome takes effect twice",
        "1-? INCR / 2-3 GET -> 1 / 4-5 GET -> 2",
        "1-? INCR / 2-3 GET -> 1 / 3-? INCR / 4-5 GET -> 2",
    ),
    ("a read before its write began", "1-2 GET -> a / 3-4 SET a -> OK", "1-3 GET -> a / 3-4 SET a -> OK"),
    (
        "a read before a write of unknown outcome began",
        "1-2 GET -> a / 3-? SET a",
        "1-3 GET -> a / 3-? SET a",
    ),
    (
        "a value goes away and comes back",
        "1-2 SET a -> OK / 3-? SET b / 5-6 GET -> b / 7-8 GET -> a",
        "1-2 SET a -> OK / 3-? SET b / 5-6 GET -> a / 7-8 GET -> b",
    ),
    (
        "two readers disagree on the order of two writes",
        "1-9 SET a -> OK / 1-9 SET b -> OK / 2-3 GET -> a / 4-5 GET -> b / 6-7 GET -> a",
        "1-9 SET a -> OK / 1-9 SET b -> OK / 2-3 GET -> a / 4-5 GET -> b / 6-7 GET -> b",
    ),
    (
        "GETSET returns a value that was replaced before",
        "1-2 SET a -> OK / 3-4 SET b -> OK / 5-6 GETSET c -> a",
        "1-2 SET a -> OK / 3-5 SET b -> OK / 5-6 GETSET c -> a",
    ),
    (
        "an increment of a value that is gone",
        "1-2 SET 5 -> OK / 3-4 DEL -> :1 / 5-6 INCR -> :6",
        "1-2 SET 5 -> OK / 3-4 DEL -> :1 / 5-6 INCR -> :1",
    ),
    (
        "an increment is refused although the key held a number all the time",
        "1-2 SET 5 -> OK / 3-4 INCR -> NaN",
        "1-2 SET 5 -> OK / 3-? APPEND x / 3-4 INCR -> NaN",
    ),
    (
        "a delete of unknown outcome undone",
        "1-2 SET a -> OK / 3-? DEL / 4-5 GET -> nil / 6-7 GET -> a",
        "1-2 SET a -> OK / 3-? DEL / 4-5 GET -> a / 6-7 GET -> nil",
    ),
];

#[test]
fn bad_histories_are_refused_and_their_good_twins_pass() {
    for (name, bad, good) in TWINS {
        assert!(matches!(check(&calls(bad)), Err(Fault::NotLinearizable { .. })), "passes: {name}: {bad}");
        assert_eq!(check(&calls(good)), Ok(()), "{name}, the good twin: {good}");
        assert!(!try_all_orders(&calls(bad)) && try_all_orders(&calls(good)), "the reference: {name}");
    }
}

#[test]
fn a_fault_names_the_call_and_what_was_there() {
    let fault = check(&calls("1-2 SET a -> OK / 3-4 SET b -> OK / 5-6 GET -> a")).unwrap_err();
    assert!(matches!(&fault, Fault::NotLinearizable { call, before }
        if call.op == Op::Get && before[..] == [Some(bytes("b"))]));
    let text = "no order explains 5-6 GET -> \"a\": before it the key held \"b\"";
    assert_eq!(fault.to_string(), text);
}

#[test]
fn what_is_too_hard_is_not_passed_in_silence() {
    // Every order of so many appends of unknown outcome is another value.
    let mut history: Vec<Call> = (0..12).map(|n| call(&format!("1-? APPEND {n}"))).collect();
    history.push(call("2-3 GET -> none of them"));
    assert_eq!(check(&history), Err(Fault::TooHard { at: 3 }));
}

/// Tries every order: the definition, word for word. For a few calls.
fn try_all_orders(calls: &[Call]) -> bool {
    fn go(calls: &[Call], done: u32, value: &Value) -> bool {
        let is_left = |i: &usize| done & 1 << i == 0;
        if (0..calls.len()).filter(is_left).all(|i| calls[i].end.is_none()) {
            return true;
        }
        (0..calls.len()).filter(is_left).any(|i| {
            let ends_before = |j: usize| calls[j].end.as_ref().is_some_and(|(end, _)| *end < calls[i].begin);
            let (after, told) = calls[i].op.apply(value);
            !(0..calls.len()).filter(is_left).any(ends_before)
                && calls[i].end.as_ref().is_none_or(|(_, answer)| *answer == told)
                && go(calls, done | 1 << i, &after)
        })
    }
    go(calls, 0, &None)
}

fn random_op(rng: &mut Rng) -> Op {
    let value = |rng: &mut Rng| bytes(["1", "2", "x"][rng.index(3)]);
    match rng.below(14) {
        0..4 => Op::Get,
        4 => Op::Set(value(rng)),
        5 => Op::SetNx(value(rng)),
        6..8 => Op::SetIfEq { expected: value(rng), value: value(rng) },
        8 => Op::GetSet(value(rng)),
        9 => Op::GetDel,
        10 => Op::Del,
        11 => Op::DelIfEq(value(rng)),
        12 => Op::Incr,
        _ => Op::Append(value(rng)),
    }
}

/// The history of `len` calls that took effect one after the other at the times 2, 4, 6, ...
fn true_history(rng: &mut Rng, len: u64, overlap: u64, unknown_one_in: u64) -> Vec<Call> {
    let mut value = None;
    let mut history = Vec::new();
    for n in 1..=len {
        let (op, at) = (random_op(rng), 2 * n);
        let begin = at - rng.below(overlap + 1).min(at);
        let is_unknown = rng.below(unknown_one_in) == 0;
        let is_done = !is_unknown || rng.below(2) == 0;
        let (after, answer) = op.apply(&value);
        if is_done {
            value = after;
        }
        history.push(Call { op, begin, end: (!is_unknown).then(|| (at + rng.below(overlap + 1), answer)) });
    }
    history
}

/// Changes one answer, one time, or one command.
fn mutate(rng: &mut Rng, history: &mut [Call]) {
    let other = random_op(rng).apply(&Some(bytes(["1", "2", "x", "12"][rng.index(4)]))).1;
    let at = rng.below(40);
    let i = rng.index(history.len());
    let call = &mut history[i];
    match (rng.below(4), &mut call.end) {
        (0, Some((_, answer))) => *answer = other,
        (1, Some((end, _))) => *end = at.max(call.begin),
        (2, end) => call.begin = end.as_ref().map_or(at, |(end, _)| at.min(*end)),
        _ => call.op = random_op(rng),
    }
}

#[test]
fn agrees_with_a_search_over_all_orders() {
    let mut rng = Rng::new(1, 0);
    let mut refused = 0u64;
    for n in 0..HISTORIES {
        let (len, overlap) = (2 + rng.below(6), 1 + rng.below(12));
        let mut history = true_history(&mut rng, len, overlap, 6);
        assert_eq!(check(&history), Ok(()), "true history {n}: {history:?}");
        mutate(&mut rng, &mut history);
        let is_right = try_all_orders(&history);
        assert_eq!(check(&history).is_ok(), is_right, "history {n}: {history:?}");
        refused += u64::from(!is_right);
    }
    assert!((HISTORIES / 10..HISTORIES * 9 / 10).contains(&refused), "{refused} of {HISTORIES} were bad");
}

#[test]
fn long_histories_with_unknown_calls_are_decided() {
    for seed in 0..20 {
        let mut rng = Rng::new(seed, 1);
        let mut history = true_history(&mut rng, 1_000, 8, 200);
        assert_eq!(check(&history), Ok(()), "seed {seed}");
        // The last known answer that is a value becomes one that nobody wrote.
        let last = history.iter_mut().rev().find_map(|c| match &mut c.end {
            Some((_, Answer::Value(value))) => Some(value),
            _ => None,
        });
        *last.unwrap() = Some(bytes("never written"));
        assert!(matches!(check(&history), Err(Fault::NotLinearizable { .. })), "seed {seed}");
    }
}
