//! Things that only grow: counters (INCR) and lists (APPEND of unique tokens). An addition's result is its place, so the
//! order of everything that was seen is given; it must agree with real time.

use super::{NEVER, Span};
use std::collections::{BTreeMap, BTreeSet};

/// What happened to a thing that begins empty and grows by one with each addition.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    /// Size after the addition, when.
    pub(crate) additions: Vec<(u64, Span)>,
    /// Invocations of additions whose result nobody knows.
    pub(crate) unknown: Vec<u64>,
    /// Size seen, when.
    pub(crate) reads: Vec<(u64, Span)>,
}

impl Sequence {
    /// Whether one order explains all; else a sentence that says what does not fit.
    ///
    /// Exact: places are given, so two operations are ordered by them or are reads of the same size; and additions of
    /// unknown result fill the places that nobody claims, earliest first, which is best.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut places = BTreeMap::new();
        for &(place, span) in &self.additions {
            if place == 0 || places.insert(place, span).is_some() {
                return Err(format!(
                    "two additions had the result {place}: one was lost or a reply is wrong"
                ));
            }
        }
        let top = places.keys().copied().chain(self.reads.iter().map(|r| r.0)).max().unwrap_or(0);
        let mut unknown = self.unknown.clone();
        unknown.sort_unstable();
        let mut unknown = unknown.into_iter();
        // An addition that nobody acknowledged is needed for each place that nobody claims.
        for place in 1..=top {
            if let std::collections::btree_map::Entry::Vacant(vacant) = places.entry(place) {
                let Some(invoke) = unknown.next() else {
                    return Err(format!(
                        "size {place} was reached by more additions than were ever asked for"
                    ));
                };
                vacant.insert(Span { invoke, ret: NEVER });
            }
        }
        // Key: an addition to size n is 2n, a read of size n is 2n + 1.
        let mut all: Vec<(u64, Span)> = places.into_iter().map(|(n, span)| (2 * n, span)).collect();
        all.extend(self.reads.iter().map(|&(n, span)| (2 * n + 1, span)));
        all.sort_by_key(|&(key, _)| key);
        let mut latest = (0, 0);
        for same in all.chunk_by(|a, b| a.0 == b.0) {
            if let Some((key, span)) = same.iter().find(|(_, span)| span.ret < latest.0) {
                return Err(format!(
                    "{} at {span:?} came before {}, which was asked for later, at {}",
                    name(*key),
                    name(latest.1),
                    latest.0
                ));
            }
            for (key, span) in same {
                latest = latest.max((span.invoke, *key));
            }
        }
        Ok(())
    }
}

fn name(key: u64) -> String {
    if key.is_multiple_of(2) {
        format!("the addition to size {}", key / 2)
    } else {
        format!("a read of size {}", key / 2)
    }
}

/// One token of a list: the connection that appended it, its number there.
pub(crate) type Token = (u32, u32);

/// What happened to a list.
#[derive(Debug, Default)]
pub(crate) struct List {
    /// Token, size after it if that was told, when.
    pub(crate) appends: Vec<(Token, Option<u64>, Span)>,
    /// Tokens seen, when.
    pub(crate) reads: Vec<(Vec<Token>, Span)>,
    /// Of reads: the token that its connection had sent last before it, and the tokens seen.
    pub(crate) own: Vec<(Token, usize)>,
}

impl List {
    /// Whether every acknowledged token is there once and in its place, tokens of one connection are in their order, all
    /// reads are prefixes of the longest one, and one order explains all.
    pub(crate) fn check(&self) -> Result<(), String> {
        let empty = Vec::new();
        let longest = self.reads.iter().map(|r| &r.0).max_by_key(|r| r.len()).unwrap_or(&empty);
        let mut places = BTreeMap::new();
        let mut last_of = BTreeMap::new();
        for (token, place) in longest.iter().zip(1u64..) {
            if places.insert(*token, place).is_some() {
                return Err(format!("token {token:?} is there twice"));
            }
            if last_of.insert(token.0, token.1).is_some_and(|before| token.1 < before) {
                return Err(format!("token {token:?} comes after a later one of its connection"));
            }
        }
        let mut sequence = Sequence::default();
        for (read, span) in &self.reads {
            if longest[..read.len()] != read[..] {
                return Err(format!("the read at {span:?} is not a prefix of the longest one"));
            }
            sequence.reads.push((read.len() as u64, *span));
        }
        let known: BTreeSet<Token> = self.appends.iter().map(|a| a.0).collect();
        if let Some(token) = longest.iter().find(|t| !known.contains(t)) {
            return Err(format!("token {token:?} is there, which was never sent or was refused"));
        }
        for (token, told, span) in &self.appends {
            match (places.get(token), told) {
                (Some(place), Some(told)) if place != told => {
                    return Err(format!("token {token:?} is at {place}, but its reply said {told}"));
                }
                (Some(place), _) => sequence.additions.push((*place, *span)),
                // Past the end of the longest read: no final read was made.
                (None, Some(told)) if *told > longest.len() as u64 => sequence.additions.push((*told, *span)),
                (None, Some(told)) => {
                    return Err(format!("token {token:?}, acknowledged at {told}, is lost"));
                }
                (None, None) => sequence.unknown.push(span.invoke),
            }
        }
        // A read sees what its own connection wrote before it, answered or not (design 3).
        let acknowledged: BTreeSet<Token> =
            self.appends.iter().filter(|a| a.1.is_some()).map(|a| a.0).collect();
        for (token, seen) in self.own.iter().filter(|(token, _)| acknowledged.contains(token)) {
            if places.get(token).is_none_or(|&place| (*seen as u64) < place) {
                return Err(format!(
                    "a read of {seen} tokens did not see {token:?}, sent before it by its connection"
                ));
            }
        }
        sequence.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::wgl;
    use crate::rng::Rng;

    fn span(invoke: u64, ret: u64) -> Span {
        Span { invoke, ret }
    }

    #[test]
    fn refuses_a_doubled_and_a_lost_addition() {
        let doubled = Sequence {
            additions: vec![(1, span(1, 2))],
            reads: vec![(2, span(3, 4))],
            ..Sequence::default()
        };
        assert!(doubled.check().is_err());
        let lost = Sequence { additions: vec![(1, span(1, 2)), (1, span(3, 4))], ..Sequence::default() };
        assert!(lost.check().is_err());
        let forgotten = Sequence {
            additions: vec![(1, span(1, 2))],
            reads: vec![(0, span(3, 4))],
            ..Sequence::default()
        };
        assert!(forgotten.check().is_err());
    }

    #[test]
    fn unknown_additions_fill_gaps_but_not_before_they_were_asked_for() {
        let mut counter =
            Sequence { additions: vec![(2, span(5, 6))], unknown: vec![3], ..Sequence::default() };
        assert_eq!(counter.check(), Ok(()));
        counter.unknown = vec![7];
        assert!(counter.check().is_err());
    }

    #[test]
    fn agrees_with_a_search_over_all_orders() {
        let mut rng = Rng::new(2);
        let mut counts = [0, 0];
        for _ in 0..30_000 {
            let known = rng.below(4);
            let mut at = |length: u64| {
                let invoke = rng.range(1, 8);
                span(invoke, invoke + rng.below(length))
            };
            let spans: Vec<Span> = (0..8).map(|_| at(4)).collect();
            let counter = Sequence {
                additions: (0..known).map(|i| (rng.range(1, known + 1), spans[i as usize])).collect(),
                unknown: (0..rng.below(3)).map(|_| rng.range(1, 8)).collect(),
                reads: (0..rng.below(3)).map(|i| (rng.below(known + 2), spans[4 + i as usize])).collect(),
            };
            let expected = wgl::is_counter_linearizable(&counter);
            assert_eq!(counter.check().is_ok(), expected, "{counter:?}");
            counts[usize::from(expected)] += 1;
        }
        assert!(counts.iter().all(|&n| n > 1000), "{counts:?}");
    }

    #[test]
    fn refuses_bad_lists() {
        let append = |n: u32, told: Option<u64>, invoke, ret| ((1, n), told, span(invoke, ret));
        let good = List {
            appends: vec![append(1, Some(1), 1, 2), append(2, None, 3, NEVER), append(3, Some(3), 5, 6)],
            reads: vec![(vec![(1, 1), (1, 2), (1, 3)], span(7, 8))],
            own: vec![((1, 3), 3), ((1, 2), 0)],
        };
        assert_eq!(good.check(), Ok(()), "what was not acknowledged need not be seen");
        for (bad, why) in [
            (vec![(1, 1), (1, 3)], "in another place"),
            (vec![(1, 1), (1, 2)], "lost"),
            (vec![(1, 1), (1, 2), (1, 3), (1, 3)], "twice"),
            (vec![(1, 1), (1, 3), (1, 2)], "out of order"),
            (vec![(1, 1), (1, 2), (1, 3), (1, 9)], "never sent"),
        ] {
            let list = List { appends: good.appends.clone(), reads: vec![(bad, span(7, 8))], own: vec![] };
            assert!(list.check().is_err(), "{why}");
        }
        let stale = List {
            appends: good.appends.clone(),
            reads: vec![(vec![(1, 1), (1, 2), (1, 3)], span(7, 8)), (vec![(1, 1)], span(9, 10))],
            own: vec![],
        };
        assert!(stale.check().is_err());
        let blind = List { own: vec![((1, 3), 2)], ..good };
        assert!(blind.check().is_err(), "a read that does not see its own connection's write");
    }
}
