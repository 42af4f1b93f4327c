//! DEL, UNLINK, EXISTS, TOUCH, TYPE, RENAME, RENAMENX, COPY.

use ringfort_resp::ReplyWriter;

use super::{Done, is_option};
use crate::{Store, error::CommandError, keyspace::Reader, number::parse_i64, record::Content};

/// `DEL key [key ...]`, `UNLINK key [key ...]`: how many were there.
pub(super) fn del(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    if args.is_empty() {
        return Err(CommandError::Arity("del"));
    }
    let places = args.iter().map(|key| store.place(key)).collect::<Result<Vec<_>, _>>()?;
    let mut deleted = 0;
    for (place, key) in places.into_iter().zip(args) {
        if store.touch(place, key, now_ms).is_some() && store.remove(place, key) {
            deleted += 1;
        }
    }
    reply.integer(deleted);
    Ok(())
}

/// `EXISTS key [key ...]`, `TOUCH key [key ...]`: how many are there; a key named twice counts twice.
pub(super) fn exists(reader: &mut Reader<'_>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    if args.is_empty() {
        return Err(CommandError::Arity("exists"));
    }
    let mut found = 0;
    for key in args {
        found += i64::from(reader.get(key)?.is_some());
    }
    if reader.expired.is_empty() {
        reply.integer(found);
    }
    Ok(())
}

/// `TYPE key`.
pub(super) fn type_of(reader: &mut Reader<'_>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key] = args else { return Err(CommandError::Arity("type")) };
    let record = reader.get(key)?;
    if reader.expired.is_empty() {
        reply.simple(if record.is_some() { "string" } else { "none" });
    }
    Ok(())
}

/// `RENAME key newkey`.
pub(super) fn rename(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [source, target] = args else { return Err(CommandError::Arity("rename")) };
    if source == target {
        find_for_rename(store, now_ms, source)?;
    } else {
        move_record(store, now_ms, source, target, true)?;
    }
    reply.ok();
    Ok(())
}

/// `RENAMENX key newkey`: whether it was renamed.
pub(super) fn renamenx(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [source, target] = args else { return Err(CommandError::Arity("renamenx")) };
    let is_renamed = if source == target {
        find_for_rename(store, now_ms, source)?;
        false
    } else {
        move_record(store, now_ms, source, target, false)?
    };
    reply.integer(i64::from(is_renamed));
    Ok(())
}

/// `COPY source destination [DB 0] [REPLACE]`: whether it was copied.
pub(super) fn copy(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [source, target, options @ ..] = args else { return Err(CommandError::Arity("copy")) };
    let is_replace = parse_copy_options(options)?;
    if source == target {
        return Err(CommandError::SameKey);
    }
    let (from, to) = (store.place(source)?, store.place_for_write(target)?);
    let copied = store.touch(from, source, now_ms);
    let copied = copied.map(|record| (record.value().to_vec(), record.expires_at_ms()));
    let copied = copied.filter(|_| store.touch(to, target, now_ms).is_none() || is_replace);
    reply.integer(i64::from(copied.is_some()));
    if let Some((value, expires_at_ms)) = copied {
        store.put(to, Content::new(target, &value, expires_at_ms));
    }
    Ok(())
}

/// Refuses a key that does not exist.
fn find_for_rename(store: &mut Store, now_ms: u64, key: &[u8]) -> Done {
    let place = store.place(key)?;
    store.touch(place, key, now_ms).map(|_| ()).ok_or(CommandError::NoSuchKey)
}

/// Moves a record with its expiry to another key; returns whether it did, which without `is_replace` it does only to a
/// key that does not exist.
fn move_record(
    store: &mut Store,
    now_ms: u64,
    source: &[u8],
    target: &[u8],
    is_replace: bool,
) -> Result<bool, CommandError> {
    let (from, to) = (store.place(source)?, store.place_for_write(target)?);
    let record = store.touch(from, source, now_ms).ok_or(CommandError::NoSuchKey)?;
    let (value, expires_at_ms) = (record.value().to_vec(), record.expires_at_ms());
    if !is_replace && store.touch(to, target, now_ms).is_some() {
        return Ok(false);
    }
    store.put(to, Content::new(target, &value, expires_at_ms));
    store.remove(from, source);
    Ok(true)
}

/// Whether REPLACE is among the options of COPY. As in cluster mode, there is only database 0.
fn parse_copy_options(args: &[&[u8]]) -> Result<bool, CommandError> {
    let mut is_replace = false;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if is_option(arg, "replace") {
            is_replace = true;
        } else if is_option(arg, "db") {
            let number = parse_i64(args.next().ok_or(CommandError::Syntax)?);
            match i32::try_from(number.ok_or(CommandError::NotInteger)?) {
                Ok(0) => {}
                Ok(_) => return Err(CommandError::Database),
                Err(_) => return Err(CommandError::NotInt32),
            }
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok(is_replace)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{START_MS, Session};
    use crate::ExpiredKey;

    #[test]
    fn del_and_exists() {
        Session::new().script(
            "MSET a 1 b 2 c 3 -> +OK
             EXISTS a b x a -> :3
             DEL a x a b -> :2
             EXISTS a b c -> :1
             DEL a -> :0",
        );
    }

    #[test]
    fn del_of_an_expired_key_counts_nothing_and_removes_it() {
        let mut session = Session::new();
        session.run("SET k v PX 5");
        session.now_ms += 5;
        assert_eq!(session.store.len(), 1);
        assert_eq!(session.run("DEL k"), ":0");
        assert_eq!(session.store.len(), 0);
    }

    #[test]
    fn reads_name_expired_keys_and_write_nothing() {
        let mut session = Session::new();
        session.script("SET k v PX 5 -> +OK\nSET x v -> +OK");
        assert_eq!(session.read("GET k"), ("$1|v".into(), vec![]));
        session.now_ms += 5;
        let gone = ExpiredKey { key: b"k".to_vec(), expires_at_ms: START_MS + 5 };
        for read in [
            "GET k",
            "MGET x k",
            "EXISTS k x",
            "TOUCH k x",
            "TYPE k",
            "TTL k",
            "PTTL k",
            "EXPIRETIME k",
            "PEXPIRETIME k",
            "STRLEN k",
            "GETRANGE k 0 -1",
            "SUBSTR k 0 -1",
            "LCS x k",
            "LCS k x LEN",
            "OBJECT ENCODING k",
            "MEMORY USAGE k",
        ] {
            assert_eq!(session.read(read), (String::new(), vec![gone.clone()]), "{read}");
        }
        assert_eq!(session.read("DBSIZE"), (":2".into(), vec![]));
        assert!(session.store.expire(&gone.key, gone.expires_at_ms));
        assert!(!session.store.expire(&gone.key, gone.expires_at_ms));
        assert_eq!(session.read("GET k"), ("$-1".into(), vec![]));
        assert_eq!(session.read("MGET x k"), ("*2|$1|v|$-1".into(), vec![]));
    }

    #[test]
    fn reads_through_apply_remove_expired_keys() {
        for (read, reply) in
            [("GET k", "$-1"), ("MGET k x k", "*3|$-1|$1|v|$-1"), ("EXISTS k x", ":1"), ("TTL k", ":-2")]
        {
            let mut session = Session::new();
            session.script("SET k v PX 5 -> +OK\nSET x v -> +OK");
            session.now_ms += 5;
            assert_eq!(session.run(read), reply);
            assert_eq!(session.store.len(), 1);
        }
    }

    #[test]
    fn expire_is_conditional_on_the_same_expiry() {
        let mut session = Session::new();
        session.run("SET k v PX 5");
        assert!(!session.store.expire(b"k", START_MS + 4));
        assert!(!session.store.expire(b"other", START_MS + 5));
        session.run("PERSIST k");
        assert!(!session.store.expire(b"k", START_MS + 5));
        assert_eq!(session.run("GET k"), "$1|v");
    }

    #[test]
    fn unlink_touch_and_type() {
        Session::new().script(
            "MSET a 1 b 2 -> +OK
             TOUCH a b x a -> :3
             TYPE a -> +string
             UNLINK a x a -> :1
             TYPE a -> +none",
        );
    }

    #[test]
    fn rename_moves_value_and_expiry() {
        Session::new().script(
            "RENAME a b -> -ERR no such key
             RENAME a a -> -ERR no such key
             RENAMENX a a -> -ERR no such key
             SET a 1 PX 5000 -> +OK
             RENAME a a -> +OK
             RENAMENX a a -> :0
             SET b 2 -> +OK
             RENAMENX a b -> :0
             RENAME a b -> +OK
             GET b -> $1|1
             PTTL b -> :5000
             EXISTS a -> :0
             RENAMENX b c -> :1
             PTTL c -> :5000
             DBSIZE -> :1",
        );
    }

    #[test]
    fn copy_takes_value_and_expiry() {
        Session::new().script(
            "COPY a b -> :0
             COPY a a -> -ERR source and destination objects are the same
             SET a 1 PX 5000 -> +OK
             COPY a b -> :1
             PTTL b -> :5000
             SET a 2 -> +OK
             COPY a b DB 0 -> :0
             COPY a b DB 0 REPLACE -> :1
             GET b -> $1|2
             TTL b -> :-1
             COPY a b DB 1 -> -ERR DB index is out of range
             COPY a b DB x -> -ERR value is not an integer or out of range
             COPY a b DB 2147483648 -> -ERR value is out of range, value must between -2147483648 and 2147483647
             COPY a b DB -> -ERR syntax error
             COPY a b BAD -> -ERR syntax error",
        );
    }

    #[test]
    fn renamed_and_copied_keys_that_are_expired_are_absent() {
        let mut session = Session::new();
        session.script("SET a 1 PX 5 -> +OK\nSET b 2 PX 5 -> +OK\nSET c 3 -> +OK");
        session.now_ms += 5;
        session.script(
            "RENAMENX c b -> :1
             COPY b a -> :1
             RENAME a c -> +OK
             GET c -> $1|3",
        );
    }
}
