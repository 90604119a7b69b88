//! Changes of a user's profile by an admin.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::Permission;
use domain::user::UserCommand;
use http_kit::answers::UserBody;
use http_kit::cookies::Credentials;
use http_kit::extract::{Body, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::admin::users::target::{TargetUser, UserSegments};
use crate::api::fields;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(change))
}

/// The profile members to change. Absent ones stay, `""` removes one, and in a merge patch `null` does too.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::option_option, reason = "absent, null and a value are three things")]
pub(crate) struct UserPatch {
    /// The name shown to people.
    #[serde(default, deserialize_with = "fields::nullable")]
    #[schema(value_type = Option<String>)]
    name: Option<Option<String>>,
    /// A telephone number.
    #[serde(default, deserialize_with = "fields::nullable")]
    #[schema(value_type = Option<String>)]
    phone: Option<Option<String>>,
    /// The profile picture.
    #[serde(default, deserialize_with = "fields::nullable")]
    #[schema(value_type = Option<String>)]
    avatar_url: Option<Option<String>>,
}

/// Change a user's profile.
///
/// Absent members stay. Needs the permission `users:write`.
#[utoipa::path(patch, path = "/v1/apps/{app_id}/admin/users/{user_id}", tag = "admin", operation_id = "change_user",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user")),
    request_body(content((UserPatch = "application/json"), (UserPatch = "application/merge-patch+json"))),
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
    let target = TargetUser::new(&service, &credentials, segments, Permission::UsersWrite).await?;
    let Body { value: body, .. } = body?;
    let context = target.context(&request, None);
    let patch = fields::profile_patch(body.name, body.phone, body.avatar_url)?;
    let at = context.at;
    let command = UserCommand::UpdateProfile { patch, at };
    target.run_on_user(&request, context, command).await
}
