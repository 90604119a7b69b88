//! What webhooks are sent: which events, in which order, how they are signed, and what becomes of those that are not accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use test_services::{Smtp, TlsProxy};
use tests::{
    App, Message, Reaction, Receiver, Server, assert_ordered, email, of_type, until, webhook_positions,
};

use crate::python;

const ALLOWED: (&str, &str) = ("WATCHWORD_ALLOWED_WEBHOOK_NETWORKS", "127.0.0.0/8");
/// Short pauses, so that retries need no patience.
const QUICK: &[(&str, &str)] = &[
    ALLOWED,
    ("WATCHWORD_WEBHOOKS_TIMEOUT", "1"),
    ("WATCHWORD_WEBHOOKS_FIRST_PAUSE", "1"),
    ("WATCHWORD_WEBHOOKS_LONGEST_PAUSE", "1"),
];

fn types(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.event["type"].as_str().expect("a type")).collect()
}

async fn head(server: &Server) -> u64 {
    server.events().await.len() as u64
}

async fn has_all(receiver: &Receiver, expected: &BTreeSet<u64>) -> Vec<Message> {
    receiver
        .until("every event comes", |messages| {
            let came: BTreeSet<u64> = messages.iter().map(Message::position).collect();
            expected.is_subset(&came)
        })
        .await
}

async fn disable(app: &App<'_>, server: &Server, id: &str, enabled: bool) {
    let change = app.patch(&format!("admin/webhooks/{id}")).bearer(&server.platform_key());
    change.json(&json!({ "enabled": enabled })).await.expect(200);
}

#[tokio::test]
async fn are_the_events_of_the_app_that_match_signed_and_the_same_bytes() {
    let server = Server::start_with(&[ALLOWED]).await;
    let (all, some) = (Receiver::start().await, Receiver::start().await);
    let (app, other) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    app.register(&email("before")).await;
    let before = head(&server).await;
    let (_, secret) = app.webhook(&all.url(), &["*"]).await;
    app.webhook(&some.url(), &["user.*", "SessionRevoked"]).await;
    let user = app.register(&email("ada")).await;
    other.register(&email("bob")).await;
    app.post("auth/logout").bearer(&user.access).await.expect(204);
    let wanted = webhook_positions(&server, &app, before + 1).await;
    let messages = has_all(&all, &wanted).await;
    assert_eq!(messages.len(), wanted.len(), "each once: {:?}", types(&messages));
    assert_ordered(&messages);
    let few = some.until("its events come", |messages| messages.len() == 2).await;
    assert_eq!(types(&few), ["UserRegistered", "SessionRevoked"]);

    // Read from the journal, as messages are: the feed of an app may be a moment behind.
    let feed = server.events().await;
    let by_position: BTreeMap<u64, &Value> =
        feed.iter().map(|event| (event["position"].as_u64().expect("a position"), event)).collect();
    for message in &messages {
        assert_eq!(message.event, *by_position[&message.position()]);
        assert_eq!(message.body, tests::log::canonical(&message.event));
        assert_eq!(message.header("content-type"), "application/cloudevents+json");
        assert_eq!(message.header("webhook-id"), message.event["id"]);
        assert!(message.header("user-agent").starts_with("watchword"));
    }
    let registered = few.first().expect("there are two");
    assert!(registered.event["personal"].is_string() && registered.event["data"]["personal"].is_null());

    let lines = messages.iter().map(|message| {
        json!({
            "id": message.header("webhook-id"),
            "timestamp": message.header("webhook-timestamp"),
            "signature": message.header("webhook-signature"),
            "body": String::from_utf8_lossy(&message.body),
        })
        .to_string()
    });
    let file = server.data().join("messages");
    fs::write(&file, lines.collect::<Vec<_>>().join("\n")).expect("it is written");
    let script = "verify_webhooks.py";
    let Some(found) = python::run(script, &[&secret, file.to_str().expect("UTF-8")]) else { return };
    assert_eq!(found, json!({"genuine": messages.len(), "changed": 0}));
    let (_, another) = app.webhook(&all.url(), &["*"]).await;
    let found = python::run(script, &[&another, file.to_str().expect("UTF-8")]).expect("it ran before");
    assert_eq!(found["genuine"], 0, "each webhook has a secret of its own");
}

#[tokio::test]
async fn hold_personal_data_only_if_an_admin_said_so_and_never_of_an_erased_person() {
    let server = Server::start_with(QUICK).await;
    let receiver = Receiver::start().await;
    let app = server.create_app(json!({})).await;
    let body = json!({"url": receiver.url(), "events": ["user.*", "session.*"], "include_personal": true});
    app.post("admin/webhooks").bearer(&server.platform_key()).json(&body).await.expect(201);
    let (ada, bob) = (email("ada"), email("bob"));
    app.register(&ada).await;
    let messages = receiver.until("both come", |messages| messages.len() == 2).await;
    assert_eq!(messages[0].event["data"]["personal"]["email"], *ada);
    assert!(messages[0].event["personal"].is_null(), "the sealed part is opened");
    assert!(messages[1].event["data"]["personal"]["ip"].is_string());
    for message in &messages {
        let text = String::from_utf8_lossy(&message.body);
        assert!(!text.contains("argon2") && !text.contains("password_hash"), "{text}");
    }

    // What waits for its retry is opened at each attempt: once the person is erased, nothing personal leaves.
    receiver.react(|_| Reaction::Answer(500));
    let user = app.register(&bob).await;
    until("it was tried", async || {
        receiver.seen().iter().any(|it| it.event["data"]["personal"]["email"] == *bob)
    })
    .await;
    let path = format!("admin/users/{}", user.user_id);
    app.delete(&path).bearer(&server.platform_key()).await.expect(200);
    let seen = receiver.seen().len();
    receiver.react(|_| Reaction::Answer(200));
    receiver.until("what happened since comes", |messages| types(messages).contains(&"UserErased")).await;
    let after = receiver.seen().split_off(seen + 1);
    assert!(!after.is_empty());
    for message in after.iter().filter(|message| message.event["data"]["user_id"] == *user.user_id) {
        let text = String::from_utf8_lossy(&message.body);
        assert!(!text.contains(&bob) && message.event["data"]["personal"].is_null(), "{text}");
    }
}

#[tokio::test]
async fn that_fail_are_repeated_in_the_order_of_their_stream_and_others_go_on() {
    let server = Server::start_with(QUICK).await;
    let receiver = Receiver::start().await;
    let app = server.create_app(json!({})).await;
    let victim = app.register(&email("victim")).await;
    let before = head(&server).await;
    app.webhook(&receiver.url(), &["*"]).await;
    // One person's events are refused for a while.
    let refuses = Arc::new(AtomicBool::new(true));
    let (subject, flag) = (format!("user-{}", victim.user_id), Arc::clone(&refuses));
    receiver.react(move |message| {
        let is_victim = message.event["subject"] == *subject && flag.load(Ordering::Relaxed);
        Reaction::Answer(if is_victim { 503 } else { 200 })
    });
    let ban = format!("admin/users/{}/ban", victim.user_id);
    app.post(&ban).bearer(&server.platform_key()).json(&json!({"reason": "x"})).await.expect(200);
    let unban = format!("admin/users/{}/unban", victim.user_id);
    app.post(&unban).bearer(&server.platform_key()).await.expect(200);
    for name in ["ada", "bob", "eve"] {
        app.register(&email(name)).await;
    }
    let wanted = webhook_positions(&server, &app, before + 1).await;
    receiver
        .until("the others come", |messages| {
            types(messages).iter().filter(|name| **name == "UserRegistered").count() == 3
        })
        .await;
    assert!(!types(&receiver.accepted()).contains(&"UserBanned"));
    until("it is recorded", async || !of_type(&server.events().await, "WebhookFailed").is_empty()).await;
    refuses.store(false, Ordering::Relaxed);
    let messages = has_all(&receiver, &wanted).await;
    assert_ordered(&messages);
    assert_eq!(messages.len(), wanted.len(), "each once: {:?}", types(&messages));
    let failed = server.events().await;
    let failed = of_type(&failed, "WebhookFailed");
    assert!(failed.iter().all(|event| event["data"]["status"] == 503 && event["data"]["reason"] == "status"));
    let metrics = server.metrics().await;
    assert!(metrics.contains("watchword_webhook_failures_total{reason=\"status\"}"), "{metrics}");
    let doctor = server.command(&["doctor"]).output().expect("it runs");
    assert!(doctor.status.success(), "{}", String::from_utf8_lossy(&doctor.stdout));
}

#[tokio::test]
async fn reach_a_receiver_that_was_away_hung_or_redirected_and_no_other() {
    let server = Server::start_with(QUICK).await;
    let (mut receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
    let app = server.create_app(json!({})).await;
    let before = head(&server).await;
    app.webhook(&receiver.url(), &["*"]).await;
    let to = elsewhere.url();
    for phase in 0..3 {
        match phase {
            0 => receiver.stop(),
            1 => receiver.react(|_| Reaction::Hang),
            _ => {
                let to = to.clone();
                receiver.react(move |_| Reaction::Redirect(to.clone()));
            }
        }
        let failures = of_type(&server.events().await, "WebhookFailed").len();
        for name in ["ada", "bob", "eve", "mallory"] {
            app.register(&email(name)).await;
        }
        until("it fails", async || of_type(&server.events().await, "WebhookFailed").len() > failures).await;
        let wanted = webhook_positions(&server, &app, before + 1).await;
        if phase == 0 {
            receiver.restart();
        }
        receiver.react(|_| Reaction::Answer(200));
        let messages = has_all(&receiver, &wanted).await;
        assert_ordered(&messages);
    }
    assert!(elsewhere.seen().is_empty(), "a redirect is not followed");
    let events = server.events().await;
    let reasons: BTreeSet<&str> = of_type(&events, "WebhookFailed")
        .iter()
        .map(|event| event["data"]["reason"].as_str().expect("text"))
        .collect();
    assert_eq!(reasons, BTreeSet::from(["status", "timeout", "unreachable"]));
}

#[tokio::test]
async fn of_a_receiver_that_hangs_delay_no_other_and_cost_little() {
    let server = Server::start_with(&[ALLOWED]).await;
    let (hanging, working) = (Receiver::start().await, Receiver::start().await);
    hanging.react(|_| Reaction::Hang);
    let app = server.create_app(json!({})).await;
    for _ in 0..5 {
        app.webhook(&hanging.url(), &["*"]).await;
    }
    app.webhook(&working.url(), &["*"]).await;
    let before = head(&server).await;
    for _ in 0..10 {
        app.register(&email("ada")).await;
    }
    let wanted = webhook_positions(&server, &app, before).await;
    has_all(&working, &wanted).await;
    assert!(hanging.seen().len() <= 5 * 8, "few requests at a time: {}", hanging.seen().len());
}

#[tokio::test]
async fn go_to_no_address_that_the_operator_does_not_allow_whatever_its_name() {
    let server =
        Server::start_with(&[("WATCHWORD_ALLOWED_WEBHOOK_NETWORKS", "10.99.99.99/32"), QUICK[2], QUICK[3]])
            .await;
    let receiver = Receiver::start().await;
    let app = server.create_app(json!({})).await;
    // Only when it is resolved, a name turns out to lead to this machine.
    for scheme in ["http", "https"] {
        app.webhook(&format!("{scheme}://localhost:{}/in", receiver.port()), &["*"]).await;
    }
    app.register(&email("ada")).await;
    until("both are refused", async || {
        let events = server.events().await;
        let failed = of_type(&events, "WebhookFailed");
        let webhooks: BTreeSet<_> =
            failed.iter().map(|event| event["data"]["webhook_id"].to_string()).collect();
        assert!(failed.iter().all(|event| event["data"]["reason"] == "forbidden"), "{failed:?}");
        webhooks.len() == 2
    })
    .await;
    assert!(receiver.seen().is_empty());
}

#[tokio::test]
async fn need_a_receiver_with_a_certificate_of_its_name_that_the_machine_trusts() {
    let receiver = Receiver::start().await;
    let proxy = TlsProxy::start(receiver.port());
    let certificate = proxy.certificate().display().to_string();
    let server = Server::start_with(&[QUICK, &[("SSL_CERT_FILE", certificate.as_str())]].concat()).await;
    let app = server.create_app(json!({})).await;
    // The certificate is for `localhost`.
    let (other_name, _) = app.webhook(&format!("https://127.0.0.1:{}/in", proxy.port()), &["user.*"]).await;
    until_failed(&server, &app, &other_name).await;
    assert!(receiver.seen().is_empty());
    app.delete(&format!("admin/webhooks/{other_name}")).bearer(&server.platform_key()).await.expect(204);

    app.webhook(&format!("https://localhost:{}/in", proxy.port()), &["user.*"]).await;
    app.register(&email("bob")).await;
    let messages = receiver.until("it comes", |messages| !messages.is_empty()).await;
    assert_eq!(types(&messages), ["UserRegistered"]);

    // A machine that does not know the authority.
    let stranger = Server::start_with(QUICK).await;
    let app = stranger.create_app(json!({})).await;
    let (id, _) = app.webhook(&format!("https://localhost:{}/in", proxy.port()), &["user.*"]).await;
    until_failed(&stranger, &app, &id).await;
    assert_eq!(receiver.seen().len(), 1);
}

/// Has an event sent to a webhook that cannot be reached.
async fn until_failed(server: &Server, app: &App<'_>, webhook_id: &str) {
    app.register(&email("ada")).await;
    until("it is recorded as unreachable", async || {
        let events = server.events().await;
        let of_webhook = |event: &&Value| event["data"]["webhook_id"] == webhook_id;
        let reasons: Vec<_> = of_type(&events, "WebhookFailed").into_iter().filter(of_webhook).collect();
        assert!(reasons.iter().all(|event| event["data"]["reason"] == "unreachable"), "{reasons:?}");
        !reasons.is_empty()
    })
    .await;
}

#[tokio::test]
async fn that_nobody_accepts_are_given_up_and_then_the_webhook_is_disabled() {
    let smtp = Smtp::start();
    let mail_url = smtp.url();
    let settings = [
        QUICK,
        &[
            ("WATCHWORD_WEBHOOKS_GIVE_UP_AFTER", "3"),
            ("WATCHWORD_WEBHOOKS_DISABLE_AFTER", "5"),
            ("WATCHWORD_MAIL_URL", &mail_url),
        ],
    ];
    let server = Server::start_with(&settings.concat()).await;
    let receiver = Receiver::start().await;
    receiver.react(|_| Reaction::Answer(410));
    let app = server.create_app(json!({})).await;
    let (first, second, banned) = (email("admin"), email("other-admin"), email("banned-admin"));
    app.register_admin(&first).await;
    app.register_admin(&second).await;
    app.ban(&app.register_admin(&banned).await.user_id).await;
    server.create_app(json!({})).await.register_admin(&email("elsewhere")).await;
    let (id, _) = app.webhook(&receiver.url(), &["*"]).await;
    app.register(&email("ada")).await;
    let path = format!("admin/webhooks/{id}");
    until("it is disabled", async || {
        // There is always something new that it refuses.
        app.register(&email("bob")).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let webhook = app.get(&path).bearer(&server.platform_key()).await.expect(200).json();
        webhook["enabled"] == false && webhook["failing_since"].is_string()
    })
    .await;
    let events = server.events().await;
    let given_up = of_type(&events, "WebhookFailed");
    assert!(given_up.iter().any(|event| event["data"]["retry_at"].is_null()), "{given_up:?}");
    let disabled = of_type(&events, "WebhookDisabled");
    assert_eq!(disabled.len(), 1);

    // Its admins are told, each once, and nobody else.
    let told = async || {
        let mails = smtp.mails().into_iter().map(|line| serde_json::from_str::<Value>(&line).expect("JSON"));
        let is_notice =
            |mail: &Value| mail["headers"]["message-id"].to_string().contains(".webhook_disabled@");
        mails.filter(is_notice).collect::<Vec<_>>()
    };
    until("both admins are told", async || told().await.len() == 2).await;
    let mails = told().await;
    let to: BTreeSet<String> =
        mails.iter().map(|mail| mail["to"][0].as_str().expect("a text").to_owned()).collect();
    assert_eq!(to, BTreeSet::from([first, second]));
    assert!(
        mails.iter().all(|mail| mail["defects"] == json!([]) && !mail["text"].to_string().contains("http"))
    );
    let requested = of_type(&server.events().await, "WebhookNoticeRequested").len();
    assert_eq!(requested, 2, "in the append that disabled it");

    // Somebody mends it and enables it: it is sent what happens from then on.
    let seen = receiver.seen().len();
    receiver.react(|_| Reaction::Answer(200));
    app.register(&email("cleo")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(receiver.seen().len(), seen);
    disable(&app, &server, &id, true).await;
    app.register(&email("eve")).await;
    let messages = receiver.until("it is sent events again", |messages| messages.len() >= 2).await;
    assert!(types(&messages).starts_with(&["UserRegistered"]), "{:?}", types(&messages));
    let webhook = app.get(&path).bearer(&server.platform_key()).await.expect(200).json();
    assert_eq!(webhook["failing_since"], Value::Null);
}

#[tokio::test]
async fn are_not_sent_again_after_a_restart_or_a_rebuild() {
    let mut server = Server::start_with(QUICK).await;
    let receiver = Receiver::start().await;
    let id = server.create_app(json!({})).await.id;
    server.app(&id).webhook(&receiver.url(), &["*"]).await;
    let before = head(&server).await;
    for name in ["ada", "bob"] {
        server.app(&id).register(&email(name)).await;
    }
    let wanted = webhook_positions(&server, &server.app(&id), before).await;
    has_all(&receiver, &wanted).await;
    tests::checker::forget_read_models(&mut server).await;
    server.up().await;
    let now = server.app(&id);
    now.register(&email("eve")).await;
    let wanted = webhook_positions(&server, &now, before).await;
    let messages = has_all(&receiver, &wanted).await;
    assert_eq!(messages.len(), wanted.len(), "{:?}", types(&messages));
    let recorded = server.events().await;
    let count: u64 = of_type(&recorded, "WebhookDelivered")
        .iter()
        .filter_map(|event| event["data"]["count"].as_u64())
        .sum();
    assert!(count >= 4, "what was accepted is recorded at the end: {count}");
}

#[tokio::test]
async fn come_in_order_from_many_streams_while_the_receiver_refuses_at_random() {
    let server = Server::start_with(QUICK).await;
    let receiver = Receiver::start().await;
    let app = server.create_app(json!({})).await;
    let before = head(&server).await;
    app.webhook(&receiver.url(), &["*"]).await;
    let number = AtomicU64::new(0);
    receiver.react(move |_| {
        let number = number.fetch_add(1, Ordering::Relaxed);
        Reaction::Answer(if number % 3 == 1 { 500 } else { 200 })
    });
    for _ in 0..8 {
        let user = app.register(&email("ada")).await;
        let ban = format!("admin/users/{}", user.user_id);
        for _ in 0..2 {
            let body = json!({"reason": "x"});
            app.post(&format!("{ban}/ban")).bearer(&server.platform_key()).json(&body).await.expect(200);
            app.post(&format!("{ban}/unban")).bearer(&server.platform_key()).await.expect(200);
        }
    }
    let wanted = webhook_positions(&server, &app, before + 1).await;
    let messages = has_all(&receiver, &wanted).await;
    assert_ordered(&messages);
    assert_eq!(messages.len(), wanted.len(), "each was accepted once");
}
