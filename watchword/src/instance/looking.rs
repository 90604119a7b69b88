//! Opens the journal and its keys to look at them: nothing changes.

use std::sync::Arc;

use anyhow::{Context, bail};
use event_store::{Journal, JournalLock, KeyStore, OpenError, Repository, Sealer, SqliteJournal};
use tempfile::TempDir;

use crate::commands::rotate_master_key;
use crate::config::Config;
use crate::data_dir::{self, DataDirError, State};
use crate::databases::{Databases, will_do};

/// Stores that nothing writes to through this.
pub struct Looked {
    pub repository: Arc<Repository>,
    /// While it lasts, no server starts on a file.
    _lock: Option<JournalLock>,
    /// For the local files of a node.
    _folder: Option<TempDir>,
}

impl Looked {
    /// Opens the journal and the key store as they are. A journal in files must not be in use; nodes on a shared one may
    /// go on.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        if data_dir::inspect(config)? == State::Fresh {
            return Err(DataDirError::Absent { path: config.data_dir.clone() }.into());
        }
        let master_key = data_dir::master_key(config)?
            .with_context(|| format!("the master key {} is missing", config.master_key_file().display()))?;
        if let Some(databases) = &config.databases {
            let found = databases.look().await?;
            databases.check_has_macs(&found, &master_key).await?;
            for migrated in found.journal.into_iter().chain([found.key_store]) {
                if migrated.from < migrated.to {
                    bail!("a store is {} by `watchword migrate`: run that first", will_do(migrated));
                }
            }
            let folder = Self::folder(config, databases)?;
            let place = folder.as_ref().map_or(config.data_dir.as_path(), TempDir::path);
            let (journal, key_store) = Box::pin(databases.to_look(place).open(&master_key)).await?;
            return Ok(Self::new(journal, key_store, None, folder));
        }
        let lock = JournalLock::take(&config.journal).map_err(|error| match error {
            OpenError::InUse(_) => anyhow::Error::new(error).context(
                "stop the server first: its files belong to one process. Or export the history of the running server (GET \
                 /v1/events), and check that with --file",
            ),
            other => other.into(),
        })?;
        let head = lock.head().await?.unwrap_or_default();
        data_dir::require_key_store(config, head)?;
        let (master_key, _) = rotate_master_key::opening(config, master_key).await?;
        let key_store = Arc::new(KeyStore::look(&config.key_store, &master_key).await?);
        let journal = Arc::new(SqliteJournal::look(&lock, &key_store.macs()).await?);
        Ok(Self::new(journal, key_store, Some(lock), None))
    }

    fn new(
        journal: Arc<dyn Journal>,
        key_store: Arc<KeyStore>,
        lock: Option<JournalLock>,
        folder: Option<TempDir>,
    ) -> Self {
        let repository = Arc::new(Repository::new(journal, Arc::new(Sealer::new(key_store)), 1));
        Self { repository, _lock: lock, _folder: folder }
    }

    /// Below the data folder, because no other place may be writable.
    fn folder(config: &Config, databases: &Databases) -> anyhow::Result<Option<TempDir>> {
        if !databases.keeps_a_replica() {
            return Ok(None);
        }
        data_dir::create(&config.data_dir)?;
        Ok(Some(tempfile::Builder::new().prefix(".verify-").tempdir_in(&config.data_dir)?))
    }

    /// Closes them.
    pub async fn close(&self) {
        self.repository.journal().close().await;
        self.repository.sealer().keys().close().await;
    }
}
