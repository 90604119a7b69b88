//! Whether a database can be reached: whoever waits for it hears at once that its server refuses connections, and hears after a
//! while that it does not answer.
//!
//! A pool takes a refusal for a server that is starting, tries again for as long as it may, and then knows of no cause. So
//! whoever waits for longer than usual knocks at the server beside it.

use std::io;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::session::{PostgresSettings, is_connection, timed_out};
use crate::pauses::Pauses;

/// After how long a wait is longer than usual.
const USUAL: Duration = Duration::from_millis(100);
/// However many wait, a server that takes connections, or is silent, is not asked more often.
const BETWEEN_KNOCKS: Duration = Duration::from_millis(500);
/// How long a knock may take.
const KNOCK: Duration = Duration::from_secs(1);

/// The way to a database.
pub struct Reach {
    options: PgConnectOptions,
    settings: PostgresSettings,
    /// When it was last asked, and why it refused. Who wants to know waits for who is asking.
    last: Mutex<Option<(Instant, Option<io::ErrorKind>)>>,
}

impl Reach {
    /// The way to the database that these options name.
    pub fn new(options: &PgConnectOptions, settings: &PostgresSettings) -> Self {
        Self { options: options.clone(), settings: settings.clone(), last: Mutex::default() }
    }

    /// Runs what changes nothing, or the same however often it is run: again, as long as the connection is what failed, and
    /// for no longer than anybody waits for an answer.
    pub(crate) async fn retried<T, F>(&self, run: impl Fn() -> F + Send) -> Result<T, sqlx::Error>
    where
        F: Future<Output = Result<T, sqlx::Error>> + Send,
    {
        let begun = Instant::now();
        let mut pauses = Pauses::new(self.settings.answer);
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
                    tracing::debug!(%error, "the database is asked again");
                }
                done => break done,
            }
        };
        metrics::histogram!("watchword_postgres_read_seconds").record(begun.elapsed());
        done
    }

    /// Runs something once, for no longer than anybody waits for an answer.
    pub async fn bounded<T>(
        &self,
        run: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let done = timeout(self.settings.answer, self.unless_refused(run)).await;
        done.unwrap_or_else(|_| Err(timed_out("the database does not answer")))
    }

    /// Runs something, unless the server refuses connections meanwhile.
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

    /// Comes when the server refuses connections, once the grace for that is over, and never while it takes them or is silent.
    pub(super) async fn refusal(&self) -> io::Error {
        let begun = Instant::now();
        let mut wait = match *self.last.lock().await {
            // It was down a moment ago: whether it still is, is asked at once.
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
                    "the database's server refuses connections: it does not run, or not there",
                );
            }
            wait = BETWEEN_KNOCKS;
        }
    }

    /// Why the server refuses connections, if it does. A refusal of before that time says nothing of now: the server may be
    /// back, and who asks it first is to be answered.
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
            // Silence is no refusal, and what else is wrong is told by the connection itself.
            _ => None,
        };
        *last = Some((asked, found));
        found
    }

    /// A server that is told nothing says nothing in its log either.
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

/// The second is what a socket in the file system says.
fn is_refused(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}
