//! The meta group of this node: its map, and changes that clients and proxies ask of it.

use super::WorkerCore;
use crate::log::Disk;
use crate::meta::Change;
use crate::shard::{Machine, Origin, Submission};
use ringfort_proxy::errands;
use ringfort_wire::entry::OpKind;
use ringfort_wire::settings;
use ringfort_wire::{GroupId, MetaAnswer, MetaWrite};

impl<D: Disk> WorkerCore<D> {
    /// Takes a change of the cluster map; [`Self::take_meta_answers`] gives its answer under this number.
    pub fn meta_write(&mut self, number: u64, body: &[u8]) {
        match checked(body) {
            Ok(write) => {
                let body = write.to_json();
                let submission = Submission {
                    origin: Origin::Meta { number },
                    session: 0,
                    seq: 0,
                    acked: 0,
                    is_after_queued: false,
                    body: &body,
                };
                self.submit_write(GroupId::META, OpKind::Command, submission);
            }
            Err(error) => self.ports.meta_answers.push((number, MetaAnswer::Refused(error))),
        }
    }

    /// Takes the answers to changes since the last call. When a change is done, this node has a map that shows it.
    pub fn take_meta_answers(&mut self) -> Vec<(u64, MetaAnswer)> {
        let mut answers = std::mem::take(&mut self.ports.meta_answers);
        if !answers.is_empty() {
            self.follow_meta();
        }
        for (_, answer) in &mut answers {
            if let MetaAnswer::Done(json) = answer {
                *json = self.shared.map().map_or_else(Vec::new, |map| map.to_json());
            }
        }
        answers
    }

    /// Takes the changes that clients of this worker ask of the meta group, with their numbers.
    pub fn take_errands(&mut self) -> Vec<(u64, MetaWrite)> {
        self.errands.take()
    }

    /// What became of one: done, or the text of an error reply. After a change this node has the map that shows it.
    pub fn errand_done(&mut self, errand: u64, outcome: &Result<(), String>) {
        if let Some((client, ticket)) = self.errands.end(errand) {
            self.ports.client_reply(client, ticket, &errands::reply(outcome));
        }
    }

    /// Follows the meta group's map, and gives it its first one.
    pub(super) fn follow_meta(&mut self) {
        let Some(group) = self.groups.get_mut(GroupId::META.0) else { return };
        let Machine::Meta(machine) = group.machine() else { return };
        if let Some(map) = machine.map() {
            self.shared.set_map(map);
        } else if group.raft().is_leader()
            && !group.has_proposable()
            && !group.has_inflight()
            && let Some(map) = self.shared.map()
        {
            let body = Change { expected_epoch: 0, map: (*map).clone() }.encode();
            let submission = Submission {
                origin: Origin::None,
                session: 0,
                seq: 0,
                acked: 0,
                is_after_queued: false,
                body: &body,
            };
            group.write(OpKind::Command, submission, &mut self.ports);
            self.touch(GroupId::META.0);
        }
    }
}

/// Reads a change and judges it, before it is in the log: there every version must take it.
fn checked(body: &[u8]) -> Result<MetaWrite, String> {
    match MetaWrite::from_json(body).map_err(|error| format!("ERR {error}"))? {
        MetaWrite::Set(pairs) => {
            let args: Vec<&[u8]> =
                pairs.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]).collect();
            settings::parse_pairs(&args).map(MetaWrite::Set)
        }
        write @ (MetaWrite::TlsClient(..) | MetaWrite::Lead(..) | MetaWrite::Drain(..)) => Ok(write),
        // An operator's word; what the others need, they find out themselves.
        write @ MetaWrite::Recover { accept_loss: true, .. } => Ok(write),
        write @ (MetaWrite::Apply(_) | MetaWrite::Abort) => Ok(write),
        MetaWrite::Replace { .. }
        | MetaWrite::Arrived(_)
        | MetaWrite::Left(_)
        | MetaWrite::Aside(_)
        | MetaWrite::Reseat(_)
        | MetaWrite::Here(_)
        | MetaWrite::Down(_)
        | MetaWrite::Recover { .. } => Err("ERR this change is not a client's to make".to_owned()),
    }
}
