//! The list of API keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use domain::app::{ApiKey, App};
use domain::{ApiKeyId, Permission, Timestamp};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Params};
use http_kit::problem::Problem;
use http_kit::{AsOf, Page};
use serde::{Deserialize, Serialize};
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

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListKeys {
    /// The maximum number of items: 1 to 200, 20 if absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// How many items to skip: at most 10 000.
    #[param(minimum = 0, maximum = 10000)]
    offset: Option<i64>,
    /// The `next_cursor` of the previous page, instead of an offset.
    cursor: Option<String>,
    /// A time, or a position of the log: the keys that were valid then.
    #[param(value_type = Option<String>, example = "2026-01-31T09:30:00Z")]
    as_of: Option<AsOf>,
}

/// List the API keys of an app.
///
/// Keys that are neither revoked nor expired, oldest first, without their texts. With `as_of`, those that were valid then:
/// the header `As-Of-Position` names the last event that counts. Needs the permission `keys:write`.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/api-keys", tag = "keys", operation_id = "list_api_keys",
    params(("app_id" = String, Path, description = "The app"), ListKeys),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The keys, oldest first, without their texts", body = ApiKeyPage),
        (status = 422, description = "`validation_failed`")))]
async fn list(
    State(service): State<Arc<CommandService>>,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Params(params): Params<ListKeys>,
) -> Result<Response, Problem> {
    authorize(&service, &app_id, &credentials).await?;
    let ListKeys { limit, offset, cursor, as_of } = params;
    let page = PageParams { limit, offset, cursor };
    let live = |app: &App, at: Timestamp| {
        let live = app.api_keys.iter().filter(|(_, key)| key.is_live(at));
        page.of(live.map(|(id, key)| ApiKeyBody::of(*id, key)).collect())
    };
    let Some(as_of) = as_of else {
        let app = service.repository.load::<App>(&app_id).await?;
        return Ok(Done::read(live(&app.state, service.clock.now())?));
    };
    let moment = as_of.find(&service.repository, &*service.clock).await?;
    let app = service.repository.load_as_of::<App>(&app_id, moment.position).await?;
    if app.version == 0 {
        return Err(Problem::not_found());
    }
    Ok((moment, Done::read(live(&app.state, moment.at)?)).into_response())
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
