//! Keys at rest, apart from the log: one data key per person, and the private halves of the apps' signing keys.
//!
//! Every key is wrapped (XChaCha20-Poly1305) by a key derived from the master key, and bound to its name, so that
//! a stolen file tells nothing and no two keys can be swapped. Erasing a person's data key erases the person from
//! every copy of the journal.

use std::path::Path;
use std::sync::Arc;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use domain::{AppId, UserId};
use quick_cache::sync::Cache;
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use crate::clock::random;
use crate::journal::{OpenError, StoreError};
use crate::master_key::MasterKey;
use crate::sqlite::file::{self, Kind};

const KIND: Kind = Kind {
    what: "Watchword key store",
    application_id: 0x5741_4b31,
    format: 1,
    schema: SCHEMA,
    upgrades: &[],
};

// An erased person's row stays, with nothing in it: no new key must ever be made for them.
const SCHEMA: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE data_keys (person BLOB PRIMARY KEY, wrapped BLOB) STRICT, WITHOUT ROWID;
CREATE TABLE signing_keys (
    app_id TEXT NOT NULL, kid TEXT NOT NULL, alg TEXT NOT NULL, wrapped BLOB NOT NULL, PRIMARY KEY (app_id, kid)
) STRICT, WITHOUT ROWID;
";

const NONCE: usize = 24;
const CACHED: usize = 100_000;
const GROUP: usize = 256;

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

/// The file of keys.
pub struct KeyStore {
    kek: Arc<XChaCha20Poly1305>,
    readers: SqlitePool,
    requests: mpsc::Sender<Request>,
    cached: Cache<UserId, Arc<DataKey>>,
}

enum Request {
    DataKey {
        person: UserId,
        wrapped: Vec<u8>,
        answer: oneshot::Sender<Result<Option<Vec<u8>>, StoreError>>,
    },
    SigningKey {
        app: AppId,
        kid: String,
        alg: String,
        wrapped: Vec<u8>,
        answer: oneshot::Sender<Result<(), StoreError>>,
    },
    Erase {
        person: UserId,
        answer: oneshot::Sender<Result<(), StoreError>>,
    },
    /// To end.
    Close,
}

impl KeyStore {
    /// Opens the key store at this path, and makes it where there is none. Refuses a file that is no key store, is
    /// damaged or newer, or was made with another master key, and changes nothing then, neither in it nor beside it.
    pub async fn open(path: &Path, master: &MasterKey) -> Result<Self, OpenError> {
        let kek = key_encryption_key(master);
        let format = if let Some(format) = file::check(path, &KIND)? {
            Self::look(path, master).await?.close().await;
            format
        } else {
            // It is there from the first moment on, so that no key is ever wrapped by another one.
            let check = file::hex(&seal(&kek, b"check", CHECK));
            file::create(path, &KIND, &format!("INSERT INTO meta VALUES ('check', x'{check}');")).await?;
            KIND.format
        };
        let options = file::options(path).pragma("secure_delete", "ON");
        let connection = file::open(path, &options, &KIND, format).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(2)
            .test_before_acquire(false)
            .connect_with(options.clone().read_only(true))
            .await
            .map_err(|error| file::damaged_or_failed(path, &error))?;
        let (requests, queue) = mpsc::channel(1024);
        tokio::spawn(write(options, connection, queue));
        Ok(Self { kek: Arc::new(kek), readers, requests, cached: Cache::new(CACHED) })
    }

    /// Opens the key store for reading, and changes nothing, neither in it nor beside it, even where its last writer
    /// was killed. Making and erasing keys is refused. Refuses what [`KeyStore::open`] refuses. Only while nobody
    /// writes it.
    pub async fn look(path: &Path, master: &MasterKey) -> Result<Self, OpenError> {
        if file::check(path, &KIND)?.is_none() {
            let path = path.display().to_string();
            return Err(OpenError::Failed { path, reason: "it is not there".to_owned() });
        }
        let readers = file::look(path).await?;
        let requests = mpsc::channel(1).0;
        let kek = Arc::new(key_encryption_key(master));
        let store = Self { kek, readers, requests, cached: Cache::new(CACHED) };
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

    /// Closes the file, behind what was asked before, so that nothing is left beside it. What is asked afterwards
    /// fails.
    pub async fn close(&self) {
        self.readers.close().await;
        // It fails when the writer has ended already, which is as well.
        let _ = self.requests.send(Request::Close).await;
        self.requests.closed().await;
    }

    async fn knows_its_key(&self) -> Result<bool, sqlx::Error> {
        let check: Vec<u8> =
            sqlx::query_scalar("SELECT value FROM meta WHERE key = 'check'").fetch_one(&self.readers).await?;
        Ok(open(&self.kek, b"check", &check).as_deref() == Some(CHECK))
    }

    /// A person's key; absent when none was made or it was erased.
    pub async fn data_key(&self, person: UserId) -> Result<Option<Arc<DataKey>>, StoreError> {
        if let Some(key) = self.cached.get(&person) {
            return Ok(Some(key));
        }
        let wrapped: Option<Option<Vec<u8>>> =
            sqlx::query_scalar("SELECT wrapped FROM data_keys WHERE person = ?1")
                .bind(person.0.as_bytes().as_slice())
                .fetch_optional(&self.readers)
                .await?;
        wrapped.flatten().map(|wrapped| self.unwrap_and_keep(person, &wrapped)).transpose()
    }

    /// Whether a person's key was erased. One that was never made was not.
    pub async fn is_erased(&self, person: UserId) -> Result<bool, StoreError> {
        let erased: Option<bool> =
            sqlx::query_scalar("SELECT wrapped IS NULL FROM data_keys WHERE person = ?1")
                .bind(person.0.as_bytes().as_slice())
                .fetch_optional(&self.readers)
                .await?;
        Ok(erased == Some(true))
    }

    /// A person's key, made and durably kept if there is none. Callers that race get the same one.
    pub async fn create_data_key(&self, person: UserId) -> Result<Arc<DataKey>, StoreError> {
        if let Some(key) = self.data_key(person).await? {
            return Ok(key);
        }
        let key = Zeroizing::new(random::<32>());
        let wrapped = seal(&self.kek, &data_key_name(person), &*key);
        let kept = self.ask(|answer| Request::DataKey { person, wrapped, answer }).await?;
        self.unwrap_and_keep(person, &kept.ok_or(StoreError::Erased(person))?)
    }

    /// Erases a person's key for good: whatever it sealed cannot be read by anybody any more.
    pub async fn erase_data_key(&self, person: UserId) -> Result<(), StoreError> {
        let erased = self.ask(|answer| Request::Erase { person, answer }).await;
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
        let (app, kid, alg) = (app.clone(), kid.to_owned(), alg.to_owned());
        self.ask(|answer| Request::SigningKey { app, kid, alg, wrapped, answer }).await
    }

    /// The private half of a signing key.
    pub async fn signing_key(
        &self,
        app: &AppId,
        kid: &str,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let wrapped: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT wrapped FROM signing_keys WHERE app_id = ?1 AND kid = ?2")
                .bind(app.as_str())
                .bind(kid)
                .fetch_optional(&self.readers)
                .await?;
        let Some(wrapped) = wrapped else { return Ok(None) };
        open(&self.kek, &signing_key_name(app, kid), &wrapped)
            .map(|key| Some(Zeroizing::new(key)))
            .ok_or_else(|| StoreError::Damaged(format!("the signing key {kid} of {app} cannot be unwrapped")))
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        let stopped = || StoreError::Unavailable("the key store's writer has stopped".to_owned());
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| stopped())?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }

    fn unwrap_and_keep(&self, person: UserId, wrapped: &[u8]) -> Result<Arc<DataKey>, StoreError> {
        let damaged = || StoreError::Damaged(format!("the data key of {person} cannot be unwrapped"));
        let bytes =
            open(&self.kek, &data_key_name(person), wrapped).map(Zeroizing::new).ok_or_else(damaged)?;
        let key = Arc::new(DataKey::new(&bytes).ok_or_else(damaged)?);
        self.cached.insert(person, Arc::clone(&key));
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

/// The one task that writes: as in the journal, whatever is queued is committed together.
async fn write(
    options: sqlx::sqlite::SqliteConnectOptions,
    connection: SqliteConnection,
    mut queue: mpsc::Receiver<Request>,
) {
    let mut connection = Some(connection);
    let mut group = Vec::new();
    let mut closing = false;
    while !closing && queue.recv_many(&mut group, GROUP).await > 0 {
        closing = group.iter().any(|request| matches!(request, Request::Close));
        let outcome = async {
            let mut open = match connection.take() {
                Some(open) => open,
                None => options.connect().await?,
            };
            let kept = write_group(&mut open, &group).await?;
            connection = Some(open);
            Ok::<_, sqlx::Error>(kept)
        };
        let outcome = outcome.await.map_err(|error| {
            tracing::error!(%error, "the key store could not write");
            StoreError::from(error)
        });
        for (place, request) in group.drain(..).enumerate() {
            // Nobody waits any more: what is kept is kept.
            match request {
                Request::DataKey { answer, .. } => {
                    let _ =
                        answer.send(outcome.as_ref().map(|kept| kept[place].clone()).map_err(Clone::clone));
                }
                Request::SigningKey { answer, .. } | Request::Erase { answer, .. } => {
                    let _ = answer.send(outcome.as_ref().map(|_| ()).map_err(Clone::clone));
                }
                Request::Close => {}
            }
        }
    }
    if let Some(connection) = connection
        && let Err(error) = connection.close().await
    {
        tracing::warn!(%error, "the key store could not close its connection");
    }
}

/// Answers, by place, with the wrapped data key that is there after the commit.
async fn write_group(
    connection: &mut SqliteConnection,
    group: &[Request],
) -> Result<Vec<Option<Vec<u8>>>, sqlx::Error> {
    let mut kept = Vec::with_capacity(group.len());
    let mut erased = false;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for request in group {
        kept.push(match request {
            Request::DataKey { person, wrapped, .. } => {
                // The conflict changes nothing, but makes the statement give back the row that is there.
                sqlx::query_scalar(
                    "INSERT INTO data_keys VALUES (?1, ?2)
                     ON CONFLICT (person) DO UPDATE SET wrapped = wrapped RETURNING wrapped",
                )
                .bind(person.0.as_bytes().as_slice())
                .bind(wrapped.as_slice())
                .fetch_one(&mut *transaction)
                .await?
            }
            Request::SigningKey { app, kid, alg, wrapped, .. } => {
                sqlx::query("INSERT OR REPLACE INTO signing_keys VALUES (?1, ?2, ?3, ?4)")
                    .bind(app.as_str())
                    .bind(kid)
                    .bind(alg)
                    .bind(wrapped.as_slice())
                    .execute(&mut *transaction)
                    .await?;
                None
            }
            Request::Erase { person, .. } => {
                erased = true;
                sqlx::query("INSERT OR REPLACE INTO data_keys VALUES (?1, NULL)")
                    .bind(person.0.as_bytes().as_slice())
                    .execute(&mut *transaction)
                    .await?;
                None
            }
            Request::Close => None,
        });
    }
    transaction.commit().await?;
    if erased {
        // The old page is still in the log: a checkpoint moves the new one into the file and empties the log.
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_all(connection).await?;
    }
    Ok(kept)
}
