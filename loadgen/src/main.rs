//! `ringfort-loadgen`: measures and checks a server that speaks the Redis protocol.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
