//! Users in bulk: what is imported, by whom, and what a list can not do.

use std::fmt::Write as _;

use serde_json::{Value, json};
use tests::{Answer, App, Server, email, of_type, until};

use crate::user_import_hashes::{HASHES, VIOLET};

const NDJSON: &str = "application/x-ndjson";

/// Sends lines, and waits for the end of the import.
async fn import(app: &App<'_>, bearer: &str, query: &str, body: impl Into<reqwest::Body>) -> Value {
    let begun = app.post(&format!("admin/users/import{query}")).bearer(bearer).body(NDJSON, body).await;
    ended(app, bearer, &begun.expect(202)).await
}

async fn ended(app: &App<'_>, bearer: &str, begun: &Answer) -> Value {
    let path = format!("admin/users/import/{}", begun.json()["import_id"].as_str().expect("an id"));
    let mut last = Value::Null;
    until("the import has ended", async || {
        last = app.get(&path).bearer(bearer).await.expect(200).json();
        last["state"] != "running"
    })
    .await;
    last
}

fn counts(import: &Value) -> [u64; 4] {
    ["lines", "imported", "skipped", "failed"].map(|name| import[name].as_u64().expect("a number"))
}

fn lines(people: &[Value]) -> String {
    people.iter().fold(String::new(), |mut text, person| {
        writeln!(text, "{person}").expect("text");
        text
    })
}

#[tokio::test]
async fn people_keep_their_accounts_and_passwords() {
    let server = Server::start().await;
    let (app, key) = (server.create_app(json!({})).await, server.platform_key());
    let (ada, grace, alan, boss) = (email("ada"), email("grace"), email("alan"), email("boss"));
    let people = [
        json!({ "email": ada, "email_verified": true, "name": "Ada Lovelace", "phone": "+44 20 7946 0000",
            "avatar_url": "https://app.example.com/ada.png", "roles": ["editor"], "created_at": "2019-03-01T12:00:00Z",
            "external_id": "auth0|1", "password_hash": "{SSHA}phUNY9SCQBZmysPjF/e+NgGKe0055xzD" }),
        json!({ "email": grace, "email_verified": false,
            "password_hash": { "algorithm": "bcrypt", "hash": "$2b$04$/8ydrnCvsfiPB1yL/GvSZ.lmrhaBM30HFrK3U.msbXqcfZS4MzWHa" } }),
        json!({ "email": alan, "email_verified": true, "banned": true,
            "password_hash": "{SSHA}phUNY9SCQBZmysPjF/e+NgGKe0055xzD" }),
        json!({ "email": boss, "email_verified": true, "roles": ["admin"],
            "password_hash": "{SSHA}phUNY9SCQBZmysPjF/e+NgGKe0055xzD" }),
    ];
    let dry = import(&app, &key, "?dry_run=true", lines(&people)).await;
    assert_eq!((counts(&dry), &dry["dry_run"]), ([4, 4, 0, 0], &json!(true)));
    let head = server.events().await.len();
    let done = import(&app, &key, "", lines(&people)).await;
    assert_eq!((counts(&done), &done["errors"]), ([4, 4, 0, 0], &json!([])), "{done}");
    assert_eq!(done["admins"], 1, "an admin is named as one");
    assert!(done["opens"].as_str().expect("what that opens").contains("admin routes"));

    // Who were they, and what happened.
    let events = server.events().await[head..].to_vec();
    let registered = of_type(&events, "UserRegistered");
    assert!(registered.len() == 4 && registered.iter().all(|event| event["data"]["method"] == "import"));
    let verified = of_type(&events, "EmailVerified");
    assert!(verified.len() == 3 && verified.iter().all(|event| event["data"]["proof"] == "import"));
    assert_eq!((of_type(&events, "RoleGranted").len(), of_type(&events, "UserBanned").len()), (2, 1));
    let text = serde_json::to_string(&events).expect("JSON");
    for sealed in [&ada, "SSHA", "auth0|1", "Lovelace"] {
        assert!(!text.contains(sealed), "{sealed}");
    }
    let user = app.login(&ada, VIOLET).await.expect(200).json()["user"].clone();
    for (name, value) in [
        ("name", json!("Ada Lovelace")),
        ("email_verified", json!(true)),
        ("roles", json!(["editor"])),
        ("created_at", json!("2019-03-01T12:00:00Z")),
    ] {
        assert_eq!(user[name], value, "{name}");
    }
    let user = app.login(&grace, VIOLET).await.expect(200).json()["user"].clone();
    assert_eq!(user["email_verified"], false);
    app.login(&alan, VIOLET).await.problem(403, "user_banned");
    app.login(&alan, "other").await.problem(401, "invalid_credentials");
    // An admin's password may be known to whoever imported it.
    app.login(&boss, VIOLET).await.problem(401, "invalid_credentials");
    let listed = app.get(&format!("admin/users?query={ada}")).bearer(&key).await.expect(200).json();
    assert_eq!(listed["items"][0]["created_at"], "2019-03-01T12:00:00Z", "{listed}");

    // Once more: nobody twice, whatever became of them.
    let id = user["id"].as_str().expect("an id");
    app.delete(&format!("admin/users/{id}")).bearer(&key).await.expect(200);
    let again = import(&app, &key, "", lines(&people)).await;
    assert_eq!(counts(&again), [4, 0, 3, 1]);
    let error = &again["errors"][0];
    assert_eq!(
        (&error["line"], &error["pointer"], &error["code"]),
        (&json!(2), &json!(""), &json!("invalid"))
    );
    assert!(error["detail"].as_str().expect("text").contains("erased"), "{error}");
    let dry = import(&app, &key, "?dry_run=true", lines(&people)).await;
    assert_eq!(counts(&dry), [4, 0, 3, 1]);
    assert_eq!(of_type(&server.events().await, "UserRegistered").len(), 4);
}

#[tokio::test]
async fn every_hash_is_of_the_old_password_and_is_replaced() {
    let server = Server::start().await;
    let (app, key) = (server.create_app(json!({})).await, server.platform_key());
    let people: Vec<(String, &str)> = HASHES.iter().map(|hash| (email("ada"), *hash)).collect();
    let body: Vec<Value> = people
        .iter()
        .map(|(email, hash)| json!({ "email": email, "email_verified": true, "password_hash": hash }))
        .collect();
    let done = import(&app, &key, "", lines(&body)).await;
    assert_eq!(counts(&done), [HASHES.len() as u64, HASHES.len() as u64, 0, 0], "{done}");
    for (email, hash) in &people {
        app.login(email, "violet-Kettle-94").await.problem(401, "invalid_credentials");
        assert_eq!(app.login(email, VIOLET).await.status, 200, "{hash}");
        app.login(email, VIOLET).await.expect(200);
    }
    assert_eq!(of_type(&server.events().await, "PasswordRehashed").len(), HASHES.len());
}

#[tokio::test]
async fn a_hostile_list_is_reported_line_by_line_and_harms_nothing() {
    let server = Server::start().await;
    let (app, key) = (server.create_app(json!({})).await, server.platform_key());
    let taken = email("taken");
    app.register(&taken).await;
    let good = |name: &str| json!({ "email": email(name), "email_verified": true }).to_string().into_bytes();
    let with = |member: &str, value: Value| {
        let mut line = json!({ "email": email("x"), "email_verified": true });
        line[member] = value;
        line.to_string().into_bytes()
    };
    let twice = good("twice");
    let bomb = |hash: &str| with("password_hash", json!(hash));
    let rest = "S3sNRDr/yu8i3yFLiQwuDQ$fG/BKOW5LT8TcMRxta/UYey/9PItEc9+gh6PlWEcaH8";
    let wrong: Vec<(Vec<u8>, &str, &str)> = vec![
        (b"{\"email\": \"a\xff@example.org\", \"email_verified\": true}".to_vec(), "", "invalid"),
        (vec![b'x'; 10 << 20], "", "too_long"),
        ("[".repeat(65_000).into_bytes(), "", "invalid"),
        (b"\0\0\0".to_vec(), "", "invalid"),
        (twice.clone(), "/email", "repeated"),
        (json!({ "email": taken, "email_verified": true }).to_string().into_bytes(), "/email", "email_taken"),
        (with("admin", json!(true)), "/admin", "unknown_member"),
        (with("__proto__", json!({})), "/__proto__", "unknown_member"),
        (with("name", json!("\u{202e}nimda")), "/name", "invalid"),
        (with("roles", json!(["admin\n"])), "/roles/0", "invalid"),
        (with("created_at", json!("9999-12-31T23:59:59Z")), "/created_at", "out_of_range"),
        (with("id", json!("ffffffff-ffff-7fff-bfff-ffffffffffff")), "/id", "invalid"),
        (with("orgs", json!([{ "slug": "acme", "role": "owner" }])), "/orgs/0/slug", "invalid"),
        (
            bomb(&format!("$argon2id$v=19$m=4294967295,t=4294967295,p=1${rest}")),
            "/password_hash",
            "out_of_range",
        ),
        (bomb(&format!("$scrypt$ln=31,r=8,p=1${rest}")), "/password_hash", "out_of_range"),
        (bomb(&format!("$pbkdf2-sha256$i=4294967295${rest}")), "/password_hash", "out_of_range"),
        (
            bomb("$2b$31$/8ydrnCvsfiPB1yL/GvSZ.lmrhaBM30HFrK3U.msbXqcfZS4MzWHa"),
            "/password_hash",
            "out_of_range",
        ),
        (
            bomb("$5$rounds=999999999$9e1WTMbZRHkbRKud$.GVL2zL61I3xDvwqsioRN4/jRMzQI8qk9gDWXHya9P8"),
            "/password_hash",
            "out_of_range",
        ),
        (
            json!({ "email": email("x"), "email_verified": false, "roles": ["admin"] })
                .to_string()
                .into_bytes(),
            "/roles/0",
            "email_not_verified",
        ),
    ];
    let mut body = [&twice[..], b"\n"].concat();
    for (line, ..) in &wrong {
        body.extend(line);
        body.push(b'\n');
    }
    body.extend(good("last"));
    let begun = std::time::Instant::now();
    let done = import(&app, &key, "", body).await;
    assert_eq!(counts(&done), [wrong.len() as u64 + 2, 2, 0, wrong.len() as u64], "{done}");
    let errors = done["errors"].as_array().expect("a list");
    for ((line, pointer, code), (number, error)) in wrong.iter().zip((2_u64..).zip(errors)) {
        let line = String::from_utf8_lossy(&line[..line.len().min(200)]);
        assert_eq!(
            (&error["line"], &error["pointer"], &error["code"]),
            (&json!(number), &json!(pointer), &json!(code)),
            "{line}: {error}"
        );
        let detail = error["detail"].as_str().expect("text");
        assert!(!detail.contains("example.org") && !detail.contains("line 1 column"), "{detail}");
    }
    assert!(begun.elapsed().as_secs() < 60, "no bomb went off");
    assert_eq!(errors.len(), wrong.len());
    assert_eq!(of_type(&server.events().await, "UserRegistered").len(), 3);

    // What is no list at all is refused as such.
    let call = || app.post("admin/users/import").bearer(&key);
    call().body(NDJSON, vec![b'\n'; (16 << 20) + 1]).await.problem(413, "payload_too_large");
    call().json(&json!({})).await.problem(415, "unsupported_media_type");
    let gzip = call().header("content-encoding", "gzip").body(NDJSON, "x").await;
    gzip.problem(415, "unsupported_content_encoding");
    app.post("admin/users/import?x=1").bearer(&key).body(NDJSON, "").await.problem(400, "malformed_request");
    assert_eq!(counts(&import(&app, &key, "", "").await), [0; 4]);
}

#[tokio::test]
async fn people_come_into_organizations_that_are_there() {
    let server = Server::start().await;
    let (app, key) = (server.create_app(json!({})).await, server.platform_key());
    let owner = app.register(&email("owner")).await;
    let org = app.create_organization(&owner.access, "Engines").await;
    let other_app = server.create_app(json!({})).await;
    let stranger = other_app.register(&email("stranger")).await;
    other_app.create_organization(&stranger.access, "Looms").await;
    let member = |name: &str, slug: &str, role: &str| {
        json!({ "email": email(name), "email_verified": true, "orgs": [{ "slug": slug, "role": role }],
            "password_hash": "{SSHA}phUNY9SCQBZmysPjF/e+NgGKe0055xzD" })
    };
    let mut people: Vec<Value> = (0..40).map(|_| member("ada", "engines", "member")).collect();
    people.push(member("grace", "engines", "owner"));
    // Nobody is imported without the memberships of the line.
    let wrong = [
        (member("x", "looms", "member"), "/orgs/0/slug"),
        (member("x", "absent", "member"), "/orgs/0/slug"),
        (member("x", "engines", "no-such-role"), "/orgs/0/role"),
    ];
    people.extend(wrong.iter().map(|(line, _)| line.clone()));
    for (query, imported) in [("?dry_run=true", 41), ("", 41)] {
        let done = import(&app, &key, query, lines(&people)).await;
        assert_eq!(counts(&done), [44, imported, 0, 3], "{done}");
        let errors = done["errors"].as_array().expect("a list");
        let told: Vec<_> = errors.iter().map(|it| (it["line"].as_u64(), it["pointer"].as_str())).collect();
        let expected: Vec<_> =
            wrong.iter().zip(42..).map(|((_, pointer), line)| (Some(line), Some(*pointer))).collect();
        assert_eq!(told, expected);
    }
    assert_eq!(of_type(&server.events().await, "OrganizationJoined").len(), 43);
    let path = format!("orgs/{}", org["id"].as_str().expect("an id"));
    let shown = app.get(&path).bearer(&owner.access).await.expect(200).json();
    assert_eq!(shown["member_count"], 42);
    let of = |line: &Value| line["email"].as_str().expect("an address").to_owned();
    let grace = app.login(&of(&people[40]), VIOLET).await.expect(200).tokens();
    assert_eq!(app.me(&grace.access).await.expect(200).json()["orgs"][0]["role"], "owner");

    // Who has left since does not come back with the same list.
    let left = app.login(&of(&people[0]), VIOLET).await.expect(200).tokens();
    let membership = format!("{path}/members/{}", left.user_id);
    app.delete(&membership).bearer(&left.access).await.expect(204);
    let again = import(&app, &key, "", lines(&people[..41])).await;
    assert_eq!(counts(&again), [41, 0, 41, 0]);
    app.get(&path).bearer(&left.access).await.problem(404, "not_found");
}

#[tokio::test]
async fn only_a_full_admin_imports_and_sees_imports() {
    let server = Server::start().await;
    let (app, other) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    let admin = app.register_admin(&email("admin")).await;
    let stranger = other.register_admin(&email("admin")).await;
    let (_, limited) = app.api_key(&["users:read", "users:write", "settings:write", "keys:write"]).await;
    let line = json!({ "email": email("ada"), "email_verified": true }).to_string();
    let send = |bearer: &str| app.post("admin/users/import").bearer(bearer).body(NDJSON, line.clone());
    send(&limited).await.problem(403, "forbidden");
    send(&stranger.access).await.expect(401);
    // A caller without the right does not send 16 MiB first.
    let large = app.post("admin/users/import").bearer(&limited).body(NDJSON, vec![b'x'; 1 << 20]);
    large.await.problem(403, "forbidden");

    let key = server.platform_key();
    let begun = send(&admin.access).header("idempotency-key", "one").await.expect(202);
    let done = ended(&app, &admin.access, &begun).await;
    assert_eq!(counts(&done), [1, 1, 0, 0]);
    let again = send(&admin.access).header("idempotency-key", "one").await.expect(202);
    assert_eq!(again.json(), begun.json());
    let another = app.post("admin/users/import").bearer(&admin.access).header("idempotency-key", "one");
    another.body(NDJSON, "{}").await.problem(422, "idempotency_key_reused");

    let id = begun.json()["import_id"].as_str().expect("an id").to_owned();
    let path = format!("admin/users/import/{id}");
    app.get(&path).bearer(&key).await.expect(200);
    app.get(&path).bearer(&limited).await.problem(403, "forbidden");
    other.get(&path).bearer(&stranger.access).await.problem(404, "not_found");
    let registered = server.events().await;
    let imported = registered.iter().find(|event| event["data"]["method"] == "import").expect("an event");
    assert_eq!((&imported["actorkind"], &imported["actorid"]), (&json!("user"), &json!(admin.user_id)));
}
