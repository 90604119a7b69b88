//! Email verification, changes of address, and password resets.

use super::*;

const NEW: &str = "another horse battery";
const ADA: &str = "ada@example.com";

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{}", answer.body);
}

impl World {
    async fn authed(&self, route: &str, bearer: &str, body: Value) -> Answer {
        self.call("POST", &format!("/v1/apps/default/auth/{route}"), Some(bearer), Some(body)).await
    }

    async fn reset_token(&self) -> String {
        let asked = self.auth("password-reset/request", json!({"email": ADA})).await;
        assert_eq!(asked.status, 202, "{}", asked.body);
        self.token("PasswordResetRequested").await
    }

    async fn reset(&self, token: &str, password: &str) -> Answer {
        self.auth("password-reset/confirm", json!({"token": token, "new_password": password})).await
    }
}

#[tokio::test]
async fn a_reset_ends_sessions_older_tokens_and_the_lock() {
    let world = World::start().await;
    let access = world.register(ADA).await.text("access_token");
    for _ in 0..10 {
        world.login(ADA, "wrong").await;
    }
    assert_eq!(world.login(ADA, PASSWORD).await.status, 429, "locked");
    let (first, second) = (world.reset_token().await, world.reset_token().await);
    assert_ne!(first, second);
    refused(&world.reset(&second, "password").await, 422, "weak_password");
    assert_eq!(world.reset(&second, NEW).await.status, 204);
    for token in [&first, &second] {
        refused(&world.reset(token, NEW).await, 400, "invalid_or_expired_token");
    }
    assert_eq!(world.me(&access).await.status, 401);
    refused(&world.login(ADA, PASSWORD).await, 401, "invalid_credentials");
    let login = world.login(ADA, NEW).await;
    assert_eq!(login.status, 200, "{}", login.body);
    assert_eq!(login.body["user"]["email_verified"], true, "the token proves control of the mailbox");
    assert_eq!(world.events("SessionRevoked").await, 1);
}

#[tokio::test]
async fn inv_g_of_many_resets_with_one_token_one_succeeds() {
    let world = Arc::new(World::start().await);
    world.register(ADA).await;
    let token = world.reset_token().await;
    let tries = (0..20).map(|n| {
        let (world, token) = (world.clone(), token.clone());
        tokio::spawn(async move { world.reset(&token, &format!("{NEW} {n}")).await.status.as_u16() })
    });
    let statuses: Vec<_> =
        futures::future::join_all(tries).await.into_iter().map(|status| status.expect("no panic")).collect();
    assert_eq!(statuses.iter().filter(|&&status| status == 204).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [204, 400].contains(status)), "{statuses:?}");
    assert_eq!(world.events("PasswordReset").await, 1);
}

#[tokio::test]
async fn what_nobody_has_is_answered_alike_and_leaves_nothing() {
    let world = World::start().await;
    world.register(ADA).await;
    for route in [
        "password-reset/request",
        "forgot-password",
        "email-verification/request",
        "email-verification/resend",
    ] {
        let known = world.auth(route, json!({"email": ADA})).await;
        let before = world.all_events().await;
        let unknown = world.auth(route, json!({"email": "nobody@example.com"})).await;
        assert_eq!(world.all_events().await, before, "{route}");
        assert_eq!((known.status, &known.body), (unknown.status, &unknown.body), "{route}");
        assert_eq!((known.status.as_u16(), &known.body), (202, &json!({"status": "accepted"})));
        let names = |answer: &Answer| answer.headers.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&known), names(&unknown), "{route}");
        // Nor may an idempotency key reveal that something was stored under it.
        for email in [ADA, "nobody@example.com"] {
            let path = format!("/v1/apps/default/auth/{route}");
            for body in [json!({ "email": email }), json!({"email": "other@example.com"})] {
                let answer = world.call_with("POST", &path, None, Some(body), Some(email)).await;
                assert_eq!(answer.status, 202, "{}", answer.body);
            }
        }
        refused(&world.auth(route, json!({"email": "no address"})).await, 422, "invalid_email");
    }
}

#[tokio::test]
async fn the_same_request_under_one_key_asks_for_one_mail() {
    let world = World::start().await;
    world.register(ADA).await;
    for _ in 0..3 {
        let path = "/v1/apps/default/auth/password-reset/request";
        let answer = world.call_with("POST", path, None, Some(json!({"email": ADA})), Some("k")).await;
        assert_eq!(answer.status, 202);
    }
    assert_eq!(world.events("PasswordResetRequested").await, 1);
}

#[tokio::test]
async fn an_address_is_verified_once_and_then_people_come_in() {
    let world = World::start().await;
    world.set(json!({"require_verified_email": true})).await;
    assert_eq!(world.register(ADA).await.status, 202);
    refused(&world.login(ADA, "wrong").await, 401, "invalid_credentials");
    refused(&world.login(ADA, PASSWORD).await, 403, "email_not_verified");
    let first = world.token("EmailVerificationRequested").await;
    world.auth("email-verification/resend", json!({"email": ADA})).await;
    let second = world.token("EmailVerificationRequested").await;
    let confirmed = world.auth("email-verification/confirm", json!({ "token": first })).await;
    assert_eq!((confirmed.status.as_u16(), &confirmed.body["user"]["email_verified"]), (200, &json!(true)));
    for token in [first, second] {
        let again = world.auth("verify-email", json!({ "token": token })).await;
        assert_eq!(
            (again.status.as_u16(), &again.body),
            (200, &json!({"user": null, "already_verified": true}))
        );
    }
    assert_eq!(world.login(ADA, PASSWORD).await.status, 200);
    let before = world.all_events().await;
    assert_eq!(world.auth("email-verification/request", json!({"email": ADA})).await.status, 202);
    assert_eq!(world.all_events().await, before, "nothing is left to verify");
}

#[tokio::test]
async fn the_owner_of_an_address_hears_that_somebody_tried_to_register_it() {
    let world = World::start().await;
    world.set(json!({"require_verified_email": true})).await;
    let (first, again) = (world.register(ADA).await, world.register(ADA).await);
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!((world.events("UserRegistered").await, world.events("PasswordResetRequested").await), (1, 1));
    assert_eq!(world.events("EmailVerificationRequested").await, 1);
}

#[tokio::test]
async fn verifications_and_resets_end_by_themselves() {
    let world = World::start().await;
    world.register(ADA).await;
    let reset = world.reset_token().await;
    world.auth("email-verification/request", json!({"email": ADA})).await;
    let verify = world.token("EmailVerificationRequested").await;
    world.clock.advance(SignedDuration::from_secs(3600));
    refused(&world.reset(&reset, NEW).await, 400, "invalid_or_expired_token");
    world.clock.advance(SignedDuration::from_secs(86_400));
    let late = world.auth("email-verification/confirm", json!({ "token": verify })).await;
    refused(&late, 400, "invalid_or_expired_token");
}

#[tokio::test]
async fn tokens_are_of_one_app_and_purpose_only() {
    let world = World::start().await;
    world.register(ADA).await;
    let other = json!({"app_id": "other", "name": "Other"});
    assert_eq!(world.by_platform("POST", "/v1/apps", Some(other)).await.status, 201);
    let token = world.reset_token().await;
    let body = json!({"token": token, "new_password": NEW});
    let there = world.call("POST", "/v1/apps/other/auth/password-reset/confirm", None, Some(body)).await;
    refused(&there, 400, "invalid_or_expired_token");
    for route in ["email-verification/confirm", "email/change/confirm", "magic-link/verify"] {
        refused(&world.auth(route, json!({ "token": token })).await, 400, "invalid_or_expired_token");
    }
    for cut in [0, 4, token.len() / 2, token.len() - 1] {
        refused(&world.reset(&token[..cut], NEW).await, 400, "invalid_or_expired_token");
    }
    assert_eq!(world.reset(&token, NEW).await.status, 204);
}

#[tokio::test]
async fn an_address_changes_when_the_new_one_confirms() {
    let world = World::start().await;
    let stays = world.register(ADA).await.text("access_token");
    let ends = world.login(ADA, PASSWORD).await.text("access_token");
    let body = |email: &str, password: &str| json!({"new_email": email, "password": password});
    refused(
        &world.authed("email/change", &stays, body("new@example.com", "wrong")).await,
        401,
        "invalid_credentials",
    );
    assert_eq!(world.events("LoginFailed").await, 1);
    assert_eq!(
        world.auth("register", json!({"email": "bob@example.com", "password": PASSWORD})).await.status,
        201
    );
    refused(
        &world.authed("email/change", &stays, body("bob@example.com", PASSWORD)).await,
        409,
        "email_taken",
    );
    refused(&world.authed("email/change", &stays, body("nobody", PASSWORD)).await, 422, "invalid_email");
    let asked = world.authed("email/change", &stays, body("new@example.com", PASSWORD)).await;
    assert_eq!((asked.status.as_u16(), &asked.body), (202, &json!({"status": "accepted"})));
    assert_eq!(world.me(&stays).await.body["email"], ADA, "not before it is confirmed");

    let token = world.token("EmailChangeRequested").await;
    assert!(token.starts_with("wwe_"));
    let done = world.auth("email/change/confirm", json!({ "token": token })).await;
    assert_eq!(done.status, 200, "{}", done.body);
    assert_eq!(done.body["user"]["email"], "new@example.com");
    assert_eq!(done.body["user"]["email_verified"], true);
    refused(
        &world.auth("email/change/confirm", json!({ "token": token })).await,
        400,
        "invalid_or_expired_token",
    );
    assert_eq!(world.me(&stays).await.body["email"], "new@example.com");
    assert_eq!(world.me(&ends).await.status, 401);
    refused(&world.login(ADA, PASSWORD).await, 401, "invalid_credentials");
    assert_eq!(world.login("new@example.com", PASSWORD).await.status, 200);
    assert_eq!(world.register(ADA).await.status, 201, "inv_h: the old address is free");
}

#[tokio::test]
async fn inv_h_an_address_that_was_taken_meanwhile_stays_whose_it_is() {
    let world = World::start().await;
    let access = world.register(ADA).await.text("access_token");
    let body = json!({"new_email": "new@example.com", "password": PASSWORD});
    assert_eq!(world.authed("email/change", &access, body).await.status, 202);
    let token = world.token("EmailChangeRequested").await;
    assert_eq!(world.register("new@example.com").await.status, 201);
    refused(&world.auth("email/change/confirm", json!({ "token": token })).await, 409, "email_taken");
    assert_eq!(world.me(&access).await.body["email"], ADA);
}

#[tokio::test]
async fn with_verified_addresses_a_change_tells_nothing_of_others() {
    let world = World::start().await;
    let access = world.register(ADA).await.text("access_token");
    world.register("bob@example.com").await;
    world.auth("email-verification/request", json!({"email": ADA})).await;
    let token = world.token("EmailVerificationRequested").await;
    assert_eq!(world.auth("email-verification/confirm", json!({ "token": token })).await.status, 200);
    world.set(json!({"require_verified_email": true})).await;
    let body = |email: &str| json!({"new_email": email, "password": PASSWORD});
    let anothers = world.authed("email/change", &access, body("bob@example.com")).await;
    let token = world.token("EmailChangeRequested").await;
    refused(&world.auth("email/change/confirm", json!({ "token": token })).await, 409, "email_taken");
    let free = world.authed("email/change", &access, body("new@example.com")).await;
    assert_eq!((anothers.status, &anothers.body), (free.status, &free.body));
    assert_eq!(world.events("EmailChangeRequested").await, 2, "both leave the same in the log");
}

#[tokio::test]
async fn a_password_is_changed_by_who_knows_it_and_other_sessions_end() {
    let world = World::start().await;
    let stays = world.register(ADA).await;
    let (access, refresh) = (stays.text("access_token"), stays.text("refresh_token"));
    let ends = world.login(ADA, PASSWORD).await.text("access_token");
    let reset = world.reset_token().await;
    let body = |old: &str, new: &str| json!({"old_password": old, "new_password": new});
    refused(
        &world.authed("password/change", &access, body(PASSWORD, "12345678")).await,
        422,
        "weak_password",
    );
    refused(&world.auth("password/change", body(PASSWORD, NEW)).await, 401, "unauthenticated");
    assert_eq!(world.authed("password/change", &access, body(PASSWORD, NEW)).await.status, 204);
    assert_eq!(world.me(&access).await.status, 200);
    assert_eq!(world.auth("refresh", json!({ "refresh_token": refresh })).await.status, 200);
    assert_eq!(world.me(&ends).await.status, 401);
    refused(&world.reset(&reset, PASSWORD).await, 400, "invalid_or_expired_token");
    refused(&world.login(ADA, PASSWORD).await, 401, "invalid_credentials");
    assert_eq!(world.login(ADA, NEW).await.status, 200);
}

#[tokio::test]
async fn inv_p_guesses_through_a_session_count_as_failed_logins() {
    let world = Arc::new(World::start().await);
    let access = world.register(ADA).await.text("access_token");
    let tries = (0..30).map(|n| {
        let (world, access) = (world.clone(), access.clone());
        tokio::spawn(async move {
            let body = json!({"old_password": format!("guess {n}"), "new_password": NEW});
            world.authed("password/change", &access, body).await.status.as_u16()
        })
    });
    let statuses: Vec<_> =
        futures::future::join_all(tries).await.into_iter().map(|status| status.expect("no panic")).collect();
    assert_eq!(statuses.iter().filter(|&&status| status == 401).count(), 10, "{statuses:?}");
    assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
    let body = json!({"old_password": PASSWORD, "new_password": NEW});
    refused(&world.authed("password/change", &access, body).await, 429, "rate_limited");
    world.register("taken@example.com").await;
    for new_email in ["new@example.com", "taken@example.com"] {
        let body = json!({"new_email": new_email, "password": PASSWORD});
        refused(&world.authed("email/change", &access, body).await, 429, "rate_limited");
    }
}

#[tokio::test]
async fn an_app_that_sends_its_own_mails_gets_the_tokens_and_nobody_else_does() {
    let world = World::start().await;
    world.set(json!({"delivery": "app", "redirect_uris": ["https://app.example/"]})).await;
    let user = user_id(&world.register(ADA).await);
    let (server, reader) = (world.api_key(&["users:write"]).await, world.api_key(&["users:read"]).await);
    let magic = json!({"email": ADA, "redirect_uri": "https://app.example/"});
    let asks = [
        ("password-reset/request", json!({"email": ADA}), "wwp_"),
        ("email-verification/request", json!({"email": ADA}), "wwv_"),
        ("magic-link", magic, "wwm_"),
    ];
    let before = world.all_events().await;
    for (route, body, _) in &asks {
        let anybody = world.auth(route, body.clone()).await;
        assert_eq!(
            (anybody.status.as_u16(), &anybody.body),
            (202, &json!({"status": "accepted"})),
            "{route}"
        );
        refused(&world.authed(route, &reader, body.clone()).await, 403, "forbidden");
        refused(&world.authed(route, "wwk_forged", body.clone()).await, 401, "unauthenticated");
    }
    assert_eq!(world.all_events().await, before, "no token is created without a recipient");
    for (route, body, prefix) in &asks {
        let asked = world.authed(route, &server, body.clone()).await;
        assert_eq!(asked.status, 202, "{}", asked.body);
        assert!(asked.text("token").starts_with(prefix), "{}", asked.body);
    }
    let nobody =
        world.authed("password-reset/request", &server, json!({"email": "nobody@example.com"})).await;
    assert_eq!((nobody.status.as_u16(), &nobody.body), (202, &json!({"status": "accepted"})));

    // A key that may not act as an admin cannot become one by a mail.
    world.verify("default", ADA).await;
    let grant = format!("/v1/apps/default/admin/users/{user}/roles/admin");
    assert_eq!(world.by_platform("PUT", &grant, None).await.status, 200);
    for (route, body, _) in asks {
        refused(&world.authed(route, &server, body.clone()).await, 403, "forbidden");
        let asked = world.authed(route, world.key.expose_secret(), body).await;
        assert_eq!(asked.status, 202, "{}", asked.body);
    }
    // If Watchword sends the mails, the app's server gets no token.
    world.set(json!({"delivery": "platform"})).await;
    let asked =
        world.authed("password-reset/request", world.key.expose_secret(), json!({"email": ADA})).await;
    assert_eq!((asked.status.as_u16(), &asked.body), (202, &json!({"status": "accepted"})));
}

#[tokio::test]
async fn inv_r_what_was_made_for_a_user_opens_no_admins_account() {
    let world = World::start().await;
    let callback = "https://app.example/";
    world.set(json!({"delivery": "app", "redirect_uris": [callback]})).await;
    let user = user_id(&world.register(ADA).await);
    let server = world.api_key(&["users:write"]).await;
    let ask = json!({"email": ADA, "redirect_uri": callback});
    let link = async || {
        let asked = world.call("POST", "/auth/magic-link", Some(&server), Some(ask.clone())).await;
        asked.text("token")
    };
    let redeem = async |token: &str| world.auth("magic-link/verify", json!({ "token": token })).await;
    let (early, redeemed) = (link().await, redeem(&link().await).await);
    let location = redeemed.headers["location"].to_str().expect("ASCII").to_owned();
    let code = location.split_once("?code=").expect("a code").1;
    let asked = json!({ "email": ADA });
    let mailed = world.call("POST", "/auth/password-reset/request", Some(&server), Some(asked)).await;
    let path = format!("/v1/apps/default/admin/users/{user}/password-reset");
    let made = world.call("POST", &path, Some(&server), None).await;

    let grant = format!("/v1/apps/default/admin/users/{user}/roles/admin");
    assert_eq!(world.by_platform("PUT", &grant, None).await.status, 200);
    refused(&redeem(&early).await, 400, "invalid_or_expired_token");
    refused(&world.auth("exchange", json!({ "code": code })).await, 400, "invalid_or_expired_code");
    for reset in [mailed, made] {
        refused(&world.reset(&reset.text("token"), NEW).await, 400, "invalid_or_expired_token");
    }
    let asked = world.call("POST", "/auth/magic-link", Some(&server), Some(ask.clone())).await;
    refused(&asked, 403, "forbidden");
}

#[tokio::test]
async fn an_admin_makes_a_token_that_proves_no_mailbox() {
    let world = World::start().await;
    let user = user_id(&world.register(ADA).await);
    let path = format!("/v1/apps/default/admin/users/{user}/password-reset");
    let made = world.by_platform("POST", &path, None).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert!(made.body["expires_at"].is_string());
    assert_eq!(world.reset(&made.text("token"), NEW).await.status, 204);
    let login = world.login(ADA, NEW).await;
    assert_eq!(login.body["user"]["email_verified"], false, "inv_q");

    let server = world.api_key(&["users:write"]).await;
    assert_eq!(world.call("POST", &path, Some(&server), None).await.status, 201);
    world.verify("default", ADA).await;
    let grant = format!("/v1/apps/default/admin/users/{user}/roles/admin");
    assert_eq!(world.by_platform("PUT", &grant, None).await.status, 200);
    refused(&world.call("POST", &path, Some(&server), None).await, 403, "forbidden");
    let absent = "/v1/apps/default/admin/users/018f0000-0000-7000-8000-000000000000/password-reset";
    refused(&world.by_platform("POST", absent, None).await, 404, "not_found");
}

#[tokio::test]
async fn inv_q_a_reset_by_the_reader_of_the_mail_ends_what_another_has_set_up() {
    let world = World::start().await;
    let squatter = world.register(ADA).await;
    let access = squatter.text("access_token");
    // A change of address that the squatter requested ends with the rest.
    let body = json!({"new_email": "squatter@example.com", "password": PASSWORD});
    assert_eq!(world.authed("email/change", &access, body).await.status, 202);
    let change = world.token("EmailChangeRequested").await;
    let token = world.reset_token().await;
    assert_eq!(world.reset(&token, NEW).await.status, 204);
    refused(
        &world.auth("email/change/confirm", json!({ "token": change })).await,
        400,
        "invalid_or_expired_token",
    );
    assert_eq!(world.me(&access).await.status, 401);
}

#[tokio::test]
async fn requests_for_mails_are_limited_by_mailbox_and_client_whoever_has_the_address() {
    let rates = RateSettings::default();
    let world = World::with("m=64,t=1,p=1", RateSettings { enabled: true, ..rates }).await;
    world.register(ADA).await;
    for email in [ADA, "nobody@example.com"] {
        for _ in 0..5 {
            assert_eq!(world.auth("password-reset/request", json!({ "email": email })).await.status, 202);
        }
        let answer = world.auth("password-reset/request", json!({ "email": email })).await;
        refused(&answer, 429, "rate_limited");
        assert!(answer.headers.contains_key("retry-after"));
    }
    // Twelve so far: eight more exhaust this client's budget for all mailboxes.
    for n in 0..8 {
        let email = format!("{n}@example.com");
        assert_eq!(world.auth("password-reset/request", json!({ "email": email })).await.status, 202);
    }
    let other = world.auth("password-reset/request", json!({"email": "other@example.com"})).await;
    refused(&other, 429, "rate_limited");
    assert_eq!(world.login(ADA, PASSWORD).await.status, 200, "logins are counted apart");
}
