//! `openapi`: prints the API's document.

use std::process::ExitCode;

use clap::Args;

use super::{Globals, Run, runtime};
use crate::documents;

/// Print the OpenAPI document
#[derive(Debug, Args)]
pub struct Openapi {}

impl Run for Openapi {
    fn run(self, _: &Globals) -> anyhow::Result<ExitCode> {
        runtime()?.block_on(documents::openapi())
    }
}
