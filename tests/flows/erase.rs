//! Erasure: by an admin, by the person, from the command line. The history stays, and says nothing of the person any more.

use serde_json::{Value, json};
use tests::{App, PASSWORD, Server, Tokens, email, of_type};

const NAME: &str = "Augusta Ada King";
const AGENT: &str = "Analytical Engine/1.0 (Lovelace)";

/// Somebody with a name, several sessions, a failed login and a ban that was lifted, and the token to see all of that.
async fn somebody(app: &App<'_>, address: &str) -> (Tokens, String) {
    let user = app.register(address).await;
    app.patch("auth/me").bearer(&user.access).json(&json!({ "name": NAME })).await.expect(200);
    app.login(address, "wrong").header("user-agent", AGENT).await.expect(401);
    app.login(address, PASSWORD).header("user-agent", AGENT).await.expect(200);
    app.ban(&user.user_id).await;
    let unban = app.post(&format!("admin/users/{}/unban", user.user_id));
    unban.bearer(&app.server.platform_key()).await.expect(200);
    let last = app.login(address, PASSWORD).header("user-agent", AGENT).await.expect(200);
    (last.tokens(), last.consistency().to_owned())
}

/// What is counted of a day, except the ends of sessions.
async fn counts(app: &App<'_>, token: &str) -> Vec<Value> {
    let stats = app.get("admin/stats").bearer(&app.server.platform_key()).header("consistency-token", token);
    let mut days = stats.await.expect(200).json()["items"].as_array().expect("items").clone();
    for day in &mut days {
        day.as_object_mut().expect("an object").remove("revocations");
    }
    days
}

/// The audit log of a user, as the platform sees it.
async fn audit(app: &App<'_>, user_id: &str, token: &str) -> Vec<Value> {
    let log = app.get(&format!("audit/events?user_id={user_id}&limit=200"));
    let log = log.bearer(&app.server.platform_key()).header("consistency-token", token).await.expect(200);
    log.json()["items"].as_array().expect("items").clone()
}

#[tokio::test]
async fn nobody_can_say_any_more_who_the_person_was() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let (address, key) = (email("ada"), server.platform_key());
    let (ada, token) = somebody(&app, &address).await;
    let user = format!("admin/users/{}", ada.user_id);
    assert_eq!(app.get(&user).bearer(&key).await.expect(200).json()["name"], NAME);
    let counted = counts(&app, &token).await;
    assert_eq!(counted[0]["registrations"]["password"], 1, "{counted:?}");

    let erased = app.delete(&user).bearer(&key).await.expect(200);
    let token = erased.consistency().to_owned();
    let answer = erased.json();
    let events = server.events().await;
    let receipt = of_type(&events, "UserErased");
    assert_eq!(answer, json!({ "deleted": true, "position": receipt[0]["position"] }));
    assert_eq!(receipt[0]["data"]["reason"], "admin");
    assert!(receipt[0].get("personal").is_none(), "{}", receipt[0]);

    // Nothing that the person had opens anything.
    app.me(&ada.access).await.expect(401);
    app.refresh(&ada.refresh).await.expect(401);
    app.login(&address, PASSWORD).await.problem(401, "invalid_credentials");
    app.get(&user).bearer(&key).await.problem(404, "not_found");
    app.post(&format!("{user}/unban")).bearer(&key).await.problem(404, "not_found");
    let list = app.get("admin/users").bearer(&key).header("consistency-token", &token);
    assert_eq!(list.await.expect(200).json()["total"], 0);
    let query = format!("admin/users?query={address}");
    let found = app.get(&query).bearer(&key).header("consistency-token", &token).await.expect(200);
    assert_eq!(found.json()["total"], 0);

    // The history is whole, and says who did it, but not to whom.
    let log = audit(&app, &ada.user_id, &token).await;
    assert!(log.len() > 8, "{log:?}");
    for entry in &log {
        assert_eq!((&entry["personal"], &entry["erased"]), (&Value::Null, &json!(true)), "{entry}");
        assert!(entry.get("damaged").is_none(), "{entry}");
    }
    let csv = app.get(&format!("audit/events?user_id={}", ada.user_id)).bearer(&key);
    let csv = csv.header("accept", "text/csv").header("consistency-token", &token).await.expect(200).text;
    assert!(
        csv.contains("(erased)") && !csv.contains(NAME) && !csv.contains(AGENT) && !csv.contains(&address)
    );
    for filter in [format!("email={address}"), "ip=127.0.0.1".to_owned()] {
        let about = app.get(&format!("audit/events?{filter}&type=UserRegistered,LoginFailed"));
        let about = about.bearer(&key).header("consistency-token", &token).await.expect(200);
        assert_eq!(about.json()["total"], 0, "{filter}");
    }

    // The counts are what they were.
    assert_eq!(counts(&app, &token).await, counted);

    // Repeated, it is the same; and the address is free, for a new person.
    assert_eq!(app.delete(&user).bearer(&key).await.expect(200).json(), answer);
    let anew = app.register(&address).await;
    assert_ne!(anew.user_id, ada.user_id);
    assert_eq!(app.delete(&user).bearer(&key).await.expect(200).json(), answer);
    app.me(&anew.access).await.expect(200);
    assert_eq!(of_type(&server.events().await, "UserErased").len(), 1);
}

#[tokio::test]
async fn a_limited_key_erases_users_but_no_admin() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let (admin, user) = (app.register_admin(&email("admin")).await, app.register(&email("user")).await);
    let (_, writer) = app.api_key(&["users:write"]).await;
    let (_, reader) = app.api_key(&["users:read"]).await;
    let erase = |id: &str, caller: &str| app.delete(&format!("admin/users/{id}")).bearer(caller);
    erase(&user.user_id, &reader).await.problem(403, "forbidden");
    erase(&admin.user_id, &writer).await.problem(403, "forbidden");
    app.me(&admin.access).await.expect(200);
    erase(&user.user_id, &writer).await.expect(200);
    // Nobody is an admin of another app's users, not even of those who were erased.
    let other = server.create_app(json!({})).await;
    let of_other = other.register_admin(&email("other")).await;
    let across = other.delete(&format!("admin/users/{}", user.user_id)).bearer(&of_other.access);
    across.await.problem(404, "not_found");
    erase(&admin.user_id, &admin.access).await.expect(200);
    app.me(&admin.access).await.expect(401);
}

#[tokio::test]
async fn one_erases_oneself_with_the_password_or_right_after_a_login() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    for (address, right) in [(email("ada"), json!({ "password": PASSWORD })), (email("bob"), json!({}))] {
        let user = app.register(&address).await;
        let erase = |body: &Value| app.delete("auth/me").bearer(&user.access).json(body);
        erase(&json!({ "password": "wrong" })).await.problem(401, "invalid_credentials");
        erase(&json!({ "pasword": PASSWORD })).await.problem(400, "malformed_request");
        let erased = erase(&right).await.expect(200).json();
        let events = server.events().await;
        let receipt = of_type(&events, "UserErased").pop().expect("it is recorded");
        assert_eq!(erased, json!({ "deleted": true, "position": receipt["position"] }));
        assert_eq!(
            (&receipt["data"]["reason"], &receipt["actorid"]),
            (&json!("requested"), &json!(user.user_id))
        );
        erase(&right).await.expect(401);
        app.register(&address).await;
    }
    // A token that an admin made for tests says nothing about the person.
    let user = app.register(&email("eve")).await;
    let made =
        app.post(&format!("admin/users/{}/access-tokens", user.user_id)).bearer(&server.platform_key());
    let made = made.json(&json!({ "duration_minutes": 5 })).await.expect(201).json();
    let token = made["access_token"].as_str().expect("a token");
    app.delete("auth/me").bearer(token).await.problem(403, "reauthentication_required");
}

#[tokio::test]
async fn the_command_line_erases_by_address() {
    let mut server = Server::start().await;
    let address = email("ada");
    let user = server.default_app().register(&address).await;
    let base = server.base();
    let erase = |server: &Server, who: &str, rest: &[&str]| {
        let arguments = [&["erase", "default", who, "--json"], rest].concat();
        let output = server.command(&arguments).output().expect("it runs");
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default())
    };
    assert_eq!(erase(&server, "nobody@example.org", &["--url", &base]).0, Some(1));
    let (code, erased) = erase(&server, &user.user_id, &["--url", &base]);
    assert_eq!((code, &erased["deleted"]), (Some(0), &json!(true)), "{erased}");
    server.default_app().me(&user.access).await.expect(401);
    server.default_app().register(&address).await;
    assert!(server.terminate().await.success());
    // With the server stopped, and by address.
    let (code, again) = erase(&server, &address, &[]);
    assert_eq!((code, &again["deleted"]), (Some(0), &json!(true)), "{again}");
    assert_eq!(erase(&server, &address, &[]).0, Some(1), "nobody has the address");
}
