//! One event of every kind, with fixed values: the source of new golden files.

use std::collections::BTreeSet;

use domain::access::{AccessEvent, ExportForm, HistoryExported, PersonalDataRead, PersonalDataSource};
use domain::app::{
    ApiKeyIssued, ApiKeyRevoked, AppCreated, AppDisabled, AppEnabled, AppEvent, AppSettingsChanged,
    SigningKeyActivated, SigningKeyCreated, SigningKeyRetired,
};
use domain::branding::{Branding, Colour, Language, LogoUrl, ProductName};
use domain::delivery::{DeliveryEvent, FailureReason, MailFailed, MailSent};
use domain::journal::{JournalCreated, JournalEvent};
use domain::lockout::{AccountLocked, AccountUnlocked, LockoutEvent, LoginFailed};
use domain::magic_link::{
    ExchangeCodeRedeemed, ExchangeCodeReplayed, MagicLinkEvent, MagicLinkIssued, MagicLinkRedeemed,
    MagicLinkSuperseded,
};
use domain::mail::MailKind;
use domain::password::PasswordHash;
use domain::pkce::CodeChallenge;
use domain::redirect_uri::{Origin, RedirectUri};
use domain::session::{
    LoginMethod, RefreshTokenReused, RevocationReason, SessionEvent, SessionRefreshed, SessionRevoked,
    SessionStarted,
};
use domain::settings::{Links, SentBy};
use domain::signing_key::{PublicJwk, TokenAlgorithm};
use domain::user::{
    AccessEnded, EmailChangeRequested, EmailChanged, EmailVerificationRequested, EmailVerified,
    ErasureReason, MailboxProof, PasswordChanged, PasswordRehashed, PasswordReset, PasswordResetRequested,
    ProfileField, ProfileUpdated, RegistrationMethod, ResetReason, RoleGranted, RoleRevoked, UserBanned,
    UserErased, UserEvent, UserRegistered, UserUnbanned,
};
use domain::{
    AccessId, ApiKeyId, AppId, AppSettings, Email, Event, EventId, JournalId, LogOrigin, MagicLinkId,
    Permission, Personal, Role, SessionId, StreamId, Timestamp, UserId,
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

fn link_id() -> MagicLinkId {
    MagicLinkId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0004))
}

fn event_id() -> EventId {
    EventId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0005))
}

fn journal_id() -> JournalId {
    JournalId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0006))
}

fn access_id() -> AccessId {
    AccessId(Uuid::from_u128(0x0190_0000_0000_8000_8000_0000_0000_0007))
}

pub fn origin() -> LogOrigin {
    LogOrigin::parse("https://login.example.com").expect("valid")
}

pub fn at() -> Timestamp {
    "2026-03-01T12:00:00.123456Z".parse().expect("valid")
}

/// Every member filled: values that must never turn up in the data of an event.
pub fn personal() -> Personal {
    Personal {
        email: Some(Email::parse("ada@example.com").expect("valid")),
        previous_email: Some(Email::parse("countess@example.org").expect("valid")),
        name: Some("Ada Lovelace".to_owned()),
        phone: Some("+44 20 7946 0000".to_owned()),
        avatar_url: Some("https://example.com/ada.png".to_owned()),
        ip: Some("192.0.2.7".to_owned()),
        user_agent: Some("Analytical Engine/1.0".to_owned()),
        acting: Some("01900000-0000-7000-8000-000000000008.AQID".to_owned()),
        reason: Some("sold the same ticket twice".to_owned()),
        state: Some("cart=4711;for=ada".to_owned()),
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
        locale: Language::De,
        branding: Branding {
            name: Some(ProductName::parse("Acme Notes").expect("valid")),
            colour: Some(Colour::parse("#0a66c2").expect("valid")),
            logo: Some(LogoUrl::parse("https://app.example/logo.png").expect("valid")),
            sender: Some(Email::parse("no-reply@acme.example").expect("valid")),
            reply_to: Some(Email::parse("help@acme.example").expect("valid")),
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
        of(&StreamId::user(user_id()), mailbox().into_iter().map(Event::User).collect()),
        of(&StreamId::magic_link(link_id()), magic_link().into_iter().map(Event::MagicLink).collect()),
        of(&StreamId::delivery(event_id()), delivery().into_iter().map(Event::Delivery).collect()),
        of(&StreamId::journal(journal_id()), journal().into_iter().map(Event::Journal).collect()),
        of(&StreamId::access(access_id()), access().into_iter().map(Event::Access).collect()),
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
        AppEvent::SigningKeyCreated(SigningKeyCreated { public: jwk(), at: Some(at) }),
        AppEvent::SigningKeyActivated(SigningKeyActivated {
            kid: kid.clone(),
            at: Some(at),
            signs_from: Some(at),
        }),
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
    let cleared = BTreeSet::from([ProfileField::Phone]);
    let banned = Personal { reason: full.reason.clone(), ..Personal::default() };
    vec![
        UserEvent::UserRegistered(UserRegistered { user_id, app_id, method, at, personal: full }),
        UserEvent::ProfileUpdated(ProfileUpdated { user_id, cleared, at, personal: renamed }),
        UserEvent::PasswordRehashed(PasswordRehashed { user_id, at, personal: rehashed }),
        UserEvent::RoleGranted(RoleGranted { user_id, role: role.clone(), access_ended: true, at }),
        UserEvent::RoleRevoked(RoleRevoked { user_id, role, at }),
        UserEvent::UserBanned(UserBanned { user_id, access_ended: true, at, personal: banned }),
        UserEvent::UserUnbanned(UserUnbanned { user_id, at }),
        UserEvent::AccessEnded(AccessEnded {
            user_id,
            kept_session: Some(session_id()),
            reason: RevocationReason::User,
            at,
        }),
        UserEvent::UserErased(UserErased { user_id, reason: ErasureReason::Disowned, at }),
    ]
}

fn lockout() -> Vec<LockoutEvent> {
    let (user_id, at) = (user_id(), at());
    let until = "2026-03-01T12:01:00.123456Z".parse().expect("valid");
    vec![
        LockoutEvent::LoginFailed(LoginFailed { user_id, failures: 10, device_id: None, at }),
        LockoutEvent::AccountLocked(AccountLocked { user_id, device_id: None, until, at }),
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
            epoch: 0,
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
            personal: client(),
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

fn client() -> Personal {
    let full = personal();
    Personal { ip: full.ip, user_agent: full.user_agent, ..Personal::default() }
}

fn later() -> Timestamp {
    "2026-03-01T13:00:00.123456Z".parse().expect("valid")
}

fn mailbox() -> Vec<UserEvent> {
    let (user_id, session_id, at, expires_at, generation) = (user_id(), session_id(), at(), later(), 1);
    let (delivery, full) = (SentBy::Platform, personal());
    let address = Personal { email: full.email.clone(), ..Personal::default() };
    let addresses = Personal { previous_email: full.previous_email, ..address.clone() };
    let password = Personal { password_hash: full.password_hash, ..Personal::default() };
    vec![
        UserEvent::EmailVerificationRequested(EmailVerificationRequested {
            user_id,
            generation,
            delivery,
            expires_at,
            full_admin: false,
            at,
            personal: address.clone(),
        }),
        UserEvent::EmailVerified(EmailVerified {
            user_id,
            proof: MailboxProof::MagicLink,
            earlier_access_ended: true,
            profile_cleared: true,
            at,
            personal: address.clone(),
        }),
        UserEvent::EmailChangeRequested(EmailChangeRequested {
            user_id,
            generation,
            session_id,
            delivery,
            expires_at,
            at,
            personal: Personal {
                email: addresses.email.clone(),
                previous_email: addresses.previous_email.clone(),
                ..client()
            },
        }),
        UserEvent::EmailChanged(EmailChanged { user_id, session_id, at, personal: addresses }),
        UserEvent::PasswordResetRequested(PasswordResetRequested {
            user_id,
            generation,
            reason: ResetReason::Forgotten,
            delivery,
            expires_at,
            full_admin: false,
            at,
            personal: Personal { email: address.email, ..client() },
        }),
        UserEvent::PasswordReset(PasswordReset {
            user_id,
            at,
            personal: Personal { password_hash: password.password_hash.clone(), ..client() },
        }),
        UserEvent::PasswordChanged(PasswordChanged { user_id, session_id, at, personal: password }),
    ]
}

fn magic_link() -> Vec<MagicLinkEvent> {
    let (link_id, user_id, session_id, at) = (link_id(), user_id(), session_id(), at());
    // RFC 7636 appendix B.
    let challenge = CodeChallenge::parse("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM").expect("valid");
    let full = personal();
    vec![
        MagicLinkEvent::MagicLinkIssued(MagicLinkIssued {
            link_id,
            user_id,
            app_id: app_id(),
            epoch: Some(1),
            redirect_uri: RedirectUri::parse("https://app.example/callback").expect("valid"),
            code_challenge: Some(challenge),
            delivery: SentBy::Platform,
            expires_at: later(),
            at,
            personal: Personal { email: full.email, state: full.state, ..client() },
        }),
        MagicLinkEvent::MagicLinkSuperseded(MagicLinkSuperseded { link_id, user_id, at }),
        MagicLinkEvent::MagicLinkRedeemed(MagicLinkRedeemed {
            link_id,
            user_id,
            registered: false,
            epoch: 1,
            code_expires_at: later(),
            at,
            personal: client(),
        }),
        MagicLinkEvent::ExchangeCodeRedeemed(ExchangeCodeRedeemed { link_id, user_id, session_id, at }),
        MagicLinkEvent::ExchangeCodeReplayed(ExchangeCodeReplayed {
            link_id,
            user_id,
            session_id,
            at,
            personal: client(),
        }),
    ]
}

fn journal() -> Vec<JournalEvent> {
    let (journal_id, origin, at) = (journal_id(), origin(), at());
    vec![JournalEvent::JournalCreated(JournalCreated { journal_id, origin, at })]
}

fn access() -> Vec<AccessEvent> {
    let (user_id, app_id, at) = (user_id(), app_id(), at());
    vec![
        AccessEvent::PersonalDataRead(PersonalDataRead {
            user_id,
            app_id: app_id.clone(),
            source: PersonalDataSource::User,
            at,
        }),
        AccessEvent::HistoryExported(HistoryExported {
            app_id: Some(app_id),
            user_id: Some(user_id),
            form: ExportForm::Csv,
            opened: true,
            at,
        }),
    ]
}

fn delivery() -> Vec<DeliveryEvent> {
    let (event_id, user_id, mail, at) = (event_id(), user_id(), MailKind::MagicLink, at());
    vec![
        DeliveryEvent::MailSent(MailSent { event_id, user_id, mail, attempt: 2, at }),
        DeliveryEvent::MailFailed(MailFailed {
            event_id,
            user_id,
            mail,
            attempt: 1,
            reason: FailureReason::Deferred,
            smtp_code: Some(451),
            retry_at: Some(later()),
            asked_again: false,
            at,
        }),
    ]
}
