//! Links in mails, as people follow them: the real binary sends a mail, and its link is opened in a browser.
//!
//! Each page is inspected on a phone and on a desktop, in light and in dark mode. The screenshots are in
//! `target/screenshots`.

use std::path::PathBuf;

use test_services::{Browser, Shown};
use tests::workspace;

mod cookies;
mod email_verification;
mod magic_link;
mod mails;
mod password_reset;
mod site;

/// The folder of the screenshots.
fn screenshots() -> PathBuf {
    workspace().join("target/screenshots")
}

/// Inspects a page of ours whose address or form contains a token: it must not be cached or sent as a referrer.
#[track_caller]
fn inspect(browser: &mut Browser, name: &str, status: u64) -> Shown {
    browser.inspect(&screenshots(), name);
    let shown = browser.shown();
    assert_eq!(shown.status, status, "{}", shown.text);
    for (header, expected) in [("cache-control", "no-store"), ("referrer-policy", "no-referrer")] {
        assert_eq!(shown.headers[header], expected, "{name}");
    }
    let policy = &shown.headers["content-security-policy"];
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    shown
}
