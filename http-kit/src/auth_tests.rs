use domain::AppSettings;
use domain::signing_key::TokenAlgorithm;
use http::{HeaderMap, HeaderValue, Method, header};
use jiff::SignedDuration;

use super::*;
use tokens::testing::Signer;

use crate::testing::World;

fn headers(token: &str) -> Credentials {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).expect("ASCII"));
    Credentials::new(&Method::POST, &headers)
}

struct Scene {
    world: World,
    signer: Signer,
    acme: AppId,
    other: AppId,
}

async fn scene() -> Scene {
    let world = World::new().await;
    let signer = Signer::new(TokenAlgorithm::Es256, "one");
    let foreign = Signer::new(TokenAlgorithm::Es256, "two");
    let (acme, other) = (AppId::parse("acme").expect("valid"), AppId::parse("other").expect("valid"));
    world.app(&acme, &signer, AppSettings::default()).await;
    world.app(&other, &foreign, AppSettings::default()).await;
    world.app(&AppId::platform(), &foreign, AppSettings::default()).await;
    Scene { world, signer, acme, other }
}

fn code<T>(result: Result<T, Problem>) -> &'static str {
    result.err().map_or("ok", |problem| problem.code())
}

#[tokio::test]
async fn a_user_needs_a_live_session_in_an_active_app() {
    let Scene { world, signer, acme, other } = scene().await;
    let auth = &world.authenticator;
    let (user_id, session_id, claims) = world.user(&acme).await;
    let token = headers(&signer.sign(&claims));
    let caller = auth.user(&acme, &token).await.expect("live");
    assert_eq!((caller.user_id, caller.session_id, caller.is_admin()), (user_id, session_id, false));
    assert_eq!(code(auth.user(&other, &token).await), "unauthenticated");
    assert_eq!(code(auth.user(&AppId::platform(), &token).await), "not_found");
    assert_eq!(code(auth.user(&AppId::parse("absent").expect("valid"), &token).await), "not_found");

    // The claims of one user with the session of another.
    let (_, _, mut mixed) = world.user(&acme).await;
    mixed["sid"] = claims["sid"].clone();
    assert_eq!(code(auth.user(&acme, &headers(&signer.sign(&mixed))).await), "unauthenticated");
    // A user and session of another app under this app's signature.
    let (_, _, mut foreign) = world.user(&other).await;
    for name in ["iss", "aud", "client_id"] {
        foreign[name] = claims[name].clone();
    }
    assert_eq!(code(auth.user(&acme, &headers(&signer.sign(&foreign))).await), "unauthenticated");

    world.revoke(user_id, session_id).await;
    assert_eq!(code(auth.user(&acme, &token).await), "unauthenticated");
    let (banned, _, claims) = world.user(&acme).await;
    let token = headers(&signer.sign(&claims));
    assert_eq!(code(auth.user(&acme, &token).await), "ok");
    world.ban(banned).await;
    assert_eq!(code(auth.user(&acme, &token).await), "unauthenticated");

    let (_, _, mut claims) = world.user(&acme).await;
    claims["exp"] = serde_json::json!(world.now().as_second() + 1_000_000);
    let token = headers(&signer.sign(&claims));
    assert_eq!(code(auth.user(&acme, &token).await), "ok");
    world.clock.advance(SignedDuration::from_hours(24));
    assert_eq!(code(auth.user(&acme, &token).await), "unauthenticated", "the session has ended");
    world.disable(&acme).await;
    assert_eq!(code(auth.user(&acme, &token).await), "app_disabled");
}

#[tokio::test]
async fn a_retired_key_ends_its_tokens() {
    let Scene { world, signer, acme, .. } = scene().await;
    let (_, _, claims) = world.user(&acme).await;
    let token = headers(&signer.sign(&claims));
    assert_eq!(code(world.authenticator.user(&acme, &token).await), "ok");
    world.retire(&acme, "one").await;
    assert_eq!(code(world.authenticator.user(&acme, &token).await), "unauthenticated");
}

#[tokio::test]
async fn kinds_of_admins_are_distinguished() {
    let Scene { world, signer, acme, other } = scene().await;
    let auth = &world.authenticator;
    let platform = headers(&world.api_key(&AppId::platform(), &[Permission::Platform]).await);
    let reader = headers(&world.api_key(&acme, &[Permission::UsersRead]).await);
    let foreign = headers(&world.api_key(&other, &[Permission::UsersRead]).await);
    let (user_id, _, claims) = world.user(&acme).await;
    let user = headers(&signer.sign(&claims));
    let absent = AppId::parse("absent").expect("valid");
    let none = Credentials::new(&Method::GET, &HeaderMap::new());
    let (read, write) = (Permission::UsersRead, Permission::UsersWrite);

    assert!(auth.admin(&acme, &platform, write).await.expect("everything").full_admin);
    assert!(!auth.admin(&acme, &reader, read).await.expect("this").full_admin);
    assert_eq!(code(auth.admin(&acme, &reader, write).await), "forbidden");
    assert_eq!(code(auth.admin(&acme, &foreign, read).await), "not_found");
    assert_eq!(code(auth.admin(&acme, &user, read).await), "forbidden");
    assert_eq!(code(auth.admin(&acme, &none, read).await), "unauthenticated");
    assert_eq!(code(auth.admin(&acme, &headers("wwk_AAAA"), read).await), "unauthenticated");
    for app in [&absent, &AppId::platform()] {
        for caller in [&platform, &reader, &user, &none] {
            assert_eq!(code(auth.admin(app, caller, read).await), "not_found");
        }
    }
    assert_eq!(code(auth.platform(&platform).await), "ok");
    assert_eq!(code(auth.platform(&reader).await), "forbidden");
    assert_eq!(code(auth.platform(&user).await), "unauthenticated");
    assert_eq!(code(auth.platform(&none).await), "unauthenticated");
    assert_eq!(code(auth.user(&acme, &reader).await), "unauthenticated", "an API key is not a user");

    world.make_admin(user_id).await;
    let admin = auth.admin(&acme, &user, write).await.expect("an admin now");
    assert!(admin.full_admin && admin.actor == Actor::user(user_id));
    assert_eq!(code(auth.admin(&other, &user, read).await), "unauthenticated");

    world.disable(&acme).await;
    assert_eq!(code(auth.admin(&acme, &platform, read).await), "ok");
    assert_eq!(code(auth.admin(&acme, &reader, read).await), "app_disabled");
    assert_eq!(code(auth.admin(&acme, &user, read).await), "app_disabled");
}

/// All nodes know what one node has acknowledged, for acceptances and refusals alike.
#[tokio::test]
async fn inv_d_another_node_sees_at_once_what_was_written() {
    let Scene { world, signer, acme, .. } = scene().await;
    let (auth, journal) = world.other_node();
    let (user_id, session_id, claims) = world.user(&acme).await;
    let token = headers(&signer.sign(&claims));
    assert_eq!(code(auth.user(&acme, &token).await), "ok");

    // Everything is cached and unchanged: one look-up of all versions.
    let _ = (journal.versions_asked(), journal.events_read());
    for _ in 0..3 {
        assert_eq!(code(auth.user(&acme, &token).await), "ok");
    }
    assert_eq!((journal.versions_asked(), journal.events_read()), (3, 0));
    assert_eq!(code(auth.admin(&acme, &token, Permission::UsersRead).await), "forbidden");
    assert_eq!((journal.versions_asked(), journal.events_read()), (1, 0));

    // A refusal that is no longer right; only new events are read.
    world.make_admin(user_id).await;
    assert_eq!(code(auth.admin(&acme, &token, Permission::UsersRead).await), "ok");
    assert_eq!((journal.versions_asked(), journal.events_read()), (1, 1));

    // A signing key that this node has never seen is activated, then retired.
    let next = Signer::new(TokenAlgorithm::Es256, "next");
    let other_token = headers(&next.sign(&claims));
    assert_eq!(code(auth.user(&acme, &other_token).await), "unauthenticated");
    let created = domain::app::SigningKeyCreated { public: next.public.clone(), at: None };
    world
        .write(domain::StreamId::app(&acme), vec![domain::app::AppEvent::SigningKeyCreated(created).into()])
        .await;
    world.retire(&acme, "one").await;
    assert_eq!(code(auth.user(&acme, &token).await), "unauthenticated");

    let (other_user, _, claims) = world.user(&acme).await;
    let other_token = headers(&next.sign(&claims));
    let before = code(auth.user(&acme, &other_token).await);
    world.ban(other_user).await;
    assert_eq!((before, code(auth.user(&acme, &other_token).await)), ("ok", "unauthenticated"));
    world.revoke(user_id, session_id).await;
    world.disable(&acme).await;
    assert_eq!(code(auth.user(&acme, &other_token).await), "app_disabled");
    assert_eq!(code(auth.app(&acme).await), "app_disabled");
}
