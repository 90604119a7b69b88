//! Firebase: what `firebase auth:export users.json` writes, and the parameters of the project's hashes.

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use super::{Person, Wrong, milliseconds, text};

pub(super) fn person(row: &Value) -> Result<Person, Wrong> {
    let mut person = Person::new(text(row, "email"), row["emailVerified"] == true)?;
    person.set("external_id", text(row, "localId"));
    person.set("name", text(row, "displayName"));
    person.set("phone", text(row, "phoneNumber"));
    person.set("avatar_url", text(row, "photoUrl"));
    person.set("created_at", milliseconds(&row["createdAt"]));
    if let (Some(hash), Some(salt)) = (text(row, "passwordHash"), text(row, "salt")) {
        person.set("password_hash", json!({ "algorithm": "firebase-scrypt", "salt": salt, "hash": hash }));
    }
    person.ban_if(row["disabled"] == true);
    let providers = row["providerUserInfo"].as_array().map_or(&[][..], Vec::as_slice);
    let is_social = |it: &&Value| it["providerId"] != "password" && it["providerId"] != "phone";
    person.left_out = providers.iter().filter(is_social).count() as u64;
    Ok(person)
}

/// The first line of an import, from the parameters as JSON or as Firebase's console shows them:
/// `hash_config { algorithm: SCRYPT, base64_signer_key: …, base64_salt_separator: Bw==, rounds: 8, mem_cost: 14, }`.
pub fn hash_config(text: &str) -> anyhow::Result<Value> {
    let given: Map<String, Value> = if text.trim_start().starts_with("hash_config") {
        let inner = text.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(inner, _)| inner);
        let pairs = inner.context("there is no { … } after hash_config")?.split(',');
        let pair = |pair: &str| {
            let (name, value) = pair.trim().split_once(':')?;
            Some((name.trim().to_owned(), Value::from(value.trim())))
        };
        pairs.filter_map(pair).collect()
    } else {
        serde_json::from_str(text).context("neither JSON nor a hash_config of Firebase's console")?
    };
    let member = |names: [&str; 2]| names.iter().find_map(|name| given.get(*name));
    let text = |names: [&str; 2]| {
        member(names).and_then(Value::as_str).with_context(|| format!("{} is missing", names[0]))
    };
    let number = |name: &str| {
        let value =
            member([name, name]).and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
        value.with_context(|| format!("{name} is missing"))
    };
    if member(["algorithm", "algorithm"]).is_some_and(|algorithm| algorithm != "SCRYPT") {
        bail!("the algorithm is not SCRYPT");
    }
    Ok(json!({ "firebase_hash_config": {
        "signer_key": text(["signer_key", "base64_signer_key"])?,
        "salt_separator": text(["salt_separator", "base64_salt_separator"])?,
        "rounds": number("rounds")?,
        "mem_cost": number("mem_cost")?,
    }}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user_formats::{Format, converted};

    #[test]
    fn an_export_of_the_command_line() {
        let file = r#"{"users": [
{
  "localId": "1a2B3c",
  "email": "ada@example.com",
  "emailVerified": true,
  "passwordHash": "lSrfV15cpx95_sZS2W9c9Kp6i_LVgQNDNC_qzrCnh1SAyZvqmZqAjTdn3aoItz-VHjoZilo78198JAdRuid5lQ==",
  "salt": "42xEC-ixf3L2lw==",
  "displayName": "Ada Lovelace",
  "photoUrl": "https://app.example.com/ada.png",
  "lastSignedInAt": "1615296712000",
  "createdAt": "1551441600000",
  "phoneNumber": "+442079460000",
  "disabled": true,
  "providerUserInfo": [{"providerId": "password", "email": "ada@example.com"}]
},
{
  "localId": "9z",
  "email": "grace@example.com",
  "emailVerified": true,
  "createdAt": "1551441600000",
  "providerUserInfo": [{"providerId": "google.com", "rawId": "1", "email": "grace@example.com"}]
},
{ "localId": "anonymous", "createdAt": "1551441600000", "providerUserInfo": [] }
]}"#;
        let lines = converted(Format::Firebase, file);
        assert_eq!(
            lines[0],
            Ok(json!({
                "external_id": "1a2B3c",
                "email": "ada@example.com",
                "email_verified": true,
                "name": "Ada Lovelace",
                "phone": "+442079460000",
                "avatar_url": "https://app.example.com/ada.png",
                "created_at": "2019-03-01T12:00:00Z",
                "password_hash": {
                    "algorithm": "firebase-scrypt",
                    "salt": "42xEC-ixf3L2lw==",
                    "hash": "lSrfV15cpx95_sZS2W9c9Kp6i_LVgQNDNC_qzrCnh1SAyZvqmZqAjTdn3aoItz-VHjoZilo78198JAdRuid5lQ==",
                },
                "banned": true,
            }))
        );
        assert_eq!(lines[1].as_ref().expect("a line")["external_id"], "9z");
        assert!(lines[2].is_err() && lines.len() == 3);
    }

    #[test]
    fn parameters_as_the_console_shows_them() {
        let console = "hash_config {\n  algorithm: SCRYPT,\n  base64_signer_key: jxsp/r8Ki0==,\n  base64_salt_separator: Bw==,\n  rounds: 8,\n  mem_cost: 14,\n}\n";
        let expected = json!({ "firebase_hash_config": {
            "signer_key": "jxsp/r8Ki0==", "salt_separator": "Bw==", "rounds": 8, "mem_cost": 14,
        }});
        assert_eq!(hash_config(console).expect("parameters"), expected);
        let json = expected["firebase_hash_config"].to_string();
        assert_eq!(hash_config(&json).expect("parameters"), expected);
        for text in
            ["", "{}", "hash_config", &console.replace("SCRYPT", "MD5"), &console.replace("rounds", "r")]
        {
            assert!(hash_config(text).is_err(), "{text}");
        }
    }
}
