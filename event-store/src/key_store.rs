//! Keys at rest, apart from the log: one data key per person, and the private halves of the apps' signing keys.
//!
//! Every key is wrapped (XChaCha20-Poly1305) by a key derived from the master key, and bound to its name, so that
//! a stolen file tells nothing and no two keys can be swapped. Erasing a person's data key erases the person from
//! every copy of the journal.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use domain::{AppId, UserId};
use quick_cache::sync::Cache;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::clock::random;
use crate::journal::{OpenError, StoreError};
use crate::master_key::MasterKey;
use crate::postgres::{Migrated, PostgresSettings, PostgresUrl};
use crate::sqlite::file;
use postgres::PostgresKeys;
use sqlite::SqliteKeys;

mod postgres;
mod sqlite;

const NONCE: usize = 24;
const CACHED: usize = 100_000;

/// How long a key is used from memory where other nodes may erase it meanwhile.
const SHARED_TRUST: Duration = Duration::from_secs(5);

/// What is sealed at creation to know the master key again.
const CHECK: &[u8] = b"watchword key store";

/// The key that seals one person's data.
pub struct DataKey(XChaCha20Poly1305);

impl DataKey {
    fn new(bytes: &[u8]) -> Option<Self> {
        XChaCha20Poly1305::new_from_slice(bytes).ok().map(Self)
    }

    /// Nonce ‖ ciphertext ‖ tag. The nonce is random: it is long enough that no two are ever the same.
    pub(crate) fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        seal(&self.0, aad, plaintext)
    }

    /// What was sealed; nothing if it was changed, or sealed with another key or for another place.
    pub(crate) fn open(&self, aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        open(&self.0, aad, sealed)
    }
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey(…)")
    }
}

fn seal(cipher: &XChaCha20Poly1305, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let nonce: [u8; NONCE] = random();
    let sealed = cipher
        .encrypt(&XNonce::from(nonce), Payload { msg: plaintext, aad })
        .expect("it only fails for messages of hundreds of gigabytes");
    [nonce.as_slice(), &sealed].concat()
}

fn open(cipher: &XChaCha20Poly1305, aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE)?;
    let nonce = XNonce::from(<[u8; NONCE]>::try_from(nonce).ok()?);
    cipher.decrypt(&nonce, Payload { msg: sealed, aad }).ok()
}

/// The wrapped keys at rest.
#[async_trait]
trait WrappedKeys: Send + Sync {
    /// What was sealed when the store was made.
    async fn check(&self) -> Result<Vec<u8>, sqlx::Error>;
    /// A person's key; within it nothing, if it was erased.
    async fn data_key(&self, person: UserId) -> Result<Option<Option<Vec<u8>>>, StoreError>;
    /// Keeps a person's key, unless there is one or it was erased. Answers with what is there then.
    async fn keep_data_key(&self, person: UserId, wrapped: Vec<u8>) -> Result<Option<Vec<u8>>, StoreError>;
    async fn erase_data_key(&self, person: UserId) -> Result<(), StoreError>;
    async fn signing_key(&self, app: &AppId, kid: &str) -> Result<Option<Vec<u8>>, StoreError>;
    async fn keep_signing_key(
        &self,
        app: &AppId,
        kid: &str,
        alg: &str,
        wrapped: Vec<u8>,
    ) -> Result<(), StoreError>;
    async fn close(&self);
}

/// The keys, in a file or in a PostgreSQL database.
pub struct KeyStore {
    kek: XChaCha20Poly1305,
    keys: Box<dyn WrappedKeys>,
    cached: Cache<UserId, (Arc<DataKey>, Instant)>,
    is_shared: bool,
}

impl KeyStore {
    /// Opens the key store at this path, and makes it where there is none. Refuses a file that is no key store, is
    /// damaged or newer, or was made with another master key, and changes nothing then, neither in it nor beside it.
    pub async fn open(path: &Path, master: &MasterKey) -> Result<Self, OpenError> {
        let kek = key_encryption_key(master);
        if SqliteKeys::exists(path)? {
            Self::look(path, master).await?.close().await;
        }
        let keys = SqliteKeys::open(path, &seal(&kek, b"check", CHECK)).await?;
        Ok(Self::new(kek, keys, false))
    }

    /// Opens the key store in a PostgreSQL database, which several nodes share, after
    /// [`KeyStore::migrate_postgres`]. Refuses what is no key store, is newer, or was made with another master key,
    /// and an older one that this user may not bring up to date.
    pub async fn open_postgres(
        url: &PostgresUrl,
        settings: PostgresSettings,
        master: &MasterKey,
    ) -> Result<Self, OpenError> {
        let kek = key_encryption_key(master);
        let failed =
            |error: sqlx::Error| OpenError::Failed { path: url.to_string(), reason: error.to_string() };
        let keys = PostgresKeys::open(url, settings, &seal(&kek, b"check", CHECK)).await?;
        let store = Self::new(kek, keys, true);
        if store.knows_its_key().await.map_err(failed)? {
            Ok(store)
        } else {
            Err(OpenError::WrongMasterKey(url.to_string()))
        }
    }

    /// Makes the key store's tables in a PostgreSQL database, or brings them up to date. Only a user who may change the
    /// database can.
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

    fn new(kek: XChaCha20Poly1305, keys: impl WrappedKeys + 'static, is_shared: bool) -> Self {
        Self { kek, keys: Box::new(keys), cached: Cache::new(CACHED), is_shared }
    }

    /// Opens the key store for reading, and changes nothing, neither in it nor beside it, even where its last writer
    /// was killed. Making and erasing keys is refused. Refuses what [`KeyStore::open`] refuses. Only while nobody
    /// writes it.
    pub async fn look(path: &Path, master: &MasterKey) -> Result<Self, OpenError> {
        if !SqliteKeys::exists(path)? {
            let path = path.display().to_string();
            return Err(OpenError::Failed { path, reason: "it is not there".to_owned() });
        }
        let store = Self::new(key_encryption_key(master), SqliteKeys::look(path).await?, false);
        match store.knows_its_key().await {
            Ok(true) => Ok(store),
            Ok(false) => Err(OpenError::WrongMasterKey(path.display().to_string())),
            Err(error) => Err(file::damaged_or_failed(path, &error)),
        }
    }

    /// Whether it can be read, and its keys unwrapped.
    pub async fn check(&self) -> Result<(), StoreError> {
        if self.knows_its_key().await? {
            Ok(())
        } else {
            Err(StoreError::Damaged("the key store is not that of the master key any more".to_owned()))
        }
    }

    /// Closes it, behind what was asked before, so that nothing is left beside a file. What is asked afterwards fails.
    pub async fn close(&self) {
        self.keys.close().await;
    }

    async fn knows_its_key(&self) -> Result<bool, sqlx::Error> {
        let check = self.keys.check().await?;
        Ok(open(&self.kek, b"check", &check).as_deref() == Some(CHECK))
    }

    /// A person's key; absent when none was made or it was erased. Where another node erased it, it may be had for five
    /// more seconds.
    pub async fn data_key(&self, person: UserId) -> Result<Option<Arc<DataKey>>, StoreError> {
        if let Some((key, kept)) = self.cached.get(&person)
            && (!self.is_shared || kept.elapsed() < SHARED_TRUST)
        {
            return Ok(Some(key));
        }
        if let Some(wrapped) = self.keys.data_key(person).await?.flatten() {
            return self.unwrap_and_keep(person, &wrapped).map(Some);
        }
        self.cached.remove(&person);
        Ok(None)
    }

    /// Whether a person's key was erased. One that was never made was not.
    pub async fn is_erased(&self, person: UserId) -> Result<bool, StoreError> {
        Ok(self.keys.data_key(person).await? == Some(None))
    }

    /// A person's key, made and durably kept if there is none. Callers that race get the same one.
    pub async fn create_data_key(&self, person: UserId) -> Result<Arc<DataKey>, StoreError> {
        if let Some(key) = self.data_key(person).await? {
            return Ok(key);
        }
        let key = Zeroizing::new(random::<32>());
        let wrapped = seal(&self.kek, &data_key_name(person), &*key);
        let kept = self.keys.keep_data_key(person, wrapped).await?;
        self.unwrap_and_keep(person, &kept.ok_or(StoreError::Erased(person))?)
    }

    /// Erases a person's key for good: whatever it sealed cannot be read by anybody any more.
    pub async fn erase_data_key(&self, person: UserId) -> Result<(), StoreError> {
        let erased = self.keys.erase_data_key(person).await;
        self.cached.remove(&person);
        erased
    }

    /// Keeps the private half of a signing key (PKCS #8), durably.
    pub async fn put_signing_key(
        &self,
        app: &AppId,
        kid: &str,
        alg: &str,
        pkcs8: &[u8],
    ) -> Result<(), StoreError> {
        let wrapped = seal(&self.kek, &signing_key_name(app, kid), pkcs8);
        self.keys.keep_signing_key(app, kid, alg, wrapped).await
    }

    /// The private half of a signing key.
    pub async fn signing_key(
        &self,
        app: &AppId,
        kid: &str,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let Some(wrapped) = self.keys.signing_key(app, kid).await? else { return Ok(None) };
        open(&self.kek, &signing_key_name(app, kid), &wrapped)
            .map(|key| Some(Zeroizing::new(key)))
            .ok_or_else(|| StoreError::Damaged(format!("the signing key {kid} of {app} cannot be unwrapped")))
    }

    fn unwrap_and_keep(&self, person: UserId, wrapped: &[u8]) -> Result<Arc<DataKey>, StoreError> {
        let damaged = || StoreError::Damaged(format!("the data key of {person} cannot be unwrapped"));
        let bytes =
            open(&self.kek, &data_key_name(person), wrapped).map(Zeroizing::new).ok_or_else(damaged)?;
        let key = Arc::new(DataKey::new(&bytes).ok_or_else(damaged)?);
        self.cached.insert(person, (Arc::clone(&key), Instant::now()));
        Ok(key)
    }
}

fn key_encryption_key(master: &MasterKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new_from_slice(&*master.derive("watchword/v1/key-encryption"))
        .expect("the derived key has the right length")
}

fn data_key_name(person: UserId) -> Vec<u8> {
    [b"data key\0".as_slice(), person.0.as_bytes()].concat()
}

fn signing_key_name(app: &AppId, kid: &str) -> Vec<u8> {
    [b"signing key\0", app.as_str().as_bytes(), b"\0", kid.as_bytes()].concat()
}
