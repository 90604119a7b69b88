//! “This wasn't me”: the owner of an address that somebody else registered erases that account.
//!
//! Anybody can register anybody's address. Its owner gets a verification mail that says when and from where the account was
//! made. Confirming it would leave the account with the registrant's password and sessions; disowning erases the account and
//! frees the address.

use crate::api::refusals::{dead_token, not_used};
use dispatcher::Reads;
use domain::decisions::Disown;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::Work;
use domain::AppId;
use domain::app::App;
use domain::session::RevocationReason;
use domain::user::User;
use event_store::Idempotency;
use http_kit::extract::{AppScope, FormOrJson, Params};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::envelope::Actor;
use tokens::TokenPurpose;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::erase::Erased;
use crate::mailed_tokens::redeem::MailedToken;
use crate::pages::page::{AsPage, LinkToken, Purpose};

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(page, disown))
}

/// Get the page to disown an account.
///
/// HTML for a person who was asked to verify an address but has not registered. Opening it changes nothing.
#[utoipa::path(get, path = "/v1/apps/{app_id}/auth/email-verification/disown", tag = "auth", operation_id = "get_disown_page",
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
            pages.about(user.state.email.as_ref()).ask_of(Purpose::Disown, &token, &user.state)
        }
        Ok(_) => pages.dead(Purpose::Disown, &token),
        Err(problem) => pages.refused(Purpose::Disown, &token, problem),
    })
}

/// Disown an account.
///
/// The token comes from a verification mail. The account, whose address was never verified, is erased with all its data,
/// and the address becomes available again.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/email-verification/disown", tag = "auth",
    operation_id = "disown_account",
    params(("app_id" = String, Path, description = "The app")),
    request_body(content((MailedToken = "application/json"), (MailedToken = "application/x-www-form-urlencoded"))),
    responses((status = 200, description = "The account was erased; a form is answered with a page", body = Erased),
        (status = 400, description = "`invalid_or_expired_token`, also if the address is already verified"),
        (status = 403, description = "`user_banned`, `app_disabled`"),
        (status = 422, description = "`idempotency_key_reused`")))]
pub(crate) async fn disown(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    as_page: AsPage,
    FormOrJson { value: body, idempotency }: FormOrJson<MailedToken>,
) -> Result<Response, Problem> {
    let done = service.disown(&app_id, &request, &body.token, idempotency).await;
    service.after_use(&app_id, as_page, Purpose::Disown, &body.token, done).await
}

impl CommandService {
    async fn disown(
        &self,
        app_id: &AppId,
        request: &RequestContext,
        token: &str,
        idempotency: Option<Idempotency>,
    ) -> Result<Response, Problem> {
        self.authenticator.app(app_id).await?;
        let token =
            self.tokens.open_one_time(TokenPurpose::EmailVerification, token).ok_or_else(dead_token)?;
        let (user_id, generation) = (token.user_id, token.generation);
        // The caller controls the mailbox, but is not the user.
        let context = self.context(request, app_id, Actor::anonymous(), idempotency);
        let (mut reads, app) = Reads::one::<App>(app_id);
        let user = reads.of::<User>(&user_id);
        let disown = Disown { generation, at: context.at };
        let decide = move |work: &mut Work| {
            let (app, user) = work.drafts((app, user));
            disown.decide(app, user).map_err(not_used)
        };
        let done = self
            .run_ending_sessions(user_id, RevocationReason::Erased, context.clone(), reads, decide)
            .await?;
        self.finish_erasure(user_id, done.position, context).await
    }
}
