//! `ringfort man`: the manual pages.

use std::path::PathBuf;

use clap::CommandFactory as _;

use super::Cli;
use super::output::out;
use crate::config::reason;

/// Write the manual pages, one for each subcommand, into a folder.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ringfort man ~/.local/share/man/man1
  man ringfort-status")]
pub(super) struct Args {
    /// The folder, made when missing
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let folder = args.folder.display();
    let failed = |error: std::io::Error| anyhow::anyhow!("cannot write to {folder}: {}", reason(&error));
    std::fs::create_dir_all(&args.folder).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.folder).map_err(failed)?;
    out(&format!("manual pages of ringfort and its subcommands are in {folder}"));
    Ok(())
}
