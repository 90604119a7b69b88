//! The PostgreSQL journal: the contract, with one node and with several, and failures between a node and its database.

use std::sync::Arc;
use std::time::Duration;

use event_store::contract::{self, Nodes};
use event_store::{PostgresJournal, PostgresSettings, PostgresUrl};
use test_services::Postgres;

mod away;
mod faults;
mod neighbours;
mod nodes;
mod opening;
mod pool;
mod poolers;
mod replicas;
mod roles;

/// Timeouts short enough for a test and long enough for a busy machine.
fn settings() -> PostgresSettings {
    PostgresSettings { readers: 4, poll: Duration::from_millis(200), ..PostgresSettings::default() }
}

fn url(text: &str) -> PostgresUrl {
    text.parse().expect("a URL")
}

async fn open(database: &str) -> PostgresJournal {
    PostgresJournal::open(&url(database), settings(), &contract::macs()).await.expect("opens")
}

async fn two_nodes(database: &str) -> Nodes {
    Nodes::new(vec![Arc::new(open(database).await), Arc::new(open(database).await)])
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
                contract::$name(Arc::new(super::two_nodes(&Postgres::shared().database()).await)).await;
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
    forgets_old_idempotency_keys
    writes_all_or_nothing
    survives_racing_writers
    gets_one_origin
    shows_no_gap_to_a_reader_that_follows
    a_refusal_spares_its_neighbours
    keeps_snapshots
    keeps_cursors_of_effects
    knows_where_it_stood_at_a_time
}

/// On one thread all appends are queued before the writer runs once: one group.
#[tokio::test]
async fn neighbours_in_one_group_commit() {
    contract::a_refusal_spares_its_neighbours(Arc::new(open(&Postgres::shared().database()).await)).await;
}
