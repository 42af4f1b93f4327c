//! The `ringfort` binary: parses the arguments and runs one subcommand.

use std::process::ExitCode;

use clap::Parser as _;
use ringfort::cli::{Cli, run};

/// Each worker allocates and frees on its own thread, millions of small things a second: the system's allocator spends
/// several times as long on that (`scripts/bench`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    run(Cli::parse())
}
