//! The user that a request is about, and decisions about them.

use std::sync::Arc;

use axum::response::Response;
use dispatcher::{Committed, Context, Read, Work};
use domain::access::PersonalDataSource;
use domain::session::{RevocationReason, Session};
use domain::user::{User, UserCommand, UserError};
use domain::{AppId, Permission, SessionId, UserId};
use event_store::Idempotency;
use http_kit::access_log::Looking;
use http_kit::answers::UserBody;
use http_kit::auth::AdminCaller;
use http_kit::cookies::Credentials;
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::problems;
use serde::Deserialize;
use uuid::Uuid;

use crate::CommandService;
use crate::api::answers::Done;
use crate::callers::admin::{require_may_act_on, require_target};

/// The user that a request is about, found for somebody who may touch them.
pub(crate) struct TargetUser<'a> {
    service: &'a Arc<CommandService>,
    pub caller: AdminCaller,
    pub app_id: AppId,
    pub user_id: UserId,
}

#[derive(Deserialize)]
pub(crate) struct UserSegments {
    pub(super) app_id: AppId,
    pub(super) user_id: Uuid,
}

impl<'a> TargetUser<'a> {
    pub async fn new(
        service: &'a Arc<CommandService>,
        credentials: &Credentials,
        segments: UserSegments,
        permission: Permission,
    ) -> Result<Self, Problem> {
        let app_id = segments.app_id;
        let user_id = UserId(segments.user_id);
        let caller = service.authenticator.admin(&app_id, credentials, permission).await?;
        let user = service.repository.load::<User>(&user_id).await?;
        // Here, too: a repetition under the same key is answered without a decision.
        require_may_act_on(&caller, &user.state, &app_id)?;
        Ok(Self { service, caller, app_id, user_id })
    }

    pub fn context(&self, request: &RequestContext, idempotency: Option<Idempotency>) -> Context {
        self.service.context(request, &self.app_id, self.caller.actor.clone(), idempotency)
    }

    /// Runs a decision over the user and some sessions.
    pub async fn run<T: Send + 'static>(
        &self,
        context: Context,
        sessions: &[SessionId],
        mut decide: impl FnMut(&mut Work) -> Result<T, Problem> + Send + 'static,
    ) -> Result<Committed<T>, Problem> {
        let mut reads = vec![Read::of::<User>(&self.user_id)];
        reads.extend(sessions.iter().copied().map(|id| Read::of::<Session>(&id)));
        let (user_id, app_id, caller) = (self.user_id, self.app_id.clone(), self.caller.clone());
        let decide = move |work: &mut Work| {
            require_target(work, &caller, user_id, &app_id)?;
            decide(work)
        };
        self.service.run_as(&self.caller, context, reads, decide).await.map_err(Problem::from)
    }

    /// Runs a decision over the user that may end all of their sessions, and revokes those that it has ended.
    pub(super) async fn run_ending<T: Send + 'static>(
        &self,
        context: Context,
        mut reads: Vec<Read>,
        reason: RevocationReason,
        mut decide: impl FnMut(&mut Work) -> Result<T, Problem> + Send + 'static,
    ) -> Result<Committed<T>, Problem> {
        reads.push(Read::of::<User>(&self.user_id));
        let (user_id, app_id, caller) = (self.user_id, self.app_id.clone(), self.caller.clone());
        let decide = move |work: &mut Work| {
            require_target(work, &caller, user_id, &app_id)?;
            decide(work)
        };
        let caller = Some(&self.caller);
        let done = self.service.run_ending_sessions_as(caller, user_id, reason, context, reads, decide);
        done.await.map_err(Problem::from)
    }

    /// Gives the role `admin`, which ends whatever the account had before: who had it may not have been entitled to that of
    /// an admin.
    pub(super) async fn promote(
        &self,
        request: &RequestContext,
        context: Context,
        command: UserCommand,
    ) -> Result<Response, Problem> {
        let user_id = self.user_id;
        let decide = move |work: &mut Work| work.execute::<User>(&user_id, command.clone()).map_err(refused);
        let committed = self.run_ending(context, vec![], RevocationReason::Admin, decide).await?;
        self.answer(request, &committed, committed.position).await
    }

    pub(super) async fn run_on_user(
        &self,
        request: &RequestContext,
        context: Context,
        command: UserCommand,
    ) -> Result<Response, Problem> {
        let user_id = self.user_id;
        let decide = move |work: &mut Work| work.execute::<User>(&user_id, command.clone()).map_err(refused);
        let committed = self.run(context, &[], decide).await?;
        self.answer(request, &committed, committed.position).await
    }

    /// The user as they are now. A command that wrote nothing about them just now has only read them: a change of nothing, or
    /// a repetition under the same key.
    pub(super) async fn answer<T>(
        &self,
        request: &RequestContext,
        committed: &Committed<T>,
        position: u64,
    ) -> Result<Response, Problem> {
        if committed.replayed || committed.events.is_empty() {
            let looking = Looking::new(request, &self.app_id, &self.caller.actor);
            self.service.access_log.read(&looking, PersonalDataSource::User, [self.user_id]).await?;
        }
        let user = self.service.repository.load::<User>(&self.user_id).await?;
        Ok(Done::ok(position, UserBody::of(&user.state)))
    }
}

pub(super) fn refused(error: UserError) -> Problem {
    match error {
        UserError::Absent => Problem::not_found(),
        UserError::TooManyRoles => Problem::new(problems::TOO_MANY_ROLES).detail(error.to_string()),
        UserError::Banned => Problem::new(problems::USER_BANNED),
        UserError::EmailNotVerified => {
            let detail = "the role admin is for users who have verified their address";
            Problem::new(problems::EMAIL_NOT_VERIFIED).conflict().detail(detail)
        }
        // Refusals of commands that no route for admins gives.
        UserError::Exists
        | UserError::InvalidToken
        | UserError::OtherPassword
        | UserError::OtherEmail
        | UserError::AlreadyVerified => Problem::internal(error),
    }
}
