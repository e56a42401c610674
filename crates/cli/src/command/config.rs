//! `psdb config`: what is right and wrong with a configuration file.

use std::path::PathBuf;

use crate::failure::Failure;
use crate::output;

/// Check a configuration file.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Say every mistake in a configuration file with its line, without starting anything.
    #[command(
        after_help = "Examples:\n  psdb config check psdb.toml\n\nExit codes: 0 no mistake; 2 mistakes."
    )]
    Check {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Action::Check { file } = arguments.action;
    match server::check_config(&file) {
        Ok(summary) => output::say(summary),
        Err(failure) => Err(Failure { message: failure.to_string(), exit_code: failure.exit_code() }),
    }
}
