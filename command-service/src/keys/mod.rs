//! The keys that sign access tokens: their rotation, and their publication to verifiers.

pub(crate) mod jwks;
pub(crate) mod rotation;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use crate::CommandService;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().merge(jwks::routes()).merge(rotation::routes())
}
