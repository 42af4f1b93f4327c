//! Random commands to a store and to a real `redis-server`: the replies must be equal byte for byte.
//!
//! `SEED=n cargo test -p ringfort-store --test differential` replays one run; `COMMANDS=n` makes it longer. Without `redis-server` in the path the
//! test passes with a note.
//!
//! The two have different clocks (the log time of a batch here, the moment of execution there), so no expiry lies near
//! the present, two expiries never lie near each other, and the time left may differ by a second.
//!
//! Differences on purpose: OBJECT ENCODING and REFCOUNT are compared right after a SET, because Redis also remembers how
//! a value came about; MEMORY USAGE has another size; EXPIRETIME of the last half second that a 64-bit integer can
//! express overflows in Redis. OBJECT FREQ, IDLETIME and HELP, and what 7.0.15 lacks (IFEQ, DELIFEQ), are not sent.

#[expect(dead_code, reason = "the comparison of whole clusters uses the rest")]
mod generator;
mod redis;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use generator::{Generator, Words, is_equal, shown, wall_clock_ms};
use redis::Redis;
use ringfort_resp::{Protocol, ReplyWriter};
use ringfort_ring::SLOTS;
use ringfort_store::{ApplyContext, Store};

const COMMANDS_LEN: usize = 50_000;
const FLOATS_LEN: usize = 20_000;
const BATCH_LEN: usize = 100;
/// How far the time left may differ, seconds.
const TTL_SLACK_S: i64 = 1;

/// A connection to a `redis-server`.
struct Reference {
    stream: BufReader<TcpStream>,
    _server: Redis,
}

impl Reference {
    /// `None` when there is no `redis-server`.
    fn start() -> Option<Self> {
        let server = Redis::start(&[])?;
        let stream = TcpStream::connect(server.address).expect("the server is ready");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
        Some(Self { stream: BufReader::new(stream), _server: server })
    }

    fn send(&mut self, commands: &[Words]) {
        let mut out = Vec::new();
        for words in commands {
            write!(out, "*{}\r\n", words.len()).expect("a Vec takes every write");
            for word in words {
                write!(out, "${}\r\n", word.len()).expect("a Vec takes every write");
                out.extend_from_slice(word);
                out.extend_from_slice(b"\r\n");
            }
        }
        self.stream.get_mut().write_all(&out).expect("redis-server reads");
    }

    fn reply(&mut self) -> Vec<u8> {
        let mut reply = Vec::new();
        self.stream.read_until(b'\n', &mut reply).expect("redis-server answers");
        let line = String::from_utf8_lossy(&reply[1..]);
        let number = || line.trim_end().parse::<i64>().expect("a length is a number");
        match reply[0] {
            b'$' if 0 <= number() => {
                let header_len = reply.len();
                reply.resize(header_len + number() as usize + 2, 0);
                self.stream.read_exact(&mut reply[header_len..]).expect("redis-server answers");
            }
            b'*' => {
                for _ in 0..number() {
                    let element = self.reply();
                    reply.extend(element);
                }
            }
            _ => {}
        }
        reply
    }
}

/// The store behind the checks that a session makes: known name, arity.
struct Ours {
    store: Store,
    /// Applies the same log, to be equal at any time.
    replica: Store,
    now_ms: u64,
}

impl Ours {
    /// The reply to a command; reads go through `read`, and through `apply` when `is_applied`.
    fn run(&mut self, words: &Words, is_applied: bool) -> Vec<u8> {
        let spec = ringfort_resp::commands::lookup(&words[0]).expect("a command of the table");
        let args: Vec<&[u8]> = words[1..].iter().map(|word| &word[..]).collect();
        let mut out = Vec::new();
        let mut reply = ReplyWriter::new(&mut out, Protocol::Resp2);
        let is_of_container = !spec.subcommands.is_empty();
        if !is_of_container && !spec.is_arity_ok(words.len()) {
            reply.error(&format!("ERR wrong number of arguments for '{}' command", spec.name));
        } else if spec.is_write || is_applied {
            let ctx = ApplyContext { log_time_ms: self.now_ms, seed: 0 };
            self.store.apply(&ctx, spec.command, &args, &mut reply);
            let mut other = Vec::new();
            let mut reply = ReplyWriter::new(&mut other, Protocol::Resp2);
            self.replica.apply(&ctx, spec.command, &args, &mut reply);
            assert_eq!(out, other, "a replica replies the same to {}", shown(words));
        } else {
            let mut expired = Vec::new();
            self.store.read(self.now_ms, spec.command, &args, &mut reply, &mut expired);
            assert_eq!(expired, [], "no expiry passes while the test runs");
        }
        out
    }
}

#[test]
fn random_commands_are_answered_as_redis_answers_them() {
    let Some(mut redis) = Reference::start() else {
        println!("skipped: there is no redis-server to compare with");
        return;
    };
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260_711);
    println!("SEED={seed}");
    let mut generator = Generator::alone(seed);
    let mut ours = Ours { store: Store::new(0, SLOTS - 1), replica: Store::new(0, SLOTS - 1), now_ms: 0 };
    let mut errors = 0;
    let commands_len =
        std::env::var("COMMANDS").ok().and_then(|len| len.parse().ok()).unwrap_or(COMMANDS_LEN);
    for batch in 0..commands_len / BATCH_LEN {
        let mut commands = Vec::with_capacity(2 * BATCH_LEN);
        for _ in 0..BATCH_LEN {
            commands.extend(generator.step());
        }
        redis.send(&commands);
        ours.now_ms = wall_clock_ms();
        for words in &commands {
            let (a, b) = (ours.run(words, batch % 2 == 0), redis.reply());
            assert!(
                is_equal(words, &a, &b, TTL_SLACK_S),
                "SEED={seed}, batch {batch}: {}\n ours: {}\nredis: {}",
                shown(words),
                a.escape_ascii(),
                b.escape_ascii()
            );
            errors += usize::from(b[0] == b'-');
        }
        ours.store.check_invariants();
        assert_eq!(ours.store.digest(), ours.replica.digest(), "replicas are equal");
    }
    println!("{errors} of the replies were errors");
    assert!((commands_len / 100..commands_len / 2).contains(&errors), "{errors} errors: a poor mix");
}

#[test]
fn floats_are_read_added_and_written_as_redis_does() {
    let Some(mut redis) = Reference::start() else {
        println!("skipped: there is no redis-server to compare with");
        return;
    };
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260_712);
    println!("SEED={seed}");
    let mut generator = Generator::alone(seed);
    let mut ours =
        Ours { store: Store::new(0, SLOTS - 1), replica: Store::new(0, SLOTS - 1), now_ms: wall_clock_ms() };
    let mut sums = 0;
    for batch in 0..FLOATS_LEN / BATCH_LEN {
        let mut commands = Vec::new();
        for _ in 0..BATCH_LEN {
            // Sums are added to as well as what a client set.
            if generator.random(2) == 0 {
                commands.push(vec![b"SET".to_vec(), b"k".to_vec(), generator.float()]);
            }
            commands.push(vec![b"INCRBYFLOAT".to_vec(), b"k".to_vec(), generator.float()]);
        }
        redis.send(&commands);
        for (i, words) in commands.iter().enumerate() {
            let (a, b) = (ours.run(words, false), redis.reply());
            let before = i.checked_sub(1).map_or(String::new(), |before| shown(&commands[before]));
            assert_eq!(
                a.escape_ascii().to_string(),
                b.escape_ascii().to_string(),
                "SEED={seed}, batch {batch}: {} after {before}",
                shown(words)
            );
            sums += usize::from(b[0] == b'$');
        }
    }
    println!("{sums} sums");
    assert!(FLOATS_LEN / 3 < sums, "{sums} sums: a poor mix");
}

#[test]
fn values_end_at_the_same_length() {
    let Some(mut redis) = Reference::start() else {
        println!("skipped: there is no redis-server to compare with");
        return;
    };
    let mut ours =
        Ours { store: Store::new(0, SLOTS - 1), replica: Store::new(0, SLOTS - 1), now_ms: wall_clock_ms() };
    let half = vec![b'x'; ringfort_store::VALUE_BYTES_MAX / 2];
    let append = |suffix: &[u8]| vec![b"APPEND".to_vec(), b"k".to_vec(), suffix.to_vec()];
    for words in [append(&half), append(&half), append(b"x"), append(b""), append(&half)] {
        redis.send(std::slice::from_ref(&words));
        let (a, b) = (ours.run(&words, false), redis.reply());
        assert_eq!(a.escape_ascii().to_string(), b.escape_ascii().to_string());
    }
}
