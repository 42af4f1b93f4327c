//! What every long-running subcommand does to its own process: log, limit of open files, tie to its parent.

use std::ffi::OsString;
use std::io::Read as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use ringfort_proxy::logging::{self, Format};
use ringfort_proxy::server::faults;
use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};

use crate::config::{Config, LogConfig};

/// Environment variable that sets what the log shows.
const LOG_VARIABLE: &str = "RINGFORT_LOG";

/// How long a process whose parent is gone may take to stop in order. Longer than the 10 s that `up` itself grants.
const ORPHAN_STOP: Duration = Duration::from_secs(15);

/// Number of workers when none is given: one per core.
pub(super) fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How a long-running subcommand logs.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Log")]
pub(super) struct LogArgs {
    /// What the log shows: off, error, warn, info, debug, trace, or per module, such as
    /// info,ringfort::shard=debug [default: RINGFORT_LOG, else level of [log], else info]
    #[arg(long, value_name = "LEVELS", value_parser = levels)]
    pub(super) log_level: Option<String>,
    /// Form of its lines on stderr: text or json [default: format of [log], else text]
    #[arg(long, value_name = "FORMAT", value_parser = format_parser(), hide_possible_values = true)]
    pub(super) log_format: Option<Format>,
}

fn levels(text: &str) -> Result<String, String> {
    logging::check_levels(text).map(|()| text.to_owned())
}

fn format_parser() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(["text", "json"]).map(|name| Format::parse(&name).unwrap_or_default())
}

impl LogArgs {
    /// Starts the log as the arguments, [`LOG_VARIABLE`] and the file ask, in this order.
    ///
    /// # Errors
    /// The variable holds no levels.
    pub(super) fn start(&self, file: &LogConfig) -> anyhow::Result<()> {
        let variable = std::env::var(LOG_VARIABLE).ok().filter(|text| !text.is_empty());
        let levels = match (&self.log_level, variable) {
            (Some(levels), _) => levels.clone(),
            (None, Some(levels)) => {
                logging::check_levels(&levels).map_err(|error| anyhow::anyhow!("{LOG_VARIABLE}: {error}"))?;
                levels
            }
            (None, None) => file.level.clone(),
        };
        logging::start(self.format(file), &levels).map_err(anyhow::Error::msg)
    }

    /// The form of the lines.
    pub(super) fn format(&self, file: &LogConfig) -> Format {
        self.log_format.unwrap_or(file.format)
    }

    /// The same as arguments for a child.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        if let Some(levels) = &self.log_level {
            arguments.extend(["--log-level".into(), levels.into()]);
        }
        if let Some(format) = self.log_format {
            arguments.extend(["--log-format".into(), format.as_str().into()]);
        }
        arguments
    }
}

/// Raises the soft limit of open files to the hard one: each client is a file.
pub(super) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "cannot raise the limit of open files");
        }
    }
}

/// Lets RINGFORT FAULT cut this process off from the nodes of the file, and fill its disk.
///
/// # Errors
/// The thread that ends faults cannot be started.
pub(super) fn enable_faults(config: &Config) -> anyhow::Result<()> {
    let nodes = config.nodes.iter().map(|node| (node.id.0.clone(), node.peer));
    faults::enable(nodes).context("cannot start a thread")
}

/// Stops this process when its stdin ends, so that a child never outlives the `up` that holds the other end, not even
/// after `kill -9`: first in order by SIGTERM, then, if that hangs, by SIGKILL.
///
/// # Errors
/// The thread that watches cannot be started.
pub(super) fn stop_with_parent() -> anyhow::Result<()> {
    let watch = || {
        let mut stdin = std::io::stdin().lock();
        let mut ignored = [0; 256];
        // Whatever comes is ignored; an error on stdin is its end as well.
        while matches!(stdin.read(&mut ignored), Ok(1..)) {}
        tracing::warn!("the process that started this one is gone: stopping");
        let _ = kill_process(getpid(), Signal::TERM);
        pause(ORPHAN_STOP);
        let _ = kill_process(getpid(), Signal::KILL);
    };
    std::thread::Builder::new()
        .name("parent-pipe".to_owned())
        .spawn(watch)
        .context("cannot start a thread")?;
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "between two looks at other processes, or before the last resort: there is nothing to wait on"
)]
pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}
