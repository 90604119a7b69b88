//! Reading webhooks.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http_kit::Page;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Params, Segments};
use http_kit::problem::Problem;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{WebhookBody, WebhookSegments, authorize, listed, shown};
use crate::CommandService;
use crate::api::answers::Done;
use crate::api::pagination::PageParams;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get))
}

type WebhookPage = Page<WebhookBody>;

/// List the webhooks of an app.
///
/// The oldest first, without their secrets. Needs the permissions `settings:write` and `events:read`.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/webhooks", tag = "webhooks", operation_id = "list_webhooks",
    params(("app_id" = String, Path, description = "The app"), PageParams),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The webhooks, oldest first", body = WebhookPage)))]
async fn list(
    State(service): State<Arc<CommandService>>,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Params(page): Params<PageParams>,
) -> Result<Response, Problem> {
    authorize(&service, &app_id, &credentials).await?;
    let page = page.of(listed(&service, &app_id).await?)?;
    let mut items = Vec::with_capacity(page.items.len());
    for id in &page.items {
        // A claim alone does not make a webhook: anybody who can write to the store can forge one.
        items.extend(shown(&service, &app_id, *id).await?);
    }
    Ok(Done::read(page.with(items)))
}

/// Get a webhook.
///
/// Without its secret. Needs the permissions `settings:write` and `events:read`.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/webhooks/{webhook_id}", tag = "webhooks",
    operation_id = "get_webhook",
    params(("app_id" = String, Path, description = "The app"), ("webhook_id" = Uuid, Path, description = "The webhook")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The webhook", body = WebhookBody)))]
async fn get(
    State(service): State<Arc<CommandService>>,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Segments(segments): Segments<WebhookSegments>,
) -> Result<Response, Problem> {
    authorize(&service, &app_id, &credentials).await?;
    let webhook = shown(&service, &app_id, segments.id()).await?;
    Ok(Done::read(webhook.ok_or_else(Problem::not_found)?))
}
