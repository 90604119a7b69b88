//! Reading apps.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use domain::app::App;
use domain::{AppId, AppSettings, Timestamp};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Params};
use http_kit::openapi::app_settings;
use http_kit::problem::Problem;
use http_kit::{AsOfParams, Page};
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
/// Shown with all settings, defaults included. With `as_of`, the app as of then: 404 before it was created. The header
/// `As-Of-Position` names the last event that counts. For the platform, any API key of the app, and the app's admins.
#[utoipa::path(get, path = "/v1/apps/{app_id}", tag = "platform", operation_id = "get_app",
    params(("app_id" = String, Path, description = "The app"), AsOfParams),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The app", body = AppBody),
        (status = 422, description = "`validation_failed`")))]
async fn read(
    State(service): State<Arc<CommandService>>,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Params(AsOfParams { as_of }): Params<AsOfParams>,
) -> Result<Response, Problem> {
    service.authenticator.any_admin(&app_id, &credentials).await?;
    let app = service.authenticator.existing_app(&app_id).await?;
    let Some(as_of) = as_of else { return Ok(Done::read(AppBody::of(&app_id, &app.state))) };
    let moment = as_of.find(&service.repository, &*service.clock).await?;
    let app = service.repository.load_as_of::<App>(&app_id, moment.position).await?;
    if app.state.id.is_none() {
        return Err(Problem::not_found());
    }
    Ok((moment, Done::read(AppBody::of(&app_id, &app.state))).into_response())
}

pub(super) async fn answer(
    service: &CommandService,
    app_id: &AppId,
    position: u64,
) -> Result<Response, Problem> {
    let app = service.repository.load::<App>(app_id).await?;
    Ok(Done::ok(position, AppBody::of(app_id, &app.state)))
}
