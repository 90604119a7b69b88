use serde_json::{Value, json};
use tests::{Answer, App, PASSWORD, Server, claims_of, email, of_type, until};

/// The list, once the read model has applied the events of `after`.
async fn list(app: &App<'_>, query: &str, after: &Answer) -> Value {
    app.get(&format!("admin/users?{query}"))
        .bearer(&app.server.platform_key())
        .header("consistency-token", after.consistency())
        .await
        .expect(200)
        .json()
}

#[tokio::test]
async fn an_admin_makes_reads_changes_and_finds_users() {
    let server = Server::start().await;
    let app = server.create_app(json!({"registration": "closed"})).await;
    let key = server.platform_key();
    let address = email("grace");
    let body = json!({"email": address, "password": PASSWORD, "name": "Grace Hopper"});
    let made = app.post("admin/users").bearer(&key).json(&body).await.expect(201);
    let user = made.json();
    let id = user["id"].as_str().unwrap().to_owned();
    app.post("admin/users").bearer(&key).json(&body).await.problem(409, "email_taken");
    app.login(&address, PASSWORD).await.expect(200);

    let read =
        || app.get(&format!("admin/users/{id}")).bearer(&key).header("consistency-token", made.consistency());
    assert_eq!(read().await.expect(200).json()["email"], *address);
    let patch = app
        .patch(&format!("admin/users/{id}"))
        .bearer(&key)
        .json(&json!({"name": "Rear Admiral Hopper"}))
        .await
        .expect(200);
    assert_eq!(patch.json()["name"], "Rear Admiral Hopper");
    app.patch(&format!("admin/users/{id}"))
        .bearer(&key)
        .json(&json!({"email": "x@example.org"}))
        .await
        .problem(400, "malformed_request");

    let found = list(&app, "query=hopper", &patch).await;
    assert_eq!((&found["total"], &found["items"][0]["id"]), (&json!(1), &json!(id)));
    assert_eq!(list(&app, "query=lovelace", &patch).await["total"], 0);
}

#[tokio::test]
async fn the_list_is_paged_and_filtered() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let mut ids = vec![];
    for _ in 0..7 {
        ids.push(app.register(&email("many")).await.user_id);
    }
    app.put(&format!("admin/users/{}/roles/editor", ids[0]))
        .bearer(&server.platform_key())
        .await
        .expect_success();
    let after = app.ban(&ids[1]).await;
    assert_eq!(list(&app, "status=banned", &after).await["items"][0]["id"], *ids[1]);
    assert_eq!(list(&app, "status=active", &after).await["total"], 6);
    assert_eq!(list(&app, "role=editor", &after).await["items"][0]["id"], *ids[0]);
    assert_eq!(list(&app, "email_verified=true", &after).await["total"], 0);
    let mut seen = vec![];
    for offset in [0, 3, 6] {
        let page = list(&app, &format!("limit=3&offset={offset}"), &after).await;
        assert_eq!(page["total"], 7);
        seen.extend(page["items"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()));
    }
    seen.sort();
    ids.sort();
    assert_eq!(seen, ids);
    for wrong in ["limit=0", "limit=201", "limit=x", "offset=10001", "offset=-1", "status=odd"] {
        let answer = app.get(&format!("admin/users?{wrong}")).bearer(&server.platform_key()).await;
        assert!(answer.status == 400 || answer.status == 422, "{wrong}: {} {}", answer.status, answer.text);
    }
}

#[tokio::test]
async fn a_ban_holds_at_once_and_an_unban_lets_in_again() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    let one = app.register(&address).await;
    let two = app.login(&address, PASSWORD).await.tokens();
    app.ban(&one.user_id).await;
    for tokens in [&one, &two] {
        app.me(&tokens.access).await.problem(401, "unauthenticated");
        assert_eq!(app.refresh(&tokens.refresh).await.status, 401);
    }
    app.login(&address, PASSWORD).await.problem(403, "user_banned");
    let events = server.events().await;
    let banned = of_type(&events, "UserBanned")[0]["position"].as_u64().unwrap();
    let revoked: Vec<u64> =
        of_type(&events, "SessionRevoked").iter().map(|it| it["position"].as_u64().unwrap()).collect();
    assert_eq!(revoked, [banned + 1, banned + 2], "in one append");

    app.post(&format!("admin/users/{}/unban", one.user_id))
        .bearer(&server.platform_key())
        .await
        .expect_success();
    app.me(&one.access).await.problem(401, "unauthenticated");
    app.login(&address, PASSWORD).await.expect(200);
}

#[tokio::test]
async fn roles_are_in_the_next_token_and_taking_one_holds_at_once() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    let admin = app.register_admin(&address).await;
    assert_eq!(claims_of(&admin.access)["roles"], json!(["admin"]));
    app.get("admin/users").bearer(&admin.access).await.expect(200);
    app.delete(&format!("admin/users/{}/roles/admin", admin.user_id))
        .bearer(&server.platform_key())
        .await
        .expect_success();
    app.get("admin/users").bearer(&admin.access).await.problem(403, "forbidden");
    assert_eq!(claims_of(&app.login(&address, PASSWORD).await.tokens().access)["roles"], json!([]));
}

#[tokio::test]
async fn only_full_admins_make_admins() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let admin = app.register_admin(&email("admin")).await;
    let address = email("user");
    let user = app.register(&address).await;
    app.verify(&address).await;
    let (_, key) = app.api_key(&["users:write", "tokens:create"]).await;
    let grant =
        |role: &str, who: &str| app.put(&format!("admin/users/{}/roles/{role}", user.user_id)).bearer(who);
    grant("admin", &key).await.problem(403, "forbidden");
    grant("admin", &user.access).await.problem(403, "forbidden");
    app.delete(&format!("admin/users/{}/roles/admin", admin.user_id))
        .bearer(&key)
        .await
        .problem(403, "forbidden");
    app.post(&format!("admin/users/{}/access-tokens", admin.user_id))
        .bearer(&key)
        .json(&json!({"duration_minutes": 5}))
        .await
        .problem(403, "forbidden");
    grant("editor", &key).await.expect_success();
    grant("admin", &admin.access).await.expect_success();
}

#[tokio::test]
async fn an_admin_sees_and_ends_sessions() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let key = server.platform_key();
    let address = email("ada");
    let one = app.register(&address).await;
    let login = app.login(&address, PASSWORD).await;
    let two = login.tokens();
    let three = app.login(&address, PASSWORD).await.tokens();
    let sessions = app
        .get(&format!("admin/users/{}/sessions", one.user_id))
        .bearer(&key)
        .header("consistency-token", login.consistency())
        .await
        .expect(200)
        .json();
    assert!(sessions["items"].as_array().unwrap().len() >= 2);
    app.delete(&format!("admin/users/{}/sessions/{}", one.user_id, one.session))
        .bearer(&key)
        .await
        .expect_success();
    app.me(&one.access).await.problem(401, "unauthenticated");
    app.me(&two.access).await.expect(200);
    let answer = app
        .post(&format!("admin/users/{}/sessions/revoke-all", one.user_id))
        .bearer(&key)
        .json(&json!({"exclude": three.session}))
        .await
        .expect(200)
        .json();
    assert_eq!(answer["revoked"], 1);
    app.me(&two.access).await.problem(401, "unauthenticated");
    app.me(&three.access).await.expect(200);
    let somebody = app.register(&email("somebody")).await;
    app.delete(&format!("admin/users/{}/sessions/{}", one.user_id, somebody.session))
        .bearer(&key)
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn a_test_token_works_for_its_time_and_ends_with_a_ban() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let user = app.register(&email("ada")).await;
    let answer = app
        .post(&format!("admin/users/{}/access-tokens", user.user_id))
        .bearer(&server.platform_key())
        .json(&json!({"duration_minutes": 5}))
        .await
        .expect_success()
        .json();
    let token = answer["access_token"].as_str().unwrap();
    let claims = claims_of(token);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 300);
    assert_eq!(app.me(token).await.expect(200).json()["id"], *user.user_id);
    app.ban(&user.user_id).await;
    app.me(token).await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn read_models_catch_up_without_a_request() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    app.register(&email("ada")).await;
    until("the list of users catches up", async || {
        let list = app.get("admin/users").bearer(&server.platform_key()).await.expect(200).json();
        list["total"] == 1
    })
    .await;
}
