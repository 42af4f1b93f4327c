//! Random commands for a comparison with Redis, and what may differ between the replies.
//!
//! The store alone, and a whole cluster, are compared by the same generator: a new command or option gets its row in
//! [`Generator::command`].
//!
//! Two servers have different clocks, so no expiry lies near the present, two expiries never lie near each other, and the
//! time left may differ by a little.

use std::time::{SystemTime, UNIX_EPOCH};

/// Keys of each tag.
const KEYS_LEN: u64 = 40;

/// A command with its arguments.
pub(crate) type Words = Vec<Vec<u8>>;

/// A seeded generator of commands (SplitMix64).
pub(crate) struct Generator {
    state: u64,
    /// Seconds since 1970 of about now.
    base_s: u64,
    made: u64,
    /// Beginnings of the keys; all keys of a command have the same.
    tags: Vec<String>,
    tag: usize,
    /// Whether commands that a proxy splits mix tags.
    is_mixed: bool,
    /// Whether nobody else's commands mingle with these, so that commands on all keys are made too.
    is_alone: bool,
}

impl Generator {
    /// Commands of somebody who is alone, on keys without a tag.
    pub(crate) fn alone(seed: u64) -> Self {
        let base_s = wall_clock_ms() / 1000;
        Self {
            state: seed,
            base_s,
            made: 0,
            tags: vec![String::new()],
            tag: 0,
            is_mixed: false,
            is_alone: true,
        }
    }

    /// Commands of one connection among several, on keys that begin with one of its tags.
    pub(crate) fn among_others(seed: u64, tags: Vec<String>) -> Self {
        Self { tags, is_mixed: true, is_alone: false, ..Self::alone(seed) }
    }

    /// The beginnings of its keys.
    pub(crate) fn tags(&self) -> &[String] {
        &self.tags
    }

    pub(crate) fn random(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    pub(crate) fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random(of.len() as u64) as usize]
    }

    pub(crate) fn key(&mut self) -> Vec<u8> {
        let n = self.random(KEYS_LEN);
        format!("{}key:{n}", self.tags[self.tag]).into_bytes()
    }

    /// A name or an option in random case.
    pub(crate) fn cased(&mut self, name: &str) -> Vec<u8> {
        match self.random(3) {
            0 => name.to_ascii_lowercase().into_bytes(),
            1 => name.bytes().map(|b| if self.random(2) == 0 { b.to_ascii_lowercase() } else { b }).collect(),
            _ => name.as_bytes().to_vec(),
        }
    }

    pub(crate) fn value(&mut self) -> Vec<u8> {
        match self.random(8) {
            0 => Vec::new(),
            1 | 2 => self.number(),
            3 => (0..self.random(300)).map(|_| self.random(256) as u8).collect(),
            _ => format!("value {}", self.random(1000)).into_bytes(),
        }
    }

    /// Numbers, edges of numbers, and what only looks like numbers.
    pub(crate) fn number(&mut self) -> Vec<u8> {
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

    /// A pattern of KEYS and SCAN that some keys match.
    pub(crate) fn pattern(&mut self) -> Vec<u8> {
        const PARTS: [&str; 24] = [
            "*", "*", "*", "?", "??", "key:", "key:", "{", "}", "1", "2", "[0-9]", "[^1]", "[5-2]", "[k]",
            "\\k", "\\", "[", "[^", "]", "[a-", "[\\]1]", "*1*2*", "k*y:",
        ];
        match self.random(4) {
            0 => {
                self.one_of(&["*", "**", "*key:1*", "{*}key:?", "*[0-4]", "*[^0-4]", "{0*", "*:[13]?"]).into()
            }
            1 => self.key(),
            _ => (0..1 + self.random(5)).map(|_| self.one_of(&PARTS)).collect::<String>().into_bytes(),
        }
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
    pub(crate) fn float(&mut self) -> Vec<u8> {
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

    /// The next command, behind those that make its reply comparable.
    pub(crate) fn step(&mut self) -> Vec<Words> {
        self.tag = self.random(self.tags.len() as u64) as usize;
        let words = self.command();
        let before = match words[0].to_ascii_lowercase().as_slice() {
            // Redis measures and counts expired keys until it meets them.
            b"dbsize" | b"memory" => Some(self.touch(&self.tags[self.tag])),
            // It also remembers how a value came about.
            b"object" if 2 < words.len() => {
                let key = words[2].clone();
                Some(match self.random(10) {
                    0 => vec![b"DEL".to_vec(), key],
                    _ => vec![b"SET".to_vec(), key, self.value()],
                })
            }
            _ => None,
        };
        before.into_iter().chain([words]).collect()
    }

    /// Meets every key of a tag.
    pub(crate) fn touch(&self, tag: &str) -> Words {
        let keys = (0..KEYS_LEN).map(|n| format!("{tag}key:{n}").into_bytes());
        std::iter::once(b"EXISTS".to_vec()).chain(keys).collect()
    }

    /// Keys for a command that a proxy splits.
    fn keys(&mut self) -> Vec<Vec<u8>> {
        let len = 1 + self.random(4);
        let is_mixed = self.is_mixed && self.random(2) == 0;
        let mut keys = Vec::new();
        for _ in 0..len {
            if is_mixed {
                self.tag = self.random(self.tags.len() as u64) as usize;
            }
            keys.push(self.key());
        }
        keys
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
        let name = match self.random(500) {
            0 if self.is_alone => self.one_of(&["FLUSHALL", "FLUSHDB"]),
            1..=8 if self.is_alone => "DBSIZE",
            _ => name,
        };
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
                let keys = self.keys();
                words.extend(keys);
            }
            "MSET" => {
                for key in self.keys() {
                    words.extend([key, self.value()]);
                }
            }
            "MSETNX" => {
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

pub(crate) fn wall_clock_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the other side of the comparison reads the clock as well")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_millis() as u64
}

/// Replies are equal; the time left nearly so.
pub(crate) fn is_equal(words: &Words, ours: &[u8], theirs: &[u8], slack_s: i64) -> bool {
    let slack = match words[0].to_ascii_lowercase().as_slice() {
        b"ttl" | b"expiretime" => slack_s,
        b"pttl" | b"pexpiretime" => slack_s * 1000,
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

pub(crate) fn shown(words: &Words) -> String {
    words.iter().map(|word| format!("\"{}\" ", word.escape_ascii())).collect()
}
