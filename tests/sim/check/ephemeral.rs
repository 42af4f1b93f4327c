//! Keys that are written once, with an expiry: once somebody saw one gone, nobody sees it again, whatever the clocks say.

use super::Span;

/// What happened to one such key.
#[derive(Debug, Default)]
pub(crate) struct Ephemeral {
    /// When it was written; `None` when that is not sure.
    pub(crate) write: Option<Span>,
    /// Whether it was there, when.
    pub(crate) reads: Vec<(bool, Span)>,
}

impl Ephemeral {
    /// A sentence when the key reappeared.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Some(write) = self.write else { return Ok(()) };
        let gone = self.reads.iter().filter(|(there, span)| !there && write.precedes(*span));
        let Some(gone) = gone.map(|(_, span)| *span).min_by_key(|span| span.ret) else { return Ok(()) };
        match self.reads.iter().find(|(there, span)| *there && gone.precedes(*span)) {
            Some((_, again)) => {
                Err(format!("written at {write:?}, gone at {gone:?}, there again at {again:?}"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_key_that_reappears() {
        let span = |invoke, ret| Span { invoke, ret };
        let mut key = Ephemeral {
            write: Some(span(1, 2)),
            reads: vec![(true, span(3, 4)), (false, span(5, 6)), (false, span(0, 1))],
        };
        assert_eq!(key.check(), Ok(()));
        key.reads.push((true, span(7, 8)));
        assert!(key.check().is_err());
    }
}
