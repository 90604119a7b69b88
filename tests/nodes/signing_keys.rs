//! Two nodes rotate the signing keys of an app: whoever verifies with one node's keys understands the other's tokens.

use std::time::{Duration, Instant};

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation};
use serde_json::{Value, json};
use tests::{App, PATIENCE, Server, Tokens, claims_of, email, jwt_header_of};

use crate::nodes;

/// Long enough that a node with an outdated state would sign with the wrong key, short enough to wait for.
const PROPAGATION: u32 = 3;

fn kid_of(token: &str) -> String {
    jwt_header_of(token)["kid"].as_str().expect("a key id").to_owned()
}

/// The keys that a node publishes for verifiers.
async fn published(app: &App<'_>) -> JwkSet {
    let set = app.get(".well-known/jwks.json").await.expect(200).json();
    serde_json::from_value(set).expect("a JWK set")
}

/// As a resource server does it: offline, with a set of keys that it has.
fn verify(token: &str, keys: &JwkSet, app: &App<'_>) -> Result<(), jsonwebtoken::errors::Error> {
    let header = jsonwebtoken::decode_header(token)?;
    let unknown = jsonwebtoken::errors::ErrorKind::InvalidKeyFormat;
    let key = keys.find(header.kid.as_deref().unwrap_or_default()).ok_or(unknown)?;
    let mut checks = Validation::new(header.alg);
    checks.set_audience(&[&app.id]);
    checks.set_issuer(&[format!("https://login.example.com/v1/apps/{}", app.id)]);
    jsonwebtoken::decode::<Value>(token, &DecodingKey::from_jwk(key)?, &checks).map(|_| ())
}

async fn key_list(app: &App<'_>, platform: &str) -> Vec<Value> {
    let list = app.get("admin/keys").bearer(platform).await.expect(200).json();
    list["items"].as_array().expect("a list").clone()
}

/// A session at each of two nodes.
struct Clients<'a> {
    apps: [&'a App<'a>; 2],
    sessions: [Tokens; 2],
}

impl Clients<'_> {
    /// Refreshes each session at its node, and verifies each new token with what the other node published before.
    async fn refresh(&mut self) {
        let before = [published(self.apps[0]).await, published(self.apps[1]).await];
        for node in [0, 1] {
            let answer = self.apps[node].refresh(&self.sessions[node].refresh).await;
            self.sessions[node] = answer.expect(200).tokens();
            let token = &self.sessions[node].access;
            verify(token, &before[1 - node], self.apps[node])
                .unwrap_or_else(|error| panic!("{error}: {} is not in {before:?}", kid_of(token)));
        }
    }

    /// Both nodes sign until both do it with this key, which is in `scheduled` with the moment of the switch. What they sign
    /// verifies with the keys that the *other* node published when the switch was scheduled.
    async fn refresh_until_signed_with(&mut self, scheduled: &Value) {
        let kid = scheduled["kid"].as_str().expect("a key id");
        let known_at = seconds(&scheduled["published_at"]).expect("a time");
        assert!(seconds(&scheduled["signs_from"]) >= Some(known_at + i64::from(PROPAGATION)), "{scheduled}");
        let known = [published(self.apps[0]).await, published(self.apps[1]).await];
        for keys in &known {
            assert!(keys.find(kid).is_some(), "{kid} is not in {keys:?}");
        }
        let deadline = Instant::now() + PATIENCE;
        let mut signing = [false; 2];
        while signing != [true; 2] {
            assert!(Instant::now() < deadline, "{signing:?}: {kid} does not sign on both nodes");
            self.refresh().await;
            for node in [0, 1] {
                let token = &self.sessions[node].access;
                verify(token, &known[1 - node], self.apps[node])
                    .expect("its key was published before it signed");
                let is_new = kid_of(token) == kid;
                assert!(is_new || !signing[node], "a node went back to an earlier key");
                signing[node] = is_new;
                // Both in whole seconds.
                let (made, from) = (claims_of(token)["iat"].as_i64(), seconds(&scheduled["signs_from"]));
                let in_time = if is_new { made >= from } else { made <= from };
                assert!(in_time, "node {node} signed with {} at {made:?}, for {scheduled}", kid_of(token));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Seconds since 1970 of a time as the API writes it.
fn seconds(time: &Value) -> Option<i64> {
    let time: jiff::Timestamp = time.as_str()?.parse().ok()?;
    Some(time.as_second())
}

#[tokio::test]
async fn a_key_is_known_to_both_nodes_before_either_signs_with_it() {
    let (one, two): (Server, Server) = nodes().await;
    let here = one.create_app(json!({ "key_propagation": PROPAGATION })).await;
    let there = two.app(&here.id);
    let key = one.platform_key();
    let sessions = [here.register(&email("ada")).await, there.register(&email("grace")).await];
    let first = kid_of(&sessions[0].access);
    assert_eq!(kid_of(&sessions[1].access), first);
    let mut clients = Clients { apps: [&here, &there], sessions };
    clients.refresh().await;

    // A rotation by one node.
    here.post("admin/keys/rotate").bearer(&key).await.expect(200);
    let lists = [key_list(&here, &key).await, key_list(&there, &key).await];
    let kids = |list: &[Value]| list.iter().map(|it| it["kid"].clone()).collect::<Vec<_>>();
    assert_eq!(kids(&lists[0]), kids(&lists[1]));
    let [old, rotated, _] = lists[1].as_slice() else { panic!("{lists:?}") };
    assert_eq!(old["kid"], first.as_str());
    clients.refresh_until_signed_with(rotated).await;

    // Another algorithm by the other node, and so a key that nobody could know before.
    let before = published(&here).await;
    let patch = json!({"settings": {"token_algorithm": "EdDSA"}});
    two.patch(format!("/v1/apps/{}", here.id)).bearer(&key).json(&patch).await.expect(200);
    let list = key_list(&here, &key).await;
    let changed =
        list.iter().find(|it| it["alg"] == "EdDSA" && !it["signs_from"].is_null()).expect("it is scheduled");
    assert!(before.find(changed["kid"].as_str().expect("an id")).is_none());
    clients.refresh_until_signed_with(changed).await;

    // A leak: no node and no key set trusts what was signed before.
    let old: Vec<String> = clients.sessions.iter().map(|session| session.access.clone()).collect();
    for token in &old {
        here.me(token).await.expect(200);
        there.me(token).await.expect(200);
    }
    there.post("admin/keys/rotate").bearer(&key).json(&json!({"emergency": true})).await.expect(200);
    for app in [&here, &there] {
        let keys = published(app).await;
        for token in &old {
            app.me(token).await.problem(401, "unauthenticated");
            verify(token, &keys, app).expect_err("its key is withdrawn");
        }
    }
    clients.refresh().await;
    let heir = kid_of(&clients.sessions[0].access);
    assert_eq!(heir, kid_of(&clients.sessions[1].access));
    assert!(old.iter().all(|token| kid_of(token) != heir));
    for session in &clients.sessions {
        here.me(&session.access).await.expect(200);
        there.me(&session.access).await.expect(200);
    }
}
