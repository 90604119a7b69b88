//! Who the admins of an app are.
//!
//! A role opens the admin routes only for those to whom it was granted *as* the app's admin role: by somebody who may do
//! everything in the app, with a verified address, and ending what the account had before. Whoever had the role before the
//! setting `admin_role` named it is no admin until it is granted anew. Otherwise an API key that may grant ordinary roles
//! could grant one today that opens the app tomorrow.

use jiff::Timestamp;

use super::App;
use crate::role::Role;
use crate::user::User;

impl App {
    /// Whether this role is that of the app's admins.
    pub fn is_admin_role(&self, role: &Role) -> bool {
        self.settings.admin_role.as_ref() == Some(role)
    }

    /// Since when the user has been an admin of the app, if they are.
    pub fn admin_since(&self, user: &User) -> Option<Timestamp> {
        let role = self.settings.admin_role.as_ref().filter(|role| user.roles.contains(role))?;
        let Some(promotion) = user.promotions.get(role) else {
            // Never another one: an older event that granted `admin` granted this.
            let is_first = self.admin_role_changes == 0 && *role == Role::admin();
            return user.admin_since.filter(|_| is_first);
        };
        let counts = match promotion.admin_role_changes {
            Some(changes) => changes == self.admin_role_changes,
            // An older grant has only its time.
            None => self.admin_role_since.is_none_or(|named| named <= promotion.at),
        };
        counts.then_some(promotion.at)
    }

    /// Whether the user is told, by mail, what admins of the app have to see to.
    pub fn tells(&self, user: &User) -> bool {
        self.is_admin(user) && user.email_verified && !user.banned && !user.erased
    }

    /// Whether the user may use the app's admin routes.
    pub fn is_admin(&self, user: &User) -> bool {
        self.admin_since(user).is_some()
    }
}
