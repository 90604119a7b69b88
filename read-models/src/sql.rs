//! SQL for both databases. Models write their statements once; the few differences are here.
//!
//! A cell is an integer, a text or bytes, which both `SQLite`'s strict tables and PostgreSQL can hold. Times are
//! microseconds, ids are bytes, booleans are 0 and 1.

use std::sync::Arc;

use domain::Timestamp;
use event_store::postgres::pool::PoolTransaction;
use serde::{Serialize, Serializer};
use sqlx::postgres::{PgArguments, PgExecutor, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteExecutor, SqliteRow};
use sqlx::{AssertSqlSafe, Column, ColumnIndex, Decode, Postgres, Row as _, Sqlite, Type, TypeInfo};
use tokio::time::timeout;
use uuid::Uuid;

use crate::aside::Aside;

/// The content of a cell; `None` is NULL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value {
    Int(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

impl Value {
    fn int(&self) -> Option<i64> {
        if let Self::Int(value) = self { *value } else { None }
    }

    fn text(&self) -> Option<&str> {
        if let Self::Text(value) = self { value.as_deref() } else { None }
    }

    fn bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(value) = self { value.as_deref() } else { None }
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

/// A position, or a count.
impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Int(Some(i64::try_from(value).unwrap_or(i64::MAX)))
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(Some(value.into()))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Int(Some(value.into()))
    }
}

impl From<Timestamp> for Value {
    fn from(value: Timestamp) -> Self {
        Self::Int(Some(value.as_microsecond()))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}

impl From<Option<&str>> for Value {
    fn from(value: Option<&str>) -> Self {
        Self::Text(value.map(str::to_owned))
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(Some(value.to_vec()))
    }
}

impl From<Option<Vec<u8>>> for Value {
    fn from(value: Option<Vec<u8>>) -> Self {
        Self::Bytes(value)
    }
}

impl From<Uuid> for Value {
    fn from(value: Uuid) -> Self {
        value.as_bytes().as_slice().into()
    }
}

impl From<Option<Uuid>> for Value {
    fn from(value: Option<Uuid>) -> Self {
        Self::Bytes(value.map(|id| id.as_bytes().to_vec()))
    }
}

/// In the form for `json_each`. JSON has no bytes, so they are hexadecimal.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Int(value) => value.serialize(serializer),
            Self::Text(value) => value.serialize(serializer),
            Self::Bytes(value) => value.as_deref().map(hex::encode).serialize(serializer),
        }
    }
}

/// A statement with the values of its placeholders.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    sql: String,
    values: Vec<Value>,
}

impl Query {
    /// A statement in which `$1` stands for the first bound value, and so on.
    pub fn new(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), values: vec![] }
    }

    /// Binds the next placeholder's value.
    #[must_use]
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Appends to the statement.
    pub fn push(&mut self, sql: &str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    /// Appends a whole query to a statement without placeholders of its own.
    pub fn append(&mut self, other: Self) -> &mut Self {
        debug_assert!(self.values.is_empty(), "the placeholders of the other one begin with 1");
        self.sql.push_str(&other.sql);
        self.values = other.values;
        self
    }

    /// Appends a placeholder and its value.
    pub fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        self.sql.push('$');
        self.sql.push_str(&self.values.len().to_string());
        self
    }
}

/// Rows that one statement writes, however many there are.
pub(crate) struct Rows<const N: usize> {
    columns: [&'static str; N],
    rows: Vec<[Value; N]>,
}

impl<const N: usize> Rows<N> {
    /// Starts without rows. Each pushed row has its cells in the order of these columns.
    pub fn new(columns: [&'static str; N]) -> Self {
        Self { columns, rows: vec![] }
    }

    pub fn push(&mut self, row: [Value; N]) {
        self.rows.push(row);
    }

    /// Completes a statement about `{rows}`, a table of these rows with the `{columns}`.
    fn complete(&self, sql: &str, source: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(sql.replace("{columns}", &self.columns.join(", ")).replace("{rows}", source))
    }

    /// The rows as one parameter.
    fn sqlite_source(&self, first: &[Value; N]) -> String {
        let cells = self.columns.iter().zip(first).enumerate().map(|(n, (column, value))| match value {
            Value::Int(_) | Value::Text(_) => format!("value ->> {n} AS {column}"),
            Value::Bytes(_) => format!("unhex(value ->> {n}) AS {column}"),
        });
        format!("(SELECT {} FROM json_each($1)) AS new_rows", cells.collect::<Vec<_>>().join(", "))
    }

    /// The rows as one parameter for each column.
    fn postgres_source(&self, first: &[Value; N]) -> String {
        let arrays = first.iter().zip(1..).map(|(value, n)| match value {
            Value::Int(_) => format!("${n}::bigint[]"),
            Value::Text(_) => format!("${n}::text[]"),
            Value::Bytes(_) => format!("${n}::bytea[]"),
        });
        let arrays = arrays.collect::<Vec<_>>().join(", ");
        format!("unnest({arrays}) AS new_rows ({})", self.columns.join(", "))
    }

    fn json(&self) -> String {
        let rows: Vec<&[Value]> = self.rows.iter().map(<[Value; N]>::as_slice).collect();
        serde_json::to_string(&rows).expect("cells are numbers and texts")
    }
}

/// A row of a result.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// A cell, by the column's name or number.
    pub fn get<'r, T>(
        &'r self,
        column: impl ColumnIndex<SqliteRow> + ColumnIndex<PgRow>,
    ) -> Result<T, sqlx::Error>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>,
    {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    /// A position of the journal. What somebody else has put there may be negative: no journal has the greatest either.
    pub fn position(
        &self,
        column: impl ColumnIndex<SqliteRow> + ColumnIndex<PgRow>,
    ) -> Result<u64, sqlx::Error> {
        Ok(u64::try_from(self.get::<i64>(column)?).unwrap_or(i64::MAX.cast_unsigned()))
    }

    /// The cells in order, each with its column's name.
    pub fn cells(&self) -> Result<Vec<(&str, Value)>, sqlx::Error> {
        let columns: Vec<(&str, &str)> = match self {
            Self::Sqlite(row) => row.columns().iter().map(|it| (it.name(), it.type_info().name())).collect(),
            Self::Postgres(row) => {
                row.columns().iter().map(|it| (it.name(), it.type_info().name())).collect()
            }
        };
        let cell = |(n, (name, kind)): (usize, (_, &str))| {
            let value = match kind {
                "BLOB" | "BYTEA" => Value::Bytes(self.get(n)?),
                "TEXT" => Value::Text(self.get(n)?),
                _ => Value::Int(self.get(n)?),
            };
            Ok((name, value))
        };
        columns.into_iter().enumerate().map(cell).collect()
    }
}

/// A transaction of either database. If dropped, it is rolled back.
pub struct Transaction {
    pub(crate) kind: Kind,
    /// What the names in statements stand for, if not for themselves.
    aside: Option<Arc<Aside>>,
}

pub(crate) enum Kind {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(PoolTransaction),
}

impl Transaction {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, aside: None }
    }

    /// The same, in which tables and indexes have other names.
    pub(crate) fn aside(self, aside: Option<Arc<Aside>>) -> Self {
        Self { aside, ..self }
    }

    fn named(&self, sql: String) -> String {
        match &self.aside {
            Some(aside) => aside.rename(&sql),
            None => sql,
        }
    }

    /// Runs a statement and returns all rows of its result.
    pub(crate) async fn run(&mut self, mut query: Query) -> Result<Vec<Row>, sqlx::Error> {
        query.sql = self.named(query.sql);
        match &mut self.kind {
            Kind::Sqlite(tx) => on_sqlite(&mut **tx, &query).await,
            Kind::Postgres(tx) => {
                let ran = timeout(tx.bound(), on_postgres(tx.start()?, &query)).await;
                tx.finish(ran)
            }
        }
    }

    /// Runs a statement about `{rows}`, a table of `{columns}`; does nothing if there are none.
    pub(crate) async fn run_for<const N: usize>(
        &mut self,
        rows: &Rows<N>,
        sql: &str,
    ) -> Result<Vec<Row>, sqlx::Error> {
        let Some(first) = rows.rows.first() else { return Ok(vec![]) };
        let sql = self.named(sql.to_owned());
        match &mut self.kind {
            Kind::Sqlite(tx) => {
                let sql = rows.complete(&sql, &rows.sqlite_source(first));
                let found = sqlx::query(sql).bind(rows.json()).fetch_all(&mut **tx).await?;
                Ok(found.into_iter().map(Row::Sqlite).collect())
            }
            Kind::Postgres(tx) => {
                let mut query = sqlx::query(rows.complete(&sql, &rows.postgres_source(first)));
                for (n, kind) in first.iter().enumerate() {
                    let cells = rows.rows.iter().map(|row| &row[n]);
                    query = match kind {
                        Value::Int(_) => query.bind(cells.map(Value::int).collect::<Vec<_>>()),
                        Value::Text(_) => query.bind(cells.map(Value::text).collect::<Vec<_>>()),
                        Value::Bytes(_) => query.bind(cells.map(Value::bytes).collect::<Vec<_>>()),
                    };
                }
                let found = timeout(tx.bound(), query.fetch_all(tx.start()?)).await;
                Ok(tx.finish(found)?.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        match self.kind {
            Kind::Sqlite(tx) => tx.commit().await,
            Kind::Postgres(tx) => tx.commit().await,
        }
    }

    /// Creates tables from statements in `SQLite`'s dialect.
    pub(crate) async fn make_tables(&mut self, ddl: &str) -> Result<(), sqlx::Error> {
        let ddl = self.named(ddl.to_owned());
        match &mut self.kind {
            // It consists of constants.
            Kind::Sqlite(tx) => sqlx::raw_sql(AssertSqlSafe(ddl)).execute(&mut **tx).await.map(drop),
            Kind::Postgres(_) => self.make(for_postgres(&ddl)).await,
        }
    }

    /// Runs statements in PostgreSQL's dialect.
    pub(crate) async fn make(&mut self, ddl: impl Into<String>) -> Result<(), sqlx::Error> {
        let Kind::Postgres(tx) = &mut self.kind else { return Ok(()) };
        // It consists of constants.
        let ddl = sqlx::raw_sql(AssertSqlSafe(ddl.into()));
        let made = timeout(tx.bound(), ddl.execute(tx.start()?)).await;
        tx.finish(made).map(drop)
    }
}

/// The same tables with PostgreSQL's type names. Texts compare by their bytes, as in `SQLite`.
fn for_postgres(ddl: &str) -> String {
    [
        (" INTEGER", " BIGINT"),
        (" BLOB", " BYTEA"),
        (" TEXT", " TEXT COLLATE \"C\""),
        (") STRICT, WITHOUT ROWID;", ");"),
        (") STRICT;", ");"),
    ]
    .iter()
    .fold(ddl.to_owned(), |ddl, (sqlite, postgres)| ddl.replace(sqlite, postgres))
}

/// Runs a query on `SQLite`.
pub(crate) async fn on_sqlite<'e>(
    executor: impl SqliteExecutor<'e>,
    query: &Query,
) -> Result<Vec<Row>, sqlx::Error> {
    let mut bound: sqlx::query::Query<'_, Sqlite, SqliteArguments> =
        sqlx::query(AssertSqlSafe(query.sql.as_str()));
    for value in &query.values {
        bound = match value {
            Value::Int(_) => bound.bind(value.int()),
            Value::Text(_) => bound.bind(value.text()),
            Value::Bytes(_) => bound.bind(value.bytes()),
        };
    }
    Ok(bound.fetch_all(executor).await?.into_iter().map(Row::Sqlite).collect())
}

/// Runs a query on PostgreSQL.
pub(crate) async fn on_postgres<'e>(
    executor: impl PgExecutor<'e>,
    query: &Query,
) -> Result<Vec<Row>, sqlx::Error> {
    let mut bound: sqlx::query::Query<'_, Postgres, PgArguments> =
        sqlx::query(AssertSqlSafe(query.sql.as_str()));
    for value in &query.values {
        bound = match value {
            Value::Int(_) => bound.bind(value.int()),
            Value::Text(_) => bound.bind(value.text()),
            Value::Bytes(_) => bound.bind(value.bytes()),
        };
    }
    Ok(bound.fetch_all(executor).await?.into_iter().map(Row::Postgres).collect())
}
