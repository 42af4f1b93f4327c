//! GET, SET, MGET, MSET, INCR, INCRBY, APPEND.

use ringfort_resp::ReplyWriter;

use super::{Done, is_option};
use crate::{
    REPLY_BYTES_MAX, Store, VALUE_BYTES_MAX, error::CommandError, keyspace::Reader, number::parse_i64,
    record::Record,
};

/// `GET key`.
pub(super) fn get(reader: &mut Reader<'_>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key] = args else { return Err(CommandError::Arity("get")) };
    let record = reader.get(key)?;
    if reader.expired.is_empty() {
        write_value(record, reply);
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

/// `SET key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`.
pub(super) fn set(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key, value, options @ ..] = args else { return Err(CommandError::Arity("set")) };
    let options = SetOptions::parse(options)?;
    let expiry = options.expiry.map(|(unit, number)| unit.expires_at_ms(number, now_ms)).transpose()?;
    check_value_len(value.len())?;
    let place = store.place_for_write(key)?;

    let old = store.touch(place, key, now_ms);
    let is_allowed = match options.condition {
        Condition::None => true,
        Condition::Nx => old.is_none(),
        Condition::Xx => old.is_some(),
    };
    let kept = if options.is_keepttl { old.and_then(Record::expires_at_ms) } else { None };
    if options.is_get {
        write_value(old, reply);
    } else if is_allowed {
        reply.ok();
    } else {
        reply.null();
    }
    if is_allowed {
        match expiry {
            // Born expired: nobody can see it, so it is not stored, but it does replace what was there.
            Some(at) if at <= now_ms => {
                store.remove(place, key);
            }
            _ => store.put(place, Record::new(key, value, expiry.or(kept))),
        }
    }
    Ok(())
}

/// `MSET key value [key value ...]`: all or nothing.
pub(super) fn mset(store: &mut Store, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let (pairs, []) = args.as_chunks::<2>() else { return Err(CommandError::Arity("mset")) };
    if pairs.is_empty() {
        return Err(CommandError::Arity("mset"));
    }
    let mut places = Vec::with_capacity(pairs.len());
    for [key, value] in pairs {
        check_value_len(value.len())?;
        places.push(store.place_for_write(key)?);
    }
    for (place, [key, value]) in places.into_iter().zip(pairs) {
        store.put(place, Record::new(key, value, None));
    }
    reply.ok();
    Ok(())
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

/// `APPEND key value`.
pub(super) fn append(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key, suffix] = args else { return Err(CommandError::Arity("append")) };
    let place = store.place_for_write(key)?;
    let old_len = store.touch(place, key, now_ms).map(|record| record.value().len());
    let len = old_len.unwrap_or(0).saturating_add(suffix.len());
    check_value_len(len)?;
    match old_len {
        None => store.put(place, Record::new(key, suffix, None)),
        Some(_) if suffix.is_empty() => {}
        Some(_) => store.update(place, key, |record| record.append(suffix)),
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
    store.put(place, Record::new(key, sum.to_string().as_bytes(), expires_at_ms));
    reply.integer(sum);
    Ok(())
}

fn write_value(record: Option<&Record>, reply: &mut ReplyWriter<'_>) {
    match record {
        Some(record) => reply.bulk(record.value()),
        None => reply.null(),
    }
}

fn check_value_len(len: usize) -> Done {
    if len <= VALUE_BYTES_MAX { Ok(()) } else { Err(CommandError::ValueTooLong) }
}

/// When SET acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    None,
    Nx,
    Xx,
}

/// How SET gives an expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Ex,
    Px,
    ExAt,
    PxAt,
}

/// The options of SET.
#[derive(Debug, Clone, Copy)]
struct SetOptions<'a> {
    condition: Condition,
    is_get: bool,
    is_keepttl: bool,
    expiry: Option<(Unit, &'a [u8])>,
}

impl<'a> SetOptions<'a> {
    /// Reads the options as Redis 7.0 does: in any order, each as often as one likes (the last expiry counts), but only
    /// one of NX and XX, and only one of the five forms of expiry.
    fn parse(args: &[&'a [u8]]) -> Result<Self, CommandError> {
        let mut options = Self { condition: Condition::None, is_get: false, is_keepttl: false, expiry: None };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if is_option(arg, "nx") && options.condition != Condition::Xx {
                options.condition = Condition::Nx;
            } else if is_option(arg, "xx") && options.condition != Condition::Nx {
                options.condition = Condition::Xx;
            } else if is_option(arg, "get") {
                options.is_get = true;
            } else if is_option(arg, "keepttl") && options.expiry.is_none() {
                options.is_keepttl = true;
            } else {
                let unit = Unit::parse(arg).ok_or(CommandError::Syntax)?;
                let is_first_form = options.expiry.is_none_or(|(other, _)| other == unit);
                if options.is_keepttl || !is_first_form {
                    return Err(CommandError::Syntax);
                }
                let number = args.next().ok_or(CommandError::Syntax)?;
                options.expiry = Some((unit, number));
            }
        }
        Ok(options)
    }
}

impl Unit {
    fn parse(arg: &[u8]) -> Option<Self> {
        let forms = [("ex", Self::Ex), ("px", Self::Px), ("exat", Self::ExAt), ("pxat", Self::PxAt)];
        forms.into_iter().find(|(name, _)| is_option(arg, name)).map(|(_, unit)| unit)
    }

    /// The expiry as milliseconds since 1970.
    fn expires_at_ms(self, number: &[u8], now_ms: u64) -> Result<u64, CommandError> {
        let invalid = CommandError::ExpireTime("set");
        let number = parse_i64(number).ok_or(CommandError::NotInteger)?;
        if number <= 0 {
            return Err(invalid);
        }
        let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
        let at = match self {
            Self::Ex => number.checked_mul(1000).and_then(|ms| ms.checked_add(now_ms)),
            Self::Px => number.checked_add(now_ms),
            Self::ExAt => number.checked_mul(1000),
            Self::PxAt => Some(number),
        };
        at.and_then(|at| u64::try_from(at).ok()).ok_or(invalid)
    }
}

#[cfg(test)]
mod tests {
    use ringfort_resp::Command;

    use super::super::testing::Session;
    use crate::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

    #[test]
    fn get_and_set() {
        Session::new().script(
            "GET k -> $-1
             SET k v -> +OK
             GET k -> $1|v
             SET k w -> +OK
             GET k -> $1|w
             DBSIZE -> :1",
        );
    }

    #[test]
    fn set_conditions() {
        Session::new().script(
            "SET k v XX -> $-1
             SET k v NX -> +OK
             SET k w nx -> $-1
             SET k w xX -> +OK
             SET k x GET -> $1|w
             SET k y NX GET -> $1|x
             GET k -> $1|x
             SET n y NX GET -> $-1
             GET n -> $1|y
             SET m y XX GET -> $-1
             EXISTS m -> :0
             SET k v NX XX -> -ERR syntax error
             SET k v XX NX -> -ERR syntax error
             SET k v BAD -> -ERR syntax error
             SET k v EX -> -ERR syntax error",
        );
    }

    #[test]
    fn set_expiries() {
        Session::new().script(
            "SET k v EX 100 -> +OK
             TTL k -> :100
             SET k v PX 1500 -> +OK
             PTTL k -> :1500
             SET k v EXAT 1700000100 -> +OK
             TTL k -> :100
             SET k v PXAT 1700000000001 -> +OK
             PTTL k -> :1
             SET k w KEEPTTL -> +OK
             PTTL k -> :1
             SET k v -> +OK
             TTL k -> :-1
             SET k v EX 1 EX 2 -> +OK
             TTL k -> :2
             SET k v EX 1 PX 2 -> -ERR syntax error
             SET k v EX 1 KEEPTTL -> -ERR syntax error
             SET k v KEEPTTL EX 1 -> -ERR syntax error
             SET k v EX 0 -> -ERR invalid expire time in 'set' command
             SET k v PXAT -1 -> -ERR invalid expire time in 'set' command
             SET k v EX x -> -ERR value is not an integer or out of range
             SET k v EX 9223372036854775807 -> -ERR invalid expire time in 'set' command
             SET k v PX 9223372036854775807 -> -ERR invalid expire time in 'set' command
             SET k v PXAT 9223372036854775807 -> +OK
             TTL k -> :9223370336854776",
        );
    }

    #[test]
    fn set_in_the_past_leaves_no_key() {
        let mut session = Session::new();
        session.script(
            "SET k v -> +OK
             SET k w PXAT 1 GET -> $1|v
             GET k -> $-1
             DBSIZE -> :0
             SET k w EXAT 1700000000 -> +OK
             DBSIZE -> :0",
        );
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
}
