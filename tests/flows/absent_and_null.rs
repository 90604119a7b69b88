//! `null` is the same as nothing, in every command; in a merge patch it removes.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value, json};
use tests::{Answer, PASSWORD, Server, Tokens, email, of_type, until};

static COUNT: AtomicUsize = AtomicUsize::new(0);

fn number() -> usize {
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// A command of the document, with the schema of its body.
pub(crate) struct Command {
    pub method: String,
    pub path: String,
    by_key: bool,
    by_user: bool,
    schema: Map<String, Value>,
    is_optional: bool,
}

pub(crate) fn commands(document: &Value) -> Vec<Command> {
    let mut commands = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let Some(reference) = schema["$ref"].as_str() else {
                assert!(
                    schema.is_null(),
                    "{method} {path}: a body is a named schema, and not null: {schema}"
                );
                continue;
            };
            let schema = document.pointer(reference.trim_start_matches('#')).expect(reference);
            let is_by = |scheme: &str| {
                let all = operation["security"].as_array().expect("security");
                all.iter().any(|one| one.get(scheme).is_some())
            };
            commands.push(Command {
                method: method.to_uppercase(),
                path: path.clone(),
                by_key: is_by("api_key"),
                by_user: is_by("user"),
                schema: schema.as_object().expect("a schema").clone(),
                is_optional: operation["requestBody"]["required"] != true,
            });
        }
    }
    commands
}

impl Command {
    pub fn members(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.schema["properties"].as_object().expect("members").iter()
    }

    pub fn is_required(&self, name: &str) -> bool {
        is_required(&self.schema, name)
    }

    /// A body of the required members alone, each time another.
    fn least(&self) -> Map<String, Value> {
        let value = |name: &str| match name {
            "email" | "new_email" => json!(email(&format!("null{}", number()))),
            "password" | "old_password" => json!(PASSWORD),
            "new_password" => json!("another-Kettle-94"),
            "app_id" => json!(format!("nulls-{}", number())),
            "name" => json!("Ada"),
            "redirect_uri" => json!("https://app.example/callback"),
            "token" | "code" => json!("x"),
            "permissions" if self.path.contains("{org_id}") => json!(["billing:read"]),
            "permissions" => json!(["users:read"]),
            "duration_minutes" => json!(5),
            "role" => json!("owner"),
            "owner_id" => json!("{user_id}"),
            "url" => json!("https://hooks.example/"),
            "events" => json!(["UserRegistered"]),
            "from_position" => json!(1),
            other => panic!("{} {}: give `{other}` a value here", self.method, self.path),
        };
        let names = self.members().map(|(name, _)| name).filter(|name| self.is_required(name));
        names.map(|name| (name.clone(), value(name))).collect()
    }

    /// Sent for a new user of a new app.
    pub async fn send(&self, server: &Server, body: &str) -> Answer {
        let app = server.create_app(json!({"redirect_uris": ["https://app.example/callback"]})).await;
        let user: Tokens = app.register(&email(&format!("null{}", number()))).await;
        let mut path = self
            .path
            .replace("{app_id}", &app.id)
            .replace("{user_id}", &user.user_id)
            .replace("{session_id}", &user.session)
            .replace("{role}", "support")
            .replace("{name}", "stats");
        if path.contains("{org_id}") {
            let organization = app.create_organization(&user.access, "Engines").await;
            path = path.replace("{org_id}", organization["id"].as_str().expect("an id"));
        }
        if path.contains("{webhook_id}") {
            path = path.replace("{webhook_id}", &app.webhook("https://hooks.example/", &["user.*"]).await.0);
        }
        if path.ends_with("/rebuild") {
            no_rebuild_runs(server).await;
        }
        assert!(!path.contains('{'), "give {path} an id here");
        let mut call = server.call(self.method.parse().expect("a method"), path);
        if self.by_key {
            call = call.bearer(&server.platform_key());
        } else if self.by_user || self.path.ends_with("/logout") {
            call = call.bearer(&user.access);
        }
        call.body("application/json", body.replace("{user_id}", &user.user_id)).await
    }
}

/// A second one at the same time would be refused.
async fn no_rebuild_runs(server: &Server) {
    let key = server.platform_key();
    until("the last rebuild is done", async || {
        let list = server.get("/v1/projections").bearer(&key).await.expect(200).json();
        list["items"].as_array().expect("a list").iter().all(|it| it.get("rebuild").is_none())
    })
    .await;
}

fn is_required(schema: &Map<String, Value>, name: &str) -> bool {
    let required = schema.get("required").and_then(Value::as_array);
    required.is_some_and(|names| names.iter().any(|it| it == name))
}

/// The optional members of a schema, and those of its objects: `["settings"]`, `["settings", "branding", "name"]`.
fn optional_members(document: &Value, schema: &Map<String, Value>) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (name, member) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let target = member["$ref"].as_str().and_then(|it| document.pointer(it.trim_start_matches('#')));
        let own = target.unwrap_or(member).as_object().expect("a schema");
        let deeper = optional_members(document, own).into_iter();
        if !is_required(schema, name) {
            found.push(vec![name.clone()]);
        }
        found.extend(deeper.map(|way| [vec![name.clone()], way].concat()));
    }
    found
}

/// The status, and the code of a refusal.
fn outcome(answer: &Answer) -> (u16, Value) {
    (answer.status, if answer.status < 400 { Value::Null } else { answer.json()["code"].clone() })
}

#[tokio::test]
async fn null_is_the_same_as_nothing_in_every_command() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.expect(200).json();
    let commands = commands(&document);
    let (mut members, mut bodies) = (0, 0);
    for command in &commands {
        let name = format!("{} {}", command.method, command.path);
        let without = outcome(&command.send(&server, &json!(command.least()).to_string()).await);
        for way in optional_members(&document, &command.schema) {
            let mut body = json!(command.least());
            let mut place = &mut body;
            for step in &way {
                place = &mut place[step.as_str()];
            }
            assert!(place.is_null(), "this made it: {body}");
            let with = command.send(&server, &body.to_string()).await;
            assert_eq!(outcome(&with), without, "{name}: {body}");
            members += 1;
        }
        if command.is_optional {
            let with = outcome(&command.send(&server, " null ").await);
            assert_eq!(with, outcome(&command.send(&server, "").await), "{name}: the body");
            assert_ne!(with.1, "unsupported_media_type", "{name}");
            bodies += 1;
        }
    }
    println!("{members} optional members and {bodies} optional bodies of {} commands", commands.len());
    assert!(members > 100 && bodies > 5, "the document has fewer than it had: {members}, {bodies}");
}

#[tokio::test]
async fn a_patch_by_a_typed_client_removes_nothing() {
    let server = Server::start().await;
    let app = server.create_app(json!({"branding": {"name": "Acme"}, "access_token_ttl": 60})).await;
    let key = server.platform_key();
    let tokens = app.register(&email("ada")).await;
    let user = format!("admin/users/{}", tokens.user_id);
    let profile = |name: Value, phone: Value| json!({"name": name, "phone": phone});
    for (path, bearer) in [("auth/me", &tokens.access), (user.as_str(), &key)] {
        let patch =
            |kind: &'static str, body: Value| app.patch(path).bearer(bearer).body(kind, body.to_string());
        let json_body = "application/json";
        let shown = |answer: Value| profile(answer["name"].clone(), answer["phone"].clone());
        let both = patch(json_body, profile(json!("Ada"), json!("+44 1"))).await.expect(200).json();
        assert_eq!(shown(both), profile(json!("Ada"), json!("+44 1")));
        let events = of_type(&server.events().await, "UserProfileUpdated").len();
        let same = patch(json_body, json!({"name": null, "phone": null, "avatar_url": null}))
            .await
            .expect(200)
            .json();
        assert_eq!(shown(same), profile(json!("Ada"), json!("+44 1")), "{path}");
        assert_eq!(
            of_type(&server.events().await, "UserProfileUpdated").len(),
            events,
            "nothing was changed"
        );
        let named = patch(json_body, profile(json!("Grace"), Value::Null)).await.expect(200).json();
        assert_eq!(shown(named), profile(json!("Grace"), json!("+44 1")), "{path}");
        let empty = patch(json_body, profile(Value::Null, json!(""))).await.expect(200).json();
        assert_eq!(shown(empty), profile(json!("Grace"), Value::Null), "{path}");
        let removed = patch("application/merge-patch+json", json!({"name": null})).await.expect(200).json();
        assert_eq!(shown(removed), profile(Value::Null, Value::Null), "{path}");
    }
    // Only of a PATCH is it said what a merge means.
    let body = json!({"email": email("eve"), "password": PASSWORD}).to_string();
    app.post("auth/register")
        .body("application/merge-patch+json", body)
        .await
        .problem(415, "unsupported_media_type");
}

#[tokio::test]
async fn a_setting_is_put_back_by_a_merge_patch_alone() {
    let server = Server::start().await;
    let app = server
        .create_app(json!({"branding": {"name": "Acme", "colour": "#0a66c2"}, "access_token_ttl": 60}))
        .await;
    let key = server.platform_key();
    let place = app.path("").trim_end_matches('/').to_owned();
    let patch = |kind: &'static str, settings: Value| {
        let body = json!({ "settings": settings }).to_string();
        server.call(reqwest::Method::PATCH, place.clone()).bearer(&key).body(kind, body)
    };
    let nulls = json!({"branding": {"name": null}, "access_token_ttl": null, "links": null});
    let same = patch("application/json", nulls.clone()).await.expect(200).json();
    assert_eq!(same["settings"]["access_token_ttl"], 60);
    assert_eq!(same["settings"]["branding"], json!({"name": "Acme", "colour": "#0a66c2"}));
    let empty = patch("application/json", json!({"branding": {"colour": ""}})).await.expect(200).json();
    assert_eq!(empty["settings"]["branding"], json!({"name": "Acme"}));
    let back = patch("application/merge-patch+json", nulls).await.expect(200).json();
    assert_eq!(back["settings"]["access_token_ttl"], 1800);
    assert_eq!(back["settings"]["branding"], json!({}));
    // That it is a default does not mean that everybody may put it back.
    let body =
        json!({"settings": {"redirect_uris": [], "cookies": null, "origins": ["https://acme.example"]}});
    let call = server.call(reqwest::Method::PATCH, place.clone()).bearer(&key);
    call.body("application/merge-patch+json", body.to_string()).await.expect(200);
    let (_, limited) = app.api_key(&["settings:write"]).await;
    let call = server.call(reqwest::Method::PATCH, place.clone()).bearer(&limited);
    let body = json!({"settings": {"origins": null}}).to_string();
    call.body("application/merge-patch+json", body).await.problem(403, "forbidden");
    // What an app must have cannot be removed.
    let merge = |body: Value| {
        let call = server.call(reqwest::Method::PATCH, place.clone()).bearer(&key);
        call.body("application/merge-patch+json", body.to_string())
    };
    merge(json!({"name": null})).await.problem(422, "validation_failed");
    // All at once: by who may change each of them.
    let everything = json!({ "settings": null }).to_string();
    let of_json = server.call(reqwest::Method::PATCH, place.clone()).bearer(&key);
    let same = of_json.body("application/json", everything.clone()).await.expect(200).json();
    assert_eq!(same["settings"]["origins"], json!(["https://acme.example"]));
    let call = server.call(reqwest::Method::PATCH, place.clone()).bearer(&limited);
    call.body("application/merge-patch+json", everything).await.problem(403, "forbidden");
    let default = server.create_app(json!({})).await;
    let default = server.get(default.path("").trim_end_matches('/')).bearer(&key).await.expect(200).json();
    let back = merge(json!({"settings": null})).await.expect(200).json();
    assert_eq!(back["settings"], default["settings"]);
    // A part of a setting, and its other spelling; unknown ones are refused, whatever they are.
    merge(json!({"settings": {"branding": {"name": "Acme", "colour": "#0a66c2"}}})).await.expect(200);
    let parts = json!({"settings": {"branding": {"color": null}}});
    assert_eq!(merge(parts).await.expect(200).json()["settings"]["branding"], json!({"name": "Acme"}));
    for unknown in [json!({"nothing": null}), json!({"branding": {"nothing": null}})] {
        let body = json!({ "settings": unknown });
        merge(body.clone()).await.problem(400, "malformed_request");
        let call = server.call(reqwest::Method::PATCH, place.clone()).bearer(&key).json(&body);
        call.await.problem(400, "malformed_request");
    }
    // A setting that may name nothing: `""`, and by a merge patch its default.
    let named = |answer: Answer| answer.expect(200).json()["settings"]["admin_role"].clone();
    let settings = |role: Value| json!({"settings": {"admin_role": role}});
    assert_eq!(named(merge(settings(json!("Owner"))).await), "Owner");
    let of_json = |body: Value| server.call(reqwest::Method::PATCH, place.clone()).bearer(&key).json(&body);
    assert_eq!(named(of_json(settings(Value::Null)).await), "Owner");
    assert_eq!(named(of_json(settings(json!(""))).await), Value::Null);
    assert_eq!(named(merge(settings(Value::Null)).await), "admin");
}
