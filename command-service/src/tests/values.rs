//! What people and apps may set: names, addresses, hosts and senders, on every route that accepts them.

use super::*;

const ADA: &str = "ada@example.com";

/// Characters that hide or reorder their neighbours: alone, and before a name.
const HIDDEN: &[char] = &[
    '\u{200b}',
    '\u{200e}',
    '\u{200f}',
    '\u{61c}',
    '\u{2060}',
    '\u{feff}',
    '\u{ad}',
    '\u{34f}',
    '\u{3164}',
    '\u{202e}',
    '\u{2066}',
    '\u{2028}',
    '\u{0}',
    '\u{7f}',
    '\u{e0041}',
    '\u{fe0f}',
    '\u{200d}',
];

fn wrong_names() -> Vec<String> {
    let hidden =
        HIDDEN.iter().flat_map(|mark| [mark.to_string(), format!("a{mark}{mark}b"), format!("x{mark} y")]);
    let blanks = ["", " ", "\u{a0}", "\u{3000} \u{2003}", "\u{2800}", "\t"].map(str::to_owned);
    blanks.into_iter().chain(hidden).collect()
}

/// Whether the refusal names the member.
#[track_caller]
fn is_refused(answer: &Answer, pointer: &str, value: &str) {
    let pointers: Vec<_> =
        answer.body["errors"].as_array().into_iter().flatten().map(|it| &it["pointer"]).collect();
    assert_eq!(
        (answer.status.as_u16(), pointers),
        (422, vec![&json!(pointer)]),
        "{value:?}: {}",
        answer.body
    );
}

#[tokio::test]
async fn a_name_can_be_seen_and_hides_nothing_wherever_it_is_given() {
    let world = World::start().await;
    let registered = world.register(ADA).await;
    let (token, id) =
        (registered.text("access_token"), registered.body["user"]["id"].as_str().expect("an id").to_owned());
    let user = format!("/v1/apps/default/admin/users/{id}");
    let before = world.all_events().await;
    for name in wrong_names() {
        let register = json!({"email": "new@example.com", "password": PASSWORD, "name": name});
        is_refused(&world.auth("register", register).await, "/name", &name);
        for member in ["name", "phone"] {
            // An empty text removes the member.
            if !name.is_empty() {
                let patched = world
                    .call("PATCH", "/v1/apps/default/auth/me", Some(&token), Some(json!({ member: name })))
                    .await;
                is_refused(&patched, &format!("/{member}"), &name);
                let patched = world.by_platform("PATCH", &user, Some(json!({ member: name }))).await;
                is_refused(&patched, &format!("/{member}"), &name);
            }
        }
        for (method, path, body, pointer) in [
            (
                "POST",
                "/v1/apps/default/admin/users",
                json!({"email": "new@example.com", "name": name}),
                "/name",
            ),
            ("POST", "/v1/apps", json!({"app_id": "new", "name": name}), "/name"),
            ("PATCH", "/v1/apps/default", json!({ "name": name }), "/name"),
            (
                "PATCH",
                "/v1/apps/default",
                json!({"settings": {"branding": {"name": name}}}),
                "/settings/branding/name",
            ),
            (
                "POST",
                "/v1/apps/default/admin/api-keys",
                json!({"name": name, "permissions": ["users:read"]}),
                "/name",
            ),
        ] {
            // An empty text removes the branding's name.
            if !(name.is_empty() && pointer == "/settings/branding/name") {
                is_refused(&world.by_platform(method, path, Some(body)).await, pointer, &name);
            }
        }
        if !matches!(name.as_str(), "") {
            let banned =
                world.by_platform("POST", &format!("{user}/ban"), Some(json!({ "reason": name }))).await;
            is_refused(&banned, "/reason", &name);
        }
    }
    assert_eq!(world.all_events().await, before, "nothing was written");
    for name in ["می\u{200c}خواهم", "👩\u{200d}💻 Ada", "יעל", " Ada "] {
        let patched = world
            .call("PATCH", "/v1/apps/default/auth/me", Some(&token), Some(json!({ "name": name })))
            .await;
        assert_eq!(
            (patched.status.as_u16(), &patched.body["name"]),
            (200, &json!(name.trim())),
            "{}",
            patched.body
        );
    }
    let reason = "spam\nin three rooms";
    let banned = world.by_platform("POST", &format!("{user}/ban"), Some(json!({ "reason": reason }))).await;
    assert_eq!(banned.status, 200, "{}", banned.body);
}

#[tokio::test]
async fn blanks_around_an_address_are_no_part_of_it() {
    let world = World::start().await;
    world.set(json!({"redirect_uris": ["https://app.example/cb"]})).await;
    for (number, blanks) in [" ", "  ", "\t", "\n", "\r\n", "\u{a0}", "\u{3000}"].into_iter().enumerate() {
        let plain = format!("ada{number}@example.com");
        for address in
            [format!("{blanks}{plain}"), format!("{plain}{blanks}"), format!("{blanks}{plain}{blanks}")]
        {
            let registered = world.register(&address).await;
            if registered.status == 201 {
                assert_eq!(registered.body["user"]["email"], plain);
            } else {
                assert_eq!(registered.code(), "email_taken", "{address:?}: {}", registered.body);
            }
            assert_eq!(world.login(&address, PASSWORD).await.status, 200, "{address:?}");
            let made = world
                .by_platform("POST", "/v1/apps/default/admin/users", Some(json!({ "email": address })))
                .await;
            assert_eq!((made.status.as_u16(), made.code()), (409, "email_taken"), "{}", made.body);
        }
    }
    for (route, event) in [
        ("password-reset/request", "PasswordResetRequested"),
        ("email-verification/request", "EmailVerificationRequested"),
        ("magic-link", "MagicLinkIssued"),
    ] {
        let mut body = json!({"email": "\u{a0}ada0@example.com \n"});
        if route == "magic-link" {
            body["redirect_uri"] = json!("https://app.example/cb");
        }
        assert_eq!(world.auth(route, body).await.status, 202, "{route}");
        assert_eq!(world.events(event).await, 1, "{route}: the mail goes to the owner of the address");
    }
    let made = json!({"email": " eve@example.com\n"});
    let made = world.by_platform("POST", "/v1/apps/default/admin/users", Some(made)).await;
    assert_eq!((made.status.as_u16(), &made.body["email"]), (201, &json!("eve@example.com")));
    let tokens = world.login("ada0@example.com", PASSWORD).await;
    let change = json!({"new_email": " grace@example.com ", "password": PASSWORD});
    let changed = world
        .call("POST", "/v1/apps/default/auth/email/change", Some(&tokens.text("access_token")), Some(change))
        .await;
    assert_eq!(changed.status, 202, "{}", changed.body);
    world.auth("email/change/confirm", json!({"token": world.token("EmailChangeRequested").await})).await;
    assert_eq!(world.login("grace@example.com", PASSWORD).await.status, 200);
    // Inner spaces make an address invalid, and a password is never trimmed.
    assert_eq!(world.register("a da@example.com").await.code(), "invalid_email");
    assert_eq!(world.login("grace@example.com", &format!("{PASSWORD} ")).await.code(), "invalid_credentials");
}

#[tokio::test]
async fn every_setting_with_a_url_has_one_rule_for_hosts() {
    let world = World::start().await;
    let refused = [
        "*.example",
        "*",
        "$(id).example",
        "a..b",
        "a_b.example",
        "-a.example",
        "a.example.",
        "b\u{fc}cher.example",
    ];
    for host in refused {
        let url = format!("https://{host}/cb");
        for (settings, pointer) in [
            (json!({"redirect_uris": [url]}), "redirect_uris"),
            (json!({"origins": [format!("https://{host}")]}), "origins"),
            (json!({"links": {"password_reset": url}}), "links/password_reset"),
            (json!({"links": {"email_verification": url}}), "links/email_verification"),
            (json!({"links": {"email_change": url}}), "links/email_change"),
            (json!({"links": {"invitation": url}}), "links/invitation"),
            (json!({"branding": {"logo": url}}), "branding/logo"),
        ] {
            let patched =
                world.by_platform("PATCH", "/v1/apps/default", Some(json!({ "settings": settings }))).await;
            is_refused(&patched, &format!("/settings/{pointer}"), host);
        }
        let registered = json!({"email": ADA, "password": PASSWORD, "avatar_url": url});
        is_refused(&world.auth("register", registered).await, "/avatar_url", host);
    }
    let host = "xn--bcher-kva.example";
    world
        .set(json!({"redirect_uris": [format!("https://{host}/cb")], "origins": [format!("https://{host}"), "https://[2001:db8::1]"],
            "branding": {"logo": format!("https://{host}:8443/logo.png")}}))
        .await;
    let policy = &world.get("password-reset?token=x").await.headers["content-security-policy"];
    assert!(policy.to_str().expect("ASCII").contains(&format!("img-src https://{host}:8443;")), "{policy:?}");
}

#[tokio::test]
async fn mails_come_from_the_domains_that_the_operator_lists() {
    let world = World::start().await;
    let set = async |sender: &str| {
        let body = json!({"settings": {"branding": {"sender": sender}}});
        world.by_platform("PATCH", "/v1/apps/default", Some(body)).await
    };
    for foreign in
        ["service@bank.example", "a@mail.auth.example", "a@auth.example.evil.example", "a@example.com"]
    {
        is_refused(&set(foreign).await, "/settings/branding/sender", foreign);
        let new = json!({"app_id": "new", "name": "New", "settings": {"branding": {"sender": foreign}}});
        is_refused(
            &world.by_platform("POST", "/v1/apps", Some(new)).await,
            "/settings/branding/sender",
            foreign,
        );
    }
    for own in ["acme@auth.example", " Acme@AUTH.example "] {
        assert_eq!(set(own).await.status, 200, "{own}");
    }
    // Everything else can still be changed, and the sender removed.
    world.set(json!({"branding": {"colour": "#0a66c2"}, "access_token_ttl": 60})).await;
    world.set(json!({"branding": {"sender": ""}})).await;
}
