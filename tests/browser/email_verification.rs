use serde_json::json;
use test_services::{Browser, Scripts};
use tests::{PASSWORD, Server, email};

use crate::{inspect, mails, screenshots};

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_verified_in_the_language_and_the_colour_of_the_app() {
    // Given a German app in yellow that requires verified addresses, and a user who has registered there.
    let server = Server::start().await;
    let branding = json!({"name": "Bücherei Süd", "colour": "#ffd400"});
    let settings = json!({"require_verified_email": true, "locale": "de", "branding": branding});
    let app = server.create_app(settings).await;
    let address = email("ada");
    app.post("auth/register").json(&json!({"email": address, "password": PASSWORD})).await.expect(202);
    app.login(&address, PASSWORD).await.problem(403, "email_not_verified");
    let mail = mails::written(&server, &address, 1).await;
    let [link, disown] = mail.links()[..] else { panic!("{}", mail.text) };
    assert!(disown.contains("/email-verification/disown?token="), "{disown}");

    // When they press the button in the mail, and the one on the page that it opens.
    let mut browser = Browser::start(Scripts::Off, &[&server.base()]);
    browser.show(&mail.html);
    browser.inspect(&screenshots(), "email-verification-mail");
    browser.click("Adresse bestätigen");
    browser.see("E-Mail-Adresse bestätigen");
    let page = inspect(&mut browser, "email-verification", 200);
    assert!(page.text.contains("Bücherei Süd") && page.url == link, "{page:?}");
    browser.click("Adresse bestätigen");

    // Then they can log in.
    browser.see("Ihre E-Mail-Adresse ist bestätigt");
    inspect(&mut browser, "email-verification-done", 200);
    assert_eq!(app.login(&address, PASSWORD).await.expect(200).tokens().user["email_verified"], true);

    // And if they open the mail again, the page says that there is nothing left to do.
    browser.open(link);
    browser.see("Ihre E-Mail-Adresse ist schon bestätigt");
    inspect(&mut browser, "email-verification-again", 200);
}
