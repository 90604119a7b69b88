//! The next tokens of a session: one chain, at most one live end (RFC 9700 section 4.14).

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use domain::app::App;
use domain::session::{Session, SessionCommand, SessionEvent};
use domain::user::User;
use domain::{AppId, Event};
use event_store::lookup::session_claim;
use http_kit::extract::{AppScope, Body};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use http_kit::token::RefreshToken;
use schemas::envelope::Actor;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::answers::{Done, Link, TokensBody, require_live, session_problem};
use crate::dispatch::{Committed, StreamRef, Work};

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(refresh)).route("/auth/refresh", post(refresh))
}

/// A refresh token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefreshBody {
    /// The newest refresh token of the session.
    #[schema(example = "wwr_…")]
    refresh_token: String,
}

/// Change a refresh token for new tokens.
///
/// The token before the newest is answered with the same successor for a few seconds (`refresh_grace`), for clients
/// that lost the reply. Any older one ends the session.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/refresh", tag = "auth", operation_id = "refresh",
    params(("app_id" = String, Path, description = "The app")), request_body = RefreshBody,
    responses((status = 200, description = "The next tokens", body = TokensBody),
        (status = 401, description = "`invalid_refresh_token`, `session_revoked`, `session_expired`")))]
pub(crate) async fn refresh(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    Body { value: body, idempotency }: Body<RefreshBody>,
) -> Result<Response, Problem> {
    service.authenticator.existing_app(&app_id).await?;
    let token = service.session_of(&app_id, &body.refresh_token).await?;
    let RefreshToken { session_id, generation } = token.token;
    let user_id = token.user_id;
    let context = service.context(&request, &app_id, Actor::user(user_id), idempotency);
    let (at, id) = (context.at, app_id.clone());
    let reads =
        vec![StreamRef::App(app_id.clone()), StreamRef::User(user_id), StreamRef::Session(session_id)];
    let decide = move |work: &mut Work| {
        let app = work.get::<App>(&id).clone();
        let user = work.get::<User>(&user_id).clone();
        require_live(&app, &user, work.get::<Session>(&session_id), &id, at)?;
        let command = SessionCommand::Refresh {
            generation,
            grace: app.settings.refresh_grace,
            idle_ttl: app.settings.refresh_idle_ttl,
            at,
        };
        work.execute::<Session>(&session_id, command).map_err(session_problem)?;
        let session = work.get::<Session>(&session_id);
        let link = Link::of(session);
        if session.revoked {
            work.release(session_claim(user_id, session_id));
        }
        Ok::<_, Problem>(link)
    };
    let done = service.dispatcher.run(context, reads, decide).await?;
    service.refreshed(&app_id, &done).await
}

/// A refresh token that was made here, and whose it is.
pub(crate) struct KnownToken {
    pub token: RefreshToken,
    pub user_id: domain::UserId,
}

impl CommandService {
    /// Whose refresh token this is, live or not; 401 for anything that is none of this app.
    pub(crate) async fn session_of(&self, app_id: &AppId, text: &str) -> Result<KnownToken, Problem> {
        let invalid = || Problem::new("invalid_refresh_token");
        let token = RefreshToken::decode(&self.tokens, text).ok_or_else(invalid)?;
        let session = self.repository.load::<Session>(&token.session_id).await?;
        let owner = session.state.owner.as_ref().filter(|owner| owner.app_id == *app_id);
        let user_id = owner.ok_or_else(invalid)?.user_id;
        Ok(KnownToken { token, user_id })
    }

    async fn refreshed(&self, app_id: &AppId, done: &Committed<Option<Link>>) -> Result<Response, Problem> {
        let reused = |event: &Event| matches!(event, Event::Session(SessionEvent::RefreshTokenReused(_)));
        if done.events.iter().any(reused) {
            return Err(Problem::new("invalid_refresh_token"));
        }
        // Within the grace there is no event: the chain is where the earlier request has brought it.
        let link = Link::made_by(&done.events).or(done.value.flatten());
        let link = link.ok_or_else(|| Problem::new("invalid_refresh_token"))?;
        Ok(Done::ok(done.position, self.tokens_of(app_id, link).await?))
    }
}
