//! API keys, and tokens that an admin issues.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

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

/// The published keys of the app, as `status alg`, and those that are scheduled with when.
async fn keys(stage: &Stage) -> (Vec<(String, String)>, Vec<String>) {
    let list = stage.platform("GET", &format!("{ACME}/admin/keys"), None).await;
    let items = list.body["items"].as_array().expect("items");
    let text = |key: &Value, member: &str| key[member].as_str().unwrap_or_default().to_owned();
    let shown = items.iter().map(|key| (text(key, "kid"), text(key, "status"))).collect();
    let scheduled = items.iter().filter(|key| key["status"] == "next" && key["signs_from"].is_string());
    (shown, scheduled.map(|key| text(key, "signs_from")).collect())
}

fn kid_of(token: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().expect("a header")).expect("base64url");
    let header: Value = serde_json::from_slice(&header).expect("JSON");
    header["kid"].as_str().expect("text").to_owned()
}

#[tokio::test]
async fn signing_keys_rotate_and_old_tokens_stay_good() {
    let stage = Stage::set().await;
    stage.world.clock.advance(SignedDuration::from_secs(600));
    let token = stage.login().await.text("access_token");
    let (before, _) = keys(&stage).await;
    let [first, second] = [&before[0].0, &before[1].0];
    let after = rotate(&stage, json!({}), "k1").await;
    assert_eq!(after.body["total"], 3);
    let (shown, scheduled) = keys(&stage).await;
    assert_eq!(shown[..2], [(first.clone(), "previous".to_owned()), (second.clone(), "current".to_owned())]);
    assert_eq!(scheduled, Vec::<String>::new(), "verifiers know it");
    let repeated = rotate(&stage, json!({}), "k1").await;
    assert_eq!(repeated.body, after.body, "once only");

    // The new next key is not known yet: it is scheduled, and one more rotation is that one.
    rotate(&stage, json!({}), "k2").await;
    let (shown, scheduled) = keys(&stage).await;
    let third = &shown[2].0;
    assert_eq!((shown.len(), scheduled.len()), (4, 1));
    rotate(&stage, json!({}), "k3").await;
    assert_eq!(keys(&stage).await, (shown.clone(), scheduled));
    assert_eq!(kid_of(&stage.login().await.text("access_token")), *second);
    stage.world.clock.advance(SignedDuration::from_secs(599));
    assert_eq!(kid_of(&stage.login().await.text("access_token")), *second);
    stage.world.clock.advance(SignedDuration::from_secs(1));
    let newest = stage.login().await.text("access_token");
    assert_eq!(kid_of(&newest), *third);
    for token in [&token, &newest] {
        assert_eq!(stage.me(token).await, 200, "whatever key has signed it");
    }
}

#[tokio::test]
async fn an_emergency_ends_the_tokens_of_earlier_keys() {
    let stage = Stage::set().await;
    let login = stage.login().await;
    let (before, _) = keys(&stage).await;
    rotate(&stage, json!({"emergency": true}), "k1").await;
    let (shown, _) = keys(&stage).await;
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert_eq!(shown[0], (before[1].0.clone(), "current".to_owned()));
    assert_eq!(stage.me(&login.text("access_token")).await, 401);
    let body = json!({"refresh_token": login.text("refresh_token")});
    let path = format!("{ACME}/auth/refresh");
    let refreshed = stage.world.call("POST", &path, None, Some(body)).await.text("access_token");
    assert_eq!((kid_of(&refreshed), stage.me(&refreshed).await), (shown[0].0.clone(), 200));
    let path = format!("{ACME}/admin/keys/rotate");
    for body in [json!({"emergency": "yes"}), json!({"now": true})] {
        assert_eq!(stage.platform("POST", &path, Some(body)).await.code(), "malformed_request");
    }
}

/// Also on a node that was started meanwhile, and for a verifier that has a key set of before.
#[tokio::test]
async fn a_change_of_algorithm_waits_until_verifiers_know_the_key() {
    let stage = Stage::set().await;
    let node = &stage.world;
    let jwks = format!("{ACME}/.well-known/jwks.json");
    let login = async |node: &World| {
        let body = json!({"email": "ada@example.com", "password": PASSWORD});
        node.call("POST", &format!("{ACME}/auth/login"), None, Some(body)).await.text("access_token")
    };
    for algorithm in ["EdDSA", "RS256", "ES256"] {
        let old = login(node).await;
        let body = json!({"settings": {"token_algorithm": algorithm, "key_propagation": 100}});
        assert_eq!(node.by_platform("PATCH", ACME, Some(body)).await.status, 200);
        let other = node.another_node();
        node.clock.advance(SignedDuration::from_secs(99));
        let known = other.call("GET", &jwks, None, None).await;
        assert_eq!(known.headers["cache-control"], "public, max-age=100");
        let known = known.body["keys"].as_array().expect("keys").clone();
        for node in [node, &other] {
            assert_eq!(kid_of(&login(node).await), kid_of(&old), "{algorithm} waits");
        }
        node.clock.advance(SignedDuration::from_secs(1));
        for node in [&other, node] {
            let new = login(node).await;
            let key = known.iter().find(|key| key["kid"] == kid_of(&new)).expect("it was published before");
            assert_eq!(key["alg"], algorithm);
            for token in [&old, &new] {
                let me = node.call("GET", &format!("{ACME}/auth/me"), Some(token), None).await;
                assert_eq!(me.status, 200, "{}", me.body);
            }
        }
    }
    let switches = node.service.key_switches().await.expect("reads");
    assert!(switches.is_empty(), "{switches:?}");
    let body = json!({"settings": {"token_algorithm": "EdDSA"}});
    assert_eq!(stage.platform("PATCH", ACME, Some(body)).await.status, 200);
    let switches = node.another_node().service.key_switches().await.expect("reads");
    assert_eq!(switches.iter().map(|it| it.app_id.as_str()).collect::<Vec<_>>(), ["acme"]);
    assert_eq!(switches[0].signs_from, node.clock.now() + SignedDuration::from_secs(100));
}

async fn rotate(stage: &Stage, body: Value, key: &str) -> Answer {
    let path = format!("{ACME}/admin/keys/rotate");
    let answer = stage.world.call_with("POST", &path, Some(&stage.platform), Some(body), Some(key)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer
}
