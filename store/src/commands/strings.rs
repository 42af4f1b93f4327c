//! GET, MGET, MSET, MSETNX, INCR, INCRBY, DECR, DECRBY, APPEND.

use ringfort_resp::ReplyWriter;

use super::Done;
use crate::{
    REPLY_BYTES_MAX, Store, VALUE_BYTES_MAX,
    error::CommandError,
    keyspace::{Place, Reader},
    number::parse_i64,
    record::{Content, Record},
};

/// `GET key`.
pub(super) fn get(reader: &mut Reader<'_>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key] = args else { return Err(CommandError::Arity("get")) };
    let record = reader.get(key)?;
    if !reader.expired.is_empty() {
        return Ok(());
    }
    match record.and_then(|record| reader.take_large(record)) {
        Some(bytes) => reply.bulk_head(bytes),
        None => write_value(record, reply),
    }
    Ok(())
}

/// `MGET key [key ...]`.
pub(super) fn mget(reader: &mut Reader<'_>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    if args.is_empty() {
        return Err(CommandError::Arity("mget"));
    }
    let records = args.iter().map(|key| reader.get(key)).collect::<Result<Vec<_>, _>>()?;
    if reader.expired.is_empty() {
        // Each value takes its bytes, and at most 16 more for its length and line ends.
        let bytes: usize = records.iter().map(|r| r.map_or(0, |r| r.value().len()) + 16).sum();
        if bytes > REPLY_BYTES_MAX {
            return Err(CommandError::ReplyTooLong);
        }
        reply.array(records.len());
        for record in records {
            write_value(record, reply);
        }
    }
    Ok(())
}

/// `MSET key value [key value ...]`: all or nothing.
pub(super) fn mset(store: &mut Store, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    for (place, [key, value]) in place_pairs(store, args, "mset")? {
        store.put(place, Content::new(key, value, None));
    }
    reply.ok();
    Ok(())
}

/// `MSETNX key value [key value ...]`: whether all were set, which they are when none of the keys exists.
pub(super) fn msetnx(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let pairs = place_pairs(store, args, "msetnx")?;
    let is_free = pairs.iter().all(|(place, [key, _])| store.touch(*place, key, now_ms).is_none());
    if is_free {
        for (place, [key, value]) in pairs {
            store.put(place, Content::new(key, value, None));
        }
    }
    reply.integer(i64::from(is_free));
    Ok(())
}

/// A key and a value to be written, and where.
type PlacedPair<'a> = (Place, [&'a [u8]; 2]);

fn place_pairs<'a>(
    store: &Store,
    args: &[&'a [u8]],
    name: &'static str,
) -> Result<Vec<PlacedPair<'a>>, CommandError> {
    let (pairs, []) = args.as_chunks::<2>() else { return Err(CommandError::Arity(name)) };
    if pairs.is_empty() {
        return Err(CommandError::Arity(name));
    }
    let place = |pair: &[&'a [u8]; 2]| {
        check_value_len(pair[1].len())?;
        Ok((store.place_for_write(pair[0])?, *pair))
    };
    pairs.iter().map(place).collect()
}

/// `INCR key`.
pub(super) fn incr(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key] = args else { return Err(CommandError::Arity("incr")) };
    add(store, now_ms, key, 1, reply)
}

/// `INCRBY key increment`.
pub(super) fn incrby(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key, increment] = args else { return Err(CommandError::Arity("incrby")) };
    let increment = parse_i64(increment).ok_or(CommandError::NotInteger)?;
    add(store, now_ms, key, increment, reply)
}

/// `DECR key`.
pub(super) fn decr(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key] = args else { return Err(CommandError::Arity("decr")) };
    add(store, now_ms, key, -1, reply)
}

/// `DECRBY key decrement`.
pub(super) fn decrby(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key, decrement] = args else { return Err(CommandError::Arity("decrby")) };
    let decrement = parse_i64(decrement).ok_or(CommandError::NotInteger)?;
    let increment = decrement.checked_neg().ok_or(CommandError::DecrementOverflow)?;
    add(store, now_ms, key, increment, reply)
}

/// `APPEND key value`.
pub(super) fn append(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key, suffix] = args else { return Err(CommandError::Arity("append")) };
    let place = store.place_for_write(key)?;
    let old_len = store.touch(place, key, now_ms).map(|record| record.value().len());
    let len = old_len.unwrap_or(0).saturating_add(suffix.len());
    check_value_len(len)?;
    match old_len {
        None => store.put(place, Content::new(key, suffix, None)),
        Some(_) if suffix.is_empty() => {}
        Some(_) => store.append(place, key, suffix),
    }
    reply.integer(len as i64);
    Ok(())
}

fn add(store: &mut Store, now_ms: u64, key: &[u8], increment: i64, reply: &mut ReplyWriter<'_>) -> Done {
    let place = store.place_for_write(key)?;
    let old = store.touch(place, key, now_ms);
    let value = old.map_or(Some(0), |record| parse_i64(record.value())).ok_or(CommandError::NotInteger)?;
    let expires_at_ms = old.and_then(Record::expires_at_ms);
    let sum = value.checked_add(increment).ok_or(CommandError::Overflow)?;
    store.put(place, Content::new(key, sum.to_string().as_bytes(), expires_at_ms));
    reply.integer(sum);
    Ok(())
}

pub(super) fn write_value(record: Option<Record<'_>>, reply: &mut ReplyWriter<'_>) {
    match record {
        Some(record) => reply.bulk(record.value()),
        None => reply.null(),
    }
}

pub(super) fn check_value_len(len: usize) -> Done {
    if len <= VALUE_BYTES_MAX { Ok(()) } else { Err(CommandError::ValueTooLong) }
}

#[cfg(test)]
mod tests {
    use ringfort_resp::{Command, Protocol, ReplyWriter};

    use super::super::testing::Session;
    use crate::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

    #[test]
    fn a_large_value_is_shared_as_it_was_when_it_was_read() {
        let mut session = Session::new();
        let value = vec![b'v'; 100_000];
        session.run_args(Command::Set, &[b"k", &value]);
        session.run("SET small v");
        let read = |session: &Session, command, args: &[&[u8]]| {
            let (mut out, mut expired) = (Vec::new(), Vec::new());
            let reply = &mut ReplyWriter::new(&mut out, Protocol::Resp2);
            let large = session.store.read_large(true, session.now_ms, command, args, reply, &mut expired);
            (out, large)
        };
        let (head, large) = read(&session, Command::Get, &[b"k"]);
        assert_eq!(head, b"$100000\r\n");
        for line in ["APPEND k x", "SETRANGE k 0 y", "DEL k"] {
            session.run(line);
            assert_eq!(large.as_ref().unwrap().as_ref(), value, "{line}");
        }
        // All else is copied.
        session.run_args(Command::Set, &[b"k", &value]);
        let (reply, large) = read(&session, Command::MGet, &[b"k"]);
        assert!(large.is_none() && value.len() < reply.len());
        let (reply, large) = read(&session, Command::Get, &[b"small"]);
        assert!(large.is_none() && reply == b"$1\r\nv\r\n");
    }

    #[test]
    fn writes_treat_an_expired_key_as_absent() {
        let mut session = Session::new();
        for (write, reply, value) in [
            ("SET k w NX", "+OK", "$1|w"),
            ("SET k w XX", "$-1", "$-1"),
            ("SET k w GET", "$-1", "$1|w"),
            ("SET k w KEEPTTL", "+OK", "$1|w"),
            ("INCR k", ":1", "$1|1"),
            ("APPEND k w", ":1", "$1|w"),
            ("SETNX k w", ":1", "$1|w"),
            ("GETSET k w", "$-1", "$1|w"),
            ("GETDEL k", "$-1", "$-1"),
            ("GETEX k PERSIST", "$-1", "$-1"),
            ("DELIFEQ k 7", ":0", "$-1"),
            ("SET k w IFEQ 7", "$-1", "$-1"),
            ("SETRANGE k 0 w", ":1", "$1|w"),
            ("DECR k", ":-1", "$2|-1"),
            ("INCRBYFLOAT k .5", "$3|0.5", "$3|0.5"),
            ("MSETNX k w", ":1", "$1|w"),
            ("RENAME k k", "-ERR no such key", "$-1"),
            ("EXPIREAT k 9000000000", ":0", "$-1"),
            ("MSET k w", "+OK", "$1|w"),
        ] {
            session.script("SET k 7 PX 10 -> +OK");
            session.now_ms += 10;
            assert_eq!(session.run(write), reply, "{write}");
            assert_eq!(session.run("GET k"), value, "{write}");
            assert_eq!(session.store.expires_len(), 0, "{write}");
            session.run("DEL k");
        }
    }

    #[test]
    fn mget_and_mset() {
        Session::new().script(
            "MSET a 1 b 2 a 3 -> +OK
             MGET a b c a -> *4|$1|3|$1|2|$-1|$1|3
             SET a v EX 10 -> +OK
             MSET a 1 -> +OK
             TTL a -> :-1
             MSET a -> -ERR wrong number of arguments for 'mset' command
             MSET a 1 b -> -ERR wrong number of arguments for 'mset' command",
        );
    }

    #[test]
    fn incr_and_incrby() {
        Session::new().script(
            "INCR n -> :1
             INCRBY n 41 -> :42
             INCRBY n -2 -> :40
             GET n -> $2|40
             EXPIRE n 100 -> :1
             INCR n -> :41
             TTL n -> :100
             INCRBY n 1.5 -> -ERR value is not an integer or out of range
             SET n 01 -> +OK
             INCR n -> -ERR value is not an integer or out of range
             SET n 9223372036854775807 -> +OK
             INCR n -> -ERR increment or decrement would overflow
             INCRBY n -1 -> :9223372036854775806
             SET n -9223372036854775808 -> +OK
             INCRBY n -1 -> -ERR increment or decrement would overflow
             GET n -> $20|-9223372036854775808",
        );
    }

    #[test]
    fn append_keeps_the_expiry() {
        let mut session = Session::new();
        session.script(
            "APPEND k ab -> :2
             EXPIRE k 100 -> :1
             APPEND k cd -> :4
             GET k -> $4|abcd
             TTL k -> :100",
        );
        assert_eq!(session.run_args(Command::Append, &[b"new", b""]), b":0\r\n");
        assert_eq!(session.run("EXISTS new"), ":1");
    }

    #[test]
    fn refuses_values_and_keys_above_their_limits() {
        const TOO_LONG: &[u8] = b"-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n";
        const KEY_TOO_LONG: &[u8] = b"-ERR key exceeds maximum allowed size (65535 bytes)\r\n";
        let mut session = Session::new();
        let value = vec![b'v'; VALUE_BYTES_MAX + 1];
        assert_eq!(session.run_args(Command::Set, &[b"k", &value]), TOO_LONG);
        assert_eq!(session.run_args(Command::MSet, &[b"a", b"1", b"k", &value]), TOO_LONG);
        assert_eq!(session.run("DBSIZE"), ":0");
        assert_eq!(session.run_args(Command::Set, &[b"k", &value[1..]]), b"+OK\r\n");
        assert_eq!(session.run_args(Command::Append, &[b"k", b"x"]), TOO_LONG);
        assert_eq!(session.run_args(Command::Append, &[b"k", b""]), b":33554432\r\n");
        let key = vec![b'k'; KEY_BYTES_MAX + 1];
        assert_eq!(session.run_args(Command::Set, &[&key, b"v"]), KEY_TOO_LONG);
        assert_eq!(session.run_args(Command::Incr, &[&key]), KEY_TOO_LONG);
        assert_eq!(session.run_args(Command::Append, &[&key, b"v"]), KEY_TOO_LONG);
        assert_eq!(session.run_args(Command::MSet, &[b"a", b"1", &key, b"v"]), KEY_TOO_LONG);
        assert_eq!(session.run_args(Command::Get, &[&key]), b"$-1\r\n");
        assert_eq!(session.run_args(Command::Del, &[&key]), b":0\r\n");
        assert_eq!(session.run_args(Command::Set, &[&key[1..], b"v"]), b"+OK\r\n");
        assert_eq!(session.run_args(Command::Get, &[&key[1..]]), b"$1\r\nv\r\n");
    }

    #[test]
    fn msetnx_sets_all_or_nothing() {
        let mut session = Session::new();
        session.script(
            "MSETNX a 1 b 2 a 3 -> :1
             MGET a b -> *2|$1|3|$1|2
             MSETNX c 1 b 9 -> :0
             EXISTS c -> :0
             MSETNX c 1 d -> -ERR wrong number of arguments for 'msetnx' command
             PEXPIRE b 5 -> :1",
        );
        session.now_ms += 5;
        session.script("MSETNX c 1 b 9 -> :1\nPTTL b -> :-1");
    }

    #[test]
    fn decr_and_decrby() {
        Session::new().script(
            "DECR n -> :-1
             DECRBY n 41 -> :-42
             DECRBY n -2 -> :-40
             DECRBY n x -> -ERR value is not an integer or out of range
             DECRBY n -9223372036854775808 -> -ERR decrement would overflow
             SET n -9223372036854775808 -> +OK
             DECR n -> -ERR increment or decrement would overflow",
        );
    }
}
