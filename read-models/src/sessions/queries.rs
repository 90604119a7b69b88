//! Queries `sessions`.

use std::sync::Arc;

use domain::{AppId, SessionId, Timestamp, UserId};
use event_store::Sealer;

use crate::database::Database;
use crate::page::{Page, Paging, decode_cursor, encode_cursor};
use crate::rows;
use crate::sql::{Query, Row};
use crate::store::{ReadError, ReadModels};

/// A session as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Its id.
    pub session_id: SessionId,
    /// The user.
    pub user_id: UserId,
    /// The app.
    pub app_id: String,
    /// The login method: `password`, `registration`, `magic_link`, `admin`.
    pub method: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it was last refreshed.
    pub refreshed_at: Timestamp,
    /// When it expires at the latest.
    pub expires_at: Timestamp,
    /// When it expires unless it is refreshed.
    pub idle_expires_at: Timestamp,
    /// The IP address that it came from; `None` once the person is erased.
    pub ip: Option<String>,
    /// The user agent that it came from.
    pub user_agent: Option<String>,
}

/// Of how many people one statement counts the sessions.
const PEOPLE_AT_A_TIME: usize = 500;

/// Queries of `sessions`.
pub struct Sessions<'a> {
    database: Arc<Database>,
    sealer: &'a Sealer,
}

impl<'a> Sessions<'a> {
    pub(crate) fn new(models: &'a ReadModels) -> Self {
        Self { database: models.database_of(super::NAME), sealer: &models.sealer }
    }

    /// A user's sessions that have not ended at this time according to the read model, newest first.
    pub async fn live(
        &self,
        app: &AppId,
        user: UserId,
        at: Timestamp,
        paging: &Paging,
    ) -> Result<Page<SessionRow>, ReadError> {
        let before = match &paging.cursor {
            Some(cursor) => Some(decode_cursor::<16>(cursor).ok_or(ReadError::Cursor)?),
            None => None,
        };
        let select = |what: &str| {
            Query::new(format!(
                "SELECT {what} FROM sessions_v1 WHERE user_id = $1 AND revoked_at IS NULL AND app_id = $2
                   AND expires_at > $3 AND idle_expires_at > $3"
            ))
            .bind(user.0)
            .bind(app.as_str())
            .bind(at)
        };
        let total = self.database.read_number(select("count(*)")).await?;
        let mut query = select("*");
        if let Some(before) = &before {
            query.push(" AND session_id < ").push_bind(before.as_slice());
        }
        // Ids are UUIDs of version 7, so they sort by start.
        query.push(" ORDER BY session_id DESC LIMIT ").push_bind(paging.limit + 1);
        query.push(" OFFSET ").push_bind(if before.is_some() { 0 } else { paging.offset });
        let found = self.database.read(query).await?;
        let limit = paging.limit as usize;
        let mut items = Vec::with_capacity(found.len().min(limit));
        for row in found.iter().take(limit) {
            items.push(self.read(row).await?);
        }
        let more = found.len() > limit;
        let next_cursor = items
            .last()
            .filter(|_| more)
            .map(|last: &SessionRow| encode_cursor(last.session_id.0.as_bytes()));
        Ok(Page { items, total: total.cast_unsigned(), next_cursor })
    }

    /// How many sessions of an app have not ended at this time according to the read model: of everybody, or of these people.
    pub async fn count_live(
        &self,
        app: &AppId,
        people: Option<&[UserId]>,
        at: Timestamp,
    ) -> Result<u64, ReadError> {
        let count = || {
            Query::new(
                "SELECT count(*) FROM sessions_v1 WHERE app_id = $1 AND revoked_at IS NULL AND expires_at > $2
                   AND idle_expires_at > $2",
            )
            .bind(app.as_str())
            .bind(at)
        };
        let Some(people) = people else {
            return Ok(self.database.read_number(count()).await?.cast_unsigned());
        };
        let mut total = 0;
        for some in people.chunks(PEOPLE_AT_A_TIME) {
            let mut query = count();
            query.push(" AND user_id IN (NULL");
            for person in some {
                query.push(", ").push_bind(person.0);
            }
            query.push(")");
            total += self.database.read_number(query).await?.cast_unsigned();
        }
        Ok(total)
    }

    async fn read(&self, row: &Row) -> Result<SessionRow, ReadError> {
        let session_id = rows::id(row.get("session_id")?)?;
        let user_id = UserId(rows::id(row.get("user_id")?)?);
        let sealed: Option<&[u8]> = row.get("sealed")?;
        let personal = rows::open(self.sealer, "sessions_v1", session_id, user_id, sealed).await?;
        if sealed.is_some() && personal.is_empty() {
            // Erased, or their key is missing: those are told apart.
            self.sealer.keys().require_known(user_id).await?;
        }
        Ok(SessionRow {
            session_id: SessionId(session_id),
            user_id,
            app_id: row.get("app_id")?,
            method: row.get("method")?,
            started_at: rows::time(row.get("started_at")?)?,
            refreshed_at: rows::time(row.get("refreshed_at")?)?,
            expires_at: rows::time(row.get("expires_at")?)?,
            idle_expires_at: rows::time(row.get("idle_expires_at")?)?,
            ip: personal.ip,
            user_agent: personal.user_agent,
        })
    }
}
