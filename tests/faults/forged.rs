//! An attacker with write access to the bus publishes events that never happened: a role grant at the position of a
//! ban.

use async_nats::HeaderMap;
use async_nats::jetstream;
use serde_json::{Value, json};
use test_services::{Nats, Postgres};
use tests::{App, Server, Tokens, email};

use crate::postgres::cluster;
use crate::{SETTINGS, relay, until};

/// Publishes a changed copy of the newest event at the next position, with the mark that the test chooses.
async fn forge(nats: &Nats, mark: &str, event: &Value, changes: &Value) {
    let client = async_nats::connect(nats.url()).await.expect("NATS is there");
    let stream = jetstream::new(client.clone()).get_stream("WATCHWORD").await.expect("it is there");
    let last =
        stream.get_raw_message(event["position"].as_u64().expect("a number")).await.expect("it is there");
    let next = last.sequence + 1;
    let mut body: Value = serde_json::from_slice(&last.payload).expect("JSON");
    for (member, value) in changes.as_object().expect("an object") {
        body[member] = value.clone();
    }
    let mut headers = HeaderMap::new();
    for (name, values) in last.headers.iter() {
        let name: &str = name.as_ref();
        let is_copied = !name.starts_with("Nats-") && (name != "ww-mac" || mark == "copied");
        for value in values.iter().filter(|_| is_copied) {
            headers.insert(name, value.as_str());
        }
    }
    if !["none", "copied"].contains(&mark) {
        headers.insert("ww-mac", mark);
    }
    headers.insert("Nats-Msg-Id", body["id"].as_str().expect("an id"));
    headers.insert("ce-position", next.to_string());
    headers.insert("ce-prevposition", last.sequence.to_string());
    let subject = format!("auth.v1.{}.user.RoleGranted", body["appid"].as_str().expect("an app"));
    let jetstream = jetstream::new(client);
    let sent = jetstream.publish_with_headers(subject, headers, body.to_string().into());
    assert_eq!(sent.await.expect("sent").await.expect("stored").sequence, next);
}

/// A user, as the projection node shows them.
async fn shown(app: &App<'_>, user: &Tokens) -> Value {
    let path = app.path(&format!("admin/users/{}", user.user_id));
    app.server.projections().get(&path).bearer(&app.server.platform_key()).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_forged_at_the_position_of_a_ban() {
    for mark in ["none", "copied", "garbage"] {
        let (nats, database) = (Nats::start(), Postgres::shared().database());
        let url = nats.url();
        let mut server = Server::start_roles(&[&SETTINGS[..], &cluster(&database, &url)].concat()).await;
        let key = server.platform_key();
        let mallory = server.default_app().register(&email("mallory")).await;
        until("everything is published", async || {
            let relay = relay(&server).await;
            relay["state"] == "running" && relay["lag"] == 0
        })
        .await;

        let events = server.events().await;
        let (last, next) = (events.last().expect("there are events"), events.len() + 1);
        let user = format!("user-{}", mallory.user_id);
        let grant = json!({
            "id": "01890000-0000-7000-8000-000000000001", "type": "RoleGranted", "subject": user,
            "dataschema": "/schemas/events/user/RoleGranted.v1.json", "position": next, "prevposition": next - 1,
            "streamversion": 2,
            "data": {"user_id": mallory.user_id, "role": "admin", "at": last["time"]},
        });
        forge(&nats, mark, last, &grant).await;
        until("the relay sees it", async || relay(&server).await["state"] == "stopped").await;
        let ban = server.default_app().post(&format!("admin/users/{}/ban", mallory.user_id)).bearer(&key);
        ban.json(&json!({"reason": "forgery"})).await.expect_success();

        for restart in [false, true] {
            if restart {
                let projections = server.projections_mut();
                assert!(projections.terminate().await.success());
                projections.up().await;
                assert!(server.terminate().await.success());
                server.up().await;
            }
            let app = server.default_app();
            until("the ban is shown, and no role", async || {
                let user = shown(&app, &mallory).await;
                assert_ne!(user["roles"], json!(["admin"]), "{mark}: {user}");
                user["banned"] == true && user["roles"] == json!([])
            })
            .await;
            until("the relay says so", async || relay(&server).await["state"] == "stopped").await;
            let told = relay(&server).await["detail"].as_str().expect("it says why").to_owned();
            assert!(told.contains("did not publish") && told.contains("relay --rebuild"), "{told}");
            let projections = server.projections().get("/readyz").bearer(&key).await.expect(200).json();
            let bus = &projections["checks"]["bus"];
            if !restart {
                let refused = if mark == "none" { "unmarked" } else { "forged" };
                assert_eq!((&bus[refused], &bus["last_refused"]), (&json!(1), &json!(next)), "{mark}: {bus}");
                let metrics = server.projections().get("/metrics").bearer(&key).await.expect(200).text;
                let reason = if mark == "none" { "no_mark" } else { "wrong_mark" };
                assert!(
                    metrics.contains(&format!("watchword_feed_refused_total{{reason=\"{reason}\"}} 1")),
                    "{metrics}"
                );
            }
            let output = server.command(&["doctor"]).output().expect("it runs");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(!output.status.success() && said.contains("did not publish"), "{said}");
        }

        let output = server.command(&["relay", "--rebuild"]).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(server.command(&["relay"]).output().expect("it runs").status.success());
        until("the relay publishes again", async || {
            let relay = relay(&server).await;
            relay["state"] == "running" && relay["lag"] == 0
        })
        .await;
        let client = async_nats::connect(nats.url()).await.expect("NATS is there");
        let stream = jetstream::new(client).get_stream("WATCHWORD").await.expect("it is there");
        let events = server.events().await;
        assert_eq!(stream.cached_info().state.messages, events.len() as u64);
        let message = stream.get_raw_message(next as u64).await.expect("it is there");
        let message: Value = serde_json::from_slice(&message.payload).expect("JSON");
        assert_eq!((&message["type"], &message["id"]), (&json!("UserBanned"), &events[next - 1]["id"]));
    }
}

/// The relay of a single process with its files: it may repair automatically what otherwise an operator must.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_stream_is_rebuilt_by_command_or_setting() {
    let nats = Nats::start();
    let mut server = crate::server_of(&nats, &[]).await;
    server.default_app().register(&email("ada")).await;
    let published = async |server: &Server| {
        until("everything is published", async || {
            let relay = relay(server).await;
            relay["state"] == "running" && relay["lag"] == 0
        })
        .await;
    };
    published(&server).await;
    let events = server.events().await;
    let grant = json!({"id": "01890000-0000-7000-8000-000000000001", "type": "RoleGranted"});
    forge(&nats, "none", events.last().expect("there are events"), &grant).await;
    until("the relay stands still", async || relay(&server).await["state"] == "stopped").await;

    // While a server is running and holds the journal: the server fills the deleted stream again.
    let output = server.command(&["relay", "--rebuild", "--json"]).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told, json!({"deleted": true, "filled": null}));
    published(&server).await;

    forge(&nats, "copied", events.last().expect("there are events"), &grant).await;
    until("the relay stands still", async || relay(&server).await["state"] == "stopped").await;
    assert!(server.terminate().await.success());
    let stopped = server.command(&["relay"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&stopped.stdout).into_owned();
    assert!(!stopped.status.success() && said.contains("did not publish"), "{said}");
    server.set_environment("WATCHWORD_NATS_REBUILD_INTERVAL", "60");
    server.up().await;
    published(&server).await;
    assert!(server.metrics().await.contains("watchword_relay_rebuilds_total 1"));
}
