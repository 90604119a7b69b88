//! A user: one person's account in one app.

use std::collections::BTreeSet;

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app_id::AppId;
use crate::email::Email;
use crate::event::{EventInfo, Stream, StreamId};
use crate::ids::UserId;
use crate::password::PasswordHash;
use crate::personal::Personal;
use crate::role::Role;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// The address.
    pub ip: Option<String>,
    /// The browser or program.
    pub user_agent: Option<String>,
}

/// How an account came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RegistrationMethod {
    /// The person chose a password.
    Password,
    /// An admin made it.
    Admin,
}

/// What can be asked of a user.
#[derive(Clone, Debug)]
pub enum UserCommand {
    /// Make the account. The caller takes the claim on the address in the same append.
    Register {
        /// Its id.
        user_id: UserId,
        /// Its app.
        app_id: AppId,
        /// How.
        method: RegistrationMethod,
        /// The person's address.
        email: Email,
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
}

/// Why a user refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// There is one of that id.
    #[error("there is a user of this id")]
    Exists,
    /// There is none of that id.
    #[error("there is no such user")]
    Absent,
    /// It has [`MAX_ROLES`].
    #[error("the user has {MAX_ROLES} roles, which is the most one can have")]
    TooManyRoles,
}

/// The most roles a user can have: all of them are in every access token.
pub const MAX_ROLES: usize = 50;

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
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// A person may come in again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UserUnbanned {
    /// Who.
    pub user_id: UserId,
    /// When.
    pub at: Timestamp,
}

/// The events of a user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
#[expect(missing_docs, reason = "each variant's payload is documented")]
pub enum UserEvent {
    #[serde(rename = "UserRegistered")]
    UserRegistered(UserRegistered),
    #[serde(rename = "ProfileUpdated")]
    ProfileUpdated(ProfileUpdated),
    #[serde(rename = "PasswordRehashed")]
    PasswordRehashed(PasswordRehashed),
    #[serde(rename = "RoleGranted")]
    RoleGranted(RoleGranted),
    #[serde(rename = "RoleRevoked")]
    RoleRevoked(RoleRevoked),
    #[serde(rename = "UserBanned")]
    UserBanned(UserBanned),
    #[serde(rename = "UserUnbanned")]
    UserUnbanned(UserUnbanned),
}

impl UserEvent {
    /// Its personal part.
    pub fn personal(&self) -> Option<&Personal> {
        match self {
            Self::UserRegistered(event) => Some(&event.personal),
            Self::ProfileUpdated(event) => Some(&event.personal),
            Self::PasswordRehashed(event) => Some(&event.personal),
            Self::RoleGranted(_) | Self::RoleRevoked(_) | Self::UserBanned(_) | Self::UserUnbanned(_) => None,
        }
    }

    /// Whose event it is.
    pub fn user_id(&self) -> UserId {
        match self {
            Self::UserRegistered(event) => event.user_id,
            Self::ProfileUpdated(event) => event.user_id,
            Self::PasswordRehashed(event) => event.user_id,
            Self::RoleGranted(event) => event.user_id,
            Self::RoleRevoked(event) => event.user_id,
            Self::UserBanned(event) => event.user_id,
            Self::UserUnbanned(event) => event.user_id,
        }
    }
}

impl EventInfo for UserEvent {
    fn name(&self) -> &'static str {
        match self {
            Self::UserRegistered(_) => "UserRegistered",
            Self::ProfileUpdated(_) => "ProfileUpdated",
            Self::PasswordRehashed(_) => "PasswordRehashed",
            Self::RoleGranted(_) => "RoleGranted",
            Self::RoleRevoked(_) => "RoleRevoked",
            Self::UserBanned(_) => "UserBanned",
            Self::UserUnbanned(_) => "UserUnbanned",
        }
    }

    fn person(&self) -> Option<UserId> {
        Some(self.user_id())
    }
}

impl DomainEvent for UserEvent {
    fn event_type(&self) -> String {
        self.name().to_owned()
    }

    fn event_version(&self) -> String {
        self.version().to_string()
    }
}

/// A user.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct User {
    /// Its id; absent before [`UserRegistered`].
    pub id: Option<UserId>,
    /// Its app.
    pub app_id: Option<AppId>,
    /// The person's address; absent once they are erased.
    pub email: Option<Email>,
    /// Whether they proved that it is theirs.
    pub email_verified: bool,
    /// The hash of their password, if they have one.
    pub password_hash: Option<PasswordHash>,
    /// The name they go by.
    pub name: Option<String>,
    /// A telephone number.
    pub phone: Option<String>,
    /// Where their picture is.
    pub avatar_url: Option<String>,
    /// Their roles.
    pub roles: BTreeSet<Role>,
    /// Whether they are shut out.
    pub banned: bool,
    /// When the account was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl User {
    /// Whether this is a user of that app.
    pub fn is_of(&self, app_id: &AppId) -> bool {
        self.app_id.as_ref() == Some(app_id)
    }

    /// Whether the person may act.
    pub fn is_active(&self) -> bool {
        self.id.is_some() && !self.banned
    }

    /// Whether they may use their app's admin routes.
    pub fn is_admin(&self) -> bool {
        self.roles.contains(&Role::admin())
    }

    fn decide(&self, command: UserCommand) -> Result<Vec<UserEvent>, UserError> {
        if let UserCommand::Register { .. } = command {
            return if self.id.is_none() { Ok(vec![registered(command)]) } else { Err(UserError::Exists) };
        }
        let user_id = self.id.ok_or(UserError::Absent)?;
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
            UserCommand::GrantRole { role, at } => {
                if self.roles.contains(&role) {
                    return Ok(vec![]);
                }
                if self.roles.len() >= MAX_ROLES {
                    return Err(UserError::TooManyRoles);
                }
                vec![UserEvent::RoleGranted(RoleGranted { user_id, role, at })]
            }
            UserCommand::RevokeRole { role, at } => {
                if !self.roles.contains(&role) {
                    return Ok(vec![]);
                }
                vec![UserEvent::RoleRevoked(RoleRevoked { user_id, role, at })]
            }
            UserCommand::Ban { reason, at } if !self.banned => {
                vec![UserEvent::UserBanned(UserBanned { user_id, reason, at })]
            }
            UserCommand::Unban { at } if self.banned => {
                vec![UserEvent::UserUnbanned(UserUnbanned { user_id, at })]
            }
            UserCommand::Ban { .. } | UserCommand::Unban { .. } => vec![],
        })
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

fn registered(command: UserCommand) -> UserEvent {
    let UserCommand::Register { user_id, app_id, method, email, password_hash, profile, client, at } =
        command
    else {
        unreachable!("called for Register only");
    };
    let personal = Personal {
        email: Some(email),
        name: profile.name,
        phone: profile.phone,
        avatar_url: profile.avatar_url,
        ip: client.ip,
        user_agent: client.user_agent,
        password_hash,
    };
    UserEvent::UserRegistered(UserRegistered { user_id, app_id, method, at, personal })
}

impl Stream for User {
    type Id = UserId;

    fn stream(id: &UserId) -> StreamId {
        StreamId::user(*id)
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
            UserEvent::UserRegistered(UserRegistered { user_id, app_id, at, personal, .. }) => {
                self.id = Some(user_id);
                self.app_id = Some(app_id);
                self.email = personal.email;
                self.password_hash = personal.password_hash;
                self.name = personal.name;
                self.phone = personal.phone;
                self.avatar_url = personal.avatar_url;
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
            UserEvent::RoleGranted(RoleGranted { role, at, .. }) => {
                self.roles.insert(role);
                self.updated_at = at;
            }
            UserEvent::RoleRevoked(RoleRevoked { role, at, .. }) => {
                self.roles.remove(&role);
                self.updated_at = at;
            }
            UserEvent::UserBanned(UserBanned { at, .. }) => {
                self.banned = true;
                self.updated_at = at;
            }
            UserEvent::UserUnbanned(UserUnbanned { at, .. }) => {
                self.banned = false;
                self.updated_at = at;
            }
        }
    }
}

#[cfg(test)]
mod tests;
