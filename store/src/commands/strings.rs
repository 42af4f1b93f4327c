//! GET, SET, MGET, MSET, INCR, INCRBY, APPEND.

use ringfort_resp::ReplyWriter;

use super::{Done, is_option};
use crate::{
    Store, VALUE_BYTES_MAX, error::CommandError, keyspace::Reader, number::parse_i64, record::Record,
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
