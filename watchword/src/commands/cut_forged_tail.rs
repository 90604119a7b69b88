//! `cut-forged-tail`: removes forged events after the journal's last genuine event.
//!
//! A journal is never repaired silently. A forged event between genuine ones cannot be removed without a gap, so such a
//! journal must be restored from a backup; a forged tail can be cut, and what was cut is printed.

use clap::Args;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, bail};
use domain::Timestamp;
use event_store::{ForgedTail, JournalLock, KeyStore, Macs, PostgresJournal, Unproven};
use serde_json::{Value, json};

use super::{Globals, Output, Run};
use crate::config::Config;
use crate::data_dir::{self, DataDirError, State};

/// Cut forged events off the end of the journal
///
/// For use after somebody without the instance's key has appended events to the store; no node accepts them. Without
/// --yes it lists them and changes nothing; exit code 1 means that there are some. It prints what it cuts: keep that
/// list. The server must be stopped; with PostgreSQL, every node, and it needs the owner of the database. A forged event
/// followed by genuine ones cannot be cut out: restore the journal from a backup instead.
#[derive(Debug, Args)]
pub struct CutForgedTail {
    /// Confirm the cut
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    output: Output,
}

impl Run for CutForgedTail {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        globals.with_config(async |config| run(&config, self.yes, self.output.json).await)
    }
}

async fn run(config: &Config, cut: bool, as_json: bool) -> anyhow::Result<ExitCode> {
    if data_dir::inspect(config)? == State::Fresh {
        return Err(DataDirError::Absent { path: config.data_dir.clone() }.into());
    }
    let master_key = data_dir::master_key(config)?.context("there is no master key")?;
    let tail = if let Some(databases) = &config.databases {
        let Some(url) = databases.journal.postgres() else {
            bail!("the end of a stream in KurrentDB cannot be cut: restore the server from its backup");
        };
        let settings = databases.settings.clone();
        let key_store = KeyStore::open_postgres(&databases.key_store, settings, &master_key).await?;
        let macs = marked(&key_store).await?;
        if cut {
            PostgresJournal::cut_forged_tail(url, &macs).await?
        } else {
            PostgresJournal::forged_tail(url, &macs).await?
        }
    } else {
        let lock = JournalLock::take(&config.journal)?;
        let macs = marked(&KeyStore::look(&config.key_store, &master_key).await?).await?;
        if cut { lock.cut_forged_tail(&macs).await? } else { lock.forged_tail(&macs).await? }
    };
    if tail.proven == 0 && !tail.events.is_empty() {
        bail!(
            "no event of the journal at all was written with the key of this key store: the two do not belong together. \
             Nothing was cut"
        );
    }
    report(&tail, cut, as_json)
}

/// The MACs of a store that is marked as carrying them.
async fn marked(key_store: &KeyStore) -> anyhow::Result<Macs> {
    let (macs, is_marked) = (key_store.macs(), key_store.is_marked());
    key_store.close().await;
    if !is_marked {
        bail!(
            "the journal's events carry no MACs yet: start the server once, or run `watchword migrate`, which adds them"
        );
    }
    Ok(macs)
}

fn report(tail: &ForgedTail, cut: bool, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    let ForgedTail { proven, events } = tail;
    let cut = cut && !events.is_empty();
    let code = if cut || events.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if as_json {
        let events: Vec<Value> = events.iter().rev().map(event).collect();
        writeln!(out, "{}", json!({ "cut": cut, "last_proven": proven, "unproven": events }))?;
        return Ok(code);
    }
    if events.is_empty() {
        writeln!(out, "The last event, {proven}, is proven: there is nothing to cut.")?;
        return Ok(code);
    }
    for it in events.iter().rev() {
        let Unproven { position, stream, version, name, app_id, data, .. } = it;
        writeln!(out, "{position}  {name}  in {stream}, version {version}, of app {app_id}, at {}", at(it))?;
        writeln!(out, "    {data}")?;
    }
    let count = events.len();
    if cut {
        writeln!(
            out,
            "Cut: {count} events after {proven} that were not written with the key of this instance. Keep this list."
        )?;
    } else {
        writeln!(
            out,
            "{count} events after {proven} were not written with the key of this instance. Keep a copy of the journal and \
             run this with --yes to cut them off."
        )?;
    }
    Ok(code)
}

fn event(it: &Unproven) -> Value {
    let Unproven { position, stream, version, name, app_id, data, metadata, .. } = it;
    json!({
        "position": position, "stream": stream, "version": version, "type": name, "app_id": app_id, "at": at(it),
        "data": data, "metadata": metadata,
    })
}

/// A forged time may be invalid.
fn at(it: &Unproven) -> String {
    Timestamp::from_microsecond(it.at).map_or_else(|_| it.at.to_string(), |at| at.to_string())
}
