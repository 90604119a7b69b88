//! Webhooks: which events of an app are sent where. `effects` sends them.

mod change;
mod create;
mod delete;
mod deliveries;
mod list;
mod parse;
mod replay;
mod test;

use std::sync::Arc;

use domain::claims::ClaimKind;
use domain::webhook::{Webhook, WebhookError, WebhookSettings};
use domain::{AppId, Permission, Timestamp, WebhookId};
use event_store::lookup::webhooks_of;
use http_kit::auth::AdminCaller;
use http_kit::cookies::Credentials;
use http_kit::problem::Problem;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use crate::CommandService;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new()
        .merge(create::routes())
        .merge(list::routes())
        .merge(change::routes())
        .merge(delete::routes())
        .merge(deliveries::routes())
        .merge(replay::routes())
        .merge(test::routes())
}

/// Requires a caller who may manage webhooks. A webhook gives away the events of the app, so that it takes the right to read
/// them, too: nobody gets them by a detour.
async fn authorize(
    service: &CommandService,
    app_id: &AppId,
    credentials: &Credentials,
) -> Result<AdminCaller, Problem> {
    let caller = service.authenticator.admin(app_id, credentials, Permission::SettingsWrite).await?;
    caller.require(Permission::EventsRead)?;
    Ok(caller)
}

/// Where personal data goes is decided by full admins: others neither make nor touch such a webhook.
fn require_may_act_on(caller: &AdminCaller, settings: &WebhookSettings) -> Result<(), Problem> {
    if caller.full_admin || !settings.include_personal {
        return Ok(());
    }
    let detail = "only the platform and admins decide about webhooks that are sent personal data";
    Err(Problem::forbidden().detail(detail))
}

/// The path parameters that identify a webhook.
#[derive(Deserialize)]
struct WebhookSegments {
    webhook_id: Uuid,
}

impl WebhookSegments {
    fn id(&self) -> WebhookId {
        WebhookId(self.webhook_id)
    }
}

/// A webhook, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Webhook)]
struct WebhookBody {
    /// Its id.
    #[schema(value_type = Uuid)]
    id: WebhookId,
    /// Where events are sent.
    #[schema(example = "https://hooks.acme.example/watchword")]
    url: String,
    /// Which events are sent: `*` for all, `user.*` for those of an aggregate, `UserRegistered` for one.
    events: Vec<String>,
    /// Whether anything is sent.
    enabled: bool,
    /// What it is for.
    #[schema(required)]
    description: Option<String>,
    /// Whether personal data is sent, too.
    include_personal: bool,
    /// Since when it had accepted nothing, if it was disabled because of that.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    failing_since: Option<Timestamp>,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl WebhookBody {
    fn of(id: WebhookId, webhook: &Webhook, settings: &WebhookSettings) -> Self {
        Self {
            id,
            url: settings.url.to_string(),
            events: settings.events.iter().map(ToString::to_string).collect(),
            enabled: settings.enabled,
            description: settings.description.clone(),
            include_personal: settings.include_personal,
            failing_since: webhook.failing_since,
            created_at: webhook.created_at,
            updated_at: webhook.updated_at,
        }
    }
}

/// The ids of an app's webhooks, the oldest first. Whether each is one, its events say.
async fn listed(service: &CommandService, app_id: &AppId) -> Result<Vec<WebhookId>, Problem> {
    let prefix = webhooks_of(app_id);
    let claims = service.repository.journal().claims(ClaimKind::Webhook.as_str(), &prefix).await?;
    let ids = claims.iter().filter_map(|(claim, _)| claim.key.strip_prefix(&prefix)?.parse().ok());
    Ok(ids.map(WebhookId).collect())
}

/// A webhook of this app.
async fn shown(
    service: &CommandService,
    app_id: &AppId,
    id: WebhookId,
) -> Result<Option<WebhookBody>, Problem> {
    let webhook = service.repository.load::<Webhook>(&id).await?;
    Ok(webhook.state.of(app_id).map(|settings| WebhookBody::of(id, &webhook.state, settings)))
}

fn refused(error: WebhookError) -> Problem {
    match error {
        WebhookError::Absent => Problem::not_found(),
        WebhookError::Exists => Problem::internal(error),
        WebhookError::Disabled => Problem::new(schemas::problems::WEBHOOK_DISABLED),
    }
}
