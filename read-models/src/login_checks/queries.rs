//! Asks `login_checks`.

use domain::{AppId, Email, UserId};
use event_store::LookupKey;
use sqlx::SqlitePool;

use crate::rows;
use crate::store::ReadError;

/// Queries of `login_checks`.
pub struct LoginChecks<'a> {
    pool: &'a SqlitePool,
    lookup: &'a LookupKey,
}

impl<'a> LoginChecks<'a> {
    pub(crate) fn new(pool: &'a SqlitePool, lookup: &'a LookupKey) -> Self {
        Self { pool, lookup }
    }

    /// The user who has this address in the app, as far as this read model knows. When it knows none, the claim
    /// in the journal decides.
    pub async fn find(&self, app: &AppId, email: &Email) -> Result<Option<UserId>, ReadError> {
        let id: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT user_id FROM login_checks_v1 WHERE app_id = ?1 AND email = ?2")
                .bind(app.as_str())
                .bind(&self.lookup.email(app, email)[..])
                .fetch_optional(self.pool)
                .await?;
        Ok(id.map(|id| rows::id(&id)).transpose()?.map(UserId))
    }
}
