//! `watchword users import` and `export`: files of other systems, what is cut off and goes on, and the way back.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Stdio;

use futures::future::join_all;
use serde_json::{Value, json};
use tests::{App, Server, email, of_type, until};

use crate::user_import_hashes::{HASHES, VIOLET};

/// Runs a command: whether it succeeded, what it printed, and what it told.
fn run(server: &Server, arguments: &[&str]) -> (bool, String, String) {
    let output = server.command(arguments).stdin(Stdio::null()).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

fn write(server: &Server, name: &str, content: &str) -> String {
    let path = server.data().with_file_name(name);
    std::fs::write(&path, content).expect("written");
    path.display().to_string()
}

async fn logs_in(app: &App<'_>, email: &str) {
    assert_eq!(app.login(email, VIOLET).await.status, 200, "{email}");
}

/// The costly hashes, which stand at the end of the list, are a few; the others are as many of each.
fn hash_of(n: usize) -> &'static str {
    let cheap = HASHES.len() - 2;
    if n % 1000 == 999 { HASHES[cheap + n / 1000 % 2] } else { HASHES[n % cheap] }
}

#[tokio::test]
async fn an_import_of_ten_thousand_that_is_killed_goes_on() {
    const PEOPLE: usize = 10_000;
    let mut server = Server::start_with(&[("WATCHWORD_ARGON2", "m=64,t=1,p=1")]).await;
    let id = server.create_app(json!({})).await.id.clone();
    let addresses: Vec<String> = (0..PEOPLE).map(|n| format!("person.{n}@example.org")).collect();
    let file = addresses.iter().enumerate().fold(String::new(), |mut text, (n, email)| {
        let line = json!({ "external_id": n.to_string(), "email": email, "email_verified": n % 2 == 0,
            "name": format!("Person {n}"), "password_hash": hash_of(n) });
        writeln!(text, "{line}").expect("text");
        text
    });
    let file = write(&server, "people.ndjson", &file);
    let base = server.base();
    let arguments = ["users", "import", &id, &file, "--url", &base, "--json"];

    let child = server.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.expect("it starts");
    let key = server.platform_key();
    until("some were imported", async || {
        let list = server.app(&id).get("admin/users?limit=1").bearer(&key).await;
        list.json()["total"].as_u64().expect("a number") > 2000
    })
    .await;
    server.kill();
    let output = child.wait_with_output().expect("it ends");
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("Run the command again"), "{told}");

    server.up().await;
    let before = of_type(&server.events().await, "UserRegistered").len() as u64;
    assert!((1..PEOPLE as u64).contains(&before), "{before}");
    let (is_done, printed, told) = run(&server, &arguments);
    assert!(is_done, "{printed}{told}");
    let report: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(report["lines"], PEOPLE);
    assert_eq!((report["skipped"].as_u64(), report["failed"].as_u64()), (Some(before), Some(0)), "{report}");

    let events = server.events().await;
    let registered = of_type(&events, "UserRegistered");
    let ids: BTreeSet<&str> =
        registered.iter().map(|event| event["subject"].as_str().expect("text")).collect();
    assert_eq!((registered.len(), ids.len()), (PEOPLE, PEOPLE), "each once");
    let app = server.app(&id);
    for some in addresses.chunks(16) {
        join_all(some.iter().map(|email| logs_in(&app, email))).await;
    }
    let rehashed = of_type(&server.events().await, "PasswordRehashed").len();
    assert_eq!(rehashed, PEOPLE, "each hash is replaced at the first login");
}

#[tokio::test]
async fn what_is_exported_can_be_imported() {
    let (mut one, mut other) = (Server::start().await, Server::start().await);
    let (app, key) = (one.create_app(json!({})).await, one.platform_key());
    let id = app.id.clone();
    let (ada, ours) = (email("ada"), email("ours"));
    app.register(&ours).await;
    let mut people = format!(
        "{}\n",
        json!({ "email": ada, "email_verified": true, "name": "Ada", "phone": "+44 1", "external_id": "7",
            "avatar_url": "https://app.example.com/ada.png", "roles": ["editor", "reader"], "banned": true,
            "created_at": "2019-03-01T12:00:00.123456Z" })
    );
    for hash in HASHES {
        let person = json!({ "email": email("somebody"), "email_verified": false, "password_hash": hash });
        writeln!(people, "{person}").expect("text");
    }
    let erased = app.register(&email("erased")).await.user_id;
    app.delete(&format!("admin/users/{erased}")).bearer(&key).await.expect(200);
    let file = write(&one, "people.ndjson", &people);
    let (is_done, printed, told) = run(&one, &["users", "import", &id, &file, "--url", &one.base()]);
    assert!(is_done && printed.is_empty(), "{printed}{told}");
    assert!(
        told.contains(&format!("{} imported, 0 were there already, 0 are wrong", HASHES.len() + 1)),
        "{told}"
    );
    let last = of_type(&one.events().await, "UserRegistered").len();
    assert_eq!(last, HASHES.len() + 3);

    // A server has the files of its journal to itself.
    let (is_done, ..) = run(&one, &["users", "export", &id]);
    assert!(!is_done);
    assert!(one.terminate().await.success());
    let sorted = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let export = |server: &Server, app: &str, arguments: &[&str]| {
        let (is_done, printed, told) = run(server, &[&["users", "export", app], arguments].concat());
        assert!(is_done, "{told}");
        (sorted(&printed), printed)
    };
    let (with_hashes, text) = export(&one, &id, &["--with-hashes"]);
    assert_eq!(with_hashes.len(), HASHES.len() + 2, "nobody who was erased");
    for hash in HASHES {
        assert!(text.contains(hash), "{hash}");
    }
    let (without, text) = export(&one, &id, &[]);
    assert!(without.len() == with_hashes.len() && !text.contains("password_hash"));
    let line = without.iter().find(|line| line.contains(&ada)).expect("a line");
    let line: Value = serde_json::from_str(line).expect("JSON");
    for (name, value) in [
        ("external_id", json!("7")),
        ("created_at", json!("2019-03-01T12:00:00.123456Z")),
        ("roles", json!(["editor", "reader"])),
        ("banned", json!(true)),
    ] {
        assert_eq!(line[name], value, "{name}");
    }

    // Into another instance, with nobody serving it, and out again.
    let moved = other.create_app(json!({})).await.id.clone();
    assert!(other.terminate().await.success());
    let file = write(&other, "people.ndjson", &with_hashes.iter().cloned().collect::<Vec<_>>().join("\n"));
    let (is_done, printed, told) = run(&other, &["users", "import", &moved, &file]);
    assert!(is_done, "{printed}{told}");
    assert_eq!(export(&other, &moved, &["--with-hashes"]).0, with_hashes);
    other.up().await;
    other.app(&moved).login(&ours, tests::PASSWORD).await.expect(200);
    one.up().await;
    let exported = one.events().await;
    let forms: Vec<&Value> =
        of_type(&exported, "HistoryExported").iter().map(|event| &event["data"]["form"]).collect();
    assert_eq!(forms, [&json!("users_with_hashes"), &json!("users")], "who has a copy is on record");
}

#[tokio::test]
async fn a_file_of_another_system_is_imported_as_it_is() {
    let server = Server::start().await;
    let (app, key) = (server.create_app(json!({})).await, server.platform_key());
    let base = server.base();
    let signer_key =
        "jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA==";
    let config = format!(
        "hash_config {{\n  algorithm: SCRYPT,\n  base64_signer_key: {signer_key},\n  base64_salt_separator: Bw==,\n  rounds: 8,\n  mem_cost: 14,\n}}\n"
    );
    let config = write(&server, "firebase.txt", &config);
    #[cfg(unix)]
    std::fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("owned");
    let (ada, twice) = (email("ada"), email("twice"));
    let users = json!({ "users": [
        {
            "localId": "1", "email": ada, "emailVerified": true, "displayName": "Ada Lovelace",
            "passwordHash": "lSrfV15cpx95_sZS2W9c9Kp6i_LVgQNDNC_qzrCnh1SAyZvqmZqAjTdn3aoItz-VHjoZilo78198JAdRuid5lQ==",
            "salt": "42xEC-ixf3L2lw==", "createdAt": "1551441600000",
            "providerUserInfo": [{ "providerId": "password" }, { "providerId": "google.com" }],
        },
        { "localId": "2", "email": twice, "emailVerified": false },
        { "localId": "3", "emailVerified": false, "phoneNumber": "+442079460000" },
        { "localId": "4", "email": twice.to_uppercase(), "emailVerified": false },
        { "localId": "5", "email": "no address", "emailVerified": false },
    ]});
    let file = write(&server, "users.json", &users.to_string());
    let with = |more: &[&str]| {
        let arguments = ["users", "import", &app.id, &file, "--format", "firebase", "--url", &base];
        run(&server, &[&arguments[..], more].concat())
    };
    let (is_done, printed, told) = with(&["--firebase-hash-config", &config, "--dry-run"]);
    assert!(!is_done, "some are wrong");
    assert_eq!(
        printed.lines().collect::<Vec<_>>(),
        [
            "line 3: the account has no address (missing)",
            "line 4 /email: line 2 has the same (repeated)",
            "line 5 /email: not a valid email address (invalid_email)",
        ]
    );
    assert!(told.contains("5 entries: 2 to import, 0 were there already, 3 are wrong"), "{told}");
    assert!(told.contains("left out 1 identities"), "{told}");
    assert_eq!(of_type(&server.events().await, "UserRegistered").len(), 0);

    // Without the parameters of the project, the hash says nothing.
    let (_, printed, _) = with(&["--dry-run"]);
    assert!(printed.contains("line 1 /password_hash/algorithm"), "{printed}");
    let (_, printed, told) = with(&["--firebase-hash-config", &config, "--json"]);
    let report: Value = serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{printed}{told}"));
    assert_eq!(
        (&report["imported"], &report["failed"], &report["left_out"]),
        (&json!(2), &json!(3), &json!(1))
    );
    app.login(&ada, "user1password").await.expect(200);
    let found = app.get(&format!("admin/users?query={ada}")).bearer(&key).await.expect(200).json();
    assert_eq!(found["items"][0]["created_at"], "2019-03-01T12:00:00Z");

    let (is_done, _, told) = run(&server, &["users", "import", "absent", &file, "--url", &base]);
    assert!(!is_done && told.contains("not_found"), "{told}");
    let (is_done, _, told) = run(&server, &["users", "import", &app.id, "/nowhere", "--url", &base]);
    assert!(!is_done && told.contains("/nowhere"), "{told}");
    let broken = write(&server, "broken.json", "{\"users\": [{\"email\": ");
    let (is_done, _, told) =
        run(&server, &["users", "import", &app.id, &broken, "--format", "firebase", "--url", &base]);
    assert!(!is_done && told.contains("broken.json"), "{told}");
}
