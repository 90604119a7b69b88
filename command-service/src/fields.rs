//! What people write about themselves, checked.

use domain::Email;
use domain::password::Password;
use domain::user::{Profile, ProfilePatch};
use http_kit::problem::Problem;
use serde::{Deserialize, Deserializer};
use url::Url;

use crate::CommandService;
use crate::common_passwords::is_common;

const MAX_NAME: usize = 200;
const MAX_PHONE: usize = 40;
const MAX_URL: usize = 2048;

/// An address that an account can have.
pub(crate) fn email(text: &str) -> Result<Email, Problem> {
    named_email(text, "/email")
}

/// The same in another member.
pub(crate) fn named_email(text: &str, pointer: &str) -> Result<Email, Problem> {
    let code = "invalid_email";
    Email::parse(text).map_err(|error| Problem::new(code).field(pointer, code, error.to_string()))
}

impl CommandService {
    /// A password that somebody chooses. `min_length` counts characters.
    pub(crate) async fn new_password(
        &self,
        text: &str,
        min_length: u32,
        pointer: &str,
    ) -> Result<Password, Problem> {
        let weak = |why: String| {
            let code = "weak_password";
            Problem::new(code).detail(why.clone()).field(pointer, code, why)
        };
        let password = Password::new(text);
        password.check(min_length, is_common).map_err(|error| weak(error.to_string()))?;
        if self.breaches.know(&password).await {
            return Err(weak("the password is known from a breach of another service".to_owned()));
        }
        Ok(password)
    }
}

/// The members of a profile as they came.
#[derive(Default)]
pub(crate) struct Received<'a> {
    pub name: Option<&'a str>,
    pub phone: Option<&'a str>,
    pub avatar_url: Option<&'a str>,
}

/// Refuses a profile with every member that makes no sense.
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
    let problem = Problem::new("validation_failed");
    Err(errors.fold(problem, |problem, (pointer, detail)| problem.field(pointer, "invalid", detail)))
}

/// A checked profile.
pub(crate) fn profile(
    name: Option<String>,
    phone: Option<String>,
    avatar_url: Option<String>,
) -> Result<Profile, Problem> {
    let (name_ref, phone_ref) = (name.as_deref(), phone.as_deref());
    check_profile(&Received { name: name_ref, phone: phone_ref, avatar_url: avatar_url.as_deref() })?;
    Ok(Profile { name, phone, avatar_url })
}

/// A checked change of a profile.
#[expect(clippy::option_option, reason = "absent, null and a value are three things")]
pub(crate) fn profile_patch(
    name: Option<Option<String>>,
    phone: Option<Option<String>>,
    avatar_url: Option<Option<String>>,
) -> Result<ProfilePatch, Problem> {
    check_profile(&Received {
        name: name.as_ref().and_then(Option::as_deref),
        phone: phone.as_ref().and_then(Option::as_deref),
        avatar_url: avatar_url.as_ref().and_then(Option::as_deref),
    })?;
    Ok(ProfilePatch { name, phone, avatar_url })
}

/// Tells a member that is `null` from one that is absent. Use with `#[serde(default, deserialize_with = …)]`.
#[expect(clippy::option_option, reason = "absent, null and a value are three things")]
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

fn check_text(pointer: &'static str, text: &str, max: usize) -> Option<(&'static str, String)> {
    let length = text.chars().count();
    let good = (1..=max).contains(&length) && !text.chars().any(is_unprintable);
    (!good).then(|| (pointer, format!("1 to {max} characters, none of them a control character")))
}

fn check_url(text: &str) -> Option<(&'static str, String)> {
    let is_web = |url: Url| matches!(url.scheme(), "http" | "https") && url.host().is_some();
    // The parser drops blanks and line breaks silently: what is stored must be what was checked.
    let clean = !text.chars().any(|c| is_unprintable(c) || c.is_whitespace());
    let good = text.len() <= MAX_URL && clean && Url::parse(text).is_ok_and(is_web);
    (!good).then(|| ("/avatar_url", format!("an http or https URL of at most {MAX_URL} characters")))
}

/// Control characters, and the marks that turn the direction of text around what follows (Unicode UAX 9): they make a
/// name look like another.
fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_checked_member_by_member() {
        assert!(
            profile(Some("Ada".into()), Some("+44 1".into()), Some("https://a.example/x.png".into())).is_ok()
        );
        for name in ["", "a\nb", "a\0", "\u{202e}nimda", &"x".repeat(201)] {
            assert!(profile(Some(name.into()), None, None).is_err(), "{name:?}");
        }
        for url in
            ["javascript:alert(1)", "/x", "ftp://a.example/", "https://a.example/ x", "data:text/html,x"]
        {
            assert!(profile(None, None, Some(url.into())).is_err(), "{url:?}");
        }
        assert!(profile(None, Some("1".repeat(41)), None).is_err());
    }
}
