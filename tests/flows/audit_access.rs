//! Who could log in at a moment, and who had a role then.

use serde_json::{Value, json};
use tests::{Answer, App, Server, email};

/// The accounts, by id.
async fn accounts(app: &App<'_>, query: &str, key: &str) -> Vec<Value> {
    let answer = app.get(&format!("audit/access?{query}")).bearer(key).await.expect(200);
    assert!(answer.header("as-of-position").is_some());
    answer.text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn ids(accounts: &[Value]) -> Vec<&str> {
    accounts.iter().map(|it| it["user_id"].as_str().expect("an id")).collect()
}

async fn head(server: &Server, _: &Answer) -> usize {
    server.events().await.len()
}

#[tokio::test]
async fn it_is_told_for_each_moment() {
    let server = Server::start().await;
    let app = server.create_app(json!({ "require_verified_email": false })).await;
    let key = server.platform_key();
    let created = server.events().await.len();
    let (address, other) = (email("ada"), email("grace"));
    let (ada, grace) = (app.register(&address).await, app.register(&other).await);
    let role = format!("admin/users/{}/roles/editor", grace.user_id);
    let granted = head(&server, &app.put(&role).bearer(&key).await.expect_success()).await;
    let banned = head(&server, &app.ban(&grace.user_id).await).await;
    let revoked = head(&server, &app.delete(&role).bearer(&key).await.expect_success()).await;
    let strict = json!({ "settings": { "require_verified_email": true } });
    let strict = server.patch(format!("/v1/apps/{}", app.id)).bearer(&key).json(&strict).await.expect(200);
    let strict = head(&server, &strict).await;

    let at =
        async |position: usize, more: &str| accounts(&app, &format!("as_of={position}{more}"), &key).await;
    assert_eq!(ids(&at(created, "").await), [""; 0]);
    assert_eq!(ids(&at(granted, "").await), [&ada.user_id, &grace.user_id]);
    assert_eq!(ids(&at(banned, "").await), [&ada.user_id]);
    assert_eq!(ids(&at(strict, "").await), [""; 0], "nobody's address is verified");
    assert_eq!(ids(&accounts(&app, "", &key).await), [""; 0], "now");
    assert_eq!(ids(&at(granted, "&role=editor").await), [&grace.user_id]);
    assert_eq!(ids(&at(revoked, "&role=editor").await), [""; 0]);
    let holder = at(banned, "&role=editor").await.remove(0);
    assert_eq!((&holder["could_log_in"], &holder["banned"]), (&json!(false), &json!(true)));
    assert_eq!((&holder["email"], &holder["roles"]), (&json!(other), &json!(["editor"])));

    // Addresses are for those who may see people, tables for spreadsheets, and the export is on record.
    let (_, auditor) = app.api_key(&["audit:read"]).await;
    assert_eq!(accounts(&app, &format!("as_of={granted}"), &auditor).await[0]["email"], Value::Null);
    let table = app
        .get(&format!("audit/access?as_of={granted}"))
        .bearer(&key)
        .header("accept", "text/csv")
        .await
        .expect(200);
    assert!(table.header("content-type").expect("there").starts_with("text/csv"));
    assert_eq!(table.text.lines().count(), 3);
    let events = server.events().await;
    assert!(tests::of_type(&events, "HistoryExported").len() >= 2);

    let refused = |query: &str| app.get(&format!("audit/access?{query}")).bearer(&key);
    refused("as_of=1").await.problem(404, "not_found");
    refused("as_of=99999").await.problem(422, "validation_failed");
    refused("role=%20").await.problem(422, "validation_failed");
}
