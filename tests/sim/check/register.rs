//! Registers with unique values (Gibbons and Korach 1997, "Testing shared memories", section 4).
//!
//! A write and the reads that saw it form a cluster. With f = the first return and s = the last invocation in a cluster,
//! its zone is forward (the value must be there from f to s) when f < s, else backward. A history is linearizable exactly
//! when no read precedes its write, no two forward zones overlap, and no backward zone lies within a forward zone.

use super::{NEVER, Span};
use std::collections::BTreeMap;

/// What happened to one register; it begins without a value.
#[derive(Debug, Default)]
pub(crate) struct Register {
    /// Written value, when. A write that was surely not executed is not in it.
    pub(crate) writes: Vec<(u64, Span)>,
    /// Value seen, when.
    pub(crate) reads: Vec<(Option<u64>, Span)>,
}

#[derive(Debug)]
struct Cluster {
    value: Option<u64>,
    write: Span,
    first_return: u64,
    last_invoke: u64,
}

impl Register {
    /// Whether one order explains all; else a sentence that says what does not fit.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut clusters: BTreeMap<Option<u64>, Cluster> = BTreeMap::new();
        let initial = Span { invoke: 0, ret: 0 };
        for (value, write) in self.writes.iter().map(|&(v, s)| (Some(v), s)).chain([(None, initial)]) {
            let cluster = Cluster { value, write, first_return: write.ret, last_invoke: write.invoke };
            if clusters.insert(value, cluster).is_some() {
                return Err(format!("{value:?} was written twice: the workload is wrong"));
            }
        }
        for &(value, read) in &self.reads {
            let Some(cluster) = clusters.get_mut(&value) else {
                return Err(format!(
                    "a read at {read:?} saw {value:?}, which nobody (surely or maybe) wrote"
                ));
            };
            if read.precedes(cluster.write) {
                return Err(format!(
                    "a read at {read:?} saw {value:?} before it was written at {:?}",
                    cluster.write
                ));
            }
            cluster.first_return = cluster.first_return.min(read.ret);
            cluster.last_invoke = cluster.last_invoke.max(read.invoke);
        }
        // A write of unknown outcome that nobody saw may never have happened.
        let clusters: Vec<_> = clusters.into_values().filter(|c| c.first_return != NEVER).collect();
        let (mut forward, backward): (Vec<_>, Vec<_>) =
            clusters.iter().partition(|c| c.first_return < c.last_invoke);
        forward.sort_by_key(|c| c.first_return);
        for pair in forward.windows(2) {
            if pair[1].first_return < pair[0].last_invoke {
                return Err(format!(
                    "{:?} was there from {} to {}, and {:?} from {} to {}",
                    pair[0].value,
                    pair[0].first_return,
                    pair[0].last_invoke,
                    pair[1].value,
                    pair[1].first_return,
                    pair[1].last_invoke
                ));
            }
        }
        for inner in backward {
            let after = forward.partition_point(|c| c.first_return < inner.last_invoke);
            if let Some(outer) = after.checked_sub(1).map(|i| forward[i])
                && inner.first_return < outer.last_invoke
            {
                return Err(format!(
                    "{:?} was there from {} to {}, but {:?} took effect between {} and {}",
                    outer.value,
                    outer.first_return,
                    outer.last_invoke,
                    inner.value,
                    inner.last_invoke,
                    inner.first_return
                ));
            }
        }
        Ok(())
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
    fn refuses_a_stale_read() {
        let register =
            Register { writes: vec![(1, span(1, 2)), (2, span(3, 4))], reads: vec![(Some(1), span(5, 6))] };
        assert!(register.check().is_err());
    }

    #[test]
    fn refuses_a_lost_write() {
        assert!(Register { writes: vec![(1, span(1, 2))], reads: vec![(None, span(3, 4))] }.check().is_err());
    }

    #[test]
    fn refuses_a_value_that_goes_away_and_comes_back() {
        let register = Register {
            writes: vec![(1, span(1, 2)), (2, span(3, NEVER))],
            reads: vec![(Some(2), span(5, 6)), (Some(1), span(7, 8)), (Some(2), span(9, 10))],
        };
        assert!(register.check().is_err());
    }

    #[test]
    fn refuses_the_value_of_a_write_that_was_refused() {
        assert!(Register { writes: vec![], reads: vec![(Some(3), span(5, 6))] }.check().is_err());
    }

    #[test]
    fn accepts_an_unknown_write_that_takes_effect_late_or_never() {
        let late = Register {
            writes: vec![(1, span(1, 2)), (2, span(1, NEVER))],
            reads: vec![(Some(1), span(3, 4)), (Some(2), span(50, 60))],
        };
        assert_eq!(late.check(), Ok(()));
        let never = Register { reads: vec![(Some(1), span(3, 60))], ..late };
        assert_eq!(never.check(), Ok(()));
    }

    #[test]
    fn agrees_with_a_search_over_all_orders() {
        let mut rng = Rng::new(1);
        let mut counts = [0, 0];
        for _ in 0..30_000 {
            let writes: Vec<_> = (0..rng.range(1, 3))
                .map(|value| {
                    let invoke = rng.range(1, 8);
                    let ret = if rng.one_in(4) { NEVER } else { invoke + rng.below(4) };
                    (value, span(invoke, ret))
                })
                .collect();
            let reads = (0..rng.range(1, 3))
                .map(|_| {
                    let invoke = rng.range(1, 8);
                    let value = rng.below(writes.len() as u64 + 1).checked_sub(1);
                    (value, span(invoke, invoke + rng.below(4)))
                })
                .collect();
            let register = Register { writes, reads };
            let expected = wgl::is_register_linearizable(&register);
            assert_eq!(register.check().is_ok(), expected, "{register:?}");
            counts[usize::from(expected)] += 1;
        }
        assert!(counts.iter().all(|&n| n > 1000), "{counts:?}");
    }
}
