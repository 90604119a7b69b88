//! One event of every kind, with fixed values: what the golden files are first written from.

use std::collections::BTreeSet;

use domain::app::{
    ApiKeyIssued, ApiKeyRevoked, AppCreated, AppDisabled, AppEnabled, AppEvent, AppSettingsChanged,
    SigningKeyActivated, SigningKeyCreated, SigningKeyRetired,
};
use domain::lockout::{AccountLocked, AccountUnlocked, LockoutEvent, LoginFailed};
use domain::password::PasswordHash;
use domain::redirect_uri::{Origin, RedirectUri};
use domain::session::{
    LoginMethod, RefreshTokenReused, RevocationReason, SessionEvent, SessionRefreshed, SessionRevoked,
    SessionStarted,
};
use domain::settings::Links;
use domain::signing_key::{PublicJwk, TokenAlgorithm};
use domain::user::{
    PasswordRehashed, ProfileField, ProfileUpdated, RegistrationMethod, RoleGranted, RoleRevoked, UserBanned,
    UserEvent, UserRegistered, UserUnbanned,
};
use domain::{
    ApiKeyId, AppId, AppSettings, Email, Event, Permission, Personal, Role, SessionId, StreamId, Timestamp,
    UserId,
};
use uuid::Uuid;

pub fn app_id() -> AppId {
    AppId::parse("acme").expect("valid")
}

pub fn user_id() -> UserId {
    UserId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001))
}

pub fn session_id() -> SessionId {
    SessionId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0002))
}

fn key_id() -> ApiKeyId {
    ApiKeyId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0003))
}

pub fn at() -> Timestamp {
    "2026-03-01T12:00:00.123456Z".parse().expect("valid")
}

/// Every member filled: what must never turn up in the data of an event.
pub fn personal() -> Personal {
    Personal {
        email: Some(Email::parse("ada@example.com").expect("valid")),
        name: Some("Ada Lovelace".to_owned()),
        phone: Some("+44 20 7946 0000".to_owned()),
        avatar_url: Some("https://example.com/ada.png".to_owned()),
        ip: Some("192.0.2.7".to_owned()),
        user_agent: Some("Analytical Engine/1.0".to_owned()),
        password_hash: Some(PasswordHash(
            "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g".to_owned(),
        )),
    }
}

fn settings() -> AppSettings {
    AppSettings {
        redirect_uris: vec![RedirectUri::parse("https://app.example/callback").expect("valid")],
        origins: vec![Origin::parse("https://app.example").expect("valid")],
        links: Links {
            password_reset: Some(RedirectUri::parse("https://app.example/reset").expect("valid")),
            ..Links::default()
        },
        ..AppSettings::default()
    }
}

fn jwk() -> PublicJwk {
    PublicJwk {
        kty: "EC".to_owned(),
        usage: "sig".to_owned(),
        alg: TokenAlgorithm::Es256,
        kid: kid(),
        crv: Some("P-256".to_owned()),
        x: Some("MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4".to_owned()),
        y: Some("4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM".to_owned()),
        n: None,
        e: None,
    }
}

fn kid() -> String {
    "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs".to_owned()
}

/// One event of every kind, with its stream.
pub fn all() -> Vec<(StreamId, Event)> {
    let of = |stream: &StreamId, events: Vec<Event>| {
        events.into_iter().map(|event| (stream.clone(), event)).collect::<Vec<_>>()
    };
    [
        of(&StreamId::app(&app_id()), app().into_iter().map(Event::App).collect()),
        of(&StreamId::user(user_id()), user().into_iter().map(Event::User).collect()),
        of(&StreamId::lockout(user_id()), lockout().into_iter().map(Event::Lockout).collect()),
        of(&StreamId::session(session_id()), session().into_iter().map(Event::Session).collect()),
    ]
    .concat()
}

fn app() -> Vec<AppEvent> {
    let (at, kid, key_id) = (at(), kid(), key_id());
    let name = "Acme".to_owned();
    vec![
        AppEvent::AppCreated(AppCreated { app_id: app_id(), name: name.clone(), settings: settings(), at }),
        AppEvent::AppSettingsChanged(AppSettingsChanged { name, settings: settings(), at }),
        AppEvent::AppDisabled(AppDisabled { at }),
        AppEvent::AppEnabled(AppEnabled { at }),
        AppEvent::SigningKeyCreated(SigningKeyCreated { public: jwk() }),
        AppEvent::SigningKeyActivated(SigningKeyActivated { kid: kid.clone() }),
        AppEvent::SigningKeyRetired(SigningKeyRetired { kid }),
        AppEvent::ApiKeyIssued(ApiKeyIssued {
            key_id,
            name: "nightly export".to_owned(),
            permissions: BTreeSet::from([Permission::UsersRead, Permission::AuditRead]),
            expires_at: Some("2027-03-01T12:00:00Z".parse().expect("valid")),
            at,
        }),
        AppEvent::ApiKeyRevoked(ApiKeyRevoked { key_id, at }),
    ]
}

fn user() -> Vec<UserEvent> {
    let (user_id, at) = (user_id(), at());
    let full = personal();
    let rehashed = Personal { password_hash: full.password_hash.clone(), ..Personal::default() };
    let renamed = Personal { name: full.name.clone(), ..Personal::default() };
    let (app_id, method, role) = (app_id(), RegistrationMethod::Password, Role::admin());
    let (cleared, reason) = (BTreeSet::from([ProfileField::Phone]), Some("spam".to_owned()));
    vec![
        UserEvent::UserRegistered(UserRegistered { user_id, app_id, method, at, personal: full }),
        UserEvent::ProfileUpdated(ProfileUpdated { user_id, cleared, at, personal: renamed }),
        UserEvent::PasswordRehashed(PasswordRehashed { user_id, at, personal: rehashed }),
        UserEvent::RoleGranted(RoleGranted { user_id, role: role.clone(), at }),
        UserEvent::RoleRevoked(RoleRevoked { user_id, role, at }),
        UserEvent::UserBanned(UserBanned { user_id, reason, at }),
        UserEvent::UserUnbanned(UserUnbanned { user_id, at }),
    ]
}

fn lockout() -> Vec<LockoutEvent> {
    let (user_id, at) = (user_id(), at());
    let until = "2026-03-01T12:01:00.123456Z".parse().expect("valid");
    vec![
        LockoutEvent::LoginFailed(LoginFailed { user_id, failures: 10, at }),
        LockoutEvent::AccountLocked(AccountLocked { user_id, until, at }),
        LockoutEvent::AccountUnlocked(AccountUnlocked { user_id, at }),
    ]
}

fn session() -> Vec<SessionEvent> {
    let (session_id, user_id, app_id, at) = (session_id(), user_id(), app_id(), at());
    let expires_at = "2026-03-31T12:00:00.123456Z".parse().expect("valid");
    let idle_expires_at = "2026-03-15T12:00:00.123456Z".parse().expect("valid");
    let full = personal();
    let personal = Personal { ip: full.ip, user_agent: full.user_agent, ..Personal::default() };
    vec![
        SessionEvent::SessionStarted(SessionStarted {
            session_id,
            user_id,
            app_id,
            method: LoginMethod::Password,
            expires_at,
            idle_expires_at,
            at,
            personal,
        }),
        SessionEvent::SessionRefreshed(SessionRefreshed {
            session_id,
            user_id,
            generation: 1,
            idle_expires_at,
            at,
        }),
        SessionEvent::RefreshTokenReused(RefreshTokenReused {
            session_id,
            user_id,
            generation: 1,
            current: 3,
            at,
        }),
        SessionEvent::SessionRevoked(SessionRevoked {
            session_id,
            user_id,
            reason: RevocationReason::Logout,
            at,
        }),
    ]
}
