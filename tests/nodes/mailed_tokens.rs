//! Single-use tokens are used once, whichever node gets them.

use futures::future::join_all;
use serde_json::{Value, json};
use tests::{Answer, App, PASSWORD, assert_gapless, email, of_type};

use crate::nodes;

const AT_ONCE: usize = 50;
const CALLBACK: &str = "https://client.example/callback";

/// Sends the same request to both nodes alternately, all at the same time.
async fn race(nodes: [&App<'_>; 2], route: &str, body: &Value) -> Vec<Answer> {
    let calls = (0..AT_ONCE).map(|index| nodes[index % 2].post(route).json(body));
    join_all(calls.map(|call| async move { call.await })).await
}

/// The only successful answer. Checks that the others were refused like this.
fn only<'a>(answers: &'a [Answer], status: u16, refusal: &str) -> &'a Answer {
    let (done, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == status);
    assert_eq!(done.len(), 1, "{answers:?}");
    for answer in refused {
        answer.problem(400, refusal);
    }
    done[0]
}

#[tokio::test]
async fn inv_g_a_link_a_code_and_a_reset_are_used_once_on_two_nodes() {
    let (one, two) = nodes().await;
    let app = one.create_app(json!({"delivery": "app", "redirect_uris": [CALLBACK]})).await;
    let both = [&app, &two.app(&app.id)];
    let (_, key) = app.api_key(&["users:write"]).await;
    let address = email("ada");
    let squatter = app.register(&address).await;

    let ask = json!({"email": address, "redirect_uri": CALLBACK});
    let token = app.mailed_token(&key, "magic-link", &ask).await;
    let redeemed = race(both, "auth/magic-link/verify", &json!({ "token": token })).await;
    let redirect = only(&redeemed, 303, "invalid_or_expired_token");
    let code = redirect.header("location").and_then(|uri| uri.split_once("?code=")).expect("a code").1;
    // The verified mailbox counts on both nodes at once.
    for node in both {
        node.me(&squatter.access).await.problem(401, "unauthenticated");
        node.login(&address, PASSWORD).await.problem(401, "invalid_credentials");
    }
    let exchanged = race(both, "auth/exchange", &json!({ "code": code })).await;
    // The later exchanges end the session of the first one, sometimes before its answer is complete.
    let ended = exchanged.iter().find(|answer| answer.status == 401);
    if let Some(ended) = ended {
        ended.problem(401, "session_revoked");
    }
    let first = only(&exchanged, ended.map_or(200, |_| 401), "invalid_or_expired_code");
    if ended.is_none() {
        for node in both {
            node.me(&first.tokens().access).await.problem(401, "unauthenticated");
        }
    }

    let token = app.mailed_token(&key, "password-reset/request", &json!({ "email": address })).await;
    let body = json!({"token": token, "new_password": PASSWORD});
    only(&race(both, "auth/password-reset/confirm", &body).await, 204, "invalid_or_expired_token");
    for node in both {
        node.login(&address, PASSWORD).await.expect(200);
    }
    let events = two.events().await;
    assert_gapless(&events);
    for name in ["MagicLinkRedeemed", "ExchangeCodeRedeemed", "ExchangeCodeReplayed", "PasswordReset"] {
        assert_eq!(of_type(&events, name).len(), 1, "{name}");
    }
}
