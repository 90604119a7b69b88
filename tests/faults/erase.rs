//! A person is erased, and the service dies at each step of it, as by kill -9. Either the person is still there, whole, or
//! nothing that is stored anywhere opens what it says of them: not the journal or its log, not the read models, not the
//! messages on NATS, and no file has their key.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use test_services::Postgres;
use tests::{Bus, PASSWORD, email, files_under, of_type, until};

use crate::forged_stores::Stores;
use crate::steps::ABORTED;

const NAME: &str = "Augusta Ada King";

/// Each step of an erasure, and whether it is done when the service dies there.
const STEPS: [(&str, bool); 6] = [
    ("before-append", false),
    ("after-append", true),
    ("before-key-erased", true),
    ("before-log-emptied", true),
    ("after-key-erased", true),
    ("mid-projection", true),
];

/// The wrapped key of a person.
async fn wrapped_key(stores: &Stores, user_id: &str) -> Option<Vec<u8>> {
    if let Some(database) = &stores.database {
        let query =
            format!("SELECT encode(wrapped, 'hex') FROM watchword_keys.data_keys WHERE person = '{user_id}'");
        return Some(hex(Postgres::shared().psql(database, &query).trim())).filter(|key| !key.is_empty());
    }
    let file = SqliteConnectOptions::new().filename(stores.server.data().join("keys.db")).read_only(true);
    let mut file = file.connect().await.expect("it opens");
    let query = "SELECT wrapped FROM data_keys WHERE person = unhex(?1)";
    let key = sqlx::query_scalar(query).bind(user_id.replace('-', "")).fetch_one(&mut file).await;
    file.close().await.expect("it closes");
    key.expect("there is a row")
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte =
        |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("digits");
    digits.chunks(2).map(byte).collect()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The files that have one of these, except mails that were sent.
fn files_with(files: &[(PathBuf, Vec<u8>)], parts: &[&[u8]]) -> Vec<PathBuf> {
    let kept = files.iter().filter(|(path, _)| !path.components().any(|it| it.as_os_str() == "outbox"));
    let hits = kept.filter(|(_, bytes)| parts.iter().any(|part| contains(bytes, part)));
    hits.map(|(path, _)| path.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_at_any_step_ends_in_nothing_or_all_of_it() {
    let (one, other) = (Bus::start(), Bus::start());
    for mut stores in Stores::both([&one, &other]).await {
        let key = stores.server.platform_key();
        let id = stores.server.create_app(json!({})).await.id.clone();
        for (step, is_done) in STEPS {
            if stores.database.is_some() && step == "before-log-emptied" {
                continue;
            }
            let address = email("ada");
            let app = stores.server.app(&id);
            let ada = app.register(&address).await;
            app.patch("auth/me").bearer(&ada.access).json(&json!({ "name": NAME })).await.expect(200);
            // Others have keys on the same pages.
            for n in 0..5 {
                app.register(&email(&format!("other{n}"))).await;
            }
            // What is projected at the next start is the erasure, and nothing before it.
            until("the read models have her", async || {
                let list = stores.server.get("/v1/projections").bearer(&key).await.expect(200).json();
                list["items"].as_array().expect("items").iter().all(|model| model["lag"] == 0)
            })
            .await;
            stores.stop().await;
            let wrapped = wrapped_key(&stores, &ada.user_id).await.expect("she has a key");
            stores.server.set_environment("FAILPOINTS", &format!("{step}=return"));
            stores.server.up_open().await;
            let user = format!("/v1/apps/{id}/admin/users/{}", ada.user_id);
            // The process may die before it can answer.
            let _ = stores.server.delete(&user).bearer(&key).attempt().await;
            assert_eq!(stores.server.ended().await.signal(), Some(ABORTED), "it died {step}");
            stores.server.set_environment("FAILPOINTS", "");
            stores.server.up().await;

            let app = stores.server.app(&id);
            let events = stores.server.events().await;
            let erased = of_type(&events, "UserErased").iter().any(|it| it["data"]["user_id"] == ada.user_id);
            assert_eq!(erased, is_done, "{step}");
            if !erased {
                app.me(&ada.access).await.expect(200);
                assert_eq!(stores.server.get(&user).bearer(&key).await.expect(200).json()["name"], NAME);
                stores.server.delete(&user).bearer(&key).await.expect(200);
            }
            app.me(&ada.access).await.expect(401);
            app.login(&address, PASSWORD).await.problem(401, "invalid_credentials");
            stores.server.get(&user).bearer(&key).await.expect(404);
            assert_eq!(wrapped_key(&stores, &ada.user_id).await, None, "{step}: the key is gone");
            // Also while it runs: logs, free pages, and the files of NATS.
            let bus = if stores.database.is_some() { &other } else { &one };
            let files = [stores.server.stored_bytes(), files_under(bus.store())].concat();
            let found = files_with(&files, &[&wrapped, NAME.as_bytes(), address.as_bytes()]);
            assert_eq!(found, Vec::<PathBuf>::new(), "{step}");
            let again = stores.server.delete(&user).bearer(&key).await.expect(200);
            let log = || {
                let log = app.get(&format!("audit/events?user_id={}&limit=200", ada.user_id));
                log.bearer(&key).header("consistency-token", again.consistency())
            };
            // The leases of a node that died have to end first.
            until("the read model is there", async || log().status().await == 200).await;
            let log = log().await.expect(200).json();
            for entry in log["items"].as_array().expect("items") {
                assert_eq!(
                    (&entry["personal"], &entry["erased"]),
                    (&Value::Null, &json!(true)),
                    "{step}: {entry}"
                );
            }
            app.register(&address).await;
        }
        stores.stop().await;
        let (fine, report, text) = stores.run(&["doctor", "--json"]);
        assert!(fine, "{text}");
        assert!(report["checks"].is_array(), "{text}");
    }
}

/// A backup of the key store from before the erasure is restored.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_key_store_does_not_bring_the_person_back() {
    let (one, other) = (Bus::start(), Bus::start());
    for mut stores in Stores::both([&one, &other]).await {
        let (key, address) = (stores.server.platform_key(), email("ada"));
        let app = stores.server.create_app(json!({})).await;
        let (id, ada) = (app.id.clone(), app.register(&address).await);
        stores.stop().await;
        stores.alter("keys", "CREATE TABLE kept AS SELECT * FROM data_keys").await;
        stores.server.up().await;
        let user = format!("/v1/apps/{id}/admin/users/{}", ada.user_id);
        stores.server.delete(&user).bearer(&key).await.expect(200);
        stores.stop().await;
        let back = "DELETE FROM data_keys WHERE person IN (SELECT person FROM kept); INSERT INTO data_keys SELECT * FROM kept";
        stores.alter("keys", back).await;
        assert!(wrapped_key(&stores, &ada.user_id).await.is_some());
        stores.server.up_alive().await;
        until("it is open", async || stores.server.get("/readyz").await.status == 200).await;
        assert_eq!(wrapped_key(&stores, &ada.user_id).await, None, "before it is ready");
        let log = stores.server.app(&id).get(&format!("audit/events?user_id={}", ada.user_id)).bearer(&key);
        for entry in log.await.expect(200).json()["items"].as_array().expect("items") {
            assert_eq!((&entry["personal"], &entry["erased"]), (&Value::Null, &json!(true)), "{entry}");
        }
    }
}
