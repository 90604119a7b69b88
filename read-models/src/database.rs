//! The database that holds the read models: a file, or a schema of a PostgreSQL database.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_store::postgres::connecting::connect_to_look;
use event_store::postgres::pool::Pool;
use event_store::postgres::{Reach, is_away};
use event_store::sqlite::file::looking;
use event_store::sqlite::private;
use event_store::storage::Files;
use event_store::{Location, PostgresUrl, StoreError, measure, pools};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use crate::checkpoint::Checkpoint;
use crate::leases::{self, Node, Standing};
use crate::sql::{Kind, Query, Row, Transaction, on_postgres, on_sqlite};

mod postgres;

/// "WWRM": Watchword read models.
const APPLICATION_ID: i64 = 0x5757_524d;
/// The schema in PostgreSQL. The journal has another, so both may live in one database.
pub(crate) const SCHEMA: &str = "watchword_read";

const CHECKPOINTS: &str =
    "CREATE TABLE checkpoints (projector TEXT PRIMARY KEY, position INTEGER NOT NULL, event BLOB) STRICT";
/// Which read models have a file of their own, and which of those files is current.
const PLACES: &str =
    "CREATE TABLE IF NOT EXISTS places (model TEXT PRIMARY KEY, generation INTEGER NOT NULL) STRICT";
/// What proves that this instance filled a new build as far as its checkpoint says.
const BUILDS: &str =
    "CREATE TABLE IF NOT EXISTS builds (projector TEXT PRIMARY KEY, mark BLOB NOT NULL) STRICT";
/// The query for all checkpoints.
pub(crate) const ALL_CHECKPOINTS: &str =
    "SELECT projector, position, event FROM checkpoints ORDER BY projector";

/// The pools, as metrics name them.
const READERS: &str = "read_models";
const WRITERS: &str = "projectors";

const SQLITE_READERS: u32 = 4;
/// How long a statement waits for another process that has a lock on the file.
const LONGEST_WAIT_FOR_A_LOCK: Duration = Duration::from_secs(2);

/// Why the read models were not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Something else is in the file.
    #[error("{0} is not a read-models file of Watchword: choose another path, or move that file away")]
    Foreign(String),
    /// The file cannot be read or created.
    #[error(
        "{path} cannot be opened. It holds derived data only: if it is damaged, delete it and its -wal and -shm files, \
         and it is rebuilt from the journal at the next start"
    )]
    Failed {
        /// The file.
        path: String,
        /// What the database said.
        source: sqlx::Error,
    },
    /// There is no schema for them, and this user may not make it.
    #[error(
        "{database} holds no read models, and its user may not make them ({because}). Run `watchword migrate` as the owner of \
         the database"
    )]
    NotMade {
        /// The database, without the password.
        database: String,
        /// What it said.
        because: String,
    },
    /// The PostgreSQL database cannot be reached, or refuses to create the tables.
    #[error(
        "the read models cannot be opened at {database}. Check that the server is running, and that the role may connect and \
         may create the schema watchword_read or owns it"
    )]
    Unreachable {
        /// The database, without the password.
        database: String,
        /// What it said.
        source: sqlx::Error,
    },
}

impl OpenError {
    /// Whether a retry may help: the database server is away or temporarily refuses requests, or the owner has not made the
    /// schema yet.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NotMade { .. } => true,
            Self::Unreachable { source, .. } => is_away(source),
            Self::Foreign(_) | Self::Failed { .. } => false,
        }
    }

    /// The database at this place failed.
    pub(crate) fn failed(location: &Location, source: sqlx::Error) -> Self {
        match location {
            Location::File(path) => Self::Failed { path: path.display().to_string(), source },
            Location::Postgres(_) => match source {
                sqlx::Error::Configuration(error) if error.is::<postgres::MayNotMakeIt>() => {
                    Self::NotMade { database: location.to_string(), because: error.to_string() }
                }
                source => Self::Unreachable { database: location.to_string(), source },
            },
        }
    }
}

/// Connections that write and connections that read.
pub(crate) enum Database {
    /// One connection writes, one transaction at a time; a few others read.
    ///
    /// The file is written with `synchronous=NORMAL`, unlike the journal: after a power loss it may have lost its
    /// newest transactions, rows and checkpoints alike, and the projectors apply those events again.
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
        files: Files,
    },
    Postgres {
        writers: Pool,
        readers: Pool,
        reach: Arc<Reach>,
    },
}

impl Database {
    pub async fn open(location: &Location) -> Result<Self, OpenError> {
        let opened = match location {
            Location::File(path) => {
                if path.exists() {
                    look(location).await?;
                }
                open_file(path, &FOR_SERVING).await
            }
            Location::Postgres(url) => postgres::open(url).await,
        };
        opened.map_err(|source| OpenError::failed(location, source))
    }

    /// A new build of a read model in a file, with more memory than one that is read has.
    pub async fn building(path: &Path) -> Result<Self, StoreError> {
        Ok(open_file(path, &FOR_BUILDING).await?)
    }

    /// More connections to PostgreSQL, whose statements may take long.
    pub async fn patient(url: &PostgresUrl) -> Result<Self, StoreError> {
        Ok(postgres::patient(url).await?)
    }

    /// The checkpoints in it.
    pub async fn checkpoints(&self) -> Result<Vec<Checkpoint>, sqlx::Error> {
        self.read(Query::new(ALL_CHECKPOINTS)).await?.iter().map(Checkpoint::read).collect()
    }

    /// Which read models have which file of their own.
    pub async fn places(&self) -> Result<Vec<(String, u64)>, sqlx::Error> {
        self.read(Query::new(ALL_PLACES)).await?.iter().map(place).collect()
    }

    pub async fn close(&self) {
        match self {
            Self::Sqlite { writer, readers, files } => {
                files.release();
                readers.close().await;
                // The last connection moves the log into the file and leaves nothing beside it.
                writer.close().await;
            }
            Self::Postgres { writers, readers, .. } => {
                readers.close().await;
                writers.close().await;
            }
        }
    }

    /// Runs a query. In PostgreSQL it cannot change anything.
    pub async fn read(&self, query: Query) -> Result<Vec<Row>, sqlx::Error> {
        let begun = Instant::now();
        let rows = match self {
            Self::Sqlite { readers, files, .. } => {
                there(files)?;
                on_sqlite(readers, &query).await
            }
            Self::Postgres { readers, reach, .. } => reach.retried(|| on_postgres(readers, &query)).await,
        };
        metrics::histogram!("watchword_read_models_query_seconds").record(begun.elapsed());
        rows
    }

    /// Looks whether the file, if it is one, is still the one that was opened. Logs a change.
    pub fn check_files(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite { files, .. } => Ok(files.check()?),
            Self::Postgres { .. } => Ok(()),
        }
    }

    /// Reports metrics of the connections.
    pub fn measure(&self) {
        match self {
            Self::Sqlite { writer, readers, .. } => {
                measure::pool(
                    READERS,
                    readers.size(),
                    readers.num_idle(),
                    readers.options().get_max_connections(),
                );
                measure::pool(
                    WRITERS,
                    writer.size(),
                    writer.num_idle(),
                    writer.options().get_max_connections(),
                );
            }
            Self::Postgres { writers, readers, .. } => {
                measure::pool(READERS, readers.size(), readers.num_idle(), readers.most());
                measure::pool(WRITERS, writers.size(), writers.num_idle(), writers.most());
            }
        }
    }

    /// The number that a query with one row returns.
    pub async fn read_number(&self, query: Query) -> Result<i64, sqlx::Error> {
        self.read(query).await?.first().ok_or(sqlx::Error::RowNotFound)?.get(0)
    }

    /// Runs a statement that changes something.
    pub async fn write(&self, query: Query) -> Result<Vec<Row>, sqlx::Error> {
        match self {
            Self::Sqlite { writer, files, .. } => {
                there(files)?;
                on_sqlite(writer, &query).await
            }
            Self::Postgres { writers, reach, .. } => reach.unless_refused(on_postgres(writers, &query)).await,
        }
    }

    /// Begins a write transaction; in a file, exclusively.
    pub async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        Ok(Transaction::new(match self {
            Self::Sqlite { writer, files, .. } => {
                there(files)?;
                Kind::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?)
            }
            Self::Postgres { writers, reach, .. } => Kind::Postgres(reach.retried(|| writers.begin()).await?),
        }))
    }

    /// Begins a transaction that creates or drops tables, exclusively.
    pub async fn begin_ddl(&self) -> Result<Transaction, sqlx::Error> {
        let mut tx = self.begin().await?;
        if let Kind::Postgres(_) = &tx.kind {
            tx.make(postgres::LOCK_DDL).await?;
        }
        Ok(tx)
    }
}

/// What is read from a file that is gone would be outdated, and what is written there would be lost.
fn there(files: &Files) -> Result<(), sqlx::Error> {
    files.known().map_err(|why| sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::NotFound, why.text)))
}

/// Reads the checkpoints. Changes nothing, in a file or beside it, even if its last writer was killed.
pub(crate) async fn look(location: &Location) -> Result<Vec<Checkpoint>, OpenError> {
    let found = match location {
        Location::File(path) => look_at_file(path).await,
        Location::Postgres(url) => bounded(url, look_at_postgres(url)).await.map(Some),
    };
    found
        .map_err(|source| OpenError::failed(location, source))?
        .ok_or_else(|| OpenError::Foreign(location.to_string()))
}

/// `None` if the file belongs to something else.
async fn look_at_file(path: &Path) -> Result<Option<Vec<Checkpoint>>, sqlx::Error> {
    let mut connection = looking(path).connect().await?;
    if !is_ours_or_empty(&mut connection).await? {
        return Ok(None);
    }
    let checkpoints = match names_events(&mut connection).await? {
        None => vec![],
        Some(named) => {
            let event = if named { "event" } else { "NULL" };
            let query =
                format!("SELECT projector, position, {event} AS event FROM checkpoints ORDER BY projector");
            let rows = on_sqlite(&mut connection, &Query::new(query)).await?;
            rows.iter().map(Checkpoint::read).collect::<Result<_, _>>()?
        }
    };
    connection.close().await?;
    Ok(Some(checkpoints))
}

const ALL_PLACES: &str = "SELECT model, generation FROM places ORDER BY model";

fn place(row: &Row) -> Result<(String, u64), sqlx::Error> {
    Ok((row.get("model")?, row.position("generation")?))
}

/// The places in a file. Changes nothing.
pub(crate) async fn look_at_places(path: &Path) -> Result<Vec<(String, u64)>, sqlx::Error> {
    let mut connection = looking(path).connect().await?;
    let exists = "SELECT count(*) FROM sqlite_schema WHERE name = 'places'";
    let is_there: i64 = sqlx::query_scalar(exists).fetch_one(&mut connection).await?;
    let mut places = vec![];
    if is_there > 0 {
        let rows = on_sqlite(&mut connection, &Query::new(ALL_PLACES)).await?;
        places = rows.iter().map(place).collect::<Result<_, _>>()?;
    }
    connection.close().await?;
    Ok(places)
}

/// The error for a server that says nothing.
pub(crate) fn silent() -> sqlx::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "the database does not answer").into()
}

/// Runs something on a server, for no longer than a caller waits for it. A silent server must not delay callers longer
/// than one that refuses.
pub(crate) async fn bounded<T>(
    url: &PostgresUrl,
    run: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(url.answer(), run).await.unwrap_or_else(|_| Err(silent()))
}

async fn look_at_postgres(url: &PostgresUrl) -> Result<Vec<Checkpoint>, sqlx::Error> {
    let mut connection = connect_to_look(url, url.answer()).await?;
    let is_there: bool = sqlx::query_scalar("SELECT to_regclass('watchword_read.checkpoints') IS NOT NULL")
        .fetch_one(&mut connection)
        .await?;
    let mut checkpoints = vec![];
    if is_there {
        let query = "SELECT projector, position, event FROM watchword_read.checkpoints ORDER BY projector";
        let rows = on_postgres(&mut connection, &Query::new(query)).await?;
        checkpoints = rows.iter().map(Checkpoint::read).collect::<Result<_, _>>()?;
    }
    connection.close().await?;
    Ok(checkpoints)
}

/// The standings of all projectors and the nodes, if nodes share them. Changes nothing.
pub(crate) async fn look_at_nodes(
    location: &Location,
) -> Result<Option<(Vec<Standing>, Vec<Node>)>, OpenError> {
    let Location::Postgres(url) = location else { return Ok(None) };
    let looked = bounded(url, async {
        let mut connection = connect_to_look(url, url.answer()).await?;
        let found = leases::look(&mut connection).await?;
        connection.close().await?;
        Ok(found)
    });
    looked.await.map(Some).map_err(|source| OpenError::failed(location, source))
}

async fn is_ours_or_empty(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let id: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await?;
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(connection).await?;
    Ok(id == APPLICATION_ID || (id == 0 && tables == 0))
}

/// Whether the checkpoints name their events, as all except those of old files do; `None` if there are no checkpoints.
async fn names_events(connection: &mut SqliteConnection) -> Result<Option<bool>, sqlx::Error> {
    let columns: Vec<String> =
        sqlx::query_scalar("SELECT name FROM pragma_table_info('checkpoints')").fetch_all(connection).await?;
    Ok((!columns.is_empty()).then(|| columns.iter().any(|column| column == "event")))
}

fn file(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(LONGEST_WAIT_FOR_A_LOCK)
        // Temporary data must not leave this folder.
        .pragma("temp_store", "MEMORY")
        .pragma("cache_size", "-512")
}

/// How a file is written: all connections of a process share the sum of these caches.
struct Writing {
    cache_size: &'static str,
    /// After how many pages the log is moved into the file.
    wal_autocheckpoint: &'static str,
}

const FOR_SERVING: Writing = Writing { cache_size: "-8192", wal_autocheckpoint: "1000" };
/// Inserts hit all pages of an index, and each page that is moved into the file twice is written twice.
const FOR_BUILDING: Writing = Writing { cache_size: "-65536", wal_autocheckpoint: "16000" };

async fn open_file(path: &Path, writing: &Writing) -> Result<Database, sqlx::Error> {
    private::ensure(path)?;
    let writer = file(path)
        .create_if_missing(true)
        .pragma("application_id", APPLICATION_ID.to_string())
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .pragma("cache_size", writing.cache_size)
        .pragma("wal_autocheckpoint", writing.wal_autocheckpoint);
    let pool = pools::sqlite()
        // SQLite ends a transaction automatically when the disk is full. The connection then wrongly believes for good
        // that it is in a transaction, so it is replaced.
        .after_release(|connection, _| Box::pin(std::future::ready(Ok(!connection.is_in_transaction()))));
    let writer = pool.clone().max_connections(1).connect_with(writer).await?;
    let mut connection = writer.acquire().await?;
    let missing = match names_events(&mut connection).await? {
        None => CHECKPOINTS,
        Some(false) => "ALTER TABLE checkpoints ADD COLUMN event BLOB",
        Some(true) => "",
    };
    sqlx::raw_sql(missing).execute(&mut *connection).await?;
    sqlx::raw_sql(PLACES).execute(&mut *connection).await?;
    sqlx::raw_sql(BUILDS).execute(&mut *connection).await?;
    drop(connection);
    let readers = pool.max_connections(SQLITE_READERS).connect_with(file(path).read_only(true)).await?;
    Ok(Database::Sqlite { writer, readers, files: Files::of(path) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page limit simulates a full disk.
    #[tokio::test]
    async fn inv_t_a_full_disk_is_forgotten_when_there_is_space_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let database =
            Database::open(&Location::File(dir.path().join("read-models.db"))).await.expect("opens");
        database.write(Query::new("CREATE TABLE rows (data BLOB)")).await.expect("makes");
        let pages = database.write(Query::new("PRAGMA page_count")).await.expect("reads");
        let pages: i64 = pages[0].get(0).expect("a number");
        database.write(Query::new(format!("PRAGMA max_page_count = {pages}"))).await.expect("sets");
        let insert = || Query::new("INSERT INTO rows VALUES (zeroblob(100000))");
        let mut tx = database.begin().await.expect("begins");
        let full = tx.run(insert()).await.map(drop).expect_err("there is no space");
        assert!(full.to_string().contains("full"), "{full}");
        drop(tx);
        let mut tx = database.begin().await.expect("begins with a new connection, which knows no limit");
        tx.run(insert()).await.expect("writes");
        tx.commit().await.expect("commits");
    }
}
