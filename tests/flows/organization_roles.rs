//! Roles of organizations with permissions of the app's own: templates, an organization's own, and who gives them.

use serde_json::{Value, json};
use tests::{App, PASSWORD, Server, Tokens, assert_gapless, claims_of, email, of_type};

/// A user who has joined the organization with this role, by an invitation of the app's server.
async fn joined(app: &App<'_>, key: &str, org: &str, role: &str) -> Tokens {
    let address = email("bea");
    app.register(&address).await;
    app.verify(&address).await;
    let user = app.login(&address, PASSWORD).await.expect(200).tokens();
    let body = json!({"email": address, "role": role});
    let issued = app.post(&format!("admin/orgs/{org}/invitations")).bearer(key).json(&body).await;
    let token = issued.expect(201).json()["token"].clone();
    let accept = app.post("auth/invitations/accept").bearer(&user.access).json(&json!({"token": token}));
    assert_eq!(accept.await.expect(200).json()["role"], role);
    user
}

#[tokio::test]
async fn an_app_gives_roles_and_an_organization_makes_its_own() {
    let server = Server::start().await;
    let app = server.create_app(json!({"delivery": "app"})).await;
    let (_, key) = app.api_key(&["orgs:*"]).await;
    let template = |role: &str, permissions: Value| {
        app.put(&format!("admin/roles/{role}")).bearer(&key).json(&json!({"permissions": permissions}))
    };
    let set = template("owner", json!(["billing:*", "members:*"])).await.expect(200);
    set.consistency();
    assert_eq!(set.json(), json!({"role": "owner", "permissions": ["billing:*", "members:*"]}));
    template("admin", json!(["members:*"])).await.expect(200);
    template("support", json!(["tickets:read", "tickets:read"])).await.expect(200);
    let list = app.get("admin/roles").bearer(&key).await.expect(200).json();
    let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|it| it["role"].clone()).collect();
    assert_eq!(names, ["admin", "owner", "support"]);
    assert_eq!(
        app.get("admin/roles/support").bearer(&key).await.expect(200).json()["permissions"],
        json!(["tickets:read"])
    );
    app.get("admin/roles/nothing").bearer(&key).await.problem(404, "not_found");

    let ada = app.register(&email("ada")).await;
    let org = app.create_organization(&ada.access, "Engines").await;
    let org = org["id"].as_str().unwrap();
    let roles = format!("orgs/{org}/roles");
    let member = joined(&app, &key, org, "support").await;
    let admin = joined(&app, &key, org, "admin").await;

    // Its own role hides the app's, and nobody else's organization has it.
    let own = app.put(&format!("{roles}/support")).bearer(&admin.access);
    let own = own.json(&json!({"permissions": ["tickets:*"]})).await.expect(200).json();
    assert_eq!(own, json!({"role": "support", "permissions": ["tickets:*"], "source": "organization"}));
    let listed = app.get(&roles).bearer(&member.access).await.expect(200).json();
    assert_eq!(
        listed["items"],
        json!([
            {"role": "owner", "permissions": ["billing:*", "members:*"], "source": "built_in"},
            {"role": "admin", "permissions": ["members:*"], "source": "built_in"},
            {"role": "member", "permissions": [], "source": "built_in"},
            own,
        ])
    );
    let eve = app.register(&email("eve")).await;
    let others = app.create_organization(&eve.access, "Looms").await;
    let others = format!("orgs/{}/roles/support", others["id"].as_str().unwrap());
    assert_eq!(app.get(&others).bearer(&eve.access).await.expect(200).json()["source"], "app");
    app.get(&roles).bearer(&eve.access).await.problem(404, "not_found");

    let refreshed = app.refresh(&member.refresh).await.tokens();
    assert_eq!(claims_of(&refreshed.access)["orgs"][org]["permissions"], json!(["tickets:*"]));
    let ask = app.post("auth/introspect").bearer(&key).form(&[("token", &member.access)]).await;
    assert_eq!(ask.expect(200).json()["orgs"][org]["permissions"], json!(["tickets:*"]), "at once");

    // What the app keeps for owners, no admin gives.
    let treasurer = |by: &Tokens| {
        let call = app.put(&format!("{roles}/treasurer")).bearer(&by.access);
        call.json(&json!({"permissions": ["billing:read"]}))
    };
    treasurer(&admin).await.problem(403, "forbidden");
    treasurer(&member).await.problem(403, "forbidden");
    treasurer(&ada).await.expect(200);
    let give = |by: &Tokens, whom: &Tokens, role: &str| {
        app.put(&format!("orgs/{org}/members/{}", whom.user_id))
            .bearer(&by.access)
            .json(&json!({"role": role}))
    };
    give(&admin, &member, "treasurer").await.problem(403, "forbidden");
    give(&admin, &admin, "treasurer").await.problem(403, "forbidden");
    give(&ada, &member, "treasurer").await.expect(200);
    app.delete(&format!("{roles}/treasurer")).bearer(&ada.access).await.problem(409, "role_in_use");
    give(&ada, &member, "member").await.expect(200);
    app.delete(&format!("{roles}/treasurer")).bearer(&ada.access).await.expect(204);
    app.delete(&format!("{roles}/treasurer")).bearer(&ada.access).await.problem(404, "not_found");
    app.delete("admin/roles/support").bearer(&key).await.expect(204);

    let events = server.events().await;
    assert_gapless(&events);
    let names = ["RoleTemplateSet", "RoleTemplateDeleted", "OrganizationRoleSet", "OrganizationRoleDeleted"];
    assert_eq!(names.map(|name| of_type(&events, name).len()), [3, 1, 2, 1]);
    let doctor = server.command(&["doctor", "--json"]).output().expect("the binary runs");
    assert_eq!(doctor.status.code(), Some(0), "{}", String::from_utf8_lossy(&doctor.stdout));
}
