//! The list of an app's organizations.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::Permission;
use http_kit::answers::AppOrganizationBody;
use http_kit::cookies::Credentials;
use http_kit::problem::both;
use http_kit::{AfterToken, AppScope, Page, Params, Problem};
use read_models::organizations::{OrganizationFilter, OrganizationRow, OrganizationSort};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ProjectionService;
use crate::answers::{answer, page_of, paging, refused, search_text};

pub(super) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
enum Sort {
    #[serde(rename = "created_at")]
    CreatedAt,
    #[default]
    #[serde(rename = "-created_at")]
    CreatedAtDescending,
    #[serde(rename = "updated_at")]
    UpdatedAt,
    #[serde(rename = "-updated_at")]
    UpdatedAtDescending,
    #[serde(rename = "name")]
    Name,
    #[serde(rename = "-name")]
    NameDescending,
}

impl From<Sort> for OrganizationSort {
    fn from(sort: Sort) -> Self {
        match sort {
            Sort::CreatedAt => Self::CreatedAt,
            Sort::CreatedAtDescending => Self::CreatedAtDescending,
            Sort::UpdatedAt => Self::UpdatedAt,
            Sort::UpdatedAtDescending => Self::UpdatedAtDescending,
            Sort::Name => Self::Name,
            Sort::NameDescending => Self::NameDescending,
        }
    }
}

type AppOrganizationPage = Page<AppOrganizationBody>;

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListOrganizations {
    /// Prefixes of words of the name or the slug, without regard to case and accents.
    query: Option<String>,
    /// The order; newest first by default.
    #[param(inline)]
    sort: Option<Sort>,
    /// The maximum number of items: 1 to 200, 20 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// How many items to skip: at most 10 000.
    #[param(minimum = 0, maximum = 10000)]
    offset: Option<i64>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
}

/// List an app's organizations.
///
/// Newest first unless `sort` says otherwise. With `query`, `total` counts at most 10 000. Needs the permission `orgs:read`.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/orgs", tag = "admin", operation_id = "list_organizations",
    security(("user" = []), ("api_key" = [])),
    params(("app_id" = String, Path, description = "The app"), AfterToken, ListOrganizations),
    responses((status = 200, description = "A page of organizations", body = AppOrganizationPage),
        (status = 422, description = "`validation_failed`")))]
async fn list(
    State(service): State<Arc<ProjectionService>>,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    token: AfterToken,
    Params(params): Params<ListOrganizations>,
) -> Result<Response, Problem> {
    service.authenticator.admin(&app_id, &credentials, Permission::OrgsRead).await?;
    let paging = paging(params.limit, params.offset, params.cursor);
    let (query, paging) = both(search_text(params.query), paging)?;
    let filter = OrganizationFilter { query, sort: params.sort.unwrap_or_default().into() };
    service.wait_for_token(read_models::organizations::NAME, token).await?;
    let page = service.models.organizations().list(&app_id, &filter, &paging).await.map_err(refused)?;
    Ok(answer(page_of(page.map(body))))
}

fn body(row: OrganizationRow) -> AppOrganizationBody {
    let OrganizationRow { id, app_id, name, slug, member_count, created_at, updated_at } = row;
    AppOrganizationBody { id: id.0, app_id, name, slug, member_count, created_at, updated_at }
}
