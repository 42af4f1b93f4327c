//! Known-bad histories are caught, each as what it is; good ones with every excuse the rules allow pass.

use super::history::{History, Kind, ObjectId, Operation, Outcome, Phase, Sender, Tally, Time};
use super::list::encode_token;
use super::{Failure, classify};
use crate::reply::Reply;

/// One key and a clock that the test moves.
struct Script {
    history: History,
    object: ObjectId,
    batch: u64,
}

const CLEAN: Tally = Tally { lost: 0, stale: 0, duplicated: 0 };

fn lost(n: u64) -> Tally {
    Tally { lost: n, ..CLEAN }
}

fn stale(n: u64) -> Tally {
    Tally { stale: n, ..CLEAN }
}

fn duplicated(n: u64) -> Tally {
    Tally { duplicated: n, ..CLEAN }
}

impl Script {
    fn new(kind: Kind) -> Self {
        let mut history = History::default();
        let object = history.add("k".to_owned(), kind);
        Self { history, object, batch: 0 }
    }

    fn sender(&mut self, client: u16) -> Sender {
        self.batch += 1;
        Sender { client, batch: self.batch }
    }

    fn begin_write(&mut self, now: Time) -> Operation {
        let by = self.sender(0);
        self.history.begin_write(self.object, by, now, &mut Vec::new())
    }

    fn begin_read(&mut self, now: Time) -> Operation {
        let by = self.sender(1);
        self.history.begin_read(self.object, by, now, &mut Vec::new())
    }

    fn end(&mut self, operation: &Operation, outcome: Outcome<'_>, now: Time) {
        self.history.end(operation, &outcome, now, Phase::Run);
    }

    fn write(&mut self, times: (Time, Time), outcome: Outcome<'_>) {
        let operation = self.begin_write(times.0);
        self.end(&operation, outcome, times.1);
    }

    fn read(&mut self, times: (Time, Time), value: &str) {
        let operation = self.begin_read(times.0);
        self.end(&operation, Outcome::Done(bulk(value)), times.1);
    }

    fn finish(mut self, now: Time, value: &str) -> Tally {
        let operation = self.begin_read(now);
        self.history.end(&operation, &Outcome::Done(bulk(value)), now + 1, Phase::Final);
        self.judge()
    }

    fn judge(mut self) -> Tally {
        self.history.finish();
        let tally = self.history.tally();
        assert_eq!(tally == CLEAN, self.history.complaints().is_empty(), "{:?}", self.history.complaints());
        tally
    }
}

/// The empty text stands for the missing key.
fn bulk(value: &str) -> Reply<'_> {
    if value.is_empty() { Reply::Null } else { Reply::Bulk(value.as_bytes()) }
}

fn ok() -> Outcome<'static> {
    Outcome::Done(Reply::Simple(b"OK"))
}

fn int(n: i64) -> Outcome<'static> {
    Outcome::Done(Reply::Integer(n))
}

fn tokens(numbers: &[u32]) -> String {
    numbers.iter().map(|&n| encode_token(0, n)).collect()
}

// Registers

#[test]
fn register_in_order_is_clean() {
    let mut script = Script::new(Kind::Register);
    script.read((1, 2), "");
    script.write((3, 4), ok());
    script.read((5, 6), "00000:1");
    script.write((7, 8), ok());
    assert_eq!(script.finish(10, "00000:2"), CLEAN);
}

#[test]
fn register_read_before_the_acknowledged_write_is_stale() {
    let mut script = Script::new(Kind::Register);
    script.write((1, 2), ok());
    script.write((3, 4), ok());
    script.read((5, 6), "00000:1");
    assert_eq!(script.finish(10, "00000:2"), stale(1));
}

#[test]
fn register_missing_after_an_acknowledged_write_is_stale_then_lost() {
    let mut script = Script::new(Kind::Register);
    script.write((1, 2), ok());
    script.read((3, 4), "");
    assert_eq!(script.finish(10, ""), Tally { lost: 1, stale: 1, duplicated: 0 });
}

#[test]
fn register_that_ends_at_an_older_value_lost_a_write() {
    let mut script = Script::new(Kind::Register);
    script.write((1, 2), ok());
    script.write((3, 4), ok());
    assert_eq!(script.finish(10, "00000:1"), lost(1));
}

#[test]
fn register_read_concurrent_with_a_write_may_see_either() {
    let mut script = Script::new(Kind::Register);
    script.write((1, 2), ok());
    let write = script.begin_write(3);
    script.read((4, 5), "00000:1");
    script.read((6, 7), "00000:2");
    script.end(&write, ok(), 8);
    assert_eq!(script.finish(10, "00000:2"), CLEAN);
}

#[test]
fn register_may_take_an_unknown_write_late_once() {
    let mut script = Script::new(Kind::Register);
    script.write((1, 2), Outcome::Unknown);
    script.write((3, 4), ok());
    script.read((5, 6), "00000:2");
    script.read((7, 8), "00000:1");
    assert_eq!(script.finish(10, "00000:1"), CLEAN);
}

#[test]
fn register_must_not_return_to_an_unknown_write_that_was_seen_before_a_newer_one() {
    let mut script = Script::new(Kind::Register);
    script.write((1, 2), Outcome::Unknown);
    script.read((3, 4), "00000:1");
    script.write((5, 6), ok());
    script.read((7, 8), "00000:1");
    assert_eq!(script.finish(10, "00000:2"), stale(1));
}

#[test]
fn register_that_flips_between_concurrent_writes_is_found_at_the_end() {
    let mut script = Script::new(Kind::Register);
    let (one, two) = (script.begin_write(1), script.begin_write(1));
    for (start, value) in [(2, "00000:1"), (4, "00000:2"), (6, "00000:1")] {
        script.read((start, start + 1), value);
    }
    script.end(&one, ok(), 8);
    script.end(&two, ok(), 8);
    assert_eq!(script.finish(10, "00000:1"), stale(1));
}

#[test]
fn register_read_must_see_its_own_connections_earlier_write() {
    let mut script = Script::new(Kind::Register);
    script.write((1, 2), ok());
    let by = script.sender(0);
    let write = script.history.begin_write(script.object, by, 3, &mut Vec::new());
    let read = script.history.begin_read(script.object, by, 3, &mut Vec::new());
    script.end(&write, ok(), 4);
    script.end(&read, Outcome::Done(bulk("00000:1")), 5);
    assert_eq!(script.finish(10, "00000:2"), stale(1));
}

#[test]
fn register_shows_a_refused_write_and_foreign_values() {
    let mut script = Script::new(Kind::Register);
    script.write((1, 2), Outcome::Failed);
    assert_eq!(script.finish(10, "00000:1"), duplicated(1));
    for value in ["00000:7", "00001:1", "rubbish"] {
        let mut script = Script::new(Kind::Register);
        script.write((1, 2), ok());
        assert_eq!(script.finish(10, value), lost(1), "{value}");
    }
}

// Counters

#[test]
fn counter_in_order_is_clean_and_excuses_unknown_increments() {
    let mut script = Script::new(Kind::Counter);
    script.write((1, 2), int(1));
    script.write((3, 4), Outcome::Unknown);
    script.write((5, 6), Outcome::Unknown);
    script.write((7, 8), int(3));
    script.read((9, 10), "3");
    script.read((11, 12), "4");
    assert_eq!(script.finish(20, "4"), CLEAN);
}

#[test]
fn counter_one_below_lost_an_increment() {
    let mut script = Script::new(Kind::Counter);
    script.write((1, 2), int(1));
    script.write((3, 4), int(2));
    assert_eq!(script.finish(10, "1"), lost(1));
}

#[test]
fn counter_one_above_duplicated_an_increment() {
    let mut script = Script::new(Kind::Counter);
    script.write((1, 2), int(1));
    script.write((3, 4), Outcome::Failed);
    assert_eq!(script.finish(10, "2"), duplicated(1));
}

#[test]
fn counter_reply_seen_twice_lost_an_increment() {
    let mut script = Script::new(Kind::Counter);
    let (one, two) = (script.begin_write(1), script.begin_write(1));
    script.end(&one, int(1), 2);
    script.end(&two, int(1), 3);
    assert_eq!(script.finish(10, "1"), lost(1), "by the reply and by the end, but counted once");
}

#[test]
fn counter_gap_without_an_unknown_increment_is_a_duplicate() {
    let mut script = Script::new(Kind::Counter);
    script.write((1, 2), int(1));
    script.write((3, 4), int(3));
    assert_eq!(script.finish(10, "3"), duplicated(1));
}

#[test]
fn counter_that_falls_back_lost_increments() {
    let mut script = Script::new(Kind::Counter);
    for n in 1..=5 {
        script.write((n * 10, n * 10 + 1), int(n as i64));
    }
    script.write((100, 101), int(3));
    assert_eq!(script.finish(200, "3"), lost(3));
}

#[test]
fn counter_read_below_an_acknowledged_value_is_stale() {
    let mut script = Script::new(Kind::Counter);
    script.write((1, 2), int(1));
    script.read((3, 4), "");
    assert_eq!(script.finish(10, "1"), stale(1));
}

#[test]
fn counter_must_not_forget_an_unknown_increment_that_was_read() {
    let mut script = Script::new(Kind::Counter);
    script.write((1, 2), Outcome::Unknown);
    script.read((3, 4), "1");
    assert_eq!(script.finish(10, ""), lost(1));
}

#[test]
fn counter_with_no_number_lost_its_value() {
    let mut script = Script::new(Kind::Counter);
    script.write((1, 2), int(1));
    assert_eq!(script.finish(10, "x"), lost(1));
}

// Lists

/// Three acknowledged appends, one after the other.
fn list_of_three() -> Script {
    let mut script = Script::new(Kind::List);
    for n in 1..=3 {
        script.write((n * 10, n * 10 + 1), int(n as i64 * 9));
    }
    script
}

#[test]
fn list_in_order_is_clean() {
    let mut script = list_of_three();
    script.read((50, 51), &tokens(&[0, 1, 2]));
    assert_eq!(script.finish(60, &tokens(&[0, 1, 2])), CLEAN);
}

#[test]
fn list_without_an_acknowledged_append_is_lost_at_the_end_and_stale_before() {
    assert_eq!(list_of_three().finish(60, &tokens(&[0, 1])), lost(1));
    assert_eq!(list_of_three().finish(60, ""), lost(3));
    let mut script = list_of_three();
    script.read((50, 51), &tokens(&[0, 1]));
    assert_eq!(script.finish(60, &tokens(&[0, 1, 2])), stale(1));
}

#[test]
fn list_with_an_append_twice_is_duplicated() {
    assert_eq!(list_of_three().finish(60, &tokens(&[0, 1, 1, 2])), duplicated(1));
    let mut script = Script::new(Kind::List);
    script.write((1, 2), Outcome::Unknown);
    assert_eq!(script.finish(60, &tokens(&[0, 0])), duplicated(1));
}

#[test]
fn list_reply_that_is_too_long_or_too_short_is_caught_at_once() {
    let mut script = Script::new(Kind::List);
    script.write((1, 2), int(18));
    assert_eq!(script.judge(), duplicated(1));
    let mut script = list_of_three();
    script.write((50, 51), int(27));
    assert_eq!(script.judge(), lost(1));
}

#[test]
fn list_may_take_an_unknown_append_late_or_never() {
    for end in [&[1, 0][..], &[0, 1], &[1]] {
        let mut script = Script::new(Kind::List);
        script.write((1, 2), Outcome::Unknown);
        let place = end.iter().position(|&n| n == 1).expect("it is there") as i64;
        script.write((3, 4), int((place + 1) * 9));
        assert_eq!(script.finish(60, &tokens(end)), CLEAN, "{end:?}");
    }
}

#[test]
fn list_shows_a_refused_append() {
    let mut script = Script::new(Kind::List);
    script.write((1, 2), Outcome::Failed);
    assert_eq!(script.finish(60, &tokens(&[0])), duplicated(1));
}

#[test]
fn list_out_of_order_is_stale() {
    assert_eq!(list_of_three().finish(60, &tokens(&[1, 0, 2])), stale(1));
}

#[test]
fn list_appends_of_one_connection_keep_their_order() {
    let mut script = Script::new(Kind::List);
    let by = script.sender(0);
    let [one, two] = [0; 2].map(|_| script.history.begin_write(script.object, by, 1, &mut Vec::new()));
    script.end(&one, int(18), 2);
    script.end(&two, int(9), 3);
    assert_eq!(script.finish(60, &tokens(&[1, 0])), stale(1));
}

#[test]
fn list_that_forgets_what_it_showed_is_lost() {
    let mut script = Script::new(Kind::List);
    let unknown = [script.begin_write(1), script.begin_write(1)];
    for operation in &unknown {
        script.end(operation, Outcome::Unknown, 2);
    }
    script.read((3, 4), &tokens(&[0]));
    assert_eq!(script.finish(60, &tokens(&[1])), lost(1));
}

#[test]
fn list_torn_or_foreign_is_lost() {
    for value in ["00000000;0000", "00001000;", "00000fff;", "rubbish"] {
        assert_eq!(list_of_three().finish(60, value), lost(1), "{value}");
    }
}

#[test]
fn would_lose_agrees_with_the_final_judgement() {
    for (value, is_loss) in [(tokens(&[0, 1]), true), (tokens(&[0, 1, 2]), false), (String::new(), true)] {
        let mut script = list_of_three();
        let read = script.begin_read(50);
        assert_eq!(script.history.would_lose(&read, bulk(&value)), is_loss);
        assert_eq!(script.finish(60, &value).lost > 0, is_loss);
    }
}

#[test]
fn error_replies_are_classified_by_prefix() {
    let table = [
        ("CLUSTERDOWN The cluster is down", Failure::NotDone),
        ("MOVED 1 127.0.0.1:1", Failure::NotDone),
        ("ERR max number of clients reached", Failure::NotDone),
        ("OOM command not allowed", Failure::NotDone),
        ("ERR outcome unknown: no answer in time", Failure::Unknown),
        ("ERR something else", Failure::Unexpected),
        ("WRONGTYPE", Failure::Unexpected),
    ];
    for (text, failure) in table {
        assert_eq!(classify(text.as_bytes()), failure, "{text}");
    }
}
