//! Revoking API keys.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::Reads;
use domain::ApiKeyId;
use domain::app::{ApiKey, App, AppCommand};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api_keys::authorize;
use crate::apps::refused;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(revoke))
}

/// Revoke an API key.
///
/// A key can revoke only keys whose permissions it has itself.
#[utoipa::path(delete, path = "/v1/apps/{app_id}/admin/api-keys/{key_id}", tag = "keys", operation_id = "revoke_api_key",
    params(("app_id" = String, Path, description = "The app"), ("key_id" = Uuid, Path, description = "The key's id")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 204, description = "The key is revoked")))]
async fn revoke(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Segments(segments): Segments<KeySegments>,
) -> Result<Response, Problem> {
    let caller = authorize(&service, &app_id, &credentials).await?;
    let context = service.context(&request, &app_id, caller.actor.clone(), None);
    let at = context.at;
    let key_id = ApiKeyId(segments.key_id);
    let maker = caller.clone();
    let (reads, app_at) = Reads::one::<App>(&app_id);
    let committed = service
        .run_as(&maker, context, reads, move |work| {
            let wider = |key: &ApiKey| !key.permissions.is_subset(&caller.permissions);
            if !caller.full_admin && work.get(app_at).api_keys.get(&key_id).is_some_and(wider) {
                return Err(
                    Problem::forbidden().detail("a key can revoke only keys whose permissions it has itself")
                );
            }
            work.execute(app_at, AppCommand::RevokeApiKey { key_id, at }).map_err(refused)
        })
        .await
        .map_err(Problem::from)?;
    Ok(Done::no_content(committed.position))
}

#[derive(Deserialize)]
struct KeySegments {
    key_id: Uuid,
}
