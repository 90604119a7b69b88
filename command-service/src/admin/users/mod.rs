//! Actions of an app's admins and API keys on its users.

mod access_token;
mod ban;
mod change;
mod create;
mod erase;
pub(crate) mod import;
mod roles;
mod sessions;
pub(crate) mod target;
mod unlock;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use crate::CommandService;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new()
        .merge(create::routes())
        .merge(change::routes())
        .merge(ban::routes())
        .merge(erase::routes())
        .merge(import::routes())
        .merge(unlock::routes())
        .merge(roles::routes())
        .merge(sessions::routes())
        .merge(access_token::routes())
}
