//! Redis's glob-style patterns, as KEYS, SCAN MATCH and CONFIG GET take them.
//!
//! | in the pattern | stands for |
//! | --- | --- |
//! | `*` | any bytes, none included |
//! | `?` | any one byte |
//! | `[abx-z]` | one byte of the set; a range may be written backwards |
//! | `[^ab]` | one byte that is not of the set |
//! | `\x` | the byte `x` itself, within a set too |
//!
//! The odd cases are Redis's too: a set without `]` ends where the pattern does; in `[a-]` the bracket ends the range and
//! not the set; a backslash at the end stands for itself; the empty text is matched by the empty pattern alone; ranges go
//! by *signed* bytes.

/// A compiled pattern.
///
/// Matching goes back to the last `*` only, which is enough because an earlier one could but take bytes that the last one
/// can take as well. It takes O(pattern x text) steps at most, and about the text's length in practice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
    sets: Vec<ByteSet>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// Any bytes; never twice in a row.
    Star,
    /// Any byte.
    Any,
    /// This byte.
    Byte(u8),
    /// This byte, an ASCII letter in lower case, or its upper case.
    Letter(u8),
    /// A byte of this set.
    Set(u32),
}

/// A bit for each byte.
type ByteSet = [u64; 4];

impl Glob {
    /// Compiles a pattern. Every pattern has a meaning. O(pattern).
    pub fn new(pattern: &[u8]) -> Self {
        Compiler { pattern, is_nocase: false, glob: Self::empty() }.compile()
    }

    /// Compiles a pattern that takes ASCII letters of either case for equal (but, as in Redis, not after a backslash within
    /// a set).
    pub fn nocase(pattern: &[u8]) -> Self {
        Compiler { pattern, is_nocase: true, glob: Self::empty() }.compile()
    }

    /// Whether the pattern matches the whole text.
    pub fn is_match(&self, text: &[u8]) -> bool {
        let (mut token, mut at) = (0, 0);
        // Where to go on when the tokens after the last star do not fit: the token after it, the next byte to begin at.
        let mut retry = None;
        if text.is_empty() {
            return self.tokens.is_empty();
        }
        while at < text.len() {
            match self.tokens.get(token) {
                Some(Token::Star) if token + 1 == self.tokens.len() => return true,
                Some(Token::Star) => {
                    token += 1;
                    retry = Some((token, at + 1));
                }
                Some(one) if self.takes(*one, text[at]) => (token, at) = (token + 1, at + 1),
                _ => {
                    let Some((after_star, next)) = retry else { return false };
                    (token, at) = (after_star, next);
                    retry = Some((after_star, next + 1));
                }
            }
        }
        matches!(self.tokens[token..], [] | [Token::Star])
    }

    fn empty() -> Self {
        Self { tokens: Vec::new(), sets: Vec::new() }
    }

    fn takes(&self, token: Token, byte: u8) -> bool {
        match token {
            Token::Star => false,
            Token::Any => true,
            Token::Byte(b) => b == byte,
            Token::Letter(b) => b == byte.to_ascii_lowercase(),
            Token::Set(i) => self.sets[i as usize][usize::from(byte / 64)] >> (byte % 64) & 1 != 0,
        }
    }
}

struct Compiler<'a> {
    /// What is left of the pattern.
    pattern: &'a [u8],
    is_nocase: bool,
    glob: Glob,
}

impl Compiler<'_> {
    fn compile(mut self) -> Glob {
        while let [first, rest @ ..] = self.pattern {
            self.pattern = rest;
            let token = match first {
                b'*' => Token::Star,
                b'?' => Token::Any,
                b'[' => self.set(),
                b'\\' => {
                    let literal = rest.first().unwrap_or(first);
                    self.pattern = rest.get(1..).unwrap_or_default();
                    self.byte(*literal)
                }
                literal => self.byte(*literal),
            };
            if token != Token::Star || self.glob.tokens.last() != Some(&Token::Star) {
                self.glob.tokens.push(token);
            }
        }
        self.glob
    }

    fn byte(&self, literal: u8) -> Token {
        if self.is_nocase && literal.is_ascii_alphabetic() {
            Token::Letter(literal.to_ascii_lowercase())
        } else {
            Token::Byte(literal)
        }
    }

    /// Reads a set behind its opening bracket.
    fn set(&mut self) -> Token {
        let is_not = self.pattern.first() == Some(&b'^');
        if is_not {
            self.pattern = &self.pattern[1..];
        }
        let mut bits: ByteSet = [0; 4];
        loop {
            self.pattern = match self.pattern {
                [] => break,
                [b'\\', literal, rest @ ..] => {
                    insert(&mut bits, *literal);
                    rest
                }
                [b']', rest @ ..] => {
                    self.pattern = rest;
                    break;
                }
                [first, b'-', last, rest @ ..] => {
                    self.insert_range(&mut bits, *first, *last);
                    rest
                }
                [literal, rest @ ..] => {
                    insert(&mut bits, *literal);
                    if self.is_nocase {
                        insert(&mut bits, literal.to_ascii_lowercase());
                        insert(&mut bits, literal.to_ascii_uppercase());
                    }
                    rest
                }
            };
        }
        if is_not {
            bits = bits.map(|word| !word);
        }
        self.glob.sets.push(bits);
        Token::Set((self.glob.sets.len() - 1) as u32)
    }

    /// Redis puts the ends in order first and takes their lower case then, so that `[Z-a]` without case is empty.
    fn insert_range(&self, bits: &mut ByteSet, first: u8, last: u8) {
        let fold = |byte: u8| {
            let byte = if self.is_nocase { byte.to_ascii_lowercase() } else { byte };
            byte.cast_signed()
        };
        let (low, high) =
            if first.cast_signed() <= last.cast_signed() { (first, last) } else { (last, first) };
        for byte in 0..=u8::MAX {
            if (fold(low)..=fold(high)).contains(&fold(byte)) {
                insert(bits, byte);
            }
        }
    }
}

fn insert(bits: &mut ByteSet, byte: u8) {
    bits[usize::from(byte / 64)] |= 1 << (byte % 64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The rules once more, as simple as they can be: tries every way, in exponential time.
    fn naive(pattern: &[u8], text: &[u8], is_nocase: bool) -> bool {
        let fold = |byte: u8| if is_nocase { byte.to_ascii_lowercase() } else { byte };
        match (pattern, text) {
            (_, []) => pattern.iter().all(|byte| *byte == b'*'),
            ([], _) => false,
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|taken| naive(rest, &text[taken..], is_nocase)),
            ([b'?', rest @ ..], [_, after @ ..]) => naive(rest, after, is_nocase),
            ([b'[', set @ ..], [byte, after @ ..]) => {
                let (is_in, rest) = naive_set(set, *byte, is_nocase);
                is_in && naive(rest, after, is_nocase)
            }
            ([b'\\', literal, rest @ ..] | [literal, rest @ ..], [byte, after @ ..]) => {
                fold(*literal) == fold(*byte) && naive(rest, after, is_nocase)
            }
        }
    }

    fn naive_set(set: &[u8], byte: u8, is_nocase: bool) -> (bool, &[u8]) {
        let (is_not, mut set) = match set {
            [b'^', rest @ ..] => (true, rest),
            _ => (false, set),
        };
        let fold = |byte: u8| if is_nocase { byte.to_ascii_lowercase() } else { byte }.cast_signed();
        let mut is_in = false;
        loop {
            set = match set {
                [] => break,
                [b'\\', literal, rest @ ..] => {
                    is_in |= *literal == byte;
                    rest
                }
                [b']', rest @ ..] => {
                    set = rest;
                    break;
                }
                [a, b'-', b, rest @ ..] => {
                    let ends = [a.cast_signed().min(b.cast_signed()), a.cast_signed().max(b.cast_signed())];
                    let [low, high] = ends.map(|end| fold(end.cast_unsigned()));
                    is_in |= low <= fold(byte) && fold(byte) <= high;
                    rest
                }
                [literal, rest @ ..] => {
                    is_in |= fold(*literal) == fold(byte);
                    rest
                }
            };
        }
        (is_in != is_not, set)
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            4 => proptest::sample::select(b"abAB".to_vec()),
            4 => proptest::sample::select(b"*?[]^-\\".to_vec()),
            1 => any::<u8>(),
        ];
        proptest::collection::vec(byte, 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn agrees_with_the_simple_rules(pattern in bytes(), text in bytes()) {
            prop_assume!(!text.is_empty());
            prop_assert_eq!(Glob::new(&pattern).is_match(&text), naive(&pattern, &text, false));
            prop_assert_eq!(Glob::nocase(&pattern).is_match(&text), naive(&pattern, &text, true));
        }
    }

    /// `pattern`, key, and whether `KEYS pattern` of a real server names the key.
    #[test]
    fn agrees_with_recorded_answers_of_redis() {
        let mut checked = 0;
        for line in include_str!("../tests/data/glob.txt").lines().filter(|line| !line.starts_with('#')) {
            let [pattern, key, answer] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("three fields: {line}")
            };
            let is_match = Glob::new(&unescaped(pattern)).is_match(&unescaped(key));
            assert_eq!(is_match, answer == "1", "{pattern} {key}");
            checked += 1;
        }
        assert!(checked > 500, "{checked}");
    }

    /// `\xHH` stands for a byte.
    fn unescaped(text: &str) -> Vec<u8> {
        let mut parts = text.split("\\x");
        let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
        for part in parts {
            out.push(u8::from_str_radix(&part[..2], 16).unwrap());
            out.extend_from_slice(&part.as_bytes()[2..]);
        }
        out
    }

    #[test]
    fn case_is_ignored_where_redis_ignores_it() {
        for (pattern, text, is_match) in [
            ("MAX*", "maxmemory", true),
            ("m?x[M-M]emory", "maxmemory", true),
            ("[Z-a]", "a", false),
            ("[\\M]axmemory", "maxmemory", false),
            ("\\Maxmemory", "maxmemory", true),
            ("[M]axmemory", "maxmemory", true),
        ] {
            assert_eq!(Glob::nocase(pattern.as_bytes()).is_match(text.as_bytes()), is_match, "{pattern}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let text = vec![b'a'; 65_535];
        let mut pattern = b"a*".repeat(1000);
        assert!(Glob::new(&pattern).is_match(&text));
        pattern.push(b'b');
        assert!(!Glob::new(&pattern).is_match(&text));
    }
}
