use super::*;

/// A browser's cookies for one app or one visit.
#[derive(Clone, Default)]
struct Jar(std::collections::BTreeMap<String, String>);

impl Jar {
    fn take(&mut self, answer: &Answer) -> usize {
        let mut taken = 0;
        for value in answer.headers.get_all("set-cookie") {
            let text = value.to_str().expect("ASCII");
            let (name, rest) = text.split_once('=').expect("a name");
            let (value, flags) = rest.split_once("; ").expect("flags");
            assert!(name.starts_with("__Host-ww-default-") && flags.contains("Secure"), "{text}");
            if flags.starts_with("Max-Age=0;") {
                self.0.remove(name);
            } else {
                self.0.insert(name.to_owned(), value.to_owned());
            }
            taken += 1;
        }
        taken
    }

    fn of(answer: &Answer) -> Self {
        let mut jar = Self::default();
        assert_eq!(jar.take(answer), 4, "{}", answer.body);
        jar
    }

    fn get(&self, kind: &str) -> &str {
        &self.0[&format!("__Host-ww-default-{kind}")]
    }

    fn header(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }
}

impl World {
    async fn browse(&self, method: &str, route: &str, jar: &Jar, csrf: &str, body: Option<Value>) -> Answer {
        self.browse_again(method, route, jar, csrf, body, None).await
    }

    async fn browse_again(
        &self,
        method: &str,
        route: &str,
        jar: &Jar,
        csrf: &str,
        body: Option<Value>,
        key: Option<&str>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("/v1/apps/default/auth/{route}"));
        request = request.header("cookie", jar.header());
        if !csrf.is_empty() {
            request = request.header("x-csrf-token", csrf);
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = request.header("content-type", "application/json").body(body);
        self.send(request.expect("a request")).await
    }
}

fn outcome(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.code())
}

#[tokio::test]
async fn a_browser_lives_on_cookies() {
    let world = World::start().await;
    world.set(json!({"cookies": true, "refresh_idle_ttl": 1000, "access_token_ttl": 300})).await;
    let registered = world.register("ada@example.com").await;
    let mut jar = Jar::of(&registered);
    assert!(registered.body.get("access_token").is_none() && registered.body.get("refresh_token").is_none());
    assert!(jar.get("access").contains('.') && jar.get("refresh").starts_with("wwr_"));
    let flags = |value: &http::HeaderValue| {
        let text = value.to_str().expect("ASCII");
        text.split_once("; ").expect("flags").1.to_owned()
    };
    let flags: Vec<_> = registered.headers.get_all("set-cookie").iter().map(flags).collect();
    assert_eq!(
        flags,
        [
            "Max-Age=300; Path=/; Secure; HttpOnly; SameSite=Lax",
            "Max-Age=1000; Path=/; Secure; HttpOnly; SameSite=Lax",
            "Max-Age=1000; Path=/; Secure; SameSite=Lax",
            "Max-Age=1000000; Path=/; Secure; HttpOnly; SameSite=Lax",
        ]
    );
    let csrf = jar.get("csrf").to_owned();
    let name = Some(json!({"name": "Ada L."}));
    assert_eq!(world.browse("GET", "me", &jar, "", None).await.status, 200);
    assert_eq!(outcome(&world.browse("PATCH", "me", &jar, "", name.clone()).await), (403, "forbidden"));
    assert_eq!(outcome(&world.browse("PATCH", "me", &jar, "x", name.clone()).await), (403, "forbidden"));
    assert_eq!(world.browse("PATCH", "me", &jar, &csrf, name.clone()).await.status, 200);

    // A cookie of another session, planted together with the matching header.
    let login = world.login("ada@example.com", PASSWORD).await;
    let other = Jar::of(&login).get("csrf").to_owned();
    let mut planted = jar.clone();
    planted.0.insert("__Host-ww-default-csrf".to_owned(), other.clone());
    for route in ["refresh", "logout", "sessions/revoke-all"] {
        for (jar, csrf) in [(&jar, ""), (&jar, "x"), (&jar, &*other), (&planted, &other), (&planted, &csrf)] {
            let answer = world.browse("POST", route, jar, csrf, None).await;
            assert_eq!(outcome(&answer), (403, "forbidden"), "{route}");
            assert!(!answer.headers.contains_key("set-cookie"));
        }
    }
    assert_eq!(outcome(&world.browse("PATCH", "me", &planted, &other, name).await), (403, "forbidden"));

    let before = jar.clone();
    world.clock.advance(SignedDuration::from_secs(100));
    assert_eq!(jar.take(&world.browse("POST", "refresh", &jar, &csrf, Some(json!({}))).await), 4);
    assert_ne!(jar.get("refresh"), before.get("refresh"));
    assert_eq!(jar.get("csrf"), csrf, "one for the whole session");
    let out = world.browse("POST", "logout", &jar, &csrf, None).await;
    assert_eq!((out.status.as_u16(), jar.take(&out)), (204, 3));
    assert!(jar.0.keys().eq(["__Host-ww-default-device"]), "the device stays known");
    assert_eq!(outcome(&world.browse("GET", "me", &before, "", None).await), (401, "unauthenticated"));
    assert_eq!(outcome(&world.browse("POST", "logout", &jar, "", None).await), (401, "unauthenticated"));
    let none = world.browse("POST", "refresh", &jar, "", None).await;
    assert_eq!(outcome(&none), (401, "invalid_refresh_token"));
}

#[tokio::test]
async fn an_app_without_cookie_mode_knows_no_cookies() {
    let world = World::start().await;
    world.set(json!({"cookies": true})).await;
    let jar = Jar::of(&world.register("ada@example.com").await);
    let csrf = jar.get("csrf").to_owned();
    world.set(json!({"cookies": false})).await;
    let login = world.login("ada@example.com", PASSWORD).await;
    assert_eq!(login.status, 200);
    assert!(!login.headers.contains_key("set-cookie"));
    assert_eq!(outcome(&world.browse("GET", "me", &jar, &csrf, None).await), (401, "unauthenticated"));
    assert_eq!(outcome(&world.browse("POST", "logout", &jar, &csrf, None).await), (401, "unauthenticated"));
    for body in [None, Some(json!({})), Some(json!({"refresh_token": null}))] {
        let answer = world.browse("POST", "refresh", &jar, &csrf, body).await;
        assert_eq!(outcome(&answer), (400, "malformed_request"));
    }
    // Ignored cookies do not get in the way.
    let body = json!({"refresh_token": jar.get("refresh")});
    let answer = world.browse("POST", "refresh", &jar, "", Some(body)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body = json!({"refresh_token": answer.text("refresh_token")});
    let out = world.browse("POST", "logout", &jar, "", Some(body)).await;
    assert_eq!(out.status, 204);
    assert!(!out.headers.contains_key("set-cookie"));
}

#[tokio::test]
async fn a_repeated_request_is_the_same_browsers() {
    let world = World::start().await;
    world.set(json!({"cookies": true})).await;
    let (ada, bob) = (world.register("ada@example.com").await, world.register("bob@example.com").await);
    let (ada, bob) = (Jar::of(&ada), Jar::of(&bob));
    let again = async |jar: &Jar| {
        let csrf = jar.get("csrf").to_owned();
        let answer = world.browse_again("POST", "refresh", jar, &csrf, None, Some("k")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        Jar::of(&answer).get("refresh").to_owned()
    };
    let first = again(&ada).await;
    world.clock.advance(SignedDuration::from_secs(100));
    assert_eq!(again(&ada).await, first, "an answer that was lost");
    let other = again(&bob).await;
    assert_ne!(other, first, "the same key and the same empty body, but not the same person");

    // The cookies set by a login do not make its repetition a second login.
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let login = async |jar: &Jar| {
        let answer = world.browse_again("POST", "login", jar, "", Some(body.clone()), Some("l")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer
    };
    let one = login(&Jar::default()).await;
    let two = login(&Jar::of(&one)).await;
    assert_eq!(one.body["session_id"], two.body["session_id"]);
}

/// Browsers drop a cookie of more than 4096 bytes: the person would be logged out.
#[tokio::test]
async fn organizations_never_make_the_access_cookie_too_long() {
    let world = World::start().await;
    world.set(json!({"cookies": true, "token_algorithm": "RS256", "key_propagation": 0})).await;
    let registered = world.register("ada@example.com").await;
    let mut jar = Jar::of(&registered);
    let csrf = jar.get("csrf").to_owned();
    let access = |answer: &Answer| {
        let mut cookies = answer.headers.get_all("set-cookie").iter().map(|it| it.to_str().expect("ASCII"));
        let cookie = cookies.find(|it| it.contains("-access=")).expect("an access cookie").to_owned();
        assert!(cookie.len() < 4096, "{}", cookie.len());
        let token = cookie.split_once('=').and_then(|(_, rest)| rest.split(';').next()).expect("a token");
        let part = token.split('.').nth(1).expect("a JWT");
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, part);
        serde_json::from_slice::<Value>(&bytes.expect("base64")).expect("JSON")
    };
    let create = async |name: &str| {
        let request = Request::post("/v1/apps/default/orgs")
            .header("cookie", jar.header())
            .header("x-csrf-token", &csrf)
            .header("content-type", "application/json")
            .body(Body::from(json!({ "name": name }).to_string()));
        let made = world.send(request.expect("a request")).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.text("id")
    };
    let mut orgs = Vec::new();
    for number in 0..8 {
        orgs.push(create(&format!("Engines {number}")).await);
    }
    let login = world.login("ada@example.com", PASSWORD).await;
    let claims = access(&login);
    assert_eq!((&claims["orgs_truncated"], claims.get("orgs")), (&json!(true), None), "above 512 bytes");

    let body = Some(json!({"org_id": orgs[3]}));
    assert_eq!(
        outcome(&world.browse("POST", "active-org", &jar, "", body.clone()).await),
        (403, "forbidden")
    );
    let chosen = world.browse("POST", "active-org", &jar, &csrf, body).await;
    assert_eq!(chosen.status, 200, "{}", chosen.body);
    assert!(chosen.body.get("access_token").is_none() && chosen.body["expires_in"].is_i64());
    assert_eq!(access(&chosen)["org_id"], json!(orgs[3]));
    assert_eq!(jar.take(&chosen), 1, "the other cookies stay");
    assert_eq!(world.browse("GET", "me", &jar, "", None).await.status, 200);

    // With as many roles as a person can have.
    let user = user_id(&registered);
    for number in 0.. {
        let role = format!("r{number:02}{}", "x".repeat(60));
        let path = format!("/v1/apps/default/admin/users/{user}/roles/{role}");
        if world.by_platform("PUT", &path, None).await.status != 200 {
            break;
        }
    }
    let login = world.login("ada@example.com", PASSWORD).await;
    assert_eq!(access(&login)["orgs_truncated"], true);
}
