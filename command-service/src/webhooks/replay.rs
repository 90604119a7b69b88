//! Sending a webhook earlier events.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::Reads;
use domain::webhook::{Webhook, WebhookCommand};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::field_codes;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{WebhookSegments, authorize, refused, require_may_act_on};
use crate::CommandService;
use crate::api::answers::Done;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(replay))
}

/// Where to begin.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookReplay {
    /// The position of the first event: 1 or greater, and not beyond the newest event.
    #[schema(minimum = 1, example = 21)]
    from_position: u64,
}

/// Replay events to a webhook.
///
/// Sends it the events from a position on that match, in their order: again, or for the first time if they are older than the
/// webhook or happened while it was disabled. Needs the permissions `settings:write` and `events:read`; a webhook with
/// personal data needs the platform or an admin.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/webhooks/{webhook_id}/replay", tag = "webhooks",
    operation_id = "replay_webhook", request_body = WebhookReplay,
    params(("app_id" = String, Path, description = "The app"), ("webhook_id" = Uuid, Path, description = "The webhook")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 204, description = "The events are sent"),
        (status = 409, description = "`webhook_disabled`"), (status = 422, description = "`validation_failed`")))]
async fn replay(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Segments(segments): Segments<WebhookSegments>,
    body: Result<Body<WebhookReplay>, Problem>,
) -> Result<Response, Problem> {
    let caller = authorize(&service, &app_id, &credentials).await?;
    let Body { value: WebhookReplay { from_position }, idempotency } = body?;
    let id = segments.id();
    let webhook = service.repository.load::<Webhook>(&id).await?;
    webhook.state.of(&app_id).ok_or_else(Problem::not_found)?;
    if !(1..=service.repository.journal().head().await?).contains(&from_position) {
        let detail = "the position of an event";
        return Err(Problem::invalid("/from_position", field_codes::OUT_OF_RANGE, detail));
    }
    let context = service.context(&request, &app_id, caller.actor.clone(), idempotency);
    let at = context.at;
    let (reads, webhook) = Reads::one::<Webhook>(&id);
    let maker = caller.clone();
    let committed = service
        .run_as(&maker, context, reads, move |work| {
            let settings = work.get(webhook).of(&app_id).ok_or_else(Problem::not_found)?;
            require_may_act_on(&caller, settings)?;
            work.execute(webhook, WebhookCommand::Replay { from_position, at }).map_err(refused)
        })
        .await
        .map_err(Problem::from)?;
    Ok(Done::no_content(committed.position))
}
