//! pgbouncer between a node and its server.

use std::time::Duration;

use event_store::contract::{append, stream};
use event_store::postgres::PostgresServer;
use event_store::{Journal, PostgresJournal};
use test_services::{PgBouncer, Postgres};
use tokio::time::timeout;

use super::{open, settings, url};

const PATIENCE: Duration = Duration::from_mins(2);

/// Two nodes work, see each other's events, and keep what belongs to a session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_mode_works() {
    let server = Postgres::start();
    // What many recommend to ignore changes nothing.
    for ignored in ["", "ignore_startup_parameters = extra_float_digits,options,search_path"] {
        let database = server.database();
        let pooler = PgBouncer::start(&server, "session", ignored);
        let through = pooler.url(&database);
        let (one, two) = (open(&through).await, open(&through).await);
        let mut seen = two.watch_head();
        for position in 1..=5 {
            one.append(append(&stream("a"), position - 1, 1)).await.expect("appends");
            timeout(PATIENCE, seen.wait_for(|head| *head >= position))
                .await
                .expect("in time")
                .expect("is followed");
        }
        assert_eq!(two.read_all(0, 9).await.expect("reads").len(), 5);
        assert_eq!(
            server.psql(&database, "SELECT count(*) FROM pg_listening_channels()").trim(),
            "0",
            "of another session"
        );
        one.close().await;
        two.close().await;
        let unsafe_users = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'watchword%'";
        assert_eq!(server.psql(&database, unsafe_users), "1\n");
        PostgresServer::look(&url(&through), &settings()).await.expect("looks");
    }
}

/// In the two other modes all of it seems to work now and then. It is refused from the start, and says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_modes_are_refused_by_name() {
    let server = Postgres::start();
    for mode in ["transaction", "statement"] {
        for more in ["", "server_round_robin = 1", "default_pool_size = 2\nserver_round_robin = 1"] {
            let database = server.database();
            let pooler = PgBouncer::start(&server, mode, more);
            let through = pooler.url(&database);
            // With sessions left by others, too.
            for _ in 0..3 {
                let refused = PostgresJournal::migrate(&url(&through), &settings()).await.expect_err(mode);
                let text = refused.to_string();
                assert!(text.contains("pool_mode = session"), "{mode}: {text}\n{}", pooler.log());
                assert!(!refused.may_pass(), "{text}");
            }
            let made =
                server.psql(&database, "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'watchword%'");
            assert_eq!(made, "0\n", "nothing was created");
        }
    }
}
