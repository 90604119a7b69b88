//! Inviting somebody, as an admin or a server of the app.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Committed, Reads, Work};
use domain::Permission;
use domain::mail::mails_of;
use domain::organization::{Inviter, Organization};
use domain::role_templates::RoleTemplates;
use domain::{Event, OrganizationId};
use http_kit::auth::Caller;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body, Segments};
use http_kit::limits::Asker;
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::invitations::invite::{NewInvitation, Sent, invited};
use crate::invitations::{InvitationBody, invited_in};
use crate::organizations::OrganizationSegments;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(invite))
}

/// A new invitation.
#[derive(Serialize, ToSchema)]
pub(crate) struct IssuedInvitation {
    #[serde(flatten)]
    invitation: InvitationBody,
    /// The token that the mail would carry, in an app that delivers its mails itself; otherwise absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "wwi_…")]
    token: Option<String>,
}

/// Invite somebody to any organization of the app.
///
/// In an app that delivers its mails itself (`delivery: "app"`), the answer has the token for the link; otherwise a mail is
/// sent. It ends with the rights of whoever made it: when their API key is revoked or their role taken. Needs the permission
/// `orgs:write`.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/orgs/{org_id}/invitations", tag = "admin",
    operation_id = "issue_invitation",
    params(("app_id" = String, Path, description = "The app"),
        ("org_id" = Uuid, Path, description = "The organization")), security(("api_key" = []), ("user" = [])),
    request_body = NewInvitation,
    responses((status = 201, description = "The invitation", body = IssuedInvitation),
        (status = 409, description = "`too_many_invitations`"),
        (status = 422, description = "`invalid_email`, `validation_failed`"),
        (status = 429, description = "`rate_limited`: too many requests, or too many invitations to this address")))]
async fn invite(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    Segments(OrganizationSegments { org_id }): Segments<OrganizationSegments>,
    body: Result<Body<NewInvitation>, Problem>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.admin(&app_id, &credentials, Permission::OrgsWrite).await?;
    let organization_id = OrganizationId(org_id);
    let found = service.repository.load::<Organization>(&organization_id).await?;
    if !found.state.is_of(&app_id) {
        return Err(Problem::not_found());
    }
    let Body { value: body, idempotency } = body?;
    let (email, role) = body.parse()?;
    let app = service.authenticator.existing_app(&app_id).await?;
    let mut context = service.context(&request, &app_id, caller.actor.clone(), idempotency);
    if let Some(done) = service.dispatcher.replayed::<(), Problem>(&mut context).await? {
        return service.issued(&done);
    }
    let (inviter, asker) = match &caller.caller {
        Caller::User(user) => (Inviter::Admin(user.user_id), Asker::User(user.user_id)),
        Caller::ApiKey { key_id, .. } => (Inviter::Key(*key_id), Asker::Server(*key_id)),
    };
    let invite = service.prepare(&app_id, &app.state.settings, inviter, (email, role), &context).await?;
    let email = invite.email.clone();
    let sent = Sent { app_id: &app_id, organization_id, email, asker };
    let done = sent
        .counted(&service, async {
            let (mut reads, organization) = Reads::one::<Organization>(&organization_id);
            let templates = reads.of::<RoleTemplates>(&app_id);
            service
                .run_as(&caller, context, reads, move |work: &mut Work| {
                    invited(work, (organization, templates), &invite)
                })
                .await
        })
        .await?;
    service.issued(&done)
}

impl CommandService {
    fn issued(&self, done: &Committed<()>) -> Result<Response, Problem> {
        let event = invited_in(&done.events)
            .ok_or_else(|| Problem::internal("no event says that the invitation was made"))?;
        // What is mailed is handed to nobody.
        let is_handed_out = |event: &&Event| mails_of(event).is_empty();
        let token = done.events.iter().find(is_handed_out).and_then(|event| self.tokens.of_event(event));
        let invitation = InvitationBody::of_event(event);
        Ok(Done::created(done.position, IssuedInvitation { invitation, token }))
    }
}
