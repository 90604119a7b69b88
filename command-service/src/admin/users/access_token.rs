//! Access tokens for tests and support.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Context, Reads};
use domain::app::App;
use domain::decisions::{MakeTestToken, NoTestToken, StartSession};
use domain::session::{LoginMethod, Session, SessionEvent, SessionStarted};
use domain::user::{Client, User};
use domain::{Event, Permission, SessionId};
use http_kit::auth::Caller;
use http_kit::cookies::Credentials;
use http_kit::extract::{Body, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::field_codes;
use schemas::problems;
use serde::{Deserialize, Serialize};
use tokens::{Grant, Issued};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::CommandService;
use crate::admin::users::target::{TargetUser, UserSegments};
use crate::api::answers::Done;
use crate::api::refusals::may_not_enter;
use crate::callers::live::require_live;
use crate::organizations::claims::{Sought, room_in_tokens};

const LONGEST_TOKEN_MINUTES: u32 = 1440;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(create_access_token))
}

/// The lifetime of a test token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewAccessToken {
    /// Minutes, from 1 to 1440.
    #[schema(minimum = 1, maximum = 1440)]
    duration_minutes: i64,
}

/// An access token without a refresh token.
#[derive(Serialize, ToSchema)]
#[schema(as = AccessToken)]
pub(crate) struct AccessTokenBody {
    /// A JWT (RFC 9068).
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// Lifetime in seconds from now.
    expires_in: i64,
    /// The session it belongs to: ending the session ends the token.
    session_id: Uuid,
}

/// Create an access token for a user.
///
/// For tests and support. The token belongs to a session of its own, which the user can see, and comes without a
/// refresh token. Only the platform and the app's own admins can create one for an admin.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/users/{user_id}/access-tokens", tag = "admin",
    operation_id = "create_access_token",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user")),
    request_body = NewAccessToken,
    security(("api_key" = []), ("user" = [])),
    responses((status = 201, description = "The token", body = AccessTokenBody),
        (status = 401, description = "`unauthenticated`; `session_revoked`, `session_expired`: a repeated request whose \
         session is over"),
        (status = 403, description = "`forbidden`, `user_banned` or `app_disabled`"),
        (status = 422, description = "`validation_failed`")))]
async fn create_access_token(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<UserSegments>,
    body: Result<Body<NewAccessToken>, Problem>,
) -> Result<Response, Problem> {
    let target = TargetUser::new(&service, &credentials, segments, Permission::TokensCreate).await?;
    let Body { value: body, idempotency } = body?;
    let context = target.context(&request, idempotency);
    let minutes =
        u32::try_from(body.duration_minutes).ok().filter(|n| (1..=LONGEST_TOKEN_MINUTES).contains(n));
    let ttl = 60
        * minutes.ok_or_else(|| {
            let detail = format!("from 1 to {LONGEST_TOKEN_MINUTES}");
            Problem::invalid("/duration_minutes", field_codes::OUT_OF_RANGE, detail)
        })?;
    let (user_id, at, full_admin) = (target.user_id, context.at, target.caller.full_admin);
    let by_user = matches!(target.caller.caller, Caller::User(_));
    let session_id = SessionId(service.clock.new_id());
    let (method, client) = (LoginMethod::Admin, Client::default());
    let start = StartSession { session_id, method, client, at, latest: at };
    let make = MakeTestToken { ttl, full_admin, by_user, start };
    let (mut reads, app) = Reads::one::<App>(&target.app_id);
    let (user, session) = (reads.of::<User>(&user_id), reads.new_one::<Session>(&session_id));
    let after = Context { idempotency: None, ..context.clone() };
    let committed = target
        .run(context, (reads, user), move |work| {
            let (app, user, session) = work.drafts((app, user, session));
            make.decide(app, user, session).map_err(no_test_token)
        })
        .await?;
    let app = service.authenticator.existing_app(&target.app_id).await?;
    let user = service.repository.load::<User>(&user_id).await?;
    // Checked again: a repetition under the same key can come after the user was banned or became an admin.
    MakeTestToken::require_may_be_made(&app.state, &user.state, full_admin, by_user)
        .map_err(no_test_token)?;
    let Some(started) = committed.events.iter().find_map(started_in) else {
        return Err(Problem::internal("the started session is not among the committed events"));
    };
    let reads = service.repository.reads();
    let (session, orgs) = loop {
        let session = reads.load::<Session>(&started.session_id).await?;
        let (listed, active) = (None, session.state.organization);
        let sought = Sought { user_id, listed, active, bytes: room_in_tokens(&app.state) };
        let orgs = service.org_claims(&reads, &app.state, &sought).await?;
        if reads.are_current().await? {
            break (session, orgs);
        }
    };
    if committed.replayed {
        require_live(&app.state, &user.state, &session.state, &target.app_id, service.clock.now())?;
    } else {
        service.end_oldest_test_sessions(user_id, started.session_id, after).await?;
    }
    let ttl = started.expires_at.duration_since(started.at).as_secs();
    let expires_in = (ttl - service.clock.now().duration_since(started.at).as_secs()).max(0);
    let grant = Grant {
        app: &app.state,
        user: &user.state,
        session_id: started.session_id,
        issued: Issued::WithRefresh(0),
        orgs,
        // It comes in the body also in cookie mode.
        most: None,
        at: started.at,
        ttl,
    };
    let answer = AccessTokenBody {
        access_token: service.signing.access_token(&grant).await?,
        token_type: "Bearer",
        expires_in,
        session_id: started.session_id.0,
    };
    Ok(Done::created(committed.position, answer))
}

fn started_in(event: &Event) -> Option<&SessionStarted> {
    match event {
        Event::Session(SessionEvent::SessionStarted(started)) => Some(started),
        _ => None,
    }
}

fn no_test_token(why: NoTestToken) -> Problem {
    match why {
        NoTestToken::AppDisabled => Problem::new(problems::APP_DISABLED),
        NoTestToken::Banned => Problem::new(problems::USER_BANNED),
        NoTestToken::OfAdmin | NoTestToken::CookieMode => Problem::forbidden().detail(why.to_string()),
        NoTestToken::MayNotEnter(why) => may_not_enter(why),
        NoTestToken::Session(error) => Problem::internal(error),
    }
}
