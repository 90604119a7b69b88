//! Login with a password.
//!
//! The account's lockout, in the log, decides what a guess may reveal: a wrong guess is answered only after its failure
//! is appended, and a right one only after the session is started under a guard on that same stream. So however many
//! guesses are hashed concurrently, no more are answered than the policy allows. Unknown addresses go through the same
//! steps with a dummy hash; what strangers learn of lockouts is the same for both, see `passwords/strangers.rs`. A
//! client that has been in the account before is not a stranger, see `callers/known_client.rs`.

use crate::api::refusals::may_not_enter;
use domain::decisions::{LogIn, NotLoggedIn, StartSession};
use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use dispatcher::{Committed, Context, DispatchError, Reads, Work};
use domain::app::App;
use domain::lockout::{AccountIsLocked, Lockout, LockoutCommand, LockoutPolicy};
use domain::memberships::Memberships;
use domain::password::{Password, PasswordHash};
use domain::session::{LoginMethod, Session};
use domain::user::{Client, User};
use domain::{AppId, DeviceId, Email, OrganizationId, SessionId, Stream as _, Timestamp, UserId};
use event_store::{Loaded, StoreError};
use http_kit::cookies::Credentials as Shown;
use http_kit::extract::{AppScope, Body};
use http_kit::limits::Standing;
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::envelope::Actor;
use schemas::problems;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::timing::even_out_beyond;
use crate::callers::credentials_limit::Counted;
use crate::passwords::strangers::StrangersAt;
use crate::sessions::tokens::{ChainLink, TokensBody};

/// How often to check a login again because the password changed meanwhile.
const MAX_CHECKS: usize = 4;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(login))
}

/// An address and a password.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = LoginRequest)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credentials {
    /// The address.
    #[schema(example = "ada@example.com")]
    email: String,
    /// The password.
    #[schema(value_type = String, format = Password, example = "correct horse battery")]
    password: SecretString,
}

/// Log in with a password.
///
/// The answer is the same for an unknown address, a wrong password, a banned account and one without a password. A
/// successful login returns a device token, in the header `Device-Token` or, in cookie mode, in a cookie: send it with
/// later logins, and strangers' wrong passwords cannot lock this device out.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/login", tag = "auth", operation_id = "login",
    params(("app_id" = String, Path, description = "The app"),
        ("Device-Token" = Option<String>, Header, description = "The device token of an earlier login")),
    request_body = Credentials,
    responses((status = 200, description = "Tokens of a new session", body = TokensBody,
            headers(("Device-Token" = String, description = "Marks this device as known to the account"))),
        (status = 401, description = "`invalid_credentials`; for a repeated request whose session has ended \
         `session_revoked` or `session_expired`"),
        (status = 403, description = "After a correct password: `email_not_verified`, `user_banned`; or `app_disabled`"),
        (status = 429, description = "`rate_limited`: too many requests, or too many wrong passwords for this address; \
         an app's own server, which shows an API key with `users:write`, is limited by key and person")))]
pub(crate) async fn login(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    shown: Shown,
    counted: Counted,
    Body { value: body, idempotency }: Body<Credentials>,
) -> Result<Response, Problem> {
    let started = Instant::now();
    // All that the check rests on is asked about together, when it is made: see `look`.
    let reads = service.repository.reads();
    service.authenticator.app_on(&reads, &app_id).await?;
    let mut context = service.context(&request, &app_id, Actor::anonymous(), idempotency);
    if let Some(done) = service.dispatcher.replayed::<_, Problem>(&mut context).await? {
        return service.logged_in(&app_id, &done).await;
    }
    let password = Password::new(body.password.expose_secret());
    // Every account's address is normalized, so text that cannot be normalized belongs to no account.
    let email = Email::parse(&body.email).ok();
    let user_id = match &email {
        Some(email) => service.locate.locate(&app_id, email).await?,
        None => None,
    };
    let name = email.as_ref().map_or(body.email.as_str(), Email::as_str);
    service.count_login(counted, &app_id, name)?;
    let strangers = service.strangers.at(&app_id, name);
    let result = if let Some(user_id) = user_id {
        let (password, client) = (&password, &request.client);
        let attempt =
            Attempt { app_id: &app_id, user_id, password, client, shown: &shown, strangers: &strangers };
        service.check(&attempt, reads, context).await
    } else {
        if !reads.are_current().await? {
            service.authenticator.app(&app_id).await?;
        }
        Err(service.check_nobody(&strangers, &password).await)
    };
    match &result {
        Ok(_) => email.iter().for_each(|email| service.count_good_login(counted, &app_id, email)),
        Err(problem) if matches!(problem.kind(), problems::INVALID_CREDENTIALS | problems::RATE_LIMITED) => {
            even_out_beyond(started, service.passwords.imported_time()).await;
        }
        Err(_) => {}
    }
    result
}

/// A guess at an account's password.
struct Attempt<'a> {
    app_id: &'a AppId,
    user_id: UserId,
    password: &'a Password,
    client: &'a Client,
    /// What may show that the client has been in the account before.
    shown: &'a Shown,
    /// Whose budget a guess counts against otherwise.
    strangers: &'a StrangersAt,
}

/// What a check rests on.
struct Seen {
    /// The device that asks, if it has been in the account before.
    device: Option<DeviceId>,
    lockout: Arc<Loaded<Lockout>>,
    user: Arc<Loaded<User>>,
}

impl CommandService {
    /// What a check rests on, as it is on all nodes. What the session rests on besides is read with it.
    async fn look(
        &self,
        attempt: &Attempt<'_>,
        reads: &event_store::Reads<'_>,
        at: Timestamp,
    ) -> Result<Seen, Problem> {
        let Attempt { app_id, user_id, shown, .. } = *attempt;
        loop {
            self.authenticator.app_on(reads, app_id).await?;
            let streams = [User::stream(&user_id), Lockout::stream(&user_id), Memberships::stream(&user_id)];
            reads.fetch(&streams).await?;
            let device = self.known_client_on(reads, app_id, user_id, shown, at).await?;
            let lockout = reads.load::<Lockout>(&user_id).await?;
            let user = reads.load::<User>(&user_id).await?;
            reads.load::<Memberships>(&user_id).await?;
            if reads.are_current().await? {
                return Ok(Seen { device, lockout, user });
            }
        }
    }

    async fn check(
        &self,
        attempt: &Attempt<'_>,
        mut reads: event_store::Reads<'_>,
        context: Context,
    ) -> Result<Response, Problem> {
        let (policy, at, user_id) = (self.settings.lockout, context.at, attempt.user_id);
        let strangers = attempt.strangers;
        for _ in 0..MAX_CHECKS {
            let Seen { device, lockout, user } = self.look(attempt, &reads, at).await?;
            let is_open = lockout.state.require_open(device, policy, at).is_ok();
            if device.is_none() {
                strangers.forget_before(lockout.state.cleared_at());
                strangers.require_open(policy, at).map_err(|locked| too_many(policy, &locked, at))?;
            } else if !is_open {
                return Err(self.record_failure(user_id, device, context).await);
            }
            let hash = user.state.password_hash.clone();
            // A stranger locked out by the log, but not by this node's memory, gets the same answer after the same time as
            // for a wrong password.
            if !self.passwords.verify(attempt.password, hash.as_ref()).await? || !is_open {
                return Err(self.failed(attempt, device, context).await);
            }
            let Some(old) = hash else { return Err(Problem::internal("a password matched without a hash")) };
            let new = if self.passwords.is_outdated(&old) {
                Some(self.passwords.hash(attempt.password).await?)
            } else {
                None
            };
            match self.start_session(attempt, device, context.clone(), old, new).await {
                Ok(done) => {
                    if let Some(link) = ChainLink::made_by(&done.events).filter(|_| !done.replayed) {
                        self.end_oldest_sessions(user_id, link.session_id, context).await;
                    }
                    return self.logged_in(attempt.app_id, &done).await;
                }
                Err(DispatchError::Refused(NotLoggedIn::Locked)) => {
                    return Err(self.failed(attempt, device, context).await);
                }
                Err(DispatchError::Refused(NotLoggedIn::HashChanged)) => reads = self.repository.reads(),
                Err(error) => return Err(error.map_refusal(not_logged_in).into()),
            }
        }
        Err(Problem::overloaded("a password kept changing during a login"))
    }

    /// The answer to a guess that was wrong or too late. A device knows the account, so it sees the lockout in the log. A
    /// stranger sees what this node remembers of the address, which works the same for unknown addresses.
    async fn failed(&self, attempt: &Attempt<'_>, device: Option<DeviceId>, context: Context) -> Problem {
        let (policy, at) = (self.settings.lockout, context.at);
        let told = self.record_failure(attempt.user_id, device, context).await;
        if device.is_some() || !matches!(told.kind(), problems::INVALID_CREDENTIALS | problems::RATE_LIMITED)
        {
            return told;
        }
        told_to_strangers(attempt.strangers, policy, at)
    }

    async fn start_session(
        &self,
        attempt: &Attempt<'_>,
        device: Option<DeviceId>,
        context: Context,
        old: PasswordHash,
        new: Option<PasswordHash>,
    ) -> Result<Committed<BTreeSet<OrganizationId>>, DispatchError<NotLoggedIn>> {
        let Attempt { app_id, user_id, client, .. } = *attempt;
        let session_id = SessionId(self.clock.new_id());
        let (client, at) = (client.clone(), context.at);
        let latest = self.repository.latest(at);
        let (mut reads, app) = Reads::one::<App>(app_id);
        let (user, lockout) = (reads.of::<User>(&user_id), reads.of::<Lockout>(&user_id));
        let session = reads.new_one::<Session>(&session_id);
        let memberships = reads.of::<Memberships>(&user_id);
        let log_in = LogIn {
            app_id: app_id.clone(),
            device,
            policy: self.settings.lockout,
            checked: old,
            rehashed: new,
            start: StartSession { session_id, method: LoginMethod::Password, client, at, latest },
        };
        let decide = move |work: &mut Work| {
            let (app, user, lockout, session) = work.drafts((app, user, lockout, session));
            log_in.decide(app, lockout, user, session)?;
            Ok(work.get(memberships).organizations.clone())
        };
        self.dispatcher.run(context, reads, decide).await
    }

    /// The failure is in the log before the answer is given, and under no idempotency key: a guess at an unknown
    /// address stores nothing under its key, so a second request with the same key would tell the two apart.
    pub(crate) async fn record_failure(
        &self,
        user_id: UserId,
        device: Option<DeviceId>,
        context: Context,
    ) -> Problem {
        let context = Context { idempotency: None, ..context };
        let (policy, at) = (self.settings.lockout, context.at);
        let (reads, lockout) = Reads::one::<Lockout>(&user_id);
        let decide = move |work: &mut Work| {
            let command = LockoutCommand::RecordFailure { user_id, device, policy, at };
            work.execute(lockout, command).map_err(|locked| too_many(policy, &locked, at))
        };
        match self.dispatcher.run(context, reads, decide).await {
            // They may have been erased meanwhile.
            Ok(_) | Err(DispatchError::Store(StoreError::Erased(_))) => {
                Problem::new(problems::INVALID_CREDENTIALS)
            }
            Err(error) => error.into(),
        }
    }

    /// The result of the committed events: a session, or a failure (only under keys from versions that stored
    /// failures).
    async fn logged_in(
        &self,
        app_id: &AppId,
        done: &Committed<BTreeSet<OrganizationId>>,
    ) -> Result<Response, Problem> {
        match ChainLink::made_by(&done.events) {
            Some(link) => {
                let (cookies, tokens) = self.tokens_of(app_id, link, done.value.as_ref()).await?;
                Ok((cookies, Done::ok(done.position, tokens)).into_response())
            }
            None => Err(Problem::new(problems::INVALID_CREDENTIALS)),
        }
    }

    /// A guess at an unknown address.
    async fn check_nobody(&self, strangers: &StrangersAt, password: &Password) -> Problem {
        let (at, policy) = (self.clock.now(), self.settings.lockout);
        if let Err(locked) = strangers.require_open(policy, at) {
            return too_many(policy, &locked, at);
        }
        if let Err(error) = self.passwords.verify(password, None).await {
            return error.into();
        }
        told_to_strangers(strangers, policy, at)
    }
}

fn told_to_strangers(strangers: &StrangersAt, policy: LockoutPolicy, at: Timestamp) -> Problem {
    match strangers.fail(policy, at) {
        Ok(()) => Problem::new(problems::INVALID_CREDENTIALS),
        Err(locked) => too_many(policy, &locked, at),
    }
}

/// The refusal for a correct password.
fn not_logged_in(why: NotLoggedIn) -> Problem {
    match why {
        NotLoggedIn::MayNotEnter(why) => may_not_enter(why),
        NotLoggedIn::Locked | NotLoggedIn::HashChanged => Problem::new(problems::UNAUTHENTICATED),
        NotLoggedIn::User(error) => Problem::internal(error),
        NotLoggedIn::Session(error) => Problem::internal(error),
    }
}

/// 429 until the lock ends.
pub(crate) fn too_many(policy: LockoutPolicy, locked: &AccountIsLocked, at: Timestamp) -> Problem {
    let left = locked.until.duration_since(at);
    let seconds = u64::try_from(left.as_secs()).unwrap_or_default() + u64::from(left.subsec_nanos() > 0);
    let LockoutPolicy { failures, window, .. } = policy;
    Problem::rate_limited(Standing::exhausted("failed-logins", failures, window, seconds.max(1)))
}
