//! Work on a database that may take long, such as a migration, or wait for a lock of somebody else. It may take any time
//! as long as the server is there, and what it waits for is said.

use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::Connection;
use tokio::time::{Instant, sleep, timeout};

use super::PostgresUrl;
use super::connecting::connect;
use super::session::timed_out;

/// After how long, and how often, somebody looks what it waits for.
const LOOK: Duration = Duration::from_secs(1);
/// How often the same is logged again.
const REMINDER: Duration = Duration::from_mins(1);
/// How often in a row a server may say nothing.
const SILENCES: u32 = 2;

/// Who has the locks that this node's sessions wait for. Sessions of the same user are visible to everybody; of others
/// less than all may be.
const BLOCKERS: &str = "
    SELECT DISTINCT pg_catalog.format('process %s of user %s (%s, from %s%s)', b.pid, b.usename,
        coalesce(nullif(b.application_name, ''), 'unnamed'),
        coalesce(pg_catalog.host(b.client_addr), 'this machine'),
        coalesce(', ' || b.state || ' since ' || pg_catalog.date_trunc('second', b.state_change), ''))
    FROM pg_catalog.pg_stat_activity a, pg_catalog.unnest(pg_catalog.pg_blocking_pids(a.pid)) blocking,
        pg_catalog.pg_stat_activity b
    WHERE a.usename = session_user AND a.datname = pg_catalog.current_database() AND a.wait_event_type = 'Lock'
        AND a.application_name LIKE 'watchword%' AND b.pid = blocking
    ORDER BY 1";

/// Runs something on a database, for as long as it takes. Logs whose locks it waits for; if the server says nothing any
/// more, it is given up.
pub fn while_at_work<'a, T: 'a, E: 'a>(
    url: &'a PostgresUrl,
    gone: impl FnOnce(sqlx::Error) -> E + Send + 'a,
    run: impl Future<Output = Result<T, E>> + Send + 'a,
) -> BoxFuture<'a, Result<T, E>> {
    Box::pin(watch(url, gone, Box::pin(run)))
}

async fn watch<T, E>(
    url: &PostgresUrl,
    gone: impl FnOnce(sqlx::Error) -> E,
    mut run: BoxFuture<'_, Result<T, E>>,
) -> Result<T, E> {
    let (mut silences, mut told) = (0, None::<(Vec<String>, Instant)>);
    loop {
        tokio::select! {
            biased;
            done = &mut run => return done,
            () = sleep(LOOK) => {}
        }
        let looked = tokio::select! {
            biased;
            done = &mut run => return done,
            looked = timeout(url.answer(), blockers(url)) => looked,
        };
        match looked {
            Ok(Ok(blockers)) => {
                silences = 0;
                let is_new =
                    told.as_ref().is_none_or(|(last, at)| *last != blockers || at.elapsed() >= REMINDER);
                if is_new && !blockers.is_empty() {
                    let whose = blockers.join(" and ");
                    tracing::warn!(database = %url, "waiting for a lock that {whose} has");
                }
                if is_new {
                    told = Some((blockers, Instant::now()));
                }
            }
            // It lets nobody else in, but it is there.
            Ok(Err(error)) => {
                silences = 0;
                tracing::debug!(%error, "whose locks the database waits for is not known");
            }
            Err(_) => silences += 1,
        }
        if silences >= SILENCES {
            return Err(gone(timed_out("the database does not answer any more")));
        }
    }
}

async fn blockers(url: &PostgresUrl) -> Result<Vec<String>, sqlx::Error> {
    let options = url.options().clone().application_name("watchword look");
    let mut connection = connect(&options, url.answer()).await?;
    let blockers = sqlx::query_scalar(BLOCKERS).fetch_all(&mut connection).await?;
    connection.close().await?;
    Ok(blockers)
}
