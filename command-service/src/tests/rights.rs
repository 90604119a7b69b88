//! Power never grows by detours, and what ends access ends what would bring it back: each rule by itself, and random chains
//! of calls of everybody who may do something, but not everything.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use domain::Permission;
use domain::app::App;
use domain::setting_kinds::strong_changes;
use domain::user::{MailboxCommand, User};

use super::*;

const DEFAULT: &str = "/v1/apps/default";
const ADA: &str = "ada@example.com";
const ADMIN: &str = "admin@example.com";
const NEW: &str = "another horse battery";
const CALLBACK: &str = "https://app.example/callback";

/// The status and the code of an answer.
fn said(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.code())
}

impl World {
    async fn key_until(&self, permissions: &[Permission], expires_at: Option<Timestamp>) -> String {
        let mut body = json!({"name": "key", "permissions": permissions});
        if let Some(end) = expires_at {
            body["expires_at"] = json!(end);
        }
        let made = self.by_platform("POST", &format!("{DEFAULT}/admin/api-keys"), Some(body)).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.text("key")
    }

    async fn key_of(&self, permissions: &[Permission]) -> String {
        self.key_until(permissions, None).await
    }

    async fn app(&self) -> App {
        self.service.repository.load::<App>(&AppId::default_app()).await.expect("loads").state.clone()
    }

    async fn user(&self, id: UserId) -> User {
        self.service.repository.load::<User>(&id).await.expect("loads").state.clone()
    }

    /// Redeems the newest magic link: its code.
    async fn code_by(&self, token: &str) -> String {
        let redeemed = self.auth("magic-link/verify", json!({ "token": token })).await;
        assert_eq!(redeemed.status, 303, "{}", redeemed.body);
        code_of(&redeemed).expect("a code")
    }
}

fn code_of(answer: &Answer) -> Option<String> {
    let location = answer.headers.get("location")?.to_str().ok()?;
    Some(location.split_once("code=")?.1.split('&').next()?.to_owned())
}

fn of(user: UserId, route: &str) -> String {
    format!("{DEFAULT}/admin/users/{user}{route}")
}

#[tokio::test]
async fn inv_v_a_limited_key_does_nothing_to_an_admin() {
    let world = World::start().await;
    world.set(json!({"delivery": "app", "redirect_uris": [CALLBACK]})).await;
    let registered = world.register(ADMIN).await;
    let admin = user_id(&registered);
    let token = world.make_admin("default", &admin.to_string(), ADMIN).await;
    let session = world.me(&token).await.text("session_id");
    let key = world.key_of(&Permission::OF_AN_APP).await;
    let before = world.all_events().await;
    for (method, path, body) in [
        ("PATCH", of(admin, ""), Some(json!({"name": "Eve"}))),
        ("POST", of(admin, "/ban"), None),
        ("POST", of(admin, "/unban"), None),
        ("POST", of(admin, "/unlock"), None),
        ("PUT", of(admin, "/roles/editor"), None),
        ("DELETE", of(admin, "/roles/editor"), None),
        ("DELETE", of(admin, "/roles/admin"), None),
        ("DELETE", of(admin, &format!("/sessions/{session}")), None),
        ("POST", of(admin, "/sessions/revoke-all"), None),
        ("POST", of(admin, "/access-tokens"), Some(json!({"duration_minutes": 1}))),
        ("POST", of(admin, "/password-reset"), None),
        ("POST", format!("{DEFAULT}/auth/password-reset/request"), Some(json!({"email": ADMIN}))),
        (
            "POST",
            format!("{DEFAULT}/auth/magic-link"),
            Some(json!({"email": ADMIN, "redirect_uri": CALLBACK})),
        ),
    ] {
        let answer = world.call(method, &path, Some(&key), body).await;
        assert_eq!(said(&answer), (403, "forbidden"), "{method} {path}: {}", answer.body);
    }
    assert_eq!(world.all_events().await, before);
    assert_eq!(world.me(&token).await.status, 200);
    let by_admin = world.call("PATCH", &of(admin, ""), Some(&token), Some(json!({"name": "Me"}))).await;
    assert_eq!(by_admin.status, 200, "who may do everything still does");
}

#[tokio::test]
async fn inv_p_a_limited_key_gives_nobody_more_guesses() {
    let world = World::start().await;
    let ada = user_id(&world.register(ADA).await);
    let key = world.key_of(&[Permission::UsersWrite]).await;
    let (mut evaluated, mut waits) = (0, 0);
    for n in 0..40 {
        evaluated += u32::from(world.login(ADA, &format!("guess {n}")).await.status == 401);
        let unlocked = world.call("POST", &of(ada, "/unlock"), Some(&key), None).await;
        if unlocked.status != 200 {
            assert_eq!(said(&unlocked), (429, "rate_limited"));
            assert!(unlocked.headers.contains_key("retry-after"));
            waits += 1;
        }
        world.clock.advance(SignedDuration::from_secs(1));
    }
    assert_eq!((evaluated, waits), (10, 31));
    assert_eq!(world.events("AccountUnlocked").await, 0);
    assert_eq!(world.by_platform("POST", &of(ada, "/unlock"), None).await.status, 200);
    assert_eq!(world.login(ADA, PASSWORD).await.status, 200);
}

/// What was allowed when a request was made first is not answered again when it would not be any more.
#[tokio::test]
async fn inv_v_a_repeated_request_gives_nothing_of_who_became_an_admin() {
    let world = World::start().await;
    let ada = user_id(&world.register(ADA).await);
    let key = world.key_of(&Permission::OF_AN_APP).await;
    let routes = [
        (of(ada, "/password-reset"), None, 201),
        (of(ada, "/access-tokens"), Some(json!({"duration_minutes": 5})), 201),
        (of(ada, "/ban"), None, 200),
        (of(ada, "/unban"), None, 200),
    ];
    for (n, (path, body, status)) in routes.iter().enumerate() {
        let made = world.call_with("POST", path, Some(&key), body.clone(), Some(&format!("k{n}"))).await;
        assert_eq!(made.status.as_u16(), *status, "{path}: {}", made.body);
    }
    world.make_admin("default", &ada.to_string(), ADA).await;
    for (n, (path, body, _)) in routes.iter().enumerate() {
        let again = world.call_with("POST", path, Some(&key), body.clone(), Some(&format!("k{n}"))).await;
        assert_eq!(said(&again), (403, "forbidden"), "{path}");
    }
}

#[tokio::test]
async fn inv_v_settings_that_open_doors_need_who_may_do_everything() {
    let world = World::start().await;
    let key = world.key_of(&Permission::OF_AN_APP).await;
    let registered = world.register(ADMIN).await;
    let admin = world.make_admin("default", &user_id(&registered).to_string(), ADMIN).await;
    world.set(json!({"redirect_uris": [CALLBACK]})).await;
    let patch = async |bearer: &str, settings: &Value| {
        world.call("PATCH", DEFAULT, Some(bearer), Some(json!({ "settings": settings }))).await
    };
    for strong in [
        json!({"links": {"password_reset": "https://evil.example/reset"}}),
        json!({"redirect_uris": [CALLBACK, "https://evil.example/"]}),
        json!({"redirect_uris": null}),
        json!({"origins": ["https://evil.example"]}),
        json!({"delivery": "app"}),
        json!({"cookies": true}),
        json!({"registration": "closed"}),
        json!({"require_verified_email": true}),
        json!({"token_algorithm": "EdDSA"}),
        json!({"branding": {"sender": "evil@evil.example"}}),
        json!({"branding": {"name": "Acme", "reply_to": "evil@evil.example"}, "access_token_ttl": 60}),
    ] {
        let before = world.app().await;
        let refused = patch(&key, &strong).await;
        assert_eq!(said(&refused), (403, "forbidden"), "{strong}: {}", refused.body);
        assert_eq!(world.app().await.settings, before.settings);
    }
    let weak =
        json!({"access_token_ttl": 60, "locale": "de", "branding": {"name": "Acme"}, "delivery": "platform"});
    let changed = patch(&key, &weak).await;
    assert_eq!(changed.status, 200, "what is named and stays as it is counts for nothing: {}", changed.body);
    let by_admin = patch(&admin, &json!({"links": {"password_reset": CALLBACK}})).await;
    assert_eq!(by_admin.status, 200, "{}", by_admin.body);
}

#[tokio::test]
async fn inv_v_a_key_makes_none_that_outlives_it_and_ends_none_that_is_wider() {
    use Permission::{KeysWrite, UsersRead, UsersWrite};
    let world = World::start().await;
    let end = world.clock.now() + SignedDuration::from_hours(1);
    let keys = format!("{DEFAULT}/admin/api-keys");
    let expiring = world.key_until(&[KeysWrite, UsersRead], Some(end)).await;
    let ask = async |bearer: &str, end: Option<Timestamp>| {
        let mut body = json!({"name": "more", "permissions": ["users:read"]});
        if let Some(end) = end {
            body["expires_at"] = json!(end);
        }
        world.call("POST", &keys, Some(bearer), Some(body)).await
    };
    let second = SignedDuration::from_secs(1);
    for later in [None, Some(end + second), Some(end + SignedDuration::from_hours(1000))] {
        assert_eq!(said(&ask(&expiring, later).await), (403, "forbidden"), "{later:?}");
    }
    for sooner in [end, end - second] {
        let made = ask(&expiring, Some(sooner)).await;
        assert_eq!(made.status, 201, "{}", made.body);
    }
    let lasting = world.key_of(&[KeysWrite, UsersRead]).await;
    assert_eq!(ask(&lasting, None).await.status, 201);

    // The same for the platform's own keys, which make others without an end, too.
    let body = json!({"name": "soon over", "permissions": ["platform"], "expires_at": end});
    let platform = "/v1/apps/platform/admin/api-keys";
    let made = world.by_platform("POST", platform, Some(body)).await;
    let soon_over = made.text("key");
    for path in [platform, &keys] {
        let permissions = if path == platform { "platform" } else { "users:read" };
        let body = json!({"name": "for ever", "permissions": [permissions]});
        let refused = world.call("POST", path, Some(&soon_over), Some(body)).await;
        assert_eq!(said(&refused), (403, "forbidden"), "{path}");
    }

    let body = json!({"name": "w", "permissions": [KeysWrite, UsersWrite]});
    let wider = world.by_platform("POST", &keys, Some(body)).await.text("id");
    let same = ask(&lasting, None).await.text("id");
    let revoke = async |id: &str| world.call("DELETE", &format!("{keys}/{id}"), Some(&lasting), None).await;
    assert_eq!(said(&revoke(&wider).await), (403, "forbidden"));
    assert_eq!(revoke(&same).await.status, 204);
    assert_eq!(world.by_platform("DELETE", &format!("{keys}/{wider}"), None).await.status, 204);
}

#[tokio::test]
async fn inv_v_the_role_admin_ends_what_the_account_had_before() {
    let world = World::start().await;
    world.set(json!({"delivery": "app", "redirect_uris": [CALLBACK]})).await;
    let key = world.key_of(&[Permission::UsersWrite, Permission::TokensCreate]).await;
    let ada = user_id(&world.register(ADA).await);
    let mailed = async |route: &str, body: Value| {
        let asked = world.call("POST", &format!("{DEFAULT}/auth/{route}"), Some(&key), Some(body)).await;
        asked.text("token")
    };
    // All that a key with `users:write` can prepare.
    let reset = mailed("password-reset/request", json!({"email": ADA})).await;
    let body = json!({"token": reset, "new_password": NEW});
    assert_eq!(world.auth("password-reset/confirm", body).await.status, 204);
    let session = world.login(ADA, NEW).await;
    let link = json!({"email": ADA, "redirect_uri": CALLBACK});
    let code = world.code_by(&mailed("magic-link", link.clone()).await).await;
    let by_link = world.auth("exchange", json!({ "code": code })).await;
    let code = world.code_by(&mailed("magic-link", link.clone()).await).await;
    let early = mailed("magic-link", link).await;
    let access = session.text("access_token");
    let body = json!({"new_email": "evil@evil.example", "password": NEW});
    let asked = world.call("POST", &format!("{DEFAULT}/auth/email/change"), Some(&access), Some(body)).await;
    assert_eq!(asked.status, 202, "{}", asked.body);
    let change = world.token("EmailChangeRequested").await;
    let (path, body) = (of(ada, "/access-tokens"), json!({"duration_minutes": 60}));
    let made = world.call("POST", &path, Some(&key), Some(body)).await.text("access_token");
    for token in [&access, &by_link.text("access_token"), &made] {
        assert_eq!(world.me(token).await.status, 200);
    }

    let role = of(ada, "/roles/admin");
    assert_eq!(world.by_platform("PUT", &role, None).await.status, 200, "the link has proven the address");
    for token in [&access, &by_link.text("access_token"), &made] {
        assert_eq!(world.me(token).await.status, 401);
    }
    for refresh in [session.text("refresh_token"), by_link.text("refresh_token")] {
        assert_eq!(world.auth("refresh", json!({ "refresh_token": refresh })).await.status, 401);
    }
    assert_eq!(said(&world.login(ADA, NEW).await), (401, "invalid_credentials"), "the key's password");
    assert_eq!(world.auth("exchange", json!({ "code": code })).await.code(), "invalid_or_expired_code");
    for (route, token) in [("magic-link/verify", early), ("email/change/confirm", change)] {
        let answer = world.auth(route, json!({ "token": token })).await;
        assert_eq!(said(&answer), (400, "invalid_or_expired_token"), "{route}");
    }
    // Whoever reads the mail sets another one.
    world.set(json!({"delivery": "platform"})).await;
    world.auth("password-reset/request", json!({"email": ADA})).await;
    let body = json!({"token": world.token("PasswordResetRequested").await, "new_password": PASSWORD});
    assert_eq!(world.auth("password-reset/confirm", body).await.status, 204);
    assert_eq!(world.login(ADA, PASSWORD).await.body["user"]["roles"], json!(["admin"]));
}

#[tokio::test]
async fn inv_d_nothing_of_before_a_ban_or_the_end_of_all_sessions_lets_anybody_in() {
    for end in ["ban", "by an admin", "by an admin, but one", "by the person", "by the person, but one"] {
        let world = World::start().await;
        world.set(json!({"redirect_uris": [CALLBACK]})).await;
        let registered = world.register(ADA).await;
        let ada = user_id(&registered);
        world.verify("default", ADA).await;
        let access = world.login(ADA, PASSWORD).await.text("access_token");
        let link = json!({"email": ADA, "redirect_uri": CALLBACK});
        world.auth("magic-link", link.clone()).await;
        let code = world.code_by(&world.token("MagicLinkIssued").await).await;
        world.auth("magic-link", link).await;
        let magic = world.token("MagicLinkIssued").await;
        world.auth("password-reset/request", json!({"email": ADA})).await;
        let reset = world.token("PasswordResetRequested").await;
        let body = json!({"new_email": "evil@evil.example", "password": PASSWORD});
        world.call("POST", &format!("{DEFAULT}/auth/email/change"), Some(&access), Some(body)).await;
        let change = world.token("EmailChangeRequested").await;
        let own = format!("{DEFAULT}/auth/sessions/revoke-all");
        let kept = registered.text("session_id");
        let ended = match end {
            "ban" => world.by_platform("POST", &of(ada, "/ban"), None).await,
            "by an admin" => world.by_platform("POST", &of(ada, "/sessions/revoke-all"), None).await,
            "by an admin, but one" => {
                let body = Some(json!({ "exclude": kept }));
                world.by_platform("POST", &of(ada, "/sessions/revoke-all"), body).await
            }
            "by the person" => world.call("POST", &own, Some(&registered.text("access_token")), None).await,
            _ => {
                let body = Some(json!({"exclude_current": true}));
                world.call("POST", &own, Some(&registered.text("access_token")), body).await
            }
        };
        assert_eq!(ended.status, 200, "{end}: {}", ended.body);
        if end == "ban" {
            assert_eq!(world.by_platform("POST", &of(ada, "/unban"), None).await.status, 200);
        }
        let exchanged = world.auth("exchange", json!({ "code": code })).await;
        assert_eq!(said(&exchanged), (400, "invalid_or_expired_code"), "{end}");
        for (route, body) in [
            ("magic-link/verify", json!({ "token": magic })),
            ("email/change/confirm", json!({ "token": change })),
            ("password-reset/confirm", json!({"token": reset, "new_password": NEW})),
        ] {
            let answer = world.auth(route, body).await;
            assert_eq!(said(&answer), (400, "invalid_or_expired_token"), "{end}: {route}");
        }
        assert_eq!(world.me(&access).await.status, 401, "{end}");
        let kept = if end.ends_with("one") { 200 } else { 401 };
        assert_eq!(world.me(&registered.text("access_token")).await.status.as_u16(), kept, "{end}");
        assert_eq!(world.login(ADA, PASSWORD).await.status, 200, "{end}: the password still does");
    }
}

/// A session that is over must not come back as the one that is left.
#[tokio::test]
async fn inv_d_no_session_is_revived_by_being_left_out() {
    let world = World::start().await;
    let first = world.register(ADA).await;
    let ada = user_id(&first);
    let other = world.register("bob@example.com").await;
    let revoke = async |exclude: &str| {
        let body = Some(json!({ "exclude": exclude }));
        world.by_platform("POST", &of(ada, "/sessions/revoke-all"), body).await
    };
    let second = world.login(ADA, PASSWORD).await;
    assert_eq!(revoke(&second.text("session_id")).await.body["revoked"], 1);
    for exclude in [first.text("session_id"), other.text("session_id")] {
        assert_eq!(revoke(&exclude).await.status, 200);
        assert_eq!(world.me(&first.text("access_token")).await.status, 401);
        assert_eq!(world.me(&second.text("access_token")).await.status, 401);
    }
    assert_eq!(world.me(&other.text("access_token")).await.status, 200);
}

#[tokio::test]
async fn who_reads_the_mail_can_have_an_account_erased_that_somebody_else_made() {
    let world = World::start().await;
    world.set(json!({"redirect_uris": [CALLBACK]})).await;
    let squatter = world.register(ADA).await;
    let ada = user_id(&squatter);
    let link = json!({"email": ADA, "redirect_uri": CALLBACK});
    world.auth("magic-link", link).await;
    let magic = world.token("MagicLinkIssued").await;
    world.auth("email-verification/request", json!({"email": ADA})).await;
    let token = world.token("EmailVerificationRequested").await;
    let page = world.get(&format!("email-verification?token={token}")).await;
    assert!(page.page.contains("The account was made on 2027-01-15 08:00 UTC"), "{}", page.page);
    assert!(page.page.contains("/auth/email-verification/disown\""), "{}", page.page);
    let page = world.get(&format!("email-verification/disown?token={token}")).await;
    assert!(page.page.contains("Delete the account"), "{}", page.page);
    assert_eq!(world.me(&squatter.text("access_token")).await.status, 200, "looking changes nothing");

    let gone = world.auth("email-verification/disown", json!({ "token": token })).await;
    assert_eq!((gone.status.as_u16(), &gone.body["deleted"]), (200, &json!(true)), "{}", gone.body);
    assert_eq!(world.events("UserErased").await, 1);
    assert!(world.service.key_store.is_erased(ada).await.expect("reads"));
    assert_eq!(world.me(&squatter.text("access_token")).await.status, 401);
    let refresh = json!({"refresh_token": squatter.text("refresh_token")});
    assert_eq!(world.auth("refresh", refresh).await.status, 401);
    assert_eq!(said(&world.login(ADA, PASSWORD).await), (401, "invalid_credentials"));
    for route in ["email-verification/disown", "email-verification/confirm", "magic-link/verify"] {
        let token = if route.starts_with("magic") { &magic } else { &token };
        let again = world.auth(route, json!({ "token": token })).await;
        assert_eq!(said(&again), (400, "invalid_or_expired_token"), "{route}");
    }
    assert_eq!(world.by_platform("POST", &of(ada, "/unban"), None).await.status, 404);
    let all = world.journal.read_all(0, 1000).await.expect("reads");
    for recorded in all.iter().filter(|recorded| recorded.person == Some(ada)) {
        let event = world.service.repository.decode(recorded).await.expect("decodes");
        assert!(event.personal().is_none_or(domain::Personal::is_empty), "{}", recorded.name);
    }
    let owner = world.register(ADA).await;
    assert_eq!(owner.status, 201, "the address is free: {}", owner.body);

    // Where the address is proven by now, there is nothing to disown.
    world.auth("email-verification/request", json!({"email": ADA})).await;
    let token = world.token("EmailVerificationRequested").await;
    assert_eq!(world.auth("email-verification/confirm", json!({ "token": token })).await.status, 200);
    let late = world.auth("email-verification/disown", json!({ "token": token })).await;
    assert_eq!(said(&late), (400, "invalid_or_expired_token"));
    assert_eq!(world.me(&owner.text("access_token")).await.status, 200);
}

/// A crash between the event and the end of the key.
#[tokio::test]
async fn an_erasure_that_was_cut_short_is_finished() {
    let world = World::start().await;
    let ada = user_id(&world.register(ADA).await);
    world.auth("email-verification/request", json!({"email": ADA})).await;
    let context = Context { idempotency: None, ..world.context_of_system() };
    let at = context.at;
    let (reads, user) = Reads::one::<User>(&ada);
    let disown = world.service.dispatcher.run(context, reads, move |work| {
        work.execute(user, MailboxCommand::Disown { generation: 1, at }.into())
    });
    disown.await.expect("disowns");
    assert!(!world.service.key_store.is_erased(ada).await.expect("reads"));
    world.service.finish_erasures().await.expect("finishes");
    assert!(world.service.key_store.is_erased(ada).await.expect("reads"));
}

#[tokio::test]
async fn the_owner_of_a_mailbox_takes_an_account_over_without_what_a_squatter_wrote() {
    for way in ["link", "reset"] {
        let world = World::start().await;
        world.set(json!({"redirect_uris": [CALLBACK]})).await;
        let registration = json!({
            "email": ADA, "password": PASSWORD, "name": "Eve", "phone": "+1 900", "avatar_url": "https://evil.example/e.png",
        });
        let squatter = world.auth("register", registration).await;
        let tokens = if way == "link" {
            world.auth("magic-link", json!({"email": ADA, "redirect_uri": CALLBACK})).await;
            let code = world.code_by(&world.token("MagicLinkIssued").await).await;
            world.auth("exchange", json!({ "code": code })).await
        } else {
            world.auth("password-reset/request", json!({"email": ADA})).await;
            let token = world.token("PasswordResetRequested").await;
            world.auth("password-reset/confirm", json!({"token": token, "new_password": NEW})).await;
            world.login(ADA, NEW).await
        };
        let me = world.me(&tokens.text("access_token")).await;
        for member in ["name", "phone", "avatar_url"] {
            assert_eq!(me.body[member], Value::Null, "{way}: {member}");
        }
        assert_eq!(me.body["email_verified"], true);
        assert_eq!(world.me(&squatter.text("access_token")).await.status, 401, "{way}");
        assert_eq!(world.login(ADA, PASSWORD).await.status, 401, "{way}");
    }
}

#[tokio::test]
async fn a_change_of_algorithm_leaves_no_endless_list_of_keys() {
    let world = World::start().await;
    let token = world.register(ADA).await.text("access_token");
    let published = async || {
        let set = world.call("GET", &format!("{DEFAULT}/.well-known/jwks.json"), None, None).await;
        set.body["keys"].as_array().expect("keys").len()
    };
    for (n, algorithm) in ["EdDSA", "ES256"].into_iter().cycle().take(10).enumerate() {
        world.set(json!({ "token_algorithm": algorithm })).await;
        assert!(published().await <= 5, "{n}: {}", published().await);
        let status = world.me(&token).await.status.as_u16();
        assert_eq!(status, if n < 3 { 200 } else { 401 }, "the oldest of more than three make room");
    }
    assert_eq!(published().await, 5);
    world.clock.advance(SignedDuration::from_secs(86_401));
    assert_eq!(published().await, 2, "the others are of no use to anybody");
    let fresh = world.login(ADA, PASSWORD).await.text("access_token");
    assert_eq!(world.me(&fresh).await.status, 200);
}

/// splitmix64: the same chain for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("less than n")
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// Who tries: what they hold from the start, and what they may do.
#[derive(Clone, Debug)]
enum Who {
    Nobody,
    User,
    Key(Vec<Permission>),
    /// With an end an hour from now.
    ExpiringKey(Vec<Permission>),
    /// May do everything in the app, and nothing outside of it.
    AppAdmin,
}

const EVIL: &str = "evil@evil.example";
const EVIL_PASSWORD: &str = "evil horse battery";

/// Somebody's chain of calls.
struct Chain {
    world: World,
    random: Random,
    who: Who,
    end: Timestamp,
    admin: UserId,
    admin_token: String,
    victim: UserId,
    /// Whether the victim is an admin just now.
    promoted: bool,
    before: App,
    platform_keys: usize,
    /// What they have got hold of.
    bearers: Vec<String>,
    mailed: Vec<String>,
    codes: Vec<String>,
    refresh: Vec<String>,
    ids: Vec<String>,
    done: Vec<String>,
    read: u64,
}

impl Chain {
    async fn begin(who: Who, seed: u64) -> Self {
        let world = World::start().await;
        let mut random = Random(seed);
        let delivery = *random.pick(&["app", "platform"]);
        world.set(json!({"delivery": delivery, "redirect_uris": [CALLBACK]})).await;
        let end = world.clock.now() + SignedDuration::from_hours(1);
        let admin = user_id(&world.register(ADMIN).await);
        let admin_token = world.make_admin("default", &admin.to_string(), ADMIN).await;
        let victim = user_id(&world.register(ADA).await);
        world.key_of(&Permission::OF_AN_APP).await;
        let other = json!({"app_id": "other", "name": "Other"});
        assert_eq!(world.by_platform("POST", "/v1/apps", Some(other)).await.status, 201);
        let mut bearers = Vec::new();
        match &who {
            Who::Nobody => {}
            Who::User => bearers.push(world.register(EVIL).await.text("access_token")),
            Who::Key(permissions) => bearers.push(world.key_of(permissions).await),
            Who::ExpiringKey(permissions) => bearers.push(world.key_until(permissions, Some(end)).await),
            Who::AppAdmin => {
                let evil = user_id(&world.register(EVIL).await);
                bearers.push(world.make_admin("default", &evil.to_string(), EVIL).await);
            }
        }
        let before = world.app().await;
        let platform_keys = platform_keys(&world).await;
        let read = world.journal.head().await.expect("reads");
        let ids = before.api_keys.keys().map(ToString::to_string).collect();
        Self {
            world,
            random,
            who,
            end,
            admin,
            admin_token,
            victim,
            promoted: false,
            before,
            platform_keys,
            bearers,
            mailed: vec![],
            codes: vec![],
            refresh: vec![],
            ids,
            done: vec![],
            read,
        }
    }

    async fn run(mut self, steps: usize) {
        for _ in 0..steps {
            if self.random.one_in(10) {
                self.others_act().await;
            } else {
                self.act().await;
            }
            self.collect_mail().await;
            self.check().await;
        }
    }

    /// What people who may do everything do meanwhile, as anybody could make use of it.
    async fn others_act(&mut self) {
        let role = of(self.victim, "/roles/admin");
        let what = match self.random.below(4) {
            0 | 1 if !self.promoted => {
                if self.world.user(self.victim).await.banned {
                    self.world.by_platform("POST", &of(self.victim, "/unban"), None).await;
                }
                // The address may be another by now; whoever reads its mail confirms it.
                let user = self.world.user(self.victim).await;
                if let Some(email) = user.email.filter(|_| !user.email_verified) {
                    self.world.verify("default", email.as_str()).await;
                }
                let granted = self.world.by_platform("PUT", &role, None).await;
                self.promoted = granted.status == 200;
                "the victim becomes an admin"
            }
            0 | 1 => {
                self.world.by_platform("DELETE", &role, None).await;
                self.promoted = false;
                "the victim is no admin any more"
            }
            2 => {
                self.world.by_platform("POST", &of(self.victim, "/ban"), None).await;
                self.world.by_platform("POST", &of(self.victim, "/unban"), None).await;
                "the victim is banned and unbanned"
            }
            _ => {
                self.world.login(ADA, PASSWORD).await;
                "the victim logs in"
            }
        };
        self.done.push(what.to_owned());
    }

    fn email(&mut self) -> &'static str {
        self.random.pick::<&str>(&[ADA, ADMIN, EVIL, "fresh@evil.example"])
    }

    fn password(&mut self) -> &'static str {
        self.random.pick::<&str>(&[EVIL_PASSWORD, EVIL_PASSWORD, "wrong horse battery"])
    }

    fn text(of: &[String], random: &mut Random) -> String {
        if of.is_empty() { "none".to_owned() } else { random.pick(of).clone() }
    }

    fn settings(&mut self) -> Value {
        self.random
            .pick(&[
                json!({"links": {"password_reset": "https://evil.example/r"}}),
                json!({"redirect_uris": ["https://evil.example/"]}),
                json!({"origins": ["https://evil.example"]}),
                json!({"delivery": "app"}),
                json!({"require_verified_email": true}),
                json!({"registration": "closed"}),
                json!({"branding": {"reply_to": EVIL}}),
                json!({"token_algorithm": "EdDSA"}),
                json!({"access_token_ttl": 7}),
                json!({"locale": "de"}),
            ])
            .clone()
    }

    fn on_user(&mut self) -> (&'static str, String, Option<Value>) {
        let user = *self.random.pick(&[self.admin, self.victim]);
        let route = |route: &str| of(user, route);
        match self.random.below(12) {
            0 => ("PATCH", route(""), Some(json!({"name": "Eve"}))),
            1 => ("POST", route("/ban"), None),
            2 => ("POST", route("/unban"), None),
            3 => ("POST", route("/unlock"), None),
            4 => ("PUT", route("/roles/admin"), None),
            5 => ("DELETE", route("/roles/admin"), None),
            6 => ("PUT", route("/roles/editor"), None),
            7 => ("POST", route("/sessions/revoke-all"), None),
            8 | 9 => ("POST", route("/access-tokens"), Some(json!({"duration_minutes": 30}))),
            _ => ("POST", route("/password-reset"), None),
        }
    }

    fn on_app(&mut self) -> (&'static str, String, Option<Value>) {
        let keys = format!("{DEFAULT}/admin/api-keys");
        match self.random.below(7) {
            0 | 1 => ("PATCH", DEFAULT.to_owned(), Some(json!({"settings": self.settings()}))),
            2 | 3 => {
                let permissions: Vec<_> = (0..2).map(|_| *self.random.pick(&Permission::OF_AN_APP)).collect();
                let mut body = json!({"name": "more", "permissions": permissions});
                if self.random.one_in(2) {
                    let hours = i64::try_from(self.random.below(3)).expect("small");
                    body["expires_at"] = json!(self.world.clock.now() + SignedDuration::from_hours(hours));
                }
                ("POST", keys, Some(body))
            }
            4 => ("DELETE", format!("{keys}/{}", Self::text(&self.ids, &mut self.random)), None),
            5 => {
                let roles = if self.random.one_in(2) { json!(["admin"]) } else { json!([]) };
                let body = json!({"email": self.email(), "password": EVIL_PASSWORD, "roles": roles});
                ("POST", format!("{DEFAULT}/admin/users"), Some(body))
            }
            _ => {
                let path = self.random.pick(&[
                    "/v1/apps/platform/admin/api-keys",
                    "/v1/apps/other/admin/api-keys",
                    "/v1/apps",
                ]);
                ("POST", (*path).to_owned(), Some(json!({"name": "x", "permissions": ["platform"]})))
            }
        }
    }

    fn as_anybody(&mut self) -> (&'static str, String, Option<Value>) {
        let auth = |route: &str| format!("{DEFAULT}/auth/{route}");
        let (email, password) = (self.email(), self.password());
        let mailed = Self::text(&self.mailed, &mut self.random);
        let (route, body) = match self.random.below(16) {
            0 => ("register", json!({"email": email, "password": EVIL_PASSWORD})),
            1 | 2 => ("login", json!({"email": email, "password": password})),
            3 => ("password-reset/request", json!({ "email": email })),
            4 | 5 => ("password-reset/confirm", json!({"token": mailed, "new_password": EVIL_PASSWORD})),
            6 => ("email-verification/request", json!({ "email": email })),
            7 => ("email-verification/confirm", json!({ "token": mailed })),
            8 => ("email-verification/disown", json!({ "token": mailed })),
            9 => ("magic-link", json!({"email": email, "redirect_uri": CALLBACK})),
            10 => ("magic-link/verify", json!({ "token": mailed })),
            11 => ("exchange", json!({"code": Self::text(&self.codes, &mut self.random)})),
            12 => ("refresh", json!({"refresh_token": Self::text(&self.refresh, &mut self.random)})),
            13 => ("email/change", json!({"new_email": "other@evil.example", "password": password})),
            14 => ("email/change/confirm", json!({ "token": mailed })),
            _ => ("password/change", json!({"old_password": password, "new_password": EVIL_PASSWORD})),
        };
        ("POST", auth(route), Some(body))
    }

    async fn act(&mut self) {
        let (method, path, body) = match self.random.below(10) {
            0..3 => self.on_user(),
            3..5 => self.on_app(),
            _ => self.as_anybody(),
        };
        // What they began with, mostly; else what they came by, or nothing.
        let bearer = match self.random.below(4) {
            0 if !self.bearers.is_empty() => Some(self.random.pick(&self.bearers).clone()),
            1 => None,
            _ => self.bearers.first().cloned(),
        };
        let key = self.random.one_in(3).then(|| format!("k{}", self.random.below(3)));
        let answer =
            self.world.call_with(method, &path, bearer.as_deref(), body.clone(), key.as_deref()).await;
        let status = answer.status.as_u16();
        self.done.push(format!(
            "{method} {path} {} as {} -> {status} {}",
            body.unwrap_or_default(),
            bearer.map_or_else(|| "nobody".to_owned(), |it| it.chars().take(12).collect()),
            answer.code()
        ));
        assert!(status < 500, "{}: {}", self.story(), answer.body);
        let text = |member: &str| answer.body[member].as_str().map(str::to_owned);
        self.bearers.extend(text("access_token"));
        self.bearers.extend(text("key"));
        self.mailed.extend(text("token"));
        self.refresh.extend(text("refresh_token"));
        self.ids.extend(text("key").and(text("id")));
        self.codes.extend(code_of(&answer));
    }

    /// They read the mail of addresses of their own.
    async fn collect_mail(&mut self) {
        for recorded in self.world.journal.read_all(self.read, 1000).await.expect("reads") {
            self.read = recorded.position;
            let event = self.world.service.repository.decode(&recorded).await.expect("decodes");
            let is_theirs = |mail: &domain::mail::Mail| mail.to.as_str().ends_with("@evil.example");
            if domain::mail::mails_of(&event).iter().any(is_theirs) {
                self.mailed.extend(self.world.service.tokens.of_event(&event));
            }
        }
    }

    fn story(&self) -> String {
        format!("{:?}\n{}", self.who, self.done.join("\n"))
    }

    fn permissions(&self) -> &[Permission] {
        match &self.who {
            Who::Key(permissions) | Who::ExpiringKey(permissions) => permissions,
            Who::AppAdmin => &Permission::OF_AN_APP,
            Who::Nobody | Who::User => &[],
        }
    }

    async fn check(&mut self) {
        let app = self.world.app().await;
        assert_eq!(platform_keys(&self.world).await, self.platform_keys, "{}", self.story());
        let other = AppId::parse("other").expect("valid");
        let other = self.world.service.repository.load::<App>(&other).await.expect("loads");
        assert!(other.state.api_keys.is_empty() && !other.state.disabled, "{}", self.story());
        if matches!(self.who, Who::AppAdmin) {
            return;
        }
        assert_eq!(strong_changes(&self.before.settings, &app.settings), [""; 0], "{}", self.story());
        for (id, key) in &app.api_keys {
            if self.before.api_keys.contains_key(id) {
                continue;
            }
            let narrow = key.permissions.iter().all(|permission| self.permissions().contains(permission));
            let brief =
                !matches!(self.who, Who::ExpiringKey(_)) || key.expires_at.is_some_and(|end| end <= self.end);
            assert!(narrow && brief, "a wider key: {key:?}\n{}", self.story());
        }
        for (id, key) in &self.before.api_keys {
            let wider = key.permissions.iter().any(|permission| !self.permissions().contains(permission));
            assert!(!wider || app.api_keys.contains_key(id), "a wider key is gone\n{}", self.story());
        }
        let admin = self.world.user(self.admin).await;
        assert!(
            admin.is_admin() && !admin.banned && admin.name.as_deref() == Some("Ada"),
            "{}",
            self.story()
        );
        assert_eq!(self.world.me(&self.admin_token).await.status, 200, "{}", self.story());
        assert_eq!(self.world.user(self.victim).await.is_admin(), self.promoted, "{}", self.story());
        // Keys with these can let themselves in as a user who is no admin: it is what they are for.
        let may_enter = self
            .permissions()
            .iter()
            .any(|it| matches!(it, Permission::TokensCreate | Permission::UsersWrite));
        for bearer in self.bearers.iter().rev().filter(|it| !it.starts_with("wwk_")).take(8) {
            let me = self.world.me(bearer).await;
            if me.status != 200 {
                continue;
            }
            let roles = me.body["roles"].as_array().expect("roles");
            assert!(!roles.contains(&json!("admin")), "a token of an admin\n{}", self.story());
            let is_victims = me.body["id"] == json!(self.victim.0);
            assert!(!is_victims || may_enter, "a session of somebody else\n{}", self.story());
        }
    }
}

async fn platform_keys(world: &World) -> usize {
    let platform = AppId::platform();
    world.service.repository.load::<App>(&platform).await.expect("loads").state.api_keys.len()
}

/// Random chains of calls never end in what the caller may not do directly: a token of an admin, a wider or longer key,
/// another person's session, a setting of the stronger kind. `INV_V_SEED` repeats a run, `INV_V_STEPS` makes it longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_v_a_right_never_grows_by_a_detour() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("INV_V_SEED").unwrap_or_else(|| RandomState::new().hash_one(()));
    let steps = usize::try_from(number("INV_V_STEPS").unwrap_or(40)).expect("a number of steps");
    println!("INV_V_SEED={seed}");
    let mut callers = vec![Who::Nobody, Who::User, Who::AppAdmin];
    callers.extend(Permission::OF_AN_APP.map(|permission| Who::Key(vec![permission])));
    callers.push(Who::Key(Permission::OF_AN_APP.into()));
    callers.push(Who::ExpiringKey(vec![Permission::KeysWrite, Permission::UsersWrite]));
    callers.push(Who::ExpiringKey(Permission::OF_AN_APP.into()));
    let chains = callers
        .into_iter()
        .zip(seed..)
        .map(|(who, seed)| tokio::spawn(async move { Chain::begin(who, seed).await.run(steps).await }));
    for chain in futures::future::join_all(chains.collect::<Vec<_>>()).await {
        chain.expect("INV_V_SEED above repeats it");
    }
}

/// Commands answer with the person: one that changes nothing is a way to read them, and leaves as much behind.
#[tokio::test]
async fn a_command_that_changes_nothing_is_written_down_as_a_look() {
    for (method, route, body, idempotent) in [
        ("PATCH", "", Some(json!({})), false),
        ("POST", "/unban", None, false),
        ("POST", "/unlock", None, false),
        ("DELETE", "/roles/editor", None, false),
        ("POST", "/ban", None, true),
    ] {
        let world = World::start().await;
        let ada = user_id(&world.register(ADA).await);
        let key = world.key_of(&[Permission::UsersWrite]).await;
        let looks = async || {
            let events = world.journal.read_all(0, 100_000).await.expect("reads");
            events
                .iter()
                .filter(|event| event.name == "PersonalDataRead" && event.person == Some(ada))
                .count()
        };
        for call in 1..=3 {
            let mut request = Request::builder().method(method).uri(of(ada, route));
            request = request.header("authorization", format!("Bearer {key}"));
            if idempotent {
                request = request.header("idempotency-key", "once");
            }
            let content = body.as_ref().map(Value::to_string);
            if content.is_some() {
                request = request.header("content-type", "application/json");
            }
            let request = request.body(content.map_or_else(Body::empty, Body::from)).expect("a request");
            let answer = world.send(request).await;
            assert_eq!(answer.body["email"], ADA, "{method} {route}: {}", answer.body);
            // Once in an hour. What has an event of its own needs no other.
            assert_eq!(looks().await, usize::from(!idempotent || call > 1), "{method} {route}: call {call}");
        }
    }
}

/// The name of the product, or else that of the app, stands in each mail next to the token, and mails show links in plain text.
#[tokio::test]
async fn inv_v_a_limited_key_puts_no_link_into_mails() {
    let world = World::start().await;
    let key = world.key_of(&[Permission::SettingsWrite]).await;
    let set = async |key: &str, body: Value| world.call("PATCH", DEFAULT, Some(key), Some(body)).await.status;
    for name in
        ["https://evil.example/reset", "Locked: see evil.example/reset", "www.evil.example", "a@evil.example"]
    {
        assert_eq!(set(&key, json!({ "name": name })).await, 403, "{name}");
        assert_eq!(set(&key, json!({"settings": {"branding": {"name": name}}})).await, 403, "{name}");
    }
    for body in [json!({"name": "Acme Inc."}), json!({"settings": {"branding": {"name": "Acme Inc."}}})] {
        assert_eq!(set(&key, body.clone()).await, 200, "{body}");
    }
    // A name that the platform gave stays.
    let platform = world.key.expose_secret();
    let named = json!({"name": "Acme.com", "settings": {"branding": {"name": "Acme.com"}}});
    assert_eq!(set(platform, named.clone()).await, 200);
    let mut again = named;
    again["settings"]["locale"] = json!("de");
    assert_eq!(set(&key, again).await, 200);
}
