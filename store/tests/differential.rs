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

use std::{
    io::{BufRead, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command as Process, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ringfort_resp::{Protocol, ReplyWriter};
use ringfort_ring::SLOTS;
use ringfort_store::{ApplyContext, Store};

const COMMANDS_LEN: usize = 50_000;
const FLOATS_LEN: usize = 20_000;
const BATCH_LEN: usize = 100;
const KEYS_LEN: u64 = 40;
/// How far the time left may differ.
const TTL_SLACK_MS: i64 = 1000;
const TTL_SLACK_S: i64 = 1;

/// A `redis-server` of this test's own; ends with it.
struct Redis {
    process: Child,
    dir: PathBuf,
    stream: BufReader<TcpStream>,
}

impl Redis {
    /// Starts a server on a free port; `None` when there is no `redis-server`.
    fn start() -> Option<Self> {
        // The free port may be taken by somebody else before the server binds it.
        (0..5).find_map(|_| match Self::try_start() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(None),
            Err(_) => None,
            Ok(redis) => Some(Some(redis)),
        })?
    }

    fn try_start() -> std::io::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let dir = std::env::temp_dir().join(format!("ringfort-store-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let mut process = Process::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--proto-max-bulk-len", "32mb", "--databases", "1", "--daemonize", "no", "--logfile", ""])
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        // The log ends when the server does, so this waits neither blindly nor for ever.
        let log = BufReader::new(process.stdout.take().expect("standard output is piped"));
        let is_ready = log.lines().map_while(Result::ok).any(|line| line.contains("Ready to accept"));
        let stream = if is_ready { TcpStream::connect(("127.0.0.1", port)) } else { Err(refused()) };
        match stream {
            Ok(stream) => {
                stream.set_read_timeout(Some(Duration::from_secs(30)))?;
                Ok(Self { process, dir, stream: BufReader::new(stream) })
            }
            Err(error) => {
                process.kill()?;
                process.wait()?;
                Err(error)
            }
        }
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

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn refused() -> std::io::Error {
    std::io::Error::from(std::io::ErrorKind::ConnectionRefused)
}

/// A command with its arguments.
type Words = Vec<Vec<u8>>;

/// A seeded generator of commands (SplitMix64).
struct Generator {
    state: u64,
    base_s: u64,
    made: u64,
}

impl Generator {
    fn random(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random(of.len() as u64) as usize]
    }

    fn key(&mut self) -> Vec<u8> {
        format!("key:{}", self.random(KEYS_LEN)).into_bytes()
    }

    /// A name or an option in random case.
    fn cased(&mut self, name: &str) -> Vec<u8> {
        match self.random(3) {
            0 => name.to_ascii_lowercase().into_bytes(),
            1 => name.bytes().map(|b| if self.random(2) == 0 { b.to_ascii_lowercase() } else { b }).collect(),
            _ => name.as_bytes().to_vec(),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        match self.random(8) {
            0 => Vec::new(),
            1 | 2 => self.number(),
            3 => (0..self.random(300)).map(|_| self.random(256) as u8).collect(),
            _ => format!("value {}", self.random(1000)).into_bytes(),
        }
    }

    /// Numbers, edges of numbers, and what only looks like numbers.
    fn number(&mut self) -> Vec<u8> {
        const ODD: [&[u8]; 32] = [
            b"0",
            b"1",
            b"-1",
            b"-0",
            b"+1",
            b"01",
            b"-01",
            b" 1",
            b"1 ",
            b"",
            b"-",
            b"1.0",
            b"1e3",
            b"0x10",
            b"abc",
            b"1\0",
            b"\0",
            b"1\r\n",
            b"9223372036854775807",
            b"9223372036854775808",
            b"-9223372036854775808",
            b"-9223372036854775809",
            b"9223372036854775",
            b"9223372036854776",
            b"-9223372036854775",
            b"-9223372036854776",
            b"18446744073709551616",
            b"9223372036854774807",
            b"99999999999999999999999",
            b"00",
            b"nan",
            b"--1",
        ];
        match self.random(3) {
            0 => self.one_of(&ODD).to_vec(),
            1 => (self.random(2_000_000) as i64 - 1_000_000).to_string().into_bytes(),
            _ => self.random(10).to_string().into_bytes(),
        }
    }

    /// Seconds from now that no other expiry of the run comes near to.
    fn left_s(&mut self) -> u64 {
        self.made += 1;
        100_000 + 100 * (self.made * 7919 % 100_003)
    }

    /// An amount for a relative expiry in units of 1/`per_s` seconds.
    fn relative(&mut self, per_s: u64) -> Vec<u8> {
        match self.random(10) {
            0 => self.far_number(),
            1 => format!("-{}", self.random(100_000)).into_bytes(),
            2 => b"0".to_vec(),
            _ => (self.left_s() * per_s).to_string().into_bytes(),
        }
    }

    /// An absolute expiry in units of 1/`per_s` seconds.
    fn absolute(&mut self, per_s: u64) -> Vec<u8> {
        match self.random(10) {
            0 => self.far_number(),
            1 => format!("-{}", self.random(100_000)).into_bytes(),
            2 => self.random(1_000_000_000).to_string().into_bytes(),
            _ => ((self.base_s + self.left_s() + 50) * per_s).to_string().into_bytes(),
        }
    }

    /// A number that as an expiry is an error, negative, or millions of years away.
    fn far_number(&mut self) -> Vec<u8> {
        loop {
            let number = self.number();
            // Little positive ones would expire while the test runs.
            let little: Option<i64> = std::str::from_utf8(&number).ok().and_then(|text| text.parse().ok());
            if !little.is_some_and(|n| 0 < n && n < 9_000_000_000_000_000) {
                return number;
            }
        }
    }

    fn set_options(&mut self, words: &mut Words) {
        for _ in 0..self.one_of(&[0, 0, 0, 1, 1, 1, 1, 2, 2, 3]) {
            let option =
                self.one_of(&["NX", "XX", "GET", "EX", "PX", "EXAT", "PXAT", "KEEPTTL", "PERSIST", "BAD"]);
            words.push(self.cased(option));
            let number = match option {
                "EX" => self.relative(1),
                "PX" => self.relative(1000),
                "EXAT" => self.absolute(1),
                "PXAT" => self.absolute(1000),
                _ => continue,
            };
            if self.random(50) != 0 {
                words.push(number);
            }
        }
        self.spoil(words);
    }

    fn expire_options(&mut self, words: &mut Words) {
        for _ in 0..self.one_of(&[0, 0, 1, 1, 1, 2, 3]) {
            let option = self.one_of(&["NX", "XX", "XX", "GT", "GT", "LT", "LT"]);
            words.push(self.cased(option));
        }
        self.spoil(words);
    }

    fn getex_options(&mut self, words: &mut Words) {
        for _ in 0..self.one_of(&[0, 1, 1, 1, 1, 2]) {
            let option = self.one_of(&[
                "EX", "PX", "EXAT", "PXAT", "EX", "PX", "EXAT", "PXAT", "PERSIST", "KEEPTTL", "NX",
            ]);
            words.push(self.cased(option));
            let number = match option {
                "EX" => self.relative(1),
                "PX" => self.relative(1000),
                "EXAT" => self.absolute(1),
                "PXAT" => self.absolute(1000),
                _ => continue,
            };
            if self.random(50) != 0 {
                words.push(number);
            }
        }
        self.spoil(words);
    }

    fn lcs_options(&mut self, words: &mut Words) {
        for _ in 0..self.random(4) {
            let option = self.one_of(&["LEN", "IDX", "IDX", "MINMATCHLEN", "WITHMATCHLEN"]);
            words.push(self.cased(option));
            if option == "MINMATCHLEN" && self.random(50) != 0 {
                words.push(self.number());
            }
        }
        self.spoil(words);
    }

    fn copy_options(&mut self, words: &mut Words) {
        for _ in 0..self.one_of(&[0, 0, 1, 1, 1, 2]) {
            let option = self.one_of(&["REPLACE", "REPLACE", "DB"]);
            words.push(self.cased(option));
            if option == "DB" && self.random(20) != 0 {
                words.push(if self.random(2) == 0 { b"0".to_vec() } else { self.number() });
            }
        }
        self.spoil(words);
    }

    /// A place in a string, from the front or from the end, or far away.
    fn index(&mut self) -> Vec<u8> {
        match self.random(8) {
            0 => self.number(),
            _ => (self.random(40) as i64 - 20).to_string().into_bytes(),
        }
    }

    fn digits(&mut self, len_max: u64, of: &[u8]) -> String {
        (0..self.random(len_max + 1)).map(|_| char::from(self.one_of(of))).collect()
    }

    /// Decimal and hexadecimal numbers of every size, edges of the format, and what only looks like a number.
    fn float(&mut self) -> Vec<u8> {
        const ODD: [&str; 40] = [
            "inf",
            "-inf",
            "+Infinity",
            "INF",
            "infinit",
            "nan",
            "-nan",
            "nan(1)",
            "",
            "-",
            "+",
            ".",
            "-.",
            "1e",
            "1e+",
            "1.e1",
            ".e1",
            "0x",
            "0x.",
            "0x1p",
            "0X1P1",
            "0x.8",
            " 1",
            "1 ",
            "1\0",
            "1,5",
            "--1",
            "+-1",
            "1e4932",
            "-1e4932",
            "1.2e4932",
            "1e4933",
            "1e-4950",
            "1e-4951",
            "1e-5000",
            "0e99999",
            "1e99999999999999999999",
            "-0",
            "0x1p-16445",
            "0x1p-16446",
        ];
        let sign = self.one_of(&["", "", "-", "+"]);
        let text = match self.random(12) {
            0 => return self.one_of(&ODD).as_bytes().to_vec(),
            1 => return self.number(),
            2 => {
                let (whole, rest) =
                    (self.digits(20, b"0123456789abcdefABCDEF"), self.digits(40, b"0123456789abcdef"));
                let exponent = self.random(200) as i64 - 100;
                format!("{sign}0x{whole}.{rest}p{exponent}")
            }
            3 => {
                let (whole, rest) = (self.digits(3, b"0123456789"), self.digits(30, b"0123456789"));
                let exponent = self.random(10_200) as i64 - 5100;
                format!("{sign}{whole}.{rest}e{exponent}")
            }
            4 => {
                let (whole, rest) = (self.digits(5, b"0123456789"), self.digits(5, b"0123456789"));
                let exponent = self.random(60) as i64 - 30;
                format!("{sign}{whole}.{rest}E{exponent:+}")
            }
            // Near the powers of two, where the next number is twice as far on one side.
            5 => {
                let power = 1_u128 << self.random(100);
                format!("{sign}{}", power + u128::from(self.random(5)) - u128::from(self.random(2)))
            }
            // Long enough that a rest decides, and longer than Redis reads.
            6 if self.random(10) == 0 => format!("{sign}{}.5", self.digits(5200, b"09")),
            6 | 7 => format!("{sign}{}.{}", self.digits(25, b"0123456789"), self.digits(25, b"0123456789")),
            8 => format!("{sign}{}.{}", self.random(10), self.digits(20, b"09")),
            _ => format!("{sign}{}.{}", self.random(1000), self.random(1000)),
        };
        text.into_bytes()
    }

    /// Now and then adds an argument that is wrong, or right but for a zero byte.
    fn spoil(&mut self, words: &mut Words) {
        if self.random(30) == 0 {
            let odd: [&[u8]; 9] = [
                b"",
                b"NX\0x",
                b"\0NX",
                b"xx\r\n",
                b"GT ",
                b"\r\nbad\r\nly\r\n",
                b"\xff\xfe",
                b"EX\0",
                b"100",
            ];
            words.push(self.one_of(&odd).to_vec());
        }
    }

    fn command(&mut self) -> Words {
        let name = self.one_of(&[
            "GET",
            "GET",
            "SET",
            "SET",
            "SET",
            "SET",
            "SET",
            "SET",
            "DEL",
            "EXISTS",
            "INCR",
            "INCRBY",
            "INCRBY",
            "APPEND",
            "MGET",
            "MSET",
            "EXPIRE",
            "EXPIRE",
            "PEXPIRE",
            "PEXPIRE",
            "TTL",
            "PTTL",
            "PERSIST",
            "DBSIZE",
            "SET",
            "SET",
            "SETNX",
            "SETEX",
            "PSETEX",
            "GETSET",
            "GETDEL",
            "GETEX",
            "GETEX",
            "GETRANGE",
            "GETRANGE",
            "SUBSTR",
            "SETRANGE",
            "SETRANGE",
            "STRLEN",
            "DECR",
            "DECRBY",
            "INCRBYFLOAT",
            "INCRBYFLOAT",
            "MSETNX",
            "LCS",
            "LCS",
            "UNLINK",
            "TOUCH",
            "TYPE",
            "RENAME",
            "RENAMENX",
            "COPY",
            "COPY",
            "EXPIREAT",
            "PEXPIREAT",
            "EXPIRETIME",
            "PEXPIRETIME",
            "OBJECT",
            "MEMORY",
        ]);
        let flushes = ["FLUSHALL", "FLUSHDB"];
        let name = if self.random(500) == 0 { self.one_of(&flushes) } else { name };
        let mut words = vec![self.cased(name)];
        match name {
            "SET" => {
                words.extend([self.key(), self.value()]);
                self.set_options(&mut words);
            }
            "SETNX" | "GETSET" => words.extend([self.key(), self.value()]),
            "SETEX" => words.extend([self.key(), self.relative(1), self.value()]),
            "PSETEX" => words.extend([self.key(), self.relative(1000), self.value()]),
            "GETEX" => {
                words.push(self.key());
                self.getex_options(&mut words);
            }
            "GETRANGE" | "SUBSTR" => words.extend([self.key(), self.index(), self.index()]),
            "SETRANGE" => {
                let offset = match self.random(10) {
                    0 => self.far_number(),
                    1 => self.random(5000).to_string().into_bytes(),
                    _ => self.random(300).to_string().into_bytes(),
                };
                words.extend([self.key(), offset, self.value()]);
            }
            "INCRBYFLOAT" => words.extend([self.key(), self.float()]),
            "LCS" => {
                words.extend([self.key(), self.key()]);
                self.lcs_options(&mut words);
            }
            "RENAME" | "RENAMENX" => words.extend([self.key(), self.key()]),
            "COPY" => {
                words.extend([self.key(), self.key()]);
                self.copy_options(&mut words);
            }
            "OBJECT" => {
                let subcommand = self.one_of(&["ENCODING", "ENCODING", "REFCOUNT", "NOSUCH"]);
                words.extend([self.cased(subcommand), self.key()]);
            }
            "MEMORY" => {
                let subcommand = self.one_of(&["USAGE", "USAGE", "USAGE", "NOSUCH"]);
                words.extend([self.cased(subcommand), self.key()]);
                if self.random(2) == 0 {
                    words.extend([self.cased("SAMPLES"), self.number()]);
                }
                self.spoil(&mut words);
            }
            "DEL" | "EXISTS" | "MGET" | "UNLINK" | "TOUCH" => {
                let len = 1 + self.random(4);
                words.extend((0..len).map(|_| self.key()));
            }
            "MSET" | "MSETNX" => {
                let len = 1 + self.random(4);
                words.extend((0..len).flat_map(|_| [self.key(), self.value()]));
            }
            "INCRBY" | "DECRBY" => words.extend([self.key(), self.number()]),
            "APPEND" => {
                let value = if self.random(2) == 0 { self.value() } else { b"1".to_vec() };
                words.extend([self.key(), value]);
            }
            "EXPIRE" => {
                words.extend([self.key(), self.relative(1)]);
                self.expire_options(&mut words);
            }
            "PEXPIRE" => {
                words.extend([self.key(), self.relative(1000)]);
                self.expire_options(&mut words);
            }
            "EXPIREAT" => {
                words.extend([self.key(), self.absolute(1)]);
                self.expire_options(&mut words);
            }
            "PEXPIREAT" => {
                words.extend([self.key(), self.absolute(1000)]);
                self.expire_options(&mut words);
            }
            "DBSIZE" => {}
            "FLUSHALL" | "FLUSHDB" => {
                if self.random(2) == 0 {
                    let mode = self.one_of(&["SYNC", "ASYNC", "NOW"]);
                    words.push(self.cased(mode));
                }
                self.spoil(&mut words);
            }
            _ => words.push(self.key()),
        }
        // Now and then one argument too many or too few.
        match self.random(100) {
            0 => words.push(self.value()),
            1 if 1 < words.len() => words.truncate(words.len() - 1),
            _ => {}
        }
        words
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

fn wall_clock_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the other side of the comparison reads the clock as well")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_millis() as u64
}

/// Replies are equal; the time left nearly so.
fn is_equal(words: &Words, ours: &[u8], theirs: &[u8]) -> bool {
    let slack = match words[0].to_ascii_lowercase().as_slice() {
        b"ttl" | b"expiretime" => TTL_SLACK_S,
        b"pttl" | b"pexpiretime" => TTL_SLACK_MS,
        // Of another size, but there or not alike.
        b"memory" => i64::MAX,
        _ => return ours == theirs,
    };
    match (ringfort_resp::reply::integer(ours), ringfort_resp::reply::integer(theirs)) {
        (Some(a), Some(b)) if 0 <= a && 0 <= b => (a - b).abs() <= slack,
        // Redis adds half a second before it divides, beyond the end of the integers.
        (Some(a), Some(b)) if a == i64::MAX / 1000 + 1 && b < -2 => {
            words[0].eq_ignore_ascii_case(b"expiretime")
        }
        _ => ours == theirs,
    }
}

fn shown(words: &Words) -> String {
    words.iter().map(|word| format!("\"{}\" ", word.escape_ascii())).collect()
}

/// Every key is touched, because Redis counts expired keys in DBSIZE, and measures them, until it meets them.
fn touch_all() -> Words {
    let keys = (0..KEYS_LEN).map(|n| format!("key:{n}").into_bytes());
    std::iter::once(b"EXISTS".to_vec()).chain(keys).collect()
}

#[test]
fn random_commands_are_answered_as_redis_answers_them() {
    let Some(mut redis) = Redis::start() else {
        println!("skipped: there is no redis-server to compare with");
        return;
    };
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260_711);
    println!("SEED={seed}");
    let mut generator = Generator { state: seed, base_s: wall_clock_ms() / 1000, made: 0 };
    let mut ours = Ours { store: Store::new(0, SLOTS - 1), replica: Store::new(0, SLOTS - 1), now_ms: 0 };
    let mut errors = 0;
    let commands_len =
        std::env::var("COMMANDS").ok().and_then(|len| len.parse().ok()).unwrap_or(COMMANDS_LEN);
    for batch in 0..commands_len / BATCH_LEN {
        let mut commands = Vec::with_capacity(2 * BATCH_LEN);
        for _ in 0..BATCH_LEN {
            let words = generator.command();
            if words[0].eq_ignore_ascii_case(b"dbsize") || words[0].eq_ignore_ascii_case(b"memory") {
                commands.push(touch_all());
            }
            if words[0].eq_ignore_ascii_case(b"object")
                && let Some(key) = words.get(2)
                && generator.random(10) != 0
            {
                commands.push(vec![b"SET".to_vec(), key.clone(), generator.value()]);
            } else if words[0].eq_ignore_ascii_case(b"object")
                && let Some(key) = words.get(2)
            {
                commands.push(vec![b"DEL".to_vec(), key.clone()]);
            }
            commands.push(words);
        }
        redis.send(&commands);
        ours.now_ms = wall_clock_ms();
        for words in &commands {
            let (a, b) = (ours.run(words, batch % 2 == 0), redis.reply());
            assert!(
                is_equal(words, &a, &b),
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
    let Some(mut redis) = Redis::start() else {
        println!("skipped: there is no redis-server to compare with");
        return;
    };
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260_712);
    println!("SEED={seed}");
    let mut generator = Generator { state: seed, base_s: 0, made: 0 };
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
    let Some(mut redis) = Redis::start() else {
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
