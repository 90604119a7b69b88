//! The caller's own account.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Reads, Work};
use domain::user::{User, UserCommand};
use http_kit::answers::UserBody;
use http_kit::auth::UserCaller;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::fields::{self, nullable};
use crate::callers::live::LiveCaller;
use crate::organizations::OrganizationBody;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(read, change))
}

/// The caller's own account.
#[derive(Serialize, ToSchema)]
pub(crate) struct Me {
    #[serde(flatten)]
    user: UserBody,
    /// The session that made the request.
    session_id: Uuid,
    /// The organizations that the user belongs to.
    orgs: Vec<OrganizationBody>,
}

/// The profile members to change. Absent ones stay, `""` removes one, and in a merge patch `null` does too.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::option_option, reason = "absent, null and a value are three things")]
pub(crate) struct MePatch {
    /// The name shown to people.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 200)]
    name: Option<Option<String>>,
    /// The profile picture: an http or https URL.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 2048)]
    avatar_url: Option<Option<String>>,
    /// A telephone number.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 40)]
    phone: Option<Option<String>>,
}

impl Me {
    async fn of(service: &CommandService, user: &User, caller: &UserCaller) -> Result<Self, Problem> {
        let organizations = service.organizations_of(&caller.app_id, caller.user_id).await?;
        let orgs = organizations.iter().filter_map(|it| OrganizationBody::of(&it.state, caller.user_id));
        let (user, session_id) = (UserBody::of(user), caller.session_id.0);
        Ok(Self { user, session_id, orgs: orgs.collect() })
    }
}

/// Get your own account.
///
/// Read from the log itself, so it is never out of date.
#[utoipa::path(get, path = "/v1/apps/{app_id}/auth/me", tag = "me", operation_id = "get_me",
    params(("app_id" = String, Path, description = "The app")), security(("user" = [])),
    responses((status = 200, description = "The account", body = Me)))]
pub(crate) async fn read(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    credentials: Credentials,
) -> Result<Response, Problem> {
    let caller = service.authenticator.user(&app_id, &credentials).await?;
    Ok(Done::read(Me::of(&service, &caller.user.state, &caller).await?))
}

/// Change your own profile.
///
/// Changes name, picture and telephone number; absent members stay. To change the address, use `POST …/auth/email/change`.
#[utoipa::path(patch, path = "/v1/apps/{app_id}/auth/me", tag = "me", operation_id = "change_me",
    params(("app_id" = String, Path, description = "The app")), security(("user" = [])), request_body(content((MePatch = "application/json"), (MePatch = "application/merge-patch+json"))),
    responses((status = 200, description = "The account as it is now", body = Me),
        (status = 422, description = "`validation_failed`")))]
pub(crate) async fn change(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    body: Result<Body<MePatch>, Problem>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.user(&app_id, &credentials).await?;
    let Body { value: body, idempotency } = body?;
    let patch = fields::profile_patch(body.name, body.phone, body.avatar_url)?;
    let context = service.context(&request, &app_id, caller.actor(), idempotency);
    let at = context.at;
    let mut reads = Reads::new();
    let live = LiveCaller::read(&caller, &mut reads);
    let user_id = caller.user_id;
    let decide = move |work: &mut Work| {
        live.require(work, at)?;
        let command = UserCommand::UpdateProfile { patch: patch.clone(), at };
        work.execute(live.user, command).map_err(Problem::internal)?;
        Ok::<_, Problem>(work.get(live.user).clone())
    };
    let done = service.dispatcher.run(context, reads, decide).await?;
    let user = match done.value {
        Some(user) => user,
        None => service.repository.load::<User>(&user_id).await?.state.clone(),
    };
    Ok(Done::ok(done.position, Me::of(&service, &user, &caller).await?))
}
