//! Requesting a magic link.
//!
//! If the app is open, every address gets one, even without an account: redeeming the link creates it. So the work is the
//! same for both. Redeeming is in `verify.rs`, the exchange in `exchange.rs`.

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
use domain::{AppId, AppSettings, Email, MagicLinkId, Timestamp, UserId};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body};
use http_kit::limits::MailPurpose;
use http_kit::problem::{Problem, both};
use http_kit::request::RequestContext;
use jiff::SignedDuration;
use schemas::field_codes;
use schemas::problems;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::fields;
use crate::mailed_tokens::request::{MailRequest, MailRequested};

/// The maximum length of `state` in bytes: with the code it must fit into a URL.
const MAX_STATE: usize = 1024;
/// For how long a link that has expired shows that whoever has it reads the mail of its address.
const READER: SignedDuration = SignedDuration::from_hours(24);

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(request)).routes(routes!(resend))
}

/// The recipient of the link and its destination.
#[derive(Deserialize, ToSchema)]
#[schema(as = MagicLinkRequest)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMagicLink {
    /// The address.
    #[schema(example = "ada@example.com")]
    email: String,
    /// Where the browser is sent with a code: must exactly match one of the app's `redirect_uris`.
    #[schema(max_length = 2048, example = "https://app.example/callback")]
    redirect_uri: String,
    /// Returned to that URI unchanged.
    #[schema(max_length = 1024)]
    state: Option<String>,
    /// The SHA-256 hash, in base64url, of a secret that the exchange must present (PKCE, RFC 7636).
    #[schema(min_length = 43, max_length = 43, pattern = "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$")]
    code_challenge: Option<String>,
    /// Only `S256`.
    #[schema(pattern = "^S256$", example = "S256")]
    code_challenge_method: Option<String>,
}

/// The validated destination of a link.
#[derive(Clone)]
pub(crate) struct Target {
    pub redirect_uri: RedirectUri,
    pub state: Option<String>,
    pub code_challenge: Option<CodeChallenge>,
}

impl NewMagicLink {
    fn target(&self, allowed: &AppSettings) -> Result<Target, Problem> {
        let redirect_uri = RedirectUri::parse(self.redirect_uri.as_str()).ok();
        let redirect_uri = redirect_uri.filter(|uri| allowed.allows_redirect_to(uri)).ok_or_else(not_allowed);
        let invalid = |member: &str, detail: String| Problem::invalid(member, field_codes::INVALID, detail);
        let state = match &self.state {
            Some(state) if state.len() > MAX_STATE => {
                Err(invalid("/state", format!("at most {MAX_STATE} bytes")))
            }
            state => Ok(state.clone()),
        };
        let method = match self.code_challenge_method.as_deref() {
            Some(method) if method != "S256" => {
                Err(invalid("/code_challenge_method", "only S256".to_owned()))
            }
            method => Ok(method),
        };
        let code_challenge = match self.code_challenge.as_deref().map(CodeChallenge::parse).transpose() {
            Ok(None) if self.code_challenge_method.is_some() => {
                Err(invalid("/code_challenge", "a method needs a challenge".to_owned()))
            }
            parsed => parsed.map_err(|error| invalid("/code_challenge", error.to_string())),
        };
        let ((redirect_uri, state), (code_challenge, _)) =
            both(both(redirect_uri, state), both(code_challenge, method))?;
        Ok(Target { redirect_uri, state, code_challenge })
    }
}

/// Request a magic link.
///
/// Any address gets the mail, with an account or without: if the app's `registration` is `open`, redeeming the link
/// registers it. The answer is always the same.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/magic-link", tag = "magic links", operation_id = "request_magic_link",
    params(("app_id" = String, Path, description = "The app")), request_body = NewMagicLink,
    security((), ("api_key" = [])),
    responses((status = 202, description = "A mail is sent if the address is eligible", body = MailRequested),
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

/// Request another magic link.
///
/// If the caller is known to the account, by its device token or a login, the previous link stops working. Otherwise both
/// work, so that a stranger cannot invalidate the first.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/magic-link/resend", tag = "magic links",
    operation_id = "resend_magic_link",
    params(("app_id" = String, Path, description = "The app")), request_body = NewMagicLink,
    security((), ("api_key" = [])),
    responses((status = 202, description = "A mail is sent if the address is eligible", body = MailRequested),
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

/// What happens to the newest link of the address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Earlier {
    /// It stays valid beside the new one.
    Stays,
    /// It is invalidated if the caller is a known client of the account.
    Superseded,
    /// It is invalidated, or else this link is, which the caller received by mail.
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
        let (email, target) = both(fields::email(&body.email), body.target(asked.settings()))?;
        self.issue_magic_link(asked, request, email, target, earlier).await
    }

    /// Issues a link to replace a used or expired one, to the same address and for the same purpose.
    pub(crate) async fn issue_magic_link_again(
        &self,
        mut asked: MailRequest<'_>,
        request: &RequestContext,
        old: Issued,
    ) -> Result<MailRequested, Problem> {
        let shows_reader = self.shows_reader(asked.app_id(), &old, asked.context().at).await?;
        if shows_reader {
            asked.by_reader();
        }
        let Issued { link_id, email, redirect_uri, state, code_challenge, .. } = old;
        // The person was erased, so no mail is sent.
        let email = email.ok_or_else(|| Problem::new(problems::INVALID_OR_EXPIRED_TOKEN))?;
        let earlier = if shows_reader { Earlier::SupersededLike(link_id) } else { Earlier::Stays };
        let target = Target { redirect_uri, state, code_challenge };
        if !asked.settings().allows_redirect_to(&target.redirect_uri) {
            return Err(not_allowed());
        }
        self.issue_magic_link(asked, request, email, target, earlier).await
    }

    /// Whether whoever has this link reads the mail of its address. One of long ago may be in anybody's archive, and what ended
    /// all access of the account ended this as well.
    async fn shows_reader(&self, app_id: &AppId, link: &Issued, at: Timestamp) -> Result<bool, Problem> {
        let Some(email) = link.email.as_ref().filter(|_| at < domain::time::after(link.expires_at, READER))
        else {
            return Ok(false);
        };
        let Some(user_id) = self.locate.locate(app_id, email).await? else { return Ok(true) };
        let user = self.repository.load::<User>(&user_id).await?;
        Ok(!link.is_older_than(user_id, user.state.access()))
    }

    /// Issues a link to the app's default destination, for a person whose link is unreadable.
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
            // A stranger cannot invalidate anybody's link.
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
    Problem::new(kind).field("/redirect_uri", kind, "it must exactly match one of the app's `redirect_uris`")
}
