//! Access rights of a journal's streams: set when the streams are created, and checked afterwards.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::entry::Entry;
use super::link::Target;
use super::log::{Failure, Log};
use super::{Access, KurrentSettings, KurrentUrl};
use crate::clock::{Clock, SystemClock};

/// The group of a server's administrators, who may do everything whatever a stream's rights say.
const ADMINISTRATORS: &str = "$admins";

/// The accounts that every new server has, with their well-known passwords.
const FACTORY: [(&str, &str); 2] = [("admin", "changeit"), ("ops", "changeit")];

/// A stream of the server that only its administrators may read.
const OF_ADMINISTRATORS: &str = "$users";

/// How long an answer may take during a check.
const LOOK: Duration = Duration::from_secs(3);

/// What a server says about access rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KurrentRights {
    /// The user that the node logs in as.
    pub user: Option<String>,
    /// Whether the server requires a login at all.
    pub asks_for_passwords: bool,
    /// Whether the node's user is an administrator of the server.
    pub is_administrator: bool,
    /// Accounts that still have their factory password.
    pub factory: Vec<&'static str>,
    /// The existing streams, and what is wrong with each.
    pub streams: Vec<(String, Vec<String>)>,
}

impl KurrentRights {
    /// Checks, with the journal's own account, its stream and those of these effects. Changes nothing.
    pub async fn look(
        url: &KurrentUrl,
        settings: &KurrentSettings,
        effects: &[&str],
    ) -> Result<Self, String> {
        let text = |failure: Failure| failure.text().to_owned();
        let target = Arc::new(Target::new(url, None)?);
        let user = url.access.as_ref().map(|access| access.user.clone());
        let names = effects.iter().map(|effect| effect_stream(&settings.stream, effect));
        let mut streams = Vec::new();
        for name in std::iter::once(settings.stream.clone()).chain(names) {
            if Log::new(&target, &name, LOOK).last().await.map_err(text)?.is_some() {
                let about = Log::new(&target, &metadata_stream(&name), LOOK).last().await;
                let faults = match about {
                    Ok(about) => faults(about.map(|(_, entry)| entry.data).as_deref(), user.as_deref()),
                    Err(Failure::Denied(_)) => {
                        vec!["this account cannot read its access rights".to_owned()]
                    }
                    Err(other) => return Err(text(other)),
                };
                streams.push((name, faults));
            }
        }
        let of_administrators = Log::new(&target, OF_ADMINISTRATORS, LOOK).last().await;
        let is_administrator = match of_administrators {
            Ok(_) => true,
            Err(Failure::Denied(_)) => false,
            Err(other) => return Err(text(other)),
        };
        let nobody = SystemClock.new_id().to_string();
        let asks_for_passwords = !lets_in(url, &nobody, &nobody).await?;
        let mut factory = Vec::new();
        for (user, password) in FACTORY {
            if asks_for_passwords && lets_in(url, user, password).await? {
                factory.push(user);
            }
        }
        Ok(Self { user, asks_for_passwords, is_administrator, factory, streams })
    }
}

/// Whether the server accepts this user and password.
async fn lets_in(url: &KurrentUrl, user: &str, password: &str) -> Result<bool, String> {
    let access = Access { user: user.to_owned(), password: password.to_owned() };
    let target = Arc::new(Target::new(url, Some(&access))?);
    let unknown = target.not_let_in();
    match Log::new(&target, OF_ADMINISTRATORS, LOOK).last().await {
        Ok(_) => Ok(true),
        Err(Failure::Denied(text)) => Ok(text != unknown),
        Err(other) => Err(other.text().to_owned()),
    }
}

/// The stream in which the server keeps a stream's metadata.
pub(super) fn metadata_stream(stream: &str) -> String {
    format!("$${stream}")
}

/// The stream that holds an effect's cursor.
pub(super) fn effect_stream(stream: &str, effect: &str) -> String {
    format!("{stream}-effect-{effect}")
}

/// Sets the access rights of a stream unless they are set already; called before its first event. Does nothing if the
/// node does not log in: there is no account to name.
pub(super) async fn protect(
    target: &Arc<Target>,
    stream: &str,
    more: Value,
    limit: Duration,
) -> Result<(), Failure> {
    let mut log = Log::new(target, &metadata_stream(stream), limit);
    let mut about = more;
    if let Some(user) = target.account() {
        about["$acl"] = acl(user);
    }
    if about.as_object().is_none_or(serde_json::Map::is_empty) {
        return Ok(());
    }
    let entry = Entry {
        id: SystemClock.new_id(),
        name: "$metadata".to_owned(),
        data: about.to_string(),
        metadata: b"{}".to_vec(),
    };
    match log.append(0, &[entry]).await {
        // A second node finds the rights set, or may not even look.
        Ok(_) | Err(Failure::Denied(_) | Failure::Refused(_)) => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// Its own account reads and appends. Only administrators may truncate, delete and change these rights.
fn acl(user: &str) -> Value {
    json!({
        "$r": [user], "$w": [user], "$d": [ADMINISTRATORS], "$mr": [user], "$mw": [ADMINISTRATORS],
    })
}

/// What is wrong with a stream's access rights.
fn faults(about: Option<&str>, user: Option<&str>) -> Vec<String> {
    let about: Value = about.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let Some(acl) = about.get("$acl").and_then(Value::as_object) else {
        return vec!["it has no $acl, so every account of the server may read it and write to it".to_owned()];
    };
    let own = [user.unwrap_or(ADMINISTRATORS), ADMINISTRATORS];
    let rights = [
        ("$r", "read it", &own[..]),
        ("$w", "write to it", &own[..]),
        ("$d", "delete it", &own[1..]),
        ("$mw", "truncate it and change its access rights", &own[1..]),
    ];
    let mut faults = Vec::new();
    for (right, what, allowed) in rights {
        let others = match acl.get(right) {
            None => vec!["every account of the server".to_owned()],
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(several)) => {
                several.iter().map(|one| one.as_str().unwrap_or("?").to_owned()).collect()
            }
            Some(_) => vec!["?".to_owned()],
        };
        let others: Vec<_> = others.into_iter().filter(|who| !allowed.contains(&who.as_str())).collect();
        if !others.is_empty() {
            let others = others.join(", ").replace("$all", "every account of the server");
            faults.push(format!("{others} may {what} ({right} of its $acl)"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rights_of_a_new_stream_have_no_fault() {
        let about = |acl: Value| json!({ "$maxCount": 100, "$acl": acl }).to_string();
        assert_eq!(faults(Some(&about(acl("watchword"))), Some("watchword")), Vec::<String>::new());
        for (right, who, what) in [
            ("$r", json!("$all"), "every account of the server may read it"),
            ("$w", json!(["watchword", "mallory"]), "mallory may write to it"),
            ("$w", json!([]), ""),
            ("$w", Value::Null, "? may write to it"),
            ("$d", json!("watchword"), "watchword may delete it"),
            ("$mw", json!(["watchword"]), "watchword may truncate it"),
        ] {
            let mut changed = acl("watchword");
            changed[right] = who;
            let found = faults(Some(&about(changed)), Some("watchword"));
            assert!(found.iter().all(|fault| fault.contains(what)), "{found:?}");
            assert_eq!(found.is_empty(), what.is_empty(), "{right}");
        }
        for right in ["$r", "$w", "$d", "$mw"] {
            let mut changed = acl("watchword");
            changed.as_object_mut().expect("an object").remove(right);
            let found = faults(Some(&about(changed)), Some("watchword"));
            assert!(found.len() == 1 && found[0].contains("every account of the server"), "{found:?}");
        }
        for none in [None, Some("{}"), Some("no JSON"), Some(r#"{"$acl":null}"#)] {
            let found = faults(none, Some("watchword"));
            assert!(found.len() == 1 && found[0].contains("no $acl"), "{found:?}");
        }
        // Created by another account.
        assert_eq!(faults(Some(&about(acl("other"))), Some("watchword")).len(), 2);
    }
}
