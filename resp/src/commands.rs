//! The one table of commands: what proxy, node and `COMMAND` know about each.

/// A command this version serves. The number is part of the log format: it never changes and is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
#[expect(missing_docs, reason = "each variant is the Redis command of that name")]
pub enum Command {
    Get = 1,
    Set = 2,
    Del = 3,
    Exists = 4,
    Incr = 5,
    IncrBy = 6,
    Append = 7,
    MGet = 8,
    MSet = 9,
    Expire = 10,
    PExpire = 11,
    Ttl = 12,
    PTtl = 13,
    Persist = 14,
    DbSize = 15,
    FlushAll = 16,
    // From here on: answered by the session that holds the connection; never in a log.
    Ping = 1000,
    Echo = 1001,
    Hello = 1002,
    Client = 1003,
    Command = 1004,
    Info = 1005,
    Cluster = 1006,
    Config = 1007,
    Select = 1008,
    Quit = 1009,
    Reset = 1010,
    ReadOnly = 1011,
    ReadWrite = 1012,
    Ringfort = 1013,
}

/// Who answers a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The session that holds the connection (PING, HELLO, CLIENT, COMMAND, ...).
    Connection,
    /// The partition of its key or keys, which all lie in one slot.
    Slot,
    /// Several keys that may be split by partition and joined again (MGET, MSET, DEL, EXISTS).
    Split,
    /// Every partition; the answers are summed (DBSIZE) or all must agree (FLUSHALL).
    AllPartitions,
}

/// Positions of the keys among the arguments; 0 is the command's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// First key; 0 when the command has none.
    pub first: u16,
    /// Last key; negative counts from the end (-1 is the last argument).
    pub last: i16,
    /// Distance from one key to the next.
    pub step: u16,
}

/// What is known of one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandSpec {
    /// Its number.
    pub command: Command,
    /// Its name in lower case.
    pub name: &'static str,
    /// As in Redis: exact count of arguments, the name included; negative: at least so many.
    pub arity: i16,
    /// Whether it may change the keyspace.
    pub is_write: bool,
    /// Redis's command flags, as COMMAND shows them.
    pub flags: &'static [&'static str],
    /// Its key positions.
    pub keys: Keys,
    /// Who answers it.
    pub scope: Scope,
    /// Redis's ACL categories, as COMMAND shows them.
    pub acl: &'static [&'static str],
}

impl CommandSpec {
    /// Whether `argc` arguments (the name included) fit the arity.
    pub fn is_arity_ok(&self, argc: usize) -> bool {
        let arity = usize::from(self.arity.unsigned_abs());
        if self.arity >= 0 { argc == arity } else { argc >= arity }
    }
}

/// Finds a command by its name, in any case.
pub fn lookup(_name: &[u8]) -> Option<&'static CommandSpec> {
    todo!()
}

/// Every command, ordered by name.
pub fn all() -> &'static [CommandSpec] {
    todo!()
}

impl Command {
    /// The command of a number from a frame or a log; `None` when this version does not know it.
    pub fn from_u16(_n: u16) -> Option<Self> {
        todo!()
    }

    /// Its row of the table.
    pub fn spec(self) -> &'static CommandSpec {
        todo!()
    }
}
