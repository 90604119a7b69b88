//! Requests that are answered by a mail: who may ask how often, and an answer that tells nothing about the address.
//!
//! What is told, and when, is the same for every address: nothing of what was decided goes into the answer, and it is given
//! at a multiple of a step of time that is longer than an append takes. Only the app's own server is told more, in apps
//! that send their mails themselves: it gets the token instead of a mail.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use axum::response::{IntoResponse, Response};
use domain::app::App;
use domain::settings::{AppSettings, Delivery};
use domain::user::User;
use domain::{AppId, Email, Permission, UserId};
use event_store::{Idempotency, Loaded};
use http_kit::auth::AdminCaller;
use http_kit::cookies::Credentials;
use http_kit::limits::RateClass;
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::envelope::Actor;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::CommandService;
use crate::answers::Done;
use crate::dispatch::{Context, StreamRef, Work};
use crate::login::even_out;
use crate::page::{AsPage, Purpose};

/// An address to send a mail to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mailbox {
    /// The address.
    #[schema(example = "ada@example.com")]
    pub email: String,
}

/// What everybody is told who asks for a mail.
#[derive(Serialize, ToSchema)]
pub(crate) struct MailRequested {
    /// Always `accepted`: a mail is sent if it is of use to anybody.
    #[schema(example = "accepted")]
    status: &'static str,
    /// What the mail would carry. Only the server of an app with `delivery: "app"` gets it, which shows an API key with
    /// `users:write`; absent where there is nothing to send.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl MailRequested {
    /// What is told to all but an app's own server.
    pub fn accepted() -> Self {
        Self { status: "accepted", token: None }
    }
}

impl IntoResponse for MailRequested {
    fn into_response(self) -> Response {
        Done::accepted(self)
    }
}

/// A request for a mail that may be asked for, in so far as that does not depend on the address.
pub(crate) struct MailRequest<'a> {
    service: &'a CommandService,
    app_id: AppId,
    app: Arc<Loaded<App>>,
    server: Option<AdminCaller>,
    context: Context,
    started: Instant,
}

impl<'a> MailRequest<'a> {
    /// Counts the request against its client's limit, unless it comes from the app's own server.
    pub async fn new(
        service: &'a CommandService,
        app_id: &AppId,
        request: &RequestContext,
        credentials: &Credentials,
        idempotency: Option<Idempotency>,
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
        Ok(Self { service, app_id: app_id.clone(), app, server, context, started })
    }

    /// What the app chose.
    pub fn settings(&self) -> &AppSettings {
        &self.app.state.settings
    }

    /// Of which app.
    pub fn app_id(&self) -> &AppId {
        &self.app_id
    }

    /// When and by whom it was asked.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Who has the address, as far as is known. Counts against the limit of the mailbox, whether or not it is anybody's, if
    /// anything can come of the request.
    pub async fn locate(&self, email: &Email) -> Result<Option<UserId>, Problem> {
        if self.server.is_some() || self.settings().delivery == Delivery::Platform {
            self.service.limits.check_mailbox(&self.app_id, email).map_err(Problem::rate_limited)?;
        }
        Ok(self.service.locate.locate(&self.app_id, email).await?)
    }

    /// Who may be sent something at this address.
    pub fn recipient(&self, user_id: UserId, email: &Email) -> Recipient {
        let server_is_limited = self.server.as_ref().is_some_and(|server| !server.full_admin);
        Recipient { app_id: self.app_id.clone(), user_id, email: email.clone(), server_is_limited }
    }

    /// Runs the decision that asks for the mail.
    pub async fn run(
        self,
        reads: Vec<StreamRef>,
        decide: impl FnMut(&mut Work) -> Result<(), Problem> + Send + 'static,
    ) -> Result<MailRequested, Problem> {
        let Self { service, app, server, context, started, .. } = self;
        let by_app = app.state.settings.delivery == Delivery::App;
        let done = match &server {
            Some(server) => Some(service.run_as(server, context, reads, decide).await?),
            // Nobody would ever get the token.
            None if by_app => None,
            None => Some(service.dispatcher.run(context, reads, decide).await?),
        };
        let events = done.filter(|_| by_app && server.is_some()).map(|done| done.events).unwrap_or_default();
        let token = events.iter().find_map(|event| service.tokens.of_event(event));
        even_out(started).await;
        Ok(MailRequested { token, ..MailRequested::accepted() })
    }
}

/// Who is to be sent something, looked at again when it is decided.
#[derive(Clone)]
pub(crate) struct Recipient {
    app_id: AppId,
    user_id: UserId,
    email: Email,
    server_is_limited: bool,
}

impl Recipient {
    /// Whether the user still has the address, and may come in at all. 403 for an app's server that would get the token of
    /// an admin, but may not act as one.
    pub fn is_there(&self, work: &mut Work) -> Result<bool, Problem> {
        let user = work.get::<User>(&self.user_id);
        if self.server_is_limited && user.is_admin() {
            return Err(Problem::forbidden().detail("only a full admin can ask for the token of an admin"));
        }
        Ok(user.is_of(&self.app_id) && !user.banned && user.email.as_ref() == Some(&self.email))
    }
}

/// A key that names this very body: the same key with another body is another request, not a refused one. A refusal would
/// tell that the first request has left something under its key, and so that its address is somebody's.
pub(crate) fn of_this_body(Idempotency { key, fingerprint }: Idempotency) -> Idempotency {
    let mut of_body = [0; 32];
    of_body.copy_from_slice(digest(&SHA256, &[key, fingerprint].concat()).as_ref());
    Idempotency { key: of_body, fingerprint }
}

impl CommandService {
    /// What a request for a mail is answered with: a page, if a page asked.
    pub(crate) async fn after_request(
        &self,
        app_id: &AppId,
        as_page: AsPage,
        purpose: Purpose,
        asked: Result<MailRequested, Problem>,
    ) -> Result<Response, Problem> {
        if !as_page.0 {
            return asked.map(IntoResponse::into_response);
        }
        let app = self.authenticator.existing_app(app_id).await?;
        let pages = self.pages(&app.state);
        Ok(match asked {
            Ok(_) => pages.sent(),
            Err(problem) => pages.refused(purpose, "", problem),
        })
    }

    /// What the use of a token is answered with: a page, if a page asked. A redirect stays one.
    pub(crate) async fn after_use(
        &self,
        app_id: &AppId,
        as_page: AsPage,
        purpose: Purpose,
        token: &str,
        done: Result<Response, Problem>,
    ) -> Result<Response, Problem> {
        if !as_page.0 {
            return done;
        }
        let app = self.authenticator.existing_app(app_id).await?;
        let pages = self.pages(&app.state);
        Ok(match done {
            Ok(response) if response.status().is_redirection() => response,
            Ok(_) => pages.done(purpose),
            Err(problem) => pages.refused(purpose, token, problem),
        })
    }
}
