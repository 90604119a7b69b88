//! `migrate`: creates or upgrades the stores.

use clap::Args;
use std::io::Write;
use std::process::ExitCode;

use serde_json::json;

use super::{Globals, Output, Run};
use crate::config::Config;
use crate::data_dir::{self, State};
use crate::databases::{Databases, will_do};
use crate::instance::Instance;

/// Create or upgrade the stores named by the configuration
///
/// Can be run again at any time: completed steps are skipped.
#[derive(Debug, Args)]
pub struct Migrate {
    #[command(flatten)]
    output: Output,
}

impl Run for Migrate {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        globals.with_config(async |config| run(&config, self.output.json).await)
    }
}

async fn run(config: &Config, as_json: bool) -> anyhow::Result<ExitCode> {
    if let Some(databases) = &config.databases {
        return in_databases(config, databases, as_json).await;
    }
    let before = data_dir::inspect(config)?;
    // A full start: it creates the first apps and keys, which the stores need as much as their tables.
    let instance = Instance::open(config, config.listen).await?;
    let head = instance.head().await;
    instance.close().await;
    let head = head?;
    let (created, did) = match before {
        State::Fresh => (true, "created"),
        State::Present => (false, "up to date"),
    };
    let mut out = std::io::stdout();
    if as_json {
        let stores = [
            config.journal.display().to_string(),
            config.key_store.display().to_string(),
            config.read_models.to_string(),
        ];
        writeln!(
            out,
            "{}",
            json!({ "created": created, "stores": stores, "head": head, "platform_key": config.where_admin_key_is() })
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "journal      {did}: {} (head {head})", config.journal.display())?;
    writeln!(out, "key store    {did}: {}", config.key_store.display())?;
    writeln!(out, "read models  {did}: {}", config.read_models)?;
    writeln!(out, "platform key {}", config.where_admin_key_is())?;
    if created && config.master_key.is_none() {
        writeln!(
            out,
            "master key   in {}: keep a copy apart from the stores",
            config.master_key_file().display()
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// As the owner of the databases. The service may run as another user with the role `watchword_service`.
async fn in_databases(config: &Config, databases: &Databases, as_json: bool) -> anyhow::Result<ExitCode> {
    let before = databases.look().await?;
    let instance = Instance::open(config, config.listen).await?;
    let head = instance.head().await;
    instance.close().await;
    let head = head?;
    let mut out = std::io::stdout();
    if as_json {
        let created = before.journal.unwrap_or(before.key_store).from == 0;
        let stores =
            [databases.journal.to_string(), databases.key_store.to_string(), config.read_models.to_string()];
        writeln!(
            out,
            "{}",
            json!({ "created": created, "stores": stores, "head": head, "platform_key": config.where_admin_key_is() })
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "journal      {}: {} (head {head})", before.journal_will_be(), databases.journal)?;
    writeln!(out, "key store    {}: {}", will_do(before.key_store), databases.key_store)?;
    writeln!(out, "read models  up to date: {}", config.read_models)?;
    writeln!(out, "platform key {}", config.where_admin_key_is())?;
    Ok(ExitCode::SUCCESS)
}
