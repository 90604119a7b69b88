//! `users`: the users of an app in bulk.

use std::process::ExitCode;

use clap::Subcommand;

use super::{Globals, Run};

mod export;
mod import;

/// Users of an app in bulk
#[derive(Debug, Subcommand)]
pub enum Users {
    /// Import users from another system, or from `users export`
    ///
    /// A person's id follows from their `id`, `external_id` or else address, so a file can be imported again, also after an import
    /// was cut off: whoever is there already is skipped. A person who was erased since does not come back. Entries that are
    /// wrong are reported by their lines, and the others are imported. Who held the app's admin role gets it, if their address
    /// is verified, and chooses a new password.
    Import(import::Import),
    /// Write the users of an app to stdout, one JSON object per line, as `users import` reads them
    ///
    /// Names and addresses are in clear text. The export is recorded in the history. With a journal in SQLite the server must
    /// be stopped; with PostgreSQL or KurrentDB nodes keep running.
    Export(export::Export),
}

impl Run for Users {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        globals.with_config(async |config| match self {
            Self::Import(command) => Box::pin(import::run(config, command)).await,
            Self::Export(command) => Box::pin(export::run(&config, &command)).await,
        })
    }
}
