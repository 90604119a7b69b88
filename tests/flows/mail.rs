//! Mails from the request to the mailbox: through a real mail server, and into files.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use test_services::{Smtp, SmtpTls};
use tests::{App, PASSWORD, PATIENCE, Server, email, of_type};

const CALLBACK: &str = "https://client.example/callback";

/// Waits until a value appears.
async fn wait<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out waiting for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The first mail of a kind to an address, parsed by Python's `email`.
async fn mail_to(smtp: &Smtp, address: &str, kind: &str) -> Value {
    let is_it = |mail: &Value| {
        let id = mail["headers"]["message-id"].as_str().expect("has an id");
        mail["to"] == json!([address]) && id.contains(&format!(".{kind}@"))
    };
    let look = async || {
        smtp.mails().iter().map(|line| serde_json::from_str(line).expect("JSON")).find(|mail| is_it(mail))
    };
    let mail = wait(&format!("{kind} to {address}"), look).await;
    assert_eq!(mail["defects"], json!([]), "it is well-formed: {mail}");
    mail
}

/// The link in a mail, which is the same in both parts.
fn link(mail: &Value) -> String {
    let (text, html) = (mail["text"].as_str().expect("text"), mail["html"].as_str().expect("HTML"));
    let link = text.split_whitespace().find(|word| word.contains("token=")).expect("a link").to_owned();
    assert!(html.contains(&format!("href=\"{}\"", link.replace('&', "&#38;"))), "{html}");
    link
}

fn token(mail: &Value) -> String {
    link(mail).split_once("token=").expect("a token").1.to_owned()
}

async fn ask_for_magic_link(app: &App<'_>, address: &str) {
    let body = json!({"email": address, "redirect_uri": CALLBACK, "state": "opaque"});
    app.post("auth/magic-link").json(&body).await.expect(202);
}

/// The mail events in the audit log.
async fn audited(server: &Server, app: &App<'_>, kind: &str) -> Vec<Value> {
    let page = app.get(&format!("audit/events?type={kind}")).bearer(&server.platform_key()).await.expect(200);
    page.json()["items"].as_array().expect("a list").clone()
}

async fn given_up(server: &Server, app: &App<'_>) -> Vec<Value> {
    let list = app.get("admin/mail/failures").bearer(&server.platform_key()).await.expect(200).json();
    assert_eq!(list["total"], list["items"].as_array().expect("a list").len(), "{list}");
    list["items"].as_array().expect("a list").clone()
}

/// What `doctor` reports about mail, with its verdict.
fn diagnosis(server: &Server) -> Vec<(String, String)> {
    let output = server.command(&["doctor", "--json"]).output().expect("runs");
    let findings: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let checks = findings["checks"].as_array().expect("a list").iter();
    checks
        .filter(|check| check["check"] == "mail")
        .map(|check| (text(&check["verdict"]), text(&check["detail"])))
        .collect()
}

#[tokio::test]
async fn a_mail_goes_through_a_server_that_wants_tls_and_a_login() {
    for (tls, url) in [(SmtpTls::Wrapped, "smtps://"), (SmtpTls::StartTls, "smtp://")] {
        let smtp = Smtp::start_with_tls(tls);
        let required = if tls == SmtpTls::StartTls { "?tls=required" } else { "" };
        let at = |login: &str| format!("{url}{login}@localhost:{}{required}", smtp.port());
        let url = at("mailer:secret%20of%20the%20mailer");
        let certificate = smtp.certificate().display().to_string();
        let mut server = Server::start_with(&[
            ("WATCHWORD_MAIL_URL", at("mailer:wrong").as_str()),
            ("WATCHWORD_MAIL_SENDER", "login@platform.example"),
            ("WATCHWORD_MAIL_FIRST_PAUSE", "1"),
            ("SSL_CERT_FILE", certificate.as_str()),
        ])
        .await;
        let app_id = server.create_app(json!({"redirect_uris": [CALLBACK]})).await.id;
        let address = email("ada");

        // A wrong password is not the mail's fault, so the mail waits.
        ask_for_magic_link(&server.app(&app_id), &address).await;
        wait("a failure", async || {
            let failed = server.events().await;
            let failed = of_type(&failed, "MailFailed").first().map(|event| event["data"].clone())?;
            assert_eq!((&failed["reason"], &failed["smtp_code"]), (&"unreachable".into(), &535.into()));
            assert!(failed["retry_at"].is_string(), "{failed}");
            Some(())
        })
        .await;
        assert!(!server.log().contains("mailer:wrong"), "the password is in the log");
        server.terminate().await;
        server.set_environment("WATCHWORD_MAIL_URL", &url);
        server.up().await;

        let mail = mail_to(&smtp, &address, "magic_link").await;
        assert_eq!((&mail["tls"], &mail["from"]), (&true.into(), &"login@platform.example".into()));
        let headers = &mail["headers"];
        assert_eq!(headers["from"], format!("The app {app_id} <login@platform.example>"));
        assert_eq!(headers["subject"], format!("Log in to The app {app_id}"));
        let app = server.app(&app_id);
        assert!(
            link(&mail).starts_with(&server.url(&app.path("auth/magic-link/verify?token=wwm_"))),
            "{mail}"
        );
        let pressed = app.post("auth/magic-link/verify").form(&[("token", &token(&mail))]).await.expect(303);
        let to = pressed.header("location").expect("leads somewhere");
        let code = to.strip_prefix(&format!("{CALLBACK}?code=")).expect("to the app");
        let code = code.strip_suffix("&state=opaque").expect("with its state");
        let tokens = app.post("auth/exchange").json(&json!({ "code": code })).await.expect(200).tokens();
        assert_eq!(tokens.user["email"], address);

        // Did the mail go out?
        let sent = wait("an audit record", async || audited(&server, &app, "MailSent").await.pop()).await;
        assert_eq!(sent["data"]["user_id"], tokens.user_id, "{sent}");
        assert_eq!((&sent["data"]["mail"], &sent["data"]["attempt"]), (&"magic_link".into(), &2.into()));
        let of_user = format!("audit/events?user_id={}", tokens.user_id);
        let of_user = app.get(&of_user).bearer(&server.platform_key()).await.expect(200).text;
        assert!(of_user.contains("MailSent") && of_user.contains("MailFailed"), "{of_user}");
        assert!(given_up(&server, &app).await.is_empty());
        assert!(diagnosis(&server).iter().all(|(verdict, _)| verdict == "ok"), "{:?}", diagnosis(&server));
    }
}

/// No mail is sent unencrypted, or to a server that does not prove its identity.
#[tokio::test]
async fn no_mail_goes_to_a_server_that_cannot_be_trusted() {
    let (plain, unknown) = (Smtp::start(), Smtp::start_with_tls(SmtpTls::StartTls));
    for smtp in [&plain, &unknown] {
        let url = format!("smtp://mailer:secret%20of%20the%20mailer@localhost:{}?tls=required", smtp.port());
        let server = Server::start_with(&[("WATCHWORD_MAIL_URL", url.as_str())]).await;
        let app = server.create_app(json!({"redirect_uris": [CALLBACK]})).await;
        ask_for_magic_link(&app, &email("ada")).await;
        let events = wait("a failure", async || {
            let events = server.events().await;
            (!of_type(&events, "MailFailed").is_empty()).then_some(events)
        })
        .await;
        let failed = &of_type(&events, "MailFailed")[0]["data"];
        assert_eq!((&failed["reason"], &failed["smtp_code"]), (&"unreachable".into(), &Value::Null));
        assert_eq!(smtp.mails(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn every_kind_of_mail_goes_where_it_should_and_its_link_opens() {
    let smtp = Smtp::start();
    let server = Server::start_with(&[("WATCHWORD_MAIL_URL", smtp.url().as_str())]).await;
    let app = server
        .create_app(json!({"redirect_uris": [CALLBACK], "require_verified_email": true, "locale": "de"}))
        .await;
    let (old, new) = (email("old"), email("new"));
    // Another person may have chosen a user's name, so no mail contains it.
    let name = "Free money at https://evil.example <b>now</b>";
    let body = json!({"email": old, "password": PASSWORD, "name": name});
    app.post("auth/register").json(&body).await.expect(202);
    let verification = mail_to(&smtp, &old, "email_verification").await;
    app.get(&opened(&app, &verification)).await.expect(200);
    let body = json!({ "token": token(&verification) });
    app.post("auth/email-verification/confirm").json(&body).await.expect(200);

    let body = json!({"email": old, "password": PASSWORD});
    app.post("auth/register").json(&body).await.expect(202);
    let taken = mail_to(&smtp, &old, "address_taken").await;
    app.get(&opened(&app, &taken)).await.expect(200);

    let access = app.login(&old, PASSWORD).await.expect(200).tokens().access;
    let body = json!({"new_email": new, "password": PASSWORD});
    app.post("auth/email/change").bearer(&access).json(&body).await.expect(202);
    let change = mail_to(&smtp, &new, "email_change").await;
    let notice = mail_to(&smtp, &old, "email_change_notice").await;
    assert!(!notice.to_string().contains(&new) && !notice.to_string().contains("token="), "{notice}");
    app.get(&opened(&app, &change)).await.expect(200);
    let body = json!({ "token": token(&change) });
    let user = app.post("auth/email/change/confirm").json(&body).await.expect(200).json();
    assert_eq!(user["user"]["email"], new);

    app.post("auth/password-reset/request").json(&json!({ "email": new })).await.expect(202);
    let reset = mail_to(&smtp, &new, "password_reset").await;
    app.get(&opened(&app, &reset)).await.expect(200);
    let body = json!({"token": token(&reset), "new_password": "another-Kettle-17-quay"});
    app.post("auth/password-reset/confirm").json(&body).await.expect(204);

    ask_for_magic_link(&app, &new).await;
    let magic_link = mail_to(&smtp, &new, "magic_link").await;
    app.get(&opened(&app, &magic_link)).await.expect(200);

    let mails = [&verification, &taken, &change, &notice, &reset, &magic_link];
    let subjects: BTreeSet<&str> =
        mails.iter().map(|mail| mail["headers"]["subject"].as_str().expect("a subject")).collect();
    assert_eq!(subjects.len(), mails.len(), "each says what it is for: {subjects:?}");
    for mail in mails {
        assert!(!mail.to_string().contains("evil.example"), "{mail}");
        assert!(mail["html"].as_str().expect("HTML").contains("<html lang=\"de\">"), "{mail}");
        assert_eq!(mail["headers"]["auto-submitted"], "auto-generated");
        assert!(
            mail["headers"]["content-type"].as_str().expect("has one").starts_with("multipart/alternative")
        );
    }
    // An address without an account gets only magic links.
    app.post("auth/password-reset/request").json(&json!({"email": email("nobody")})).await.expect(202);
    ask_for_magic_link(&app, &email("last")).await;
    wait("the last mail", async || (smtp.mails().len() == 7).then_some(())).await;
}

/// The path that a mail's link has below its app.
fn opened(app: &App<'_>, mail: &Value) -> String {
    link(mail).strip_prefix(&app.server.url(&app.path(""))).expect("a page of this app").to_owned()
}

#[tokio::test]
async fn an_apps_name_cannot_inject_headers() {
    let smtp = Smtp::start();
    let server = Server::start_with(&[
        ("WATCHWORD_MAIL_URL", smtp.url().as_str()),
        ("WATCHWORD_MAIL_SENDER", "login@platform.example"),
    ])
    .await;
    let app = server.create_app(json!({"redirect_uris": [CALLBACK]})).await;
    let path = format!("/v1/apps/{}", app.id);
    let change = async |body: Value| server.patch(&path).bearer(&server.platform_key()).json(&body).await;
    // What would begin another header is refused, or stays in its own header.
    for branding in [
        json!({"name": "Acme\r\nBcc: eve@evil.example"}),
        json!({"name": "Acme\u{2028}Bcc: eve@evil.example"}),
        json!({"sender": "login@acme.example\r\nBcc: eve@evil.example"}),
        json!({"sender": "login@acme.example, eve@evil.example"}),
        json!({"sender": "Acme <login@acme.example>"}),
        json!({"reply_to": "help@acme.example\nBcc: eve@evil.example"}),
        json!({"logo": "javascript:alert(1)"}),
        json!({"logo": "https://cdn.example/\"onerror=\"alert(1)"}),
        json!({"colour": "#fff;background:url(https://evil.example)"}),
    ] {
        let refused = change(json!({"settings": {"branding": branding}})).await;
        refused.problem(422, "validation_failed");
    }
    let name = "Ac\"me <img src=x onerror=alert(1)> <login@bank.example>, Bank";
    change(json!({ "name": name })).await.expect(200);
    let address = email("ada");
    ask_for_magic_link(&app, &address).await;
    let mail = mail_to(&smtp, &address, "magic_link").await;
    let from = mail["headers"]["from"].as_str().expect("has one");
    assert!(from.ends_with(" <login@platform.example>"), "{from}");
    assert_eq!((&mail["from"], &mail["senders"]), (&"login@platform.example".into(), &1.into()), "{mail}");
    assert_eq!(mail["headers"]["bcc"], Value::Null);
    let html = mail["html"].as_str().expect("HTML");
    assert!(!html.contains("<img") && html.contains("&#60;img src=x onerror"), "{html}");
}

#[tokio::test]
async fn mails_that_were_given_up_are_listed_and_can_be_retried() {
    let mut smtp = Smtp::start();
    let server =
        Server::start_with(&[("WATCHWORD_MAIL_URL", smtp.url().as_str()), ("WATCHWORD_MAIL_ATTEMPTS", "1")])
            .await;
    let app = server.create_app(json!({"redirect_uris": [CALLBACK]})).await;
    let foreign = server.create_app(json!({"redirect_uris": [CALLBACK]})).await;
    let (_, reader) = app.api_key(&["users:read"]).await;
    let (_, writer) = app.api_key(&["users:write"]).await;
    smtp.kill();
    let address = email("ada");
    ask_for_magic_link(&app, &address).await;
    wait("it is given up", async || given_up(&server, &app).await.pop()).await;
    let refused = email("reject");
    smtp.up();
    ask_for_magic_link(&app, &refused).await;
    wait("it is given up", async || (given_up(&server, &app).await.len() == 2).then_some(())).await;

    let list = app.get("admin/mail/failures?limit=1").bearer(&reader).await.expect(200).json();
    assert_eq!((list["total"].as_u64(), list["items"].as_array().map(Vec::len)), (Some(2), Some(1)));
    let failed = given_up(&server, &app).await;
    assert_eq!((&failed[0]["reason"], &failed[0]["smtp_code"]), (&"unreachable".into(), &Value::Null));
    assert_eq!((&failed[1]["reason"], &failed[1]["smtp_code"]), (&"rejected".into(), &550.into()));
    assert_eq!((&failed[0]["mail"], &failed[0]["attempts"]), (&"magic_link".into(), &1.into()));
    assert!(!json!(failed).to_string().contains(&address), "the user id identifies the recipient");
    assert_eq!(given_up(&server, &foreign).await, Vec::<Value>::new());
    let told = diagnosis(&server);
    assert!(
        told.iter().any(|(verdict, what)| verdict == "warning" && what.starts_with("2 given up")),
        "{told:?}"
    );
    let metrics = server.metrics().await;
    assert!(metrics.contains("watchword_mail_failed 2\n"), "{metrics}");

    let retry = |app: &App<'_>, failed: &Value, key: &str| {
        let id = failed["id"].as_str().expect("an id");
        app.post(&format!("admin/mail/failures/{id}/retry")).bearer(key)
    };
    retry(&app, &failed[0], &reader).await.problem(403, "forbidden");
    retry(&foreign, &failed[0], &server.platform_key()).await.problem(404, "not_found");
    for absent in ["x", "1-magic_link", "99999-magic_link", "1-unknown"] {
        retry(&app, &json!({ "id": absent }), &writer).await.problem(404, "not_found");
    }
    retry(&app, &failed[0], &writer).await.expect(204);
    mail_to(&smtp, &address, "magic_link").await;
    wait("it is off the list", async || (given_up(&server, &app).await.len() == 1).then_some(())).await;
    retry(&app, &failed[0], &writer).await.problem(409, "mail_sent");
    // The missing mailbox is still missing.
    retry(&app, &failed[1], &writer).await.expect(204);
    wait("its second failure", async || {
        (given_up(&server, &app).await.first()?["attempts"] == 2).then_some(())
    })
    .await;
    let audited = wait("the audit log has it", async || {
        let audited = audited(&server, &app, "MailFailed").await;
        (audited.len() == 5).then_some(audited)
    })
    .await;
    let asked_again = audited.iter().filter(|event| event["data"]["asked_again"] == true);
    assert_eq!(asked_again.count(), 2, "{audited:?}");
}

#[tokio::test]
async fn a_link_that_has_expired_is_not_sent() {
    let mut smtp = Smtp::start();
    let server = Server::start_with(&[("WATCHWORD_MAIL_URL", smtp.url().as_str())]).await;
    let app = server.create_app(json!({"redirect_uris": [CALLBACK], "magic_link_ttl": 1})).await;
    smtp.kill();
    ask_for_magic_link(&app, &email("ada")).await;
    let failed = wait("it is given up", async || given_up(&server, &app).await.pop()).await;
    smtp.up();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let id = failed["id"].as_str().expect("an id");
    let retried = app.post(&format!("admin/mail/failures/{id}/retry")).bearer(&server.platform_key()).await;
    retried.problem(409, "mail_expired");
    assert_eq!(smtp.mails(), Vec::<String>::new());
}

/// A new installation sends nothing, says so, and loses nothing.
#[tokio::test]
async fn without_a_mail_server_mails_are_files() {
    let mut server = Server::start().await;
    let app_id = server.create_app(json!({"redirect_uris": [CALLBACK]})).await.id;
    let outbox = server.data().join("outbox");
    let said = format!("no mail is sent: each is written to {}", outbox.display());
    server.says(&said).await;
    let address = email("ada");
    ask_for_magic_link(&server.app(&app_id), &address).await;
    let files = || {
        let entries = fs::read_dir(&outbox).into_iter().flatten();
        entries.map(|entry| entry.expect("reads").path()).collect::<Vec<_>>()
    };
    wait("a file", async || {
        files().iter().any(|file| file.extension().is_some_and(|it| it == "eml")).then_some(())
    })
    .await;
    server.terminate().await;
    let files = files();
    let [file] = &files[..] else { panic!("{files:?}") };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
        assert_eq!((mode(file.as_path()), mode(outbox.as_path())), (0o600, 0o700));
    }
    let read = "import sys, email, email.policy as p; m = email.message_from_binary_file(open(sys.argv[1], 'rb'), policy=p.default); \
                print(m['to'], m['subject'], [d for part in m.walk() for d in part.defects], sep='|'); \
                print(m.get_body(('plain',)).get_content()); assert '<html' in m.get_body(('html',)).get_content()";
    let output = Command::new("python3").arg("-c").arg(read).arg(file).output().expect("Python runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let (head, text) = text.split_once('\n').unwrap_or_else(|| panic!("{output:?}"));
    assert_eq!(head, format!("{address}|Log in to The app {app_id}|[]"));
    let link = text.split_whitespace().find(|word| word.contains("?token=wwm_")).expect("a link");
    assert!(link.starts_with(&server.url("/v1/apps/")), "{link}");

    let told = server.command(&["doctor", "--json"]).output().expect("runs");
    assert!(String::from_utf8_lossy(&told.stdout).contains("none is sent: they are written to"), "{told:?}");
}
