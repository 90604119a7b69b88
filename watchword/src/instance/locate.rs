//! Finds the user of an address through the read model, if that is fast enough.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use command_service::locate::{JournalClaims, LocateUser};
use domain::user::User;
use domain::{AppId, Email, UserId};
use event_store::{Repository, StoreError};
use read_models::ReadModels;

use super::stores::Stores;

/// Through the read models, unless another process has them.
pub(super) fn locate(stores: &Stores, repository: &Arc<Repository>) -> Arc<dyn LocateUser> {
    let claims = JournalClaims::new(Arc::clone(repository), Arc::clone(&stores.lookup));
    match &stores.read_models {
        Some(models) => {
            let (models, repository) = (Arc::clone(models), Arc::clone(repository));
            Arc::new(LocateByModel { models, repository, claims })
        }
        None => Arc::new(claims),
    }
}

/// The time limit for the read model. It shares connections with the lists: a costly search must not delay logins, and
/// the claims work without it.
const MODEL_TIME: Duration = Duration::from_millis(50);

/// Finds users through the read model, which leaves the journal's readers to the commands. A row may be stale, so it
/// counts only if its user has the address; otherwise the journal's claim decides.
struct LocateByModel {
    models: Arc<ReadModels>,
    repository: Arc<Repository>,
    claims: JournalClaims,
}

#[async_trait]
impl LocateUser for LocateByModel {
    async fn locate(&self, app_id: &AppId, email: &Email) -> Result<Option<UserId>, StoreError> {
        let found = tokio::time::timeout(MODEL_TIME, self.models.login_checks().find(app_id, email)).await;
        let found = found.unwrap_or(Ok(None)).unwrap_or_else(|error| {
            tracing::warn!(%error, "the login_checks read model cannot be read");
            None
        });
        if let Some(user_id) = found {
            let user = self.repository.load::<User>(&user_id).await?;
            if user.state.is_of(app_id) && user.state.email.as_ref() == Some(email) {
                return Ok(Some(user_id));
            }
        }
        self.claims.locate(app_id, email).await
    }
}
