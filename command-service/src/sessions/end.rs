//! Ending one's own sessions. The list of them is a read model's; which of them there are is in the journal's claims.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::{delete, post};
use domain::claims::{ClaimKind, Claimed};
use domain::session::{RevocationReason, Session, SessionCommand, SessionEvent};
use domain::user::{User, UserCommand};
use domain::{Event, SessionId, StreamId, Timestamp, UserId};
use event_store::lookup::sessions_of;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, OptionalBody, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::CommandService;
use crate::accounts::me::{LiveCaller, live_reads};
use crate::api::answers::Done;
use dispatcher::{Context, Read, Work};

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new()
        .routes(routes!(revoke))
        .routes(routes!(revoke_all))
        .route("/auth/sessions/{session_id}", delete(revoke))
        .route("/auth/sessions/revoke-all", post(revoke_all))
}

#[derive(Deserialize)]
pub(crate) struct SessionSegment {
    session_id: Uuid,
}

/// Which sessions to keep.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RevokeAll {
    /// Whether the session that asks goes on.
    #[serde(default)]
    exclude_current: bool,
}

/// How many there were.
#[derive(Serialize, ToSchema)]
pub(crate) struct Revoked {
    /// How many sessions were ended.
    revoked: usize,
}

/// End one of one's own sessions.
#[utoipa::path(delete, path = "/v1/apps/{app_id}/auth/sessions/{session_id}", tag = "sessions",
    operation_id = "revoke_own_session", security(("user" = [])),
    params(("app_id" = String, Path, description = "The app"), ("session_id" = Uuid, Path, description = "The session")),
    responses((status = 204, description = "It is over"),
        (status = 404, description = "`not_found`: there is no live session of this id, or it is not one's own")))]
pub(crate) async fn revoke(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    Segments(SessionSegment { session_id }): Segments<SessionSegment>,
    request: RequestContext,
    credentials: Credentials,
) -> Result<Response, Problem> {
    let caller = service.authenticator.user(&app_id, &credentials).await?;
    let context = service.context(&request, &app_id, caller.actor(), None);
    let (at, user_id, session_id) = (context.at, caller.user_id, SessionId(session_id));
    let live = LiveCaller::of(&caller);
    let mut reads = live_reads(&caller);
    reads.push(Read::of::<Session>(&session_id));
    let decide = move |work: &mut Work| {
        live.require(work, at)?;
        let session = work.get::<Session>(&session_id);
        let owner = session.require_live(at).map_err(|_| Problem::not_found())?;
        if owner.user_id != user_id || !work.get::<User>(&user_id).keeps(session) {
            return Err(Problem::not_found());
        }
        let command = SessionCommand::Revoke { reason: RevocationReason::User, at };
        work.execute::<Session>(&session_id, command).map_err(Problem::internal)
    };
    let done = service.dispatcher.run(context, reads, decide).await?;
    Ok(Done::no_content(done.position))
}

/// End all of one's own sessions.
///
/// Links, codes and tokens that would bring somebody back in end with them, and so does a change of address that is under
/// way.
#[utoipa::path(post, path = "/v1/apps/{app_id}/auth/sessions/revoke-all", tag = "sessions",
    operation_id = "revoke_own_sessions", security(("user" = [])), request_body = Option<RevokeAll>,
    params(("app_id" = String, Path, description = "The app")),
    responses((status = 200, description = "They are over", body = Revoked)))]
pub(crate) async fn revoke_all(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
    request: RequestContext,
    credentials: Credentials,
    body: Result<OptionalBody<RevokeAll>, Problem>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.user(&app_id, &credentials).await?;
    let OptionalBody { value: body, idempotency } = body?;
    let exclude_current = body.unwrap_or_default().exclude_current;
    let context = service.context(&request, &app_id, caller.actor(), idempotency);
    let (at, user_id, reason) = (context.at, caller.user_id, RevocationReason::User);
    let live = LiveCaller::of(&caller);
    let end = EndAccess { user_id, exclude: exclude_current.then_some(caller.session_id), reason, at };
    let decide = move |work: &mut Work| {
        live.require(work, at)?;
        end.run(work)
    };
    let done = service.run_ending_sessions(user_id, reason, context, live_reads(&caller), decide).await?;
    let is_end = |event: &&Event| matches!(event, Event::Session(SessionEvent::SessionRevoked(_)));
    Ok(Done::ok(done.position, Revoked { revoked: done.events.iter().filter(is_end).count() }))
}

/// The end of all that a user can come in with, but for one session.
#[derive(Clone, Copy)]
pub(crate) struct EndAccess {
    pub user_id: UserId,
    /// A session to leave as it is; it must be among the reads.
    pub exclude: Option<SessionId>,
    pub reason: RevocationReason,
    pub at: Timestamp,
}

impl EndAccess {
    /// Decides it. The sessions themselves are revoked by whoever runs the decision.
    pub fn run(self, work: &mut Work) -> Result<(), Problem> {
        let Self { user_id, exclude, reason, at } = self;
        // One that is over by now must not come back to life as the one that is left.
        let goes_on = |id: &SessionId| {
            let session = work.get::<Session>(id);
            session.require_live(at).is_ok_and(|owner| owner.user_id == user_id)
                && work.get::<User>(&user_id).keeps(session)
        };
        let kept_session = exclude.filter(goes_on);
        let end = UserCommand::EndAccess { kept_session, reason, at };
        work.execute::<User>(&user_id, end).map_err(Problem::internal)
    }
}

/// Ends a session as part of a larger decision. One that has expired only gives its claim back.
pub(crate) fn end_in(
    work: &mut Work,
    session_id: SessionId,
    user_id: UserId,
    reason: RevocationReason,
    at: Timestamp,
) -> Result<(), Problem> {
    if work.get::<Session>(&session_id).require_live(at).is_ok() {
        let command = SessionCommand::Revoke { reason, at };
        return work.execute::<Session>(&session_id, command).map_err(Problem::internal);
    }
    work.release(Claimed::Session { user_id, session_id });
    Ok(())
}

/// Ends sessions, as [`end_in`] does with each.
pub(crate) fn end_all_in(
    work: &mut Work,
    user_id: UserId,
    sessions: &[SessionId],
    reason: RevocationReason,
    at: Timestamp,
) -> Result<(), Problem> {
    sessions.iter().try_for_each(|session_id| end_in(work, *session_id, user_id, reason, at))
}

/// How many sessions one append ends at most, where they need not end together.
const TOGETHER: usize = 200;

impl CommandService {
    /// Ends the sessions that a banned user has left, and does nothing for one who is not banned. Answers with the
    /// position of the last one's end, 0 if there was none.
    ///
    /// It is part of the ban, so it is done even if whoever banned is no admin any more.
    pub(crate) async fn end_sessions_of_banned(
        &self,
        user_id: UserId,
        context: Context,
    ) -> Result<u64, Problem> {
        let mut position = 0;
        if !self.repository.load::<User>(&user_id).await?.state.banned {
            return Ok(position);
        }
        let at = context.at;
        // None can start any more, so one look finds all of them.
        for sessions in self.claimed_sessions(user_id).await?.chunks(TOGETHER) {
            let sessions = sessions.to_vec();
            let mut reads = vec![Read::of::<User>(&user_id)];
            reads.extend(sessions.iter().copied().map(|id| Read::of::<Session>(&id)));
            let decide = move |work: &mut Work| {
                if !work.get::<User>(&user_id).banned {
                    return Ok(());
                }
                end_all_in(work, user_id, &sessions, RevocationReason::Ban, at)
            };
            let ended = self.dispatcher.run(context.clone(), reads, decide).await?;
            position = position.max(ended.position);
        }
        Ok(position)
    }

    /// Ends a user's oldest sessions, if there are more than one may have. What keeps it from that is only logged: the
    /// session that was one too many has begun, and the next one tries again.
    pub(crate) async fn end_oldest_sessions(&self, user_id: UserId, context: Context) {
        if let Err(problem) = self.try_to_end_oldest(user_id, context).await {
            tracing::warn!(code = problem.code(), "a user's oldest sessions could not be ended");
        }
    }

    async fn try_to_end_oldest(&self, user_id: UserId, context: Context) -> Result<(), Problem> {
        let at = context.at;
        // By their ids, which are by their time.
        let mut sessions = self.claimed_sessions(user_id).await?;
        sessions.truncate(sessions.len().saturating_sub(self.settings.sessions.get()));
        for sessions in sessions.chunks(TOGETHER) {
            let sessions = sessions.to_vec();
            let reads = sessions.iter().copied().map(|id| Read::of::<Session>(&id)).collect();
            let decide =
                move |work: &mut Work| end_all_in(work, user_id, &sessions, RevocationReason::Limit, at);
            let context = Context { idempotency: None, ..context.clone() };
            self.dispatcher.run(context, reads, decide).await?;
        }
        Ok(())
    }

    /// All sessions of a user that were not revoked, from the journal itself.
    pub(crate) async fn claimed_sessions(&self, user_id: UserId) -> Result<Vec<SessionId>, Problem> {
        let claims =
            self.repository.journal().claims(ClaimKind::Session.as_str(), &sessions_of(user_id)).await?;
        Ok(claims.iter().filter_map(|(_, stream): &(_, StreamId)| stream.uuid()).map(SessionId).collect())
    }
}
