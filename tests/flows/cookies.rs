use serde_json::json;
use tests::{Answer, App, Call, PASSWORD, Server, email};

/// The values of the three cookies of a session that an answer sets. One that ends it leaves the fourth, which says that the
/// device is known.
fn set(app: &App<'_>, answer: &Answer) -> [String; 3] {
    let all: Vec<_> =
        answer.headers.get_all("set-cookie").iter().map(|it| it.to_str().expect("ASCII")).collect();
    let device = format!("__Host-ww-{}-device=wwd_", app.id);
    let device = all.iter().find_map(|it| it.strip_prefix(device.as_str()));
    assert!(device.is_none_or(|it| it.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax")), "{all:?}");
    let is_over = all.iter().all(|it| it.contains("Max-Age=0;"));
    assert_eq!((all.len(), device.is_some()), if is_over { (3, false) } else { (4, true) }, "{all:?}");
    ["access", "refresh", "csrf"].map(|kind| {
        let start = format!("__Host-ww-{}-{kind}=", app.id);
        let cookie = all.iter().find_map(|it| it.strip_prefix(start.as_str())).expect("one of each");
        let (value, flags) = cookie.split_once("; ").expect("a cookie has flags");
        let hidden = if kind == "csrf" { "" } else { "HttpOnly; " };
        let (age, rest) = flags.split_once("; ").expect("a cookie has flags");
        assert!(age.starts_with("Max-Age="), "{flags}");
        assert_eq!(rest, format!("Path=/; Secure; {hidden}SameSite=Lax"));
        assert_eq!(age == "Max-Age=0", value.is_empty());
        value.to_owned()
    })
}

fn with(call: Call, app: &App<'_>, [access, refresh, csrf]: &[String; 3]) -> Call {
    let id = &app.id;
    let text = format!(
        "theme=dark; __Host-ww-{id}-access={access}; __Host-ww-{id}-refresh={refresh}; __Host-ww-{id}-csrf={csrf}"
    );
    call.header("cookie", &text)
}

#[tokio::test]
async fn a_page_needs_no_more_than_its_cookies() {
    let server = Server::start().await;
    let app = server.create_app(json!({"cookies": true, "refresh_grace": 0})).await;
    let address = email("ada");
    let body = json!({"email": address, "password": PASSWORD});
    let mine = set(&app, &app.post("auth/register").json(&body).await.expect(201));
    let other = set(&app, &app.login(&address, PASSWORD).await.expect(200));
    with(app.get("auth/me"), &app, &mine).await.expect(200);
    with(app.get("auth/sessions"), &app, &mine).await.expect(200);

    let planted = [mine[0].clone(), mine[1].clone(), other[2].clone()];
    for (cookies, sent) in [(&mine, ""), (&mine, "x"), (&mine, &*other[2]), (&planted, &other[2])] {
        let refused = |call: Call| with(call, &app, cookies).header("x-csrf-token", sent);
        refused(app.patch("auth/me")).json(&json!({"name": "Eve"})).await.problem(403, "forbidden");
        refused(app.post("auth/refresh")).await.problem(403, "forbidden");
        refused(app.post("auth/logout")).await.problem(403, "forbidden");
        refused(app.delete(&format!("auth/sessions/{}", uuid_of(&mine)))).await.problem(403, "forbidden");
    }

    let sure =
        |call: Call, cookies: &[String; 3]| with(call, &app, cookies).header("x-csrf-token", &cookies[2]);
    sure(app.patch("auth/me"), &mine).json(&json!({"name": "Ada"})).await.expect(200);
    let next = set(&app, &sure(app.post("auth/refresh"), &mine).await.expect(200));
    assert_ne!(next[1], mine[1]);
    assert_eq!(next[2], mine[2], "the pages of a session that are open go on");
    let cleared = set(&app, &sure(app.post("auth/logout"), &next).await.expect(204));
    assert_eq!(cleared, ["", "", ""]);
    with(app.get("auth/me"), &app, &next).await.problem(401, "unauthenticated");
}

/// The session of an access cookie.
fn uuid_of(cookies: &[String; 3]) -> String {
    tests::claims_of(&cookies[0])["sid"].as_str().expect("a session").to_owned()
}

#[tokio::test]
async fn cookies_count_in_their_own_app_only() {
    let server = Server::start().await;
    let app = server.create_app(json!({"cookies": true})).await;
    let other = server.create_app(json!({"cookies": true})).await;
    let off = server.create_app(json!({})).await;
    let address = email("ada");
    let body = json!({"email": address, "password": PASSWORD});
    let mine = set(&app, &app.post("auth/register").json(&body).await.expect(201));
    with(other.get("auth/me"), &app, &mine).await.problem(401, "unauthenticated");
    with(other.get("auth/me"), &other, &mine).await.problem(401, "unauthenticated");

    let answer = off.post("auth/register").json(&body).await.expect(201);
    assert!(!answer.headers.contains_key("set-cookie"));
    let tokens = answer.tokens();
    let cookies = [tokens.access.clone(), tokens.refresh, mine[2].clone()];
    with(off.get("auth/me"), &off, &cookies).await.problem(401, "unauthenticated");
    with(off.post("auth/logout"), &off, &cookies).await.problem(401, "unauthenticated");
    let refresh = with(off.post("auth/refresh"), &off, &cookies).json(&json!({})).await;
    refresh.problem(400, "malformed_request");
    with(off.patch("auth/me"), &off, &cookies)
        .bearer(&tokens.access)
        .json(&json!({"name": "A"}))
        .await
        .expect(200);
}
