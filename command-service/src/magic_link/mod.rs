//! Login by a mailed link: requested, followed, and exchanged for tokens.

pub(crate) mod exchange;
pub(crate) mod request;
pub(crate) mod verify;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use crate::CommandService;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().merge(exchange::routes()).merge(request::routes()).merge(verify::routes())
}
