//! An attacker with write access to the stores but without the master key forges events: they let no one in, users who
//! do not depend on them are unaffected, and `doctor` names them. The forged end is cut off.

use std::process::Command;

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use test_services::Postgres;
use tests::{Bus, PASSWORD, Server, email, of_type};

use crate::postgres::node;
use crate::{server_with, until};

/// A stopped server whose stores are tampered with.
pub struct Stores {
    pub server: Server,
    pub database: Option<String>,
}

impl Stores {
    /// One with files and one with a database, each with its bus.
    pub async fn both([one, other]: [&Bus; 2]) -> [Self; 2] {
        let database = Postgres::shared().database();
        let server = node(&database, other).await;
        [Self { server: server_with(one).await, database: None }, Self { server, database: Some(database) }]
    }

    /// These bytes as a literal of the database.
    pub fn bytes(&self, hex: &str) -> String {
        if self.database.is_some() { format!("'\\x{hex}'::bytea") } else { format!("x'{hex}'") }
    }

    /// Changes the journal, the key store or the read models, with statements that both databases understand.
    pub async fn alter(&self, store: &str, statements: &str) {
        if let Some(database) = &self.database {
            let schema = match store {
                "journal" => "watchword",
                "keys" => "watchword_keys",
                _ => "watchword_read",
            };
            let rights = if store == "journal" {
                "ALTER TABLE events DISABLE TRIGGER USER; ALTER TABLE events ALTER COLUMN mac DROP NOT NULL;"
            } else {
                ""
            };
            Postgres::shared().psql(database, &format!("SET search_path = {schema}; {rights} {statements}"));
            return;
        }
        let path = self.server.data().join(format!("{store}.db"));
        let mut file =
            sqlx::sqlite::SqliteConnectOptions::new().filename(path).connect().await.expect("it opens");
        for trigger in ["events_are_never_changed", "events_are_never_deleted", "events_have_no_gaps"] {
            let drop = format!("DROP TRIGGER IF EXISTS {trigger}");
            file.execute(AssertSqlSafe(drop)).await.expect("it can be dropped");
        }
        file.execute(AssertSqlSafe(statements.to_owned())).await.expect("it can be changed");
        file.close().await.expect("it closes");
    }

    pub async fn stop(&mut self) {
        assert!(self.server.terminate().await.success());
    }

    pub fn run(&self, arguments: &[&str]) -> (bool, Value, String) {
        let output = Command::output(&mut self.server.command(arguments)).expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        (output.status.success(), serde_json::from_str(&text).unwrap_or_default(), text + &errors)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_no_node_wrote_makes_nobody_an_admin() {
    let (one, other) = (Bus::start(), Bus::start());
    for mut stores in Stores::both([&one, &other]).await {
        let server = &stores.server;
        let (ada, eve, other) = (email("ada"), email("eve"), email("other"));
        let app = server.default_app();
        let of_ada = app.register_admin(&ada).await;
        let role = app.path(&format!("admin/users/{}/roles/admin", of_ada.user_id));
        server.delete(role).bearer(&server.platform_key()).await.expect_success();
        let (of_eve, of_other) = (app.register(&eve).await, app.register(&other).await);
        let events = server.events().await;
        let grant = of_type(&events, "RoleGranted")[0]["position"].as_u64().expect("a position");
        let head = events.len() as u64;
        stores.stop().await;

        // Eve gets a copy of it, and Ada her own again.
        let copy = |position: u64, user: &str, person: &str| {
            format!(
                "INSERT INTO events SELECT {position}, id, 'user-{user}',
                     (SELECT max(version) + 1 FROM events WHERE stream = 'user-{user}'), type, schema_version, at, app_id,
                     metadata, replace(data, '{}', '{user}'), {person}, personal, mac FROM events WHERE position = {grant};",
                of_ada.user_id
            )
        };
        let of_eves = format!("(SELECT person FROM events WHERE stream = 'user-{}' LIMIT 1)", of_eve.user_id);
        stores.alter("journal", &copy(head + 1, &of_eve.user_id, &of_eves)).await;
        stores.alter("journal", &copy(head + 2, &of_ada.user_id, "person")).await;

        let (fine, doctor, text) = stores.run(&["doctor", "--json"]);
        assert!(!fine, "{text}");
        let faults =
            doctor["checks"].as_array().expect("checks").iter().filter(|it| it["verdict"] == "fault");
        let faults: Vec<&str> = faults.filter_map(|it| it["detail"].as_str()).collect();
        for position in [head + 1, head + 2] {
            assert!(faults.iter().any(|it| it.contains(&format!("event {position}"))), "{faults:?}");
        }
        let (fine, listed, text) = stores.run(&["cut-forged-tail", "--json"]);
        assert!(!fine && listed["cut"] == false && listed["last_proven"] == head, "{text}");

        stores.server.up_open().await;
        let server = &stores.server;
        let app = server.default_app();
        for (who, tokens) in [(&ada, &of_ada), (&eve, &of_eve)] {
            app.login(who, PASSWORD).await.problem(503, "journal_damaged");
            app.me(&tokens.access).await.problem(503, "journal_damaged");
            app.refresh(&tokens.refresh).await.problem(503, "journal_damaged");
        }
        app.me(&of_other.access).await.expect(200);
        until("the projectors stop before it", async || {
            let ready = server.get("/readyz").bearer(&server.platform_key()).await.json();
            let projectors = ready["checks"]["projectors"].as_array().cloned().unwrap_or_default();
            projectors.iter().all(|it| it["failed_position"] == head + 1)
                && ready["checks"]["journal"]["damaged"]
                    .as_array()
                    .is_some_and(|it| it.contains(&json!(head + 1)))
        })
        .await;
        server.says("its MAC is wrong").await;
        stores.stop().await;

        let (fine, cut, text) = stores.run(&["cut-forged-tail", "--yes", "--json"]);
        assert!(fine && cut["cut"] == true, "{text}");
        let types: Vec<_> =
            cut["unproven"].as_array().expect("a list").iter().map(|it| &it["type"]).collect();
        assert_eq!(types, ["RoleGranted", "RoleGranted"]);
        let (fine, _, text) = stores.run(&["doctor", "--json"]);
        assert!(fine, "{text}");
        stores.server.up().await;
        let app = stores.server.default_app();
        for who in [&ada, &eve] {
            let tokens = app.login(who, PASSWORD).await.expect(200).tokens();
            let me = app.me(&tokens.access).await.expect(200).json();
            assert_eq!(me["roles"], json!([]), "{who}");
        }
        app.login(&other, PASSWORD).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_claims_that_changed_places_let_nobody_in_as_somebody_else() {
    let (one, other) = (Bus::start(), Bus::start());
    for mut stores in Stores::both([&one, &other]).await {
        let (ada, eve) = (email("ada"), email("eve"));
        let app = stores.server.default_app();
        let (of_ada, of_eve) = (app.register(&ada).await, app.register(&eve).await);
        stores.stop().await;
        let owner = |tokens: &tests::Tokens| format!("'user-{}'", tokens.user_id);
        let swap = format!(
            "UPDATE claims SET owner = CASE owner WHEN {0} THEN {1} ELSE {0} END WHERE kind = 'email' AND owner IN ({0}, {1})",
            owner(&of_ada),
            owner(&of_eve)
        );
        stores.alter("journal", &swap).await;
        let (fine, _, text) = stores.run(&["doctor", "--json"]);
        assert!(!fine && text.contains("the email claim") && text.contains(&of_ada.user_id), "{text}");

        stores.server.up().await;
        let app = stores.server.default_app();
        // Users who are found in another way are found; nobody becomes another user.
        for (who, tokens) in [(&ada, &of_ada), (&eve, &of_eve)] {
            let answer = app.login(who, PASSWORD).await;
            if answer.status == 200 {
                assert_eq!(answer.tokens().user_id, tokens.user_id);
            } else {
                answer.problem(503, "journal_damaged");
            }
            let again = json!({ "email": who, "password": PASSWORD });
            app.post("auth/register").json(&again).await.problem(409, "email_taken");
        }
        stores.stop().await;
        stores.alter("journal", &swap).await;

        let swap = if stores.database.is_some() {
            "CREATE TEMP TABLE old AS SELECT * FROM data_keys;
             UPDATE data_keys k SET wrapped = (SELECT o.wrapped FROM old o WHERE o.person <> k.person LIMIT 1)"
        } else {
            "CREATE TEMP TABLE old AS SELECT * FROM data_keys;
             UPDATE data_keys SET wrapped = (SELECT o.wrapped FROM old o WHERE o.person <> data_keys.person LIMIT 1)"
        };
        stores.alter("keys", swap).await;
        let (fine, _, text) = stores.run(&["doctor", "--json"]);
        assert!(!fine && text.contains("cannot be unwrapped"), "{text}");
        stores.server.up_open().await;
        let app = stores.server.default_app();
        for who in [&ada, &eve] {
            app.login(who, PASSWORD).await.problem(503, "journal_damaged");
        }
        stores.stop().await;
    }
}
