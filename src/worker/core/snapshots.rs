//! Snapshots: written for compaction, sent to followers, received from leaders, installed.

use super::start::machine_index;
use super::{HOUSEKEEPING_TICKS, Job, WorkerCore, no_room};
use crate::failpoint::{self, Point};
use crate::log::{
    Disk, IncomingSnapshot, LogError, Mark, SnapshotHeader, SnapshotJob, SnapshotReader, SnapshotWriter,
};
use crate::meta::MetaMachine;
use crate::shard::machine::MachineRestorer;
use crate::shard::raft::Message;
use crate::shard::{Group, Machine};
use ringfort_ring::NodeId;
use ringfort_wire::{FEATURE_LEVEL, GroupId};
use std::sync::Arc;

/// From so many groups on that wait for a snapshot, each is made as fast as it can: the log grows meanwhile.
const PRESSING_GROUPS: usize = 4;

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

/// A snapshot that is being received: it is written to a file and, if not too many are, read into a fresh state as it comes.
#[derive(Debug)]
pub struct SnapshotReceive<D: Disk> {
    group: u16,
    incarnation: u32,
    message: Message,
    file: IncomingSnapshot<D>,
    restore: Option<(Restore, RestorePlace)>,
}

/// One of the [`restores_at_once`](crate::shard::Limits::restores_at_once); it is free again when this is gone.
pub(super) type RestorePlace = Arc<()>;

impl<D: Disk> SnapshotReceive<D> {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// They are damaged, or no such state, or the disk does not take them: give the transfer up.
    pub fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut restored = Ok(());
        self.file.write(bytes, |content| {
            if let (Some((restore, _)), Ok(())) = (&mut self.restore, &restored) {
                restored = restore.push(content);
            }
        })?;
        restored
    }
}

/// A snapshot that was received: what it is of, and its state.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) header: SnapshotHeader,
    pub(super) machine: Machine,
}

/// A snapshot of an own group that is being made: turns read the state in small steps, and the snapshot thread writes what
/// was read, since a file's write may wait for memory or for the disk.
#[derive(Debug)]
pub(super) struct Building<D: Disk> {
    group: u16,
    /// `None` while the thread writes.
    writer: Option<SnapshotWriter<D>>,
    /// What the next step reads into; empty between two steps.
    piece: Vec<u8>,
    /// Whether all was read.
    is_read: bool,
    /// Whether it ends with the write that is under way.
    is_given_up: bool,
}

impl<D: Disk> WorkerCore<D> {
    /// Takes the snapshots to be sent. Each ends with [`WorkerCore::snapshot_sent`].
    pub fn take_snapshot_sends(&mut self) -> Vec<SnapshotSend<D>> {
        let mut out = Vec::new();
        for (to, group, message) in std::mem::take(&mut self.ports.snapshots) {
            let incarnation = self.groups.get(group.0).map_or(0, Group::incarnation);
            match self.snapshots.open(group.0) {
                Ok(Some(reader)) if Some(reader.header().index) == message.snapshot_index() => {
                    out.push(SnapshotSend { to, group, incarnation, message, reader });
                }
                Err(error) => {
                    self.snapshot_unreadable(group, message.snapshot_index().unwrap_or(0), &error);
                    self.snapshot_sent(group, message.to(), false);
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
        if let Some(state) = self.groups.get_mut(group.0) {
            state.snapshot_sent(replica, is_delivered);
            self.touch(group.0);
        }
    }

    /// The snapshot of a group at `index` cannot be read from the disk, or is not what was written: makes another one.
    pub fn snapshot_unreadable(&mut self, group: GroupId, index: u64, error: &LogError) {
        let Some(state) = self.groups.get_mut(group.0) else { return };
        if machine_index(&self.snapshots, group.0) != index {
            return; // another one has replaced it meanwhile
        }
        let error = cause(error);
        tracing::error!(%group, index, error, "a snapshot on disk is of no use: it is made anew");
        state.snapshot_lost();
        if !self.snapshots_wanted.contains(&group.0) {
            self.snapshots_wanted.push_back(group.0);
        }
    }

    /// Old segments of the log were not freed. An entry that cannot be read back is not moved: once it is applied a snapshot of
    /// the state takes its place.
    pub(super) fn not_maintained(&mut self, error: LogError) -> Result<(), LogError> {
        let LogError::Unreadable { group, index, source } = error else { return no_room(error) };
        self.maintain_at = self.ticks + HOUSEKEEPING_TICKS;
        let is_applied = self.groups.get(group).is_some_and(|state| index <= state.raft().applied_index());
        if is_applied && !self.snapshots_wanted.contains(&group) {
            self.snapshots_wanted.push_back(group);
        }
        if self.unreadable.replace((group, index)) != Some((group, index)) {
            let error = cause(&source);
            tracing::error!(
                group = %GroupId(group), index, error,
                "an entry cannot be read back from the log: its segment is kept until a snapshot has taken its place"
            );
        }
        Ok(())
    }

    /// Starts to receive a snapshot; `None` when it is not for a replica that is here, or another one of the group waits for Raft.
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
        let Some(state) = self.receiver_of(group, incarnation, &message) else { return Ok(None) };
        if message.snapshot_index().is_none() {
            return Ok(None);
        }
        failpoint::hit(Point::SnapshotReceive)?;
        // One count is the worker's own.
        let has_place = Arc::strong_count(&self.restoring) <= self.options.limits.restores_at_once;
        let restore = has_place.then(|| (Restore::of(state.machine()), Arc::clone(&self.restoring)));
        let file = self.snapshots.create_incoming(group)?;
        Ok(Some(SnapshotReceive { group, incarnation, message, file, restore }))
    }

    /// The group that a snapshot is for, if its replica is here and no other snapshot of it waits for Raft.
    fn receiver_of(&self, group: u16, incarnation: u32, message: &Message) -> Option<&Group> {
        let is_ours = |g: &&Group| g.incarnation() == incarnation && g.raft().replica() == message.to();
        self.groups.get(group).filter(is_ours).filter(|_| !self.received.contains_key(&group))
    }

    /// All bytes of a snapshot have come. Returns its group and index; `None` when another one of the group came just before
    /// and Raft has not judged it yet: what becomes of that one must not touch the file of this one, which may have its name.
    ///
    /// # Errors
    /// They are incomplete or damaged.
    pub fn snapshot_received(&mut self, receive: SnapshotReceive<D>) -> anyhow::Result<Option<(u16, u64)>> {
        let SnapshotReceive { group, incarnation, message, file, restore } = receive;
        let whole = self.whole_snapshot(group, &message, file);
        let state = self.receiver_of(group, incarnation, &message);
        let (Ok(job), Some(state)) = (&whole, state) else {
            self.jobs.extend(restore.map(|restore| Job::Free(Box::new(restore))));
            return whole.map(|_| None);
        };
        let id = (group, job.header().index);
        let (restore, place) = match restore {
            Some((restore, place)) => (restore, Some(place)),
            None => (Restore::of(state.machine()), None),
        };
        self.received.insert(group, None);
        self.jobs.extend(whole.map(|job| Job::Received { job, message, group, restore, place }));
        Ok(Some(id))
    }

    fn whole_snapshot(
        &mut self,
        group: u16,
        message: &Message,
        file: IncomingSnapshot<D>,
    ) -> anyhow::Result<SnapshotJob<D>> {
        failpoint::hit(Point::SnapshotReceived)?;
        let job = self.snapshots.finish_incoming(file)?;
        let header = job.header();
        anyhow::ensure!(
            Some(header.index) == message.snapshot_index()
                && header.group == group
                && (header.conf.is_empty() || header.conf == message.snapshot_members()),
            "the snapshot is not the one that was announced"
        );
        Ok(job)
    }

    /// Begins a snapshot of every group that wants one, one after the other, and reads the next bytes of its state.
    pub(super) fn build_snapshot(&mut self) -> Result<(), LogError> {
        if self.building.is_none() && !self.begin_snapshot()? {
            return Ok(());
        }
        // Room on the disk comes by snapshots.
        let is_pressing = PRESSING_GROUPS <= self.snapshots_wanted.len() || self.is_full();
        let Some(building) = &mut self.building else { return Ok(()) };
        let (Some(_), Some(group)) = (&building.writer, self.groups.get_mut(building.group)) else {
            return Ok(());
        };
        let step_bytes = self.options.limits.snapshot_step_bytes;
        building.is_read = group.snapshot_next(step_bytes, &mut building.piece);
        // Until it is in the file this worker waits, so that others have the processor between two steps.
        let bytes = std::mem::take(&mut building.piece);
        self.jobs.extend(building.writer.take().map(|writer| Job::Write { writer, bytes, is_pressing }));
        Ok(())
    }

    /// Begins a snapshot of the next group that wants one; whether there was one.
    fn begin_snapshot(&mut self) -> Result<bool, LogError> {
        let Some(id) = self.snapshots_wanted.pop_front() else { return Ok(false) };
        let Some(group) = self.groups.get_mut(id) else { return Ok(false) };
        let incarnation = group.incarnation();
        let Some((index, term)) = group.snapshot_begin() else { return Ok(false) };
        let conf = group.raft().membership().encode().into();
        let header =
            SnapshotHeader { group: id, feature_level: FEATURE_LEVEL, incarnation, index, term, conf };
        match self.snapshots.create(header) {
            Ok(writer) => {
                self.status.snapshots_written += 1;
                self.building = Some(Building {
                    group: id,
                    writer: Some(writer),
                    piece: std::mem::take(&mut self.spare_piece),
                    is_read: false,
                    is_given_up: false,
                });
                Ok(true)
            }
            Err(error) => {
                group.snapshot_abort();
                no_room(error).map(|()| false)
            }
        }
    }

    /// A piece of the snapshot that is being built is in its file, or did not fit.
    pub(super) fn piece_written(
        &mut self,
        result: Result<(SnapshotWriter<D>, Vec<u8>), LogError>,
    ) -> Result<(), LogError> {
        let Some(mut building) = self.building.take() else { return Ok(()) };
        if building.is_given_up {
            return Ok(());
        }
        let finished = result.and_then(|(writer, piece)| {
            if building.is_read {
                // One that a large value has made grow is not kept.
                if piece.capacity() <= 4 * self.options.limits.snapshot_step_bytes {
                    self.spare_piece = piece;
                }
                return writer.finish().map(Some);
            }
            (building.writer, building.piece) = (Some(writer), piece);
            Ok(None)
        });
        match finished {
            Ok(Some(job)) => self.jobs.push(Job::Snapshot { job, group: building.group }),
            Ok(None) => self.building = Some(building),
            Err(error) => {
                if let Some(group) = self.groups.get_mut(building.group) {
                    group.snapshot_abort();
                }
                return no_room(error);
            }
        }
        Ok(())
    }

    /// The snapshot of this group that is being built, if it is one of it, is of no use any more.
    pub(super) fn give_up_building(&mut self, id: u16) {
        if let Some(building) = self.building.as_mut().filter(|building| building.group == id) {
            building.is_given_up = true;
            if building.writer.is_some() {
                self.building = None;
            }
        }
    }

    /// Whether there is work that no input asks for, so that turns must go on.
    pub fn has_background_work(&self) -> bool {
        let has_snapshot_work = match &self.building {
            Some(building) => building.writer.is_some(),
            None => !self.snapshots_wanted.is_empty(),
        };
        has_snapshot_work || self.can_succeed()
    }

    pub(super) fn install(&mut self, id: u16, index: u64, term: u64) -> anyhow::Result<()> {
        self.status.snapshots_installed += 1;
        failpoint::hit(Point::SnapshotInstall)?;
        self.snapshots.complete(id, index)?;
        let received = self.received.remove(&id).flatten();
        let Received { header, machine } =
            received.filter(|r| r.header.index == index && r.header.term == term).ok_or_else(|| {
                anyhow::anyhow!("group {id}: the snapshot at {index} that Raft accepted is not here")
            })?;
        let conf = header.conf;
        self.give_up_building(id);
        let Some(group) = self.groups.get_mut(id) else { return Ok(()) };
        group.snapshot_abort();
        self.jobs.push(Job::Free(Box::new(group.install(machine))));
        self.log.borrow_mut().stage_mark(id, &Mark { index, term, conf }, false)?;
        failpoint::pass(Point::SnapshotInstalled);
        Ok(())
    }
}

/// What is wrong with a file. That a damaged one ends a node is for its start, when it has nothing else.
pub(super) fn cause(error: &LogError) -> String {
    match error {
        LogError::Damaged { file, offset, what } => format!("{file} is damaged at byte {offset}: {what}"),
        LogError::Io { action, file, source } => format!("cannot {action} {file}: {source}"),
        other => other.to_string(),
    }
}

/// Reads a snapshot into a fresh state; on any thread.
#[derive(Debug)]
pub enum Restore {
    /// Of a partition.
    Partition(Box<MachineRestorer>),
    /// Of the meta group: its bytes, read at the end.
    Meta(Vec<u8>),
}

impl Restore {
    /// For a state of the same kind.
    pub(super) fn of(kind: &Machine) -> Self {
        match kind {
            Machine::Partition(machine) => Self::Partition(Box::new(machine.restorer())),
            Machine::Meta(_) => Self::Meta(Vec::new()),
        }
    }

    /// Reads it all.
    ///
    /// # Errors
    /// It is damaged, or no such state.
    pub(super) fn run<D: Disk>(mut self, mut reader: SnapshotReader<D>) -> anyhow::Result<Machine> {
        while let Some(chunk) = reader.next_chunk()? {
            self.push(&chunk)?;
            // Whoever serves commands has the processor now, and not only when this thread's slice is over.
            std::thread::yield_now();
        }
        self.finish()
    }

    /// Reads the next bytes, of any number.
    ///
    /// # Errors
    /// They are of no such state.
    fn push(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Partition(restorer) => restorer.push(bytes).map_err(anyhow::Error::msg),
            Self::Meta(whole) => {
                whole.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Ends the snapshot.
    ///
    /// # Errors
    /// It is incomplete, or no such state.
    pub(super) fn finish(self) -> anyhow::Result<Machine> {
        match self {
            Self::Partition(restorer) => {
                Ok(Machine::Partition(Box::new(restorer.finish().map_err(anyhow::Error::msg)?)))
            }
            Self::Meta(whole) => {
                Ok(Machine::Meta(Box::new(MetaMachine::restore(&whole).map_err(anyhow::Error::msg)?)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Now};
    use crate::log::MemDisk;
    use crate::meta::form::tests::sample_map;
    use crate::shard::raft::TICK_MS;
    use crate::shard::{Origin, Submission};
    use ringfort_resp::{Command, Protocol};
    use ringfort_wire::ClusterMap;
    use ringfort_wire::entry::OpKind;
    use ringfort_wire::frame;
    use ringfort_wire::request::CommandBody;

    const GROUP: GroupId = GroupId(5);
    /// What is found in files.
    const VALUE: &[u8] = b"a value to be found in files";
    /// Ticks within which whatever can happen has happened (5 s).
    const TICKS_MAX: usize = 500;

    #[derive(Clone, Copy)]
    struct At(Now);

    impl Clock for At {
        fn now(&self) -> Now {
            self.0
        }
    }

    /// Three nodes of one worker, with instant disks and links; one of them may be cut off.
    struct Trio {
        map: ClusterMap,
        disks: Vec<MemDisk>,
        cores: Vec<WorkerCore<MemDisk>>,
        cut: Option<usize>,
        /// Whether every snapshot is sent twice at once.
        is_doubled: bool,
        /// How many of the next transfers are damaged on their way.
        damaged_transfers: usize,
        now: Now,
    }

    impl Trio {
        fn new() -> Self {
            let map = sample_map();
            let disks: Vec<_> = (0..3).map(|_| MemDisk::new()).collect();
            let cores = (0..3).map(|n| start(&map, n, &disks[n], false)).collect();
            let now = Now { boot_us: 1_000_000, wall_ms: 1_000_000 };
            let mut trio =
                Self { map, disks, cores, cut: None, is_doubled: false, damaged_transfers: 0, now };
            trio.until("a leader", |trio| trio.leader().is_some());
            trio
        }

        fn group(&self, n: usize) -> &Group {
            self.cores[n].group(GROUP).expect("each node has a replica")
        }

        fn leader(&self) -> Option<usize> {
            let leads = |n: &usize| self.group(*n).raft().is_leader() && Some(*n) != self.cut;
            (0..3).find(|n| leads(n) && self.group(*n).raft().is_own_term_applied())
        }

        /// Lets one tick pass, and all that follows from it.
        fn tick(&mut self) {
            self.now.boot_us += TICK_MS * 1000;
            self.now.wall_ms += TICK_MS;
            for core in &mut self.cores {
                core.pass_time(self.now);
            }
            for _ in 0..4 {
                for n in 0..3 {
                    self.turn(n);
                }
            }
        }

        fn turn(&mut self, n: usize) {
            let core = &mut self.cores[n];
            core.turn(&At(self.now)).unwrap();
            for job in core.take_jobs() {
                core.job_done(job.run()).unwrap();
            }
            let mut sent = Vec::new();
            core.send_raft_output(|to, _, bytes| sent.push((number(to), bytes.to_vec())));
            for (to, bytes) in sent {
                let mut start = 0;
                while let Some(frame) = frame::next(&bytes[start..]).unwrap() {
                    if ![Some(n), Some(to)].contains(&self.cut) {
                        self.cores[to].peer_frame(frame.kind, frame.body, self.now).unwrap();
                    }
                    start += frame.consumed;
                }
            }
            for send in self.cores[n].take_snapshot_sends() {
                self.send_snapshot(n, send);
            }
        }

        fn send_snapshot(&mut self, n: usize, mut send: SnapshotSend<MemDisk>) {
            let (to, replica, index) = (number(&send.to), send.message.to(), send.reader.header().index);
            let is_cut = [Some(n), Some(to)].contains(&self.cut);
            let mut message = Vec::new();
            send.message.encode(&mut message);
            let receiver = &mut self.cores[to];
            let receive = receiver.receive_snapshot(send.group.0, send.incarnation, &message).unwrap();
            let Some(mut receive) = receive.filter(|_| !is_cut) else {
                return self.cores[n].snapshot_sent(send.group, replica, false);
            };
            let again =
                self.is_doubled.then(|| receiver.receive_snapshot(send.group.0, send.incarnation, &message));
            let mut again = again.and_then(|again| again.unwrap());
            let is_damaged = self.damaged_transfers > 0;
            for piece in 0.. {
                let mut bytes = Vec::new();
                match send.reader.next_raw(50, &mut bytes) {
                    Ok(0) => break,
                    Ok(_) => {
                        // In the middle of the state, some of which is taken in by then.
                        if is_damaged && piece == 4 {
                            bytes[0] ^= 1;
                        }
                        if let Err(error) = receive.write(&bytes) {
                            assert!(is_damaged, "only what is good is sent: {error:#}");
                            self.damaged_transfers -= 1;
                            return self.cores[n].snapshot_sent(send.group, replica, false);
                        }
                        again.iter_mut().for_each(|again| again.write(&bytes).unwrap());
                    }
                    Err(error) => {
                        self.cores[n].snapshot_unreadable(send.group, index, &error);
                        return self.cores[n].snapshot_sent(send.group, replica, false);
                    }
                }
            }
            assert!(!is_damaged, "a damaged snapshot was taken in");
            receiver.snapshot_received(receive).unwrap();
            if let Some(again) = again {
                assert_eq!(receiver.snapshot_received(again).unwrap(), None, "one at a time");
            }
            self.cores[n].snapshot_sent(send.group, replica, true);
        }

        #[track_caller]
        fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
            for _ in 0..TICKS_MAX {
                if is_so(self) {
                    return;
                }
                self.tick();
            }
            let groups: Vec<_> = (0..3).map(|n| self.group(n).status()).collect();
            panic!("{what}: not within {TICKS_MAX} ticks: {groups:#?}");
        }

        /// Writes a few entries, which all that are not cut off apply.
        fn write(&mut self, keys: std::ops::Range<u8>) {
            self.until("a leader", |trio| trio.leader().is_some());
            let leader = self.leader().expect("it was awaited");
            for key in keys {
                let mut body = Vec::new();
                let args: [&[u8]; 2] = [&[key], VALUE];
                CommandBody::encode(&mut body, Command::Set as u16, Protocol::Resp2, args.iter());
                let write = Submission {
                    origin: Origin::None,
                    session: 0,
                    seq: 0,
                    acked: 0,
                    is_after_queued: false,
                    body: &body,
                };
                let core = &mut self.cores[leader];
                let group = core.groups.get_mut(GROUP.0).expect("it leads");
                group.write(OpKind::Command, write, &mut core.ports);
                core.touch(GROUP.0);
                self.tick();
            }
            self.until("the others have it", Self::is_equal);
        }

        /// Whether all that are not cut off have applied the same.
        fn is_equal(&self) -> bool {
            let applied = |n: usize| (self.group(n).raft().applied_index(), self.group(n).digest());
            let last = (0..3).map(|n| self.group(n).raft().last_index()).max();
            let mut others = (0..3).filter(|n| Some(*n) != self.cut).map(applied);
            let first = others.next();
            first.map(|(index, _)| index) == last && others.all(|other| Some(other) == first)
        }

        fn restart(&mut self, n: usize) {
            self.disks[n].kill();
            self.cores[n] = start(&self.map, n, &self.disks[n], true);
        }

        /// Flips a bit in the last file of a kind: where it last has these bytes, or in its middle.
        fn damage(&self, n: usize, kind: &str, bytes: Option<&[u8]>) {
            use crate::log::{Disk as _, DiskFile as _};
            let disk = &self.disks[n];
            let names = disk.list().unwrap();
            let name = names.iter().rfind(|name| name.starts_with(kind)).expect("there is a file");
            let file = disk.open(name).unwrap();
            let mut all = vec![0; usize::try_from(file.bytes().unwrap()).unwrap()];
            file.read_at(0, &mut all).unwrap();
            let offset = match bytes {
                Some(bytes) => all.windows(bytes.len()).rposition(|window| window == bytes),
                None => Some(all.len() / 2),
            };
            assert!(disk.flip(name, offset.expect("the bytes are there") as u64, 0x10));
        }
    }

    fn number(node: &NodeId) -> usize {
        node.0.trim_start_matches('n').parse::<usize>().unwrap() - 1
    }

    fn start(map: &ClusterMap, n: usize, disk: &MemDisk, has_run: bool) -> WorkerCore<MemDisk> {
        crate::worker::core::tests::start(n as u64 + 1, map, disk, has_run)
    }

    #[test]
    fn a_follower_that_needs_an_entry_that_decayed_gets_a_snapshot() {
        // Without a snapshot on disk; with one that the follower is beyond; and when it comes twice at once.
        for (has_snapshot, is_doubled) in [(false, false), (true, false), (true, true)] {
            let mut trio = Trio { is_doubled, ..Trio::new() };
            if has_snapshot {
                trio.write(0..3);
                (0..3).for_each(|n| trio.cores[n].snapshots_wanted.push_back(GROUP.0));
                trio.until("snapshots", |trio| (0..3).all(|n| trio.group(n).raft().mark_index() > 0));
                trio.write(3..4);
            }
            let absent = (trio.leader().expect("it wrote") + 1) % 3;
            trio.cut = Some(absent);
            trio.write(10..14);
            // From now on they have these entries on disk only.
            let others: Vec<usize> = (0..3).filter(|n| *n != absent).collect();
            others.iter().for_each(|&n| trio.restart(n));
            trio.until("a new leader", |trio| trio.leader().is_some() && trio.is_equal());
            others.iter().for_each(|&n| trio.damage(n, "log-", Some(VALUE)));
            trio.cut = None;
            trio.until("the follower has caught up", |trio| trio.leader().is_some() && trio.is_equal());
            assert!(trio.group(absent).raft().mark_index() > 0, "by a snapshot");
            trio.write(20..22);
        }
    }

    #[test]
    fn a_snapshot_given_up_while_a_piece_is_written_ends_with_that_piece() {
        let mut trio = Trio::new();
        trio.write(0..3);
        let core = &mut trio.cores[0];
        core.snapshots_wanted.push_back(GROUP.0);
        core.build_snapshot().unwrap();
        let jobs = core.take_jobs();
        assert!(jobs.iter().any(|job| matches!(job, Job::Write { .. })));
        assert!(!core.has_background_work(), "turns go on when the piece is in the file");
        core.give_up_building(GROUP.0);
        core.groups.get_mut(GROUP.0).unwrap().snapshot_abort();
        for job in jobs {
            core.job_done(job.run()).unwrap();
        }
        assert!(core.take_jobs().is_empty(), "nothing is made durable");
        let names = trio.disks[0].list().unwrap();
        assert!(names.iter().all(|name| !name.starts_with("snap-")), "{names:?}");
        trio.cores[0].snapshots_wanted.push_back(GROUP.0);
        trio.until("the next one", |trio| trio.group(0).raft().mark_index() > 0);
    }

    #[test]
    fn a_snapshot_that_decayed_is_not_sent_but_made_anew() {
        // Its first bytes, which its reader needs, and others that only pass by.
        for damaged in [Some(&b"RFSNAPSH"[..]), None] {
            let mut trio = Trio::new();
            let absent = (trio.leader().expect("it wrote") + 1) % 3;
            trio.cut = Some(absent);
            trio.write(0..4);
            let others: Vec<usize> = (0..3).filter(|n| *n != absent).collect();
            for &n in &others {
                trio.cores[n].snapshots_wanted.push_back(GROUP.0);
            }
            trio.until("snapshots", |trio| others.iter().all(|&n| trio.group(n).raft().mark_index() > 0));
            others.iter().for_each(|&n| trio.damage(n, "snap-5-", damaged));
            let index = trio.group(others[0]).raft().applied_index();
            trio.cut = None;
            trio.until("the follower has caught up", |trio| trio.leader().is_some() && trio.is_equal());
            let at = trio.group(absent).raft().mark_index();
            assert!(index <= at, "by a snapshot at {at}, not before {index}");
            trio.write(20..22);
        }
    }

    #[test]
    fn a_snapshot_that_is_damaged_on_its_way_is_refused_and_the_next_one_serves() {
        // Read as it comes, or from its file when it is whole.
        for restores_at_once in [4, 0] {
            let mut trio = Trio::new();
            trio.cores.iter_mut().for_each(|core| core.options.limits.restores_at_once = restores_at_once);
            let absent = (trio.leader().expect("a leader") + 1) % 3;
            trio.cut = Some(absent);
            trio.write(0..40);
            let others: Vec<usize> = (0..3).filter(|n| *n != absent).collect();
            others.iter().for_each(|&n| trio.cores[n].snapshots_wanted.push_back(GROUP.0));
            trio.until("snapshots", |trio| others.iter().all(|&n| trio.group(n).raft().mark_index() > 0));
            trio.damaged_transfers = 2;
            trio.cut = None;
            trio.until("the follower has caught up", |trio| trio.leader().is_some() && trio.is_equal());
            assert_eq!(trio.damaged_transfers, 0);
            assert!(trio.group(absent).raft().mark_index() > 0, "by a snapshot");
            assert_eq!(Arc::strong_count(&trio.cores[absent].restoring), 1, "all places are free again");
        }
    }

    #[test]
    fn no_more_snapshots_are_read_as_they_come_than_have_a_place() {
        let mut trio = Trio::new();
        let core = &mut trio.cores[0];
        let group = core.group(GROUP).unwrap();
        let (incarnation, replica) = (group.incarnation(), group.raft().replica());
        let mut message = Vec::new();
        Message::of_snapshot(replica, 9).encode(&mut message);
        let most = core.options.limits.restores_at_once;
        let mut receive = || core.receive_snapshot(GROUP.0, incarnation, &message).unwrap().unwrap();
        let mut receives: Vec<_> = (0..most).map(|_| receive()).collect();
        assert!(receives.iter().all(|receive| receive.restore.is_some()));
        assert!(receive().restore.is_none(), "it waits in its file");
        receives.pop();
        assert!(receive().restore.is_some(), "a place that is free is taken");
    }
}
