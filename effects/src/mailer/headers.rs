//! The mail headers with app-chosen text: `From` and `Subject`.
//!
//! A header is ASCII, so other text becomes encoded words (RFC 2047). Text that looks like an encoded word must be encoded,
//! too: a reader would decode it and show something that was never visible when it was set.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::text::cleaned;
use lettre::Address;
use lettre::message::Mailbox;
use lettre::message::header::{self, Header, HeaderName, HeaderValue};

/// The bytes per encoded word: with its 12 characters of overhead it fits into a line of 76 after `Subject: ` (RFC 2047
/// section 2).
const WORD: usize = 36;

/// The sender of a mail: a display name and an address.
#[derive(Clone)]
pub(super) struct From {
    pub name: String,
    pub address: Address,
}

impl Header for From {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("From")
    }

    /// Required by the trait; mails are never parsed here.
    fn parse(text: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let Mailbox { name, email } = text.parse()?;
        Ok(Self { name: name.unwrap_or_default(), address: email })
    }

    fn display(&self) -> HeaderValue {
        let name = cleaned(&self.name);
        if is_plain(&name) {
            let mailbox = Mailbox::new(Some(name).filter(|name| !name.is_empty()), self.address.clone());
            return header::From::from(lettre::message::Mailboxes::from(mailbox)).display();
        }
        // `lettre` looks for an address in the unencoded part, and for nothing else.
        let encoded = format!("{}\r\n <{}>", encoded_words(&name), self.address);
        HeaderValue::dangerous_new_pre_encoded(Self::name(), self.address.to_string(), encoded)
    }
}

/// The subject of a mail.
#[derive(Clone)]
pub(super) struct Subject(pub String);

impl Header for Subject {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Subject")
    }

    /// As above.
    fn parse(text: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self(text.to_owned()))
    }

    fn display(&self) -> HeaderValue {
        let text = cleaned(&self.0);
        if is_plain(&text) {
            return HeaderValue::new(Self::name(), text);
        }
        HeaderValue::dangerous_new_pre_encoded(Self::name(), text.clone(), encoded_words(&text))
    }
}

/// Whether it can be written as it is: ASCII that no reader takes for an encoded word.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) && !text.contains("=?") && !text.contains("?=")
}

/// The text as encoded words, one per line. A character is never split (RFC 2047 section 5).
fn encoded_words(text: &str) -> String {
    let mut words = vec![String::new()];
    for c in text.chars() {
        if words.last().is_some_and(|word| word.len() + c.len_utf8() > WORD) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(c);
        }
    }
    let words: Vec<_> = words.iter().map(|word| format!("=?utf-8?b?{}?=", STANDARD.encode(word))).collect();
    words.join("\r\n ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The written value, and what a reader decodes from its encoded words.
    fn from(name: &str) -> (String, String) {
        let address = "no-reply@acme.example".parse().expect("an address");
        shown(&From { name: name.to_owned(), address })
    }

    fn shown(header: &impl Header) -> (String, String) {
        let written = written(header);
        let mut read = String::new();
        let mut rest = written.replace("?=\r\n =?", "?==?");
        while let Some((before, word)) = rest.split_once("=?utf-8?b?") {
            read.push_str(before);
            let (word, after) = word.split_once("?=").expect("an encoded word ends");
            read.push_str(&String::from_utf8(STANDARD.decode(word).expect("base64")).expect("UTF-8"));
            rest = after.to_owned();
        }
        (written, read + &rest)
    }

    fn written(header: &impl Header) -> String {
        let mut headers = header::Headers::new();
        headers.set(header_of(header));
        headers.to_string()
    }

    fn header_of<H: Header>(header: &H) -> H {
        header.clone()
    }

    /// No header text can start another header, and every line can be relayed.
    #[track_caller]
    fn is_one_header(written: &str) {
        let written = written.strip_suffix("\r\n").expect("it ends a line");
        for (number, line) in written.split("\r\n").enumerate() {
            assert!(line.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{line:?}");
            assert_eq!(number > 0, line.starts_with(' '), "{written:?}");
            assert!(line.len() <= 78, "{line:?}");
        }
    }

    #[test]
    fn a_plain_name_stays_plain() {
        assert_eq!(from("Acme").0, "From: Acme <no-reply@acme.example>\r\n");
        assert_eq!(shown(&Subject("Log in to Acme".to_owned())).0, "Subject: Log in to Acme\r\n");
    }

    #[test]
    fn what_looks_like_an_encoded_word_is_shown_as_it_was_typed() {
        for name in [
            "=?utf-8?q?Your_Bank?=",
            "=?UTF-8?B?WW91ciBCYW5r?= Acme",
            "=?iso-8859-1?q?=0D=0ABcc:_eve@evil.example?=",
            "Acme =?utf-8?b?4oCu?=",
            "=?",
            "Acme ?= <eve@evil.example>",
            "Ł =?utf-8?q?x?=",
        ] {
            let (written, read) = from(name);
            is_one_header(&written);
            for part in ["Bank", "WW91", "4oCu", "Bcc", "eve@"] {
                assert!(!written.contains(part), "{written}");
            }
            assert!(read.contains(name), "{read:?} of {name:?}");
            let (written, read) = shown(&Subject(format!("Log in to {name}")));
            is_one_header(&written);
            assert!(read.contains(name), "{read:?} of {name:?}");
        }
    }

    #[test]
    fn controls_and_invisible_marks_reach_no_header() {
        for name in [
            "Acme\r\nBcc: eve@evil.example",
            "Acme\nSubject: x",
            "Acme\0\u{1b}[31m",
            "Ac\u{202e}me",
            "A\u{2028}B",
            "\u{200b}Acme",
            "\u{85}A",
        ] {
            for (written, _) in [from(name), shown(&Subject(name.to_owned()))] {
                is_one_header(&written);
                assert!(!written.contains("\nBcc") && !written.contains("\nSubject: x"), "{written}");
            }
            let (_, read) = from(name);
            assert!(!read.contains(['\u{202e}', '\u{2028}', '\u{200b}', '\u{1b}', '\0']), "{read:?}");
        }
        // An invisible name leaves only the address.
        assert_eq!(from("\u{200b}\u{2060}").0, "From: no-reply@acme.example\r\n");
    }

    #[test]
    fn long_names_are_folded_between_characters() {
        for name in ["ü".repeat(100), "日本語".repeat(33), "👩\u{200d}💻".repeat(25), "=?x ".repeat(25)]
        {
            let (written, read) = from(&name);
            is_one_header(&written);
            assert!(read.contains(name.trim()), "{read:?}");
            is_one_header(&shown(&Subject(name)).0);
        }
    }

    #[test]
    fn quotes_and_specials_name_nobody_else() {
        for name in ["Acme\" <eve@evil.example>", "a, eve@evil.example", "Acme (beta) <x>", "\\\"x"] {
            let (written, _) = from(name);
            is_one_header(&written);
            let mailbox: lettre::message::Mailboxes =
                written.trim_start_matches("From: ").trim_end().parse().expect("mailboxes");
            let addresses: Vec<_> = mailbox.iter().map(|it| it.email.to_string()).collect();
            assert_eq!(addresses, ["no-reply@acme.example"], "{written}");
        }
    }
}
