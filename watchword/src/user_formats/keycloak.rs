//! Keycloak: a realm with its users, as `kc.sh export` writes it. A credential is two JSON texts within the JSON.

use serde_json::{Value, json};

use super::{Person, Wrong, full_name, milliseconds, text};

/// Roles that Keycloak gives everybody.
const OF_EVERYBODY: [&str; 3] = ["default-roles-", "offline_access", "uma_authorization"];

pub(super) fn person(row: &Value) -> Result<Person, Wrong> {
    let mut person = Person::new(text(row, "email"), row["emailVerified"] == true)?;
    person.set("external_id", text(row, "id"));
    person.set("name", full_name(row, "firstName", "lastName"));
    let attribute = |name: &str| row["attributes"][name][0].as_str();
    person.set("phone", attribute("phoneNumber"));
    person.set("avatar_url", attribute("picture"));
    person.set("created_at", milliseconds(&row["createdTimestamp"]));
    let roles = row["realmRoles"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let own = |role: &&str| !OF_EVERYBODY.iter().any(|start| role.starts_with(start));
    person.set("roles", roles.filter(own).collect::<Vec<_>>());
    let credentials = row["credentials"].as_array().map_or(&[][..], Vec::as_slice);
    if let Some(password) = credentials.iter().find(|it| it["type"] == "password") {
        person.set("password_hash", hash(password)?);
    }
    person.ban_if(row["enabled"] == false);
    person.left_out = row["federatedIdentities"].as_array().map_or(0, Vec::len) as u64;
    Ok(person)
}

fn hash(credential: &Value) -> Result<Value, Wrong> {
    let inner =
        |name: &str| credential[name].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let parts = inner("secretData").zip(inner("credentialData"));
    let (secret, data) =
        parts.ok_or_else(|| Wrong::invalid("the password is of a version before Keycloak 8"))?;
    let (salt, value) = (&secret["salt"], &secret["value"]);
    let algorithm = match data["algorithm"].as_str() {
        Some("pbkdf2") => "pbkdf2-sha1",
        Some(known @ ("pbkdf2-sha256" | "pbkdf2-sha512")) => known,
        Some("argon2") => {
            return argon2(salt, value, &data)
                .ok_or_else(|| Wrong::invalid("an argon2 hash lacks parameters"));
        }
        _ => {
            return Err(Wrong::invalid(
                "the password's algorithm is not pbkdf2, pbkdf2-sha256, pbkdf2-sha512 or argon2",
            ));
        }
    };
    Ok(json!({ "algorithm": algorithm, "salt": salt, "iterations": data["hashIterations"], "hash": value }))
}

/// A PHC string of the parameters, which are lists of texts.
fn argon2(salt: &Value, hash: &Value, data: &Value) -> Option<Value> {
    let parameter = |name: &str| data["additionalParameters"][name][0].as_str();
    let (kind, memory, lanes) = (parameter("type")?, parameter("memory")?, parameter("parallelism")?);
    let version = if parameter("version")? == "1.0" { 16 } else { 19 };
    let unpadded = |value: &Value| Some(value.as_str()?.trim_end_matches('=').to_owned());
    let (salt, hash, passes) = (unpadded(salt)?, unpadded(hash)?, data["hashIterations"].as_u64()?);
    let text = format!("$argon2{kind}$v={version}$m={memory},t={passes},p={lanes}${salt}${hash}");
    Some(json!({ "algorithm": "argon2", "hash": text }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::user_formats::{Format, converted};

    #[test]
    fn a_realm_with_users() {
        let file = json!({
            "id": "demo",
            "realm": "demo",
            "roles": { "realm": [{ "name": "editor" }] },
            "users": [
                {
                    "id": "f2a1b7c3-0f0e-4c7e-9d8b-0a1b2c3d4e5f",
                    "createdTimestamp": 1_551_441_600_000_i64,
                    "username": "ada",
                    "enabled": true,
                    "totp": false,
                    "emailVerified": true,
                    "firstName": "Ada",
                    "lastName": "Lovelace",
                    "email": "ada@example.com",
                    "attributes": { "phoneNumber": ["+44 20 7946 0000"] },
                    "credentials": [{
                        "id": "1",
                        "type": "password",
                        "createdDate": 1_551_441_600_000_i64,
                        "secretData": "{\"value\":\"dIF1V+22SNTEnvttpx6RxmlwHVZBwB3wlL/NU51OxdX4BqSZ7qsPN1eZaLS9JmpttBNdGv9QYc4B122QO1adeQ==\",\"salt\":\"j3PXLuHXNlabltmjDEIVqg==\",\"additionalParameters\":{}}",
                        "credentialData": "{\"hashIterations\":27500,\"algorithm\":\"pbkdf2-sha256\",\"additionalParameters\":{}}",
                    }],
                    "realmRoles": ["default-roles-demo", "editor", "offline_access"],
                    "groups": [],
                },
                {
                    "id": "2",
                    "username": "grace",
                    "enabled": false,
                    "email": "grace@example.com",
                    "credentials": [{
                        "type": "password",
                        "secretData": "{\"value\":\"fG/BKOW5LT8TcMRxta/UYey/9PItEc9+gh6PlWEcaH8=\",\"salt\":\"S3sNRDr/yu8i3yFLiQwuDQ==\",\"additionalParameters\":{}}",
                        "credentialData": "{\"hashIterations\":5,\"algorithm\":\"argon2\",\"additionalParameters\":{\"hashLength\":[\"32\"],\"memory\":[\"7168\"],\"type\":[\"id\"],\"version\":[\"1.3\"],\"parallelism\":[\"1\"]}}",
                    }],
                },
                { "id": "3", "username": "service-account", "enabled": true },
            ],
        });
        let lines = converted(Format::Keycloak, &file.to_string());
        assert_eq!(
            lines[0],
            Ok(json!({
                "external_id": "f2a1b7c3-0f0e-4c7e-9d8b-0a1b2c3d4e5f",
                "email": "ada@example.com",
                "email_verified": true,
                "name": "Ada Lovelace",
                "phone": "+44 20 7946 0000",
                "created_at": "2019-03-01T12:00:00Z",
                "roles": ["editor"],
                "password_hash": {
                    "algorithm": "pbkdf2-sha256",
                    "salt": "j3PXLuHXNlabltmjDEIVqg==",
                    "iterations": 27_500,
                    "hash": "dIF1V+22SNTEnvttpx6RxmlwHVZBwB3wlL/NU51OxdX4BqSZ7qsPN1eZaLS9JmpttBNdGv9QYc4B122QO1adeQ==",
                },
            }))
        );
        assert_eq!(
            lines[1],
            Ok(json!({
                "external_id": "2",
                "email": "grace@example.com",
                "email_verified": false,
                "password_hash": {
                    "algorithm": "argon2",
                    "hash": "$argon2id$v=19$m=7168,t=5,p=1$S3sNRDr/yu8i3yFLiQwuDQ$fG/BKOW5LT8TcMRxta/UYey/9PItEc9+gh6PlWEcaH8",
                },
                "banned": true,
            }))
        );
        assert!(lines[2].is_err() && lines.len() == 3);
    }
}
