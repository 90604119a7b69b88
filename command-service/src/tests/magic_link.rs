//! Magic links, from the request to the session.

use super::*;

const CALLBACK: &str = "https://app.example/callback";
/// RFC 7636 appendix B.
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

pub(super) async fn world() -> World {
    let world = World::start().await;
    world.set(json!({"redirect_uris": [CALLBACK]})).await;
    world
}

fn ask(email: &str) -> Value {
    json!({"email": email, "redirect_uri": CALLBACK, "state": "s&t=1"})
}

impl World {
    async fn magic_link(&self, email: &str) -> String {
        let asked = self.auth("magic-link", ask(email)).await;
        assert_eq!(asked.status, 202, "{}", asked.body);
        self.token("MagicLinkIssued").await
    }

    async fn redeem(&self, token: &str) -> Answer {
        self.auth("magic-link/verify", json!({ "token": token })).await
    }

    pub(super) async fn code(&self, email: &str) -> String {
        let token = self.magic_link(email).await;
        code_in(&self.redeem(&token).await)
    }

    pub(super) async fn exchange(&self, code: &str) -> Answer {
        self.auth("exchange", json!({ "code": code })).await
    }
}

#[track_caller]
fn code_in(answer: &Answer) -> String {
    assert_eq!(answer.status, 303, "{}", answer.body);
    let location = answer.headers["location"].to_str().expect("ASCII");
    let url = url::Url::parse(location).expect("a URL");
    let pairs: Vec<_> = url.query_pairs().into_owned().collect();
    assert!(location.starts_with("https://app.example/callback?code=wwx_"), "{location}");
    assert_eq!((pairs.len(), &pairs[1]), (2, &("state".to_owned(), "s&t=1".to_owned())));
    pairs[0].1.clone()
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{}", answer.body);
}

#[tokio::test]
async fn a_link_logs_in_whoever_reads_the_mail_and_registers_whom_nobody_knew() {
    let world = world().await;
    let token = world.magic_link("Ada@example.com").await;
    let before = world.all_events().await;
    for method in ["HEAD", "GET", "GET", "HEAD"] {
        let path = format!("/v1/apps/default/auth/magic-link/verify?token={token}");
        assert_eq!(world.call(method, &path, None, None).await.status, 200, "a scanner's {method}");
    }
    assert_eq!(world.all_events().await, before, "looking changes nothing");
    let code = code_in(&world.redeem(&token).await);
    let tokens = world.exchange(&code).await;
    assert_eq!(tokens.status, 200, "{}", tokens.body);
    assert_eq!(tokens.body["user"]["email"], "ada@example.com");
    assert_eq!(tokens.body["user"]["email_verified"], true);
    assert_eq!(world.me(&tokens.text("access_token")).await.status, 200);
    assert_eq!(world.events("UserRegistered").await, 1);
    // The second time it is the same account.
    let code = world.code("ada@example.com").await;
    assert_eq!(world.exchange(&code).await.body["user"]["id"], tokens.body["user"]["id"]);
    assert_eq!(world.events("UserRegistered").await, 1);
}

#[tokio::test]
async fn inv_g_of_many_redemptions_one_succeeds() {
    let world = Arc::new(world().await);
    world.register("ada@example.com").await;
    let token = world.magic_link("ada@example.com").await;
    let tries = (0..50).map(|_| {
        let (world, token) = (world.clone(), token.clone());
        tokio::spawn(async move { world.redeem(&token).await })
    });
    let mut codes = Vec::new();
    for answer in futures::future::join_all(tries).await {
        let answer = answer.expect("no panic");
        if answer.status == 303 {
            codes.push(code_in(&answer));
        } else {
            refused(&answer, 400, "invalid_or_expired_token");
        }
    }
    assert_eq!(codes.len(), 1);
    let started = world.events("SessionStarted").await;
    assert_eq!(world.exchange(&codes[0]).await.status, 200);
    assert_eq!(world.events("SessionStarted").await, started + 1);
    assert_eq!(world.events("MagicLinkRedeemed").await, 1);
}

#[tokio::test]
async fn inv_g_a_code_that_comes_again_ends_its_session() {
    let world = world().await;
    let code = world.code("ada@example.com").await;
    let tokens = world.exchange(&code).await;
    let access = tokens.text("access_token");
    assert_eq!(world.me(&access).await.status, 200);
    refused(&world.exchange(&code).await, 400, "invalid_or_expired_code");
    assert_eq!(world.me(&access).await.status, 401);
    let refresh = world.auth("refresh", json!({"refresh_token": tokens.text("refresh_token")})).await;
    refused(&refresh, 401, "session_revoked");
    let events = world.all_events().await;
    refused(&world.exchange(&code).await, 400, "invalid_or_expired_code");
    assert_eq!(world.all_events().await, events, "the third time changes nothing");
}

#[tokio::test]
async fn inv_g_parallel_exchanges_leave_no_live_session() {
    let world = Arc::new(world().await);
    let code = world.code("ada@example.com").await;
    let tries = (0..20).map(|_| {
        let (world, code) = (world.clone(), code.clone());
        tokio::spawn(async move { world.exchange(&code).await })
    });
    let answers = futures::future::join_all(tries).await;
    let told = answers.iter().filter_map(|answer| {
        let answer = answer.as_ref().expect("no panic");
        (answer.status == 200).then(|| answer.text("access_token"))
    });
    let told: Vec<_> = told.collect();
    assert!(told.len() <= 1);
    assert_eq!((world.events("SessionStarted").await, world.events("SessionRevoked").await), (1, 1));
    for access in told {
        assert_eq!(world.me(&access).await.status, 401);
    }
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_tokens() {
    let world = world().await;
    let token = world.magic_link("ada@example.com").await;
    let path = "/v1/apps/default/auth/magic-link/verify";
    let body = json!({ "token": token });
    let first = world.call_with("POST", path, None, Some(body.clone()), Some("k")).await;
    let again = world.call_with("POST", path, None, Some(body), Some("k")).await;
    let code = code_in(&first);
    assert_eq!(code_in(&again), code);
    let (path, body) = ("/v1/apps/default/auth/exchange", json!({ "code": code }));
    let first = world.call_with("POST", path, None, Some(body.clone()), Some("k")).await;
    let again = world.call_with("POST", path, None, Some(body), Some("k")).await;
    assert_eq!(first.text("refresh_token"), again.text("refresh_token"));
    assert_eq!(world.events("ExchangeCodeReplayed").await, 0);
}

#[tokio::test]
async fn a_code_with_a_challenge_needs_its_verifier() {
    let world = world().await;
    let mut body = ask("ada@example.com");
    body["code_challenge"] = json!(CHALLENGE);
    for (member, value) in [
        ("code_challenge_method", json!("plain")),
        ("code_challenge", json!("short")),
        ("state", json!("x".repeat(1025))),
    ] {
        let mut wrong = body.clone();
        wrong[member] = value;
        refused(&world.auth("magic-link", wrong).await, 422, "validation_failed");
    }
    let mut alone = ask("ada@example.com");
    alone["code_challenge_method"] = json!("S256");
    refused(&world.auth("magic-link", alone).await, 422, "validation_failed");

    body["code_challenge_method"] = json!("S256");
    assert_eq!(world.auth("magic-link", body).await.status, 202);
    let token = world.token("MagicLinkIssued").await;
    let code = code_in(&world.redeem(&token).await);
    refused(&world.exchange(&code).await, 400, "invalid_or_expired_code");
    for wrong in [VERIFIER.replace('X', "Y"), "x".repeat(43), CHALLENGE.to_owned(), String::new()] {
        let answer = world.auth("exchange", json!({"code": code, "code_verifier": wrong})).await;
        refused(&answer, 400, "invalid_or_expired_code");
    }
    // A thief of the code alone can neither use it nor spoil it.
    let answer = world.auth("exchange", json!({"code": code, "code_verifier": VERIFIER})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);

    let code = world.code("bob@example.com").await;
    let taken_away = world.auth("exchange", json!({"code": code, "code_verifier": VERIFIER})).await;
    refused(&taken_away, 400, "invalid_or_expired_code");
}

#[tokio::test]
async fn only_the_exact_redirect_uri_passes_at_request_and_at_redemption() {
    let world = world().await;
    for trick in [
        "https://app.example/callback/",
        "https://app.example/callback?",
        "https://app.example/callback#",
        "https://app.example/Callback",
        "https://APP.example/callback",
        "https://app.example./callback",
        "https://app.example:443/callback",
        "https://app.example@evil.example/callback",
        "https://app.example\\@evil.example/callback",
        "https://app.example.evil.example/callback",
        "https://app.example/callback/../evil",
        "https://app.example/callback%2f..%2fevil",
        "https://app\u{ff0e}example/callback",
        "https://app.example/callback\n",
        "http://app.example/callback",
        "javascript:alert(1)",
        "https://2130706433/callback",
        "",
    ] {
        let body = json!({"email": "ada@example.com", "redirect_uri": trick});
        for route in ["magic-link", "magic-link/resend"] {
            refused(&world.auth(route, body.clone()).await, 422, "redirect_uri_not_allowed");
        }
    }
    assert_eq!(world.events("MagicLinkIssued").await, 0);
    let token = world.magic_link("ada@example.com").await;
    world.set(json!({"redirect_uris": ["https://app.example/other"]})).await;
    refused(&world.redeem(&token).await, 422, "redirect_uri_not_allowed");
    assert_eq!(world.events("UserRegistered").await, 0);
    world.set(json!({"redirect_uris": [CALLBACK]})).await;
    assert_eq!(world.redeem(&token).await.status, 303, "a refusal uses nothing up");
}

#[tokio::test]
async fn links_and_codes_end_by_themselves() {
    let world = world().await;
    let token = world.magic_link("ada@example.com").await;
    world.clock.advance(SignedDuration::from_secs(600));
    refused(&world.redeem(&token).await, 400, "invalid_or_expired_token");
    assert_eq!(world.get(&format!("magic-link/verify?token={token}")).await.status, 400);
    let code = world.code("ada@example.com").await;
    world.clock.advance(SignedDuration::from_secs(60));
    refused(&world.exchange(&code).await, 400, "invalid_or_expired_code");
    assert_eq!(world.events("SessionStarted").await, 0);
}

#[tokio::test]
async fn a_link_sent_again_leaves_those_before() {
    let world = world().await;
    let first = world.magic_link("ada@example.com").await;
    let second = world.magic_link("ada@example.com").await;
    assert_eq!(world.auth("magic-link/resend", ask("ada@example.com")).await.status, 202);
    let third = world.token("MagicLinkIssued").await;
    for token in [&third, &second, &first] {
        assert_eq!(world.redeem(token).await.status, 303, "the address is not verified");
    }
    assert_eq!(world.events("UserRegistered").await, 1, "two links to an unknown address make one account");
}

#[tokio::test]
async fn an_old_link_asks_for_a_new_one() {
    let world = world().await;
    let old = world.magic_link("ada@example.com").await;
    world.clock.advance(SignedDuration::from_secs(3600));
    let again = world.auth("magic-link/verify/again", json!({ "token": old })).await;
    assert_eq!(again.status, 202, "{}", again.body);
    assert_eq!(again.body, json!({"status": "accepted"}));
    let new = world.token("MagicLinkIssued").await;
    assert_ne!(new, old);
    assert_eq!(world.redeem(&new).await.status, 303);
    refused(
        &world.auth("magic-link/verify/again", json!({"token": "wwm_x"})).await,
        400,
        "invalid_or_expired_token",
    );
}

#[tokio::test]
async fn a_closed_app_answers_the_same_and_writes_nothing() {
    let world = world().await;
    world.register("ada@example.com").await;
    let token = world.magic_link("eve@example.com").await;
    world.set(json!({"registration": "closed"})).await;
    let before = world.all_events().await;
    let unknown = world.auth("magic-link", ask("bob@example.com")).await;
    assert_eq!(world.all_events().await, before);
    let known = world.auth("magic-link", ask("ada@example.com")).await;
    assert_eq!((known.status, &known.body), (unknown.status, &unknown.body));
    refused(&world.redeem(&token).await, 403, "registration_closed");
    assert_eq!(world.events("UserRegistered").await, 1);
}

#[tokio::test]
async fn a_banned_person_stays_out() {
    let world = world().await;
    let user = user_id(&world.register("ada@example.com").await);
    let token = world.magic_link("ada@example.com").await;
    let code = world.code("ada@example.com").await;
    world.ban(user).await;
    refused(&world.redeem(&token).await, 403, "user_banned");
    refused(&world.exchange(&code).await, 400, "invalid_or_expired_code");
    let before = world.all_events().await;
    assert_eq!(world.auth("magic-link", ask("ada@example.com")).await.status, 202);
    assert_eq!(world.all_events().await, before, "no mail to those who may not come in");
}

#[tokio::test]
async fn inv_q_whoever_reads_the_mail_ends_what_another_has_set_up() {
    let world = world().await;
    let squatter = world.register("victim@example.com").await;
    let access = squatter.text("access_token");
    let code = world.code("victim@example.com").await;
    assert_eq!(world.me(&access).await.status, 401, "from the redemption on");
    let tokens = world.exchange(&code).await;
    assert_eq!(tokens.body["user"]["id"], squatter.body["user"]["id"]);
    assert_eq!(tokens.body["user"]["email_verified"], true);
    refused(&world.login("victim@example.com", PASSWORD).await, 401, "invalid_credentials");
    let refresh = world.auth("refresh", json!({"refresh_token": squatter.text("refresh_token")})).await;
    refused(&refresh, 401, "session_revoked");
    // What is verified stays: another link ends nothing.
    let access = tokens.text("access_token");
    world.code("victim@example.com").await;
    assert_eq!(world.me(&access).await.status, 200);
}

#[tokio::test]
async fn a_code_is_good_for_nothing_once_all_sessions_were_ended() {
    let world = world().await;
    world.register("ada@example.com").await;
    let code = world.code("ada@example.com").await;
    assert_eq!(world.auth("password-reset/request", json!({"email": "ada@example.com"})).await.status, 202);
    let token = world.token("PasswordResetRequested").await;
    let reset = world
        .auth("password-reset/confirm", json!({"token": token, "new_password": "another horse battery"}))
        .await;
    assert_eq!(reset.status, 204, "{}", reset.body);
    refused(&world.exchange(&code).await, 400, "invalid_or_expired_code");
}

#[tokio::test]
async fn tokens_of_another_app_or_purpose_open_nothing() {
    let world = world().await;
    let other = json!({"app_id": "other", "name": "Other", "settings": {"redirect_uris": [CALLBACK]}});
    assert_eq!(world.by_platform("POST", "/v1/apps", Some(other)).await.status, 201);
    let token = world.magic_link("ada@example.com").await;
    let there = world
        .call("POST", "/v1/apps/other/auth/magic-link/verify", None, Some(json!({ "token": token })))
        .await;
    refused(&there, 400, "invalid_or_expired_token");
    refused(&world.exchange(&token).await, 400, "invalid_or_expired_code");
    let code = code_in(&world.redeem(&token).await);
    let there = world.call("POST", "/v1/apps/other/auth/exchange", None, Some(json!({ "code": code }))).await;
    refused(&there, 400, "invalid_or_expired_code");
    refused(&world.redeem(&code).await, 400, "invalid_or_expired_token");
    assert_eq!(world.exchange(&code).await.status, 200);
}
