//! The mail to somebody with whose address another tried to register.

use jiff::Timestamp;

use super::enter::{AppClosed, require_active};
use super::recipient::may_receive;
use crate::app::App;
use crate::draft::Draft;
use crate::email::Email;
use crate::settings::{Registration, SentBy};
use crate::user::{Client, MailboxCommand, ResetReason, User, UserError};

/// Tells the holder of an address that somebody tried to register with it. Where addresses must be verified, nobody else may
/// learn that it is taken, so the app is looked at as a registration of a free address would.
#[derive(Clone, Debug)]
pub struct TellOfRegistration {
    /// The address.
    pub email: Email,
    /// Whether it is invited, which an app for invited people asks for.
    pub is_invited: bool,
    /// Where the registration came from.
    pub client: Client,
    /// The time.
    pub at: Timestamp,
}

/// Why the registration fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTold {
    /// The app takes no requests.
    #[error(transparent)]
    App(#[from] AppClosed),
    /// The app takes no new users.
    #[error("the app takes no new users")]
    RegistrationClosed,
    /// The account refused.
    #[error(transparent)]
    User(#[from] UserError),
}

impl TellOfRegistration {
    /// Decides it. Nobody is told where the app sends its mails, or where the address is not this user's any more.
    ///
    /// # Errors
    /// See [`NotTold`].
    pub fn decide(&self, app: &App, user: &mut Draft<User>) -> Result<(), NotTold> {
        let app_id = require_active(app)?;
        let settings = &app.settings;
        match settings.registration {
            Registration::Open => {}
            Registration::InviteOnly if self.is_invited => {}
            Registration::InviteOnly | Registration::Closed => return Err(NotTold::RegistrationClosed),
        }
        let is_sent = settings.require_verified_email && settings.delivery == SentBy::Platform;
        if !is_sent || !may_receive(user, app_id, &self.email) {
            return Ok(());
        }
        let tell = MailboxCommand::RequestPasswordReset {
            reason: ResetReason::AddressTaken,
            delivery: settings.delivery,
            full_admin: false,
            ttl: settings.password_reset_ttl,
            client: self.client.clone(),
            at: self.at,
        };
        Ok(user.execute(tell.into())?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::app_id::AppId;
    use crate::settings::AppSettings;

    fn tell() -> TellOfRegistration {
        TellOfRegistration { email: email(), is_invited: false, client: Client::default(), at: at(10) }
    }

    /// An app that asks for verified addresses.
    fn strict(set: impl FnOnce(&mut AppSettings)) -> Draft<App> {
        app_with(AppId::default_app(), |settings| {
            (settings.require_verified_email, settings.delivery) = (true, SentBy::Platform);
            set(settings);
        })
    }

    #[test]
    fn tells_who_has_the_address() {
        let mut user = registered();
        tell().decide(&strict(|_| {}), &mut user).expect("tells");
        assert_eq!(user.decided(), ["PasswordResetRequested"]);
    }

    #[test]
    fn tells_nobody_else_and_not_where_the_app_sends_or_says_so() {
        let other = TellOfRegistration { email: Email::parse("eve@example.com").expect("valid"), ..tell() };
        let elsewhere = app_with(AppId::parse("another").expect("valid"), |settings| {
            (settings.require_verified_email, settings.delivery) = (true, SentBy::Platform);
        });
        for (tell, app, mut user) in [
            (other, strict(|_| {}), registered()),
            (tell(), strict(|_| {}), user([banned()])),
            (tell(), strict(|_| {}), user([erased()])),
            (tell(), strict(|_| {}), Draft::new()),
            (tell(), elsewhere, registered()),
            (tell(), strict(|settings| settings.delivery = SentBy::App), registered()),
            (tell(), strict(|settings| settings.require_verified_email = false), registered()),
        ] {
            tell.decide(&app, &mut user).expect("is no error");
            assert!(user.events().is_empty());
        }
    }

    /// As for an address that is free.
    #[test]
    fn an_app_that_is_closed_refuses() {
        for (app, why) in [
            (strict(|settings| settings.registration = Registration::Closed), NotTold::RegistrationClosed),
            (disabled(), NotTold::App(AppClosed::Disabled)),
            (Draft::new(), NotTold::App(AppClosed::Absent)),
        ] {
            let mut user = registered();
            assert_eq!(tell().decide(&app, &mut user), Err(why));
            assert!(user.events().is_empty());
        }
    }
}
