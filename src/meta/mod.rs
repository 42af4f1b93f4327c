//! The meta group: membership, placement, epoch, replica ids - the one authority over the cluster map.
//!
//! Its log holds two kinds of operations, both as JSON:
//!
//! - a [`Change`] names the epoch that it was made from; at any other epoch it does nothing, so that two operators, or a
//!   leader and its successor, never overwrite each other (compare-and-set);
//! - a [`MetaWrite`] is worked into whatever map there is when it is applied; doing it again changes nothing.

pub mod down;
pub mod drain;
pub mod form;
pub mod moves;
pub mod plan;
pub mod recover;
pub mod replace;

use ringfort_ring::NodeId;
use ringfort_wire::entry::{Entry, OpKind};
use ringfort_wire::frame::WireError;
use ringfort_wire::meta::{SETTINGS_BYTES_MAX, SETTINGS_MAX};
use ringfort_wire::request::Status;
use ringfort_wire::{ClusterMap, MetaWrite};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A new map in place of the one at `expected_epoch` (0: in place of none).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The epoch that the change was made from.
    pub expected_epoch: u64,
    /// The map, with a higher epoch.
    pub map: ClusterMap,
}

impl Change {
    /// The change as the body of a log operation.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a change has only string keys and plain values")
    }
}

/// An operation of the log.
#[derive(Deserialize)]
#[serde(untagged)]
enum Operation {
    Change(Box<Change>),
    Write(MetaWrite),
}

const NO_MAP: &[u8] = b"-LOADING the cluster has not formed yet\r\n";

/// The state machine of the meta group.
#[derive(Debug, Default)]
pub struct MetaMachine {
    map: Option<ClusterMap>,
    pending_snapshot: Option<Vec<u8>>,
}

impl MetaMachine {
    /// The committed map; `None` before the first change.
    pub fn map(&self) -> Option<&ClusterMap> {
        self.map.as_ref()
    }

    fn epoch(&self) -> u64 {
        self.map.as_ref().map_or(0, |m| m.epoch)
    }

    /// Applies one entry; `answer` gets `+OK` or an error for each change in it.
    ///
    /// # Errors
    /// The entry is malformed.
    pub fn apply(
        &mut self,
        entry: &[u8],
        mut answer: impl FnMut(usize, Status<'_>),
    ) -> Result<(), WireError> {
        if entry.is_empty() {
            return Ok(());
        }
        let entry = Entry::decode(entry)?;
        for (position, op) in entry.ops().enumerate() {
            let op = op?;
            if op.kind != OpKind::Command {
                continue;
            }
            let epoch = self.epoch();
            // Every replica judges the same bytes, so all refuse alike; an error would stop them all for ever.
            let outcome = match serde_json::from_slice(op.body) {
                Ok(Operation::Change(change)) => self.change(*change),
                Ok(Operation::Write(MetaWrite::Set(pairs))) => self.set(pairs),
                Ok(Operation::Write(MetaWrite::TlsClient(node, address))) => {
                    self.tls_client(&node, address.map(|a| a.to_string()))
                }
                Ok(Operation::Write(MetaWrite::Lead(partition, node))) => self.lead(partition, node),
                Ok(Operation::Write(MetaWrite::Drain(node, is_drained))) => {
                    self.map.as_mut().ok_or(NO_MAP).and_then(|map| drain::drain(map, &node, is_drained))
                }
                Ok(Operation::Write(MetaWrite::Replace { node, old_store, new_store })) => {
                    let map = self.map.as_mut().ok_or(NO_MAP);
                    map.and_then(|map| replace::replace(map, &node, &old_store, &new_store))
                }
                Ok(Operation::Write(MetaWrite::Apply(wanted))) => {
                    let map = self.map.as_mut().ok_or(NO_MAP);
                    map.and_then(|map| moves::apply(map, &wanted, entry.log_time_ms))
                }
                Ok(Operation::Write(MetaWrite::Down(wanted))) => {
                    let map = self.map.as_mut().ok_or(NO_MAP);
                    map.and_then(|map| moves::down(map, &wanted, entry.log_time_ms))
                }
                Ok(Operation::Write(MetaWrite::Here(_))) => Ok(()),
                Ok(Operation::Write(MetaWrite::Abort)) => {
                    self.map.as_mut().ok_or(NO_MAP).and_then(moves::abort)
                }
                Ok(Operation::Write(MetaWrite::Arrived(replicas))) => {
                    self.map.as_mut().ok_or(NO_MAP).map(|map| moves::arrived(map, &replicas))
                }
                Ok(Operation::Write(MetaWrite::Left(gone))) => {
                    self.map.as_mut().ok_or(NO_MAP).map(|map| replace::left(map, &gone))
                }
                Ok(Operation::Write(MetaWrite::Aside(said))) => {
                    let map = self.map.as_mut().ok_or(NO_MAP);
                    map.map(|map| recover::asides(map, &said, entry.log_time_ms))
                }
                Ok(Operation::Write(MetaWrite::Reseat(replicas))) => {
                    self.map.as_mut().ok_or(NO_MAP).map(|map| recover::reseat(map, &replicas))
                }
                Ok(Operation::Write(MetaWrite::Recover { group, incarnation, accept_loss })) => {
                    let map = self.map.as_mut().ok_or(NO_MAP);
                    map.and_then(|map| {
                        recover::recover(map, group, incarnation, accept_loss, entry.log_time_ms)
                    })
                }
                Err(_) => Err(&b"-ERR malformed change of the cluster map\r\n"[..]),
            };
            if let Some(map) = &mut self.map {
                moves::advance(map);
                if drain::deputize(map) && map.epoch == epoch {
                    map.epoch += 1;
                }
            }
            answer(position, outcome.map_or_else(Status::Refused, |()| Status::Done(b"+OK\r\n")));
        }
        Ok(())
    }

    fn change(&mut self, change: Change) -> Result<(), &'static [u8]> {
        if change.expected_epoch == self.epoch() && self.epoch() < change.map.epoch {
            self.map = Some(change.map);
            Ok(())
        } else {
            Err(b"-ERR the cluster map has changed meanwhile; plan again\r\n")
        }
    }

    /// Names and values are not judged here: versions know different settings, but apply alike.
    fn set(&mut self, pairs: BTreeMap<String, String>) -> Result<(), &'static [u8]> {
        let map = self.map.as_mut().ok_or(NO_MAP)?;
        let mut settings = map.settings.clone();
        settings.extend(pairs);
        let bytes: usize = settings.iter().map(|(name, value)| name.len() + value.len()).sum();
        if settings.len() > SETTINGS_MAX || bytes > SETTINGS_BYTES_MAX {
            return Err(b"-ERR the settings are too large\r\n");
        }
        if settings != map.settings {
            map.settings = settings;
            map.epoch += 1;
        }
        Ok(())
    }

    fn tls_client(&mut self, node: &NodeId, address: Option<String>) -> Result<(), &'static [u8]> {
        let map = self.map.as_mut().ok_or(NO_MAP)?;
        let node = map.nodes.iter_mut().find(|n| n.id == *node).ok_or(&b"-ERR no such node\r\n"[..])?;
        if node.tls_client != address {
            node.tls_client = address;
            map.epoch += 1;
        }
        Ok(())
    }

    fn lead(&mut self, partition: u16, node: NodeId) -> Result<(), &'static [u8]> {
        let map = self.map.as_mut().ok_or(NO_MAP)?;
        let group = map.groups.get_mut(usize::from(partition)).ok_or(&b"-ERR no such partition\r\n"[..])?;
        if group.replica_on(&node).is_none() {
            return Err(b"-ERR that node has no replica of the partition\r\n");
        }
        if map.nodes.iter().any(|other| other.id == node && other.is_drained) {
            return Err(b"-ERR that node is drained: undrain it first\r\n");
        }
        if group.leader != node {
            group.leader = node;
            map.epoch += 1;
        }
        Ok(())
    }

    /// Digest of the state, equal on all replicas at the same index.
    pub fn digest(&self) -> u64 {
        twox_hash::XxHash3_64::oneshot(&self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&self.map).expect("a map has only string keys and plain values")
    }

    /// Begins a snapshot of the present state.
    pub fn snapshot_begin(&mut self) {
        self.pending_snapshot = Some(self.encode());
    }

    /// Appends the whole snapshot; it is small.
    pub fn snapshot_next(&mut self, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(&self.pending_snapshot.take().unwrap_or_default());
        true
    }

    /// Gives the snapshot up.
    pub fn snapshot_abort(&mut self) {
        self.pending_snapshot = None;
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// It is malformed.
    pub fn restore(bytes: &[u8]) -> Result<Self, String> {
        let map = serde_json::from_slice(bytes).map_err(|e| format!("snapshot of the meta group: {e}"))?;
        Ok(Self { map, pending_snapshot: None })
    }
}

/// Ascending partitions for people: `partition 3`, `partitions 0-3, 7`.
pub(crate) fn partitions_named(partitions: &[u16]) -> String {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for &number in partitions {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let show = |(first, last): &(u16, u16)| {
        if first == last { format!("{first}") } else { format!("{first}-{last}") }
    };
    let word = if partitions.len() == 1 { "partition" } else { "partitions" };
    format!("{word} {}", runs.iter().map(show).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_partitions_read_as_ranges() {
        assert_eq!(partitions_named(&[3]), "partition 3");
        assert_eq!(partitions_named(&[0, 1, 2, 5, 7, 8]), "partitions 0-2, 5, 7-8");
    }
    use ringfort_wire::entry::{EntryBuilder, Op};

    fn entry(expected_epoch: u64, epoch: u64) -> Vec<u8> {
        let map = ClusterMap { epoch, ..form::tests::sample_map() };
        let mut builder = EntryBuilder::default();
        let body = Change { expected_epoch, map }.encode();
        builder.push(&Op { kind: OpKind::Command, session: 0, seq: 0, acked: 0, body: &body });
        builder.finish(0, 0)
    }

    #[test]
    fn a_change_from_an_old_epoch_does_nothing() {
        let mut machine = MetaMachine::default();
        let mut answers = Vec::new();
        for entry in [entry(0, 1), entry(0, 1), entry(1, 2), entry(1, 3)] {
            machine.apply(&entry, |_, s| answers.push(matches!(s, Status::Done(_)))).unwrap();
        }
        assert_eq!(answers, [true, false, true, false]);
        assert_eq!(machine.map().map(|m| m.epoch), Some(2));
    }

    fn set(pairs: &[(&str, &str)]) -> Vec<u8> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut builder = EntryBuilder::default();
        let body = MetaWrite::Set(pairs).to_json();
        builder.push(&Op { kind: OpKind::Command, session: 0, seq: 0, acked: 0, body: &body });
        builder.finish(0, 0)
    }

    fn is_done(machine: &mut MetaMachine, entry: &[u8]) -> bool {
        let mut is_done = None;
        machine.apply(entry, |_, s| is_done = Some(matches!(s, Status::Done(_)))).unwrap();
        is_done.expect("every operation is answered")
    }

    #[test]
    fn settings_are_merged_and_only_a_difference_raises_the_epoch() {
        let mut machine = MetaMachine::default();
        assert!(!is_done(&mut machine, &set(&[("timeout", "5")])), "there is no map yet");
        assert!(is_done(&mut machine, &entry(0, 1)));
        assert!(is_done(&mut machine, &set(&[("timeout", "5"), ("slowlog-max-len", "7")])));
        assert!(is_done(&mut machine, &set(&[("timeout", "6")])));
        let digest = machine.digest();
        assert!(is_done(&mut machine, &set(&[("timeout", "6")])));
        assert_eq!(machine.digest(), digest);
        let map = machine.map().unwrap();
        assert_eq!((map.epoch, map.setting("timeout"), map.setting("slowlog-max-len")), (3, "6", "7"));
        assert!(!is_done(&mut machine, &entry(1, 2)), "a plan from before is void");
    }

    #[test]
    fn a_tls_address_is_taken_for_a_member() {
        let write = |node: &str, port: Option<u16>| {
            let address = port.map(|port| ([127, 0, 0, 1], port).into());
            let mut builder = EntryBuilder::default();
            let body = MetaWrite::TlsClient(NodeId(node.to_owned()), address).to_json();
            builder.push(&Op { kind: OpKind::Command, session: 0, seq: 0, acked: 0, body: &body });
            builder.finish(0, 0)
        };
        let mut machine = MetaMachine::default();
        assert!(!is_done(&mut machine, &write("n2", Some(7))), "there is no map yet");
        assert!(is_done(&mut machine, &entry(0, 1)));
        assert!(!is_done(&mut machine, &write("n9", Some(7))), "no member");
        for (port, epoch) in [(Some(7), 2), (Some(7), 2), (None, 3)] {
            assert!(is_done(&mut machine, &write("n2", port)));
            let map = machine.map().unwrap();
            let told = map.nodes[1].tls_client.as_deref();
            assert_eq!((map.epoch, told.is_some()), (epoch, port.is_some()));
        }
    }

    #[test]
    fn settings_beyond_the_limits_change_nothing() {
        let mut machine = MetaMachine::default();
        assert!(is_done(&mut machine, &entry(0, 1)));
        let digest = machine.digest();
        let names: Vec<String> = (0..SETTINGS_MAX).map(|n| n.to_string()).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
        let there = machine.map().unwrap().settings.len();
        assert!(!is_done(&mut machine, &set(&many[there - 1..])), "some are there already");
        assert!(!is_done(&mut machine, &set(&[("large", &"x".repeat(SETTINGS_BYTES_MAX))])));
        assert_eq!(machine.digest(), digest);
        assert!(is_done(&mut machine, &set(&many[there..])));
    }

    #[test]
    fn malformed_operations_are_refused_alike() {
        for body in [&b"{}"[..], b"", b"{\"set\":5}", b"\xff"] {
            let mut builder = EntryBuilder::default();
            builder.push(&Op { kind: OpKind::Command, session: 0, seq: 0, acked: 0, body });
            assert!(!is_done(&mut MetaMachine::default(), &builder.finish(0, 0)));
        }
    }

    #[test]
    fn snapshot_restores() {
        let mut machine = MetaMachine::default();
        machine.apply(&entry(0, 1), |_, _| ()).unwrap();
        machine.snapshot_begin();
        let mut bytes = Vec::new();
        assert!(machine.snapshot_next(&mut bytes));
        assert_eq!(MetaMachine::restore(&bytes).unwrap().digest(), machine.digest());
    }
}
