use domain::AppSettings;
use domain::signing_key::TokenAlgorithm;
use event_store::InstanceKey;
use insta::assert_snapshot;
use uuid::Uuid;

use super::*;
use tokens::testing::Signer;

use crate::testing::World;

fn app(id: &str, cookies: bool) -> App {
    let settings = AppSettings { cookies, ..AppSettings::default() };
    App { id: Some(AppId::parse(id).expect("valid")), settings, ..App::default() }
}

fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
    let value = |text: &str| HeaderValue::from_str(text).expect("a value");
    let mut headers = HeaderMap::new();
    for (name, text) in pairs {
        headers.append(name, value(text));
    }
    headers
}

fn lines(cookies: &SetCookies) -> String {
    let text = |value: &HeaderValue| value.to_str().expect("ASCII").to_owned();
    cookies.cookies.iter().map(text).collect::<Vec<_>>().join("\n")
}

#[test]
fn cookies_are_set_with_these_flags() {
    let keys = DerivedTokens::new(&InstanceKey::generate());
    let session = SessionId(Uuid::from_u128(7));
    let csrf = csrf_token(&keys, session);
    let public = PublicUrl::parse("https://auth.example/auth").expect("valid");
    let access = Lasting { token: "a.b.c", seconds: 1800 };
    let refresh = Lasting { token: "wwr_x", seconds: 1_209_600 };
    let on = app("acme", true);
    assert_snapshot!(lines(&SetCookies::of(&on, &public, &csrf, access, refresh)).replace(&csrf, "<token>"), @"
    __Host-ww-acme-access=a.b.c; Max-Age=1800; Path=/; Secure; HttpOnly; SameSite=Lax
    __Host-ww-acme-refresh=wwr_x; Max-Age=1209600; Path=/; Secure; HttpOnly; SameSite=Lax
    __Host-ww-acme-csrf=<token>; Max-Age=1209600; Path=/; Secure; SameSite=Lax
    ");
    assert_snapshot!(lines(&SetCookies::cleared(&on, &public)), @"
    __Host-ww-acme-access=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax
    __Host-ww-acme-refresh=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax
    __Host-ww-acme-csrf=; Max-Age=0; Path=/; Secure; SameSite=Lax
    ");
    let off = app("acme", false);
    let none = SetCookies::of(&off, &public, &csrf, access, refresh);
    assert_eq!((lines(&none), none.hold_the_tokens()), (String::new(), false));
    assert_eq!(lines(&SetCookies::cleared(&off, &public)), "");
    let local = PublicUrl::parse("http://localhost:8080").expect("valid");
    let cookies = SetCookies::of(&on, &local, &csrf, access, refresh);
    assert!(cookies.hold_the_tokens());
    assert_snapshot!(lines(&cookies).replace(&csrf, "<token>"), @"
    ww-acme-access=a.b.c; Max-Age=1800; Path=/; HttpOnly; SameSite=Lax
    ww-acme-refresh=wwr_x; Max-Age=1209600; Path=/; HttpOnly; SameSite=Lax
    ww-acme-csrf=<token>; Max-Age=1209600; Path=/; SameSite=Lax
    ");
    // Only loopback counts as a developer's machine.
    let elsewhere = PublicUrl::parse("http://auth.example").expect("valid");
    assert!(
        lines(&SetCookies::of(&on, &elsewhere, &csrf, access, refresh)).starts_with("__Host-ww-acme-access")
    );
}

#[test]
fn a_cookie_that_came_once_is_found_among_others() {
    let found = |values: &[&[u8]]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::COOKIE, HeaderValue::from_bytes(value).expect("a value"));
        }
        cookie_value(&headers, "ww").map(str::to_owned)
    };
    for values in [
        &[&b"ww=1"[..]][..],
        &[b"a=b; ww=1;c=\xff\xfe"],
        &[b"a=b", b"ww=1"],
        &[b"xww=2; ww=1; ww2=3; ww; =; ;"],
    ] {
        assert_eq!(found(values).as_deref(), Some("1"), "{values:?}");
    }
    assert_eq!(found(&[b"ww=a=b"]).as_deref(), Some("a=b"));
    for values in [&[&b"ww=1; ww=1"[..]][..], &[b"ww=1", b"ww=2"], &[b"WW=1"], &[b"ww"], &[b"ww=\xff"], &[]] {
        assert_eq!(found(values), None, "{values:?}");
    }
}

#[test]
fn repeated_requests_are_distinguished_by_the_cookies_that_authenticate_them() {
    let id = AppId::parse("acme").expect("valid");
    let of = |cookie: &str| {
        caller(&headers(&[(header::COOKIE, cookie), (X_CSRF_TOKEN, "c")]), &id)
            .map(|caller| String::from_utf8(caller).expect("text"))
    };
    assert_eq!(of("__Host-ww-acme-access=a; __Host-ww-acme-refresh=r").as_deref(), Some("cookies:a;r"));
    assert_eq!(of("__Host-ww-acme-refresh=r").as_deref(), Some("cookies:;r"));
    assert_eq!(of("ww-acme-access=a; ww-acme-refresh=r").as_deref(), Some("cookies:a;r"));
    assert_eq!(of("__Host-ww-other-access=a"), None);
    assert_eq!(caller(&headers(&[(header::COOKIE, "__Host-ww-acme-access=a")]), &id), None);
}

#[tokio::test]
async fn an_access_cookie_is_taken_with_the_csrf_token_of_its_session() {
    let world = World::new().await;
    let signer = Signer::new(TokenAlgorithm::Es256, "one");
    let (acme, other, off) =
        (AppId::parse("acme").expect("valid"), AppId::parse("other").expect("valid"), AppId::default_app());
    let cookies = AppSettings { cookies: true, ..AppSettings::default() };
    world.app(&acme, &signer, cookies.clone()).await;
    world.app(&other, &signer, cookies).await;
    world.app(&off, &signer, AppSettings::default()).await;
    let (user_id, session, claims) = world.user(&acme).await;
    let token = signer.sign(&claims);
    let own = csrf_token(&world.tokens, session);
    // An active session of an attacker, whose csrf token a sibling domain plants.
    let (_, foreign, _) = world.user(&acme).await;
    let planted = csrf_token(&world.tokens, foreign);
    let forged = csrf_token(&DerivedTokens::new(&InstanceKey::generate()), session);

    let call = async |app: &AppId, method: Method, kept: &str, sent: Option<&str>| {
        let cookie = format!("__Host-ww-{app}-access={token}; __Host-ww-{app}-csrf={kept}");
        let mut all = vec![(header::COOKIE, cookie.as_str())];
        all.extend(sent.map(|sent| (X_CSRF_TOKEN, sent)));
        let credentials = Credentials::new(&method, &headers(&all));
        world.authenticator.user(app, &credentials).await.err().map_or("ok", |problem| problem.code())
    };
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        assert_eq!(call(&acme, method, "", None).await, "ok");
    }
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::TRACE] {
        assert_eq!(call(&acme, method.clone(), &own, Some(&own)).await, "ok");
        for (kept, sent) in [
            (&*own, None),
            (&own, Some("")),
            (&own, Some("x")),
            ("", Some(&*own)),
            ("", Some("")),
            ("x", Some("x")),
            (&planted, Some(&planted)),
            (&forged, Some(&forged)),
            (&planted, Some(&own)),
            (&own, Some(&planted)),
        ] {
            assert_eq!(call(&acme, method.clone(), kept, sent).await, "forbidden", "{kept} {sent:?}");
        }
    }
    // The token of one app as the cookie of another, and an app without cookie mode.
    assert_eq!(call(&other, Method::GET, &own, Some(&own)).await, "unauthenticated");
    assert_eq!(call(&off, Method::GET, &own, Some(&own)).await, "unauthenticated");

    let user = async |all: &[(HeaderName, &str)]| {
        let credentials = Credentials::new(&Method::GET, &headers(all));
        world.authenticator.user(&acme, &credentials).await.err().map_or("ok", |problem| problem.code())
    };
    let cookie = format!("__Host-ww-acme-access={token}");
    let twice = format!("{cookie}; {cookie}");
    let elsewhere = format!("__Host-ww-other-access={token}");
    assert_eq!(user(&[(header::COOKIE, &cookie)]).await, "ok");
    assert_eq!(user(&[(header::COOKIE, &twice)]).await, "unauthenticated");
    assert_eq!(user(&[(header::COOKIE, &elsewhere)]).await, "unauthenticated");
    assert_eq!(
        user(&[(header::COOKIE, &cookie), (header::AUTHORIZATION, "Bearer x")]).await,
        "unauthenticated"
    );

    // Admins may use cookies; an API key is not one.
    world.make_admin(user_id).await;
    let key = world.api_key(&AppId::platform(), &[domain::Permission::Platform]).await;
    let admin = async |method: Method, cookie: &str| {
        let credentials = Credentials::new(&method, &headers(&[(header::COOKIE, cookie)]));
        let read = domain::Permission::UsersRead;
        world
            .authenticator
            .admin(&acme, &credentials, read)
            .await
            .err()
            .map_or("ok", |problem| problem.code())
    };
    assert_eq!(admin(Method::GET, &cookie).await, "ok");
    assert_eq!(admin(Method::POST, &cookie).await, "forbidden");
    assert_eq!(admin(Method::GET, &format!("__Host-ww-acme-access={key}")).await, "unauthenticated");
}

#[test]
fn one_bearer_token_and_nothing_else() {
    let parse = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).expect("a value"));
        }
        Credentials::new(&Method::GET, &headers).bearer().map(str::to_owned).ok()
    };
    assert_eq!(parse(&["Bearer abc"]).as_deref(), Some("abc"));
    assert_eq!(parse(&["bearer  abc "]).as_deref(), Some("abc"));
    for values in [
        &[][..],
        &["abc"],
        &["Bearer"],
        &["Bearer "],
        &["Basic abc"],
        &["Bearer a b"],
        &["Bearer a", "Bearer a"],
    ] {
        assert_eq!(parse(values), None, "{values:?}");
    }
}

#[test]
fn a_challenge_names_an_error_only_if_a_token_was_sent() {
    let of = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).expect("a header"));
        }
        let refused = Credentials::new(&Method::GET, &headers).bearer().map(str::to_owned);
        let answer = axum::response::IntoResponse::into_response(refused.expect_err("it is none"));
        answer.headers()[header::WWW_AUTHENTICATE].to_str().expect("ASCII").to_owned()
    };
    for none in [&[][..], &["Basic YTpi"], &["Bearer"], &["Bearer  "], &[""], &["token"]] {
        assert_eq!(of(none), "Bearer", "{none:?}");
    }
    for bad in [&["Bearer a b"][..], &["bearer a", "Bearer b"]] {
        assert_eq!(
            of(bad),
            "Bearer error=\"invalid_token\", \
             error_description=\"the token is malformed, expired, revoked, or not for this app\"",
            "{bad:?}"
        );
    }
}
