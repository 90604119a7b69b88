use serde_json::{Value, json};
use tests::{Server, email};

#[tokio::test]
async fn each_decision_is_there_once_as_json_lines_and_table() {
    let server = Server::start().await;
    let (app, other) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    other.register(&email("other")).await;
    let user = app.register(&email("ada")).await;
    let last = app.ban(&user.user_id).await;
    let (_, key) = app.api_key(&["audit:read"]).await;
    let read = |query: &str, accept: &str| {
        app.get(&format!("audit/events?{query}"))
            .bearer(&key)
            .header("accept", accept)
            .header("consistency-token", last.consistency())
    };
    // Without the records of the exports themselves.
    let of_user =
        format!("user_id={}&type=UserRegistered,SessionStarted,UserBanned,SessionRevoked", user.user_id);
    let page = read(&of_user, "application/json").await.expect(200).json();
    let types: Vec<_> =
        page["items"].as_array().unwrap().iter().map(|it| it["type"].as_str().unwrap()).collect();
    for expected in ["UserRegistered", "SessionStarted", "UserBanned", "SessionRevoked"] {
        assert_eq!(types.iter().filter(|it| **it == expected).count(), 1, "{expected} in {types:?}");
    }
    let banned = format!("user_id={}&type=UserBanned", user.user_id);
    let banned = read(&banned, "application/json").await.expect(200).json();
    assert_eq!(banned["items"].as_array().unwrap().len(), 1);

    let lines = read(&of_user, "application/x-ndjson").await.expect(200);
    assert!(lines.header("content-type").unwrap().starts_with("application/x-ndjson"));
    let records: Vec<Value> = lines.text.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    assert_eq!(records.len(), types.len());

    let table = read(&of_user, "text/csv").await.expect(200);
    assert!(table.header("content-type").unwrap().starts_with("text/csv"));
    assert_eq!(table.text.lines().count(), types.len() + 1, "a heading and a line for each");

    let all = read("limit=200", "application/json").await.expect(200).text;
    assert!(!all.contains(&other.id), "another app's history is not shown");
}

#[tokio::test]
async fn pages_meet_without_gap_or_overlap() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let mut last = None;
    for _ in 0..5 {
        let user = app.register(&email("ada")).await;
        last = Some(app.ban(&user.user_id).await);
    }
    let token = last.unwrap().consistency().to_owned();
    let key = server.platform_key();
    let read = |query: String| {
        // Without the records of the reading itself.
        let types = "type=UserRegistered,SessionStarted,UserBanned,SessionRevoked";
        app.get(&format!("audit/events?{types}&{query}")).bearer(&key).header("consistency-token", &token)
    };
    let position = |it: &Value| it["position"].as_u64().unwrap();
    let whole = read("limit=200".to_owned()).await.expect(200).json();
    let whole: Vec<u64> = whole["items"].as_array().unwrap().iter().map(position).collect();
    let mut paged: Vec<u64> = vec![];
    loop {
        let after = paged.last().map_or(String::new(), |it| format!("&after={it}"));
        let page = read(format!("limit=3{after}")).await.expect(200).json();
        let items = page["items"].as_array().unwrap();
        if items.is_empty() {
            break;
        }
        paged.extend(items.iter().map(position));
    }
    assert_eq!(paged, whole);
}

const AGENT: &str = "Analytical Engine/1.0 (Lovelace)";

/// The entries of these types, opened for the platform.
async fn entries(app: &tests::App<'_>, after: &tests::Answer, query: &str) -> Vec<Value> {
    let answer = app
        .get(&format!("audit/events?limit=200&{query}"))
        .bearer(&app.server.platform_key())
        .header("consistency-token", after.consistency())
        .await
        .expect(200)
        .json();
    answer["items"].as_array().expect("a list").clone()
}

/// Answers where requests about an account came from.
#[tokio::test]
async fn failures_reuse_and_admin_actions_say_where_they_came_from_and_nothing_is_in_the_clear() {
    let server = Server::start_with(&[("WATCHWORD_LOCKOUT_FAILURES", "3")]).await;
    let app = server.create_app(json!({ "refresh_grace": 0 })).await;
    let address = email("ada");
    let user = app.register(&address).await;
    let key = server.platform_key();
    let admin = app.register_admin(&email("grace")).await;
    let of_user = |rest: &str| format!("admin/users/{}/{rest}", user.user_id);

    let next = app.refresh(&user.refresh).header("user-agent", AGENT).await.expect(200).tokens();
    app.refresh(&next.refresh).header("user-agent", AGENT).await.expect(200);
    app.refresh(&user.refresh).header("user-agent", "Thief/1").await.expect_refusal();
    for _ in 0..3 {
        app.login(&address, "a wrong guess").header("user-agent", AGENT).await.expect_refusal();
    }
    let by_admin = |call: tests::Call| call.bearer(&admin.access).header("user-agent", "Difference Engine/2");
    by_admin(app.post(&of_user("unlock"))).await.expect_success();
    by_admin(app.put(&of_user("roles/editor"))).await.expect_success();
    by_admin(app.delete(&of_user("roles/editor"))).await.expect_success();
    by_admin(app.post(&of_user("password-reset"))).await.expect_success();
    let reason = "sold the ticket of Mrs Babbage twice";
    by_admin(app.post(&of_user("ban"))).json(&json!({ "reason": reason })).await.expect_success();
    by_admin(app.post(&of_user("unban"))).await.expect_success();
    let new_key = json!({ "name": "nightly", "permissions": ["users:read"] });
    let made = by_admin(app.post("admin/api-keys")).json(&new_key).await.expect(201).json();
    let last = app
        .delete(&format!("admin/api-keys/{}", made["id"].as_str().expect("an id")))
        .bearer(&key)
        .header("user-agent", "Operator/3")
        .await
        .expect_success();

    let since = format!("after={}", 0);
    for (kind, agent, actor) in [
        ("LoginFailed", AGENT, "anonymous"),
        ("AccountLocked", AGENT, "anonymous"),
        ("AccountUnlocked", "Difference Engine/2", "user"),
        ("RefreshTokenReused", "Thief/1", "anonymous"),
        ("UserBanned", "Difference Engine/2", "user"),
        ("UserUnbanned", "Difference Engine/2", "user"),
        ("RoleRevoked", "Difference Engine/2", "user"),
        ("PasswordResetRequested", "Difference Engine/2", "user"),
        ("ApiKeyIssued", "Difference Engine/2", "user"),
        ("ApiKeyRevoked", "Operator/3", "api_key"),
    ] {
        let found = entries(&app, &last, &format!("{since}&type={kind}")).await;
        assert!(!found.is_empty(), "{kind}");
        for entry in found {
            let personal = &entry["personal"];
            assert_eq!(
                (&personal["ip"], &personal["user_agent"]),
                (&json!("127.0.0.1"), &json!(agent)),
                "{entry}"
            );
            assert_eq!(entry["actor"]["kind"], actor, "{entry}");
        }
    }
    let banned = entries(&app, &last, "type=UserBanned").await;
    assert_eq!(
        (&banned[0]["personal"]["reason"], &banned[0]["data"]["reason"]),
        (&json!(reason), &Value::Null)
    );
    // The first refresh came from another program than the registration; the second from the same.
    let refreshed = entries(&app, &last, "type=SessionRefreshed").await;
    assert_eq!(refreshed[0]["personal"]["user_agent"], AGENT);
    assert_eq!(refreshed[1]["personal"], Value::Null, "nothing new");
    let revoked = entries(&app, &last, "type=SessionRevoked").await;
    let by_reuse =
        revoked.iter().find(|entry| entry["data"]["reason"] == "refresh_token_reused").expect("ended");
    assert_eq!(by_reuse["actor"]["kind"], "anonymous", "the victim did not end it");

    for (path, bytes) in server.stored_bytes() {
        let text = String::from_utf8_lossy(&bytes);
        for secret in ["Analytical Engine", "Difference Engine", "Babbage", "Thief/1", "Operator/3"] {
            assert!(!text.contains(secret), "{secret} is in the clear in {}", path.display());
        }
    }
    let feed = serde_json::to_string(&server.events().await).expect("JSON");
    assert!(!feed.contains("Babbage") && !feed.contains("Engine") && !feed.contains("127.0.0.1\""), "{feed}");
}

#[tokio::test]
async fn events_are_found_by_types_session_and_addresses() {
    let server = Server::start().await;
    let (app, other) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    let (first, second) = (email("ada"), email("ada.king"));
    let ada = app.register(&first).await;
    let grace = app.register(&email("grace")).await;
    other.register(&first).await;
    app.login(&first, "a wrong guess").await.expect_refusal();
    let (_, mailer) = app.api_key(&["users:write", "users:read", "audit:read"]).await;
    let change = json!({ "new_email": second, "password": tests::PASSWORD });
    app.post("auth/email/change").bearer(&ada.access).json(&change).await.expect(202);
    let last = app.post("auth/logout").bearer(&grace.access).await.expect(204);
    let find = async |query: &str| {
        let found = app.get(&format!("audit/events?limit=200&{query}")).bearer(&mailer);
        let found = found.header("consistency-token", last.consistency()).await.expect(200).json();
        let items = found["items"].as_array().expect("a list").clone();
        assert_eq!(found["total"], items.len());
        items
    };
    let types = |items: &[Value]| {
        let mut types: Vec<String> =
            items.iter().map(|it| it["type"].as_str().expect("a type").to_owned()).collect();
        types.retain(|it| it != "PersonalDataRead");
        types
    };

    let several = find("type=LoginFailed,UserRegistered").await;
    assert_eq!(types(&several), ["UserRegistered", "UserRegistered", "LoginFailed"]);
    let spaced = find("type=LoginFailed,%20UserRegistered").await;
    assert_eq!(types(&spaced), types(&several));

    let of_session = find(&format!("session_id={}", grace.session)).await;
    assert_eq!(types(&of_session), ["SessionStarted", "SessionRevoked"]);

    // About everybody who has or had the address, and about nobody in another app.
    for address in [first.clone(), first.to_uppercase()] {
        let of_address = find(&format!("email={address}")).await;
        let found = types(&of_address);
        assert_eq!(found[..2], ["UserRegistered", "SessionStarted"], "{found:?}");
        assert!(found.contains(&"LoginFailed".to_owned()), "which holds no address itself: {found:?}");
        assert!(of_address.iter().all(|it| it["user_id"] == *ada.user_id), "{of_address:?}");
    }
    assert_eq!(types(&find(&format!("email={}", email("nobody"))).await), Vec::<String>::new());

    let here = find("ip=127.0.0.1&type=LoginFailed,UserRegistered").await;
    assert_eq!(types(&here), types(&several));
    assert_eq!(types(&find("ip=::ffff:127.0.0.1&type=LoginFailed").await), ["LoginFailed"]);
    assert_eq!(types(&find("ip=192.0.2.7").await), Vec::<String>::new());
    let both = find(&format!("ip=127.0.0.1&email={first}&type=LoginFailed")).await;
    assert_eq!(types(&both), ["LoginFailed"]);

    // Whether an address occurs is itself personal data.
    let (_, auditor) = app.api_key(&["audit:read"]).await;
    for query in ["ip=127.0.0.1".to_owned(), format!("email={first}"), format!("ip=1.2.3.4&email={first}")] {
        app.get(&format!("audit/events?{query}")).bearer(&auditor).await.problem(403, "forbidden");
    }
    app.get("audit/events?ip=localhost").bearer(&mailer).await.problem(422, "validation_failed");
    app.get("audit/events?email=nobody").bearer(&mailer).await.problem(422, "validation_failed");
    app.get("audit/events?session_id=1").bearer(&mailer).await.problem(400, "malformed_request");
}

/// Who read data, and what they exported.
#[tokio::test]
async fn who_reads_or_exports_personal_data_is_in_the_log() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let ada = app.register(&email("ada")).await;
    let grace = app.register_admin(&email("grace")).await;
    let (key_id, key) = app.api_key(&["users:read", "audit:read"]).await;
    let (_, auditor) = app.api_key(&["audit:read"]).await;
    let reads = async || -> Vec<(String, String, String)> {
        let events = server.events().await;
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let of =
            |it: &Value| (text(&it["actorid"]), text(&it["data"]["user_id"]), text(&it["data"]["source"]));
        tests::of_type(&events, "PersonalDataRead").iter().map(|it| of(it)).collect()
    };
    let of_ada = format!("admin/users/{}", ada.user_id);

    app.me(&ada.access).await.expect(200);
    app.get("auth/sessions").bearer(&ada.access).await.expect(200);
    app.get("admin/stats").bearer(&key).await;
    app.get("audit/events").bearer(&auditor).await.expect(200);
    assert_eq!(reads().await, [], "own data, and data about nobody, is not recorded");
    app.get(&of_ada).bearer(&auditor).await.problem(403, "forbidden");
    app.get("admin/users/01900000-0000-7000-8000-000000000000").bearer(&key).await.problem(404, "not_found");
    assert_eq!(reads().await, [], "nothing was seen");

    app.get(&of_ada).bearer(&key).await.expect(200);
    app.get(&of_ada).bearer(&key).await.expect(200);
    app.get(&format!("{of_ada}/sessions")).bearer(&key).await.expect(200);
    let by_key = (key_id.clone(), ada.user_id.clone(), "user".to_owned());
    assert_eq!(reads().await, std::slice::from_ref(&by_key), "once within the hour");
    app.get(&of_ada).bearer(&grace.access).await.expect(200);
    app.get(&format!("admin/users/{}", grace.user_id)).bearer(&grace.access).await.expect(200);
    let by_admin = (grace.user_id.clone(), ada.user_id.clone(), "user".to_owned());
    assert_eq!(reads().await, [by_key.clone(), by_admin.clone()], "reading about oneself is not recorded");
    let last = app.login(&email("nobody"), "x").await;
    assert_eq!(last.status, 401);

    // For a list, the users on it.
    let changed =
        app.put(&format!("{of_ada}/roles/editor")).bearer(&server.platform_key()).await.expect_success();
    let listed = app.get("admin/users").bearer(&key).header("consistency-token", changed.consistency());
    assert_eq!(listed.await.expect(200).json()["total"], 2);
    let by_list = (key_id.clone(), grace.user_id.clone(), "user_list".to_owned());
    assert_eq!(reads().await, [by_key, by_admin, by_list]);

    let export =
        |accept: &str, credential: &str| app.get("audit/events").bearer(credential).header("accept", accept);
    for _ in 0..2 {
        export("application/x-ndjson", &key).await.expect(200);
        export("text/csv", &key).await.expect(200);
        export("text/csv", &auditor).await.expect(200);
    }
    let events = server.events().await;
    let exports: Vec<_> = tests::of_type(&events, "HistoryExported")
        .iter()
        .map(|it| (it["data"]["form"].clone(), it["data"]["opened"].clone(), it["data"]["app_id"].clone()))
        .collect();
    let id = &app.id;
    let expected = [("ndjson", false), ("csv", true), ("csv", false)];
    let expected = expected.map(|(form, opened)| (json!(form), json!(opened), json!(id)));
    assert_eq!(exports, expected, "each once within the hour");

    // The entries of the log name the key.
    let answer = app
        .get("audit/events?type=PersonalDataRead,ApiKeyIssued&limit=200")
        .bearer(&key)
        .header("consistency-token", changed.consistency())
        .await
        .expect(200)
        .json();
    let items = answer["items"].as_array().expect("a list");
    let named = |it: &&Value| it["actor"]["id"] == *key_id;
    assert!(items.iter().filter(named).all(|it| it["actor"]["name"] == "A test's key"), "{items:?}");
    let by_platform = items.iter().find(|it| it["type"] == "ApiKeyIssued").expect("there");
    assert_eq!(
        (&by_platform["actor"]["kind"], &by_platform["actor"]["name"]),
        (&json!("api_key"), &Value::Null)
    );
    let platform = app.get("audit/events?type=ApiKeyIssued").bearer(&server.platform_key()).await.expect(200);
    assert_eq!(platform.json()["items"][0]["actor"]["name"], "first platform key");
}
