//! Asking for a magic link: a mail with a link to log in with.
//!
//! Every address gets one, also one that nobody has if the app is open: the account is made when the link is redeemed. So
//! the work is the same for both. How it is redeemed is in `verify.rs`, what for in `exchange.rs`.

use crate::api::refusals::app_closed;
use crate::mailed_tokens::request::token_of_admin;
use domain::decisions::{IssueLink, NotIssued};
use std::sync::Arc;

use axum::extract::State;
use dispatcher::{Reads, Work};
use domain::app::App;
use domain::magic_link::{Issued, MagicLink, MagicLinkError};
use domain::pkce::CodeChallenge;
use domain::redirect_uri::RedirectUri;
use domain::user::User;
use domain::{AppId, Email, MagicLinkId, UserId};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body};
use http_kit::limits::MailPurpose;
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::field_codes;
use schemas::problems;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::fields;
use crate::mailed_tokens::request::{MailRequest, MailRequested};

/// The longest `state`, in bytes: with the code it must fit into a URL.
const MAX_STATE: usize = 1024;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(request)).routes(routes!(resend))
}

/// Where the link goes, and where it leads.
#[derive(Deserialize, ToSchema)]
#[schema(as = MagicLinkRequest)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMagicLink {
    /// The address.
    #[schema(example = "ada@example.com")]
    email: String,
    /// Where the browser is sent with a code: one of the app's `redirect_uris`, to the letter.
    #[schema(max_length = 2048, example = "https://app.example/callback")]
    redirect_uri: String,
    /// Comes back to that address as it is.
    #[schema(max_length = 1024)]
    state: Option<String>,
    /// The SHA-256 hash of a secret that has to come with the code, in base64url (PKCE, RFC 7636).
    #[schema(min_length = 43, max_length = 43, pattern = "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$")]
    code_challenge: Option<String>,
    /// Only `S256`.
    #[schema(pattern = "^S256$", example = "S256")]
    code_challenge_method: Option<String>,
}

/// What a link leads to, checked.
#[derive(Clone)]
pub(crate) struct Target {
    pub redirect_uri: RedirectUri,
    pub state: Option<String>,
    pub code_challenge: Option<CodeChallenge>,
}

impl NewMagicLink {
    fn target(&self) -> Result<Target, Problem> {
        let redirect_uri = RedirectUri::parse(self.redirect_uri.as_str()).map_err(|_| not_allowed())?;
        let invalid = |member: &str, detail: String| Problem::invalid(member, field_codes::INVALID, detail);
        if self.state.as_ref().is_some_and(|state| state.len() > MAX_STATE) {
            return Err(invalid("/state", format!("at most {MAX_STATE} bytes")));
        }
        if self.code_challenge_method.as_ref().is_some_and(|method| method != "S256") {
            return Err(invalid("/code_challenge_method", "only S256".to_owned()));
        }
        if self.code_challenge_method.is_some() && self.code_challenge.is_none() {
            return Err(invalid("/code_challenge", "a method needs a challenge".to_owned()));
        }
        let code_challenge = self.code_challenge.as_deref().map(CodeChallenge::parse).transpose();
        let code_challenge = code_challenge.map_err(|error| invalid("/code_challenge", error.to_string()))?;
        Ok(Target { redirect_uri, state: self.state.clone(), code_challenge })
    }
}

/// Request a magic link.
///
/// The mail goes to any address, known or not: an unknown one is registered when the link is redeemed, if the app's
/// `registration` is `open`. The answer is the same for all.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/magic-link", tag = "magic links", operation_id = "request_magic_link",
    params(("app_id" = String, Path, description = "The app")), request_body = NewMagicLink,
    security((), ("api_key" = [])),
    responses((status = 202, description = "A mail is sent if the address may have one", body = MailRequested),
        (status = 422, description = "`redirect_uri_not_allowed`, `invalid_email`, `validation_failed`")))]
pub(crate) async fn request(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    body: Body<NewMagicLink>,
) -> Result<MailRequested, Problem> {
    service.request_magic_link(&app_id, &request, &credentials, body, Earlier::Stays).await
}

/// Request a magic link once more.
///
/// The newest link that the address got before stops working if the caller is known to the account, by a device token of it
/// or by being logged in. Otherwise both links work, as somebody else must not spoil the first.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/magic-link/resend", tag = "magic links",
    operation_id = "resend_magic_link",
    params(("app_id" = String, Path, description = "The app")), request_body = NewMagicLink,
    security((), ("api_key" = [])),
    responses((status = 202, description = "A mail is sent if the address may have one", body = MailRequested),
        (status = 422, description = "`redirect_uri_not_allowed`, `invalid_email`, `validation_failed`")))]
pub(crate) async fn resend(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    body: Body<NewMagicLink>,
) -> Result<MailRequested, Problem> {
    service.request_magic_link(&app_id, &request, &credentials, body, Earlier::Superseded).await
}

/// What becomes of the newest link of the address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Earlier {
    /// It is as good as the new one.
    Stays,
    /// It is good for nothing, if whoever asks has been in the account.
    Superseded,
    /// It is good for nothing, or else this one is, which whoever asks got by mail.
    SupersededLike(MagicLinkId),
}

impl CommandService {
    async fn request_magic_link(
        &self,
        app_id: &AppId,
        request: &RequestContext,
        credentials: &Credentials,
        body: Body<NewMagicLink>,
        earlier: Earlier,
    ) -> Result<MailRequested, Problem> {
        let Body { value: body, idempotency } = body;
        let purpose = MailPurpose::MagicLink;
        let asked = MailRequest::new(self, app_id, request, credentials, idempotency, purpose).await?;
        let email = fields::email(&body.email)?;
        let target = body.target()?;
        if !asked.settings().allows_redirect_to(&target.redirect_uri) {
            return Err(not_allowed());
        }
        self.issue_magic_link(asked, request, email, target, earlier).await
    }

    /// Another link in the place of one that is used up or too old, to the same address and for the same purpose.
    pub(crate) async fn issue_magic_link_again(
        &self,
        mut asked: MailRequest<'_>,
        request: &RequestContext,
        old: Issued,
    ) -> Result<MailRequested, Problem> {
        asked.by_reader();
        let Issued { link_id, email, redirect_uri, state, code_challenge, .. } = old;
        // The person was erased: nobody is written to.
        let email = email.ok_or_else(|| Problem::new(problems::INVALID_OR_EXPIRED_TOKEN))?;
        let target = Target { redirect_uri, state, code_challenge };
        if !asked.settings().allows_redirect_to(&target.redirect_uri) {
            return Err(not_allowed());
        }
        self.issue_magic_link(asked, request, email, target, Earlier::SupersededLike(link_id)).await
    }

    /// A link to where the app takes people by default, for somebody whose link cannot be read.
    pub(crate) async fn issue_first_magic_link(
        &self,
        asked: MailRequest<'_>,
        request: &RequestContext,
        email: &str,
    ) -> Result<MailRequested, Problem> {
        let email = fields::email(email)?;
        let redirect_uri = asked.settings().redirect_uris.first().cloned().ok_or_else(not_allowed)?;
        let target = Target { redirect_uri, state: None, code_challenge: None };
        self.issue_magic_link(asked, request, email, target, Earlier::Stays).await
    }

    async fn newest_magic_link(&self, app_id: &AppId, email: &Email) -> Result<Option<MagicLinkId>, Problem> {
        let claim = self.lookup.magic_link_claim(app_id, email);
        let owner = self.repository.journal().claim_owner(&claim).await?;
        Ok(owner.and_then(|stream| stream.uuid()).map(MagicLinkId))
    }

    async fn issue_magic_link(
        &self,
        mut asked: MailRequest<'_>,
        request: &RequestContext,
        email: Email,
        target: Target,
        earlier: Earlier,
    ) -> Result<MailRequested, Problem> {
        let known = asked.locate(&email).await?;
        let app_id = asked.app_id().clone();
        let superseded = match earlier {
            // Somebody else who asks spoils nobody's link.
            Earlier::Superseded if !asked.is_known() => None,
            Earlier::Stays => None,
            Earlier::Superseded => self.newest_magic_link(&app_id, &email).await?,
            Earlier::SupersededLike(link_id) => {
                self.newest_magic_link(&app_id, &email).await?.or(Some(link_id))
            }
        };
        let user_id = known.unwrap_or_else(|| UserId(self.clock.new_id()));
        let link_id = MagicLinkId(self.clock.new_id());
        let recipient = asked.recipient(&email);
        let (client, at) = (request.client.clone(), asked.context().at);
        let Target { redirect_uri, state, code_challenge } = target;
        let issue =
            IssueLink { link_id, user_id, recipient, redirect_uri, state, code_challenge, client, at };
        let (mut reads, app) = Reads::one::<App>(&app_id);
        let user = known.map(|id| reads.of::<User>(&id));
        let superseded = superseded.map(|id| reads.of::<MagicLink>(&id));
        let link = reads.new_one::<MagicLink>(&link_id);
        let decide = move |work: &mut Work| {
            let decided = match (user, superseded) {
                (Some(user), Some(before)) => {
                    let (app, user, before, link) = work.drafts((app, user, before, link));
                    issue.decide(app, Some(user), Some(before), link)
                }
                (Some(user), None) => {
                    let (app, user, link) = work.drafts((app, user, link));
                    issue.decide(app, Some(user), None, link)
                }
                (None, Some(before)) => {
                    let (app, before, link) = work.drafts((app, before, link));
                    issue.decide(app, None, Some(before), link)
                }
                (None, None) => {
                    let (app, link) = work.drafts((app, link));
                    issue.decide(app, None, None, link)
                }
            };
            decided.map_err(not_issued)
        };
        asked.run(reads, decide).await
    }
}

fn not_issued(why: NotIssued) -> Problem {
    match why {
        NotIssued::App(closed) => app_closed(closed),
        NotIssued::TokenOfAdmin(why) => token_of_admin(why),
        NotIssued::Link(MagicLinkError::RedirectNotAllowed) => not_allowed(),
        NotIssued::Link(other) => Problem::internal(other),
    }
}

fn not_allowed() -> Problem {
    let kind = problems::REDIRECT_URI_NOT_ALLOWED;
    Problem::new(kind).field(
        "/redirect_uri",
        kind,
        "it must be one of the app's `redirect_uris`, to the letter",
    )
}
