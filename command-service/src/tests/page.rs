//! The pages that mails link to.

use super::*;
use crate::pages::script::{SCRIPT, SOURCE};

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
    assert!(!policy.contains("unsafe"), "{policy}");
    // The exact script, only on pages with a password field.
    let has_password = answer.page.contains("type=\"password\"");
    let script = format!("<script>{SCRIPT}</script>");
    assert_eq!(answer.page.matches("<script").count(), usize::from(has_password), "{}", answer.page);
    assert_eq!(answer.page.contains(&script), has_password, "{}", answer.page);
    assert_eq!(policy.contains(&format!("script-src {};", *SOURCE)), has_password, "{policy}");
    assert_eq!(policy.matches("script").count(), usize::from(has_password), "{policy}");
    for forbidden in ["style=", "<style", "onclick", "javascript:"] {
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
        is_page(&world.get(&format!("{page}?token={token}x")).await, 400);
        for bare in [page.to_owned(), format!("{page}?token=")] {
            // Without a link, a reset can still be requested.
            is_page(&world.get(&bare).await, if page == "password-reset" { 200 } else { 400 });
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

impl World {
    async fn get_in(&self, path: &str, languages: &str) -> Answer {
        let request =
            Request::get(format!("/v1/apps/default/auth/{path}")).header("accept-language", languages);
        self.send(request.body(Body::empty()).expect("a request")).await
    }
}

#[tokio::test]
async fn a_password_form_says_whose_it_is_and_shows_what_is_typed() {
    let world = world().await;
    let token = world.issued("password-reset/request", "PasswordResetRequested").await;
    let shown = world.get(&format!("password-reset?token={token}")).await;
    let short = world.form("password-reset/confirm", &format!("token={token}&new_password=short")).await;
    let common = world.form("password-reset/confirm", &format!("token={token}&new_password=password1")).await;
    for (page, status) in [(&shown, 200), (&short, 422), (&common, 422)] {
        is_page(page, status);
        for part in [
            "autocomplete=\"username\" value=\"ada@example.com\" readonly hidden",
            "autocomplete=\"new-password\"",
            "Account: ada@example.com",
            "<button type=\"button\" class=\"show\" id=\"show\" aria-controls=\"field\" aria-pressed=\"false\" hidden>",
        ] {
            assert!(page.page.contains(part), "{part} in {}", page.page);
        }
        // It has no name, so it is not sent.
        assert!(!page.page.contains("name=\"username\""));
    }
    assert!(
        short.page.contains("too short. It needs at least 8 characters")
            && !short.page.contains("too common")
    );
    assert!(common.page.contains("too common") && !common.page.contains("too short"));
    let long = format!("token={token}&new_password={}", "x".repeat(1025));
    assert!(world.form("password-reset/confirm", &long).await.page.contains("too long"));
    let answer = world.auth("password-reset/confirm", json!({"token": token, "new_password": "short"})).await;
    assert_eq!((answer.code(), &answer.body["reason"]), ("weak_password", &json!("too_short")));
}

#[tokio::test]
async fn an_account_is_named_to_whoever_has_its_link_and_to_nobody_else() {
    let world = world().await;
    for (route, name, page) in [
        ("magic-link", "MagicLinkIssued", "magic-link/verify"),
        ("password-reset/request", "PasswordResetRequested", "password-reset"),
        ("email-verification/request", "EmailVerificationRequested", "email-verification"),
    ] {
        let token = world.issued(route, name).await;
        let shown = world.get(&format!("{page}?token={token}")).await;
        assert!(shown.page.contains("Account: ada@example.com"), "{}", shown.page);
        let mut forged = token.clone();
        forged.replace_range(token.len() - 1.., if token.ends_with('A') { "B" } else { "A" });
        for none in [forged.as_str(), "", "x", "%00", &token[..token.len() / 2]] {
            let shown = world.get(&format!("{page}?token={none}")).await;
            assert!(!shown.page.contains("ada@"), "{none}: {}", shown.page);
        }
    }
}

#[tokio::test]
async fn a_second_click_says_that_the_address_is_verified_already() {
    let world = world().await;
    let token = world.issued("email-verification/request", "EmailVerificationRequested").await;
    let other = world.issued("email-verification/request", "EmailVerificationRequested").await;
    is_page(&world.form("email-verification/confirm", &format!("token={token}")).await, 200);
    let before = world.all_events().await;
    for used in [&token, &other] {
        for shown in [
            world.get(&format!("email-verification?token={used}")).await,
            world.form("email-verification/confirm", &format!("token={used}")).await,
        ] {
            is_page(&shown, 200);
            let titles = ["Your email address is confirmed", "Your email address is already confirmed"];
            assert!(titles.iter().any(|title| shown.page.contains(title)), "{}", shown.page);
            assert!(!shown.page.contains("<form") && !shown.page.contains("ada@"), "{}", shown.page);
        }
    }
    let shown = world.get(&format!("email-verification?token={token}")).await;
    assert!(shown.page.contains("already confirmed"), "{}", shown.page);
    assert_eq!(world.all_events().await, before);
    // An invalid token reveals nothing.
    is_page(&world.get("email-verification?token=wwv_x").await, 400);
}

#[tokio::test]
async fn whoever_has_half_a_link_finds_the_way_to_a_whole_one() {
    let world = world().await;
    for (page, action) in [
        ("magic-link/verify", "magic-link/verify/again"),
        ("password-reset", "password-reset/request"),
        ("email-verification", "email-verification/request"),
    ] {
        for garbage in ["x", "wwm_AAAA", "%F0%9F%92%A9", "wwp_", "%20"] {
            let asked = world.get(&format!("{page}?token={garbage}")).await;
            let used = match page {
                "password-reset" => format!("token={garbage}&new_password=another+horse+battery"),
                _ => format!("token={garbage}"),
            };
            let confirm =
                if page == "magic-link/verify" { page.to_owned() } else { format!("{page}/confirm") };
            for shown in [asked, world.form(&confirm, &used).await] {
                is_page(&shown, 400);
                let form = format!("action=\"/v1/apps/default/auth/{action}\"");
                assert!(
                    shown.page.contains(&form) && shown.page.contains("name=\"email\""),
                    "{}",
                    shown.page
                );
                assert!(
                    shown.page.contains("<a href=\"https://app.example/\">Back to Default</a>"),
                    "{}",
                    shown.page
                );
            }
        }
    }
    is_page(&world.form("magic-link/verify/again", "email=ada%40example.com").await, 202);
    let token = world.token("MagicLinkIssued").await;
    let pressed = world.form("magic-link/verify", &format!("token={token}")).await;
    assert!(pressed.headers["location"].to_str().expect("ASCII").starts_with(CALLBACK));
    for wrong in ["", "token=x&email=ada%40example.com"] {
        assert_eq!(world.form("magic-link/verify/again", wrong).await.status, 400, "{wrong}");
    }
    is_page(&world.form("magic-link/verify/again", "email=nobody").await, 422);
    // Without a destination, the page offers nothing.
    world.set(json!({"redirect_uris": []})).await;
    let shown = world.get("magic-link/verify?token=x").await;
    assert!(!shown.page.contains("<form") && !shown.page.contains("class=\"back\""), "{}", shown.page);
}

#[tokio::test]
async fn a_page_speaks_the_language_of_its_reader_unless_the_app_has_one() {
    let world = world().await;
    let token = world.issued("password-reset/request", "PasswordResetRequested").await;
    let page = format!("password-reset?token={token}");
    for (languages, lang) in
        [("de-AT,de;q=0.9,en;q=0.5", "de"), ("en,de;q=0.9", "en"), ("fr,de;q=0.3", "de"), ("fr", "en")]
    {
        let shown = world.get_in(&page, languages).await;
        is_page(&shown, 200);
        assert!(shown.page.contains(&format!("<html lang=\"{lang}\">")), "{languages}: {}", shown.page);
    }
    assert!(world.get(&page).await.page.contains("<html lang=\"en\">"));
    for lang in ["de", "en"] {
        world.set(json!({ "locale": lang })).await;
        for languages in ["de", "en", "fr"] {
            let shown = world.get_in(&page, languages).await;
            assert!(shown.page.contains(&format!("<html lang=\"{lang}\">")), "{languages}");
        }
    }
    world.set(json!({"locale": "auto"})).await;
    assert!(world.get_in(&page, "de").await.page.contains("<html lang=\"de\">"));
}

#[tokio::test]
async fn password_managers_find_where_a_password_is_changed() {
    let world = world().await;
    let wanted = "/v1/apps/default/auth/password-reset";
    for path in [
        "/.well-known/change-password",
        "/auth/.well-known/change-password",
        "/v1/apps/default/.well-known/change-password",
    ] {
        let found = world.call("GET", path, None, None).await;
        assert_eq!(
            (found.status.as_u16(), found.headers["location"].to_str().expect("ASCII")),
            (302, wanted),
            "{path}"
        );
    }
    let page = world.call("GET", wanted, None, None).await;
    is_page(&page, 200);
    assert!(
        page.page.contains("autocomplete=\"email\"") && page.page.contains("password-reset/request"),
        "{}",
        page.page
    );
    let sent = world.form("password-reset/request", "email=ada%40example.com").await;
    is_page(&sent, 202);
    // An unknown path must answer 404, or password managers do not trust the other answer (section 3 of the
    // specification).
    let absent = "/.well-known/resource-that-should-not-exist-whose-status-code-should-not-be-200";
    assert_eq!(world.call("GET", absent, None, None).await.status, 404);
    assert_eq!(
        world.call("GET", "/v1/apps/nobody/.well-known/change-password", None, None).await.status,
        404
    );
    // For an app that sends its mails itself, it is the app's page, if it has one.
    world.set(json!({"delivery": "app"})).await;
    assert_eq!(world.call("GET", "/.well-known/change-password", None, None).await.status, 404);
    world.set(json!({"links": {"password_reset": "https://app.example/reset"}})).await;
    let own = world.call("GET", "/.well-known/change-password", None, None).await;
    assert_eq!(
        (own.status.as_u16(), &own.headers["location"]),
        (302, &http::HeaderValue::from_static("https://app.example/reset"))
    );
}
