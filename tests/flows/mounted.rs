//! A service below a path of a shared host: `public_url` with a path.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Answer, PASSWORD, PATIENCE, Server, claims_of, email};

const CALLBACK: &str = "https://client.example/callback";

async fn mounted(prefix: &str) -> Server {
    let mut server = Server::new(&[]);
    let public_url = format!("{}{prefix}", server.base());
    server.set_environment("WATCHWORD_PUBLIC_URL", &public_url);
    server.up().await;
    server
}

/// The link in the newest mail of a kind, taken from the outbox.
async fn link(server: &Server, kind: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let files = fs::read_dir(server.data().join("outbox")).into_iter().flatten().flatten();
        let mut files: Vec<_> = files.map(|file| file.path()).collect();
        files.retain(|path| path.to_string_lossy().ends_with(&format!(".{kind}.eml")));
        files.sort();
        if let Some(path) = files.last() {
            let bytes = fs::read(path).expect("a mail");
            let mail = mail_parser::MessageParser::default().parse(&bytes).expect("a mail");
            let text = mail.body_text(0).expect("text");
            let link = text.split_whitespace().find(|word| word.contains("token="));
            return link.expect("a link").to_owned();
        }
        assert!(Instant::now() < deadline, "no {kind} came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The text between two texts.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    text.split_once(before).and_then(|(_, rest)| rest.split_once(after)).unwrap_or_else(|| panic!("{text}")).0
}

fn is_below(answer: &Answer, prefix: &str) {
    for attribute in ["href=\"/", "src=\"/", "action=\"/"] {
        for rest in answer.text.split(attribute).skip(1) {
            assert!(format!("/{rest}").starts_with(&format!("{prefix}/")), "{attribute}{rest}");
        }
    }
}

#[tokio::test]
async fn everything_is_below_the_path_and_only_there() {
    for prefix in ["/auth", "/id/v2"] {
        let server = mounted(prefix).await;
        let key = server.platform_key();
        let at = |path: &str| format!("{prefix}{path}");
        let address = email("ada");
        let settings = json!({"redirect_uris": [CALLBACK], "require_verified_email": true});
        let app = json!({"app_id": "acme", "name": "Acme", "settings": settings});
        server.post(at("/v1/apps")).bearer(&key).json(&app).await.expect(201);
        let base = at("/v1/apps/acme");

        // Registered, verified by the mail's link and its form, and logged in.
        let body = json!({"email": address, "password": PASSWORD});
        server.post(format!("{base}/auth/register")).json(&body).await.expect(202);
        let verify = link(&server, "email_verification").await;
        assert!(
            verify.starts_with(&server.url(&format!("{base}/auth/email-verification?token="))),
            "{verify}"
        );
        let page = server.get(verify.strip_prefix(&server.base()).expect("here")).await.expect(200);
        is_below(&page, prefix);
        let style = between(&page.text, "rel=\"stylesheet\" href=\"", "\"");
        server.get(style).await.expect(200);
        let action = between(&page.text, "action=\"", "\"");
        let token = between(&page.text, "name=\"token\" value=\"", "\"");
        let press = server.post(action).header("accept", "text/html").form(&[("token", token)]).await;
        assert!(press.expect(200).is_page());
        let tokens = server.post(format!("{base}/auth/login")).json(&body).await.expect(200).tokens();
        let issuer = server.url(&base);
        assert_eq!(claims_of(&tokens.access)["iss"], issuer);
        server.get(format!("{base}/auth/me")).bearer(&tokens.access).await.expect(200);

        // Discovery by other programs leads here.
        let discovery =
            server.get(format!("{base}/.well-known/openid-configuration")).await.expect(200).json();
        assert_eq!(discovery["issuer"], issuer);
        let jwks = discovery["jwks_uri"].as_str().expect("a URL");
        server.get(jwks.strip_prefix(&server.base()).expect("here")).await.expect(200);

        // A magic link, all the way to the client.
        let ask = json!({"email": address, "redirect_uri": CALLBACK, "state": "s"});
        server.post(format!("{base}/auth/magic-link")).json(&ask).await.expect(202);
        let magic = link(&server, "magic_link").await;
        let page = server.get(magic.strip_prefix(&server.base()).expect("here")).await.expect(200);
        is_below(&page, prefix);
        let (action, token) =
            (between(&page.text, "action=\"", "\""), between(&page.text, "name=\"token\" value=\"", "\""));
        let press = server.post(action).form(&[("token", token)]).await.expect(303);
        let code = between(press.header("location").expect("there"), "code=", "&").to_owned();
        server.post(format!("{base}/auth/exchange")).json(&json!({"code": code})).await.expect(200).tokens();

        // The default app, and the routes at the root.
        server.post(at("/auth/register")).json(&body).await.expect(201);
        for path in
            ["/.well-known/jwks.json", "/healthz", "/readyz", "/problems", "/schemas", "/asyncapi.json"]
        {
            server.get(at(path)).await.expect(200);
        }
        let document = server.get(at("/openapi.json")).await.expect(200).json();
        assert_eq!(document["servers"][0]["url"], server.url(prefix));
        let schemas = server.get(at("/schemas")).await.expect(200).json();
        server.get(schemas["items"][0].as_str().expect("a path")).await.expect(200);
        let moved = server.get(at("/docs")).await.expect(308);
        assert_eq!(moved.header("location"), Some("docs/"), "relative to the path it was asked at");
        is_below(&server.get(at("/docs/")).await.expect(200), prefix);
        let problem = server.get(at("/nothing")).await.problem(404, "not_found");
        let page = server.get(problem["type"].as_str().expect("a path")).await.expect(200);
        is_below(&page, prefix);

        // Outside the path there are only the probes.
        for path in ["/v1/apps", "/auth/login/x", "/openapi.json", "/docs/", "/", "/v1/apps/acme/auth/me"] {
            let problem = server.get(path).bearer(&key).await.problem(404, "not_found");
            assert_eq!(problem["type"], at("/problems/not_found"));
        }
        for probe in ["/healthz", "/readyz", "/metrics"] {
            server.get(probe).bearer(&key).await.expect(200);
        }
    }
}

#[tokio::test]
async fn cookies_and_commands_work_below_a_path() {
    let mut server = mounted("/auth").await;
    let key = server.platform_key();
    let app = json!({"app_id": "acme", "name": "Acme", "settings": {"cookies": true}});
    server.post("/auth/v1/apps").bearer(&key).json(&app).await.expect(201);
    let body = json!({"email": email("ada"), "password": PASSWORD});
    let made = server.post("/auth/v1/apps/acme/auth/register").json(&body).await.expect(201);
    let cookies: Vec<_> =
        made.headers.get_all("set-cookie").iter().map(|it| it.to_str().expect("ASCII")).collect();
    // The app's pages, which are not below the path, read one of them.
    assert!(cookies.iter().all(|cookie| cookie.contains("; Path=/;")), "{cookies:?}");
    let jar: Vec<_> = cookies.iter().map(|it| it.split(';').next().expect("one")).collect();
    let csrf = jar[2].split_once('=').expect("a value").1;
    let refresh = server.post("/auth/v1/apps/acme/auth/refresh").header("cookie", &jar.join("; "));
    refresh.header("x-csrf-token", csrf).await.expect(200);

    let create = |app: &str, more: &[&str]| {
        let mut arguments = vec!["app", "create", app];
        arguments.extend(more);
        server.command(&arguments).output().expect("runs")
    };
    let url = format!("{}/auth", server.base());
    let output = create("second", &["--url", &url]);
    assert!(output.status.success(), "{output:?}");
    server.terminate().await;
    let output = server.command(&["app", "create", "third"]).output().expect("runs");
    assert!(output.status.success(), "{output:?}");
    server.up().await;
    for app in ["second", "third"] {
        server.get(format!("/auth/v1/apps/{app}")).bearer(&key).await.expect(200);
    }
}
