//! Wrapped keys in a PostgreSQL database, shared by several nodes.
//!
//! The commit removes an erased key from its row. Old row versions, the database's log and its backups hold the key for
//! as long as they are kept.

use async_trait::async_trait;
use domain::{AppId, UserId};
use sqlx::postgres::PgConnectOptions;
use tokio::time::timeout;
use uuid::Uuid;

use super::checkpoint::{Cosignature, FORMAT_WITH_CHECKPOINTS, Row};
use super::{First, WrappedKeys};
use crate::journal::{OpenError, StoreError};
use crate::measure;
use crate::postgres::connecting::connect;
use crate::postgres::pool::Pool;
use crate::postgres::schema::{Prepared, Schema};
use crate::postgres::session::{not_opened, timed_out};
use crate::postgres::{Migrated, PostgresSettings, PostgresUrl, Reach};
use crate::storage::{LastWrite, Why};

/// How many bytes a random number has.
const OF_A_UUID: usize = 16;

/// Separate from the journal's schema, so that the keys can live in another database, with backups of their own.
const SCHEMA: Schema = Schema {
    what: "Watchword key store",
    name: "watchword_keys",
    migrations: &[
        include_str!("../postgres/keys_1.sql"),
        include_str!("../postgres/keys_2.sql"),
        include_str!("../postgres/keys_3.sql"),
        include_str!("../postgres/keys_4.sql"),
    ],
};

pub(super) struct PostgresKeys {
    pool: Pool,
    /// For operations that only the owner of the tables may perform.
    as_owner: PgConnectOptions,
    reach: Reach,
    last: LastWrite,
}

impl PostgresKeys {
    pub(super) async fn migrate(
        url: &PostgresUrl,
        settings: &PostgresSettings,
    ) -> Result<Migrated, OpenError> {
        Self::prepare(url, settings).await.map(|prepared| prepared.migrated)
    }

    async fn prepare(url: &PostgresUrl, settings: &PostgresSettings) -> Result<Prepared, OpenError> {
        SCHEMA.prepare(url, settings, &url.to_string()).await
    }

    pub(super) async fn look(url: &PostgresUrl, settings: &PostgresSettings) -> Result<Migrated, OpenError> {
        SCHEMA.look(url, settings, &url.to_string()).await
    }

    /// Opens the store. The first node to open it writes `first`.
    pub(super) async fn open(
        url: &PostgresUrl,
        settings: PostgresSettings,
        first: &First,
    ) -> Result<Self, OpenError> {
        let prepared = Self::prepare(url, &settings).await?;
        let settings = PostgresSettings { role: prepared.role, ..settings };
        let pool = settings.pool(url.options());
        let reach = Reach::new(url.options(), &settings);
        let kept = reach.retried(|| {
            // A store of format 1 has its check, and keeps its own instance key.
            sqlx::query(
                "INSERT INTO watchword_keys.meta
                 SELECT * FROM (VALUES ('check', $1::bytea), ('instance', $2::bytea)) AS first
                 WHERE NOT EXISTS (SELECT FROM watchword_keys.meta WHERE key = 'check')
                 ON CONFLICT DO NOTHING",
            )
            .bind(&first.check)
            .bind(&first.instance_key)
            .execute(&pool)
        });
        kept.await.map_err(|error| not_opened(url, &error))?;
        Ok(Self { pool, as_owner: url.options().clone(), reach, last: LastWrite::default() })
    }

    /// Not as the service: an attacker with a node's credentials must not be able to lock out all nodes.
    async fn replace_as_owner(&self, old: &[u8], new: &[u8]) -> Result<bool, sqlx::Error> {
        let bound = self.reach.answer();
        let silent = |_| Err(timed_out("the database does not answer"));
        timeout(bound, self.replace_by_owner(old, new)).await.unwrap_or_else(silent)
    }

    async fn replace_by_owner(&self, old: &[u8], new: &[u8]) -> Result<bool, sqlx::Error> {
        let mut connection = connect(&self.as_owner, self.reach.answer()).await?;
        // If the answer was lost and this runs again, the new key is there already.
        let replaced = sqlx::query(
            "UPDATE watchword_keys.meta SET value = $1 WHERE key = 'instance' AND value IN ($1, $2)",
        )
        .bind(new)
        .bind(old)
        .execute(&mut connection)
        .await?;
        Ok(replaced.rows_affected() == 1)
    }

    /// Writes a key of nobody, and takes it back: there may be no room for it, or the server may be read-only.
    async fn probe(&self) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let bound = transaction.bound();
        let nobody = sqlx::query(
            "INSERT INTO watchword_keys.data_keys
             SELECT gen_random_uuid(), string_agg(uuid_send(gen_random_uuid()), ''::bytea) FROM generate_series(1, $1)",
        )
        .bind(i32::try_from(self.last.size().div_ceil(OF_A_UUID)).unwrap_or(i32::MAX));
        let wrote = timeout(bound, nobody.execute(transaction.start()?)).await;
        transaction.finish(wrote).map(drop)
    }

    /// Keeps the outcome of a small write.
    fn noted<T>(&self, outcome: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        let outcome = outcome.map_err(StoreError::from);
        match &outcome {
            Ok(_) => self.last.succeeded_with_little(),
            Err(StoreError::Unavailable(why)) => self.last.failed(why, 1),
            Err(_) => {}
        }
        outcome
    }

    /// Every request here is idempotent.
    async fn retried<T, F>(&self, run: impl Fn() -> F + Send) -> Result<T, sqlx::Error>
    where
        F: Future<Output = Result<T, sqlx::Error>> + Send,
    {
        self.reach.retried(run).await
    }
}

#[async_trait]
impl WrappedKeys for PostgresKeys {
    async fn check(&self) -> Result<Vec<u8>, sqlx::Error> {
        self.retried(|| {
            sqlx::query_scalar("SELECT value FROM watchword_keys.meta WHERE key = 'check'")
                .fetch_one(&self.pool)
        })
        .await
    }

    async fn instance_key(&self) -> Result<Option<Vec<u8>>, sqlx::Error> {
        self.retried(|| {
            sqlx::query_scalar("SELECT value FROM watchword_keys.meta WHERE key = 'instance'")
                .fetch_optional(&self.pool)
        })
        .await
    }

    async fn keep_instance_key(&self, wrapped: Vec<u8>) -> Result<(), StoreError> {
        let kept = self.retried(|| {
            sqlx::query("INSERT INTO watchword_keys.meta VALUES ('instance', $1) ON CONFLICT DO NOTHING")
                .bind(&wrapped)
                .execute(&self.pool)
        });
        self.noted(kept.await).map(drop)
    }

    async fn replace_instance_key(&self, old: Vec<u8>, new: Vec<u8>) -> Result<bool, StoreError> {
        match self.retried(|| self.replace_as_owner(&old, &new)).await {
            // insufficient_privilege
            Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code == "42501") => {
                Err(StoreError::Unavailable(
                    "this user may not change the master key: run this as the owner of the database".into(),
                ))
            }
            done => Ok(done?),
        }
    }

    async fn data_key(&self, person: UserId) -> Result<Option<Option<Vec<u8>>>, StoreError> {
        let found = self.retried(|| {
            sqlx::query_scalar("SELECT wrapped FROM watchword_keys.data_keys WHERE person = $1")
                .bind(person.0)
                .fetch_optional(&self.pool)
        });
        Ok(found.await?)
    }

    async fn keep_data_key(&self, person: UserId, wrapped: Vec<u8>) -> Result<Option<Vec<u8>>, StoreError> {
        // On conflict the update changes nothing, but makes the statement return the existing row. All rows are read,
        // because the commit comes after them.
        let kept = self.retried(|| {
            sqlx::query_scalar(
                "INSERT INTO watchword_keys.data_keys AS k VALUES ($1, $2)
                 ON CONFLICT (person) DO UPDATE SET wrapped = k.wrapped RETURNING wrapped",
            )
            .bind(person.0)
            .bind(&wrapped)
            .fetch_all(&self.pool)
        });
        let nothing = || StoreError::Damaged("the database stored no key and reported no error".to_owned());
        self.noted(kept.await)?.pop().ok_or_else(nothing)
    }

    async fn erase_data_key(&self, person: UserId) -> Result<(), StoreError> {
        let erased = self.retried(|| {
            sqlx::query(
                "INSERT INTO watchword_keys.data_keys VALUES ($1, NULL)
                 ON CONFLICT (person) DO UPDATE SET wrapped = NULL",
            )
            .bind(person.0)
            .execute(&self.pool)
        });
        self.noted(erased.await).map(drop)
    }

    async fn erased_among(&self, people: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        let people: Vec<Uuid> = people.iter().map(|person| person.0).collect();
        let found = self.retried(|| {
            sqlx::query_scalar(
                "SELECT person FROM watchword_keys.data_keys WHERE wrapped IS NULL AND person = ANY ($1)",
            )
            .bind(&people)
            .fetch_all(&self.pool)
        });
        Ok(found.await?.into_iter().map(UserId).collect())
    }

    async fn signing_key(&self, app: &AppId, kid: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.retried(|| {
            sqlx::query_scalar(
                "SELECT wrapped FROM watchword_keys.signing_keys WHERE app_id = $1 AND kid = $2",
            )
            .bind(app.as_str())
            .bind(kid)
            .fetch_optional(&self.pool)
        });
        Ok(found.await?)
    }

    async fn keep_signing_key(
        &self,
        app: &AppId,
        kid: &str,
        alg: &str,
        wrapped: Vec<u8>,
    ) -> Result<(), StoreError> {
        let kept = self.retried(|| {
            sqlx::query(
                "INSERT INTO watchword_keys.signing_keys VALUES ($1, $2, $3, $4)
                 ON CONFLICT (app_id, kid) DO UPDATE SET alg = excluded.alg, wrapped = excluded.wrapped",
            )
            .bind(app.as_str())
            .bind(kid)
            .bind(alg)
            .bind(&wrapped)
            .execute(&self.pool)
        });
        self.noted(kept.await).map(drop)
    }

    fn format(&self) -> u32 {
        // An older one is upgraded before it is opened, or refused.
        FORMAT_WITH_CHECKPOINTS
    }

    async fn checkpoint(&self) -> Result<Option<(Row, Vec<String>)>, StoreError> {
        let found = self.retried(|| {
            sqlx::query_as(
                "SELECT c.size, c.root, c.event, c.note, c.epochs, c.signed_at, c.mac,
                     ARRAY(SELECT w.line FROM watchword_keys.cosignatures w
                         WHERE w.size = c.size AND w.root = c.root ORDER BY w.witness)
                 FROM watchword_keys.checkpoints c",
            )
            .fetch_optional(&self.pool)
        });
        let found: Option<(i64, Vec<u8>, Uuid, String, Vec<u8>, i64, Vec<u8>, Vec<String>)> = found.await?;
        Ok(found.map(|(size, root, event, note, epochs, signed_at, mac, lines)| {
            (Row { size, root, event, note, epochs, signed_at, mac }, lines)
        }))
    }

    async fn advance_checkpoint(&self, from: Option<Vec<u8>>, to: Row) -> Result<bool, StoreError> {
        // If the answer was lost and this runs again, the new one is there already.
        let advanced = self.retried(|| {
            let statement = match &from {
                None => {
                    "INSERT INTO watchword_keys.checkpoints AS c VALUES (0, $2, $3, $4, $5, $6, $7, $8)
                     ON CONFLICT (id) DO UPDATE SET mac = excluded.mac WHERE c.mac = excluded.mac AND $1::bytea IS NULL"
                }
                Some(_) => {
                    "UPDATE watchword_keys.checkpoints SET size = $2, root = $3, event = $4, note = $5, epochs = $6,
                         signed_at = $7, mac = $8 WHERE mac IN ($1, $8)"
                }
            };
            sqlx::query(statement)
                .bind(&from)
                .bind(to.size)
                .bind(&to.root)
                .bind(to.event)
                .bind(&to.note)
                .bind(&to.epochs)
                .bind(to.signed_at)
                .bind(&to.mac)
                .execute(&self.pool)
        });
        Ok(self.noted(advanced.await)?.rows_affected() == 1)
    }

    async fn keep_cosignature(&self, cosignature: Cosignature) -> Result<bool, StoreError> {
        let Cosignature { witness, size, root, line } = &cosignature;
        let kept = self.retried(|| {
            sqlx::query(
                "INSERT INTO watchword_keys.cosignatures
                 SELECT $1, size, root, $4 FROM watchword_keys.checkpoints WHERE size = $2 AND root = $3
                 ON CONFLICT (witness) DO UPDATE SET size = excluded.size, root = excluded.root, line = excluded.line",
            )
            .bind(witness)
            .bind(size)
            .bind(root)
            .bind(line)
            .execute(&self.pool)
        });
        Ok(self.noted(kept.await)?.rows_affected() == 1)
    }

    async fn can_write(&self) -> Result<(), StoreError> {
        if let Some(known) = self.last.recent() {
            return Ok(known?);
        }
        match self.reach.retried(|| self.probe()).await.map_err(StoreError::from) {
            Err(StoreError::Unavailable(why)) => {
                self.last.failed(&why, 1);
                Err(why.into())
            }
            probed => {
                self.last.succeeded();
                probed
            }
        }
    }

    fn last_write(&self) -> Result<(), Why> {
        self.last.outcome()
    }

    fn measure(&self) {
        let pool = &self.pool;
        measure::pool("key_store", pool.size(), pool.num_idle(), pool.most());
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
