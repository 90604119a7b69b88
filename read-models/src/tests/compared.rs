//! Write access to the tables of read models is enough to have them show anything; a comparison with the events reveals
//! it.

use domain::user::{ErasureReason, UserErased, UserEvent};
use domain::{Event, StreamId};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tempfile::TempDir;
use test_services::Postgres;

use super::organizations::{added, created};
use super::world::*;
use event_store::Location;

use crate::{Comparison, compare};

/// Runs this statement. Bytes are written `x'00'` for both databases.
pub(super) async fn alter(world: &World, statement: &str) {
    let statement = statement.to_owned();
    match &world.location {
        Location::File(path) => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
            let mut connection = options.connect().await.expect("connects");
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.expect("changes");
            connection.close().await.expect("closes");
        }
        Location::Postgres(url) => {
            let (server, name) = (Postgres::shared(), url.options().get_database().expect("it has one"));
            let statement = statement.replace("x'", "'\\x");
            server.psql(&server.url(name), &format!("SET search_path = watchword_read; {statement}"));
        }
    }
}

async fn compared(world: &World) -> Vec<Comparison> {
    let folder = TempDir::new().expect("a folder");
    compare(&world.location, folder.path(), &world.repository, &origin(), &[], |_, _| {})
        .await
        .expect("compares")
}

/// All differences in one text.
async fn told(world: &World) -> String {
    let comparisons = compared(world).await;
    let lines: Vec<String> = comparisons.iter().flat_map(|it| it.differences.clone()).collect();
    lines.join("\n")
}

fn id(n: u128) -> String {
    format!("x'{}'", user(n).0.simple())
}

/// The tables that are forged, and put back.
const TABLES: &[&str] = &[
    "users_v2",
    "user_words_v2",
    "user_counts_v2",
    "login_checks_v1",
    "sessions_v1",
    "organizations_v1",
    "organization_words_v1",
    "organization_counts_v1",
    "members_v1",
    "stats_v2",
    "active_users_v2",
    "accounts_v2",
    "audit_log_v2",
    "merkle_tiles_v1",
    "merkle_head_v1",
];

/// What somebody writes, and how it is told.
fn forgeries(head: u64) -> Vec<(String, String)> {
    let (ada, grace) = (id(1), id(2));
    let is = |name: &str, value: &str| format!("{name} is {value}, but the events up to {head} make it");
    vec![
        (
            format!("UPDATE users_v2 SET roles = '[\"admin\"]' WHERE user_id = {grace}"),
            is("roles", "[\"admin\"]"),
        ),
        (format!("UPDATE users_v2 SET banned = 0 WHERE user_id = {grace}"), is("banned", "0")),
        (format!("UPDATE users_v2 SET sealed = NULL WHERE user_id = {ada}"), "sealed differs".to_owned()),
        (format!("UPDATE users_v2 SET email = {grace} WHERE user_id = {ada}"), "email differs".to_owned()),
        (
            format!("DELETE FROM users_v2 WHERE user_id = {ada}"),
            "users_v2 has no row with user_id".to_owned(),
        ),
        (
            format!(
                "INSERT INTO users_v2 SELECT {}, app_id, email, 1, 0, roles, 1, 1, words, NULL FROM users_v2 WHERE user_id = {ada}",
                id(9)
            ),
            format!("users_v2 has a row with user_id {}, which no event", user(9)),
        ),
        (
            format!("INSERT INTO user_words_v2 VALUES (x'0102', 1, {ada})"),
            "user_words_v2 has a row with word 0102".to_owned(),
        ),
        ("DELETE FROM user_words_v2".to_owned(), "user_words_v2 has no row".to_owned()),
        ("UPDATE user_counts_v2 SET users = 7".to_owned(), "user_counts_v2, row with".to_owned()),
        (format!("UPDATE users_v2 SET words = {ada} WHERE user_id = {ada}"), "words differs".to_owned()),
        (
            format!("UPDATE login_checks_v1 SET user_id = {grace}"),
            "login_checks_v1, row with app_id default".to_owned(),
        ),
        ("UPDATE sessions_v1 SET revoked_at = NULL, reason = NULL".to_owned(), is("revoked_at", "nothing")),
        (
            "UPDATE stats_v2 SET count = count + 1 WHERE metric = (SELECT min(metric) FROM stats_v2)"
                .to_owned(),
            "stats_v2, row with".to_owned(),
        ),
        ("UPDATE organizations_v1 SET name = 'Looms'".to_owned(), is("name", "Looms")),
        (
            "UPDATE organization_counts_v1 SET organizations = 9223372036854775807".to_owned(),
            is("organizations", "9223372036854775807"),
        ),
        ("DELETE FROM organization_words_v1".to_owned(), "organization_words_v1 has no row".to_owned()),
        ("UPDATE members_v1 SET role = 'member'".to_owned(), is("role", "member")),
        ("DELETE FROM active_users_v2".to_owned(), "active_users_v2 has no row".to_owned()),
        ("UPDATE accounts_v2 SET verified = 1 - verified".to_owned(), "accounts_v2, row with".to_owned()),
        (
            "DELETE FROM audit_log_v2 WHERE position = 2".to_owned(),
            "audit_log_v2 has no row with position 2".to_owned(),
        ),
        (
            "UPDATE audit_log_v2 SET type = 'RoleRevoked' WHERE position = 7".to_owned(),
            is("type", "RoleRevoked"),
        ),
        (
            format!("UPDATE audit_log_v2 SET person = {grace} WHERE position = 7"),
            is("person", &user(2).to_string()),
        ),
        ("UPDATE merkle_head_v1 SET size = 3".to_owned(), is("size", "3")),
    ]
}

async fn forged_rows_are_reported(on: On) {
    let world = small_world(on).await;
    for event in [created(1, "Engines", 90_010), added(1, 1, "owner", 90_020)] {
        world.append(&event, 90_020).await;
    }
    world.catch_up(&world.models, 1000).await;
    world.models.close().await;
    let clean = compared(&world).await;
    let head = world.journal.head().await.expect("reads");
    assert_eq!(clean.len(), crate::NAMES.len());
    for comparison in &clean {
        assert_eq!(
            (comparison.position, comparison.differences.as_slice()),
            (head, &[][..]),
            "{comparison:?}"
        );
        assert!(comparison.rows > 0, "{comparison:?}");
    }
    let cases = forgeries(head);
    for table in TABLES {
        alter(&world, &format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}")).await;
    }
    for (statement, expected) in cases {
        alter(&world, &statement).await;
        let found = told(&world).await;
        assert!(found.contains(&expected), "{statement}: {found}");
        for table in TABLES {
            alter(&world, &format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept_{table}"))
                .await;
        }
        assert_eq!(compared(&world).await, clean, "{statement}: as before");
    }

    // Two swapped sealed members, and a checkpoint that is behind or ahead of the rows.
    alter(
        &world,
        "CREATE TABLE swapped AS SELECT * FROM users_v2; UPDATE users_v2 SET sealed =
         (SELECT o.sealed FROM swapped o WHERE o.user_id <> users_v2.user_id)",
    )
    .await;
    assert!(told(&world).await.contains("sealed differs"));
    alter(&world, "DELETE FROM users_v2; INSERT INTO users_v2 SELECT * FROM swapped").await;
    alter(&world, "UPDATE checkpoints SET position = 7, event = NULL WHERE projector = 'users_v2'").await;
    assert!(told(&world).await.contains("banned is 1, but the events up to 7 make it 0"));
}

/// An erased person's key is gone before the erasure reaches the read models.
async fn an_erasure_that_is_still_to_come_is_no_difference(on: On) {
    let world = small_world(on).await;
    let head = world.journal.head().await.expect("reads");
    let erased = UserErased { user_id: user(1), reason: ErasureReason::Disowned, at: at(90_100) };
    world.append(&Event::User(UserEvent::UserErased(erased.clone())), 90_100).await;
    world.sealer.keys().erase_data_key(user(1)).await.expect("erases");
    world.models.close().await;
    assert_eq!(told(&world).await, "");
    assert!(compared(&world).await.iter().all(|it| it.position == head));
    alter(&world, &format!("UPDATE users_v2 SET roles = '[\"admin\"]' WHERE user_id = {}", id(1))).await;
    assert!(told(&world).await.contains("roles is"), "what is not personal is still compared");

    // An erasure that reached the read models, and whose row was restored.
    let world = small_world(on).await;
    world.append(&Event::User(UserEvent::UserErased(erased)), 90_100).await;
    world.sealer.keys().erase_data_key(user(1)).await.expect("erases");
    world.catch_up(&world.models, 1000).await;
    world.models.close().await;
    assert_eq!(told(&world).await, "");
    alter(&world, &format!("UPDATE audit_log_v2 SET ip = x'01' WHERE person = {}", id(1))).await;
    assert!(told(&world).await.contains("ip differs"));
}

/// A table of many pages, with changes in the middle and in the last row.
async fn all_pages_are_compared(on: On) {
    let world = World::new(on).await;
    let count = 1203;
    for n in 1..=count {
        world.append(&registered(n, &format!("user{n}@example.com"), "Some Body", 0), 0).await;
    }
    world.catch_up_pages(&world.models).await;
    world.models.close().await;
    let clean = compared(&world).await;
    assert!(clean.iter().all(|it| it.differences.is_empty()), "{clean:?}");
    for n in [500, 501, count] {
        let change = |roles: &str| format!("UPDATE users_v2 SET roles = '{roles}' WHERE user_id = {}", id(n));
        alter(&world, &change("[\"admin\"]")).await;
        let found = told(&world).await;
        assert!(found.contains(&user(n).to_string()) && !found.contains('\n'), "{n}: {found}");
        alter(&world, &change("[]")).await;
    }
    alter(&world, "UPDATE users_v2 SET banned = 1").await;
    let users = compared(&world).await.into_iter().find(|it| it.projector == "users_v2").expect("is there");
    assert_eq!((users.differences.len(), users.more), (3, u64::try_from(count).expect("small") - 3));
    // Without its key, a table may contain a row twice.
    if on == On::Postgres {
        alter(&world, "UPDATE users_v2 SET banned = 0; ALTER TABLE users_v2 DROP CONSTRAINT users_v2_pkey")
            .await;
        alter(&world, &format!("INSERT INTO users_v2 SELECT * FROM users_v2 WHERE user_id = {}", id(500)))
            .await;
        assert!(!told(&world).await.is_empty());
    }
    assert_eq!(StreamId::user(user(1)).uuid(), Some(user(1).0), "ids are those of streams");
}

mod in_a_file {
    use super::On::Sqlite;

    #[tokio::test]
    async fn forged_rows_are_reported() {
        Box::pin(super::forged_rows_are_reported(Sqlite)).await;
    }

    #[tokio::test]
    async fn an_erasure_that_is_still_to_come_is_no_difference() {
        Box::pin(super::an_erasure_that_is_still_to_come_is_no_difference(Sqlite)).await;
    }

    #[tokio::test]
    async fn all_pages_are_compared() {
        Box::pin(super::all_pages_are_compared(Sqlite)).await;
    }
}

mod in_postgres {
    use super::On::Postgres;

    #[tokio::test]
    async fn forged_rows_are_reported() {
        Box::pin(super::forged_rows_are_reported(Postgres)).await;
    }

    #[tokio::test]
    async fn an_erasure_that_is_still_to_come_is_no_difference() {
        Box::pin(super::an_erasure_that_is_still_to_come_is_no_difference(Postgres)).await;
    }

    #[tokio::test]
    async fn all_pages_are_compared() {
        Box::pin(super::all_pages_are_compared(Postgres)).await;
    }
}
