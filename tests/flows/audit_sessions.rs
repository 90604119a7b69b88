//! Which sessions lived between two times, and what ended them.

use serde_json::{Value, json};
use tests::{App, PASSWORD, Server, email, of_type};

async fn lived(app: &App<'_>, query: &str) -> Vec<Value> {
    let answer =
        app.get(&format!("audit/sessions?{query}")).bearer(&app.server.platform_key()).await.expect(200);
    answer.text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test]
async fn each_has_its_beginning_and_what_ended_it() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let (address, other) = (email("ada"), email("grace"));
    let first = app.register(&address).await;
    let second = app.login(&address, PASSWORD).header("user-agent", "Engine/1").await.expect(200).tokens();
    let theirs = app.register(&other).await;
    app.post("auth/logout").bearer(&first.access).await.expect(204);
    let last = app.ban(&first.user_id).await;
    let events = server.events().await;
    let newest = |kind: &str| (*of_type(&events, kind).last().expect("there is one")).clone();
    let time = |kind: &str| newest(kind)["time"].as_str().expect("a time").to_owned();
    // The read model that finds them has caught up.
    app.get("audit/events?limit=1")
        .bearer(&server.platform_key())
        .header("consistency-token", last.consistency())
        .await
        .expect(200);

    let all = lived(&app, "from=2020-01-01").await;
    let shown: Vec<_> = all.iter().map(|it| (it["session_id"].clone(), it["ended_by"].clone())).collect();
    assert_eq!(
        shown,
        [
            (json!(first.session), json!("SessionRevoked")),
            (json!(second.session), json!("UserBanned")),
            (json!(theirs.session), Value::Null),
        ]
    );
    assert_eq!(all[1]["ended_position"], newest("UserBanned")["position"]);
    assert_eq!((&all[1]["user_agent"], &all[1]["method"]), (&json!("Engine/1"), &json!("password")));
    assert_eq!(all[2]["ended_at"], Value::Null);

    let of_user = lived(&app, &format!("from=2020-01-01&user_id={}", theirs.user_id)).await;
    assert_eq!(of_user, all[2..]);
    let after_the_ban = lived(&app, &format!("from={}", time("UserBanned"))).await;
    assert_eq!(after_the_ban, all[2..]);
    assert_eq!(lived(&app, "from=2020-01-01&until=2020-01-02").await, [Value::Null; 0]);
    let (_, key) = app.api_key(&["users:read"]).await;
    app.get("audit/sessions?from=2020-01-01").bearer(&key).await.problem(403, "forbidden");
    let refused = |query: &str| app.get(&format!("audit/sessions?{query}")).bearer(&server.platform_key());
    refused("from=yesterday").await.problem(400, "malformed_request");
    refused("from=2026-01-02&until=2026-01-01").await.problem(422, "validation_failed");
}
