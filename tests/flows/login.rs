use std::time::Instant;

use serde_json::json;
use tests::{PASSWORD, Server, claims_of, email, of_type};

#[tokio::test]
async fn each_login_starts_a_new_session() {
    let server = Server::start().await;
    let app = server.create_app(json!({"access_token_ttl": 60})).await;
    let address = email("ada");
    let registered = app.register(&address).await;
    let answer = app.login(&address, PASSWORD).await.expect(200);
    assert_eq!(answer.json()["expires_in"], 60);
    let tokens = answer.tokens();
    assert_eq!(tokens.user_id, registered.user_id);
    assert_ne!(tokens.session, registered.session);
    let claims = claims_of(&tokens.access);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 60);
    let events = server.events().await;
    assert_eq!(of_type(&events, "SessionStarted")[1]["data"]["method"], "password");
}

#[tokio::test]
async fn unknown_banned_and_wrong_are_one_answer() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let (known, banned) = (email("known"), email("banned"));
    app.register(&known).await;
    let user = app.register(&banned).await;
    app.ban(&user.user_id).await;
    let answers = [
        app.login(&known, "wrong-Kettle-93").await,
        app.login(&email("unknown"), PASSWORD).await,
        app.login(&banned, "wrong-Kettle-93").await,
        app.login(&known, "").await,
        app.login(&known, &"x".repeat(2000)).await,
        app.login("no address", PASSWORD).await,
    ];
    for answer in &answers {
        answer.problem(401, "invalid_credentials");
        assert_eq!(answer.anonymous_problem(), answers[0].anonymous_problem());
        let names = |it: &tests::Answer| it.headers.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(answer), names(&answers[0]), "headers do not distinguish them either");
    }
    app.login(&banned, PASSWORD).await.problem(403, "user_banned");
}

#[tokio::test]
async fn an_unknown_address_takes_as_long_as_a_known_one() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let known = email("known");
    app.register(&known).await;
    // Few attempts each, so that neither is locked. The fastest ones are compared, as load only adds time.
    let mut fastest = [f64::MAX; 2];
    for round in 0..6 {
        for (index, address) in [known.clone(), email("unknown")].iter().enumerate() {
            let start = Instant::now();
            app.login(address, &format!("wrong-{round}-Kettle")).await.problem(401, "invalid_credentials");
            fastest[index] = fastest[index].min(start.elapsed().as_secs_f64());
        }
    }
    let ratio = fastest[1] / fastest[0];
    assert!((0.5..2.0).contains(&ratio), "unknown/known = {ratio:.2}: {fastest:?}");
}

#[tokio::test]
async fn after_ten_wrong_passwords_the_account_is_locked_and_an_admin_unlocks_it() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let (address, other) = (email("locked"), email("other"));
    let user = app.register(&address).await;
    app.register(&other).await;
    for _ in 0..10 {
        let answer = app.login(&address, "wrong-Kettle-93").await;
        assert!(answer.status == 401 || answer.status == 429, "{}", answer.text);
    }
    let locked = app.login(&address, PASSWORD).await;
    locked.problem(429, "rate_limited");
    assert!((1..=60).contains(&locked.header("retry-after").unwrap().parse::<u32>().unwrap()));
    assert!(locked.header("ratelimit").is_some_and(|it| it.starts_with("\"failed-logins\";r=0;t=")));
    assert_eq!(locked.header("ratelimit-policy"), Some("\"failed-logins\";q=10;w=900"));
    app.login(&other, PASSWORD).await.expect(200);
    app.me(&user.access).await.expect(200);
    app.refresh(&user.refresh).await.expect(200);

    app.post(&format!("admin/users/{}/unlock", user.user_id))
        .bearer(&server.platform_key())
        .await
        .expect_success();
    app.login(&address, PASSWORD).await.expect(200);
    let events = server.events().await;
    assert_eq!(of_type(&events, "LoginFailed").len(), 10);
    assert_eq!(of_type(&events, "AccountLocked").len(), 1);
    assert_eq!(of_type(&events, "AccountUnlocked").len(), 1);
}

#[tokio::test]
async fn an_unknown_address_is_locked_in_the_same_way() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let (known, unknown) = (email("known"), email("unknown"));
    app.register(&known).await;
    for _ in 0..12 {
        let answers =
            [app.login(&known, "wrong-Kettle-93").await, app.login(&unknown, "wrong-Kettle-93").await];
        assert_eq!(answers[0].status, answers[1].status);
        assert_eq!(answers[0].json()["code"], answers[1].json()["code"]);
    }
}

#[tokio::test]
async fn a_disabled_app_lets_nobody_in() {
    let server = Server::start().await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    let tokens = app.register(&address).await;
    let key = server.platform_key();
    app.post("disable").bearer(&key).await.expect_success();
    for answer in [
        app.login(&address, PASSWORD).await,
        app.refresh(&tokens.refresh).await,
        app.me(&tokens.access).await,
    ] {
        assert!((400..500).contains(&answer.status), "{}", answer.text);
    }
    app.post("enable").bearer(&key).await.expect_success();
    app.login(&address, PASSWORD).await.expect(200);
    app.me(&tokens.access).await.expect(200);
}

#[tokio::test]
async fn rate_limits_say_when_to_come_back() {
    let server = Server::start_with(&[("WATCHWORD_RATE_LIMITS", "on")]).await;
    let app = server.default_app();
    let mut limited = None;
    for _ in 0..200 {
        let answer = app.login(&email("spray"), "wrong-Kettle-93").await;
        if answer.status == 429 {
            limited = Some(answer);
            break;
        }
        answer.problem(401, "invalid_credentials");
    }
    let limited = limited.expect("spraying is limited");
    limited.problem(429, "rate_limited");
    assert!(limited.header("ratelimit").is_some() && limited.header("ratelimit-policy").is_some());
    let other = server.get("/v1/apps").bearer(&server.platform_key()).await.expect(200);
    assert!(other.header("ratelimit").is_some_and(|it| it.starts_with("\"server\";r=")));
    let by_address = app.get(".well-known/jwks.json").await.expect(200);
    assert!(by_address.header("ratelimit").is_some_and(|it| it.starts_with("\"general\";r=")));
}

/// A flood of logins meets a full queue: each is processed or told to retry, and leaves no trace.
#[tokio::test]
async fn more_logins_than_can_be_hashed_are_told_to_retry() {
    let server = Server::start_with(&[
        ("WATCHWORD_ARGON2", "m=65536,t=4,p=1"),
        ("WATCHWORD_PASSWORD_HASHING_THREADS", "1"),
        ("WATCHWORD_PASSWORD_HASHING_QUEUE", "2"),
    ])
    .await;
    let app = server.create_app(json!({})).await;
    let (known, unknown) = (email("known"), email("unknown"));
    app.register(&known).await;
    let before = server.events().await.len();

    let flood =
        (0..24).map(|n| app.login(if n % 3 == 0 { &unknown } else { &known }, PASSWORD).into_future());
    let answers = futures::future::join_all(flood).await;
    let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!(count(200) + count(401) + count(503), answers.len());
    assert!(count(503) >= 12, "{} of {} were put off", count(503), answers.len());
    assert!(count(200) + count(401) >= 1, "those in the queue are answered");
    for refused in answers.iter().filter(|answer| answer.status == 503) {
        refused.problem(503, "overloaded");
        assert!(refused.header("retry-after").is_some_and(|it| it.parse::<u32>().is_ok_and(|it| it >= 1)));
    }
    // The harness asserts that nothing panicked. Refused logins are in no log and count against no account.
    let events = server.events().await;
    assert_eq!(events.len() - before, count(200));
    server.get("/readyz").await.expect(200);
    for _ in 0..3 {
        app.login(&known, PASSWORD).await.expect(200);
    }
    app.login(&unknown, PASSWORD).await.problem(401, "invalid_credentials");
    app.register(&email("later")).await;
}

/// The journal was restored but the read models were not: a stale row must not turn anybody away.
#[tokio::test]
async fn a_row_of_another_history_locates_nobody() {
    let mut server = Server::start().await;
    server.terminate().await;
    let truth = ["journal.db", "keys.db"];
    let backup = truth.map(|name| std::fs::read(server.data().join(name)).unwrap());
    server.up().await;
    let address = email("ada");
    let before = server.default_app().register(&address).await;
    let key = server.platform_key();
    loop {
        let list = server.get("/v1/projections").bearer(&key).await.expect(200).json();
        if list["items"].as_array().unwrap().iter().all(|it| it["lag"] == 0) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    server.terminate().await;
    for (name, bytes) in truth.iter().zip(&backup) {
        std::fs::write(server.data().join(name), bytes).unwrap();
    }
    server.up_open().await;
    let app = server.default_app();
    let again = app.register(&address).await;
    assert_ne!(again.user_id, before.user_id);
    let login = app.login(&address, PASSWORD).await.expect(200).tokens();
    assert_eq!(login.user_id, again.user_id);
}
