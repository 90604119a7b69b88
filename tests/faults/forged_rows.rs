//! Each way to forge an event, on the rows of real stores: `doctor` names each by its position, the person it is about
//! cannot log in, and all others are unaffected.

use serde_json::{Value, json};
use sqlx::{ConnectOptions, Connection, Row};
use tests::{App, Bus, PASSWORD, Server, Tokens, email};

use crate::forged_stores::Stores;

const OTHER_PASSWORD: &str = "amber-Lantern-57";

/// A person with a history: a role granted and revoked, a ban lifted, and another ban.
struct Person {
    email: String,
    tokens: Tokens,
    /// The positions of their events.
    events: Vec<(String, u64)>,
}

impl Person {
    async fn new(app: &App<'_>) -> Self {
        let email = email("ada");
        let tokens = app.register(&email).await;
        let body = json!({"old_password": PASSWORD, "new_password": OTHER_PASSWORD});
        app.post("auth/password/change").bearer(&tokens.access).json(&body).await.expect_success();
        let body = json!({"old_password": OTHER_PASSWORD, "new_password": PASSWORD});
        app.post("auth/password/change").bearer(&tokens.access).json(&body).await.expect_success();
        let key = app.server.platform_key();
        let role = app.path(&format!("admin/users/{}/roles/editor", tokens.user_id));
        app.server.put(&role).bearer(&key).await.expect_success();
        app.server.delete(&role).bearer(&key).await.expect_success();
        app.ban(&tokens.user_id).await;
        let unban = app.path(&format!("admin/users/{}/unban", tokens.user_id));
        app.server.post(&unban).bearer(&key).await.expect_success();
        app.login(&email, PASSWORD).await.expect(200);
        Self { email, tokens, events: Vec::new() }
    }

    fn remember(&mut self, events: &[Value]) {
        let subject = format!("user-{}", self.tokens.user_id);
        let of_them = events.iter().filter(|event| event["subject"] == *subject);
        let named = |event: &Value| {
            (
                event["type"].as_str().expect("a type").to_owned(),
                event["position"].as_u64().expect("a position"),
            )
        };
        self.events = of_them.map(named).collect();
    }

    fn position(&self, name: &str) -> u64 {
        self.events.iter().find(|(found, _)| found == name).expect("it happened").1
    }

    /// An event of theirs again, after the end of the journal.
    fn again(&self, name: &str, at: u64) -> String {
        format!(
            "INSERT INTO events SELECT {at}, id, stream, (SELECT max(version) + 1 FROM events WHERE stream = 'user-{}'), type,
                 schema_version, at, app_id, metadata, data, person, personal, mac FROM events WHERE position = {};",
            self.tokens.user_id,
            self.position(name)
        )
    }
}

fn swap(one: u64, other: u64) -> String {
    format!(
        "UPDATE events SET position = -1 - position WHERE position IN ({one}, {other});
         UPDATE events SET position = CASE position WHEN -1 - {one} THEN {other} ELSE {one} END WHERE position < 0;"
    )
}

/// The MAC of the same event, of a user of another instance.
async fn mac_of_another_instance() -> String {
    let mut server = Server::start_with(&crate::SETTINGS).await;
    let mut person = Person::new(&server.default_app()).await;
    person.remember(&server.events().await);
    assert!(server.terminate().await.success());
    let mut file = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(server.data().join("journal.db"))
        .connect()
        .await
        .expect("it opens");
    let row = sqlx::query("SELECT lower(hex(mac)) FROM events WHERE position = ?1")
        .bind(person.position("UserUnbanned").cast_signed())
        .fetch_one(&mut file)
        .await
        .expect("it is there");
    file.close().await.expect("it closes");
    row.get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_forged_row_is_named_and_lets_nobody_in() {
    let foreign = mac_of_another_instance().await;
    let (one, other) = (Bus::start(), Bus::start());
    for mut stores in Stores::both([&one, &other]).await {
        let mut persons = Vec::new();
        for _ in 0..9 {
            persons.push(Person::new(&stores.server.default_app()).await);
        }
        let events = stores.server.events().await;
        let head = events.len() as u64;
        for person in &mut persons {
            person.remember(&events);
        }
        let [none, empty, zeros, moved, changed, of_another, twice, old_password, whole] = &persons[..]
        else {
            panic!("there are nine")
        };
        stores.stop().await;

        let set = |person: &Person, mac: &str| {
            let position = person.position("UserUnbanned");
            (position, format!("UPDATE events SET mac = {mac} WHERE position = {position};"))
        };
        let bytes = |hex: &str| stores.bytes(hex);
        let (ban, grant, revocation) =
            (moved.position("UserBanned"), changed.position("RoleGranted"), changed.position("RoleRevoked"));
        let forged = [
            set(none, "NULL"),
            set(empty, &bytes("")),
            set(zeros, &bytes(&"00".repeat(16))),
            set(of_another, &bytes(&foreign)),
            // The ban and its lifting swapped.
            (ban, swap(ban, moved.position("UserUnbanned"))),
            (revocation, format!("UPDATE events SET version = version + 100 WHERE position = {revocation};")),
            (
                grant,
                format!(
                    "UPDATE events SET data = replace(data, 'editor', 'admin') WHERE position = {grant};"
                ),
            ),
            (head + 1, twice.again("UserUnbanned", head + 1)),
            (head + 2, old_password.again("PasswordChanged", head + 2)),
        ];
        for (_, statement) in &forged {
            stores.alter("journal", statement).await;
        }

        let (fine, doctor, text) = stores.run(&["doctor", "--json"]);
        assert!(!fine, "{text}");
        let faults: Vec<&str> = doctor["checks"]
            .as_array()
            .expect("checks")
            .iter()
            .filter(|it| it["verdict"] == "fault")
            .filter_map(|it| it["detail"].as_str())
            .collect();
        for (position, statement) in &forged {
            let named = faults.iter().any(|fault| fault.contains(&format!("event {position} ")));
            assert!(named, "{statement}: event {position} is not named: {faults:?}");
        }

        stores.server.up_open().await;
        let app = stores.server.default_app();
        for (number, person) in persons[..8].iter().enumerate() {
            for password in [PASSWORD, OTHER_PASSWORD] {
                let answer = app.login(&person.email, password).await;
                assert_eq!(answer.status, 503, "{number}: {}", answer.text);
                answer.problem(503, "journal_damaged");
            }
            app.refresh(&person.tokens.refresh).await.problem(503, "journal_damaged");
        }
        let tokens = app.login(&whole.email, PASSWORD).await.expect(200).tokens();
        assert_eq!(app.me(&tokens.access).await.expect(200).json()["roles"], json!([]));
        stores.stop().await;
    }
}

/// An event is removed from a person's stream, and all later ones of the journal are moved up, so that there is no gap.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_taken_out_is_missed() {
    let (one, other) = (Bus::start(), Bus::start());
    for mut stores in Stores::both([&one, &other]).await {
        let mut victim = Person::new(&stores.server.default_app()).await;
        let whole = Person::new(&stores.server.default_app()).await;
        victim.remember(&stores.server.events().await);
        let revocation = victim.position("RoleRevoked");
        stores.stop().await;
        stores.alter("journal", &format!("DELETE FROM events WHERE position = {revocation}")).await;
        let (fine, _, text) = stores.run(&["doctor", "--json"]);
        assert!(!fine && text.contains(&format!("event {revocation} is missing")), "{text}");

        stores
            .alter(
                "journal",
                &format!(
                    "UPDATE events SET position = -position WHERE position > {revocation};
                     UPDATE events SET position = -position - 1 WHERE position < 0"
                ),
            )
            .await;
        let (fine, _, text) = stores.run(&["doctor", "--json"]);
        assert!(!fine && text.contains(&format!("event {revocation} ")), "the first that was moved: {text}");
        stores.server.up_open().await;
        let app = stores.server.default_app();
        for person in [&victim, &whole] {
            app.login(&person.email, PASSWORD).await.problem(503, "journal_damaged");
        }
        stores.stop().await;
    }
}
