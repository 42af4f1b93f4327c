//! DEL, EXISTS.

use ringfort_resp::ReplyWriter;

use super::Done;
use crate::{Store, error::CommandError, keyspace::Reader};

/// `DEL key [key ...]`: how many were there.
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

/// `EXISTS key [key ...]`: how many are there; a key named twice counts twice.
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
        for read in ["GET k", "MGET x k", "EXISTS k x", "TTL k", "PTTL k"] {
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
}
