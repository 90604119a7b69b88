//! Requests answered with a mail: how often a client may ask, and an answer that reveals nothing about the address.
//!
//! A request is charged to the client that makes it, per mailbox. The mailbox's own budget is charged by mails actually sent,
//! separately for each purpose. When it is used up, nothing is sent and the answer stays the same: a different answer would
//! reveal that something was sent before. The owner still has those mails, whose links all work, and a reserve that only known
//! clients of the account can use.
//!
//! Content and timing of the answer are the same for every address: the outcome of the decision does not go into it, and it
//! is given at a multiple of a time step longer than an append takes. The exception is the app's own server, in apps that
//! send their mails themselves: it gets the token instead of a mail.

use crate::api::refusals::app_closed;
use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use axum::response::{IntoResponse, Response};
use dispatcher::{Committed, Context, Reads, Work};
use domain::app::App;
use domain::decisions::{NotRequested, Recipient, RequestToken, TokenOfAdmin, Wanted};
use domain::mail::mails_of;
use domain::settings::{AppSettings, SentBy};
use domain::user::User;
use domain::{AppId, Email, Permission, UserId};
use event_store::{Idempotency, Loaded};
use http::header;
use http_kit::auth::{AdminCaller, Caller};
use http_kit::cookies::Credentials;
use http_kit::limits::{Asker, MailPurpose, RateClass};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::envelope::Actor;
use schemas::problems;
use serde::{Deserialize, Serialize};
use tokens::TokenPurpose;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::timing::even_out;
use crate::pages::page::{AsPage, Purpose};

/// An address to send a mail to.
#[derive(Deserialize, ToSchema)]
#[schema(as = MailRequest)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mailbox {
    /// The address.
    #[schema(example = "ada@example.com")]
    pub email: String,
}

/// The answer to every request for a mail.
#[derive(Serialize, ToSchema)]
pub(crate) struct MailRequested {
    /// Always `accepted`, whether or not a mail is sent.
    #[schema(example = "accepted")]
    status: &'static str,
    /// The token the mail would carry. Only for the server of an app with `delivery: "app"`, authenticated by an API
    /// key with `users:write`; absent if there is nothing to send.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl MailRequested {
    /// The answer for everybody but an app's own server.
    pub fn accepted() -> Self {
        Self { status: "accepted", token: None }
    }
}

impl IntoResponse for MailRequested {
    fn into_response(self) -> Response {
        Done::accepted(self)
    }
}

/// A request for a mail that passed all checks that do not depend on the address.
pub(crate) struct MailRequest<'a> {
    service: &'a CommandService,
    app_id: AppId,
    app: Arc<Loaded<App>>,
    server: Option<AdminCaller>,
    context: Context,
    started: Instant,
    purpose: MailPurpose,
    credentials: Credentials,
    address: Option<IpAddr>,
    /// The recipient, once known.
    email: Option<Email>,
    /// Whether the caller is a known client of the account, or reads its mail.
    is_known: bool,
}

impl<'a> MailRequest<'a> {
    /// Counts the request against its client's limit, unless it comes from the app's own server.
    pub async fn new(
        service: &'a CommandService,
        app_id: &AppId,
        request: &RequestContext,
        credentials: &Credentials,
        idempotency: Option<Idempotency>,
        purpose: MailPurpose,
    ) -> Result<Self, Problem> {
        let started = Instant::now();
        let app = service.authenticator.app(app_id).await?;
        let server = service.authenticator.server(app_id, credentials).await?;
        let actor = if let Some(server) = &server {
            server.require(Permission::UsersWrite)?;
            server.actor.clone()
        } else {
            service.limits.check(RateClass::Mail, request.address).map_err(Problem::rate_limited)?;
            Actor::anonymous()
        };
        let context = service.context(request, app_id, actor, idempotency.map(of_this_body));
        Ok(Self {
            service,
            app_id: app_id.clone(),
            app,
            server,
            context,
            started,
            purpose,
            credentials: credentials.clone(),
            address: request.address,
            email: None,
            is_known: false,
        })
    }

    /// The app's settings.
    pub fn settings(&self) -> &AppSettings {
        &self.app.state.settings
    }

    /// Whether the caller is a full admin of the app.
    pub fn full_admin(&self) -> bool {
        self.server.as_ref().is_some_and(|server| server.full_admin)
    }

    /// The app.
    pub fn app_id(&self) -> &AppId {
        &self.app_id
    }

    /// When the request was made, and by whom.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Marks the caller as a reader of the mailbox, after they presented a link from an earlier mail.
    pub fn by_reader(&mut self) {
        self.is_known = true;
    }

    /// Whether the caller is a known client of the account, or reads its mail.
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// The account with this address, if one is found. Counts against the client's budget for the mailbox, whether or not
    /// it has an account, if the request can have an effect.
    pub async fn locate(&mut self, email: &Email) -> Result<Option<UserId>, Problem> {
        let service = self.service;
        if self.sends() {
            service.require_deliverable(email, "/email").await?;
        }
        let known = service.locate.locate(&self.app_id, email).await?;
        let device = match known {
            Some(user_id) => {
                service.known_client(&self.app_id, user_id, &self.credentials, self.context.at).await?
            }
            None => None,
        };
        if self.server.is_some() || self.sends() {
            let asker = match (device, &self.server) {
                (Some(device), _) => Asker::Device(device),
                (None, Some(AdminCaller { caller: Caller::ApiKey { key_id, .. }, .. })) => {
                    Asker::Server(*key_id)
                }
                (None, _) => Asker::Address(self.address),
            };
            let counted = service.limits.check_mailbox(&self.app_id, email, self.purpose, asker);
            counted.map_err(Problem::rate_limited)?;
        }
        self.is_known |= device.is_some();
        self.email = Some(email.clone());
        Ok(known)
    }

    /// Whether the platform sends the app's mails.
    fn sends(&self) -> bool {
        self.settings().delivery == SentBy::Platform
    }

    /// Who may get mail at this address.
    pub fn recipient(&self, email: &Email) -> Recipient {
        let server_is_limited = self.server.as_ref().is_some_and(|server| !server.full_admin);
        Recipient { app_id: self.app_id.clone(), email: email.clone(), server_is_limited }
    }

    /// Requests a token for the account with this address, if there is one.
    pub async fn run_for_token(
        self,
        wanted: Wanted,
        known: Option<UserId>,
        email: &Email,
        request: &RequestContext,
    ) -> Result<MailRequested, Problem> {
        let (recipient, full_admin) = (self.recipient(email), self.full_admin());
        let (client, at) = (request.client.clone(), self.context.at);
        let (mut reads, app) = Reads::one::<App>(&self.app_id);
        let user = known.map(|id| reads.of::<User>(&id));
        let token = RequestToken { wanted, recipient, full_admin, client, at };
        let decide = move |work: &mut Work| {
            let decided = match user {
                Some(user) => {
                    let (app, user) = work.drafts((app, user));
                    token.decide(app, Some(user))
                }
                None => token.decide(work.get(app), None),
            };
            decided.map_err(|why| match why {
                NotRequested::App(closed) => app_closed(closed),
                NotRequested::TokenOfAdmin(why) => token_of_admin(why),
                NotRequested::User(error) => Problem::internal(error),
            })
        };
        self.run(reads, decide).await
    }

    /// Runs the decision that requests the mail.
    pub async fn run(
        self,
        reads: Reads,
        decide: impl FnMut(&mut Work) -> Result<(), Problem> + Send + 'static,
    ) -> Result<MailRequested, Problem> {
        let sends = self.sends();
        let Self { service, app_id, server, context, started, purpose, email, is_known, .. } = self;
        let by_app = !sends;
        let mut spent = None;
        if let Some(email) = email.filter(|_| sends) {
            spent = service.limits.spend_mail(&app_id, &email, purpose, is_known).ok();
            if spent.is_none() {
                metrics::counter!("watchword_mails_withheld_total").increment(1);
                even_out(started).await;
                return Ok(MailRequested::accepted());
            }
        }
        let done = match &server {
            Some(server) => service.run_as(server, context, reads, decide).await.map(Some),
            // The token would reach no one.
            None if by_app => Ok(None),
            None => service.dispatcher.run(context, reads, decide).await.map(Some),
        };
        let is_sent = matches!(&done, Ok(Some(done)) if asks_for_a_mail(done));
        if let Some(spent) = spent.filter(|_| !is_sent) {
            service.limits.not_sent(spent);
        }
        let done = done?;
        let events = done.filter(|_| by_app && server.is_some()).map(|done| done.events).unwrap_or_default();
        // The app may have let Watchword send its mails meanwhile: what is mailed is handed to nobody.
        let handed_out = events.iter().filter(|event| mails_of(event).is_empty());
        let token = handed_out.into_iter().find_map(|event| service.tokens.of_event(event));
        even_out(started).await;
        Ok(MailRequested { token, ..MailRequested::accepted() })
    }
}

/// 403 for an app's server that would receive an admin's token without being entitled to act as an admin.
pub(crate) fn token_of_admin(why: TokenOfAdmin) -> Problem {
    Problem::forbidden().detail(why.to_string())
}

/// Whether the committed events request a mail.
pub(crate) fn asks_for_a_mail<T>(done: &Committed<T>) -> bool {
    !done.replayed && done.events.iter().any(|event| !mails_of(event).is_empty())
}

/// Binds the idempotency key to the body: the same key with another body counts as another request and is not refused. A
/// refusal would reveal that the first request stored something under its key, and so that its address has an account.
pub(crate) fn of_this_body(Idempotency { key, fingerprint }: Idempotency) -> Idempotency {
    let mut of_body = [0; 32];
    of_body.copy_from_slice(digest(&SHA256, &[key, fingerprint].concat()).as_ref());
    Idempotency { key: of_body, fingerprint }
}

impl CommandService {
    /// 422 for an address that the mail server cannot send to: without SMTPUTF8 (RFC 6531) it accepts only ASCII before the
    /// `@`. The check does not depend on whether the address has an account.
    pub(crate) async fn require_deliverable(&self, email: &Email, pointer: &str) -> Result<(), Problem> {
        if email.as_str().is_ascii() {
            return Ok(());
        }
        let Some(server) = self.mail_server.get() else { return Ok(()) };
        if server.takes_utf8().await != Some(false) {
            return Ok(());
        }
        let kind = problems::INVALID_EMAIL;
        let why = "the mail server takes only ASCII characters before the @ (it does not announce SMTPUTF8): \
                   use another address";
        Err(Problem::new(kind).detail(why).field(pointer, kind, why))
    }

    /// The answer to a request for a mail: a page if the request came from a page.
    pub(crate) async fn after_request(
        &self,
        app_id: &AppId,
        as_page: AsPage,
        purpose: Purpose,
        asked: Result<MailRequested, Problem>,
    ) -> Result<Response, Problem> {
        if !as_page.is_form {
            return asked.map(IntoResponse::into_response);
        }
        let app = self.authenticator.existing_app(app_id).await?;
        let pages = self.pages(&app.state).read_by(as_page);
        Ok(match asked {
            Ok(_) => pages.sent(),
            Err(problem) => pages.refused(purpose, "", problem),
        })
    }

    /// The answer to a redeemed token: a page if the request came from a page. A redirect stays one.
    pub(crate) async fn after_use(
        &self,
        app_id: &AppId,
        as_page: AsPage,
        purpose: Purpose,
        token: &str,
        done: Result<Response, Problem>,
    ) -> Result<Response, Problem> {
        if !as_page.is_form {
            return done;
        }
        let app = self.authenticator.existing_app(app_id).await?;
        let pages = self.pages(&app.state).read_by(as_page);
        Ok(match done {
            Ok(response) if response.status().is_redirection() => response,
            Ok(response) => {
                let mut page = pages.done(purpose);
                for cookie in response.headers().get_all(header::SET_COOKIE) {
                    page.headers_mut().append(header::SET_COOKIE, cookie.clone());
                }
                page
            }
            Err(problem) => match (purpose, problem.kind()) {
                // An invalid link must not reveal an account.
                (Purpose::MagicLink, problems::INVALID_OR_EXPIRED_TOKEN)
                    if self.magic_link_of(app_id, token).await.is_err() =>
                {
                    pages.dead(purpose, "")
                }
                (Purpose::PasswordReset, problems::WEAK_PASSWORD) => {
                    let known = self.one_time_token(app_id, TokenPurpose::PasswordReset, token).await;
                    let email = known.ok().and_then(|(_, user)| user.state.email.clone());
                    pages.about(email.as_ref()).refused(purpose, token, problem)
                }
                _ => pages.refused(purpose, token, problem),
            },
        })
    }
}
