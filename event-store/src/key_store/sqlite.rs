//! Wrapped keys in a SQLite file, for one process.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use domain::{AppId, UserId};
use futures::FutureExt;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use tasks::{End, Weight};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::checkpoint::{Cosignature, Row as Checkpoint};
use super::{First, WrappedKeys};
use crate::journal::{OpenError, StoreError};
use crate::measure;
use crate::pools;
use crate::sqlite::file;
use crate::sqlite::probe;
use crate::storage::{Files, Storage, Why};
use tables::KIND;

mod tables;

/// How often the log is emptied before readers are left alone. Each try waits for them, for a second.
const TRIES: usize = 3;

/// The most requests that are committed together.
const GROUP: usize = 256;

pub(super) struct SqliteKeys {
    readers: SqlitePool,
    requests: mpsc::Sender<Request>,
    storage: Arc<Storage>,
    format: u32,
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
    /// Replaces this instance key, or stores the first one.
    InstanceKey {
        replaces: Option<Vec<u8>>,
        wrapped: Vec<u8>,
        answer: oneshot::Sender<Result<bool, StoreError>>,
    },
    /// Replaces the checkpoint with this mark, or stores the first one.
    Checkpoint {
        replaces: Option<Vec<u8>>,
        checkpoint: Checkpoint,
        answer: oneshot::Sender<Result<bool, StoreError>>,
    },
    Cosignature {
        cosignature: Cosignature,
        answer: oneshot::Sender<Result<bool, StoreError>>,
    },
    /// Finds out whether a key could be stored.
    Probe {
        answer: oneshot::Sender<Result<(), StoreError>>,
    },
    /// Ends the writer.
    Close,
}

impl SqliteKeys {
    /// Whether the file exists. If it does, it is a key store.
    pub(super) fn exists(path: &Path) -> Result<bool, OpenError> {
        Ok(file::check(path, &KIND)?.is_some())
    }

    /// Opens the file, or creates it.
    pub(super) async fn open(path: &Path, first: &First) -> Result<Self, OpenError> {
        if file::check(path, &KIND)?.is_none() {
            let (check, instance_key) = (hex::encode(&first.check), hex::encode(&first.instance_key));
            let first =
                format!("INSERT INTO meta VALUES ('check', x'{check}'), ('instance', x'{instance_key}');");
            file::create(path, &KIND, &first).await?;
        }
        let options = file::options(path).pragma("secure_delete", "ON");
        let mut connection = file::open(path, &options, &KIND).await?;
        // A process that was killed may have left what it erased in the file, and its end in the log only.
        if let Err(error) = empty_log(&mut connection).await {
            tracing::warn!(%error, "the key store's log cannot be emptied");
        }
        let readers = pools::sqlite()
            .max_connections(2)
            .connect_with(options.clone().read_only(true))
            .await
            .map_err(|error| file::damaged_or_failed(path, &error))?;
        let (requests, queue) = mpsc::channel(1024);
        let storage = Arc::new(Storage::new(Files::of(path)));
        let kept = Arc::clone(&storage);
        tasks::start_with("key_store_writer", Weight::Vital, (Some(connection), queue), move |state| {
            let (options, storage) = (options.clone(), Arc::clone(&kept));
            async move {
                let (connection, queue) = state;
                write(&options, connection, queue, &storage).await
            }
            .boxed()
        });
        Ok(Self { readers, requests, storage, format: KIND.format })
    }

    /// Opens the file for reading.
    pub(super) async fn look(path: &Path) -> Result<Self, OpenError> {
        let storage = Arc::new(Storage::new(Files::unwatched(path)));
        let readers = file::look(path).await?;
        let format = file::format(path, &KIND, &readers).await?;
        Ok(Self { readers, requests: mpsc::channel(1).0, storage, format })
    }

    /// The connections that read. Nothing is sealed with the keys of a file that is gone.
    fn readers(&self) -> Result<&SqlitePool, StoreError> {
        self.storage.files.known()?;
        Ok(&self.readers)
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        let stopped = || StoreError::Unavailable("the key store's writer has stopped".into());
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| stopped())?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }
}

#[async_trait]
impl WrappedKeys for SqliteKeys {
    async fn check(&self) -> Result<Vec<u8>, sqlx::Error> {
        sqlx::query_scalar("SELECT value FROM meta WHERE key = 'check'").fetch_one(&self.readers).await
    }

    async fn instance_key(&self) -> Result<Option<Vec<u8>>, sqlx::Error> {
        sqlx::query_scalar("SELECT value FROM meta WHERE key = 'instance'")
            .fetch_optional(&self.readers)
            .await
    }

    async fn keep_instance_key(&self, wrapped: Vec<u8>) -> Result<(), StoreError> {
        self.ask(|answer| Request::InstanceKey { replaces: None, wrapped, answer }).await?;
        Ok(())
    }

    async fn replace_instance_key(&self, old: Vec<u8>, new: Vec<u8>) -> Result<bool, StoreError> {
        self.ask(|answer| Request::InstanceKey { replaces: Some(old), wrapped: new, answer }).await
    }

    async fn data_key(&self, person: UserId) -> Result<Option<Option<Vec<u8>>>, StoreError> {
        Ok(sqlx::query_scalar("SELECT wrapped FROM data_keys WHERE person = ?1")
            .bind(person.0.as_bytes().as_slice())
            .fetch_optional(self.readers()?)
            .await?)
    }

    async fn keep_data_key(&self, person: UserId, wrapped: Vec<u8>) -> Result<Option<Vec<u8>>, StoreError> {
        self.ask(|answer| Request::DataKey { person, wrapped, answer }).await
    }

    async fn erase_data_key(&self, person: UserId) -> Result<(), StoreError> {
        self.ask(|answer| Request::Erase { person, answer }).await
    }

    async fn erased_among(&self, people: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        let people: Vec<String> = people.iter().map(|person| person.0.simple().to_string()).collect();
        let found: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT person FROM data_keys WHERE wrapped IS NULL
             AND person IN (SELECT unhex(value) FROM json_each(?1))",
        )
        .bind(serde_json::json!(people).to_string())
        .fetch_all(self.readers()?)
        .await?;
        let damaged = |_| StoreError::Damaged("the id of a person in the key store".to_owned());
        found.iter().map(|id| Uuid::from_slice(id).map(UserId).map_err(damaged)).collect()
    }

    async fn signing_key(&self, app: &AppId, kid: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(sqlx::query_scalar("SELECT wrapped FROM signing_keys WHERE app_id = ?1 AND kid = ?2")
            .bind(app.as_str())
            .bind(kid)
            .fetch_optional(self.readers()?)
            .await?)
    }

    async fn keep_signing_key(
        &self,
        app: &AppId,
        kid: &str,
        alg: &str,
        wrapped: Vec<u8>,
    ) -> Result<(), StoreError> {
        let (app, kid, alg) = (app.clone(), kid.to_owned(), alg.to_owned());
        self.ask(|answer| Request::SigningKey { app, kid, alg, wrapped, answer }).await
    }

    fn format(&self) -> u32 {
        self.format
    }

    async fn checkpoint(&self) -> Result<Option<(Checkpoint, Vec<String>)>, StoreError> {
        // One statement, so that both are of one moment.
        let rows = sqlx::query(
            "SELECT c.size, c.root, c.event, c.note, c.epochs, c.signed_at, c.mac, w.line FROM checkpoints c
             LEFT JOIN cosignatures w ON w.size = c.size AND w.root = c.root ORDER BY w.witness",
        )
        .fetch_all(self.readers()?)
        .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let damaged = |_| StoreError::Damaged("the last signed checkpoint in the key store".to_owned());
        let event: Vec<u8> = first.try_get("event")?;
        let checkpoint = Checkpoint {
            size: first.try_get("size")?,
            root: first.try_get("root")?,
            event: Uuid::from_slice(&event).map_err(damaged)?,
            note: first.try_get("note")?,
            epochs: first.try_get("epochs")?,
            signed_at: first.try_get("signed_at")?,
            mac: first.try_get("mac")?,
        };
        let lines: Result<Vec<Option<String>>, _> = rows.iter().map(|row| row.try_get("line")).collect();
        Ok(Some((checkpoint, lines?.into_iter().flatten().collect())))
    }

    async fn advance_checkpoint(&self, from: Option<Vec<u8>>, to: Checkpoint) -> Result<bool, StoreError> {
        self.ask(|answer| Request::Checkpoint { replaces: from, checkpoint: to, answer }).await
    }

    async fn keep_cosignature(&self, cosignature: Cosignature) -> Result<bool, StoreError> {
        self.ask(|answer| Request::Cosignature { cosignature, answer }).await
    }

    async fn can_write(&self) -> Result<(), StoreError> {
        match self.storage.known() {
            Some(known) => Ok(known?),
            None => self.ask(|answer| Request::Probe { answer }).await,
        }
    }

    fn check_files(&self) -> Result<(), StoreError> {
        Ok(self.storage.files.check()?)
    }

    fn last_write(&self) -> Result<(), Why> {
        self.storage.files.known().and_then(|()| self.storage.last.outcome())
    }

    fn measure(&self) {
        let pool = &self.readers;
        measure::pool("key_store", pool.size(), pool.num_idle(), pool.options().get_max_connections());
    }

    async fn close(&self) {
        self.readers.close().await;
        // This fails if the writer has ended already, which is fine.
        let _ = self.requests.send(Request::Close).await;
        self.requests.closed().await;
    }
}

/// The only task that writes. As in the journal, queued requests are committed together, and it can run again after a
/// panic.
async fn write(
    options: &SqliteConnectOptions,
    connection: &mut Option<SqliteConnection>,
    queue: &mut mpsc::Receiver<Request>,
    storage: &Storage,
) -> End {
    let mut group = Vec::new();
    let mut closing = false;
    while !closing && queue.recv_many(&mut group, GROUP).await > 0 {
        closing = group.iter().any(|request| matches!(request, Request::Close));
        let outcome = write_to(storage, options, connection, &group).await;
        match &outcome {
            Ok(_) => storage.last.succeeded(),
            Err(why) => {
                tracing::error!(%why, "the key store could not write");
                storage.last.failed(why, group.len());
            }
        }
        let outcome = outcome.map_err(StoreError::from);
        for (place, request) in group.drain(..).enumerate() {
            // A caller that stopped waiting changes nothing: the commit stands.
            match request {
                Request::DataKey { answer, .. } => {
                    let _ =
                        answer.send(outcome.as_ref().map(|kept| kept[place].clone()).map_err(Clone::clone));
                }
                Request::SigningKey { answer, .. }
                | Request::Erase { answer, .. }
                | Request::Probe { answer } => {
                    let _ = answer.send(outcome.as_ref().map(|_| ()).map_err(Clone::clone));
                }
                Request::InstanceKey { wrapped, answer, .. } => {
                    let _ = answer.send(
                        outcome
                            .as_ref()
                            .map(|kept| kept[place].as_ref() == Some(&wrapped))
                            .map_err(Clone::clone),
                    );
                }
                Request::Checkpoint { answer, .. } | Request::Cosignature { answer, .. } => {
                    let _ =
                        answer.send(outcome.as_ref().map(|kept| kept[place].is_some()).map_err(Clone::clone));
                }
                Request::Close => {}
            }
        }
    }
    storage.files.release();
    if let Some(connection) = connection.take()
        && let Err(error) = connection.close().await
    {
        tracing::warn!(%error, "the key store could not close its connection");
    }
    End::Asked
}

/// Commits a group, unless the file is gone, before the commit or right after: then nobody would find the keys again.
async fn write_to(
    storage: &Storage,
    options: &SqliteConnectOptions,
    connection: &mut Option<SqliteConnection>,
    group: &[Request],
) -> Result<Vec<Option<Vec<u8>>>, Why> {
    storage.files.check()?;
    let written = async {
        // Put back only after success, so that a broken one is never reused.
        let mut open = match connection.take() {
            Some(open) => open,
            None => options.connect().await?,
        };
        let kept = write_group(&mut open, group, storage.last.size()).await?;
        *connection = Some(open);
        Ok(kept)
    };
    let kept = written.await.map_err(|error: sqlx::Error| storage.files.why(&error))?;
    storage.files.check()?;
    Ok(kept)
}

/// Returns, by index, the wrapped data key or instance key that the store has after the commit; of a checkpoint or a
/// witness's signature something, if it was stored.
async fn write_group(
    connection: &mut SqliteConnection,
    group: &[Request],
    probe_size: usize,
) -> Result<Vec<Option<Vec<u8>>>, sqlx::Error> {
    let mut kept = Vec::with_capacity(group.len());
    let mut erased = false;
    if group.iter().any(|request| matches!(request, Request::Probe { .. })) {
        probe::write(connection, probe_size).await?;
        if group.len() == 1 {
            return Ok(vec![None]);
        }
    }
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for request in group {
        kept.push(match request {
            Request::DataKey { person, wrapped, .. } => {
                // On conflict the update changes nothing, but makes the statement return the existing row.
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
            Request::InstanceKey { replaces: None, wrapped, .. } => {
                sqlx::query("INSERT INTO meta VALUES ('instance', ?1) ON CONFLICT DO NOTHING")
                    .bind(wrapped.as_slice())
                    .execute(&mut *transaction)
                    .await?;
                None
            }
            Request::InstanceKey { replaces: Some(old), wrapped, .. } => {
                erased = true;
                sqlx::query_scalar(
                    "UPDATE meta SET value = ?1 WHERE key = 'instance' AND value = ?2 RETURNING value",
                )
                .bind(wrapped.as_slice())
                .bind(old.as_slice())
                .fetch_optional(&mut *transaction)
                .await?
            }
            Request::Checkpoint { replaces, checkpoint, .. } => {
                advance(&mut transaction, replaces.as_deref(), checkpoint).await?
            }
            Request::Cosignature { cosignature, .. } => cosign(&mut transaction, cosignature).await?,
            Request::Probe { .. } | Request::Close => None,
        });
    }
    transaction.commit().await?;
    if erased {
        fail::fail_point!("before-log-emptied", |_| std::process::abort());
        empty_log(connection).await?;
    }
    Ok(kept)
}

/// Replaces the checkpoint with this mark, or stores the first one.
async fn advance(
    connection: &mut SqliteConnection,
    replaces: Option<&[u8]>,
    to: &Checkpoint,
) -> Result<Option<Vec<u8>>, sqlx::Error> {
    let statement = match replaces {
        None => {
            "INSERT INTO checkpoints SELECT 0, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE ?1 IS NULL
             ON CONFLICT DO NOTHING RETURNING mac"
        }
        Some(_) => {
            "UPDATE checkpoints SET size = ?2, root = ?3, event = ?4, note = ?5, epochs = ?6, signed_at = ?7, mac = ?8
             WHERE mac = ?1 RETURNING mac"
        }
    };
    sqlx::query_scalar(statement)
        .bind(replaces)
        .bind(to.size)
        .bind(to.root.as_slice())
        .bind(to.event.as_bytes().as_slice())
        .bind(to.note.as_str())
        .bind(to.epochs.as_slice())
        .bind(to.signed_at)
        .bind(to.mac.as_slice())
        .fetch_optional(connection)
        .await
}

/// Keeps a witness's signature if it is of the checkpoint that was signed last.
async fn cosign(
    connection: &mut SqliteConnection,
    Cosignature { witness, size, root, line }: &Cosignature,
) -> Result<Option<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar(
        "INSERT INTO cosignatures SELECT ?1, size, root, ?4 FROM checkpoints WHERE size = ?2 AND root = ?3
         ON CONFLICT (witness) DO UPDATE SET size = excluded.size, root = excluded.root, line = excluded.line
         RETURNING root",
    )
    .bind(witness.as_str())
    .bind(*size)
    .bind(root.as_slice())
    .bind(line.as_str())
    .fetch_optional(connection)
    .await
}

/// Moves what is in the log beside the file into the file, and empties the log. Until then both have pages with what was
/// erased. A reader delays that for as long as its query takes.
async fn empty_log(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    for _ in 0..TRIES {
        let checkpoint = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *connection).await?;
        if checkpoint.try_get::<i64, _>("busy")? == 0 {
            return Ok(());
        }
    }
    tracing::warn!("the key store's log cannot be emptied: the next erasure or start does it");
    Ok(())
}
