//! Nodes of the real binary on one PostgreSQL server, with NATS between them.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use sqlx::{Connection as _, PgConnection};
use test_services::{Nats, Postgres};
use tests::Server;
use tests::generator::{Failure, argon2_cost};

const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The nodes and their servers.
pub struct Cluster {
    pub commands: Vec<Server>,
    pub projections: Server,
    pub database: String,
    nats: Nats,
}

impl Cluster {
    pub async fn start(postgres: &Postgres, command_nodes: u32) -> Self {
        Self::start_on(postgres, None, command_nodes).await
    }

    /// Starts with a journal outside the database.
    pub async fn start_on(postgres: &Postgres, journal: Option<&str>, command_nodes: u32) -> Self {
        let (database, nats) = (postgres.database(), Nats::start());
        let (url, cost) = (nats.url(), argon2_cost());
        let environment = [
            ("WATCHWORD_JOURNAL_URL", journal.unwrap_or(&database)),
            ("WATCHWORD_KEY_STORE_URL", &database),
            ("WATCHWORD_READ_MODELS_URL", &database),
            ("WATCHWORD_NATS_URL", &url),
            ("WATCHWORD_MASTER_KEY", MASTER_KEY),
            // All nodes are behind one address, the issuer of their tokens.
            ("WATCHWORD_PUBLIC_URL", "https://login.example.com"),
            ("WATCHWORD_ARGON2", &cost),
            ("WATCHWORD_LOG", "warn"),
        ];
        let mut commands = vec![];
        for _ in 0..command_nodes {
            commands.push(Server::start_role("commands", &environment).await);
        }
        let projections = Server::start_role("projections", &environment).await;
        Self { commands, projections, database, nats }
    }

    /// The addresses of the command nodes: `host:port`.
    pub fn addresses(&self) -> Vec<Arc<str>> {
        self.commands.iter().map(|node| node.base().trim_start_matches("http://").into()).collect()
    }

    /// A connection to the database as its superuser.
    pub async fn connect(&self) -> Result<PgConnection, Failure> {
        Ok(PgConnection::connect(&self.database).await?)
    }

    /// The size of the journal's tables and their indexes.
    pub async fn journal_bytes(&self) -> Result<u64, Failure> {
        let bytes: i64 = sqlx::query_scalar(
            "SELECT pg_total_relation_size('watchword.events') + pg_total_relation_size('watchword.claims')
                 + pg_total_relation_size('watchword.idempotency') + pg_total_relation_size('watchword.snapshots')",
        )
        .fetch_one(&mut self.connect().await?)
        .await?;
        Ok(bytes.cast_unsigned())
    }

    /// The size of JetStream's files.
    pub fn stream_bytes(&self) -> u64 {
        bytes_below(self.nats.store())
    }
}

/// Files may come and go meanwhile.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_below(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}
