//! Password reset: a token mailed to the account's address lets its reader choose a new password.

use crate::api::refusals::{dead_token, not_used};
use dispatcher::Reads;
use domain::decisions::{ResetPassword, Wanted};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use dispatcher::{Committed, Work};
use domain::app::App;
use domain::lockout::Lockout;
use domain::one_time::UserToken;
use domain::session::RevocationReason;
use domain::user::{ResetReason, User};
use domain::{AppId, DeviceId, Email, UserId};
use event_store::Idempotency;
use http_kit::cookies::{Credentials, SetCookies};
use http_kit::extract::{AppScope, FormOrJson, Params};
use http_kit::limits::MailPurpose;
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::envelope::Actor;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokens::TokenPurpose;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::accounts::password_change::password_set_at;
use crate::api::answers::Done;
use crate::api::fields;
use crate::mailed_tokens::request::{MailRequest, MailRequested, Mailbox};
use crate::pages::page::{AsPage, LinkToken, Purpose};

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(page)).routes(routes!(request)).routes(routes!(confirm))
}

/// A token from a mail, and the new password.
#[derive(Deserialize, ToSchema)]
#[schema(as = PasswordResetRequest)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPassword {
    /// The token in the mail's link.
    #[schema(example = "wwp_…")]
    token: String,
    /// The new password.
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 1024)]
    new_password: SecretString,
}

/// Request a password-reset mail.
///
/// The answer is the same whether or not an account has the address.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/password-reset/request", tag = "auth",
    operation_id = "request_password_reset",
    params(("app_id" = String, Path, description = "The app")),
    request_body(content((Mailbox = "application/json"), (Mailbox = "application/x-www-form-urlencoded"))),
    security((), ("api_key" = [])),
    responses((status = 202, description = "A mail is sent if an account has the address", body = MailRequested),
        (status = 422, description = "`invalid_email`")))]
pub(crate) async fn request(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    as_page: AsPage,
    FormOrJson { value: body, idempotency }: FormOrJson<Mailbox>,
) -> Result<Response, Problem> {
    let asked = service.request_password_reset(&app_id, &request, &credentials, &body, idempotency).await;
    service.after_request(&app_id, as_page, Purpose::PasswordReset, asked).await
}

/// Get the page to choose a new password.
///
/// HTML for the person who opens the link of the mail. Opening it changes nothing.
#[utoipa::path(get, path = "/v1/apps/{app_id}/auth/password-reset", tag = "auth", operation_id = "get_password_reset_page",
    params(("app_id" = String, Path, description = "The app"), LinkToken),
    responses((status = 200, description = "A form", body = String, content_type = "text/html"),
        (status = 400, description = "A page saying that the link is invalid or expired", body = String, content_type = "text/html")))]
pub(crate) async fn page(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    reader: AsPage,
    Params(LinkToken { token }): Params<LinkToken>,
) -> Result<Response, Problem> {
    let app = service.authenticator.app(&app_id).await?;
    let pages = service.pages(&app.state).read_by(reader);
    // A visitor without a token wants to request the mail.
    if token.is_empty() && pages.sends_mail() {
        return Ok(pages.request(Purpose::PasswordReset));
    }
    let at = service.clock.now();
    let known = service.one_time_token(&app_id, TokenPurpose::PasswordReset, &token).await;
    match known {
        Ok((known, user)) if user.state.password_reset.get(known.generation, at).is_some() => {
            Ok(pages.about(user.state.email.as_ref()).ask(Purpose::PasswordReset, &token, None))
        }
        Ok(_) => Ok(pages.dead(Purpose::PasswordReset, &token)),
        Err(problem) => Ok(pages.refused(Purpose::PasswordReset, &token, problem)),
    }
}

/// Choose a new password.
///
/// All sessions and all other reset tokens of the account end.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/password-reset/confirm", tag = "auth",
    operation_id = "confirm_password_reset",
    params(("app_id" = String, Path, description = "The app")),
    request_body(content((NewPassword = "application/json"), (NewPassword = "application/x-www-form-urlencoded"))),
    responses((status = 204, description = "The password was changed; a form is answered with a page and status 200"),
        (status = 400, description = "`invalid_or_expired_token`"),
        (status = 403, description = "`user_banned`, `app_disabled`"),
        (status = 422, description = "`weak_password`, `idempotency_key_reused`")))]
pub(crate) async fn confirm(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    as_page: AsPage,
    FormOrJson { value: body, idempotency }: FormOrJson<NewPassword>,
) -> Result<Response, Problem> {
    let done = service.reset_password(&app_id, &request, &body, idempotency).await;
    service.after_use(&app_id, as_page, Purpose::PasswordReset, &body.token, done).await
}

impl CommandService {
    async fn request_password_reset(
        &self,
        app_id: &AppId,
        request: &RequestContext,
        credentials: &Credentials,
        body: &Mailbox,
        idempotency: Option<Idempotency>,
    ) -> Result<MailRequested, Problem> {
        let purpose = MailPurpose::PasswordReset;
        let mut asked = MailRequest::new(self, app_id, request, credentials, idempotency, purpose).await?;
        let email = fields::email(&body.email)?;
        let known = asked.locate(&email).await?;
        self.send_password_reset(asked, request, known, &email, ResetReason::Forgotten).await
    }

    /// Sends a reset token to the account with this address, if there is one.
    pub(crate) async fn send_password_reset(
        &self,
        asked: MailRequest<'_>,
        request: &RequestContext,
        known: Option<UserId>,
        email: &Email,
        reason: ResetReason,
    ) -> Result<MailRequested, Problem> {
        asked.run_for_token(Wanted::PasswordReset(reason), known, email, request).await
    }

    async fn reset_password(
        &self,
        app_id: &AppId,
        request: &RequestContext,
        body: &NewPassword,
        idempotency: Option<Idempotency>,
    ) -> Result<Response, Problem> {
        let app = self.authenticator.app(app_id).await?;
        let (token, user) = self.one_time_token(app_id, TokenPurpose::PasswordReset, &body.token).await?;
        let (user_id, generation) = (token.user_id, token.generation);
        let mut context = self.context(request, app_id, Actor::user(user_id), idempotency);
        if let Some(done) = self.dispatcher.replayed::<(), Problem>(&mut context).await? {
            return self.was_reset(&app.state, token, &done).await;
        }
        // Checked before paying for a hash; the decision checks again.
        if user.state.password_reset.get(generation, context.at).is_none() {
            return Err(dead_token());
        }
        let min_length = app.state.settings.password_min_length;
        let password = body.new_password.expose_secret();
        let password = self.new_password(password, min_length, "/new_password").await?;
        let password_hash = self.passwords.hash(&password).await?;
        let (client, at) = (request.client.clone(), context.at);
        let (mut reads, app_read) = Reads::one::<App>(app_id);
        let (user, lockout) = (reads.of::<User>(&user_id), reads.of::<Lockout>(&user_id));
        let reset = ResetPassword { user_id, generation, password_hash, client, at };
        let decide = move |work: &mut Work| {
            let (app, user, lockout) = work.drafts((app_read, user, lockout));
            reset.decide(app, user, lockout).map_err(not_used)
        };
        let reason = RevocationReason::PasswordReset;
        let done = self.run_ending_sessions(user_id, reason, context, reads, decide).await?;
        self.was_reset(&app.state, token, &done).await
    }

    /// The person who chose the password is a known client: guesses by others must not lock this device out.
    async fn was_reset(
        &self,
        app: &App,
        token: UserToken,
        done: &Committed<()>,
    ) -> Result<Response, Problem> {
        let user = self.repository.load::<User>(&token.user_id).await?;
        let digest =
            digest(&SHA256, &[token.user_id.0.as_bytes(), &token.generation.to_be_bytes()[..]].concat());
        let mut id = [0; 16];
        id.copy_from_slice(&digest.as_ref()[..16]);
        let device = DeviceId(uuid::Uuid::from_bytes(id));
        // A repeated request may come when somebody else has ended all access since: its sender is a stranger then.
        let at = password_set_at(&done.events).filter(|at| user.state.access_ended_at == Some(*at));
        let set = at.map(|at| self.with_device(SetCookies::default(), app, &user.state, device, at));
        Ok((set.unwrap_or_default(), Done::no_content(done.position)).into_response())
    }
}
