//! Given events in a journal, the rows of the read models.

/// Runs a test on both databases. Snapshots allow duplicates, as each is taken on both.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod in_a_file {
            $(#[tokio::test] async fn $test() { super::$test(super::On::Sqlite).await; })*
        }
        mod in_postgres {
            $(#[tokio::test] async fn $test() { super::$test(super::On::Postgres).await; })*
        }
    };
}

mod audit_log;
mod compared;
mod database;
mod histories;
mod leases;
mod merkle_tree;
mod organizations;
mod rebuild;
mod rows;
mod stats;
mod world;
