//! An account that an admin creates.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::admin::{GrantRole, NotGranted};
use super::enter::AppClosed;
use crate::app::App;
use crate::draft::Draft;
use crate::email::Email;
use crate::ids::UserId;
use crate::password::PasswordHash;
use crate::role::Role;
use crate::user::{Client, Origin, Profile, RegistrationMethod, User, UserCommand, UserError};

/// Creates an account for somebody else. Its address counts as not verified.
#[derive(Clone, Debug)]
pub struct CreateUser {
    /// Its id.
    pub user_id: UserId,
    /// The person's address.
    pub email: Email,
    /// The hash of a password, if they get one.
    pub password_hash: Option<PasswordHash>,
    /// What is said about them.
    pub profile: Profile,
    /// Their roles from the start.
    pub roles: BTreeSet<Role>,
    /// Whether whoever creates it may do everything in the app.
    pub full_admin: bool,
    /// The time.
    pub at: Timestamp,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCreated {
    /// There is no such app. One that is disabled takes users of the platform's admins.
    #[error(transparent)]
    App(#[from] AppClosed),
    /// The account refused.
    #[error(transparent)]
    User(#[from] UserError),
    /// A role is not given.
    #[error(transparent)]
    Role(#[from] NotGranted),
}

impl CreateUser {
    /// Decides it. That nobody else has the address, the claim on it sees to.
    ///
    /// # Errors
    /// See [`NotCreated`].
    pub fn decide(&self, app: &App, user: &mut Draft<User>) -> Result<(), NotCreated> {
        let app_id = app.id.as_ref().filter(|id| !id.is_platform()).ok_or(AppClosed::Absent)?;
        user.execute(UserCommand::Register {
            user_id: self.user_id,
            app_id: app_id.clone(),
            method: RegistrationMethod::Admin,
            email: self.email.clone(),
            proof: None,
            password_hash: self.password_hash.clone(),
            profile: self.profile.clone(),
            // The request came from the admin, so its origin says nothing about this person.
            origin: Origin::default(),
            client: Client::default(),
            at: self.at,
        })?;
        for role in &self.roles {
            let grant = GrantRole { role: role.clone(), full_admin: self.full_admin, at: self.at };
            grant.decide(app, user)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::app_id::AppId;
    use crate::claims::{ClaimChange, Claimed};

    fn create(roles: &[&str], full_admin: bool) -> CreateUser {
        CreateUser {
            user_id: USER,
            email: email(),
            password_hash: None,
            profile: Profile::default(),
            roles: roles.iter().map(|role| Role::parse(*role).expect("valid")).collect(),
            full_admin,
            at: at(10),
        }
    }

    #[test]
    fn makes_an_account_with_its_address_and_roles() {
        let mut user = Draft::new();
        create(&["editor", "reader"], false).decide(&app(), &mut user).expect("creates");
        assert_eq!(user.decided(), ["UserRegistered", "RoleGranted", "RoleGranted"]);
        let address = Claimed::Email { app_id: AppId::default_app(), email: Some(email()) };
        assert_eq!(user.claims(), [ClaimChange::Take(address)]);
        assert!(user.is_of(&AppId::default_app()) && !user.email_verified && user.password_hash.is_none());
        let mut user = Draft::new();
        let with_password = CreateUser { password_hash: Some(hash("$argon2id$1")), ..create(&[], false) };
        with_password.decide(&app(), &mut user).expect("creates");
        assert_eq!(
            (user.decided(), user.password_hash.clone()),
            (vec!["UserRegistered"], Some(hash("$argon2id$1")))
        );
    }

    /// The role of an admin needs a verified address, whoever gives it.
    #[test]
    fn makes_no_admin() {
        for (full_admin, why) in
            [(false, NotGranted::NeedsFullAdmin), (true, NotGranted::User(UserError::EmailNotVerified))]
        {
            let refused = create(&["admin"], full_admin).decide(&app(), &mut Draft::new());
            assert_eq!(refused, Err(NotCreated::Role(why)));
        }
    }

    /// Whether the caller may do so in a disabled app is decided with what entitles them.
    #[test]
    fn is_of_an_app_that_exists() {
        create(&[], true).decide(&disabled(), &mut Draft::new()).expect("creates");
        for absent in [Draft::new(), app_with(AppId::platform(), |_| {})] {
            let mut user = Draft::new();
            assert_eq!(create(&[], true).decide(&absent, &mut user), Err(NotCreated::App(AppClosed::Absent)));
            assert!(user.events().is_empty());
        }
    }

    #[test]
    fn an_id_is_given_once() {
        let refused = create(&[], true).decide(&app(), &mut registered());
        assert_eq!(refused, Err(NotCreated::User(UserError::Exists)));
    }
}
