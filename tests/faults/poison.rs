//! One mail or one event whose handling panics each time: it stops neither the others nor the process, and is not passed
//! over in silence.

use std::process::Stdio;
use std::time::Instant;

use serde_json::{Value, json};
use test_services::Smtp;
use tests::workload::History;
use tests::{Bus, PASSWORD, PATIENCE, Server, checker, email};

use crate::{SETTINGS, relay, server_of, until};

/// How often tasks were started again, as the platform sees it.
async fn restarts(server: &Server) -> Value {
    server.readiness().await.expect(200).json()["checks"]["tasks"]["restarts"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_panics_is_given_up_and_the_others_are_sent() {
    let smtp = Smtp::start();
    let url = smtp.url();
    let poison = [("WATCHWORD_MAIL_URL", url.as_str()), ("FAILPOINTS", "compose-password_reset=return")];
    let mut server = Server::start_with(&[&SETTINGS[..], &poison].concat()).await;
    server.expect_panics();
    let app = server.default_app();
    let (mut poisoned, mut others) = (vec![], vec![]);
    for _ in 0..25 {
        let address = email("ada");
        app.register(&address).await;
        app.post("auth/password-reset/request").json(&json!({"email": address})).await.expect(202);
        app.post("auth/email-verification/request").json(&json!({"email": address})).await.expect(202);
        poisoned.push(address.clone());
        others.push(address);
    }
    let key = server.platform_key();
    let failures = async || app.get("admin/mail/failures?limit=200").bearer(&key).await.expect(200).json();
    until("they are given up", async || failures().await["total"] == poisoned.len()).await;
    let failed = failures().await;
    for mail in failed["items"].as_array().expect("a list") {
        assert_eq!(
            (&mail["mail"], &mail["reason"]),
            (&"password_reset".into(), &"not_made".into()),
            "{mail}"
        );
    }
    until("the others are sent", async || {
        let sent = smtp.mails();
        others.iter().all(|address| sent.iter().any(|mail| mail.contains(address.as_str())))
    })
    .await;
    server.says("making or sending it panicked").await;
    assert_eq!(restarts(&server).await, 0);
    let given_up = format!("watchword_mail_given_up_total{{mail=\"password_reset\"}} {}", poisoned.len());
    assert!(server.metrics().await.contains(&given_up));

    // Once what makes it is mended, it can be sent.
    assert!(server.terminate().await.success());
    server.set_environment("FAILPOINTS", "");
    server.up().await;
    let app = server.default_app();
    let id = failed["items"][0]["id"].as_str().expect("an id").to_owned();
    let before = smtp.mails().len();
    app.post(&format!("admin/mail/failures/{id}/retry")).bearer(&key).await.expect_success();
    until("it is sent", async || smtp.mails().len() > before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_publication_panics_stops_the_relay_alone() {
    let bus = Bus::start();
    let mut server = server_of(&bus, &[("FAILPOINTS", "publish-UserBanned=return")]).await;
    server.expect_panics();
    let mut history = History::new(&server).await;
    let tokens = server.default_app().register(&email("eve")).await;
    server.default_app().ban(&tokens.user_id).await.expect_success();
    until("the relay says so", async || relay(&server).await["state"] == "stopped").await;
    let told = relay(&server).await;
    assert!(told["detail"].as_str().expect("a reason").contains("panicked"), "{told}");
    history.during(&[&server], async |load| load.done(100).await).await;
    let body = json!({"email": email("ada"), "password": PASSWORD});
    server.default_app().post("auth/register").json(&body).await.expect(201);
    assert_eq!(restarts(&server).await, 0);
    let metrics = server.metrics().await;
    assert!(metrics.contains("watchword_relay_stopped 1"), "{metrics}");

    // Nothing was passed over.
    assert!(server.terminate().await.success());
    server.set_environment("FAILPOINTS", "");
    server.up().await;
    checker::check(&mut server, Some(&bus), &history).await;
}

/// What accepts connections fails while the stores are waited for. Nobody would hear of such a process.
#[tokio::test]
async fn a_task_that_fails_while_a_store_is_awaited_ends_the_process() {
    let settings = [
        ("WATCHWORD_JOURNAL_URL", "postgres://nobody:x@127.0.0.1:1/none"),
        ("WATCHWORD_MASTER_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        ("WATCHWORD_TASK_FAILURES", "3"),
        ("FAILPOINTS", "task-listen=return"),
    ];
    let server = Server::new(&settings);
    let mut command = server.command(&["serve"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let begun = Instant::now();
    while child.try_wait().expect("it can be waited for").is_none() && begun.elapsed() < PATIENCE {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let _ = child.kill();
    let output = child.wait_with_output().expect("it ended");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the background task listen failed 3 times in a row"), "{said}");
}
