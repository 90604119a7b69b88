//! What strangers cannot do to users: requests to the binary from many addresses.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use test_services::Smtp;
use tests::{Answer, App, Call, PASSWORD, PATIENCE, Server, email, of_type};

const NEW: &str = "Another-kettle-17-quay";
const CALLBACK: &str = "https://client.example/callback";

/// Limits are on, and the proxy says where a request comes from.
const BEHIND_A_PROXY: [(&str, &str); 5] = [
    ("WATCHWORD_RATE_LIMITS", "on"),
    ("WATCHWORD_TRUSTED_PROXIES", "127.0.0.0/8"),
    // So slow that no tokens of the bucket return meanwhile.
    ("WATCHWORD_LIMITS_MAILBOX", "5/36000"),
    ("WATCHWORD_LIMITS_MAILS", "8/36000"),
    ("WATCHWORD_LIMITS_KNOWN_MAILS", "3/36000"),
];

fn from(call: Call, address: &str) -> Call {
    call.header("x-forwarded-for", address)
}

fn strangers() -> impl Iterator<Item = String> {
    (1..=12).map(|n| format!("198.51.100.{n}"))
}

fn device(answer: &Answer) -> String {
    answer.header("device-token").expect("a device token").to_owned()
}

async fn count(server: &Server, kind: &str) -> usize {
    of_type(&server.events().await, kind).len()
}

async fn register(app: &App<'_>, address: &str) -> Answer {
    app.post("auth/register").json(&json!({"email": address, "password": PASSWORD})).await.expect(201)
}

#[tokio::test]
async fn inv_w_wrong_logins_of_strangers_do_not_keep_the_owner_out() {
    let mut server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    let own = device(&register(&app, &address).await);
    let other = register(&app, &email("bob")).await;
    for _ in 0..12 {
        app.login(&address, "wrong-Kettle-93").await;
    }
    app.login(&address, PASSWORD).await.problem(429, "rate_limited");
    app.login(&address, PASSWORD).header("device-token", &own).await.expect(200);
    app.login(&address, PASSWORD).bearer(&other.tokens().access).await.problem(429, "rate_limited");
    let of_another = device(&other);
    app.login(&address, PASSWORD).header("device-token", &of_another).await.problem(429, "rate_limited");
    let id = app.id.clone();
    // The server does not store device tokens: one still works after a restart, and the lock in the log remains for
    // strangers.
    server.terminate().await;
    server.up().await;
    let app = server.app(&id);
    app.login(&address, PASSWORD).header("device-token", &own).await.expect(200);
    app.login(&address, PASSWORD).await.problem(401, "invalid_credentials");
    // Guesses with it are bounded too.
    for _ in 0..10 {
        let guess = app.login(&address, "wrong-Kettle-93").header("device-token", &own).await;
        guess.problem(401, "invalid_credentials");
    }
    let locked = app.login(&address, PASSWORD).header("device-token", &own).await;
    locked.problem(429, "rate_limited");
    assert!(locked.header("retry-after").is_some());
}

#[tokio::test]
async fn after_a_restart_a_lock_tells_nothing_of_who_has_an_account() {
    let mut server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let id = app.id.clone();
    let (known, unknown) = (email("known"), email("unknown"));
    register(&app, &known).await;
    for address in [&known, &unknown] {
        for _ in 0..11 {
            app.login(address, "wrong-Kettle-93").await;
        }
        app.login(address, "wrong-Kettle-93").await.problem(429, "rate_limited");
    }
    server.terminate().await;
    server.up().await;
    let app = server.app(&id);
    for n in 0..13 {
        // The right password too: it must not reveal that the address is known.
        let answers = [app.login(&known, PASSWORD).await, app.login(&unknown, PASSWORD).await];
        assert_eq!(answers[0].status, answers[1].status, "{n}");
        assert_eq!(answers[0].anonymous_problem(), answers[1].anonymous_problem(), "{n}");
        let names = |it: &Answer| it.headers.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&answers[0]), names(&answers[1]), "{n}");
        assert_eq!(answers[0].status, if n < 10 { 401 } else { 429 }, "{n}");
    }
    assert_eq!(count(&server, "LoginFailed").await, 10, "inv_c");
}

#[tokio::test]
async fn inv_w_strangers_spend_nothing_that_the_owner_needs() {
    let server = Server::start_with(&BEHIND_A_PROXY).await;
    let app = server.create_app(json!({"delivery": "platform"})).await;
    let (address, home) = (email("ada"), "192.0.2.7");
    let device = device(&register(&app, &address).await);
    let ask = |route: &str, address: &str, from_where: &str| {
        from(app.post(&format!("auth/{route}")).json(&json!({ "email": address })), from_where)
    };
    // Requests that send nothing, because the address is unknown or already verified, spend nothing.
    for stranger in strangers() {
        for _ in 0..5 {
            ask("email-verification/request", &email("nobody"), &stranger).await.expect(202);
        }
    }
    let before = count(&server, "PasswordResetRequested").await;
    ask("password-reset/request", &address, home).await.expect(202);
    assert_eq!(count(&server, "PasswordResetRequested").await, before + 1);
    // Those that send something are bounded. All were processed, and the answers reveal nothing.
    for stranger in strangers() {
        for _ in 0..3 {
            let answers = [
                ask("password-reset/request", &address, &stranger).await.expect(202),
                ask("password-reset/request", &email("nobody"), &stranger).await.expect(202),
            ];
            assert_eq!(answers[0].json(), answers[1].json());
        }
    }
    assert_eq!(count(&server, "PasswordResetRequested").await, before + 8);
    ask("password-reset/request", &address, home).header("device-token", &device).await.expect(202);
    assert_eq!(count(&server, "PasswordResetRequested").await, before + 9, "the reserve");
    ask("email-verification/request", &address, home).await.expect(202);
    assert_eq!(count(&server, "EmailVerificationRequested").await, 1, "each purpose has its own limit");
    for _ in 0..4 {
        ask("password-reset/request", &address, home).await;
    }
    ask("password-reset/request", &address, home).await.problem(429, "rate_limited");
}

/// The newest mailed token of a kind, once there is one.
async fn mailed(server: &Server, prefix: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(token) = newest_token(server, prefix) {
            return token;
        }
        assert!(Instant::now() < deadline, "no mail with {prefix}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn newest_token(server: &Server, prefix: &str) -> Option<String> {
    let mut mails: Vec<_> = tests::files_under(&server.data().join("outbox"))
        .into_iter()
        .map(|(path, bytes)| (std::fs::metadata(&path).and_then(|it| it.modified()).expect("a time"), bytes))
        .collect();
    mails.sort();
    mails.iter().rev().find_map(|(_, bytes)| {
        let text = String::from_utf8_lossy(bytes).replace("=\r\n", "").replace("=3D", "=");
        let start = text.find(&format!("token={prefix}"))? + "token=".len();
        let token =
            text[start..].split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').next()?;
        Some(token.to_owned())
    })
}

#[tokio::test]
async fn inv_w_asking_again_by_somebody_else_kills_no_link() {
    let server = Server::start().await;
    let app = server.create_app(json!({"redirect_uris": [CALLBACK]})).await;
    let address = email("ada");
    register(&app, &address).await;
    // A new password ends links, so this uses another user's.
    let other = email("grace");
    register(&app, &other).await;
    app.post("auth/password-reset/request").json(&json!({ "email": address })).await.expect(202);
    let reset = mailed(&server, "wwp_").await;
    for _ in 0..12 {
        app.post("auth/forgot-password").json(&json!({ "email": address })).await.expect(202);
    }
    let body = json!({"email": other, "redirect_uri": CALLBACK});
    app.post("auth/magic-link").json(&body).await.expect(202);
    let link = mailed(&server, "wwm_").await;
    for _ in 0..3 {
        app.post("auth/magic-link/resend").json(&body).await.expect(202);
    }
    let body = json!({"token": reset, "new_password": NEW});
    app.post("auth/password-reset/confirm").json(&body).await.expect(204);
    app.post("auth/magic-link/verify").json(&json!({ "token": link })).await.expect(303);
}

#[tokio::test]
async fn an_apps_server_logs_people_in_from_one_address() {
    let server = Server::start_with(&[
        ("WATCHWORD_RATE_LIMITS", "on"),
        ("WATCHWORD_LIMITS_CREDENTIALS", "20/3600"),
        ("WATCHWORD_LIMITS_PERSON", "12/3600"),
    ])
    .await;
    let app = server.create_app(json!({})).await;
    let (_, key) = app.api_key(&["users:write"]).await;
    let people = [email("ada"), email("bob"), email("cleo")];
    for address in &people {
        let body = json!({"email": address, "password": PASSWORD});
        app.post("auth/register").bearer(&key).json(&body).await.expect(201);
    }
    for n in 0..36 {
        app.login(&people[n % 3], PASSWORD).bearer(&key).await.expect(200);
    }
    app.login(&people[0], PASSWORD).bearer(&key).await.problem(429, "rate_limited");
    // An office behind one address: successful logins do not count, failed ones do.
    for n in 0..30 {
        app.login(&people[n % 3], PASSWORD).await.expect(200);
    }
    let mut statuses = vec![];
    for n in 0..25 {
        statuses.push(app.login(&email(&format!("nobody-{n}")), PASSWORD).await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 20, "{statuses:?}");
    assert!(statuses.ends_with(&[429; 5]), "{statuses:?}");
}

/// A mail server without SMTPUTF8.
#[tokio::test]
async fn an_address_that_the_mail_server_cannot_send_to_is_refused_where_a_mail_is_needed() {
    for takes_utf8 in [false, true] {
        let smtp = if takes_utf8 { Smtp::start_with_utf8() } else { Smtp::start() };
        let server = Server::start_with(&[("WATCHWORD_MAIL_URL", smtp.url().as_str())]).await;
        let strict =
            server.create_app(json!({"require_verified_email": true, "redirect_uris": [CALLBACK]})).await;
        let open = server.create_app(json!({"redirect_uris": [CALLBACK]})).await;
        let body = |address: &str| json!({"email": address, "password": PASSWORD});
        let link = |address: &str| json!({"email": address, "redirect_uri": CALLBACK});
        for address in ["jörg@example.com", "用户@example.com", "ada.é+x@example.com"] {
            let asked = [
                strict.post("auth/register").json(&body(address)).await,
                strict.post("auth/magic-link").json(&link(address)).await,
                open.post("auth/password-reset/request").json(&json!({ "email": address })).await,
                open.post("auth/email-verification/request").json(&json!({ "email": address })).await,
            ];
            for answer in asked {
                if takes_utf8 {
                    answer.expect(202);
                } else {
                    let problem: Value = answer.problem(422, "invalid_email");
                    assert_eq!(problem["errors"][0]["pointer"], "/email");
                    let detail = problem["detail"].as_str().expect("a detail");
                    assert!(detail.contains("SMTPUTF8") && detail.contains("another address"), "{detail}");
                }
            }
            // This app needs no mail.
            open.post("auth/register").json(&body(address)).await.expect(201);
        }
        // Letters of a domain have an ASCII form.
        strict.post("auth/register").json(&body("ada@bücher.example")).await.expect(202);
    }
}
