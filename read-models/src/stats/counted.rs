//! What each event counts as.

use domain::Event;
use domain::lockout::LockoutEvent;
use domain::session::{LoginMethod, RevocationReason, SessionEvent};
use domain::user::{RegistrationMethod, UserEvent};

/// Registrations are of the app alone: nobody is a member of anything yet.
pub(super) const REGISTRATIONS: &str = "registrations";

/// How an event is counted: a metric and a method (or reason) within it.
pub(super) fn counted(event: &Event) -> Option<(&'static str, &'static str)> {
    Some(match event {
        Event::User(event) => match event {
            UserEvent::UserRegistered(event) => (
                REGISTRATIONS,
                match event.method {
                    RegistrationMethod::Password => "password",
                    RegistrationMethod::Admin => "admin",
                    RegistrationMethod::MagicLink => "magic_link",
                    RegistrationMethod::Import => "import",
                },
            ),
            UserEvent::EmailVerificationRequested(_)
            | UserEvent::EmailVerified(_)
            | UserEvent::EmailChangeRequested(_)
            | UserEvent::EmailChanged(_)
            | UserEvent::PasswordResetRequested(_)
            | UserEvent::PasswordReset(_)
            | UserEvent::PasswordChanged(_)
            | UserEvent::ProfileUpdated(_)
            | UserEvent::PasswordRehashed(_)
            | UserEvent::RoleGranted(_)
            | UserEvent::RoleRevoked(_)
            | UserEvent::UserBanned(_)
            | UserEvent::UserUnbanned(_)
            | UserEvent::AccessEnded(_)
            | UserEvent::WebhookNoticeRequested(_)
            | UserEvent::UserErased(_) => return None,
        },
        Event::Session(event) => match event {
            SessionEvent::SessionStarted(event) => (
                "logins",
                match event.method {
                    LoginMethod::Password => "password",
                    LoginMethod::Registration => "registration",
                    LoginMethod::Admin => "admin",
                    LoginMethod::MagicLink => "magic_link",
                },
            ),
            SessionEvent::SessionRefreshed(_) => ("refreshes", ""),
            SessionEvent::SessionRevoked(event) => (
                "revocations",
                match event.reason {
                    RevocationReason::Logout => "logout",
                    RevocationReason::User => "user",
                    RevocationReason::Admin => "admin",
                    RevocationReason::Ban => "ban",
                    RevocationReason::RefreshTokenReused => "refresh_token_reused",
                    RevocationReason::Limit => "limit",
                    RevocationReason::ExchangeCodeReplayed => "exchange_code_replayed",
                    RevocationReason::PasswordChanged => "password_changed",
                    RevocationReason::PasswordReset => "password_reset",
                    RevocationReason::EmailChanged => "email_changed",
                    RevocationReason::EmailVerified => "email_verified",
                    RevocationReason::Erased => "erased",
                },
            ),
            SessionEvent::RefreshTokenReused(_) | SessionEvent::ActiveOrganizationChosen(_) => return None,
        },
        Event::Lockout(event) => match event {
            LockoutEvent::LoginFailed(_) => ("failures", "password"),
            LockoutEvent::AccountLocked(_) => ("lockouts", ""),
            LockoutEvent::AccountUnlocked(_) => return None,
        },
        _ => return None,
    })
}

/// Whether the person was active themselves. An admin's test token is not a visit of the user.
pub(super) fn is_activity(event: &Event) -> bool {
    match event {
        Event::Session(SessionEvent::SessionStarted(event)) => event.method != LoginMethod::Admin,
        Event::Session(SessionEvent::SessionRefreshed(_)) => true,
        _ => false,
    }
}
