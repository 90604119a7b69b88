//! Redeeming a magic link: a page with one button, and what happens when it is pressed.
//!
//! Mail scanners open links, some repeatedly, so opening one changes nothing. Pressing the button proves control of the
//! mailbox: it registers an unknown address, or else records the proof, which ends everything set up in the account without
//! one. The browser continues to the app with a code, never with tokens.

use crate::api::refusals::{app_closed, dead_token};
use domain::decisions::{NotRedeemed, RedeemLink};
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use dispatcher::{Context, DispatchError, Premise, Reads, Work};
use domain::app::App;
use domain::magic_link::{Issued, MagicLink, MagicLinkError};
use domain::session::RevocationReason;
use domain::user::{Client, User};
use domain::{AppId, Email, MagicLinkId, UserId};
use event_store::Idempotency;
use http::{StatusCode, header};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, FormOrJson, Params};
use http_kit::limits::MailPurpose;
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::envelope::Actor;
use schemas::field_codes::{self, FieldCode};
use schemas::problems;
use serde::Deserialize;
use tokens::MagicLinkToken;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::mailed_tokens::redeem::MailedToken;
use crate::mailed_tokens::request::{MailRequest, MailRequested};
use crate::pages::page::{AsPage, LinkToken, Purpose};

/// How often to look up the owner of the address again because it changed meanwhile.
const MAX_LOOKS: usize = 4;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(page, verify)).routes(routes!(again))
}

/// Get the page of a magic link.
///
/// HTML with one button, for the person who opens the link. Opening it never changes anything, because mail scanners open
/// links too.
#[utoipa::path(get, path = "/v1/apps/{app_id}/auth/magic-link/verify", tag = "magic links", operation_id = "get_magic_link_page",
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
    Ok(match service.magic_link_of(&app_id, &token).await {
        Ok((_, link)) => match link.state.require_live(at) {
            Ok(issued) => {
                let pages = pages.about(issued.email.as_ref());
                pages.ask(Purpose::MagicLink, &token, Some(&issued.redirect_uri))
            }
            Err(_) => pages.dead(Purpose::MagicLink, &token),
        },
        Err(problem) if problem.kind() == dead_token().kind() => pages.dead(Purpose::MagicLink, ""),
        Err(problem) => pages.refused(Purpose::MagicLink, "", problem),
    })
}

/// Redeem a magic link.
///
/// A link works once. An address without an account is registered. If the address of an account was not verified before,
/// the account's password and sessions end.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/magic-link/verify", tag = "magic links",
    operation_id = "redeem_magic_link",
    params(("app_id" = String, Path, description = "The app")),
    request_body(content((MailedToken = "application/json"), (MailedToken = "application/x-www-form-urlencoded"))),
    responses((status = 303, description = "To the `redirect_uri` with `code` and `state` added to its query",
            headers(("Location" = String, description = "The target"))),
        (status = 400, description = "`invalid_or_expired_token`"),
        (status = 403, description = "`user_banned`, `registration_closed`, `app_disabled`"),
        (status = 422, description = "`redirect_uri_not_allowed`: the app has removed it from its list; `idempotency_key_reused`")))]
pub(crate) async fn verify(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    as_page: AsPage,
    FormOrJson { value: body, idempotency }: FormOrJson<MailedToken>,
) -> Result<Response, Problem> {
    let done = service.redeem_magic_link(&app_id, &request, &body.token, idempotency).await;
    service.after_use(&app_id, as_page, Purpose::MagicLink, &body.token, done).await
}

/// Request another magic link with an old one.
///
/// For the page of an expired link. The new link has the same address and destination. If the request carries an address
/// instead of a link, because a mail program broke the link, the destination is the first of the app's `redirect_uris`.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/magic-link/verify/again", tag = "magic links",
    operation_id = "request_magic_link_again",
    params(("app_id" = String, Path, description = "The app")),
    request_body(content((OldLink = "application/json"), (OldLink = "application/x-www-form-urlencoded"))),
    responses((status = 202, description = "A mail is sent if the address is eligible", body = MailRequested),
        (status = 400, description = "`invalid_or_expired_token`: not a link of this app"),
        (status = 422, description = "`redirect_uri_not_allowed`: the app has removed it from its list")))]
pub(crate) async fn again(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    as_page: AsPage,
    FormOrJson { value: body, idempotency }: FormOrJson<OldLink>,
) -> Result<Response, Problem> {
    let asked = service.ask_again(&app_id, &request, &credentials, &body, idempotency).await;
    service.after_request(&app_id, as_page, Purpose::MagicLink, asked).await
}

/// A used or expired link, or the address it was sent to.
#[derive(Deserialize, ToSchema)]
#[schema(as = MagicLinkAgainRequest)]
#[serde(deny_unknown_fields)]
pub(crate) struct OldLink {
    /// The token of the old link.
    #[serde(default)]
    #[schema(example = "wwm_…")]
    token: Option<String>,
    /// The address, if the link is not at hand.
    #[serde(default)]
    email: Option<String>,
}

/// The input of a redemption's decision.
struct Redemption {
    link_id: MagicLinkId,
    issued: Issued,
    email: Email,
    client: Client,
}

impl CommandService {
    async fn ask_again(
        &self,
        app_id: &AppId,
        request: &RequestContext,
        credentials: &Credentials,
        old: &OldLink,
        idempotency: Option<Idempotency>,
    ) -> Result<MailRequested, Problem> {
        let purpose = MailPurpose::MagicLink;
        let asked = MailRequest::new(self, app_id, request, credentials, idempotency, purpose).await?;
        let token = match (&old.token, &old.email) {
            (Some(token), None) => token,
            (None, Some(email)) => return self.issue_first_magic_link(asked, request, email).await,
            (None, None) => return Err(either(field_codes::MISSING)),
            (Some(_), Some(_)) => return Err(either(field_codes::INVALID)),
        };
        let (_, link) = self.magic_link_of(app_id, token).await?;
        let old = link.state.issued.clone().ok_or_else(dead_token)?;
        self.issue_magic_link_again(asked, request, old).await
    }

    async fn redeem_magic_link(
        &self,
        app_id: &AppId,
        request: &RequestContext,
        token: &str,
        idempotency: Option<Idempotency>,
    ) -> Result<Response, Problem> {
        self.authenticator.app(app_id).await?;
        let (link_id, link) = self.magic_link_of(app_id, token).await?;
        let issued = link.state.issued.clone().ok_or_else(dead_token)?;
        // Absent once the person is erased: an old mail must not restore an account under their address.
        let email = issued.email.clone().ok_or_else(dead_token)?;
        let redemption = Redemption { link_id, issued, email, client: request.client.clone() };
        let context = self.context(request, app_id, Actor::anonymous(), idempotency);
        for _ in 0..MAX_LOOKS {
            if self.redeem(app_id, &redemption, context.clone()).await? {
                return Ok(self.to_the_app(&redemption));
            }
        }
        Err(Problem::overloaded("an address kept changing owners"))
    }

    /// Redeems the link; `None` if the owner of the address changed since it was read.
    async fn redeem(
        &self,
        app_id: &AppId,
        redemption: &Redemption,
        context: Context,
    ) -> Result<bool, Problem> {
        // Read from the journal, because a read model may lag behind and the address must not be registered twice.
        let claim = self.lookup.email_claim(app_id, &redemption.email);
        let owner = self.repository.journal().claim_owner(&claim).await?;
        let owner = match owner.and_then(|stream| stream.uuid()).map(UserId) {
            // An attacker with write access to the store could have removed the claim. A read model may still know the
            // account.
            None => self.locate.locate(app_id, &redemption.email).await?,
            owner => owner,
        };
        let user_id = owner.unwrap_or(redemption.issued.user_id);
        let redeem = RedeemLink {
            user_id,
            is_owned: owner.is_some(),
            email: redemption.email.clone(),
            client: redemption.client.clone(),
            at: context.at,
        };
        let (mut reads, app) = Reads::one::<App>(app_id);
        let (user, link) = (reads.of::<User>(&user_id), reads.of::<MagicLink>(&redemption.link_id));
        let decide = move |work: &mut Work| {
            let (app, user, link) = work.drafts((app, user, link));
            match redeem.decide(app, user, link) {
                Ok(()) => Ok(Premise::Held),
                Err(NotRedeemed::AddressMoved) => Ok(Premise::Changed),
                Err(why) => Err(not_redeemed(why)),
            }
        };
        let reason = RevocationReason::EmailVerified;
        match self.run_ending_sessions(user_id, reason, context, reads, decide).await {
            Ok(done) => Ok(!matches!(done.value, Some(Premise::Changed))),
            Err(DispatchError::ClaimTaken { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn to_the_app(&self, redemption: &Redemption) -> Response {
        let Issued { redirect_uri, state, .. } = &redemption.issued;
        let code = MagicLinkToken(redemption.link_id).encode_code(&self.tokens);
        let mut query = vec![("code", code.as_str())];
        query.extend(state.as_deref().map(|state| ("state", state)));
        let headers = [
            (header::LOCATION, redirect_uri.with_query(&query)),
            (header::CACHE_CONTROL, "no-store".to_owned()),
            (header::REFERRER_POLICY, "no-referrer".to_owned()),
        ];
        (StatusCode::SEE_OTHER, headers).into_response()
    }
}

fn either(code: FieldCode) -> Problem {
    let detail = "send either `token` or `email`";
    Problem::malformed_member("/token", code, detail).field("/email", code, detail)
}

fn not_redeemed(why: NotRedeemed) -> Problem {
    match why {
        NotRedeemed::App(closed) => app_closed(closed),
        NotRedeemed::Link(error) => link_problem(error),
        NotRedeemed::Banned => Problem::new(problems::USER_BANNED),
        NotRedeemed::MadeByTwin => dead_token(),
        NotRedeemed::AddressMoved => Problem::internal(why),
        NotRedeemed::User(error) => Problem::internal(error),
    }
}

fn link_problem(error: MagicLinkError) -> Problem {
    match error {
        MagicLinkError::Absent
        | MagicLinkError::Superseded
        | MagicLinkError::Expired
        | MagicLinkError::Used => dead_token(),
        MagicLinkError::RedirectNotAllowed => {
            let kind = problems::REDIRECT_URI_NOT_ALLOWED;
            Problem::new(kind).field(
                "/token",
                kind,
                "the app no longer allows the address to which its link leads",
            )
        }
        MagicLinkError::RegistrationClosed => Problem::new(problems::REGISTRATION_CLOSED),
        MagicLinkError::Exists | MagicLinkError::InvalidCode => Problem::internal(error),
    }
}
