//! Changes of an app's settings, and what is wrong with them.

use serde_json::{Value, json};

use super::AppSettings;

/// What is wrong with a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhatIsWrong {
    /// There is no setting with this name.
    Name,
    /// The value has the wrong type.
    Type,
    /// The value has the right type but is not allowed.
    Value,
}

/// A refused setting: where (a JSON Pointer, RFC 6901) and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {detail}")]
pub struct InvalidSetting {
    /// What is wrong with it.
    pub what: WhatIsWrong,
    /// The member, as a JSON Pointer into the settings.
    pub pointer: String,
    /// What would be accepted.
    pub detail: String,
}

impl InvalidSetting {
    pub(super) fn value(name: &str, detail: String) -> Self {
        Self { what: WhatIsWrong::Value, pointer: format!("/{name}"), detail }
    }

    fn parsed(pointer: String, error: &serde_json::Error) -> Self {
        // serde tells these apart in words only (`serde::de::Error::invalid_type`, …), and quotes the value.
        let text = error.to_string();
        let starts_with = |starts: &[&str]| starts.iter().any(|start| text.starts_with(start));
        if starts_with(&["unknown field"]) {
            return Self::unknown(pointer);
        }
        let what = if starts_with(&["invalid type"]) { WhatIsWrong::Type } else { WhatIsWrong::Value };
        let quotes = starts_with(&["invalid type", "invalid value", "invalid length", "unknown variant"]);
        let expected = text.rsplit_once(", expected ").filter(|_| quotes);
        let detail = match expected.map(|(_, expected)| expected) {
            Some("u32") => "must be a whole number".to_owned(),
            Some("a boolean") => "must be true or false".to_owned(),
            Some("a sequence") => "must be a list".to_owned(),
            Some(expected) if expected.starts_with("struct ") => "must be an object".to_owned(),
            Some(expected) => format!("must be {expected}"),
            None => text,
        };
        Self { what, pointer, detail }
    }

    fn unknown(pointer: String) -> Self {
        Self { what: WhatIsWrong::Name, pointer, detail: "there is no such setting".to_owned() }
    }
}

impl AppSettings {
    /// These settings changed by a merge patch (RFC 7396): a member that is `null` gets its default. An empty text removes
    /// what a setting may lack. A refusal names every wrong setting.
    pub fn patched(&self, patch: &serde_json::Map<String, Value>) -> Result<Self, Vec<InvalidSetting>> {
        let mut settings = self.clone();
        let mut wrong = Vec::new();
        for (name, value) in patch {
            // One member at a time, so that a refusal names the member.
            match settings.with(name, value) {
                Ok(changed) => settings = changed,
                Err(why) => wrong.extend(why),
            }
        }
        wrong.extend(settings.check());
        if wrong.is_empty() { Ok(settings) } else { Err(wrong) }
    }

    /// A patch that puts all settings back.
    pub fn all_to_default() -> serde_json::Map<String, Value> {
        Self::default().members().into_iter().map(|(name, _)| (name, Value::Null)).collect()
    }

    /// A patch in which `null` is the same as nothing. Unknown names stay, to be refused.
    #[must_use]
    pub fn without_nulls(mut patch: serde_json::Map<String, Value>) -> serde_json::Map<String, Value> {
        let default = Self::default();
        let is_left_out = |name: &str, value: &Value| value.is_null() && default.with(name, value).is_ok();
        patch.retain(|name, value| !is_left_out(name, value));
        for (name, value) in &mut patch {
            let Some(parts) = value.as_object_mut() else { continue };
            parts.retain(|part, value| {
                !(value.is_null() && default.with(name, &json!({ part: Value::Null })).is_ok())
            });
        }
        patch
    }

    /// With one member changed.
    fn with(&self, name: &str, change: &Value) -> Result<Self, Vec<InvalidSetting>> {
        let mut members = self.members();
        let Some(before) = members.get(name) else {
            return Err(vec![InvalidSetting::unknown(format!("/{}", as_step(name)))]);
        };
        if let (Value::Object(_), Value::Object(parts)) = (before, change) {
            if name == "branding" && parts.contains_key("color") && parts.contains_key("colour") {
                let detail = "colour and color are the same setting: give only one of them".to_owned();
                return Err(vec![InvalidSetting {
                    what: WhatIsWrong::Type,
                    pointer: "/branding".to_owned(),
                    detail,
                }]);
            }
            let (mut settings, mut wrong) = (self.clone(), Vec::new());
            for (part, value) in parts {
                let mut members = settings.members();
                // Not removed if it is `null`, so that a name that is unknown is refused.
                members[name][in_one_spelling(name, part)] =
                    if is_empty(value) { Value::Null } else { value.clone() };
                match serde_json::from_value(Value::Object(members)) {
                    Ok(changed) => settings = changed,
                    Err(error) => {
                        let pointer = format!("/{name}/{}", as_step(part));
                        wrong.push(InvalidSetting::parsed(pointer, &error));
                    }
                }
            }
            return if wrong.is_empty() { Ok(settings) } else { Err(wrong) };
        }
        match change {
            Value::Null => members.remove(name),
            // A derived reader would also take a list with the parts in order.
            _ if before.is_object() => {
                let (pointer, detail) = (format!("/{name}"), "must be an object".to_owned());
                return Err(vec![InvalidSetting { what: WhatIsWrong::Type, pointer, detail }]);
            }
            value => members.insert(name.to_owned(), value.clone()),
        };
        serde_json::from_value(Value::Object(members))
            .map_err(|error| vec![InvalidSetting::parsed(format!("/{name}"), &error)])
    }

    fn members(&self) -> serde_json::Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(members)) => members,
            other => unreachable!("settings serialize to an object, not {other:?}"),
        }
    }
}

/// A name in a JSON Pointer (RFC 6901 section 3). It is returned, so it is cut.
fn as_step(name: &str) -> String {
    name.chars().take(100).collect::<String>().replace('~', "~0").replace('/', "~1")
}

fn is_empty(value: &Value) -> bool {
    value.as_str().is_some_and(str::is_empty)
}

/// Maps `color` to `colour`, the spelling in which settings are shown.
fn in_one_spelling<'a>(name: &str, part: &'a str) -> &'a str {
    if name == "branding" && part == "color" { "colour" } else { part }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{AppSettings, WhatIsWrong};
    use crate::branding::{Colour, Locale, ProductName};
    use crate::redirect_uri::RedirectUri;

    fn patch(value: &Value) -> Result<AppSettings, (WhatIsWrong, String)> {
        let members = value.as_object().expect("a patch is an object");
        AppSettings::default().patched(members).map_err(|wrong| {
            assert_eq!(wrong.len(), 1, "{wrong:?}");
            (wrong[0].what, wrong[0].pointer.clone())
        })
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        let settings =
            patch(&json!({"access_token_ttl": 60, "origins": ["https://app.example"]})).expect("valid");
        assert_eq!(settings.access_token_ttl, 60);
        assert_eq!(settings.refresh_token_ttl, AppSettings::default().refresh_token_ttl);
        let back =
            settings.patched(json!({"access_token_ttl": null}).as_object().expect("object")).expect("valid");
        assert_eq!(back.access_token_ttl, 1800);
    }

    #[test]
    fn a_patch_of_one_link_leaves_the_others() {
        let change = |settings: &AppSettings, links: Value| {
            let patch = json!({"links": links});
            settings.patched(patch.as_object().expect("an object")).expect("valid")
        };
        let both =
            json!({"password_reset": "https://app.example/reset", "invitation": "https://app.example/join"});
        let settings = change(&AppSettings::default(), both);
        let settings = change(&settings, json!({"invitation": "https://app.example/welcome"}));
        assert_eq!(
            settings.links.invitation.as_ref().map(RedirectUri::as_str),
            Some("https://app.example/welcome")
        );
        assert!(settings.links.password_reset.is_some());
        let settings = change(&settings, json!({"invitation": null}));
        assert!(settings.links.invitation.is_none() && settings.links.password_reset.is_some());
        assert_eq!(change(&settings, Value::Null).links, AppSettings::default().links);
    }

    #[test]
    fn a_patch_of_the_branding_leaves_the_rest_of_it() {
        let settings = patch(&json!({"branding": {"name": "Acme", "sender": "no-reply@acme.example"}}))
            .expect("valid")
            .patched(json!({"branding": {"colour": "#0a66c2"}, "locale": "de"}).as_object().expect("object"))
            .expect("valid");
        assert_eq!(settings.branding.name.as_ref().map(ProductName::as_str), Some("Acme"));
        assert_eq!(settings.branding.colour.as_ref().map(Colour::as_str), Some("#0a66c2"));
        assert_eq!(settings.locale.fixed().map(Locale::tag), Some("de"));
        assert_eq!(AppSettings::default().locale.fixed(), None, "the reader chooses");
    }

    #[test]
    fn color_is_taken_for_colour() {
        let settings = patch(&json!({"branding": {"color": "#0a66c2", "name": "Acme"}})).expect("valid");
        let shown = serde_json::to_value(&settings.branding).expect("JSON");
        assert_eq!(shown, json!({"colour": "#0a66c2", "name": "Acme"}), "it is shown with one spelling");
        let change = |patch: Value| settings.patched(patch.as_object().expect("an object")).expect("valid");
        assert_eq!(change(json!({"branding": {"color": null}})).branding.colour, None);
        let other = change(json!({"branding": {"color": "#000000"}})).branding;
        assert_eq!(other.colour.as_ref().map(Colour::as_str), Some("#000000"));
        assert!(patch(&json!({"branding": {"color": "red"}})).is_err());
    }

    #[test]
    fn a_refusal_names_every_wrong_setting() {
        let wrong = json!({
            "access_token_ttl": 0, "branding": {"colour": "red", "name": 7, "sender": "a@example.com"}, "cookies": 1,
            "refresh_grace": 61, "locale": "de", "nothing": 1,
        });
        let wrong =
            AppSettings::default().patched(wrong.as_object().expect("an object")).expect_err("refused");
        let pointers: Vec<_> = wrong.iter().map(|one| one.pointer.as_str()).collect();
        let named = [
            "/access_token_ttl",
            "/refresh_grace",
            "/branding/colour",
            "/branding/name",
            "/cookies",
            "/nothing",
        ];
        assert_eq!(pointers.len(), named.len(), "{pointers:?}");
        assert!(named.iter().all(|name| pointers.contains(name)), "{pointers:?}");
    }

    #[test]
    fn an_empty_text_removes_what_may_be_absent() {
        let change =
            |settings: &AppSettings, patch: Value| settings.patched(patch.as_object().expect("an object"));
        let page = "https://app.example/x";
        let patch = json!({"branding": {"name": "Acme", "colour": "#0a66c2"}, "links": {"invitation": page}});
        let settings = change(&AppSettings::default(), patch).expect("valid");
        let patch = json!({"branding": {"name": "", "color": ""}, "links": {"invitation": ""}});
        assert_eq!(change(&settings, patch).expect("valid"), AppSettings::default());
        for patch in [json!({"access_token_ttl": ""}), json!({"delivery": ""}), json!({"branding": ""})] {
            assert!(change(&settings, patch.clone()).is_err(), "{patch}");
        }
    }

    #[test]
    fn a_refusal_repeats_no_value() {
        let sent = "violet-Kettle-93, expected";
        for name in AppSettings::default().members().keys() {
            for value in
                [json!(sent), json!([sent]), json!({"colour": sent, "invitation": [sent], "name": {sent: 1}})]
            {
                let wrong =
                    AppSettings::default().patched(json!({ name: value }).as_object().expect("an object"));
                let wrong = wrong.expect_err(name);
                assert!(!format!("{wrong:?}").contains("Kettle"), "{wrong:?}");
                assert!(wrong.iter().all(|one| !one.detail.trim().is_empty()), "{wrong:?}");
            }
        }
    }

    #[test]
    fn only_nulls_of_what_is_known_are_left_out() {
        let patch = json!({"access_token_ttl": null, "nothing": null, "cookies": true, "links": {"invitation": null,
            "other": null}, "branding": {"color": null, "name": "Acme"}});
        let left = AppSettings::without_nulls(patch.as_object().expect("an object").clone());
        let expected =
            json!({"nothing": null, "cookies": true, "links": {"other": null}, "branding": {"name": "Acme"}});
        assert_eq!(Value::Object(left), expected);
    }

    #[test]
    fn a_refusal_names_the_member_and_tells_shape_from_value() {
        for (wrong, pointer) in [
            (json!({"colour": "red"}), "/colour"),
            (json!({"colour": null}), "/colour"),
            (json!({"access_token_ttl": "60"}), "/access_token_ttl"),
            (json!({"access_token_ttl": 1.5}), "/access_token_ttl"),
            (json!({"cookies": 1}), "/cookies"),
            (json!({"origins": "https://app.example"}), "/origins"),
            (json!({"redirect_uris": [7]}), "/redirect_uris"),
            (json!({"links": {"other": "https://app.example/"}}), "/links/other"),
            (json!({"links": {"other": null}}), "/links/other"),
            (json!({"branding": {"couleur": "#000000"}}), "/branding/couleur"),
            (json!({"branding": {"a/b~": "#000000"}}), "/branding/a~1b~0"),
            (json!({"access_token_ttl": {}}), "/access_token_ttl"),
            (json!({"access_token_ttl": {"a": 1}}), "/access_token_ttl"),
            (json!({"origins": {}}), "/origins"),
            (json!({"links": []}), "/links"),
            (json!({"branding": ["Acme"]}), "/branding"),
            (json!({"links": {"invitation": {"a": 1}}}), "/links/invitation"),
            (json!({"branding": {"color": "#000000", "colour": "#000000"}}), "/branding"),
            (json!({"color": "#000000"}), "/color"),
            (json!({"links": {"color": "#000000"}}), "/links/color"),
            (json!({"branding": "Acme"}), "/branding"),
        ] {
            let (what, named) = patch(&wrong).expect_err("refused");
            assert_eq!((what == WhatIsWrong::Value, named.as_str()), (false, pointer), "{wrong}");
        }
        for (wrong, pointer) in [
            (json!({"access_token_ttl": 0}), "/access_token_ttl"),
            (json!({"access_token_ttl": -1}), "/access_token_ttl"),
            (json!({"token_algorithm": "HS256"}), "/token_algorithm"),
            (json!({"redirect_uris": ["http://evil.example/"]}), "/redirect_uris"),
            (json!({"password_min_length": 4}), "/password_min_length"),
            (json!({"locale": "fr"}), "/locale"),
            (json!({"time_zone": ""}), "/time_zone"),
            (json!({"time_zone": "Mars/Olympus"}), "/time_zone"),
            (json!({"time_zone": "+01:00"}), "/time_zone"),
            (json!({"branding": {"colour": "red"}}), "/branding/colour"),
            (json!({"branding": {"color": "red"}}), "/branding/color"),
            (json!({"branding": {"logo": "http://cdn.example/logo.png"}}), "/branding/logo"),
            (json!({"branding": {"name": "Acme\r\nBcc: eve@example.com"}}), "/branding/name"),
            (json!({"branding": {"sender": "nobody"}}), "/branding/sender"),
        ] {
            assert_eq!(patch(&wrong), Err((WhatIsWrong::Value, pointer.to_owned())), "{wrong}");
        }
    }
}
