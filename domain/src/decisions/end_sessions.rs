//! Ending sessions, as part of any decision that ends them.

use jiff::Timestamp;

use crate::claims::Claimed;
use crate::draft::Draft;
use crate::ids::{SessionId, UserId};
use crate::session::{RevocationReason, Session, SessionCommand, SessionError};
use crate::user::{User, UserCommand, UserError};

/// Ends a session of a user. One that has already ended only releases its claim. So does one of another user: a claim is a
/// row, and whoever can write to the store can make it name anybody's session.
///
/// A claim is released with an event only. As the limit may end nothing else, it revokes an expired session as well.
///
/// # Errors
/// The session's own refusals.
pub fn end(
    session: &mut Draft<Session>,
    (user_id, session_id): (UserId, SessionId),
    reason: RevocationReason,
    at: Timestamp,
) -> Result<(), SessionError> {
    let is_theirs = session.owner.as_ref().is_some_and(|owner| owner.user_id == user_id);
    let ends = match session.require_live(at) {
        Ok(_) => true,
        Err(SessionError::Expired) => reason == RevocationReason::Limit,
        Err(_) => false,
    };
    if is_theirs && ends {
        return session.execute(SessionCommand::Revoke { reason, at });
    }
    session.give_back(Claimed::Session { user_id, session_id });
    Ok(())
}

/// Ends all of a user's access except one session. The caller of the decision revokes the sessions themselves.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct EndAccess {
    pub user_id: UserId,
    /// The session to keep.
    pub exclude: Option<SessionId>,
    pub reason: RevocationReason,
    pub at: Timestamp,
}

impl EndAccess {
    /// Decides it. `excluded` is the session to keep; one that has already ended must not become usable again.
    ///
    /// # Errors
    /// The user's own refusals.
    pub fn decide(self, user: &mut Draft<User>, excluded: Option<&Session>) -> Result<(), UserError> {
        let Self { user_id, exclude, reason, at } = self;
        let goes_on = |session_id: &SessionId| {
            excluded.is_some_and(|session| {
                let owner = session.require_live(at);
                let is_it =
                    owner.is_ok_and(|owner| owner.user_id == user_id && owner.session_id == *session_id);
                is_it && user.keeps(session)
            })
        };
        let kept_session = exclude.filter(goes_on);
        user.execute(UserCommand::EndAccess { kept_session, reason, at })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::claims::ClaimChange;
    use crate::user::UserEvent;

    fn end_access(exclude: Option<SessionId>, second: i64) -> EndAccess {
        EndAccess { user_id: USER, exclude, reason: RevocationReason::User, at: at(second) }
    }

    fn kept(user: &Draft<User>) -> Option<SessionId> {
        match user.events() {
            [crate::Event::User(UserEvent::AccessEnded(event))] => event.kept_session,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_live_session_is_revoked_and_one_that_has_expired_gives_its_place_back() {
        let place = ClaimChange::Release(Claimed::Session { user_id: USER, session_id: SESSION });
        for (second, events) in [(10, vec!["SessionRevoked"]), (100, vec![])] {
            let mut session = session(0);
            end(&mut session, (USER, SESSION), RevocationReason::Ban, at(second)).expect("ends");
            assert_eq!(session.decided(), events);
            assert_eq!(session.claims(), std::slice::from_ref(&place));
        }
    }

    #[test]
    fn ends_nobody_elses_session_whatever_the_list_says() {
        let eve = UserId(uuid::Uuid::from_u128(70));
        let mut session = session(0);
        end(&mut session, (eve, SESSION), RevocationReason::Ban, at(10)).expect("gives the place back");
        assert!(session.events().is_empty());
        let place = Claimed::Session { user_id: eve, session_id: SESSION };
        assert_eq!(session.claims(), [ClaimChange::Release(place)]);
    }

    #[test]
    fn the_limit_gives_the_places_of_expired_sessions_back_with_an_event() {
        let mut session = session(0);
        end(&mut session, (USER, SESSION), RevocationReason::Limit, at(100)).expect("ends");
        assert_eq!(session.decided(), ["SessionRevoked"]);
    }

    #[test]
    fn keeps_no_session_but_the_one_that_was_named() {
        let mut user = registered();
        let other = SessionId(uuid::Uuid::from_u128(80));
        end_access(Some(other), 10).decide(&mut user, Some(&session(0))).expect("ends");
        assert_eq!(kept(&user), None);
    }

    #[test]
    fn leaves_a_session_that_goes_on() {
        let mut user = registered();
        end_access(Some(SESSION), 10).decide(&mut user, Some(&session(0))).expect("ends");
        assert_eq!(kept(&user), Some(SESSION));
        assert!(user.keeps(&session(0)));
    }

    #[test]
    fn does_not_bring_a_session_back_to_life() {
        let revived = user([banned()]);
        for (mut user, second, excluded) in [
            (registered(), 100, Some(session(0))),
            (revived, 10, Some(session(0))),
            (registered(), 10, Some(Draft::new())),
            (registered(), 10, None),
        ] {
            end_access(Some(SESSION), second).decide(&mut user, excluded.as_deref()).expect("ends");
            assert_eq!(kept(&user), None);
        }
    }
}
