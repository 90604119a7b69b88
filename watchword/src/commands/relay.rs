//! `relay`: compares the stream on NATS with the journal, or rebuilds it.

use clap::Args;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use effects::relay::{self, RebuildError, StreamStanding};
use event_store::{OpenError, SystemClock};
use serde_json::json;

use super::{Globals, Output, Run};
use crate::bus;
use crate::config::{Config, Nats};
use crate::data_dir::{self, DataDirError, State};
use crate::instance::Stores;
use crate::progress::Progress;

/// Compare the stream on NATS with the journal, or rebuild it
///
/// Without --rebuild nothing is changed; exit code 1 if the stream's end does not match the journal's.
#[derive(Debug, Args)]
pub struct Relay {
    /// Delete the stream, whatever it contains, and refill it from the journal
    ///
    /// Its consumers are deleted with it: recreate them after the position they have handled. Servers may keep running;
    /// one that holds an SQLite journal fills the stream itself.
    #[arg(long)]
    rebuild: bool,
    #[command(flatten)]
    output: Output,
}

impl Run for Relay {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        globals.with_config(async |config| run(&config, &self).await)
    }
}

async fn run(config: &Config, arguments: &Relay) -> anyhow::Result<ExitCode> {
    let Some(nats) = &config.nats else {
        bail!("there is no bus: set nats_url (WATCHWORD_NATS_URL) as the command nodes have it");
    };
    if data_dir::inspect(config)? == State::Fresh && config.databases.is_none() {
        return Err(DataDirError::Absent { path: config.data_dir.clone() }.into());
    }
    let as_json = arguments.output.json;
    if arguments.rebuild {
        rebuild(config, nats, as_json).await
    } else {
        compare(config, nats, as_json).await
    }
}

async fn compare(config: &Config, nats: &Nats, as_json: bool) -> anyhow::Result<ExitCode> {
    let stores = Stores::open_truth(config).await.context(
        "the journal cannot be opened beside a running server: `watchword doctor` asks that server for the state of its relay",
    )?;
    let standing = match bus::connect(nats).await {
        Ok(client) => {
            let (journal, key) = (Arc::clone(stores.shared_journal()), stores.message_key());
            relay::look(client, journal, key, nats.relay.clone()).await.map_err(anyhow::Error::msg)
        }
        Err(error) => Err(error),
    };
    stores.close().await;
    let StreamStanding { end, journal, has_holes, fault, .. } = standing?;
    let fault = fault.or_else(|| has_holes.then(|| "it has lost events that cannot be put back".to_owned()));
    let mut out = std::io::stdout();
    if as_json {
        writeln!(
            out,
            "{}",
            json!({ "ok": fault.is_none(), "end": end, "journal": journal, "fault": fault })
        )?;
    } else {
        match end {
            Some(end) => writeln!(out, "the stream ends at event {end}, the journal at {journal}")?,
            None => writeln!(out, "there is no stream; the journal ends at event {journal}")?,
        }
        match &fault {
            Some(fault) => writeln!(out, "{fault}")?,
            None => writeln!(out, "the end of the stream matches the journal")?,
        }
    }
    Ok(if fault.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Opens the journal first: if that fails, nothing is deleted that could not be refilled.
async fn rebuild(config: &Config, nats: &Nats, as_json: bool) -> anyhow::Result<ExitCode> {
    let stores = match Stores::open_truth(config).await {
        Ok(stores) => Some(stores),
        Err(error) if matches!(error.downcast_ref(), Some(OpenError::InUse(_))) => None,
        Err(error) => return Err(error),
    };
    let rebuilt = rebuild_with(config, nats, stores.as_ref()).await;
    if let Some(stores) = stores {
        stores.close().await;
    }
    let (was_there, filled) = rebuilt?;
    let mut out = std::io::stdout();
    if as_json {
        writeln!(out, "{}", json!({ "deleted": was_there, "filled": filled }))?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "{}", if was_there { "deleted the stream" } else { "there was no stream" })?;
    match filled {
        Some(position) => writeln!(out, "filled it from the journal, up to event {position}")?,
        None => writeln!(
            out,
            "the running server fills it from the journal, within {} s",
            nats.relay.check_interval.as_secs()
        )?,
    }
    writeln!(out, "recreate the consumers after the position they have handled")?;
    Ok(ExitCode::SUCCESS)
}

/// Whether there was a stream, and how far the new one is filled, unless a running server does that.
async fn rebuild_with(
    config: &Config,
    nats: &Nats,
    stores: Option<&Stores>,
) -> anyhow::Result<(bool, Option<u64>)> {
    let origin = config.log_origin(config.listen)?;
    let client = bus::connect(nats).await?;
    let was_there = relay::delete_stream(&client).await?;
    let Some(stores) = stores else { return Ok((was_there, None)) };
    let origin = event_store::origin::establish(stores.journal(), &SystemClock, &origin).await?;
    let progress = Progress::start(stores.journal().head().await?);
    let (journal, key) = (Arc::clone(stores.shared_journal()), stores.message_key());
    let filled: Result<u64, RebuildError> =
        relay::fill(client, journal, origin, key, nats.relay.clone(), |position, _| {
            progress.at(position, position);
        })
        .await;
    progress.end();
    Ok((was_there, Some(filled?)))
}
