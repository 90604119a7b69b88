//! Revoking an invitation.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Reads, Work};
use domain::InvitationId;
use domain::organization::{Acting, Organization, OrganizationCommand};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::CommandService;
use crate::api::answers::Done;
use crate::organizations::refused;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(revoke))
}

#[derive(Deserialize)]
struct InvitationSegments {
    org_id: Uuid,
    invitation_id: Uuid,
}

/// Revoke an invitation.
///
/// Needs the role `admin` or `owner`, and one that is not below that of the invitation.
#[utoipa::path(delete, path = "/v1/apps/{app_id}/orgs/{org_id}/invitations/{invitation_id}", tag = "organizations",
    operation_id = "revoke_invitation",
    params(("app_id" = String, Path, description = "The app"),
        ("org_id" = Uuid, Path, description = "The organization"),
        ("invitation_id" = Uuid, Path, description = "The invitation")), security(("user" = [])),
    responses((status = 204, description = "The invitation is revoked")))]
async fn revoke(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    Segments(InvitationSegments { org_id, invitation_id }): Segments<InvitationSegments>,
) -> Result<Response, Problem> {
    let caller = service.member_of(&app_id, &credentials, org_id).await?;
    let context = service.context(&request, &app_id, caller.user.actor(), None);
    let (acting, at) = (Acting::User(caller.user.user_id), context.at);
    let invitation_id = InvitationId(invitation_id);
    let revoke = OrganizationCommand::RevokeInvitation { acting, invitation_id, at };
    let (reads, organization) = Reads::one::<Organization>(&caller.organization_id);
    let done = service
        .run_live(&caller.user, context, reads, move |work: &mut Work| {
            work.execute(organization, revoke.clone()).map_err(refused)
        })
        .await?;
    Ok(Done::no_content(done.position))
}
