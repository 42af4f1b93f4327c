//! The one table of commands: what proxy, node and `COMMAND` know about each.

mod container;
mod table;

pub use container::write_container_reply;

use core::iter::StepBy;
use core::ops::Range;

use crate::ReplyWriter;
use table::SPECS;

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
    SetNx = 17,
    SetEx = 18,
    PSetEx = 19,
    GetSet = 20,
    GetDel = 21,
    GetEx = 22,
    GetRange = 23,
    SetRange = 24,
    SubStr = 25,
    StrLen = 26,
    Decr = 27,
    DecrBy = 28,
    IncrByFloat = 29,
    MSetNx = 30,
    Lcs = 31,
    Unlink = 32,
    Touch = 33,
    Type = 34,
    Rename = 35,
    RenameNx = 36,
    Copy = 37,
    ExpireAt = 38,
    PExpireAt = 39,
    ExpireTime = 40,
    PExpireTime = 41,
    FlushDb = 42,
    Object = 43,
    Memory = 44,
    DelIfEq = 45,
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
    /// Several keys that may be split by partition and joined again (MGET, MSET, DEL, UNLINK, EXISTS, TOUCH).
    Split,
    /// Every partition; the answers are summed (DBSIZE) or all must agree (FLUSHALL, FLUSHDB).
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

impl Keys {
    /// A command without keys.
    pub const NONE: Self = Self { first: 0, last: 0, step: 0 };

    /// Indexes of the keys among `argc` arguments (the name included), ascending; none is `argc` or above.
    pub fn indexes(self, argc: usize) -> StepBy<Range<usize>> {
        let last = if self.last >= 0 {
            usize::from(self.last.unsigned_abs())
        } else {
            argc.saturating_sub(usize::from(self.last.unsigned_abs()))
        };
        let end = if self.first == 0 { 0 } else { argc.min(last + 1) };
        (usize::from(self.first)..end).step_by(usize::from(self.step.max(1)))
    }
}

/// How a command uses its keys: one of Redis 7's key specifications. A command's only one has the positions of its
/// [`Keys`]; of several, each has the position of one key, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySpec {
    /// Redis's remark, if it has one.
    pub notes: Option<&'static str>,
    /// Redis's flags, such as `RO` and `access`.
    pub flags: &'static [&'static str],
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
    /// Redis's tips for clients and proxies, as COMMAND shows them.
    pub tips: &'static [&'static str],
    /// Redis's key specifications, as COMMAND shows them.
    pub key_specs: &'static [KeySpec],
    /// One line on what it does, as COMMAND DOCS shows it.
    pub summary: &'static str,
    /// The version of Redis (RINGFORT: of Ringfort, DELIFEQ: of Valkey) that had it first.
    pub since: &'static str,
    /// Redis's group of commands, such as `string`.
    pub group: &'static str,
}

impl CommandSpec {
    /// Whether `argc` arguments (the name included) fit the arity.
    pub fn is_arity_ok(&self, argc: usize) -> bool {
        let arity = usize::from(self.arity.unsigned_abs());
        if self.arity >= 0 { argc == arity } else { argc >= arity }
    }

    /// Its place in [`all`].
    pub fn row(&self) -> usize {
        usize::from(ROWS[self.command as usize])
    }

    /// Indexes of its keys among `argc` arguments (the name included), ascending; none is `argc` or above.
    pub fn keys(&self, argc: usize) -> StepBy<Range<usize>> {
        self.keys.indexes(argc)
    }
}

/// Finds a command by its name, in any case. Allocates nothing; five or so comparisons of integers.
pub fn lookup(name: &[u8]) -> Option<&'static CommandSpec> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut lower = [0; NAME_BYTES_MAX];
    lower[..name.len()].copy_from_slice(name);
    // All of it, for it is then one step for the machine; the padding stays NUL.
    lower.make_ascii_lowercase();
    let spec = &SPECS[NAMES.binary_search(&u128::from_be_bytes(lower)).ok()?];
    // A name that ends with NUL looks like a shorter one.
    (spec.name.len() == name.len()).then_some(spec)
}

/// Every command, ordered by name.
pub fn all() -> &'static [CommandSpec] {
    &SPECS
}

impl Command {
    /// The command of a number from a frame or a log; `None` when this version does not know it.
    pub fn from_u16(n: u16) -> Option<Self> {
        let row = *ROWS.get(usize::from(n))?;
        SPECS.get(usize::from(row)).map(|spec| spec.command)
    }

    /// Its row of the table.
    pub fn spec(self) -> &'static CommandSpec {
        &SPECS[usize::from(ROWS[self as usize])]
    }
}

/// Room for the longest name of the table; a `u128` of it, big-endian, sorts as the names do.
const NAME_BYTES_MAX: usize = 16;

/// The names of `SPECS` in its order, each padded with NUL to one integer.
static NAMES: [u128; SPECS.len()] = {
    let mut names = [0; SPECS.len()];
    let mut i = 0;
    while i < names.len() {
        let name = SPECS[i].name.as_bytes();
        let mut padded = [0; NAME_BYTES_MAX];
        let mut j = 0;
        while j < name.len() {
            padded[j] = name[j];
            j += 1;
        }
        names[i] = u128::from_be_bytes(padded);
        assert!(i == 0 || names[i - 1] < names[i], "the table is ordered by name");
        i += 1;
    }
    names
};

/// One more than the highest number that a [`Command`] may have.
const NUMBERS: usize = 1024;

/// Entry of `ROWS` for a number that no command has.
const NO_ROW: u8 = u8::MAX;

/// Row of `SPECS` by the command's number.
static ROWS: [u8; NUMBERS] = {
    assert!(SPECS.len() < NO_ROW as usize, "a row fits a byte");
    let mut rows = [NO_ROW; NUMBERS];
    let mut i = 0;
    while i < SPECS.len() {
        let number = SPECS[i].command as usize;
        assert!(rows[number] == NO_ROW, "a command has one row");
        rows[number] = i as u8;
        i += 1;
    }
    rows
};

/// Writes the element of `COMMAND` and `COMMAND INFO` for one command: Redis 7's ten fields.
///
/// The subcommands of containers (CLIENT, CLUSTER, COMMAND, CONFIG) are not listed: that field is always empty.
pub fn write_command_info(spec: &CommandSpec, out: &mut ReplyWriter<'_>) {
    out.array(10);
    out.bulk(spec.name.as_bytes());
    out.integer(i64::from(spec.arity));
    write_simple_set(spec.flags, out);
    out.integer(i64::from(spec.keys.first));
    out.integer(i64::from(spec.keys.last));
    out.integer(i64::from(spec.keys.step));
    write_simple_set(spec.acl, out);
    out.set(spec.tips.len());
    for tip in spec.tips {
        out.bulk(tip.as_bytes());
    }
    out.set(spec.key_specs.len());
    match spec.key_specs {
        [only] => write_key_spec(only, spec.keys, out),
        several => {
            for (key_spec, i) in several.iter().zip(spec.keys.first..) {
                write_key_spec(key_spec, Keys { first: i, last: i.cast_signed(), step: 1 }, out);
            }
        }
    }
    out.set(0);
}

/// Writes the pair of `COMMAND DOCS` for one command: its name and the map of summary, since and group.
///
/// The caller writes the header first: a map of as many pairs as there are commands.
pub fn write_command_docs(spec: &CommandSpec, out: &mut ReplyWriter<'_>) {
    out.bulk(spec.name.as_bytes());
    out.map(3);
    for (key, value) in [("summary", spec.summary), ("since", spec.since), ("group", spec.group)] {
        out.bulk(key.as_bytes());
        out.bulk(value.as_bytes());
    }
}

fn write_simple_set(words: &[&str], out: &mut ReplyWriter<'_>) {
    out.set(words.len());
    for word in words {
        out.simple(word);
    }
}

/// Redis 7's form of "from argument `first` on, a range": the last key is relative to the first unless it is negative.
fn write_key_spec(key_spec: &KeySpec, keys: Keys, out: &mut ReplyWriter<'_>) {
    let first = i64::from(keys.first);
    let last = i64::from(keys.last);
    out.map(if key_spec.notes.is_some() { 4 } else { 3 });
    if let Some(notes) = key_spec.notes {
        out.bulk(b"notes");
        out.bulk(notes.as_bytes());
    }
    out.bulk(b"flags");
    write_simple_set(key_spec.flags, out);

    out.bulk(b"begin_search");
    out.map(2);
    out.bulk(b"type");
    out.bulk(b"index");
    out.bulk(b"spec");
    out.map(1);
    out.bulk(b"index");
    out.integer(first);

    out.bulk(b"find_keys");
    out.map(2);
    out.bulk(b"type");
    out.bulk(b"range");
    out.bulk(b"spec");
    out.map(3);
    out.bulk(b"lastkey");
    out.integer(if last < 0 { last } else { last - first });
    out.bulk(b"keystep");
    out.integer(i64::from(keys.step));
    out.bulk(b"limit");
    out.integer(0);
}

/// How much of a name, and of all arguments together, an error repeats, bytes (Redis: `%.128s`).
const ERROR_QUOTE_BYTES_MAX: usize = 128;

/// Redis 7's error for a name that is no command: ``ERR unknown command 'foo', with args beginning with: 'a' 'b' ``.
///
/// `args` are the arguments after the name. Cut as Redis cuts: the name at 128 bytes, arguments until 128 bytes are
/// quoted, each at its first NUL; CR and LF become spaces. Unlike in Redis, bytes that are not UTF-8 become U+FFFD.
pub fn unknown_command_error<'a>(name: &[u8], args: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut quoted = Vec::with_capacity(ERROR_QUOTE_BYTES_MAX + 8);
    for arg in args {
        if quoted.len() >= ERROR_QUOTE_BYTES_MAX {
            break;
        }
        let room = ERROR_QUOTE_BYTES_MAX - quoted.len();
        quoted.push(b'\'');
        quoted.extend_from_slice(cut(arg, room));
        quoted.extend_from_slice(b"' ");
    }
    format!(
        "ERR unknown command '{}', with args beginning with: {}",
        printable(cut(name, ERROR_QUOTE_BYTES_MAX)),
        printable(&quoted)
    )
}

/// Redis 7's error for a container's subcommand that does not exist: `ERR unknown subcommand 'foo'. Try CLIENT HELP.`
///
/// Cut and cleaned as in [`unknown_command_error`].
pub fn unknown_subcommand_error(container: &CommandSpec, subcommand: &[u8]) -> String {
    let quoted = printable(cut(subcommand, ERROR_QUOTE_BYTES_MAX));
    format!("ERR unknown subcommand '{quoted}'. Try {} HELP.", container.name.to_ascii_uppercase())
}

/// Redis 7's error for a wrong number of arguments: `ERR wrong number of arguments for 'get' command`.
///
/// `name` is the command's name in lower case; of a container's subcommand `client|setname`.
pub fn wrong_arity_error(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

/// C's `%.*s`: up to `bytes_max` bytes, ending before the first NUL.
fn cut(text: &[u8], bytes_max: usize) -> &[u8] {
    let text = &text[..text.len().min(bytes_max)];
    memchr::memchr(0, text).map_or(text, |end| &text[..end])
}

fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    fn written(protocol: Protocol, write: impl FnOnce(&mut ReplyWriter<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut ReplyWriter::new(&mut out, protocol));
        out
    }

    /// Lines of a file recorded from a real server, without its comments.
    fn recorded(file: &'static str) -> impl Iterator<Item = &'static str> {
        file.lines().filter(|line| !line.starts_with('#'))
    }

    /// Commands of the table that Redis 7.0.15 does not have.
    const OWN: [Command; 2] = [Command::DelIfEq, Command::Ringfort];

    /// Containers that show the key of their subcommands, which Redis 7 shows with each subcommand.
    const KEYED_CONTAINERS: [Command; 2] = [Command::Object, Command::Memory];

    #[test]
    fn command_info_is_that_of_redis() {
        let mut checked = 0;
        for line in recorded(include_str!("../tests/data/command_info.txt")) {
            let mut fields = line.splitn(3, ' ');
            let spec = lookup(fields.next().unwrap().as_bytes()).unwrap();
            let protocol = match fields.next().unwrap() {
                "2" => Protocol::Resp2,
                "3" => Protocol::Resp3,
                other => panic!("protocol {other}"),
            };
            let mut expected = fields.next().unwrap().replace("\\r\\n", "\r\n");
            let is_container = matches!(
                spec.command,
                Command::Client | Command::Cluster | Command::Command | Command::Config
            );
            if is_container {
                expected.push_str(if protocol == Protocol::Resp2 { "*0\r\n" } else { "~0\r\n" });
            }
            let answer = written(protocol, |w| {
                w.array(1);
                write_command_info(spec, w);
            });
            assert_eq!(String::from_utf8(answer).unwrap(), expected, "{}", spec.name);
            checked += 1;
        }
        assert_eq!(checked, (all().len() - OWN.len() - KEYED_CONTAINERS.len()) * 2);
    }

    #[test]
    fn command_docs_are_those_of_redis() {
        let mut checked = 0;
        for line in recorded(include_str!("../tests/data/command_docs.txt")) {
            let fields: Vec<_> = line.split('\t').collect();
            let spec = lookup(fields[0].as_bytes()).unwrap();
            assert_eq!([spec.since, spec.group, spec.summary], fields[1..], "{}", spec.name);
            checked += 1;
        }
        assert_eq!(checked, all().len() - OWN.len());
        assert_eq!(
            written(Protocol::Resp3, |w| write_command_docs(Command::Del.spec(), w)),
            b"$3\r\ndel\r\n%3\r\n$7\r\nsummary\r\n$12\r\nDelete a key\r\n$5\r\nsince\r\n$5\r\n1.0.0\r\n$5\r\ngroup\r\n$7\r\ngeneric\r\n"
        );
    }

    #[test]
    fn finds_every_command_by_name_and_by_number() {
        for spec in all() {
            assert_eq!(lookup(spec.name.as_bytes()), Some(spec));
            assert_eq!(lookup(spec.name.to_ascii_uppercase().as_bytes()), Some(spec));
            assert_eq!(Command::from_u16(spec.command as u16), Some(spec.command));
            assert_eq!((spec.command.spec(), &all()[spec.row()]), (spec, spec));
        }
        // Numbers that have a row, so that a variant without one would show.
        let known: Vec<u16> = (0..=u16::MAX).filter(|n| Command::from_u16(*n).is_some()).collect();
        assert_eq!(known, (1..=45).chain(1000..=1013).collect::<Vec<_>>());
        assert_eq!(known.len(), all().len());
    }

    #[test]
    fn finds_nothing_under_other_names() {
        for name in [&b""[..], b"ge", b"gett", b"get\0", b"\0get", b"g\xc5t", b"append append append"] {
            assert_eq!(lookup(name), None, "{}", name.escape_ascii());
        }
    }

    #[test]
    fn a_write_is_what_redis_flags_as_one() {
        for spec in all() {
            assert_eq!(spec.is_write, spec.flags.contains(&"write"), "{}", spec.name);
            assert_eq!(spec.keys == Keys::NONE, spec.key_specs.is_empty(), "{}", spec.name);
        }
    }

    #[test]
    fn only_what_a_partition_executes_has_a_number_for_the_log() {
        for spec in all() {
            assert_eq!(spec.scope == Scope::Connection, spec.command as u16 >= 1000, "{}", spec.name);
            let has_keys = spec.keys != Keys::NONE;
            assert_eq!(has_keys, matches!(spec.scope, Scope::Slot | Scope::Split), "{}", spec.name);
        }
    }

    #[test]
    fn arity_counts_the_name() {
        let get = Command::Get.spec();
        assert!(get.is_arity_ok(2) && !get.is_arity_ok(1) && !get.is_arity_ok(3));
        let set = Command::Set.spec();
        assert!(set.is_arity_ok(3) && set.is_arity_ok(9) && !set.is_arity_ok(2));
    }

    #[test]
    fn keys_stay_among_the_arguments() {
        let keys = |command: Command, argc| command.spec().keys(argc).collect::<Vec<_>>();
        assert_eq!(keys(Command::Get, 2), [1]);
        assert_eq!(keys(Command::Set, 5), [1]);
        assert_eq!(keys(Command::MGet, 4), [1, 2, 3]);
        assert_eq!(keys(Command::MSet, 5), [1, 3]);
        assert_eq!(keys(Command::MSet, 4), [1, 3]);
        assert_eq!(keys(Command::Ping, 2), []);
        for spec in all() {
            for argc in 0..4 {
                assert!(spec.keys(argc).all(|i| 0 < i && i < argc), "{} with {argc}", spec.name);
            }
        }
    }

    /// Names and arguments with the answers of redis-server 7.0.15.
    #[test]
    fn unknown_commands_are_named_as_redis_names_them() {
        let y = |n: usize| "y".repeat(n);
        let z = || "z".repeat(10);
        for (name, args, expected) in [
            ("foo", vec![], "ERR unknown command 'foo', with args beginning with: ".into()),
            ("", vec![], "ERR unknown command '', with args beginning with: ".into()),
            (
                "FoO",
                vec!["a".into(), "b".into()],
                "ERR unknown command 'FoO', with args beginning with: 'a' 'b' ".into(),
            ),
            (
                "f\r\no\0x",
                vec!["a\r\nb".into(), "c\0d".into(), String::new()],
                "ERR unknown command 'f  o', with args beginning with: 'a  b' 'c' '' ".into(),
            ),
            (
                "foo",
                vec![y(200), z()],
                format!("ERR unknown command 'foo', with args beginning with: '{}' ", y(128)),
            ),
            (
                "foo",
                vec![y(125), z()],
                format!("ERR unknown command 'foo', with args beginning with: '{}' ", y(125)),
            ),
            (
                "foo",
                vec![y(124), z()],
                format!("ERR unknown command 'foo', with args beginning with: '{}' 'z' ", y(124)),
            ),
            (
                "foo",
                vec![y(123), z()],
                format!("ERR unknown command 'foo', with args beginning with: '{}' 'zz' ", y(123)),
            ),
            (
                "foo",
                vec!["ab".into(); 60],
                format!("ERR unknown command 'foo', with args beginning with: {}", "'ab' ".repeat(26)),
            ),
        ] {
            let error = unknown_command_error(name.as_bytes(), args.iter().map(String::as_bytes));
            assert_eq!(error, expected);
        }
        let long = unknown_command_error(&[b'x'; 200], []);
        assert_eq!(long, format!("ERR unknown command '{}', with args beginning with: ", "x".repeat(128)));
    }

    #[test]
    fn other_errors_are_those_of_redis() {
        let cluster = Command::Cluster.spec();
        assert_eq!(wrong_arity_error("get"), "ERR wrong number of arguments for 'get' command");
        assert_eq!(
            unknown_subcommand_error(cluster, b"\r\nfoo"),
            "ERR unknown subcommand '  foo'. Try CLUSTER HELP."
        );
        assert_eq!(
            unknown_subcommand_error(cluster, &[b'x'; 300]),
            format!("ERR unknown subcommand '{}'. Try CLUSTER HELP.", "x".repeat(128))
        );
    }
}
