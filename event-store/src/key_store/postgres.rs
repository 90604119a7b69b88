//! Wrapped keys in a PostgreSQL database, shared by several nodes.
//!
//! An erased key leaves its row with the commit; the database's old row versions, its log and its backups hold it for
//! as long as they are kept.

use async_trait::async_trait;
use domain::{AppId, UserId};
use sqlx::postgres::PgPool;

use super::WrappedKeys;
use crate::journal::{OpenError, StoreError};
use crate::postgres::schema::Schema;
use crate::postgres::{Migrated, PostgresSettings, PostgresUrl};

/// Apart from the journal's, so that the keys can live in another database, with backups of their own.
const SCHEMA: Schema = Schema {
    what: "Watchword key store",
    name: "watchword_keys",
    migrations: &[include_str!("../postgres/keys_1.sql")],
};

pub(super) struct PostgresKeys {
    pool: PgPool,
    settings: PostgresSettings,
}

impl PostgresKeys {
    pub(super) async fn migrate(
        url: &PostgresUrl,
        settings: &PostgresSettings,
    ) -> Result<Migrated, OpenError> {
        SCHEMA.prepare(url.options(), settings, &url.to_string()).await
    }

    pub(super) async fn look(url: &PostgresUrl, settings: &PostgresSettings) -> Result<Migrated, OpenError> {
        SCHEMA.look(url.options(), settings, &url.to_string()).await
    }

    /// Opens it; the first one to do so leaves its check.
    pub(super) async fn open(
        url: &PostgresUrl,
        settings: PostgresSettings,
        check: &[u8],
    ) -> Result<Self, OpenError> {
        Self::migrate(url, &settings).await?;
        let pool = settings.pool(url.options());
        let kept = settings.retried(|| {
            sqlx::query("INSERT INTO watchword_keys.meta VALUES ('check', $1) ON CONFLICT DO NOTHING")
                .bind(check)
                .execute(&pool)
        });
        let failed =
            |error: sqlx::Error| OpenError::Failed { path: url.to_string(), reason: error.to_string() };
        kept.await.map_err(failed)?;
        Ok(Self { pool, settings })
    }

    /// All that is asked here does the same when it is asked again.
    async fn retried<T, F>(&self, run: impl Fn() -> F + Send) -> Result<T, sqlx::Error>
    where
        F: Future<Output = Result<T, sqlx::Error>> + Send,
    {
        self.settings.retried(run).await
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

    async fn data_key(&self, person: UserId) -> Result<Option<Option<Vec<u8>>>, StoreError> {
        let found = self.retried(|| {
            sqlx::query_scalar("SELECT wrapped FROM watchword_keys.data_keys WHERE person = $1")
                .bind(person.0)
                .fetch_optional(&self.pool)
        });
        Ok(found.await?)
    }

    async fn keep_data_key(&self, person: UserId, wrapped: Vec<u8>) -> Result<Option<Vec<u8>>, StoreError> {
        // The conflict changes nothing, but makes the statement give back the row that is there. All rows are read, as
        // the commit comes after them.
        let kept = self.retried(|| {
            sqlx::query_scalar(
                "INSERT INTO watchword_keys.data_keys AS k VALUES ($1, $2)
                 ON CONFLICT (person) DO UPDATE SET wrapped = k.wrapped RETURNING wrapped",
            )
            .bind(person.0)
            .bind(&wrapped)
            .fetch_all(&self.pool)
        });
        let nothing = || StoreError::Damaged("the database kept no key and said nothing".to_owned());
        kept.await?.pop().ok_or_else(nothing)
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
        erased.await?;
        Ok(())
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
        kept.await?;
        Ok(())
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
