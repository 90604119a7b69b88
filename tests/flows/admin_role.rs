//! The role that an app's `admin_role` names controls the app; no other does, however it is spelled.

use serde_json::{Value, json};
use tests::{PASSWORD, Server, email};

#[tokio::test]
async fn roles_of_other_frameworks_are_kept_as_they_are() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let key = server.platform_key();
    let address = email("ada");
    let ada = app.register(&address).await;
    let put = |role: &str| app.put(&format!("admin/users/{}/roles/{role}", ada.user_id)).bearer(&key);
    for role in ["Admin", "Task.Write", "Billing:Manager", "ROLE_ADMIN", "a", &"x".repeat(64)] {
        let granted = put(role).await.expect(200).json();
        assert!(granted.get("opens").is_none(), "{granted}");
    }
    for role in ["two%20words", "1st", ".hidden", "gr%C3%BCn", "a%2Fb", &"x".repeat(65)] {
        put(role).await.problem(422, "validation_failed");
    }
    let blank = put("two%20words").await.problem(422, "validation_failed");
    assert!(blank["errors"][0]["detail"].as_str().expect("text").contains("blanks"), "{blank}");
    let again = app.login(&address, PASSWORD).await.expect(200);
    let mut roles = again.json()["user"]["roles"].as_array().expect("roles").clone();
    roles.sort_by_key(Value::to_string);
    assert_eq!(roles.len(), 6, "{roles:?}");
    app.get("admin/users").bearer(&again.tokens().access).await.problem(403, "forbidden");
}

#[tokio::test]
async fn only_the_role_that_the_app_names_controls_it() {
    let server = Server::start().await;
    let app = server.create_app(json!({"admin_role": "Boss"})).await;
    let key = server.platform_key();
    let settings = async |bearer: &str, role: &str| {
        let body = json!({"settings": {"admin_role": role}});
        server.patch(format!("/v1/apps/{}", app.id)).bearer(bearer).json(&body).await
    };
    let address = email("ada");
    let ada = app.register(&address).await;
    let put = |role: &str| app.put(&format!("admin/users/{}/roles/{role}", ada.user_id)).bearer(&key);
    put("Boss").await.problem(409, "email_not_verified");
    put("admin").await.expect(200);
    app.get("admin/users").bearer(&ada.access).await.problem(403, "forbidden");

    app.verify(&address).await;
    let granted = put("Boss").await.expect(200).json();
    assert!(granted["opens"].as_str().expect("what it opens").contains("settings"), "{granted}");
    app.me(&ada.access).await.problem(401, "unauthenticated");
    let boss = app.login(&address, PASSWORD).await.expect(200).tokens();
    app.get("admin/users").bearer(&boss.access).await.expect(200);

    // Neither admins nor keys of the app say what an admin is.
    let (_, limited) = app.api_key(&["settings:write", "users:write"]).await;
    settings(&boss.access, "editor").await.problem(403, "forbidden");
    settings(&limited, "editor").await.problem(403, "forbidden");
    settings(&boss.access, "Boss").await.expect(200);
    settings(&key, "no role").await.problem(422, "validation_failed");

    let none = settings(&key, "").await.expect(200).json();
    assert_eq!(none["settings"]["admin_role"], Value::Null);
    app.get("admin/users").bearer(&boss.access).await.problem(403, "forbidden");
    // What was an admin's before is nobody's now: a key may have acted on the account in between.
    settings(&key, "Boss").await.expect(200);
    app.get("admin/users").bearer(&boss.access).await.problem(403, "forbidden");
    put("Boss").await.expect(200);
    let boss = app.login(&address, PASSWORD).await.expect(200).tokens();
    app.get("admin/users").bearer(&boss.access).await.expect(200);
}

#[tokio::test]
async fn a_role_that_a_key_gave_opens_nothing_when_the_app_names_it() {
    let mut server = Server::start().await;
    let app_id = {
        let app = server.create_app(json!({})).await;
        let (_, limited) = app.api_key(&["users:write"]).await;
        let address = email("eve");
        let eve = app.register(&address).await;
        app.verify(&address).await;
        let path = format!("admin/users/{}/roles/ops", eve.user_id);
        app.put(&path).bearer(&limited).await.expect(200);
        let body = json!({"settings": {"admin_role": "ops"}});
        let change = server.patch(format!("/v1/apps/{}", app.id)).bearer(&server.platform_key());
        change.json(&body).await.expect(200);
        let eve = app.login(&address, PASSWORD).await.expect(200).tokens();
        app.get("admin/users").bearer(&eve.access).await.problem(403, "forbidden");
        app.put(&path).bearer(&limited).await.problem(403, "forbidden");
        app.register_admin_as(&email("grace"), "ops").await;
        app.id
    };
    assert!(server.terminate().await.success());
    let output = server.command(&["doctor"]).output().expect("doctor runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = format!("app {app_id}: 1 with the role ops, which controls the app; 1 had it before");
    assert!(output.status.success() && text.contains(&line), "{text}");
}
