//! Sessions, from login to end.

use domain::SessionId;
use domain::app::App;
use domain::decisions::{NotStarted, StartSession};
use domain::session::{LoginMethod, RevocationReason, Session};

use super::*;

#[tokio::test]
async fn a_person_registers_logs_in_refreshes_and_logs_out() {
    let world = World::start().await;
    let registered = world.register("Ada@Example.com").await;
    assert_eq!(registered.status, 201, "{}", registered.body);
    assert_eq!(registered.body["user"]["email"], "ada@example.com");
    assert_eq!(registered.body["token_type"], "Bearer");
    assert_eq!(registered.body["expires_in"], 1800);
    assert_eq!(registered.headers["cache-control"], "no-store");
    assert!(registered.headers.contains_key("consistency-token"));

    let login = world.login("ada@example.com", PASSWORD).await;
    assert_eq!(login.status, 200, "{}", login.body);
    let access = login.text("access_token");
    let me = world.me(&access).await;
    assert_eq!(me.status, 200, "{}", me.body);
    assert_eq!(me.body["name"], "Ada");
    assert_eq!(me.body["session_id"], login.body["session_id"]);
    assert_eq!(me.body["orgs"], json!([]));

    let patched =
        world.call("PATCH", "/auth/me", Some(&access), Some(json!({"name": "", "phone": "+44 20"}))).await;
    assert_eq!((patched.status, &patched.body["name"]), (StatusCode::OK, &Value::Null), "{}", patched.body);
    assert_eq!(patched.body["phone"], "+44 20");
    let mass = world.call("PATCH", "/auth/me", Some(&access), Some(json!({"roles": ["admin"]}))).await;
    assert_eq!((mass.status.as_u16(), mass.code()), (400, "malformed_request"));

    let refreshed = world.auth("refresh", json!({"refresh_token": login.text("refresh_token")})).await;
    assert_eq!(refreshed.status, 200, "{}", refreshed.body);
    assert_ne!(refreshed.text("refresh_token"), login.text("refresh_token"));

    let body = json!({"refresh_token": refreshed.text("refresh_token")});
    for _ in 0..2 {
        assert_eq!(world.auth("logout", body.clone()).await.status, 204);
    }
    assert_eq!(world.me(&access).await.status, 401);
    let dead = world.auth("refresh", body).await;
    assert_eq!((dead.status.as_u16(), dead.code()), (401, "session_revoked"));
    let by_bearer = world.call("POST", "/auth/logout", Some(&access), None).await;
    assert_eq!(by_bearer.status, 204);
    assert_eq!(world.call("POST", "/auth/logout", None, None).await.status, 401);
}

#[tokio::test]
async fn refreshed_tokens_make_nobody_else_of_a_caller() {
    let world = World::start().await;
    let first = world.register("ada@example.com").await;
    world.login("ada@example.com", PASSWORD).await;
    let path = "/v1/apps/default/auth/sessions/revoke-all";
    let body = json!({"exclude_current": true});
    let ask = async |token: &str| {
        world.call_with("POST", path, Some(token), Some(body.clone()), Some("k")).await.body
    };
    assert_eq!(ask(&first.text("access_token")).await, json!({"revoked": 1}));
    world.login("ada@example.com", PASSWORD).await;
    let next = world.auth("refresh", json!({"refresh_token": first.text("refresh_token")})).await;
    assert_ne!(next.text("access_token"), first.text("access_token"));
    assert_eq!(ask(&next.text("access_token")).await, json!({"revoked": 1}), "what was done the first time");
    assert_eq!(world.events("SessionRevoked").await, 1, "and nothing new");
    let other = world.register("eve@example.com").await;
    assert_eq!(ask(&other.text("access_token")).await, json!({"revoked": 0}), "her own key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_f_parallel_refreshes_make_one_chain() {
    let world = Arc::new(World::start().await);
    let token = world.register("ada@example.com").await.text("refresh_token");
    let calls = (0..32).map(|_| {
        let (world, token) = (world.clone(), token.clone());
        tokio::spawn(async move { world.auth("refresh", json!({ "refresh_token": token })).await })
    });
    let mut successors = std::collections::BTreeSet::new();
    for call in calls.collect::<Vec<_>>() {
        let answer = call.await.expect("no panic");
        assert_eq!(answer.status, 200, "{}", answer.body);
        successors.insert(answer.text("refresh_token"));
    }
    assert_eq!(successors.len(), 1);
    assert_eq!(world.events("SessionRefreshed").await, 1);
}

#[tokio::test]
async fn inv_f_reuse_leaves_no_live_end() {
    let world = World::start().await;
    let registered = world.register("ada@example.com").await;
    let old = json!({"refresh_token": registered.text("refresh_token")});
    let new = world.auth("refresh", old.clone()).await;
    world.clock.advance(SignedDuration::from_secs(11));
    let reused = world.auth("refresh", old).await;
    assert_eq!((reused.status.as_u16(), reused.code()), (401, "invalid_refresh_token"));
    let after = world.auth("refresh", json!({"refresh_token": new.text("refresh_token")})).await;
    assert_eq!((after.status.as_u16(), after.code()), (401, "session_revoked"));
    assert_eq!(world.me(&new.text("access_token")).await.status, 401);
    assert!(world.service.claimed_sessions(user_id(&registered)).await.expect("reads").is_empty());
}

#[tokio::test]
async fn sessions_expire() {
    let world = World::start().await;
    let token = world.register("ada@example.com").await.text("refresh_token");
    world.clock.advance(SignedDuration::from_secs(1_209_600));
    let late = world.auth("refresh", json!({ "refresh_token": token })).await;
    assert_eq!((late.status.as_u16(), late.code()), (401, "session_expired"));
    let mut forged = token.into_bytes();
    *forged.last_mut().expect("not empty") ^= 1;
    let forged = String::from_utf8(forged).expect("ASCII");
    let answer = world.auth("refresh", json!({ "refresh_token": forged })).await;
    assert_eq!(answer.code(), "invalid_refresh_token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_d_a_ban_during_logins_lets_nobody_stay() {
    let world = Arc::new(World::start().await);
    let user = user_id(&world.register("ada@example.com").await);
    let logins = (0..16).map(|_| {
        let world = world.clone();
        tokio::spawn(async move { world.login("ada@example.com", PASSWORD).await })
    });
    let logins = logins.collect::<Vec<_>>();
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    world.ban(user).await;
    let banned = world.login("ada@example.com", PASSWORD).await;
    assert_eq!((banned.status.as_u16(), banned.code()), (403, "user_banned"));
    assert_eq!(world.login("ada@example.com", "wrong guess").await.code(), "invalid_credentials");
    for login in logins {
        let login = login.await.expect("no panic");
        if login.status == 200 {
            assert_eq!(world.me(&login.text("access_token")).await.status, 401);
            let body = json!({"refresh_token": login.text("refresh_token")});
            assert_eq!(world.auth("refresh", body).await.code(), "session_revoked");
        } else {
            assert!(["user_banned", "session_revoked"].contains(&login.code()), "{}", login.body);
        }
    }
    // No session started after the ban in the log.
    let all = world.journal.read_all(0, 100_000).await.expect("reads");
    let ban = all.iter().position(|event| event.name == "UserBanned").expect("a ban");
    assert!(all[ban..].iter().all(|event| event.name != "SessionStarted"));
}

#[tokio::test]
async fn own_sessions_can_be_ended() {
    let world = World::start().await;
    let first = world.register("ada@example.com").await;
    let second = world.login("ada@example.com", PASSWORD).await;
    let third = world.login("ada@example.com", PASSWORD).await;
    let eve = world.register("eve@example.com").await;
    let access = third.text("access_token");
    let path = |answer: &Answer| format!("/v1/apps/default/auth/sessions/{}", answer.text("session_id"));
    for (path, status) in [
        (path(&eve), 404),
        (path(&first), 204),
        (path(&first), 404),
        ("/v1/apps/default/auth/sessions/nonsense".to_owned(), 404),
    ] {
        assert_eq!(world.call("DELETE", &path, Some(&access), None).await.status.as_u16(), status, "{path}");
    }
    let body = json!({"exclude_current": true});
    let rest = world.call("POST", "/auth/sessions/revoke-all", Some(&access), Some(body)).await;
    assert_eq!((rest.status.as_u16(), &rest.body), (200, &json!({"revoked": 1})));
    assert_eq!(world.me(&second.text("access_token")).await.status, 401);
    assert_eq!(world.me(&access).await.status, 200);
    let all = world.call("POST", "/auth/sessions/revoke-all", Some(&access), None).await;
    assert_eq!(all.body, json!({"revoked": 1}));
    assert_eq!(world.me(&access).await.status, 401);
    assert_eq!(world.me(&eve.text("access_token")).await.status, 200);
}

/// Those with the key in a header are counted by a layer that is not here.
#[tokio::test]
async fn a_client_with_its_key_in_the_body_is_limited_by_it() {
    let rate = |requests: u32| Rate {
        requests: requests.try_into().expect("not zero"),
        seconds: 600.try_into().expect("not zero"),
    };
    let limits = RateSettings { server: rate(2), ..RateSettings::default() };
    let world = World::with("m=64,t=1,p=1", limits).await;
    let (one, other) = (world.api_key(&["users:read"]).await, world.api_key(&["users:read"]).await);
    for (key, statuses) in [(one, [200, 200, 429]), (other, [200, 200, 429]), ("x".to_owned(), [401; 3])] {
        for status in statuses {
            let request = Request::post("/v1/apps/default/oauth2/introspect")
                .header("content-type", "application/x-www-form-urlencoded")
                .body(Body::from(format!("token=x&client_id=default&client_secret={key}")));
            let answer = world.send(request.expect("a request")).await;
            assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
        }
    }
}

#[tokio::test]
async fn tokens_can_be_looked_at_and_revoked() {
    let world = World::start().await;
    let tokens = world.register("ada@example.com").await;
    let key = world.key.expose_secret();
    let path = "/v1/apps/default/auth/introspect";
    for member in ["access_token", "refresh_token"] {
        let request = Request::post(path)
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(format!("token={}&token_type_hint=x", tokens.text(member))))
            .expect("a request");
        let answer = world.send(request).await;
        assert_eq!(answer.body["active"], true, "{}", answer.body);
        assert_eq!(answer.body["sub"], tokens.body["user"]["id"]);
    }
    let body = json!({"token": tokens.text("access_token")});
    assert_eq!(world.call("POST", path, None, Some(body.clone())).await.status, 401);
    for token in ["", "x", "wwr_AAAA"] {
        assert_eq!(world.auth("revoke", json!({ "token": token })).await.status, 200);
    }
    assert_eq!(world.auth("revoke", body.clone()).await.status, 200);
    let dead = world.call("POST", path, Some(key), Some(body)).await;
    assert_eq!(dead.body, json!({"active": false}));
}

/// Or each login would read more of them than the one before.
#[tokio::test]
async fn inv_y_expired_sessions_give_their_places_back() {
    let world = World::start().await;
    let ada = user_id(&world.register("ada@example.com").await);
    for _ in 0..SESSIONS.get() + 10 {
        world.clock.advance(SignedDuration::from_hours(15 * 24));
        assert_eq!(world.login("ada@example.com", PASSWORD).await.status, 200);
    }
    assert_eq!(world.service.claimed_sessions(ada).await.expect("reads").len(), SESSIONS.get());
}

/// Of as many as one may have: whoever knows the password could make them, so that the owner cannot end them.
#[tokio::test]
async fn inv_d_many_sessions_end_at_once() {
    const MANY: usize = 300;
    let world = World::start().await;
    let registered = world.register("ada@example.com").await;
    let ada = user_id(&registered);
    let (context, at) = (world.context_of_system(), world.clock.now());
    let (mut reads, app) = Reads::one::<App>(&AppId::default_app());
    let user = reads.of::<User>(&ada);
    let new = (0..MANY).map(|_| SessionId(world.clock.new_id())).collect::<Vec<_>>();
    let sessions = new.iter().map(|id| (*id, reads.new_one::<Session>(id))).collect::<Vec<_>>();
    let logins = world.service.dispatcher.run(context, reads, move |work| {
        for (session_id, session) in &sessions {
            let (session_id, method, client) = (*session_id, LoginMethod::Password, Client::default());
            let start = StartSession { session_id, method, client, at, latest: at };
            let (app, user, session) = work.drafts((app, user, *session));
            start.decide(app, user, session)?;
        }
        Ok::<_, NotStarted>(())
    });
    logins.await.expect("begin");
    let access = registered.text("access_token");
    let ended = world.call("POST", "/auth/sessions/revoke-all", Some(&access), None).await;
    assert_eq!((ended.status.as_u16(), &ended.body), (200, &json!({"revoked": MANY + 1})));
}

#[tokio::test]
async fn somebody_with_many_sessions_gets_in_by_a_node_whose_clock_is_behind() {
    let world = World::start().await;
    let ada = user_id(&world.register("ada@example.com").await);
    for _ in 0..SESSIONS.get() {
        assert_eq!(world.login("ada@example.com", PASSWORD).await.status, 200);
    }
    world.clock.set(world.clock.now() - SignedDuration::from_hours(1));
    let login = world.login("ada@example.com", PASSWORD).await;
    assert_eq!(login.status, 200, "{}", login.body);
    assert_eq!(world.me(&login.text("access_token")).await.status, 200);
    assert_eq!(world.service.claimed_sessions(ada).await.expect("reads").len(), SESSIONS.get());
}

#[tokio::test]
async fn what_is_not_decided_ends_no_session() {
    let world = World::start().await;
    let ada = user_id(&world.register("ada@example.com").await);
    // Its sessions are over by the user's own word, and not yet revoked.
    world.ban(ada).await;
    let ending = async |idempotency| {
        let context = Context { idempotency, ..world.context_of_system() };
        let (reads, _) = Reads::one::<User>(&ada);
        let service = &world.service;
        service.run_ending_sessions(ada, RevocationReason::EmailVerified, context, reads, |_| Ok(7)).await
    };
    let key = event_store::Idempotency { key: [1; 32], fingerprint: [2; 32] };
    for _ in 0..2 {
        let done = ending(Some(key)).await.expect("decides nothing");
        assert_eq!((done.value, done.replayed), (Some(7), false), "nothing is kept under the key");
        assert!(done.events.is_empty());
    }
}
