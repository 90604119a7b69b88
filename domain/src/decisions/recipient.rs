//! Who may be sent a token.

use super::enter::{AppClosed, require_active};
use crate::app::App;
use crate::app_id::AppId;
use crate::email::Email;
use crate::user::User;

/// The recipient of a token, checked again at decision time.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct Recipient {
    pub app_id: AppId,
    pub email: Email,
    /// Whether the token goes to an app's server that is not a full admin.
    pub server_is_limited: bool,
}

/// An app's server would receive an admin's token without being entitled to act as an admin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("only a full admin can request an admin's token")]
pub struct TokenOfAdmin;

impl Recipient {
    /// Refuses unless the recipient's app is this one, and active.
    pub(super) fn require_active<'a>(&self, app: &'a App) -> Result<&'a AppId, AppClosed> {
        require_active(app).and_then(|id| if *id == self.app_id { Ok(id) } else { Err(AppClosed::Absent) })
    }

    /// Whether the user still has the address, and may enter.
    ///
    /// # Errors
    /// See [`TokenOfAdmin`].
    pub fn is(&self, app: &App, user: &User) -> Result<bool, TokenOfAdmin> {
        if self.server_is_limited && app.is_admin(user) {
            return Err(TokenOfAdmin);
        }
        Ok(may_receive(user, &self.app_id, &self.email))
    }
}

/// Whether the user has this address in this app, and may come in at all.
pub(super) fn may_receive(user: &User, app_id: &AppId, email: &Email) -> bool {
    user.is_of(app_id) && !user.banned && user.email.as_ref() == Some(email)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn is_who_has_the_address_and_may_come_in() {
        let recipient = Recipient { app_id: AppId::default_app(), email: email(), server_is_limited: false };
        assert_eq!(recipient.is(&app(), &registered()), Ok(true));
        assert_eq!(recipient.is(&app(), &user([banned()])), Ok(false));
        assert_eq!(recipient.is(&app(), &user([erased()])), Ok(false));
        let other = Email::parse("eve@example.com").expect("valid");
        assert_eq!(Recipient { email: other, ..recipient.clone() }.is(&app(), &registered()), Ok(false));
        let limited = Recipient { server_is_limited: true, ..recipient.clone() };
        assert_eq!(limited.is(&app(), &user([admin()])), Err(TokenOfAdmin));
        assert_eq!(recipient.is(&app(), &user([admin()])), Ok(true));
    }
}
