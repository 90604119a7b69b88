//! All that is held about a person, for them and for who answers them.

use serde_json::{Value, json};
use tests::{PASSWORD, Server, email, of_type};

const NAME: &str = "Augusta Ada King";
const AGENT: &str = "Analytical Engine/1.0 (Lovelace)";

#[tokio::test]
async fn a_person_gets_all_that_is_held_about_them_and_nothing_of_others() {
    let mut server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let (ada, eve) = (email("ada"), email("eve"));
    let of_eve = app.register(&eve).await;
    let of_ada = app.register_admin(&ada).await;
    app.patch("auth/me").bearer(&of_ada.access).json(&json!({ "name": NAME })).await.expect(200);
    app.login(&ada, "wrong").header("user-agent", AGENT).await.expect(401);
    // What she does to others is about her, too: where it came from. What others do to her is not where they were.
    let ban = app.post(&format!("admin/users/{}/ban", of_eve.user_id)).bearer(&of_ada.access);
    ban.header("user-agent", AGENT).json(&json!({ "reason": "a secret of Eve's" })).await.expect(200);

    let export = app.get("auth/me/export").bearer(&of_ada.access).await.expect(200);
    assert_eq!(export.header("content-type"), Some("application/json"));
    let data = export.json();
    assert_eq!((&data["user_id"], &data["app_id"]), (&json!(of_ada.user_id), &json!(app.id)));
    let events = data["events"].as_array().expect("events");
    let names: Vec<&str> = events.iter().map(|event| event["type"].as_str().expect("a type")).collect();
    for name in
        ["UserRegistered", "EmailVerified", "RoleGranted", "SessionStarted", "ProfileUpdated", "LoginFailed"]
    {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let of = |name: &str| events.iter().find(|event| event["type"] == name).expect(name).clone();
    assert_eq!(of("UserRegistered")["personal"]["email"], ada.as_str());
    assert_eq!(of("ProfileUpdated")["personal"]["name"], NAME);
    assert_eq!(of("LoginFailed")["personal"]["user_agent"], AGENT);
    let banned = of("UserBanned");
    assert_eq!(
        banned["personal"].as_object().expect("an object").keys().collect::<Vec<_>>(),
        ["ip", "user_agent"]
    );
    for secret in ["argon2", "secret of Eve", &eve] {
        assert!(!export.text.contains(secret), "{secret}: {}", export.text);
    }
    let rows = |table: &str| {
        data["read_models"][table].as_array().unwrap_or_else(|| panic!("{table}: {data}")).clone()
    };
    assert_eq!(rows("users_v2")[0]["personal"], json!({ "email": ada, "name": NAME }));
    assert!(rows("sessions_v1").iter().all(|row| row["user_id"] == of_ada.user_id.as_str()));
    assert!(rows("sessions_v1").len() > 1 && !rows("login_checks_v1").is_empty());
    assert!(rows("users_v2")[0]["words"].as_str().is_some_and(|words| words.len() > 16));
    assert!(!rows("active_users_v2").is_empty());
    assert!(rows("audit_log_v2").len() > 5);

    // It is recorded, and the person sees who else has got it.
    let key = server.platform_key();
    let path = format!("admin/users/{}/export", of_ada.user_id);
    let by_key = app.get(&path).bearer(&key).await.expect(200).json();
    let exported = of_type(by_key["events"].as_array().expect("events").as_slice(), "HistoryExported")
        .iter()
        .map(|event| (event["actor_kind"].clone(), event["data"]["form"].clone()))
        .collect::<Vec<_>>();
    assert_eq!(exported, [(json!("user"), json!("person")), (json!("api_key"), json!("person"))]);

    // Whoever may not read both gets nothing; nor does anybody for whom it is too late.
    for permissions in [&["users:read"][..], &["audit:read"], &["users:write", "users:read"]] {
        let (_, limited) = app.api_key(permissions).await;
        app.get(&path).bearer(&limited).await.problem(403, "forbidden");
    }
    app.delete(&format!("admin/users/{}", of_ada.user_id)).bearer(&key).await.expect(200);
    app.get("auth/me/export").bearer(&of_ada.access).await.expect(401);
    app.get(&path).bearer(&key).await.problem(404, "not_found");

    // From the command line, with the server stopped, by address.
    let anew = app.register(&ada).await;
    let id = app.id.clone();
    assert!(server.terminate().await.success());
    let output = server.command(&["person", "export", &id, &ada]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let data: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(data["user_id"], anew.user_id.as_str());
    assert_eq!(data["read_models"]["users_v2"][0]["personal"]["email"], ada.as_str());
    assert!(!text.contains(NAME) && !text.contains(PASSWORD));
}

#[tokio::test]
async fn a_token_that_somebody_else_made_does_not_open_it() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let user = app.register(&email("ada")).await;
    let made =
        app.post(&format!("admin/users/{}/access-tokens", user.user_id)).bearer(&server.platform_key());
    let made = made.json(&json!({ "duration_minutes": 5 })).await.expect(201).json();
    let token = made["access_token"].as_str().expect("a token");
    app.get("auth/me/export").bearer(token).await.problem(403, "reauthentication_required");
}
