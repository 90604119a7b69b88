//! An account that comes from another system.

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
use crate::user::{Client, MailboxProof, Origin, Profile, RegistrationMethod, User, UserCommand, UserError};

/// Takes an account over from another system, as a full admin says that it is there. The id decides whether it was taken over
/// before: the same line gives the same id, however often it is sent.
#[derive(Clone, Debug)]
pub struct ImportUser {
    /// Its id.
    pub user_id: UserId,
    /// The person's address.
    pub email: Email,
    /// Whether that system knows that it is theirs.
    pub email_verified: bool,
    /// The hash of their password there.
    pub password_hash: Option<PasswordHash>,
    /// What is said about them.
    pub profile: Profile,
    /// What that system calls the account, and since when it has it.
    pub origin: Origin,
    /// Their roles.
    pub roles: BTreeSet<Role>,
    /// Whether they are banned.
    pub banned: bool,
    /// The time.
    pub at: Timestamp,
}

/// Why there is no new account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotImported {
    /// There is no such app. One that is disabled takes users of the platform's admins.
    #[error(transparent)]
    App(#[from] AppClosed),
    /// It is there already.
    #[error("the account was imported before")]
    Before,
    /// It was there, and the person was erased since.
    #[error("the person was imported before, and has been erased")]
    Erased,
    /// The id is that of a user of another app.
    #[error("the id belongs to another account")]
    IdTaken,
    /// A role is not given.
    #[error("{why}")]
    Role {
        /// Which one.
        role: Role,
        /// Why not.
        why: NotGranted,
    },
    /// The account refused.
    #[error(transparent)]
    User(#[from] UserError),
}

impl ImportUser {
    /// Decides it: whether they are an admin of the app now. That nobody else has the address, the claim on it sees to.
    ///
    /// # Errors
    /// See [`NotImported`].
    pub fn decide(&self, app: &App, user: &mut Draft<User>) -> Result<bool, NotImported> {
        let app_id = app.id.as_ref().filter(|id| !id.is_platform()).ok_or(AppClosed::Absent)?;
        if user.id.is_some() {
            return Err(match &user.app_id {
                Some(of) if of != app_id => NotImported::IdTaken,
                _ if user.erased => NotImported::Erased,
                _ => NotImported::Before,
            });
        }
        user.execute(UserCommand::Register {
            user_id: self.user_id,
            app_id: app_id.clone(),
            method: RegistrationMethod::Import,
            email: self.email.clone(),
            proof: self.email_verified.then_some(MailboxProof::Import),
            password_hash: self.password_hash.clone(),
            profile: self.profile.clone(),
            origin: self.origin.clone(),
            // The request came from the admin, so its origin says nothing about this person.
            client: Client::default(),
            at: self.at,
        })?;
        for role in &self.roles {
            let grant = GrantRole { role: role.clone(), full_admin: true, at: self.at };
            grant.decide(app, user).map_err(|why| NotImported::Role { role: role.clone(), why })?;
        }
        if self.banned {
            user.execute(UserCommand::Ban { reason: None, at: self.at })?;
        }
        Ok(app.is_admin(user))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::app_id::AppId;
    use crate::claims::{ClaimChange, Claimed};

    fn import(roles: &[&str], email_verified: bool) -> ImportUser {
        ImportUser {
            user_id: USER,
            email: email(),
            email_verified,
            password_hash: Some(hash("$2b$12$")),
            profile: Profile::default(),
            origin: Origin { external_id: Some("auth0|1".to_owned()), registered_at: Some(at(3)) },
            roles: roles.iter().map(|role| Role::parse(*role).expect("valid")).collect(),
            banned: false,
            at: at(10),
        }
    }

    #[test]
    fn takes_over_what_the_other_system_says() {
        let mut user = Draft::new();
        let is_admin = import(&["editor"], true).decide(&app(), &mut user).expect("imports");
        assert!(!is_admin);
        assert_eq!(user.decided(), ["UserRegistered", "EmailVerified", "RoleGranted"]);
        let address = Claimed::Email { app_id: AppId::default_app(), email: Some(email()) };
        assert_eq!(user.claims(), [ClaimChange::Take(address)]);
        assert!(user.email_verified && user.password_hash == Some(hash("$2b$12$")));
        assert_eq!((user.external_id.as_deref(), user.since()), (Some("auth0|1"), at(3)));
        assert_eq!(user.created_at, at(10));

        let mut user = Draft::new();
        ImportUser { banned: true, ..import(&[], false) }.decide(&app(), &mut user).expect("imports");
        assert_eq!(user.decided(), ["UserRegistered", "UserBanned"]);
        assert!(user.banned && !user.email_verified);
    }

    /// Whoever imports may know the password behind the hash. It is not left to them when they are no admin any more.
    #[test]
    fn an_admin_needs_a_verified_address_and_chooses_a_new_password() {
        let mut user = Draft::new();
        assert!(import(&["admin"], true).decide(&app(), &mut user).expect("imports"));
        assert!(user.password_hash.is_none());
        let role = Role::admin();
        let why = NotGranted::User(UserError::EmailNotVerified);
        let refused = import(&["admin"], false).decide(&app(), &mut Draft::new());
        assert_eq!(refused, Err(NotImported::Role { role, why }));
    }

    #[test]
    fn happens_once() {
        let mut again = registered();
        assert_eq!(import(&[], true).decide(&app(), &mut again), Err(NotImported::Before));
        assert_eq!(import(&[], true).decide(&app(), &mut user([erased()])), Err(NotImported::Erased));
        let elsewhere = import(&[], true).decide(&another_app(), &mut registered());
        assert_eq!(elsewhere, Err(NotImported::IdTaken));
        assert!(again.events().is_empty());
    }

    #[test]
    fn is_of_an_app_that_exists() {
        import(&[], true).decide(&disabled(), &mut Draft::new()).expect("imports");
        for absent in [Draft::new(), app_with(AppId::platform(), |_| {})] {
            let refused = import(&[], true).decide(&absent, &mut Draft::new());
            assert_eq!(refused, Err(NotImported::App(AppClosed::Absent)));
        }
    }
}
