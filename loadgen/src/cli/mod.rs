//! The command line. Exit codes: 0 done, 1 failed (or a violation was found), 2 usage or no connection.

mod check;
mod compare;
mod load;

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// Measures and checks a server that speaks the Redis protocol.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 110,
    after_help = "\
Environment:
  RINGFORT_PASSWORD   password of the server's user 'default', if it wants one"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Fill(load::FillArgs),
    Run(load::RunArgs),
    Compare(compare::Args),
    Check(check::Args),
}

/// Runs the command line.
pub(crate) fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Fill(args) => load::fill(args),
        Command::Run(args) => load::run(args),
        Command::Compare(args) => compare::main(args),
        Command::Check(args) => check::main(args),
    }
}

/// Reads a duration: `30s`, `500ms`, `2m`, `1h`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unknown unit {unit:?}: use ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| "expected a number and a unit, such as 30s".to_owned())?;
    Duration::try_from_secs_f64(number * scale).map_err(|error| error.to_string())
}

/// Reads `host:port`.
fn address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err("expected host:port, such as 127.0.0.1:6379".to_owned()),
    }
}

/// Writes `report` to a file; says so when it cannot.
fn write_json(path: &Path, report: &impl serde::Serialize) -> bool {
    written(path, |out| {
        serde_json::to_writer_pretty(&mut *out, report)?;
        out.flush()
    })
}

/// Writes a file; says so when it cannot.
fn written(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> bool {
    let result = File::create(path).and_then(|file| write(&mut BufWriter::new(file)));
    if let Err(error) = &result {
        let _ = writeln!(io::stderr(), "ringfort-loadgen: cannot write {}: {error}", path.display());
    }
    result.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("3"), Ok(Duration::from_secs(3)));
        for bad in ["", "s", "1d", "1..2s", "-1s", "1e300h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
