//! Inviting somebody, as a member.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Committed, Context, DispatchError, Handle, Reads, Work};
use domain::organization::{Acting, Invite, Inviter, Organization, OrganizationCommand, Rank};
use domain::role_templates::RoleTemplates;
use domain::settings::{AppSettings, SentBy};
use domain::user::User;
use domain::{AppId, Email, InvitationId, OrganizationId, Role, UserId};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body, Segments};
use http_kit::limits::{Asker, MailPurpose, RateClass};
use http_kit::problem::{Problem, both};
use http_kit::request::RequestContext;
use schemas::problems;
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::fields;
use crate::api::timing::even_out;
use crate::invitations::{InvitationBody, invited_in};
use crate::organizations::{OrganizationSegments, parse_role, refused};

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(invite))
}

/// Whom to invite, and as what.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewInvitation {
    /// The address.
    email: String,
    /// The role that the invitation gives; `member`, if absent.
    #[serde(default)]
    role: Option<String>,
}

impl NewInvitation {
    pub fn parse(&self) -> Result<(Email, Role), Problem> {
        let role = self.role.as_deref().unwrap_or("member");
        both(fields::new_email(&self.email, "/email"), parse_role(role))
    }
}

/// Invite somebody to an organization.
///
/// A mail with a link goes to the address. Whoever has proven that the address is theirs can accept, once. It ends when it
/// expires (`invitation_ttl` of the app), when it is revoked, and when whoever made it could no longer make it. Needs the role `admin` or `owner`, none above
/// one's own can be given, and one's own address must be verified. In an app that delivers its mails itself, its server
/// invites (`POST …/admin/orgs/{org_id}/invitations`).
#[utoipa::path(post, path = "/v1/apps/{app_id}/orgs/{org_id}/invitations", tag = "organizations",
    operation_id = "create_invitation",
    params(("app_id" = String, Path, description = "The app"),
        ("org_id" = Uuid, Path, description = "The organization")), security(("user" = [])),
    request_body = NewInvitation,
    responses((status = 201, description = "The invitation", body = InvitationBody),
        (status = 403, description = "`forbidden`; `email_not_verified`: the caller's own address is not verified"),
        (status = 409, description = "`too_many_invitations`"),
        (status = 422, description = "`invalid_email`, `validation_failed`"),
        (status = 429, description = "`rate_limited`: too many requests, or too many invitations to this address, by this user or of this organization")))]
async fn invite(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    Segments(OrganizationSegments { org_id }): Segments<OrganizationSegments>,
    body: Result<Body<NewInvitation>, Problem>,
) -> Result<Response, Problem> {
    let started = Instant::now();
    let caller = service.member_of(&app_id, &credentials, org_id).await?;
    let Body { value: body, idempotency } = body?;
    let (email, role) = body.parse()?;
    let (user_id, organization_id) = (caller.user.user_id, caller.organization_id);
    caller.organization.state.require(Acting::User(user_id), Rank::Admin).map_err(refused)?;
    let mut context = service.context(&request, &app_id, caller.user.actor(), idempotency);
    if let Some(done) = service.dispatcher.replayed::<(), Problem>(&mut context).await? {
        return made(&done);
    }
    if !caller.user.user.state.email_verified {
        let detail = "only members whose own address is verified can invite others";
        return Err(Problem::new(problems::EMAIL_NOT_VERIFIED).detail(detail));
    }
    let settings = &caller.user.app.state.settings;
    if settings.delivery == SentBy::App {
        return Err(Problem::forbidden().detail("this app delivers its mails itself: its server invites"));
    }
    service.limits.check(RateClass::Mail, request.address).map_err(Problem::rate_limited)?;
    let inviter = Inviter::Member(user_id);
    let invite = service.prepare(&app_id, settings, inviter, (email, role), &context).await?;
    let email = invite.email.clone();
    let sent = Sent { app_id: &app_id, organization_id, email, asker: Asker::User(user_id) };
    let done = sent
        .counted(&service, async {
            let (mut reads, organization) = Reads::one::<Organization>(&organization_id);
            let templates = reads.of::<RoleTemplates>(&app_id);
            // Whose address was verified may lose it meanwhile.
            let user = reads.of::<User>(&user_id);
            service
                .run_live(&caller.user, context, reads, move |work: &mut Work| {
                    if !work.get(user).email_verified {
                        return Err(Problem::new(problems::EMAIL_NOT_VERIFIED));
                    }
                    invited(work, (organization, templates), &invite)
                })
                .await
        })
        .await;
    // An address that is known needs no new data key, which takes less time.
    even_out(started).await;
    made(&done?)
}

fn made(done: &Committed<()>) -> Result<Response, Problem> {
    let event = invited_in(&done.events)
        .ok_or_else(|| Problem::internal("no event says that the invitation was made"))?;
    Ok(Done::created(done.position, InvitationBody::of_event(event)))
}

/// A mail that counts against the budgets of its mailbox, and of the user and the organization that send it.
pub(super) struct Sent<'a> {
    pub app_id: &'a AppId,
    pub organization_id: OrganizationId,
    pub email: Email,
    pub asker: Asker,
}

impl Sent<'_> {
    /// Counts it, runs the decision that asks for it, and takes the counts back if no mail follows.
    pub async fn counted<T>(
        self,
        service: &CommandService,
        decide: impl Future<Output = Result<Committed<T>, DispatchError<Problem>>>,
    ) -> Result<Committed<T>, Problem> {
        let Self { app_id, organization_id, email, asker } = self;
        let limits = &service.limits;
        service.require_deliverable(&email, "/email").await?;
        let purpose = MailPurpose::Invitation;
        limits.check_mailbox(app_id, &email, purpose, asker).map_err(Problem::rate_limited)?;
        let mut spent =
            vec![limits.spend_mail(app_id, &email, purpose, false).map_err(Problem::rate_limited)?];
        // An app's own server invites whole companies.
        if let Asker::User(user_id) = asker {
            match limits.spend_invitation(user_id, organization_id) {
                Ok(more) => spent.extend(more),
                Err(standing) => {
                    for spent in spent {
                        limits.not_sent(spent);
                    }
                    return Err(Problem::rate_limited(standing));
                }
            }
        }
        let done = decide.await;
        if !done.as_ref().is_ok_and(crate::mailed_tokens::request::asks_for_a_mail) {
            for spent in spent {
                limits.not_sent(spent);
            }
        }
        Ok(done?)
    }
}

impl CommandService {
    /// The invitation, sealed with the key of whoever has proven that the address is theirs; of others it says nothing.
    pub(super) async fn prepare(
        &self,
        app_id: &AppId,
        settings: &AppSettings,
        inviter: Inviter,
        (email, role): (Email, Role),
        context: &Context,
    ) -> Result<Invite, Problem> {
        let invitee_id = match self.locate.locate(app_id, &email).await? {
            Some(user_id) if self.repository.load::<User>(&user_id).await?.state.email_verified => user_id,
            _ => UserId(self.clock.new_id()),
        };
        let invitation_id = InvitationId(self.clock.new_id());
        let (delivery, ttl, at) = (settings.delivery, settings.invitation_ttl, context.at);
        // Only the decision knows.
        let is_template = false;
        Ok(Invite { invitation_id, invitee_id, email, role, is_template, inviter, delivery, ttl, at })
    }
}

/// Makes the invitation, if its role exists and whoever invites may give it.
pub(super) fn invited(
    work: &mut Work,
    (organization, templates): (Handle<Organization>, Handle<RoleTemplates>),
    invite: &Invite,
) -> Result<(), Problem> {
    let (organization, templates) = work.drafts((organization, templates));
    let acting = invite.inviter.acting();
    organization.require(acting, Rank::Admin).map_err(refused)?;
    organization.require_may_give(acting, &invite.role, templates).map_err(refused)?;
    let is_template = templates.permissions(&invite.role).is_some();
    let invite = Invite { is_template, ..invite.clone() };
    organization.execute(OrganizationCommand::Invite(invite)).map_err(refused)
}
