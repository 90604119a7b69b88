//! Somebody who can write any row to a store while a node has it open.

use std::fmt::Write as _;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, SqliteConnection};

use super::store::Store;

/// What a column of an event holds.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Id,
    Bytes,
    Text,
    /// With this many bits that can be changed, without the sign bit.
    Number(usize),
}

/// Every column of a row except its position.
pub(super) const COLUMNS: [(&str, Kind); 12] = [
    ("id", Kind::Id),
    ("stream", Kind::Text),
    ("version", Kind::Number(63)),
    ("type", Kind::Text),
    ("schema_version", Kind::Number(31)),
    ("at", Kind::Number(63)),
    ("app_id", Kind::Text),
    ("metadata", Kind::Text),
    ("data", Kind::Text),
    ("person", Kind::Id),
    ("personal", Kind::Bytes),
    ("mac", Kind::Bytes),
];

/// Somebody who can write to a store, while a node has it open.
pub(super) enum Administrator {
    OfFile(SqliteConnection),
    OfDatabase(PgConnection),
}

/// The cells of a row, without its position. Numbers are their digits.
pub(super) type Cells = Vec<Option<Vec<u8>>>;

/// Rows by their positions.
pub(super) type Placed = Vec<(u64, Cells)>;

/// The row at a position of the history.
pub(super) fn row_at(rows: &[Cells], position: u64) -> Option<&Cells> {
    rows.get(usize::try_from(position).expect("few") - 1)
}

pub(super) fn copy_of(rows: &[Cells], position: u64) -> Cells {
    row_at(rows, position).expect("it is in the history").clone()
}

impl Administrator {
    pub(super) async fn of(store: &Store) -> Self {
        match store {
            Store::File(directory) => {
                let mut file = SqliteConnectOptions::new()
                    .filename(Store::path(directory))
                    .connect()
                    .await
                    .expect("opens");
                for trigger in ["are_never_changed", "are_never_deleted", "have_no_gaps"] {
                    let drop = format!("DROP TRIGGER IF EXISTS events_{trigger}");
                    file.execute(AssertSqlSafe(drop)).await.expect("drops");
                }
                Self::OfFile(file)
            }
            Store::Database(url) => {
                let options: sqlx::postgres::PgConnectOptions = url.parse().expect("a URL");
                let mut connection = options.connect().await.expect("connects");
                for statement in [
                    "SET search_path = watchword",
                    "ALTER TABLE events DISABLE TRIGGER USER",
                    "ALTER TABLE events ALTER COLUMN mac DROP NOT NULL",
                ] {
                    connection.execute(statement).await.expect("may");
                }
                Self::OfDatabase(connection)
            }
        }
    }

    pub(super) async fn row(&mut self, position: u64) -> Cells {
        let mut cells = Vec::new();
        for (column, kind) in COLUMNS {
            let is_file = matches!(self, Self::OfFile(_));
            let read = match kind {
                Kind::Number(_) if is_file => format!("CAST(CAST({column} AS TEXT) AS BLOB)"),
                _ if is_file => format!("CAST({column} AS BLOB)"),
                Kind::Number(_) => format!("convert_to({column}::text, 'UTF8')"),
                Kind::Text => format!("convert_to({column}, 'UTF8')"),
                Kind::Id => format!("uuid_send({column})"),
                Kind::Bytes => column.to_owned(),
            };
            let query = AssertSqlSafe(format!("SELECT {read} FROM events WHERE position = {position}"));
            cells.push(match self {
                Self::OfFile(file) => sqlx::query_scalar(query).fetch_one(file).await.expect("reads"),
                Self::OfDatabase(connection) => {
                    sqlx::query_scalar(query).fetch_one(connection).await.expect("reads")
                }
            });
        }
        cells
    }

    /// Replaces the rows at these positions. False if the store itself refuses such rows.
    pub(super) async fn put(&mut self, away: &[u64], rows: &[(u64, &Cells)]) -> bool {
        let is_file = matches!(self, Self::OfFile(_));
        let mut statements = "BEGIN;".to_owned();
        for position in away {
            writeln!(statements, "DELETE FROM events WHERE position = {position};")
                .expect("takes everything");
        }
        let columns = COLUMNS.map(|(column, _)| column).join(", ");
        for (position, cells) in rows {
            let literal = |((_, kind), cell): (&(&str, Kind), &Option<Vec<u8>>)| {
                let Some(cell) = cell else { return "NULL".to_owned() };
                match kind {
                    Kind::Number(_) => String::from_utf8(cell.clone()).expect("digits"),
                    Kind::Text if is_file => format!("CAST(x'{}' AS TEXT)", hex::encode(cell)),
                    Kind::Text => format!("convert_from('\\x{}', 'UTF8')", hex::encode(cell)),
                    Kind::Id | Kind::Bytes if is_file => format!("x'{}'", hex::encode(cell)),
                    Kind::Id => format!("'{}'", hex::encode(cell)),
                    Kind::Bytes => format!("'\\x{}'", hex::encode(cell)),
                }
            };
            let cells: Vec<String> = COLUMNS.iter().zip(cells.iter()).map(literal).collect();
            let cells = cells.join(", ");
            writeln!(statements, "INSERT INTO events (position, {columns}) VALUES ({position}, {cells});")
                .expect("takes everything");
        }
        statements.push_str("COMMIT");
        let statements = AssertSqlSafe(statements);
        match self {
            Self::OfFile(file) => {
                let done = sqlx::raw_sql(statements).execute(&mut *file).await.is_ok();
                if !done {
                    file.execute("ROLLBACK").await.expect("goes back");
                }
                done
            }
            Self::OfDatabase(connection) => {
                let done = sqlx::raw_sql(statements).execute(&mut *connection).await.is_ok();
                if !done {
                    connection.execute("ROLLBACK").await.expect("goes back");
                }
                done
            }
        }
    }
}
