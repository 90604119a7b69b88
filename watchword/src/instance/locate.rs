//! Who has an address, by the read model as long as that is quick.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use command_service::locate::{JournalClaims, LocateUser};
use domain::user::User;
use domain::{AppId, Email, UserId};
use event_store::{Repository, StoreError};
use read_models::ReadModels;

use super::stores::Stores;

/// By the read models, unless they are other processes'.
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

/// How long the read model may take. Its connections are those of the lists, too: a costly search must not hold up
/// logins, and the claims answer without it.
const MODEL_TIME: Duration = Duration::from_millis(50);

/// Finds users by the read model, so that logins leave the journal's readers to the commands. A row can be behind, so
/// one counts only if its user has the address; whatever else happens, the journal's claim decides.
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
