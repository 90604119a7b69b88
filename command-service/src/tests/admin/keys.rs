//! API keys, and tokens that an admin issues.

use super::*;

#[tokio::test]
async fn access_tokens_are_made_for_a_while() {
    let stage = Stage::set().await;
    for minutes in [0, 1441] {
        let answer = stage.post("access-tokens", json!({"duration_minutes": minutes})).await;
        assert_eq!(answer.code(), "validation_failed");
    }
    let path = format!("{ACME}/admin/users/{}/access-tokens", stage.user);
    let body = json!({"duration_minutes": 5});
    let send = || stage.world.call_with("POST", &path, Some(&stage.platform), Some(body.clone()), Some("k"));
    let made = send().await;
    assert_eq!((made.status.as_u16(), &made.body["expires_in"]), (201, &json!(300)), "{}", made.body);
    assert!(made.body.get("refresh_token").is_none());
    assert_eq!(send().await.body["session_id"], made.body["session_id"]);
    let token = made.text("access_token");
    assert_eq!(stage.me(&token).await, 200);
    stage.world.clock.advance(SignedDuration::from_secs(301));
    assert_eq!(stage.me(&token).await, 401);
    assert_eq!(stage.post("access-tokens", json!({"duration_minutes": 1440})).await.status, 201);

    // A repetition after its target became an admin gets nothing.
    let key = stage.key("acme", &[Permission::TokensCreate]).await;
    let by_key = || stage.world.call_with("POST", &path, Some(&key), Some(body.clone()), Some("k2"));
    assert_eq!(by_key().await.status, 201);
    stage.world.make_admin("acme", &stage.user, "ada@example.com").await;
    assert_eq!(by_key().await.status, 403);
}

#[tokio::test]
async fn api_keys_are_shown_once_and_end() {
    let stage = Stage::set().await;
    let path = format!("{ACME}/admin/api-keys");
    let end = (stage.world.clock.now() + SignedDuration::from_secs(60)).to_string();
    let body = json!({"name": "backend", "permissions": ["keys:write", "users:write"], "expires_at": end});
    let send = || stage.world.call_with("POST", &path, Some(&stage.platform), Some(body.clone()), Some("k"));
    let made = send().await;
    assert_eq!(made.status, 201, "{}", made.body);
    let key = made.text("key");
    assert!(key.starts_with("wwk_"));
    let list = stage.platform("GET", &path, None).await;
    assert_eq!(list.body["total"], 1);
    assert!(!list.body.to_string().contains("wwk_"));

    // A key grants only permissions it has.
    for (permissions, status) in [
        (json!(["users:write"]), 201),
        (json!(["keys:write", "users:write"]), 201),
        (json!(["users:read"]), 403),
        (json!(["platform"]), 422),
        (json!([]), 422),
        (json!(["nonsense"]), 422),
    ] {
        let body = json!({"name": "x", "permissions": permissions, "expires_at": end});
        let answer = stage.world.call("POST", &path, Some(&key), Some(body)).await;
        assert_eq!(answer.status.as_u16(), status, "{permissions}: {}", answer.body);
    }
    let past = json!({"name": "x", "permissions": ["users:read"], "expires_at": "2001-01-01T00:00:00Z"});
    assert_eq!(stage.platform("POST", &path, Some(past)).await.code(), "validation_failed");

    stage.world.clock.advance(SignedDuration::from_secs(61));
    assert_eq!(stage.world.call("GET", &path, Some(&key), None).await.status, 401, "it has ended");
    let again = send().await;
    assert_eq!((again.status, again.body), (made.status, made.body), "derived, so the same again");

    let own = stage.key("acme", &[Permission::KeysWrite]).await;
    let list = stage.platform("GET", &path, None).await;
    let id = list.body["items"].as_array().expect("items").last().expect("one")["id"].clone();
    let one = format!("{path}/{}", id.as_str().expect("text"));
    let foreign = one.replace("acme", "other");
    assert_eq!(stage.platform("DELETE", &foreign, None).await.status, 404);
    for _ in 0..2 {
        assert_eq!(stage.platform("DELETE", &one, None).await.status, 204);
    }
    assert_eq!(stage.world.events("ApiKeyRevoked").await, 1);
    assert_eq!(stage.world.call("GET", &path, Some(&own), None).await.status, 401);
}

#[tokio::test]
async fn platform_keys_are_made_by_platform_keys_only() {
    let stage = Stage::set().await;
    let path = "/v1/apps/platform/admin/api-keys";
    let body = json!({"name": "second", "permissions": ["platform"]});
    let own = stage.key("acme", &Permission::OF_AN_APP).await;
    for (bearer, status) in [(&own, 404), (&stage.foreign_key, 404), (&stage.admin_token, 401)] {
        let answer = stage.world.call("POST", path, Some(bearer), Some(body.clone())).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
    }
    assert_eq!(
        stage.platform("POST", path, Some(json!({"name": "x", "permissions": ["users:read"]}))).await.status,
        422
    );
    let second = stage.platform("POST", path, Some(body)).await;
    assert_eq!(second.status, 201, "{}", second.body);
    let list = stage.world.call("GET", path, Some(&second.text("key")), None).await;
    assert_eq!(list.body["total"], 2);
    let one = format!("{path}/{}", second.text("id"));
    assert_eq!(stage.platform("DELETE", &one, None).await.status, 204);
    assert_eq!(stage.world.call("GET", path, Some(&second.text("key")), None).await.status, 401);
    for route in ["users", "keys/rotate"] {
        let path = format!("/v1/apps/platform/admin/{route}");
        let answer = stage.platform("POST", &path, Some(json!({"email": "a@example.com"}))).await;
        assert!([400, 404].contains(&answer.status.as_u16()), "{route}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_token_made_for_a_user_ends_when_they_become_an_admin() {
    let stage = Stage::set().await;
    let tester = stage.key("acme", &[Permission::TokensCreate]).await;
    let user = format!("{ACME}/admin/users/{}", stage.user);
    let ask = async |bearer: &str| {
        let body = Some(json!({"duration_minutes": 60}));
        stage.world.call("POST", &format!("{user}/access-tokens"), Some(bearer), body).await
    };
    let made = ask(&tester).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let made = made.text("access_token");
    let role = async |name: &str| stage.platform("PUT", &format!("{user}/roles/{name}"), None).await.status;
    assert_eq!(role("editor").await, 200);
    assert_eq!(stage.me(&made).await, 200, "another role changes nothing");
    let before = stage.world.events("SessionRevoked").await;
    let own = stage.world.make_admin("acme", &stage.user, "ada@example.com").await;
    assert_eq!(stage.me(&made).await, 401);
    assert_eq!(stage.me(&stage.user_token).await, 401, "it may be anybody's");
    assert_eq!(stage.me(&own).await, 200);
    assert_eq!(stage.world.events("SessionRevoked").await, before + 2);

    // Only a full admin can issue a token for an admin, and a grant that changes nothing does not end it.
    assert_eq!(ask(&tester).await.status, 403);
    let made = ask(&stage.platform).await.text("access_token");
    assert_eq!(role("admin").await, 200);
    assert_eq!(stage.me(&made).await, 200);
}

#[tokio::test]
async fn signing_keys_rotate_and_old_tokens_stay_good() {
    let stage = Stage::set().await;
    let path = format!("{ACME}/admin/keys");
    let before = stage.platform("GET", &path, None).await;
    let status_of = |list: &Answer, kid: &Value| {
        let items = list.body["items"].as_array().expect("items").clone();
        items.into_iter().find(|key| key["kid"] == *kid).map(|key| key["status"].clone())
    };
    let (first, second) = (&before.body["items"][0]["kid"], &before.body["items"][1]["kid"]);
    let after = rotate(&stage, "k1").await;
    assert_eq!(status_of(&after, first), Some(json!("previous")));
    assert_eq!(status_of(&after, second), Some(json!("current")));
    assert_eq!(after.body["total"], 3);
    assert_eq!(stage.me(&stage.user_token).await, 200, "signed with the previous key");
    let repeated = rotate(&stage, "k1").await;
    assert_eq!(repeated.body, after.body, "once only");
    let later = rotate(&stage, "k2").await;
    assert_eq!(status_of(&later, first), None);
    assert_eq!(stage.me(&stage.user_token).await, 401, "its key is retired");

    for algorithm in ["EdDSA", "ES256"] {
        let token = stage.login().await.text("access_token");
        let body = json!({"settings": {"token_algorithm": algorithm}});
        assert_eq!(stage.platform("PATCH", ACME, Some(body)).await.status, 200);
        let list = stage.platform("GET", &path, None).await;
        let current =
            list.body["items"].as_array().expect("items").iter().find(|key| key["status"] == "current");
        assert_eq!(current.expect("one signs")["alg"], algorithm);
        assert_eq!(stage.me(&token).await, 200, "signed before the change");
        assert_eq!(stage.me(&stage.login().await.text("access_token")).await, 200);
    }
}

async fn rotate(stage: &Stage, key: &str) -> Answer {
    let path = format!("{ACME}/admin/keys/rotate");
    let answer = stage.world.call_with("POST", &path, Some(&stage.platform), None, Some(key)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer
}

/// An app remembers only the last keys that were revoked. The log remembers all.
#[tokio::test]
async fn a_key_of_the_configuration_that_was_revoked_long_ago_stays_so() {
    use domain::app::{App, AppCommand, MAX_API_KEYS};
    use domain::{ApiKeyId, Permission};
    let world = World::start().await;
    let brought = ApiKeyId(world.clock.new_id());
    world.service.admit_brought_key(brought).await.expect("is admitted");
    let revoke = format!("/v1/apps/platform/admin/api-keys/{brought}");
    assert_eq!(world.by_platform("DELETE", &revoke, None).await.status, 204);
    let keys: Vec<ApiKeyId> = (0..MAX_API_KEYS).map(|_| ApiKeyId(world.clock.new_id())).collect();
    let (context, at) = (world.context_of_system(), world.clock.now());
    let (reads, app) = Reads::one::<App>(&AppId::platform());
    let others = world.service.dispatcher.run(context, reads, move |work| {
        for key_id in &keys {
            let (name, permissions) = ("other".to_owned(), [Permission::Platform].into());
            let issue = AppCommand::IssueApiKey { key_id: *key_id, name, permissions, expires_at: None, at };
            work.execute(app, issue)?;
            work.execute(app, AppCommand::RevokeApiKey { key_id: *key_id, at })?;
        }
        Ok::<_, domain::app::AppError>(())
    });
    others.await.expect("come and go");
    world.service.admit_brought_key(brought).await.expect("changes nothing");
    let app = world.service.repository.load::<App>(&AppId::platform()).await.expect("loads");
    assert!(!app.state.revoked_keys.contains(&brought), "it is forgotten");
    assert!(!app.state.api_keys.contains_key(&brought), "and stays revoked");
}
