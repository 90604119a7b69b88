//! Accounts: registered, shown and changed by their owners, and disowned by people who never registered.

pub(crate) mod disown;
pub(crate) mod email_change;
pub(crate) mod email_verification;
pub(crate) mod erase;
pub(crate) mod me;
pub(crate) mod password_change;
pub(crate) mod password_reset;
pub(crate) mod register;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use crate::CommandService;

/// Routes on which passwords can be guessed.
pub(crate) fn guessable() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().merge(register::routes()).merge(password_change::routes()).merge(erase::routes())
}

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new()
        .merge(disown::routes())
        .merge(email_change::routes())
        .merge(email_verification::routes())
        .merge(me::routes())
        .merge(password_reset::routes())
}
