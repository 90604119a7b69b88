//! Registration with a password: an account, and its first session or the verification mail.

use super::enter::{AppClosed, MayNotEnter, require_active};
use super::start_session::{NotStarted, StartSession};
use crate::app::App;
use crate::draft::Draft;
use crate::email::Email;
use crate::ids::UserId;
use crate::password::PasswordHash;
use crate::session::{Session, SessionError};
use crate::settings::{Registration, SentBy};
use crate::user::{MailboxCommand, Origin, Profile, RegistrationMethod, User, UserCommand, UserError};

/// Makes an account.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct Register {
    pub user_id: UserId,
    pub email: Email,
    /// The hash of their password.
    pub password_hash: PasswordHash,
    /// The profile as the person stated it.
    pub profile: Profile,
    /// Whether the mailbox's budget allows another mail.
    pub may_send: bool,
    /// The first session. Apps that require a verified address start none.
    pub start: StartSession,
}

/// Why no account is created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRegistered {
    /// The app takes no requests.
    #[error(transparent)]
    App(#[from] AppClosed),
    /// The app takes no new users.
    #[error("the app takes no new users")]
    RegistrationClosed,
    /// The app does not let the person in.
    #[error(transparent)]
    MayNotEnter(MayNotEnter),
    /// The account refused.
    #[error(transparent)]
    User(#[from] UserError),
    /// The session refused.
    #[error(transparent)]
    Session(SessionError),
}

impl From<NotStarted> for NotRegistered {
    fn from(error: NotStarted) -> Self {
        match error {
            NotStarted::MayNotEnter(why) => Self::MayNotEnter(why),
            NotStarted::Session(error) => Self::Session(error),
        }
    }
}

impl Register {
    /// Decides it. The claim on the address ensures that no other account has it. An app that takes only invited people
    /// takes the address if it `is_invited`.
    ///
    /// # Errors
    /// See [`NotRegistered`].
    pub fn decide(
        &self,
        app: &App,
        is_invited: bool,
        user: &mut Draft<User>,
        session: &mut Draft<Session>,
    ) -> Result<(), NotRegistered> {
        let app_id = require_active(app)?;
        let settings = &app.settings;
        match settings.registration {
            Registration::Open => {}
            Registration::InviteOnly if is_invited => {}
            Registration::InviteOnly | Registration::Closed => return Err(NotRegistered::RegistrationClosed),
        }
        let at = self.start.at;
        user.execute(UserCommand::Register {
            user_id: self.user_id,
            app_id: app_id.clone(),
            method: RegistrationMethod::Password,
            email: self.email.clone(),
            proof: None,
            password_hash: Some(self.password_hash.clone()),
            profile: self.profile.clone(),
            origin: Origin::default(),
            client: self.start.client.clone(),
            at,
        })?;
        if !settings.require_verified_email {
            return Ok(self.start.decide(app, user, session)?);
        }
        let (delivery, ttl) = (settings.delivery, settings.email_verification_ttl);
        // An app that sends its mails itself has to request the token: this answer never contains it.
        if delivery == SentBy::Platform && self.may_send {
            let verify = MailboxCommand::RequestEmailVerification { delivery, full_admin: false, ttl, at };
            user.execute(verify.into())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::start_session::tests::start;
    use super::super::testing::*;
    use super::*;
    use crate::app_id::AppId;
    use crate::claims::{ClaimChange, Claimed};
    use crate::session::LoginMethod;
    use crate::settings::AppSettings;

    fn register() -> Register {
        Register {
            user_id: USER,
            email: email(),
            password_hash: hash("$argon2id$1"),
            profile: Profile::default(),
            may_send: true,
            start: start(LoginMethod::Registration),
        }
    }

    fn app_that(set: impl FnOnce(&mut AppSettings)) -> Draft<App> {
        app_with(AppId::default_app(), set)
    }

    #[test]
    fn makes_an_account_with_its_address_and_its_first_session() {
        let (mut user, mut session) = (Draft::new(), Draft::new());
        register().decide(&app(), false, &mut user, &mut session).expect("registers");
        assert_eq!((user.decided(), session.decided()), (vec!["UserRegistered"], vec!["SessionStarted"]));
        let address = Claimed::Email { app_id: AppId::default_app(), email: Some(email()) };
        assert_eq!(user.claims(), [ClaimChange::Take(address)]);
    }

    #[test]
    fn asks_to_verify_the_address_and_begins_no_session_where_the_app_wants_that() {
        for (delivery, may_send, events) in [
            (SentBy::Platform, true, vec!["UserRegistered", "EmailVerificationRequested"]),
            (SentBy::Platform, false, vec!["UserRegistered"]),
            (SentBy::App, true, vec!["UserRegistered"]),
        ] {
            let app = app_that(|settings| {
                (settings.require_verified_email, settings.delivery) = (true, delivery);
            });
            let (mut user, mut session) = (Draft::new(), Draft::new());
            let register = Register { may_send, ..register() };
            register.decide(&app, false, &mut user, &mut session).expect("registers");
            assert_eq!((user.decided(), session.decided()), (events, vec![]));
        }
    }

    #[test]
    fn an_app_that_is_closed_takes_nobody() {
        let closed = app_that(|settings| settings.registration = Registration::Closed);
        for (app, why) in [
            (closed, NotRegistered::RegistrationClosed),
            (disabled(), NotRegistered::App(AppClosed::Disabled)),
            (Draft::new(), NotRegistered::App(AppClosed::Absent)),
        ] {
            let (mut user, mut session) = (Draft::new(), Draft::new());
            assert_eq!(register().decide(&app, false, &mut user, &mut session), Err(why));
            assert!(user.events().is_empty() && session.events().is_empty());
        }
    }

    #[test]
    fn an_app_for_invited_people_takes_only_those() {
        for (registration, is_invited, taken) in [
            (Registration::InviteOnly, true, true),
            (Registration::InviteOnly, false, false),
            (Registration::Closed, true, false),
        ] {
            let app = app_that(|settings| settings.registration = registration);
            let (mut user, mut session) = (Draft::new(), Draft::new());
            let done = register().decide(&app, is_invited, &mut user, &mut session);
            assert_eq!(done.is_ok(), taken, "{registration:?}");
            assert_eq!(user.decided().is_empty(), !taken);
            assert!(!user.email_verified, "an invitation can be passed on: it proves no address");
        }
    }

    #[test]
    fn an_id_is_given_once() {
        let refused = register().decide(&app(), false, &mut registered(), &mut Draft::new());
        assert_eq!(refused, Err(NotRegistered::User(UserError::Exists)));
    }
}
