//! Queries `audit_log`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use domain::{ApiKeyId, AppId, Email, SessionId, Timestamp, UserId};
use event_store::LookupKey;
use uuid::Uuid;

use crate::database::Database;
use crate::rows;
use crate::sql::Query;
use crate::store::{ReadError, ReadModels};

/// A filter of events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Of this app.
    pub app_id: Option<AppId>,
    /// About this person.
    pub person: Option<UserId>,
    /// About this person, or by them.
    pub about_or_by: Option<UserId>,
    /// By this actor: the id of a user or an API key, or a kind (`system`, `anonymous` …).
    pub actor: Option<String>,
    /// Of one of these types; of any type if empty.
    pub kinds: Vec<String>,
    /// About this session.
    pub session: Option<SessionId>,
    /// By a request from this address. Requires [`AuditFilter::app_id`]: the hashes differ between apps.
    pub ip: Option<IpAddr>,
    /// About a person who has or had this address. Requires [`AuditFilter::app_id`] too.
    pub email: Option<Email>,
    /// At this time or later.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
}

/// Queries of `audit_log`.
pub struct AuditLog<'a> {
    database: Arc<Database>,
    lookup: &'a LookupKey,
}

impl<'a> AuditLog<'a> {
    pub(crate) fn new(models: &'a ReadModels) -> Self {
        Self { database: models.database_of(super::NAME), lookup: &models.lookup }
    }

    /// The positions of matching events after `after`, ascending, without the first `offset`.
    pub async fn positions(
        &self,
        filter: &AuditFilter,
        after: u64,
        offset: u32,
        limit: u32,
    ) -> Result<Vec<u64>, ReadError> {
        let mut query = self.select("position", filter);
        query.push(" AND position > ").push_bind(after).push(" ORDER BY position LIMIT ");
        query.push_bind(limit).push(" OFFSET ").push_bind(offset);
        let found = self.database.read(query).await?;
        found.iter().map(|row| Ok(row.get::<i64>(0)?.cast_unsigned())).collect()
    }

    /// How many events match.
    pub async fn count(&self, filter: &AuditFilter) -> Result<u64, ReadError> {
        Ok(self.database.read_number(self.select("count(*)", filter)).await?.cast_unsigned())
    }

    /// The positions at which these API keys were created, without keys that are not known, or not yet.
    pub async fn keys_made(&self, keys: &[ApiKeyId]) -> Result<Vec<(ApiKeyId, u64)>, ReadError> {
        if keys.is_empty() {
            return Ok(vec![]);
        }
        let mut query = Query::new("SELECT key_id, position FROM audit_log_v2 WHERE type = 'ApiKeyIssued'");
        one_of(&mut query, "key_id", keys.iter().map(|key| key.0));
        let mut made = Vec::new();
        for row in self.database.read(query).await? {
            let key: Uuid = rows::id(&row.get::<Vec<u8>>(0)?)?;
            made.push((ApiKeyId(key), row.get::<i64>(1)?.cast_unsigned()));
        }
        Ok(made)
    }

    /// Those of these people who were erased, as far as the read model knows.
    pub async fn erased(&self, people: &BTreeSet<UserId>) -> Result<BTreeSet<UserId>, ReadError> {
        if people.is_empty() {
            return Ok(BTreeSet::new());
        }
        let mut query = Query::new("SELECT person FROM audit_log_v2 WHERE type = 'UserErased'");
        one_of(&mut query, "person", people.iter().map(|person| person.0));
        let found = self.database.read(query).await?;
        found.iter().map(|row| Ok(UserId(rows::id(&row.get::<Vec<u8>>(0)?)?))).collect()
    }

    fn select(&self, what: &'static str, filter: &AuditFilter) -> Query {
        let AuditFilter { app_id, person, about_or_by, actor, kinds, session, ip, email, since, until } =
            filter;
        let mut query = Query::new(format!("SELECT {what} FROM audit_log_v2 WHERE true"));
        if let Some(app_id) = app_id {
            // A person's events are few. An expression keeps the database from using the index of all of the app's.
            let column = if person.is_some() { "app_id || ''" } else { "app_id" };
            query.push(&format!(" AND {column} = ")).push_bind(app_id.as_str());
        }
        if let Some(person) = person {
            query.push(" AND person = ").push_bind(person.0);
        }
        if let Some(person) = about_or_by {
            query.push(" AND (person = ").push_bind(person.0);
            query.push(" OR (actor_kind = 'user' AND actor_id = ").push_bind(person.0.to_string()).push("))");
        }
        if let Some(actor) = actor {
            let column = if is_kind(actor) { "actor_kind" } else { "actor_id" };
            query.push(&format!(" AND {column} = ")).push_bind(actor.as_str());
        }
        if !kinds.is_empty() {
            one_of(&mut query, "type", kinds.iter().map(String::as_str));
        }
        if let Some(session) = session {
            query.push(" AND session = ").push_bind(session.0);
        }
        if let Some(ip) = ip {
            let hash = app_id.as_ref().map(|app_id| self.lookup.ip(app_id, *ip).to_vec());
            query.push(" AND ip = ").push_bind(hash);
        }
        if let Some(email) = email {
            // Not only events that contain the address: a failed login contains none.
            let hash = app_id.as_ref().map(|app_id| self.lookup.email(app_id, email).to_vec());
            query
                .push(" AND person IN (SELECT person FROM audit_log_v2 WHERE email = ")
                .push_bind(hash)
                .push(")");
        }
        if let Some(since) = since {
            query.push(" AND at >= ").push_bind(*since);
        }
        if let Some(until) = until {
            query.push(" AND at < ").push_bind(*until);
        }
        query
    }
}

fn one_of<V: Into<crate::sql::Value>>(
    query: &mut Query,
    column: &'static str,
    values: impl Iterator<Item = V>,
) {
    query.push(&format!(" AND {column} IN ("));
    for (n, value) in values.enumerate() {
        if n > 0 {
            query.push(", ");
        }
        query.push_bind(value);
    }
    query.push(")");
}

fn is_kind(actor: &str) -> bool {
    ["user", "api_key", "system", "anonymous"].contains(&actor)
}
