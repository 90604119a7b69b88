//! `record-loss`: puts on record that the journal lost events of which a checkpoint was signed.
//!
//! A node does this by itself if it has seen the lost events, or its read models have. Where only the signed checkpoint tells of
//! them, the operator decides: whoever puts an older journal in place could otherwise have it signed.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use event_store::{Lost, SystemClock};
use serde_json::json;

use super::{Globals, Output, Run};
use crate::config::Config;
use crate::data_dir::{self, DataDirError, State};
use crate::instance::{LostSigned, Stores, of_signed};

/// Put on record that the journal lost events of which a checkpoint was signed
///
/// For use after an older state of the journal was restored, if a backup with these events does not exist: until then no checkpoint
/// is signed (503 `checkpoint_refused`). The record is the event JournalWentBack, which everybody sees who reads events, and
/// auditors find. Without --yes it says what is lost and changes nothing; exit code 1 means that something is. With a journal in
/// SQLite the server must be stopped; with PostgreSQL or KurrentDB nodes keep running.
#[derive(Debug, Args)]
pub struct RecordLoss {
    /// Confirm that the events are lost
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    output: Output,
}

impl Run for RecordLoss {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        globals.with_config(async |config| Box::pin(run(&config, self.yes, self.output.json)).await)
    }
}

async fn run(config: &Config, record: bool, as_json: bool) -> anyhow::Result<ExitCode> {
    if data_dir::inspect(config)? == State::Fresh {
        return Err(DataDirError::Absent { path: config.data_dir.clone() }.into());
    }
    let stores = Stores::open_truth(config).await?;
    let found = look_and_record(&stores, record).await;
    stores.close().await;
    report(found?.as_ref(), as_json)
}

/// The loss, and whether it is on record now.
async fn look_and_record(stores: &Stores, record: bool) -> anyhow::Result<Option<LostSigned>> {
    let newest = stores.key_store().checkpoint().await?;
    let mut found = of_signed(stores.journal(), newest.as_ref()).await?;
    if let Some(LostSigned { lost, is_recorded }) = found.as_mut().filter(|it| record && !it.is_recorded) {
        event_store::epoch::record(stores.journal(), &SystemClock, lost).await?;
        *is_recorded = true;
    }
    Ok(found)
}

fn report(found: Option<&LostSigned>, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    let is_recorded = found.is_none_or(|found| found.is_recorded);
    let code = if is_recorded { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if as_json {
        let lost = found.map(|LostSigned { lost: Lost { position, event, head }, .. }| {
            json!({ "position": position, "event": event, "head": head })
        });
        writeln!(out, "{}", json!({ "lost": lost, "recorded": found.is_some() && is_recorded }))?;
        return Ok(code);
    }
    let Some(LostSigned { lost: Lost { position, event, head }, .. }) = found else {
        writeln!(out, "The journal has all events of which a checkpoint was signed: nothing is lost.")?;
        return Ok(code);
    };
    writeln!(
        out,
        "A checkpoint of {position} events was signed, and the journal, which ends at event {head}, does not have the last of \
         them, {event}."
    )?;
    if is_recorded {
        writeln!(
            out,
            "The loss is on record in the event JournalWentBack: the next checkpoint is signed of the journal as it is now. Do \
             what \u{ab}Restoring\u{bb} in deploy/README.md says about lost events."
        )?;
    } else {
        writeln!(
            out,
            "Restore a backup that has it. If there is none, run this with --yes to put the loss on record."
        )?;
    }
    Ok(code)
}
