//! An app's organizations and their members, as its admins and API keys see them.

mod list;
mod members;
mod of_user;
mod one;

use std::sync::Arc;

use domain::AppId;
use domain::organization::{Organization, OrganizationId};
use event_store::Loaded;
use http_kit::{Moment, Problem};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use crate::ProjectionService;

pub(crate) fn routes() -> OpenApiRouter<Arc<ProjectionService>> {
    OpenApiRouter::new()
        .merge(list::routes())
        .merge(one::routes())
        .merge(members::routes())
        .merge(of_user::routes())
}

/// The organization in a path.
#[derive(Deserialize)]
struct OneOrganization {
    org_id: Uuid,
}

/// The organization, decided from the log: one of another app, or a deleted one, counts as absent.
async fn existing(
    service: &ProjectionService,
    app_id: &AppId,
    id: OrganizationId,
) -> Result<Arc<Loaded<Organization>>, Problem> {
    let organization = service.repository.load::<Organization>(&id).await?;
    if organization.state.is_of(app_id) { Ok(organization) } else { Err(Problem::not_found()) }
}

/// The organization as of a moment.
async fn as_of(
    service: &ProjectionService,
    app_id: &AppId,
    id: OrganizationId,
    moment: Moment,
) -> Result<Organization, Problem> {
    let organization = service.repository.load_as_of::<Organization>(&id, moment.position).await?;
    if organization.state.is_of(app_id) { Ok(organization.state) } else { Err(Problem::not_found()) }
}
