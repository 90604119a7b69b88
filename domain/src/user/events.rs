//! What happens to a user.

use std::collections::BTreeSet;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app_id::AppId;
use crate::claims::{ClaimChange, ClaimKind, Claimed, Claiming, Holding};
use crate::event::events;
use crate::ids::{SessionId, UserId};
use crate::personal::Personal;
use crate::role::Role;
use crate::session::RevocationReason;
use crate::settings::SentBy;

/// How an account came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RegistrationMethod {
    /// The person chose a password.
    Password,
    /// An admin made it.
    Admin,
    /// Somebody followed a magic link to an address that had no account.
    MagicLink,
}

/// What showed that somebody reads the mail of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MailboxProof {
    /// The token of a mail that asked to verify the address.
    Verification,
    /// A magic link.
    MagicLink,
    /// The token of a mail that offered a new password.
    PasswordReset,
}

/// Why a token for a new password was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResetReason {
    /// Somebody has forgotten the password.
    Forgotten,
    /// Somebody tried to register with the address of this account.
    AddressTaken,
    /// An admin asked for it, to hand it on in their own way. So using it proves nothing about the mailbox.
    Admin,
}

/// An account was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UserRegistered {
    /// Its id.
    pub user_id: UserId,
    /// Its app.
    pub app_id: AppId,
    /// How.
    pub method: RegistrationMethod,
    /// When.
    pub at: Timestamp,
    /// Address, profile, password hash, where from.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// A member of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProfileField {
    /// The name the person goes by.
    Name,
    /// A telephone number.
    Phone,
    /// Where the person's picture is.
    AvatarUrl,
}

/// A profile was changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProfileUpdated {
    /// Whose.
    pub user_id: UserId,
    /// What was cleared. What was set is in `personal`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub cleared: BTreeSet<ProfileField>,
    /// When.
    pub at: Timestamp,
    /// The new values.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// The same password was hashed again with stronger parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PasswordRehashed {
    /// Whose.
    pub user_id: UserId,
    /// When.
    pub at: Timestamp,
    /// The new hash.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// A role was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RoleGranted {
    /// To whom.
    pub user_id: UserId,
    /// Which.
    pub role: Role,
    /// Whether this ended what the account had before: sessions, codes, links, tokens, a change of address that was under
    /// way, and a password that somebody else may have set. So it is where the role gives what its maker had not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub access_ended: bool,
    /// When.
    pub at: Timestamp,
}

/// A role was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RoleRevoked {
    /// From whom.
    pub user_id: UserId,
    /// Which.
    pub role: Role,
    /// When.
    pub at: Timestamp,
}

/// A person was shut out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UserBanned {
    /// Who.
    pub user_id: UserId,
    /// Whether this ended for good what could bring the person back in: sessions, codes, links and tokens of before stay
    /// dead when the ban is undone. Bans of the first days say nothing of it, and only ended sessions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub access_ended: bool,
    /// When.
    pub at: Timestamp,
    /// Why.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// Everything that the person could come in with was ended at once: sessions, codes, links, tokens, and a change of address
/// that was under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AccessEnded {
    /// Whose.
    pub user_id: UserId,
    /// The session that goes on, if one was to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_session: Option<SessionId>,
    /// Why.
    pub reason: RevocationReason,
    /// When.
    pub at: Timestamp,
}

/// A person was erased: their key is gone, so that what is sealed for them cannot be read any more. Nobody logs in to the
/// account again, and the address is free.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UserErased {
    /// Who.
    pub user_id: UserId,
    /// Why.
    pub reason: ErasureReason,
    /// When.
    pub at: Timestamp,
}

/// Why a person was erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErasureReason {
    /// Whoever reads the mail of the address said that they did not make the account.
    Disowned,
}

/// A person may come in again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UserUnbanned {
    /// Who.
    pub user_id: UserId,
    /// When.
    pub at: Timestamp,
}

/// A token is sent that proves, when it is used, that the person reads the mail of their address. The same one comes again
/// where as many are good as can be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EmailVerificationRequested {
    /// Whose address.
    pub user_id: UserId,
    /// The number of the token.
    pub generation: u32,
    /// Who sends the mail.
    pub delivery: SentBy,
    /// When the token ends unless it is used.
    pub expires_at: Timestamp,
    /// Whether the token of an app that sends its mails itself went to somebody who may do everything in the app. It went
    /// to a holder of a key that may do less, if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full_admin: bool,
    /// When.
    pub at: Timestamp,
    /// The address.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// Somebody showed that they read the mail of the account's address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EmailVerified {
    /// Whose address.
    pub user_id: UserId,
    /// How.
    pub proof: MailboxProof,
    /// Whether this ended what had been set up before by somebody who had shown nothing: the password, all sessions, a
    /// change of address that was under way. The account may have been made by another person than the one who reads the
    /// mail.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub earlier_access_ended: bool,
    /// Whether this cleared the profile, which somebody who had shown nothing may have written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub profile_cleared: bool,
    /// When.
    pub at: Timestamp,
    /// The address.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// A token was sent to another address, which becomes the person's when it is used. It replaces any such token of before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EmailChangeRequested {
    /// Whose address.
    pub user_id: UserId,
    /// The number of the token.
    pub generation: u32,
    /// The session that asked.
    pub session_id: SessionId,
    /// Who sends the mails: the token to the new address, a notice to the present one.
    pub delivery: SentBy,
    /// When the token ends unless it is used.
    pub expires_at: Timestamp,
    /// When.
    pub at: Timestamp,
    /// The new address, the present one, where from.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// The address was changed, and the new one is proven. All sessions but one are over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EmailChanged {
    /// Whose address.
    pub user_id: UserId,
    /// The session that goes on: the one that had asked for the change.
    pub session_id: SessionId,
    /// When.
    pub at: Timestamp,
    /// The new address, and the one before.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// A token is sent that a new password can be chosen with. The same one comes again where as many are good as can be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PasswordResetRequested {
    /// Whose password.
    pub user_id: UserId,
    /// The number of the token.
    pub generation: u32,
    /// Why.
    pub reason: ResetReason,
    /// Who sends the mail.
    pub delivery: SentBy,
    /// When the token ends unless it is used.
    pub expires_at: Timestamp,
    /// As in [`EmailVerificationRequested`]: whether a token that no mail carries went to somebody who may do everything in
    /// the app.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full_admin: bool,
    /// When.
    pub at: Timestamp,
    /// The address, where from.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// A new password was chosen with a token. All sessions are over, and so is every other such token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PasswordReset {
    /// Whose.
    pub user_id: UserId,
    /// When.
    pub at: Timestamp,
    /// The new hash, where from.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// A new password was chosen by somebody who knew the old one. All sessions but one are over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PasswordChanged {
    /// Whose.
    pub user_id: UserId,
    /// The session that goes on: the one that asked.
    pub session_id: SessionId,
    /// When.
    pub at: Timestamp,
    /// The new hash.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

events! {
    /// The events of a user.
    pub enum UserEvent of "user", whose |event| Some(event.user_id);
    UserRegistered: sealed,
    EmailVerificationRequested: sealed,
    EmailVerified: sealed,
    EmailChangeRequested: sealed,
    EmailChanged: sealed,
    PasswordResetRequested: sealed,
    PasswordReset: sealed,
    PasswordChanged: sealed,
    ProfileUpdated: sealed,
    PasswordRehashed: sealed,
    RoleGranted: open,
    RoleRevoked: open,
    UserBanned: sealed 2,
    UserUnbanned: open,
    AccessEnded: open,
    UserErased: open,
}

impl Claiming for UserEvent {
    fn claims(&self, held: &Holding) -> Vec<ClaimChange> {
        let left = held.of(ClaimKind::Email).cloned().map(ClaimChange::Release);
        match self {
            Self::UserRegistered(UserRegistered { app_id, personal, .. }) => {
                let (app_id, email) = (app_id.clone(), personal.email.clone());
                vec![ClaimChange::Take(Claimed::Email { app_id, email })]
            }
            Self::EmailChanged(event) => {
                let taken = held.of(ClaimKind::Email).filter_map(|claimed| match claimed {
                    Claimed::Email { app_id, .. } => {
                        let (app_id, email) = (app_id.clone(), event.personal.email.clone());
                        Some(ClaimChange::Take(Claimed::Email { app_id, email }))
                    }
                    _ => None,
                });
                left.chain(taken).collect()
            }
            Self::UserErased(event) => {
                left.chain([ClaimChange::Take(Claimed::Erased(event.user_id))]).collect()
            }
            Self::EmailVerificationRequested(_)
            | Self::EmailVerified(_)
            | Self::EmailChangeRequested(_)
            | Self::PasswordResetRequested(_)
            | Self::PasswordReset(_)
            | Self::PasswordChanged(_)
            | Self::ProfileUpdated(_)
            | Self::PasswordRehashed(_)
            | Self::RoleGranted(_)
            | Self::RoleRevoked(_)
            | Self::UserBanned(_)
            | Self::UserUnbanned(_)
            | Self::AccessEnded(_) => vec![],
        }
    }
}

impl UserEvent {
    /// Whose event it is.
    pub fn user_id(&self) -> UserId {
        match self {
            Self::UserRegistered(event) => event.user_id,
            Self::EmailVerificationRequested(event) => event.user_id,
            Self::EmailVerified(event) => event.user_id,
            Self::EmailChangeRequested(event) => event.user_id,
            Self::EmailChanged(event) => event.user_id,
            Self::PasswordResetRequested(event) => event.user_id,
            Self::PasswordReset(event) => event.user_id,
            Self::PasswordChanged(event) => event.user_id,
            Self::ProfileUpdated(event) => event.user_id,
            Self::PasswordRehashed(event) => event.user_id,
            Self::RoleGranted(event) => event.user_id,
            Self::RoleRevoked(event) => event.user_id,
            Self::UserBanned(event) => event.user_id,
            Self::UserUnbanned(event) => event.user_id,
            Self::AccessEnded(event) => event.user_id,
            Self::UserErased(event) => event.user_id,
        }
    }
}
