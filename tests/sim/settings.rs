//! Settings that are asked of the meta group while things go wrong, and what must be left of them.

use ringfort_wire::{ClusterMap, MetaAnswer, MetaWrite};

/// Longest time between two changes, µs.
pub(crate) const EVERY_US: u64 = 300_000;

/// Whether a seed changes settings: one in four, none of the listed regressions.
pub(crate) fn is_in(seed: u64) -> bool {
    seed % 4 == 2
}

/// One change: both settings to its number.
#[derive(Debug, Clone, Copy)]
struct Asked {
    at: u64,
    acknowledged_at: Option<u64>,
}

/// The changes of a run; their numbers count from 1.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    asked: Vec<Asked>,
    healed_at: Option<u64>,
}

impl Settings {
    /// The next change and its number.
    pub(crate) fn ask(&mut self, now: u64) -> (u64, Vec<u8>) {
        self.asked.push(Asked { at: now, acknowledged_at: None });
        let number = self.asked.len();
        let pairs = ["timeout", "slowlog-max-len"].map(|name| (name.to_owned(), number.to_string()));
        (number as u64, MetaWrite::Set(pairs.into()).to_json())
    }

    /// From here on a change must be made.
    pub(crate) fn heal(&mut self, now: u64) {
        self.healed_at = Some(now);
    }

    /// Whether a change was made that was asked after the last fault.
    pub(crate) fn is_alive(&self) -> bool {
        let healed_at = self.healed_at.unwrap_or(u64::MAX);
        self.asked.iter().any(|a| healed_at <= a.at && a.acknowledged_at.is_some())
    }

    /// An answer: `Done` must bring a map that shows this change or a later one in its place.
    pub(crate) fn answer(&mut self, now: u64, number: u64, answer: &MetaAnswer) -> Result<(), String> {
        let MetaAnswer::Done(map) = answer else { return Ok(()) };
        let map = ClusterMap::from_json(map)?;
        self.asked[number as usize - 1].acknowledged_at = Some(now);
        self.check(&map).map_err(|error| format!("the answer to change {number}: {error}"))
    }

    /// No map may show a change that an acknowledged later one has replaced, nor half a change.
    pub(crate) fn check(&self, map: &ClusterMap) -> Result<(), String> {
        let (value, other) = (map.setting_integer("timeout"), map.setting_integer("slowlog-max-len"));
        let number = usize::try_from(value).unwrap_or(usize::MAX);
        let shown = match number.checked_sub(1) {
            None => Asked { at: 0, acknowledged_at: Some(0) },
            Some(i) => *self.asked.get(i).ok_or_else(|| format!("change {number} was never asked"))?,
        };
        if number > 0 && value != other {
            return Err(format!("half a change: {value} and {other}"));
        }
        let later = self.asked.iter().position(|later| {
            later.acknowledged_at.is_some() && shown.acknowledged_at.is_some_and(|at| at < later.at)
        });
        match later {
            Some(i) => {
                Err(format!("the map shows change {number} although {} was acknowledged later", i + 1))
            }
            None => Ok(()),
        }
    }
}
