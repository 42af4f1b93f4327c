//! Which key: the distributions, and the count of records that inserts raise.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::rng::{Rng, mix};

/// Skew of the zipfian distributions unless another is named: YCSB's constant.
pub(super) const THETA: f64 = 0.99;
/// Ranks that a scrambled zipfian draws from before it spreads them over the keys, as YCSB's does.
const SCRAMBLED_RANKS: u64 = 10_000_000_000;

/// How keys are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distribution {
    /// Each key alike.
    Uniform,
    /// Key number r - 1 with probability proportional to 1 / r^theta: neighbours are popular together.
    Zipf(f64),
    /// Zipfian ranks of 10^10, each hashed to a key: the popular keys lie anywhere.
    Scrambled(f64),
    /// The newest key most often, with zipfian ranks from there.
    Latest(f64),
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
        const USAGE: &str =
            "use uniform, zipf:0.99, scrambled:0.99, latest:0.99, hotspot:0.2:0.8 or sequential";
        let parts: Vec<_> = text.split(':').collect();
        let number = |text: &str| text.parse::<f64>().ok().filter(|n| n.is_finite() && *n > 0.0);
        let theta = |text: &str| number(text).filter(|theta| *theta <= 10.0);
        let known = match parts[..] {
            ["uniform"] => Some(Self::Uniform),
            ["sequential"] => Some(Self::Sequential),
            ["zipf", skew] => theta(skew).map(Self::Zipf),
            ["scrambled", skew] => theta(skew).map(Self::Scrambled),
            ["latest", skew] => theta(skew).map(Self::Latest),
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
            Self::Scrambled(theta) => write!(f, "scrambled:{theta}"),
            Self::Latest(theta) => write!(f, "latest:{theta}"),
            Self::Hotspot { keys, accesses } => write!(f, "hotspot:{keys}:{accesses}"),
            Self::Sequential => f.write_str("sequential"),
        }
    }
}

/// The records that exist: those that were filled, and those that inserts of this run added.
///
/// Inserts are answered in any order; a reader of the latest must not ask for what is still on its way.
#[derive(Debug)]
pub(super) struct Records {
    /// Number of the next insert.
    next: AtomicU64,
    /// What [`Self::end`] tells.
    end: AtomicU64,
    /// Answered inserts behind one that is not.
    ahead: Mutex<BTreeSet<u64>>,
}

impl Records {
    pub(super) fn new(filled: u64) -> Self {
        Self { next: AtomicU64::new(filled), end: AtomicU64::new(filled), ahead: Mutex::default() }
    }

    /// The number of a record to insert.
    pub(super) fn take(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Insert `number` is over. A failed one too: the numbers behind it must not wait for ever.
    pub(super) fn settle(&self, number: u64) {
        let mut ahead = self.ahead.lock();
        ahead.insert(number);
        let mut end = self.end.load(Ordering::Relaxed);
        while ahead.remove(&end) {
            end += 1;
        }
        self.end.store(end, Ordering::Relaxed);
    }

    /// All records below this exist.
    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }
}

/// Draws keys.
#[derive(Debug)]
pub(super) enum Chooser {
    Uniform { keys: u64 },
    Zipf(Zipf),
    Scrambled { zipf: Zipf, keys: u64 },
    Latest { zipf: Zipf, records: Arc<Records> },
    Hotspot { hot: u64, keys: u64, accesses: f64 },
    Sequential { next: u64, keys: u64 },
}

impl Chooser {
    /// Of client number `client` of `clients`, over `keys` keys and what inserts add to `records`.
    pub(super) fn new(
        distribution: Distribution,
        keys: u64,
        (client, clients): (u64, u64),
        records: &Arc<Records>,
    ) -> Self {
        match distribution {
            Distribution::Uniform => Self::Uniform { keys },
            Distribution::Zipf(theta) => Self::Zipf(Zipf::new(keys, theta)),
            Distribution::Scrambled(theta) => {
                Self::Scrambled { zipf: Zipf::new(SCRAMBLED_RANKS, theta), keys }
            }
            // The ranks are those of the records at the start: a run's inserts hardly change the law.
            Distribution::Latest(theta) => {
                Self::Latest { zipf: Zipf::new(keys, theta), records: Arc::clone(records) }
            }
            Distribution::Hotspot { keys: fraction, accesses } => {
                Self::Hotspot { hot: ((keys as f64 * fraction) as u64).clamp(1, keys), keys, accesses }
            }
            Distribution::Sequential => {
                let next = u128::from(keys) * u128::from(client) / u128::from(clients.max(1));
                Self::Sequential { next: next as u64 % keys, keys }
            }
        }
    }

    pub(super) fn choose(&mut self, rng: &mut Rng) -> u64 {
        match self {
            Self::Uniform { keys } => rng.below(*keys),
            Self::Zipf(zipf) => zipf.sample(rng) - 1,
            Self::Scrambled { zipf, keys } => mix(zipf.sample(rng)) % *keys,
            Self::Latest { zipf, records } => records.end().saturating_sub(zipf.sample(rng)),
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

/// Ranks `1..=n` with probability proportional to `1 / rank^theta`, in constant time and without a table: rejection
/// inversion (Hörmann and Derflinger, "Rejection-inversion to generate variates from monotone discrete distributions", 1996).
#[derive(Debug)]
pub(super) struct Zipf {
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

    const DRAWS: u32 = 400_000;

    /// How often each of 1,000 keys is drawn.
    fn frequencies(distribution: &str) -> Vec<f64> {
        let distribution = distribution.parse().expect("a distribution");
        let mut chooser = Chooser::new(distribution, 1000, (0, 1), &Arc::new(Records::new(1000)));
        let mut rng = Rng::new(1, 0);
        let mut counts = vec![0_u32; 1000];
        for _ in 0..DRAWS {
            counts[chooser.choose(&mut rng) as usize] += 1;
        }
        counts.iter().map(|&n| f64::from(n) / f64::from(DRAWS)).collect()
    }

    /// The probability of the popular ranks of `n`.
    fn zipf_law(n: u32, theta: f64) -> impl Fn(u32) -> f64 {
        let sum: f64 = (1..=n).map(|rank| f64::from(rank).powf(-theta)).sum();
        move |rank| f64::from(rank).powf(-theta) / sum
    }

    /// Within five standard deviations.
    fn is_near(seen: f64, due: f64) -> bool {
        (seen - due).abs() < 5.0 * (due / f64::from(DRAWS)).sqrt()
    }

    #[test]
    fn zipf_follows_its_law() {
        for theta in [0.5, 0.99, 1.0, 1.5] {
            let seen = frequencies(&format!("zipf:{theta}"));
            let law = zipf_law(1000, theta);
            for rank in [1, 2, 3, 10, 30] {
                let (seen, due) = (seen[rank as usize - 1], law(rank));
                assert!(is_near(seen, due), "{theta} {rank}: {seen} {due}");
            }
        }
    }

    #[test]
    fn latest_is_zipf_from_the_newest_key_that_exists() {
        let seen = frequencies("latest:0.99");
        let law = zipf_law(1000, 0.99);
        for rank in [1, 2, 3, 10, 30] {
            let (seen, due) = (seen[1000 - rank as usize], law(rank));
            assert!(is_near(seen, due), "{rank}: {seen} {due}");
        }

        let records = Arc::new(Records::new(1000));
        let mut chooser = Chooser::new(Distribution::Latest(0.99), 1000, (0, 1), &records);
        let mut rng = Rng::new(1, 0);
        assert_eq!([records.take(), records.take(), records.take()], [1000, 1001, 1002]);
        records.settle(1002);
        records.settle(1001);
        assert!((0..10_000).all(|_| chooser.choose(&mut rng) < 1000), "1000 is still on its way");
        records.settle(1000);
        assert!((0..100).any(|_| chooser.choose(&mut rng) == 1002));
    }

    #[test]
    fn scrambled_has_the_popularity_of_zipf_anywhere() {
        let seen = frequencies("scrambled:0.99");
        // The sum over 10^10 ranks, which YCSB holds as a constant.
        let due = 1.0 / 26.469_028_201_78;
        let most = seen.iter().copied().fold(0.0, f64::max);
        // The key of rank 1 also has a thousandth of the many ranks without weight.
        assert!((due..due + 0.002).contains(&most), "{most} {due}");
        assert_eq!(seen[mix(1) as usize % 1000], most);
        let low: f64 = seen[..500].iter().sum();
        assert!((0.3..0.7).contains(&low), "{low}");
    }

    #[test]
    fn other_distributions_follow_theirs() {
        let hot: f64 = frequencies("hotspot:0.2:0.8")[..200].iter().sum();
        assert!((0.79..0.81).contains(&hot), "{hot}");
        let uniform = frequencies("uniform");
        assert!(uniform.iter().all(|f| (0.0007..0.0013).contains(f)));
        assert!(frequencies("sequential").iter().all(|f| (f - 0.001).abs() < 1e-9));
        for bad in [
            "",
            "zipf",
            "zipf:-1",
            "zipf:x",
            "latest:11",
            "scrambled",
            "hotspot:2:1",
            "hotspot:0.1",
            "normal",
        ] {
            assert!(bad.parse::<Distribution>().is_err(), "{bad}");
        }
        for good in ["uniform", "zipf:1", "scrambled:0.99", "latest:0.5", "hotspot:0.2:0.8", "sequential"] {
            assert_eq!(good.parse::<Distribution>().map(|known| known.to_string()).as_deref(), Ok(good));
        }
    }
}
