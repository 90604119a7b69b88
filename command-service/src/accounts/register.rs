//! Registration: the account, the claim on its address, and its first session or verification mail, in one append.

use crate::api::refusals::{app_closed, may_not_enter};
use domain::decisions::{
    NotRegistered, NotTold, Register, RegisterInvited, StartSession, TellOfRegistration,
};
use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use dispatcher::{Committed, Context, DispatchError, Reads, Work};
use domain::app::App;
use domain::session::{LoginMethod, Session};
use domain::settings::{AppSettings, Registration, SentBy};
use domain::user::User;
use domain::{AppId, Email, SessionId, UserId};
use http_kit::answers::UserBody;
use http_kit::extract::{AppScope, Body};
use http_kit::limits::{Asker, MailPurpose, RateClass};
use http_kit::problem::{Problem, both};
use http_kit::request::RequestContext;
use schemas::envelope::Actor;
use schemas::problems;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::fields;
use crate::api::timing::even_out;
use crate::callers::credentials_limit::Counted;
use crate::invitations::Presented;
use crate::mailed_tokens::request::{asks_for_a_mail, of_this_body};
use crate::sessions::tokens::{ChainLink, TokensBody};

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(register))
}

/// A new account.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = RegisterRequest)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewAccount {
    /// The address. Within an app it identifies one account.
    #[schema(example = "ada@example.com")]
    email: String,
    /// The password. It is compared exactly as sent, after Unicode NFC normalization.
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 1024, example = "correct horse battery")]
    password: SecretString,
    /// The name shown to people.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// The profile picture: an http or https URL.
    #[schema(max_length = 2048)]
    avatar_url: Option<String>,
    /// A telephone number.
    #[schema(min_length = 1, max_length = 40)]
    phone: Option<String>,
    /// The token of an invitation to an organization, in an app whose `registration` is `invite_only`. It lets its address
    /// register, and nothing more: the address is not verified by it, and the invitation is accepted afterwards.
    #[schema(example = "wwi_…")]
    invitation: Option<String>,
}

/// What came of a registration. With the status `registered` it has what a login answers; with `verification_sent` it has
/// nothing else.
#[derive(Default, Serialize, ToSchema)]
#[schema(as = Registered)]
pub(crate) struct RegistrationBody {
    /// What was done.
    status: RegistrationStatus,
    /// A JWT (RFC 9068). In cookie mode it is only in a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    access_token: Option<String>,
    /// Always `Bearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "Bearer")]
    token_type: Option<&'static str>,
    /// The remaining lifetime of the access token in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u32, required = false)]
    expires_in: Option<u32>,
    /// Use it once, for the next pair. In cookie mode it is only in a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    refresh_token: Option<String>,
    /// The session they belong to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Uuid, required = false)]
    session_id: Option<Uuid>,
    /// The user they belong to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = UserBody, required = false)]
    user: Option<UserBody>,
}

/// What a registration did.
#[derive(Clone, Copy, Default, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RegistrationStatus {
    /// The account was made, and is logged in.
    Registered,
    /// A mail was sent to the address, whether or not it was taken.
    #[default]
    VerificationSent,
}

impl From<TokensBody> for RegistrationBody {
    fn from(tokens: TokensBody) -> Self {
        let TokensBody { access_token, token_type, expires_in, refresh_token, session_id, user } = tokens;
        Self {
            status: RegistrationStatus::Registered,
            access_token,
            token_type: Some(token_type),
            expires_in: Some(expires_in),
            refresh_token,
            session_id: Some(session_id),
            user: Some(user),
        }
    }
}

/// Register an account.
///
/// The account is logged in at once: 201, with the `status` `registered`. Apps with `require_verified_email` instead answer
/// 202 and `verification_sent`, whether or not the address is taken, and start no session; a mail goes to the address, either
/// to verify it or to tell its owner that somebody tried to register. Apps with `delivery: "app"` then get the token with
/// `POST …/auth/email-verification/request`.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/register", tag = "auth", operation_id = "register",
    params(("app_id" = String, Path, description = "The app")), request_body = NewAccount,
    responses((status = 201, description = "The account's first tokens", body = RegistrationBody),
        (status = 202, description = "A mail was sent to the address", body = RegistrationBody,
            example = json!({ "status": "verification_sent" })),
        (status = 401, description = "`session_revoked`, `session_expired`: a repeated request whose session has ended"),
        (status = 403, description = "`registration_closed`, `app_disabled`"),
        (status = 409, description = "`email_taken`"),
        (status = 422, description = "`weak_password`, `invalid_email`, `validation_failed`, `idempotency_key_reused`")))]
pub(crate) async fn register(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    Counted(asker): Counted,
    Body { value: body, idempotency }: Body<NewAccount>,
) -> Result<Response, Problem> {
    let started = Instant::now();
    let app = service.authenticator.app(&app_id).await?;
    let settings = &app.state.settings;
    // A stored result would reveal to a second request with another body that the address was free.
    let idempotency =
        if settings.require_verified_email { idempotency.map(of_this_body) } else { idempotency };
    let mut context = service.context(&request, &app_id, Actor::anonymous(), idempotency);
    // If the app hides whether an address was free, a repeated request must take as long as any other.
    if !settings.require_verified_email
        && let Some(done) = service.dispatcher.replayed::<(), Problem>(&mut context).await?
    {
        return service.registered(&app_id, &done, started).await;
    }
    let invitation = service.admission(&app_id, settings, body.invitation.as_deref()).await?;
    let password = body.password.expose_secret();
    let password = service.new_password(password, settings.password_min_length, "/password").await;
    let profile = fields::profile(body.name, body.phone, body.avatar_url);
    let ((email, password), profile) =
        both(both(fields::new_email(&body.email, "/email"), password), profile)?;
    if invitation.as_ref().is_some_and(|invitation| invitation.address.as_ref() != Some(&email)) {
        return Err(of_another_address());
    }
    if settings.require_verified_email {
        if let Asker::Address(address) = asker {
            service.limits.check(RateClass::Mail, address).map_err(Problem::rate_limited)?;
        }
        let counted = service.limits.check_mailbox(&app_id, &email, MailPurpose::Registration, asker);
        counted.map_err(Problem::rate_limited)?;
        if settings.delivery == SentBy::Platform {
            service.require_deliverable(&email, "/email").await?;
        }
    }
    // Hashed whether or not the address is taken, so that timing reveals nothing.
    let password_hash = service.passwords.hash(&password).await?;
    if service.is_taken(&app_id, &email).await? {
        // A concurrent request with the same idempotency key may have finished while this one was hashing.
        if let Some(done) = service.dispatcher.replayed::<(), Problem>(&mut context).await? {
            return service.registered(&app_id, &done, started).await;
        }
        let is_invited = invitation.is_some();
        return service.taken(&app_id, settings, (email, is_invited), context, &request, started).await;
    }

    let user_id = UserId(service.clock.new_id());
    let session_id = SessionId(service.clock.new_id());
    let (at, client) = (context.at, request.client.clone());
    let (after, address) = (context.clone(), email.clone());
    // If the mailbox's budget is spent, the user can request the mail again later.
    let spent = service.limits.spend_mail(&app_id, &email, MailPurpose::Registration, false).ok();
    let may_send = spent.is_some();
    let (method, latest) = (LoginMethod::Registration, service.repository.latest(at));
    let start = StartSession { session_id, method, client, at, latest };
    let register = Register { user_id, email, password_hash, profile, may_send, start };
    let (mut reads, app_read) = Reads::one::<App>(&app_id);
    let (user, session) = (reads.new_one::<User>(&user_id), reads.new_one::<Session>(&session_id));
    let shown = invitation.as_ref().map(|invitation| invitation.read(&mut reads));
    let is_invited = invitation.is_some();
    let decide = move |work: &mut Work| {
        let is_invited = invitation.as_ref().zip(shown).is_some_and(|(invitation, shown)| {
            let invitation_id = invitation.invitation_id;
            let by = RegisterInvited { invitation_id, invited: invitation.address.clone(), at };
            let inviter = shown.inviter(work);
            by.lets_in(work.get(app_read), inviter, work.get(shown.organization), &register.email)
        });
        let (app, user, session) = work.drafts((app_read, user, session));
        register.decide(app, is_invited, user, session).map_err(not_registered)
    };
    let done = service.dispatcher.run(context, reads, decide).await;
    if let Some(spent) = spent.filter(|_| !done.as_ref().is_ok_and(asks_for_a_mail)) {
        service.limits.not_sent(spent);
    }
    match done {
        Ok(done) => service.registered(&app_id, &done, started).await,
        Err(DispatchError::ClaimTaken { .. }) => {
            service.taken(&app_id, settings, (address, is_invited), after, &request, started).await
        }
        Err(error) => Err(error.into()),
    }
}

impl CommandService {
    /// The invitation without which the app takes nobody; 403 if it does not hold, or the app takes no new users at all.
    async fn admission(
        &self,
        app_id: &AppId,
        settings: &AppSettings,
        token: Option<&str>,
    ) -> Result<Option<Presented>, Problem> {
        match (settings.registration, token) {
            (Registration::Open, _) => Ok(None),
            (Registration::InviteOnly, Some(token)) => match self.presented(app_id, token).await {
                Err(problem) if problem.code() == problems::INVALID_OR_EXPIRED_TOKEN.code => {
                    let detail = "the invitation is invalid or has ended: ask for another one";
                    Err(Problem::new(problems::REGISTRATION_CLOSED).detail(detail))
                }
                presented => presented.map(Some),
            },
            (Registration::InviteOnly | Registration::Closed, _) => {
                Err(Problem::new(problems::REGISTRATION_CLOSED))
            }
        }
    }

    /// Tells the owner of the address by mail; the answer must not reveal that it is taken.
    async fn taken(
        &self,
        app_id: &AppId,
        settings: &AppSettings,
        (email, is_invited): (Email, bool),
        context: Context,
        request: &RequestContext,
        started: Instant,
    ) -> Result<Response, Problem> {
        if !settings.require_verified_email {
            let problem = Problem::new(problems::EMAIL_TAKEN);
            return Err(problem.field(
                "/email",
                problems::EMAIL_TAKEN,
                "this address belongs to another account",
            ));
        }
        if settings.delivery == SentBy::Platform
            && let Some(user_id) = self.locate.locate(app_id, &email).await?
            && let Ok(spent) = self.limits.spend_mail(app_id, &email, MailPurpose::Registration, false)
        {
            let (client, at) = (request.client.clone(), context.at);
            let tell = TellOfRegistration { email, is_invited, client, at };
            let (mut reads, app) = Reads::one::<App>(app_id);
            let user = reads.of::<User>(&user_id);
            let decide = move |work: &mut Work| {
                let (app, user) = work.drafts((app, user));
                tell.decide(app, user).map_err(not_told)
            };
            let done = self.dispatcher.run(context, reads, decide).await;
            if !done.as_ref().is_ok_and(asks_for_a_mail) {
                self.limits.not_sent(spent);
            }
            done?;
        }
        Ok(verification_sent(started).await)
    }

    /// An early check that avoids making a data key for a taken address. The append takes the claim itself.
    async fn is_taken(&self, app_id: &AppId, email: &Email) -> Result<bool, Problem> {
        let claim = self.lookup.email_claim(app_id, email);
        if self.repository.journal().claim_owner(&claim).await?.is_some() {
            return Ok(true);
        }
        // An attacker with write access to the store could have removed the claim. A read model may still know the
        // account.
        Ok(self.locate.locate(app_id, email).await?.is_some())
    }

    async fn registered<T>(
        &self,
        app_id: &AppId,
        done: &Committed<T>,
        started: Instant,
    ) -> Result<Response, Problem> {
        match ChainLink::made_by(&done.events) {
            Some(link) => {
                // Whoever has just been registered is in no organization.
                let listed = (!done.replayed).then(BTreeSet::new);
                let (cookies, tokens) = self.tokens_of(app_id, link, listed.as_ref()).await?;
                Ok((cookies, Done::created(done.position, RegistrationBody::from(tokens))).into_response())
            }
            None => Ok(verification_sent(started).await),
        }
    }
}

async fn verification_sent(started: Instant) -> Response {
    even_out(started).await;
    Done::accepted(RegistrationBody::default())
}

fn of_another_address() -> Problem {
    Problem::new(problems::REGISTRATION_CLOSED).detail("the invitation is for another address")
}

fn not_registered(why: NotRegistered) -> Problem {
    match why {
        NotRegistered::App(closed) => app_closed(closed),
        NotRegistered::RegistrationClosed => Problem::new(problems::REGISTRATION_CLOSED),
        NotRegistered::MayNotEnter(why) => may_not_enter(why),
        NotRegistered::User(error) => Problem::internal(error),
        NotRegistered::Session(error) => Problem::internal(error),
    }
}

fn not_told(why: NotTold) -> Problem {
    match why {
        NotTold::App(closed) => app_closed(closed),
        NotTold::RegistrationClosed => Problem::new(problems::REGISTRATION_CLOSED),
        NotTold::User(error) => Problem::internal(error),
    }
}
