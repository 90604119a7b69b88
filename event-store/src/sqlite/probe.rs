//! A small write of a store's own, in a table that nothing else uses: whether it can be written is known before a
//! request finds out.

use sqlx::{AssertSqlSafe, SqliteConnection};

/// Durably writes this many bytes. The table is made at the first time; earlier versions ignore it.
pub(crate) async fn write(connection: &mut SqliteConnection, size: usize) -> Result<(), sqlx::Error> {
    let statements = format!(
        "BEGIN IMMEDIATE;
         CREATE TABLE IF NOT EXISTS probe (id INTEGER PRIMARY KEY, filler BLOB NOT NULL) STRICT;
         INSERT OR REPLACE INTO probe VALUES (1, zeroblob({size}));
         COMMIT;"
    );
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).await?;
    Ok(())
}
