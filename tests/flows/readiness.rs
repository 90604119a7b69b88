use std::time::Duration;

use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tests::Server;

/// Changes a store of a running server as only a fault would.
async fn damage(server: &Server, store: &str, statement: &str) {
    let path = server.data().join(store);
    let mut connection =
        sqlx::sqlite::SqliteConnectOptions::new().filename(path).connect().await.expect("it can be opened");
    sqlx::query(AssertSqlSafe(statement.to_owned()))
        .execute(&mut connection)
        .await
        .expect("it can be changed");
    connection.close().await.expect("it can be closed");
}

#[tokio::test]
async fn every_store_is_really_read() {
    let server = Server::start().await;
    let ready = server.get("/readyz").await.expect(200).json();
    assert_eq!(ready["status"], "ready");
    let checks = &ready["checks"];
    for store in ["journal", "key_store", "read_models"] {
        assert_eq!(checks[store]["ok"], true, "{ready}");
    }
    for projector in checks["projectors"].as_array().unwrap() {
        assert_eq!((&projector["ok"], &projector["state"]), (&true.into(), &"running".into()), "{ready}");
        assert!(projector["lag"].is_u64() && projector["position"].is_u64(), "{ready}");
    }
    for (store, file, broken, healed) in [
        (
            "journal",
            "journal.db",
            "ALTER TABLE events RENAME TO hidden",
            "ALTER TABLE hidden RENAME TO events",
        ),
        (
            "key_store",
            "keys.db",
            "UPDATE meta SET key = 'hidden' WHERE key = 'check'",
            "UPDATE meta SET key = 'check' WHERE key = 'hidden'",
        ),
        (
            "read_models",
            "read-models.db",
            "ALTER TABLE checkpoints RENAME TO hidden",
            "ALTER TABLE hidden RENAME TO checkpoints",
        ),
    ] {
        damage(&server, file, broken).await;
        let answer = server.get("/readyz").await;
        let problem = answer.problem(503, "not_ready");
        assert_eq!(problem["checks"][store]["ok"], false, "{problem}");
        for inside in ["hidden", "SQL", "no such", ".db", "key store:"] {
            assert!(!answer.text.contains(inside), "{inside} in {}", answer.text);
        }
        server.get("/healthz").await.expect(200);
        damage(&server, file, healed).await;
        // A projector that came upon the fault tries again within a second or two.
        let ready = async {
            while server.get("/readyz").await.status != 200 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ready).await.expect("it heals by itself");
    }
    server.get("/problems/not_ready").await.expect(200);
}
