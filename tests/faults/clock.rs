//! The clock is an hour off and then corrected; or one of two nodes is an hour ahead.

use test_services::Postgres;
use tests::workload::History;
use tests::{Bus, Server, checker};

use crate::postgres::{cluster, fresh_node};
use crate::{SETTINGS, server_with};

/// Enough for more sessions than the checker looks at: those from an hour ago have expired by its time.
const CALLS: usize = 250;

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_is_an_hour_off() {
    let bus = Bus::start();
    let mut server = server_with(&bus).await;
    let mut history = History::new(&server).await;
    let mut ended: Option<String> = None;
    for off in ["-1h", "1h", "0s"] {
        assert!(server.terminate().await.success());
        server.set_environment("FAILPOINTS", &format!("clock=return({off})"));
        server.up().await;
        history.during(&[&server], async |load| load.done(CALLS).await).await;
        let app = server.default_app();
        // A user who logged out by another clock is logged out by this one.
        if let Some(refresh) = ended {
            app.refresh(&refresh).await.problem(401, "session_revoked");
        }
        let tokens = app.register(&tests::email(&format!("clock{}", off.len()))).await;
        app.post("auth/logout").bearer(&tokens.access).await.expect_success();
        ended = Some(tokens.refresh);
    }
    assert!(history.all_were_answered());
    checker::check(&mut server, Some(&bus), &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_nodes_is_an_hour_ahead() {
    let bus = Bus::start();
    let (database, url) = (Postgres::shared().database(), bus.url());
    let right = [&SETTINGS[..], &cluster(&database, &url)].concat();
    let ahead = [&right[..], &[("FAILPOINTS", "clock=return(1h)")]].concat();
    let (right, ahead) = tokio::join!(Server::start_with(&right), Server::start_with(&ahead));
    let mut history = History::new(&right).await;
    history.during(&[&right, &ahead], async |load| load.done(CALLS).await).await;
    assert!(history.all_were_answered());
    // For the node ahead, what the other one issued expires too early, which is safe. What it issued itself, the other
    // one accepts.
    let fresh = fresh_node(&database, &bus, &right).await;
    checker::check_nodes(&[&right], &fresh, Some(&bus), &history).await;
}

/// The clock is set back by more than a session lasts without a refresh, for example by an empty battery.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_behind_the_newest_event_is_said_and_ends_no_session() {
    let mut server = Server::start_with(&SETTINGS).await;
    let mut tokens = server.default_app().register(&tests::email("ada")).await;
    let (_, told) = crate::storage::readiness(&server).await;
    assert!(told["checks"]["clock"].is_null(), "{told}");
    assert!(server.terminate().await.success());
    server.set_environment("FAILPOINTS", "clock=return(-480h)");
    server.up().await;
    server.says("this machine's clock is behind").await;
    // One that starts meanwhile, and is refreshed, lasts from the latest events, too.
    let bob = tests::email("bob");
    let mut started = server.default_app().register(&bob).await;
    let mut logged_in = server.default_app().login(&bob, tests::PASSWORD).await.expect(200).tokens();
    for session in [&mut started, &mut logged_in] {
        *session = server.default_app().refresh(&session.refresh).await.expect(200).tokens();
    }
    let never_refreshed = server.default_app().login(&bob, tests::PASSWORD).await.expect(200).tokens();
    for _ in 0..3 {
        tokens = server.default_app().refresh(&tokens.refresh).await.expect(200).tokens();
        let (ready, told) = crate::storage::readiness(&server).await;
        let check = &told["checks"]["clock"];
        assert!(
            ready && check["ok"] == false && check["behind_seconds"].as_u64() > Some(470 * 3600),
            "{told}"
        );
    }
    let said = crate::storage::doctor(&server).1;
    assert!(said.contains("this machine's clock is behind"), "{said}");
    assert!(server.terminate().await.success());
    server.set_environment("FAILPOINTS", "clock=return(0s)");
    server.up().await;
    for session in [tokens, started, logged_in, never_refreshed] {
        server.default_app().refresh(&session.refresh).await.expect(200);
    }
    let (_, told) = crate::storage::readiness(&server).await;
    assert!(told["checks"]["clock"].is_null(), "{told}");
}

/// Doctor runs with the right clock, after a server with a wrong one.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_clock_that_was_ahead_has_left_is_named() {
    let bus = Bus::start();
    let mut server = server_with(&bus).await;
    let doctor = |server: &Server| {
        let output = server.command(&["doctor"]).output().expect("runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    server.default_app().register(&tests::email("now")).await;
    assert!(server.terminate().await.success());
    assert!(!doctor(&server).contains("are in the future"), "{}", doctor(&server));

    server.set_environment("FAILPOINTS", "clock=return(100h)");
    server.up().await;
    let app = server.default_app();
    let address = tests::email("later");
    app.register(&address).await;
    for _ in 0..30 {
        app.login(&address, "no password of theirs").await;
    }
    assert!(server.terminate().await.success());
    let ahead = doctor(&server);
    assert!(!ahead.contains("are in the future"), "by its own clock: {ahead}");
    server.set_environment("FAILPOINTS", "clock=return(0s)");
    let found = doctor(&server);
    assert!(found.contains("events are in the future, the first at position"), "{found}");
    assert!(found.contains("1 SessionStarted"), "{found}");
    assert!(found.contains("is locked until") && found.contains("user unlock"), "{found}");
}
