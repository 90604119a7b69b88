//! What strangers cannot do to the owner of an account: lock them out, spend their budgets, or invalidate their links.

use domain::lockout::MAX_DEVICES;

use super::*;

const ADA: &str = "ada@example.com";
const NOBODY: &str = "nobody@example.com";
const NEW: &str = "another horse battery";

fn device(answer: &Answer) -> String {
    answer.headers["device-token"].to_str().expect("ASCII").to_owned()
}

#[track_caller]
fn outcome(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.code())
}

impl World {
    async fn by_device(&self, route: &str, device: &str, body: Value) -> Answer {
        let request = Request::post(format!("/v1/apps/default/auth/{route}"))
            .header("content-type", "application/json")
            .header("device-token", device)
            .body(Body::from(body.to_string()));
        self.send(request.expect("a request")).await
    }

    async fn login_by_device(&self, device: &str, email: &str, password: &str) -> Answer {
        self.by_device("login", device, json!({"email": email, "password": password})).await
    }

    async fn lock(&self, email: &str) {
        for n in 0..10 {
            assert_eq!(self.login(email, "wrong guess").await.status, 401, "{n}");
        }
        assert_eq!(outcome(&self.login(email, PASSWORD).await), (429, "rate_limited"));
    }
}

#[tokio::test]
async fn inv_w_strangers_lock_out_strangers_and_no_device_of_the_owner() {
    let world = World::start().await;
    let registered = world.register(ADA).await;
    let of_login = device(&world.login(ADA, PASSWORD).await);
    let refreshed = world.auth("refresh", json!({"refresh_token": registered.text("refresh_token")})).await;
    let bobs = device(&world.register("bob@example.com").await);
    world.lock(ADA).await;
    for token in [&device(&registered), &of_login, &device(&refreshed)] {
        assert_eq!(world.login_by_device(token, ADA, PASSWORD).await.status, 200);
    }
    let session = refreshed.text("access_token");
    let body = json!({"email": ADA, "password": PASSWORD});
    let by_session =
        world.call("POST", "/v1/apps/default/auth/login", Some(&session), Some(body.clone())).await;
    assert_eq!(by_session.status, 200, "a live session shows it, too");
    // A client without her device token is a stranger.
    let mut flipped = of_login.clone();
    flipped.replace_range(20..21, if &of_login[20..21] == "A" { "B" } else { "A" });
    for token in [&bobs, "", "wwd_", &of_login[..of_login.len() - 1], &flipped, &session] {
        let answer = world.login_by_device(token, ADA, PASSWORD).await;
        assert_eq!(outcome(&answer), (429, "rate_limited"), "{token}");
    }
    // A password change turns all devices into strangers, except the one that made it.
    let body = json!({"old_password": PASSWORD, "new_password": NEW});
    let changed =
        world.call("POST", "/v1/apps/default/auth/password/change", Some(&session), Some(body)).await;
    assert_eq!(changed.status, 204, "strangers do not lock the session out: {}", changed.body);
    assert_eq!(outcome(&world.login_by_device(&of_login, ADA, NEW).await), (429, "rate_limited"));
    assert_eq!(world.login_by_device(&device(&changed), ADA, NEW).await.status, 200);
}

#[tokio::test]
async fn a_device_token_ends() {
    let world = World::start().await;
    let token = device(&world.register(ADA).await);
    world.clock.advance(SignedDuration::from_secs(999_999));
    world.lock(ADA).await;
    assert_eq!(world.login_by_device(&token, ADA, PASSWORD).await.status, 200);
    world.clock.advance(SignedDuration::from_secs(1));
    assert_eq!(outcome(&world.login_by_device(&token, ADA, PASSWORD).await), (429, "rate_limited"));
}

#[tokio::test]
async fn a_reset_ends_the_lock_and_makes_a_device() {
    let world = World::start().await;
    world.register(ADA).await;
    world.lock(ADA).await;
    assert_eq!(world.auth("password-reset/request", json!({"email": ADA})).await.status, 202);
    let body = json!({"token": world.token("PasswordResetRequested").await, "new_password": NEW});
    let path = "/v1/apps/default/auth/password-reset/confirm";
    let reset = world.call_with("POST", path, None, Some(body.clone()), Some("k")).await;
    assert_eq!(reset.status, 204, "{}", reset.body);
    let again = world.call_with("POST", path, None, Some(body), Some("k")).await;
    assert_eq!(device(&again), device(&reset), "the same request gets the same");
    for _ in 0..10 {
        assert_eq!(world.login(ADA, "wrong guess").await.status, 401, "the lock has ended here as well");
    }
    assert_eq!(outcome(&world.login(ADA, NEW).await), (429, "rate_limited"));
    assert_eq!(world.login_by_device(&device(&reset), ADA, NEW).await.status, 200);
}

/// Who has reset a password by a mail that was not theirs is a stranger again once the owner has ended that.
#[tokio::test]
async fn a_repeated_reset_makes_no_device_once_access_was_ended() {
    let world = World::start().await;
    world.register(ADA).await;
    let reset = async |password: &str, key: &str| {
        assert_eq!(world.auth("password-reset/request", json!({"email": ADA})).await.status, 202);
        let body = json!({"token": world.token("PasswordResetRequested").await, "new_password": password});
        let path = "/v1/apps/default/auth/password-reset/confirm";
        let answer = world.call_with("POST", path, None, Some(body.clone()), Some(key)).await;
        assert_eq!(answer.status, 204, "{}", answer.body);
        body
    };
    let body = reset("evil horse battery", "evil").await;
    world.clock.advance(SignedDuration::from_secs(1));
    reset(NEW, "own").await;
    let path = "/v1/apps/default/auth/password-reset/confirm";
    let again = world.call_with("POST", path, None, Some(body), Some("evil")).await;
    assert_eq!(again.status, 204, "what was done then: {}", again.body);
    assert!(!again.headers.contains_key("device-token"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_p_a_device_has_a_lock_of_its_own_however_many_there_are() {
    let world = Arc::new(World::start().await);
    world.register(ADA).await;
    let mut devices = vec![];
    for _ in 0..MAX_DEVICES + 4 {
        devices.push(device(&world.login(ADA, PASSWORD).await));
    }
    let one = &devices[0];
    let guesses = (0..30).map(|n| {
        let (world, one) = (world.clone(), one.clone());
        tokio::spawn(
            async move { world.login_by_device(&one, ADA, &format!("guess {n}")).await.status.as_u16() },
        )
    });
    let statuses = futures::future::join_all(guesses).await;
    let statuses: Vec<u16> = statuses.into_iter().map(|status| status.expect("no panic")).collect();
    assert_eq!(statuses.iter().filter(|&&status| status == 401).count(), 10, "{statuses:?}");
    let locked = world.login_by_device(one, ADA, PASSWORD).await;
    assert_eq!(outcome(&locked), (429, "rate_limited"), "the right one tells nothing");
    assert!(locked.headers.contains_key("retry-after"));
    assert_eq!(world.login(ADA, PASSWORD).await.status, 200, "strangers are not locked out by it");
    assert_eq!(world.login_by_device(&devices[1], ADA, PASSWORD).await.status, 200, "nor is another");
    // The total over all devices is bounded as well.
    for device in &devices {
        for n in 0..12 {
            world.login_by_device(device, ADA, &format!("guess {n}")).await;
        }
    }
    assert!(world.events("LoginFailed").await <= (MAX_DEVICES + 1) * 10);
}

/// Another node on the same journal, or a restarted one: it remembers nothing.
#[tokio::test]
async fn what_strangers_are_told_of_a_lock_is_the_same_for_known_and_unknown_addresses_everywhere() {
    let world = World::start().await;
    world.register(ADA).await;
    for email in [ADA, NOBODY] {
        world.lock(email).await;
    }
    let there = world.another_node();
    for n in 0..15 {
        let (known, unknown) = (there.login(ADA, PASSWORD).await, there.login(NOBODY, PASSWORD).await);
        assert_eq!(outcome(&known), outcome(&unknown), "{n}");
        assert_eq!(known.headers.get("retry-after"), unknown.headers.get("retry-after"), "{n}");
        assert_eq!(known.body["detail"], unknown.body["detail"]);
        assert_ne!(known.status, 200, "inv_p: not while the account is locked");
    }
    assert_eq!(world.events("LoginFailed").await, 10);
    // Locks end there alike: the one in the log already has, and the remembered one lasts as long for both.
    world.clock.advance(SignedDuration::from_secs(61));
    assert_eq!(outcome(&there.login(NOBODY, PASSWORD).await), (401, "invalid_credentials"));
    assert_eq!(there.login(ADA, PASSWORD).await.status, 200);
}

#[tokio::test]
async fn a_lock_by_a_clock_that_was_ahead_ends() {
    let world = World::start().await;
    world.register(ADA).await;
    let now = world.clock.now();
    world.clock.set(now + SignedDuration::from_hours(400 * 24));
    world.lock(ADA).await;
    world.clock.set(now);
    let there = world.another_node();
    assert_eq!(there.login(ADA, PASSWORD).await.status, 401);
    world.clock.advance(SignedDuration::from_secs(901));
    assert_eq!(there.login(ADA, PASSWORD).await.status, 200);
}

#[tokio::test]
async fn inv_w_requests_that_send_nothing_spend_nothing_and_each_purpose_has_its_own() {
    let world = World::with("m=64,t=1,p=1", RateSettings::default()).await;
    let owner = device(&world.register(ADA).await);
    assert_eq!(world.auth("email-verification/request", json!({"email": ADA})).await.status, 202);
    let token = world.token("EmailVerificationRequested").await;
    assert_eq!(world.auth("email-verification/confirm", json!({ "token": token })).await.status, 200);
    // From here on verification requests send nothing.
    for _ in 0..4 {
        assert_eq!(world.auth("email-verification/request", json!({"email": ADA})).await.status, 202);
    }
    assert_eq!(
        outcome(&world.auth("email-verification/request", json!({"email": ADA})).await),
        (429, "rate_limited")
    );
    for n in 1..=5 {
        assert_eq!(world.auth("password-reset/request", json!({"email": ADA})).await.status, 202);
        assert_eq!(world.events("PasswordResetRequested").await, n);
    }
    assert_eq!(
        outcome(&world.auth("password-reset/request", json!({"email": ADA})).await),
        (429, "rate_limited")
    );
    // The device spends its own budget, then the mailbox's reserve.
    for n in 6..=10 {
        let answer = world.by_device("password-reset/request", &owner, json!({"email": ADA})).await;
        assert_eq!((answer.status.as_u16(), &answer.body), (202, &json!({"status": "accepted"})), "{n}");
        assert_eq!(world.events("PasswordResetRequested").await, n);
    }
}

#[tokio::test]
async fn inv_w_asking_again_kills_no_link() {
    let world = World::start().await;
    world.register(ADA).await;
    let ask = async |route: &str| assert_eq!(world.auth(route, json!({"email": ADA})).await.status, 202);
    ask("password-reset/request").await;
    let first = world.token("PasswordResetRequested").await;
    ask("email-verification/request").await;
    let verification = world.token("EmailVerificationRequested").await;
    for _ in 0..20 {
        ask("password-reset/request").await;
        ask("email-verification/resend").await;
    }
    assert_eq!(world.events("PasswordResetRequested").await, 21, "each sends a mail");
    let newest = world.token("PasswordResetRequested").await;
    let confirmed = world.auth("email-verification/confirm", json!({ "token": verification })).await;
    assert_eq!(confirmed.status, 200, "{}", confirmed.body);
    assert_eq!(world.get(&format!("password-reset?token={newest}")).await.status, 200);
    let reset = world.auth("password-reset/confirm", json!({"token": first, "new_password": NEW})).await;
    assert_eq!(reset.status, 204, "{}", reset.body);
}

#[tokio::test]
async fn inv_w_a_magic_link_is_superseded_by_its_owner_alone() {
    let world = World::start().await;
    world.set(json!({"redirect_uris": ["https://app.example/callback"]})).await;
    let owner = device(&world.register(ADA).await);
    assert_eq!(world.auth("email-verification/request", json!({"email": ADA})).await.status, 202);
    let token = world.token("EmailVerificationRequested").await;
    assert_eq!(world.auth("email-verification/confirm", json!({ "token": token })).await.status, 200);
    let bobs = device(&world.register("bob@example.com").await);
    let body = json!({"email": ADA, "redirect_uri": "https://app.example/callback"});
    let redeem =
        async |token: &str| world.auth("magic-link/verify", json!({ "token": token })).await.status.as_u16();
    for (token, first_is_good) in [(None, true), (Some(&bobs), true), (Some(&owner), false)] {
        assert_eq!(world.auth("magic-link", body.clone()).await.status, 202);
        let first = world.token("MagicLinkIssued").await;
        let again = match token {
            Some(token) => world.by_device("magic-link/resend", token, body.clone()).await,
            None => world.auth("magic-link/resend", body.clone()).await,
        };
        assert_eq!((again.status.as_u16(), &again.body), (202, &json!({"status": "accepted"})));
        let second = world.token("MagicLinkIssued").await;
        assert_ne!(first, second);
        assert_eq!(redeem(&first).await, if first_is_good { 303 } else { 400 }, "{token:?}");
        assert_eq!(redeem(&second).await, 303, "{token:?}");
        world.clock.advance(SignedDuration::from_secs(1));
    }
}

/// It may be in anybody's archive, or of a time when the mailbox was another's.
#[tokio::test]
async fn inv_w_a_link_of_long_ago_supersedes_none() {
    let world = World::start().await;
    world.set(json!({"redirect_uris": ["https://app.example/callback"]})).await;
    let registered = world.register(ADA).await;
    world.verify("default", ADA).await;
    let ask = async || {
        let body = json!({"email": ADA, "redirect_uri": "https://app.example/callback"});
        assert_eq!(world.auth("magic-link", body).await.status, 202);
        world.token("MagicLinkIssued").await
    };
    let page =
        async |token: &str| world.get(&format!("magic-link/verify?token={token}")).await.status.as_u16();
    let again = async |token: &str| {
        let answer = world.auth("magic-link/verify/again", json!({ "token": token })).await;
        assert_eq!((answer.status.as_u16(), &answer.body), (202, &json!({"status": "accepted"})));
        page(&world.token("MagicLinkIssued").await).await
    };
    let old = ask().await;
    world.clock.advance(SignedDuration::from_hours(24));
    let newest = ask().await;
    assert_eq!((again(&old).await, page(&newest).await), (200, 400), "its reader has asked for another");
    world.clock.advance(SignedDuration::from_hours(1));
    let newest = ask().await;
    assert_eq!((again(&old).await, page(&newest).await), (200, 200), "it is too old");
    // The end of all access ends this as well.
    let old = ask().await;
    let session = world.login(ADA, PASSWORD).await.text("access_token");
    let ended = world.call("POST", "/v1/apps/default/auth/sessions/revoke-all", Some(&session), None).await;
    assert_eq!(ended.status, 200, "{}", ended.body);
    let newest = ask().await;
    assert_eq!((again(&old).await, page(&newest).await), (200, 200));
    assert_eq!(registered.status, 201);
}

#[tokio::test]
async fn an_apps_own_server_is_limited_by_key_and_person() {
    let world = World::with("m=64,t=1,p=1", RateSettings::default()).await;
    for n in 0..50 {
        assert_eq!(world.register(&format!("{n}@example.com")).await.status, 201);
    }
    let (server, reader) = (world.api_key(&["users:write"]).await, world.api_key(&["users:read"]).await);
    let path = "/v1/apps/default/auth/login";
    let login = async |key: &str, n: usize| {
        let body = json!({"email": format!("{n}@example.com"), "password": PASSWORD});
        world.call("POST", path, Some(key), Some(body)).await
    };
    for n in 0..150 {
        let answer = login(&server, n % 50).await;
        assert_eq!(answer.status, 200, "{n}: {}", answer.body);
    }
    for n in 3..30 {
        assert_eq!(login(&server, 0).await.status, 200, "{n}");
    }
    // On a slow machine some of the budget is back by now: spend that too.
    let mut last = login(&server, 0).await;
    for _ in 0..30 {
        if last.status == 429 {
            break;
        }
        last = login(&server, 0).await;
    }
    assert_eq!(outcome(&last), (429, "rate_limited"));
    assert_eq!(login(&server, 1).await.status, 200, "another person");
    // A request without a key, or with one that lacks `users:write`, counts against its address, which spent 50 of 60 on
    // registrations. A successful login is not a guess; a wrong one is.
    for key in [&reader, "wwk_forged"] {
        for n in 1..20 {
            assert_eq!(login(key, n).await.status, 200, "{n}");
        }
    }
    // One comes back each second.
    let mut guesses = 0;
    loop {
        let wrong = json!({"email": format!("{guesses}{NOBODY}"), "password": "wrong guess"});
        if world.call("POST", path, Some(&reader), Some(wrong)).await.status == 429 {
            break;
        }
        guesses += 1;
        assert!(guesses < 50, "what was spent on registering counts");
    }
    assert!(guesses >= 8, "{guesses}");
}

#[tokio::test]
async fn a_browser_keeps_its_device_token_in_a_cookie() {
    let world = World::start().await;
    world.set(json!({"cookies": true})).await;
    let registered = world.register(ADA).await;
    assert!(!registered.headers.contains_key("device-token"), "no script sees it");
    let cookie = |kind: &str| {
        let mut cookies =
            registered.headers.get_all("set-cookie").iter().map(|value| value.to_str().expect("ASCII"));
        let found = cookies.find(|text| text.starts_with(&format!("__Host-ww-default-{kind}=")));
        found.expect("it is set").split(';').next().expect("a pair").to_owned()
    };
    let device = cookie("device");
    world.lock(ADA).await;
    let login = async |cookie: &str| {
        let request = Request::post("/v1/apps/default/auth/login")
            .header("content-type", "application/json")
            .header("cookie", cookie)
            .body(Body::from(json!({"email": ADA, "password": PASSWORD}).to_string()));
        world.send(request.expect("a request")).await.status.as_u16()
    };
    assert_eq!((login(&device).await, login("other=1").await), (200, 429));
    // So does the refresh cookie, as long as its session is live.
    assert_eq!(login(&cookie("refresh")).await, 200);
    world.set(json!({"cookies": false})).await;
    assert_eq!(login(&device).await, 429, "cookies do not count");
}
