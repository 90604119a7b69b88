//! Settings that an earlier version accepted and this one would refuse.
//!
//! The rules for hosts and names have become stricter, and the log keeps what was accepted under the old ones. Such a
//! value is left out when it is read, as if it had never been set: no browser is sent there, nothing is loaded from
//! there, and the rest of the app keeps working.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::branding::{Colour, LogoUrl, ProductName};
use crate::email::Email;
use crate::redirect_uri::{Origin, RedirectUri};

/// The target of a magic link that was issued for an address which is refused today: a domain without an owner (RFC
/// 2606 section 2). It is on no app's list, so the link is refused.
pub const NOWHERE: &str = "https://refused.invalid/";

/// Leaves out the settings that are refused today.
pub fn leave_out_refused(settings: &mut Value) {
    let Some(settings) = settings.as_object_mut() else { return };
    if let Some(Value::Array(uris)) = settings.get_mut("redirect_uris") {
        uris.retain(is::<RedirectUri>);
    }
    if let Some(Value::Array(origins)) = settings.get_mut("origins") {
        origins.retain(is::<Origin>);
    }
    if let Some(Value::Object(links)) = settings.get_mut("links") {
        links.retain(|_, link| is::<RedirectUri>(link));
    }
    if let Some(Value::Object(branding)) = settings.get_mut("branding") {
        branding.retain(|name, value| match name.as_str() {
            "name" => is::<ProductName>(value),
            "logo" => is::<LogoUrl>(value),
            "colour" => is::<Colour>(value),
            "sender" | "reply_to" => is::<Email>(value),
            _ => true,
        });
    }
}

/// Whether it is valid by today's rules.
fn is<T: DeserializeOwned>(value: &Value) -> bool {
    T::deserialize(value).is_ok()
}

/// Replaces an address that is refused today by [`NOWHERE`].
pub fn replace_refused(redirect_uri: &mut Value) {
    if !is::<RedirectUri>(redirect_uri) {
        *redirect_uri = Value::from(NOWHERE);
    }
}
