//! The past: users, their sessions, apps and API keys as of a time or a position.

use serde_json::{Value, json};
use tests::{Answer, App, Call, Server, email, of_type};

/// The time and the position of the newest event of this type.
async fn moment(server: &Server, kind: &str) -> (String, u64) {
    let events = server.events().await;
    let event = *of_type(&events, kind).last().expect("there is one");
    let time = event["time"].as_str().expect("a time").to_owned();
    (time, event["position"].as_u64().expect("a position"))
}

/// Below the app, or the app itself.
fn get(app: &App<'_>, path: &str) -> Call {
    if path.is_empty() || path.starts_with('?') {
        return app.server.get(format!("/v1/apps/{}{path}", app.id));
    }
    app.get(path)
}

/// The path as of a moment, and the position that was answered for.
async fn as_of(app: &App<'_>, path: &str, moment: &str) -> (Value, u64) {
    let path = format!("{path}{}as_of={moment}", if path.contains('?') { '&' } else { '?' });
    let answer = get(app, &path).bearer(&app.server.platform_key()).await.expect(200);
    let position = answer.header("as-of-position").expect("the header").parse().expect("a position");
    (answer.json(), position)
}

async fn refused(app: &App<'_>, path: &str) -> Answer {
    get(app, path).bearer(&app.server.platform_key()).await
}

#[tokio::test]
async fn a_user_is_as_they_were() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let (created, before) = moment(&server, "AppCreated").await;
    let address = email("ada");
    let user = app.register(&address).await;
    let path = format!("admin/users/{}", user.user_id);
    let key = server.platform_key();
    let (registered, at_first) = moment(&server, "UserRegistered").await;
    app.patch(&path).bearer(&key).json(&json!({ "name": "Ada Lovelace" })).await.expect(200);
    app.put(&format!("{path}/roles/editor")).bearer(&key).await.expect_success();
    let (granted, with_role) = moment(&server, "RoleGranted").await;
    app.ban(&user.user_id).await;
    let present = app.get(&path).bearer(&key).await.expect(200);
    assert_eq!(present.header("as-of-position"), None);

    for moment in [registered.clone(), at_first.to_string()] {
        let (then, position) = as_of(&app, &path, &moment).await;
        assert_eq!(then["email"], *address);
        assert_eq!(
            (&then["name"], &then["roles"], &then["banned"]),
            (&Value::Null, &json!([]), &json!(false))
        );
        // By time it includes what was written at the same microsecond.
        assert!(position >= at_first && position < with_role, "{position}");
    }
    for moment in [granted, with_role.to_string()] {
        let (then, position) = as_of(&app, &path, &moment).await;
        assert_eq!((&then["name"], &then["roles"]), (&json!("Ada Lovelace"), &json!(["editor"])));
        assert_eq!(then["banned"], false);
        assert_eq!(position, with_role);
    }
    let head = moment(&server, "UserBanned").await.1;
    assert_eq!(as_of(&app, &path, &head.to_string()).await.0, present.json());

    for moment in ["0", "1", &before.to_string(), &created, "2020-01-01"] {
        refused(&app, &format!("{path}?as_of={moment}")).await.problem(404, "not_found");
    }
    for moment in ["9999999", "99999999999999999999", "2999-01-01"] {
        let problem =
            refused(&app, &format!("{path}?as_of={moment}")).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["parameter"], "as_of", "{problem}");
        assert_eq!(problem["errors"][0]["code"], "out_of_range", "{problem}");
    }
    for moment in ["-1", "yesterday", ""] {
        let problem =
            refused(&app, &format!("{path}?as_of={moment}")).await.problem(400, "malformed_request");
        assert_eq!(problem["errors"][0]["parameter"], "as_of", "{problem}");
    }
    refused(&app, &format!("{path}?as-of=1")).await.problem(400, "malformed_request");

    // Whoever may not see the present does not see the past, and looking is recorded.
    let other = server.create_app(json!({})).await;
    refused(&other, &format!("{path}?as_of={with_role}")).await.problem(404, "not_found");
    let (_, powerless) = app.api_key(&["audit:read"]).await;
    app.get(&format!("{path}?as_of={with_role}")).bearer(&powerless).await.problem(403, "forbidden");
    let events = server.events().await;
    let looks = of_type(&events, "PersonalDataRead");
    assert_eq!(looks.len(), 1, "by the platform, within an hour");
}

#[tokio::test]
async fn sessions_are_those_that_were_live() {
    let server = Server::start().await;
    let app = server.create_app(json!({ "refresh_idle_ttl": 3600 })).await;
    let address = email("ada");
    let first = app.register(&address).await;
    let path = format!("admin/users/{}/sessions", first.user_id);
    let (_, registered) = moment(&server, "SessionStarted").await;
    let second =
        app.login(&address, tests::PASSWORD).header("user-agent", "Engine/1").await.expect(200).tokens();
    let (_, both) = moment(&server, "SessionStarted").await;
    app.refresh(&second.refresh).await.expect(200);
    let (refreshed_at, refreshed) = moment(&server, "SessionRefreshed").await;
    app.post("auth/logout").bearer(&first.access).await.expect(204);
    let (_, left) = moment(&server, "SessionRevoked").await;
    app.ban(&first.user_id).await;
    let (_, banned) = moment(&server, "UserBanned").await;

    let live = async |position: u64| {
        let (page, answered) = as_of(&app, &path, &position.to_string()).await;
        assert_eq!(answered, position);
        assert_eq!(page["total"], page["items"].as_array().expect("a list").len());
        page["items"].as_array().expect("a list").clone()
    };
    let ids = |sessions: Vec<Value>| -> Vec<String> {
        sessions.iter().map(|it| it["id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(ids(live(registered).await), [first.session.as_str()]);
    assert_eq!(ids(live(both).await), [second.session.as_str(), first.session.as_str()]);
    assert_eq!(ids(live(left).await), [second.session.as_str()]);
    assert_eq!(ids(live(banned).await), [""; 0]);
    refused(&app, &format!("{path}?as_of=1")).await.problem(404, "not_found");

    // As they were: not refreshed yet, and then refreshed.
    let before = live(both).await.remove(0);
    assert_eq!(before["created_at"], before["last_used_at"]);
    assert_eq!((&before["user_agent"], &before["method"]), (&json!("Engine/1"), &json!("password")));
    assert_eq!(live(refreshed).await.remove(0)["last_used_at"], *refreshed_at);

    let (page, _) = as_of(&app, &format!("{path}?limit=1"), &both.to_string()).await;
    assert_eq!((&page["total"], &page["items"][0]["id"]), (&json!(2), &json!(second.session)));
    let next = page["next_cursor"].as_str().expect("there is more");
    let (page, _) = as_of(&app, &format!("{path}?limit=1&cursor={next}"), &both.to_string()).await;
    assert_eq!((&page["items"][0]["id"], &page["next_cursor"]), (&json!(first.session), &Value::Null));
    let path = format!("{path}?as_of={both}&cursor=x");
    refused(&app, &path).await.problem(422, "validation_failed");
}

#[tokio::test]
async fn apps_and_api_keys_are_as_they_were() {
    let server = Server::start().await;
    let (_, before) = moment(&server, "AppCreated").await;
    let app = server.create_app(json!({})).await;
    let key = server.platform_key();
    let (created, _) = moment(&server, "AppCreated").await;
    let (id, text) = app.api_key(&["users:read"]).await;
    let (_, with_key) = moment(&server, "ApiKeyIssued").await;
    let change = json!({ "name": "Acme", "settings": { "access_token_ttl": 60 } });
    server.patch(format!("/v1/apps/{}", app.id)).bearer(&key).json(&change).await.expect(200);
    let (_, changed) = moment(&server, "AppSettingsChanged").await;
    app.delete(&format!("admin/api-keys/{id}")).bearer(&key).await.expect_success();

    let (then, _) = as_of(&app, "", &created).await;
    assert_eq!(
        (&then["name"], &then["settings"]["access_token_ttl"]),
        (&json!(format!("The app {}", app.id)), &json!(1800))
    );
    let (then, _) = as_of(&app, "", &changed.to_string()).await;
    assert_eq!((&then["name"], &then["settings"]["access_token_ttl"]), (&json!("Acme"), &json!(60)));
    refused(&app, &format!("?as_of={before}")).await.problem(404, "not_found");
    get(&app, &format!("?as_of={changed}")).bearer(&text).await.expect(401);

    assert_eq!(as_of(&app, "admin/api-keys", &created).await.0["items"], json!([]));
    let (keys, position) = as_of(&app, "admin/api-keys", &with_key.to_string()).await;
    assert_eq!((&keys["items"][0]["id"], &keys["total"], position), (&json!(id), &json!(1), with_key));
    assert_eq!(app.get("admin/api-keys").bearer(&key).await.expect(200).json()["total"], 0);
    refused(&app, &format!("admin/api-keys?as_of={before}")).await.problem(404, "not_found");
}

#[tokio::test]
async fn the_command_prints_the_same() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let user = app.register(&email("ada")).await;
    let (_, position) = moment(&server, "SessionStarted").await;
    app.ban(&user.user_id).await;
    let run = |moment: &str, what: &[&str]| {
        let base = server.base();
        let arguments = [&["as-of", moment], what, &["--json", "--url", &base]].concat();
        let output = server.command(&arguments).output().expect("runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), serde_json::from_str(&text).unwrap_or(Value::Null), output.stderr)
    };
    let moment = position.to_string();
    let path = format!("admin/users/{}", user.user_id);
    assert_eq!(run(&moment, &["user", &user.user_id]).1, as_of(&app, &path, &moment).await.0);
    assert_eq!(run(&moment, &["app", &app.id]).1, as_of(&app, "", &moment).await.0);
    let sessions = as_of(&app, &format!("{path}/sessions"), &moment).await.0;
    assert_eq!(run(&moment, &["session", &user.session]).1, sessions["items"][0]);
    let ended = server.events().await.len().to_string();
    let (code, _, told) = run(&ended, &["session", &user.session]);
    let told = String::from_utf8_lossy(&told);
    assert_eq!((code, told.contains("was not live then")), (Some(1), true), "{told}");
    assert_eq!(run("1", &["user", &user.user_id]).0, Some(1));
    assert_eq!(run("2999-01-01", &["user", &user.user_id, "--app", &app.id]).0, Some(1));
}
