//! Which settings of an app somebody may change who may not do everything in it.
//!
//! Settings are of two kinds, which their declarations say. A *strong* one decides where secrets go or who gets in: whoever
//! changes it could send a person's token to a place of their own, or let themselves in. It takes the platform or a full
//! admin. A *weak* one does neither, and the permission `settings:write` is enough. Of a mixed one each member is looked at
//! by itself, and those that are not named weak are strong. Why each of the weak ones takes nothing over:
//!
//! - The lives of tokens, sessions, links and codes stay within narrow ranges that the platform fixed, and a longer life
//!   shows the secret to nobody new. A shorter one is a nuisance at most, which `settings:write` is trusted with.
//! - `refresh_grace` answers a token that was just used with the very successor that its holder got before.
//! - `password_min_length` never falls below the 8 characters that the platform demands, whoever sets it.
//! - Locale, the product's name, its colour and its logo are what people see. None can hold a link that somebody follows:
//!   the logo is a picture, fetched without a referrer. A name that programs for mail would show as a link is strong.
//!
//! Strong, though they might be taken for weak: `require_verified_email` lets people in who have shown nothing;
//! `token_algorithm` replaces the signing keys, which is the permission `keys:write`; `branding.sender` and
//! `branding.reply_to` are where a person's answer goes, which often quotes the mail with its link.

use serde_json::{Map, Value};

use crate::settings::{AppSettings, Kind};

/// The strong settings that differ, as JSON Pointers.
pub fn strong_changes(before: &AppSettings, after: &AppSettings) -> Vec<String> {
    let members = |settings: &AppSettings| match serde_json::to_value(settings) {
        Ok(Value::Object(members)) => members,
        other => unreachable!("settings serialize to an object, not {other:?}"),
    };
    strong_differences(&members(before), &members(after))
}

fn strong_differences(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<String> {
    let mut strong = Vec::new();
    for name in differing(before, after) {
        match AppSettings::KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| kind) {
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
            Some(Kind::Strong) | None => strong.push(format!("/{name}")),
        }
    }
    strong
}

/// Whether it is the name in the branding, and one that mails would show as a link.
fn shows_a_link(settings: &Map<String, Value>, name: &str, inner: &str) -> bool {
    let text = settings.get(name).and_then(|it| it.get(inner)?.as_str());
    (name, inner) == ("branding", "name") && text.is_some_and(has_a_link)
}

/// Whether a program for mail may make a link of a word of this text: it does so with what begins like a URL, and with what
/// looks like a host or an address. The name stands in every mail, and in those with the token of a victim above all.
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
            (json!({"require_verified_email": true}), "/require_verified_email"),
            (json!({"token_algorithm": "EdDSA"}), "/token_algorithm"),
            (json!({"branding": {"sender": "evil@evil.example", "name": "Acme"}}), "/branding/sender"),
            (json!({"branding": {"reply_to": "evil@evil.example"}}), "/branding/reply_to"),
        ] {
            assert_eq!(changed(&patch), [pointer], "{patch}");
        }
    }

    #[test]
    fn the_rest_is_weak() {
        for patch in [
            json!({}),
            json!({"delivery": "platform", "registration": "open"}),
            json!({"access_token_ttl": 60, "refresh_token_ttl": 60, "refresh_idle_ttl": 60, "refresh_grace": 0}),
            json!({"password_min_length": 12, "magic_link_ttl": 60, "email_verification_ttl": 60}),
            json!({"password_reset_ttl": 60, "invitation_ttl": 60, "exchange_code_ttl": 10, "locale": "de"}),
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
        let after = members(json!({"branding": {"css": "x"}, "mfa": "on", "admin_role": "boss"}));
        assert_eq!(strong_differences(&before, &after), ["/admin_role", "/branding/css", "/mfa"]);
        assert_eq!(strong_differences(&after, &before), ["/admin_role", "/branding/css", "/mfa"]);
    }

    /// A weak member that is none (any more) would make a new one of that name weak.
    #[test]
    fn every_weak_member_is_one() {
        let schema = schemars::schema_for!(crate::branding::Branding).to_value();
        let mixed = AppSettings::KINDS.iter().filter_map(|(name, kind)| match kind {
            Kind::Mixed(weak) => Some((*name, *weak)),
            Kind::Strong | Kind::Weak => None,
        });
        for (name, weak) in mixed {
            assert_eq!(name, "branding");
            for member in weak {
                assert!(schema["properties"][member].is_object(), "{member}");
            }
        }
    }
}
