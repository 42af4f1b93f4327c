//! Damage to what was durable: a bit that decays, a write that reached a wrong place, one that never reached the disk
//! although the disk said so. Only such that a start can prove: the last write of a log may as well be torn.

use crate::rng::Rng;
use ringfort::log::{Disk, DiskFile, LastStop, MemDisk};

/// Bytes before the first write of a segment, and of the header of a write: see the tables in `src/log/mod.rs`.
const SEGMENT_HEADER_BYTES: usize = 48;
const WRITE_HEADER_BYTES: usize = 32;
/// The unit in which a write goes astray.
const SECTOR_BYTES: usize = 512;

/// A write of a log.
#[derive(Debug, Clone)]
struct Write {
    file: String,
    start: usize,
    end: usize,
    number: u64,
    synced: u64,
}

fn read(disk: &MemDisk, name: &str) -> Option<Vec<u8>> {
    let file = disk.open(name).ok()?;
    let mut bytes = vec![0; usize::try_from(file.bytes().ok()?).ok()?];
    file.read_at(0, &mut bytes).ok()?;
    Some(bytes)
}

fn overwrite(disk: &MemDisk, name: &str, start: usize, old: &[u8], new: &[u8]) {
    for (i, (a, b)) in old.iter().zip(new).enumerate() {
        disk.flip(name, (start + i) as u64, a ^ b);
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// The writes of all segments up to the first that is torn, in order.
fn writes(disk: &MemDisk) -> Vec<Write> {
    let mut out = Vec::new();
    let names = disk.list().unwrap_or_default();
    for name in names.into_iter().filter(|name| name.ends_with(".seg")) {
        let bytes = read(disk, &name).unwrap_or_default();
        let mut start = SEGMENT_HEADER_BYTES;
        while let Some(header) = bytes.get(start..start + WRITE_HEADER_BYTES)
            && header.starts_with(b"RFwr")
            && let (Some(number), Some(synced)) = (number(header, 12), number(header, 20))
            && let Ok(records) = header[4..8].try_into().map(u32::from_le_bytes)
        {
            let end = start + WRITE_HEADER_BYTES + records as usize;
            if bytes.len() < end {
                return out;
            }
            out.push(Write { file: name.clone(), start, end, number, synced });
            start = end;
        }
    }
    out
}

/// Damages one record of a worker's disk that a start must miss; says what was done. `groups` run on this disk.
pub(crate) fn damage(disk: &MemDisk, last_stop: LastStop, groups: &[u16], rng: &mut Rng) -> Option<String> {
    if rng.one_in(4)
        && let Some(done) = damage_snapshot(disk, groups, rng)
    {
        return Some(done);
    }
    let writes = writes(disk);
    // A later write proves that those up to here were durable.
    let proven = match last_stop {
        LastStop::Machine => writes.last()?.synced,
        LastStop::Process => writes.last()?.number.checked_sub(1)?,
    };
    let durable: Vec<&Write> = writes.iter().filter(|w| w.number <= proven).collect();
    if durable.is_empty() {
        return None;
    }
    // Near the end as often as anywhere.
    let near = if rng.one_in(2) { durable.len() } else { durable.len().min(4) };
    let victim = durable[durable.len() - 1 - rng.index(near)];
    let bytes = read(disk, &victim.file)?;
    let place = format!("write {} in {} at {}", victim.number, victim.file, victim.start);
    match rng.below(3) {
        0 => {
            let at = victim.start + rng.index(victim.end - victim.start);
            disk.flip(&victim.file, at as u64, 1 << rng.below(8));
            Some(format!("a bit of {place} has decayed (byte {at})"))
        }
        1 => {
            // The disk said that it was written; the place holds what was there before: nothing.
            let end = victim.end.min(victim.start + SECTOR_BYTES);
            let old = &bytes[victim.start..end];
            overwrite(disk, &victim.file, victim.start, old, &vec![0; old.len()]);
            Some(format!("{place} never reached the disk"))
        }
        _ => {
            let other = durable[rng.index(durable.len())];
            let source = read(disk, &other.file)?;
            let source = &source[other.start..other.end];
            let len = source.len().min(victim.end - victim.start);
            let old = &bytes[victim.start..victim.start + len];
            if old == &source[..len] {
                return None;
            }
            overwrite(disk, &victim.file, victim.start, old, &source[..len]);
            Some(format!("write {} went to the place of {place}", other.number))
        }
    }
}

/// Flips a bit in the newest snapshot of one of the groups.
fn damage_snapshot(disk: &MemDisk, groups: &[u16], rng: &mut Rng) -> Option<String> {
    let names = disk.list().ok()?;
    let group = *groups.get(rng.index(groups.len().max(1)))?;
    let index = |name: &String| -> Option<u64> {
        let rest = name.strip_prefix("snap-")?.strip_suffix(".snap")?;
        let (g, index) = rest.split_once('-')?;
        (g.parse() == Ok(group)).then(|| index.parse().ok()).flatten()
    };
    let name = names.iter().filter(|name| index(name).is_some()).max_by_key(|name| index(name))?;
    let bytes = read(disk, name)?;
    let at = rng.index(bytes.len().max(1));
    disk.flip(name, at as u64, 1 << rng.below(8)).then(|| format!("a bit of {name} has decayed (byte {at})"))
}
