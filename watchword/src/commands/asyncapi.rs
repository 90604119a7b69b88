//! `asyncapi`: prints the document of the events on NATS.

use std::process::ExitCode;

use clap::Args;

use super::{Globals, Run};
use crate::documents;

/// Print the AsyncAPI document of the events on NATS
#[derive(Debug, Args)]
pub struct Asyncapi {}

impl Run for Asyncapi {
    fn run(self, _: &Globals) -> anyhow::Result<ExitCode> {
        documents::asyncapi()
    }
}
