//! `schemas`: the JSON Schemas of all events.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{Globals, Run};
use crate::documents;

/// Print the JSON Schemas of all events, or write them to a folder
#[derive(Debug, Args)]
pub struct Schemas {
    /// The folder to write the schemas to, one file each
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

impl Run for Schemas {
    fn run(self, _: &Globals) -> anyhow::Result<ExitCode> {
        documents::schemas(self.out.as_deref())
    }
}
