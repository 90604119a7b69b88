//! Asks `audit_log`.

use domain::{AppId, Timestamp, UserId};

use crate::database::Database;
use crate::sql::Query;
use crate::store::ReadError;

/// Which events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Of this app.
    pub app_id: Option<AppId>,
    /// About this person.
    pub person: Option<UserId>,
    /// By this actor: the id of a user or an API key, or a kind (`system`, `anonymous` …).
    pub actor: Option<String>,
    /// Of this type.
    pub kind: Option<String>,
    /// At this time or later.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
}

/// Queries of `audit_log`.
pub struct AuditLog<'a> {
    database: &'a Database,
}

impl<'a> AuditLog<'a> {
    pub(crate) fn new(database: &'a Database) -> Self {
        Self { database }
    }

    /// The positions of matching events behind `after`, ascending. `offset` leaves some out first.
    pub async fn positions(
        &self,
        filter: &AuditFilter,
        after: u64,
        offset: u32,
        limit: u32,
    ) -> Result<Vec<u64>, ReadError> {
        let mut query = select("position", filter);
        query.push(" AND position > ").push_bind(after).push(" ORDER BY position LIMIT ");
        query.push_bind(limit).push(" OFFSET ").push_bind(offset);
        let found = self.database.read(query).await?;
        found.iter().map(|row| Ok(row.get::<i64>(0)?.cast_unsigned())).collect()
    }

    /// How many events match.
    pub async fn count(&self, filter: &AuditFilter) -> Result<u64, ReadError> {
        Ok(self.database.read_number(select("count(*)", filter)).await?.cast_unsigned())
    }
}

fn select(what: &'static str, filter: &AuditFilter) -> Query {
    let AuditFilter { app_id, person, actor, kind, since, until } = filter;
    let mut query = Query::new(format!("SELECT {what} FROM audit_log_v1 WHERE true"));
    if let Some(app_id) = app_id {
        query.push(" AND app_id = ").push_bind(app_id.as_str());
    }
    if let Some(person) = person {
        query.push(" AND person = ").push_bind(person.0);
    }
    if let Some(actor) = actor {
        let column = if is_kind(actor) { "actor_kind" } else { "actor_id" };
        query.push(&format!(" AND {column} = ")).push_bind(actor.as_str());
    }
    if let Some(kind) = kind {
        query.push(" AND type = ").push_bind(kind.as_str());
    }
    if let Some(since) = since {
        query.push(" AND at >= ").push_bind(*since);
    }
    if let Some(until) = until {
        query.push(" AND at < ").push_bind(*until);
    }
    query
}

fn is_kind(actor: &str) -> bool {
    ["user", "api_key", "system", "anonymous"].contains(&actor)
}
