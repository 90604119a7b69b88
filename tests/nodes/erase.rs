//! One node erases a person whose key and account the other has in memory.

use serde_json::{Value, json};
use test_services::Postgres;
use tests::{App, PASSWORD, Server, Tokens, email, until};

use crate::{node, node_with};

const NAME: &str = "Augusta Ada King";

/// Registers somebody on one node, and has the other show them.
async fn known_to_both(here: &App<'_>, there: &App<'_>, address: &str) -> Tokens {
    let ada = here.register(address).await;
    let named = here.patch("auth/me").bearer(&ada.access).json(&json!({ "name": NAME }));
    let named = named.await.expect(200);
    there.me(&ada.access).await.expect(200);
    let log = log_of(there, &ada, named.consistency()).await;
    assert!(log.iter().any(|entry| entry["personal"]["name"] == NAME), "{log:?}");
    ada
}

async fn log_of(app: &App<'_>, of: &Tokens, token: &str) -> Vec<Value> {
    let path = format!("audit/events?user_id={}&limit=200", of.user_id);
    let ask = || app.get(&path).bearer(&app.server.platform_key()).header("consistency-token", token);
    // The lease of a dead node's projector ends after a while.
    until("the audit log has it", async || ask().await.status == 200).await;
    ask().await.expect(200).json()["items"].as_array().expect("items").clone()
}

async fn is_unknown_on(app: &App<'_>, ada: &Tokens, address: &str, token: &str) {
    app.me(&ada.access).await.expect(401);
    app.refresh(&ada.refresh).await.expect(401);
    app.login(address, PASSWORD).await.problem(401, "invalid_credentials");
    let user = app.get(&format!("admin/users/{}", ada.user_id)).bearer(&app.server.platform_key());
    user.await.problem(404, "not_found");
    for entry in log_of(app, ada, token).await {
        assert_eq!((&entry["personal"], &entry["erased"]), (&Value::Null, &json!(true)), "{entry}");
    }
}

fn delete(server: &Server, app: &App<'_>, ada: &Tokens) -> tests::Call {
    let user = app.path(&format!("admin/users/{}", ada.user_id));
    server.delete(user).bearer(&server.platform_key())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_node_does_not_know_the_person_any_more() {
    let database = Postgres::shared().database();
    let (one, two) = tokio::join!(node(&database), node(&database));
    let (here, there, address) = (one.default_app(), two.default_app(), email("ada"));
    let ada = known_to_both(&here, &there, &address).await;
    let erased = delete(&one, &here, &ada).await.expect(200);
    is_unknown_on(&there, &ada, &address, erased.consistency()).await;
    let again = delete(&two, &there, &ada).await.expect(200);
    assert_eq!(again.json(), erased.json());
    there.register(&address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_node_finishes_what_a_dead_one_began() {
    let database = Postgres::shared().database();
    let settings = [("FAILPOINTS", "before-key-erased=return")];
    let (mut one, two) = tokio::join!(node_with(&database, &settings), node(&database));
    let address = email("ada");
    let ada = known_to_both(&one.default_app(), &two.default_app(), &address).await;
    let died = delete(&one, &one.default_app(), &ada).attempt().await;
    assert!(died.is_err(), "{died:?}");
    one.ended().await;
    let key =
        format!("SELECT wrapped IS NULL FROM watchword_keys.data_keys WHERE person = '{}'", ada.user_id);
    until("the key is gone", async || Postgres::shared().psql(&database, &key).trim() == "t").await;
    let again = delete(&two, &two.default_app(), &ada).await.expect(200);
    is_unknown_on(&two.default_app(), &ada, &address, again.consistency()).await;
}
