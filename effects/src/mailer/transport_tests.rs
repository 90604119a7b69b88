use url::Url;

use super::super::url::InvalidMailUrl;
use super::*;

fn parse(text: &str) -> Result<MailUrl, InvalidMailUrl> {
    text.parse()
}

#[test]
fn a_password_is_not_shown() {
    for text in ["smtps://u%40x:hunter2@mail.example", "smtp://u:hunter2@mail.example:2525/me?tls=required"] {
        let url = parse(text).expect("valid");
        let shown = format!("{url} {url:?}");
        assert!(!shown.contains("hunter2") && shown.contains("mail.example"), "{shown}");
    }
    for text in [
        "smtp://u:hunter2@",
        "smtp://u:hunter2@mail.example?tls=maybe",
        "imap://u:hunter2@mail.example",
        "smtp://u:12/hunter2@mail.example",
        "smtps://u:12#hunter2@mail.example",
    ] {
        let error = parse(text).expect_err(text).to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn an_address_is_told_as_a_literal() {
    for (name, told) in [
        ("auth.example", "auth.example"),
        ("localhost", "localhost"),
        ("127.0.0.1", "[127.0.0.1]"),
        ("[127.0.0.1]", "[127.0.0.1]"),
        ("::1", "[IPv6:::1]"),
        ("[::1]", "[IPv6:::1]"),
        ("[IPv6:::1]", "[IPv6:::1]"),
        ("[ipv6:2001:DB8::1]", "[IPv6:2001:db8::1]"),
        ("2001:db8:0:0:0:0:0:1", "[IPv6:2001:db8::1]"),
        ("1.2.3", "1.2.3"),
    ] {
        assert_eq!(client_id(name).to_string(), told, "{name}");
    }
    for (url, told) in [
        ("http://127.0.0.1:8080", "[127.0.0.1]"),
        ("http://[::1]:8080", "[IPv6:::1]"),
        ("https://auth.example", "auth.example"),
    ] {
        let url = Url::parse(url).expect("a URL");
        assert_eq!(client_id(url.host_str().expect("a host")).to_string(), told, "{url}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for text in [
        "",
        "mail.example",
        "smtp:",
        "smtp://",
        "smtp://u@mail.example",
        "smtps://h?x=1",
        "smtps://h?tls=opportunistic",
        "smtp://h?tls=maybe",
        "smtp://h?tls=opportunistic&tls=required",
        "file://",
        "file:///",
    ] {
        assert!(parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn what_others_can_read_is_known() {
    for (text, is_private) in [
        ("smtps://mail.example", true),
        ("smtp://mail.example?tls=required", true),
        ("smtp://mail.example?tls=opportunistic", false),
        ("smtp://mail.example", false),
        ("smtp://127.0.0.1:2525", true),
        ("smtp://[::1]", true),
        ("smtp://localhost", true),
        ("file://./outbox", true),
    ] {
        assert_eq!(parse(text).expect(text).is_private(), is_private, "{text}");
    }
}
