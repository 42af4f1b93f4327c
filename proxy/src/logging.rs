//! The log of the process: lines on stderr, text or JSON; what it shows can be changed while it runs (RINGFORT LOG).
//!
//! *Levels* say what is shown: one of [`LEVELS`] for everything, and `MODULE=LEVEL` for a module and what is below it, joined
//! by commas: `info,ringfort::shard=debug`. The longest module that fits counts.
//!
//! A JSON line is one object with `timestamp`, `level`, `target` (the module), `message`, and the fields of the event.

use parking_lot::Mutex;
use std::io::IsTerminal as _;
use std::sync::OnceLock;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// What is shown when nobody says.
pub const LEVELS_DEFAULT: &str = "info";

/// Longest text of levels, bytes.
pub const LEVELS_BYTES_MAX: usize = 1024;

/// The levels, from the fewest lines to the most.
pub const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: one object.
    Json,
}

impl Format {
    /// The format of this name, `text` or `json`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// The log, once it is started.
#[derive(Debug)]
struct Log {
    format: Format,
    filter: reload::Handle<Targets, Registry>,
    levels: Mutex<String>,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Starts the log of this process. Only the first call counts.
///
/// # Errors
/// The levels are none; the sentence says what to write.
pub fn start(format: Format, levels: &str) -> Result<(), String> {
    let (filter, handle) = reload::Layer::new(targets(levels)?);
    let is_coloured =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // Its report of a failed write panics when stderr is gone, as it is for a child after `kill -9` of its parent.
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(is_coloured).log_internal_errors(false);
    let lines = match format {
        Format::Text => lines.boxed(),
        Format::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    };
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        let log = Log { format, filter: handle, levels: Mutex::new(levels.to_owned()) };
        LOG.set(log).expect("whoever could install the subscriber is the first");
    }
    Ok(())
}

/// The form of the lines; `None` before the log is started.
pub fn format() -> Option<Format> {
    LOG.get().map(|log| log.format)
}

/// The levels now; `None` before the log is started.
pub fn levels() -> Option<String> {
    LOG.get().map(|log| log.levels.lock().clone())
}

/// Changes the levels from the next line on.
///
/// # Errors
/// They are none, or this process has no log.
pub fn set_levels(levels: &str) -> Result<(), String> {
    let filter = targets(levels)?;
    let log = LOG.get().ok_or("this process has no log")?;
    let mut current = log.levels.lock();
    log.filter.reload(filter).map_err(|error| error.to_string())?;
    tracing::info!(from = %*current, to = levels, "log levels changed");
    levels.clone_into(&mut current);
    Ok(())
}

/// Checks levels.
///
/// # Errors
/// What is wrong and what to write.
pub fn check_levels(levels: &str) -> Result<(), String> {
    targets(levels).map(drop)
}

fn targets(levels: &str) -> Result<Targets, String> {
    if levels.len() > LEVELS_BYTES_MAX {
        return Err(format!("the levels are longer than {LEVELS_BYTES_MAX} bytes"));
    }
    let is_module = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'))
    };
    for part in levels.split(',') {
        let (module, level) = part.split_once('=').unwrap_or(("everything", part));
        if !LEVELS.contains(&level) || !is_module(module) {
            return Err(format!(
                "'{}' is no level: write {}, or MODULE=LEVEL, joined by commas, such as info,ringfort::shard=debug",
                part.escape_debug(),
                LEVELS.join(", ")
            ));
        }
    }
    levels.parse().map_err(|error| format!("'{}' is no level: {error}", levels.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_checked() {
        for good in ["info", "off", "info,ringfort::shard=debug,ringfort_proxy=trace"] {
            assert_eq!(check_levels(good), Ok(()), "{good}");
        }
        for bad in
            ["", "loud", "INFO", "info,", "info,ringfort", "a b=info", "x=y=info", "=info", "\u{1b}[2J"]
        {
            let error = check_levels(bad).unwrap_err();
            assert!(error.contains("is no level: write off, error, warn, info, debug, trace, or"), "{error}");
            assert!(!error.contains('\u{1b}'), "{error:?}");
        }
        assert!(check_levels(&"info,".repeat(300)).unwrap_err().contains("longer than 1024 bytes"));
    }

    #[test]
    fn modules_have_levels_of_their_own() {
        let filter = targets("warn,ringfort::shard=debug").unwrap();
        assert!(filter.would_enable("ringfort::shard::raft", &tracing::Level::DEBUG));
        assert!(!filter.would_enable("ringfort::node", &tracing::Level::INFO));
        assert!(filter.would_enable("ringfort::node", &tracing::Level::WARN));
    }

    #[test]
    fn formats_have_names() {
        for format in [Format::Text, Format::Json] {
            assert_eq!(Format::parse(format.as_str()), Some(format));
        }
        assert_eq!(Format::parse("xml"), None);
    }
}
