//! Mailed tokens: requesting and using them.

use jiff::Timestamp;

use super::enter::{AppClosed, require_active};
use super::recipient::{Recipient, TokenOfAdmin};
use crate::app::App;
use crate::draft::Draft;
use crate::ids::UserId;
use crate::lockout::{AccountIsLocked, Lockout, LockoutCommand};
use crate::password::PasswordHash;
use crate::user::{Client, MailboxCommand, ResetReason, User, UserError};

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUsed {
    /// The app takes no requests.
    #[error(transparent)]
    App(#[from] AppClosed),
    /// The user refused.
    #[error(transparent)]
    User(#[from] UserError),
    /// The lockout refused.
    #[error(transparent)]
    Lockout(#[from] AccountIsLocked),
}

/// The purpose of a requested token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// To verify the address.
    Verification,
    /// To choose a new password.
    PasswordReset(ResetReason),
}

/// Requests a token. Does nothing if the address has no account, or if its user may not enter.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct RequestToken {
    pub wanted: Wanted,
    /// The recipient of the mail.
    pub recipient: Recipient,
    /// Whether a token that is not mailed goes to a full admin of the app.
    pub full_admin: bool,
    pub client: Client,
    pub at: Timestamp,
}

/// Why no token is issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRequested {
    /// The app takes no requests.
    #[error(transparent)]
    App(#[from] AppClosed),
    /// The recipient may not have it.
    #[error(transparent)]
    TokenOfAdmin(#[from] TokenOfAdmin),
    /// The user refused.
    #[error(transparent)]
    User(#[from] UserError),
}

impl RequestToken {
    /// Decides it. `user` is the user with the address, if any.
    ///
    /// # Errors
    /// See [`NotRequested`].
    pub fn decide(&self, app: &App, user: Option<&mut Draft<User>>) -> Result<(), NotRequested> {
        self.recipient.require_active(app)?;
        let Some(user) = user else { return Ok(()) };
        if !self.recipient.is(app, user)? {
            return Ok(());
        }
        let Self { wanted, full_admin, at, .. } = *self;
        let (client, settings) = (self.client.clone(), &app.settings);
        let delivery = settings.delivery;
        let command = match wanted {
            Wanted::Verification => {
                let ttl = settings.email_verification_ttl;
                MailboxCommand::RequestEmailVerification { delivery, full_admin, ttl, at }
            }
            Wanted::PasswordReset(reason) => {
                let ttl = settings.password_reset_ttl;
                MailboxCommand::RequestPasswordReset { reason, delivery, full_admin, ttl, client, at }
            }
        };
        Ok(user.execute(command.into())?)
    }
}

/// Verifies the address of an account.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct VerifyEmail {
    pub generation: u32,
    pub at: Timestamp,
}

impl VerifyEmail {
    /// Decides it.
    ///
    /// # Errors
    /// See [`NotUsed`].
    pub fn decide(self, app: &App, user: &mut Draft<User>) -> Result<(), NotUsed> {
        require_own(app, user)?;
        let Self { generation, at } = self;
        Ok(user.execute(MailboxCommand::VerifyEmail { generation, at }.into())?)
    }
}

/// Changes an account's address.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct ChangeEmail {
    pub generation: u32,
    pub at: Timestamp,
}

impl ChangeEmail {
    /// Decides it. The claim on the address ensures that no other account has it.
    ///
    /// # Errors
    /// See [`NotUsed`].
    pub fn decide(self, app: &App, user: &mut Draft<User>) -> Result<(), NotUsed> {
        require_own(app, user)?;
        let Self { generation, at } = self;
        Ok(user.execute(MailboxCommand::ConfirmEmailChange { generation, at }.into())?)
    }
}

/// Erases an account for the reader of its mail, who did not create it.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct Disown {
    pub generation: u32,
    pub at: Timestamp,
}

impl Disown {
    /// Decides it.
    ///
    /// # Errors
    /// See [`NotUsed`].
    pub fn decide(self, app: &App, user: &mut Draft<User>) -> Result<(), NotUsed> {
        require_own(app, user)?;
        let Self { generation, at } = self;
        Ok(user.execute(MailboxCommand::Disown { generation, at }.into())?)
    }
}

/// Sets a new password.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct ResetPassword {
    pub user_id: UserId,
    pub generation: u32,
    pub password_hash: PasswordHash,
    pub client: Client,
    pub at: Timestamp,
}

impl ResetPassword {
    /// Decides it. Failed logins are forgotten, because they were guesses at the old password.
    ///
    /// # Errors
    /// See [`NotUsed`].
    pub fn decide(
        &self,
        app: &App,
        user: &mut Draft<User>,
        lockout: &mut Draft<Lockout>,
    ) -> Result<(), NotUsed> {
        require_own(app, user)?;
        let Self { user_id, generation, password_hash, client, at } = self.clone();
        user.execute(MailboxCommand::ResetPassword { generation, password_hash, client, at }.into())?;
        Ok(lockout.execute(LockoutCommand::Unlock { user_id, at })?)
    }
}

/// Refuses unless the app is active and the user belongs to it. A user without a readable address is erased.
fn require_own(app: &App, user: &User) -> Result<(), NotUsed> {
    let app_id = require_active(app)?;
    user.email.as_ref().filter(|_| user.is_of(app_id)).ok_or(UserError::Absent)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::claims::{ClaimChange, Claimed};
    use crate::email::Email;
    use crate::settings::SentBy;
    use crate::user::UserCommand;

    /// With one token of each purpose, number 1.
    fn with_tokens() -> Draft<User> {
        let mut user = registered();
        let (delivery, full_admin, ttl, at) = (SentBy::Platform, false, 100, at(1));
        let client = Client::default;
        for command in [
            MailboxCommand::RequestEmailVerification { delivery, full_admin, ttl, at },
            MailboxCommand::RequestEmailChange {
                new_email: Email::parse("new@example.com").expect("valid"),
                checked: hash("$argon2id$1"),
                session_id: SESSION,
                delivery,
                ttl,
                client: client(),
                at,
            },
            MailboxCommand::RequestPasswordReset {
                reason: ResetReason::Forgotten,
                delivery,
                full_admin,
                ttl,
                client: client(),
                at,
            },
        ] {
            user.execute(command.into()).expect("is made");
        }
        let (loaded, _) = user.into_appended();
        Draft::of(loaded.into())
    }

    #[test]
    fn a_token_goes_to_who_has_the_address_and_may_come_in() {
        let request = |wanted, server_is_limited| RequestToken {
            wanted,
            recipient: Recipient { app_id: crate::AppId::default_app(), email: email(), server_is_limited },
            full_admin: false,
            client: Client::default(),
            at: at(10),
        };
        let reset = Wanted::PasswordReset(ResetReason::Forgotten);
        for (wanted, event) in
            [(Wanted::Verification, "EmailVerificationRequested"), (reset, "PasswordResetRequested")]
        {
            let mut user = registered();
            request(wanted, false).decide(&app(), Some(&mut user)).expect("is made");
            assert_eq!(user.decided(), [event]);
            let mut banned = super::super::testing::user([banned()]);
            request(wanted, false).decide(&app(), Some(&mut banned)).expect("nothing comes of it");
            assert!(banned.events().is_empty());
            request(wanted, false).decide(&app(), None).expect("nothing comes of it");
            for (app, why) in [(disabled(), AppClosed::Disabled), (another_app(), AppClosed::Absent)] {
                let refused = request(wanted, false).decide(&app, Some(&mut user));
                assert_eq!(refused, Err(NotRequested::App(why)));
            }
            let mut admin = super::super::testing::user([admin()]);
            let refused = request(wanted, true).decide(&app(), Some(&mut admin));
            assert_eq!(refused, Err(NotRequested::TokenOfAdmin(TokenOfAdmin)));
        }
    }

    fn reset() -> ResetPassword {
        let (password_hash, client) = (hash("$argon2id$2"), Client::default());
        ResetPassword { user_id: USER, generation: 1, password_hash, client, at: at(10) }
    }

    #[test]
    fn a_new_password_ends_the_lock_that_guesses_at_the_old_one_led_to() {
        let (mut user, mut lockout) = (with_tokens(), locked());
        reset().decide(&app(), &mut user, &mut lockout).expect("is set");
        assert_eq!(user.decided(), ["PasswordReset", "EmailVerified"]);
        assert_eq!(lockout.decided(), ["AccountUnlocked"]);
        assert!(!user.keeps(&session(0)));
    }

    #[test]
    fn another_address_takes_its_claim_and_gives_the_old_one_back() {
        let mut user = with_tokens();
        ChangeEmail { generation: 1, at: at(10) }.decide(&app(), &mut user).expect("is changed");
        let claimed = |text| {
            let email = Some(Email::parse(text).expect("valid"));
            Claimed::Email { app_id: crate::AppId::default_app(), email }
        };
        let passed =
            [ClaimChange::Release(claimed("ada@example.com")), ClaimChange::Take(claimed("new@example.com"))];
        assert_eq!(user.claims(), passed);
    }

    #[test]
    fn an_account_is_disowned_until_it_is_proven() {
        let mut user = with_tokens();
        Disown { generation: 1, at: at(10) }.decide(&app(), &mut user).expect("is erased");
        assert_eq!(user.decided(), ["UserErased"]);
        let mut user = with_tokens();
        VerifyEmail { generation: 1, at: at(10) }.decide(&app(), &mut user).expect("is verified");
        let refused = Disown { generation: 1, at: at(11) }.decide(&app(), &mut user);
        assert_eq!(refused, Err(NotUsed::User(UserError::InvalidToken)));
        let again = VerifyEmail { generation: 1, at: at(11) }.decide(&app(), &mut user);
        assert_eq!(again, Err(NotUsed::User(UserError::AlreadyVerified)));
    }

    #[test]
    fn no_token_does_anything_in_a_stopped_or_another_app_or_for_a_banned_person() {
        let ban = || {
            let mut user = with_tokens();
            user.execute(UserCommand::Ban { reason: None, at: at(5) }).expect("is banned");
            user
        };
        for (app, mut user, why) in [
            (disabled(), with_tokens(), NotUsed::App(AppClosed::Disabled)),
            (another_app(), with_tokens(), NotUsed::User(UserError::Absent)),
            (app(), ban(), NotUsed::User(UserError::Banned)),
        ] {
            let before = user.events().len();
            let (generation, at) = (1, at(10));
            assert_eq!(VerifyEmail { generation, at }.decide(&app, &mut user), Err(why.clone()));
            assert_eq!(ChangeEmail { generation, at }.decide(&app, &mut user), Err(why.clone()));
            assert_eq!(Disown { generation, at }.decide(&app, &mut user), Err(why.clone()));
            let mut lockout = locked();
            assert_eq!(reset().decide(&app, &mut user, &mut lockout), Err(why));
            assert_eq!((user.events().len(), lockout.events().len()), (before, 0));
        }
    }
}
