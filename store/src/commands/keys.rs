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
