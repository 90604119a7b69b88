//! The end of sessions, as part of whatever ends them.

use dispatcher::{Committed, Context, DispatchError, Read, Work};
use domain::claims::{ClaimKind, Claimed};
use domain::session::{RevocationReason, Session, SessionCommand};
use domain::user::{User, UserCommand};
use domain::{SessionId, StreamId, Timestamp, UserId};
use event_store::lookup::sessions_of;
use http_kit::auth::AdminCaller;
use http_kit::problem::Problem;

use crate::CommandService;

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

    /// Runs a decision that may end sessions of a user, and with it revokes those that the user does not keep.
    ///
    /// They are over by the user's own word, from the acknowledgement on. Revoking them says so in each one's history, and in
    /// lists. A login that committed after we looked and before the decision is found by a second look.
    pub(crate) async fn run_ending_sessions<T: Send + 'static>(
        &self,
        user_id: UserId,
        reason: RevocationReason,
        context: Context,
        reads: Vec<Read>,
        decide: impl FnMut(&mut Work) -> Result<T, Problem> + Send + 'static,
    ) -> Result<Committed<T>, DispatchError<Problem>> {
        self.run_ending_sessions_as(None, user_id, reason, context, reads, decide).await
    }

    /// As [`CommandService::run_ending_sessions`], for an admin who must still be entitled to it. What the decision has cut
    /// off is revoked even if they are none any more by then.
    pub(crate) async fn run_ending_sessions_as<T: Send + 'static>(
        &self,
        caller: Option<&AdminCaller>,
        user_id: UserId,
        reason: RevocationReason,
        context: Context,
        mut reads: Vec<Read>,
        mut decide: impl FnMut(&mut Work) -> Result<T, Problem> + Send + 'static,
    ) -> Result<Committed<T>, DispatchError<Problem>> {
        let sessions = self.claimed_sessions(user_id).await.map_err(DispatchError::Refused)?;
        reads.extend(sessions.iter().copied().map(|id| Read::of::<Session>(&id)));
        let (at, after) = (context.at, Context { idempotency: None, ..context.clone() });
        let decide = move |work: &mut Work| {
            let value = decide(work)?;
            end_those_not_kept(work, user_id, &sessions, reason, at)?;
            Ok(value)
        };
        let done = match caller {
            Some(caller) => self.run_as(caller, context, reads, decide).await?,
            None => self.dispatcher.run(context, reads, decide).await?,
        };
        if !done.replayed
            && let Err(problem) = self.sweep(user_id, reason, after).await
        {
            tracing::warn!(code = problem.code(), "sessions that are over could not be revoked");
        }
        Ok(done)
    }

    async fn sweep(
        &self,
        user_id: UserId,
        reason: RevocationReason,
        context: Context,
    ) -> Result<(), Problem> {
        let (sessions, at) = (self.claimed_sessions(user_id).await?, context.at);
        let mut reads = vec![Read::of::<User>(&user_id)];
        reads.extend(sessions.iter().copied().map(|id| Read::of::<Session>(&id)));
        let decide = move |work: &mut Work| end_those_not_kept(work, user_id, &sessions, reason, at);
        self.dispatcher.run(context, reads, decide).await?;
        Ok(())
    }
}

fn end_those_not_kept(
    work: &mut Work,
    user_id: UserId,
    sessions: &[SessionId],
    reason: RevocationReason,
    at: Timestamp,
) -> Result<(), Problem> {
    let user = work.get::<User>(&user_id).clone();
    for session_id in sessions {
        if !user.keeps(work.get::<Session>(session_id)) {
            end_in(work, *session_id, user_id, reason, at)?;
        }
    }
    Ok(())
}
