//! The two doors: `apply` for what the log says, `read` for the rest.

use ringfort_resp::{Command, ReplyWriter};

use crate::{LargeValue, Store, commands, keyspace::Reader};

/// Parts of flushed tables that each apply frees for each of its arguments. A new key takes at least one argument, so
/// that memory is given back faster than writes can fill it again, and garbage never adds up over several flushes.
const RECLAIM_PER_ARG: usize = 8;

/// What the log entry says beside its commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApplyContext {
    /// Milliseconds since 1970, stamped by the leader; never goes back.
    pub log_time_ms: u64,
    /// The entry's random number, for commands whose result is random.
    pub seed: u64,
}

/// A key whose time has come.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExpiredKey {
    /// The key.
    pub key: Vec<u8>,
    /// Its expiry, milliseconds since 1970: the condition under which it may be deleted.
    pub expires_at_ms: u64,
}

impl Store {
    /// Executes a committed command: the one deterministic way to change the keyspace.
    ///
    /// `args` exclude the command's name. Exactly one reply is written; a command that is refused changes nothing. A
    /// record whose expiry is at or before the log time is absent, and is removed when the command touches it. Reads
    /// are served as well (a transaction contains them).
    pub fn apply(
        &mut self,
        ctx: &ApplyContext,
        command: Command,
        args: &[&[u8]],
        reply: &mut ReplyWriter<'_>,
    ) {
        self.usage.log_time_ms = ctx.log_time_ms;
        self.garbage.step(args.len().saturating_add(1).saturating_mul(RECLAIM_PER_ARG));
        let done = if commands::is_read(command) {
            self.apply_read(ctx.log_time_ms, command, args, reply)
        } else {
            commands::write(self, ctx, command, args, reply)
        };
        if let Err(error) = done {
            error.write(reply);
        }
    }

    /// Executes a read; never changes anything but the marks of use, which belong to this replica alone.
    ///
    /// Keys found past their expiry at `now_ms` are added to `expired` and nothing is written: the caller has their
    /// conditional delete ([`Store::expire`]) committed and reads again, so that a key which one client saw gone cannot
    /// come back under a leader with a slower clock. When nothing was added, one reply was written. A key that is named
    /// twice may be added twice.
    pub fn read(
        &self,
        now_ms: u64,
        command: Command,
        args: &[&[u8]],
        reply: &mut ReplyWriter<'_>,
        expired: &mut Vec<ExpiredKey>,
    ) {
        let reader = Reader::new(self, now_ms, Self::is_use(true, command));
        Self::finish(reader, command, args, reply, expired);
    }

    /// As [`Store::read`], but no key counts as used by it, except by TOUCH (CLIENT NO-TOUCH).
    pub fn peek(
        &self,
        now_ms: u64,
        command: Command,
        args: &[&[u8]],
        reply: &mut ReplyWriter<'_>,
        expired: &mut Vec<ExpiredKey>,
    ) {
        let reader = Reader::new(self, now_ms, Self::is_use(false, command));
        Self::finish(reader, command, args, reply, expired);
    }

    /// As [`Store::read`] (`is_use`) or [`Store::peek`]; a value that is large and all of the reply is returned instead of
    /// copied, and only its head is written.
    pub fn read_large(
        &self,
        is_use: bool,
        now_ms: u64,
        command: Command,
        args: &[&[u8]],
        reply: &mut ReplyWriter<'_>,
        expired: &mut Vec<ExpiredKey>,
    ) -> Option<LargeValue> {
        let reader = Reader::new(self, now_ms, Self::is_use(is_use, command)).taking_large();
        Self::finish(reader, command, args, reply, expired)
    }

    /// As [`Store::read_large`], for a replica that may not delete: keys past their expiry are absent. One reply is written.
    pub fn read_as_replica(
        &self,
        is_use: bool,
        now_ms: u64,
        command: Command,
        args: &[&[u8]],
        reply: &mut ReplyWriter<'_>,
    ) -> Option<LargeValue> {
        let reader = Reader::new(self, now_ms, Self::is_use(is_use, command)).taking_large().hiding_expired();
        Self::finish(reader, command, args, reply, &mut Vec::new())
    }

    fn is_use(is_use: bool, command: Command) -> bool {
        if is_use { commands::is_use(command) } else { command == Command::Touch }
    }

    /// Bytes of the values that GET and MGET return; 0 for other commands. Nothing counts as used.
    pub fn value_bytes(&self, command: Command, args: &[&[u8]]) -> usize {
        let keys = match command {
            Command::Get | Command::MGet => args,
            _ => &[],
        };
        let records = keys.iter().filter_map(|key| self.find(self.place(key).ok()?, key));
        records.map(|record| record.value().len()).sum()
    }

    fn finish(
        mut reader: Reader<'_>,
        command: Command,
        args: &[&[u8]],
        reply: &mut ReplyWriter<'_>,
        expired: &mut Vec<ExpiredKey>,
    ) -> Option<LargeValue> {
        match commands::read(&mut reader, command, args, reply) {
            Ok(()) => expired.append(&mut reader.expired),
            Err(error) => error.write(reply),
        }
        reader.large
    }

    fn apply_read(
        &mut self,
        now_ms: u64,
        command: Command,
        args: &[&[u8]],
        reply: &mut ReplyWriter<'_>,
    ) -> Result<(), crate::error::CommandError> {
        let mut reader = Reader::new(self, now_ms, commands::is_use(command));
        commands::read(&mut reader, command, args, reply)?;
        if reader.expired.is_empty() {
            return Ok(());
        }
        for gone in core::mem::take(&mut reader.expired) {
            self.expire(&gone.key, gone.expires_at_ms);
        }
        commands::read(&mut Reader::new(self, now_ms, false), command, args, reply)
    }
}
