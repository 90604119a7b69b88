//! What to check about a PostgreSQL server before relying on it. Changes nothing.

use std::time::{Duration, Instant};

use domain::Timestamp;
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

use super::PostgresUrl;
use super::connecting::connect_to_look;
use super::pooler;
use super::session::{PostgresSettings, not_opened, timed_out};
use crate::clock::{Clock, SystemClock};
use crate::journal::{OpenError, StoreError};

/// A PostgreSQL server, as the user that a node logs in as sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresServer {
    /// Its version, such as `17.2`.
    pub version: String,
    /// The major version.
    pub major: u32,
    /// Whether it is a replica of another server, and accepts no writes.
    pub is_replica: bool,
    /// Settings that are off although without them it may lose acknowledged writes.
    pub unsafe_settings: Vec<String>,
    /// Whether it has a synchronous replica for which commits of this user do not wait (`synchronous_commit = local`).
    pub ignores_replica: bool,
    /// How many connections it has, from all users.
    pub connections: u32,
    /// Its limit of connections.
    pub max_connections: u32,
    /// The least difference between its clock and this machine's, in either direction.
    pub clock_skew: Duration,
    /// The user that asked.
    pub user: String,
}

/// What an attacker with a node's credentials could do to existing events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRights {
    /// Which of UPDATE, DELETE and TRUNCATE the service's role has. It should have none.
    pub of_role: Vec<String>,
    /// Other databases of the server in which that role has rights too, if its users may connect from one to the other:
    /// two instances can then reach each other's data.
    pub shared_with: Vec<String>,
    /// Whether the user that the node logs in as owns the events or is a superuser, and so may do anything.
    pub user_is_owner: bool,
}

impl PostgresServer {
    /// Inspects the server of this database.
    pub async fn look(url: &PostgresUrl, settings: &PostgresSettings) -> Result<Self, OpenError> {
        let failed = |error: sqlx::Error| not_opened(url, &error);
        let looked = timeout(settings.connect_timeout, async {
            let mut connection = connect_to_look(url, settings.connect_timeout).await?;
            pooler::check(&mut connection, url.options(), settings.connect_timeout).await?;
            let server = Self::ask(&mut connection).await?;
            connection.close().await?;
            Ok(server)
        });
        looked.await.unwrap_or_else(|_| Err(timed_out("the database does not answer"))).map_err(failed)
    }

    async fn ask(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let (version, number, is_replica, user): (String, i32, bool, String) = sqlx::query_as(
            "SELECT split_part(current_setting('server_version'), ' ', 1),
                 current_setting('server_version_num')::integer, pg_is_in_recovery(), session_user::text",
        )
        .fetch_one(&mut *connection)
        .await?;
        let (connections, max_connections): (i64, i32) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
                 current_setting('max_connections')::integer",
        )
        .fetch_one(&mut *connection)
        .await?;
        let unsafe_settings = super::opening::unsafe_settings(&mut *connection).await?;
        let ignores_replica: bool = sqlx::query_scalar(
            "SELECT current_setting('synchronous_standby_names') <> '' AND current_setting('synchronous_commit') = 'local'",
        )
        .fetch_one(&mut *connection)
        .await?;
        // The server read its clock at some moment between these two readings.
        let (asked, waited) = (SystemClock.now(), Instant::now());
        let micros: i64 =
            sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
                .fetch_one(connection)
                .await?;
        let (waited, there) = (waited.elapsed(), Timestamp::from_microsecond(micros).unwrap_or(asked));
        let apart = there.duration_since(asked);
        let skew = if apart.is_negative() {
            apart.unsigned_abs()
        } else {
            apart.unsigned_abs().saturating_sub(waited)
        };
        Ok(Self {
            version,
            major: u32::try_from(number / 10_000).unwrap_or_default(),
            is_replica,
            unsafe_settings,
            ignores_replica,
            connections: u32::try_from(connections).unwrap_or(u32::MAX),
            max_connections: u32::try_from(max_connections).unwrap_or_default(),
            clock_skew: skew,
            user,
        })
    }
}

impl EventRights {
    /// Inspects the journal's database, which must contain a journal.
    pub async fn look(url: &PostgresUrl, settings: &PostgresSettings) -> Result<Self, StoreError> {
        let looked = timeout(settings.connect_timeout, async {
            let mut connection = connect_to_look(url, settings.connect_timeout).await?;
            let rights = Self::ask(&mut connection, url.role().as_str()).await?;
            connection.close().await?;
            Ok(rights)
        });
        Ok(looked.await.unwrap_or_else(|_| Err(timed_out("the database does not answer")))?)
    }

    async fn ask(connection: &mut PgConnection, role: &str) -> Result<Self, sqlx::Error> {
        // A role's rights in other databases are visible server-wide. A superuser may always connect anywhere.
        let shared_with: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT d.datname::text FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
                 JOIN pg_database here ON here.datname = current_database()
             WHERE s.refclassid = 'pg_authid'::regclass AND s.deptype IN ('a', 'o') AND d.oid <> here.oid
                 AND s.refobjid = (SELECT oid FROM pg_roles WHERE rolname = $1)
                 AND (has_database_privilege('public', d.oid, 'CONNECT') OR has_database_privilege('public', here.oid, 'CONNECT')
                     OR (has_database_privilege(session_user, d.oid, 'CONNECT')
                         AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = session_user)))
             ORDER BY 1",
        )
        .bind(role)
        .fetch_all(&mut *connection)
        .await?;
        let of_role: Vec<String> = sqlx::query_scalar(
            "SELECT may FROM unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE']) may
             WHERE (SELECT has_table_privilege(oid, 'watchword.events', may) FROM pg_roles WHERE rolname = $1)",
        )
        .bind(role)
        .fetch_all(&mut *connection)
        .await?;
        let user_is_owner: bool = sqlx::query_scalar(
            "SELECT pg_has_role(session_user, relowner, 'MEMBER') FROM pg_class
             WHERE oid = 'watchword.events'::regclass",
        )
        .fetch_one(connection)
        .await?;
        Ok(Self { of_role, shared_with, user_is_owner })
    }
}
