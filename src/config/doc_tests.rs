//! `docs/configuration.md` says what the code does: its keys, their defaults, the values of limits.

use super::read::KEYS;
use super::*;
use ringfort_wire::settings;
use std::collections::BTreeMap;

const PAGE: &str = include_str!("../../docs/configuration.md");

/// The cells of the rows of one chapter's tables, headings left out.
fn rows(chapter: &str) -> Vec<Vec<&'static str>> {
    let start = PAGE.find(&format!("\n## {chapter}\n")).unwrap_or_else(|| panic!("no chapter {chapter}"));
    let text = &PAGE[start + 4..];
    let text = text.split("\n## ").next().unwrap_or(text);
    let lines = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows = lines.map(|line| line.split(" | ").map(str::trim).collect::<Vec<_>>());
    rows.filter(|row| !row[0].starts_with("---")).skip(1).collect()
}

/// The words of a cell that stand between backticks.
fn quoted(cell: &'static str) -> impl Iterator<Item = &'static str> {
    cell.split('`').skip(1).step_by(2)
}

/// The page's keys: section, key, default.
fn keys() -> Vec<(&'static str, &'static str, &'static str)> {
    let mut section = "";
    let mut keys = Vec::new();
    for row in rows("Keys") {
        let name = quoted(row[0]).next().unwrap_or_else(|| panic!("no name in {row:?}"));
        if row[0].starts_with("**") {
            section = name;
        } else {
            keys.push((section, name, row[2]));
        }
    }
    keys
}

#[test]
fn every_key_has_its_row_and_every_row_its_key() {
    let mut known: Vec<_> =
        KEYS[1..].iter().flat_map(|(of, keys)| keys.iter().map(|key| (*of, *key))).collect();
    let mut told: Vec<_> = keys().into_iter().map(|(section, key, _)| (section, key)).collect();
    known.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, known);
}

/// A file with the required keys of the page, three nodes and TLS, and `more` lines (section, line).
fn file(without: Option<(&str, &str)>, more: Option<(&str, &str)>) -> String {
    let mut text = String::new();
    let mut port = 7000;
    for section in ["[tls]", "[cluster]", "[proxy]", "[log]", "[[node]]", "[[node]]", "[[node]]"] {
        text += &format!("{section}\n");
        for (_, key, _) in keys().into_iter().filter(|(of, key, default)| {
            *of == section && default.contains("required") && without != Some((*of, *key))
        }) {
            port += 1;
            text += &match key {
                "client" | "peer" | "listen" => format!("{key} = \"127.0.0.1:{port}\"\n"),
                _ => format!("{key} = \"x{port}\"\n"),
            };
        }
        if section == "[proxy]" {
            text += "tls_listen = \"127.0.0.1:6999\"\n";
        }
        text +=
            &more.filter(|(of, _)| *of == section).map_or_else(String::new, |(_, line)| format!("{line}\n"));
    }
    text
}

#[test]
fn required_keys_are_those_that_the_page_calls_so() {
    let bare = Config::parse(&file(None, None), "x.toml");
    assert!(bare.is_ok(), "another key is required: {bare:?}");
    for (section, key, default) in keys() {
        if default.contains("required") {
            let error = Config::parse(&file(Some((section, key)), None), "x.toml").unwrap_err().to_string();
            assert!(error.contains(&format!("key '{key}' is missing in {section}")), "{error}");
        }
    }
}

#[test]
fn defaults_are_those_of_the_page() {
    let bare = Config::parse(&file(None, None), "x.toml").unwrap();
    let mut checked = 0;
    for (section, key, default) in keys() {
        let value = default.trim_matches('`');
        // Else it has none, or one that depends on another key.
        if !default.contains("none") && !default.contains("with") {
            let text = file(None, Some((section, &format!("{key} = {value}"))));
            let mut given = Config::parse(&text, "x.toml").unwrap_or_else(|error| panic!("{key}: {error}"));
            // Lines may have moved.
            given.tls.clone_from(&bare.tls);
            assert_eq!(given, bare, "{key} = {value} is not the default");
            checked += 1;
        }
    }
    assert!(checked >= 6, "{checked}");
}

/// The text of every constant of the workspace, by its name.
fn constants() -> BTreeMap<String, Vec<String>> {
    let mut constants: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = ["src", "proxy/src", "store/src", "resp/src", "wire/src", "ring/src"];
    let mut folders: Vec<PathBuf> = crates.iter().map(|of| root.join(of)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for (before, after) in text.match_indices("const ").map(|(at, _)| (&text[..at], &text[at + 6..]))
            {
                let is_item = before
                    .rsplit('\n')
                    .next()
                    .is_some_and(|line| line.trim().is_empty() || line.ends_with(' '));
                if let (true, Some((name, rest))) = (is_item, after.split_once(": "))
                    && let Some((_, value)) = rest.split_once(" = ")
                    && let Some((value, _)) = value.split_once(';')
                    && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
                {
                    constants.entry(name.to_owned()).or_default().push(value.to_owned());
                }
            }
        }
    }
    constants
}

/// The ways in which the page may write a value; empty for one that is no number.
fn forms(name: &str, value: &str) -> Vec<String> {
    let (text, unit_us) = match value.strip_prefix("Duration::from_") {
        Some(value) if value.starts_with("secs(") => (&value[5..value.len() - 1], 1_000_000),
        Some(value) if value.starts_with("millis(") => (&value[7..value.len() - 1], 1_000),
        _ if name.ends_with("_US") => (value, 1),
        _ if name.ends_with("_MS") => (value, 1_000),
        _ => (value, 0),
    };
    let Some(number) = product(&text.replace("u16::MAX", "65535").replace(" as usize", "")) else {
        return Vec::new();
    };
    let of = |unit: u64, word: &str| {
        number.is_multiple_of(unit).then(|| format!("{} {word}", number / unit)).into_iter()
    };
    if unit_us > 0 {
        let us = number * unit_us;
        return [(60_000_000, "min"), (1_000_000, "s"), (1_000, "ms")]
            .into_iter()
            .filter(|(unit, _)| us.is_multiple_of(*unit))
            .map(|(unit, word)| format!("{} {word}", us / unit))
            .collect();
    }
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|g| core::str::from_utf8(g).unwrap()).collect();
    let plain = [digits.clone(), groups.join(",")].into_iter();
    plain.chain(of(1 << 10, "KiB")).chain(of(1 << 20, "MiB")).chain(of(1 << 30, "GiB")).collect()
}

/// The value of numbers joined by `*`, `+`, `-` or `<<`, from left to right.
fn product(text: &str) -> Option<u64> {
    let mut words = text.split(' ');
    let number = |word: &str| word.trim_end_matches("u64").replace('_', "").parse::<u64>().ok();
    let mut value = number(words.next()?)?;
    while let Some(operator) = words.next() {
        let right = number(words.next()?)?;
        value = match operator {
            "*" => value * right,
            "+" => value + right,
            "-" => value - right,
            "<<" => value << right,
            _ => return None,
        };
    }
    Some(value)
}

/// Whether `text` holds `value`, not as a part of a longer number.
fn holds(text: &str, value: &str) -> bool {
    text.match_indices(value).any(|(at, _)| {
        let after = text[at + value.len()..].trim_start_matches(',');
        !text[..at].ends_with(|c: char| c.is_ascii_digit() || c == ',')
            && !after.starts_with(|c: char| c.is_ascii_digit())
    })
}

#[test]
fn limits_have_the_values_of_the_code() {
    let constants = constants();
    let mut checked = 0;
    for row in rows("Fixed limits") {
        for name in quoted(row[3]).filter(|name| name.contains('_') && name.to_uppercase() == **name) {
            let values = constants.get(name).unwrap_or_else(|| panic!("there is no constant {name}"));
            let forms: Vec<String> = values.iter().flat_map(|value| forms(name, value)).collect();
            let told = format!("{} {}", row[1], row[2]);
            assert!(
                forms.iter().any(|form| holds(&told, form)),
                "{name} is {values:?}, the page says: {told}"
            );
            checked += 1;
        }
    }
    assert!(checked >= 25, "{checked}");
}

#[test]
fn settings_have_their_rows_with_their_defaults() {
    let rows = rows("Settings of the cluster");
    let told: Vec<_> = rows.iter().map(|row| quoted(row[0]).next().unwrap_or_default()).collect();
    let settings = || settings::ALL.iter().filter(|setting| setting.fixed.is_none());
    assert_eq!(told, settings().map(|setting| setting.name).collect::<Vec<_>>());
    for (setting, row) in settings().zip(&rows) {
        let default = match setting.name {
            settings::MAXMEMORY => "the file's".to_owned(),
            _ if setting.default.is_empty() => "none".to_owned(),
            _ => format!("`{}`", setting.default),
        };
        assert_eq!(row[2], default, "{}", setting.name);
    }
}

/// The name of a heading in a link, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn links_between_pages_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(|name| root.join(name));
    let mut links = 0;
    for page in pages.into_iter().chain(docs.filter(|path| path.extension().is_some_and(|e| e == "md"))) {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.contains(' ') {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            if !heading.is_empty() {
                let target = std::fs::read_to_string(&target).unwrap();
                let headings = target.lines().filter(|line| line.starts_with('#'));
                let mut anchors = headings.map(|line| anchor(line.trim_start_matches('#').trim()));
                assert!(anchors.any(|a| a == heading), "{}: {link} has no such heading", page.display());
            }
            links += 1;
        }
    }
    assert!(links > 10, "{links}");
}
