//! Disabling and enabling apps, by the platform.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::Reads;
use domain::app::{App, AppCommand};
use domain::{AppId, Timestamp};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, NoBody};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::apps::read::{AppBody, answer};
use crate::apps::refused;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(disable)).routes(routes!(enable))
}

/// Disable an app.
///
/// Logins, tokens and API keys of the app are refused until it is enabled again. Needs a platform key.
#[utoipa::path(post, path = "/v1/apps/{app_id}/disable", tag = "platform", operation_id = "disable_app",
    params(("app_id" = String, Path, description = "The app")),
    security(("api_key" = [])),
    responses((status = 200, description = "The app as it is now", body = AppBody)))]
async fn disable(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    body: Result<NoBody, Problem>,
) -> Result<Response, Problem> {
    switch(&service, &request, &credentials, app_id, body, |at| AppCommand::Disable { at }).await
}

/// Enable a disabled app.
///
/// Tokens and API keys that have not expired meanwhile are accepted again. Needs a platform key.
#[utoipa::path(post, path = "/v1/apps/{app_id}/enable", tag = "platform", operation_id = "enable_app",
    params(("app_id" = String, Path, description = "The app")),
    security(("api_key" = [])),
    responses((status = 200, description = "The app as it is now", body = AppBody)))]
async fn enable(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    body: Result<NoBody, Problem>,
) -> Result<Response, Problem> {
    switch(&service, &request, &credentials, app_id, body, |at| AppCommand::Enable { at }).await
}

async fn switch(
    service: &CommandService,
    request: &RequestContext,
    credentials: &Credentials,
    app_id: AppId,
    body: Result<NoBody, Problem>,
    command: impl Fn(Timestamp) -> AppCommand + Send + 'static,
) -> Result<Response, Problem> {
    let caller = service.authenticator.platform(credentials).await?;
    service.authenticator.existing_app(&app_id).await?;
    let NoBody { idempotency } = body?;
    let context = service.context(request, &app_id, caller.actor.clone(), idempotency);
    let at = context.at;
    let (reads, app_at) = Reads::one::<App>(&app_id);
    let committed = service
        .run_as(&caller, context, reads, move |work| work.execute(app_at, command(at)).map_err(refused))
        .await
        .map_err(Problem::from)?;
    answer(service, &app_id, committed.position).await
}
