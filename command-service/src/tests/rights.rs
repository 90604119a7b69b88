//! Power never grows by detours, and what ends access ends what would bring it back: each rule by itself, and random chains
//! of calls by limited callers.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use domain::Permission;
use domain::app::App;
use domain::setting_kinds::strong_changes;
use domain::user::{MailboxCommand, User};

use super::*;

mod chains;
mod ended;

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

/// A request allowed at first must not be replayed once it would be refused.
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
        json!({"redirect_uris": []}),
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

    // The same applies to platform keys, which can also issue keys without expiry.
    let body = json!({"name": "soon over", "permissions": ["platform"], "expires_at": end});
    let platform = "/v1/apps/platform/admin/api-keys";
    let made = world.by_platform("POST", platform, Some(body)).await;
    let soon_over = made.text("key");
    for path in [platform, &keys] {
        let permissions = if path == platform { "platform" } else { "users:read" };
        let body = json!({"name": "endless", "permissions": [permissions]});
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
    assert!(page.page.contains("The account was created on 2027-01-15 08:00 UTC"), "{}", page.page);
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

    // Once the address is verified, disowning is refused.
    world.auth("email-verification/request", json!({"email": ADA})).await;
    let token = world.token("EmailVerificationRequested").await;
    assert_eq!(world.auth("email-verification/confirm", json!({ "token": token })).await.status, 200);
    let late = world.auth("email-verification/disown", json!({ "token": token })).await;
    assert_eq!(said(&late), (400, "invalid_or_expired_token"));
    assert_eq!(world.me(&owner.text("access_token")).await.status, 200);
}

/// A crash between the event and the destruction of the subject key.
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
    event_store::erase::finish(&world.service.repository).await.expect("finishes");
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
    world.set(json!({ "key_propagation": 0 })).await;
    for (n, algorithm) in ["EdDSA", "ES256"].into_iter().cycle().take(40).enumerate() {
        world.set(json!({ "token_algorithm": algorithm })).await;
        assert!(published().await <= 15, "{n}: {}", published().await);
        assert_eq!(world.me(&token).await.status, 200, "{n}: a key stays as long as its tokens");
        let fresh = world.login(ADA, PASSWORD).await.text("access_token");
        assert_eq!(world.me(&fresh).await.status, 200, "{n}");
    }
    world.clock.advance(SignedDuration::from_secs(2 * 86_402));
    assert_eq!(published().await, 2, "the tokens of the others have expired");
    let fresh = world.login(ADA, PASSWORD).await.text("access_token");
    assert_eq!(world.me(&fresh).await.status, 200);
}

/// Commands answer with the person's data: one that changes nothing is a read, and is recorded as one.
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
            // Once an hour. A command with an event of its own needs no other.
            assert_eq!(looks().await, usize::from(!idempotent || call > 1), "{method} {route}: call {call}");
        }
    }
}

/// The product's name, or else the app's, is next to the token in each mail, and mail clients turn text that looks like a link
/// into one.
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
    // A name set by the platform stays.
    let platform = world.key.expose_secret();
    let named = json!({"name": "Acme.com", "settings": {"branding": {"name": "Acme.com"}}});
    assert_eq!(set(platform, named.clone()).await, 200);
    let mut again = named;
    again["settings"]["locale"] = json!("de");
    assert_eq!(set(&key, again).await, 200);
}

#[tokio::test]
async fn inv_v_tokens_for_tests_are_few_and_end_no_session_of_the_person() {
    let world = World::start().await;
    let registered = world.register(ADA).await;
    let ada = user_id(&registered);
    let key = world.key_of(&[Permission::TokensCreate]).await;
    let path = of(ada, "/access-tokens");
    let body = json!({"duration_minutes": 60});
    let make = async |n: usize| {
        world.call_with("POST", &path, Some(&key), Some(body.clone()), Some(&format!("k{n}"))).await
    };
    let mut tokens = Vec::new();
    for n in 0..SESSIONS.get() {
        world.clock.advance(SignedDuration::from_secs(1));
        let token = make(n).await;
        assert_eq!(token.status, 201, "{}", token.body);
        tokens.push(token.text("access_token"));
    }
    let most = SESSIONS.get() / 10;
    assert_eq!(world.service.claimed_sessions(ada).await.expect("reads").len(), most + 1);
    assert_eq!(
        world.me(&registered.text("access_token")).await.status,
        200,
        "the person's own session stays"
    );
    for (n, token) in tokens.iter().enumerate() {
        let lives = n >= SESSIONS.get() - most;
        assert_eq!(world.me(token).await.status == 200, lives, "{n}");
    }
    // What is over is not given again.
    assert_eq!(said(&make(0).await), (401, "session_revoked"));
    assert_eq!(make(SESSIONS.get() - 1).await.status, 201);
}

/// A server gets the tokens that it mails itself, and no other: those of mails show who reads the mailbox.
#[tokio::test]
async fn inv_v_a_token_that_is_mailed_is_handed_to_no_server() {
    use crate::mailed_tokens::request::MailRequest;
    use domain::decisions::Wanted;
    use domain::user::ResetReason;
    use http_kit::cookies::Credentials;
    use http_kit::limits::MailPurpose;
    use http_kit::request::RequestContext;
    let world = World::start().await;
    let ada = user_id(&world.register(ADA).await);
    let key = world.key_of(&[Permission::UsersWrite]).await;
    let mut headers = http::HeaderMap::new();
    headers.insert("authorization", format!("Bearer {key}").parse().expect("a header"));
    let credentials = Credentials::new(&http::Method::POST, &headers);
    let request = RequestContext {
        request_id: "r".into(),
        correlation_id: world.clock.new_id(),
        traceparent: None,
        client: Client::default(),
        address: None,
        idempotency_key: None,
    };
    let (app_id, email) = (AppId::default_app(), Email::parse(ADA).expect("valid"));
    for (delivery, is_handed_out) in [("app", true), ("platform", false)] {
        world.set(json!({"delivery": "app"})).await;
        let purpose = MailPurpose::PasswordReset;
        let asked = MailRequest::new(&world.service, &app_id, &request, &credentials, None, purpose).await;
        let asked = asked.map_err(|problem| problem.code()).expect("may ask");
        // While the request is on its way.
        world.set(json!({ "delivery": delivery })).await;
        let wanted = Wanted::PasswordReset(ResetReason::Forgotten);
        let answer = asked.run_for_token(wanted, Some(ada), &email, &request).await;
        let answer = serde_json::to_value(answer.map_err(|problem| problem.code()).expect("is accepted"));
        assert_eq!(answer.expect("JSON")["token"].is_string(), is_handed_out, "{delivery}");
    }
    assert_eq!(world.events("PasswordResetRequested").await, 2);
}
