use cqrs_es::test::TestFramework;

use super::*;
use crate::signing_key::TokenAlgorithm;

type AppTest = TestFramework<App>;

fn at() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("in range")
}

fn key(kid: &str) -> PublicJwk {
    PublicJwk {
        kty: "OKP".to_owned(),
        usage: "sig".to_owned(),
        alg: TokenAlgorithm::EdDsa,
        kid: kid.to_owned(),
        crv: Some("Ed25519".to_owned()),
        x: Some("AA".to_owned()),
        y: None,
        n: None,
        e: None,
    }
}

fn created() -> Vec<AppEvent> {
    let app_id = AppId::default_app();
    let settings = AppSettings { token_algorithm: TokenAlgorithm::EdDsa, ..AppSettings::default() };
    vec![
        AppEvent::AppCreated(AppCreated { app_id, name: "Acme".to_owned(), settings, at: at() }),
        key_created("a"),
        key_activated("a"),
        key_created("b"),
    ]
}

fn key_created(kid: &str) -> AppEvent {
    AppEvent::SigningKeyCreated(SigningKeyCreated { public: key(kid), at: Some(at()) })
}

fn key_activated(kid: &str) -> AppEvent {
    let (at, kid) = (Some(at()), kid.to_owned());
    AppEvent::SigningKeyActivated(SigningKeyActivated { kid, at, signs_from: at })
}

fn issue(permissions: &[Permission]) -> AppCommand {
    AppCommand::IssueApiKey {
        key_id: ApiKeyId(uuid::Uuid::from_u128(1)),
        name: "ci".to_owned(),
        permissions: permissions.iter().copied().collect(),
        expires_at: None,
        at: at(),
    }
}

#[tokio::test]
async fn a_new_app_has_a_key_that_signs_and_one_that_waits() {
    let create = AppCommand::Create {
        app_id: AppId::default_app(),
        name: "Acme".to_owned(),
        settings: Box::new(AppSettings { token_algorithm: TokenAlgorithm::EdDsa, ..AppSettings::default() }),
        keys: Box::new([key("a"), key("b")]),
        at: at(),
    };
    AppTest::with(())
        .given_no_previous_events()
        .when_async(create.clone())
        .await
        .then_expect_events(created());
    AppTest::with(()).given(created()).when_async(create).await.then_expect_error(AppError::Exists);
}

#[tokio::test]
async fn disabling_twice_is_one_event() {
    let disable = AppCommand::Disable { at: at() };
    let disabled = AppEvent::AppDisabled(AppDisabled { at: at() });
    AppTest::with(())
        .given(created())
        .when_async(disable.clone())
        .await
        .then_expect_events(vec![disabled.clone()]);
    AppTest::with(())
        .given([created(), vec![disabled]].concat())
        .when_async(disable)
        .await
        .then_expect_events(vec![]);
}

#[tokio::test]
async fn a_key_of_an_app_is_never_one_of_the_platform() {
    AppTest::with(())
        .given(created())
        .when_async(issue(&[Permission::Platform]))
        .await
        .then_expect_error(AppError::Permissions);
    AppTest::with(()).given(created()).when_async(issue(&[])).await.then_expect_error(AppError::Permissions);
}

#[test]
fn a_key_ends_when_revoked_or_expired() {
    let mut app = App::default();
    for event in created() {
        app.apply(event);
    }
    let key_id = ApiKeyId(uuid::Uuid::from_u128(1));
    let expires_at = Some(at() + jiff::SignedDuration::from_secs(10));
    let permissions = BTreeSet::from([Permission::UsersRead]);
    let issued = ApiKeyIssued { key_id, name: "ci".to_owned(), permissions, expires_at, at: at() };
    app.apply(AppEvent::ApiKeyIssued(issued));
    assert!(app.api_keys[&key_id].is_live(at()));
    assert!(!app.api_keys[&key_id].is_live(at() + jiff::SignedDuration::from_secs(10)));
    app.apply(AppEvent::ApiKeyRevoked(ApiKeyRevoked { key_id, at: at() }));
    assert!(!app.api_keys.contains_key(&key_id) && app.has_had_keys());
    let again = app.decide(AppCommand::RevokeApiKey { key_id, at: at() });
    assert_eq!(again, Ok(vec![]), "a repetition is not an error");
    let other = AppCommand::RevokeApiKey { key_id: ApiKeyId(uuid::Uuid::from_u128(2)), at: at() };
    assert_eq!(app.decide(other), Err(AppError::NoSuchKey));
}

#[test]
fn an_app_does_not_grow_with_the_keys_it_had() {
    let mut app = App::default();
    for event in created() {
        app.apply(event);
    }
    for n in 0..3 * i64::try_from(MAX_API_KEYS).expect("few") {
        for event in app.decide(issue(&[Permission::UsersRead])).expect("there is room") {
            app.apply(event);
        }
        let key_id = *app.api_keys.keys().next().expect("the one just issued");
        app.apply(AppEvent::ApiKeyRevoked(ApiKeyRevoked { key_id, at: at() }));
        let (next, at) = (Box::new(key(&n.to_string())), at() + jiff::SignedDuration::from_hours(n));
        for event in app.decide(AppCommand::RotateKeys { next, emergency: false, at }).expect("it rotates") {
            app.apply(event);
        }
    }
    assert!(app.signing_keys.len() <= crate::signing_key::MAX_PREVIOUS + 3, "{}", app.signing_keys.len());
    assert_eq!(app.api_keys.len(), 0);
    assert_eq!(app.revoked_keys.len(), MAX_API_KEYS);
}
