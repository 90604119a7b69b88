//! Invitations to organizations: made, listed, revoked and accepted.

mod accept;
mod by_app;
mod invite;
mod list;
mod presented;
mod revoke;

use std::sync::Arc;

use domain::organization::{Invitation, MemberInvited, Organization, OrganizationEvent};
use domain::{Email, Event, InvitationId, OrganizationId, Stream, Timestamp};
use http_kit::problem::Problem;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

pub(crate) use self::presented::Presented;
use crate::CommandService;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new()
        .merge(invite::routes())
        .merge(list::routes())
        .merge(revoke::routes())
        .merge(accept::routes())
        .merge(by_app::routes())
}

/// An invitation that can still be accepted.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Invitation)]
pub(crate) struct InvitationBody {
    /// Its id.
    id: Uuid,
    /// The address that it was sent to. Null once a person was erased who had verified it when they were invited.
    #[schema(required)]
    email: Option<String>,
    /// The role that it gives.
    role: String,
    /// The user who made it. Null if an API key did.
    #[schema(required)]
    invited_by: Option<Uuid>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it expires.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

impl InvitationBody {
    fn of(id: InvitationId, invitation: &Invitation, email: Option<&Email>) -> Self {
        Self {
            id: id.0,
            email: email.map(|email| email.as_str().to_owned()),
            role: invitation.role.to_string(),
            invited_by: invitation.inviter.user().map(|user_id| user_id.0),
            created_at: invitation.at,
            expires_at: invitation.expires_at,
        }
    }

    /// As its event says.
    fn of_event(event: &MemberInvited) -> Self {
        Self {
            id: event.invitation_id.0,
            email: event.personal.email.as_ref().map(|email| email.as_str().to_owned()),
            role: event.role.to_string(),
            invited_by: event.invited_by.map(|user_id| user_id.0),
            created_at: event.at,
            expires_at: event.expires_at,
        }
    }
}

/// The invitation that these events made.
fn invited_in(events: &[Event]) -> Option<&MemberInvited> {
    events.iter().find_map(|event| match event {
        Event::Organization(OrganizationEvent::MemberInvited(event)) => Some(event),
        _ => None,
    })
}

impl CommandService {
    /// The addresses of invitations, which are only in their events.
    async fn invited(
        &self,
        organization_id: OrganizationId,
        invitations: &[(InvitationId, Invitation)],
    ) -> Result<Vec<Option<Email>>, Problem> {
        let mut emails = Vec::with_capacity(invitations.len());
        for (id, invitation) in invitations {
            emails.push(self.invited_address(organization_id, *id, invitation).await?);
        }
        Ok(emails)
    }

    /// The address of an invitation; `None` once its owner was erased.
    async fn invited_address(
        &self,
        organization_id: OrganizationId,
        id: InvitationId,
        invitation: &Invitation,
    ) -> Result<Option<Email>, Problem> {
        let stream = Organization::stream(&organization_id);
        let event = self.repository.event(&stream, invitation.version).await?;
        match event {
            Some(Event::Organization(OrganizationEvent::MemberInvited(event)))
                if event.invitation_id == id =>
            {
                Ok(event.personal.email)
            }
            _ => Err(Problem::damaged("the event of an invitation is not where it was")),
        }
    }
}
