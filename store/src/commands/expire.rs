//! EXPIRE, PEXPIRE, EXPIREAT, PEXPIREAT, TTL, PTTL, EXPIRETIME, PEXPIRETIME, PERSIST.

use ringfort_resp::ReplyWriter;

use super::{Done, c_str, is_option};
use crate::{Store, error::CommandError, keyspace::Reader, number::parse_i64, record::Record};

/// Reply of TTL and PTTL for a key that does not exist.
const TTL_NO_KEY: i64 = -2;
/// Reply of TTL and PTTL for a key without an expiry.
const TTL_NO_EXPIRY: i64 = -1;

/// `EXPIRE key seconds [NX | XX | GT | LT]`.
pub(super) fn expire(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    set_expiry(store, now_ms, args, &Form { name: "expire", unit_ms: 1000, is_relative: true }, reply)
}

/// `PEXPIRE key milliseconds [NX | XX | GT | LT]`.
pub(super) fn pexpire(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    set_expiry(store, now_ms, args, &Form { name: "pexpire", unit_ms: 1, is_relative: true }, reply)
}

/// `EXPIREAT key unix-time-seconds [NX | XX | GT | LT]`.
pub(super) fn expireat(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    set_expiry(store, now_ms, args, &Form { name: "expireat", unit_ms: 1000, is_relative: false }, reply)
}

/// `PEXPIREAT key unix-time-milliseconds [NX | XX | GT | LT]`.
pub(super) fn pexpireat(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    set_expiry(store, now_ms, args, &Form { name: "pexpireat", unit_ms: 1, is_relative: false }, reply)
}

/// `PERSIST key`.
pub(super) fn persist(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key] = args else { return Err(CommandError::Arity("persist")) };
    let place = store.place(key)?;
    let is_volatile = store.touch(place, key, now_ms).is_some_and(|record| record.expires_at_ms().is_some());
    if is_volatile {
        store.set_expiry(place, key, None);
    }
    reply.integer(i64::from(is_volatile));
    Ok(())
}

/// `TTL key`: seconds left, rounded to the nearest.
pub(super) fn ttl(reader: &mut Reader<'_>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key] = args else { return Err(CommandError::Arity("ttl")) };
    let now_ms = reader.now_ms();
    write_expiry(reader, key, |at| nearest_s(at.saturating_sub(now_ms)), reply)
}

/// `PTTL key`: milliseconds left.
pub(super) fn pttl(reader: &mut Reader<'_>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key] = args else { return Err(CommandError::Arity("pttl")) };
    let now_ms = reader.now_ms();
    write_expiry(reader, key, |at| at.saturating_sub(now_ms), reply)
}

/// `EXPIRETIME key`: when it expires, seconds since 1970, rounded to the nearest.
pub(super) fn expiretime(reader: &mut Reader<'_>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key] = args else { return Err(CommandError::Arity("expiretime")) };
    write_expiry(reader, key, nearest_s, reply)
}

/// `PEXPIRETIME key`: when it expires, milliseconds since 1970.
pub(super) fn pexpiretime(reader: &mut Reader<'_>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key] = args else { return Err(CommandError::Arity("pexpiretime")) };
    write_expiry(reader, key, |at| at, reply)
}

/// How a command gives an expiry.
struct Form {
    name: &'static str,
    unit_ms: i64,
    /// Whether it counts from now.
    is_relative: bool,
}

fn nearest_s(ms: u64) -> u64 {
    ms.saturating_add(500) / 1000
}

fn set_expiry(
    store: &mut Store,
    now_ms: u64,
    args: &[&[u8]],
    form: &Form,
    reply: &mut ReplyWriter<'_>,
) -> Done {
    let [key, number, options @ ..] = args else { return Err(CommandError::Arity(form.name)) };
    let options = ExpireOptions::parse(options)?;
    let number = parse_i64(number).ok_or(CommandError::NotInteger)?;
    let basetime = if form.is_relative { i64::try_from(now_ms).unwrap_or(i64::MAX) } else { 0 };
    let at = number.checked_mul(form.unit_ms).and_then(|ms| ms.checked_add(basetime));
    let at = at.ok_or(CommandError::ExpireTime(form.name))?;
    let place = store.place(key)?;

    let Some(record) = store.touch(place, key, now_ms) else {
        reply.integer(0);
        return Ok(());
    };
    let is_allowed = options.allow(record.expires_at_ms(), at);
    if is_allowed {
        match u64::try_from(at) {
            Ok(at) if now_ms < at => store.set_expiry(place, key, Some(at)),
            _ => {
                store.remove(place, key);
            }
        }
    }
    reply.integer(i64::from(is_allowed));
    Ok(())
}

fn write_expiry(
    reader: &mut Reader<'_>,
    key: &[u8],
    number: impl Fn(u64) -> u64,
    reply: &mut ReplyWriter<'_>,
) -> Done {
    let record = reader.get(key)?;
    if reader.expired.is_empty() {
        reply.integer(match record.map(Record::expires_at_ms) {
            None => TTL_NO_KEY,
            Some(None) => TTL_NO_EXPIRY,
            Some(Some(at)) => i64::try_from(number(at)).unwrap_or(i64::MAX),
        });
    }
    Ok(())
}

/// The conditions of EXPIRE and its kin.
#[derive(Debug, Clone, Copy, Default)]
struct ExpireOptions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl ExpireOptions {
    fn parse(args: &[&[u8]]) -> Result<Self, CommandError> {
        let mut options = Self::default();
        for arg in args {
            let option = match arg {
                arg if is_option(arg, "nx") => &mut options.nx,
                arg if is_option(arg, "xx") => &mut options.xx,
                arg if is_option(arg, "gt") => &mut options.gt,
                arg if is_option(arg, "lt") => &mut options.lt,
                arg => return Err(CommandError::UnsupportedOption(c_str(arg).to_vec())),
            };
            *option = true;
        }
        if options.nx && (options.xx || options.gt || options.lt) {
            return Err(CommandError::NxWithOther);
        }
        if options.gt && options.lt {
            return Err(CommandError::GtWithLt);
        }
        Ok(options)
    }

    /// Whether `new` may replace `current`; no expiry counts as one that is infinitely far away.
    fn allow(self, current: Option<u64>, new: i64) -> bool {
        let current = current.map(|at| i64::try_from(at).unwrap_or(i64::MAX));
        !(self.nx && current.is_some()
            || self.xx && current.is_none()
            || self.gt && current.is_none_or(|at| new <= at)
            || self.lt && current.is_some_and(|at| at <= new))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Session;

    #[test]
    fn expire_ttl_and_persist() {
        let mut session = Session::new();
        session.script(
            "EXPIRE k 10 -> :0
             TTL k -> :-2
             PTTL k -> :-2
             PERSIST k -> :0
             SET k v -> +OK
             TTL k -> :-1
             PTTL k -> :-1
             PERSIST k -> :0
             EXPIRE k 10 -> :1
             PTTL k -> :10000
             PEXPIRE k 1499 -> :1
             TTL k -> :1
             PEXPIRE k 1500 -> :1
             TTL k -> :2
             PERSIST k -> :1
             TTL k -> :-1
             GET k -> $1|v
             PEXPIRE k 7 -> :1",
        );
        session.now_ms += 6;
        session.script("PTTL k -> :1\nTTL k -> :0");
        session.now_ms += 1;
        session.script("PERSIST k -> :0\nDBSIZE -> :0");
    }

    #[test]
    fn expire_in_the_past_deletes() {
        Session::new().script(
            "SET k v -> +OK
             EXPIRE k 0 -> :1
             DBSIZE -> :0
             SET k v -> +OK
             PEXPIRE k -9223372036854775808 -> :1
             DBSIZE -> :0
             SET k v -> +OK
             EXPIRE k -1 XX -> :0
             EXPIRE k -1 LT -> :1
             DBSIZE -> :0",
        );
    }

    #[test]
    fn expire_conditions() {
        Session::new().script(
            "SET k v -> +OK
             EXPIRE k 10 XX -> :0
             EXPIRE k 10 GT -> :0
             EXPIRE k 10 NX -> :1
             EXPIRE k 20 NX -> :0
             EXPIRE k 10 GT -> :0
             EXPIRE k 10 LT -> :0
             EXPIRE k 11 gt -> :1
             EXPIRE k 9 GT -> :0
             EXPIRE k 12 LT -> :0
             EXPIRE k 9 XX LT -> :1
             TTL k -> :9
             PERSIST k -> :1
             EXPIRE k 9 XX LT -> :0
             EXPIRE k 9 LT -> :1
             PEXPIRE k 9001 GT XX -> :1
             PTTL k -> :9001",
        );
    }

    #[test]
    fn expire_errors() {
        Session::new().script(
            "EXPIRE k -> -ERR wrong number of arguments for 'expire' command
             EXPIRE k x -> -ERR value is not an integer or out of range
             EXPIRE k 1 BAD -> -ERR Unsupported option BAD
             EXPIRE k x BAD -> -ERR Unsupported option BAD
             EXPIRE k 1 NX XX -> -ERR NX and XX, GT or LT options at the same time are not compatible
             EXPIRE k 1 NX GT -> -ERR NX and XX, GT or LT options at the same time are not compatible
             EXPIRE k 1 GT LT -> -ERR GT and LT options at the same time are not compatible
             EXPIRE k 9223372036854775807 -> -ERR invalid expire time in 'expire' command
             EXPIRE k -9223372036854775808 -> -ERR invalid expire time in 'expire' command
             PEXPIRE k 9223372036854775807 -> -ERR invalid expire time in 'pexpire' command
             PEXPIRE k -9223372036854775808 -> :0",
        );
    }

    #[test]
    fn absolute_expiries() {
        Session::new().script(
            "EXPIREAT k 1700000100 -> :0
             SET k v -> +OK
             EXPIRETIME k -> :-1
             EXPIREAT k 1700000100 -> :1
             TTL k -> :100
             EXPIRETIME k -> :1700000100
             PEXPIREAT k 1700000000500 XX -> :1
             PEXPIRETIME k -> :1700000000500
             EXPIRETIME k -> :1700000001
             PEXPIREAT k 1700000000499 GT -> :0
             PEXPIREAT k 1700000000499 LT -> :1
             EXPIRETIME k -> :1700000000
             PEXPIREAT k 1700000000499 NX -> :0
             EXPIREAT k 9223372036854776 -> -ERR invalid expire time in 'expireat' command
             PEXPIREAT k x -> -ERR value is not an integer or out of range
             PEXPIREAT k 9223372036854775807 -> :1
             EXPIRETIME k -> :9223372036854776
             PEXPIREAT k 1700000000000 -> :1
             EXISTS k -> :0
             PEXPIRETIME k -> :-2",
        );
    }
}
