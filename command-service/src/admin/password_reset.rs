//! A reset token that an admin delivers by their own means.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::Reads;
use domain::app::App;
use domain::settings::SentBy;
use domain::user::{Client, MailboxCommand, PasswordResetRequested, ResetReason, User, UserEvent};
use domain::{Event, Permission, Timestamp};
use http_kit::cookies::Credentials;
use http_kit::extract::{NoBody, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::admin::users::target::{TargetUser, UserSegments};
use crate::api::answers::Done;
use crate::api::refusals::token_problem;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(create))
}

/// A password-reset token.
#[derive(Serialize, ToSchema)]
#[schema(as = PasswordResetToken)]
pub(crate) struct ResetToken {
    /// For `POST …/auth/password-reset/confirm`, or as `?token=` for the page `…/auth/password-reset`.
    #[schema(example = "wwp_…")]
    token: String,
    /// When it expires unless used.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

/// Create a password-reset token.
///
/// No mail is sent: the caller delivers the token. Because it may reach the user by any channel, using it does not verify
/// their address. Only the platform and the app's own admins can create one for an admin.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/users/{user_id}/password-reset", tag = "admin",
    operation_id = "create_password_reset",
    params(("app_id" = String, Path, description = "The app"), ("user_id" = Uuid, Path, description = "The user")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 201, description = "The token", body = ResetToken),
        (status = 403, description = "`forbidden`, `user_banned` or `app_disabled`")))]
async fn create(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    Segments(segments): Segments<UserSegments>,
    body: Result<NoBody, Problem>,
) -> Result<Response, Problem> {
    let target = TargetUser::new(&service, &credentials, segments, Permission::UsersWrite).await?;
    let NoBody { idempotency } = body?;
    let context = target.context(&request, idempotency);
    let (user_id, at, full_admin) = (target.user_id, context.at, target.caller.full_admin);
    let app = service.repository.load::<App>(&target.app_id).await?;
    let ttl = app.state.settings.password_reset_ttl;
    let (reads, user) = Reads::one::<User>(&user_id);
    let committed = target
        .run(context, (reads, user), move |work| {
            // The request's origin is the admin's, not this person's.
            let (reason, delivery, client) = (ResetReason::Admin, SentBy::App, Client::default());
            let command =
                MailboxCommand::RequestPasswordReset { reason, delivery, full_admin, ttl, client, at };
            work.execute(user, command.into()).map_err(token_problem)
        })
        .await?;
    let made = committed.events.iter().find_map(|event| match event {
        Event::User(UserEvent::PasswordResetRequested(PasswordResetRequested { expires_at, .. })) => {
            service.tokens.of_event(event).map(|token| ResetToken { token, expires_at: *expires_at })
        }
        _ => None,
    });
    let made =
        made.ok_or_else(|| Problem::internal("the created token is not among the committed events"))?;
    Ok(Done::created(committed.position, made))
}
