//! Claims and cursors are rows that anyone with write access to the store can change without a key: the only effects
//! are those that `doctor` names.

use serde_json::{Value, json};
use test_services::Smtp;
use tests::{Bus, PASSWORD, Server, Tokens, email, of_type};

use crate::forged_stores::Stores;
use crate::until;

/// What `doctor` finds with this verdict, and whether it succeeds.
fn found(stores: &Stores, verdict: &str) -> (bool, Vec<String>) {
    let (fine, doctor, text) = stores.run(&["doctor", "--json"]);
    let checks = doctor["checks"].as_array().unwrap_or_else(|| panic!("{text}"));
    let details = checks.iter().filter(|it| it["verdict"] == verdict).filter_map(|it| it["detail"].as_str());
    (fine, details.map(str::to_owned).collect())
}

#[track_caller]
fn named(stores: &Stores, verdict: &str, what: &str) {
    let (fine, details) = found(stores, verdict);
    assert!(details.iter().any(|detail| detail.contains(what)), "{what}: {details:?}");
    assert_eq!(fine, verdict == "warning", "{details:?}");
}

async fn sessions(server: &Server, address: &str) -> [Tokens; 2] {
    let app = server.default_app();
    [
        app.login(address, PASSWORD).await.expect(200).tokens(),
        app.login(address, PASSWORD).await.expect(200).tokens(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_without_a_claim_end_with_all_others() {
    let (one, other) = (Bus::start(), Bus::start());
    for mut stores in Stores::both([&one, &other]).await {
        let addresses = [email("ada"), email("eve"), email("mallory")];
        let app = stores.server.default_app();
        for address in &addresses {
            app.register(address).await;
        }
        let [ada, kept] = sessions(&stores.server, &addresses[0]).await;
        let [eve, _] = sessions(&stores.server, &addresses[1]).await;
        let [mallory, _] = sessions(&stores.server, &addresses[2]).await;
        stores.stop().await;
        stores.alter("journal", "DELETE FROM claims WHERE kind = 'session'").await;
        named(&stores, "fault", "no claim lists session-");

        // Ended by the user, by a ban, and by the operator.
        stores.server.up().await;
        let app = stores.server.default_app();
        let body = json!({"exclude_current": true});
        app.post("auth/sessions/revoke-all").bearer(&kept.access).json(&body).await.expect(200);
        app.refresh(&ada.refresh).await.expect(401);
        app.me(&ada.access).await.expect(401);
        app.me(&kept.access).await.expect(200);
        app.ban(&eve.user_id).await;
        let unban = app.path(&format!("admin/users/{}/unban", eve.user_id));
        app.server.post(&unban).bearer(&app.server.platform_key()).await.expect_success();
        app.refresh(&eve.refresh).await.expect(401);
        app.me(&mallory.access).await.expect(200);
        stores.stop().await;
        let (fine, ended, text) = stores.run(&["end-sessions", "--all", "--json"]);
        assert!(fine && ended["users"] == 3, "{text}");
        stores.server.up().await;
        let app = stores.server.default_app();
        for tokens in [&mallory, &kept] {
            app.refresh(&tokens.refresh).await.expect(401);
            app.me(&tokens.access).await.expect(401);
        }
        stores.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_are_made_up_or_taken_away_make_nothing_so() {
    let (one, other) = (Bus::start(), Bus::start());
    for mut stores in Stores::both([&one, &other]).await {
        let ada = email("ada");
        let app = stores.server.default_app();
        let of_ada = app.register(&ada).await;
        let before = stores.server.events().await;
        let origin = |events: &[Value]| {
            let schema = events[0]["dataschema"].as_str().expect("it has one").to_owned();
            schema.split("/schemas/").next().expect("an origin").to_owned()
        };
        until("the read models know her", async || {
            let list =
                app.server.get("/v1/projections").bearer(&app.server.platform_key()).await.expect(200).json();
            list["items"].as_array().expect("a list").iter().all(|it| it["lag"] == 0)
        })
        .await;
        stores.stop().await;

        let owner = format!("user-{}", of_ada.user_id);
        stores
            .alter(
                "journal",
                &format!(
                    "INSERT INTO claims (kind, key, owner) VALUES ('erased', '{}', '{owner}'), ('app', 'evil', '{owner}'),
                         ('magic_link', 'nobody', 'magic_link-{1}');
                     DELETE FROM claims WHERE kind IN ('journal', 'email')",
                    of_ada.user_id, of_ada.user_id
                ),
            )
            .await;
        let (_, faults) = found(&stores, "fault");
        for what in [
            &format!("no claim holds the address of user {}", of_ada.user_id),
            "no claim holds the origin",
            "the magic_link claim nobody is held by",
            &format!("the erased claim {} is held by {owner}, but no event says so", of_ada.user_id),
            "the app claim evil is held by",
        ] {
            assert!(faults.iter().any(|fault| fault.contains(what)), "{what}: {faults:?}");
        }

        // Another address of the service would give another origin.
        stores.server.set_environment("WATCHWORD_PUBLIC_URL", "https://elsewhere.example.com");
        stores.server.up().await;
        stores.server.says("a claim says that a user was erased, but no event does").await;
        let app = stores.server.default_app();
        let tokens = app.login(&ada, PASSWORD).await.expect(200).tokens();
        assert_eq!(app.me(&tokens.access).await.expect(200).json()["email"], *ada);
        let again = json!({ "email": ada, "password": PASSWORD });
        app.post("auth/register").json(&again).await.problem(409, "email_taken");
        let key = app.server.platform_key();
        let apps = app.server.get("/v1/apps").bearer(&key).await.expect(200).json();
        let ids: Vec<&Value> =
            apps["items"].as_array().expect("a list").iter().map(|app| &app["id"]).collect();
        assert!(!ids.contains(&&json!("evil")), "{apps}");
        let events = stores.server.events().await;
        assert_eq!(of_type(&events, "JournalCreated").len(), 1);
        assert_eq!(origin(&events), origin(&before));
        let newest = &events[events.len() - 1..];
        assert_eq!(origin(newest), origin(&before), "also in new events");
        stores.stop().await;
    }
}

/// The cursor is moved forward, so that a mail is skipped; moved back, so that all are processed again; and the lists
/// are emptied.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_is_passed_over_is_named_and_none_goes_out_twice() {
    let (one, other) = (Bus::start(), Bus::start());
    for mut stores in Stores::both([&one, &other]).await {
        let outbox = stores.server.data().join("outbox");
        let mails = || {
            let files = std::fs::read_dir(&outbox).into_iter().flatten().flatten();
            files.filter(|file| file.path().extension().is_some_and(|it| it == "eml")).count()
        };
        // The second is temporarily refused, and the mail server does not answer the third.
        let addresses = [email("ada"), email("defer"), email("hang"), email("mallory")];
        for address in &addresses {
            stores.server.default_app().register(address).await;
        }
        let ask = async |server: &Server, address: &str| {
            let body = json!({ "email": address });
            server.default_app().post("auth/password-reset/request").json(&body).await.expect(202);
        };
        let count = async |server: &Server, name: &str| of_type(&server.events().await, name).len();
        ask(&stores.server, &addresses[0]).await;
        until("the first is sent", async || count(&stores.server, "MailSent").await == 1).await;
        assert_eq!(mails(), 1);
        stores.stop().await;

        let smtp = Smtp::start();
        stores.server.set_environment("WATCHWORD_MAIL_URL", &smtp.url());
        stores.server.up().await;
        ask(&stores.server, &addresses[1]).await;
        until("the second has failed", async || count(&stores.server, "MailFailed").await >= 1).await;
        ask(&stores.server, &addresses[2]).await;
        ask(&stores.server, &addresses[3]).await;
        let events = stores.server.events().await;
        let asked = of_type(&events, "PasswordResetRequested");
        let [second, third, last] =
            [1, 2, 3].map(|n: usize| asked[n]["position"].as_u64().expect("a position"));
        stores.server.kill();
        let free = if stores.database.is_some() { ", holder = NULL" } else { "" };
        let cursor = |to: u64| format!("UPDATE effects SET position = {to}{free} WHERE name = 'mail'");
        stores.alter("journal", &cursor(last)).await;
        stores.alter("journal", "DELETE FROM claims WHERE kind = 'mail_waiting'").await;
        let lists = format!(
            "mail password_reset that event {second} asked for is due for a retry, but no claim lists it"
        );
        named(&stores, "fault", &lists);
        let passed_over = format!("2 were skipped, the first requested by event {third}");
        let (_, warnings) = found(&stores, "warning");
        assert!(warnings.iter().any(|warning| warning.contains(&passed_over)), "{warnings:?}");

        // If it is deleted, it starts at the newest event.
        stores.alter("journal", "DELETE FROM effects WHERE name = 'mail'").await;
        let folder = format!("file://{}", outbox.display());
        stores.server.set_environment("WATCHWORD_MAIL_URL", &folder);
        let done = async |server: &Server| {
            let head = server.events().await.len() as u64;
            until("the mailer has processed everything", async || {
                let ready = server.get("/readyz").bearer(&server.platform_key()).await.json();
                let mailer = &ready["checks"]["mailer"];
                mailer["state"] == "running" && mailer["position"].as_u64() >= Some(head)
            })
            .await;
        };
        stores.server.up().await;
        done(&stores.server).await;
        assert_eq!(mails(), 1, "all are skipped");
        stores.stop().await;
        let (_, warnings) = found(&stores, "warning");
        assert!(warnings.iter().any(|warning| warning.contains(&passed_over)), "{warnings:?}");

        // Back at the beginning: unsent mails are sent, and sent ones are not sent again.
        stores.alter("journal", &cursor(0)).await;
        stores.server.up().await;
        until("all are sent", async || count(&stores.server, "MailSent").await == 4).await;
        done(&stores.server).await;
        assert_eq!((mails(), count(&stores.server, "MailSent").await), (4, 4));
        stores.stop().await;
        let (fine, faults) = found(&stores, "fault");
        assert!(fine, "{faults:?}");
    }
}

/// An attacker restores the row with the key of a person who has since been erased.
#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_an_erased_person_does_not_stay_back() {
    let (one, other) = (Bus::start(), Bus::start());
    for mut stores in Stores::both([&one, &other]).await {
        let ada = email("ada");
        let key = stores.server.platform_key();
        let app = stores.server.create_app(json!({"delivery": "app"})).await;
        let of_ada = app.register(&ada).await;
        let id = app.id.clone();
        stores.stop().await;
        stores.alter("keys", "CREATE TABLE kept AS SELECT * FROM data_keys").await;
        stores.server.up().await;
        let app = stores.server.app(&id);
        let token = app.mailed_token(&key, "email-verification/request", &json!({ "email": ada })).await;
        app.post("auth/email-verification/disown").json(&json!({ "token": token })).await.expect_success();
        stores.stop().await;
        let (fine, faults) = found(&stores, "fault");
        assert!(fine, "{faults:?}");

        let back = "DELETE FROM data_keys WHERE person IN (SELECT person FROM kept); INSERT INTO data_keys SELECT * FROM kept";
        stores.alter("keys", back).await;
        named(&stores, "fault", &format!("user {} was erased, but their key still exists", of_ada.user_id));
        stores.server.up().await;
        stores.server.app(&id).login(&ada, PASSWORD).await.expect(401);
        stores.stop().await;
        let (fine, faults) = found(&stores, "fault");
        assert!(fine, "the start has ended it: {faults:?}");
    }
}
