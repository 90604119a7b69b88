//! Opens the stores of an instance.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use domain::user::UserEvent;
use domain::{EventInfo, LogOrigin, StreamId, UserId};
use effects::relay::{Relay, RelaySettings};
use event_store::checkpoint_keys::CheckpointKeyring;
use event_store::{
    Clock, Journal, JournalLock, JournalMark, KeyStore, LookupKey, Lost, MasterKey, MessageKey, Repository,
    Sealer, SqliteJournal, StoreError,
};
use projection_service::bus::Bus;
use read_models::{JournalError, ReadModels};

use super::clock::LatestTime;
use crate::bus;
use crate::commands::rotate_master_key;
use crate::config::Config;
use crate::data_dir::{self, State};
use crate::waiting::Part;

/// How many of the newest people must have keys.
const NEWEST_PEOPLE: u32 = 100;

/// The opened stores. Opening refuses foreign, damaged or used stores and a wrong master key, before touching anything.
pub struct Stores {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) key_store: Arc<KeyStore>,
    pub(super) sealer: Arc<Sealer>,
    pub(super) lookup: Arc<LookupKey>,
    /// None: other processes have them.
    pub(super) read_models: Option<Arc<ReadModels>>,
}

impl Stores {
    /// Opens the journal and the keys: enough for a role without projectors.
    pub async fn open_truth(config: &Config) -> anyhow::Result<Self> {
        let state = data_dir::inspect(config)?;
        Self::open_in(config, state).await
    }

    /// Opens a journal that is to be filled with a history of the instance whose keys are in place already.
    pub async fn open_to_import(config: &Config) -> anyhow::Result<Self> {
        let has_keys = match &config.databases {
            Some(databases) => databases.look().await?.key_store.from > 0,
            None => config.key_store.exists(),
        };
        if !has_keys {
            bail!(
                "there is no key store: put the instance's key store and master key in place first, from the backup. No export \
                 holds keys, and without them its sealed data cannot be read"
            );
        }
        Self::open_in(config, State::Present).await
    }

    async fn open_in(config: &Config, state: State) -> anyhow::Result<Self> {
        data_dir::require_own_secrets(config)?;
        let found = data_dir::master_key(config)?;
        if let Some(databases) = &config.databases {
            let master_key = found.context("the configuration has a master key")?;
            let (journal, key_store) = Box::pin(databases.open(&master_key)).await?;
            data_dir::create(&config.data_dir)?;
            return Ok(Self::new(journal, key_store));
        }
        if found.is_none() && state == State::Present {
            bail!("the master key {} is missing", config.master_key_file().display());
        }
        let is_new = found.is_none();
        let lock = JournalLock::take(&config.journal)?;
        let (master_key, rotated) = match found {
            Some(found) => rotate_master_key::opening(config, found).await?,
            None => (MasterKey::generate(), false),
        };
        look(config, &lock, &master_key).await?;
        // Nothing was touched so far.
        data_dir::create(&config.data_dir)?;
        if is_new {
            data_dir::write_secret(&config.master_key_file(), &master_key.to_base64())?;
        }
        if rotated {
            rotate_master_key::finish(config)?;
        }
        let lock = lock.make().await?;
        let key_store = KeyStore::open(&config.key_store, &master_key).await?;
        let journal = match SqliteJournal::open_locked(lock, &key_store.macs()).await {
            Ok(journal) => Arc::new(journal),
            Err(refusal) => {
                key_store.close().await;
                return Err(refusal.into());
            }
        };
        fail::fail_point!("before-mark", |_| std::process::abort());
        // Every event has its MAC now.
        if let Err(refusal) = key_store.mark(&master_key, &JournalMark::default()).await {
            journal.close().await;
            key_store.close().await;
            return Err(refusal)
                .context("cannot record in the key store that the journal's events carry MACs");
        }
        Ok(Self::new(journal, Arc::new(key_store)))
    }

    /// Opens the read models as well.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let mut stores = Self::open_truth(config).await?;
        let (sealer, lookup) = (Arc::clone(&stores.sealer), Arc::clone(&stores.lookup));
        match ReadModels::open(&config.read_models, sealer, lookup).await {
            Ok(read_models) => {
                stores.read_models = Some(Arc::new(read_models));
                Ok(stores)
            }
            Err(refusal) => {
                stores.close().await;
                Err(anyhow::Error::new(refusal).context(Part::ReadModels))
            }
        }
    }

    /// The origin of the events. A new journal begins with it and the first key for checkpoints: before any other write.
    pub(super) async fn establish(
        &self,
        clock: &dyn Clock,
        proposed: &LogOrigin,
    ) -> Result<LogOrigin, StoreError> {
        let origin = event_store::origin::establish(&*self.journal, clock, proposed).await?;
        let keyring = CheckpointKeyring { instance: self.key_store.instance_key(), origin: &origin };
        keyring.establish(&*self.journal, clock).await?;
        Ok(origin)
    }

    /// Says what is wrong with the newest events: that some are lost, their time, or the keys of their people. Destroys the
    /// keys of erased people, before anything is shown and from then on.
    pub(super) async fn look_at_newest(
        &self,
        clock: &Arc<dyn Clock>,
        repository: &Arc<Repository>,
    ) -> Result<LatestTime, StoreError> {
        self.record_loss(&**clock).await?;
        event_store::erase::start(repository).await?;
        self.find_missing_keys().await?;
        let latest = LatestTime::at_start(&*self.journal, clock).await?;
        latest.tell(repository);
        Ok(latest)
    }

    /// Records it if the journal lacks an event that a read model has applied: it went back while no node was running.
    async fn record_loss(&self, clock: &dyn Clock) -> Result<(), StoreError> {
        let Some(read_models) = &self.read_models else { return Ok(()) };
        let head = self.journal.head().await?;
        let mut lost: Option<Lost> = None;
        for checkpoint in read_models.checkpoints().await? {
            if let Err(JournalError::Other { position }) = checkpoint.check_journal(&*self.journal).await
                && let Some(event) = checkpoint.event
                && lost.as_ref().is_none_or(|lost| lost.position < position)
            {
                lost = Some(Lost { position, event, head });
            }
        }
        let Some(lost) = lost else { return Ok(()) };
        tracing::error!(position = lost.position, head, "{lost}. The read models are filled anew");
        event_store::epoch::record(&*self.journal, clock, &lost).await
    }

    /// Looks whether the newest people have their keys. A key store that is older than the journal lacks those of the
    /// people since; their ids are in the order of time.
    async fn find_missing_keys(&self) -> Result<(), StoreError> {
        let newest = self.journal.newest_streams(UserEvent::AGGREGATE, NEWEST_PEOPLE).await?;
        let people = newest.iter().filter_map(StreamId::uuid).map(UserId);
        let missing = self.key_store.find_missing(people).await?;
        if missing > 0 {
            tracing::error!(
                "{missing} of the newest people in the journal have no key in the key store, which is from an older backup: \
                 their requests get 503. Stop the service and restore the key store from the newest backup"
            );
        }
        Ok(())
    }

    fn new(journal: Arc<dyn Journal>, key_store: Arc<KeyStore>) -> Self {
        Self {
            sealer: Arc::new(Sealer::new(Arc::clone(&key_store))),
            lookup: Arc::new(LookupKey::new(key_store.instance_key())),
            journal,
            key_store,
            read_models: None,
        }
    }

    pub fn journal(&self) -> &dyn Journal {
        &*self.journal
    }

    pub fn key_store(&self) -> &KeyStore {
        &self.key_store
    }

    /// The read models, if they were opened.
    pub fn read_models(&self) -> Option<&Arc<ReadModels>> {
        self.read_models.as_ref()
    }

    pub fn shared_journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }

    /// The key that marks this instance's messages on the bus.
    pub fn message_key(&self) -> MessageKey {
        MessageKey::new(self.key_store.instance_key())
    }

    /// Starts to publish the journal.
    pub(super) fn relay(
        &self,
        nats: async_nats::Client,
        origin: &LogOrigin,
        settings: RelaySettings,
    ) -> Arc<Relay> {
        Arc::new(Relay::start(nats, Arc::clone(&self.journal), origin.clone(), self.message_key(), settings))
    }

    /// Loads aggregates, within the configured memory for them and for subject keys.
    pub fn repository(&self, config: &Config) -> Arc<Repository> {
        self.key_store.limit_cache(config.caches.data_keys);
        Arc::new(Repository::bounded(
            Arc::clone(&self.journal),
            Arc::clone(&self.sealer),
            config.caches.most_aggregates.get(),
            config.caches.aggregates,
        ))
    }

    /// The bus of a projection node at this address.
    pub(super) fn bus(&self, nats: &async_nats::Client, address: SocketAddr) -> Bus {
        Bus { nats: nats.clone(), consumer: bus::consumer_name(address), key: self.message_key() }
    }

    /// Closes cleanly, so that only the stores themselves stay in the folder. Acknowledged data is durable without it.
    pub async fn close(&self) {
        if let Some(read_models) = &self.read_models {
            read_models.close().await;
        }
        self.key_store.close().await;
        self.journal.close().await;
    }
}

/// Inspects all stores without changing anything.
async fn look(config: &Config, lock: &JournalLock, master_key: &MasterKey) -> anyhow::Result<()> {
    let head = lock.head().await?;
    data_dir::require_key_store(config, head.unwrap_or_default())?;
    if config.key_store.exists() {
        let key_store = KeyStore::look(&config.key_store, master_key).await?;
        let macs = key_store.macs();
        key_store.close().await;
        if head.is_some() {
            SqliteJournal::look(lock, &macs).await?.close().await;
        }
    }
    if config.read_models.file().is_none_or(Path::exists) {
        ReadModels::look(&config.read_models).await.context(Part::ReadModels)?;
    }
    Ok(())
}
