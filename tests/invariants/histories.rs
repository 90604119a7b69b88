//! e: concurrent histories of one user, checked against the resulting log.

use serde_json::json;
use tests::{Server, assert_gapless, email, of_type};

/// Bans and unbans race: every answer must agree with their order in the log.
#[tokio::test(flavor = "multi_thread")]
async fn inv_e_bans_and_unbans_alternate_in_the_log() {
    let server = Server::start_with(&[("WATCHWORD_ARGON2", "m=1024,t=1,p=1")]).await;
    let app = server.create_app(json!({})).await;
    let user = app.register(&email("ada")).await;
    let key = server.platform_key();
    let calls = (0..100).map(|index| {
        let what = if index % 2 == 0 { "ban" } else { "unban" };
        let call = app.post(&format!("admin/users/{}/{what}", user.user_id)).bearer(&key);
        async move { if what == "ban" { call.json(&json!({"reason": "race"})).await } else { call.await } }
    });
    for answer in futures::future::join_all(calls).await {
        let _ = answer.expect_success();
    }
    let events = server.events().await;
    assert_gapless(&events);
    let mut banned = false;
    for event in events.iter().filter(|it| matches!(it["type"].as_str(), Some("UserBanned" | "UserUnbanned")))
    {
        assert_eq!(event["type"] == "UserBanned", !banned, "a ban of a banned user, or the reverse");
        banned = !banned;
    }
    let me = app.get(&format!("admin/users/{}", user.user_id)).bearer(&key);
    let last =
        app.put(&format!("admin/users/{}/roles/editor", user.user_id)).bearer(&key).await.expect_success();
    assert_eq!(me.header("consistency-token", last.consistency()).await.expect(200).json()["banned"], banned);
    assert_eq!(of_type(&events, "SessionRevoked").len(), 1, "a session is revoked once");
}
