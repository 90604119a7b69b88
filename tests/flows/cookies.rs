use serde_json::{Value, json};
use tests::{Answer, App, Call, PASSWORD, Server, email};

/// With an https URL, as in production: `http` on this machine has other cookies.
const SECURE: &[(&str, &str)] = &[("WATCHWORD_PUBLIC_URL", "https://auth.example")];

/// The values of a session's three cookies that an answer sets. An answer that ends the session keeps the fourth
/// cookie, which marks a known device.
fn set(app: &App<'_>, answer: &Answer) -> [String; 3] {
    let all: Vec<_> =
        answer.headers.get_all("set-cookie").iter().map(|it| it.to_str().expect("ASCII")).collect();
    let device = format!("__Host-ww-{}-device=wwd_", app.id);
    let device = all.iter().find_map(|it| it.strip_prefix(device.as_str()));
    assert!(device.is_none_or(|it| it.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax")), "{all:?}");
    let is_over = all.iter().all(|it| it.contains("Max-Age=0;"));
    assert_eq!((all.len(), device.is_some()), if is_over { (3, false) } else { (4, true) }, "{all:?}");
    ["access", "refresh", "csrf"].map(|kind| {
        let start = format!("__Host-ww-{}-{kind}=", app.id);
        let cookie = all.iter().find_map(|it| it.strip_prefix(start.as_str())).expect("one of each");
        let (value, flags) = cookie.split_once("; ").expect("a cookie has flags");
        let hidden = if kind == "csrf" { "" } else { "HttpOnly; " };
        let (age, rest) = flags.split_once("; ").expect("a cookie has flags");
        assert!(age.starts_with("Max-Age="), "{flags}");
        assert_eq!(rest, format!("Path=/; Secure; {hidden}SameSite=Lax"));
        assert_eq!(age == "Max-Age=0", value.is_empty());
        value.to_owned()
    })
}

fn with(call: Call, app: &App<'_>, [access, refresh, csrf]: &[String; 3]) -> Call {
    let id = &app.id;
    let text = format!(
        "theme=dark; __Host-ww-{id}-access={access}; __Host-ww-{id}-refresh={refresh}; __Host-ww-{id}-csrf={csrf}"
    );
    call.header("cookie", &text)
}

#[tokio::test]
async fn a_page_needs_no_more_than_its_cookies() {
    let server = Server::start_with(SECURE).await;
    let app = server.create_app(json!({"cookies": true, "refresh_grace": 0})).await;
    let address = email("ada");
    let body = json!({"email": address, "password": PASSWORD});
    let mine = set(&app, &app.post("auth/register").json(&body).await.expect(201));
    let other = set(&app, &app.login(&address, PASSWORD).await.expect(200));
    with(app.get("auth/me"), &app, &mine).await.expect(200);
    with(app.get("auth/sessions"), &app, &mine).await.expect(200);

    let planted = [mine[0].clone(), mine[1].clone(), other[2].clone()];
    for (cookies, sent) in [(&mine, ""), (&mine, "x"), (&mine, &*other[2]), (&planted, &other[2])] {
        let refused = |call: Call| with(call, &app, cookies).header("x-csrf-token", sent);
        refused(app.patch("auth/me")).json(&json!({"name": "Eve"})).await.problem(403, "forbidden");
        refused(app.post("auth/refresh")).await.problem(403, "forbidden");
        refused(app.post("auth/logout")).await.problem(403, "forbidden");
        refused(app.delete(&format!("auth/sessions/{}", uuid_of(&mine)))).await.problem(403, "forbidden");
    }

    let sure =
        |call: Call, cookies: &[String; 3]| with(call, &app, cookies).header("x-csrf-token", &cookies[2]);
    sure(app.patch("auth/me"), &mine).json(&json!({"name": "Ada"})).await.expect(200);
    let next = set(&app, &sure(app.post("auth/refresh"), &mine).await.expect(200));
    assert_ne!(next[1], mine[1]);
    assert_eq!(next[2], mine[2], "open pages of the session still work");
    let cleared = set(&app, &sure(app.post("auth/logout"), &next).await.expect(204));
    assert_eq!(cleared, ["", "", ""]);
    with(app.get("auth/me"), &app, &next).await.problem(401, "unauthenticated");
}

/// The session of an access cookie.
fn uuid_of(cookies: &[String; 3]) -> String {
    tests::claims_of(&cookies[0])["sid"].as_str().expect("a session").to_owned()
}

#[tokio::test]
async fn cookies_count_only_in_their_own_app() {
    let server = Server::start_with(SECURE).await;
    let app = server.create_app(json!({"cookies": true})).await;
    let other = server.create_app(json!({"cookies": true})).await;
    let off = server.create_app(json!({})).await;
    let address = email("ada");
    let body = json!({"email": address, "password": PASSWORD});
    let mine = set(&app, &app.post("auth/register").json(&body).await.expect(201));
    with(other.get("auth/me"), &app, &mine).await.problem(401, "unauthenticated");
    with(other.get("auth/me"), &other, &mine).await.problem(401, "unauthenticated");

    let answer = off.post("auth/register").json(&body).await.expect(201);
    assert!(!answer.headers.contains_key("set-cookie"));
    let tokens = answer.tokens();
    let cookies = [tokens.access.clone(), tokens.refresh, mine[2].clone()];
    with(off.get("auth/me"), &off, &cookies).await.problem(401, "unauthenticated");
    with(off.post("auth/logout"), &off, &cookies).await.problem(401, "unauthenticated");
    let refresh = with(off.post("auth/refresh"), &off, &cookies).json(&json!({})).await;
    refresh.problem(400, "malformed_request");
    with(off.patch("auth/me"), &off, &cookies)
        .bearer(&tokens.access)
        .json(&json!({"name": "A"}))
        .await
        .expect(200);
}

/// Collects members, at any depth, that are tokens: an access token has three parts, a refresh token a prefix.
fn tokens_in(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.values().for_each(|value| tokens_in(value, found)),
        Value::Array(items) => items.iter().for_each(|value| tokens_in(value, found)),
        Value::String(text) if text.starts_with("wwr_") || text.starts_with("eyJ") => {
            found.push(text.clone());
        }
        _ => {}
    }
}

#[tokio::test]
async fn no_body_contains_a_token() {
    let server = Server::start_with(SECURE).await;
    let callback = "https://client.example/callback";
    let app = server.create_app(json!({"delivery": "app", "redirect_uris": [callback]})).await;
    let admin = email("admin");
    let admin_id = app.register_admin(&admin).await.user_id;
    let patch = json!({"settings": {"cookies": true}});
    server
        .patch(format!("/v1/apps/{}", app.id))
        .bearer(&server.platform_key())
        .json(&patch)
        .await
        .expect(200);
    let (_, key) = app.api_key(&["users:write", "tokens:create"]).await;
    let address = email("ada");
    let body = json!({"email": address, "password": PASSWORD});
    let mut answers = Vec::new();
    for again in ["k", "k", "l"] {
        let login = app.post("auth/login").json(&body).header("idempotency-key", again);
        let register = app.post("auth/register").json(&body).header("idempotency-key", "register");
        answers.push(register.await.expect(201));
        answers.push(login.await.expect(200));
    }
    let signup = json!({"email": email("grace"), "password": PASSWORD});
    answers.push(app.post("auth/signup").json(&signup).await.expect(201));
    let mut mine = set(&app, &answers[0]);
    for again in ["a", "a", "b"] {
        let call = with(app.post("auth/refresh"), &app, &mine).header("x-csrf-token", &mine[2]);
        let answer = call.header("idempotency-key", again).await.expect(200);
        if again == "b" {
            mine = set(&app, &answer);
        }
        answers.push(answer);
    }
    // A client that sends a refresh token in the body gets the next one as a cookie too.
    answers.push(app.post("auth/refresh").json(&json!({"refresh_token": mine[1]})).await.expect(200));
    let ask = json!({"email": address, "redirect_uri": callback});
    let token = app.mailed_token(&key, "magic-link", &ask).await;
    let pressed = app.post("auth/magic-link/verify").json(&json!({ "token": token })).await.expect(303);
    let code = pressed.header("location").expect("there").split("code=").nth(1).expect("a code").to_owned();
    for _ in 0..2 {
        let exchange =
            app.post("auth/exchange").json(&json!({ "code": code })).header("idempotency-key", "e");
        answers.push(exchange.await.expect(200));
    }
    for answer in &answers {
        let body = answer.json();
        let mut found = Vec::new();
        tokens_in(&body, &mut found);
        assert!(found.is_empty(), "{body}");
        assert!(body.get("access_token").is_none() && body.get("refresh_token").is_none(), "{body}");
        assert!(
            body["session_id"].is_string() && body["expires_in"].is_u64() && body["user"]["id"].is_string()
        );
        set(&app, answer);
    }

    // An admin's page cannot get a token of any user; their server can.
    let cookies = set(&app, &app.login(&admin, PASSWORD).await.expect(200));
    let test_token = |user: &str| app.post(&format!("admin/users/{user}/access-tokens"));
    let by_page = with(test_token(&admin_id), &app, &cookies).header("x-csrf-token", &cookies[2]);
    by_page.json(&json!({"duration_minutes": 1})).await.problem(403, "forbidden");
    let answer = answers[0].json();
    let user = answer["user"]["id"].as_str().expect("an id");
    test_token(user).bearer(&key).json(&json!({"duration_minutes": 1})).await.expect(201);
}

#[tokio::test]
async fn on_this_machine_browsers_keep_the_cookies_and_the_log_says_what_they_lack() {
    let server = Server::start().await;
    let app = server.create_app(json!({"cookies": true})).await;
    assert!(!server.log().contains("for development only"));
    let body = json!({"email": email("ada"), "password": PASSWORD});
    let answer = app.post("auth/register").json(&body).await.expect(201);
    let cookies: Vec<_> =
        answer.headers.get_all("set-cookie").iter().map(|it| it.to_str().expect("ASCII")).collect();
    assert_eq!(cookies.len(), 4);
    for (cookie, kind) in cookies.iter().zip(["access", "refresh", "csrf", "device"]) {
        assert!(cookie.starts_with(&format!("ww-{}-{kind}=", app.id)), "{cookie}");
        assert!(!cookie.contains("Secure") && cookie.ends_with("SameSite=Lax"), "{cookie}");
        assert_eq!(cookie.contains("HttpOnly"), kind != "csrf");
    }
    let jar = cookies.iter().map(|it| it.split(';').next().expect("one")).collect::<Vec<_>>().join("; ");
    app.get("auth/me").header("cookie", &jar).await.expect(200);
    app.post("auth/refresh").header("cookie", &jar).await.problem(403, "forbidden");
    let csrf = cookies[2].split_once('=').expect("a value").1.split(';').next().expect("one");
    app.post("auth/refresh").header("cookie", &jar).header("x-csrf-token", csrf).await.expect(200);
    // The cookie names of production are not accepted here, nor these there.
    app.get("auth/me")
        .header("cookie", &jar.replace("ww-", "__Host-ww-"))
        .await
        .problem(401, "unauthenticated");
    server.says("for development only").await;
}
