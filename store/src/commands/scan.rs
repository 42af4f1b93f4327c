//! SCAN, KEYS, RANDOMKEY, CLUSTER COUNTKEYSINSLOT and GETKEYSINSLOT: which keys there are.
//!
//! Keys come in the order of slot and hash, or sorted, never in that of a table. Those past their expiry are left out
//! but, unlike by other reads, not deleted first.

use ringfort_resp::scan::{Cursor, ScanArgs, parse_pattern};
use ringfort_resp::{Glob, ReplyWriter};
use ringfort_ring::SLOTS;

use super::Done;
use crate::{
    REPLY_BYTES_MAX, Store,
    error::CommandError,
    keyspace::Reader,
    number::parse_i64,
    record::{Record, hash_key},
};

/// Most keys that one SCAN looks at, whatever its COUNT; but see [`SLOT_CALLS_MAX`].
const SCAN_KEYS_MAX: u64 = 16_384;

/// A slot is scanned in at most so many calls: a call looks at more keys than it was asked for when the slot is large.
const SLOT_CALLS_MAX: usize = 256;

/// Bytes of keys at which a reply of SCAN ends; keys of one position stay together.
const SCAN_BYTES_MAX: usize = 1 << 20;

/// How often RANDOMKEY draws when it meets keys past their expiry.
const RANDOM_TRIES: usize = 100;

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`: a batch of this partition's keys, and the cursor behind it;
/// at the partition's end that of the next partition.
pub(super) fn scan(reader: &mut Reader<'_>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let args = ScanArgs::parse(args)?;
    let filter = Filter::new(args.pattern, args.type_name);
    let (next, keys) = match args.cursor {
        Some(cursor) => batch(reader, cursor, args.count, &filter)?,
        None => (Cursor::slot_start(SLOTS), Vec::new()),
    };
    reply.array(2);
    reply.bulk(next.number().to_string().as_bytes());
    write_keys(&keys, reply);
    Ok(())
}

/// The keys from `cursor` on that pass the filter, among the next `count` or more, and the cursor behind them.
fn batch<'a>(
    reader: &Reader<'a>,
    cursor: Cursor,
    count: u64,
    filter: &Filter<'_>,
) -> Result<(Cursor, Vec<&'a [u8]>), CommandError> {
    let store = reader.store();
    if !(store.first_slot()..=store.last_slot()).contains(&cursor.slot()) {
        return Err(CommandError::Misplaced);
    }
    let mut left = count.min(SCAN_KEYS_MAX) as usize;
    let (mut keys, mut bytes) = (Vec::new(), 0);
    let mut start = cursor.position();
    for slot in cursor.slot()..=store.last_slot() {
        if left == 0 {
            return Ok((Cursor::slot_start(slot), keys));
        }
        let wanted = left.max(store.slot_len(slot).div_ceil(SLOT_CALLS_MAX));
        let found = first_of_slot(store, slot, start, wanted);
        let mut last = None;
        for (position, record) in &found {
            if SCAN_BYTES_MAX <= bytes && last.is_some_and(|last| last < *position) {
                return Ok((Cursor::new(slot, *position), keys));
            }
            last = Some(*position);
            if filter.takes(*record, reader.now_ms()) {
                bytes += record.key().len();
                keys.push(record.key());
            }
        }
        if let Some(last) = last
            && wanted <= found.len()
        {
            return Ok((Cursor::new(slot, last + 1), keys));
        }
        left = left.saturating_sub(found.len());
        start = 0;
    }
    Ok((Cursor::slot_start(store.last_slot() + 1), keys))
}

/// The first `wanted` records of a slot at or behind a position, ordered by position and key, and all others of the last
/// one's position; fewer when there are no more.
fn first_of_slot(store: &Store, slot: u16, start: u64, wanted: usize) -> Vec<(u64, Record<'_>)> {
    let mut found = Vec::new();
    for portion in store.portions_of_slot(slot, Cursor::hash_min(start)) {
        add_sorted(portion, start, &mut found);
        if wanted <= found.len() {
            break;
        }
    }
    if let Some((last, _)) = found.get(wanted - 1) {
        let last = *last;
        found.truncate(found.partition_point(|(position, _)| *position <= last));
    }
    found
}

/// Appends the records at or behind a position, ordered by position and key.
fn add_sorted<'a>(records: impl Iterator<Item = Record<'a>>, start: u64, found: &mut Vec<(u64, Record<'a>)>) {
    let mut added: Vec<_> = records.map(|record| (position(record), record)).collect();
    added.retain(|(position, _)| start <= *position);
    added.sort_unstable_by_key(|(position, record)| (*position, record.key()));
    found.append(&mut added);
}

fn position(record: Record<'_>) -> u64 {
    Cursor::position_of(hash_key(record.key()))
}

/// `KEYS pattern`: the keys of this partition that match. O(keys of the partition), in one piece.
pub(super) fn keys(reader: &mut Reader<'_>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [pattern] = args else { return Err(CommandError::Arity("keys")) };
    let filter = Filter::new(parse_pattern(pattern)?, None);
    let (store, now_ms) = (reader.store(), reader.now_ms());
    let (mut keys, mut bytes) = (Vec::new(), 0);
    for slot in store.first_slot()..=store.last_slot() {
        let start = keys.len();
        for record in store.records_of_slot(slot).filter(|record| filter.takes(*record, now_ms)) {
            bytes += record.key().len() + REPLY_KEY_BYTES;
            if REPLY_BYTES_MAX < bytes {
                return Err(CommandError::KeysTooLong);
            }
            keys.push(record.key());
        }
        keys[start..].sort_unstable();
    }
    write_keys(&keys, reply);
    Ok(())
}

/// RANDOMKEY of one partition, for the joiner: the number of its keys, and one of them, each as likely as any other
/// (nil, and 0 keys, when none was found that is not past its expiry). Its argument is a random number, 8 bytes.
///
/// Draws a place in the tables, which is as random as any other order.
pub(super) fn random_key(reader: &mut Reader<'_>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [random] = args else { return Err(CommandError::Arity("randomkey")) };
    let mut state = u64::from_le_bytes((*random).try_into().map_err(|_| CommandError::Syntax)?);
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let (store, now_ms) = (reader.store(), reader.now_ms());
    let tries = if store.is_empty() { 0 } else { RANDOM_TRIES };
    let found = (0..tries).find_map(|_| {
        let slot = slot_of_nth(store, random() % store.len())?;
        let record = store.random_of_slot(slot, &mut random)?;
        (!record.is_expired(now_ms)).then(|| record.key())
    });
    reply.array(2);
    reply.integer(if found.is_some() { store.len() as i64 } else { 0 });
    match found {
        Some(key) => reply.bulk(key),
        None => reply.null(),
    }
    Ok(())
}

/// The slot of key `n` of the partition, in the order of slots.
fn slot_of_nth(store: &Store, mut n: usize) -> Option<u16> {
    (store.first_slot()..=store.last_slot()).find(|slot| {
        let len = store.slot_len(*slot);
        let is_here = n < len;
        n = n.saturating_sub(len);
        is_here
    })
}

/// `CLUSTER COUNTKEYSINSLOT slot`; as in Redis, keys past their expiry count until they are removed.
pub(super) fn slot_count(reader: &mut Reader<'_>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [_, slot] = args else { return Err(CommandError::Arity("cluster|countkeysinslot")) };
    let slot = parse_i64(slot).ok_or(CommandError::NotInteger)?;
    let slot = checked_slot(slot).ok_or(CommandError::Slot)?;
    reply.integer(reader.store().slot_len(slot) as i64);
    Ok(())
}

/// `CLUSTER GETKEYSINSLOT slot count`: the first keys of the slot in byte order. O(keys of the slot).
pub(super) fn slot_keys(reader: &mut Reader<'_>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [_, slot, count] = args else { return Err(CommandError::Arity("cluster|getkeysinslot")) };
    let slot = parse_i64(slot).ok_or(CommandError::NotInteger)?;
    let count = parse_i64(count).ok_or(CommandError::NotInteger)?;
    let count = usize::try_from(count).map_err(|_| CommandError::SlotOrCount)?;
    let slot = checked_slot(slot).ok_or(CommandError::SlotOrCount)?;
    let keys = reader.store().keys_in_slot(slot, count);
    if REPLY_BYTES_MAX < keys.iter().map(|key| key.len() + REPLY_KEY_BYTES).sum() {
        return Err(CommandError::KeysTooLong);
    }
    write_keys(&keys, reply);
    Ok(())
}

/// Most bytes of a key in a reply beside the key itself.
const REPLY_KEY_BYTES: usize = "$65535\r\n\r\n".len();

fn checked_slot(slot: i64) -> Option<u16> {
    u16::try_from(slot).ok().filter(|slot| *slot < SLOTS)
}

fn write_keys(keys: &[impl AsRef<[u8]>], reply: &mut ReplyWriter<'_>) {
    reply.array(keys.len());
    keys.iter().for_each(|key| reply.bulk(key.as_ref()));
}

/// Which keys a client wants to see.
struct Filter<'a> {
    glob: Option<Glob>,
    type_name: Option<&'a [u8]>,
}

impl<'a> Filter<'a> {
    fn new(pattern: Option<&[u8]>, type_name: Option<&'a [u8]>) -> Self {
        Self { glob: pattern.map(Glob::new), type_name }
    }

    fn takes(&self, record: Record<'_>, now_ms: u64) -> bool {
        !record.is_expired(now_ms)
            && self.type_name.is_none_or(|name| name.eq_ignore_ascii_case(b"string"))
            && self.glob.as_ref().is_none_or(|glob| glob.is_match(record.key()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ringfort_resp::reply::{Value, parse};
    use ringfort_resp::{Command, Protocol};

    use super::super::testing::{START_MS, Session};
    use super::*;

    /// One call: the next cursor and the keys.
    fn call(store: &Store, now_ms: u64, cursor: u64, options: &[&str]) -> (u64, Vec<Vec<u8>>) {
        let cursor = cursor.to_string();
        let args: Vec<&[u8]> =
            std::iter::once(cursor.as_bytes()).chain(options.iter().map(|o| o.as_bytes())).collect();
        let (mut out, mut expired) = (Vec::new(), Vec::new());
        let mut reply = ReplyWriter::new(&mut out, Protocol::Resp2);
        store.read(now_ms, Command::Scan, &args, &mut reply, &mut expired);
        assert_eq!(expired, []);
        let (Value::Array(parts), _) = parse(&out).unwrap().unwrap() else {
            panic!("{}", out.escape_ascii())
        };
        let next = str::from_utf8(parts[0].as_bytes().unwrap()).unwrap().parse().unwrap();
        let keys = parts[1].elements().unwrap().iter().map(|key| key.as_bytes().unwrap().to_vec());
        (next, keys.collect())
    }

    /// All keys, each as often as it came, and the number of calls.
    fn scan_all(session: &Session, options: &[&str]) -> (Vec<Vec<u8>>, usize) {
        let (mut cursor, mut all, mut calls) = (0, Vec::new(), 0);
        loop {
            let (next, keys) = call(&session.store, session.now_ms, cursor, options);
            all.extend(keys);
            calls += 1;
            assert!(next == 0 || cursor < next, "the cursor moves on");
            cursor = next;
            if next == 0 {
                return (all, calls);
            }
        }
    }

    /// Applies a command without the checks of [`Session::run`], which would take long with many keys.
    fn apply(store: &mut Store, command: Command, args: &[&[u8]]) {
        let ctx = crate::ApplyContext { log_time_ms: START_MS, seed: 0 };
        store.apply(&ctx, command, args, &mut ReplyWriter::new(&mut Vec::new(), Protocol::Resp2));
    }

    fn filled(keys: impl Iterator<Item = String>) -> Session {
        let mut session = Session::new();
        keys.for_each(|key| apply(&mut session.store, Command::Set, &[key.as_bytes(), b"v"]));
        session
    }

    #[test]
    fn a_scan_returns_each_key_once() {
        for count in ["1", "7", "100", "1000000", "9223372036854775807"] {
            let session = filled((0..500).map(|i| format!("k{i}")));
            let (keys, calls) = scan_all(&session, &["COUNT", count]);
            assert_eq!(keys.len(), 500);
            assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), 500);
            let count: usize = count.parse().unwrap();
            assert!(calls <= 500 / count + 1, "{calls} calls of COUNT {count}");
        }
    }

    #[test]
    fn a_large_slot_is_cut_by_hash() {
        let session = filled((0..20_000).map(|i| format!("{{t}}{i}")).chain((0..50).map(|i| i.to_string())));
        let (keys, calls) = scan_all(&session, &["COUNT", "10"]);
        assert_eq!((keys.len(), keys.iter().collect::<BTreeSet<_>>().len()), (20_050, 20_050));
        assert!(calls <= SLOT_CALLS_MAX + 10, "{calls} calls");
        let (_, calls) = scan_all(&session, &["COUNT", "1000"]);
        assert!(calls <= 22, "{calls} calls");
    }

    #[test]
    fn keys_that_stay_are_found_whatever_happens_to_others() {
        let mut session =
            filled((0..400).map(|i| format!("stay{i}")).chain((0..2000).map(|i| format!("{{t}}{i}"))));
        let (mut cursor, mut seen, mut step) = (0, BTreeSet::new(), 0);
        loop {
            let (next, keys) = call(&session.store, session.now_ms, cursor, &["COUNT", "5"]);
            seen.extend(keys);
            // Tables grow and shrink, and a snapshot takes the place of the store.
            for i in 0..20 {
                let (new, old) = (step * 20 + i, step / 2 * 20 + i);
                apply(&mut session.store, Command::Set, &[format!("{{t}}new{new}").as_bytes(), b"v"]);
                apply(&mut session.store, Command::Del, &[format!("{{t}}new{old}").as_bytes()]);
            }
            if step % 20 == 0 {
                session.store.snapshot_begin();
                let mut bytes = Vec::new();
                while !session.store.snapshot_next(1 << 16, &mut bytes) {}
                let mut restorer = Store::restorer(0, SLOTS - 1);
                restorer.push(&bytes).unwrap();
                session.store = restorer.finish().unwrap();
            }
            step += 1;
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        assert!((0..400).all(|i| seen.contains(format!("stay{i}").as_bytes())));
        assert!((0..2000).all(|i| seen.contains(format!("{{t}}{i}").as_bytes())));
    }

    #[test]
    fn a_partition_ends_where_the_next_begins() {
        let mut store = Store::new(1024, 2047);
        let key = (0..).map(|i| i.to_string()).find(|key| store.place(key.as_bytes()).is_ok()).unwrap();
        apply(&mut store, Command::Set, &[key.as_bytes(), b"v"]);
        let start = Cursor::slot_start(1024).number();
        let next = Cursor::slot_start(2048).number();
        assert_eq!(call(&store, 1, start, &[]), (next, vec![key.clone().into_bytes()]));
        assert_eq!(call(&store, 1, next - 1, &[]), (next, vec![]));
        assert_eq!(call(&store, 1, u64::MAX, &[]), (0, vec![]));
        let mut reply = Vec::new();
        store.read(
            1,
            Command::Scan,
            &[b"0"],
            &mut ReplyWriter::new(&mut reply, Protocol::Resp2),
            &mut Vec::new(),
        );
        assert_eq!(reply, b"-ERR key belongs to another partition\r\n");
    }

    #[test]
    fn filters_leave_out_what_does_not_match_or_is_expired() {
        let mut session = filled((0..40).map(|i| format!("k{i}")));
        session.run("SET k1 v PX 5");
        session.now_ms += 5;
        let (mut keys, _) = scan_all(&session, &["MATCH", "k1*", "COUNT", "100"]);
        keys.sort();
        assert_eq!(keys.len(), 10);
        assert_eq!(keys[0], b"k10");
        assert_eq!(scan_all(&session, &["TYPE", "String"]).0.len(), 39);
        assert_eq!(scan_all(&session, &["TYPE", "list"]).0.len(), 0);
        assert_eq!(session.read("KEYS k1*").0.split('|').count(), 1 + 2 * 10);
        assert_eq!(session.read("KEYS k").0, "*0");
        assert_eq!(session.read("KEYS k39").0, "*1|$3|k39");
    }

    #[test]
    fn a_batch_of_long_keys_ends_early() {
        let session = filled((0..100).map(|i| format!("{{t}}{i:060000}")));
        let (next, keys) = call(&session.store, session.now_ms, 0, &["COUNT", "1000"]);
        assert_ne!(next, 0);
        assert!((17..20).contains(&keys.len()), "{}", keys.len());
        assert_eq!(scan_all(&session, &["COUNT", "1000"]).0.len(), 100);
    }

    #[test]
    fn each_key_is_as_random_as_any_other() {
        let mut session = filled((0..5).map(|i| format!("{{t}}{i}")).chain((0..5).map(|i| i.to_string())));
        session.run("SET gone v PX 1");
        session.now_ms += 1;
        let mut counts = std::collections::BTreeMap::new();
        let mut random = 7_u64;
        for _ in 0..2000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut out = Vec::new();
            let mut reply = ReplyWriter::new(&mut out, Protocol::Resp2);
            session.store.read(
                session.now_ms,
                Command::RandomKey,
                &[&(random >> 8).to_le_bytes()],
                &mut reply,
                &mut Vec::new(),
            );
            let (value, _) = parse(&out).unwrap().unwrap();
            let [Value::Integer(11), Value::Bulk(key)] = value.elements().unwrap() else {
                panic!("{value:?}")
            };
            *counts.entry(key.clone()).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 10);
        assert!(counts.values().all(|n| (130..270).contains(n)), "{counts:?}");
        session.run("FLUSHALL");
        let mut out = Vec::new();
        let mut reply = ReplyWriter::new(&mut out, Protocol::Resp2);
        session.store.read(session.now_ms, Command::RandomKey, &[&[0; 8]], &mut reply, &mut Vec::new());
        assert_eq!(out, b"*2\r\n:0\r\n$-1\r\n");
    }

    #[test]
    fn slots_are_counted_and_listed() {
        let session = filled(["{t}b", "{t}a", "{t}c", "x"].map(String::from).into_iter());
        let read = |command, args: &[&[u8]]| {
            let mut out = Vec::new();
            let mut reply = ReplyWriter::new(&mut out, Protocol::Resp2);
            session.store.read(session.now_ms, command, args, &mut reply, &mut Vec::new());
            String::from_utf8(out).unwrap()
        };
        let slot = ringfort_ring::slot_of(b"t").0.to_string();
        let slot = slot.as_bytes();
        assert_eq!(read(Command::SlotCount, &[b"", slot]), ":3\r\n");
        assert_eq!(read(Command::SlotKeys, &[b"", slot, b"2"]), "*2\r\n$4\r\n{t}a\r\n$4\r\n{t}b\r\n");
        assert_eq!(read(Command::SlotKeys, &[b"", slot, b"0"]), "*0\r\n");
        assert_eq!(read(Command::SlotCount, &[b"", b"16384"]), "-ERR Invalid slot\r\n");
        assert_eq!(read(Command::SlotKeys, &[b"", slot, b"-1"]), "-ERR Invalid slot or number of keys\r\n");
    }
}
