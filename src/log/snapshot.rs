//! Snapshot files: the state of one group at one index of its log.
//!
//! # Files
//! `snap-<group>-<index>.snap` is complete and durable as soon as it has that name; until then it is
//! `snap-<group>-<number>.tmp`, and such leftovers are removed by [`SnapshotFiles::load`]. Integers are
//! little-endian, checksums are CRC32C (Castagnoli).
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | `RFSNAPSH` |
//! | 8 | 2 | version of this format, 1 |
//! | 10 | 2 | feature level of the writer |
//! | 12 | 2 | group |
//! | 14 | 2 | zero |
//! | 16 | 4 | incarnation of the group |
//! | 20 | 4 | bytes of the membership, n |
//! | 24 | 8 | index of the last entry that the state contains |
//! | 32 | 8 | term of that entry |
//! | 40 | n | membership; opaque |
//! | 40 + n | 4 | CRC of all before |
//!
//! Every version keeps the places of the version, of n and of this checksum: only a version that matches it is believed, so
//! that decay is not taken for a later release.
//!
//! then chunks: size of the data (4, not 0), CRC of the data (4), data; and a trailer, after which the file
//! ends:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | 0 (no chunk has this size) |
//! | 4 | 8 | bytes of data of all chunks |
//! | 12 | 8 | number of chunks |
//! | 20 | 4 | CRC of the sizes and CRCs (8 bytes a chunk) of all chunks, in order |
//! | 24 | 4 | CRC of bytes 0..24 of the trailer |
//!
//! A file travels to another node as it is, byte for byte.
//!
//! # Order
//! A snapshot is durable (its [`SnapshotJob`] has run) **before** the log's mark that relies on it is staged.
//! So after a crash the snapshot of a group may be ahead of its mark, never behind it.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::LogError;
use super::disk::{Disk, DiskFile};
use super::record::Fields;
use crate::failpoint::{self, Point};

/// Most bytes of one chunk.
pub const CHUNK_BYTES_MAX: usize = 1 << 30;

/// Most bytes of the membership in a header.
pub const CONF_BYTES_MAX: usize = 1 << 20;

const MAGIC: &[u8; 8] = b"RFSNAPSH";
const FORMAT_VERSION: u16 = 1;
const FIXED_HEADER_BYTES: usize = 40;
const CRC_BYTES: usize = 4;
const CHUNK_HEADER_BYTES: usize = 8;
const TRAILER_BYTES: usize = 28;

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The group.
    pub group: u16,
    /// Feature level of the state's encoding.
    pub feature_level: u16,
    /// Incarnation of the group.
    pub incarnation: u32,
    /// Index of the last entry that the state contains.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// Membership at that entry; opaque to the log.
    pub conf: Bytes,
}

/// Why bytes are not those of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Damaged(&'static str),
    Version,
}

impl SnapshotHeader {
    fn encode(&self) -> Result<Vec<u8>, LogError> {
        let bytes = self.conf.len();
        let conf_bytes = u32::try_from(bytes).ok().filter(|_| bytes <= CONF_BYTES_MAX);
        let conf_bytes = conf_bytes.ok_or(LogError::TooLarge { bytes, max: CONF_BYTES_MAX })?;
        let mut out = Vec::with_capacity(FIXED_HEADER_BYTES + bytes + CRC_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&self.feature_level.to_le_bytes());
        out.extend_from_slice(&self.group.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.extend_from_slice(&conf_bytes.to_le_bytes());
        out.extend_from_slice(&self.index.to_le_bytes());
        out.extend_from_slice(&self.term.to_le_bytes());
        out.extend_from_slice(&self.conf);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        Ok(out)
    }

    /// Returns the bytes of the whole header, given its fixed part.
    fn encoded_bytes(fixed: &[u8]) -> Result<usize, Fault> {
        const SHORT: Fault = Fault::Damaged("the header is incomplete");
        let mut fields = Fields(fixed);
        if &fields.array::<8>().ok_or(SHORT)? != MAGIC {
            return Err(Fault::Damaged("this is not a snapshot file"));
        }
        let mut fields = Fields(fixed.get(20..).ok_or(SHORT)?);
        let conf_bytes = fields.u32().ok_or(SHORT)? as usize;
        if CONF_BYTES_MAX < conf_bytes {
            return Err(Fault::Damaged("the membership in the header is too large"));
        }
        Ok(FIXED_HEADER_BYTES + conf_bytes + CRC_BYTES)
    }

    fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        const DAMAGED: Fault = Fault::Damaged("the header does not match its checksum");
        let end = bytes.len().checked_sub(CRC_BYTES).ok_or(DAMAGED)?;
        let (body, crc) = bytes.split_at_checked(end).ok_or(DAMAGED)?;
        if Fields(crc).u32() != Some(crc32c::crc32c(body)) {
            return Err(DAMAGED);
        }
        let mut fields = Fields(body.get(8..).ok_or(DAMAGED)?);
        if fields.u16() != Some(FORMAT_VERSION) {
            return Err(Fault::Version);
        }
        let mut parse = || {
            let (feature_level, group, _zero) = (fields.u16()?, fields.u16()?, fields.u16()?);
            let (incarnation, _conf_bytes) = (fields.u32()?, fields.u32()?);
            Some((feature_level, group, incarnation, fields.u64()?, fields.u64()?))
        };
        let (feature_level, group, incarnation, index, term) = parse().ok_or(DAMAGED)?;
        let conf = Bytes::copy_from_slice(fields.rest());
        Ok(Self { group, feature_level, incarnation, index, term, conf })
    }
}

/// Sums up chunks as they pass, for the trailer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    bytes: u64,
    chunks: u64,
    crc: u32,
}

impl Totals {
    fn add(&mut self, chunk_header: &[u8; CHUNK_HEADER_BYTES], bytes: usize) {
        self.bytes += bytes as u64;
        self.chunks += 1;
        self.crc = crc32c::crc32c_append(self.crc, chunk_header);
    }

    fn encode(&self) -> [u8; TRAILER_BYTES] {
        let mut out = [0; TRAILER_BYTES];
        out[4..12].copy_from_slice(&self.bytes.to_le_bytes());
        out[12..20].copy_from_slice(&self.chunks.to_le_bytes());
        out[20..24].copy_from_slice(&self.crc.to_le_bytes());
        let crc = crc32c::crc32c(&out[..24]);
        out[24..28].copy_from_slice(&crc.to_le_bytes());
        out
    }
}

fn chunk_header(data: &[u8]) -> Result<[u8; CHUNK_HEADER_BYTES], LogError> {
    let bytes = data.len();
    let size = u32::try_from(bytes).ok().filter(|_| bytes <= CHUNK_BYTES_MAX);
    let size = size.ok_or(LogError::TooLarge { bytes, max: CHUNK_BYTES_MAX })?;
    let mut out = [0; CHUNK_HEADER_BYTES];
    out[..4].copy_from_slice(&size.to_le_bytes());
    out[4..].copy_from_slice(&crc32c::crc32c(data).to_le_bytes());
    Ok(out)
}

fn file_name(group: u16, index: u64) -> String {
    format!("snap-{group}-{index}.snap")
}

fn is_temporary(name: &str) -> bool {
    name.starts_with("snap-") && name.ends_with(".tmp")
}

fn parse_name(name: &str) -> Option<(u16, u64)> {
    let (group, index) = name.strip_prefix("snap-")?.strip_suffix(".snap")?.split_once('-')?;
    let (group, index) = (group.parse().ok()?, index.parse().ok()?);
    (file_name(group, index) == name).then_some((group, index))
}

/// The snapshots of all groups of one worker: at most one current file each.
#[derive(Debug)]
pub struct SnapshotFiles<D: Disk> {
    disk: D,
    /// Index of the current snapshot of each group that has one.
    current: BTreeMap<u16, u64>,
    /// Number in the name of the next temporary file.
    next_temporary: u64,
}

impl<D: Disk> SnapshotFiles<D> {
    /// Finds the snapshots on `disk`; removes what was left unfinished, and older ones than the newest of
    /// each group.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn load(disk: D) -> Result<Self, LogError> {
        let folder = |action, error| LogError::io(action, "the snapshots", error);
        // A name that is seen but not yet durable must not be the reason to remove another.
        disk.sync_folder().map_err(|error| folder("sync the folder of", error))?;
        let names = disk.list().map_err(|error| folder("list the folder of", error))?;
        let mut files = Self { disk, current: BTreeMap::new(), next_temporary: 0 };
        for name in names {
            if is_temporary(&name) {
                files.remove_file(&name)?;
            } else if let Some((group, index)) = parse_name(&name) {
                files.complete(group, index)?;
            }
        }
        Ok(files)
    }

    /// Returns the groups that have a snapshot, and its index.
    pub fn current(&self) -> impl Iterator<Item = (u16, u64)> {
        self.current.iter().map(|(&group, &index)| (group, index))
    }

    /// Starts writing a snapshot; it is dropped with its writer unless it is finished.
    ///
    /// # Errors
    /// [`LogError::Full`], [`LogError::Io`], [`LogError::TooLarge`] for the membership.
    pub fn create(&mut self, header: SnapshotHeader) -> Result<SnapshotWriter<D>, LogError> {
        let encoded = header.encode()?;
        let mut output = self.create_temporary(header.group)?;
        output.append(&encoded)?;
        Ok(SnapshotWriter { output, header, totals: Totals::default() })
    }

    /// Starts receiving a snapshot of `group` as raw bytes; it is dropped with its writer unless it is
    /// finished.
    ///
    /// # Errors
    /// [`LogError::Full`], [`LogError::Io`].
    pub fn create_incoming(&mut self, group: u16) -> Result<IncomingSnapshot<D>, LogError> {
        let output = self.create_temporary(group)?;
        Ok(IncomingSnapshot { output, verifier: Verifier::new(group) })
    }

    /// Ends receiving: everything was verified as it came, and must now be all there.
    ///
    /// # Errors
    /// [`LogError::Received`] when bytes are missing; the file is dropped.
    pub fn finish_incoming(&mut self, incoming: IncomingSnapshot<D>) -> Result<SnapshotJob<D>, LogError> {
        let IncomingSnapshot { output, verifier } = incoming;
        match (verifier.state, verifier.header) {
            (State::Done, Some(header)) => Ok(SnapshotJob { output, header }),
            _ => Err(LogError::Received { offset: output.bytes, what: "the end is missing" }),
        }
    }

    /// Makes the snapshot of `group` at `index`, whose job has run, the current one, and removes the older one
    /// (or itself, when a newer one came first). The removal happens here, on the calling thread, and is not
    /// synced: what a crash brings back, the next load removes.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn complete(&mut self, group: u16, index: u64) -> Result<(), LogError> {
        match self.current.insert(group, index) {
            Some(old) if old != index => {
                self.current.insert(group, old.max(index));
                self.remove_file(&file_name(group, old.min(index)))
            }
            _ => Ok(()),
        }
    }

    /// Removes a snapshot of `group` whose job has run but which is not wanted; never the current one.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn discard(&mut self, group: u16, index: u64) -> Result<(), LogError> {
        if self.current.get(&group) == Some(&index) {
            Ok(())
        } else {
            self.remove_file(&file_name(group, index))
        }
    }

    /// Removes the snapshot of `group`, after its removal from the log is durable.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn remove(&mut self, group: u16) -> Result<(), LogError> {
        match self.current.remove(&group) {
            Some(index) => self.remove_file(&file_name(group, index)),
            None => Ok(()),
        }
    }

    /// Opens the current snapshot of `group`; it stays readable when a newer one replaces it. `None` when
    /// there is none.
    ///
    /// # Errors
    /// [`LogError::Damaged`], [`LogError::Version`]: the node must stop. [`LogError::Io`].
    pub fn open(&self, group: u16) -> Result<Option<SnapshotReader<D>>, LogError> {
        match self.current.get(&group) {
            Some(&index) => SnapshotReader::open(&self.disk, file_name(group, index), group, index).map(Some),
            None => Ok(None),
        }
    }

    fn create_temporary(&mut self, group: u16) -> Result<Output<D>, LogError> {
        let name = format!("snap-{group}-{}.tmp", self.next_temporary);
        self.next_temporary += 1;
        let created = failpoint::hit(Point::SnapshotCreate).and_then(|()| self.disk.create(&name));
        let file = created.map_err(|error| LogError::io("create", &name, error))?;
        Ok(Output { disk: self.disk.clone(), file, name, bytes: 0, is_kept: false })
    }

    fn remove_file(&self, name: &str) -> Result<(), LogError> {
        let removed = failpoint::hit(Point::SnapshotRemove).and_then(|()| self.disk.remove(name));
        removed.map_err(|error| LogError::io("remove", name, error))
    }
}

/// A temporary file that is being written; removed when dropped, unless it was renamed.
#[derive(Debug)]
struct Output<D: Disk> {
    disk: D,
    file: D::File,
    name: String,
    bytes: u64,
    is_kept: bool,
}

impl<D: Disk> Output<D> {
    fn append(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        let write = |bytes: &[u8]| self.file.write_at(self.bytes, bytes);
        let written = failpoint::torn(Point::SnapshotWriteTorn, bytes, write);
        written.map_err(|error| LogError::io("write", &self.name, error))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

impl<D: Disk> Drop for Output<D> {
    fn drop(&mut self) {
        if !self.is_kept {
            // What cannot be removed now is removed by the next load.
            let _ = self.disk.remove(&self.name);
        }
    }
}

/// Writes a snapshot, chunk by chunk.
#[derive(Debug)]
pub struct SnapshotWriter<D: Disk> {
    output: Output<D>,
    header: SnapshotHeader,
    totals: Totals,
}

impl<D: Disk> SnapshotWriter<D> {
    /// Appends one chunk of at most [`CHUNK_BYTES_MAX`] bytes; an empty one is skipped.
    ///
    /// # Errors
    /// [`LogError::TooLarge`]; [`LogError::Full`], [`LogError::Io`]: drop the writer.
    pub fn chunk(&mut self, data: &[u8]) -> Result<(), LogError> {
        if data.is_empty() {
            return Ok(());
        }
        let header = chunk_header(data)?;
        self.output.append(&header)?;
        self.output.append(data)?;
        self.totals.add(&header, data.len());
        Ok(())
    }

    /// Returns the bytes of the file so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.output.bytes
    }

    /// Ends the file; it counts when the job has run and [`SnapshotFiles::complete`] was called.
    ///
    /// # Errors
    /// [`LogError::Full`], [`LogError::Io`]; the file is dropped.
    pub fn finish(mut self) -> Result<SnapshotJob<D>, LogError> {
        self.output.append(&self.totals.encode())?;
        Ok(SnapshotJob { output: self.output, header: self.header })
    }
}

/// Receives a snapshot as raw bytes, in order, and verifies them as they come.
#[derive(Debug)]
pub struct IncomingSnapshot<D: Disk> {
    output: Output<D>,
    verifier: Verifier,
}

impl<D: Disk> IncomingSnapshot<D> {
    /// Appends the next bytes; `content` gets what they hold of chunks, piece by piece. It may be damaged until the chunk is
    /// whole, so nothing that is made of it counts before [`SnapshotFiles::finish_incoming`].
    ///
    /// # Errors
    /// [`LogError::Received`] at the first byte that cannot be right, [`LogError::Version`];
    /// [`LogError::Full`], [`LogError::Io`]. Drop the writer then.
    pub fn write(&mut self, bytes: &[u8], content: impl FnMut(&[u8])) -> Result<(), LogError> {
        self.verifier.feed(bytes, content).map_err(|fault| match fault {
            Fault::Damaged(what) => LogError::Received { offset: self.output.bytes, what },
            Fault::Version => LogError::Version { file: self.output.name.clone(), offset: 8 },
        })?;
        self.output.append(bytes)
    }

    /// Returns the bytes received so far: the offset from which the sender goes on.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.output.bytes
    }

    /// Returns the header, once it has come.
    #[must_use]
    pub fn header(&self) -> Option<&SnapshotHeader> {
        self.verifier.header.as_ref()
    }
}

/// Makes a snapshot durable under its name; may run on any thread and blocks for as long as the disk takes.
#[must_use = "the snapshot is dropped unless the job runs"]
#[derive(Debug)]
pub struct SnapshotJob<D: Disk> {
    output: Output<D>,
    header: SnapshotHeader,
}

impl<D: Disk> SnapshotJob<D> {
    /// Returns what the snapshot is of.
    #[must_use]
    pub fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// Opens the file as it is: whole, not durable yet.
    ///
    /// # Errors
    /// [`LogError::Damaged`], [`LogError::Version`]: it is of no use. [`LogError::Io`].
    pub fn open(&self) -> Result<SnapshotReader<D>, LogError> {
        let Output { disk, name, .. } = &self.output;
        SnapshotReader::open(disk, name.clone(), self.header.group, self.header.index)
    }

    /// Syncs the file, gives it its name, syncs the folder.
    ///
    /// # Errors
    /// [`LogError::Io`]; the snapshot does not count, the older one stays.
    pub fn run(mut self) -> Result<(), LogError> {
        let Output { disk, file, name, .. } = &self.output;
        let synced = failpoint::hit(Point::SnapshotSync).and_then(|()| file.sync());
        synced.map_err(|error| LogError::io("sync", name, error))?;
        let target = file_name(self.header.group, self.header.index);
        let renamed = failpoint::hit(Point::SnapshotRename).and_then(|()| disk.rename(name, &target));
        renamed.map_err(|error| LogError::io("rename", name, error))?;
        let disk = disk.clone();
        self.output.is_kept = true;
        let synced = failpoint::hit(Point::SnapshotRenamed).and_then(|()| disk.sync_folder());
        synced.map_err(|error| LogError::io("sync the folder of", target, error))?;
        failpoint::pass(Point::SnapshotDurable);
        Ok(())
    }
}

/// Reads a snapshot file.
#[derive(Debug)]
pub struct SnapshotReader<D: Disk> {
    file: D::File,
    name: String,
    header: SnapshotHeader,
    bytes: u64,
    /// Where the next chunk starts; the chunks end at `chunks_end`.
    at: u64,
    chunks_end: u64,
    totals: Totals,
    /// What the trailer says.
    expected: [u8; TRAILER_BYTES],
    /// Raw bytes that were read, and what has verified them.
    raw_at: u64,
    verifier: Verifier,
}

impl<D: Disk> SnapshotReader<D> {
    fn open(disk: &D, name: String, group: u16, index: u64) -> Result<Self, LogError> {
        let io_error = |error| LogError::io("read", &name, error);
        let fault = |fault| match fault {
            Fault::Damaged(what) => LogError::Damaged { file: name.clone(), offset: 0, what },
            Fault::Version => LogError::Version { file: name.clone(), offset: 8 },
        };
        let file = disk.open(&name).map_err(io_error)?;
        let bytes = file.bytes().map_err(io_error)?;
        let short = Fault::Damaged("the file is too short");
        if bytes < (FIXED_HEADER_BYTES + CRC_BYTES + TRAILER_BYTES) as u64 {
            return Err(fault(short));
        }
        let mut fixed = [0; FIXED_HEADER_BYTES];
        file.read_at(0, &mut fixed).map_err(io_error)?;
        let header_bytes = SnapshotHeader::encoded_bytes(&fixed).map_err(fault)?;
        let chunks_end = bytes - TRAILER_BYTES as u64;
        if chunks_end < header_bytes as u64 {
            return Err(fault(short));
        }
        let mut encoded = vec![0; header_bytes];
        file.read_at(0, &mut encoded).map_err(io_error)?;
        let header = SnapshotHeader::decode(&encoded).map_err(fault)?;
        if (header.group, header.index) != (group, index) {
            return Err(fault(Fault::Damaged("the header is that of another snapshot")));
        }
        let mut expected = [0; TRAILER_BYTES];
        file.read_at(chunks_end, &mut expected).map_err(io_error)?;
        if expected[..4] != [0; 4] || Fields(&expected[24..]).u32() != Some(crc32c::crc32c(&expected[..24])) {
            let what = "the trailer does not match its checksum";
            return Err(LogError::Damaged { file: name, offset: chunks_end, what });
        }
        let (at, totals) = (header_bytes as u64, Totals::default());
        let verifier = Verifier::new(group);
        Ok(Self { file, name, header, bytes, at, chunks_end, totals, expected, raw_at: 0, verifier })
    }

    /// Returns what the snapshot is of.
    #[must_use]
    pub fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// Appends the next raw bytes of the file to `out`, at most `bytes`, and verifies them as they pass. Returns how many; 0 at
    /// its end. After an error `out` may hold some that are damaged.
    ///
    /// # Errors
    /// [`LogError::Damaged`], [`LogError::Version`]: the file is of no use. [`LogError::Io`].
    pub fn next_raw(&mut self, bytes: usize, out: &mut Vec<u8>) -> Result<usize, LogError> {
        let left = usize::try_from(self.bytes - self.raw_at).unwrap_or(usize::MAX);
        let start = out.len();
        out.resize(start + bytes.min(left), 0);
        let raw = out.get_mut(start..).unwrap_or_default();
        self.file.read_at(self.raw_at, raw).map_err(|error| LogError::io("read", &self.name, error))?;
        let fed = self.verifier.feed(raw, |_| {});
        let is_cut = raw.len() == left && self.verifier.state != State::Done;
        let fault = match fed {
            Err(Fault::Version) => return Err(LogError::Version { file: self.name.clone(), offset: 8 }),
            Err(Fault::Damaged(what)) => Some(what),
            Ok(()) => is_cut.then_some("the end is missing"),
        };
        match fault {
            Some(what) => Err(LogError::Damaged { file: self.name.clone(), offset: self.raw_at, what }),
            None => {
                self.raw_at += raw.len() as u64;
                Ok(raw.len())
            }
        }
    }

    /// Returns the next chunk, verified; `None` after the last, when the trailer fits to all of them.
    ///
    /// # Errors
    /// [`LogError::Damaged`]: the node must stop. [`LogError::Io`].
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, LogError> {
        if self.at == self.chunks_end {
            if self.totals.encode() != self.expected {
                return Err(self.damaged("chunks are missing"));
            }
            return Ok(None);
        }
        let left = self.chunks_end - self.at;
        if left < CHUNK_HEADER_BYTES as u64 {
            return Err(self.damaged("a chunk is incomplete"));
        }
        let header = self.read(self.at, CHUNK_HEADER_BYTES)?;
        let mut fields = Fields(&header);
        let (Some(size), Some(crc)) = (fields.u32(), fields.u32()) else {
            return Err(self.damaged("a chunk is incomplete"));
        };
        // The file bounds the memory that a damaged size can ask for.
        if size == 0 || left - (CHUNK_HEADER_BYTES as u64) < u64::from(size) {
            return Err(self.damaged("the size of a chunk is wrong"));
        }
        let data = self.read(self.at + CHUNK_HEADER_BYTES as u64, size as usize)?;
        if crc32c::crc32c(&data) != crc {
            return Err(self.damaged("a chunk does not match its checksum"));
        }
        if let Some(header) = header.first_chunk() {
            self.totals.add(header, data.len());
        }
        self.at += CHUNK_HEADER_BYTES as u64 + u64::from(size);
        Ok(Some(data))
    }

    fn read(&self, offset: u64, bytes: usize) -> Result<Bytes, LogError> {
        let mut buffer = BytesMut::zeroed(bytes);
        self.file.read_at(offset, &mut buffer).map_err(|error| LogError::io("read", &self.name, error))?;
        Ok(buffer.freeze())
    }

    fn damaged(&self, what: &'static str) -> LogError {
        LogError::Damaged { file: self.name.clone(), offset: self.at, what }
    }
}

/// Verifies a snapshot as its bytes pass, in pieces of any size; keeps no chunk in memory.
#[derive(Debug)]
struct Verifier {
    group: u16,
    header: Option<SnapshotHeader>,
    state: State,
    /// The part of a header or trailer that has come.
    pending: Vec<u8>,
    totals: Totals,
}

/// What comes next: `Fixed -> Header -> (Chunk -> Data)* -> Trailer -> Done`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fixed,
    /// The rest of the header, of so many bytes in all.
    Header(usize),
    Chunk,
    Data {
        left: usize,
        crc: u32,
        expected: u32,
    },
    Trailer,
    Done,
}

impl Verifier {
    fn new(group: u16) -> Self {
        Self { group, header: None, state: State::Fixed, pending: Vec::new(), totals: Totals::default() }
    }

    /// Takes the next bytes; `content` gets what they hold of chunks.
    fn feed(&mut self, mut bytes: &[u8], mut content: impl FnMut(&[u8])) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let wanted = match self.state {
                State::Fixed => FIXED_HEADER_BYTES,
                State::Header(all) => all,
                State::Chunk => CHUNK_HEADER_BYTES,
                State::Trailer => TRAILER_BYTES,
                State::Data { left, crc, expected } => {
                    let (data, rest) = bytes.split_at(left.min(bytes.len()));
                    bytes = rest;
                    content(data);
                    self.feed_data(left - data.len(), crc32c::crc32c_append(crc, data), expected)?;
                    continue;
                }
                State::Done => return Err(Fault::Damaged("there are bytes after the trailer")),
            };
            let (part, rest) = bytes.split_at((wanted - self.pending.len()).min(bytes.len()));
            self.pending.extend_from_slice(part);
            bytes = rest;
            if self.pending.len() == wanted {
                self.take_pending()?;
            }
        }
        Ok(())
    }

    fn feed_data(&mut self, left: usize, crc: u32, expected: u32) -> Result<(), Fault> {
        self.state = State::Data { left, crc, expected };
        if left == 0 {
            if crc != expected {
                return Err(Fault::Damaged("a chunk does not match its checksum"));
            }
            self.state = State::Chunk;
        }
        Ok(())
    }

    /// Takes in a header or trailer that is all there.
    fn take_pending(&mut self) -> Result<(), Fault> {
        match self.state {
            // The fixed part stays pending: it is a part of the header.
            State::Fixed => self.state = State::Header(SnapshotHeader::encoded_bytes(&self.pending)?),
            State::Header(_) => {
                let header = SnapshotHeader::decode(&self.pending)?;
                if header.group != self.group {
                    return Err(Fault::Damaged("this is the snapshot of another group"));
                }
                self.header = Some(header);
                self.pending.clear();
                self.state = State::Chunk;
            }
            State::Chunk => self.take_chunk_header()?,
            State::Trailer => {
                if self.pending != self.totals.encode() {
                    return Err(Fault::Damaged("the trailer does not fit to the chunks"));
                }
                self.pending.clear();
                self.state = State::Done;
            }
            State::Data { .. } | State::Done => {}
        }
        Ok(())
    }

    fn take_chunk_header(&mut self) -> Result<(), Fault> {
        let mut fields = Fields(&self.pending);
        let (Some(size), Some(expected)) = (fields.u32(), fields.u32()) else {
            return Err(Fault::Damaged("a chunk is incomplete"));
        };
        let left = size as usize;
        if left == 0 {
            // The start of the trailer; it stays pending.
            self.state = State::Trailer;
            return Ok(());
        }
        if CHUNK_BYTES_MAX < left {
            return Err(Fault::Damaged("a chunk is too large"));
        }
        if let Some(header) = self.pending.first_chunk() {
            self.totals.add(header, left);
        }
        self.pending.clear();
        self.state = State::Data { left, crc: 0, expected };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
