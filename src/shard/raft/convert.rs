//! Between the crate's types and ours.

use super::{Change, Membership};
use crate::log::LogEntry;
use raft::eraftpb;

pub(super) fn conf_state(membership: &Membership) -> eraftpb::ConfState {
    eraftpb::ConfState {
        voters: membership.voters.clone(),
        voters_outgoing: membership.outgoing.clone(),
        learners: membership.learners.clone(),
        ..eraftpb::ConfState::default()
    }
}

pub(super) fn membership_of(conf: &eraftpb::ConfState, epoch: u64) -> Membership {
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    Membership {
        epoch,
        voters: sorted(&conf.voters),
        outgoing: sorted(&conf.voters_outgoing),
        learners: sorted(&conf.learners),
    }
}

/// A joint configuration is left by an entry of its own, which its leader proposes, whoever that is then. `None`: the crate
/// need not know.
pub(super) fn conf_change(change: &Change) -> Option<eraftpb::ConfChangeV2> {
    use eraftpb::{ConfChangeTransition, ConfChangeType};
    let single = |id: u64, kind: ConfChangeType| {
        let mut single = eraftpb::ConfChangeSingle { node_id: id, ..eraftpb::ConfChangeSingle::default() };
        single.set_change_type(kind);
        single
    };
    let mut out = eraftpb::ConfChangeV2::default();
    match change {
        Change::AddLearner(id) => out.changes.push(single(*id, ConfChangeType::AddLearnerNode)),
        Change::RemoveLearner(id) => out.changes.push(single(*id, ConfChangeType::RemoveNode)),
        Change::Enter { add, remove } => {
            out.set_transition(ConfChangeTransition::Explicit);
            let added = add.iter().map(|&id| single(id, ConfChangeType::AddNode));
            let removed = remove.iter().map(|&id| single(id, ConfChangeType::RemoveNode));
            out.changes.extend(added.chain(removed));
        }
        Change::Leave => {}
        Change::Fence => return None,
    }
    Some(out)
}

pub(super) fn from_raft(entry: eraftpb::Entry) -> LogEntry {
    let kind = match entry.entry_type {
        eraftpb::EntryType::EntryNormal => 0,
        eraftpb::EntryType::EntryConfChange => 1,
        eraftpb::EntryType::EntryConfChangeV2 => 2,
    };
    LogEntry { index: entry.index, term: entry.term, kind, data: entry.data }
}

pub(super) fn to_raft(entry: LogEntry) -> eraftpb::Entry {
    eraftpb::Entry {
        entry_type: entry_type(entry.kind),
        index: entry.index,
        term: entry.term,
        data: entry.data,
        ..eraftpb::Entry::default()
    }
}

pub(super) fn entry_type(kind: u8) -> eraftpb::EntryType {
    match kind {
        1 => eraftpb::EntryType::EntryConfChange,
        2 => eraftpb::EntryType::EntryConfChangeV2,
        _ => eraftpb::EntryType::EntryNormal,
    }
}
