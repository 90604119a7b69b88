//! Roles with permissions: who makes and gives them, and that nobody gets more by a detour.

use super::org_tokens::granted;
use super::organizations::{ORGS, Somebody, said};
use super::*;

const TEMPLATES: &str = "/v1/apps/default/admin/roles";

impl World {
    async fn set_permissions(&self, org: &str, by: &Somebody, role: &str, permissions: &[&str]) -> Answer {
        let path = format!("{ORGS}/{org}/roles/{role}");
        let body = json!({ "permissions": permissions });
        self.call("PUT", &path, Some(&by.token), Some(body)).await
    }

    async fn template(&self, key: &str, role: &str, permissions: &[&str]) -> Answer {
        let body = json!({ "permissions": permissions });
        self.call("PUT", &format!("{TEMPLATES}/{role}"), Some(key), Some(body)).await
    }

    /// What the person may do in the organization, as introspection says.
    async fn may(&self, user: &Somebody, org: &str) -> Value {
        self.introspect(&user.token).await["orgs"][org]["permissions"].clone()
    }
}

#[tokio::test]
async fn inv_v_nobody_gives_permissions_that_are_not_theirs_to_give() {
    let world = World::start().await;
    let (ada, bea, cleo, eve) = (
        world.somebody("ada").await,
        world.somebody("bea").await,
        world.somebody("cleo").await,
        world.somebody("eve").await,
    );
    let (org, other) = (world.organization(&ada).await, world.organization(&eve).await);
    world.enrol(&org, &bea, "admin").await;
    world.enrol(&org, &cleo, "member").await;
    let platform = world.key.expose_secret().to_owned();
    assert_eq!(world.template(&platform, "owner", &["billing:*"]).await.status, 200);
    assert_eq!(world.set_permissions(&org, &ada, "treasurer", &["billing:read"]).await.status, 200);
    assert_eq!(world.set_permissions(&other, &eve, "boss", &["billing:*"]).await.status, 200);
    let keys = [world.api_key(&["settings:write", "users:write", "keys:write"]).await, bea.token.clone()];
    let before = world.all_events().await;

    let forbidden = (403, "forbidden");
    // A member edits a role, their own or another.
    for role in ["treasurer", "member", "admin"] {
        assert_eq!(
            said(&world.set_permissions(&org, &cleo, role, &["billing:*"]).await),
            forbidden,
            "{role}"
        );
    }
    // An admin puts what is the owners' into a role, takes such a role, gives it, and changes the own one.
    assert_eq!(said(&world.set_permissions(&org, &bea, "friend", &["billing:write"]).await), forbidden);
    assert_eq!(said(&world.set_permissions(&org, &bea, "treasurer", &["billing:*"]).await), forbidden);
    assert_eq!(said(&world.set_role(&org, &bea, &bea, "treasurer").await), forbidden);
    assert_eq!(said(&world.set_role(&org, &bea, &cleo, "treasurer").await), forbidden);
    for role in ["owner", "admin", "member", "Owner", "ADMIN"] {
        let refused = world.set_permissions(&org, &ada, role, &["x"]).await;
        assert_eq!(said(&refused), (422, "validation_failed"), "{role}");
    }
    // The role of another organization, and of nobody.
    for role in ["boss", "nothing"] {
        assert_eq!(said(&world.set_role(&org, &ada, &cleo, role).await), (422, "validation_failed"));
    }
    let absent = (404, "not_found");
    assert_eq!(said(&world.set_permissions(&other, &ada, "boss", &["x"]).await), absent);
    for (method, role) in [("GET", "boss"), ("GET", "nothing"), ("DELETE", "boss"), ("DELETE", "owner")] {
        let path = format!("{ORGS}/{org}/roles/{role}");
        assert_eq!(said(&world.call(method, &path, Some(&ada.token), None).await), absent, "{method} {role}");
    }
    let of_other = world.call("GET", &format!("{ORGS}/{other}/roles"), Some(&ada.token), None).await;
    assert_eq!(said(&of_other), absent);
    // What the app says is not for members, whatever they are, nor for keys without the right.
    for key in &keys {
        assert_eq!(said(&world.template(key, "member", &["billing:*"]).await), forbidden);
        assert_eq!(said(&world.call("GET", TEMPLATES, Some(key), None).await), forbidden);
        let path = format!("{TEMPLATES}/owner");
        assert_eq!(said(&world.call("DELETE", &path, Some(key), None).await), forbidden);
    }
    for (role, permissions) in [("Owner", &["x"][..]), ("1", &["x"]), ("a", &["X"]), ("a", &["x", ""])] {
        let refused = world.template(&platform, role, permissions).await;
        assert_eq!(said(&refused), (422, "validation_failed"), "{role} {permissions:?}");
    }
    assert_eq!(world.all_events().await, before, "a refusal writes nothing");
}

#[tokio::test]
async fn inv_d_an_edited_role_holds_at_once_on_every_node() {
    let world = World::start().await;
    let (ada, bea) = (world.somebody("ada").await, world.somebody("bea").await);
    let org = world.organization(&ada).await;
    let (node, _) = round_trips::node_of_many(&world);
    let key = world.api_key(&["orgs:*"]).await;
    assert_eq!(world.template(&key, "support", &["tickets:read"]).await.status, 200);
    assert_eq!(world.template(&key, "member", &["read"]).await.status, 200);
    world.enrol(&org, &bea, "support").await;
    let login = node.login("bea@example.com", PASSWORD).await;
    assert_eq!(granted(&login)["orgs"][&org]["permissions"], json!(["tickets:read"]));
    assert_eq!(node.may(&bea, &org).await, json!(["tickets:read"]));
    let chosen = node.act_for(&login.text("access_token"), &org).await;
    assert_eq!(granted(&chosen)["org_permissions"], json!(["tickets:read"]));

    // The app's template changes, the organization's own role hides it, and is gone again.
    assert_eq!(world.template(&key, "support", &["tickets:*"]).await.status, 200);
    assert_eq!(node.may(&bea, &org).await, json!(["tickets:*"]));
    let refreshed = node.refresh(&login.text("refresh_token")).await;
    assert_eq!(granted(&refreshed)["org_permissions"], json!(["tickets:*"]));
    assert_eq!(world.set_permissions(&org, &ada, "support", &["own:read"]).await.status, 200);
    assert_eq!(node.may(&bea, &org).await, json!(["own:read"]));
    let refreshed = node.refresh(&refreshed.text("refresh_token")).await;
    assert_eq!(granted(&refreshed)["orgs"][&org]["permissions"], json!(["own:read"]));
    let path = format!("{ORGS}/{org}/roles/support");
    let in_use = world.call("DELETE", &path, Some(&ada.token), None).await;
    assert_eq!(said(&in_use), (409, "role_in_use"));
    assert_eq!(world.set_role(&org, &ada, &bea, "member").await.status, 200);
    assert_eq!(node.may(&bea, &org).await, json!(["read"]));
    assert_eq!(world.call("DELETE", &path, Some(&ada.token), None).await.status, 204);

    // A template goes though members have it: they keep its name.
    assert_eq!(world.set_role(&org, &ada, &bea, "support").await.status, 200);
    let template = format!("{TEMPLATES}/support");
    assert_eq!(world.call("DELETE", &template, Some(&key), None).await.status, 204);
    let now = node.introspect(&bea.token).await;
    assert_eq!(now["orgs"][&org], json!({"slug": "engines", "role": "support", "permissions": []}));
    assert_eq!(said(&world.call("DELETE", &template, Some(&key), None).await), (404, "not_found"));
    assert_eq!(said(&world.set_role(&org, &ada, &bea, "support").await), (422, "validation_failed"));
}

#[tokio::test]
async fn roles_have_an_end() {
    let world = World::start().await;
    let ada = world.somebody("ada").await;
    let org = world.organization(&ada).await;
    let platform = world.key.expose_secret().to_owned();
    let many: Vec<String> = (0..=50).map(|number| format!("{}{number:03}", "p".repeat(61))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(said(&world.set_permissions(&org, &ada, "big", &many).await), (422, "validation_failed"));
    assert_eq!(said(&world.template(&platform, "big", &many).await), (422, "validation_failed"));
    // As many as a role can have, as long as they can be, fit into a token.
    assert_eq!(world.template(&platform, "owner", &many[1..]).await.status, 200);
    let chosen = world.act_for(&ada.token, &org).await;
    assert_eq!(granted(&chosen)["org_permissions"].as_array().map(Vec::len), Some(50));
    assert_eq!(granted(&chosen)["orgs_truncated"], true);
    assert_eq!(world.me(&chosen.text("access_token")).await.status, 200);
    for number in 0..50 {
        let role = format!("r{number}");
        assert_eq!(world.set_permissions(&org, &ada, &role, &["x"]).await.status, 200);
        assert!(matches!(world.template(&platform, &role, &["x"]).await.status.as_u16(), 200 | 409));
    }
    let full = (409, "too_many_custom_roles");
    assert_eq!(said(&world.set_permissions(&org, &ada, "more", &["x"]).await), full);
    assert_eq!(said(&world.template(&platform, "more", &["x"]).await), full);
}
