//! API keys of organizations: made and revoked by their owners and admins, checked by introspection.
//!
//! Their text is derived and stored nowhere. Watchword itself accepts them nowhere.

mod issue;
mod list;
mod revoke;

use std::sync::Arc;

use domain::organization::OrganizationKey;
use domain::{OrganizationKeyId, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use crate::CommandService;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().merge(issue::routes()).merge(list::routes()).merge(revoke::routes())
}

/// An API key of an organization, without its text.
#[derive(Serialize, ToSchema)]
#[schema(as = OrganizationApiKey)]
pub(crate) struct OrganizationKeyBody {
    /// Its id, which is not secret.
    id: Uuid,
    /// The name of the key.
    name: String,
    /// What it allows in the app: names of the app's own.
    permissions: Vec<String>,
    /// The member who made it. Null if the app did.
    #[schema(required)]
    created_by: Option<Uuid>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it expires.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

impl OrganizationKeyBody {
    fn of(id: OrganizationKeyId, key: &OrganizationKey) -> Self {
        Self {
            id: id.0,
            name: key.name.clone(),
            permissions: key.permissions.iter().map(ToString::to_string).collect(),
            created_by: key.issued_by.map(|user_id| user_id.0),
            created_at: key.at,
            expires_at: key.expires_at,
        }
    }
}
