//! Mail: its sender is killed, dies at each step, is suspended and replaced by another node; its server hangs;
//! rebuilding read models or restoring an old state does not send mails again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use test_services::{Postgres, Smtp};
use tests::{App, PATIENCE, Server, assert_gapless, checker, email, of_type};

use crate::postgres::cluster;
use crate::steps::ABORTED;
use crate::{Random, SETTINGS, until};

const CALLBACK: &str = "https://client.example/callback";

async fn server(smtp: &Smtp, settings: &[(&str, &str)]) -> Server {
    let url = smtp.url();
    Server::start_with(&[&SETTINGS[..], &[("WATCHWORD_MAIL_URL", url.as_str())], settings].concat()).await
}

/// Requests this many magic links, 50 at a time, and returns their addresses.
async fn ask(app: &App<'_>, count: usize) -> BTreeSet<String> {
    let addresses: Vec<String> = (0..count).map(|_| email("ada")).collect();
    for some in addresses.chunks(50) {
        let asked = some.iter().map(async |address| {
            let body = json!({"email": address, "redirect_uri": CALLBACK});
            let call = app.post("auth/magic-link").json(&body).header("idempotency-key", address);
            // A node that is suspended in the middle of a transaction holds the others up until the database ends it:
            // they refuse for now, and clients ask again.
            until("the request is accepted", async || match call.again().await {
                refused if refused.status == 503 => false,
                answer => {
                    answer.expect(202);
                    true
                }
            })
            .await;
        });
        join_all(asked).await;
    }
    addresses.into_iter().collect()
}

/// The mails of a mail server, by recipient.
fn mails(smtp: &Smtp) -> BTreeMap<String, Vec<Value>> {
    let mut mails: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in smtp.mails() {
        let mail: Value = serde_json::from_str(&line).expect("JSON");
        mails.entry(mail["to"][0].as_str().expect("an address").to_owned()).or_default().push(mail);
    }
    mails
}

/// Waits until this many mails have an outcome.
async fn sent(server: &Server, count: usize) {
    until("every mail is sent", async || {
        // The cheap check first.
        let metrics = server.get("/readyz").await.expect(200).json();
        metrics["checks"]["mailer"]["state"] == "running"
            && of_type(&server.events().await, "MailSent").len() >= count
    })
    .await;
}

/// Waits until the mail server has this many mails, from a node that had to take over.
async fn taken_over(smtp: &Smtp, count: usize) {
    let begun = Instant::now();
    while smtp.mails().len() < count {
        assert!(begun.elapsed() < PATIENCE, "another node takes over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Checks that everybody got their mail, and that at most `crashes` got it twice, the same one.
async fn each_once(server: &Server, smtp: &Smtp, asked: &BTreeSet<String>, crashes: usize) {
    let mails = mails(smtp);
    assert_eq!(mails.keys().cloned().collect::<BTreeSet<_>>(), *asked);
    let repeated: Vec<_> = mails.values().filter(|mails| mails.len() > 1).collect();
    println!("{} mails, {} of them twice after {crashes} crashes", mails.len(), repeated.len());
    let more: usize = repeated.iter().map(|mails| mails.len() - 1).sum();
    assert!(more <= crashes, "{more} repeated by {crashes} crashes");
    for mails in repeated {
        for part in ["text", "html", "headers"] {
            assert!(mails.iter().all(|mail| mail[part] == mails[0][part]), "{mails:?}");
        }
    }
    let events = server.events().await;
    assert_gapless(&events);
    let recorded = of_type(&events, "MailSent");
    let by_event: BTreeSet<&str> =
        recorded.iter().map(|event| event["data"]["event_id"].as_str().expect("an id")).collect();
    assert_eq!((recorded.len(), by_event.len()), (asked.len(), asked.len()), "recorded once each");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sender_of_500_mails_is_killed_again_and_again() {
    const MAILS: usize = 500;
    const CRASHES: usize = 4;
    let (mut random, smtp) = (Random::new(), Smtp::start());
    let mut server = server(&smtp, &[]).await;
    let app_id = server.create_app(json!({"redirect_uris": [CALLBACK]})).await.id;
    // They queue while the mail server is suspended.
    smtp.signal("STOP");
    let asked = ask(&server.app(&app_id), MAILS).await;
    smtp.signal("CONT");
    for crash in 1..=CRASHES {
        until("some are sent", async || smtp.mails().len() >= crash * 80).await;
        random.moment(Duration::from_millis(50)).await;
        assert!(smtp.mails().len() < MAILS, "it is in the middle of them");
        server.kill();
        server.up().await;
    }
    sent(&server, MAILS).await;
    each_once(&server, &smtp, &asked, CRASHES).await;

    // Neither rebuilt read models nor a restart send anything.
    let before = smtp.mails().len();
    checker::forget_read_models(&mut server).await;
    server.up().await;
    let last = ask(&server.app(&app_id), 1).await;
    sent(&server, MAILS + 1).await;
    assert_eq!(smtp.mails().len(), before + 1);
    assert!(mails(&smtp).keys().any(|address| last.contains(address)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sender_dies_at_each_step() {
    let smtp = Smtp::start();
    let mut server = server(&smtp, &[]).await;
    let app_id = server.create_app(json!({"redirect_uris": [CALLBACK]})).await.id;
    let mut asked = BTreeSet::new();
    for (step, repeats) in [("before-mail", 0), ("after-mail", 1)] {
        server.terminate().await;
        server.set_environment("FAILPOINTS", &format!("{step}=3*off->return"));
        server.up().await;
        let before = smtp.mails().len();
        asked.extend(ask(&server.app(&app_id), 10).await);
        assert_eq!(server.ended().await.signal(), Some(ABORTED), "it died {step}");
        assert_eq!(smtp.mails().len(), before + 3 + repeats);
        server.set_environment("FAILPOINTS", "");
        server.up().await;
        sent(&server, asked.len()).await;
        assert_eq!(smtp.mails().len(), before + 10 + repeats, "{step}");
    }
    each_once(&server, &smtp, &asked, 1).await;
}

/// The sending node is suspended for longer than its lease and resumes in the middle of another's work; that one is
/// killed.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_one_sends_and_the_other_takes_over() {
    const MAILS: usize = 300;
    let (smtp, database) = (Smtp::start(), Postgres::shared().database());
    let shared = cluster(&database, "");
    let (first, second) = tokio::join!(server(&smtp, &shared[..3]), server(&smtp, &shared[..3]));
    let state = async |server: &Server| {
        server.get("/readyz").await.expect(200).json()["checks"]["mailer"]["state"].clone()
    };
    until("one sends and one waits", async || {
        let states = [state(&first).await, state(&second).await];
        states.contains(&json!("running")) && states.contains(&json!("standby"))
    })
    .await;
    let (mut sender, mut other) = (first, second);
    if state(&sender).await == "standby" {
        std::mem::swap(&mut sender, &mut other);
    }
    let app_id = sender.create_app(json!({"redirect_uris": [CALLBACK]})).await.id;
    // Both accept requests, one sends. The mails queue while the mail server is suspended.
    smtp.signal("STOP");
    let (here, there) = (sender.app(&app_id), other.app(&app_id));
    let (mut asked, more) = tokio::join!(ask(&here, MAILS / 2), ask(&there, MAILS / 4));
    asked.extend(more);
    smtp.signal("CONT");
    until("some are sent", async || smtp.mails().len() >= 20).await;
    sender.signal("STOP");
    let stopped = smtp.mails().len();
    assert!(stopped < asked.len(), "it is in the middle of them");
    asked.extend(ask(&there, MAILS / 4).await);
    taken_over(&smtp, stopped + 10).await;
    sender.signal("CONT");
    sent(&other, asked.len()).await;
    each_once(&other, &smtp, &asked, 1).await;

    other.kill();
    asked.extend(ask(&sender.app(&app_id), 5).await);
    taken_over(&smtp, asked.len()).await;
    sent(&sender, asked.len()).await;
    each_once(&sender, &smtp, &asked, 2).await;
}

/// A mail server that accepts connections and then stays silent.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_that_hangs_holds_up_nothing_but_mail() {
    let smtp = Smtp::start();
    let mut server = server(&smtp, &[]).await;
    let app_id = server.create_app(json!({"redirect_uris": [CALLBACK]})).await.id;
    smtp.signal("STOP");
    let asked = ask(&server.app(&app_id), 20).await;
    let ada = server.app(&app_id).register(&email("ada")).await;
    server.app(&app_id).me(&ada.access).await.expect(200);
    let begun = Instant::now();
    assert!(server.terminate().await.success());
    assert!(begun.elapsed() < Duration::from_secs(6), "it does not wait for the mail server");
    server.up().await;
    smtp.signal("CONT");
    sent(&server, asked.len()).await;
    each_once(&server, &smtp, &asked, 1).await;
}

/// A copy of a data directory, made while mails were waiting, is started elsewhere much later: their links have expired
/// by then.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_state_sends_nobody_a_dead_link() {
    let mut smtp = Smtp::start();
    smtp.kill();
    let mut server = server(&smtp, &[]).await;
    let settings = json!({"redirect_uris": [CALLBACK], "magic_link_ttl": 3});
    let app_id = server.create_app(settings).await.id;
    ask(&server.app(&app_id), 3).await;
    server.kill();
    tokio::time::sleep(Duration::from_secs(3)).await;
    smtp.up();
    let url = smtp.url();
    let mut copy = Server::new(&[&SETTINGS[..], &[("WATCHWORD_MAIL_URL", url.as_str())]].concat());
    fs::create_dir_all(copy.data().parent().expect("it is in a folder")).expect("can be made");
    let copied = Command::new("cp").arg("-a").arg(server.data()).arg(copy.data()).status().expect("cp runs");
    assert!(copied.success());
    copy.up().await;
    until("they are given up", async || {
        let list =
            copy.app(&app_id).get("admin/mail/failures").bearer(&copy.platform_key()).await.expect(200);
        list.json()["total"] == 3
    })
    .await;
    let events = copy.events().await;
    assert!(of_type(&events, "MailSent").is_empty());
    assert_eq!(smtp.mails(), Vec::<String>::new());
}
