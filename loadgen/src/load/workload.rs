//! Which command on which key, and its bytes.

use std::fmt;
use std::str::FromStr;

use ringfort_ring::slot::{Slot, slot_of};

use crate::encode;
use crate::rng::Rng;

/// Decimal digits of a key's number.
const DIGITS: usize = 12;
/// Keys are numbered below this, so that their names have one length.
pub const KEYS_MAX: u64 = 1_000_000_000_000;
/// Commands drawn at most until one is for the node in question: a node with 1 % of the keys is missed by all of them with
/// probability 10^-9 or so.
const DRAWS_MAX: u32 = 2_000;
/// Sum of the weights of a mix at most.
const WEIGHTS_MAX: u64 = 1_000_000;

/// A command of a mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `GET key:N`
    Get,
    /// `SET key:N value`
    Set,
    /// `INCR counter:N` (its own keys: the values of `key:N` are no numbers)
    Incr,
    /// `APPEND append:N value` (its own keys: they grow)
    Append,
    /// `MGET key:N ...`
    Mget,
    /// `MSET key:N value ...`
    Mset,
    /// `DEL key:N`
    Del,
}

const VERBS: [(&str, Verb); 7] = [
    ("get", Verb::Get),
    ("set", Verb::Set),
    ("incr", Verb::Incr),
    ("append", Verb::Append),
    ("mget", Verb::Mget),
    ("mset", Verb::Mset),
    ("del", Verb::Del),
];

/// Commands and their weights, such as `get=90,set=10`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix(Vec<(Verb, u64)>);

impl Mix {
    /// Whether a command of it has several keys.
    pub fn has_multi_keys(&self) -> bool {
        self.0.iter().any(|(verb, _)| matches!(verb, Verb::Mget | Verb::Mset))
    }

    /// Nothing but `verb`.
    pub fn only(verb: Verb) -> Self {
        Self(vec![(verb, 1)])
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let Some((_, verb)) = VERBS.iter().find(|(known, _)| *known == name) else {
                return Err(format!(
                    "unknown command {name:?}: use {}",
                    VERBS.map(|(name, _)| name).join(", ")
                ));
            };
            let weight = weight.parse().map_err(|_| format!("{weight:?} is no weight: use get=90,set=10"))?;
            parts.push((*verb, weight));
        }
        let sum = parts.iter().fold(0_u64, |sum, (_, weight)| sum.saturating_add(*weight));
        if sum == 0 || sum > WEIGHTS_MAX {
            return Err(format!("the weights' sum must be from 1 to {WEIGHTS_MAX}"));
        }
        Ok(Self(parts))
    }
}

/// How keys are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distribution {
    /// Each key alike.
    Uniform,
    /// Key number r - 1 with probability proportional to 1 / r^theta.
    Zipf(f64),
    /// The first `keys` (a fraction) of the keys get `accesses` (a fraction) of the accesses.
    Hotspot {
        /// Fraction of the keys that are hot.
        keys: f64,
        /// Fraction of the accesses that go there.
        accesses: f64,
    },
    /// One after the other; each client begins at another place.
    Sequential,
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const USAGE: &str = "use uniform, zipf:0.99, hotspot:0.2:0.8 or sequential";
        let parts: Vec<_> = text.split(':').collect();
        let number = |text: &str| text.parse::<f64>().ok().filter(|n| n.is_finite() && *n > 0.0);
        let known = match parts[..] {
            ["uniform"] => Some(Self::Uniform),
            ["sequential"] => Some(Self::Sequential),
            ["zipf", theta] => number(theta).filter(|theta| *theta <= 10.0).map(Self::Zipf),
            ["hotspot", keys, accesses] => match (number(keys), number(accesses)) {
                (Some(keys), Some(accesses)) if keys <= 1.0 && accesses <= 1.0 => {
                    Some(Self::Hotspot { keys, accesses })
                }
                _ => None,
            },
            _ => None,
        };
        known.ok_or_else(|| USAGE.to_owned())
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipf(theta) => write!(f, "zipf:{theta}"),
            Self::Hotspot { keys, accesses } => write!(f, "hotspot:{keys}:{accesses}"),
            Self::Sequential => f.write_str("sequential"),
        }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (verb, weight)) in self.0.iter().enumerate() {
            let name = VERBS.iter().find(|(_, known)| known == verb).map_or("", |(name, _)| name);
            write!(f, "{}{name}={weight}", if n > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

/// Writes the commands of one client.
#[derive(Debug)]
pub struct Generator {
    rng: Rng,
    templates: Vec<Template>,
    weights: u64,
    chooser: Chooser,
}

/// The bytes of one command but for the digits of its keys.
#[derive(Debug)]
struct Template {
    /// The weights of this and all templates before it.
    weight_end: u64,
    head: Vec<u8>,
    before_digits: Vec<u8>,
    after_digits: Vec<u8>,
    keys: usize,
    /// Where the first key stands.
    key: std::ops::Range<usize>,
}

#[derive(Debug)]
enum Chooser {
    Uniform { keys: u64 },
    Zipf(Zipf),
    Hotspot { hot: u64, keys: u64, accesses: f64 },
    Sequential { next: u64, keys: u64 },
}

/// What a client sends.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Commands and weights.
    pub mix: Mix,
    /// How keys are chosen.
    pub distribution: Distribution,
    /// Number of keys, `1..=KEYS_MAX`.
    pub keys: u64,
    /// Length of values.
    pub value_bytes: usize,
    /// Keys in one MGET or MSET.
    pub multi_keys: usize,
    /// Equal seeds give equal streams of commands.
    pub seed: u64,
}

impl Generator {
    /// Creates the generator of client number `client` of `clients`.
    pub fn new(workload: &Workload, client: u64, clients: u64) -> Self {
        let keys = workload.keys.clamp(1, KEYS_MAX);
        let chooser = match workload.distribution {
            Distribution::Uniform => Chooser::Uniform { keys },
            Distribution::Zipf(theta) => Chooser::Zipf(Zipf::new(keys, theta)),
            Distribution::Hotspot { keys: fraction, accesses } => {
                Chooser::Hotspot { hot: ((keys as f64 * fraction) as u64).clamp(1, keys), keys, accesses }
            }
            Distribution::Sequential => {
                let next = u128::from(keys) * u128::from(client) / u128::from(clients.max(1));
                Chooser::Sequential { next: next as u64 % keys, keys }
            }
        };
        let mut weights = 0;
        let templates = workload.mix.0.iter().map(|&(verb, weight)| {
            weights += weight;
            Template::new(verb, workload, weights)
        });
        let templates = templates.collect();
        Self { rng: Rng::new(workload.seed, client), templates, weights, chooser }
    }

    /// Appends the next command.
    pub fn next(&mut self, out: &mut Vec<u8>) {
        let ticket = if self.templates.len() > 1 { self.rng.below(self.weights) } else { 0 };
        for template in &self.templates {
            if ticket < template.weight_end {
                return template.write(out, || self.chooser.choose(&mut self.rng));
            }
        }
    }

    /// Appends the next command whose key's slot is one of the client's; false when none was found in many draws.
    /// For commands with one key.
    pub fn next_in(&mut self, out: &mut Vec<u8>, is_own: impl Fn(Slot) -> bool) -> bool {
        let start = out.len();
        for _ in 0..DRAWS_MAX {
            let ticket = if self.templates.len() > 1 { self.rng.below(self.weights) } else { 0 };
            let Some(template) = self.templates.iter().find(|template| ticket < template.weight_end) else {
                break;
            };
            template.write(out, || self.chooser.choose(&mut self.rng));
            let key = start + template.key.start..start + template.key.end;
            if is_own(slot_of(&out[key])) {
                return true;
            }
            out.truncate(start);
        }
        false
    }

    /// Appends the command for key number `key`; for mixes of one command.
    pub fn at(&mut self, key: u64, out: &mut Vec<u8>) {
        if let Some(template) = self.templates.first() {
            template.write(out, || key);
        }
    }
}

impl Template {
    fn new(verb: Verb, workload: &Workload, weight_end: u64) -> Self {
        let (name, prefix, has_value, keys) = match verb {
            Verb::Get => ("GET", "key:", false, 1),
            Verb::Set => ("SET", "key:", true, 1),
            Verb::Incr => ("INCR", "counter:", false, 1),
            Verb::Append => ("APPEND", "append:", true, 1),
            Verb::Mget => ("MGET", "key:", false, workload.multi_keys),
            Verb::Mset => ("MSET", "key:", true, workload.multi_keys),
            Verb::Del => ("DEL", "key:", false, 1),
        };
        let mut head = Vec::new();
        encode::header(&mut head, b'*', 1 + keys * if has_value { 2 } else { 1 });
        encode::bulk(&mut head, name.as_bytes());
        let mut before_digits = Vec::new();
        encode::header(&mut before_digits, b'$', prefix.len() + DIGITS);
        before_digits.extend_from_slice(prefix.as_bytes());
        let mut after_digits = b"\r\n".to_vec();
        if has_value {
            // Hexadecimal noise: neither all equal (a server may compress that) nor binary.
            let mut rng = Rng::new(workload.seed, u64::MAX);
            let value = (0..workload.value_bytes).map(|_| b"0123456789abcdef"[rng.index(16)]);
            encode::bulk(&mut after_digits, &value.collect::<Vec<u8>>());
        }
        let key_end = head.len() + before_digits.len() + DIGITS;
        let key = key_end - DIGITS - prefix.len()..key_end;
        Self { weight_end, head, before_digits, after_digits, keys, key }
    }

    fn write(&self, out: &mut Vec<u8>, mut key: impl FnMut() -> u64) {
        out.extend_from_slice(&self.head);
        for _ in 0..self.keys {
            out.extend_from_slice(&self.before_digits);
            out.extend_from_slice(&digits(key()));
            out.extend_from_slice(&self.after_digits);
        }
    }
}

impl Chooser {
    fn choose(&mut self, rng: &mut Rng) -> u64 {
        match self {
            Self::Uniform { keys } => rng.below(*keys),
            Self::Zipf(zipf) => zipf.sample(rng) - 1,
            Self::Hotspot { hot, keys, accesses } => {
                if rng.unit() < *accesses || hot == keys {
                    rng.below(*hot)
                } else {
                    *hot + rng.below(*keys - *hot)
                }
            }
            Self::Sequential { next, keys } => {
                let key = *next;
                *next = if key + 1 == *keys { 0 } else { key + 1 };
                key
            }
        }
    }
}

/// The twelve decimal digits of `n`.
fn digits(mut n: u64) -> [u8; DIGITS] {
    let mut text = [b'0'; DIGITS];
    for digit in text.iter_mut().rev() {
        if n == 0 {
            break;
        }
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
    }
    text
}

/// Ranks `1..=n` with probability proportional to `1 / rank^theta`, in constant time and without a table: rejection
/// inversion (Hörmann and Derflinger, "Rejection-inversion to generate variates from monotone discrete distributions", 1996).
#[derive(Debug)]
struct Zipf {
    n: f64,
    theta: f64,
    integral_first: f64,
    integral_last: f64,
    shortcut: f64,
}

impl Zipf {
    fn new(n: u64, theta: f64) -> Self {
        let mut zipf = Self { n: n as f64, theta, integral_first: 0.0, integral_last: 0.0, shortcut: 0.0 };
        zipf.integral_first = zipf.integral(1.5) - 1.0;
        zipf.integral_last = zipf.integral(zipf.n + 0.5);
        zipf.shortcut = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.density(2.0));
        zipf
    }

    fn sample(&self, rng: &mut Rng) -> u64 {
        loop {
            let u = self.integral_last + rng.unit() * (self.integral_first - self.integral_last);
            let x = self.inverse(u);
            let rank = x.round().clamp(1.0, self.n);
            if rank - x <= self.shortcut || u >= self.integral(rank + 0.5) - self.density(rank) {
                return rank as u64;
            }
        }
    }

    fn density(&self, x: f64) -> f64 {
        (-self.theta * x.ln()).exp()
    }

    /// The integral of the density from 1 to x.
    fn integral(&self, x: f64) -> f64 {
        let log = x.ln();
        let t = (1.0 - self.theta) * log;
        log * if t.abs() > 1e-8 { t.exp_m1() / t } else { 1.0 + t / 2.0 }
    }

    fn inverse(&self, y: f64) -> f64 {
        let t = (y * (1.0 - self.theta)).max(-1.0);
        (y * if t.abs() > 1e-8 { t.ln_1p() / t } else { 1.0 - t / 2.0 }).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(mix: &str, distribution: &str) -> Workload {
        Workload {
            mix: mix.parse().expect("a mix"),
            distribution: distribution.parse().expect("a distribution"),
            keys: 1000,
            value_bytes: 3,
            multi_keys: 2,
            seed: 1,
        }
    }

    fn text(mix: &str) -> String {
        let mut out = Vec::new();
        Generator::new(&workload(mix, "sequential"), 0, 1).next(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn commands_have_their_bytes() {
        assert_eq!(text("get"), "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000000\r\n");
        assert_eq!(text("incr"), "*2\r\n$4\r\nINCR\r\n$20\r\ncounter:000000000000\r\n");
        let mset = text("mset");
        assert!(mset.starts_with("*5\r\n$4\r\nMSET\r\n$16\r\nkey:000000000000\r\n$3\r\n"), "{mset}");
        assert!(mset.contains("\r\n$16\r\nkey:000000000001\r\n$3\r\n"), "{mset}");
        assert_eq!(digits(KEYS_MAX - 1), *b"999999999999");
        assert_eq!(digits(1203), *b"000000001203");
    }

    #[test]
    fn commands_for_a_node_have_its_keys_only() {
        let mut generator = Generator::new(&workload("get=1,set=1,incr=1", "uniform"), 0, 1);
        for _ in 0..1_000 {
            let mut out = b"before".to_vec();
            assert!(generator.next_in(&mut out, |slot| slot.0 % 3 == 1));
            let text = String::from_utf8(out).expect("ASCII");
            let key = text.split("\r\n").nth(4).expect("a key");
            assert_eq!(slot_of(key.as_bytes()).0 % 3, 1, "{text}");
        }
        let mut out = Vec::new();
        assert!(!generator.next_in(&mut out, |_| false) && out.is_empty());
    }

    #[test]
    fn mixes_are_read_and_kept() {
        let workload = workload("get=90,set=10", "uniform");
        let mut generator = Generator::new(&workload, 0, 1);
        let mut gets = 0;
        for _ in 0..10_000 {
            let mut out = Vec::new();
            generator.next(&mut out);
            gets += u32::from(out.starts_with(b"*2"));
        }
        assert!((8_800..9_200).contains(&gets), "{gets}");
        assert_eq!(workload.mix.to_string(), "get=90,set=10");
        for bad in ["", "get=", "foo=1", "get=0", "get=-1", "get=1,,set=2"] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }

    fn frequencies(distribution: &str) -> Vec<f64> {
        const DRAWS: u32 = 400_000;
        let mut generator = Generator::new(&workload("get", distribution), 0, 1);
        let mut counts = vec![0_u32; 1000];
        for _ in 0..DRAWS {
            let key = generator.chooser.choose(&mut generator.rng);
            counts[key as usize] += 1;
        }
        counts.iter().map(|&n| f64::from(n) / f64::from(DRAWS)).collect()
    }

    #[test]
    fn zipf_follows_its_law() {
        for theta in [0.5, 0.99, 1.0, 1.5] {
            let seen = frequencies(&format!("zipf:{theta}"));
            let sum: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-theta)).sum();
            for rank in [1, 2, 3, 10, 30] {
                let due = f64::from(rank).powf(-theta) / sum;
                let seen = seen[rank as usize - 1];
                // Five standard deviations.
                assert!((seen - due).abs() < 5.0 * (due / 400_000.0).sqrt(), "{theta} {rank}: {seen} {due}");
            }
        }
    }

    #[test]
    fn other_distributions_follow_theirs() {
        let hot: f64 = frequencies("hotspot:0.2:0.8")[..200].iter().sum();
        assert!((0.79..0.81).contains(&hot), "{hot}");
        let uniform = frequencies("uniform");
        assert!(uniform.iter().all(|f| (0.0007..0.0013).contains(f)));
        assert!(frequencies("sequential").iter().all(|f| (f - 0.001).abs() < 1e-9));
        for bad in ["", "zipf", "zipf:-1", "zipf:x", "hotspot:2:1", "hotspot:0.1", "normal"] {
            assert!(bad.parse::<Distribution>().is_err(), "{bad}");
        }
    }
}
