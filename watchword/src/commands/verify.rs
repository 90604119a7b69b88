//! `verify`: checks that nothing in the history was changed, removed or added.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tlog::VerifierKey;

use super::{Globals, Output, Run};
use crate::verify::{self, Given, Witnesses};

/// Check that nothing in the history was changed, removed or put in
///
/// Reads the configured journal, and changes nothing: the MAC and place of each event, its shape, its sealed part, the claims
/// and snapshots, and the root of the Merkle tree. Nodes on PostgreSQL or KurrentDB keep running; with a journal in SQLite
/// the server must be stopped.
///
/// With --file, an export (`watchword export`) is checked offline, without configuration or stores: every line, their order,
/// and their Merkle tree against signed checkpoints (`GET /v1/audit/checkpoint`). With --receipt, one event and the proof
/// that it is in the log (`GET /v1/audit/receipt`). Keys that a given one endorsed in the history of the export are
/// believed, too.
#[derive(Debug, Args)]
pub struct Verify {
    /// An export of the whole history, one event a line
    #[arg(long, value_name = "FILE", value_parser = file, requires_all = ["checkpoint", "key"], group = "what")]
    file: Option<PathBuf>,
    /// A signed checkpoint. If there are several, the largest that fits narrows down what was changed
    #[arg(long, value_name = "FILE", value_parser = file, requires = "file")]
    checkpoint: Vec<PathBuf>,
    /// A receipt of one event
    #[arg(long, value_name = "FILE", value_parser = file, requires = "key", group = "what")]
    receipt: Option<PathBuf>,
    /// The log's public key (`GET /v1/audit/key`), or a file with one a line
    #[arg(long, value_name = "KEY", requires = "what")]
    key: Vec<Given>,
    /// A witness's public key: the checkpoints must have its co-signature
    #[arg(long, value_name = "KEY", requires = "key")]
    witness: Vec<VerifierKey>,
    #[command(flatten)]
    output: Output,
}

/// The path of a file that exists.
fn file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => Err("it is a folder".to_owned()),
        Ok(_) => Ok(path),
        Err(error) => Err(error.to_string()),
    }
}

impl Run for Verify {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let keys: Vec<VerifierKey> = self.key.into_iter().flat_map(|Given(keys)| keys).collect();
        let witnesses = Witnesses(self.witness);
        let verdict = match (&self.file, &self.receipt) {
            (Some(file), _) => verify::export::verify(file, &self.checkpoint, keys, &witnesses)?,
            (None, Some(receipt)) => verify::receipt::verify(receipt, keys, &witnesses)?,
            (None, None) => {
                return globals.with_config(async |config| {
                    Box::pin(verify::live::verify(&config)).await?.print(self.output.json)
                });
            }
        };
        verdict.print(self.output.json)
    }
}
