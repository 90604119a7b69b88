//! What a login reveals.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_p_no_more_guesses_are_answered_than_allowed() {
    let world = Arc::new(World::start().await);
    world.register("ada@example.com").await;
    for email in ["ada@example.com", "nobody@example.com"] {
        let calls = (0..50).map(|n| {
            let world = world.clone();
            tokio::spawn(async move { world.login(email, &format!("wrong guess {n}")).await })
        });
        let mut answered = 0;
        for call in calls.collect::<Vec<_>>() {
            let answer = call.await.expect("no panic");
            match answer.status.as_u16() {
                401 => answered += 1,
                429 => assert_eq!(answer.headers["retry-after"], "60", "{email}"),
                _ => panic!("{}", answer.body),
            }
        }
        assert_eq!(answered, 10, "{email}");
        // Even the correct one has to wait.
        assert_eq!(world.login(email, PASSWORD).await.code(), "rate_limited");
    }
    assert_eq!(world.events("LoginFailed").await, 10);
    assert_eq!(world.events("AccountLocked").await, 1);
    world.clock.advance(SignedDuration::from_secs(61));
    assert_eq!(world.login("ada@example.com", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn unknown_and_wrong_look_alike() {
    let world = World::start().await;
    world.register("ada@example.com").await;
    let wrong = world.login("ada@example.com", "wrong guess").await;
    for email in ["nobody@example.com", "no address", ""] {
        let unknown = world.login(email, "wrong guess").await;
        assert_eq!((unknown.status, unknown.code()), (wrong.status, "invalid_credentials"), "{email:?}");
        let names = |answer: &Answer| answer.headers.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&unknown), names(&wrong));
        assert_eq!(unknown.body["detail"], wrong.body["detail"]);
    }
}

/// An `Idempotency-Key` must not reveal whether its first request found an account.
#[tokio::test]
async fn a_repeated_key_tells_nothing_about_an_address() {
    let world = World::start().await;
    world.register("ada@example.com").await;
    let send = async |route: &str, email: &str, password: &str| {
        let path = format!("/v1/apps/default/auth/{route}");
        let body = json!({"email": email, "password": password});
        let answer = world.call_with("POST", &path, None, Some(body), Some(email)).await;
        (answer.status.as_u16(), answer.code().to_owned())
    };
    for email in ["ada@example.com", "nobody@example.com"] {
        for guess in ["wrong guess", "wrong guess", "another guess"] {
            assert_eq!(send("login", email, guess).await, (401, "invalid_credentials".to_owned()), "{email}");
        }
        for n in 3..10 {
            assert_eq!(world.login(email, &format!("wrong guess {n}")).await.status, 401);
        }
        assert_eq!(send("login", email, "wrong guess").await, (429, "rate_limited".to_owned()), "{email}");
    }
    world.set(json!({"require_verified_email": true})).await;
    for email in ["ada@example.com", "free@example.com"] {
        for password in [PASSWORD, PASSWORD, "another horse battery"] {
            assert_eq!(send("register", email, password).await.0, 202, "{email}");
        }
    }
    assert_eq!(world.events("UserRegistered").await, 2);
}

#[tokio::test]
async fn a_login_renews_an_outdated_hash() {
    let world = World::start().await;
    let user = user_id(&world.register("ada@example.com").await);
    let stronger = PasswordHashingSettings { params: "m=128,t=1,p=1".to_owned(), ..Default::default() };
    let stronger = PasswordHashing::start(&stronger).expect("valid");
    let old = stronger.hash(&domain::password::Password::new(PASSWORD)).await.expect("hashes");
    let loaded = world.service.repository.load::<User>(&user).await.expect("loads");
    let current = loaded.state.password_hash.clone().expect("a hash");
    let at = world.clock.now();
    let context = Context {
        metadata: schemas::envelope::Metadata {
            app_id: AppId::default_app(),
            actor: Actor::system(),
            correlation_id: world.clock.new_id(),
            causation_id: None,
            request_id: None,
            traceparent: None,
        },
        client: Client::default(),
        at,
        idempotency: None,
        is_first: false,
    };
    let (reads, user) = Reads::one::<User>(&user);
    let replace = world.service.dispatcher.run(context, reads, move |work| {
        work.execute(user, UserCommand::Rehash { old: current.clone(), new: old.clone(), at })
    });
    replace.await.expect("replaces");
    assert_eq!(world.login("ada@example.com", PASSWORD).await.status, 200);
    assert_eq!(world.events("PasswordRehashed").await, 2);
    assert_eq!(world.login("ada@example.com", PASSWORD).await.status, 200);
    assert_eq!(world.events("PasswordRehashed").await, 2);
}
