use serde_json::json;
use test_services::{Browser, Scripts};
use tests::{Server, email, of_type};

use crate::site::Site;

/// Where a developer begins: no TLS, and a page on another port of the same machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_on_this_machine_logs_in_with_cookies() {
    let server = Server::start().await;
    let site = Site::start(&server, json!({"cookies": true})).await;
    let local = |url: &str| url.replace("127.0.0.1", "localhost");
    let origins = [server.base(), local(&server.base()), site.origin.clone(), local(&site.origin)];
    let patch = json!({"settings": {"origins": [origins[2], origins[3]]}});
    server
        .patch(format!("/v1/apps/{}", site.app.id))
        .bearer(&server.platform_key())
        .json(&patch)
        .await
        .expect(200);
    for origin in &origins[2..] {
        let mut browser = Browser::start(Scripts::On, &origins.each_ref().map(String::as_str));
        browser.open(&format!("{origin}/cookies?email={}", email("ada")));
        browser.click("Sign up");
        browser.see("Hello, Ada");
    }
    let events = server.events().await;
    assert_eq!(of_type(&events, "SessionRefreshed").len(), 2);
    assert_eq!(of_type(&events, "SessionRevoked").len(), 2);
}
