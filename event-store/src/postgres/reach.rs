//! Whether a database can be reached: callers that wait for it learn at once that its server refuses connections, and
//! after a while that it does not answer.
//!
//! A pool takes a refusal for a server that is starting, retries until its timeout, and then reports no cause. So a
//! caller that waits longer than usual also tries to connect to the server directly: it knocks.

use std::io;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::session::{PostgresSettings, is_connection, is_read_only, timed_out};
use crate::pauses::Pauses;

/// Waiting for longer than this is unusual.
const USUAL: Duration = Duration::from_millis(100);
/// The least time between knocks at a server that accepts connections or is silent, however many callers wait.
const BETWEEN_KNOCKS: Duration = Duration::from_millis(500);
/// How long a knock may take.
const KNOCK: Duration = Duration::from_secs(1);

/// The way to a database.
pub struct Reach {
    options: PgConnectOptions,
    settings: PostgresSettings,
    /// When the server was last asked, and why it refused. Callers wait for the one that is asking.
    last: Mutex<Option<(Instant, Option<io::ErrorKind>)>>,
}

impl Reach {
    /// The way to the database that these options name.
    pub fn new(options: &PgConnectOptions, settings: &PostgresSettings) -> Self {
        Self { options: options.clone(), settings: settings.clone(), last: Mutex::default() }
    }

    /// How long a caller waits for an answer.
    pub fn answer(&self) -> Duration {
        self.settings.answer
    }

    /// Runs an idempotent operation, and retries it if the connection failed, for no longer than a caller waits for an
    /// answer.
    pub async fn retried<T, F>(&self, run: impl Fn() -> F + Send) -> Result<T, sqlx::Error>
    where
        F: Future<Output = Result<T, sqlx::Error>> + Send,
    {
        let begun = Instant::now();
        let mut pauses = Pauses::new(self.settings.answer);
        let mut is_second = false;
        let done = loop {
            let left = self.settings.answer.saturating_sub(begun.elapsed());
            let attempt = timeout(left.min(self.settings.answer_timeout()), self.unless_refused(run())).await;
            match attempt.unwrap_or_else(|_| Err(timed_out("the database does not answer"))) {
                Err(error) if is_connection(&error) => {
                    metrics::counter!("watchword_postgres_failures_total", "of" => "read").increment(1);
                    let is_refused = is_refusal(&error) && begun.elapsed() >= self.settings.grace;
                    if is_refused || !pauses.next().await {
                        break Err(error);
                    }
                    tracing::debug!(%error, "asking the database again");
                }
                // Behind the same address there may be another server by now.
                Err(error) if is_read_only(&error) && !is_second => is_second = true,
                done => break done,
            }
        };
        metrics::histogram!("watchword_postgres_read_seconds").record(begun.elapsed());
        done
    }

    /// Runs something once, for no longer than a caller waits for an answer.
    pub async fn bounded<T>(
        &self,
        run: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let done = timeout(self.settings.answer, self.unless_refused(run)).await;
        done.unwrap_or_else(|_| Err(timed_out("the database does not answer")))
    }

    /// Runs something, but gives up if the server refuses connections meanwhile.
    pub async fn unless_refused<T>(
        &self,
        run: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        tokio::select! {
            biased;
            done = run => done,
            refusal = self.refusal() => Err(sqlx::Error::Io(refusal)),
        }
    }

    /// Completes when the server refuses connections and the grace period for that is over; never while it accepts them
    /// or is silent.
    pub(super) async fn refusal(&self) -> io::Error {
        let begun = Instant::now();
        let mut wait = match *self.last.lock().await {
            // It was down a moment ago: ask at once whether it still is.
            Some((_, Some(_))) => Duration::ZERO,
            _ => USUAL,
        };
        loop {
            sleep(wait).await;
            if let Some(kind) = self.knock(Instant::now()).await
                && begun.elapsed() >= self.settings.grace
            {
                return io::Error::new(
                    kind,
                    "the database server refuses connections: it is not running, or not there",
                );
            }
            wait = BETWEEN_KNOCKS;
        }
    }

    /// Why the server refuses connections, if it does. A refusal from before `since` does not count: the server may be
    /// back, so the first caller after it asks again.
    async fn knock(&self, since: Instant) -> Option<io::ErrorKind> {
        let mut last = self.last.lock().await;
        if let Some((at, found)) = *last
            && (at >= since || found.is_none() && at.elapsed() < BETWEEN_KNOCKS)
        {
            return found;
        }
        let asked = Instant::now();
        let found = match timeout(KNOCK, self.connect()).await {
            Ok(Err(error)) if is_refused(error.kind()) => Some(error.kind()),
            // Silence is not a refusal, and the connection itself reports other failures.
            _ => None,
        };
        *last = Some((asked, found));
        found
    }

    /// Sends nothing, so the server logs nothing.
    async fn connect(&self) -> io::Result<()> {
        let port = self.options.get_port();
        #[cfg(unix)]
        if let Some(folder) = self.options.get_socket() {
            let socket = folder.join(format!(".s.PGSQL.{port}"));
            return tokio::net::UnixStream::connect(socket).await.map(drop);
        }
        TcpStream::connect((self.options.get_host(), port)).await.map(drop)
    }
}

/// Whether an error says that the server refuses connections.
pub(crate) fn is_refusal(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if is_refused(error.kind()))
}

/// `NotFound` is what a missing Unix socket reports.
fn is_refused(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}
