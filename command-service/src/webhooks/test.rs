//! Sending a webhook a message that is about nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use domain::delivery::WebhookFailure;
use domain::webhook::Webhook;
use domain::{Stream, WebhookId};
use effects::outbound::NoAnswer;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, NoBody, Segments};
use http_kit::problem::Problem;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{WebhookSegments, authorize, require_may_act_on};
use crate::CommandService;
use crate::api::answers::Done;

/// How long the answer is waited for: less than a request may take.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(test))
}

/// What became of a test message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WebhookTest {
    /// Whether the webhook accepted it.
    delivered: bool,
    /// Why it did not; null if it did.
    #[schema(required, value_type = Option<String>, example = "status")]
    reason: Option<WebhookFailure>,
    /// The status of its answer, if it is not 2xx.
    #[schema(required)]
    status_code: Option<u16>,
    /// The same for people.
    #[schema(required, example = "it answered with status 404")]
    detail: Option<String>,
}

/// Test a webhook.
///
/// Sends a message of the type `WebhookTest`, signed as all others, even if the webhook is disabled, and says what became of
/// it. It is no event, and is not repeated. Needs the permissions `settings:write` and `events:read`; a webhook with personal
/// data needs the platform or an admin.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/webhooks/{webhook_id}/test", tag = "webhooks",
    operation_id = "test_webhook",
    params(("app_id" = String, Path, description = "The app"), ("webhook_id" = Uuid, Path, description = "The webhook")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "What became of the message", body = WebhookTest)))]
async fn test(
    State(service): State<Arc<CommandService>>,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Segments(segments): Segments<WebhookSegments>,
    body: Result<NoBody, Problem>,
) -> Result<Response, Problem> {
    let caller = authorize(&service, &app_id, &credentials).await?;
    body?;
    let id: WebhookId = segments.id();
    let webhook = service.repository.load::<Webhook>(&id).await?;
    let settings = webhook.state.of(&app_id).ok_or_else(Problem::not_found)?;
    require_may_act_on(&caller, settings)?;
    let message_id = service.clock.new_id();
    let message = json!({
        "specversion": "1.0",
        "id": message_id,
        "source": format!("/v1/apps/{app_id}"),
        "type": "WebhookTest",
        "time": service.clock.now(),
        "subject": Webhook::stream(&id).as_str(),
        "datacontenttype": "application/json",
        "appid": app_id,
        "data": { "webhook_id": id },
    });
    let sending = service.webhook_messages.send(id, &settings.url, message_id, message.to_string());
    let sent = tokio::time::timeout(PATIENCE, sending).await;
    let failure = sent.unwrap_or_else(|_| Err(NoAnswer::Timeout.into())).err();
    Ok(Done::read(WebhookTest {
        delivered: failure.is_none(),
        reason: failure.as_ref().map(|failure| failure.reason),
        status_code: failure.as_ref().and_then(|failure| failure.status),
        detail: failure.map(|failure| failure.detail),
    }))
}
