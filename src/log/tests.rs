//! Behaviour of the log, and random runs against a model with crashes at any step.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::mem_disk::Rng;
use super::*;

/// A folder that is removed with its guard.
pub(super) struct TempFolder(PathBuf);

impl TempFolder {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringfort-log-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn entry(index: u64, term: u64, data: &str) -> LogEntry {
    LogEntry { index, term, kind: 7, data: Bytes::copy_from_slice(data.as_bytes()) }
}

pub(super) fn options(segment_bytes: u64) -> LogOptions {
    LogOptions { segment_bytes, ..LogOptions::default() }
}

pub(super) fn open(disk: &MemDisk, segment_bytes: u64) -> (Log<MemDisk>, Vec<Recovered>) {
    Log::open(disk.clone(), options(segment_bytes)).expect("the log opens")
}

pub(super) fn sync(log: &mut Log<MemDisk>) {
    if let Some(job) = log.sync_job() {
        job.run().expect("the sync succeeds");
    }
}

/// Frees room as a worker does, whose other thread reads at once; writes at most once.
pub(super) fn maintain<D: Disk>(log: &mut Log<D>) -> Result<(), LogError> {
    let before = log.written();
    log.maintain()?;
    let Some(job) = log.rewrite_job() else { return Ok(()) };
    log.rewrite_read(job.run())?;
    if log.written() == before { log.maintain() } else { Ok(()) }
}

pub(super) fn segments(disk: &MemDisk) -> Vec<String> {
    disk.list().expect("a list in memory").into_iter().filter(|name| name.starts_with("log-")).collect()
}

pub(super) fn put(log: &mut Log<MemDisk>, group: u16, entries: &[LogEntry]) -> Result<u64, LogError> {
    log.stage_entries(group, entries)?;
    log.write()
}

#[test]
fn recovers_what_was_written() {
    let mut disk = MemDisk::new();
    let (mut log, recovered) = open(&disk, 4096);
    assert_eq!(recovered, []);
    let identity = Identity { replica: 9, incarnation: 2, standing: Standing::Suspect };
    let mark = Mark { index: 10, term: 3, conf: Bytes::from_static(b"conf") };
    let hard_state = HardState { term: 5, vote: 9, commit: 12 };
    log.stage_identity(4, &identity).unwrap();
    log.stage_mark(4, &mark, false).unwrap();
    log.stage_entries(4, &[entry(11, 3, "a"), entry(12, 4, "b"), entry(13, 4, "c")]).unwrap();
    log.stage_hard_state(4, &hard_state).unwrap();
    assert_eq!(log.write().unwrap(), 1);
    log.stage_entries(4, &[entry(13, 5, "d"), entry(14, 5, "e")]).unwrap();
    assert_eq!(log.write().unwrap(), 2);
    assert_eq!(log.write().unwrap(), 2, "nothing staged, nothing written");
    sync(&mut log);
    assert_eq!(log.synced(), 2);
    assert!(log.sync_job().is_none());

    let expected = Recovered {
        group: 4,
        identity,
        hard_state,
        mark,
        last_index: 14,
        terms: vec![(11, 3), (12, 4), (13, 5)],
    };
    let entries = vec![entry(11, 3, "a"), entry(12, 4, "b"), entry(13, 5, "d"), entry(14, 5, "e")];
    assert_eq!(log.group(4), Some(expected.clone()));
    assert_eq!(log.read(4, 11, 15, usize::MAX).unwrap(), entries);
    disk.kill();
    let (log, recovered) = open(&disk, 4096);
    assert_eq!(recovered, [expected]);
    assert_eq!(log.read(4, 11, 15, usize::MAX).unwrap(), entries);
    assert_eq!(log.read(4, 11, 15, 0).unwrap(), entries[..1]);
    assert_eq!(log.read(4, 12, 14, usize::MAX).unwrap(), entries[1..3]);
    assert_eq!(
        [10, 11, 12, 13, 14, 15].map(|index| log.term(4, index)),
        [3, 3, 4, 5, 5].map(Some).into_iter().chain([None]).collect::<Vec<_>>()[..]
    );
}

#[test]
fn one_write_holds_all_groups_and_counts_as_a_whole() {
    for lost in [false, true] {
        let mut disk = MemDisk::new();
        let (mut log, _) = open(&disk, 1 << 20);
        put(&mut log, 1, &[entry(1, 1, "a")]).unwrap();
        sync(&mut log);
        let before = disk.used_bytes();
        let ops = disk.ops();
        for group in 1..=50 {
            let first = if group == 1 { 2 } else { 1 };
            log.stage_entries(group, &[entry(first, 1, "x"), entry(first + 1, 1, "y")]).unwrap();
        }
        log.write().unwrap();
        assert_eq!(disk.ops(), ops + 1, "one operation for all groups");
        disk.kill();
        if lost {
            let file = disk.open(&segments(&disk)[0]).unwrap();
            file.truncate(disk.used_bytes() - 1).unwrap();
        }
        let (log, recovered) = open(&disk, 1 << 20);
        assert_eq!(recovered.len(), if lost { 1 } else { 50 });
        assert_eq!(log.last_index(1), if lost { 1 } else { 3 });
        assert_eq!(disk.used_bytes() == before, lost, "the torn write is cut");
    }
}

#[test]
fn refuses_entries_that_do_not_fit() {
    let (mut log, _) = open(&MemDisk::new(), 4096);
    assert!(matches!(put(&mut log, 1, &[entry(2, 1, "")]), Err(LogError::Beyond { index: 2, last: 0, .. })));
    assert!(matches!(put(&mut log, 1, &[entry(0, 1, "")]), Err(LogError::Compacted { .. })));
    assert!(put(&mut log, 1, &[entry(1, 1, ""), entry(3, 1, "")]).is_err());
    assert!(put(&mut log, 1, &[entry(u64::MAX, 1, "")]).is_err());
    assert_eq!(log.written(), 0, "what is refused is not staged");
    // Staged entries count before they are written.
    log.stage_entries(1, &[entry(1, 1, "a"), entry(2, 1, "b")]).unwrap();
    log.stage_entries(1, &[entry(3, 1, "c")]).unwrap();
    log.stage_mark(1, &Mark { index: 2, ..Mark::default() }, true).unwrap();
    assert!(matches!(log.stage_entries(1, &[entry(2, 1, "")]), Err(LogError::Compacted { mark: 2, .. })));
    log.write().unwrap();
    assert_eq!((log.first_index(1), log.last_index(1)), (3, 3));
    assert!(matches!(log.read(1, 2, 4, 99), Err(LogError::Compacted { mark: 2, .. })));
    assert!(matches!(log.read(1, 3, 5, 99), Err(LogError::Beyond { last: 3, .. })));
    assert!(
        log.stage_mark(1, &Mark { index: 1, ..Mark::default() }, true).is_err(),
        "a mark never goes back"
    );
    assert!(log.stage_mark(1, &Mark { index: u64::MAX, ..Mark::default() }, false).is_err());
}

#[test]
fn accepts_nothing_after_a_failed_sync() {
    let disk = MemDisk::new();
    let (mut log, _) = open(&disk, 4096);
    put(&mut log, 1, &[entry(1, 1, "a")]).unwrap();
    let job = log.sync_job().unwrap();
    put(&mut log, 1, &[entry(2, 1, "b")]).unwrap();
    let later = log.sync_job().unwrap();
    disk.fail_next_sync();
    assert!(matches!(job.run(), Err(LogError::Io { .. })));
    assert!(matches!(later.run(), Err(LogError::Failed)), "a later sync proves nothing");
    assert_eq!(log.synced(), 0);
    assert!(matches!(log.stage_hard_state(1, &HardState::default()), Err(LogError::Failed)));
    assert!(matches!(log.write(), Err(LogError::Failed)));
    assert!(matches!(log.maintain(), Err(LogError::Failed)));
    assert!(log.sync_job().is_none());
    assert_eq!(log.read(1, 1, 3, 999).unwrap().len(), 2, "reads go on");
}

#[test]
fn a_sync_reserves_room_for_the_writes_to_come() {
    let disk = MemDisk::new();
    let (mut log, _) = open(&disk, 4096);
    let data = "x".repeat(200);
    let mut asked = Vec::new();
    for index in 1..=30 {
        put(&mut log, 1, &[entry(index, 1, &data)]).unwrap();
        let written = log.disk_bytes();
        if log.segments_len() == 2 {
            break;
        }
        sync(&mut log);
        let reserved = disk.reserved_bytes("log-0000000001.seg");
        assert!(
            reserved == 4096 || (written + 512..=written + 1024).contains(&reserved),
            "{reserved} at {written}"
        );
        asked.push(reserved);
    }
    asked.dedup();
    assert!((5..=9).contains(&asked.len()), "it asks for more at once than one write takes: {asked:?}");
    assert_eq!(asked.last(), Some(&4096), "never for more than a segment");
    sync(&mut log);
    assert!(0 < disk.reserved_bytes("log-0000000002.seg"));
}

#[test]
fn a_disk_that_is_almost_full_reserves_nothing() {
    let disk = MemDisk::new();
    disk.set_capacity(Some(1 << 30));
    let (mut log, _) = open(&disk, 4096);
    put(&mut log, 1, &[entry(1, 1, "a")]).unwrap();
    sync(&mut log);
    assert_eq!(disk.reserved_bytes("log-0000000001.seg"), 0);
}

#[test]
fn a_dropped_job_is_covered_by_the_next() {
    let (mut log, _) = open(&MemDisk::new(), 4096);
    put(&mut log, 1, &[entry(1, 1, "a")]).unwrap();
    drop(log.sync_job().unwrap());
    let job = log.sync_job().expect("the write is still not durable");
    assert_eq!(job.through(), 1);
    job.run().unwrap();
    assert_eq!(log.synced(), 1);
}

#[test]
fn a_full_disk_leaves_the_log_as_it_was_and_the_write_can_be_tried_again() {
    for room in [0, 10, 100] {
        let mut disk = MemDisk::new();
        let (mut log, _) = open(&disk, 300);
        put(&mut log, 1, &[entry(1, 1, "a")]).unwrap();
        let used = disk.used_bytes();
        // Once in the same segment, once in a new one.
        for bytes in [110, 1000] {
            disk.set_capacity(Some(used + room));
            let data = "x".repeat(bytes);
            let error = put(&mut log, 1, &[entry(2, 1, &data)]).unwrap_err();
            assert!(matches!(error, LogError::Full { .. }), "{error}");
            assert_eq!(disk.used_bytes(), used, "what was half written is gone");
            assert_eq!(log.read(1, 1, 2, 999).unwrap(), [entry(1, 1, "a")]);
            assert_eq!(log.last_index(1), 1);
            assert!(matches!(log.write(), Err(LogError::Full { .. })), "still staged, still full");
            log.drop_staged();
        }
        log.stage_entries(1, &[entry(2, 1, &"x".repeat(1000))]).unwrap();
        assert!(log.write().is_err());
        disk.set_capacity(None);
        assert_eq!(log.write().unwrap(), 2, "staged records survive the failed write");
        disk.kill();
        assert_eq!(open(&disk, 300).1[0].last_index, 2);
    }
}

#[test]
fn a_write_that_cannot_be_taken_back_ends_the_log() {
    let disk = MemDisk::new();
    let (mut log, _) = open(&disk, 4096);
    put(&mut log, 1, &[entry(1, 1, "a")]).unwrap();
    disk.power_off_after(0);
    assert!(matches!(put(&mut log, 1, &[entry(2, 1, "b")]), Err(LogError::Io { .. })));
    assert!(matches!(log.write(), Err(LogError::Failed)));
}

/// Eleven writes, each synced, over several segments.
fn synced_log(segment_bytes: u64) -> MemDisk {
    let mut disk = MemDisk::new();
    let (mut log, _) = open(&disk, segment_bytes);
    for index in 1..=11 {
        put(&mut log, 1, &[entry(index, 1, "some data")]).expect("there is room");
        sync(&mut log);
    }
    disk.kill();
    disk
}

#[test]
fn reports_every_flipped_byte_that_was_durable() {
    let disk = synced_log(300);
    let names = segments(&disk);
    assert!(2 < names.len());
    for (i, name) in names.iter().enumerate() {
        let bytes = disk.open(name).unwrap().bytes().unwrap();
        // The last write is not proven durable by a later one.
        let last_write = (WRITE_HEADER_BYTES + RECORD_HEADER_BYTES + ENTRY_HEADER_BYTES + 9) as u64;
        let end = if i + 1 == names.len() { bytes - last_write } else { bytes };
        for at in 0..end {
            let disk = synced_log(300);
            assert!(disk.flip(name, at, 4));
            let error = Log::open(disk, options(300)).map(drop).unwrap_err();
            match error {
                LogError::Damaged { file, offset, .. } => {
                    assert!(file == *name && offset <= at, "{name} {at}: found in {file} at {offset}");
                }
                error => panic!("{name} {at}: {error}"),
            }
        }
    }
}

#[test]
fn the_message_about_damage_says_what_to_do() {
    let disk = synced_log(300);
    disk.flip("log-0000000001.seg", 100, 1);
    let message = Log::open(disk, options(300)).map(drop).unwrap_err().to_string();
    assert!(message.starts_with("log-0000000001.seg is damaged at byte 48: "), "{message}");
    assert!(message.contains("must not run"), "{message}");
}

#[test]
fn a_missing_segment_is_damage() {
    for name in segments(&synced_log(300)).iter().rev().skip(1) {
        let disk = synced_log(300);
        disk.remove(name).unwrap();
        assert!(matches!(Log::open(disk, options(300)).map(drop), Err(LogError::Damaged { .. })), "{name}");
    }
}

#[test]
fn a_gap_in_unsynced_writes_is_torn_after_a_crash_of_the_machine_and_damage_otherwise() {
    let mut disk = MemDisk::new();
    let (mut log, _) = open(&disk, 4096);
    for index in 1..=5 {
        put(&mut log, 1, &[entry(index, 1, "data")]).unwrap();
        if index == 2 {
            sync(&mut log);
        }
    }
    let place = log.index.groups[&1].places[3];
    disk.kill();
    disk.flip("log-0000000001.seg", u64::from(place.offset) + 20, 1);
    let process = LogOptions { last_stop: LastStop::Process, ..options(4096) };
    assert!(matches!(Log::open(disk.clone(), process), Err(LogError::Damaged { .. })));
    let (log, recovered) = open(&disk, 4096);
    assert_eq!(recovered[0].last_index, 3);
    assert_eq!(log.written(), 3);
    drop(log);
    assert!(Log::open(disk, process).is_ok(), "the cut is complete");
}

#[test]
fn a_later_release_is_not_taken_for_damage() {
    let disk = MemDisk::new();
    let file = disk.create("log-0000000001.seg").unwrap();
    let mut header = SegmentHeader { feature_level: 1, sequence: 1, first_write: 1 }.encode();
    header[8] = 2;
    let crc = crc32c::crc32c(&header[..44]).to_le_bytes();
    header[44..].copy_from_slice(&crc);
    file.write_at(0, &header).unwrap();
    assert!(matches!(Log::open(disk, options(300)), Err(LogError::Version { .. })));
}

#[test]
fn reading_reports_a_damaged_entry() {
    let disk = MemDisk::new();
    let (mut log, _) = open(&disk, 4096);
    put(&mut log, 1, &[entry(1, 1, "a"), entry(2, 1, "b")]).unwrap();
    disk.flip("log-0000000001.seg", disk.used_bytes() - 1, 1);
    assert_eq!(log.read(1, 1, 2, 999).unwrap(), [entry(1, 1, "a")]);
    assert!(matches!(log.read(1, 1, 3, 999), Err(LogError::Damaged { .. })));
}

#[test]
fn works_in_a_folder_and_syncs_on_another_thread() {
    let folder = TempFolder::new("log");
    let disk = FsDisk::open(folder.path()).unwrap();
    assert!(0 < disk.free_bytes().unwrap());
    let (mut log, _) = Log::open(disk.clone(), options(500)).unwrap();
    for index in 1..=50 {
        log.stage_entries(1, &[entry(index, 1, &"x".repeat(50))]).unwrap();
        log.stage_hard_state(1, &HardState { term: 1, vote: 2, commit: index }).unwrap();
        if index % 8 == 0 {
            log.stage_mark(1, &Mark { index: index - 2, term: 1, conf: Bytes::new() }, true).unwrap();
        }
        log.write().unwrap();
        maintain(&mut log).unwrap();
        if let Some(job) = log.sync_job() {
            std::thread::spawn(move || job.run()).join().unwrap().unwrap();
        }
    }
    assert_eq!(log.synced(), log.written());
    let state = log.group(1).unwrap();
    let entries = log.read(1, 47, 51, 9999).unwrap();
    assert!(log.disk_bytes() < 3000);
    drop(log);
    let (log, recovered) = Log::open(disk, options(500)).unwrap();
    assert_eq!(recovered, [state]);
    assert_eq!(log.read(1, 47, 51, 9999).unwrap(), entries);
}

/// What a group must hold, in the simplest form.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ModelGroup {
    pub(super) identity: Identity,
    pub(super) hard_state: HardState,
    pub(super) mark: Mark,
    pub(super) entries: BTreeMap<u64, LogEntry>,
}

pub(super) type Model = BTreeMap<u16, ModelGroup>;

impl ModelGroup {
    pub(super) fn last(&self) -> u64 {
        self.entries.keys().next_back().copied().unwrap_or(self.mark.index)
    }

    pub(super) fn recovered(&self, group: u16) -> Recovered {
        let mut terms: Vec<(u64, u64)> = Vec::new();
        for entry in self.entries.values() {
            if terms.last().is_none_or(|&(_, term)| term != entry.term) {
                terms.push((entry.index, entry.term));
            }
        }
        let Self { identity, hard_state, .. } = *self;
        Recovered { group, identity, hard_state, mark: self.mark.clone(), last_index: self.last(), terms }
    }
}

/// A log on a disk that crashes, beside the states it should have after each write.
struct Simulation {
    rng: Rng,
    seed: u64,
    disk: MemDisk,
    log: Log<MemDisk>,
    options: LogOptions,
    /// With what is staged.
    staged: Model,
    /// The state after each write, by its number.
    history: Vec<Model>,
    /// Writes that some finished job made durable.
    durable: u64,
    jobs: Vec<SyncJob<MemDisk>>,
    rewrite: Option<RewriteJob<MemDisk>>,
    crashes: [u64; 2],
    lost_writes: u64,
    deleted_segments: u32,
    pieces_read: u32,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let options = options([400, 1000, 5000][rng.below(3)]);
        let disk = MemDisk::new();
        let (log, _) = Log::open(disk.clone(), options).expect("an empty disk");
        Self {
            rng,
            seed,
            disk,
            log,
            options,
            staged: Model::new(),
            history: vec![Model::new()],
            durable: 0,
            jobs: Vec::new(),
            rewrite: None,
            crashes: [0, 0],
            lost_writes: 0,
            deleted_segments: 0,
            pieces_read: 0,
        }
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..50 => self.stage(),
            50..75 => self.write(),
            75..85 => self.sync(),
            85..90 => self.maintain(),
            90..93 => self.read_rewrite(),
            93..95 => self.fill_disk(),
            95 => self.disk.power_off_after(self.rng.next() % 6),
            96 => self.disk.fail_next(),
            97 => self.crash(false),
            98 => self.crash(true),
            _ => self.check(),
        }
    }

    fn stage(&mut self) {
        let id = u16::try_from(self.rng.below(6)).expect("small") + 1;
        let mut group = self.staged.get(&id).cloned().unwrap_or_default();
        let result = match self.rng.below(20) {
            0 => {
                group.identity = Identity { replica: self.rng.next(), incarnation: 3, ..Identity::default() };
                self.log.stage_identity(id, &group.identity)
            }
            1..5 => {
                group.hard_state = HardState { term: self.rng.next(), vote: 1, commit: self.rng.next() };
                self.log.stage_hard_state(id, &group.hard_state)
            }
            5..7 => {
                let index = group.mark.index + self.rng.next() % (group.last() - group.mark.index + 2);
                group.mark = Mark { index, term: self.rng.next(), conf: Bytes::from_static(b"compacted") };
                group.entries = group.entries.split_off(&(index + 1));
                self.log.stage_mark(id, &group.mark, true)
            }
            7 => {
                let index = self.rng.next() % 100;
                group.mark = Mark { index, term: self.rng.next(), conf: Bytes::from_static(b"installed") };
                group.entries.clear();
                self.log.stage_mark(id, &group.mark, false)
            }
            8 if self.rng.below(3) == 0 => {
                let result = self.log.stage_remove_group(id);
                if result.is_ok() {
                    self.staged.remove(&id);
                }
                return;
            }
            _ => {
                let mut first = group.last() + 1;
                if self.rng.below(4) == 0 {
                    first -= self.rng.next() % (first - group.mark.index);
                }
                let entries: Vec<LogEntry> = (first..first + 1 + self.rng.next() % 4)
                    .map(|index| {
                        let data = vec![self.rng.next().to_le_bytes()[0]; self.rng.below(120)];
                        let term = 1 + self.rng.next() % 3;
                        LogEntry { index, term, kind: data.len().to_le_bytes()[0], data: data.into() }
                    })
                    .collect();
                group.entries.split_off(&first);
                group.entries.extend(entries.iter().map(|entry| (entry.index, entry.clone())));
                self.log.stage_entries(id, &entries)
            }
        };
        match result {
            Ok(()) => {
                self.staged.insert(id, group);
            }
            Err(error) => assert!(matches!(error, LogError::Failed), "seed {}: {error}", self.seed),
        }
    }

    fn write(&mut self) {
        let before = self.log.written();
        match self.log.write() {
            Ok(number) if number == before => assert_eq!(self.staged, self.history[self.history.len() - 1]),
            Ok(number) => {
                assert_eq!(number, before + 1);
                self.history.push(self.staged.clone());
            }
            Err(_) => {
                assert_eq!(self.log.written(), before);
                if self.rng.below(2) == 0 {
                    self.log.drop_staged();
                    self.staged = self.history[self.history.len() - 1].clone();
                }
            }
        }
    }

    /// Takes a job and runs it now, later or never.
    fn sync(&mut self) {
        self.jobs.extend(self.log.sync_job());
        while !self.jobs.is_empty() && self.rng.below(4) != 0 {
            let job = self.jobs.remove(self.rng.below(self.jobs.len()));
            if self.rng.below(8) == 0 {
                continue;
            }
            let through = job.through();
            if job.run().is_ok() {
                self.durable = self.durable.max(through);
            }
        }
        assert!(self.log.synced() <= self.durable.max(self.log.synced()));
        self.durable = self.durable.max(self.log.synced());
    }

    fn maintain(&mut self) {
        let before = self.log.written();
        let first = self.log.segments.keys().next().copied();
        let result = self.log.maintain();
        if result.is_ok() && first != self.log.segments.keys().next().copied() {
            self.deleted_segments += 1;
        }
        if self.log.written() != before {
            self.history.push(self.history[self.history.len() - 1].clone());
        }
        if result.is_err() {
            // It drops what it staged itself; with records of ours staged it writes nothing.
            self.log.drop_staged();
            self.staged = self.history[self.history.len() - 1].clone();
        }
        let job = self.log.rewrite_job();
        assert!(job.is_none() || self.rewrite.is_none(), "one job at a time");
        self.rewrite = job.or_else(|| self.rewrite.take());
    }

    /// What is read is copied after whatever comes meanwhile.
    fn read_rewrite(&mut self) {
        let Some(job) = self.rewrite.take() else { return };
        match self.log.rewrite_read(job.run()) {
            Ok(()) => self.pieces_read += 1,
            Err(LogError::Unreadable { source, .. }) if matches!(*source, LogError::Io { .. }) => {}
            Err(error) => panic!("seed {}: {error:?}", self.seed),
        }
    }

    fn fill_disk(&mut self) {
        self.disk.set_capacity(Some(self.disk.used_bytes() + self.rng.next() % 200));
        self.stage();
        self.write();
        self.maintain();
        self.check();
        self.disk.set_capacity(None);
    }

    fn crash(&mut self, is_machine: bool) {
        let written = self.log.written();
        self.jobs.clear();
        self.rewrite = None;
        if is_machine {
            self.disk.crash(self.rng.next());
        } else {
            self.disk.kill();
        }
        let mut is_lossy = is_machine;
        // Now and then recovery is itself cut short, at any step.
        while self.rng.below(3) == 0 {
            self.disk.power_off_after(self.rng.next() % 5);
            let _ = Log::open(self.disk.clone(), self.options);
            self.disk.crash(self.rng.next());
            is_lossy = true;
        }
        self.options.last_stop = if is_lossy { LastStop::Machine } else { LastStop::Process };
        let (log, recovered) = match Log::open(self.disk.clone(), self.options) {
            Ok(opened) => opened,
            Err(error) => panic!("seed {}: {error}", self.seed),
        };
        self.log = log;
        let now = self.log.written();
        assert!(self.durable <= now, "seed {}: durable {}, recovered {now}", self.seed, self.durable);
        assert!(now <= written, "seed {}", self.seed);
        assert!(is_lossy || now == written, "seed {}: a killed process lost a write", self.seed);
        self.crashes[usize::from(is_lossy)] += 1;
        self.lost_writes += written - now;
        self.durable = now;
        self.history.truncate(usize::try_from(now).expect("small") + 1);
        self.staged = self.history[self.history.len() - 1].clone();
        let expected: Vec<Recovered> = self.staged.iter().map(|(&id, group)| group.recovered(id)).collect();
        assert_eq!(
            recovered,
            expected,
            "seed {} now {now} written {written} lossy {is_lossy} {:?}",
            self.seed,
            segments(&self.disk)
        );
        self.check();
    }

    /// Compares all that can be read with the model as of the last write.
    fn check(&mut self) {
        self.log.check_invariants();
        let written = &self.history[self.history.len() - 1];
        for (&id, group) in written {
            assert_eq!(self.log.group(id), Some(group.recovered(id)), "seed {}", self.seed);
            let bytes_max = self.rng.below(400);
            let mut next = group.mark.index + 1;
            while next <= group.last() {
                let entries =
                    self.log.read(id, next, group.last() + 1, bytes_max).expect("all of it is live");
                assert!(!entries.is_empty());
                for entry in entries {
                    assert_eq!(Some(&entry), group.entries.get(&next), "seed {}", self.seed);
                    next += 1;
                }
            }
        }
        assert_eq!(self.log.index.groups.len(), written.len(), "seed {}", self.seed);
    }
}

/// Random operations, failures and crashes against a model: `SEED=n` runs that one alone, `SEEDS=n` so many.
#[test]
fn keeps_every_promise_in_random_runs_with_crashes() {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => {
            (0..std::env::var("SEEDS").map_or(400, |seeds| seeds.parse().unwrap())).collect::<Vec<u64>>()
        }
    };
    let is_all = 400 <= seeds.len();
    let (mut kills, mut crashes, mut lost, mut deleted, mut read) = (0, 0, 0, 0, 0);
    for seed in seeds {
        let mut simulation = Simulation::new(seed);
        for _ in 0..800 {
            simulation.step();
        }
        simulation.crash(true);
        kills += simulation.crashes[0];
        crashes += simulation.crashes[1];
        lost += simulation.lost_writes;
        deleted += simulation.deleted_segments;
        read += simulation.pieces_read;
    }
    println!(
        "{kills} kills, {crashes} crashes, {lost} unsynced writes lost, {deleted} segments deleted, {read} pieces of old ones read"
    );
    if is_all {
        assert!(
            1000 < kills && 1000 < crashes && 1000 < lost && 1000 < deleted && 500 < read,
            "the runs reach what they test"
        );
    }
}

/// Bytes of any kind in place of a segment: an error or an empty log, never a panic.
#[test]
fn survives_any_bytes() {
    let valid = synced_log(4096);
    let name = "log-0000000001.seg";
    let file = valid.open(name).unwrap();
    let mut bytes = vec![0; usize::try_from(file.bytes().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    let mut rng = Rng::new(7);
    for _ in 0..2000 {
        let mut bytes = bytes.clone();
        for _ in 0..=rng.below(4) {
            let at = rng.below(bytes.len());
            match rng.below(3) {
                0 => bytes[at] = rng.next().to_le_bytes()[0],
                1 => bytes.truncate(at + 1),
                _ => bytes[at..].rotate_left(1),
            }
        }
        let disk = MemDisk::new();
        disk.create(name).unwrap().write_at(0, &bytes).unwrap();
        if let Ok((mut log, _)) = Log::open(disk, options(4096)) {
            log.check_invariants();
            let next = log.last_index(1) + 1;
            put(&mut log, 1, &[entry(next, 1, "goes on")]).unwrap();
        }
    }
}
