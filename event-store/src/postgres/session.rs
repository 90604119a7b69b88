//! Connections to PostgreSQL, each as the service's role and with every wait bounded.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection};
use tokio::time::timeout;

use super::role::RoleName;
use crate::journal::OpenError;

/// How a store on PostgreSQL waits. The defaults suit a database nearby.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// How many connections read at the same time; the writer and whoever listens have one each besides.
    pub readers: u32,
    /// How long a connection may take to be made, or to come free.
    pub connect_timeout: Duration,
    /// How long a statement may take, its wait for locks included.
    pub statement_timeout: Duration,
    /// How long a lost connection is made anew, and what was lost with it sent again, until it is known what became of it.
    pub patience: Duration,
    /// How long anybody waits for an answer, whatever goes on behind it.
    pub answer: Duration,
    /// How long a server that refuses connections is tried again. None by default: whoever asks hears of it at once.
    pub grace: Duration,
    /// The role that connections work as, such as `watchword_service`; none where they work as the user that owns the tables.
    /// Found out when a store is opened.
    pub role: Option<RoleName>,
    /// How often to look for new events where no notification came.
    pub poll: Duration,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            readers: 8,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            patience: Duration::from_secs(15),
            answer: Duration::from_secs(5),
            grace: Duration::ZERO,
            role: Some(RoleName::default()),
            poll: Duration::from_secs(1),
        }
    }
}

impl PostgresSettings {
    /// How long we wait for an answer: the server gives up a little before, and says so.
    pub(crate) fn answer_timeout(&self) -> Duration {
        self.statement_timeout + Duration::from_secs(1)
    }

    fn session(&self) -> String {
        let milliseconds = self.statement_timeout.as_millis();
        let role = self.role.as_ref().map_or("NONE", RoleName::as_str);
        format!(
            "SET ROLE {role};
             SET statement_timeout = {milliseconds};
             SET idle_in_transaction_session_timeout = {milliseconds};
             SET default_transaction_isolation = 'read committed';
             SET client_min_messages = warning;
             -- Every statement looks rows up by their keys: a plan for it is made once, not at each execution, and must
             -- not count on tables being as small as they were then.
             SET plan_cache_mode = force_generic_plan;
             SET enable_seqscan = off; SET enable_bitmapscan = off;
             SET enable_hashjoin = off; SET enable_mergejoin = off;
             SET jit = off;
             -- What is acknowledged is durable, whatever the server's default is.
             SELECT set_config('synchronous_commit', 'on', false)
             WHERE current_setting('synchronous_commit') = 'off';"
        )
    }

    async fn prepare(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        // It is made of constants, a number, and a name that needs no quotes.
        connection.execute(sqlx::raw_sql(AssertSqlSafe(self.session()))).await?;
        metrics::counter!("watchword_postgres_connects_total").increment(1);
        Ok(())
    }

    /// A connection of one's own.
    pub(crate) async fn connect(&self, options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
        let connected = timeout(self.connect_timeout, async {
            let mut connection = options.connect().await?;
            self.prepare(&mut connection).await?;
            Ok(connection)
        });
        connected.await.unwrap_or_else(|_| Err(timed_out("the database does not answer")))
    }

    /// A pool that connects when it is asked.
    pub(crate) fn pool(&self, options: &PgConnectOptions) -> PgPool {
        let settings = self.clone();
        PgPoolOptions::new()
            .max_connections(self.readers)
            .acquire_timeout(self.connect_timeout)
            // It would cost a round trip each time: a connection that turns out to be dead is replaced when it is used.
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let settings = settings.clone();
                Box::pin(async move { settings.prepare(connection).await })
            })
            .connect_lazy_with(options.clone())
    }
}

/// Whether an error says that the connection is gone or was not made, rather than what the statement did.
pub(crate) fn is_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed => true,
        // Class 08: connection exceptions; 57P: the server goes down, or is not up yet; 25006: it is a replica now.
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| code.starts_with("08") || code.starts_with("57P") || code == "25006"),
        _ => false,
    }
}

/// Whether an error says that the server is away, goes down, comes up, follows another one or has too much to do: what waiting
/// can mend. A wrong password, a database that is not there and a certificate that is not believed are none of these.
pub fn is_away(error: &sqlx::Error) -> bool {
    match error {
        // What is said there is no answer of a server, or none that TLS takes.
        sqlx::Error::Io(error) => !matches!(
            error.kind(),
            std::io::ErrorKind::InvalidData
                | std::io::ErrorKind::InvalidInput
                | std::io::ErrorKind::PermissionDenied
        ),
        sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
        // Class 53: too many connections and the like; 58: what the server's system refuses; 57014: a statement took too long;
        // 55P03, 40001 and 40P01: somebody else was in the way.
        sqlx::Error::Database(said) => {
            said.code().is_some_and(|code| {
                code.starts_with("53")
                    || code.starts_with("58")
                    || matches!(&*code, "57014" | "55P03" | "40001" | "40P01")
            }) || is_connection(error)
        }
        _ => false,
    }
}

/// Why a store at this place was not opened.
pub(crate) fn not_opened(place: &(impl ToString + ?Sized), error: &sqlx::Error) -> OpenError {
    let (path, reason) = (place.to_string(), error.to_string());
    if is_away(error) { OpenError::Away { path, reason } } else { OpenError::Failed { path, reason } }
}

/// What an expired wait is called.
pub(crate) fn timed_out(what: &str) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, what))
}
