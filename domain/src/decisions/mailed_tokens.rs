//! Tokens of mails: that one is asked for, and what it is used for.

use jiff::Timestamp;

use super::enter::{AppClosed, require_active};
use super::recipient::{Recipient, TokenOfAdmin};
use crate::app::App;
use crate::draft::Draft;
use crate::ids::UserId;
use crate::lockout::{AccountIsLocked, Lockout, LockoutCommand};
use crate::password::PasswordHash;
use crate::user::{Client, MailboxCommand, ResetReason, User, UserError};

/// Why a token is not used.
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

/// What a token is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// To verify the address.
    Verification,
    /// To choose a new password.
    PasswordReset(ResetReason),
}

/// Asks for a token. Nothing comes of it where nobody has the address, or who has it may not come in.
#[derive(Clone, Debug)]
pub struct RequestToken {
    /// What for.
    pub wanted: Wanted,
    /// Who gets it.
    pub recipient: Recipient,
    /// Whether it is somebody who may do everything in the app that a token without a mail goes to.
    pub full_admin: bool,
    /// Where from.
    pub client: Client,
    /// The time.
    pub at: Timestamp,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRequested {
    /// The app takes no requests.
    #[error(transparent)]
    App(#[from] AppClosed),
    /// It would go to somebody who may not have it.
    #[error(transparent)]
    TokenOfAdmin(#[from] TokenOfAdmin),
    /// The user refused.
    #[error(transparent)]
    User(#[from] UserError),
}

impl RequestToken {
    /// Decides it. `user` has the address, if somebody does.
    ///
    /// # Errors
    /// See [`NotRequested`].
    pub fn decide(&self, app: &App, user: Option<&mut Draft<User>>) -> Result<(), NotRequested> {
        require_active(app)?;
        let Some(user) = user else { return Ok(()) };
        if !self.recipient.is(user)? {
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
pub struct VerifyEmail {
    /// The number of the token.
    pub generation: u32,
    /// The time.
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

/// Gives an account another address.
#[derive(Clone, Copy, Debug)]
pub struct ChangeEmail {
    /// The number of the token.
    pub generation: u32,
    /// The time.
    pub at: Timestamp,
}

impl ChangeEmail {
    /// Decides it. That nobody else has the address, the claim on it sees to.
    ///
    /// # Errors
    /// See [`NotUsed`].
    pub fn decide(self, app: &App, user: &mut Draft<User>) -> Result<(), NotUsed> {
        require_own(app, user)?;
        let Self { generation, at } = self;
        Ok(user.execute(MailboxCommand::ConfirmEmailChange { generation, at }.into())?)
    }
}

/// Erases an account that whoever reads the mail of its address has not made.
#[derive(Clone, Copy, Debug)]
pub struct Disown {
    /// The number of the token.
    pub generation: u32,
    /// The time.
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
pub struct ResetPassword {
    /// Whose.
    pub user_id: UserId,
    /// The number of the token.
    pub generation: u32,
    /// The hash of the new password.
    pub password_hash: PasswordHash,
    /// Where from.
    pub client: Client,
    /// The time.
    pub at: Timestamp,
}

impl ResetPassword {
    /// Decides it. What was guessed at is not the password any more, so failed logins are forgotten.
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

/// Refuses unless the app is active and the user is one of its own. A user whose address cannot be read is erased.
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

    /// With a token of each sort, all of them the first.
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
            let refused = request(wanted, false).decide(&disabled(), Some(&mut user));
            assert_eq!(refused, Err(NotRequested::App(AppClosed::Disabled)));
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
