//! The settings of an app.

use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::branding::{Branding, Language};
use crate::redirect_uri::{Origin, RedirectUri};
use crate::role::Role;
use crate::signing_key::TokenAlgorithm;
use crate::time_zone::{TimeZoneName, UnknownTimeZone};

mod change;

pub use change::{InvalidSetting, WhatIsWrong};

/// Who may register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Registration {
    /// Anyone.
    #[default]
    Open,
    /// People with an invitation to an organization, which its owners and admins make, and users created by an admin.
    InviteOnly,
    /// Only users created by an admin.
    Closed,
}

/// Who sends the mails of an app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Delivery")]
pub enum SentBy {
    /// Watchword.
    #[default]
    Platform,
    /// The app itself, which receives the token.
    App,
}

/// Pages of the app that mails link to instead of Watchword's own; `?token=` is added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Links {
    /// The page to reset a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_reset: Option<RedirectUri>,
    /// The page to verify an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_verification: Option<RedirectUri>,
    /// The page to confirm a change of address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_change: Option<RedirectUri>,
    /// The page to accept an invitation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invitation: Option<RedirectUri>,
}

/// Who may change a setting; see [`crate::setting_kinds`].
pub(crate) enum Kind {
    /// It decides what an admin of the app is.
    Platform,
    /// It decides where secrets go or who gets in.
    Strong,
    /// It does neither.
    Weak,
    /// Only these of its members are weak.
    Mixed(&'static [&'static str]),
}

/// `name: Type = default, kind, range;` declares a setting: its member of [`AppSettings`] with its documentation and
/// default, whether it is `platform`, `strong`, `weak` or `mixed`, and the range of a number (`in 1..=60`) or the maximum
/// length of a list (`up to 100`). Validation, the schemas of the API and of events, and the reference follow from it.
macro_rules! settings {
    (@kind platform) => { Kind::Platform };
    (@kind strong) => { Kind::Strong };
    (@kind weak) => { Kind::Weak };
    (@kind mixed $($member:ident)+) => { Kind::Mixed(&[$(stringify!($member)),+]) };
    ($(
        $(#[$comment:meta])*
        $name:ident: $T:ty = $default:expr,
        $kind:ident $(($($weak:ident),+))? $(, in $least:tt..=$most:tt)? $(, up to $length:literal)?;
    )*) => {
        /// The settings of an app, all with defaults. Durations are in seconds.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct AppSettings {
            $(
                $(#[$comment])*
                $(#[schemars(range(min = $least, max = $most))])?
                pub $name: $T,
            )*
        }

        impl Default for AppSettings {
            fn default() -> Self {
                Self { $($name: $default),* }
            }
        }

        impl AppSettings {
            pub(crate) const KINDS: &'static [(&'static str, Kind)] =
                &[$((stringify!($name), settings!(@kind $kind $($($weak)+)?))),*];

            /// What is out of its range.
            fn check(&self) -> Vec<InvalidSetting> {
                let mut wrong = Vec::new();
                if self.time_zone.find().is_none() {
                    wrong.push(InvalidSetting::value("time_zone", UnknownTimeZone.to_string()));
                }
                $($(wrong.extend(outside(stringify!($name), self.$name, $least..=$most));)?)*
                $($(
                    if self.$name.len() > $length {
                        let detail = concat!("at most ", $length, " of them").to_owned();
                        wrong.push(InvalidSetting::value(stringify!($name), detail));
                    }
                )?)*
                wrong
            }
        }
    };
}

/// `""` removes, as in every change.
fn role_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Role>, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        Some(text) if !text.is_empty() => Role::parse(text).map(Some).map_err(D::Error::custom),
        _ => Ok(None),
    }
}

fn outside(name: &str, value: u32, range: RangeInclusive<u32>) -> Option<InvalidSetting> {
    let detail = || format!("must be from {} to {}", range.start(), range.end());
    (!range.contains(&value)).then(|| InvalidSetting::value(name, detail()))
}

settings! {
    /// The URIs that browsers may be sent to, matched exactly.
    redirect_uris: Vec<RedirectUri> = Vec::new(), strong, up to 100;
    /// Web origins that may call from a browser (CORS).
    origins: Vec<Origin> = Vec::new(), strong, up to 100;
    /// Lifetime of an access token.
    access_token_ttl: u32 = 1800, weak, in 1..=86400;
    /// Maximum lifetime of a session, however often it is refreshed.
    refresh_token_ttl: u32 = 2_592_000, weak, in 1..=31_536_000;
    /// Lifetime of a session without a refresh.
    refresh_idle_ttl: u32 = 1_209_600, weak, in 1..=31_536_000;
    /// How long a used refresh token is still answered with its successor, for a client that lost the reply.
    refresh_grace: u32 = 10, weak, in 0..=60;
    /// The algorithm of new signing keys. It signs once verifiers know its keys, see `key_propagation`. The standard libraries
    /// of .NET (`Microsoft.IdentityModel`, which `JwtBearer` uses) verify no `EdDSA`.
    token_algorithm: TokenAlgorithm = TokenAlgorithm::default(), strong;
    /// How long verifiers may use a copy of the key set, in seconds. No key signs before it was published for as long, except
    /// by an `emergency` rotation.
    key_propagation: u32 = 600, strong, in 0..=86400;
    /// Whether an address must be verified before the first login.
    require_verified_email: bool = false, strong;
    /// Minimum length of a new password, in characters.
    password_min_length: u32 = 8, weak, in 8..=128;
    /// Lifetime of a magic link.
    magic_link_ttl: u32 = 600, weak, in 1..=86400;
    /// Lifetime of an email verification.
    email_verification_ttl: u32 = 86_400, weak, in 1..=604_800;
    /// Lifetime of a password reset.
    password_reset_ttl: u32 = 3600, weak, in 1..=86400;
    /// Lifetime of an invitation.
    invitation_ttl: u32 = 604_800, weak, in 1..=2_592_000;
    /// Lifetime of an exchange code.
    exchange_code_ttl: u32 = 60, weak, in 1..=600;
    /// Whether tokens are exchanged in cookies and never in a body.
    cookies: bool = false, strong;
    /// Who sends the mails.
    delivery: SentBy = SentBy::default(), strong;
    /// The role whose holders may use the app's admin routes: they control its users, keys and settings. `""`: none. Those who
    /// had a role before it was named here get nothing by it until it is granted anew. Only the platform changes this.
    #[serde(deserialize_with = "role_or_none")]
    admin_role: Option<Role> = Some(Role::admin()), platform;
    /// Who may register.
    registration: Registration = Registration::default(), strong;
    /// Pages of the app that mails link to.
    links: Links = Links::default(), strong;
    /// The language of mails and pages.
    locale: Language = Language::default(), weak;
    /// The time zone whose days, weeks and months the stats count by: a name of the IANA database, such as `Europe/Zurich`.
    /// After a change they are counted anew, those of the past too.
    time_zone: TimeZoneName = TimeZoneName::default(), weak;
    /// The appearance of mails and pages, and the sender of mails.
    branding: Branding = Branding::default(), mixed(name, colour, logo);
}

impl AppSettings {
    /// Whether a browser may be sent there with a code: only to a listed URI, matched exactly (RFC 9700 section 2.1).
    pub fn allows_redirect_to(&self, uri: &RedirectUri) -> bool {
        self.redirect_uris.contains(uri)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::AppSettings;
    use crate::redirect_uri::RedirectUri;

    /// Attempts to pass for `https://app.example/callback`.
    const TRICKS: &[&str] = &[
        "https://app.example/callback/",
        "https://app.example/callback/../evil",
        "https://app.example/callback/..%2fevil",
        "https://app.example/callback%2f..%2fevil",
        "https://app.example/%63allback",
        "https://app.example/Callback",
        "https://app.example/callback?",
        "https://app.example/callback?next=https://evil.example",
        "https://app.example/callback;evil",
        "https://app.example/callback#",
        "https://app.example/callback#@evil.example/",
        "https://app.example/callbackevil",
        "https://app.example/callback.evil.example",
        "https://app.example//callback",
        "https://app.example/./callback",
        "https://app.example/x/../callback",
        "https://app.example/%2e%2e/callback",
        "https://app.example:443/callback",
        "https://app.example:8443/callback",
        "https://app.example.evil.example/callback",
        "https://app.example./callback",
        "https://evil.app.example/callback",
        "https://app.exampl\u{435}/callback",
        "https://app\u{ff0e}example/callback",
        "https://\u{ff41}pp.example/callback",
        "https://app\u{3002}example/callback",
        "https://APP.example/callback",
        "HTTPS://app.example/callback",
        "https:app.example/callback",
        "https:/app.example/callback",
        "https:///app.example/callback",
        "https:\\\\app.example\\callback",
        "https://app.example\\callback",
        "https://app.example\\@evil.example/callback",
        "https://app.example@evil.example/callback",
        "https://app.example:pw@evil.example/callback",
        "https://evil.example\\@app.example/callback",
        "https://user@app.example/callback",
        "https://user:pw@app.example/callback",
        "https://evil.example/https://app.example/callback",
        "https://evil.example/?u=https://app.example/callback",
        "//app.example/callback",
        "/callback",
        "app.example/callback",
        "http://app.example/callback",
        "ftp://app.example/callback",
        "javascript://app.example/callback%0aalert(1)",
        "data:text/html,https://app.example/callback",
        "intent://app.example/callback",
        " https://app.example/callback",
        "https://app.example/callback ",
        "https://app.example/call\tback",
        "https://app.example/callback\n",
        "https://app.example/callback\r\nSet-Cookie: a=b",
        "https://app.example/callback\0",
        "https://app.example/callback%00",
        "https://app.example/callback%0d%0a",
        "https://app.example%00.evil.example/callback",
        "https://app.example%2f@evil.example/callback",
        "https://0x7f000001/callback",
        "https://2130706433/callback",
        "https://0177.0.0.1/callback",
        "https://127.1/callback",
        "https://[::ffff:127.0.0.1]/callback",
        "http://localhost/callback",
        "http://localhost.evil.example/callback",
        "https://xn--app-.example/callback",
        "https://app.example/callback\u{202e}",
        "https://app.example/callback\u{200b}",
        "",
        "*",
        "https://*/callback",
        "https://*.example/callback",
    ];

    #[test]
    fn only_the_exact_redirect_uri_passes() {
        let own = "https://app.example/callback";
        let patch = json!({ "redirect_uris": [own] });
        let settings = AppSettings::default().patched(patch.as_object().expect("an object")).expect("valid");
        let passes = |text: &str| RedirectUri::parse(text).is_ok_and(|uri| settings.allows_redirect_to(&uri));
        assert!(passes(own));
        for trick in TRICKS {
            assert!(!passes(trick), "{trick:?}");
        }
        let none = AppSettings::default();
        assert!(
            !none.allows_redirect_to(&RedirectUri::parse(own).expect("valid")),
            "nothing is allowed by default"
        );
    }
}
