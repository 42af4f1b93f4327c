//! Entries -> the state of a partition.
//!
//! - No entry panics; one that is malformed changes nothing.
//! - Two replicas that apply the same entries give the same answers and have the same digest, though only one of them
//!   serves reads and writes a snapshot meanwhile.
//! - A third one that begins with that snapshot has it too, at every entry behind it.
//! - Reads change no digest; the store's invariants hold.

use ringfort::meta::MetaMachine;
use ringfort::shard::machine::{PartitionMachine, ReadOutcome};
use ringfort_resp::{Command, Protocol};
use ringfort_store::{Evictor, MemoryLimit, Policy};
use ringfort_wire::entry::{EntryBuilder, Op, OpKind};
use ringfort_wire::request::CommandBody;
use std::sync::OnceLock;

use super::input::Input;

/// Last slot of the partition; few of them, because each has a table.
pub const LAST_SLOT: u16 = 63;

/// Most entries of one script.
const ENTRIES_MAX: usize = 100;

/// Runs the target. Layout: kind (1), then a script (see [`apply_script`]), or an entry as it is for each kind of group.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    if input.u8() == 0xff {
        return one_entry(input.rest());
    }
    let [mut leader, mut follower] = [(); 2].map(|()| PartitionMachine::new(0, LAST_SLOT));
    let mut evictor = Evictor::new(7);
    let mut late: Option<PartitionMachine> = None;
    let mut snapshot: Option<Vec<u8>> = None;
    for index in 1..=ENTRIES_MAX as u64 {
        if input.is_empty() {
            break;
        }
        match input.u8() % 8 {
            0 if snapshot.is_none() && late.is_none() => {
                follower.snapshot_begin();
                snapshot = Some(Vec::new());
                late = Some(restore([self::snapshot(&mut leader).as_slice()]).expect("a snapshot restores"));
            }
            1 => read(&leader, &mut input),
            _ => {}
        }
        if let Some(bytes) = &mut snapshot
            && follower.snapshot_next(64, bytes)
        {
            let of_follower = restore([bytes.as_slice()]).expect("a snapshot restores");
            of_follower.store().check_invariants();
            snapshot = None;
        }
        let entry = entry(&leader, &mut evictor, &mut input);
        let answers = apply(&mut leader, index, &entry);
        assert_eq!(apply(&mut follower, index, &entry), answers);
        if let Some(late) = &mut late {
            assert_eq!(apply(late, index, &entry), answers, "behind a snapshot");
        }
    }
    for other in [Some(&follower), late.as_ref()].into_iter().flatten() {
        assert_eq!(other.digest(), leader.digest());
        other.store().check_invariants();
    }
    leader.store().check_invariants();
}

/// Applies entries as the target does. Layout: for each a byte that is skipped, then that of [`entry`].
pub fn apply_script(machine: &mut PartitionMachine, input: &mut Input<'_>) {
    let mut evictor = Evictor::new(7);
    for index in 1..=ENTRIES_MAX as u64 {
        if input.is_empty() {
            break;
        }
        input.u8();
        let entry = entry(machine, &mut evictor, input);
        apply(machine, index, &entry);
    }
}

fn apply(machine: &mut PartitionMachine, index: u64, entry: &[u8]) -> Vec<String> {
    let mut answers = Vec::new();
    let log_time = machine.log_time_ms();
    let done = machine.apply(index, entry, |position, status| answers.push(format!("{position} {status:?}")));
    assert!(log_time <= machine.log_time_ms(), "log time never goes back");
    answers.push(format!("{done:?}"));
    answers
}

/// All of a snapshot.
pub fn snapshot(machine: &mut PartitionMachine) -> Vec<u8> {
    let mut bytes = Vec::new();
    machine.snapshot_begin();
    while !machine.snapshot_next(100, &mut bytes) {}
    bytes
}

/// Restores a snapshot that comes in pieces.
///
/// # Errors
/// It is none.
pub fn restore<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<PartitionMachine, String> {
    let mut restorer = PartitionMachine::new(0, LAST_SLOT).restorer();
    pieces.into_iter().try_for_each(|piece| restorer.push(piece))?;
    restorer.finish()
}

/// An entry for the partition and for the meta group, whatever it is.
fn one_entry(bytes: &[u8]) {
    let mut machine = PartitionMachine::new(0, LAST_SLOT);
    let before = machine.digest();
    let mut answered = 0;
    if machine.apply(1, bytes, |_, _| answered += 1).is_err() && answered == 0 {
        assert_eq!(machine.digest(), before, "a malformed entry changes nothing");
    }
    machine.store().check_invariants();
    let [mut one, mut other] = [(); 2].map(|()| MetaMachine::default());
    for meta in [&mut one, &mut other] {
        let _ = meta.apply(super::frames::first_map_entry(), |_, _| ());
        let _ = meta.apply(bytes, |_, _| ());
    }
    assert_eq!(one.digest(), other.digest());
}

/// Layout: time that passes (1), count of operations (1), operations.
fn entry(machine: &PartitionMachine, evictor: &mut Evictor, input: &mut Input<'_>) -> Vec<u8> {
    const PASSES_MS: [u64; 8] = [0, 1, 1, 10, 100, 1000, 60_000, 3_600_000];
    let mut builder = EntryBuilder::default();
    let passed = input.one_of(&PASSES_MS);
    let time = machine.log_time_ms().max(1_700_000_000_000).saturating_add(passed);
    for _ in 0..1 + input.u8() % 4 {
        let (session, seq, acked, body);
        let kind = match input.u8() {
            0..160 => {
                (session, seq, acked) = (0, 0, 0);
                body = write(input);
                OpKind::Command
            }
            160..200 => {
                // Sessions are opened by early entries: their ids are guessed.
                session = u64::from(1 + input.u8() % 4) << 16;
                seq = input.number();
                acked = seq.saturating_sub(u64::from(input.u8() % 4));
                body = write(input);
                if input.u8() < 20 { OpKind::Skip } else { OpKind::Command }
            }
            200..215 => {
                (session, seq, acked, body) = (0, 0, 0, Vec::new());
                OpKind::OpenSession
            }
            215..225 => {
                (session, seq, acked) = (0, 0, 0);
                let due = machine.store().due(time, 1);
                body = match due.first() {
                    Some(due) => [&due.expires_at_ms.to_le_bytes()[..], &due.key].concat(),
                    None => input.bytes().to_vec(),
                };
                OpKind::Expire
            }
            225..240 => {
                (session, seq, acked) = (0, 0, 0);
                let victims = machine.store().victims(evictor, 1, 1);
                body = match victims.first() {
                    Some(victim) => {
                        evictor.forget(victim.hash);
                        [&victim.digest.to_le_bytes()[..], &victim.key].concat()
                    }
                    None => input.bytes().to_vec(),
                };
                OpKind::Evict
            }
            240.. => {
                (session, seq, acked) = (0, 0, 0);
                let (_, policy) = Policy::ALL[usize::from(input.u8()) % Policy::ALL.len()];
                let [quota_bytes, samples] = [input.number(), input.number()];
                let samples = samples as u32;
                let limit = MemoryLimit { quota_bytes, policy, samples, ..MemoryLimit::default() };
                body = limit.encode().to_vec();
                OpKind::Limit
            }
        };
        builder.push(&Op { kind, session, seq, acked, body: &body });
    }
    builder.finish(time, input.number())
}

/// A command of the log: no OBJECT, which tells of the replica and not of the state.
fn write(input: &mut Input<'_>) -> Vec<u8> {
    let body = command(input);
    let is_object = CommandBody::decode(&body).is_ok_and(|body| body.command == Command::Object as u16);
    if is_object { Vec::new() } else { body }
}

/// Layout: number of the command among those that a partition executes (1), count of arguments (1), arguments.
fn command(input: &mut Input<'_>) -> Vec<u8> {
    static ALL: OnceLock<Vec<Command>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        (0..1000).filter_map(Command::from_u16).filter(|c| c.spec().keys(64).next().is_some()).collect()
    });
    let number = input.u8();
    let command = match all.get(usize::from(number) % (all.len() + 1)) {
        Some(command) => *command as u16,
        None => input.u16(), // DBSIZE, FLUSHALL, SCAN, those of connections, and unknown ones
    };
    let count = input.u8() % 12;
    let args: Vec<Vec<u8>> = (0..count).map(|_| argument(input)).collect();
    let mut body = Vec::new();
    let protocol = if number < 128 { Protocol::Resp2 } else { Protocol::Resp3 };
    CommandBody::encode(&mut body, command, protocol, args.iter());
    body
}

/// Words that are options of some command, and numbers at edges.
const WORDS: [&str; 44] = [
    "EX",
    "PX",
    "EXAT",
    "PXAT",
    "NX",
    "XX",
    "GT",
    "LT",
    "GET",
    "KEEPTTL",
    "PERSIST",
    "REPLACE",
    "DB",
    "0",
    "LEN",
    "IDX",
    "MINMATCHLEN",
    "WITHMATCHLEN",
    "MATCH",
    "COUNT",
    "TYPE",
    "string",
    "*",
    "[a-k]*",
    "ENCODING",
    "FREQ",
    "IDLETIME",
    "REFCOUNT",
    "1",
    "-1",
    "2",
    "10",
    "100",
    "60000",
    "9223372036854775807",
    "-9223372036854775808",
    "1700000000",
    "1700000060000",
    "4611686018427387904",
    "3.25",
    "-1e300",
    "inf",
    "nan",
    "",
];

/// Layout: kind (1), then what it says.
fn argument(input: &mut Input<'_>) -> Vec<u8> {
    match input.u8() {
        0..120 => key(input.u8()).to_vec(),
        120..200 => input.one_of(&WORDS).as_bytes().to_vec(),
        200..220 => input.u8().to_string().into_bytes(),
        // Offsets of megabytes only cost time.
        220..240 => vec![b'a' + input.u8() % 4; usize::from(input.u16() % 2048)],
        240.. => {
            let len = usize::from(input.u8() % 64);
            input.take(len).iter().copied().filter(|b| !b.is_ascii_digit()).collect()
        }
    }
}

/// One of a few keys whose slots are those of the partition; most in a slot with others.
fn key(n: u8) -> &'static [u8] {
    static KEYS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let keys = KEYS.get_or_init(|| {
        let tags = (0_u32..).map(|n| format!("{n}"));
        let tags = tags.filter(|tag| ringfort_ring::slot_of(tag.as_bytes()).0 <= LAST_SLOT).take(6);
        tags.flat_map(|tag| (0..4).map(move |n| format!("{{{tag}}}{n}").into_bytes())).collect()
    });
    &keys[usize::from(n) % keys.len()]
}

/// A read. Layout: time since the last entry (1), command.
fn read(machine: &PartitionMachine, input: &mut Input<'_>) {
    let before = machine.digest();
    let now_ms = machine.log_time_ms() + u64::from(input.u8()) * 100;
    let mut body = command(input);
    if input.u8() < 64 {
        CommandBody::mark_no_touch(&mut body);
    }
    let mut out = Vec::new();
    let outcome = machine.read(now_ms, 0, 0, &body, &mut out);
    assert_eq!(machine.digest(), before, "a read changes nothing");
    match outcome {
        ReadOutcome::Expired(keys) => assert!(out.is_empty() && !keys.is_empty()),
        outcome @ (ReadOutcome::Done | ReadOutcome::Refused | ReadOutcome::Large(_)) => {
            if let ReadOutcome::Large(value) = outcome {
                out.extend_from_slice(value.as_ref());
                out.extend_from_slice(b"\r\n");
            }
            let len = ringfort_resp::reply::frame_len(&out);
            assert_eq!(len, Ok(Some(out.len())), "one reply");
        }
        ReadOutcome::AwaitsWrite => panic!("it names no write"),
    }
}
