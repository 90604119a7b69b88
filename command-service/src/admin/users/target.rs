//! The user a request is about, and decisions about them.

use std::sync::Arc;

use axum::response::Response;
use dispatcher::{Committed, Context, Handle, Reads, Work};
use domain::access::PersonalDataSource;
use domain::app::App;
use domain::decisions::MayActOn;
use domain::session::RevocationReason;
use domain::user::{User, UserCommand};
use domain::{AppId, Permission, UserId};
use event_store::Idempotency;
use http_kit::access_log::Looking;
use http_kit::answers::UserBody;
use http_kit::auth::AdminCaller;
use http_kit::cookies::Credentials;
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use serde::Deserialize;
use uuid::Uuid;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::refusals::{may_not_act, user_problem};
use crate::callers::admin::require_may_act_on;

/// The user a request is about, loaded for a caller who may act on them.
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
        let app = service.authenticator.existing_app(&app_id).await?;
        let user = service.repository.load::<User>(&user_id).await?;
        // Checked here too: a repetition under the same key is answered without a decision.
        require_may_act_on(&caller, &app.state, &user.state, &app_id)?;
        Ok(Self { service, caller, app_id, user_id })
    }

    pub fn context(&self, request: &RequestContext, idempotency: Option<Idempotency>) -> Context {
        self.service.context(request, &self.app_id, self.caller.actor.clone(), idempotency)
    }

    /// Rechecks at decision time whether the caller may act on the user.
    pub(super) fn may_act(&self) -> MayActOn {
        MayActOn { app_id: self.app_id.clone(), full_admin: self.caller.full_admin }
    }

    /// Runs a decision over the user and the other aggregates read for it.
    pub async fn run<T: Send + 'static>(
        &self,
        context: Context,
        (mut reads, user): (Reads, Handle<User>),
        mut decide: impl FnMut(&mut Work) -> Result<T, Problem> + Send + 'static,
    ) -> Result<Committed<T>, Problem> {
        let (app, may_act) = (reads.of::<App>(&self.app_id), self.may_act());
        let decide = move |work: &mut Work| {
            may_act.decide(work.get(app), work.get(user)).map_err(may_not_act)?;
            decide(work)
        };
        self.service.run_as(&self.caller, context, reads, decide).await.map_err(Problem::from)
    }

    /// Runs a decision over the user that may end all of their sessions, and revokes the sessions it ended.
    pub(super) async fn run_ending<T: Send + 'static>(
        &self,
        context: Context,
        (mut reads, user): (Reads, Handle<User>),
        reason: RevocationReason,
        mut decide: impl FnMut(&mut Work) -> Result<T, Problem> + Send + 'static,
    ) -> Result<Committed<T>, Problem> {
        let (user_id, may_act, app) = (self.user_id, self.may_act(), reads.of::<App>(&self.app_id));
        let decide = move |work: &mut Work| {
            may_act.decide(work.get(app), work.get(user)).map_err(may_not_act)?;
            decide(work)
        };
        let caller = Some(&self.caller);
        let done = self.service.run_ending_sessions_as(caller, user_id, reason, context, reads, decide);
        done.await.map_err(Problem::from)
    }

    pub(super) async fn run_on_user(
        &self,
        request: &RequestContext,
        context: Context,
        command: UserCommand,
    ) -> Result<Response, Problem> {
        let (reads, user) = Reads::one::<User>(&self.user_id);
        let decide = move |work: &mut Work| work.execute(user, command.clone()).map_err(user_problem);
        let committed = self.run(context, (reads, user), decide).await?;
        self.answer(request, &committed, committed.position).await
    }

    /// The user as they are now. A command that wrote no event about them has only read them: it changed nothing, or is a
    /// repetition under the same key.
    pub(super) async fn answer<T>(
        &self,
        request: &RequestContext,
        committed: &Committed<T>,
        position: u64,
    ) -> Result<Response, Problem> {
        Ok(Done::ok(position, self.shown(request, committed).await?))
    }

    /// The user as they are now, for an answer with more than that: see [`TargetUser::answer`].
    pub(super) async fn shown<T>(
        &self,
        request: &RequestContext,
        committed: &Committed<T>,
    ) -> Result<UserBody, Problem> {
        if committed.replayed || committed.events.is_empty() {
            let looking = Looking::new(request, &self.app_id, &self.caller.actor);
            self.service.access_log.read(&looking, PersonalDataSource::User, [self.user_id]).await?;
        }
        let user = self.service.repository.load::<User>(&self.user_id).await?;
        Ok(UserBody::of(&user.state))
    }
}
