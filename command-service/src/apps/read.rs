//! Reading apps.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::app::App;
use domain::{AppId, AppSettings, Timestamp};
use http_kit::Page;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Params};
use http_kit::openapi::app_settings;
use http_kit::problem::Problem;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::pagination::PageParams;
use crate::apps::CLAIM;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(read))
}

type AppPage = Page<AppBody>;

/// An app.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = App)]
pub(crate) struct AppBody {
    /// Its id.
    #[schema(value_type = String, example = "acme")]
    app_id: AppId,
    /// The name shown to people.
    name: String,
    /// All of its settings.
    #[schema(schema_with = app_settings)]
    settings: AppSettings,
    /// Whether the app is disabled.
    disabled: bool,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl AppBody {
    pub(super) fn of(app_id: &AppId, app: &App) -> Self {
        Self {
            app_id: app_id.clone(),
            name: app.name.clone(),
            settings: app.settings.clone(),
            disabled: app.disabled,
            created_at: app.created_at,
            updated_at: app.updated_at,
        }
    }
}

/// List the apps.
///
/// Ordered by id. Needs a platform key.
#[utoipa::path(get, path = "/v1/apps", tag = "platform", operation_id = "list_apps", params(PageParams),
    security(("api_key" = [])),
    responses((status = 200, description = "The apps, ordered by id", body = AppPage)))]
async fn list(
    State(service): State<Arc<CommandService>>,
    credentials: Credentials,
    Params(page): Params<PageParams>,
) -> Result<Response, Problem> {
    service.authenticator.platform(&credentials).await?;
    let claims = service.repository.journal().claims(CLAIM, "").await?;
    let ids = claims.into_iter().filter_map(|(claim, _)| AppId::parse(claim.key).ok());
    let mut ids = ids.filter(|id| !id.is_platform()).collect::<Vec<_>>();
    ids.sort();
    let page = page.of(ids)?;
    let mut items = Vec::with_capacity(page.items.len());
    for id in &page.items {
        let app = service.repository.load::<App>(id).await?;
        // A claim alone does not make an app: anybody who can write to the store can forge one.
        if app.state.id.is_some() {
            items.push(AppBody::of(id, &app.state));
        }
    }
    Ok(Done::read(page.with(items)))
}

/// Get an app.
///
/// Shown with all settings, defaults included. For the platform, any API key of the app, and the app's admins.
#[utoipa::path(get, path = "/v1/apps/{app_id}", tag = "platform", operation_id = "get_app",
    params(("app_id" = String, Path, description = "The app")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The app", body = AppBody)))]
async fn read(
    State(service): State<Arc<CommandService>>,
    credentials: Credentials,
    AppScope(app_id): AppScope,
) -> Result<Response, Problem> {
    service.authenticator.any_admin(&app_id, &credentials).await?;
    let app = service.authenticator.existing_app(&app_id).await?;
    Ok(Done::read(AppBody::of(&app_id, &app.state)))
}

pub(super) async fn answer(
    service: &CommandService,
    app_id: &AppId,
    position: u64,
) -> Result<Response, Problem> {
    let app = service.repository.load::<App>(app_id).await?;
    Ok(Done::ok(position, AppBody::of(app_id, &app.state)))
}
