//! n: no raw secret and no unsealed personal data in any stored byte, in any line of the log, or in a trace.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use test_services::{Nats, Postgres, Smtp};
use tests::collector::Collector;
use tests::{Answer, App, PATIENCE, Server, Tokens, files_under, of_type, until};

const ADDRESS: &str = "xenia.quixote@privacy-example.org";
const PASSWORD: &str = "Zanzibar-ferry-4711";
const WRONG: &str = "Zanzibar-guess-0815";
const AGENT: &str = "Quixotic-Browser/77.3";
/// The client's address according to the proxy, from the range for documentation (RFC 5737).
const IP: &str = "203.0.113.77";
const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NAME: &str = "Xenia Quixote";
const PHONE: &str = "+49 555 123 4567";
const AVATAR: &str = "https://privacy-example.org/xenia.png";

/// What must be found nowhere. It grows with every issued token.
struct Secrets(Vec<String>);

impl Secrets {
    fn new() -> Self {
        let known =
            [ADDRESS, "privacy-example", "quixot", PASSWORD, WRONG, IP, NAME, PHONE, "555 123", AVATAR];
        let shapes = ["$argon2id$", "-----BEGIN"];
        Self(known.into_iter().chain(shapes).map(str::to_owned).collect())
    }

    fn add(&mut self, secret: &str) {
        assert!(secret.len() > 20, "{secret} is too short to be told from chance");
        self.0.push(secret.to_owned());
    }

    fn tokens(&mut self, answer: &Answer) -> Tokens {
        let tokens = answer.tokens();
        self.add(&tokens.refresh);
        self.access(&tokens.access);
        tokens
    }

    /// Adds the whole token, and its signature.
    fn access(&mut self, token: &str) {
        self.add(token);
        self.add(token.rsplit('.').next().unwrap());
    }

    fn cookies(&mut self, answer: &Answer) {
        for cookie in answer.headers.get_all("set-cookie") {
            let value = cookie.to_str().unwrap().split_once('=').unwrap().1.split(';').next().unwrap();
            if !value.is_empty() {
                self.add(value);
            }
        }
    }

    /// The first secret that is in the text, ignoring case.
    fn found_in(&self, bytes: &[u8]) -> Option<&str> {
        let text = String::from_utf8_lossy(bytes).to_lowercase();
        self.0.iter().find(|secret| text.contains(&secret.to_lowercase())).map(String::as_str)
    }
}

/// A request of Xenia's browser, through the proxy.
fn browsing(call: tests::Call) -> tests::Call {
    call.header("user-agent", AGENT).header("x-forwarded-for", IP)
}

#[tokio::test]
async fn inv_n_no_secret_and_no_personal_data_in_any_stored_byte_log_line_or_trace() {
    let nats = Nats::start();
    let files = after_all_flows(&[("WATCHWORD_NATS_URL", &nats.url())], nats.store()).await;
    // While the server runs, the write-ahead logs contain what the files do not yet; after a kill they remain.
    assert!(files.iter().any(|(path, bytes)| path.ends_with("journal.db-wal") && !bytes.is_empty()));
}

#[tokio::test]
async fn inv_n_neither_in_any_byte_that_postgresql_stores() {
    let postgres = Postgres::start();
    let settings =
        [("WATCHWORD_JOURNAL_URL", postgres.database()), ("WATCHWORD_MASTER_KEY", MASTER_KEY.to_owned())];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let files = after_all_flows(&settings, &postgres.data()).await;
    assert!(files.iter().any(|(path, _)| path.to_string_lossy().contains("/pg_wal/")));
}

/// Does everything that users and admins do, and searches the server's files, those of the store or bus in the folder
/// beside it, its log, its traces and its exports. Returns the files as they were before the server was killed.
async fn after_all_flows(settings: &[(&str, &str)], beside: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    // The most verbose logging, of the server and every library in it.
    let (collector, smtp) = (Collector::start().await, Smtp::start());
    let (endpoint, mail) = (collector.endpoint(), smtp.url());
    let verbose = [
        ("WATCHWORD_LOG", "trace"),
        ("WATCHWORD_TRUSTED_PROXIES", "127.0.0.0/8"),
        ("WATCHWORD_OTLP_ENDPOINT", &endpoint),
        ("WATCHWORD_MAIL_URL", &mail),
    ];
    let mut server = Server::start_with(&[&verbose[..], settings].concat()).await;
    let mut secrets = Secrets::new();
    {
        let app = server.create_app(json!({"redirect_uris": ["https://client.example/back"]})).await;
        let xenia = comes_and_goes(&app, &mut secrets).await;
        is_administered(&app, &xenia, &mut secrets).await;
        cannot_be_read(&app, &xenia).await;
        gets_mail(&server, &mut secrets).await;
        is_mailed(&server, &smtp, &mut secrets).await;
        keeps_cookies(&server.create_app(json!({"cookies": true})).await, &mut secrets).await;
        let events = server.events().await;
        for event in &events {
            assert_eq!(secrets.found_in(event.to_string().as_bytes()), None, "in {event}");
        }
        let metrics = server.metrics().await;
        assert_eq!(secrets.found_in(metrics.as_bytes()), None, "in the metrics");
        if settings.iter().any(|(name, _)| *name == "WATCHWORD_NATS_URL") {
            until_relayed(beside, events.last().expect("there are events")).await;
        }
    }
    assert!(server.log().contains(r#""level":"DEBUG""#), "the log is verbose");
    collector.until(100, |_| true).await;
    let while_it_ran = [server.stored_bytes(), files_under(beside)].concat();
    server.kill();
    let mut stored = server.stored_bytes();
    server.up().await;
    server.terminate().await;
    stored.extend(server.stored_bytes());
    stored.extend(files_under(beside));
    for command in [&["doctor", "--json"][..], &["export"], &["export", "--format", "csv"]] {
        let output = server.command(command).output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
        stored.push((command.join(" ").into(), output.stdout));
        stored.push((command.join(" ").into(), output.stderr));
    }
    stored.extend(collector.bodies().into_iter().map(|body| ("a trace".into(), body.to_vec())));
    let (platform_key, master_key) = (server.platform_key(), master_key(&server));
    for (path, bytes) in while_it_ran.iter().chain(&stored) {
        assert_eq!(secrets.found_in(bytes), None, "in {}", path.display());
        let text = String::from_utf8_lossy(bytes);
        for (key, own_file) in [(&platform_key, "admin.key"), (&master_key, "master.key")] {
            assert!(path.ends_with(own_file) || !text.contains(key), "{own_file} in {}", path.display());
        }
    }
    for name in ["admin.key", "master.key"] {
        use std::os::unix::fs::PermissionsExt as _;
        let Ok(file) = fs::metadata(server.data().join(name)) else { continue };
        assert_eq!(file.permissions().mode() & 0o777, 0o600, "{name}");
    }
    while_it_ran
}

/// Waits until the bus has stored this event.
async fn until_relayed(store: &Path, event: &Value) {
    let id = event["id"].as_str().expect("an event has an id");
    let deadline = Instant::now() + PATIENCE;
    while !files_under(store).iter().any(|(_, bytes)| String::from_utf8_lossy(bytes).contains(id)) {
        assert!(Instant::now() < deadline, "event {id} is not in {}", store.display());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn master_key(server: &Server) -> String {
    let own = fs::read_to_string(server.data().join("master.key"));
    own.map_or_else(|_| MASTER_KEY.to_owned(), |key| key.trim().to_owned())
}

/// Everything that a user does, including mistakes.
async fn comes_and_goes(app: &App<'_>, secrets: &mut Secrets) -> Tokens {
    let profile =
        json!({"email": ADDRESS, "password": PASSWORD, "name": NAME, "phone": PHONE, "avatar_url": AVATAR});
    let register = || browsing(app.post("auth/register")).header("idempotency-key", "xenias-first");
    let first = secrets.tokens(&register().json(&profile).await.expect(201));
    secrets.tokens(&register().json(&profile).await.expect(201));
    browsing(app.post("auth/register")).json(&profile).await.problem(409, "email_taken");
    for (address, password) in [(ADDRESS, WRONG), ("quixote.unknown@privacy-example.org", WRONG)] {
        browsing(app.login(address, password)).await.problem(401, "invalid_credentials");
    }
    let login = secrets.tokens(&browsing(app.login(ADDRESS, PASSWORD)).await.expect(200));
    let refreshed = secrets.tokens(&browsing(app.refresh(&first.refresh)).await.expect(200));
    let again = secrets.tokens(&browsing(app.refresh(&refreshed.refresh)).await.expect(200));
    // Two generations old, so it counts as stolen.
    browsing(app.refresh(&first.refresh)).await.problem(401, "invalid_refresh_token");
    app.me(&again.access).await.problem(401, "unauthenticated");
    let rename = json!({"name": "Xenia Quixote II", "phone": ""});
    let renamed = browsing(app.patch("auth/me")).bearer(&login.access).json(&rename).await.expect(200);
    let sessions =
        app.get("auth/sessions").bearer(&login.access).header("consistency-token", renamed.consistency());
    assert_eq!(
        sessions.await.expect(200).json()["items"][0]["ip"],
        IP,
        "it is known, and shown to its owner"
    );
    let short = secrets.tokens(&browsing(app.login(ADDRESS, PASSWORD)).await.expect(200));
    app.post("auth/logout").bearer(&short.access).await.expect(204);
    let other = secrets.tokens(&browsing(app.login(ADDRESS, PASSWORD)).await.expect(200));
    app.delete(&format!("auth/sessions/{}", other.session)).bearer(&login.access).await.expect(204);
    login
}

/// Everything that admins do to a user, and read about them.
async fn is_administered(app: &App<'_>, xenia: &Tokens, secrets: &mut Secrets) {
    let (_, key) =
        app.api_key(&["users:read", "users:write", "tokens:create", "audit:read", "events:read"]).await;
    secrets.add(&key);
    let user = format!("admin/users/{}", xenia.user_id);
    app.get("admin/users?query=quixote").bearer(&key).await.expect(200);
    app.get("admin/users?query=xenia.quixote%40privacy-example.org").bearer(&key).await.expect(200);
    app.get(&user).bearer(&key).await.expect(200);
    app.patch(&user).bearer(&key).json(&json!({"name": NAME})).await.expect(200);
    app.put(&format!("{user}/roles/editor")).bearer(&key).await.expect_success();
    let token =
        app.post(&format!("{user}/access-tokens")).bearer(&key).json(&json!({"duration_minutes": 5})).await;
    secrets.access(token.expect_success().json()["access_token"].as_str().unwrap());
    let made = json!({"email": "second.quixote@privacy-example.org", "password": PASSWORD, "name": NAME});
    app.post("admin/users").bearer(&key).json(&made).await.expect(201);
    app.post("auth/introspect").bearer(&key).form(&[("token", &xenia.access)]).await;
    app.get("audit/events").bearer(&key).await.expect(200);
    app.get("audit/events").bearer(&key).header("accept", "text/csv").await.expect(200);
    app.get("events").bearer(&key).await.expect(200);
    app.post("admin/keys/rotate").bearer(&app.server.platform_key()).await.expect_success();
    app.ban(&xenia.user_id).await;
    browsing(app.login(ADDRESS, PASSWORD)).await.problem(403, "user_banned");
    app.post(&format!("{user}/unban")).bearer(&key).await.expect_success();
    let back = secrets.tokens(&browsing(app.login(ADDRESS, PASSWORD)).await.expect(200));
    app.post("auth/revoke").form(&[("token", &back.refresh)]).await.expect(200);
}

/// Requests that are rejected as malformed, with secrets in the wrong places.
async fn cannot_be_read(app: &App<'_>, xenia: &Tokens) {
    let post = |route: &str| browsing(app.post(route));
    post("auth/register")
        .body("application/json", format!("{{\"email\": \"{ADDRESS}\", \"password\": \"{PASSWORD}\""))
        .await
        .problem(400, "malformed_request");
    post("auth/login")
        .json(&json!({"email": ADDRESS, "password": PASSWORD, PASSWORD: ADDRESS}))
        .await
        .problem(400, "malformed_request");
    post("auth/login")
        .json(&json!({"email": [ADDRESS], "password": {"value": PASSWORD}}))
        .await
        .problem(400, "malformed_request");
    post("auth/login").form(&[("email", ADDRESS), ("password", PASSWORD)]).await;
    post(&format!("auth/login?email={ADDRESS}&password={PASSWORD}")).await;
    browsing(app.get(&format!("auth/me?access_token={}", xenia.access))).await;
    browsing(app.get(&format!("auth/{ADDRESS}/{PASSWORD}"))).await.problem(404, "not_found");
    browsing(app.get("auth/me")).header("authorization", &format!("Basic {PASSWORD}")).await.expect_refusal();
    browsing(app.get("auth/me"))
        .header("cookie", &format!("session={}", xenia.access))
        .await
        .expect_refusal();
    browsing(app.get("auth/me")).bearer(&format!("{}x", xenia.refresh)).await.expect_refusal();
}

async fn keeps_cookies(app: &App<'_>, secrets: &mut Secrets) {
    let body = json!({"email": ADDRESS, "password": PASSWORD, "name": NAME});
    secrets.cookies(&browsing(app.post("auth/register")).json(&body).await.expect(201));
    let login = browsing(app.login(ADDRESS, PASSWORD)).await.expect(200);
    secrets.cookies(&login);
    let cookies: Vec<&str> = login
        .headers
        .get_all("set-cookie")
        .iter()
        .map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap())
        .collect();
    let me: Value =
        browsing(app.get("auth/me")).header("cookie", &cookies.join("; ")).await.expect(200).json();
    assert_eq!(me["email"], ADDRESS);
}

/// Everything that needs a mail.
async fn gets_mail(server: &Server, secrets: &mut Secrets) {
    let settings = json!({"delivery": "app", "redirect_uris": ["https://client.example/back"]});
    let app = server.create_app(settings).await;
    let (_, key) = app.api_key(&["users:write"]).await;
    secrets.add(&key);
    let magic =
        json!({"email": ADDRESS, "redirect_uri": "https://client.example/back", "state": "quixotic state"});
    let token = app.mailed_token(&key, "magic-link", &magic).await;
    secrets.add(&token);
    browsing(app.get(&format!("auth/magic-link/verify?token={token}"))).await.expect(200);
    let form = [("token", token.as_str())];
    let pressed =
        browsing(app.post("auth/magic-link/verify")).header("accept", "text/html").form(&form).await;
    let location = pressed.expect(303).header("location").expect("a redirect says where to").to_owned();
    let code = location.split("code=").nth(1).unwrap().split('&').next().unwrap();
    secrets.add(code);
    let login = browsing(app.post("auth/exchange")).json(&json!({ "code": code })).await.expect(200);
    secrets.tokens(&login);
    let mailbox = json!({ "email": ADDRESS });
    let token = app.mailed_token(&key, "password-reset/request", &mailbox).await;
    secrets.add(&token);
    browsing(app.get(&format!("auth/password-reset?token={token}"))).await.expect(200);
    let reset = json!({"token": token, "new_password": PASSWORD});
    browsing(app.post("auth/password-reset/confirm")).json(&reset).await.expect(204);
    let back = secrets.tokens(&browsing(app.login(ADDRESS, PASSWORD)).await.expect(200));
    let change = json!({"old_password": PASSWORD, "new_password": WRONG});
    browsing(app.post("auth/password/change")).bearer(&back.access).json(&change).await.expect(204);
    let change = json!({"new_email": "third.quixote@privacy-example.org", "password": WRONG});
    browsing(app.post("auth/email/change")).bearer(&back.access).json(&change).await.expect(202);
}

/// What the server itself mails, through a mail server that quotes the address when it refuses.
async fn is_mailed(server: &Server, smtp: &Smtp, secrets: &mut Secrets) {
    let app = server.create_app(json!({"redirect_uris": ["https://client.example/back"]})).await;
    for address in [ADDRESS, "reject.quixote@privacy-example.org", "defer.quixote@privacy-example.org"] {
        let body = json!({"email": address, "redirect_uri": "https://client.example/back"});
        browsing(app.post("auth/magic-link")).json(&body).await.expect(202);
    }
    until("one is sent, and two are refused", async || {
        let events = server.events().await;
        of_type(&events, "MailSent").len() + of_type(&events, "MailFailed").len() >= 3
    })
    .await;
    let mails = smtp.mails();
    let mail: Value = serde_json::from_str(mails.last().expect("one was taken")).expect("JSON");
    assert_eq!(mail["to"], json!([ADDRESS]));
    let text = mail["text"].as_str().expect("text");
    let token = text.split_whitespace().find_map(|word| word.split("token=").nth(1)).expect("a link");
    secrets.add(token);
    let form = [("token", token)];
    browsing(app.post("auth/magic-link/verify")).form(&form).await.expect(303);
}
