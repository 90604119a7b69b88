//! The events of a user.

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
use crate::webhook::WebhookId;

/// How an account was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RegistrationMethod {
    /// The person registered with a password.
    Password,
    /// An admin created it.
    Admin,
    /// A magic link was redeemed for an address without an account.
    MagicLink,
    /// A full admin imported it from another system.
    Import,
}

/// What proved control of the mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MailboxProof {
    /// The token of a verification mail.
    Verification,
    /// A magic link.
    MagicLink,
    /// The token of a password-reset mail.
    PasswordReset,
    /// The system that the account was imported from, as the full admin who imported it says.
    Import,
}

/// Why a password-reset token was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResetReason {
    /// The user requested it.
    Forgotten,
    /// Somebody tried to register with the address of this account.
    AddressTaken,
    /// An admin requested it, to deliver it by their own means. So using it does not prove control of the mailbox.
    Admin,
}

/// An account was created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UserRegistered {
    /// Its id.
    pub user_id: UserId,
    /// Its app.
    pub app_id: AppId,
    /// How it was created.
    pub method: RegistrationMethod,
    /// When it happened.
    pub at: Timestamp,
    /// Address, profile, password hash, and the request's origin.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// A member of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProfileField {
    /// The name shown to people.
    Name,
    /// A telephone number.
    Phone,
    /// The URL of the profile picture.
    AvatarUrl,
}

/// A profile was changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProfileUpdated {
    /// The user.
    pub user_id: UserId,
    /// The members that were cleared. `personal` holds those that were set.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub cleared: BTreeSet<ProfileField>,
    /// When it happened.
    pub at: Timestamp,
    /// The new values.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// The password hash was replaced by one with stronger parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PasswordRehashed {
    /// The user.
    pub user_id: UserId,
    /// When it happened.
    pub at: Timestamp,
    /// The new hash.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// A role was granted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RoleGranted {
    /// The user.
    pub user_id: UserId,
    /// The role.
    pub role: Role,
    /// Whether this ended everything the account had before: sessions, codes, links, tokens, a pending change of address,
    /// and a password that somebody else may have set. It does if the role exceeds the rights of the account's creator.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub access_ended: bool,
    /// Of a grant of the app's admin role: how often the app had changed which role that is. After another change it makes
    /// no admin until it is granted anew. Absent in other grants, and in those from before this was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_role_changes: Option<u32>,
    /// When it happened.
    pub at: Timestamp,
}

/// A role was revoked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RoleRevoked {
    /// The user.
    pub user_id: UserId,
    /// The role.
    pub role: Role,
    /// When it happened.
    pub at: Timestamp,
}

/// A user was banned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UserBanned {
    /// The user.
    pub user_id: UserId,
    /// Whether this ended all earlier access for good: sessions, codes, links and tokens stay void when the ban is
    /// lifted. The earliest bans lack this member and only ended sessions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub access_ended: bool,
    /// When it happened.
    pub at: Timestamp,
    /// The reason.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// All of the user's access ended at once: sessions, codes, links, tokens, and a pending change of address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AccessEnded {
    /// The user.
    pub user_id: UserId,
    /// The session that was kept, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_session: Option<SessionId>,
    /// The reason.
    pub reason: RevocationReason,
    /// When it happened.
    pub at: Timestamp,
}

/// A user was erased: their key was destroyed, so that their sealed data can no longer be read. The account cannot be
/// used again, and its address is free.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UserErased {
    /// The user.
    pub user_id: UserId,
    /// The reason.
    pub reason: ErasureReason,
    /// When it happened.
    pub at: Timestamp,
}

/// Why a user was erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErasureReason {
    /// The owner of the mailbox declared that they did not create the account.
    Disowned,
    /// The user asked for it.
    Requested,
    /// An admin, or the operator, erased the user.
    Admin,
}

/// A ban was lifted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UserUnbanned {
    /// The user.
    pub user_id: UserId,
    /// When it happened.
    pub at: Timestamp,
}

/// A token was requested whose use verifies the address. If the maximum number of tokens is valid, the newest one is sent
/// again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EmailVerificationRequested {
    /// The user.
    pub user_id: UserId,
    /// The number of the token.
    pub generation: u32,
    /// Who sends the mail.
    pub delivery: SentBy,
    /// When the token expires unless used.
    pub expires_at: Timestamp,
    /// Whether the token of an app that sends its mails itself went to a full admin. If false, it went to an API key with
    /// fewer rights.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full_admin: bool,
    /// When it happened.
    pub at: Timestamp,
    /// The address.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// Control of the account's mailbox was proven.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EmailVerified {
    /// The user.
    pub user_id: UserId,
    /// How it was proven.
    pub proof: MailboxProof,
    /// Whether this ended what had been set up without proof: the password, all sessions, and a pending change of
    /// address. The account may have been created by somebody other than the owner of the mailbox.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub earlier_access_ended: bool,
    /// Whether this cleared the profile, because it may have been written by somebody who had proven nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub profile_cleared: bool,
    /// When it happened.
    pub at: Timestamp,
    /// The address.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// A token was sent to another address, which becomes the account's when the token is used. It replaces any earlier one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EmailChangeRequested {
    /// The user.
    pub user_id: UserId,
    /// The number of the token.
    pub generation: u32,
    /// The requesting session.
    pub session_id: SessionId,
    /// Who sends the mails: the token to the new address, a notice to the current one.
    pub delivery: SentBy,
    /// When the token expires unless used.
    pub expires_at: Timestamp,
    /// When it happened.
    pub at: Timestamp,
    /// The new address, the current one, and the request's origin.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// The address was changed, and the new one is verified. All sessions but one have ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EmailChanged {
    /// The user.
    pub user_id: UserId,
    /// The session that was kept: the one that requested the change.
    pub session_id: SessionId,
    /// When it happened.
    pub at: Timestamp,
    /// The new address and the previous one.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// A password-reset token was requested. If the maximum number of tokens is valid, the newest one is sent again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PasswordResetRequested {
    /// The user.
    pub user_id: UserId,
    /// The number of the token.
    pub generation: u32,
    /// The reason.
    pub reason: ResetReason,
    /// Who sends the mail.
    pub delivery: SentBy,
    /// When the token expires unless used.
    pub expires_at: Timestamp,
    /// As in [`EmailVerificationRequested`]: whether a token that is not mailed went to a full admin.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full_admin: bool,
    /// When it happened.
    pub at: Timestamp,
    /// The address, and the request's origin.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// A new password was set with a token. All sessions and all other such tokens have ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PasswordReset {
    /// The user.
    pub user_id: UserId,
    /// When it happened.
    pub at: Timestamp,
    /// The new hash, and the request's origin.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// The password was changed with the old one. All sessions but one have ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PasswordChanged {
    /// The user.
    pub user_id: UserId,
    /// The session that was kept: the one that requested the change.
    pub session_id: SessionId,
    /// When it happened.
    pub at: Timestamp,
    /// The new hash.
    #[serde(default, skip_serializing_if = "Personal::is_empty")]
    pub personal: Personal,
}

/// A webhook of their app was disabled, because it had accepted nothing for long: they are an admin of the app, and are told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookNoticeRequested {
    /// The admin.
    pub user_id: UserId,
    /// The webhook.
    pub webhook_id: WebhookId,
    /// Since when it had accepted nothing.
    pub failing_since: Timestamp,
    /// Who sends the mail.
    pub delivery: SentBy,
    /// When it happened.
    pub at: Timestamp,
    /// The admin's address.
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
    WebhookNoticeRequested: sealed,
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
            | Self::AccessEnded(_)
            | Self::WebhookNoticeRequested(_) => vec![],
        }
    }
}

impl UserEvent {
    /// The user.
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
            Self::WebhookNoticeRequested(event) => event.user_id,
        }
    }
}
