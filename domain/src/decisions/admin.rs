//! What admins and API keys may do to users, and whether they are still entitled.
//!
//! Power would grow by a detour if a key could log in as an admin, log an admin out, or alter what an admin relies on.

use jiff::Timestamp;

use super::live::{NotLive, require_live};
use crate::app::{ApiKey, ApiKeyId, App};
use crate::app_id::AppId;
use crate::draft::Draft;
use crate::role::Role;
use crate::session::Session;
use crate::user::{User, UserCommand, UserError};

/// Why a caller is no longer entitled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotEntitled {
    /// Their session has ended.
    #[error(transparent)]
    NotLive(#[from] NotLive),
    /// They are not an admin of the app.
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
    if app.is_admin(user) { Ok(()) } else { Err(NotEntitled::NoAdmin) }
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
    #[error("only a full admin can act on an admin")]
    OnAdmin,
}

impl MayActOn {
    /// Decides it.
    ///
    /// # Errors
    /// See [`MayNotAct`].
    pub fn decide(&self, app: &App, user: &User) -> Result<(), MayNotAct> {
        if !user.is_of(&self.app_id) {
            return Err(MayNotAct::NoSuchUser);
        }
        if app.is_admin(user) && !self.full_admin {
            return Err(MayNotAct::OnAdmin);
        }
        Ok(())
    }
}

/// Grants a role to a user. The admin role ends everything the account had before.
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
    /// It is the admin role.
    #[error("only a full admin can grant or revoke the admin role")]
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
    pub fn require_may_handle(app: &App, role: &Role, full_admin: bool) -> Result<(), NotGranted> {
        if app.is_admin_role(role) && !full_admin { Err(NotGranted::NeedsFullAdmin) } else { Ok(()) }
    }

    /// Decides it.
    ///
    /// # Errors
    /// See [`NotGranted`].
    pub fn decide(&self, app: &App, user: &mut Draft<User>) -> Result<(), NotGranted> {
        Self::require_may_handle(app, &self.role, self.full_admin)?;
        let promotes = app.is_admin_role(&self.role) && !app.is_admin(user);
        let promotes = promotes.then_some(app.admin_role_changes);
        Ok(user.execute(UserCommand::GrantRole { role: self.role.clone(), promotes, at: self.at })?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::testing::*;
    use super::*;
    use crate::app::{ApiKeyIssued, AppCreated, AppEvent, AppSettingsChanged};
    use crate::settings::AppSettings;
    use crate::user::{RoleGranted, UserEvent};

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
    fn an_admin_is_told_who_has_a_verified_address_and_may_come_in() {
        assert!(app().tells(&user([verified(), admin()])));
        for other in
            [user([verified()]), user([admin()]), user([verified(), admin(), banned()]), user([erased()])]
        {
            assert!(!app().tells(&other), "{other:?}");
        }
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
        assert_eq!(may(false).decide(&app(), &registered()), Ok(()));
        assert_eq!(may(true).decide(&app(), &user([admin()])), Ok(()));
        assert_eq!(may(false).decide(&app(), &user([admin()])), Err(MayNotAct::OnAdmin));
        assert_eq!(may(true).decide(&app(), &user([erased()])), Err(MayNotAct::NoSuchUser));
        let elsewhere = MayActOn { app_id: AppId::parse("other").expect("valid"), full_admin: true };
        assert_eq!(elsewhere.decide(&app(), &registered()), Err(MayNotAct::NoSuchUser));
    }

    #[test]
    fn only_a_full_admin_makes_an_admin_and_only_of_a_verified_user() {
        let grant = |role: Role, full_admin| GrantRole { role, full_admin, at: at(10) };
        let editor = Role::parse("editor").expect("valid");
        let mut user = registered();
        grant(editor, false).decide(&app(), &mut user).expect("is given");
        assert_eq!(user.decided(), ["RoleGranted"]);
        let refused = grant(Role::admin(), false).decide(&app(), &mut user);
        assert_eq!(refused, Err(NotGranted::NeedsFullAdmin));
        let refused = grant(Role::admin(), true).decide(&app(), &mut user);
        assert_eq!(refused, Err(NotGranted::User(UserError::EmailNotVerified)));
        let mut user = super::super::testing::user([verified()]);
        grant(Role::admin(), true).decide(&app(), &mut user).expect("is given");
        assert!(app().is_admin(&user) && !user.keeps(&session(0)));
        let before = user.decided().len();
        grant(Role::admin(), true).decide(&app(), &mut user).expect("changes nothing");
        assert_eq!(user.decided().len(), before);
    }

    /// What a role opens is decided when it is granted, and not when the app names it.
    #[test]
    fn inv_v_a_role_that_becomes_the_admins_makes_no_admin_until_it_is_granted_anew() {
        let change = |role: Option<Role>, second| {
            let settings = AppSettings { admin_role: role, ..app().settings.clone() };
            let name = "App".to_owned();
            AppEvent::AppSettingsChanged(AppSettingsChanged { name, settings, at: at(second) })
        };
        let created = AppEvent::AppCreated(AppCreated {
            app_id: AppId::default_app(),
            name: "App".to_owned(),
            settings: app().settings.clone(),
            at: at(0),
        });
        let boss = || Role::parse("Boss").expect("valid");
        let grant = |role: Role, full_admin, second| GrantRole { role, full_admin, at: at(second) };
        let mut somebody = user([verified()]);

        // A key that may grant roles does so, and the platform then names that role.
        grant(boss(), false, 10).decide(&app(), &mut somebody).expect("is a role like any other");
        let named = Draft::<App>::given([created.clone(), change(Some(boss()), 20)]);
        assert!(!named.is_admin(&somebody));
        assert_eq!(grant(boss(), false, 30).decide(&named, &mut somebody), Err(NotGranted::NeedsFullAdmin));
        grant(boss(), true, 30).decide(&named, &mut somebody).expect("is granted anew");
        assert!(named.is_admin(&somebody) && !somebody.keeps(&session(0)));

        // A role that the app no longer names makes no admin, even when it is named again.
        let mut former = user([verified()]);
        grant(Role::admin(), true, 10).decide(&app(), &mut former).expect("is given");
        assert!(app().is_admin(&former) && !named.is_admin(&former));
        let none = Draft::<App>::given([created.clone(), change(None, 20)]);
        assert!(!none.is_admin(&former) && !none.is_admin_role(&Role::admin()));
        let again = Draft::<App>::given([created, change(None, 20), change(Some(Role::admin()), 30)]);
        assert!(!again.is_admin(&former));

        // Nor if the clock of the node that granted it was ahead.
        let mut early = user([verified()]);
        grant(Role::admin(), true, 50).decide(&app(), &mut early).expect("is given");
        assert!(app().is_admin(&early) && !again.is_admin(&early));
        grant(Role::admin(), true, 40).decide(&again, &mut early).expect("is granted anew");
        assert!(again.is_admin(&early));

        // Older grants have only their time.
        let older = |second| {
            let (role, access_ended) = (Role::admin(), true);
            RoleGranted { user_id: USER, role, access_ended, admin_role_changes: None, at: at(second) }
        };
        let older = |second| user([verified(), UserEvent::RoleGranted(older(second))]);
        assert!(app().is_admin(&older(10)) && !again.is_admin(&older(10)) && again.is_admin(&older(40)));

        // Nor by an ordinary grant of it on a node whose clock is ahead.
        let mut ahead = user([verified()]);
        grant(Role::admin(), false, 50).decide(&none, &mut ahead).expect("is a role like any other");
        assert!(!again.is_admin(&ahead));
    }
}
