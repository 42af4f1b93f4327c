//! What the clients did and saw, by key; and the workload's keys.

use crate::check::ephemeral::Ephemeral;
use crate::check::register::Register;
use crate::check::sequence::{List, Sequence, Token};
use crate::check::{NEVER, Span};
use ringfort_loadgen::linear::{self, Call, Fault, Op};
use std::collections::BTreeMap;

/// Bytes of one token in a list.
const TOKEN_BYTES: usize = 12;

pub(crate) const REGISTERS: u64 = 5;
pub(crate) const COUNTERS: u64 = 3;
pub(crate) const LISTS: u64 = 3;
pub(crate) const MIXED: u64 = 3;

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Register(u64),
    Counter(u64),
    List(u64),
    Ephemeral(u64),
    /// Takes every command on strings.
    Mixed(u64),
    /// Only written, to see whether a partition serves.
    Probe(u64),
}

impl Key {
    /// Its name; in a hot workload all keys but the probes are in one partition.
    pub(crate) fn name(self, is_hot: bool) -> String {
        let hot = if is_hot { "{hot}" } else { "" };
        match self {
            Self::Register(n) => format!("{hot}register:{n}"),
            Self::Counter(n) => format!("{hot}counter:{n}"),
            Self::List(n) => format!("{hot}list:{n}"),
            Self::Ephemeral(n) => format!("{hot}ephemeral:{n}"),
            Self::Mixed(n) => format!("{hot}mixed:{n}"),
            Self::Probe(n) => format!("probe:{n}"),
        }
    }
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    Get(Key),
    /// Reads a list; the connection sent this token to it last.
    GetOwn(Key, Option<Token>),
    Set(Key, u64),
    SetExpiring(Key, u64),
    Incr(Key),
    Append(Key, Token),
    MGet(Vec<Key>),
    MSet(Vec<(Key, u64)>),
    /// Any command on a mixed key.
    Mixed(Key, Op),
}

impl Ask {
    /// Its arguments.
    pub(crate) fn args(&self, is_hot: bool) -> Vec<String> {
        let mut args = Vec::new();
        match self {
            Self::Get(key) | Self::GetOwn(key, _) => args.extend(["GET".to_owned(), key.name(is_hot)]),
            Self::Set(key, value) => args.extend(["SET".to_owned(), key.name(is_hot), value.to_string()]),
            Self::SetExpiring(key, ms) => {
                args.extend([
                    "SET".to_owned(),
                    key.name(is_hot),
                    "x".to_owned(),
                    "PX".to_owned(),
                    ms.to_string(),
                ]);
            }
            Self::Incr(key) => args.extend(["INCR".to_owned(), key.name(is_hot)]),
            Self::Append(key, token) => {
                args.extend(["APPEND".to_owned(), key.name(is_hot), token_text(*token)])
            }
            Self::MGet(keys) => {
                args.push("MGET".to_owned());
                args.extend(keys.iter().map(|k| k.name(is_hot)));
            }
            Self::MSet(pairs) => {
                args.push("MSET".to_owned());
                args.extend(pairs.iter().flat_map(|(k, v)| [k.name(is_hot), v.to_string()]));
            }
            Self::Mixed(key, op) => {
                let (command, words) = op.words();
                args.extend([command.to_owned(), key.name(is_hot)]);
                args.extend(words.iter().map(|word| String::from_utf8_lossy(word).into_owned()));
            }
        }
        args
    }

    /// Its key, or its first one.
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Get(k)
            | Self::GetOwn(k, _)
            | Self::Set(k, _)
            | Self::SetExpiring(k, _)
            | Self::Incr(k)
            | Self::Append(k, _)
            | Self::Mixed(k, _) => *k,
            Self::MGet(keys) => keys[0],
            Self::MSet(pairs) => pairs[0].0,
        }
    }

    /// Whether a part of it may be executed though it failed as a whole.
    pub(crate) fn is_split(&self) -> bool {
        matches!(self, Self::MSet(_))
    }
}

fn token_text(token: Token) -> String {
    format!("{:05}.{:05};", token.0, token.1)
}

fn parse_tokens(bytes: &[u8]) -> Result<Vec<Token>, String> {
    let bad = || format!("a list holds {:?}", bytes.escape_ascii().to_string());
    if !bytes.len().is_multiple_of(TOKEN_BYTES) {
        return Err(bad());
    }
    bytes
        .chunks(TOKEN_BYTES)
        .map(|chunk| {
            let text = std::str::from_utf8(chunk).map_err(|_| bad())?;
            let (a, b) = text.trim_end_matches(';').split_once('.').ok_or_else(bad)?;
            Ok((a.parse().map_err(|_| bad())?, b.parse().map_err(|_| bad())?))
        })
        .collect()
}

/// A reply that says done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Ok,
    Integer(i64),
    /// A value, or none; several for MGET.
    Values(Vec<Option<Vec<u8>>>),
    /// An INCR of what is no number: nothing was done.
    NotInteger,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done(Answer),
    /// It was surely not executed.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// All histories.
#[derive(Debug, Default)]
pub(crate) struct History {
    registers: BTreeMap<Key, Register>,
    counters: BTreeMap<Key, Sequence>,
    lists: BTreeMap<Key, List>,
    ephemerals: BTreeMap<Key, Ephemeral>,
    mixed: BTreeMap<Key, Vec<Call>>,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) unknown: u64,
}

impl History {
    /// Takes an operation that has ended.
    pub(crate) fn record(
        &mut self,
        ask: &Ask,
        outcome: &Outcome,
        invoke: u64,
        now: u64,
    ) -> Result<(), String> {
        let answer = match outcome {
            Outcome::Done(answer) => {
                self.done += 1;
                Some(answer)
            }
            Outcome::Failed if !ask.is_split() => {
                self.failed += 1;
                return Ok(());
            }
            Outcome::Failed | Outcome::Unknown => {
                self.unknown += 1;
                None
            }
        };
        let span = Span { invoke, ret: if answer.is_some() { now } else { NEVER } };
        let strange = || format!("{ask:?} was answered {answer:?}");
        match (ask, answer) {
            (Ask::Get(_) | Ask::GetOwn(..) | Ask::MGet(_), None) => {}
            (Ask::GetOwn(key, token), Some(Answer::Values(values))) if values.len() == 1 => {
                self.record_read(*key, values[0].as_deref(), span)?;
                let list = self.lists.entry(*key).or_default();
                let seen = list.reads.last().map_or(0, |r| r.0.len());
                list.own.extend(token.map(|token| (token, seen)));
            }
            (Ask::Get(key), Some(Answer::Values(values))) if values.len() == 1 => {
                self.record_read(*key, values[0].as_deref(), span)?;
            }
            (Ask::MGet(keys), Some(Answer::Values(values))) if values.len() == keys.len() => {
                for (key, value) in keys.iter().zip(values) {
                    self.record_read(*key, value.as_deref(), span)?;
                }
            }
            (Ask::Set(key @ Key::Register(_), value), None | Some(Answer::Ok)) => {
                self.registers.entry(*key).or_default().writes.push((*value, span));
            }
            (Ask::Set(..), None | Some(Answer::Ok)) => {}
            (Ask::MSet(pairs), None | Some(Answer::Ok)) => {
                for (key, value) in pairs {
                    self.registers.entry(*key).or_default().writes.push((*value, span));
                }
            }
            (Ask::SetExpiring(key, _), None) => {
                self.ephemerals.entry(*key).or_default();
            }
            (Ask::SetExpiring(key, _), Some(Answer::Ok)) => {
                self.ephemerals.entry(*key).or_default().write = Some(span);
            }
            (Ask::Incr(key), None) => self.counters.entry(*key).or_default().unknown.push(invoke),
            (Ask::Incr(key), Some(Answer::Integer(n))) if 0 < *n => {
                self.counters.entry(*key).or_default().additions.push((*n as u64, span));
            }
            (Ask::Append(key, token), None) => {
                self.lists.entry(*key).or_default().appends.push((*token, None, span));
            }
            (Ask::Append(key, token), Some(Answer::Integer(n)))
                if (*n as usize).is_multiple_of(TOKEN_BYTES) =>
            {
                let place = *n as u64 / TOKEN_BYTES as u64;
                self.lists.entry(*key).or_default().appends.push((*token, Some(place), span));
            }
            (Ask::Mixed(key, op), answer) => {
                let answer = answer.map(|answer| linear_answer(answer).ok_or_else(strange)).transpose()?;
                let call = Call { op: op.clone(), begin: invoke, end: answer.map(|answer| (now, answer)) };
                self.mixed.entry(*key).or_default().push(call);
            }
            _ => return Err(strange()),
        }
        Ok(())
    }

    fn record_read(&mut self, key: Key, value: Option<&[u8]>, span: Span) -> Result<(), String> {
        let number = |bytes: &[u8]| {
            let text = std::str::from_utf8(bytes).ok();
            text.and_then(|t| t.parse::<u64>().ok())
                .ok_or_else(|| format!("{key:?} holds {:?}", bytes.escape_ascii().to_string()))
        };
        match key {
            Key::Register(_) => {
                let value = value.map(number).transpose()?;
                self.registers.entry(key).or_default().reads.push((value, span));
            }
            Key::Counter(_) => {
                let value = value.map(number).transpose()?;
                self.counters.entry(key).or_default().reads.push((value.unwrap_or(0), span));
            }
            Key::List(_) => {
                let tokens = parse_tokens(value.unwrap_or_default())?;
                self.lists.entry(key).or_default().reads.push((tokens, span));
            }
            Key::Ephemeral(_) => {
                self.ephemerals.entry(key).or_default().reads.push((value.is_some(), span));
            }
            // Read by `Ask::Mixed`, or not at all.
            Key::Mixed(_) | Key::Probe(_) => {}
        }
        Ok(())
    }

    /// Checks every key. Returns of how many nothing can be said: too many operations were under way at once.
    pub(crate) fn check(&self) -> Result<u64, String> {
        let registers = self.registers.iter().map(|(k, h)| (k, h.check()));
        let counters = self.counters.iter().map(|(k, h)| (k, h.check()));
        let lists = self.lists.iter().map(|(k, h)| (k, h.check()));
        let ephemerals = self.ephemerals.iter().map(|(k, h)| (k, h.check()));
        for (key, result) in registers.chain(counters).chain(lists).chain(ephemerals) {
            result.map_err(|e| format!("{}: {e}", key.name(false)))?;
        }
        let mut undecided = 0;
        for (key, calls) in &self.mixed {
            match linear::check(calls) {
                Ok(()) => {}
                Err(Fault::TooHard { .. }) => undecided += 1,
                Err(fault) => return Err(format!("{}: {fault}", key.name(false))),
            }
        }
        Ok(undecided)
    }
}

fn linear_answer(answer: &Answer) -> Option<linear::Answer> {
    Some(match answer {
        Answer::Ok => linear::Answer::Ok,
        Answer::Integer(n) => linear::Answer::Integer(*n),
        Answer::NotInteger => linear::Answer::NotInteger,
        Answer::Values(values) => match &values[..] {
            [value] => linear::Answer::Value(value.clone()),
            _ => return None,
        },
    })
}
