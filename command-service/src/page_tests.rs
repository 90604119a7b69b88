//! The pages that mails link to.

use super::*;

const ADA: &str = "ada@example.com";
const CALLBACK: &str = "https://app.example/callback";

impl World {
    async fn issued(&self, route: &str, name: &str) -> String {
        let body = if route == "magic-link" {
            json!({"email": ADA, "redirect_uri": CALLBACK})
        } else {
            json!({"email": ADA})
        };
        assert_eq!(self.auth(route, body).await.status, 202);
        self.token(name).await
    }
}

async fn world() -> World {
    let world = World::start().await;
    world.set(json!({"redirect_uris": [CALLBACK]})).await;
    world.register(ADA).await;
    world
}

#[track_caller]
fn is_page(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.page);
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(answer.headers[name], value, "{name}");
    }
    let policy = answer.headers["content-security-policy"].to_str().expect("ASCII");
    for part in [
        "default-src 'none'",
        "style-src 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "form-action 'self'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("script") && !policy.contains("unsafe"), "{policy}");
    for forbidden in ["<script", "style=", "<style", "onclick", "javascript:"] {
        assert!(!answer.page.contains(forbidden), "{forbidden} in {}", answer.page);
    }
    assert!(answer.page.contains("<h1>") && answer.page.contains("<html lang="), "{}", answer.page);
}

#[tokio::test]
async fn each_link_has_a_page_that_changes_nothing() {
    let world = world().await;
    for (route, name, page, action) in [
        ("magic-link", "MagicLinkIssued", "magic-link/verify", "magic-link/verify"),
        ("password-reset/request", "PasswordResetRequested", "password-reset", "password-reset/confirm"),
        (
            "email-verification/request",
            "EmailVerificationRequested",
            "email-verification",
            "email-verification/confirm",
        ),
    ] {
        let token = world.issued(route, name).await;
        let before = world.all_events().await;
        for _ in 0..3 {
            let shown = world.get(&format!("{page}?token={token}")).await;
            is_page(&shown, 200);
            let form = format!("<form method=\"post\" action=\"/v1/apps/default/auth/{action}\">");
            assert!(shown.page.contains(&form), "{}", shown.page);
            assert!(shown.page.contains(&format!("value=\"{token}\"")), "{}", shown.page);
        }
        let head = world.call("HEAD", &format!("/auth/{page}?token={token}"), None, None).await;
        assert_eq!((head.status.as_u16(), head.page.as_str()), (200, ""));
        assert_eq!(world.all_events().await, before);
        for dead in [format!("{page}?token={token}x"), page.to_owned(), format!("{page}?token=")] {
            is_page(&world.get(&dead).await, 400);
        }
    }
}

#[tokio::test]
async fn a_password_is_chosen_on_a_page() {
    let world = world().await;
    let token = world.issued("password-reset/request", "PasswordResetRequested").await;
    let weak = world.form("password-reset/confirm", &format!("token={token}&new_password=password")).await;
    is_page(&weak, 422);
    for part in
        ["role=\"alert\"", "aria-invalid=\"true\"", "autofocus", "aria-describedby=\"hint error\"", &token]
    {
        assert!(weak.page.contains(part), "{part} in {}", weak.page);
    }
    let form = format!("token={token}&new_password=another+horse+battery");
    is_page(&world.form("password-reset/confirm", &form).await, 200);
    assert_eq!(world.login(ADA, "another horse battery").await.status, 200);
    let used = world.form("password-reset/confirm", &form).await;
    is_page(&used, 400);
    assert!(used.page.contains("action=\"/v1/apps/default/auth/password-reset/request\""), "{}", used.page);
    let before = world.events("PasswordResetRequested").await;
    is_page(&world.form("password-reset/request", "email=ada%40example.com").await, 202);
    assert_eq!(world.events("PasswordResetRequested").await, before + 1);
    is_page(&world.form("password-reset/request", "email=nobody").await, 422);
}

#[tokio::test]
async fn a_button_verifies_and_logs_in() {
    let world = world().await;
    let token = world.issued("email-verification/request", "EmailVerificationRequested").await;
    is_page(&world.form("email-verification/confirm", &format!("token={token}")).await, 200);
    let token = world.issued("magic-link", "MagicLinkIssued").await;
    let page = world.get(&format!("magic-link/verify?token={token}")).await;
    let policy = page.headers["content-security-policy"].to_str().expect("ASCII");
    assert!(policy.contains("form-action 'self' https:;"), "or the browser stops at the redirect: {policy}");
    let pressed = world.form("magic-link/verify", &format!("token={token}")).await;
    assert_eq!(pressed.status, 303);
    assert!(pressed.headers["location"].to_str().expect("ASCII").starts_with(CALLBACK));
    assert_eq!(
        (&pressed.headers["cache-control"], &pressed.headers["referrer-policy"]),
        (&http::HeaderValue::from_static("no-store"), &http::HeaderValue::from_static("no-referrer"),)
    );
    let again = world.form("magic-link/verify", &format!("token={token}")).await;
    is_page(&again, 400);
    assert!(
        again.page.contains("action=\"/v1/apps/default/auth/magic-link/verify/again\""),
        "{}",
        again.page
    );
    is_page(&world.form("magic-link/verify/again", &format!("token={token}")).await, 202);
    assert_eq!(world.events("MagicLinkIssued").await, 2);
}

#[tokio::test]
async fn programs_get_no_pages() {
    let world = world().await;
    let token = world.issued("password-reset/request", "PasswordResetRequested").await;
    let request = Request::post("/v1/apps/default/auth/password-reset/confirm")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(format!("token={token}&new_password=short")));
    let answer = world.send(request.expect("a request")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (422, "weak_password"));
    let request = Request::post("/v1/apps/default/auth/password-reset/confirm")
        .header("content-type", "application/json")
        .header("accept", "text/html")
        .body(Body::from(json!({"token": token, "new_password": "short"}).to_string()));
    let answer = world.send(request.expect("a request")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (422, "weak_password"));
}

#[tokio::test]
async fn an_app_gives_its_name_colour_logo_and_language_and_nothing_else() {
    let world = world().await;
    world
        .set(json!({"locale": "de", "branding": {"name": "<b>Söhne & \"Co\"</b>", "colour": "#ffd400",
            "logo": "https://cdn.example/logo.png?v=2"}}))
        .await;
    let token = world.issued("password-reset/request", "PasswordResetRequested").await;
    let shown = world.get(&format!("password-reset?token={token}")).await;
    is_page(&shown, 200);
    assert!(
        shown.page.contains("lang=\"de\"") && shown.page.contains("Neues Passwort wählen"),
        "{}",
        shown.page
    );
    assert!(!shown.page.contains("<b>") && shown.page.contains("Söhne"), "{}", shown.page);
    assert!(shown.page.contains("src=\"https://cdn.example/logo.png?v=2\""), "{}", shown.page);
    let policy = shown.headers["content-security-policy"].to_str().expect("ASCII");
    assert!(policy.contains("img-src https://cdn.example;"), "{policy}");
    let style = world.get("page.css").await;
    assert_eq!(
        (style.status.as_u16(), &style.headers["content-type"]),
        (200, &http::HeaderValue::from_static("text/css; charset=utf-8"))
    );
    assert!(style.page.starts_with(":root{--accent:#ffd400;--on-accent:#000000}"), "{}", style.page);
    assert!(style.page.contains("prefers-color-scheme:dark"));
}

#[tokio::test]
async fn a_page_promises_no_mail_that_nobody_sends() {
    let world = world().await;
    for page in ["password-reset", "email-verification"] {
        assert!(world.get(&format!("{page}?token=old")).await.page.contains("<form"));
    }
    world.set(json!({"delivery": "app"})).await;
    for page in ["password-reset", "email-verification"] {
        let shown = world.get(&format!("{page}?token=old")).await;
        is_page(&shown, 400);
        assert!(!shown.page.contains("<form"), "{}", shown.page);
    }
}
