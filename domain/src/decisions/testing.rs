//! Fixtures for the tests of decisions.

use uuid::Uuid;

pub(super) use crate::app::App;
use crate::app::{AppCreated, AppDisabled, AppEvent};
use crate::app_id::AppId;
pub(super) use crate::draft::Draft;
use crate::email::Email;
use crate::ids::{DeviceId, SessionId, UserId};
use crate::lockout::{AccountLocked, Lockout, LockoutEvent};
use crate::magic_link::{MagicLink, MagicLinkEvent, MagicLinkId, MagicLinkIssued};
use crate::password::PasswordHash;
use crate::personal::Personal;
use crate::redirect_uri::RedirectUri;
use crate::role::Role;
use crate::session::{LoginMethod, Session, SessionEvent, SessionStarted};
use crate::settings::{AppSettings, SentBy};
use crate::user::{
    EmailVerified, ErasureReason, MailboxProof, RegistrationMethod, RoleGranted, User, UserBanned,
    UserErased, UserEvent, UserRegistered,
};
use jiff::Timestamp;

pub(super) const USER: UserId = UserId(Uuid::from_u128(7));
pub(super) const SESSION: SessionId = SessionId(Uuid::from_u128(8));
pub(super) const LINK: MagicLinkId = MagicLinkId(Uuid::from_u128(9));
pub(super) const DEVICE: DeviceId = DeviceId(Uuid::from_u128(10));

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("in range")
}

pub(super) fn email() -> Email {
    Email::parse("ada@example.com").expect("valid")
}

pub(super) fn eve() -> Email {
    Email::parse("eve@example.com").expect("valid")
}

pub(super) fn hash(text: &str) -> PasswordHash {
    PasswordHash(text.to_owned())
}

pub(super) fn callback() -> RedirectUri {
    RedirectUri::parse("https://app.example/callback").expect("valid")
}

pub(super) fn app() -> Draft<App> {
    app_with(AppId::default_app(), |_| {})
}

pub(super) fn app_with(app_id: AppId, set: impl FnOnce(&mut AppSettings)) -> Draft<App> {
    let mut settings = AppSettings { redirect_uris: vec![callback()], ..AppSettings::default() };
    set(&mut settings);
    Draft::given([AppEvent::AppCreated(AppCreated { app_id, name: "App".to_owned(), settings, at: at(0) })])
}

/// An app that the user does not belong to.
pub(super) fn another_app() -> Draft<App> {
    app_with(AppId::parse("another").expect("valid"), |_| {})
}

pub(super) fn disabled() -> Draft<App> {
    let created = AppCreated {
        app_id: AppId::default_app(),
        name: "App".to_owned(),
        settings: AppSettings::default(),
        at: at(0),
    };
    Draft::given([AppEvent::AppCreated(created), AppEvent::AppDisabled(AppDisabled { at: at(0) })])
}

pub(super) fn registered() -> Draft<User> {
    user([])
}

pub(super) fn user(events: impl IntoIterator<Item = UserEvent>) -> Draft<User> {
    let personal =
        Personal { email: Some(email()), password_hash: Some(hash("$argon2id$1")), ..Personal::default() };
    let registered = UserEvent::UserRegistered(UserRegistered {
        user_id: USER,
        app_id: AppId::default_app(),
        method: RegistrationMethod::Password,
        at: at(0),
        personal,
    });
    Draft::given([registered].into_iter().chain(events))
}

pub(super) fn banned() -> UserEvent {
    let personal = Personal::default();
    UserEvent::UserBanned(UserBanned { user_id: USER, access_ended: true, at: at(1), personal })
}

pub(super) fn erased() -> UserEvent {
    UserEvent::UserErased(UserErased { user_id: USER, reason: ErasureReason::Disowned, at: at(1) })
}

pub(super) fn verified() -> UserEvent {
    UserEvent::EmailVerified(EmailVerified {
        user_id: USER,
        proof: MailboxProof::Verification,
        earlier_access_ended: false,
        profile_cleared: false,
        at: at(1),
        personal: Personal { email: Some(email()), ..Personal::default() },
    })
}

pub(super) fn admin() -> UserEvent {
    let role = Role::admin();
    UserEvent::RoleGranted(RoleGranted {
        user_id: USER,
        role,
        access_ended: false,
        admin_role_changes: None,
        at: at(1),
    })
}

pub(super) fn session(epoch: u32) -> Draft<Session> {
    session_with(epoch, [])
}

pub(super) fn session_with(epoch: u32, events: impl IntoIterator<Item = SessionEvent>) -> Draft<Session> {
    let started = SessionEvent::SessionStarted(SessionStarted {
        session_id: SESSION,
        user_id: USER,
        app_id: AppId::default_app(),
        method: LoginMethod::Password,
        epoch,
        expires_at: at(1_000),
        idle_expires_at: at(100),
        at: at(0),
        personal: Personal::default(),
    });
    Draft::given([started].into_iter().chain(events))
}

pub(super) fn locked() -> Draft<Lockout> {
    let until = at(1_000);
    Draft::given([LockoutEvent::AccountLocked(AccountLocked {
        user_id: USER,
        device_id: None,
        until,
        at: at(0),
    })])
}

pub(super) fn link(epoch: Option<u32>) -> Draft<MagicLink> {
    link_to(AppId::default_app(), email(), epoch)
}

pub(super) fn link_to(app_id: AppId, email: Email, epoch: Option<u32>) -> Draft<MagicLink> {
    Draft::given([MagicLinkEvent::MagicLinkIssued(MagicLinkIssued {
        link_id: LINK,
        user_id: USER,
        app_id,
        epoch,
        redirect_uri: callback(),
        code_challenge: None,
        delivery: SentBy::Platform,
        expires_at: at(900),
        at: at(0),
        personal: Personal { email: Some(email), ..Personal::default() },
    })])
}
