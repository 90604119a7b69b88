use serde_json::json;
use test_services::{Browser, Scripts, Smtp};
use tests::{PASSWORD, Server, email};

use crate::{inspect, mails, screenshots};

const NEW: &str = "Another-kettle-17-quay";

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_is_chosen_by_keyboard() {
    // Given a user who has forgotten their password.
    let smtp = Smtp::start();
    let server = Server::start_with(&[("WATCHWORD_MAIL_URL", &smtp.url())]).await;
    let app = server.create_app(json!({"origins": ["https://acme.example"]})).await;
    let address = email("ada");
    app.register(&address).await;
    app.post("auth/forgot-password").json(&json!({ "email": address })).await.expect(202);
    let mail = mails::taken(&smtp, &address, 1).await;

    // When they open the mail, are refused a common password, and choose another one.
    let mut browser = Browser::start(Scripts::On, &[&server.base()]);
    browser.show(&mail.html);
    browser.inspect(&screenshots(), "password-reset-mail");
    browser.reach("Choose a new password");
    browser.press("Enter");
    browser.see("Choose a new password");
    let page = inspect(&mut browser, "password-reset", 200);
    assert!(page.text.contains(&format!("Account: {address}")), "{page:?}");
    browser.reach("New password");
    browser.type_in("password1");
    browser.press("Enter");
    browser.see("This password is too common: attackers try it first. Choose another one.");
    inspect(&mut browser, "password-reset-weak", 422);
    browser.reach("Show password");
    browser.press("Enter");
    // The focus is on the password field, which now shows its text.
    browser.type_in(NEW);
    inspect(&mut browser, "password-reset-shown", 422);
    browser.reach("Save the password");
    browser.press("Enter");

    // Then they log in with that one, and the link no longer works.
    browser.see("Your password was changed");
    inspect(&mut browser, "password-reset-done", 200);
    app.login(&address, PASSWORD).await.problem(401, "invalid_credentials");
    assert_eq!(app.login(&address, NEW).await.expect(200).tokens().user["email"], address.as_str());
    browser.open(mail.link());
    browser.see("This link is no longer valid");
    let used = inspect(&mut browser, "password-reset-used", 400);
    assert!(used.text.contains("Back to"), "{used:?}");

    // An incomplete link, and the page that password managers open, lead to a new link.
    for (from, heading, status) in [
        (&mail.link()[..mail.link().len() - 9], "This link is no longer valid", 400),
        (&server.url(&app.path(".well-known/change-password")), "Choose a new password", 200),
    ] {
        browser.open(from);
        browser.see(heading);
        inspect(&mut browser, &format!("password-reset-way-{status}"), status);
        browser.reach("Email address");
        browser.type_in(&format!(" {address} "));
        browser.press("Enter");
        browser.see("Check your mail");
    }
    assert_eq!(mails::taken(&smtp, &address, 3).await.link().split("?token=").count(), 2);
}
