//! Journal and key store in PostgreSQL, shared by the nodes of a cluster.

use std::sync::Arc;

use anyhow::bail;
use event_store::postgres::Migrated;
use event_store::{Journal, KeyStore, MasterKey, PostgresJournal, PostgresSettings, PostgresUrl};

/// Where they are, and how to wait for them.
#[derive(Debug, Clone)]
pub struct Databases {
    pub journal: PostgresUrl,
    pub key_store: PostgresUrl,
    pub settings: PostgresSettings,
}

/// What is there before anything is opened.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    pub journal: Migrated,
    pub key_store: Migrated,
}

impl Databases {
    /// Looks, and changes nothing.
    pub async fn look(&self) -> anyhow::Result<Found> {
        Ok(Found {
            journal: PostgresJournal::look(&self.journal, &self.settings).await?,
            key_store: KeyStore::look_postgres(&self.key_store, &self.settings).await?,
        })
    }

    /// Opens both, after making their tables or bringing them up to date where the user may. Refuses a journal with
    /// events whose keys are gone, and another master key, before anything is made.
    pub async fn open(
        &self,
        master_key: &MasterKey,
    ) -> anyhow::Result<(Arc<PostgresJournal>, Arc<KeyStore>)> {
        let found = self.look().await?;
        if found.journal.from > 0 && found.key_store.from == 0 {
            let journal = self.open_journal().await?;
            let head = journal.head().await;
            journal.close().await;
            if head? > 0 {
                bail!(
                    "there is a journal at {} but no key store at {}. Restore it from the backup of the same moment: \
                     without it the journal's sealed data cannot be read, so no new one is made",
                    self.journal,
                    self.key_store
                );
            }
        }
        let key_store = KeyStore::open_postgres(&self.key_store, self.settings.clone(), master_key).await?;
        match self.open_journal().await {
            Ok(journal) => Ok((journal, Arc::new(key_store))),
            Err(refusal) => {
                key_store.close().await;
                Err(refusal)
            }
        }
    }

    async fn open_journal(&self) -> anyhow::Result<Arc<PostgresJournal>> {
        Ok(Arc::new(PostgresJournal::open(&self.journal, self.settings.clone()).await?))
    }
}

/// What is done to a store of this format.
pub fn will_do(Migrated { from, to }: Migrated) -> String {
    match from {
        0 => format!("created in format {to}"),
        same if same == to => format!("up to date in format {to}"),
        older => format!("brought from format {older} to {to}"),
    }
}
