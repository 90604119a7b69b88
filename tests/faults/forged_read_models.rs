//! An attacker with write access to the read models makes them show what never happened: this lets no one in, grants no
//! role, and `doctor` names the rows.

use serde_json::{Value, json};
use tests::{Bus, PASSWORD, checker, claims_of, email, of_type};

use crate::forged_stores::Stores;
use crate::until;

/// Of the same length as the other password, but with other words, so that a confusion of users shows.
const OF_EVE: &str = "amber-Lantern-57";

#[tokio::test(flavor = "multi_thread")]
async fn forged_read_models_let_nobody_in() {
    let (one, other) = (Bus::start(), Bus::start());
    for mut stores in Stores::both([&one, &other]).await {
        let (ada, eve, mallory) = (email("ada"), email("eve"), email("mallory"));
        let app = stores.server.default_app();
        let of_ada = app.register(&ada).await;
        let body = json!({ "email": eve, "password": OF_EVE });
        let of_eve = app.post("auth/register").json(&body).await.expect(201).tokens();
        let of_mallory = app.register(&mallory).await;
        app.ban(&of_mallory.user_id).await;
        let events = stores.server.events().await;
        let ban = of_type(&events, "UserBanned")[0]["position"].as_u64().expect("a position");
        let all_lag = |list: Value| list["items"].as_array().expect("a list").iter().all(|it| it["lag"] == 0);
        until("the read models have all", async || {
            let key = stores.server.platform_key();
            all_lag(stores.server.get("/v1/projections").bearer(&key).await.expect(200).json())
        })
        .await;
        stores.stop().await;
        let (fine, _, text) = stores.run(&["doctor", "--json"]);
        assert!(fine && text.contains("rows match the events up to"), "{text}");

        let bytes = |id: &str| stores.bytes(&id.replace('-', ""));
        let (a, e, m) = (bytes(&of_ada.user_id), bytes(&of_eve.user_id), bytes(&of_mallory.user_id));
        stores
            .alter(
                "read-models",
                &format!(
                    "UPDATE users_v2 SET roles = '[\"admin\"]', email_verified = 1 WHERE user_id = {e};
                     UPDATE users_v2 SET banned = 0 WHERE user_id = {m};
                     UPDATE sessions_v1 SET revoked_at = NULL, reason = NULL WHERE user_id = {m};
                     UPDATE sessions_v1 SET user_id = {a}, sealed = NULL WHERE user_id = {e};
                     UPDATE login_checks_v1 SET user_id = CASE user_id WHEN {a} THEN {e} ELSE {a} END WHERE user_id IN ({a}, {e});
                     DELETE FROM audit_log_v2 WHERE position = {ban};
                     UPDATE stats_v2 SET count = count + 1"
                ),
            )
            .await;
        let (fine, _, text) = stores.run(&["doctor", "--json"]);
        assert!(!fine, "{text}");
        for named in [
            format!(
                "users_v2, row with user_id {}: email_verified is 1, but the events up to",
                of_eve.user_id
            ),
            format!("users_v2, row with user_id {}: banned is 0", of_mallory.user_id),
            format!("audit_log_v2 has no row with position {ban}"),
            "login_checks_v1, row with app_id default".to_owned(),
            "sessions_v1, row with session_id".to_owned(),
            "stats_v2, row with app_id".to_owned(),
        ] {
            assert!(text.contains(&named), "{named}: {text}");
        }

        stores.server.up().await;
        let key = stores.server.platform_key();
        let app = stores.server.default_app();
        app.login(&mallory, PASSWORD).await.expect_refusal();
        app.refresh(&of_mallory.refresh).await.expect(401);
        // Nobody becomes another user, neither with their own password nor with the other's.
        app.login(&ada, OF_EVE).await.problem(401, "invalid_credentials");
        app.login(&eve, PASSWORD).await.problem(401, "invalid_credentials");
        let as_ada = app.login(&ada, PASSWORD).await.expect(200).tokens();
        let as_eve = app.login(&eve, OF_EVE).await.expect(200).tokens();
        assert_eq!((&as_ada.user_id, &as_eve.user_id), (&of_ada.user_id, &of_eve.user_id));
        for tokens in [&as_eve, &app.refresh(&of_eve.refresh).await.expect(200).tokens()] {
            assert_eq!(claims_of(&tokens.access)["roles"], json!([]));
            assert_eq!(app.me(&tokens.access).await.expect(200).json()["roles"], json!([]));
            let form = [("token", tokens.access.as_str())];
            let told = app.post("auth/introspect").bearer(&key).form(&form).await.expect(200).json();
            assert_eq!((&told["active"], &told["roles"]), (&json!(true), &json!([])), "{told}");
            app.get("admin/users").bearer(&tokens.access).await.problem(403, "forbidden");
        }
        let shown = app.get(&format!("admin/users/{}", of_eve.user_id)).bearer(&key).await.expect(200).json();
        assert_eq!(
            (&shown["roles"], &shown["email_verified"]),
            (&json!([]), &json!(false)),
            "it is read from the log"
        );
        // A link for an address belongs to the account that has it.
        for (address, owner) in [(&ada, &of_ada), (&eve, &of_eve)] {
            app.post("auth/password-reset/request").json(&json!({ "email": address })).await.expect(202);
            let events = app.server.events().await;
            let asked = of_type(&events, "PasswordResetRequested");
            assert_eq!(asked[asked.len() - 1]["subject"], format!("user-{}", owner.user_id));
        }
        let sessions = format!("admin/users/{}/sessions", of_ada.user_id);
        let listed = app.get(&sessions).bearer(&key).await.expect(200).json();
        let eves = claims_of(&of_eve.access)["sid"].clone();
        let ids: Vec<&Value> =
            listed["items"].as_array().expect("a list").iter().map(|it| &it["id"]).collect();
        assert!(!ids.contains(&&eves), "a session of somebody else is not shown as hers: {listed}");

        // The documented recovery works.
        checker::forget_read_models(&mut stores.server).await;
        stores.server.up().await;
        until("they are rebuilt", async || {
            all_lag(stores.server.get("/v1/projections").bearer(&key).await.expect(200).json())
        })
        .await;
        stores.stop().await;
        let (fine, _, text) = stores.run(&["doctor", "--json"]);
        assert!(fine, "{text}");
    }
}
