//! Creates, upgrades and opens the journal in a PostgreSQL database.

use std::sync::Arc;

use futures::FutureExt;
use sqlx::postgres::PgExecutor;
use tasks::Weight;
use tokio::sync::{mpsc, watch};

use super::blocked::while_at_work;
use super::doubt::Doubt;
use super::head::Follower;
use super::history::History;
use super::pool::Pool;
use super::reach::Reach;
use super::schema::{Migrated, Schema};
use super::session::PostgresSettings;
use super::url::PostgresUrl;
use super::warnings::Warnings;
use super::writer::{Connected, Writer};
use super::{PostgresJournal, session, upgrade};
use crate::journal::OpenError;
use crate::mac::Macs;
use crate::storage::LastWrite;

const SCHEMA: Schema = Schema {
    what: "Watchword journal",
    name: "watchword",
    migrations: &[
        include_str!("journal_1.sql"),
        include_str!("journal_2.sql"),
        include_str!("journal_3.sql"),
        include_str!("journal_4.sql"),
        include_str!("journal_5.sql"),
        include_str!("journal_6.sql"),
    ],
};

/// The format since which events carry MACs.
const FORMAT_WITH_MACS: u32 = 5;

/// How many appends can queue for the writer; further ones wait for a place.
const QUEUE: usize = 1024;

impl PostgresJournal {
    /// Creates or upgrades the journal's tables. Requires a user who may change the database.
    pub async fn migrate(url: &PostgresUrl, settings: &PostgresSettings) -> Result<Migrated, OpenError> {
        SCHEMA.prepare(url, settings, &url.to_string()).await.map(|prepared| prepared.migrated)
    }

    /// What [`PostgresJournal::migrate`] would do. Changes nothing.
    pub async fn look(url: &PostgresUrl, settings: &PostgresSettings) -> Result<Migrated, OpenError> {
        SCHEMA.look(url, settings, &url.to_string()).await
    }

    /// Refuses a journal whose format is from before MACs if the instance's key store says that its events carry them.
    pub fn check_has_macs(
        url: &PostgresUrl,
        Migrated { from: found, .. }: Migrated,
    ) -> Result<(), OpenError> {
        if (1..FORMAT_WITH_MACS).contains(&found) {
            return Err(OpenError::WithoutMacs { path: url.to_string(), found });
        }
        Ok(())
    }

    /// Opens the journal in this database, after [`PostgresJournal::migrate`].
    ///
    /// Tables of something else, a newer journal, and an older one that this user may not upgrade are refused and left
    /// unchanged. From here on, all connections work as the role of the URL, `watchword_service` by default, or as the
    /// user itself if it owns the tables and cannot use that role.
    ///
    /// The events of an older journal get their MACs, only from the owner of its tables and only if `macs` are those of
    /// a key store that does not yet say that this was done: see [`KeyStore::mark`](crate::KeyStore::mark). This may be
    /// interrupted at any moment, and continues at the next opening.
    pub async fn open(url: &PostgresUrl, settings: PostgresSettings, macs: &Macs) -> Result<Self, OpenError> {
        let place = url.to_string();
        let failed = |error: sqlx::Error| session::not_opened(&place, &error);
        let found = Self::look(url, &settings).await?;
        if !macs.believes_checksums() {
            Self::check_has_macs(url, found)?;
        }
        let prepared = SCHEMA.prepare(url, &settings, &place).await?;
        let settings = PostgresSettings { role: prepared.role, ..settings };
        if macs.believes_checksums() {
            let proven = upgrade::prove(url.options(), macs);
            let proven = while_at_work(url, upgrade::Failure::Failed, proven).await;
            proven.map_err(|failure| match failure {
                upgrade::Failure::Failed(error) => failed(error),
                upgrade::Failure::Forbidden => OpenError::Failed {
                    path: place.clone(),
                    reason: "its events carry no MACs yet, and its user may not add them. Run `watchword \
                             migrate` as the owner of the database"
                        .to_owned(),
                },
            })?;
        }
        let history = Arc::new(History::default());
        let connection = settings.connect_to(url.options(), &history).await.map_err(failed)?;
        let doubt = Arc::new(Doubt::default());
        let readers = settings.pool_to(url.options(), &history);
        warn_of_unsafe_settings(&readers).await.map_err(failed)?;
        let (head_sender, head) = watch::channel(history.look(&readers).await.map_err(failed)?);
        let head_sender = Arc::new(head_sender);
        let (requests, queue) = mpsc::channel(QUEUE);
        let writer = Writer {
            options: url.options().clone(),
            settings: settings.clone(),
            connection: Some(Connected::new(connection, history.generation())),
            history: Arc::clone(&history),
            doubt: Arc::clone(&doubt),
            warnings: Warnings::new(),
            head: Arc::clone(&head_sender),
            macs: macs.believing_nothing_else(),
        };
        tasks::start_with("journal_writer", Weight::Vital, (writer, queue), |(writer, queue)| {
            writer.run(queue).boxed()
        });
        let reach = Arc::new(Reach::new(url.options(), &settings));
        let answer = settings.answer;
        let follower = Follower {
            options: url.options().clone(),
            pool: readers.clone(),
            settings: settings.clone(),
            reach: Arc::clone(&reach),
            history: Arc::clone(&history),
            head: head_sender,
        };
        let follower = tasks::start("journal_head", Weight::Usual, move || follower.clone().run());
        let (raised, known) = (Arc::clone(&doubt), Arc::clone(&history));
        let (options, own) = (url.options().clone(), settings.clone());
        let confirming = tasks::start("journal_confirmation", Weight::Usual, move || {
            Arc::clone(&raised).settle(options.clone(), own.clone(), Arc::clone(&known))
        });
        let macs = macs.believing_nothing_else();
        let last = LastWrite::default();
        Ok(Self { requests, readers, reach, answer, head, last, macs, history, doubt, follower, confirming })
    }
}

/// A server configured without protection against power loss may lose what it acknowledged.
async fn warn_of_unsafe_settings(pool: &Pool) -> Result<(), sqlx::Error> {
    let off = unsafe_settings(pool).await?;
    if !off.is_empty() {
        tracing::warn!(?off, "the database may lose acknowledged writes: turn these settings on");
    }
    Ok(())
}

pub(super) async fn unsafe_settings<'e>(executor: impl PgExecutor<'e>) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'",
    )
    .fetch_all(executor)
    .await
}
