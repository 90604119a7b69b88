//! API keys of an app: their permissions are in the log; their text is derived and stored nowhere.

mod issue;
mod list;
mod revoke;

use std::sync::Arc;

use domain::{AppId, Permission};
use http_kit::auth::AdminCaller;
use http_kit::cookies::Credentials;
use http_kit::problem::Problem;
use schemas::problems;
use utoipa_axum::router::OpenApiRouter;

use crate::CommandService;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().merge(list::routes()).merge(issue::routes()).merge(revoke::routes())
}

/// Requires a caller who may manage the keys of this app. Platform keys are managed here too, by platform keys.
async fn authorize(
    service: &CommandService,
    app_id: &AppId,
    credentials: &Credentials,
) -> Result<AdminCaller, Problem> {
    if !app_id.is_platform() {
        return service.authenticator.admin(app_id, credentials, Permission::KeysWrite).await;
    }
    match service.authenticator.platform(credentials).await {
        // To other callers the platform's app does not exist.
        Err(problem) if problem.kind() == problems::FORBIDDEN => Err(Problem::not_found()),
        result => result,
    }
}
