//! Replicas that stand aside, and the one among them whose state goes on: see [`crate::meta::recover`].
//!
//! A replica that stands aside does not run: it has no [`Group`](crate::shard::Group), so it neither votes nor acknowledges
//! nor serves. Its log stays, and says in its identity that it stands aside, so that no restart forgets it.
//!
//! The heir's conversion is driven by the map, and a crash at any step of it is harmless: all of the old log is applied to
//! a copy of the state, which becomes a durable snapshot of the new incarnation; then **one** write to the log names the
//! new replica and drops the old entries; the replica starts when that is durable. Before that write everything is done
//! again, from the same log; after it there is nothing left to do.

use super::members::{Found, judge};
use super::start::{machine_index, new_machine};
use super::{HOUSEKEEPING_TICKS, WorkerCore, no_room, snapshots::Restore};
use crate::log::{Disk, HardState, Identity, LogError, Mark, Recovered, SnapshotHeader, Standing};
use crate::meta::recover;
use crate::shard::Machine;
use crate::shard::membership::Membership;
use crate::shard::raft::{ENTRY_NORMAL, TICK_MS};
use ringfort_wire::meta::ASIDES_MAX;
use ringfort_wire::{Aside, ClusterMap, FEATURE_LEVEL, GroupId, MetaWrite};

/// Ticks without a leader after which a replica of a group that cannot go on stands aside (3 s): several elections.
const LEADERLESS_TICKS: u64 = 3_000 / TICK_MS;
/// Ticks that the meta group waits for the last replicas of a group that cannot go on (60 s).
const PATIENCE_TICKS: u64 = 60_000 / TICK_MS;
/// Bytes of log entries that the heir's conversion reads at a time.
const READ_BYTES: usize = 8 << 20;
/// Bytes of the heir's snapshot that are made at a time.
const SNAPSHOT_BYTES: usize = 256 << 10;

/// A replica that stands aside.
#[derive(Debug)]
pub(super) struct Standby {
    pub(super) identity: Identity,
    /// Term and index of its last entry.
    pub(super) end: (u64, u64),
    /// The write that must be durable before it says that it stands aside; `None`: not written yet.
    pub(super) write: Option<u64>,
}

/// Groups whose replicas here cannot go on, and since when.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// Of replicas without a leader, in groups that cannot have one.
    leaderless: std::collections::BTreeMap<u16, u64>,
    /// Of the meta group's leader: groups of which some replicas stand aside.
    unheard: std::collections::BTreeMap<u16, u64>,
    /// Before this tick the disk is not tried again for the snapshot of an heir.
    heirs_until: u64,
}

impl<D: Disk> WorkerCore<D> {
    /// Notes, durably after the next write, that the replicas found in the log may lack what was not synced.
    pub(super) fn suspect(&mut self, recovered: &mut [Recovered]) -> Result<(), LogError> {
        for r in recovered {
            let is_running = r.identity != Identity::default() && r.identity.standing == Standing::Active;
            if r.group != GroupId::META.0 && is_running {
                r.identity.standing = Standing::Suspect;
                self.log.borrow_mut().stage_identity(r.group, &r.identity)?;
                tracing::warn!(
                    group = %GroupId(r.group), replica = r.identity.replica,
                    "the machine stopped unplanned: up to a second of acknowledged writes may be missing here, so this replica \
                     stands aside until the others, or the meta group, say how its group goes on"
                );
            }
        }
        Ok(())
    }

    /// Keeps a replica that does not run.
    pub(super) fn stand_by(&mut self, recovered: &Recovered, write: Option<u64>) {
        let snapshot = machine_index(&self.snapshots, recovered.group);
        let term = recovered.terms.last().map_or(recovered.mark.term, |&(_, term)| term);
        // A crash between a snapshot and the log's mark leaves a snapshot that is ahead of all entries.
        let end = match self.snapshots.open(recovered.group) {
            Ok(Some(reader)) if recovered.last_index < snapshot => (reader.header().term, snapshot),
            _ => (term, recovered.last_index),
        };
        self.asides.insert(recovered.group, Standby { identity: recovered.identity, end, write });
    }

    /// Stands aside with a whole log: its group cannot go on, and is to start anew.
    fn withdraw(&mut self, id: u16) -> Result<(), LogError> {
        let Some(group) = self.forget_group(id) else { return Ok(()) };
        let identity = Identity {
            replica: group.raft().replica(),
            incarnation: group.incarnation(),
            standing: Standing::Withdrawn,
        };
        tracing::warn!(
            group = %GroupId(id), replica = identity.replica,
            "this replica stands aside: without the suspect or lost ones its group has no majority, and is to start anew"
        );
        let term = group.raft().term_at(group.raft().last_index()).unwrap_or(0);
        let end = (term, group.raft().last_index());
        self.log.borrow_mut().stage_identity(id, &identity)?;
        self.asides.insert(id, Standby { identity, end, write: None });
        Ok(())
    }

    /// Follows a newer map: replicas that stand aside end when their seats are others', and the heirs take over.
    pub(super) fn follow_asides(&mut self, map: &ClusterMap) -> anyhow::Result<()> {
        let ids: Vec<u16> = self.asides.keys().copied().collect();
        for id in ids {
            let Some(identity) = self.asides.get(&id).map(|aside| aside.identity) else { continue };
            match judge(map, GroupId(id), &identity) {
                Found::Left => {
                    self.asides.remove(&id);
                    tracing::info!(
                        group = id,
                        replica = identity.replica,
                        "a new replica takes the place of this one"
                    );
                    self.end_replica(id)?;
                }
                Found::Heir if !self.heirs.contains(&id) => self.heirs.push_back(id),
                _ => {}
            }
        }
        Ok(())
    }

    /// Replicas that have been without a leader for long, in groups that cannot have one, stand aside; those that do are
    /// reported until the map shows them; and who leads sees to it that new ones take their seats. Every 100 ms.
    pub(super) fn attend_asides(&mut self) -> anyhow::Result<()> {
        let Some(map) = self.ports.map.clone() else { return Ok(()) };
        let ticks = self.ticks;
        let mut withdrawn = Vec::new();
        let mut reseats = Vec::new();
        for group in self.groups.iter() {
            let id = group.id().0;
            let Some(spec) = map.group(GroupId(id)).filter(|_| id != GroupId::META.0) else { continue };
            if group.raft().is_leader() && group.raft().is_own_term_applied() {
                reseats.extend(spec.asides.iter().map(|aside| (id, aside.replica)));
            }
            if !spec.is_given_up() || !group.raft().is_leaderless() {
                self.waits.leaderless.remove(&id);
            } else if ticks >= *self.waits.leaderless.entry(id).or_insert(ticks) + LEADERLESS_TICKS {
                withdrawn.push(id);
            }
        }
        if !self.is_write_failing {
            for id in withdrawn {
                self.waits.leaderless.remove(&id);
                self.withdraw(id)?;
            }
            self.write_log()?;
        }
        if !self.ticks.is_multiple_of(HOUSEKEEPING_TICKS) {
            return Ok(());
        }
        let synced = self.log.borrow().synced();
        let is_news = |id: u16, standby: &Standby| {
            let spec = map.group(GroupId(id));
            standby.write.is_some_and(|write| write <= synced)
                && spec.is_some_and(|spec| spec.aside(standby.identity.replica).is_none())
        };
        let said: Vec<Aside> = self
            .asides
            .iter()
            .filter(|(id, standby)| is_news(**id, standby))
            .map(|(&group, standby)| Aside {
                group,
                incarnation: standby.identity.incarnation,
                aside: recover::aside(
                    standby.identity.replica,
                    standby.identity.standing == Standing::Suspect,
                    standby.end,
                ),
            })
            .collect();
        for said in said.chunks(ASIDES_MAX) {
            self.tell_meta(&MetaWrite::Aside(said.to_vec()));
        }
        if !reseats.is_empty() {
            self.tell_meta(&MetaWrite::Reseat(reseats));
        }
        self.lose_patience(&map);
        Ok(())
    }

    /// The meta group's leader has a group start anew of which a majority stands aside, when the others stay unheard.
    fn lose_patience(&mut self, map: &ClusterMap) {
        let leads = self.groups.get(GroupId::META.0).is_some_and(|meta| meta.raft().is_leader());
        let waiting: Vec<(u16, u32, bool)> = map
            .all_groups()
            .filter(|(_, group)| leads && !group.asides.is_empty())
            .map(|(id, group)| (id.0, group.incarnation, recover::is_majority_heard(group)))
            .collect();
        self.waits.unheard.retain(|id, _| waiting.iter().any(|(waits, ..)| waits == id));
        for (group, incarnation, is_majority_heard) in waiting {
            let since = *self.waits.unheard.entry(group).or_insert(self.ticks);
            if is_majority_heard && self.ticks >= since + PATIENCE_TICKS {
                self.meta_told(&MetaWrite::Recover { group, incarnation, accept_loss: false }.to_json());
            }
        }
    }

    /// Whether a state waits to go on, and there may be room for its snapshot.
    pub(super) fn can_succeed(&self) -> bool {
        !self.heirs.is_empty() && !self.is_write_failing && self.waits.heirs_until <= self.ticks
    }

    /// Turns one replica whose state goes on into the founder of the next incarnation. One at a time: between two of them
    /// the worker does its other duties.
    pub(super) fn succeed(&mut self) -> anyhow::Result<()> {
        let Some(id) = self.heirs.front().copied().filter(|_| self.can_succeed()) else { return Ok(()) };
        let Some(map) = self.ports.map.clone() else { return Ok(()) };
        let is_heir = |standby: &Standby| judge(&map, GroupId(id), &standby.identity) == Found::Heir;
        if !self.asides.get(&id).is_some_and(is_heir) {
            self.heirs.pop_front();
            return Ok(());
        }
        // Its last write must be in the log that is read.
        self.write_log()?;
        if self.is_write_failing {
            return Ok(());
        }
        let recovered = self.log.borrow().group(id);
        if let Err(error) = self.convert(&map, GroupId(id), recovered.as_ref()) {
            self.waits.heirs_until = self.ticks + super::WRITE_RETRY_TICKS;
            return Ok(no_room(error.downcast::<LogError>()?)?);
        }
        self.heirs.pop_front();
        self.asides.remove(&id);
        self.ending.push(super::Ending { group: id, awaits_epoch: None, write: None, keeps_snapshot: true });
        self.write_log()
    }

    /// Stages the founder of the group's present incarnation, with the state that `old` holds; with none it is empty.
    pub(super) fn convert(
        &mut self,
        map: &ClusterMap,
        id: GroupId,
        old: Option<&Recovered>,
    ) -> anyhow::Result<()> {
        let Some(spec) = map.group(id) else { return Ok(()) };
        let founders = spec.founders();
        let (&[replica], incarnation) = (&founders[..], spec.incarnation) else {
            anyhow::bail!("group {id}: incarnation {} has not one founder", spec.incarnation);
        };
        let index = recover::first_index(incarnation);
        let term = old.map_or(1, |old| {
            old.terms.last().map_or(old.mark.term, |&(_, term)| term).max(old.hard_state.term).max(1)
        });
        let conf: bytes::Bytes = Membership::founded(&[replica]).encode().into();
        let reader = self.snapshots.open(id.0)?;
        let term = match reader.as_ref().map(|reader| reader.header()) {
            // A crash came behind it.
            Some(header) if header.incarnation == incarnation => header.term,
            _ => {
                let mut machine = new_machine(map, id);
                let mut next = 1;
                if let Some(reader) = reader.filter(|_| old.is_some()) {
                    next = reader.header().index + 1;
                    machine = Restore::of(&machine).run(reader)?;
                }
                let Machine::Partition(machine) = &mut machine else {
                    anyhow::bail!("the meta group does not start anew")
                };
                if let Some(old) = old {
                    anyhow::ensure!(
                        old.mark.index < next,
                        "group {id}: the log starts after entry {} but the snapshot at that entry is missing: this data folder \
                         is damaged, and the node must not run with it",
                        old.mark.index
                    );
                    while next <= old.last_index {
                        let log = self.log.borrow();
                        for entry in log.read(id.0, next, old.last_index + 1, READ_BYTES)? {
                            next = entry.index + 1;
                            // Who took part does not matter any more.
                            if entry.kind == ENTRY_NORMAL {
                                machine.apply(entry.index, &entry.data, |_, _| ()).map_err(|error| {
                                    anyhow::anyhow!(
                                        "group {id}: entry {} cannot be applied: {error}",
                                        entry.index
                                    )
                                })?;
                            }
                        }
                    }
                }
                let header = SnapshotHeader {
                    group: id.0,
                    feature_level: FEATURE_LEVEL,
                    incarnation,
                    index,
                    term,
                    conf: conf.clone(),
                };
                let mut writer = self.snapshots.create(header)?;
                machine.snapshot_begin();
                let mut is_done = false;
                while !is_done {
                    let mut bytes = Vec::new();
                    is_done = machine.snapshot_next(SNAPSHOT_BYTES, &mut bytes);
                    bytes.chunks(crate::log::CHUNK_BYTES_MAX).try_for_each(|chunk| writer.chunk(chunk))?;
                }
                writer.finish()?.run()?;
                self.snapshots.complete(id.0, index)?;
                term
            }
        };
        let mut log = self.log.borrow_mut();
        log.stage_remove_group(id.0)?;
        log.stage_identity(id.0, &Identity { replica, incarnation, standing: Standing::Active })?;
        log.stage_mark(id.0, &Mark { index, term, conf }, false)?;
        log.stage_hard_state(id.0, &HardState { term, vote: 0, commit: index })?;
        let from = old.map_or(0, |old| old.identity.replica);
        tracing::warn!(
            group = %id, incarnation, from, replica,
            "the group starts anew with what this replica holds; what others acknowledged and it does not hold is lost"
        );
        Ok(())
    }
}
