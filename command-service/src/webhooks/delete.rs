//! Deleting webhooks.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::Reads;
use domain::webhook::{Webhook, WebhookCommand};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{WebhookSegments, authorize, refused, require_may_act_on};
use crate::CommandService;
use crate::api::answers::Done;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(delete))
}

/// Delete a webhook.
///
/// Nothing more is sent to it; a request in progress ends. Needs the permissions `settings:write` and `events:read`; a
/// webhook with personal data needs the platform or an admin.
#[utoipa::path(delete, path = "/v1/apps/{app_id}/admin/webhooks/{webhook_id}", tag = "webhooks",
    operation_id = "delete_webhook",
    params(("app_id" = String, Path, description = "The app"), ("webhook_id" = Uuid, Path, description = "The webhook")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 204, description = "The webhook is deleted")))]
async fn delete(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Segments(segments): Segments<WebhookSegments>,
) -> Result<Response, Problem> {
    let caller = authorize(&service, &app_id, &credentials).await?;
    let context = service.context(&request, &app_id, caller.actor.clone(), None);
    let at = context.at;
    let (reads, webhook) = Reads::one::<Webhook>(&segments.id());
    let maker = caller.clone();
    let committed = service
        .run_as(&maker, context, reads, move |work| {
            let before = work.get(webhook).of(&app_id).ok_or_else(Problem::not_found)?;
            require_may_act_on(&caller, before)?;
            work.execute(webhook, WebhookCommand::Delete { at }).map_err(refused)
        })
        .await
        .map_err(Problem::from)?;
    Ok(Done::no_content(committed.position))
}
