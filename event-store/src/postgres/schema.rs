//! A schema of ours in a PostgreSQL database: made, brought up to date, or refused.

use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection};
use tokio::time::timeout;

use super::session::{PostgresSettings, ROLE, timed_out};
use crate::journal::OpenError;

/// A schema and how it came to be.
pub(crate) struct Schema {
    /// What people call it.
    pub(crate) what: &'static str,
    /// Its name in the database.
    pub(crate) name: &'static str,
    /// Its migrations, in order: the first makes format 1. What is published here never changes.
    pub(crate) migrations: &'static [&'static str],
}

/// What was done to a store before it was opened, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Its format before; 0 when there was none.
    pub from: u32,
    /// Its format now.
    pub to: u32,
}

/// One after the other, whatever the schema: they all make the same role.
const LOCK: i64 = 0x5741_5443_4857;

impl Schema {
    /// The newest format.
    fn known(&self) -> u32 {
        u32::try_from(self.migrations.len()).expect("a handful")
    }

    /// Brings the schema to the newest format. Refuses one that is not ours or newer, and, when the user may not change
    /// it, one that is older or absent. `place` is what messages call the database.
    pub(crate) async fn prepare(
        &self,
        options: &PgConnectOptions,
        settings: &PostgresSettings,
        place: &str,
    ) -> Result<Migrated, OpenError> {
        let mut connection = connect(options, settings, place).await?;
        let mut migrated = self.read_format(&mut connection, place).await?;
        if migrated.from < migrated.to {
            migrated = match self.migrate(&mut connection, place).await {
                Err(Refusal::Forbidden) => {
                    return Err(OpenError::Outdated {
                        path: place.to_owned(),
                        what: self.what,
                        found: migrated.from,
                        known: migrated.to,
                    });
                }
                Err(Refusal::Other(error)) => return Err(error),
                Ok(migrated) => migrated,
            };
        }
        check_role(&mut connection, place).await?;
        // The connection has done its work; whether it hears our farewell makes no difference.
        let _ = connection.close().await;
        Ok(migrated)
    }

    /// The schema's format and the newest one. Changes nothing, and refuses what is not ours or newer.
    pub(crate) async fn look(
        &self,
        options: &PgConnectOptions,
        settings: &PostgresSettings,
        place: &str,
    ) -> Result<Migrated, OpenError> {
        let mut connection = connect(options, settings, place).await?;
        let found = self.read_format(&mut connection, place).await;
        let _ = connection.close().await;
        found
    }

    async fn read_format(&self, connection: &mut PgConnection, place: &str) -> Result<Migrated, OpenError> {
        let failed = |error: sqlx::Error| failed(place, &error);
        let (exists, is_ours): (bool, bool) = sqlx::query_as(
            "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1),
                 EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                     WHERE n.nspname = $1 AND c.relname = 'format')",
        )
        .bind(self.name)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
        let to = self.known();
        if !exists {
            return Ok(Migrated { from: 0, to });
        }
        let foreign =
            |found: String| OpenError::Foreign { path: place.to_owned(), expected: self.what, found };
        if !is_ours {
            return Err(foreign(format!("its schema {} holds something else", self.name)));
        }
        let query = format!("SELECT what, version FROM {}.format", self.name);
        let row: Option<(String, i32)> =
            sqlx::query_as(AssertSqlSafe(query)).fetch_optional(connection).await.map_err(failed)?;
        let version =
            row.filter(|(what, _)| what == self.what).and_then(|(_, version)| version.try_into().ok());
        let found: u32 =
            version.ok_or_else(|| foreign(format!("its schema {} says that it is none", self.name)))?;
        if found > to {
            return Err(OpenError::Newer { path: place.to_owned(), found, known: to });
        }
        Ok(Migrated { from: found, to })
    }

    async fn migrate(&self, connection: &mut PgConnection, place: &str) -> Result<Migrated, Refusal> {
        let mut transaction = connection.begin().await.map_err(|error| refusal(place, &error))?;
        let sql = |error: sqlx::Error| refusal(place, &error);
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(LOCK)
            .execute(&mut *transaction)
            .await
            .map_err(sql)?;
        // Another node may have done it while this one waited.
        let before = self.read_format(&mut transaction, place).await.map_err(Refusal::Other)?;
        if before.from == 0 {
            transaction.execute(MAKE_ROLE).await.map_err(sql)?;
            transaction.execute(AssertSqlSafe(self.make())).await.map_err(sql)?;
        }
        transaction
            .execute(AssertSqlSafe(format!("SET LOCAL search_path = {}", self.name)))
            .await
            .map_err(sql)?;
        let done = usize::try_from(before.from).expect("a handful");
        for migration in &self.migrations[done..] {
            transaction.execute(sqlx::raw_sql(*migration)).await.map_err(sql)?;
        }
        let to = i32::try_from(before.to).expect("a handful");
        sqlx::query("UPDATE format SET version = $1")
            .bind(to)
            .execute(&mut *transaction)
            .await
            .map_err(sql)?;
        transaction.commit().await.map_err(sql)?;
        Ok(before)
    }

    fn make(&self) -> String {
        let Self { name, what, .. } = self;
        // Everybody may see what it is; what is in it, only the service.
        format!(
            "CREATE SCHEMA {name};
             CREATE TABLE {name}.format (what text NOT NULL, version integer NOT NULL);
             INSERT INTO {name}.format VALUES ('{what}', 0);
             GRANT USAGE ON SCHEMA {name} TO PUBLIC;
             GRANT SELECT ON {name}.format TO PUBLIC;"
        )
    }
}

/// Roles belong to the whole server: another database of it may have made this one, even at the same moment.
const MAKE_ROLE: &str = "DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'watchword_service') THEN
        CREATE ROLE watchword_service NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$;
DO $$
BEGIN
    IF NOT pg_has_role(current_user, 'watchword_service', 'MEMBER') THEN
        EXECUTE format('GRANT watchword_service TO %I', current_user);
    END IF;
END $$;";

enum Refusal {
    /// The user may not do this.
    Forbidden,
    Other(OpenError),
}

fn refusal(place: &str, error: &sqlx::Error) -> Refusal {
    // insufficient_privilege
    let forbidden =
        error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| code == "42501");
    if forbidden { Refusal::Forbidden } else { Refusal::Other(failed(place, error)) }
}

/// Every later connection works as the role: better to say now that it cannot.
async fn check_role(connection: &mut PgConnection, place: &str) -> Result<(), OpenError> {
    let may: Option<bool> = sqlx::query_scalar(
        "SELECT pg_has_role(current_user, oid, 'MEMBER') FROM pg_roles WHERE rolname = $1",
    )
    .bind(ROLE)
    .fetch_optional(connection)
    .await
    .map_err(|error| failed(place, &error))?;
    if may == Some(true) {
        return Ok(());
    }
    let reason =
        format!("its user may not work as the role {ROLE}. Run as its owner: GRANT {ROLE} TO <user>");
    Err(OpenError::Failed { path: place.to_owned(), reason })
}

async fn connect(
    options: &PgConnectOptions,
    settings: &PostgresSettings,
    place: &str,
) -> Result<PgConnection, OpenError> {
    let connected = timeout(settings.connect_timeout, options.connect()).await;
    connected
        .unwrap_or_else(|_| Err(timed_out("the database does not answer")))
        .map_err(|error| failed(place, &error))
}

fn failed(place: &str, error: &sqlx::Error) -> OpenError {
    OpenError::Failed { path: place.to_owned(), reason: error.to_string() }
}
