//! A user: one person's account in one app.
//!
//! What a token from a mail can do, and what ends with it, is decided in `user/mailbox.rs`.

mod commands;
mod events;
mod mailbox;

use std::collections::{BTreeMap, BTreeSet};

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::commands::{Client, MailboxCommand, Origin, Profile, ProfilePatch, UserCommand};
pub use self::events::{
    AccessEnded, EmailChangeRequested, EmailChanged, EmailVerificationRequested, EmailVerified,
    ErasureReason, MailboxProof, PasswordChanged, PasswordRehashed, PasswordReset, PasswordResetRequested,
    ProfileField, ProfileUpdated, RegistrationMethod, ResetReason, RoleGranted, RoleRevoked, UserBanned,
    UserErased, UserEvent, UserRegistered, UserUnbanned, WebhookNoticeRequested,
};
use self::mailbox::Ended;
pub use self::mailbox::{EmailChange, ResetToken};
use crate::app_id::AppId;
use crate::claims::{Claimed, Holding};
use crate::email::Email;
use crate::event::{EventInfo as _, Stream, StreamId};
use crate::ids::{SessionId, UserId};
use crate::one_time::OneTimeTokens;
use crate::password::PasswordHash;
use crate::personal::Personal;
use crate::role::Role;
use crate::session::Session;

/// Why a user refused a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// The id is taken.
    #[error("there is a user of this id")]
    Exists,
    /// No user has this id.
    #[error("there is no such user")]
    Absent,
    /// The user would have more than [`MAX_ROLES`], or than [`MAX_ROLES_TEXT`].
    #[error("a user can have at most {MAX_ROLES} roles, of {MAX_ROLES_TEXT} characters in all")]
    TooManyRoles,
    /// The token was never issued, has expired, was used, or was revoked by another event.
    #[error("the token is invalid or expired")]
    InvalidToken,
    /// The user is banned.
    #[error("the user is banned")]
    Banned,
    /// The password that was checked is no longer the user's.
    #[error("the password was changed meanwhile")]
    OtherPassword,
    /// The address is not, or no longer, the user's.
    #[error("the user has another address")]
    OtherEmail,
    /// The account's address was never proven.
    #[error("the user's address is not verified")]
    EmailNotVerified,
    /// The address was verified after the token was issued.
    #[error("the address is already verified")]
    AlreadyVerified,
}

/// The most roles a user can have: all of them are in every access token.
pub const MAX_ROLES: usize = 50;

/// The most characters that the roles of a user can have in all. In a token for a cookie, which browsers limit to 4096
/// bytes (RFC 6265 section 6.1), base64 makes four of three.
pub const MAX_ROLES_TEXT: usize = 2000;

/// A grant of a role as that of the app's admins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    /// How often the app had changed its admin role; absent in older grants.
    pub admin_role_changes: Option<u32>,
    /// When it was granted.
    pub at: Timestamp,
}

/// A user.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact by itself")]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct User {
    /// Its id; absent before [`UserRegistered`].
    pub id: Option<UserId>,
    pub app_id: Option<AppId>,
    /// The person's address; absent once they are erased.
    pub email: Option<Email>,
    /// Whether the person proved that it is theirs.
    pub email_verified: bool,
    /// The hash of their password, if they have one.
    pub password_hash: Option<PasswordHash>,
    /// The name they go by.
    pub name: Option<String>,
    pub phone: Option<String>,
    /// Where their picture is.
    pub avatar_url: Option<String>,
    /// What the system that the account was imported from calls it.
    #[serde(default)]
    pub external_id: Option<String>,
    pub roles: BTreeSet<Role>,
    /// When a role was last granted as that of the app's admins: see [`crate::app::App::admin_since`].
    #[serde(default)]
    pub promotions: BTreeMap<Role, Promotion>,
    /// When `admin` was last granted by an event that does not say that it ended access, as older ones do not.
    #[serde(default)]
    pub admin_since: Option<Timestamp>,
    pub banned: bool,
    /// How often all sessions were ended at once. Sessions of an earlier epoch are over, except [`User::kept_session`].
    #[serde(default)]
    pub epoch: u32,
    /// The session that was kept when all others were last ended.
    #[serde(default)]
    pub kept_session: Option<SessionId>,
    /// When all sessions were last ended at once.
    #[serde(default)]
    pub access_ended_at: Option<Timestamp>,
    /// Whether only the person can have set the password: see `user/mailbox.rs`.
    #[serde(default)]
    pub password_is_own: bool,
    /// How the account was created.
    #[serde(default)]
    pub made_by: Option<RegistrationMethod>,
    /// The IP address that the account was created from; removed once the person has proven their address.
    #[serde(default)]
    pub made_from: Option<String>,
    #[serde(default)]
    pub erased: bool,
    /// The number of the last token that could have verified the address that is verified.
    #[serde(default)]
    pub verified_up_to: u32,
    /// Tokens that verify the address.
    #[serde(default)]
    pub verification: OneTimeTokens<()>,
    /// The token that changes the address.
    #[serde(default)]
    pub email_change: OneTimeTokens<EmailChange>,
    /// Tokens that a new password can be chosen with.
    #[serde(default)]
    pub password_reset: OneTimeTokens<ResetToken>,
    /// When the account was created here.
    pub created_at: Timestamp,
    /// When it was created in the system that it was imported from.
    #[serde(default)]
    pub registered_at: Option<Timestamp>,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl User {
    /// Whether this is a user of that app. An erased user belongs to no app.
    pub fn is_of(&self, app_id: &AppId) -> bool {
        self.app_id.as_ref() == Some(app_id) && !self.erased
    }

    /// Whether the person may act.
    pub fn is_active(&self) -> bool {
        self.id.is_some() && !self.banned && !self.erased
    }

    /// Since when the person has an account, here or in the system that it was imported from.
    pub fn since(&self) -> Timestamp {
        self.registered_at.unwrap_or(self.created_at)
    }

    /// How often, and when last, all access of the user was ended at once.
    pub fn access(&self) -> Access {
        Access { epoch: self.epoch, ended_at: self.access_ended_at }
    }

    /// Whether the user's state lets a session continue: no ban, password change, reset, change of address, proof of
    /// the mailbox or end of all sessions has ended it. This holds as soon as one of those is acknowledged, also for a
    /// session that began at the same moment and was not listed when the others were revoked.
    pub fn keeps(&self, session: &Session) -> bool {
        let kept = || session.owner.as_ref().is_some_and(|owner| Some(owner.session_id) == self.kept_session);
        session.epoch == self.epoch || kept()
    }

    fn decide(&self, command: UserCommand) -> Result<Vec<UserEvent>, UserError> {
        if let UserCommand::Register { .. } = command {
            return if self.id.is_none() { Ok(registered(command)) } else { Err(UserError::Exists) };
        }
        let user_id = self.id.filter(|_| !self.erased).ok_or(UserError::Absent)?;
        Ok(match command {
            UserCommand::Register { .. } => unreachable!("handled above"),
            UserCommand::UpdateProfile { patch, at } => self.update_profile(user_id, patch, at),
            UserCommand::Rehash { old, new, at } => {
                if self.password_hash.as_ref() != Some(&old) {
                    return Ok(vec![]);
                }
                let personal = Personal { password_hash: Some(new), ..Personal::default() };
                vec![UserEvent::PasswordRehashed(PasswordRehashed { user_id, at, personal })]
            }
            UserCommand::GrantRole { role, promotes, at } => {
                let is_new = !self.roles.contains(&role);
                if !is_new && promotes.is_none() {
                    return Ok(vec![]);
                }
                let text: usize = self.roles.iter().chain([&role]).map(|role| role.as_str().len()).sum();
                if is_new && (self.roles.len() >= MAX_ROLES || text > MAX_ROLES_TEXT) {
                    return Err(UserError::TooManyRoles);
                }
                if promotes.is_some() && !self.email_verified {
                    return Err(UserError::EmailNotVerified);
                }
                let (access_ended, admin_role_changes) = (promotes.is_some(), promotes);
                vec![UserEvent::RoleGranted(RoleGranted {
                    user_id,
                    role,
                    access_ended,
                    admin_role_changes,
                    at,
                })]
            }
            UserCommand::RevokeRole { role, at } => {
                if !self.roles.contains(&role) {
                    return Ok(vec![]);
                }
                vec![UserEvent::RoleRevoked(RoleRevoked { user_id, role, at })]
            }
            UserCommand::Ban { reason, at } if !self.banned => {
                let personal = Personal { reason, ..Personal::default() };
                vec![UserEvent::UserBanned(UserBanned { user_id, access_ended: true, at, personal })]
            }
            UserCommand::Unban { at } if self.banned => {
                vec![UserEvent::UserUnbanned(UserUnbanned { user_id, at })]
            }
            UserCommand::Ban { .. } | UserCommand::Unban { .. } => vec![],
            UserCommand::EndAccess { kept_session, reason, at } => {
                vec![UserEvent::AccessEnded(AccessEnded { user_id, kept_session, reason, at })]
            }
            UserCommand::Erase { reason, at } => {
                vec![UserEvent::UserErased(UserErased { user_id, reason, at })]
            }
            UserCommand::TellOfWebhook { webhook_id, failing_since, delivery, at } => {
                let personal = Personal { email: self.email.clone(), ..Personal::default() };
                vec![UserEvent::WebhookNoticeRequested(WebhookNoticeRequested {
                    user_id,
                    webhook_id,
                    failing_since,
                    delivery,
                    at,
                    personal,
                })]
            }
            UserCommand::Mailbox(command) => self.decide_on_mailbox(user_id, command)?,
        })
    }

    /// Only the fact that the user existed is kept, since the id must never be reused.
    fn apply_erased(&mut self, at: Timestamp) {
        let Self { id, app_id, epoch, created_at, .. } = std::mem::take(self);
        *self = Self { id, app_id, epoch, created_at, updated_at: at, erased: true, ..Self::default() };
        self.end_access(None, at);
    }

    fn update_profile(&self, user_id: UserId, patch: ProfilePatch, at: Timestamp) -> Vec<UserEvent> {
        let mut cleared = BTreeSet::new();
        let mut change = |field, old: &Option<String>, new: Option<Option<String>>| match new {
            Some(None) if old.is_some() => {
                cleared.insert(field);
                None
            }
            Some(Some(new)) if old.as_ref() != Some(&new) => Some(new),
            _ => None,
        };
        let personal = Personal {
            name: change(ProfileField::Name, &self.name, patch.name),
            phone: change(ProfileField::Phone, &self.phone, patch.phone),
            avatar_url: change(ProfileField::AvatarUrl, &self.avatar_url, patch.avatar_url),
            ..Personal::default()
        };
        if cleared.is_empty() && personal.is_empty() {
            return vec![];
        }
        vec![UserEvent::ProfileUpdated(ProfileUpdated { user_id, cleared, at, personal })]
    }
}

/// An address that comes with a proof is verified in the same append: no one else has had the account.
fn registered(command: UserCommand) -> Vec<UserEvent> {
    let UserCommand::Register {
        user_id,
        app_id,
        method,
        email,
        proof,
        password_hash,
        profile,
        origin,
        client,
        at,
    } = command
    else {
        unreachable!("called for Register only");
    };
    let proven = proof.map(|proof| mailbox::verified(user_id, &email, proof, Ended::default(), at));
    let personal = Personal {
        email: Some(email),
        name: profile.name,
        phone: profile.phone,
        avatar_url: profile.avatar_url,
        password_hash,
        external_id: origin.external_id,
        registered_at: origin.registered_at,
        ..Personal::of(client)
    };
    let registered = UserRegistered { user_id, app_id, method, at, personal };
    [UserEvent::UserRegistered(registered)].into_iter().chain(proven).collect()
}

/// How often, and when last, all access of a person was ended at once. Whatever was issued to them earlier is void.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// [`User::epoch`].
    pub epoch: u32,
    /// [`User::access_ended_at`].
    pub ended_at: Option<Timestamp>,
}

impl StreamId {
    /// The stream of a user.
    pub fn user(id: UserId) -> Self {
        Self::new(UserEvent::AGGREGATE, id)
    }
}

impl Stream for User {
    type Id = UserId;

    fn stream(id: &UserId) -> StreamId {
        StreamId::user(*id)
    }

    fn held(&self) -> Holding {
        let Self { app_id, email, .. } = self;
        // An erased user has no address, and none of its events needs the rest.
        let email = app_id.clone().zip(email.clone());
        email.map(|(app_id, email)| Claimed::Email { app_id, email: Some(email) }).into_iter().collect()
    }

    fn person(&self) -> Option<UserId> {
        self.id
    }
}

impl Aggregate for User {
    const TYPE: &'static str = "user";
    type Command = UserCommand;
    type Event = UserEvent;
    type Error = UserError;
    type Services = ();

    async fn handle(
        &mut self,
        command: UserCommand,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), UserError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: UserEvent) {
        match event {
            UserEvent::UserRegistered(UserRegistered { user_id, app_id, method, at, personal }) => {
                self.id = Some(user_id);
                self.app_id = Some(app_id);
                self.made_by = Some(method);
                self.made_from = personal.ip;
                self.password_is_own = method == RegistrationMethod::Password;
                self.email = personal.email;
                self.password_hash = personal.password_hash;
                self.name = personal.name;
                self.phone = personal.phone;
                self.avatar_url = personal.avatar_url;
                self.external_id = personal.external_id;
                self.registered_at = personal.registered_at;
                self.created_at = at;
                self.updated_at = at;
            }
            UserEvent::ProfileUpdated(ProfileUpdated { cleared, at, personal, .. }) => {
                let change = |field, old: &mut Option<String>, new: Option<String>| {
                    if cleared.contains(&field) {
                        *old = None;
                    } else if new.is_some() {
                        *old = new;
                    }
                };
                change(ProfileField::Name, &mut self.name, personal.name);
                change(ProfileField::Phone, &mut self.phone, personal.phone);
                change(ProfileField::AvatarUrl, &mut self.avatar_url, personal.avatar_url);
                self.updated_at = at;
            }
            UserEvent::PasswordRehashed(PasswordRehashed { personal, .. }) => {
                self.password_hash = personal.password_hash;
            }
            UserEvent::EmailVerificationRequested(event) => self.apply_email_verification_requested(&event),
            UserEvent::EmailVerified(event) => self.apply_email_verified(&event),
            UserEvent::EmailChangeRequested(event) => self.apply_email_change_requested(event),
            UserEvent::EmailChanged(event) => self.apply_email_changed(event),
            UserEvent::PasswordResetRequested(event) => self.apply_password_reset_requested(&event),
            UserEvent::PasswordReset(event) => self.apply_password_reset(event),
            UserEvent::PasswordChanged(event) => {
                self.apply_password_set(event.personal.password_hash, Some(event.session_id), event.at);
            }
            UserEvent::RoleGranted(RoleGranted { role, access_ended, admin_role_changes, at, .. }) => {
                if access_ended {
                    self.promotions.insert(role.clone(), Promotion { admin_role_changes, at });
                } else if role == Role::admin() {
                    self.admin_since = Some(at);
                }
                if access_ended || role == Role::admin() {
                    // An admin's reset must not use a token that a caller without that right requested.
                    self.password_reset.end();
                }
                if access_ended {
                    self.end_access(None, at);
                    self.drop_foreign_password();
                }
                self.roles.insert(role);
                self.updated_at = at;
            }
            UserEvent::RoleRevoked(RoleRevoked { role, at, .. }) => {
                self.promotions.remove(&role);
                if role == Role::admin() {
                    self.admin_since = None;
                }
                self.roles.remove(&role);
                self.updated_at = at;
            }
            UserEvent::UserBanned(UserBanned { access_ended, at, .. }) => {
                self.banned = true;
                if access_ended {
                    self.end_access(None, at);
                }
                self.updated_at = at;
            }
            UserEvent::UserUnbanned(UserUnbanned { at, .. }) => {
                self.banned = false;
                self.updated_at = at;
            }
            UserEvent::AccessEnded(AccessEnded { kept_session, at, .. }) => self.end_access(kept_session, at),
            UserEvent::UserErased(UserErased { at, .. }) => self.apply_erased(at),
            UserEvent::WebhookNoticeRequested(_) => {}
        }
    }
}

#[cfg(test)]
mod rights_tests;
#[cfg(test)]
mod tests;
