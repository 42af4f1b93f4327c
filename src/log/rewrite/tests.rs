//! Dead segments are deleted, live entries copied out of old ones, and nothing else changes.

use super::super::tests::{entry, maintain, open, put, segments, sync};
use super::super::*;

/// Fills several segments with a group that is then compacted, and has the log look for what is live in the first.
fn outgrow_first_segment(log: &mut Log<MemDisk>) {
    for index in 1..=40 {
        put(log, 1, &[entry(index, 1, &"x".repeat(100))]).unwrap();
    }
    log.stage_mark(1, &Mark { index: 40, term: 1, conf: Bytes::new() }, true).unwrap();
    log.write().unwrap();
    sync(log);
    log.maintain().unwrap();
}

#[test]
fn a_job_makes_durable_what_replaced_a_segment_and_then_deletes_it() {
    let disk = MemDisk::new();
    let (mut log, _) = open(&disk, 300);
    for index in 1..=20 {
        put(&mut log, 1, &[entry(index, 1, "data")]).unwrap();
    }
    sync(&mut log);
    assert!(4 < segments(&disk).len());
    log.stage_mark(1, &Mark { index: 20, term: 1, conf: Bytes::new() }, true).unwrap();
    log.write().unwrap();
    maintain(&mut log).unwrap();
    disk.fail_next_sync();
    let mut other = disk.clone();
    assert!(log.sync_job().unwrap().run().is_err());
    assert!(4 < segments(&disk).len(), "the mark is not durable");
    other.kill();
    let (mut log, _) = open(&other, 300);
    maintain(&mut log).unwrap();
    sync(&mut log);
    assert_eq!(segments(&other).len(), 1);
    assert_eq!(log.group_bytes(1), 0);
}

/// Segments die before they were ever synced; the job that would delete them is cut short at any step.
#[test]
fn a_dead_segment_that_is_not_durable_is_no_torn_tail() {
    for seed in 0..100 {
        for ops in 0.. {
            let mut disk = MemDisk::new();
            let (mut log, _) = open(&disk, 300);
            for index in 1..=10 {
                put(&mut log, 1, &[entry(index, 1, "data")]).unwrap();
            }
            log.stage_mark(1, &Mark { index: 10, term: 1, conf: Bytes::new() }, true).unwrap();
            log.write().unwrap();
            maintain(&mut log).unwrap();
            let job = log.sync_job().unwrap();
            disk.power_off_after(ops);
            let is_done = job.run().is_ok();
            let synced = log.synced();
            disk.crash(seed);
            let (log, _) = open(&disk, 300);
            assert!(
                synced <= log.written(),
                "seed {seed}: {synced} were durable, {} are left",
                log.written()
            );
            if is_done {
                assert_eq!(log.first_index(1), 11);
                break;
            }
        }
    }
}

/// One group pins the first segment with a few entries while another fills the log and is compacted.
#[test]
fn rewrites_what_pins_an_old_segment() {
    let mut disk = MemDisk::new();
    let (mut log, _) = open(&disk, 2000);
    let identity = Identity { replica: 77, incarnation: 1, standing: Standing::Withdrawn };
    log.stage_identity(9, &identity).unwrap();
    put(&mut log, 9, &[entry(1, 1, "pins"), entry(2, 2, "the segment")]).unwrap();
    let mut most = 0;
    for index in 1..=500_u64 {
        put(&mut log, 1, &[entry(index, 1, &"x".repeat(100))]).unwrap();
        if index % 10 == 0 {
            log.stage_mark(1, &Mark { index, term: 1, conf: Bytes::new() }, true).unwrap();
            log.write().unwrap();
        }
        maintain(&mut log).unwrap();
        sync(&mut log);
        log.check_invariants();
        most = most.max(disk.used_bytes());
    }
    assert!(most < 5 * 2000, "{most} bytes for about 1,500 live ones");
    assert_eq!(log.read(9, 1, 3, 999).unwrap(), [entry(1, 1, "pins"), entry(2, 2, "the segment")]);
    disk.kill();
    let (log, recovered) = open(&disk, 2000);
    assert_eq!(recovered[1].identity, identity);
    assert_eq!(recovered[1].terms, [(1, 1), (2, 2)]);
    assert_eq!(log.read(9, 1, 3, 999).unwrap(), [entry(1, 1, "pins"), entry(2, 2, "the segment")]);
}

#[test]
fn what_is_replaced_or_dead_while_it_is_read_is_not_copied() {
    let mut disk = MemDisk::new();
    let (mut log, _) = open(&disk, 2000);
    put(&mut log, 9, &[entry(1, 1, "stays"), entry(2, 1, "is replaced"), entry(3, 1, "goes")]).unwrap();
    put(&mut log, 8, &[entry(1, 1, "is compacted"), entry(2, 1, "stays too")]).unwrap();
    put(&mut log, 7, &[entry(1, 1, "is removed")]).unwrap();
    outgrow_first_segment(&mut log);
    let job = log.rewrite_job().expect("the first segment is mostly dead");
    log.maintain().unwrap();
    assert!(log.rewrite_job().is_none(), "one at a time");
    put(&mut log, 9, &[entry(2, 2, "replaces")]).unwrap();
    log.stage_mark(8, &Mark { index: 1, term: 1, conf: Bytes::new() }, true).unwrap();
    log.stage_remove_group(7).unwrap();
    log.write().unwrap();
    log.rewrite_read(job.run()).unwrap();
    let before = log.written();
    log.maintain().unwrap();
    assert_eq!(log.written(), before + 1);
    sync(&mut log);
    log.maintain().unwrap();
    sync(&mut log);
    log.check_invariants();
    assert!(!segments(&disk).contains(&segment_name(1)), "{:?}", segments(&disk));
    assert_eq!(log.read(9, 1, 3, 999).unwrap(), [entry(1, 1, "stays"), entry(2, 2, "replaces")]);
    // What recovery makes of the copies.
    disk.kill();
    let (log, _) = open(&disk, 2000);
    assert_eq!((log.last_index(9), log.first_index(8), log.group(7)), (2, 2, None));
    assert_eq!(log.read(9, 1, 3, 999).unwrap(), [entry(1, 1, "stays"), entry(2, 2, "replaces")]);
    assert_eq!(log.read(8, 2, 3, 999).unwrap(), [entry(2, 1, "stays too")]);
}

#[test]
fn an_entry_that_cannot_be_read_and_is_dead_by_then_is_no_error() {
    let disk = MemDisk::new();
    let (mut log, _) = open(&disk, 2000);
    put(&mut log, 9, &[entry(1, 1, "is damaged")]).unwrap();
    disk.flip("log-0000000001.seg", disk.used_bytes() - 1, 1);
    outgrow_first_segment(&mut log);
    let read = log.rewrite_job().expect("the first segment is mostly dead").run();
    assert!(matches!(read, Err(LogError::Unreadable { group: 9, index: 1, .. })), "{read:?}");
    log.stage_mark(9, &Mark { index: 1, term: 1, conf: Bytes::new() }, true).unwrap();
    log.write().unwrap();
    log.rewrite_read(read).unwrap();
    sync(&mut log);
    log.maintain().unwrap();
    sync(&mut log);
    assert!(!segments(&disk).contains(&segment_name(1)), "{:?}", segments(&disk));
}

#[test]
fn a_segment_with_an_entry_that_cannot_be_read_is_kept_until_that_is_compacted() {
    let disk = MemDisk::new();
    let (mut log, _) = open(&disk, 2000);
    put(&mut log, 9, &[entry(1, 1, "pins"), entry(2, 2, "the segment")]).unwrap();
    disk.flip("log-0000000001.seg", disk.used_bytes() - 1, 1);
    for index in 1..=200_u64 {
        put(&mut log, 1, &[entry(index, 1, &"x".repeat(100))]).unwrap();
    }
    let compact = |log: &mut Log<MemDisk>, group: u16, index: u64| {
        log.stage_mark(group, &Mark { index, term: 2, conf: Bytes::new() }, true).unwrap();
        log.write().unwrap();
        sync(log);
    };
    compact(&mut log, 1, 200);
    for _ in 0..3 {
        let refused = maintain(&mut log).unwrap_err();
        assert!(matches!(refused, LogError::Unreadable { group: 9, index: 2, .. }), "{refused}");
        assert!(!log.has_staged());
    }
    assert!(segments(&disk).len() > 4);
    compact(&mut log, 9, 2);
    maintain(&mut log).unwrap();
    sync(&mut log);
    assert_eq!(segments(&disk).len(), 1);
}
