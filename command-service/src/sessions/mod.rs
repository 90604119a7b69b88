//! Sessions: started by a login, refreshed, introspected and ended.

pub(crate) mod active_organization;
pub(crate) mod end;
pub(crate) mod introspection;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod refresh;
pub(crate) mod revoke;
pub(crate) mod tokens;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use crate::CommandService;

/// Routes on which passwords can be guessed.
pub(crate) fn guessable() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().merge(login::routes())
}

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new()
        .merge(active_organization::routes())
        .merge(introspection::routes())
        .merge(logout::routes())
        .merge(refresh::routes())
        .merge(revoke::routes())
}
