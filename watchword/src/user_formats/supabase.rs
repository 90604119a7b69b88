//! Supabase: rows of `auth.users`, as `select json_agg(u) from auth.users u` gives them.

use serde_json::Value;

use super::{Person, Wrong, text, time};

pub(super) fn person(row: &Value) -> Result<Person, Wrong> {
    if text(row, "deleted_at").is_some() {
        return Err(Wrong::invalid("the account was deleted"));
    }
    let verified = text(row, "email_confirmed_at").or_else(|| text(row, "confirmed_at"));
    let mut person = Person::new(text(row, "email"), verified.is_some())?;
    person.set("external_id", text(row, "id"));
    let about = &row["raw_user_meta_data"];
    person.set("name", text(about, "full_name").or_else(|| text(about, "name")));
    person.set("avatar_url", text(about, "avatar_url").or_else(|| text(about, "picture")));
    person.set("phone", text(row, "phone"));
    person.set("created_at", time(&row["created_at"]));
    person.set("password_hash", text(row, "encrypted_password"));
    // A ban has an end there. One that is over is none.
    let banned_until =
        time(&row["banned_until"]).and_then(|time| time.as_str()?.parse::<domain::Timestamp>().ok());
    person.ban_if(banned_until.is_some_and(|end| end > event_store::Clock::now(&event_store::SystemClock)));
    let providers = row["raw_app_meta_data"]["providers"].as_array().map_or(&[][..], Vec::as_slice);
    person.left_out = providers.iter().filter(|it| *it != "email" && *it != "phone").count() as u64;
    Ok(person)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::user_formats::{Format, converted};

    #[test]
    fn rows_of_the_table() {
        let file = json!([
            {
                "instance_id": "00000000-0000-0000-0000-000000000000",
                "id": "6f1c2f1e-8b0a-4c59-9a52-0d3f6a1f2b3c",
                "aud": "authenticated",
                "role": "authenticated",
                "email": "ada@example.com",
                "encrypted_password": "$2a$10$PKpWmqZ1mF0cGHl7YDQb0eV9Qk5v6Wc0a5XJxGmM3y3o9Yl3XqX8S",
                "email_confirmed_at": "2019-03-01T12:00:00.123456+00:00",
                "confirmation_token": "",
                "raw_app_meta_data": { "provider": "email", "providers": ["email", "google"] },
                "raw_user_meta_data": { "full_name": "Ada Lovelace", "avatar_url": "https://app.example.com/ada.png" },
                "is_super_admin": null,
                "created_at": "2019-03-01T12:00:00.123456+00:00",
                "phone": null,
                "banned_until": "2999-01-01T00:00:00+00:00",
                "is_anonymous": false,
            },
            {
                "id": "2", "email": "grace@example.com", "encrypted_password": "", "email_confirmed_at": null,
                "created_at": "2019-03-01 12:00:00+00", "banned_until": "2020-01-01 00:00:00+00",
            },
            { "id": "3", "email": "alan@example.com", "deleted_at": "2020-01-01T00:00:00+00:00" },
        ]);
        let lines = converted(Format::Supabase, &file.to_string());
        assert_eq!(
            lines[0],
            Ok(json!({
                "external_id": "6f1c2f1e-8b0a-4c59-9a52-0d3f6a1f2b3c",
                "email": "ada@example.com",
                "email_verified": true,
                "name": "Ada Lovelace",
                "avatar_url": "https://app.example.com/ada.png",
                "created_at": "2019-03-01T12:00:00.123456+00:00",
                "password_hash": "$2a$10$PKpWmqZ1mF0cGHl7YDQb0eV9Qk5v6Wc0a5XJxGmM3y3o9Yl3XqX8S",
                "banned": true,
            }))
        );
        assert_eq!(
            lines[1],
            Ok(json!({
                "external_id": "2",
                "email": "grace@example.com",
                "email_verified": false,
                "created_at": "2019-03-01T12:00:00+00:00",
            }))
        );
        assert!(lines[2].is_err());
    }
}
