//! API keys of organizations: who makes them, and what ends them on every node.

use super::organizations::{ORGS, Somebody, said};
use super::*;

impl World {
    async fn issue_key(&self, org: &str, by: &Somebody, body: Value, idempotency: Option<&str>) -> Answer {
        let path = format!("{ORGS}/{org}/api-keys");
        self.call_with("POST", &path, Some(&by.token), Some(body), idempotency).await
    }

    /// Whether introspection says that the key is active, here and on a node that has just started.
    async fn takes(&self, key: &str) -> bool {
        let path = "/v1/apps/default/auth/introspect";
        let server = self.key.expose_secret();
        let answer = self.call("POST", path, Some(server), Some(json!({ "token": key }))).await;
        let elsewhere = self.another_node();
        let there = elsewhere.call("POST", path, Some(server), Some(json!({ "token": key }))).await;
        assert_eq!((answer.status, there.status), (StatusCode::OK, StatusCode::OK), "{}", answer.body);
        assert_eq!(answer.body, there.body);
        answer.body["active"] == true
    }
}

fn ci() -> Value {
    json!({"name": "ci", "permissions": ["billing:read"]})
}

#[tokio::test]
async fn inv_v_only_owners_and_admins_make_and_revoke_keys() {
    let world = World::start().await;
    let (ada, bea, eve) =
        (world.somebody("ada").await, world.somebody("bea").await, world.somebody("eve").await);
    let (org, other) = (world.organization(&ada).await, world.organization(&eve).await);
    world.enrol(&org, &bea, "member").await;
    let made = world.issue_key(&org, &ada, ci(), Some("once")).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let repeated = world.issue_key(&org, &ada, ci(), Some("once")).await;
    assert_eq!(repeated.body, made.body, "it is derived");
    assert_eq!(world.events("OrganizationKeyIssued").await, 1);
    let (path, id) = (format!("{ORGS}/{org}/api-keys"), made.text("id"));
    let one = format!("{path}/{id}");
    for (by, why) in [(&bea, (403, "forbidden")), (&eve, (404, "not_found"))] {
        assert_eq!(said(&world.issue_key(&org, by, ci(), None).await), why);
        assert_eq!(said(&world.call("GET", &path, Some(&by.token), None).await), why);
        assert_eq!(said(&world.call("DELETE", &one, Some(&by.token), None).await), why);
    }
    // Through an organization of one's own, no other's key is found.
    let swapped = format!("{ORGS}/{other}/api-keys/{id}");
    assert_eq!(said(&world.call("DELETE", &swapped, Some(&eve.token), None).await), (404, "not_found"));
    assert!(world.takes(&made.text("key")).await);
}

#[tokio::test]
async fn inv_d_a_key_of_an_organization_ends_at_once_on_every_node() {
    let world = World::start().await;
    let (ada, bea) = (world.somebody("ada").await, world.somebody("bea").await);
    let org = world.organization(&ada).await;
    world.enrol(&org, &bea, "admin").await;
    let issue = async |body: Value| {
        let made = world.issue_key(&org, &ada, body, None).await;
        assert_eq!(made.status, 201, "{}", made.body);
        (made.text("id"), made.text("key"))
    };
    let (id, key) = issue(ci()).await;
    assert!(world.takes(&key).await);
    // Edited, cut, or with an app's key in its place.
    for at in 0..key.len() {
        let mut edited = key.clone().into_bytes();
        edited[at] = if edited[at] == b'A' { b'B' } else { b'A' };
        assert!(!world.takes(&String::from_utf8(edited).expect("ASCII")).await, "at {at}");
    }
    assert!(!world.takes(&key[..key.len() - 1]).await && !world.takes(world.key.expose_secret()).await);

    let path = format!("{ORGS}/{org}/api-keys/{id}");
    assert_eq!(world.call("DELETE", &path, Some(&bea.token), None).await.status, 204);
    assert!(!world.takes(&key).await, "revoked");

    let end = world.clock.now() + SignedDuration::from_secs(60);
    let (_, short) = issue(json!({"name": "ci", "permissions": ["a"], "expires_at": end.to_string()})).await;
    assert!(world.takes(&short).await);
    world.clock.advance(SignedDuration::from_secs(60));
    assert!(!world.takes(&short).await, "expired");

    let (_, last) = issue(ci()).await;
    assert!(world.takes(&last).await);
    let before = world.events("OrganizationDeleted").await;
    let path = format!("{ORGS}/{org}");
    assert_eq!(world.call("DELETE", &path, Some(&ada.token), None).await.status, 204);
    assert!(!world.takes(&last).await, "its organization is gone");
    assert_eq!(world.events("OrganizationDeleted").await, before + 1);
    assert_eq!(world.events("OrganizationKeyRevoked").await, 1, "one event ends all");
}
