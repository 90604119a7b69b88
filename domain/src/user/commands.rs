//! The commands of a user.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::events::{ErasureReason, MailboxProof, RegistrationMethod, ResetReason};
use crate::app_id::AppId;
use crate::email::Email;
use crate::ids::{SessionId, UserId};
use crate::password::PasswordHash;
use crate::role::Role;
use crate::session::RevocationReason;
use crate::settings::SentBy;
use crate::webhook::WebhookId;

/// What a person states about themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct Profile {
    /// Their display name.
    pub name: Option<String>,
    pub phone: Option<String>,
    /// Where their picture is.
    pub avatar_url: Option<String>,
}

/// What another system says of an account that comes from there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// What that system calls the account.
    pub external_id: Option<String>,
    /// When it was created there.
    pub registered_at: Option<Timestamp>,
}

/// A change of a profile: `None` leaves a member, `Some(None)` clears it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct ProfilePatch {
    /// Their display name.
    pub name: Option<Option<String>>,
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

/// The commands of a user.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub enum UserCommand {
    /// Create the account.
    Register {
        user_id: UserId,
        app_id: AppId,
        method: RegistrationMethod,
        email: Email,
        /// The proof that it is theirs, if there is one already.
        proof: Option<MailboxProof>,
        /// The hash of their password, if they have one.
        password_hash: Option<PasswordHash>,
        /// What they say about themselves.
        profile: Profile,
        /// Where the account comes from, if from another system.
        origin: Origin,
        client: Client,
        at: Timestamp,
    },
    /// Change the profile.
    UpdateProfile {
        /// What changes.
        patch: ProfilePatch,
        at: Timestamp,
    },
    /// Replace the hash by one of the same password with stronger parameters.
    Rehash {
        /// The hash that the password was checked against.
        old: PasswordHash,
        /// The new one.
        new: PasswordHash,
        at: Timestamp,
    },
    /// Give a role.
    GrantRole {
        role: Role,
        /// If it makes them an admin (it is the app's admin role, and they did not have it as such): how often the app has
        /// changed which role that is.
        promotes: Option<u32>,
        at: Timestamp,
    },
    /// Take a role.
    RevokeRole { role: Role, at: Timestamp },
    /// Ban the user.
    Ban {
        /// Why, for the audit log.
        reason: Option<String>,
        at: Timestamp,
    },
    /// Undo [`UserCommand::Ban`].
    Unban { at: Timestamp },
    /// End all access: sessions, codes, links, tokens and a pending change of address.
    EndAccess {
        /// A session that is kept.
        kept_session: Option<SessionId>,
        reason: RevocationReason,
        at: Timestamp,
    },
    /// Erase the person, for good.
    Erase { reason: ErasureReason, at: Timestamp },
    /// Tell them that a webhook of their app was disabled.
    TellOfWebhook {
        webhook_id: WebhookId,
        /// Since when it had accepted nothing.
        failing_since: Timestamp,
        /// Who sends the mail.
        delivery: SentBy,
        at: Timestamp,
    },
    /// A command about the address or the password.
    Mailbox(MailboxCommand),
}

impl From<MailboxCommand> for UserCommand {
    fn from(command: MailboxCommand) -> Self {
        Self::Mailbox(command)
    }
}

/// The commands about the address and the password of a user.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub enum MailboxCommand {
    /// Send a token that proves that the person reads the mail of their address. Does nothing if the address is
    /// verified.
    RequestEmailVerification {
        /// Who sends the mail.
        delivery: SentBy,
        /// Whether a token that is not mailed goes to a caller with full rights in the app.
        full_admin: bool,
        /// Life of the token, in seconds.
        ttl: u32,
        at: Timestamp,
    },
    /// Use the token.
    VerifyEmail { generation: u32, at: Timestamp },
    /// Declare with such a token that the account was created by somebody else, which erases it.
    Disown { generation: u32, at: Timestamp },
    /// Record that somebody has proven in another way that they read the mail of this address.
    ProveEmail { email: Email, proof: MailboxProof, at: Timestamp },
    /// Send a token to another address, which becomes the account's when the token is used.
    RequestEmailChange {
        /// The other address.
        new_email: Email,
        /// The hash that the password was checked against.
        checked: PasswordHash,
        /// The requesting session, which survives the change.
        session_id: SessionId,
        /// Who sends the mails.
        delivery: SentBy,
        /// Life of the token, in seconds.
        ttl: u32,
        client: Client,
        at: Timestamp,
    },
    /// Use the token.
    ConfirmEmailChange { generation: u32, at: Timestamp },
    /// Create a token for choosing a new password.
    RequestPasswordReset {
        reason: ResetReason,
        /// Who sends the mail.
        delivery: SentBy,
        /// Whether a token that is not mailed goes to a caller with full rights in the app.
        full_admin: bool,
        /// Life of the token, in seconds.
        ttl: u32,
        client: Client,
        at: Timestamp,
    },
    /// Use the token.
    ResetPassword { generation: u32, password_hash: PasswordHash, client: Client, at: Timestamp },
    /// Change the password.
    ChangePassword {
        /// The hash that the old password was checked against.
        checked: PasswordHash,
        /// The hash of the new one.
        new: PasswordHash,
        /// The requesting session, which is kept.
        session_id: SessionId,
        at: Timestamp,
    },
}
