//! Which settings of an app a limited caller may change.
//!
//! Settings are of three kinds, as declared. One is for the *platform* alone: `admin_role` decides what an admin is. A
//! *strong* one decides where secrets go or who gets in: changing it could redirect a person's token or let the caller in.
//! It takes the platform or a full admin. A *weak* one does neither, and the permission `settings:write` is enough. The
//! members of a mixed one are judged individually, and those not named weak are strong. Why no weak setting allows a
//! takeover:
//!
//! - Lifetimes of tokens, sessions, links and codes stay within narrow ranges fixed by the platform, and a longer one
//!   shows the secret to no one new. A shorter one is at worst a nuisance, with which `settings:write` is trusted.
//! - `refresh_grace` answers a token that was just used with the same successor that its holder already received.
//! - `password_min_length` never falls below the platform's minimum of 8 characters.
//! - The time zone decides where the days of the stats begin, and nothing else.
//! - Locale, product name, colour and logo are display only. None can hold a link that people follow: the logo is a
//!   picture, fetched without a referrer. A name that mail clients would show as a link is strong.
//!
//! Strong although they may look weak: `require_verified_email` lets in people who have proven nothing;
//! `token_algorithm` replaces the signing keys, which is the permission `keys:write`, and `key_propagation` decides when that
//! locks verifiers out; `branding.sender` and
//! `branding.reply_to` determine where a person's reply goes, which often quotes the mail with its link.

use serde_json::{Map, Value};

use crate::settings::{AppSettings, Kind};

/// The settings for the platform alone that differ, as JSON Pointers.
pub fn platform_changes(before: &AppSettings, after: &AppSettings) -> Vec<String> {
    let is_platform = |name: &str| matches!(kind(name), Some(Kind::Platform));
    let changed = differing(&members(before), &members(after));
    changed.into_iter().filter(|name| is_platform(name)).map(|name| format!("/{name}")).collect()
}

/// The strong settings and those for the platform alone that differ, as JSON Pointers.
pub fn strong_changes(before: &AppSettings, after: &AppSettings) -> Vec<String> {
    strong_differences(&members(before), &members(after))
}

fn members(settings: &AppSettings) -> Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(members)) => members,
        other => unreachable!("settings serialize to an object, not {other:?}"),
    }
}

fn kind(name: &str) -> Option<&'static Kind> {
    AppSettings::KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| kind)
}

fn strong_differences(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<String> {
    let mut strong = Vec::new();
    for name in differing(before, after) {
        match kind(&name) {
            Some(Kind::Weak) => {}
            Some(Kind::Mixed(weak)) => {
                let none = Map::new();
                let inner = |members: &'_ Map<String, Value>| {
                    members.get(&name).and_then(Value::as_object).unwrap_or(&none).clone()
                };
                let mut inner = differing(&inner(before), &inner(after));
                inner.retain(|inner| !weak.contains(&inner.as_str()) || shows_a_link(after, &name, inner));
                strong.extend(inner.into_iter().map(|inner| format!("/{name}/{inner}")));
            }
            Some(Kind::Platform | Kind::Strong) | None => strong.push(format!("/{name}")),
        }
    }
    strong
}

/// Whether this is the name in the branding, and mail clients would show it as a link.
fn shows_a_link(settings: &Map<String, Value>, name: &str, inner: &str) -> bool {
    let text = settings.get(name).and_then(|it| it.get(inner)?.as_str());
    (name, inner) == ("branding", "name") && text.is_some_and(has_a_link)
}

/// Whether a mail client may turn a word of this text into a link: clients do so with what looks like a URL, a host or an
/// address. The name is in every mail, including those with a victim's token.
pub fn has_a_link(text: &str) -> bool {
    text.split_whitespace().any(|word| {
        let is_inside = |dot: usize| {
            let (before, behind) = (word[..dot].chars().next_back(), word[dot + 1..].chars().next());
            before.is_some_and(char::is_alphanumeric) && behind.is_some_and(char::is_alphanumeric)
        };
        word.contains(['/', '@', '\\'])
            || word.contains(':')
            || word.match_indices('.').any(|(dot, _)| is_inside(dot))
    })
}

fn differing(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<String> {
    let mut names: Vec<String> = before.keys().chain(after.keys()).cloned().collect();
    names.sort();
    names.dedup();
    names.retain(|name| before.get(name) != after.get(name));
    names
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn changed(patch: &Value) -> Vec<String> {
        let before = AppSettings::default();
        let after = before.patched(patch.as_object().expect("an object")).expect("valid");
        strong_changes(&before, &after)
    }

    #[test]
    fn what_decides_where_secrets_go_or_who_gets_in_is_strong() {
        for (patch, pointer) in [
            (json!({"redirect_uris": ["https://evil.example/cb"]}), "/redirect_uris"),
            (json!({"origins": ["https://evil.example"]}), "/origins"),
            (json!({"links": {"password_reset": "https://evil.example/reset"}}), "/links"),
            (json!({"links": {"email_verification": "https://evil.example/v"}}), "/links"),
            (json!({"delivery": "app"}), "/delivery"),
            (json!({"cookies": true}), "/cookies"),
            (json!({"registration": "closed"}), "/registration"),
            (json!({"admin_role": "editor"}), "/admin_role"),
            (json!({"admin_role": ""}), "/admin_role"),
            (json!({"require_verified_email": true}), "/require_verified_email"),
            (json!({"token_algorithm": "EdDSA"}), "/token_algorithm"),
            (json!({"key_propagation": 0}), "/key_propagation"),
            (json!({"branding": {"sender": "evil@evil.example", "name": "Acme"}}), "/branding/sender"),
            (json!({"branding": {"reply_to": "evil@evil.example"}}), "/branding/reply_to"),
        ] {
            assert_eq!(changed(&patch), [pointer], "{patch}");
        }
    }

    #[test]
    fn only_the_platform_says_what_an_admin_is() {
        let changed = |patch: Value| {
            let before = AppSettings::default();
            let after = before.patched(patch.as_object().expect("an object")).expect("valid");
            platform_changes(&before, &after)
        };
        assert_eq!(changed(json!({"admin_role": "editor", "cookies": true})), ["/admin_role"]);
        assert_eq!(changed(json!({"admin_role": ""})), ["/admin_role"]);
        assert_eq!(changed(json!({"admin_role": "admin", "cookies": true})), [""; 0]);
    }

    #[test]
    fn the_rest_is_weak() {
        for patch in [
            json!({}),
            json!({"delivery": "platform", "registration": "open"}),
            json!({"access_token_ttl": 60, "refresh_token_ttl": 60, "refresh_idle_ttl": 60, "refresh_grace": 0}),
            json!({"password_min_length": 12, "magic_link_ttl": 60, "email_verification_ttl": 60}),
            json!({"password_reset_ttl": 60, "invitation_ttl": 60, "exchange_code_ttl": 10, "locale": "de"}),
            json!({"time_zone": "Asia/Kathmandu"}),
            json!({"branding": {"name": "Acme", "colour": "#0a66c2", "logo": "https://cdn.example/a.png"}}),
        ] {
            assert_eq!(changed(&patch), [""; 0], "{patch}");
        }
    }

    #[test]
    fn inv_v_a_name_that_mails_would_show_as_a_link_is_strong() {
        for name in [
            "https://evil.example/login",
            "Your account is locked: https://evil.example",
            "Acme (evil.example/login)",
            "see evil.example",
            "EVIL.EXAMPLE",
            "www.evil",
            "support@evil",
            "tel:+155501",
        ] {
            assert_eq!(changed(&json!({"branding": {"name": name}})), ["/branding/name"], "{name}");
        }
        for name in ["Acme", "Acme Inc.", "St. John & Co.", "Müller GmbH", "A.", "..."] {
            assert_eq!(changed(&json!({"branding": {"name": name}})), [""; 0], "{name}");
        }
    }

    #[test]
    fn what_nobody_has_thought_about_is_strong() {
        let members = |value: Value| value.as_object().expect("an object").clone();
        let before = members(json!({"branding": {}, "mfa": "off"}));
        let after = members(json!({"branding": {"css": "x"}, "mfa": "on", "landlord": "boss"}));
        assert_eq!(strong_differences(&before, &after), ["/branding/css", "/landlord", "/mfa"]);
        assert_eq!(strong_differences(&after, &before), ["/branding/css", "/landlord", "/mfa"]);
    }

    /// A member that no longer exists would make a new one of that name weak.
    #[test]
    fn every_weak_member_is_one() {
        let schema = schemars::schema_for!(crate::branding::Branding).to_value();
        let mixed = AppSettings::KINDS.iter().filter_map(|(name, kind)| match kind {
            Kind::Mixed(weak) => Some((*name, *weak)),
            Kind::Platform | Kind::Strong | Kind::Weak => None,
        });
        for (name, weak) in mixed {
            assert_eq!(name, "branding");
            for member in weak {
                assert!(schema["properties"][member].is_object(), "{member}");
            }
        }
    }
}
