//! Who may be sent something.

use crate::app_id::AppId;
use crate::email::Email;
use crate::user::User;

/// Who is to be sent something, looked at again when it is decided.
#[derive(Clone, Debug)]
pub struct Recipient {
    /// A user of which app.
    pub app_id: AppId,
    /// At which address.
    pub email: Email,
    /// Whether an app's server gets the token that may not do everything in the app.
    pub server_is_limited: bool,
}

/// An app's server would get the token of an admin, but may not act as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("only a full admin can ask for the token of an admin")]
pub struct TokenOfAdmin;

impl Recipient {
    /// Whether the user still has the address, and may come in at all.
    ///
    /// # Errors
    /// See [`TokenOfAdmin`].
    pub fn is(&self, user: &User) -> Result<bool, TokenOfAdmin> {
        if self.server_is_limited && user.is_admin() {
            return Err(TokenOfAdmin);
        }
        Ok(user.is_of(&self.app_id) && !user.banned && user.email.as_ref() == Some(&self.email))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn is_who_has_the_address_and_may_come_in() {
        let recipient = Recipient { app_id: AppId::default_app(), email: email(), server_is_limited: false };
        assert_eq!(recipient.is(&registered()), Ok(true));
        assert_eq!(recipient.is(&user([banned()])), Ok(false));
        assert_eq!(recipient.is(&user([erased()])), Ok(false));
        let other = Email::parse("eve@example.com").expect("valid");
        assert_eq!(Recipient { email: other, ..recipient.clone() }.is(&registered()), Ok(false));
        let limited = Recipient { server_is_limited: true, ..recipient.clone() };
        assert_eq!(limited.is(&user([admin()])), Err(TokenOfAdmin));
        assert_eq!(recipient.is(&user([admin()])), Ok(true));
    }
}
