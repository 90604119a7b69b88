//! A refusal names everything that is wrong, of bodies and of queries.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use tests::{PASSWORD, Server, email, until};

use crate::absent_and_null::commands;

/// Where, and the code.
fn errors(problem: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let of = |error: &Value| {
        assert!(error["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
        let place = text(&error["pointer"]).xor(text(&error["parameter"])).expect("one place");
        (place, text(&error["code"]).expect("a code"))
    };
    let mut errors: Vec<_> = problem["errors"].as_array().expect("errors").iter().map(of).collect();
    errors.sort();
    errors
}

fn expected(errors: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut errors: Vec<_> =
        errors.iter().map(|(place, code)| ((*place).to_owned(), (*code).to_owned())).collect();
    errors.sort();
    errors
}

#[tokio::test]
async fn every_wrong_member_of_a_body_is_named() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let key = server.platform_key();
    let shape = json!({"email": 7, "name": ["Ada"], "phone": {}, "colour": "red", "role": "admin"});
    let problem = app.post("auth/register").json(&shape).await.problem(400, "malformed_request");
    let named = [
        ("/email", "invalid_type"),
        ("/name", "invalid_type"),
        ("/phone", "invalid_type"),
        ("/colour", "unknown_member"),
        ("/role", "unknown_member"),
        ("/password", "missing"),
    ];
    assert_eq!(errors(&problem), expected(&named));

    let values =
        json!({"email": "ada", "password": "short", "name": " ", "phone": "\u{0}", "avatar_url": "x"});
    let problem = app.post("auth/register").json(&values).await.problem(422, "validation_failed");
    let named = [
        ("/email", "invalid_email"),
        ("/password", "weak_password"),
        ("/name", "invalid"),
        ("/phone", "invalid"),
        ("/avatar_url", "invalid"),
    ];
    assert_eq!(errors(&problem), expected(&named));
    assert_eq!(problem["reason"], "too_short", "{problem}");

    let new_user = json!({"email": "ada", "password": "short", "roles": ["not a role"]});
    let problem =
        app.post("admin/users").bearer(&key).json(&new_user).await.problem(422, "validation_failed");
    let named = [("/email", "invalid_email"), ("/password", "weak_password"), ("/roles/0", "invalid")];
    assert_eq!(errors(&problem), expected(&named));

    let link = json!({"email": "ada", "redirect_uri": "https://evil.example/", "state": "x".repeat(2000),
        "code_challenge_method": "plain"});
    let problem = app.post("auth/magic-link").json(&link).await.problem(422, "validation_failed");
    let named = [
        ("/email", "invalid_email"),
        ("/redirect_uri", "redirect_uri_not_allowed"),
        ("/state", "invalid"),
        ("/code_challenge", "invalid"),
        ("/code_challenge_method", "invalid"),
    ];
    assert_eq!(errors(&problem), expected(&named));

    let new_app = json!({"app_id": "A", "name": "", "settings": {"access_token_ttl": 0, "refresh_grace": 99,
        "branding": {"colour": "red"}}});
    let problem = server.post("/v1/apps").bearer(&key).json(&new_app).await.problem(422, "validation_failed");
    let named = [
        ("/app_id", "invalid"),
        ("/name", "invalid"),
        ("/settings/access_token_ttl", "invalid"),
        ("/settings/refresh_grace", "invalid"),
        ("/settings/branding/colour", "invalid"),
    ];
    assert_eq!(errors(&problem), expected(&named));

    let settings = json!({"access_token_ttl": "60", "cookies": {}, "branding": {"couleur": "red"}, "origins": 7,
        "nothing": 1, "locale": "xx"});
    let problem =
        server.post("/v1/apps").bearer(&key).json(&json!({"app_id": "a", "name": "A", "settings": settings}));
    let named = [
        ("/settings/access_token_ttl", "invalid_type"),
        ("/settings/cookies", "invalid_type"),
        ("/settings/branding/couleur", "unknown_member"),
        ("/settings/origins", "invalid_type"),
        ("/settings/nothing", "unknown_member"),
        ("/settings/locale", "invalid"),
    ];
    assert_eq!(errors(&problem.await.problem(400, "malformed_request")), expected(&named));

    let new_key = json!({"name": "", "permissions": ["users:read", "users:fly", "x"]});
    let problem =
        app.post("admin/api-keys").bearer(&key).json(&new_key).await.problem(422, "validation_failed");
    let named = [("/name", "invalid"), ("/permissions/1", "invalid"), ("/permissions/2", "invalid")];
    assert_eq!(errors(&problem), expected(&named));

    // One alone keeps its code.
    let weak = json!({"email": email("ada"), "password": "short"});
    app.post("auth/register").json(&weak).await.problem(422, "weak_password");
    let problem = app.post("auth/exchange").form(&[("a", "1")]).await;
    assert_eq!(problem.status, 415);
    let form = [("token", "x"), ("colour", "red"), ("token", "y")];
    let problem =
        app.post("auth/email-verification/confirm").form(&form).await.problem(400, "malformed_request");
    assert_eq!(errors(&problem), expected(&[("/token", "repeated"), ("/colour", "unknown_member")]));
}

/// The first step of each pointer, with the code.
fn members_in(problem: &Value) -> BTreeSet<(String, String)> {
    let first = |pointer: String| pointer.split('/').nth(1).unwrap_or_default().to_owned();
    errors(problem).into_iter().map(|(pointer, code)| (first(pointer), code)).collect()
}

#[tokio::test]
async fn every_command_names_what_is_missing_and_what_is_of_another_type() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.expect(200).json();
    for command in commands(&document) {
        let name = format!("{} {}", command.method, command.path);
        let required = command.members().filter(|(member, _)| command.is_required(member));
        let required: BTreeSet<_> = required.map(|(it, _)| (it.clone(), "missing".to_owned())).collect();
        if !required.is_empty() {
            let problem = command.send(&server, "{}").await.problem(400, "malformed_request");
            assert_eq!(members_in(&problem), required, "{name}");
            let whole = [(String::new(), "missing".to_owned())];
            let problem = command.send(&server, "").await.problem(400, "malformed_request");
            assert_eq!(errors(&problem), whole, "{name}");
        }
        let of_another_type = |schema: &Value| if schema["$ref"].is_string() { json!(7) } else { json!({}) };
        let wrong: Map<_, _> =
            command.members().map(|(name, schema)| (name.clone(), of_another_type(schema))).collect();
        let problem =
            command.send(&server, &json!(wrong).to_string()).await.problem(400, "malformed_request");
        let named: BTreeSet<_> = members_in(&problem).into_iter().map(|(name, _)| name).collect();
        assert!(errors(&problem).iter().all(|(_, code)| code == "invalid_type"), "{name}: {problem}");
        assert_eq!(named, command.members().map(|(name, _)| name.clone()).collect(), "{name}: {problem}");
    }
}

#[tokio::test]
async fn what_is_needed_only_sometimes_is_named_too() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let key = server.platform_key();
    for body in ["", "{}", "null", r#"{"refresh_token": null}"#] {
        let refresh = app.post("auth/refresh").body("application/json", body.to_owned());
        let problem = refresh.await.problem(400, "malformed_request");
        assert_eq!(errors(&problem), expected(&[("/refresh_token", "missing")]), "{body}");
    }
    let again = async |body: Value| {
        let answer = app.post("auth/magic-link/verify/again").json(&body).await;
        errors(&answer.problem(400, "malformed_request"))
    };
    assert_eq!(again(json!({})).await, expected(&[("/token", "missing"), ("/email", "missing")]));
    let both = json!({"token": "x", "email": email("ada")});
    assert_eq!(again(both).await, expected(&[("/token", "invalid"), ("/email", "invalid")]));
    // Headers.
    for (path, header) in [
        (app.path("admin/users"), "Consistency-Token"),
        (app.path("admin/stats"), "Consistency-Token"),
        (app.path("auth/sessions"), "Idempotency-Key"),
    ] {
        let call = server.get(&path).bearer(&key).header(header, "\u{e9}");
        let problem = call.await.problem(400, "malformed_request");
        assert_eq!(errors(&problem), expected(&[(header, "invalid")]), "{path}");
    }
    let live =
        app.get("events").bearer(&key).header("accept", "text/event-stream").header("last-event-id", "x");
    assert_eq!(
        errors(&live.await.problem(400, "malformed_request")),
        expected(&[("Last-Event-ID", "invalid")])
    );
    // Clients.
    let introspect = |form: &[(&str, &str)]| app.post("auth/introspect").form(form);
    let problem =
        introspect(&[("token", "x"), ("client_secret", "y")]).await.problem(400, "malformed_request");
    assert_eq!(errors(&problem), expected(&[("/client_id", "missing")]));
    let twice = [("token", "x"), ("client_id", app.id.as_str()), ("client_secret", "y")];
    let problem = introspect(&twice).bearer(&key).await.problem(400, "malformed_request");
    assert_eq!(errors(&problem), expected(&[("/client_secret", "invalid")]));
    // What is no object has no members.
    for (body, code) in [("{", "invalid"), ("[]", "invalid_type"), ("null", "invalid_type"), ("", "missing")]
    {
        let login = app.post("auth/login").body("application/json", body.to_owned());
        assert_eq!(errors(&login.await.problem(400, "malformed_request")), expected(&[("", code)]), "{body}");
    }
}

/// Of each query in the document, all parameters that are no text.
#[tokio::test]
async fn every_query_names_all_that_is_wrong() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.expect(200).json();
    let app = server.create_app(json!({})).await;
    let user = app.register(&email("ada")).await;
    let organization = app.create_organization(&user.access, "Engines").await;
    let organization = organization["id"].as_str().expect("an id");
    let webhook = app.webhook("https://hooks.example/", &["user.*"]).await.0;
    let (mut queries, mut parameters) = (0, 0);
    for (path, item) in document["paths"].as_object().expect("paths") {
        let operation = &item["get"];
        let all = operation["parameters"].as_array().into_iter().flatten();
        let own: Vec<_> = all.filter(|parameter| parameter["in"] == "query").collect();
        if own.is_empty() || operation["responses"]["200"]["content"].get("application/json").is_none() {
            continue;
        }
        let is_text = |schema: &Value| {
            schema["type"] == "string" && schema["format"].is_null() && schema["enum"].is_null()
        };
        let typed = own.iter().filter(|parameter| !is_text(&parameter["schema"]));
        let mut named: BTreeSet<_> = typed.map(|it| it["name"].as_str().expect("a name")).collect();
        named.insert("colour");
        parameters += named.len();
        queries += 1;
        let query = named.iter().map(|name| format!("{name}=red")).collect::<Vec<_>>().join("&");
        let path = path.replace("{app_id}", &app.id).replace("{user_id}", &user.user_id);
        let path = path.replace("{org_id}", organization).replace("{webhook_id}", &webhook);
        assert!(!path.contains('{'), "give {path} an id here");
        let is_by_key = operation["security"].to_string().contains("api_key");
        let credential = if is_by_key { server.platform_key() } else { user.access.clone() };
        let answer = server.get(format!("{path}?{query}")).bearer(&credential).await;
        let problem = answer.problem(400, "malformed_request");
        let found: BTreeSet<_> = errors(&problem).into_iter().map(|(name, _)| name).collect();
        assert_eq!(found, named.into_iter().map(str::to_owned).collect(), "{path}");
    }
    println!("{parameters} parameters of {queries} queries");
    assert!(queries > 10 && parameters > 40, "the document has fewer than it had: {queries}, {parameters}");
}

#[tokio::test]
async fn every_wrong_parameter_of_a_query_is_named() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let key = server.platform_key();
    let list = |query: &str| app.get(&format!("admin/users?{query}")).bearer(&key);
    let problem = list("limit=x&email_verified=maybe&status=gone&colour=red&sort=a&sort=b")
        .await
        .problem(400, "malformed_request");
    let named = [
        ("limit", "invalid_type"),
        ("email_verified", "invalid_type"),
        ("status", "invalid"),
        ("colour", "unknown_parameter"),
        ("sort", "repeated"),
    ];
    assert_eq!(errors(&problem), expected(&named));
    let problem = list("limit=201&offset=10001&role=no%20role").await.problem(422, "validation_failed");
    let named = [("limit", "out_of_range"), ("offset", "out_of_range"), ("role", "invalid_role")];
    assert_eq!(errors(&problem), expected(&named));
    let audit = app.get("audit/events?ip=x&email=y&type=Z,Q&limit=0&after=-1").bearer(&key).await;
    let named = [
        ("ip", "invalid"),
        ("email", "invalid_email"),
        ("type", "unknown_type"),
        ("type", "unknown_type"),
        ("limit", "out_of_range"),
        ("after", "out_of_range"),
    ];
    assert_eq!(errors(&audit.problem(422, "validation_failed")), expected(&named));
    let times = app.get("audit/events?since=yesterday&until=31.12.2026").bearer(&key).await;
    let named = [("since", "invalid"), ("until", "invalid")];
    assert_eq!(errors(&times.problem(400, "malformed_request")), expected(&named));
    let keys = app.get("admin/api-keys?limit=0&offset=-1").bearer(&key).await;
    let named = [("limit", "out_of_range"), ("offset", "out_of_range")];
    assert_eq!(errors(&keys.problem(422, "validation_failed")), expected(&named));
}

#[tokio::test]
async fn what_libraries_send_in_queries_is_understood() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let key = server.platform_key();
    app.register(&email("ada")).await;
    let total = async |path: String| app.get(&path).bearer(&key).await.expect(200).json()["total"].clone();
    for (query, count) in [
        ("status=Active", 1),
        ("status=BANNED", 0),
        ("email_verified=False", 1),
        ("email_verified=TRUE", 0),
        ("sort=-Created_At", 1),
    ] {
        let path = format!("admin/users?{query}");
        until(&format!("the list has {count} with {query}"), async || total(path.clone()).await == count)
            .await;
    }
    let stats = async |query: &str| {
        let answer = app.get(&format!("admin/stats?{query}")).bearer(&key).await.expect(200).json();
        (answer["from"].clone(), answer["to"].clone(), answer["granularity"].clone())
    };
    let period = (json!("2026-01-31T00:00:00Z"), json!("2026-02-01T09:30:00Z"), json!("hour"));
    assert_eq!(stats("from=2026-01-31&to=2026-02-01T09:30:00&granularity=Hour").await, period);
    assert_eq!(stats("from=2026-01-31T00:00&to=2026-02-01T10:30:00%2B01:00&granularity=HOUR").await, period);
    assert_eq!(total("audit/events?since=2999-01-01&bom=True".to_owned()).await, 0);
    let body = json!({"name": "k", "permissions": ["users:read"], "expires_at": "2999-01-01"});
    let made = app.post("admin/api-keys").bearer(&key).json(&body).await.expect(201).json();
    assert_eq!(made["expires_at"], "2999-01-01T00:00:00Z", "{made}");
}

#[tokio::test]
async fn an_answer_is_bounded_and_repeats_no_secret() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let many: Map<String, Value> = (0..5_000).map(|n| (format!("m{n}"), json!(n))).collect();
    let problem = app.post("auth/login").json(&Value::Object(many)).await.problem(400, "malformed_request");
    assert_eq!(problem["errors"].as_array().map(Vec::len), Some(50));
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.ends_with("not listed")), "{problem}");
    for body in [
        json!({"email": "ada", "password": [PASSWORD]}),
        json!({"email": {"password": PASSWORD}, "password": 7}),
        json!([PASSWORD]),
        json!(PASSWORD),
    ] {
        for route in ["register", "login", "password/change"] {
            let answer = app.post(&format!("auth/{route}")).json(&body).await;
            assert!(answer.status >= 400 && !answer.text.contains(PASSWORD), "{route}: {}", answer.text);
        }
    }
    assert!(!server.log().contains(PASSWORD));
}
