//! Exchanging the code of a magic link for a session.

use super::end_sessions::end;
use super::enter::MayNotEnter;
use super::start_session::{NotStarted, StartSession};
use crate::app::App;
use crate::draft::Draft;
use crate::ids::{SessionId, UserId};
use crate::magic_link::{MagicLink, MagicLinkCommand, MagicLinkError};
use crate::pkce::CodeChallenge;
use crate::session::{RevocationReason, Session, SessionError};
use crate::user::User;

/// Starts a session for a code, or ends the session that the code already started.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct ExchangeCode {
    /// The user of the code, and the session it started, as last seen.
    pub holder: (UserId, Option<SessionId>),
    /// The hash of the verifier that came with the code, if any.
    pub presented: Option<CodeChallenge>,
    pub start: StartSession,
}

/// Why the code is not exchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotExchanged {
    /// It belongs to another user, or has started another session than the one seen: look again.
    #[error("the code was exchanged meanwhile")]
    HolderChanged,
    /// It was never issued, has expired, came without its verifier, or was ended.
    #[error(transparent)]
    InvalidCode(#[from] MagicLinkError),
    /// The app does not let the person in.
    #[error(transparent)]
    MayNotEnter(#[from] MayNotEnter),
    /// The session refused.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl From<NotStarted> for NotExchanged {
    fn from(error: NotStarted) -> Self {
        match error {
            NotStarted::MayNotEnter(why) => Self::MayNotEnter(why),
            NotStarted::Session(error) => Self::Session(error),
        }
    }
}

impl ExchangeCode {
    /// Decides it. `begun` is the session that the code has already started, if any.
    ///
    /// # Errors
    /// See [`NotExchanged`].
    pub fn decide(
        &self,
        app: &App,
        user: &User,
        link: &mut Draft<MagicLink>,
        begun: Option<&mut Draft<Session>>,
        session: &mut Draft<Session>,
    ) -> Result<(), NotExchanged> {
        let Self { holder, presented, start } = self;
        if link.issued.as_ref().is_none_or(|issued| app.id.as_ref() != Some(&issued.app_id)) {
            return Err(MagicLinkError::InvalidCode.into());
        }
        if link.holder() != Some(*holder) || holder.1.is_some() != begun.is_some() {
            return Err(NotExchanged::HolderChanged);
        }
        if user.id != Some(holder.0) {
            return Err(MayNotEnter::NoSuchUser.into());
        }
        link.execute(MagicLinkCommand::RedeemCode {
            presented: presented.clone(),
            epoch: user.epoch,
            admin_since: app.admin_since(user),
            session_id: start.session_id,
            client: start.client.clone(),
            at: start.at,
        })?;
        match (holder, begun) {
            ((user_id, Some(session_id)), Some(begun)) => {
                let reason = RevocationReason::ExchangeCodeReplayed;
                Ok(end(begun, (*user_id, *session_id), reason, start.at)?)
            }
            _ => Ok(start.decide(app, user, session)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::redeem_link::RedeemLink;
    use super::super::start_session::tests::start;
    use super::super::testing::*;
    use super::*;
    use crate::session::LoginMethod;
    use crate::user::Client;

    const NEXT: SessionId = SessionId(uuid::Uuid::from_u128(80));

    fn exchange(begun: Option<SessionId>) -> ExchangeCode {
        ExchangeCode { holder: (USER, begun), presented: None, start: start(LoginMethod::MagicLink) }
    }

    /// A user whose link was redeemed.
    fn redeemed() -> (Draft<User>, Draft<MagicLink>) {
        let (mut user, mut link) = (user([verified()]), link(Some(0)));
        let (email, client) = (email(), Client::default());
        let redeem = RedeemLink { user_id: USER, is_owned: true, email, client, at: at(5) };
        redeem.decide(&app(), &mut user, &mut link).expect("is redeemed");
        (user, link)
    }

    #[test]
    fn begins_a_session() {
        let (user, mut link) = redeemed();
        let mut session = Draft::new();
        exchange(None).decide(&app(), &user, &mut link, None, &mut session).expect("begins");
        assert_eq!(session.decided(), ["SessionStarted"]);
        assert_eq!(link.holder(), Some((USER, Some(SESSION))));
    }

    #[test]
    fn a_code_that_comes_again_ends_the_session_that_it_began_and_begins_none() {
        let (user, mut link) = redeemed();
        let mut begun = Draft::new();
        exchange(None).decide(&app(), &user, &mut link, None, &mut begun).expect("begins");
        let again = ExchangeCode {
            start: StartSession { session_id: NEXT, ..start(LoginMethod::MagicLink) },
            ..exchange(Some(SESSION))
        };
        let mut session = Draft::new();
        again.decide(&app(), &user, &mut link, Some(&mut begun), &mut session).expect("ends");
        assert_eq!(begun.decided(), ["SessionStarted", "SessionRevoked"]);
        assert!(session.events().is_empty());
    }

    #[test]
    fn what_was_exchanged_meanwhile_is_looked_at_again() {
        let (user, mut link) = redeemed();
        exchange(None).decide(&app(), &user, &mut link, None, &mut Draft::new()).expect("begins");
        let refused = exchange(None).decide(&app(), &user, &mut link, None, &mut Draft::new());
        assert_eq!(refused, Err(NotExchanged::HolderChanged));
        // What is looked at again has decided nothing.
        let before = link.events().len();
        let refused = exchange(Some(SESSION)).decide(&app(), &user, &mut link, None, &mut Draft::new());
        assert_eq!(refused, Err(NotExchanged::HolderChanged));
        assert_eq!(link.events().len(), before);
    }

    #[test]
    fn a_code_of_another_app_or_for_somebody_else_does_nothing() {
        let invalid = Err(NotExchanged::InvalidCode(MagicLinkError::InvalidCode));
        let (user, mut link) = redeemed();
        let refused = exchange(None).decide(&another_app(), &user, &mut link, None, &mut Draft::new());
        assert_eq!(refused, invalid);
        let mut begun = Draft::new();
        exchange(None).decide(&app(), &user, &mut link, None, &mut begun).expect("begins");
        // Nor does it end what the code has begun there.
        let again = exchange(Some(SESSION));
        let refused = again.decide(&another_app(), &user, &mut link, Some(&mut begun), &mut Draft::new());
        assert_eq!(refused, invalid);
        assert_eq!(begun.decided(), ["SessionStarted"]);
        let (_, mut link) = redeemed();
        let refused = exchange(None).decide(&app(), &Draft::new(), &mut link, None, &mut Draft::new());
        assert_eq!(refused, Err(NotExchanged::MayNotEnter(MayNotEnter::NoSuchUser)));
    }

    #[test]
    fn a_ban_ends_the_code() {
        let (_, mut link) = redeemed();
        let banned = user([verified(), banned()]);
        let mut session = Draft::new();
        let refused = exchange(None).decide(&app(), &banned, &mut link, None, &mut session);
        assert_eq!(refused, Err(NotExchanged::InvalidCode(MagicLinkError::InvalidCode)));
        assert!(session.events().is_empty());
    }
}
