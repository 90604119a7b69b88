//! Queries `login_checks`.

use std::sync::Arc;

use domain::{AppId, Email, UserId};
use event_store::LookupKey;

use crate::database::Database;
use crate::rows;
use crate::sql::Query;
use crate::store::{ReadError, ReadModels};

/// Queries of `login_checks`.
pub struct LoginChecks<'a> {
    database: Arc<Database>,
    lookup: &'a LookupKey,
}

impl<'a> LoginChecks<'a> {
    pub(crate) fn new(models: &'a ReadModels) -> Self {
        Self { database: models.database_of(super::NAME), lookup: &models.lookup }
    }

    /// The user who has this address in the app, according to this read model. If it knows none, the claim in the
    /// journal decides.
    pub async fn find(&self, app: &AppId, email: &Email) -> Result<Option<UserId>, ReadError> {
        let query = Query::new("SELECT user_id FROM login_checks_v1 WHERE app_id = $1 AND email = $2")
            .bind(app.as_str())
            .bind(self.lookup.email(app, email).as_slice());
        let found = self.database.read(query).await?;
        let Some(row) = found.first() else { return Ok(None) };
        Ok(Some(UserId(rows::id(row.get(0)?)?)))
    }
}
