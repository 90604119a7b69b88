//! Organizations: who may do what in them, and that what was taken away is gone at once.

use serde_json::{Value, json};
use tests::{App, PASSWORD, Server, Tokens, assert_gapless, email, of_type, until};

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

#[tokio::test]
async fn an_invitation_makes_a_member_of_whoever_has_its_address() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let (ada, bea) = (email("ada"), email("bea"));
    let owner = app.register(&ada).await;
    let org = app.create_organization(&owner.access, "Engines").await;
    let org = Org { app: app.clone(), id: org["id"].as_str().expect("an id").to_owned() };
    let invitations = org.path("/invitations");
    let invite = |by: &str| app.post(&invitations).bearer(by).json(&json!({"email": bea, "role": "admin"}));
    // Anybody could have made the account: only a verified member writes to others.
    invite(&owner.access).await.problem(403, "email_not_verified");
    app.verify(&ada).await;
    let owner = app.login(&ada, PASSWORD).await.expect(200).tokens();
    let invited = invite(&owner.access).await.expect(201).json();
    assert_eq!((&invited["email"], &invited["role"]), (&json!(bea), &json!("admin")));
    assert!(invited.get("token").is_none(), "it is in the mail alone");
    let list = app.get(&invitations).bearer(&owner.access).await.expect(200).json();
    assert_eq!(list["items"], json!([invited]));

    let mut mail = String::new();
    until("the mail is written", async || {
        let files = tests::files_under(&server.data().join("outbox"));
        let found = files.iter().find(|(path, _)| path.to_string_lossy().ends_with(".invitation.eml"));
        mail = found.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default();
        !mail.is_empty()
    })
    .await;
    let text = mail.replace("=\r\n", "").replace("=3D", "=");
    assert!(!text.contains("Engines"), "the name could be anything: {text}");
    let token = text.split("invitations/accept?token=").nth(1).expect("a link");
    let end = token.find(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c))).expect("its end");
    let token = &token[..end];
    assert!(token.starts_with("wwi_"));
    let page = app.get(&format!("auth/invitations/accept?token={token}")).await.expect(200);
    assert!(page.is_page());

    let accept =
        |by: &Tokens| app.post("auth/invitations/accept").bearer(&by.access).json(&json!({"token": token}));
    let eve_address = email("eve");
    app.register(&eve_address).await;
    app.verify(&eve_address).await;
    let eve = app.login(&eve_address, PASSWORD).await.expect(200).tokens();
    accept(&eve).await.problem(403, "forbidden");
    let unproven = app.register(&bea).await;
    accept(&unproven).await.problem(403, "email_not_verified");
    app.verify(&bea).await;
    let member = app.login(&bea, PASSWORD).await.expect(200).tokens();
    assert_eq!(accept(&member).await.expect(200).json()["role"], "admin");
    accept(&member).await.problem(400, "invalid_or_expired_token");
    assert_eq!(org.members(&owner).await.len(), 2);
    app.get(&format!("auth/invitations/accept?token={token}")).await.expect(400);
    let stored = server.stored_bytes();
    let address = bea.as_bytes();
    for (path, bytes) in stored.iter().filter(|(path, _)| !path.to_string_lossy().contains("outbox")) {
        assert!(!bytes.windows(address.len()).any(|window| window == address), "{}", path.display());
    }
}

#[tokio::test]
async fn an_app_that_delivers_mails_itself_gets_the_token() {
    let server = Server::start().await;
    let app = server.create_app(json!({"delivery": "app"})).await;
    let ada = email("ada");
    app.register(&ada).await;
    app.verify(&ada).await;
    let owner = app.login(&ada, PASSWORD).await.expect(200).tokens();
    let org = app.create_organization(&owner.access, "Engines").await;
    let path = format!("orgs/{}/invitations", org["id"].as_str().expect("an id"));
    let body = json!({"email": email("bea")});
    app.post(&path).bearer(&owner.access).json(&body).await.problem(403, "forbidden");
    let (key_id, key) = app.api_key(&["orgs:*"]).await;
    let issued = app.post(&format!("admin/{path}")).bearer(&key).json(&body).await.expect(201).json();
    let token = issued["token"].as_str().expect("a token").to_owned();
    let page = format!("auth/invitations/accept?token={token}");
    app.get(&page).await.expect(200);

    // It ends with the key.
    let bea = body["email"].as_str().expect("text");
    app.register(bea).await;
    app.verify(bea).await;
    let member = app.login(bea, PASSWORD).await.expect(200).tokens();
    app.delete(&format!("admin/api-keys/{key_id}")).bearer(&server.platform_key()).await.expect(204);
    let accept = app.post("auth/invitations/accept").bearer(&member.access).json(&json!({"token": token}));
    accept.again().await.problem(400, "invalid_or_expired_token");
    let other = server.create_app(json!({})).await;
    let stranger = other.register(&email("eve")).await;
    let elsewhere = other.post("auth/invitations/accept").bearer(&stranger.access);
    elsewhere.json(&json!({"token": token})).await.problem(400, "invalid_or_expired_token");
}

#[tokio::test]
async fn in_an_app_for_invited_people_an_invitation_lets_its_address_register() {
    let server = Server::start().await;
    let app = server.create_app(json!({"delivery": "app"})).await;
    let ada = app.register(&email("ada")).await;
    let org = app.create_organization(&ada.access, "Engines").await;
    let key = server.platform_key();
    let path = format!("admin/orgs/{}/invitations", org["id"].as_str().expect("an id"));
    let bea = email("bea");
    let issued = app.post(&path).bearer(&key).json(&json!({"email": bea})).await.expect(201).json();
    let token = issued["token"].as_str().expect("a token").to_owned();
    let opened = async |how: &str| {
        let settings = json!({"settings": {"registration": how}});
        server
            .call("PATCH".parse().expect("a method"), format!("/v1/apps/{}", app.id))
            .bearer(&key)
            .json(&settings)
            .await
            .expect(200);
    };
    let register = |address: &str, token: Option<&str>| {
        app.post("auth/register").json(&json!({"email": address, "password": PASSWORD, "invitation": token}))
    };
    opened("closed").await;
    register(&bea, Some(&token)).await.problem(403, "registration_closed");
    opened("invite_only").await;
    register(&bea, None).await.problem(403, "registration_closed");
    register(&email("eve"), Some(&token)).await.problem(403, "registration_closed");
    register(&bea, Some(&format!("{token}A"))).await.problem(403, "registration_closed");
    let made = register(&bea, Some(&token)).await.expect(201).tokens();
    let accept =
        |access: &str| app.post("auth/invitations/accept").bearer(access).json(&json!({"token": token}));
    accept(&made.access).await.problem(403, "email_not_verified");
    app.verify(&bea).await;
    accept(&made.access).await.expect(200);
    register(&email("eve"), Some(&token)).await.problem(403, "registration_closed");
}
