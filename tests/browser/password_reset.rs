use serde_json::json;
use test_services::{Browser, Scripts, Smtp};
use tests::{PASSWORD, Server, email};

use crate::{inspect, mails, screenshots};

const NEW: &str = "Another-kettle-17-quay";

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_is_chosen_by_keyboard() {
    // Given somebody who has forgotten their password.
    let smtp = Smtp::start();
    let server = Server::start_with(&[("WATCHWORD_MAIL_URL", &smtp.url())]).await;
    let app = server.create_app(json!({})).await;
    let address = email("ada");
    app.register(&address).await;
    app.post("auth/forgot-password").json(&json!({ "email": address })).await.expect(202);
    let mail = mails::taken(&smtp, &address, 1).await;

    // When they open the mail, are refused a password that everybody knows, and choose another one.
    let mut browser = Browser::start(Scripts::On, &[&server.base()]);
    browser.show(&mail.html);
    browser.inspect(&screenshots(), "password-reset-mail");
    browser.reach("Choose a new password");
    browser.press("Enter");
    browser.see("Choose a new password");
    inspect(&mut browser, "password-reset", 200);
    browser.reach("New password");
    browser.type_in("password1");
    browser.press("Enter");
    browser.see("This password is too short or too well known. Choose another one.");
    inspect(&mut browser, "password-reset-weak", 422);
    browser.reach("New password");
    browser.type_in(NEW);
    browser.reach("Save the password");
    browser.press("Enter");

    // Then that is the one to log in with, and the link is of no use any more.
    browser.see("Your password was changed");
    inspect(&mut browser, "password-reset-done", 200);
    app.login(&address, PASSWORD).await.problem(401, "invalid_credentials");
    assert_eq!(app.login(&address, NEW).await.expect(200).tokens().user["email"], address.as_str());
    browser.open(mail.link());
    browser.see("This link is not valid any more");
    inspect(&mut browser, "password-reset-used", 400);
}
