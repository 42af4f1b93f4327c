//! The `ringfort` binary: parses the arguments and runs one subcommand.

use std::process::ExitCode;

use clap::Parser as _;
use ringfort::cli::{Cli, run};

fn main() -> ExitCode {
    run(Cli::parse())
}
