//! `rebuild`: fills read models anew from the journal, or compares them with it.

use std::io::Write;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use event_store::{Clock, OpenError, SystemClock};
use read_models::{Comparison, JournalError, NAMES, ReadModels, RebuildProgress, RebuildSettings};
use serde_json::json;

use super::{Globals, Output, Run};
use crate::comparing;
use crate::config::Config;
use crate::data_dir::{self, DataDirError, State};
use crate::instance::Stores;
use crate::progress::Progress;
use crate::rebuilding;

/// For how long others wait for a rebuild that falls silent.
const LEASE: Duration = Duration::from_secs(10);

/// Rebuild read models from the journal, beside the live ones, and have them take their place
///
/// Nodes keep running, and queries are answered by the live ones until then. If it is interrupted, run it again: it goes
/// on where it was. With a journal in SQLite a running server does it, one read model after the other, and the comparison needs it stopped.
#[derive(Debug, Args)]
pub struct Rebuild {
    /// The read model
    #[arg(value_name = "READ-MODEL", value_parser = NAMES.to_vec(), required_unless_present = "all")]
    name: Option<String>,
    /// All read models
    #[arg(long, conflicts_with = "name")]
    all: bool,
    /// Change nothing, and compare the live ones with the events; exit code 1 if they differ
    #[arg(long)]
    verify: bool,
    /// How many events to apply in a second at most [default: as many as possible]
    #[arg(long, value_name = "EVENTS")]
    throttle: Option<NonZeroU32>,
    #[command(flatten)]
    output: Output,
}

impl Run for Rebuild {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        globals.with_config(async |config| Box::pin(run(&config, self)).await)
    }
}

async fn run(config: &Config, command: Rebuild) -> anyhow::Result<ExitCode> {
    if data_dir::inspect(config)? == State::Fresh {
        return Err(DataDirError::Absent { path: config.data_dir.clone() }.into());
    }
    let names: Vec<&str> = match &command.name {
        Some(name) => vec![name],
        None => NAMES.to_vec(),
    };
    let opened = if command.verify { Stores::open_truth(config).await } else { Stores::open(config).await };
    let stores = match opened {
        Err(error) if matches!(error.downcast_ref(), Some(OpenError::InUse(_))) => {
            if command.verify {
                return Err(error).context("stop the server first: its files belong to one process");
            }
            let rebuilt = rebuilding::by_server(config, &names, command.throttle).await?;
            return tell(rebuilt, command.output.json);
        }
        opened => opened?,
    };
    let done = if command.verify {
        verify(config, &stores, &names, command.output.json).await
    } else {
        rebuild(config, &stores, &names, &command).await
    };
    stores.close().await;
    done
}

async fn rebuild(
    config: &Config,
    stores: &Stores,
    names: &[&str],
    command: &Rebuild,
) -> anyhow::Result<ExitCode> {
    let models = stores.read_models().context("the read models were not opened")?;
    let Some(origin) = event_store::origin::read(stores.journal()).await? else {
        bail!("the journal has no events yet: there is nothing to rebuild");
    };
    models.know_origin(&origin);
    let mut projectors = models.projectors();
    projectors.retain(|projector| names.contains(&projector.name()));
    let id = SystemClock.new_id().simple();
    let settings =
        RebuildSettings { node: format!("rebuild-{id}"), lease: LEASE, events_per_second: command.throttle };
    let progress = Progress::start(stores.journal().head().await?);
    let at = |all: &[RebuildProgress]| {
        let slowest = all.iter().map(|it| it.position).min().unwrap_or_default();
        progress.at(slowest, slowest);
    };
    let rebuilt = models.rebuild(&stores.repository(config), &projectors, &settings, at).await;
    progress.end();
    tell(rebuilt?, command.output.json)
}

fn tell(rebuilt: Vec<(&str, u64)>, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    if as_json {
        let all = rebuilt.iter().map(|(name, position)| json!({ "name": name, "position": position }));
        writeln!(out, "{}", json!({ "rebuilt": all.collect::<Vec<_>>() }))?;
    } else {
        for (name, position) in rebuilt {
            writeln!(out, "{name}: rebuilt, at event {position}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn verify(config: &Config, stores: &Stores, names: &[&str], as_json: bool) -> anyhow::Result<ExitCode> {
    let head = stores.journal().head().await?;
    let mut compared = comparing::comparisons(config, &stores.repository(config), names, head).await??;
    let others = of_no_journal(config, stores, names).await?;
    // What an older version has left beside the tables of this one is not shown to anybody.
    let is_compared = |name: &str| compared.iter().any(|it| model(&it.projector) == name);
    let others: Vec<_> = others.into_iter().filter(|it| !is_compared(model(&it.projector))).collect();
    compared.extend(others);
    let differs = compared.iter().any(|comparison| !comparison.differences.is_empty());
    let mut out = std::io::stdout();
    if as_json {
        let all = compared.iter().map(|comparison| {
            let Comparison { projector, position, rows, differences, more } = comparison;
            json!({ "read_model": projector, "position": position, "rows": rows, "differences": differences, "more": more })
        });
        writeln!(out, "{}", json!({ "ok": !differs, "compared": all.collect::<Vec<_>>() }))?;
    } else {
        for Comparison { projector, position, rows, differences, more } in &compared {
            if differences.is_empty() {
                writeln!(out, "{projector}: its {rows} rows match the events up to {position}")?;
            }
            for difference in differences {
                writeln!(out, "{difference}")?;
            }
            if *more > 0 {
                writeln!(out, "{more} more rows of {projector} do not match the events")?;
            }
        }
        if compared.is_empty() {
            writeln!(out, "there is nothing to compare: the read models are empty, or of another journal")?;
        }
    }
    Ok(if differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The read model of a projector's key.
fn model(key: &str) -> &str {
    key.rsplit_once("_v").map_or(key, |(model, _)| model)
}

/// The read models whose checkpoint is not one of this journal: there is nothing to compare their rows with.
async fn of_no_journal(config: &Config, stores: &Stores, names: &[&str]) -> anyhow::Result<Vec<Comparison>> {
    let mut found = Vec::new();
    for checkpoint in ReadModels::look(&config.read_models).await? {
        let model = checkpoint.model();
        let Err(JournalError::Other { position }) = checkpoint.check_journal(stores.journal()).await else {
            continue;
        };
        if names.contains(&model) {
            let difference = format!(
                "{model}: event {position}, the last that it says to have, is not the one that this journal has there: it was built \
                 from another journal, the journal went back, or somebody changed its checkpoint. The next start fills it anew"
            );
            let projector = checkpoint.projector.clone();
            found.push(Comparison {
                projector,
                position,
                differences: vec![difference],
                ..Default::default()
            });
        }
    }
    Ok(found)
}
