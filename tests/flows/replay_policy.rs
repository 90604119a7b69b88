//! The history decided again under another lockout policy.

use serde_json::{Value, json};
use tests::{PASSWORD, Server, email};

/// What the command says, on standard output and on the terminal.
fn replay(server: &Server, arguments: &[&str]) -> (Option<i32>, String, String) {
    let arguments = [&["replay-policy"], arguments].concat();
    let output = server.command(&arguments).output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn it_differs_nowhere_under_the_policy_in_force_and_where_another_would_have_locked() {
    let policy = [("WATCHWORD_LOCKOUT_FAILURES", "3")];
    let mut server = Server::start_with(&policy).await;
    let (address, other) = (email("ada"), email("grace"));
    let (ada, app) = {
        let app = server.create_app(json!({})).await;
        let ada = app.register(&address).await;
        app.register(&other).await;
        app.login(&address, "a wrong guess").await.expect_refusal();
        app.login(&address, "another").await.expect_refusal();
        app.login(&address, PASSWORD).await.expect(200);
        for _ in 0..3 {
            app.login(&other, "a wrong guess").await.expect_refusal();
        }
        (ada, app.id)
    };
    let events = server.events().await;
    server.terminate().await;

    let (code, found, told) = replay(&server, &["--lockout", "attempts=3,window=900"]);
    assert_eq!((code, found.as_str()), (Some(0), ""), "{told}");
    assert!(told.contains("6 attempts decided again: 0 would have gone another way"), "{told}");

    let (code, found, told) = replay(&server, &["--lockout", "attempts=2", "--app", &app]);
    assert_eq!((code, found.lines().count()), (Some(0), 4), "{found}{told}");
    let (_, found, _) = replay(&server, &["--lockout", "attempts=2", "--json"]);
    let found: Value = serde_json::from_str(&found).expect("JSON");
    let differences = found["differences"].as_array().expect("a list");
    let kinds: Vec<_> = differences.iter().map(|it| it["difference"].as_str().expect("text")).collect();
    assert_eq!(kinds, ["locked", "login_refused", "locked", "guess_refused"]);
    assert_eq!((&differences[1]["user_id"], &differences[1]["app_id"]), (&json!(ada.user_id), &json!(app)));
    assert_eq!(found["policy"]["failures"], 2);

    let middle = differences[1]["position"].to_string();
    let (_, found, _) = replay(&server, &["--lockout", "attempts=2", "--until", &middle]);
    assert_eq!(found.lines().count(), 2, "{found}");
    let (_, found, _) = replay(&server, &["--lockout", "attempts=9,window=60", "--from", &middle]);
    assert!(found.contains("would not have locked"), "{found}");
    assert_eq!(found.lines().count(), 1, "{found}");

    for (arguments, code, why) in [
        (&["--mfa", "required"][..], 1, "no second factors"),
        (&["--lockout", "tries=3"], 2, "attempts"),
        (&["--lockout", "attempts=0"], 2, "attempts=5"),
        (&["--lockout", "attempts=3", "--until", "99999"], 1, "--until"),
        (&[], 2, "--lockout"),
    ] {
        let (found, _, told) = replay(&server, arguments);
        assert_eq!(found, Some(code), "{arguments:?}: {told}");
        assert!(told.contains(why), "{arguments:?}: {told}");
    }

    // It has written nothing. Mails may have gone out before the end, or after the start.
    server.up().await;
    let without_mails = |events: Vec<Value>| -> Vec<Value> {
        events
            .into_iter()
            .filter(|event| event["type"] != "MailSent")
            .map(|event| event["id"].clone())
            .collect()
    };
    assert_eq!(without_mails(server.events().await), without_mails(events));
}
