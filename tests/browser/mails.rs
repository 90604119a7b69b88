//! The mails that have arrived.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use mail_parser::MessageParser;
use serde_json::Value;
use test_services::Smtp;
use tests::Server;

/// A mail, in both forms.
pub struct Mail {
    to: String,
    pub text: String,
    pub html: String,
}

impl Mail {
    /// The link in its text.
    pub fn link(&self) -> &str {
        let [link] = self.links()[..] else { panic!("not one link: {}", self.text) };
        link
    }

    /// All links in its text. Its HTML has the same ones.
    pub fn links(&self) -> Vec<&str> {
        let links: Vec<_> = self.text.split_whitespace().filter(|word| word.starts_with("http")).collect();
        for link in &links {
            assert!(self.html.contains(link), "{}\n{}", self.text, self.html);
        }
        links
    }
}

/// The `number`th mail to an address that the mail server accepted.
pub async fn taken(smtp: &Smtp, to: &str, number: usize) -> Mail {
    let mails = || smtp.mails().iter().map(|line| from_json(line)).collect();
    arrived(mails, to, number).await
}

/// The `number`th mail to an address among the files.
pub async fn written(server: &Server, to: &str, number: usize) -> Mail {
    let mails = || {
        // The first mail creates the folder. Names begin with an event's id, so they sort by time.
        let entries = fs::read_dir(server.data().join("outbox")).into_iter().flatten();
        let mut paths: Vec<_> =
            entries.map(|entry| entry.expect("the folder can be listed").path()).collect();
        paths.retain(|path| path.extension().is_some_and(|it| it == "eml"));
        paths.sort();
        paths.iter().map(|path| from_file(path)).collect()
    };
    arrived(mails, to, number).await
}

async fn arrived(mails: impl Fn() -> Vec<Mail>, to: &str, number: usize) -> Mail {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(mail) = mails().into_iter().filter(|mail| mail.to == to).nth(number - 1) {
            return mail;
        }
        assert!(Instant::now() < deadline, "no mail {number} to {to}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn from_json(line: &str) -> Mail {
    let mail: Value = serde_json::from_str(line).expect("the mail server writes JSON");
    assert_eq!(mail["defects"], Value::Array(vec![]), "{mail}");
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text: {mail}")).to_owned();
    Mail { to: text(&mail["to"][0]), text: text(&mail["text"]), html: text(&mail["html"]) }
}

fn from_file(path: &Path) -> Mail {
    let bytes = fs::read(path).expect("the mail can be read");
    let mail = MessageParser::default().parse(&bytes).expect("it is a mail");
    let to = mail.to().and_then(|to| to.first()).and_then(|to| to.address()).expect("it has a recipient");
    let part = |part: Option<std::borrow::Cow<str>>| part.expect("it has both forms").into_owned();
    Mail { to: to.to_owned(), text: part(mail.body_text(0)), html: part(mail.body_html(0)) }
}
