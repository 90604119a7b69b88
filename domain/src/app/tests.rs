use cqrs_es::test::TestFramework;

use super::*;

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
    AppEvent::SigningKeyCreated(SigningKeyCreated { public: key(kid) })
}

fn key_activated(kid: &str) -> AppEvent {
    AppEvent::SigningKeyActivated(SigningKeyActivated { kid: kid.to_owned(), at: Some(at()) })
}

fn key_retired(kid: &str) -> AppEvent {
    AppEvent::SigningKeyRetired(SigningKeyRetired { kid: kid.to_owned() })
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
async fn rotation_moves_every_key_one_place() {
    let rotate = |kid| AppCommand::RotateKeys { next: Box::new(key(kid)), at: at() };
    AppTest::with(())
        .given(created())
        .when_async(rotate("c"))
        .await
        .then_expect_events(vec![key_activated("b"), key_created("c")]);
    let once = [created(), vec![key_activated("b"), key_created("c")]].concat();
    AppTest::with(()).given(once).when_async(rotate("d")).await.then_expect_events(vec![
        key_retired("a"),
        key_activated("c"),
        key_created("d"),
    ]);
}

#[tokio::test]
async fn a_change_of_algorithm_brings_its_keys() {
    let settings = AppSettings::default();
    let change = AppCommand::Change {
        name: None,
        settings: Box::new(settings.clone()),
        keys: Some(Box::new([key("x"), key("y")])),
        at: at(),
    };
    let changed = AppSettingsChanged { name: "Acme".to_owned(), settings, at: at() };
    AppTest::with(()).given(created()).when_async(change).await.then_expect_events(vec![
        AppEvent::AppSettingsChanged(changed),
        key_retired("b"),
        key_created("x"),
        key_activated("x"),
        key_created("y"),
    ]);
}

/// However often the algorithm changes, and with or without rotations.
#[test]
fn keys_that_sign_no_more_are_bounded_and_leave_when_their_tokens_are_over() {
    let mut app = App::default();
    for event in created() {
        app.apply(event);
    }
    let later = |seconds: i64| at() + jiff::SignedDuration::from_secs(seconds);
    let change = |app: &mut App, n: i64, at: Timestamp| {
        let settings =
            AppSettings { access_token_ttl: u32::try_from(n).expect("small"), ..app.settings.clone() };
        let keys = Some(Box::new([key(&format!("{n}a")), key(&format!("{n}b"))]));
        for event in app.change(None, settings, keys, at) {
            app.apply(event);
        }
    };
    for n in 1..=40 {
        change(&mut app, n, later(n));
        assert!(app.signing_keys.len() <= 2 + MAX_PREVIOUS, "{}", app.signing_keys.len());
        assert_eq!(app.current_key().expect("one signs").kid, format!("{n}a"));
    }
    let kids = |app: &App, at| app.published_keys(at).map(|key| key.public.kid.clone()).collect::<Vec<_>>();
    assert_eq!(kids(&app, later(40)), ["37a", "38a", "39a", "40a", "40b"], "the oldest made room");
    // 37a signed until 38, and a token issued then lasts at most a day.
    let longest = i64::from(crate::signing_key::LONGEST_TOKEN);
    assert_eq!(kids(&app, later(38 + longest)), ["37a", "38a", "39a", "40a", "40b"]);
    assert_eq!(kids(&app, later(39 + longest)), ["38a", "39a", "40a", "40b"]);
    assert_eq!(kids(&app, later(50 + longest)), ["40a", "40b"]);
    change(&mut app, 41, later(50 + longest));
    let held: Vec<_> = app.signing_keys.iter().map(|key| key.public.kid.as_str()).collect();
    assert_eq!(held, ["40a", "41a", "41b"], "and they are forgotten");
}

/// Keys from before the time when they stopped was recorded.
#[test]
fn old_keys_are_retired_by_their_number() {
    let mut app = App::default();
    for event in created() {
        app.apply(event);
    }
    for n in 0..30 {
        app.apply(key_created(&format!("{n}")));
        let kid = format!("{n}");
        app.apply(AppEvent::SigningKeyActivated(SigningKeyActivated { kid, at: None }));
    }
    assert!(app.signing_keys.len() > 30);
    let settings = AppSettings { access_token_ttl: 60, ..app.settings.clone() };
    for event in app.change(None, settings, Some(Box::new([key("x"), key("y")])), at()) {
        app.apply(event);
    }
    assert_eq!(app.signing_keys.len(), 2 + MAX_PREVIOUS);
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
    for n in 0..3 * MAX_API_KEYS as u128 {
        for event in app.decide(issue(&[Permission::UsersRead])).expect("there is room") {
            app.apply(event);
        }
        let key_id = *app.api_keys.keys().next().expect("the one just issued");
        app.apply(AppEvent::ApiKeyRevoked(ApiKeyRevoked { key_id, at: at() }));
        for event in app.rotate(key(&n.to_string()), at()) {
            app.apply(event);
        }
    }
    assert_eq!((app.signing_keys.len(), app.api_keys.len()), (3, 0));
    assert_eq!(app.revoked_keys.len(), MAX_API_KEYS);
}
