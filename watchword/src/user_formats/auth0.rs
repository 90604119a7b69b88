//! Auth0: the NDJSON of a user export job (`user_id`, `email_verified`, …), or of the export of password hashes that its support
//! makes (`_id`, `passwordHash`).

use serde_json::Value;

use super::{Person, Wrong, roles, text, time};

pub(super) fn person(row: &Value) -> Result<Person, Wrong> {
    let mut person = Person::new(text(row, "email"), row["email_verified"] == true)?;
    // In exports of hashes the id comes from the database behind Auth0's own.
    let id = match row["_id"]["$oid"].as_str() {
        Some(id) => Some(format!("auth0|{id}")),
        None => text(row, "user_id").map(str::to_owned),
    };
    person.set("external_id", id);
    // Who has given no name has the address as one.
    person.set("name", text(row, "name").filter(|name| !name.contains('@')));
    person.set("phone", text(row, "phone_number"));
    person.set("avatar_url", text(row, "picture"));
    person.set("created_at", time(&row["created_at"]));
    person.set("roles", roles(&row["app_metadata"]["roles"]));
    let hash = text(row, "passwordHash").or_else(|| text(&row["custom_password_hash"]["hash"], "value"));
    person.set("password_hash", hash);
    person.ban_if(row["blocked"] == true);
    let identities = row["identities"].as_array().map_or(&[][..], Vec::as_slice);
    person.left_out = identities.iter().filter(|it| it["isSocial"] == true).count() as u64;
    Ok(person)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::user_formats::{Format, converted};

    #[test]
    fn both_exports() {
        let file = r#"{"user_id":"auth0|5f7c8ec7c33c6c004bbafe82","email":"ada@example.com","email_verified":true,"name":"ada@example.com","nickname":"ada","picture":"https://s.gravatar.com/avatar/8eb1b522f60d11fa897de1dc6351b7e8?s=480","created_at":"2020-10-06T15:35:03.123Z","updated_at":"2021-01-06T15:35:03.123Z","identities":[{"user_id":"5f7c8ec7c33c6c004bbafe82","provider":"auth0","connection":"Username-Password-Authentication","isSocial":false}],"app_metadata":{"roles":["editor"]},"blocked":true}
{"user_id":"google-oauth2|1","email":"grace@example.com","email_verified":true,"name":"Grace Hopper","identities":[{"provider":"google-oauth2","user_id":"1","connection":"google-oauth2","isSocial":true}]}
{"_id":{"$oid":"60425dc43519d90068f82973"},"email_verified":false,"email":"alan@example.com","passwordHash":"$2b$10$Z6hUTEEeoJXN5/AmSm/4.eZ75RYgFVriQM9LPhNEC7kbAbS/VAaJ2","password_set_date":{"$date":"2021-03-05T16:35:16.775Z"},"tenant":"dev-rwsbs6ym","connection":"Username-Password-Authentication","_tmp_is_unique":true}
{"user_id":"sms|1","phone_number":"+442079460000","phone_verified":true}
"#;
        let lines = converted(Format::Auth0, file);
        assert_eq!(
            lines[0],
            Ok(json!({
                "external_id": "auth0|5f7c8ec7c33c6c004bbafe82",
                "email": "ada@example.com",
                "email_verified": true,
                "avatar_url": "https://s.gravatar.com/avatar/8eb1b522f60d11fa897de1dc6351b7e8?s=480",
                "created_at": "2020-10-06T15:35:03.123Z",
                "roles": ["editor"],
                "banned": true,
            }))
        );
        assert_eq!(
            lines[1],
            Ok(json!({ "external_id": "google-oauth2|1", "email": "grace@example.com",
            "email_verified": true, "name": "Grace Hopper" }))
        );
        assert_eq!(
            lines[2],
            Ok(json!({
                "external_id": "auth0|60425dc43519d90068f82973",
                "email": "alan@example.com",
                "email_verified": false,
                "password_hash": "$2b$10$Z6hUTEEeoJXN5/AmSm/4.eZ75RYgFVriQM9LPhNEC7kbAbS/VAaJ2",
            }))
        );
        assert_eq!(lines[3], Err("the account has no address".to_owned()));
    }
}
