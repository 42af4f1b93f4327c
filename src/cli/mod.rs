//! The command line: one file per subcommand.
//!
//! Exit codes: 0 done, 1 failed, 2 usage (of `plan` also: changes). An error is one clear line on stderr, `error: ...`.

mod apply;
mod check_config;
mod client;
mod completions;
mod drain;
mod find;
mod log_level;
mod looks;
mod man;
mod meta_group;
mod node;
mod output;
mod plan;
mod process;
mod proxy;
mod recover;
mod status;
mod transfer;
mod up;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Parser, Subcommand};
use ringfort_proxy::logging::{self, Format};

/// The config file that is used when none is named.
const DEFAULT_CONFIG: &str = "configs/local.toml";

/// Name of the built-in config in messages.
const BUILT_IN_CONFIG: &str = "the built-in local.toml";

/// A sharded cache cluster for Redis clients, replicated by Raft: an acknowledged write is never lost.
#[derive(Debug, Parser)]
#[command(name = "ringfort", version, arg_required_else_help = true, after_help = TOUR, styles = STYLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Colours of the help, on a terminal without NO_COLOR.
const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const TOUR: &str = "\
First steps:
  ringfort up                            three nodes and a proxy on this machine
  redis-cli -p 6379 set greeting hello   any Redis client, one address
  redis-cli -c -p 7001 get greeting      a cluster-aware client, to the nodes
  ringfort status --watch                who leads what, again every second

Environment:
  RINGFORT_LOG   what logs show, unless --log-level says it: off, error, warn,
                 info, debug, trace; or per module: info,ringfort::shard=debug
  NO_COLOR       when set: no colours";

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Args),
    Node(node::Args),
    Proxy(proxy::Args),
    Status(status::Args),
    Plan(plan::Args),
    Apply(apply::Args),
    Abort(apply::AbortArgs),
    Drain(drain::Args),
    Undrain(drain::UndrainArgs),
    Transfer(transfer::Args),
    Recover(recover::Args),
    LogLevel(log_level::Args),
    CheckConfig(check_config::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Runs one subcommand to its end.
pub fn run(cli: Cli) -> ExitCode {
    let done = |result: anyhow::Result<()>| result.map(|()| ExitCode::SUCCESS);
    let result = match cli.command {
        Command::Up(args) => done(up::run(args)),
        Command::Node(args) => done(node::run(args)),
        Command::Proxy(args) => done(proxy::run(args)),
        Command::Status(args) => done(status::run(args)),
        Command::Plan(args) => plan::run(args),
        Command::Apply(args) => done(apply::run(args)),
        Command::Abort(args) => done(apply::abort(args)),
        Command::Drain(args) => done(drain::run(args)),
        Command::Undrain(args) => done(drain::undrain(args)),
        Command::Transfer(args) => done(transfer::run(args)),
        Command::Recover(args) => done(recover::run(args)),
        Command::LogLevel(args) => done(log_level::run(args)),
        Command::CheckConfig(args) => done(check_config::run(args)),
        Command::Completions(args) => done(completions::run(args)),
        Command::Man(args) => done(man::run(args)),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            for line in format!("{error:#}").lines() {
                if logging::format() == Some(Format::Json) && tracing::enabled!(tracing::Level::ERROR) {
                    tracing::error!("{line}");
                } else {
                    output::err(&format!("error: {line}"));
                }
            }
            ExitCode::FAILURE
        }
    }
}

/// The config file to use: the one named, else [`DEFAULT_CONFIG`] when it is there, else `None` for the built-in text.
fn config_path(named: Option<PathBuf>) -> Option<PathBuf> {
    named.or_else(|| Some(PathBuf::from(DEFAULT_CONFIG)).filter(|path| path.exists()))
}

/// Where the data of a cluster lies when no folder is named; each node has a folder of its id in it.
fn default_data_dir(cluster: &str) -> PathBuf {
    Path::new("data").join(cluster)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_subcommand_teaches_by_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.clone().render_long_help().to_string();
            let example = format!("ringfort {}", command.get_name());
            assert!(help.contains("Examples:") && help.contains(&example), "{example}: {help}");
        }
    }

    #[test]
    fn examples_fit_80_columns() {
        let commands = Cli::command();
        for command in commands.get_subcommands().chain([&commands]) {
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in examples.lines() {
                assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
            }
        }
    }

    #[test]
    fn hidden_flags_stay_hidden() {
        for command in Cli::command().get_subcommands() {
            assert!(!command.clone().render_long_help().to_string().contains("parent-pipe"));
        }
    }

    #[test]
    fn a_named_config_wins_over_the_default() {
        assert_eq!(config_path(Some("x.toml".into())), Some(PathBuf::from("x.toml")));
    }
}
