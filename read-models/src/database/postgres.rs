//! The read models' schema in PostgreSQL: how it is made, whose it is, and connections to it.

use std::sync::Arc;
use std::time::Duration;

use event_store::postgres::connecting::{Session, connect};
use event_store::postgres::pool::Pool;
use event_store::postgres::role::{MAY_SET, RoleName, is_forbidden};
use event_store::postgres::{Reach, lock_timeout, owners, pooler, server_timeout};
use event_store::{PostgresSettings, PostgresUrl};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{Database, SCHEMA, bounded};
use crate::sql::{Kind, Transaction};

const POSTGRES_READERS: u32 = 8;
/// Each projector of a node may be in a transaction while the leases are renewed.
const POSTGRES_WRITERS: u32 = 8;
/// Without this limit, a process suspended in a transaction would hold its locks, and block its read model for all
/// others, until it resumes.
const LONGEST_PAUSE_IN_A_TRANSACTION: &str = "5s";
/// The data is derived: after a crash the database may have lost its newest transactions, rows and checkpoints alike,
/// and the projectors apply those events again. A lost lease costs no more: a writer locks the checkpoint and continues
/// right after it. Projectors look rows up by their keys: plans are made once, and must not assume that tables are as
/// small as they were then.
const FOR_WRITERS: [(&str, &str); 7] = [
    ("synchronous_commit", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];
/// How long a statement may take that nobody waits for.
const LONGEST_BUILD: Duration = Duration::from_hours(1);

/// Opens the schema, and creates it and the tables that all read models share if they do not exist.
pub(super) async fn open(url: &PostgresUrl) -> Result<Database, sqlx::Error> {
    connect_within(url, url.answer()).await
}

/// Opens it for statements that may take long: what builds an index reads a whole table.
pub(super) async fn patient(url: &PostgresUrl) -> Result<Database, sqlx::Error> {
    connect_within(url, LONGEST_BUILD).await
}

/// Opens it, with this bound of each statement.
async fn connect_within(url: &PostgresUrl, bound: Duration) -> Result<Database, sqlx::Error> {
    let options = url.options();
    let owner = bounded(url, make_schema(url)).await?;
    let settings = PostgresSettings { answer: url.answer(), ..PostgresSettings::default() };
    let reach = Arc::new(Reach::new(options, &settings));
    let [longest, for_locks] = [server_timeout(bound), lock_timeout(server_timeout(url.answer()))]
        .map(|time| time.as_millis().to_string());
    let options = options.clone().application_name("watchword read models");
    let session = Session::within(SCHEMA)
        .with_role(&owner)
        // No notices that existing objects are skipped.
        .with("client_min_messages", "warning")
        .with("statement_timeout", &longest)
        .with("lock_timeout", &for_locks)
        // A session of a node that is not reached any more must not take a place for hours.
        .with("tcp_keepalives_idle", "10")
        .with("tcp_keepalives_interval", "5")
        .with("tcp_keepalives_count", "3")
        .with("tcp_user_timeout", "25000")
        .with("idle_in_transaction_session_timeout", LONGEST_PAUSE_IN_A_TRANSACTION);
    let for_writers = FOR_WRITERS.iter().fold(session.clone(), |all, (name, value)| all.with(name, value));
    let writers = pool(POSTGRES_WRITERS, url, bound, &options, for_writers);
    make_tables(&writers).await?;
    let for_readers = session.with("default_transaction_read_only", "on");
    let readers = pool(POSTGRES_READERS, url, bound, &options, for_readers);
    Ok(Database::Postgres { writers, readers, reach })
}

/// A pool of such sessions.
fn pool(most: u32, url: &PostgresUrl, bound: Duration, options: &PgConnectOptions, session: Session) -> Pool {
    let (options, answer) = (options.clone(), url.answer());
    Pool::new(most, bound, move || {
        let (options, session) = (options.clone(), session.clone());
        Box::pin(async move { session.connect(&options, answer).await })
    })
}

/// Creates the tables that all read models share, if they do not exist.
async fn make_tables(pool: &Pool) -> Result<(), sqlx::Error> {
    let mut tx = Transaction::new(Kind::Postgres(pool.begin().await?));
    tx.make(LOCK_DDL).await?;
    tx.make(include_str!("../postgres.sql")).await?;
    tx.commit().await
}

/// Connections must work as the schema's owner, but this user may not.
#[derive(Debug, thiserror::Error)]
#[error(
    "its schema watchword_read belongs to {owner}, and the user may not work as that role. Have a superuser, or a user who may grant that \
     role, run: GRANT {owner} TO {user}; or drop the schema as {owner}: it holds derived data only"
)]
struct NotItsOwner {
    owner: String,
    user: String,
}

/// This user may not make the schema; the owner of the database may be about to.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct MayNotMakeIt(String);

impl MayNotMakeIt {
    fn or(error: sqlx::Error) -> sqlx::Error {
        match error.as_database_error() {
            Some(said) if is_forbidden(&error) => {
                sqlx::Error::Configuration(Self(said.message().to_owned()).into())
            }
            _ => error,
        }
    }
}

/// Creates the schema if it does not exist, and returns its owner. All connections work as that role: whichever node
/// holds a projector's lease creates and drops its tables, whatever user that node logs in as.
async fn make_schema(url: &PostgresUrl) -> Result<String, sqlx::Error> {
    const OWNER: &str = "SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname = $1";
    let (options, role) = (url.options(), url.role());
    let mut connection = connect(options, url.answer()).await?;
    pooler::check(&mut connection, options, url.answer()).await?;
    owners::check_encoding(&mut connection).await?;
    owners::check(&mut connection, SCHEMA, role).await?;
    let mut owner: Option<String> =
        sqlx::query_scalar(OWNER).bind(SCHEMA).fetch_optional(&mut connection).await?;
    if owner.is_none() {
        // The role that the journal in the same database created for the service, if it exists.
        let make = format!(
            "DO $$ BEGIN
               IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}' AND {MAY_SET}) THEN
                 CREATE SCHEMA IF NOT EXISTS watchword_read AUTHORIZATION {role};
               ELSE
                 CREATE SCHEMA IF NOT EXISTS watchword_read;
               END IF;
             -- Another node has just made it.
             EXCEPTION WHEN unique_violation OR duplicate_schema THEN NULL;
             END $$"
        );
        // It consists of constants and a name that needs no quotes.
        sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut connection).await.map_err(MayNotMakeIt::or)?;
        owner = Some(sqlx::query_scalar(OWNER).bind(SCHEMA).fetch_one(&mut connection).await?);
    }
    if let Some(from) = owner.as_deref().filter(|owner| *owner != role.as_str()) {
        give_to(&mut connection, from, role).await?;
        owner = Some(sqlx::query_scalar(OWNER).bind(SCHEMA).fetch_one(&mut connection).await?);
    }
    let owner = owner.ok_or(sqlx::Error::RowNotFound)?;
    let query = format!(
        "SELECT coalesce((SELECT {MAY_SET} FROM pg_roles WHERE rolname = $1), false), quote_ident(current_user)"
    );
    let (may, user): (bool, String) =
        sqlx::query_as(AssertSqlSafe(query)).bind(&owner).fetch_one(&mut connection).await?;
    connection.close().await?;
    if may { Ok(owner) } else { Err(sqlx::Error::Configuration(NotItsOwner { owner, user }.into())) }
}

/// Transfers the schema and everything in it to the service's role: from the role that instances share to this one's own,
/// or from the user that made it before there was a role, or that restored it from a dump. Changes nothing unless the user may
/// work as both, as the owner of the database may.
async fn give_to(connection: &mut PgConnection, from: &str, to: &RoleName) -> Result<(), sqlx::Error> {
    let may = format!(
        "SELECT count(*) = 2 AND has_database_privilege(current_user, current_database(), 'CREATE')
         FROM pg_roles WHERE rolname IN ($1, $2) AND {MAY_SET}"
    );
    let may: bool = sqlx::query_scalar(AssertSqlSafe(may))
        .bind(from)
        .bind(to.as_str())
        .fetch_one(&mut *connection)
        .await?;
    if !may {
        return Ok(());
    }
    let mut tx = connection.begin().await?;
    sqlx::raw_sql(LOCK_DDL).execute(&mut *tx).await?;
    let give = format!(
        "DO $$ DECLARE statement text; BEGIN
           -- Whoever reads a table in a transaction that is left open must not make all others wait for this.
           SET LOCAL lock_timeout = '5s';
           ALTER SCHEMA {SCHEMA} OWNER TO {to};
           FOR statement IN
             SELECT format('ALTER TABLE %s OWNER TO {to}', c.oid::regclass) FROM pg_class c
               WHERE c.relnamespace = '{SCHEMA}'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
             UNION ALL
             SELECT format('ALTER ROUTINE %s OWNER TO {to}', p.oid::regprocedure) FROM pg_proc p
               WHERE p.pronamespace = '{SCHEMA}'::regnamespace
           LOOP
             EXECUTE statement;
           END LOOP;
         END $$"
    );
    // It consists of constants and names that need no quotes.
    sqlx::raw_sql(AssertSqlSafe(give)).execute(&mut *tx).await?;
    tx.commit().await
}

/// One session at a time creates or drops tables: `CREATE … IF NOT EXISTS` fails when two race. Anybody who may connect could
/// hold an advisory lock; a comment locks the schema for its owner alone, whether or not there is a table yet. Earlier versions
/// lock the table, which needs rights on it, and lets everybody read and write it.
pub(super) const LOCK_DDL: &str =
    "COMMENT ON SCHEMA watchword_read IS 'Read models of Watchword, derived from its journal';
  DO $$ BEGIN
    IF to_regclass('watchword_read.checkpoints') IS NOT NULL THEN
      LOCK TABLE watchword_read.checkpoints IN SHARE UPDATE EXCLUSIVE MODE;
    END IF;
  END $$";
