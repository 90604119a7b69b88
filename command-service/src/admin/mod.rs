//! Actions of an app's admins: on its users and organizations, and on mails that could not be delivered.

pub(crate) mod mail_failures;
pub(crate) mod organizations;
pub(crate) mod password_reset;
pub(crate) mod users;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use crate::CommandService;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new()
        .merge(mail_failures::routes())
        .merge(password_reset::routes())
        .merge(users::routes())
        .merge(organizations::routes())
}
