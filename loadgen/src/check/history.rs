//! What the clients did and saw, and the judgement on it. Pure: no clock, no socket; time comes in as an argument.

use std::collections::VecDeque;

use super::counter::Counter;
use super::list::{self, List};
use super::mixed::Mixed;
use super::register::Register;
use crate::reply::Reply;

/// Nanoseconds since the run began.
pub type Time = u64;

/// Complaints kept word for word; all of them are counted.
const COMPLAINTS_MAX: usize = 20;
/// Keys written last, from which half of the reads are drawn.
const RECENT_MAX: usize = 64;

/// The data type of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SET of values that are each written once.
    Register,
    /// INCR.
    Counter,
    /// APPEND of tokens that are each sent once.
    List,
    /// Compare-and-set, INCR, DEL and others.
    Mixed,
}

/// Whether the run still goes on, or a read is the last one of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// What is missing may only be an old view: stale.
    Run,
    /// What is missing is gone: lost.
    Final,
}

/// How an operation ended.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// The server answered.
    Done(Reply<'a>),
    /// The server said that it was not done.
    Failed,
    /// Nobody knows whether it was or will be done.
    Unknown,
}

/// Counted violations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Acknowledged operations whose effect is gone.
    pub lost: u64,
    /// Operations that saw an older state than one acknowledged before they began.
    pub stale: u64,
    /// Operations that took effect more often than they were sent (or although they were refused).
    pub duplicated: u64,
}

impl Tally {
    pub(super) fn missing(&mut self, phase: Phase, n: u64) {
        match phase {
            Phase::Run => self.stale += n,
            Phase::Final => self.lost += n,
        }
    }

    fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.stale += other.stale;
        self.duplicated += other.duplicated;
    }
}

/// An operation on its way: begun with [`History::begin_write`] or [`History::begin_read`], ended once with [`History::end`].
#[derive(Debug)]
pub struct Operation {
    /// The object it works on.
    pub object: ObjectId,
    is_write: bool,
    batch: u64,
    number: u32,
    floor: u64,
    invoked: Time,
}

impl Operation {
    /// Whether it writes.
    pub fn is_write(&self) -> bool {
        self.is_write
    }

    /// When it began.
    pub fn invoked(&self) -> Time {
        self.invoked
    }
}

/// One key of the server, and its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectId(u32);

/// Who sends an operation: the client, and the number of the batch it writes at once (unique over all clients).
#[derive(Debug, Clone, Copy)]
pub struct Sender {
    /// The client's number.
    pub client: u16,
    /// The batch's number.
    pub batch: u64,
}

#[derive(Debug)]
struct Object {
    key: String,
    judge: Judge,
    is_unread: bool,
}

#[derive(Debug)]
enum Judge {
    Register(Register),
    Counter(Counter),
    List(List),
    Mixed(Mixed),
}

/// The histories of all keys of a run.
#[derive(Debug, Default)]
pub struct History {
    objects: Vec<Object>,
    recent: VecDeque<ObjectId>,
    complaints: Vec<String>,
    recorded: u64,
    /// The server has shown that it does not know IFEQ and DELIFEQ.
    lacks_compare: bool,
    extra: Tally,
}

impl History {
    /// Adds a key that does not exist on the server yet.
    pub fn add(&mut self, key: String, kind: Kind) -> ObjectId {
        let id = self.objects.len() as u32;
        let judge = match kind {
            Kind::Register => Judge::Register(Register::new()),
            Kind::Counter => Judge::Counter(Counter::default()),
            Kind::List => Judge::List(List::new(id)),
            Kind::Mixed => Judge::Mixed(Mixed::new(id)),
        };
        self.objects.push(Object { key, judge, is_unread: false });
        ObjectId(id)
    }

    /// The name of the key on the server.
    pub fn key(&self, object: ObjectId) -> &str {
        &self.objects[object.0 as usize].key
    }

    /// The data type of the key.
    pub fn kind(&self, object: ObjectId) -> Kind {
        match &self.objects[object.0 as usize].judge {
            Judge::Register(_) => Kind::Register,
            Judge::Counter(_) => Kind::Counter,
            Judge::List(_) => Kind::List,
            Judge::Mixed(_) => Kind::Mixed,
        }
    }

    /// All keys.
    pub fn objects(&self) -> impl Iterator<Item = ObjectId> + use<> {
        (0..self.objects.len() as u32).map(ObjectId)
    }

    /// Whether the key has taken all the writes it should, so that a fresh one must replace it.
    pub fn is_full(&self, object: ObjectId) -> bool {
        match &self.objects[object.0 as usize].judge {
            Judge::List(list) => list.is_full(),
            Judge::Mixed(mixed) => mixed.is_full(),
            Judge::Register(_) | Judge::Counter(_) => false,
        }
    }

    /// Operations recorded so far; the memory they take is about 48 bytes each.
    pub fn recorded(&self) -> u64 {
        self.recorded
    }

    /// The `n`th of the keys written last (modulo their number).
    pub fn recent(&self, n: usize) -> Option<ObjectId> {
        if self.recent.is_empty() { None } else { self.recent.get(n % self.recent.len()).copied() }
    }

    /// The server does not know IFEQ and DELIFEQ: they are not sent any more.
    pub fn set_lacks_compare(&mut self) {
        self.lacks_compare = true;
    }

    /// Begins a write of `object` (SET, INCR, APPEND or one of many, by its kind): appends the command to `out`.
    pub fn begin_write(&mut self, object: ObjectId, by: Sender, now: Time, out: &mut Vec<u8>) -> Operation {
        self.recorded += 1;
        let Object { key, judge, .. } = &mut self.objects[object.0 as usize];
        let (number, floor) = match judge {
            Judge::Register(register) => {
                let number = register.begin_write(now);
                let value = format!("{:05x}:{number}", object.0);
                crate::encode::command(out, &[b"SET", key.as_bytes(), value.as_bytes()]);
                (number, 0)
            }
            Judge::Counter(counter) => {
                counter.begin_write();
                crate::encode::command(out, &[b"INCR", key.as_bytes()]);
                (0, counter.floor())
            }
            Judge::List(list) => {
                let floor = list.write_floor();
                let number = list.begin_write(by.client, by.batch, now);
                let token = list::encode_token(object.0, number);
                crate::encode::command(out, &[b"APPEND", key.as_bytes(), token.as_bytes()]);
                (number, floor)
            }
            Judge::Mixed(mixed) => {
                let (number, op) = mixed.begin_write(now, !self.lacks_compare);
                let (name, words) = op.words();
                let mut parts = vec![name.as_bytes(), key.as_bytes()];
                parts.extend(words);
                crate::encode::command(out, &parts);
                (number, 0)
            }
        };
        Operation { object, is_write: true, batch: by.batch, number, floor, invoked: now }
    }

    /// Begins a GET of `object`: appends the command to `out`.
    pub fn begin_read(&mut self, object: ObjectId, by: Sender, now: Time, out: &mut Vec<u8>) -> Operation {
        let Object { key, judge, .. } = &self.objects[object.0 as usize];
        crate::encode::command(out, &[b"GET", key.as_bytes()]);
        let floor = match judge {
            Judge::Register(register) => register.floor(),
            Judge::Counter(counter) => counter.floor(),
            Judge::List(list) => list.read_floor(),
            Judge::Mixed(_) => 0,
        };
        Operation { object, is_write: false, batch: by.batch, number: 0, floor, invoked: now }
    }

    /// Ends an operation; a read by its reply, if there was one.
    pub fn end(&mut self, operation: &Operation, outcome: &Outcome<'_>, now: Time, phase: Phase) {
        let Operation { object, batch, number, floor, invoked, .. } = *operation;
        let Object { key, judge, .. } = &mut self.objects[object.0 as usize];
        let complaint = match (operation.is_write, outcome) {
            (true, _) => {
                if self.recent.len() == RECENT_MAX {
                    self.recent.pop_front();
                }
                self.recent.push_back(object);
                match judge {
                    Judge::Register(register) => {
                        register.end_write(number, batch, outcome, now);
                        None
                    }
                    Judge::Counter(counter) => counter.end_write(floor, batch, outcome),
                    Judge::List(list) => list.end_write(number, floor, outcome, now),
                    Judge::Mixed(mixed) => {
                        mixed.end_write(number, outcome, now);
                        None
                    }
                }
            }
            (false, Outcome::Done(reply)) => match judge {
                Judge::Register(register) => {
                    let value = register_value(*reply, object);
                    register.end_read(value, (floor, batch, invoked, now), phase)
                }
                Judge::Counter(counter) => counter.end_read(counter_value(*reply), floor, batch, phase),
                Judge::List(list) => list.end_read(list_value(*reply), (floor, batch, invoked), phase),
                Judge::Mixed(mixed) => {
                    mixed.end_read(*reply, invoked, now, phase);
                    None
                }
            },
            (false, Outcome::Failed | Outcome::Unknown) => None,
        };
        if let Some(text) = complaint {
            let text = format!("{:.3} s: {key}: {text}", now as f64 / 1e9);
            self.complain(text);
        }
    }

    /// Whether this reply to a read would, as the last one of its key, mean that something is lost. Such a read is worth
    /// repeating once: when the second one is in order, the first was only stale.
    pub fn would_lose(&self, operation: &Operation, reply: Reply<'_>) -> bool {
        let Operation { object, batch, floor, invoked, .. } = *operation;
        match &self.objects[object.0 as usize].judge {
            Judge::Register(register) => register.is_older(register_value(reply, object), floor, batch),
            Judge::Counter(counter) => counter.is_below(counter_value(reply), floor, batch),
            Judge::List(list) => list.lacks_something(list_value(reply), floor, batch, invoked),
            // Its whole history is judged at once.
            Judge::Mixed(_) => false,
        }
    }

    /// Notes that the last read of a key lacked something which a later one showed.
    pub fn set_stale_at_end(&mut self, object: ObjectId) {
        self.extra.stale += 1;
        let text = format!("at the end: {}: a read was stale, the next one in order", self.key(object));
        self.complain(text);
    }

    /// Notes that the last read of a key could not be had.
    pub fn set_unread(&mut self, object: ObjectId) {
        self.objects[object.0 as usize].is_unread = true;
    }

    /// Keys of which nothing is known: the last read could not be had, or the history not be decided.
    pub fn unread(&self) -> u64 {
        self.objects.iter().filter(|object| object.is_unread).count() as u64
    }

    /// Judges what only the whole history shows. Call once, after the last reads.
    pub fn finish(&mut self) {
        let mut complaints = Vec::new();
        for Object { key, judge, is_unread } in &mut self.objects {
            let complaint = match judge {
                Judge::Register(register) => register.finish(),
                Judge::Counter(counter) => counter.finish(),
                Judge::List(_) => None,
                Judge::Mixed(mixed) => mixed.finish().unwrap_or_else(|undecided| {
                    *is_unread = true;
                    Some(undecided)
                }),
            };
            complaints.extend(complaint.map(|text| format!("at the end: {key}: {text}")));
        }
        for complaint in complaints {
            self.complain(complaint);
        }
    }

    /// The violations found so far, over all keys.
    pub fn tally(&self) -> Tally {
        let mut sum = self.extra;
        for object in &self.objects {
            sum.add(match &object.judge {
                Judge::Register(register) => register.tally(),
                Judge::Counter(counter) => counter.tally(),
                Judge::List(list) => list.tally(),
                Judge::Mixed(mixed) => mixed.tally(),
            });
        }
        sum
    }

    /// The first complaints, in words.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    fn complain(&mut self, text: String) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(text);
        }
    }
}

/// The number of a register's value: 0 for a missing key, `None` for a value of nobody's.
fn register_value(reply: Reply<'_>, object: ObjectId) -> Option<u32> {
    match reply {
        Reply::Null => Some(0),
        Reply::Bulk(bytes) => {
            let (owner, number) = std::str::from_utf8(bytes).ok()?.split_once(':')?;
            let is_own = u32::from_str_radix(owner, 16) == Ok(object.0);
            number.parse().ok().filter(|&number| is_own && number > 0)
        }
        _ => None,
    }
}

fn counter_value(reply: Reply<'_>) -> Option<u64> {
    match reply {
        Reply::Null => Some(0),
        Reply::Bulk(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        _ => None,
    }
}

fn list_value(reply: Reply<'_>) -> &[u8] {
    match reply {
        Reply::Null => b"",
        Reply::Bulk(bytes) => bytes,
        _ => b"no string",
    }
}
