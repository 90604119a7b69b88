//! The list of API keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::app::{ApiKey, App};
use domain::{ApiKeyId, Permission, Timestamp};
use http_kit::Page;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Params};
use http_kit::problem::Problem;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::pagination::PageParams;
use crate::api_keys::authorize;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(list))
}

type ApiKeyPage = Page<ApiKeyBody>;

/// An API key, without its text.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(crate) struct ApiKeyBody {
    /// Its id, which is not secret.
    #[schema(value_type = Uuid)]
    pub(super) id: ApiKeyId,
    /// The name of the key.
    pub(super) name: String,
    /// Its permissions.
    #[schema(schema_with = http_kit::openapi::permissions)]
    pub(super) permissions: BTreeSet<Permission>,
    /// When it was issued.
    #[schema(value_type = String, format = DateTime)]
    pub(super) created_at: Timestamp,
    /// When it expires.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub(super) expires_at: Option<Timestamp>,
}

/// List the API keys of an app.
///
/// Keys that are neither revoked nor expired, oldest first, without their texts. Needs the permission `keys:write`.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/api-keys", tag = "keys", operation_id = "list_api_keys",
    params(("app_id" = String, Path, description = "The app"), PageParams),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The keys, oldest first, without their texts", body = ApiKeyPage)))]
async fn list(
    State(service): State<Arc<CommandService>>,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Params(page): Params<PageParams>,
) -> Result<Response, Problem> {
    authorize(&service, &app_id, &credentials).await?;
    let app = service.repository.load::<App>(&app_id).await?;
    let now = service.clock.now();
    let live = app.state.api_keys.iter().filter(|(_, key)| key.is_live(now));
    Ok(Done::read(page.of(live.map(|(id, key)| ApiKeyBody::of(*id, key)).collect())?))
}

impl ApiKeyBody {
    fn of(id: ApiKeyId, key: &ApiKey) -> Self {
        Self {
            id,
            name: key.name.clone(),
            permissions: key.permissions.clone(),
            created_at: key.created_at,
            expires_at: key.expires_at,
        }
    }
}
