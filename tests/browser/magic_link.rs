use serde_json::json;
use test_services::{Browser, Scripts, Smtp};
use tests::{Server, assert_gapless, email, of_type};

use crate::site::Site;
use crate::{inspect, mails, screenshots};

#[tokio::test(flavor = "multi_thread")]
async fn a_person_with_a_keyboard_comes_from_a_mail_into_an_app_in_the_browser() {
    // Given an app that runs in the browser, and a user who requested a link from it.
    let smtp = Smtp::start();
    let server = Server::start_with(&[("WATCHWORD_MAIL_URL", &smtp.url())]).await;
    let site = Site::start(&server, json!({})).await;
    let mut browser = Browser::start(Scripts::On, &[&server.base(), &site.origin]);
    let address = email("ada");
    browser.open(&site.url("/"));
    browser.reach("Email address");
    browser.type_in(&address);
    browser.press("Enter");
    browser.see("Check your mail");

    // When they press the button in the mail, and the one on the page that it opens.
    browser.show(&mails::taken(&smtp, &address, 1).await.html);
    browser.inspect(&screenshots(), "magic-link-mail");
    browser.reach("Log in");
    browser.press("Enter");
    browser.see("Log in");
    inspect(&mut browser, "magic-link", 200);
    assert!(of_type(&server.events().await, "MagicLinkRedeemed").is_empty(), "looking does not use it up");
    browser.reach("Log in");
    browser.press("Enter");

    // Then they are logged in to the app, and the address bar has no trace of the code.
    browser.see(&format!("Hello, {address}"));
    browser.inspect(&screenshots(), "magic-link-app");
    assert_eq!(browser.shown().url, site.url("/"));
    let events = server.events().await;
    let steps = ["UserRegistered", "MagicLinkRedeemed", "ExchangeCodeRedeemed", "SessionStarted", "MailSent"];
    for name in steps {
        assert_eq!(of_type(&events, name).len(), 1, "{name}");
    }
    assert_gapless(&events);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_was_used_is_sent_again_and_no_page_needs_a_script() {
    // Given a site that exchanges codes itself, and a used link.
    let server = Server::start().await;
    let site = Site::start(&server, json!({})).await;
    let mut browser = Browser::start(Scripts::Off, &[&server.base(), &site.origin]);
    let address = email("ada");
    let ask = json!({"email": address, "redirect_uri": site.url("/callback"), "state": "opaque"});
    site.app.post("auth/magic-link").json(&ask).await.expect(202);
    let mail = mails::written(&server, &address, 1).await;
    browser.open(mail.link());
    browser.click("Log in");
    browser.see(&format!("Hello, {address}"));

    // When the user opens it again, and requests another one.
    browser.open(mail.link());
    browser.see("This link is no longer valid");
    inspect(&mut browser, "magic-link-used", 400);
    browser.click("Send a new link");
    browser.see("Check your mail");
    inspect(&mut browser, "magic-link-again", 202);

    // Then that one works.
    browser.open(mails::written(&server, &address, 2).await.link());
    browser.see("Log in");
    browser.click("Log in");
    browser.see(&format!("Hello, {address}"));
    browser.inspect(&screenshots(), "magic-link-site");
    assert!(browser.shown().url.ends_with("&state=opaque"), "{:?}", browser.shown());
    let events = server.events().await;
    assert_eq!(of_type(&events, "SessionStarted").len(), 2);
    assert_eq!(of_type(&events, "UserRegistered").len(), 1);
}
