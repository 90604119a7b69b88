//! The pages that mails link to.

pub(crate) mod change_password_url;
pub(crate) mod language;
pub(crate) mod page;
pub(crate) mod script;
pub(crate) mod texts;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use crate::CommandService;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().merge(change_password_url::routes()).merge(page::routes())
}
