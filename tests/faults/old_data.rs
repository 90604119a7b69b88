//! Data of older versions, as their processes left it when they were killed, with what clients could see: this version
//! opens it, and that neither locks anybody out nor lets anybody in. `old_data/make.py` makes the archives.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use test_services::Postgres;
use tests::workload::History;
use tests::{Bus, PASSWORD, Server, checker, workspace};

use crate::SETTINGS;

/// The age of an archive when it is opened, by the server's clock: locks have expired, nothing else has.
const LATER: Duration = Duration::from_mins(2);

pub fn unpack(name: &str, folder: &Path) {
    let archive = workspace().join("tests/faults/old_data").join(name);
    let unpacked = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder).status();
    assert!(unpacked.expect("tar runs").success());
}

pub fn expected(folder: &Path) -> Value {
    let text = fs::read_to_string(folder.join("expected.json")).expect("it is in the archive");
    serde_json::from_str(&text).expect("it is JSON")
}

fn in_present_envelope(mut event: Value, origin: &str) -> Value {
    let members = event.as_object_mut().expect("an object");
    let actor = members.remove("actor").expect("it had one");
    members.insert("actorkind".to_owned(), actor["kind"].clone());
    if actor["id"].is_string() {
        members.insert("actorid".to_owned(), actor["id"].clone());
    }
    let schema = format!("{origin}{}", members["dataschema"].as_str().expect("text"));
    members.insert("dataschema".to_owned(), schema.into());
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_version_0_1() {
    let mut server = Server::new(&SETTINGS);
    let folder = server.data().parent().expect("it is in a folder").to_owned();
    unpack("2026-11-28.sqlite.tar.gz", &folder);
    opens(&mut server, &expected(&folder)).await;
}

/// Restores the database of version 0.1 into this one, and what a node needs into its folder.
pub fn restore(server: &mut Server, database: &str, folder: &Path) -> Value {
    let postgres = Postgres::shared();
    unpack("2026-11-28.postgres.tar.gz", folder);
    let expected = expected(folder);
    postgres.psql(
        database,
        "DO $$ BEGIN CREATE ROLE watchword_service; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$",
    );
    postgres.restore(database, &folder.join("dump.sql"));
    server.set_environment("WATCHWORD_MASTER_KEY", text(&expected["master_key"]));
    fs::create_dir_all(server.data()).expect("it can be made");
    // A server writes the key only for a new journal.
    let key = server.data().join("admin.key");
    fs::write(&key, text(&expected["platform_key"])).expect("it can be written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("it is ours");
    expected
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_version_0_1() {
    let database = Postgres::shared().database();
    let mut server = Server::new(&[&SETTINGS[..], &[("WATCHWORD_JOURNAL_URL", database.as_str())]].concat());
    let folder = server.data().parent().expect("it is in a folder").to_owned();
    let expected = restore(&mut server, &database, &folder);
    let migrated = server.command(&["migrate"]).output().expect("the binary runs");
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    opens(&mut server, &expected).await;
}

#[expect(clippy::disallowed_methods, reason = "the server's clock is set relative to the machine's")]
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970")
}

/// Starts the server on what an older version left, with the clock of that time, and checks everything that must still
/// hold.
async fn opens(server: &mut Server, expected: &Value) {
    let then = Duration::from_secs(expected["made_at"].as_u64().expect("seconds")) + LATER;
    let off = i128::from(then.as_secs()) - i128::from(now().as_secs());
    server.set_environment("FAILPOINTS", &format!("clock=return({off}s)"));
    server.up().await;
    let key = server.platform_key();
    assert_eq!(key, text(&expected["platform_key"]));

    let events = server.events().await;
    for (event, then) in events.iter().zip(list(&expected["events"])) {
        for (name, value) in then.as_object().expect("an event") {
            assert_eq!(&event[name], value, "{name} of {event}");
        }
    }
    assert!(events.len() >= list(&expected["events"]).len(), "the log as it was");

    for (id, settings) in expected["settings"].as_object().expect("settings by app") {
        let app = server.get(format!("/v1/apps/{id}")).bearer(&key).await.expect(200).json();
        for (name, value) in settings.as_object().expect("settings") {
            assert_eq!(&app["settings"][name], value, "{name} of {id}");
        }
    }
    let jwks = server.get("/v1/apps/acme/.well-known/jwks.json").await.expect(200).json();
    for id in list(&expected["key_ids"]) {
        assert!(list(&jwks["keys"]).iter().any(|key| key["kid"] == *id), "{id} is not among {jwks}");
    }
    for api_key in list(&expected["api_keys"]) {
        let status = u16::try_from(api_key["status"].as_u64().expect("a status")).expect("a status");
        server.get("/v1/apps/acme/admin/users").bearer(text(&api_key["key"])).await.expect(status);
    }

    let app = server.default_app();
    for token in list(&expected["ended"]) {
        app.refresh(text(token)).await.expect_refusal();
    }
    for token in list(&expected["live"]) {
        let next = app.refresh(text(token)).await.expect(200).tokens();
        app.me(&next.access).await.expect(200);
    }
    for user in list(&expected["users"]) {
        let app = server.app(text(&user["app"]));
        let answer = app.login(text(&user["email"]), PASSWORD).await;
        if let Some(code) = user["code"].as_str() {
            let status = u16::try_from(user["login"].as_u64().expect("a status")).expect("a status");
            answer.problem(status, code);
            continue;
        }
        let tokens = answer.expect(200).tokens();
        let me = app.me(&tokens.access).await.expect(200).json();
        for (name, value) in user["of_user"].as_object().expect("members") {
            assert_eq!(&me[name], value, "{name} of {me}");
        }
        let again = json!({"email": user["email"], "password": PASSWORD});
        app.post("auth/register").json(&again).await.problem(409, "email_taken");
    }

    // Tokens mailed before still work, once.
    let mailed = |what: &str| text(&expected["mailed"][what]).to_owned();
    let (reset, link, verification) =
        (mailed("password_reset"), mailed("magic_link"), mailed("email_verification"));
    for status in [204, 400] {
        let body = json!({"token": reset, "new_password": "amber-Lantern-41-meadow"});
        app.post("auth/password-reset/confirm").json(&body).await.expect(status);
    }
    app.post("auth/email-verification/confirm").json(&json!({"token": verification})).await.expect(200);
    for status in [303, 400] {
        app.post("auth/magic-link/verify").json(&json!({"token": link})).await.expect(status);
    }

    // With the machine's clock, which is also the database's.
    let doctor = server.command(&["doctor"]).env_remove("FAILPOINTS").output().expect("the binary runs");
    assert!(doctor.status.success(), "{}", String::from_utf8_lossy(&doctor.stdout));
    // And again, now that everything is of this version.
    assert!(server.terminate().await.success());
    server.up().await;
    assert!(server.events().await.len() > events.len());
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a string"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is not a list"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_before_version_0_1() {
    let bus = Bus::start();
    let url = bus.url();
    let mut server = Server::new(&[&SETTINGS[..], &[("WATCHWORD_NATS_URL", url.as_str())]].concat());
    let folder = server.data().parent().expect("it is in a folder").to_owned();
    unpack("2026-11.tar.gz", &folder);
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("it is in the archive");
    let then: Vec<Value> = serde_json::from_str(&read("events.json")).expect("it is a list");

    server.up().await;
    // The envelope was different then: a relative schema address, and an actor of two parts.
    let then: Vec<Value> = then.into_iter().map(|event| in_present_envelope(event, &server.base())).collect();
    assert_eq!(server.events().await[..then.len()], then, "the log as it was");
    let created = server.events().await;
    let created: Vec<&Value> = tests::of_type(&created, "JournalCreated");
    assert_eq!(created.len(), 1, "the first start by a version that knows of it wrote it");
    assert_eq!(created[0]["position"], then.len() + 1);
    let app = server.default_app();
    let ada = app.login("ada@example.org", PASSWORD).await.expect(200).tokens();
    let me = app.me(&ada.access).await.expect(200).json();
    assert_eq!((&me["name"], &me["roles"][0]), (&"Ada Lovelace".into(), &"admin".into()));
    app.login("eve@example.org", PASSWORD).await.problem(403, "user_banned");
    app.refresh(&read("ended")).await.expect_refusal();
    let body = json!({"email": "grace@example.org", "password": PASSWORD});
    app.post("auth/register").json(&body).await.problem(409, "email_taken");

    let mut history = History::new(&server).await;
    history.during(&[&server], async |load| load.done(60).await).await;
    assert!(history.all_were_answered());
    checker::check(&mut server, Some(&bus), &history).await;
}
