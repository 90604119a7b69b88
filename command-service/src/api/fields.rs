//! Validation of the fields of requests.

use domain::Email;
use domain::password::{Password, WeakPassword};
use domain::text::{Lines, readable};
use domain::user::{Profile, ProfilePatch};
use domain::web_url::names_a_host;
use http_kit::problem::Problem;
use schemas::field_codes;
use schemas::problems;
use serde::{Deserialize, Deserializer};
use url::Url;

use crate::CommandService;
use crate::passwords::dictionary::is_common;

const MAX_NAME: usize = 200;
const MAX_PHONE: usize = 40;
const MAX_URL: usize = 2048;
/// The member of a refused password that holds the machine-readable reason.
pub(crate) const REASON: &str = "reason";
pub(crate) const TOO_SHORT: &str = "too_short";
pub(crate) const TOO_LONG: &str = "too_long";
pub(crate) const TOO_COMMON: &str = "too_common";
pub(crate) const BREACHED: &str = "breached";

/// Parses an account's address.
pub(crate) fn email(text: &str) -> Result<Email, Problem> {
    named_email(text, "/email")
}

/// The same for another member.
pub(crate) fn named_email(text: &str, pointer: &str) -> Result<Email, Problem> {
    let kind = problems::INVALID_EMAIL;
    Email::parse(text).map_err(|error| Problem::new(kind).field(pointer, kind, error.to_string()))
}

/// Parses the address of a new account, or a new one of an account.
pub(crate) fn new_email(text: &str, pointer: &str) -> Result<Email, Problem> {
    let email = named_email(text, pointer)?;
    if email.may_be_new() {
        return Ok(email);
    }
    let kind = problems::INVALID_EMAIL;
    let detail =
        "an address that begins with a dash is refused by mail servers, as programs take it for an option";
    Err(Problem::new(kind).field(pointer, kind, detail))
}

impl CommandService {
    /// Checks a new password. `min_length` counts characters.
    pub(crate) async fn new_password(
        &self,
        text: &str,
        min_length: u32,
        pointer: &str,
    ) -> Result<Password, Problem> {
        let weak = |reason: &str, why: String| {
            let kind = problems::WEAK_PASSWORD;
            Problem::new(kind).detail(why.clone()).field(pointer, kind, why).member(REASON, reason.into())
        };
        let password = Password::new(text);
        password.check(min_length, is_common).map_err(|error| {
            let reason = match error {
                WeakPassword::TooShort(_) => TOO_SHORT,
                WeakPassword::TooLong => TOO_LONG,
                WeakPassword::TooCommon => TOO_COMMON,
            };
            weak(reason, error.to_string())
        })?;
        if self.breaches.know(&password).await {
            return Err(weak(BREACHED, "the password is known from a breach of another service".to_owned()));
        }
        Ok(password)
    }
}

/// The members of a profile as received.
#[derive(Default)]
pub(crate) struct Received<'a> {
    pub name: Option<&'a str>,
    pub phone: Option<&'a str>,
    pub avatar_url: Option<&'a str>,
}

/// Refuses a profile, naming every invalid member.
pub(crate) fn check_profile(received: &Received<'_>) -> Result<(), Problem> {
    let errors = [
        received.name.and_then(|text| check_text("/name", text, MAX_NAME)),
        received.phone.and_then(|text| check_text("/phone", text, MAX_PHONE)),
        received.avatar_url.and_then(check_url),
    ];
    let mut errors = errors.into_iter().flatten().peekable();
    if errors.peek().is_none() {
        return Ok(());
    }
    let problem = Problem::new(problems::VALIDATION_FAILED);
    Err(errors
        .fold(problem, |problem, (pointer, detail)| problem.field(pointer, field_codes::INVALID, detail)))
}

pub(crate) fn profile(
    name: Option<String>,
    phone: Option<String>,
    avatar_url: Option<String>,
) -> Result<Profile, Problem> {
    let (name_ref, phone_ref) = (name.as_deref(), phone.as_deref());
    check_profile(&Received { name: name_ref, phone: phone_ref, avatar_url: avatar_url.as_deref() })?;
    Ok(Profile { name: name.map(trimmed), phone: phone.map(trimmed), avatar_url })
}

/// An empty text removes a member, as `null` does in a merge patch.
#[expect(clippy::option_option, reason = "absent, null and a value are three things")]
pub(crate) fn profile_patch(
    name: Option<Option<String>>,
    phone: Option<Option<String>>,
    avatar_url: Option<Option<String>>,
) -> Result<ProfilePatch, Problem> {
    let [name, phone, avatar_url] =
        [name, phone, avatar_url].map(|member| member.map(|text| text.filter(|text| !text.is_empty())));
    check_profile(&Received {
        name: name.as_ref().and_then(Option::as_deref),
        phone: phone.as_ref().and_then(Option::as_deref),
        avatar_url: avatar_url.as_ref().and_then(Option::as_deref),
    })?;
    let (name, phone) = (name.map(|name| name.map(trimmed)), phone.map(|phone| phone.map(trimmed)));
    Ok(ProfilePatch { name, phone, avatar_url })
}

#[expect(clippy::needless_pass_by_value, reason = "what `map` gives")]
fn trimmed(text: String) -> String {
    text.trim().to_owned()
}

/// Distinguishes a `null` member from an absent one. Use with `#[serde(default, deserialize_with = …)]`.
#[expect(clippy::option_option, reason = "absent, null and a value are three things")]
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// Text that a person typed for others to read, trimmed.
pub(crate) fn text(pointer: &str, text: &str, max: usize, lines: Lines) -> Result<String, Problem> {
    let text = readable(text, max, lines);
    Ok(text.map_err(|error| Problem::invalid(pointer, field_codes::INVALID, error.to_string()))?.to_owned())
}

fn check_text(pointer: &'static str, text: &str, max: usize) -> Option<(&'static str, String)> {
    readable(text, max, Lines::One).err().map(|error| (pointer, error.to_string()))
}

fn check_url(text: &str) -> Option<(&'static str, String)> {
    // The parser silently drops whitespace and line breaks and turns backslashes: the stored text must be the checked
    // one.
    let clean = text.chars().all(|c| c.is_ascii_graphic() && c != '\\');
    let is_web = |url: Url| matches!(url.scheme(), "http" | "https") && names_a_host(&url);
    let good = text.len() <= MAX_URL && clean && Url::parse(text).is_ok_and(is_web);
    (!good).then(|| {
        let detail = format!(
            "an http or https URL of at most {MAX_URL} ASCII characters, whose host is a DNS name or an IP address"
        );
        ("/avatar_url", detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_checked_member_by_member() {
        assert!(
            profile(Some("Ada".into()), Some("+44 1".into()), Some("https://a.example/x.png".into())).is_ok()
        );
        let hidden = [
            "\u{200b}Ada",
            "\u{200e}Ada",
            "\u{200f}Ada",
            "\u{61c}Ada",
            "\u{2060}Ada",
            "\u{feff}Ada",
            "\u{3164}",
        ];
        let names = ["", " ", "\u{3000}", "a\nb", "a\0", "\u{202e}nimda", "ad\u{2063}min", &"x".repeat(201)];
        for name in names.into_iter().chain(hidden) {
            assert!(profile(Some(name.into()), None, None).is_err(), "{name:?}");
            assert!(profile(None, Some(name.into()), None).is_err(), "{name:?}");
            assert_eq!(
                profile_patch(Some(Some(name.into())), None, None).is_err(),
                !name.is_empty(),
                "{name:?}"
            );
        }
        let trimmed = profile(Some(" Ada ".into()), Some("+44 1\t".into()), None).expect("valid");
        assert_eq!((trimmed.name.as_deref(), trimmed.phone.as_deref()), (Some("Ada"), Some("+44 1")));
        for url in [
            "javascript:alert(1)",
            "/x",
            "ftp://a.example/",
            "https://a.example/ x",
            "data:text/html,x",
            "https://*.example/x.png",
            "https://a..b/x",
            "http://$(id).example/",
            "https://a.example\\x",
            "https://a_b.example/x",
            "https://\u{e9}.example/",
        ] {
            assert!(profile(None, None, Some(url.into())).is_err(), "{url:?}");
        }
        assert!(profile(None, Some("1".repeat(41)), None).is_err());
    }
}
