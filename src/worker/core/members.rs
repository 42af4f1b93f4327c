//! Replicas come and go as the cluster map says, and groups take them in: see [`crate::shard::membership`].

use super::start::seats_of;
use super::{Ending, Job, REPORT_TICKS, WorkerCore, read_age_us_max};
use crate::log::{Disk, Identity, Recovered, Standing};
use crate::shard::membership::{Change, Step};
use crate::shard::{Group, Machine, Origin, Submission};
use crate::worker::ports::WorkerMessage;
use ringfort_wire::entry::OpKind;
use ringfort_wire::frame::WireError;
use ringfort_wire::{ClusterMap, GroupId, MetaWrite};

/// Most new replicas to which the leaders of one worker send state at a time.
const SEEDING_MAX: usize = 2;

impl<D: Disk> WorkerCore<D> {
    /// Takes a newer map: replicas learn of each other, those without a seat end, new ones begin.
    pub(super) fn follow_map(&mut self) -> anyhow::Result<()> {
        self.ports.map = self.view.cluster_map().cloned();
        let Some(map) = self.ports.map.clone() else { return Ok(()) };
        self.read_age_us_max = read_age_us_max(&map);
        // The new replicas of this node's seats are in that other folder: here they would vote a second time. A node that
        // has left the cluster ends its replicas, and goes on telling clients where to go; so does one that is a member again,
        // until it is taken in.
        let own = map.node(&self.options.node);
        anyhow::ensure!(
            own.is_none_or(|node| [0, self.shared.store_id].contains(&node.store_id)),
            "the cluster knows node {} by another data folder now: start it with that one",
            self.options.node
        );
        let mut gone = Vec::new();
        for group in self.groups.iter_mut() {
            let id = group.id().0;
            let replica = group.raft().replica();
            match map.group(GroupId(id)) {
                Some(spec) if spec.node_of(replica).is_some() => {
                    group.set_seats(seats_of(&map, GroupId(id), spec, replica));
                }
                _ => gone.push(id),
            }
        }
        for id in gone {
            if let Some(group) = self.forget_group(id) {
                tracing::info!(
                    group = id,
                    replica = group.raft().replica(),
                    "the replica has left its group"
                );
                self.jobs.push(Job::Free(Box::new(group.into_garbage())));
                self.end_replica(id)?;
            }
        }
        self.follow_asides(&map)?;
        self.start_missing(&map)
    }

    /// Ends a replica; its log stays.
    pub(super) fn forget_group(&mut self, id: u16) -> Option<Group> {
        let group = self.groups.remove(id)?;
        self.pending.retain(|p| p.group != id);
        self.snapshots_wanted.retain(|&wanted| wanted != id);
        // One that the disk still makes durable is judged when that is done.
        if self.received.get(&id).is_some_and(Option::is_some) {
            self.jobs.extend(self.received.remove(&id).map(|received| Job::Free(Box::new(received))));
        }
        self.give_up_building(id);
        Some(group)
    }

    /// The map has forgotten a replica that ran here or stood aside: its log and snapshot go.
    pub(super) fn end_replica(&mut self, id: u16) -> anyhow::Result<()> {
        let epoch = self.ports.map.as_ref().map_or(0, |map| map.epoch);
        self.ending.push(Ending { group: id, awaits_epoch: Some(epoch), write: None, keeps_snapshot: false });
        self.remove_ended()
    }

    /// Removes the logs of replicas that have ended, as soon as no start can have a map that still seats them: without its
    /// log such a replica would be taken for a new one, and would vote again under its old id.
    pub(super) fn remove_ended(&mut self) -> anyhow::Result<()> {
        let kept = self.shared.kept_epoch();
        for ending in &mut self.ending {
            if ending.awaits_epoch.is_some_and(|epoch| epoch <= kept) {
                self.log.borrow_mut().stage_remove_group(ending.group)?;
                ending.awaits_epoch = None;
            }
        }
        Ok(())
    }

    /// Begins the replicas that the map seats here and that are not here yet.
    fn start_missing(&mut self, map: &ClusterMap) -> anyhow::Result<()> {
        for (id, _) in map.all_groups() {
            let is_here = self.groups.get(id.0).is_some() || self.asides.contains_key(&id.0);
            if !is_here && !self.ending.iter().any(|ending| ending.group == id.0) {
                let recovered = self.log.borrow().group(id.0);
                // When this process started, its map did not know the replica yet; now none does any more.
                if recovered.as_ref().is_some_and(|r| has_left(map, r)) {
                    self.end_replica(id.0)?;
                } else {
                    self.start_seated(map, id, recovered.as_ref())?;
                }
            }
        }
        Ok(())
    }

    /// Removes the snapshots of replicas whose end is durable; new ones may begin.
    pub(super) fn finish_endings(&mut self) -> anyhow::Result<()> {
        let synced = self.log.borrow().synced();
        let (done, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.ending)
            .into_iter()
            .partition(|ending| ending.write.is_some_and(|w| w <= synced));
        self.ending = rest;
        if done.is_empty() {
            return Ok(());
        }
        for ending in done.iter().filter(|ending| !ending.keeps_snapshot) {
            self.snapshots.remove(ending.group)?;
        }
        match self.ports.map.clone() {
            Some(map) => self.start_missing(&map),
            None => Ok(()),
        }
    }

    /// Every led group does its next step towards the members that the map wants.
    pub(super) fn reconcile(&mut self) {
        let mut seeding = self.groups.iter().filter(|g| g.is_seeding()).count();
        let (mut arrived, mut gone, mut moved) = (Vec::new(), Vec::new(), Vec::new());
        for group in self.groups.iter_mut() {
            let id = group.id().0;
            let spec = self.ports.map.as_ref().and_then(|m| m.group(GroupId(id)));
            // A group of which one replica is seeded may begin with its next: it would never be done else.
            match group.reconcile(seeding >= SEEDING_MAX && !group.is_seeding()) {
                Step::Change(change) => {
                    seeding += usize::from(matches!(change, Change::AddLearner(_)));
                    moved.push(id);
                }
                Step::Transfer(_) => moved.push(id),
                Step::Lacking(replicas) => gone.push((id, replicas)),
                Step::Done => {
                    let left = spec.map_or(&[][..], |s| &s.leaving[..]).iter().map(|s| s.replica);
                    let members = group.raft().membership();
                    let left: Vec<u64> = left.filter(|&replica| !members.contains(replica)).collect();
                    let is_awaited = spec.and_then(|s| s.recovery.as_ref()).is_some_and(|r| r.is_awaited);
                    if !left.is_empty() || is_awaited {
                        gone.push((id, left));
                    }
                }
                Step::Wait => {}
            }
            // One may vote while another is still waited for.
            let unproven = spec.into_iter().flat_map(|s| s.joining.iter().chain(&s.returned)).copied();
            let voters = &group.raft().membership().voters;
            let new: Vec<u64> = unproven.filter(|replica| voters.contains(replica)).collect();
            if !new.is_empty() && group.has_settled() {
                arrived.push((id, new));
            }
        }
        for id in moved {
            self.touch(id);
        }
        // News is said at once, and all of it again until the map shows it.
        let is_due = self.ticks.is_multiple_of(REPORT_TICKS);
        let (is_arrival, is_departure) = (arrived != self.arrived, gone != self.gone);
        self.arrived.clone_from(&arrived);
        self.gone.clone_from(&gone);
        if !arrived.is_empty() && (is_due || is_arrival) {
            self.tell_meta(&MetaWrite::Arrived(arrived));
        }
        if !gone.is_empty() && (is_due || is_departure) {
            self.tell_meta(&MetaWrite::Left(gone));
        }
    }

    /// Tells whoever leads the meta group: a message to each that may.
    pub(super) fn tell_meta(&mut self, write: &MetaWrite) {
        let Some(map) = self.ports.map.clone() else { return };
        let body = write.to_json();
        for node in map.meta.nodes() {
            if *node != self.options.node {
                self.ports.send_meta(node, &body);
            } else if self.options.worker == 0 {
                self.meta_told(&body);
            } else {
                self.ports.workers.push((0, WorkerMessage::Meta(body.clone())));
            }
        }
    }

    /// A leader somewhere reports what its group has done. Who does not lead the meta group says nothing: the report comes
    /// again.
    ///
    /// # Errors
    /// It is malformed: drop the link.
    pub fn meta_report(&mut self, body: &[u8]) -> Result<(), WireError> {
        match MetaWrite::from_json(body) {
            Ok(MetaWrite::Arrived(_) | MetaWrite::Left(_) | MetaWrite::Aside(_) | MetaWrite::Reseat(_)) => {
                self.meta_told(body)
            }
            Ok(MetaWrite::Here(node)) => self.hear(node),
            _ => return Err(WireError::Malformed("report to the meta group")),
        }
        Ok(())
    }

    /// Puts a [`MetaWrite`] into the meta group's log, if this worker leads it; nobody is answered.
    pub fn meta_told(&mut self, body: &[u8]) {
        let Some(group) = self.groups.get_mut(GroupId::META.0) else { return };
        let is_known = matches!(group.machine(), Machine::Meta(m) if m.map().is_some());
        if group.raft().is_leader() && is_known && !group.has_proposable() {
            let submission = Submission {
                origin: Origin::None,
                session: 0,
                seq: 0,
                acked: 0,
                is_after_queued: false,
                body,
            };
            group.write(OpKind::Command, submission, &mut self.ports);
            self.touch(GroupId::META.0);
        }
    }
}

/// What a worker does with a replica that its log names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It goes on.
    Seated,
    /// It stands aside.
    Aside,
    /// Its state is what its group starts anew with.
    Heir,
    /// It has left its group: its log goes.
    Left,
    /// The map is older than the replica: it waits for a newer one.
    Unknown,
}

/// Whether the log names a replica that has left its group.
pub(super) fn has_left(map: &ClusterMap, recovered: &Recovered) -> bool {
    let identity = &recovered.identity;
    *identity != Identity::default() && judge(map, GroupId(recovered.group), identity) == Found::Left
}

/// Judges a replica that the log names by the map.
pub(super) fn judge(map: &ClusterMap, id: GroupId, identity: &Identity) -> Found {
    let Identity { replica, incarnation, standing } = *identity;
    match map.group(id) {
        Some(group) if group.is_heir_of(replica, incarnation) => Found::Heir,
        Some(group) if standing != Standing::Active && group.counts(replica) => Found::Aside,
        Some(group) if standing == Standing::Active && group.node_of(replica).is_some() => Found::Seated,
        _ if replica < map.next_replica => Found::Left,
        _ => Found::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::log::{LogOptions, MemDisk};
    use crate::meta::form::tests::sample_map;
    use crate::worker::WorkerOptions;
    use crate::worker::core::tests::Still;
    use crate::worker::shared::Shared;
    use ringfort_ring::NodeId;
    use ringfort_wire::map::{MapNode, MapSeat};
    use std::sync::Arc;

    /// The group whose seats change; its members are first on n2 and n3 only.
    const GROUP: GroupId = GroupId(5);

    fn n1() -> NodeId {
        NodeId("n1".into())
    }

    fn without_n1() -> ClusterMap {
        let mut map = sample_map();
        map.groups[4].seats.retain(|s| s.node != n1());
        map
    }

    /// The same map later, with a new replica of the group on n1 or without any there.
    fn later(map: &ClusterMap, replica: Option<u64>) -> ClusterMap {
        let mut map = ClusterMap { epoch: map.epoch + 1, ..map.clone() };
        let others = map.groups[4].seats.iter().filter(|s| s.node != n1()).cloned();
        let seats = replica.map(|replica| MapSeat { node: n1(), replica }).into_iter().chain(others);
        let seats = seats.collect();
        map.groups[4].set_seats(seats);
        map.next_replica = map.next_replica.max(replica.map_or(0, |r| r + 1));
        map
    }

    fn start(map: &ClusterMap, disk: &MemDisk, has_run: bool) -> WorkerCore<MemDisk> {
        crate::worker::core::tests::start(1, map, disk, has_run)
    }

    /// Lets the worker follow a map that its node keeps, and its log thread do all it has to.
    fn follow(core: &mut WorkerCore<MemDisk>, map: &ClusterMap) {
        core.shared.set_kept(map.epoch);
        hear(core, map);
    }

    /// The same with a map that is not kept yet.
    fn hear(core: &mut WorkerCore<MemDisk>, map: &ClusterMap) {
        core.shared.set_map(map);
        for _ in 0..3 {
            core.turn(&Still).unwrap();
            core.tick(1, Still.now()).unwrap();
            core.turn(&Still).unwrap();
            for job in core.take_jobs() {
                core.job_done(job.run()).unwrap();
            }
        }
    }

    fn replica(core: &WorkerCore<MemDisk>) -> Option<u64> {
        core.group(GROUP).map(|g| g.raft().replica())
    }

    #[test]
    fn a_replica_begins_leaves_and_ends_as_the_map_says_and_after_restarts() {
        let disk = MemDisk::new();
        let first = without_n1();
        let fresh = first.next_replica;
        let mut core = start(&first, &disk, false);
        assert_eq!(replica(&core), None);
        let seated = later(&first, Some(fresh));
        follow(&mut core, &seated);
        assert_eq!(replica(&core), Some(fresh));
        let members = core.group(GROUP).unwrap().raft().membership();
        assert!(
            !members.contains(fresh) && members.voters.len() == 2,
            "the group began without it: {members:?}"
        );
        assert!(!core.group(GROUP).unwrap().raft().is_leader());

        // Restarts with the map that seats it, and with an older one, which cannot judge it.
        drop(core);
        assert_eq!(replica(&start(&seated, &disk, true)), Some(fresh));
        let mut core = start(&first, &disk, true);
        assert_eq!(replica(&core), None, "it waits for a map that knows it");
        follow(&mut core, &seated);
        assert_eq!(replica(&core), Some(fresh), "the same one, with its log");

        // It runs while it leaves, and ends when the map forgets it.
        let leaving = later(&seated, None);
        follow(&mut core, &leaving);
        assert_eq!(replica(&core), Some(fresh));
        let mut gone = ClusterMap { epoch: leaving.epoch + 1, ..leaving.clone() };
        gone.groups[4].leaving.clear();
        drop(core);
        let mut other = start(&leaving, &disk, true);
        follow(&mut other, &gone);
        assert_eq!(replica(&other), None);
        assert!(other.log.borrow().group(GROUP.0).is_none(), "its log is gone");
        drop(other);

        // A new seat is another replica.
        let again = later(&gone, Some(gone.next_replica));
        let mut core = start(&gone, &disk, true);
        follow(&mut core, &again);
        assert_eq!(replica(&core), Some(gone.next_replica));
    }

    #[test]
    fn a_replica_that_was_unknown_at_the_start_and_is_forgotten_then_makes_room_for_the_next() {
        let disk = MemDisk::new();
        let first = without_n1();
        let seated = later(&first, Some(first.next_replica));
        drop(start(&seated, &disk, false));
        let mut core = start(&first, &disk, true);
        let mut gone = later(&seated, None);
        gone.groups[4].leaving.clear();
        follow(&mut core, &later(&gone, Some(gone.next_replica)));
        assert_eq!(replica(&core), Some(gone.next_replica));
    }

    #[test]
    fn what_a_restart_finds_of_a_forgotten_replica_is_removed() {
        let disk = MemDisk::new();
        let first = without_n1();
        let seated = later(&first, Some(first.next_replica));
        drop(start(&seated, &disk, false));
        let mut gone = later(&seated, None);
        gone.groups[4].leaving.clear();
        let core = start(&gone, &disk, true);
        assert_eq!(replica(&core), None);
        assert!(core.log.borrow().group(GROUP.0).is_none());
    }

    #[test]
    fn a_node_that_left_and_is_a_member_again_begins_anew_with_its_folder() {
        let disk = MemDisk::new();
        let map = sample_map();
        let mut core = start(&map, &disk, false);
        let own = map.node(&n1()).unwrap().store_id;
        let mut again = ClusterMap { epoch: map.epoch + 7, ..map };
        let groups = std::iter::once(&mut again.meta).chain(&mut again.groups);
        groups.for_each(|group| group.seats.retain(|seat| seat.node != n1()));
        again.nodes.iter_mut().filter(|n| n.id == n1()).for_each(|n| n.store_id = 0);
        follow(&mut core, &again);
        assert_eq!((replica(&core), core.log.borrow().group(GROUP.0).is_some()), (None, false));
        again.nodes.iter_mut().filter(|n| n.id == n1()).for_each(|n| n.store_id = own);
        let fresh = again.next_replica;
        follow(&mut core, &later(&again, Some(fresh)));
        assert_eq!(replica(&core), Some(fresh));
    }

    #[test]
    fn a_node_that_the_cluster_knows_by_another_folder_stops() {
        let disk = MemDisk::new();
        let map = sample_map();
        let mut core = start(&map, &disk, false);
        let mut other = ClusterMap { epoch: map.epoch + 1, ..map };
        other.nodes.iter_mut().filter(|n| n.id == n1()).for_each(|n| n.store_id += 1);
        core.shared.set_map(&other);
        let error = core.turn(&Still).unwrap_err().to_string();
        assert!(error.contains("by another data folder now"), "{error}");
    }

    #[test]
    fn a_node_that_left_the_cluster_ends_its_replicas_and_goes_on() {
        let disk = MemDisk::new();
        let map = sample_map();
        let mut core = start(&map, &disk, false);
        let mut without = ClusterMap { epoch: map.epoch + 1, ..map };
        without.nodes.retain(|node| node.id != n1());
        for group in core::iter::once(&mut without.meta).chain(&mut without.groups) {
            group.seats.retain(|seat| seat.node != n1());
            group.leader = group.seats[0].node.clone();
        }
        follow(&mut core, &without);
        assert_eq!(core.groups().count(), 0);
        assert!(core.log.borrow().group(GROUP.0).is_none(), "its logs are gone");
    }

    fn again(
        core: WorkerCore<MemDisk>,
        map: &ClusterMap,
        disk: &MemDisk,
        is_suspect: bool,
    ) -> WorkerCore<MemDisk> {
        let options = WorkerOptions { is_restart: true, has_run: true, is_suspect, ..core.options.clone() };
        drop(core);
        let store_id = map.node(&n1()).unwrap().store_id;
        let shared = Arc::new(Shared::new(n1(), store_id, 1, 1, 7000, 10));
        shared.set_map(map);
        WorkerCore::new(options, shared, map, disk.clone()).unwrap()
    }

    fn stands_aside(core: &WorkerCore<MemDisk>) -> bool {
        core.group(GROUP).is_none() && core.asides.contains_key(&GROUP.0)
    }

    /// Entries of the group that leave a session behind.
    fn write_entries(core: &WorkerCore<MemDisk>) {
        let mut builder = ringfort_wire::entry::EntryBuilder::default();
        let open =
            ringfort_wire::entry::Op { kind: OpKind::OpenSession, session: 0, seq: 0, acked: 0, body: b"" };
        builder.push(&open);
        let data: bytes::Bytes = builder.finish(5, 0).into();
        let entry = |index| crate::log::LogEntry { index, term: 1, kind: 0, data: data.clone() };
        let mut log = core.log.borrow_mut();
        log.stage_entries(GROUP.0, &[entry(1), entry(2)]).unwrap();
        log.stage_hard_state(GROUP.0, &crate::log::HardState { term: 1, vote: 0, commit: 0 }).unwrap();
        log.write().unwrap();
        log.sync_job().unwrap().run().unwrap();
    }

    /// The map in which all replicas of the group have stood aside, that of n1 with the longest log.
    fn refounded(map: &ClusterMap) -> ClusterMap {
        let mut map = map.clone();
        for seat in map.groups[4].seats.clone() {
            let index = if seat.node == n1() { 2 } else { 1 };
            let aside = crate::meta::recover::aside(seat.replica, true, (1, index));
            let said = ringfort_wire::Aside { group: GROUP.0, incarnation: map.groups[4].incarnation, aside };
            crate::meta::recover::asides(&mut map, &[said], 1);
        }
        assert_eq!(map.groups[4].incarnation, 2);
        map
    }

    #[test]
    fn a_leader_of_the_meta_group_that_is_to_leave_hears_reports_as_well() {
        let mut map = sample_map();
        let receiver = MapNode { id: NodeId("n4".into()), store_id: 44, ..map.nodes[0].clone() };
        map.nodes.push(receiver);
        let mut core = start(&map, &MemDisk::new(), false);
        map.epoch += 1;
        let mut seats = map.meta.seats.clone();
        let leader = std::mem::replace(&mut seats[1].node, NodeId("n4".into()));
        seats[1].replica = map.next_replica;
        map.next_replica += 1;
        map.meta.set_seats(seats);
        follow(&mut core, &map);
        core.ports.send_to_peers(false, |_, _, _| {});
        core.tell_meta(&MetaWrite::Left(vec![(3, vec![8])]));
        let mut told = Vec::new();
        core.ports.send_to_peers(false, |node, _, _| told.push(node.clone()));
        assert!(told.contains(&leader) && told.contains(&NodeId("n4".into())), "{told:?}");
    }

    #[test]
    fn a_suspect_replica_does_not_run_until_a_new_one_has_its_seat() {
        let disk = MemDisk::new();
        let map = sample_map();
        let core = start(&map, &disk, false);
        let old = replica(&core).unwrap();
        let core = again(core, &map, &disk, true);
        assert!(stands_aside(&core));
        assert!(core.group(GroupId::META).is_some(), "the meta group syncs everything first");
        let mut core = again(core, &map, &disk, false);
        assert!(stands_aside(&core), "no restart forgets it");
        let mut reseated = map.clone();
        let aside = crate::meta::recover::aside(old, true, (0, 0));
        let said = ringfort_wire::Aside { group: GROUP.0, incarnation: 1, aside };
        crate::meta::recover::asides(&mut reseated, &[said], 1);
        follow(&mut core, &reseated);
        assert!(stands_aside(&core));
        crate::meta::recover::reseat(&mut reseated, &[(GROUP.0, old)]);
        follow(&mut core, &reseated);
        assert_eq!(replica(&core), Some(map.next_replica));
        assert_eq!(core.group(GROUP).unwrap().raft().last_index(), 0, "it begins with nothing");
        assert!(!core.asides.contains_key(&GROUP.0));
    }

    #[test]
    fn a_founder_that_ended_does_not_run_again_under_the_older_map_that_was_kept() {
        let disk = MemDisk::new();
        let map = sample_map();
        let mut core = start(&map, &disk, false);
        assert!(map.groups[4].founders().contains(&replica(&core).unwrap()));
        let mut without = later(&map, None);
        without.groups[4].leaving.clear();
        follow(&mut core, &without);
        assert_eq!(replica(&core), None);
        let mut core = again(core, &map, &disk, false);
        assert_eq!(replica(&core), None, "it has forgotten what it promised");
        assert!(core.group(GroupId::META).is_some());
        follow(&mut core, &later(&without, Some(map.next_replica)));
        assert_eq!(replica(&core), Some(map.next_replica));
    }

    #[test]
    fn a_later_replica_that_ended_does_not_run_again_under_the_older_map_that_was_kept() {
        let disk = MemDisk::new();
        let first = without_n1();
        let fresh = first.next_replica;
        let mut core = start(&first, &disk, false);
        let seated = later(&first, Some(fresh));
        follow(&mut core, &seated);
        assert_eq!(replica(&core), Some(fresh));
        let mut without = later(&seated, None);
        without.groups[4].leaving.clear();
        follow(&mut core, &without);
        assert_eq!(replica(&core), None);
        let mut core = again(core, &seated, &disk, false);
        assert_eq!(replica(&core), None, "it has forgotten what it promised");
        follow(&mut core, &later(&without, Some(fresh + 1)));
        assert_eq!(replica(&core), Some(fresh + 1));
    }

    #[test]
    fn the_log_of_a_replica_that_ended_stays_until_no_start_can_take_it_for_a_new_one() {
        let disk = MemDisk::new();
        let first = without_n1();
        let seated = later(&first, Some(first.next_replica));
        let mut without = later(&seated, None);
        without.groups[4].leaving.clear();
        let mut core = start(&first, &disk, false);
        hear(&mut core, &seated);
        let promise = crate::log::HardState { term: 7, vote: seated.next_replica, commit: 0 };
        core.log.borrow_mut().stage_hard_state(GROUP.0, &promise).unwrap();
        hear(&mut core, &without);
        assert_eq!(replica(&core), None);
        // It starts with a map from before the replica, and a node that is behind tells it of the one that seats it.
        let mut core = again(core, &first, &disk, false);
        hear(&mut core, &seated);
        let term = core.group(GROUP).expect("it goes on").raft().term();
        assert_eq!((replica(&core), term), (Some(first.next_replica), 7), "it knows what it promised");
        hear(&mut core, &without);
        assert!(core.log.borrow().group(GROUP.0).is_some());
        follow(&mut core, &without);
        assert!(core.log.borrow().group(GROUP.0).is_none(), "nobody can take it for a new one now");
    }

    #[test]
    fn a_group_starts_anew_with_all_that_the_heir_holds_whenever_it_crashes() {
        for seed in 0..12 {
            let mut disk = MemDisk::new();
            let map = sample_map();
            let core = start(&map, &disk, false);
            write_entries(&core);
            let mut core = again(core, &map, &disk, true);
            assert!(stands_aside(&core));
            let next = refounded(&map);
            // Some of these end between two steps of the conversion, or with what was not synced lost.
            if seed > 0 {
                core.shared.set_map(&next);
                for _ in 0..1 + seed % 3 {
                    core.turn(&Still).unwrap();
                }
                drop(core.take_jobs());
                let options = core.options.clone();
                drop(core);
                if seed % 2 == 0 {
                    disk.kill()
                } else {
                    disk.crash(seed)
                }
                let map = if seed % 4 < 2 { &map } else { &next };
                core = again(start_with(options, map, &disk), map, &disk, false);
            }
            follow(&mut core, &next);
            follow(&mut core, &ClusterMap { epoch: next.epoch + 1, ..next.clone() });
            let group = core.group(GROUP).expect("it runs");
            let founder = next.groups[4].replica_on(&n1()).unwrap();
            assert_eq!((group.raft().replica(), group.incarnation()), (founder, 2));
            assert!(group.raft().is_leader(), "nobody else could");
            assert!(group.raft().applied_index() > crate::meta::recover::first_index(2));
            let Machine::Partition(machine) = group.machine() else { panic!("a partition") };
            assert!(
                [1, 2].iter().all(|index| !machine.is_applied(index << 16, 1)),
                "both sessions are there"
            );
            assert!(machine.is_applied(3 << 16, 1), "an unknown session waits for nothing");
        }
    }

    fn start_with(options: WorkerOptions, map: &ClusterMap, disk: &MemDisk) -> WorkerCore<MemDisk> {
        let store_id = map.node(&n1()).unwrap().store_id;
        let shared = Arc::new(Shared::new(n1(), store_id, 1, 1, 7000, 10));
        shared.set_map(map);
        let options = WorkerOptions { is_suspect: false, log: LogOptions::default(), ..options };
        WorkerCore::new(options, shared, map, disk.clone()).unwrap()
    }

    #[test]
    fn the_others_begin_with_nothing_and_frames_of_the_old_incarnation_are_void() {
        let disk = MemDisk::new();
        let mut map = sample_map();
        let seats = &mut map.groups[4].seats;
        seats.iter_mut().filter(|seat| seat.node == n1()).for_each(|seat| seat.replica += 1000);
        map.next_replica += 1000;
        let mut core = start(&map, &disk, false);
        write_entries(&core);
        core = again(core, &map, &disk, true);
        let mut next = map.clone();
        for seat in map.groups[4].seats.clone() {
            let index = if seat.node == n1() { 2 } else { 3 };
            let aside = crate::meta::recover::aside(seat.replica, true, (1, index));
            let said = ringfort_wire::Aside { group: GROUP.0, incarnation: 1, aside };
            crate::meta::recover::asides(&mut next, &[said], 1);
        }
        follow(&mut core, &next);
        let group = core.group(GROUP).expect("it runs");
        assert_eq!((group.incarnation(), group.raft().last_index()), (2, 0));
        assert!(!group.raft().membership().contains(group.raft().replica()));
        let replica = group.raft().replica();
        let heartbeat = |incarnation: u32| {
            let numbers = [replica, replica + 1, 9, 0, 0, 0, 0, 0, 0];
            let mut body = [&GROUP.0.to_le_bytes()[..], &incarnation.to_le_bytes(), &[8]].concat();
            body.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
            body.extend([0; 9]);
            body
        };
        let mut term_after = |incarnation| {
            core.peer_frame(ringfort_wire::frame::Kind::Raft, &heartbeat(incarnation), Still.now()).unwrap();
            core.group(GROUP).expect("it runs").raft().term()
        };
        assert_eq!(term_after(1), 0, "it is not for this incarnation");
        assert_eq!(term_after(2), 9);
    }

    #[test]
    fn a_lost_log_is_no_beginning() {
        let map = sample_map();
        drop(start(&map, &MemDisk::new(), false));
        let store_id = map.node(&n1()).unwrap().store_id;
        let shared = Arc::new(Shared::new(n1(), store_id, 1, 1, 7000, 10));
        let seated = later(&without_n1(), Some(map.next_replica));
        for map in [&map, &seated] {
            let options = start(map, &MemDisk::new(), false).options;
            let options = WorkerOptions { has_run: true, ..options };
            let error = WorkerCore::new(options, Arc::clone(&shared), map, MemDisk::new()).unwrap_err();
            assert!(error.to_string().contains("its log is missing"), "{error}");
        }
    }
}
