use futures::future::join_all;
use serde_json::{Value, json};
use tests::{App, PASSWORD, Server, assert_gapless, email, of_type};

const CALLBACK: &str = "https://client.example/callback";

async fn app(server: &Server) -> (App<'_>, String) {
    let app = server.create_app(json!({"delivery": "app", "redirect_uris": [CALLBACK]})).await;
    let (_, key) = app.api_key(&["users:write"]).await;
    (app, key)
}

fn ask(address: &str) -> Value {
    json!({"email": address, "redirect_uri": CALLBACK, "state": "opaque"})
}

async fn redeem(app: &App<'_>, token: &str) -> String {
    let pressed = app.post("auth/magic-link/verify").json(&json!({ "token": token })).await.expect(303);
    let location = pressed.header("location").expect("a redirect says where to").to_owned();
    let query = location.strip_prefix(&format!("{CALLBACK}?code=")).expect("it leads to the app");
    query.strip_suffix("&state=opaque").expect("with the state as it was").to_owned()
}

#[tokio::test]
async fn a_scanner_does_not_use_up_a_link_and_the_person_logs_in() {
    let server = Server::start().await;
    let (app, key) = app(&server).await;
    let token = app.mailed_token(&key, "magic-link", &ask(&email("ada"))).await;
    let head = server.events().await.len();
    let path = app.path(&format!("auth/magic-link/verify?token={token}"));
    for method in ["HEAD", "GET", "GET", "HEAD", "GET"] {
        let page = server.call(method.parse().unwrap(), &path).await.expect(200);
        assert!(page.is_page(), "{:?}", page.headers);
    }
    assert_eq!(server.events().await.len(), head);
    let code = redeem(&app, &token).await;
    let tokens = app.post("auth/exchange").json(&json!({ "code": code })).await.expect(200).tokens();
    assert_eq!(tokens.user["email_verified"], true);
    app.me(&tokens.access).await.expect(200);
    assert_gapless(&server.events().await);
}

#[tokio::test]
async fn inv_g_fifty_at_once_redeem_one_link_and_make_one_session() {
    let server = Server::start().await;
    let (app, key) = app(&server).await;
    let token = app.mailed_token(&key, "magic-link", &ask(&email("ada"))).await;
    let body = json!({ "token": token });
    let tries = (0..50).map(|_| async { app.post("auth/magic-link/verify").json(&body).await });
    let answers = join_all(tries).await;
    let mut redirects = answers.iter().filter(|answer| answer.status == 303);
    let location = redirects.next().expect("one is let through").header("location").unwrap().to_owned();
    assert!(redirects.next().is_none(), "and no other");
    for answer in answers.iter().filter(|answer| answer.status != 303) {
        answer.problem(400, "invalid_or_expired_token");
    }
    let code = location.split("code=").nth(1).unwrap().split('&').next().unwrap();
    let tokens = app.post("auth/exchange").json(&json!({ "code": code })).await.expect(200).tokens();
    let events = server.events().await;
    for name in ["MagicLinkRedeemed", "ExchangeCodeRedeemed", "UserRegistered", "SessionStarted"] {
        assert_eq!(of_type(&events, name).len(), 1, "{name}");
    }
    // Presenting the code again ends the session.
    app.post("auth/exchange").json(&json!({ "code": code })).await.problem(400, "invalid_or_expired_code");
    app.me(&tokens.access).await.problem(401, "unauthenticated");
    app.refresh(&tokens.refresh).await.problem(401, "session_revoked");
}

#[tokio::test]
async fn inv_q_an_account_that_was_made_before_its_owner_came_is_theirs_alone() {
    let server = Server::start().await;
    let (app, key) = app(&server).await;
    let address = email("victim");
    let squatter = app.register(&address).await;
    let code = redeem(&app, &app.mailed_token(&key, "magic-link", &ask(&address)).await).await;
    app.me(&squatter.access).await.problem(401, "unauthenticated");
    app.refresh(&squatter.refresh).await.problem(401, "session_revoked");
    app.login(&address, PASSWORD).await.problem(401, "invalid_credentials");
    let exchanged = app.post("auth/exchange").json(&json!({ "code": code })).await.expect(200);
    let owner = exchanged.tokens();
    assert_eq!(owner.user_id, squatter.user_id);
    let sessions = app.get("auth/sessions").header("consistency-token", exchanged.consistency());
    let sessions = sessions.bearer(&owner.access).await.expect(200).json();
    assert_eq!(sessions["total"], 1, "{sessions}");
}

#[tokio::test]
async fn only_the_exact_redirect_uri_passes() {
    let server = Server::start().await;
    let (app, key) = app(&server).await;
    let head = server.events().await.len();
    for trick in [
        "https://client.example/callback/",
        "https://client.example/callbackevil",
        "https://client.example/callback?x",
        "https://client.example/callback#",
        "https://client.example/callback/../evil",
        "https://client.example/%63allback",
        "https://client.example/%2e%2e/callback",
        "https://client.example/Callback",
        "https://client.example/callback%00",
        "https://client.example/callback\t",
        " https://client.example/callback",
        "https://CLIENT.example/callback",
        "https://client.example./callback",
        "https://client.example:443/callback",
        "https://user@client.example/callback",
        "https://client.example@evil.example/callback",
        "https://client.example\\@evil.example/callback",
        "https:\\\\client.example\\callback",
        "https://client.example.evil.example/callback",
        "https://client\u{ff0e}example/callback",
        "https://client.example/callback\r\nSet-Cookie: a=b",
        "https://2130706433/callback",
        "https://0x7f.1/callback",
        "https://[::ffff:7f00:1]/callback",
        "http://client.example/callback",
        "javascript://client.example/callback",
        "data:text/html,callback",
        "//client.example/callback",
    ] {
        let body = json!({"email": email("ada"), "redirect_uri": trick});
        for route in ["auth/magic-link", "auth/magic-link/resend"] {
            let answer = app.post(route).bearer(&key).json(&body).await;
            answer.problem(422, "redirect_uri_not_allowed");
        }
    }
    assert_eq!(server.events().await.len(), head);
}
