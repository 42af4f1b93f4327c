//! The core workloads of YCSB, as a Redis client can do them.
//!
//! A to E are table 2 of Cooper, Silberstein, Tam, Ramakrishnan, Sears, "Benchmarking Cloud Serving Systems with YCSB"
//! (SoCC 2010); F came later, with the YCSB distribution. A record has ten fields; a read reads all of them, an update writes
//! one of them, a scan reads 1 to 100 records that follow each other, all lengths alike. Differences:
//!
//! - A record's key is `user:` and its number, so scans follow the numbers (YCSB's numbers are hashed by default). Which
//!   record is popular is scattered all the same, but for D: [`Distribution::Scrambled`], [`Distribution::Latest`].
//! - Only E keeps the index that scans need (YCSB's Redis binding writes it in every workload).
//! - The popularity of records does not follow the inserts of the run, but for D.

use std::fmt;
use std::str::FromStr;

use ringfort_resp::reply::array_elements;

use super::keys::{Chooser, Distribution, Records, THETA};
use super::workload::{Op, Step, Template, Workload, digits, noise};
use crate::encode;
use crate::rng::Rng;

/// Fields of a record.
const FIELDS: usize = 10;
/// Records of the longest scan.
const SCAN_RECORDS_MAX: u64 = 100;
/// Names of records, before the digits.
const PREFIX: &str = "user:";
/// The sorted set of all records by number, as in YCSB's Redis binding but for the scores.
const INDEX: &[u8] = b"ycsb:index";

/// A workload, and how its records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ycsb {
    /// Which.
    pub letter: Letter,
    /// How records are kept.
    pub form: Form,
}

/// A workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letter {
    /// Update heavy: read 50 %, update 50 %.
    A,
    /// Read mostly: read 95 %, update 5 %.
    B,
    /// Read only.
    C,
    /// Read latest: read 95 %, insert 5 %.
    D,
    /// Short ranges: scan 95 %, insert 5 %.
    E,
    /// Read-modify-write: read 50 %, read and then update 50 %.
    F,
}

/// How records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// A string of all fields; an update is SETRANGE, a scan one MGET, whose keys the client knows.
    #[default]
    String,
    /// A hash, and for E a sorted set of all keys, which a scan reads first: YCSB's Redis binding.
    Hash,
}

const LETTERS: [(&str, Letter); 6] = [
    ("ycsb-a", Letter::A),
    ("ycsb-b", Letter::B),
    ("ycsb-c", Letter::C),
    ("ycsb-d", Letter::D),
    ("ycsb-e", Letter::E),
    ("ycsb-f", Letter::F),
];

impl FromStr for Letter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = LETTERS.iter().find(|(name, _)| *name == text);
        known.map(|(_, letter)| *letter).ok_or_else(|| "use ycsb-a to ycsb-f".to_owned())
    }
}

impl FromStr for Form {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "string" => Ok(Self::String),
            "hash" => Ok(Self::Hash),
            _ => Err("use string or hash".to_owned()),
        }
    }
}

impl fmt::Display for Ycsb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = LETTERS.iter().find(|(_, known)| *known == self.letter).map_or("", |(name, _)| name);
        let form = match self.form {
            Form::String => "strings",
            Form::Hash => "hashes",
        };
        write!(f, "{name} ({form})")
    }
}

/// An operation of YCSB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Update,
    Insert,
    Scan,
    ReadModifyWrite,
}

impl Letter {
    /// The commoner operation, its percentage, and the other one.
    fn operations(self) -> (Kind, u64, Kind) {
        match self {
            Self::A => (Kind::Read, 50, Kind::Update),
            Self::B => (Kind::Read, 95, Kind::Update),
            Self::C => (Kind::Read, 100, Kind::Update),
            Self::D => (Kind::Read, 95, Kind::Insert),
            Self::E => (Kind::Scan, 95, Kind::Insert),
            Self::F => (Kind::Read, 50, Kind::ReadModifyWrite),
        }
    }

    pub(super) fn has_inserts(self) -> bool {
        self.operations().2 == Kind::Insert
    }

    pub(super) fn distribution(self) -> Distribution {
        match self {
            Self::D => Distribution::Latest(THETA),
            _ => Distribution::Scrambled(THETA),
        }
    }
}

/// Writes the commands of a workload.
#[derive(Debug)]
pub(super) struct Source {
    ycsb: Ycsb,
    read: Template,
    /// For each field.
    updates: Vec<Template>,
    insert: Template,
}

impl Source {
    pub(super) fn new(ycsb: Ycsb, workload: &Workload) -> Self {
        let bytes = workload.value_bytes;
        let all = noise(workload, FIELDS * bytes);
        let name = |field: usize| format!("field{field}").into_bytes();
        let value = |field: usize| &all[field * bytes..(field + 1) * bytes];
        let (read, updates, insert) = match ycsb.form {
            Form::String => (
                "GET",
                (0..FIELDS)
                    .map(|field| {
                        let offset = (field * bytes).to_string();
                        Template::new("SETRANGE", PREFIX, 1, &[offset.as_bytes(), value(field)])
                    })
                    .collect(),
                Template::new("SET", PREFIX, 1, &[&all]),
            ),
            Form::Hash => {
                let names: Vec<_> = (0..FIELDS).map(name).collect();
                let pair = |field: usize| [names[field].as_slice(), value(field)];
                let pairs: Vec<_> = (0..FIELDS).flat_map(pair).collect();
                (
                    "HGETALL",
                    (0..FIELDS).map(|field| Template::new("HSET", PREFIX, 1, &pair(field))).collect(),
                    Template::new("HSET", PREFIX, 1, &pairs),
                )
            }
        };
        Self { ycsb, read: Template::new(read, PREFIX, 1, &[]), updates, insert }
    }

    pub(super) fn next(
        &self,
        rng: &mut Rng,
        chooser: &mut Chooser,
        records: &Records,
        out: &mut Vec<u8>,
    ) -> Op {
        let (first, percent, second) = self.ycsb.letter.operations();
        let kind = if rng.below(100) < percent { first } else { second };
        if kind == Kind::Insert {
            let number = records.take();
            return Op { last: Step::Inserted(number), ..self.insert(number, out) };
        }
        let key = chooser.choose(rng);
        match kind {
            Kind::Read => self.read.write(out, || key),
            Kind::Update => self.update(rng, key, out),
            Kind::ReadModifyWrite => {
                self.read.write(out, || key);
                return Op { more: 0, last: Step::Update(key) };
            }
            Kind::Scan | Kind::Insert => {
                return self.scan(key, 1 + rng.below(SCAN_RECORDS_MAX), records, out);
            }
        }
        Op::ONE_COMMAND
    }

    /// Appends what inserts a record.
    pub(super) fn insert(&self, number: u64, out: &mut Vec<u8>) -> Op {
        self.insert.write(out, || number);
        if self.ycsb != (Ycsb { letter: Letter::E, form: Form::Hash }) {
            return Op::ONE_COMMAND;
        }
        encode::command(out, &[b"ZADD", INDEX, &digits(number), &record(number)]);
        Op { more: 1, last: Step::Last }
    }

    /// Appends what writes one field.
    pub(super) fn update(&self, rng: &mut Rng, number: u64, out: &mut Vec<u8>) {
        self.updates[rng.index(FIELDS)].write(out, || number);
    }

    fn scan(&self, first: u64, len: u64, records: &Records, out: &mut Vec<u8>) -> Op {
        match self.ycsb.form {
            Form::String => {
                let end = records.end().max(first + 1).min(first + len);
                encode::header(out, b'*', 1 + (end - first) as usize);
                encode::bulk(out, b"MGET");
                for number in first..end {
                    encode::bulk(out, &record(number));
                }
                Op::ONE_COMMAND
            }
            Form::Hash => {
                let len = len.to_string();
                let args: [&[u8]; 7] =
                    [b"ZRANGEBYSCORE", INDEX, &digits(first), b"+inf", b"LIMIT", b"0", len.as_bytes()];
                encode::command(out, &args);
                Op { more: 0, last: Step::ReadAll }
            }
        }
    }
}

/// Appends a read of each key in the reply `keys`, an array; returns their number.
pub(super) fn read_all(keys: &[u8], out: &mut Vec<u8>) -> u32 {
    let keys = array_elements(keys).unwrap_or_default();
    for key in &keys {
        encode::header(out, b'*', 2);
        encode::bulk(out, b"HGETALL");
        out.extend_from_slice(key);
    }
    keys.len() as u32
}

/// The key of a record.
fn record(number: u64) -> Vec<u8> {
    [PREFIX.as_bytes(), &digits(number)].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::super::workload::{Commands, Generator};
    use super::*;

    const KEYS: u64 = 1000;

    fn workload(ycsb: Ycsb) -> Workload {
        Workload {
            commands: Commands::Ycsb(ycsb),
            distribution: None,
            keys: KEYS,
            value_bytes: 2,
            multi_keys: 1,
            seed: 1,
        }
    }

    fn generator(letter: Letter, form: Form) -> Generator {
        Generator::new(&workload(Ycsb { letter, form }), 0, 1, &Arc::new(Records::new(KEYS)))
    }

    /// The name of the first command of each of 10,000 operations, and how often it came, in percent.
    fn shares(letter: Letter, form: Form) -> BTreeMap<String, u32> {
        let mut generator = generator(letter, form);
        let mut shares = BTreeMap::new();
        for _ in 0..10_000 {
            let mut out = Vec::new();
            let op = generator.next(&mut out);
            let text = String::from_utf8(out).expect("ASCII");
            let name = text.split("\r\n").nth(2).expect("a name");
            let then = if matches!(op.last, Step::Update(_)) { "+update" } else { "" };
            *shares.entry(format!("{name}{then}")).or_default() += 1;
        }
        shares.values_mut().for_each(|share| *share = (*share + 50) / 100);
        shares
    }

    #[test]
    fn operations_come_in_their_shares() {
        for (letter, form, due) in [
            (Letter::A, Form::Hash, [("HGETALL", 50), ("HSET", 50)]),
            (Letter::A, Form::String, [("GET", 50), ("SETRANGE", 50)]),
            (Letter::B, Form::String, [("GET", 95), ("SETRANGE", 5)]),
            (Letter::D, Form::String, [("GET", 95), ("SET", 5)]),
            (Letter::E, Form::Hash, [("HSET", 5), ("ZRANGEBYSCORE", 95)]),
            (Letter::E, Form::String, [("MGET", 95), ("SET", 5)]),
            (Letter::F, Form::Hash, [("HGETALL", 50), ("HGETALL+update", 50)]),
        ] {
            let seen = shares(letter, form);
            assert_eq!(seen.len(), 2, "{letter:?} {seen:?}");
            for (name, percent) in due {
                assert!(seen[name].abs_diff(percent) <= 1, "{letter:?} {seen:?}");
            }
        }
        assert_eq!(shares(Letter::C, Form::Hash), BTreeMap::from([("HGETALL".to_owned(), 100)]));
    }

    fn inserted(letter: Letter, form: Form) -> String {
        let mut out = Vec::new();
        generator(letter, form).at(7, &mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn records_have_ten_fields_and_an_index_for_scans() {
        let string = inserted(Letter::A, Form::String);
        assert!(string.starts_with("*3\r\n$3\r\nSET\r\n$17\r\nuser:000000000007\r\n$20\r\n"), "{string}");
        let hash = inserted(Letter::A, Form::Hash);
        assert!(hash.starts_with("*22\r\n$4\r\nHSET\r\n$17\r\nuser:000000000007\r\n$6\r\nfield0\r\n$2\r\n"));
        assert!(!hash.contains("ZADD"));
        let indexed = inserted(Letter::E, Form::Hash);
        assert!(indexed.ends_with(
            "*4\r\n$4\r\nZADD\r\n$10\r\nycsb:index\r\n$12\r\n000000000007\r\n$17\r\nuser:000000000007\r\n"
        ));
    }

    #[test]
    fn a_scan_reads_the_records_that_the_index_named() {
        let mut out = Vec::new();
        assert_eq!(read_all(b"*2\r\n$6\r\nuser:1\r\n$6\r\nuser:2\r\n", &mut out), 2);
        assert_eq!(
            String::from_utf8(out).expect("ASCII"),
            "*2\r\n$7\r\nHGETALL\r\n$6\r\nuser:1\r\n*2\r\n$7\r\nHGETALL\r\n$6\r\nuser:2\r\n"
        );
        assert_eq!(read_all(b"*0\r\n", &mut Vec::new()), 0);
        assert_eq!(read_all(b"-ERR no\r\n", &mut Vec::new()), 0);
    }

    #[test]
    fn a_scan_of_strings_ends_with_the_records() {
        let ycsb = Ycsb { letter: Letter::E, form: Form::String };
        let source = Source::new(ycsb, &workload(ycsb));
        let mut out = Vec::new();
        assert_eq!(source.scan(KEYS - 3, 100, &Records::new(KEYS), &mut out), Op::ONE_COMMAND);
        let text = String::from_utf8(out).expect("ASCII");
        assert!(text.starts_with("*4\r\n$4\r\nMGET\r\n") && text.contains("user:000000000999"), "{text}");
    }
}
