//! Settings that an earlier version took and this one would not.
//!
//! The rules for hosts and names have become stricter, and the log keeps what was taken under the old ones. Such a value is
//! left out when it is read, as if it had never been set: nobody is sent there, nothing is loaded from there, and the rest of
//! the app goes on.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::branding::{Colour, LogoUrl, ProductName};
use crate::email::Email;
use crate::redirect_uri::{Origin, RedirectUri};

/// Where a magic link leads that was made for an address which could not be redirected to today: to nobody's domain (RFC 2606
/// section 2). It is on no app's list, so that the link is refused.
pub const NOWHERE: &str = "https://refused.invalid/";

/// Leaves out what of these settings is refused by now.
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

/// Whether it is one by the rules of today.
fn is<T: DeserializeOwned>(value: &Value) -> bool {
    T::deserialize(value).is_ok()
}

/// Puts [`NOWHERE`] in the place of an address that is refused by now.
pub fn replace_refused(redirect_uri: &mut Value) {
    if !is::<RedirectUri>(redirect_uri) {
        *redirect_uri = Value::from(NOWHERE);
    }
}
