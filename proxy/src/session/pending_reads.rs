//! Keeps a client's writes from overtaking its own reads.

use super::{Ask, Slots, Ticket};
use ringfort_resp::Scope;
use ringfort_ring::slot_of;
use std::collections::VecDeque;

/// The slots that unanswered reads of one client look at.
///
/// A pipeline must read as if its commands ran one after the other. That a read sees the writes before it is the partition's
/// business; that it does not see a later write of its own client is ensured here: the write waits until
/// the reads of its slots are answered. Commands on other slots overtake freely.
#[derive(Debug, Default)]
pub struct PendingReads(VecDeque<(Ticket, u16)>);

/// In place of a slot: all of them (DBSIZE), or a part that is not told apart (SCAN).
const ALL_SLOTS: u16 = u16::MAX;

impl PendingReads {
    /// Notes a read that was given out.
    pub fn add(&mut self, ask: &Ask<'_>) {
        each_slot(ask, |slot| self.0.push_back((ask.ticket, slot)));
    }

    /// A command was answered.
    pub fn remove(&mut self, ticket: Ticket) {
        // Answers mostly come in the order of the questions.
        if self.0.front().is_none_or(|(first, _)| ticket <= *first) {
            while self.0.front().is_some_and(|(t, _)| *t == ticket) {
                self.0.pop_front();
            }
            return;
        }
        let start = self.0.partition_point(|(t, _)| *t < ticket);
        let count = self.0.range(start..).take_while(|(t, _)| *t == ticket).count();
        self.0.drain(start..start + count);
    }

    /// Whether `write` has to wait: put it back into its session until the next command is answered.
    pub fn conflicts_with(&self, write: &Ask<'_>) -> bool {
        let mut is_conflict = false;
        if !self.0.is_empty() {
            each_slot(write, |slot| {
                is_conflict |= slot == ALL_SLOTS || self.0.iter().any(|(_, s)| *s == slot || *s == ALL_SLOTS);
            });
        }
        is_conflict
    }
}

fn each_slot(ask: &Ask<'_>, mut visit: impl FnMut(u16)) {
    match ask.slots {
        Slots::None => visit(ALL_SLOTS),
        Slots::One(_) if ask.spec.scope == Scope::Cursor => visit(ALL_SLOTS),
        Slots::One(slot) => visit(slot.0),
        Slots::Many => ask.spec.keys(ask.args.len()).for_each(|key| visit(slot_of(ask.args.get(key)).0)),
    }
}
