//! The services run, restart with their data, and leave nothing behind.

use test_services::{Browser, Nats, Postgres, Scripts};

#[test]
fn postgres_restarts_after_a_crash() {
    let mut server = Postgres::start();
    let (one, two) = (server.database(), server.database());
    assert_eq!(server.psql(&one, "CREATE TABLE t AS SELECT 7 AS x; SHOW fsync"), "on\n");
    assert_eq!(server.psql(&two, "SELECT to_regclass('t') IS NULL"), "t\n");
    server.crash();
    server.up();
    server.stop();
    server.up();
    assert_eq!(server.psql(&one, "SELECT x FROM t"), "7\n");
    let folder = server.data();
    assert!(folder.exists());
    drop(server);
    assert!(!folder.exists());
}

#[test]
fn nats_restarts_after_a_kill() {
    let mut server = Nats::start();
    server.kill();
    server.up();
    assert!(server.log().contains("JetStream"), "{}", server.log());
    let folder = server.store().to_owned();
    assert!(folder.exists());
    drop(server);
    assert!(!folder.exists());
}

#[test]
fn a_browser_reports_what_is_wrong_with_a_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut browser = Browser::start(Scripts::On, &[]);
    browser.show(
        r#"<!doctype html><h1>One</h1><h1>Two</h1><p style="color: #888; width: 2000px">Grey</p>
        <input><img src="http://127.0.0.1:9/"><script>undefined()</script>"#,
    );
    let faults = browser.faults(folder.path(), "bad");
    for (part, expected) in [
        ("script: TypeError", 1),
        ("asks http://127.0.0.1:9/", 1),
        // On each of two screens, in light and in dark mode.
        ("no language", 4),
        ("no title", 4),
        ("not one h1", 4),
        ("no viewport", 4),
        ("wider than the screen", 4),
        ("an image without alt text", 4),
        ("no name for the input", 4),
        ("too low for a finger", 4),
        ("contrast 3.54: <p", 4),
    ] {
        let found = faults.iter().filter(|fault| fault.contains(part)).count();
        assert_eq!(found, expected, "{part} in {faults:#?}");
    }
    browser.show(
        r#"<html lang="en"><meta name="viewport" content="width=device-width"><title>A</title><h1>B</h1>"#,
    );
    browser.inspect(folder.path(), "good");
    assert!(folder.path().join("good-phone-dark.png").exists());
}
