//! Every route with every kind of caller: anonymous, a user, an admin of another app, an API key of another app; and
//! with another user's resource, an absent resource, an absent app. The route list is compared with `/openapi.json`, so
//! a new route fails here until it is added.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::{Call, Server, email};

const ABSENT: &str = "018f0000-0000-7000-8000-000000000000";

#[derive(Clone, Copy, PartialEq, Debug)]
enum Access {
    /// Public; the body decides.
    Public,
    /// A user of this app.
    User,
    /// An admin of this app, or a key of it with the permission.
    Admin,
    /// An admin of this app, or a key of the platform: no key of the app will do.
    FullAdmin,
    /// As `Admin`, but any key of this app will do.
    OfApp,
    /// A key of the platform.
    Platform,
    /// As `Platform`, but one with `audit:read` will do.
    Auditor,
}
use Access::{Admin, Auditor, FullAdmin, OfApp, Platform, Public, User};

const MAILBOX: &str = r#"{"email":"nobody@example.org"}"#;
const MAGIC_LINK: &str = r#"{"email":"nobody@example.org","redirect_uri":"https://client.example/"}"#;
const NEW_PASSWORD: &str = r#"{"token":"x","new_password":"x"}"#;

/// Method, path, who may call it, and a valid body.
const ROUTES: &[(&str, &str, Access, &str)] = &[
    ("POST", "/v1/apps", Platform, r#"{"app_id":"x-1","name":"X"}"#),
    ("GET", "/v1/apps", Platform, ""),
    ("GET", "/v1/apps/{app_id}", OfApp, ""),
    ("PATCH", "/v1/apps/{app_id}", Admin, r#"{"name":"X"}"#),
    ("POST", "/v1/apps/{app_id}/disable", Platform, ""),
    ("POST", "/v1/apps/{app_id}/enable", Platform, ""),
    ("POST", "/v1/apps/{app_id}/auth/register", Public, ""),
    ("POST", "/v1/apps/{app_id}/auth/signup", Public, ""),
    ("POST", "/v1/apps/{app_id}/auth/login", Public, ""),
    ("POST", "/v1/apps/{app_id}/auth/refresh", Public, ""),
    ("POST", "/v1/apps/{app_id}/auth/magic-link", Public, MAGIC_LINK),
    ("POST", "/v1/apps/{app_id}/auth/magic-link/resend", Public, MAGIC_LINK),
    ("GET", "/v1/apps/{app_id}/auth/magic-link/verify", Public, ""),
    ("POST", "/v1/apps/{app_id}/auth/magic-link/verify", Public, "token=x"),
    ("POST", "/v1/apps/{app_id}/auth/magic-link/verify/again", Public, "token=x"),
    ("POST", "/v1/apps/{app_id}/auth/exchange", Public, r#"{"code":"x"}"#),
    ("GET", "/v1/apps/{app_id}/auth/email-verification", Public, ""),
    ("POST", "/v1/apps/{app_id}/auth/email-verification/request", Public, MAILBOX),
    ("POST", "/v1/apps/{app_id}/auth/email-verification/resend", Public, MAILBOX),
    ("POST", "/v1/apps/{app_id}/auth/email-verification/confirm", Public, "token=x"),
    ("POST", "/v1/apps/{app_id}/auth/verify-email", Public, "token=x"),
    ("GET", "/v1/apps/{app_id}/auth/email-verification/disown", Public, ""),
    ("POST", "/v1/apps/{app_id}/auth/email-verification/disown", Public, "token=x"),
    ("GET", "/v1/apps/{app_id}/auth/email/change", Public, ""),
    ("POST", "/v1/apps/{app_id}/auth/email/change", User, r#"{"new_email":"x@example.org","password":"x"}"#),
    ("POST", "/v1/apps/{app_id}/auth/email/change/confirm", Public, "token=x"),
    ("GET", "/v1/apps/{app_id}/auth/password-reset", Public, ""),
    ("POST", "/v1/apps/{app_id}/auth/password-reset/request", Public, MAILBOX),
    ("POST", "/v1/apps/{app_id}/auth/forgot-password", Public, MAILBOX),
    ("POST", "/v1/apps/{app_id}/auth/password-reset/confirm", Public, NEW_PASSWORD),
    ("POST", "/v1/apps/{app_id}/auth/reset-password", Public, NEW_PASSWORD),
    ("POST", "/v1/apps/{app_id}/auth/password/change", User, r#"{"old_password":"x","new_password":"x"}"#),
    ("GET", "/v1/apps/{app_id}/auth/page.css", Public, ""),
    ("POST", "/v1/apps/{app_id}/auth/logout", User, ""),
    ("GET", "/v1/apps/{app_id}/auth/me", User, ""),
    ("PATCH", "/v1/apps/{app_id}/auth/me", User, r#"{"name":"X"}"#),
    ("DELETE", "/v1/apps/{app_id}/auth/me", User, r#"{"password":"x"}"#),
    ("GET", "/v1/apps/{app_id}/auth/me/export", User, ""),
    ("GET", "/v1/apps/{app_id}/auth/sessions", User, ""),
    ("DELETE", "/v1/apps/{app_id}/auth/sessions/{session_id}", User, ""),
    ("POST", "/v1/apps/{app_id}/auth/sessions/revoke-all", User, r#"{"exclude_current":true}"#),
    ("POST", "/v1/apps/{app_id}/auth/active-org", User, r#"{"org_id":""}"#),
    ("POST", "/v1/apps/{app_id}/orgs", User, r#"{"name":"X"}"#),
    ("GET", "/v1/apps/{app_id}/orgs", User, ""),
    ("GET", "/v1/apps/{app_id}/orgs/{org_id}", User, ""),
    ("PATCH", "/v1/apps/{app_id}/orgs/{org_id}", User, r#"{"name":"X"}"#),
    ("DELETE", "/v1/apps/{app_id}/orgs/{org_id}", User, ""),
    ("GET", "/v1/apps/{app_id}/orgs/{org_id}/members", User, ""),
    ("PUT", "/v1/apps/{app_id}/orgs/{org_id}/members/{user_id}", User, r#"{"role":"member"}"#),
    ("DELETE", "/v1/apps/{app_id}/orgs/{org_id}/members/{user_id}", User, ""),
    ("GET", "/v1/apps/{app_id}/orgs/{org_id}/invitations", User, ""),
    ("POST", "/v1/apps/{app_id}/orgs/{org_id}/invitations", User, MAILBOX),
    ("DELETE", "/v1/apps/{app_id}/orgs/{org_id}/invitations/{invitation_id}", User, ""),
    ("GET", "/v1/apps/{app_id}/orgs/{org_id}/api-keys", User, ""),
    (
        "POST",
        "/v1/apps/{app_id}/orgs/{org_id}/api-keys",
        User,
        r#"{"name":"x","permissions":["billing:read"]}"#,
    ),
    ("DELETE", "/v1/apps/{app_id}/orgs/{org_id}/api-keys/{key_id}", User, ""),
    ("GET", "/v1/apps/{app_id}/auth/invitations/accept", Public, ""),
    ("POST", "/v1/apps/{app_id}/auth/invitations/accept", User, r#"{"token":"x"}"#),
    ("POST", "/v1/apps/{app_id}/admin/orgs/{org_id}/invitations", Admin, MAILBOX),
    ("GET", "/v1/apps/{app_id}/admin/orgs", Admin, ""),
    (
        "POST",
        "/v1/apps/{app_id}/admin/orgs",
        Admin,
        r#"{"name":"X","owner_id":"018f0000-0000-7000-8000-000000000000"}"#,
    ),
    ("GET", "/v1/apps/{app_id}/admin/orgs/{org_id}", Admin, ""),
    ("PATCH", "/v1/apps/{app_id}/admin/orgs/{org_id}", Admin, r#"{"name":"X"}"#),
    ("DELETE", "/v1/apps/{app_id}/admin/orgs/{org_id}", Admin, ""),
    ("GET", "/v1/apps/{app_id}/admin/orgs/{org_id}/members", Admin, ""),
    ("PUT", "/v1/apps/{app_id}/admin/orgs/{org_id}/members/{user_id}", Admin, r#"{"role":"member"}"#),
    ("DELETE", "/v1/apps/{app_id}/admin/orgs/{org_id}/members/{user_id}", Admin, ""),
    ("GET", "/v1/apps/{app_id}/admin/users/{user_id}/orgs", Admin, ""),
    ("GET", "/v1/apps/{app_id}/orgs/{org_id}/roles", User, ""),
    ("GET", "/v1/apps/{app_id}/orgs/{org_id}/roles/{role}", User, ""),
    ("PUT", "/v1/apps/{app_id}/orgs/{org_id}/roles/{role}", User, r#"{"permissions":["x:read"]}"#),
    ("DELETE", "/v1/apps/{app_id}/orgs/{org_id}/roles/{role}", User, ""),
    ("POST", "/v1/apps/{app_id}/auth/introspect", OfApp, "token=x"),
    ("POST", "/v1/apps/{app_id}/auth/revoke", Public, "token=x"),
    ("POST", "/v1/apps/{app_id}/oauth2/introspect", OfApp, "token=x"),
    ("POST", "/v1/apps/{app_id}/oauth2/revoke", Public, "token=x"),
    ("GET", "/v1/apps/{app_id}/.well-known/change-password", Public, ""),
    ("GET", "/v1/apps/{app_id}/.well-known/jwks.json", Public, ""),
    ("GET", "/v1/apps/{app_id}/.well-known/openid-configuration", Public, ""),
    ("GET", "/v1/apps/{app_id}/admin/roles", Admin, ""),
    ("GET", "/v1/apps/{app_id}/admin/roles/{role}", Admin, ""),
    ("PUT", "/v1/apps/{app_id}/admin/roles/{role}", Admin, r#"{"permissions":["x:read"]}"#),
    ("DELETE", "/v1/apps/{app_id}/admin/roles/{role}", Admin, ""),
    ("GET", "/v1/apps/{app_id}/admin/users", Admin, ""),
    ("POST", "/v1/apps/{app_id}/admin/users", Admin, r#"{"email":"matrix@example.org"}"#),
    ("POST", "/v1/apps/{app_id}/admin/users/import", FullAdmin, ""),
    ("GET", "/v1/apps/{app_id}/admin/users/import/{import_id}", FullAdmin, ""),
    ("GET", "/v1/apps/{app_id}/admin/users/{user_id}", Admin, ""),
    ("PATCH", "/v1/apps/{app_id}/admin/users/{user_id}", Admin, r#"{"name":"X"}"#),
    ("DELETE", "/v1/apps/{app_id}/admin/users/{user_id}", Admin, ""),
    ("POST", "/v1/apps/{app_id}/admin/users/{user_id}/ban", Admin, r#"{"reason":"x"}"#),
    ("POST", "/v1/apps/{app_id}/admin/users/{user_id}/unban", Admin, ""),
    ("POST", "/v1/apps/{app_id}/admin/users/{user_id}/unlock", Admin, ""),
    ("PUT", "/v1/apps/{app_id}/admin/users/{user_id}/roles/{role}", Admin, ""),
    ("DELETE", "/v1/apps/{app_id}/admin/users/{user_id}/roles/{role}", Admin, ""),
    ("GET", "/v1/apps/{app_id}/admin/users/{user_id}/export", Admin, ""),
    ("GET", "/v1/apps/{app_id}/admin/users/{user_id}/history", Admin, ""),
    ("GET", "/v1/apps/{app_id}/admin/users/{user_id}/sessions", Admin, ""),
    ("DELETE", "/v1/apps/{app_id}/admin/users/{user_id}/sessions/{session_id}", Admin, ""),
    ("POST", "/v1/apps/{app_id}/admin/users/{user_id}/sessions/revoke-all", Admin, ""),
    ("POST", "/v1/apps/{app_id}/admin/users/{user_id}/access-tokens", Admin, r#"{"duration_minutes":1}"#),
    ("POST", "/v1/apps/{app_id}/admin/users/{user_id}/password-reset", Admin, ""),
    ("GET", "/v1/apps/{app_id}/admin/mail/failures", Admin, ""),
    ("POST", "/v1/apps/{app_id}/admin/mail/failures/{mail_id}/retry", Admin, ""),
    ("GET", "/v1/apps/{app_id}/admin/webhooks", Admin, ""),
    ("POST", "/v1/apps/{app_id}/admin/webhooks", Admin, r#"{"url":"https://hooks.example/","events":["*"]}"#),
    ("GET", "/v1/apps/{app_id}/admin/webhooks/{webhook_id}", Admin, ""),
    ("PATCH", "/v1/apps/{app_id}/admin/webhooks/{webhook_id}", Admin, r#"{"enabled":false}"#),
    ("DELETE", "/v1/apps/{app_id}/admin/webhooks/{webhook_id}", Admin, ""),
    ("GET", "/v1/apps/{app_id}/admin/webhooks/{webhook_id}/deliveries", Admin, ""),
    ("POST", "/v1/apps/{app_id}/admin/webhooks/{webhook_id}/deliveries/{delivery_id}/retry", Admin, ""),
    ("POST", "/v1/apps/{app_id}/admin/webhooks/{webhook_id}/replay", Admin, r#"{"from_position":1}"#),
    ("POST", "/v1/apps/{app_id}/admin/webhooks/{webhook_id}/test", Admin, ""),
    ("GET", "/v1/apps/{app_id}/admin/stats", Admin, ""),
    ("GET", "/v1/apps/{app_id}/admin/stats/funnel", Admin, ""),
    ("GET", "/v1/apps/{app_id}/admin/stats/retention", Admin, ""),
    ("GET", "/v1/apps/{app_id}/admin/api-keys", Admin, ""),
    ("POST", "/v1/apps/{app_id}/admin/api-keys", Admin, r#"{"name":"x","permissions":["users:read"]}"#),
    ("DELETE", "/v1/apps/{app_id}/admin/api-keys/{key_id}", Admin, ""),
    ("GET", "/v1/apps/{app_id}/admin/keys", Admin, ""),
    ("POST", "/v1/apps/{app_id}/admin/keys/rotate", Admin, ""),
    ("GET", "/v1/apps/{app_id}/audit/access", Admin, ""),
    ("GET", "/v1/apps/{app_id}/audit/events", Admin, ""),
    ("GET", "/v1/apps/{app_id}/audit/sessions", Admin, ""),
    ("GET", "/v1/apps/{app_id}/events", Admin, ""),
    ("GET", "/v1/events", Platform, ""),
    ("GET", "/v1/projections", Platform, ""),
    ("GET", "/v1/audit/key", Auditor, ""),
    ("POST", "/v1/audit/key/rotate", Platform, ""),
    ("GET", "/v1/audit/checkpoint", Auditor, ""),
    ("POST", "/v1/audit/checkpoint", Auditor, ""),
    ("POST", "/v1/audit/checkpoint/cosignatures", Auditor, ""),
    // No read model is called x: nothing is rebuilt.
    ("POST", "/v1/projections/{name}/rebuild", Platform, ""),
    ("GET", "/v1/audit/proof/inclusion", Auditor, ""),
    ("GET", "/v1/audit/proof/consistency", Auditor, ""),
    ("GET", "/v1/audit/receipt", Auditor, ""),
    ("GET", "/v1/audit/tile/{level}/{number}", Auditor, ""),
];

struct Ids<'a> {
    app: &'a str,
    user: &'a str,
    session: &'a str,
    key: &'a str,
    org: &'a str,
    webhook: &'a str,
}

fn call(server: &Server, route: &(&str, &str, Access, &'static str), ids: &Ids) -> Call {
    let path = route
        .1
        .replace("{app_id}", ids.app)
        .replace("{user_id}", ids.user)
        .replace("{session_id}", ids.session)
        .replace("{key_id}", ids.key)
        .replace("{org_id}", ids.org)
        .replace("{import_id}", ABSENT)
        .replace("{webhook_id}", ids.webhook)
        .replace("{delivery_id}", "1")
        .replace("{invitation_id}", ABSENT)
        .replace("{mail_id}", "1-magic_link")
        .replace("{role}", "editor");
    let call = server.call(route.0.parse().unwrap(), path);
    match route.3 {
        "" => call,
        form if form.starts_with("token=") => call.body("application/x-www-form-urlencoded", form),
        body => call.body("application/json", body),
    }
}

#[tokio::test]
async fn every_documented_route_is_listed_here() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.expect(200).json();
    let mut documented = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|it| *it != "parameters") {
            // The aliases of the default app and the root's own pages are tested elsewhere.
            if path.starts_with("/v1/") {
                documented.insert((method.to_uppercase(), path.clone()));
            }
        }
    }
    let listed: BTreeSet<_> = ROUTES.iter().map(|it| (it.0.to_owned(), it.1.to_owned())).collect();
    let missing: Vec<_> = documented.difference(&listed).collect();
    assert!(missing.is_empty(), "not in the matrix: {missing:?}");
    let undocumented: Vec<_> = listed.difference(&documented).collect();
    assert!(undocumented.is_empty(), "not in /openapi.json: {undocumented:?}");
}

#[tokio::test]
async fn each_route_lets_in_whom_it_is_for() {
    let server = Server::start().await;
    let (app, foreign) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    let victim = app.register(&email("victim")).await;
    let user = app.register(&email("user")).await;
    let foreign_admin = foreign.register_admin(&email("admin")).await;
    let every = [
        "users:read",
        "users:write",
        "orgs:*",
        "audit:read",
        "events:read",
        "settings:write",
        "keys:write",
        "tokens:create",
    ];
    let (key_id, _) = app.api_key(&["users:read"]).await;
    let (_, foreign_key) = foreign.api_key(&every).await;
    let (_, powerless_key) = app.api_key(&["metrics:read"]).await;
    let (_, every_key) = app.api_key(&every).await;
    let org = app.create_organization(&victim.access, "Victims").await;
    let org = org["id"].as_str().unwrap();
    // Of an organization: it is for the app's programs, and opens nothing here.
    let org_key = app.organization_key(&victim.access, org, &["billing:read"]).await["key"].clone();
    let org_key = org_key.as_str().unwrap().to_owned();
    // The last: it is sent what happens from here on, and each failure is an event.
    let webhook = app.webhook("https://hooks.example/", &["*"]).await.0;
    let ids = Ids {
        app: &app.id,
        user: &victim.user_id,
        session: &victim.session,
        key: &key_id,
        org,
        webhook: &webhook,
    };
    let head = server.events().await.len();

    for route in ROUTES {
        let name = format!("{} {} ({:?})", route.0, route.1, route.2);
        if route.2 == Public {
            continue;
        }
        let nobody = call(&server, route, &ids).await;
        assert_eq!(nobody.status, 401, "{name} for nobody: {}", nobody.text);
        if route.0 != "GET" {
            // A caller without access does not learn what is wrong with the body.
            let path = route.1.replace("{app_id}", ids.app).replace("{user_id}", ids.user);
            let path = path.replace("{session_id}", ids.session).replace("{key_id}", ids.key);
            let path = path.replace("{org_id}", ids.org).replace("{invitation_id}", ABSENT);
            let path = path.replace("{import_id}", ABSENT);
            let path = path.replace("{webhook_id}", ids.webhook).replace("{delivery_id}", "1");
            let path = path.replace("{role}", "editor").replace("{mail_id}", "1-magic_link");
            let nonsense = server.call(route.0.parse().unwrap(), path).body("application/json", "[");
            let logout = route.1.ends_with("/logout");
            assert_eq!(nonsense.await.status, if logout { 400 } else { 401 }, "{name} with nonsense");
        }
        let of_another_app = call(&server, route, &ids).bearer(&foreign_admin.access).await;
        assert_eq!(of_another_app.status, 401, "{name} for another app's admin: {}", of_another_app.text);
        let keys = match route.2 {
            OfApp => vec![&foreign_key, &org_key],
            FullAdmin => vec![&foreign_key, &org_key, &powerless_key, &every_key],
            _ => vec![&foreign_key, &org_key, &powerless_key],
        };
        for key in keys {
            let answer = call(&server, route, &ids).bearer(key).await;
            assert!(
                matches!(answer.status, 401 | 403 | 404),
                "{name} for a key: {} {}",
                answer.status,
                answer.text
            );
        }
        if route.2 != User {
            let answer = call(&server, route, &ids).bearer(&user.access).await;
            assert!(
                matches!(answer.status, 401 | 403),
                "{name} for a user: {} {}",
                answer.status,
                answer.text
            );
        }
    }
    assert_eq!(server.events().await.len(), head, "a refusal writes nothing");
}

#[tokio::test]
async fn absent_resources_and_those_of_others_are_indistinguishable() {
    let server = Server::start().await;
    let (app, foreign) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    let user = app.register(&email("user")).await;
    let theirs = foreign.register(&email("theirs")).await;
    let (their_key, _) = foreign.api_key(&["users:read"]).await;
    let admin = app.register_admin(&email("admin")).await;
    let key = server.platform_key();
    let their_org = foreign.create_organization(&theirs.access, "Theirs").await;
    let their_webhook = foreign.webhook("https://hooks.example/", &["*"]).await.0;
    let their_ids = Ids {
        app: &app.id,
        user: &theirs.user_id,
        session: &theirs.session,
        key: &their_key,
        org: their_org["id"].as_str().unwrap(),
        webhook: &their_webhook,
    };
    let absent_ids =
        Ids { app: &app.id, user: ABSENT, session: ABSENT, key: ABSENT, org: ABSENT, webhook: ABSENT };
    let head = server.events().await.len();

    for route in ROUTES {
        let names_one = ["{user_id}", "{session_id}", "{key_id}", "{org_id}", "{webhook_id}"]
            .iter()
            .any(|it| route.1.contains(it));
        if !names_one {
            continue;
        }
        let credentials = if route.2 == User { vec![&user.access] } else { vec![&admin.access, &key] };
        for credential in credentials {
            let name = format!("{} {}", route.0, route.1);
            let other: Value = {
                let answer = call(&server, route, &their_ids).bearer(credential).await;
                assert_eq!(answer.status, 404, "{name} of another app: {}", answer.text);
                answer.anonymous_problem()
            };
            let absent = call(&server, route, &absent_ids).bearer(credential).await;
            assert_eq!(absent.status, 404, "{name} absent: {}", absent.text);
            assert_eq!(absent.anonymous_problem(), other, "{name}");
        }
    }
    assert_eq!(server.events().await.len(), head, "a refusal writes nothing");
    foreign.me(&theirs.access).await.expect(200);
}

#[tokio::test]
async fn an_absent_app_has_nothing() {
    let server = Server::start().await;
    let key = server.platform_key();
    for app in ["absent", "platform"] {
        let ids = Ids { app, user: ABSENT, session: ABSENT, key: ABSENT, org: ABSENT, webhook: ABSENT };
        for route in ROUTES.iter().filter(|it| it.1.contains("{app_id}")) {
            // Platform keys manage one another and see their history; for all other callers there is no such app.
            if app == "platform" && (route.1.contains("/api-keys") || route.1.ends_with("/audit/events")) {
                continue;
            }
            let name = format!("{} {} of {app}", route.0, route.1);
            let call = match route.1.rsplit('/').next() {
                Some("register" | "signup" | "login") => call(&server, route, &ids)
                    .json(&json!({"email": "ada@example.org", "password": tests::PASSWORD})),
                Some("refresh") => call(&server, route, &ids).json(&json!({"refresh_token": "wwr_x"})),
                _ => call(&server, route, &ids),
            };
            let answer = call.bearer(&key).await;
            let expected: &[u16] = if route.2 == User { &[401, 404] } else { &[404] };
            assert!(expected.contains(&answer.status), "{name}: {} {}", answer.status, answer.text);
        }
    }
}

#[tokio::test]
async fn forged_tokens_open_nothing() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    use jsonwebtoken::{Algorithm, EncodingKey, Header};

    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let tokens = app.register(&email("ada")).await;
    let claims = tests::claims_of(&tokens.access);
    let header = tests::jwt_header_of(&tokens.access);
    let parts: Vec<&str> = tokens.access.split('.').collect();
    let jwks = app.get(".well-known/jwks.json").await.json();
    let public = jwks["keys"].as_array().unwrap().iter().find(|it| it["kid"] == header["kid"]).unwrap();
    let encode = |value: &Value| BASE64.encode(value.to_string());
    let with_header = |change: Value| {
        let mut header = header.clone();
        header.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        format!("{}.{}.{}", encode(&header), parts[1], parts[2])
    };
    let mut forged = vec![
        with_header(json!({"alg": "none"})),
        format!("{}.{}.", encode(&json!({"alg": "none", "typ": "at+jwt", "kid": header["kid"]})), parts[1]),
        with_header(json!({"typ": "JWT"})),
        with_header(json!({"kid": "other"})),
        with_header(json!({"jku": "http://127.0.0.1/jwks.json"})),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}..{}", parts[0], parts[2]),
        format!("{}.{}.{}", parts[0], encode(&json!({"sub": tokens.user_id})), parts[2]),
    ];
    for (name, value) in [
        ("sub", json!(ABSENT)),
        ("exp", json!("9999999999")),
        ("exp", json!(9_999_999_999_u64)),
        ("roles", json!(["admin"])),
        ("aud", json!("default")),
        ("iss", json!("http://evil.example")),
    ] {
        let mut changed = claims.clone();
        changed[name] = value;
        forged.push(format!("{}.{}.{}", parts[0], encode(&changed), parts[2]));
    }
    // The public key as an HMAC secret: the classic confusion of algorithms.
    for secret in [public["x"].as_str().unwrap(), &public.to_string(), ""] {
        let mut hs = Header::new(Algorithm::HS256);
        hs.typ = Some("at+jwt".to_owned());
        hs.kid = header["kid"].as_str().map(str::to_owned);
        forged
            .push(jsonwebtoken::encode(&hs, &claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap());
    }
    for token in &forged {
        let answer = app.me(token).await;
        assert_eq!(answer.status, 401, "{token}: {}", answer.text);
    }
    app.me(&tokens.access).await.expect(200);
}
