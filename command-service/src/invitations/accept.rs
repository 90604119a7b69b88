//! Accepting an invitation.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Context, Reads, Work};
use domain::app::App;
use domain::decisions::{AcceptInvitation, InviterNow, NotAccepted, NotOrganized};
use domain::memberships::Memberships;
use domain::organization::{Organization, OrganizationError};
use domain::user::User;
use http_kit::auth::UserCaller;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body, Params};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::problems;
use serde::Deserialize;
use tokens::InvitationToken;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::refusals::dead_token;
use crate::invitations::Presented;
use crate::organizations::{OrganizationBody, not_organized};
use crate::pages::page::{AsPage, LinkToken, Purpose};

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(page)).routes(routes!(accept))
}

/// The token of an invitation.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcceptedInvitation {
    /// The token in the mail's link.
    #[schema(example = "wwi_…")]
    token: String,
}

/// Get the page of an invitation.
///
/// HTML for the person who opens the link of the mail, in apps without a page of their own (`links.invitation`). It says how to accept: by `POST
/// …/auth/invitations/accept`, after a login. Opening it changes nothing.
#[utoipa::path(get, path = "/v1/apps/{app_id}/auth/invitations/accept", tag = "organizations",
    operation_id = "get_invitation_page",
    params(("app_id" = String, Path, description = "The app"), LinkToken),
    responses((status = 200, description = "What to do", body = String, content_type = "text/html"),
        (status = 400, description = "A page saying that the link is invalid or expired", body = String, content_type = "text/html")))]
async fn page(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    reader: AsPage,
    Params(LinkToken { token }): Params<LinkToken>,
) -> Result<Response, Problem> {
    let app = service.authenticator.app(&app_id).await?;
    let pages = service.pages(&app.state).read_by(reader);
    Ok(match service.presented(&app_id, &token).await {
        Ok(_) => pages.tell(Purpose::Invitation),
        Err(problem) => pages.refused(Purpose::Invitation, &token, problem),
    })
}

/// Accept an invitation.
///
/// As the user whose address it was sent to, and who has proven that it is theirs. It works once.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/invitations/accept", tag = "organizations",
    operation_id = "accept_invitation",
    params(("app_id" = String, Path, description = "The app")), security(("user" = [])),
    request_body = AcceptedInvitation,
    responses((status = 200, description = "The organization", body = OrganizationBody),
        (status = 400, description = "`invalid_or_expired_token`"),
        (status = 403, description = "`forbidden`: the invitation is for another address; `email_not_verified`"),
        (status = 409, description = "`already_member`, `too_many_organizations`, `too_many_members`")))]
async fn accept(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    body: Result<Body<AcceptedInvitation>, Problem>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.user(&app_id, &credentials).await?;
    let Body { value: body, idempotency } = body?;
    let user_id = caller.user_id;
    let mut context = service.context(&request, &app_id, caller.actor(), idempotency);
    let token = InvitationToken::decode(&service.tokens, &body.token).ok_or_else(dead_token)?;
    let replayed = service.dispatcher.replayed::<(), Problem>(&mut context).await?;
    let position = if let Some(done) = replayed {
        done.position
    } else {
        service.accept(&caller, context, &body.token).await?
    };
    let organization = service.repository.load::<Organization>(&token.organization_id).await?;
    let body = OrganizationBody::of(&organization.state, user_id);
    Ok(Done::ok(position, body.ok_or_else(dead_token)?))
}

fn not_accepted(why: NotAccepted) -> Problem {
    match why {
        NotAccepted::OtherAddress => Problem::forbidden()
            .detail("the invitation is for another address: log in with the account that has it"),
        NotAccepted::EmailNotVerified => Problem::new(problems::EMAIL_NOT_VERIFIED)
            .detail("prove first that the address of the invitation is yours"),
        NotAccepted::Organized(NotOrganized::Organization(
            OrganizationError::NoSuchInvitation | OrganizationError::Absent,
        )) => dead_token(),
        NotAccepted::Organized(why) => not_organized(why),
    }
}

impl CommandService {
    /// Makes the caller a member, if the invitation is theirs. Returns the position of the event.
    async fn accept(&self, caller: &UserCaller, context: Context, token: &str) -> Result<u64, Problem> {
        let (app_id, user_id) = (&caller.app_id, caller.user_id);
        let presented = self.presented(app_id, token).await?;
        let (mut reads, app) = Reads::one::<App>(app_id);
        let user = reads.of::<User>(&user_id);
        let memberships = reads.of::<Memberships>(&user_id);
        let shown = presented.read(&mut reads);
        let Presented { organization_id, invitation_id, address, .. } = presented;
        let accept = AcceptInvitation { organization_id, invitation_id, invited: address, at: context.at };
        let decide = move |work: &mut Work| {
            // Copies of what is only looked at: whoever made an invitation may be who accepts it.
            let app = work.get(app).clone();
            let InviterNow { user: inviter, platform, templates } = shown.inviter(work);
            let (inviter, platform, templates) = (inviter.cloned(), platform.clone(), templates.clone());
            let inviter = InviterNow { user: inviter.as_ref(), platform: &platform, templates: &templates };
            let (user, organization, memberships) = work.drafts((user, shown.organization, memberships));
            accept.decide(&app, inviter, user, organization, memberships).map_err(not_accepted)
        };
        Ok(self.run_live(caller, context, reads, decide).await?.position)
    }
}
