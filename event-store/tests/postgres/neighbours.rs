//! Others in the same database: a login that may only connect, one that may create objects in `public`, and one that may
//! create schemas. None of them gets anything run with our rights, or stops us.

use std::time::Duration;

use event_store::contract::{append, stream};
use event_store::postgres::{EventRights, PostgresServer};
use event_store::{Journal, KeyStore, MasterKey, PostgresJournal};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection};
use test_services::{PgBouncer, Postgres, Watch, plants, temporary_plants};
use tokio::time::timeout;

use super::{open, settings, url};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const PATIENCE: Duration = Duration::from_mins(2);

/// A database and a login that may connect to it, and has these rights too.
async fn with_neighbour(server: &Postgres, name: &str, rights: &str) -> (String, PgConnection) {
    let database = server.database();
    server.psql(&database, &format!("CREATE ROLE {name} LOGIN PASSWORD 'secret'; {rights}"));
    let (_, rest) = database.split_once('@').expect("the URL has a user");
    let theirs = url(&format!("postgres://{name}:secret@{rest}"));
    let connection = theirs.options().connect().await.expect("connects");
    (database, connection)
}

async fn run(connection: &mut PgConnection, sql: &str) {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.expect("the neighbour may");
}

/// Everything that opens, reads and writes the journal and the key store.
async fn everything(database: &str) {
    let key = MasterKey::from_base64(KEY).expect("a key");
    PostgresJournal::look(&url(database), &settings()).await.expect("looks");
    PostgresJournal::migrate(&url(database), &settings()).await.expect("migrates");
    let keys = KeyStore::open_postgres(&url(database), settings(), &key).await.expect("opens");
    let (one, two) = (open(database).await, open(database).await);
    one.append(append(&stream("a"), 0, 2)).await.expect("appends");
    two.append(append(&stream("a"), 2, 1)).await.expect("appends");
    assert_eq!(one.read_all(0, 9).await.expect("reads").len(), 3);
    assert_eq!(one.read_stream(&stream("a"), 0).await.expect("reads").len(), 3);
    one.versions(&[stream("a")]).await.expect("reads");
    one.read_streams(&[(stream("a"), 1)]).await.expect("reads");
    one.newest_streams("app", 9).await.expect("reads");
    one.claims("email", "").await.expect("reads");
    one.load_snapshots(&[stream("a")]).await.expect("reads");
    let cursor =
        one.hold_cursor("mail", "one", Duration::from_secs(30)).await.expect("asks").expect("is free");
    assert!(one.move_cursor("mail", cursor).await.expect("moves"));
    one.release_cursor("mail", cursor).await.expect("releases");
    one.can_append().await.expect("would be taken");
    PostgresServer::look(&url(database), &settings()).await.expect("looks");
    EventRights::look(&url(database), &settings()).await.expect("looks");
    PostgresJournal::forged_tail(&url(database), &event_store::contract::macs()).await.expect("looks");
    keys.close().await;
    one.close().await;
    two.close().await;
}

/// How often a plant was run by the superuser that the nodes work as.
fn planted(server: &Postgres) -> usize {
    server.log().matches("PLANTED by postgres").count()
}

/// With the plants there from the start, and the database's and the user's search paths as bad as can be.
async fn plants_on(server: &Postgres) {
    let rights = "GRANT CREATE ON SCHEMA public TO planter";
    let (database, mut planter) = with_neighbour(server, "planter", rights).await;
    run(&mut planter, &plants()).await;
    let name = database.rsplit('/').next().expect("a name");
    server.psql(&database, &format!("ALTER DATABASE {name} SET search_path = public, pg_catalog"));
    // The plants bite whoever does not take care, with this path and with the default one.
    let an_operator = "SELECT 2::bigint * interval '1 second'";
    let a_cast = "SELECT quote_ident(gen_random_uuid()) IS NULL";
    let a_domain = "SELECT 'x'::text IS NULL";
    for (path, bitten) in [
        ("public, pg_catalog", &[an_operator, a_cast, a_domain][..]),
        ("DEFAULT", &[an_operator, a_cast][..]),
    ] {
        for bites in bitten {
            let before = planted(server);
            server.psql(&database, &format!("SET search_path = {path}; {bites}"));
            assert!(planted(server) > before, "{path}: {bites}");
        }
    }
    let watch = Watch::begin(server, "watchword");
    everything(&database).await;
    watch.assert_safe(name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_neighbour_plants_is_never_run() {
    plants_on(&Postgres::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_neighbour_plants_is_never_run_on_version_18() {
    plants_on(&Postgres::start_version(18)).await;
}

/// Sessions that a pooler hands on as they are, in which somebody has left temporary tables. Even as their owner's functions
/// run, ours come first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_left_in_a_session_is_never_used() {
    let server = Postgres::start();
    let database = server.database();
    everything(&database).await;
    let pooler = PgBouncer::start(
        &server,
        "session",
        "server_reset_query = DEALLOCATE ALL\nignore_startup_parameters = options,extra_float_digits",
    );
    let through = pooler.url(&database);
    let lay = async || {
        let mut sessions = Vec::new();
        for _ in 0..20 {
            let mut session = url(&through).options().connect().await.expect("connects");
            run(&mut session, &temporary_plants()).await;
            sessions.push(session);
        }
        for session in sessions {
            session.close().await.expect("closes");
        }
    };
    lay().await;
    let appended = async |version: u64| {
        let node = open(&through).await;
        node.append(append(&stream("b"), version, 1)).await.expect("appends");
        assert_eq!(node.read_stream(&stream("b"), version).await.expect("reads").len(), 1);
        node.can_append().await.expect("would be taken");
        node.close().await;
    };
    appended(0).await;
    appended(1).await;
    assert_eq!(planted(&server), 0);
    // They bite a function that does not take care.
    server.psql(&database, "ALTER FUNCTION watchword.append RESET search_path");
    let node = open(&through).await;
    let _ = node.append(append(&stream("c"), 0, 1)).await;
    assert!(planted(&server) > 0, "{}", server.log());
}

/// Whoever may connect can take any advisory lock and notify on any channel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_of_a_neighbour_stop_nothing() {
    let (database, mut locker) = with_neighbour(Postgres::shared(), "locker", "").await;
    // The keys of earlier versions, which are no secret.
    let locks = "SELECT pg_advisory_lock(95938047169864), pg_advisory_lock(104987000493371713),
        pg_advisory_lock(1465340525), pg_advisory_lock(103977193657697)";
    run(&mut locker, locks).await;
    timeout(PATIENCE, everything(&database)).await.expect("waits for nobody");
    // What everybody may read can be locked against changes of the table, but nothing that is done changes one.
    run(&mut locker, "BEGIN; SELECT * FROM watchword.format; LOCK watchword.format IN ACCESS SHARE MODE")
        .await;
    timeout(PATIENCE, PostgresJournal::migrate(&url(&database), &settings()))
        .await
        .expect("in time")
        .expect("migrates");
    open(&database).await.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notification_is_no_number_to_believe() {
    let (database, mut caller) = with_neighbour(Postgres::shared(), "caller", "").await;
    let (one, two) = (open(&database).await, open(&database).await);
    let mut seen = two.watch_head();
    for position in 1..=3 {
        for lie in ["9223372036854775807", "18446744073709551615", "-1", "", "1000000", "0", "none"] {
            run(&mut caller, &format!("NOTIFY watchword_head, '{lie}'")).await;
        }
        one.append(append(&stream("a"), position - 1, 1)).await.expect("appends");
        let head = timeout(PATIENCE, seen.wait_for(|head| *head >= position)).await.expect("in time");
        assert_eq!(*head.expect("is followed"), position);
    }
    assert_eq!((*one.watch_head().borrow(), *two.watch_head().borrow()), (3, 3));
}

/// A schema of our name that somebody else made first, with a trigger that waits for the migration.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_a_neighbour_made_first_is_refused() {
    let server = Postgres::shared();
    let (database, mut squatter) = with_neighbour(server, "squatter", "").await;
    let name = database.rsplit('/').next().expect("a name");
    server.psql(&database, &format!("GRANT CREATE ON DATABASE {name} TO squatter"));
    run(
        &mut squatter,
        "CREATE SCHEMA watchword; CREATE TABLE watchword.format AS SELECT 'Watchword journal' AS what, 1 AS version;
         CREATE FUNCTION watchword.trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             EXECUTE 'ALTER ROLE squatter SUPERUSER'; RETURN NEW; END $$;
         CREATE TRIGGER trap BEFORE UPDATE ON watchword.format FOR EACH STATEMENT EXECUTE FUNCTION watchword.trap();
         GRANT ALL ON SCHEMA watchword TO PUBLIC; GRANT ALL ON watchword.format TO PUBLIC",
    )
    .await;
    let refused =
        PostgresJournal::migrate(&url(&database), &settings()).await.expect_err("is refused").to_string();
    assert!(refused.contains("its schema watchword belongs to squatter"), "{refused}");
    assert_eq!(server.psql(&database, "SELECT rolsuper FROM pg_roles WHERE rolname = 'squatter'"), "f\n");
}

#[tokio::test]
async fn a_database_of_another_encoding_is_refused() {
    let server = Postgres::shared();
    let database = server.database();
    server.psql(&database, "CREATE DATABASE in_latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    let (place, _) = database.rsplit_once('/').expect("a path");
    let refused = PostgresJournal::migrate(&url(&format!("{place}/in_latin1")), &settings()).await;
    let refused = refused.expect_err("is refused").to_string();
    assert!(refused.contains("LATIN1") && refused.contains("ENCODING 'UTF8'"), "{refused}");
}

/// A dump restored on a server without the role, and without any rights, is put right by the next migration.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_without_roles_is_repaired() {
    let server = Postgres::start_with_tools();
    let database = server.database();
    everything(&database).await;
    let dump = server.dump(&database, &["--no-owner", "--no-privileges"]);
    server.psql(&server.url("postgres"), "ALTER ROLE watchword_service RENAME TO somebody");
    let restored = server.database();
    server.psql(&restored, "CREATE ROLE node LOGIN PASSWORD 'secret'");
    server.restore(&restored, &dump);
    PostgresJournal::migrate(&url(&restored), &settings()).await.expect("migrates");
    KeyStore::open_postgres(&url(&restored), settings(), &MasterKey::from_base64(KEY).expect("a key"))
        .await
        .expect("opens")
        .close()
        .await;
    server.psql(&restored, "GRANT watchword_service TO node");
    let (_, rest) = restored.split_once('@').expect("a user");
    let as_node = format!("postgres://node:secret@{rest}");
    let journal = open(&as_node).await;
    journal.append(append(&stream("a"), 3, 1)).await.expect("appends");
    journal.close().await;
    let rights = EventRights::look(&url(&as_node), &settings()).await.expect("looks");
    assert_eq!((rights.of_role, rights.user_is_owner), (vec![], false));
    // Not everybody may call the functions that write.
    let open_to_all = "SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE n.nspname = 'watchword' AND p.prosecdef AND has_function_privilege('public', p.oid, 'EXECUTE')";
    assert_eq!(server.psql(&restored, open_to_all), "0\n");
}

/// A neighbour who listens in a transaction that it leaves open, and notifies itself, fills the queue of notifications of the
/// whole server. Appends go on, and nodes see them by looking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_of_notifications_stops_no_append() {
    let mut server = Postgres::start_version(18);
    // 8 GiB by default.
    server.psql(&server.url("postgres"), "ALTER SYSTEM SET max_notify_queue_pages = 64");
    server.stop();
    server.up();
    let (database, mut caller) = with_neighbour(&server, "caller", "").await;
    let (one, two) = (open(&database).await, open(&database).await);
    let mut seen = two.watch_head();
    one.append(append(&stream("a"), 0, 1)).await.expect("appends");
    run(&mut caller, "LISTEN anything").await;
    run(&mut caller, "BEGIN; SELECT 1").await;
    let (_, rest) = database.split_once('@').expect("the URL has a user");
    let theirs = url(&format!("postgres://caller:secret@{rest}"));
    let mut other = theirs.options().connect().await.expect("connects");
    let fill = "SELECT count(pg_notify('anything', i || repeat('x', 7000))) FROM generate_series(1, 40) i";
    while other.execute(fill).await.is_ok() {}
    // Filled up to the last page with short ones.
    while other.execute("NOTIFY anything").await.is_ok() {}
    for version in 1..4 {
        one.append(append(&stream("a"), version, 1)).await.expect("appends");
        let head = timeout(PATIENCE, seen.wait_for(|head| *head > version)).await.expect("in time");
        assert_eq!(*head.expect("is followed"), version + 1);
    }
}
