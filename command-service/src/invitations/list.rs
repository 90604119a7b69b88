//! The open invitations of an organization.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::InvitationId;
use domain::organization::{Acting, Invitation, Rank};
use http_kit::Page;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Params, Segments};
use http_kit::problem::Problem;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::pagination::PageParams;
use crate::invitations::InvitationBody;
use crate::organizations::{OrganizationSegments, refused};

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(list))
}

type InvitationPage = Page<InvitationBody>;

/// List the open invitations of an organization.
///
/// Oldest first. Needs the role `admin` or `owner`.
#[utoipa::path(get, path = "/v1/apps/{app_id}/orgs/{org_id}/invitations", tag = "organizations",
    operation_id = "list_invitations",
    params(("app_id" = String, Path, description = "The app"),
        ("org_id" = Uuid, Path, description = "The organization"), PageParams), security(("user" = [])),
    responses((status = 200, description = "A page of invitations", body = InvitationPage),
        (status = 422, description = "`validation_failed`")))]
async fn list(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    credentials: Credentials,
    Segments(OrganizationSegments { org_id }): Segments<OrganizationSegments>,
    Params(params): Params<PageParams>,
) -> Result<Response, Problem> {
    let caller = service.member_of(&app_id, &credentials, org_id).await?;
    let organization = &caller.organization.state;
    organization.require(Acting::User(caller.user.user_id), Rank::Admin).map_err(refused)?;
    let now = service.clock.now();
    let open = organization.invitations.iter().filter(|(_, invitation)| now < invitation.expires_at);
    let open: Vec<(InvitationId, Invitation)> = open.map(|(id, it)| (*id, it.clone())).collect();
    let page = params.of(open)?;
    let emails = service.invited(caller.organization_id, &page.items).await?;
    let bodies = page.items.iter().zip(&emails);
    let bodies = bodies.map(|((id, invitation), email)| InvitationBody::of(*id, invitation, email.as_ref()));
    let bodies = bodies.collect();
    Ok(Done::read(page.with(bodies)))
}
