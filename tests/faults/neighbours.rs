//! Others in the database of a whole server: plants in `public`, locks, notifications and transactions left open.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use test_services::{PgBouncer, Postgres, Watch, plants};
use tests::workload::History;
use tests::{Bus, checker};

use crate::postgres::node;

/// The keys of the advisory locks of earlier versions.
pub const LOCKS: &str =
    "SELECT pg_advisory_lock(95938047169864), pg_advisory_lock(95938047168833), pg_advisory_lock(1465340525)";

pub async fn login(server: &Postgres, database: &str, name: &str) -> PgConnection {
    server.psql(database, &format!("CREATE ROLE {name} LOGIN PASSWORD 'secret'"));
    let (_, rest) = database.split_once('@').expect("the URL has a user");
    PgConnection::connect(&format!("postgres://{name}:secret@{rest}")).await.expect("connects")
}

pub async fn run(connection: &mut PgConnection, sql: &str) {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.expect("the neighbour may");
}

/// The server works as a superuser, for whom a plant would be worst.
#[tokio::test(flavor = "multi_thread")]
async fn neighbours_in_the_database_gain_nothing_and_stop_nothing() {
    let (postgres, bus) = (Postgres::start(), Bus::start());
    let database = postgres.database();
    let name = database.rsplit('/').next().expect("a name");
    let mut planter = login(&postgres, &database, "planter").await;
    let mut guest = login(&postgres, &database, "guest").await;
    postgres.psql(&database, "GRANT CREATE ON SCHEMA public TO planter");
    run(&mut planter, &plants()).await;
    run(&mut guest, LOCKS).await;
    let watch = Watch::begin(&postgres, "watchword");

    let mut server = node(&database, &bus).await;
    let mut history = History::new(&server).await;
    history
        .during(&[&server], async |load| {
            load.done(20).await;
            for _ in 0..10 {
                run(&mut planter, "NOTIFY watchword_head, '9223372036854775807'").await;
                load.done(5).await;
            }
            // A transaction that is left open, with locks on all that everybody may read.
            let read = "BEGIN; LOCK watchword.format, watchword_keys.format, watchword_read.checkpoints, watchword_read.nodes \
                        IN ACCESS SHARE MODE; SELECT * FROM watchword_read.checkpoints";
            run(&mut guest, read).await;
            load.done(20).await;
        })
        .await;
    assert!(history.all_were_answered(), "nobody waits for a neighbour");
    checker::check_running(&server, Some(&bus), &history).await;
    // It starts again, and `migrate` and `doctor` run, while the neighbours still have their locks.
    assert!(server.terminate().await.success());
    for command in [&["migrate"][..], &["doctor"]] {
        let output = server.command(command).output().expect("runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{command:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
    }
    server.up().await;
    run(&mut guest, "ROLLBACK").await;
    checker::check(&mut server, Some(&bus), &history).await;
    watch.assert_safe(name);
}

/// A whole server through pgbouncer in session mode, and its error in another.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_gives_sessions_or_is_refused() {
    let (postgres, bus) = (Postgres::start(), Bus::start());
    let database = postgres.database();
    let pooler =
        PgBouncer::start(&postgres, "session", "ignore_startup_parameters = options,extra_float_digits");
    let mut server = node(&pooler.url(&database), &bus).await;
    let mut history = History::new(&server).await;
    history.during(&[&server], async |load| load.done(60).await).await;
    checker::check(&mut server, Some(&bus), &history).await;
    // The key store has a table of that name, too.
    let schemas = "SELECT string_agg(DISTINCT nspname, ' ' ORDER BY nspname) FROM pg_class c JOIN pg_namespace n \
                   ON n.oid = c.relnamespace WHERE relname LIKE '%checkpoints' AND nspname <> 'watchword_keys' \
                   OR relname LIKE 'users_v_'";
    assert_eq!(postgres.psql(&database, schemas), "watchword_read\n");
    assert!(server.terminate().await.success());

    let other = PgBouncer::start(&postgres, "transaction", "");
    server.set_environment("WATCHWORD_JOURNAL_URL", &other.url(&database));
    let output = server.command(&["doctor"]).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && text.contains("pool_mode = session"), "{text}");
    let output = server.command(&["migrate"]).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("pool_mode = session"), "{text}");
}

/// A dump restored without owners and rights, on a server without the role: `migrate` makes it and gives it what it needs.
#[tokio::test(flavor = "multi_thread")]
async fn a_dump_without_roles_is_repaired_by_migrate() {
    let (postgres, bus) = (Postgres::start_with_tools(), Bus::start());
    let database = postgres.database();
    let mut server = node(&database, &bus).await;
    let mut history = History::new(&server).await;
    history.during(&[&server], async |load| load.done(20).await).await;
    checker::check_running(&server, Some(&bus), &history).await;
    assert!(server.terminate().await.success());
    let dump = postgres.dump(&database, &["--no-owner", "--no-privileges"]);
    postgres.psql(&database, "ALTER ROLE watchword_service RENAME TO of_before");
    let restored = postgres.database();
    postgres.restore(&restored, &dump);

    server.set_environment("WATCHWORD_JOURNAL_URL", &restored);
    let output = server.command(&["migrate"]).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    postgres.psql(&restored, "CREATE ROLE node LOGIN PASSWORD 'secret'; GRANT watchword_service TO node");
    let (_, rest) = restored.split_once('@').expect("the URL has a user");
    server.set_environment("WATCHWORD_JOURNAL_URL", &format!("postgres://node:secret@{rest}"));
    server.up().await;
    history.during(&[&server], async |load| load.done(20).await).await;
    checker::check_running(&server, Some(&bus), &history).await;
    assert!(server.terminate().await.success());
    let output = server.command(&["doctor"]).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
