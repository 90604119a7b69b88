//! Organizations: who may do what in them, and that what was taken away is gone at once.

use serde_json::{Value, json};
use tests::{App, PASSWORD, Server, Tokens, assert_gapless, email, of_type};

struct Org<'a> {
    app: App<'a>,
    id: String,
}

impl Org<'_> {
    fn path(&self, rest: &str) -> String {
        format!("orgs/{}{rest}", self.id)
    }

    async fn members(&self, by: &Tokens) -> Vec<(String, String)> {
        let answer = self.app.get(&self.path("/members")).bearer(&by.access).await.expect(200).json();
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let items = answer["items"].as_array().expect("a list");
        items.iter().map(|item| (text(&item["user_id"]), text(&item["role"]))).collect()
    }
}

#[tokio::test]
async fn an_organization_is_its_members_alone() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let (ada, eve) = (app.register(&email("ada")).await, app.register(&email("eve")).await);
    let created = app
        .post("orgs")
        .bearer(&ada.access)
        .header("idempotency-key", "once")
        .json(&json!({"name": "Analytical Engines"}))
        .await
        .expect(201)
        .json();
    assert_eq!((&created["slug"], &created["role"]), (&json!("analytical-engines"), &json!("owner")));
    let again = app.post("orgs").bearer(&ada.access).header("idempotency-key", "once");
    assert_eq!(again.json(&json!({"name": "Analytical Engines"})).await.expect(201).json(), created);

    // The same name again gets another slug, unless it is asked for.
    let second = app.create_organization(&eve.access, "Analytical Engines").await;
    let slug = second["slug"].as_str().expect("a slug");
    assert!(slug.starts_with("analytical-engines-") && slug.len() <= 40, "{slug}");
    let taken = json!({"name": "Mine", "slug": "analytical-engines"});
    app.post("orgs").bearer(&eve.access).json(&taken).await.problem(409, "slug_taken");
    // Another app has its own.
    let other = server.create_app(json!({})).await;
    let bea = other.register(&email("bea")).await;
    other.post("orgs").bearer(&bea.access).json(&taken).await.expect(201);

    for wrong in
        [json!({"name": ""}), json!({"name": "X", "slug": "No"}), json!({"name": "X", "slug": "a--b"})]
    {
        app.post("orgs").bearer(&ada.access).json(&wrong).await.problem(422, "validation_failed");
    }
    let org = Org { app: app.clone(), id: created["id"].as_str().expect("an id").to_owned() };
    let list = app.get("orgs").bearer(&ada.access).await.expect(200).json();
    assert_eq!((&list["items"][0]["id"], &list["total"]), (&created["id"], &json!(1)));
    assert_eq!(app.me(&ada.access).await.expect(200).json()["orgs"][0]["slug"], "analytical-engines");
    assert_eq!(org.members(&ada).await, [(ada.user_id.clone(), "owner".to_owned())]);
    for stranger in [&eve.access, &server.platform_key()] {
        let answer = app.get(&org.path("")).bearer(stranger).await;
        assert!(matches!(answer.status, 401 | 404), "{}", answer.text);
    }
    app.patch(&org.path("")).bearer(&ada.access).json(&json!({"slug": "looms"})).await.expect(200);
    app.post("orgs").bearer(&eve.access).json(&taken).await.expect(201);

    app.delete(&org.path("")).bearer(&ada.access).await.expect(204);
    app.get(&org.path("")).bearer(&ada.access).await.problem(404, "not_found");
    assert_eq!(app.get("orgs").bearer(&ada.access).await.expect(200).json()["total"], 0);
    let events = server.events().await;
    assert_gapless(&events);
    assert_eq!(of_type(&events, "OrganizationDeleted").len(), 1);
    let doctor = server.command(&["doctor", "--json"]).output().expect("the binary runs");
    assert_eq!(doctor.status.code(), Some(0), "{}", String::from_utf8_lossy(&doctor.stdout));
}

#[tokio::test]
async fn whoever_was_erased_is_in_no_organization() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let ada = app.register(&email("ada")).await;
    let created = app.create_organization(&ada.access, "Engines").await;
    let key = server.platform_key();
    let erase = app.delete("auth/me").bearer(&ada.access).json(&json!({"password": PASSWORD}));
    erase.await.expect(200);
    let events = server.events().await;
    assert_gapless(&events);
    let removed = of_type(&events, "MemberRemoved");
    assert_eq!((removed.len(), &removed[0]["data"]["reason"]), (1, &json!("erased")));
    assert_eq!(removed[0]["data"]["organization_id"], created["id"]);
    assert!(removed[0].get("personal").is_none(), "there is no key to seal it with");
    app.delete(&format!("admin/users/{}", ada.user_id)).bearer(&key).await.expect(200);
    assert_eq!(of_type(&server.events().await, "MemberRemoved").len(), 1);
}
