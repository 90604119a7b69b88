//! What the flows of mailed tokens have in common: reading a token, and ending the sessions that a decision has cut off.

use std::sync::Arc;

use domain::one_time::UserToken;
use domain::session::{RevocationReason, Session};
use domain::user::{User, UserError};
use domain::{AppId, SessionId, Timestamp, UserId};
use event_store::Loaded;
use http_kit::auth::AdminCaller;
use http_kit::problem::Problem;
use tokens::TokenPurpose;

use crate::CommandService;
use crate::sessions::end::end_in;
use dispatcher::{Committed, Context, DispatchError, Read, Work};

/// 400: one answer for a token that was never made, is too old or used, or belongs elsewhere.
pub(crate) fn dead_token() -> Problem {
    Problem::new("invalid_or_expired_token")
}

/// What the holder of a one-time token is told.
pub(crate) fn token_problem(error: UserError) -> Problem {
    match error {
        // Only who asks to verify it cares that it is verified already, and looks for it.
        UserError::InvalidToken | UserError::Absent | UserError::AlreadyVerified => dead_token(),
        UserError::Banned => Problem::new("user_banned"),
        other => Problem::internal(other),
    }
}

impl CommandService {
    /// Whose token this is, and the user as they are; 400 for anything that is none of this app. Whether it is good is for
    /// the user to decide.
    pub(crate) async fn one_time_token(
        &self,
        app_id: &AppId,
        purpose: TokenPurpose,
        text: &str,
    ) -> Result<(UserToken, Arc<Loaded<User>>), Problem> {
        let token = self.tokens.open_one_time(purpose, text).ok_or_else(dead_token)?;
        let user = self.repository.load::<User>(&token.user_id).await?;
        if user.state.is_of(app_id) { Ok((token, user)) } else { Err(dead_token()) }
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
