//! Ending sessions, as part of the action that ends them.

use dispatcher::{Committed, Context, DispatchError, Handle, Reads, Work};
use domain::claims::ClaimKind;
use domain::decisions::end_sessions::end;
use domain::session::{LoginMethod, RevocationReason, Session};
use domain::user::User;
use domain::{SessionId, StreamId, Timestamp, UserId};
use event_store::lookup::sessions_of;
use http_kit::auth::AdminCaller;
use http_kit::problem::Problem;

use crate::CommandService;

/// Sessions of a user that a decision may end.
#[derive(Clone)]
pub(crate) struct SessionsOf {
    user_id: UserId,
    sessions: Vec<(SessionId, Handle<Session>)>,
}

impl SessionsOf {
    pub fn read(user_id: UserId, sessions: &[SessionId], reads: &mut Reads) -> Self {
        let sessions = sessions.iter().map(|id| (*id, reads.of(id))).collect();
        Self { user_id, sessions }
    }

    /// Ends all of them.
    pub fn end_all(&self, work: &mut Work, reason: RevocationReason, at: Timestamp) -> Result<(), Problem> {
        self.end_where(work, reason, at, |_, _| true)
    }

    /// Ends all sessions that the user does not keep.
    fn end_those_not_kept(
        &self,
        work: &mut Work,
        user: Handle<User>,
        reason: RevocationReason,
        at: Timestamp,
    ) -> Result<(), Problem> {
        self.end_where(work, reason, at, |work, session| !work.get(user).keeps(work.get(session)))
    }

    fn end_where(
        &self,
        work: &mut Work,
        reason: RevocationReason,
        at: Timestamp,
        ends: impl Fn(&Work, Handle<Session>) -> bool,
    ) -> Result<(), Problem> {
        for (session_id, session) in &self.sessions {
            if ends(work, *session) {
                let whose = (self.user_id, *session_id);
                end(work.draft(*session), whose, reason, at).map_err(Problem::internal)?;
            }
        }
        Ok(())
    }
}

/// How many sessions one append ends at most, unless they must end together.
const TOGETHER: usize = 200;

impl CommandService {
    /// Ends the remaining sessions of a banned user, and does nothing if the user is not banned. Returns the position
    /// of the last end, 0 if there was none.
    ///
    /// It is part of the ban, so it is done even if the caller is no longer an admin.
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
        // A banned user cannot start new sessions, so one look-up finds all of them.
        for sessions in self.claimed_sessions(user_id).await?.chunks(TOGETHER) {
            let (mut reads, user) = Reads::one::<User>(&user_id);
            let sessions = SessionsOf::read(user_id, sessions, &mut reads);
            let decide = move |work: &mut Work| {
                if !work.get(user).banned {
                    return Ok(());
                }
                sessions.end_all(work, RevocationReason::Ban, at)
            };
            let ended = self.dispatcher.run(context.clone(), reads, decide).await?;
            position = position.max(ended.position);
        }
        Ok(position)
    }

    /// Ends a user's oldest sessions if they exceed the limit now that this one has begun. A failure is only logged: the
    /// excess session has already started, and the next login tries again.
    pub(crate) async fn end_oldest_sessions(&self, user_id: UserId, begun: SessionId, context: Context) {
        if let Err(problem) = self.try_to_end_oldest(user_id, begun, context).await {
            tracing::warn!(code = problem.code(), "could not end a user's oldest sessions");
        }
    }

    async fn try_to_end_oldest(
        &self,
        user_id: UserId,
        begun: SessionId,
        context: Context,
    ) -> Result<(), Problem> {
        let sessions = self.claimed_sessions(user_id).await?;
        self.end_oldest_of(user_id, sessions, self.settings.sessions.get(), begun, context).await
    }

    /// Ends a user's oldest test sessions if they exceed a tenth of the limit. The person's own sessions stay: the key that
    /// creates test tokens may not be entitled to end them.
    pub(crate) async fn end_oldest_test_sessions(
        &self,
        user_id: UserId,
        begun: SessionId,
        context: Context,
    ) -> Result<(), Problem> {
        let most = (self.settings.sessions.get() / 10).max(1);
        let sessions = self.claimed_sessions(user_id).await?;
        if sessions.len() <= most {
            return Ok(());
        }
        let mut for_tests = Vec::new();
        for session_id in sessions {
            let session = self.repository.load_at_hand::<Session>(&session_id).await?;
            if session.state.owner.as_ref().is_some_and(|owner| owner.method == LoginMethod::Admin) {
                for_tests.push(session_id);
            }
        }
        self.end_oldest_of(user_id, for_tests, most, begun, context).await
    }

    /// Ids are ordered by the clocks of the nodes that made them, so the session that has just begun need not be the newest.
    /// It stays: otherwise a login on a node whose clock is behind would end itself.
    async fn end_oldest_of(
        &self,
        user_id: UserId,
        mut sessions: Vec<SessionId>,
        most: usize,
        begun: SessionId,
        context: Context,
    ) -> Result<(), Problem> {
        let (at, too_many) = (context.at, sessions.len().saturating_sub(most));
        sessions.retain(|session_id| *session_id != begun);
        sessions.truncate(too_many);
        for sessions in sessions.chunks(TOGETHER) {
            let mut reads = Reads::new();
            let sessions = SessionsOf::read(user_id, sessions, &mut reads);
            let decide = move |work: &mut Work| sessions.end_all(work, RevocationReason::Limit, at);
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

    /// Runs a decision that may end sessions of a user, and then revokes those that the user does not keep.
    ///
    /// The user's own event ends them, from its acknowledgement on. Revoking them records it in each session's history and in
    /// lists. A login committed between the look-up and the decision is found by a second look-up.
    pub(crate) async fn run_ending_sessions<T: Send + 'static>(
        &self,
        user_id: UserId,
        reason: RevocationReason,
        context: Context,
        reads: Reads,
        decide: impl FnMut(&mut Work) -> Result<T, Problem> + Send + 'static,
    ) -> Result<Committed<T>, DispatchError<Problem>> {
        self.run_ending_sessions_as(None, user_id, reason, context, reads, decide).await
    }

    /// Like [`CommandService::run_ending_sessions`], for an admin who must still be entitled. Sessions that the decision
    /// ended are revoked even if the caller is no longer an admin by then.
    pub(crate) async fn run_ending_sessions_as<T: Send + 'static>(
        &self,
        caller: Option<&AdminCaller>,
        user_id: UserId,
        reason: RevocationReason,
        context: Context,
        mut reads: Reads,
        mut decide: impl FnMut(&mut Work) -> Result<T, Problem> + Send + 'static,
    ) -> Result<Committed<T>, DispatchError<Problem>> {
        let sessions = self.claimed_sessions(user_id).await.map_err(DispatchError::Refused)?;
        let user = reads.of::<User>(&user_id);
        let sessions = SessionsOf::read(user_id, &sessions, &mut reads);
        let (at, after) = (context.at, Context { idempotency: None, ..context.clone() });
        let decide = move |work: &mut Work| {
            let value = decide(work)?;
            // What was decided about somebody else, or was not decided after all, has ended nothing.
            if !work.draft(user).events().is_empty() {
                sessions.end_those_not_kept(work, user, reason, at)?;
            }
            Ok(value)
        };
        let done = match caller {
            Some(caller) => self.run_as(caller, context, reads, decide).await?,
            None => self.dispatcher.run(context, reads, decide).await?,
        };
        if !done.replayed
            && let Err(problem) = self.sweep(user_id, reason, after).await
        {
            tracing::warn!(code = problem.code(), "could not revoke sessions that have ended");
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
        let (mut reads, user) = Reads::one::<User>(&user_id);
        let sessions = SessionsOf::read(user_id, &sessions, &mut reads);
        let decide = move |work: &mut Work| sessions.end_those_not_kept(work, user, reason, at);
        self.dispatcher.run(context, reads, decide).await?;
        Ok(())
    }
}
