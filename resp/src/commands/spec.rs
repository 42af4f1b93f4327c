//! One row of the table, and the builder that writes rows.

use core::iter::StepBy;
use core::ops::Range;

use super::Command;
use super::errors::{unknown_subcommand_error, wrong_arity_error};

/// Who answers a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The session that holds the connection (PING, HELLO, CLIENT, COMMAND, ...).
    Connection,
    /// The partition of its key or keys, which all lie in one slot.
    Slot,
    /// Several keys that may be split by partition and joined again (MGET, MSET, DEL, UNLINK, EXISTS, TOUCH).
    Split,
    /// Every partition; the answers are joined: summed (DBSIZE), put behind one another (KEYS), and so on.
    AllPartitions,
    /// The partition of the slot that its cursor names (SCAN).
    Cursor,
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

/// What is known of one command, or of one subcommand of a container (CLIENT, CONFIG, OBJECT, ...).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandSpec {
    /// Its number; a subcommand has its container's.
    pub command: Command,
    /// Its name in lower case; of a subcommand `client|list`.
    pub name: &'static str,
    /// As in Redis: exact count of arguments, the name included (of a subcommand both names); negative: at least so many.
    pub arity: i16,
    /// Who answers it.
    pub scope: Scope,
    /// Whether it may change the keyspace: whether `write` is among the flags.
    pub is_write: bool,
    /// Redis's command flags, as COMMAND shows them.
    pub flags: &'static [&'static str],
    /// Its key positions.
    pub keys: Keys,
    /// The subcommands of a container, ordered by name; empty for every other command.
    pub subcommands: &'static [Self],
    /// The feature level that brought it: a cluster at a lower one refuses it. Of interest where a partition executes it.
    pub feature_level: u16,
    /// Redis's ACL categories without `@`, but for those that the flags imply.
    pub(super) acl: &'static [&'static str],
    /// Redis's tips for clients and proxies.
    pub(super) tips: &'static [&'static str],
    /// How it uses its keys: the flags of Redis's key specifications. The only one has the positions of `keys`; of
    /// several, each has the position of one key, in order.
    pub(super) key_flags: &'static [&'static [&'static str]],
    /// Redis's remark on the key specification.
    pub(super) key_notes: Option<&'static str>,
    pub(super) docs: Docs,
}

/// What COMMAND DOCS tells, in Redis's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Docs {
    pub(super) summary: &'static str,
    /// The version of Redis (RINGFORT: of Ringfort, DELIFEQ: of Valkey) that had it first.
    pub(super) since: &'static str,
    pub(super) group: &'static str,
    pub(super) complexity: &'static str,
    /// Since which version it is deprecated, and what replaces it.
    pub(super) deprecated: Option<(&'static str, &'static str)>,
    /// Version and change.
    pub(super) history: &'static [(&'static str, &'static str)],
    /// Its arguments; see [`super::arguments`].
    pub(super) arguments: &'static str,
}

/// A row without flags, keys and words; the functions below add them.
pub(super) const fn row(command: Command, name: &'static str, arity: i16, scope: Scope) -> CommandSpec {
    CommandSpec {
        command,
        name,
        arity,
        scope,
        is_write: false,
        flags: &[],
        keys: Keys::NONE,
        subcommands: &[],
        feature_level: 1,
        acl: &[],
        tips: &[],
        key_flags: &[],
        key_notes: None,
        docs: Docs {
            summary: "",
            since: "",
            group: "",
            complexity: "",
            deprecated: None,
            history: &[],
            arguments: "",
        },
    }
}

impl CommandSpec {
    pub(super) const fn flags(mut self, flags: &'static [&'static str]) -> Self {
        self.flags = flags;
        let mut i = 0;
        while i < flags.len() {
            self.is_write |= matches!(flags[i].as_bytes(), b"write");
            i += 1;
        }
        self
    }

    pub(super) const fn acl(mut self, categories: &'static [&'static str]) -> Self {
        self.acl = categories;
        self
    }

    pub(super) const fn tips(mut self, tips: &'static [&'static str]) -> Self {
        self.tips = tips;
        self
    }

    /// Its only key is the first argument.
    pub(super) const fn key(self, flags: &'static [&'static [&'static str]; 1]) -> Self {
        self.keys_at(1, 1, 1, flags)
    }

    pub(super) const fn keys_at(
        mut self,
        first: u16,
        last: i16,
        step: u16,
        flags: &'static [&'static [&'static str]],
    ) -> Self {
        self.keys = Keys { first, last, step };
        self.key_flags = flags;
        self
    }

    pub(super) const fn key_notes(mut self, notes: &'static str) -> Self {
        self.key_notes = Some(notes);
        self
    }

    pub(super) const fn about(
        mut self,
        group: &'static str,
        since: &'static str,
        summary: &'static str,
    ) -> Self {
        self.docs.group = group;
        self.docs.since = since;
        self.docs.summary = summary;
        self
    }

    pub(super) const fn complexity(mut self, complexity: &'static str) -> Self {
        self.docs.complexity = complexity;
        self
    }

    pub(super) const fn deprecated(mut self, since: &'static str, replaced_by: &'static str) -> Self {
        self.docs.deprecated = Some((since, replaced_by));
        self
    }

    pub(super) const fn history(mut self, history: &'static [(&'static str, &'static str)]) -> Self {
        self.docs.history = history;
        self
    }

    pub(super) const fn arguments(mut self, arguments: &'static str) -> Self {
        self.docs.arguments = arguments;
        self
    }

    pub(super) const fn subcommands(mut self, subcommands: &'static [Self]) -> Self {
        self.subcommands = subcommands;
        self
    }

    /// Whether it is refused when memory is full.
    pub fn may_need_memory(&self) -> bool {
        self.flags.contains(&"denyoom")
    }

    /// Whether `argc` arguments (the name included) fit the arity.
    pub fn is_arity_ok(&self, argc: usize) -> bool {
        let arity = usize::from(self.arity.unsigned_abs());
        if self.arity >= 0 { argc == arity } else { argc >= arity }
    }

    /// Its place in [`rows`](super::rows).
    pub fn row(&self) -> usize {
        let listed = match self.command {
            Command::SlotCount | Command::SlotKeys => Command::Cluster,
            command => command,
        };
        let container = usize::from(super::ROWS[listed as usize]);
        let subcommands = super::SPECS[container].subcommands;
        let place = subcommands.iter().position(|sub| sub.name == self.name).map_or(0, |i| i + 1);
        usize::from(super::FIRST_ROWS[container]) + place
    }

    /// Indexes of its keys among `argc` arguments (the name included), ascending; none is `argc` or above.
    pub fn keys(&self, argc: usize) -> StepBy<Range<usize>> {
        self.keys.indexes(argc)
    }

    /// The subcommand of a container, by its short name in any case.
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static Self> {
        self.subcommands.iter().find(|sub| sub.short_name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Of a subcommand what stands behind its container's name, of a command its name.
    pub fn short_name(&self) -> &'static str {
        self.name.split_once('|').map_or(self.name, |(_, short)| short)
    }

    /// The row that tells of a command with these arguments (its name not among them): its own, or its subcommand's.
    ///
    /// # Errors
    /// Redis's reply to a subcommand that does not exist or to a wrong number of arguments.
    pub fn judge<'a>(
        &'static self,
        mut args: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Result<&'static Self, String> {
        let argc = 1 + args.len();
        let mut spec = self;
        if !self.subcommands.is_empty()
            && let Some(name) = args.next()
        {
            spec = self.subcommand(name).ok_or_else(|| unknown_subcommand_error(self, name))?;
        }
        // Pairs of key and value, of which Redis checks that they are whole.
        let is_half_a_pair =
            matches!(spec.command, Command::MSet | Command::MSetNx) && argc.is_multiple_of(2);
        if !spec.is_arity_ok(argc) || is_half_a_pair {
            return Err(wrong_arity_error(spec.name));
        }
        Ok(spec)
    }

    /// Its ACL categories without `@`, in Redis's order.
    pub fn categories(&self) -> impl Iterator<Item = &'static str> {
        ACL_CATEGORIES.into_iter().filter(|category| {
            let has = |flag| self.flags.contains(&flag);
            self.acl.contains(category)
                || match *category {
                    "read" => has("readonly"),
                    "slow" => !has("fast"),
                    "dangerous" => has("admin"),
                    "write" | "admin" | "fast" | "pubsub" | "blocking" => has(category),
                    _ => false,
                }
        })
    }
}

/// All of Redis's ACL categories, in its order.
const ACL_CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];
