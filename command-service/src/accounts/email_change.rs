//! Changing an account's address: requested with the password, announced to both addresses, applied when the new one
//! confirms.
//!
//! Watchword always sends these mails itself. The request comes from the user, not from the app's server, so the server must
//! not receive the token that proves control of the new address.

use crate::accounts::password_change::not_changed;
use crate::api::refusals::not_used;
use dispatcher::Reads;
use domain::decisions::{ChangeEmail, RequestEmailChange};
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{DispatchError, Work};
use domain::app::App;
use domain::lockout::Lockout;
use domain::password::Password;
use domain::session::RevocationReason;
use domain::user::User;
use domain::{AppId, StreamId};
use event_store::Idempotency;
use http_kit::answers::UserBody;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body, FormOrJson, Params};
use http_kit::limits::{Asker, MailPurpose, RateClass};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::envelope::Actor;
use schemas::problems;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokens::TokenPurpose;
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::fields;
use crate::api::timing::even_out;
use crate::callers::live::LiveCaller;
use crate::mailed_tokens::redeem::{Confirmed, MailedToken};
use crate::mailed_tokens::request::{MailRequested, asks_for_a_mail};
use crate::pages::page::{AsPage, LinkToken, Purpose};

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(page, request)).routes(routes!(confirm))
}

/// The new address, and the password as proof of identity.
#[derive(Deserialize, ToSchema)]
#[schema(as = EmailChangeRequest)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewEmail {
    /// The new address.
    #[schema(example = "ada.lovelace@example.com")]
    new_email: String,
    /// The account's password.
    #[schema(value_type = String, format = Password)]
    password: SecretString,
}

/// Request a change of email address.
///
/// Sends a mail with a link to the new address and a notice to the current one, which stays until the link is used. In apps
/// with `require_verified_email` the answer does not reveal whether the new address is taken.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/email/change", tag = "me", operation_id = "request_email_change",
    security(("user" = [])),
    params(("app_id" = String, Path, description = "The app")), request_body = NewEmail,
    responses((status = 202, description = "A mail was sent to both addresses", body = MailRequested),
        (status = 401, description = "`unauthenticated`, or `invalid_credentials` for a wrong password"),
        (status = 409, description = "`email_taken`"),
        (status = 422, description = "`invalid_email`, `idempotency_key_reused`")))]
pub(crate) async fn request(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    body: Result<Body<NewEmail>, Problem>,
) -> Result<Response, Problem> {
    let started = Instant::now();
    let caller = service.authenticator.user(&app_id, &credentials).await?;
    let Body { value: body, idempotency } = body?;
    service.limits.check(RateClass::Mail, request.address).map_err(Problem::rate_limited)?;
    let context = service.context(&request, &app_id, caller.actor(), idempotency);
    let new_email = fields::new_email(&body.new_email, "/new_email")?;
    let (purpose, asker) = (MailPurpose::EmailChange, Asker::User(caller.user_id));
    let counted = service.limits.check_mailbox(&app_id, &new_email, purpose, asker);
    counted.map_err(Problem::rate_limited)?;
    service.require_deliverable(&new_email, "/new_email").await?;
    let password = Password::new(body.password.expose_secret());
    let checked = service.check_own_password(&caller, &password, &context).await?;

    let (user_id, session_id, at) = (caller.user_id, caller.session_id, context.at);
    let claim = service.lookup.email_claim(&app_id, &new_email);
    let owner = service.repository.journal().claim_owner(&claim).await?;
    let is_taken = owner.is_some_and(|owner| owner != StreamId::user(user_id));
    // If the app hides whether an address is taken, the owner of the address gets the mail, and its token is refused.
    let is_told = is_taken && !caller.app.state.settings.require_verified_email;
    let (client, policy) = (request.client.clone(), service.settings.lockout);
    let mut reads = Reads::new();
    let live = LiveCaller::read(&caller, &mut reads);
    let lockout = reads.of::<Lockout>(&user_id);
    // Spent in either case, so that a spent budget does not reveal whether the address is taken.
    let spent =
        service.limits.spend_mail(&app_id, &new_email, purpose, true).map_err(Problem::rate_limited)?;
    let change = RequestEmailChange { new_email, checked, session_id, policy, client, at };
    let decide = move |work: &mut Work| {
        live.require(work, at)?;
        let (app, lockout, user) = work.drafts((live.app, lockout, live.user));
        change.decide(app, lockout, user).map_err(|why| not_changed(why, policy, at))?;
        // Checked last: a late guess of the password must be indistinguishable from a wrong one.
        if is_told { Err(taken("/new_email")) } else { Ok(()) }
    };
    let done = service.dispatcher.run(context, reads, decide).await;
    if !done.as_ref().is_ok_and(asks_for_a_mail) {
        service.limits.not_sent(spent);
    }
    done?;
    even_out(started).await;
    Ok(Done::accepted(MailRequested::accepted()))
}

/// Get the page to confirm a new address.
///
/// HTML for the person who opens the link of the mail. Opening it changes nothing.
#[utoipa::path(get, path = "/v1/apps/{app_id}/auth/email/change", tag = "me", operation_id = "get_email_change_page",
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
    Ok(match service.one_time_token(&app_id, TokenPurpose::EmailChange, &token).await {
        Ok((known, user)) => match user.state.email_change.get(known.generation, at) {
            Some(change) => pages.about(change.email.as_ref()).ask(Purpose::EmailChange, &token, None),
            None => pages.dead(Purpose::EmailChange, &token),
        },
        Err(problem) => pages.refused(Purpose::EmailChange, &token, problem),
    })
}

/// Confirm a new address.
///
/// From now on it is the account's address, and verified. All sessions end except the one that requested the change.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/email/change/confirm", tag = "me",
    operation_id = "confirm_email_change",
    params(("app_id" = String, Path, description = "The app")),
    request_body(content((MailedToken = "application/json"), (MailedToken = "application/x-www-form-urlencoded"))),
    responses((status = 200, description = "The account; a form is answered with a page", body = Confirmed),
        (status = 400, description = "`invalid_or_expired_token`"),
        (status = 403, description = "`user_banned`, `app_disabled`"),
        (status = 409, description = "`email_taken`: another account took the address first"),
        (status = 422, description = "`idempotency_key_reused`")))]
pub(crate) async fn confirm(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    as_page: AsPage,
    FormOrJson { value: body, idempotency }: FormOrJson<MailedToken>,
) -> Result<Response, Problem> {
    let done = service.change_email(&app_id, &request, &body.token, idempotency).await;
    service.after_use(&app_id, as_page, Purpose::EmailChange, &body.token, done).await
}

impl CommandService {
    async fn change_email(
        &self,
        app_id: &AppId,
        request: &RequestContext,
        token: &str,
        idempotency: Option<Idempotency>,
    ) -> Result<Response, Problem> {
        self.authenticator.app(app_id).await?;
        let (token, _) = self.one_time_token(app_id, TokenPurpose::EmailChange, token).await?;
        let (user_id, generation) = (token.user_id, token.generation);
        let context = self.context(request, app_id, Actor::user(user_id), idempotency);
        let (mut reads, app) = Reads::one::<App>(app_id);
        let user = reads.of::<User>(&user_id);
        let change = ChangeEmail { generation, at: context.at };
        let decide = move |work: &mut Work| {
            let (app, user) = work.drafts((app, user));
            change.decide(app, user).map_err(not_used)
        };
        let reason = RevocationReason::EmailChanged;
        let done = self.run_ending_sessions(user_id, reason, context, reads, decide).await;
        let done = done.map_err(|error| match error {
            DispatchError::ClaimTaken { .. } => taken("/token"),
            other => other.into(),
        })?;
        let user = self.repository.load::<User>(&user_id).await?;
        Ok(Done::ok(done.position, Confirmed { user: UserBody::of(&user.state) }))
    }
}

fn taken(pointer: &str) -> Problem {
    let kind = problems::EMAIL_TAKEN;
    Problem::new(kind).field(pointer, kind, "this address belongs to another account")
}
