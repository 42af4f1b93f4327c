//! SET and its kin: SETNX, SETEX, PSETEX, GETSET, GETDEL, GETEX, DELIFEQ.

use ringfort_resp::ReplyWriter;

use super::{
    Done, is_option,
    strings::{check_value_len, write_value},
};
use crate::{
    Store,
    error::CommandError,
    number::parse_i64,
    record::{Content, Record},
};

/// `SET key value [NX | XX | IFEQ comparison] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`.
pub(super) fn set(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key, value, options @ ..] = args else { return Err(CommandError::Arity("set")) };
    let options = SetOptions::parse(options)?;
    let expiry =
        options.expiry.map(|(unit, number)| unit.expires_at_ms(number, now_ms, "set")).transpose()?;
    check_value_len(value.len())?;
    let place = store.place_for_write(key)?;

    let at = store.touch_at(place, key, now_ms);
    let old = at.map(|at| store.record(at));
    let is_allowed = match options.condition {
        Condition::None => true,
        Condition::Nx => old.is_none(),
        Condition::Xx => old.is_some(),
        Condition::IfEq(comparison) => old.is_some_and(|record| record.value() == comparison),
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
            _ => store.put_at(place, at, Content::new(key, value, expiry.or(kept))),
        }
    }
    Ok(())
}

/// `SETNX key value`: whether it was set.
pub(super) fn setnx(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key, value] = args else { return Err(CommandError::Arity("setnx")) };
    check_value_len(value.len())?;
    let place = store.place_for_write(key)?;
    let is_free = store.touch(place, key, now_ms).is_none();
    if is_free {
        store.put(place, Content::new(key, value, None));
    }
    reply.integer(i64::from(is_free));
    Ok(())
}

/// `SETEX key seconds value`.
pub(super) fn setex(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    set_with_expiry(store, now_ms, args, (Unit::Ex, "setex"), reply)
}

/// `PSETEX key milliseconds value`.
pub(super) fn psetex(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    set_with_expiry(store, now_ms, args, (Unit::Px, "psetex"), reply)
}

/// `GETSET key value`: the old value.
pub(super) fn getset(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key, value] = args else { return Err(CommandError::Arity("getset")) };
    check_value_len(value.len())?;
    let place = store.place_for_write(key)?;
    write_value(store.touch(place, key, now_ms), reply);
    store.put(place, Content::new(key, value, None));
    Ok(())
}

/// `GETDEL key`: the value, which is gone.
pub(super) fn getdel(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key] = args else { return Err(CommandError::Arity("getdel")) };
    let place = store.place(key)?;
    write_value(store.touch(place, key, now_ms), reply);
    store.remove(place, key);
    Ok(())
}

/// `GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]`: the value; its expiry is changed.
pub(super) fn getex(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key, options @ ..] = args else { return Err(CommandError::Arity("getex")) };
    let change = parse_getex_options(options)?;
    let place = store.place(key)?;
    let Some(record) = store.touch(place, key, now_ms) else {
        reply.null();
        return Ok(());
    };
    let old_expiry = record.expires_at_ms();
    let expiry = match change {
        ExpiryChange::Keep => old_expiry,
        ExpiryChange::Persist => None,
        ExpiryChange::Set(unit, number) => Some(unit.expires_at_ms(number, now_ms, "getex")?),
    };
    reply.bulk(record.value());
    if expiry.is_some_and(|at| at <= now_ms) {
        store.remove(place, key);
    } else if expiry != old_expiry {
        store.set_expiry(place, key, expiry);
    }
    Ok(())
}

/// `DELIFEQ key value`: whether the key had that value, and is gone. Valkey's command.
pub(super) fn delifeq(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key, value] = args else { return Err(CommandError::Arity("delifeq")) };
    let place = store.place(key)?;
    let is_equal = store.touch(place, key, now_ms).is_some_and(|record| record.value() == *value);
    if is_equal {
        store.remove(place, key);
    }
    reply.integer(i64::from(is_equal));
    Ok(())
}

fn set_with_expiry(
    store: &mut Store,
    now_ms: u64,
    args: &[&[u8]],
    (unit, name): (Unit, &'static str),
    reply: &mut ReplyWriter<'_>,
) -> Done {
    let [key, number, value] = args else { return Err(CommandError::Arity(name)) };
    let expires_at_ms = unit.expires_at_ms(number, now_ms, name)?;
    check_value_len(value.len())?;
    let place = store.place_for_write(key)?;
    // Lies ahead, for both units count from now.
    store.put(place, Content::new(key, value, Some(expires_at_ms)));
    reply.ok();
    Ok(())
}

/// When SET acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition<'a> {
    None,
    Nx,
    Xx,
    /// The key has this value (Valkey).
    IfEq(&'a [u8]),
}

/// How SET gives an expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Ex,
    Px,
    ExAt,
    PxAt,
}

/// What GETEX does to the expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExpiryChange<'a> {
    Keep,
    Persist,
    Set(Unit, &'a [u8]),
}

/// The options of SET.
#[derive(Debug, Clone, Copy)]
struct SetOptions<'a> {
    condition: Condition<'a>,
    is_get: bool,
    is_keepttl: bool,
    expiry: Option<(Unit, &'a [u8])>,
}

impl<'a> SetOptions<'a> {
    /// Reads the options as Redis 7.0 does: in any order, each as often as one likes (the last expiry counts), but only
    /// one of NX and XX, and only one of the five forms of expiry. As in Valkey, IFEQ stands once, without NX and XX.
    fn parse(args: &[&'a [u8]]) -> Result<Self, CommandError> {
        let mut options = Self { condition: Condition::None, is_get: false, is_keepttl: false, expiry: None };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if is_option(arg, "nx") && matches!(options.condition, Condition::None | Condition::Nx) {
                options.condition = Condition::Nx;
            } else if is_option(arg, "xx") && matches!(options.condition, Condition::None | Condition::Xx) {
                options.condition = Condition::Xx;
            } else if is_option(arg, "ifeq") && options.condition == Condition::None {
                options.condition = Condition::IfEq(args.next().ok_or(CommandError::Syntax)?);
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

/// Reads the options as Redis does: each as often as one likes (the last expiry counts), but only one of the five forms.
fn parse_getex_options<'a>(args: &[&'a [u8]]) -> Result<ExpiryChange<'a>, CommandError> {
    let mut change = ExpiryChange::Keep;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if is_option(arg, "persist") && matches!(change, ExpiryChange::Keep | ExpiryChange::Persist) {
            change = ExpiryChange::Persist;
            continue;
        }
        let unit = Unit::parse(arg).ok_or(CommandError::Syntax)?;
        match change {
            ExpiryChange::Keep => {}
            ExpiryChange::Set(other, _) if other == unit => {}
            ExpiryChange::Persist | ExpiryChange::Set(..) => return Err(CommandError::Syntax),
        }
        change = ExpiryChange::Set(unit, args.next().ok_or(CommandError::Syntax)?);
    }
    Ok(change)
}

impl Unit {
    fn parse(arg: &[u8]) -> Option<Self> {
        let forms = [("ex", Self::Ex), ("px", Self::Px), ("exat", Self::ExAt), ("pxat", Self::PxAt)];
        forms.into_iter().find(|(name, _)| is_option(arg, name)).map(|(_, unit)| unit)
    }

    /// The expiry as milliseconds since 1970; `name` is the command's.
    fn expires_at_ms(self, number: &[u8], now_ms: u64, name: &'static str) -> Result<u64, CommandError> {
        let invalid = CommandError::ExpireTime(name);
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
    use super::super::testing::Session;

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
    fn set_if_equal() {
        Session::new().script(
            "SET k v IFEQ v -> $-1
             EXISTS k -> :0
             SET k v IFEQ v GET -> $-1
             SET k v -> +OK
             SET k w IFEQ x -> $-1
             SET k w IFEQ x GET -> $1|v
             SET k w ifeq v EX 10 -> +OK
             TTL k -> :10
             SET k x GET IFEQ w KEEPTTL -> $1|w
             TTL k -> :10
             GET k -> $1|x
             SET k y IFEQ -> -ERR syntax error
             SET k y IFEQ x NX -> -ERR syntax error
             SET k y XX IFEQ x -> -ERR syntax error
             SET k y IFEQ x IFEQ x -> -ERR syntax error
             GETEX k IFEQ x -> -ERR syntax error
             GET k -> $1|x",
        );
    }

    #[test]
    fn delete_if_equal() {
        let mut session = Session::new();
        session.script(
            "DELIFEQ k v -> :0
             SET k v -> +OK
             DELIFEQ k w -> :0
             DELIFEQ k V -> :0
             GET k -> $1|v
             DELIFEQ k v -> :1
             DELIFEQ k v -> :0
             DELIFEQ k -> -ERR wrong number of arguments for 'delifeq' command
             SET k v PX 5 -> +OK",
        );
        session.now_ms += 5;
        session.script("DELIFEQ k v -> :0\nSET k w IFEQ v -> $-1\nDBSIZE -> :0");
    }

    #[test]
    fn setnx_setex_psetex() {
        Session::new().script(
            "SETNX k v -> :1
             SETNX k w -> :0
             SETEX k 10 x -> +OK
             TTL k -> :10
             PSETEX k 1500 y -> +OK
             PTTL k -> :1500
             GET k -> $1|y
             SETEX k 0 x -> -ERR invalid expire time in 'setex' command
             PSETEX k -1 x -> -ERR invalid expire time in 'psetex' command
             SETEX k x x -> -ERR value is not an integer or out of range
             SETEX k 9223372036854775807 x -> -ERR invalid expire time in 'setex' command",
        );
    }

    #[test]
    fn getset_getdel() {
        Session::new().script(
            "GETSET k v -> $-1
             EXPIRE k 10 -> :1
             GETSET k w -> $1|v
             TTL k -> :-1
             GETDEL k -> $1|w
             GETDEL k -> $-1",
        );
    }

    #[test]
    fn getex_changes_the_expiry() {
        Session::new().script(
            "GETEX k EX 0 -> $-1
             SET k v -> +OK
             GETEX k -> $1|v
             TTL k -> :-1
             GETEX k EX 1 EX 10 -> $1|v
             TTL k -> :10
             GETEX k -> $1|v
             TTL k -> :10
             GETEX k PERSIST PERSIST -> $1|v
             TTL k -> :-1
             GETEX k PXAT 1700000000005 -> $1|v
             PTTL k -> :5
             GETEX k EX 0 -> -ERR invalid expire time in 'getex' command
             GETEX k EX 1 PX 1 -> -ERR syntax error
             GETEX k EX 1 PERSIST -> -ERR syntax error
             GETEX k PERSIST EX 1 -> -ERR syntax error
             GETEX k KEEPTTL -> -ERR syntax error
             GETEX k EXAT 1700000000 -> $1|v
             EXISTS k -> :0",
        );
    }
}
