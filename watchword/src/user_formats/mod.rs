//! Lists of users as other systems export them: each entry becomes a line of an import. A file for each system.
//!
//! What a line cannot say yet (memberships, identities of social logins) is left out and counted.

mod aspnet_identity;
mod auth0;
mod better_auth;
mod cognito;
mod django;
mod firebase;
mod keycloak;
mod ldap;
mod rows;
mod supabase;
mod wordpress;

use std::fs::File;
use std::io::BufReader;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use serde_json::{Map, Value, json};

pub use firebase::hash_config;
#[cfg(test)]
pub use tests::converted;

/// The system that a file comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// NDJSON as `watchword users export` writes it
    Watchword,
    /// The NDJSON of a user export, or of an export of password hashes
    Auth0,
    /// What `firebase auth:export users.json` writes
    Firebase,
    /// A realm with its users, as `kc.sh export` writes it
    Keycloak,
    /// What `aws cognito-idp list-users` writes: it has no password hashes
    Cognito,
    /// Rows of `auth.users`, as a JSON array or NDJSON
    Supabase,
    /// The tables `user` and `account`, as one JSON object with both
    BetterAuth,
    /// What `manage.py dumpdata auth.user` writes
    Django,
    /// Rows of `AspNetUsers`, as a JSON array or NDJSON
    AspnetIdentity,
    /// Rows of `wp_users`, as `wp user list --format=json` writes them, with `user_pass`
    Wordpress,
    /// LDIF, as `slapcat` writes it
    Ldap,
}

/// An entry of a file.
#[derive(Debug)]
pub struct Entry {
    /// Its line in a file of lines, or its number; the first is 1.
    pub number: u64,
    /// The line of the import, or what is wrong.
    pub line: Result<Vec<u8>, Wrong>,
    /// How many identities and memberships were left out.
    pub left_out: u64,
    /// How many bytes of the file were read so far.
    pub read: u64,
}

/// What is wrong with an entry that makes no line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// As in the errors of the API.
    pub code: &'static str,
    /// For people.
    pub detail: String,
}

/// Takes an entry, and says whether it wants more.
pub type Take<'a> = &'a mut dyn FnMut(Entry) -> ControlFlow<()>;

/// A person as a line of an import says it, and what it leaves out.
struct Person {
    line: Map<String, Value>,
    left_out: u64,
}

impl Format {
    /// Reads a file, entry by entry.
    pub fn read(self, path: &Path, take: Take<'_>) -> anyhow::Result<()> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let reader = BufReader::with_capacity(1 << 20, file);
        let read = match self {
            Self::Watchword => rows::lines(reader, take),
            Self::Auth0 => rows::rows(reader, &[], auth0::person, take),
            Self::Firebase => rows::rows(reader, &["users"], firebase::person, take),
            Self::Keycloak => rows::rows(reader, &["users"], keycloak::person, take),
            Self::Cognito => rows::rows(reader, &["Users"], cognito::person, take),
            Self::Supabase => rows::rows(reader, &[], supabase::person, take),
            Self::BetterAuth => better_auth::read(reader, take),
            Self::Django => rows::rows(reader, &[], django::person, take),
            Self::AspnetIdentity => rows::rows(reader, &[], aspnet_identity::person, take),
            Self::Wordpress => rows::rows(reader, &[], wordpress::person, take),
            Self::Ldap => ldap::read(reader, take),
        };
        read.with_context(|| format!("{} is not what this format says", path.display()))
    }
}

impl Person {
    /// A person with this address.
    fn new(email: Option<&str>, email_verified: bool) -> Result<Self, Wrong> {
        let email = email.filter(|email| !email.is_empty());
        let email = email.ok_or_else(|| Wrong::missing("the account has no address"))?;
        let mut person = Self { line: Map::new(), left_out: 0 };
        person.line.insert("email".to_owned(), email.into());
        person.line.insert("email_verified".to_owned(), email_verified.into());
        Ok(person)
    }

    /// Sets a member, unless there is nothing to say.
    fn set(&mut self, member: &str, value: impl Into<Value>) {
        let value = value.into();
        let is_nothing = match &value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        if !is_nothing {
            self.line.insert(member.to_owned(), value);
        }
    }

    fn ban_if(&mut self, is_banned: bool) {
        if is_banned {
            self.set("banned", true);
        }
    }

    fn into_bytes(self) -> Vec<u8> {
        Value::Object(self.line).to_string().into_bytes()
    }
}

impl Wrong {
    fn missing(detail: &str) -> Self {
        Self { code: "missing", detail: detail.to_owned() }
    }

    fn invalid(detail: impl Into<String>) -> Self {
        Self { code: "invalid", detail: detail.into() }
    }
}

/// A text of a row.
fn text<'a>(row: &'a Value, name: &str) -> Option<&'a str> {
    row[name].as_str().map(str::trim).filter(|text| !text.is_empty())
}

/// An id of a row, which may be a number.
fn id(row: &Value, name: &str) -> Option<String> {
    match &row[name] {
        Value::Number(number) => Some(number.to_string()),
        value => value.as_str().map(str::to_owned),
    }
}

/// A truth of a row, as databases and their tools write it.
fn truth(value: &Value) -> bool {
    match value {
        Value::Bool(is_true) => *is_true,
        Value::Number(number) => number.as_f64().is_some_and(|number| number != 0.0),
        Value::String(text) => ["true", "t", "1", "yes"].iter().any(|it| text.eq_ignore_ascii_case(it)),
        _ => false,
    }
}

/// Two parts of a name.
fn full_name(row: &Value, first: &str, last: &str) -> String {
    [text(row, first), text(row, last)].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// A time in milliseconds since 1970, as a number or its digits.
fn milliseconds(value: &Value) -> Option<Value> {
    let number = value.as_i64().or_else(|| value.as_str()?.parse().ok())?;
    Some(domain::Timestamp::from_millisecond(number).ok()?.to_string().into())
}

/// A time in the forms of databases, as RFC 3339. One that says nothing (`0000-00-00 00:00:00`) is none.
fn time(value: &Value) -> Option<Value> {
    let text = value.as_str()?.trim();
    if text.starts_with("0000") {
        return None;
    }
    // PostgreSQL leaves the minutes of an offset out.
    let text = text.replacen(' ', "T", 1);
    let is_short = text.len() > 3 && text[text.len() - 3..].starts_with(['+', '-']) && text.contains('T');
    Some(if is_short { format!("{text}:00") } else { text }.into())
}

/// The roles of a row: a list, or a text with commas.
fn roles(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            text.split(',').map(str::trim).filter(|role| !role.is_empty()).collect::<Vec<_>>().into()
        }
        Value::Array(_) => value.clone(),
        _ => json!([]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that a file becomes, and what is wrong with the others.
    pub fn converted(format: Format, file: &str) -> Vec<Result<Value, String>> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("export");
        std::fs::write(&path, file).expect("written");
        let mut entries = Vec::new();
        let mut number = 0;
        format
            .read(&path, &mut |entry| {
                number += 1;
                assert_eq!(entry.number, number);
                entries.push(match entry.line {
                    Ok(line) => Ok(serde_json::from_slice(&line).expect("JSON")),
                    Err(wrong) => Err(wrong.detail),
                });
                ControlFlow::Continue(())
            })
            .unwrap_or_else(|error| panic!("{error:#}"));
        entries
    }

    #[test]
    fn times_of_databases() {
        for (text, expected) in [
            ("2019-03-01 12:00:00+00", Some("2019-03-01T12:00:00+00:00")),
            ("2019-03-01 12:00:00.5-03", Some("2019-03-01T12:00:00.5-03:00")),
            ("2019-03-01 12:00:00", Some("2019-03-01T12:00:00")),
            ("2019-03-01T12:00:00.000Z", Some("2019-03-01T12:00:00.000Z")),
            ("2019-03-01", Some("2019-03-01")),
            ("0000-00-00 00:00:00", None),
        ] {
            assert_eq!(time(&json!(text)), expected.map(Value::from), "{text}");
        }
        assert_eq!(milliseconds(&json!("1551441600000")), Some(json!("2019-03-01T12:00:00Z")));
    }
}
