//! c, d, f, i, p, r: what a credential allows, and for how long.

use std::time::Duration;

use serde_json::json;
use tests::{PASSWORD, Server, assert_gapless, claims_of, email, of_type};

const CHEAP: (&str, &str) = ("WATCHWORD_ARGON2", "m=1024,t=1,p=1");

#[tokio::test]
async fn inv_c_a_refusal_writes_nothing() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    let tokens = app.register(&address).await;
    let head = server.events().await.len();
    let refused = [
        app.post("auth/register").json(&json!({"email": address, "password": PASSWORD})).await,
        app.post("auth/register").json(&json!({"email": email("x"), "password": "short"})).await,
        app.post("auth/register").json(&json!({"email": "x", "password": PASSWORD})).await,
        app.login(&email("unknown"), PASSWORD).await,
        app.refresh("wwr_x").await,
        app.me("x").await,
        app.post("auth/logout").json(&json!({"refresh_token": "wwr_x"})).await,
        app.patch("auth/me").bearer(&tokens.access).json(&json!({"roles": []})).await,
        app.get("admin/users").bearer(&tokens.access).await,
        app.post(&format!("admin/users/{}/ban", tokens.user_id))
            .bearer(&tokens.access)
            .json(&json!({}))
            .await,
        server.post("/v1/apps").bearer(&tokens.access).json(&json!({"app_id": "x", "name": "x"})).await,
    ];
    for answer in refused {
        assert!((400..500).contains(&answer.status), "{}", answer.text);
    }
    assert_eq!(server.events().await.len(), head);
}

#[tokio::test]
async fn inv_c_failed_logins_are_bounded() {
    let server = Server::start_with(&[CHEAP]).await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    app.register(&address).await;
    for _ in 0..100 {
        assert!(matches!(app.login(&address, "wrong-Kettle-93").await.status, 401 | 429));
    }
    assert_eq!(of_type(&server.events().await, "LoginFailed").len(), 10);
}

/// However a credential ends, no request that starts after the answer succeeds with it, even while logins and refreshes
/// run.
#[tokio::test(flavor = "multi_thread")]
async fn inv_d_what_is_revoked_is_revoked_from_the_answer_on() {
    let server = Server::start_with(&[CHEAP]).await;
    let app = server.create_app(json!({})).await;
    let key = server.platform_key();
    for round in 0..40_u64 {
        let address = email("ada");
        let first = app.register(&address).await;
        let refresh = async {
            let mut tokens = first.clone();
            let mut given = vec![tokens.clone()];
            loop {
                let answer = app.refresh(&tokens.refresh).await;
                if answer.status != 200 {
                    return given;
                }
                tokens = answer.tokens();
                given.push(tokens.clone());
            }
        };
        let login = async {
            let mut given = vec![];
            for _ in 0..20 {
                let answer = app.login(&address, PASSWORD).await;
                if answer.status == 200 {
                    given.push(answer.tokens());
                }
            }
            given
        };
        let end = async {
            tokio::time::sleep(Duration::from_millis(round % 20)).await;
            app.ban(&first.user_id).await;
        };
        let (refreshed, logged_in, ()) = tokio::join!(refresh, login, end);
        for tokens in refreshed.iter().chain(&logged_in) {
            assert_eq!(app.me(&tokens.access).await.status, 401, "round {round}");
            assert_eq!(app.refresh(&tokens.refresh).await.status, 401, "round {round}");
        }
        app.login(&address, PASSWORD).await.problem(403, "user_banned");
        let live = app.get(&format!("admin/users/{}", first.user_id)).bearer(&key).await;
        assert_eq!(live.status, 200);
    }
    let events = server.events().await;
    assert_gapless(&events);
    // In the order of the log: no session of a banned user begins or is refreshed.
    let mut banned = std::collections::HashSet::new();
    for event in &events {
        let user = event["data"]["user_id"].as_str().unwrap_or_default();
        match event["type"].as_str().unwrap() {
            "UserBanned" => {
                banned.insert(event["subject"].as_str().unwrap()["user-".len()..].to_owned());
            }
            "SessionStarted" | "SessionRefreshed" => assert!(!banned.contains(user), "{event}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_d_logout_races_refresh_and_wins() {
    let server = Server::start_with(&[CHEAP]).await;
    let app = server.create_app(json!({})).await;
    for _ in 0..40 {
        let tokens = app.register(&email("ada")).await;
        let body = json!({"refresh_token": tokens.refresh});
        let (refreshed, out) = tokio::join!(async { app.refresh(&tokens.refresh).await }, async {
            app.post("auth/logout").json(&body).await
        });
        out.expect(204);
        if refreshed.status == 200 {
            let successor = refreshed.tokens();
            assert_eq!(app.refresh(&successor.refresh).await.status, 401);
            assert_eq!(app.me(&successor.access).await.status, 401);
        }
        assert_eq!(app.me(&tokens.access).await.status, 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_f_at_most_one_live_leaf_however_many_try() {
    let server = Server::start_with(&[CHEAP]).await;
    let app = server.create_app(json!({"refresh_grace": 5})).await;
    let mut tokens = app.register(&email("ada")).await;
    let mut all = vec![tokens.refresh.clone()];
    for _ in 0..10 {
        let answers =
            futures::future::join_all((0..8).map(|_| async { app.refresh(&tokens.refresh).await })).await;
        let next: Vec<_> = answers.into_iter().map(|it| it.expect(200).tokens()).collect();
        assert!(next.iter().all(|it| it.refresh == next[0].refresh), "one leaf");
        tokens = next[0].clone();
        all.push(tokens.refresh.clone());
    }
    tokio::time::sleep(Duration::from_millis(5_200)).await;
    app.refresh(&all[3]).await.problem(401, "invalid_refresh_token");
    for token in &all {
        assert_eq!(app.refresh(token).await.status, 401, "reuse leaves no live leaf");
    }
    let events = server.events().await;
    assert_eq!(of_type(&events, "SessionRefreshed").len(), 10);
    let generations: Vec<_> = of_type(&events, "SessionRefreshed")
        .iter()
        .map(|it| it["data"]["generation"].as_u64().unwrap())
        .collect();
    assert!(generations.windows(2).all(|pair| pair[1] == pair[0] + 1), "a chain: {generations:?}");
}

#[tokio::test]
async fn inv_i_claims_are_those_of_the_decided_state() {
    let server = Server::start_with(&[CHEAP]).await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    let tokens = app.register(&address).await;
    for role in ["editor", "author"] {
        app.put(&format!("admin/users/{}/roles/{role}", tokens.user_id))
            .bearer(&server.platform_key())
            .await
            .expect_success();
    }
    let tokens = app.refresh(&tokens.refresh).await.tokens();
    let claims = claims_of(&tokens.access);
    assert_eq!(claims["roles"], json!(["author", "editor"]));
    assert_eq!(claims["email_verified"], false, "the address is not verified");
    let events = server.events().await;
    let refreshed = of_type(&events, "SessionRefreshed")[0]["time"].as_str().unwrap().to_owned();
    assert!(refreshed.ends_with('Z'));
    assert!(claims["iat"].is_u64() && claims["exp"].is_u64());
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_p_guesses_are_bounded_however_many_are_made_at_once() {
    let server = Server::start_with(&[CHEAP]).await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    app.register(&address).await;
    let tries = (0..200).map(|_| async { app.login(&address, "wrong-Kettle-93").await.status });
    let statuses = futures::future::join_all(tries).await;
    let told = statuses.iter().filter(|it| **it == 401).count();
    assert!(told <= 10, "{told} guesses got an answer");
    assert!(statuses.iter().all(|it| matches!(it, 401 | 429 | 503)), "{statuses:?}");
    // Even the right password reveals nothing while the account is locked.
    app.login(&address, PASSWORD).await.problem(429, "rate_limited");
    assert!(of_type(&server.events().await, "LoginFailed").len() <= 10);
}

#[tokio::test]
async fn inv_r_a_role_in_a_token_was_granted_by_someone_entitled() {
    let server = Server::start_with(&[CHEAP]).await;
    let app = server.create_app(json!({})).await;
    let admin_address = email("admin");
    let admin = app.register_admin(&admin_address).await;
    let user_address = email("user");
    let user = app.register(&user_address).await;
    let path = |role: &str| format!("admin/users/{}/roles/{role}", user.user_id);
    app.put(&path("admin")).bearer(&user.access).await.problem(403, "forbidden");
    app.put(&path("editor")).bearer(&admin.access).await.expect_success();
    app.delete(&format!("admin/users/{}/roles/admin", admin.user_id))
        .bearer(&server.platform_key())
        .await
        .expect_success();
    app.put(&path("owner")).bearer(&admin.access).await.problem(403, "forbidden");
    let tokens = app.login(&user_address, PASSWORD).await.tokens();
    assert_eq!(claims_of(&tokens.access)["roles"], json!(["editor"]));
    let events = server.events().await;
    let grants = of_type(&events, "RoleGranted");
    assert_eq!(grants.len(), 2);
    assert_eq!((&grants[1]["actorkind"], &grants[1]["actorid"]), (&json!("user"), &json!(admin.user_id)));
}
