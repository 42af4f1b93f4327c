//! Which command on which key, and its bytes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ringfort_ring::slot::{Slot, slot_of};

use super::keys::{Chooser, Records};
use super::ycsb::{self, Ycsb};
use crate::encode;
use crate::rng::Rng;

pub use super::keys::Distribution;

/// Decimal digits of a key's number.
const DIGITS: usize = 12;
/// Keys are numbered below this, so that their names have one length.
pub const KEYS_MAX: u64 = 1_000_000_000_000;
/// Commands drawn at most until one is for the node in question: a node with 1 % of the keys is missed by all of them with
/// probability 10^-9 or so.
const DRAWS_MAX: u32 = 2_000;
/// Sum of the weights of a mix at most.
const WEIGHTS_MAX: u64 = 1_000_000;

/// A command of a mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `GET key:N`
    Get,
    /// `SET key:N value`
    Set,
    /// `INCR counter:N` (its own keys: the values of `key:N` are no numbers)
    Incr,
    /// `APPEND append:N value` (its own keys: they grow)
    Append,
    /// `MGET key:N ...`
    Mget,
    /// `MSET key:N value ...`
    Mset,
    /// `DEL key:N`
    Del,
}

const VERBS: [(&str, Verb); 7] = [
    ("get", Verb::Get),
    ("set", Verb::Set),
    ("incr", Verb::Incr),
    ("append", Verb::Append),
    ("mget", Verb::Mget),
    ("mset", Verb::Mset),
    ("del", Verb::Del),
];

/// Commands and their weights, such as `get=90,set=10`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix(Vec<(Verb, u64)>);

impl Mix {
    /// Nothing but `verb`.
    pub fn only(verb: Verb) -> Self {
        Self(vec![(verb, 1)])
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let Some((_, verb)) = VERBS.iter().find(|(known, _)| *known == name) else {
                return Err(format!(
                    "unknown command {name:?}: use {}",
                    VERBS.map(|(name, _)| name).join(", ")
                ));
            };
            let weight = weight.parse().map_err(|_| format!("{weight:?} is no weight: use get=90,set=10"))?;
            parts.push((*verb, weight));
        }
        let sum = parts.iter().fold(0_u64, |sum, (_, weight)| sum.saturating_add(*weight));
        if sum == 0 || sum > WEIGHTS_MAX {
            return Err(format!("the weights' sum must be from 1 to {WEIGHTS_MAX}"));
        }
        Ok(Self(parts))
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (verb, weight)) in self.0.iter().enumerate() {
            let name = VERBS.iter().find(|(_, known)| known == verb).map_or("", |(name, _)| name);
            write!(f, "{}{name}={weight}", if n > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

/// What a client sends.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Which commands.
    pub commands: Commands,
    /// How keys are chosen; `None`: as `commands` would have it.
    pub distribution: Option<Distribution>,
    /// Number of keys, `1..=KEYS_MAX`.
    pub keys: u64,
    /// Length of values (YCSB: of a field).
    pub value_bytes: usize,
    /// Keys in one MGET or MSET.
    pub multi_keys: usize,
    /// Equal seeds give equal streams of commands.
    pub seed: u64,
}

/// Which commands a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commands {
    /// Single commands, by weight.
    Mix(Mix),
    /// A workload of YCSB.
    Ycsb(Ycsb),
}

impl Commands {
    /// Whether one key's node is all that an operation needs, whatever its key.
    pub fn suits_a_cluster(&self) -> bool {
        match self {
            Self::Mix(mix) => !mix.0.iter().any(|(verb, _)| matches!(verb, Verb::Mget | Verb::Mset)),
            Self::Ycsb(ycsb) => !ycsb.letter.has_inserts(),
        }
    }
}

impl fmt::Display for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mix(mix) => mix.fmt(f),
            Self::Ycsb(ycsb) => ycsb.fmt(f),
        }
    }
}

impl Workload {
    /// How keys are chosen.
    pub fn distribution(&self) -> Distribution {
        match (self.distribution, &self.commands) {
            (Some(distribution), _) => distribution,
            (None, Commands::Mix(_)) => Distribution::Uniform,
            (None, Commands::Ycsb(ycsb)) => ycsb.letter.distribution(),
        }
    }
}

/// An operation whose first commands were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Op {
    /// Replies before the last one.
    pub(super) more: u32,
    /// What the last one means.
    pub(super) last: Step,
}

/// What a reply means for its operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is done.
    Last,
    /// The next reply belongs to it too.
    More,
    /// It is done, and a record of this number exists.
    Inserted(u64),
    /// The record is known; now it is written ([`Generator::update`]).
    Update(u64),
    /// The keys are known; now their records are read ([`Generator::read_all`]).
    ReadAll,
}

impl Op {
    pub(super) const ONE_COMMAND: Self = Self { more: 0, last: Step::Last };
}

/// Writes the commands of one client.
#[derive(Debug)]
pub(super) struct Generator {
    rng: Rng,
    chooser: Chooser,
    records: Arc<Records>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Mix {
        /// Each with the weights of itself and all before it.
        templates: Vec<(u64, Template)>,
        weights: u64,
    },
    Ycsb(ycsb::Source),
}

impl Generator {
    /// Creates the generator of client number `client` of `clients`; all share `records`.
    pub(super) fn new(workload: &Workload, client: u64, clients: u64, records: &Arc<Records>) -> Self {
        let keys = workload.keys.clamp(1, KEYS_MAX);
        let chooser = Chooser::new(workload.distribution(), keys, (client, clients), records);
        let source = match &workload.commands {
            Commands::Mix(Mix(verbs)) => {
                let mut weights = 0;
                let templates = verbs.iter().map(|&(verb, weight)| {
                    weights += weight;
                    (weights, template(verb, workload))
                });
                Source::Mix { templates: templates.collect(), weights }
            }
            Commands::Ycsb(ycsb) => Source::Ycsb(ycsb::Source::new(*ycsb, workload)),
        };
        Self { rng: Rng::new(workload.seed, client), chooser, records: Arc::clone(records), source }
    }

    /// Appends the next operation's commands.
    pub(super) fn next(&mut self, out: &mut Vec<u8>) -> Op {
        match &self.source {
            Source::Mix { templates, weights } => {
                let ticket = if templates.len() > 1 { self.rng.below(*weights) } else { 0 };
                if let Some((_, template)) = templates.iter().find(|(end, _)| ticket < *end) {
                    template.write(out, || self.chooser.choose(&mut self.rng));
                }
                Op::ONE_COMMAND
            }
            Source::Ycsb(source) => source.next(&mut self.rng, &mut self.chooser, &self.records, out),
        }
    }

    /// Appends the next operation whose key's slot is one of the client's; `None` when none was found in many draws.
    /// For operations with one key.
    pub(super) fn next_in(&mut self, out: &mut Vec<u8>, is_own: impl Fn(Slot) -> bool) -> Option<Op> {
        let start = out.len();
        for _ in 0..DRAWS_MAX {
            let op = self.next(out);
            if is_own(slot_of(first_key(&out[start..]))) {
                return Some(op);
            }
            out.truncate(start);
        }
        None
    }

    /// Appends what writes key number `key` for the first time. For mixes of one command.
    pub(super) fn at(&self, key: u64, out: &mut Vec<u8>) -> Op {
        match &self.source {
            Source::Mix { templates, .. } => {
                if let Some((_, template)) = templates.first() {
                    template.write(out, || key);
                }
                Op::ONE_COMMAND
            }
            Source::Ycsb(source) => source.insert(key, out),
        }
    }

    /// Appends the write of a read-modify-write.
    pub(super) fn update(&mut self, key: u64, out: &mut Vec<u8>) {
        if let Source::Ycsb(source) = &self.source {
            source.update(&mut self.rng, key, out);
        }
    }

    /// Appends the reads of a scan whose keys are the elements of the reply `keys`; returns their number.
    pub(super) fn read_all(&self, keys: &[u8], out: &mut Vec<u8>) -> u32 {
        match &self.source {
            Source::Ycsb(_) => ycsb::read_all(keys, out),
            Source::Mix { .. } => 0,
        }
    }

    /// An insert is over, well or not.
    pub(super) fn settle(&self, number: u64) {
        self.records.settle(number);
    }
}

/// The key of the one command in `command`, whose first key is its first argument.
pub(super) fn first_key(command: &[u8]) -> &[u8] {
    let key = command.split(|&byte| byte == b'\n').nth(4).unwrap_or_default();
    key.strip_suffix(b"\r").unwrap_or(key)
}

/// The bytes of one command but for the digits of its keys.
#[derive(Debug)]
pub(super) struct Template {
    head: Vec<u8>,
    before_digits: Vec<u8>,
    after_digits: Vec<u8>,
    keys: usize,
}

impl Template {
    /// The command `name` of `keys` times a key `prefix` and digits, followed by `args`.
    pub(super) fn new(name: &str, prefix: &str, keys: usize, args: &[&[u8]]) -> Self {
        let mut head = Vec::new();
        encode::header(&mut head, b'*', 1 + keys * (1 + args.len()));
        encode::bulk(&mut head, name.as_bytes());
        let mut before_digits = Vec::new();
        encode::header(&mut before_digits, b'$', prefix.len() + DIGITS);
        before_digits.extend_from_slice(prefix.as_bytes());
        let mut after_digits = b"\r\n".to_vec();
        for arg in args {
            encode::bulk(&mut after_digits, arg);
        }
        Self { head, before_digits, after_digits, keys }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>, mut key: impl FnMut() -> u64) {
        out.extend_from_slice(&self.head);
        for _ in 0..self.keys {
            out.extend_from_slice(&self.before_digits);
            out.extend_from_slice(&digits(key()));
            out.extend_from_slice(&self.after_digits);
        }
    }
}

fn template(verb: Verb, workload: &Workload) -> Template {
    let (name, prefix, has_value, keys) = match verb {
        Verb::Get => ("GET", "key:", false, 1),
        Verb::Set => ("SET", "key:", true, 1),
        Verb::Incr => ("INCR", "counter:", false, 1),
        Verb::Append => ("APPEND", "append:", true, 1),
        Verb::Mget => ("MGET", "key:", false, workload.multi_keys),
        Verb::Mset => ("MSET", "key:", true, workload.multi_keys),
        Verb::Del => ("DEL", "key:", false, 1),
    };
    if has_value {
        Template::new(name, prefix, keys, &[&noise(workload, workload.value_bytes)])
    } else {
        Template::new(name, prefix, keys, &[])
    }
}

/// A value: hexadecimal noise, neither all equal (a server may compress that) nor binary.
pub(super) fn noise(workload: &Workload, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(workload.seed, u64::MAX);
    (0..len).map(|_| b"0123456789abcdef"[rng.index(16)]).collect()
}

/// The twelve decimal digits of `n`.
pub(super) fn digits(mut n: u64) -> [u8; DIGITS] {
    let mut text = [b'0'; DIGITS];
    for digit in text.iter_mut().rev() {
        if n == 0 {
            break;
        }
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(mix: &str, distribution: &str) -> Workload {
        Workload {
            commands: Commands::Mix(mix.parse().expect("a mix")),
            distribution: Some(distribution.parse().expect("a distribution")),
            keys: 1000,
            value_bytes: 3,
            multi_keys: 2,
            seed: 1,
        }
    }

    fn generator(workload: &Workload) -> Generator {
        Generator::new(workload, 0, 1, &Arc::new(Records::new(workload.keys)))
    }

    fn text(mix: &str) -> String {
        let mut out = Vec::new();
        generator(&workload(mix, "sequential")).next(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn commands_have_their_bytes() {
        assert_eq!(text("get"), "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000000\r\n");
        assert_eq!(text("incr"), "*2\r\n$4\r\nINCR\r\n$20\r\ncounter:000000000000\r\n");
        let mset = text("mset");
        assert!(mset.starts_with("*5\r\n$4\r\nMSET\r\n$16\r\nkey:000000000000\r\n$3\r\n"), "{mset}");
        assert!(mset.contains("\r\n$16\r\nkey:000000000001\r\n$3\r\n"), "{mset}");
        assert_eq!(digits(KEYS_MAX - 1), *b"999999999999");
        assert_eq!(digits(1203), *b"000000001203");
    }

    #[test]
    fn commands_for_a_node_have_its_keys_only() {
        let mut generator = generator(&workload("get=1,set=1,incr=1", "uniform"));
        for _ in 0..1_000 {
            let mut out = b"before".to_vec();
            assert!(generator.next_in(&mut out, |slot| slot.0 % 3 == 1).is_some());
            let text = String::from_utf8(out).expect("ASCII");
            let key = text.split("\r\n").nth(4).expect("a key");
            assert_eq!(slot_of(key.as_bytes()).0 % 3, 1, "{text}");
        }
        let mut out = Vec::new();
        assert!(generator.next_in(&mut out, |_| false).is_none() && out.is_empty());
    }

    #[test]
    fn mixes_are_read_and_kept() {
        let workload = workload("get=90,set=10", "uniform");
        let mut generator = generator(&workload);
        let mut gets = 0;
        for _ in 0..10_000 {
            let mut out = Vec::new();
            generator.next(&mut out);
            gets += u32::from(out.starts_with(b"*2"));
        }
        assert!((8_800..9_200).contains(&gets), "{gets}");
        assert_eq!(workload.commands.to_string(), "get=90,set=10");
        for bad in ["", "get=", "foo=1", "get=0", "get=-1", "get=1,,set=2"] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }
}
