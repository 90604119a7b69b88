//! Disables a webhook, and has the app's admins told.

use std::time::Duration;

use async_trait::async_trait;
use dispatcher::{DispatchError, Reads, Work};
use domain::app::App;
use domain::user::{User, UserCommand};
use domain::webhook::{Webhook, WebhookCommand};
use domain::{AppId, Role, Timestamp, UserId, WebhookId};
use event_store::StoreError;
use schemas::envelope::{Actor, Metadata};

use super::recording::context;
use super::runner::Shared;

/// How many admins are told of a webhook at most.
pub const ADMINS_TOLD: u32 = 20;

/// How long the search for them may take: it holds up the webhook.
const FINDING: Duration = Duration::from_secs(3);

/// Finds the users of an app who have a role. It may be outdated, and whoever can change it may name anybody: it only says
/// whom to look at. Whether they are admins, their events say.
#[async_trait]
pub trait FindByRole: Send + Sync + 'static {
    /// Some of them, [`ADMINS_TOLD`] at most.
    async fn find(&self, app_id: &AppId, role: &Role) -> Result<Vec<UserId>, StoreError>;
}

impl Shared {
    /// Disables a webhook that has accepted nothing for long. In the same append, a mail to each admin of the app is requested.
    /// Returns whether it is disabled: not while it cannot be found out who they are, or while a store is away.
    pub(super) async fn disable(
        &self,
        app_id: &AppId,
        webhook_id: WebhookId,
        failing_since: Timestamp,
    ) -> bool {
        let at = self.clock.now();
        let metadata = Metadata {
            app_id: app_id.clone(),
            actor: Actor::system(),
            correlation_id: self.clock.new_id(),
            causation_id: None,
            request_id: None,
            traceparent: None,
        };
        let found = match self.candidates(app_id).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(webhook = %webhook_id, %error, "a webhook is not disabled yet: whom to tell is not known");
                return false;
            }
        };
        let (mut reads, webhook) = Reads::one::<Webhook>(&webhook_id);
        let app = reads.of::<App>(app_id);
        let candidates = reads.all::<User>(&found);
        let decide = move |work: &mut Work| {
            work.execute(webhook, WebhookCommand::Disable { failing_since, at })?;
            if work.events().next().is_none() {
                // Somebody else has disabled it.
                return Ok(());
            }
            for admin in &candidates {
                let delivery = work.get(app).settings.delivery;
                if work.get(app).tells(work.get(*admin)) {
                    let tell = UserCommand::TellOfWebhook { webhook_id, failing_since, delivery, at };
                    work.execute(*admin, tell)?;
                }
            }
            Ok(())
        };
        match self.dispatcher.run::<(), NotDisabled, _>(context(metadata, at), reads, decide).await {
            Ok(_) | Err(DispatchError::Refused(_)) => true,
            Err(error) => {
                // Of one webhook, or of one of the admins: the others go on, and the next failed attempt tries again.
                tracing::warn!(webhook = %webhook_id, %error, "a webhook is not disabled yet");
                false
            }
        }
    }

    async fn candidates(&self, app_id: &AppId) -> Result<Vec<UserId>, StoreError> {
        let app = self.repository.load::<App>(app_id).await?;
        match &app.state.settings.admin_role {
            Some(role) => {
                let found = tokio::time::timeout(FINDING, self.admins.find(app_id, role)).await;
                found.map_err(|_| StoreError::Unavailable("the read models do not answer in time".into()))?
            }
            None => Ok(vec![]),
        }
    }
}

/// Why a webhook was not disabled, or an admin not told.
#[derive(Debug, thiserror::Error)]
enum NotDisabled {
    #[error(transparent)]
    Webhook(#[from] domain::webhook::WebhookError),
    #[error(transparent)]
    User(#[from] domain::user::UserError),
}
