//! DBSIZE, FLUSHALL: the whole partition.

use ringfort_resp::ReplyWriter;

use super::{Done, is_option};
use crate::{Store, error::CommandError, keyspace::Reader};

/// `DBSIZE`: the number of keys of this partition; as in Redis, those past their expiry count until they are removed.
pub(super) fn dbsize(reader: &mut Reader<'_>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    if !args.is_empty() {
        return Err(CommandError::Arity("dbsize"));
    }
    reply.integer(reader.store().len() as i64);
    Ok(())
}

/// `FLUSHALL [ASYNC | SYNC]`: both empty the partition at once and free the memory step by step.
pub(super) fn flushall(store: &mut Store, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    match args {
        [] => {}
        [mode] if is_option(mode, "async") || is_option(mode, "sync") => {}
        _ => return Err(CommandError::Syntax),
    }
    store.flush();
    reply.ok();
    Ok(())
}
