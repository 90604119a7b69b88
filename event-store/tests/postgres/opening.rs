//! Creates the tables, and refuses what is not ours to change.

use std::borrow::Cow;

use event_store::contract::{append, stream};
use event_store::postgres::Migrated;
use event_store::{Journal, OpenError, PostgresJournal, PostgresUrl, StoreError};
use futures::future::join_all;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Executor, PgConnection};
use test_services::Postgres;

use super::{open, settings, url};

async fn refusal(database: &str) -> OpenError {
    PostgresJournal::open(&url(database), settings(), &event_store::contract::macs())
        .await
        .err()
        .expect("is refused")
}

/// A new login without any rights.
fn login(database: &str, name: &str) -> String {
    Postgres::shared().psql(database, &format!("CREATE ROLE {name} LOGIN PASSWORD 'secret of {name}'"));
    let (_, rest) = database.split_once('@').expect("the URL has a user");
    format!("postgres://{name}:secret%20of%20{name}@{rest}")
}

async fn connect(database: &str) -> PgConnection {
    let options: PgConnectOptions = database.parse().expect("a URL");
    options.connect().await.expect("connects")
}

#[tokio::test]
async fn migrates_once_however_many_nodes_start() {
    let database = Postgres::shared().database();
    let migrated =
        join_all((0..4).map(|_| async {
            PostgresJournal::migrate(&url(&database), &settings()).await.expect("migrates")
        }));
    let mut from: Vec<u32> = migrated.await.into_iter().map(|migrated| migrated.from).collect();
    from.sort_unstable();
    assert_eq!(from, [0, 6, 6, 6]);
    let again = PostgresJournal::migrate(&url(&database), &settings()).await.expect("migrates");
    assert_eq!(again, Migrated { from: 6, to: 6 });
}

#[tokio::test]
async fn the_service_can_neither_change_nor_delete_events() {
    let database = Postgres::shared().database();
    open(&database).await.append(append(&stream("a"), 0, 2)).await.expect("appends");
    let mut connection = connect(&database).await;
    for (role, code, statements) in [
        (
            "SET ROLE watchword_service",
            "42501",
            [
                "UPDATE watchword.events SET data = '{}'",
                "DELETE FROM watchword.events",
                "TRUNCATE watchword.events",
                "INSERT INTO watchword.events SELECT * FROM watchword.events",
                "DELETE FROM watchword.claims",
                "UPDATE watchword.idempotency SET first = 1",
                "DELETE FROM watchword.idempotency",
                "DROP TABLE watchword.events",
                "UPDATE watchword.format SET version = 3",
            ]
            .as_slice(),
        ),
        // Not even the superuser, unless they remove the trigger first.
        (
            "RESET ROLE",
            "42501",
            &[
                "UPDATE watchword.events SET data = '{}'",
                "DELETE FROM watchword.events",
                "TRUNCATE watchword.events",
            ],
        ),
    ] {
        connection.execute(role).await.expect(role);
        for statement in statements {
            let error = connection.execute(*statement).await.expect_err(statement);
            let found = error.as_database_error().and_then(|error| error.code().map(Cow::into_owned));
            assert_eq!(found.as_deref(), Some(code), "{role}, {statement}: {error}");
        }
    }
    assert_eq!(open(&database).await.read_all(0, 9).await.expect("reads").len(), 2);
}

#[tokio::test]
async fn the_error_for_a_user_who_may_not_create_the_tables_says_what_to_do() {
    let server = Postgres::shared();
    let database = server.database();
    let as_user = login(&database, "clerk");
    let refused = refusal(&as_user).await;
    assert!(matches!(refused, OpenError::Outdated { found: 0, known: 6, .. }), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("`watchword migrate`") && !text.contains("secret"), "{text}");

    PostgresJournal::migrate(&url(&database), &settings()).await.expect("migrates");
    let text = refusal(&as_user).await.to_string();
    assert!(text.contains("GRANT watchword_service TO"), "{text}");

    server.psql(&database, "GRANT watchword_service TO clerk");
    let journal = open(&as_user).await;
    assert_eq!(journal.append(append(&stream("a"), 0, 1)).await.expect("appends").first, 1);
    journal.close().await;
    let mut connection = connect(&as_user).await;
    connection.execute("DELETE FROM watchword.events").await.expect_err("is refused");
}

/// A database owner who is not a superuser, as on hosted servers.
#[tokio::test]
async fn an_owner_who_is_not_a_superuser_can_create_the_tables() {
    let server = Postgres::shared();
    let database = server.database();
    let owner = login(&database, "landlord");
    let name = database.rsplit('/').next().expect("a name");
    server
        .psql(&database, &format!("ALTER ROLE landlord CREATEROLE; ALTER DATABASE {name} OWNER TO landlord"));
    // The role may exist already, as all databases share roles: then it must be granted.
    if server.psql(&database, "SELECT 1 FROM pg_roles WHERE rolname = 'watchword_service'") == "1\n" {
        server.psql(&database, "GRANT watchword_service TO landlord WITH ADMIN OPTION");
    }
    let journal = open(&owner).await;
    assert_eq!(journal.append(append(&stream("a"), 0, 1)).await.expect("appends").first, 1);
}

#[tokio::test]
async fn refuses_what_is_foreign_or_newer() {
    let server = Postgres::shared();
    let database = server.database();
    server.psql(&database, "CREATE SCHEMA watchword; CREATE TABLE watchword.things (x int)");
    let refused = refusal(&database).await;
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
    server.psql(&database, "CREATE TABLE watchword.format AS SELECT 'Another thing' AS what, 1 AS version");
    let refused = refusal(&database).await;
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
    assert_eq!(server.psql(&database, "SELECT to_regclass('watchword.events') IS NULL"), "t\n");

    let database = server.database();
    open(&database).await.close().await;
    server.psql(&database, "UPDATE watchword.format SET version = 99");
    let refused = refusal(&database).await;
    assert!(matches!(refused, OpenError::Newer { found: 99, known: 6, .. }), "{refused}");
}

#[tokio::test]
async fn the_error_for_an_absent_server_does_not_contain_the_password() {
    let nowhere = "postgres://somebody:hunter2@127.0.0.1:9/none?sslmode=disable";
    let refused = refusal(nowhere).await;
    assert!(matches!(refused, OpenError::Away { .. }) && refused.may_pass(), "{refused}");
    let text = format!("{refused} {refused:?} {} {:?}", url(nowhere), url(nowhere));
    assert!(text.contains("postgres://127.0.0.1:9/none") && !text.contains("hunter2"), "{text}");
    for wrong in ["", "sqlite:a.db", "postgres://", "postgres://host", "postgres://host:x/db"] {
        let error = wrong.parse::<PostgresUrl>().expect_err(wrong).to_string();
        assert!(error.contains("postgres://user:password@host:5432/database"), "{error}");
    }
}

/// Errors that may pass are distinguished from those that do not.
#[tokio::test]
async fn passing_errors_are_distinguished_from_lasting_ones() {
    let server = Postgres::shared();
    let database = server.database();
    let (_, rest) = database.split_once('@').expect("a user");
    let (host, name) = rest.rsplit_once('/').expect("a name");
    for stays in [
        format!("postgres://postgres:wrong@{rest}"),
        format!("postgres://nobody_there:x@{rest}"),
        format!("{}/no_such_database", database.rsplit_once('/').expect("a name").0),
        format!("{database}?sslmode=require"),
    ] {
        let refused = refusal(&stays).await;
        assert!(matches!(refused, OpenError::Failed { .. }) && !refused.may_pass(), "{stays}: {refused}");
    }
    // A server that refuses connections, an unknown one, and one that is silent.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().expect("an address");
    for passes in [
        "postgres://a:b@127.0.0.1:9/x".to_owned(),
        "postgres://a:b@no-such-host.invalid/x".to_owned(),
        format!("postgres://a:b@{silent}/x"),
    ] {
        let refused = refusal(&passes).await;
        assert!(refused.may_pass(), "{passes}: {refused}");
    }
    // A connection limit that is used up.
    server.psql(&database, "CREATE ROLE narrow LOGIN PASSWORD 'x'; ALTER ROLE narrow CONNECTION LIMIT 0");
    let refused = refusal(&format!("postgres://narrow:x@{host}/{name}")).await;
    assert!(refused.may_pass(), "{refused}");
}

/// If the trigger is removed and an event changed, that is found.
#[tokio::test]
async fn a_changed_event_is_found() {
    let server = Postgres::shared();
    let database = server.database();
    let journal = open(&database).await;
    journal.append(append(&stream("a"), 0, 3)).await.expect("appends");
    server.psql(&database, "ALTER TABLE watchword.events DISABLE TRIGGER USER");
    for change in ["data = '{}'", "version = 9", "stream = 'app-b'", "at = at + 1", "personal = ''"] {
        let before = server.psql(
            &database,
            "SELECT quote_literal(data) || ',' || version || ',' || quote_literal(stream) || ',' || at
             FROM watchword.events WHERE position = 2",
        );
        server.psql(&database, &format!("UPDATE watchword.events SET {change} WHERE position = 2"));
        let error = journal.read_positions(&[2]).await.expect_err(change);
        assert!(matches!(&error, StoreError::Damaged(what) if what.contains("event 2")), "{change}: {error}");
        assert_eq!(journal.read_positions(&[1, 3]).await.expect("the others are intact").len(), 2);
        assert_eq!(journal.read_all(0, 9).await.expect("those before").len(), 1);
        assert!(journal.read_all(1, 9).await.is_err());
        let restore = format!(
            "UPDATE watchword.events SET (data, version, stream, at) = ({}), personal = NULL WHERE position = 2",
            before.trim()
        );
        server.psql(&database, &restore);
        assert_eq!(journal.read_all(0, 9).await.expect("whole again").len(), 3);
    }
}
