//! Connections to PostgreSQL, each as the service's role and with every wait bounded.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection};
use tokio::time::timeout;

use super::role::ROLE;

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
    /// Whether connections work as the role `watchword_service`, rather than as the user that owns the tables. Found out when
    /// a store is opened.
    pub role: bool,
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
            role: true,
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
        let role = if self.role { ROLE } else { "NONE" };
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
        // It is made of constants and a number.
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

/// What an expired wait is called.
pub(crate) fn timed_out(what: &str) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, what))
}
