//! Texts: patterns, cursors, arguments of SCAN and CONFIG SET, the config file.
//!
//! - A pattern matches what Redis's own code says (a port of it stands below).
//! - A cursor that a client got names the same place when it comes back.
//! - What is refused is refused with one line, and what is taken is taken again in the form in which it is kept.

use ringfort::config::Config;
use ringfort_resp::{Cursor, Glob, ScanArgs};
use ringfort_wire::settings;

use super::input::Input;

/// Runs the target. Layout: kind (1), then that of the function.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    match input.u8() % 4 {
        0 => glob(&mut input),
        1 => scan(&mut input),
        2 => set(&mut input),
        _ => config(&String::from_utf8_lossy(input.rest())),
    }
}

/// Layout: pattern behind its length (2), text.
fn glob(input: &mut Input<'_>) {
    let pattern = input.bytes();
    let text = input.rest();
    let is_match = [Glob::new(pattern).is_match(text), Glob::nocase(pattern).is_match(text)];
    // Redis's code takes exponential time for some patterns with many stars.
    if pattern.iter().filter(|b| **b == b'*').count() <= 4 && text.len() <= 64 {
        assert_eq!(is_match[0], redis_match(pattern, text, false));
        assert_eq!(is_match[1], redis_match(pattern, text, true));
    }
}

/// `stringmatchlen` of Redis 7.0; a byte behind the pattern is its NUL.
fn redis_match(mut p: &[u8], mut s: &[u8], is_nocase: bool) -> bool {
    let fold = |b: u8| if is_nocase { b.to_ascii_lowercase() } else { b };
    while !p.is_empty() && !s.is_empty() {
        match p[0] {
            b'*' => {
                while p.get(1) == Some(&b'*') {
                    p = &p[1..];
                }
                return p.len() == 1 || (0..s.len()).any(|at| redis_match(&p[1..], &s[at..], is_nocase));
            }
            b'?' => s = &s[1..],
            b'[' => {
                p = &p[1..];
                let is_not = p.first() == Some(&b'^');
                if is_not {
                    p = &p[1..];
                }
                let mut is_in = false;
                loop {
                    match *p {
                        [b'\\', escaped, ..] => {
                            p = &p[1..];
                            is_in |= escaped == s[0];
                        }
                        [b']', ..] => break,
                        [] => break,
                        [start, b'-', end, ..] => {
                            let signed = |b: u8| fold(b) as i8;
                            let [start, end] =
                                if (start as i8) <= (end as i8) { [start, end] } else { [end, start] };
                            let [start, end, c] = [start, end, s[0]].map(signed);
                            p = &p[2..];
                            is_in |= start <= c && c <= end;
                        }
                        [one, ..] => is_in |= fold(one) == fold(s[0]),
                    }
                    p = &p[1..];
                }
                if is_in == is_not {
                    return false;
                }
                s = &s[1..];
                if p.is_empty() {
                    // Redis steps back, and then forward with all.
                    return s.is_empty();
                }
            }
            first => {
                let mut literal = first;
                if let [b'\\', escaped, ..] = *p {
                    p = &p[1..];
                    literal = escaped;
                }
                if fold(literal) != fold(s[0]) {
                    return false;
                }
                s = &s[1..];
            }
        }
        p = &p[1..];
        if s.is_empty() {
            while p.first() == Some(&b'*') {
                p = &p[1..];
            }
        }
    }
    p.is_empty() && s.is_empty()
}

/// Layout: a cursor's number (8), then arguments, each behind its length (2).
fn scan(input: &mut Input<'_>) {
    let number = input.u64();
    if let Some(cursor) = Cursor::from_number(number) {
        assert_eq!(cursor.number(), number);
        assert_eq!(Cursor::new(cursor.slot(), cursor.position()), cursor);
        let text = number.to_string();
        assert_eq!(ScanArgs::parse(&[text.as_bytes()]).map(|args| args.cursor), Ok(Some(cursor)));
    }
    assert!(Cursor::position_of(number) < 1 << 39);
    let args = args(input);
    match ScanArgs::parse(&args) {
        Ok(parsed) => assert!(1 <= parsed.count && parsed.pattern.is_none_or(|p| p.len() <= 1024)),
        Err(error) => assert!(!error.to_string().contains(['\r', '\n'])),
    }
}

fn args<'a>(input: &mut Input<'a>) -> Vec<&'a [u8]> {
    let mut args = Vec::new();
    while !input.is_empty() {
        args.push(input.bytes());
    }
    args
}

/// Layout: names and values of CONFIG SET, each behind its length (2).
fn set(input: &mut Input<'_>) {
    let args = args(input);
    let Ok(values) = settings::parse_pairs(&args) else { return };
    let again: Vec<&[u8]> =
        values.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]).collect();
    assert_eq!(settings::parse_pairs(&again), Ok(values.clone()), "the kept form");
}

fn config(text: &str) {
    match Config::parse(text, "fuzz.toml") {
        Ok(config) => {
            let _ = config.hash();
            assert!(config.nodes.iter().all(|node| config.node(&node.id).is_some()));
        }
        Err(error) => {
            assert!(!error.lines().is_empty(), "an error says why");
            assert!(error.lines().iter().all(|line| !line.contains('\n')), "{:?}", error.lines());
        }
    }
}
