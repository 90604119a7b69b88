//! The PostgreSQL journal: the contract, alone and with several nodes, and what breaks between a node and its database.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use domain::StreamId;
use event_store::contract;
use event_store::{
    Append, AppendError, Appended, Claim, Journal, PostgresJournal, PostgresSettings, PostgresUrl, Snapshot,
    StoreError, StoredIdempotency,
};
use schemas::envelope::RecordedEvent;
use test_services::Postgres;
use tokio::sync::watch;

mod faults;
mod nodes;
mod opening;
mod proxy;

/// Waits that are short enough for a test, and long enough for a busy machine.
fn settings() -> PostgresSettings {
    PostgresSettings { readers: 4, poll: Duration::from_millis(200), ..PostgresSettings::default() }
}

fn url(text: &str) -> PostgresUrl {
    text.parse().expect("a URL")
}

async fn open(database: &str) -> PostgresJournal {
    PostgresJournal::open(&url(database), settings()).await.expect("opens")
}

/// What is appended and read through one node now, through another then.
struct Nodes {
    nodes: Vec<PostgresJournal>,
    turn: AtomicUsize,
}

impl Nodes {
    async fn open(database: &str, count: usize) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(open(database).await);
        }
        Self { nodes, turn: AtomicUsize::new(0) }
    }

    fn next(&self) -> &PostgresJournal {
        &self.nodes[self.turn.fetch_add(1, Ordering::Relaxed) % self.nodes.len()]
    }
}

#[async_trait]
impl Journal for Nodes {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.next().append(append).await
    }

    async fn read_stream(&self, stream: &StreamId, after: u64) -> Result<Vec<RecordedEvent>, StoreError> {
        self.next().read_stream(stream, after).await
    }

    async fn read_all(&self, after: u64, limit: usize) -> Result<Vec<RecordedEvent>, StoreError> {
        self.next().read_all(after, limit).await
    }

    async fn read_positions(&self, positions: &[u64]) -> Result<Vec<RecordedEvent>, StoreError> {
        self.next().read_positions(positions).await
    }

    async fn head(&self) -> Result<u64, StoreError> {
        self.next().head().await
    }

    fn watch_head(&self) -> watch::Receiver<u64> {
        self.next().watch_head()
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn versions(&self, streams: &[StreamId]) -> Result<Vec<u64>, StoreError> {
        self.next().versions(streams).await
    }

    async fn claim_owner(&self, claim: &Claim) -> Result<Option<StreamId>, StoreError> {
        self.next().claim_owner(claim).await
    }

    async fn claims(&self, kind: &str, prefix: &str) -> Result<Vec<(Claim, StreamId)>, StoreError> {
        self.next().claims(kind, prefix).await
    }

    async fn idempotent(&self, key: &[u8; 32]) -> Result<Option<StoredIdempotency>, StoreError> {
        self.next().idempotent(key).await
    }

    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, StoreError> {
        self.next().load_snapshot(stream).await
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<(), StoreError> {
        self.next().save_snapshot(stream, snapshot).await
    }
}

macro_rules! contract {
    ($($name:ident)*) => {
        mod one_node {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                contract::$name(Arc::new(open(&Postgres::shared().database()).await)).await;
            })*
        }

        mod two_nodes {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                contract::$name(Arc::new(Nodes::open(&Postgres::shared().database(), 2).await)).await;
            })*
        }
    };
}

contract! {
    reads_back_what_was_written
    checks_expected_versions
    checks_guards
    checks_claims
    is_idempotent
    writes_all_or_nothing
    survives_racing_writers
    shows_no_gap_to_a_reader_that_follows
    a_refusal_spares_its_neighbours
    keeps_snapshots
}

/// On one thread all appends are queued before the writer runs once: one group.
#[tokio::test]
async fn neighbours_in_one_group_commit() {
    contract::a_refusal_spares_its_neighbours(Arc::new(open(&Postgres::shared().database()).await)).await;
}
