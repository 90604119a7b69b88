//! A database that is away: every route soon says so, with its own code, and the log says why.

use std::time::{Duration, Instant};

use test_services::Postgres;
use tests::{PASSWORD, PATIENCE, email};

use crate::node;

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_unavailable_at_once_and_in_the_log() {
    let mut postgres = Postgres::start();
    let server = node(&postgres.database()).await;
    let app = server.default_app();
    let address = email("ada");
    let tokens = app.register(&address).await;
    let platform = server.platform_key();
    app.me(&tokens.access).await.expect(200);

    let ask = async |longest: Duration| {
        for round in 0..2 {
            let begun = Instant::now();
            let answers = tokio::join!(
                app.me(&tokens.access),
                app.login(&address, PASSWORD),
                app.refresh(&tokens.refresh),
                app.post("auth/register")
                    .json(&serde_json::json!({"email": email("eve"), "password": PASSWORD})),
                app.get("admin/users").bearer(&platform),
                app.get("admin/api-keys").bearer(&platform),
            );
            let took = begun.elapsed();
            for answer in [answers.0, answers.1, answers.2, answers.3, answers.4, answers.5] {
                let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
                // Requests in flight when it went away may have been carried out.
                let is_named = code == "unavailable" || (code == "outcome_unknown" && round == 0);
                assert!(answer.status == 503 && is_named, "{}", answer.text);
                assert!(answer.header("retry-after").is_some(), "{}", answer.text);
            }
            assert!(took < longest, "{took:?}");
            let begun = Instant::now();
            server.get("/readyz").await.problem(503, "not_ready");
            assert!(begun.elapsed() < longest);
        }
    };
    // A request on a recently used connection would be lost with it, and its outcome unknown.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    postgres.stop();
    ask(Duration::from_secs(5)).await;
    server.says("refuse").await;
    assert!(!server.log().contains("pool timed out"), "{}", server.log());

    postgres.up();
    let begun = Instant::now();
    while app.me(&tokens.access).await.status != 200 {
        assert!(begun.elapsed() < PATIENCE, "it is found again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    app.login(&address, PASSWORD).await.expect(200);

    postgres.signal("STOP");
    let begun = Instant::now();
    let (me, login) = tokio::join!(app.me(&tokens.access), app.login(&address, PASSWORD));
    let took = begun.elapsed();
    postgres.signal("CONT");
    me.problem(503, "unavailable");
    assert_eq!(login.status, 503, "{}", login.text);
    assert!(took < Duration::from_secs(7), "{took:?}");
}
