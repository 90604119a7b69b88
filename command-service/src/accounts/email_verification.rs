//! Email verification: a token from a mail proves control of the mailbox.

use crate::api::refusals::not_used;
use dispatcher::Reads;
use domain::decisions::{NotUsed, VerifyEmail, Wanted};
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::Work;
use domain::AppId;
use domain::app::App;
use domain::user::{User, UserError};
use event_store::Idempotency;
use http_kit::answers::UserBody;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, FormOrJson, Params};
use http_kit::limits::MailPurpose;
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::envelope::Actor;
use serde::Serialize;
use tokens::TokenPurpose;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::fields;
use crate::mailed_tokens::redeem::MailedToken;
use crate::mailed_tokens::request::{MailRequest, MailRequested, Mailbox};
use crate::pages::page::{AsPage, LinkToken, Purpose};

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(page)).routes(routes!(request)).routes(routes!(confirm))
}

/// The account whose address was verified. If it was verified before, the account is not shown: the token may have been
/// used, and seen, by others since.
#[derive(Serialize, ToSchema)]
#[schema(as = EmailVerification)]
pub(crate) struct Verified {
    /// The account as it is now; null if its address was already verified.
    #[schema(required)]
    user: Option<UserBody>,
    /// True if the address was already verified, absent otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    already_verified: bool,
}

/// Request a verification mail.
///
/// The answer is the same whether or not an account has the address, and whether or not it is already verified.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/email-verification/request", tag = "auth",
    operation_id = "request_email_verification",
    params(("app_id" = String, Path, description = "The app")),
    request_body(content((Mailbox = "application/json"), (Mailbox = "application/x-www-form-urlencoded"))),
    security((), ("api_key" = [])),
    responses((status = 202, description = "A mail is sent if an account has the address and has not verified it",
            body = MailRequested),
        (status = 422, description = "`invalid_email`")))]
pub(crate) async fn request(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    as_page: AsPage,
    FormOrJson { value: body, idempotency }: FormOrJson<Mailbox>,
) -> Result<Response, Problem> {
    let asked = service.request_email_verification(&app_id, &request, &credentials, &body, idempotency).await;
    service.after_request(&app_id, as_page, Purpose::EmailVerification, asked).await
}

/// Get the page to verify an address.
///
/// HTML for the person who opens the link of the mail. Opening it changes nothing.
#[utoipa::path(get, path = "/v1/apps/{app_id}/auth/email-verification", tag = "auth",
    operation_id = "get_email_verification_page",
    params(("app_id" = String, Path, description = "The app"), LinkToken),
    responses((status = 200, description = "A button", body = String, content_type = "text/html"),
        (status = 400, description = "A page saying that the link is invalid or expired", body = String, content_type = "text/html")))]
pub(crate) async fn page(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    reader: AsPage,
    Params(LinkToken { token }): Params<LinkToken>,
) -> Result<Response, Problem> {
    let app = service.authenticator.app(&app_id).await?;
    let pages = service.pages(&app.state).read_by(reader);
    let at = service.clock.now();
    Ok(match service.one_time_token(&app_id, TokenPurpose::EmailVerification, &token).await {
        Ok((known, user)) if user.state.verification.get(known.generation, at).is_some() => {
            pages.about(user.state.email.as_ref()).ask_of(Purpose::EmailVerification, &token, &user.state)
        }
        Ok((known, user)) if user.state.was_verified_by(known.generation) => pages.already_verified(),
        Ok(_) => pages.dead(Purpose::EmailVerification, &token),
        Err(problem) => pages.refused(Purpose::EmailVerification, &token, problem),
    })
}

/// Verify an address.
///
/// A used token, or another token for an address that is already verified, is answered with `already_verified`.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/email-verification/confirm", tag = "auth",
    operation_id = "confirm_email_verification",
    params(("app_id" = String, Path, description = "The app")),
    request_body(content((MailedToken = "application/json"), (MailedToken = "application/x-www-form-urlencoded"))),
    responses((status = 200, description = "The account; a form is answered with a page", body = Verified),
        (status = 400, description = "`invalid_or_expired_token`"),
        (status = 403, description = "`user_banned`, `app_disabled`"),
        (status = 422, description = "`idempotency_key_reused`")))]
pub(crate) async fn confirm(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    as_page: AsPage,
    FormOrJson { value: body, idempotency }: FormOrJson<MailedToken>,
) -> Result<Response, Problem> {
    let done = service.verify_email(&app_id, &request, &body.token, idempotency).await;
    if as_page.is_form && matches!(done, Ok((Outcome::Already, _))) {
        let app = service.authenticator.existing_app(&app_id).await?;
        return Ok(service.pages(&app.state).read_by(as_page).already_verified());
    }
    let done = done.map(|(_, response)| response);
    service.after_use(&app_id, as_page, Purpose::EmailVerification, &body.token, done).await
}

/// The result of redeeming a token.
enum Outcome {
    Verified,
    Already,
}

impl CommandService {
    async fn request_email_verification(
        &self,
        app_id: &AppId,
        request: &RequestContext,
        credentials: &Credentials,
        body: &Mailbox,
        idempotency: Option<Idempotency>,
    ) -> Result<MailRequested, Problem> {
        let purpose = MailPurpose::EmailVerification;
        let mut asked = MailRequest::new(self, app_id, request, credentials, idempotency, purpose).await?;
        let email = fields::email(&body.email)?;
        let known = asked.locate(&email).await?;
        asked.run_for_token(Wanted::Verification, known, &email, request).await
    }

    async fn verify_email(
        &self,
        app_id: &AppId,
        request: &RequestContext,
        token: &str,
        idempotency: Option<Idempotency>,
    ) -> Result<(Outcome, Response), Problem> {
        self.authenticator.app(app_id).await?;
        let (token, _) = self.one_time_token(app_id, TokenPurpose::EmailVerification, token).await?;
        let (user_id, generation) = (token.user_id, token.generation);
        let context = self.context(request, app_id, Actor::user(user_id), idempotency);
        let (mut reads, app) = Reads::one::<App>(app_id);
        let user = reads.of::<User>(&user_id);
        let verify = VerifyEmail { generation, at: context.at };
        let decide = move |work: &mut Work| {
            let (app, user) = work.drafts((app, user));
            match verify.decide(app, user) {
                Ok(()) => Ok(Outcome::Verified),
                Err(NotUsed::User(UserError::AlreadyVerified)) => Ok(Outcome::Already),
                Err(why) => Err(not_used(why)),
            }
        };
        let done = self.dispatcher.run(context, reads, decide).await?;
        if matches!(done.value, Some(Outcome::Already)) {
            let nothing_left = Verified { user: None, already_verified: true };
            return Ok((Outcome::Already, Done::ok(done.position, nothing_left)));
        }
        let user = self.repository.load::<User>(&user_id).await?;
        let user = Some(UserBody::of(&user.state));
        Ok((Outcome::Verified, Done::ok(done.position, Verified { user, already_verified: false })))
    }
}
