//! The judge against thousands of random, concurrent histories of a simulated server: it must not complain about a correct
//! one, whatever is pipelined, refused, cut off and done late; and must see an acknowledged write that was dropped.

use std::collections::VecDeque;

use super::history::{History, Kind, ObjectId, Operation, Outcome, Phase, Sender, Tally};
use crate::linear::{self, Op};
use crate::reply::Reply;
use crate::rng::Rng;

const CLIENTS: usize = 4;
const STEPS: usize = 400;
const SEEDS: u64 = 1_000;

/// What the server holds; like Redis, a string.
type Value = Option<String>;

#[derive(Debug)]
enum Answer {
    Ok,
    Integer(i64),
    Value(Value),
    Refused,
}

#[derive(Debug)]
struct Sent {
    operation: Operation,
    command: Vec<String>,
    answer: Option<Answer>,
}

struct Simulation {
    rng: Rng,
    now: u64,
    batches: u64,
    history: History,
    object: ObjectId,
    value: Value,
    /// By client: the batch on its way.
    sent: Vec<VecDeque<Sent>>,
    /// Commands whose connection is gone; each may still be done, once, in any order.
    adrift: Vec<Vec<String>>,
    acknowledged: u64,
    refuses: bool,
}

impl Simulation {
    fn new(kind: Kind, seed: u64) -> Self {
        let mut history = History::default();
        let object = history.add("k".to_owned(), kind);
        Self {
            rng: Rng::new(seed, kind as u64),
            now: 0,
            batches: 0,
            history,
            object,
            value: None,
            sent: (0..CLIENTS).map(|_| VecDeque::new()).collect(),
            adrift: Vec::new(),
            acknowledged: 0,
            refuses: true,
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            self.step();
        }
        for client in 0..CLIENTS {
            self.cut(client);
        }
        while !self.adrift.is_empty() && self.rng.below(4) > 0 {
            self.land();
        }
    }

    fn step(&mut self) {
        // Often no time passes between two events.
        self.now += self.rng.below(3);
        let client = self.rng.index(CLIENTS);
        if self.sent[client].is_empty() {
            return self.send(client);
        }
        match self.rng.below(40) {
            0 => self.cut(client),
            1..=2 => self.land(),
            3..=20 => self.execute(client),
            _ => self.deliver(client),
        }
    }

    fn send(&mut self, client: usize) {
        self.batches += 1;
        let by = Sender { client: client as u16, batch: self.batches };
        for _ in 0..=self.rng.below(3) {
            let mut out = Vec::new();
            let operation = if self.rng.below(2) == 0 {
                self.history.begin_read(self.object, by, self.now, &mut out)
            } else {
                self.history.begin_write(self.object, by, self.now, &mut out)
            };
            self.sent[client].push_back(Sent { operation, command: words(&out), answer: None });
        }
    }

    /// The server takes the client's next command.
    fn execute(&mut self, client: usize) {
        let is_refused = self.refuses && self.rng.below(20) == 0;
        let Some(next) = self.sent[client].iter_mut().find(|sent| sent.answer.is_none()) else { return };
        next.answer = Some(if is_refused { Answer::Refused } else { apply(&mut self.value, &next.command) });
    }

    /// The client sees its next answer.
    fn deliver(&mut self, client: usize) {
        let is_there = self.sent[client].front().is_some_and(|sent| sent.answer.is_some());
        let Some(Sent { operation, answer, .. }) = self.sent[client].pop_front_if(|_| is_there) else {
            return;
        };
        let outcome = match &answer {
            Some(Answer::Ok) => Outcome::Done(Reply::Simple(b"OK")),
            Some(Answer::Integer(n)) => Outcome::Done(Reply::Integer(*n)),
            Some(Answer::Value(value)) => Outcome::Done(view(value)),
            Some(Answer::Refused) | None => Outcome::Failed,
        };
        self.acknowledged += u64::from(operation.is_write() && matches!(outcome, Outcome::Done(_)));
        self.history.end(&operation, &outcome, self.now, Phase::Run);
    }

    /// The client's connection breaks.
    fn cut(&mut self, client: usize) {
        for Sent { operation, command, answer } in std::mem::take(&mut self.sent[client]) {
            self.history.end(&operation, &Outcome::Unknown, self.now, Phase::Run);
            if answer.is_none() {
                self.adrift.push(command);
            }
        }
    }

    /// A command whose connection is gone is done after all.
    fn land(&mut self) {
        if !self.adrift.is_empty() {
            let at = self.rng.index(self.adrift.len());
            apply(&mut self.value, &self.adrift.swap_remove(at));
        }
    }

    fn judge(mut self) -> (Tally, Vec<String>) {
        self.now += 1;
        let by = Sender { client: u16::MAX, batch: u64::MAX - 1 };
        let read = self.history.begin_read(self.object, by, self.now, &mut Vec::new());
        self.history.end(&read, &Outcome::Done(view(&self.value)), self.now + 1, Phase::Final);
        self.history.finish();
        (self.history.tally(), self.history.complaints().to_vec())
    }
}

fn view(value: &Value) -> Reply<'_> {
    value.as_ref().map_or(Reply::Null, |text| Reply::Bulk(text.as_bytes()))
}

/// Name and arguments of an encoded command without line ends in them.
fn words(bytes: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(bytes).expect("the checker sends text");
    text.split("\r\n").skip(2).step_by(2).map(str::to_owned).collect()
}

fn apply(value: &mut Value, command: &[String]) -> Answer {
    let bytes = |i: usize| command[i].clone().into_bytes();
    let op = match (command[0].as_str(), command.len()) {
        ("SET", 5) => Some(Op::SetIfEq { expected: bytes(4), value: bytes(2) }),
        ("SETNX", _) => Some(Op::SetNx(bytes(2))),
        ("GETSET", _) => Some(Op::GetSet(bytes(2))),
        ("GETDEL", _) => Some(Op::GetDel),
        ("DEL", _) => Some(Op::Del),
        ("DELIFEQ", _) => Some(Op::DelIfEq(bytes(2))),
        _ => None,
    };
    if let Some(op) = op {
        let text = |v: linear::Value| v.map(|v| String::from_utf8(v).expect("a number"));
        let (after, answer) = op.apply(&value.clone().map(String::into_bytes));
        *value = text(after);
        return match answer {
            linear::Answer::Ok => Answer::Ok,
            linear::Answer::Integer(n) => Answer::Integer(n),
            linear::Answer::Value(v) => Answer::Value(text(v)),
            linear::Answer::NotInteger => Answer::Refused,
        };
    }
    match command[0].as_str() {
        "SET" => {
            *value = Some(command[2].clone());
            Answer::Ok
        }
        "INCR" => {
            let n = value.as_ref().map_or(0, |text| text.parse().expect("a number")) + 1;
            *value = Some(n.to_string());
            Answer::Integer(n)
        }
        "APPEND" => {
            let text = value.get_or_insert_default();
            text.push_str(&command[2]);
            Answer::Integer(text.len() as i64)
        }
        _ => Answer::Value(value.clone()),
    }
}

#[test]
fn correct_histories_are_clean() {
    for kind in [Kind::Register, Kind::Counter, Kind::List, Kind::Mixed] {
        for seed in 0..SEEDS {
            let mut simulation = Simulation::new(kind, seed);
            simulation.run();
            assert!(simulation.acknowledged > 10, "{kind:?} seed {seed}");
            let (tally, complaints) = simulation.judge();
            assert_eq!(tally, Tally::default(), "{kind:?} seed {seed}: {complaints:?}");
        }
    }
}

#[test]
fn a_dropped_acknowledged_write_is_lost() {
    for kind in [Kind::Register, Kind::Counter, Kind::List] {
        for seed in 0..SEEDS {
            let mut simulation = Simulation::new(kind, seed);
            simulation.run();
            simulation.adrift.clear();
            // All is quiet, and read once: an unknown write that nobody saw might have come after the one that is dropped.
            let by = Sender { client: 0, batch: u64::MAX - 2 };
            simulation.now += 1;
            let read = simulation.history.begin_read(simulation.object, by, simulation.now, &mut Vec::new());
            let outcome = Outcome::Done(view(&simulation.value));
            simulation.history.end(&read, &outcome, simulation.now, Phase::Run);
            // One more write is acknowledged, and not done.
            let before = simulation.value.clone();
            simulation.now += 1;
            while simulation.acknowledged == 0 || simulation.value == before {
                simulation.value.clone_from(&before);
                simulation.send(0);
                let is_write = |sent: &mut Sent| sent.operation.is_write();
                let first = simulation.sent[0].pop_front_if(is_write);
                simulation.cut(0);
                simulation.adrift.clear();
                let Some(mut sent) = first else { continue };
                sent.answer = Some(apply(&mut simulation.value, &sent.command));
                simulation.sent[0].push_back(sent);
                simulation.now += 1;
                simulation.deliver(0);
            }
            simulation.value = before;
            let (tally, _) = simulation.judge();
            assert!(tally.lost > 0, "{kind:?} seed {seed}: {tally:?}");
        }
    }
}

#[test]
fn a_mixed_key_that_ends_with_what_nobody_wrote_is_seen() {
    for seed in 0..SEEDS {
        let mut simulation = Simulation::new(Kind::Mixed, seed);
        simulation.run();
        // Values are so far apart that no INCRs lead from one to the next.
        simulation.value = Some("500000".to_owned());
        let (tally, _) = simulation.judge();
        assert_eq!((tally.lost, tally.stale), (0, 1), "seed {seed}: {tally:?}");
    }
}

#[test]
fn an_increment_of_a_mixed_key_done_twice_is_seen() {
    for seed in 0..SEEDS {
        let mut simulation = Simulation::new(Kind::Mixed, seed);
        simulation.refuses = false;
        simulation.run();
        while !simulation.adrift.is_empty() {
            simulation.land();
        }
        simulation.now += 1;
        let by = Sender { client: 0, batch: u64::MAX - 2 };
        let read = simulation.history.begin_read(simulation.object, by, simulation.now, &mut Vec::new());
        let outcome = Outcome::Done(view(&simulation.value));
        simulation.history.end(&read, &outcome, simulation.now, Phase::Run);
        // Every increment that was sent has been done; then there are more than ever were asked for.
        for _ in 0..STEPS {
            apply(&mut simulation.value, &["INCR".to_owned()]);
        }
        let (tally, _) = simulation.judge();
        assert_eq!((tally.lost, tally.stale), (0, 1), "seed {seed}: {tally:?}");
    }
}

#[test]
fn a_write_done_twice_is_duplicated() {
    for seed in 0..SEEDS {
        let mut simulation = Simulation::new(Kind::List, seed);
        simulation.run();
        let text = simulation.value.clone().expect("something was appended");
        let token = &text[..super::list::TOKEN_BYTES];
        simulation.value = Some(format!("{text}{token}"));
        let (tally, _) = simulation.judge();
        assert_eq!((tally.lost, tally.duplicated), (0, 1), "seed {seed}: {tally:?}");
    }
    for seed in 0..SEEDS {
        let mut simulation = Simulation::new(Kind::Counter, seed);
        // A refusal that is cut off is unknown, and would excuse the surplus.
        simulation.refuses = false;
        simulation.run();
        // Every unknown increment lands, and then one too many.
        while !simulation.adrift.is_empty() {
            simulation.land();
        }
        apply(&mut simulation.value, &["INCR".to_owned()]);
        let (tally, _) = simulation.judge();
        assert_eq!((tally.lost, tally.duplicated), (0, 1), "seed {seed}: {tally:?}");
    }
}
