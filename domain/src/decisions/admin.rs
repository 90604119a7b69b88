//! What admins and API keys may do to users, and whether they are still entitled.
//!
//! Power would grow by a detour if a key could log in as an admin, log an admin out, or alter what an admin relies on.

use jiff::Timestamp;

use super::live::{NotLive, require_live};
use crate::app::{ApiKey, App};
use crate::app_id::AppId;
use crate::draft::Draft;
use crate::ids::ApiKeyId;
use crate::role::Role;
use crate::session::Session;
use crate::user::{User, UserCommand, UserError};

/// Why a caller is no longer entitled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotEntitled {
    /// Their session has ended.
    #[error(transparent)]
    NotLive(#[from] NotLive),
    /// They do not have the role `admin`.
    #[error("the caller is not an admin")]
    NoAdmin,
    /// The key was revoked or has expired.
    #[error("the API key was revoked or has expired")]
    KeyOver,
    /// The app of the key is disabled.
    #[error("the app is disabled")]
    AppDisabled,
}

/// Refuses a user who is no longer an admin.
///
/// # Errors
/// See [`NotEntitled`].
pub fn require_admin(
    app: &App,
    user: &User,
    session: &Session,
    app_id: &AppId,
    at: Timestamp,
) -> Result<(), NotEntitled> {
    require_live(app, user, session, app_id, at)?;
    if user.is_admin() { Ok(()) } else { Err(NotEntitled::NoAdmin) }
}

/// The key, if it is live. A key's permissions never change.
///
/// # Errors
/// See [`NotEntitled`].
pub fn require_key(app: &App, key_id: ApiKeyId, at: Timestamp) -> Result<&ApiKey, NotEntitled> {
    let key = app.api_keys.get(&key_id).filter(|key| key.is_live(at)).ok_or(NotEntitled::KeyOver)?;
    if app.disabled { Err(NotEntitled::AppDisabled) } else { Ok(key) }
}

/// Whether a caller entitled to act on users of the app may act on this one.
#[derive(Clone, Debug)]
pub struct MayActOn {
    /// The app in which the caller may act.
    pub app_id: AppId,
    /// Whether the caller is a full admin of the app.
    pub full_admin: bool,
}

/// Why the caller may not act on the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MayNotAct {
    /// The app has no such user.
    #[error("there is no such user")]
    NoSuchUser,
    /// The user is an admin.
    #[error("only a full admin can act on a user with the role admin")]
    OnAdmin,
}

impl MayActOn {
    /// Decides it.
    ///
    /// # Errors
    /// See [`MayNotAct`].
    pub fn decide(&self, user: &User) -> Result<(), MayNotAct> {
        if !user.is_of(&self.app_id) {
            return Err(MayNotAct::NoSuchUser);
        }
        if user.is_admin() && !self.full_admin {
            return Err(MayNotAct::OnAdmin);
        }
        Ok(())
    }
}

/// Grants a role to a user. The role `admin` ends everything the account had before.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct GrantRole {
    pub role: Role,
    /// Whether the granter is a full admin of the app.
    pub full_admin: bool,
    pub at: Timestamp,
}

/// Why the role is not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotGranted {
    /// It is the role `admin`.
    #[error("only a full admin can grant or revoke the role admin")]
    NeedsFullAdmin,
    /// The user refused.
    #[error(transparent)]
    User(#[from] UserError),
}

impl GrantRole {
    /// Whether a caller with these rights may grant or revoke this role.
    ///
    /// # Errors
    /// [`NotGranted::NeedsFullAdmin`].
    pub fn require_may_handle(role: &Role, full_admin: bool) -> Result<(), NotGranted> {
        if *role == Role::admin() && !full_admin { Err(NotGranted::NeedsFullAdmin) } else { Ok(()) }
    }

    /// Decides it.
    ///
    /// # Errors
    /// See [`NotGranted`].
    pub fn decide(&self, user: &mut Draft<User>) -> Result<(), NotGranted> {
        Self::require_may_handle(&self.role, self.full_admin)?;
        Ok(user.execute(UserCommand::GrantRole { role: self.role.clone(), at: self.at })?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::testing::*;
    use super::*;
    use crate::app::{ApiKeyIssued, AppEvent};

    #[test]
    fn an_admin_must_still_be_one() {
        let app_id = AppId::default_app();
        let require = |user: &User, session: &Session| require_admin(&app(), user, session, &app_id, at(10));
        assert_eq!(require(&user([admin()]), &session(0)), Ok(()));
        assert_eq!(require(&registered(), &session(0)), Err(NotEntitled::NoAdmin));
        let over = Err(NotEntitled::NotLive(NotLive::Over));
        assert_eq!(require(&user([admin(), banned()]), &session(0)), over);
    }

    #[test]
    fn a_key_must_still_be_live() {
        let key_id = ApiKeyId(uuid::Uuid::from_u128(1));
        let issued = AppEvent::ApiKeyIssued(ApiKeyIssued {
            key_id,
            name: "key".to_owned(),
            permissions: BTreeSet::new(),
            expires_at: Some(at(100)),
            at: at(1),
        });
        let app = Draft::<App>::given([issued]);
        assert!(require_key(&app, key_id, at(10)).is_ok());
        assert_eq!(require_key(&app, key_id, at(100)).err(), Some(NotEntitled::KeyOver));
        let other = ApiKeyId(uuid::Uuid::from_u128(2));
        assert_eq!(require_key(&app, other, at(10)).err(), Some(NotEntitled::KeyOver));
    }

    #[test]
    fn only_a_full_admin_acts_on_an_admin() {
        let may = |full_admin| MayActOn { app_id: AppId::default_app(), full_admin };
        assert_eq!(may(false).decide(&registered()), Ok(()));
        assert_eq!(may(true).decide(&user([admin()])), Ok(()));
        assert_eq!(may(false).decide(&user([admin()])), Err(MayNotAct::OnAdmin));
        assert_eq!(may(true).decide(&user([erased()])), Err(MayNotAct::NoSuchUser));
        let elsewhere = MayActOn { app_id: AppId::parse("other").expect("valid"), full_admin: true };
        assert_eq!(elsewhere.decide(&registered()), Err(MayNotAct::NoSuchUser));
    }

    #[test]
    fn only_a_full_admin_makes_an_admin_and_only_of_a_verified_user() {
        let grant = |role: Role, full_admin| GrantRole { role, full_admin, at: at(10) };
        let editor = Role::parse("editor").expect("valid");
        let mut user = registered();
        grant(editor, false).decide(&mut user).expect("is given");
        assert_eq!(user.decided(), ["RoleGranted"]);
        let refused = grant(Role::admin(), false).decide(&mut user);
        assert_eq!(refused, Err(NotGranted::NeedsFullAdmin));
        let refused = grant(Role::admin(), true).decide(&mut user);
        assert_eq!(refused, Err(NotGranted::User(UserError::EmailNotVerified)));
        let mut user = super::super::testing::user([verified()]);
        grant(Role::admin(), true).decide(&mut user).expect("is given");
        assert!(user.is_admin() && !user.keeps(&session(0)));
    }
}
