//! The admin routes in process: permissions and effects.

use domain::Permission;

use super::*;

mod keys;

const ACME: &str = "/v1/apps/acme";

/// The app `acme` with a user and an admin, the app `other` with a user, and keys for each.
struct Stage {
    world: World,
    platform: String,
    user: String,
    user_token: String,
    admin: String,
    admin_token: String,
    stranger: String,
    foreign_key: String,
}

impl Stage {
    async fn set() -> Self {
        let world = World::start().await;
        let platform = world.key.expose_secret().to_owned();
        for app in ["acme", "other"] {
            let body = json!({"app_id": app, "name": app});
            let made = world.call("POST", "/v1/apps", Some(&platform), Some(body)).await;
            assert_eq!(made.status, 201, "{}", made.body);
        }
        let (user, user_token) = register(&world, "acme", "ada@example.com").await;
        let (admin, _) = register(&world, "acme", "admin@example.com").await;
        let admin_token = world.make_admin("acme", &admin, "admin@example.com").await;
        let (stranger, _) = register(&world, "other", "ada@example.com").await;
        let mut stage = Self {
            world,
            platform,
            user,
            user_token,
            admin,
            admin_token,
            stranger,
            foreign_key: String::new(),
        };
        stage.foreign_key = stage.key("other", &Permission::OF_AN_APP).await;
        stage
    }

    async fn key(&self, app: &str, permissions: &[Permission]) -> String {
        let body = json!({"name": "k", "permissions": permissions});
        let made = self.platform("POST", &format!("/v1/apps/{app}/admin/api-keys"), Some(body)).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.text("key")
    }

    async fn platform(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.world.call(method, path, Some(&self.platform), body).await
    }

    async fn post(&self, route: &str, body: Value) -> Answer {
        self.platform("POST", &format!("{ACME}/admin/users/{}/{route}", self.user), Some(body)).await
    }

    async fn login(&self) -> Answer {
        let body = json!({"email": "ada@example.com", "password": PASSWORD});
        self.world.call("POST", &format!("{ACME}/auth/login"), None, Some(body)).await
    }

    async fn me(&self, token: &str) -> u16 {
        self.world.call("GET", &format!("{ACME}/auth/me"), Some(token), None).await.status.as_u16()
    }
}

async fn register(world: &World, app: &str, email: &str) -> (String, String) {
    let body = json!({"email": email, "password": PASSWORD});
    let answer = world.call("POST", &format!("/v1/apps/{app}/auth/register"), None, Some(body)).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    (answer.body["user"]["id"].as_str().expect("an id").to_owned(), answer.text("access_token"))
}

/// Each route with its callers: platform key, key with the permission, key with all others, admin, user, key of another
/// app, unauthenticated.
#[tokio::test]
async fn every_route_lets_in_whom_it_should() {
    use Permission::{KeysWrite, SettingsWrite, TokensCreate, UsersWrite};
    const OWN: [u16; 6] = [0, 403, 0, 403, 404, 401];
    const PLATFORM: [u16; 6] = [403, 403, 401, 401, 403, 401];
    let stage = Stage::set().await;
    let (target, _) = register(&stage.world, "acme", "target@example.com").await;
    let user = format!("{ACME}/admin/users/{target}");
    let absent = uuid::Uuid::from_u128(1);
    let new_key = json!({"name": "x", "permissions": ["keys:write"]});
    let routes = [
        ("GET", "/v1/apps".to_owned(), None, 200, SettingsWrite, PLATFORM),
        (
            "POST",
            "/v1/apps".to_owned(),
            Some(json!({"app_id": "new", "name": "n"})),
            201,
            SettingsWrite,
            PLATFORM,
        ),
        ("GET", ACME.to_owned(), None, 200, SettingsWrite, [0, 200, 0, 403, 404, 401]),
        ("PATCH", ACME.to_owned(), Some(json!({"name": "n"})), 200, SettingsWrite, OWN),
        ("POST", format!("{ACME}/enable"), None, 200, SettingsWrite, PLATFORM),
        ("POST", format!("{ACME}/admin/users"), Some(json!({"email": "@"})), 201, UsersWrite, OWN),
        ("PATCH", user.clone(), Some(json!({"name": "n"})), 200, UsersWrite, OWN),
        ("POST", format!("{user}/unban"), None, 200, UsersWrite, OWN),
        ("POST", format!("{user}/unlock"), None, 200, UsersWrite, OWN),
        ("PUT", format!("{user}/roles/editor"), None, 200, UsersWrite, OWN),
        ("DELETE", format!("{user}/roles/editor"), None, 200, UsersWrite, OWN),
        ("DELETE", format!("{user}/sessions/{absent}"), None, 404, UsersWrite, OWN),
        (
            "POST",
            format!("{user}/access-tokens"),
            Some(json!({"duration_minutes": 5})),
            201,
            TokensCreate,
            OWN,
        ),
        ("GET", format!("{ACME}/admin/api-keys"), None, 200, KeysWrite, OWN),
        ("POST", format!("{ACME}/admin/api-keys"), Some(new_key), 201, KeysWrite, OWN),
        ("DELETE", format!("{ACME}/admin/api-keys/{absent}"), None, 404, KeysWrite, OWN),
        ("GET", format!("{ACME}/admin/keys"), None, 200, KeysWrite, OWN),
        ("POST", format!("{user}/sessions/revoke-all"), None, 200, UsersWrite, OWN),
        ("POST", format!("{user}/ban"), None, 200, UsersWrite, OWN),
        // Last: three rotations retire the key that signed the callers' tokens.
        ("POST", format!("{ACME}/admin/keys/rotate"), None, 200, KeysWrite, OWN),
    ];
    for (number, (method, path, body, good, permission, others)) in routes.into_iter().enumerate() {
        let rest = Permission::OF_AN_APP.into_iter().filter(|other| *other != permission).collect::<Vec<_>>();
        let with = stage.key("acme", &[permission]).await;
        let without = stage.key("acme", &rest).await;
        let body_of = |caller: usize| {
            let mut body = body.clone()?;
            if let Some(email) = body.get_mut("email") {
                *email = json!(format!("n{number}c{caller}@example.com"));
            }
            Some(body)
        };
        let expected = others.map(|status| if status == 0 { good } else { status });
        // Unauthenticated attempts come first, so that any effect would show.
        let callers = [
            (5, None, expected[5]),
            (4, Some(stage.foreign_key.as_str()), expected[4]),
            (3, Some(stage.user_token.as_str()), expected[3]),
            (1, Some(without.as_str()), expected[1]),
            (2, Some(stage.admin_token.as_str()), expected[2]),
            (0, Some(with.as_str()), expected[0]),
            (6, Some(stage.platform.as_str()), good),
        ];
        for (caller, bearer, status) in callers {
            let answer = stage.world.call(method, &path, bearer, body_of(caller)).await;
            assert_eq!(answer.status.as_u16(), status, "{method} {path} by caller {caller}: {}", answer.body);
            if answer.status.is_success() && method != "GET" {
                assert!(answer.headers.contains_key("consistency-token"), "{method} {path}");
            }
            if status == 401 {
                let challenge = answer.headers["www-authenticate"].to_str().expect("ASCII");
                assert_eq!(challenge == "Bearer", bearer.is_none(), "{challenge}");
                assert_eq!(challenge.contains("error=\"invalid_token\""), bearer.is_some(), "{challenge}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_absent_looks_like_what_is_anothers() {
    let stage = Stage::set().await;
    let absent = uuid::Uuid::from_u128(7).to_string();
    let mut bodies = Vec::new();
    for (app, user) in
        [("acme", &absent), ("acme", &stage.stranger), ("none", &stage.user), ("platform", &stage.user)]
    {
        for (method, route, body) in [
            ("PATCH", "", Some(json!({"name": "x"}))),
            ("POST", "/ban", None),
            ("POST", "/unban", None),
            ("POST", "/unlock", None),
            ("PUT", "/roles/editor", None),
            ("DELETE", "/roles/editor", None),
            ("POST", "/sessions/revoke-all", None),
            ("DELETE", "/sessions/00000000-0000-0000-0000-000000000001", None),
            ("POST", "/access-tokens", Some(json!({"duration_minutes": 1}))),
        ] {
            let path = format!("/v1/apps/{app}/admin/users/{user}{route}");
            let mut answer = stage.platform(method, &path, body).await;
            assert_eq!(answer.status, 404, "{method} {path}: {}", answer.body);
            answer.body["request_id"].take();
            bodies.push(answer.body);
        }
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{bodies:?}");
    let events = stage.world.events("UserBanned").await;
    assert_eq!(events, 0);
}

#[tokio::test]
async fn apps_are_made_changed_listed_and_stopped() {
    let stage = Stage::set().await;
    let body = json!({"app_id": "third", "name": " Third ", "settings": {"access_token_ttl": 60}});
    let send =
        || stage.world.call_with("POST", "/v1/apps", Some(&stage.platform), Some(body.clone()), Some("k"));
    let made = send().await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(made.body["name"], "Third");
    assert_eq!(made.body["settings"]["access_token_ttl"], 60);
    assert_eq!(made.body["settings"]["refresh_grace"], 10);
    let again = send().await;
    assert_eq!((again.status, again.body), (made.status, made.body));

    for (app, name, settings, status, code) in [
        ("third", "x", json!({}), 409, "app_exists"),
        ("platform", "x", json!({}), 409, "app_exists"),
        ("Third", "x", json!({}), 422, "validation_failed"),
        ("fourth", " ", json!({}), 422, "validation_failed"),
        ("fourth", "x", json!({"access_token_ttl": 0}), 422, "validation_failed"),
        ("fourth", "x", json!({"colour": 1}), 400, "malformed_request"),
        ("fourth", "x", json!({"access_token_ttl": "60"}), 400, "malformed_request"),
    ] {
        let body = json!({"app_id": app, "name": name, "settings": settings});
        let answer = stage.platform("POST", "/v1/apps", Some(body)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{}", answer.body);
    }
    let list = stage.platform("GET", "/v1/apps?limit=3", None).await;
    let ids = list.body["items"].as_array().expect("items").iter().map(|app| app["app_id"].clone());
    assert_eq!(ids.collect::<Vec<_>>(), ["acme", "default", "other"]);
    assert_eq!(list.body["total"], 4);
    let cursor = list.text("next_cursor");
    let rest = stage.platform("GET", &format!("/v1/apps?limit=3&cursor={cursor}"), None).await;
    assert_eq!(rest.body["items"][0]["app_id"], "third");
    assert_eq!(rest.body["next_cursor"], Value::Null);
    for path in ["/v1/apps/platform", "/v1/apps/none", "/v1/apps/No"] {
        assert_eq!(stage.platform("GET", path, None).await.status, 404, "{path}");
    }
    assert_eq!(stage.platform("PATCH", "/v1/apps/platform", Some(json!({}))).await.status, 404);
    assert_eq!(stage.platform("POST", "/v1/apps/platform/disable", None).await.status, 404);

    let before = stage.world.events("AppSettingsChanged").await;
    let same = stage.platform("PATCH", "/v1/apps/third", Some(json!({"name": "Third"}))).await;
    assert_eq!(same.status, 200);
    assert_eq!(stage.world.events("AppSettingsChanged").await, before, "nothing changed, so no event");
    let body = json!({"settings": {"access_token_ttl": 1800, "origins": ["https://a.example"]}});
    let changed = stage.platform("PATCH", "/v1/apps/third", Some(body)).await;
    assert_eq!(changed.body["settings"]["access_token_ttl"], 1800);
    assert_eq!(changed.body["settings"]["origins"], json!(["https://a.example"]));

    assert_eq!(stage.me(&stage.user_token).await, 200);
    let key = stage.key("acme", &[Permission::UsersWrite]).await;
    for _ in 0..2 {
        let stopped = stage.platform("POST", &format!("{ACME}/disable"), None).await;
        assert_eq!(stopped.body["disabled"], true, "{}", stopped.body);
    }
    assert_eq!(stage.world.events("AppDisabled").await, 1);
    assert_eq!(stage.me(&stage.user_token).await, 403);
    assert_eq!(stage.login().await.code(), "app_disabled");
    let by_key = stage.world.call("GET", ACME, Some(&key), None).await;
    assert_eq!(by_key.code(), "app_disabled");
    let token = stage.post("access-tokens", json!({"duration_minutes": 1})).await;
    assert_eq!(token.code(), "app_disabled");
    let started = stage.platform("POST", &format!("{ACME}/enable"), None).await;
    assert_eq!(started.body["disabled"], false);
    assert_eq!(stage.me(&stage.user_token).await, 200);
}

#[tokio::test]
async fn users_are_made_and_changed() {
    let stage = Stage::set().await;
    let path = format!("{ACME}/admin/users");
    let body = json!({"email": "New@example.com", "name": "N", "phone": "1", "roles": ["editor", "author"]});
    let send =
        |body: Value| stage.world.call_with("POST", &path, Some(&stage.platform), Some(body), Some("once"));
    let made = send(body.clone()).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(made.body["email"], "new@example.com");
    assert_eq!(made.body["email_verified"], false);
    assert_eq!(made.body["roles"], json!(["author", "editor"]));
    let user = format!("{path}/{}", made.text("id"));
    let patched = stage.platform("PATCH", &user, Some(json!({"name": "", "phone": "2"}))).await;
    assert_eq!(patched.body["name"], Value::Null);
    assert_eq!(patched.body["phone"], "2");
    let again = send(body).await;
    assert_eq!((again.status, again.body), (made.status, made.body), "the answer of the first time");
    assert_eq!(send(json!({"email": "x@example.com"})).await.code(), "idempotency_key_reused");

    for (body, status, code) in [
        (json!({"email": "new@EXAMPLE.com"}), 409, "email_taken"),
        (json!({"email": "new"}), 422, "invalid_email"),
        (json!({"email": "b@example.com", "password": "short"}), 422, "weak_password"),
        (json!({"email": "b@example.com", "roles": ["no blanks"]}), 422, "validation_failed"),
        (json!({"email": "b@example.com", "roles": ["admin"]}), 409, "email_not_verified"),
        (json!({"email": "b@example.com", "avatar_url": "javascript:1"}), 422, "validation_failed"),
        (json!({"email": "b@example.com", "banned": true}), 400, "malformed_request"),
    ] {
        let answer = stage.platform("POST", &path, Some(body)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{}", answer.body);
    }
    let roles = (0..60).map(|n| format!("r{n}")).collect::<Vec<_>>();
    let many = stage.platform("POST", &path, Some(json!({"email": "c@example.com", "roles": roles}))).await;
    assert_eq!(many.code(), "too_many_roles");
    let body = json!({"email": "c@example.com", "password": PASSWORD});
    assert_eq!(
        stage.platform("POST", &path, Some(body.clone())).await.status,
        201,
        "the address is still free"
    );
    let login = stage.world.call("POST", &format!("{ACME}/auth/login"), None, Some(body)).await;
    assert_eq!(login.status, 200, "{}", login.body);
    for (body, status) in [(json!({"email": "x@example.com"}), 400), (json!({"name": " "}), 422)] {
        assert_eq!(stage.platform("PATCH", &user, Some(body)).await.status.as_u16(), status);
    }
}

#[tokio::test]
async fn inv_d_a_ban_ends_every_session_and_they_stay_ended() {
    let stage = Stage::set().await;
    let tokens = [stage.login().await, stage.login().await].map(|login| login.text("access_token"));
    let before = stage.world.events("SessionRevoked").await;
    let banned = stage.post("ban", json!({"reason": "spam"})).await;
    assert_eq!((banned.status.as_u16(), &banned.body["banned"]), (200, &json!(true)), "{}", banned.body);
    assert_eq!(stage.world.events("SessionRevoked").await, before + 3);
    for token in &tokens {
        assert_eq!(stage.me(token).await, 401);
    }
    assert_eq!(stage.login().await.code(), "user_banned");
    assert_eq!(stage.post("access-tokens", json!({"duration_minutes": 1})).await.code(), "user_banned");
    assert_eq!(stage.post("ban", json!({})).await.status, 200);
    assert_eq!(stage.world.events("UserBanned").await, 1, "banned already");
    let unbanned = stage.post("unban", json!({})).await;
    assert_eq!(unbanned.body["banned"], false);
    assert_eq!(stage.me(&tokens[0]).await, 401);
    assert_eq!(stage.login().await.status, 200);
    let long = stage.post("ban", json!({"reason": "x".repeat(501)})).await;
    assert_eq!(long.code(), "validation_failed");
}

/// A ban interrupted between its two look-ups leaves a session behind: lifting the ban must not restore it.
#[tokio::test]
async fn lifting_a_ban_revives_no_session() {
    let stage = Stage::set().await;
    let token = stage.login().await.text("access_token");
    stage.world.ban(UserId(stage.user.parse().expect("a UUID"))).await;
    assert_eq!(stage.me(&token).await, 401);
    assert_eq!(stage.post("unban", json!({})).await.status, 200);
    assert_eq!(stage.me(&token).await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_d_bans_race_logins() {
    let stage = Arc::new(Stage::set().await);
    for _ in 0..5 {
        let logins = (0..6).map(|_| {
            let stage = stage.clone();
            tokio::spawn(async move { stage.login().await })
        });
        let logins = logins.collect::<Vec<_>>();
        let banned = stage.post("ban", json!({})).await;
        assert_eq!(banned.status, 200, "{}", banned.body);
        let mut tokens = Vec::new();
        for login in logins {
            let login = login.await.expect("answers");
            if login.status == 200 {
                tokens.push(login.text("access_token"));
            }
        }
        assert_eq!(stage.post("unban", json!({})).await.status, 200);
        for token in &tokens {
            assert_eq!(stage.me(token).await, 401, "a session outlived a ban");
        }
    }
}

#[tokio::test]
async fn sessions_of_a_user_are_ended() {
    let stage = Stage::set().await;
    let keep = stage.login().await;
    let end = stage.login().await;
    let path = format!("{ACME}/admin/users/{}/sessions/{}", stage.user, end.text("session_id"));
    let foreign = format!("{ACME}/admin/users/{}/sessions/{}", stage.admin, end.text("session_id"));
    assert_eq!(stage.platform("DELETE", &foreign, None).await.status, 404, "of another user");
    assert_eq!(stage.me(&end.text("access_token")).await, 200);
    let before = stage.world.events("SessionRevoked").await;
    for _ in 0..2 {
        assert_eq!(stage.platform("DELETE", &path, None).await.status, 204);
    }
    assert_eq!(stage.world.events("SessionRevoked").await, before + 1);
    assert_eq!(stage.me(&end.text("access_token")).await, 401);

    let path = format!("{ACME}/admin/users/{}/sessions/revoke-all", stage.user);
    let body = json!({"exclude": keep.text("session_id")});
    let send = || stage.world.call_with("POST", &path, Some(&stage.platform), Some(body.clone()), Some("k"));
    assert_eq!(send().await.body["revoked"], 1);
    assert_eq!(send().await.body["revoked"], 1, "the answer of the first time");
    assert_eq!(stage.me(&stage.user_token).await, 401);
    assert_eq!(stage.me(&keep.text("access_token")).await, 200);
    assert_eq!(stage.post("sessions/revoke-all", json!({})).await.body["revoked"], 1);
    assert_eq!(stage.post("sessions/revoke-all", json!({})).await.body["revoked"], 0);
    assert_eq!(stage.me(&stage.admin_token).await, 200);
}

#[tokio::test]
async fn inv_r_only_full_admins_touch_admins() {
    let stage = Stage::set().await;
    let key = stage.key("acme", &Permission::OF_AN_APP).await;
    let call = |method: &'static str, path: String, body: Option<Value>| {
        let (world, key) = (&stage.world, &key);
        async move { world.call(method, &path, Some(key), body).await }
    };
    let of = |user: &str, route: &str| format!("{ACME}/admin/users/{user}/{route}");
    for (method, path, body) in [
        ("PUT", of(&stage.user, "roles/admin"), None),
        ("DELETE", of(&stage.admin, "roles/admin"), None),
        ("POST", format!("{ACME}/admin/users"), Some(json!({"email": "e@example.com", "roles": ["admin"]}))),
        ("POST", of(&stage.admin, "access-tokens"), Some(json!({"duration_minutes": 5}))),
    ] {
        let answer = call(method, path.clone(), body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (403, "forbidden"), "{method} {path}");
    }
    assert_eq!(call("PUT", of(&stage.user, "roles/editor"), None).await.body["roles"], json!(["editor"]));
    assert_eq!(call("PUT", of(&stage.user, "roles/1st"), None).await.status, 422);
    let granted = stage.world.events("RoleGranted").await;
    assert_eq!(call("PUT", of(&stage.user, "roles/editor"), None).await.status, 200);
    assert_eq!(stage.world.events("RoleGranted").await, granted);
    assert_eq!(call("DELETE", of(&stage.user, "roles/editor"), None).await.body["roles"], json!([]));
    let path = of(&stage.user, "roles/admin");
    let unproven = stage.world.call("PUT", &path, Some(&stage.admin_token), None).await;
    assert_eq!((unproven.status.as_u16(), unproven.code()), (409, "email_not_verified"));
    stage.world.verify("acme", "ada@example.com").await;
    assert_eq!(stage.world.call("PUT", &path, Some(&stage.admin_token), None).await.status, 200);
    assert_eq!(stage.me(&stage.user_token).await, 401, "an earlier session");
    let token = stage.login().await.text("access_token");
    assert_eq!(stage.world.call("GET", ACME, Some(&token), None).await.status, 200);
    assert_eq!(stage.world.call("DELETE", &path, Some(&stage.admin_token), None).await.status, 200);
    assert_eq!(stage.world.call("GET", ACME, Some(&token), None).await.status, 403);
}

/// Hashing a password takes time: a caller who loses the right to create users meanwhile creates none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_r_a_right_that_was_lost_on_the_way_counts_no_more() {
    let world = Arc::new(World::with_params("m=65536,t=8,p=1").await);
    let platform = world.key.expose_secret().to_owned();
    let (admin, _) = register(&world, "default", "admin@example.com").await;
    let role = format!("/v1/apps/default/admin/users/{admin}/roles/admin");
    let token = world.make_admin("default", &admin, "admin@example.com").await;
    let keys = "/v1/apps/default/admin/api-keys";
    let body = json!({"name": "k", "permissions": ["users:write"]});
    let key = world.call("POST", keys, Some(&platform), Some(body)).await;
    let (key, key_path) = (key.text("key"), format!("{keys}/{}", key.text("id")));

    for (credential, taken, email) in
        [(token, role.as_str(), "one@example.com"), (key, key_path.as_str(), "two@example.com")]
    {
        let making = tokio::spawn({
            let world = world.clone();
            async move {
                let body = json!({"email": email, "password": PASSWORD});
                world.call("POST", "/v1/apps/default/admin/users", Some(&credential), Some(body)).await
            }
        });
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let end = world.call("DELETE", taken, Some(&platform), None).await;
        assert!(end.status.is_success(), "{}", end.body);
        let made = making.await.expect("no panic");
        let all = world.journal.read_all(0, 1000).await.expect("reads");
        let newest = |name: &str| all.iter().filter(|event| event.name == name).map(|it| it.position).max();
        let taken_at = newest("RoleRevoked").max(newest("ApiKeyRevoked"));
        assert!(newest("UserRegistered") < taken_at, "a user was made by {taken} after it was taken");
        assert!(made.status == 201 || matches!(made.status.as_u16(), 401 | 403), "{}", made.body);
    }
}

#[tokio::test]
async fn a_locked_account_is_unlocked() {
    let stage = Stage::set().await;
    let wrong = json!({"email": "ada@example.com", "password": "not the password"});
    let login = format!("{ACME}/auth/login");
    let mut last = 401;
    for _ in 0..12 {
        last = stage.world.call("POST", &login, None, Some(wrong.clone())).await.status.as_u16();
    }
    assert_eq!(last, 429);
    assert_eq!(stage.login().await.status, 429);
    for _ in 0..2 {
        assert_eq!(stage.post("unlock", json!({})).await.status, 200);
    }
    assert_eq!(stage.world.events("AccountUnlocked").await, 1);
    assert_eq!(stage.login().await.status, 200);
}
