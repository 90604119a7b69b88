//! What the admins of an app do: to its users, and to its mails that were given up.

pub(crate) mod mail_failures;
pub(crate) mod password_reset;
pub(crate) mod users;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use crate::CommandService;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().merge(mail_failures::routes()).merge(password_reset::routes()).merge(users::routes())
}
