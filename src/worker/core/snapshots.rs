//! Snapshots: written for compaction, sent to followers, received from leaders, installed.

use super::{Job, WorkerCore, no_room};
use crate::failpoint::{self, Point};
use crate::log::{Disk, IncomingSnapshot, LogError, Mark, SnapshotHeader, SnapshotReader};
use crate::meta::MetaMachine;
use crate::shard::raft::Message;
use crate::shard::{Group, Machine};
use ringfort_ring::NodeId;
use ringfort_wire::{FEATURE_LEVEL, GroupId};

/// A snapshot to be sent to a node: the shell opens a connection and copies the bytes.
#[derive(Debug)]
pub struct SnapshotSend<D: Disk> {
    /// The node.
    pub to: NodeId,
    /// The group.
    pub group: GroupId,
    /// Its incarnation.
    pub incarnation: u32,
    /// The Raft message that goes with it.
    pub message: Message,
    /// The bytes.
    pub reader: SnapshotReader<D>,
}

/// A snapshot that is being received.
#[derive(Debug)]
pub struct SnapshotReceive<D: Disk> {
    group: u16,
    message: Message,
    file: IncomingSnapshot<D>,
}

impl<D: Disk> SnapshotReceive<D> {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// They are damaged, or the disk does not take them: give the transfer up.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        self.file.write(bytes)
    }
}

impl<D: Disk> WorkerCore<D> {
    /// Takes the snapshots to be sent. Each ends with [`WorkerCore::snapshot_sent`].
    pub fn take_snapshot_sends(&mut self) -> Vec<SnapshotSend<D>> {
        let mut out = Vec::new();
        for (to, group, message) in std::mem::take(&mut self.ports.snapshots) {
            let incarnation = self.groups.get(&group.0).map_or(0, Group::incarnation);
            match self.snapshots.open(group.0) {
                Ok(Some(reader)) if Some(reader.header().index) == message.snapshot_index() => {
                    out.push(SnapshotSend { to, group, incarnation, message, reader });
                }
                // Another one has replaced it meanwhile: Raft will ask again, for what is there then.
                _ => {
                    self.snapshot_sent(group, message.to(), false);
                    if !self.snapshots_wanted.contains(&group.0) {
                        self.snapshots_wanted.push_back(group.0);
                    }
                }
            }
        }
        out
    }

    /// A snapshot was delivered, or could not be.
    pub fn snapshot_sent(&mut self, group: GroupId, replica: u64, is_delivered: bool) {
        self.status.snapshots_sent += u64::from(is_delivered);
        if let Some(state) = self.groups.get_mut(&group.0) {
            state.snapshot_sent(replica, is_delivered);
            self.touch(group.0);
        }
    }

    /// Starts to receive a snapshot; `None` when it is not for a replica that is here.
    ///
    /// # Errors
    /// The message is malformed, or the disk takes no file.
    pub fn receive_snapshot(
        &mut self,
        group: u16,
        incarnation: u32,
        message: &[u8],
    ) -> anyhow::Result<Option<SnapshotReceive<D>>> {
        let message = Message::decode(message)?;
        let is_ours = self
            .groups
            .get(&group)
            .is_some_and(|g| g.incarnation() == incarnation && g.raft().replica() == message.to());
        if !is_ours || message.snapshot_index().is_none() {
            return Ok(None);
        }
        failpoint::hit(Point::SnapshotReceive)?;
        let file = self.snapshots.create_incoming(group)?;
        Ok(Some(SnapshotReceive { group, message, file }))
    }

    /// All bytes of a snapshot have come. Returns its group and index.
    ///
    /// # Errors
    /// They are incomplete or damaged.
    pub fn snapshot_received(&mut self, receive: SnapshotReceive<D>) -> anyhow::Result<(u16, u64)> {
        let SnapshotReceive { group, message, file } = receive;
        failpoint::hit(Point::SnapshotReceived)?;
        let job = self.snapshots.finish_incoming(file)?;
        anyhow::ensure!(
            Some(job.header().index) == message.snapshot_index()
                && job.header().group == group
                && (job.header().conf.is_empty() || job.header().conf == message.snapshot_members()),
            "the snapshot is not the one that was announced"
        );
        let index = job.header().index;
        self.jobs.push(Job::Received { job, message, group });
        Ok((group, index))
    }

    /// Begins a snapshot of every group that wants one, one after the other, and writes the next bytes of it.
    pub(super) fn build_snapshot(&mut self) -> Result<(), LogError> {
        if self.building.is_none() {
            let Some(id) = self.snapshots_wanted.pop_front() else { return Ok(()) };
            let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
            let incarnation = group.incarnation();
            let Some((index, term)) = group.snapshot_begin() else { return Ok(()) };
            let members = group.raft().membership().encode();
            let header = SnapshotHeader {
                group: id,
                feature_level: FEATURE_LEVEL,
                incarnation,
                index,
                term,
                conf: members.into(),
            };
            match self.snapshots.create(header) {
                Ok(writer) => {
                    self.status.snapshots_written += 1;
                    self.building = Some((id, writer));
                }
                Err(error) => {
                    group.snapshot_abort();
                    return no_room(error);
                }
            }
        }
        let Some((id, writer)) = &mut self.building else { return Ok(()) };
        let id = *id;
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let mut bytes = Vec::new();
        let is_done = group.snapshot_next(self.options.limits.snapshot_step_bytes, &mut bytes);
        let written = bytes.chunks(crate::log::CHUNK_BYTES_MAX).try_for_each(|chunk| writer.chunk(chunk));
        if let Err(error) = written {
            group.snapshot_abort();
            self.building = None;
            return no_room(error);
        }
        if is_done && let Some((_, writer)) = self.building.take() {
            match writer.finish() {
                Ok(job) => self.jobs.push(Job::Snapshot { job, group: id }),
                Err(error) => {
                    if let Some(group) = self.groups.get_mut(&id) {
                        group.snapshot_abort();
                    }
                    return no_room(error);
                }
            }
        }
        Ok(())
    }

    /// Whether a snapshot is being written, so that turns must go on without input.
    pub fn has_background_work(&self) -> bool {
        self.building.is_some() || !self.snapshots_wanted.is_empty() || self.can_succeed()
    }

    pub(super) fn install(&mut self, id: u16, index: u64, term: u64) -> anyhow::Result<()> {
        self.status.snapshots_installed += 1;
        failpoint::hit(Point::SnapshotInstall)?;
        self.snapshots.complete(id, index)?;
        self.received.retain(|&received| received != (id, index));
        let reader = self
            .snapshots
            .open(id)?
            .filter(|r| r.header().index == index && r.header().term == term)
            .ok_or_else(|| {
                anyhow::anyhow!("group {id}: the snapshot at {index} that Raft accepted is not on disk")
            })?;
        let conf = reader.header().conf.clone();
        if self.building.as_ref().is_some_and(|(building, _)| *building == id) {
            self.building = None;
        }
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        group.snapshot_abort();
        let machine = restore(group.machine(), reader)?;
        group.install(machine);
        self.log.borrow_mut().stage_mark(id, &Mark { index, term, conf }, false)?;
        failpoint::pass(Point::SnapshotInstalled);
        Ok(())
    }
}

/// Reads a snapshot into a fresh state of the same kind.
pub(super) fn restore<D: Disk>(kind: &Machine, mut reader: SnapshotReader<D>) -> anyhow::Result<Machine> {
    match kind {
        Machine::Partition(machine) => {
            let mut restorer = machine.restorer();
            while let Some(chunk) = reader.next_chunk()? {
                restorer.push(&chunk).map_err(anyhow::Error::msg)?;
            }
            Ok(Machine::Partition(Box::new(restorer.finish().map_err(anyhow::Error::msg)?)))
        }
        Machine::Meta(_) => {
            let mut bytes = Vec::new();
            while let Some(chunk) = reader.next_chunk()? {
                bytes.extend_from_slice(&chunk);
            }
            Ok(Machine::Meta(Box::new(MetaMachine::restore(&bytes).map_err(anyhow::Error::msg)?)))
        }
    }
}
