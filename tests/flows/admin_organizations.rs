//! An app's organizations, as its admins and API keys see them.

use serde_json::{Value, json};
use tests::{App, PASSWORD, Server, email, of_type};

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().expect("a list");
    items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
}

async fn list(app: &App<'_>, key: &str, path: &str) -> Value {
    app.get(path).bearer(key).await.expect(200).json()
}

#[tokio::test]
async fn organizations_are_listed_searched_and_as_they_were() {
    let server = Server::start().await;
    let (app, other) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    let ada = app.register(&email("ada")).await;
    let bea = other.register(&email("bea")).await;
    let (_, reader) = app.api_key(&["orgs:read"]).await;
    let mut made = Vec::new();
    for name in ["Zoë's Engines", "ΟΔΥΣΣΕΥΣ", "東京商店"] {
        made.push(app.create_organization(&ada.access, name).await["id"].as_str().expect("an id").to_owned());
    }
    other.create_organization(&bea.access, "Zoë's Engines").await;
    let rename = app.patch(&format!("orgs/{}", made[1])).bearer(&ada.access);
    let renamed = rename.json(&json!({ "name": "Penelope" })).await.expect(200);
    let token = renamed.consistency().to_owned();
    let listed = app.get("admin/orgs").bearer(&reader).header("consistency-token", &token);
    let listed = listed.await.expect(200).json();
    assert_eq!((ids(&listed), &listed["total"]), (made.iter().rev().cloned().collect(), &json!(3)));
    let newest = &listed["items"][0];
    assert_eq!((&newest["name"], &newest["member_count"]), (&json!("東京商店"), &json!(1)));
    assert!(newest["role"].is_null(), "a role is what a member has");
    for (query, found) in [
        ("query=ZOE", vec![0]),
        ("query=%E4%BA%AC", vec![2]),
        ("query=Penel", vec![1]),
        ("query=%CE%9F%CE%B4%CF%85%CF%83", vec![]),
        ("sort=name", vec![1, 0, 2]),
        ("sort=-name&limit=1", vec![2]),
        ("sort=created_at&offset=2", vec![2]),
    ] {
        let page = list(&app, &reader, &format!("admin/orgs?{query}")).await;
        let expected: Vec<String> = found.into_iter().map(|n: usize| made[n].clone()).collect();
        assert_eq!(ids(&page), expected, "{query}");
    }
    let first = list(&app, &reader, "admin/orgs?sort=name&limit=2").await;
    let cursor = first["next_cursor"].as_str().expect("a cursor");
    let second = list(&app, &reader, &format!("admin/orgs?sort=name&limit=2&cursor={cursor}")).await;
    assert_eq!((ids(&second).len(), &second["next_cursor"]), (1, &Value::Null));
    for wrong in ["query=--", "sort=x", "limit=201", "offset=10001", &format!("cursor={cursor}"), "x=1"] {
        let refused = app.get(&format!("admin/orgs?{wrong}")).bearer(&reader).await;
        assert!(matches!(refused.status, 400 | 422), "{wrong}: {}", refused.text);
    }

    let events = server.events().await;
    let before = of_type(&events, "OrganizationRenamed")[0]["position"].as_u64().expect("a position") - 1;
    let path = format!("admin/orgs/{}", made[1]);
    assert_eq!(list(&app, &reader, &path).await["name"], "Penelope");
    let then = app.get(&format!("{path}?as_of={before}")).bearer(&reader).await.expect(200);
    assert_eq!(then.header("as-of-position"), Some(before.to_string().as_str()));
    assert_eq!(then.json()["name"], "ΟΔΥΣΣΕΥΣ");
    app.delete(&format!("orgs/{}", made[1])).bearer(&ada.access).await.expect(204);
    app.get(&path).bearer(&reader).await.problem(404, "not_found");
    assert_eq!(list(&app, &reader, &format!("{path}?as_of={before}")).await["slug"], then.json()["slug"]);
    app.get(&format!("{path}?as_of=1")).bearer(&reader).await.problem(404, "not_found");

    let path = format!("admin/users/{}/orgs", ada.user_id);
    let now = list(&app, &reader, &path).await;
    assert_eq!((&now["total"], &now["items"][0]["role"]), (&json!(2), &json!("owner")));
    assert_eq!(list(&app, &reader, &format!("{path}?as_of={before}")).await["total"], 3);
    let projections = server.get("/v1/projections").bearer(&server.platform_key()).await.expect(200).json();
    for name in ["organizations", "members"] {
        let shown = projections["items"].as_array().or(projections.as_array()).expect("a list");
        assert!(shown.iter().any(|it| it["name"] == name && it["state"] == "running"), "{projections}");
    }
}

#[tokio::test]
async fn members_have_names_only_for_who_may_read_users() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    let ada = app.register(&address).await;
    let org = app.create_organization(&ada.access, "Engines").await;
    let path = format!("admin/orgs/{}/members", org["id"].as_str().expect("an id"));
    let (_, reader) = app.api_key(&["orgs:read"]).await;
    let (_, both) = app.api_key(&["orgs:*", "users:read"]).await;
    let (_, writer) = app.api_key(&["orgs:write"]).await;
    app.get(&path).bearer(&writer).await.problem(403, "forbidden");
    let shown = list(&app, &reader, &path).await;
    let member = &shown["items"][0];
    assert_eq!((&member["user_id"], &member["role"]), (&json!(ada.user_id), &json!("owner")));
    assert!(member["email"].is_null() && member["name"].is_null(), "{member}");
    assert!(of_type(&server.events().await, "PersonalDataRead").is_empty());
    let named = list(&app, &both, &path).await;
    assert_eq!(named["items"][0]["email"], address.as_str());
    let events = server.events().await;
    let read = of_type(&events, "PersonalDataRead");
    assert_eq!((read.len(), &read[0]["data"]["source"]), (1, &json!("user_list")));
    let position = read[0]["position"].as_u64().expect("a position");
    assert_eq!(list(&app, &reader, &format!("{path}?role=member")).await["total"], 0);
    assert_eq!(list(&app, &reader, &format!("{path}?role=owner&sort=-joined_at")).await["total"], 1);

    let erase = app.delete("auth/me").bearer(&ada.access).json(&json!({ "password": PASSWORD }));
    erase.await.expect(200);
    assert_eq!(list(&app, &reader, &path).await["total"], 0);
    let then = list(&app, &both, &format!("{path}?as_of={position}")).await;
    assert_eq!((&then["total"], &then["items"][0]["email"]), (&json!(1), &Value::Null));

    // What a key contains it may give to others, and no more.
    let (_, maker) = app.api_key(&["orgs:read", "keys:write"]).await;
    let (_, wider) = app.api_key(&["orgs:*", "keys:write"]).await;
    for (key, permission, status) in [
        (&maker, "orgs:read", 201),
        (&maker, "orgs:write", 403),
        (&maker, "orgs:*", 403),
        (&wider, "orgs:write", 201),
    ] {
        let made = app.post("admin/api-keys").bearer(key);
        let made = made.json(&json!({ "name": "x", "permissions": [permission] })).await;
        assert_eq!(made.status, status, "{permission}: {}", made.text);
    }
}

#[tokio::test]
async fn an_admin_manages_organizations_and_no_key_grows_by_it() {
    let server = Server::start().await;
    let (app, other) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    let (ada, bea) = (app.register(&email("ada")).await, app.register(&email("bea")).await);
    let stranger = other.register(&email("stranger")).await;
    let admin = app.register_admin(&email("admin")).await;
    let (_, reader) = app.api_key(&["orgs:read", "users:read", "users:write"]).await;
    let (_, writer) = app.api_key(&["orgs:write"]).await;
    let new = |owner: &str| json!({ "name": "Engines", "owner_id": owner });
    app.post("admin/orgs").bearer(&reader).json(&new(&ada.user_id)).await.problem(403, "forbidden");
    for nobody in [&stranger.user_id, "018f0000-0000-7000-8000-000000000000"] {
        let refused = app.post("admin/orgs").bearer(&writer).json(&new(nobody)).await;
        let refused = refused.problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], "/owner_id");
    }
    // A limited key acts on no admin of the app; a full admin does.
    app.post("admin/orgs").bearer(&writer).json(&new(&admin.user_id)).await.problem(403, "forbidden");
    let create = || app.post("admin/orgs").bearer(&writer).header("idempotency-key", "once");
    let org = create().json(&new(&ada.user_id)).await.expect(201);
    assert_eq!(create().json(&new(&ada.user_id)).await.expect(201).text, org.text);
    let org = org.json();
    assert_eq!((&org["slug"], &org["member_count"]), (&json!("engines"), &json!(1)));
    let second = app.post("admin/orgs").bearer(&admin.access).json(&new(&admin.user_id)).await.expect(201);
    assert!(second.json()["slug"].as_str().expect("a slug").starts_with("engines-"));
    let path = format!("admin/orgs/{}", org["id"].as_str().expect("an id"));
    let taken = json!({ "slug": second.json()["slug"] });
    app.patch(&path).bearer(&writer).json(&taken).await.problem(409, "slug_taken");
    let renamed = app.patch(&path).bearer(&writer).json(&json!({ "name": "Looms" })).await.expect(200).json();
    assert_eq!((&renamed["name"], &renamed["slug"]), (&json!("Looms"), &json!("engines")));

    let member = |user: &str| format!("{path}/members/{user}");
    let set = |user: &str, role: &str| app.put(&member(user)).json(&json!({ "role": role }));
    for (user, status) in [(&admin.user_id, 403), (&stranger.user_id, 404)] {
        assert_eq!(set(user, "member").bearer(&writer).await.status, status);
    }
    set(&bea.user_id, "king").bearer(&writer).await.problem(422, "validation_failed");
    let added = set(&bea.user_id, "admin").bearer(&writer).await.expect(200).json();
    assert_eq!((&added["role"], &added["email"]), (&json!("admin"), &Value::Null));
    set(&admin.user_id, "member").bearer(&admin.access).await.expect(200);
    app.delete(&member(&admin.user_id)).bearer(&writer).await.problem(403, "forbidden");
    app.delete(&member(&ada.user_id)).bearer(&writer).await.problem(409, "last_owner");

    // The last owner is gone: an admin names another one.
    app.delete("auth/me").bearer(&ada.access).json(&json!({ "password": PASSWORD })).await.expect(200);
    let owners = list(&app, &reader, &format!("{path}/members?role=owner")).await;
    assert_eq!(owners["total"], 0);
    set(&bea.user_id, "owner").bearer(&writer).await.expect(200);
    let own = app.get(&format!("orgs/{}", org["id"].as_str().expect("an id"))).bearer(&bea.access);
    assert_eq!(own.await.expect(200).json()["role"], "owner");
    set(&ada.user_id, "member").bearer(&writer).await.problem(404, "not_found");

    app.delete(&path).bearer(&reader).await.problem(403, "forbidden");
    app.delete(&path).bearer(&writer).await.expect(204);
    app.delete(&path).bearer(&writer).await.problem(404, "not_found");
    assert_eq!(app.get("orgs").bearer(&bea.access).await.expect(200).json()["total"], 0);
    let doctor = server.command(&["doctor", "--json"]).output().expect("the binary runs");
    assert_eq!(doctor.status.code(), Some(0), "{}", String::from_utf8_lossy(&doctor.stdout));
}
