//! Snapshots: as files, as they are received, and as the state of a partition.
//!
//! - Any bytes end in a snapshot or in an error, never in a panic or an allocation beyond the bytes.
//! - A file is good when, and only when, a receiver takes its bytes, however they are cut.
//! - A state that was restored holds the store's invariants, and its own snapshot restores the same.
//! - A damaged snapshot file is refused.

use bytes::Bytes;
use ringfort::log::{Disk, DiskFile, LogError, MemDisk, SnapshotFiles, SnapshotHeader};
use ringfort::meta::MetaMachine;
use ringfort::shard::machine::PartitionMachine;

use super::input::{Input, pieces};
use super::machine::{self, LAST_SLOT};

/// Runs the target. Layout: kind (1), seed of the pieces (1), then that of [`any`], [`forged`], [`damaged`] or [`contents`].
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let (kind, seed) = (input.u8(), input.u8());
    match kind % 4 {
        0 => drop(any(input.rest(), seed)),
        1 => forged(&mut input, seed),
        2 => damaged(&mut input, seed),
        _ => drop(contents(&[input.rest()], seed)),
    }
}

/// Raw bytes of a file: its chunks, when it is good.
fn any(bytes: &[u8], seed: u8) -> Option<Vec<Bytes>> {
    let field = |at, len| bytes.get(at..at + len).map(|field| Input(field).u64());
    let group = field(12, 2).unwrap_or(0) as u16;
    let index = field(24, 8).unwrap_or(0);
    let received = receive(group, [bytes]);
    assert_eq!(receive(group, pieces(bytes, seed)).is_ok(), received.is_ok(), "cut into pieces");
    let read = read(group, index, bytes);
    assert_eq!(received.is_ok(), read.is_ok(), "{received:?} {read:?}");
    if let (Ok((header, content)), Ok((same, chunks))) = (received, read) {
        assert_eq!(header, same);
        assert_eq!(content, chunks.concat());
        return Some(chunks);
    }
    None
}

fn receive<'a>(
    group: u16,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(SnapshotHeader, Vec<u8>), LogError> {
    let mut files = SnapshotFiles::load(MemDisk::new())?;
    let mut incoming = files.create_incoming(group)?;
    let (mut bytes, mut content) = (0, Vec::new());
    for piece in pieces {
        incoming.write(piece, |data| content.extend_from_slice(data))?;
        bytes += piece.len() as u64;
        assert_eq!(incoming.bytes(), bytes);
    }
    let job = files.finish_incoming(incoming)?;
    let header = job.header().clone();
    job.run()?;
    files.complete(header.group, header.index)?;
    Ok((header, content))
}

fn read(group: u16, index: u64, bytes: &[u8]) -> Result<(SnapshotHeader, Vec<Bytes>), LogError> {
    let disk = MemDisk::new();
    let put = || disk.create(&format!("snap-{group}-{index}.snap"))?.write_at(0, bytes);
    put().expect("the disk works");
    let files = SnapshotFiles::load(disk)?;
    let mut reader = files.open(group)?.expect("its name is that of a snapshot");
    let mut chunks = Vec::new();
    while let Some(chunk) = reader.next_chunk()? {
        chunks.push(chunk);
    }
    Ok((reader.header().clone(), chunks))
}

/// A file whose checksums are right and whose fields are anything. Layout: numbers and bytes as they are asked for below.
fn forged(input: &mut Input<'_>, seed: u8) {
    let skew = input.u8();
    let mut file = b"RFSNAPSH\x01\x00".to_vec();
    file.extend_from_slice(&input.u16().to_le_bytes());
    file.extend_from_slice(&u16::from(input.u8()).to_le_bytes());
    file.extend_from_slice(&[0; 2]);
    file.extend_from_slice(&u32::from(input.u8()).to_le_bytes());
    let len = usize::from(input.u8() % 40);
    let conf = input.take(len);
    let claimed = if skew & 1 == 0 { conf.len() as u32 } else { input.number() as u32 };
    file.extend_from_slice(&claimed.to_le_bytes());
    file.extend_from_slice(&input.number().to_le_bytes());
    file.extend_from_slice(&input.number().to_le_bytes());
    file.extend_from_slice(conf);
    seal(&mut file, 0);
    let (mut bytes, mut chunks, mut heads) = (0_u64, 0_u64, Vec::new());
    for _ in 0..input.u8() % 8 {
        let data = input.bytes();
        let claimed = if skew & 2 == 0 { data.len() as u32 } else { input.number() as u32 };
        let mut head = claimed.to_le_bytes().to_vec();
        head.extend_from_slice(&crc32c::crc32c(data).to_le_bytes());
        file.extend_from_slice(&head);
        file.extend_from_slice(data);
        heads.extend_from_slice(&head);
        (bytes, chunks) = (bytes + u64::from(claimed), chunks + 1);
    }
    let trailer = file.len();
    file.extend_from_slice(&[0; 4]);
    file.extend_from_slice(&(if skew & 4 == 0 { bytes } else { input.number() }).to_le_bytes());
    file.extend_from_slice(&(if skew & 8 == 0 { chunks } else { input.number() }).to_le_bytes());
    file.extend_from_slice(&crc32c::crc32c(&heads).to_le_bytes());
    seal(&mut file, trailer);
    if skew & 16 != 0 {
        file.extend_from_slice(input.rest());
    }
    if let Some(chunks) = any(&file, seed) {
        contents(&chunks.iter().map(Bytes::as_ref).collect::<Vec<_>>(), seed);
    }
}

/// Appends the checksum of all from `start` on.
fn seal(out: &mut Vec<u8>, start: usize) {
    let crc = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// A real snapshot, then a changed byte, a cut or a byte too many. Layout: where (2), how (1), then the script of a
/// partition (see [`machine::apply_script`]).
fn damaged(input: &mut Input<'_>, seed: u8) {
    let (at, mask) = (usize::from(input.u16()), input.u8());
    let mut machine = PartitionMachine::new(0, LAST_SLOT);
    machine::apply_script(&mut machine, input);
    let bytes = machine::snapshot(&mut machine);
    let restored = contents(&[&bytes], seed).expect("a snapshot restores");
    assert_eq!(restored.digest(), machine.digest());

    let mut files = SnapshotFiles::load(MemDisk::new()).expect("the disk works");
    let conf = Bytes::from_static(b"members");
    let header = SnapshotHeader { group: 3, feature_level: 1, incarnation: 1, index: 9, term: 2, conf };
    let mut writer = files.create(header).expect("the disk works");
    for chunk in bytes.chunks(64) {
        writer.chunk(chunk).expect("the disk works");
    }
    writer.finish().and_then(|job| job.run()).expect("the disk works");
    files.complete(3, 9).expect("the disk works");
    let mut reader = files.open(3).expect("it is good").expect("it is there");
    let mut file = Vec::new();
    reader.next_raw(usize::MAX, &mut file).expect("the disk works");
    assert_eq!(any(&file, seed).expect("it is good").concat(), bytes);
    let at = at % file.len();
    match mask {
        0 => file.truncate(at),
        0xff => file.push(0),
        mask => file[at] ^= mask,
    }
    assert!(any(&file, seed).is_none(), "a damaged file is refused");
}

/// What a snapshot holds: the state, if it is one of a partition.
fn contents(chunks: &[&[u8]], seed: u8) -> Option<PartitionMachine> {
    let all = chunks.concat();
    if let Ok(mut meta) = MetaMachine::restore(&all) {
        meta.snapshot_begin();
        let mut bytes = Vec::new();
        assert!(meta.snapshot_next(&mut bytes));
        let again = MetaMachine::restore(&bytes).expect("its own snapshot restores");
        assert_eq!(again.digest(), meta.digest());
    }
    let whole = machine::restore(chunks.iter().copied());
    let cut = machine::restore(pieces(&all, seed));
    assert_eq!(cut.as_ref().err(), whole.as_ref().err(), "cut into pieces");
    let mut restored = whole.ok()?;
    restored.store().check_invariants();
    let bytes = machine::snapshot(&mut restored);
    let again = machine::restore([bytes.as_slice()]).expect("its own snapshot restores");
    assert_eq!(again.digest(), restored.digest());
    Some(restored)
}
