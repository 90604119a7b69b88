//! The organization that a session acts for: its access tokens name it, with the member's role and permissions.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use dispatcher::{Committed, Reads, Work};
use domain::app::App;
use domain::decisions::{ChooseOrganization, NotChosen};
use domain::memberships::Memberships;
use domain::organization::Organization;
use domain::session::{Session, SessionEvent};
use domain::user::User;
use domain::{Event, OrganizationId, Timestamp};
use http_kit::auth::UserCaller;
use http_kit::cookies::{Credentials, Lasting, SetCookies};
use http_kit::extract::{AppScope, Body};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::field_codes;
use serde::{Deserialize, Serialize};
use tokens::{Grant, Issued};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::CommandService;
use crate::api::answers::Done;
use crate::callers::live::{LiveCaller, require_live};
use crate::organizations::claims::{Sought, room_in_tokens};

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(choose))
}

/// The organization to act for.
#[derive(Deserialize, ToSchema)]
#[schema(as = ActiveOrganizationRequest)]
#[serde(deny_unknown_fields)]
pub(crate) struct ActiveOrganization {
    /// An organization of the user. Left out or `""`: none.
    org_id: Option<String>,
}

/// An access token that names the organization. It comes without a refresh token.
#[derive(Serialize, ToSchema)]
struct OrganizationToken {
    /// A JWT (RFC 9068). In cookie mode it is only in a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    access_token: Option<String>,
    /// Always `Bearer`.
    token_type: &'static str,
    /// Its lifetime in seconds: what was left of that of the token that made the request.
    expires_in: i64,
    /// The session it belongs to.
    session_id: Uuid,
}

/// Choose the organization that the session acts for.
///
/// Returns an access token whose claims `org_id`, `org_role` and `org_permissions` name it. The session remembers the choice:
/// refreshed tokens name the organization too, as long as the user is a member. The token expires when the one that made the
/// request does, so that a stolen one is not prolonged, and there is no new refresh token: the session's own stays valid.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/active-org", tag = "organizations",
    operation_id = "choose_active_organization",
    params(("app_id" = String, Path, description = "The app")), security(("user" = [])),
    request_body = ActiveOrganization,
    responses((status = 200, description = "The token", body = OrganizationToken),
        (status = 404, description = "`not_found`: the user is no member of such an organization"),
        (status = 422, description = "`validation_failed`")))]
async fn choose(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    body: Result<Body<ActiveOrganization>, Problem>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.user(&app_id, &credentials).await?;
    let Body { value: body, idempotency } = body?;
    let organization_id =
        body.org_id.filter(|text| !text.is_empty()).map(|text| parsed(&text)).transpose()?;
    let context = service.context(&request, &app_id, caller.actor(), idempotency);
    let at = context.at;
    let choose = ChooseOrganization { app_id, at };
    let (mut reads, memberships) = Reads::one::<Memberships>(&caller.user_id);
    let live = LiveCaller::read(&caller, &mut reads);
    let organization = organization_id.map(|id| reads.of::<Organization>(&id));
    let decide = move |work: &mut Work| {
        live.require(work, at)?;
        let (app, user, session) = (live.app, live.user, live.session);
        let decided = if let Some(organization) = organization {
            let (app, user, organization, session) = work.drafts((app, user, organization, session));
            choose.decide(app, user, Some(organization), session)
        } else {
            let (app, user, session) = work.drafts((app, user, session));
            choose.decide(app, user, None, session)
        };
        decided.map_err(|why| not_chosen(&why))?;
        let listed = work.get(memberships).organizations.clone();
        Ok::<_, Problem>(Choice { number: work.get(session).choices, at, listed })
    };
    let done = service.dispatcher.run(context, reads, decide).await?;
    let (cookies, token) = service.organization_token(&caller, organization_id, &done).await?;
    Ok((cookies, Done::ok(done.position, token)).into_response())
}

fn parsed(text: &str) -> Result<OrganizationId, Problem> {
    text.parse().map(OrganizationId).map_err(|_| {
        Problem::invalid("/org_id", field_codes::INVALID, "must be the id of an organization, a UUID")
    })
}

fn not_chosen(why: &NotChosen) -> Problem {
    match why {
        NotChosen::NotLive(_) => Problem::invalid_token(),
        NotChosen::NoMember => Problem::not_found(),
    }
}

/// A choice that was made.
struct Choice {
    /// The how manieth of the session.
    number: u32,
    at: Timestamp,
    /// The list of the user's organizations.
    listed: BTreeSet<OrganizationId>,
}

impl CommandService {
    /// The token of a choice. If it was made by an earlier request under the same key, all is checked again.
    async fn organization_token(
        &self,
        caller: &UserCaller,
        organization_id: Option<OrganizationId>,
        done: &Committed<Choice>,
    ) -> Result<(SetCookies, OrganizationToken), Problem> {
        let of_event = done.events.iter().find_map(chosen_in);
        let of_choice = done.value.as_ref().map(|choice| (choice.number, choice.at));
        let (number, at) = of_event
            .or(of_choice)
            .ok_or_else(|| Problem::internal("no event says which organization was chosen"))?;
        let listed = done.value.as_ref().map(|choice| &choice.listed);
        let UserCaller { app_id, user_id, session_id, claims, .. } = caller;
        let reads = self.repository.reads();
        let (app, user, session, orgs) = loop {
            let app = reads.load::<App>(app_id).await?;
            let user = reads.load::<User>(user_id).await?;
            let session = reads.load::<Session>(session_id).await?;
            let (user_id, active, bytes) = (*user_id, organization_id, room_in_tokens(&app.state));
            let orgs =
                self.org_claims(&reads, &app.state, &Sought { user_id, listed, active, bytes }).await?;
            if listed.is_some_and(BTreeSet::is_empty) || reads.are_current().await? {
                break (app, user, session, orgs);
            }
        };
        let now = self.clock.now();
        require_live(&app.state, &user.state, &session.state, app_id, now)?;
        if orgs.active().map(|active| active.id) != organization_id {
            return Err(Problem::not_found());
        }
        let iat = at.as_second();
        let session_ends = session.state.expires_at.min(session.state.idle_expires_at).as_second();
        let longest = iat + i64::from(app.state.settings.access_token_ttl);
        let expires = claims.exp.min(session_ends).min(longest);
        let grant = Grant {
            app: &app.state,
            user: &user.state,
            session_id: *session_id,
            issued: Issued::ByChoice(number),
            orgs,
            most: self.longest_token(&app.state),
            at,
            ttl: expires - iat,
        };
        let access_token = self.signing.access_token(&grant).await?;
        let expires_in = (expires - now.as_second()).max(0);
        let access = Lasting { token: &access_token, seconds: expires_in };
        let cookies = SetCookies::of_access(&app.state, self.access_tokens.public_url(), access);
        let token = OrganizationToken {
            access_token: (!cookies.hold_the_tokens()).then_some(access_token),
            token_type: "Bearer",
            expires_in,
            session_id: session_id.0,
        };
        Ok((cookies, token))
    }
}

fn chosen_in(event: &Event) -> Option<(u32, Timestamp)> {
    match event {
        Event::Session(SessionEvent::ActiveOrganizationChosen(chosen)) => Some((chosen.number, chosen.at)),
        _ => None,
    }
}
