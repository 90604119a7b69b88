//! What can be asked of a user.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::events::{MailboxProof, RegistrationMethod, ResetReason};
use crate::app_id::AppId;
use crate::email::Email;
use crate::ids::{SessionId, UserId};
use crate::password::PasswordHash;
use crate::role::Role;
use crate::session::RevocationReason;
use crate::settings::SentBy;

/// What a person says about themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// The name they go by.
    pub name: Option<String>,
    /// A telephone number.
    pub phone: Option<String>,
    /// Where their picture is.
    pub avatar_url: Option<String>,
}

/// A change of a profile: `None` leaves a member, `Some(None)` clears it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProfilePatch {
    /// The name they go by.
    pub name: Option<Option<String>>,
    /// A telephone number.
    pub phone: Option<Option<String>>,
    /// Where their picture is.
    pub avatar_url: Option<Option<String>>,
}

/// Where a request came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// The address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The browser or program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

/// What can be asked of a user.
#[derive(Clone, Debug)]
pub enum UserCommand {
    /// Make the account.
    Register {
        /// Its id.
        user_id: UserId,
        /// Its app.
        app_id: AppId,
        /// How.
        method: RegistrationMethod,
        /// The person's address.
        email: Email,
        /// What shows that it is theirs, if anything does yet.
        proof: Option<MailboxProof>,
        /// The hash of their password, if they have one.
        password_hash: Option<PasswordHash>,
        /// What they say about themselves.
        profile: Profile,
        /// Where from.
        client: Client,
        /// The time.
        at: Timestamp,
    },
    /// Change the profile.
    UpdateProfile {
        /// What changes.
        patch: ProfilePatch,
        /// The time.
        at: Timestamp,
    },
    /// Keep a hash of the same password with stronger parameters.
    Rehash {
        /// The hash that the password was checked against.
        old: PasswordHash,
        /// The new one.
        new: PasswordHash,
        /// The time.
        at: Timestamp,
    },
    /// Give a role.
    GrantRole {
        /// Which.
        role: Role,
        /// The time.
        at: Timestamp,
    },
    /// Take a role.
    RevokeRole {
        /// Which.
        role: Role,
        /// The time.
        at: Timestamp,
    },
    /// Shut the person out.
    Ban {
        /// Why, for the audit log.
        reason: Option<String>,
        /// The time.
        at: Timestamp,
    },
    /// Undo [`UserCommand::Ban`].
    Unban {
        /// The time.
        at: Timestamp,
    },
    /// End all that the person could come in with: sessions, codes, links, tokens, a change of address that is under way.
    EndAccess {
        /// A session of theirs that goes on.
        kept_session: Option<SessionId>,
        /// Why.
        reason: RevocationReason,
        /// The time.
        at: Timestamp,
    },
    /// Anything that a mail is for, or that ends what mails are for.
    Mailbox(MailboxCommand),
}

impl From<MailboxCommand> for UserCommand {
    fn from(command: MailboxCommand) -> Self {
        Self::Mailbox(command)
    }
}

/// What can be asked about the address and the password of a user.
#[derive(Clone, Debug)]
pub enum MailboxCommand {
    /// Send a token that proves that the person reads the mail of their address. Nothing happens if they did that already.
    RequestEmailVerification {
        /// Who sends the mail.
        delivery: SentBy,
        /// Whether it is somebody who may do everything in the app that a token without a mail goes to.
        full_admin: bool,
        /// Life of the token, in seconds.
        ttl: u32,
        /// The time.
        at: Timestamp,
    },
    /// Use such a token.
    VerifyEmail {
        /// Its number.
        generation: u32,
        /// The time.
        at: Timestamp,
    },
    /// Say with such a token that one has not made the account, which erases it.
    Disown {
        /// Its number.
        generation: u32,
        /// The time.
        at: Timestamp,
    },
    /// Take note that somebody has shown in another way that they read the mail of this address.
    ProveEmail {
        /// Which address.
        email: Email,
        /// How.
        proof: MailboxProof,
        /// The time.
        at: Timestamp,
    },
    /// Send a token to another address, which becomes the person's when it is used.
    RequestEmailChange {
        /// The other address.
        new_email: Email,
        /// The hash that the password was checked against.
        checked: PasswordHash,
        /// The session that asks: it goes on when the address has changed.
        session_id: SessionId,
        /// Who sends the mails.
        delivery: SentBy,
        /// Life of the token, in seconds.
        ttl: u32,
        /// Where from.
        client: Client,
        /// The time.
        at: Timestamp,
    },
    /// Use such a token.
    ConfirmEmailChange {
        /// Its number.
        generation: u32,
        /// The time.
        at: Timestamp,
    },
    /// Make a token that a new password can be chosen with.
    RequestPasswordReset {
        /// Why.
        reason: ResetReason,
        /// Who sends the mail.
        delivery: SentBy,
        /// Whether it is somebody who may do everything in the app that a token without a mail goes to.
        full_admin: bool,
        /// Life of the token, in seconds.
        ttl: u32,
        /// Where from.
        client: Client,
        /// The time.
        at: Timestamp,
    },
    /// Use such a token.
    ResetPassword {
        /// Its number.
        generation: u32,
        /// The hash of the new password.
        password_hash: PasswordHash,
        /// Where from.
        client: Client,
        /// The time.
        at: Timestamp,
    },
    /// Choose another password.
    ChangePassword {
        /// The hash that the old password was checked against.
        checked: PasswordHash,
        /// The hash of the new one.
        new: PasswordHash,
        /// The session that asks: it goes on.
        session_id: SessionId,
        /// The time.
        at: Timestamp,
    },
}
