//! Settings of the whole cluster under Redis's names: the one table of CONFIG GET and CONFIG SET.
//!
//! A setting that can be changed lives in [`ClusterMap::settings`](crate::ClusterMap), in the form that CONFIG GET shows;
//! one that is missing there has its default. The others are there for tools that ask: each says why it never changes.

mod table;

use crate::ClusterMap;
use std::collections::BTreeMap;
pub use table::ALL;

/// Limit of the distinct data of the cluster, bytes; 0 = none.
pub const MAXMEMORY: &str = "maxmemory";
/// What gives way at the limit.
pub const MAXMEMORY_POLICY: &str = "maxmemory-policy";
/// Keys that eviction looks at for each victim.
pub const MAXMEMORY_SAMPLES: &str = "maxmemory-samples";
/// How slowly the access counter of OBJECT FREQ grows.
pub const LFU_LOG_FACTOR: &str = "lfu-log-factor";
/// Minutes in which that counter loses one.
pub const LFU_DECAY_TIME: &str = "lfu-decay-time";
/// Age up to which a follower answers reads of READONLY clients at once, ms; 0: each asks the leader.
pub const REPLICA_MAX_STALENESS_MS: &str = "replica-max-staleness-ms";
/// Password of the user `default`; empty = none.
pub const REQUIREPASS: &str = "requirepass";
/// Seconds after which a silent client is cut; 0 = never.
pub const TIMEOUT: &str = "timeout";
/// Most client connections of one process.
pub const MAXCLIENTS: &str = "maxclients";
/// µs from which on a command is in the slow log; 0 = every one, negative = none.
pub const SLOWLOG_LOG_SLOWER_THAN: &str = "slowlog-log-slower-than";
/// Entries that the slow log keeps.
pub const SLOWLOG_MAX_LEN: &str = "slowlog-max-len";
/// Whether latencies are counted for each command.
pub const LATENCY_TRACKING: &str = "latency-tracking";
/// Percentiles that INFO latencystats shows.
pub const LATENCY_TRACKING_INFO_PERCENTILES: &str = "latency-tracking-info-percentiles";

/// Longest value of one setting, bytes.
pub const VALUE_BYTES_MAX: usize = 512;

/// What values a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes, with an optional unit (`b`, `k` `m` `g` by 1000, `kb` `mb` `gb` by 1024); kept as plain bytes.
    Memory,
    /// A whole number.
    Integer {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// `yes` or `no`.
    Bool,
    /// One of these words.
    Enum(&'static [&'static str]),
    /// Numbers from 0 to 100 with blanks between them.
    Percentiles,
    /// Any UTF-8 text.
    Text,
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Its name in Redis, in lower case.
    pub name: &'static str,
    /// Its values.
    pub kind: Kind,
    /// Its value when nobody set it; of a fixed one, its only value.
    pub default: &'static str,
    /// Why it cannot be changed; `None` when it can.
    pub fixed: Option<&'static str>,
    /// What it does, one line; empty for a fixed one.
    pub doc: &'static str,
}

/// The setting of a name, in any case of letters.
pub fn find(name: &[u8]) -> Option<&'static Setting> {
    ALL.iter().find(|s| name.eq_ignore_ascii_case(s.name.as_bytes()))
}

impl Setting {
    /// A value in the form in which it is kept.
    ///
    /// # Errors
    /// The value is not one of this setting: what Redis says behind its `CONFIG SET failed`.
    pub fn parse(&self, value: &[u8]) -> Result<String, String> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(format!("argument must be at most {VALUE_BYTES_MAX} bytes"));
        }
        let text = core::str::from_utf8(value).map_err(|_| "argument must be UTF-8 text".to_owned())?;
        match self.kind {
            Kind::Memory => match memory(text) {
                Some(bytes) => Ok(bytes.to_string()),
                None => Err("argument must be a memory value".to_owned()),
            },
            Kind::Integer { min, max } => match integer(text) {
                None => Err("argument couldn't be parsed into an integer".to_owned()),
                Some(n) if (min..=max).contains(&n) => Ok(n.to_string()),
                Some(_) => Err(format!("argument must be between {min} and {max} inclusive")),
            },
            Kind::Bool => {
                word(&["yes", "no"], text).ok_or_else(|| "argument must be 'yes' or 'no'".to_owned())
            }
            Kind::Enum(words) => word(words, text)
                .ok_or_else(|| format!("argument(s) must be one of the following: {}", words.join(", "))),
            Kind::Percentiles => percentiles(self.name, text),
            Kind::Text => Ok(text.to_owned()),
        }
    }

    /// Its value in `map`.
    pub fn value<'a>(&'a self, map: Option<&'a ClusterMap>) -> &'a str {
        map.and_then(|map| map.settings.get(self.name)).map_or(self.default, String::as_str)
    }
}

impl ClusterMap {
    /// The value of a setting of [`ALL`]: what was set, else the default. Empty for an unknown name.
    pub fn setting(&self, name: &str) -> &str {
        let setting = find(name.as_bytes());
        debug_assert!(setting.is_some(), "there is no setting '{name}'");
        setting.map_or("", |s| s.value(Some(self)))
    }

    /// The value of a setting of [`Kind::Integer`] or [`Kind::Memory`]; its default when the map holds no such number.
    pub fn setting_integer(&self, name: &str) -> i64 {
        let default = || find(name.as_bytes()).and_then(|s| s.default.parse().ok()).unwrap_or(0);
        self.setting(name).parse().unwrap_or_else(|_| default())
    }

    /// Whether a setting of [`Kind::Bool`] is `yes`.
    pub fn setting_is_on(&self, name: &str) -> bool {
        self.setting(name) == "yes"
    }
}

/// Reads the arguments of CONFIG SET behind the word SET: names and values in turn.
///
/// What is left after it are settings to change; none when all were fixed ones with the value that they have.
///
/// # Errors
/// The text of the error reply; then nothing is to be changed.
pub fn parse_pairs(args: &[&[u8]]) -> Result<BTreeMap<String, String>, String> {
    let (pairs, rest) = args.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("ERR syntax error".to_owned());
    }
    let mut found: Vec<(&Setting, &[u8])> = Vec::new();
    for [name, value] in pairs {
        let Some(setting) = find(name) else {
            return Err(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{}'",
                String::from_utf8_lossy(name)
            ));
        };
        if let Some(why) = setting.fixed
            && !is_same(setting.default, value)
        {
            return Err(failed(name, &format!("can't set immutable config: {why}")));
        }
        if found.iter().any(|(other, _)| other.name == setting.name) {
            return Err(failed(name, "duplicate parameter"));
        }
        found.push((setting, value));
    }
    let mut values = BTreeMap::new();
    for (setting, value) in found.into_iter().filter(|(s, _)| s.fixed.is_none()) {
        let value = setting.parse(value).map_err(|why| failed(setting.name.as_bytes(), &why))?;
        values.insert(setting.name.to_owned(), value);
    }
    Ok(values)
}

fn failed(name: &[u8], why: &str) -> String {
    let name = String::from_utf8_lossy(name);
    format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")
}

/// Whether the only value of a fixed setting is asked for: tools set what they rely on.
fn is_same(default: &str, value: &[u8]) -> bool {
    let bytes = |text: &str| memory(text).filter(|_| !text.is_empty());
    value.eq_ignore_ascii_case(default.as_bytes())
        || core::str::from_utf8(value).is_ok_and(|v| bytes(v).is_some_and(|n| bytes(default) == Some(n)))
}

/// Bytes with Redis's units; nothing at all is 0, as in Redis.
fn memory(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    if text.is_empty() {
        return Some(0);
    }
    // `setting_integer` gives it as a signed number.
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|bytes| i64::try_from(*bytes).is_ok())
}

/// A whole number as Redis reads it: digits without leading zeros, perhaps with a minus.
fn integer(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|n| n.to_string() == text)
}

fn word(words: &[&str], text: &str) -> Option<String> {
    words.iter().find(|w| w.eq_ignore_ascii_case(text)).map(|w| (*w).to_owned())
}

fn percentiles(name: &str, text: &str) -> Result<String, String> {
    for number in text.split_ascii_whitespace() {
        let Ok(value) = number.parse::<f64>() else {
            return Err(format!("Invalid {name} parameters"));
        };
        if !(0.0..=100.0).contains(&value) {
            return Err(format!("{name} parameters should sit between [0.0,100.0]"));
        }
    }
    Ok(text.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(line: &str) -> Result<BTreeMap<String, String>, String> {
        parse_pairs(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>())
    }

    fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_values() {
        assert!(ALL.is_sorted_by(|a, b| a.name < b.name));
        for setting in ALL {
            assert_eq!(
                setting.parse(setting.default.as_bytes()).as_deref(),
                Ok(setting.default),
                "{}",
                setting.name
            );
            assert_ne!(setting.doc.is_empty(), setting.fixed.is_none(), "{}", setting.name);
        }
    }

    #[test]
    fn the_page_on_configuration_lists_what_can_be_changed() {
        let page = include_str!("../../docs/configuration.md");
        let section = page.split("## Settings of the cluster").nth(1).unwrap().split("\n## ").next().unwrap();
        let rows: Vec<Vec<&str>> = section
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.split(" | ").map(|cell| cell.trim_matches(['|', ' ', '`'])).collect())
            .collect();
        let own: Vec<&Setting> = ALL.iter().filter(|s| s.fixed.is_none()).collect();
        assert_eq!(
            rows.iter().map(|r| r[0]).collect::<Vec<_>>(),
            own.iter().map(|s| s.name).collect::<Vec<_>>()
        );
        for (row, setting) in rows.iter().zip(own) {
            assert_eq!(row[3], setting.doc, "{}", setting.name);
            let is_default = row[2] == setting.default || ["the file's", "none"].contains(&row[2]);
            assert!(is_default, "{}: {}", setting.name, row[2]);
        }
    }

    #[test]
    fn values_are_kept_as_config_get_shows_them() {
        assert_eq!(set("MaxMemory 10mB").unwrap(), pairs(&[("maxmemory", "10485760")]));
        assert_eq!(set("maxmemory ").unwrap(), pairs(&[("maxmemory", "0")]));
        assert_eq!(set("maxmemory 1k").unwrap(), pairs(&[("maxmemory", "1000")]));
        assert_eq!(set("maxmemory-policy NoEviction").unwrap(), pairs(&[("maxmemory-policy", "noeviction")]));
        assert_eq!(
            set("latency-tracking YES timeout 5").unwrap(),
            pairs(&[("latency-tracking", "yes"), ("timeout", "5")])
        );
        assert_eq!(set("slowlog-log-slower-than -1").unwrap(), pairs(&[("slowlog-log-slower-than", "-1")]));
        assert_eq!(
            set("latency-tracking-info-percentiles ").unwrap(),
            pairs(&[("latency-tracking-info-percentiles", "")])
        );
    }

    #[test]
    fn errors_are_those_of_redis() {
        const FAILED: &str = "ERR CONFIG SET failed (possibly related to argument ";
        for (line, error) in [
            ("maxmemory abc", "'maxmemory') - argument must be a memory value"),
            ("maxmemory -1", "'maxmemory') - argument must be a memory value"),
            ("maxmemory 1gbx", "'maxmemory') - argument must be a memory value"),
            ("maxmemory 1gb MAXMEMORY 2gb", "'MAXMEMORY') - duplicate parameter"),
            (
                "maxmemory-samples 0",
                "'maxmemory-samples') - argument must be between 1 and 2147483647 inclusive",
            ),
            ("maxmemory-samples x", "'maxmemory-samples') - argument couldn't be parsed into an integer"),
            ("timeout 1.5", "'timeout') - argument couldn't be parsed into an integer"),
            ("timeout 010", "'timeout') - argument couldn't be parsed into an integer"),
            ("timeout +1", "'timeout') - argument couldn't be parsed into an integer"),
            ("latency-tracking maybe", "'latency-tracking') - argument must be 'yes' or 'no'"),
            (
                "maxmemory-policy x",
                "'maxmemory-policy') - argument(s) must be one of the following: volatile-lru, volatile-lfu, \
                 volatile-random, volatile-ttl, allkeys-lru, allkeys-lfu, allkeys-random, noeviction",
            ),
            (
                "latency-tracking-info-percentiles 101",
                "'latency-tracking-info-percentiles') - latency-tracking-info-percentiles parameters should sit \
                 between [0.0,100.0]",
            ),
        ] {
            assert_eq!(set(line).unwrap_err(), format!("{FAILED}{error}"), "{line}");
        }
        assert_eq!(set("maxmemory 1 foo").unwrap_err(), "ERR syntax error");
        assert_eq!(
            set("maxmemory 1 foo bar").unwrap_err(),
            "ERR Unknown option or number of arguments for CONFIG SET - 'foo'"
        );
        assert!(
            set("databases 3")
                .unwrap_err()
                .starts_with(&format!("{FAILED}'databases') - can't set immutable config: "))
        );
    }

    #[test]
    fn a_fixed_setting_may_be_set_to_what_it_is() {
        assert_eq!(set("save ").unwrap(), BTreeMap::new());
        assert_eq!(
            set("appendonly NO proto-max-bulk-len 32mb timeout 0").unwrap(),
            pairs(&[("timeout", "0")])
        );
        assert!(set("save 3600").is_err());
    }

    #[test]
    fn text_is_bounded_and_utf8() {
        let long = vec![b'x'; VALUE_BYTES_MAX + 1];
        assert!(parse_pairs(&[b"requirepass", &long]).is_err());
        assert!(parse_pairs(&[b"requirepass", &long[1..]]).is_ok());
        assert!(parse_pairs(&[b"requirepass", b"\xff"]).is_err());
    }
}
