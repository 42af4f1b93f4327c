//! What every long-running subcommand does to its own process: log, limit of open files, tie to its parent.

use std::io::{IsTerminal as _, Read as _};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};
use tracing_subscriber::EnvFilter;

/// Environment variable that sets what the log shows.
const LOG_VARIABLE: &str = "RINGFORT_LOG";

/// How long a process whose parent is gone may take to stop in order. Longer than the 10 s that `up` itself grants.
const ORPHAN_STOP: Duration = Duration::from_secs(15);

/// Number of workers when none is given: one per core.
pub(super) fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Sends log lines to stderr, as [`LOG_VARIABLE`] asks, from `info` up when it is not set.
///
/// # Errors
/// The variable holds no filter.
pub(super) fn start_log() -> anyhow::Result<()> {
    let wanted = std::env::var(LOG_VARIABLE).ok().filter(|text| !text.is_empty());
    let text = wanted.unwrap_or_else(|| "info".to_owned());
    let filter = EnvFilter::try_new(&text).with_context(|| {
        format!("{LOG_VARIABLE}={text} is no filter; use error, warn, info, debug or trace")
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // Its report of a failed write panics when stderr is gone, as it is for a child after `kill -9` of `up`.
        .log_internal_errors(false)
        .try_init()
        .map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))
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
    reason = "the last resort of a process that hangs: there is nothing to wait on"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
