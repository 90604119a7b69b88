//! Journal and key store on servers, shared by the nodes of a cluster.

use std::fmt;
use std::path::Path;
#[cfg(feature = "kurrentdb")]
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use event_store::postgres::Migrated;
use event_store::{
    InstanceKey, Journal, JournalMark, KeyStore, Macs, MasterKey, OpenError, PostgresJournal,
    PostgresSettings, PostgresUrl,
};
#[cfg(feature = "kurrentdb")]
use event_store::{KurrentJournal, KurrentSettings, KurrentUrl};

#[cfg(feature = "kurrentdb")]
use crate::data_dir;
use crate::waiting::Part;

/// The file in which a node keeps its replica state of a journal in KurrentDB.
#[cfg(feature = "kurrentdb")]
pub const REPLICA: &str = "replica.db";

/// Their locations, and how to wait for them.
#[derive(Debug, Clone)]
pub struct Databases {
    pub journal: SharedJournal,
    pub key_store: PostgresUrl,
    pub settings: PostgresSettings,
}

/// A journal that several nodes append to. Displayed without a password.
#[derive(Debug, Clone)]
pub enum SharedJournal {
    Postgres(PostgresUrl),
    /// With this node's replica.
    #[cfg(feature = "kurrentdb")]
    Kurrent {
        url: KurrentUrl,
        replica: PathBuf,
    },
}

/// What exists before anything is opened.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// KurrentDB needs no tables.
    pub journal: Option<Migrated>,
    pub key_store: Migrated,
}

impl Databases {
    /// Inspects without changing anything.
    pub async fn look(&self) -> anyhow::Result<Found> {
        let journal = match &self.journal {
            SharedJournal::Postgres(url) => {
                Some(PostgresJournal::look(url, &self.settings).await.context(Part::Journal)?)
            }
            #[cfg(feature = "kurrentdb")]
            SharedJournal::Kurrent { .. } => None,
        };
        let key_store =
            KeyStore::look_postgres(&self.key_store, &self.settings).await.context(Part::KeyStore)?;
        Ok(Found { journal, key_store })
    }

    /// Opens both, after creating or upgrading their tables if the user may. Before creating anything it refuses a
    /// journal with events whose keys are gone, and a wrong master key.
    pub async fn open(&self, master_key: &MasterKey) -> anyhow::Result<(Arc<dyn Journal>, Arc<KeyStore>)> {
        let found = self.look().await?;
        if found.journal.is_none_or(|journal| journal.from > 0) && found.key_store.from == 0 {
            // Its events are not read, so any MACs will do.
            let macs = Macs::new(&InstanceKey::generate());
            let head = match self.open_journal(&macs, Some(&JournalMark::default())).await {
                Ok((journal, _)) => {
                    let head = journal.head().await;
                    journal.close().await;
                    head?
                }
                // A node on KurrentDB reads the whole journal, so it is not empty.
                Err(error) if matches!(error.downcast_ref(), Some(OpenError::Damaged { .. })) => 1,
                Err(error) => return Err(error),
            };
            if head > 0 {
                bail!(
                    "there is a journal at {} but no key store at {}. Restore it from the backup of the same moment: \
                     without it the journal's sealed data cannot be read, so no new one is made",
                    self.journal,
                    self.key_store
                );
            }
        }
        let key_store = KeyStore::open_postgres(&self.key_store, self.settings.clone(), master_key)
            .await
            .context(Part::KeyStore)?;
        let (journal, mark) = match self.open_journal(&key_store.macs(), key_store.marked()).await {
            Ok(opened) => opened,
            Err(refusal) => {
                key_store.close().await;
                return Err(refusal);
            }
        };
        fail::fail_point!("before-mark", |_| std::process::abort());
        // Every event has its MAC now.
        if let Err(refusal) = key_store.mark(master_key, &mark).await {
            journal.close().await;
            key_store.close().await;
            return Err(refusal)
                .context("cannot record in the key store that the journal's events carry MACs");
        }
        Ok((journal, Arc::new(key_store)))
    }

    /// Whether the key store records that the journal's events carry MACs; the tables must be up to date.
    pub async fn is_marked(&self, master_key: &MasterKey) -> anyhow::Result<bool> {
        let key_store = KeyStore::open_postgres(&self.key_store, self.settings.clone(), master_key).await?;
        let is_marked = key_store.is_marked();
        key_store.close().await;
        Ok(is_marked)
    }

    /// Refuses a journal whose format was set back to one without MACs.
    pub async fn check_has_macs(&self, found: &Found, master_key: &MasterKey) -> anyhow::Result<()> {
        let is_new = |it: Migrated| it.from == it.to;
        // A key store of an earlier version has no such record.
        if let (Some(journal), Some(url)) = (found.journal, self.journal.postgres())
            && !is_new(journal)
            && is_new(found.key_store)
            && self.is_marked(master_key).await?
        {
            PostgresJournal::check_has_macs(url, journal)?;
        }
        Ok(())
    }

    /// The default location of read models: beside the journal if that supports them.
    pub fn read_models(&self) -> PostgresUrl {
        self.journal.postgres().unwrap_or(&self.key_store).clone()
    }

    /// And which of its events carry no MAC.
    #[cfg_attr(
        not(feature = "kurrentdb"),
        expect(unused_variables, reason = "in PostgreSQL all of them carry one")
    )]
    async fn open_journal(
        &self,
        macs: &Macs,
        mark: Option<&JournalMark>,
    ) -> anyhow::Result<(Arc<dyn Journal>, JournalMark)> {
        Ok(match &self.journal {
            SharedJournal::Postgres(url) => {
                let journal =
                    PostgresJournal::open(url, self.settings.clone(), macs).await.context(Part::Journal)?;
                (Arc::new(journal), JournalMark::default())
            }
            #[cfg(feature = "kurrentdb")]
            SharedJournal::Kurrent { url, replica } => {
                data_dir::create(replica.parent().unwrap_or(Path::new(".")))?;
                let settings = KurrentSettings { answer: self.settings.answer, ..KurrentSettings::default() };
                let journal = KurrentJournal::open(url, replica, settings, macs, mark.cloned())
                    .await
                    .context(Part::Journal)?;
                let mark = journal.mark().clone();
                (Arc::new(journal), mark)
            }
        })
    }

    /// Whether a node keeps local files.
    pub fn keeps_a_replica(&self) -> bool {
        self.journal.postgres().is_none()
    }

    /// The same for a process that only inspects: a node's local files go into this folder.
    #[cfg(feature = "kurrentdb")]
    pub fn to_look(&self, folder: &Path) -> Self {
        let mut databases = self.clone();
        if let SharedJournal::Kurrent { replica, .. } = &mut databases.journal {
            *replica = folder.join(REPLICA);
        }
        databases
    }

    /// The same for a process that only inspects: a node keeps no local files.
    #[cfg(not(feature = "kurrentdb"))]
    pub fn to_look(&self, _folder: &Path) -> Self {
        self.clone()
    }
}

impl SharedJournal {
    /// The database, if it is PostgreSQL.
    #[cfg_attr(
        not(feature = "kurrentdb"),
        expect(clippy::unnecessary_wraps, reason = "with the feature kurrentdb there is another place")
    )]
    pub fn postgres(&self) -> Option<&PostgresUrl> {
        match self {
            Self::Postgres(url) => Some(url),
            #[cfg(feature = "kurrentdb")]
            Self::Kurrent { .. } => None,
        }
    }
}

impl fmt::Display for SharedJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(url) => url.fmt(f),
            #[cfg(feature = "kurrentdb")]
            Self::Kurrent { url, .. } => url.fmt(f),
        }
    }
}

impl Found {
    /// What migration does to the journal.
    pub fn journal_will_be(&self) -> String {
        self.journal.map_or_else(|| "a stream, which needs no tables".to_owned(), will_do)
    }
}

/// What migration does to a store of this format.
pub fn will_do(Migrated { from, to }: Migrated) -> String {
    match from {
        0 => format!("created in format {to}"),
        same if same == to => format!("up to date in format {to}"),
        older => format!("brought from format {older} to {to}"),
    }
}
