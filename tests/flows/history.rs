//! The history of a person in words.

use serde_json::{Value, json};
use tests::{Answer, App, Server, email, of_type};

async fn history(app: &App<'_>, user: &str, accept: &str, after: &Answer) -> Answer {
    app.get(&format!(
        "admin/users/{user}/history?{}",
        if accept == "application/json" { "limit=200" } else { "" }
    ))
    .bearer(&app.server.platform_key())
    .header("accept", accept)
    .header("consistency-token", after.consistency())
    .await
    .expect(200)
}

#[tokio::test]
async fn it_says_what_happened_by_whom_and_from_where() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let key = server.platform_key();
    let address = email("ada");
    let user = app.register(&address).await;
    app.login(&address, "a wrong guess").header("user-agent", "Guesser/1").await.expect_refusal();
    let path = format!("admin/users/{}", user.user_id);
    app.patch(&path).bearer(&key).json(&json!({ "name": "Ada Lovelace" })).await.expect(200);
    app.put(&format!("{path}/roles/editor"))
        .bearer(&key)
        .header("x-request-id", "grant-1")
        .await
        .expect_success();
    let last = app
        .post(&format!("{path}/ban"))
        .bearer(&key)
        .json(&json!({ "reason": "sold the engine\ntwice" }))
        .await
        .expect_success();

    let page = history(&app, &user.user_id, "application/json", &last).await.json();
    let items = page["items"].as_array().expect("a list");
    let whats: Vec<String> = items
        .iter()
        .map(|it| it["what"].as_str().expect("words").replace(&user.session, "…").replace(&address, "ada@…"))
        .filter(|what| !what.starts_with("Mail") && !what.starts_with("Verification"))
        .collect();
    insta::assert_json_snapshot!(whats, @r#"
    [
      "Registered with a password, as ada@…",
      "Logged in by registering: session …",
      "Wrong password on an unknown device, 1 in this window",
      "Profile changed: name Ada Lovelace",
      "Role editor granted",
      "Banned: sold the engine\ntwice",
      "Session … ended: banned"
    ]
    "#);
    let granted = items.iter().find(|it| it["type"] == "RoleGranted").expect("it is there");
    assert_eq!((&granted["actor"]["kind"], &granted["request_id"]), (&json!("api_key"), &json!("grant-1")));
    let failed = items.iter().find(|it| it["type"] == "LoginFailed").expect("it is there");
    assert_eq!((&failed["ip"], &failed["user_agent"]), (&json!("127.0.0.1"), &json!("Guesser/1")));

    // The other forms tell the same, a line each, whatever people typed. That somebody looks is part of the history.
    let lines = history(&app, &user.user_id, "application/x-ndjson", &last).await;
    let read: Vec<Value> = lines.text.lines().map(|it| serde_json::from_str(it).expect("JSON")).collect();
    assert_eq!(read[..items.len()], *items.as_slice());
    let text = history(&app, &user.user_id, "text/plain", &last).await;
    assert!(text.header("content-type").expect("there").starts_with("text/plain"));
    let lines: Vec<&str> = text.text.lines().collect();
    assert!(lines.len() > items.len());
    for (line, item) in lines.iter().zip(items) {
        let (time, position) = (item["time"].as_str().expect("a time"), &item["position"]);
        assert!(line.starts_with(&format!("{time}  {position}  ")), "{line} for {item}");
    }
    assert!(
        lines.iter().any(|line| line.contains("Banned: sold the engine twice (by api key ")),
        "{lines:#?}"
    );
    let table = history(&app, &user.user_id, "text/csv", &last).await;
    assert!(table.text.starts_with("time,position,what,type,actor_kind,"), "{}", table.text);

    let printed = |format: &[&str]| {
        let base = server.base();
        let arguments = [&["history", "user", &app.id, &address, "--url", &base], format].concat();
        let output = server.command(&arguments).output().expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    assert!(printed(&[]).starts_with(&text.text.lines().next().expect("a line").to_owned()));
    let json: Value = serde_json::from_str(&printed(&["--json"])).expect("JSON");
    assert_eq!(json["items"].as_array().expect("a list")[..items.len()], *items.as_slice());
    assert!(printed(&["--format", "csv"]).starts_with("time,"));
}

#[tokio::test]
async fn it_is_for_those_who_may_see_the_audit_log_and_the_person() {
    let server = Server::start().await;
    let (app, other) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    let user = app.register(&email("ada")).await;
    let path = format!("admin/users/{}/history", user.user_id);
    for permissions in [&["users:read"][..], &["audit:read"]] {
        let (_, key) = app.api_key(permissions).await;
        app.get(&path).bearer(&key).await.problem(403, "forbidden");
    }
    let (_, key) = app.api_key(&["users:read", "audit:read"]).await;
    app.get(&path).bearer(&key).await.expect(200);
    app.get(&format!("{path}?after=x")).bearer(&key).await.problem(400, "malformed_request");
    other.get(&path).bearer(&server.platform_key()).await.problem(404, "not_found");
    app.get(&path).bearer(&key).header("accept", "image/png").await.expect(406);

    // What another app's admin does with the person's id is not part of it.
    let theirs = format!("audit/events?user_id={}", user.user_id);
    other.get(&theirs).bearer(&server.platform_key()).header("accept", "text/csv").await.expect(200);
    assert_eq!(of_type(&server.events().await, "HistoryExported").len(), 1);
    let last = app.ban(&user.user_id).await;
    let seen = history(&app, &user.user_id, "application/json", &last).await.json();
    let types = seen["items"].as_array().expect("a list").iter().map(|it| it["type"].clone());
    let types: Vec<Value> = types.collect();
    assert!(types.contains(&json!("UserBanned")) && !types.contains(&json!("HistoryExported")), "{types:?}");
}
