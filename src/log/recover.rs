//! Reading the segments back after a start: see *Recovery* in the [module](super).

use std::collections::{BTreeMap, VecDeque};

use super::disk::{Disk, DiskFile};
use super::index::{Index, Place, Replay};
use super::record::{
    self, HeaderFault, RecordFault, SEGMENT_HEADER_BYTES, SegmentHeader, WRITE_HEADER_BYTES, WRITE_MAGIC,
    WriteHeader,
};
use super::{LastStop, LogError, Segment, segment_name, segment_sequence};
use crate::failpoint::{self, Point};

/// Bytes of the end of the log that are written again at a time.
const COPY_BYTES: usize = 1 << 20;

/// What [`recover`] found; all of it is durable.
pub(super) struct Recovery<D: Disk> {
    pub(super) segments: BTreeMap<u32, Segment<D::File>>,
    pub(super) index: Index,
    /// Number of the last write.
    pub(super) written: u64,
}

/// Where the replay cannot go on, and why.
struct Stop {
    segment: u32,
    offset: usize,
    what: &'static str,
}

struct Scan<D: Disk> {
    segments: BTreeMap<u32, Segment<D::File>>,
    replay: Replay,
    written: u64,
    /// The writes that no later one calls durable: their numbers, segments and offsets.
    tail: VecDeque<(u64, u32, usize)>,
}

/// Replays the segments of `disk`, cuts a torn tail and makes what is left durable.
pub(super) fn recover<D: Disk>(
    disk: &D,
    last_stop: LastStop,
    feature_level: u16,
) -> Result<Recovery<D>, LogError> {
    let mut scan =
        Scan::<D> { segments: BTreeMap::new(), replay: Replay::default(), written: 0, tail: VecDeque::new() };
    let sequences = list_or_begin(disk, feature_level)?;
    let mut stop: Option<Stop> = None;
    for &sequence in &sequences {
        let name = segment_name(sequence);
        let (file, bytes) = read_segment(disk, &name)?;
        if stop.is_none() {
            stop = scan.missing_before(sequence);
        }
        match &stop {
            None => stop = scan.replay_segment(sequence, file, &bytes)?,
            Some(stop) => check_torn(stop, sequence, 0, &bytes, scan.written, last_stop)?,
        }
        if let Some(stop) = stop.as_ref().filter(|stop| stop.segment == sequence) {
            let rest = bytes.get(stop.offset..).unwrap_or_default();
            check_torn(stop, sequence, stop.offset, rest, scan.written, last_stop)?;
        }
    }
    if let Some(stop) = stop {
        failpoint::pass(Point::LogCut);
        cut(disk, &sequences, &stop, &scan)?;
        failpoint::pass(Point::LogCutDone);
    }
    write_tail_again(&scan)?;
    for (&sequence, segment) in &scan.segments {
        segment.file.sync().map_err(|error| LogError::io("sync", segment_name(sequence), error))?;
    }
    disk.sync_folder().map_err(|error| LogError::io("sync the folder of", "the log", error))?;
    failpoint::pass(Point::LogRecovered);

    let last = scan.segments.last_key_value().map(|(&sequence, segment)| (sequence, segment.bytes));
    let index = scan.replay.finish().map_err(|_missing| {
        let (sequence, offset) = last.unwrap_or((1, 0));
        LogError::Damaged {
            file: segment_name(sequence),
            offset,
            what: "entries of an earlier segment are missing",
        }
    })?;
    Ok(Recovery { segments: scan.segments, index, written: scan.written })
}

fn list_segments<D: Disk>(disk: &D) -> Result<Vec<u32>, LogError> {
    let names = disk.list().map_err(|error| LogError::io("list the folder of", "the log", error))?;
    let mut sequences: Vec<u32> = names.iter().filter_map(|name| segment_sequence(name)).collect();
    sequences.sort_unstable();
    Ok(sequences)
}

/// Returns the sequences of all segments, after making the first one, durably, if there is none.
fn list_or_begin<D: Disk>(disk: &D, feature_level: u16) -> Result<Vec<u32>, LogError> {
    let sequences = list_segments(disk)?;
    let name = segment_name(1);
    let is_begun = match sequences[..] {
        [] => false,
        // A crash may have cut the beginning short, or its sync failed; nothing but the header was written then.
        [1] => {
            let (_, bytes) = read_segment(disk, &name)?;
            let header = SegmentHeader::decode(&bytes);
            SEGMENT_HEADER_BYTES < bytes.len() || matches!(header, Err(HeaderFault::Version(_)))
        }
        _ => true,
    };
    if is_begun {
        return Ok(sequences);
    }
    let header = SegmentHeader { feature_level, sequence: 1, first_write: 1 }.encode();
    let file = disk.create(&name).map_err(|error| LogError::io("create", &name, error))?;
    let written = failpoint::hit(Point::LogBegin).and_then(|()| file.write_at(0, &header));
    written.map_err(|error| LogError::io("write", &name, error))?;
    failpoint::pass(Point::LogBegun);
    // The end of recovery syncs it, before anything relies on it.
    Ok(vec![1])
}

fn read_segment<D: Disk>(disk: &D, name: &str) -> Result<(D::File, Vec<u8>), LogError> {
    let read = || {
        let file = disk.open(name)?;
        let bytes = usize::try_from(file.bytes()?).map_err(|_| std::io::ErrorKind::FileTooLarge)?;
        let mut buffer = vec![0; bytes];
        file.read_at(0, &mut buffer)?;
        Ok((file, buffer))
    };
    read().map_err(|error| LogError::io("read", name, error))
}

impl<D: Disk> Scan<D> {
    /// Returns a stop at the end of the last segment when `sequence` does not follow it.
    fn missing_before(&self, sequence: u32) -> Option<Stop> {
        let (&last, segment) = self.segments.last_key_value()?;
        let offset = usize::try_from(segment.bytes).unwrap_or(usize::MAX);
        (last + 1 != sequence).then_some(Stop {
            segment: last,
            offset,
            what: "the segment after it is missing",
        })
    }

    fn replay_segment(
        &mut self,
        sequence: u32,
        file: D::File,
        bytes: &[u8],
    ) -> Result<Option<Stop>, LogError> {
        let stop = |offset, what| Some(Stop { segment: sequence, offset, what });
        let is_oldest = self.segments.is_empty();
        let header = match SegmentHeader::decode(bytes) {
            Ok(header) if header.sequence == sequence => header,
            Ok(_) | Err(HeaderFault::Damaged) => {
                let what = "the header of the segment does not match its checksum";
                // The oldest segment was durable before the log was used, or before those in front of it were
                // deleted.
                if is_oldest {
                    return Err(LogError::Damaged { file: segment_name(sequence), offset: 0, what });
                }
                return Ok(stop(0, what));
            }
            Err(HeaderFault::Version(_)) => {
                return Err(LogError::Version { file: segment_name(sequence), offset: 8 });
            }
        };
        if is_oldest {
            self.written = header.first_write.saturating_sub(1);
        }
        let mut offset = SEGMENT_HEADER_BYTES;
        let mut fault = None;
        while offset < bytes.len() {
            match self.replay_write(sequence, offset, bytes) {
                Ok(end) => offset = end,
                Err(RecordFault::Damaged) => {
                    fault = stop(offset, "a write is incomplete or does not match its checksum");
                    break;
                }
                Err(RecordFault::Unknown) => {
                    return Err(LogError::Version { file: segment_name(sequence), offset: offset as u64 });
                }
            }
        }
        if offset == SEGMENT_HEADER_BYTES && !is_oldest {
            // The header was written together with the first write, so it is of no use either.
            return Ok(stop(
                0,
                "the first write of the segment is incomplete or does not match its checksum",
            ));
        }
        let (first_write, last_write) = (header.first_write, self.written);
        self.segments.insert(sequence, Segment { file, bytes: offset as u64, first_write, last_write });
        Ok(fault)
    }

    /// Takes in the write at `offset` if all of it is whole and it is the next one; returns where it ends.
    fn replay_write(&mut self, segment: u32, offset: usize, bytes: &[u8]) -> Result<usize, RecordFault> {
        let header =
            WriteHeader::decode(&bytes[offset..], segment, offset as u64).ok_or(RecordFault::Damaged)?;
        let start = offset + WRITE_HEADER_BYTES;
        let end = start.saturating_add(header.records_bytes as usize);
        let records = bytes.get(start..end).ok_or(RecordFault::Damaged)?;
        if header.write != self.written + 1 {
            return Err(RecordFault::Damaged);
        }
        // All of it is checked before any of it is taken in.
        let mut at = 0;
        for _ in 0..header.records {
            at += record::decode(records.get(at..).unwrap_or_default())?.bytes;
        }
        if at != records.len() {
            return Err(RecordFault::Damaged);
        }
        let mut at = 0;
        while let Some(framed) = record::parse(&records[at..]) {
            let place = Place {
                segment,
                offset: u32::try_from(start + at).map_err(|_| RecordFault::Unknown)?,
                bytes: u32::try_from(framed.bytes).map_err(|_| RecordFault::Unknown)?,
            };
            self.replay.apply(&framed, place);
            at += framed.bytes;
        }
        self.written = header.write;
        self.tail.push_back((header.write, segment, offset));
        while self.tail.front().is_some_and(|&(write, ..)| write <= header.synced) {
            self.tail.pop_front();
        }
        Ok(end)
    }
}

/// Writes once more what was perhaps never synced.
///
/// After a failed sync the system holds the lost pages for clean: they are read as if they were on the disk, and a later
/// sync succeeds without writing them. (Rebello et al., *Can Applications Recover from fsync Failures?*, USENIX ATC 2020.)
/// The same bytes at the same place make them dirty again, and hurt nothing that is on the disk already.
fn write_tail_again<D: Disk>(scan: &Scan<D>) -> Result<(), LogError> {
    let Some(&(_, first, offset)) = scan.tail.front() else { return Ok(()) };
    failpoint::pass(Point::LogTail);
    for (&sequence, segment) in scan.segments.range(first..) {
        // A segment's header is written with its first write.
        let mut at = if sequence == first && SEGMENT_HEADER_BYTES < offset { offset as u64 } else { 0 };
        while at < segment.bytes {
            let bytes = usize::try_from(segment.bytes - at).unwrap_or(COPY_BYTES).min(COPY_BYTES);
            let mut buffer = vec![0; bytes];
            let copied = segment.file.read_at(at, &mut buffer);
            copied
                .and_then(|()| segment.file.write_at(at, &buffer))
                .map_err(|error| LogError::io("write the end of", segment_name(sequence), error))?;
            at += bytes as u64;
        }
    }
    Ok(())
}

/// Fails when a header of a write in `bytes`, which stand at `offset` of segment `sequence`, proves that what
/// is missing at the stop was there once.
fn check_torn(
    stop: &Stop,
    sequence: u32,
    offset: usize,
    bytes: &[u8],
    written: u64,
    last_stop: LastStop,
) -> Result<(), LogError> {
    for (at, window) in bytes.windows(WRITE_HEADER_BYTES).enumerate() {
        if !window.starts_with(WRITE_MAGIC) {
            continue;
        }
        let Some(header) = WriteHeader::decode(window, sequence, (offset + at) as u64) else { continue };
        let is_proof = match last_stop {
            LastStop::Machine => written < header.synced,
            // The torn write itself may have a whole header.
            LastStop::Process => written + 1 < header.write,
        };
        if is_proof {
            let (file, offset) = (segment_name(stop.segment), stop.offset as u64);
            return Err(LogError::Damaged { file, offset, what: stop.what });
        }
    }
    Ok(())
}

/// Removes everything from the stop on. In any order: nothing is written before the caller has synced it all,
/// and if a crash leaves some of it, the next recovery stops at the same place.
fn cut<D: Disk>(disk: &D, sequences: &[u32], stop: &Stop, scan: &Scan<D>) -> Result<(), LogError> {
    for &sequence in sequences.iter().filter(|sequence| !scan.segments.contains_key(*sequence)) {
        let name = segment_name(sequence);
        disk.remove(&name).map_err(|error| LogError::io("remove", &name, error))?;
    }
    if let Some(segment) = scan.segments.get(&stop.segment) {
        let name = segment_name(stop.segment);
        segment.file.truncate(segment.bytes).map_err(|error| LogError::io("cut", &name, error))?;
    }
    Ok(())
}
