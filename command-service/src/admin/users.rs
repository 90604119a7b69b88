//! What an app's admins and API keys do to its users: make, change, ban, unlock, give roles, end sessions, and make
//! access tokens for tests.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use cqrs_es::Aggregate;
use domain::access::PersonalDataSource;
use domain::app::App;
use domain::lockout::{Lockout, LockoutCommand};
use domain::session::{LoginMethod, RevocationReason, Session, SessionCommand, SessionEvent, SessionStarted};
use domain::text::Lines;
use domain::user::{Client, RegistrationMethod, User, UserCommand, UserError};
use domain::{AppId, Event, Permission, Role, SessionId, Timestamp, UserId};
use event_store::Idempotency;
use http_kit::access_log::Looking;
use http_kit::answers::UserBody;
use http_kit::auth::{AdminCaller, Caller};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body, NoBody, OptionalBody, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::fields;
use crate::apps::Look;
use crate::callers::admin::{require_may_act_on, require_target};
use crate::sessions::end::{EndAccess, end_all_in};
use crate::sessions::login::too_many;
use dispatcher::{Committed, Context, DispatchError, Read, Work};
use tokens::Grant;

const MAX_REASON: usize = 500;
const LONGEST_TOKEN_MINUTES: u32 = 1440;
/// How often a change is looked at anew because the user changed meanwhile.
const MAX_LOOKS: usize = 16;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(change))
        .routes(routes!(ban))
        .routes(routes!(unban))
        .routes(routes!(unlock))
        .routes(routes!(grant_role, revoke_role))
        .routes(routes!(revoke_session))
        .routes(routes!(revoke_all_sessions))
        .routes(routes!(create_access_token))
}

/// A new user, made by an admin.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUser {
    /// The address. It counts as not verified.
    #[schema(example = "ada@example.com")]
    email: String,
    /// A password. Without one the user cannot log in with a password until one is set.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Password, min_length = 8, max_length = 1024)]
    password: Option<SecretString>,
    /// The name the person goes by.
    #[serde(default)]
    name: Option<String>,
    /// A telephone number.
    #[serde(default)]
    phone: Option<String>,
    /// Where the person's picture is.
    #[serde(default)]
    avatar_url: Option<String>,
    /// Roles from the start; not `admin`, which needs a verified address.
    #[serde(default)]
    roles: BTreeSet<String>,
}

/// Make a user.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/users", tag = "admin", operation_id = "create_user",
    params(("app_id" = String, Path, description = "The app")), request_body = NewUser,
    security(("api_key" = []), ("user" = [])),
    responses((status = 201, description = "The user", body = UserBody),
        (status = 409, description = "`email_taken`; `email_not_verified` for the role `admin`"),
        (status = 422, description = "`invalid_email`, `weak_password` or `validation_failed`")))]
async fn create(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    body: Result<Body<NewUser>, Problem>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.admin(&app_id, &credentials, Permission::UsersWrite).await?;
    let Body { value: body, idempotency } = body?;
    let app = service.authenticator.existing_app(&app_id).await?;
    let context = service.context(&request, &app_id, caller.actor.clone(), idempotency);
    if let Some(done) = service.dispatcher.replayed::<(), Problem>(&context).await? {
        return Ok(created(&done));
    }
    let email = fields::email(&body.email)?;
    let profile = fields::profile(body.name, body.phone, body.avatar_url)?;
    let mut roles = BTreeSet::new();
    for role in &body.roles {
        let role = parse_role(role, "/roles")?;
        require_full_admin_for(&role, &caller)?;
        roles.insert(role);
    }
    let password_hash = match &body.password {
        Some(password) => {
            let min_length = app.state.settings.password_min_length;
            let password = service.new_password(password.expose_secret(), min_length, "/password").await?;
            Some(service.passwords.hash(&password).await?)
        }
        None => None,
    };
    let user_id = UserId(service.clock.new_id());
    let (at, id) = (context.at, app_id.clone());
    let committed = service
        .run_as(&caller, context, vec![Read::of::<App>(&app_id), Read::of::<User>(&user_id)], move |work| {
            let register = UserCommand::Register {
                user_id,
                app_id: id.clone(),
                method: RegistrationMethod::Admin,
                email: email.clone(),
                proof: None,
                password_hash: password_hash.clone(),
                profile: profile.clone(),
                // The request came from the admin: where from says nothing about this person.
                client: Client::default(),
                at,
            };
            work.execute::<User>(&user_id, register).map_err(refused)?;
            for role in &roles {
                let grant = UserCommand::GrantRole { role: role.clone(), at };
                work.execute::<User>(&user_id, grant).map_err(refused)?;
            }
            Ok(())
        })
        .await
        .map_err(|error: DispatchError<Problem>| match error {
            DispatchError::ClaimTaken { .. } => Problem::new("email_taken").field(
                "/email",
                "email_taken",
                "this address belongs to another account",
            ),
            other => other.into(),
        })?;
    Ok(created(&committed))
}

/// The user as these events made them, not as they are now: a repetition gets the answer of the first time.
fn created(committed: &Committed<()>) -> Response {
    let mut user = User::default();
    for event in &committed.events {
        if let Event::User(event) = event {
            user.apply(event.clone());
        }
    }
    Done::created(committed.position, UserBody::of(&user))
}

/// What to change of a user. `null` clears, what is not named stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::option_option, reason = "absent, null and a value are three things")]
pub(crate) struct UserPatch {
    /// The name the person goes by.
    #[serde(default, deserialize_with = "fields::nullable")]
    #[schema(value_type = Option<String>)]
    name: Option<Option<String>>,
    /// A telephone number.
    #[serde(default, deserialize_with = "fields::nullable")]
    #[schema(value_type = Option<String>)]
    phone: Option<Option<String>>,
    /// Where the person's picture is.
    #[serde(default, deserialize_with = "fields::nullable")]
    #[schema(value_type = Option<String>)]
    avatar_url: Option<Option<String>>,
}

/// Change a user's profile.
#[utoipa::path(patch, path = "/v1/apps/{app_id}/admin/users/{user_id}", tag = "admin", operation_id = "change_user",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user")),
    request_body = UserPatch,
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The user as they are now", body = UserBody),
        (status = 422, description = "`validation_failed`")))]
async fn change(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<UserSegments>,
    body: Result<Body<UserPatch>, Problem>,
) -> Result<Response, Problem> {
    let target = Target::new(&service, &credentials, segments, Permission::UsersWrite).await?;
    let Body { value: body, .. } = body?;
    let context = target.context(&request, None);
    let patch = fields::profile_patch(body.name, body.phone, body.avatar_url)?;
    let at = context.at;
    let command = UserCommand::UpdateProfile { patch, at };
    target.run_on_user(&request, context, command).await
}

/// Why somebody is banned.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ban {
    /// For the audit log, where it is sealed: at most 500 characters.
    #[schema(example = "spam")]
    reason: Option<String>,
}

/// Ban a user.
///
/// All sessions end at once: no token of theirs is good for anything here from the acknowledgement on.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/users/{user_id}/ban", tag = "admin", operation_id = "ban_user",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user")),
    request_body(content = Option<Ban>),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The user as they are now", body = UserBody),
        (status = 422, description = "`validation_failed`")))]
async fn ban(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<UserSegments>,
    body: Result<OptionalBody<Ban>, Problem>,
) -> Result<Response, Problem> {
    let target = Target::new(&service, &credentials, segments, Permission::UsersWrite).await?;
    let OptionalBody { value: body, idempotency } = body?;
    let context = target.context(&request, idempotency);
    let Ban { reason } = body.unwrap_or_default();
    let reason = reason.as_deref().map(|reason| fields::text("/reason", reason, MAX_REASON, Lines::Several));
    let reason = reason.transpose()?;
    let (user_id, at) = (target.user_id, context.at);
    let after = Context { idempotency: None, ..context.clone() };
    // The ban by itself, so that nothing about the sessions can hold it up: it ends them all in what it means. What they
    // leave is tidied up behind it, and again by whoever repeats the request, should this be cut short.
    let committed = target
        .run(context, &[], move |work| {
            work.execute::<User>(&user_id, UserCommand::Ban { reason: reason.clone(), at }).map_err(refused)
        })
        .await?;
    let swept = service.end_sessions_of_banned(user_id, after).await?;
    target.answer(&request, &committed, committed.position.max(swept)).await
}

/// Undo a ban.
///
/// Sessions that the ban ended stay ended.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/users/{user_id}/unban", tag = "admin", operation_id = "unban_user",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The user as they are now", body = UserBody)))]
async fn unban(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<UserSegments>,
    body: Result<NoBody, Problem>,
) -> Result<Response, Problem> {
    let target = Target::new(&service, &credentials, segments, Permission::UsersWrite).await?;
    let NoBody { idempotency } = body?;
    let context = target.context(&request, idempotency);
    let (user_id, at) = (target.user_id, context.at);
    service.end_sessions_of_banned(user_id, Context { idempotency: None, ..context.clone() }).await?;
    for _ in 0..MAX_LOOKS {
        // In this order: what is claimed by a user who was banned before we looked can only have become less.
        let seen = service.repository.load::<User>(&user_id).await?.version;
        let sessions = service.claimed_sessions(user_id).await?;
        let committed = target
            .run(context.clone(), &sessions.clone(), move |work| {
                if work.version::<User>(&user_id) != seen {
                    return Ok(Look::Again);
                }
                if work.get::<User>(&user_id).banned {
                    // A ban that was cut off half-way may have left some: they must not come back to life.
                    end_all_in(work, user_id, &sessions, RevocationReason::Ban, at)?;
                    work.execute::<User>(&user_id, UserCommand::Unban { at }).map_err(refused)?;
                }
                Ok(Look::Done)
            })
            .await?;
        if !matches!(committed.value, Some(Look::Again)) {
            return target.answer(&request, &committed, committed.position).await;
        }
    }
    Err(Problem::overloaded("a user kept changing"))
}

/// Forget a user's failed logins, and end the lock that they led to.
///
/// The platform and the app's own admins can do so at any time. An API key ends a lock only when the time in which failures
/// add up has passed without one: it must not give anybody more guesses.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/users/{user_id}/unlock", tag = "admin", operation_id = "unlock_user",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The user", body = UserBody),
        (status = 429, description = "`rate_limited`: a key has to wait, a full admin has not")))]
async fn unlock(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<UserSegments>,
    body: Result<NoBody, Problem>,
) -> Result<Response, Problem> {
    let target = Target::new(&service, &credentials, segments, Permission::UsersWrite).await?;
    let NoBody { idempotency } = body?;
    let context = target.context(&request, idempotency);
    let (user_id, at, app_id) = (target.user_id, context.at, target.app_id.clone());
    let policy = service.settings.lockout;
    let reads = vec![Read::of::<User>(&user_id), Read::of::<Lockout>(&user_id)];
    let caller = target.caller.clone();
    let committed = service
        .run_as(&target.caller, context, reads, move |work| {
            require_target(work, &caller, user_id, &app_id)?;
            let unlock = if caller.full_admin {
                LockoutCommand::Unlock { user_id, at }
            } else {
                LockoutCommand::UnlockWithCare { user_id, policy, at }
            };
            work.execute::<Lockout>(&user_id, unlock).map_err(|locked| {
                let detail = "a full admin can unlock the account at once";
                too_many(policy, &locked, at).detail(detail)
            })
        })
        .await
        .map_err(Problem::from)?;
    target.answer(&request, &committed, committed.position).await
}

/// Give a user a role.
///
/// Only the platform and the app's own admins can give the role `admin`, and only to a user whose address is verified. It
/// ends whatever the account had before: sessions, links, codes, tokens, a change of address that is under way, and a
/// password that was set by anybody but the person, who then chooses another one by a reset.
#[utoipa::path(put, path = "/v1/apps/{app_id}/admin/users/{user_id}/roles/{role}", tag = "admin", operation_id = "grant_role",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user"),
        ("role" = String, Path, description = "The role", min_length = 1, max_length = 40, pattern = "^[a-z][a-z0-9_-]*$")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The user as they are now", body = UserBody),
        (status = 409, description = "`too_many_roles`; `email_not_verified` for the role `admin`"),
        (status = 422, description = "`validation_failed`")))]
async fn grant_role(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<RoleSegments>,
) -> Result<Response, Problem> {
    change_role(&service, &request, &credentials, segments, |role, at| UserCommand::GrantRole { role, at })
        .await
}

/// Take a role from a user.
///
/// Only the platform and the app's own admins can take the role `admin`.
#[utoipa::path(delete, path = "/v1/apps/{app_id}/admin/users/{user_id}/roles/{role}", tag = "admin", operation_id = "revoke_role",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user"),
        ("role" = String, Path, description = "The role", min_length = 1, max_length = 40, pattern = "^[a-z][a-z0-9_-]*$")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The user as they are now", body = UserBody),
        (status = 422, description = "`validation_failed`")))]
async fn revoke_role(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<RoleSegments>,
) -> Result<Response, Problem> {
    change_role(&service, &request, &credentials, segments, |role, at| UserCommand::RevokeRole { role, at })
        .await
}

async fn change_role(
    service: &Arc<CommandService>,
    request: &RequestContext,
    credentials: &Credentials,
    segments: RoleSegments,
    command: fn(Role, Timestamp) -> UserCommand,
) -> Result<Response, Problem> {
    let RoleSegments { app_id, user_id, role } = segments;
    let segments = UserSegments { app_id, user_id };
    let target = Target::new(service, credentials, segments, Permission::UsersWrite).await?;
    let role = parse_role(&role, "/role")?;
    require_full_admin_for(&role, &target.caller)?;
    let context = target.context(request, None);
    let command = command(role, context.at);
    match &command {
        UserCommand::GrantRole { role, .. } if *role == Role::admin() => {
            target.promote(request, context, command).await
        }
        _ => target.run_on_user(request, context, command).await,
    }
}

/// End one session of a user.
#[utoipa::path(delete, path = "/v1/apps/{app_id}/admin/users/{user_id}/sessions/{session_id}", tag = "admin",
    operation_id = "revoke_user_session",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user"),
        ("session_id" = Uuid, Path, description = "The session")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 204, description = "It is ended")))]
async fn revoke_session(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<SessionSegments>,
) -> Result<Response, Problem> {
    let SessionSegments { app_id, user_id, session_id } = segments;
    let segments = UserSegments { app_id, user_id };
    let target = Target::new(&service, &credentials, segments, Permission::UsersWrite).await?;
    let context = target.context(&request, None);
    let (user_id, at, session_id) = (target.user_id, context.at, SessionId(session_id));
    let committed = target
        .run(context, &[session_id], move |work| {
            let owner = work.get::<Session>(&session_id).owner.as_ref();
            if owner.is_none_or(|owner| owner.user_id != user_id) {
                return Err(Problem::not_found());
            }
            end_all_in(work, user_id, &[session_id], RevocationReason::Admin, at)
        })
        .await?;
    Ok(Done::no_content(committed.position))
}

/// Which session to leave.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RevokeAllOfUser {
    /// A session to leave as it is.
    exclude: Option<Uuid>,
}

/// How many sessions were ended.
#[derive(Serialize, ToSchema)]
pub(crate) struct Revoked {
    /// The number.
    revoked: usize,
}

/// End all sessions of a user.
///
/// Links, codes and tokens that would bring the user back in end with them, and so does a change of address that is under
/// way.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/users/{user_id}/sessions/revoke-all", tag = "admin",
    operation_id = "revoke_all_user_sessions",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user")),
    request_body(content = Option<RevokeAllOfUser>),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "How many were ended", body = Revoked)))]
async fn revoke_all_sessions(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<UserSegments>,
    body: Result<OptionalBody<RevokeAllOfUser>, Problem>,
) -> Result<Response, Problem> {
    let target = Target::new(&service, &credentials, segments, Permission::UsersWrite).await?;
    let OptionalBody { value: body, idempotency } = body?;
    let context = target.context(&request, idempotency);
    let RevokeAllOfUser { exclude } = body.unwrap_or_default();
    let exclude = exclude.map(SessionId);
    let reads = exclude.map(|id| Read::of::<Session>(&id)).into_iter().collect();
    let end = EndAccess { user_id: target.user_id, exclude, reason: RevocationReason::Admin, at: context.at };
    let committed = target.run_ending(context, reads, end.reason, move |work| end.run(work)).await?;
    let ended = |event: &&Event| matches!(event, Event::Session(SessionEvent::SessionRevoked(_)));
    let revoked = committed.events.iter().filter(ended).count();
    Ok(Done::ok(committed.position, Revoked { revoked }))
}

/// How long a test token lasts.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewAccessToken {
    /// 1 to 1440.
    #[schema(minimum = 1, maximum = 1440)]
    duration_minutes: i64,
}

/// An access token without a refresh token.
#[derive(Serialize, ToSchema)]
pub(crate) struct AccessTokenBody {
    /// A JWT (RFC 9068).
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// Seconds that it lasts from now on.
    expires_in: i64,
    /// The session it belongs to: ending that ends the token.
    session_id: Uuid,
}

/// Make an access token for a user, for tests and support.
///
/// It belongs to a session of its own, in sight of the user, and has no refresh token. Only the platform and the
/// app's own admins can make one for an admin.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/users/{user_id}/access-tokens", tag = "admin",
    operation_id = "create_access_token",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user")),
    request_body = NewAccessToken,
    security(("api_key" = []), ("user" = [])),
    responses((status = 201, description = "The token", body = AccessTokenBody),
        (status = 403, description = "`forbidden`, `user_banned` or `app_disabled`"),
        (status = 422, description = "`validation_failed`")))]
async fn create_access_token(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<UserSegments>,
    body: Result<Body<NewAccessToken>, Problem>,
) -> Result<Response, Problem> {
    let target = Target::new(&service, &credentials, segments, Permission::TokensCreate).await?;
    let Body { value: body, idempotency } = body?;
    let context = target.context(&request, idempotency);
    let minutes =
        u32::try_from(body.duration_minutes).ok().filter(|n| (1..=LONGEST_TOKEN_MINUTES).contains(n));
    let ttl = 60
        * minutes.ok_or_else(|| {
            let detail = format!("from 1 to {LONGEST_TOKEN_MINUTES}");
            Problem::invalid("/duration_minutes", "out_of_range", detail)
        })?;
    let (app_id, user_id, at) = (target.app_id.clone(), target.user_id, context.at);
    let (caller, full_admin) = (target.caller.clone(), target.caller.full_admin);
    let by_user = matches!(target.caller.caller, Caller::User(_));
    let session_id = SessionId(service.clock.new_id());
    let reads = vec![Read::of::<App>(&app_id), Read::of::<User>(&user_id), Read::of::<Session>(&session_id)];
    let committed = service
        .run_as(&target.caller, context, reads, move |work| {
            require_target(work, &caller, user_id, &app_id)?;
            let user = work.get::<User>(&user_id);
            require_token_may_be_made(work.get::<App>(&app_id), user, full_admin, by_user)?;
            let start = SessionCommand::Start {
                session_id,
                user_id,
                app_id: app_id.clone(),
                method: LoginMethod::Admin,
                epoch: user.epoch,
                ttl,
                idle_ttl: ttl,
                client: Client::default(),
                at,
            };
            work.execute::<Session>(&session_id, start).map_err(Problem::internal)?;
            Ok(())
        })
        .await
        .map_err(Problem::from)?;
    let app = service.authenticator.existing_app(&target.app_id).await?;
    let user = service.repository.load::<User>(&user_id).await?;
    // Once more: a repetition under the same key can come after the user was banned or became an admin.
    require_token_may_be_made(&app.state, &user.state, full_admin, by_user)?;
    let Some(started) = committed.events.iter().find_map(started_in) else {
        return Err(Problem::internal("a started session is not among its events"));
    };
    let ttl = started.expires_at.duration_since(started.at).as_secs();
    let expires_in = (ttl - service.clock.now().duration_since(started.at).as_secs()).max(0);
    let grant = Grant {
        app: &app.state,
        user: &user.state,
        session_id: started.session_id,
        generation: 0,
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

fn require_token_may_be_made(app: &App, user: &User, full_admin: bool, by_user: bool) -> Result<(), Problem> {
    if app.disabled {
        return Err(Problem::new("app_disabled"));
    }
    if user.banned {
        return Err(Problem::new("user_banned"));
    }
    if user.is_admin() && !full_admin {
        return Err(Problem::forbidden().detail("only a full admin can make a token for an admin"));
    }
    // A script in an admin's page must get at no token.
    if app.settings.cookies && by_user {
        return Err(Problem::forbidden().detail("in cookie mode only an API key is given a token"));
    }
    Ok(())
}

/// The user that a request is about, found for somebody who may touch them.
pub(crate) struct Target<'a> {
    service: &'a Arc<CommandService>,
    pub caller: AdminCaller,
    pub app_id: AppId,
    pub user_id: UserId,
}

#[derive(Deserialize)]
pub(crate) struct UserSegments {
    app_id: AppId,
    user_id: Uuid,
}

#[derive(Deserialize)]
struct RoleSegments {
    app_id: AppId,
    user_id: Uuid,
    role: String,
}

#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "they are the names in the path")]
struct SessionSegments {
    app_id: AppId,
    user_id: Uuid,
    session_id: Uuid,
}

impl<'a> Target<'a> {
    pub async fn new(
        service: &'a Arc<CommandService>,
        credentials: &Credentials,
        segments: UserSegments,
        permission: Permission,
    ) -> Result<Self, Problem> {
        let app_id = segments.app_id;
        let user_id = UserId(segments.user_id);
        let caller = service.authenticator.admin(&app_id, credentials, permission).await?;
        let user = service.repository.load::<User>(&user_id).await?;
        // Here, too: a repetition under the same key is answered without a decision.
        require_may_act_on(&caller, &user.state, &app_id)?;
        Ok(Self { service, caller, app_id, user_id })
    }

    pub fn context(&self, request: &RequestContext, idempotency: Option<Idempotency>) -> Context {
        self.service.context(request, &self.app_id, self.caller.actor.clone(), idempotency)
    }

    /// Runs a decision over the user and some sessions.
    pub async fn run<T: Send + 'static>(
        &self,
        context: Context,
        sessions: &[SessionId],
        mut decide: impl FnMut(&mut Work) -> Result<T, Problem> + Send + 'static,
    ) -> Result<Committed<T>, Problem> {
        let mut reads = vec![Read::of::<User>(&self.user_id)];
        reads.extend(sessions.iter().copied().map(|id| Read::of::<Session>(&id)));
        let (user_id, app_id, caller) = (self.user_id, self.app_id.clone(), self.caller.clone());
        let decide = move |work: &mut Work| {
            require_target(work, &caller, user_id, &app_id)?;
            decide(work)
        };
        self.service.run_as(&self.caller, context, reads, decide).await.map_err(Problem::from)
    }

    /// Runs a decision over the user that may end all of their sessions, and revokes those that it has ended.
    async fn run_ending<T: Send + 'static>(
        &self,
        context: Context,
        mut reads: Vec<Read>,
        reason: RevocationReason,
        mut decide: impl FnMut(&mut Work) -> Result<T, Problem> + Send + 'static,
    ) -> Result<Committed<T>, Problem> {
        reads.push(Read::of::<User>(&self.user_id));
        let (user_id, app_id, caller) = (self.user_id, self.app_id.clone(), self.caller.clone());
        let decide = move |work: &mut Work| {
            require_target(work, &caller, user_id, &app_id)?;
            decide(work)
        };
        let caller = Some(&self.caller);
        let done = self.service.run_ending_sessions_as(caller, user_id, reason, context, reads, decide);
        done.await.map_err(Problem::from)
    }

    /// Gives the role `admin`, which ends whatever the account had before: who had it may not have been entitled to that of
    /// an admin.
    async fn promote(
        &self,
        request: &RequestContext,
        context: Context,
        command: UserCommand,
    ) -> Result<Response, Problem> {
        let user_id = self.user_id;
        let decide = move |work: &mut Work| work.execute::<User>(&user_id, command.clone()).map_err(refused);
        let committed = self.run_ending(context, vec![], RevocationReason::Admin, decide).await?;
        self.answer(request, &committed, committed.position).await
    }

    async fn run_on_user(
        &self,
        request: &RequestContext,
        context: Context,
        command: UserCommand,
    ) -> Result<Response, Problem> {
        let user_id = self.user_id;
        let decide = move |work: &mut Work| work.execute::<User>(&user_id, command.clone()).map_err(refused);
        let committed = self.run(context, &[], decide).await?;
        self.answer(request, &committed, committed.position).await
    }

    /// The user as they are now. A command that wrote nothing about them just now has only read them: a change of nothing, or
    /// a repetition under the same key.
    async fn answer<T>(
        &self,
        request: &RequestContext,
        committed: &Committed<T>,
        position: u64,
    ) -> Result<Response, Problem> {
        if committed.replayed || committed.events.is_empty() {
            let looking = Looking::new(request, &self.app_id, &self.caller.actor);
            self.service.access_log.read(&looking, PersonalDataSource::User, [self.user_id]).await?;
        }
        let user = self.service.repository.load::<User>(&self.user_id).await?;
        Ok(Done::ok(position, UserBody::of(&user.state)))
    }
}

fn parse_role(text: &str, pointer: &str) -> Result<Role, Problem> {
    Role::parse(text).map_err(|error| Problem::invalid(pointer, "invalid", error.to_string()))
}

fn require_full_admin_for(role: &Role, caller: &AdminCaller) -> Result<(), Problem> {
    if *role == Role::admin() && !caller.full_admin {
        return Err(Problem::forbidden().detail("only a full admin gives or takes the role admin"));
    }
    Ok(())
}

fn refused(error: UserError) -> Problem {
    match error {
        UserError::Absent => Problem::not_found(),
        UserError::TooManyRoles => Problem::new("too_many_roles").detail(error.to_string()),
        UserError::Banned => Problem::new("user_banned"),
        UserError::EmailNotVerified => {
            let detail = "the role admin is for users who have verified their address";
            Problem::new("email_not_verified").conflict().detail(detail)
        }
        // Refusals of commands that no route for admins gives.
        UserError::Exists
        | UserError::InvalidToken
        | UserError::OtherPassword
        | UserError::OtherEmail
        | UserError::AlreadyVerified => Problem::internal(error),
    }
}
