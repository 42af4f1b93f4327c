use super::super::{FsDisk, MemDisk};
use super::*;

fn header(group: u16, index: u64) -> SnapshotHeader {
    let conf = Bytes::from_static(b"three voters");
    SnapshotHeader { group, feature_level: 1, incarnation: 4, index, term: 6, conf }
}

fn chunks(index: u64) -> Vec<Bytes> {
    (0..4_u64)
        .map(|i| Bytes::from(format!("chunk {i} of {index} ").repeat(10 * i as usize + 1).into_bytes()))
        .collect()
}

fn write<D: Disk>(files: &mut SnapshotFiles<D>, group: u16, index: u64) -> Result<(), LogError> {
    let mut writer = files.create(header(group, index))?;
    for chunk in chunks(index) {
        writer.chunk(&chunk)?;
    }
    writer.finish()?.run()?;
    files.complete(group, index)
}

fn read_all<D: Disk>(reader: &mut SnapshotReader<D>) -> Result<Vec<Bytes>, LogError> {
    let mut out = Vec::new();
    while let Some(chunk) = reader.next_chunk()? {
        out.push(chunk);
    }
    Ok(out)
}

fn raw<D: Disk>(files: &SnapshotFiles<D>, group: u16) -> Vec<u8> {
    let mut raw = Vec::new();
    files.open(group).unwrap().unwrap().next_raw(usize::MAX, &mut raw).unwrap();
    raw
}

#[test]
fn reads_what_was_written_and_replaces_the_older() {
    let disk = MemDisk::new();
    let mut files = SnapshotFiles::load(disk.clone()).unwrap();
    assert!(files.open(3).unwrap().is_none());
    write(&mut files, 3, 10).unwrap();
    let mut old = files.open(3).unwrap().unwrap();
    write(&mut files, 3, 20).unwrap();
    assert_eq!(disk.list().unwrap(), ["snap-3-20.snap"]);
    let mut new = files.open(3).unwrap().unwrap();
    assert_eq!(new.header(), &header(3, 20));
    assert_eq!(read_all(&mut new).unwrap(), chunks(20));
    assert_eq!(read_all(&mut old).unwrap(), chunks(10), "an open reader keeps its file");
    files.remove(3).unwrap();
    assert!(disk.list().unwrap().is_empty());
}

#[test]
fn drops_what_is_not_finished() {
    let disk = MemDisk::new();
    let mut files = SnapshotFiles::load(disk.clone()).unwrap();
    drop(files.create(header(1, 5)).unwrap());
    assert!(disk.list().unwrap().is_empty());
    std::mem::forget(files.create(header(1, 5)).unwrap());
    assert_eq!(disk.list().unwrap(), ["snap-1-1.tmp"]);
    drop(SnapshotFiles::load(disk.clone()).unwrap());
    assert!(disk.list().unwrap().is_empty());
}

#[test]
fn a_full_disk_drops_the_new_and_keeps_the_old() {
    let disk = MemDisk::new();
    let mut files = SnapshotFiles::load(disk.clone()).unwrap();
    write(&mut files, 3, 10).unwrap();
    disk.set_capacity(Some(disk.used_bytes() + 200));
    assert!(matches!(write(&mut files, 3, 20), Err(LogError::Full { .. })));
    assert_eq!(disk.list().unwrap(), ["snap-3-10.snap"]);
    assert_eq!(read_all(&mut files.open(3).unwrap().unwrap()).unwrap(), chunks(10));
}

#[test]
fn receives_in_pieces_of_any_size() {
    let mut files = SnapshotFiles::load(MemDisk::new()).unwrap();
    write(&mut files, 3, 10).unwrap();
    let bytes = raw(&files, 3);
    for piece in [1, 3, 7, 64, 1000, bytes.len()] {
        let mut other = SnapshotFiles::load(MemDisk::new()).unwrap();
        let mut incoming = other.create_incoming(3).unwrap();
        let mut content = Vec::new();
        for piece in bytes.chunks(piece) {
            incoming.write(piece, |data| content.extend_from_slice(data)).unwrap();
        }
        assert_eq!(content, chunks(10).concat());
        assert_eq!(incoming.header(), Some(&header(3, 10)));
        let job = other.finish_incoming(incoming).unwrap();
        let (group, index) = (job.header().group, job.header().index);
        job.run().unwrap();
        other.complete(group, index).unwrap();
        assert_eq!(raw(&other, 3), bytes);
    }
}

#[test]
fn refuses_every_flipped_byte_every_cut_and_every_addition() {
    let mut files = SnapshotFiles::load(MemDisk::new()).unwrap();
    write(&mut files, 3, 10).unwrap();
    let bytes = raw(&files, 3);
    let receive = |bytes: &[u8]| {
        let disk = MemDisk::new();
        let mut other = SnapshotFiles::load(disk.clone()).unwrap();
        let mut incoming = other.create_incoming(3).unwrap();
        let result = incoming.write(bytes, |_| {});
        let result = result.and_then(|()| other.finish_incoming(incoming).map(drop));
        assert!(disk.list().unwrap().is_empty(), "what is refused, or not run, is removed");
        result
    };
    receive(&bytes).unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 0x10;
        let error = receive(&flipped).unwrap_err();
        assert!(matches!(error, LogError::Received { .. }), "byte {at}: {error}");
        assert!(matches!(receive(&bytes[..at]), Err(LogError::Received { .. })), "cut at {at}");
    }
    assert!(receive(&[&bytes[..], b"x"].concat()).is_err());
    let mut other = SnapshotFiles::load(MemDisk::new()).unwrap();
    assert!(other.create_incoming(4).unwrap().write(&bytes, |_| {}).is_err(), "another group");
}

#[test]
fn reports_every_flipped_byte_of_a_file() {
    let disk = MemDisk::new();
    let mut files = SnapshotFiles::load(disk.clone()).unwrap();
    write(&mut files, 3, 10).unwrap();
    for at in 0..raw(&files, 3).len() as u64 {
        assert!(disk.flip("snap-3-10.snap", at, 1));
        let result = files.open(3).and_then(|reader| read_all(&mut reader.unwrap()));
        assert!(matches!(result, Err(LogError::Damaged { .. })), "byte {at}: {result:?}");
        assert!(disk.flip("snap-3-10.snap", at, 1));
    }
    assert_eq!(read_all(&mut files.open(3).unwrap().unwrap()).unwrap(), chunks(10));
}

#[test]
fn a_later_release_is_not_taken_for_damage() {
    let disk = MemDisk::new();
    let mut files = SnapshotFiles::load(disk.clone()).unwrap();
    write(&mut files, 3, 10).unwrap();
    let mut bytes = raw(&files, 3);
    let conf_bytes = u32::from_le_bytes(bytes[20..24].try_into().unwrap()) as usize;
    bytes[8] += 1;
    let crc = crc32c::crc32c(&bytes[..40 + conf_bytes]).to_le_bytes();
    bytes[40 + conf_bytes..][..4].copy_from_slice(&crc);
    for (at, (old, new)) in raw(&files, 3).iter().zip(&bytes).enumerate() {
        disk.flip("snap-3-10.snap", at as u64, old ^ new);
    }
    assert!(matches!(files.open(3), Err(LogError::Version { .. })));
    let mut other = SnapshotFiles::load(MemDisk::new()).unwrap();
    let received = other.create_incoming(3).unwrap().write(&bytes, |_| {});
    assert!(matches!(received, Err(LogError::Version { .. })), "{received:?}");
}

/// Replaces a snapshot with a crash after each step, in each way.
#[test]
fn a_crash_leaves_the_old_or_the_new() {
    let (mut olds, mut news) = (0, 0);
    for seed in 0..60 {
        for ops in 0.. {
            let mut disk = MemDisk::new();
            let mut files = SnapshotFiles::load(disk.clone()).unwrap();
            write(&mut files, 3, 10).unwrap();
            disk.power_off_after(ops);
            let result = write(&mut files, 3, 20);
            if seed % 3 == 0 {
                disk.kill();
            } else {
                disk.crash(seed);
            }
            // A crash while the leftovers are removed, too.
            disk.power_off_after(seed % 4);
            let _ = SnapshotFiles::load(disk.clone());
            disk.crash(seed + 1000);
            let files = SnapshotFiles::load(disk.clone()).unwrap();
            let mut reader = files.open(3).unwrap().expect("the old one is replaced, not lost");
            let index = reader.header().index;
            assert_eq!(read_all(&mut reader).unwrap(), chunks(index));
            assert_eq!(disk.list().unwrap().len(), 1);
            match index {
                10 => olds += 1,
                20 => news += 1,
                _ => panic!("snapshot at {index}"),
            }
            if result.is_ok() {
                assert_eq!(index, 20, "seed {seed}: a finished snapshot is durable");
                break;
            }
        }
    }
    assert!(0 < olds && 0 < news, "both outcomes are seen");
}

#[test]
fn works_in_a_folder() {
    let folder = super::super::tests::TempFolder::new("snapshot");
    let mut files = SnapshotFiles::load(FsDisk::open(folder.path()).unwrap()).unwrap();
    write(&mut files, 3, 10).unwrap();
    write(&mut files, 3, 20).unwrap();
    let files = SnapshotFiles::load(FsDisk::open(folder.path()).unwrap()).unwrap();
    assert_eq!(files.current().collect::<Vec<_>>(), [(3, 20)]);
    assert_eq!(read_all(&mut files.open(3).unwrap().unwrap()).unwrap(), chunks(20));
}
