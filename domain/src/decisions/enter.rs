//! Whether an app lets a person in, whatever their credentials.

use crate::app::App;
use crate::app_id::AppId;
use crate::ids::UserId;
use crate::user::User;

/// Why an app takes no requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppClosed {
    /// No app has this id, or it is the platform's own.
    #[error("there is no such app")]
    Absent,
    /// It is disabled.
    #[error("the app is disabled")]
    Disabled,
}

/// Why a person is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MayNotEnter {
    /// The app takes no requests.
    #[error(transparent)]
    App(#[from] AppClosed),
    /// The app has no such user, or the user was erased.
    #[error("the app has no such user")]
    NoSuchUser,
    /// The person is banned.
    #[error("the user is banned")]
    Banned,
    /// The app requires a verified address.
    #[error("the user's address is not verified")]
    EmailNotVerified,
}

/// Refuses unless the app exists, is not the platform's own, and is not disabled.
///
/// # Errors
/// See [`AppClosed`].
pub fn require_active(app: &App) -> Result<&AppId, AppClosed> {
    match &app.id {
        Some(id) if !id.is_platform() && app.disabled => Err(AppClosed::Disabled),
        Some(id) if !id.is_platform() => Ok(id),
        _ => Err(AppClosed::Absent),
    }
}

/// The app and the user, if the app lets the user in.
///
/// # Errors
/// See [`MayNotEnter`].
pub fn may_enter<'a>(app: &'a App, user: &User) -> Result<(&'a AppId, UserId), MayNotEnter> {
    let app_id = require_active(app)?;
    let user_id = user.id.filter(|_| user.is_of(app_id)).ok_or(MayNotEnter::NoSuchUser)?;
    if user.banned {
        return Err(MayNotEnter::Banned);
    }
    if app.settings.require_verified_email && !user.email_verified {
        return Err(MayNotEnter::EmailNotVerified);
    }
    Ok((app_id, user_id))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::draft::Draft;

    #[test]
    fn lets_in_whom_nothing_keeps_out() {
        let (app, user) = (app(), registered());
        assert_eq!(may_enter(&app, &user), Ok((&AppId::default_app(), USER)));
    }

    #[test]
    fn keeps_out_who_is_banned_erased_or_of_another_app_or_nobody() {
        let app = app();
        assert_eq!(may_enter(&app, &user([banned()])), Err(MayNotEnter::Banned));
        assert_eq!(may_enter(&app, &user([erased()])), Err(MayNotEnter::NoSuchUser));
        assert_eq!(may_enter(&app, &Draft::<User>::new()), Err(MayNotEnter::NoSuchUser));
        let other = app_with(AppId::parse("other").expect("valid"), |_| {});
        assert_eq!(may_enter(&other, &registered()), Err(MayNotEnter::NoSuchUser));
    }

    #[test]
    fn asks_for_a_verified_address_where_the_app_does() {
        let strict = app_with(AppId::default_app(), |settings| settings.require_verified_email = true);
        assert_eq!(may_enter(&strict, &registered()), Err(MayNotEnter::EmailNotVerified));
        assert!(may_enter(&strict, &user([verified()])).is_ok());
    }

    #[test]
    fn an_app_that_is_stopped_or_is_none_lets_nobody_in() {
        let none = Draft::<App>::new();
        assert_eq!(require_active(&none), Err(AppClosed::Absent));
        let platform = app_with(AppId::platform(), |_| {});
        assert_eq!(require_active(&platform), Err(AppClosed::Absent));
        assert_eq!(may_enter(&disabled(), &registered()), Err(MayNotEnter::App(AppClosed::Disabled)));
    }
}
