//! What a revoked role, a ban or the end of all sessions ends.

use super::*;

#[tokio::test]
async fn inv_v_the_role_admin_ends_what_the_account_had_before() {
    let world = World::start().await;
    world.set(json!({"delivery": "app", "redirect_uris": [CALLBACK]})).await;
    let key = world.key_of(&[Permission::UsersWrite, Permission::TokensCreate]).await;
    let ada = user_id(&world.register(ADA).await);
    let mailed = async |route: &str, body: Value| {
        let asked = world.call("POST", &format!("{DEFAULT}/auth/{route}"), Some(&key), Some(body)).await;
        asked.text("token")
    };
    // Everything a key with `users:write` can prepare.
    let reset = mailed("password-reset/request", json!({"email": ADA})).await;
    let body = json!({"token": reset, "new_password": NEW});
    assert_eq!(world.auth("password-reset/confirm", body).await.status, 204);
    let session = world.login(ADA, NEW).await;
    let link = json!({"email": ADA, "redirect_uri": CALLBACK});
    let code = world.code_by(&mailed("magic-link", link.clone()).await).await;
    let by_link = world.auth("exchange", json!({ "code": code })).await;
    let code = world.code_by(&mailed("magic-link", link.clone()).await).await;
    let early = mailed("magic-link", link).await;
    let access = session.text("access_token");
    let body = json!({"new_email": "evil@evil.example", "password": NEW});
    let asked = world.call("POST", &format!("{DEFAULT}/auth/email/change"), Some(&access), Some(body)).await;
    assert_eq!(asked.status, 202, "{}", asked.body);
    let change = world.token("EmailChangeRequested").await;
    let (path, body) = (of(ada, "/access-tokens"), json!({"duration_minutes": 60}));
    let made = world.call("POST", &path, Some(&key), Some(body)).await.text("access_token");
    for token in [&access, &by_link.text("access_token"), &made] {
        assert_eq!(world.me(token).await.status, 200);
    }

    let role = of(ada, "/roles/admin");
    assert_eq!(world.by_platform("PUT", &role, None).await.status, 200, "the link has proven the address");
    for token in [&access, &by_link.text("access_token"), &made] {
        assert_eq!(world.me(token).await.status, 401);
    }
    for refresh in [session.text("refresh_token"), by_link.text("refresh_token")] {
        assert_eq!(world.auth("refresh", json!({ "refresh_token": refresh })).await.status, 401);
    }
    assert_eq!(said(&world.login(ADA, NEW).await), (401, "invalid_credentials"), "the key's password");
    assert_eq!(world.auth("exchange", json!({ "code": code })).await.code(), "invalid_or_expired_code");
    for (route, token) in [("magic-link/verify", early), ("email/change/confirm", change)] {
        let answer = world.auth(route, json!({ "token": token })).await;
        assert_eq!(said(&answer), (400, "invalid_or_expired_token"), "{route}");
    }
    // The reader of the mail sets another one.
    world.set(json!({"delivery": "platform"})).await;
    world.auth("password-reset/request", json!({"email": ADA})).await;
    let body = json!({"token": world.token("PasswordResetRequested").await, "new_password": PASSWORD});
    assert_eq!(world.auth("password-reset/confirm", body).await.status, 204);
    assert_eq!(world.login(ADA, PASSWORD).await.body["user"]["roles"], json!(["admin"]));
}

#[tokio::test]
async fn inv_d_nothing_of_before_a_ban_or_the_end_of_all_sessions_lets_anybody_in() {
    for end in ["ban", "by an admin", "by an admin, but one", "by the person", "by the person, but one"] {
        let world = World::start().await;
        world.set(json!({"redirect_uris": [CALLBACK]})).await;
        let registered = world.register(ADA).await;
        let ada = user_id(&registered);
        world.verify("default", ADA).await;
        let access = world.login(ADA, PASSWORD).await.text("access_token");
        let link = json!({"email": ADA, "redirect_uri": CALLBACK});
        world.auth("magic-link", link.clone()).await;
        let code = world.code_by(&world.token("MagicLinkIssued").await).await;
        world.auth("magic-link", link).await;
        let magic = world.token("MagicLinkIssued").await;
        world.auth("password-reset/request", json!({"email": ADA})).await;
        let reset = world.token("PasswordResetRequested").await;
        let body = json!({"new_email": "evil@evil.example", "password": PASSWORD});
        world.call("POST", &format!("{DEFAULT}/auth/email/change"), Some(&access), Some(body)).await;
        let change = world.token("EmailChangeRequested").await;
        let own = format!("{DEFAULT}/auth/sessions/revoke-all");
        let kept = registered.text("session_id");
        let ended = match end {
            "ban" => world.by_platform("POST", &of(ada, "/ban"), None).await,
            "by an admin" => world.by_platform("POST", &of(ada, "/sessions/revoke-all"), None).await,
            "by an admin, but one" => {
                let body = Some(json!({ "exclude": kept }));
                world.by_platform("POST", &of(ada, "/sessions/revoke-all"), body).await
            }
            "by the person" => world.call("POST", &own, Some(&registered.text("access_token")), None).await,
            _ => {
                let body = Some(json!({"exclude_current": true}));
                world.call("POST", &own, Some(&registered.text("access_token")), body).await
            }
        };
        assert_eq!(ended.status, 200, "{end}: {}", ended.body);
        if end == "ban" {
            assert_eq!(world.by_platform("POST", &of(ada, "/unban"), None).await.status, 200);
        }
        let exchanged = world.auth("exchange", json!({ "code": code })).await;
        assert_eq!(said(&exchanged), (400, "invalid_or_expired_code"), "{end}");
        for (route, body) in [
            ("magic-link/verify", json!({ "token": magic })),
            ("email/change/confirm", json!({ "token": change })),
            ("password-reset/confirm", json!({"token": reset, "new_password": NEW})),
        ] {
            let answer = world.auth(route, body).await;
            assert_eq!(said(&answer), (400, "invalid_or_expired_token"), "{end}: {route}");
        }
        assert_eq!(world.me(&access).await.status, 401, "{end}");
        let kept = if end.ends_with("one") { 200 } else { 401 };
        assert_eq!(world.me(&registered.text("access_token")).await.status.as_u16(), kept, "{end}");
        assert_eq!(world.login(ADA, PASSWORD).await.status, 200, "{end}: the password still does");
    }
}

/// An ended session must not come back as the one kept.
#[tokio::test]
async fn inv_d_no_session_is_revived_by_being_left_out() {
    let world = World::start().await;
    let first = world.register(ADA).await;
    let ada = user_id(&first);
    let other = world.register("bob@example.com").await;
    let revoke = async |exclude: &str| {
        let body = Some(json!({ "exclude": exclude }));
        world.by_platform("POST", &of(ada, "/sessions/revoke-all"), body).await
    };
    let second = world.login(ADA, PASSWORD).await;
    assert_eq!(revoke(&second.text("session_id")).await.body["revoked"], 1);
    for exclude in [first.text("session_id"), other.text("session_id")] {
        assert_eq!(revoke(&exclude).await.status, 200);
        assert_eq!(world.me(&first.text("access_token")).await.status, 401);
        assert_eq!(world.me(&second.text("access_token")).await.status, 401);
    }
    assert_eq!(world.me(&other.text("access_token")).await.status, 200);
}
