//! `rotate-master-key`: rewraps the instance key with another master key.
//!
//! The new key is durably in its file before the key store opens with it, and the old one is removed only afterwards:
//! at any interruption, one of the two opens the stores. The next start, or rerunning this, finds out which.

use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use event_store::{JournalLock, KeyStore, MasterKey, OpenError};
use serde_json::json;

use super::{Globals, Output, Run};
use crate::config::Config;
use crate::data_dir::{self, DataDirError, State};

/// Replace the master key
///
/// All data stays as it is, because the master key only wraps the key from which all others are derived. A master.key
/// in the data folder is replaced in place, while the server is stopped. A configured master key is replaced by the one
/// in --new-key-file: configure it on every node before its next start; with PostgreSQL, running nodes keep running.
/// With PostgreSQL this needs the owner of the database. It can be rerun after an interruption: at every moment the
/// stores open with one of the two keys.
#[derive(Debug, Args)]
pub struct RotateMasterKey {
    /// The file with the new master key, readable by its owner only; created if absent
    #[arg(long, value_name = "FILE")]
    new_key_file: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl Run for RotateMasterKey {
    fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let Self { new_key_file, output } = self;
        globals.with_config(async |config| run(&config, new_key_file.as_deref(), output.json).await)
    }
}

async fn run(config: &Config, new_key_file: Option<&Path>, as_json: bool) -> anyhow::Result<ExitCode> {
    if data_dir::inspect(config)? == State::Fresh {
        return Err(DataDirError::Absent { path: config.data_dir.clone() }.into());
    }
    let old = data_dir::master_key(config)?.context("there is no master key")?;
    // Held to the end, so that no server starts between the two keys.
    let _lock = match config.databases {
        Some(_) => None,
        None => Some(JournalLock::take(&config.journal)?),
    };
    let place = match (&config.master_key, new_key_file) {
        (None, None) => {
            in_place(config, old).await?;
            config.master_key_file()
        }
        (None, Some(_)) => bail!(
            "the master key is in {}, and is replaced there: leave out --new-key-file",
            config.master_key_file().display()
        ),
        (Some(_), None) => bail!(
            "the master key is configured (master_key, WATCHWORD_MASTER_KEY): say with --new-key-file which file has the \
             new one, or is to get it"
        ),
        (Some(_), Some(file)) => {
            to_key_in(config, old, file).await?;
            file.to_owned()
        }
    };
    let mut out = std::io::stdout();
    if as_json {
        writeln!(out, "{}", json!({ "rotated": true, "key_store": store(config), "master_key": place }))?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "key store    {}: opens with the new master key only", store(config))?;
    writeln!(out, "master key   in {}: keep a copy apart from the stores", place.display())?;
    if config.master_key.is_some() {
        writeln!(out, "Set master_key (WATCHWORD_MASTER_KEY) to it before the next start of any node.")?;
    }
    writeln!(out, "Earlier backups of the key store open with the old master key only.")?;
    Ok(ExitCode::SUCCESS)
}

/// The key that opens the key store: this one, or the next if a rotation was interrupted after its last commit; the
/// second value is true for the next one. Only while no process writes the key store.
pub async fn opening(config: &Config, present: MasterKey) -> Result<(MasterKey, bool), OpenError> {
    let next = config.next_master_key_file();
    if config.master_key.is_some() || !next.exists() || !config.key_store.exists() {
        return Ok((present, false));
    }
    if opens(config, &present).await? {
        return Ok((present, false));
    }
    // A partially written key opens nothing.
    let Ok(next) = data_dir::master_key_in(&next) else { return Ok((present, false)) };
    Ok(if opens(config, &next).await? { (next, true) } else { (present, false) })
}

/// Replaces the old key by the next one, with which the key store opens.
pub fn finish(config: &Config) -> Result<(), DataDirError> {
    data_dir::replace(&config.master_key_file(), &config.next_master_key_file())
}

async fn opens(config: &Config, key: &MasterKey) -> Result<bool, OpenError> {
    match KeyStore::look(&config.key_store, key).await {
        Ok(store) => {
            store.close().await;
            Ok(true)
        }
        Err(OpenError::WrongMasterKey(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Rotates `master.key` in the data folder.
async fn in_place(config: &Config, old: MasterKey) -> anyhow::Result<()> {
    let file = config.next_master_key_file();
    let (old, rotated) = opening(config, old).await?;
    if !rotated {
        if file.exists() {
            // It was never used.
            std::fs::remove_file(&file).with_context(|| format!("{} cannot be removed", file.display()))?;
        }
        let new = MasterKey::generate();
        data_dir::write_secret(&file, &new.to_base64())?;
        rewrap(config, &old, &new).await?;
    }
    Ok(finish(config)?)
}

/// Rotates a configured master key. The file stays, so that this can be rerun.
async fn to_key_in(config: &Config, old: MasterKey, file: &Path) -> anyhow::Result<()> {
    let new = if file.exists() {
        data_dir::master_key_in(file)?
    } else {
        let new = MasterKey::generate();
        data_dir::write_secret(file, &new.to_base64())?;
        new
    };
    if new == old {
        bail!("{} holds the current master key, not a new one", file.display());
    }
    match rewrap(config, &old, &new).await {
        // If the new key opens it, the rotation was already done.
        Err(OpenError::WrongMasterKey(place)) => match open(config, &new).await {
            Ok(store) => store.close().await,
            Err(_) => return Err(OpenError::WrongMasterKey(place).into()),
        },
        done => done?,
    }
    Ok(())
}

async fn rewrap(config: &Config, old: &MasterKey, new: &MasterKey) -> Result<(), OpenError> {
    let store = open(config, old).await?;
    let rotated = store.rotate_master_key(old, new).await;
    store.close().await;
    rotated.map_err(|error| OpenError::Failed { path: self::store(config), reason: error.to_string() })
}

/// Opens the key store without creating one.
async fn open(config: &Config, key: &MasterKey) -> Result<KeyStore, OpenError> {
    let absent = || OpenError::Failed { path: store(config), reason: "there is no key store".to_owned() };
    match &config.databases {
        Some(databases) => {
            let (url, settings) = (&databases.key_store, &databases.settings);
            if KeyStore::look_postgres(url, settings).await?.from == 0 {
                return Err(absent());
            }
            KeyStore::open_postgres(url, settings.clone(), key).await
        }
        None if config.key_store.exists() => KeyStore::open(&config.key_store, key).await,
        None => Err(absent()),
    }
}

fn store(config: &Config) -> String {
    match &config.databases {
        Some(databases) => databases.key_store.to_string(),
        None => config.key_store.display().to_string(),
    }
}
