//! The commands over HTTP: everything that changes state, and the few reads that must not lag behind.
//!
//! A handler parses a request, looks up facts, and hands a decision to the [`Dispatcher`](dispatcher::Dispatcher), the only place
//! that loads, decides, appends and retries. It answers from what was committed, so that a repeated request with the same
//! `Idempotency-Key` gets the same answer.

mod accounts;
mod admin;
mod api;
mod api_keys;
mod apps;
pub mod bootstrap;
mod callers;
mod checkpoint_keys;
mod erase;
mod housekeeping;
mod imports;
mod invitations;
mod keys;
pub mod locate;
mod magic_link;
mod mailed_tokens;
mod organization_keys;
mod organizations;
mod pages;
pub mod passwords;
mod service;
mod sessions;
mod webhooks;

use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use utoipa_axum::router::OpenApiRouter;

pub use crate::admin::users::import::lines::{ImportLine, ImportLines, MAX_LINE};
pub use crate::apps::CLAIM as APPS;
pub use crate::imports::LineError;
pub use crate::keys::rotation::KeySwitch;
pub use crate::service::{CommandService, Parts, Settings};

impl CommandService {
    /// Builds the service and starts its periodic tasks.
    pub fn start(parts: Parts) -> Arc<Self> {
        let service = Arc::new(Self::new(parts));
        housekeeping::start(&service);
        service
    }

    /// All routes of the service, ready to be merged with others.
    pub fn router(self: Arc<Self>) -> OpenApiRouter<()> {
        // Routes that send mail are limited by address and mailbox, see `mailed_tokens/request.rs`.
        let guessable = OpenApiRouter::new().merge(accounts::guessable()).merge(sessions::guessable());
        guessable
            .layer(from_fn_with_state(Arc::clone(&self), callers::credentials_limit::limit))
            .merge(accounts::routes())
            .merge(admin::routes())
            .merge(api_keys::routes())
            .merge(apps::routes())
            .merge(checkpoint_keys::routes())
            .merge(invitations::routes())
            .merge(keys::routes())
            .merge(magic_link::routes())
            .merge(organization_keys::routes())
            .merge(organizations::routes())
            .merge(pages::routes())
            .merge(sessions::routes())
            .merge(webhooks::routes())
            .with_state(self)
    }
}

#[cfg(test)]
mod tests;
