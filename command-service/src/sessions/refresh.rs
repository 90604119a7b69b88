//! Refreshing a session's tokens: one chain with at most one live end (RFC 9700 section 4.14).

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use dispatcher::{Committed, Reads, Work};
use domain::app::App;
use domain::decisions::{NotRefreshed, RefreshSession, Refreshed};
use domain::memberships::Memberships;
use domain::session::{Session, SessionEvent};
use domain::user::User;
use domain::{AppId, Event, OrganizationId};
use http_kit::cookies::{Credentials, TokenCookie};
use http_kit::extract::{AppScope, OptionalBody};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::envelope::Actor;
use schemas::{field_codes, problems};
use serde::Deserialize;
use tokens::RefreshToken;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::refusals::{not_live, session_problem};
use crate::sessions::tokens::{ChainLink, TokensBody};

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(refresh))
}

/// A refresh token, or nothing if it comes as a cookie.
#[derive(Deserialize, ToSchema)]
#[schema(as = RefreshRequest)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefreshBody {
    /// The newest refresh token of the session.
    #[schema(example = "wwr_…")]
    refresh_token: Option<String>,
}

/// Refresh the tokens.
///
/// Exchanges a refresh token for a new pair of tokens. For a few seconds (`refresh_grace`) the previous token gets the same
/// successor again, for clients that lost the reply. Any older token ends the session.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/refresh", tag = "auth", operation_id = "refresh",
    params(("app_id" = String, Path, description = "The app")), request_body = Option<RefreshBody>,
    responses((status = 200, description = "The next tokens", body = TokensBody),
        (status = 401, description = "`invalid_refresh_token`, `session_revoked`, `session_expired`"),
        (status = 403, description = "`forbidden`: the token came as a cookie without its `X-CSRF-Token`")))]
pub(crate) async fn refresh(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    OptionalBody { value: body, idempotency }: OptionalBody<RefreshBody>,
) -> Result<Response, Problem> {
    // The app's existence does not change, and the append checks everything else.
    service.authenticator.app_at_hand(&app_id).await?;
    let token = if let Some(text) = body.and_then(|body| body.refresh_token) {
        service.session_of(&app_id, &text).await?
    } else {
        let app = service.authenticator.existing_app(&app_id).await?;
        match service.session_of_cookie(&app_id, &app.state, &credentials).await? {
            Some(known) => known,
            None if app.state.settings.cookies => return Err(Problem::new(problems::INVALID_REFRESH_TOKEN)),
            None => {
                let detail =
                    "is required, unless the app has the setting `cookies` and the token comes as one";
                return Err(Problem::malformed_member("/refresh_token", field_codes::MISSING, detail));
            }
        }
    };
    let RefreshToken { session_id, generation } = token.token;
    let user_id = token.user_id;
    let context = service.context(&request, &app_id, Actor::user(user_id), idempotency);
    let (at, client) = (context.at, request.client.clone());
    let latest = service.repository.latest(at);
    let refresh = RefreshSession { app_id: app_id.clone(), generation, client, at, latest };
    let (mut reads, app) = Reads::one::<App>(&app_id);
    let (user, session) = (reads.of::<User>(&user_id), reads.of::<Session>(&session_id));
    let memberships = reads.of::<Memberships>(&user_id);
    let decide = move |work: &mut Work| {
        let (app, user, session) = work.drafts((app, user, session));
        let refreshed = refresh.decide(app, user, session).map_err(not_refreshed)?;
        let link = ChainLink::of(session);
        if refreshed == Refreshed::EndedByReuse {
            // The holder of a token that was already used is unauthenticated.
            work.is_done_by(Actor::anonymous());
        }
        Ok::<_, Problem>(Found { link, listed: work.get(memberships).organizations.clone() })
    };
    let done = service.dispatcher.run(context, reads, decide).await?;
    service.refreshed(&app_id, &done).await
}

/// Where a refresh found the session.
struct Found {
    link: Option<ChainLink>,
    /// The list of the user's organizations.
    listed: BTreeSet<OrganizationId>,
}

fn not_refreshed(why: NotRefreshed) -> Problem {
    match why {
        NotRefreshed::NotLive(why) => not_live(why),
        NotRefreshed::Session(error) => session_problem(error),
    }
}

/// A genuine refresh token and its session.
pub(crate) struct KnownToken {
    pub token: RefreshToken,
    pub user_id: domain::UserId,
}

impl CommandService {
    /// The session of this refresh token, live or not; 401 if it does not belong to this app. A token's session never
    /// changes, so a cached state is enough.
    pub(crate) async fn session_of(&self, app_id: &AppId, text: &str) -> Result<KnownToken, Problem> {
        let invalid = || Problem::new(problems::INVALID_REFRESH_TOKEN);
        let token = RefreshToken::decode(&self.tokens, text).ok_or_else(invalid)?;
        let session = self.repository.load_at_hand::<Session>(&token.session_id).await?;
        let owner = session.state.owner.as_ref().filter(|owner| owner.app_id == *app_id);
        let user_id = owner.ok_or_else(invalid)?.user_id;
        Ok(KnownToken { token, user_id })
    }

    /// The session of the refresh-token cookie, if there is one; 403 if another site may have made the browser send it.
    pub(crate) async fn session_of_cookie(
        &self,
        app_id: &AppId,
        app: &App,
        credentials: &Credentials,
    ) -> Result<Option<KnownToken>, Problem> {
        let public_url = self.access_tokens.public_url();
        let Some(text) = credentials.cookie(app, public_url, TokenCookie::Refresh) else { return Ok(None) };
        let known = self.session_of(app_id, text).await?;
        self.authenticator.require_csrf(app, known.token.session_id, credentials)?;
        Ok(Some(known))
    }

    async fn refreshed(&self, app_id: &AppId, done: &Committed<Found>) -> Result<Response, Problem> {
        let reused = |event: &Event| matches!(event, Event::Session(SessionEvent::RefreshTokenReused(_)));
        if done.events.iter().any(reused) {
            return Err(Problem::new(problems::INVALID_REFRESH_TOKEN));
        }
        // Within the grace period there is no new event: the chain is where the earlier request left it.
        let found = done.value.as_ref();
        let link = ChainLink::made_by(&done.events).or(found.and_then(|found| found.link));
        let link = link.ok_or_else(|| Problem::new(problems::INVALID_REFRESH_TOKEN))?;
        let (cookies, tokens) = self.tokens_of(app_id, link, found.map(|found| &found.listed)).await?;
        Ok((cookies, Done::ok(done.position, tokens)).into_response())
    }
}
