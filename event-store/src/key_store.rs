//! Keys at rest, apart from the log: one data key per person, and the private halves of the apps' signing keys.
//!
//! Every key is wrapped (XChaCha20-Poly1305) by a key derived from the instance key, and bound to its name, so that a
//! stolen file reveals nothing and no two keys can be swapped. The instance key is stored here too, wrapped by the
//! master key: replacing the master key rewrites a single row. Erasing a person's data key erases the person from every
//! copy of the journal.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use domain::{AppId, UserId};
use quick_cache::sync::Cache;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::cipher::Cipher;
use crate::clock::random;
use crate::instance_key::InstanceKey;
use crate::journal::{OpenError, StoreError};
use crate::mac::Macs;
use crate::master_key::{JournalMark, MasterKey};
use crate::measure;
use crate::postgres::session::not_opened;
use crate::postgres::{Migrated, PostgresSettings, PostgresUrl};
use crate::sqlite::file;
use crate::storage::Why;
use postgres::PostgresKeys;
use sqlite::SqliteKeys;

mod checkpoint;
mod erase;
mod postgres;
mod signing_keys;
mod sqlite;

use checkpoint::CheckpointMarks;
pub use checkpoint::{KeptCheckpoint, SignedCheckpoint};

const CACHED: usize = 100_000;

/// How many people without a key are remembered.
const REMEMBERED: usize = 1000;

/// The size of a person's key in the cache, with its entry.
const KEY_BYTES: u64 = 192;

/// How long a cached key is used when other nodes may have erased it.
const SHARED_TRUST: Duration = Duration::from_secs(5);

/// Sealed at creation, to recognize the instance key later.
const CHECK: &[u8] = b"watchword key store";
const CHECK_NAME: &[u8] = b"check";

/// The key that seals one person's data.
#[derive(Debug)]
pub struct DataKey(Cipher);

impl DataKey {
    fn new(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Self(Cipher::new(bytes)))
    }

    pub(crate) fn cipher(&self) -> &Cipher {
        &self.0
    }
}

/// The wrapped keys at rest.
#[async_trait]
trait WrappedKeys: Send + Sync {
    /// What was sealed when the store was created.
    async fn check(&self) -> Result<Vec<u8>, sqlx::Error>;
    /// The instance key; `None` in a store of format 1.
    async fn instance_key(&self) -> Result<Option<Vec<u8>>, sqlx::Error>;
    /// Stores the instance key unless there is one already.
    async fn keep_instance_key(&self, wrapped: Vec<u8>) -> Result<(), StoreError>;
    /// Durably replaces the instance key if it is exactly `old`, and leaves no trace of `old` in the store. Returns
    /// whether it was `old`.
    async fn replace_instance_key(&self, old: Vec<u8>, new: Vec<u8>) -> Result<bool, StoreError>;
    /// A person's key; `Some(None)` if it was erased.
    async fn data_key(&self, person: UserId) -> Result<Option<Option<Vec<u8>>>, StoreError>;
    /// Stores a person's key unless there is one or it was erased. Returns what the store has afterwards.
    async fn keep_data_key(&self, person: UserId, wrapped: Vec<u8>) -> Result<Option<Vec<u8>>, StoreError>;
    async fn erase_data_key(&self, person: UserId) -> Result<(), StoreError>;
    /// Those of these people whose keys were erased.
    async fn erased_among(&self, people: &[UserId]) -> Result<Vec<UserId>, StoreError>;
    async fn signing_key(&self, app: &AppId, kid: &str) -> Result<Option<Vec<u8>>, StoreError>;
    async fn keep_signing_key(
        &self,
        app: &AppId,
        kid: &str,
        alg: &str,
        wrapped: Vec<u8>,
    ) -> Result<(), StoreError>;
    /// The format of the store.
    fn format(&self) -> u32;
    /// The checkpoint that was signed last, and the lines of witnesses that have signed it.
    async fn checkpoint(&self) -> Result<Option<(checkpoint::Row, Vec<String>)>, StoreError>;
    /// Replaces the checkpoint with this mark, or stores the first one. Returns whether it did.
    async fn advance_checkpoint(
        &self,
        from: Option<Vec<u8>>,
        to: checkpoint::Row,
    ) -> Result<bool, StoreError>;
    /// Keeps a witness's signature if it is of the checkpoint that was signed last. Returns whether it is.
    async fn keep_cosignature(&self, cosignature: checkpoint::Cosignature) -> Result<bool, StoreError>;
    /// Whether a key could be stored now, as far as it costs at most one small write in two seconds. On a server, whose
    /// journal is written all the time, that says it.
    async fn can_write(&self) -> Result<(), StoreError> {
        Ok(())
    }
    /// Looks whether the file is still the one that was opened.
    fn check_files(&self) -> Result<(), StoreError> {
        Ok(())
    }
    /// The outcome of the last write, however old it is.
    fn last_write(&self) -> Result<(), Why> {
        Ok(())
    }
    fn measure(&self);
    async fn close(&self);
}

/// What a new store has from the start, so that no key is ever wrapped by another instance key.
struct First {
    check: Vec<u8>,
    instance_key: Vec<u8>,
}

impl First {
    fn new(master: &MasterKey) -> Self {
        let instance = InstanceKey::generate();
        Self {
            check: key_encryption_key(&instance).seal(CHECK_NAME, CHECK),
            // Its journal has MACs from the start.
            instance_key: master.wrap(&instance, Some(&JournalMark::default())),
        }
    }
}

/// The keys, in a file or in a PostgreSQL database.
pub struct KeyStore {
    instance: InstanceKey,
    kek: Cipher,
    macs: Macs,
    marks: CheckpointMarks,
    mark: OnceLock<JournalMark>,
    keys: Box<dyn WrappedKeys>,
    cached: Cache<UserId, (Arc<DataKey>, Instant)>,
    is_shared: bool,
    /// Counts erasures: a key that was read before one must not be cached after it.
    erasures: AtomicU64,
    /// People whose sealed data was met without a key that was ever made, up to a limit.
    missing: Mutex<BTreeSet<UserId>>,
}

impl KeyStore {
    /// Opens the key store at this path, or creates it. Refuses a file that is not a key store, is damaged or newer, or
    /// was made with another master key; then it changes nothing, neither in the file nor beside it.
    pub async fn open(path: &Path, master: &MasterKey) -> Result<Self, OpenError> {
        if SqliteKeys::exists(path)? {
            Self::look(path, master).await?.close().await;
        }
        let keys = SqliteKeys::open(path, &First::new(master)).await?;
        let failed = |error: sqlx::Error| file::damaged_or_failed(path, &error);
        let store = Self::new(keys, master, false).await.map_err(failed)?;
        Self::adopted(store, master, path.display().to_string()).await
    }

    /// Opens the key store in a PostgreSQL database, which several nodes share, after [`KeyStore::migrate_postgres`].
    /// Refuses what is not a key store, is newer, or was made with another master key, and an older one that this user
    /// may not upgrade.
    pub async fn open_postgres(
        url: &PostgresUrl,
        settings: PostgresSettings,
        master: &MasterKey,
    ) -> Result<Self, OpenError> {
        let failed = |error: sqlx::Error| not_opened(url, &error);
        let keys = PostgresKeys::open(url, settings, &First::new(master)).await?;
        let store = Self::new(keys, master, true).await.map_err(failed)?;
        Self::adopted(store, master, url.to_string()).await
    }

    /// Creates or upgrades the key store's tables in a PostgreSQL database. Requires a user who may change the
    /// database.
    pub async fn migrate_postgres(
        url: &PostgresUrl,
        settings: &PostgresSettings,
    ) -> Result<Migrated, OpenError> {
        PostgresKeys::migrate(url, settings).await
    }

    /// What [`KeyStore::migrate_postgres`] would do. Changes nothing.
    pub async fn look_postgres(
        url: &PostgresUrl,
        settings: &PostgresSettings,
    ) -> Result<Migrated, OpenError> {
        PostgresKeys::look(url, settings).await
    }

    /// `None` if the keys are not those of this master key.
    async fn new(
        keys: impl WrappedKeys + 'static,
        master: &MasterKey,
        is_shared: bool,
    ) -> Result<Option<Self>, sqlx::Error> {
        let instance = match keys.instance_key().await? {
            Some(wrapped) => master.unwrap(&wrapped),
            None => Some((master.as_instance_key(), None)),
        };
        let Some((instance, mark)) = instance else {
            keys.close().await;
            return Ok(None);
        };
        let kek = key_encryption_key(&instance);
        let macs = Macs::new(&instance);
        let marks = CheckpointMarks::new(&instance);
        let mark = mark.map_or_else(OnceLock::new, OnceLock::from);
        let cached = Cache::new(CACHED);
        let store = Self {
            instance,
            kek,
            macs,
            marks,
            mark,
            keys: Box::new(keys),
            cached,
            is_shared,
            erasures: AtomicU64::default(),
            missing: Mutex::default(),
        };
        if store.knows_its_key().await? {
            return Ok(Some(store));
        }
        store.close().await;
        Ok(None)
    }

    /// A store opened for writing. If it has format 1, its instance key is stored in it.
    async fn adopted(store: Option<Self>, master: &MasterKey, place: String) -> Result<Self, OpenError> {
        let Some(store) = store else { return Err(OpenError::WrongMasterKey(place)) };
        match store.keys.keep_instance_key(master.wrap(&store.instance, store.mark.get())).await {
            Ok(()) => Ok(store),
            Err(error) => {
                store.close().await;
                let reason = error.to_string();
                Err(match error {
                    StoreError::Unavailable(_) if store.is_shared => OpenError::Away { path: place, reason },
                    _ => OpenError::Failed { path: place, reason },
                })
            }
        }
    }

    /// Limits the memory for persons' keys to this many bytes.
    pub fn limit_cache(&self, bytes: u64) {
        self.cached.set_capacity((bytes / KEY_BYTES).max(1));
    }

    /// The key that all other keys of the instance are derived from.
    pub fn instance_key(&self) -> &InstanceKey {
        &self.instance
    }

    /// The MACs that prove what this instance wrote. If the store has no mark, they accept the checksums of an older
    /// journal until it is upgraded.
    pub fn macs(&self) -> Macs {
        let macs = self.macs.clone();
        if self.is_marked() { macs } else { macs.believing_checksums() }
    }

    /// The mark, if the store says that the journal's events carry MACs.
    pub fn marked(&self) -> Option<&JournalMark> {
        self.mark.get()
    }

    /// Whether the store says that every event of the journal carries a MAC.
    pub fn is_marked(&self) -> bool {
        self.mark.get().is_some()
    }

    /// Sets the mark, durably, once an older journal was upgraded: from then on nothing without a MAC is accepted,
    /// whatever its format says. In PostgreSQL this requires the owner of the tables.
    pub async fn mark(&self, master: &MasterKey, new: &JournalMark) -> Result<(), StoreError> {
        let other =
            || StoreError::Damaged("its instance key is not what it was when it was opened".to_owned());
        loop {
            let wrapped = self.keys.instance_key().await?.ok_or_else(other)?;
            let (_, mark) = master.unwrap(&wrapped).ok_or_else(other)?;
            // Another node may have set it first.
            if let Some(mark) = mark {
                let _ = self.mark.set(mark);
                return Ok(());
            }
            let marked = master.wrap(&self.instance, Some(new));
            self.keys.replace_instance_key(wrapped, marked).await?;
        }
    }

    /// Wraps the instance key with another master key, durably: from then on the store opens with `new` and no longer
    /// with `old`. Processes that have the store open are unaffected. In PostgreSQL this requires the owner of the
    /// tables. Fails if `old` is not the current master key, or if the store is open for reading only.
    pub async fn rotate_master_key(&self, old: &MasterKey, new: &MasterKey) -> Result<(), StoreError> {
        let other =
            || StoreError::Damaged("its master key was changed by another process meanwhile".to_owned());
        let wrapped = self.keys.instance_key().await?.ok_or_else(other)?;
        let (_, mark) = old.unwrap(&wrapped).ok_or_else(other)?;
        let wrapped_anew = new.wrap(&self.instance, mark.as_ref());
        let replaced = self.keys.replace_instance_key(wrapped, wrapped_anew).await?;
        if replaced { Ok(()) } else { Err(other()) }
    }

    /// Opens the key store for reading. Changes nothing, neither in it nor beside it, even if its last writer was
    /// killed. Creating and erasing keys is refused, and so is what [`KeyStore::open`] refuses. No process may write
    /// the store meanwhile.
    pub async fn look(path: &Path, master: &MasterKey) -> Result<Self, OpenError> {
        if !SqliteKeys::exists(path)? {
            let path = path.display().to_string();
            return Err(OpenError::Failed { path, reason: "the file does not exist".to_owned() });
        }
        let store = Self::new(SqliteKeys::look(path).await?, master, false).await;
        let store = store.map_err(|error| file::damaged_or_failed(path, &error))?;
        store.ok_or_else(|| OpenError::WrongMasterKey(path.display().to_string()))
    }

    /// Checks that the store can be read and its keys unwrapped.
    pub async fn check(&self) -> Result<(), StoreError> {
        if self.knows_its_key().await? {
            Ok(())
        } else {
            Err(StoreError::Damaged("the key store no longer belongs to this instance".to_owned()))
        }
    }

    /// Whether a key could be stored now: known from the last write, or from a small one if there was none for a while.
    pub async fn can_write(&self) -> Result<(), StoreError> {
        self.keys.can_write().await
    }

    /// Looks whether its file, if it is in one, is still the one that was opened. Logs a change.
    pub fn check_files(&self) -> Result<(), StoreError> {
        self.keys.check_files()
    }

    /// The outcome of the last write, or of what stood in for it ([`KeyStore::can_write`]), however old it is.
    pub fn last_write(&self) -> Result<(), Why> {
        self.keys.last_write()
    }

    /// Reports metrics of its cache and connections.
    pub fn measure(&self) {
        let cached = &self.cached;
        measure::cache(
            "data_keys",
            cached.len(),
            cached.len() as u64 * KEY_BYTES,
            cached.hits(),
            cached.misses(),
        );
        self.keys.measure();
    }

    /// Closes the store after all pending requests, and leaves nothing beside its file. Later requests fail.
    pub async fn close(&self) {
        self.keys.close().await;
    }

    async fn knows_its_key(&self) -> Result<bool, sqlx::Error> {
        let check = self.keys.check().await?;
        Ok(self.kek.open(CHECK_NAME, &check).as_deref() == Some(CHECK))
    }

    /// A person's key; `None` if none was made or it was erased. If another node erased it, it may still be returned
    /// for five seconds.
    pub async fn data_key(&self, person: UserId) -> Result<Option<Arc<DataKey>>, StoreError> {
        if let Some((key, kept)) = self.cached.get(&person)
            && (!self.is_shared || kept.elapsed() < SHARED_TRUST)
        {
            return Ok(Some(key));
        }
        let erasures = self.erasures.load(Ordering::SeqCst);
        if let Some(wrapped) = self.keys.data_key(person).await?.flatten() {
            return self.unwrap_and_keep(person, &wrapped, erasures).map(Some);
        }
        self.cached.remove(&person);
        Ok(None)
    }

    /// Whether a person has a key, or had one until they were erased.
    pub async fn has_row(&self, person: UserId) -> Result<bool, StoreError> {
        Ok(self.cached.peek(&person).is_some() || self.keys.data_key(person).await?.is_some())
    }

    /// Refuses a person whose key is not there and was not erased either: data sealed with it was written, and to read
    /// it as if the person were erased would be wrong. The key store is older than the journal, or rows were deleted.
    pub async fn require_known(&self, person: UserId) -> Result<(), StoreError> {
        if self.has_row(person).await? {
            return Ok(());
        }
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if missing.len() < REMEMBERED {
            missing.insert(person);
        }
        Err(StoreError::Damaged(format!(
            "the key of {person} is missing from the key store, and was never erased: the key store is older than the journal"
        )))
    }

    /// How many of these people have no key and were not erased.
    pub async fn find_missing(&self, people: impl Iterator<Item = UserId>) -> Result<usize, StoreError> {
        let mut missing = 0;
        for person in people {
            match self.require_known(person).await {
                Err(StoreError::Damaged(_)) => missing += 1,
                known => known?,
            }
        }
        Ok(missing)
    }

    fn is_missing(&self, person: UserId) -> bool {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).contains(&person)
    }

    /// How many people without a key were met, up to a limit.
    pub fn missing(&self) -> usize {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// A person's key, created and durably stored if there is none. Concurrent callers get the same one.
    pub async fn create_data_key(&self, person: UserId) -> Result<Arc<DataKey>, StoreError> {
        if let Some(key) = self.data_key(person).await? {
            return Ok(key);
        }
        // Another key would hide that theirs is missing, and what it seals would be lost with a backup that has theirs.
        if self.is_missing(person) {
            self.require_known(person).await?;
        }
        let erasures = self.erasures.load(Ordering::SeqCst);
        let key = Zeroizing::new(random::<32>());
        let wrapped = self.kek.seal(&data_key_name(person), &*key);
        let kept = self.keys.keep_data_key(person, wrapped).await?;
        self.unwrap_and_keep(person, &kept.ok_or(StoreError::Erased(person))?, erasures)
    }

    /// `erasures` is their number before the key was read.
    fn unwrap_and_keep(
        &self,
        person: UserId,
        wrapped: &[u8],
        erasures: u64,
    ) -> Result<Arc<DataKey>, StoreError> {
        let damaged = || StoreError::Damaged(format!("the data key of {person} cannot be unwrapped"));
        let bytes = self.kek.open(&data_key_name(person), wrapped).map(Zeroizing::new).ok_or_else(damaged)?;
        let key = Arc::new(DataKey::new(&bytes).ok_or_else(damaged)?);
        self.cached.insert(person, (Arc::clone(&key), Instant::now()));
        if self.erasures.load(Ordering::SeqCst) != erasures {
            self.cached.remove(&person);
        }
        Ok(key)
    }
}

fn key_encryption_key(instance: &InstanceKey) -> Cipher {
    Cipher::new(&instance.derive("watchword/v1/key-encryption"))
}

fn data_key_name(person: UserId) -> Vec<u8> {
    [b"data key\0".as_slice(), person.0.as_bytes()].concat()
}
