//! Whether the server that a connection leads to has the history that this node knows.
//!
//! An address may lead to another server at any time: a replica was promoted, a backup restored. Each new connection
//! tells which server it reached (the cluster's identifier and its timeline, which a promotion raises) and whether that
//! has the newest event this node has seen. The event decides; another server or timeline only ends the connections to
//! the one before, so that nobody reads there what the others no longer write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, PgExecutor};
use tokio::time::timeout;
use uuid::Uuid;

use super::session::PostgresSettings;
use crate::pools;
use crate::seen::Seen;

/// For how long a server of an older timeline is refused. If only that one is there, this node starts anew with it.
const OLDER: Duration = Duration::from_secs(10);

/// A server, as its clients can tell it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Server {
    /// Of the cluster: a replica has that of its primary.
    system: i64,
    /// A promotion begins a new one.
    timeline: u32,
}

/// What a node knows of its journal's history.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) seen: Seen,
    server: Mutex<Option<Server>>,
    /// Counts the servers.
    generation: AtomicU64,
    older_since: Mutex<Option<Instant>>,
}

/// What a server says of itself and the journal.
struct Said {
    /// `None` if it is a replica.
    server: Option<Server>,
    head: i64,
    found: Option<Uuid>,
}

impl History {
    /// Asks a new connection where it leads. It must not be used if this fails.
    pub(crate) async fn meet(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let known = self.seen.newest();
        let Said { server, head, found } = ask(connection, known.0).await?;
        let Some(server) = server else {
            return Err(refused(
                "the server is a replica: it may lack the newest events until it is promoted",
            ));
        };
        // First: a server that was left behind lacks what the others have written since, and nothing is lost by that.
        self.take(server)?;
        self.judge(known, found, head)
    }

    /// Asks through an existing connection whether the journal still has what was seen.
    pub(crate) async fn look(&self, executor: impl PgExecutor<'_>) -> Result<u64, sqlx::Error> {
        let (known, generation) = (self.seen.newest(), self.generation());
        let (head, id, found): (i64, Option<Uuid>, Option<Uuid>) = sqlx::query_as(
            "SELECT coalesce(n.position, 0), n.id, (SELECT id FROM watchword.events WHERE position = $1)
             FROM (SELECT 1) one LEFT JOIN LATERAL
                 (SELECT position, id FROM watchword.events ORDER BY position DESC LIMIT 1) n ON true",
        )
        .bind(known.0.cast_signed())
        .fetch_one(executor)
        .await?;
        if generation != self.generation() {
            // Others no longer see what that server has.
            return Err(refused("the journal has moved to another server meanwhile"));
        }
        self.judge(known, found, head)?;
        let head = head.cast_unsigned();
        if let Some(id) = id {
            self.seen.see(head, id);
        }
        Ok(head)
    }

    /// Looks through a connection of its own: existing ones may lead to a server that others no longer reach.
    pub(crate) async fn look_afresh(
        self: &Arc<Self>,
        settings: &PostgresSettings,
        options: &PgConnectOptions,
    ) -> Result<(), sqlx::Error> {
        let connection = settings.connect_to(options, self).await?;
        // It has done its work.
        let _ = timeout(settings.connect_timeout, connection.close()).await;
        Ok(())
    }

    fn judge(&self, known: (u64, Uuid), found: Option<Uuid>, head: i64) -> Result<(), sqlx::Error> {
        self.seen.compare(known, found, head.cast_unsigned()).map_err(|error| refused(&error.to_string()))
    }

    /// Connections of an earlier generation lead to another server.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Goes on with this server, unless it is one that was left behind.
    fn take(&self, found: Server) -> Result<(), sqlx::Error> {
        let mut server = locked(&self.server);
        let Some(known) = *server else {
            *server = Some(found);
            return Ok(());
        };
        if found == known {
            *locked(&self.older_since) = None;
            return Ok(());
        }
        if found.system == known.system && found.timeline < known.timeline {
            let since = *locked(&self.older_since).get_or_insert_with(Instant::now);
            if since.elapsed() >= OLDER {
                tracing::error!("only a server on an older timeline is left: this node starts anew with it");
                let (position, event) = self.seen.newest();
                self.seen.lose(crate::seen::Lost { position, event, head: position });
            }
            return Err(refused(
                "the server is on an older timeline than the one this node has reached: a former primary",
            ));
        }
        tracing::warn!(
            from = %format_args!("{} timeline {}", known.system, known.timeline),
            to = %format_args!("{} timeline {}", found.system, found.timeline),
            "the journal is on another server: connections to the previous one are closed"
        );
        metrics::counter!("watchword_postgres_servers_changed_total").increment(1);
        *server = Some(found);
        pools::leave();
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

async fn ask(connection: &mut PgConnection, position: u64) -> Result<Said, sqlx::Error> {
    let (is_replica, head, found): (bool, i64, Option<Uuid>) = sqlx::query_as(
        "SELECT pg_is_in_recovery(),
             coalesce((SELECT position FROM watchword.events ORDER BY position DESC LIMIT 1), 0),
             (SELECT id FROM watchword.events WHERE position = $1)",
    )
    .bind(position.cast_signed())
    .fetch_one(&mut *connection)
    .await?;
    if is_replica {
        return Ok(Said { server: None, head, found });
    }
    let server: Result<(i64, String), sqlx::Error> = sqlx::query_as(
        "SELECT system_identifier, left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system()",
    )
    .fetch_one(connection)
    .await;
    let server = match server {
        Ok((system, timeline)) => {
            Server { system, timeline: u32::from_str_radix(&timeline, 16).unwrap_or_default() }
        }
        // Every user may call these, unless somebody has revoked it. Then the event alone tells.
        Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code == "42501") => {
            Server { system: 0, timeline: 0 }
        }
        Err(error) => return Err(error),
    };
    Ok(Said { server: Some(server), head, found })
}

/// Not as an error of the database: it did nothing wrong.
fn refused(why: &str) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::other(why.to_owned()))
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
