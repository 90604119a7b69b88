//! `person`: what is held about one person, through the REST API.

use std::io::{Write, stdout};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::user::UserTarget;
use super::{Globals, Run};

/// What is held about one person
#[derive(Debug, Subcommand)]
pub enum Person {
    /// Write all that is held about a person to stdout, as one JSON document: events, opened, and what is derived from them
    Export(Export),
}

#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    user: UserTarget,
}

impl Run for Person {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let Self::Export(Export { user }) = self;
        globals.with_config(async |config| {
            let mut out = stdout().lock();
            Box::pin(user.copy(config, "/export", &mut out)).await?;
            writeln!(out)?;
            Ok(ExitCode::SUCCESS)
        })
    }
}
