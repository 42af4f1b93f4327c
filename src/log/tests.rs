//! Behaviour of the log, and random runs against a model with crashes at any step.

use super::*;

fn entry(index: u64, term: u64, data: &str) -> LogEntry {
    LogEntry { index, term, kind: 7, data: Bytes::copy_from_slice(data.as_bytes()) }
}

fn options(segment_bytes: u64) -> LogOptions {
    LogOptions { segment_bytes, ..LogOptions::default() }
}

fn open(disk: &MemDisk, segment_bytes: u64) -> (Log<MemDisk>, Vec<Recovered>) {
    Log::open(disk.clone(), options(segment_bytes)).unwrap()
}

fn sync(log: &mut Log<MemDisk>) {
    if let Some(job) = log.sync_job() {
        job.run().unwrap();
    }
}

#[test]
fn recovers_what_was_written() {
    let mut disk = MemDisk::new();
    let (mut log, recovered) = open(&disk, 4096);
    assert_eq!(recovered, []);
    let identity = Identity { replica: 9, incarnation: 2 };
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
