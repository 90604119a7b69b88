//! k, l, s: read models are the log and nothing else.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{PASSWORD, Server, email, until};

const CHEAP: (&str, &str) = ("WATCHWORD_ARGON2", "m=1024,t=1,p=1");

/// Waits until every read model has seen the whole log.
async fn caught_up(server: &Server) -> u64 {
    let key = server.platform_key();
    let head = server.events().await.len() as u64;
    until("the read models catch up", async || {
        let list = server.get("/v1/projections").bearer(&key).await.expect(200).json();
        list["items"].as_array().unwrap().iter().all(|it| it["position"].as_u64() >= Some(head))
    })
    .await;
    head
}

/// The types of the events that these tests cause.
const DECISIONS: &str =
    "AppCreated,UserRegistered,SessionStarted,LoginFailed,SessionRefreshed,UserBanned,SessionRevoked";

async fn answers(server: &Server, app: &str) -> Vec<Value> {
    let key = server.platform_key();
    let mut all = vec![];
    // Without the records of these reads themselves.
    let audit = format!("audit/events?limit=200&type={DECISIONS}");
    for path in ["admin/users?limit=200", "admin/stats?granularity=day", &audit] {
        let mut answer = server.get(format!("/v1/apps/{app}/{path}")).bearer(&key).await.expect(200).json();
        // The stats' default range ends now.
        for moving in ["from", "to"] {
            answer.as_object_mut().expect("an object").remove(moving);
        }
        all.push(answer);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_k_read_models_built_anew_are_those_that_lived_through_it() {
    let mut server = Server::start_with(&[CHEAP]).await;
    let id = {
        let app = server.create_app(json!({})).await;
        for _ in 0..10 {
            let address = email("ada");
            let tokens = app.register(&address).await;
            app.login(&address, "wrong-Kettle-93").await.problem(401, "invalid_credentials");
            app.login(&address, PASSWORD).await.expect(200);
            app.refresh(&tokens.refresh).await.expect(200);
            app.ban(&tokens.user_id).await;
        }
        app.id
    };
    caught_up(&server).await;
    let lived = answers(&server, &id).await;
    server.terminate().await;
    let mut deleted = 0;
    for entry in std::fs::read_dir(server.data()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("read") {
            std::fs::remove_file(path).unwrap();
            deleted += 1;
        }
    }
    assert!(deleted > 0, "the read models are files of their own");
    server.up().await;
    caught_up(&server).await;
    assert_eq!(answers(&server, &id).await, lived);
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_l_projectors_go_on_where_they_were_after_kill_9() {
    let mut server = Server::start_with(&[CHEAP]).await;
    let id = server.create_app(json!({})).await.id;
    let mut users = 0;
    for round in 0..10 {
        let path = format!("/v1/apps/{id}/auth/register");
        let calls = (0..8).map(|_| {
            server.post(&path).json(&json!({"email": email("ada"), "password": PASSWORD})).attempt()
        });
        for answer in futures::future::join_all(calls).await {
            let _ = answer.unwrap().expect(201);
            users += 1;
        }
        // The acknowledged events are in the journal; the projectors may still be behind.
        tokio::time::sleep(Duration::from_millis(round)).await;
        server.kill();
        server.up().await;
    }
    caught_up(&server).await;
    let list = answers(&server, &id).await;
    assert_eq!(list[0]["total"], users);
    let registrations: u64 = list[1]["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["registrations"]["password"].as_u64().expect("a figure"))
        .sum();
    assert_eq!(registrations, users, "each counted once");
}

#[tokio::test]
async fn inv_s_each_decision_has_one_audit_record() {
    let server = Server::start_with(&[CHEAP]).await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    let tokens = app.register(&address).await;
    app.login(&address, "wrong-Kettle-93").await.problem(401, "invalid_credentials");
    app.refresh(&tokens.refresh).await.expect(200);
    app.ban(&tokens.user_id).await;
    caught_up(&server).await;
    // Before the audit log is read, which is a decision too.
    let events = server.events().await;
    let key = server.platform_key();
    let records = app.get("audit/events?limit=200").bearer(&key).await.expect(200).json();
    let mut recorded: Vec<u64> =
        records["items"].as_array().unwrap().iter().map(|it| it["position"].as_u64().unwrap()).collect();
    recorded.sort_unstable();
    let decided: Vec<u64> = events
        .iter()
        .filter(|it| it["appid"] == *app.id)
        .map(|it| it["position"].as_u64().unwrap())
        .collect();
    assert_eq!(recorded, decided);
}
