//! Django: what `manage.py dumpdata auth.user` writes, or of a model of one's own with the same fields. It knows of no address
//! whether it was verified.

use serde_json::Value;

use super::{Person, Wrong, full_name, id, text, time};

pub(super) fn person(row: &Value) -> Result<Person, Wrong> {
    let fields = &row["fields"];
    let mut person = Person::new(text(fields, "email"), false)?;
    person.set("external_id", id(row, "pk"));
    person.set("name", full_name(fields, "first_name", "last_name"));
    person.set("created_at", time(&fields["date_joined"]));
    // An exclamation mark says that nobody logs in with a password.
    person.set("password_hash", text(fields, "password").filter(|hash| !hash.starts_with('!')));
    person.ban_if(fields["is_active"] == false);
    Ok(person)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::user_formats::{Format, converted};

    #[test]
    fn a_dump_of_the_table() {
        let hash = "pbkdf2_sha256$1200$AbCdEfGhIjKlMnOpQrStUv$RtN3UULge9xcN+tq0PWeisQphsKfg+XdSNqJxssLEaE=";
        let file = json!([
            {
                "model": "auth.user",
                "pk": 1,
                "fields": {
                    "password": hash, "last_login": "2020-01-01T00:00:00Z", "is_superuser": true, "username": "ada",
                    "first_name": "Ada", "last_name": "Lovelace", "email": "ada@example.com", "is_staff": true,
                    "is_active": false, "date_joined": "2019-03-01T12:00:00.123Z", "groups": [], "user_permissions": [],
                },
            },
            {
                "model": "accounts.user",
                "pk": "9f0e9b3c-4e0e-4b0e-8b0e-3c4e0e4b0e8b",
                "fields": { "password": "!wbe6QWGYvUsyIXfNfKG4kqv0EcYzBGdFVf0Q1Sx0", "email": "grace@example.com",
                    "is_active": true },
            },
            { "model": "auth.user", "pk": 3, "fields": { "username": "cron", "email": "" } },
        ]);
        let lines = converted(Format::Django, &file.to_string());
        assert_eq!(
            lines[0],
            Ok(json!({
                "external_id": "1",
                "email": "ada@example.com",
                "email_verified": false,
                "name": "Ada Lovelace",
                "created_at": "2019-03-01T12:00:00.123Z",
                "password_hash": hash,
                "banned": true,
            }))
        );
        assert_eq!(
            lines[1],
            Ok(json!({
                "external_id": "9f0e9b3c-4e0e-4b0e-8b0e-3c4e0e4b0e8b", "email": "grace@example.com", "email_verified": false,
            }))
        );
        assert!(lines[2].is_err());
    }
}
