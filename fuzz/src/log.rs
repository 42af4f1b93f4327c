//! Segment files -> log.
//!
//! - Any bytes in segment files end in a log or in an error, never in a panic or an allocation beyond the files.
//! - What is recovered holds the log's own invariants, can be read, written to and recovered again as the same.
//! - After a crash, or damage of a few bytes, of a real log, what is recovered is its state after one of its writes: after a
//!   crash of the process the last one, of the machine none before the last that was synced.

use bytes::Bytes;
use ringfort::log::{
    Disk, DiskFile, HardState, Identity, LastStop, Log, LogEntry, LogError, LogOptions, Mark, MemDisk,
    Recovered, RewriteJob,
};

use super::input::Input;

/// Groups that a script uses.
const GROUPS: u16 = 3;

/// Runs the target. Layout: kind (1), then that of [`raw`], [`forged`] or [`crashed`].
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    match input.u8() % 3 {
        0 => raw(&mut input),
        1 => forged(&mut input),
        _ => crashed(&mut input),
    }
}

/// All of the log that can be seen: each group's state and entries.
type State = Vec<(Option<Recovered>, Vec<LogEntry>)>;

fn state(log: &Log<MemDisk>, groups: impl IntoIterator<Item = u16>) -> State {
    let of = |group| {
        let (first, last) = (log.first_index(group), log.last_index(group));
        // One after another, as a follower far behind is sent them, and all in one piece.
        let all = if first <= last {
            log.read(group, first, last + 1, usize::MAX).expect("a live entry can be read")
        } else {
            Vec::new()
        };
        for (entry, index) in all.iter().zip(first..) {
            assert_eq!(entry.index, index);
            assert_eq!(log.term(group, index), Some(entry.term));
        }
        (log.group(group), all)
    };
    groups.into_iter().map(of).collect()
}

fn last_stop(n: u8) -> LastStop {
    if n.is_multiple_of(2) { LastStop::Machine } else { LastStop::Process }
}

fn options(last_stop: LastStop) -> LogOptions {
    LogOptions { segment_bytes: 400, feature_level: 1, last_stop }
}

/// Opens the log, and when that succeeds sees that it can be used.
fn open_and_use(mut disk: MemDisk, last_stop: LastStop) {
    let Ok((mut log, recovered)) = Log::open(disk.clone(), options(last_stop)) else { return };
    log.check_invariants();
    let groups: Vec<u16> = recovered.iter().map(|r| r.group).collect();
    let before = state(&log, groups.clone());
    assert!(before.iter().map(|(group, _)| group.as_ref()).eq(recovered.iter().map(Some)));

    let again = Log::open(disk.clone(), options(last_stop));
    let (again, _) = again.expect("what was recovered once is whole");
    assert!(state(&again, groups.clone()) == before, "recovered twice");
    drop(again);

    let entry = LogEntry { index: log.last_index(7).saturating_add(1), term: 1, kind: 0, data: Bytes::new() };
    if log.stage_entries(7, &[entry]).is_err() || log.write().is_err() {
        return; // the numbers of entries, writes or segments are used up
    }
    log.check_invariants();
    let after = state(&log, groups.clone());
    if let Some(job) = log.sync_job() {
        job.run().expect("the disk works");
    }
    disk.crash(1);
    let (log, _) = Log::open(disk, options(last_stop)).expect("what was synced is whole");
    assert!(state(&log, groups) == after, "written and recovered");
}

fn put_file(disk: &MemDisk, sequence: u32, bytes: &[u8]) {
    let write = || {
        let file = disk.create(&format!("log-{sequence:010}.seg"))?;
        file.write_at(0, bytes)?;
        file.sync()
    };
    write().expect("the disk works");
}

/// Files as they are. Layout: last stop (1), then files, each behind its length.
fn raw(input: &mut Input<'_>) {
    let disk = MemDisk::new();
    let stop = last_stop(input.u8());
    for sequence in 1..=3 {
        if !input.is_empty() {
            put_file(&disk, sequence, input.bytes());
        }
    }
    open_and_use(disk, stop);
}

/// Files whose checksums are right and whose fields are anything. Layout: last stop (1), then numbers and bytes as they are
/// asked for below.
fn forged(input: &mut Input<'_>) {
    let disk = MemDisk::new();
    let stop = last_stop(input.u8());
    let mut sequence = if input.u8() == 0xff { u32::MAX - 1 } else { 1 };
    let mut write = 1;
    while !input.is_empty() && sequence != 0 {
        let skew = input.u8();
        let first_write = if skew & 1 == 0 { write } else { input.number() };
        if skew & 3 == 3 {
            write = first_write;
        }
        put_file(&disk, sequence, &forged_file(input, sequence, first_write, &mut write));
        sequence = sequence.wrapping_add(if skew & 0x80 == 0 { 1 } else { 2 });
    }
    open_and_use(disk, stop);
}

fn forged_file(input: &mut Input<'_>, sequence: u32, first_write: u64, write: &mut u64) -> Vec<u8> {
    let mut file = b"RFLOGSEG\x01\x00\x01\x00".to_vec();
    file.extend_from_slice(&sequence.to_le_bytes());
    file.extend_from_slice(&first_write.to_le_bytes());
    file.resize(44, 0);
    seal(&mut file, 0);
    for _ in 0..input.u8() % 8 {
        let skew = input.u8();
        let mut records = Vec::new();
        let count = u32::from(input.u8() % 8);
        (0..count).for_each(|_| forged_record(input, &mut records));
        let number = if skew & 1 == 0 { *write } else { input.number() };
        let synced = if skew & 2 == 0 { number.saturating_sub(1) } else { input.number() };
        *write = write.wrapping_add(1);
        let offset = file.len();
        file.extend_from_slice(b"RFwr");
        file.extend_from_slice(&(records.len() as u32).to_le_bytes());
        file.extend_from_slice(&(count + u32::from(skew == 0xff)).to_le_bytes());
        file.extend_from_slice(&number.to_le_bytes());
        file.extend_from_slice(&synced.to_le_bytes());
        let crc = crc32c::crc32c(&sequence.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &(offset as u64).to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &file[offset..]);
        file.extend_from_slice(&crc.to_le_bytes());
        file.extend_from_slice(&records);
        if skew & 0x40 != 0 {
            file.extend_from_slice(input.bytes()); // a torn write
        }
    }
    file
}

fn forged_record(input: &mut Input<'_>, out: &mut Vec<u8>) {
    let kind = input.u8() % 9;
    let mut record = u16::from(input.u8() % 4).to_le_bytes().to_vec();
    record.extend_from_slice(&[kind, input.u8()]);
    let numbers = match kind {
        3 => 3,
        1 | 2 | 5 | 6 => 2,
        4 => 1,
        _ => 0,
    };
    (0..numbers).for_each(|_| record.extend_from_slice(&input.number().to_le_bytes()));
    let len = usize::from(input.u8() % 32);
    record.extend_from_slice(input.take(len));
    let mut framed = (record.len() as u32 - 4).to_le_bytes().to_vec();
    framed.extend_from_slice(&record);
    out.extend_from_slice(&crc32c::crc32c(&framed).to_le_bytes());
    out.extend_from_slice(&framed);
}

/// Appends the checksum of all from `start` on.
fn seal(out: &mut Vec<u8>, start: usize) {
    let crc = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// A real log, then a crash or damage. Layout: steps, see below; 0 ends them.
fn crashed(input: &mut Input<'_>) {
    let mut disk = MemDisk::new();
    let (mut log, _) = Log::open(disk.clone(), options(LastStop::Machine)).expect("an empty disk is a log");
    // The state after each write, and the number of the last synced one.
    let mut states = vec![state(&log, 0..GROUPS)];
    // What was read of an old segment is copied after whatever came meanwhile.
    let mut rewrite = None;
    loop {
        let step = input.u8();
        let group = u16::from(input.u8()) % GROUPS;
        let last = log.last_index(group);
        let staged = match step % 12 {
            0 => break,
            1..4 => {
                let back = u64::from(input.u8() % 3).min(last.saturating_sub(log.first_index(group)));
                let term = u64::from(input.u8() % 4);
                let data = Bytes::copy_from_slice(input.bytes());
                let entry = |index| LogEntry { index, term, kind: 0, data: data.clone() };
                let first = last + 1 - back;
                log.stage_entries(group, &[entry(first), entry(first + 1)])
            }
            4 => {
                let (term, vote, commit) = (input.number(), input.number(), input.number());
                log.stage_hard_state(group, &HardState { term, vote, commit })
            }
            5 => log.stage_identity(
                group,
                &Identity { replica: input.number(), incarnation: 1, ..Identity::default() },
            ),
            6 | 7 => {
                let index = last.saturating_sub(u64::from(input.u8() % 4));
                let mark = Mark { index, term: 1, conf: Bytes::copy_from_slice(input.bytes()) };
                log.stage_mark(group, &mark, step.is_multiple_of(2))
            }
            8 => log.stage_remove_group(group),
            9 => {
                if let Some(job) = log.sync_job() {
                    job.run().expect("the disk works");
                }
                Ok(())
            }
            10 => {
                if let Some(read) = rewrite.take().map(RewriteJob::run) {
                    log.rewrite_read(read).expect("the disk works");
                }
                let maintained = log.maintain();
                rewrite = log.rewrite_job();
                maintained
            }
            _ => Ok(()),
        };
        match staged {
            Ok(()) | Err(LogError::Compacted { .. } | LogError::Beyond { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        // Several records make one write now and then.
        if step < 0xc0 {
            log.write().expect("the disk works");
        }
        log.check_invariants();
        let written = usize::try_from(log.written()).expect("a few writes");
        assert!(written <= states.len(), "one write at a time");
        states.truncate(written);
        states.push(state(&log, 0..GROUPS));
        if states.len() > 40 {
            break;
        }
    }
    let synced = usize::try_from(log.synced()).expect("a few writes");
    let written = states.len() - 1;
    drop(log);
    match input.u8() % 3 {
        0 => {
            disk.crash(input.u64());
            let (log, _) =
                Log::open(disk.clone(), options(LastStop::Machine)).expect("a torn tail is no damage");
            assert!(
                states[synced..].contains(&state(&log, 0..GROUPS)),
                "after a crash of the machine the log is as after one of the writes from the last synced one on"
            );
        }
        1 => {
            disk.kill();
            let (log, _) =
                Log::open(disk.clone(), options(LastStop::Process)).expect("the process lost nothing");
            assert!(state(&log, 0..GROUPS) == states[written], "the process lost nothing");
        }
        _ => {
            disk.kill();
            for _ in 0..1 + input.u8() % 2 {
                damage(&disk, input);
            }
            let stop = last_stop(input.u8());
            match Log::open(disk.clone(), options(stop)) {
                Ok((log, _)) => assert!(
                    states.contains(&state(&log, 0..GROUPS)),
                    "after damage the log is as after one of its writes, or refused"
                ),
                Err(LogError::Damaged { .. } | LogError::Version { .. }) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
    open_and_use(disk, LastStop::Machine);
}

/// Changes a byte of a file, or cuts it.
fn damage(disk: &MemDisk, input: &mut Input<'_>) {
    let names = disk.list().expect("the disk works");
    let name = &names[usize::from(input.u8()) % names.len()];
    let file = disk.open(name).expect("the disk works");
    let bytes = file.bytes().expect("the disk works").max(1);
    let at = u64::from(input.u16()) % bytes;
    match input.u8() {
        0 => file.truncate(at).expect("the disk works"),
        // A file that was cut to nothing has no byte to change.
        mask => drop(disk.flip(name, at, mask)),
    }
}
