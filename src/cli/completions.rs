//! `ringfort completions`: what a shell needs to complete the command line.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Cli;
use super::output::out;

/// Print the completion script of a shell.
///
/// Load it once to try it, or put it where the shell looks for such scripts.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  source <(ringfort completions bash)
  ringfort completions bash > /etc/bash_completion.d/ringfort
  ringfort completions zsh > ~/.zfunc/_ringfort
  ringfort completions fish > ~/.config/fish/completions/ringfort.fish")]
pub(super) struct Args {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ringfort", &mut script);
    out(String::from_utf8(script)?.trim_end());
    Ok(())
}
