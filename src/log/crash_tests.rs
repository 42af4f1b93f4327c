//! One scripted life of a log and its snapshots, crashed after every single operation of the disk, in every way that
//! [`CrashImage`] names; then recovery, crashed after every operation of its own.
//!
//! The script does what a worker does: appends of several groups in one write, hard states, conflicting entries, changes
//! of segments, own and received snapshots with their marks, old segments rewritten and removed, the end of a replica.

use super::tests::{Model, entry, maintain, options};
use super::*;

/// Groups of the script.
const GROUPS: u16 = 3;
/// Few, so that many segments begin, die, and are rewritten.
const SEGMENT_BYTES: u64 = 500;
/// Rounds of the script; the second one meets what the first one left.
const ROUNDS: u64 = 3;

/// A log, its snapshots, and the states that each of its writes should leave.
struct Life {
    log: Log<MemDisk>,
    files: SnapshotFiles<MemDisk>,
    staged: Model,
    /// The state after each write, by its number.
    history: Vec<Model>,
    /// The last write that a finished sync made durable.
    durable: u64,
    /// Snapshots (group, index) that a finished job made durable, of groups that are still there.
    snapshots: BTreeMap<u16, u64>,
}

fn snapshot_data(group: u16, index: u64) -> String {
    format!("state of group {group} at {index} ").repeat(20)
}

impl Life {
    fn begin(disk: &MemDisk) -> Result<Self, LogError> {
        let (log, _) = Log::open(disk.clone(), options(SEGMENT_BYTES))?;
        let files = SnapshotFiles::load(disk.clone())?;
        let history = vec![Model::new()];
        Ok(Self { log, files, staged: Model::new(), history, durable: 0, snapshots: BTreeMap::new() })
    }

    fn append(&mut self, group: u16, first: u64, count: u64, term: u64) -> Result<(), LogError> {
        let entries: Vec<_> = (first..first + count)
            .map(|index| entry(index, term, &format!("{group}/{index}/{term}").repeat(3)))
            .collect();
        self.log.stage_entries(group, &entries)?;
        let model = self.staged.entry(group).or_default();
        model.entries.split_off(&first);
        model.entries.extend(entries.into_iter().map(|entry| (entry.index, entry)));
        Ok(())
    }

    fn hard_state(&mut self, group: u16, term: u64, commit: u64) -> Result<(), LogError> {
        let state = HardState { term, vote: 1, commit };
        self.log.stage_hard_state(group, &state)?;
        self.staged.entry(group).or_default().hard_state = state;
        Ok(())
    }

    fn write(&mut self) -> Result<(), LogError> {
        let before = self.log.written();
        if self.log.write()? != before {
            self.history.push(self.staged.clone());
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LogError> {
        if let Some(job) = self.log.sync_job() {
            let through = job.through();
            job.run()?;
            self.durable = self.durable.max(through);
        }
        Ok(())
    }

    /// What the worker does ten times a second.
    fn maintain(&mut self) -> Result<(), LogError> {
        let before = self.log.written();
        let result = maintain(&mut self.log);
        if self.log.written() != before {
            self.history.push(self.staged.clone());
        }
        result?;
        self.sync()
    }

    /// A snapshot of `group` at `index`, then the mark that relies on it.
    fn snapshot(&mut self, group: u16, index: u64, is_received: bool) -> Result<(), LogError> {
        let term = self.staged[&group].entries.get(&index).map_or(9, |entry| entry.term);
        let conf = Bytes::from_static(b"members");
        let header =
            SnapshotHeader { group, feature_level: 1, incarnation: 1, index, term, conf: conf.clone() };
        let job = if is_received {
            let mut other = SnapshotFiles::load(MemDisk::new())?;
            let mut writer = other.create(header)?;
            writer.chunk(snapshot_data(group, index).as_bytes())?;
            writer.finish()?.run()?;
            other.complete(group, index)?;
            let mut bytes = Vec::new();
            other.open(group)?.expect("just made").next_raw(usize::MAX, &mut bytes)?;
            let mut incoming = self.files.create_incoming(group)?;
            bytes.chunks(100).try_for_each(|piece| incoming.write(piece, |_| {}))?;
            self.files.finish_incoming(incoming)?
        } else {
            let mut writer = self.files.create(header)?;
            for piece in snapshot_data(group, index).as_bytes().chunks(100) {
                writer.chunk(piece)?;
            }
            writer.finish()?
        };
        job.run()?;
        self.snapshots.insert(group, index);
        self.files.complete(group, index)?;
        let mark = Mark { index, term, conf };
        self.log.stage_mark(group, &mark, !is_received)?;
        let model = self.staged.entry(group).or_default();
        model.entries = if is_received { BTreeMap::new() } else { model.entries.split_off(&(index + 1)) };
        model.mark = mark;
        self.write()
    }

    fn remove(&mut self, group: u16) -> Result<(), LogError> {
        self.log.stage_remove_group(group)?;
        self.staged.remove(&group);
        self.write()?;
        self.sync()?;
        self.snapshots.remove(&group);
        self.files.remove(group)
    }

    fn live(&mut self) -> Result<(), LogError> {
        for round in 0..ROUNDS {
            let term = 1 + 2 * round;
            for group in 1..=GROUPS {
                if !self.staged.contains_key(&group) {
                    let identity = Identity {
                        replica: u64::from(group) + 10 * round,
                        incarnation: 1,
                        ..Identity::default()
                    };
                    self.log.stage_identity(group, &identity)?;
                    self.staged.entry(group).or_default().identity = identity;
                }
                let next = self.staged[&group].last() + 1;
                self.append(group, next, 3, term)?;
                self.hard_state(group, term, next)?;
            }
            self.write()?;
            self.sync()?;
            // Two writes that no sync covers yet, in two segments, and entries that replace others.
            let last = self.staged[&1].last();
            self.append(1, last, 4, term + 1)?;
            self.write()?;
            self.append(2, self.staged[&2].last() + 1, 6, term)?;
            self.hard_state(1, term + 1, last)?;
            self.write()?;
            self.snapshot(1, self.staged[&1].last() - 1, false)?;
            self.maintain()?;
            self.snapshot(3, self.staged[&3].last() + 5, true)?;
            self.sync()?;
            self.maintain()?;
            self.maintain()?;
            if round == 1 {
                self.remove(2)?;
            }
            self.maintain()?;
        }
        Ok(())
    }

    /// What must hold of a disk after a crash.
    fn check(&self, disk: &MemDisk, context: &str) -> u64 {
        let (log, recovered) = match Log::open(disk.clone(), options(SEGMENT_BYTES)) {
            Ok(opened) => opened,
            Err(error) => panic!("{context}: {error}"),
        };
        let now = log.written();
        assert!(self.durable <= now, "{context}: of {} durable writes {now} are left", self.durable);
        let model = self.history.get(usize::try_from(now).expect("small"));
        let model = model.unwrap_or_else(|| panic!("{context}: write {now} was never made"));
        let expected: Vec<_> = model.iter().map(|(&id, group)| group.recovered(id)).collect();
        assert_eq!(recovered, expected, "{context}: a state that write {now} did not leave");
        for (&id, group) in model {
            let entries = log.read(id, group.mark.index + 1, group.last() + 1, usize::MAX);
            let entries = entries.unwrap_or_else(|error| panic!("{context}: {error}"));
            assert!(entries.iter().eq(group.entries.values()), "{context}: entries of group {id}");
        }
        log.check_invariants();
        let files = SnapshotFiles::load(disk.clone()).expect("the snapshots can be listed");
        for (&id, group) in model {
            let needed = group.mark.index.max(self.snapshots.get(&id).copied().unwrap_or(0));
            let found = files.open(id).unwrap_or_else(|error| panic!("{context}: {error}"));
            let index = found.as_ref().map_or(0, |reader| reader.header().index);
            assert!(needed <= index, "{context}: group {id} relies on a snapshot at {needed}, not {index}");
            let Some(mut reader) = found else { continue };
            let mut data = Vec::new();
            while let Some(chunk) = reader.next_chunk().unwrap_or_else(|e| panic!("{context}: {e}")) {
                data.extend_from_slice(&chunk);
            }
            assert_eq!(data, snapshot_data(id, index).as_bytes(), "{context}: group {id}");
        }
        let temporary = disk.list().expect("a list").into_iter().find(|name| name.ends_with(".tmp"));
        assert_eq!(temporary, None, "{context}: what was left unfinished stays");
        drop(log);
        Self::check_goes_on(disk.fork(), now, context);
        now
    }
}

impl Life {
    /// What recovery left of the files must not be taken for more than it is, behind the next write.
    fn check_goes_on(mut disk: MemDisk, now: u64, context: &str) {
        let (mut log, _) = Log::open(disk.clone(), options(SEGMENT_BYTES)).expect("it has opened before");
        log.stage_entries(9, &[entry(1, 1, "")]).expect("a new group");
        log.write().unwrap_or_else(|error| panic!("{context}: {error}"));
        disk.kill();
        let process = LogOptions { last_stop: LastStop::Process, ..options(SEGMENT_BYTES) };
        match Log::open(disk, process) {
            Ok((log, _)) => assert_eq!(log.written(), now + 1, "{context}: one more write"),
            Err(error) => panic!("{context}: after one more write: {error}"),
        }
    }
}

/// The life up to the moment in which the power goes off, `ops` operations after its begin; whether that came.
fn life_until(ops: u64) -> (Option<Life>, MemDisk, bool) {
    let disk = MemDisk::new();
    disk.power_off_after(ops);
    let Ok(mut life) = Life::begin(&disk) else { return (None, disk, true) };
    let result = life.live();
    let is_cut = result.is_err();
    // The writes that a failed `write` may have left in the file count as neither made nor lost.
    life.history.push(life.staged.clone());
    (Some(life), disk, is_cut)
}

#[test]
fn a_crash_after_any_operation_in_any_way_loses_nothing_durable() {
    let (mut crashes, mut lossy, mut again) = (0, 0, 0);
    for ops in 0.. {
        let (life, disk, is_cut) = life_until(ops);
        for image in CrashImage::ALL {
            let mut disk = disk.fork();
            disk.crash_to(image);
            let context = format!("crash after {ops} operations to {image:?}");
            crashes += 1;
            let Some(life) = &life else {
                let opened = Log::open(disk, options(SEGMENT_BYTES));
                assert!(opened.is_ok_and(|(_, groups)| groups.is_empty()), "{context}");
                continue;
            };
            // Recovery, cut after each of its own operations, in two ways, and then as a whole.
            for steps in 0.. {
                let mut cut = disk.fork();
                cut.power_off_after(steps);
                let result = Log::open(cut.clone(), options(SEGMENT_BYTES))
                    .and_then(|_| SnapshotFiles::load(cut.clone()));
                if result.is_ok() {
                    break;
                }
                let mut kept = cut.fork();
                kept.kill();
                life.check(&kept, &format!("{context}, recovery killed after {steps}"));
                cut.crash_to(CrashImage::Lost);
                life.check(&cut, &format!("{context}, recovery crashed after {steps}"));
                again += 2;
            }
            let now = life.check(&disk, &context);
            let mut twice = disk.fork();
            twice.crash_to(CrashImage::Lost);
            assert_eq!(life.check(&twice, &context), now, "{context}: what was recovered is durable");
            lossy += u64::from(now < life.log.written());
        }
        // A process that ends alone loses no write.
        if let Some(life) = &life {
            let mut killed = disk.fork();
            killed.kill();
            let now = life.check(&killed, &format!("kill after {ops} operations"));
            assert!(life.log.written() <= now, "a kill after {ops} operations lost a write");
        }
        if !is_cut {
            break;
        }
    }
    println!("{crashes} crashes, {lossy} of them lost unsynced writes, {again} crashes of recovery");
    assert!(1000 < crashes && 100 < lossy && 1000 < again, "the script reaches what it tests");
}

/// A sync fails, so the process ends; the next one reads what the system still holds for written.
#[test]
fn what_a_restart_reads_after_a_failed_sync_is_durable_before_it_counts() {
    let (mut failures, mut rescued) = (0, 0);
    for syncs in 0.. {
        let mut disk = MemDisk::new();
        disk.fail_sync_after(syncs);
        let Ok(mut life) = Life::begin(&disk) else {
            // Nothing was written yet: the next process begins with what is there.
            disk.kill();
            let mut life = Life::begin(&disk).expect("the disk works again");
            life.append(1, 1, 3, 1).and_then(|()| life.write()).expect("the disk works");
            life.sync().expect("the disk works");
            disk.crash_to(CrashImage::Lost);
            life.check(&disk, &format!("failure of sync {syncs}"));
            continue;
        };
        if life.live().is_ok() {
            break;
        }
        failures += 1;
        life.history.push(life.staged.clone());
        for image in CrashImage::ALL {
            // Also when the first sync of the next process tells of the failure once more, and that one ends, too.
            for fails_again in [false, true] {
                let context = format!("failure of sync {syncs}, {image:?}, {fails_again}");
                let mut disk = disk.fork();
                disk.kill();
                if fails_again {
                    disk.fail_next_sync();
                    assert!(Log::open(disk.clone(), options(SEGMENT_BYTES)).is_err(), "{context}");
                    disk.kill();
                }
                let (log, _) = Log::open(disk.clone(), options(SEGMENT_BYTES)).expect("all is there");
                let now = log.synced();
                drop(log);
                disk.crash_to(image);
                assert_eq!(life.check(&disk, &context), now, "{context}: it counted as durable");
                rescued += u64::from(life.durable < now);
            }
        }
    }
    println!("{failures} failed syncs, {rescued} times the next process found more than was synced");
    assert!(20 < failures && 100 < rescued, "the script reaches what it tests");
}
